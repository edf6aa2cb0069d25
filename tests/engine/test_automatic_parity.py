"""Automatic masks against those of ``segment-anything``, without trained weights.

Random weights answer every point with nearly the same mask. The weights here are set
by hand instead, so that each point gets blobs of its own: the embedding holds the
position encoding of its cell, the mask tokens that of the point, and their product
falls off with the distance (random Fourier features: Rahimi and Recht 2007).
"""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from skimage import data
from torch import Tensor, nn

from napari_sam.cache import EmbeddingCache
from napari_sam.engine.embed import open_plane
from napari_sam.engine.grid_masks import GridMode, grid_candidates, smaller_crops
from napari_sam.engine.jobs import Step, run, with_step
from napari_sam.masks import Candidate, mask_iou
from napari_sam.model import Sam, SamConfig
from napari_sam.model.config import ViTConfig
from napari_sam.tiling import Box, Crop
from tests.reference import load, reference_sam

CONFIG = SamConfig("blobs", ViTConfig(32, 1, 2, ()), image_size=256, decoder_mlp_dim=64)
N_WAVES = 15  # waves of the position encoding that the masks are made of
SHIFT = 10.0  # lifts values above 0, where ReLU and GELU leave them as they are
GAIN = 0.6
THRESHOLDS = (10.0, 8.0, 11.0, 14.0)  # of the single mask and of the three

MODE = GridMode(points_per_side=8, min_predicted_iou=0.05, min_stability=0.6)


@pytest.fixture(scope="module")
def networks() -> tuple[Sam, Any]:
    torch.manual_seed(0)
    reference = reference_sam(CONFIG)
    with torch.no_grad():
        set_blob_weights(reference)
    ours = Sam(CONFIG).eval()
    ours.load_state_dict(reference.state_dict(), strict=True)
    return ours, reference


@pytest.mark.parametrize("shape", [(256, 256), (180, 256), (256, 77), (150, 200)])
def test_masks_are_those_of_the_reference(
    networks: tuple[Sam, Any], shape: tuple[int, int]
) -> None:
    ours, reference = networks
    height, width = shape
    image = np.ascontiguousarray(data.immunohistochemistry()[:height, :width])
    expected = reference_masks(reference, image)
    found = our_masks(ours, image)
    assert len(expected) >= 15  # a comparison of one or two masks would prove little
    assert len(found) == len(expected)
    for candidate, record in zip(found, expected, strict=True):  # both best first
        mask = candidate.within(Box.whole(shape))
        assert mask_iou(mask, record["segmentation"]) >= 0.99
        assert candidate.predicted_iou == pytest.approx(
            record["predicted_iou"], abs=1e-3
        )
        assert candidate.stability == pytest.approx(record["stability_score"], abs=1e-2)


@pytest.mark.parametrize("shape", [(256, 256), (120, 190)])
def test_masks_of_smaller_crops_are_those_of_the_reference(
    networks: tuple[Sam, Any], shape: tuple[int, int]
) -> None:
    ours, reference = networks
    height, width = shape
    image = np.ascontiguousarray(data.immunohistochemistry()[:height, :width])
    mode = replace(MODE, points_per_side=6, crop_layers=1, crop_points_factor=2)
    expected = reference_masks(reference, image, mode)
    found = our_masks(ours, image, mode)
    assert len({tuple(record["crop_box"]) for record in expected}) >= 3
    assert len(found) == len(expected)
    for candidate, record in zip(found, expected, strict=True):
        mask = candidate.within(Box.whole(shape))
        assert mask_iou(mask, record["segmentation"]) >= 0.99
        assert candidate.predicted_iou == pytest.approx(
            record["predicted_iou"], abs=1e-3
        )
        # A pixel that was enlarged may differ by a gray level, so logits by 0.002; one
        # of these masks is flat where they are 1.
        assert candidate.stability == pytest.approx(record["stability_score"], abs=2e-2)


def test_smaller_crops_are_those_of_the_reference() -> None:
    boxes, _ = load("segment_anything.utils.amg").generate_crop_boxes(
        (333, 500), n_layers=2, overlap_ratio=0.3
    )
    mode = GridMode(points_per_side=32, crop_layers=2, crop_overlap=0.3)
    whole = Crop(0, 0, 0, Box(7, 9, 340, 509), Box(7, 9, 340, 509), (170, 256))
    found = smaller_crops(whole, Sam(CONFIG), mode)
    assert len(found) == 4 + 16
    shifted = [crop.box.shift(-7, -9) for crop, _ in found]
    assert [[b.x0, b.y0, b.x1, b.y1] for b in shifted] == boxes[1:]
    assert {n for _, n in found} == {32}
    assert max(max(crop.input_shape) for crop, _ in found) == CONFIG.image_size


def test_weights_give_masks_around_their_points(networks: tuple[Sam, Any]) -> None:
    image = np.ascontiguousarray(data.immunohistochemistry()[:256, :256])
    found = our_masks(networks[0], image)
    hits = 0
    for candidate in found:
        y, x = (round(value) for value in candidate.point)
        hits += bool(candidate.within(Box(y, x, y + 1, x + 1)).all())
    assert hits >= 0.9 * len(found)
    assert max(candidate.area for candidate in found) < 0.25 * image[..., 0].size


def our_masks(model: Sam, image: np.ndarray, mode: GridMode = MODE) -> list[Candidate]:
    # not rounded to float16, as the reference does not
    plane = open_plane(image, model, cache=EmbeddingCache(dtype="float32"))
    (crop,) = plane.grid
    work = grid_candidates(model, plane.of, crop, Box.whole(image.shape[:2]), mode)
    return run(with_step(Step(0, 1, "search"), work), progress=False)


def reference_masks(
    reference: Any, image: np.ndarray, mode: GridMode = MODE
) -> list[dict[str, Any]]:
    generator = load("segment_anything").SamAutomaticMaskGenerator(
        reference,
        points_per_side=mode.points_per_side,
        pred_iou_thresh=mode.min_predicted_iou,
        stability_score_thresh=mode.min_stability,
        box_nms_thresh=mode.box_nms,
        crop_n_layers=mode.crop_layers,
        crop_nms_thresh=mode.crop_nms,
        crop_overlap_ratio=mode.crop_overlap,
        crop_n_points_downscale_factor=mode.crop_points_factor,
    )
    records: list[dict[str, Any]] = generator.generate(image)
    return records


def set_blob_weights(sam: Any) -> None:
    """Set all weights but those of normalisations and of the predicted IoU."""
    iou_head = sam.mask_decoder.iou_prediction_head
    spared = set(iou_head.modules())
    for module in sam.modules():
        if isinstance(
            module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d | nn.Embedding
        ) and (module not in spared):
            for parameter in module.parameters(recurse=False):
                parameter.zero_()
    waves = torch.arange(N_WAVES)
    chosen = torch.cat([waves, waves + CONFIG.embed_dim // 2])  # sines, cosines
    place_positions_in_embedding(sam, chosen)
    carry_points_to_tokens(sam.mask_decoder)
    multiply_tokens_with_embedding(sam.mask_decoder, chosen)


def place_positions_in_embedding(sam: Any, chosen: Tensor) -> None:
    encoder, n = sam.image_encoder, len(chosen)
    positions = sam.prompt_encoder.get_dense_pe()[0, chosen]
    encoder.pos_embed[0, :, :, :n] = positions.permute(1, 2, 0)
    encoder.patch_embed.proj.weight[:n].normal_(std=0.003)  # a little of the image
    encoder.neck[0].weight[chosen, torch.arange(n)] = 1
    encoder.neck[2].weight[chosen, chosen, 1, 1] = 1


def carry_points_to_tokens(decoder: Any) -> None:
    # Without queries and keys the attention is the mean of all tokens, of which only
    # that of the point is not 0.
    attention = decoder.transformer.layers[0].self_attn
    attention.v_proj.weight.copy_(torch.eye(CONFIG.embed_dim))
    attention.out_proj.weight.copy_(torch.eye(CONFIG.embed_dim))


def multiply_tokens_with_embedding(decoder: Any, chosen: Tensor) -> None:
    n = len(chosen)
    index = torch.arange(n)
    first, norm, _, second, _ = decoder.output_upscaling
    first.weight[chosen, index] = 1
    norm.bias.fill_(SHIFT)
    second.weight[index, index] = 1
    # One channel more, constant, takes the shift and the threshold off the product.
    second.bias[n] = SHIFT
    for mlp, threshold in zip(
        decoder.output_hypernetworks_mlps, THRESHOLDS, strict=True
    ):
        for layer in mlp.layers[:2]:
            layer.weight.copy_(torch.eye(CONFIG.embed_dim))
        mlp.layers[0].bias.fill_(SHIFT)
        last = mlp.layers[2]
        last.weight[index, chosen] = GAIN
        last.bias[:n] = -GAIN * SHIFT
        last.weight[n, chosen] = -GAIN
        last.bias[n] = GAIN * SHIFT * n - threshold / SHIFT
