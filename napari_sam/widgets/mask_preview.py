"""The layer that shows an answer before it is kept.

It covers a part of the plane, larger than the mask, so that the next answer nearby
changes pixels and nothing else: moving a layer costs napari more than drawing it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Labels
from napari.utils.colormaps import DirectLabelColormap

from napari_sam.labels import outline
from napari_sam.tiling import Box
from napari_sam.widgets.geometry import spatial_shape, to_layer, transform_of
from napari_sam.widgets.turns import insert_beside

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from napari.components import ViewerModel
    from napari.layers import Image, Layer
    from numpy.typing import NDArray

    from napari_sam.engine.request import ShownMask
    from napari_sam.labels import PlaneIndex

PREVIEW = "#56B4E9"
"""Sky blue of the palette of Okabe and Ito."""

_SIDE = 768  # pixels a side of the layer: what a mask and its neighbours take (ours)


class MaskPreview:
    """Answers to prompts, over one image layer.

    Parameters
    ----------
    viewer : ViewerModel
    image : Image
        Its transform is taken.
    above : callable
        Returns the layer below which this one lies.
    """

    def __init__(
        self, viewer: ViewerModel, image: Image, above: Callable[[], Layer]
    ) -> None:
        self.layer: Labels | None = None
        self.contour = 0
        self._viewer = viewer
        self._image = image
        self._above = above
        self._shown: tuple[ShownMask, ...] = ()
        self._index: PlaneIndex = ()
        self._box = Box(0, 0, 0, 0)
        self._drawn = Box(0, 0, 0, 0)

    def show(self, masks: Sequence[ShownMask], index: PlaneIndex) -> None:
        """Show masks of a plane, and no others."""
        self._shown = tuple(each for each in masks if each.box.area)
        if not self._shown:
            if self._drawn.area:
                self._draw(Box(0, 0, 0, 0))
            return
        box = self._shown[0].box
        for each in self._shown:
            box = box.union(each.box)
        if index != self._index or not self._box.contains(box):
            self._move(self._around(box, index), index)
        elif self.layer is None:
            self._make()
        self._draw(box)

    def prepare(self, index: PlaneIndex) -> None:
        """Make the layer already, which takes napari a tenth of a second."""
        if self.layer is None:
            self._box, self._index = self._around(Box(0, 0, 1, 1), index), index
            self._make(gently=True)

    def set_contour(self, width: int) -> None:
        """Draw outlines of this width; 0 fills."""
        self.contour = width
        if self._drawn.area:
            self._draw(self._drawn)

    def follow_transform(self) -> None:
        """Take the transform of the image again."""
        layer, self.layer = self.layer, None
        self._box = self._drawn = Box(0, 0, 0, 0)
        if layer is not None and layer in self._viewer.layers:
            self._viewer.layers.remove(layer)

    def restore(self) -> None:
        """Forget a layer that the user has deleted."""
        if self.layer is not None and self.layer not in self._viewer.layers:
            self.layer = None
            self._box = self._drawn = Box(0, 0, 0, 0)

    def _around(self, box: Box, index: PlaneIndex) -> Box:
        """Return a box with room around masks, within the plane."""
        sizes = spatial_shape(self._image)
        height, width = (
            n for n, each in zip(sizes, index, strict=True) if each is None
        )
        grow_y = max(0, _SIDE - box.height) // 2
        grow_x = max(0, _SIDE - box.width) // 2
        grown = Box(box.y0 - grow_y, box.x0 - grow_x, box.y1 + grow_y, box.x1 + grow_x)
        return grown.clip((height, width))

    def _move(self, box: Box, index: PlaneIndex) -> None:
        self._box, self._index = box, index
        self._drawn = Box(0, 0, 0, 0)
        if self.layer is None:
            self._make()
            return
        self.layer.translate = self._place()["translate"]
        self.layer.data = self._empty()

    def _make(self, *, gently: bool = False) -> None:
        viewer = self._viewer
        self.layer = Labels(
            self._empty(),
            name="SAM preview",
            opacity=0.6,
            colormap=DirectLabelColormap(color_dict={None: PREVIEW, 0: "transparent"}),
            **self._place(),
        )
        below = viewer.layers.index(self._above())
        insert_beside(viewer, below, self.layer, gently=gently)
        self.layer.editable = False

    def _place(self) -> dict[str, Any]:
        corner = np.array([[self._box.y0, self._box.x0]])
        return transform_of(self._image, to_layer(corner, self._index)[0])

    def _empty(self) -> NDArray[np.uint8]:
        pixels = np.zeros(self._box.shape, np.uint8)
        pixels = pixels.reshape((1,) * (len(self._index) - 2) + pixels.shape)
        seen = [i for i, each in enumerate(self._index) if each is None]
        return np.moveaxis(pixels, (-2, -1), seen)

    def _draw(self, box: Box) -> None:
        """Draw the masks, all of them in a box; what was drawn before goes."""
        if self.layer is None:
            return
        plane = self._pixels()
        plane[self._drawn.shift(-self._box.y0, -self._box.x0).slices] = 0
        for number, each in enumerate(self._shown):
            part = plane[each.box.shift(-self._box.y0, -self._box.x0).slices]
            mask = outline(each.mask, self.contour) if self.contour else each.mask
            part[mask] = 1 + number % 254
        self._drawn = box
        self.layer.refresh(extent=False, thumbnail=False)

    def _pixels(self) -> NDArray[np.uint8]:
        """The pixels of the layer as rows and columns of the plane, a view."""
        if self.layer is None:
            return np.zeros((0, 0), np.uint8)
        seen = [i for i, each in enumerate(self._index) if each is None]
        moved = np.moveaxis(np.asarray(self.layer.data), seen, (-2, -1))
        return moved.reshape(moved.shape[-2:])
