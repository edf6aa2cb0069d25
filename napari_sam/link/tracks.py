"""Objects of frames to tracks: motion, divisions, gaps.

All links are chosen at once, as along z (`best_pairs`). What speaks for a link is
overlap and nearness to where the object is expected, and both add up. Expectation
comes from the links on either side, so links are chosen a few times over; forwards
and backwards in time are alike. Divisions are found last, among objects that begin
beside one that became smaller (two steps, as in Jaqaman et al. 2008, Nature Methods
5:695). A tracking package was rejected: the assignment is one call of SciPy, and the
lightest brings pandas and scikit-learn along.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.spatial import KDTree

from napari_sam.errors import InputError
from napari_sam.link.matching import best_pairs, chains, evidence
from napari_sam.link.regions import measure_regions, overlap_score, shared_pixels

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

    from napari_sam.link.regions import Regions

# Each round knows the motion that the round before found; more change nothing (ours).
_ROUNDS = 3
_GAP_DISCOUNT = 0.5

# Objects of a frame of which the common motion is found: it takes all pairs of their
# possible displacements (ours).
_DRIFT_SAMPLE = 1000

# A mother loses pixels to each daughter, but swells and shrinks meanwhile (ours).
_DAUGHTER_OF_MOTHER = 0.85
_DAUGHTERS_OF_MOTHER = (0.5, 1.8)


@dataclass(frozen=True, slots=True)
class TrackConfig:
    """How objects of frames are linked.

    Parameters
    ----------
    max_distance : float, optional
        Farthest an object moves beside its expected place in one frame, in pixels.
        Default: three times its own radius.
    max_gap : int, default 1
        Frames that an object may be missing in.
    min_score : float, default 0.05
        Least score of a link, 0 to 1.
    divisions : bool, default True
        Whether an object may become two.
    min_daughter : float, default 0.5
        Least size of the smaller daughter, as share of the larger.
    spacing : tuple of float, default (1, 1, 1)
        Size of a voxel, (z, y, x), in pixels: a slice step of three pixels is
        (3, 1, 1).

    Raises
    ------
    InputError
        If a value is out of its range.
    """

    max_distance: float | None = None
    max_gap: int = 1
    min_score: float = 0.05
    divisions: bool = True
    min_daughter: float = 0.5
    spacing: tuple[float, float, float] = (1.0, 1.0, 1.0)

    def __post_init__(self) -> None:
        if self.max_distance is not None and not self.max_distance > 0:
            raise InputError(f"max_distance {self.max_distance} px; give more than 0")
        if self.max_gap < 0:
            raise InputError(f"max_gap {self.max_gap} frames; give 0 or more")
        for name in ("min_score", "min_daughter"):
            value = getattr(self, name)
            if not 0 < value < 1:
                raise InputError(f"{name} {value}; give a share between 0 and 1")
        if min(self.spacing) <= 0:
            raise InputError(f"spacing {self.spacing}; give (z, y, x), each above 0")


@dataclass(frozen=True, slots=True)
class Track:
    """One object from its first to its last frame.

    Parameters
    ----------
    track_id : int
        From 1.
    first, last : int
        Frames, counted from 0.
    parent : int
        The track that divided into this one and another; 0 if none.
    """

    track_id: int
    first: int
    last: int
    parent: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class TrackedFrames:
    """Tracks, and which object of which frame belongs to which.

    Parameters
    ----------
    tracks : list of Track
        In the order of their ids.
    table : dict of str to (N,) array
        One row for each object of a frame: ``track``, ``frame``, ``object`` (its id
        as given), ``z``, ``y``, ``x`` (centroid, in pixels) and ``area``.
    """

    tracks: list[Track]
    table: dict[str, NDArray[Any]]

    def plane(self, labels: NDArray[np.integer], frame: int) -> NDArray[np.uint32]:
        """Give the objects of a plane the ids of their tracks.

        Parameters
        ----------
        labels : (H, W) array of integers
            A plane as it was added.
        frame : int
            Its frame.

        Returns
        -------
        (H, W) uint32 array
        """
        here = self.table["frame"] == frame
        ids, tracks = self.table["object"][here], self.table["track"][here]
        out = np.zeros(labels.shape, np.uint32)
        inside = labels > 0
        if inside.any():
            out[inside] = tracks[np.searchsorted(ids, labels[inside])]
        return out


class TrackLinker:
    """Takes frames one after the other, and links them at the end.

    Parameters
    ----------
    config : TrackConfig, optional
        Thresholds.
    """

    def __init__(self, config: TrackConfig | None = None) -> None:
        self.config = config or TrackConfig()
        self._regions: list[Regions] = []
        self._first_node = [0]
        self._recent: deque[Sequence[NDArray[np.integer]]] = deque(
            maxlen=self.config.max_gap + 1
        )
        self._overlaps = [np.zeros((3, 0), np.int64)]

    def add(self, slices: Sequence[NDArray[np.integer]]) -> None:
        """Take the next frame.

        Parameters
        ----------
        slices : sequence of (H, W) arrays of integers
            Its slices; one plane for a flat image. A sequence that reads slices when
            they are asked for keeps memory small; `max_gap` + 1 are held.
        """
        regions = measure_regions(slices)
        t = len(self._regions)
        for step, earlier in enumerate(reversed(self._recent), start=1):
            shared = shared_pixels(
                self._regions[t - step], regions, zip(earlier, slices, strict=True)
            )
            first = shared.first + self._first_node[t - step]
            second = shared.second + self._first_node[t]
            self._overlaps.append(np.stack([first, second, shared.pixels]))
        self._regions.append(regions)
        self._first_node.append(self._first_node[t] + len(regions))
        self._recent.append(slices)

    def solve(self) -> TrackedFrames:
        """Link everything that was added.

        Returns
        -------
        TrackedFrames
        """
        nodes = _Nodes.of(self._regions, self.config)
        edges = _possible_links(nodes, np.concatenate(self._overlaps, axis=1))
        links = _chosen_links(nodes, edges, self.config)
        first, second = edges.first[links], edges.second[links]
        mothers, daughters = (
            _divisions(nodes, first, second, self.config.min_daughter)
            if self.config.divisions
            else (np.zeros(0, np.int64), np.zeros(0, np.int64))
        )
        # at a division the mother's track ends, and both daughters begin new ones
        goes_on = ~np.isin(first, mothers)
        chain = chains(len(nodes.frame), first[goes_on], second[goes_on])
        parent_node = dict(zip(daughters.tolist(), mothers.tolist(), strict=True))
        ends = ~goes_on
        parent_node |= dict(
            zip(second[ends].tolist(), first[ends].tolist(), strict=True)
        )
        # nodes come frame by frame, and so do those of each chain
        begins = np.unique(chain, return_index=True)[1]
        lasts = len(chain) - 1 - np.unique(chain[::-1], return_index=True)[1]
        tracks = []
        for number, (begin, last) in enumerate(
            zip(begins.tolist(), lasts.tolist(), strict=True), start=1
        ):
            mother = parent_node.get(begin)
            parent = 0 if mother is None else int(chain[mother]) + 1
            first_frame, last_frame = nodes.frame[[begin, last]].tolist()
            tracks.append(Track(number, first_frame, last_frame, parent))
        z, y, x = nodes.pixels.T
        return TrackedFrames(
            tracks,
            {
                "track": chain + 1,
                "frame": nodes.frame,
                "object": nodes.ids,
                "z": z,
                "y": y,
                "x": x,
                "area": nodes.area,
            },
        )


def link_frames(
    labels: ArrayLike, config: TrackConfig | None = None
) -> tuple[NDArray[np.uint32], list[Track]]:
    """Link a time-lapse that is in memory.

    Parameters
    ----------
    labels : (T, H, W) or (T, Z, H, W) array of integers
        Object ids of each frame, 0 is background; a volume is linked along z already.
    config : TrackConfig, optional
        Thresholds.

    Returns
    -------
    labels : uint32 array of the same shape
        One id for each track.
    tracks : list of Track

    Raises
    ------
    InputError
        If this is no time-lapse.
    """
    movie = np.asarray(labels)
    if movie.ndim not in (3, 4) or movie.dtype.kind not in "bui":
        raise InputError(
            f"labels of shape {movie.shape}, {movie.dtype}; give integers, (T, H, W) "
            "or (T, Z, H, W)"
        )
    frames = movie.reshape(len(movie), -1, *movie.shape[-2:])
    linker = TrackLinker(config)
    for frame in frames:
        linker.add(frame)
    found = linker.solve()
    out = [[found.plane(plane, t) for plane in f] for t, f in enumerate(frames)]
    return np.array(out, np.uint32).reshape(movie.shape), found.tracks


@dataclass(frozen=True, slots=True, eq=False)
class _Nodes:
    """The objects of all frames."""

    frame: NDArray[np.int64]
    ids: NDArray[np.int64]
    area: NDArray[np.int64]
    pixels: NDArray[np.float64]  # centroids, in pixels and slices
    centre: NDArray[np.float64]  # centroids, all axes in pixels
    reach: NDArray[np.float64]  # how far an object may move beside its expected place
    drift: NDArray[np.float64]  # of the whole frame, since the first

    @classmethod
    def of(cls, regions: Sequence[Regions], config: TrackConfig) -> _Nodes:
        none = np.zeros(0, np.int64)
        area = np.concatenate([none, *(each.area for each in regions)])
        pixels = np.concatenate([np.zeros((0, 3)), *(each.centre for each in regions)])
        frame = np.repeat(np.arange(len(regions)), [len(each) for each in regions])
        is_flat = not pixels[:, 0].any()
        volume = area * np.prod(config.spacing[1 if is_flat else 0 :])
        radius = np.sqrt(volume / np.pi) if is_flat else np.cbrt(volume * 0.75 / np.pi)
        reach = 3 * radius
        if config.max_distance is not None:
            reach = np.full(len(area), config.max_distance)
        centre = pixels * config.spacing
        return cls(
            frame,
            np.concatenate([none, *(each.ids for each in regions)]),
            area,
            pixels,
            centre,
            reach,
            _drift(frame, centre, reach, len(regions))[frame],
        )


@dataclass(frozen=True, slots=True, eq=False)
class _Links:
    """Links that are possible."""

    first: NDArray[np.int64]
    second: NDArray[np.int64]
    overlap: NDArray[np.float64]


def _drift(
    frame: NDArray[np.int64],
    centre: NDArray[np.float64],
    reach: NDArray[np.float64],
    n_frames: int,
) -> NDArray[np.float64]:
    """How far everything has moved together since the first frame, (n_frames, 3).

    The commonest displacement between objects of two frames: true pairs share it,
    all others are scattered.
    """
    steps = np.zeros((n_frames, 3))
    for t in range(1, n_frames):
        before, after = centre[frame == t - 1], centre[frame == t]
        if len(before) < 3 or len(after) < 3:
            continue
        near = reach[frame == t - 1].mean()
        step = -(-len(after) // _DRIFT_SAMPLE)
        some = after[::step]
        pairs = KDTree(before).query_ball_point(some, 2 * near)
        ways = [some[i] - before[list(p)] for i, p in enumerate(pairs) if len(p)]
        if not ways:
            continue
        way = np.concatenate(ways)
        counts = KDTree(way).query_ball_point(way, near / 6, return_length=True)
        still = np.count_nonzero(np.linalg.norm(way, axis=1) < near / 6)
        best = way[int(np.argmax(counts))]
        # a motion has to explain clearly more than standing still does
        if counts.max() > max(1.5 * still, len(before) / (2 * step)):
            around = np.linalg.norm(way - best, axis=1) < near / 6
            steps[t] = way[around].mean(axis=0)
    return np.cumsum(steps, axis=0)


def _possible_links(nodes: _Nodes, overlaps: NDArray[np.int64]) -> _Links:
    """Pairs that share pixels or lie within reach, in frames near each other."""
    first, second, pixels = overlaps
    score = overlap_score(pixels, nodes.area[first], nodes.area[second])
    found = {
        (a, b): s
        for a, b, s in zip(first.tolist(), second.tolist(), score, strict=True)
    }
    still = nodes.centre - nodes.drift
    n_frames = int(nodes.frame.max(initial=-1)) + 1
    of_frame = [np.flatnonzero(nodes.frame == t) for t in range(n_frames)]
    steps = nodes.frame[second] - nodes.frame[first]
    for step in range(1, max(int(steps.max(initial=1)), 1) + 1):
        for before, after in zip(of_frame, of_frame[step:], strict=False):
            if not (len(before) and len(after)):
                continue
            tree = KDTree(still[after])
            for a in before.tolist():
                for i in tree.query_ball_point(still[a], 2 * step * nodes.reach[a]):
                    found.setdefault((a, int(after[i])), 0.0)
    keys = np.array(sorted(found), np.int64).reshape(-1, 2)
    overlap = np.array([found[a, b] for a, b in keys.tolist()])
    return _Links(keys[:, 0], keys[:, 1], overlap)


def _chosen_links(
    nodes: _Nodes, edges: _Links, config: TrackConfig
) -> NDArray[np.int64]:
    step = nodes.frame[edges.second] - nodes.frame[edges.first]
    allowed = step <= config.max_gap + 1
    sizes = nodes.area[edges.first] / nodes.area[edges.second]
    alike = np.sqrt(np.minimum(sizes, 1 / sizes))
    links = np.zeros(0, np.int64)
    for _ in range(_ROUNDS):
        away = _surprise(nodes, edges, links) / np.sqrt(step)
        reach = np.minimum(nodes.reach[edges.first], nodes.reach[edges.second])
        # at its reach an object is two standard deviations away
        near = alike * np.exp(-0.5 * (2 * away / reach) ** 2)
        score = 1 - (1 - 0.9 * edges.overlap) * (1 - 0.9 * near)
        possible = np.flatnonzero(allowed & (score >= config.min_score))
        weight = evidence(score[possible]) * _GAP_DISCOUNT ** (step[possible] - 1.0)
        chosen = possible[
            best_pairs(edges.first[possible], edges.second[possible], weight)
        ]
        if np.array_equal(chosen, links):
            break
        links = chosen
    return links


def _surprise(
    nodes: _Nodes, edges: _Links, links: NDArray[np.int64]
) -> NDArray[np.float64]:
    """How far each link leads away from what the links beside it foretell.

    Beside the motion of the whole frame, an object goes on as it came, and came as it
    goes on; without a link on that side it stands still. The link itself has no say.
    """
    still = nodes.centre - nodes.drift
    came = np.full(still.shape, np.nan)
    goes = came.copy()
    first, second = edges.first[links], edges.second[links]
    step = (nodes.frame[second] - nodes.frame[first])[:, None]
    speed = (still[second] - still[first]) / step
    came[second], goes[first] = speed, speed
    a, b = edges.first, edges.second
    steps = (nodes.frame[b] - nodes.frame[a])[:, None]
    expected = [np.nan_to_num(speeds * steps) for speeds in (came[a], goes[b])]
    known = [~np.isnan(came[a]).any(axis=1), ~np.isnan(goes[b]).any(axis=1)]
    off = [np.linalg.norm(still[b] - still[a] - each, axis=1) for each in expected]
    # one that knows its motion tells more than one that does not
    weights = np.stack([np.where(k, 1.0, 0.25) for k in known])
    surprise: NDArray[np.float64] = (np.stack(off) * weights).sum(0) / weights.sum(0)
    return surprise


def _divisions(
    nodes: _Nodes,
    first: NDArray[np.int64],
    second: NDArray[np.int64],
    min_daughter: float,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Find objects that begin beside a mother; return mothers and these daughters."""
    follower = dict(zip(first.tolist(), second.tolist(), strict=True))
    begins = np.setdiff1d(np.arange(len(nodes.frame)), second)
    still = nodes.centre - nodes.drift
    found = []
    for b in begins[nodes.frame[begins] > 0].tolist():
        # nodes come frame by frame
        start, stop = np.searchsorted(nodes.frame, nodes.frame[b] + [-1, 0]).tolist()
        expected = still[start:stop] + nodes.drift[b]
        apart = np.linalg.norm(nodes.centre[b] - expected, axis=1)
        for i in np.flatnonzero(apart < nodes.reach[start:stop]).tolist():
            mother = start + i
            sister = follower.get(mother)
            if sister is None or nodes.frame[sister] != nodes.frame[b]:
                continue
            area, sizes = nodes.area[mother], nodes.area[[b, sister]]
            low, high = _DAUGHTERS_OF_MOTHER
            fits = (
                sizes.min() >= min_daughter * sizes.max()
                and sizes.max() <= _DAUGHTER_OF_MOTHER * area
                and low * area <= sizes.sum() <= high * area
            )
            middle = np.average(nodes.centre[[b, sister]], axis=0, weights=sizes)
            off = np.linalg.norm(middle - expected[i]) / nodes.reach[mother]
            if fits and off < 1 / 3:
                found.append((mother, b, float(np.exp(-0.5 * (3 * off) ** 2))))
    mothers = np.array([each[0] for each in found], np.int64)
    daughters = np.array([each[1] for each in found], np.int64)
    chosen = best_pairs(mothers, daughters, np.array([each[2] for each in found]))
    return mothers[chosen], daughters[chosen]
