from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from napari_sam.errors import (
    FileError,
    FormatError,
    InputError,
    MissingFileError,
    NapariSamWarning,
)
from napari_sam.prompts import (
    Prompts,
    parse_box,
    parse_point,
    read_prompts,
    write_prompts,
)
from napari_sam.prompts.network import alike, to_input
from napari_sam.tiling import CropGrid

pixels = st.floats(0, 500, width=32)
points = st.lists(st.tuples(pixels, pixels), min_size=1, max_size=4)


@st.composite
def boxes(draw):
    y0, x0 = draw(st.integers(0, 400)), draw(st.integers(0, 400))
    return [y0, x0, y0 + draw(st.integers(1, 90)), x0 + draw(st.integers(1, 90))]


@st.composite
def prompts(draw):
    chosen = draw(points)
    signs = draw(
        st.lists(st.booleans(), min_size=len(chosen), max_size=len(chosen))
    )  # fmt: skip
    return Prompts(chosen, signs, draw(st.none() | boxes()))


def equal(a: Prompts, b: Prompts) -> bool:
    return (
        np.array_equal(a.points, b.points)
        and np.array_equal(a.positive, b.positive)
        and np.array_equal(a.boxes, b.boxes)
    )


class TestPrompts:
    def test_lists_become_arrays(self):
        made = Prompts([[1, 2], [3, 4]], [True, False], [[5, 6, 7, 8]], np.ones((4, 4)))
        assert made.points.tolist() == [[1, 2], [3, 4]]
        assert made.positive.tolist() == [True, False]
        assert made.boxes.tolist() == [[5, 6, 7, 8]]
        assert (made.points.dtype, made.boxes.dtype) == (np.float32, np.float32)
        assert made.mask is not None
        assert made.mask.dtype == np.float32

    def test_nothing_is_empty(self):
        assert Prompts().is_empty
        assert Prompts().points.shape == (0, 2)
        assert Prompts().boxes.shape == (0, 4)
        assert Prompts(mask=np.ones((4, 4))).is_empty
        assert not Prompts([[1, 2]]).is_empty
        assert not Prompts(boxes=[0, 0, 1, 1]).is_empty

    def test_points_are_positive_unless_said_otherwise(self):
        assert Prompts([[1, 2], [3, 4]]).positive.tolist() == [True, True]

    def test_one_point_and_one_box_need_no_inner_brackets(self):
        made = Prompts(points=[1, 2], positive=False, boxes=[0, 0, 4, 5])
        assert made.points.shape == (1, 2)
        assert made.positive.tolist() == [False]
        assert made.has_box

    def test_do_not_change(self):
        source = np.array([[1.0, 2.0]], np.float32)
        made = Prompts(source)
        source[:] = 9
        assert made.points.tolist() == [[1, 2]]
        with pytest.raises(ValueError, match="read-only"):
            made.points[0] = 5
        with pytest.raises(dataclasses.FrozenInstanceError):
            made.points = source  # type: ignore[misc]

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"points": [[1, 2, 3]]}, r"points of shape \(1, 3\)"),
            ({"points": [1, 2, 3]}, r"points of shape \(3,\)"),
            ({"points": [[1, 2], [3]]}, "points"),
            ({"points": "ab"}, "points 'ab'"),
            ({"points": [[1, np.nan]]}, "finite"),
            ({"points": [[1, 2]], "positive": [True, False]}, "2 values of positive"),
            ({"points": [[1, 2]], "positive": [-1]}, r"positive \[-1\]; give True"),
            ({"points": [[1, 2]], "positive": ["no"]}, "give True"),
            ({"points": torch.ones(1, 2, requires_grad=True)}, "requires_grad"),
            ({"positive": [True]}, "1 values of positive for 0 points"),
            ({"boxes": [[1, 2, 3]]}, r"boxes of shape \(1, 3\)"),
            ({"boxes": [0, 0, np.inf, 4]}, "finite"),
            ({"boxes": [5, 0, 5, 4]}, r"box \[5.0, 0.0, 5.0, 4.0\] is empty"),
            ({"boxes": [0, 5, 4, 4]}, "is empty"),
            ({"boxes": [[0, 0, 4, 4]] * 2}, "2 boxes for one object"),
            ({"mask": np.ones((4, 5))}, r"mask of shape \(4, 5\)"),
            ({"mask": np.ones((1, 4, 4))}, "mask of shape"),
            ({"mask": np.full((4, 4), np.nan)}, "not finite"),
            ({"object_id": 0}, "0 is background"),
            ({"object_id": 2**32}, "to 4294967295, which labels can hold"),
        ],
    )
    def test_refuses(self, arguments, message):
        with pytest.raises(InputError, match=message):
            Prompts(**arguments)

    def test_centre(self):
        assert Prompts([[0, 0], [4, 2], [90, 90]], [1, 1, 0]).centre == (2, 1)
        assert Prompts([[0, 0], [4, 2]], [0, 0]).centre == (2, 1)
        # pixels 2 to 3 and 0 to 8: their middles are 2.5 and 4
        assert Prompts([[9, 9]], boxes=[2, 0, 4, 9]).centre == (2.5, 4)
        with pytest.raises(InputError, match="no centre"):
            _ = Prompts().centre


class TestOutOfBounds:
    @pytest.mark.parametrize("point", [(0, 0), (-0.5, -0.5), (63.5, 31.5)])
    def test_inside(self, point):
        assert Prompts([point], boxes=[0, 0, 64, 32]).out_of_bounds((64, 32)) == []

    @pytest.mark.parametrize("point", [(-0.6, 0), (0, -1), (64, 0), (0, 32)])
    def test_a_point_outside_is_reported(self, point):
        (report,) = Prompts([point, (1, 1)]).out_of_bounds((64, 32))
        assert report.startswith(
            f"point (y, x) = ({point[0]:g}, {point[1]:g}) lies out"
        )
        assert report.endswith("the plane of 64 x 32 px")

    @pytest.mark.parametrize(
        ("box", "verb"),
        [
            ([0, 0, 65, 32], "leaves"),
            ([-1, 0, 5, 5], "leaves"),
            ([0, 30, 5, 33], "leaves"),
            ([64, 0, 65, 5], "lies outside"),
            ([-5, 0, 0, 5], "lies outside"),
        ],
    )
    def test_a_box_is_reported(self, box, verb):
        (report,) = Prompts(boxes=box).out_of_bounds((64, 32))
        assert f") {verb} the plane" in report

    def test_all_are_reported(self):
        far = Prompts([[99, 99], [-9, 0], [1, 1]], boxes=[0, 0, 99, 99])
        assert len(far.out_of_bounds((64, 32))) == 3


class TestToInput:
    def test_points_are_flipped_and_moved_by_pixel_centres(self):
        crop = CropGrid((512, 256))[0]  # x2
        tensors = to_input([Prompts([[10, 20], [0, 0]], [True, False])], crop)
        assert tensors.points is not None
        assert tensors.labels is not None
        assert tensors.points.tolist() == [[[40.5, 20.5], [0.5, 0.5]]]
        assert tensors.labels.tolist() == [[1, 0]]
        assert tensors.points.dtype == torch.float32
        assert tensors.boxes is None
        assert tensors.masks is None

    def test_a_box_over_the_crop_spans_the_frame(self):
        crop = CropGrid((1500, 900))[1]
        box = crop.box
        tensors = to_input([Prompts(boxes=[box.y0, box.x0, box.y1, box.x1])], crop)
        assert tensors.boxes is not None
        # the prompt encoder adds half a pixel; this crop has rows 512 to 1500
        assert (tensors.boxes + 0.5).tolist() == [[0, 0, 900, 988]]
        assert tensors.points is None
        assert tensors.labels is None

    @given(prompts(), st.integers(0, 5))
    def test_is_undone_by_the_crop(self, made, number):
        grid = CropGrid((500, 500), size=256, halo=32, scale=1.3)
        crop = grid[number % len(grid)]
        tensors = to_input([made], crop)
        assert tensors.points is not None
        back = crop.to_plane(tensors.points[0].numpy()[:, ::-1])
        assert np.allclose(back, made.points, rtol=0, atol=1e-3)
        if made.has_box:
            assert tensors.boxes is not None
            edges = tensors.boxes[0].reshape(2, 2).numpy()[:, ::-1] + 0.5
            back = crop.boxes_to_plane(edges)
            assert np.allclose(back, made.boxes, rtol=0, atol=1e-3)

    def test_many_objects_in_one_batch(self):
        crop = CropGrid((1024, 1024))[0]
        batch = [
            Prompts([[1, 2]], boxes=[0, 0, 9, 9], mask=np.full((4, 4), 1.0)),
            Prompts([[3, 4], [5, 6]], [0, 1], [2, 3, 9, 9], np.full((4, 4), 2.0)),
            Prompts(boxes=[5, 0, 7, 9], mask=np.full((4, 4), 3.0)),
        ]
        points, labels, found, masks = to_input(batch, crop)
        assert points is not None
        assert labels is not None
        assert found is not None
        assert masks is not None
        assert points[:2].tolist() == [[[2, 1], [0, 0]], [[4, 3], [6, 5]]]
        assert labels.tolist() == [[1, -1], [0, 1], [-1, -1]]
        assert found.shape == (3, 4)
        assert found[1].tolist() == [2.5, 1.5, 8.5, 8.5]
        assert masks.shape == (3, 1, 4, 4)
        assert masks[:, 0, 0, 0].tolist() == [1, 2, 3]

    @pytest.mark.parametrize(
        ("batch", "message"),
        [
            ([], "no objects"),
            ([Prompts([[1, 2]]), Prompts()], "object 1 of 2 has neither"),
            ([Prompts(mask=np.ones((4, 4)))], "a mask alone is not enough"),
            ([Prompts([[1, 2]]), Prompts(boxes=[0, 0, 1, 1])], "alike"),
            ([Prompts([[1, 2]]), Prompts([[1, 2]], mask=np.ones((4, 4)))], "alike"),
            (
                [Prompts([[1, 2]], mask=np.ones((n, n))) for n in (4, 8)],
                "of another size",
            ),
        ],
    )
    def test_refuses(self, batch, message):
        with pytest.raises(InputError, match=message):
            to_input(batch, CropGrid((64, 64))[0])

    @given(st.lists(prompts(), min_size=1, max_size=8))
    def test_groups_hold_each_object_once_and_need_no_padding(self, batch):
        groups = alike(batch)
        assert sorted(i for group in groups for i in group) == list(range(len(batch)))
        for group in groups:
            tensors = to_input([batch[i] for i in group], CropGrid((500, 500))[0])
            assert tensors.labels is not None
            assert (tensors.labels >= 0).all()

    def test_the_network_takes_them(self, tiny_sam):
        grid = CropGrid((100, 100), size=128, halo=16)
        embedding = torch.zeros(1, 32, 8, 8)
        batch = [
            Prompts([[1, 2]], boxes=[0, 0, 9, 9]),
            Prompts([[3, 4]], boxes=[0, 0, 9, 9]),
        ]
        logits, iou = tiny_sam.decode(
            embedding, **to_input(batch, grid[0])._asdict(), multimask=True
        )
        assert logits.shape[:2] == iou.shape == (2, 3)


class TestTyped:
    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("120,80", (120, 80, True)),
            (" 120.5 , -0.5 ", (120.5, -0.5, True)),
            ("1,2,+", (1, 2, True)),
            ("1,2,-", (1, 2, False)),
            ("1,2,Negative", (1, 2, False)),
        ],
    )
    def test_point(self, text, expected):
        assert parse_point(text) == expected

    @pytest.mark.parametrize(
        "text", ["", "1", "1;2", "1,2,3", "1,2,+,4", "a,b", "nan,1", "1,,2", "inf,2"]
    )
    def test_point_refused(self, text):
        with pytest.raises(InputError, match="write y,x or y,x,-"):
            parse_point(text)

    def test_box(self):
        assert parse_box("1, 2,3.5,4") == (1, 2, 3.5, 4)

    @pytest.mark.parametrize("text", ["", "1,2,3", "1,2,3,4,5", "1,2,3,x", "1,2,nan,4"])
    def test_box_refused(self, text):
        with pytest.raises(InputError, match="write y0,x0,y1,x1"):
            parse_box(text)


class TestTable:
    @given(st.lists(prompts(), max_size=5))
    def test_round_trip(self, tmp_path_factory, objects):
        path = tmp_path_factory.mktemp("Zoë's prompts") / "table.csv"
        write_prompts(objects, path)
        back = read_prompts(path)
        assert len(back) == len(objects)
        assert all(equal(a, b) for a, b in zip(back, objects, strict=True))
        assert [each.object_id for each in back] == list(range(1, len(objects) + 1))

    def test_object_ids_stay(self, tmp_path):
        path = tmp_path / "table.csv"
        write_prompts([Prompts([[1, 2]], object_id=7), Prompts([[3, 4]])], path)
        assert [each.object_id for each in read_prompts(path)] == [7, 2]

    def read(self, tmp_path, text: str | bytes):
        path = tmp_path / "table.csv"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return read_prompts(path)

    def test_each_line_is_an_object_unless_said_otherwise(self, tmp_path):
        first, second = self.read(tmp_path, "y,x\n1,2\n3,4\n")
        assert (first.points.tolist(), second.points.tolist()) == ([[1, 2]], [[3, 4]])

    def test_lines_of_an_object_belong_together(self, tmp_path):
        table = (
            "object,y,x,positive,y0,x0,y1,x1\n"
            "5,1,2,1,,,,\n2,9,9,,,,,\n5,,,,0,1,8,9\n\n5,3,4,-,,,,\n"
        )
        five, two = self.read(tmp_path, table)
        assert (five.object_id, two.object_id) == (5, 2)
        assert five.points.tolist() == [[1, 2], [3, 4]]
        assert five.positive.tolist() == [True, False]
        assert five.boxes.tolist() == [[0, 1, 8, 9]]
        assert two.positive.tolist() == [True]

    @pytest.mark.parametrize("separator", [",", ";", "\t"])
    def test_tables_of_spreadsheets(self, tmp_path, separator):
        lines = ['Y, X ,"note"', "1.5,2,first"]
        table = "\ufeff" + "\r\n".join(lines).replace(",", separator)
        (only,) = self.read(tmp_path, table)
        assert only.points.tolist() == [[1.5, 2]]

    def test_a_table_of_r_has_quotes_round_names_and_texts(self, tmp_path):
        (only,) = self.read(tmp_path, '"","y","x","positive"\n"1",1.5,2,"-"\n')
        assert only.points.tolist() == [[1.5, 2]]
        assert not only.positive.any()

    def test_boxes_alone(self, tmp_path):
        (only,) = self.read(tmp_path, "y0,x0,y1,x1\n1,2,3,4\n")
        assert only.boxes.tolist() == [[1, 2, 3, 4]]

    def test_a_table_without_lines_holds_no_prompts(self, tmp_path):
        assert self.read(tmp_path, "y,x\n") == []

    @pytest.mark.parametrize(
        ("table", "message"),
        [
            ("", "begins with ''; expected a line with the columns"),
            ("a,b\n1,2\n", "begins with 'a,b'"),
            ("1,2\n3,4\n", "expected a line with the columns y, x"),
            ("y,x\n1,2\n3,four\n", r"line 3: point with y='3', x='four'"),
            ("y,x\n1,\n", r"line 2: point with y='1', x=''"),
            ("y,x\n\n\n1,nan\n", "line 4: point"),
            ("y,x\n1,5,2,5\n", "line 2: more cells than columns"),
            ("y;x\n1,5;2\n", "line 2: point with y='1,5'"),
            ("y,x,positive\n1,2,maybe\n", "line 2: positive 'maybe'"),
            ("kind,y,x\nblob,1,2\n", "line 2: kind 'blob'"),
            ("object,y,x\n0,1,2\n", "line 2: object '0'"),
            ("object,y,x\n,1,2\n", "line 2: object ''"),
            ("object,y,x\n1.5,1,2\n", "line 2: object '1.5'"),
            ("y0,x0,y1,x1\n5,5,5,9\n", "line 2: box .* is empty"),
            (
                "object,y0,x0,y1,x1\n1,0,0,2,2\n1,0,0,3,3\n",
                "line 3: a second box for object 1",
            ),
            (
                "object,kind,y,x\n1,area,0,0\n1,area,0,4\n1,line,2,2\n",
                "line 4: a line beside the area of object 1",
            ),
            (b"y,x\n\xff\xfe\n", "is no text"),
        ],
    )
    def test_faults_are_named_with_their_line(self, tmp_path, table, message):
        with pytest.raises(FormatError, match=message):
            self.read(tmp_path, table)

    def test_areas_and_lines_become_points_and_boxes(self, tmp_path):
        corners = [(2, 3), (2, 12), (8, 12), (8, 3)]
        lines = [f"4,area,{y},{x}," for y, x in corners]
        lines += ["4,point,9,9,0", "5,line,1,0,", "5,line,1,10,"]
        area, line = self.read(
            tmp_path, "object,kind,y,x,positive\n" + "\n".join(lines)
        )
        # edges of a polygon through pixel centres lie half a pixel further
        np.testing.assert_allclose(area.boxes, [[2.5, 3.5, 8.5, 12.5]])
        assert area.positive.tolist() == [False, True]
        (y, x) = area.points[1]
        assert 4 <= y <= 6
        assert 5 <= x <= 10
        np.testing.assert_allclose(
            line.points, [[1, 1], [1, 3], [1, 5], [1, 7], [1, 9]]
        )
        assert not len(line.boxes)

    def test_masks_are_not_written_silently(self, tmp_path):
        with pytest.warns(NapariSamWarning, match="mask prompt of object 1"):
            write_prompts([Prompts([[1, 2]], mask=np.ones((4, 4)))], tmp_path / "t.csv")

    def test_files_that_cannot_be_opened(self, tmp_path):
        with pytest.raises(MissingFileError, match=r"gone\.csv: no such file"):
            read_prompts(tmp_path / "gone.csv")
        folder = tmp_path / "folder.csv"
        folder.mkdir()
        with pytest.raises(FileError, match="cannot read"):
            read_prompts(folder)
        with pytest.raises(FileError, match="cannot write"):
            write_prompts([], tmp_path / "no folder" / "table.csv")
