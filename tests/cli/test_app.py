"""Help, version, messages and exit status of the command line."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import napari_sam

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.cli.conftest import Ended

COMMANDS = [
    "segment", "run", "embed", "predict", "propagate", "link", "export", "train",
    "evaluate", "demo", "models", "cache",
]  # fmt: skip


def in_new_python(code: str, **environment: str) -> str:
    command = [sys.executable, "-c", code]
    return subprocess.run(
        command, check=True, capture_output=True, text=True, env=environment
    ).stdout


def test_help_names_all_commands_within_a_second() -> None:
    program = Path(sysconfig.get_path("scripts")) / "napari-sam"
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    result = subprocess.run(
        [program, "--help"], check=True, capture_output=True, text=True
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    # time of the processor, not of the clock: the machine may be busy
    spent = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    assert spent < 1
    for command in COMMANDS:
        assert f" {command} " in result.stdout


def test_help_loads_nothing_heavy() -> None:
    modules = json.loads(
        in_new_python(
            "import json, sys, napari_sam.cli; print(json.dumps(sorted(sys.modules)))"
        )
    )
    assert not {"torch", "numpy", "zarr", "skimage", "scipy", "napari"} & set(modules)


def test_python_runs_the_package_as_the_command_itself() -> None:
    command = [sys.executable, "-m", "napari_sam", "--version"]
    result = subprocess.run(command, check=True, capture_output=True, text=True)
    assert result.stdout.split()[-1] == napari_sam.__version__


def test_only_the_program_says_how_long_threads_spin() -> None:
    show = (
        "print(*map(os.environ.get, ['OMP_WAIT_POLICY', 'GOMP_SPINCOUNT']),"
        " 'torch' in sys.modules)"
    )
    assert in_new_python(f"import os, sys, napari_sam.cli; {show}").split() == [
        "None", "None", "False"
    ]  # fmt: skip
    ran = (
        "import os, sys, napari_sam.cli as cli\n"
        "try: cli.main(['--version'])\n"
        f"except SystemExit: {show}"
    )
    version = napari_sam.__version__
    assert in_new_python(ran).split() == [version, "PASSIVE", "3000", "False"]
    own = in_new_python(ran, OMP_WAIT_POLICY="ACTIVE").split()
    assert own == [version, "ACTIVE", "None", "False"]
    own = in_new_python(ran, GOMP_SPINCOUNT="7").split()
    assert own == [version, "None", "7", "False"]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(cli: Callable[..., Ended], command: str) -> None:
    ended = cli(command, "--help")
    assert ended.status == 0
    assert "Usage" in ended.out


@pytest.mark.parametrize(
    "arguments",
    [
        ["sgement"],
        ["segment"],
        ["segment", "--no-such-option", "x.tif"],
        ["segment", "--mode", "no_such_mode", "x.tif"],
    ],
)
def test_wrong_usage_is_status_2(
    cli: Callable[..., Ended], arguments: list[str]
) -> None:
    assert cli(*arguments).status == 2


def test_an_error_is_one_line_on_the_standard_error(
    cli: Callable[..., Ended], weights: Path
) -> None:
    ended = cli("segment", "none.tif", "--model", weights)
    assert (ended.status, ended.out) == (2, "")
    (line,) = ended.err.splitlines()[-1:]
    assert line.startswith("napari-sam: ")
    assert "none.tif" in line
    assert "Traceback" not in ended.err


def test_weights_that_are_not_there_are_status_1(
    cli: Callable[..., Ended], image: Path
) -> None:
    ended = cli("segment", image, "--model", "no_such_model")
    assert ended.status == 1
    assert "no_such_model" in ended.err


def test_a_folder_that_cannot_be_written_is_status_1(
    cli: Callable[..., Ended], image: Path, weights: Path
) -> None:
    # a file stands where the folder should be
    ended = cli("segment", image, "--model", weights, "-o", image / "out")
    assert ended.status == 1
    assert "Traceback" not in ended.err
