"""``napari-sam segment`` and ``napari-sam run``: image files to label files."""

from __future__ import annotations

from contextlib import nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from napari_sam.cli import options as o
from napari_sam.cli.records import (
    exit_if_failed,
    print_record,
    print_table,
    work_through,
)
from napari_sam.errors import FileError, FormatError, InputError, NapariSamError

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from napari_sam.cache import EmbeddingCache
    from napari_sam.engine.automatic import AutomaticConfig
    from napari_sam.engine.batch import Report
    from napari_sam.engine.cluster import Cluster
    from napari_sam.engine.files import ImageOptions, Outputs
    from napari_sam.engine.inputs import InputImage
    from napari_sam.engine.jobs import Job
    from napari_sam.engine.plan import PlannedImage
    from napari_sam.model import Sam

Mode = Literal["proposals", "grid"]
Format = Literal["tif", "zarr"]
_OBJECTS, _WORK = "Objects", "Work"

Seams = Annotated[
    bool,
    typer.Option(
        "--seams",
        help="Also a CSV of objects on borders between crops.",
        rich_help_panel="Output",
    ),
]
LabelFormat = Annotated[
    Format,
    typer.Option(
        "--format",
        help="Labels in a folder as OME-TIFF or OME-Zarr.",
        rich_help_panel="Output",
    ),
]
Workers = Annotated[
    int | None,
    typer.Option(min=1, help="Processes on this machine.", rich_help_panel=_WORK),
]
Scheduler = Annotated[
    str | None,
    typer.Option(
        metavar="ADDRESS",
        help="A running scheduler of dask: tcp://host:8786.",
        rich_help_panel=_WORK,
    ),
]


@o.opens_images()
def segment(
    images: o.Inputs,
    output: o.Output = Path(),
    overlay: o.Overlay = False,
    measurements: o.Measurements = False,
    seams: Seams = False,
    label_format: LabelFormat = "tif",
    overwrite: o.Overwrite = False,
    as_json: o.Json = False,
    cache: o.Store = None,
    cache_limit: o.StoreLimit = None,
    model: o.Model = None,
    device: o.Device = "auto",
    precision: o.Precision = "auto",
    *,
    opening: ImageOptions,
    mode: Annotated[
        Mode | None,
        typer.Option(
            help="Where candidates come from. Default: proposals, if the model has "
            "a head for them.",
            rich_help_panel="Model",
        ),
    ] = None,
    every_crop: Annotated[
        bool,
        typer.Option(
            "--every-crop",
            help="Also crops that look like background.",
            rich_help_panel="Model",
        ),
    ] = False,
    min_area: Annotated[
        int | None,
        typer.Option(
            metavar="PX",
            help="Leave out smaller objects.",
            rich_help_panel=_OBJECTS,
        ),
    ] = None,
    max_area: Annotated[
        int | None,
        typer.Option(
            metavar="PX",
            help="Leave out larger objects.",
            rich_help_panel=_OBJECTS,
        ),
    ] = None,
    drop_at_border: Annotated[
        bool,
        typer.Option(
            "--exclude-border",
            help="Leave out objects that the border of the image cuts off.",
            rich_help_panel=_OBJECTS,
        ),
    ] = False,
    setting: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NAME=VALUE",
            help="Any other threshold of the search, such as "
            "proposals.min_stability=0.4 or grid.points_per_side=16. Repeat.",
            rich_help_panel=_OBJECTS,
        ),
    ] = None,
    plan: Annotated[
        bool,
        typer.Option(
            "--plan",
            help="Only say how many crops, bytes and hours it will be.",
            rich_help_panel=_WORK,
        ),
    ] = False,
    only_failed: Annotated[
        bool,
        typer.Option(
            "--only-failed",
            help="Only images that failed before, as a whole or in part.",
            rich_help_panel=_WORK,
        ),
    ] = False,
    workers: Workers = None,
    scheduler: Scheduler = None,
    link: Annotated[
        Literal["z", "t", "both"] | None,
        typer.Option(
            help="Link the planes of stacks along this axis, to NAME.linked.tif.",
            rich_help_panel="Output",
        ),
    ] = None,
    three_planes: Annotated[
        bool,
        typer.Option(
            "--three-planes",
            help="Volumes in XY, XZ and YZ planes, fused; also NAME.uncertainty.tif.",
            rich_help_panel="Output",
        ),
    ] = False,
) -> None:
    """Find all objects of each image, without prompts; stacks plane by plane.

    What was interrupted goes on with the same command. What `embed` has kept is not
    encoded again; with --cache, what is encoded is kept.
    """
    from napari_sam.engine.automatic import AutomaticConfig
    from napari_sam.engine.batch import segment_file
    from napari_sam.engine.files import plan_outputs
    from napari_sam.engine.inputs import find_inputs
    from napari_sam.engine.recipe import change_config
    from napari_sam.engine.volume import LinkOptions, segment_stack
    from napari_sam.weights.load import load_model

    found = find_inputs(images, opening.image)
    outputs = plan_outputs(
        [each.name for each in found],
        output,
        overlay,
        measurements,
        overwrite,
        seams,
        ".zarr" if label_format == "zarr" else ".tif",
    )
    config = change_config(
        AutomaticConfig(
            mode=mode,
            min_area=1 if min_area is None else min_area,
            max_area=max_area,
            drop_at_border=drop_at_border,
            skip_background=not every_crop,
        ),
        o.read_settings(setting or []),
    )
    work = list(zip(found, outputs, strict=True))
    if only_failed:
        work = [(each, to) for each, to in work if _has_failed(to)]
    if not work:
        typer.echo("nothing to do: none of these images has failed", err=True)
        return
    sam = load_model(model, device=device, precision=precision)
    if three_planes:
        _only_labels(outputs, link, scheduler, workers, cache)
    if plan:
        _print_plan(work, sam, opening, config, three_planes, as_json=as_json)
        return

    def work_by(start: Callable[..., Job[Report]], **how: Any) -> None:
        jobs = [
            (each.name, start(each.path, to, sam, each.chosen(opening), config, **how))
            for each, to in work
        ]
        work_through(jobs, as_json=as_json, resumes=not three_planes)

    if three_planes:
        from napari_sam.engine.three_planes import three_planes_file

        work_by(three_planes_file)
        return
    store = o.own_store(cache, cache_limit, adds=False)
    with _cluster(scheduler, workers, device, store) as cluster:
        how = {"weights": model or "default", "workers": cluster, "cache": store}
        if link is None:
            work_by(_noting(segment_file), **how)
        else:
            work_by(_noting(segment_stack), link=LinkOptions(link), **how)


def run(
    recipe: Annotated[
        Path,
        typer.Argument(metavar="RECIPE", help="NAME.recipe.yaml beside labels."),
    ],
    image: Annotated[
        Path | None, typer.Option(help="The image, if it lies elsewhere now.")
    ] = None,
    output: o.Output = Path(),
    overlay: o.Overlay = False,
    measurements: o.Measurements = False,
    seams: Seams = False,
    label_format: LabelFormat = "tif",
    overwrite: o.Overwrite = False,
    as_json: o.Json = False,
    cache: o.Store = None,
    cache_limit: o.StoreLimit = None,
    model: Annotated[
        str | None,
        typer.Option("--model", "-m", help="The weights, if they lie elsewhere now."),
    ] = None,
    device: o.Device = "auto",
    workers: Workers = None,
    scheduler: Scheduler = None,
) -> None:
    """Make the labels of a recipe again; refuse if image or weights have changed."""
    from napari_sam.engine.batch import segment_recipe
    from napari_sam.engine.files import plan_outputs
    from napari_sam.engine.inputs import InputImage
    from napari_sam.engine.recipe import Recipe, place_of_weights
    from napari_sam.weights.load import load_model

    what = Recipe.read(recipe)
    for change in what.other_versions():
        typer.echo(f"napari-sam: warning: {change}; labels may differ", err=True)
    path = image or Path(what.image)
    name = InputImage(path, what.options.image).name
    ending: Literal[".tif", ".zarr"] = ".zarr" if label_format == "zarr" else ".tif"
    (to,) = plan_outputs(
        [name], output, overlay, measurements, overwrite, seams, ending
    )
    weights = what.weights
    sam = load_model(model or weights.name, device=device, precision=weights.precision)
    if model is not None:
        what = replace(what, weights=replace(weights, name=place_of_weights(model)))
    store = o.own_store(cache, cache_limit, adds=False)
    with _cluster(scheduler, workers, device, store) as cluster:
        job = segment_recipe(what, to, sam, image=path, workers=cluster, cache=store)
        work_through([(path, job)], as_json=as_json)


def _only_labels(outputs: list[Outputs], *others: object) -> None:
    """Refuse what the three-plane mode does not do."""
    more = [(each.overlay, each.measurements, each.seams) for each in outputs]
    if any(others) or any(any(each) for each in more):
        raise InputError(
            "--three-planes writes labels and uncertainty, in one process; leave out "
            "--link, --overlay, --measurements, --seams, --workers, --scheduler and "
            "--cache, and use napari-sam export for other formats"
        )


def _has_failed(outputs: Outputs) -> bool:
    from napari_sam.engine.manifest import Manifest

    manifest = Manifest.read(outputs.manifest)
    return manifest is not None and not manifest.is_complete


def _noting(start: Callable[..., Job[Report]]) -> Callable[..., Job[Report]]:
    """Let the manifest say so where the file of an image cannot be used."""
    from napari_sam.engine.manifest import Manifest

    def noting(path: Path, outputs: Outputs, *what: Any, **how: Any) -> Job[Report]:
        try:
            return (yield from start(path, outputs, *what, **how))
        except (FormatError, OSError) as error:
            if not outputs.labels.exists():  # they may be the reason, and of others
                with suppress(FileError):  # where nothing can be written, that is told
                    Manifest.note_failure(outputs.manifest, str(error))
            raise

    return noting


def _cluster(
    scheduler: str | None,
    workers: int | None,
    device: str,
    cache: EmbeddingCache | None,
) -> AbstractContextManager[Cluster | None]:
    if scheduler is None and workers is None:
        return nullcontext()
    if scheduler is not None and workers is not None:
        raise InputError(
            "--scheduler and --workers; a running scheduler has workers of its own, "
            "give one of the two"
        )
    from napari_sam.engine.cluster import open_cluster

    return open_cluster(scheduler, workers, device, cache)


def _print_plan(
    work: list[tuple[InputImage, Outputs]],
    sam: Sam,
    options: ImageOptions,
    config: AutomaticConfig,
    three_planes: bool,
    *,
    as_json: bool,
) -> None:
    from napari_sam.engine.plan import plan_image, time_crop

    planned: list[PlannedImage] = []
    failures: list[tuple[str, str]] = []
    seconds = 0.0
    for each, to in work:
        try:
            chosen = each.chosen(options)
            image = plan_image(
                each.path, to, sam, chosen, config, three_planes=three_planes
            )
            if not planned:
                seconds = time_crop(each.path, sam, chosen, config)
        except (NapariSamError, OSError) as error:
            if len(work) == 1:
                raise
            failures.append((str(each.name), str(error)))
        else:
            planned.append(image)
    if as_json:
        for image in planned:
            print_record(_plan_facts(image, seconds))
    else:
        head = ("image", "planes", "px", "crops", "left", "to read", "labels", "time")
        print_table([head, *(_plan_row(image, seconds) for image in planned)])
        total = sum(image.n_left for image in planned)
        typer.echo(
            f"{total} crops at {seconds:.2f} s each, as measured on one of them: "
            f"{_duration(total * seconds)} with one worker"
        )
    exit_if_failed(failures, len(work), "cannot be used")


def _plan_facts(image: PlannedImage, seconds: float) -> dict[str, Any]:
    return {
        "event": "plan",
        "image": str(image.path),
        "crops": image.n_crops,
        "left": image.n_left,
        "pixel_bytes": image.pixel_bytes,
        "label_bytes": image.label_bytes,
        "seconds": round(image.n_left * seconds, 3),
    }


def _plan_row(image: PlannedImage, seconds: float) -> tuple[str, ...]:
    height, width = image.shape[2:]
    return (
        image.path.name,
        str(image.n_planes),
        f"{height} x {width}",
        str(image.n_crops),
        str(image.n_left),
        _megabytes(image.pixel_bytes),
        _megabytes(image.label_bytes),
        _duration(image.n_left * seconds),
    )


def _megabytes(n_bytes: int) -> str:
    return f"{n_bytes / 1e6:,.1f} MB"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"
