"""Labels too large for a layer that can be painted: shown from a `LabelStore`.

napari paints on labels of one level only, which for a slide would take gigabytes and
seconds for each stroke (napari issue 1587). The layer made here has levels and shows
what the store holds; changes go to the store, and the layer reads again what is in
view.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Labels
from napari.utils.colormaps import CyclicLabelColormap, label_colormap
from napari.utils.colormaps.standardize_color import transform_color

from napari_sam.engine.label_store import LabelStore
from napari_sam.widgets.mask_preview import PREVIEW

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from napari_sam.labels import LabelEdit, PlaneIndex
    from napari_sam.tiling import Box

STORE = "napari_sam.label_store"
"""Key of the store in the metadata of its layer."""

OWN = "napari_sam.own"
"""Marks a Labels layer of ours that shows something and is not to be committed to."""

LARGEST_PAINTED = 8192 * 8192
"""Pixels of a plane up to which labels are one layer that can be painted (ours): its
refresh then takes a tenth of a second."""

_ALIKE = 0.25  # distance of colours in RGB, each 0 to 1; found by eye


def is_too_large(shape: Sequence[int]) -> bool:
    """Whether labels of a shape (..., Y, X) are better kept in a store."""
    return int(shape[-2]) * int(shape[-1]) > LARGEST_PAINTED


def store_layer(store: LabelStore, **options: Any) -> Labels:
    """Make the layer that shows a store.

    Parameters
    ----------
    store : LabelStore
    **options
        Of the layer: name, scale, translate and so on.
    """
    options = {"colormap": object_colours()} | options
    layer = Labels(store.shown_levels, multiscale=True, **options)
    layer.metadata[STORE] = store
    return layer


def new_labels(shape: tuple[int, ...], **options: Any) -> Labels:
    """Make labels without objects: one that can be painted, or the view of a store.

    Parameters
    ----------
    shape : tuple of int
        (..., Y, X).
    **options
        Of the layer: name, scale, translate and so on.
    """
    if is_too_large(shape):
        return store_layer(LabelStore.create(shape), **options)
    return Labels(np.zeros(shape, np.uint32), colormap=object_colours(), **options)


def object_colours() -> CyclicLabelColormap:
    """Return napari's colours of labels, but none that looks like a preview.

    The few that do have red and blue exchanged.
    """
    usual = label_colormap(49)  # as many as napari takes
    colours = np.array(usual.colors)
    preview = transform_color(PREVIEW)[0]
    alike = np.linalg.norm(colours[:, :3] - preview[:3], axis=1) < _ALIKE
    colours[alike, :3] = colours[alike, 2::-1]
    return CyclicLabelColormap(colors=colours, background_value=0, seed=usual.seed)


class StoreTarget:
    """A store as `LabelTarget`, whose layer follows.

    Parameters
    ----------
    layer : Labels
        From `store_layer`.
    """

    def __init__(self, layer: Labels) -> None:
        self.layer = layer
        self.store: LabelStore = layer.metadata[STORE]

    @property
    def shape(self) -> tuple[int, ...]:
        """Length of each axis."""
        return self.store.shape

    def read(self, index: PlaneIndex, box: Box) -> NDArray[np.uint32]:
        """Return a copy of the labels of a box of a plane."""
        return self.store.read(index, box)

    def write(self, edits: Sequence[LabelEdit]) -> None:
        """Apply edits, in order, as one step."""
        self.store.write(edits)
        self.layer.refresh(extent=False, thumbnail=False)

    def draw(self, edits: Sequence[LabelEdit]) -> None:
        """Show edits that are no step yet."""
        self.write(edits)

    def undo(self, edits: Sequence[LabelEdit]) -> None:
        """Take the newest step back."""
        self.store.undo(edits)
        self.layer.refresh(extent=False, thumbnail=False)

    def redo(self, edits: Sequence[LabelEdit]) -> None:
        """Make the step again that was taken back last."""
        self.write(edits)

    def fresh_ids(self, n: int) -> list[int]:
        """Return ids that no object has had."""
        return self.store.fresh_ids(n)

    def box_of(self, index: PlaneIndex, object_id: int) -> Box | None:
        """Return the smallest box around an object of a plane; None without it."""
        return self.store.box_of(index, object_id)

    def connect(self) -> None:
        """Nothing is listened to: such a layer cannot be painted by hand."""

    def disconnect(self) -> None:
        """Nothing is listened to: such a layer cannot be painted by hand."""

    def boxes(self, index: PlaneIndex) -> dict[int, Box]:
        """Return where the objects of a plane lie."""
        return self.store.boxes(index)
