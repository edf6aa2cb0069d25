"""A file is there as a whole or not at all."""

from __future__ import annotations

import errno
import os
import re
import sys
from typing import TYPE_CHECKING

import pytest

from napari_sam.errors import FileError, MissingFileError
from napari_sam.writers.atomic import atomic

if TYPE_CHECKING:
    from pathlib import Path


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_file_appears_when_it_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    with atomic(path, overwrite=False) as part:
        part.write_text("new")
        assert part.parent == path.parent
        assert not path.exists()
    assert path.read_text() == "new"
    assert names(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_failed_write_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, error: type[BaseException]
) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")

    def write() -> None:
        with atomic(path, overwrite=True) as part:
            part.write_text("half")
            raise error

    with pytest.raises(error):
        write()
    assert path.read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


def test_an_existing_file_is_kept_unless_told(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(FileError, match=r"a\.txt: exists already; ") as caught:
        atomic(path, overwrite=False).__enter__()
    assert caught.value.errno == errno.EEXIST
    with atomic(path, overwrite=True) as part:
        part.write_text("new")
    assert path.read_text() == "new"


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match=r"results: no such folder"):
        atomic(tmp_path / "results" / "a.txt", overwrite=False).__enter__()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such limit")
def test_a_full_disk_is_named_and_leaves_nothing(tmp_path: Path) -> None:
    import resource

    def write() -> None:
        with atomic(tmp_path / "a.bin", overwrite=False) as part:
            part.write_bytes(bytes(200_000))

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(FileError, match=r"a\.bin: cannot write, ") as caught:
            write()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert caught.value.errno == errno.EFBIG
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    ("number", "what_to_do"),
    [
        (errno.ENOSPC, "make room there, or choose another folder"),
        (errno.EROFS, "choose another folder"),
        (errno.EACCES, "ask for access, or choose another folder"),
    ],
)
def test_what_to_do_is_told_where_nothing_can_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, what_to_do: str
) -> None:
    told = f"a.bin: cannot write, {os.strerror(number)}; {what_to_do}"

    def refuse(self: Path, *_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number), str(self))

    with monkeypatch.context() as patch:
        # a folder that cannot be written refuses to remove, too, what is not there
        patch.setattr("pathlib.Path.write_bytes", refuse)
        patch.setattr("pathlib.Path.unlink", refuse)
        with (
            pytest.raises(FileError, match=re.escape(told)),
            atomic(tmp_path / "a.bin", overwrite=False) as part,
        ):
            part.write_bytes(b"1")
    assert names(tmp_path) == []


def test_a_folder_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.txt").mkdir()

    def write() -> None:
        with atomic(tmp_path / "a.txt", overwrite=True) as part:
            part.write_text("new")

    with pytest.raises(FileError, match=r"a\.txt: cannot write, "):
        write()
    assert names(tmp_path) == ["a.txt"]


@pytest.mark.skipif(
    sys.platform == "win32" or os.geteuid() == 0, reason="root may write everywhere"
)
def test_a_folder_without_permission_is_named(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with (
        pytest.raises(FileError, match="cannot write, Permission denied"),
        atomic(tmp_path / "a.txt", overwrite=False) as part,
    ):
        part.write_text("new")
