"""What one viewer sees of a slide: pixels at once, and the rest as soon as it can be fetched.

A `Look` belongs to one shown layer. Each time the viewer asks for a rectangle, the look gives what
is in memory, fills the gaps from coarser levels, and tells the loader what is missing, what is in
the middle first. That replaces what it wanted before. When nothing in view is missing, it goes on
ahead of the movement: the strip that a pan comes to next, the level that a zoom comes to next, and
then a ring of pieces around the view, since it may turn.

Where what is missing will be there within a part of a frame, as a few tiles of JPEG are, the look
waits for it: a second frame, with a sketch of them before, would take longer than that.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from napari_histomil.errors import HistomilError
from napari_histomil.slides.loader import Job
from napari_histomil.slides.patchwork import Key, assemble, find_pieces
from napari_histomil.slides.pieces import damaged
from napari_histomil.slides.slide import Uint8Image
from napari_histomil.slides.tile_memory import picture_memory

if TYPE_CHECKING:
    from napari_histomil.slides.pyramid import Pyramid

IN_VIEW, AROUND, ANYWHERE = 0.0, 1.0, 1.5
"""Ranks of jobs: in view, where it goes, one piece farther in every direction; what fills the
overview lies between and after them."""

ZOOM_SHARE = 0.05
"""A view that has changed its width by more has zoomed, not panned: edges are rounded out."""

AHEAD_SHARE = 0.5
"""Of the view: how far ahead of a pan pieces are fetched."""

PATIENCE_S = 0.008
"""What a frame may wait for pieces that are expected to come by then: half a frame at 60 Hz."""

Area = tuple[int, int, int, int, int]
"""(level, x, y, width, height)."""


class Look:
    """Paints for one layer; all methods may be called from any thread.

    Parameters
    ----------
    pyramid
        The slide's levels.

    Attributes
    ----------
    arrived
        Called, in any thread, when pixels in view are in; None while nobody follows.
    final
        Whether what was painted last shows all that there is.
    painted_s
        When (`time.monotonic`) something was painted last.
    grown
        Whether more pixels in view are in than were painted last.
    """

    def __init__(self, pyramid: Pyramid) -> None:
        self.pyramid = pyramid
        self.final = False
        self.grown = False
        self.painted_s = -math.inf
        self.arrived: Callable[[], None] | None = None
        self._held: dict[Key, Uint8Image] = {}
        self._missing: set[Key] = set()
        self._last: Area | None = None
        self._came_from: Area | None = None
        self._anew = False
        self._entered = (0, 0)
        self._failed: dict[Key, Uint8Image] = {}
        self._seen: set[Key] = set()
        self._lut: bytes | None = None
        self._closed = False
        self._lock = threading.Lock()
        self._all_in = threading.Condition(self._lock)
        pyramid.overview.listen(self._overview_grew)

    @property
    def waiting(self) -> int:
        """Pieces in view that are still to come."""
        return len(self._missing)

    def paint(
        self, index: int, x: int, y: int, width: int, height: int
    ) -> tuple[Uint8Image, bool]:
        """Return what is there of a rectangle of a level; see `Pyramid.paint`."""
        pyramid = self.pyramid
        overview = pyramid.overview
        overview.start(pyramid.loader)
        self.grown = False
        step = index - overview.first
        if step >= 0:
            out, final = overview.part(index, x, y, width, height)
            overview.look_at((x << step, y << step, (x + width) << step, (y + height) << step))
            out = out.copy()
            held: dict[Key, Uint8Image] = {}
            missing: list[Key] = []
        else:
            out = picture_memory().empty(height, width)
            held, missing = find_pieces(pyramid, self._held_or_found, index, x, y, width, height)
            final = False
        missing = self._see((index, x, y, width, height), held, missing)
        if step < 0:
            held, missing = self._wait_a_little(held, missing)
            assemble(pyramid, self._held_or_found, out, index, x, y, held, missing)
            final = not missing
        self.final = final
        self.painted_s = time.monotonic()
        if self._lut is not None:  # of bytes, as that is twice as quick as an array's index
            out = np.frombuffer(out.tobytes().translate(self._lut), np.uint8).reshape(out.shape)
        return out, final

    def set_lut(self, lut: NDArray[np.uint8] | None) -> None:
        """Paint through a table of 256 values; None for the pixels themselves."""
        self._lut = lut.tobytes() if lut is not None else None

    def rest(self) -> None:
        """Want nothing: the layer is hidden."""
        with self._lock:
            self._missing = set()
            self._held = {}
            self._last = self._came_from = None
        self.pyramid.loader.leave(self)

    def close(self) -> None:
        """Want nothing ever again."""
        with self._lock:
            self._closed = True
        self.pyramid.overview.forget(self._overview_grew)
        self.rest()

    # --- wanting ---

    def _see(self, area: Area, held: dict[Key, Uint8Image], missing: list[Key]) -> list[Key]:
        """Note what is in view, want what is missing and what comes next; return the former."""
        with self._lock:
            if self._closed:
                return missing
            if area != self._last:  # else it is only painted again, and goes on ahead as before
                self._came_from, self._last = self._last, area
                if self._came_from is None or self._came_from[0] != area[0]:
                    self._entered = area[3:]
                # Whoever looks again at what was seen is not on the way to anything new.
                self._anew = bool(missing) or not held.keys() <= self._seen
            came_from, anew = self._came_from, self._anew
            self._held = held
            self._missing = set(missing)
            self._seen.update(held)
            self._seen.update(missing)
        # What came in since it was looked for has told nobody.
        for key in missing:
            late = self._find(key)
            if late is not None:
                self._take(key, late)
        missing = [key for key in missing if key in self._missing]
        jobs = self._in_view(area, missing)
        if anew:
            jobs += self._ahead(area, came_from)
        self.pyramid.loader.want(self, jobs)
        return missing

    def _wait_a_little(
        self, held: dict[Key, Uint8Image], missing: list[Key]
    ) -> tuple[dict[Key, Uint8Image], list[Key]]:
        """Return what is in view once it is there, or as it is where that would take long."""
        with self._all_in:
            if self._closed:
                return held, missing
            begin = now = time.monotonic()
            while self._missing and now < begin + PATIENCE_S:
                self._all_in.wait_for(lambda: not self._missing, PATIENCE_S / 4)
                now = time.monotonic()
                came = len(missing) - len(self._missing)
                if 3 * came * PATIENCE_S < len(missing) * (now - begin):
                    break  # at three times this pace, even, they will not be in by then
            self.grown = False  # what came in is painted now
            return dict(self._held), [key for key in missing if key in self._missing]

    def _find(self, key: Key) -> Uint8Image | None:
        piece = self._failed.get(key)
        return piece if piece is not None else self.pyramid.pieces[key[0]].find(*key[1:])

    def _held_or_found(self, key: Key) -> Uint8Image | None:
        piece = self._held.get(key)
        return piece if piece is not None else self._find(key)

    def _take(self, key: Key, piece: Uint8Image) -> None:
        """Hold a piece if it is in view, and tell of it."""
        with self._lock:
            seen = key in self._missing
            if seen:
                self._missing.discard(key)
                self._held[key] = piece
                if not self._missing:
                    self._all_in.notify_all()
        if seen:
            self._grow()

    def _in_view(self, area: Area, missing: list[Key]) -> list[Job]:
        _, x, y, width, height = area
        jobs = []
        for key in missing:
            pieces = self.pyramid.pieces[key[0]]
            dx = ((key[2] + 0.5) * pieces.width - x) / max(width, 1) - 0.5
            dy = ((key[1] + 0.5) * pieces.height - y) / max(height, 1) - 0.5
            rank = IN_VIEW + min((dx * dx + dy * dy) * 0.5, 0.4)
            jobs.append(Job(rank, key, partial(self._fetch, key)))
        return jobs

    def _ahead(self, area: Area, came_from: Area | None) -> list[Job]:
        """Return jobs for what the view comes to next: if it goes on as it does, else anywhere."""
        wanted: dict[Key, float] = {}
        coming = [] if came_from is None else _next_areas(area, came_from, self._entered)
        ranked = [(AROUND, next_area) for next_area in coming]
        if area[0] < self.pyramid.overview.first:
            index, x, y, width, height = area
            edge_x, edge_y = self.pyramid.pieces[index].width, self.pyramid.pieces[index].height
            ring = index, x - edge_x, y - edge_y, width + 2 * edge_x, height + 2 * edge_y
            ranked.append((ANYWHERE, ring))
        for rank, next_area in ranked:
            if not next_area[0] < self.pyramid.overview.first:
                continue
            pieces = self.pyramid.pieces[next_area[0]]
            rows, columns = pieces.span(*next_area[1:])
            for row in rows:
                for column in columns:
                    key = next_area[0], row, column
                    if key not in self._missing and self._find(key) is None:
                        wanted.setdefault(key, rank)
        return [Job(rank, key, partial(self._fetch, key)) for key, rank in wanted.items()]

    def _fetch(self, key: Key) -> None:
        """Make one piece, in a thread of the loader."""
        if self._closed:
            return
        index, row, column = key
        pieces = self.pyramid.pieces[index]
        try:
            piece = pieces.make(row, column)
        except HistomilError as error:
            if self._closed or self.pyramid.closed:
                return
            self.pyramid.report(error)
            piece = self._failed[key] = damaged(pieces.width, pieces.height)
        self._take(key, piece)

    def _overview_grew(self) -> None:
        # Its end is always told: what is out of view shows elsewhere, as in thumbnails.
        if self._last is not None and (not self.final or self.pyramid.overview.complete):
            self._grow()

    def _grow(self) -> None:
        told, self.grown = self.grown, True
        # Said once until it is painted, and again when the last piece is in.
        if self.arrived is not None and not (told and self._missing):
            self.arrived()


def _next_areas(area: Area, last: Area, entered: tuple[int, int]) -> list[Area]:
    """Return what a view that came from `last` to `area` comes to next if it goes on so.

    `entered` is the (width, height) that the view had when it came to this level: a view that
    zooms in has about as many pixels when it comes to the next one.
    """
    index, x, y, width, height = area
    grown = width / max(last[3], 1)
    if index < last[0] or (index == last[0] and grown < 1 - ZOOM_SHARE):  # zooms in
        if not index:
            return []
        wide, high = entered
        return [(index - 1, 2 * x + width - wide // 2, 2 * y + height - high // 2, wide, high)]
    if index > last[0] or grown > 1 + ZOOM_SHARE:  # zooms out: all around, one level coarser
        corner = (x - width // 2) // 2, (y - height // 2) // 2
        return [(index + 1, *corner, width, height)]
    wanted: list[Area] = []
    dx, dy = (
        x + width / 2 - (last[1] + last[3] / 2),
        y + height / 2 - (last[2] + last[4] / 2),
    )
    if abs(dx) < width and abs(dy) < height:
        step_x, step_y = int(width * AHEAD_SHARE), int(height * AHEAD_SHARE)
        if dx > 0:
            wanted.append((index, x + width, y, step_x, height))
        elif dx < 0:
            wanted.append((index, x - step_x, y, step_x, height))
        if dy > 0:
            wanted.append((index, x, y + height, width, step_y))
        elif dy < 0:
            wanted.append((index, x, y - step_y, width, step_y))
    return wanted
