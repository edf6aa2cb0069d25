"""Outlines as SVG, read back as XML and rasterised by shapely."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from napari_sam.errors import InputError
from napari_sam.writers.svg import save_svg
from tests.writers.polygons import even_odd, paint

if TYPE_CHECKING:
    from pathlib import Path

SVG = "{http://www.w3.org/2000/svg}"


def rings(commands: str) -> list[list[tuple[int, int]]]:
    """Corners (x, y) of a path of M, H, V and Z."""
    found: list[list[tuple[int, int]]] = []
    for name, numbers in re.findall(r"([MHVZ])([\d ]*)", commands):
        values = [int(number) for number in numbers.split()]
        if name == "M":
            found.append([(values[0], values[1])])
        elif name == "H":
            found[-1].append((values[0], found[-1][-1][1]))
        elif name == "V":
            found[-1].append((found[-1][-1][0], values[0]))
    return found


@pytest.mark.usefixtures("small_windows")
def test_a_plane_comes_back_exactly(tmp_path: Path, scene: Any) -> None:
    root = ElementTree.parse(save_svg(scene, tmp_path / "a.svg")).getroot()
    assert root.get("viewBox") == "0 0 220 150"
    back = np.zeros_like(scene)
    colours = set()
    for path in root.iter(f"{SVG}path"):
        number = int((path.get("id") or "").removeprefix("object-"))
        paint(back, even_odd(rings(path.get("d") or "")), number)
        colours.add(path.get("stroke"))
    assert_array_equal(back, scene)
    assert len(colours) == len(np.unique(scene)) - 1


def test_a_stack_is_refused(tmp_path: Path, scene: Any) -> None:
    with pytest.raises(InputError, match="SVG holds one plane; choose a plane"):
        save_svg(np.stack([scene, scene]), tmp_path / "a.svg")
    assert list(tmp_path.iterdir()) == []
