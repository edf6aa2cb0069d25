"""Tell a network from the names and shapes of its parameters.

Every size that shapes a parameter is read from that parameter, so fine-tuned weights
of another input size or width are recognised, too. What leaves no trace in a shape
(the heads of the mask decoder, the normalisation of pixels) is taken from the known
variant with the same encoder. Our own files carry their config and need none of this.

Rejected: asking the user for the architecture, as ``sam_model_registry`` does; the
answer is in the file.
"""

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from napari_sam.errors import WeightsError
from napari_sam.model.config import (
    VARIANTS,
    ConvConfig,
    EncoderConfig,
    HeadConfig,
    ProposalConfig,
    SamConfig,
    TinyViTConfig,
    UnetrConfig,
    ViTConfig,
)
from napari_sam.model.sam import Sam

State = dict[str, Tensor]

_ENCODER = "image_encoder."
_HEAD = "proposal_head."
_DETAIL = "detail."
_VOTES = "proposal_head.votes."
_AFFINITY = ("mask_decoder.affinity.", "mask_decoder.quality.")
_LAYER = "mask_decoder.transformer.layers."

# What the parameters of networks that are not SAM begin with, and what to say then.
_STRANGERS = {
    "vision_encoder.": "it has the names of Hugging Face transformers; use the .pth "
    "file of the original authors",
    "image_encoder.trunk.": "it is SAM 2 or later, which has another network",
    "encoder.": "it is the U-Net of another tool",
}


def plain_state(content: object) -> State:
    """Return the parameters in a checkpoint's content, under the names of `Sam`.

    Understood are a plain state dict, one below ``state_dict``, ``model`` or
    ``model_state``, names with a common prefix (``module.``, ``sam.``), and
    micro-sam's ``decoder_state``, which becomes the proposal head.

    Parameters
    ----------
    content : object
        What `torch.load` returns.

    Raises
    ------
    WeightsError
        If there are no parameters.
    """
    if not isinstance(content, Mapping):
        raise WeightsError(
            f"the file holds a {type(content).__name__}, expected a state dict; save "
            "model.state_dict()"
        )
    inner: Mapping[object, object] = content
    for key in ("model_state", "state_dict", "model"):
        nested = content.get(key)
        if isinstance(nested, Mapping):
            inner = nested
            break
    state = _strip_prefix(_tensors(inner))
    if not state:
        raise WeightsError(
            f"the file holds no parameters, only {list(content)[:5]}; save "
            "model.state_dict()"
        )
    decoder = content.get("decoder_state")
    if isinstance(decoder, Mapping):
        state |= head_state(decoder)
    return state


def head_state(content: object) -> State:
    """Return the parameters of micro-sam's decoder, under the names of `Sam`."""
    tensors = _tensors(content) if isinstance(content, Mapping) else {}
    if "out_conv.weight" not in tensors:
        raise WeightsError(
            "the decoder's file holds no 'out_conv.weight'; expected micro-sam's "
            "decoder_state"
        )
    return {f"{_HEAD}{name}": tensor for name, tensor in tensors.items()}


def recognise(state: Mapping[str, Tensor]) -> SamConfig:
    """Return the sizes of the network that the parameters belong to.

    Parameters
    ----------
    state : mapping of str to Tensor
        Parameters under the names of `Sam`; see `plain_state`.

    Returns
    -------
    SamConfig
        Named after the variant it is, ``"custom"`` for other sizes.

    Raises
    ------
    WeightsError
        If they are not those of a SAM.
    """
    for start, reason in _STRANGERS.items():
        if any(name.startswith(start) for name in state):
            raise WeightsError(f"these are not the parameters of a SAM: {reason}")
    try:
        if f"{_ENCODER}pos_embed" in state:
            return _complete(state, *_vit(state))
        if f"{_ENCODER}layers.0.blocks.0.conv1.c.weight" in state:
            return _complete(state, _tiny_vit(state), image_size=1024)
        return replace(_same_shapes(state), proposal=_head(state))
    except KeyError as error:
        raise WeightsError(f"no SAM that we know: {error} is missing") from error
    except (IndexError, ValueError) as error:
        raise WeightsError(f"no SAM that we know: a shape is odd ({error})") from error


def _tensors(content: Mapping[object, object]) -> State:
    return {
        name: tensor
        for name, tensor in content.items()
        if isinstance(name, str) and isinstance(tensor, Tensor)
    }


def _strip_prefix(state: State) -> State:
    first = next((name for name in state if _ENCODER in name), _ENCODER)
    prefix = first[: first.index(_ENCODER)]
    return {name.removeprefix(prefix): tensor for name, tensor in state.items()}


def _count(state: Mapping[str, Tensor], prefix: str) -> int:
    """Return how many numbered modules stand below ``prefix``."""
    skip = len(prefix)
    return len(
        {name[skip:].partition(".")[0] for name in state if name.startswith(prefix)}
    )


def _vit(state: Mapping[str, Tensor]) -> tuple[ViTConfig, int]:
    width, _, patch, _ = state[f"{_ENCODER}patch_embed.proj.weight"].shape
    side = state[f"{_ENCODER}pos_embed"].shape[1]
    depth = _count(state, f"{_ENCODER}blocks.")
    biases = [
        state[f"{_ENCODER}blocks.{index}.attn.rel_pos_h"] for index in range(depth)
    ]
    # A block has one bias for each distance: 2 n - 1 over a side of n patches.
    reach = [(len(bias) + 1) // 2 for bias in biases]
    windows = [n for n in reach if n != side]
    config = ViTConfig(
        embed_dim=width,
        depth=depth,
        num_heads=width // biases[0].shape[1],
        global_attn_indexes=tuple(i for i, n in enumerate(reach) if n == side),
        mlp_ratio=len(state[f"{_ENCODER}blocks.0.mlp.lin1.weight"]) / width,
        patch_size=patch,
    )
    if windows:
        config = replace(config, window_size=windows[0])
    return config, side * patch


def _tiny_vit(state: Mapping[str, Tensor]) -> TinyViTConfig:
    stages = range(_count(state, f"{_ENCODER}layers."))
    layer = f"{_ENCODER}layers."
    widths = [len(state[f"{_ENCODER}patch_embed.seq.2.c.weight"])]
    widths += [len(state[f"{layer}{i}.downsample.conv1.c.weight"]) for i in stages[:-1]]
    biases = [state[f"{layer}{i}.blocks.0.attn.attention_biases"] for i in stages[1:]]
    # The first stage is convolutional: its heads and window are never used.
    unused = TinyViTConfig()
    return TinyViTConfig(
        embed_dims=tuple(widths),
        depths=tuple(_count(state, f"{layer}{i}.blocks.") for i in stages),
        num_heads=(unused.num_heads[0], *(bias.shape[0] for bias in biases)),
        window_sizes=(
            unused.window_sizes[0],
            *(round(bias.shape[1] ** 0.5) for bias in biases),
        ),
        mlp_ratio=len(state[f"{layer}1.blocks.0.mlp.fc1.weight"]) / widths[1],
        mbconv_expand=len(state[f"{layer}0.blocks.0.conv1.c.weight"]) / widths[0],
    )


def _complete(
    state: Mapping[str, Tensor], encoder: EncoderConfig, image_size: int
) -> SamConfig:
    embed_dim = state["prompt_encoder.no_mask_embed.weight"].shape[1]
    same = [
        variant
        for variant in VARIANTS.values()
        if variant.encoder == encoder and variant.embed_dim == embed_dim
    ]
    return replace(
        same[0] if same else SamConfig("custom", encoder),
        image_size=image_size,
        embed_dim=embed_dim,
        decoder_depth=_count(state, _LAYER),
        decoder_mlp_dim=len(state[f"{_LAYER}0.mlp.lin1.weight"]),
        mask_in_chans=len(state["prompt_encoder.mask_downscaling.3.weight"]),
        proposal=_head(state),
    )


def _head(state: Mapping[str, Tensor]) -> HeadConfig | None:
    if f"{_HEAD}out_conv.weight" in state:
        blocks = [f"{_HEAD}base"]
        levels = range(_count(state, f"{_HEAD}decoder.blocks."))
        blocks += [f"{_HEAD}decoder.blocks.{index}" for index in levels]
        return UnetrConfig(
            features=tuple(len(state[f"{name}.block.1.weight"]) for name in blocks),
            transposed=f"{_HEAD}decoder.samplers.0.block.weight" in state,
        )
    n_blocks = _count(state, f"{_HEAD}blocks.")
    if n_blocks == 0:
        return None
    return ProposalConfig(
        tuple(len(state[f"{_HEAD}blocks.{i}.0.weight"]) for i in range(n_blocks)),
        has_detail=f"{_DETAIL}weight" in state,
        has_votes=f"{_VOTES}weight" in state,
    )


def _same_shapes(state: Mapping[str, Tensor]) -> SamConfig:
    """Find the convolutional variant with just these parameters, its head aside."""
    given = _shapes(state)
    for variant in VARIANTS.values():
        if not isinstance(variant.encoder, ConvConfig):
            continue
        with torch.device("meta"):
            network = Sam(replace(variant, proposal=None))
        if _shapes(network.state_dict()) == given:
            return variant
    raise WeightsError(
        "these are not the parameters of a SAM that we know; expected names such as "
        f"{_ENCODER}patch_embed.proj.weight, got {list(state)[:3]}"
    )


def _shapes(state: Mapping[str, Tensor]) -> dict[str, torch.Size]:
    return {
        name: tensor.shape
        for name, tensor in state.items()
        if not name.startswith((_HEAD, _DETAIL, *_AFFINITY))
    }
