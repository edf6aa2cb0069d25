"""Measurements against shapes whose size is known, and the table as CSV."""

from __future__ import annotations

import csv
import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from skimage.draw import disk, ellipse

from napari_sam.errors import FileError, InputError
from napari_sam.writers.measurements import columns_of, measure, save_measurements

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

IDS = {"rectangle": 7, "disk": 2**32 - 1, "ellipse": 12, "pixel": 3}


@pytest.fixture
def labels() -> NDArray[np.uint32]:
    """Shapes of known size, with ids that are far apart."""
    labels = np.zeros((200, 300), np.uint32)
    labels[10:30, 20:80] = IDS["rectangle"]
    labels[disk((100, 60), 30)] = IDS["disk"]
    labels[ellipse(120, 200, 40, 20)] = IDS["ellipse"]
    labels[199, 299] = IDS["pixel"]
    return labels


def row(table: dict[str, NDArray[Any]], name: str) -> dict[str, Any]:
    at = table["object"].tolist().index(IDS[name])
    return {column: values[at].item() for column, values in table.items()}


def test_measures_place_size_and_shape(labels: NDArray[np.uint32]) -> None:
    table = measure(labels)
    assert table["object"].tolist() == [3, 7, 12, 2**32 - 1]
    rectangle = row(table, "rectangle")
    assert [rectangle[c] for c in ("y", "x", "area")] == [19.5, 49.5, 1200]
    assert [rectangle[c] for c in ("y0", "x0", "y1", "x1")] == [10, 20, 30, 80]
    assert rectangle["solidity"] == 1
    # a rectangle has the second moments of an ellipse with axes 2 / sqrt(3) longer
    assert rectangle["major_axis"] == pytest.approx(60 * 2 / math.sqrt(3), rel=2e-3)
    assert rectangle["minor_axis"] == pytest.approx(20 * 2 / math.sqrt(3), rel=2e-3)
    round_one, oval = row(table, "disk"), row(table, "ellipse")
    assert round_one["equivalent_diameter"] == pytest.approx(60, rel=0.02)
    assert round_one["perimeter"] == pytest.approx(60 * math.pi, rel=0.05)
    assert round_one["eccentricity"] == pytest.approx(0, abs=0.1)
    assert oval["eccentricity"] == pytest.approx(math.sqrt(1 - 0.25), abs=0.01)
    assert row(table, "pixel")["area"] == 1


def test_adds_micrometres(labels: NDArray[np.uint32]) -> None:
    table = measure(labels, pixel_size_um=0.5)
    rectangle = row(table, "rectangle")
    assert rectangle["area_um2"] == 300
    for name in ("equivalent_diameter", "major_axis", "minor_axis", "perimeter"):
        assert rectangle[f"{name}_um"] == rectangle[name] / 2
    oblong = measure(labels, pixel_size_um=(2.0, 0.5, 0.25))
    assert row(oblong, "rectangle")["area_um2"] == 150
    assert "perimeter_um" not in oblong


def test_measures_each_channel(labels: NDArray[np.uint32]) -> None:
    image = np.random.default_rng(0).normal(100, 9, (*labels.shape, 2))
    table = measure(labels, image, channel_names=["DAPI", "GFP"])
    inside = image[labels == IDS["disk"]]
    found = row(table, "disk")
    for c, name in enumerate(("DAPI", "GFP")):
        expected = [f(inside[:, c]) for f in (np.mean, np.min, np.max, np.std)]
        actual = [found[f"intensity_{f}_{name}"] for f in ("mean", "min", "max", "std")]
        assert actual == pytest.approx(expected)
    assert "intensity_mean_1" in measure(labels, image)
    gray = measure(labels, image[..., 0].astype(np.uint16))
    assert row(gray, "pixel")["intensity_std"] == 0
    assert row(gray, "pixel")["intensity_mean"] == int(image[199, 299, 0])


def test_adds_columns_by_object_id(labels: NDArray[np.uint32]) -> None:
    table = measure(labels)
    table |= columns_of({"predicted_iou": {7: 0.9, 12: 0.8}}, table["object"])
    assert row(table, "rectangle")["predicted_iou"] == 0.9
    assert math.isnan(row(table, "disk")["predicted_iou"])


def test_a_mask_is_one_object(labels: NDArray[np.uint32]) -> None:
    table = measure(labels > 0)
    assert table["object"].tolist() == [1]
    assert table["area"].tolist() == [np.count_nonzero(labels)]


def test_a_plane_without_objects_gives_empty_columns(tmp_path: Path) -> None:
    table = measure(np.zeros((5, 6), int), np.zeros((5, 6)), pixel_size_um=1)
    assert {len(column) for column in table.values()} == {0}
    path = save_measurements(table, tmp_path / "a.csv")
    assert path.read_text().strip() == ",".join(table)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.zeros((2, 3, 4), int),), "the integers of one plane"),
        ((np.zeros((3, 4)),), "float64"),
        ((np.zeros((0, 4), int),), "one plane"),
        ((np.array([[-2, 0]]),), "object id -2"),
        ((np.ones((3, 4), int), np.ones((4, 3))), "the same plane of both"),
    ],
)
def test_refuses_what_does_not_fit(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        measure(*arguments)
    with pytest.raises(InputError, match="1 channel names for 2 channels"):
        measure(np.ones((3, 4), int), np.ones((3, 4, 2)), channel_names=["a"])


def test_saves_csv(labels: NDArray[np.uint32], tmp_path: Path) -> None:
    table = measure(labels, pixel_size_um=0.1)
    table |= columns_of({"stability": {7: 1 / 3}}, table["object"])
    path = save_measurements(table, tmp_path / "größe 1.csv")
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == list(table)
    assert [r["object"] for r in rows] == ["3", "7", "12", "4294967295"]
    assert [r["stability"] for r in rows] == ["", "0.333333", "", ""]
    for i, read in enumerate(rows):
        for name, text in read.items():
            expected = table[name][i]
            if not math.isnan(expected):
                assert float(text) == pytest.approx(expected, rel=1e-5)
    with pytest.raises(FileError, match="exists already"):
        save_measurements(table, path)


def test_refuses_uneven_columns_and_another_ending(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"\{'a': 2, 'b': 1\}; give one value per"):
        save_measurements({"a": [1, 2], "b": [1]}, tmp_path / "a.csv")
    with pytest.raises(InputError, match=r"a\.txt; give a name that ends in \.csv"):
        save_measurements({"a": [1, 2]}, tmp_path / "a.txt")
    assert list(tmp_path.iterdir()) == []
