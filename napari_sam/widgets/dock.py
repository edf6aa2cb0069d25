"""The dock: it joins session, layers, worker and panels, and binds the keys.

Nothing here needs torch; it is imported in the worker while the window is already
there.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from napari.utils.notifications import show_error, show_warning
from qtpy.QtCore import QEvent, Qt, QTimer
from qtpy.QtWidgets import QScrollArea, QToolButton, QVBoxLayout, QWidget

from napari_sam.engine.session import Session
from napari_sam.errors import NapariSamError, NapariSamWarning
from napari_sam.widgets.automatic_panel import AutomaticPanel
from napari_sam.widgets.bridge import LayerBridge
from napari_sam.widgets.embedding_panel import EmbeddingPanel
from napari_sam.widgets.export_panel import ExportPanel
from napari_sam.widgets.keys import KEYS
from napari_sam.widgets.model_panel import ModelPanel
from napari_sam.widgets.network import Network
from napari_sam.widgets.objects_panel import ObjectsPanel
from napari_sam.widgets.panel import DockParts
from napari_sam.widgets.prompt_panel import PromptPanel
from napari_sam.widgets.review_panel import ReviewPanel
from napari_sam.widgets.save_panel import SavePanel
from napari_sam.widgets.stack_panel import StackPanel
from napari_sam.widgets.workers import Worker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import napari

logger = logging.getLogger(__name__)

_DRAWN_MS = 100  # a dock needs two or three rounds of the event loop to be drawn

PANELS: tuple[tuple[type[QWidget], bool], ...] = (
    (ModelPanel, True),
    (PromptPanel, True),
    (ObjectsPanel, False),
    (AutomaticPanel, False),
    (StackPanel, False),
    (EmbeddingPanel, False),
    (ReviewPanel, False),
    (ExportPanel, False),
    (SavePanel, False),
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
        self._is_closed = self._is_hovering = False
        self._bound: list[tuple[Any, str]] = []
        self.panels: dict[str, QWidget] = {}
        self.headers: dict[str, QToolButton] = {}
        self._make_panels()
        self.bridge.image_changed.connect(self._bind_prompts)
        self.bridge.choose_image(self._first_image())
        self._bind_viewer()
        # torch takes seconds to import and keeps the interpreter busy meanwhile, so
        # the dock is drawn first
        self._first_model = model
        QTimer.singleShot(_DRAWN_MS, self._load_first)
        self.destroyed.connect(self.worker.stop)

    def _load_first(self) -> None:
        if not self._is_closed and self.network.name is None:
            self.panel(ModelPanel).choose_model(self._first_model)

    def panel(self, kind: type[Any]) -> Any:
        """Return the panel of a class."""
        return self.panels[kind.title]

    def open_panel(self, kind: type[Any]) -> Any:
        """Show a panel as its header does; return it."""
        panel = self.panel(kind)
        self.headers[kind.title].setChecked(True)
        return panel

    def tell(self, error: Exception) -> None:
        """Show an error as a notification; one of ours says what to do."""
        if isinstance(error, NapariSamError):
            show_error(str(error))
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
        self.worker.stop()
        for panel in self.panels.values():
            if hasattr(panel, "close_panel"):
                panel.close_panel()
        self.viewer.mouse_move_callbacks.remove(self._moved)
        for owner, key in self._bound:
            owner.bind_key(key, None)
        self.bridge.close()
        self.network.close()

    def event(self, event: QEvent) -> bool:
        """Close with the window, which deletes its docks without closing them."""
        if event.type() in (QEvent.Type.DeferredDelete, QEvent.Type.Close):
            self.close_dock()
        return bool(super().event(event))

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
        scroll = QScrollArea()
        scroll.setWidgetResizable(True)
        scroll.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        scroll.setWidget(inner)
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
        self.viewer.mouse_move_callbacks.append(self._moved)
        hover = next(each for each in KEYS if each.command == "hover")
        self.viewer.bind_key(hover.everywhere, self._hover, overwrite=True)
        self._bound.append((self.viewer, hover.everywhere))
        for key in KEYS:
            command = self._commands().get(key.command)
            if command is not None and key.everywhere:
                self._bind(self.viewer, key.everywhere, command)

    def _bind_prompts(self, _image: object = None) -> None:
        prompts = self.bridge.prompts
        if prompts is None:
            return
        prompts.restored.connect(self._bind_prompts, unique=True)
        for key in KEYS:
            command = self._commands().get(key.command)
            if command is None or not key.on_prompts:
                continue
            self._bind(prompts.points, key.on_prompts, command)
            if key.on_prompts not in ("Enter", "Escape"):  # they end a drawing there
                self._bind(prompts.shapes, key.on_prompts, command)
        self.panel(PromptPanel).use("points")

    def _bind(self, owner: Any, key: str, command: Callable[[], object]) -> None:
        def pressed(_owner: Any) -> None:
            try:
                command()
            except NapariSamWarning as warning:
                show_warning(str(warning))
            except NapariSamError as error:
                self.tell(error)

        owner.bind_key(key, pressed, overwrite=True)
        self._bound.append((owner, key))

    def _on_object(self, name: str) -> Callable[[], None]:
        """Return a command for the object under the mouse."""

        def command() -> None:
            panel = self.panel(ObjectsPanel)
            if panel.choose_under_mouse():
                getattr(panel, name)()

        return command

    def _hover(self, _owner: Any) -> Iterator[None]:
        """Show what clicks would give while the key is held."""
        self._is_hovering = True
        self.bridge.hover()
        yield
        self._is_hovering = False
        self.session.peek(None)

    def _moved(self, _viewer: Any, _event: Any) -> None:
        # one question at a time: the next one asks about where the mouse is by then
        if self._is_hovering and not self.session.is_waiting:
            self.bridge.hover()


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
