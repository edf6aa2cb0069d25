"""``napari-sam segment``: image files to label files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from napari_sam.cli import options as o
from napari_sam.cli.records import work_through

Mode = Literal["proposals", "grid"]


def segment(
    images: o.Images,
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
    mode: Annotated[
        Mode | None,
        typer.Option(
            help="Where candidates come from. Default: proposals, if the model has "
            "a head for them.",
            rich_help_panel="Model",
        ),
    ] = None,
) -> None:
    """Find all objects of each image, without prompts; stacks plane by plane."""
    from napari_sam.engine.automatic import AutomaticConfig
    from napari_sam.engine.batch import segment_file
    from napari_sam.engine.files import ImageOptions, plan_outputs
    from napari_sam.weights import load_model

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
    plan = plan_outputs(images, output, overlay, measurements, overwrite)
    sam = load_model(model, device=device, precision=precision)
    pairs = zip(images, plan, strict=True)
    config = AutomaticConfig(mode=mode)
    jobs = [(path, segment_file(path, to, sam, opening, config)) for path, to in pairs]
    work_through(jobs, as_json=as_json)
