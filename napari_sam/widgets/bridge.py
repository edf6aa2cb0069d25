"""The session on one side, the layers of a viewer on the other.

Only here do layers become views and prompts, and masks and edits pixels on the screen.
Panels speak to the session; they never touch a layer.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import count
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Image, Labels, Points, Shapes
from napari.utils.key_bindings import coerce_keybinding
from psygnal import Signal
from qtpy.QtCore import QTimer

from napari_sam.engine.records import RECORDS
from napari_sam.errors import InputError
from napari_sam.tiling import Box
from napari_sam.widgets.geometry import (
    intensity_of,
    plane_index,
    plane_view,
    spatial_shape,
    transform_of,
    visible_box,
)
from napari_sam.widgets.hand_edit import HandEdit
from napari_sam.widgets.layer_labels import LayerLabels
from napari_sam.widgets.prompt_layers import PromptLayers
from napari_sam.widgets.stored_labels import (
    OWN,
    STORE,
    StoreTarget,
    new_labels,
    store_layer,
)
from napari_sam.widgets.turns import insert_beside

if TYPE_CHECKING:
    from collections.abc import Callable

    import napari
    from napari.layers import Layer

    from napari_sam.engine.label_store import LabelStore
    from napari_sam.engine.request import PlaneView
    from napari_sam.engine.session import Session
    from napari_sam.images import Intensity
    from napari_sam.labels import PlaneIndex

_SETTLED_MS = 400  # after the last move of a contrast slider

_MANY_CROPS = 16  # embedded ones: more would take some seconds to be made again

_PAINTED_SIDE = 1024  # pixels a side of what can be painted without an object

_NOT_PAINTING = ("pan_zoom", "transform", "pick")  # modes of a Labels layer

_image_keys = count()


class LayerBridge:
    """Layers of a viewer for one session.

    Parameters
    ----------
    viewer : napari.Viewer
    session : Session

    Signals
    -------
    image_changed, labels_changed : Layer or None
        Another layer was chosen.
    choices_changed : no argument
        Layers came, went or were renamed.
    leaving : no argument
        Image or labels are about to be exchanged; they are still in use.
    layer_made : Layer
        There is a new layer for prompts.
    contrast_held : int
        The contrast was changed, but so many crops are embedded with the earlier one
        that the model goes on to see that, until `use_contrast`; then 0.
    contrast_used : no argument
        From now on the model sees another contrast of the image it saw before.
    tool_changed : str
        What a click on the image does now.

    Attributes
    ----------
    count_embedded : callable
        Returns how many crops of a view are known to be embedded.
    candidate_layer : callable
        Returns the layer of candidates that can be marked; None without a search.
    hold : callable
        Told of points and their signs before the session; True keeps them from it.
    """

    image_changed = Signal(object)
    labels_changed = Signal(object)
    choices_changed = Signal()
    leaving = Signal()
    layer_made = Signal(object)
    contrast_held = Signal(int)
    contrast_used = Signal()
    tool_changed = Signal(str)

    def __init__(self, viewer: napari.Viewer, session: Session) -> None:
        self.viewer = viewer
        self.session = session
        self.image: Image | None = None
        self.labels: Labels | None = None
        self.prompts: PromptLayers | None = None
        self._target: LayerLabels | StoreTarget | None = None
        # of all layers that were chosen: steps of the history know them again
        self._targets: dict[Labels, LayerLabels | StoreTarget] = {}
        self._keys: dict[Image, object] = {}
        self._labels_of: dict[Image, Labels] = {}
        self._hand_edit: HandEdit | None = None
        self._scale: float | None = None
        self._seen: Intensity | None = None  # kept for the model, though not shown
        self.count_embedded: Callable[[PlaneView], int] = lambda view: 0
        self.candidate_layer: Callable[[], Labels | None] = lambda: None
        self.hold: Callable[[Any, Any], bool] = lambda points, positive: False
        self._settled = QTimer()
        self._settled.setSingleShot(True)
        self._settled.setInterval(_SETTLED_MS)
        self._settled.timeout.connect(self._look_again)
        viewer.layers.events.inserted.connect(self._layer_inserted)
        viewer.layers.events.removed.connect(self._layer_removed)
        viewer.dims.events.point.connect(self._dims_changed)
        viewer.dims.events.order.connect(self._dims_changed)
        viewer.dims.events.ndisplay.connect(self._dims_changed)
        session.draft_changed.connect(self._show_draft)
        session.preview.connect(self._show_masks)
        session.view_wanted.connect(self._go_to)
        session.labels_wanted.connect(self._choose_target)
        session.state.events.positive.connect(self._use_sign)
        session.records_changed.connect(self._keep_records)
        for layer in viewer.layers:
            self._watch_name(layer)

    def images(self) -> list[Image]:
        """Return the image layers, the topmost last."""
        return [each for each in self.viewer.layers if isinstance(each, Image)]

    def own_layers(self) -> list[Layer]:
        """Return the layers that belong to this session: prompts and labels."""
        prompts = [] if self.prompts is None else self.prompts.layers
        found = [self.labels, *prompts]
        return [each for each in found if each is not None]

    def label_layers(self) -> list[Labels]:
        """Return the Labels layers that objects of the image can be committed to."""
        if self.image is None:
            return []
        shape = spatial_shape(self.image)
        own = None if self.prompts is None else self.prompts.preview
        return [
            each
            for each in self.viewer.layers
            if isinstance(each, Labels)
            and each is not own
            and OWN not in each.metadata
            and (not each.multiscale or STORE in each.metadata)
            and spatial_shape(each) == shape
        ]

    def given_layers(self) -> list[Layer]:
        """Return the layers of points and shapes that are not ours."""
        own = self.own_layers()
        return [
            each
            for each in self.viewer.layers
            if isinstance(each, (Points, Shapes)) and each not in own
        ]

    def choose_image(self, layer: Image | None) -> None:
        """Work on another image; its prompts and labels come with it."""
        if layer is self.image:
            return
        self.leaving.emit()
        self._leave_image()
        self.image, self._scale = layer, None
        self._release_contrast()
        if layer is not None:
            if layer not in self._keys:
                self._keys[layer] = (layer.name, next(_image_keys))
            self.prompts = PromptLayers(self.viewer, layer)
            self.prompts.points_changed.connect(self._points_changed)
            self.prompts.shapes_changed.connect(self.session.set_shapes)
            self.prompts.made.connect(self._layer_made)
            self.prompts.restored.connect(self._show_current)
            self.prompts.tool_changed.connect(self._tell_tool)
            self.prompts.next_is_positive = self.session.state.positive
            layer.events.contrast_limits.connect(self._settle)
            layer.events.data.connect(self._data_changed)
        self.image_changed.emit(layer)
        found = self.label_layers()
        if layer is not None:
            last = self._labels_of.get(layer)
            topmost = found[-1] if found else None
            self.choose_labels(last if last in found else topmost)
        self.look()

    def _points_changed(self, points: Any, positive: Any) -> None:
        if not self.hold(points, positive):
            self.session.set_points(points, positive)

    @property
    def _image_key(self) -> object:
        """What the session calls the image; other pixels are another image."""
        return None if self.image is None else self._keys[self.image]

    def use_scale(self, scale: float | None) -> None:
        """Show the image to the network at another scale; None for the usual one."""
        if scale != self._scale:
            self._scale = scale
            self.look()

    def choose_labels(self, layer: Labels | None) -> None:
        """Commit to another layer; None makes one when the first object is kept."""
        if layer is not self.labels:
            self.stop_painting()
            self.leaving.emit()
        if self._target is not None:
            self._target.disconnect()
            self._unbind_undo(self._target.layer)
        self.labels, self._target = layer, None
        records = {}
        if layer is not None:
            if layer not in self._targets:
                self._targets[layer] = self._target_of(layer)
            self._target = self._targets[layer]
            self._target.connect()
            if self.image is not None:
                self._labels_of[self.image] = layer
            records = layer.metadata.get(RECORDS, {})
            self.bind_undo(layer)
        self.session.set_labels(self._target, records)
        self.labels_changed.emit(layer)

    def need_labels(self) -> Labels:
        """Return the chosen Labels layer; make one if none is chosen.

        Raises
        ------
        InputError
            If no image is chosen.
        """
        return self.labels or self.make_labels()

    def make_labels(self, store: LabelStore | None = None) -> Labels:
        """Make a Labels layer for the image, and choose it.

        Parameters
        ----------
        store : LabelStore, optional
            What it shows. Default: no objects.

        Raises
        ------
        InputError
            If no image is chosen.
        """
        if self.image is None:
            raise InputError("no image is chosen; open one and choose it above")
        options = {"name": f"{self.image.name} objects", **transform_of(self.image)}
        if store is None:
            layer = new_labels(spatial_shape(self.image), **options)
        else:
            layer = store_layer(store, **options)
        insert_beside(self.viewer, self.viewer.layers.index(self.image) + 1, layer)
        self.choose_labels(layer)
        return layer

    def _target_of(self, layer: Labels) -> LayerLabels | StoreTarget:
        if STORE in layer.metadata:
            return StoreTarget(layer)
        return LayerLabels(layer, self.session.note_hand_edit)

    def paint(self, object_id: int) -> None:
        """Let the user paint an object; labels with levels in a layer of their own.

        Parameters
        ----------
        object_id : int
            0 paints a new object, somewhere in view.

        Raises
        ------
        InputError
            If there is no plane, or the object is not on it.
        """
        self.stop_painting()
        view, image = self.session.view, self.image
        if view is None or image is None:
            raise InputError("open an image, and show it in 2D, to paint on objects")
        layer, target = self.need_labels(), self.session.labels
        if target is None:
            return
        box = target.box_of(view.index, object_id) if object_id else None
        if object_id and box is None:
            raise InputError(f"no object {object_id} on this plane; choose another")
        object_id = object_id or target.fresh_ids(1)[0]
        if STORE not in layer.metadata:
            layer.selected_label, layer.mode = object_id, "paint"
            self.viewer.layers.selection.active = layer
            return
        around = box or _middle(visible_box(image, view) or Box.whole(view.shape))
        self._hand_edit = HandEdit(self.viewer, self.session, image, around, object_id)
        self.tool_changed.emit("look")  # told when it was selected, but not yet true

    @property
    def painted_id(self) -> int:
        """Id that napari's brush paints now; 0 while nothing is painted."""
        active = self.viewer.layers.selection.active
        if not isinstance(active, Labels) or str(active.mode) in _NOT_PAINTING:
            return 0
        is_ours = active is self.labels or self.is_painting
        return int(active.selected_label) if is_ours else 0

    @property
    def is_painting(self) -> bool:
        """Whether a layer to paint in is there."""
        return self._hand_edit is not None and self._hand_edit.is_open

    def stop_painting(self) -> bool:
        """Write what was painted by hand; whether pixels have changed."""
        edit, self._hand_edit = self._hand_edit, None
        return edit is not None and edit.finish()

    def look(self) -> None:
        """Tell the session what is displayed now, unless it knows.

        Whoever works on a view stops when it is exchanged, so it is not for nothing:
        napari tells of contrast and pixels more often than they change.
        """
        self._settled.stop()
        view, old = self.view(), self.session.view
        if view is None or old is None or view.embedding_key != old.embedding_key:
            self.session.set_view(view)
            if (
                view is not None
                and old is not None
                and view.image_key == old.image_key
                and view.intensity != old.intensity
            ):
                self.contrast_used.emit()

    def view(self) -> PlaneView | None:
        """Return the plane of the image that is displayed; None in 3D."""
        if self.image is None:
            return None
        index = plane_index(self.image, self.viewer.dims)
        if index is None:
            return None
        view = plane_view(self.image, index, self._image_key, self._scale)
        return view if self._seen is None else replace(view, intensity=self._seen)

    def view_of(self, index: PlaneIndex, like: PlaneView) -> PlaneView:
        """Return the view of another plane, with scale and contrast of a view.

        Raises
        ------
        InputError
            If no image is chosen.
        """
        if self.image is None:
            raise InputError("no image is chosen; open one and choose it above")
        view = plane_view(self.image, index, like.image_key, like.scale)
        return replace(view, intensity=like.intensity)

    def use_contrast(self) -> None:
        """Let the model see the contrast that is shown."""
        self._release_contrast()
        self.look()

    def _release_contrast(self) -> None:
        if self._seen is not None:
            self._seen = None
            self.contrast_held.emit(0)

    def _look_again(self) -> None:
        """Look, once contrast or pixels have come to rest; ask if that costs much."""
        old, image = self.session.view, self.image
        if old is None or image is None or old.image_key != self._image_key:
            self._release_contrast()
            self.look()
            return
        shown = intensity_of(image)
        if self._seen is not None:
            if shown == self._seen:  # as it was
                self._release_contrast()
            return
        n_embedded = self.count_embedded(old)
        if shown != old.intensity and n_embedded >= _MANY_CROPS:
            self._seen = old.intensity
            self.contrast_held.emit(n_embedded)
        else:
            self.look()

    def object_under_cursor(self) -> int:
        """Return the id of the object under the mouse; 0 if there is none."""
        if self.labels is None:
            return 0
        value = self.labels.get_value(self.viewer.cursor.position, world=True)
        if isinstance(value, tuple):  # of multiscale labels: level and id
            value = value[1]
        return int(value or 0)

    def position(self) -> tuple[float, float] | None:
        """Return where the mouse is, (y, x) in plane pixels; None beside the plane."""
        view = self.session.view
        if self.image is None or view is None:
            return None
        at = np.asarray(self.image.world_to_data(self.viewer.cursor.position))
        y, x = (float(at[i]) for i, each in enumerate(view.index) if each is None)
        inside = -0.5 <= y < view.shape[0] - 0.5 and -0.5 <= x < view.shape[1] - 0.5
        return (y, x) if inside else None

    def hover(self) -> None:
        """Show what a click would give where the mouse is."""
        self.session.peek(self.position())

    def close(self) -> None:
        """Take our layers away, and listen no more."""
        self.choose_labels(None)
        self._leave_image()
        events = self.viewer.layers.events
        events.inserted.disconnect(self._layer_inserted)
        events.removed.disconnect(self._layer_removed)
        for name in ("point", "order", "ndisplay"):
            getattr(self.viewer.dims.events, name).disconnect(self._dims_changed)
        for layer in self.viewer.layers:
            layer.events.name.disconnect(self._names_changed)
        self.session.draft_changed.disconnect(self._show_draft)
        self.session.preview.disconnect(self._show_masks)
        self.session.view_wanted.disconnect(self._go_to)
        self.session.labels_wanted.disconnect(self._choose_target)
        self._targets.clear()
        self._keys.clear()
        self._labels_of.clear()
        self.session.records_changed.disconnect(self._keep_records)
        self.session.state.events.positive.disconnect(self._use_sign)

    def _leave_image(self) -> None:
        if self.image is not None:
            self.image.events.contrast_limits.disconnect(self._settle)
            self.image.events.data.disconnect(self._data_changed)
        if self.prompts is not None:
            self.prompts.close()
        self._settled.stop()
        self.image, self.prompts = None, None

    def _layer_inserted(self, event: Any) -> None:
        self._watch_name(event.value)
        self.choices_changed.emit()
        if self.image is None and isinstance(event.value, Image):
            self.choose_image(event.value)

    def _layer_removed(self, event: Any) -> None:
        event.value.events.name.disconnect(self._names_changed)
        if event.value is self.labels:
            self.choose_labels(None)
        if (target := self._targets.pop(event.value, None)) is not None:
            self.session.history.forget(target)
            self.session.history_changed.emit()
        if event.value is self.image:
            rest = self.images()
            self.choose_image(rest[-1] if rest else None)
        self._keys.pop(event.value, None)
        self._labels_of.pop(event.value, None)
        self.choices_changed.emit()

    def _watch_name(self, layer: Layer) -> None:
        layer.events.name.connect(self._names_changed)

    def _names_changed(self, _event: Any = None) -> None:
        self.choices_changed.emit()

    def _dims_changed(self, _event: Any = None) -> None:
        view, old = self.view(), self.session.view
        if (view is None) != (old is None) or (
            view is not None and old is not None and view.place != old.place
        ):
            self.look()

    def _data_changed(self, _event: Any = None) -> None:
        if self.image is not None:
            self._keys[self.image] = (self.image.name, next(_image_keys))
            self._settled.start()

    def _settle(self, _event: Any = None) -> None:
        self._settled.start()

    def _show_current(self) -> None:
        self._show_draft(self.session.draft)
        self._show_masks(self.session.masks)

    def _show_draft(self, draft: Any) -> None:
        view = self.session.view
        if self.prompts is not None and view is not None:
            self.prompts.show(draft, view.index)

    def _show_masks(self, masks: Any) -> None:
        if self.prompts is not None:
            self.prompts.show_masks(masks if self.session.view is not None else ())

    def _tell_tool(self, tool: str) -> None:
        self.tool_changed.emit(tool)

    def _layer_made(self, layer: Layer) -> None:
        self.bind_undo(layer)
        self.layer_made.emit(layer)

    def _use_sign(self, positive: bool) -> None:
        if self.prompts is not None:
            self.prompts.next_is_positive = positive

    def _keep_records(self) -> None:
        if self.labels is not None:
            self.labels.metadata[RECORDS] = dict(self.session.records)

    def _go_to(self, view: PlaneView) -> None:
        """Show a plane that undo changes."""
        for layer, key in self._keys.items():
            if key == view.image_key:
                self.choose_image(layer)
                self.go_to(view.index)
                return

    def _choose_target(self, target: object) -> None:
        """Choose labels that undo changes."""
        for layer, each in self._targets.items():
            if each is target and layer in self.label_layers():
                self.choose_labels(layer)
                return

    def go_to(self, index: PlaneIndex) -> None:
        """Move the sliders to a plane."""
        if self.image is None:
            return
        place = [0.0 if each is None else float(each) for each in index]
        world = self.image.data_to_world(place)
        missing = self.viewer.dims.ndim - self.image.ndim
        for axis, each in enumerate(index):
            if each is not None:
                self.viewer.dims.set_point(axis + missing, world[axis])

    def bind_undo(self, layer: Layer) -> None:
        """Let the keys of napari's own undo take steps of the session back."""
        for key, command in (
            ("Control-Z", self._undo_pressed),
            ("Control-Shift-Z", self._redo_pressed),
        ):
            layer.bind_key(key, command, overwrite=True)

    def _undo_pressed(self, _layer: object) -> None:
        self.session.undo()

    def _redo_pressed(self, _layer: object) -> None:
        self.session.redo()

    def _unbind_undo(self, layer: Labels) -> None:
        unbind(layer, "Control-Z", self._undo_pressed)
        unbind(layer, "Control-Shift-Z", self._redo_pressed)


def _middle(box: Box) -> Box:
    """Return the middle of a box, of a size that can be painted."""
    (height, width), most = box.shape, _PAINTED_SIDE
    y0 = box.y0 + max(0, height - most) // 2
    x0 = box.x0 + max(0, width - most) // 2
    return Box(y0, x0, min(box.y1, y0 + most), min(box.x1, x0 + most))


def unbind(owner: Any, key: str, command: Callable[..., object]) -> None:
    """Free a key, unless somebody else has taken it meanwhile.

    Parameters
    ----------
    owner : Viewer or Layer
    key : str
    command : callable
        What it was bound to.
    """
    if owner.keymap.get(coerce_keybinding(key)) == command:
        owner.bind_key(key, None)
