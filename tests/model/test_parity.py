"""The network against ``segment-anything``, weights exchanged, without downloads.

The reference multiplies plane coordinates by the scale and does not keep pixel
centres; where it takes plane coordinates, it is given those that mean the same
physical point as ours, see `reference_coordinates`.
"""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from skimage import data
from torch import Tensor

from napari_sam.model import VARIANTS, Sam, SamConfig
from napari_sam.model.config import ViTConfig
from tests.reference import load, randomise, reference_sam, relative_error

ENCODER_TOLERANCE = 1e-5  # relative, float32
MASK_TOLERANCE = 1e-4  # of the largest logit; absolute for the predicted IoU

# Published decoder and frame; an encoder of one windowed block keeps it fast. Prompts
# are compared in a quarter of the frame, whole images in all of it.
SHALLOW = SamConfig("shallow", ViTConfig(32, 1, 2, ()))
QUARTER = replace(SHALLOW, image_size=512)

# Side of the frame, window, global blocks: windows that fit, that need padding, and
# that are larger than the grid.
SMALL_FRAMES = [(128, 4, (1,)), (160, 4, (0, 2)), (224, 14, (2,)), (96, 14, ())]


def pair(config: SamConfig, seed: int = 0) -> tuple[Sam, Any]:
    """Build both networks with the same random weights; each loads the other's."""
    torch.manual_seed(seed)
    reference = reference_sam(config)
    randomise(reference)
    ours = Sam(config).eval()
    ours.load_state_dict(reference.state_dict(), strict=True)
    reference.load_state_dict(ours.state_dict(), strict=True)
    return ours, reference


@pytest.fixture(scope="module")
def shallow() -> tuple[Sam, Any]:
    return pair(SHALLOW)


@pytest.fixture(scope="module")
def quarter() -> tuple[Sam, Any]:
    return pair(QUARTER)


@pytest.fixture(scope="module")
def embedding(quarter: tuple[Sam, Any]) -> Tensor:
    ours, _ = quarter
    image = torch.from_numpy(data.immunohistochemistry()).permute(2, 0, 1)[None]
    with torch.no_grad():
        return ours.encode(ours.preprocess(image))


# --- names and sizes


@pytest.mark.parametrize("name", ["vit_b", "vit_l", "vit_h"])
def test_published_variants_load_strictly_both_ways(name: str) -> None:
    registry = load("segment_anything").sam_model_registry
    with torch.device("meta"):  # shapes without memory
        reference, ours = registry[name](), Sam(VARIANTS[name])
    ours.load_state_dict(reference.state_dict(), strict=True, assign=True)
    reference.load_state_dict(ours.state_dict(), strict=True, assign=True)


# --- encoder


@pytest.mark.parametrize(("size", "window", "global_blocks"), SMALL_FRAMES)
def test_encoder_in_small_frames(
    size: int, window: int, global_blocks: tuple[int, ...]
) -> None:
    encoder = ViTConfig(48, 3, 4, global_blocks, window_size=window)
    assert_same_embedding(
        SamConfig("small", encoder, image_size=size, embed_dim=32), batch=2
    )


@pytest.mark.parametrize("name", ["vit_b", "vit_l", "vit_h"])
def test_encoder_of_published_width(name: str) -> None:
    encoder = VARIANTS[name].encoder
    assert isinstance(encoder, ViTConfig)
    shallower = replace(encoder, depth=2, global_attn_indexes=(1,))
    assert_same_embedding(SamConfig(name, shallower, image_size=256))


@pytest.mark.slow  # two ViT-B at 1024 px
def test_full_vit_b_on_tissue() -> None:
    ours, reference = pair(VARIANTS["vit_b"])
    image = resized(data.immunohistochemistry(), 1024)
    with torch.no_grad():
        x = ours.preprocess(torch.from_numpy(image).permute(2, 0, 1)[None])
        found, expected = ours.encode(x), reference.image_encoder(x)
    assert found.shape == (1, 256, 64, 64)
    assert relative_error(found, expected) <= ENCODER_TOLERANCE


def assert_same_embedding(config: SamConfig, batch: int = 1) -> None:
    ours, reference = pair(config)
    x = torch.randn(batch, 3, config.image_size, config.image_size)
    with torch.no_grad():
        found, expected = ours.encode(x), reference.image_encoder(x)
    side = config.embedding_size
    assert found.shape == (batch, config.embed_dim, side, side)
    assert relative_error(found, expected) <= ENCODER_TOLERANCE


# --- input


@pytest.mark.parametrize("shape", [(1024, 1024), (700, 1024), (1024, 333), (1, 1)])
def test_preprocessing(shallow: tuple[Sam, Any], shape: tuple[int, int]) -> None:
    ours, reference = shallow
    image = torch.randint(0, 256, (1, 3, *shape), dtype=torch.uint8)
    found, expected = ours.preprocess(image), reference.preprocess(image)
    torch.testing.assert_close(found, expected)


# --- prompts, in the input frame

POINTS = [[[250.0, 187.0]], [[6.5, 505.0]], [[0.0, 0.0]]]
CLICKS = [
    [[250.0, 187.0], [15.0, 20.0], [500.0, 500.0]],
    [[6.5, 505.0], [300.0, 2.0], [301.0, 3.5]],
    [[0.0, 0.0], [511.0, 511.0], [255.5, 255.5]],
]
LABELS = [[1, 0, 1], [1, 1, 0], [0, 0, 1]]
BOXES = [[50.0, 100.0, 200.0, 450.0], [0.0, 0.0, 511.0, 511.0], [7.5, 8.0, 9.0, 30.0]]

PROMPTS = {
    "one point": {"points": POINTS, "labels": [[1], [1], [1]]},
    "one negative point": {"points": POINTS, "labels": [[0], [0], [0]]},
    "several points": {"points": CLICKS, "labels": LABELS},
    "points with padding": {"points": CLICKS, "labels": [[1, -1, -1], *LABELS[1:]]},
    "box": {"boxes": BOXES},
    "box and points": {"boxes": BOXES, "points": CLICKS, "labels": LABELS},
}


@pytest.mark.parametrize("multimask", [True, False])
@pytest.mark.parametrize("with_mask", [False, True])
@pytest.mark.parametrize("kind", list(PROMPTS))
def test_prompts(
    quarter: tuple[Sam, Any],
    embedding: Tensor,
    kind: str,
    with_mask: bool,
    multimask: bool,
) -> None:
    prompts = {name: torch.tensor(value) for name, value in PROMPTS[kind].items()}
    if with_mask:
        torch.manual_seed(1)
        prompts["masks"] = torch.randn(3, 1, 128, 128) * 5
    assert_same_answer(quarter, embedding, prompts, multimask=multimask)


def test_many_prompts_in_one_batch(quarter: tuple[Sam, Any], embedding: Tensor) -> None:
    torch.manual_seed(2)
    prompts = {
        "points": torch.rand(12, 2, 2) * 512,
        "labels": torch.randint(-1, 2, (12, 2)),
    }
    logits = assert_same_answer(quarter, embedding, prompts, multimask=True)
    ours, _ = quarter
    with torch.no_grad():
        alone = ours.decode(
            embedding, **{name: value[7:8] for name, value in prompts.items()}
        )[0]
    # A prompt's answer does not depend on its neighbours in the batch.
    assert (alone - logits[7:8]).abs().max() <= MASK_TOLERANCE * logits.abs().max()


def test_all_four_masks_at_once(quarter: tuple[Sam, Any], embedding: Tensor) -> None:
    ours, _ = quarter
    prompts = {"points": torch.tensor(POINTS), "labels": torch.ones(3, 1)}
    with torch.no_grad():
        found = ours.decode(embedding, **prompts, multimask=None)
        single = ours.decode(embedding, **prompts, multimask=False)
        three = ours.decode(embedding, **prompts, multimask=True)
    for four, first, others in zip(found, single, three, strict=True):
        torch.testing.assert_close(four, torch.cat([first, others], dim=1))


def test_answers_fed_back_as_mask_prompt(
    quarter: tuple[Sam, Any], embedding: Tensor
) -> None:
    ours, _ = quarter
    prompts = {"points": torch.tensor(POINTS), "labels": torch.ones(3, 1)}
    for _ in range(3):
        with torch.no_grad():
            logits, _ = ours.decode(embedding, **prompts, multimask=False)
        prompts["masks"] = logits
    assert_same_answer(quarter, embedding, prompts, multimask=False)


def test_decoder_in_a_small_frame() -> None:
    config = SamConfig("small", ViTConfig(32, 1, 2, (0,)), image_size=160, embed_dim=64)
    networks = pair(config, seed=3)
    prompts = {
        "points": torch.rand(4, 3, 2) * 160,
        "labels": torch.randint(0, 2, (4, 3)),
        "boxes": torch.tensor([[3.0, 4.0, 50.0, 60.0]]).expand(4, 4),
        "masks": torch.randn(4, 1, 40, 40),
    }
    small = torch.randn(1, 64, 10, 10)
    assert_same_answer(networks, small, prompts, multimask=True)


def assert_same_answer(
    networks: tuple[Sam, Any],
    embedding: Tensor,
    prompts: dict[str, Tensor],
    *,
    multimask: bool,
) -> Tensor:
    ours, reference = networks
    with torch.no_grad():
        logits, predicted_iou = ours.decode(embedding, **prompts, multimask=multimask)
        points = None
        if "points" in prompts:
            points = (prompts["points"], prompts["labels"])
        sparse, dense = reference.prompt_encoder(
            points=points, boxes=prompts.get("boxes"), masks=prompts.get("masks")
        )
        expected, expected_iou = reference.mask_decoder(
            image_embeddings=embedding,
            image_pe=reference.prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=multimask,
        )
    assert logits.shape == expected.shape
    assert_same_masks(logits, expected)
    torch.testing.assert_close(predicted_iou, expected_iou, atol=1e-4, rtol=0)
    return logits


def assert_same_masks(found: Tensor, expected: Tensor) -> None:
    largest = expected.abs().max()
    assert (found - expected).abs().max() <= MASK_TOLERANCE * largest
    # A comparison of flat maps would prove nothing.
    assert expected.std() >= 0.02 * largest


# --- whole images, in plane coordinates


IMAGES = {
    "tissue 512 x 512": data.immunohistochemistry,
    "landscape 300 x 451": data.chelsea,
    "portrait 384 x 303, gray": lambda: np.stack([data.coins().T] * 3, axis=-1),
    "larger than the frame": lambda: np.tile(data.immunohistochemistry(), (3, 2, 1)),
    "strip of 20 rows": lambda: data.immunohistochemistry()[100:120],
}


@pytest.mark.parametrize("name", list(IMAGES))
def test_images_of_all_shapes(shallow: tuple[Sam, Any], name: str) -> None:
    ours, reference = shallow
    image = np.ascontiguousarray(IMAGES[name]())
    height, width = image.shape[:2]
    points = np.array([[0.3, 0.4], [0.8, 0.9]]) * (width, height)
    box = np.array([0.1, 0.2, 0.7, 0.6]) * (width, height, width, height)

    predictor = load("segment_anything").SamPredictor(reference)
    predictor.set_image(image)
    expected, expected_iou, _ = predictor.predict(
        reference_coordinates(points, image.shape, 1024),
        np.array([1, 0]),
        reference_coordinates(box.reshape(2, 2), image.shape, 1024).ravel(),
        return_logits=True,
    )

    frame = torch.from_numpy(resized(image, 1024)).permute(2, 0, 1)[None]
    corners = torch.from_numpy(to_frame(box.reshape(2, 2), image.shape, 1024))
    with torch.no_grad():
        logits, predicted_iou = ours.decode(
            ours.encode(ours.preprocess(frame)),
            points=torch.from_numpy(to_frame(points, image.shape, 1024))[None],
            labels=torch.tensor([[1, 0]]),
            boxes=corners.reshape(1, 4),
        )
        found = ours.upscale(logits, frame.shape[2:], (height, width))[0]
    assert found.shape == (3, height, width)
    assert_same_masks(found, torch.from_numpy(expected))
    np.testing.assert_allclose(predicted_iou[0], expected_iou, atol=1e-4)


def resized(image: np.ndarray, longest: int) -> np.ndarray:
    """Resize as the reference does, so that both encoders see the same pixels."""
    transforms = load("segment_anything.utils.transforms")
    pixels: np.ndarray = transforms.ResizeLongestSide(longest).apply_image(image)
    return pixels


def scale_xy(shape: tuple[int, ...], longest: int) -> np.ndarray:
    transforms = load("segment_anything.utils.transforms")
    height, width = transforms.ResizeLongestSide.get_preprocess_shape(
        *shape[:2], longest
    )
    return np.array([width / shape[1], height / shape[0]])


def to_frame(xy: np.ndarray, shape: tuple[int, ...], longest: int) -> np.ndarray:
    """Map plane coordinates, integer at the pixel's centre, to the input frame."""
    scale = scale_xy(shape, longest)
    return ((xy + 0.5) * scale - 0.5).astype(np.float32)


def reference_coordinates(
    xy: np.ndarray, shape: tuple[int, ...], longest: int
) -> np.ndarray:
    """Return what the reference has to be told to reach the same physical point."""
    return to_frame(xy, shape, longest) / scale_xy(shape, longest)
