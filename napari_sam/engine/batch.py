"""Image files to label files: what the command line does for each of them.

`segment_file` is a job on one image; whoever calls it decides what the failure of one
image means for the others.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from napari_sam.engine.automatic import segment
from napari_sam.engine.files import (
    ImageOptions,
    check_free,
    check_overlay,
    open_file,
    write,
)
from napari_sam.engine.jobs import Job, job

if TYPE_CHECKING:
    from pathlib import Path

    from napari_sam.engine.automatic import AutomaticConfig
    from napari_sam.engine.files import Outputs
    from napari_sam.model import Sam


@dataclass(frozen=True, slots=True)
class Report:
    """What became of one image.

    Parameters
    ----------
    image : Path
        The file.
    n_objects : int
        How many objects the labels hold.
    seconds : float
        From opening the image to the last file written.
    outputs : Outputs
        The files.
    """

    image: Path
    n_objects: int
    seconds: float
    outputs: Outputs


@job
def segment_file(
    path: Path,
    outputs: Outputs,
    model: Sam,
    options: ImageOptions | None = None,
    config: AutomaticConfig | None = None,
) -> Job[Report]:
    """Find all objects of an image file and write them.

    Parameters
    ----------
    path : Path
        The image file.
    outputs : Outputs
        From `plan_outputs`.
    model : Sam
        From `load_model`.
    options : ImageOptions, optional
        How the file is opened.
    config : AutomaticConfig, optional
        Mode and thresholds.

    Yields
    ------
    Step
        As in `segment`.

    Returns
    -------
    Report

    Raises
    ------
    InputError, FormatError, FileError
        If the image cannot be used, or the files cannot be written.
    DeviceError
        If the device runs out of memory.
    """
    start = time.perf_counter()
    check_free(outputs)
    opened = open_file(path, model, options or ImageOptions())
    check_overlay(opened, outputs)
    found = yield from segment(
        opened.source,
        model,
        grid=opened.grid,
        plane=opened.plane,
        intensity=opened.intensity,
        config=config,
    )
    write(opened, found.labels, outputs, found.scores())
    return Report(path, found.n_objects, time.perf_counter() - start, outputs)
