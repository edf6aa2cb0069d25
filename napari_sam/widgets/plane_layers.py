"""Layers over one plane that show the state of the work: candidates and crops.

They lie where the plane of the image lies, whatever its scale and rotation. They have
two axes, so that napari shows them on every slice; whoever changes the slice clears
them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

import numpy as np
from napari.layers import Labels
from napari.utils.colormaps import DirectLabelColormap

from napari_sam.engine.label_store import LabelStore
from napari_sam.tiling import Box
from napari_sam.widgets.geometry import spatial_shape
from napari_sam.widgets.stored_labels import OWN, is_too_large
from napari_sam.widgets.turns import insert_beside

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from napari.components import ViewerModel
    from napari.layers import Image
    from numpy.typing import NDArray

    from napari_sam.engine.choice import Choice
    from napari_sam.stitch import PlaneObject
    from napari_sam.tiling import CropGrid

CropMark: TypeAlias = Literal["waiting", "embedded", "in hand", "empty", "failed"]

CANDIDATES = "SAM candidates"
CROPS = "SAM crops"

# Colour-blind safe (Okabe and Ito 2008).
_FOUND, _MARKED = "#e69f00", "#56b4e9"
CROP_COLOURS: dict[CropMark, str] = {
    "waiting": "#7f7f7f",
    "embedded": "#009e73",
    "in hand": "#f0e442",
    "empty": "#56b4e9",
    "failed": "#d55e00",
}
"""What the overlay shows of a crop, in the order of the values of its pixels."""
_MARKS = list(CROP_COLOURS)
_OUTLINE = 2  # pixels
_PART = 4096  # pixels a side of what is drawn at a time
_CELL = 32  # plane pixels for one pixel of the overlay; cores are cut far coarser


class Drawing(NamedTuple):
    """Candidates as they will be shown.

    Attributes
    ----------
    box : Box
        Around them, in plane pixels.
    pixels : (h, w) uint8 array or None
        None if they are drawn into the store already.
    """

    box: Box
    pixels: NDArray[np.uint8] | None


class CandidateLayer:
    """Shows a `Choice`: candidates in one colour, marked ones in another.

    Parameters
    ----------
    viewer : ViewerModel
    """

    def __init__(self, viewer: ViewerModel) -> None:
        self._viewer = viewer
        self._layer: Labels | None = None
        self._pixels: Any = None  # what a search draws into
        self._region = Box(0, 0, 0, 0)
        self._shown = Box(0, 0, 0, 0)

    @property
    def layer(self) -> Labels | None:
        """The layer, while there is a search."""
        is_there = self._pixels is not None and self._layer in self._viewer.layers
        return self._layer if is_there else None

    def prepare(self, image: Image) -> None:
        """Make the layer already, empty and hidden: napari takes 100 ms to do so.

        Parameters
        ----------
        image : Image
            The layer lies over its plane, or, as a search of a large one may cover
            less, over its first pixel: what lies elsewhere would move the camera.
        """
        if self._layer not in self._viewer.layers:
            shape = spatial_shape(image)[-2:]
            pixels = np.zeros((1, 1) if is_too_large(shape) else shape, np.uint8)
            self._add(pixels, visible=False, **plane_geometry(image))

    def begin(self, region: Box, image: Image) -> Labels:
        """Lay the layer over a region, in plane pixels; `appear` lets it be seen.

        Outlines are drawn in an array; a region larger than that is filled, in a store
        with levels, as outlines are not seen from afar.
        """
        self.clear()
        self._region, self._shown = region, Box(0, 0, 0, 0)
        shape = region.shape
        place = plane_geometry(image, corner=(region.y0, region.x0))
        if is_too_large(shape):
            self.close()
            self._pixels = store = LabelStore.create(shape)
            return self._add(store.shown_levels, **place)
        self.prepare(image)
        layer = self._layer
        if layer is None:
            raise RuntimeError("the layer of candidates was not made")
        if layer.data.shape != shape:  # else it is empty since the last search
            layer.data = np.zeros(shape, np.uint8)
        self._pixels = layer.data
        _lay(self._viewer, layer, place)
        return layer

    def appear(self) -> None:
        """Let the layer be seen, unless the search has ended without a result."""
        if self.layer is not None:
            self.layer.visible = True

    def _add(self, data: Any, **options: Any) -> Labels:
        self._layer = Labels(
            data,
            name=CANDIDATES,
            colormap=DirectLabelColormap(
                color_dict={0: "#00000000", 2: _MARKED, None: _FOUND}
            ),
            opacity=0.9,
            metadata={OWN: True},
            **options,
        )
        if not self._layer.multiscale:
            self._layer.editable = False
        insert_beside(self._viewer, len(self._viewer.layers), self._layer)
        return self._layer

    def draw(self, choice: Choice, objects: Sequence[PlaneObject]) -> Drawing:
        """Draw objects, for `show`; for the thread of the worker.

        Parameters
        ----------
        choice : Choice
        objects : sequence of PlaneObject
            From `Choice.select`.
        """
        pixels, region = self._pixels, self._region
        box = Box(0, 0, 0, 0)
        for each in objects:
            box = box.union(each.candidate.box)
        box = box.intersection(region) or Box(0, 0, 0, 0)
        if not isinstance(pixels, LabelStore):
            return Drawing(box, choice.picture(box, objects, width=_OUTLINE))
        # what was drawn before and is no longer there goes, too
        for part in _parts(box.union(self._shown)):
            here = part.shift(-region.y0, -region.x0)
            pixels[here.slices] = choice.picture(part, objects)
        self._shown = box
        return Drawing(box, None)

    def show(self, drawing: Drawing) -> None:
        """Show what was drawn, and nothing else."""
        if drawing.pixels is not None:
            self._put(self._shown, 0)
            self._put(drawing.box, drawing.pixels)
            self._shown = drawing.box
        self._refresh()

    def update(self, choice: Choice, objects: Sequence[PlaneObject]) -> None:
        """Draw again what lies in the boxes of a few objects."""
        width = None if isinstance(self._pixels, LabelStore) else _OUTLINE
        for each in objects:
            box = each.candidate.box.intersection(self._region)
            if box is not None:
                self._put(box, choice.picture(box, width=width))
        self._refresh()

    def clear(self) -> None:
        """Show no candidates; an array's layer is hidden, to be used again."""
        layer = self.layer
        if layer is not None and layer.multiscale:
            self.close()
        elif layer is not None:
            layer.visible = False
            self._put(self._shown, 0)
        self._pixels, self._shown = None, Box(0, 0, 0, 0)

    def close(self) -> None:
        """Take the layer away."""
        if self._layer is not None and self._layer in self._viewer.layers:
            self._viewer.layers.remove(self._layer)
        self._layer, self._pixels = None, None

    def _put(self, box: Box, values: Any) -> None:
        if box.area and self._pixels is not None:
            self._pixels[box.shift(-self._region.y0, -self._region.x0).slices] = values

    def _refresh(self) -> None:
        if self.layer is not None:
            self.layer.refresh(extent=False, thumbnail=False)


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
        """The layer, while there are crops to be shown."""
        is_there = self._grid is not None and self._layer in self._viewer.layers
        return self._layer if is_there else None

    def prepare(self, image: Image) -> None:
        """Make the layer already, empty and hidden, over an image's first pixel."""
        if self._layer in self._viewer.layers:
            return
        self._layer = Labels(
            np.zeros((1, 1), np.uint8),
            name=CROPS,
            metadata={OWN: True},
            opacity=0.25,
            visible=False,
            colormap=DirectLabelColormap(
                color_dict={None: CROP_COLOURS["waiting"]}
                | dict(enumerate(CROP_COLOURS.values()))
            ),
            **plane_geometry(image),
        )
        self._layer.editable = False
        insert_beside(self._viewer, len(self._viewer.layers), self._layer)

    def show(self, grid: CropGrid, image: Image) -> None:
        """Lay the crops of a plane over an image; all of them wait at first.

        Whoever wants them seen makes the layer visible.
        """
        self.prepare(image)
        layer, self._grid = self._layer, grid
        if layer is None:
            raise RuntimeError("the layer of crops was not made")
        height, width = (-(-n // _CELL) for n in grid.shape)
        layer.data = np.zeros((height, width), np.uint8)
        _lay(self._viewer, layer, plane_geometry(image, _CELL))

    def mark(self, crops: Iterable[int], mark: CropMark) -> None:
        """Show what is known of crops, by their numbers in the grid."""
        layer = self.layer
        if layer is None or self._grid is None:
            return
        for number in crops:
            core = self._grid[number].core
            cells = slice(core.y0 // _CELL, -(-core.y1 // _CELL))
            columns = slice(core.x0 // _CELL, -(-core.x1 // _CELL))
            layer.data[cells, columns] = _MARKS.index(mark)
        layer.refresh(extent=False, thumbnail=False)

    def clear(self) -> None:
        """Show no crops; the layer is hidden, to be used again."""
        if self.layer is not None:
            self.layer.visible = False
        self._grid = None

    def close(self) -> None:
        """Take the layer away."""
        if self._layer is not None and self._layer in self._viewer.layers:
            self._viewer.layers.remove(self._layer)
        self._layer, self._grid = None, None


def plane_geometry(
    image: Image, cell: int = 1, corner: tuple[int, int] = (0, 0)
) -> dict[str, Any]:
    """Return where a layer of two axes lies to cover the planes of an image.

    Parameters
    ----------
    image : Image
        Its last two axes are rows and columns.
    cell : int
        Plane pixels for one pixel of the layer, a square block from the corner.
    corner : tuple of int
        (y, x) of the plane pixel that the layer begins with.
    """
    scale = np.asarray(image.scale)[-2:]
    rotate = np.asarray(image.rotate)[-2:, -2:]
    # the first block has its centre in the middle of its pixels
    shift = rotate @ (scale * (np.asarray(corner) + (cell - 1) / 2))
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


def _lay(viewer: ViewerModel, layer: Labels, place: dict[str, Any]) -> None:
    """Put a layer that is there already at another place, on top of all others."""
    for name, value in place.items():
        if not _is_same(getattr(layer, name), value):
            setattr(layer, name, value)
    if viewer.layers[-1] is not layer:
        viewer.layers.move(viewer.layers.index(layer), len(viewer.layers))


def _is_same(old: Any, new: Any) -> bool:
    """Whether an attribute of a layer need not be set."""
    if isinstance(new, np.ndarray):
        return np.array_equal(np.asarray(old), new)
    return bool(old == new)


def _parts(box: Box) -> Iterator[Box]:
    """Cut a box into parts that fit in memory."""
    for y0 in range(box.y0, box.y1, _PART):
        for x0 in range(box.x0, box.x1, _PART):
            yield Box(y0, x0, min(y0 + _PART, box.y1), min(x0 + _PART, box.x1))
