"""Image files to label files, in a way that survives the night.

What a crop sees goes to disk and then into the manifest, so that work that was cut
off, by Ctrl-C or by a power cut, goes on where it was. When all crops are there, one
graph over each plane joins them and the labels are written region by region: memory
does not grow with the image. A crop that fails is recorded and leaves its place empty;
the others count. Who works on the crops, this process or a cluster, has no influence
on the labels.
"""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeAlias

from napari_sam.engine.automatic import AutomaticConfig, find_views, stitch_views
from napari_sam.engine.files import (
    ImageOptions,
    OpenedFile,
    Outputs,
    check_free,
    open_file,
)
from napari_sam.engine.jobs import Job, Step, job
from napari_sam.engine.manifest import CropRecord, Manifest
from napari_sam.engine.recipe import Recipe
from napari_sam.engine.records import made_by
from napari_sam.engine.results import without_overlay, write_results
from napari_sam.engine.spool import Spool
from napari_sam.errors import DeviceError, InputError, NapariSamError
from napari_sam.writers.atomic import make_folder

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Sequence

    from napari_sam.cache import EmbeddingCache
    from napari_sam.engine.embed import PlaneEmbedding
    from napari_sam.model import Sam
    from napari_sam.tiling import CropGrid

Place: TypeAlias = tuple[int, int, int]
"""(frame, slice, crop)."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a crop.

    Parameters
    ----------
    record : CropRecord
        For the manifest.
    data : bytes
        `Views.to_bytes`; empty if the crop was skipped or failed.
    """

    record: CropRecord
    data: bytes = b""


class CropWorkers(Protocol):
    """Processes that find what crops see."""

    def outcomes(self, recipe: Recipe, places: Sequence[Place]) -> Iterator[Outcome]:
        """Work through crops; yield what becomes of each, in any order."""


@dataclass(frozen=True, slots=True)
class Report:
    """What became of one image.

    Parameters
    ----------
    image : Path
        The file.
    n_objects : int
        How many objects the labels hold.
    seconds : float
        From opening the image to the last file written.
    outputs : Outputs
        The files.
    failed : tuple of CropRecord
        Crops that failed; the labels have nothing there.
    was_done : bool
        Whether everything was there already.
    """

    image: Path
    n_objects: int
    seconds: float
    outputs: Outputs
    failed: tuple[CropRecord, ...] = ()
    was_done: bool = False


@job
def segment_file(  # noqa: PLR0913 - an image, a model, and how
    path: Path,
    outputs: Outputs,
    model: Sam,
    options: ImageOptions | None = None,
    config: AutomaticConfig | None = None,
    *,
    weights: str = "",
    workers: CropWorkers | None = None,
    cache: EmbeddingCache | None = None,
) -> Job[Report]:
    """Find all objects of an image file and write them.

    What an earlier call with the same settings has done is not done again; crops
    that failed are tried again.

    Parameters
    ----------
    path : Path
        The image file.
    outputs : Outputs
        From `plan_outputs`.
    model : Sam
        From `load_model`.
    options : ImageOptions, optional
        How the file is opened.
    config : AutomaticConfig, optional
        Mode and thresholds.
    weights : str
        The name or file from which the model was loaded. Default: its name.
    workers : CropWorkers, optional
        Who works on the crops. Default: this process.
    cache : EmbeddingCache, optional
        Where this process looks for embeddings and keeps them; `open_cluster` has the
        same for workers. Labels do not depend on it.

    Yields
    ------
    Step
        After each batch of prompts and each crop.

    Returns
    -------
    Report

    Raises
    ------
    InputError, FormatError, FileError
        If the image cannot be used, or the files cannot be written.
    DeviceError
        If the device runs out of memory.
    """
    start = time.perf_counter()
    opened = open_file(path, model, options or ImageOptions())
    recipe = Recipe.of(
        opened, model, config or AutomaticConfig(), weights or model.name
    )
    opened = replace(opened, grid=recipe.grid.crops(opened.source.plane_shape))
    outputs = without_overlay(opened, outputs)
    n_objects, failed, was_done = yield from _segment_opened(
        opened, recipe, outputs, model, workers, cache
    )
    seconds = time.perf_counter() - start
    return Report(path, n_objects, seconds, outputs, failed, was_done)


@job
def segment_recipe(
    recipe: Recipe,
    outputs: Outputs,
    model: Sam,
    *,
    image: Path | None = None,
    workers: CropWorkers | None = None,
    cache: EmbeddingCache | None = None,
) -> Job[Report]:
    """Make the labels of a recipe again.

    Parameters
    ----------
    recipe : Recipe
        From `Recipe.read`.
    outputs : Outputs
        From `plan_outputs`.
    model : Sam
        The network; see `Recipe.changes`.
    image : Path, optional
        Another place of the image.
    workers, cache
        As in `segment_file`.

    Yields
    ------
    Step
        As in `segment_file`.

    Returns
    -------
    Report

    Raises
    ------
    InputError
        If image or weights are not those of the recipe.
    """
    start = time.perf_counter()
    opened = recipe.open(image)
    changes = recipe.changes(opened, model)
    if changes:
        raise InputError(
            f"not the work of this recipe: {'; '.join(changes)}. Use what it names, "
            "or segment the image with settings of your own"
        )
    path = image or Path(recipe.image)
    recipe = replace(recipe, image=str(path.resolve()))
    outputs = without_overlay(opened, outputs)
    n_objects, failed, was_done = yield from _segment_opened(
        opened, recipe, outputs, model, workers, cache
    )
    seconds = time.perf_counter() - start
    return Report(path, n_objects, seconds, outputs, failed, was_done)


def find_outcome(
    embedding: PlaneEmbedding, crop: int, config: AutomaticConfig, step: Step
) -> Job[Outcome]:
    """Find what one crop sees; a failure is an outcome, too.

    Parameters
    ----------
    embedding : PlaneEmbedding
        The plane.
    crop : int
        Number of the crop.
    config : AutomaticConfig
        Mode and thresholds.
    step : Step
        What to report after each batch of prompts.

    Raises
    ------
    DeviceError
        If the device gives up: no other crop would fare better.
    """
    record = CropRecord(*embedding.plane, crop, "skipped")
    try:
        views = yield from find_views(embedding, embedding.grid[crop], config, step)
    except DeviceError:
        raise
    except (NapariSamError, OSError) as error:
        return Outcome(replace(record, state="failed", reason=str(error)))
    if views is None:
        return Outcome(record)
    n = len(views)
    record = replace(record, state="done" if n else "empty", objects=n)
    return Outcome(record, views.to_bytes())


def _segment_opened(
    opened: OpenedFile,
    recipe: Recipe,
    outputs: Outputs,
    model: Sam,
    workers: CropWorkers | None,
    cache: EmbeddingCache | None,
) -> Job[tuple[int, tuple[CropRecord, ...], bool]]:
    """Return the number of objects, crops that failed, and if all was there already."""
    manifest = _manifest(recipe, outputs)
    spools = _spools(manifest, opened, outputs)
    grid = recipe.grid.crops(opened.source.plane_shape)
    todo = _todo(manifest, spools, opened, grid, outputs)
    if not todo and manifest.n_objects is not None and _are_there(outputs):
        return manifest.n_objects, (), True
    recipe.save(outputs.recipe)
    total = len(grid) * len(opened.planes)
    source = (
        _outcomes_here(opened, model, recipe.config, todo, total, cache)
        if workers is None
        else _outcomes_there(workers.outcomes(recipe, todo), len(todo), total)
    )
    yield from _kept(source, manifest, spools)
    paintings = []
    for plane in opened.planes:
        yield Step(total, total, "stitch")
        paintings.append(stitch_views(spools[plane], grid, recipe.config))
    yield Step(total, total, "write labels")
    n_objects = write_results(opened, paintings, grid, outputs, made_by(model))
    manifest.finish(n_objects)
    failed = tuple(manifest.failed)
    if not failed:
        shutil.rmtree(outputs.crops, ignore_errors=True)
    return n_objects, failed, False


def _manifest(recipe: Recipe, outputs: Outputs) -> Manifest:
    """Go on with what was begun, or begin; refuse to replace what is of others."""
    earlier = Manifest.read(outputs.manifest)
    if earlier is None:
        check_free(outputs)
    elif earlier.key != recipe.key:
        check_free(
            outputs, "exists already, made with other settings or of another image"
        )
    elif earlier.is_complete and outputs.overwrite:
        outputs.manifest.unlink()  # asked for once more
    elif earlier.is_complete and not _are_there(outputs):
        # What is missing would come with new labels; somebody may have mended these.
        check_free(outputs)
    make_folder(outputs.labels.parent)
    return Manifest.open(outputs.manifest, recipe.key)


def _spools(
    manifest: Manifest, opened: OpenedFile, outputs: Outputs
) -> dict[tuple[int, int], Spool]:
    kept: dict[tuple[int, int], list[int]] = {plane: [] for plane in opened.planes}
    for record in manifest.records.values():
        if record.state in ("done", "empty"):
            kept[record.frame, record.slice].append(record.crop)
    return {
        (t, z): Spool(outputs.crops / f"t{t}_z{z}", crops)
        for (t, z), crops in kept.items()
    }


def _todo(
    manifest: Manifest,
    spools: dict[tuple[int, int], Spool],
    opened: OpenedFile,
    grid: CropGrid,
    outputs: Outputs,
) -> list[Place]:
    """Return the crops that are missing, failed, or damaged on disk."""
    is_written = manifest.is_complete and _are_there(outputs)
    todo = []
    for t, z in opened.planes:
        for crop in range(len(grid)):
            record = manifest.records.get((t, z, crop))
            if record is None or record.state == "failed":
                todo.append((t, z, crop))
            elif record.state == "skipped" or is_written:
                continue  # once the labels are written, the crops are gone
            elif not spools[t, z].sound(crop):
                todo.append((t, z, crop))
    return todo


def _are_there(outputs: Outputs) -> bool:
    files = (outputs.labels, outputs.overlay, outputs.measurements, outputs.seams)
    return all(path is None or path.exists() for path in files)


def _kept(
    outcomes: Generator[Step | Outcome, None, None],
    manifest: Manifest,
    spools: dict[tuple[int, int], Spool],
) -> Job[None]:
    """Keep each outcome: on disk first, then in the manifest."""
    for outcome in outcomes:
        if isinstance(outcome, Step):
            yield outcome
            continue
        record = outcome.record
        if outcome.data:
            spools[record.frame, record.slice].write(record.crop, outcome.data)
        manifest.add(record)


def _outcomes_here(
    opened: OpenedFile,
    model: Sam,
    config: AutomaticConfig,
    todo: Sequence[Place],
    total: int,
    cache: EmbeddingCache | None,
) -> Generator[Step | Outcome, None, None]:
    """Work through crops in this process."""
    embedding: PlaneEmbedding | None = None
    for n_left, (t, z, crop) in zip(range(len(todo), 0, -1), todo, strict=True):
        if embedding is None or embedding.plane != (t, z):
            embedding = opened.embedding(model, (t, z), cache)
        step = Step(total - n_left, total, "segment")
        outcome = yield from find_outcome(embedding, crop, config, step)
        yield outcome
        yield replace(step, done=step.done + 1, value=outcome.record)


def _outcomes_there(
    outcomes: Iterator[Outcome], n_todo: int, total: int
) -> Generator[Step | Outcome, None, None]:
    """Pass on what workers find."""
    yield Step(total - n_todo, total, "segment")
    for n_done, outcome in enumerate(outcomes, start=total - n_todo + 1):
        yield outcome
        yield Step(n_done, total, "segment", outcome.record)
