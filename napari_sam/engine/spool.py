"""What the crops of a plane see, on disk: one file a crop, read when it is needed."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import TYPE_CHECKING

from napari_sam.errors import FileError, FormatError
from napari_sam.stitch import Views
from napari_sam.writers.atomic import atomic, make_folder

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

# Two rows of crops of a wide slide: a few 100 kB each, so that stitching, which goes
# row by row and looks at neighbours, reads each file a few times at most.
_KEPT = 96


class Spool(Mapping[int, Views]):
    """Views of some crops of a plane, by number of the crop.

    Parameters
    ----------
    folder : Path
        Where the files are; made when the first one is written.
    crops : iterable of int
        Which crops have a file; others are not looked for.
    """

    def __init__(self, folder: Path, crops: Iterable[int] = ()) -> None:
        self._folder = folder
        self._crops = set(crops)
        self._recent: OrderedDict[int, Views] = OrderedDict()

    def __len__(self) -> int:
        return len(self._crops)

    def __iter__(self) -> Iterator[int]:
        return iter(sorted(self._crops))

    def __getitem__(self, crop: int) -> Views:
        if crop not in self._crops:
            raise KeyError(crop)
        if crop not in self._recent:
            path = self._path(crop)
            try:
                self._recent[crop] = Views.from_bytes(path.read_bytes())
            except OSError as error:
                raise FileError(error.errno, "cannot read", str(path)) from error
            except FormatError as error:
                raise FormatError(f"{path}: {error}") from error
        self._recent.move_to_end(crop)
        while len(self._recent) > _KEPT:
            self._recent.popitem(last=False)
        return self._recent[crop]

    def write(self, crop: int, data: bytes) -> None:
        """Keep what a crop sees; its file is there as a whole or not at all.

        Parameters
        ----------
        crop : int
            Number of the crop.
        data : bytes
            From `Views.to_bytes`.

        Raises
        ------
        FileError
            If it cannot be written, for example because the disk is full.
        """
        make_folder(self._folder)
        with atomic(self._path(crop), overwrite=True) as part:
            part.write_bytes(data)
        self._crops.add(crop)
        self._recent.pop(crop, None)

    def sound(self, crop: int) -> bool:
        """Whether the file of a crop is there and undamaged."""
        try:
            return self[crop].crop == crop
        except (FileError, FormatError):
            self._crops.discard(crop)
            return False

    def _path(self, crop: int) -> Path:
        return self._folder / f"{crop:07d}.npz"
