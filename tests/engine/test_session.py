"""A whole annotation without a window: clicks, answers, commits, undo."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from napari_sam.engine import objects
from napari_sam.engine.draft import Shape
from napari_sam.engine.label_store import LabelStore
from napari_sam.engine.planes import Planes
from napari_sam.engine.request import PlaneView
from napari_sam.engine.saved_session import PixelWriter, Snapshot, read_session
from napari_sam.engine.session import Session
from napari_sam.errors import FormatError, InputError, MissingFileError
from napari_sam.images import ImageSource
from napari_sam.labels import ArrayLabels
from napari_sam.prompts import read_prompts
from napari_sam.tiling import Box
from tests.engine.discs import DiscPlanes

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_sam.engine.request import PredictRequest
    from napari_sam.model import Sam

Cells = "tuple[NDArray[np.uint8], NDArray[np.uint32]]"


class Desk:
    """A session with labels, and a network that answers at once or when told."""

    def __init__(self, image: NDArray[np.uint8], truth: NDArray[np.uint32]) -> None:
        self.truth = truth
        self.labels = np.zeros(truth.shape, np.uint32)
        self.planes = DiscPlanes(truth)
        self.view = PlaneView(ImageSource(image))
        self.session = Session(self.view, ArrayLabels(self.labels))
        self.waiting: list[PredictRequest] = []
        self.is_prompt = True
        self.session.request.connect(self._requested)

    def _requested(self, request: PredictRequest) -> None:
        self.waiting.append(request)
        if self.is_prompt:
            self.answer()

    def answer(self) -> list[bool]:
        requests, self.waiting = self.waiting, []
        return [self.session.receive(self.planes.answer(each)) for each in requests]

    def click(self, *points: tuple[float, float], positive: object = None) -> None:
        signs = [True] * len(points) if positive is None else positive
        self.session.set_points(points, signs)

    def shown(self) -> NDArray[np.bool_]:
        plane = np.zeros(self.truth.shape, bool)
        for each in self.session.masks:
            plane[each.box.slices] |= each.mask
        return plane


@pytest.fixture
def desk(cells: tuple[NDArray[np.uint8], NDArray[np.uint32]]) -> Desk:
    return Desk(*cells)


def test_a_click_shows_the_best_answer_and_commit_writes_it(desk: Desk) -> None:
    desk.click((24, 60))
    np.testing.assert_array_equal(desk.shown(), desk.truth == 2)
    assert not desk.labels.any()  # nothing is written before it is kept
    assert desk.session.commit() == [1]
    np.testing.assert_array_equal(desk.labels, desk.truth == 2)
    assert desk.session.draft.is_empty
    assert not desk.session.masks


def test_the_three_answers_can_be_chosen(desk: Desk) -> None:
    desk.click((24, 60))
    chosen = []
    for answer in range(3):
        desk.session.choose(answer)
        chosen.append(desk.shown())
        assert desk.session.masks[0].answer == answer
    np.testing.assert_array_equal(chosen[2], desk.truth > 0)
    assert chosen[0].sum() < chosen[1].sum() < chosen[2].sum()
    desk.session.choose(7)  # there is none
    assert desk.session.masks[0].answer == 2
    desk.session.commit()
    np.testing.assert_array_equal(desk.labels > 0, desk.truth > 0)


def test_a_stale_answer_is_dropped(desk: Desk) -> None:
    desk.is_prompt = False
    desk.click((20, 20))
    desk.click((24, 60))
    assert desk.session.is_waiting
    assert desk.answer() == [False, True]
    np.testing.assert_array_equal(desk.shown(), desk.truth == 2)
    desk.click((20, 20))
    desk.session.reject()
    assert desk.answer() == [False]
    assert not desk.session.masks
    assert desk.session.commit() == []


def test_added_points_refine_the_chosen_answer_and_moved_ones_do_not(
    desk: Desk,
) -> None:
    desk.click((24, 60))
    desk.click((24, 60), (26, 62))
    (question,) = desk.planes.requests[-1].questions
    assert question.feedback is not None
    assert (question.feedback.logits == 1).all()  # answer to one point
    desk.click((24, 60), (25, 66))  # the second point was dragged
    assert desk.planes.requests[-1].questions[0].feedback is None


def test_logits_never_leak_into_the_next_object(desk: Desk) -> None:
    desk.click((24, 60))
    desk.click((24, 60), (26, 62))
    desk.session.commit()
    desk.click((20, 20))
    assert desk.planes.requests[-1].questions[0].feedback is None
    desk.session.reject()
    desk.click((60, 30), (61, 31))
    assert desk.planes.requests[-1].questions[0].feedback is None


def test_many_boxes_are_many_objects_in_one_request(desk: Desk) -> None:
    boxes = [(8, 8, 33, 33), (48, 16, 74, 44), (48, 66, 84, 102)]
    desk.session.set_shapes([Shape.of_box(box) for box in boxes])
    assert len(desk.planes.requests) == 1
    assert desk.session.commit() == [1, 2, 3]
    for object_id, true_id in [(1, 1), (2, 3), (3, 4)]:
        np.testing.assert_array_equal(desk.labels == object_id, desk.truth == true_id)
    assert desk.session.undo() == "commit objects 1, 2, 3"
    assert not desk.labels.any()
    assert len(desk.session.draft.shapes) == 3


@pytest.mark.parametrize("stored", [False, True])
def test_many_objects_are_deleted_in_one_step(desk: Desk, stored: bool) -> None:
    if stored:
        store = LabelStore.create(desk.truth.shape)
        desk.session.set_labels(store)
        labels: ArrayLabels | LabelStore = store
    else:
        labels = ArrayLabels(desk.labels)
        desk.session.set_labels(labels)
    plane, whole = (None, None), Box(0, 0, *desk.truth.shape)
    boxes = [(8, 8, 33, 33), (48, 16, 74, 44), (48, 66, 84, 102)]
    desk.session.set_shapes([Shape.of_box(box) for box in boxes])
    assert desk.session.commit() == [1, 2, 3]
    before = labels.read(plane, whole)
    objects.delete(desk.session, [3, 9, 1])  # 9 was never there
    np.testing.assert_array_equal(
        labels.read(plane, whole), np.where(before == 2, 2, 0)
    )
    assert list(desk.session.records) == [2]
    with pytest.raises(InputError, match="no objects 1, 3 on this plane"):
        objects.delete(desk.session, [1, 3])
    assert desk.session.undo() == "delete objects 1, 3"
    np.testing.assert_array_equal(labels.read(plane, whole), before)
    assert sorted(desk.session.records) == [1, 2, 3]


def test_points_belong_to_the_box_that_holds_them(desk: Desk) -> None:
    desk.session.set_shapes(
        [Shape.of_box((8, 8, 33, 33)), Shape.of_box((0, 40, 60, 80))]
    )
    desk.click((20, 21), (30, 60), (60, 3), positive=[True, False, True])
    first, second = desk.planes.requests[-1].questions
    np.testing.assert_array_equal(first.prompts.points, [[20, 21], [60, 3]])
    np.testing.assert_array_equal(second.prompts.points, [[30, 60]])
    assert second.prompts.positive.tolist() == [False]
    desk.session.commit()
    assert desk.session.records[1].points == ((20.0, 21.0), (60.0, 3.0))
    assert desk.session.records[2].points == ((30.0, 60.0),)
    assert len(desk.session.records[2].shapes) == 1


def test_a_shape_beside_the_plane_is_no_object(desk: Desk) -> None:
    beside, box = Shape.of_box((-50, -50, -9, -9)), Shape.of_box((8, 8, 33, 33))
    desk.session.set_shapes([beside, box])
    assert desk.session.commit() == [1]
    (shape,) = desk.session.records[1].shapes
    assert shape.corners == ((7.5, 7.5), (32.5, 32.5))


def test_areas_and_lines_ask_with_points_in_them(desk: Desk) -> None:
    square = np.array([[40, 10], [40, 50], [80, 50], [80, 10]], np.float32)
    line = np.array([[20, 50], [20, 70], [30, 70]], np.float32)
    desk.session.set_shapes([Shape("area", square), Shape("line", line)])
    area, scribble = desk.planes.requests[-1].questions
    assert area.mask is not None
    assert area.mask.box.shape in ((40, 40), (41, 41))
    assert area.prompts.boxes.shape == (1, 4)
    np.testing.assert_allclose(area.prompts.points, [[60, 30]], atol=1)
    assert scribble.mask is None
    assert not scribble.prompts.has_box
    # five points at 3, 9, 15, 21 and 27 of the 30 px
    expected = [[20, 53], [20, 59], [20, 65], [21, 70], [27, 70]]
    np.testing.assert_allclose(scribble.prompts.points, expected, atol=1e-4)


def test_committed_objects_are_protected_unless_told_otherwise(desk: Desk) -> None:
    desk.labels[desk.truth == 2] = 9
    desk.session.set_labels(ArrayLabels(desk.labels))
    desk.click((24, 60))
    n_pixels = int((desk.truth == 2).sum())
    assert desk.session.overlap() == {9: n_pixels}
    with pytest.raises(InputError, match="no pixel"):
        desk.session.commit()
    assert set(np.unique(desk.labels)) == {0, 9}
    desk.session.choose(2)
    assert desk.session.commit() == [10]
    assert (desk.labels[desk.truth == 2] == 9).all()
    desk.session.undo()
    assert desk.session.commit(overwrite=True) == [11]  # no id is used twice
    assert (desk.labels[desk.truth == 2] == 11).all()
    desk.session.undo()
    assert (desk.labels[desk.truth == 2] == 9).all()


def test_undo_and_redo_go_through_everything(desk: Desk) -> None:
    states: list[tuple[int, int, bytes]] = []

    def note() -> None:
        draft = desk.session.draft
        states.append((len(draft.points), len(draft.shapes), desk.labels.tobytes()))

    actions = [
        lambda: desk.click((24, 60)),
        lambda: desk.click((24, 60), (26, 62)),
        desk.session.commit,
        lambda: desk.session.set_shapes([Shape.of_box((8, 8, 33, 33))]),
        desk.session.commit,
        lambda: objects.merge(desk.session, [1, 2]),
        lambda: desk.click((20, 20), (24, 60)),
        lambda: objects.split(desk.session, 1),
        lambda: objects.delete(desk.session, [1]),
    ]
    note()
    for action in actions:
        action()
        note()
    done = []
    while desk.session.undo() is not None:
        note()
        done.append(states[-1])
    assert done[-1] == states[0]
    assert not desk.labels.any()
    assert done == states[len(actions) - 1 :: -1]  # each is one step, a split too
    while desk.session.redo() is not None:
        note()
    assert states[-1] == states[len(actions)]
    assert desk.session.undo() == "delete object 1"


def test_a_new_step_forgets_what_was_undone(desk: Desk) -> None:
    desk.click((24, 60))
    desk.session.undo()
    desk.click((20, 20))
    assert desk.session.redo() is None
    np.testing.assert_array_equal(desk.shown(), desk.truth == 1)


def test_a_day_of_clicks_does_not_fill_the_memory(desk: Desk) -> None:
    for number in range(510):
        desk.session.set_points([(number % 90, 5)], [True])
    history = desk.session.history
    taken_back = list(iter(history.back, None))
    assert len(taken_back) == 500
    assert taken_back[0].after.points.tolist() == [[509 % 90, 5]]


def test_undo_of_a_commit_brings_the_prompts_back(desk: Desk) -> None:
    desk.click((24, 60), (26, 62), positive=[True, False])
    desk.session.commit()
    desk.session.undo()
    np.testing.assert_array_equal(desk.session.draft.points, [[24, 60], [26, 62]])
    np.testing.assert_array_equal(desk.shown(), desk.truth == 2)


def test_records_say_how_an_object_was_made(desk: Desk) -> None:
    desk.click((24, 60), (80, 3), positive=[True, False])
    desk.session.commit()
    record = desk.session.records[1]
    assert record.points == ((24.0, 60.0), (80.0, 3.0))
    assert record.positive == (True, False)
    assert (record.model, record.model_sha256) == ("discs", "0" * 64)
    assert record.predicted_iou == pytest.approx(0.9)
    assert record.crop == (0, 0, 96, 128)
    desk.session.note_hand_edit([1])
    assert desk.session.records[1].hand_edits == 1
    desk.session.undo()
    assert desk.session.records[1].hand_edits == 0
    desk.session.undo()
    assert desk.session.records == {}


def test_strokes_in_the_3d_display_are_no_steps(desk: Desk) -> None:
    desk.session.set_view(None)
    desk.session.note_hand_edit([1])
    assert desk.session.records == {}
    assert desk.session.undo() is None


def test_a_repair_is_one_step_and_none_without_a_change(desk: Desk) -> None:
    whole = (desk.truth == 1).astype(np.uint32)
    desk.labels[:] = whole
    desk.labels[20, 20] = 0  # a hole in the middle of the disc
    desk.session.set_labels(ArrayLabels(desk.labels))
    assert objects.repair(desk.session, 1, "fill")
    np.testing.assert_array_equal(desk.labels, whole)
    assert not objects.repair(desk.session, 1, "fill")
    desk.labels[0, 0] = 1
    assert objects.repair(desk.session, 1, "islands")
    np.testing.assert_array_equal(desk.labels, whole)
    assert desk.session.undo() == "remove the islands of object 1"
    assert desk.session.undo() == "fill the holes of object 1"
    assert desk.session.undo() is None


def test_an_object_can_be_opened_again_and_refined(desk: Desk) -> None:
    desk.click((24, 60))
    desk.session.commit()
    desk.session.open_object(1)
    (question,) = desk.planes.requests[-1].questions
    assert question.mask is not None
    np.testing.assert_array_equal(
        question.mask.mask, (desk.truth == 2)[question.mask.box.slices]
    )
    assert question.prompts.has_box
    desk.click((24, 60), (60, 30))  # outside its box: it shall grow
    assert not desk.planes.requests[-1].questions[0].prompts.has_box
    assert desk.session.commit() == [1]
    np.testing.assert_array_equal(desk.labels == 1, np.isin(desk.truth, [2, 3]))
    with pytest.raises(InputError, match="no object 5"):
        desk.session.open_object(5)


def test_a_smaller_mask_of_a_refined_object_clears_the_rest(desk: Desk) -> None:
    desk.click((24, 60))
    desk.session.choose(2)  # all discs
    desk.session.commit()
    desk.session.open_object(1)
    desk.session.set_shapes([Shape.of_box((8, 44, 40, 76))])
    assert desk.session.commit() == [1]
    np.testing.assert_array_equal(desk.labels == 1, desk.truth == 2)


def test_prompts_stay_on_their_plane(desk: Desk) -> None:
    stack = np.zeros((3, 96, 128), np.uint32)
    session = desk.session
    image = ImageSource(np.zeros((3, 96, 128), np.uint8), "ZYX")
    session.set_labels(ArrayLabels(stack))
    views = [PlaneView(image, (0, z), index=(z, None, None)) for z in range(3)]
    session.set_view(views[0])
    desk.click((24, 60))
    session.set_view(views[1])
    assert session.draft.is_empty
    assert not session.masks
    desk.click((20, 20))
    session.commit()
    np.testing.assert_array_equal(stack[1], desk.truth == 1)
    session.set_view(views[0])
    np.testing.assert_array_equal(desk.shown(), desk.truth == 2)
    wanted: list[PlaneView] = []
    session.view_wanted.connect(wanted.append)
    session.undo()  # the commit, on the plane that is not looked at
    assert not stack.any()
    assert wanted == [views[1]]


def test_a_peek_shows_and_keeps_nothing(desk: Desk) -> None:
    desk.session.peek((24, 60))
    np.testing.assert_array_equal(desk.shown(), desk.truth == 2)
    assert desk.session.commit() == []
    desk.session.peek(None)
    assert not desk.session.masks
    desk.click((20, 20))
    desk.session.peek((24, 60))  # something is pointed at: it stays
    np.testing.assert_array_equal(desk.shown(), desk.truth == 1)
    assert desk.session.history.last == "add a point"


def test_without_image_or_labels_it_says_what_to_do(desk: Desk) -> None:
    session = Session()
    with pytest.raises(InputError, match="no image is chosen"):
        session.commit()
    session.set_view(desk.view)
    with pytest.raises(InputError, match="no labels are chosen"):
        session.commit()
    assert session.undo() is None


@pytest.mark.parametrize("n_points", [1, 2])
def test_a_saved_session_goes_on_exactly(
    desk: Desk, tmp_path: Path, n_points: int
) -> None:
    desk.click((20, 20))
    desk.session.commit()
    desk.session.set_shapes([Shape.of_box((48, 16, 74, 44))])
    desk.session.commit()
    desk.session.open_object(1)
    desk.click((24, 60))
    desk.click(*[(24, 60), (26, 62)][:n_points])
    pixels = PixelWriter(".tif", Path.touch)
    Snapshot(desk.session, labels=pixels, model="discs").write(tmp_path)

    saved, drafts, records = read_session(tmp_path)
    assert (saved.model, saved.image) == ("discs", "image")
    assert [each.name for each in tmp_path.glob("labels.*.tif")] == [saved.labels]
    other = Desk(np.zeros((96, 128), np.uint8), desk.truth)
    other.labels[:] = desk.labels
    other.session.restore(drafts, records)
    assert other.session.records == desk.session.records
    old, new = desk.planes.requests[-1].questions, other.planes.requests[-1].questions
    np.testing.assert_array_equal(new[0].prompts.points, old[0].prompts.points)
    np.testing.assert_array_equal(new[0].mask.mask, old[0].mask.mask)
    assert (new[0].feedback is None) == (old[0].feedback is None)
    if n_points == 2:
        np.testing.assert_array_equal(new[0].feedback.logits, old[0].feedback.logits)
        assert new[0].feedback.crop == old[0].feedback.crop
    np.testing.assert_array_equal(other.shown(), desk.shown())
    point, box = read_prompts(tmp_path / "prompts.csv")
    assert (point.object_id, point.points.tolist()) == (1, [[20, 20]])
    assert (box.object_id, box.boxes.tolist()) == (2, [[48, 16, 74, 44]])


@pytest.mark.parametrize("file", ["drafts", "objects", "prompts", "session"])
def test_a_save_that_is_interrupted_leaves_the_session_before(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str
) -> None:
    def save() -> None:
        pixels = desk.labels.copy()
        labels = PixelWriter(".tif", lambda path: path.write_bytes(pixels.data))
        Snapshot(desk.session, labels=labels).write(tmp_path)

    def replace(part: Path, path: Path) -> Path:
        if path.name.startswith(file):
            raise KeyboardInterrupt
        return rename(part, path)

    desk.click((20, 20))
    desk.session.commit()
    desk.session.open_object(1)  # its mask is saved as an array
    save()
    desk.session.reject()
    desk.click((24, 60))
    desk.session.commit()
    desk.session.open_object(2)
    rename = Path.replace
    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", replace)
        with pytest.raises(KeyboardInterrupt):
            save()
    for number in (1, 2):
        saved, drafts, records = read_session(tmp_path)
        assert saved.labels is not None
        pixels = np.frombuffer((tmp_path / saved.labels).read_bytes(), np.uint8)
        assert set(np.unique(pixels)) == {0, *records} == set(range(number + 1))
        (draft,) = drafts.values()
        assert draft.object_id == number
        assert draft.start is not None
        mask = np.zeros(desk.truth.shape, bool)
        mask[draft.start.box.slices] = draft.start.mask
        np.testing.assert_array_equal(mask, desk.truth == number)
        assert len(list(tmp_path.iterdir())) == 5  # those of other moments are gone
        save()


def test_a_damaged_session_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match="no saved session"):
        read_session(tmp_path)
    for text in (
        '{"image": 3}',
        '{"image": "a", "index": [null, null], "arrays": "../drafts.npz"}',
        '{"image": "a", "index": [null, null], "labels": "../labels.tif"}',
    ):
        (tmp_path / "session.json").write_text(text)
        with pytest.raises(FormatError, match="no saved session"):
            read_session(tmp_path)


def test_planes_answer_like_a_predictor(
    tiny_sam: Sam, cells: tuple[NDArray[np.uint8], NDArray[np.uint32]]
) -> None:
    """The real worker: feedback, mask prompts and plain points, with a tiny network."""
    planes = Planes(tiny_sam)
    session = Session(PlaneView(ImageSource(cells[0])), ArrayLabels(cells[1].copy()))
    requests: list[PredictRequest] = []
    session.request.connect(requests.append)
    session.set_points([[24, 60]], [True])
    first = planes.answer(requests[-1])
    session.receive(first)
    plain = planes.open(session.view)  # the same embedding again
    assert plain is planes.open(session.view)
    assert len(session.masks) == 1
    session.set_points([[24, 60], [30, 60]], [True, True])
    second = planes.answer(requests[-1])
    assert second.predictions[0].crop == first.predictions[0].crop
    assert len(second.predictions[0].masks) == 1
    session.open_object(2)
    third = planes.answer(requests[-1])
    assert third.model_sha256 == tiny_sam.weights_sha256


def test_another_network_is_asked_with_the_same_prompts(desk: Desk) -> None:
    desk.click((24, 60))
    desk.session.commit()
    desk.session.set_shapes([Shape.of_box((8, 8, 40, 40))])
    desk.session.commit()
    before = desk.labels.copy()
    desk.planes.truth = np.roll(desk.truth, 3, axis=0)  # it sees things differently
    desk.session.ask_again(1)
    (question,) = desk.planes.requests[-1].questions
    np.testing.assert_allclose(question.prompts.points, [[24, 60]])
    assert question.mask is None  # the old answer does not bias the new one
    assert question.feedback is None
    np.testing.assert_array_equal(desk.labels, before)
    assert desk.session.commit() == [1]
    np.testing.assert_array_equal(
        desk.labels == 1, (desk.planes.truth == 2) & (before != 2)
    )
    desk.session.undo()
    np.testing.assert_array_equal(desk.labels, before)
    desk.session.reject()
    desk.session.ask_again(2)
    (question,) = desk.planes.requests[-1].questions
    np.testing.assert_allclose(question.prompts.boxes, [[8, 8, 40, 40]])
    with pytest.raises(InputError, match="was not made from prompts"):
        desk.session.ask_again(9)


def test_the_typical_size_is_that_of_what_is_drawn_or_shown(desk: Desk) -> None:
    assert desk.session.typical_diameter() is None
    desk.click((24, 60))
    area = (desk.truth == 2).sum()
    assert desk.session.typical_diameter() == pytest.approx(2 * (area / np.pi) ** 0.5)
    desk.session.set_shapes([Shape.of_box((10, 10, 20, 50))])
    assert desk.session.typical_diameter() == pytest.approx(2 * (400 / np.pi) ** 0.5)
    turn = np.linspace(0, 2 * np.pi, 100, endpoint=False)
    circle = 40 + 12 * np.stack([np.sin(turn), np.cos(turn)], axis=1)
    desk.session.set_shapes([Shape("area", circle.astype(np.float32))])
    assert desk.session.typical_diameter() == pytest.approx(24, rel=0.01)
