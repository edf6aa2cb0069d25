"""Prompts of files and layers, as objects."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from napari_sam.cache import EmbeddingCache
from napari_sam.engine.given import ask_for, edits_of, given_by, read_given
from napari_sam.engine.jobs import run
from napari_sam.engine.planes import Planes
from napari_sam.engine.records import DrawnShape, ObjectRecord, drawn_by
from napari_sam.engine.request import PlaneView
from napari_sam.images import ImageSource
from napari_sam.labels import ArrayLabels
from napari_sam.prompts.drawn import POINT, Drawn, write_drawn
from napari_sam.prompts.table import write_drawn_table
from tests.engine.oracle import OracleSam, discs, image_of

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

FLAT = (None, None)


def points(*places: tuple[float, ...], **others: Any) -> Drawn:
    corners = tuple(np.array([each], np.float64) for each in places)
    return Drawn((POINT,) * len(places), corners, **others)


def test_points_without_kinds_are_objects_of_their_own() -> None:
    found = given_by(points((1, 2), (3, 4)), FLAT)
    assert [each.draft.points.tolist() for each in found] == [[[1, 2]], [[3, 4]]]
    assert all(each.draft.positive.all() for each in found)


def test_clicked_points_of_a_plane_are_one_object() -> None:
    drawn = points((1, 2), (3, 4), positive=(True, False))
    (found,) = given_by(drawn, FLAT)
    assert found.draft.points.tolist() == [[1, 2], [3, 4]]
    assert found.draft.positive.tolist() == [True, False]


def test_numbers_say_what_belongs_together() -> None:
    drawn = points((1, 2), (3, 4), (5, 6), objects=(7, 2, 7))
    found = given_by(drawn, FLAT)
    assert [len(each.draft.points) for each in found] == [2, 1]


def test_points_of_a_stack_know_their_plane() -> None:
    drawn = points((3.4, 1, 2), (0, 3, 4))
    found = given_by(drawn, (8, None, None))
    assert [each.index for each in found] == [(3, None, None), (0, None, None)]
    # rows and columns may be any two axes
    found = given_by(drawn, (None, 5, None))
    assert [each.index for each in found] == [(None, 1, None), (None, 3, None)]
    assert found[0].draft.points.tolist() == [[pytest.approx(3.4), 2]]
    # points of a plane lie on the one that is looked at
    (flat,) = given_by(points((1, 2)), (8, None, None))
    assert flat.index == (8, None, None)
    assert flat.draft.points.tolist() == [[1, 2]]


def test_each_shape_is_an_object() -> None:
    square = np.array([[1, 2], [1, 8], [5, 8], [5, 2]], np.float64)
    drawn = Drawn(("rectangle", "polygon", "path"), (square, square, square[:2]))
    found = given_by(drawn, FLAT)
    assert [each.draft.shapes[0].kind for each in found] == ["box", "area", "line"]
    assert found[0].draft.shapes[0].corners.tolist() == [[1, 2], [5, 8]]


def test_a_table_of_the_library_is_read(tmp_path: Path) -> None:
    path = tmp_path / "prompts.csv"
    path.write_text("object,y,x,positive,y0,x0,y1,x1\n4,1,2,1,,,,\n4,,,,0,0,6,8\n")
    (found,) = read_given(path, (2, None, None))
    assert found.index == (2, None, None)
    assert found.draft.points.tolist() == [[1, 2]]
    (box,) = found.draft.shapes
    assert box.kind == "box"
    assert box.corners.tolist() == [[-0.5, -0.5], [5.5, 7.5]]  # edges, as napari draws


def test_prompts_of_objects_are_saved_and_come_back(tmp_path: Path) -> None:
    """Points, boxes, areas and lines, in the table and in napari's own files."""
    index = (2, None, None)
    area = ((1.0, 1.0), (1.0, 9.5), (7.25, 4.0))
    records = [
        ObjectRecord(
            object_id=3,
            index=index,
            points=((1.5, 2.5), (9.0, 9.0)),
            positive=(True, False),
            shapes=(DrawnShape(kind="box", corners=((0.5, 0.5), (5.5, 7.5))),),
        ),
        ObjectRecord(
            object_id=5,
            index=index,
            points=((3.0, 3.0),),
            positive=(False,),
            shapes=(DrawnShape(kind="area", corners=area),),
        ),
        ObjectRecord(
            object_id=8,
            index=index,
            shapes=(DrawnShape(kind="line", corners=area[:2]),),
        ),
    ]
    path = tmp_path / "prompts.csv"
    write_drawn_table(drawn_by(records, on_plane=True), path)
    found = read_given(path, index)
    assert [each.index for each in found] == [index] * 3
    for each, record in zip(found, records, strict=True):
        assert each.draft.points.tolist() == [list(at) for at in record.points]
        assert tuple(each.draft.positive) == record.positive
        (shape,) = each.draft.shapes
        assert DrawnShape.of(shape.kind, shape.corners) == record.shapes[0]

    drawn = drawn_by(records)
    write_drawn(drawn.of_kinds(points=False), path)
    found = read_given(path, (0, None, None))  # napari's files know their planes
    assert [each.index for each in found] == [index] * 3
    shapes = [each.draft.shapes[0] for each in found]
    assert [DrawnShape.of(x.kind, x.corners) for x in shapes] == [
        each.shapes[0] for each in records
    ]
    write_drawn(drawn.of_kinds(points=True), path)
    found = read_given(path, (0, None, None))
    assert [each.draft.points.tolist() for each in found] == [
        [[1.5, 2.5], [9, 9]],
        [[3, 3]],
    ]
    assert [each.draft.positive.tolist() for each in found] == [[True, False], [False]]


@pytest.fixture
def truth() -> NDArray[np.uint32]:
    return discs()


@pytest.fixture
def planes(truth: NDArray[np.uint32]) -> Planes:
    return Planes(OracleSam(truth, scale=4), EmbeddingCache())


def view_of(truth: NDArray[np.uint32]) -> PlaneView:
    return PlaneView(ImageSource(image_of(truth), "YXS"))


def middles(truth: NDArray[np.uint32]) -> list[tuple[float, float]]:
    found = [np.argwhere(truth == n) for n in range(1, int(truth.max()) + 1)]
    return [tuple(each[len(each) // 2].tolist()) for each in found]


def test_many_objects_are_asked_for_and_kept(
    planes: Planes, truth: NDArray[np.uint32]
) -> None:
    places = middles(truth)
    given = given_by(points(*places, (900, 3)), FLAT)
    answered = run(ask_for(planes, given, [view_of(truth)]))
    assert len(answered) == len(places)  # not the one beside the plane
    labels = np.zeros_like(truth)
    target = ArrayLabels(labels)
    edits, records = edits_of(answered, target, planes)
    assert not labels.any()  # nothing is written before somebody writes it
    target.write(edits)
    assert len(edits) == 1
    np.testing.assert_array_equal(labels > 0, truth > 0)
    for each in records:
        at = tuple(round(v) for v in each.points[0])
        np.testing.assert_array_equal(labels == each.object_id, truth == truth[at])
    assert [each.object_id for each in records] == list(range(1, len(places) + 1))
    assert planes.model.n_encoded == 1


def test_objects_that_are_there_keep_their_pixels(
    planes: Planes, truth: NDArray[np.uint32]
) -> None:
    labels = np.where(truth == 1, 9, 0).astype(np.uint32)
    target = ArrayLabels(labels)
    given = given_by(points(*middles(truth)), FLAT)
    answered = run(ask_for(planes, given, [view_of(truth)], complete=False))
    edits, records = edits_of(answered, target, planes)
    target.write(edits)
    np.testing.assert_array_equal(labels == 9, truth == 1)
    # the object that got no pixel has no record, and its id is not left out
    assert [each.object_id for each in records] == list(range(10, 9 + truth.max()))


def test_objects_of_other_planes_wait(
    planes: Planes, truth: NDArray[np.uint32]
) -> None:
    (y, x), *_ = middles(truth)
    given = given_by(points((0, y, x), (1, y, x)), (0, None, None))
    view = replace(view_of(truth), index=(1, None, None))
    (found,) = run(ask_for(planes, given, [view]))
    assert found.given.index == (1, None, None)
