"""The layers that the user clicks into, and the preview of the answer.

Each is made when it is needed first, as napari takes a tenth of a second or more for a
layer, and made again when somebody deletes it. Colours are from the palette of Okabe
and Ito, which colour-blind people can tell apart; kinds of points differ in their
symbol, too.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
from napari.layers import Points, Shapes
from psygnal import Signal
from qtpy.QtCore import QTimer

from napari_sam.engine.draft import Shape, read_shape
from napari_sam.widgets.geometry import (
    TRANSFORM,
    spatial_shape,
    to_layer,
    to_plane,
    transform_of,
)
from napari_sam.widgets.mask_preview import MaskPreview
from napari_sam.widgets.turns import insert_beside

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import napari
    from napari.layers import Image, Labels, Layer
    from numpy.typing import NDArray

    from napari_sam.engine.draft import Draft
    from napari_sam.engine.request import ShownMask
    from napari_sam.labels import PlaneIndex

Tool: TypeAlias = Literal["points", "box", "polygon", "ellipse", "scribble", "look"]

POSITIVE, NEGATIVE = "#009E73", "#D55E00"
SHAPE_EDGE = "#F0E442"

_SYMBOLS = {True: "disc", False: "x"}
_SHAPE_MODES = {
    "box": "add_rectangle",
    "polygon": "add_polygon",
    "ellipse": "add_ellipse",
    "scribble": "add_path",
}
_POINT_PX = 12  # on the screen: small objects must be seen beside it
_CANVAS_PX = 800  # a whole plane is shown about so large
_TOLD = ("added", "removed", "changed")


class PromptLayers:
    """Points, shapes and preview on top of one image layer.

    Parameters
    ----------
    viewer : napari.Viewer
    image : Image
        The layers take its transform and follow it.

    Signals
    -------
    points_changed : (N, 2) array, (N,) array of bool
        Plane pixels; by the user, not by `show`.
    shapes_changed : list of Shape
    made : Points or Shapes
        A layer that the user acts on is there now.
    restored : no argument
        Layers were deleted, and the prompts are to be shown again.
    tool_changed : str
        What a click does now, whoever has chosen it; see `tool`.
    """

    points_changed = Signal(object, object)
    shapes_changed = Signal(object)
    made = Signal(object)
    restored = Signal()
    tool_changed = Signal(str)

    def __init__(self, viewer: napari.Viewer, image: Image) -> None:
        self.viewer = viewer
        self.image = image
        self._next_is_positive = True
        self._index: PlaneIndex = (None,) * image.ndim
        self._draft_points = np.zeros((0, 2), np.float32)
        self._positive = np.zeros(0, bool)
        self._is_showing = False
        self._is_closing = False
        self._flip_once = False
        self._points: Points | None = None
        self._shapes: Shapes | None = None
        self._preview = MaskPreview(viewer, image, lambda: self._shapes or self.points)
        for name in TRANSFORM:
            getattr(image.events, name).connect(self._follow_transform)
        viewer.layers.events.removed.connect(self._layer_removed)
        viewer.layers.selection.events.active.connect(self._tell_tool)

    @property
    def points(self) -> Points:
        """The layer of points; made when it is asked for first."""
        return self._points or self._make_points()

    @property
    def shapes(self) -> Shapes:
        """The layer of boxes, areas and lines; made when it is asked for first."""
        return self._shapes or self._make_shapes()

    @property
    def preview(self) -> Labels | None:
        """The layer that shows answers; None before the first one."""
        return self._preview.layer

    @property
    def contour(self) -> int:
        """Width of the outline that answers are drawn with; 0 for filled."""
        return self._preview.contour

    @property
    def next_is_positive(self) -> bool:
        """Kind of the next point."""
        return self._next_is_positive

    @next_is_positive.setter
    def next_is_positive(self, positive: bool) -> None:
        self._next_is_positive = positive
        if self._points is not None:
            self._style_next(positive)

    @property
    def layers(self) -> list[Layer]:
        """The layers that exist, from below."""
        found = [self.preview, self._shapes, self._points]
        return [each for each in found if each is not None]

    @property
    def tool(self) -> Tool:
        """What a click does now."""
        active = self.viewer.layers.selection.active
        points, shapes = self._points, self._shapes
        if points is not None and active is points and points.mode == "add":
            return "points"
        if shapes is not None and active is shapes:
            for tool, mode in _SHAPE_MODES.items():
                if shapes.mode == mode:
                    return tool  # type: ignore[return-value]
        return "look"

    def use(self, tool: Tool) -> None:
        """Make a click do this."""
        if tool == "points":
            self.viewer.layers.selection.active = self.points
            self.points.mode = "add"
        elif tool == "look":
            for layer in (self._points, self._shapes):
                if layer is not None:
                    layer.mode = "pan_zoom"
        else:
            self.viewer.layers.selection.active = self.shapes
            self.shapes.mode = _SHAPE_MODES[tool]

    def finish_drawing(self) -> bool:
        """End a shape that is being drawn; whether there was one."""
        shapes = self._shapes
        if shapes is None or not shapes._is_creating:  # noqa: SLF001 - no public name
            return False
        with shapes.events.mode.blocker():  # another mode ends it
            mode, shapes.mode = shapes.mode, "pan_zoom"
            shapes.mode = mode
        return True

    def flip_selected(self) -> bool:
        """Turn the selected points into the other kind; whether there were any."""
        points = self._points
        selected = [] if points is None else sorted(points.selected_data)
        if points is None or points.mode != "select" or not selected:
            return False
        self._positive[selected] = ~self._positive[selected]
        self._style_points()
        self.points_changed.emit(self._draft_points, self._positive.copy())
        return True

    def show(self, draft: Draft, index: PlaneIndex) -> None:
        """Show the prompts of a plane, and no others."""
        same = index == self._index and np.array_equal(draft.points, self._draft_points)
        same_signs = np.array_equal(draft.positive, self._positive)
        self._index = index
        with self._silently():
            is_wanted = self._points is not None or len(draft.points)
            if is_wanted and not (same and same_signs):
                self._draft_points = draft.points.copy()
                self._positive = draft.positive.copy()
                self.points.selected_data = set()
                self.points.data = to_layer(draft.points, index)
                self._style_points()
            if not self._shows(draft.shapes):
                self._put_shapes(draft.shapes)

    def show_masks(self, masks: Sequence[ShownMask]) -> None:
        """Show answers; without any, the preview is empty."""
        with self._silently():
            self._preview.show(masks, self._index)

    @property
    def is_ready(self) -> bool:
        """Whether a click can point at something."""
        return self._points is not None

    def prepare_points(self) -> None:
        """Make the layer of points, if it is not there."""
        if self._points is None:
            self._make_points(gently=True)

    def prepare_preview(self) -> None:
        """Make the layer of the preview, so that the first click need not wait."""
        with self._silently():
            self._preview.prepare(self._index)

    def set_contour(self, width: int) -> None:
        """Draw the preview as an outline of this width; 0 fills it."""
        self._preview.set_contour(width)

    def close(self) -> None:
        """Remove the layers, and listen no more."""
        self._is_closing = True
        self.viewer.layers.events.removed.disconnect(self._layer_removed)
        self.viewer.layers.selection.events.active.disconnect(self._tell_tool)
        for name in TRANSFORM:
            getattr(self.image.events, name).disconnect(self._follow_transform)
        for layer in self.layers:
            if layer in self.viewer.layers:
                self.viewer.layers.remove(layer)

    def _make_points(self, *, gently: bool = False) -> Points:
        # as large on the screen at every zoom; only seen from afar they become smaller,
        # for a least size would give them a border of half of it (vispy 0.17), which
        # covers the whole of a cross
        size = max(spatial_shape(self.image)[-2:]) * _POINT_PX / _CANVAS_PX
        layer = Points(
            ndim=self.image.ndim,
            name="SAM points",
            size=size,
            border_color="white",
            border_width=0.1,
            face_color=POSITIVE,
            features={"positive": np.zeros(0, bool)},
            **transform_of(self.image),
        )
        layer.canvas_size_limits = (2, _POINT_PX)
        self._add(layer, len(self.viewer.layers), gently=gently)
        self._points = layer
        self._style_next(self._next_is_positive)
        layer.help = "click: in the object; Shift-click: beside it"
        layer.events.data.connect(self._points_edited)
        layer.events.mode.connect(self._tell_tool)
        layer.mouse_drag_callbacks.insert(0, self._watch_modifier)
        self.made.emit(layer)
        return layer

    def _make_shapes(self) -> Shapes:
        layer = Shapes(
            ndim=self.image.ndim,
            name="SAM shapes",
            edge_color=SHAPE_EDGE,
            face_color="transparent",
            edge_width=2,
            **transform_of(self.image),
        )
        layers = self.viewer.layers
        is_there = self._points is not None and self._points in layers
        self._add(layer, layers.index(self._points) if is_there else len(layers))
        layer.current_edge_color = SHAPE_EDGE
        layer.current_face_color = "transparent"
        layer.events.data.connect(self._shapes_edited)
        layer.events.mode.connect(self._tell_tool)
        self._shapes = layer
        self.made.emit(layer)
        return layer

    def _add(self, layer: Layer, at: int, *, gently: bool = False) -> None:
        with self._silently():
            insert_beside(self.viewer, at, layer, gently=gently)

    def _points_edited(self, event: Any) -> None:
        if self._is_showing or str(event.action) not in _TOLD:
            return
        points = to_plane(self.points.data, self._index)
        n_new = len(points) - len(self._draft_points)
        if str(event.action) == "added" and n_new > 0:
            sign = self.next_is_positive != self._flip_once
            self._positive = np.append(self._positive, np.full(n_new, sign))
            if n_new > 1 or str(self.points.symbol[-1]) != _SYMBOLS[sign]:
                self._style_points()  # added by a program, and not by the mouse
            # napari marks a new point as selected, in a colour of its own
            QTimer.singleShot(0, self._unmark)
        elif n_new < 0:
            kept = np.ones(len(self._positive), bool)
            kept[list(event.data_indices)] = False
            self._positive = self._positive[kept]
        self._draft_points = points
        self.points_changed.emit(points, self._positive.copy())

    def _unmark(self) -> None:
        """Let a new point show its kind; points that the user selects stay marked."""
        if self._is_closing:
            return
        if self._flip_once:  # Shift counts for one point
            self._flip_once = False
            self._style_next(self._next_is_positive)
        if self.points.mode == "add":
            with self._silently():
                self.points.selected_data = set()

    def _tell_tool(self, _event: Any = None) -> None:
        self.tool_changed.emit(self.tool)

    def _style_next(self, positive: bool) -> None:
        """Let the next point be drawn as its kind; styling it later costs 20 ms."""
        with self._silently(), self.points.block_update_properties():
            self.points.current_face_color = POSITIVE if positive else NEGATIVE
            self.points.current_symbol = _SYMBOLS[positive]
            self.points.feature_defaults = {"positive": positive}

    def _style_points(self) -> None:
        if not len(self._positive):
            return
        with self._silently():
            self.points.features = {"positive": self._positive}
            self.points.face_color = [
                POSITIVE if each else NEGATIVE for each in self._positive
            ]
            self.points.symbol = [_SYMBOLS[bool(each)] for each in self._positive]

    def _shapes_edited(self, event: Any) -> None:
        if not self._is_showing and str(event.action) in _TOLD:
            self.shapes_changed.emit(self._read_shapes())

    def _read_shapes(self) -> list[Shape]:
        if self._shapes is None:
            return []
        kinds = [str(each) for each in self._shapes.shape_type]
        return [
            read_shape(kind, to_plane(corners, self._index))
            for kind, corners in zip(kinds, self._shapes.data, strict=True)
        ]

    def _shows(self, shapes: Sequence[Shape]) -> bool:
        now = self._read_shapes()
        return len(now) == len(shapes) and all(
            a.kind == b.kind and np.allclose(a.corners, b.corners, atol=1e-3)
            for a, b in zip(now, shapes, strict=True)
        )

    def _put_shapes(self, shapes: Sequence[Shape]) -> None:
        self.finish_drawing()  # napari would look for it after it has gone
        self.shapes.selected_data = set(range(self.shapes.nshapes))
        self.shapes.remove_selected()
        for each in shapes:
            kind = {"box": "rectangle", "area": "polygon", "line": "path"}[each.kind]
            corners = _rectangle(each.corners) if each.kind == "box" else each.corners
            self.shapes.add(to_layer(corners, self._index), shape_type=kind)
        self.shapes.selected_data = set()

    def _watch_modifier(self, _layer: Points, event: Any) -> None:
        self._flip_once = "Shift" in event.modifiers
        if self.points.mode == "add":
            self._style_next(self._next_is_positive != self._flip_once)

    def _follow_transform(self, _event: Any = None) -> None:
        for layer in (self._points, self._shapes):
            if layer is None:
                continue
            for name, value in transform_of(self.image).items():
                setattr(layer, name, value)
        self._preview.follow_transform()

    def _layer_removed(self, event: Any) -> None:
        if event.value in self.layers:
            # not at once: napari clears its list by taking the last layer until none
            # is left, which would never be the case
            QTimer.singleShot(0, self._restore)

    def _restore(self) -> None:
        """Make layers again that the user has deleted, unless the image has gone."""
        layers = self.viewer.layers
        if self._is_closing or self.image not in layers:
            return
        if self._points not in layers:
            self._points = None
        if self._shapes not in layers:
            self._shapes = None
        self._preview.restore()
        self._draft_points = np.zeros((0, 2), np.float32)
        self._positive = np.zeros(0, bool)
        self.restored.emit()
        self.use("points")

    @contextmanager
    def _silently(self) -> Iterator[None]:
        before, self._is_showing = self._is_showing, True
        try:
            yield
        finally:
            self._is_showing = before


def _rectangle(ends: NDArray[np.float32]) -> NDArray[np.float32]:
    (y0, x0), (y1, x1) = ends.tolist()
    return np.array([[y0, x0], [y0, x1], [y1, x1], [y1, x0]], np.float32)
