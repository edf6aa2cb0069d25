"""The simulated dialogue: what a careful annotator does otherwise."""

import pytest
import torch

from napari_sam.model import VARIANTS, Sam
from napari_sam.training.data import Batch
from napari_sam.training.rounds import PromptRounds


@pytest.fixture
def batch():
    """200 times the same disc of 40 px around (64, 64) in a window of 128 px."""
    rows, columns = torch.meshgrid(torch.arange(64), torch.arange(64), indexing="ij")
    disc = ((rows - 31.75) ** 2 + (columns - 31.75) ** 2 <= 20**2).float()
    return Batch(
        images=torch.zeros(1, 3, 128, 128, dtype=torch.uint8),
        maps=torch.zeros(1, 3, 32, 32),
        centres=torch.zeros(1, 2, 16, 16),
        votes=torch.zeros(1, 3, 32, 32),
        is_complete=torch.ones(1),
        masks=disc.expand(200, -1, -1).clone(),
        owner=torch.zeros(200, dtype=torch.int64),
        origin=(0, 0),
    )


def first_prompts(batch, *, careful):
    generator = torch.Generator().manual_seed(0)
    model = Sam(VARIANTS["tiny"])
    rounds = PromptRounds(
        model, torch.zeros(1, 1, 8, 8), batch, generator, careful=careful
    )
    return rounds.points[:, 0], rounds.boxes


def test_careful_clicks_are_central_and_careful_boxes_close(batch):
    clicks, boxes = first_prompts(batch, careful=True)
    any_clicks, any_boxes = first_prompts(batch, careful=False)
    # Even clicks into a disc of 40 px lie 28 px from its middle (median), others 11.
    middle = torch.tensor([63.5, 63.5])
    assert (any_clicks - middle).norm(dim=1).median() > 24
    assert (clicks - middle).norm(dim=1).median() < 14
    exact = torch.tensor([23.5, 23.5, 103.5, 103.5])
    assert (boxes - exact).abs().mean() < 0.7 * (any_boxes - exact).abs().mean()
