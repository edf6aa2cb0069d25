"""What a person must see in the picture, told by its pixels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from skimage.color import rgb2lab
from skimage.draw import disk
from skimage.measure import label

from napari_sam.errors import FileError, InputError
from napari_sam.writers.overlay import (
    MAX_SIDE,
    choose_colours,
    draw_overlay,
    save_overlay,
)

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray


def gray(shape: tuple[int, int], value: int = 90) -> NDArray[np.uint8]:
    return np.full((*shape, 3), value, np.uint8)


def chroma(picture: NDArray[np.uint8]) -> NDArray[np.float64]:
    """How far each pixel is from gray."""
    return np.asarray(np.hypot(*np.moveaxis(rgb2lab(picture)[..., 1:], -1, 0)))


def test_draws_a_line_inside_the_border_and_a_light_fill() -> None:
    labels = np.zeros((100, 100), np.uint32)
    labels[disk((50, 50), 40)] = 5
    picture = draw_overlay(gray(labels.shape), labels)
    assert picture.shape == (400, 400, 3)
    y, x = np.indices(picture.shape[:2]) - 201.5  # the middle of pixel 50
    radius, angle = np.hypot(y, x) / 4, np.rad2deg(np.arctan2(y, x)) // 5
    colour = chroma(picture)
    assert colour[radius > 41.5].max() < 1  # background stays as it is
    assert 5 < colour[radius < 38].min() <= colour[radius < 38].max() < 30  # fill
    line = (radius > 38) & (radius < 40.5)
    for part in np.unique(angle):  # it is closed
        assert colour[line & (angle == part)].max() > 60
    # and follows the disc, where the steps of its pixels are 1 px and more
    assert np.std(radius[colour > 60]) < 0.3


def test_objects_without_a_neighbourhood_are_drawn_too() -> None:
    whole = draw_overlay(gray((90, 90)), np.full((90, 90), 9, np.uint64))
    assert 5 < chroma(whole).min() <= chroma(whole).max() < 30
    tiny = np.zeros((90, 90), np.uint8)
    tiny[50, 50] = tiny[0, 89] = 1
    tiny[50, 60] = 200
    picture = draw_overlay(gray((90, 90)), tiny)
    for y, x in ((50, 50), (50, 60), (0, 89)):
        assert chroma(picture)[4 * y : 4 * y + 4, 4 * x : 4 * x + 4].max() > 40


def test_a_mask_is_one_object() -> None:
    mask = np.zeros((60, 60), bool)
    mask[20:40, 20:40] = True
    picture = draw_overlay(gray((60, 60)), mask)
    np.testing.assert_array_equal(picture, draw_overlay(gray((60, 60)), mask * 7))
    assert chroma(picture)[120, 120] > 5


def test_touching_objects_show_two_lines_of_two_colours() -> None:
    labels = np.zeros((100, 100), int)
    labels[20:80, 20:50] = 1
    labels[20:80, 50:80] = 2
    picture = draw_overlay(gray(labels.shape), labels, opacity=0)
    sides = picture[200, [198, 201]]
    assert chroma(sides[None]).min() > 30
    assert np.linalg.norm(np.subtract(*rgb2lab(sides[None])[0])) > 40


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 60))
def test_neighbours_differ_in_colour(seed: int, n_seeds: int) -> None:
    rng = np.random.default_rng(seed)
    points = rng.integers(0, 48, (n_seeds, 2))
    grid = np.stack(np.indices((48, 48)), axis=-1)[:, :, None]
    regions = np.linalg.norm(grid - points, axis=-1).argmin(axis=-1)
    labels = label(regions, background=-1, connectivity=1)  # a planar map
    colours = choose_colours(labels, 6)
    coloured = colours[labels - 1]
    for a, b in ((slice(1, None), slice(-1)),):
        for first, second in (((a,), (b,)), ((slice(None), a), (slice(None), b))):
            border = labels[first] != labels[second]
            assert (coloured[first] != coloured[second])[border].all()


def test_all_colours_are_used() -> None:
    labels = np.zeros((100, 100), int)
    labels[5::10, 5::10] = np.arange(1, 101).reshape(10, 10)
    assert np.bincount(choose_colours(labels, 6)).min() >= 16


def test_colours_stand_out_from_a_stain_that_stays_visible() -> None:
    image = np.full((120, 120, 3), (150, 80, 170), np.uint8)  # haematoxylin
    squares = np.zeros((6, 6), int)
    squares[::2, ::2] = np.arange(1, 10).reshape(3, 3)
    labels = np.kron(squares, np.ones((20, 20), int))
    picture = draw_overlay(image, labels)
    change = np.linalg.norm(rgb2lab(picture) - rgb2lab(image[:1, :1]), axis=-1)
    for number in range(1, 10):
        inside = change[np.kron(labels == number, np.ones((4, 4), bool))]
        assert np.percentile(inside, 99) > 60  # line
        assert np.percentile(inside, 50) < 15  # fill


def test_the_scale_bar_has_a_round_length() -> None:
    image, labels = gray((100, 125), 0), np.zeros((100, 125), int)
    for pixel_size_um, length_um in ((0.5, 10), (0.13, 2), ((0.1, 4.0), 100)):
        picture = draw_overlay(image, labels, pixel_size_um=pixel_size_um)
        white = (picture == 255).all(axis=-1)
        bar = white.sum(axis=1).max()  # the row with most white is in the bar
        um_per_pixel = np.ravel(pixel_size_um)[-1] / 4
        assert bar * um_per_pixel == pytest.approx(length_um, abs=1.5 * um_per_pixel)
    assert not draw_overlay(image, labels).any()


def test_small_images_are_enlarged_and_large_ones_shrunk() -> None:
    assert draw_overlay(gray((80, 60)), np.zeros((80, 60), int)).shape[:2] == (320, 240)
    n = MAX_SIDE + 5
    image, labels = gray((40, n)), np.zeros((40, n), np.uint8)
    labels[10:30, n // 2 :] = 3
    labels[0, 0] = 2  # too small to be seen in the shrunk picture
    image[:, : n // 2] = 200
    picture = draw_overlay(image, labels)
    assert picture.shape == (20, n // 2, 3)
    assert picture[10, 100, 0] == 200
    assert chroma(picture)[10, -100] > 5


@pytest.mark.parametrize("shape", [(2 * MAX_SIDE, 1), (1, 2 * MAX_SIDE)])
def test_a_strip_one_pixel_wide_is_shrunk_along_its_length(
    shape: tuple[int, int],
) -> None:
    picture = draw_overlay(gray(shape, 90), np.zeros(shape, int))
    assert picture.shape[:2] == tuple(max(n // 2, 1) for n in shape)
    assert (picture == 90).all()


def test_bands_of_rows_leave_no_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (90, 70, 3), dtype=np.uint8)
    labels = np.zeros((90, 70), np.uint32)
    for number, (y, x) in enumerate(rng.integers(0, 70, (25, 2)).tolist()):
        labels[y : y + 9 + number, x : x + 7] = 40 - number
    whole = draw_overlay(image, labels)
    for rows in (1, 7, 64):
        monkeypatch.setattr("napari_sam.writers.overlay._BAND_PIXELS", 70 * rows)
        np.testing.assert_array_equal(draw_overlay(image, labels), whole)


def test_saves_png(tmp_path: Path) -> None:
    image, labels = gray((50, 60)), np.eye(50, 60, dtype=np.uint16)
    path = save_overlay(image, labels, tmp_path / "übersicht.png", pixel_size_um=1)
    with Image.open(path) as picture:
        expected = draw_overlay(image, labels, pixel_size_um=1)
        np.testing.assert_array_equal(np.asarray(picture), expected)
    with pytest.raises(FileError, match="exists already"):
        save_overlay(image, labels, path)
    with pytest.raises(InputError, match=r"a\.jpg; give a name that ends in \.png"):
        save_overlay(image, labels, tmp_path / "a.jpg")


@pytest.mark.parametrize(
    ("image", "labels", "options", "message"),
    [
        (gray((5, 6)), np.zeros((6, 5), int), {}, r"with labels of shape \(6, 5\)"),
        (gray((5, 6))[..., 0], np.zeros((5, 6), int), {}, r"give \(h, w, 3\) uint8"),
        (gray((5, 6)) / 255, np.zeros((5, 6), int), {}, "float64"),
        (gray((0, 6)), np.zeros((0, 6), int), {}, r"image of shape \(0, 6, 3\)"),
        (gray((5, 6)), np.zeros((5, 6)), {}, "labels of type float64"),
        (gray((5, 6)), np.full((5, 6), -1), {}, "give integers from 0"),
        (gray((5, 6)), np.zeros((5, 6), int), {"opacity": 2}, "from 0 to 1"),
        (gray((5, 6)), np.zeros((5, 6), int), {"pixel_size_um": -1}, "above 0"),
    ],
)
def test_refuses_what_does_not_fit(
    image: Any, labels: Any, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        draw_overlay(image, labels, **options)
