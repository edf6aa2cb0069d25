"""Synthetic scenes: what a training relies on."""

import numpy as np
import pytest
from scipy import ndimage
from skimage.measure import regionprops

from napari_sam.errors import InputError
from napari_sam.training.fields import blur, fibrous_noise, smooth_noise
from napari_sam.training.layout import Layout, visible_labels
from napari_sam.training.scenes import KINDS, make_scene
from napari_sam.training.shapes import blob, rod, tissue


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("diameter", [12, 40, 150])
def test_each_kind_has_whole_objects_and_contrast(kind, diameter):
    for seed in range(3):
        scene = make_scene(np.random.default_rng(seed), kind, (128, 160), diameter)
        assert scene.kind == kind
        assert scene.image.dtype == np.uint8
        assert scene.image.shape[:2] == scene.labels.shape == (128, 160)
        assert scene.image.ndim == (3 if kind == "histology" else 2)
        assert scene.labels.dtype == np.int32
        ids = np.unique(scene.labels[scene.labels > 0])
        assert list(ids) == list(range(1, len(ids) + 1))
        assert len(ids) >= 1
        for number in ids:
            assert ndimage.label(scene.labels == number, np.ones((3, 3)))[1] == 1
        assert scene.image.std() > 4


@pytest.mark.parametrize("kind", KINDS)
def test_the_generator_state_decides_everything(kind):
    first = make_scene(np.random.default_rng(7), kind, (64, 64), 20)
    again = make_scene(np.random.default_rng(7), kind, (64, 64), 20)
    other = make_scene(np.random.default_rng(8), kind, (64, 64), 20)
    np.testing.assert_array_equal(first.image, again.image)
    np.testing.assert_array_equal(first.labels, again.labels)
    assert not np.array_equal(first.image, other.image)


def test_all_kinds_are_drawn_if_none_is_given():
    rng = np.random.default_rng(0)
    assert {make_scene(rng, None, (32, 32)).kind for _ in range(80)} == set(KINDS)


@pytest.mark.parametrize(
    ("kind", "diameter"),
    [("nuclei", 16), ("nuclei", 60), ("yeast", 30), ("membranes", 30)],
)
def test_objects_have_about_the_diameter_asked_for(kind, diameter):
    found = []
    for seed in range(6):
        scene = make_scene(np.random.default_rng(seed), kind, (256, 256), diameter)
        inner = scene.labels.copy()
        inner[1:-1, 1:-1] = 0
        whole = [
            p
            for p in regionprops(scene.labels)
            if p.label not in np.unique(inner)  # not cut by the border of the plane
        ]
        found += [p.equivalent_diameter_area for p in whole]
    assert 0.75 * diameter < np.median(found) < 1.2 * diameter


def test_drawn_diameters_cover_the_whole_range():
    rng = np.random.default_rng(0)
    sizes = []
    for _ in range(60):
        labels = make_scene(rng, "yeast").labels
        sizes.append(np.sqrt(np.bincount(labels.ravel())[1:].max() * 4 / np.pi))
    assert min(sizes) < 25
    assert max(sizes) > 120


def test_objects_differ_from_their_surroundings():
    # an independent look at the pixels: labels must lie where the image says
    inside, outside = [], []
    for seed in range(8):
        scene = make_scene(np.random.default_rng(seed), "nuclei", (128, 128), 30)
        inside.append(scene.image[scene.labels > 0].mean())
        outside.append(scene.image[scene.labels == 0].mean())
    assert all(i > o for i, o in zip(inside, outside, strict=True))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kind": "cats"}, "use one of nuclei"),
        ({"shape": (8, 64)}, "16 pixels or more"),
        ({"diameter": 1}, "4 pixels or more"),
        ({"diameter": float("nan")}, "4 pixels or more"),
    ],
)
def test_impossible_wishes_are_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        make_scene(np.random.default_rng(0), **arguments)


def test_first_object_lies_on_top_and_signals_add():
    layout = Layout((40, 40))
    outline = np.full(64, 10, np.float32)
    layout.paint(*blob((40, 40), (20, 15), outline), 10, amplitude=1.0, edge=0.1)
    layout.paint(*blob((40, 40), (20, 25), outline), 10, amplitude=2.0, edge=0.1)
    assert layout.labels[20, 20] == 1
    assert layout.signal[20, 20] == pytest.approx(3)
    assert layout.labels[20, 30] == 2
    assert layout.areas[1] == layout.areas[2] == (layout.labels == 1).sum()


def test_a_round_blob_is_the_disc():
    where, rho = blob((50, 50), (24.0, 26.0), np.full(128, 9, np.float32))
    drawn = np.zeros((50, 50), bool)
    drawn[where] = rho < 1
    y, x = np.mgrid[:50, :50]
    np.testing.assert_array_equal(drawn, np.hypot(y - 24, x - 26) < 9)


def test_a_rod_is_all_points_near_its_axis():
    where, rho = rod((60, 60), (30.0, 28.0), (40.0, 12.0), np.pi / 6)
    drawn = np.zeros((60, 60), bool)
    drawn[where] = rho < 1
    y, x = np.mgrid[:60, :60]
    axis = np.linspace(-14, 14, 4000)
    points = np.stack([30 + axis * np.sin(np.pi / 6), 28 + axis * np.cos(np.pi / 6)])
    far = np.array(
        [
            np.hypot(points[0] - i, points[1] - j).min()
            for i, j in zip(y.ravel(), x.ravel(), strict=True)
        ]
    ).reshape(60, 60)
    np.testing.assert_array_equal(drawn, far < 6)


def test_tissue_cells_are_the_nearest_seeds():
    # straight borders and no stretch: each cell must be convex
    labels, border = tissue(np.random.default_rng(1), (90, 90), 25, waviness=0)
    assert labels.min() >= 1
    for p in (q for q in regionprops(labels) if q.area > 60):
        assert p.solidity > 0.9
    on_border = labels[:, 1:] != labels[:, :-1]
    assert border[:, 1:][on_border].max() < 2.5


def test_visible_labels_keep_the_largest_piece_and_drop_hidden_objects():
    labels = np.zeros((20, 30), np.int32)
    labels[2:12, 2:12] = 5
    labels[2:6, 20:24] = 5  # a second, smaller piece
    labels[14:18, 2:7] = 9  # 20 pixels of an object of 200
    labels[14:18, 12:20] = 7
    kept = visible_labels(labels, [0, 0, 0, 0, 0, 116, 0, 32, 0, 200])
    assert kept.max() == 2
    np.testing.assert_array_equal(kept == 1, (labels == 5) & (np.arange(30) < 15))
    np.testing.assert_array_equal(kept == 2, labels == 7)


def test_noise_has_unit_variance_and_the_scale_asked_for():
    noise = smooth_noise(np.random.default_rng(0), (300, 300), 6)
    assert noise.std() == pytest.approx(1, abs=0.1)
    assert abs(noise.mean()) < 0.1
    shift = {d: np.mean(noise[:, d:] * noise[:, :-d]) for d in (1, 6, 30)}
    assert shift[1] > 0.9
    assert 0.1 < shift[6] < 0.7
    assert abs(shift[30]) < 0.12
    strands = fibrous_noise(np.random.default_rng(0), (200, 220), 3, 30)
    assert strands.shape == (200, 220)
    assert strands.std() == pytest.approx(1, abs=0.25)


@pytest.mark.parametrize("sigma", [2.0, 9.0])
def test_blur_is_gaussian_away_from_the_border(sigma):
    image = np.random.default_rng(0).random((120, 130), dtype=np.float32)
    expected = ndimage.gaussian_filter(image.astype(float), sigma, truncate=6)
    inner = (slice(40, -40), slice(40, -40))
    np.testing.assert_allclose(blur(image, sigma)[inner], expected[inner], atol=0.005)
    assert blur(image, 0.1) is image
