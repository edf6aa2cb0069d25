"""Prompts from a file, whatever its format."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_sam.errors import FormatError, InputError
from napari_sam.prompts.geojson import read_geojson
from napari_sam.prompts.imagej import read_imagej_rois
from napari_sam.prompts.table import TABLE_ENDINGS, read_table

if TYPE_CHECKING:
    from pathlib import Path

    from napari_sam.prompts.prompt import Prompts

_READERS = {
    **dict.fromkeys(TABLE_ENDINGS, read_table),
    ".geojson": read_geojson,
    ".json": read_geojson,
    ".roi": read_imagej_rois,
    ".zip": read_imagej_rois,
}

PROMPT_ENDINGS = tuple(_READERS)
"""Endings of the files that `read_prompts` reads."""


def read_prompts(
    path: Path, *, pixel_size_um: tuple[float, float] | None = None
) -> list[Prompts]:
    """Read the prompts of many objects.

    Parameters
    ----------
    path : Path
        A table (``.csv``, ``.tsv``, ``.txt``; see `read_table`), GeoJSON
        (``.geojson``, ``.json``; see `read_geojson`) or regions of ImageJ (``.roi``,
        ``.zip``; see `read_imagej_rois`).
    pixel_size_um : tuple of float, optional
        (y, x). If given, the numbers in the file are micrometres. Default: they are
        pixels.

    Returns
    -------
    list of Prompts
        One for each object, in pixels; `Prompts.object_id` is set.

    Raises
    ------
    MissingFileError, FileError
        If the file cannot be read.
    FormatError
        If it holds something else.
    InputError
        If the pixel size is not positive.
    """
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise FormatError(
            f"{path}: prompts come in files that end in {', '.join(_READERS)}; rename "
            "or convert it"
        )
    if pixel_size_um is None:
        return reader(path)
    if min(pixel_size_um) <= 0:
        raise InputError(f"pixel size {pixel_size_um} um; give numbers above 0")
    return reader(path, (1 / pixel_size_um[0], 1 / pixel_size_um[1]))
