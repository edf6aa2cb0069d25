"""The shell scripts behind ./demo and ./check, and the runner of the checks."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parent.parent
SCRIPTS = ROOT / "scripts"
SHELL_FILES = [ROOT / "demo", ROOT / "check", ROOT / ".ci" / "run"]
SHELL_FILES += sorted(SCRIPTS.glob("*.sh"))

pytestmark = pytest.mark.skipif(os.name != "posix", reason="shell scripts")


def load_run_checks() -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        "run_checks", SCRIPTS / "run_checks.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def run_checks() -> ModuleType:
    return load_run_checks()


def shell(code: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run ``code`` after sourcing messages.sh, with PATH and ``environment`` only."""
    return subprocess.run(
        ["sh", "-c", f". '{SCRIPTS}/messages.sh'; {code}"],
        cwd=cwd,
        env={"PATH": os.environ["PATH"], **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def fake_python(folder: Path, condition: str) -> Path:
    """A program that answers ``-c CODE`` with success where ``condition`` holds."""
    path = folder / "fake-python"
    path.write_text(f'#!/bin/sh\ncase "$2" in {condition}) exit 0;; esac\nexit 1\n')
    path.chmod(0o755)
    return path


@pytest.mark.parametrize("path", SHELL_FILES, ids=lambda path: path.name)
def test_shell_syntax(path: Path) -> None:
    subprocess.run(["sh", "-n", path], check=True)


@pytest.mark.parametrize("path", SHELL_FILES[:3], ids=lambda path: path.name)
def test_commands_are_executable(path: Path) -> None:
    assert os.access(path, os.X_OK)


def test_an_old_python_is_named_with_what_to_do(tmp_path: Path) -> None:
    python = fake_python(tmp_path, "nothing")
    result = shell("find_python", tmp_path, PYTHON=str(python))
    assert result.returncode == 1
    assert "Python 3.11 or newer is needed" in result.stderr
    assert "apt-get install python3" in result.stderr


def test_a_missing_venv_module_is_named_with_what_to_do(tmp_path: Path) -> None:
    python = fake_python(tmp_path, "*version_info*")
    result = shell("find_python", tmp_path, PYTHON=str(python))
    assert result.returncode == 1
    assert "apt-get install python3-venv" in result.stderr


def test_this_python_will_do(tmp_path: Path) -> None:
    result = shell("find_python", tmp_path, PYTHON=sys.executable)
    assert result.stdout.strip() == sys.executable


def test_a_home_that_is_not_ours_is_replaced_by_a_folder_of_the_project(
    tmp_path: Path,
) -> None:
    result = shell('echo "$HOME"', tmp_path, HOME="/nonexistent")
    assert result.stdout.strip() == str(tmp_path / ".venv-home")


def test_without_home_that_of_the_user_is_taken_if_it_is_there(tmp_path: Path) -> None:
    code = "import os; print(os.path.expanduser('~'))"
    known = subprocess.run(
        [sys.executable, "-c", code], env={}, capture_output=True, text=True, check=True
    ).stdout.strip()
    expected = known if os.access(known, os.W_OK) else str(tmp_path / ".venv-home")
    assert shell('echo "$HOME"', tmp_path).stdout.strip() == expected


def test_threads_spin_briefly_unless_the_user_said_otherwise(tmp_path: Path) -> None:
    show = 'echo "${OMP_WAIT_POLICY:-} ${GOMP_SPINCOUNT:-}"'
    assert shell(show, tmp_path).stdout.strip() == "PASSIVE 3000"
    own = shell(show, tmp_path, OMP_WAIT_POLICY="ACTIVE")
    assert own.stdout.strip() == "ACTIVE"


def test_find_torch_prints_where_torch_is() -> None:
    import torch

    command = [sys.executable, SCRIPTS / "find_torch.py"]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert Path(result.stdout.strip()) == Path(torch.__file__).parent.parent


def test_find_torch_is_silent_where_there_is_none() -> None:
    # -S: no site-packages
    command = [sys.executable, "-S", SCRIPTS / "find_torch.py"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout, result.stderr) == (1, "", "")


def test_all_legs_run_and_one_failure_fails_the_whole(
    run_checks: ModuleType, capfd: pytest.CaptureFixture[str]
) -> None:
    legs = [
        run_checks.Leg("bad", (sys.executable, "-c", "raise SystemExit(3)")),
        run_checks.Leg("absent", ("no-such-program-anywhere",)),
        run_checks.Leg("good", (sys.executable, "-c", "print('it ran')")),
    ]
    outcomes = [run_checks.run_leg(leg) for leg in legs]
    assert [outcome.status for outcome in outcomes] == [3, 127, 0]
    assert run_checks.summarise(outcomes) == 1
    lines = capfd.readouterr().out.splitlines()
    assert "it ran" in lines
    assert lines[-2:] == ["failed: bad, absent", "0 passed, 2 failed, 0 skipped"]


def test_a_leg_counts_its_tests(
    run_checks: ModuleType, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    tests = tmp_path / "test_it.py"
    tests.write_text(
        "import pytest\n"
        "def test_a(): pass\n"
        "def test_b(): pass\n"
        "def test_c(): raise ValueError\n"
        "def test_d(): pytest.skip()\n"
    )
    command = (sys.executable, "-m", "pytest", "-q", "--rootdir", str(tmp_path))
    options = ("-p", "no:cacheprovider", "--junitxml={report}", str(tests))
    outcome = run_checks.run_leg(run_checks.Leg("tests", (*command, *options)))
    assert (outcome.passed, outcome.failed, outcome.skipped) == (2, 1, 1)
    assert run_checks.summarise([outcome]) == 1
    assert capfd.readouterr().out.splitlines()[-1] == "2 passed, 1 failed, 1 skipped"


@pytest.mark.parametrize(("ci", "status"), [("true", 1), ("", 0)])
def test_a_window_that_cannot_open_is_a_failure_only_on_ci(
    ci: str, status: int
) -> None:
    hidden = ("DISPLAY", "WAYLAND_DISPLAY")
    environment = {k: v for k, v in os.environ.items() if k not in hidden}
    plugins = ("-p", "no:napari", "-p", "no:pytest-qt", "-p", "no:cacheprovider")
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "tests/test_viewer.py", *plugins],
        cwd=ROOT,
        env=environment | {"CI": ci},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == status, result.stdout
    assert ("CI=true and this test could not run" in result.stdout) == bool(ci)
    assert ("1 skipped" in result.stdout) == (not ci)
