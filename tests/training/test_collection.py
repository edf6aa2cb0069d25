"""Pairs of images and labels are found, and gaps are told."""

import csv

import pytest

from napari_sam.errors import FormatError, InputError, MissingFileError
from napari_sam.training.collection import list_images


def touch(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


def write_index(
    folder, rows, columns=("dataset", "name", "modality", "split", "labels")
):
    with (folder / "index.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)
    for row in rows:
        for kind in ("images", "labels"):
            touch(folder / row["dataset"] / kind / f"{row['name']}.tif")


def row(dataset, name, split="val", labels="manual"):
    return {
        "dataset": dataset,
        "name": name,
        "modality": "blue",
        "split": split,
        "labels": labels,
    }


def test_a_plain_folder_pairs_files_by_name_whatever_their_suffix(tmp_path):
    for name in ("b.png", "a.TIF", "c.tiff", "notes.txt"):
        touch(tmp_path / "images" / name)
    for name in ("a.tif", "b.tif", "c.png"):
        touch(tmp_path / "labels" / name)
    images = list_images(tmp_path, split="val")
    assert [i.name for i in images] == ["a", "b", "c"]
    assert [i.labels_path.name for i in images] == ["a.tif", "b.tif", "c.png"]
    assert {i.dataset for i in images} == {tmp_path.name}
    assert all(i.is_complete for i in images)


def test_an_index_gives_groups_splits_and_partial_labels(tmp_path):
    write_index(
        tmp_path,
        [
            row("cells", "one"),
            row("cells", "two", split="train"),
            row("cells", "three", labels="machine (silver, not by hand)"),
            row("neurons", "four"),
        ],
    )
    images = list_images(tmp_path, split="val", partial=["neurons"])
    assert [(i.dataset, i.name, i.is_complete) for i in images] == [
        ("cells", "one", True),
        ("cells", "three", False),
        ("neurons", "four", False),
    ]
    assert images[0].path == tmp_path / "cells" / "images" / "one.tif"
    assert len(list_images(tmp_path)) == 4
    (image,) = list_images(tmp_path, datasets=["neurons"])
    assert (image.name, image.is_complete) == ("four", True)


def test_an_index_says_itself_whether_all_objects_are_labelled(tmp_path):
    said = {"one": "no", "two": "Yes", "three": "", "four": "yes"}
    rows = [row("cells", name) | {"complete": said[name]} for name in said]
    rows[2]["labels"] = rows[3]["labels"] = "partial"
    columns = ("dataset", "name", "modality", "split", "labels", "complete")
    write_index(tmp_path, rows, columns)
    found = {i.name: i.is_complete for i in list_images(tmp_path)}
    assert found == {"one": False, "two": True, "three": False, "four": True}
    write_index(tmp_path, [row("cells", "one") | {"complete": "maybe"}], columns)
    with pytest.raises(FormatError, match="says 'maybe' in the column complete of one"):
        list_images(tmp_path)


def test_labels_that_are_missing_are_named(tmp_path):
    write_index(tmp_path, [row("cells", "one")])
    (tmp_path / "cells" / "labels" / "one.tif").unlink()
    with pytest.raises(FormatError, match=r"labels has no file one"):
        list_images(tmp_path)


def test_an_index_without_a_needed_column_is_refused(tmp_path):
    write_index(tmp_path, [], columns=("dataset", "name", "split"))
    with pytest.raises(FormatError, match=r"lacks the columns \['modality'\]"):
        list_images(tmp_path)


def test_a_folder_without_images_is_refused(tmp_path):
    with pytest.raises(FormatError, match=r"expected images/ and labels/"):
        list_images(tmp_path)


def test_a_split_or_dataset_that_is_not_there_is_refused(tmp_path):
    write_index(tmp_path, [row("cells", "one")])
    with pytest.raises(InputError, match="split 'test'"):
        list_images(tmp_path, split="test")
    with pytest.raises(InputError, match=r"there are \['cells'\]"):
        list_images(tmp_path, datasets=["fish"])


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(MissingFileError, match="nowhere: no such folder"):
        list_images(tmp_path / "nowhere")
