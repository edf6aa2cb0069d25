"""Layers over one plane that show the state of the work: candidates and crops.

They lie where the plane of the image lies, whatever its scale and rotation. They have
two axes, so that napari shows them on every slice; whoever changes the slice clears
them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Labels
from napari.utils.colormaps import DirectLabelColormap

from napari_sam.engine.label_store import LabelStore
from napari_sam.tiling import Box
from napari_sam.widgets.stored_labels import OWN, is_too_large

if TYPE_CHECKING:
    from collections.abc import Iterator

    from napari.components import ViewerModel
    from napari.layers import Image

    from napari_sam.engine.choice import Choice
    from napari_sam.tiling import CropGrid

CANDIDATES = "candidates"
CROPS = "embedded crops"

# Colour-blind safe (Okabe and Ito 2008): orange, sky blue, bluish green.
_FOUND, _MARKED, _EMBEDDED = "#e69f00", "#56b4e9", "#009e73"
_PART = 4096  # pixels a side of what is drawn at a time
_CELL = 32  # plane pixels for one pixel of the overlay; cores are cut far coarser


class CandidateLayer:
    """Shows a `Choice`: candidates in one colour, marked ones in another.

    Parameters
    ----------
    viewer : ViewerModel
    """

    def __init__(self, viewer: ViewerModel) -> None:
        self._viewer = viewer
        self._layer: Labels | None = None
        self._shown: Box | None = None

    @property
    def layer(self) -> Labels | None:
        """The layer, while there are candidates."""
        return self._layer if self._layer in self._viewer.layers else None

    def show(self, choice: Choice, image: Image) -> None:
        """Draw the objects of a choice over the plane of an image."""
        shape = choice.candidates.grid.shape
        layer = self.layer
        if layer is None:
            layer = self._add(shape, image)
        data = layer.metadata["pixels"]
        box = Box(0, 0, 0, 0)
        for each in choice.objects:
            box = box.union(each.candidate.box)
        # what was drawn before and is no longer there goes, too
        drawn = box if self._shown is None else box.union(self._shown)
        for part in _parts(drawn):
            data[part.slices] = choice.labels_of(part)
        self._shown = box
        marked = [
            i for i, each in enumerate(choice.objects, 1) if choice.is_marked(each)
        ]
        layer.colormap = _colours(marked)
        layer.refresh(extent=False, thumbnail=False)

    def clear(self) -> None:
        """Take the layer away."""
        layer = self.layer
        if layer is not None:
            self._viewer.layers.remove(layer)
        self._layer, self._shown = None, None

    def _add(self, shape: tuple[int, int], image: Image) -> Labels:
        pixels: Any = np.zeros(shape, np.uint32)
        if is_too_large(shape):
            pixels = LabelStore.create(shape)
        active = self._viewer.layers.selection.active
        self._layer = Labels(
            pixels.shown_levels if isinstance(pixels, LabelStore) else pixels,
            name=CANDIDATES,
            colormap=_colours([]),
            opacity=0.9,
            metadata={"pixels": pixels, OWN: True},
            **plane_geometry(image),
        )
        if not isinstance(pixels, LabelStore):
            self._layer.contour = 2
            self._layer.editable = False
        self._viewer.add_layer(self._layer)
        self._viewer.layers.selection.active = active  # the tool in use stays
        return self._layer


class EmbeddingOverlay:
    """Shows which crops of a plane are embedded.

    Parameters
    ----------
    viewer : ViewerModel
    """

    def __init__(self, viewer: ViewerModel) -> None:
        self._viewer = viewer
        self._layer: Labels | None = None
        self._grid: CropGrid | None = None

    @property
    def layer(self) -> Labels | None:
        """The layer, while it is shown."""
        return self._layer if self._layer in self._viewer.layers else None

    def show(self, grid: CropGrid, image: Image) -> None:
        """Lay the crops of a plane over an image; none is embedded at first."""
        self.clear()
        self._grid = grid
        height, width = (-(-n // _CELL) for n in grid.shape)
        options = plane_geometry(image, _CELL)
        self._layer = Labels(
            np.zeros((height, width), np.uint8),
            name=CROPS,
            metadata={OWN: True},
            opacity=0.25,
            colormap=DirectLabelColormap(color_dict={0: "#00000000", None: _EMBEDDED}),
            **options,
        )
        self._layer.editable = False
        active = self._viewer.layers.selection.active
        self._viewer.add_layer(self._layer)
        self._viewer.layers.selection.active = active

    def mark(self, crop: int) -> None:
        """Show that a crop is embedded, by its number in the grid."""
        layer = self.layer
        if layer is None or self._grid is None:
            return
        core = self._grid[crop].core
        cells = slice(core.y0 // _CELL, -(-core.y1 // _CELL))
        columns = slice(core.x0 // _CELL, -(-core.x1 // _CELL))
        layer.data[cells, columns] = 1
        layer.refresh(extent=False, thumbnail=False)

    def clear(self) -> None:
        """Take the overlay away."""
        layer = self.layer
        if layer is not None:
            self._viewer.layers.remove(layer)
        self._layer = None


def plane_geometry(image: Image, cell: int = 1) -> dict[str, Any]:
    """Return where a layer of two axes lies to cover the planes of an image.

    Parameters
    ----------
    image : Image
        Its last two axes are rows and columns.
    cell : int
        Plane pixels for one pixel of the layer, a square block from the corner.
    """
    scale = np.asarray(image.scale)[-2:]
    rotate = np.asarray(image.rotate)[-2:, -2:]
    # the first block has its centre in the middle of its pixels
    shift = rotate @ (scale * (cell - 1) / 2)
    ndim = image.ndim
    affine = np.eye(3)
    affine[:2, :2] = image.affine.linear_matrix[ndim - 2 :, ndim - 2 :]
    affine[:2, 2] = np.asarray(image.affine.translate)[-2:]
    return {
        "scale": scale * cell,
        "translate": np.asarray(image.translate)[-2:] + shift,
        "rotate": rotate,
        "affine": affine,
        "units": image.units[-2:],
    }


def _parts(box: Box) -> Iterator[Box]:
    """Cut a box into parts that fit in memory."""
    for y0 in range(box.y0, box.y1, _PART):
        for x0 in range(box.x0, box.x1, _PART):
            yield Box(y0, x0, min(y0 + _PART, box.y1), min(x0 + _PART, box.x1))


def _colours(marked: list[int]) -> DirectLabelColormap:
    chosen: dict[int | None, str] = dict.fromkeys(marked, _MARKED)
    return DirectLabelColormap(color_dict={**chosen, 0: "#00000000", None: _FOUND})
