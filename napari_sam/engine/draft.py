"""What is being pointed at before it becomes an object.

A `Draft` is a frozen value, so undoing is putting an old one back. `resolve` turns it
into questions to the network; it is pure, so all rules of prompting are tested here
without a window and without a network.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np

from napari_sam.errors import InputError
from napari_sam.prompts.prompt import Prompts
from napari_sam.prompts.regions import deepest_pixel, points_along
from napari_sam.tiling import Box

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

    from napari_sam.tiling import Crop

ShapeKind: TypeAlias = Literal["box", "area", "line"]

_ELLIPSE_CORNERS = 48


@dataclass(frozen=True, slots=True, eq=False)
class Shape:
    """A drawn shape, for one object.

    Parameters
    ----------
    kind : {"box", "area", "line"}
        A rectangle around the object; a polygon or ellipse that roughly fills it; a
        scribble in it.
    corners : (N, 2) float32 array, (y, x), plane pixels
        Pixel centres have integer coordinates.
    """

    kind: ShapeKind
    corners: NDArray[np.float32]

    @classmethod
    def of_box(cls, box: Sequence[float]) -> Shape:
        """Return the shape of a half-open box y0, x0, y1, x1 in plane pixels."""
        y0, x0, y1, x1 = box
        ends = np.array([[y0, x0], [y1, x1]], np.float32) - 0.5
        return cls("box", ends)


@dataclass(frozen=True, slots=True, eq=False)
class PlaneMask:
    """A mask on a part of a plane.

    Parameters
    ----------
    box : Box
        Plane pixels.
    mask : (h, w) array of bool
    """

    box: Box
    mask: NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Feedback:
    """The chosen answer to earlier prompts of the same object.

    Parameters
    ----------
    logits : (m, m) float32 array
    crop : Crop
        The crop that the logits speak of.
    """

    logits: NDArray[np.float32]
    crop: Crop


@dataclass(frozen=True, slots=True, eq=False)
class Draft:
    """Prompts that are not committed yet, on one plane.

    Parameters
    ----------
    points : (N, 2) float32 array, (y, x), plane pixels
    positive : (N,) array of bool
    shapes : tuple of Shape
        Several shapes are several objects.
    object_id : int, optional
        The object that is refined. Default: a new one.
    start : PlaneMask, optional
        The mask of that object as it was when it was opened again.
    feedback : Feedback, optional
        Answer to a part of these points; never of another object.
    """

    points: NDArray[np.float32] = field(
        default_factory=lambda: np.zeros((0, 2), np.float32)
    )
    positive: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, bool))
    shapes: tuple[Shape, ...] = ()
    object_id: int | None = None
    start: PlaneMask | None = None
    feedback: Feedback | None = None

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to ask."""
        return not len(self.points) and not self.shapes and self.start is None

    def with_points(self, points: ArrayLike, positive: ArrayLike) -> Draft:
        """Return a draft with other points and without feedback."""
        return replace(
            self,
            points=np.array(points, np.float32).reshape(-1, 2),
            positive=np.array(positive, bool).reshape(-1),
            feedback=None,
        )

    def extends(self, other: Draft) -> bool:
        """Whether this is `other` and further points."""
        n = len(other.points)
        return (
            len(self.points) > n > 0
            and self.shapes == other.shapes
            and self.object_id == other.object_id
            and np.array_equal(self.points[:n], other.points)
            and np.array_equal(self.positive[:n], other.positive)
        )


@dataclass(frozen=True, slots=True, eq=False)
class Question:
    """One object that the network is asked for.

    Parameters
    ----------
    prompts : Prompts
        Points and box.
    mask : PlaneMask, optional
        A rough mask to begin with.
    feedback : Feedback, optional
        An earlier answer to refine; goes before `mask`.
    given : Draft, optional
        The points and the shape of the draft that this object was asked with.
    """

    prompts: Prompts
    mask: PlaneMask | None = None
    feedback: Feedback | None = None
    given: Draft | None = None


def resolve(draft: Draft, shape: tuple[int, int]) -> tuple[Question, ...]:
    """Return what to ask: one question for each object.

    Points belong to the smallest shape that holds them, else to the nearest; without
    shapes all points belong to one object. Points outside the plane are left out.

    Parameters
    ----------
    draft : Draft
    shape : tuple of int
        (height, width) of the plane, in pixels.

    Returns
    -------
    tuple of Question
        In the order of the shapes; empty if there is nothing to ask.
    """
    inside = _inside(draft.points, shape)
    points, positive = draft.points[inside], draft.positive[inside]
    if not draft.shapes:
        if draft.start is not None:
            refined = _refine(draft.start, points, positive, draft.feedback)
            return (replace(refined, given=draft),)
        if not positive.any():
            return ()
        prompts = Prompts(points, positive)
        return (Question(prompts, feedback=draft.feedback, given=draft),)
    owners = _owners(points, draft.shapes)
    questions = []
    for number, each in enumerate(draft.shapes):
        own = owners == number
        feedback = draft.feedback if len(draft.shapes) == 1 else None
        question = _ask(each, points[own], positive[own], shape)
        if question is not None:
            given = Draft(points[own], positive[own], (each,))
            questions.append(replace(question, feedback=feedback, given=given))
    return tuple(questions)


def read_shape(kind: str, corners: NDArray[np.float32]) -> Shape:
    """Return what a shape of napari means.

    Parameters
    ----------
    kind : str
        "rectangle", "ellipse", "polygon", "path", "line" and others of napari.
    corners : (N, 2) float32 array, (y, x), plane pixels
    """
    if kind in ("path", "line", "polyline"):
        return Shape("line", corners)
    if kind == "ellipse":
        return Shape("area", _ellipse(corners))
    if kind == "rectangle" and _is_upright(corners):
        return Shape("box", np.stack([corners.min(0), corners.max(0)]))
    return Shape("area", corners)


def rasterised(corners: ArrayLike, shape: tuple[int, int]) -> PlaneMask | None:
    """Return the pixels in a polygon whose centres it holds; None if there are none.

    Parameters
    ----------
    corners : (N, 2) array, (y, x), plane pixels
    shape : tuple of int
        (height, width) of the plane.
    """
    array = np.asarray(corners, np.float64)
    box = _pixels_around(array, shape)
    if not box.area:
        return None
    from skimage.draw import polygon2mask  # slow to import

    mask = polygon2mask(box.shape, array - (box.y0, box.x0))
    tight = Box.around(mask)
    if tight is None:
        return None
    return PlaneMask(tight.shift(box.y0, box.x0), mask[tight.slices])


def polygon_area(corners: ArrayLike) -> float:
    """Return the area in a polygon, by Gauss's shoelace formula.

    Parameters
    ----------
    corners : (N, 2) array, (y, x)

    Examples
    --------
    >>> polygon_area([(0, 0), (0, 4), (3, 4), (3, 0)])
    12.0
    """
    y, x = np.asarray(corners, np.float64).T
    return float(abs(np.dot(y, np.roll(x, 1)) - np.dot(x, np.roll(y, 1))) / 2)


def _ask(
    drawn: Shape,
    points: NDArray[np.float32],
    positive: NDArray[np.bool_],
    shape: tuple[int, int],
) -> Question | None:
    """Return the question that a shape asks; None if it lies beside the plane."""
    if drawn.kind == "line":
        along = points_along(drawn.corners)
        along = along[_inside(along, shape)]
        if not len(along):
            return None
        points = np.concatenate([along, points])
        positive = np.concatenate([np.ones(len(along), bool), positive])
        return Question(Prompts(points, positive))
    if drawn.kind == "area":
        area = rasterised(drawn.corners, shape)
        return None if area is None else _refine(area, points, positive, None)
    first, last = drawn.corners.min(0) + 0.5, drawn.corners.max(0) + 0.5
    limits = np.array(shape, np.float32)
    edges = [*first.clip(0, limits), *last.clip(0, limits)]
    try:
        return Question(Prompts(points, positive, edges))
    except InputError:  # empty: a click without a drag, or beside the plane
        return None


def _refine(
    known: PlaneMask,
    points: NDArray[np.float32],
    positive: NDArray[np.bool_],
    feedback: Feedback | None,
) -> Question:
    """Ask for an object of which a mask is known: box, middle and mask itself."""
    y, x = deepest_pixel(known.mask)
    middle = np.array([[known.box.y0 + y, known.box.x0 + x]], np.float32)
    all_points = np.concatenate([middle, points])
    signs = np.concatenate([[True], positive])
    # points beyond the box enlarge the object: a tight box would forbid it
    grows = bool(_outside(points[positive], known.box).any())
    box = None if grows else (known.box.y0, known.box.x0, known.box.y1, known.box.x1)
    return Question(Prompts(all_points, signs, box), known, feedback)


def _owners(points: NDArray[np.float32], shapes: Sequence[Shape]) -> NDArray[np.int64]:
    """Return for each point the number of its shape."""
    low = np.stack([each.corners.min(0) for each in shapes])
    high = np.stack([each.corners.max(0) for each in shapes])
    at = points[:, None]
    gap = np.maximum(np.maximum(low - at, at - high), 0)
    far = np.hypot(gap[..., 0], gap[..., 1])
    area = np.prod(high - low, axis=1)
    # nearest first; of several that hold the point the smallest
    order = np.lexsort((np.broadcast_to(area, far.shape), far), axis=1)
    return order[:, 0]


def _inside(points: NDArray[np.float32], shape: tuple[int, int]) -> NDArray[np.bool_]:
    return ~_outside(points, Box.whole(shape))


def _outside(points: NDArray[np.float32], box: Box) -> NDArray[np.bool_]:
    (y, x), (y0, x0), (y1, x1) = points.T, (box.y0, box.x0), (box.y1, box.x1)
    beside: NDArray[np.bool_] = (y < y0 - 0.5) | (y > y1 - 0.5)
    beside |= (x < x0 - 0.5) | (x > x1 - 0.5)
    return beside


def _pixels_around(corners: NDArray[np.float64], shape: tuple[int, int]) -> Box:
    low, high = np.floor(corners.min(0)), np.ceil(corners.max(0)) + 1
    y0, x0, y1, x1 = (int(v) for v in (*low, *high))
    return Box(y0, x0, y1, x1).clip(shape)


def _is_upright(corners: NDArray[np.float32]) -> bool:
    """Whether each side of a rectangle runs along an axis."""
    sides = np.abs(np.diff(corners[[0, 1, 2, 3, 0]], axis=0))
    return bool((sides.min(axis=1) < 1e-3 * (1 + sides.max(axis=1))).all())


def _ellipse(corners: ArrayLike) -> NDArray[np.float32]:
    """Return points of the ellipse in a (rotated) rectangle of four corners."""
    array = np.asarray(corners, np.float64)
    centre = array.mean(0)
    first, second = (array[1] - array[0]) / 2, (array[3] - array[0]) / 2
    turn = np.linspace(0, 2 * np.pi, _ELLIPSE_CORNERS, endpoint=False)[:, None]
    found = centre + np.cos(turn) * first + np.sin(turn) * second
    return np.asarray(found, np.float32)
