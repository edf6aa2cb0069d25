"""``napari-sam propagate``, ``link`` and ``segment --link``."""

from __future__ import annotations

import csv
import json
from typing import TYPE_CHECKING

import numpy as np
import pytest
import tifffile

from napari_sam import Prompts, load_model, run
from napari_sam.cache import EmbeddingCache
from napari_sam.engine.jobs import Step
from napari_sam.engine.propagate import propagate
from napari_sam.link import link_frames, link_slices

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.cli.conftest import Ended


@pytest.fixture
def planes(tmp_path: Path) -> Path:
    """Labels of four planes, two objects in each."""
    labels = np.zeros((4, 30, 30), np.uint32)
    for i in range(4):
        labels[i, 4:10, 4 + i : 10 + i] = 5 - i
        labels[i, 18:26, 15:22] = 7 + i
    path = tmp_path / "a.labels.tif"
    tifffile.imwrite(path, labels, metadata={"axes": "ZYX"})
    return path


def test_propagate_writes_what_the_library_finds(
    cli: Callable[..., Ended], stack: Path, weights: Path, tmp_path: Path
) -> None:
    ended = cli(
        "propagate", stack, "--model", weights, "--point", "0,20,25",
        "--point", "0,3,3,-", "-o", "cell.tif", "--object-id", 4, "--json",
    )  # fmt: skip
    assert ended.status == 0, ended.err
    prompts = {0: Prompts([[20, 25], [3, 3]], [True, False])}
    found = run(propagate(stack, load_model(weights), prompts))
    labels = tifffile.imread(tmp_path / "cell.tif")
    for z in range(2):
        np.testing.assert_array_equal(labels[z], 4 * found.mask(z, (40, 50)))
    facts = json.loads(ended.out)
    assert facts["slices"] == list(found.slices)
    rows = list(csv.DictReader((tmp_path / "cell.slices.csv").read_text().splitlines()))
    prompted = [row for row in rows if row["state"] == "prompted"]
    assert [row["slice"] for row in prompted] == ["0"]
    assert int(prompted[0]["area"]) == np.count_nonzero(labels[0])
    assert {row["slice"]: row["reason"] for row in rows if row["state"] == "end"} == {
        str(stop.index): stop.reason for stop in found.stops
    }


def test_propagate_takes_masks_as_they_are_and_keeps_embeddings(
    cli: Callable[..., Ended], stack: Path, weights: Path, tmp_path: Path
) -> None:
    drawn = np.zeros((2, 40, 50), np.uint16)
    drawn[1, 8:20, 10:30] = 3
    tifffile.imwrite(tmp_path / "drawn.tif", drawn, metadata={"axes": "ZYX"})
    asked = ("propagate", stack, "--model", weights, "--masks", "drawn.tif", "--cache",
             "kept", "-o", "cell.tif", "--overwrite", "--object-id")  # fmt: skip
    ended = cli(*asked, 3)
    assert ended.status == 0, ended.err
    labels = tifffile.imread(tmp_path / "cell.tif")
    np.testing.assert_array_equal(labels[1], drawn[1])
    assert len(EmbeddingCache(tmp_path / "kept").entries()) == 1  # of slice 0
    ended = cli(*asked, 4)
    assert ended.status != 0
    assert "no object 4" in ended.err


def test_link_writes_objects_along_z(
    cli: Callable[..., Ended], planes: Path, tmp_path: Path
) -> None:
    ended = cli("link", planes)
    assert ended.status == 0, ended.err
    assert "2 objects" in ended.out
    linked = tifffile.imread(tmp_path / "a.linked.tif")
    np.testing.assert_array_equal(linked, link_slices(tifffile.imread(planes)))
    assert cli("link", planes).status != 0  # it is there already


def test_link_tells_which_slices_were_filled(
    cli: Callable[..., Ended], planes: Path, tmp_path: Path
) -> None:
    labels = tifffile.imread(planes)
    labels[2, 18:26, 15:22] = 0
    tifffile.imwrite(planes, labels, metadata={"axes": "ZYX"})
    ended = cli("link", planes)
    linked = tifffile.imread(tmp_path / "a.linked.tif")
    number = int(linked[1, 20, 18])
    assert number == linked[2, 20, 18]
    assert f"filled in: object {number} in slice 2\n" in ended.out
    ended = cli("link", planes, "--overwrite", "--json")
    filled = json.loads(ended.out)["filled"]
    assert filled == [{"object_id": number, "t": 0, "z": 2}]


def test_link_cuts_touching_bodies_where_the_image_is_dim(
    cli: Callable[..., Ended], tmp_path: Path
) -> None:
    light = np.array([20, 60, 120, 60, 25, 22, 50, 100, 200, 90, 30], np.uint8)
    labels = np.zeros((len(light), 30, 30), np.uint8)
    labels[:, 8:20, 8:20] = 1  # one width all the way: only light tells two from one
    image = (labels * light[:, None, None]).astype(np.uint8)
    tifffile.imwrite(tmp_path / "a.labels.tif", labels, metadata={"axes": "ZYX"})
    tifffile.imwrite(tmp_path / "a.tif", image, metadata={"axes": "ZYX"})
    assert "1 objects" in cli("link", "a.labels.tif").out
    ended = cli("link", "a.labels.tif", "--image", "a.tif", "--overwrite")
    assert ended.status == 0, ended.err
    assert "2 objects" in ended.out
    linked = tifffile.imread(tmp_path / "a.linked.tif")
    assert linked[5, 12, 12] != linked[6, 12, 12]
    ended = cli("link", "a.labels.tif", "--channel", 0, "--overwrite")
    assert ended.status == 2
    assert "--image" in ended.err


def test_link_writes_tracks(cli: Callable[..., Ended], tmp_path: Path) -> None:
    labels = np.zeros((3, 30, 30), np.uint32)
    for t in range(3):
        labels[t, 4:10, 4 + t : 10 + t] = 5 - t
    tifffile.imwrite(tmp_path / "m.tif", labels, metadata={"axes": "TYX"})
    ended = cli(
        "link", "m.tif", "--along", "t", "--ctc", "-o", "m.linked.tif", "--json"
    )
    assert ended.status == 0, ended.err
    assert json.loads(ended.out)["objects"] == 1
    linked = tifffile.imread(tmp_path / "m.linked.tif")
    np.testing.assert_array_equal(linked, link_frames(labels)[0])
    assert (tmp_path / "m_RES" / "res_track.txt").read_text() == "1 0 2 0\n"
    assert len((tmp_path / "m.tracks.csv").read_text().splitlines()) == 4


def test_segment_links_on_request(
    cli: Callable[..., Ended], stack: Path, weights: Path, tmp_path: Path
) -> None:
    ended = cli("segment", stack, "--model", weights, "-o", "out", "--link", "z")
    assert ended.status == 0, ended.err
    planes = tifffile.imread(tmp_path / "out" / "stack.labels.tif")
    linked = tifffile.imread(tmp_path / "out" / "stack.linked.tif")
    np.testing.assert_array_equal(linked, link_slices(planes))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--point", "20,25"], "'20,25' is no place in a stack; write slice,y,x"),
        (["--point", "x,20,25"], "'x,20,25' is no place in a stack"),
        (["--point", "0,20,x"], "point '20,x'"),
        (["--box", "0,1,1,9"], "'0,1,1,9' is no place in a stack; write slice,y0"),
        ([], "no prompts"),
        (["--point", "0,20,25", "--within", "4"], "first,last"),
        (["--point", "7,20,25"], "prompts in slices [7]"),
        (["--box", "0,1,1,9,9", "--box", "0,2,2,8,8"], "2 boxes for one object"),
        (["--point", "0,20,25", "-o", "cell.zarr"], "ends in .tif"),
        (["--point", "0,20,25", "-o", "cell.png"], "a name that ends in .tif"),
    ],
)
def test_wrong_input_is_explained(
    cli: Callable[..., Ended],
    stack: Path,
    weights: Path,
    arguments: list[str],
    message: str,
) -> None:
    ended = cli("propagate", stack, "--model", weights, *arguments)
    assert ended.status == 2
    assert message in ended.err


def test_propagate_refuses_to_overwrite_before_it_works(
    cli: Callable[..., Ended], stack: Path, weights: Path, tmp_path: Path
) -> None:
    (tmp_path / "cell.slices.csv").write_text("by hand")
    arguments = ("propagate", stack, "--model", weights, "--point", "0,20,25")
    ended = cli(*arguments, "-o", "cell.tif")
    assert ended.status == 1
    assert "cell.slices.csv: exists already" in ended.err
    assert not (tmp_path / "cell.tif").exists()


def test_three_directions_are_fused(
    cli: Callable[..., Ended], weights: Path, tmp_path: Path
) -> None:
    volume = np.random.default_rng(0).integers(0, 255, (5, 24, 24)).astype(np.uint8)
    path = tmp_path / "volume.tif"
    tifffile.imwrite(path, volume, metadata={"axes": "ZYX"})
    ended = cli("segment", path, "-m", weights, "-o", "out", "--three-planes")
    assert ended.status == 0, ended.err
    assert tifffile.imread(tmp_path / "out" / "volume.labels.tif").shape == (5, 24, 24)
    scores = tifffile.imread(tmp_path / "out" / "volume.uncertainty.tif")
    assert scores.max() < 1
    for others in (("--link", "z"), ("--cache", "store", "--plan")):
        ended = cli("segment", path, "-m", weights, "--three-planes", *others)
        assert ended.status == 2
        assert "leave out --link" in " ".join(ended.err.split())


def test_a_plan_of_three_directions_counts_all_their_planes(
    cli: Callable[..., Ended], weights: Path, tmp_path: Path
) -> None:
    path = tmp_path / "volume.tif"
    tifffile.imwrite(path, np.zeros((5, 40, 30), np.uint8), metadata={"axes": "ZYX"})
    command = ("segment", path, "-m", weights, "-o", "out", "--three-planes", "--plan")
    ended = cli(*command, "--json")
    assert ended.status == 0, ended.err
    planned = json.loads(ended.out)
    # every plane fits into one crop of 128 px
    assert planned["crops"] == planned["left"] == 5 + 40 + 30
    assert planned["pixel_bytes"] == 3 * 5 * 40 * 30
    assert planned["label_bytes"] == 4 * 5 * 40 * 30
    row = cli(*command).out.splitlines()[1].split()
    assert row[:6] == ["volume.tif", "75", "40", "x", "30", "75"]
    # enlarged four times, 160 px do not fit into a crop of 128 px
    cut = json.loads(cli(*command, "--json", "--diameter", "4").out)
    assert cut["crops"] == 5 * 2 + 40 + 30 * 2
    assert not (tmp_path / "out").exists()


def test_what_cannot_go_on_does_not_say_so(
    cli: Callable[..., Ended],
    weights: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def stopped(*_others: object, **_more: object) -> Iterator[Step]:
        yield Step(0, 1, "xy planes")
        raise KeyboardInterrupt

    monkeypatch.setattr("napari_sam.engine.three_planes.three_planes_file", stopped)
    path = tmp_path / "volume.tif"
    tifffile.imwrite(path, np.zeros((3, 9, 9), np.uint8), metadata={"axes": "ZYX"})
    ended = cli("segment", path, "-m", weights, "-o", "out", "--three-planes")
    assert ended.status == 130
    assert "the same command begins" in ended.err
    assert "anew" in ended.err
