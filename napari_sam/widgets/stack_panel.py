"""Objects of a stack in the window: followed in the worker, drawn as they come."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from napari.utils.notifications import show_info, show_warning
from qtpy.QtWidgets import QVBoxLayout, QWidget

from napari_sam.engine.records import made_by
from napari_sam.errors import NapariSamError
from napari_sam.widgets.activity import Activity
from napari_sam.widgets.contrast_question import warn_of_earlier_contrast
from napari_sam.widgets.geometry import spatial_shape, stack_axes, stack_view
from napari_sam.widgets.stack_form import StackForm

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_sam.engine.jobs import Job, Step
    from napari_sam.engine.request import PlaneView, StackView
    from napari_sam.engine.stack_edit import StackEdit
    from napari_sam.engine.stack_link import LinkEdit
    from napari_sam.engine.stack_objects import StackObjects
    from napari_sam.widgets.panel import DockParts
    from napari_sam.widgets.workers import Task


class StackPanel(QWidget):
    """Follow objects through slices and frames; see where a look is needed.

    Parameters
    ----------
    parts : DockParts
    """

    title = "Through the stack"

    def __init__(self, parts: DockParts) -> None:
        super().__init__()
        self._parts = parts
        self.form = StackForm()
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.form)
        self._objects: StackObjects | None = None
        self._edit: StackEdit | None = None
        self._task: Task | None = None
        self._running: StackView | None = None
        self._watched: Any = None
        self._activity = Activity("Follow through the stack")
        form = self.form
        form.follow_asked.connect(self._try(self.follow))
        form.link_asked.connect(self._try(self.link))
        form.stop_asked.connect(self.stop)
        form.axis_changed.connect(self._show)
        form.slice_chosen.connect(self.go_to)
        form.next_asked.connect(self.next_doubtful)
        form.check_asked.connect(self._try(self.check))
        form.end_asked.connect(self._try(self.end_here))
        form.give_asked.connect(self._try(self.give))
        form.delete_asked.connect(self._try(self.delete))
        session, bridge = parts.session, parts.bridge
        session.view_changed.connect(self._view_changed)
        session.records_changed.connect(self._show)
        bridge.labels_changed.connect(self._labels_chosen)
        bridge.leaving.connect(self._leave)
        bridge.contrast_used.connect(self._contrast_used)
        parts.network.loaded.connect(self.stop)
        self._labels_chosen(bridge.labels)
        self._view_changed(session.view)

    @property
    def objects(self) -> StackObjects:
        """What the session knows of objects of stacks."""
        if self._objects is None:
            # it needs torch, which the dock does not wait for
            from napari_sam.engine.stack_objects import StackObjects

            self._objects = StackObjects(self._parts.session)
        return self._objects

    def stack(self) -> StackView | None:
        """Return the planes along the chosen axis; None without them."""
        view, image = self._parts.session.view, self._parts.bridge.image
        axis = self.form.chosen_axis()
        if view is None or image is None or axis not in stack_axes(view):
            return None
        return stack_view(image, view, axis)

    def object_id(self) -> int:
        """Return the object whose label is chosen; 0 if there is none."""
        labels = self._parts.bridge.labels
        return 0 if labels is None else int(labels.selected_label)

    def follow(self, which: Literal["current", "all"] = "current") -> None:
        """Follow the current object, or all of this slice.

        Raises
        ------
        InputError
            If there is nothing to follow.
        """
        stack, planes = self.stack(), self._parts.network.planes
        if self._task is not None:
            return
        if stack is None:
            show_warning("Nothing to follow: open a stack, and show it in 2D.")
            return
        if planes is None:
            show_warning("The model is still being loaded; try again in a moment.")
            return
        from napari_sam.engine.follow import PropagateConfig
        from napari_sam.engine.stack_edit import StackEdit, follow

        self._parts.bridge.need_labels()
        settings, model = self.form.settings(), planes.model
        within = settings.within(stack.here)
        config = PropagateConfig(
            min_predicted_iou=settings.min_predicted_iou,
            min_overlap=settings.min_overlap,
            min_contrast=settings.min_contrast,
            max_gap=settings.max_gap,
            branches=settings.branches,
        )
        if which == "all":
            followed = self.objects.all_here(stack, within)
        else:
            followed = self.objects.current(stack, within, self.object_id())
        by = (id(model), model.weights_sha256, config)
        followed = self.objects.recall(stack, followed, by)
        self._edit = StackEdit(
            self.objects, stack, followed, within, by, made_by(model)
        )
        self._running = stack
        self.form.show_progress(0)
        self._activity.begin()

        def work() -> Job[None]:
            planes.keep_on_disk()
            return follow(planes, stack, followed, within, config)

        self._task = self._parts.worker.start(
            "follow",
            work,
            on_step=self._take,
            on_done=lambda _: self._finish(),
            on_error=self._failed,
        )

    def link(self) -> None:
        """Link the labels of all slices of the range, in the worker."""
        stack, session = self.stack(), self._parts.session
        if self._task is not None:
            return
        if stack is None or session.labels is None:
            show_warning("Nothing to link: open a stack, and choose its labels.")
            return
        from napari_sam.engine.stack_link import link_stack

        labels, records = session.labels, dict(session.records)
        settings = self.form.settings()
        within = (settings.first, settings.last + 1)
        self._running = stack
        self.form.show_progress(0)

        def linked(found: LinkEdit) -> None:
            self._finish()
            if session.labels is not labels:
                return
            noun = "object" if found.n_objects == 1 else "objects"
            what = f"link {found.n_objects} {noun}"
            session.edit_labels(what, found.edits, found.records)
            show_info(
                f"{found.n_objects} {noun} in slices {within[0]} to {within[1] - 1}."
            )

        self._task = self._parts.worker.start(
            "link slices",
            lambda: link_stack(labels, stack, within, records),
            on_step=lambda step: self.form.show_progress(step.done, step.total),
            on_done=linked,
            on_error=self._failed,
        )

    def stop(self, *_: object) -> None:
        """Stop after the slice in hand; what was computed stays, as one step."""
        if self._task is not None:
            self._parts.worker.cancel(self._task)
            self._finish()

    def _leave(self) -> None:
        """Stop while the image and the labels that are written are still there."""
        if self._task is not None:
            self.stop()
            show_warning(
                "The work through the stack has stopped, as its image or its labels "
                "are no longer chosen; the slices that are there stay."
            )

    def next_doubtful(self) -> None:
        """Go to the next slice that is worth a look."""
        from napari_sam.engine.stack_objects import next_doubtful

        stack = self.stack()
        if stack is None:
            return
        marks = self.objects.marks(stack, self.object_id())
        at = next_doubtful(marks, stack.here)
        if at is None:
            show_info("No slice of this object is worth a look.")
        else:
            self.go_to(at)

    def go_to(self, at: int) -> None:
        """Show a slice."""
        stack = self.stack()
        if stack is not None:
            self._parts.bridge.go_to(stack.index(at))

    def check(self, checked: bool = True) -> None:
        """Note that this slice is right."""
        stack = self.stack()
        if stack is not None:
            self.objects.check(stack, self.object_id(), checked=checked)

    def end_here(self) -> None:
        """Note that this slice is without the object."""
        stack = self.stack()
        if stack is not None:
            self.objects.end_here(stack, self.object_id())

    def give(self) -> None:
        """Let the prompts of this slice be those of the object."""
        self._parts.session.assign(self.object_id())

    def delete(self) -> None:
        """Delete the object in all slices."""
        stack = self.stack()
        if stack is not None:
            self.objects.delete(stack, self.object_id())

    def close_panel(self) -> None:
        """Stop, and listen no more."""
        self.stop()
        session, bridge = self._parts.session, self._parts.bridge
        session.view_changed.disconnect(self._view_changed)
        session.records_changed.disconnect(self._show)
        bridge.labels_changed.disconnect(self._labels_chosen)
        bridge.leaving.disconnect(self._leave)
        bridge.contrast_used.disconnect(self._contrast_used)
        self._parts.network.loaded.disconnect(self.stop)
        self._labels_chosen(None)

    def _take(self, step: Step) -> None:
        found: Any = step.value
        if self._edit is None or self._task is None:
            return
        self._edit.take(found)
        self.form.show_progress(step.done, step.total)
        self._activity.show(step.done, step.total)
        stack = self.stack()
        if stack is not None and self._is_running(stack):
            marks = self._edit.marks(found.object_id)
            self.form.show_object(found.object_id, marks, stack.here)

    def _finish(self) -> None:
        edit, self._edit, self._task = self._edit, None, None
        self.form.show_progress(None)
        ids = [] if edit is None else edit.finish()
        noun = "object" if len(ids) == 1 else "objects"
        self._activity.end(f"{len(ids)} {noun} followed through the stack.")
        labels = self._parts.bridge.labels
        if ids and labels is not None:
            labels.selected_label = ids[-1]
        self._running = None
        self._show()

    def _failed(self, error: Exception) -> None:
        self._finish()
        self._parts.worker.failed.emit(error)

    def _is_running(self, stack: StackView) -> bool:
        running = self._running
        return (
            running is not None
            and running.axis == stack.axis
            and running.position(stack.view.index) is not None
        )

    def _view_changed(self, view: PlaneView | None) -> None:
        running, image = self._running, self._parts.bridge.image
        if running is not None and (
            image is None
            or (view is not None and view.image_key != running.view.image_key)
        ):
            self.stop()
        if view is not None and image is not None:
            # of the layer: napari before 0.9 does not tell them to its sliders
            lengths, names = spatial_shape(image), image.axis_labels
            self.form.set_axes(
                [
                    (axis, _name(names[axis], axis), lengths[axis])
                    for axis in stack_axes(view)
                ]
            )
        elif image is None:
            self.form.set_axes([])
        self._show()

    def _contrast_used(self) -> None:
        if self._edit is not None:  # linking looks at no pixels
            warn_of_earlier_contrast("Following")

    def _show(self, *_: object) -> None:
        stack, number = self.stack(), self.object_id()
        if stack is None or self._task is not None:
            return
        if self._parts.network.planes is None:  # nothing was followed yet
            self.form.show_object(0, (), stack.here)
            return
        marks = self.objects.marks(stack, number)
        self.form.show_object(number if marks else 0, marks, stack.here)

    def _labels_chosen(self, layer: Any) -> None:
        self.stop()
        if self._watched is not None:
            self._watched.events.selected_label.disconnect(self._show)
        self._watched = layer
        if layer is not None:
            layer.events.selected_label.connect(self._show)
            self._show()

    def _try(self, command: Callable[..., object]) -> Callable[..., None]:
        def tried(*arguments: Any) -> None:
            try:
                command(*arguments)
            except NapariSamError as error:
                self._parts.worker.failed.emit(error)

        return tried


def _name(label: str, axis: int) -> str:
    """Return the name of an axis; napari calls nameless ones by a number from behind.

    Examples
    --------
    >>> _name("z", 0), _name("-3", 0)
    ('z', 'axis 0')
    """
    return f"axis {axis}" if label.lstrip("-").isdecimal() or not label else label
