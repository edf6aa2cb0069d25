"""Prompts to masks: the right crop, the right place, as few calls as possible."""

import copy

import numpy as np
import pytest
import torch

from napari_sam.cache import EmbeddingCache
from napari_sam.engine.embed import embed, open_plane
from napari_sam.engine.jobs import run
from napari_sam.engine.predict import Predictor, decoder_batch
from napari_sam.errors import DeviceError, InputError, NapariSamWarning
from napari_sam.images import Intensity
from napari_sam.prompts import Prompts
from napari_sam.tiling import Box, CropGrid
from tests.engine.oracle import OracleSam, image_of
from tests.engine.own import own_network

GRAY = Intensity((0,), ((0.0, 255.0),))


@pytest.fixture
def truth():
    """Rectangles in a plane of 60 x 80 px; 3 is larger than a crop of 32 px."""
    labels = np.zeros((60, 80), np.uint32)
    labels[3:11, 4:16] = 1
    labels[20:24, 28:33] = 2
    labels[10:56, 40:78] = 3
    return labels


@pytest.fixture
def oracle(truth):
    return OracleSam(truth, scale=4)


@pytest.fixture
def predictor(oracle, truth):
    """Nine crops of 32 x 32 px, enlarged four times, with a halo of 4 px."""
    grid = CropGrid(truth.shape, size=128, halo=16, scale=4.0)
    plane = open_plane(image_of(truth), oracle, cache=EmbeddingCache(), grid=grid)
    return Predictor(oracle, plane)


@pytest.fixture
def noise(tiny_sam):
    image = np.random.default_rng(0).integers(0, 256, (200, 180), dtype=np.uint8)
    return Predictor(
        tiny_sam, open_plane(image, tiny_sam, cache=EmbeddingCache(), intensity=GRAY)
    )


def test_one_point_gives_three_masks_in_plane_pixels(predictor, truth):
    found = predictor.predict(Prompts(points=[[5, 9]]))
    assert found.masks.shape == (3, *found.box.shape)
    assert found.best == 1
    assert found.predicted_iou.tolist() == pytest.approx([0.6, 0.9, 0.5])
    np.testing.assert_array_equal(found.plane_mask(truth.shape), truth == 1)
    assert found.plane_mask(truth.shape, 0).sum() == (truth == 1).sum() // 2
    assert found.stability.tolist() == pytest.approx([1, 1, 1], abs=0.2)
    assert found.logits.shape == (3, 32, 32)


def test_more_prompts_give_one_mask(predictor):
    for prompts in (
        Prompts(points=[[5, 9], [6, 9]]),
        Prompts(points=[[5, 9], [15, 9]], positive=[True, False]),
        Prompts(boxes=[3, 4, 11, 16]),
        Prompts(points=[[5, 9]], boxes=[3, 4, 11, 16]),
        Prompts(points=[[5, 9]], mask=np.zeros((32, 32))),
    ):
        assert len(predictor.predict(prompts).masks) == 1
        assert len(predictor.predict(prompts, multimask=True).masks) == 3
    assert len(predictor.predict(Prompts(points=[[5, 9]]), multimask=False).masks) == 1


def test_a_click_costs_one_encoder_and_one_decoder_call(predictor, oracle):
    predictor.predict(Prompts(points=[[5, 9]]))
    assert (oracle.n_encoded, oracle.decoded) == (1, [1])
    predictor.predict(Prompts(points=[[6, 10]]))
    assert (oracle.n_encoded, oracle.decoded) == (1, [1, 1])
    predictor.predict(Prompts(points=[[22, 30]]))
    assert (oracle.n_encoded, oracle.decoded) == (2, [1, 1, 1])


def test_objects_of_one_crop_share_a_call(predictor, oracle, truth):
    points = [[y, x] for y in (4, 6, 8) for x in (5, 9, 13)] + [[22, 30]] * 2
    found = predictor.predict_many([Prompts(points=[p]) for p in points])
    assert oracle.decoded == [9, 2]
    assert oracle.n_encoded == 2
    for answer in found[:9]:
        np.testing.assert_array_equal(answer.plane_mask(truth.shape), truth == 1)
    for answer in found[9:]:
        np.testing.assert_array_equal(answer.plane_mask(truth.shape), truth == 2)


def test_batches_are_small_where_crops_are_large(predictor):
    # measured on a CPU: more than four whole crops are slower for each prompt
    cpu, other = torch.device("cpu"), torch.device("meta")
    assert decoder_batch((64, 64), cpu) == 4
    assert decoder_batch((24, 24), cpu) == 16
    assert decoder_batch((8, 8), cpu) == 64
    assert decoder_batch((64, 64), other) == 32
    prompts = [Prompts(points=[[5, 9]])] * 150
    predictor.predict_many(prompts)
    assert predictor.model.decoded == [64, 64, 22]


def test_many_prompts_give_the_answers_of_each_alone(noise):
    rng = np.random.default_rng(1)
    prompts = []
    for i in range(24):
        n = int(rng.integers(1, 4))
        y0, x0 = rng.integers(0, 150, 2)
        box = [y0, x0, y0 + 20, x0 + 25] if i % 3 == 0 else None
        prompts.append(Prompts(rng.uniform(0, 179, (n, 2)), [True] * n, boxes=box))
    together = noise.predict_many(prompts)
    for each, expected in zip(prompts, together, strict=True):
        alone = noise.predict(each)
        assert alone.crop == expected.crop
        np.testing.assert_allclose(alone.logits, expected.logits, atol=1e-4)
        np.testing.assert_allclose(
            alone.predicted_iou, expected.predicted_iou, atol=1e-5
        )


@pytest.mark.parametrize("kind", ["points", "masks"])
@pytest.mark.parametrize("is_own", [False, True])
def test_two_threads_give_the_answers_of_one(tiny_sam, is_own, kind):
    model = own_network() if is_own else tiny_sam
    size = model.config.image_size
    image = np.random.default_rng(0).integers(0, 256, (size, size), dtype=np.uint8)
    places = np.random.default_rng(1).uniform(8, size - 8, (90, 2))
    mask = np.zeros((size // 4,) * 2, np.float32) - 5
    mask[10:20, 12:18] = 5
    given = {"mask": mask} if kind == "masks" else {}
    asked = [Prompts(points=[place], **given) for place in places]
    found = []
    for n in (1, 2):
        torch.set_num_threads(n)
        found.append(Predictor(model, open_plane(image, model)).predict_many(asked))
    torch.set_num_threads(1)
    for one, two in zip(*found, strict=True):
        np.testing.assert_allclose(two.logits, one.logits, atol=1e-4)
        np.testing.assert_allclose(two.predicted_iou, one.predicted_iou, atol=1e-5)
        assert two.box == one.box


def test_the_answer_is_that_of_the_network(noise, tiny_sam):
    found = noise.predict(Prompts(points=[[90, 30]]))
    crop = found.crop
    x, y = 30 - crop.box.x0, 90 - crop.box.y0
    with torch.inference_mode():
        logits, iou = tiny_sam.decode(
            noise.embedding.of(crop),
            points=torch.tensor([[[x, y]]], dtype=torch.float32),
            labels=torch.tensor([[1]]),
        )
        full = tiny_sam.upscale(logits, (128, 128), (128, 128))[0]
    np.testing.assert_allclose(found.logits, logits[0], atol=1e-5)
    np.testing.assert_allclose(found.predicted_iou, iou[0], atol=1e-6)
    for k in range(3):
        plane = found.plane_mask((200, 180), k)
        np.testing.assert_array_equal(plane[crop.box.slices], full[k] > 0)
        assert plane.sum() == (full[k] > 0).sum()


def test_prompts_go_to_the_crop_in_which_they_lie_most_central(predictor):
    for y, x in [(5, 9), (27, 27), (28, 28), (59, 79), (0, 40)]:
        crop = predictor.crop_for(Prompts(points=[[y, x]]))
        assert crop == predictor.embedding.grid.crop_at(y, x)
        core = crop.core
        assert core.y0 <= y < core.y1
        assert core.x0 <= x < core.x1


def test_an_object_larger_than_a_crop_is_seen_whole(predictor, truth):
    crop = predictor.crop_for(Prompts(boxes=[10, 40, 56, 78]))
    assert crop.index == -1
    assert crop.box.contains(Box(10, 40, 56, 78))
    crop = predictor.crop_for(Prompts(points=[[12, 41], [54, 76]]))
    assert crop.box.contains(Box(12, 41, 55, 77))


def test_negative_points_do_not_choose_the_crop(predictor, oracle, truth):
    far = Prompts(points=[[5, 9], [50, 70]], positive=[True, False])
    near = Prompts(points=[[5, 9]])
    assert predictor.crop_for(far) == predictor.crop_for(near)
    # the crop does not show it, so nothing is said about it
    assert len(predictor.predict(far).masks) == 3


def test_a_mask_is_refined_in_its_own_crop(noise):
    first = noise.predict(Prompts(points=[[90, 30]]))
    more = Prompts([[90, 30], [95, 60]], mask=first.logits[first.best])
    refined = noise.predict(more, crop=first.crop)
    plain = noise.predict(Prompts([[90, 30], [95, 60]]), crop=first.crop)
    assert refined.crop == first.crop
    assert not np.allclose(refined.logits, plain.logits, atol=1e-3)


def test_an_empty_answer_has_a_place(predictor, truth):
    found = predictor.predict(Prompts(points=[[0, 0]]), multimask=False)
    assert found.masks.shape == (1, 1, 1)
    assert not found.plane_mask(truth.shape).any()


def test_masks_cover_no_more_than_they_need(predictor):
    found = predictor.predict(Prompts(points=[[22, 30]]), multimask=False)
    assert found.box == Box(20, 28, 24, 33)
    assert found.masks.all()


class TestRefused:
    def test_a_point_outside_the_plane(self, predictor):
        with pytest.raises(InputError, match=r"\(70, 5\) lies outside.*inside"):
            predictor.predict(Prompts(points=[[70, 5], [3, 3]]))

    def test_a_box_outside_the_plane(self, predictor):
        with pytest.raises(InputError, match="lies outside"):
            predictor.predict(Prompts(boxes=[70, 0, 80, 10]))

    def test_no_prompt(self, predictor):
        with pytest.raises(InputError, match="neither a point nor a box"):
            predictor.predict(Prompts(mask=np.zeros((32, 32))))

    def test_a_mask_of_another_network(self, predictor):
        with pytest.raises(InputError, match=r"\(256, 256\).*\(32, 32\)"):
            predictor.predict(Prompts(points=[[5, 9]], mask=np.zeros((256, 256))))

    def test_a_positive_point_outside_the_crop_asked_for(self, predictor):
        crop = predictor.embedding.grid[0]
        with pytest.raises(InputError, match="outside the crop"):
            predictor.predict(Prompts(points=[[50, 70]]), crop=crop)

    def test_the_embedding_of_another_encoder(self, predictor, tiny_sam):
        with pytest.raises(InputError, match="whose encoder"):
            Predictor(tiny_sam, predictor.embedding)


def test_what_is_forgotten_is_said(predictor, oracle, truth):
    image = image_of(truth)
    with pytest.raises(InputError, match=r"type generator; give what run\(embed"):
        Predictor(oracle, embed(image, oracle))
    with pytest.raises(InputError, match="model 'default'; give what load_model"):
        Predictor("default", predictor.embedding)
    with pytest.raises(InputError, match="model 'default'; give what load_model"):
        open_plane(image, "default")
    with pytest.raises(InputError, match="prompts of type list; give Prompts"):
        predictor.predict([[5, 9]])
    with pytest.raises(InputError, match="one Prompts; give a list"):
        predictor.predict_many(Prompts(points=[[5, 9]]))


def test_another_decoder_with_the_same_encoder_will_do(tiny_sam, noise):
    other = copy.deepcopy(tiny_sam)
    with torch.no_grad():
        other.mask_decoder.iou_token.weight.add_(1)
    assert Predictor(other, noise.embedding).predict(Prompts(points=[[5, 5]]))


def test_a_box_that_leaves_the_plane_is_reported_and_cut(predictor, oracle, truth):
    with pytest.warns(NapariSamWarning, match="leaves the plane.*part inside"):
        found = predictor.predict(Prompts(boxes=[-5, -3, 17, 22]))
    np.testing.assert_array_equal(found.plane_mask(truth.shape), truth == 1)


def test_lack_of_memory_is_a_device_error(noise, monkeypatch):
    def decode(*args, **kwargs):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(noise.model, "decode", decode)
    with pytest.raises(DeviceError, match="smaller"):
        noise.predict(Prompts(points=[[5, 5]]))


def test_an_embedding_from_the_job_will_do(oracle, truth):
    embedding = run(embed(image_of(truth), oracle))
    found = Predictor(oracle, embedding)
    assert found.embedding is embedding
