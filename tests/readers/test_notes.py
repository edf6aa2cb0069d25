"""Label files keep notes that other programs can read, too."""

from __future__ import annotations

import json

import numpy as np
import pytest
import tifffile
import zarr

from napari_sam.engine.records import ObjectRecord, as_notes, from_notes
from napari_sam.readers.notes import read_notes
from napari_sam.writers.formats import FORMATS
from napari_sam.writers.tiff import save_labels

NOTES = {"objects": {"names": ["Zellkern <ä>", "b & c"], "n": 2}, "more": [1.5, None]}


@pytest.fixture
def labels():
    array = np.zeros((40, 50), np.uint32)
    array[3:9, 4:20] = 2
    return array


@pytest.mark.parametrize(
    ("kind", "name"), [("tiff", "a.labels.tif"), ("ome-zarr", "a.labels.zarr")]
)
def test_notes_come_back(labels, tmp_path, kind, name):
    path = FORMATS[kind].write(labels, tmp_path / name, notes=NOTES, pixel_size_um=0.5)
    assert read_notes(path) == NOTES
    if kind == "tiff":  # as others see it
        np.testing.assert_array_equal(tifffile.imread(path), labels)
        pairs = tifffile.xml2dict(tifffile.TiffFile(path).ome_metadata)["OME"]
        (first, _) = pairs["StructuredAnnotations"]["MapAnnotation"]["Value"]["M"]
        assert json.loads(first["value"]) == NOTES["objects"]
    else:
        assert zarr.open_group(path, mode="r").attrs["napari_sam"] == NOTES


def test_formats_without_a_place_leave_them_out(labels, tmp_path):
    path = FORMATS["geojson"].write(labels, tmp_path / "a.geojson", notes=NOTES)
    assert path.exists()
    assert read_notes(path) == {}


def test_files_without_notes_have_none(labels, tmp_path):
    assert read_notes(save_labels(labels, tmp_path / "plain.tif")) == {}
    tifffile.imwrite(tmp_path / "other.tif", labels)
    assert read_notes(tmp_path / "other.tif") == {}
    assert read_notes(tmp_path / "nothing.tif") == {}
    assert read_notes(tmp_path) == {}


def test_records_as_notes():
    records = [
        ObjectRecord(object_id=n, index=(None, None), points=((1.5, n),))
        for n in (3, 2)
    ]
    assert from_notes(json.loads(json.dumps(as_notes(records)))) == {
        each.object_id: each for each in records
    }
    assert as_notes([]) == {}
    assert from_notes({}) == {}
    assert from_notes({"objects": {"objects": "nonsense"}}) == {}
