"""Every snippet of README and docs runs as it stands.

A fenced block of ``python`` or ``bash`` is run, unless the line above it says why not:
``<!-- not run: needs the network -->``. The blocks of a page run in one folder, one
after the other; the Python blocks of a page share their names. In the folder lie
``cells.tif`` (16 bit, bright discs), ``cells.png`` (8 bit RGB), and ``data/`` with
``images/`` and ``labels/`` for training.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").rglob("*.md")),
]
FENCE = re.compile(
    r"^(?P<indent> *)(?P<fence>```+)(?P<language>\w*)[^\n]*\n"
    r"(?P<code>.*?)^(?P=indent)(?P=fence) *$",
    re.MULTILINE | re.DOTALL,
)
REASON = re.compile(r"<!-- not run: (?P<reason>\S.*?) -->\s*$")


@dataclass(frozen=True)
class Block:
    """One fenced block of a page, and why it is not run (empty: it is)."""

    language: str
    code: str
    line: int
    reason: str


def blocks(text: str) -> list[Block]:
    """All blocks of a page that are Python or shell."""
    found = []
    for match in FENCE.finditer(text):
        if match["language"] in ("python", "bash"):
            reason = REASON.search(text[: match.start()])
            code = re.sub(f"^{match['indent']}", "", match["code"], flags=re.MULTILINE)
            line = text.count("\n", 0, match.start()) + 1
            found.append(
                Block(match["language"], code, line, reason["reason"] if reason else "")
            )
    return found


def prepare(folder: Path, image: np.ndarray, labels: np.ndarray) -> None:
    """Put the files there that snippets speak of."""
    tifffile.imwrite(folder / "cells.tif", image.astype(np.uint16) * 16)
    Image.fromarray(np.stack([image] * 3, axis=-1)).save(folder / "cells.png")
    for kind, array in (("images", image), ("labels", labels.astype(np.uint16))):
        (folder / "data" / kind).mkdir(parents=True)
        tifffile.imwrite(folder / "data" / kind / "cells.tif", array)


def run_python(page: list[Block], folder: Path) -> None:
    """Run all Python blocks of a page in one process."""
    code = "\n".join(block.code for block in page)
    run(
        [sys.executable, "-W", "error::DeprecationWarning:__main__", "-c", code], folder
    )


def run_shell(block: Block, folder: Path) -> None:
    """Run a block of the shell; it stops at the first command that fails."""
    run(["bash", "-eu", "-c", block.code], folder)


def run(command: list[str], folder: Path) -> None:
    """Run a command with the scripts of this Python on the path."""
    scripts = sysconfig.get_path("scripts")
    environment = os.environ | {
        "NAPARI_SAM_CACHE_DIR": str(folder / "user-cache"),
        "PATH": os.pathsep.join((scripts, os.environ.get("PATH", ""))),
        "OMP_NUM_THREADS": "1",
    }
    result = subprocess.run(
        command,
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, f"{command[-1]}\n{result.stdout}\n{result.stderr}"


@pytest.mark.slow
@pytest.mark.parametrize(
    "page", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix()
)
def test_snippets_run(
    page: Path, cells: tuple[np.ndarray, np.ndarray], tmp_path: Path
) -> None:
    prepare(tmp_path, *cells)
    todo = [block for block in blocks(page.read_text("utf-8")) if not block.reason]
    python = [block for block in todo if block.language == "python"]
    if python:
        run_python(python, tmp_path)
    if any(block.language == "bash" for block in todo):
        if shutil.which("bash") is None:
            pytest.skip("no bash")
        for block in todo:
            if block.language == "bash":
                run_shell(block, tmp_path)


def test_blocks_are_found_with_their_reasons() -> None:
    text = (
        "# Title\n\n```python\nx = 1\n```\n\n"
        "<!-- not run: needs the network -->\n```bash\ncurl example.org\n```\n\n"
        "- item\n\n    ```bash\n    echo hi\n    ```\n\n```text\nno\n```\n"
    )
    assert blocks(text) == [
        Block("python", "x = 1\n", 3, ""),
        Block("bash", "curl example.org\n", 8, "needs the network"),
        Block("bash", "echo hi\n", 14, ""),
    ]


def test_a_snippet_that_fails_fails_the_test(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="ZeroDivisionError"):
        run_python([Block("python", "1 / 0\n", 1, "")], tmp_path)
    with pytest.raises(AssertionError, match="no-such-command"):
        run_shell(Block("bash", "no-such-command\necho done\n", 1, ""), tmp_path)
