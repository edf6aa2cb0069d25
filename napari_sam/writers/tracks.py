"""Tracks -> files and arrays: Cell Tracking Challenge, CSV, napari.

The challenge wants a folder of 16-bit masks ``mask000.tif``, ... and a text file
``res_track.txt`` with a line ``L B E P`` for each track: its label, first and last
frame, and parent (Ulman et al. 2017, Nature Methods 14:1141; celltrackingchallenge.net,
"Submission"). There a track has a mask in every frame from its first to its last: one
that is missing in between is written as two, the first the parent of the second.
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
    pieces = _Pieces(tracks)
    with atomic(folder, overwrite=overwrite) as part:
        part.mkdir()
        for t, frame in enumerate(labels):
            tifffile.imwrite(
                part / f"mask{t:03d}.tif",
                pieces.numbered(frame, t),
                compression="zlib",
                photometric="minisblack",
            )
        lines = [" ".join(map(str, row)) + "\n" for row in pieces.rows()]
        (part / "res_track.txt").write_text("".join(lines), encoding="ascii")
    return folder


class _Pieces:
    """Tracks, cut where they are missing in a frame."""

    def __init__(self, tracks: Sequence[TrackRow]) -> None:
        self._parents = {track.track_id: track.parent for track in tracks}
        self._last_number = max(self._parents, default=0)
        self._check()
        # of each piece its number, first and last frame, and the piece before it
        self._pieces: list[list[int]] = []
        self._newest: dict[int, list[int]] = {}

    def numbered(self, frame: NDArray[np.integer], t: int) -> NDArray[np.uint16]:
        """Return the next frame with the numbers of pieces."""
        ids = np.unique(frame[frame > 0]).tolist()
        strange = sorted({*ids} - {*self._parents})
        if strange:
            raise InputError(f"ids {strange} of frame {t} have no track")
        found = frame.astype(np.uint16)
        for track in ids:
            piece = self._piece(track, t)
            piece[2] = t
            if piece[0] != track:
                found[frame == track] = piece[0]
        return found

    def rows(self) -> list[list[int]]:
        """Return number, first and last frame, and parent of each piece."""
        return sorted(self._pieces)

    def _piece(self, track: int, t: int) -> list[int]:
        """Return the piece of a track that goes on in a frame, or begins there."""
        before = self._newest.get(track)
        if before is not None and before[2] >= t - 1:
            return before
        number, parent = track, 0
        if before is not None:
            self._last_number += 1
            self._check()
            number, parent = self._last_number, before[0]
        elif self._parents[track] in self._newest:
            parent = self._newest[self._parents[track]][0]
        self._newest[track] = [number, t, t, parent]
        self._pieces.append(self._newest[track])
        return self._newest[track]

    def _check(self) -> None:
        if self._last_number > _MOST_TRACKS:
            raise InputError(
                f"{self._last_number} tracks; this format holds {_MOST_TRACKS} at most"
            )


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
