"""Run every leg of ./check, all of them even when one fails, and sum up.

Two test legs share the tests between them: in ``.venv-headless``, which has neither
napari nor Qt, run all tests that need no window; in ``.venv`` run those that do.
So nothing runs twice, and one leg proves that the library needs no GUI.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(".venv") / "bin"
HEADLESS = Path(".venv-headless") / "bin" / "python"
SCREEN = "-screen 0 1600x1000x24"


@dataclass(frozen=True, slots=True)
class Leg:
    """One command to run.

    Parameters
    ----------
    name : str
        What the summary calls it.
    command : tuple of str
        Program and arguments; ``{report}`` stands for a file for JUnit XML.
    environment : dict of str to str
        Added to the environment of this process.
    """

    name: str
    command: tuple[str, ...]
    environment: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a leg ended: exit status, seconds, and the tests it counted."""

    name: str
    status: int
    seconds: float
    passed: int = 0
    failed: int = 0
    skipped: int = 0


def test_legs(arguments: list[str]) -> list[Leg]:
    """Legs that run pytest; ``arguments`` are handed on to it."""
    options = ("-q", "--junitxml={report}", *arguments)
    # Looking for doctests imports modules, which those of the window cannot bear.
    windowless = ("-m", "not display and not network", "--ignore=napari_sam/widgets")
    headless = Leg(
        "tests without napari",
        (str(HEADLESS), "-m", "pytest", *windowless, *options),
        {"EXPECT_HEADLESS": "1"},
    )
    window: tuple[str, ...] = (str(BIN / "python"), "-m", "pytest", "-m", "display")
    environment = {"LIBGL_ALWAYS_SOFTWARE": "1"}
    if not imports_qt():
        # both plugins end the whole pytest run when a library of theirs is missing
        window += ("-p", "no:napari", "-p", "no:pytest-qt")
    if shutil.which("xvfb-run") and shutil.which("xauth"):
        window = ("xvfb-run", "-a", "-s", SCREEN, *window)
        environment["QT_QPA_PLATFORM"] = "xcb"
    return [headless, Leg("tests with a window", (*window, *options), environment)]


def imports_qt() -> bool:
    """Whether napari's layers and a Qt binding can be imported in ``.venv``."""
    probe = "import napari.layers; from qtpy import QtWidgets"
    result = subprocess.run(
        [BIN / "python", "-c", probe], cwd=ROOT, capture_output=True, check=False
    )
    return result.returncode == 0


def all_legs(arguments: list[str]) -> list[Leg]:
    """Legs in the order in which they run."""
    return [
        Leg("ruff check", (str(BIN / "ruff"), "check", ".")),
        Leg("ruff format", (str(BIN / "ruff"), "format", "--check", ".")),
        Leg("mypy", (str(BIN / "mypy"),)),
        Leg("lint-imports", (str(BIN / "lint-imports"), "--no-logo")),
        Leg("npe2 validate", (str(BIN / "npe2"), "validate", "napari.yaml")),
        Leg(
            "docs",
            (str(BIN / "mkdocs"), "build", "--strict", "--quiet"),
            {"NO_MKDOCS_2_WARNING": "1"},  # an advertisement of the theme's
        ),
        *test_legs(arguments),
    ]


def run_leg(leg: Leg) -> Outcome:
    """Run one leg; its output goes to the terminal."""
    print(f"\n===== {leg.name} =====", flush=True)
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [part.replace("{report}", str(report)) for part in leg.command]
        try:
            status = subprocess.run(
                command, cwd=ROOT, env=os.environ | leg.environment, check=False
            ).returncode
        except OSError as error:
            print(f"{leg.name}: {error}", file=sys.stderr)
            status = 127
        passed, failed, skipped = count_tests(report)
    seconds = time.monotonic() - start
    return Outcome(leg.name, status, seconds, passed, failed, skipped)


def count_tests(report: Path) -> tuple[int, int, int]:
    """Passed, failed and skipped tests of a JUnit file; zeros where there is none."""
    if not report.exists():
        return 0, 0, 0
    total = failed = skipped = 0
    # written a moment ago by our own pytest, so no hostile XML
    for suite in ElementTree.parse(report).getroot().iter("testsuite"):
        total += int(suite.get("tests", "0"))
        failed += int(suite.get("failures", "0")) + int(suite.get("errors", "0"))
        skipped += int(suite.get("skipped", "0"))
    return total - failed - skipped, failed, skipped


def summarise(outcomes: list[Outcome]) -> int:
    """Print a table and the line of counts; return the exit status.

    A leg that fails without a failed test (a lint, or pytest that did not start)
    counts as one failure, so that the last line never says 0 failed in vain.
    """
    print("\n===== summary =====")
    for outcome in outcomes:
        word = "ok  " if outcome.status == 0 else "FAIL"
        print(f"{word}  {outcome.name:<22}{outcome.seconds:7.1f} s")
    bad = [outcome for outcome in outcomes if outcome.status != 0]
    passed = sum(outcome.passed for outcome in outcomes)
    failed = sum(max(outcome.failed, 1) for outcome in bad)
    skipped = sum(outcome.skipped for outcome in outcomes)
    if bad:
        print("failed: " + ", ".join(outcome.name for outcome in bad))
    print(f"{passed} passed, {failed} failed, {skipped} skipped", flush=True)
    return 1 if bad else 0


def main(arguments: list[str]) -> int:
    """Run all legs and return the exit status of ./check."""
    return summarise([run_leg(leg) for leg in all_legs(arguments)])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
