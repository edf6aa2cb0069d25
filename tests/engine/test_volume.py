"""Stacks: planes linked as they are read; the same ids wherever they are drawn."""

import csv

import numpy as np
import pytest
import tifffile

from napari_sam.engine.files import plan_outputs
from napari_sam.engine.jobs import run
from napari_sam.engine.volume import (
    LinkOptions,
    link_file,
    link_labels,
    segment_stack,
)
from napari_sam.errors import InputError
from napari_sam.images import ImageSource
from napari_sam.link import LinkConfig, link_frames, link_slices
from napari_sam.readers import open_image


@pytest.fixture
def movie():
    """Two balls that drift, and one that comes later: (T, Z, H, W)."""
    z, y, x = np.mgrid[:9, :40, :40]
    labels = np.zeros((4, 9, 40, 40), np.uint32)
    for t in range(4):
        labels[t][(z - 4) ** 2 + (y - 10) ** 2 + (x - 10 - 2 * t) ** 2 <= 16] = 1
        labels[t][(z - 4) ** 2 + (y - 28) ** 2 + (x - 28 + 2 * t) ** 2 <= 16] = 2
        if t > 1:
            labels[t][(z - 3) ** 2 + (y - 10) ** 2 + (x - 32) ** 2 <= 9] = 3
    return labels


def per_plane(labels):
    rng = np.random.default_rng(0)
    out = labels.copy()
    for plane in out.reshape(-1, *labels.shape[-2:]):
        new = (1 + rng.permutation(int(labels.max()) + 1)).astype(np.uint32)
        new[0] = 0
        plane[:] = new[plane]
    return out


def test_slices_are_linked_as_in_memory(movie):
    planes = per_plane(movie[3])
    found = run(link_labels(ImageSource(planes, "ZYX")))
    assert found.n_objects == 3
    drawn = np.stack([found.labels.read(plane=(0, z)) for z in range(9)])
    np.testing.assert_array_equal(drawn, link_slices(planes))
    assert found.labels.axes == "ZYX"
    np.testing.assert_array_equal(found.labels.array[3, 5:9, 2:20], drawn[3, 5:9, 2:20])


@pytest.mark.parametrize("dtype", [np.uint16, np.uint32])
def test_levels_of_the_labels_are_not_those_of_the_objects(movie, dtype):
    labels = per_plane(movie[0]).astype(dtype)
    source = ImageSource(labels, "ZYX", levels=(labels[:, ::2, ::2],))
    linked = run(link_labels(source))
    expected = run(link_labels(ImageSource(labels, "ZYX")))
    assert linked.labels.levels == ()
    for z in range(len(labels)):
        np.testing.assert_array_equal(
            linked.labels.read(plane=(0, z)), expected.labels.read(plane=(0, z))
        )


def test_ids_of_frames_do_not_collide(movie):
    found = run(link_labels(ImageSource(per_plane(movie), "TZYX")))
    assert found.n_objects == 2 + 2 + 3 + 3
    ids = [np.unique(found.labels.read(plane=(t, 4))) for t in range(4)]
    assert not set(ids[0][1:]) & set(ids[1][1:])


def test_frames_are_linked_as_in_memory(movie):
    flat = per_plane(movie[:, 4])
    found = run(link_labels(ImageSource(flat, "TYX"), LinkOptions("t")))
    drawn = np.stack([found.labels.read(plane=(t, 0)) for t in range(4)])
    expected, tracks = link_frames(flat)
    np.testing.assert_array_equal(drawn, expected)
    assert found.tracks.tracks == tracks


def test_both_axes_give_one_id_for_each_object(movie):
    source = ImageSource(per_plane(movie), "TZYX", (0.5, 0.5), 1.0)
    found = run(link_labels(source, LinkOptions("both")))
    assert found.n_objects == 3
    drawn = np.stack(
        [[found.labels.read(plane=(t, z)) for z in range(9)] for t in range(4)]
    )
    for number in (1, 2, 3):
        (its,) = np.unique(drawn[movie == number])
        np.testing.assert_array_equal(drawn == its, movie == number)


def test_files_come_out(movie, tmp_path):
    path = tmp_path / "a.labels.tif"
    tifffile.imwrite(path, per_plane(movie), metadata={"axes": "TZYX"}, imagej=False)
    options = LinkOptions("both", ctc=True)
    steps = list(link_file(path, tmp_path / "a.linked.tif", options))
    assert [steps[0].done, steps[35].done, steps[-1].what] == [1, 36, "write labels"]
    linked = open_image(tmp_path / "a.linked.tif")
    assert linked.axes == "TZYX"
    assert len(np.unique(linked.read(plane=(3, 4)))) == 4
    rows = list(csv.DictReader((tmp_path / "a.tracks.csv").read_text().splitlines()))
    assert len(rows) == 10
    lines = (tmp_path / "a_RES" / "res_track.txt").read_text().splitlines()
    assert lines == ["1 0 3 0", "2 0 3 0", "3 2 3 0"]


def test_a_stack_is_segmented_then_linked(tiny_sam, tmp_path):
    image = np.random.default_rng(0).integers(0, 255, (3, 40, 50), np.uint8)
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, image, metadata={"axes": "ZYX"})
    (outputs,) = plan_outputs([path], tmp_path / "out")
    for _ in range(2):  # the second time the planes are there
        report = run(segment_stack(path, outputs, tiny_sam))
        assert report.outputs.labels == tmp_path / "out" / "a.linked.tif"
        assert open_image(report.outputs.labels).shape == (1, 3, 40, 50)
    assert report.was_done
    planes = tifffile.imread(outputs.labels)
    np.testing.assert_array_equal(
        tifffile.imread(report.outputs.labels), link_slices(planes)
    )


def test_an_axis_that_is_not_there_is_missed_before_the_work(tiny_sam, tmp_path):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.zeros((3, 40, 50), np.uint8), metadata={"axes": "ZYX"})
    (outputs,) = plan_outputs([path], tmp_path / "out")
    with pytest.raises(InputError, match="it needs T"):
        run(segment_stack(path, outputs, tiny_sam, link=LinkOptions("t")))
    assert not outputs.labels.exists()


def test_few_planes_are_held():
    """Counted, not weighed: planes that are alive at a time."""

    class Planes:
        shape, dtype, alive, most = (40, 8, 8), np.dtype(np.uint32), [], 0

        def __getitem__(self, index):
            import weakref

            plane = np.ones((8, 8), np.uint32)
            self.alive = [ref for ref in self.alive if ref() is not None]
            self.alive.append(weakref.ref(plane))
            Planes.most = max(Planes.most, len(self.alive))
            return plane

    config = LinkOptions("z", LinkConfig(max_gap=2))
    found = run(link_labels(ImageSource(Planes(), "ZYX"), config))
    for z in range(40):
        assert (found.labels.read(plane=(0, z)) == 1).all()
    assert Planes.most <= 5


def test_input_is_checked(movie):
    with pytest.raises(InputError, match="needs T"):
        run(link_labels(ImageSource(movie[0], "ZYX"), LinkOptions("t")))
    with pytest.raises(InputError, match="labels have one, of integers"):
        run(link_labels(ImageSource(movie[0].astype(float), "ZYX")))
    with pytest.raises(InputError, match="object id -1"):
        run(link_labels(ImageSource(movie[0].astype(int) - 1, "ZYX")))
    with pytest.raises(InputError, match="'both'"):
        LinkOptions("x")
