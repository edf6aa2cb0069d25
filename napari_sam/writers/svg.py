"""Objects -> outlines as SVG, for figures and for vector programs.

One path an object, along the borders of its pixels. The unit is a pixel, the origin
the upper left corner of the plane.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari_sam.writers.atomic import atomic, checked_path
from napari_sam.writers.borders import trace
from napari_sam.writers.colours import colours_of
from napari_sam.writers.objects import label_source, one_plane, windows

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator
    from pathlib import Path

    from napari_sam.images import ImageSource
    from napari_sam.writers.borders import Polygon

ENDINGS = (".svg",)


def save_svg(
    labels: Any, path: str | os.PathLike[str], *, overwrite: bool = False
) -> Path:
    """Save the outlines of the objects of one plane as SVG.

    Parameters
    ----------
    labels : ImageSource, or array of bool or integers
        Object ids of one plane, 0 is background; read window by window.
    path : path
        Where to write, ending in .svg.
    overwrite : bool
        Replace an existing file.

    Returns
    -------
    Path
        Where the file is. The path of object 17 has the id ``object-17``.

    Raises
    ------
    InputError
        If the labels are none, or a stack.
    FileError
        If the file exists already or cannot be written.
    """
    path = checked_path(path, ENDINGS, "outlines")
    labels = one_plane(label_source(labels), "SVG")
    height, width = labels.plane_shape
    with (
        atomic(path, overwrite=overwrite) as part,
        part.open("w", encoding="utf-8") as file,
    ):
        file.write(
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
            f'width="{width}" height="{height}">\n'
            '<g fill="none" stroke-linejoin="round">\n'
        )
        file.writelines(_paths(labels))
        file.write("</g>\n</svg>\n")
    return path


def _paths(labels: ImageSource) -> Iterator[str]:
    for window in windows(labels):
        outlines = trace(window.numbers, window.box.y0, window.box.x0)
        colours = colours_of(window.ids).tolist()
        for number, colour, polygons in zip(
            window.ids.tolist(), colours, outlines, strict=True
        ):
            yield (
                f'<path id="object-{number}" stroke="#{bytes(colour).hex()}" '
                f'd="{_drawn(polygons)}"/>\n'
            )


def _drawn(polygons: list[Polygon]) -> str:
    """Write rings as moves: to the first corner, then along rows and columns."""
    commands = []
    for ring in (ring for polygon in polygons for ring in polygon):
        (y, x), *corners = ring.tolist()
        commands.append(f"M{x} {y}")
        for corner_y, corner_x in corners:
            commands.append(f"H{corner_x}" if corner_y == y else f"V{corner_y}")
            y = corner_y
        commands.append("Z")
    return "".join(commands)
