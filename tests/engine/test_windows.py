"""Parts of a crop answer prompts as the crop does, wherever they lie."""

import numpy as np
import torch

from napari_sam.cache import EmbeddingCache
from napari_sam.engine import predict
from napari_sam.engine.embed import open_plane
from napari_sam.engine.predict import Predictor
from napari_sam.engine.windows import reach_edge
from napari_sam.images import Intensity
from napari_sam.prompts import Prompts
from tests.engine.oracle import OracleSam, PreparedTruth, image_of
from tests.engine.own import own_network

GRAY = Intensity((0,), ((0.0, 255.0),))


@torch.inference_mode()
def test_prompts_are_answered_alike_wherever_they_lie(monkeypatch):
    own = own_network()
    plane = open_plane(
        np.zeros((512, 512), np.uint8), own, cache=EmbeddingCache(), intensity=GRAY
    )
    embedding = torch.randn(1, *own.embedding_shape)
    embedding[..., 11:27, 14:30] = embedding[..., :16, 2:18]
    monkeypatch.setattr(type(plane), "of", lambda *_: embedding)
    # below 0, so that no answer reaches the edge of its window
    decode = own.decode
    monkeypatch.setattr(
        own, "decode", lambda *a, **k: (decode(*a, **k)[0] - 100, decode(*a, **k)[1])
    )
    predictor, move = Predictor(own, plane), (11 * 16, 12 * 16)
    mask = np.full((128, 128), -8, np.float32)
    mask[30:40, 36:48] = 8
    moved_mask = np.roll(mask, (44, 48), (0, 1))
    for points, positive, logits in (
        ([(137, 162)], [True], None),
        ([(137, 162), (150, 170)], [True, False], None),
        ([(137, 162)], [True], mask),
    ):
        one, other = (
            predictor.predict(Prompts(np.add(points, by), positive, mask=given))
            for by, given in (
                ((0, 0), logits),
                (move, None if logits is None else moved_mask),
            )
        )
        first, second = one.logits[:, :64, 8:72], other.logits[:, 44:108, 56:120]
        np.testing.assert_allclose(first, second, rtol=1e-4)
        np.testing.assert_allclose(one.predicted_iou, other.predicted_iou, rtol=1e-4)
        assert first.std() > 0.01  # not all the same
        beyond = np.ones((128, 128), bool)
        beyond[:64, 8:72] = False
        assert (one.logits[:, beyond] == -10).all()


def test_an_answer_that_reaches_the_edge_is_asked_in_a_larger_window(monkeypatch):
    truth = np.zeros((32, 32), np.uint32)  # in windows of 12 and 24 px, and whole
    truth[4:7, 4:8] = 1
    truth[12:16, 2:18] = 2
    truth[26, 1:31] = 3
    oracle = OracleSam(truth, scale=4)
    plane = open_plane(image_of(truth), oracle)
    expected = Predictor(oracle, plane)
    points = [Prompts([p]) for p in ((5, 6), (13, 10), (26, 15))]
    whole = expected.predict_many(points)
    monkeypatch.setattr(predict, "window_side", lambda _: 3)
    monkeypatch.setattr(
        predict,
        "prepare_windows",
        lambda _model, embedding, corners, side, **_: (
            PreparedTruth(embedding, (side, side), corners),
            torch.zeros(len(corners), 2),
        ),
    )
    monkeypatch.setattr(OracleSam, "_answers", _without_group(OracleSam._answers))
    del oracle.seen[:], oracle.decoded[:]
    found = Predictor(oracle, plane).predict_many(points)
    assert list(zip(oracle.seen, oracle.decoded, strict=True)) == [
        ((3, 3), 3),
        ((6, 6), 2),
        ((8, 8), 1),
    ]
    for each, other, number in zip(found, whole, (1, 2, 3), strict=True):
        np.testing.assert_array_equal(each.plane_mask((32, 32), 1), truth == number)
        np.testing.assert_array_equal(other.plane_mask((32, 32), 1), truth == number)


def _without_group(answers):
    """Answer without the mask of everything, which reaches all edges."""

    def some(self, number, at):
        masks, ious = answers(self, number, at)
        masks[2] = masks[1]
        return masks, ious

    return some


def test_where_the_crop_ends_a_window_ends_nothing():
    inside = np.zeros((5, 4, 4), bool)
    inside[0, 0, 1] = inside[1, 2, 0] = inside[2, 3, 3] = inside[3, 3, 3] = True
    inside[4, 1:3, 1:3] = True
    corners = np.array([[0, 2], [2, 4], [4, 4], [8, 8], [5, 5]])
    # the crop has 12 x 12 cells: the first and fourth end with it
    assert reach_edge(inside, corners, (12, 12)).tolist() == [
        False,
        True,
        True,
        False,
        False,
    ]
