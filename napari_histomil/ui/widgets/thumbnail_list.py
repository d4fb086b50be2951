"""Ten thousand thumbnails as a list: only those in view are read and drawn.

Pictures come from `slides/thumbnails.py` as they are ready; what was scrolled away is not read.
What is listed, and what is said of each, is the matter of whoever shows the list.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from qtpy.QtCore import (
    QAbstractListModel,
    QEvent,
    QModelIndex,
    QPoint,
    QRect,
    QSize,
    Qt,
    QTimer,
    Signal,
)
from qtpy.QtGui import (
    QColor,
    QImage,
    QMouseEvent,
    QPainter,
    QPaintEvent,
    QPalette,
    QPen,
    QPixmap,
    QResizeEvent,
)
from qtpy.QtWidgets import QFrame, QLabel, QListView, QStyle, QStyledItemDelegate, QVBoxLayout

from napari_histomil.slides.slide import Uint8Image
from napari_histomil.slides.thumbnails import Thumb, Thumbnails

SIDE_PX = 96
"""Of a thumbnail, logical pixels."""

EDGE_PX = 4
"""Around it, where its verdict is shown."""

CONTEXT_PX, CONTEXT_SIDES = 288, 4
"""Side of the picture that is shown under the pointer, and how many sides of the patch it has."""

HOVER_MS = 250

PAGES_AHEAD = 1
"""Pages below and above the one in view that are read when that is complete."""


@dataclass(frozen=True, slots=True)
class Item:
    """One entry of the list."""

    slide: Path
    xy_px0: tuple[float, float]
    size_px0: tuple[float, float]
    caption: str
    """One line under the picture."""
    words: str
    """Lines shown with the context."""
    behind: int = 0
    """How many others stand behind it."""


@dataclass(frozen=True, slots=True)
class Badge:
    """What is shown of a verdict on a thumbnail."""

    colour: str
    text: str


class _Items(QAbstractListModel):
    def __init__(self, parent: Any) -> None:
        super().__init__(parent)
        self.items: Sequence[Item] = ()

    def rowCount(self, parent: QModelIndex | None = None) -> int:
        return 0 if parent is not None and parent.isValid() else len(self.items)

    def data(self, index: QModelIndex, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        if role == Qt.ItemDataRole.DisplayRole:
            return self.items[index.row()].caption
        if role == Qt.ItemDataRole.AccessibleTextRole:
            return self.items[index.row()].words
        return None

    def replace(self, items: Sequence[Item]) -> None:
        self.beginResetModel()
        self.items = items
        self.endResetModel()


class _Painter(QStyledItemDelegate):
    """Draws picture, frame, badge, caption."""

    def __init__(self, owner: ThumbnailList) -> None:
        super().__init__(owner)
        self._owner = owner

    def sizeHint(self, option: Any, index: QModelIndex) -> QSize:
        return self._owner.cell

    def paint(self, painter: QPainter, option: Any, index: QModelIndex) -> None:
        owner, n = self._owner, index.row()
        item = owner.items[n]
        chosen = bool(option.state & QStyle.StateFlag.State_Selected)
        text_colour = option.palette.color(QPalette.ColorRole.Text)
        cell = QRect(option.rect.topLeft(), owner.cell)
        place = QRect(cell.x() + EDGE_PX, cell.y() + EDGE_PX, SIDE_PX, SIDE_PX)
        painter.save()
        if chosen:
            painter.fillRect(cell, option.palette.color(QPalette.ColorRole.Highlight))
            text_colour = option.palette.color(QPalette.ColorRole.HighlightedText)
        found = owner.pictures.find(owner.thumb(n))
        if isinstance(found, np.ndarray):
            picture = image_of(found)
            at = QRect(QPoint(0, 0), picture.size() / owner.devicePixelRatioF())
            at.moveCenter(place.center())
            painter.drawImage(at, picture)
        else:
            painter.fillRect(place, option.palette.color(QPalette.ColorRole.Mid))
            if found is not None:  # it cannot be read
                painter.setPen(text_colour)
                painter.drawText(place, Qt.AlignmentFlag.AlignCenter, "✕")
        badge = owner.badge_of(n)
        if badge is not None:
            self._draw_badge(painter, place, badge)
        if item.behind:
            self._draw_label(painter, place, f"+{item.behind}", right=True)
        below = QRect(cell.x(), place.bottom() + 1, cell.width(), cell.bottom() - place.bottom())
        painter.setPen(text_colour)
        words = option.fontMetrics.elidedText(
            item.caption, Qt.TextElideMode.ElideRight, below.width() - 2
        )
        painter.drawText(below, Qt.AlignmentFlag.AlignCenter, words)
        painter.restore()

    def _draw_badge(self, painter: QPainter, place: QRect, badge: Badge) -> None:
        painter.setPen(QPen(QColor(badge.colour), EDGE_PX - 1))
        painter.drawRect(place.adjusted(0, 0, -1, -1))
        if badge.text:
            self._draw_label(painter, place, badge.text, right=False)

    def _draw_label(self, painter: QPainter, place: QRect, text: str, *, right: bool) -> None:
        metrics = painter.fontMetrics()
        text = metrics.elidedText(text, Qt.TextElideMode.ElideRight, place.width() - 10)
        box = QRect(0, 0, metrics.horizontalAdvance(text) + 6, metrics.height())
        if right:
            box.moveBottomRight(place.bottomRight())
        else:
            box.moveTopLeft(place.topLeft())
        painter.fillRect(box, QColor(0, 0, 0, 170))
        painter.setPen(QColor("white"))
        painter.drawText(box, Qt.AlignmentFlag.AlignCenter, text)


class ThumbnailList(QListView):
    """A grid of thumbnails.

    Attributes
    ----------
    badge_of
        Says what is shown of the verdict on an item, by its number.
    pictures
        What is read of them.
    """

    went = Signal(int)
    """An item was clicked, or Enter pressed on it."""
    chosen = Signal()
    """Other items are selected."""
    _arrived = Signal()

    def __init__(self, parent: Any = None) -> None:
        super().__init__(parent)
        self.badge_of: Callable[[int], Badge | None] = lambda n: None
        self._told = False
        self.pictures = Thumbnails(self._tell)
        self._model = _Items(self)
        self.setModel(self._model)
        self.setViewMode(QListView.ViewMode.IconMode)
        self.setMovement(QListView.Movement.Static)
        self.setResizeMode(QListView.ResizeMode.Adjust)
        self.setSelectionMode(QListView.SelectionMode.ExtendedSelection)
        self.setVerticalScrollMode(QListView.ScrollMode.ScrollPerPixel)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setUniformItemSizes(True)
        self.setMouseTracking(True)
        self.setAccessibleName("Patches")
        line = self.fontMetrics().lineSpacing()
        self.cell = QSize(SIDE_PX + 2 * EDGE_PX, SIDE_PX + 2 * EDGE_PX + line)
        self.setGridSize(QSize(self.cell.width() + 2, self.cell.height() + 2))
        self.verticalScrollBar().setSingleStep(self.cell.height() // 2)
        self.setItemDelegate(_Painter(self))
        self.setMinimumHeight(self.gridSize().height() + 2 * self.frameWidth() + 2)
        self._wanted: tuple[int, int] = (0, 0)
        self._look = QTimer(self, interval=0, singleShot=True)
        self._look.timeout.connect(self._want)
        self._hover = QTimer(self, interval=HOVER_MS, singleShot=True)
        self._hover.timeout.connect(self._show_context)
        self._over = -1
        self.context = _Context(self)
        self.verticalScrollBar().valueChanged.connect(lambda _: self._look.start())
        self._arrived.connect(self._on_arrived, Qt.ConnectionType.QueuedConnection)
        self.clicked.connect(lambda index: self.went.emit(index.row()))
        self.activated.connect(lambda index: self.went.emit(index.row()))
        self.selectionModel().selectionChanged.connect(lambda *_: self.chosen.emit())
        pictures, context = self.pictures, self.context.pictures
        self.destroyed.connect(lambda: (pictures.close(), context.close()))

    # --- what is listed -----------------------------------------------------------------------

    @property
    def items(self) -> Sequence[Item]:
        """What is listed."""
        return self._model.items

    def show_items(self, items: Sequence[Item]) -> None:
        """List other items, from the top."""
        self._leave()
        self._model.replace(items)
        self.scrollToTop()
        self._wanted = (0, 0)
        self._look.start()

    def selected(self) -> list[int]:
        """Return the numbers of the selected items, in order."""
        return sorted(index.row() for index in self.selectionModel().selectedIndexes())

    def select(self, n: int) -> None:
        """Select one item and bring it into view."""
        self.setCurrentIndex(self._model.index(n))

    def thumb(self, n: int, *, sides: float = 1, side_px: int = SIDE_PX) -> Thumb:
        """Return the picture of an item, with so many of its sides around it."""
        item = self.items[n]
        (x, y), (width, height) = item.xy_px0, item.size_px0
        edge = (sides - 1) / 2
        return Thumb(
            item.slide,
            (x - edge * width, y - edge * height),
            (sides * width, sides * height),
            round(side_px * self.devicePixelRatioF()),
        )

    # --- reading ------------------------------------------------------------------------------

    def in_view(self) -> range:
        """Return the items that are seen now."""
        if not self.items:
            return range(0)
        step = self.gridSize()
        across = max((self.viewport().width() - 1) // step.width(), 1)
        top = self.verticalScrollBar().value()
        first = top // step.height() * across
        last = (-(-(top + self.viewport().height()) // step.height())) * across
        return range(min(first, len(self.items)), min(last, len(self.items)))

    def _want(self) -> None:
        seen = self.in_view()
        ahead = len(seen) * PAGES_AHEAD
        order = [
            *seen,
            *range(seen.stop, min(seen.stop + ahead, len(self.items))),
            *range(max(seen.start - ahead, 0), seen.start),
        ]
        self.pictures.want([self.thumb(n) for n in order])

    def _tell(self, _thumb: Thumb) -> None:
        """Hear of a picture, in a thread: many of them are one turn of the event loop."""
        if not self._told:
            self._told = True
            self._arrived.emit()

    def _on_arrived(self) -> None:
        self._told = False
        self.viewport().update()

    def is_complete(self) -> bool:
        """Return whether all pictures in view are there."""
        return all(self.pictures.find(self.thumb(n)) is not None for n in self.in_view())

    def resizeEvent(self, event: QResizeEvent) -> None:
        """Lay the thumbnails out anew."""
        super().resizeEvent(event)
        self._look.start()

    # --- the pointer --------------------------------------------------------------------------

    def mouseMoveEvent(self, event: QMouseEvent) -> None:
        """Show what is around a patch when the pointer rests on it."""
        super().mouseMoveEvent(event)
        over = self.indexAt(event.position().toPoint()).row()
        if over != self._over:
            self._leave()
            self._over = over
            if over >= 0 and not event.buttons():
                self._hover.start()

    def viewportEvent(self, event: QEvent) -> bool:
        """Show nothing any more when the pointer leaves."""
        if event.type() in (QEvent.Type.Leave, QEvent.Type.Wheel, QEvent.Type.Hide):
            self._leave()
        return super().viewportEvent(event)

    def _leave(self) -> None:
        self._over = -1
        self._hover.stop()
        self.context.hide()

    def _show_context(self) -> None:
        if 0 <= self._over < len(self.items):
            rect = self.visualRect(self._model.index(self._over))
            corner = self.viewport().mapToGlobal(rect.topRight())
            thumb = self.thumb(self._over, sides=CONTEXT_SIDES, side_px=CONTEXT_PX)
            self.context.show_patch(thumb, self.items[self._over].words, corner)


class _Context(QFrame):
    """A patch with what is around it, and what is said of it."""

    _arrived = Signal()

    def __init__(self, parent: ThumbnailList) -> None:
        super().__init__(parent, Qt.WindowType.ToolTip)
        self.pictures = Thumbnails(self._tell, budget_bytes=8 << 20)
        self._thumb: Thumb | None = None
        self.picture, self.words = QLabel(), QLabel()
        self.picture.setFixedSize(CONTEXT_PX, CONTEXT_PX)
        self.words.setMargin(4)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(0)
        column.addWidget(self.picture)
        column.addWidget(self.words)
        self._arrived.connect(self._draw, Qt.ConnectionType.QueuedConnection)

    def show_patch(self, thumb: Thumb, words: str, corner: QPoint) -> None:
        self._thumb = thumb
        self.words.setText(words)
        self.pictures.want([thumb])
        self._draw()
        self.adjustSize()
        screen = self.screen().availableGeometry()
        x = min(corner.x() + 8, screen.right() - self.width())
        y = max(min(corner.y(), screen.bottom() - self.height()), screen.top())
        self.move(x, y)
        self.show()

    def _tell(self, _thumb: Thumb) -> None:
        self._arrived.emit()

    def _draw(self) -> None:
        found = None if self._thumb is None else self.pictures.find(self._thumb)
        if not isinstance(found, np.ndarray):
            self.picture.setText("" if found is None else str(found))
            return
        ratio = self.devicePixelRatioF()
        pixmap = QPixmap.fromImage(image_of(found))
        pixmap.setDevicePixelRatio(ratio)
        painter = QPainter(pixmap)
        painter.setPen(QPen(QColor("#00e5ff"), 1.5))
        side = CONTEXT_PX / CONTEXT_SIDES
        edge = (CONTEXT_PX - side) / 2
        painter.drawRect(round(edge), round(edge), round(side), round(side))
        painter.end()
        self.picture.setPixmap(pixmap)

    def paintEvent(self, event: QPaintEvent) -> None:
        """Draw the ground: a tooltip has none of its own in every theme."""
        painter = QPainter(self)
        painter.fillRect(self.rect(), self.palette().color(QPalette.ColorRole.Window))
        painter.end()
        super().paintEvent(event)


def image_of(pixels: Uint8Image) -> QImage:
    """Return pixels [h, w, 3] as an image that owns them."""
    height, width, _ = pixels.shape
    data = pixels.tobytes()
    return QImage(data, width, height, 3 * width, QImage.Format.Format_RGB888).copy()
