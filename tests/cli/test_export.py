"""``napari-sam export`` on label files of all kinds."""

from __future__ import annotations

import csv
import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tifffile
from PIL import Image
from pycocotools import mask as oracle

from napari_sam.engine.records import ObjectRecord, as_notes, from_notes
from napari_sam.readers import open_image
from napari_sam.readers.notes import read_notes
from napari_sam.writers.formats import FORMATS
from napari_sam.writers.ome_zarr import save_ome_zarr
from napari_sam.writers.tiff import save_labels

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    from tests.cli.conftest import Ended

    Cli = Callable[..., Ended]


@pytest.fixture
def labels(cells: tuple[Any, NDArray[np.uint32]]) -> NDArray[np.uint32]:
    """Object ids 1 to 5."""
    return cells[1]


@pytest.fixture
def label_file(tmp_path: Path, labels: NDArray[np.uint32]) -> Path:
    """The same as a file with a pixel size."""
    return save_labels(labels, tmp_path / "cells.labels.tif", pixel_size_um=0.5)


def decoded(path: Path) -> NDArray[np.uint32]:
    """Labels again, of a COCO file."""
    back = None
    for annotation in json.loads(path.read_text("utf-8"))["annotations"]:
        mask = oracle.decode(annotation["segmentation"]).astype(np.uint32)
        part = mask * np.uint32(annotation["object_id"])
        back = part if back is None else back + part
    assert back is not None
    return back


def test_what_is_known_of_objects_goes_along(
    cli: Cli, tmp_path: Path, labels: NDArray[np.uint32]
) -> None:
    records = [
        ObjectRecord(object_id=2, index=(None, None), state="accepted", model="ours"),
        ObjectRecord(object_id=4, index=(None, None), predicted_iou=0.75),
    ]
    save_labels(labels, tmp_path / "cells.labels.tif", notes=as_notes(records))
    ended = cli("export", "cells.labels.tif", "--to", "csv,ome-zarr", "-o", "out")
    assert ended.status == 0, ended.err
    with (tmp_path / "out" / "cells.csv").open(newline="") as file:
        rows = {int(row["object"]): row for row in csv.DictReader(file)}
    assert [rows[n]["state"] for n in (1, 2, 4)] == ["", "accepted", "new"]
    assert [rows[n]["predicted_iou"] for n in (2, 4)] == ["", "0.75"]
    assert rows[2]["model"] == "ours"
    noted = from_notes(read_notes(tmp_path / "out" / "cells.labels.zarr"))
    assert list(noted.values()) == records


@pytest.mark.usefixtures("label_file", "image")
def test_writes_all_formats_with_the_same_ids(cli: Cli, tmp_path: Path) -> None:
    names = ",".join(FORMATS)
    ended = cli(
        "export", "cells.labels.tif", "--to", names, "-o", "out", "--image", "cells.tif"
    )
    assert ended.status == 0, ended.err
    expected = {each.name: f"out/cells{each.ending}" for each in FORMATS.values()}
    assert ended.out.splitlines() == [f"{n}: {path}" for n, path in expected.items()]
    for path in expected.values():
        assert (tmp_path / path).exists()
    out = tmp_path / "out"
    with (out / "cells.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["object"] for row in rows] == ["1", "2", "3", "4", "5"]
    assert [float(row["intensity_mean"]) for row in rows] == [140, 160, 180, 200, 220]
    assert float(rows[0]["area_um2"]) == int(rows[0]["area"]) / 4
    features = json.loads((out / "cells.geojson").read_text())["features"]
    assert sorted(f["properties"]["object_id"] for f in features) == [1, 2, 3, 4, 5]
    assert open_image(out / "cells.labels.zarr").pixel_size_um == (0.5, 0.5)


@pytest.mark.parametrize("kind", ["tif", "png", "npy", "zarr", "ome.zarr"])
def test_reads_labels_of_many_kinds(
    cli: Cli, tmp_path: Path, labels: NDArray[np.uint32], kind: str
) -> None:
    path = tmp_path / f"cells.{kind}"
    if kind == "tif":
        tifffile.imwrite(path, labels.astype(np.uint16))
    elif kind == "png":
        Image.fromarray(labels.astype(np.uint16)).save(path)
    elif kind == "npy":
        np.save(path, labels)
    elif kind == "zarr":
        import zarr

        zarr.save_array(path, labels)
    else:
        save_ome_zarr(labels, path)
    ended = cli("export", path, "--to", "coco")
    assert ended.status == 0, ended.err
    np.testing.assert_array_equal(decoded(tmp_path / "cells.coco.json"), labels)


def test_one_format_may_name_its_file(
    cli: Cli, tmp_path: Path, label_file: Path
) -> None:
    ended = cli("export", label_file, "--to", "geojson", "-o", "a/b.json", "--json")
    assert ended.status == 0, ended.err
    record = json.loads(ended.out)
    assert record == {
        "labels": str(label_file),
        "format": "geojson",
        "path": "a/b.json",
    }
    assert (tmp_path / "a" / "b.json").is_file()


def test_a_pixel_size_can_be_given(cli: Cli, tmp_path: Path, label_file: Path) -> None:
    ended = cli(
        "export", label_file, "--to", "tiff", "--pixel-size", "2", "-o", "b.tif"
    )
    assert ended.status == 0, ended.err
    assert open_image(tmp_path / "b.tif").pixel_size_um == (2, 2)


@pytest.fixture
def label_stack(tmp_path: Path, labels: NDArray[np.uint32]) -> Path:
    """Two slices, the second upside down."""
    return save_labels(
        np.stack([labels, labels[::-1]]),
        tmp_path / "stack.tif",
        pixel_size_um=(2, 0.5, 0.5),
    )


def test_a_stack_keeps_its_slices_and_their_distance(
    cli: Cli, tmp_path: Path, label_stack: Path, labels: NDArray[np.uint32]
) -> None:
    ended = cli("export", label_stack, "--to", "ome-zarr", "--to", "csv,tiff")
    assert ended.status == 0, ended.err
    for name in ("stack.labels.zarr", "stack.labels.tif"):
        opened = open_image(tmp_path / name)
        assert (opened.axes, opened.z_step_um) == ("ZYX", 2)
        np.testing.assert_array_equal(opened.read(plane=(0, 1)), labels[::-1])
    with (tmp_path / "stack.csv").open(newline="") as file:
        rows = [(row["slice"], row["object"]) for row in csv.DictReader(file)]
    assert rows == [(z, n) for z in "01" for n in "12345"]


def test_a_plane_of_a_stack_is_chosen(
    cli: Cli, tmp_path: Path, label_stack: Path, labels: NDArray[np.uint32]
) -> None:
    refused = cli("export", label_stack, "--to", "csv,svg,png", "-o", "out")
    assert refused.status == 2
    assert "stack has 2 planes, and svg, png holds one; choose a plane" in refused.err
    assert not (tmp_path / "out").exists()
    ended = cli("export", label_stack, "--to", "sa1b,coco,svg", "--plane", "1")
    assert ended.status == 0, ended.err
    np.testing.assert_array_equal(decoded(tmp_path / "stack.coco.json"), labels[::-1])
    assert cli("export", label_stack, "--to", "csv", "--plane", "2").status == 2


def test_a_plane_of_a_pyramid_is_chosen(cli: Cli, tmp_path: Path) -> None:
    stack = np.zeros((2, 600, 520), np.uint32)
    stack[1, 40:90, 300:380] = 3
    save_ome_zarr(stack, tmp_path / "large.zarr")
    assert len(open_image(tmp_path / "large.zarr").levels) == 1
    ended = cli("export", tmp_path / "large.zarr", "--to", "tiff", "--plane", "1")
    assert ended.status == 0, ended.err
    opened = open_image(tmp_path / "large.labels.tif")
    np.testing.assert_array_equal(opened.read(), stack[1])


def test_a_plane_of_image_and_labels_go_together(
    cli: Cli, tmp_path: Path, label_stack: Path, labels: NDArray[np.uint32]
) -> None:
    channels = np.zeros((2, 3, *labels.shape), np.uint8)
    channels[1, 2] = 9 * labels[::-1]
    options = {"photometric": "minisblack", "metadata": {"axes": "ZCYX"}}
    tifffile.imwrite(tmp_path / "image.tif", channels, imagej=False, **options)
    ended = cli(
        *("export", label_stack, "--to", "csv,png", "--plane", "1"),
        *("--image", "image.tif"),
    )
    assert ended.status == 0, ended.err
    with (tmp_path / "stack.csv").open(newline="") as file:
        found = [float(row["intensity_mean_2"]) for row in csv.DictReader(file)]
    assert found == [9, 18, 27, 36, 45]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--to", "gif"], "format 'gif'; choose from tiff, ome-zarr,"),
        (["--to", "csv,svg", "-o", "a.csv"], "a.csv is no name for csv, svg"),
        (["--to", "csv", "-o", "a.svg"], "a name that ends in .csv"),
        (["--to", "tiff", "--overwrite"], "would replace the labels that are read"),
        (["--to", "csv", "--image", "other.tif"], "give the image of these labels"),
        (["--to", "csv", "--image", "none.tif"], "no such file"),
    ],
)
def test_refuses_what_does_not_fit(
    cli: Cli, tmp_path: Path, label_file: Path, arguments: list[str], message: str
) -> None:
    tifffile.imwrite(tmp_path / "other.tif", np.zeros((9, 9), np.uint8))
    ended = cli("export", label_file, *arguments)
    assert ended.status == 2
    assert message in ended.err
    assert {path.name for path in tmp_path.iterdir()} == {label_file.name, "other.tif"}


def test_an_image_is_no_label_file(cli: Cli, tmp_path: Path) -> None:
    Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(tmp_path / "a.png")
    ended = cli("export", "a.png", "--to", "csv")
    assert ended.status == 2
    assert "a has 3 channels of uint8; labels have one" in ended.err


def test_nothing_is_replaced_unless_asked_for(
    cli: Cli, tmp_path: Path, label_file: Path
) -> None:
    (tmp_path / "cells.csv").write_text("mine")
    ended = cli("export", label_file, "--to", "geojson,csv")
    assert ended.status == 1
    assert "exists already" in ended.err
    assert (tmp_path / "cells.csv").read_text() == "mine"
    assert not (tmp_path / "cells.geojson").exists()
    assert cli("export", label_file, "--to", "csv", "--overwrite").status == 0
    assert (tmp_path / "cells.csv").read_text() != "mine"
