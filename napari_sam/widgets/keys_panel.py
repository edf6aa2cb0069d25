"""All keys, to look at."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QLabel, QVBoxLayout, QWidget

from napari_sam.widgets.keys import KEYS

if TYPE_CHECKING:
    from napari_sam.widgets.panel import DockParts

_MOUSE = (
    ("Shift + click", "a point of the other kind"),
    ("Shift + wheel", "the next answer to an ambiguous click"),
)


class KeysPanel(QWidget):
    """The table of keys, and what the mouse does with Shift.

    Parameters
    ----------
    parts : DockParts
    """

    title = "Keys"

    def __init__(self, parts: DockParts) -> None:
        super().__init__()
        rows = [(each.labels, each.what) for each in KEYS]
        self.table = QLabel(
            "<table cellspacing=3>"
            + "".join(f"<tr><td><b>{k}</b></td><td>{w}</td></tr>" for k, w in rows)
            + "".join(f"<tr><td><b>{k}</b></td><td>{w}</td></tr>" for k, w in _MOUSE)
            + "</table>"
        )
        self.table.setTextFormat(Qt.TextFormat.RichText)
        self.table.setWordWrap(True)
        self.table.setToolTip(
            "Letters work with every layer, digits, Enter and Esc with our layers"
        )
        layout = QVBoxLayout(self)
        layout.setContentsMargins(4, 4, 4, 4)
        layout.addWidget(self.table)
