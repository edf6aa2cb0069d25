"""A mask takes the level at which it fills its box; compared with masks drawn out."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from napari_sam.cache import EmbeddingCache
from napari_sam.engine.box_level import fill_boxes
from napari_sam.engine.embed import open_plane
from napari_sam.engine.enlarge import input_logits, plane_mask
from napari_sam.engine.predict import Predictor
from napari_sam.model import VARIANTS, Sam
from napari_sam.model.config import ProposalConfig
from napari_sam.prompts import Prompts
from napari_sam.tiling import Box, Crop, CropGrid

LEVELS = np.arange(-6, 7) / 2


def disc(centre: tuple[float, float], radius: float, slope: float = 0.5):
    """Logits that fall by ``slope`` for each cell, 0 at ``radius`` cells."""
    y, x = np.mgrid[:64, :64] - np.array(centre)[:, None, None]
    return torch.tensor(slope * (radius - np.hypot(y, x)), dtype=torch.float32)


def crops() -> list[Crop]:
    """One whole frame of 256 px, one enlarged, one cut from the middle of a plane."""
    return [
        CropGrid((256, 256), size=256, halo=16)[0],
        CropGrid((64, 60), size=256, halo=16)[0],
        CropGrid((500, 500), size=256, halo=16)[4],
    ]


def level(logits: torch.Tensor, box: Box, crop: Crop) -> float:
    edges = torch.tensor([[box.y0, box.x0, box.y1, box.x1]])
    shifted = fill_boxes(logits[None, None], edges, crop)[0, 0]
    return float((logits - shifted).mean())


def tight(logits: torch.Tensor, crop: Crop) -> Box:
    origin, part = input_logits(logits, crop.input_shape, -0.5)
    return plane_mask(part, crop, origin)[0]


def box_iou(a: Box, b: Box) -> float:
    shared = a.intersection(b)
    return 0.0 if shared is None else shared.area / (a.area + b.area - shared.area)


@pytest.mark.parametrize("crop", crops(), ids=["whole", "enlarged", "inner"])
@pytest.mark.parametrize("grown", [-6, -3, -1, 0, 1, 3, 6])
def test_level_is_that_of_the_masks_drawn_one_by_one(crop: Crop, grown: int) -> None:
    logits = disc((30.3, 27.8), 12)
    exact = tight(logits, crop)
    box = Box(exact.y0 - grown, exact.x0 - grown, exact.y1 + grown, exact.x1 + grown)
    worth = [
        box_iou(tight(logits - float(each), crop), box)
        - (0.02 * each if each > 0 else -0.06 * each)
        for each in LEVELS
    ]
    found = worth[int(np.flatnonzero(level(logits, box, crop) == LEVELS)[0])]
    assert found == pytest.approx(max(worth), abs=0.01)


def test_spilling_masks_shrink_and_gaps_close() -> None:
    crop = crops()[0]
    logits = disc((32, 32), 12)
    exact = tight(logits, crop)
    by = {
        n: Box(exact.y0 - n, exact.x0 - n, exact.y1 + n, exact.x1 + n) for n in (-8, 8)
    }
    assert level(logits, exact, crop) == 0
    assert level(logits, by[-8], crop) == 1.0  # two cells of 4 px, half a logit each
    assert level(logits, by[8], crop) == -1.0


def test_a_box_that_holds_nothing_changes_nothing() -> None:
    logits = torch.full((64, 64), -9.0)
    assert level(logits, Box(10, 10, 50, 50), crops()[0]) == 0


def test_an_object_cut_by_the_edge_of_the_crop_keeps_its_level() -> None:
    crop = crops()[0]
    logits = disc((5, 5), 12)
    assert level(logits, tight(logits, crop), crop) == 0


def test_each_mask_of_each_prompt_has_its_own_level() -> None:
    crop = crops()[0]
    masks = torch.stack([disc((32, 32), r) for r in (10, 12, 14)])
    box = tight(masks[1], crop)
    edges = torch.tensor([[box.y0, box.x0, box.y1, box.x1]] * 2)
    both = fill_boxes(masks.expand(2, -1, -1, -1), edges, crop)
    assert (masks - both[1]).mean(dim=(1, 2)).tolist() == pytest.approx([-1.0, 0, 1.0])
    torch.testing.assert_close(both[0], both[1])


@pytest.mark.parametrize("has_votes", [False, True], ids=["published", "ours"])
def test_only_a_box_without_an_earlier_mask_sets_the_level(has_votes: bool) -> None:
    head = ProposalConfig((16, 8, 8), has_detail=True, has_votes=has_votes)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Sam(replace(VARIANTS["tiny"], proposal=head)).eval()
    image = np.random.default_rng(0).integers(0, 256, (128, 128), dtype=np.uint8)
    plane = open_plane(image, model, cache=EmbeddingCache())
    predictor = Predictor(model, plane)
    box, edges = [30, 40, 80, 90], torch.tensor([[30, 40, 80, 90]])
    crop = predictor.crop_for(Prompts(boxes=box))
    plain = model.decode(
        plane.of(crop), boxes=torch.tensor([[39.5, 29.5, 89.5, 79.5]]), multimask=False
    )[0]
    wanted = fill_boxes(plain, edges, crop) if has_votes else plain
    answer = predictor.predict(Prompts(boxes=box)).logits
    torch.testing.assert_close(torch.from_numpy(answer), wanted[0], atol=1e-4, rtol=0)
    assert bool((wanted != plain).any()) == has_votes

    again = Prompts(boxes=box, mask=answer[0])
    fed_back = model.decode(
        plane.of(crop),
        boxes=torch.tensor([[39.5, 29.5, 89.5, 79.5]]),
        masks=torch.from_numpy(answer)[None],
        multimask=False,
    )[0]
    torch.testing.assert_close(
        torch.from_numpy(predictor.predict(again).logits),
        fed_back[0],
        atol=1e-4,
        rtol=0,
    )
