"""Objects come out whole, wherever crops end; `BrightSam` answers from brightness."""

from dataclasses import replace

import numpy as np
import pytest
from skimage.draw import disk, ellipse, polygon

from napari_sam.cache import EmbeddingCache
from napari_sam.engine.complete import better_crop, complete, complete_many
from napari_sam.engine.jobs import run
from napari_sam.masks import mask_iou
from napari_sam.prompts import Prompts
from napari_sam.tiling import Box
from tests.engine.bright import SIZE, predictor_of

SHAPE = (420, 500)


def image_of(mask):
    return np.where(mask, 220, 20).astype(np.uint8)


def drawn(*shapes):
    mask = np.zeros(SHAPE, bool)
    for rows, columns in shapes:
        mask[rows, columns] = True
    return mask


def finished(predictor, prompts):
    return run(complete(predictor, prompts, predictor.predict(prompts)))


# cores of 96 px: (208, 208) is where the cores of four crops meet
FOUR_CORNERS = drawn(disk((208, 208), 60))
LARGE = drawn(ellipse(210, 250, 190, 220))
LONG = drawn((slice(200, 240), slice(20, 480)))
BENT = drawn((slice(40, 380), slice(60, 110)), (slice(330, 380), slice(60, 450)))
RING = drawn(disk((210, 240), 180)) & ~drawn(disk((210, 240), 120))


@pytest.mark.parametrize(
    ("truth", "point", "at_least"),
    [
        (FOUR_CORNERS, (205, 205), 0.97),
        (FOUR_CORNERS, (175, 240), 0.97),
        (LARGE, (210, 250), 0.97),
        (LARGE, (40, 250), 0.97),
        (LONG, (212, 30), 0.85),  # 40 px wide, in cells of 16 px
        (BENT, (60, 80), 0.9),
        (RING, (60, 240), 0.94),
    ],
    ids=["corner", "corner off centre", "large", "large, edge", "long", "bent", "ring"],
)
def test_an_object_that_crops_cut_comes_out_whole(truth, point, at_least):
    predictor = predictor_of(image_of(truth))
    prompts = Prompts(points=[point])
    quick = predictor.predict(prompts)
    assert mask_iou(quick.plane_mask(SHAPE), truth) < 0.75  # the control
    whole = run(complete(predictor, prompts, quick))
    assert mask_iou(whole.plane_mask(SHAPE), truth) >= at_least
    assert len(whole.masks) == 1
    assert whole.masks[0].any(axis=0).all()
    assert whole.masks[0].any(axis=1).all()  # its box is the smallest


def test_it_is_what_a_crop_around_the_true_object_answers():
    predictor = predictor_of(image_of(LARGE))
    prompts = Prompts(points=[(40, 250)])
    own = predictor.embedding.crop_around(Box(21, 31, 400, 470))
    expected = predictor.predict(prompts, crop=own).plane_mask(SHAPE)
    assert mask_iou(finished(predictor, prompts).plane_mask(SHAPE), expected) >= 0.98


def test_several_points_and_boxes_come_out_whole():
    predictor = predictor_of(image_of(LARGE))
    points = Prompts(points=[(210, 250), (215, 255)])
    assert mask_iou(finished(predictor, points).plane_mask(SHAPE), LARGE) >= 0.97
    # the box is smaller than the object
    box = Prompts(boxes=[180, 220, 260, 300])
    assert mask_iou(finished(predictor, box).plane_mask(SHAPE), LARGE) >= 0.97


def test_prompts_stay_in_view():
    predictor = predictor_of(image_of(FOUR_CORNERS))
    apart = Prompts(points=[(205, 205), (20, 480)])
    found = predictor.predict(apart)
    crop = better_crop(predictor.embedding, apart, found) or found.crop
    assert crop.box.contains(Box(20, 148, 269, 481))


class LazyEllipse:
    """A plane of 7,000 x 5,000 px that is made where it is read."""

    shape, dtype = (7_000, 5_000), np.dtype(np.uint8)
    centre, radii = (3_500, 2_600), (2_500, 1_500)

    def __init__(self):
        self.largest_read = 0

    def __getitem__(self, key):
        y, x = (
            ((np.arange(n, dtype=np.float32)[part] - c) / r) ** 2
            for n, part, c, r in zip(
                self.shape, key, self.centre, self.radii, strict=True
            )
        )
        self.largest_read = max(self.largest_read, y.size * x.size)
        return (y[:, None] < 1 - x) * np.uint8(200) + np.uint8(20)


def test_an_object_of_five_thousand_pixels_in_a_lazy_image():
    image = LazyEllipse()
    predictor = predictor_of(image)
    whole = finished(predictor, Prompts(points=[(2_000, 2_000)]))
    truth = image[0:7_000, 0:5_000] > 100
    assert mask_iou(whole.plane_mask(image.shape), truth) >= 0.98
    cell = 4 / min(whole.crop.scale)
    found = (whole.box.y0, whole.box.x0, whole.box.y1, whole.box.x1)
    assert np.abs(np.subtract(found, (1_001, 1_101, 6_000, 4_100))).max() < cell / 2
    assert predictor.model.n_encoded <= 6


def test_a_wide_view_is_read_in_bands():
    image = LazyEllipse()
    predictor = predictor_of(image)
    crop = predictor.embedding.crop_around(Box(0, 0, *image.shape))
    assert crop.box.shape == image.shape
    predictor.embedding.of(crop)
    assert image.largest_read == SIZE * image.shape[1]


@pytest.mark.parametrize(("stop", "is_near"), [(212, False), (216, True)])
def test_a_mask_that_ends_close_to_a_border_is_looked_at_again(stop, is_near):
    # crops begin at 0, 96, 192; that of the point ends at 224, one cell there is 4 px
    predictor = predictor_of(image_of(drawn((slice(140, 180), slice(130, stop)))))
    prompts = Prompts(points=[(160, 150)])
    found = predictor.predict(prompts)
    assert found.crop.box.x1 == 224
    better = better_crop(predictor.embedding, prompts, found)
    assert (better is not None) == is_near
    if better is not None:
        assert better.box.x1 - stop > 12


def test_an_object_that_is_shown_well_is_left_as_it_is():
    predictor = predictor_of(image_of(drawn(disk((150, 150), 20))))
    prompts = Prompts(points=[(150, 150)])
    quick = predictor.predict(prompts)
    job = complete(predictor, prompts, quick)
    with pytest.raises(StopIteration) as stopped:
        next(job)
    assert stopped.value.value is quick
    assert predictor.model.n_encoded == 1


def test_the_border_of_the_plane_cuts_nothing():
    predictor = predictor_of(image_of(drawn((slice(0, 50), slice(0, 60)))))
    prompts = Prompts(points=[(20, 20)])
    quick = predictor.predict(prompts)
    assert run(complete(predictor, prompts, quick)) is quick


def test_a_plane_of_one_crop_is_never_looked_at_again():
    predictor = predictor_of(np.full((100, 90), 220, np.uint8), scale=None)
    prompts = Prompts(points=[(20, 20)])
    assert run(complete(predictor, prompts, predictor.predict(prompts))).box == Box(
        0, 0, 100, 90
    )
    assert predictor.model.n_encoded == 1


def test_a_small_object_is_looked_at_from_nearer():
    truth = drawn(disk((150, 150), 4))
    predictor = predictor_of(image_of(truth))
    prompts = Prompts(points=[(150, 150)])
    quick = predictor.predict(prompts)
    near = run(complete(predictor, prompts, quick))
    assert near.crop.scale[0] == pytest.approx(4, rel=0.05)
    quick_iou = mask_iou(quick.plane_mask(SHAPE), truth)
    assert mask_iou(near.plane_mask(SHAPE), truth) > max(quick_iou, 0.9)


def test_small_neighbours_share_a_view():
    truth = drawn(*(disk((150 + 12 * i, 150), 4) for i in range(2)))
    predictor = predictor_of(image_of(truth))
    prompts = [Prompts(points=[(150 + 12 * i, 150)]) for i in range(2)]
    quick = predictor.predict_many(prompts)
    found = run(complete_many(predictor, prompts, quick))
    assert found[0].crop == found[1].crop
    assert predictor.model.n_encoded == 2
    assert predictor.model.decoded == [2, 2]


def test_of_three_masks_the_chosen_one_is_finished():
    # half of an object, in a view of a half of the object, has no name: take all
    # that is bright, which the first view shows as the third mask
    truth = drawn(disk((208, 208), 60), disk((208, 290), 15))
    predictor = predictor_of(image_of(truth))
    prompts = Prompts(points=[(205, 205)])
    quick = predictor.predict(prompts)
    assert quick.best == 1
    alone = run(complete(predictor, prompts, quick)).plane_mask(SHAPE)
    assert mask_iou(alone, drawn(disk((208, 208), 60))) >= 0.95
    half = run(complete(predictor, prompts, replace(quick, best=0))).plane_mask(SHAPE)
    assert half.sum() < 0.75 * alone.sum()


def test_specks_do_not_widen_the_view():
    truth = drawn(disk((150, 150), 20), (slice(150, 158), slice(200, 300)))
    predictor = predictor_of(image_of(truth))
    prompts = Prompts(points=[(150, 150)])
    # all that is bright: the disc, and a bar that the border cuts
    quick = replace(predictor.predict(prompts), best=2)
    assert better_crop(predictor.embedding, prompts, quick) is None


def test_better_answers_come_one_by_one_and_can_be_cancelled():
    predictor = predictor_of(image_of(LONG))
    prompts = Prompts(points=[(212, 30)])
    quick = predictor.predict(prompts)
    job = complete(predictor, prompts, quick)
    better = next(job).value[0]
    assert better.masks[0].sum() > quick.masks[quick.best].sum()
    job.close()
    assert predictor.model.n_encoded == 2
    assert run(complete(predictor, prompts, better)).masks.sum() > better.masks.sum()


def test_nothing_is_encoded_twice():
    predictor = predictor_of(image_of(LARGE), cache=EmbeddingCache())
    prompts = Prompts(points=[(40, 250)])
    once = finished(predictor, prompts)
    n_encoded = predictor.model.n_encoded
    again = finished(predictor, prompts)
    assert predictor.model.n_encoded == n_encoded
    np.testing.assert_array_equal(once.masks, again.masks)


def test_an_empty_answer_stays_empty():
    predictor = predictor_of(image_of(FOUR_CORNERS))
    prompts = Prompts(points=[(20, 480)])
    quick = predictor.predict(prompts, multimask=False)
    assert run(complete(predictor, prompts, quick)) is quick


def test_many_objects_are_finished_as_each_alone():
    truth = drawn(disk((208, 208), 60), disk((80, 400), 70), disk((350, 60), 10))
    prompts = [Prompts(points=[p]) for p in [(205, 205), (60, 380), (350, 60)]]
    together = predictor_of(image_of(truth))
    quick = together.predict_many(prompts)
    found = run(complete_many(together, prompts, quick))
    for each, answer in zip(prompts, found, strict=True):
        alone = finished(predictor_of(image_of(truth)), each)
        np.testing.assert_array_equal(answer.plane_mask(SHAPE), alone.plane_mask(SHAPE))


def test_a_star_across_crops():
    angles = np.linspace(0, 2 * np.pi, 20, endpoint=False)
    radii = np.where(np.arange(20) % 2, 170, 90)
    star = drawn(
        polygon(210 + radii * np.sin(angles), 250 + radii * np.cos(angles), SHAPE)
    )
    predictor = predictor_of(image_of(star))
    whole = finished(predictor, Prompts(points=[(210, 250)]))
    assert mask_iou(whole.plane_mask(SHAPE), star) >= 0.93
