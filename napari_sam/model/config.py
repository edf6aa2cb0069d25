"""Sizes of a SAM network, as frozen values.

A network is built from a `SamConfig` and nothing else. The image encoder is chosen
by the type of its config. The sizes of the published variants are those of the
checkpoints released with Kirillov et al. 2023 (ViT-B, ViT-L, ViT-H) and Zhang et
al. 2023 (MobileSAM, a TinyViT-5M of Wu et al. 2022).
"""

from dataclasses import asdict, dataclass, fields
from typing import Any

from napari_sam.errors import InputError


@dataclass(frozen=True, slots=True)
class ViTConfig:
    """Plain vision transformer with windowed and global attention.

    Parameters
    ----------
    embed_dim, depth, num_heads : int
        Channels, number of blocks, attention heads.
    global_attn_indexes : tuple of int
        Blocks that attend over the whole crop; the others attend inside windows
        (Li et al. 2022, "Exploring plain vision transformer backbones", section 3).
    window_size : int, default 14
        Side of a window, in patches.
    mlp_ratio : float, default 4.0
        Hidden width of the MLP, in multiples of ``embed_dim``.
    patch_size : int, default 16
        Side of a patch, in pixels.
    """

    embed_dim: int
    depth: int
    num_heads: int
    global_attn_indexes: tuple[int, ...]
    window_size: int = 14
    mlp_ratio: float = 4.0
    patch_size: int = 16


@dataclass(frozen=True, slots=True)
class TinyViTConfig:
    """TinyViT of Wu et al. 2022 without the last down-sampling (MobileSAM).

    Parameters
    ----------
    embed_dims, depths, num_heads, window_sizes : tuple of int
        Channels, blocks, heads and window side (in tokens) of the four stages.
    mlp_ratio, mbconv_expand : float, default 4.0
        Hidden widths of the MLP and of the inverted bottleneck, in multiples of
        the input width.
    """

    embed_dims: tuple[int, ...] = (64, 128, 160, 320)
    depths: tuple[int, ...] = (2, 2, 6, 2)
    num_heads: tuple[int, ...] = (2, 4, 5, 10)
    window_sizes: tuple[int, ...] = (7, 7, 14, 7)
    mlp_ratio: float = 4.0
    mbconv_expand: float = 4.0


@dataclass(frozen=True, slots=True)
class ConvConfig:
    """Compact convolutional encoder of the bundled default model (ours).

    Parameters
    ----------
    widths : tuple of int
        Channels at strides 4, 8, 16 and 32.
    depths : tuple of int
        Residual blocks at strides 4, 8, 16 and 32.
    """

    widths: tuple[int, ...] = (64, 128, 256, 256)
    depths: tuple[int, ...] = (2, 2, 2, 2)


@dataclass(frozen=True, slots=True)
class ProposalConfig:
    """Convolutional proposal head (ours).

    Parameters
    ----------
    widths : tuple of int
        Channels at strides 16, 8 and 4.
    has_detail : bool, default False
        Whether the head's features at stride 4 help the mask decoder to draw edges.
    has_votes : bool, default False
        Whether every place votes for the centre and the size of its object, which
        tells the mask decoder what belongs together (`napari_sam.model.affinity`).
    """

    widths: tuple[int, ...] = (128, 64, 32)
    has_detail: bool = False
    has_votes: bool = False


@dataclass(frozen=True, slots=True)
class UnetrConfig:
    """Distance decoder that micro-sam checkpoints carry (Archit et al. 2025).

    Parameters
    ----------
    features : tuple of int
        Channels of the four decoder levels, from the embedding upwards.
    transposed : bool, default False
        Up-sample by transposed convolutions instead of bilinear interpolation; the
        checkpoints' key ``decoder.samplers.0.block.weight`` tells that they do.
    """

    features: tuple[int, ...] = (512, 256, 128, 64)
    transposed: bool = False


EncoderConfig = ViTConfig | TinyViTConfig | ConvConfig
HeadConfig = ProposalConfig | UnetrConfig


@dataclass(frozen=True, slots=True)
class SamConfig:
    """All sizes of one network.

    Parameters
    ----------
    name : str
        Name of the variant, for people.
    encoder : ViTConfig, TinyViTConfig or ConvConfig
        The image encoder.
    image_size : int, default 1024
        Side of the square encoder input, in pixels; a multiple of 16.
    embed_dim : int, default 256
        Channels of the embedding and of the mask decoder.
    decoder_depth, decoder_heads, decoder_mlp_dim : int
        Two-way transformer of the mask decoder.
    mask_in_chans : int, default 16
        Hidden channels of the mask prompt's convolutions.
    finest_position : float, default 1.0
        Largest standard deviation of the random position encoding; it only matters
        where a training begins, for the numbers are part of the weights.
    proposal : ProposalConfig, UnetrConfig or None, default None
        The proposal head; None for weights without one.
    pixel_mean, pixel_std : tuple of float
        Of the red, green and blue channel, range 0 to 255. The defaults are
        those of ImageNet, as in the published weights.
    """

    name: str
    encoder: EncoderConfig
    image_size: int = 1024
    embed_dim: int = 256
    decoder_depth: int = 2
    decoder_heads: int = 8
    decoder_mlp_dim: int = 2048
    mask_in_chans: int = 16
    finest_position: float = 1.0
    proposal: HeadConfig | None = None
    pixel_mean: tuple[float, float, float] = (123.675, 116.28, 103.53)
    pixel_std: tuple[float, float, float] = (58.395, 57.12, 57.375)

    @property
    def embedding_size(self) -> int:
        """Side of the embedding, in cells of 16 pixels."""
        return self.image_size // 16

    @property
    def mask_size(self) -> int:
        """Side of the decoder's logits, in cells of 4 pixels."""
        return self.image_size // 4

    def to_dict(self) -> dict[str, Any]:
        """Return plain values that `from_dict` turns back into this config."""
        values = asdict(self)
        values["encoder"]["kind"] = type(self.encoder).__name__
        if self.proposal is not None:
            values["proposal"]["kind"] = type(self.proposal).__name__
        return values

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "SamConfig":
        """Build a config from the plain values of `to_dict`.

        Raises
        ------
        InputError
            If a name is unknown.
        """
        plain = dict(values)
        plain["encoder"] = _part_from_dict(plain["encoder"])
        if plain.get("proposal") is not None:
            plain["proposal"] = _part_from_dict(plain["proposal"])
        return cls(**_known(cls, plain))


_PARTS: dict[str, Any] = {
    part.__name__: part
    for part in (ViTConfig, TinyViTConfig, ConvConfig, ProposalConfig, UnetrConfig)
}


def _part_from_dict(values: dict[str, Any]) -> Any:
    plain = dict(values)
    kind = plain.pop("kind", None)
    if kind not in _PARTS:
        known = ", ".join(_PARTS)
        raise InputError(f"network part {kind!r} is unknown; use one of {known}")
    return _PARTS[kind](**_known(_PARTS[kind], plain))


def _known(cls: Any, values: dict[str, Any]) -> dict[str, Any]:
    names = {field.name for field in fields(cls)}
    if unknown := set(values) - names:
        raise InputError(
            f"{cls.__name__} has no {sorted(unknown)}; it has {sorted(names)}"
        )
    return {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in values.items()
    }


VARIANTS: dict[str, SamConfig] = {
    config.name: config
    for config in (
        SamConfig("vit_b", ViTConfig(768, 12, 12, (2, 5, 8, 11))),
        SamConfig("vit_l", ViTConfig(1024, 24, 16, (5, 11, 17, 23))),
        SamConfig("vit_h", ViTConfig(1280, 32, 16, (7, 15, 23, 31))),
        SamConfig("vit_t", TinyViTConfig()),
        SamConfig(
            "default",
            ConvConfig(),
            # Objects of 12 px in a frame of 1024 px (ours).
            finest_position=12.0,
            proposal=ProposalConfig((128, 96, 48), has_detail=True, has_votes=True),
        ),
        # Milliseconds on a CPU; for tests only.
        SamConfig(
            "tiny",
            ViTConfig(32, 2, 2, (1,), window_size=3),
            image_size=128,
            embed_dim=32,
            decoder_heads=4,
            decoder_mlp_dim=64,
            proposal=ProposalConfig((16, 8, 8)),
        ),
    )
}
