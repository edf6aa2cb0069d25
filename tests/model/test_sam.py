"""The joined network: its frame, its parts of a frame, its refusals, its config."""

import copy
import dataclasses
import math

import pytest
import torch

from napari_sam.errors import InputError
from napari_sam.model import VARIANTS, Sam, SamConfig
from napari_sam.model.config import ConvConfig, ProposalConfig, UnetrConfig
from napari_sam.model.conv_encoder import CentreCode
from napari_sam.model.prompt_encoder import PositionEmbeddingRandom

SMALL = SamConfig(
    "small",
    ConvConfig((8, 8, 16, 16), (1, 1, 1, 1)),
    image_size=256,
    embed_dim=32,
    decoder_heads=4,
    decoder_mlp_dim=64,
    proposal=ProposalConfig((8, 8, 8)),
)


@pytest.fixture(scope="module")
def small() -> Sam:
    torch.manual_seed(1)
    return Sam(SMALL).eval()


@pytest.fixture
def published():
    """A small network whose encoder is of a published kind."""
    config = dataclasses.replace(VARIANTS["tiny"], image_size=256)
    return Sam(config).eval()


@pytest.mark.parametrize("config", [*VARIANTS.values(), SMALL], ids=lambda c: c.name)
def test_a_config_survives_the_way_through_plain_values(config):
    assert SamConfig.from_dict(config.to_dict()) == config


def test_an_unknown_name_in_a_config_is_refused():
    values = VARIANTS["tiny"].to_dict()
    with pytest.raises(InputError, match="wings"):
        SamConfig.from_dict(values | {"wings": 2})
    values["encoder"]["kind"] = "Bird"
    with pytest.raises(InputError, match="Bird"):
        SamConfig.from_dict(values)


def test_preprocess_normalises_and_pads_right_and_below(published):
    image = torch.full((1, 3, 100, 60), 200, dtype=torch.uint8)
    x = published.preprocess(image)
    assert x.shape == (1, 3, 256, 256)
    expected = [
        (200 - 123.675) / 58.395,
        (200 - 116.28) / 57.12,
        (200 - 103.53) / 57.375,
    ]
    torch.testing.assert_close(x[0, :, 99, 59], torch.tensor(expected))
    assert (x[..., 100:, :] == 0).all()
    assert (x[..., 60:] == 0).all()


def test_our_own_network_sees_the_last_pixels_repeated(small):
    image = torch.randint(256, (1, 3, 100, 60), dtype=torch.uint8)
    x = small.preprocess(image)
    torch.testing.assert_close(
        x[..., :100, 60:], x[..., :100, 59:60].expand(-1, -1, -1, 196)
    )
    torch.testing.assert_close(
        x[..., 100:, :], x[..., 99:100, :].expand(-1, -1, 156, -1)
    )


@pytest.mark.parametrize("shape", [(1, 3, 257, 10), (1, 1, 64, 64), (3, 64, 64)])
def test_preprocess_refuses_what_the_frame_cannot_hold(small, shape):
    with pytest.raises(InputError, match="256 px"):
        small.preprocess(torch.zeros(shape, dtype=torch.uint8))


@torch.inference_mode()
def test_an_embedding_is_placed_where_it_lies(small):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 3, 256, 256, generator=generator)
    seen = small.encode(x)
    assert seen.shape == (2, *small.embedding_shape) == (2, 40, 16, 16)
    for origin in ((0, 0), (3, 5)):
        expected, _ = small.image_encoder.with_offsets(x, origin)
        torch.testing.assert_close(small.place(seen, origin), expected)
        # a part of it, with its own place, is the part
        row, column = origin[0] + 2, origin[1] + 7
        part = small.place(seen[..., 2:8, 7:12], (row, column))
        torch.testing.assert_close(part, expected[..., 2:8, 7:12])
        torch.testing.assert_close(small.place(part, (9, 9)), part)  # it is placed
    moved = small.place(seen, (3, 5)) - small.place(seen)
    assert moved.abs().mean() > 0.01


@torch.inference_mode()
def test_what_takes_an_embedding_places_it():
    head = ProposalConfig((8, 8, 8), has_detail=True, has_votes=True)
    small = Sam(dataclasses.replace(SMALL, proposal=head)).eval()
    seen = small.encode(torch.randn(1, 3, 256, 256))
    placed = small.place(seen)
    points, labels = torch.full((1, 1, 2), 99.0), torch.ones(1, 1)
    for found, expected in zip(
        small.decode(seen, points=points, labels=labels),
        small.decode(placed, points=points, labels=labels),
        strict=True,
    ):
        torch.testing.assert_close(found, expected)
    torch.testing.assert_close(small.propose(seen), small.propose(placed))
    found, expected = (
        small.details(each, (2, 1)) for each in (seen, small.place(seen, (2, 1)))
    )
    torch.testing.assert_close(found.votes, expected.votes)


@torch.inference_mode()
def test_the_convolutional_encoder_moves_with_the_image(small):
    generator = torch.Generator().manual_seed(0)
    wide = torch.randn(1, 3, 576, 704, generator=generator)
    # 64 px are 4 cells; the origin says where in the frame a part lies.
    left, _ = small.image_encoder.with_offsets(wide[..., :640])
    right, offsets = small.image_encoder.with_offsets(wide[..., 64:], origin=(0, 4))
    # Cells nearer than 200 px to a border see it; the squares of the normalisation do
    # not move with the image, so the likeness is close but not exact.
    found, shifted = right[..., 14:22, 14:22], left[..., 14:22, 18:26]
    unshifted = left[..., 14:22, 14:22]
    likeness = torch.nn.functional.cosine_similarity(found, shifted).min()
    assert likeness > 0.99
    assert torch.nn.functional.cosine_similarity(found, unshifted).mean() < 0.97
    moved, same = small.image_encoder.with_offsets(wide[..., 64:])
    torch.testing.assert_close(offsets, same)
    assert not torch.allclose(moved, right, atol=1e-3)


def test_places_that_point_to_one_centre_have_one_code():
    torch.manual_seed(0)
    code = CentreCode(16)
    # Every place points at x = 100, y = 60, wherever it lies.
    y = torch.arange(8) * 8 + 3.5
    x = torch.arange(16) * 8 + 3.5
    target = torch.stack([100 - x.expand(8, 16), 60 - y[:, None].expand(8, 16)])
    unshuffled = torch.nn.functional.pixel_unshuffle(target[None], 2)
    together = code(unshuffled / CentreCode.UNIT, (0, 0))
    apart = code(torch.zeros(1, CentreCode.CHANNELS, 4, 8), (0, 0))
    assert (together - together[..., :1, :1]).abs().max() < 1e-4
    assert (apart - apart[..., :1, :1]).abs().max() > 0.5


def test_the_code_mixes_waves_of_where_the_quarters_point():
    torch.manual_seed(0)
    code = CentreCode(16)
    offsets = torch.randn(2, CentreCode.CHANNELS, 4, 8)
    found = code(offsets, (5, 3))
    pointed = 32 * torch.nn.functional.pixel_shuffle(offsets, 2)
    pointed[:, 0] += 16 * 3 + 3.5 + 8 * torch.arange(16)
    pointed[:, 1] += 16 * 5 + 3.5 + 8 * torch.arange(8)[:, None]
    turns = torch.einsum("bdhw,df->bfhw", pointed, code.projection)
    waves = torch.cat(
        [torch.sin(2 * torch.pi * turns), torch.cos(2 * torch.pi * turns)], 1
    )
    expected = code.mix(torch.nn.functional.pixel_unshuffle(waves, 2))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@torch.inference_mode()
def test_maps_of_the_proposal_head_are_shares_at_a_quarter_of_the_frame(small):
    maps = small.propose(torch.randn(2, 32, 16, 16))
    assert maps.shape == (2, 3, 64, 64)
    assert maps.min() >= 0
    assert maps.max() <= 1


@torch.inference_mode()
def test_the_decoder_of_micro_sam_is_brought_to_the_same_resolution():
    config = SamConfig(
        "unetr",
        SMALL.encoder,
        image_size=64,
        embed_dim=32,
        decoder_heads=4,
        decoder_mlp_dim=64,
        proposal=UnetrConfig((64, 32, 16, 8)),
    )
    assert Sam(config).eval().propose(torch.randn(1, 32, 4, 4)).shape == (1, 3, 16, 16)


def test_propose_without_a_head_says_what_to_use():
    model = Sam(SamConfig("headless", SMALL.encoder, image_size=64, embed_dim=32))
    with pytest.raises(InputError, match="'grid'"):
        model.propose(torch.zeros(1, 32, 4, 4))


def test_decode_needs_a_point_or_a_box(small):
    with pytest.raises(InputError, match="no prompt"):
        small.decode(torch.zeros(1, 32, 16, 16))


@torch.inference_mode()
def test_all_four_masks_are_the_single_one_and_the_three(small):
    embedding = torch.randn(1, 32, 16, 16)
    prompts = {
        "points": torch.tensor([[[40.0, 50.0]], [[90.0, 9.0]]]),
        "labels": torch.ones(2, 1),
    }
    every, iou = small.decode(embedding, **prompts, multimask=None)
    single, single_iou = small.decode(embedding, **prompts, multimask=False)
    three, three_iou = small.decode(embedding, **prompts, multimask=True)
    torch.testing.assert_close(every, torch.cat([single, three], dim=1))
    torch.testing.assert_close(iou, torch.cat([single_iou, three_iou], dim=1))


@torch.inference_mode()
def test_an_embedding_for_each_prompt_answers_like_one_after_the_other(small):
    embeddings = torch.randn(3, 32, 16, 16)
    points, labels = torch.rand(3, 2, 2) * 256, torch.tensor([[1, 0]] * 3)
    together, _ = small.decode(embeddings, points=points, labels=labels)
    for i in range(3):
        alone, _ = small.decode(
            embeddings[i : i + 1], points=points[i : i + 1], labels=labels[i : i + 1]
        )
        torch.testing.assert_close(together[i : i + 1], alone, rtol=1e-4, atol=1e-5)


@torch.inference_mode()
def test_part_of_a_frame_is_placed_by_its_origin(small):
    position = small.prompt_encoder.dense_pe()
    seen = []
    hook = small.mask_decoder.register_forward_pre_hook(
        lambda _, arguments: seen.append(arguments[0].position)
    )
    small.decode(
        small.prepare(torch.randn(1, 32, 4, 6), origin=(3, 5)),
        boxes=torch.tensor([[80.0, 70.0, 120.0, 110.0]]),
    )
    hook.remove()
    expected = position[..., 3:7, 5:11].flatten(2).mT
    torch.testing.assert_close(seen[0], expected)


def test_positions_are_encoded_as_in_tancik_et_al_2020():
    layer = PositionEmbeddingRandom(5)
    matrix = layer.positional_encoding_gaussian_matrix
    encoded = layer(torch.tensor([0.25, 0.9]))
    for f in range(5):
        angle = 2 * math.pi * (-0.5 * matrix[0, f].item() + 0.8 * matrix[1, f].item())
        assert encoded[f].item() == pytest.approx(math.sin(angle), abs=1e-5)
        assert encoded[5 + f].item() == pytest.approx(math.cos(angle), abs=1e-5)


def test_finer_positions_part_points_that_the_published_ones_confuse():
    torch.manual_seed(0)
    points = torch.tensor([[0.5, 0.5], [0.52, 0.5]])  # 20 px of 1024 apart

    def likeness(finest: float) -> float:
        first, second = PositionEmbeddingRandom(256, finest)(points)
        return torch.cosine_similarity(first, second, dim=0).item()

    assert likeness(1.0) > 0.97
    assert likeness(12.0) < 0.85


def test_bfloat16_changes_the_embedding_by_less_than_two_percent(small):
    x = torch.randn(1, 3, 256, 256)
    with torch.inference_mode():
        exact = small.encode(x)
        small.precision = "bfloat16"
        rounded = small.encode(x)
        small.precision = "float32"
    assert rounded.dtype == torch.float32
    assert 0 < ((rounded - exact).norm() / exact.norm()).item() < 0.02


def test_before_training_a_point_looks_at_its_own_place():
    torch.manual_seed(0)
    model = Sam(VARIANTS["default"])
    attention = model.mask_decoder.transformer.layers[0].cross_attn_token_to_image
    places = model.prompt_encoder.pe_layer
    unit = torch.tensor([[0.3, 0.7], [0.85, 0.1]])
    with torch.no_grad():
        q = attention.q_proj(places(unit)).unflatten(1, (8, 16))
        grid = model.prompt_encoder.dense_pe()[0].flatten(1).T
        k = attention.k_proj(grid).unflatten(1, (8, 16))
        looked_at = torch.einsum("phc,ghc->pg", q, k).argmax(dim=1)
    cells = torch.stack([looked_at % 64, looked_at // 64], dim=1)
    assert (cells - (unit * 64).long()).abs().max() <= 1


def test_a_cpu_encodes_first_and_last_layers_in_float32_unless_it_trains(small):
    model, x, seen = copy.deepcopy(small), torch.randn(1, 3, 256, 256), {}
    for name in ("stem.0.0", "stages.1.1.first.0", "neck", "centres.mix"):
        model.image_encoder.get_submodule(name).register_forward_hook(
            lambda _, __, out, name=name: seen.update({name: out.dtype})
        )
    with torch.inference_mode():
        expected = model.encode(x)
        model.precision = "bfloat16"
        found = model.encode(x)
    inner = "stages.1.1.first.0"
    assert seen.pop(inner) == torch.bfloat16
    assert set(seen.values()) == {torch.float32}
    assert (found - expected).norm() < 0.01 * expected.norm()
    model.encode(x)  # with gradients
    assert set(seen.values()) == {torch.bfloat16}
