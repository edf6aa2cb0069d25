from __future__ import annotations

import re
from dataclasses import replace

import pytest
import torch

from napari_sam.errors import WeightsError
from napari_sam.model import VARIANTS, Sam, SamConfig
from napari_sam.model.config import (
    ProposalConfig,
    TinyViTConfig,
    UnetrConfig,
    ViTConfig,
)
from napari_sam.weights.recognise import State, head_state, plain_state, recognise

TINY = VARIANTS["tiny"]
UNETR = UnetrConfig((16, 8, 8, 8))


def state_of(config: SamConfig) -> State:
    """Names and shapes only: nothing is computed or allocated."""
    with torch.device("meta"):
        return Sam(config).state_dict()


@pytest.mark.parametrize("name", sorted(VARIANTS))
def test_every_variant_is_recognised(name: str) -> None:
    assert recognise(state_of(VARIANTS[name])) == VARIANTS[name]


@pytest.mark.parametrize(
    "head",
    [
        None,
        ProposalConfig((24, 8)),
        ProposalConfig((24, 8), has_detail=True, has_votes=True),
        UNETR,
        replace(UNETR, transposed=True),
    ],
)
@pytest.mark.parametrize("name", ["tiny", "vit_t", "default"])
def test_every_head_is_recognised(
    name: str, head: ProposalConfig | UnetrConfig | None
) -> None:
    config = replace(VARIANTS[name], proposal=head)
    assert recognise(state_of(config)) == config


def test_decoder_of_micro_sam_has_its_published_widths() -> None:
    config = replace(VARIANTS["vit_b"], proposal=UnetrConfig())
    assert recognise(state_of(config)).proposal == UnetrConfig((512, 256, 128, 64))


@pytest.mark.parametrize("image_size", [256, 512])
def test_fine_tuned_for_smaller_images(image_size: int) -> None:
    config = replace(VARIANTS["vit_b"], image_size=image_size)
    found = recognise(state_of(config))
    assert found.image_size == image_size
    assert found.name == "vit_b"
    assert found == config


def test_other_sizes_are_called_custom() -> None:
    encoder = ViTConfig(48, 3, 4, (0, 2), window_size=5, mlp_ratio=2.0, patch_size=16)
    config = SamConfig(
        "custom",
        encoder,
        image_size=256,
        embed_dim=64,
        decoder_depth=1,
        decoder_mlp_dim=96,
        mask_in_chans=8,
    )
    assert recognise(state_of(config)) == config


def test_other_tiny_vit() -> None:
    encoder = TinyViTConfig(
        embed_dims=(32, 64, 96, 128),
        depths=(1, 2, 3, 1),
        num_heads=(2, 2, 3, 4),
        window_sizes=(7, 5, 10, 5),
        mlp_ratio=2.0,
        mbconv_expand=3.0,
    )
    assert recognise(state_of(SamConfig("custom", encoder))).encoder == encoder


def test_heads_come_from_the_variant_because_no_shape_shows_them() -> None:
    assert recognise(state_of(TINY)).decoder_heads == TINY.decoder_heads == 4
    assert recognise(state_of(VARIANTS["vit_b"])).decoder_heads == 8


@pytest.mark.parametrize("prefix", ["", "module.", "sam.", "module.sam."])
@pytest.mark.parametrize("key", [None, "model_state", "state_dict", "model"])
def test_layouts_of_checkpoints(prefix: str, key: str | None) -> None:
    state = state_of(TINY)
    content: dict[str, object] = {prefix + name: t for name, t in state.items()}
    if key is not None:
        content = {"epoch": 3, key: content, "optimizer_state": {"state": {}}}
    assert plain_state(content) == state


def test_decoder_state_of_micro_sam_becomes_the_proposal_head() -> None:
    config = replace(TINY, proposal=UNETR)
    state = state_of(config)
    head = "proposal_head."
    content = {
        "model_state": {f"sam.{k}": v for k, v in state.items() if head not in k},
        "decoder_state": {
            k.removeprefix(head): v for k, v in state.items() if head in k
        },
    }
    assert plain_state(content) == state
    assert recognise(plain_state(content)) == config


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("vision_encoder.layers.0.attn.qkv.weight", "Hugging Face"),
        ("image_encoder.trunk.pos_embed", "SAM 2"),
        ("encoder.conv1.weight", "U-Net"),
        ("backbone.weight", "got ['backbone.weight']"),
    ],
)
def test_other_networks_are_named(name: str, message: str) -> None:
    with pytest.raises(WeightsError, match=re.escape(message)):
        recognise({name: torch.zeros(1)})


def test_unknown_encoder_is_refused() -> None:
    state = {"image_encoder.conv.weight": torch.zeros(3)}
    with pytest.raises(WeightsError, match=r"got \['image_encoder\.conv\.weight"):
        recognise(state)


def test_missing_parameter_is_named() -> None:
    state = state_of(TINY)
    del state["prompt_encoder.no_mask_embed.weight"]
    with pytest.raises(WeightsError, match=r"no_mask_embed\.weight' is missing"):
        recognise(state)


def test_odd_shape_is_refused() -> None:
    state = state_of(TINY)
    state["image_encoder.patch_embed.proj.weight"] = torch.zeros(32, 3)
    with pytest.raises(WeightsError, match="a shape is odd"):
        recognise(state)


@pytest.mark.parametrize("content", [[1, 2], {"a": 1}, {}, torch.zeros(2)])
def test_content_without_parameters_is_refused(content: object) -> None:
    with pytest.raises(WeightsError, match=r"state dict|no parameters"):
        plain_state(content)


def test_decoder_of_another_kind_is_refused() -> None:
    with pytest.raises(WeightsError, match=r"out_conv\.weight"):
        head_state({"weight": torch.zeros(1)})
