"""Volumes and time-lapses: labels of single planes to objects of the whole stack.

Planes are segmented one by one (`napari_sam.engine.batch`), so that work can stop and
go on. Linking reads their labels plane by plane, twice: to measure overlaps, and to
give out the ids of objects where they are written. A few planes are held at a time,
whatever the number of planes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, overload

import numpy as np

from napari_sam.engine.batch import segment_file
from napari_sam.engine.files import ImageOptions, open_file, open_source
from napari_sam.engine.jobs import Job, Step, job
from napari_sam.errors import InputError
from napari_sam.images import ImageSource, find_intensity, read_rgb
from napari_sam.link import (
    LinkConfig,
    LinkedSlices,
    SliceLinker,
    TrackConfig,
    TrackedFrames,
    TrackLinker,
)
from napari_sam.readers import open_image
from napari_sam.writers.formats import save_by_name
from napari_sam.writers.objects import label_source, read_ids, stack_axes
from napari_sam.writers.tracks import save_ctc, save_tracks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_sam.cache import EmbeddingCache
    from napari_sam.engine.automatic import AutomaticConfig
    from napari_sam.engine.batch import CropWorkers, Report
    from napari_sam.engine.files import Outputs
    from napari_sam.images import Intensity
    from napari_sam.model import Sam

    ReadPlane = Callable[[int, int], NDArray[np.integer]]

Along = Literal["z", "t", "both"]


class Filled(NamedTuple):
    """A cross-section that was missing: it is the shape between its neighbours."""

    object_id: int
    t: int
    z: int


@dataclass(frozen=True, slots=True, eq=False)
class LinkedStack:
    """Labels of a stack with one id for each object.

    Parameters
    ----------
    labels : ImageSource
        Drawn plane by plane where it is read; `save_labels` takes it.
    n_objects : int
        Objects, or tracks, are numbered from 1 to this.
    tracks : TrackedFrames or None
        If objects were linked along time.
    filled : tuple of Filled
        Where gaps along z were closed; not told if tracks have given other ids.
    """

    labels: ImageSource
    n_objects: int
    tracks: TrackedFrames | None = None
    filled: tuple[Filled, ...] = ()


@dataclass(frozen=True, slots=True)
class LinkOptions:
    """How planes are linked, and what is written of it.

    Parameters
    ----------
    along : {"z", "t", "both"}
        The axis; "both" links the slices of each frame, then the frames.
    slices : LinkConfig
        Thresholds along z.
    tracks : TrackConfig
        Thresholds along time.
    ctc : bool, default False
        Also a folder for the Cell Tracking Challenge.
    """

    along: Along = "z"
    slices: LinkConfig = field(default_factory=LinkConfig)
    tracks: TrackConfig = field(default_factory=TrackConfig)
    ctc: bool = False

    def __post_init__(self) -> None:
        if self.along not in ("z", "t", "both"):
            raise InputError(f"along {self.along!r}; use 'z', 't' or 'both'")


class SeenImage(NamedTuple):
    """The image that labels were made from: its brightness tells bodies apart."""

    source: ImageSource
    intensity: Intensity

    def gray(self, t: int, z: int) -> NDArray[np.float64]:
        """Return the brightness of a plane, 0 to 255."""
        rgb = read_rgb(self.source, self.intensity, plane=(t, z))
        gray: NDArray[np.float64] = rgb.mean(axis=-1)
        return gray


def see_image(path: Path, options: ImageOptions) -> SeenImage:
    """Open the image that labels were made from.

    Parameters
    ----------
    path : Path
        Its file.
    options : ImageOptions
        How it is opened.

    Raises
    ------
    InputError, FormatError, FileError
        If it cannot be used.
    """
    source = open_source(path, options)
    channels = options.channels or None
    return SeenImage(source, find_intensity(source, channels=channels))


@job
def link_labels(
    labels: Any, options: LinkOptions | None = None, image: SeenImage | None = None
) -> Job[LinkedStack]:
    """Link the objects of planes.

    Parameters
    ----------
    labels : ImageSource, path or array
        Object ids of each plane, 0 is background; what `open_image` takes.
    options : LinkOptions, optional
        Axis and thresholds.
    image : SeenImage, optional
        What the labels were made from. Along z, bodies that touch are cut where it is
        dim between them.

    Yields
    ------
    Step
        After each plane.

    Returns
    -------
    LinkedStack
        Nothing has been drawn yet.

    Raises
    ------
    InputError
        If the labels have no such axis, are no integers, or an id is negative; if the
        image has another shape.
    """
    source, options = label_source(open_image(labels)), options or LinkOptions()
    _check(source, options)
    if image is not None and image.source.shape != source.shape:
        raise InputError(
            f"labels of {source.shape} and an image of {image.source.shape} (t, z, y, "
            "x); give the image that the labels were made from"
        )

    def read_plane(t: int, z: int) -> NDArray[np.integer]:
        return read_ids(source, plane=(t, z))

    read: ReadPlane = read_plane
    n_objects, tracks, filled = 0, None, tuple[Filled, ...]()
    if options.along != "t":
        linked = yield from _link_slices(source, read, options.slices, image)
        n_objects = sum(each.n_objects for each in linked)
        drawer = _SliceDrawer(read, linked)
        filled = drawer.filled if options.along == "z" else ()
        read = drawer
    if options.along != "z":
        tracks = yield from _link_frames(source, read, options.tracks)
        n_objects = len(tracks.tracks)
        read = _FrameDrawer(read, tracks)
    array = _DrawnLabels(source, read)
    drawn = ImageSource(
        array, array.axes, source.pixel_size_um, source.z_step_um, source.name
    )
    return LinkedStack(drawn, n_objects, tracks, filled)


@job
def link_file(
    path: Path,
    output: Path,
    options: LinkOptions | None = None,
    *,
    image: SeenImage | None = None,
    overwrite: bool = False,
) -> Job[LinkedStack]:
    """Link the planes of a label file, and write what comes out.

    Parameters
    ----------
    path : Path
        Labels of planes: TIFF or OME-Zarr.
    output : Path
        Where labels go, ending in .tif or .zarr. Tracks go beside it, to
        ``NAME.tracks.csv`` and, if asked for, the folder ``NAME_RES``.
    options : LinkOptions, optional
        Axis and thresholds.
    image : SeenImage, optional
        As in `link_labels`.
    overwrite : bool
        Replace existing files.

    Yields
    ------
    Step
        After each plane.

    Returns
    -------
    LinkedStack

    Raises
    ------
    InputError, FormatError, FileError
        If the labels cannot be used, or the files cannot be written.
    """
    options = options or LinkOptions()
    linked = yield from link_labels(path, options, image)
    n_planes = int(np.prod(linked.labels.shape[:2]))
    yield Step(n_planes, n_planes, "write labels")
    save_by_name(linked.labels, output, overwrite=overwrite)
    if linked.tracks is not None:
        stem = output.name.removesuffix(output.suffix).removesuffix(".linked")
        tracks = linked.tracks
        save_tracks(
            tracks.table,
            tracks.tracks,
            output.with_name(f"{stem}.tracks.csv"),
            overwrite=overwrite,
        )
        if options.ctc:
            save_ctc(
                _frames(linked.labels),
                tracks.tracks,
                output.with_name(f"{stem}_RES"),
                overwrite=overwrite,
            )
    return linked


@job
def segment_stack(  # noqa: PLR0913 - as `segment_file`, and how to link
    path: Path,
    outputs: Outputs,
    model: Sam,
    options: ImageOptions | None = None,
    config: AutomaticConfig | None = None,
    link: LinkOptions | None = None,
    *,
    weights: str = "",
    workers: CropWorkers | None = None,
    cache: EmbeddingCache | None = None,
) -> Job[Report]:
    """Find all objects of a stack: plane by plane, then linked.

    Parameters
    ----------
    path, outputs, model, options, config, weights, workers, cache
        As in `segment_file`. The labels of single planes stay where `outputs` says:
        linking them again with other thresholds takes seconds.
    link : LinkOptions, optional
        Axis and thresholds.

    Yields
    ------
    Step
        After each crop, and after each plane that is linked.

    Returns
    -------
    Report
        Its labels are ``NAME.linked.tif`` (or .zarr).

    Raises
    ------
    InputError, FormatError, FileError, DeviceError
        As `segment_file` and `link_file`.
    """
    # before the planes are segmented, which may take hours
    _check(open_source(path, options or ImageOptions()), link or LinkOptions())
    report = yield from segment_file(
        path,
        outputs,
        model,
        options,
        config,
        weights=weights,
        workers=workers,
        cache=cache,
    )
    labels = linked_name(outputs.labels)
    # a file of an earlier call is of these planes, or was made from others
    opened = open_file(path, model, options or ImageOptions())
    image = SeenImage(opened.source, opened.intensity)
    linked = yield from link_file(
        outputs.labels, labels, link, image=image, overwrite=True
    )
    return replace(
        report, n_objects=linked.n_objects, outputs=replace(outputs, labels=labels)
    )


def linked_name(labels: Path) -> Path:
    """Return where linked labels go, beside those of planes.

    Examples
    --------
    >>> from pathlib import Path
    >>> linked_name(Path("out/a.labels.tif")).as_posix()
    'out/a.linked.tif'
    """
    stem = labels.name.removesuffix(labels.suffix).removesuffix(".labels")
    return labels.with_name(f"{stem}.linked{labels.suffix}")


def _check(source: ImageSource, options: LinkOptions) -> None:
    needed = {"z": "Z", "t": "T", "both": "TZ"}[options.along]
    if not set(needed) <= set(source.axes):
        raise InputError(
            f"{source.name} has the axes {source.axes}; to link along "
            f"{options.along!r} it needs {' and '.join(needed)}. Say which axis is "
            "which where the file does not"
        )


def _link_slices(
    source: ImageSource, read: ReadPlane, config: LinkConfig, image: SeenImage | None
) -> Job[list[LinkedSlices]]:
    n_frames, n_slices = source.shape[:2]
    linked = []
    for t in range(n_frames):
        linker = SliceLinker(config)
        for z in range(n_slices):
            linker.add(read(t, z), None if image is None else image.gray(t, z))
            yield Step(t * n_slices + z + 1, n_frames * n_slices, "link slices")
        linked.append(linker.solve())
    return linked


def _link_frames(
    source: ImageSource, read: ReadPlane, config: TrackConfig
) -> Job[TrackedFrames]:
    n_frames, n_slices = source.shape[:2]
    size, step = source.pixel_size_um, source.z_step_um
    if config.spacing == TrackConfig().spacing and size is not None:
        z_step = size[1] if step is None else step
        config = replace(config, spacing=(z_step / size[1], size[0] / size[1], 1.0))
    linker = TrackLinker(config)
    for t in range(n_frames):
        linker.add(_Slices(read, t, n_slices))
        yield Step(t + 1, n_frames, "link frames")
    return linker.solve()


def _frames(labels: ImageSource) -> Iterator[NDArray[np.integer]]:
    n_frames, n_slices = labels.shape[:2]
    for t in range(n_frames):
        slices = [labels.read(plane=(t, z)) for z in range(n_slices)]
        yield np.stack(slices) if "Z" in labels.axes else slices[0]


class _SliceDrawer:
    """Planes with the ids of objects along z; unique over frames."""

    def __init__(self, read: ReadPlane, linked: Sequence[LinkedSlices]) -> None:
        self._read = read
        self._linked = linked
        counts = [each.n_objects for each in linked]
        self._offsets = np.cumsum([0, *counts]).tolist()

    @property
    def filled(self) -> tuple[Filled, ...]:
        """Where objects are drawn that were missing."""
        return tuple(
            Filled(claim.object_id + offset, t, z)
            for t, (linked, offset) in enumerate(
                zip(self._linked, self._offsets, strict=False)
            )
            for z, claims in sorted(linked.bridges.items())
            for claim in claims
        )

    def __call__(self, t: int, z: int) -> NDArray[np.integer]:
        labels = self._linked[t].plane(z, lambda at: self._read(t, at))
        labels[labels > 0] += np.uint32(self._offsets[t])
        return labels


class _FrameDrawer:
    """Planes with the ids of tracks."""

    def __init__(self, read: ReadPlane, tracks: TrackedFrames) -> None:
        self._read = read
        self._tracks = tracks

    def __call__(self, t: int, z: int) -> NDArray[np.integer]:
        return self._tracks.plane(self._read(t, z), t)


class _Slices(Sequence["NDArray[np.integer]"]):
    """The slices of a frame, read when they are asked for."""

    def __init__(self, read: ReadPlane, t: int, n_slices: int) -> None:
        self._read, self._t, self._n = read, t, n_slices

    def __len__(self) -> int:
        return self._n

    @overload
    def __getitem__(self, z: int) -> NDArray[np.integer]: ...
    @overload
    def __getitem__(self, z: slice) -> Sequence[NDArray[np.integer]]: ...
    def __getitem__(
        self, z: int | slice
    ) -> NDArray[np.integer] | Sequence[NDArray[np.integer]]:
        if isinstance(z, slice):
            return [self[i] for i in range(*z.indices(self._n))]
        if not 0 <= z < self._n:
            raise IndexError(z)  # iteration relies on it
        return self._read(self._t, z)


class _DrawnLabels:
    """An array of labels, of which the last plane drawn is held."""

    def __init__(self, source: ImageSource, read: ReadPlane) -> None:
        self.axes = stack_axes(source)
        lengths = dict(zip("TZYX", source.shape, strict=True))
        self.shape = tuple(lengths[axis] for axis in self.axes)
        self.dtype = np.dtype(np.uint32)
        self._read = read
        self._held: tuple[tuple[int, int], NDArray[np.integer]] | None = None

    def __getitem__(self, index: Any, /) -> NDArray[np.integer]:
        places = index if isinstance(index, tuple) else (index,)
        at = dict(zip(self.axes, places, strict=False))
        plane = (int(at.get("T", 0)), int(at.get("Z", 0)))
        if self._held is None or self._held[0] != plane:
            self._held = plane, self._read(*plane)
        region = (at.get("Y", slice(None)), at.get("X", slice(None)))
        drawn: NDArray[np.integer] = self._held[1][region]
        return drawn
