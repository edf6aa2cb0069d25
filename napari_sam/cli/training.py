"""``napari-sam train`` and ``napari-sam evaluate``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from napari_sam.cli import options as o
from napari_sam.cli.records import print_record

Grouping = Literal["modality", "dataset", "dataset and modality"]


def train(
    config: Annotated[
        Path | None,
        typer.Option(help="YAML file of settings.", exists=True, dir_okay=False),
    ] = None,
    data: Annotated[
        list[Path] | None,
        typer.Option(help="Folder with images/ and labels/. Repeat for more."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Folder; a training there goes on."),
    ] = None,
    start_from: Annotated[
        str | None, typer.Option(help="Weights to start from: a name or a file.")
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="auto, cpu, cuda, cuda:1 or mps.")
    ] = None,
    setting: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="Any other setting."),
    ] = None,
) -> None:
    """Train on images with labels, or go on with a training."""
    from napari_sam.engine.jobs import run
    from napari_sam.training.config import read_config
    from napari_sam.training.loop import train as train_job

    changes = {
        "data": data or None,
        "output": output,
        "start_from": start_from,
        "device": device,
        **o.read_settings(setting or []),
    }
    try:
        weights = run(train_job(read_config(config, **changes)))
    except KeyboardInterrupt:
        typer.echo("interrupted; the same command goes on from here", err=True)
        raise typer.Exit(130) from None
    typer.echo(weights)


def evaluate(
    data: Annotated[Path, typer.Option(help="Folder with images/ and labels/.")],
    model: o.Model = None,
    split: Annotated[
        str, typer.Option(help="Split of the folder's index; '' for all.")
    ] = "val",
    dataset: Annotated[
        list[str] | None, typer.Option(help="Only this dataset of the index.")
    ] = None,
    partial: Annotated[
        list[str] | None,
        typer.Option(
            help="A dataset with objects that are not labelled, if the index does not "
            "say so: no false objects are counted there. Repeat."
        ),
    ] = None,
    max_images: Annotated[
        int | None, typer.Option(help="At most so many of each dataset and modality.")
    ] = None,
    max_objects: Annotated[
        int | None, typer.Option(help="Prompt at most so many objects of an image.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Folder for tables of all scores."),
    ] = None,
    by: Annotated[
        Grouping, typer.Option(help="What makes a line of the table.")
    ] = "dataset and modality",
    device: o.Device = "auto",
    precision: o.Precision = "auto",
    as_json: o.Json = False,
) -> None:
    """Measure a model on images with labels: clicks, boxes, automatic."""
    from napari_sam.engine.jobs import run
    from napari_sam.training.evaluate import EvaluateConfig
    from napari_sam.training.evaluate import evaluate as evaluate_job
    from napari_sam.writers.atomic import make_folder

    config = EvaluateConfig(
        data=data,
        weights=model,
        split=split or None,
        datasets=tuple(dataset or ()),
        partial=tuple(partial or ()),
        max_images=max_images,
        max_objects=max_objects,
        device=device,
        precision=precision,
    )
    if output is not None:
        make_folder(output)  # a fault of it is not to be found at the end
    evaluation = run(evaluate_job(config))
    if output is not None:
        evaluation.save(output)
    if as_json:
        for row in evaluation.summary(by):
            print_record(row)
    else:
        typer.echo(evaluation.table(by))
