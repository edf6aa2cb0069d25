"""The store as a whole: opening it, finding entries, keeping it small and sound."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from weakref import WeakValueDictionary

import numpy as np
import zarr
from zarr.errors import ContainsArrayError
from zarr.storage import LocalStore, MemoryStore

from napari_sam.cache.entry import CacheEntry, open_entry, require_group, writing
from napari_sam.cache.files import DiskFiles, MemoryFiles
from napari_sam.cache.packing import PACKING, pack_entry
from napari_sam.errors import CacheMismatchError, FormatError, InputError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from zarr.core.buffer import Buffer

    from napari_sam.cache.files import Files

    StoredType = Literal["float16", "float32"]

FORMAT_VERSION = 2
"""Of the store's layout; another version is refused, not guessed at."""

_KIND = "napari-sam embeddings"

# A writer that still lives renames its file within seconds, its pack within minutes.
_ABANDONED_AFTER_S = 3600.0 * 24

# Part of the limit that is left of a store that has reached it.
_FILLED = 0.95

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
    n_crops, n_done, n_skipped : int
        Crops of the entry, how many of them are present, and how many are known as
        background.
    is_packed : bool
        Whether the crops lie in shards.
    stored_bytes : int
        Size on disk, or in memory, after compression.
    used_s : float
        When the entry was last opened, read or written, in seconds since the epoch.
    """

    name: str
    key: dict[str, Any]
    n_crops: int
    n_done: int
    n_skipped: int
    is_packed: bool
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
        removed until it fits; none that this store has given out and that is still
        held. Default: no limit.
    adds : bool, default True
        Whether planes that are not known yet are to be kept, too; for those who use
        the store: `entry` makes what it is asked for.

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
        adds: bool = True,
    ) -> None:
        if dtype not in ("float16", "float32"):
            raise InputError(f"dtype {dtype!r}; use 'float16' or 'float32'")
        self.path = None if path is None else Path(path)
        self.dtype = dtype
        self.limit_bytes = limit_bytes
        self.adds = adds
        self._room = 0  # bytes that entries may take before all is measured again
        self._held: WeakValueDictionary[str, CacheEntry] = WeakValueDictionary()
        self._memory: dict[str, Buffer] = {}
        self._files: Files = (
            MemoryFiles(self._memory) if self.path is None else DiskFiles(self.path)
        )
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
        text, name = self._named(key)
        if self.limit_bytes is not None and name not in self._root:
            expected = n_crops * int(np.prod(shape)) * np.dtype(self.dtype).itemsize
            self._make_room(self.limit_bytes, expected)
        entry = open_entry(
            self._root, self._files, name, json.loads(text), (n_crops, *shape)
        )
        self._files.touch(name)
        self._held[name] = entry
        return entry

    def knows(self, key: Mapping[str, Any]) -> bool:
        """Whether there is an entry of a key, as `entry` takes it."""
        return self._named(key)[1] in self._root

    def entries(self) -> list[EntryInfo]:
        """List all entries, those not used for longest first.

        An entry that is not complete, because its maker was killed while making
        it, is left out; it is completed when its key is asked for again.
        """
        infos = []
        for name in self._root:
            # another process may remove it meanwhile
            with contextlib.suppress(FileNotFoundError):
                if (entry := self._complete(name)) is not None:
                    infos.append(self._info(entry))
        return sorted(infos, key=lambda info: (info.used_s, info.name))

    def evict(self, limit_bytes: int) -> list[str]:
        """Remove entries, those not used for longest first, down to a size.

        Entries that `entry` has returned stay as long as somebody holds them.

        Parameters
        ----------
        limit_bytes : int
            Size that the store may keep.

        Returns
        -------
        list of str
            Names of the entries that were removed.
        """
        infos = self.entries()
        total = sum(info.stored_bytes for info in infos)
        removed: list[str] = []
        for info in infos:
            if total <= limit_bytes:
                break
            if info.name in self._held:
                continue
            with contextlib.suppress(InputError):  # another process was faster
                self.remove(info.name)
            total -= info.stored_bytes
            removed.append(info.name)
        return removed

    def remove(self, name: str) -> None:
        """Remove an entry.

        Parameters
        ----------
        name : str
            From `entries`.

        Raises
        ------
        InputError
            If there is no such entry.
        FileError
            If it cannot be removed.
        """
        if name not in self._root:
            raise InputError(f"no stored embeddings {name!r} in {self.path}")
        with writing(name):
            del self._root[name]
        logger.info("removed embeddings %s", name)

    def verify(self, *, repair: bool = False) -> dict[str, list[int]]:
        """Read every crop that counts as present.

        Parameters
        ----------
        repair : bool, default False
            Make damaged crops count as missing, so that `embed` encodes them again.

        Returns
        -------
        dict
            For each entry with damage its name and the crops that cannot be read.
        """
        damaged: dict[str, list[int]] = {}
        for name in self._root:
            if (entry := self._complete(name)) is None:
                continue
            for index in np.flatnonzero(entry.done()).tolist():
                try:
                    if entry.seal(index) is None:
                        raise CacheMismatchError(f"the seal of crop {index} is damaged")
                    entry.read(index)
                except CacheMismatchError as error:
                    logger.info("%s", error)
                    damaged.setdefault(name, []).append(index)
                    if repair:
                        entry.forget(index)
        return damaged

    def pack(self, name: str) -> bool:
        """Move the crops of a complete entry into few large files.

        Crops are read as before. A crop written later lies beside the pack; packing
        again takes it in.

        Parameters
        ----------
        name : str
            From `entries`.

        Returns
        -------
        bool
            False if the entry is packed already.

        Raises
        ------
        InputError
            If crops are missing, the entry does not exist, or the store is in memory.
        CacheMismatchError
            If a crop is damaged; nothing is changed then.
        FileError
            If the store cannot be written.
        """
        if self.path is None:
            raise InputError("a store in memory has no files; there is nothing to pack")
        if name not in self._root or (entry := self._complete(name)) is None:
            raise InputError(f"no stored embeddings {name!r} in {self.path}")
        return pack_entry(entry, self.path / name)

    def clean(self) -> int:
        """Remove what killed processes left behind; return how many files or folders.

        What is younger than a day may still be written, and stays.
        """
        if self.path is None:
            return 0
        n_removed = 0
        leftovers = [*self.path.rglob("*.partial"), *self.path.glob(f"*/{PACKING}*")]
        for path in leftovers:
            with contextlib.suppress(FileNotFoundError):
                if time.time() - path.stat().st_mtime > _ABANDONED_AFTER_S:
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
                    n_removed += 1
        return n_removed

    def _info(self, entry: CacheEntry) -> EntryInfo:
        return EntryInfo(
            name=entry.name,
            key=entry.key,
            n_crops=entry.n_crops,
            n_done=int(entry.done().sum()),
            n_skipped=int(entry.skipped().sum()),
            is_packed=entry.is_packed,
            stored_bytes=entry.stored_bytes,
            used_s=self._files.used_s(entry.name),
        )

    def _make_room(self, limit: int, expected: int) -> None:
        """Keep below a limit; the store is measured only when it may be full.

        A table of prompts makes an entry for each object that is looked at again, and
        to look into all entries takes 2 ms for each.
        """
        if self._room < expected:
            self._room = limit - self._files.total()
        if self._room < expected:
            # a little more than is needed, so that the next entry finds room
            self.evict(max(0, int(limit * _FILLED) - expected))
            self._room = limit - self._files.total()
        self._room -= expected

    def _named(self, key: Mapping[str, Any]) -> tuple[str, str]:
        """Return the whole key as JSON, and the name of its entry."""
        full = {"format": FORMAT_VERSION, "dtype": self.dtype, **key}
        text = json.dumps(full, sort_keys=True)
        return text, hashlib.blake2b(text.encode(), digest_size=16).hexdigest()

    def _complete(self, name: str) -> CacheEntry | None:
        """Return an entry; None if its maker was killed while making it."""
        try:
            group = self._root[name]
            if isinstance(group, zarr.Group) and "key" in group.attrs:
                return CacheEntry(group, self._files)
        except KeyError:
            pass
        except ValueError as error:
            logger.warning("the stored embeddings %s are damaged (%s)", name, error)
        return None

    def _open_root(self) -> zarr.Group:
        store: LocalStore | MemoryStore = MemoryStore(self._memory)
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


def _may_hold_a_store(path: Path) -> bool:
    """Whether a path holds a zarr store, or nothing that could be overwritten."""
    if not path.exists() or (path / "zarr.json").is_file():
        return True
    # others may lie inside: the plugin's own did, before it shared the user's folder
    is_fit = path.is_dir() and all(
        (each / "zarr.json").is_file() or each.suffix == ".partial"
        for each in path.iterdir()
    )
    return is_fit or (path / "zarr.json").is_file()  # just made by another process
