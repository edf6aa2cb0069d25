"""The store as a whole: opening it, finding entries, keeping it small and sound."""

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
from zarr.errors import ContainsArrayError
from zarr.storage import LocalStore, MemoryStore

from napari_sam.cache.entry import CacheEntry, open_entry, require_group, writing
from napari_sam.errors import CacheMismatchError, FormatError, InputError

if TYPE_CHECKING:
    from collections.abc import Mapping

    StoredType = Literal["float16", "float32"]

FORMAT_VERSION = 1
"""Of the store's layout; another version is refused, not guessed at."""

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
        entry = open_entry(self._root, name, json.loads(text), (n_crops, *shape))
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
            with writing(str(self.path)):
                found = require_group(store, "", kind).attrs.asdict()
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


def _may_hold_a_store(path: Path) -> bool:
    """Whether a path holds a zarr store, or nothing that could be overwritten."""
    if not path.exists() or (path / "zarr.json").is_file():
        return True
    return path.is_dir() and not any(path.iterdir())
