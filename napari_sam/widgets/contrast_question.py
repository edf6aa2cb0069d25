"""Whether the model shall see another contrast, where many crops are embedded."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari.utils.notifications import show_info, show_warning
from qtpy.QtWidgets import QGridLayout, QLabel, QWidget

from napari_sam.widgets.controls import button

if TYPE_CHECKING:
    from napari_sam.widgets.panel import DockParts


class ContrastQuestion(QWidget):
    """Appears when a change of the contrast would make many embeddings useless.

    Parameters
    ----------
    parts : DockParts
    """

    def __init__(self, parts: DockParts) -> None:
        super().__init__()
        self.text = QLabel()
        self.text.setWordWrap(True)
        self.use = button(
            "Use the new one",
            "Let the model see what you see; crops are encoded anew when they are "
            "needed, or all of them by 'Embed this plane'",
        )
        self.leave = button(
            "Keep the earlier",
            "Clicks stay fast: the contrast changes on the screen only, until you "
            "choose another image",
        )
        layout = QGridLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.text, 0, 0, 1, 2)
        layout.addWidget(self.use, 1, 0)
        layout.addWidget(self.leave, 1, 1)
        self.use.clicked.connect(parts.bridge.use_contrast)
        self.leave.clicked.connect(self._keep)
        parts.bridge.contrast_held.connect(self._show)
        self._show(0)

    def _show(self, n_embedded: int) -> None:
        """Ask, or say nothing more: 0 crops."""
        self.setVisible(n_embedded > 0)
        self.leave.setVisible(True)
        if n_embedded:
            self.text.setText(
                f"{n_embedded} crops are embedded with the earlier contrast, which the "
                "model still sees. Shall it see the new one?"
            )
            show_info("The model sees the earlier contrast.")

    def _keep(self) -> None:
        self.text.setText("The model sees the earlier contrast.")
        self.leave.setVisible(False)


def warn_of_earlier_contrast(work: str) -> None:
    """Say that work goes on as it began, while clicks see another contrast.

    Parameters
    ----------
    work : str
        What goes on.
    """
    show_warning(
        f"{work} goes on with the contrast it began with; for the new one, stop and "
        "begin it again. Clicks see the new one."
    )
