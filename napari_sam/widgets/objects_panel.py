"""Work on objects that exist: open again, unite, split, repair, delete."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtWidgets import QGridLayout, QLabel, QPushButton, QSpinBox, QWidget

from napari_sam.engine import objects
from napari_sam.errors import NapariSamError
from napari_sam.widgets.keys import key_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_sam.engine.objects import Repair
    from napari_sam.widgets.panel import DockParts

_MAX_ID = 2**31 - 1


class ObjectsPanel(QWidget):
    """Buttons for the chosen object; keys for the one under the mouse.

    Parameters
    ----------
    parts : DockParts
    """

    title = "Objects"

    def __init__(self, parts: DockParts) -> None:
        super().__init__()
        self._parts = parts
        self._before = 0
        self.object_id = QSpinBox()
        self.object_id.setMaximum(_MAX_ID)
        self.object_id.setSpecialValueText("none")
        self.object_id.setToolTip("Object that the buttons act on; the one kept last")
        layout = QGridLayout(self)
        layout.setContentsMargins(4, 4, 4, 4)
        layout.setSpacing(2)
        layout.addWidget(QLabel("Object"), 0, 0)
        layout.addWidget(self.object_id, 0, 1)
        buttons: tuple[tuple[str, str, Callable[[], object]], ...] = (
            (
                f"Open again ({key_of('open')})",
                "Refine the object with points, or edit it with napari's brush first",
                self.open,
            ),
            (
                f"Delete ({key_of('delete')})",
                "Delete the object on this plane",
                self.delete,
            ),
            (
                f"Unite ({key_of('merge')})",
                "Unite the object with the one chosen before it",
                self.merge,
            ),
            (
                f"Split ({key_of('split')})",
                "Split at the positive points, one in each part, or along a drawn line",
                self.split,
            ),
            ("Smooth", "Smooth the outline", lambda: self.repair("smooth")),
            ("Fill holes", "Fill the holes", lambda: self.repair("fill")),
            (
                "Drop islands",
                "Keep the largest part of the object",
                lambda: self.repair("islands"),
            ),
        )
        self.buttons: dict[str, QPushButton] = {}
        for place, (text, tip, command) in enumerate(buttons):
            button = QPushButton(text)
            button.setToolTip(tip)
            button.clicked.connect(lambda _=False, command=command: self._try(command))
            layout.addWidget(button, 1 + place // 2, place % 2)
            self.buttons[text.partition(" (")[0]] = button
        parts.session.committed.connect(self._committed)

    def choose(self, object_id: int) -> None:
        """Let the buttons act on another object."""
        if object_id != self.object_id.value():
            self._before = self.object_id.value()
            self.object_id.setValue(object_id)

    def choose_under_mouse(self) -> bool:
        """Let the buttons act on the object under the mouse; whether there is one."""
        found = self._parts.bridge.object_under_cursor()
        if found:
            self.choose(found)
        return bool(found)

    def open(self) -> None:
        """Take the object up again."""
        self._parts.session.open_object(self.object_id.value())

    def delete(self) -> None:
        """Delete the object."""
        objects.delete(self._parts.session, [self.object_id.value()])

    def merge(self) -> None:
        """Unite the object with the one chosen before it."""
        chosen, before = self.object_id.value(), self._before
        ids = [each for each in (before, chosen) if each]
        self.choose(objects.merge(self._parts.session, ids))
        self._before = 0

    def split(self) -> None:
        """Split the object."""
        objects.split(self._parts.session, self.object_id.value())

    def repair(self, how: Repair) -> None:
        """Smooth, fill, or drop islands."""
        objects.repair(self._parts.session, self.object_id.value(), how)

    def _committed(self, ids: list[int]) -> None:
        self.choose(ids[-1])

    def _try(self, command: Callable[[], object]) -> None:
        try:
            command()
        except NapariSamError as error:
            self._parts.network.failed.emit(error)
