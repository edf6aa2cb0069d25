"""What zarr does not offer: list, measure and remove chunks without opening them.

Which crops are present is then one listing of a folder; asking zarr for the content
of each seal took 9 s for 12,000 crops.
"""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from zarr.core.buffer import Buffer


class Files(Protocol):
    """The files of a store; a folder is a path with ``/``, relative to the store."""

    def sizes(self, folder: str) -> dict[str, int]:
        """Return names and bytes of the files right in a folder; {} if it is none."""

    def folders(self, folder: str) -> set[str]:
        """Return the names of the folders right in a folder."""

    def total(self) -> int:
        """Return the bytes of all files."""

    def remove(self, path: str) -> None:
        """Remove a file; one that is not there is no fault."""

    def touch(self, entry: str) -> bool:
        """Note that an entry is used now; False if it is not there any more."""

    def used_s(self, entry: str) -> float:
        """Return when an entry was used last, in seconds since the epoch."""


class DiskFiles:
    """Files in a folder on disk.

    Parameters
    ----------
    root : Path
        Folder of the store.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def sizes(self, folder: str) -> dict[str, int]:
        """Return names and bytes of the files right in a folder; {} if it is none."""
        sizes: dict[str, int] = {}
        try:
            with os.scandir(self.root / folder) as found:
                for each in found:
                    try:
                        if each.is_file():
                            sizes[each.name] = each.stat().st_size
                    except FileNotFoundError:
                        continue  # renamed or removed by another process meanwhile
        except FileNotFoundError:
            return {}
        return sizes

    def folders(self, folder: str) -> set[str]:
        """Return the names of the folders right in a folder."""
        with os.scandir(self.root / folder) as found:
            return {each.name for each in found if each.is_dir()}

    def total(self) -> int:
        """Return the bytes of all files."""
        total = 0
        for folder, _, names in os.walk(self.root):
            for name in names:
                with contextlib.suppress(FileNotFoundError):
                    total += Path(folder, name).stat().st_size
        return total

    def remove(self, path: str) -> None:
        """Remove a file; one that is not there is no fault."""
        (self.root / path).unlink(missing_ok=True)

    def touch(self, entry: str) -> bool:
        """Note that an entry is used now; False if it is not there any more."""
        try:
            os.utime(self.root / entry / "zarr.json")
        except FileNotFoundError:
            return False
        except OSError:
            pass  # a store that may only be read still serves; it just does not age
        return True

    def used_s(self, entry: str) -> float:
        """Return when an entry was used last, in seconds since the epoch."""
        return (self.root / entry / "zarr.json").stat().st_mtime


class MemoryFiles:
    """Files that are entries of a dictionary.

    Parameters
    ----------
    contents : dict
        What zarr's memory store keeps, by path.
    """

    def __init__(self, contents: dict[str, Buffer]) -> None:
        self.contents = contents
        self._used_s: dict[str, float] = {}

    def sizes(self, folder: str) -> dict[str, int]:
        """Return names and bytes of the files right in a folder; {} if it is none."""
        sizes = {}
        for path, content in self.contents.copy().items():
            parent, _, name = path.rpartition("/")
            if parent == folder:
                sizes[name] = len(content)
        return sizes

    def folders(self, folder: str) -> set[str]:
        """Return the names of the folders right in a folder."""
        below = (
            path.removeprefix(f"{folder}/")
            for path in self.contents.copy()
            if path.startswith(f"{folder}/")
        )
        return {path.partition("/")[0] for path in below if "/" in path}

    def total(self) -> int:
        """Return the bytes of all files."""
        return sum(len(content) for content in self.contents.copy().values())

    def remove(self, path: str) -> None:
        """Remove a file; one that is not there is no fault."""
        self.contents.pop(path, None)

    def touch(self, entry: str) -> bool:
        """Note that an entry is used now; False if it is not there any more."""
        self._used_s[entry] = time.time()
        return f"{entry}/zarr.json" in self.contents

    def used_s(self, entry: str) -> float:
        """Return when an entry was used last, in seconds since the epoch."""
        return self._used_s[entry]
