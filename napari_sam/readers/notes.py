"""Notes that label files carry beside their pixels, such as how objects were made."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import tifffile
import zarr

if TYPE_CHECKING:
    import os

NOTES = "napari_sam"
"""Key of the notes in the attributes of a Zarr group, and prefix of their keys in the
map annotation of an OME-TIFF."""


def read_notes(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read the notes of labels that this package has written.

    Parameters
    ----------
    path : path
        An OME-TIFF, or the folder of an OME-Zarr.

    Returns
    -------
    dict of str to JSON values
        Empty if there are none, or the file is of another kind.
    """
    file = Path(path)
    try:
        if file.is_dir():
            attributes = dict(zarr.open_group(file, mode="r").attrs)
            found = attributes.get(NOTES, {})
            return found if isinstance(found, dict) else {}
        with tifffile.TiffFile(file) as tif:
            xml = tif.ome_metadata
        return {} if xml is None else _map_annotations(xml)
    except (OSError, ValueError, tifffile.TiffFileError, ElementTree.ParseError):
        return {}


def _map_annotations(xml: str) -> dict[str, Any]:
    found = {}
    # a hostile file can at most waste time: entities of other files are not followed
    for each in ElementTree.fromstring(xml).iter():
        key = each.get("K", "")
        if each.tag.endswith("}M") and key.startswith(f"{NOTES}."):
            found[key.removeprefix(f"{NOTES}.")] = json.loads(each.text or "null")
    return found
