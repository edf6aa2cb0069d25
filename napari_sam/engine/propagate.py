"""One object through a stack, from prompts in one slice or several.

From each prompted slice the object is followed both ways. The next slice is asked
with what the last one tells: box, interior point and logits of its mask, moved as the
object moved before; of the three masks the one is taken that is good and like its
neighbour. Where the object ends, the reason is noted. A slice that fails between two
good ones is asked again with the shape between them, and takes that shape if it fails
once more; it is marked as suspicious either way.

Between two prompted slices both sides must meet. Where they do not agree, the shape
between the two prompted masks is asked for, and the slice is marked as suspicious.
A span between prompted slices depends on nothing else, so correcting a slice runs
only the spans beside it again (`previous`).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from napari_sam.engine.follow import (
    FLAT,
    Answer,
    Follower,
    PropagateConfig,
    Stopped,
    fade,
    holds,
)
from napari_sam.engine.jobs import Job, Step, job
from napari_sam.engine.stack_planes import open_stack
from napari_sam.errors import InputError
from napari_sam.link import shape_between
from napari_sam.masks import Candidate

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from numpy.typing import NDArray

    from napari_sam.cache import EmbeddingCache
    from napari_sam.engine.stack_planes import StackPlanes
    from napari_sam.images import Intensity
    from napari_sam.model import Sam
    from napari_sam.prompts import Prompts
    from napari_sam.tiling import CropGrid

State = Literal["prompted", "computed", "bridged"]

# Slices are not computed again for a clearest slice that changes less (ours).
_SAME_CONTRAST = 0.8


@dataclass(frozen=True, slots=True, eq=False)
class SliceResult:
    """The object in one slice.

    Parameters
    ----------
    index : int
        The slice (or frame), counted from 0.
    state : {"prompted", "computed", "bridged"}
        Where the mask comes from; "bridged" is the shape between its neighbours.
    found : Candidate
        The mask, with the scores that the model gave it.
    overlap : float
        How much it is like its neighbour, 0 to 1; 1 if prompted.
    agreement : float
        IoU of what the two prompted slices around it say; NaN if only one does.
    is_suspicious : bool
        Worth a look: it failed at first, or both sides disagree.
    contrast : float
        How much brighter or darker it is than what is around it, in gray values of
        255; NaN if that is not asked.
    """

    index: int
    state: State
    found: Candidate
    overlap: float = 1.0
    agreement: float = float("nan")
    is_suspicious: bool = False
    contrast: float = float("nan")


@dataclass(frozen=True, slots=True)
class Stop:
    """Where the object was no longer followed, and why.

    Parameters
    ----------
    index : int
        The first slice without the object.
    step : {1, -1}
        The direction.
    reason : str
        For people.
    has_faded : bool
        The image says so, whatever the masks are.
    """

    index: int
    step: int
    reason: str
    has_faded: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class _Span:
    slices: dict[int, SliceResult]
    stops: list[Stop]

    def before(self, end: Stop) -> _Span:
        """Return what lies before an end; the object does not go on beyond it."""
        beyond = [i for i in self.slices if (i - end.index) * end.step >= 0]
        slices = {i: each for i, each in self.slices.items() if i not in beyond}
        return _Span(slices, [end])


@dataclass(frozen=True, slots=True, eq=False)
class Propagation:
    """One object in a stack.

    Parameters
    ----------
    slices : dict of int to SliceResult
        By slice, ascending.
    stops : list of Stop
        Both ends, and where a gap between prompted slices could not be followed.
    spans, prompted, clearest
        What `propagate` takes over when it is given this as `previous`.
    """

    slices: dict[int, SliceResult]
    stops: list[Stop]
    spans: dict[Any, _Span] = field(default_factory=dict, repr=False)
    prompted: dict[Any, SliceResult] = field(default_factory=dict, repr=False)
    clearest: float = 0.0

    @property
    def suspicious(self) -> list[int]:
        """Slices that are worth a look."""
        return [i for i, each in self.slices.items() if each.is_suspicious]

    def mask(self, index: int, shape: tuple[int, int]) -> NDArray[np.bool_]:
        """Return the object in one slice.

        Parameters
        ----------
        index : int
            The slice.
        shape : tuple of int
            (height, width) of a plane, in pixels.

        Returns
        -------
        (height, width) array of bool
        """
        plane = np.zeros(shape, bool)
        if index in self.slices:
            found = self.slices[index].found
            plane[found.box.slices] = found.mask
        return plane


@job
def propagate(  # noqa: PLR0913 - the arguments of `embed`, and where to go
    image: Any,
    model: Sam,
    prompts: Mapping[int, Prompts | Candidate],
    *,
    along: Literal["z", "t"] = "z",
    at: int = 0,
    within: tuple[int, int] | None = None,
    ends: Collection[int] = (),
    cache: EmbeddingCache | None = None,
    grid: CropGrid | None = None,
    intensity: Intensity | None = None,
    config: PropagateConfig | None = None,
    previous: Propagation | None = None,
) -> Job[Propagation]:
    """Follow one object through a stack.

    Parameters
    ----------
    image : ImageSource, path or array
        What `open_image` takes.
    model : Sam
        From `load_model`.
    prompts : mapping of int to Prompts or Candidate
        By slice: prompts, or a mask that is right as it is. All are obeyed. Negative
        points alone do not start anything: they forbid masks that hold them, and
        correct the mask of `previous` that does.
    along : {"z", "t"}
        The axis to go along.
    at : int
        The frame, along z; the slice, along t.
    within : tuple of int, optional
        First slice, and the one after the last. Default: all.
    ends : collection of int
        Slices without the object; it is not followed into or beyond them.
    cache, grid, intensity
        As in `embed`.
    config : PropagateConfig, optional
        Thresholds.
    previous : Propagation, optional
        An earlier result for the same image, model and thresholds: what did not
        change since is not computed again, and new prompts in a slice correct the
        mask that it has there.

    Yields
    ------
    Step
        With the `SliceResult` of each slice as it is found. A slice between two
        prompted ones may come again, when both sides have met; one beyond the end of
        the object, which is known only when another has come up, is not in the result.

    Returns
    -------
    Propagation
        What was found until then is in the steps, if the job is closed before.

    Raises
    ------
    InputError
        If no slice has positive prompts or a mask, or one lies outside the stack.
    DeviceError
        If the device runs out of memory.
    """
    planes = open_stack(
        image,
        model,
        along=along,
        at=at,
        cache=cache,
        grid=grid,
        intensity=intensity,
    )
    return (
        yield from propagate_in(
            planes,
            prompts,
            within=within,
            ends=ends,
            config=config,
            previous=previous,
        )
    )


@job
def propagate_in(
    planes: StackPlanes,
    prompts: Mapping[int, Prompts | Candidate],
    *,
    within: tuple[int, int] | None = None,
    ends: Collection[int] = (),
    config: PropagateConfig | None = None,
    previous: Propagation | None = None,
) -> Job[Propagation]:
    """Follow one object through a stack that is open, as `propagate` does.

    For several objects, and for corrections: what depends on a slice alone is computed
    once for all that come soon enough.

    Parameters
    ----------
    planes : StackPlanes
        From `napari_sam.engine.stack_planes.open_stack`.
    prompts, within, ends, config, previous
        As in `propagate`.

    Yields
    ------
    Step
        As in `propagate`.

    Returns
    -------
    Propagation

    Raises
    ------
    InputError, DeviceError
        As in `propagate`.
    """
    first, last = _checked_range(planes, prompts, within)
    known = {} if previous is None else previous.prompted
    shown = {} if previous is None else previous.slices
    starts = sorted(
        i
        for i, given in prompts.items()
        if _is_start(given)
        or (i, *_content(given)) in known
        or (i in shown and _is_held(given, shown[i].found))
    )
    if not any(_is_start(prompts[i]) for i in starts):
        raise InputError(
            "no slice has a positive point, a box or a mask; point at the object in "
            "one slice at least"
        )
    config = config or PropagateConfig()
    forbidden = {i: p for i, p in prompts.items() if i not in starts}
    follower = Follower(planes, config, forbidden)
    anchors: dict[int, SliceResult] = {}
    total = last - first
    for i in starts:
        anchors[i] = _anchor(follower, i, prompts[i], known, shown)
        yield Step(len(anchors), total, "propagate", anchors[i])
    done = set(anchors)
    clearest = _clearest(anchors.values())
    if previous is not None and _is_near(clearest, previous.clearest):
        clearest = previous.clearest
    faded = _known_ends(previous, prompts)
    old = {} if previous is None else previous.spans
    spans: dict[Any, _Span] = {}
    for a, b in zip([None, *starts], [*starts, None], strict=True):
        key = (clearest, *_key(a, b, prompts, ends, (first, last)))
        if key in old:
            spans[key] = old[key]
            done.update(old[key].slices)
            continue
        end = next((e for e in faded if _is_beyond(e, a, b)), None)
        work = _Work(follower, anchors, ends, (first, last), clearest, end)
        for result in work.span(a, b):
            done.add(result.index)
            yield Step(len(done), total, "propagate", result)
        spans[key] = work.result
    slices: dict[int, SliceResult] = {}
    stops: list[Stop] = []
    for span in _ended(list(spans.values()), config):
        slices |= span.slices
        stops += span.stops
    prompted = {(i, *_content(prompts[i])): slices[i] for i in starts}
    return Propagation(dict(sorted(slices.items())), stops, spans, prompted, clearest)


class _Work:
    """Computes one span; its result is there when `span` is through."""

    def __init__(
        self,
        follower: Follower,
        anchors: Mapping[int, SliceResult],
        ends: Collection[int],
        limits: tuple[int, int],
        clearest: float,
        end: Stop | None,
    ) -> None:
        self.follower = follower
        self.anchors = anchors
        self.ends = ends
        self.limits = limits
        self.clearest = clearest
        self.end = end
        self.result = _Span({}, [])

    def span(self, a: int | None, b: int | None) -> Iterable[SliceResult]:
        """Follow the object from prompted slice `a` to `b`; None is the stack's end."""
        anchors = {i: self.anchors[i] for i in (a, b) if i is not None}
        self.result.slices.update(anchors)
        up: dict[int, SliceResult] = {}
        down: dict[int, SliceResult] = {}
        if a is not None:
            yield from self._walk(anchors[a], 1, b, up)
        if b is not None:
            yield from self._walk(anchors[b], -1, a, down)
        if a is None or b is None or any(a < i < b for i in self.ends):
            self.result.slices.update(up | down)
            return
        # the walks met, so that they did not end before is no news
        self.result.stops[:] = [s for s in self.result.stops if a < s.index < b]
        for i in range(a + 1, b):
            met = self._meet(anchors[a], anchors[b], i, up.get(i), down.get(i))
            self.result.slices[i] = met
            yield met

    def _walk(
        self,
        anchor: SliceResult,
        step: int,
        until: int | None,
        found: dict[int, SliceResult],
    ) -> Iterable[SliceResult]:
        beyond = self.limits[1] if step > 0 else self.limits[0] - 1
        last = beyond if until is None else until
        way = range(anchor.index + step, last, step)
        history = [(anchor.index, anchor.found)]
        failed: list[Stop] = []
        contrasts = [(anchor.index, anchor.contrast)]
        clearest = self.clearest
        for k, i in enumerate(way):
            if i in self.ends:
                failed = failed or [Stop(i, step, "marked as the end of the object")]
                break
            if self.end is not None and i == self.end.index:
                failed = [self.end]
                break
            answer = self.follower.next(i, history, way[k + 1 :])
            if isinstance(answer, Stopped):
                failed.append(Stop(i, step, answer.reason))
                if len(failed) > self.follower.config.max_gap:
                    break
                continue
            for stop in failed:
                gap = self._fill(history[-1], (i, answer.found), stop.index, clearest)
                found[stop.index] = gap
                yield gap
            failed = []
            history = [*history[-1:], (i, answer.found)]
            found[i] = self._computed(i, answer, clearest)
            yield found[i]
            contrasts.append((i, found[i].contrast))
            clearest = np.fmax(clearest, found[i].contrast)
            end = None
            if until is None:
                end = fade(contrasts, self.clearest, self.follower.config)
            if end is not None:
                failed = [Stop(end.at, step, end.reason, True)]
                for j in [j for j in found if (j - end.at) * step >= 0]:
                    del found[j]
                break
        self.result.stops.append(
            failed[0] if failed else Stop(last, step, "the stack ends")
        )

    def _fill(
        self,
        before: tuple[int, Candidate],
        after: tuple[int, Candidate],
        index: int,
        clearest: float,
    ) -> SliceResult:
        """Ask once more in a gap, now that both sides are known."""
        between = _bridge(before, after, index)
        asked = self.follower.like(index, between.found)
        if isinstance(asked, Stopped):
            return between
        return replace(self._computed(index, asked, clearest), is_suspicious=True)

    def _computed(self, i: int, answer: Answer, clearest: float) -> SliceResult:
        clear, contrast = self.follower.clear_part(i, answer.found, clearest)
        return SliceResult(i, "computed", clear, answer.overlap, contrast=contrast)

    def _meet(
        self,
        a: SliceResult,
        b: SliceResult,
        index: int,
        up: SliceResult | None,
        down: SliceResult | None,
    ) -> SliceResult:
        """Choose between what both sides say about a slice."""
        agreement = up.found.iou(down.found) if up and down else float("nan")
        share = (index - a.index) / (b.index - a.index)
        if up and down and agreement >= self.follower.config.min_agreement:
            nearer = up if share <= 0.5 else down
            return replace(nearer, agreement=agreement)
        between = _bridge((a.index, a.found), (b.index, b.found), index)
        asked = self.follower.like(index, between.found)
        offers = [r for r in (up, down) if r is not None]
        if not isinstance(asked, Stopped):
            offers.append(self._computed(index, asked, self.clearest))
        best = max(offers, key=lambda r: r.found.iou(between.found), default=between)
        return replace(best, agreement=agreement, is_suspicious=True)


def _anchor(
    follower: Follower,
    index: int,
    given: Prompts | Candidate,
    known: Mapping[Any, SliceResult],
    shown: Mapping[int, SliceResult],
) -> SliceResult:
    """Return the object in a prompted slice; new prompts correct what was there."""
    content = (index, *_content(given))
    if content in known:
        return known[content]
    if isinstance(given, Candidate):
        found = given
    else:
        earlier = shown[index].found if index in shown else None
        others = [each for each in known.values() if each.index != index]
        other = min(others, key=lambda each: abs(each.index - index), default=None)
        found = follower.prompted(
            index, given, earlier, None if other is None else other.found
        )
    _, contrast = follower.clear_part(index, found)
    return SliceResult(index, "prompted", found, contrast=contrast)


def _clearest(results: Iterable[SliceResult]) -> float:
    """Return the largest contrast; 0 if none says anything."""
    known = [each.contrast for each in results if each.contrast >= FLAT]
    return max(known, default=0.0)


def _is_near(one: float, two: float) -> bool:
    """Whether contrasts are alike, so that what was found with one need not change."""
    return min(one, two) >= _SAME_CONTRAST * max(one, two)


def _ended(spans: list[_Span], config: PropagateConfig) -> list[_Span]:
    """End both outer spans where they fade beside all that is known now."""
    ended = [*spans]
    for k, step in ((0, -1), (-1, 1)):
        others = [each for each in spans if each is not spans[k]]
        clearest = _clearest(r for each in others for r in each.slices.values())
        way = sorted(spans[k].slices, key=lambda i: step * i)
        contrasts = [(i, spans[k].slices[i].contrast) for i in way]
        end = fade(contrasts, clearest, config, is_all=True)
        if end is not None:
            ended[k] = spans[k].before(Stop(end.at, step, end.reason, True))
    return ended


def _known_ends(
    previous: Propagation | None, prompts: Mapping[int, Prompts | Candidate]
) -> list[Stop]:
    """Return where the object was seen to fade, if prompts were only added."""
    if previous is None:
        return []
    if not all(i in prompts for i, *_ in previous.prompted):
        return []
    return [stop for stop in previous.stops if stop.has_faded]


def _is_beyond(end: Stop, a: int | None, b: int | None) -> bool:
    """Whether an end lies on the way from `a` or `b` to the end of the stack."""
    if end.step < 0:
        return a is None and b is not None and end.index < b
    return b is None and a is not None and end.index > a


def _bridge(
    before: tuple[int, Candidate], after: tuple[int, Candidate], index: int
) -> SliceResult:
    """Return the shape between two slices, as the object in a slice between them."""
    (z0, first), (z1, second) = before, after
    region = first.box.union(second.box)
    share = (index - z0) / (z1 - z0)
    mask = shape_between(first.within(region), second.within(region), share)
    shape = Candidate(region, mask, 0.0, 0.0).with_mask(mask)
    return SliceResult(index, "bridged", shape, is_suspicious=True)


def _is_start(given: Prompts | Candidate) -> bool:
    if isinstance(given, Candidate):
        return True
    return given.has_box or bool(given.positive.any())


def _is_held(given: Prompts | Candidate, found: Candidate) -> bool:
    """Whether a mask holds a negative point, so that the point corrects it."""
    if isinstance(given, Candidate):
        return False
    points = given.points[~given.positive]
    return any(holds(found, point[None]) for point in points)


def _checked_range(
    planes: StackPlanes,
    prompts: Mapping[int, Prompts | Candidate],
    within: tuple[int, int] | None,
) -> tuple[int, int]:
    first, last = within or (0, planes.n)
    if not 0 <= first < last <= planes.n:
        raise InputError(
            f"slices {first} to {last} of a stack of {planes.n}; count from 0"
        )
    outside = sorted(i for i in prompts if not first <= i < last)
    if outside:
        raise InputError(
            f"prompts in slices {outside}; give slices from {first} to {last - 1}"
        )
    for i, given in prompts.items():
        if isinstance(given, Candidate) and not given.area:
            raise InputError(f"the mask of slice {i} is empty; mark it as an end")
    return first, last


def _key(
    a: int | None,
    b: int | None,
    prompts: Mapping[int, Prompts | Candidate],
    ends: Collection[int],
    limits: tuple[int, int],
) -> tuple[Any, ...]:
    """Everything that a span depends on."""
    first = limits[0] if a is None else a
    last = limits[1] - 1 if b is None else b
    inside = sorted(i for i in prompts if first <= i <= last)
    stops = tuple(sorted(i for i in ends if first <= i <= last))
    return (a, b, first, last, stops, *((i, *_content(prompts[i])) for i in inside))


def _content(given: Prompts | Candidate) -> tuple[Any, ...]:
    if isinstance(given, Candidate):
        return given.box, given.mask.tobytes()
    mask = None if given.mask is None else given.mask.tobytes()
    arrays = (given.points, given.positive, given.boxes)
    return (*(array.tobytes() for array in arrays), mask)
