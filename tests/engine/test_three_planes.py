"""Volumes in three directions: cut, stretched, found, fused."""

import numpy as np
import pytest
import tifffile

from napari_sam.engine.automatic import AutomaticConfig
from napari_sam.engine.files import ImageOptions, plan_outputs
from napari_sam.engine.grid_masks import GridMode
from napari_sam.engine.jobs import run
from napari_sam.engine.three_planes import (
    Resliced,
    segment_three_planes,
    three_planes_file,
)
from napari_sam.errors import FileError, InputError
from napari_sam.images import ImageSource, Intensity
from napari_sam.readers import open_image
from tests.engine.bright import BrightSam

GRAY = Intensity((0,), ((0.0, 255.0),))
GRID = AutomaticConfig(
    mode="grid",
    grid=GridMode(points_per_side=6, min_predicted_iou=0.7, min_stability=0.5),
    skip_background=False,
)


@pytest.fixture
def balls():
    """Two balls in a volume of 12 slices, two pixels apart: (12, 24, 28)."""
    z, y, x = np.mgrid[:12, :24, :28]
    z = 2 * z
    labels = np.zeros(z.shape, np.uint32)
    labels[(z - 11) ** 2 + (y - 11) ** 2 + (x - 7) ** 2 <= 30] = 1
    labels[(z - 11) ** 2 + (y - 12) ** 2 + (x - 20) ** 2 <= 36] = 2
    return labels


def test_planes_across_the_slices_are_those_of_the_volume():
    volume = np.random.default_rng(0).integers(0, 255, (6, 70, 40)).astype(np.uint8)
    source = ImageSource(volume, "ZYX")
    xz, yz = (Resliced(source, GRAY, cut, 1.0) for cut in ("xz", "yz"))
    assert xz.shape == (70, 6, 40, 3)
    assert yz.shape == (40, 6, 70, 3)
    for at in (0, 31, 32, 69):
        np.testing.assert_array_equal(xz[at, :, :][..., 0], volume[:, at])
    for at in (0, 33, 39):
        np.testing.assert_array_equal(yz[at, 1:4, 5:9][..., 1], volume[1:4, 5:9, at])


def test_slices_are_stretched_by_their_distance():
    volume = np.zeros((3, 4, 4), np.uint8)
    volume[1], volume[2] = 100, 200
    xz = Resliced(ImageSource(volume, "ZYX"), GRAY, "xz", 2.0)
    column = xz[0, :, :][:, 0, 0]
    # centres of six rows at -1/4, 1/4, 3/4 ... of three slices, clipped at the ends
    assert column.tolist() == [0, 25, 75, 125, 175, 200]


@pytest.mark.slow
def test_balls_are_found_and_ids_are_those_of_objects(balls):
    source = ImageSource(
        (balls > 0).astype(np.uint8) * 255, "ZYX", (0.5, 0.5), z_step_um=1.0
    )
    fused = run(
        segment_three_planes(source, BrightSam(), intensity=GRAY, config=GRID),
        progress=False,
    )
    labels = fused.labels()
    assert fused.n_objects == 2
    for number in (1, 2):
        truth = balls == number
        (its,) = np.unique(labels[truth & (labels > 0)])
        found = labels == its
        assert (found & truth).sum() / (found | truth).sum() > 0.85
    uncertainty = fused.uncertainty()
    core = np.zeros_like(balls, bool)
    core[5:7, 10:13, 6:9] = True
    assert not uncertainty[core].any()
    assert not uncertainty[:, :3].any()


@pytest.mark.slow
def test_a_file_becomes_labels_and_uncertainty(balls, tmp_path):
    path = tmp_path / "balls.ome.tif"
    tifffile.imwrite(
        path,
        (balls > 0).astype(np.uint8)[3:9, 4:20] * 255,
        metadata={
            "axes": "ZYX",
            "PhysicalSizeX": 0.5,
            "PhysicalSizeY": 0.5,
            "PhysicalSizeZ": 1.0,
        },
        ome=True,
    )
    (outputs,) = plan_outputs([path], tmp_path / "out")
    report = run(
        three_planes_file(
            path, outputs, BrightSam(), ImageOptions(limits=((0, 255),)), GRID
        ),
        progress=False,
    )
    labels = open_image(outputs.labels)
    assert labels.z_step_um == 1.0
    assert len(np.unique(labels.array[:])) - 1 == report.n_objects == 2
    scores = tifffile.imread(tmp_path / "out" / "balls.uncertainty.tif")
    assert scores.shape == (6, 16, 28)
    assert scores.dtype == np.float32
    assert set(np.unique(scores.round(2))) <= {
        np.float32(0),
        np.float32(0.33),
        np.float32(0.67),
    }


def test_one_frame_of_a_recording_in_two_channels(tmp_path):
    pixels = np.zeros((2, 4, 2, 12, 12), np.uint8)
    pixels[1, 1:3, 0, 4:9, 4:9] = 255
    path = tmp_path / "cube.ome.tif"
    tifffile.imwrite(path, pixels, metadata={"axes": "TZCYX"}, ome=True)
    (outputs,) = plan_outputs([path], tmp_path / "out", ending=".zarr")
    opening = ImageOptions(channels=(0,), limits=((0, 255),), plane=(1, 0))
    report = run(
        three_planes_file(path, outputs, BrightSam(), opening, GRID), progress=False
    )
    assert report.n_objects == 1
    labels = open_image(outputs.labels).array[:]
    truth = pixels[1, :, 0] > 0
    assert (truth & (labels > 0)).sum() / (truth | (labels > 0)).sum() > 0.5
    outputs.labels.rename(tmp_path / "elsewhere.zarr")
    with pytest.raises(FileError, match=r"uncertainty\.tif: exists already"):
        run(three_planes_file(path, outputs, BrightSam(), opening, GRID))


def test_a_frame_that_is_not_there_is_refused():
    source = ImageSource(np.zeros((2, 4, 8, 8), np.uint8), "TZYX")
    with pytest.raises(InputError, match="image, which has 2 frames"):
        run(segment_three_planes(source, BrightSam(), t=2))


@pytest.mark.parametrize(
    ("shape", "axes", "spacing", "words"),
    [
        ((8, 16, 16), "ZYX", (9, 1, 1), "not more than 8"),
        ((8, 16, 16), "TYX", None, "one slice"),
    ],
)
def test_what_is_no_volume_is_refused(shape, axes, spacing, words):
    source = ImageSource(np.zeros(shape, np.uint8), axes)
    with pytest.raises(InputError, match=words):
        run(segment_three_planes(source, BrightSam(), spacing=spacing))
