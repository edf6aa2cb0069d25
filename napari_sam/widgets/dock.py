"""The dock: it joins session, layers, worker and panels, and binds the keys.

Nothing here needs torch; it is imported in the worker while the window is already
there. Layers for prompts follow once the dock is drawn, one at a time: napari takes a
tenth of a second or more for each.
"""

from __future__ import annotations

import logging
import weakref
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.utils.notifications import show_error, show_info, show_warning
from qtpy.QtCore import QEvent, QObject, Qt, QTimer
from qtpy.QtGui import QKeyEvent
from qtpy.QtWidgets import (
    QComboBox,
    QScrollArea,
    QTableView,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from napari_sam.engine.records import RECORDS, from_notes
from napari_sam.engine.session import Session
from napari_sam.errors import NapariSamError, NapariSamWarning, reason
from napari_sam.widgets.automatic_panel import AutomaticPanel
from napari_sam.widgets.bridge import LayerBridge, unbind
from napari_sam.widgets.embedding_panel import EmbeddingPanel
from napari_sam.widgets.export_panel import ExportPanel
from napari_sam.widgets.garbage import Garbage
from napari_sam.widgets.given_panel import GivenPanel
from napari_sam.widgets.keys import KEYS
from napari_sam.widgets.keys_panel import KeysPanel
from napari_sam.widgets.model_panel import ModelPanel
from napari_sam.widgets.network import Network
from napari_sam.widgets.objects_panel import ObjectsPanel
from napari_sam.widgets.panel import DockParts
from napari_sam.widgets.prompt_panel import PromptPanel
from napari_sam.widgets.review_panel import ReviewPanel
from napari_sam.widgets.save_panel import SavePanel
from napari_sam.widgets.stack_panel import StackPanel
from napari_sam.widgets.turns import in_turns
from napari_sam.widgets.workers import Worker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import napari
    from napari.layers import Layer

    from napari_sam.engine.records import ObjectRecord
    from napari_sam.widgets.keys import Command

logger = logging.getLogger(__name__)

# The docks of each viewer, the newest last.
_docks: weakref.WeakKeyDictionary[Any, list[SegmentAnything]] = (
    weakref.WeakKeyDictionary()
)

_FRESH_MS = 2000  # napari has selected an image that it has opened

_DRAWN_MS = 100  # a dock needs two or three rounds of the event loop to be drawn

PANELS: tuple[tuple[type[QWidget], bool], ...] = (
    (ModelPanel, True),
    (PromptPanel, True),
    (ObjectsPanel, False),
    (AutomaticPanel, False),
    (GivenPanel, False),
    (StackPanel, False),
    (EmbeddingPanel, False),
    (ReviewPanel, False),
    (ExportPanel, False),
    (SavePanel, False),
    (KeysPanel, False),
)
"""Panels from top to bottom, and whether they begin open. A panel is made with the
`DockParts`, has a `title`, and may have a method `close_panel`."""


class SegmentAnything(QWidget):
    """Segment Anything in one viewer.

    Parameters
    ----------
    napari_viewer : napari.Viewer
        napari gives it to a parameter of this name.
    model : str, default "default"
        Weights to begin with.
    """

    def __init__(self, napari_viewer: napari.Viewer, model: str = "default") -> None:
        super().__init__()
        # to plugins napari gives a proxy, whose layers are not those of events
        self.viewer = viewer = getattr(napari_viewer, "__wrapped__", napari_viewer)
        self.session = Session()
        self.worker = Worker(self)
        self.network = Network(self.session, self.worker)
        self.bridge = LayerBridge(viewer, self.session)
        self.parts = DockParts(
            viewer, self.session, self.bridge, self.worker, self.network
        )
        self.worker.failed.connect(self.tell)
        self.network.failed.connect(self.tell)
        self._garbage = Garbage(viewer, self._is_busy, self)
        self._is_closed = self._is_hovering = self._is_fresh = False
        self._bound: list[tuple[Any, str, Callable[..., object]]] = []
        self.panels: dict[str, QWidget] = {}
        self.headers: dict[str, QToolButton] = {}
        self._make_panels()
        hovers = self.panel(PromptPanel).hovers
        hovers.toggled.connect(lambda checked: self.hover(on=checked))
        self.bridge.layer_made.connect(self._bind_prompts)
        self.bridge.labels_changed.connect(self._find_records)
        self.bridge.choose_image(self._first_image())
        self.bridge.image_changed.connect(self._image_changed)
        self._early_clicks: list[tuple[float, ...]] = []
        self._is_early = True
        viewer.mouse_drag_callbacks.append(self._clicked_early)
        viewer.mouse_move_callbacks.append(self._moved)
        viewer.mouse_wheel_callbacks.append(self._turned)
        viewer.layers.selection.events.active.connect(self._selected)
        _docks.setdefault(viewer, []).append(self)
        self._bind_viewer()
        self._first_model = model
        QTimer.singleShot(_DRAWN_MS, self._begin)
        self.destroyed.connect(self.worker.stop)

    def _begin(self) -> None:
        """Get ready for the first click, now that the dock is drawn."""
        if not self._is_closed:
            # the first layer of points needs it, a quarter of a second
            self.worker.call(lambda: import_module("pandas"), self._point_first)

    def _point_first(self, _pandas: object) -> None:
        # torch takes seconds to import and keeps the interpreter busy meanwhile, so the
        # new layers are drawn before
        in_turns(
            self._prepare_points,
            self._use_points,
            self._take_early_clicks,
            self._prepare_preview,
            lambda: QTimer.singleShot(_DRAWN_MS, self._load_first),
        )

    def _prepare_points(self) -> None:
        if not self._is_closed and self.bridge.prompts is not None:
            self.bridge.prompts.prepare_points()

    def _use_points(self) -> None:
        prompts = self.bridge.prompts
        if not self._is_closed and prompts is not None and prompts.tool == "look":
            self.panel(PromptPanel).use("points")
        self._is_early = False

    def _take_early_clicks(self) -> None:
        prompts = self.bridge.prompts
        if not self._is_closed and prompts is not None:
            for at in self._early_clicks:
                prompts.points.add(prompts.points.world_to_data(at))

    def _load_first(self) -> None:
        if not self._is_closed and self.network.name is None:
            self.panel(ModelPanel).choose_model(self._first_model)

    def _image_changed(self, image: object) -> None:
        self._is_fresh = image is not None
        self.panel(PromptPanel).use("points")
        QTimer.singleShot(_DRAWN_MS, self._prepare_preview)
        QTimer.singleShot(_FRESH_MS, self._be_known)

    def _be_known(self) -> None:
        self._is_fresh = False

    def _selected(self, _event: object = None) -> None:
        # napari selects an image after it has told that it was added
        if self._is_fresh:
            QTimer.singleShot(0, self._point)

    def _point(self) -> None:
        """Let a first click point at an image that has just been opened."""
        active = self.viewer.layers.selection.active
        if not self._is_closed and active in self.bridge.images():
            self.panel(PromptPanel).use("points")

    def _prepare_preview(self) -> None:
        if not self._is_closed and self.bridge.prompts is not None:
            self.bridge.prompts.prepare_preview()

    def panel(self, kind: type[Any]) -> Any:
        """Return the panel of a class."""
        return self.panels[kind.title]

    def open_panel(self, kind: type[Any]) -> Any:
        """Show a panel as its header does; return it."""
        panel = self.panel(kind)
        self.headers[kind.title].setChecked(True)
        return panel

    def take_keys(self) -> None:
        """Bind the keys again that another dock has had."""
        self._bind_viewer()
        if self.bridge.labels is not None:
            self.bridge.bind_undo(self.bridge.labels)
        self.panel(PromptPanel).use("points")

    def tell(self, error: Exception) -> None:
        """Show an error as a notification; one of ours says what to do."""
        if isinstance(error, NapariSamError):
            show_error(str(error))
        elif isinstance(error, OSError):  # as good as told by the system
            where = f"{error.filename}: " if error.filename else ""
            show_error(f"{where}{reason(error)}. Your objects are safe in the window.")
        else:
            logger.error("unexpected", exc_info=error)
            show_error(
                f"{type(error).__name__}: {error}. This should not happen; your "
                "objects are safe. Try once more, and report it if it comes again."
            )

    def close_dock(self) -> None:
        """Stop the worker, take our layers away; twice does no harm."""
        if self._is_closed:
            return
        self._is_closed = True
        self._garbage.close()
        self.worker.stop()
        for panel in self.panels.values():
            if hasattr(panel, "close_panel"):
                panel.close_panel()
        self.viewer.mouse_drag_callbacks.remove(self._clicked_early)
        self.viewer.mouse_move_callbacks.remove(self._moved)
        self.viewer.mouse_wheel_callbacks.remove(self._turned)
        self.viewer.layers.selection.events.active.disconnect(self._selected)
        for owner, key, command in self._bound:
            unbind(owner, key, command)
        self.bridge.close()
        self.network.close()
        docks = _docks.setdefault(self.viewer, [])
        docks.remove(self)
        if docks:  # keys go back to those that are left
            docks[-1].take_keys()

    def event(self, event: QEvent) -> bool:
        """Close with the window, which deletes its docks without closing them."""
        if event.type() in (QEvent.Type.DeferredDelete, QEvent.Type.Close):
            self.close_dock()
        return bool(super().event(event))

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        """Leave letters and digits to the window; lists would search for them."""
        if (
            isinstance(event, QKeyEvent)
            and event.type() == QEvent.Type.KeyPress
            and event.text().strip()
        ):
            event.ignore()  # goes on to the parent
            return True
        return bool(super().eventFilter(watched, event))

    def _is_busy(self) -> bool:
        return self.session.is_waiting or self.worker.is_busy

    def _find_records(self, labels: Any) -> None:
        """Read how objects were made from the file of labels, whoever has opened it."""
        path = None if labels is None else labels.source.path
        if path is None or labels.metadata.get(RECORDS):
            return

        def read() -> dict[int, ObjectRecord]:
            from napari_sam.readers.notes import read_notes

            return from_notes(read_notes(path))

        def take(records: dict[int, ObjectRecord]) -> None:
            if records and labels is self.bridge.labels and not self.session.records:
                self.session.set_labels(self.session.labels, records)

        self.worker.call(read, take)

    def _first_image(self) -> Any:
        active = self.viewer.layers.selection.active
        images = self.bridge.images()
        return active if active in images else (images[-1] if images else None)

    def _make_panels(self) -> None:
        inner = QWidget()
        layout = QVBoxLayout(inner)
        layout.setContentsMargins(2, 2, 2, 2)
        layout.setSpacing(2)
        for kind, is_open in PANELS:
            panel = kind(self.parts)
            self.panels[panel.title] = panel
            self.headers[panel.title] = _header(panel, is_open=is_open)
            layout.addWidget(self.headers[panel.title])
            layout.addWidget(panel)
        layout.addStretch(1)
        for kind in (QComboBox, QTableView):
            for each in inner.findChildren(kind):
                each.installEventFilter(self)
        scroll = QScrollArea()
        scroll.setWidgetResizable(True)
        scroll.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        scroll.setWidget(inner)
        for title, header in self.headers.items():
            header.toggled.connect(_shows(scroll, self.panels[title]))
        outer = QVBoxLayout(self)
        outer.setContentsMargins(0, 0, 0, 0)
        outer.addWidget(scroll)
        self.setMinimumWidth(300)

    def _commands(self) -> dict[str, Callable[[], object]]:
        prompt, session = self.panel(PromptPanel), self.session
        return {
            "keep": prompt.keep,
            "reject": prompt.reject,
            "other_kind": prompt.other_kind,
            "tool": prompt.next_tool,
            "open": self._on_object("open"),
            "ask_again": self._on_object("ask_again"),
            "paint": self._paint,
            "delete": self._on_object("delete"),
            "merge": self._on_object("merge"),
            "split": self._on_object("split"),
            "follow": self.panel(StackPanel).follow,
            "next_doubtful": self.panel(StackPanel).next_doubtful,
            "answer_1": lambda: session.choose(0),
            "answer_2": lambda: session.choose(1),
            "answer_3": lambda: session.choose(2),
            "undo": session.undo,
            "redo": session.redo,
        }

    def _bind_viewer(self) -> None:
        """Take the keys that work with every layer; docks of one viewer share them."""
        for key in KEYS:
            if key.command == "hover":
                self.viewer.bind_key(key.everywhere, self._hover, overwrite=True)
                self._bound.append((self.viewer, key.everywhere, self._hover))
            elif key.everywhere:
                self._bind(self.viewer, key.everywhere, key.command)

    def _bind_prompts(self, layer: Layer) -> None:
        """Take the keys that work while a layer of prompts is selected."""
        for key in KEYS:
            if key.on_prompts and key.command not in ("undo", "redo"):
                self._bind(layer, key.on_prompts, key.command)

    def _bind(self, owner: Any, key: str, command: Command) -> None:
        def pressed(_owner: Any) -> None:
            dock = self if owner is not self.viewer else self._addressed()
            prompts = dock.bridge.prompts
            if key in ("Enter", "Escape") and prompts and prompts.finish_drawing():
                return  # as these keys do in napari
            try:
                dock._commands()[command]()  # noqa: SLF001 - another one of ours
            except NapariSamWarning as warning:
                show_warning(str(warning))
            except NapariSamError as error:
                self.tell(error)

        owner.bind_key(key, pressed, overwrite=True)
        self._bound.append((owner, key, pressed))

    def _addressed(self) -> SegmentAnything:
        """Return the dock that is meant: whose layer is active, else the newest."""
        docks = _docks.setdefault(self.viewer, [])
        active = self.viewer.layers.selection.active
        for dock in reversed(docks):
            if active is not None and active in dock.bridge.own_layers():
                return dock
        return docks[-1] if docks else self

    def _on_object(self, name: str) -> Callable[[], None]:
        """Return a command for the object under the mouse."""

        def command() -> None:
            panel = self.panel(ObjectsPanel)
            if panel.choose_under_mouse():
                getattr(panel, name)()
            else:
                show_info("No object is under the mouse.")

        return command

    def _paint(self) -> None:
        """Paint the object under the mouse, else the chosen one; again: point."""
        bridge, panel = self.bridge, self.panel(ObjectsPanel)
        if bridge.painted_id and not bridge.is_painting:
            self.panel(PromptPanel).use("points")  # napari's brush has written it
            return
        if not bridge.is_painting:
            panel.choose_under_mouse()
        panel.paint()

    def _hover(self, _owner: Any) -> Iterator[None]:
        """Show what clicks would give while the key is held."""
        dock = self._addressed()
        dock.hover(on=True)
        yield
        dock.hover(on=False)

    def hover(self, *, on: bool) -> None:
        """Show, or no longer show, what a click would give under the mouse."""
        on = on or self.panel(PromptPanel).hovers.isChecked()
        self._is_hovering = on
        if on:
            self.bridge.hover()
        else:
            self.session.peek(None)

    def _clicked_early(self, _viewer: Any, event: Any) -> Iterator[None]:
        """Remember a click that comes before the layer of points takes it."""
        prompts, at = self.bridge.prompts, tuple(event.position)
        looks = self.viewer.layers.selection.active in self.bridge.images()
        yield
        is_click = event.type != "mouse_move"
        if looks and is_click and prompts and self._is_early:
            self._early_clicks.append(at)

    def _moved(self, _viewer: Any, _event: Any) -> None:
        # one question at a time: the next one asks about where the mouse is by then
        if self._is_hovering and not self.session.is_waiting:
            self.bridge.hover()

    def _turned(self, _viewer: Any, event: Any) -> None:
        """Go through the answers; napari leaves Shift and the wheel alone."""
        if "Shift" in event.modifiers and self._addressed() is self:
            # some systems turn a wheel with Shift into a sideways one
            turn = float(np.sum(event.delta))
            if turn:
                self.session.choose_next(1 if turn < 0 else -1)
                event.handled = True


def _shows(scroll: QScrollArea, panel: QWidget) -> Callable[[bool], None]:
    """Return what brings a panel into view once it is opened, and laid out."""

    def show(is_open: bool) -> None:
        if is_open:
            QTimer.singleShot(_DRAWN_MS, reach)

    def reach() -> None:
        try:
            scroll.ensureWidgetVisible(panel, 0, 0)
        except RuntimeError:  # the dock was deleted meanwhile
            return

    return show


def _header(panel: Any, *, is_open: bool) -> QToolButton:
    """Return a button that opens and closes a panel."""
    button = QToolButton()
    button.setText(panel.title)
    button.setCheckable(True)
    button.setChecked(is_open)
    button.setToolTip(f"Show or hide: {panel.title}")
    button.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextBesideIcon)
    button.setStyleSheet("QToolButton { border: none; font-weight: bold; }")

    def show(checked: bool) -> None:
        button.setArrowType(
            Qt.ArrowType.DownArrow if checked else Qt.ArrowType.RightArrow
        )
        panel.setVisible(checked)

    button.toggled.connect(show)
    show(is_open)
    return button
