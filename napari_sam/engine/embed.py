"""Planes to embeddings, crop by crop, each encoded at most once.

`PlaneEmbedding` answers for one crop at a time and encodes it when it is first
asked for: a click on a new image waits for one crop, not for the plane. `embed` is
the job that fills in all crops.

A stored crop is trusted only if its seal equals the digest of the pixels that the
encoder would see. Where the key covers every pixel of the plane this is known; of
a larger plane the key covers a sample, so each crop's pixels are compared once.
Modification times were rejected: copying a file changes them, an edit need not.

Several threads may use one `PlaneEmbedding`: one runs `fill`, another clicks. The
encoder is used by one at a time, a click before the next crop of `fill`.
"""

from __future__ import annotations

import logging
import math
import threading
import warnings
from collections import OrderedDict
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

import numpy as np
import torch

from napari_sam.cache import CacheEntry, EmbeddingCache
from napari_sam.engine.fingerprint import encoder_digest, fingerprint_plane
from napari_sam.engine.jobs import Job, Step, device_errors, job
from napari_sam.engine.pipeline import Stages, work_ahead
from napari_sam.engine.pixels import CropPixels, read_crop
from napari_sam.engine.turn import turn_of
from napari_sam.errors import (
    CacheMismatchError,
    FileError,
    FormatError,
    InputError,
    NapariSamWarning,
)
from napari_sam.images import ImageSource, Intensity, find_intensity
from napari_sam.images.background import MIN_CONTRAST
from napari_sam.model import Sam
from napari_sam.readers import open_image
from napari_sam.settings import get_settings
from napari_sam.tiling import CELLS, Box, Crop, CropGrid, Need

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from torch import Tensor


CropState: TypeAlias = Literal["missing", "done", "skipped"]

_KEPT_IN_MEMORY = 4

# An object that fills its crop to the border shows no surroundings; 1 / 8 on each
# side is the share of halo that a crop of the grid has, too (ours).
_CONTEXT = 4 / 3

logger = logging.getLogger(__name__)


class _Kept(NamedTuple):
    """An embedding that is yet to be written."""

    crop: Crop
    values: NDArray[Any]
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

    Attributes
    ----------
    in_hand : tuple of Crop
        What `fill` encodes now, or encoded last.
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
        self._fingerprints: dict[int, dict[str, Any]] = {}
        self._entry: CacheEntry | None = None
        self._keeps = True
        self._recent: OrderedDict[Crop, Tensor] = OrderedDict()
        self._looked_at: CropPixels | None = None
        self._unwritten: dict[Crop, Tensor] = {}
        self._encoded: set[int] = set()
        self._lock = threading.Lock()
        self._need = Need()
        self.in_hand: tuple[Crop, ...] = ()
        if cache is not None:
            self._key = {
                "encoder": encoder_digest(model),
                "precision": model.precision,
                "plane": list(plane),
                "intensity": asdict(intensity),
            }
            layout = {"size": grid.size, "halo": grid.halo, "zoom": grid.zoom}
            whole = {"grid": {"shape": list(grid.shape), **layout, "cells": CELLS}}
            self._entry = self._entry_of(grid[0], whole, len(grid))

    def of(self, crop: Crop) -> Tensor:
        """Return the embedding of a crop; encode it if it is not there yet.

        Parameters
        ----------
        crop : Crop
            A crop of `grid`, or another region from `crop_around`.

        Returns
        -------
        (1, C, e, e) float32 tensor, on the model's device
            As `Sam.encode` returns it.

        Raises
        ------
        DeviceError
            If the device runs out of memory.
        """
        found = self._recall(crop)
        if found is None:
            found = self._stored(crop)
        if found is None:
            part, self._looked_at = self._looked_at, None
            if part is None or part.crop != crop:
                part = self._read(crop)
            with turn_of(self.model).take(urgent=True):
                found = self._recall(crop)  # encoded while this waited for its turn
                if found is None:
                    (embedding,) = self._encode([part])
                    found = self._keep(part, embedding)
        return self._remember(crop, found)

    def knows(self, crop: Crop) -> bool:
        """Whether the embedding of a crop need not be encoded."""
        if self._recall(crop) is not None:
            return True
        entry, index = self._place(crop)
        return entry is not None and entry.seal(index) is not None

    def state(self, crop: Crop) -> CropState:
        """Tell what is known of a crop of the grid: missing, done or skipped.

        Skipped crops were found to be background. Nothing is read but two marks.
        """
        if self._entry is None or crop.index < 0:
            return "missing"
        return self._entry.state(crop.index)

    def is_background(self, crop: Crop) -> bool:
        """Tell whether a crop shows nothing, and remember it in the cache.

        Blocks of 8 x 8 px differ by less than 2 gray levels of 255; see
        `napari_sam.images.background`. A crop that is stored is none.
        """
        state = self.state(crop)
        if state != "missing" and self._key_covers_all(crop):
            return state == "skipped"
        # who asks will want its embedding next: pixels are not read twice
        self._looked_at = self._read(crop)
        return self._skip(self._looked_at)

    def prefer(
        self,
        point: tuple[float, float] | None = None,
        visible: Box | None = None,
    ) -> None:
        """Change what `fill` encodes next; from any thread, at any time.

        Parameters
        ----------
        point : tuple of float, optional
            (y, x) of the prompt: its crop comes first.
        visible : Box, optional
            Part of the plane on the screen: its crops come next, then its neighbours,
            then the rest.
        """
        self._need = Need(point, visible)

    def missing(self) -> list[Crop]:
        """Return the crops of the grid that are neither stored nor skipped.

        Those that `prefer` asks for come first; else they are in grid order.
        """
        crops = list(self.grid)
        if self._entry is not None:
            known = self._entry.done() | self._entry.skipped()
            crops = [crop for crop in crops if not known[crop.index]]
        return sorted(crops, key=self._need.rank)

    def skipped(self) -> list[int]:
        """Return the numbers of the crops that were found to be background."""
        if self._entry is None:
            return []
        return [int(each) for each in np.flatnonzero(self._entry.skipped())]

    @job
    def fill(
        self,
        *,
        batch: int | None = None,
        skip_background: bool = False,
        failed: dict[int, str] | None = None,
    ) -> Job[None]:
        """Encode and store every crop that is missing.

        Crops are read ahead and written behind by other threads. `prefer` changes the
        order while it runs; `of`, from another thread, goes before the next crop.

        Parameters
        ----------
        batch : int, optional
            Crops encoded at once. Default: from the settings.
        skip_background : bool, default False
            Record crops that show nothing, and do not encode them. Without it those
            are encoded, too, that were skipped before.
        failed : dict of int to str, optional
            Takes crops of which the pixels cannot be read, with the reason; the others
            are encoded all the same. Default: the first of them ends it.

        Yields
        ------
        Step
            After crops are stored, skipped or failed; its value is their list.

        Raises
        ------
        NapariSamError
            Of any stage, with the crop named.
        """
        settings = get_settings()
        self._encoded.clear()
        left = {crop.index: crop for crop in self.missing()}
        if not skip_background and self._entry is not None:
            again = np.flatnonzero(self._entry.skipped()).tolist()
            left |= {index: self.grid[index] for index in again}
        done = len(self.grid) - len(left)

        need, waiting = self._need, list[Crop]()

        def choose(n: int) -> list[Crop]:
            nonlocal need
            if need is not self._need or not waiting:  # most wanted last
                need = self._need
                waiting[:] = sorted(left.values(), key=need.rank, reverse=True)
            while waiting and waiting[-1].index not in left:
                waiting.pop()
            return waiting[: -n - 1 : -1]

        def read(crop: Crop) -> CropPixels | None:
            # another process, or a click, may have been faster
            is_done = self.state(crop) == "done"
            return None if is_done else self._read_or_note(crop, failed)

        def encode(
            crops: list[Crop], parts: list[CropPixels | None]
        ) -> list[_Kept | None]:
            self.in_hand = tuple(crops)
            for crop in crops:
                del left[crop.index]
            return self._encode_in_turn(parts, skip_background)

        stages = Stages(choose, read, encode, self._write)
        for crops in work_ahead(
            stages, batch or settings.encoder_batch, settings.worker_threads
        ):
            done += len(crops)
            yield Step(done, len(self.grid), "embed", crops)

    def crop_around(self, region: Box) -> Crop:
        """Return a crop that shows a region whole and in its middle.

        For objects that do not fit into a crop of the grid: the crop may lie
        anywhere and has a smaller scale if the region needs it. Where there is room
        it begins at a multiple of 64 input px like those of the grid, since a network
        with strides gives another answer elsewhere.

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
        side, cell = int(size / scale * (1 + 1e-9)), max(1, size // CELLS) / scale
        y0 = _start((wanted.y0, wanted.y1), side, height, cell)
        x0 = _start((wanted.x0, wanted.x1), side, width, cell)
        box = Box(y0, x0, min(y0 + side, height), min(x0 + side, width))
        input_h, input_w = (max(1, min(size, round(n * scale))) for n in box.shape)
        return Crop(-1, -1, -1, box, core=box, input_shape=(input_h, input_w))

    def _place(self, crop: Crop) -> tuple[CacheEntry | None, int]:
        """Return the entry that holds a crop, and its number there."""
        if crop.index >= 0 or self._cache is None:
            return self._entry, crop.index
        region = {"box": asdict(crop.box), "input_shape": list(crop.input_shape)}
        return self._entry_of(crop, {"crop": region}, 1), 0

    def _entry_of(self, crop: Crop, what: dict[str, Any], n: int) -> CacheEntry | None:
        """Return the entry that holds a crop; None if the cache takes none."""
        key = {**self._key, **self._image_key(crop), **what}
        if self._cache is None or not (self._cache.adds or self._cache.knows(key)):
            return None
        return self._cache.entry(key, n, self.model.embedding_shape)

    def _image_key(self, crop: Crop) -> dict[str, Any]:
        """Identify the pixels that a crop is read from, and their level."""
        level = self.source.level_for(crop.scale)
        if level not in self._fingerprints:
            self._fingerprints[level] = fingerprint_plane(
                self.source.level(level), self.plane, self.intensity.channels
            )
        return {"image": self._fingerprints[level], "level": level}

    def _key_covers_all(self, crop: Crop) -> bool:
        return bool(self._image_key(crop)["image"]["covers"] == "all pixels")

    def _stored(self, crop: Crop) -> Tensor | None:
        entry, index = self._place(crop)
        seal = None if entry is None else entry.seal(index)
        if entry is None or seal is None:
            return None
        if not self._key_covers_all(crop) and seal != self._read(crop).seal:
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

    def _read(self, crop: Crop) -> CropPixels:
        is_sealed = self._cache is not None
        return read_crop(
            self.source,
            self.intensity,
            self.plane,
            crop,
            band=self.grid.size,
            is_sealed=is_sealed,
        )

    def _read_or_note(
        self, crop: Crop, failed: dict[int, str] | None
    ) -> CropPixels | None:
        """Read a crop; note why it cannot be read where there is a place for it."""
        try:
            return self._read(crop)
        except (FormatError, FileError) as error:
            if failed is None:
                raise
            failed[crop.index] = str(error)
            return None

    def _encode_in_turn(
        self, parts: list[CropPixels | None], skip_background: bool
    ) -> list[_Kept | None]:
        """Encode what is not encoded yet and shows something; in the background."""
        with turn_of(self.model).take(urgent=False):
            wanted = [
                part
                for part in parts
                if part is not None
                and part.crop.index not in self._encoded
                and not (skip_background and self._skip(part))
            ]
            encoded = self._encode(wanted) if wanted else []
            kept = {
                part.crop.index: self._rounded(part, embedding)
                for part, embedding in zip(wanted, encoded, strict=True)
            }
        return [None if part is None else kept.get(part.crop.index) for part in parts]

    @torch.inference_mode()
    def _encode(self, batch: list[CropPixels]) -> list[Tensor]:
        with device_errors():
            inputs = [self.model.preprocess(part.pixels) for part in batch]
            encoded = self.model.encode(torch.cat(inputs))
        return [embedding[None] for embedding in encoded]

    def _keep(self, part: CropPixels, embedding: Tensor) -> Tensor:
        """Store an embedding; return it as it will be read, rounding included.

        Whoever asks for one crop wants an answer and not a store: where nothing more
        can be kept, on a full disk, it goes on without.
        """
        kept = self._rounded(part, embedding)
        found = self._unwritten[part.crop]
        if not self._keeps:
            del self._unwritten[part.crop]
            return found
        try:
            self._write(kept)
        except FileError as error:
            self._keeps = False
            warnings.warn(
                f"{error}; from now on embeddings of this plane are not kept",
                NapariSamWarning,
                stacklevel=4,
            )
        return found

    def _rounded(self, part: CropPixels, embedding: Tensor) -> _Kept:
        """Round an embedding as it is stored; until then it can be recalled.

        Where nothing is kept it is rounded, too: an answer shall not depend on it.
        """
        stored = "float16" if self._cache is None else self._cache.dtype
        rounded = embedding.to(getattr(torch, stored))
        if self._cache is None and not rounded.isfinite().all():
            rounded = embedding  # beyond the range; a store would refuse it
        self._unwritten[part.crop] = rounded.float()
        self._encoded.add(part.crop.index)
        return _Kept(part.crop, rounded[0].cpu().numpy(), part.seal)

    def _write(self, kept: _Kept) -> None:
        try:
            entry, index = self._place(kept.crop)
            if entry is not None:
                entry.write(index, kept.values, kept.seal)
        finally:
            self._unwritten.pop(kept.crop, None)

    def _skip(self, part: CropPixels) -> bool:
        if part.contrast >= MIN_CONTRAST:
            return False
        if self._entry is not None and part.crop.index >= 0:
            self._entry.skip(part.crop.index, part.seal)
        return True

    def _recall(self, crop: Crop) -> Tensor | None:
        with self._lock:
            if crop in self._recent:
                self._recent.move_to_end(crop)
                return self._recent[crop]
        return self._unwritten.get(crop)

    def _remember(self, crop: Crop, embedding: Tensor) -> Tensor:
        with self._lock:
            self._recent[crop] = embedding
            if len(self._recent) > _KEPT_IN_MEMORY:
                self._recent.popitem(last=False)
        return embedding


def _start(wanted: tuple[int, int], side: int, length: int, cell: float) -> int:
    """Choose where a crop begins, on a side of the plane, that shows a part of it."""
    middle = min(max((sum(wanted) - side) // 2, 0), max(length - side, 0))
    near = (math.floor(middle / cell), math.ceil(middle / cell))
    starts = sorted((int(k * cell + 0.5) for k in near), key=lambda y: abs(y - middle))
    fits = [y for y in starts if wanted[1] - side <= y <= wanted[0]]
    return fits[0] if fits else middle


def encode_together(planes: Sequence[PlaneEmbedding], crop: Crop) -> None:
    """Encode one crop of several planes in one batch, where it is not known yet.

    Parameters
    ----------
    planes : sequence of PlaneEmbedding
        Of one network, cut in the same way.
    crop : Crop
        As for `PlaneEmbedding.of`, which finds it afterwards.

    Raises
    ------
    DeviceError
        If the device runs out of memory.
    """
    missing = [plane for plane in planes if not plane.knows(crop)]
    if not missing:
        return
    # private members of the class in this file
    parts = [plane._read(crop) for plane in missing]  # noqa: SLF001
    with turn_of(missing[0].model).take(urgent=True):
        encoded = missing[0]._encode(parts)  # noqa: SLF001
        for plane, part, embedding in zip(missing, parts, encoded, strict=True):
            kept = plane._keep(part, embedding)  # noqa: SLF001
            plane._remember(crop, kept)  # noqa: SLF001


@job
def embed(  # noqa: PLR0913 - all that a user may choose
    image: Any,
    model: Sam,
    *,
    cache: EmbeddingCache | None = None,
    grid: CropGrid | None = None,
    plane: tuple[int, int] = (0, 0),
    intensity: Intensity | None = None,
    skip_background: bool = False,
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
    skip_background : bool, default False
        As in `PlaneEmbedding.fill`.

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
    yield from embedding.fill(skip_background=skip_background)
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
    if not isinstance(model, Sam):
        raise InputError(
            f"model {model!r}; give what load_model returns, as in "
            "load_model('default')"
        )
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
