"""One object of an image file, followed through its stack, to files."""

from __future__ import annotations

import csv
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from napari_sam.engine.files import ImageOptions, Outputs, check_free, open_file
from napari_sam.engine.jobs import Job, job
from napari_sam.engine.propagate import propagate
from napari_sam.errors import InputError
from napari_sam.images import ImageSource
from napari_sam.masks import Candidate
from napari_sam.readers import open_image
from napari_sam.tiling import Box
from napari_sam.writers.atomic import atomic, checked_path, make_folder
from napari_sam.writers.tiff import save_labels

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_sam.cache import EmbeddingCache
    from napari_sam.engine.follow import PropagateConfig
    from napari_sam.engine.propagate import Propagation
    from napari_sam.model import Sam
    from napari_sam.prompts import Prompts

_COLUMNS = (
    "slice",
    "state",
    "area",
    "predicted_iou",
    "stability",
    "overlap",
    "agreement",
    "suspicious",
    "reason",
)


@dataclass(frozen=True, slots=True)
class FollowOptions:
    """Where an object is followed, and how.

    Parameters
    ----------
    along : {"z", "t"}
        The axis.
    at : int
        The frame, along z; the slice, along t.
    within : tuple of int, optional
        First slice, and the one after the last.
    ends : tuple of int
        Slices without the object.
    object_id : int, default 1
        Its id in the labels.
    overwrite : bool
        Replace existing files.
    """

    along: Literal["z", "t"] = "z"
    at: int = 0
    within: tuple[int, int] | None = None
    ends: Collection[int] = ()
    object_id: int = 1
    overwrite: bool = False


@dataclass(frozen=True, slots=True)
class FollowReport:
    """What became of an object.

    Parameters
    ----------
    found : Propagation
        The object.
    seconds : float
        From opening the image to the last file written.
    labels, table : Path
        The files.
    """

    found: Propagation
    seconds: float
    labels: Path
    table: Path


@job
def propagate_file(  # noqa: PLR0913 - an image, a model, prompts, and how
    path: Path,
    prompts: Mapping[int, Prompts | Candidate],
    output: Path,
    model: Sam,
    options: FollowOptions | None = None,
    opening: ImageOptions | None = None,
    config: PropagateConfig | None = None,
    cache: EmbeddingCache | None = None,
) -> Job[FollowReport]:
    """Follow one object of an image file through its stack, and write it.

    Parameters
    ----------
    path : Path
        The image file.
    prompts : mapping of int to Prompts or Candidate
        By slice, as in `propagate`.
    output : Path
        Labels of the stack, ending in .tif; beside them ``NAME.slices.csv`` says for
        each slice where the mask comes from, and where and why the object ends.
    model : Sam
        From `load_model`.
    options : FollowOptions, optional
        Where.
    opening : ImageOptions, optional
        How the file is opened.
    config : PropagateConfig, optional
        Thresholds.
    cache : EmbeddingCache, optional
        Where embeddings of slices are kept, for the next time.

    Yields
    ------
    Step
        As in `propagate`.

    Returns
    -------
    FollowReport

    Raises
    ------
    InputError, FormatError, FileError
        If the image or the prompts cannot be used, or the files cannot be written.
    """
    start = time.perf_counter()
    options = options or FollowOptions()
    output = checked_path(output, (".tif", ".tiff"), "labels")
    stem = output.name.removesuffix(output.suffix).removesuffix(".labels")
    table = output.with_name(f"{stem}.slices.csv")
    check_free(Outputs(output, measurements=table, overwrite=options.overwrite))
    opened = open_file(path, model, opening or ImageOptions())
    found = yield from propagate(
        opened.source,
        model,
        prompts,
        along=options.along,
        at=options.at,
        within=options.within,
        ends=options.ends,
        cache=cache,
        grid=opened.grid,
        intensity=opened.intensity,
        config=config,
    )
    make_folder(output.parent)
    axis = options.along.upper()
    n_planes = opened.source.shape["TZ".index(axis)]
    shape = (n_planes, *opened.source.plane_shape)
    labels = ImageSource(
        _Painted(found, shape, options.object_id),
        f"{axis}YX",
        opened.source.pixel_size_um,
        opened.source.z_step_um if axis == "Z" else None,
        name=output.name,
    )
    save_labels(labels, output, overwrite=options.overwrite)
    _save_slices(found, table, overwrite=options.overwrite)
    return FollowReport(found, time.perf_counter() - start, output, table)


def masks_in(
    path: Path, object_id: int, along: Literal["z", "t"] = "z", at: int = 0
) -> dict[int, Candidate]:
    """Return an object of a file of labels: a mask for each slice that has it.

    Parameters
    ----------
    path : Path
        Labels of the stack.
    object_id : int
        The object.
    along, at
        As in `propagate`.

    Raises
    ------
    InputError
        If no slice has the object.
    FormatError, FileError
        If the file cannot be read.
    """
    labels = open_image(path)
    whole, found = Box.whole(labels.plane_shape), {}
    for i in range(labels.shape["TZ".index(along.upper())]):
        mask = labels.read(plane=(at, i) if along == "z" else (i, at)) == object_id
        if mask.any():
            found[i] = Candidate(whole, mask).with_mask(mask)
    if not found:
        raise InputError(f"{path} has no object {object_id}; name it with --object-id")
    return found


class _Painted:
    """An object as an array of labels, drawn where it is read."""

    def __init__(
        self, found: Propagation, shape: tuple[int, int, int], object_id: int
    ) -> None:
        self.shape = shape
        self.dtype = np.dtype(np.uint32)
        self._found = found
        self._id = np.uint32(object_id)

    def __getitem__(self, index: Any, /) -> NDArray[np.uint32]:
        i, *region = index if isinstance(index, tuple) else (index,)
        mask = self._found.mask(int(i), self.shape[1:])
        drawn: NDArray[np.uint32] = mask[tuple(region)] * self._id
        return drawn


def _save_slices(found: Propagation, path: Path, *, overwrite: bool) -> None:
    rows: dict[int, list[Any]] = {}
    for i, each in found.slices.items():
        candidate = each.found
        numbers = (candidate.predicted_iou, candidate.stability, each.overlap)
        agreement = "" if np.isnan(each.agreement) else f"{each.agreement:.3f}"
        cells = [each.state, candidate.area, *(f"{n:.3f}" for n in numbers), agreement]
        rows[i] = [i, *cells, int(each.is_suspicious), ""]
    for stop in found.stops:
        if stop.index not in rows:
            rows[stop.index] = [stop.index, "end", 0, *[""] * 5, stop.reason]
    with (
        atomic(path, overwrite=overwrite) as part,
        part.open("w", newline="", encoding="utf-8") as file,
    ):
        csv.writer(file).writerows([_COLUMNS, *(rows[i] for i in sorted(rows))])
