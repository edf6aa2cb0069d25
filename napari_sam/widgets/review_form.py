"""The review queue: a table of objects, the most doubtful first."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtCore import (
    QAbstractTableModel,
    QModelIndex,
    QSortFilterProxyModel,
    Qt,
    Signal,
)
from qtpy.QtGui import QKeySequence, QShortcut
from qtpy.QtWidgets import (
    QAbstractItemView,
    QComboBox,
    QHBoxLayout,
    QHeaderView,
    QLabel,
    QPushButton,
    QTableView,
    QVBoxLayout,
    QWidget,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_sam.engine.review import ReviewRow

_COLUMNS = (
    ("Id", "Object id, as in the labels."),
    ("Doubt", "1 - predicted IoU x stability: how much a look is needed."),
    ("State", "new, accepted or rejected."),
    ("Area", "In pixels."),
    ("IoU", "The network's own estimate of the quality of the mask."),
    ("Stab.", "Stability: how little the mask changes with its threshold."),
    ("Seam", "Whether it lies on the border of two crops."),
)
_DOUBT, _STATE = 1, 2
_ROW_PX = 22
_ALIGNED = Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter
_NOWHERE = QModelIndex()


class ReviewTable(QAbstractTableModel):
    """Rows of the queue, as Qt wants them."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.rows: list[ReviewRow] = []

    def set_rows(self, rows: Sequence[ReviewRow]) -> None:
        """Show other rows."""
        self.beginResetModel()
        self.rows = list(rows)
        self.endResetModel()

    def rowCount(self, parent: QModelIndex = _NOWHERE) -> int:
        """Return the number of objects."""
        return 0 if parent.isValid() else len(self.rows)

    def columnCount(self, parent: QModelIndex = _NOWHERE) -> int:
        """Return the number of columns."""
        return 0 if parent.isValid() else len(_COLUMNS)

    def data(self, index: QModelIndex, role: int = 0) -> Any:
        """Return what a cell shows, or what it is sorted by (`UserRole`)."""
        value = self._value(index.row(), index.column())
        if role == Qt.ItemDataRole.UserRole:
            return -1.0 if value is None else value
        if role == Qt.ItemDataRole.DisplayRole:
            return _text(value)
        if role == Qt.ItemDataRole.TextAlignmentRole and index.column() != _STATE:
            return _ALIGNED
        return None

    def headerData(
        self, section: int, orientation: Qt.Orientation, role: int = 0
    ) -> Any:
        """Return name and meaning of a column."""
        if orientation == Qt.Orientation.Horizontal:
            if role == Qt.ItemDataRole.DisplayRole:
                return _COLUMNS[section][0]
            if role == Qt.ItemDataRole.ToolTipRole:
                return _COLUMNS[section][1]
        return None

    def _value(self, row: int, column: int) -> Any:
        each = self.rows[row]
        values = (
            each.object_id,
            each.doubt,
            each.state,
            each.area,
            each.predicted_iou,
            each.stability,
            each.touches_seam,
        )
        return values[column]


class ReviewForm(QWidget):
    """Table of objects with keys to accept and reject.

    Signals
    -------
    object_chosen : ReviewRow
        The camera shall go there.
    state_asked : (int, str)
        Object id, and "accepted", "rejected" or "new".
    reopen_asked : int
        Object id, to be refined.
    deletion_asked : list of int
        Object ids, those that are rejected.
    refresh_asked : no argument
    """

    object_chosen = Signal(object)
    state_asked = Signal(int, str)
    reopen_asked = Signal(int)
    deletion_asked = Signal(list)
    refresh_asked = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._is_telling = True
        self.table = ReviewTable(self)
        self._sorted = QSortFilterProxyModel(self)
        self._sorted.setSourceModel(self.table)
        self._sorted.setSortRole(Qt.ItemDataRole.UserRole)
        self._sorted.setFilterKeyColumn(_STATE)
        self._make_view()
        self.filter = QComboBox()
        for text, pattern in (
            ("All objects", ""),
            ("New", "^new$"),
            ("Accepted", "^accepted$"),
            ("Rejected", "^rejected$"),
        ):
            self.filter.addItem(text, pattern)
        self.filter.setToolTip("Which objects are listed.")
        self.filter.currentIndexChanged.connect(self._use_filter)
        self.count = QLabel()
        self.delete_rejected = QPushButton("Delete rejected")
        self.delete_rejected.setToolTip(
            "Take all rejected objects of this plane out of the labels; one undo "
            "brings them back."
        )
        self.delete_rejected.clicked.connect(self._delete_rejected)
        refresh = QPushButton("Refresh")
        refresh.setToolTip("Read the objects of this plane again.")
        refresh.clicked.connect(self.refresh_asked)
        top = QHBoxLayout()
        top.addWidget(self.filter, 1)
        top.addWidget(refresh)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(4, 4, 4, 4)
        layout.addLayout(top)
        layout.addWidget(self.view, 1)
        layout.addLayout(self._make_buttons())
        bottom = QHBoxLayout()
        bottom.addWidget(self.count, 1)
        bottom.addWidget(self.delete_rejected)
        layout.addLayout(bottom)
        self.set_rows([])

    def set_rows(self, rows: Sequence[ReviewRow]) -> None:
        """Show the objects of a plane; the chosen one stays chosen."""
        chosen = self.chosen()
        self.table.set_rows(rows)
        n_seen = sum(row.state != "new" for row in rows)
        noun = "object" if len(rows) == 1 else "objects"
        self.count.setText(f"{len(rows)} {noun}, {n_seen} reviewed")
        self.delete_rejected.setEnabled(bool(self._rejected()))
        if chosen is not None:
            self.choose(chosen.object_id, tell=False)

    def chosen(self) -> ReviewRow | None:
        """Return the row that is chosen."""
        lines = self.view.selectionModel().selectedRows()
        if not lines:
            return None
        row: ReviewRow = self.table.rows[self._sorted.mapToSource(lines[0]).row()]
        return row

    def choose(self, object_id: int, *, tell: bool = True) -> None:
        """Choose an object, if it is listed."""
        ids = [row.object_id for row in self.table.rows]
        if object_id not in ids:
            return
        line = self._sorted.mapFromSource(self.table.index(ids.index(object_id), 0))
        self._is_telling = tell
        self.view.selectRow(line.row())
        self._is_telling = True

    def choose_next(self) -> None:
        """Choose the line below."""
        chosen = self.view.currentIndex().row()
        if chosen + 1 < self._sorted.rowCount():
            self.view.selectRow(chosen + 1)

    def _make_view(self) -> None:
        self.view = QTableView()
        self.view.setModel(self._sorted)
        self.view.setSortingEnabled(True)
        self.view.sortByColumn(_DOUBT, Qt.SortOrder.DescendingOrder)
        self.view.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.view.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self.view.verticalHeader().setVisible(False)
        self.view.verticalHeader().setDefaultSectionSize(_ROW_PX)
        header = self.view.horizontalHeader()
        header.setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)
        header.setStretchLastSection(True)
        self.view.setToolTip("Click a line: the camera goes to the object.")
        self.view.setMinimumHeight(240)  # ten lines
        self.view.selectionModel().selectionChanged.connect(self._tell_chosen)

    def _make_buttons(self) -> QHBoxLayout:
        line = QHBoxLayout()
        for text, key, tip, act in (
            ("Accept", "A", "This object is right; go to the next.", self._accept),
            ("Reject", "R", "This object is wrong; go to the next.", self._reject),
            ("Reopen", "E", "Refine this object with prompts.", self._reopen),
        ):
            button = QPushButton(f"{text} ({key})")
            button.setToolTip(f"{tip} Key {key} while the table has the focus.")
            button.clicked.connect(act)
            shortcut = QShortcut(QKeySequence(key), self.view)
            shortcut.setContext(Qt.ShortcutContext.WidgetWithChildrenShortcut)
            shortcut.activated.connect(act)
            line.addWidget(button)
        return line

    def _use_filter(self) -> None:
        self._sorted.setFilterRegularExpression(self.filter.currentData())

    def _tell_chosen(self) -> None:
        chosen = self.chosen()
        if chosen is not None and self._is_telling:
            self.object_chosen.emit(chosen)

    def _accept(self) -> None:
        self._set_state("accepted")

    def _reject(self) -> None:
        self._set_state("rejected")

    def _reopen(self) -> None:
        chosen = self.chosen()
        if chosen is not None:
            self.reopen_asked.emit(chosen.object_id)

    def _delete_rejected(self) -> None:
        self.deletion_asked.emit(self._rejected())

    def _rejected(self) -> list[int]:
        return [row.object_id for row in self.table.rows if row.state == "rejected"]

    def _set_state(self, state: str) -> None:
        chosen = self.chosen()
        if chosen is not None:
            self.choose_next()
            self.state_asked.emit(chosen.object_id, state)


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else ""
    return f"{value:.2f}" if isinstance(value, float) else str(value)
