"""The minimap: a small picture of the slide in the corner of the canvas, to see and move the view.

It is a child of napari's canvas widget, so it goes along wherever docks push it, is not in
screenshots of the canvas, and costs nothing while the view stands still. It takes no keys.
"""

from __future__ import annotations

from typing import Any, TypeVar

from napari.utils.theme import get_theme
from qtpy.QtCore import QEvent, QObject, QPointF, QRectF, QSize, Qt, QTimer, Signal
from qtpy.QtGui import (
    QColor,
    QFontMetrics,
    QMouseEvent,
    QPainter,
    QPaintEvent,
    QPixmap,
    QWheelEvent,
)
from qtpy.QtOpenGLWidgets import QOpenGLWidget
from qtpy.QtWidgets import QMainWindow, QWidget

from napari_histomil.ui import camera
from napari_histomil.ui.keys import bind, hint
from napari_histomil.ui.minimap import (
    MapFrame,
    coarse_picture,
    frame_of,
    paint_map,
    paint_view,
    readout,
)
from napari_histomil.ui.orientation import view_signals
from napari_histomil.ui.overlays import overlays
from napari_histomil.ui.preferences import keep_minimap_shown, shows_minimap
from napari_histomil.ui.session import RunView, SlideSession, session
from napari_histomil.ui.widgets.panel import follow

Kind = TypeVar("Kind", bound=QObject)

MARGIN_PX = 10
"""Between the minimap and the edges of the canvas."""

EDGE_PX, PAD_PX = 1, 6
"""Line around the map; room beside the words."""

LOADING_MS = 500
"""While the overview is incomplete, it is looked at anew so often."""

HEAT_MS = 150
"""A heatmap that fills in is painted no more often than that."""

ZOOM_PER_STEP = 1.25
"""Of a notch of the wheel."""


class Minimap(QWidget):
    """Picture, heatmap, view rectangle and magnification of the active slide."""

    shown_changed = Signal(bool)
    """The person wants to see it, or not."""

    def __init__(self, viewer: Any, canvas: QWidget) -> None:
        super().__init__(canvas)
        self._viewer = viewer
        self._session, self._overlays = session(viewer), overlays(viewer)
        self._wanted = shows_minimap()
        self._slide: SlideSession | None = None
        self._run: RunView | None = None
        self.frame: MapFrame | None = None
        """Where the slide lies on the map; None while there is none."""
        self.loading = False
        """Whether the overview of the slide is still incomplete."""
        self._picture: QPixmap | None = None
        self._words: list[str] = []
        self.setAttribute(Qt.WidgetAttribute.WA_OpaquePaintEvent)
        self.setAttribute(Qt.WidgetAttribute.WA_NoMousePropagation)
        self.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        self.setCursor(Qt.CursorShape.CrossCursor)
        self.setToolTip(
            "Click or drag to move the view, turn the wheel to zoom; hide it"
            + hint("minimap.toggle")
        )
        self._repaint_timer = QTimer(self)
        self._repaint_timer.setSingleShot(True)
        self._repaint_timer.timeout.connect(self._paint_again)
        canvas.installEventFilter(self)
        for signal in (*view_signals(viewer), viewer.canvas.events.size):
            follow(self, signal, self._on_view)
        follow(self, viewer.dims.events.ndisplay, self._on_view)
        follow(self, viewer.events.theme, self._on_view)
        for signal in (self._session.active_changed, self._session.slide_changed):
            follow(self, signal, self._on_slide)
        for signal in (self._overlays.current_changed, self._overlays.shown_changed):
            follow(self, signal, self._on_run)
        self.destroyed.connect(lambda: self._let_go())  # a slot of its own would not be called
        bind(viewer, "minimap.toggle", self.toggle)
        self._on_slide()

    # --- shown or not ---

    @property
    def shown(self) -> bool:
        """Whether the person wants to see it; without a slide there is nothing to see."""
        return self._wanted

    @shown.setter
    def shown(self, shown: bool) -> None:
        if shown != self._wanted:
            self._wanted = shown
            keep_minimap_shown(shown)
            self._arrange()
            self.shown_changed.emit(shown)

    def toggle(self) -> None:
        """Show or hide it."""
        self.shown = not self.shown

    # --- what is to be seen ---

    def _on_slide(self, _: Any = None) -> None:
        self._slide = self._session.active
        self._on_run()
        self._arrange()

    def _on_run(self, _: Any = None) -> None:
        run = self._overlays.current
        if run is not None and (run.slide is not self._slide or not run.layer.visible):
            run = None
        if run is not self._run:
            self._let_go()
            self._run = run
            if run is not None:
                for signal in _signals(run):
                    signal.connect(self._soon)
        self._soon()

    def _let_go(self) -> None:
        if self._run is not None:
            for signal in _signals(self._run):
                signal.disconnect(self._soon)
            self._run = None

    def _soon(self) -> None:
        if not self._repaint_timer.isActive():
            self._repaint_timer.start(HEAT_MS)

    def _on_view(self, _: Any = None) -> None:
        """Follow the view; the picture is painted again only where it has another frame."""
        if self._slide is None or not self._wanted:
            return
        if frame_of(self._viewer, self._slide.info) != self.frame:
            self._arrange()
        self._words = self._make_words()
        self.update()

    def _make_words(self) -> list[str]:
        if self._slide is None:
            return []
        lines = [readout(self._viewer, self._slide.info)]
        if self.frame is not None and self.frame.orientation.text:
            lines.append(self.frame.orientation.text)
        if self.loading:
            lines.append("loading the overview…")
        return lines

    def _arrange(self) -> None:
        """Take size and place for the slide as it is turned now, and paint its picture."""
        slide = self._slide if self._wanted else None
        self.frame = None if slide is None else frame_of(self._viewer, slide.info)
        if self.frame is None:
            self._picture = None
            self.hide()
            return
        self._paint_again()
        self.show()
        self.raise_()

    def _paint_again(self) -> None:
        if self.frame is None or self._slide is None:
            return
        ratio = self.devicePixelRatioF()
        picture, final = coarse_picture(self._slide.layer, self.frame, ratio)
        self.loading = not final
        if not final:
            self._repaint_timer.start(LOADING_MS)
        self._picture = paint_map(self.frame, picture, self._run, ratio)
        self._words = self._make_words()
        self.resize(self.sizeHint())
        self._to_corner()
        self.update()

    def sizeHint(self) -> QSize:
        """Return the size of map and words."""
        if self.frame is None:
            return QSize()
        width, height = self.frame.size
        metrics = self.fontMetrics()
        # As wide as any readout: the map must not move while one zooms.
        widest = ["00.0x, 00.00 µm/px", *self._words[1:]]
        words = max(metrics.horizontalAdvance(line) for line in widest) + 2 * PAD_PX
        return QSize(
            max(width, words) + 2 * EDGE_PX,
            height + 2 * EDGE_PX + len(self._words) * metrics.lineSpacing() + PAD_PX,
        )

    def _to_corner(self) -> None:
        self.move(self.parentWidget().width() - self.width() - MARGIN_PX, MARGIN_PX)

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        """Stay in the canvas's corner, and know its screen."""
        if event.type() == QEvent.Type.Resize:
            self._to_corner()
        elif event.type() == camera.NEW_SCREEN:
            self._paint_again()
        return False

    @property
    def map_rect(self) -> QRectF:
        """Where the map lies within the widget."""
        if self.frame is None:
            return QRectF()
        width, height = self.frame.size
        return QRectF((self.width() - width) // 2, EDGE_PX, width, height)

    # --- painting ---

    def paintEvent(self, event: QPaintEvent) -> None:
        """Paint the picture, where the view lies in it, and the readout below."""
        theme = get_theme(self._viewer.theme)
        back, text, line = (
            QColor(*colour.as_rgb_tuple()[:3])
            for colour in (theme.background, theme.text, theme.foreground)
        )
        painter = QPainter(self)
        painter.fillRect(self.rect(), back)
        place = self.map_rect
        if self.frame is not None and self._picture is not None:
            painter.drawPixmap(place.topLeft(), self._picture)
            paint_view(painter, self.frame.view_rect(self._viewer), place)
        painter.setPen(line)
        painter.drawRect(self.rect().adjusted(0, 0, -1, -1))
        painter.setPen(text)
        metrics: QFontMetrics = self.fontMetrics()
        row = QRectF(0, place.bottom() + PAD_PX / 2, self.width(), metrics.lineSpacing())
        for words in self._words:
            painter.drawText(row, Qt.AlignmentFlag.AlignCenter, words)
            row.translate(0, metrics.lineSpacing())
        painter.end()

    # --- moving the view ---

    def mousePressEvent(self, event: QMouseEvent) -> None:
        """Look at the place that was clicked; the keys are the canvas's from now on."""
        self.parentWidget().setFocus()
        if event.button() == Qt.MouseButton.LeftButton:
            self._look_at(event.position())

    def mouseMoveEvent(self, event: QMouseEvent) -> None:
        """Drag the view along."""
        if event.buttons() & Qt.MouseButton.LeftButton:
            self._look_at(event.position())

    def _look_at(self, point: QPointF) -> None:
        if self.frame is None or self._slide is None:
            return
        place = self.map_rect
        x = min(max(point.x(), place.left()), place.right()) - place.left()
        y = min(max(point.y(), place.top()), place.bottom()) - place.top()
        x_px0, y_px0 = self.frame.to_px0((x, y))
        camera.go_to_px0(self._viewer, self._slide.info, (float(x_px0), float(y_px0)))

    def wheelEvent(self, event: QWheelEvent) -> None:
        """Zoom about the middle of the view."""
        notches = event.angleDelta().y() / 120
        self._viewer.scene.camera.zoom *= ZOOM_PER_STEP**notches
        event.accept()


def canvas_of(widget: QWidget) -> QWidget | None:
    """Return the canvas of the napari window that a widget is in, or None outside of one.

    The first view's: canvases in docks are other views.
    """
    window: QWidget | None = widget
    while window is not None and not isinstance(window, QMainWindow):
        window = window.parentWidget()
    central = None if window is None else window.centralWidget()
    return None if central is None else central.findChild(QOpenGLWidget)


def on_canvas(kind: type[Kind], viewer: Any, widget: QWidget) -> Kind | None:
    """Return what lies on the canvas of a viewer, one of a kind, made at the first call.

    Parameters
    ----------
    kind
        Called with the viewer and the canvas, whose child it becomes.
    viewer
        The napari viewer.
    widget
        Any widget in its window, such as a dock's.

    Returns
    -------
    QObject or None
        None as long as the widget is in no window with a canvas.
    """
    canvas = canvas_of(widget)
    if canvas is None:
        return None
    camera.set_canvas(viewer, canvas)
    found = canvas.findChild(kind)
    return kind(viewer, canvas) if found is None else found


def attach_minimap(viewer: Any, widget: QWidget) -> Minimap | None:
    """Return the minimap of a viewer; see `on_canvas`."""
    return on_canvas(Minimap, viewer, widget)


def _signals(run: RunView) -> tuple[Any, ...]:
    """Return the signals after which a run looks otherwise on the map."""
    if run.segmentation is not None:
        return (run.segmentation.measured,)  # its small picture is new
    return run.heatmap.changed, run.heatmap.filled
