"""Going through the objects of a plane, the most doubtful first."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari.utils.notifications import show_info
from qtpy.QtWidgets import QVBoxLayout, QWidget

from napari_sam.engine import objects
from napari_sam.engine.records import ObjectRecord
from napari_sam.engine.review import review_rows
from napari_sam.errors import InputError
from napari_sam.widgets.review_form import ReviewForm

if TYPE_CHECKING:
    from napari_sam.engine.review import ReviewRow
    from napari_sam.tiling import CropGrid
    from napari_sam.widgets.panel import DockParts

_ZOOM = 6  # canvas sides for one object: it is seen with its surroundings


class ReviewPanel(QWidget):
    """Table of the objects on this plane; a line moves the camera.

    Parameters
    ----------
    parts : DockParts
    """

    title = "Review"

    def __init__(self, parts: DockParts) -> None:
        super().__init__()
        self._parts = parts
        self.form = ReviewForm()
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.form)
        self.form.object_chosen.connect(self._go_to)
        self.form.state_asked.connect(self._set_state)
        self.form.reopen_asked.connect(parts.session.open_object)
        self.form.deletion_asked.connect(self._delete)
        self.form.refresh_asked.connect(self.refresh)
        session = parts.session
        session.labels_changed.connect(self._something_changed)
        session.records_changed.connect(self._something_changed)
        session.view_changed.connect(self._something_changed)

    def refresh(self) -> None:
        """Read the objects of the plane, in the worker."""
        session, planes = self._parts.session, self._parts.network.planes
        view, target = session.view, session.labels
        if view is None or target is None:
            self.form.set_rows([])
            return
        records = dict(session.records)

        def work() -> list[ReviewRow]:
            grid: CropGrid | None = None
            if planes is not None:
                from napari_sam.engine.embed import default_grid

                grid = default_grid(view.source, planes.model)
            return review_rows(target, view.index, records, grid)

        self._parts.worker.call(work, self.form.set_rows, slot="review")

    def showEvent(self, event: object) -> None:
        """Read the objects when the panel is opened."""
        super().showEvent(event)
        self.refresh()

    def close_panel(self) -> None:
        """Listen no more."""
        session = self._parts.session
        session.labels_changed.disconnect(self._something_changed)
        session.records_changed.disconnect(self._something_changed)
        session.view_changed.disconnect(self._something_changed)

    def _something_changed(self, *_: object) -> None:
        if self.isVisible():
            self.refresh()

    def _go_to(self, row: ReviewRow) -> None:
        viewer, bridge = self._parts.viewer, self._parts.bridge
        if bridge.image is None:
            return
        bridge.go_to(row.index)
        ends = []
        for corner in ((row.box.y0, row.box.x0), (row.box.y1 - 1, row.box.x1 - 1)):
            at = iter(corner)
            place = [next(at) if each is None else each for each in row.index]
            ends.append(bridge.image.data_to_world(place)[-2:])
        (y0, x0), (y1, x1) = ends
        # napari 0.9 has moved the camera
        camera = viewer.scene.camera if hasattr(viewer, "scene") else viewer.camera
        camera.center = (*camera.center[:-2], (y0 + y1) / 2, (x0 + x1) / 2)
        canvas = viewer.canvas.size if hasattr(viewer, "canvas") else (600, 600)
        side = max(abs(y1 - y0), abs(x1 - x0), 1e-6)
        camera.zoom = min(canvas) / (_ZOOM * side)
        if bridge.labels is not None:
            bridge.labels.selected_label = row.object_id

    def _delete(self, ids: list[int]) -> None:
        try:
            objects.delete(self._parts.session, ids)
        except InputError as error:  # painted over since the table was read
            self._parts.network.failed.emit(error)
            self.refresh()

    def _set_state(self, object_id: int, state: str) -> None:
        session = self._parts.session
        if session.view is None:
            return
        record = session.records.get(object_id) or ObjectRecord(
            object_id=object_id, index=session.view.index
        )
        session.edit_labels(
            f"mark object {object_id} as {state}",
            [],
            [(object_id, record.model_copy(update={"state": state}))],
        )
        rows = self.form.table.rows  # they are read again later, in the worker
        if not any(row.state == "new" and row.object_id != object_id for row in rows):
            show_info("All objects of this plane are reviewed.")
