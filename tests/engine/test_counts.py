"""What a click and a search cost, in calls and in pixels read: no clock needed."""

import numpy as np
import pytest

from napari_sam.cache import EmbeddingCache
from napari_sam.engine.embed import open_plane
from napari_sam.engine.jobs import run
from napari_sam.engine.predict import Predictor
from napari_sam.images import ImageSource, Intensity
from napari_sam.prompts import Prompts
from napari_sam.tiling import CropGrid
from tests.engine.oracle import OracleSam, image_of

INTENSITY = Intensity((0, 1, 2), ((0.0, 255.0),) * 3)


class CountedPixels:
    """An array that notes which parts of it were read."""

    def __init__(self, array):
        self.array = array
        self.shape, self.dtype = array.shape, array.dtype
        self.read = []

    def __getitem__(self, key):
        part = self.array[key]
        self.read.append(part.shape[:2])
        return part


@pytest.fixture
def truth():
    labels = np.zeros((96, 96), np.uint32)
    labels[10:20, 10:20] = 1
    labels[60:70, 60:72] = 2
    return labels


@pytest.fixture
def pixels(truth):
    return CountedPixels(image_of(truth))


def opened(truth, pixels, cache, oracle=None):
    """A network and a plane of 16 crops of 32 x 32 px."""
    oracle = oracle or OracleSam(truth, scale=4)
    grid = CropGrid(truth.shape, size=128, halo=16, scale=4.0)
    source = ImageSource(pixels, axes="YXS")
    plane = open_plane(source, oracle, cache=cache, grid=grid, intensity=INTENSITY)
    return oracle, plane


def test_the_first_click_reads_and_encodes_one_crop(truth, pixels):
    oracle, plane = opened(truth, pixels, EmbeddingCache())
    predictor = Predictor(oracle, plane)
    pixels.read.clear()
    predictor.predict(Prompts(points=[(15, 15)]))
    assert (oracle.n_encoded, oracle.decoded) == (1, [1])
    assert pixels.read == [(32, 32)]


def test_the_next_click_there_decodes_and_nothing_else(truth, pixels):
    oracle, plane = opened(truth, pixels, EmbeddingCache())
    predictor = Predictor(oracle, plane)
    predictor.predict(Prompts(points=[(15, 15)]))
    pixels.read.clear()
    predictor.predict(Prompts(points=[(14, 17)]))
    assert (oracle.n_encoded, oracle.decoded) == (1, [1, 1])
    assert pixels.read == []


def test_prompts_of_one_crop_share_a_call(truth, pixels):
    oracle, plane = opened(truth, pixels, EmbeddingCache())
    many = [Prompts(points=[(15, 12 + i)]) for i in range(7)]
    Predictor(oracle, plane).predict_many(many)
    assert (oracle.n_encoded, oracle.decoded) == (1, [7])


def test_a_plane_is_encoded_once_for_all_sessions(truth, pixels):
    cache = EmbeddingCache()
    oracle, plane = opened(truth, pixels, cache)
    pixels.read.clear()
    run(plane.fill())
    n_crops = len(plane.grid)
    assert n_crops == 16
    assert oracle.n_encoded == n_crops
    assert pixels.read == [(32, 32)] * n_crops
    _, plane = opened(truth, pixels, cache, oracle)
    pixels.read.clear()
    run(plane.fill())
    found = Predictor(oracle, plane).predict(Prompts(points=[(65, 65)]))
    assert found.plane_mask(truth.shape).sum() == (truth == 2).sum()
    assert (oracle.n_encoded, oracle.decoded) == (n_crops, [1])
    assert pixels.read == []
