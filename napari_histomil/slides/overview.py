"""The coarse levels of a slide, kept in memory: there is always something to show.

An overview begins as blank paper. `Overview.start` lets the loader fill it: a sketch first where
filling takes long, then block by block, those in view and those with tissue first. Each block is
halved down through the coarser levels at once, so that all of them grow together; at the end they
are halved once more as a whole, and are exact.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from PIL import Image

from napari_histomil.errors import HistomilError
from napari_histomil.slides.loader import Job, Loader
from napari_histomil.slides.patchwork import enlarged
from napari_histomil.slides.resample import mean_of_blocks
from napari_histomil.slides.slide import Uint8Image

PAPER = 242
"""Grey level of what nobody knows anything of yet: glass, as scanners see it."""

FIRST, IN_VIEW, LATER, LAST = -1.0, 0.5, 2.0, 3.0
"""Ranks (`loader.Job`): pieces in view have 0 to 0.4, what lies around it 1."""

SMOOTH_PX = 1 << 20
"""Finer levels than that repeat the sketch's pixels: to interpolate them would take longer than
to make the sketch."""

BAND_ROWS = 16
"""Rows of a sketch that are enlarged at once."""

Area = tuple[int, int, int, int]
"""(x0, y0, x1, y1) in pixels of the finest kept level."""


@dataclass(frozen=True)
class Block:
    """A rectangle of one kept level that is made in one go."""

    index: int
    x: int
    y: int
    width: int
    height: int
    weight: float = 0.0
    """Blocks with more of it come first: bytes of the stored tiles tell where the tissue is."""


@dataclass(frozen=True)
class Source:
    """Where an overview's pixels come from."""

    blocks: Sequence[Block]
    make: Callable[[Block], Uint8Image]
    """Makes a block's pixels; deals with damaged places itself."""
    sketch: Callable[[], Uint8Image | None] | None = None
    """Makes a small picture of the whole slide, quickly; None where it cannot."""
    load: Callable[[], Uint8Image | None] | None = None
    """Reads the finest kept level from where `save` has put it; None where nothing sound lies."""
    save: Callable[[Uint8Image], None] | None = None


class Overview:
    """Levels ``first`` and coarser of a pyramid.

    Parameters
    ----------
    first
        Index of the finest kept level.
    sizes
        (width, height) of each kept level, the finest first.
    inside
        (width, height) of the slide itself in the finest kept level; white lies beyond.
    source
        Where the pixels come from. Its blocks cover the slide in level ``first``, and in each
        kept level that is not half of the one before.

    Attributes
    ----------
    levels
        uint8 [height, width, 3] each; they are filled in place.
    begun
        Whether there is something of the slide to see.
    complete
        Whether all pixels are as they will stay.
    """

    def __init__(
        self,
        first: int,
        sizes: Sequence[tuple[int, int]],
        inside: tuple[int, int],
        source: Source,
    ) -> None:
        self.first = first
        self.complete = False
        self.levels: list[Uint8Image] = []
        for step, (width, height) in enumerate(sizes):
            level = np.full((height, width, 3), 255, np.uint8)
            level[: -(-inside[1] >> step), : -(-inside[0] >> step)] = PAPER
            self.levels.append(level)
        self._inside = inside
        self._source = source
        self._own = {block.index for block in source.blocks} | {first}
        self._exact = _halved_exactly(source.blocks, range(first, first + len(sizes)))
        self._waiting = dict(enumerate(source.blocks))
        self._making: dict[int, Block] = {}
        self._looking: Area | None = None
        self._listeners: list[Callable[[], None]] = []
        self._lock = threading.RLock()
        self._beginning = threading.Lock()
        self._done = threading.Event()
        self._loader: Loader | None = None
        self.begun = False

    # --- looking ---

    def part(self, index: int, x: int, y: int, width: int, height: int) -> tuple[Uint8Image, bool]:
        """Return a rectangle of a kept level as it is now, shared, and whether it stays so."""
        level = self.levels[index - self.first]
        step = index - self.first
        area = (x << step, y << step, (x + width) << step, (y + height) << step)
        return level[y : y + height, x : x + width], self._is_done(area)

    def _is_done(self, area: Area) -> bool:
        if self.complete:
            return True
        with self._lock:
            return not any(
                self._touches(block, area)
                for blocks in (self._waiting, self._making)
                for block in blocks.values()
            )

    def _touches(self, block: Block, area: Area) -> bool:
        step = block.index - self.first
        return (
            block.x << step < area[2]
            and (block.x + block.width) << step > area[0]
            and block.y << step < area[3]
            and (block.y + block.height) << step > area[1]
        )

    def look_at(self, area: Area | None) -> None:
        """Fill the blocks in an area before all others."""
        with self._lock:
            if area == self._looking or self.complete:
                return
            self._looking = area
        self._ask()

    @property
    def slow(self) -> bool:
        """Whether filling it takes so long that somebody should be told."""
        return self._source.sketch is not None

    @property
    def share(self) -> float:
        """How much of it is filled, 0 to 1."""
        if self.complete:
            return 1.0
        return 1 - (len(self._waiting) + len(self._making)) / max(len(self._source.blocks), 1)

    def listen(self, listener: Callable[[], None]) -> None:
        """Call a function, in any thread, whenever more pixels are in."""
        with self._lock:
            self._listeners.append(listener)

    def forget(self, listener: Callable[[], None]) -> None:
        """Call it no more."""
        with self._lock:
            if listener in self._listeners:
                self._listeners.remove(listener)

    # --- filling ---

    def start(self, loader: Loader) -> None:
        """Begin or go on to fill, in the loader's threads; does not wait."""
        with self._lock:
            if self._loader is not None or self.complete:
                return
            self._loader = loader
        if self.begun:
            self._ask()
        else:
            loader.want(self, [Job(FIRST, "begin", self._begin)])

    def stop(self) -> None:
        """Stop filling; `start` goes on with what is left."""
        with self._lock:
            loader, self._loader = self._loader, None
        if loader is not None:
            loader.leave(self)

    def finish(self) -> None:
        """Fill what is left now, in this thread too; returns when all is there."""
        self._begin()
        while not self.complete:
            with self._lock:
                number = next(iter(self._waiting), None)
            if number is None:  # others fill the last ones, or give them back
                self._done.wait(0.05)
            else:
                self._fill(number)

    def _begin(self) -> None:
        with self._beginning:  # nobody fills before the sketch is drawn
            if not self.begun:
                self._load_or_sketch()
                self.begun = True
        self._ask()

    def _load_or_sketch(self) -> None:
        loaded = self._source.load() if self._source.load is not None else None
        if loaded is not None and loaded.shape == self.levels[0].shape:
            self.levels[0][:] = loaded
            with self._lock:
                self._waiting = {
                    n: block for n, block in self._waiting.items() if block.index != self.first
                }
            self._exact = set()
            self._settle()
            return
        # Alone: the window, which is just being set up, wants the other cores.
        picture = self._source.sketch() if self._source.sketch is not None else None
        if picture is not None:
            self._draw(picture)
            self.begun = True
            self._tell()

    def _draw(self, picture: Uint8Image) -> None:
        """Show a sketch; nothing is filled yet."""
        image = Image.fromarray(picture)
        small, small_step = picture, 0
        for step, level in reversed(list(enumerate(self.levels))):
            width, height = (max(-(-side >> step), 1) for side in self._inside)
            if width * height <= SMOOTH_PX or step == len(self.levels) - 1:
                drawn = image.resize((width, height), Image.Resampling.BILINEAR)
                small, small_step = np.asarray(drawn), step
                level[:height, :width] = small
            else:
                factor = 1 << (small_step - step)
                for top in range(0, len(small), BAND_ROWS):  # as new memory costs more than it
                    band = enlarged(small[top : top + BAND_ROWS], factor)
                    part = level[top * factor : min(top * factor + len(band), height), :width]
                    part[:] = band[: len(part), :width]

    def _ask(self) -> None:
        with self._lock:
            loader = self._loader
            if loader is None or not self.begun:
                return
            most = max((block.weight for block in self._waiting.values()), default=0.0) or 1.0
            jobs = []
            for number, block in self._waiting.items():
                seen = self._looking is not None and self._touches(block, self._looking)
                rank = (IN_VIEW if seen else LATER) - 0.4 * block.weight / most
                jobs.append(Job(rank, number, partial(self._fill_beside, number)))
        loader.want(self, jobs)

    def _fill_beside(self, number: int) -> None:
        """Fill one block, in a thread of the loader; a slide that was closed meanwhile is none."""
        try:
            self._fill(number)
        except HistomilError:
            if self._loader is not None:  # else it was stopped
                raise

    def _fill(self, number: int) -> None:
        with self._lock:
            block = self._waiting.pop(number, None)
            if block is None:
                return
            self._making[number] = block
        try:
            pixels = self._source.make(block)
            level = self.levels[block.index - self.first]
            level[block.y : block.y + block.height, block.x : block.x + block.width] = pixels
            self._halve_down(block)
            with self._lock:
                del self._making[number]
                last = not self._waiting and not self._making
        except BaseException:
            with self._lock:
                if self._making.pop(number, None) is not None:
                    self._waiting[number] = block
            raise
        if last:
            self._settle()
            if self._source.save is not None:
                self._source.save(self.levels[0])
        self._tell()

    def _halve_down(self, block: Block) -> None:
        """Make what lies over a block in the coarser levels, as far as it can be known."""
        x0, y0, x1, y1 = block.x, block.y, block.x + block.width, block.y + block.height
        for index in range(block.index + 1, self.first + len(self.levels)):
            if index in self._own:
                return
            finer, level = self.levels[index - 1 - self.first], self.levels[index - self.first]
            x0, y0, x1, y1 = x0 >> 1, y0 >> 1, -(-x1 >> 1), -(-y1 >> 1)
            level[y0:y1, x0:x1] = mean_of_blocks(
                np.ascontiguousarray(finer[2 * y0 : 2 * y1, 2 * x0 : 2 * x1]), 2
            )

    def _settle(self) -> None:
        """Halve once more where blocks side by side share pixels: each was halved by itself."""
        for step, level in enumerate(self.levels[1:], 1):
            if self.first + step not in self._own | self._exact:
                level[:] = mean_of_blocks(self.levels[step - 1], 2)
        with self._lock:
            self.complete = not self._waiting and not self._making
            if not self.complete:
                return
        self._done.set()
        self.stop()
        self._tell()

    def _tell(self) -> None:
        with self._lock:
            listeners = list(self._listeners)
        for listener in listeners:
            listener()


def _halved_exactly(blocks: Sequence[Block], levels: range) -> set[int]:
    """Return the levels down to which blocks are halved, each by itself, sharing no pixel."""
    own = {block.index for block in blocks} | {levels.start}
    exact = set()
    for level in levels:
        source = max(index for index in own if index <= level)
        step = 1 << (level - source)
        if all(block.x % step == block.y % step == 0 for block in blocks if block.index == source):
            exact.add(level)
    return exact
