"""``napari-sam predict``: objects that prompts show, to a label file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from napari_sam.cli import options as o
from napari_sam.cli.records import work_through

if TYPE_CHECKING:
    from napari_sam.prompts import Prompts


def predict(
    image: o.ImageFile,
    points: Annotated[
        list[str] | None,
        typer.Option(
            metavar="'Y,X Y,X,-'",
            help="Points of one object, in pixels; - marks a point beside it. "
            "Repeat for more objects.",
        ),
    ] = None,
    boxes: Annotated[
        list[str] | None,
        typer.Option(
            metavar="Y0,X0,Y1,X1",
            help="Box around one object, in pixels. Repeat for more objects.",
        ),
    ] = None,
    prompts: Annotated[
        Path | None,
        typer.Option(
            metavar="CSV",
            help="Table with columns object, y, x, positive or y0, x0, y1, x1.",
            exists=True,
            dir_okay=False,
        ),
    ] = None,
    output: o.Output = Path(),
    overlay: o.Overlay = False,
    measurements: o.Measurements = False,
    overwrite: o.Overwrite = False,
    as_json: o.Json = False,
    model: o.Model = None,
    device: o.Device = "auto",
    precision: o.Precision = "auto",
    series: o.Series = None,
    level: o.Level = 0,
    axes: o.Axes = None,
    channel: o.Channels = None,
    invert: o.Invert = False,
    plane: o.Plane = None,
    pixel_size: o.PixelSize = None,
    diameter: o.Diameter = None,
) -> None:
    """Find the objects of an image that points and boxes show."""
    from napari_sam.engine.files import ImageOptions, plan_outputs
    from napari_sam.engine.prompted import predict_file
    from napari_sam.weights import load_model

    objects = _objects(points or [], boxes or [], prompts)
    opening = ImageOptions(
        series,
        level,
        axes,
        o.parse_channels(channel),
        invert,
        o.parse_plane(plane),
        pixel_size,
        diameter,
    )
    (to,) = plan_outputs([image], output, overlay, measurements, overwrite)
    sam = load_model(model, device=device, precision=precision)
    job = predict_file(image, objects, to, sam, opening)
    work_through([(image, job)], as_json=as_json)


def _objects(points: list[str], boxes: list[str], table: Path | None) -> list[Prompts]:
    """Objects of the table keep their numbers; the others follow."""
    from napari_sam.prompts import Prompts, parse_box, parse_point, read_prompts

    objects = [] if table is None else read_prompts(table)
    number = max((each.object_id or 0 for each in objects), default=0)
    for text in points:
        number += 1
        parsed = [parse_point(part) for part in text.split()]
        objects.append(
            Prompts(
                points=[(y, x) for y, x, _ in parsed],
                positive=[sign for _, _, sign in parsed],
                object_id=number,
            )
        )
    for text in boxes:
        number += 1
        objects.append(Prompts(boxes=parse_box(text), object_id=number))
    return objects
