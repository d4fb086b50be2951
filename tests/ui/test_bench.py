from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skimage.data

from napari_histomil.bench import views
from napari_histomil.bench.test_slide import write_one_level, write_slide
from napari_histomil.bench.views import ARRAYS, DASK, EMPTY, KEPT, ONE_LEVEL, OURS, PYRAMID
from napari_histomil.slides.pyramid import levels
from napari_histomil.slides.readers import open_slide
from napari_histomil.ui import bench, bench_canvas, bench_memory
from napari_histomil.ui.bench_canvas import BenchWindow
from napari_histomil.ui.session import session

SIZE = 4800, 3840


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("made") / "small.svs"
    write_slide(path, skimage.data.immunohistochemistry(), SIZE)
    return path


@pytest.fixture
def window(
    make_napari_viewer: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> Iterator[BenchWindow]:
    monkeypatch.setattr(bench_canvas, "CANVAS_SIZE", (640, 480))
    monkeypatch.setenv("HISTOMIL_REOPEN_VIEWS", "0")
    opened = BenchWindow(make_napari_viewer(show=True))
    yield opened
    opened.release()


def test_every_side_is_timed_in_every_script(
    made: Path, window: BenchWindow, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("ZOOM_STEPS", "PAN_STEPS", "JUMPS", "WORST_STEPS", "WORST_JUMPS"):
        monkeypatch.setattr(views, name, 3)
    figures = bench.viewer_figures(window, made, 1, (bench.IDLE,), lambda text: None)
    assert figures.canvas == window.size
    assert figures.region == ""
    assert figures.notes == []
    assert list(figures.times) == [bench.IDLE]
    for script, sides in figures.times[bench.IDLE].items():
        assert set(sides) == {OURS, ARRAYS, EMPTY} | ({DASK} if "worst" in script else set())
        for times in sides.values():
            assert 0 < times.stall.p50 <= times.stall.most < 10
            assert 0 < times.complete.p50 <= times.complete.most < 10
    ratios = [figure.value for figure in figures.figures()]
    assert len(ratios) == 6 * 2 + 2 * 2
    assert all(ratio is not None and 0.01 < ratio < 100 for ratio in ratios)
    assert session(window.viewer).slides == [], "the slide is closed again"


def test_the_arrays_are_the_slides_own_pixels(made: Path) -> None:
    with open_slide(made) as slide:
        whole = bench.arrays_of(made, slide.info.rect_px0)
        region = views.Rect(1024, 1024, 2048, 1024)
        part = bench.arrays_of(made, region)
        fine = levels(slide)
        assert [level.shape for level in whole] == [level.shape for level in fine]
        np.testing.assert_array_equal(whole[0], fine[0][:, :])
        np.testing.assert_array_equal(part[0], whole[0][1024:2048, 1024:3072])
        np.testing.assert_array_equal(part[1], whole[1][512:1024, 512:1536])


def test_first_pictures_are_timed(made: Path, window: BenchWindow, tmp_path: Path) -> None:
    flat = tmp_path / "flat.tif"
    write_one_level(flat, made)
    figures = bench.paint_figures(window, made, flat, 1, lambda text: None)
    assert set(figures.first) == set(figures.overview) == {PYRAMID, ONE_LEVEL, KEPT}
    assert all(0 < value < 20 for value in figures.first.values())
    assert all(figures.first[case] <= figures.overview[case] for case in figures.first)
    assert figures.scaled is not None
    assert figures.scaled > 0


def test_looking_around_counts_what_is_decoded_again(made: Path, window: BenchWindow) -> None:
    opened = session(window.viewer).open_slide(made)
    places = [(1200.0, 1200.0), (2400.0, 1200.0), (2400.0, 2400.0), (3600.0, 2400.0)]
    assert bench_memory.look_around(window, opened, places) == 0
    assert bench_memory.peak_bytes() > 100 << 20
    session(window.viewer).close_slide(opened)


def test_a_stall_is_seen(made: Path, window: BenchWindow) -> None:
    """What blocks the window for a tenth of a second is told as such."""
    import time

    opened = session(window.viewer).open_slide(made)
    paints = bench._finished(opened.layer)
    window.show(views.View((2400.0, 1900.0), 0.5), opened.info, paints)

    def block() -> None:
        window.look(views.View((2500.0, 1900.0), 0.5), opened.info)
        time.sleep(0.15)

    timed = window.time(block, paints)
    assert 0.15 <= timed.stall < 5
    assert timed.complete >= 0.15
    session(window.viewer).close_slide(opened)
