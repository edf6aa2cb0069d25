"""One entry of the store: the embeddings of one set of crops, and their seals.

An entry may stand on a pack, which is never written to: what is written later lies
above it and wins. So packing needs no lock, and a crop that is embedded again needs no
shard to be rewritten.
"""

from __future__ import annotations

import contextlib
import logging
import re
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, cast

import numpy as np
import zarr
from zarr.codecs import BloscCodec, Crc32cCodec
from zarr.errors import ContainsArrayError, ContainsGroupError

from napari_sam.errors import CacheMismatchError, FileError, InputError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from napari_sam.cache.files import Files

SEAL_BYTES = 16
"""Length of the digest that marks a crop as complete."""

EntryState: TypeAlias = Literal["missing", "done", "skipped"]
"""What an entry knows of a crop; "skipped" crops are background, not encoded."""

_MARKS = ("seals", "skipped")

# Hides what a pack has; zeros would not do, zarr removes a chunk of the fill value.
_FORGOTTEN = b"\xff" * SEAL_BYTES
_PACK = re.compile(r"packed-(\d+)")
_CHUNK = re.compile(r"c\.(\d+)(\.0)+")

# lz4 with bitshuffle was the fastest to come under 2 MiB a crop: measured by
# benchmarks/embedding_store.py
_CODECS = {"embeddings": [BloscCodec(cname="lz4", clevel=1, shuffle="bitshuffle")]}

logger = logging.getLogger(__name__)


class CacheEntry:
    """Embeddings of one set of crops; made by `EmbeddingCache.entry`.

    Parameters
    ----------
    group : zarr.Group
        The entry's folder.
    files : Files
        The files of the store.
    """

    def __init__(self, group: zarr.Group, files: Files) -> None:
        self.name = group.basename
        self.key = cast("dict[str, Any]", group.attrs["key"])
        self._group = group
        self._files = files
        self._embeddings = _array(group, "embeddings")
        self._marks = {name: _array(group, name) for name in _MARKS}
        found = map(_PACK.fullmatch, files.folders(self.name))
        packs = {int(match[1]): match[0] for match in found if match}
        self.pack_number = max(packs, default=0)
        self._pack = (
            cast("zarr.Group", group[packs[self.pack_number]]) if packs else None
        )

    @property
    def n_crops(self) -> int:
        """Number of crops, present or not."""
        return int(self._embeddings.shape[0])

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one embedding, (C, e, e)."""
        return tuple(int(n) for n in self._embeddings.shape[1:])

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the stored numbers."""
        return np.dtype(self._embeddings.dtype)

    @property
    def is_packed(self) -> bool:
        """Whether all crops lie in shards, and none beside them."""
        return self._pack is not None and not self._loose("seals", "skipped")

    @property
    def stored_bytes(self) -> int:
        """Size after compression, in bytes."""
        folders = [f"{self.name}/{each}" for each in ("embeddings", *_MARKS)]
        if self._pack is not None:
            pack = f"{self.name}/{self._pack.basename}"
            folders += [f"{pack}/{each}" for each in ("embeddings", *_MARKS)]
        return sum(sum(self._files.sizes(each).values()) for each in folders)

    def done(self) -> NDArray[np.bool_]:
        """Return which crops are present, (n,) bool."""
        return self._states()[0]

    def skipped(self) -> NDArray[np.bool_]:
        """Return which crops are known as background and not encoded, (n,) bool."""
        return self._states()[1]

    def state(self, index: int) -> EntryState:
        """Return what is known of a crop."""
        if self.seal(index) is not None:
            return "done"
        return "missing" if self.skip_seal(index) is None else "skipped"

    def seal(self, index: int) -> bytes | None:
        """Return the digest written with a crop, or None if the crop is absent."""
        return self._mark("seals", index)

    def skip_seal(self, index: int) -> bytes | None:
        """Return the digest of the pixels that were skipped as background, or None."""
        return self._mark("skipped", index)

    def read(self, index: int) -> NDArray[np.floating[Any]]:
        """Read the embedding of a crop that is present.

        Parameters
        ----------
        index : int
            Number of the crop.

        Returns
        -------
        (C, e, e) array, float16 or float32

        Raises
        ------
        CacheMismatchError
            If its chunk is damaged or missing.
        """
        self._files.touch(self.name)
        try:
            embedding = np.asarray(self._holding(index)[index])
        except ValueError as error:
            raise CacheMismatchError(
                f"crop {index} of the stored embeddings {self.name} is damaged "
                f"({error}); embed it again"
            ) from error
        # zarr fills in NaN for a chunk that is not there
        if np.isnan(embedding.flat[0]):
            raise CacheMismatchError(
                f"crop {index} of the stored embeddings {self.name} is missing; "
                "embed it again"
            )
        return embedding

    def write(self, index: int, embedding: NDArray[Any], seal: bytes) -> None:
        """Write the embedding of a crop, then its seal.

        Parameters
        ----------
        index : int
            Number of the crop.
        embedding : (C, e, e) array
            Rounded to the stored type.
        seal : bytes
            16 bytes, not all zero: the digest of the pixels that were encoded.

        Raises
        ------
        InputError
            If values do not fit the stored type, or the seal has another length.
        FileError
            If the store cannot be written, for example because the disk is full.
        """
        _check_seal(seal)
        dtype = self._embeddings.dtype
        with np.errstate(over="ignore"):
            stored = np.asarray(embedding).astype(dtype)
        if not np.isfinite(stored).all():
            raise InputError(
                f"crop {index} has an embedding beyond the range of {dtype}; use "
                "EmbeddingCache(dtype='float32'), or other weights if it is not finite"
            )
        with writing(f"{self.name}, crop {index}"):
            self._embeddings[index : index + 1] = stored[None]
            self._write_mark("seals", index, seal)

    def skip(self, index: int, seal: bytes) -> None:
        """Record that a crop is background and was not encoded.

        Parameters
        ----------
        index : int
            Number of the crop.
        seal : bytes
            As in `write`.
        """
        _check_seal(seal)
        with writing(f"{self.name}, crop {index}"):
            self._write_mark("skipped", index, seal)

    def forget(self, index: int) -> None:
        """Make a crop count as missing, so that it is embedded again.

        Raises
        ------
        FileError
            If the store cannot be written.
        """
        with writing(f"{self.name}, crop {index}"):
            for name in _MARKS:
                if self._pack is None:
                    self._files.remove(f"{self.name}/{name}/c.{index}.0")
                else:
                    self._write_mark(name, index, _FORGOTTEN)

    def _write_mark(self, name: str, index: int, seal: bytes) -> None:
        if not self._files.touch(self.name):
            # removed by another process: crops without metadata belong to nobody
            shape = (self.n_crops, *self.shape)
            _require_entry(self._group.store, self.name, self.key, shape)
        self._marks[name][index : index + 1] = np.frombuffer(seal, np.uint8)[None]

    def _mark(self, name: str, index: int) -> bytes | None:
        packed = self._packed_marks.get(name)
        if packed is not None and index not in self._loose(name):
            seal = packed[index]
        else:
            try:
                seal = np.asarray(self._marks[name][index])
            except ValueError:
                logger.warning("seal of crop %d in %s is damaged", index, self.name)
                return None
        found = seal.tobytes()
        return found if any(found) and found != _FORGOTTEN else None

    def _states(self) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        present: dict[str, NDArray[np.bool_]] = {}
        for name in _MARKS:
            loose = np.array(sorted(self._loose(name)), np.intp)
            if name in self._packed_marks:
                present[name] = np.any(self._packed_marks[name] != 0, axis=1)
                for index in loose.tolist():  # few: what was written since packing
                    present[name][index] = self._mark(name, index) is not None
            else:
                present[name] = np.zeros(self.n_crops, np.bool_)
                present[name][loose] = True
        return present["seals"], present["skipped"] & ~present["seals"]

    def _loose(self, *names: str) -> set[int]:
        """Return the crops that have a mark of their own, outside of the pack."""
        found = (
            _CHUNK.fullmatch(file)
            for name in names
            for file in self._files.sizes(f"{self.name}/{name}")
        )
        return {int(match[1]) for match in found if match}

    def _holding(self, index: int) -> zarr.Array[Any]:
        """Return the array that holds a crop."""
        if self._pack is None or index in self._loose("seals"):
            return self._embeddings
        return self._packed_embeddings

    @cached_property
    def _packed_embeddings(self) -> zarr.Array[Any]:
        return _array(cast("zarr.Group", self._pack), "embeddings")

    @cached_property
    def _packed_marks(self) -> dict[str, NDArray[np.uint8]]:
        """Seals of the pack, (n, 16) each; a pack never changes."""
        if self._pack is None:
            return {}
        return {name: np.asarray(_array(self._pack, name)[:]) for name in _MARKS}


def open_entry(
    root: zarr.Group,
    files: Files,
    name: str,
    key: dict[str, Any],
    shape: tuple[int, ...],
) -> CacheEntry:
    """Open an entry, or make it.

    Parameters
    ----------
    root : zarr.Group
        The store.
    files : Files
        Its files.
    name : str
        Folder of the entry.
    key : dict
        JSON values; ``dtype`` is the stored type.
    shape : tuple of int
        (n, C, e, e).

    Raises
    ------
    CacheMismatchError
        If the folder holds another key, or is damaged.
    FileError
        If it cannot be written.
    """
    try:
        with writing(name):
            group = _require_entry(root.store, name, key, shape)
            entry = CacheEntry(group, files)
    except (ValueError, KeyError) as error:
        raise CacheMismatchError(
            f"the stored embeddings {name} are damaged ({error}); "
            "remove this folder of the store"
        ) from error
    if entry.key != key or (entry.n_crops, *entry.shape) != shape:
        raise CacheMismatchError(
            f"the stored embeddings {name} belong to the key {entry.key}, not to "
            f"{key}; remove this folder of the store"
        )
    return entry


def require_group(store: Any, path: str, attributes: dict[str, Any]) -> zarr.Group:
    """Open a group of a store, or make it with these attributes."""
    try:
        return zarr.open_group(
            store, path=path, mode="a", zarr_format=3, attributes=attributes
        )
    except ContainsGroupError:
        # another process made it between our look and our write
        return zarr.open_group(store, path=path, mode="r+")


def _require_entry(
    store: Any, name: str, key: dict[str, Any], shape: tuple[int, ...]
) -> zarr.Group:
    group = require_group(store, name, {"key": key})
    _require_array(group, "embeddings", shape, str(key["dtype"]))
    for mark in _MARKS:
        _require_array(group, mark, (shape[0], SEAL_BYTES), "uint8")
    return group


def _require_array(
    group: zarr.Group, name: str, shape: tuple[int, ...], dtype: str
) -> None:
    if name not in group:
        with contextlib.suppress(ContainsArrayError):
            create_array(group, name, shape, dtype)


def create_array(
    group: zarr.Group,
    name: str,
    shape: tuple[int, ...],
    dtype: str,
    *,
    chunk: int = 1,
    shard: int | None = None,
) -> zarr.Array[Any]:
    """Make an array of an entry; each chunk has a checksum.

    Parameters
    ----------
    group : zarr.Group
        The entry, or its pack.
    name : str
        "embeddings", "seals" or "skipped".
    shape : tuple of int
        (n, ...), n the number of crops.
    dtype : str
        "float16", "float32" or "uint8".
    chunk, shard : int
        Crops in a chunk and in a shard. Default: one, and no shards.
    """
    return group.create_array(
        name,
        shape=shape,
        chunks=(chunk, *shape[1:]),
        shards=None if shard is None else (shard, *shape[1:]),
        dtype=dtype,
        compressors=[*_CODECS.get(name, []), Crc32cCodec()],
        # NaN marks a chunk that is absent, so even one full of zeros must be written
        fill_value=float("nan") if dtype.startswith("float") else 0,
        chunk_key_encoding={"name": "default", "separator": "."},  # no folder a crop
        config={"write_empty_chunks": True},
    )


def _array(group: zarr.Group, name: str) -> zarr.Array[Any]:
    return cast("zarr.Array[Any]", group[name])


def _check_seal(seal: bytes) -> None:
    if len(seal) != SEAL_BYTES or not any(seal):
        raise InputError(f"seal {seal!r}; give {SEAL_BYTES} bytes, not all zero")


@contextlib.contextmanager
def writing(name: str) -> Iterator[None]:
    """Say in words what went wrong where a block cannot write.

    Raises
    ------
    FileError
        In place of any OSError.
    """
    try:
        yield
    except OSError as error:
        raise FileError(
            f"cannot write embeddings to {name}: {error.strerror or error}; free some "
            "space, or choose a folder that can be written"
        ) from error
