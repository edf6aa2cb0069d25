"""napari opens here and draws: what every test of the plugin stands on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    import napari


@pytest.mark.display
def test_viewer_draws_an_image(
    make_napari_viewer: Callable[..., napari.Viewer],
) -> None:
    plane = np.zeros((64, 64), np.uint8)
    plane[:, 32:] = 255
    viewer = make_napari_viewer(show=True)
    viewer.add_image(plane, interpolation2d="nearest")
    canvas = viewer.screenshot(canvas_only=True, flash=False)[..., 0]
    middle = canvas[canvas.shape[0] // 2]
    centre = len(middle) // 2
    assert middle[centre - 20] == 0
    assert middle[centre + 20] == 255
