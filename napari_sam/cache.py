"""Embeddings kept in a zarr store, so that nothing is encoded twice.

An entry holds the embeddings of one set of crops under a key that names all they
depend on; the entry's folder is the hash of the key, so another key is another
entry and never a wrong hit. A crop is one chunk, sealed by a checksum, and counts
as present once its seal, a second small chunk, is written after it. Each chunk
appears in one step (zarr writes aside and renames), so a process may be killed at
any time and several may fill one store.

    store/                      group; attributes: what this is, format version
      <hash of the key>/        group; attributes: the key, readable
        embeddings              (n, C, e, e), one chunk a crop, blosc lz4, crc32c
        seals                   (n, 16) uint8, digest of the crop's pixels; 0 = absent

Chunks are not sharded: two writers in one shard lose each other's crops without any
error. In memory it is the same class on zarr's memory store.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
import zarr
from zarr.codecs import BloscCodec, Crc32cCodec
from zarr.errors import ContainsArrayError, ContainsGroupError
from zarr.storage import LocalStore, MemoryStore

from napari_sam.errors import (
    CacheMismatchError,
    FileError,
    FormatError,
    InputError,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray

    StoredType = Literal["float16", "float32"]

FORMAT_VERSION = 1
"""Of the layout above; a store of another version is refused, not guessed at."""

SEAL_BYTES = 16
"""Length of the digest that marks a crop as complete."""

_KIND = "napari-sam embeddings"

# A writer that still lives renames its file within seconds.
_ABANDONED_AFTER_S = 3600.0

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class EntryInfo:
    """What is known of one entry without reading its embeddings.

    Parameters
    ----------
    name : str
        Hash of the key, and folder in the store.
    key : dict
        What the embeddings depend on.
    n_crops, n_done : int
        Crops of the entry, and how many of them are present.
    stored_bytes : int
        Size on disk, or in memory, after compression.
    used_s : float
        When the entry was last opened, in seconds since the epoch.
    """

    name: str
    key: dict[str, Any]
    n_crops: int
    n_done: int
    stored_bytes: int
    used_s: float


class EmbeddingCache:
    """A store of embeddings, on disk or in memory.

    Parameters
    ----------
    path : str or Path, optional
        Folder of the store, made on first use. Default: in memory.
    dtype : {"float16", "float32"}, default "float16"
        How embeddings are kept: 2 or 4 MiB a crop before compression.
    limit_bytes : int, optional
        Before a new entry is made, entries that were not used for longest are
        removed until it fits. Default: no limit.

    Raises
    ------
    FormatError
        If the path holds something else.
    CacheMismatchError
        If the store was made by another format version.

    Examples
    --------
    >>> cache = EmbeddingCache()
    >>> entry = cache.entry({"image": "cells"}, n_crops=2, shape=(4, 8, 8))
    >>> entry.write(1, np.ones((4, 8, 8), np.float32), seal=bytes(range(16)))
    >>> entry.done().tolist(), entry.read(1).dtype.name
    ([False, True], 'float16')
    """

    def __init__(
        self,
        path: str | Path | None = None,
        *,
        dtype: StoredType = "float16",
        limit_bytes: int | None = None,
    ) -> None:
        if dtype not in ("float16", "float32"):
            raise InputError(f"dtype {dtype!r}; use 'float16' or 'float32'")
        self.path = None if path is None else Path(path)
        self.dtype = dtype
        self.limit_bytes = limit_bytes
        self._used_s: dict[str, float] = {}
        self._root = self._open_root()

    def entry(
        self, key: Mapping[str, Any], n_crops: int, shape: tuple[int, int, int]
    ) -> CacheEntry:
        """Open the entry of a key; make it if there is none.

        Parameters
        ----------
        key : mapping
            All that the embeddings depend on, as plain JSON values. The format
            version and the stored type are added.
        n_crops : int
            Number of crops.
        shape : tuple of int
            Shape of one embedding, (C, e, e).

        Returns
        -------
        CacheEntry

        Raises
        ------
        CacheMismatchError
            If an entry of this name holds another key, or is damaged.
        FileError
            If the entry cannot be written.
        """
        full = {"format": FORMAT_VERSION, "dtype": self.dtype, **key}
        text = json.dumps(full, sort_keys=True)
        name = hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
        if self.limit_bytes is not None and name not in self._root:
            expected = n_crops * int(np.prod(shape)) * np.dtype(self.dtype).itemsize
            self.evict(max(0, self.limit_bytes - expected))
        entry = _open_entry(self._root, name, json.loads(text), (n_crops, *shape))
        self._touch(name)
        return entry

    def entries(self) -> list[EntryInfo]:
        """List all entries, those not used for longest first.

        An entry that is not complete, because its maker was killed while making
        it, is left out; it is completed when its key is asked for again.
        """
        infos = []
        for name, group in self._root.groups():
            if "key" in group.attrs and "embeddings" in group and "seals" in group:
                entry = CacheEntry(group)
                infos.append(
                    EntryInfo(
                        name=name,
                        key=entry.key,
                        n_crops=entry.n_crops,
                        n_done=int(entry.done().sum()),
                        stored_bytes=entry.stored_bytes,
                        used_s=self._last_use(name),
                    )
                )
        return sorted(infos, key=lambda info: (info.used_s, info.name))

    def evict(self, limit_bytes: int) -> list[str]:
        """Remove entries, those not used for longest first, down to a size.

        Parameters
        ----------
        limit_bytes : int
            Size that the store may keep.

        Returns
        -------
        list of str
            Names of the entries that were removed.
        """
        self._remove_abandoned_files()
        infos = self.entries()
        total = sum(info.stored_bytes for info in infos)
        removed: list[str] = []
        for info in infos:
            if total <= limit_bytes:
                break
            del self._root[info.name]
            logger.info("removed embeddings %s (%d bytes)", info.name, total)
            total -= info.stored_bytes
            removed.append(info.name)
        return removed

    def verify(self) -> dict[str, list[int]]:
        """Read every crop that counts as present.

        Returns
        -------
        dict
            For each entry with damage its name and the crops that cannot be read.
        """
        damaged: dict[str, list[int]] = {}
        for info in self.entries():
            entry = CacheEntry(cast("zarr.Group", self._root[info.name]))
            for index in np.flatnonzero(entry.done()).tolist():
                try:
                    entry.read(index)
                except CacheMismatchError:
                    damaged.setdefault(info.name, []).append(index)
        return damaged

    def _open_root(self) -> zarr.Group:
        store: LocalStore | MemoryStore = MemoryStore()
        if self.path is not None:
            if not _may_hold_a_store(self.path):
                raise FormatError(
                    f"{self.path} is not a store of embeddings; give a path that "
                    "does not exist yet, or an empty folder"
                )
            store = LocalStore(self.path)
        kind = {"kind": _KIND, "format": FORMAT_VERSION}
        try:
            with _writing(str(self.path)):
                found = _require_group(store, "", kind).attrs.asdict()
        except ContainsArrayError:
            found = {}
        if found.get("kind") != _KIND:
            raise FormatError(
                f"{self.path} is a zarr store, but not one of embeddings; "
                "give another path"
            )
        if found.get("format") != FORMAT_VERSION:
            raise CacheMismatchError(
                f"{self.path} has format version {found.get('format')}, this "
                f"program reads {FORMAT_VERSION}; give another path"
            )
        return zarr.open_group(store, mode="r+")

    def _touch(self, name: str) -> None:
        if self.path is None:
            self._used_s[name] = time.time()
        else:
            # a store that may only be read still serves; it just does not age
            with contextlib.suppress(OSError):
                os.utime(self.path / name / "zarr.json")

    def _last_use(self, name: str) -> float:
        if self.path is None:
            return self._used_s[name]
        return (self.path / name / "zarr.json").stat().st_mtime

    def _remove_abandoned_files(self) -> None:
        """Remove what killed writers left behind before they could rename it."""
        if self.path is None:
            return
        for part in self.path.rglob("*.partial"):
            with contextlib.suppress(FileNotFoundError):
                if time.time() - part.stat().st_mtime > _ABANDONED_AFTER_S:
                    part.unlink()


class CacheEntry:
    """Embeddings of one set of crops; made by `EmbeddingCache.entry`.

    Parameters
    ----------
    group : zarr.Group
        The entry's folder.
    """

    def __init__(self, group: zarr.Group) -> None:
        self.name = group.basename
        self.key = cast("dict[str, Any]", group.attrs["key"])
        self._embeddings = cast("zarr.Array[Any]", group["embeddings"])
        self._seals = cast("zarr.Array[Any]", group["seals"])

    @property
    def n_crops(self) -> int:
        """Number of crops, present or not."""
        return int(self._embeddings.shape[0])

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one embedding, (C, e, e)."""
        return tuple(int(n) for n in self._embeddings.shape[1:])

    @property
    def stored_bytes(self) -> int:
        """Size after compression, in bytes."""
        return int(self._embeddings.nbytes_stored() + self._seals.nbytes_stored())

    def done(self) -> NDArray[np.bool_]:
        """Return which crops are present, (n,) bool."""
        try:
            seals = np.asarray(self._seals[:])
        except ValueError:
            # one damaged seal must not hide the others
            return np.array([self.seal(i) is not None for i in range(self.n_crops)])
        present: NDArray[np.bool_] = np.any(seals != 0, axis=1)
        return present

    def seal(self, index: int) -> bytes | None:
        """Return the digest written with a crop, or None if the crop is absent."""
        try:
            seal = np.asarray(self._seals[index])
        except ValueError:
            logger.warning("seal of crop %d in %s is damaged", index, self.name)
            return None
        return seal.tobytes() if seal.any() else None

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
        try:
            embedding = np.asarray(self._embeddings[index])
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
        if len(seal) != SEAL_BYTES or not any(seal):
            raise InputError(f"seal {seal!r}; give {SEAL_BYTES} bytes, not all zero")
        dtype = self._embeddings.dtype
        with np.errstate(over="ignore"):
            stored = np.asarray(embedding).astype(dtype)
        if not np.isfinite(stored).all():
            raise InputError(
                f"crop {index} has an embedding beyond the range of {dtype}; use "
                "EmbeddingCache(dtype='float32'), or other weights if it is not finite"
            )
        with _writing(self.name):
            self._embeddings[index : index + 1] = stored[None]
            self._seals[index : index + 1] = np.frombuffer(seal, np.uint8)[None]


def _may_hold_a_store(path: Path) -> bool:
    """Whether a path holds a zarr store, or nothing that could be overwritten."""
    if not path.exists() or (path / "zarr.json").is_file():
        return True
    return path.is_dir() and not any(path.iterdir())


def _open_entry(
    root: zarr.Group, name: str, key: dict[str, Any], shape: tuple[int, ...]
) -> CacheEntry:
    try:
        with _writing(name):
            group = _require_group(root.store, name, {"key": key})
            _require_array(
                group,
                "embeddings",
                shape,
                str(key["dtype"]),
                # lz4 with bitshuffle was the fastest to come under 2 MiB (measured)
                [BloscCodec(cname="lz4", clevel=1, shuffle="bitshuffle")],
            )
            _require_array(group, "seals", (shape[0], SEAL_BYTES), "uint8", [])
            entry = CacheEntry(group)
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


def _require_group(store: Any, path: str, attributes: dict[str, Any]) -> zarr.Group:
    try:
        return zarr.open_group(
            store, path=path, mode="a", zarr_format=3, attributes=attributes
        )
    except ContainsGroupError:
        # another process made it between our look and our write
        return zarr.open_group(store, path=path, mode="r+")


def _require_array(
    group: zarr.Group,
    name: str,
    shape: tuple[int, ...],
    dtype: str,
    compressors: list[Any],
) -> None:
    if name in group:
        return
    # NaN marks a chunk that is absent, so even one full of zeros must be written
    fill_value = float("nan") if dtype.startswith("float") else 0
    with contextlib.suppress(ContainsArrayError):
        group.create_array(
            name,
            shape=shape,
            chunks=(1, *shape[1:]),
            dtype=dtype,
            compressors=[*compressors, Crc32cCodec()],
            fill_value=fill_value,
            config={"write_empty_chunks": True},
        )


@contextlib.contextmanager
def _writing(name: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise FileError(
            f"cannot write embeddings to {name}: {error.strerror or error}; free some "
            "space, or choose a folder that can be written"
        ) from error
