"""The mask decoder: prepared embeddings, their windows, and details of edges.

That its answers are those of the published decoder is tested in test_parity.py.
"""

import dataclasses

import numpy as np
import pytest
import torch

from napari_sam.errors import InputError
from napari_sam.model import VARIANTS, Sam, mask_decoder
from napari_sam.model.affinity import Details
from napari_sam.model.config import ProposalConfig
from napari_sam.model.mask_decoder import _rows_and_columns, places_first


@pytest.fixture
def model():
    torch.manual_seed(0)
    config = dataclasses.replace(
        VARIANTS["tiny"],
        image_size=256,
        proposal=ProposalConfig((16, 8, 8), has_detail=True, has_votes=True),
    )
    model = Sam(config).eval()
    for parameter in model.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    return model


@pytest.fixture
def prompts():
    return {
        "points": torch.rand(3, 2, 2) * 256,
        "labels": torch.tensor([[1, 0], [1, 1], [0, 1]]),
    }


@torch.inference_mode()
def test_an_embedding_prepared_once_answers_like_the_embedding(model, prompts):
    embedding = torch.randn(1, 32, 16, 16)
    prepared = model.prepare(embedding)
    for found, expected in zip(
        model.decode(prepared, **prompts),
        model.decode(embedding, **prompts),
        strict=True,
    ):
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("n_embeddings", [1, 3])
@torch.inference_mode()
def test_an_embedding_of_one_prompt_is_decoded_alike(model, prompts, n_embeddings):
    embedding = torch.randn(n_embeddings, 32, 16, 16)
    alone = model.prepare(embedding, is_shared=False)
    assert alone.first is None
    for found, expected in zip(
        model.decode(alone, **prompts),
        model.decode(model.prepare(embedding), **prompts),
        strict=True,
    ):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@torch.inference_mode()
def test_windows_of_a_prepared_embedding_are_the_windows_prepared(model, prompts):
    embedding = torch.randn(1, 32, 16, 16)
    corners = [(3, 2), (0, 8), (8, 5)]
    found = model.prepare(embedding).windows(corners, 8)
    edges, votes = model.details(embedding)
    edges = _rows_and_columns(edges.mT, (16, 16))
    for i, (y, x) in enumerate(corners):
        part = np.s_[..., 4 * y : 4 * y + 32, 4 * x : 4 * x + 32]
        expected = model.prepare(
            embedding[..., y : y + 8, x : x + 8],
            origin=(y, x),
            details=Details(places_first(edges[part]), votes[part]),
        )
        assert found.size == expected.size
        parts = (
            (each.source, each.position, *each.first, *each.details)
            for each in (found, expected)
        )
        for a, b in zip(*parts, strict=True):
            torch.testing.assert_close(a[i : i + 1], b)
        one = {name: x[i : i + 1] for name, x in prompts.items()}
        for a, b in zip(
            model.decode(found, **prompts), model.decode(expected, **one), strict=True
        ):
            torch.testing.assert_close(a[i : i + 1], b)


@torch.inference_mode()
@pytest.mark.parametrize("n_embeddings", [1, 3])
def test_details_are_filtered_like_the_upscaled_embedding(model, prompts, n_embeddings):
    embedding = torch.randn(n_embeddings, 32, 16, 16)
    filters = []
    hooks = [
        layer.register_forward_hook(lambda _, __, output: filters.append(output))
        for layer in model.mask_decoder.output_hypernetworks_mlps
    ]
    model.mask_decoder.affinity = None
    nothing = Details(torch.zeros(n_embeddings, 64**2, 4))
    without, _ = model.decode(model.prepare(embedding, details=nothing), **prompts)
    detail = torch.randn(n_embeddings, 4, 64, 64)
    filters.clear()
    details = Details(places_first(detail))
    prepared = model.prepare(embedding, details=details)
    logits, _ = model.decode(prepared, **prompts)
    for hook in hooks:
        hook.remove()
    each = torch.stack(filters, dim=1)  # N, K, C / 8
    expected = torch.einsum("nkc,nchw->nkhw", each, detail.expand(3, -1, -1, -1))
    torch.testing.assert_close(logits - without, expected, rtol=1e-3, atol=1e-4)


@torch.inference_mode()
def test_details_change_nothing_before_they_are_trained():
    torch.manual_seed(0)
    config = dataclasses.replace(
        VARIANTS["tiny"], proposal=ProposalConfig((16, 8, 8), True)
    )
    with_detail, plain = Sam(config).eval(), Sam(VARIANTS["tiny"]).eval()
    plain.load_state_dict(with_detail.state_dict(), strict=False)
    embedding, box = torch.randn(1, 32, 8, 8), torch.tensor([[10.0, 20.0, 60.0, 90.0]])
    torch.testing.assert_close(
        with_detail.decode(embedding, boxes=box), plain.decode(embedding, boxes=box)
    )


def test_parts_of_places_are_put_in_order():
    image = torch.randn(2, 5, 4 * 3, 4 * 7)
    parts = places_first(image).mT
    assert torch.equal(_rows_and_columns(parts, (3, 7)), image)
    with torch.no_grad():
        assert torch.equal(_rows_and_columns(parts, (3, 7)), image)
    # The second part of the first place lies right of the first, not below.
    assert torch.equal(places_first(image)[:, 1], image[:, :, 0, 1])


def test_a_mask_prompt_needs_an_embedding_prepared_with_it(model, prompts):
    prepared = model.prepare(torch.randn(1, 32, 16, 16))
    with pytest.raises(InputError, match="prepared without"):
        model.decode(prepared, masks=torch.zeros(3, 1, 64, 64), **prompts)


class TestPieces:
    """What a CPU does piece by piece equals the whole, which gradients need."""

    @pytest.fixture(autouse=True)
    def small(self, monkeypatch):
        monkeypatch.setattr(mask_decoder, "CPU_PLACES", 2 * 64)
        monkeypatch.setattr(mask_decoder, "CPU_DRAWN", 50)

    @pytest.mark.parametrize("n_embeddings", [1, 3])
    def test_answers_of_pieces_are_those_of_the_whole(
        self, model, prompts, n_embeddings
    ):
        embedding = torch.randn(n_embeddings, 32, 8, 8)
        expected = model.decode(embedding, **prompts)  # with gradients, so whole
        with torch.inference_mode():
            found = model.decode(embedding, **prompts)
        for a, b in zip(found, expected, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)

    @pytest.mark.parametrize("n_embeddings", [1, 3])
    @torch.inference_mode()
    def test_hopeless_prompts_are_not_drawn(self, prompts, n_embeddings):
        torch.manual_seed(0)
        model = Sam(VARIANTS["tiny"]).eval()
        embedding = torch.randn(n_embeddings, 32, 8, 8)
        points = torch.rand(3, 2, 2) * 128
        prompts = prompts | {"points": points}
        logits, ious = model.decode(embedding, **prompts)
        best = ious.amax(dim=1)
        worth = float(best.sort().values[1])  # that of one prompt is higher
        drawn, same = model.decode(embedding, **prompts, worth=worth)
        hopeless = best <= worth
        assert hopeless.sum() == 2
        torch.testing.assert_close(same, ious)
        torch.testing.assert_close(drawn[~hopeless], logits[~hopeless])
        assert (drawn[hopeless] == -torch.inf).all()

    @pytest.mark.parametrize("n_embeddings", [1, 3])
    @torch.inference_mode()
    def test_bfloat16_stays_near_float32(self, prompts, n_embeddings):
        torch.manual_seed(0)
        model = Sam(VARIANTS["tiny"]).eval()
        embedding = torch.randn(n_embeddings, 32, 8, 8)
        expected, ious = model.decode(embedding, **prompts)
        model.precision = "bfloat16"
        assert model.prepare(embedding).source.dtype == torch.bfloat16
        found, low_ious = model.decode(embedding, **prompts)
        assert found.dtype == torch.float32
        assert (found - expected).norm() < 0.03 * expected.norm()
        assert (low_ious - ious).abs().max() < 0.03


@torch.inference_mode()
def test_weights_with_votes_are_decoded_in_float32(model, prompts):
    embedding = torch.randn(1, 32, 16, 16)
    expected = model.decode(embedding, **prompts)
    model.precision = "bfloat16"
    found = model.decode(embedding, **prompts)
    for a, b in zip(found, expected, strict=True):
        assert torch.equal(a, b)
