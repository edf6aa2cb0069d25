"""Normalisation by the surroundings: near is what counts, far does not."""

import pytest
import torch
import torch.nn.functional as F

from napari_sam.model.layers import LocalGroupNorm


@pytest.fixture
def norm():
    torch.manual_seed(0)
    norm = LocalGroupNorm(32, stride=16)  # squares of 16 cells
    torch.nn.init.normal_(norm.weight)
    torch.nn.init.normal_(norm.bias)
    return norm


def test_one_square_is_normalised_as_a_group(norm):
    x = torch.randn(2, 32, 16, 16) * 3 + 1
    expected = F.group_norm(x, 2, norm.weight, norm.bias, norm.eps)
    torch.testing.assert_close(norm(x), expected)


def test_a_repeated_square_is_normalised_like_the_square(norm):
    x = torch.randn(1, 32, 16, 16) * 3 + 1
    once = F.group_norm(x, 2, norm.weight, norm.bias, norm.eps)
    repeated = norm(x.repeat(1, 1, 4, 3))
    torch.testing.assert_close(repeated, once.repeat(1, 1, 4, 3), rtol=1e-4, atol=1e-4)


def test_what_lies_two_squares_away_has_no_influence(norm):
    x = torch.randn(1, 32, 64, 64)
    changed = x.clone()
    changed[..., 48:, :] = 100.0
    torch.testing.assert_close(norm(changed)[..., :24, :], norm(x)[..., :24, :])
    assert not torch.allclose(norm(changed)[..., 44:48, :], norm(x)[..., 44:48, :])


def test_brightness_and_contrast_of_the_surroundings_do_not_matter(norm):
    x = torch.randn(1, 32, 64, 32)
    torch.testing.assert_close(norm(7 * x + 20), norm(x), rtol=1e-3, atol=1e-3)


def test_bfloat16_stays_near_float32(norm):
    x = torch.randn(1, 32, 64, 64)
    error = norm(x.bfloat16()).float() - norm(x)
    assert error.square().mean().sqrt() < 0.02 * norm(x).square().mean().sqrt()
