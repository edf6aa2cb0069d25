"""Files, folders, patterns and plates as input."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import zarr

from napari_sam.engine.inputs import InputImage, find_inputs
from napari_sam.errors import InputError, MissingFileError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("b.tif", "a.PNG", "notes.txt", ".hidden.tif"):
        (tmp_path / name).touch()
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "c.tif").touch()
    zarr.save_array(tmp_path / "d.zarr", np.zeros((8, 8), np.uint8))
    return tmp_path


def test_a_folder_stands_for_the_images_in_it(folder: Path) -> None:
    names = [each.path.name for each in find_inputs([folder])]
    assert names == ["a.PNG", "b.tif", "d.zarr"]


def test_what_cannot_be_opened_is_found_out_later(folder: Path) -> None:
    (folder / "gone.png").symlink_to(folder / "nowhere.png")
    (folder / "d.zarr" / "zarr.json").write_text("no JSON")
    (folder / "slide.czi").touch()
    names = [each.path.name for each in find_inputs([folder])]
    assert names == ["a.PNG", "b.tif", "d.zarr", "gone.png", "slide.czi"]


def test_what_a_folder_holds_besides_is_said(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO", "napari_sam"):
        find_inputs([folder])
    assert caplog.messages == [f"{folder}: left out .txt, sub"]


def test_an_image_named_twice_is_one(folder: Path) -> None:
    given = [folder, folder / "b.tif", f"{folder}/*.tif"]
    assert find_inputs(given) == find_inputs([folder])


def test_results_beside_an_image_are_no_images(folder: Path) -> None:
    before = find_inputs([folder])
    for name in ("b.labels.tif", "a.overlay.png", "b.linked.tif", "e_tif.labels.tif"):
        (folder / name).touch()
    (folder / "e_tif.recipe.yaml").touch()
    assert find_inputs([folder]) == before
    named = [folder / "b.labels.tif", folder / "b.tif", folder / "e_tif.labels.tif"]
    assert find_inputs(named) == [InputImage(folder / "b.tif")]
    # by themselves they are files like others
    alone = folder / "b.labels.tif"
    assert find_inputs([alone]) == [InputImage(alone)]


def test_a_pattern_stands_for_the_files_it_fits(folder: Path) -> None:
    found = find_inputs([f"{folder}/**/*.tif", str(folder / "a.PNG")])
    assert [each.path.name for each in found] == ["b.tif", "c.tif", "a.PNG"]
    with pytest.raises(InputError, match="no file fits"):
        find_inputs([f"{folder}/*.czi"])


def test_a_plate_stands_for_its_fields(tmp_path: Path) -> None:
    plate = zarr.create_group(tmp_path / "plate.ome.zarr")
    wells = ["A/1", "B/2"]
    plate.attrs["ome"] = {"plate": {"wells": [{"path": well} for well in wells]}}
    for well in wells:
        group = plate.create_group(well)
        group.attrs["ome"] = {"well": {"images": [{"path": "0"}, {"path": "1"}]}}
        for field in ("0", "1"):
            image = group.create_group(field)
            axes = [{"name": name, "type": "space"} for name in "yx"]
            datasets = [{"path": "0"}]
            image.attrs["ome"] = {"multiscales": [{"axes": axes, "datasets": datasets}]}
            image.create_array("0", shape=(8, 8), dtype="uint8")
    found = find_inputs([tmp_path / "plate.ome.zarr"])
    assert [each.image for each in found] == ["A/1/0", "A/1/1", "B/2/0", "B/2/1"]
    assert found[1].name.name == "plate_A_1_1.zarr"
    assert find_inputs([tmp_path]) == found


def test_what_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError):
        find_inputs([tmp_path / "no.tif"])
    with pytest.raises(InputError, match="holds no image"):
        find_inputs([tmp_path])


def test_the_name_of_a_file_is_its_own() -> None:
    assert InputImage(Path("a/b.tif")).name == Path("a/b.tif")
