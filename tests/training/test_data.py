"""Windows for training: geometry against known shapes, maps against their formula."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch

from napari_sam.errors import FormatError, InputError
from napari_sam.training.config import TrainConfig
from napari_sam.training.data import (
    Batches,
    centre_offsets,
    distance_maps,
    load_images,
    make_training_image,
    object_sizes,
    sample_window,
)


@pytest.fixture
def config(tmp_path):
    return TrainConfig(
        output=tmp_path,
        windows=((64, 3),),
        window_shares=(1.0,),
        objects_per_window=4,
        scene_share=0.0,
    )


@pytest.fixture
def discs():
    """Four discs of radius 9 px on a dark plane, bright where the labels are."""
    rows, columns = np.mgrid[:120, :160]
    labels = np.zeros((120, 160), np.int32)
    for index, (y, x) in enumerate([(30, 30), (30, 90), (80, 40), (85, 120)], 1):
        labels[(rows - y) ** 2 + (columns - x) ** 2 <= 81] = index
    pixels = np.repeat(((labels > 0) * 200).astype(np.uint8)[..., None], 3, axis=2)
    return make_training_image(pixels, labels, group="discs")


def test_distance_maps_of_a_disc_follow_their_definition():
    rows, columns = np.mgrid[:41, :41]
    radius = np.hypot(rows - 20, columns - 20)
    labels = (radius <= 15).astype(np.int32)
    centre, boundary = distance_maps(labels) / 255
    inside = labels == 1
    np.testing.assert_allclose(centre[inside], radius[inside] / 15, atol=0.01)
    # Depth of a disc is its radius less the distance to the centre, to a pixel.
    np.testing.assert_allclose(boundary[inside], radius[inside] / 15, atol=0.08)
    assert (centre[~inside] == 1).all()
    assert (boundary[~inside] == 1).all()


def test_touching_objects_are_parted_by_the_boundary_distance():
    labels = np.zeros((20, 40), np.int32)
    labels[2:18, 2:20], labels[2:18, 20:38] = 1, 2
    _, boundary = distance_maps(labels) / 255
    assert boundary[10, 11] < 0.05
    assert boundary[10, 19] > 0.8
    assert boundary[10, 20] > 0.8


def test_an_image_without_objects_is_left_out():
    empty = np.zeros((8, 8), np.int32)
    assert make_training_image(np.zeros((8, 8, 3), np.uint8), empty) is None


@pytest.mark.parametrize("scale", [0.4, 1.0, 2.5])
@pytest.mark.parametrize("seed", range(4))
def test_pixels_and_labels_of_a_window_stay_together(discs, config, scale, seed):
    rng = np.random.default_rng(seed)
    sample = sample_window(discs, rng, 96, config, scale)
    inside = sample.labels > 0
    assert inside.any()
    for index in torch.unique(sample.labels[inside]):
        mask = sample.labels == index
        area = mask.sum().item() / scale**2
        rows, columns = torch.nonzero(mask, as_tuple=True)
        is_cut = (
            min(rows.min(), columns.min()) == 0 or max(rows.max(), columns.max()) == 95
        )
        if not is_cut:
            assert area == pytest.approx(np.pi * 81, rel=0.12)
            # Depth 0 in the middle, 1 at the edge, wherever the window turned it.
            centre = sample.distances[0][mask].argmin()
            assert rows[centre] == pytest.approx(rows.float().mean(), abs=2)
            assert columns[centre] == pytest.approx(columns.float().mean(), abs=2)
    assert (sample.distances[:, ~inside] == 1).all()


def test_pixels_go_on_beyond_the_image(discs, config, monkeypatch):
    monkeypatch.setattr(
        "napari_sam.training.data.augment_intensity", lambda pixels, rng: pixels
    )
    edge = dataclasses.replace(discs, pixels=torch.full_like(discs.pixels, 70))
    sample = sample_window(edge, np.random.default_rng(0), 256, config, 0.5)
    assert (sample.pixels == 70).all()
    assert (sample.labels[0] == 0).all()  # but objects do not


def test_batches_are_the_same_for_a_seed_and_step(discs, config):
    first, second = Batches([discs], config)[7], Batches([discs], config)[7]
    torch.testing.assert_close(first.images, second.images)
    torch.testing.assert_close(first.masks, second.masks)
    other = Batches([discs], dataclasses.replace(config, seed=1))[7]
    assert not torch.equal(first.images, other.images)


def test_masks_of_a_batch_are_objects_of_their_window(discs, config):
    batch = Batches([discs], config)[0]
    assert batch.images.shape == (3, 3, 64, 64)
    assert batch.maps.shape == (3, 3, 16, 16)
    foreground = torch.nn.functional.interpolate(batch.maps[:, :1], scale_factor=2)
    for mask, owner in zip(batch.masks, batch.owner, strict=True):
        assert mask.shape == (32, 32)
        assert (foreground[owner, 0][mask > 0.5] > 0).all()


def test_groups_are_drawn_by_weight(discs, config):
    rare = dataclasses.replace(discs, group="rare")
    weighted = dataclasses.replace(config, group_weights={"discs": 3.0, "rare": 1.0})
    assert Batches([discs, discs, rare], weighted).weights.tolist() == [0.75, 0.25]
    by_root = Batches([discs] * 4 + [rare], config).weights
    np.testing.assert_allclose(by_root, [2 / 3, 1 / 3])


def test_scenes_alone_are_enough(config):
    only_scenes = dataclasses.replace(config, scene_share=1.0)
    batch = Batches([], only_scenes)[0]
    assert batch.images.shape == (3, 3, 64, 64)
    with pytest.raises(InputError, match="scene_share"):
        Batches([], config)


def test_a_folder_of_images_and_labels_is_read(tmp_path: Path):
    labels = np.zeros((20, 30), np.uint16)
    labels[5:15, 5:15] = 1
    for name, data in (("images", labels * 1000), ("labels", labels)):
        (tmp_path / name).mkdir()
        tifffile.imwrite(tmp_path / name / "one.tif", data)
    (image,) = load_images(tmp_path)
    assert image.labels.shape == (20, 30)
    assert image.diameter == pytest.approx(10)
    assert image.pixels.max() == 255
    for wrong in (labels[:10], np.stack([labels] * 2)):
        tifffile.imwrite(tmp_path / "labels" / "one.tif", wrong)
        with pytest.raises(FormatError, match="equal"):
            load_images(tmp_path)
    tifffile.imwrite(tmp_path / "labels" / "one.tif", labels / np.float32(2))
    with pytest.raises(FormatError, match="one integer from 0"):
        load_images(tmp_path)


def test_ids_of_any_size_are_numbered_without_gaps(tmp_path: Path):
    labels = np.zeros((20, 30), np.uint32)
    labels[5:15, 5:15], labels[5:10, 20:25] = 3_000_000_000, 7
    for name in ("images", "labels"):
        (tmp_path / name).mkdir()
        tifffile.imwrite(tmp_path / name / "one.tif", labels)
    (image,) = load_images(tmp_path)
    assert image.labels.unique().tolist() == [0, 1, 2]
    assert image.labels[10, 10] == 2


def test_every_place_points_to_the_centroid_of_its_object():
    labels = torch.zeros(48, 64, dtype=torch.int32)
    labels[8:24, 16:48], labels[32:40, 0:8] = 7, 9
    offsets = centre_offsets(labels)
    assert offsets.shape == (2, 6, 8)
    # Place (1, 2) has its middle at y = 11.5, x = 19.5; object 7 its at 15.5, 31.5.
    assert offsets[:, 1, 2].tolist() == [12.0, 4.0]
    assert offsets[:, 4, 0].tolist() == [0.0, 0.0]
    assert torch.isnan(offsets[:, 0, 0]).all()
    assert (~torch.isnan(offsets[0])).sum() == 2 * 4 + 1
    near = centre_offsets(labels, cell=4)
    assert near.shape == (2, 12, 16)
    # Place (2, 4) of 4 px has its middle at y = 9.5, x = 17.5.
    assert near[:, 2, 4].tolist() == [14.0, 6.0]
    size = object_sizes(labels)
    area = int((labels == 7).sum())
    assert size[0, 2, 4].item() == pytest.approx(area**0.5)
    assert torch.isnan(size[0, 0, 0])
