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
        bool, typer.Option("--gui", help="Open napari instead, ready for a click.")
    ] = False,
    model: o.Model = None,
    device: o.Device = "auto",
    precision: o.Precision = "auto",
) -> None:
    """Segment a real image, and a larger mosaic made from it."""
    if gui:
        _open_napari()
        return
    from napari_sam.demo import run_demo
    from napari_sam.weights.load import load_model

    sam = load_model(model, device=device, precision=precision)
    for line in run_demo(sam, output):
        typer.echo(line)


def _open_napari() -> None:
    try:
        from napari_sam.widgets.launch import run_demo
    except ImportError as error:
        raise InputError(
            f"the window needs napari and a Qt binding ({error}); run ./demo --gui in "
            "a clone of the repository, or: pip install napari pyqt6"
        ) from error
    run_demo()
