"""The decoder of micro-sam against its description, written out in plain functions."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from napari_sam.model import Sam, SamConfig
from napari_sam.model.config import VARIANTS, UnetrConfig
from napari_sam.model.unetr import UnetrHead
from tests.reference import randomise, relative_error

State = dict[str, Tensor]


def published_names(upsampler: str) -> set[str]:
    """Keys of ``decoder_state``; up-sampling by "conv", or "block" if transposed."""
    convolutions = {"out_conv", f"deconv_out.{upsampler}"}
    for block in ("base", "decoder_head", *(f"decoder.blocks.{i}" for i in range(3))):
        convolutions |= {f"{block}.block.1", f"{block}.block.4"}
    convolutions |= {f"decoder.samplers.{i}.{upsampler}" for i in range(3)}
    statistics = set()
    for i in range(1, 5):
        up = f"deconv{i}.block"
        convolutions |= {f"{up}.0.{upsampler}", f"{up}.1.block", f"{up}.2"}
        statistics |= {
            f"{up}.2.{name}"
            for name in ("running_mean", "running_var", "num_batches_tracked")
        }
    return statistics | {f"{c}.{w}" for c in convolutions for w in ("weight", "bias")}


def expected_maps(state: State, embedding: Tensor) -> Tensor:
    """Compute the logits as the reference does, interpolation before convolution."""
    z9 = up_block(state, "deconv1.block", embedding)
    z6 = up_block(state, "deconv2.block", z9)
    z3 = up_block(state, "deconv3.block", z6)
    z0 = up_block(state, "deconv4.block", z3)
    x = conv_block(state, "base.block", embedding)
    for i, z in enumerate((z9, z6, z3)):
        x = upsample(state, f"decoder.samplers.{i}", x)
        quarter = z.shape[1] // 4
        x = torch.cat([x, z[:, quarter : 3 * quarter]], dim=1)
        x = conv_block(state, f"decoder.blocks.{i}.block", x)
    x = upsample(state, "deconv_out", x)
    x = conv_block(state, "decoder_head.block", torch.cat([x, z0], dim=1))
    return conv(state, "out_conv", x)


def conv(state: State, name: str, x: Tensor) -> Tensor:
    weight = state[f"{name}.weight"]
    return F.conv2d(x, weight, state[f"{name}.bias"], padding=weight.shape[-1] // 2)


def upsample(state: State, name: str, x: Tensor) -> Tensor:
    if f"{name}.block.weight" in state:
        weight, bias = state[f"{name}.block.weight"], state[f"{name}.block.bias"]
        return F.conv_transpose2d(x, weight, bias, stride=2)
    x = F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)
    return conv(state, f"{name}.conv", x)


def up_block(state: State, name: str, x: Tensor) -> Tensor:
    x = conv(state, f"{name}.1.block", upsample(state, f"{name}.0", x))
    mean, var, weight, bias = (
        state[f"{name}.2.{key}"][:, None, None]
        for key in ("running_mean", "running_var", "weight", "bias")
    )
    return F.relu((x - mean) / torch.sqrt(var + 1e-5) * weight + bias)


def conv_block(state: State, name: str, x: Tensor) -> Tensor:
    for layer in (1, 4):
        x = x - x.mean(dim=(2, 3), keepdim=True)
        x = x / torch.sqrt(x.square().mean(dim=(2, 3), keepdim=True) + 1e-5)
        x = F.relu(conv(state, f"{name}.{layer}", x))
    return x


@pytest.mark.parametrize(("transposed", "name"), [(False, "conv"), (True, "block")])
def test_parameter_names_are_those_of_decoder_state(
    transposed: bool, name: str
) -> None:
    head = UnetrHead(UnetrConfig(transposed=transposed), in_chans=256)
    state = head.state_dict()
    assert set(state) == published_names(name)
    assert state["base.block.1.weight"].shape == (512, 256, 3, 3)
    assert state["decoder.blocks.0.block.1.weight"].shape == (256, 512, 3, 3)
    assert state["decoder_head.block.1.weight"].shape == (64, 128, 3, 3)
    assert state["out_conv.weight"].shape == (3, 64, 1, 1)


@pytest.mark.parametrize("transposed", [False, True])
def test_maps_follow_the_description(transposed: bool) -> None:
    torch.manual_seed(0)
    config = UnetrConfig(features=(64, 32, 16, 8), transposed=transposed)
    head = UnetrHead(config, in_chans=24).eval()
    randomise(head)
    embedding = torch.randn(2, 24, 5, 7)
    with torch.no_grad():
        found, expected = head(embedding), expected_maps(head.state_dict(), embedding)
    assert found.shape == (2, 3, 80, 112)
    assert relative_error(found, expected) <= 1e-5


def test_published_width_follows_the_description() -> None:
    torch.manual_seed(0)
    head = UnetrHead(UnetrConfig(), in_chans=256).eval()
    randomise(head)
    embedding = torch.randn(1, 256, 4, 4)
    with torch.no_grad():
        found, expected = head(embedding), expected_maps(head.state_dict(), embedding)
    assert relative_error(found, expected) <= 1e-5


def test_sam_proposes_means_over_the_finer_maps_at_a_quarter_of_the_frame() -> None:
    torch.manual_seed(0)
    config = SamConfig(
        "tiny_unetr",
        VARIANTS["tiny"].encoder,
        image_size=128,
        embed_dim=32,
        decoder_heads=4,
        proposal=UnetrConfig(features=(64, 32, 16, 8)),
    )
    sam = Sam(config).eval()
    randomise(sam.proposal_head)
    embedding = torch.randn(1, 32, 8, 8)
    with torch.no_grad():
        found = sam.propose(embedding)
        full = torch.sigmoid(expected_maps(sam.proposal_head.state_dict(), embedding))
    assert found.shape == (1, 3, config.mask_size, config.mask_size)
    expected = full.unflatten(3, (32, 4)).unflatten(2, (32, 4)).mean(dim=(3, 5))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
