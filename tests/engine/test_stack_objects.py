"""Objects of a stack in a session, without a window: what is followed and kept."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from napari_sam.cache import EmbeddingCache
from napari_sam.engine import objects
from napari_sam.engine.draft import Shape
from napari_sam.engine.planes import Planes
from napari_sam.engine.propagate import Propagation, Stop
from napari_sam.engine.records import (
    ObjectRecord,
    SliceMark,
    read_records,
    write_records,
)
from napari_sam.engine.request import PlaneView, StackView
from napari_sam.engine.session import Session
from napari_sam.engine.stack_edit import Found, StackEdit, follow
from napari_sam.engine.stack_objects import StackObjects, next_doubtful
from napari_sam.errors import InputError
from napari_sam.images import Intensity
from napari_sam.labels import ArrayLabels
from tests.engine.test_propagate import StackOracle, box_stack, stack_image

COLOURS = Intensity((0, 1, 2), ((0.0, 255.0),) * 3)


class Desk:
    """A session on a stack whose network knows the truth and answers at once."""

    def __init__(self, truth: Any) -> None:
        self.truth = truth
        self.source = stack_image(truth)
        self.labels = np.zeros(truth.shape, np.uint32)
        self.oracle = StackOracle(truth)
        self.planes = Planes(self.oracle, EmbeddingCache())
        self.session = Session(None, ArrayLabels(self.labels))
        self.session.request.connect(
            lambda request: self.session.receive(self.planes.answer(request))
        )
        self.objects = StackObjects(self.session)
        self.within = (0, len(truth))
        self.look(0)

    def look(self, z: int) -> None:
        view = PlaneView(self.source, (0, z), COLOURS, (z, None, None))
        self.session.set_view(view)

    def click(self, z: int, y: float, x: float, *, positive: bool = True) -> None:
        self.look(z)
        draft = self.session.draft
        self.session.set_points(
            [*draft.points.tolist(), (y, x)], [*draft.positive.tolist(), positive]
        )

    @property
    def stack(self) -> StackView:
        return StackView(self.source, "z", 0, self.session.view, 0)

    def follow(self, followed: Any, stop_after: int | None = None) -> Any:
        stack = self.stack
        followed = self.objects.recall(stack, followed, "oracle")
        by = {"model": "oracle"}
        edit = StackEdit(self.objects, stack, followed, self.within, "oracle", by)
        steps = follow(self.planes, stack, followed, self.within)
        for number, step in enumerate(steps):
            edit.take(step.value)
            if number + 1 == stop_after:
                steps.close()
                break
        return edit.finish()

    def follow_current(self, object_id: int = 0, **options: Any) -> Any:
        found = self.objects.current(self.stack, self.within, object_id)
        return self.follow(found, **options)

    def states(self, object_id: int = 1) -> dict[int, str]:
        marks = self.objects.marks(self.stack, object_id)
        return {mark.at: mark.state for mark in marks}


def test_all_objects_share_the_slices_that_are_open(desk: Desk) -> None:
    desk.labels[4] = desk.truth[4]
    desk.look(4)
    desk.follow(desk.objects.all_here(desk.stack, desk.within))
    np.testing.assert_array_equal(desk.labels, desk.truth)
    # of slice 4 nothing is asked
    assert sorted(desk.oracle.detailed) == [0, 1, 2, 3, 5, 6, 7, 8]
    opened = desk.planes.stack(desk.stack)
    desk.look(2)
    assert desk.planes.stack(desk.stack) is opened
    larger = PlaneView(desk.source, (0, 2), COLOURS, (2, None, None), scale=0.5)
    other = desk.planes.stack(StackView(desk.source, "z", 0, larger, 0))
    assert other is not opened
    assert other.predictor(2).embedding.grid.scale == 0.5


@pytest.fixture
def desk() -> Desk:
    """Two boxes: one in slices 1 to 7, one that drifts through all nine."""
    return Desk(box_stack(9, (1, 1, 8, 4, 4, 8, 0), (2, 0, 9, 18, 6, 8, 1)))


def test_a_click_becomes_an_object_of_all_slices_and_one_step(desk: Desk) -> None:
    desk.click(4, 8, 8)
    before = desk.session.draft
    assert desk.follow_current() == [1]
    np.testing.assert_array_equal(desk.labels == 1, desk.truth == 1)
    assert (desk.labels > 0).sum() == (desk.truth == 1).sum()
    assert desk.session.draft.is_empty
    expected = dict.fromkeys(range(1, 8), "computed")
    assert desk.states() == {0: "stopped", **expected, 4: "prompted", 8: "stopped"}
    record = desk.session.records[1]
    assert record.points == ((8.0, 8.0),)
    assert (record.model, record.along) == ("oracle", 0)
    assert "overlap" in record.slices[0].reason

    assert desk.session.undo() == "follow object 1"
    assert not desk.labels.any()
    assert not desk.session.records
    assert desk.session.draft is before
    desk.session.redo()
    np.testing.assert_array_equal(desk.labels == 1, desk.truth == 1)
    assert desk.states()[4] == "prompted"


def test_prompts_of_several_slices_are_one_object(desk: Desk) -> None:
    desk.click(1, 22, 11)
    desk.click(7, 22, 17)
    desk.click(8, 2, 2, positive=False)
    desk.look(7)
    assert desk.follow_current() == [1]
    np.testing.assert_array_equal(desk.labels == 1, desk.truth == 2)
    prompted = [at for at, state in desk.states().items() if state == "prompted"]
    assert prompted == [1, 7]
    assert not desk.session.drafts_by_plane()  # all of them have served
    desk.session.undo()
    assert sorted(index[0] for index in desk.session.drafts_by_plane()) == [1, 7, 8]
    desk.session.redo()
    assert not desk.session.drafts_by_plane()


def test_two_boxes_in_one_slice_are_two_objects(desk: Desk) -> None:
    desk.look(4)
    desk.session.set_shapes(
        [Shape.of_box((4, 4, 12, 12)), Shape.of_box((18, 10, 26, 18))]
    )
    assert desk.follow_current() == [1, 2]
    np.testing.assert_array_equal(desk.labels, desk.truth)
    desk.session.undo()
    assert not desk.labels.any()


def test_all_objects_of_a_slice(desk: Desk) -> None:
    for y, x in ((8, 8), (22, 13)):
        desk.click(4, y, x)
        desk.session.commit()
    followed = desk.objects.all_here(desk.stack, desk.within)
    assert [each.object_id for each in followed] == [1, 2]
    assert desk.follow(followed) == [1, 2]
    np.testing.assert_array_equal(desk.labels, desk.truth)
    scores = [m.predicted_iou for m in desk.objects.marks(desk.stack, 1) if m.at == 4]
    assert scores == [pytest.approx(0.9)]  # from the labels, and yet known
    assert desk.session.undo() == "follow 2 objects"
    assert set(np.flatnonzero(desk.labels.any((1, 2)))) == {4}  # what was kept before


def test_what_was_computed_stays_when_it_is_stopped(desk: Desk) -> None:
    desk.click(4, 8, 8)
    desk.follow_current(stop_after=3)
    assert desk.states() == {2: "computed", 3: "computed", 4: "prompted"}
    np.testing.assert_array_equal(desk.labels[2:5] == 1, desk.truth[2:5] == 1)
    assert set(np.flatnonzero(desk.labels.any((1, 2)))) == {2, 3, 4}
    desk.session.undo()
    assert not desk.labels.any()


def test_a_correction_computes_only_what_depends_on_it(desk: Desk) -> None:
    desk.click(2, 22, 12)
    desk.follow_current()
    desk.objects.check(desk.stack, 1, checked=True)
    desk.look(6)
    desk.session.open_object(1)
    desk.session.commit()
    assert desk.states()[6] == "prompted"
    desk.oracle.decoded.clear()
    assert desk.follow_current(1) == [1]
    # up from 2 and down from 6, three slices each, and from 6 to the end
    assert len(desk.oracle.decoded) == 3 + 3 + 2
    np.testing.assert_array_equal(desk.labels == 1, desk.truth == 2)
    marks = desk.objects.marks(desk.stack, 1)
    assert [mark.at for mark in marks if mark.is_checked] == [2]


def test_painting_by_hand_is_obeyed(desk: Desk) -> None:
    desk.click(4, 8, 8)
    desk.follow_current()
    desk.look(6)
    desk.labels[6, 4:12, 4:6] = 0  # napari's brush
    desk.session.note_hand_edit([1])
    assert desk.states()[6] == "prompted"
    desk.follow_current(1)
    assert desk.labels[6, 4:12, 4:6].sum() == 0
    np.testing.assert_array_equal(desk.labels[:6] == 1, desk.truth[:6] == 1)
    # erased as a whole, it has ended there
    desk.labels[6] = 0
    desk.session.note_hand_edit([1])
    desk.look(4)
    desk.follow_current(1)
    assert not desk.labels[6:].any()
    assert desk.states()[6] == "end"


def test_an_end_takes_what_lies_beyond_and_is_respected(desk: Desk) -> None:
    desk.click(4, 22, 14)
    desk.follow_current()
    desk.look(6)
    desk.objects.end_here(desk.stack, 1)
    assert not desk.labels[6:].any()
    assert desk.labels[:6].any((1, 2)).all()
    assert desk.states()[6] == "end"
    desk.look(4)
    desk.follow_current(1)
    assert not desk.labels[6:].any()
    desk.session.undo()
    desk.session.undo()
    assert desk.labels.any((1, 2)).all()
    desk.look(4)
    with pytest.raises(InputError, match="no other slice"):
        desk.objects.end_here(desk.stack, 1)


def test_a_slice_where_the_object_was_lost_is_given_to_it(desk: Desk) -> None:
    desk.within = (0, 4)
    desk.click(2, 22, 12)
    desk.follow_current()
    desk.within = (0, 9)
    desk.click(6, 22, 16)
    desk.session.assign(1)
    assert desk.follow_current() == [1]
    np.testing.assert_array_equal(desk.labels == 1, desk.truth == 2)
    assert desk.states()[2] == desk.states()[6] == "prompted"


def test_only_the_range_changes(desk: Desk) -> None:
    desk.click(4, 8, 8)
    desk.follow_current()
    desk.labels[2] = 0
    desk.look(4)
    desk.within = (4, 7)
    desk.follow_current(1)
    assert not desk.labels[2].any()
    assert desk.states()[7] == "computed"  # from before


def test_objects_keep_off_each_other() -> None:
    truth = box_stack(5, (1, 0, 5, 4, 4, 8, 0))
    desk = Desk(truth)
    desk.labels[3, 4:8, 4:12] = 7
    desk.session.set_labels(ArrayLabels(desk.labels))
    desk.click(1, 8, 8)
    assert desk.follow_current() == [8]
    assert (desk.labels[3] == 7).sum() == 32
    assert (desk.labels[3] == 8).sum() == 32
    desk.session.undo()
    assert (desk.labels == 7).sum() == 32
    desk.session.state.on_overlap = "overwrite"
    desk.follow_current()
    assert not (desk.labels == 7).any()
    desk.session.undo()
    assert (desk.labels == 7).sum() == 32


def test_what_somebody_does_meanwhile_stays(desk: Desk) -> None:
    desk.click(4, 8, 8)
    stack = desk.stack
    followed = desk.objects.current(stack, desk.within)
    edit = StackEdit(desk.objects, stack, followed, desk.within, "oracle", {})
    for step in follow(desk.planes, stack, followed, desk.within):
        edit.take(step.value)
    desk.labels[4, 4:12, 4] = 9
    desk.click(0, 22, 10)
    assert desk.session.commit() == [2]
    edit.finish()
    desk.session.undo()
    np.testing.assert_array_equal(desk.labels[4, 4:12, 4], 9)
    assert (desk.labels[0] == 2).any()


def test_slices_beyond_an_end_that_is_known_later_go(desk: Desk) -> None:
    desk.click(4, 8, 8)
    stack = desk.stack
    followed = desk.objects.current(stack, desk.within)
    edit = StackEdit(desk.objects, stack, followed, desk.within, "oracle", {})
    for step in follow(desk.planes, stack, followed, desk.within):
        what = step.value.what
        if isinstance(what, Propagation):
            assert desk.labels[6:8].any((1, 2)).all()
            kept = {i: each for i, each in what.slices.items() if i < 6}
            what = Propagation(kept, [Stop(6, 1, "another object follows")])
        edit.take(Found(1, what))
    edit.finish()
    assert set(np.flatnonzero(desk.labels.any((1, 2)))) == {1, 2, 3, 4, 5}
    assert desk.states()[6] == "stopped"
    assert 7 not in desk.states()
    desk.session.undo()
    assert not desk.labels.any()


def test_deleting_in_one_slice_and_in_all(desk: Desk) -> None:
    desk.click(4, 8, 8)
    desk.follow_current()
    desk.look(3)
    objects.delete(desk.session, [1])
    assert 3 not in desk.states()
    desk.look(4)
    desk.objects.delete(desk.stack, 1)
    assert not desk.labels.any()
    assert 1 not in desk.session.records
    desk.session.undo()
    assert set(np.flatnonzero(desk.labels.any((1, 2)))) == {1, 2, 4, 5, 6, 7}


def test_following_waits_for_the_answer_to_the_last_click(desk: Desk) -> None:
    desk.click(4, 6, 6)
    desk.session.request.disconnect()  # from now on it takes its time
    desk.click(4, 7, 6)
    assert desk.session.masks  # of the first click
    with pytest.raises(InputError, match="is still to come"):
        desk.objects.current(desk.stack, desk.within)


def test_nothing_to_follow(desk: Desk) -> None:
    with pytest.raises(InputError, match="nothing to follow"):
        desk.follow_current()
    with pytest.raises(InputError, match="no objects"):
        desk.objects.all_here(desk.stack, desk.within)
    with pytest.raises(InputError, match="nothing is known"):
        desk.objects.check(desk.stack, 1, checked=True)


def test_marks_are_kept_in_files(desk: Desk, tmp_path: Any) -> None:
    desk.click(4, 8, 8)
    desk.follow_current()
    write_records(desk.session.records.values(), tmp_path / "objects.json")
    assert read_records(tmp_path / "objects.json") == desk.session.records


def test_files_of_marks_are_utf_8_whatever_the_system_writes(tmp_path: Any) -> None:
    path = tmp_path / "objects.json"
    program = (
        "import sys; from pathlib import Path; from napari_sam.engine import records\n"
        "made = records.ObjectRecord(object_id=1, index=(), model='Kern_\\xb5')\n"
        "records.write_records([made], Path(sys.argv[1]))"
    )
    # a system whose own encoding is ASCII, as on Windows it is one of 8 bits
    system = {**os.environ, "LC_ALL": "C", "PYTHONCOERCECLOCALE": "0"}
    subprocess.run(
        [sys.executable, "-X", "utf8=0", "-c", program, path], env=system, check=True
    )
    assert read_records(path)[1].model == "Kern_µ"


def test_the_next_doubtful_slice() -> None:
    marks = [
        SliceMark(at=0, state="stopped", reason="no mask"),
        SliceMark(at=3, state="computed", is_suspicious=True, is_checked=True),
        SliceMark(at=5, state="bridged", is_suspicious=True),
        SliceMark(at=6, state="computed"),
    ]
    assert [next_doubtful(marks, here) for here in (0, 4, 5, 6)] == [5, 5, 0, 0]
    assert next_doubtful(marks[3:], 0) is None


def test_planes_in_line_are_slices_of_one_object() -> None:
    record = ObjectRecord(object_id=1, index=(2, 5, None, None))
    assert record.made_at((2, 5, None, None)) is record
    assert record.made_at((3, 6, None, None)) is record
    both = record.made_at((2, 8, None, None))
    assert [(m.at, m.state) for m in both.slices] == [(5, "prompted"), (8, "prompted")]
    assert both.along == 1
    assert both.made_at((1, 5, None, None)) is both
