"""A JSON file with one long list, written member by member."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from napari_sam.writers.atomic import atomic

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path


def save_json(
    path: Path,
    head: Mapping[str, Any],
    name: str,
    members: Iterable[Mapping[str, Any]],
    *,
    overwrite: bool,
) -> Path:
    """Save an object whose last field is a list; one member is in memory at a time.

    Parameters
    ----------
    path : Path
        Where to write.
    head : mapping
        The fields before the list.
    name : str
        Field of the list.
    members : iterable of mapping
        One line each.
    overwrite : bool
        Replace an existing file.

    Returns
    -------
    Path
        Where the file is.
    """
    with (
        atomic(path, overwrite=overwrite) as part,
        part.open("w", encoding="utf-8") as file,
    ):
        fields = [f"{json.dumps(key)}: {json.dumps(head[key])}," for key in head]
        file.write("{" + " ".join([*fields, f"{json.dumps(name)}: ["]))
        for i, member in enumerate(members):
            file.write((",\n" if i else "\n") + json.dumps(member, allow_nan=False))
        file.write("\n]}\n")
    return path
