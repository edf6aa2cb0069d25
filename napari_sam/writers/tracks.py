"""Tracks -> files and arrays: Cell Tracking Challenge, CSV, napari.

The challenge wants a folder of 16-bit masks ``mask000.tif``, ... and a text file
``res_track.txt`` with a line ``L B E P`` for each track: its label, first and last
frame, and parent (Ulman et al. 2017, Nature Methods 14:1141; celltrackingchallenge.net,
"Submission"). A track may be missing in frames between its first and its last.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import tifffile

from napari_sam.errors import InputError
from napari_sam.writers.atomic import atomic
from napari_sam.writers.measurements import save_measurements

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray

_MOST_TRACKS = np.iinfo(np.uint16).max


class TrackRow(Protocol):
    """What a track has to tell: `napari_sam.link.Track` does."""

    @property
    def track_id(self) -> int:
        """From 1."""

    @property
    def first(self) -> int:
        """First frame, from 0."""

    @property
    def last(self) -> int:
        """Last frame."""

    @property
    def parent(self) -> int:
        """The track that divided into this one; 0 if none."""


def save_ctc(
    labels: Iterable[NDArray[np.integer]],
    tracks: Sequence[TrackRow],
    folder: str | os.PathLike[str],
    *,
    overwrite: bool = False,
) -> Path:
    """Save a tracked time-lapse as the Cell Tracking Challenge wants it.

    Parameters
    ----------
    labels : iterable of (H, W) or (Z, H, W) arrays of integers
        Frame by frame; the id of an object is that of its track.
    tracks : sequence of Track
        One for each id.
    folder : path
        Made here; ``01_RES`` is the name that the challenge expects.
    overwrite : bool
        Replace an existing folder.

    Returns
    -------
    Path
        The folder. It appears under its name when it is complete.

    Raises
    ------
    InputError
        If there are more than 65535 tracks, or an id without track.
    FileError
        If the folder exists already or cannot be written, or there is none to hold it.
    """
    folder = Path(folder).expanduser()
    most = max((track.track_id for track in tracks), default=0)
    if most > _MOST_TRACKS:
        raise InputError(f"{most} tracks; this format holds {_MOST_TRACKS} at most")
    known = [0, *(track.track_id for track in tracks)]
    with atomic(folder, overwrite=overwrite) as part:
        part.mkdir()
        for t, frame in enumerate(labels):
            strange = np.setdiff1d(frame, known)
            if strange.size:
                raise InputError(f"ids {strange.tolist()} of frame {t} have no track")
            tifffile.imwrite(
                part / f"mask{t:03d}.tif",
                frame.astype(np.uint16),
                compression="zlib",
                photometric="minisblack",
            )
        lines = [f"{t.track_id} {t.first} {t.last} {t.parent}\n" for t in tracks]
        (part / "res_track.txt").write_text("".join(lines), encoding="ascii")
    return folder


def save_tracks(
    table: Mapping[str, NDArray[Any]],
    tracks: Sequence[TrackRow],
    path: str | os.PathLike[str],
    *,
    overwrite: bool = False,
) -> Path:
    """Save tracks as CSV, a row for each object of each frame.

    Parameters
    ----------
    table : mapping of str to (N,) array
        ``track``, ``frame`` and others, as `TrackedFrames.table`.
    tracks : sequence of Track
        Give the column ``parent``.
    path : path
        Where to write, ending in .csv.
    overwrite : bool
        Replace an existing file.

    Returns
    -------
    Path

    Raises
    ------
    FileError
        If the file exists already or cannot be written.
    """
    order = np.lexsort((table["frame"], table["track"]))
    rows = {name: np.asarray(column)[order] for name, column in table.items()}
    parents = {track.track_id: track.parent for track in tracks}
    parent = np.array([parents[t] for t in rows["track"].tolist()], np.int64)
    return save_measurements(rows | {"parent": parent}, path, overwrite=overwrite)


def napari_tracks(
    table: Mapping[str, NDArray[Any]], tracks: Sequence[TrackRow]
) -> tuple[NDArray[np.float64], dict[int, list[int]]]:
    """Return what a napari Tracks layer takes.

    Parameters
    ----------
    table : mapping of str to (N,) array
        As `TrackedFrames.table`.
    tracks : sequence of Track

    Returns
    -------
    data : (N, 5) float64 array, track, frame, z, y, x
        Sorted by track, then frame.
    graph : dict of int to list of int
        The parents of each track that has some.
    """
    names = ("track", "frame", "z", "y", "x")
    data = np.stack([np.asarray(table[name], np.float64) for name in names], axis=1)
    order = np.lexsort((table["frame"], table["track"]))
    return data[order], {t.track_id: [t.parent] for t in tracks if t.parent}
