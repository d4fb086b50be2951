"""Small pictures of many places of many slides, read beside the window and kept within a budget.

Whoever shows them says at any time which it wants now; that takes the place of what it wanted
before, so what was scrolled away is never read. They come from the stored level nearest to their
size, through the cache that a viewer of the same slide uses. Nothing here knows a window.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from napari_histomil.errors import HistomilError
from napari_histomil.slides.loader import Job, Loader, shared_loader
from napari_histomil.slides.readers import open_slide
from napari_histomil.slides.slide import Slide, Uint8Image, read_rect

BUDGET_BYTES = 64 << 20
"""1,700 pictures of 112 px."""

MOST_OPEN = 8
"""Slides held open at once: a page of a gallery may be of hundreds."""

RANK = 0.45
"""After the pieces in view of a viewer (`loader.Job`), before what lies around it."""

_log = logging.getLogger(__name__)


class Thumb(NamedTuple):
    """One small picture: which place of which slide, and how large it is drawn."""

    slide: Path
    xy_px0: tuple[float, float]
    """Upper left corner (x, y), level-0 px."""
    size_px0: tuple[float, float]
    """(width, height), level-0 px."""
    side_px: int
    """Of the picture's longer side."""

    @property
    def out_px(self) -> tuple[int, int]:
        """(width, height) of the picture."""
        scale = self.side_px / max(self.size_px0)
        width, height = (max(round(side * scale), 1) for side in self.size_px0)
        return width, height


class _Opened:
    """A slide held open, and how many threads read it just now."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lock = threading.Lock()
        self.slide: Slide | None = None
        self.readers = 0
        self.is_dropped = False


class Thumbnails:
    """Pictures by name, some of them read already; all methods may be called from any thread.

    Parameters
    ----------
    arrived
        Called in a thread of the loader when a wanted picture is there, or cannot be.
    budget_bytes
        What pictures may take; those looked at longest ago go first.
    opens
        Opens a slide; each is closed with the last picture that needs it, or by `close`.
    loader
        The threads; the process's shared ones by default.
    """

    def __init__(
        self,
        arrived: Callable[[Thumb], None],
        *,
        budget_bytes: int = BUDGET_BYTES,
        opens: Callable[[Path], Slide] = open_slide,
        loader: Loader | None = None,
    ) -> None:
        self._arrived = arrived
        self._budget = budget_bytes
        self._opens = opens
        self._loader = loader or shared_loader()
        self._lock = threading.Lock()
        self._kept: OrderedDict[Thumb, Uint8Image | str] = OrderedDict()
        self._bytes = 0
        self._slides: OrderedDict[Path, _Opened] = OrderedDict()
        self._closed = False

    @property
    def used_bytes(self) -> int:
        """Bytes of the pictures kept now."""
        return self._bytes

    def find(self, thumb: Thumb) -> Uint8Image | str | None:
        """Return a picture [height, width, 3] if it is kept; never reads and never waits.

        A string instead says, in a sentence, why there is none; None is one still to come.
        """
        with self._lock:
            found = self._kept.get(thumb)
            if found is not None:
                self._kept.move_to_end(thumb)
            return found

    def want(self, thumbs: Iterable[Thumb]) -> None:
        """Set which pictures are wanted from now on, the most urgent first."""
        with self._lock:
            if self._closed:
                return
            todo = [each for each in dict.fromkeys(thumbs) if each not in self._kept]
        # One rank for all: the loader keeps their order and other clients stay in between.
        self._loader.want(self, [Job(RANK, each, partial(self._make, each)) for each in todo])

    def forget(self) -> None:
        """Forget all pictures."""
        with self._lock:
            self._kept.clear()
            self._bytes = 0

    def close(self) -> None:
        """Want nothing ever again, and close the slides."""
        with self._lock:
            self._closed = True
            dropped = list(self._slides.values())
            self._slides.clear()
        self._loader.leave(self)
        self.forget()
        for each in dropped:
            self._drop(each)

    def _make(self, thumb: Thumb) -> None:
        made: Uint8Image | str
        try:
            with self._reading(thumb.slide) as slide:
                made = read_rect(slide, thumb.xy_px0, thumb.size_px0, thumb.out_px)
        except (HistomilError, OSError) as error:
            if not self._closed:
                _log.warning("no thumbnail: %s", error)
            made = str(error)
        with self._lock:
            if self._closed:
                return
            old = self._kept.pop(thumb, None)
            self._bytes += _size(made) - _size(old)
            self._kept[thumb] = made
            while self._bytes > self._budget and len(self._kept) > 1:
                self._bytes -= _size(self._kept.popitem(last=False)[1])
        self._arrived(thumb)

    @contextmanager
    def _reading(self, path: Path) -> Iterator[Slide]:
        """Hold a slide open while it is read."""
        dropped = []
        with self._lock:
            opened = self._slides.pop(path, None) or _Opened(path)
            self._slides[path] = opened  # the newest is last
            opened.readers += 1
            while len(self._slides) > MOST_OPEN:
                dropped.append(self._slides.popitem(last=False)[1])
        for each in dropped:
            self._drop(each)
        try:
            with opened.lock:  # one thread opens it, the others wait
                if opened.slide is None:
                    opened.slide = self._opens(path)
            yield opened.slide
        finally:
            with self._lock:
                opened.readers -= 1
                last = opened.is_dropped and not opened.readers
            if last and opened.slide is not None:
                opened.slide.close()

    def _drop(self, opened: _Opened) -> None:
        """Close a slide, or let its last reader do so."""
        with self._lock:
            opened.is_dropped = True
            free = not opened.readers
        if free and opened.slide is not None:
            opened.slide.close()


def _size(made: Uint8Image | str | None) -> int:
    if made is None:
        return 0
    return made.nbytes if isinstance(made, np.ndarray) else len(made)
