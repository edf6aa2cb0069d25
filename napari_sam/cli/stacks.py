"""``napari-sam propagate`` and ``napari-sam link``: objects of stacks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from napari_sam.cli import options as o
from napari_sam.cli.records import print_record
from napari_sam.errors import InputError

if TYPE_CHECKING:
    from napari_sam.engine.files import ImageOptions
    from napari_sam.engine.volume import LinkOptions
    from napari_sam.masks import Candidate
    from napari_sam.prompts import Prompts

Axis = Literal["z", "t"]
Along = Literal["z", "t", "both"]

MaxGap = Annotated[
    int,
    typer.Option(min=0, help="Planes in a row that an object may be missing in."),
]
MinLength = Annotated[int, typer.Option(min=1, help="Drop objects in fewer slices.")]
Branches = Annotated[
    bool, typer.Option("--branches", help="Follow objects that split or merge.")
]


@o.opens_images(with_plane=False)
def propagate(
    image: o.ImageFile,
    point: Annotated[
        list[str] | None,
        typer.Option(
            metavar="I,Y,X[,-]",
            help="Point in slice I, from 0; - marks a point beside the object. Repeat.",
        ),
    ] = None,
    box: Annotated[
        list[str] | None,
        typer.Option(
            metavar="I,Y0,X0,Y1,X1", help="Box around the object in slice I. Repeat."
        ),
    ] = None,
    masks: Annotated[
        Path | None,
        typer.Option(
            metavar="LABELS",
            help="Labels of the stack: where they have the object --object-id, it is "
            "taken as it is. Points and boxes in the same slice count instead.",
        ),
    ] = None,
    end: Annotated[
        list[int] | None,
        typer.Option(metavar="I", help="The object is not in slice I. Repeat."),
    ] = None,
    along: Annotated[Axis, typer.Option(help="The axis to go along.")] = "z",
    at: Annotated[
        int, typer.Option(help="The frame, along z; the slice, along t.")
    ] = 0,
    within: Annotated[
        str | None,
        typer.Option(metavar="FIRST,LAST", help="Only these slices, both included."),
    ] = None,
    max_gap: MaxGap = 1,
    branches: Branches = False,
    object_id: Annotated[
        int, typer.Option(min=1, max=2**32 - 1, help="Its id in the labels.")
    ] = 1,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="A .tif file. Default: NAME.labels.tif in this folder.",
        ),
    ] = None,
    overwrite: o.Overwrite = False,
    as_json: o.Json = False,
    cache: o.Store = None,
    cache_limit: o.StoreLimit = None,
    model: o.Model = None,
    device: o.Device = "auto",
    precision: o.Precision = "auto",
    *,
    opening: ImageOptions,
) -> None:
    """Follow one object through a stack, from prompts in one slice or several.

    What is encoded is kept, as by `embed`, and not encoded again for another object or
    a correction.
    """
    from napari_sam.engine.files import plan_outputs
    from napari_sam.engine.follow import PropagateConfig
    from napari_sam.engine.jobs import run
    from napari_sam.engine.propagated import FollowOptions, masks_in, propagate_file
    from napari_sam.weights.load import load_model

    (planned,) = plan_outputs([image], output or Path())
    prompts: dict[int, Prompts | Candidate] = {}
    if masks is not None:
        prompts |= masks_in(masks, object_id, along, at)
    prompts |= _by_slice(point or [], box or [])
    if not prompts:
        raise InputError(
            "no prompts; give --point I,Y,X, --box I,Y0,X0,Y1,X1 or --masks LABELS"
        )
    where = FollowOptions(
        along, at, _parse_range(within), tuple(end or ()), object_id, overwrite
    )
    config = PropagateConfig(max_gap=max_gap, branches=branches)
    sam = load_model(model, device=device, precision=precision)
    store = o.own_store(cache, cache_limit, adds=True)
    job = propagate_file(
        image, prompts, planned.labels, sam, where, opening, config, store
    )
    report = run(job)
    found = report.found
    if as_json:
        print_record(
            {
                "image": str(image),
                "slices": list(found.slices),
                "suspicious": found.suspicious,
                "ends": {stop.index: stop.reason for stop in found.stops},
                "seconds": round(report.seconds, 3),
                "labels": str(report.labels),
                "table": str(report.table),
            }
        )
        return
    first, last = min(found.slices), max(found.slices)
    typer.echo(
        f"{image}: slices {first} to {last} in {report.seconds:.1f} s -> "
        f"{report.labels}, {report.table}"
    )
    for stop in found.stops:
        typer.echo(f"  ends at {stop.index}: {stop.reason}")
    if found.suspicious:
        typer.echo(f"  worth a look: {', '.join(map(str, found.suspicious))}")


def link(
    labels: Annotated[
        Path, typer.Argument(metavar="LABELS", help="Labels of planes, TIFF or Zarr.")
    ],
    image: Annotated[
        Path | None,
        typer.Option(
            help="The image they were made from: bodies that touch along z are cut "
            "where it is dim between them."
        ),
    ] = None,
    axes: o.Axes = None,
    channel: o.Channels = None,
    along: Annotated[Along, typer.Option(help="The axis to link along.")] = "z",
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Default: NAME.linked.tif beside them."),
    ] = None,
    max_gap: MaxGap = 1,
    min_length: MinLength = 1,
    branches: Branches = False,
    ctc: Annotated[
        bool, typer.Option("--ctc", help="Also a Cell Tracking Challenge folder.")
    ] = False,
    overwrite: o.Overwrite = False,
    as_json: o.Json = False,
) -> None:
    """Link labels of single planes to objects of the stack, or to tracks."""
    from napari_sam.engine.files import ImageOptions
    from napari_sam.engine.jobs import run
    from napari_sam.engine.volume import link_file, linked_name, see_image

    options = link_options(along, max_gap, min_length, branches=branches, ctc=ctc)
    to = linked_name(labels) if output is None else output
    seen = None
    if image is not None:
        opening = ImageOptions(axes=axes, channels=o.parse_channels(channel))
        seen = see_image(image, opening)
    elif axes or channel:
        raise InputError("--axes and --channel are of an image; give it with --image")
    found = run(link_file(labels, to, options, image=seen, overwrite=overwrite))
    if as_json:
        facts = {"labels": str(labels), "objects": found.n_objects, "linked": str(to)}
        print_record(facts | {"filled": [each._asdict() for each in found.filled]})
        return
    typer.echo(f"{labels}: {found.n_objects} objects -> {to}")
    for each in found.filled:
        frame = f", frame {each.t}" if found.labels.shape[0] > 1 else ""
        typer.echo(f"  filled in: object {each.object_id} in slice {each.z}{frame}")


def link_options(
    along: Along,
    max_gap: int = 1,
    min_length: int = 1,
    *,
    branches: bool = False,
    ctc: bool = False,
) -> LinkOptions:
    """Put the options of the command line together."""
    from napari_sam.engine.volume import LinkOptions
    from napari_sam.link import LinkConfig, TrackConfig

    return LinkOptions(
        along,
        LinkConfig(max_gap=max_gap, min_length=min_length, branches=branches),
        TrackConfig(max_gap=max_gap),
        ctc,
    )


def _by_slice(points: list[str], boxes: list[str]) -> dict[int, Prompts]:
    from napari_sam.prompts import Prompts, parse_box, parse_point

    found: dict[int, tuple[list[tuple[float, float]], list[bool], list[Any]]] = {}
    for text in points:
        i, rest = _split(text, "slice,y,x or slice,y,x,-: 12,120,80", 2)
        y, x, positive = parse_point(rest)
        points_here, signs, _ = found.setdefault(i, ([], [], []))
        points_here.append((y, x))
        signs.append(positive)
    for text in boxes:
        i, rest = _split(text, "slice,y0,x0,y1,x1: 12,100,60,140,110", 4)
        found.setdefault(i, ([], [], []))[2].append(parse_box(rest))
    return {i: Prompts(p, signs, box or None) for i, (p, signs, box) in found.items()}


def _split(text: str, form: str, n_least: int) -> tuple[int, str]:
    """Take the slice off a place that has so many numbers more."""
    first, _, rest = text.partition(",")
    if not first.strip().isdecimal() or rest.count(",") < n_least - 1:
        raise InputError(f"{text!r} is no place in a stack; write {form}")
    return int(first), rest


def _parse_range(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    parts = text.split(",")
    if len(parts) != 2 or not all(part.strip().isdecimal() for part in parts):
        raise InputError(f"slices {text!r}; write first,last, counted from 0: 5,40")
    return int(parts[0]), int(parts[1]) + 1
