"""``napari-sam predict``: objects that prompts show, to a label file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from napari_sam.cli import options as o
from napari_sam.cli.records import print_record, work_through

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_sam.engine.batch import Report
    from napari_sam.engine.files import ImageOptions
    from napari_sam.engine.jobs import Job
    from napari_sam.engine.prompted import Answer, Predicted
    from napari_sam.prompts import Prompts

Unit = Literal["px", "um"]
LabelsAs = Literal["points", "boxes", "both"]


@o.opens_images()
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
            metavar="FILE",
            help="Many objects: CSV with columns object, y, x, positive or y0, x0, "
            "y1, x1; GeoJSON (QuPath); .roi or .zip of ImageJ; or an image of labels.",
            exists=True,
        ),
    ] = None,
    unit: Annotated[
        Unit, typer.Option(help="Of the numbers in the file of prompts.")
    ] = "px",
    labels_as: Annotated[
        LabelsAs, typer.Option(help="What an image of labels gives for each object.")
    ] = "points",
    quick: Annotated[
        bool,
        typer.Option(
            "--quick",
            help="Only the first view of each object, even if a crop cuts it.",
        ),
    ] = False,
    output: o.Output = Path(),
    overlay: o.Overlay = False,
    measurements: o.Measurements = False,
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
    """Find the objects of an image that points and boxes show.

    Objects that a crop cuts are looked at again and come out whole. What is encoded
    is kept, as by `embed`, and not encoded again.
    """
    from napari_sam.engine.files import plan_outputs
    from napari_sam.engine.prompted import predict_file, prompts_for
    from napari_sam.weights.load import load_model

    objects: list[Prompts] = []
    if prompts is not None:
        objects = prompts_for(image, prompts, opening, unit=unit, labels_as=labels_as)
    objects += _typed(points or [], boxes or [], objects)
    (to,) = plan_outputs([image], output, overlay, measurements, overwrite)
    sam = load_model(model, device=device, precision=precision)
    store = o.own_store(cache, cache_limit, adds=True)
    job = predict_file(
        image, objects, to, sam, opening, complete=not quick, cache=store
    )
    answers: list[Answer] = []
    work_through([(image, _collected(job, answers))], as_json=as_json, resumes=False)
    _report(answers, as_json=as_json)


def _typed(
    points: list[str], boxes: list[str], others: Sequence[Prompts]
) -> list[Prompts]:
    """Objects of the file keep their numbers; those typed follow."""
    from napari_sam.prompts import Prompts, parse_box, parse_point

    objects = []
    number = max((each.object_id or 0 for each in others), default=0)
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


def _collected(job: Job[Predicted], answers: list[Answer]) -> Job[Report]:
    predicted = yield from job
    answers += predicted.answers
    return predicted.report


def _report(answers: Sequence[Answer], *, as_json: bool) -> None:
    """Say what became of each object; exit with status 1 if one was not asked for."""
    for answer in answers:
        if as_json:
            found = answer.found
            record: dict[str, Any] = {"event": "object", "object": answer.object_id}
            if found is not None:
                record["area"] = found.area
                record["predicted_iou"] = round(found.predicted_iou, 4)
                record["completed"] = answer.is_completed
            print_record(record | {"problem": answer.problem or None})
        if answer.problem:
            lost = "" if answer.found else "; left out"
            typer.echo(
                f"napari-sam: warning: object {answer.object_id}: {answer.problem}"
                f"{lost}",
                err=True,
            )
    if any(answer.found is None for answer in answers):
        raise typer.Exit(1)
