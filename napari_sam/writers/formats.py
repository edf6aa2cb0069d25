"""The table of formats that labels can be exported to.

All are written by one call with the same arguments, so that the command line and the
napari plugin offer them by going through the table. What a format has no place for,
an image or a pixel size, it leaves out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from napari_sam.errors import InputError
from napari_sam.writers import (
    coco,
    geojson,
    imagej,
    measurements,
    ome_zarr,
    picture,
    svg,
    tiff,
)

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from napari_sam.images import ImageSource


@dataclass(frozen=True, slots=True)
class Format:
    """A format that labels can be exported to.

    Parameters
    ----------
    name : str
        What it is called on the command line.
    ending : str
        Ending of a file that is named after its labels.
    endings : tuple of str
        All endings that are taken, in small letters.
    description : str
        What it holds and who reads it.
    writer : callable
        Writes it, and takes the arguments of `write` that `uses` names.
    uses : tuple of str
        Of ``image``, ``pixel_size_um``, ``notes`` and ``facts``.
    takes_stacks : bool, default True
        Whether a file holds more than one plane.
    needs : str
        A package that it needs beside those of the project; empty for none.
    """

    name: str
    ending: str
    endings: tuple[str, ...]
    description: str
    writer: Callable[..., Path]
    uses: tuple[str, ...] = ()
    takes_stacks: bool = True
    needs: str = ""

    def write(  # noqa: PLR0913 - what the formats between them can hold
        self,
        labels: Any,
        path: str | os.PathLike[str],
        *,
        pixel_size_um: float | Sequence[float] | None = None,
        image: Any = None,
        notes: Mapping[str, Any] | None = None,
        facts: Mapping[str, Mapping[int, Any]] | None = None,
        overwrite: bool = False,
    ) -> Path:
        """Write labels in this format.

        Parameters
        ----------
        labels : ImageSource, or array of bool or integers
            Object ids, 0 is background. The axes of an array are YX, ZYX or TZYX.
        path : path
            Where to write; its ending is one of `endings`.
        pixel_size_um : float, or sequence of float, optional
            In micrometres: one number, or (y, x), or (z, y, x). Default: what the
            labels know.
        image : ImageSource or array, optional
            The image of the labels, for measurements or as background.
        notes : mapping of str to JSON values, optional
            Such as how objects were made; see `read_notes`.
        facts : mapping of str to mapping of int to value, optional
            What is known of objects beside their pixels, by column and object id.
        overwrite : bool
            Replace what is there.

        Returns
        -------
        Path
            Where the file is.

        Raises
        ------
        InputError
            If labels, image and format do not fit together, or a package is missing.
        FileError
            If the file exists already or cannot be written.
        """
        given = {
            "pixel_size_um": pixel_size_um,
            "image": image,
            "notes": notes,
            "facts": facts,
        }
        used = {name: given[name] for name in self.uses}
        return self.writer(labels, path, overwrite=overwrite, **used)


def _save_table(
    labels: Any,
    path: str | os.PathLike[str],
    *,
    overwrite: bool,
    facts: Mapping[str, Mapping[int, Any]] | None,
    **given: Any,
) -> Path:
    table = measurements.measure_objects(labels, **given)
    table |= measurements.columns_of(facts or {}, table["object"])
    return measurements.save_measurements(table, path, overwrite=overwrite)


_ALL = ("image", "pixel_size_um")

FORMATS: dict[str, Format] = {
    each.name: each
    for each in (
        Format(
            "tiff",
            ".labels.tif",
            (".tif", ".tiff"),
            "label image as OME-TIFF, for every program",
            tiff.save_labels,
            ("pixel_size_um", "notes"),
        ),
        Format(
            "ome-zarr",
            ".labels.zarr",
            ome_zarr.ENDINGS,
            "label image as OME-Zarr 0.5 with pyramid, colours, area and centroid, "
            "for viewers of large images",
            ome_zarr.save_ome_zarr,
            ("pixel_size_um", "notes"),
        ),
        Format(
            "geojson",
            ".geojson",
            geojson.ENDINGS,
            "outlines as polygons, with measurements, for QuPath",
            geojson.save_geojson,
            _ALL,
        ),
        Format(
            "imagej",
            ".rois.zip",
            imagej.ENDINGS,
            "outlines as regions of interest, for ImageJ and Fiji",
            imagej.save_imagej_rois,
            needs="roifile",
        ),
        Format(
            "coco",
            ".coco.json",
            coco.ENDINGS,
            "masks as run lengths, for programs that train networks",
            coco.save_coco,
            ("image",),
        ),
        Format(
            "sa1b",
            ".sa1b.json",
            coco.ENDINGS,
            "masks as run lengths, like the data set SA-1B, for training of SAM",
            coco.save_sa1b,
            ("image",),
            takes_stacks=False,
        ),
        Format(
            "svg",
            ".outlines.svg",
            svg.ENDINGS,
            "outlines as vector drawing, for figures",
            svg.save_svg,
            takes_stacks=False,
        ),
        Format(
            "png",
            ".outlines.png",
            picture.ENDINGS,
            "picture of the outlines, on the image if it is given, for slides",
            picture.save_outlines,
            _ALL,
            takes_stacks=False,
        ),
        Format(
            "csv",
            ".csv",
            (".csv",),
            "table of measurements and verdicts, for spreadsheets, R, pandas",
            _save_table,
            (*_ALL, "facts"),
        ),
        Format(
            "parquet",
            ".parquet",
            (".parquet",),
            "table of measurements, with full precision, for pandas, R, databases",
            _save_table,
            (*_ALL, "facts"),
            needs="pyarrow",
        ),
    )
}
"""All formats by name, in the order in which they are listed."""


def find_format(name: str) -> Format:
    """Find a format by its name.

    Raises
    ------
    InputError
        If there is none of this name.
    """
    if name not in FORMATS:
        raise InputError(f"format {name!r}; choose from {', '.join(FORMATS)}")
    return FORMATS[name]


def save_by_name(
    labels: ImageSource,
    path: Path,
    *,
    notes: Mapping[str, Any] | None = None,
    overwrite: bool = False,
) -> Path:
    """Save labels as OME-Zarr if the name ends in .zarr, else as OME-TIFF.

    Parameters
    ----------
    labels, path, notes, overwrite
        As in `save_labels` and `save_ome_zarr`, whose errors are raised.
    """
    is_zarr = path.suffix.lower() == ".zarr"
    save = ome_zarr.save_ome_zarr if is_zarr else tiff.save_labels
    return save(labels, path, notes=notes, overwrite=overwrite)
