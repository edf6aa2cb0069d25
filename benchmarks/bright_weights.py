"""Weights in SAM's layout, set by hand, that draw what is bright around the prompt.

    python -m benchmarks.bright_weights vit_b_bright.pth

Random weights draw the same nonsense for every prompt, so that rules which follow or
link objects have nothing to do. These make a ViT-B that any program for Segment
Anything loads as ``vit_b``, without training and without data. The blocks of the
encoder pass on what they get. The embedding holds the brightness of 4 x 4 parts of each
patch and the position encoding of the patch; mask tokens hold that of the prompted
points (of box corners, where there is no point), and the product of the two falls off
with the distance (random Fourier features: Rahimi and Recht 2007). A mask prompt adds
to where it is. Negative points are not obeyed.
"""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from napari_sam.model import VARIANTS, Sam

N_WAVES = 12  # of the position encoding that the distance is made of
WAVES = 2 * N_WAVES  # channels of an embedding: their sines and cosines
BRIGHT = slice(WAVES, WAVES + 16)  # the parts of a patch, row by row
MASK = WAVES + 16  # what the mask prompt says
CONSTANT = (100, 101)  # opposite, and so large that normalisation hardly acts
STRENGTH = 10.0  # of these two
SHIFT = 10.0  # lifts values above 0, where ReLU and GELU leave them as they are
TYPE = 250  # channel of a token that tells which kind of prompt it is
REACH = 0.25  # of half a frame: the distance at which nearness falls to 0.6
DARK, BRIGHT_FROM = 0.2, 0.4  # of 1: the brightness that counts as none, and as full
# Weights of nearness, brightness (both 0 to 1) and mask (-1 or 1) in the logit, its
# thresholds for the single mask and for the three, and how steep it is.
NEAR, LIGHT, BEFORE = 1.0, 1.0, 0.15
THRESHOLDS = (1.3, 1.3, 1.2, 1.5)
PREDICTED_IOU = (0.95, 0.95, 0.9, 0.85)
STEEP = 40.0


def bright_weights() -> dict[str, Tensor]:
    """Return the state of the network."""
    torch.manual_seed(0)
    sam = Sam(VARIANTS["vit_b"])
    with torch.no_grad():
        for module in sam.modules():
            if isinstance(
                module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d | nn.Embedding
            ):
                for parameter in module.parameters(recurse=False):
                    parameter.zero_()
        _set_positions(sam)
        _set_encoder(sam)
        _set_prompts(sam)
        _set_tokens(sam)
        _set_masks(sam)
    return sam.state_dict()


def _channels() -> Tensor:
    """Where a position encoding has the sines and cosines that are used."""
    waves = torch.arange(N_WAVES)
    return torch.cat([waves, waves + 128])


def _set_positions(sam: Any) -> None:
    """Spread the waves evenly over a Gaussian, for less noise than random ones."""
    n = torch.arange(N_WAVES)
    radius = (-2 * torch.log1p(-(n + 0.5) / N_WAVES)).sqrt() / (2 * math.pi * REACH)
    angle = n * math.pi * (3 - math.sqrt(5))
    waves = torch.stack([radius * angle.cos(), radius * angle.sin()])
    sam.prompt_encoder.pe_layer.positional_encoding_gaussian_matrix[:, :N_WAVES] = waves


def _set_encoder(sam: Any) -> None:
    encoder = sam.image_encoder
    encoder.pos_embed.zero_()
    positions = sam.prompt_encoder.dense_pe()[0, _channels()]
    encoder.pos_embed[0, :, :, :WAVES] = positions.permute(1, 2, 0)
    encoder.pos_embed[..., CONSTANT[0]] = STRENGTH
    encoder.pos_embed[..., CONSTANT[1]] = -STRENGTH
    patches = encoder.patch_embed.proj
    deviation = sam.pixel_std.flatten() / 255
    for part, channel in enumerate(range(BRIGHT.start, BRIGHT.stop)):
        y, x = (4 * i for i in divmod(part, 4))
        each = (deviation / (3 * 16))[:, None, None]
        patches.weight[channel, :, y : y + 4, x : x + 4] = each
        patches.bias[channel] = sam.pixel_mean.mean() / 255
    same = torch.arange(256)
    encoder.neck[0].weight[same, same] = 1
    encoder.neck[2].weight[same, same, 1, 1] = 1


def _set_prompts(sam: Any) -> None:
    prompts = sam.prompt_encoder
    for kind, value in enumerate((-50.0, 50.0, 25.0, 25.0)):
        prompts.point_embeddings[kind].weight[0, TYPE] = value
    # a mask and its opposite, averaged over 2 x 2 places twice; a mean of 2 x 2 that
    # is not 0 is normalised to -1 or 1
    down = prompts.mask_downscaling
    for first, n_before in ((down[0], 1), (down[3], 4)):
        first.weight[0, 0], first.weight[1, 0] = 0.25, -0.25
        if n_before > 1:
            first.weight[0, 1], first.weight[1, 1] = -0.25, 0.25
    down[6].weight[MASK, :2, 0, 0] = torch.tensor([1.0, -1.0])


def _set_tokens(sam: Any) -> None:
    """Let every token be the position of the prompts: points before corners."""
    attention = sam.mask_decoder.transformer.layers[0].self_attn
    heads = torch.arange(8) * 32
    attention.q_proj.bias[heads] = 1
    attention.k_proj.weight[heads, TYPE] = 0.4 * math.sqrt(32)
    kept = torch.ones(256)
    kept[TYPE] = 0
    attention.v_proj.weight.copy_(torch.diag(kept))
    attention.out_proj.weight.copy_(torch.eye(256))


def _set_masks(sam: Any) -> None:
    decoder, waves = sam.mask_decoder, torch.arange(WAVES)
    first, norm, _, second, _ = decoder.output_upscaling
    light, mask = 2 * WAVES, 2 * WAVES + 8
    for sign, at in ((2.0, 0), (-2.0, WAVES)):  # opposites keep the mean at 0
        first.weight[waves, waves + at] = sign
    for sign, at in ((1.0, light), (-1.0, light + 4)):
        for part in range(16):
            y, x = divmod(part, 4)
            place = at + 2 * (y % 2) + x % 2
            first.weight[BRIGHT.start + part, place, y // 2, x // 2] = sign
    first.weight[MASK, mask], first.weight[MASK, mask + 1] = 1, -1
    # what a wave, brightness and mask of 1 become on the way
    embedding = math.sqrt(256 / (2 * STRENGTH**2 + N_WAVES))
    upscaled = math.sqrt(64 / (2 * 4 * N_WAVES))
    token = math.sqrt(2)
    norm.bias.fill_(SHIFT)
    # the difference of two GELUs rises from 0 to 1, and stays
    ramp = 40.0
    norm.weight[light : light + 4] = ramp
    norm.bias[light : light + 4] = -ramp * upscaled * DARK
    norm.weight[light + 4 : light + 8] = -ramp
    norm.bias[light + 4 : light + 8] = -ramp * upscaled * BRIGHT_FROM
    rise = ramp * upscaled * (BRIGHT_FROM - DARK)
    second.weight[waves, waves] = 1
    for part in range(4):
        y, x = divmod(part, 2)
        second.weight[light + part, WAVES, y, x] = 1 / rise
        second.weight[light + 4 + part, WAVES, y, x] = -1 / rise
    second.bias[WAVES] = SHIFT
    second.weight[mask, WAVES + 1] = 1
    second.bias[WAVES + 2] = SHIFT
    near = STEEP * NEAR / (N_WAVES * 2 * upscaled * token)
    bright, before = STEEP * LIGHT, STEEP * BEFORE * embedding / upscaled
    chosen = _channels()
    for mlp, threshold in zip(
        decoder.output_hypernetworks_mlps, THRESHOLDS, strict=True
    ):
        for layer in mlp.layers[:2]:
            layer.weight.copy_(torch.eye(256))
        mlp.layers[0].bias.fill_(SHIFT)
        last = mlp.layers[2]
        last.weight[waves, chosen] = near
        last.bias[waves] = -near * SHIFT
        last.bias[WAVES], last.bias[WAVES + 1] = bright, before
        # the constant channel takes off what the shift has added, and the threshold
        last.weight[WAVES + 2, chosen] = -near
        last.bias[WAVES + 2] = (
            near * SHIFT * WAVES - bright - before - STEEP * threshold / SHIFT
        )
    decoder.iou_prediction_head.layers[2].bias.copy_(torch.tensor(PREDICTED_IOU))


def main() -> None:
    """Write them to a file."""
    torch.save(bright_weights(), Path(sys.argv[1]))


if __name__ == "__main__":
    main()
