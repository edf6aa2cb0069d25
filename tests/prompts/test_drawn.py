"""Points and shapes that napari has saved."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from napari_sam.errors import FormatError, InputError
from napari_sam.prompts.drawn import Drawn, is_drawn, read_drawn, write_drawn

if TYPE_CHECKING:
    from pathlib import Path

# Written by napari 0.9.2: a Points layer with the feature `positive`, of a stack, and
# a Shapes layer with a rectangle and a line.
POINTS = """index,axis-0,axis-1,axis-2,positive
0.0,4.0,10.0,20.5,1.0
1.0,4.0,12.0,22.0,0.0
"""
SHAPES = """index,shape-type,vertex-index,axis-0,axis-1
0,rectangle,0,1.0,2.0
0,rectangle,1,1.0,8.0
0,rectangle,2,5.0,8.0
0,rectangle,3,5.0,2.0
1,path,0,7.0,7.0
1,path,1,9.0,9.5
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "layer.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_points_keep_their_places_and_kinds(tmp_path: Path) -> None:
    path = written(tmp_path, POINTS)
    assert is_drawn(path)
    found = read_drawn(path)
    assert found.kinds == ("point", "point")
    np.testing.assert_array_equal(
        np.concatenate(found.corners), [[4, 10, 20.5], [4, 12, 22]]
    )
    assert found.positive == (True, False)
    assert found.objects is None


def test_words_and_objects_count_too(tmp_path: Path) -> None:
    text = "index,axis-0,axis-1,positive,object\n0,1,2,True,3\n1,4,5,False,7\n"
    found = read_drawn(written(tmp_path, text))
    assert found.positive == (True, False)
    assert found.objects == (3, 7)


def test_corners_of_a_shape_belong_together(tmp_path: Path) -> None:
    path = written(tmp_path, SHAPES)
    assert is_drawn(path)
    found = read_drawn(path)
    assert found.kinds == ("rectangle", "path")
    np.testing.assert_array_equal(found.corners[0], [[1, 2], [1, 8], [5, 8], [5, 2]])
    np.testing.assert_array_equal(found.corners[1], [[7, 7], [9, 9.5]])


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("index,axis-0,axis-1\n0,1,2\n1,a,2\n", "line 3: axis-0 'a'"),
        ("index,axis-0,axis-1\n0,1,nan\n", "line 2: axis-1 'nan'"),
        ("index,axis-0\n0,1\n", "expected index, axis-0, axis-1"),
        ("index,axis-0,axis-1,object\n0,1,2,\n", "line 2: object ''"),
    ],
)
def test_what_cannot_be_understood_is_named(
    tmp_path: Path, text: str, what: str
) -> None:
    with pytest.raises(FormatError, match=what):
        read_drawn(written(tmp_path, text))


def test_a_table_of_ours_is_another_format(tmp_path: Path) -> None:
    assert not is_drawn(written(tmp_path, "object,y,x,positive\n1,2,3,1\n"))
    assert not is_drawn(tmp_path / "regions.zip")


def test_what_is_written_comes_back(tmp_path: Path) -> None:
    at = np.array([[1.5, 2.0], [1.5, 8.0], [5.0, 8.0]])
    drawn = Drawn(
        ("point", "polygon", "point", "path"),
        (at[:1], at, at[1:2], at[:2]),
        positive=(True, True, False, True),
        objects=(3, 3, 4, 5),
    )
    with pytest.raises(InputError, match="4 points and shapes"):
        write_drawn(drawn, tmp_path / "both.csv")

    path = tmp_path / "points.csv"
    write_drawn(drawn.of_kinds(points=True), path)
    found = read_drawn(path)
    np.testing.assert_array_equal(np.concatenate(found.corners), at[:2])
    assert (found.positive, found.objects) == ((True, False), (3, 4))

    path = tmp_path / "shapes.csv"
    write_drawn(drawn.of_kinds(points=False), path)
    found = read_drawn(path)
    assert found.kinds == ("polygon", "path")
    for mine, wanted in zip(found.corners, (at, at[:2]), strict=True):
        np.testing.assert_array_equal(mine, wanted)
