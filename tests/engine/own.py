"""Our own kind of network, small and with random weights."""

import torch

from napari_sam.model import Sam
from napari_sam.model.config import ConvConfig, ProposalConfig, SamConfig


def own_network(*, has_votes: bool = True) -> Sam:
    """Return a network with a frame of 32 x 32 cells."""
    torch.manual_seed(0)
    config = SamConfig(
        "small",
        ConvConfig((8, 8, 16, 16), (1, 1, 1, 1)),
        image_size=512,
        embed_dim=32,
        decoder_heads=4,
        decoder_mlp_dim=64,
        proposal=ProposalConfig((8, 8, 8), has_detail=has_votes, has_votes=has_votes),
    )
    return Sam(config).eval()
