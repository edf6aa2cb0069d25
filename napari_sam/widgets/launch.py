"""napari with a sample image and the dock, ready for the first click."""

from __future__ import annotations

from typing import TYPE_CHECKING

import napari

if TYPE_CHECKING:
    from napari_sam.widgets.dock import SegmentAnything

PLUGIN = "napari-sam-microscopy"
DOCK = "Segment Anything"


def open_demo(
    sample: str = "histology", *, show: bool = True
) -> tuple[napari.Viewer, SegmentAnything]:
    """Open a window with a sample image and the dock.

    Parameters
    ----------
    sample : str
        Key of a sample of this plugin.
    show : bool
        Whether the window is shown.

    Returns
    -------
    viewer : napari.Viewer
    dock : SegmentAnything
        The widget in the dock.
    """
    viewer = napari.Viewer(title="napari_sam", show=show)
    viewer.open_sample(PLUGIN, sample)
    _, dock = viewer.window.add_plugin_dock_widget(PLUGIN, DOCK)
    return viewer, dock


def run_demo(sample: str = "histology") -> None:
    """Open the demo and wait until its window is closed."""
    open_demo(sample)
    napari.run()
