"""Planes to embeddings, crop by crop, each encoded at most once.

`PlaneEmbedding` answers for one crop at a time and encodes it when it is first
asked for: a click on a new image waits for one crop, not for the plane. `embed` is
the job that fills in all crops.

A stored crop is trusted only if its seal equals the digest of the pixels that the
encoder would see. Where the key covers every pixel of the plane this is known; of
a larger plane the key covers a sample, so each crop's pixels are compared once.
Modification times were rejected: copying a file changes them, an edit need not.
"""

from __future__ import annotations

import hashlib
import logging
import math
import warnings
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np
import torch
from torch.nn import functional

from napari_sam.cache import SEAL_BYTES, CacheEntry, EmbeddingCache
from napari_sam.engine.fingerprint import encoder_digest, fingerprint_plane
from napari_sam.engine.jobs import Job, Step, device_errors, job
from napari_sam.errors import CacheMismatchError, InputError, NapariSamWarning
from napari_sam.images import ImageSource, Intensity, find_intensity, read_rgb
from napari_sam.readers import open_image
from napari_sam.settings import get_settings
from napari_sam.tiling import Box, Crop, CropGrid

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from torch import Tensor

    from napari_sam.model import Sam

S = TypeVar("S")
T = TypeVar("T")

_KEPT_IN_MEMORY = 4

# An object that fills its crop to the border shows no surroundings; 1 / 8 on each
# side is the share of halo that a crop of the grid has, too (ours).
_CONTEXT = 4 / 3

logger = logging.getLogger(__name__)


class _Pixels(NamedTuple):
    """What the encoder sees of a crop, (1, 3, h, w) uint8, and its digest."""

    crop: Crop
    pixels: Tensor
    seal: bytes


class PlaneEmbedding:
    """Embeddings of one plane; made by `open_plane` or `embed`.

    Parameters
    ----------
    source : ImageSource
        The image.
    model : Sam
        The network that encodes.
    grid : CropGrid
        How the plane is cut.
    plane : tuple of int
        (frame, slice).
    intensity : Intensity
        How pixels become 8-bit RGB.
    cache : EmbeddingCache, optional
        Where embeddings are kept. Default: only the last four, in memory.
    """

    def __init__(
        self,
        source: ImageSource,
        model: Sam,
        grid: CropGrid,
        plane: tuple[int, int],
        intensity: Intensity,
        cache: EmbeddingCache | None,
    ) -> None:
        self.source = source
        self.model = model
        self.grid = grid
        self.plane = plane
        self.intensity = intensity
        self._cache = cache
        self._key: dict[str, Any] = {}
        self._key_covers_all = False
        self._entry: CacheEntry | None = None
        self._recent: OrderedDict[Crop, Tensor] = OrderedDict()
        if cache is not None:
            fingerprint = fingerprint_plane(source, plane, intensity.channels)
            self._key_covers_all = fingerprint["covers"] == "all pixels"
            self._key = {
                "encoder": encoder_digest(model),
                "precision": model.precision,
                "image": fingerprint,
                "plane": list(plane),
                "intensity": asdict(intensity),
            }
            layout = {"size": grid.size, "halo": grid.halo, "zoom": grid.zoom}
            self._entry = cache.entry(
                {**self._key, "grid": {"shape": list(grid.shape), **layout}},
                len(grid),
                self._shape,
            )

    def of(self, crop: Crop) -> Tensor:
        """Return the embedding of a crop; encode it if it is not there yet.

        Parameters
        ----------
        crop : Crop
            A crop of `grid`, or another region from `crop_around`.

        Returns
        -------
        (1, C, e, e) float32 tensor, on the model's device

        Raises
        ------
        DeviceError
            If the device runs out of memory.
        """
        if crop in self._recent:
            self._recent.move_to_end(crop)
            return self._recent[crop]
        found = self._stored(crop)
        if found is None:
            found = self._encode([self._read(crop)])[0]
        return self._remember(crop, found)

    def missing(self, near: tuple[float, float] | None = None) -> list[Crop]:
        """Return the crops of the grid that are not stored yet.

        Parameters
        ----------
        near : tuple of float, optional
            (y, x) of a point of the plane; crops close to it come first.
            Default: in grid order.
        """
        crops = list(self.grid)
        if self._entry is not None:
            present = self._entry.done()
            crops = [crop for crop in crops if not present[crop.index]]
        if near is None:
            return crops
        return sorted(crops, key=lambda crop: (_distance(crop, near), crop.index))

    @job
    def fill(
        self, near: tuple[float, float] | None = None, batch: int | None = None
    ) -> Job[None]:
        """Encode and store every crop that is missing.

        The pixels of the next crops are read while the encoder works.

        Parameters
        ----------
        near : tuple of float, optional
            As in `missing`.
        batch : int, optional
            Crops encoded at once. Default: from the settings.

        Yields
        ------
        Step
            After each batch; its value is the list of crops.
        """
        crops = self.missing(near)
        if batch is None:
            batch = get_settings().encoder_batch
        groups = [crops[i : i + batch] for i in range(0, len(crops), batch)]
        done = len(self.grid) - len(crops)
        for group in _ahead(lambda group: [self._read(crop) for crop in group], groups):
            self._encode(group)
            done += len(group)
            value = [part.crop for part in group]
            yield Step(done, len(self.grid), "embed", value)

    def crop_around(self, region: Box) -> Crop:
        """Return a crop that shows a region whole and in its middle.

        For objects that do not fit into a crop of the grid: the crop may lie
        anywhere and has a smaller scale if the region needs it.

        Parameters
        ----------
        region : Box
            What shall be seen, in plane pixels.

        Returns
        -------
        Crop
            Not of the grid; its index is -1.
        """
        (height, width), size = self.grid.shape, self.grid.size
        margin = math.ceil((_CONTEXT - 1) / 2 * max(region.shape))
        y0, x0, y1, x1 = region.y0, region.x0, region.y1, region.x1
        wanted = Box(y0 - margin, x0 - margin, y1 + margin, x1 + margin)
        wanted = wanted.clip(self.grid.shape)  # beyond the plane there is no context
        scale = min(self.grid.zoom, size / max(*wanted.shape, 1))
        side = int(size / scale * (1 + 1e-9))
        box_h, box_w = min(side, height), min(side, width)
        y0 = min(max((wanted.y0 + wanted.y1 - box_h) // 2, 0), height - box_h)
        x0 = min(max((wanted.x0 + wanted.x1 - box_w) // 2, 0), width - box_w)
        box = Box(y0, x0, y0 + box_h, x0 + box_w)
        input_h, input_w = (max(1, min(size, round(n * scale))) for n in box.shape)
        return Crop(-1, -1, -1, box, core=box, input_shape=(input_h, input_w))

    @property
    def _shape(self) -> tuple[int, int, int]:
        config = self.model.config
        return config.embed_dim, config.embedding_size, config.embedding_size

    def _place(self, crop: Crop) -> tuple[CacheEntry | None, int]:
        """Return the entry that holds a crop, and its number there."""
        if crop.index >= 0 or self._cache is None:
            return self._entry, crop.index
        region = {"box": asdict(crop.box), "input_shape": list(crop.input_shape)}
        return self._cache.entry({**self._key, "crop": region}, 1, self._shape), 0

    def _stored(self, crop: Crop) -> Tensor | None:
        entry, index = self._place(crop)
        seal = None if entry is None else entry.seal(index)
        if entry is None or seal is None:
            return None
        if not self._key_covers_all and seal != self._read(crop).seal:
            logger.warning("the image has changed in %s; it is encoded again", crop.box)
            return None
        try:
            values = entry.read(index)
        except CacheMismatchError as error:
            warnings.warn(
                f"{error}; it is encoded again now", NapariSamWarning, stacklevel=4
            )
            return None
        return torch.from_numpy(values.astype(np.float32))[None].to(self.model.device)

    def _read(self, crop: Crop) -> _Pixels:
        """Read a crop as the encoder sees it; band by band, as it may be large.

        Resampling is that of the reference with PIL: bilinear, smoothed where it
        shrinks. Rows first, then columns, in 8 bit: so bands change nothing.
        """
        (height, width), box = crop.input_shape, crop.box
        digest = hashlib.blake2b(digest_size=SEAL_BYTES)
        bands = []
        for y0 in range(box.y0, box.y1, self.grid.size):
            band = Box(y0, box.x0, min(y0 + self.grid.size, box.y1), box.x1)
            rgb = read_rgb(self.source, self.intensity, band, self.plane)
            rgb = np.ascontiguousarray(rgb)
            digest.update(rgb.data)
            pixels = torch.from_numpy(np.ascontiguousarray(rgb.transpose(2, 0, 1)))
            bands.append(_resampled(pixels[None], (band.height, width)))
        pixels = _resampled(torch.cat(bands, dim=2), (height, width))
        return _Pixels(crop, pixels, digest.digest())

    @torch.inference_mode()
    def _encode(self, batch: list[_Pixels]) -> list[Tensor]:
        with device_errors():
            inputs = [self.model.preprocess(part.pixels) for part in batch]
            encoded = self.model.encode(torch.cat(inputs))
        return [
            self._keep(part, embedding[None])
            for embedding, part in zip(encoded, batch, strict=True)
        ]

    def _keep(self, part: _Pixels, embedding: Tensor) -> Tensor:
        """Store an embedding; return it as it will be read, rounding included."""
        entry, index = self._place(part.crop)
        if entry is None or self._cache is None:
            return embedding
        values = embedding[0].cpu().numpy()
        entry.write(index, values, part.seal)
        rounded = torch.from_numpy(values.astype(self._cache.dtype).astype(np.float32))
        return rounded[None].to(embedding.device)

    def _remember(self, crop: Crop, embedding: Tensor) -> Tensor:
        self._recent[crop] = embedding
        if len(self._recent) > _KEPT_IN_MEMORY:
            self._recent.popitem(last=False)
        return embedding


@job
def embed(
    image: Any,
    model: Sam,
    *,
    cache: EmbeddingCache | None = None,
    grid: CropGrid | None = None,
    plane: tuple[int, int] = (0, 0),
    intensity: Intensity | None = None,
) -> Job[PlaneEmbedding]:
    """Encode every crop of a plane.

    Parameters
    ----------
    image : ImageSource, path or array
        What `open_image` takes.
    model : Sam
        From `load_model`.
    cache : EmbeddingCache, optional
        Where embeddings are kept; crops found there are not encoded again.
        Default: a new one in memory.
    grid : CropGrid, optional
        How the plane is cut. Default: crops of the model's input size.
    plane : tuple of int, default (0, 0)
        (frame, slice).
    intensity : Intensity, optional
        How pixels become 8-bit RGB. Default: from `find_intensity`.

    Yields
    ------
    Step
        After each batch of crops; its value is the list of crops.

    Returns
    -------
    PlaneEmbedding

    Raises
    ------
    InputError
        If an argument does not fit the image or the model.
    DeviceError
        If the device runs out of memory.
    FileError
        If the cache cannot be written.
    """
    kept = EmbeddingCache() if cache is None else cache
    embedding = open_plane(
        image, model, cache=kept, grid=grid, plane=plane, intensity=intensity
    )
    yield from embedding.fill()
    return embedding


def open_plane(
    image: Any,
    model: Sam,
    *,
    cache: EmbeddingCache | None = None,
    grid: CropGrid | None = None,
    plane: tuple[int, int] = (0, 0),
    intensity: Intensity | None = None,
) -> PlaneEmbedding:
    """Make ready to encode the crops of a plane as they are asked for.

    Parameters
    ----------
    image, model, grid, plane, intensity
        As in `embed`.
    cache : EmbeddingCache, optional
        Where embeddings are kept. Default: only the last four, in memory.

    Returns
    -------
    PlaneEmbedding
        Nothing has been encoded yet.

    Raises
    ------
    InputError
        If an argument does not fit the image or the model.
    """
    source = open_image(image)
    if model.training:
        raise InputError("the model is in training mode; call model.eval() first")
    if grid is None:
        grid = default_grid(source, model)
    if grid.shape != source.plane_shape or grid.size != model.config.image_size:
        raise InputError(
            f"a grid for planes of {grid.shape} px in crops of {grid.size} px does not "
            f"fit planes of {source.plane_shape} px and a model that takes "
            f"{model.config.image_size} px"
        )
    if intensity is None:
        intensity = find_intensity(source)
    return PlaneEmbedding(source, model, grid, plane, intensity, cache)


def default_grid(source: ImageSource, model: Sam) -> CropGrid:
    """Return crops of the model's input size, with the halo of the settings.

    The setting is for an input of 1024 px; for another size it is in proportion.
    """
    size = model.config.image_size
    halo = get_settings().crop_halo * size // 1024
    return CropGrid(source.plane_shape, size=size, halo=halo)


def _ahead(function: Callable[[S], T], items: Iterable[S]) -> Iterator[T]:
    """Call a function on each item, one call ahead, in another thread."""
    with ThreadPoolExecutor(1) as pool:
        ahead = None
        for item in items:
            following = pool.submit(function, item)
            if ahead is not None:
                yield ahead.result()
            ahead = following
        if ahead is not None:
            yield ahead.result()


def _resampled(pixels: Tensor, shape: tuple[int, int]) -> Tensor:
    if pixels.shape[2:] == shape:
        return pixels
    return functional.interpolate(pixels, shape, mode="bilinear", antialias=True)


def _distance(crop: Crop, near: tuple[float, float]) -> float:
    box = crop.core
    y, x = (box.y0 + box.y1 - 1) / 2, (box.x0 + box.x1 - 1) / 2
    return (y - near[0]) ** 2 + (x - near[1]) ** 2
