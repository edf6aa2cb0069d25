"""``napari-sam demo``: a real image, segmented with what is installed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from napari_sam.cli import options as o
from napari_sam.errors import InputError


def demo(
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder; files are replaced.")
    ] = Path("demo_out"),
    gui: Annotated[
        bool, typer.Option("--gui", help="Show the result in napari.")
    ] = False,
    model: o.Model = None,
    device: o.Device = "auto",
    precision: o.Precision = "auto",
) -> None:
    """Segment a real image, and a larger mosaic made from it."""
    if gui:
        raise InputError(
            "the napari plugin is not there yet; run the demo without --gui and drop "
            "the image and its labels onto napari"
        )
    from napari_sam.demo import run_demo
    from napari_sam.weights import load_model

    sam = load_model(model, device=device, precision=precision)
    for line in run_demo(sam, output):
        typer.echo(line)
