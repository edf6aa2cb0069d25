"""Labels with everything that is hard to export, and a way to make polygons pixels."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from skimage.draw import disk

if TYPE_CHECKING:
    from numpy.typing import NDArray


@pytest.fixture
def scene() -> NDArray[np.uint32]:
    """Discs that touch, a ring with an object inside, pieces, corners, a large id."""
    labels = np.zeros((150, 220), np.uint32)
    labels[disk((40, 40), 30)] = 7
    labels[disk((40, 40), 18)] = 0
    labels[disk((40, 40), 8)] = 3  # inside the hole of 7
    labels[disk((60, 120), 25)] = 2**32 - 1
    labels[disk((60, 170), 25, shape=labels.shape)] = 12
    labels[100:110, 20:60] = labels[120:130, 20:60] = 5  # two pieces
    labels[110:120, 60:70] = 5  # that touch at corners
    labels[100:120:2, 100:120:2] = 9  # two hundred pieces
    labels[101:120:2, 101:120:2] = 9
    labels[149, 219] = 1
    labels[:, 200] = 4  # from the upper edge to the lower one
    labels[:, 201] = 4
    return labels


@pytest.fixture
def small_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let windows be small, so that objects reach over many of them."""
    monkeypatch.setattr("napari_sam.writers.objects.TILE", 32)
    monkeypatch.setattr("napari_sam.writers.objects._REGION_PIXELS", 2000)
