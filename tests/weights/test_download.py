"""Downloads from a real server, with everything that can go wrong on the way."""

from __future__ import annotations

import hashlib
import logging
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import xxhash
from filelock import FileLock

from napari_sam.errors import WeightsError
from napari_sam.weights import download
from napari_sam.weights.download import fetch
from napari_sam.weights.table import WeightFile, WeightSpec
from tests.weights.server import FaultyServer, faulty_server

if TYPE_CHECKING:
    from collections.abc import Iterator

NAME = "Gewichte für Zellen.pt"
SERVED = "w.pt"
CONTENT = np.random.default_rng(0).bytes(4 * download.CHUNK_BYTES)


@pytest.fixture(autouse=True)
def _no_waiting_and_no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "WAIT_S", 0.0)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture
def server() -> Iterator[FaultyServer]:
    with faulty_server() as server:
        server.files[SERVED] = CONTENT
        yield server


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "Modelle Größe 細胞"


def spec_of(*urls: str, size_bytes: int | None = len(CONTENT)) -> WeightSpec:
    sha256 = hashlib.sha256(CONTENT).hexdigest()
    return WeightSpec(
        name="cells",
        family="vit_b",
        trained_for="cells",
        licence="CC0-1.0",
        paper="nobody",
        weights=WeightFile(NAME, urls, f"sha256:{sha256}", size_bytes),
    )


def part(folder: Path, content: bytes) -> Path:
    folder.mkdir(parents=True)
    path = folder / f"{NAME}.part"
    path.write_bytes(content)
    return path


def visible(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir() if not p.name.startswith("."))


def test_file_arrives_whole_under_its_name(server: FaultyServer, folder: Path) -> None:
    path = fetch(spec_of(server.url("ranges", SERVED)), folder=folder)
    assert path == folder / NAME
    assert path.read_bytes() == CONTENT
    assert visible(folder) == [NAME]


def test_second_fetch_asks_nobody(server: FaultyServer, folder: Path) -> None:
    spec = spec_of(server.url("ranges", SERVED))
    fetch(spec, folder=folder)
    fetch(spec, folder=folder)
    assert len(server.requests) == 1


def test_file_put_there_by_hand_is_taken_without_network(folder: Path) -> None:
    folder.mkdir()
    (folder / NAME).write_bytes(CONTENT)
    unreachable = spec_of("http://127.0.0.1:9/nobody")
    assert fetch(unreachable, folder=folder).read_bytes() == CONTENT


def test_weights_folder_of_the_settings(
    server: FaultyServer, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = download.get_settings().model_copy(update={"weights_dir": folder})
    monkeypatch.setattr(download, "get_settings", lambda: settings)
    assert fetch(spec_of(server.url("ranges", SERVED))).parent == folder


def test_interrupted_download_continues(server: FaultyServer, folder: Path) -> None:
    part(folder, CONTENT[:1500])
    fetch(spec_of(server.url("ranges", SERVED)), folder=folder)
    assert server.requests == [(f"/ranges/{SERVED}", "bytes=1500-")]
    assert (folder / NAME).read_bytes() == CONTENT
    assert visible(folder) == [NAME]


def test_server_without_ranges_starts_again(server: FaultyServer, folder: Path) -> None:
    part(folder, CONTENT[:1500])
    fetch(spec_of(server.url("plain", SERVED)), folder=folder)
    assert (folder / NAME).read_bytes() == CONTENT


def test_part_of_another_file_is_fetched_again_from_the_start(
    server: FaultyServer, folder: Path
) -> None:
    part(folder, b"x" * 1500)
    fetch(spec_of(server.url("ranges", SERVED)), folder=folder)
    asked = [asked for _, asked in server.requests]
    assert asked == ["bytes=1500-", None]
    assert (folder / NAME).read_bytes() == CONTENT


def test_complete_part_only_needs_its_name(server: FaultyServer, folder: Path) -> None:
    part(folder, CONTENT)
    fetch(spec_of(server.url("ranges", SERVED)), folder=folder)
    assert (folder / NAME).read_bytes() == CONTENT


def test_part_larger_than_the_file_is_dropped(
    server: FaultyServer, folder: Path
) -> None:
    part(folder, CONTENT + b"more")
    fetch(spec_of(server.url("ranges", SERVED)), folder=folder)
    assert (folder / NAME).read_bytes() == CONTENT


def test_broken_connections_are_picked_up_where_they_broke(
    server: FaultyServer, folder: Path
) -> None:
    fetch(spec_of(server.url("drop", SERVED)), folder=folder)
    asked = [asked for _, asked in server.requests]
    assert asked == [None, "bytes=65536-", "bytes=131072-", "bytes=196608-"]
    assert (folder / NAME).read_bytes() == CONTENT


def test_hopeless_connection_keeps_what_it_brought(
    server: FaultyServer, folder: Path
) -> None:
    with pytest.raises(WeightsError, match="broke 5 times; 65536 bytes are kept"):
        fetch(spec_of(server.url("dropplain", SERVED)), folder=folder)
    assert visible(folder) == [f"{NAME}.part"]
    fetch(spec_of(server.url("ranges", SERVED)), folder=folder)
    assert server.requests[-1][1] == "bytes=65536-"


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("missing", "answers 404 Not Found"),
        ("wrong", "hash of downloaded file .* does not match"),
        ("short", "serves 131072 bytes instead of 262144"),
    ],
)
def test_faults_of_an_address_are_named(
    server: FaultyServer, folder: Path, fault: str, message: str
) -> None:
    url = server.url(fault, SERVED)
    with pytest.raises(WeightsError, match=message) as caught:
        fetch(spec_of(url), folder=folder)
    assert url in str(caught.value)
    assert f"put it, as {NAME}, into {folder}" in str(caught.value)
    assert visible(folder) == []


def test_truncated_file_of_unknown_size_fails_its_checksum(
    server: FaultyServer, folder: Path
) -> None:
    spec = spec_of(server.url("short", SERVED), size_bytes=None)
    with pytest.raises(WeightsError, match="hash of downloaded file"):
        fetch(spec, folder=folder)
    assert visible(folder) == []


def test_wrong_part_is_not_glued_on(server: FaultyServer, folder: Path) -> None:
    part(folder, CONTENT[:1500])
    with pytest.raises(WeightsError, match="another part than was asked for"):
        fetch(spec_of(server.url("shifted", SERVED)), folder=folder)


def test_no_network(folder: Path) -> None:
    with pytest.raises(WeightsError, match=r"cannot be reached \(.*refused"):
        fetch(spec_of("http://127.0.0.1:9/w.pt"), folder=folder)


def test_mirrors_are_tried_in_order(server: FaultyServer, folder: Path) -> None:
    urls = [server.url(f, SERVED) for f in ("missing", "wrong", "drop", "plain")]
    fetch(spec_of(*urls), folder=folder)
    paths = [path.split("/")[1] for path, _ in server.requests]
    assert paths == ["missing", "wrong", "drop", "drop", "drop", "drop"]
    assert (folder / NAME).read_bytes() == CONTENT


def test_all_mirrors_and_their_faults_are_reported(
    server: FaultyServer, folder: Path
) -> None:
    urls = [server.url(f, SERVED) for f in ("missing", "wrong")]
    with pytest.raises(WeightsError) as caught:
        fetch(spec_of(*urls), folder=folder)
    assert all(url in str(caught.value) for url in urls)


def test_too_little_room_is_found_before_the_download(
    server: FaultyServer, folder: Path
) -> None:
    spec = spec_of(server.url("huge", SERVED), size_bytes=None)
    with pytest.raises(WeightsError, match="needs 1000000000000 MB more but"):
        fetch(spec, folder=folder)
    assert visible(folder) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only on Linux")
def test_full_disk(server: FaultyServer, folder: Path) -> None:
    folder.mkdir()
    (folder / f"{NAME}.part").symlink_to("/dev/full")
    with pytest.raises(WeightsError, match="the disk is full"):
        fetch(spec_of(server.url("ranges", SERVED)), folder=folder)


def test_folder_that_is_a_file(server: FaultyServer, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(WeightsError, match=r"cannot be kept .* NAPARI_SAM_WEIGHTS_DIR"):
        fetch(spec_of(server.url("ranges", SERVED)), folder=tmp_path / "file" / "sub")


def test_damaged_file_is_replaced(
    server: FaultyServer, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder.mkdir()
    (folder / NAME).write_bytes(CONTENT[:-1])
    fetch(spec_of(server.url("ranges", SERVED)), folder=folder)
    assert (folder / NAME).read_bytes() == CONTENT
    assert "does not match its checksum" in caplog.text


def test_damaged_file_stays_when_it_cannot_be_replaced(folder: Path) -> None:
    folder.mkdir()
    (folder / NAME).write_bytes(b"damaged")
    with pytest.raises(WeightsError, match="cannot be reached"):
        fetch(spec_of("http://127.0.0.1:9/w.pt"), folder=folder)
    assert (folder / NAME).read_bytes() == b"damaged"


def test_xxh128_is_proved_as_well(server: FaultyServer, folder: Path) -> None:
    spec = spec_of(server.url("ranges", SERVED))
    assert spec.weights is not None
    right = replace(spec.weights, checksum=f"xxh128:{xxhash.xxh128_hexdigest(CONTENT)}")
    fetch(replace(spec, weights=right), folder=folder)
    wrong = replace(right, name="other.pt", checksum=f"xxh128:{'0' * 32}")
    with pytest.raises(WeightsError, match="hash of downloaded file"):
        fetch(replace(spec, weights=wrong), folder=folder)


def test_decoder_comes_along(server: FaultyServer, folder: Path) -> None:
    decoder = b"decoder"
    server.files["d.pt"] = decoder
    file = WeightFile(
        "cells_decoder.pt",
        (server.url("ranges", "d.pt"),),
        f"sha256:{hashlib.sha256(decoder).hexdigest()}",
    )
    spec = replace(spec_of(server.url("ranges", SERVED)), decoder=file)
    assert fetch(spec, folder=folder) == folder / NAME
    assert visible(folder) == sorted([NAME, "cells_decoder.pt"])


def test_licence_is_told_before_the_first_download_only(
    server: FaultyServer, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "napari_sam")
    spec = replace(spec_of(server.url("ranges", SERVED)), non_commercial=True)
    fetch(spec, folder=folder)
    assert "licence CC0-1.0; NOT for commercial use" in caplog.text
    caplog.clear()
    fetch(spec, folder=folder)
    assert caplog.text == ""


def test_download_waits_for_that_of_another_process(
    server: FaultyServer, folder: Path
) -> None:
    folder.mkdir()
    spec = spec_of(server.url("ranges", SERVED))
    with ThreadPoolExecutor(1) as pool:
        with FileLock(folder / f".{NAME}.lock"):
            waiting = pool.submit(fetch, spec, folder=folder)
            with pytest.raises(TimeoutError):
                waiting.result(timeout=0.2)
            (folder / NAME).write_bytes(CONTENT)  # the other process is done
        assert waiting.result(timeout=10) == folder / NAME
    assert server.requests == []


def test_two_processes_share_one_download(server: FaultyServer, folder: Path) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from napari_sam.weights.table import WeightFile, WeightSpec\n"
        "from napari_sam.weights.download import fetch\n"
        "name, url, checksum, folder = sys.argv[1:]\n"
        "file = WeightFile(name, (url,), checksum)\n"
        "spec = WeightSpec('n', 'vit_b', '', '', '', file)\n"
        "print(len(fetch(spec, folder=Path(folder)).read_bytes()))\n"
    )
    spec = spec_of(server.url("slow", SERVED))
    assert spec.weights is not None
    arguments = [NAME, spec.weights.urls[0], spec.weights.checksum, str(folder)]
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code, *arguments],
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    outputs = [process.communicate(timeout=60)[0] for process in processes]
    assert outputs == [f"{len(CONTENT)}\n"] * 2
    assert len(server.requests) == 1
    assert (folder / NAME).read_bytes() == CONTENT


def test_default_weights_are_bundled_or_their_absence_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    bundled = tmp_path / "default.safetensors"
    monkeypatch.setattr(download, "BUNDLED", bundled)
    with pytest.raises(WeightsError, match="come with the package are missing"):
        fetch("default")
    bundled.write_bytes(b"weights")
    assert fetch("default") == bundled
