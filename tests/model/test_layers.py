"""Layers: normalisation by the surroundings; fast paths equal the plain ones."""

import pytest
import torch
import torch.nn.functional as F

from napari_sam.model import image_encoder, layers
from napari_sam.model.config import ViTConfig
from napari_sam.model.image_encoder import Block
from napari_sam.model.layers import (
    LocalGroupNorm,
    RelPosAttention,
    attend,
    attend_in_tiles,
    relative_positions,
    window_partition,
    window_unpartition,
)


@pytest.fixture
def norm():
    torch.manual_seed(0)
    norm = LocalGroupNorm(32, stride=16)  # squares of 4 cells
    torch.nn.init.normal_(norm.weight)
    torch.nn.init.normal_(norm.bias)
    return norm


def test_a_training_window_is_normalised_as_a_group(norm):
    x = torch.randn(2, 32, 16, 16) * 3 + 1
    expected = F.group_norm(x, 2, norm.weight, norm.bias, norm.eps)
    torch.testing.assert_close(norm(x), expected)


def test_a_repeated_square_is_normalised_like_the_square(norm):
    x = torch.randn(1, 32, 4, 4) * 3 + 1
    once = F.group_norm(x, 2, norm.weight, norm.bias, norm.eps)
    repeated = norm(x.repeat(1, 1, 8, 6))
    torch.testing.assert_close(repeated, once.repeat(1, 1, 8, 6), rtol=1e-4, atol=1e-4)


def test_statistics_are_those_of_five_by_five_squares():
    plain = LocalGroupNorm(16, stride=16)
    x = torch.randn(1, 16, 36, 36) + torch.linspace(0, 9, 36)
    # In the middle of square (4, 4), between its cells, nothing is interpolated: the
    # mean of the four cells there is normalised by rows and columns 8 to 27.
    near = x[0, :, 8:28, 8:28]
    expected = (x[0, :, 17:19, 17:19].mean((1, 2)) - near.mean()) / near.std(
        correction=0
    )
    found = plain(x)[0, :, 17:19, 17:19].mean((1, 2))
    torch.testing.assert_close(found, expected, rtol=2e-2, atol=2e-2)


def test_what_lies_three_squares_away_has_no_influence(norm):
    x = torch.randn(1, 32, 64, 64)
    changed = x.clone()
    changed[..., 48:, :] = 100.0
    torch.testing.assert_close(norm(changed)[..., :36, :], norm(x)[..., :36, :])
    assert not torch.allclose(norm(changed)[..., 44:48, :], norm(x)[..., 44:48, :])


def test_a_view_that_begins_a_square_later_is_normalised_alike(norm):
    x = torch.randn(1, 32, 64, 64)
    torch.testing.assert_close(norm(x[..., 4:, :])[..., 12:, :], norm(x)[..., 16:, :])


def test_brightness_and_contrast_of_the_surroundings_do_not_matter(norm):
    x = torch.randn(1, 32, 64, 32)
    torch.testing.assert_close(norm(7 * x + 20), norm(x), rtol=1e-3, atol=1e-3)


def test_bfloat16_stays_near_float32(norm):
    x = torch.randn(1, 32, 64, 64)
    error = norm(x.bfloat16()).float() - norm(x)
    assert error.square().mean().sqrt() < 0.02 * norm(x).square().mean().sqrt()


def offsets(height, width, dim):
    """Random vectors of the vertical and horizontal offsets in a grid."""
    return tuple(
        relative_positions(torch.randn(2 * side - 1, dim), side)
        for side in (height, width)
    )


# of logits at once: one row of a head, some rows, a head, several heads
@pytest.mark.parametrize("tile", [1, 70, 35 * 35, 3 * 35 * 35, 2**19])
def test_attention_in_tiles_equals_the_plain_one(monkeypatch, tile):
    monkeypatch.setattr(layers, "TILE", tile)
    torch.manual_seed(0)
    qkv, positions = torch.randn(2, 5, 7, 3 * 32), offsets(5, 7, 8)
    expected = attend(qkv, 4, *positions)
    torch.testing.assert_close(attend_in_tiles(qkv, 4, *positions), expected)


def test_attention_in_tiles_of_bfloat16_stays_near_float32():
    torch.manual_seed(0)
    qkv, positions = torch.randn(2, 16, 16, 3 * 32), offsets(16, 16, 8)
    expected = attend(qkv, 4, *positions)
    found = attend_in_tiles(qkv.bfloat16(), 4, *positions)
    assert found.dtype == torch.bfloat16
    assert (found.float() - expected).norm() < 0.01 * expected.norm()


@torch.no_grad()
def randomised_attention(side):
    torch.manual_seed(0)
    attention = RelPosAttention(32, 4, (side, side))
    for parameter in attention.parameters():
        parameter.normal_(std=0.3)
    return attention


# the grid ends inside a window, with it, in one direction only
@pytest.mark.parametrize("size", [(9, 11), (8, 8), (8, 10), (3, 12)])
def test_windows_equal_those_padded_before_the_projection(size):
    attention, x = randomised_attention(4), torch.randn(2, *size, 32)
    windows, padded = window_partition(x, 4)
    with torch.inference_mode():
        whole_windows = attention(windows)
        expected = window_unpartition(whole_windows, 4, padded, size)
        torch.testing.assert_close(attention(x, 4), expected)


def test_attention_with_gradients_answers_the_same():
    attention, x = randomised_attention(6), torch.randn(1, 6, 6, 32)
    answer = attention(x)
    answer.square().mean().backward()
    assert all(p.grad.abs().max() > 0 for p in attention.parameters())
    with torch.inference_mode():
        torch.testing.assert_close(attention(x), answer)


# the grid ends inside a window, with it; a block that attends over the whole grid
@pytest.mark.parametrize(("size", "window"), [((9, 11), 4), ((8, 8), 4), ((7, 7), 0)])
def test_a_block_in_parts_equals_the_whole(monkeypatch, size, window):
    monkeypatch.setattr(image_encoder, "MLP_ROWS", 7)
    monkeypatch.setattr(layers, "CPU_HEADS", 3)
    torch.manual_seed(0)
    config = ViTConfig(32, 1, 4, global_attn_indexes=(), window_size=window)
    block = Block(config, size[0], is_global=not window)
    for parameter in block.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    x = torch.randn(2, *size, 32)
    expected = block(x)
    assert expected.requires_grad  # so it took the way of a training
    with torch.inference_mode():
        torch.testing.assert_close(block(x.clone()), expected.detach())
