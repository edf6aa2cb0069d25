"""Labels of single slices to objects along z.

Planes are given one after the other and forgotten: a row for each object and each
overlap stays. Then all links are chosen at once (`best_pairs`), and things that
a chain of cross-sections cannot say are read from the overlaps:

- a *neck*, where two objects that stand on each other were linked; where the image is
  given, also a *valley*, where it is dim between two clear ones;
- a *fragment* that the same object covers before and after: it belongs to it;
- a *merger*, a cross-section that two objects pass through: it is divided;
- a *gap*, a slice in which an object was not found: it is filled.

Nothing depends on the direction: a stack read backwards gives the same objects.
Linking slice by slice was rejected, since then the first slice wins.
"""

from __future__ import annotations

from collections import defaultdict, deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from scipy import ndimage
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from napari_sam.errors import InputError
from napari_sam.link.matching import best_pairs, chains
from napari_sam.link.regions import (
    measure_contrast,
    measure_regions,
    overlap_score,
    shared_pixels,
)
from napari_sam.link.shapes import shape_between

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import ArrayLike, NDArray

    from napari_sam.link.regions import Regions

    ReadPlane = Callable[[int], NDArray[np.integer]]

# Share of a cross-section that another must hold to cover it: more than one cannot.
_COVER = 0.5

# A link over a slice counts for less than one without, for each slice left out (ours).
_GAP_DISCOUNT = 0.5

# Gray values of 255 that an object needs on both sides of a valley (ours).
_CLEAR = 20.0

# Weights that are equal up to rounding are told apart by where the objects lie.
_TIE = 1e-6


@dataclass(frozen=True, slots=True)
class LinkConfig:
    """How objects of slices are linked.

    Parameters
    ----------
    min_overlap : float, default 0.2
        Least `overlap_score` of a link: 1 takes only equal shapes, 0 all that touch.
    max_gap : int, default 1
        Slices that an object may be missing in.
    min_length : int, default 1
        Objects in fewer slices are dropped, unless they are part of another one.
    neck : float, default 0.2
        An object whose cross-section shrinks to a smaller share than this, and grows
        again, is cut there. 0 never cuts.
    valley : float, default 0.6
        An object whose contrast falls to a smaller share than this, and rises again,
        is cut there; asked where images are given. 0 never cuts.
    branches : bool, default False
        Keep an object that splits or merges along z as one. Then nothing is cut at
        necks and valleys.

    Raises
    ------
    InputError
        If a value is out of its range.
    """

    min_overlap: float = 0.2
    max_gap: int = 1
    min_length: int = 1
    neck: float = 0.2
    valley: float = 0.6
    branches: bool = False

    def __post_init__(self) -> None:
        for name in ("min_overlap", "neck", "valley"):
            value = getattr(self, name)
            if not 0 <= value < 1:
                raise InputError(f"{name} {value}; give a share, 0 or more, below 1")
        if self.max_gap < 0 or self.min_length < 1:
            raise InputError(
                f"max_gap {self.max_gap} and min_length {self.min_length}; give a gap "
                "of 0 or more slices and a length of 1 or more"
            )


class SliceLinker:
    """Takes label planes one after the other, and links them at the end.

    Parameters
    ----------
    config : LinkConfig, optional
        Thresholds.

    Examples
    --------
    >>> linker = SliceLinker()
    >>> plane = np.zeros((4, 6), np.uint32)
    >>> plane[1:3, 1:4] = 5
    >>> for labels in (plane, 2 * plane, plane):
    ...     linker.add(labels)
    >>> linker.solve().objects[1].tolist()  # id 10 of the middle plane
    [1]
    """

    def __init__(self, config: LinkConfig | None = None) -> None:
        self.config = config or LinkConfig()
        self._regions: list[Regions] = []
        self._first_node = [0]
        self._recent: deque[NDArray[np.integer]] = deque(maxlen=self.config.max_gap + 1)
        self._overlaps: list[NDArray[np.int64]] = []
        self._contrasts: list[NDArray[np.float64]] = []

    def add(
        self, labels: NDArray[np.integer], gray: NDArray[np.floating] | None = None
    ) -> None:
        """Take the next plane.

        Parameters
        ----------
        labels : (H, W) array of integers
            Object ids of this plane, 0 is background; ids of other planes mean
            nothing here.
        gray : (H, W) array, optional
            Brightness of the plane, 0 to 255.

        Raises
        ------
        InputError
            If it has another shape than the plane before.
        """
        regions = measure_regions([labels])
        z = len(self._regions)
        for step, earlier in enumerate(reversed(self._recent), start=1):
            shared = shared_pixels(
                self._regions[z - step], regions, [(earlier, labels)]
            )
            first = shared.first + self._first_node[z - step]
            second = shared.second + self._first_node[z]
            steps = np.full(len(first), step)
            self._overlaps.append(np.stack([first, second, shared.pixels, steps]))
        contrast = np.full(len(regions), np.nan)
        if gray is not None and self.config.valley and not self.config.branches:
            contrast = measure_contrast(labels, gray)
        self._contrasts.append(contrast)
        self._regions.append(regions)
        self._first_node.append(self._first_node[z] + len(regions))
        self._recent.append(labels)

    def solve(self) -> LinkedSlices:
        """Link everything that was added.

        Returns
        -------
        LinkedSlices
        """
        graph = _Graph.of(self._regions, self._overlaps)
        links = _chosen_links(graph, self.config)
        chain = chains(len(graph.area), *graph.ends(links))
        if not self.config.branches:
            contrast = np.concatenate([np.zeros(0), *self._contrasts])
            cut = _is_neck(graph, links, chain, self.config.neck)
            cut |= _is_valley(graph, links, chain, contrast, self.config.valley)
            links = links[~cut]
            chain = chains(len(graph.area), *graph.ends(links))
        objects, n_objects = _numbered(graph, links, chain, self.config)
        return LinkedSlices(
            [each.ids for each in self._regions],
            np.split(objects, self._first_node[1:-1]),
            n_objects,
            *_repairs(graph, links, objects),
        )


def link_slices(
    labels: ArrayLike, config: LinkConfig | None = None, gray: ArrayLike | None = None
) -> NDArray[Any]:
    """Link a stack that is in memory.

    Parameters
    ----------
    labels : (Z, H, W) array of integers
        Object ids of each slice, 0 is background.
    config : LinkConfig, optional
        Thresholds.
    gray : (Z, H, W) array, optional
        Brightness, 0 to 255.

    Returns
    -------
    (Z, H, W) uint32 array
        One id for each object, from 1.

    Raises
    ------
    InputError
        If this is no stack of planes.
    """
    stack = np.asarray(labels)
    if stack.ndim != 3 or stack.dtype.kind not in "bui":
        raise InputError(
            f"labels of shape {stack.shape}, {stack.dtype}; give integers, (Z, H, W)"
        )
    seen = [None] * len(stack) if gray is None else np.asarray(gray, np.float64)
    linker = SliceLinker(config)
    for plane, light in zip(stack, seen, strict=True):
        linker.add(plane, light)
    linked = linker.solve()
    out = np.zeros(stack.shape, np.uint32)
    for z in range(len(stack)):
        out[z] = linked.plane(z, stack.__getitem__)
    return out


class _Claim(NamedTuple):
    """An object that passes through a slice: where it is seen before and after."""

    object_id: int
    seen: tuple[tuple[int, int], ...]  # (plane, id in that plane)


@dataclass(frozen=True, slots=True, eq=False)
class LinkedSlices:
    """The ids that objects of slices get.

    Parameters
    ----------
    ids, objects : list of (N,) arrays, one for each plane
        Ids as they were given, and the number of the object of each; 0 is dropped.
    n_objects : int
        Objects are numbered from 1 to this, in the order of their first slices.
    mergers : dict of (int, int) to list
        Plane and id of a cross-section, and the objects that divide it.
    bridges : dict of int to list
        Plane, and the objects that are missing in it.
    """

    ids: list[NDArray[np.int64]]
    objects: list[NDArray[np.int64]]
    n_objects: int
    mergers: dict[tuple[int, int], list[_Claim]]
    bridges: dict[int, list[_Claim]]

    def plane(self, z: int, read: ReadPlane) -> NDArray[np.uint32]:
        """Return the labels of a plane with the ids of objects.

        Parameters
        ----------
        z : int
            Number of the plane, in the order in which planes were added.
        read : callable
            Returns a plane as it was added; asked for this one and, where something
            is divided or filled, for its neighbours.

        Returns
        -------
        (H, W) uint32 array
        """
        given = read(z)
        labels = np.zeros(given.shape, np.uint32)
        ids = self.ids[z]
        if len(ids):
            inside = given > 0
            of = np.searchsorted(ids, given[inside])
            labels[inside] = self.objects[z][of].astype(np.uint32)
            for number in ids.tolist():
                if (z, number) in self.mergers:
                    _divide(labels, given == number, self.mergers[z, number], read)
        shapes = [_between(z, claim, read) for claim in self.bridges.get(z, ())]
        # the smaller one on top; an order that does not depend on the direction
        for _, where, number in sorted(shapes, key=lambda s: s[0], reverse=True):
            free = given[where] == 0
            labels[where[0][free], where[1][free]] = number
        return labels


@dataclass(frozen=True, slots=True, eq=False)
class _Graph:
    """Cross-sections of all planes as nodes, overlaps as edges."""

    plane: NDArray[np.int64]
    ids: NDArray[np.int64]
    area: NDArray[np.int64]
    place: NDArray[np.float64]
    first: NDArray[np.int64]
    second: NDArray[np.int64]
    pixels: NDArray[np.int64]
    step: NDArray[np.int64]

    @classmethod
    def of(cls, regions: list[Regions], overlaps: list[NDArray[np.int64]]) -> _Graph:
        none = np.zeros(0, np.int64)
        edges = np.concatenate([np.zeros((4, 0), np.int64), *overlaps], axis=1)
        centres = [each.centre for each in regions]
        return cls(
            np.repeat(np.arange(len(regions)), [len(each) for each in regions]),
            np.concatenate([none, *(each.ids for each in regions)]),
            np.concatenate([none, *(each.area for each in regions)]),
            np.concatenate([np.zeros((0, 3)), *centres]) @ [0.0, 0.618034, 0.414214],
            *edges,
        )

    def ends(self, links: NDArray[np.int64]) -> tuple[NDArray[Any], NDArray[Any]]:
        return self.first[links], self.second[links]

    def covers(self, of: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which edges hold more than half of the one of their nodes that `of` names."""
        covers: NDArray[np.bool_] = self.pixels > _COVER * self.area[of]
        return covers


def _chosen_links(graph: _Graph, config: LinkConfig) -> NDArray[np.int64]:
    first, second = graph.first, graph.second
    score = overlap_score(graph.pixels, graph.area[first], graph.area[second])
    possible = np.flatnonzero((score >= config.min_overlap) & (score > 0))
    weight = score[possible] * _GAP_DISCOUNT ** (graph.step[possible] - 1.0)
    tie = (graph.place[first[possible]] + graph.place[second[possible]]) % 1
    links = best_pairs(first[possible], second[possible], weight + _TIE * tie)
    return possible[links]


def _is_neck(
    graph: _Graph,
    links: NDArray[np.int64],
    chain: NDArray[np.int64],
    neck: float,
) -> NDArray[np.bool_]:
    """Tell which links stand at the thin place between two thick ones."""
    is_neck = np.zeros(len(links), bool)
    for order, nodes in _in_order(graph, links, chain):
        is_neck[order[_necks(graph.area[nodes].astype(np.float64), neck)]] = True
    return is_neck


def _is_valley(
    graph: _Graph,
    links: NDArray[np.int64],
    chain: NDArray[np.int64],
    contrast: NDArray[np.float64],
    valley: float,
) -> NDArray[np.bool_]:
    """Tell which links stand at the dim place between two clear ones."""
    is_valley = np.zeros(len(links), bool)
    for order, nodes in _in_order(graph, links, chain):
        seen = contrast[nodes]
        if np.isnan(seen).any():
            continue
        # an object is bright or dark; where it is the other, it is hardly seen
        seen = np.maximum(seen * np.sign(seen[np.abs(seen).argmax()]), 1.0)
        for at in _necks(seen, valley):
            if min(seen[: at + 1].max(), seen[at + 1 :].max()) >= _CLEAR:
                is_valley[order[at]] = True
    return is_valley


def _in_order(
    graph: _Graph, links: NDArray[np.int64], chain: NDArray[np.int64]
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Go through chains of three objects or more: their links, and their objects."""
    # nodes are numbered plane by plane: each chain's links come in their order
    by_chain = np.lexsort((graph.first[links], chain[graph.first[links]]))
    owner = chain[graph.first[links[by_chain]]]
    for order in np.split(by_chain, np.flatnonzero(np.diff(owner)) + 1):
        if len(order) > 1:
            last = graph.second[links[order[-1]]]
            yield order, np.append(graph.first[links[order]], last)


def _necks(area: NDArray[np.float64], neck: float) -> list[int]:
    """Numbers of the links to cut, between area ``i`` and ``i + 1``."""
    if len(area) < 3:
        return []
    # one slice in which little was found is no neck
    smooth = ndimage.median_filter(area, 3, mode="nearest")
    before = np.maximum.accumulate(smooth)
    after = np.maximum.accumulate(smooth[::-1])[::-1]
    depth = smooth / np.minimum(before, after)
    if depth.min() >= neck:
        return []
    thin = np.flatnonzero(depth == depth.min())
    thinnest = thin[area[thin] == area[thin].min()]
    at = int(thinnest[(len(thinnest) - 1) // 2])
    # a single thin slice goes with the side that it is more like
    is_single = len(thinnest) % 2 == 1
    cut = at - 1 if is_single and area[at - 1] > area[at + 1] else at
    left, right = _necks(area[: cut + 1], neck), _necks(area[cut + 1 :], neck)
    return [*left, cut, *(cut + 1 + i for i in right)]


def _numbered(
    graph: _Graph,
    links: NDArray[np.int64],
    chain: NDArray[np.int64],
    config: LinkConfig,
) -> tuple[NDArray[np.int64], int]:
    """Join chains that are one object, drop short ones, number the others."""
    n = int(chain.max()) + 1 if len(chain) else 0
    part, whole = _parts(graph, links, chain, config)
    joined = coo_array((np.ones(len(part)), (part, whole)), shape=(n, n))
    _, object_of = connected_components(joined, directed=False)
    owner = object_of[chain] if n else chain
    lengths = np.bincount(
        np.unique(np.stack([owner, graph.plane]), axis=1)[0], minlength=1
    )
    kept = lengths[owner] >= config.min_length if n else np.zeros(0, bool)
    numbers = np.zeros(len(owner), np.int64)
    found, first, of = np.unique(owner[kept], return_index=True, return_inverse=True)
    rank = np.empty(len(found), np.int64)
    rank[np.argsort(first)] = np.arange(1, len(found) + 1)
    numbers[kept] = rank[of]
    return numbers, len(found)


def _parts(
    graph: _Graph,
    links: NDArray[np.int64],
    chain: NDArray[np.int64],
    config: LinkConfig,
) -> tuple[list[int], list[int]]:
    """Pairs of chains, the first of which is a part of the second."""
    n_nodes = len(chain)
    follows, leads = np.zeros(n_nodes, bool), np.zeros(n_nodes, bool)
    follows[graph.second[links]] = True
    leads[graph.first[links]] = True
    near = graph.step == 1
    first, second = graph.first, graph.second
    # the covering object has to go on beside its part
    starts = near & ~follows[second] & leads[first] & graph.covers(second)
    ends = near & ~leads[first] & follows[second] & graph.covers(first)
    above = dict(zip(chain[second[starts]], chain[first[starts]], strict=True))
    below = dict(zip(chain[first[ends]], chain[second[ends]], strict=True))
    lengths = np.bincount(chain, minlength=1)
    part, whole = [], []
    for each in sorted(above.keys() | below.keys()):
        hosts = {above.get(each, -1), below.get(each, -1)}
        is_short = lengths[each] < config.min_length
        if len(hosts) > 1 and not (config.branches or is_short):
            continue
        for host in hosts - {-1, int(each)}:
            part.append(int(each))
            whole.append(int(host))
    return part, whole


def _repairs(
    graph: _Graph, links: NDArray[np.int64], objects: NDArray[np.int64]
) -> tuple[dict[tuple[int, int], list[_Claim]], dict[int, list[_Claim]]]:
    """Find mergers and bridges: what lies in the slices that links leave out."""
    mergers: dict[int, list[_Claim]] = defaultdict(list)
    bridges: dict[int, list[_Claim]] = defaultdict(list)
    into, out_of = _covering(graph)
    for link in links[graph.step[links] > 1].tolist():
        a, b = int(graph.first[link]), int(graph.second[link])
        if not objects[a]:
            continue
        claim = _claim(graph, int(objects[a]), (a, b))
        shared = {int(graph.plane[c]): c for c in into[a] & out_of[b]}
        for z in range(graph.plane[a] + 1, graph.plane[b]):
            if z in shared:
                mergers[shared[z]].append(claim)
            else:
                bridges[z].append(claim)
    neighbours = _neighbours(graph, links)
    divided = {}
    for node, claims in mergers.items():
        if neighbours[node] and objects[node]:
            claims.append(_claim(graph, int(objects[node]), tuple(neighbours[node])))
        if len({claim.object_id for claim in claims}) > 1:
            divided[int(graph.plane[node]), int(graph.ids[node])] = claims
    return divided, dict(bridges)


def _covering(
    graph: _Graph,
) -> tuple[defaultdict[int, set[int]], defaultdict[int, set[int]]]:
    """For each node the later and the earlier nodes that cover it."""
    into: defaultdict[int, set[int]] = defaultdict(set)
    out_of: defaultdict[int, set[int]] = defaultdict(set)
    for edge in np.flatnonzero(graph.covers(graph.first)).tolist():
        into[int(graph.first[edge])].add(int(graph.second[edge]))
    for edge in np.flatnonzero(graph.covers(graph.second)).tolist():
        out_of[int(graph.second[edge])].add(int(graph.first[edge]))
    return into, out_of


def _neighbours(graph: _Graph, links: NDArray[np.int64]) -> defaultdict[int, list[int]]:
    found: defaultdict[int, list[int]] = defaultdict(list)
    for a, b in zip(*(ends.tolist() for ends in graph.ends(links)), strict=True):
        found[a].append(b)
        found[b].append(a)
    return found


def _claim(graph: _Graph, object_id: int, nodes: tuple[int, ...]) -> _Claim:
    seen = ((int(graph.plane[node]), int(graph.ids[node])) for node in nodes)
    return _Claim(object_id, tuple(sorted(seen)))


def _divide(
    labels: NDArray[np.uint32],
    section: NDArray[np.bool_],
    claims: list[_Claim],
    read: ReadPlane,
) -> None:
    """Give each pixel of a cross-section to the object that is nearest to it."""
    (rows, columns), distances = np.nonzero(section), []
    for claim in claims:
        away = [
            ndimage.distance_transform_edt(mask == 0)[rows, columns]
            for mask in _masks(claim, read)
        ]
        distances.append(np.mean(away, axis=0))
    numbers = np.array([claim.object_id for claim in claims], np.uint32)
    labels[rows, columns] = numbers[np.argmin(distances, axis=0)]


def _between(
    z: int, claim: _Claim, read: ReadPlane
) -> tuple[tuple[int, ...], tuple[NDArray[np.int64], NDArray[np.int64]], int]:
    """Rank, pixels and id of an object that was not found in a slice."""
    (before, _), (after, _) = claim.seen
    first, second = _masks(claim, read)
    box = ndimage.find_objects((first | second).astype(np.uint8))[0]
    shape = shape_between(first[box], second[box], (z - before) / (after - before))
    rows, columns = np.nonzero(shape)
    rows, columns = rows + box[0].start, columns + box[1].start
    rank = (len(rows), int(rows.sum()), int(columns.sum()))
    return rank, (rows, columns), claim.object_id


def _masks(claim: _Claim, read: ReadPlane) -> Iterator[NDArray[np.bool_]]:
    for z, number in claim.seen:
        mask: NDArray[np.bool_] = read(z) == number
        yield mask
