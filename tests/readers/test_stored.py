"""Names of axes, sizes of levels and units of length, as files write them."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

import numpy as np
import pytest

from napari_sam.errors import FileError, FormatError, InputError
from napari_sam.readers.stored import (
    FileArray,
    known_axes,
    level_sizes_um,
    micrometres,
)

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("axes", "shape", "expected"),
    [
        ("TCYX", (2, 3, 9, 8), "TCYX"),
        ("QYX", (2, 9, 8), "ZYX"),
        ("QZYX", (2, 3, 9, 8), "TZYX"),
        ("?YX", (2, 9, 8), "ZYX"),
        ("???", (2, 9, 8), "ZYX"),
    ],
)
def test_an_axis_of_another_kind_becomes_z_or_time(
    axes: str, shape: tuple[int, ...], expected: str
) -> None:
    assert known_axes(axes, shape, "a") == expected


@pytest.mark.parametrize("axes", ["QRYX", "TZQYX"])
def test_asks_when_axes_are_ambiguous(axes: str) -> None:
    with pytest.raises(InputError, match=r"axes of a, of shape .* give one letter"):
        known_axes(axes, (2,) * len(axes), "a")


def test_levels_have_whole_factors_where_rounding_explains_them() -> None:
    shapes = [(1001, 999), (500, 500), (250, 249), (125, 125)]
    sizes = level_sizes_um("YX", shapes, (1.0, 1.0))
    assert sizes == ((1, 1), (2, 2), (4, 4), (8, 8))
    assert level_sizes_um("YX", [(300, 300), (200, 200)], (1.0, 1.0))[1] == (1.5, 1.5)
    assert level_sizes_um("YX", shapes, None) == ()


@pytest.mark.parametrize(
    ("value", "unit", "expected"),
    [
        (0.5, None, 0.5),
        ("250", "nm", 0.25),
        (2, "nanometers", 0.002),
        (1, "\N{GREEK SMALL LETTER MU}m", 1),
        (1, "\N{MICRO SIGN}m", 1),
        (1, "\\u00B5m", 1),
        (1, "Micrometre", 1),
        (1, "microns", 1),
        (3, "mm", 3000),
        (3, "millimeter", 3000),
        (1, "m", 1e6),
        (1, "inch", 25_400),
        (2, "Å", 2e-4),
        (1, "pixel", None),
        (0, "um", None),
        (-1, "um", None),
        ("nan", "um", None),
        (None, "um", None),
        ("wide", "um", None),
    ],
)
def test_converts_lengths(
    value: object, unit: str | None, expected: float | None
) -> None:
    length = micrometres(value, unit)
    assert length == (None if expected is None else pytest.approx(expected))


def test_damage_and_a_share_that_is_gone_are_told_apart(tmp_path: Path) -> None:
    class Array:
        shape, dtype = (4, 4), np.dtype(np.uint8)

        def __init__(self, error: Exception) -> None:
            self.error = error

        def __getitem__(self, index):
            raise self.error

    for error, kind in [
        (OSError(errno.EIO, "Input/output error"), FileError),
        (OSError("broken data stream"), FormatError),  # as Pillow has it
        (ValueError("bad checksum"), FormatError),
    ]:
        with pytest.raises(kind) as raised:
            FileArray(Array(error), tmp_path / "a.tif")[0]
        assert isinstance(raised.value, FileError) == (kind is FileError)
