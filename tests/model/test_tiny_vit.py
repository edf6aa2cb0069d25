"""TinyViT against timm's implementation of the same network."""

import re

import pytest
import torch
from torch import Tensor, nn

from napari_sam.model.config import TinyViTConfig
from napari_sam.model.tiny_vit import TinyViT
from tests.reference import load, randomise, relative_error

# timm puts the merge at the head of the stage it leads to, MobileSAM at the tail of
# the stage before; the other names differ by spelling.
RENAMED = (
    (r"^patch_embed\.conv1\.", "patch_embed.seq.0."),
    (r"^patch_embed\.conv2\.", "patch_embed.seq.2."),
    (r"^head\.norm\.", "norm_head."),
    (r"^head\.fc\.", "head."),
    (r"^stages\.1\.downsample\.", "layers.0.downsample."),
    (r"^stages\.2\.downsample\.", "layers.1.downsample."),
    (r"^stages\.3\.downsample\.", "layers.2.downsample."),
    (r"^stages\.", "layers."),
    (r"\.conv\.weight$", ".c.weight"),
)
TRUNK = {"patch_embed", "layers", "norm_head", "head"}


@pytest.fixture(scope="module")
def timm_tiny_vit() -> nn.Module:
    torch.manual_seed(0)
    reference = load("timm").create_model("tiny_vit_5m_224", num_classes=1000)
    # The one change that MobileSAM makes to the trunk.
    reference.stages[3].downsample.conv2.conv.stride = (1, 1)
    randomise(reference)
    return reference.eval()


@pytest.fixture
def ours(timm_tiny_vit: nn.Module) -> TinyViT:
    model = TinyViT(TinyViTConfig()).eval()
    state = {renamed(name): v for name, v in timm_tiny_vit.state_dict().items()}
    neck = {n: v for n, v in model.state_dict().items() if n.startswith("neck.")}
    model.load_state_dict(state | neck, strict=True)
    return model


def renamed(name: str) -> str:
    for pattern, replacement in RENAMED:
        name = re.sub(pattern, replacement, name)
    return name


def trunk(model: TinyViT, x: Tensor) -> Tensor:
    x = model.patch_embed(x)
    for stage in model.layers:
        x = stage(x)
    return x


@pytest.mark.parametrize("size", [(224, 224), (64, 208)])
def test_the_trunk_is_timms(
    ours: TinyViT, timm_tiny_vit: nn.Module, size: tuple[int, int]
) -> None:
    x = torch.randn(2, 3, *size)
    with torch.no_grad():
        found, expected = trunk(ours, x), timm_tiny_vit.forward_features(x)
    assert found.shape == (2, 320, size[0] // 16, size[1] // 16)
    assert relative_error(found, expected) <= 1e-5


def test_the_trunk_is_timms_while_training(
    ours: TinyViT, timm_tiny_vit: nn.Module
) -> None:
    x = torch.randn(2, 3, 64, 64)
    try:
        found = trunk(ours.train(), x)
        expected = timm_tiny_vit.train().forward_features(x)
    finally:
        timm_tiny_vit.eval()
    assert relative_error(found, expected) <= 1e-5
    torch.testing.assert_close(
        ours.layers[2].blocks[5].local_conv.bn.running_var,
        timm_tiny_vit.stages[2].blocks[5].local_conv.bn.running_var,
    )


def test_parameter_names_are_those_of_the_published_checkpoint() -> None:
    state = TinyViT(TinyViTConfig()).state_dict()
    # From the construction of mobile_sam/modeling/tiny_vit_sam.py.
    assert {
        "patch_embed.seq.0.c.weight": (32, 3, 3, 3),
        "patch_embed.seq.2.bn.running_mean": (64,),
        "layers.0.blocks.1.conv2.c.weight": (256, 1, 3, 3),
        "layers.0.downsample.conv1.c.weight": (128, 64, 1, 1),
        "layers.1.blocks.0.attn.attention_biases": (4, 49),
        "layers.2.blocks.5.attn.qkv.weight": (480, 160),
        "layers.2.blocks.5.attn.norm.bias": (160,),
        "layers.2.blocks.0.attn.attention_biases": (5, 196),
        "layers.2.downsample.conv2.c.weight": (320, 1, 3, 3),
        "layers.3.blocks.1.mlp.fc2.weight": (320, 1280),
        "layers.3.blocks.1.local_conv.bn.num_batches_tracked": (),
        "norm_head.weight": (320,),
        "head.weight": (1000, 320),
        "neck.0.weight": (256, 320, 1, 1),
        "neck.1.weight": (256,),
        "neck.2.weight": (256, 256, 3, 3),
        "neck.3.bias": (256,),
    }.items() <= {name: tuple(value.shape) for name, value in state.items()}.items()
    assert {name.split(".")[0] for name in state} == TRUNK | {"neck"}
    # 6.07 million parameters: TinyViT-5M with its classifier, and the neck.
    parameters = TinyViT(TinyViTConfig()).parameters()
    assert sum(value.numel() for value in parameters) == 6_065_532


def test_the_neck_brings_the_trunk_to_the_embedding(ours: TinyViT) -> None:
    x = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        found = ours(x)
        features = trunk(ours, x)
        first, norm1, second, norm2 = ours.neck
        y = normalised(torch.einsum("bchw,dc->bdhw", features, first.weight[..., 0, 0]))
        y = y * norm1.weight[:, None, None] + norm1.bias[:, None, None]
        y = normalised(nn.functional.conv2d(y, second.weight, padding=1))
        expected = y * norm2.weight[:, None, None] + norm2.bias[:, None, None]
    assert found.shape == (1, 256, 4, 6)
    assert relative_error(found, expected) <= 1e-5


def normalised(x: Tensor) -> Tensor:
    centred = x - x.mean(dim=1, keepdim=True)
    return centred / torch.sqrt(centred.square().mean(dim=1, keepdim=True) + 1e-6)


def test_bfloat16_stays_close(ours: TinyViT) -> None:
    x = torch.randn(1, 3, 128, 128)
    with torch.no_grad():
        expected = ours(x)
        with torch.autocast("cpu", torch.bfloat16):
            found = ours(x).float()
    assert relative_error(found, expected) <= 0.05


def test_pieces_equal_the_whole_which_gradients_need(ours: TinyViT) -> None:
    x = torch.randn(1, 3, 304, 80)  # 76 rows at the finest: two bands and a part
    expected = ours(x)
    with torch.inference_mode():
        torch.testing.assert_close(ours(x), expected, rtol=1e-4, atol=1e-4)
