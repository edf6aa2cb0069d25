"""``napari-sam train`` and ``napari-sam evaluate``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from napari_sam.cli import options as o
from napari_sam.cli.records import print_record
from napari_sam.errors import InputError


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
        **_settings(setting or []),
    }
    typer.echo(run(train_job(read_config(config, **changes))))


def _settings(texts: list[str]) -> dict[str, Any]:
    """Read ``NAME=VALUE`` with values written as in the YAML file."""
    import yaml

    settings = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise InputError(f"setting {text!r}; write NAME=VALUE: steps=1000")
        try:
            settings[name.strip()] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise InputError(f"setting {text!r} is no YAML: {error}") from error
    return settings


def evaluate(
    data: Annotated[Path, typer.Option(help="Folder with images/ and labels/.")],
    model: o.Model = None,
    split: Annotated[
        str, typer.Option(help="Split of the folder's index; '' for all.")
    ] = "val",
    dataset: Annotated[
        list[str] | None, typer.Option(help="Only this dataset of the index.")
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
        str, typer.Option(help="modality, dataset or 'dataset and modality'.")
    ] = "dataset and modality",
    device: o.Device = "auto",
    precision: o.Precision = "auto",
    as_json: o.Json = False,
) -> None:
    """Measure a model on images with labels: clicks, boxes, automatic."""
    from napari_sam.engine.jobs import run
    from napari_sam.training.evaluate import EvaluateConfig
    from napari_sam.training.evaluate import evaluate as evaluate_job

    config = EvaluateConfig(
        data=data,
        weights=model,
        split=split or None,
        datasets=tuple(dataset or ()),
        max_images=max_images,
        max_objects=max_objects,
        device=device,
        precision=precision,
    )
    evaluation = run(evaluate_job(config))
    if output is not None:
        evaluation.save(output)
    if as_json:
        for row in evaluation.summary(by):
            print_record(row)
    else:
        typer.echo(evaluation.table(by))
