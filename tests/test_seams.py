"""Objects on borders between crops, against known geometry."""

import numpy as np

from napari_sam.masks import Candidate
from napari_sam.stitch import Views, find_seams, stitch
from napari_sam.tiling import Box, CropGrid


def test_objects_on_seams_are_listed_the_doubtful_first():
    grid = CropGrid((24, 40), size=24, halo=4, scale=1.0)
    assert (grid[0].core, grid[1].core) == (Box(0, 0, 24, 20), Box(0, 20, 24, 40))
    seen = [
        (0, (2, 16, 6, 24)),  # agrees with the next
        (1, (2, 16, 6, 24)),
        (0, (10, 14, 14, 22)),  # 24 px in the overlap, the next says 32
        (1, (10, 16, 14, 24)),
        (0, (18, 17, 22, 23)),  # nobody confirms it
        (0, (18, 2, 22, 20)),  # ends where the core ends
        (1, (2, 30, 6, 34)),  # far from the seam
    ]
    views = {}
    for crop in (0, 1):
        boxes = [Box(*box) for index, box in seen if index == crop]
        found = [Candidate(box, np.ones(box.shape, bool), crop=crop) for box in boxes]
        views[crop] = Views.of(crop, found)
    painting = stitch(views, grid)
    table = find_seams(painting, grid, first_id=5)
    labels = painting.labels(first_id=5)
    boxes = [(18, 17, 22, 23), (10, 14, 14, 24), (2, 16, 6, 24)]
    sides = [table[name].tolist() for name in ("y0", "x0", "y1", "x1")]
    found = list(zip(*sides, strict=True))
    assert found[0] == boxes[0]
    assert found[2] == boxes[2]
    assert table["agreement"].tolist() == [0.0, 24 / 32, 1.0]
    assert table["n_views"].tolist() == [1, 2, 2]
    assert (table["x"] == 19.5).all()
    assert table["y"].tolist() == [19.5, 11.5, 3.5]
    for number, (y0, x0, _, _) in zip(table["object"], found, strict=True):
        assert labels[y0, x0] == number


def test_one_crop_has_no_seams():
    grid = CropGrid((20, 20), size=20, halo=4, scale=1.0)
    candidate = Candidate(Box(1, 1, 9, 9), np.ones((8, 8), bool))
    table = find_seams(stitch({0: Views.of(0, [candidate])}, grid), grid)
    assert len(table["object"]) == 0
