"""Where an object fades: its ends, its caps, and corrections of them."""

import numpy as np
import pytest

from napari_sam.engine.follow import PropagateConfig, fade
from napari_sam.engine.jobs import run
from napari_sam.engine.propagate import propagate
from napari_sam.images import ImageSource
from napari_sam.masks import Candidate
from napari_sam.prompts import Prompts
from napari_sam.tiling import Box
from tests.engine.test_propagate import SHAPE, StackOracle, box_stack, click

# Contrasts of an object that is clearest in slice 5, and of one behind it: as a
# microscope shows them, which sees light of both between them.
BEHIND = [2, 10, 60, 120, 180, 200, 180, 110, 50, 24, 8, 6, 12, 40, 90, 160, 210, 220]


def lit(truth, contrasts, axes="ZYXS", ground=20):
    """Brightness in red and green, the number of the slice in blue.

    The corner is dark: there the oracle reads where the crop lies.
    """
    image = np.zeros((*truth.shape, 3), np.uint8)
    for z, contrast in enumerate(contrasts):
        # gray is the mean of three colours, of which two are lit
        bright = ground + 1.5 * np.asarray(contrast)
        image[z, ..., :2] = np.where(truth[z] > 0, bright, ground)[..., None].clip(
            0, 255
        )
        image[z, ..., 2] = z
    image[:, :2, :2, :2] = 0
    return ImageSource(image, axes)


def seen_as_one(contrasts, **options):
    """Follow an object in whose place the network sees something in every slice."""
    truth = box_stack(len(contrasts), (1, 0, len(contrasts), 8, 8, 12, 0))
    levels = 0.7 * np.array(contrasts, float)
    oracle = StackOracle(truth)
    image = lit(truth, levels)
    return lambda prompts, **more: run(
        propagate(image, oracle, prompts, **options, **more)
    )


def test_an_object_ends_where_it_fades():
    found = seen_as_one(BEHIND)({5: click(14, 14)})
    # 10 of 200 is less than a tenth, 24 is not
    assert list(found.slices) == list(range(2, 10))
    assert all("contrast 0.0" in stop.reason for stop in found.stops)


def test_a_click_in_a_faint_slice_does_not_lead_into_the_object_behind():
    ask = seen_as_one(BEHIND)
    first = ask({5: click(14, 14)})
    for faint in (9, 2):
        again = ask({5: click(14, 14), faint: click(14, 14)}, previous=first)
        assert list(again.slices) == list(first.slices)
        for z in first.slices:
            np.testing.assert_array_equal(again.mask(z, SHAPE), first.mask(z, SHAPE))
    # a slice beyond the end is obeyed, and what lies between is the object's, too
    beyond = ask({5: click(14, 14), 11: click(14, 14)}, previous=first)
    assert list(beyond.slices) == list(range(2, 12))


def test_the_clearest_slice_counts_wherever_the_click_is():
    ask = seen_as_one(BEHIND)
    for z in (2, 5, 9):
        assert list(ask({z: click(14, 14)}).slices) == list(range(2, 10))


def test_a_correction_does_not_lead_beyond_an_end_that_is_known():
    """Of a smaller mask the contrast is another, but the end is where it was."""
    contrasts = [22, 23, 23, 21, 15, 10, 12, 40, 80, 100, 90, 40, 5, 5]
    ask = seen_as_one(contrasts)
    first = ask({9: click(14, 14)})
    assert list(first.slices) == [6, 7, 8, 9, 10, 11]
    # a small part of what is bright, so that there is no contrast at all
    part = Candidate(Box(12, 12, 16, 16), np.ones((4, 4), bool))
    config = PropagateConfig(max_change=20)
    given = {9: click(14, 14), 6: part}
    assert min(ask(given, previous=first, config=config).slices) == 6
    # but a slice that is clicked beyond it is obeyed
    beyond = ask({9: click(14, 14), 2: click(14, 14)}, previous=first)
    assert set(range(2, 12)) <= set(beyond.slices)


def test_order_of_clicks_does_not_matter():
    ask = seen_as_one(BEHIND)
    both = {9: click(14, 14), 5: click(14, 14)}
    faint_first = ask(both, previous=ask({9: click(14, 14)}))
    assert list(faint_first.slices) == list(ask(both).slices)


@pytest.mark.parametrize(
    ("contrasts", "end"),
    [
        # a valley that stays above a tenth: what comes up is another object
        ([100, 80, 40, 20, 12, 26, 42], 4),
        # a faint object in front of a bright one
        ([41, 36, 28, 23, 18, 23, 46, 77], 4),
        # no slice between both
        ([100, 80, 40, 15, 79], 3),
        # gone: the first of two slices in a row
        ([100, 60, 9, 8, 7], 2),
        # clearer than where it was clicked, then gone
        ([30, 100, 200, 100, 15, 12], 4),
        # one dark slice, uneven staining, a rise without a valley, noise
        ([100, 98, 90, 10, 91, 96], None),
        ([100, 70, 62, 80, 100], None),
        ([40, 60, 90, 130, 200], None),
        ([5, 1, 4, 0, 6], None),
        # not known
        ([np.nan, np.nan, np.nan], None),
    ],
)
def test_ends_of_series_of_contrasts(contrasts, end):
    found = fade(list(enumerate(contrasts, start=7)), contrasts[0], PropagateConfig())
    assert (None if found is None else found.at - 7) == end


@pytest.mark.parametrize("ground", [20, 230])
def test_what_is_seen_of_other_slices_is_left_out(ground):
    """A ball out of focus: the network draws it as wide as its middle everywhere."""
    y, x = np.mgrid[:32, :32]
    away = np.hypot(y - 15.5, x - 15.5)
    wide = np.stack([away < 11] * 7).astype(np.uint32)
    cap = away < 5
    # two caps that are faint, and around them light of the slices between
    share = [0.6 * cap + 0.03 * (away >= 5) if z in (0, 6) else 1 for z in range(7)]
    sign = 1 if ground < 128 else -1
    image = lit(wide, [sign * 130 * np.asarray(each) for each in share], ground=ground)
    oracle, prompts = StackOracle(wide), {3: click(15, 15)}
    found = run(propagate(image, oracle, prompts))
    for z in range(1, 6):
        np.testing.assert_array_equal(found.mask(z, SHAPE), wide[z] > 0)
    for z in (0, 6):
        kept = found.mask(z, SHAPE)
        # the edge is blurred, against noise; without the threshold it would be 0.21
        assert (kept & cap).sum() / (kept | cap).sum() > 0.4
    config = PropagateConfig(min_contrast=0)
    all_of_it = run(propagate(image, oracle, prompts, config=config))
    for z in range(7):
        np.testing.assert_array_equal(all_of_it.mask(z, SHAPE), wide[z] > 0)


def test_in_time_brightness_says_nothing():
    truth = box_stack(8, (1, 0, 8, 8, 8, 12, 0))
    image = lit(truth, [100, 3, 60, 2, 1, 90, 2, 2], "TYXS")
    found = run(propagate(image, StackOracle(truth), {0: click(14, 14)}, along="t"))
    assert list(found.slices) == list(range(8))
    for t in range(8):
        np.testing.assert_array_equal(found.mask(t, SHAPE), truth[t] == 1)


def test_a_negative_click_corrects_the_mask_that_is_there():
    truth = box_stack(7, (1, 0, 7, 8, 8, 12, 0))
    image, oracle = lit(truth, [100] * 7), StackOracle(truth)
    start, no = click(14, 14), Prompts([[9, 9]], [False])
    first = run(propagate(image, oracle, {3: start}))
    n = len(oracle.decoded)
    prompts = {3: start, 5: no}
    found = run(propagate(image, oracle, prompts, previous=first))
    assert found.slices[5].state == "prompted"
    mask = found.mask(5, SHAPE)
    assert not mask[9, 9]
    assert mask[14:20, 14:20].all()
    assert not mask[truth[5] == 0].any()
    # slice 5 itself, 4 from both sides, 6 beyond
    assert len(oracle.decoded) - n == 4
    for z in (0, 1, 2, 3):
        assert found.slices[z] is first.slices[z]
    again = run(propagate(image, oracle, prompts, previous=found))
    assert len(oracle.decoded) - n == 4
    np.testing.assert_array_equal(again.mask(5, SHAPE), mask)
    # a mask that does not hold the point needs no correction
    off = {3: start, 5: Prompts([[2, 2]], [False])}
    assert run(propagate(image, oracle, off, previous=first)).slices[5].state == (
        "computed"
    )
