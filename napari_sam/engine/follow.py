"""The object in the next slice: what is asked, which answer is taken, when it ends."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from scipy import ndimage
from skimage.feature import peak_local_max

from napari_sam.engine.enlarge import mask_logits
from napari_sam.errors import InputError
from napari_sam.link.regions import overlap_score
from napari_sam.masks import Candidate, boundary_depth
from napari_sam.prompts import Prompts
from napari_sam.tiling import Box

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from napari_sam.engine.predict import Prediction, Predictor
    from napari_sam.engine.stack_planes import StackPlanes
    from napari_sam.tiling import Crop

# Box prompts leave a little room, as share of the object's size (ours).
_ROOM = 0.05

_RING = 3  # pixels around an object that its brightness is compared with (ours)
FLAT = 10.0
"""Gray values of 255: with less contrast, contrast says nothing (ours)."""

# An object faded to this share of what lies on both sides has ended there, if a slice
# beside it has less than the other share, too (ours; tests/engine/test_fade.py).
_VALLEY, _BESIDE = 0.5, 0.6

# Least share of an object's pixels that stand out where it fades (ours).
_REMAINS = 0.25


@dataclass(frozen=True, slots=True)
class PropagateConfig:
    """How an object is followed, and when it ends. Default values are ours.

    Parameters
    ----------
    min_predicted_iou, min_stability : float, default 0.5
        A mask with less ends the object.
    min_overlap : float, default 0.3
        Least `napari_sam.link.regions.overlap_score` of neighbours.
    max_change : float, default 4.0
        Largest ratio of the areas of neighbours.
    min_area : int, default 4
        Fewer pixels end the object.
    min_contrast : float, default 0.1
        Least difference of brightness between the object and what is around it, as
        share of that in its clearest slice. Asked along z only, beyond the prompted
        slices, and not where the clearest slice has less than ten gray values of 255.
        0 never asks.
    max_gap : int, default 1
        Slices in a row that may fail and are bridged.
    min_agreement : float, default 0.7
        IoU of what comes from both sides, below which a slice is suspicious.
    branches : bool, default False
        Follow all parts of an object that splits.

    Raises
    ------
    InputError
        If a value is out of its range.
    """

    min_predicted_iou: float = 0.5
    min_stability: float = 0.5
    min_overlap: float = 0.3
    max_change: float = 4.0
    min_area: int = 4
    min_contrast: float = 0.1
    max_gap: int = 1
    min_agreement: float = 0.7
    branches: bool = False

    def __post_init__(self) -> None:
        for name in ("min_overlap", "min_contrast", "min_agreement"):
            value = getattr(self, name)
            if not 0 <= value <= 1:
                raise InputError(f"{name} {value}; give a share from 0 to 1")
        if self.max_change <= 1 or self.max_gap < 0:
            raise InputError(
                f"max_change {self.max_change} and max_gap {self.max_gap}; give a "
                "ratio above 1 and a gap of 0 or more slices"
            )


class Answer(NamedTuple):
    """The object was found; how much it is like what was expected, 0 to 1."""

    found: Candidate
    overlap: float


class Stopped(NamedTuple):
    """The object was not found, and why."""

    reason: str


class Fade(NamedTuple):
    """The first slice that an object does not reach, and why."""

    at: int
    reason: str


class Follower:
    """Finds an object in a slice from what its neighbours tell.

    Parameters
    ----------
    planes : StackPlanes
        The stack.
    config : PropagateConfig
        When it ends.
    forbidden : mapping of int to Prompts
        Negative points, by slice.
    """

    def __init__(
        self,
        planes: StackPlanes,
        config: PropagateConfig,
        forbidden: Mapping[int, Prompts | Candidate],
    ) -> None:
        self.planes = planes
        self.config = config
        self.forbidden = forbidden

    def prompted(
        self,
        i: int,
        prompts: Prompts,
        earlier: Candidate | None = None,
        known: Candidate | None = None,
    ) -> Candidate:
        """Return the object that prompts of this slice show.

        A point beside an earlier mask may add to it, or say that the object was lost
        to another and is here: the answer is taken that is more like the object where
        the user has shown it.

        Parameters
        ----------
        i : int
            The slice.
        prompts : Prompts
            With something positive, or negative points that correct a mask.
        earlier : Candidate, optional
            A mask that the prompts are to correct.
        known : Candidate, optional
            The object in another prompted slice.
        """
        no = prompts.points[~prompts.positive]
        only_no = not _is_positive(prompts)
        asked = [prompts]
        if earlier is not None and not prompts.has_box:
            # A correcting click alone may seem to mean a part, or another object.
            inner = _interior(earlier, no)
            points, positive = [inner, *prompts.points], [True, *prompts.positive]
            with_inner = Prompts(points, positive, mask=prompts.mask)
            asked = [with_inner] if only_no else [with_inner, prompts]
        answers: list[Candidate] = []
        for each in asked:
            answers.append(self._answer(i, each, earlier))
            if self._is_good(answers[-1], prompts):
                break
        found = max(answers, key=lambda each: _obedience(each, prompts))
        if earlier is not None and known is not None and _is_beside(prompts, earlier):
            alone = self._answer(i, prompts, None)
            found = max(
                (found, alone),
                key=lambda each: (
                    _obedience(each, prompts)[0],
                    _quality(self._shape_likeness(each, known), each),
                ),
            )
        if only_no and holds(found, no):
            found = _without(found, asked[0].points[0], no)
        if not found.area:
            raise InputError(
                f"the prompts of slice {i} show nothing; add a point, or a box"
            )
        return found

    def _shape_likeness(self, found: Candidate, known: Candidate) -> float:
        """How much a mask is like another one wherever that lies, 0 to 1."""
        if not found.area:
            return 0.0
        return found.iou(self._moved(known, _centre(found) - _centre(known)))

    def _is_good(self, found: Candidate, prompts: Prompts) -> bool:
        """Whether a mask obeys all points and would not end the object."""
        return (
            _obedience(found, prompts)[0] == prompts.n_points
            and found.predicted_iou >= self.config.min_predicted_iou
            and found.stability >= self.config.min_stability
        )

    def _answer(self, i: int, prompts: Prompts, earlier: Candidate | None) -> Candidate:
        """Ask with prompts and, where they have no mask, an earlier one."""
        predictor = self.planes.predictor(i)
        crop = predictor.crop_for(prompts)
        if earlier is not None and prompts.mask is None:
            logits = _as_prompt(earlier, crop, predictor)
            prompts = Prompts(prompts.points, prompts.positive, prompts.boxes, logits)
        prediction = predictor.predict(prompts, crop=crop)
        return _candidate(prediction, prediction.best)

    def clear_part(
        self, i: int, found: Candidate, clearest: float = 0.0
    ) -> tuple[Candidate, float]:
        """Leave out the pixels that have faded: what is seen of other slices.

        Out of focus an object looks as wide as in its middle, and only fainter. The
        threshold is that of slices, `min_contrast`. Nothing is left out of a slice
        that is nearly as clear as the clearest, nor of one that would nearly vanish.

        Parameters
        ----------
        i : int
            The slice.
        found : Candidate
            The object in it.
        clearest : float
            Largest contrast of the object in other slices; 0 leaves nothing out.

        Returns
        -------
        clear : Candidate
            The object, or what is left of it.
        contrast : float
            How much brighter or darker the object is than what is around it, in gray
            values of 255; NaN where that says nothing: along time, or if it is not
            asked.
        """
        if self.planes.along == "t" or not self.config.min_contrast:
            return found, float("nan")
        gray, inside, around = self._seen(i, found)
        contrast, sign = abs(inside - around), np.sign(inside - around)
        if clearest < FLAT or contrast >= _BESIDE * clearest:
            return found, contrast
        # single pixels are noise; a disc's area has a root of 1.8 radii
        even = ndimage.gaussian_filter(gray, min(max(1.0, found.area**0.5 / 7), 4.0))
        away = (even - around) * sign
        clear = found.mask & (away >= self.config.min_contrast * clearest)
        parts, n_parts = ndimage.label(clear)
        if not n_parts:
            return found, contrast
        sizes = np.bincount(parts.ravel())
        sizes[0] = 0
        largest = ndimage.binary_fill_holes(parts == sizes.argmax())
        if largest.sum() < max(_REMAINS * found.area, self.config.min_area):
            return found, contrast
        return found.with_mask(largest), contrast

    def _seen(
        self, i: int, found: Candidate
    ) -> tuple[NDArray[np.float64], float, float]:
        """Brightness in an object's box, and its means inside and in a ring around."""
        box, shape = found.box, self.planes.source.plane_shape
        wide = Box(box.y0 - _RING, box.x0 - _RING, box.y1 + _RING, box.x1 + _RING)
        region = wide.clip(shape)
        mask = found.within(region)
        ring = ndimage.binary_dilation(mask, iterations=_RING) & ~mask
        gray = self.planes.gray(i, region)
        inside = float(gray[mask].mean())
        around = float(gray[ring].mean()) if ring.any() else inside
        return gray[box.shift(-region.y0, -region.x0).slices], inside, around

    def next(
        self,
        i: int,
        history: Sequence[tuple[int, Candidate]],
        ahead: Sequence[int] = (),
    ) -> Answer | Stopped:
        """Return the object in a slice after others.

        Parameters
        ----------
        i : int
            The slice.
        history : sequence of (int, Candidate)
            The last slice with the object, and the one before it if there is one.
        ahead : sequence of int
            Slices that will be asked for next.
        """
        z, last = history[-1]
        expected = last
        if len(history) > 1:
            before, earlier = history[-2]
            speed = (_centre(last) - _centre(earlier)) / (z - before)
            expected = self._moved(last, speed * (i - z))
        return self.like(i, expected, ahead)

    def like(
        self, i: int, expected: Candidate, ahead: Sequence[int] = ()
    ) -> Answer | Stopped:
        """Return the object in a slice that is most like an expected one."""
        parts = _lobes(expected) if self.config.branches else [expected]
        forbidden = self._forbidden(i)
        answers = [
            self._checked(i, part, self._asked([i, *ahead], part, forbidden), forbidden)
            for part in parts
        ]
        good = [each for each in answers if isinstance(each, Answer)]
        if not good:
            return answers[0]
        return good[0] if len(good) == 1 else _joined(good)

    def _asked(
        self,
        slices: Sequence[int],
        expected: Candidate,
        forbidden: NDArray[np.float32],
    ) -> Prediction:
        """Ask the first slice with box, inner point and mask of what is expected."""
        predictor = self.planes.predictor(slices[0])
        box, shape = expected.box, predictor.embedding.grid.shape
        room = 1 + int(_ROOM * max(box.shape))
        wide = Box(box.y0 - room, box.x0 - room, box.y1 + room, box.x1 + room).clip(
            shape
        )
        point = _interior(expected)
        prompts = Prompts(
            np.concatenate([point[None], forbidden]),
            [True] + [False] * len(forbidden),
            [wide.y0, wide.x0, wide.y1, wide.x1],
        )
        crop = predictor.crop_for(prompts)
        logits = _as_prompt(expected, crop, predictor)
        full = Prompts(prompts.points, prompts.positive, prompts.boxes, logits)
        self.planes.encode(crop, slices)
        return predictor.predict(full, multimask=True, crop=crop)

    def _forbidden(self, i: int) -> NDArray[np.float32]:
        given = self.forbidden.get(i)
        if isinstance(given, Prompts):
            return given.points[~given.positive]
        return np.zeros((0, 2), np.float32)

    def _moved(self, last: Candidate, way: NDArray[np.float64]) -> Candidate:
        dy, dx = np.round(way).astype(int).tolist()
        plane = Box.whole(self.planes.source.plane_shape)
        inside = last.box.shift(dy, dx).intersection(plane)
        if inside is None:
            return last
        mask = last.within(inside.shift(-dy, -dx))
        return replace(last, box=inside, mask=mask) if mask.any() else last

    def _checked(
        self,
        i: int,
        expected: Candidate,
        prediction: Prediction,
        forbidden: NDArray[np.float32],
    ) -> Answer | Stopped:
        """Take the best of three masks, if it is good enough."""
        offers = [
            _near(_candidate(prediction, k), expected)
            for k in range(len(prediction.masks))
        ]
        allowed = [each for each in offers if each.area and not holds(each, forbidden)]
        if not allowed:
            held = any(each.area for each in offers)
            return Stopped("only masks with a negative point" if held else "no mask")
        scored = [(_likeness(each, expected), each) for each in allowed]
        overlap, found = max(scored, key=lambda each: _quality(*each))
        c, change = self.config, found.area / expected.area
        if found.area < c.min_area:
            return Stopped(f"{found.area} px, fewer than {c.min_area}")
        for name, value, least in (
            ("predicted IoU", found.predicted_iou, c.min_predicted_iou),
            ("stability", found.stability, c.min_stability),
            ("overlap with its neighbour", overlap, c.min_overlap),
        ):
            if value < least:
                return Stopped(f"{name} {value:.2f}, below {least:g}")
        if not 1 / c.max_change <= change <= c.max_change:
            return Stopped(f"area changes by the factor {change:.2g}")
        return Answer(found, overlap)


def fade(
    contrasts: Sequence[tuple[int, float]],
    clearest: float,
    config: PropagateConfig,
    *,
    is_all: bool = False,
) -> Fade | None:
    """Tell where an object fades out of the slices.

    It has ended before the slices in a row, more than may be bridged, that have less
    than `min_contrast` of its clearest slice. Followed beyond its end, an object fades,
    and what lies behind it comes up: then it has ended where it is dimmest. A single
    dim slice between two clear ones is no end.

    Parameters
    ----------
    contrasts : sequence of (int, float)
        Slices in the order in which they were asked, from a prompted one on, and their
        contrasts in gray values. NaN is not known and is left out.
    clearest : float
        Largest contrast that the object has on the other side.
    config : PropagateConfig
        `min_contrast` and `max_gap`.
    is_all : bool
        Nothing comes after these: slices at the end that would else be waited for
        have faded, too.

    Returns
    -------
    Fade or None
        None if it goes on.

    Examples
    --------
    >>> config = PropagateConfig()
    >>> fade([(7, 90), (8, 40), (9, 12), (10, 30)], 100, config)
    Fade(at=9, reason='it fades, and another object follows')
    >>> fade([(7, 90), (8, 10), (9, 90)], 100, config) is None
    True
    """
    known = [(i, each) for i, each in contrasts if not np.isnan(each)]
    behind = _valley([each for _, each in known], clearest)
    own = known[:behind]
    peak = max([clearest, *(each for _, each in own)])
    if peak < FLAT:
        return None
    n = config.max_gap + 1
    dim = [each < config.min_contrast * peak for _, each in own]
    if is_all or behind is not None:
        dim += [True] * config.max_gap
    for k in range(1, len(own)):
        if sum(dim[k : k + n]) == n:
            i, each = own[k]
            return Fade(i, f"contrast {each / peak:.2f} of that where it is clearest")
    if behind is None:
        return None
    return Fade(known[behind][0], "it fades, and another object follows")


def _valley(contrasts: Sequence[float], clearest: float) -> int | None:
    """Return the first place where contrasts are least between two that are more."""
    peak, low = 0, 0  # the largest so far, and the least after it
    for k in range(1, len(contrasts)):
        before, beside = (
            max(clearest, contrasts[peak]),
            contrasts[low - 1 : low + 2 : 2],
        )
        if low == 0:  # it is dim where it was prompted, and clearer on the other side
            beside = contrasts[1:2]
        has_risen = contrasts[low] < _VALLEY * min(before, contrasts[k])
        if has_risen and min(beside) < _BESIDE * before:
            return max(low, 1)
        if contrasts[k] > contrasts[peak]:
            peak = low = k
        elif low == peak or contrasts[k] < contrasts[low]:
            low = k
    return None


def _as_prompt(found: Candidate, crop: Crop, predictor: Predictor) -> NDArray[Any]:
    config = predictor.model.config
    return mask_logits(found.box, found.mask, crop, config.mask_size, config.image_size)


def _is_beside(prompts: Prompts, mask: Candidate) -> bool:
    """Whether a positive point lies beside a mask."""
    points = prompts.points[prompts.positive]
    return not all(holds(mask, point[None]) for point in points)


def _is_positive(prompts: Prompts) -> bool:
    return prompts.has_box or bool(prompts.positive.any())


def _interior(
    found: Candidate, no: NDArray[np.float32] | None = None
) -> NDArray[np.float64]:
    """(y, x) of the pixel farthest from the outline, and from negative points."""
    inside = found.mask.copy()
    for y, x in [] if no is None else np.floor(no + 0.5).astype(int).tolist():
        if found.box.contains(Box(y, x, y + 1, x + 1)):
            inside[y - found.box.y0, x - found.box.x0] = False
    depth = boundary_depth(inside)
    at = np.unravel_index(int(depth.argmax()), depth.shape)
    return np.add(at, (found.box.y0, found.box.x0)).astype(np.float64)


def _without(
    found: Candidate, yes: NDArray[np.float32], no: NDArray[np.float32]
) -> Candidate:
    """Take away the pixels that are nearer to a negative point than to another."""
    places = np.add(np.argwhere(found.mask), (found.box.y0, found.box.x0))
    near = np.linalg.norm(places - yes, axis=1)
    away = np.linalg.norm(places[:, None] - no, axis=2).min(axis=1)
    mask = found.mask.copy()
    mask[found.mask] = near < away
    return found.with_mask(mask)


def _lobes(found: Candidate) -> list[Candidate]:
    """Cut an object into parts, one for each thick place."""
    depth = boundary_depth(found.mask)
    apart = max(1, int(depth.max()))
    peaks = peak_local_max(
        depth, min_distance=apart, threshold_rel=0.5, exclude_border=False
    )
    if len(peaks) < 2:
        return [found]
    away = np.stack(
        [np.hypot(*(np.indices(depth.shape) - p[:, None, None])) for p in peaks]
    )
    nearest = away.argmin(axis=0)
    return [found.with_mask(found.mask & (nearest == k)) for k in range(len(peaks))]


def _near(found: Candidate, expected: Candidate) -> Candidate:
    """Keep the part of a mask that holds most of what was expected."""
    parts, n_parts = ndimage.label(found.mask, np.ones((3, 3), bool))
    if n_parts < 2:
        return found
    held = np.bincount(parts[expected.within(found.box)], minlength=n_parts + 1)
    held[0] = 0
    if not held.any():
        held = np.bincount(parts.ravel(), minlength=n_parts + 1)
        held[0] = 0
    return found.with_mask(parts == held.argmax())


def _candidate(prediction: Prediction, k: int) -> Candidate:
    mask = prediction.masks[k]
    whole = Candidate(
        prediction.box,
        mask,
        float(prediction.predicted_iou[k]),
        float(prediction.stability[k]),
    )
    return whole.with_mask(mask)


def _likeness(found: Candidate, expected: Candidate) -> float:
    shared, area = found.overlap(expected), (found.area, expected.area)
    if not shared:
        return 0.0
    numbers = (np.array([n]) for n in (shared, *area))
    return float(overlap_score(*numbers)[0])


def _quality(overlap: float, found: Candidate) -> float:
    """By predicted IoU, stability and likeness together; the first two may lie."""
    return overlap * max(found.predicted_iou, 0.01) * max(found.stability, 0.01)


def _obedience(found: Candidate, prompts: Prompts) -> tuple[int, float]:
    """How many points a mask obeys; among equals how good it is."""
    obeyed = sum(
        holds(found, point[None]) == is_positive
        for point, is_positive in zip(prompts.points, prompts.positive, strict=True)
    )
    return obeyed, found.predicted_iou * found.stability


def holds(found: Candidate, points: NDArray[np.float32]) -> bool:
    """Whether a mask holds one of (N, 2) points (y, x)."""
    for y, x in np.floor(points + 0.5).astype(int).tolist():
        if found.within(Box(y, x, y + 1, x + 1)).any():
            return True
    return False


def _joined(answers: Sequence[Answer]) -> Answer:
    first = answers[0]
    region = first.found.box
    for each in answers[1:]:
        region = region.union(each.found.box)
    mask = np.zeros(region.shape, bool)
    for each in answers:
        mask |= each.found.within(region)
    best = min(answers, key=lambda each: each.overlap)
    found = replace(best.found, box=region, mask=mask)
    return Answer(found, best.overlap)


def _centre(found: Candidate) -> NDArray[np.float64]:
    centre: NDArray[np.float64] = np.argwhere(found.mask).mean(axis=0)
    return np.add(centre, (found.box.y0, found.box.x0))
