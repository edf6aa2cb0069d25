"""GeoJSON read back with shapely, and the fields that QuPath looks for."""

from __future__ import annotations

import json
import uuid
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import shapely
from numpy.testing import assert_array_equal

from napari_sam.errors import FileError, InputError
from napari_sam.writers.geojson import save_geojson
from napari_sam.writers.measurements import measure
from tests.writers.polygons import paint

if TYPE_CHECKING:
    from pathlib import Path


def features(path: Path) -> list[dict[str, Any]]:
    collection = json.loads(path.read_text("utf-8"))
    assert collection["type"] == "FeatureCollection"
    found: list[dict[str, Any]] = collection["features"]
    assert all(feature["type"] == "Feature" for feature in found)
    return found


@pytest.mark.usefixtures("small_windows")
def test_a_plane_comes_back_exactly(tmp_path: Path, scene: Any) -> None:
    found = features(save_geojson(scene, tmp_path / "a.geojson"))
    back = np.zeros_like(scene)
    for feature in found:
        shape = shapely.from_geojson(json.dumps(feature["geometry"]))
        assert shape.is_valid, shapely.is_valid_reason(shape)
        paint(back, shape, feature["properties"]["object_id"])
    assert_array_equal(back, scene)
    assert len(found) == len(np.unique(scene)) - 1


def test_rings_are_closed_and_turn_as_the_rfc_wants(tmp_path: Path, scene: Any) -> None:
    for feature in features(save_geojson(scene, tmp_path / "a.geojson")):
        geometry = feature["geometry"]
        polygons = geometry["coordinates"]
        for rings in [polygons] if geometry["type"] == "Polygon" else polygons:
            assert all(ring[0] == ring[-1] for ring in rings)
            assert [shapely.LinearRing(ring).is_ccw for ring in rings] == [
                i == 0 for i in range(len(rings))
            ]


def test_a_feature_has_what_qupath_reads(tmp_path: Path) -> None:
    labels = np.zeros((9, 9), np.uint32)
    labels[2:5, 3:7] = 4
    (feature,) = features(save_geojson(labels, tmp_path / "a.json"))
    assert feature["geometry"] == {
        "type": "Polygon",
        "coordinates": [[[7, 2], [7, 5], [3, 5], [3, 2], [7, 2]]],
        "plane": {"c": -1, "z": 0, "t": 0},
    }
    properties = feature["properties"]
    assert (properties["objectType"], properties["name"]) == ("detection", "4")
    assert properties["classification"]["name"] == "object"
    assert str(uuid.UUID(feature["id"])) == feature["id"]


@pytest.mark.usefixtures("small_windows")
def test_measurements_are_those_of_the_table(tmp_path: Path, scene: Any) -> None:
    image = np.random.default_rng(0).normal(100, 9, scene.shape)
    path = save_geojson(scene, tmp_path / "a.geojson", pixel_size_um=0.5, image=image)
    table = measure(scene, image, pixel_size_um=0.5)
    rows = {number: i for i, number in enumerate(table["object"].tolist())}
    for feature in features(path):
        row = rows[feature["properties"]["object_id"]]
        expected = {name: column[row] for name, column in table.items()}
        del expected["object"]
        assert feature["properties"]["measurements"] == pytest.approx(expected)


def test_objects_of_a_stack_stand_in_their_plane(tmp_path: Path, scene: Any) -> None:
    stack = np.zeros((2, 3, *scene.shape), np.uint32)
    stack[1, 2], stack[0, 1] = scene, scene[::-1]
    found = features(save_geojson(stack, tmp_path / "a.geojson"))
    back = np.zeros_like(stack)
    for feature in found:
        plane = feature["geometry"]["plane"]
        shape = shapely.from_geojson(json.dumps(feature["geometry"]))
        paint(back[plane["t"], plane["z"]], shape, feature["properties"]["object_id"])
    assert_array_equal(back, stack)
    assert len({feature["id"] for feature in found}) == len(found)


def test_no_objects_are_an_empty_collection(tmp_path: Path) -> None:
    path = save_geojson(np.zeros((5, 6), int), tmp_path / "a.geojson")
    assert features(path) == []


def test_refuses_another_ending_and_a_taken_name(tmp_path: Path, scene: Any) -> None:
    with pytest.raises(InputError, match=r"ends in \.geojson or \.json"):
        save_geojson(scene, tmp_path / "a.txt")
    path = save_geojson(scene, tmp_path / "a.geojson")
    before = path.read_bytes()
    with pytest.raises(FileError, match="exists already"):
        save_geojson(scene * 0, path)
    assert path.read_bytes() == before
    save_geojson(scene * 0, path, overwrite=True)
    assert features(path) == []
