"""What napari finds in the manifest besides the dock: samples, reader, writers.

The reader hands images over as they lie on disk: each resolution level one lazy dask
array, of which a view reads what it shows. Dask is used here, and only here, because
napari needs arrays that it can slice, transpose and reduce. Its chunks span many of the
file's, for the cost of its graph grows with their number and it reads parts of them.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np

from napari_sam import samples
from napari_sam.engine.records import RECORDS, as_notes, facts_of, from_notes
from napari_sam.errors import NapariSamWarning
from napari_sam.images import find_intensity
from napari_sam.readers import list_images, list_levels, open_image
from napari_sam.readers.notes import read_notes
from napari_sam.readers.stored import pixel_size_um
from napari_sam.writers.formats import FORMATS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from napari_sam.images import ImageSource

LayerData: TypeAlias = "tuple[Any, dict[str, Any], Literal['image', 'labels']]"

_CHUNK = 2048  # pixels a side; a few hundred chunks for the largest slides
_LARGEST_PLANE = 8192  # pixels a side; above, napari needs smaller levels to be fluid
_SMALLEST_LEVEL = 1024
_IN_MEMORY_BYTES = 2**26

_COLORMAPS = {2: ("magenta", "green"), 3: ("red", "green", "blue")}


def histology_sample() -> list[LayerData]:
    """Return the histology section of scikit-image."""
    return [(samples.histology(), {"name": "histology", "rgb": True}, "image")]


def mosaic_sample() -> list[LayerData]:
    """Return the mosaic of 20,480 x 20,480 px, level by level."""
    options = {"name": "large mosaic", "rgb": True, "multiscale": True}
    return [(samples.mosaic(), options, "image")]


def volume_sample() -> list[LayerData]:
    """Return drawn nuclei in a stack with the size of its voxels."""
    options = {
        "name": "nuclei (z, y, x)",
        "scale": samples.VOXEL_SIZE_UM,
        "units": ("um",) * 3,
        "axis_labels": ("z", "y", "x"),
    }
    return [(samples.volume().image, options, "image")]


def time_lapse_sample() -> list[LayerData]:
    """Return drawn cells that drift, frame by frame."""
    size = samples.PIXEL_SIZE_UM
    options = {
        "name": "cells (t, y, x)",
        "scale": (1, size, size),
        "units": ("pixel", "um", "um"),
        "axis_labels": ("t", "y", "x"),
    }
    return [(samples.time_lapse().image, options, "image")]


def get_reader(
    path: str | Sequence[str],
) -> Callable[[str | Sequence[str]], list[LayerData]] | None:
    """Tell napari whether this reader takes a file.

    Parameters
    ----------
    path : str or sequence of str
        What the user opens; several files at once are left to napari.

    Returns
    -------
    callable or None
        `read_layers`.
    """
    return read_layers if isinstance(path, str) else None


def read_layers(path: str | Sequence[str]) -> list[LayerData]:
    """Open TIFF, Zarr and OME-Zarr as layers, lazily where they are large.

    Parameters
    ----------
    path : str
        A file, or the folder of a Zarr.

    Returns
    -------
    list of (data, options, "image" or "labels")
        One image for each channel, then the labels that an OME-Zarr holds. A label
        file that says how its objects were made is one layer of labels.

    Raises
    ------
    NapariSamError
        If the file is damaged, or of a format that is not known.
    """
    file = Path(str(path))
    records = from_notes(read_notes(file))
    if records:  # objects of ours, and not an image
        options = {"name": file.name.split(".")[0], "metadata": {RECORDS: records}}
        return [_layer(_levels(file, None), None, options, "labels")]
    layers = _image_layers(file)
    if (file / "labels").is_dir():
        for name in list_images(file / "labels"):
            levels = _levels(file / "labels", name)
            records = from_notes(read_notes(file / "labels" / name))
            options = {"name": name, "metadata": {RECORDS: records}}
            layers.append(_layer(levels, None, options, "labels"))
    return layers


def _image_layers(file: Path) -> list[LayerData]:
    levels = _levels(file, None)
    source = levels[0]
    if source.is_rgb:
        return [_layer(levels, None, {"name": source.name, "rgb": True}, "image")]
    limits = _limits(source)
    if "C" not in source.axes:
        options = {"name": source.name, **limits[0]}
        return [_layer(levels, None, options, "image")]
    names = source.channel_names or [str(i) for i in range(source.n_channels)]
    colours = _COLORMAPS.get(len(names), ("gray",) * len(names))
    return [
        _layer(
            levels,
            i,
            {
                "name": f"{source.name} {name}",
                "colormap": colours[i],
                "blending": "additive",
                **limits[i],
            },
            "image",
        )
        for i, name in enumerate(names)
    ]


def _limits(source: ImageSource) -> list[dict[str, Any]]:
    """Contrast limits of each channel, found in a sample of the image."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NapariSamWarning)  # constant: nothing to see
        intensity = find_intensity(source)
    return [{"contrast_limits": pair} for pair in intensity.limits]


def _levels(file: Path, image: str | None) -> list[ImageSource]:
    n_levels = len(list_levels(file, image=image))
    with warnings.catch_warnings():
        # several images: said once, at the first level
        warnings.simplefilter("once", NapariSamWarning)
        return [open_image(file, image=image, level=i) for i in range(n_levels)]


def _layer(
    levels: list[ImageSource],
    channel: int | None,
    options: dict[str, Any],
    kind: Literal["image", "labels"],
) -> LayerData:
    """Make a layer of one channel, with axes in napari's order."""
    source = levels[0]
    arrays = [_dask_array(level, channel) for level in levels]
    if len(arrays) == 1:
        arrays += _thinned(arrays[0], is_rgb=source.is_rgb)
    if arrays[0].nbytes <= _IN_MEMORY_BYTES:
        data: Any = arrays[0].compute()
    elif len(arrays) == 1:
        data = arrays[0]
    else:
        data, options = arrays, options | {"multiscale": True}
    return data, options | _geometry(source), kind


def _dask_array(source: ImageSource, channel: int | None) -> Any:
    """Wrap an image's array; its pixels are read when a part is computed."""
    import dask.array as da

    axes = source.axes
    shape = source.array.shape
    own = getattr(source.array, "chunks", shape)
    # whole chunks of the file, so that none is read twice
    chunks = [
        max(1, _CHUNK // size) * size if axis in "YX" else size
        for axis, size in zip(axes, own, strict=True)
    ]
    meta = np.empty((0,) * len(shape), source.array.dtype)
    wrap: Callable[..., Any] = da.from_array  # it has no types
    array = wrap(source.array, chunks=chunks, asarray=False, meta=meta)
    if "C" in axes:
        array = array[(*[slice(None)] * axes.index("C"), channel or 0)]
        axes = axes.replace("C", "")
    order = [axes.index(axis) for axis in "TZYXS" if axis in axes]
    if order != sorted(order):  # a step between would keep parts from being read
        array = array.transpose(order)
    if "S" in axes and not source.is_rgb:
        return array[..., 0]
    return array


def _thinned(array: Any, *, is_rgb: bool) -> list[Any]:
    """Make smaller levels of an image without any, by leaving out rows and columns."""
    step, found = 2, []
    at = slice(-3, -1) if is_rgb else slice(-2, None)
    longest = max(array.shape[at])
    if longest <= _LARGEST_PLANE:
        return []
    while longest / step >= _SMALLEST_LEVEL:
        thin = slice(None, None, step)
        found.append(array[..., thin, thin, :] if is_rgb else array[..., thin, thin])
        step *= 2
    return found


def _geometry(source: ImageSource) -> dict[str, Any]:
    """Axes, and the pixel size in micrometres where it is known."""
    axes = [axis for axis in "TZYX" if axis in source.axes]
    found: dict[str, Any] = {"axis_labels": tuple(axis.lower() for axis in axes)}
    if source.pixel_size_um is not None:
        sizes = dict(zip("YX", source.pixel_size_um, strict=True))
        sizes["Z"] = source.z_step_um or 1.0
        known = {"Y", "X"} | ({"Z"} if source.z_step_um else set())
        found["scale"] = tuple(sizes.get(axis, 1.0) for axis in axes)
        found["units"] = tuple("um" if axis in known else "pixel" for axis in axes)
    return found


def write_labels(path: str, data: Any, attributes: dict[str, Any]) -> list[str]:
    """Save a Labels layer; the name's ending chooses the format.

    Parameters
    ----------
    path : str
        Where to write; napari has asked before a file is replaced.
    data : array, or list of arrays
        The labels, or the levels of multiscale labels.
    attributes : dict
        The layer's own; scale and units are taken from here.

    Returns
    -------
    list of str
        The file that was written; empty if napari shall look for another writer.
    """
    labels = data[0] if attributes.get("multiscale") else data
    size = pixel_size_um(attributes.get("scale", ()), attributes.get("units"))
    name = Path(path).name.lower()
    records = attributes.get("metadata", {}).get(RECORDS, {})
    for chosen in FORMATS.values():
        if name.endswith(chosen.endings):
            written = chosen.write(
                labels,
                path,
                pixel_size_um=size,
                notes=as_notes(records.values()),
                facts=facts_of(records.values()),
                overwrite=True,
            )
            return [str(written)]
    return []
