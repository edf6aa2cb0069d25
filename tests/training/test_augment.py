"""Changes of grey values keep range and shape, and happen."""

import numpy as np
import torch

from napari_sam.training.augment import augment_intensity


def test_range_and_shape_stay_and_seeds_decide():
    generator = torch.Generator().manual_seed(0)
    pixels = torch.rand(3, 40, 56, generator=generator) * 255
    changed = []
    for seed in range(60):
        out = augment_intensity(pixels, np.random.default_rng(seed))
        assert out.shape == pixels.shape
        assert out.min() >= 0
        assert out.max() <= 255
        changed.append(not torch.equal(out, pixels))
        again = augment_intensity(pixels, np.random.default_rng(seed))
        torch.testing.assert_close(out, again)
    assert 30 < sum(changed) <= 60


def test_gray_images_stay_gray_unless_noise_is_in_one_channel():
    gray = torch.linspace(0, 255, 32 * 32).view(1, 32, 32).expand(3, -1, -1)
    for seed in range(40):
        out = augment_intensity(gray, np.random.default_rng(seed))
        torch.testing.assert_close(out[0], out[1])
        torch.testing.assert_close(out[0], out[2])


def test_bright_stays_brighter_than_dark_except_when_inverted():
    step = torch.zeros(3, 32, 32)
    step[..., 16:] = 255
    brighter = [
        (out[..., 20:].mean() > out[..., :12].mean()).item()
        for out in (
            augment_intensity(step, np.random.default_rng(seed)) for seed in range(200)
        )
    ]
    assert 0.78 < np.mean(brighter) < 0.92
