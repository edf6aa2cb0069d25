"""Objects get a size at which the network sees them well, and people are told why."""

import pytest

from napari_sam.errors import InputError
from napari_sam.tiling import TARGET_DIAMETER, CropGrid, advise_scale


@pytest.mark.parametrize("diameter", [10, 12, 15, 19])
def test_small_objects_of_a_large_plane_are_enlarged(diameter):
    advice = advise_scale((3000, 2000), diameter)
    assert advice.scale * diameter == pytest.approx(TARGET_DIAMETER)
    assert advice.n_crops == len(CropGrid((3000, 2000), scale=advice.scale))
    assert f"{advice.n_crops} instead of {len(CropGrid((3000, 2000)))}" in advice.why


def test_no_more_than_four_times():
    assert advise_scale((3000, 2000), 3).scale == 4


def test_large_objects_are_made_smaller_but_keep_their_details():
    advice = advise_scale((9000, 9000), 900)
    assert 2 * TARGET_DIAMETER <= advice.scale * 900 <= 6 * TARGET_DIAMETER
    assert advice.n_crops < len(CropGrid((9000, 9000)))


@pytest.mark.parametrize(
    ("shape", "diameter"),
    [((3000, 2000), 40), ((3000, 2000), 100), ((512, 512), 12), ((256, 256), 3)],
)
def test_what_is_good_or_cannot_be_better_stays(shape, diameter):
    """A plane of 512 px is enlarged twice by itself, one of 256 px four times."""
    advice = advise_scale(shape, diameter)
    assert advice.scale is None
    assert advice.n_crops == len(CropGrid(shape)) or shape[0] > 1024
    assert "nothing" in advice.why


@pytest.mark.parametrize("diameter", [0, -3, float("nan"), float("inf")])
def test_nonsense_is_refused(diameter):
    with pytest.raises(InputError, match="above 0"):
        advise_scale((100, 100), diameter)
