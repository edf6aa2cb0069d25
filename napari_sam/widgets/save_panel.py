"""Save a session, go on with it, and save it by itself every now and then."""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.utils.notifications import show_error, show_info
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QCheckBox, QFileDialog, QGridLayout, QLabel, QWidget

from napari_sam.engine.label_store import LabelStore, write_chunks
from napari_sam.engine.saved_session import (
    SESSION,
    PixelWriter,
    Snapshot,
    read_session,
)
from napari_sam.errors import FormatError, InputError, NapariSamError, file_errors
from napari_sam.settings import autosave_dir
from napari_sam.widgets.controls import button
from napari_sam.widgets.geometry import folder_of, full_array, spatial_shape
from napari_sam.widgets.stored_labels import STORE

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari.layers import Labels

    from napari_sam.engine.draft import Draft
    from napari_sam.engine.records import ObjectRecord
    from napari_sam.engine.saved_session import SavedSession
    from napari_sam.labels import PlaneIndex
    from napari_sam.widgets.panel import DockParts

_REST_MS = 20_000  # after the last change
_MOST_BYTES = 2**28  # of labels; more would be copied for too long


@dataclass(frozen=True, slots=True)
class _Read:
    """What a folder held.

    Parameters
    ----------
    saved, drafts, records
        From `read_session`.
    labels : array, LabelStore or None
    """

    saved: SavedSession
    drafts: dict[PlaneIndex, Draft]
    records: dict[int, ObjectRecord]
    labels: Any


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
        # written in the worker; what has not been written is kept, in case it stops
        self._writing: dict[Path, Callable[[], None]] = {}
        # autosaves that this dock has made or gone on with
        self._own: set[Path] = set()
        self._with_labels: set[Path] = set()
        self._earlier: Path | None = None  # an autosave that can be gone on with
        save = button(
            "Save session ...",
            "Save objects, prompts and how objects were made, in a folder",
        )
        load = button("Go on with ...", "Go on with a saved session of this image")
        self.go_on = button(
            "Go on with the autosaved session", "Take up the work on this image again"
        )
        self.autosave = QCheckBox("Autosave")
        self.autosave.setChecked(True)
        self.status = QLabel("")
        self.status.setWordWrap(True)
        layout = QGridLayout(self)
        layout.setContentsMargins(4, 4, 4, 4)
        layout.addWidget(save, 0, 0)
        layout.addWidget(load, 0, 1)
        layout.addWidget(self.go_on, 1, 0, 1, 2)
        layout.addWidget(self.autosave, 2, 0)
        layout.addWidget(self.status, 3, 0, 1, 2)
        save.clicked.connect(self._ask_save)
        load.clicked.connect(self._ask_load)
        self.go_on.clicked.connect(self._load_autosaved)
        self._rest = QTimer(self)
        self._rest.setSingleShot(True)
        self._rest.setInterval(_REST_MS)
        self._rest.timeout.connect(self._autosave)
        parts.session.history_changed.connect(self._changed)
        parts.bridge.image_changed.connect(self._show_folder)
        parts.bridge.leaving.connect(self._hurry)
        self._show_folder()

    def folder(self) -> Path | None:
        """Return where the image's session is saved by itself; None without image."""
        image = self._parts.bridge.image
        if image is None:
            return None
        of = f"{image.name} {image.source.path} {full_array(image).shape}"
        digest = hashlib.sha256(of.encode()).hexdigest()[:8]
        name = "".join(c if c.isalnum() else "-" for c in image.name)[:40]
        return autosave_dir() / f"{name}-{digest}"

    def save(self, folder: Path) -> None:
        """Save everything; the files are written in the worker."""
        parts = self._parts
        labels = _pixel_writer(parts.bridge.labels)
        snapshot = Snapshot(parts.session, labels=labels, model=parts.network.name)

        def write() -> None:
            snapshot.write(folder)

        self._writing[folder] = write

        def end() -> None:
            if self._writing.get(folder) is write:  # nothing newer waits
                del self._writing[folder]

        def saved(_result: None) -> None:
            end()
            self.status.setText(f"Saved in {folder}")

        def failed(error: Exception) -> None:
            if folder != self.folder():  # what saves itself is tried again at the end
                end()
            self._not_saved(folder, error)

        parts.worker.call(write, saved, failed, slot=("save", folder))

    def load(self, folder: Path) -> None:
        """Go on with what was saved in a folder, once the worker has read it.

        Labels that have objects are left alone; those of the session get a layer.

        Raises
        ------
        InputError
            If there is no image.
        """
        session, bridge = self._parts.session, self._parts.bridge
        view, image = session.view, bridge.image
        if view is None or image is None:
            raise InputError("no image to go on with; open the image first")
        shape = spatial_shape(image)

        def read() -> _Read:
            saved, drafts, records = read_session(folder)
            labels = None
            if saved.labels is not None:
                labels = _read_labels(folder / saved.labels)
            found = shape if labels is None else tuple(labels.shape)
            if found != shape or len(saved.index) != len(view.index):
                raise FormatError(
                    f"the session in {folder} is of an image of {found} px, this one "
                    f"has {shape}; open its image first"
                )
            return _Read(saved, drafts, records, labels)

        def go_on(found: _Read) -> None:
            if bridge.image is image:
                self._own.add(folder)
                self._go_on(found)

        self.status.setText("Reading ...")
        self._parts.worker.call(read, go_on, self._not_read)

    def _not_read(self, error: Exception) -> None:
        self._show_folder()
        self._parts.worker.failed.emit(error)

    def _go_on(self, found: _Read) -> None:
        session, bridge, saved = self._parts.session, self._parts.bridge, found.saved
        if bridge.image is None:
            return
        if isinstance(found.labels, LabelStore):
            bridge.make_labels(found.labels)
        elif found.labels is not None:
            layer = bridge.labels
            if layer is None or layer.multiscale or np.any(layer.data):
                layer = bridge.make_labels()
            layer.data = found.labels.astype(layer.data.dtype)
            bridge.choose_labels(layer)
        session.state.on_overlap = saved.on_overlap
        if len(saved.limits) == (3 if bridge.image.rgb else 1):
            bridge.image.contrast_limits = saved.limits[0]
        session.state.diameter = saved.diameter
        bridge.use_scale(saved.scale)
        bridge.look()
        session.restore(found.drafts, found.records)
        bridge.go_to(saved.index)
        self._rest.stop()  # what has just been read need not be saved
        self._show_folder()
        if saved.model is not None and saved.model != self._parts.network.name:
            show_info(f"The session was made with the model {saved.model}.")

    def close_panel(self) -> None:
        """Write what has not been written, and save no more."""
        self._hurry()
        for write in list(self._writing.values()):
            try:
                write()
            except (NapariSamError, OSError) as error:  # the window closes all the same
                show_error(f"The session could not be saved: {error}")
        self._writing.clear()
        self._parts.session.history_changed.disconnect(self._changed)
        self._parts.bridge.image_changed.disconnect(self._show_folder)
        self._parts.bridge.leaving.disconnect(self._hurry)

    def _changed(self) -> None:
        if self.autosave.isChecked():
            self._rest.start()

    def _hurry(self) -> None:
        """Save now what would be saved soon."""
        if self._rest.isActive():
            self._autosave()

    def _autosave(self) -> None:
        self._rest.stop()
        folder, layer = self.folder(), self._parts.bridge.labels
        if (
            folder is None
            or not self._parts.session.view
            or _bytes_of(layer) > _MOST_BYTES
        ):
            return
        if layer is None and folder in self._with_labels:
            return  # labels that were deleted stay saved
        if layer is not None:
            self._with_labels.add(folder)
        if folder not in self._own:
            try:
                self._earlier = _set_aside(folder)
            except NapariSamError as error:
                self._not_saved(folder, error)
                return
            self._own.add(folder)
        self.save(folder)

    def _not_saved(self, folder: Path, error: Exception) -> None:
        self.status.setText(f"Not saved in {folder}")
        self._parts.worker.failed.emit(error)

    def _show_folder(self, _image: Any = None) -> None:
        folder = self.folder()
        self.autosave.setToolTip(f"Save by itself, in {folder or autosave_dir()}")
        waits = (
            folder is not None
            and folder not in self._own
            and (folder / SESSION).is_file()
        )
        self._earlier = folder if waits else None
        self.go_on.setVisible(waits)
        self.status.setText("")
        if waits:
            self.status.setText("This image has been worked on before.")
            show_info("Autosaved work: see the panel Save")

    def _load_autosaved(self) -> None:
        if self._earlier is not None:
            self._try(self.load, self._earlier)

    def _ask_save(self) -> None:
        image = self._parts.bridge.image
        begin = "" if image is None else folder_of(image)
        folder = QFileDialog.getExistingDirectory(self, "Folder of the session", begin)
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


def _pixel_writer(layer: Labels | None) -> PixelWriter | None:
    """Return what writes labels as they are now."""
    if layer is None:
        return None
    if STORE in layer.metadata:
        chunks = layer.metadata[STORE].copied_chunks()
        return PixelWriter(".zarr", partial(write_chunks, chunks))
    pixels = np.array(layer.data)

    def write(path: Path) -> None:
        from napari_sam.writers.tiff import save_labels

        save_labels(pixels, path)

    return PixelWriter(".tif", write)


def _bytes_of(layer: Labels | None) -> int:
    """How much there is to write, about."""
    if layer is None:
        return 0
    if STORE in layer.metadata:
        return sum(len(each) for each in layer.metadata[STORE].copied_chunks().values())
    return int(layer.data.nbytes)


def _set_aside(folder: Path) -> Path | None:
    """Keep an autosave of an earlier day beside the one that is made now; where."""
    if not (folder / SESSION).is_file():
        return None
    before = folder.with_name(f"{folder.name}-before")
    shutil.rmtree(before, ignore_errors=True)
    with file_errors(folder, "set the earlier session aside"):
        folder.rename(before)
    return before


def _read_labels(path: Path) -> Any:
    if path.suffix == ".zarr":
        return LabelStore.load(path)
    from napari_sam.readers import open_image

    return np.asarray(open_image(path).array[...])
