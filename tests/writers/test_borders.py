"""Outlines along the borders of pixels, rasterised again by shapely."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.testing import assert_array_equal
from scipy import ndimage

from napari_sam.writers.borders import trace
from tests.writers.polygons import paint

few = arrays(
    np.uint8,
    array_shapes(min_dims=2, max_dims=2, max_side=9),
    elements=st.integers(0, 3),
)


def shapes(labels: Any, y0: int = 0, x0: int = 0) -> list[shapely.MultiPolygon]:
    """Outlines as shapely has them, in (x, y)."""
    return [
        shapely.MultiPolygon(
            [
                shapely.Polygon(outer[:, ::-1], [hole[:, ::-1] for hole in holes])
                for outer, *holes in polygons
            ]
        )
        for polygons in trace(labels, y0, x0)
    ]


@given(few)
def test_outlines_hold_exactly_the_pixels_of_their_object(labels: Any) -> None:
    back = np.zeros_like(labels)
    for number, shape in enumerate(shapes(labels), start=1):
        if (labels == number).any():
            assert shape.is_valid, shapely.is_valid_reason(shape)
            assert len(shape.geoms) == ndimage.label(labels == number)[1]
            assert shape.area == np.count_nonzero(labels == number)
            paint(back, shape, number)
        else:
            assert shape.is_empty
    assert_array_equal(back, labels)


@given(few)
def test_corners_are_turns_and_rings_run_as_promised(labels: Any) -> None:
    for polygons in trace(labels):
        for polygon in polygons:
            for i, ring in enumerate(polygon):
                steps = np.diff(ring, axis=0, append=ring[:1])
                assert ((steps != 0).sum(axis=1) == 1).all()
                lies_down = steps[:, 0] == 0
                assert (lies_down != np.roll(lies_down, 1)).all()
                # in (x, y) with y down, what looks clockwise has a positive area
                is_clockwise = shapely.LinearRing(ring[:, ::-1]).is_ccw
                assert is_clockwise == (i == 0)


def test_outlines_are_those_of_the_plane(scene: Any) -> None:
    numbers = np.where(scene == 7, 1, np.where(scene == 5, 2, 0))
    ring, pieces = shapes(numbers[5:, 9:], 5, 9)
    back = np.zeros(scene.shape, int)
    paint(back, ring, 1)
    paint(back, pieces, 2)
    assert_array_equal(back, numbers)
    assert len(ring.geoms[0].interiors) == 1
    assert len(pieces.geoms) == 3


def test_a_hole_that_touches_the_outside_at_a_corner_is_a_hole() -> None:
    (shape,) = shapes(np.array([[1, 1, 1], [1, 0, 1], [1, 1, 0]]))
    assert shape.is_valid
    assert shape.area == 7
    assert len(shape.geoms[0].interiors) == 1


@pytest.mark.parametrize("labels", [np.zeros((4, 5), int), np.zeros((0, 3), int)])
def test_without_objects_there_are_no_outlines(labels: Any) -> None:
    assert trace(labels) == []
