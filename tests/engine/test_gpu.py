"""What a GPU would be asked, computed on the CPU; see `tests.pretend_gpu`."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from skimage import data

from napari_sam import load_model, run
from napari_sam.cache import EmbeddingCache
from napari_sam.engine.automatic import AutomaticConfig, segment
from napari_sam.engine.embed import open_plane
from napari_sam.engine.predict import Predictor
from napari_sam.model import VARIANTS, Sam
from napari_sam.prompts import Prompts
from tests.engine import test_automatic_parity as blobs
from tests.pretend_gpu import pretend_gpu, to_gpu
from tests.reference import reference_sam


@pytest.fixture(scope="module")
def nuclei():
    return data.immunohistochemistry()[:96, :128]


@pytest.fixture(scope="module")
def default():
    return load_model(device="cpu", precision="float32")


def on_gpu(model):
    moved = copy.deepcopy(model)
    to_gpu(moved)
    return moved


@pytest.mark.parametrize(
    "mixed",
    [
        lambda there, here: there + here,
        lambda there, here: torch.cat([here, there]),
        lambda there, here: there.new_zeros(3) @ here,
        lambda there, _: there.numpy(),
        lambda there, _: torch.from_numpy(np.ones(3)) * there.to(torch.float64),
    ],
)
def test_what_a_gpu_would_refuse_is_refused(mixed):
    with pretend_gpu(), pytest.raises((RuntimeError, TypeError)):
        mixed(torch.ones(3, device="cuda"), torch.ones(3))


@pytest.mark.parametrize("name", ["tiny", "vit_t"])
def test_published_kinds_of_networks(name):
    torch.manual_seed(0)
    model = Sam(replace(VARIANTS[name], image_size=128)).eval()
    images = torch.randint(0, 255, (1, 3, 100, 128), dtype=torch.uint8)
    points, labels = torch.rand(5, 2, 2) * 100, torch.ones(5, 2)
    boxes = torch.tensor([[10.0, 20, 60, 70]]).expand(5, -1)

    def asked(model):
        here = model.device
        embedding = model.encode(model.preprocess(images))
        prompts = {"points": points.to(here), "labels": labels.to(here)}
        logits, ious = model.decode(
            embedding, **prompts, boxes=boxes.to(here), multimask=None
        )
        again, _ = model.decode(embedding, **prompts, masks=logits[:, :1])
        return logits.cpu(), ious.cpu(), again.cpu()

    with torch.inference_mode():
        expected = asked(model)
    moved = on_gpu(model)
    with pretend_gpu():
        found = asked(moved)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_masks_from_a_grid_of_points():
    torch.manual_seed(0)
    reference = reference_sam(blobs.CONFIG)
    with torch.no_grad():
        blobs.set_blob_weights(reference)
    model = Sam(blobs.CONFIG).eval()
    model.load_state_dict(reference.state_dict(), strict=True)
    image = data.immunohistochemistry()[:150, :200]
    mode = replace(blobs.MODE, points_per_side=6, crop_layers=1, min_area=4)
    config = AutomaticConfig(mode="grid", grid=mode)
    expected = run(segment(image, model, config=config), progress=False)
    moved = on_gpu(model)
    with pretend_gpu():
        found = run(segment(image, moved, config=config), progress=False)
    assert expected.n_objects >= 5
    assert np.mean(found.labels != expected.labels) < 0.01


def test_objects_of_the_default_model(default, nuclei):
    expected = run(segment(nuclei, default), progress=False)
    moved = on_gpu(default)
    with pretend_gpu():
        found = run(segment(nuclei, moved), progress=False)
    assert expected.n_objects >= 2
    assert np.mean(found.labels != expected.labels) < 0.001


def test_clicks_and_boxes_on_embeddings_from_a_store(default, nuclei, tmp_path):
    def asked(model, folder):
        cache = EmbeddingCache(tmp_path / folder)
        run(open_plane(nuclei, model, cache=cache).fill(), progress=False)
        predictor = Predictor(model, open_plane(nuclei, model, cache=cache))
        first = predictor.predict(Prompts(points=[(40, 60)]))
        corrected = Prompts(
            points=[(40, 60), (5, 5)],
            positive=[True, False],
            mask=first.logits[first.best],
        )
        return [
            first,
            predictor.predict(corrected, crop=first.crop),
            *predictor.predict_many(
                [Prompts(boxes=[(20, 30, 50, 70)]), Prompts(points=[(80, 100)])]
            ),
        ]

    expected = asked(default, "here")
    moved = on_gpu(default)
    with pretend_gpu():
        found = asked(moved, "there")
    for one, other in zip(found, expected, strict=True):
        assert one.box == other.box
        np.testing.assert_allclose(one.predicted_iou, other.predicted_iou, atol=1e-4)
        assert (one.masks == other.masks).mean() > 0.999
