"""Save a session, go on with it, and save it by itself every now and then."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.utils.notifications import show_info
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import (
    QCheckBox,
    QFileDialog,
    QGridLayout,
    QLabel,
    QPushButton,
    QWidget,
)

from napari_sam.engine.saved_session import Snapshot, read_session
from napari_sam.errors import FormatError, InputError, NapariSamError
from napari_sam.settings import autosave_dir

if TYPE_CHECKING:
    from napari_sam.widgets.panel import DockParts

LABELS = "labels.tif"

_REST_MS = 20_000  # after the last change
_MOST_BYTES = 2**28  # of labels; more would be copied for too long


class SavePanel(QWidget):
    """Save and restore; autosave into the user's data folder.

    Parameters
    ----------
    parts : DockParts
    """

    title = "Save"

    def __init__(self, parts: DockParts) -> None:
        super().__init__()
        self._parts = parts
        save = QPushButton("Save session ...")
        save.setToolTip("Save objects, prompts and how objects were made, in a folder")
        load = QPushButton("Go on with ...")
        load.setToolTip("Go on with a saved session of this image")
        self.autosave = QCheckBox("Autosave")
        self.autosave.setChecked(True)
        self.status = QLabel("")
        self.status.setWordWrap(True)
        layout = QGridLayout(self)
        layout.setContentsMargins(4, 4, 4, 4)
        layout.addWidget(save, 0, 0)
        layout.addWidget(load, 0, 1)
        layout.addWidget(self.autosave, 1, 0)
        layout.addWidget(self.status, 2, 0, 1, 2)
        save.clicked.connect(self._ask_save)
        load.clicked.connect(self._ask_load)
        self._rest = QTimer(self)
        self._rest.setSingleShot(True)
        self._rest.setInterval(_REST_MS)
        self._rest.timeout.connect(self._autosave)
        parts.session.history_changed.connect(self._changed)
        parts.bridge.image_changed.connect(self._show_folder)
        self._show_folder()

    def folder(self) -> Path | None:
        """Return where the image's session is saved by itself; None without image."""
        image = self._parts.bridge.image
        if image is None:
            return None
        of = f"{image.name} {image.source.path} {image.data.shape}"
        digest = hashlib.sha256(of.encode()).hexdigest()[:8]
        name = "".join(c if c.isalnum() else "-" for c in image.name)[:40]
        return autosave_dir() / f"{name}-{digest}"

    def save(self, folder: Path) -> None:
        """Save everything; the files are written in the worker."""
        session, bridge = self._parts.session, self._parts.bridge
        layer = bridge.labels
        # labels of a slide are large: they are exported, not copied
        pixels = None
        if layer is not None and not layer.multiscale:
            pixels = np.array(layer.data)
        snapshot = Snapshot(
            session,
            labels=None if pixels is None else LABELS,
            model=self._parts.network.name,
        )

        def write() -> Path:
            from napari_sam.writers import save_labels

            folder.mkdir(parents=True, exist_ok=True)
            if pixels is not None:
                save_labels(pixels, folder / LABELS, overwrite=True)
            snapshot.write(folder)
            return folder

        self._parts.worker.call(write, self._saved, slot="save")

    def load(self, folder: Path) -> None:
        """Go on with what was saved in a folder.

        Raises
        ------
        NapariSamError
            If it holds no session, or one of another image.
        """
        saved, drafts, records = read_session(folder)
        if self._parts.session.view is None:
            raise InputError("no image to go on with; open the image first")
        if saved.labels is not None:
            pixels = _read_labels(folder / saved.labels)
            layer = self._parts.bridge.need_labels()
            if pixels.shape != tuple(layer.data.shape):
                raise FormatError(
                    f"the session in {folder} is of an image of {pixels.shape} px, "
                    f"this one has {tuple(layer.data.shape)}; open its image first"
                )
            layer.data = pixels.astype(layer.data.dtype)
            self._parts.bridge.choose_labels(layer)
        self._parts.session.state.on_overlap = saved.on_overlap
        self._parts.session.restore(drafts, records)
        self._parts.bridge.go_to(saved.index)
        if saved.model is not None and saved.model != self._parts.network.name:
            show_info(f"The session was made with the model {saved.model}.")

    def close_panel(self) -> None:
        """Save no more."""
        self._rest.stop()

    def _changed(self) -> None:
        if self.autosave.isChecked():
            self._rest.start()

    def _autosave(self) -> None:
        folder, layer = self.folder(), self._parts.bridge.labels
        too_large = layer is not None and (
            layer.multiscale or layer.data.nbytes > _MOST_BYTES
        )
        if folder is not None and self._parts.session.view and not too_large:
            self.save(folder)

    def _saved(self, folder: Path) -> None:
        layer = self._parts.bridge.labels
        without = layer is not None and layer.multiscale
        note = "; labels of slides are saved with Export" if without else ""
        self.status.setText(f"Saved in {folder}{note}")

    def _show_folder(self, _image: Any = None) -> None:
        folder = self.folder()
        self.autosave.setToolTip(f"Save by itself, in {folder or autosave_dir()}")
        if folder is not None and (folder / "session.json").is_file():
            self.status.setText("This image has an autosaved session: Go on with ...")

    def _ask_save(self) -> None:
        folder = QFileDialog.getExistingDirectory(self, "Folder of the session")
        if folder:
            self._try(self.save, Path(folder))

    def _ask_load(self) -> None:
        begin = str(self.folder() or "")
        folder = QFileDialog.getExistingDirectory(self, "Folder of the session", begin)
        if folder:
            self._try(self.load, Path(folder))

    def _try(self, command: Any, folder: Path) -> None:
        try:
            command(folder)
        except NapariSamError as error:
            self._parts.network.failed.emit(error)


def _read_labels(path: Path) -> Any:
    from napari_sam.readers import open_image

    return np.asarray(open_image(path).array[...])
