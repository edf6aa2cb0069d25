"""Objects from prompts that were not clicked: of a file, or of a layer of napari."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

from napari.utils.notifications import show_warning
from qtpy.QtWidgets import (
    QFileDialog,
    QGridLayout,
    QHBoxLayout,
    QLabel,
    QProgressBar,
    QVBoxLayout,
    QWidget,
)

from napari_sam.prompts import PROMPT_ENDINGS
from napari_sam.widgets.activity import Activity
from napari_sam.widgets.contrast_question import warn_of_earlier_contrast
from napari_sam.widgets.controls import LayerBox, button, show_value
from napari_sam.widgets.geometry import drawn_of, folder_of, spatial_shape
from napari_sam.widgets.keeping import Keeper

if TYPE_CHECKING:
    from napari_sam.engine.given import Answered, Given
    from napari_sam.engine.jobs import Step
    from napari_sam.engine.records import ObjectRecord
    from napari_sam.engine.request import PlaneView
    from napari_sam.labels import LabelEdit, LabelTarget
    from napari_sam.widgets.panel import DockParts
    from napari_sam.widgets.workers import Task

_ASK = "Ask for them"

SavedAs: TypeAlias = Literal["table", "points", "shapes"]
_SAVED_AS: dict[str, SavedAs] = {
    "Table of all prompts on this plane (*.csv)": "table",
    "Points, for napari (*.csv)": "points",
    "Boxes, areas and lines, for napari (*.csv)": "shapes",
}


class GivenPanel(QWidget):
    """Take prompts from files and layers; save those of the objects.

    Parameters
    ----------
    parts : DockParts
    """

    title = "Prompts of a file or layer"

    def __init__(self, parts: DockParts) -> None:
        super().__init__()
        self._parts = parts
        self._task: Task | None = None
        self._place: object = None  # the image that is asked about
        self._activity = Activity("Ask for objects")
        self._keeper = Keeper(parts)
        self._make_controls()
        parts.bridge.choices_changed.connect(self.refresh)
        parts.bridge.image_changed.connect(self._image_changed)
        parts.bridge.contrast_used.connect(self._contrast_used)
        parts.network.loaded.connect(self.stop)
        self.refresh()
        self._show(None)

    def refresh(self, *_: object) -> None:
        """Show the layers that can be chosen."""
        layers = self._parts.bridge.given_layers()
        chosen = self.layer.layer
        self.layer.offer(
            layers, chosen if chosen in layers else (layers[-1] if layers else None)
        )
        self.run.setEnabled(bool(layers) or self._task is not None)

    def load_file(self, path: Path) -> None:
        """Take the prompts of a file; it is read in the worker."""
        view = self._parts.session.view
        if view is None:
            show_warning("No image to point at: open one, and show it in 2D.")
            return

        def read() -> list[Given]:
            from napari_sam.engine.given import read_given

            return read_given(path, view.index)

        self._parts.worker.call(read, lambda found: self._take(found, path.name, view))

    def load_layer(self) -> None:
        """Take the points or shapes of the chosen layer."""
        from napari_sam.engine.given import given_by

        view, image = self._parts.session.view, self._parts.bridge.image
        layer = self.layer.layer
        if view is None or image is None or layer is None:
            show_warning("Choose a layer of points or shapes, and show an image in 2D.")
            return
        drawn = drawn_of(layer, image, self._parts.viewer.dims)
        self._take(given_by(drawn, view.index), layer.name, view)

    def save_file(self, path: Path, kind: SavedAs = "table") -> None:
        """Write the prompts of objects.

        Parameters
        ----------
        path : Path
        kind : {"table", "points", "shapes"}
            A table of all prompts on this plane; or napari's own file of the points,
            or of the shapes, of all planes.
        """
        session = self._parts.session
        if session.view is None:
            show_warning("No image is shown in 2D.")
            return
        index = session.view.index
        records = [
            each
            for _, each in sorted(session.records.items())
            if kind != "table" or each.index == index
        ]

        def write() -> str:
            from napari_sam.engine.records import drawn_by
            from napari_sam.prompts.drawn import write_drawn
            from napari_sam.prompts.table import write_drawn_table

            drawn = drawn_by(records, on_plane=kind == "table")
            if kind == "table":
                write_drawn_table(drawn, path)
                wanted = drawn
            else:
                wanted = drawn.of_kinds(points=kind == "points")
                if not wanted.kinds:
                    return f"Not saved: the objects have no {kind}."
                write_drawn(wanted, path)
            n_objects = len(set(wanted.objects or ()))
            noun = "object" if n_objects == 1 else "objects"
            return f"Prompts of {n_objects} {noun} are in {path.name}."

        self._parts.worker.call(write, self.status.setText)

    def stop(self, *_: object) -> None:
        """Stop; nothing is kept."""
        if self._task is not None:
            self._parts.worker.cancel(self._task)
            self._task = None
            self.status.setText("Stopped; nothing was kept.")
        self._show(None)

    def close_panel(self) -> None:
        """Listen no more."""
        self._parts.bridge.choices_changed.disconnect(self.refresh)
        self._parts.bridge.image_changed.disconnect(self._image_changed)
        self._parts.bridge.contrast_used.disconnect(self._contrast_used)
        self._parts.network.loaded.disconnect(self.stop)
        self._keeper.close()
        self.stop()

    def _make_controls(self) -> None:
        self.layer = LayerBox(
            "no such layer",
            "Points or Shapes of another program: each point is an object (those with "
            "the same number in the feature 'object' are one), each shape is one",
            always=False,
        )
        self.run = button(_ASK, "Ask for the objects of the layer, and keep them")
        self.open = button(
            "From a file ...",
            "Points and shapes saved by napari, a table (CSV), GeoJSON of QuPath, "
            "regions of ImageJ",
        )
        self.save = button(
            "Save prompts ...",
            "Write the points, boxes, areas and lines of the objects: as a table (this "
            "plane), or as napari's own points or shapes (all planes)",
        )
        self.progress = QProgressBar()
        self.progress.setFormat("%v of %m objects")
        self.status = QLabel(
            "One object comes back as prompts to correct; several are asked for and "
            "kept as one step."
        )
        self.status.setWordWrap(True)
        line = QHBoxLayout()
        line.addWidget(self.layer, 1)
        line.addWidget(self.run)
        files = QGridLayout()
        files.addWidget(self.open, 0, 0)
        files.addWidget(self.save, 0, 1)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(4, 4, 4, 4)
        layout.addLayout(line)
        layout.addLayout(files)
        layout.addWidget(self.progress)
        layout.addWidget(self.status)
        self.run.clicked.connect(self._run_or_stop)
        self.open.clicked.connect(self._ask_file)
        self.save.clicked.connect(self._ask_save)

    def _run_or_stop(self) -> None:
        if self._task is None:
            self.load_layer()
        else:
            self.stop()

    def _take(self, given: list[Given], name: str, view: PlaneView) -> None:
        """Show the prompts of one object; ask for several."""
        session, image = self._parts.session, self._parts.bridge.image
        if image is None or session.view is not view:
            self.status.setText("Not taken: another image or plane was chosen.")
            return
        if len(given) == 1 and given[0].index == view.index:
            session.point_at(given[0].draft)
            self.status.setText(f"Prompts of {name}: correct the object, or keep it.")
            return
        planes = self._parts.network.planes
        if planes is None:
            show_warning("The model is still being loaded; try again in a moment.")
            return
        lengths = spatial_shape(image)
        places = {
            each.index
            for each in given
            if all(
                at is None or 0 <= at < n
                for at, n in zip(each.index, lengths, strict=True)
            )
        }
        if not places:
            self.status.setText(f"No prompts for this image in {name}.")
            return
        order = sorted(places, key=lambda at: [x or 0 for x in at])
        views = [self._parts.bridge.view_of(at, view) for at in order]
        self._place = view.image_key
        self._show(len(given))
        self._activity.begin()
        completes = self._parts.network.completes

        def ask() -> object:
            from napari_sam.engine.given import ask_for

            return ask_for(planes, given, views, complete=completes)

        def keep(answered: list[Answered]) -> None:
            self._keep(answered, len(given), name)

        self._task = self._parts.worker.start(
            "ask for objects",
            ask,  # type: ignore[arg-type]  # a job, which this module does not import
            on_step=self._show_step,
            on_done=keep,
            on_error=self._failed,
        )

    def _keep(self, answered: list[Answered], n_given: int, name: str) -> None:
        self._task = None
        self._show(None)
        planes = self._parts.network.planes
        if planes is None:
            return

        def make(target: LabelTarget) -> tuple[list[LabelEdit], list[ObjectRecord]]:
            from napari_sam.engine.given import edits_of

            return edits_of(answered, target, planes)

        def told(n_kept: int) -> None:
            lost = n_given - n_kept
            lie = "lies" if lost == 1 else "lie"
            why = f"; {lost} {lie} beside the image or on other objects" if lost else ""
            self.status.setText(f"Kept {n_kept} of {n_given} objects of {name}{why}.")

        self._keeper.keep(make, told, f" of {name}")

    def _show_step(self, step: Step) -> None:
        show_value(self.progress, step.done, step.total)
        self._activity.show(step.done, step.total)

    def _failed(self, error: Exception) -> None:
        self._task = None
        self._show(None)
        self.status.setText("Stopped by an error; nothing was kept.")
        self._parts.worker.failed.emit(error)

    def _image_changed(self, _image: object = None) -> None:
        self.stop()
        self.refresh()

    def _contrast_used(self) -> None:
        if self._task is not None:
            warn_of_earlier_contrast("Asking for objects")

    def _show(self, n_objects: int | None) -> None:
        """Show how far it is; None when nothing is asked for."""
        if n_objects is None:
            self._activity.end()
        else:
            show_value(self.progress, 0, n_objects)
        self.progress.setVisible(n_objects is not None)
        self.run.setText(_ASK if n_objects is None else "Stop")
        self.run.setEnabled(n_objects is not None or self.layer.layer is not None)

    def _ask_file(self) -> None:
        endings = " ".join(f"*{ending}" for ending in PROMPT_ENDINGS)
        path, _ = QFileDialog.getOpenFileName(
            self, "Prompts", self._folder(), f"Prompts ({endings})"
        )
        if path:
            self.load_file(Path(path))

    def _folder(self) -> str:
        image = self._parts.bridge.image
        return "" if image is None else folder_of(image)

    def _ask_save(self) -> None:
        proposed = str(Path(self._folder()) / "prompts.csv")
        path, chosen = QFileDialog.getSaveFileName(
            self, "Save prompts", proposed, ";;".join(_SAVED_AS)
        )
        if path:
            self.save_file(Path(path), _SAVED_AS.get(chosen, "table"))
