"""What the tests of a review have in common: cases with runs, and a window driven by keys."""

from __future__ import annotations

from pathlib import Path

from napari_histomil.ui.widgets.review import ReviewWidget
from tests.review.review_cases import write_run, write_slide
from tests.ui.annotating import settle

TIMES = 20_000  # ms: on a busy machine


def write_cohort(folder: Path) -> Path:
    """Write four slides with runs, and the table that says what they are."""
    folder.mkdir()
    lines = ["slide,patient,label"]
    for n, score in enumerate((0.9, 0.2, 0.6, 0.1)):
        slide = write_slide(folder / f"{n}.tiff", 150 + 20 * n)
        write_run(slide, [score] + [score / 2] * 11)
        lines.append(f"{n}.tiff,P{n // 2},{'tumor' if n % 2 == 0 else 'normal'}")
    table = folder / "cohort.csv"
    table.write_text("\n".join(lines) + "\n", "utf-8")
    return table


class Room:
    """A window with the dock, driven by keys on its canvas."""

    def __init__(self, viewer, dock, qtbot) -> None:
        self.viewer, self.dock, self.qtbot, self.state = viewer, dock, qtbot, dock.state

    @property
    def canvas(self):
        """What has the keys; it is not held, as it holds the whole window."""
        return self.viewer.window._qt_viewer.canvas.native

    def until(self, what) -> None:
        self.qtbot.waitUntil(lambda: bool(what()), timeout=TIMES)
        settle(self.qtbot, 2)

    def press(self, *keys) -> None:
        window = self.canvas.window()
        if not window.isActiveWindow():  # shortcuts are those of the window in front
            window.activateWindow()
            self.until(window.isActiveWindow)
        for key in keys:
            if isinstance(key, tuple):
                self.qtbot.keyClick(self.canvas, key[1], key[0])
            else:
                self.qtbot.keyClick(self.canvas, key)

    def open(self, source, **options) -> None:
        assert self.dock.open(source, **options)
        self.until(lambda: self.state.current is not None)

    def read(self, name) -> None:
        """Wait until a case is on the screen."""
        self.until(lambda: self.state.current is not None and self.state.current.name == name)

    def gathered(self) -> None:
        self.until(lambda: all(row.facts is not None for row in self.state.rows))

    def title(self) -> str:
        return self.dock.case.title.text()

    def column(self, name) -> list[str]:
        model = self.dock.cases.model
        place = model.columns.index(name)
        return [model.data(model.index(n, place)) for n in range(model.rowCount())]


def make_room(make_napari_viewer, qtbot) -> Room:
    viewer = make_napari_viewer(show=True, strict_qt="raise")
    holder = viewer.window.add_dock_widget(ReviewWidget(viewer), name="Review", area="right")
    holder.window().resize(1280, 800)
    holder.window().activateWindow()
    settle(qtbot)
    dock = holder.widget()
    dock.reader_box.setText("Ada")
    return Room(viewer, dock, qtbot)
