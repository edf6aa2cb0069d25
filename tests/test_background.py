"""Background: noise is, faint objects are not."""

from __future__ import annotations

import numpy as np
import pytest

from napari_sam.images.background import MIN_CONTRAST, block_means, contrast


def picture(noise: float, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(30, noise, (1024, 1024))


def contrast_of(gray: np.ndarray) -> float:
    rounded = np.floor(gray + 0.5).clip(0, 255).astype(np.uint8)
    return contrast([block_means(np.repeat(rounded[..., None], 3, axis=2))])


def test_block_means_are_those_of_a_loop() -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (35, 26, 3), dtype=np.uint8)
    expected = np.empty((4, 3, 3))
    for row, (y0, y1) in enumerate([(0, 8), (8, 16), (16, 24), (24, 35)]):
        for column, (x0, x1) in enumerate([(0, 8), (8, 16), (16, 26)]):
            expected[row, column] = rgb[y0:y1, x0:x1].mean(axis=(0, 1))
    np.testing.assert_allclose(block_means(rgb), expected, rtol=1e-6)
    assert block_means(rgb[:5, :3]).shape == (1, 1, 3)


@pytest.mark.parametrize("noise", [0, 0.5, 1.5])
def test_noise_alone_is_background(noise: float) -> None:
    assert contrast_of(picture(noise)) < MIN_CONTRAST


@pytest.mark.parametrize("noise", [0, 0.5, 2, 10])
@pytest.mark.parametrize("diameter", [12, 40, 400])
@pytest.mark.parametrize("place", [(0, 0), (511, 700), (1023, 1023)])
def test_a_faint_object_anywhere_is_none(
    noise: float, diameter: int, place: tuple[int, int]
) -> None:
    gray = picture(noise)
    y, x = np.mgrid[:1024, :1024]
    gray[(y - place[0]) ** 2 + (x - place[1]) ** 2 < diameter**2 / 4] += 6
    assert contrast_of(gray) >= MIN_CONTRAST


@pytest.mark.parametrize("change", ["light", "texture", "one channel"])
def test_when_in_doubt_it_is_no_background(change: str) -> None:
    gray = picture(1)
    if change == "light":
        assert contrast_of(gray + np.linspace(0, 4, 1024)) >= MIN_CONTRAST
    elif change == "texture":
        assert contrast_of(gray + 20 * (picture(1, 1) > 30)) >= MIN_CONTRAST
    else:
        rgb = np.full((64, 64, 3), 240, np.uint8)
        rgb[20:40, 20:40, 1] = 234
        assert contrast([block_means(rgb)]) >= MIN_CONTRAST


def test_bands_of_a_picture_are_compared_with_each_other() -> None:
    dark, bright = np.full((2, 64, 64, 3), [[[[10]]], [[[14]]]], np.uint8)
    assert contrast([block_means(dark), block_means(bright)]) == 4
