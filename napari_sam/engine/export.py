"""A label file in other formats: names are settled before anything is read."""

from __future__ import annotations

import importlib.util
import re
from typing import TYPE_CHECKING, Any

from napari_sam.engine.jobs import Job, Step, job
from napari_sam.engine.records import facts_of, from_notes
from napari_sam.errors import InputError
from napari_sam.writers.atomic import make_folder, refuse_existing
from napari_sam.writers.formats import FORMATS, find_format
from napari_sam.writers.objects import image_source, label_source

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from napari_sam.images import ImageSource

_LABEL_ENDINGS = re.compile(r"(\.labels)?(\.ome)?\.[A-Za-z0-9]+$")


def plan_exports(
    labels: Path, formats: Sequence[str], output: Path, overwrite: bool = False
) -> dict[str, Path]:
    """Name the file of each format; nothing is opened or written.

    Parameters
    ----------
    labels : Path
        The label file.
    formats : sequence of str
        Names of formats, as in `FORMATS`.
    output : Path
        A folder, for ``NAME.geojson`` and the like; or for one format a file, or
        ``IMAGE.zarr/labels/NAME``.
    overwrite : bool
        Files may be there already.

    Returns
    -------
    dict of str to Path
        By name of format, in the order given.

    Raises
    ------
    InputError
        If there is no such format, a package is missing, several formats are to go
        to one file, or the labels would be replaced.
    FileError
        If a file exists already.

    Examples
    --------
    >>> from pathlib import Path
    >>> plan_exports(Path("in/a.labels.tif"), ["csv"], Path("out"))["csv"].as_posix()
    'out/a.csv'
    """
    chosen = [find_format(name) for name in dict.fromkeys(formats)]
    if not chosen:
        raise InputError(f"no format; choose from {', '.join(FORMATS)}")
    for each in chosen:
        if each.needs and importlib.util.find_spec(each.needs) is None:
            raise InputError(
                f"format {each.name} needs the package {each.needs}; type: "
                f"pip install {each.needs}"
            )
    stem = _LABEL_ENDINGS.sub("", labels.name)
    plan = {each.name: output / f"{stem}{each.ending}" for each in chosen}
    endings = tuple(e for each in FORMATS.values() for e in each.endings)
    if len(chosen) == 1 and (
        output.name.lower().endswith(chosen[0].endings)
        or (chosen[0].name == "ome-zarr" and output.parent.name == "labels")
    ):
        plan = {chosen[0].name: output}
    elif output.name.lower().endswith(endings) and not output.is_dir():
        raise InputError(
            f"{output} is no name for {', '.join(plan)}; give a folder, or a name that "
            f"ends in {' or '.join(chosen[0].endings)} for one format"
        )
    for path in plan.values():
        if path.resolve() == labels.resolve():
            raise InputError(
                f"{path} would replace the labels that are read; give another folder"
            )
        if not overwrite:
            refuse_existing(path)
    return plan


@job
def export(
    labels: ImageSource,
    plan: Mapping[str, Path],
    *,
    image: ImageSource | None = None,
    notes: Mapping[str, Any] | None = None,
    overwrite: bool = False,
) -> Job[dict[str, Path]]:
    """Write labels in each format of a plan.

    Parameters
    ----------
    labels : ImageSource
        Object ids, with their pixel size.
    plan : mapping of str to Path
        From `plan_exports`.
    image : ImageSource, optional
        The image of the labels, for measurements and as background.
    notes : mapping of str to JSON values, optional
        Those of the label file, from `read_notes`: how its objects were made.
    overwrite : bool
        Replace files.

    Yields
    ------
    Step
        After each file; its value is the path.

    Returns
    -------
    dict of str to Path
        By name of format, where the files are.

    Raises
    ------
    InputError
        If a format does not hold these labels; before anything is written, if it is a
        stack and the format holds a plane.
    FileError
        If a file exists already or cannot be written.
    """
    source = label_source(labels)
    if image is not None:
        image_source(image, source)
    n_planes = source.shape[0] * source.shape[1]
    flat = [name for name in plan if not find_format(name).takes_stacks]
    if n_planes > 1 and flat:
        raise InputError(
            f"{source.name} has {n_planes} planes, and {', '.join(flat)} holds one; "
            "choose a plane, or other formats"
        )
    written = {}
    facts = facts_of(from_notes(notes or {}).values())
    for path in plan.values():
        make_folder(path.parent)
    for done, (name, path) in enumerate(plan.items(), start=1):
        yield Step(done - 1, len(plan), f"export {name}")
        written[name] = find_format(name).write(
            source,
            path,
            image=image,
            notes=notes,
            facts=facts,
            overwrite=overwrite,
        )
        yield Step(done, len(plan), f"export {name}", written[name])
    return written
