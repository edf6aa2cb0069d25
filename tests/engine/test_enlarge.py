"""Masks in plane pixels: the same as torch's interpolation of the whole."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from napari_sam.engine.enlarge import (
    extent,
    input_logits,
    mask_logits,
    over_one_box,
    plane_logits,
    plane_mask,
    unscaled_mask,
)
from napari_sam.masks import stability_scores
from napari_sam.tiling import Box, Crop, CropGrid


def plane_masks(logits, crop, origin=(0, 0)):
    """Masks of several logits over one box."""
    return over_one_box([plane_mask(each, crop, origin) for each in logits])


def blobs(seed, shape):
    """Smooth noise that is above 0 in a part of the frame."""
    noise = torch.randn(3, 9, 9, generator=torch.Generator().manual_seed(seed))
    full = F.interpolate(noise[None], shape, mode="bicubic")[0]
    full[:, : shape[0] // 3] = -1
    full[:, :, -shape[1] // 4 :] = -1
    return full


@pytest.mark.parametrize(
    ("height", "width", "input_shape"),
    [
        (40, 60, (40, 60)),  # scale 1
        (700, 950, (76, 103)),  # a large object, in several bands
        (31, 43, (124, 172)),  # a small plane, enlarged
    ],
)
def test_masks_are_those_of_the_whole_frame(height, width, input_shape):
    box = Box(11, 23, 11 + height, 23 + width)
    crop = Crop(-1, -1, -1, box, core=box, input_shape=input_shape)
    for seed in range(5):
        logits = blobs(seed, input_shape)
        whole = F.interpolate(logits[None], (height, width), mode="bilinear")[0] > 0
        where, masks = plane_masks(logits, crop)
        assert where == extent(whole.any(0).numpy()).shift(11, 23)
        placed = np.zeros((3, height, width), bool)
        placed[:, *where.shift(-11, -23).slices] = masks
        # rounding may move a pixel whose logit is 0 but for 1e-7
        assert (placed != whole.numpy()).mean() < 1e-5


def test_an_empty_mask_has_a_place():
    box = Box(5, 6, 45, 66)
    crop = Crop(-1, -1, -1, box, core=box, input_shape=(40, 60))
    where, mask = plane_mask(torch.full((40, 60), -1.0), crop)
    assert where == Box(5, 6, 6, 7)
    assert not mask.any()


def test_masks_over_one_box():
    some, other = np.eye(3, dtype=bool), np.ones((1, 2), bool)
    nothing = Box(0, 0, 1, 1), np.zeros((1, 1), bool)
    box, masks = over_one_box(
        [(Box(5, 6, 8, 9), some), nothing, (Box(9, 3, 10, 5), other)]
    )
    assert box == Box(5, 3, 10, 9)
    expected = np.zeros((3, 5, 6), bool)
    expected[0, :3, 3:] = some
    expected[2, 4, :2] = True
    np.testing.assert_array_equal(masks, expected)
    box, masks = over_one_box([nothing, nothing])
    assert box == nothing[0]
    assert masks.shape == (2, 1, 1)
    assert not masks.any()


@pytest.mark.parametrize("shape", [(128, 128), (128, 77), (50, 128), (9, 11)])
@pytest.mark.parametrize("seed", range(3))
def test_logits_above_the_floor_are_those_of_the_whole_frame(shape, seed):
    logits = blobs(seed, (32, 32)) * 4
    logits[:, seed : 4 * seed] = -9
    frame = F.interpolate(logits[None], (128, 128), mode="bilinear")[0]
    frame = frame[:, : shape[0], : shape[1]]
    boxes = (
        Box(3, 4, 3 + 2 * shape[0], 4 + 2 * shape[1]),
        Box(3, 4, 3 + shape[0], 4 + shape[1]),
    )
    for low, high in zip(logits, frame, strict=True):
        (y0, x0), part = input_logits(low, shape, floor=-1.0)
        expected = torch.full_like(high, -1.0)
        expected[y0 : y0 + part.shape[0], x0 : x0 + part.shape[1]] = part
        torch.testing.assert_close(expected.clamp(min=-1), high.clamp(min=-1))
        torch.testing.assert_close(stability_scores(part), stability_scores(high))
        for box in boxes:
            crop = Crop(-1, -1, -1, box, core=box, input_shape=shape)
            where, mask = plane_mask(part, crop, (y0, x0))
            whole, same = plane_mask(high, crop)
            if same.any():  # an empty mask may lie anywhere
                assert where == whole
                np.testing.assert_array_equal(mask, same)
            else:
                assert not mask.any()


@pytest.mark.parametrize("shape", [(128, 128), (128, 77), (50, 126), (9, 11), (2, 1)])
@pytest.mark.parametrize("seed", range(4))
def test_masks_drawn_where_logits_change_sides_are_the_plain_ones(shape, seed):
    logits = blobs(seed, (32, 32)) * 4
    logits[:, seed : 4 * seed] = -9
    if seed == 3:  # up to the borders
        logits = torch.randn(3, 32, 32, generator=torch.Generator().manual_seed(0))
    frame = F.interpolate(logits[None], (128, 128), mode="bilinear")[0]
    box = Box(3, 4, 3 + shape[0], 4 + shape[1])
    crop = Crop(-1, -1, -1, box, core=box, input_shape=shape)
    for low, high in zip(logits, frame[:, : shape[0], : shape[1]], strict=True):
        found = unscaled_mask(low.numpy(), crop)
        where, mask = plane_mask(high, crop)
        np.testing.assert_array_equal(found.mask, mask)
        assert found.stability == pytest.approx(float(stability_scores(high)))
        if mask.any():  # an empty mask may lie anywhere
            assert found.box == where


def test_an_empty_mask_is_drawn():
    box = Box(5, 6, 45, 66)
    crop = Crop(-1, -1, -1, box, core=box, input_shape=(40, 60))
    found = unscaled_mask(np.full((32, 32), -2, np.float32), crop)
    assert found.box.shape == found.mask.shape
    assert not found.mask.any()
    assert found.stability == 0


def test_logits_below_the_floor_leave_a_part_without_a_mask():
    (y0, x0), part = input_logits(torch.full((32, 32), -2.0), (9, 100), floor=-1.0)
    assert part.numel() > 0
    assert (y0, x0) == (0, 0)
    assert (part <= -1).all()


def spots(centres, radius=3.05):
    """(32, 32) logits that fall off around places in cells, none exactly -1."""
    y, x = torch.meshgrid(torch.arange(32.0), torch.arange(32.0), indexing="ij")
    apart = [torch.hypot(y - cy, x - cx) for cy, cx in centres]
    nearest = torch.stack(apart).amin(0) if apart else torch.full((32, 32), 99.0)
    return radius - nearest


@pytest.mark.parametrize(
    "centres",
    [[(10, 12)], [(0, 0)], [(31, 31)], [(2, 30), (20, 5)], [(30.5, 8)], []],
)
@pytest.mark.parametrize("plane", [(128, 96), (300, 225), (60, 45)])
def test_a_part_of_the_plane_is_the_whole_cut_out(centres, plane):
    box = Box(11, 23, 11 + plane[0], 23 + plane[1])
    crop = Crop(-1, -1, -1, box, core=box, input_shape=(128, 96))
    logits = spots(centres)
    frame = F.interpolate(logits[None, None], (128, 128), mode="bilinear")[..., :96]
    whole = F.interpolate(frame, plane, mode="bilinear")[0, 0]
    where, part = plane_logits(logits, crop)
    inside = where.shift(-11, -23)
    for level in (-1, 0, 1):  # what stability scores and masks are made of
        found = torch.zeros(plane, dtype=torch.bool)
        found[inside.slices] = part > level
        assert (found != (whole > level)).float().mean() < 1e-4
    if len(centres) == 1:
        assert part.numel() < whole.numel() / 3


def test_a_mask_prompt_lies_where_the_mask_lies():
    box = Box(100, 200, 612, 712)  # of 512 px, enlarged twice
    crop = Crop(-1, -1, -1, box, box, (1024, 1024))
    known = Box(228, 328, 356, 584)
    logits = mask_logits(known, np.ones(known.shape, bool), crop, 256, 1024)
    inside = np.zeros((256, 256), bool)
    inside[64:128, 64:192] = True  # quarters and halves of the crop
    np.testing.assert_array_equal(logits > 0, inside)
    assert (logits[70:120, 70:180] == 8).all()
    assert (logits[:60] == -8).all()


@pytest.mark.parametrize("box", [Box(8, 10, 12, 16), Box(-2, 28, 2, 34)])
def test_a_mask_prompt_is_the_mask_where_pixels_are_its_own(box):
    crop = CropGrid((32, 32), size=128, halo=16)[0]
    mask = np.ones(box.shape, bool)
    mask[2, 0] = False
    expected = np.full((48, 48), -8, np.float32)
    inside = box.shift(8, 8)
    expected[inside.slices][mask] = 8
    logits = mask_logits(box, mask, crop, 32, 128)
    np.testing.assert_allclose(logits, expected[8:40, 8:40], atol=1e-4)
