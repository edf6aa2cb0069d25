"""The library of torch is loaded before its import, and by another way."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.display

ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_torch_is_imported_and_computes_after_its_library_was_loaded() -> None:
    code = """
from pathlib import Path
from napari_sam.widgets.torch_library import load_torch_library
import sys
assert load_torch_library() and "torch" not in sys.modules
libraries = {line.split()[-1] for line in open("/proc/self/maps")}
before = {each for each in libraries if "libtorch_cpu" in each}
assert len(before) == 1
import torch
libraries = {line.split()[-1] for line in open("/proc/self/maps")}
assert before == {each for each in libraries if "libtorch_cpu" in each}
assert (torch.ones(3, 2) @ torch.ones(2)).tolist() == [2, 2, 2]
assert not load_torch_library()
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
