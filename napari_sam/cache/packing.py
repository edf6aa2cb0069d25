"""Few large files in place of one per crop, once an entry is complete.

The pack is written aside under a name of its own, read back, and only then renamed to
``packed-<number>``, in one step; the loose chunks are removed last. So each shard has
one writer, a killed process leaves at most a folder that `clean` removes, and of two
processes that pack one entry the second finds the name taken and withdraws. Seals are
read before the embeddings, and a crop whose seal is another one at the end was embedded
again meanwhile: it keeps its loose chunk.
"""

from __future__ import annotations

import re
import shutil
import uuid
from typing import TYPE_CHECKING, Literal

import numpy as np
import zarr
from zarr.storage import LocalStore

from napari_sam.cache.entry import SEAL_BYTES, CacheEntry, create_array, writing
from napari_sam.errors import CacheMismatchError, InputError

if TYPE_CHECKING:
    from pathlib import Path

CROPS_PER_SHARD = 32
"""64 MiB a file with 2 MiB a crop (ours): a slide is some hundred files."""

PACKING = "packing-"
"""How the folder of a pack begins that is not finished."""


def pack_entry(entry: CacheEntry, folder: Path) -> bool:
    """Move all crops of a complete entry into shards.

    Parameters
    ----------
    entry : CacheEntry
        Of a store on disk; all its crops are done or skipped.
    folder : Path
        The folder of the entry.

    Returns
    -------
    bool
        False if nothing had to be done: the entry is packed already.

    Raises
    ------
    InputError
        If crops are missing.
    CacheMismatchError
        If a crop is damaged; nothing is changed then.
    FileError
        If the store cannot be written.
    """
    if entry.is_packed:
        return False
    n_missing = int((~entry.done() & ~entry.skipped()).sum())
    if n_missing:
        raise InputError(
            f"{n_missing} of {entry.n_crops} crops of {entry.name} are missing; only a "
            "complete entry is packed: embed the image to its end first"
        )
    aside = folder / f"{PACKING}{uuid.uuid4().hex}"
    try:
        with writing(entry.name):
            seals = _seals(entry, "seals")
            _write_pack(entry, aside, seals)
            return _put_in_place(aside, folder, entry, seals)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _write_pack(entry: CacheEntry, folder: Path, seals: list[bytes]) -> None:
    group = zarr.create_group(LocalStore(folder))
    shard = min(CROPS_PER_SHARD, entry.n_crops)
    shape = (entry.n_crops, *entry.shape)
    packed = create_array(group, "embeddings", shape, entry.dtype.name, shard=shard)
    done = entry.done()
    for start in range(0, entry.n_crops, shard):
        stop = min(start + shard, entry.n_crops)
        crops = np.full((stop - start, *entry.shape), np.nan, entry.dtype)
        for index in start + np.flatnonzero(done[start:stop]):
            crops[index - start] = entry.read(int(index))
        packed[start:stop] = crops
        if not np.array_equal(np.asarray(packed[start:stop]), crops, equal_nan=True):
            raise CacheMismatchError(
                f"crops {start} to {stop - 1} of {entry.name} were read back from the "
                "pack with other values; check the disk"
            )
    for name, marks in (("seals", seals), ("skipped", _seals(entry, "skipped"))):
        array = create_array(
            group, name, (entry.n_crops, SEAL_BYTES), "uint8", chunk=entry.n_crops
        )
        array[:] = np.frombuffer(b"".join(marks), np.uint8).reshape(-1, SEAL_BYTES)


def _seals(entry: CacheEntry, name: Literal["seals", "skipped"]) -> list[bytes]:
    """Return the mark of each crop; zeros where there is none."""
    mark = entry.seal if name == "seals" else entry.skip_seal
    return [mark(index) or bytes(SEAL_BYTES) for index in range(entry.n_crops)]


def _put_in_place(
    aside: Path, folder: Path, entry: CacheEntry, seals: list[bytes]
) -> bool:
    number = entry.pack_number
    place = folder / f"packed-{number + 1}"
    try:
        aside.rename(place)
    except OSError:
        if not place.exists():
            raise
        return False  # another process was faster
    again = [i for i, seal in enumerate(_seals(entry, "seals")) if seal != seals[i]]
    # the newest pack wins, so from here on nothing below is read any more
    if number:
        shutil.rmtree(folder / f"packed-{number}", ignore_errors=True)
    kept = re.compile(rf"c\.({'|'.join(map(str, again))})(\.0)+")
    for name in ("seals", "skipped", "embeddings"):
        for chunk in (folder / name).glob("c.*"):
            if not kept.fullmatch(chunk.name):
                chunk.unlink(missing_ok=True)
    return True
