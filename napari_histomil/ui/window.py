"""The window of `histomil view`: a napari viewer with our docks in place, and its picture."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import napari
from PIL import Image
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QApplication, QDockWidget

from napari_histomil.errors import OutputError
from napari_histomil.files import remote_url
from napari_histomil.results import open_result
from napari_histomil.ui import camera
from napari_histomil.ui.overlays import overlays
from napari_histomil.ui.painting import complete
from napari_histomil.ui.preferences import PLUGIN
from napari_histomil.ui.session import session
from napari_histomil.ui.view_keeper import view_keeper
from napari_histomil.ui.view_state import Place
from napari_histomil.ui.widgets.panel import DOCK_WIDTH
from napari_histomil.ui.widgets.slide import SlideWidget

DOCKS = ("Slide", "Annotate", "Run", "Overlay", "Review", "Compare", "Train")
"""The docks in the order of the work, by their names in ``napari.yaml``."""

SETTLE_SECONDS = 1.0
"""How long a window is given before its picture is taken."""

PICTURE_SECONDS = 60.0
"""How long a picture waits for the slides in it, at most."""

SMALLEST_SIZE = (1280, 800)
"""(width, height) in logical pixels that the window has at least, where the screen has them."""


def open_window(
    slides: Sequence[Path] = (),
    *,
    runs: Sequence[Path] = (),
    at: tuple[float, float, float] | None = None,
    front: str | None = None,
    show: bool = True,
    reader: str | None = None,
    icc: bool = False,
) -> napari.Viewer:
    """Open napari with the docks in place, slides and runs in it; returns at once.

    Slides that may take long to open (`takes_long`) come in when they are open; the runs are laid
    on after the last of these.

    Parameters
    ----------
    slides
        Files or folders of slides; the last one is shown.
    runs
        Paths of stored runs (``.zarr``), laid over the slides they belong to.
    at
        Where to look on the last slide: level-0 pixel x, y in the middle, and the magnification,
        for which its µm/px must be known. None for where it was looked at when it was closed.
    front
        The dock in front, one of `DOCKS`; None for the one that was in front when the slide was
        closed.
    show
        Whether the window appears.
    reader, icc
        How the slides are read, as in `readers.open_slide`.

    Returns
    -------
    napari.Viewer
        `stay_open` lets the person work with it until it is closed.

    Raises
    ------
    HistomilError
        If a slide or a run cannot be opened; there is no window then. What is wrong with one that
        comes in later is told in the window.
    """
    viewer = napari.Viewer(title="HistoMIL", show=False)
    try:
        docks = add_docks(viewer, front=front or DOCKS[0])
        keeper = view_keeper(viewer)
        keeper.watch(docks[0].window())
        if front is not None:
            keeper.keep_front(front)
        if show:
            viewer.window.show()
            _settle_size(docks)
            # Else the first field of a dock has the keys, and PgUp sets a run's stride.
            camera.focus_canvas(viewer)
        if slides and at is not None:
            keeper.look_at(slides[-1], Place(at[:2], at[2]))
        _open_all(viewer, docks[0].inner_widget(), slides, runs, reader=reader, icc=icc)
    except BaseException:
        viewer.close()
        raise
    return viewer


def takes_long(path: Path) -> bool:
    """Say whether opening a slide may ask a server, or look through many files."""
    folder = path.is_dir() and path.suffix.lower() != ".zarr"
    return remote_url(path) is not None or folder or path.suffix.lower() == ".dcm"


def _open_all(
    viewer: napari.Viewer,
    dock: SlideWidget,
    slides: Sequence[Path],
    runs: Sequence[Path],
    *,
    reader: str | None,
    icc: bool,
) -> None:
    """Open slides, those that take long beside the window's own work, and then runs."""
    later = [path for path in slides if takes_long(path)]
    to_come = len(later)

    def lay_on() -> None:
        for path in runs:
            overlays(viewer).add(open_result(path))

    def arrived() -> None:
        nonlocal to_come
        to_come -= 1
        if not to_come:
            lay_on()

    for path in slides:
        if path not in later:
            session(viewer).open_slide(path, reader=reader, icc=icc)
    for path in later:
        dock.open_path(path, reader=reader, icc=icc, then=arrived)
    if not later:
        lay_on()


def stay_open() -> None:
    """Let the person work with the windows; returns when the last one is closed."""
    napari.run()


def add_docks(viewer: napari.Viewer, *, front: str = DOCKS[0]) -> list[QDockWidget]:
    """Add our docks as one group of tabs on the right, one of them in front."""
    docks = [
        viewer.window.add_plugin_dock_widget(PLUGIN, name, tabify=index > 0)[0]
        for index, name in enumerate(DOCKS)
    ]
    for dock, name in zip(docks, DOCKS, strict=True):
        dock.setWindowTitle(name)  # all names fit on the tabs
    docks[DOCKS.index(front)].raise_()
    return docks


def _settle_size(docks: Sequence[QDockWidget]) -> None:
    """Give the window room for what it holds, and the docks their width."""
    window = docks[0].window()
    available = window.screen().availableGeometry()
    wide, high = SMALLEST_SIZE
    if not (window.isMaximized() or window.isFullScreen()):
        window.resize(
            min(max(window.width(), wide), available.width()),
            min(max(window.height(), high), available.height()),
        )
        frame = window.frameGeometry()
        window.move(
            max(available.left(), min(frame.left(), available.right() + 1 - frame.width())),
            max(available.top(), min(frame.top(), available.bottom() + 1 - frame.height())),
        )
    window.resizeDocks([docks[0]], [DOCK_WIDTH], Qt.Orientation.Horizontal)
    QApplication.processEvents()  # the canvas learns its size, so that a slide fits it


def screenshot_window(viewer: napari.Viewer, path: Path) -> None:
    """Write a picture of the whole window, docks included, as PNG.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    end = time.monotonic() + SETTLE_SECONDS
    while time.monotonic() < end:  # what docks look up beside the window arrives
        QApplication.processEvents()
        time.sleep(0.02)
    complete(viewer, PICTURE_SECONDS)
    pixels = viewer.screenshot(canvas_only=False, flash=False)
    try:
        Image.fromarray(pixels[..., :3]).save(path, format="PNG")
    except OSError as error:
        raise OutputError(
            f"The picture of the window cannot be written to {path}: {error.strerror}."
        ) from error
