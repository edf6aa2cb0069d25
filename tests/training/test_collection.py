"""Pairs of images and labels are found, and gaps are told."""

import csv

import numpy as np
import pytest
import tifffile
from PIL import Image

from napari_sam.errors import (
    FormatError,
    InputError,
    MissingFileError,
    NapariSamWarning,
)
from napari_sam.readers import open_image
from napari_sam.training.collection import list_images, open_annotated, read_labels
from napari_sam.writers.imagej import save_imagej_rois


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
    for name in ("b.png", "a.TIF", "c.ome.tiff", "d.JPG", "d.tif", "e.jpeg", "n.txt"):
        touch(tmp_path / "images" / name)
    for name in ("a.tif", "b.labels.tif", "c.png", "d_masks.png", "e.npy", "f.tif"):
        touch(tmp_path / "labels" / name)
    images = list_images(tmp_path, split="val")
    assert [(i.name, i.path.name, i.labels_path.name) for i in images] == [
        ("a", "a.TIF", "a.tif"),
        ("b", "b.png", "b.labels.tif"),
        ("c", "c.ome.tiff", "c.png"),
        ("d", "d.tif", "d_masks.png"),
        ("e", "e.jpeg", "e.npy"),
    ]
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
    with pytest.raises(FormatError, match=r"cells has no labels one"):
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


def test_labels_may_lie_beside_their_images(tmp_path):
    for name in (
        *("a.jpg", "a.labels.tif", "a.csv", "a.overlay.png", "a_cp_masks.png"),
        *("b.tif", "b_masks.png", "b_cp_masks.png", "b_seg.npy"),
        *("c.tif", "c_cp_masks.tif", "d_img.png", "d_masks.png", "not_labelled.tif"),
    ):
        touch(tmp_path / name)
    images = list_images(tmp_path)
    assert [(i.path.name, i.labels_path.name) for i in images] == [
        ("a.jpg", "a.labels.tif"),
        ("b.tif", "b_masks.png"),
        ("c.tif", "c_cp_masks.tif"),
        ("d_img.png", "d_masks.png"),
    ]


def test_images_without_labels_are_left_out_with_a_word(tmp_path):
    for name in ("images/a.tif", "images/b.tif", "images/c.tif", "labels/b.tif"):
        touch(tmp_path / name)
    with pytest.warns(NapariSamWarning, match="2 images without labels .*: a, c"):
        images = list_images(tmp_path)
    assert [image.name for image in images] == ["b"]
    (tmp_path / "labels" / "b.tif").unlink()
    with pytest.raises(FormatError, match="no images with labels"):
        list_images(tmp_path)


def test_a_folder_of_labels_may_be_called_masks(tmp_path):
    touch(tmp_path / "images" / "a_masks.tif")  # its name is no mark here
    touch(tmp_path / "masks" / "a_masks.tif")
    (image,) = list_images(tmp_path)
    assert image.labels_path == tmp_path / "masks" / "a_masks.tif"


def test_labels_of_a_lossy_format_are_refused(tmp_path):
    touch(tmp_path / "images" / "a.jpg")
    touch(tmp_path / "labels" / "a.jpg")
    with pytest.raises(
        FormatError, match=r"labels.a\.jpg may have lost .* TIFF or PNG"
    ):
        list_images(tmp_path)
    touch(tmp_path / "labels" / "a.png")
    assert list_images(tmp_path)[0].labels_path.name == "a.png"


def read(path, array):
    """Write labels, and read them as a training does."""
    if path.suffix == ".png":
        Image.fromarray(array).save(path)
    else:
        tifffile.imwrite(path, array, photometric="minisblack")
    return read_labels(open_image(path), (0, 0))


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int32", "float32", "float64"])
def test_ids_keep_their_numbers_whatever_their_type(tmp_path, dtype):
    labels = np.zeros((6, 8), dtype)
    labels[:2], labels[4:] = 7, 200
    found = read(tmp_path / "a.tif", labels)
    assert found.dtype == np.int64
    np.testing.assert_array_equal(found, labels)


@pytest.mark.parametrize("value", [-1, 0.5, np.nan, np.inf])
def test_numbers_that_are_no_ids_are_refused(tmp_path, value):
    labels = np.zeros((6, 8), np.float32)
    labels[2, 2] = value
    with pytest.raises(FormatError, match="one integer from 0 for each pixel"):
        read(tmp_path / "a.tif", labels)


def test_each_colour_of_a_picture_is_an_object(tmp_path):
    colours = np.zeros((6, 8, 3), np.uint8)
    colours[:2], colours[2:4, :4], colours[2:4, 4:] = (9, 9, 9), (1, 0, 0), (0, 0, 1)
    found = read(tmp_path / "a.png", colours)
    assert np.unique(found).tolist() == [0, 1, 65536, 9 * (65536 + 256 + 1)]
    assert (found[:2] == found[0, 0]).all()
    assert (found[2:4, :4] == 65536).all()
    assert (found[2:4, 4:] == 1).all()
    with_alpha = np.dstack([colours, np.full((6, 8), 255, np.uint8)])
    np.testing.assert_array_equal(read(tmp_path / "b.png", with_alpha), found)


def test_channels_are_no_labels(tmp_path):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.ones((2, 6, 8), np.uint8), metadata={"axes": "CYX"})
    with pytest.raises(FormatError, match=r"planes of shape \(6, 8, 2\)"):
        read_labels(open_image(path), (0, 0))


def test_a_mask_of_all_objects_is_told_from_labels(tmp_path):
    mask = np.zeros((20, 30), np.uint8)
    mask[1::5, 1::5] = 255
    with pytest.warns(NapariSamWarning, match="24 pieces and 1 numbers"):
        read(tmp_path / "a.png", mask)
    mask[mask > 0] = np.arange(1, 25)
    mask = mask.repeat(2, axis=0).repeat(2, axis=1)
    assert read(tmp_path / "a.png", mask).max() == 24  # a warning would fail the test


def test_a_picture_is_told_from_labels(tmp_path):
    picture = np.random.default_rng(0).integers(256, size=(20, 30, 3), dtype=np.uint8)
    with pytest.warns(NapariSamWarning, match="600 objects of 1 px on average"):
        read(tmp_path / "a.png", picture)


def test_regions_of_imagej_are_filled(tmp_path, cells):
    image, labels = cells
    (tmp_path / "images").mkdir()
    (tmp_path / "labels").mkdir()
    tifffile.imwrite(tmp_path / "images" / "a.tif", image)
    save_imagej_rois(labels, tmp_path / "labels" / "a.zip")
    (found,) = list_images(tmp_path)
    truth = open_annotated(found)[1]
    np.testing.assert_array_equal(read_labels(truth, (0, 0)), labels)
    assert truth.path == tmp_path / "labels" / "a.zip"
    (tmp_path / "flat").mkdir()  # beside each other, with a mark
    (tmp_path / "images" / "a.tif").rename(tmp_path / "flat" / "a.tif")
    (tmp_path / "labels" / "a.zip").rename(tmp_path / "flat" / "a_rois.zip")
    (found,) = list_images(tmp_path / "flat")
    assert (found.path.name, found.labels_path.name) == ("a.tif", "a_rois.zip")
