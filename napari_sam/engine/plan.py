"""How much work images are, before any of it is done."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from napari_sam.engine.automatic import find_views
from napari_sam.engine.embed import default_grid
from napari_sam.engine.files import ImageOptions, Outputs, open_file
from napari_sam.engine.jobs import Step, run
from napari_sam.engine.manifest import Manifest
from napari_sam.engine.recipe import Recipe
from napari_sam.engine.three_planes import cut_planes

if TYPE_CHECKING:
    from pathlib import Path

    from napari_sam.engine.automatic import AutomaticConfig
    from napari_sam.engine.files import OpenedFile
    from napari_sam.model import Sam


@dataclass(frozen=True, slots=True)
class PlannedImage:
    """What an image will cost.

    Parameters
    ----------
    path : Path
        The file.
    shape : tuple of int
        (frames, slices, height, width).
    n_planes : int
        Planes that are used.
    n_crops : int
        Crops of all of them.
    n_left : int
        Crops that an earlier run with the same settings has not done.
    pixel_bytes : int
        What is read, before compression.
    label_bytes : int
        What the labels hold; compressed they are a few percent of it.
    """

    path: Path
    shape: tuple[int, int, int, int]
    n_planes: int
    n_crops: int
    n_left: int
    pixel_bytes: int
    label_bytes: int


def plan_image(
    path: Path,
    outputs: Outputs,
    model: Sam,
    options: ImageOptions,
    config: AutomaticConfig,
    *,
    three_planes: bool = False,
) -> PlannedImage:
    """Find out what an image will cost; nothing is encoded or written.

    Parameters
    ----------
    path : Path
        The image file.
    outputs : Outputs
        Where results are to be, and perhaps are in part.
    model : Sam
        The network.
    options : ImageOptions
        How the file is opened.
    config : AutomaticConfig
        Mode and thresholds.
    three_planes : bool, default False
        Cut a volume in its three directions. Such work does not go on where it was.

    Raises
    ------
    InputError
        If an image to be cut in three directions is no volume.
    """
    opened = open_file(path, model, options)
    if three_planes:
        return _plan_three_planes(opened, path, model)
    source, planes = opened.source, opened.planes
    grid = opened.grid or default_grid(source, model)
    n_crops = len(grid) * len(planes)
    earlier = Manifest.read(outputs.manifest)
    key = Recipe.of(opened, model, config, model.name).key
    n_done = 0
    if earlier is not None and earlier.key == key:
        is_once_more = outputs.overwrite and earlier.is_complete
        n_done = 0 if is_once_more else len(earlier.records) - len(earlier.failed)
    n_pixels = source.plane_shape[0] * source.plane_shape[1] * len(planes)
    n_read = math.prod(source.level(source.level_for(grid[0].scale)).plane_shape)
    item_bytes = np.dtype(source.array.dtype).itemsize
    n_channels = len(opened.intensity.channels)
    return PlannedImage(
        path=path,
        shape=source.shape,
        n_planes=len(planes),
        n_crops=n_crops,
        n_left=n_crops - n_done,
        pixel_bytes=n_read * len(planes) * item_bytes * n_channels,
        label_bytes=n_pixels * np.dtype(np.uint32).itemsize,
    )


def time_crop(
    path: Path, model: Sam, options: ImageOptions, config: AutomaticConfig
) -> float:
    """Measure how long a crop takes on this machine, now.

    Parameters
    ----------
    path, model, options, config
        As in `plan_image`.

    Returns
    -------
    float
        Seconds for the crop in the middle of the first plane, once the network is
        warm. It is worked on, background or not.
    """
    opened = open_file(path, model, options)
    every = replace(config, skip_background=False)
    seconds = []
    for _ in range(2):
        embedding = opened.embedding(model, opened.planes[0])
        crop = embedding.grid[len(embedding.grid) // 2]
        start = time.perf_counter()
        run(find_views(embedding, crop, every, Step(0, 1, "probe")), progress=False)
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def _plan_three_planes(opened: OpenedFile, path: Path, model: Sam) -> PlannedImage:
    source = opened.source
    cuts = cut_planes(source, opened.intensity, opened.grid)
    n_crops = sum(
        each.source.shape[1] * len(each.grid or default_grid(each.source, model))
        for each in cuts
    )
    n_voxels = math.prod(source.shape[1:])
    item_bytes = np.dtype(source.array.dtype).itemsize * len(opened.intensity.channels)
    return PlannedImage(
        path=path,
        shape=source.shape,
        n_planes=sum(each.source.shape[1] for each in cuts),
        n_crops=n_crops,
        n_left=n_crops,
        pixel_bytes=len(cuts) * n_voxels * item_bytes,
        label_bytes=n_voxels * np.dtype(np.uint32).itemsize,
    )
