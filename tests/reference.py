"""Reference implementations that parity tests compare with.

``segment-anything`` and ``timm`` are installed without torchvision, whose build is
tied to one build of torch. Both import it; of what they import, parity needs two
image functions and two box functions. Those are written out here, the rest is absent.
"""

import enum
import importlib
import sys
from functools import cache, partial
from importlib.util import find_spec
from types import ModuleType
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from napari_sam.model import SamConfig
from napari_sam.model.config import ViTConfig

PARTS = (
    "torchvision",
    "torchvision.datasets",
    "torchvision.ops",
    "torchvision.ops.boxes",
    "torchvision.ops.misc",
    "torchvision.transforms",
    "torchvision.transforms.functional",
)


def reference_sam(config: SamConfig) -> Any:
    """Build ``segment_anything``'s network of the same sizes, in evaluation mode."""
    modeling = load("segment_anything.modeling")
    encoder = config.encoder
    assert isinstance(encoder, ViTConfig)
    side = (config.embedding_size, config.embedding_size)
    sam = modeling.Sam(
        image_encoder=modeling.ImageEncoderViT(
            img_size=config.image_size,
            patch_size=encoder.patch_size,
            embed_dim=encoder.embed_dim,
            depth=encoder.depth,
            num_heads=encoder.num_heads,
            mlp_ratio=encoder.mlp_ratio,
            out_chans=config.embed_dim,
            norm_layer=partial(nn.LayerNorm, eps=1e-6),
            use_rel_pos=True,
            window_size=encoder.window_size,
            global_attn_indexes=encoder.global_attn_indexes,
        ),
        prompt_encoder=modeling.PromptEncoder(
            embed_dim=config.embed_dim,
            image_embedding_size=side,
            input_image_size=(config.image_size, config.image_size),
            mask_in_chans=config.mask_in_chans,
        ),
        mask_decoder=modeling.MaskDecoder(
            transformer_dim=config.embed_dim,
            transformer=modeling.TwoWayTransformer(
                depth=config.decoder_depth,
                embedding_dim=config.embed_dim,
                num_heads=config.decoder_heads,
                mlp_dim=config.decoder_mlp_dim,
            ),
            iou_head_hidden_dim=config.embed_dim,
        ),
        pixel_mean=list(config.pixel_mean),
        pixel_std=list(config.pixel_std),
    )
    return sam.eval()


def randomise(module: nn.Module, scale: float = 0.05) -> None:
    """Move every parameter and statistic off its initial value.

    Fresh networks hide mistakes: biases, relative positions and the last layers of
    residual branches start at zero.
    """
    for name, value in module.state_dict().items():
        if name.endswith("running_var"):
            value.copy_(torch.rand_like(value) + 0.5)
        elif value.is_floating_point() and not name.endswith("gaussian_matrix"):
            value.add_(torch.randn_like(value) * scale)


def relative_error(found: Tensor, expected: Tensor) -> float:
    """Return the norm of the difference over the norm of ``expected``."""
    difference = (found - expected).detach().norm()
    return float(difference / expected.detach().norm())


@cache
def load(name: str) -> ModuleType:
    """Import a module of a reference implementation."""
    if "torchvision" not in sys.modules and find_spec("torchvision") is None:
        _install_stub()
    return importlib.import_module(name)


class AbsentModule(ModuleType):
    """Part of torchvision: any class can be imported from it, none does anything."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.__path__ = []  # a package, so that its parts can be imported

    def __getattr__(self, name: str) -> type:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})


class InterpolationMode(enum.Enum):
    """The names that timm tabulates while it is imported."""

    NEAREST = "nearest"
    NEAREST_EXACT = "nearest-exact"
    BILINEAR = "bilinear"
    BICUBIC = "bicubic"
    BOX = "box"
    HAMMING = "hamming"
    LANCZOS = "lanczos"


def _install_stub() -> None:
    for name in PARTS:
        module = sys.modules[name] = AbsentModule(name)
        parent, _, child = name.rpartition(".")
        if parent:
            setattr(sys.modules[parent], child, module)
    functional: Any = sys.modules["torchvision.transforms.functional"]
    functional.InterpolationMode = InterpolationMode
    functional.to_pil_image = _to_pil_image
    functional.resize = _resize
    boxes: Any = sys.modules["torchvision.ops.boxes"]
    boxes.box_area = box_area
    boxes.batched_nms = batched_nms


def _to_pil_image(pixels: np.ndarray) -> Image.Image:
    return Image.fromarray(pixels)


def _resize(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    return image.resize((size[1], size[0]), Image.Resampling.BILINEAR)


def box_area(boxes: Tensor) -> Tensor:
    """Area of (N, 4) boxes x0, y0, x1, y1."""
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


def batched_nms(
    boxes: Tensor, scores: Tensor, idxs: Tensor, iou_threshold: float
) -> Tensor:
    """Keep the best box of each pile, category by category, best first."""
    areas = box_area(boxes)
    kept: list[int] = []
    for i in scores.argsort(descending=True, stable=True).tolist():
        rivals = torch.tensor([j for j in kept if idxs[j] == idxs[i]], dtype=torch.long)
        low = torch.maximum(boxes[rivals, :2], boxes[i, :2])
        high = torch.minimum(boxes[rivals, 2:], boxes[i, 2:])
        common = (high - low).clamp(min=0).prod(dim=1)
        if not (common / (areas[rivals] + areas[i] - common) > iou_threshold).any():
            kept.append(i)
    return torch.tensor(kept, dtype=torch.long)
