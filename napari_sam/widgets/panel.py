"""What a panel is, and what it is given."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import napari

    from napari_sam.engine.session import Session
    from napari_sam.widgets.bridge import LayerBridge
    from napari_sam.widgets.network import Network
    from napari_sam.widgets.workers import Worker


@dataclass(frozen=True, slots=True, eq=False)
class DockParts:
    """What the panels of one dock share.

    Parameters
    ----------
    viewer : napari.Viewer
    session : Session
    bridge : LayerBridge
    worker : Worker
        The thread that owns the device.
    network : Network
        The weights in use, and the planes embedded with them.
    """

    viewer: napari.Viewer
    session: Session
    bridge: LayerBridge
    worker: Worker
    network: Network
