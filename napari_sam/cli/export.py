"""``napari-sam export``: a label file to the formats of other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from napari_sam.cli import options as o
from napari_sam.cli.records import print_record


def export(
    labels: Annotated[
        Path, typer.Argument(metavar="LABELS", help="TIFF, OME-Zarr, Zarr, PNG or npy.")
    ],
    to: Annotated[
        list[str],
        typer.Option(
            "--to",
            metavar="FORMAT",
            help="tiff, ome-zarr, geojson, imagej, coco, sa1b, svg, png, csv or "
            "parquet; several with commas, or repeat.",
        ),
    ],
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            help="A folder, or for one format a file. Default: this folder.",
        ),
    ] = Path(),
    image: Annotated[
        Path | None,
        typer.Option(
            help="The image: adds intensities to measurements, and is drawn below "
            "outlines in PNG."
        ),
    ] = None,
    overwrite: o.Overwrite = False,
    as_json: o.Json = False,
    series: o.Series = None,
    level: o.Level = 0,
    axes: o.Axes = None,
    plane: o.Plane = None,
    pixel_size: o.PixelSize = None,
) -> None:
    """Write labels in formats of other programs; object ids stay."""
    from napari_sam.engine.export import export as export_job
    from napari_sam.engine.export import plan_exports
    from napari_sam.engine.jobs import run
    from napari_sam.readers import open_image
    from napari_sam.readers.notes import read_notes

    names = [name.strip() for text in to for name in text.split(",")]
    plan = plan_exports(labels, names, output, overwrite)
    opened = open_image(
        labels, image=series, level=level, axes=axes, pixel_size_um=pixel_size
    )
    pixels = None if image is None else open_image(image)
    chosen = o.parse_plane(plane)
    if chosen is not None:
        opened = opened.at(chosen)
        pixels = None if pixels is None else pixels.at(chosen)
    notes = read_notes(labels if series is None else labels / series)
    written = run(
        export_job(opened, plan, image=pixels, notes=notes, overwrite=overwrite)
    )
    for name, path in written.items():
        if as_json:
            print_record({"labels": labels, "format": name, "path": path})
        else:
            typer.echo(f"{name}: {path}")
