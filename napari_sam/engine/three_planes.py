"""Near-isotropic volumes seen three ways: XY, XZ and YZ planes, fused by agreement.

What is cut in two in one direction is often whole in another, and noise is rarely the
same in three. It costs three times as much, and says where the three disagree.

Planes along z are stretched so that their pixels are square, by the distance of slices
that the file tells; the labels are taken back to the slices.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import zarr

from napari_sam.engine.automatic import segment
from napari_sam.engine.batch import Report
from napari_sam.engine.files import ImageOptions, check_free, open_file
from napari_sam.engine.jobs import Job, Step, job, with_step
from napari_sam.engine.volume import LinkOptions, SeenImage, link_labels
from napari_sam.errors import InputError
from napari_sam.images import ImageSource, Intensity, find_intensity, read_rgb
from napari_sam.images.scale import stack_size_um
from napari_sam.link.fuse import FusedViews, fuse_views
from napari_sam.readers import open_image
from napari_sam.tiling import Box
from napari_sam.writers.atomic import make_folder
from napari_sam.writers.formats import save_by_name
from napari_sam.writers.tiff import save_scores

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_sam.engine.automatic import AutomaticConfig
    from napari_sam.engine.files import Outputs
    from napari_sam.link import LinkConfig
    from napari_sam.model import Sam
    from napari_sam.tiling import CropGrid

Cut = Literal["xy", "xz", "yz"]

_THICK = 32  # rows or columns read at a time, so that a slice is not read for each
_MAX_STRETCH = 8.0  # slices farther apart show other planes' objects poorly (ours)
_COLOURS = Intensity((0, 1, 2), ((0.0, 255.0),) * 3)


class CutPlanes(NamedTuple):
    """The planes of a volume in one direction, ready to be segmented."""

    cut: Cut
    source: ImageSource
    intensity: Intensity
    grid: CropGrid | None


class Resliced:
    """Planes of a volume across its slices, as 8-bit RGB with square pixels.

    Parameters
    ----------
    source : ImageSource
        A volume, of one frame.
    intensity : Intensity
        How pixels become RGB.
    cut : {"xz", "yz"}
        XZ planes follow each other along y, YZ planes along x; rows are z.
    stretch : float
        Distance of slices in pixels.
    """

    def __init__(
        self,
        source: ImageSource,
        intensity: Intensity,
        cut: Cut,
        stretch: float,
    ) -> None:
        self._source, self._intensity, self._cut = source, intensity, cut
        n_slices, (height, width) = source.shape[1], source.plane_shape
        rows = max(1, round(n_slices * stretch))
        n, across = (height, width) if cut == "xz" else (width, height)
        self.shape = (n, rows, across, 3)
        self.dtype = np.dtype(np.uint8)
        self._held: tuple[int, NDArray[np.uint8]] | None = None

    def __getitem__(self, key: tuple[Any, ...]) -> NDArray[np.uint8]:
        slab, inside = divmod(int(key[0]), _THICK)
        if self._held is None or self._held[0] != slab:
            self._held = slab, self._read(slab)
        plane: NDArray[np.uint8] = _stretched(self._held[1][:, inside], self.shape[1])
        part: NDArray[np.uint8] = plane[key[1:]]
        return part

    def _read(self, slab: int) -> NDArray[np.uint8]:
        """Read some planes: (Z, n, across, 3)."""
        first, last = slab * _THICK, min((slab + 1) * _THICK, self.shape[0])
        height, width = self._source.plane_shape
        is_xz = self._cut == "xz"
        box = Box(first, 0, last, width) if is_xz else Box(0, first, height, last)
        slices = [
            read_rgb(self._source, self._intensity, box, (0, z))
            for z in range(self._source.shape[1])
        ]
        read = np.stack(slices)
        return read if is_xz else read.swapaxes(1, 2)


@job
def segment_three_planes(  # noqa: PLR0913 - as `segment`, and how to link and fuse
    image: Any,
    model: Sam,
    *,
    t: int = 0,
    spacing: tuple[float, float, float] | None = None,
    grid: CropGrid | None = None,
    intensity: Intensity | None = None,
    config: AutomaticConfig | None = None,
    link: LinkConfig | None = None,
    min_iou: float = 0.3,
) -> Job[FusedViews]:
    """Find all objects of a volume in its XY, XZ and YZ planes, and fuse them.

    Parameters
    ----------
    image : ImageSource, path or array
        A volume; what `open_image` takes.
    model : Sam
        From `load_model`.
    t : int
        The frame.
    spacing : tuple of float, optional
        Distance of voxels along z, y, x, in any unit. Default: from the image; equal
        where it does not say.
    grid : CropGrid, optional
        How XY planes are cut and scaled; the others are scaled alike.
    intensity : Intensity, optional
        How pixels become 8-bit RGB. Default: from `find_intensity`.
    config : AutomaticConfig, optional
        How objects of planes are found.
    link : LinkConfig, optional
        How planes are linked, in each of the three directions.
    min_iou : float, default 0.3
        As in `fuse_views`.

    Yields
    ------
    Step
        As `segment` and `link_labels`, one direction after the other.

    Returns
    -------
    FusedViews
        With ``labels()`` and ``uncertainty()``.

    Raises
    ------
    InputError
        If the image is no volume, or its slices are far apart.
    DeviceError
        If the device runs out of memory.
    """
    source = open_image(image).at((t, None))
    views: list[Any] = []
    for cut, planes, colours, crops in cut_planes(source, intensity, grid, spacing):
        n = planes.shape[1]
        found = _labels_like((n, *planes.plane_shape))
        for i in range(n):
            steps = segment(
                planes,
                model,
                grid=crops,
                plane=(0, i),
                intensity=colours,
                config=config,
            )
            step = Step(i, n, f"{cut} planes")
            found[i] = np.asarray((yield from with_step(step, steps)))
            yield replace(step, done=i + 1)
        options = LinkOptions("z") if link is None else LinkOptions("z", link)
        seen = SeenImage(planes, colours)
        linked = yield from link_labels(ImageSource(found, "ZYX"), options, seen)
        view = _labels_like((source.shape[1], *source.plane_shape))
        _put(view, linked.labels.array, cut)
        views.append(view)
    return fuse_views(views, min_iou=min_iou)


def cut_planes(
    source: ImageSource,
    intensity: Intensity | None = None,
    grid: CropGrid | None = None,
    spacing: tuple[float, float, float] | None = None,
) -> list[CutPlanes]:
    """Cut a volume in its three directions; nothing is read before it is needed.

    Parameters
    ----------
    source : ImageSource
        A volume; of several frames the first.
    intensity, grid, spacing
        As in `segment_three_planes`.

    Raises
    ------
    InputError
        If the image is no volume, or its slices are far apart.
    """
    thick_xz, thick_yz = _stretches(source, spacing)
    intensity = intensity or find_intensity(source)
    cuts = [CutPlanes("xy", source, intensity, grid)]
    across: tuple[tuple[Cut, float], ...] = (("xz", thick_xz), ("yz", thick_yz))
    for cut, stretch in across:
        planes = Resliced(source, intensity, cut, stretch)
        resliced = ImageSource(planes, "ZYXS", name=source.name)
        its = None if grid is None else replace(grid, shape=resliced.plane_shape)
        cuts.append(CutPlanes(cut, resliced, _COLOURS, its))
    return cuts


@job
def three_planes_file(
    path: Path,
    outputs: Outputs,
    model: Sam,
    options: ImageOptions | None = None,
    config: AutomaticConfig | None = None,
) -> Job[Report]:
    """Segment a volume file in three directions; write labels and uncertainty.

    Parameters
    ----------
    path : Path
        The image file.
    outputs : Outputs
        Where the labels go; beside them ``NAME.uncertainty.tif``.
    model : Sam
        From `load_model`.
    options : ImageOptions, optional
        How the file is opened; the frame of ``plane`` is used.
    config : AutomaticConfig, optional
        How objects of planes are found.

    Yields
    ------
    Step
        As `segment_three_planes`.

    Returns
    -------
    Report

    Raises
    ------
    InputError, FormatError, FileError, DeviceError
        If the image cannot be used, or the files cannot be written.
    """
    start = time.perf_counter()
    opened = open_file(path, model, options or ImageOptions())
    check_free(outputs)
    uncertainty = uncertainty_name(outputs.labels)
    check_free(replace(outputs, labels=uncertainty))
    source = opened.source
    frame = 0 if opened.plane is None else opened.plane[0]
    fused = yield from segment_three_planes(
        source,
        model,
        t=frame,
        grid=opened.grid,
        intensity=opened.intensity,
        config=config,
    )
    make_folder(outputs.labels.parent)
    labels = ImageSource(
        fused.labels(), "ZYX", source.pixel_size_um, source.z_step_um, source.name
    )
    save_by_name(labels, outputs.labels, overwrite=outputs.overwrite)
    save_scores(
        fused.uncertainty(),
        uncertainty,
        pixel_size_um=stack_size_um(labels),
        overwrite=outputs.overwrite,
    )
    seconds = time.perf_counter() - start
    return Report(path, fused.n_objects, seconds, outputs)


def uncertainty_name(labels: Path) -> Path:
    """Return where the uncertainty goes, beside the labels.

    Examples
    --------
    >>> from pathlib import Path
    >>> uncertainty_name(Path("out/a.labels.tif")).as_posix()
    'out/a.uncertainty.tif'
    """
    stem = labels.name.removesuffix(labels.suffix).removesuffix(".labels")
    return labels.with_name(f"{stem}.uncertainty.tif")


def _stretches(
    source: ImageSource, spacing: tuple[float, float, float] | None
) -> tuple[float, float]:
    """Return how many pixels a slice is thick in XZ and YZ planes."""
    if source.shape[1] < 2:
        raise InputError(
            f"{source.name} has the axes {source.axes} and one slice; three planes "
            "need a volume. Say which axis is Z where the file does not"
        )
    size = source.pixel_size_um
    if spacing is None:
        spacing = (1.0, 1.0, 1.0)
        if size is not None and source.z_step_um is not None:
            spacing = (source.z_step_um, *size)
    z, y, x = spacing
    if min(spacing) <= 0 or not 1 / _MAX_STRETCH <= z / x <= _MAX_STRETCH:
        raise InputError(
            f"voxels of {z:g} x {y:g} x {x:g}; three planes need slices that are not "
            f"more than {_MAX_STRETCH:g} pixels apart. Link the planes along z instead"
        )
    return z / x, z / y


def _stretched(plane: NDArray[np.uint8], n_rows: int) -> NDArray[np.uint8]:
    """Scale the rows of a plane (Z, across, 3), linearly between slices."""
    n = len(plane)
    at = ((np.arange(n_rows) + 0.5) * n / n_rows - 0.5).clip(0, n - 1)
    below = np.minimum(at.astype(int), n - 1)
    share = (at - below)[:, None, None]
    above = plane[np.minimum(below + 1, n - 1)]
    mixed: NDArray[np.uint8] = np.rint(
        plane[below] * (1 - share) + above * share
    ).astype(np.uint8)
    return mixed


def _put(view: Any, planes: Any, cut: Cut) -> None:
    """Write planes of labels, (n, rows, across), to a volume (Z, Y, X)."""
    n, n_rows = planes.shape[:2]
    n_slices = view.shape[0]
    rows = ((np.arange(n_slices) + 0.5) * n_rows / n_slices).astype(int)
    for first in range(0, n, _THICK):
        last = min(first + _THICK, n)
        slab = np.stack([np.asarray(planes[i, :, :]) for i in range(first, last)])
        if cut == "xy":
            view[first:last] = slab
        elif cut == "xz":
            view[:, first:last] = slab[:, rows].swapaxes(0, 1)
        else:
            view[:, :, first:last] = slab[:, rows].transpose(1, 2, 0)


def _labels_like(shape: tuple[int, ...]) -> Any:
    """Make labels of a volume, compressed in memory."""
    chunks = tuple(min(n, side) for n, side in zip(shape, (8, 256, 256), strict=True))
    return zarr.create_array(
        zarr.storage.MemoryStore(), shape=shape, chunks=chunks, dtype="uint32"
    )
