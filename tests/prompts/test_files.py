"""Prompts from files of other programs, and from labels."""

from __future__ import annotations

import json

import numpy as np
import pytest
import roifile  # noqa: TID253 - of the test group
from skimage.draw import disk

from napari_sam.errors import (
    FileError,
    FormatError,
    InputError,
    MissingFileError,
    NapariSamWarning,
)
from napari_sam.prompts import prompts_from_labels, read_prompts
from napari_sam.prompts.imagej import labels_from_rois
from napari_sam.prompts.regions import deepest_pixel, prompts_from_outline

SQUARE = [[10, 20], [40, 20], [40, 60], [10, 60], [10, 20]]  # x, y
NOTCHED = [[0, 0], [90, 0], [90, 10], [10, 10], [10, 90], [0, 90]]  # x, y; an L


def feature(kind, coordinates, **properties):
    geometry = {"type": kind, "coordinates": coordinates}
    return {"type": "Feature", "geometry": geometry, "properties": properties}


@pytest.fixture
def geojson(tmp_path):
    def write(content):
        path = tmp_path / "cells.geojson"
        path.write_text(json.dumps(content))
        return path

    return write


class TestGeoJson:
    def test_a_polygon_is_a_box_and_a_point_inside(self, geojson):
        (found,) = read_prompts(geojson([feature("Polygon", [SQUARE])]))
        assert found.boxes.tolist() == [[20, 10, 60, 40]]
        y, x = found.points[0]
        assert abs(y - 39.5) <= 5  # rows 20 to 59: a bar is met in its middle
        assert abs(x - 24.5) <= 0.5
        assert found.object_id == 1

    def test_the_point_lies_inside_even_where_the_middle_does_not(self, geojson):
        (found,) = read_prompts(geojson([feature("Polygon", [NOTCHED])]))
        y, x = found.points[0] + 0.5
        assert (y < 10) or (x < 10)
        assert min(y, x) > 3

    def test_a_hole_is_no_inside(self, geojson):
        hole = [[15, 25], [35, 25], [35, 55], [15, 55]]
        (found,) = read_prompts(geojson([feature("Polygon", [SQUARE, hole])]))
        y, x = found.points[0] + 0.5
        assert 10 < x < 40
        assert 20 < y < 60
        assert not (15 < x < 35 and 25 < y < 55)

    def test_the_centre_of_the_first_pixel_is_one_half(self, geojson):
        points = [feature("Point", [0.5, 0.5]), feature("MultiPoint", [[7, 3], [2, 9]])]
        found = read_prompts(geojson({"type": "FeatureCollection", "features": points}))
        assert [each.points.tolist() for each in found] == [
            [[0, 0]],
            [[2.5, 6.5]],
            [[8.5, 1.5]],
        ]

    def test_features_of_one_object_are_joined(self, geojson):
        content = [
            feature("Polygon", [SQUARE], object_id=7),
            feature("Point", [99.5, 9.5], object_id=7, positive=False),
            feature("Point", [5.5, 6.5], object_id=3),
        ]
        seven, three = read_prompts(geojson(content))
        assert (seven.object_id, three.object_id) == (7, 3)
        assert seven.has_box
        assert seven.positive.tolist() == [True, False]
        assert seven.points[1].tolist() == [9, 99]

    def test_features_without_a_number_are_objects_of_their_own(self, geojson):
        content = [
            feature("Point", [1.5, 1.5]),
            feature("Point", [3.5, 3.5], object_id=1),
            feature("MultiPoint", [[5.5, 5.5], [7.5, 7.5]]),
            feature("Point", [9.5, 9.5], object_id=3),
        ]
        found = read_prompts(geojson(content))
        assert [each.object_id for each in found] == [2, 1, 4, 5, 3]
        assert [each.points[0, 0] for each in found] == [1, 3, 5, 7, 9]

    def test_micrometres_are_divided_by_the_pixel_size(self, geojson):
        path = geojson([feature("Polygon", [SQUARE]), feature("Point", [10, 10])])
        area, point = read_prompts(path, pixel_size_um=(0.5, 0.25))
        assert area.boxes.tolist() == [[40, 40, 120, 160]]
        assert point.points.tolist() == [[19.5, 39.5]]

    def test_a_geometry_alone_and_several_parts(self, geojson):
        two = [[SQUARE], [[[100, 100], [110, 100], [110, 110], [100, 110]]]]
        (found,) = read_prompts(geojson({"type": "MultiPolygon", "coordinates": two}))
        assert found.boxes.tolist() == [[20, 10, 110, 110]]

    def test_lines_are_left_out_and_counted(self, geojson):
        path = geojson(
            [feature("LineString", [[0, 0], [5, 5]]), feature("Point", [1, 1])]
        )
        with pytest.warns(NapariSamWarning, match="1 features"):
            assert len(read_prompts(path)) == 1

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            ({"a": 1}, "no GeoJSON"),
            ({"type": "Feature", "geometry": [1, 2]}, r"geometry .* is \[1, 2\]"),
            (
                [{"type": "Feature", "geometry": None, "properties": "x"}],
                'properties .* is "x"',
            ),
            ([feature("Polygon", [[[0, 0], [0, 5]]])], "feature 1: .*without an area"),
            ([feature("Point", ["a", 1])], "feature 1"),
            ([{"type": "Point"}], "feature 1 has no 'coordinates'"),
            ([feature("Polygon", [SQUARE], object_id=1)] * 2, "second polygon"),
        ],
    )
    def test_refuses(self, geojson, content, message):
        with pytest.raises(FormatError, match=message):
            read_prompts(geojson(content))

    def test_refuses_what_is_no_json(self, tmp_path):
        path = tmp_path / "a.geojson"
        path.write_text("y,x\n1,2\n")
        with pytest.raises(FormatError, match="no JSON"):
            read_prompts(path)


class TestImagej:
    def write(self, path, *regions):
        roifile.roiwrite(path, list(regions), mode="w")
        return path

    def region(self, kind, corners, name="", **changes):
        made = roifile.ImagejRoi.frompoints(np.array(corners, np.float32), name=name)
        made.roitype = kind
        for key, value in changes.items():
            setattr(made, key, value)
        return made

    def test_outlines_and_points(self, tmp_path):
        kinds = roifile.ROI_TYPE
        path = self.write(
            tmp_path / "set.zip",
            self.region(kinds.FREEHAND, SQUARE[:4], "12"),
            self.region(kinds.POINT, [[5, 6]], "4"),
        )
        area, point = read_prompts(path)
        assert area.boxes.tolist() == [[20, 10, 60, 40]]
        assert area.points[0].tolist() == pytest.approx([39.5, 24.5], abs=5)
        assert point.points.tolist() == [[6, 5]]
        assert (area.object_id, point.object_id) == (12, 4)

    def test_each_point_of_a_selection_is_an_object(self, tmp_path):
        many = self.region(roifile.ROI_TYPE.POINT, [[5.5, 6.5], [8, 9], [1, 2]], "a")
        found = read_prompts(self.write(tmp_path / "points.zip", many))
        assert [each.points[0].tolist() for each in found] == [[6, 5], [9, 8], [2, 1]]
        assert [each.object_id for each in found] == [1, 2, 3]

    def test_a_rectangle_is_a_box_and_an_oval_has_a_middle(self, tmp_path):
        edges = {"top": 20, "left": 10, "bottom": 60, "right": 40}
        corners = [[10, 20], [40, 60]]
        kinds = roifile.ROI_TYPE
        path = self.write(
            tmp_path / "two.zip",
            self.region(kinds.RECT, corners, "a", **edges),
            self.region(kinds.OVAL, corners, "b", **edges),
        )
        rectangle, oval = read_prompts(path)
        assert rectangle.boxes.tolist() == oval.boxes.tolist() == [[20, 10, 60, 40]]
        assert rectangle.n_points == 0
        assert oval.points.tolist() == [[39.5, 24.5]]

    def test_a_single_file(self, tmp_path):
        path = tmp_path / "one.roi"
        self.region(roifile.ROI_TYPE.POLYGON, SQUARE[:4]).tofile(path)
        (found,) = read_prompts(path)
        assert found.boxes.tolist() == [[20, 10, 60, 40]]

    def test_what_we_export_comes_back(self, tmp_path):
        from napari_sam.writers.imagej import save_imagej_rois

        labels = np.zeros((90, 80), np.uint32)
        labels[disk((30, 40), 12)] = 7
        labels[disk((70, 20), 9)] = 3
        save_imagej_rois(labels, tmp_path / "labels.zip")
        found = {p.object_id: p for p in read_prompts(tmp_path / "labels.zip")}
        assert set(found) == {3, 7}
        for expected in prompts_from_labels(labels, "both"):
            ours = found[expected.object_id]
            assert ours.boxes.tolist() == expected.boxes.tolist()
            assert np.abs(ours.points - expected.points).max() <= 1

    def test_lines_are_left_out_and_counted(self, tmp_path):
        kinds = roifile.ROI_TYPE
        path = self.write(
            tmp_path / "set.zip",
            self.region(kinds.POLYLINE, SQUARE[:3], "a"),
            self.region(kinds.POINT, [[5, 6]], "b"),
        )
        with pytest.warns(NapariSamWarning, match="1 regions"):
            assert len(read_prompts(path)) == 1

    def test_areas_are_filled_as_labels(self, tmp_path):
        kinds = roifile.ROI_TYPE
        edges = {"top": 60, "left": 50, "bottom": 80, "right": 110}
        path = self.write(
            tmp_path / "set.zip",
            self.region(kinds.POLYGON, SQUARE[:4]),
            roifile.ImagejRoi(roitype=kinds.RECT, top=50, left=30, bottom=70, right=45),
            roifile.ImagejRoi(roitype=kinds.OVAL, **edges),  # half of it outside
            self.region(kinds.POINT, [[5, 6]]),
        )
        with pytest.warns(NapariSamWarning, match="1 regions"):
            labels = labels_from_rois(path, (90, 80))
        expected = np.zeros((90, 80), int)
        expected[20:60, 10:40] = 1
        expected[50:70, 30:45] = 2
        y, x = np.mgrid[:90, :80] + 0.5
        ellipse = ((y - 70) / 10) ** 2 + ((x - 80) / 30) ** 2 < 1
        np.testing.assert_array_equal(labels * (labels < 3), expected)
        # of straight pieces: a little smaller
        assert not ((labels == 3) & ~ellipse).any()
        assert ellipse.sum() - (labels == 3).sum() <= 0.05 * ellipse.sum()

    def test_a_region_without_area_is_named(self, tmp_path):
        edges = {"top": 20, "left": 10, "bottom": 20, "right": 40}
        region = self.region(
            roifile.ROI_TYPE.RECT, [[10, 20], [40, 20]], "thin", **edges
        )
        path = self.write(tmp_path / "set.zip", region)
        with pytest.raises(FormatError, match=r"set\.zip, region 'thin': box .* empty"):
            read_prompts(path)

    def test_refuses_another_file(self, tmp_path):
        path = tmp_path / "set.zip"
        path.write_bytes(b"no zip")
        with pytest.raises(FormatError, match="no regions of ImageJ"):
            read_prompts(path)


class TestLabels:
    def test_points_lie_deep_inside_and_ids_are_kept(self):
        labels = np.zeros((60, 70), np.int32)
        labels[disk((30, 20), 10)] = 9
        labels[5:55, 50:60] = 2
        labels[5:55, 55:60][10:40] = 0  # a C; its centroid may lie beside it
        two, nine = prompts_from_labels(labels)
        assert (two.object_id, nine.object_id) == (2, 9)
        assert nine.points.tolist() == [[30, 20]]
        y, x = two.points[0].astype(int)
        assert labels[y, x] == 2

    def test_boxes(self):
        labels = np.zeros((60, 70), np.uint8)
        labels[5:55, 50:60] = 200
        (found,) = prompts_from_labels(labels, "boxes")
        assert found.boxes.tolist() == [[5, 50, 55, 60]]
        assert found.n_points == 0
        (both,) = prompts_from_labels(labels, "both")
        assert both.has_box
        assert both.n_points == 1

    def test_labels_without_background(self):
        found = prompts_from_labels(np.array([[5, 5], [7, 7]]))
        assert [each.object_id for each in found] == [5, 7]

    def test_nothing_is_no_object(self):
        assert prompts_from_labels(np.zeros((4, 5), bool)) == []

    @pytest.mark.parametrize("labels", [np.zeros((4, 5)), np.zeros((4, 5, 3), int)])
    def test_refuses_images(self, labels):
        with pytest.raises(InputError, match="one plane of integers"):
            prompts_from_labels(labels)

    def test_refuses_negative_ids(self):
        with pytest.raises(InputError, match="object id -1"):
            prompts_from_labels(np.array([[-1, 0], [5, 5]]))

    def test_refuses_another_kind(self):
        with pytest.raises(InputError, match="points, boxes or both"):
            prompts_from_labels(np.ones((4, 5), int), "mask")  # type: ignore[arg-type]


@pytest.mark.parametrize("seed", range(20))
def test_the_deepest_pixel_equals_brute_force(seed):
    rng = np.random.default_rng(seed)
    inside = rng.random((9, 11)) < 0.8
    y, x = deepest_pixel(inside)
    outside = np.argwhere(~np.pad(inside, 1)) - 1
    depths = {
        (r, c): np.hypot(*(outside - (r, c)).T).min()
        for r, c in np.argwhere(inside).tolist()
    }
    assert depths[y, x] == pytest.approx(max(depths.values()))


def test_a_sliver_has_a_point():
    found = prompts_from_outline([np.array([[0, 0], [90, 0.1], [90, 0.2]])])
    assert 0 <= found.points[0, 0] <= 90


def test_a_table_in_micrometres(tmp_path):
    path = tmp_path / "cells.csv"
    path.write_text("object,y,x,y0,x0,y1,x1\n1,5,6,,,,\n2,,,1,2,3,4\n")
    point, box = read_prompts(path, pixel_size_um=(0.5, 0.25))
    assert point.points.tolist() == [[10, 24]]
    assert box.boxes.tolist() == [[2, 8, 6, 16]]


@pytest.mark.parametrize("name", ["a.csv", "a.geojson", "a.zip", "a.roi"])
def test_a_missing_file(tmp_path, name):
    with pytest.raises(MissingFileError, match="no such file"):
        read_prompts(tmp_path / name)


def test_a_folder_is_no_file(tmp_path):
    folder = tmp_path / "a.csv"
    folder.mkdir()
    with pytest.raises(FileError, match="cannot read"):
        read_prompts(folder)


def test_another_ending_is_refused(tmp_path):
    with pytest.raises(FormatError, match=r"\.csv.*\.geojson.*\.zip"):
        read_prompts(tmp_path / "a.docx")


def test_a_pixel_size_of_nothing_is_refused(tmp_path):
    with pytest.raises(InputError, match="above 0"):
        read_prompts(tmp_path / "a.csv", pixel_size_um=(0, 1))
