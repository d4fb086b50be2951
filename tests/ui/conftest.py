"""Slides in memory and on disk for the window's tests, and a watch over widgets left behind."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType

import numpy as np
import pytest
import tifffile
import torch  # noqa: F401  # after a window has been drawn by Mesa, loading it would crash
from napari import settings
from qtpy.QtCore import QEvent
from qtpy.QtWidgets import QApplication, QWidget

from napari_histomil.errors import SlideError
from napari_histomil.geometry import Rect
from napari_histomil.manifest import ClassSpec
from napari_histomil.results import RunStore, run_path
from napari_histomil.slides.slide import Level, SlideInfo, Uint8Image
from napari_histomil.tiling import GridSpec, TileGrid
from napari_histomil.ui.torch_shield import shield_torch
from napari_histomil.ui.widgets.annotate import AnnotateWidget
from tests.ui.annotating import WHITE, Desk, settle
from tests.ui.review_room import Room, make_room, write_cohort

CLASSES = (ClassSpec("normal", (90, 90, 180)), ClassSpec("tumor", (200, 0, 0)))


class ArraySlide:
    """A one-level slide in memory."""

    def __init__(
        self,
        pixels: Uint8Image,
        mpp_xy: tuple[float, float] | None = (0.5, 0.5),
        *,
        name: str = "array.tiff",
        bounds: Rect | None = None,
        pictures: dict[str, Uint8Image] | None = None,
        power: float | None = None,
    ) -> None:
        height, width, _ = pixels.shape
        self._pixels = pixels
        self._pictures = pictures or {}
        self.closed = False
        mpp_x, mpp_y = mpp_xy or (None, None)
        self.info = SlideInfo(
            path=Path(name),
            reader="tiff",
            vendor="memory",
            width_px0=width,
            height_px0=height,
            mpp_x=mpp_x,
            mpp_y=mpp_y,
            mpp_source="file" if mpp_xy else None,
            objective_power=power,
            levels=(Level(width, height, 1.0, 256, 256),),
            channels=("red", "green", "blue"),
            dtype="uint8",
            composite="",
            bounds_px0=bounds,
            associated_images=tuple(self._pictures),
            properties={},
            fingerprint="0123456789abcdef" * 4,
        )

    def read_region(
        self, xy_px0: tuple[int, int], level: int, size: tuple[int, int]
    ) -> Uint8Image:
        if self.closed:
            raise SlideError(f"{self.info.path} is closed.")
        assert level == 0
        (x, y), (width, height) = xy_px0, size
        region = np.full((height, width, 3), 255, np.uint8)
        x0, y0 = max(x, 0), max(y, 0)
        part = self._pixels[y0 : max(y + height, 0), x0 : max(x + width, 0)]
        region[y0 - y : y0 - y + part.shape[0], x0 - x : x0 - x + part.shape[1]] = part
        return region

    def read_associated(self, name: str) -> Uint8Image:
        if name not in self._pictures:
            raise SlideError(f"{self.info.path} has no picture {name!r}.")
        return self._pictures[name]

    def close(self) -> None:
        self.closed = True

    def __enter__(self) -> ArraySlide:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


@pytest.fixture
def array_slide() -> Callable[..., ArraySlide]:
    """Make slides in memory."""
    return ArraySlide


@pytest.fixture
def checkered() -> Uint8Image:
    """White, 1500 x 1037 px, with one red rectangle: x 384 to 640, y 256 to 512."""
    pixels = np.full((1037, 1500, 3), 255, np.uint8)
    pixels[256:512, 384:640] = (200, 0, 0)
    return pixels


@pytest.fixture
def write_slide(tmp_path: Path) -> Callable[..., Path]:
    """Write pixels as a tiled TIFF; with µm/px unless they are None."""

    def write(pixels: Uint8Image, name: str = "slide.tiff", mpp: float | None = 0.5) -> Path:
        path = tmp_path / name
        resolution = {} if mpp is None else {"resolution": (1e4 / mpp,) * 2, "resolutionunit": 3}
        tifffile.imwrite(path, pixels, photometric="rgb", tile=(256, 256), **resolution)
        return path

    return write


@pytest.fixture
def make_run() -> Callable[..., RunStore]:
    """Store a run over a slide: cells of 32 µm = 64 px, all but the first column."""

    def make(
        info: SlideInfo, run_id: str = "0" * 16, *, blocks: int | None = None, seed: int = 0
    ) -> RunStore:
        grid = TileGrid.cover(info, GridSpec(mpp=1.0, tile_px=48, stride_px=32))
        grid = grid.select(grid.cells[:, 1] > 0)
        path = run_path(info.path, run_id, fingerprint=info.fingerprint)
        model = {"name": "maker", "path": "", "sha256": "ab" * 32, "positive_class": "tumor"}
        slide = {
            "name": info.path.name,
            "path": str(info.path),
            "fingerprint": info.fingerprint,
            "width_px0": info.width_px0,
            "height_px0": info.height_px0,
            "mpp_xy": list(info.mpp_xy),
            "bounds_px0": None,
        }
        job = {"stain": {"method": "macenko"}, "region": {"kind": "tissue"}}
        tumor = np.random.default_rng(seed).uniform(size=len(grid)).astype(np.float32)
        scores = np.column_stack([1 - tumor, tumor])
        with RunStore.create(
            path, run_id=run_id, job=job, slide=slide, model=model, classes=CLASSES, grid=grid
        ) as store:
            for index, tiles in enumerate(list(grid.blocks())[:blocks]):
                store.write_block(index, scores[tiles])
        return RunStore.open(path)

    return make


@pytest.fixture
def desk(make_napari_viewer, write_slide, qtbot) -> Iterator[Desk]:
    """The Annotate dock in a window, with a white slide of 500 x 400 µm."""
    viewer = make_napari_viewer(show=True, strict_qt="raise")
    holder = viewer.window.add_dock_widget(AnnotateWidget(viewer), name="Annotate", area="right")
    holder.window().resize(1280, 800)
    settle(qtbot)
    desk = Desk(viewer, holder.widget(), qtbot)
    desk.state.session.open_slide(write_slide(WHITE))
    settle(qtbot)
    yield desk
    unread = desk.errors()
    desk.state.close()
    for slide in list(desk.state.session.slides):
        desk.state.session.close_slide(slide)
    settle(qtbot)
    assert unread == [], "an error was shown that the test did not look at"


@pytest.fixture
def cohort(tmp_path: Path) -> Path:
    """A table of four slides with runs, to be reviewed."""
    return write_cohort(tmp_path / "cohort")


@pytest.fixture
def room(make_napari_viewer, qtbot) -> Iterator[Room]:
    """The Review dock in a window, driven by keys."""
    room = make_room(make_napari_viewer, qtbot)
    yield room
    room.state.close()
    for slide in list(room.state.session.slides):
        room.state.session.close_slide(slide)
    settle(qtbot)


@pytest.fixture(autouse=True)
def own_preferences(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Keep what a test sets under Preferences from the next test, and from the person's own."""
    settings._clear_plugin_settings_cache()
    monkeypatch.setattr(settings, "_CFG_PATH", str(tmp_path / "preferences" / "settings.yaml"))
    yield
    settings._clear_plugin_settings_cache()


def _top_level_widgets() -> set[QWidget]:
    """Return the top-level widgets once what is to be deleted is deleted."""
    if QApplication.instance() is None:
        return set()
    QApplication.sendPostedEvents(None, QEvent.Type.DeferredDelete)
    QApplication.processEvents()
    return set(QApplication.topLevelWidgets())


@pytest.fixture(autouse=True)
def no_widget_left_behind() -> Iterator[None]:
    """Fail a test that leaves a window or a dialog open."""
    before = _top_level_widgets()
    yield
    left = _top_level_widgets() - before
    if left:
        names = [type(widget).__name__ for widget in left]
        del left
        gc.collect()  # Python may still hold what nobody uses
        assert not _top_level_widgets() - before, f"left behind, among others: {names}"


@pytest.fixture(autouse=True)
def safe_torch() -> Iterator[None]:
    """Let tests that come later in this process import torch, where a window was drawn."""
    yield
    shield_torch()
