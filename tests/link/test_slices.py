"""Objects along z: exact on volumes whose objects are known."""

import numpy as np
import pytest

from napari_sam.errors import InputError
from napari_sam.link import LinkConfig, SliceLinker, link_slices
from napari_sam.training.metrics import overlaps

GRID = np.mgrid[:24, :48, :48].astype(float)


def ball(centre, radii):
    """Voxels of an ellipsoid."""
    scaled = [(g - c) / r for g, c, r in zip(GRID, centre, radii, strict=True)]
    return sum(s**2 for s in scaled) <= 1


def volume(*objects):
    """Paint objects one over the other, as 1, 2, ..."""
    labels = np.zeros(GRID.shape[1:], np.uint32)
    for number, each in enumerate(objects, start=1):
        labels[each] = number
    return labels


def per_slice(labels, seed=0):
    """Give the ids of every slice anew, in another order."""
    rng = np.random.default_rng(seed)
    planes = []
    for plane in labels:
        new = 1 + rng.permutation(int(labels.max()) + 5).astype(np.uint32)
        new[0] = 0
        planes.append(new[plane])
    return np.stack(planes)


def assert_same_objects(found, truth):
    """The same voxels belong together; numbers may differ."""
    pairs = overlaps(truth, found)
    assert len(pairs.truth_ids) == len(pairs.found_ids)
    np.testing.assert_array_equal(found > 0, truth > 0)
    assert len(pairs.iou) == len(pairs.truth_ids)
    assert (pairs.iou == 1).all()


def assert_links(labels, truth, **config):
    """Linking gives the truth, forwards and backwards."""
    config = LinkConfig(**config)
    assert_same_objects(link_slices(labels, config), truth)
    assert_same_objects(link_slices(labels[::-1], config)[::-1], truth)


def test_spheres_and_touching_ellipsoids():
    truth = volume(
        ball((8, 12, 12), (6, 8, 8)),
        ball((10, 12, 26), (5, 9, 7)),  # touches the first
        ball((12, 34, 20), (9, 6, 11)),
        ball((20, 38, 38), (3, 4, 4)),
    )
    assert_links(per_slice(truth), truth)
    found = link_slices(per_slice(truth))
    assert found.dtype == np.uint32
    # numbered by their first slices
    first = [np.flatnonzero((found == i).any((1, 2)))[0] for i in range(1, 5)]
    assert first == sorted(first)


def test_an_object_that_drifts_keeps_its_id():
    truth = np.zeros((24, 48, 48), np.uint32)
    for z in range(24):
        truth[z, 2 + z : 12 + z, 4:14] = 1
        truth[z, 34 - z : 44 - z, 30:40] = 2
    assert_links(per_slice(truth), truth)


def test_empty_slices_and_an_empty_stack():
    truth = volume(ball((5, 20, 20), (4, 8, 8)), ball((17, 20, 20), (4, 8, 8)))
    assert not truth[10:12].any()
    assert_links(per_slice(truth), truth)
    assert not link_slices(np.zeros((5, 4, 4), np.uint8)).any()
    assert SliceLinker().solve().n_objects == 0


def test_a_missing_slice_is_filled():
    truth = volume(ball((11, 20, 20), (9, 12, 12)), ball((11, 38, 40), (5, 6, 6)))
    labels = per_slice(truth)
    labels[11][truth[11] == 1] = 0
    found = link_slices(labels)
    assert found.max() == 2
    filled = found[11] == found[10, 20, 20]
    shared = np.count_nonzero(filled & (truth[11] == 1))
    assert shared / np.count_nonzero(filled | (truth[11] == 1)) > 0.9
    assert link_slices(labels, LinkConfig(max_gap=0)).max() == 3
    # two slices in a row are too many for the default
    labels[12][truth[12] == 1] = 0
    assert link_slices(labels).max() == 3
    assert link_slices(labels, LinkConfig(max_gap=2)).max() == 2


def test_a_fragment_goes_back_to_its_object():
    truth = volume(ball((11, 20, 20), (9, 12, 12)))
    labels = per_slice(truth)
    labels[10, :, 23:][truth[10, :, 23:] == 1] = 90
    labels[11, :, 23:][truth[11, :, 23:] == 1] = 91
    assert_links(labels, truth)


def test_a_merger_is_divided_between_its_objects():
    truth = volume(ball((11, 14, 20), (9, 9, 9)), ball((11, 33, 20), (9, 9, 9)))
    labels = per_slice(truth)
    labels[11][truth[11] > 0] = 80
    labels[11, 20:28, 18:23] = 80  # a bridge between both
    found = link_slices(labels)
    pairs = overlaps(truth, found)
    assert found.max() == 2
    assert len(pairs.match(0.98)) == 2
    # the bridge is cut in its middle
    assert set(np.unique(found[11, 20:24, 18:23])) == {found[11, 14, 20]}
    assert set(np.unique(found[11, 24:28, 18:23])) == {found[11, 33, 20]}


def test_objects_on_top_of_each_other_are_cut_at_the_neck():
    truth = volume(ball((6, 20, 20), (6, 10, 10)), ball((17, 20, 20), (6, 10, 10)))
    truth[11:13] = 0
    truth[11, 20, 20], truth[12, 20, 20] = 1, 2
    assert_links(per_slice(truth), truth)
    assert link_slices(per_slice(truth), LinkConfig(neck=0)).max() == 1


def test_one_bad_slice_is_no_neck():
    truth = volume(ball((11, 20, 20), (9, 12, 12)))
    labels = per_slice(truth)
    labels[11] = 0
    labels[11, 19:23, 19:23] = 50
    assert link_slices(labels).max() == 1


def test_a_branching_tube_is_one_object_on_request():
    truth = np.zeros((20, 48, 48), np.uint32)
    for z in range(20):
        apart = max(0, z - 8)
        truth[z, 10:18, 20 - apart : 28 - apart] = 1
        truth[z, 10:18, 20 + apart : 28 + apart] = 1
    labels = np.zeros_like(truth)
    for z in range(20):
        labels[z] = 3 * (truth[z] > 0)
        if z >= 13:  # both arms stand apart
            labels[z, :, 24:][truth[z, :, 24:] > 0] = 7
    assert_links(labels, truth, branches=True)
    assert link_slices(labels).max() == 2


def test_short_objects_are_dropped():
    truth = volume(ball((11, 20, 20), (9, 12, 12)), ball((4, 40, 40), (1, 4, 4)))
    assert len(np.flatnonzero((truth == 2).any((1, 2)))) == 3
    assert link_slices(per_slice(truth), LinkConfig(min_length=3)).max() == 2
    long = np.where(truth == 1, truth, 0)
    assert_links(per_slice(truth)[:, :, :], long, min_length=4)


def test_the_best_whole_wins_over_the_first_choice():
    """Slice by slice the left object would take the middle one."""
    labels = np.zeros((2, 6, 40), np.uint32)
    labels[0, :, 0:10], labels[0, :, 10:22] = 1, 2
    labels[1, :, 4:16], labels[1, :, 18:24] = 1, 2
    found = link_slices(labels, LinkConfig(min_overlap=0.1))
    # 2 has 6 of 12 columns in the middle one, 4 in the right one; 1 has 6 of 10
    assert found[1, 0, 5] == found[0, 0, 0]
    assert found[1, 0, 20] == found[0, 0, 15]


def test_ids_of_a_crowd_are_independent_of_the_direction():
    rng = np.random.default_rng(3)
    labels = np.zeros((12, 64, 64), np.uint32)
    for plane in labels:
        for number in range(1, 30):
            y, x = rng.integers(0, 56, 2)
            plane[y : y + rng.integers(3, 9), x : x + rng.integers(3, 9)] = number
    there, back = link_slices(labels), link_slices(labels[::-1])[::-1]
    assert_same_objects(back, there)


def test_a_linker_keeps_only_a_window_of_planes():
    linker = SliceLinker(LinkConfig(max_gap=2))
    for _ in range(20):
        linker.add(np.ones((4, 4), np.uint32))
    assert len(linker._recent) == 3
    asked = []

    def read(z):
        asked.append(z)
        return np.ones((4, 4), np.uint32)

    assert (linker.solve().plane(7, read) == 1).all()
    assert asked == [7]


def test_input_is_checked():
    with pytest.raises(InputError, match="share, 0 or more"):
        LinkConfig(min_overlap=1.5)
    with pytest.raises(InputError, match="max_gap -1"):
        LinkConfig(max_gap=-1)
    with pytest.raises(InputError, match=r"\(Z, H, W\)"):
        link_slices(np.zeros((4, 4), int))
    linker = SliceLinker()
    linker.add(np.ones((4, 4), int))
    with pytest.raises(InputError, match="one shape"):
        linker.add(np.ones((4, 5), int))


def two_bodies(contrasts):
    """One column of discs, and the light of a body in each of its slices."""
    labels = np.zeros((len(contrasts), 24, 24), np.uint32)
    labels[:, 8:16, 8:16] = 1 + np.arange(len(contrasts))[:, None, None]
    gray = np.full(labels.shape, 30.0)
    for z, contrast in enumerate(contrasts):
        gray[z][labels[z] > 0] += contrast
    return labels, gray


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize(
    ("contrasts", "groups"),
    [
        # two bodies of one width, that only their light tells apart
        ([20, 60, 120, 60, 25, 22, 50, 100, 200, 90, 30], [range(6), range(6, 11)]),
        # a faint one on a bright one
        ([15, 41, 40, 28, 18, 23, 46, 140, 200, 90], [range(4), range(4, 10)]),
        # one body: a dark slice, uneven staining, fading, hardly seen at all
        ([80, 90, 10, 95, 90], [range(5)]),
        ([80, 60, 55, 60, 85], [range(5)]),
        ([100, 80, 50, 20, 5], [range(5)]),
        ([15, 12, 3, 2, 12, 16], [range(6)]),
    ],
)
def test_bodies_that_touch_are_cut_where_it_is_dim(contrasts, groups, sign):
    labels, gray = two_bodies(contrasts)
    light = gray if sign > 0 else 250 - gray
    for way in (1, -1):
        found = link_slices(labels[::way], gray=light[::way])[::way]
        ids = found[:, 12, 12]
        assert len(np.unique(ids)) == len(groups)
        for group in groups:
            assert len(np.unique(ids[list(group)])) == 1
    assert link_slices(labels).max() == 1
    assert link_slices(labels, LinkConfig(valley=0), light).max() == 1
    assert link_slices(labels, LinkConfig(branches=True), light).max() == 1
