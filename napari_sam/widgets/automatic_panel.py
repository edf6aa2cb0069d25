"""All objects of a plane or a stack: search in the worker, choose in the window.

Candidates are shown as they are found. Choosing among them runs in the worker, too:
for a whole slide it takes seconds, and the window must not wait.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from napari.utils.notifications import show_info, show_warning
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QVBoxLayout, QWidget

from napari_sam.engine.choice import Choice
from napari_sam.engine.records import made_by
from napari_sam.tiling import Box
from napari_sam.widgets.activity import Activity
from napari_sam.widgets.automatic_form import AutomaticForm
from napari_sam.widgets.contrast_question import warn_of_earlier_contrast
from napari_sam.widgets.geometry import spatial_shape, visible_box
from napari_sam.widgets.keeping import Keeper
from napari_sam.widgets.plane_layers import CandidateLayer
from napari_sam.widgets.stored_labels import is_too_large
from napari_sam.widgets.turns import in_turns

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from napari.layers import Image

    from napari_sam.engine.candidates import Candidates
    from napari_sam.engine.jobs import Job, Step
    from napari_sam.engine.records import ObjectRecord
    from napari_sam.engine.request import PlaneView
    from napari_sam.engine.thresholds import Search, Thresholds
    from napari_sam.labels import LabelEdit, LabelTarget, PlaneIndex
    from napari_sam.stitch import PlaneObject
    from napari_sam.widgets.automatic_form import Extent
    from napari_sam.widgets.keeping import Found
    from napari_sam.widgets.panel import DockParts
    from napari_sam.widgets.plane_layers import Drawing
    from napari_sam.widgets.workers import Task


_DRAWN_MS = 100  # a panel that has just been opened needs a moment to be drawn


class AutomaticPanel(QWidget):
    """Find all objects, choose among them, keep them.

    Parameters
    ----------
    parts : DockParts
    """

    title = "Find all objects"

    def __init__(self, parts: DockParts) -> None:
        super().__init__()
        self._parts = parts
        self.form = AutomaticForm()
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.form)
        self.candidates = CandidateLayer(parts.viewer)
        parts.bridge.candidate_layer = lambda: self.candidates.layer
        self.choice: Choice | None = None
        self._task: Task | None = None
        self._place: object = None  # the plane that is searched, or was
        self._image_key: object = None
        self._is_stack = self._is_keeping = self._ended = False
        self._wished: Thresholds | None = None
        self._made_by: dict[str, str | None] = {}
        self._keeper = Keeper(parts)
        self._drawn = QTimer(self)
        self._drawn.setSingleShot(True)
        self._drawn.setInterval(_DRAWN_MS)
        self._drawn.timeout.connect(self._prepare)
        self._activity = Activity("Find objects")
        form = self.form
        form.run_asked.connect(self.find)
        form.stop_asked.connect(self.stop)
        form.thresholds_changed.connect(self._wish)
        form.mode_changed.connect(self._forget_wish)
        form.commit_asked.connect(self.commit)
        form.reject_asked.connect(self._reject)
        form.discard_asked.connect(self.discard)
        parts.network.loaded.connect(self._use_model)
        parts.session.view_changed.connect(self._view_changed)
        parts.session.labels_changed.connect(self._labels_changed)
        parts.bridge.labels_changed.connect(self._labels_chosen)
        parts.bridge.image_changed.connect(self._image_changed)
        parts.bridge.contrast_used.connect(self._contrast_used)

    def find(self, extent: Extent = "view") -> None:
        """Search a part of the image; candidates appear as they are found."""
        view, planes = self._parts.session.view, self._parts.network.planes
        if view is None:
            show_warning("Nothing to search: open an image, and show it in 2D.")
            return
        if planes is None:
            show_info("The search begins as soon as the model is loaded.")
            self._parts.network.when_loaded(lambda: self.find(extent))
            return
        self.discard()
        self._place, self._image_key = view.place, view.image_key
        self._made_by = made_by(planes.model)
        search = self.form.search()
        image = self._parts.bridge.image
        region = None
        self.form.show_progress(0, unit="planes" if extent == "stack" else "crops")
        self.form.show_found(None)
        self._activity.begin()
        if image is not None and extent != "stack":
            drawn = Box.whole(view.shape)
            if extent == "view":
                region = visible_box(image, view)
                if region is not None and is_too_large(view.shape):
                    drawn = _around(region).clip(view.shape)
            self._make_layer(drawn, image)
        self._is_stack = extent == "stack"

        def one_plane() -> Job[Any]:
            from napari_sam.engine.candidates import config_of, find_candidates

            return find_candidates(
                planes.open(view), config=config_of(search), region=region
            )

        def all_planes() -> Job[Any]:
            return _find_in_stack(planes, list(self._views(view)), search)

        self._task = self._parts.worker.start(
            "find objects",
            all_planes if extent == "stack" else one_plane,
            on_step=self._show_step,
            on_done=self._take_stack if extent == "stack" else self._found,
            on_error=self._failed,
        )

    def stop(self) -> None:
        """Stop the search; what has been found stays."""
        if self._task is not None:
            self._parts.worker.cancel(self._task)
            self._task = None
        if self.choice is None:
            self._drop_layer()
        self._activity.end()
        self.form.show_progress(None)

    def discard(self) -> None:
        """Stop, and drop all candidates."""
        self.choice = None
        self.stop()
        self.form.show_found(None)

    def commit(self, which: Literal["all", "marked"] = "all") -> int:
        """Make objects of candidates, soon and as one step; return how many."""
        choice = self.choice
        n_chosen = 0 if choice is None else len(choice.chosen(which))
        if choice is None or not n_chosen or self._is_keeping:
            return 0
        self._parts.bridge.need_labels()  # the choice adopts them
        self._is_keeping = True

        def end() -> None:
            self._is_keeping = False
            if choice is self.choice:
                self.discard()

        def kept(n_kept: int) -> None:
            if which == "all" and n_kept:
                in_turns(end)
            else:
                self._is_keeping = False

        self._keep(lambda target: choice.edits(which), kept)
        return n_chosen

    def _forget_wish(self) -> None:
        self._wished = None  # each mode has thresholds of its own
        self._show_defaults()

    def _show_defaults(self) -> None:
        """Show the thresholds that the next search will have."""
        planes = self._parts.network.planes
        if planes is None or self.choice is not None or self._wished is not None:
            return
        from napari_sam.engine.candidates import usual_thresholds

        thresholds = usual_thresholds(self.form.search(), planes.model)
        self.form.set_thresholds(thresholds)

    def close_panel(self) -> None:
        """Listen no more, and take the candidates away."""
        self._parts.network.loaded.disconnect(self._use_model)
        self._parts.session.view_changed.disconnect(self._view_changed)
        self._parts.session.labels_changed.disconnect(self._labels_changed)
        self._parts.bridge.labels_changed.disconnect(self._labels_chosen)
        self._parts.bridge.image_changed.disconnect(self._image_changed)
        self._parts.bridge.contrast_used.disconnect(self._contrast_used)
        self._keeper.close()
        self._drawn.stop()
        self.discard()
        self.candidates.close()

    def showEvent(self, event: object) -> None:
        """Make the layer of candidates once the panel is drawn."""
        super().showEvent(event)
        self._drawn.start()

    def _prepare(self) -> None:
        """Make the layers of a search ahead: each takes napari a tenth of a second."""
        image = self._parts.bridge.image
        if image is not None:
            self.candidates.prepare(image)
            in_turns(self._prepare_labels)

    def _prepare_labels(self) -> None:
        if self._parts.bridge.image is not None:
            self._parts.bridge.need_labels()

    def _image_changed(self, _image: object) -> None:
        self.candidates.close()  # it lies over the other image
        if self.isVisible():
            self._drawn.start()

    def _views(self, view: PlaneView) -> Iterator[PlaneView]:
        """All planes of the image that are cut as this one is."""
        image = self._parts.bridge.image
        if image is None:
            return
        lengths = spatial_shape(image)
        others = [
            n for n, each in zip(lengths, view.index, strict=True) if each is not None
        ]
        for place in np.ndindex(*others):
            at = iter(place)
            index = tuple(None if each is None else next(at) for each in view.index)
            yield self._parts.bridge.view_of(index, view)

    def _show_step(self, step: Step) -> None:
        if self._task is None:
            return
        self.form.show_progress(step.done, step.total)
        self._activity.show(step.done, step.total)
        if step.value is not None:
            self._show_candidates(step.value)

    def _show_candidates(self, found: Any) -> None:
        """Offer candidates, of which there may be more in a moment."""
        session = self._parts.session
        if session.view is None:
            return
        if self.choice is None or self.choice.candidates is not found:
            self.choice = Choice(found, session.labels, session.view.index)
            if self._wished is None:
                self.form.set_thresholds(self.choice.thresholds)
        self._choose(self.form.thresholds())

    def _wish(self, thresholds: Thresholds) -> None:
        """Keep to thresholds that the user has set, also in the next search."""
        self._wished = thresholds
        self._choose(thresholds)

    def _found(self, found: Candidates) -> None:
        self._task = None
        self.form.show_progress(None)
        self._ended = True
        self._show_candidates(found)
        if self.choice is None:  # nothing is shown in 3D
            self._activity.end()

    def _choose(self, thresholds: Thresholds) -> None:
        """Choose again, in the worker; only the newest wish counts."""
        choice = self.choice
        if choice is None:
            return

        def select() -> tuple[list[PlaneObject], Drawing]:
            objects = choice.select(thresholds)
            return objects, self.candidates.draw(choice, objects)

        def take(found: tuple[list[PlaneObject], Drawing]) -> None:
            if choice is self.choice:
                objects, drawing = found
                choice.take(thresholds, objects)
                self.candidates.show(drawing)
                self._show_count(choice)
                self._tell_end(choice)

        self._parts.worker.call(select, take, slot="choose candidates")

    def _tell_end(self, choice: Choice) -> None:
        """Tell whoever did not wait what a search has found."""
        if self._ended:
            self._ended = False
            n, n_masks = len(choice.objects), len(choice.candidates.found)
            noun = "object" if n == 1 else "objects"
            self._activity.end(f"{n} {noun} found, of {n_masks} masks.")

    def _show_count(self, choice: Choice) -> None:
        n_marked = sum(choice.is_marked(each) for each in choice.objects)
        self.form.show_found(len(choice.objects), n_marked)

    def _make_layer(self, region: Box, image: Image) -> None:
        layer = self.candidates.begin(region, image)
        if self._clicked not in layer.mouse_drag_callbacks:
            layer.mouse_drag_callbacks.append(self._clicked)
            self._parts.bridge.bind_undo(layer)
        # napari exchanges its controls for the second, a twentieth of a second
        in_turns(self.candidates.appear, self._select_layer)

    def _select_layer(self) -> None:
        """Let clicks go to the candidates."""
        if (layer := self.candidates.layer) is not None:
            self._parts.viewer.layers.selection.active = layer

    def _drop_layer(self) -> None:
        """Take the layer away; the tool in use before comes back."""
        layer = self.candidates.layer
        was_active = (
            layer is not None and self._parts.viewer.layers.selection.active is layer
        )
        self.candidates.clear()
        if was_active:
            in_turns(self._point_again)

    def _point_again(self) -> None:
        prompts = self._parts.bridge.prompts
        if self.candidates.layer is None and prompts is not None:
            prompts.use("points")

    def _clicked(self, _layer: Any, event: Any) -> Iterator[None]:
        """Mark the candidate under a click; a drag moves the camera."""
        yield
        dragged = False
        while event.type == "mouse_move":
            dragged = True
            yield
        image, choice = self._parts.bridge.image, self.choice
        if dragged or choice is None or image is None:
            return
        y, x = image.world_to_data(event.position)[-2:]
        each = choice.toggle(float(y), float(x))
        if each is not None:
            self.candidates.update(choice, [each])
            self._show_count(choice)

    def _reject(self) -> None:
        if self.choice is not None:
            self.candidates.update(self.choice, self.choice.reject_marked())
            self._show_count(self.choice)

    def _take_stack(self, found: list[tuple[PlaneIndex, Candidates]]) -> None:
        """Keep the objects of all planes, as one step."""
        self._task = None
        self.form.show_progress(None)
        self.form.show_found(None)
        self._activity.end()
        wished = self._wished
        self._keep(lambda target: _stack_edits(found, target, wished))

    def _keep(
        self,
        make: Callable[[LabelTarget], Found],
        on_done: Callable[[int], None] = lambda n: None,
    ) -> None:
        """Keep objects, which know the network that has found them."""
        network = self._made_by

        def signed(target: LabelTarget) -> Found:
            edits, records = make(target)
            return edits, [each.model_copy(update=network) for each in records]

        self._keeper.keep(signed, on_done)

    def _failed(self, error: Exception) -> None:
        self._task = None
        self.form.show_progress(None)
        self._activity.end()
        if self.choice is None:
            self._drop_layer()
            self.form.show_found(None)
        self._parts.worker.failed.emit(error)

    def _use_model(self, planes: Any) -> None:
        self.discard()
        self._wished = None
        self.form.set_model(has_head=planes.model.proposal_head is not None)
        self._show_defaults()

    def _view_changed(self, view: PlaneView | None) -> None:
        if self.choice is None and self._task is None:
            return
        in_3d = view is None and self._parts.bridge.image is not None
        stays = in_3d or (view is not None and view.image_key == self._image_key)
        if self._task is not None and self._is_stack and stays:
            return  # looking at other slices meanwhile does no harm
        if view is None or view.place != self._place:
            if self._task is not None:
                show_warning(
                    "The search has stopped, because its plane is no longer shown; "
                    "what it had found was not kept."
                )
            self.discard()

    def _contrast_used(self) -> None:
        if self._task is not None:
            warn_of_earlier_contrast("The search")

    def _labels_chosen(self, _layer: object) -> None:
        choice, labels = self.choice, self._parts.session.labels
        if choice is not None and choice.target is None and labels is not None:
            choice.target = labels  # the first ones
            self._choose(self.form.thresholds())
        elif choice is not None and choice.target is not labels:
            self.discard()  # candidates keep off the labels they were found beside

    def _labels_changed(self, _edits: Any) -> None:
        if self.choice is not None and self._task is None:
            self._choose(self.form.thresholds())


def _around(region: Box) -> Box:
    """Return a box with room for objects at the border of a region."""
    room = 512
    return Box(region.y0 - room, region.x0 - room, region.y1 + room, region.x1 + room)


def _find_in_stack(
    planes: Any, views: list[PlaneView], search: Search
) -> Job[list[tuple[PlaneIndex, Candidates]]]:
    from napari_sam.engine.candidates import config_of, find_candidates
    from napari_sam.engine.jobs import Step, with_step

    found = []
    for number, view in enumerate(views):
        step = Step(number, len(views), "find objects")
        job = find_candidates(planes.open(view), config=config_of(search))
        found.append((view.index, (yield from with_step(step, job))))
        yield replace(step, done=number + 1)
    return found


def _stack_edits(
    found: list[tuple[PlaneIndex, Candidates]],
    target: LabelTarget,
    thresholds: Thresholds | None,
) -> tuple[list[LabelEdit], list[ObjectRecord]]:
    edits: list[LabelEdit] = []
    records: list[ObjectRecord] = []
    first_id = target.fresh_ids(1)[0]
    for index, candidates in found:
        choice = Choice(candidates, target, index)
        choice.update(thresholds)
        more, made = choice.edits("all", first_id + len(records))
        edits += more
        records += made
    return edits, records
