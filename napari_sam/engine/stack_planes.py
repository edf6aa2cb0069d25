"""The planes of a stack: opened where they are needed, and kept for a while."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Literal

from napari_sam.engine.embed import default_grid, encode_together, open_plane
from napari_sam.engine.predict import Predictor
from napari_sam.errors import InputError
from napari_sam.images import find_intensity, read_rgb
from napari_sam.readers import open_image
from napari_sam.settings import get_settings

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from napari_sam.cache import EmbeddingCache
    from napari_sam.images import ImageSource, Intensity
    from napari_sam.model import Sam
    from napari_sam.tiling import Box, Crop, CropGrid

_OPEN_PLANES = 24


class StackPlanes:
    """The planes of a stack along one axis, embedded in the order of need.

    What depends on a plane alone is kept for the next object and the next round: the
    embedding of up to `_OPEN_PLANES` planes, and of networks that look at whole crops
    what prompts share; less than 20 MB each where objects lie in one crop. It belongs
    to one thread.

    Parameters
    ----------
    source : ImageSource
        The image.
    model : Sam
        From `load_model`.
    along : {"z", "t"}
        The axis of the stack.
    at : int
        Place on the other axis.
    grid : CropGrid
        How a plane is cut; only crops that are asked for are encoded.
    intensity : Intensity
        How pixels become 8-bit RGB; one for all planes.
    cache : EmbeddingCache or None
        Where embeddings are kept.
    batch : int
        Slices encoded at once.
    """

    def __init__(  # noqa: PLR0913 - what every plane is opened with
        self,
        source: ImageSource,
        model: Sam,
        along: Literal["z", "t"],
        at: int,
        grid: CropGrid,
        intensity: Intensity,
        cache: EmbeddingCache | None,
        batch: int = 1,
    ) -> None:
        if along not in ("z", "t"):
            raise InputError(f"along {along!r}; use 'z' or 't'")
        self.source = source
        self.model = model
        self.along = along
        self.at = at
        self.n = source.shape[1 if along == "z" else 0]
        self.batch = batch
        self._options = (grid, intensity, cache)
        self._open: OrderedDict[int, Predictor] = OrderedDict()

    def index(self, i: int) -> tuple[int, int]:
        """(frame, slice) of the i-th plane."""
        i = int(i)  # numpy's integers are no numbers to JSON
        return (self.at, i) if self.along == "z" else (i, self.at)

    def predictor(self, i: int) -> Predictor:
        """Return what answers prompts on a plane; a few are held."""
        if i not in self._open:
            grid, intensity, cache = self._options
            plane = open_plane(
                self.source,
                self.model,
                cache=cache,
                grid=grid,
                plane=self.index(i),
                intensity=intensity,
            )
            self._open[i] = Predictor(self.model, plane)
            if len(self._open) > max(_OPEN_PLANES, 3 + self.batch):
                self._open.popitem(last=False)
        self._open.move_to_end(i)
        return self._open[i]

    def encode(self, crop: Crop, slices: Sequence[int]) -> None:
        """Encode a crop of the first slices of several, as many as a batch has.

        Parameters
        ----------
        crop : Crop
            Of any of the planes.
        slices : sequence of int
            The one that is needed now, and those that come next. Nothing is encoded
            while the first is there.
        """
        first = self.predictor(slices[0]).embedding
        if not first.knows(crop):
            ahead = [self.predictor(i).embedding for i in slices[: self.batch]]
            encode_together(ahead, crop)

    def gray(self, i: int, region: Box) -> NDArray[np.float64]:
        """Brightness in a region, 0 to 255."""
        rgb = read_rgb(self.source, self._options[1], region, self.index(i))
        gray: NDArray[np.float64] = rgb.mean(axis=-1)
        return gray


def open_stack(  # noqa: PLR0913 - the arguments of `embed`, and which planes
    image: Any,
    model: Sam,
    *,
    along: Literal["z", "t"] = "z",
    at: int = 0,
    cache: EmbeddingCache | None = None,
    grid: CropGrid | None = None,
    intensity: Intensity | None = None,
) -> StackPlanes:
    """Make ready to follow objects through a stack.

    Parameters
    ----------
    image, model, cache, grid, intensity
        As in `napari_sam.engine.embed.embed`.
    along : {"z", "t"}
        The axis to go along.
    at : int
        The frame, along z; the slice, along t.

    Returns
    -------
    StackPlanes
        Nothing has been encoded yet.

    Raises
    ------
    InputError
        If the image cannot be opened, or `along` is none of the two.
    """
    source = open_image(image)
    return StackPlanes(
        source,
        model,
        along,
        at,
        grid or default_grid(source, model),
        intensity or find_intensity(source),
        cache,
        get_settings().encoder_batch,
    )
