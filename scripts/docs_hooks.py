"""Hooks of MkDocs: the page of the command line is written by the command line."""

import subprocess
import sys
from typing import Any

MARK = "<!-- commands -->"


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Put the description of all commands in the place of the mark."""
    if MARK not in markdown:
        return markdown
    command = [sys.executable, "-m", "typer", "napari_sam.cli", "utils", "docs"]
    result = subprocess.run(
        [*command, "--name", "napari-sam"], check=True, capture_output=True, text=True
    )
    # its own title stands on the page already
    return markdown.replace(MARK, result.stdout.split("\n", 1)[1])
