"""Thumbnails of many places: pixels, order, what was scrolled away, memory, slides held open."""

from __future__ import annotations

import threading
from collections import deque
from pathlib import Path

import numpy as np
import pytest

from napari_histomil.errors import SlideError
from napari_histomil.slides import thumbnails
from napari_histomil.slides.loader import Job
from napari_histomil.slides.slide import Level, SlideInfo, read_rect
from napari_histomil.slides.thumbnails import Thumb, Thumbnails


class Ramp:
    """A slide in memory whose red says x and whose green says y, 16 px a grey level."""

    def __init__(self, path: Path = Path("a.tiff"), gate: threading.Event | None = None) -> None:
        self.info = SlideInfo(
            path, "tiff", "memory", 4000, 2000, 0.5, 0.5, "file", None,
            (Level(4000, 2000, 1.0, 256, 256), Level(1000, 500, 4.0, 256, 256)),
            ("r", "g", "b"), "uint8", "", None, (), {}, "0" * 64,
        )  # fmt: skip
        self.levels_read: list[int] = []
        self.closed = False
        self._gate = gate

    def read_region(self, xy_px0, level, size):
        if self.closed:
            raise SlideError(f"{self.info.path.name} is closed already.")
        if self._gate is not None:
            self._gate.wait(10)
        self.levels_read.append(level)
        step = self.info.levels[level].downsample
        out = np.zeros((size[1], size[0], 3), np.uint8)
        out[..., 0] = ((xy_px0[0] + np.arange(size[0]) * step) / 16)[None, :]
        out[..., 1] = ((xy_px0[1] + np.arange(size[1]) * step) / 16)[:, None]
        return out

    def close(self) -> None:
        self.closed = True


class ByHand:
    """A loader whose jobs are done when the test says so."""

    def __init__(self) -> None:
        self.jobs: deque[Job] = deque()

    def want(self, _client, jobs) -> None:
        self.jobs = deque(jobs)

    def leave(self, _client) -> None:
        self.jobs.clear()

    def work(self, count: int = 1000) -> None:
        while self.jobs and count:
            self.jobs.popleft().run()
            count -= 1


def thumb(n: int, slide: str = "a.tiff", side: int = 64) -> Thumb:
    return Thumb(Path(slide), (n * 256.0, 0.0), (256.0, 256.0), side)


@pytest.fixture
def made():
    """Thumbnails of a ramp: what came, and the loader to work by hand."""
    came: list[Thumb] = []
    loader, slides = ByHand(), {}

    def opens(path: Path) -> Ramp:
        slides[path] = Ramp(path)
        return slides[path]

    kept = Thumbnails(came.append, opens=opens, loader=loader)
    yield kept, loader, came, slides
    kept.close()


def test_a_thumbnail_is_the_place_from_the_level_nearest_to_its_size(made):
    kept, loader, came, slides = made
    wanted = Thumb(Path("a.tiff"), (512.0, 256.0), (256.0, 128.0), 64)
    assert kept.find(wanted) is None
    kept.want([wanted])
    loader.work()
    picture = kept.find(wanted)
    assert picture.shape == (32, 64, 3)
    assert slides[Path("a.tiff")].levels_read == [1]  # 4 px of level 0 are one of the thumbnail
    expected = read_rect(Ramp(), (512.0, 256.0), (256.0, 128.0), (64, 32))
    np.testing.assert_array_equal(picture, expected)
    assert came == [wanted]


def test_what_was_scrolled_away_is_never_read(made):
    kept, loader, came, _ = made
    kept.want([thumb(n) for n in range(10)])
    loader.work(2)
    kept.want([thumb(1), thumb(7), thumb(8)])
    loader.work()
    assert came == [thumb(0), thumb(1), thumb(7), thumb(8)]
    assert kept.find(thumb(2)) is None


def test_memory_is_bounded_and_what_was_looked_at_stays(made):
    _, loader, came, _slides = made
    picture = 64 * 64 * 3
    kept = Thumbnails(
        came.append, budget_bytes=3 * picture, opens=lambda path: Ramp(path), loader=loader
    )
    kept.want([thumb(n) for n in range(3)])
    loader.work()
    kept.find(thumb(0))
    kept.want([thumb(3), thumb(4)])
    loader.work()
    assert kept.used_bytes == 3 * picture
    assert [n for n in range(5) if kept.find(thumb(n)) is not None] == [0, 3, 4]
    kept.close()
    assert kept.used_bytes == 0


def test_few_slides_are_open_at_once_and_none_after_the_end(made, monkeypatch):
    kept, loader, _, slides = made
    monkeypatch.setattr(thumbnails, "MOST_OPEN", 2)
    kept.want([thumb(0, f"{n}.tiff") for n in range(5)])
    loader.work()
    assert [not each.closed for each in slides.values()] == [False, False, False, True, True]
    kept.close()
    assert all(each.closed for each in slides.values())


def test_a_slide_that_cannot_be_read_says_so_in_place_of_the_picture(made):
    _, loader, came, _ = made

    def refuses(path: Path) -> Ramp:
        raise SlideError(f"{path} does not exist.")

    kept = Thumbnails(came.append, opens=refuses, loader=loader)
    kept.want([thumb(0)])
    loader.work()
    assert kept.find(thumb(0)) == "a.tiff does not exist."
    assert came == [thumb(0)]


def test_threads_read_side_by_side_and_a_slide_is_closed_by_its_last_reader():
    gate, came = threading.Event(), threading.Semaphore(0)
    slide = Ramp(gate=gate)
    opened = []

    def opens(path: Path) -> Ramp:
        opened.append(path)
        return slide

    kept = Thumbnails(lambda _: came.release(), opens=opens)
    kept.want([thumb(n) for n in range(6)])
    gate.set()
    for _ in range(6):
        assert came.acquire(timeout=10)
    assert len(opened) == 1
    assert all(isinstance(kept.find(thumb(n)), np.ndarray) for n in range(6))
    kept.close()
    assert slide.closed
