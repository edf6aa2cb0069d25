"""Work on objects that exist: open again, unite, split, repair, delete."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari.utils.notifications import show_info
from qtpy.QtWidgets import QGridLayout, QLabel, QPushButton, QSpinBox, QWidget

from napari_sam.engine import objects
from napari_sam.errors import InputError, NapariSamError
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
        self._united = 0  # the first of two objects to unite
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
                f"Ask again ({key_of('ask_again')})",
                "Ask the model in use with the prompts that made the object: choose "
                "another model above, then compare",
                self.ask_again,
            ),
            (
                f"Paint ({key_of('paint')})",
                "Paint the object with napari's brush; without an object a new one",
                self.paint,
            ),
            (
                f"Delete ({key_of('delete')})",
                "Delete the object on this plane",
                self.delete,
            ),
            (
                f"Unite ({key_of('merge')})",
                "Unite two objects: press it for one, then for the other",
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
        parts.bridge.choices_changed.connect(self._show_painting)

    def choose(self, object_id: int) -> None:
        """Let the buttons act on another object."""
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

    def ask_again(self) -> None:
        """Ask for the object with its old prompts and the model in use."""
        self._parts.session.ask_again(self.object_id.value())

    def paint(self) -> None:
        """Paint the object by hand; once more writes what was painted."""
        bridge = self._parts.bridge
        if bridge.is_painting:
            bridge.stop_painting()
            self._show_painting()
            if bridge.prompts is not None:  # its layer has gone, and none is selected
                bridge.prompts.use("points")
            return
        bridge.paint(self.object_id.value())
        if self._show_painting():
            show_info(
                "Paint in the layer 'paint here', then press Done; deleting the layer "
                "drops what was painted."
            )

    def _show_painting(self) -> bool:
        """Show on the button what it does now; whether there is a layer to paint."""
        is_painting = self._parts.bridge.is_painting
        text = "Done" if is_painting else "Paint"
        self.buttons["Paint"].setText(f"{text} ({key_of('paint')})")
        return is_painting

    def delete(self) -> None:
        """Delete the object."""
        objects.delete(self._parts.session, [self.object_id.value()])

    def merge(self) -> None:
        """Unite two objects: the first call tells one, the second the other."""
        chosen, first = self.object_id.value(), self._united
        if not chosen:
            raise InputError("no object is chosen; put the mouse on one")
        self._wait_for_other(0 if first else chosen)
        if first and first != chosen:
            self.choose(objects.merge(self._parts.session, [first, chosen]))

    def _wait_for_other(self, first: int) -> None:
        """Let the next object be united with this one; 0 waits for none."""
        self._united = first
        text = f"Unite with {first}" if first else "Unite"
        self.buttons["Unite"].setText(f"{text} ({key_of('merge')})")
        if first:
            show_info(
                f"Unite object {first} with another: put the mouse on that and press "
                f"{key_of('merge')}. On the same object it unites none."
            )

    def split(self) -> None:
        """Split the object."""
        objects.split(self._parts.session, self.object_id.value())

    def repair(self, how: Repair) -> None:
        """Smooth, fill, or drop islands."""
        number = self.object_id.value()
        if not objects.repair(self._parts.session, number, how):
            show_info(f"Object {number} needs nothing of that.")

    def _committed(self, ids: list[int]) -> None:
        self.choose(ids[-1])

    def _try(self, command: Callable[[], object]) -> None:
        try:
            command()
        except NapariSamError as error:
            self._parts.network.failed.emit(error)
