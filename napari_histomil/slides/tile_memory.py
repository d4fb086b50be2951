"""Memory for decoded tiles, in large pieces that are used again.

Fresh memory costs the system about a third of what a JPEG tile costs to decode: it is handed out
page by page, each cleared first. Here tiles of one size share large blocks (for which the system
uses large pages), and a tile's place is used again once nobody refers to it any more.
"""

from __future__ import annotations

import threading
import weakref
from collections import deque
from functools import cache, partial

import numpy as np

from napari_histomil.slides.resample import Uint8Image

BLOCK_BYTES = 16 << 20
"""Size of a block; numpy asks the system for large pages where memory is that large."""

LARGE_PAGE_BYTES = 2 << 20

TILE_BYTES = (16 << 10, 1 << 20)
"""Tiles of sizes in this range are placed in blocks; for others it does not pay."""

SPARE_PICTURES = 2
"""Pictures' memory kept for the next ones: one is on the screen, one is painted."""

PAGE_BYTES = 4096

BESIDE_BYTES = 8
"""Memory for decoded pixels begins so far beside a multiple of 16 bytes.

On x86, libjpeg-turbo stores rows that begin at a multiple of its vectors' size past the caches of
the processor, which waits for the memory then; all others it stores like anything else. That is a
fifth of the time that a tile takes.
"""


def empty_pixels(height: int, width: int, colors: int = 3) -> Uint8Image:
    """Return memory that decoders fill quickly: uint8 [height, width, colors], contiguous."""
    memory = np.empty(height * width * colors + BESIDE_BYTES, np.uint8)
    return memory[BESIDE_BYTES:].reshape(height, width, colors)


class _Block:
    """Memory of tiles of one size."""

    __slots__ = ("free", "memory", "places", "slot_bytes")

    def __init__(self, slot_bytes: int) -> None:
        self.slot_bytes = slot_bytes
        memory = np.empty(BLOCK_BYTES + LARGE_PAGE_BYTES, np.uint8)
        start = -memory.ctypes.data % LARGE_PAGE_BYTES  # what lies before is never touched
        self.memory = memory[start : start + BLOCK_BYTES].data
        self.places = BLOCK_BYTES // slot_bytes
        self.free = list(range(self.places))


class _Place(weakref.ref[Uint8Image]):
    """Where a tile lies; goes back to its block when the tile is gone."""

    __slots__ = ("block", "index")

    block: _Block
    index: int


class TileMemory:
    """Hands out memory for tiles; may be called from several threads.

    Blocks go back to the system when no tile is left in them, but for one that is kept for the
    next tile of its size.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._blocks: dict[int, list[_Block]] = {}
        self._spare: _Block | None = None
        self._used: dict[int, _Place] = {}  # by identity: a place has the hash of its array
        self._returned: deque[_Place] = deque()

    @property
    def held_bytes(self) -> int:
        """Bytes of all blocks."""
        with self._lock:
            count = sum(len(blocks) for blocks in self._blocks.values())
        return BLOCK_BYTES * count

    def empty(self, height: int, width: int) -> Uint8Image:
        """Return memory for a tile: uint8 [height, width, 3], contiguous, of any content."""
        size = height * width * 3
        least, most = TILE_BYTES
        if not least <= size <= most:
            return empty_pixels(height, width)
        slot_bytes = -(-(size + BESIDE_BYTES) // PAGE_BYTES) * PAGE_BYTES
        with self._lock:
            self._take_back()
            block = self._block_with_room(slot_bytes)
            index = block.free.pop()
            start = index * slot_bytes + BESIDE_BYTES
            # All views of the tile refer to this array: its end is the end of the last of them.
            root = np.frombuffer(block.memory[start : start + size], np.uint8)
            place = _Place(root, self._give_back)
            place.block, place.index = block, index
            self._used[id(place)] = place
        return root.reshape(height, width, 3)

    def _block_with_room(self, slot_bytes: int) -> _Block:
        blocks = self._blocks.setdefault(slot_bytes, [])
        for block in reversed(blocks):  # the newest are the likeliest to have room
            if block.free:
                if block is self._spare:
                    self._spare = None
                return block
        blocks.append(_Block(slot_bytes))
        return blocks[-1]

    def _give_back(self, place: weakref.ref[Uint8Image]) -> None:
        """Note that a tile has gone; may be called anywhere, also while we hold the lock."""
        self._returned.append(self._used.pop(id(place)))
        if self._lock.acquire(blocking=False):
            try:
                self._take_back()
            finally:
                self._lock.release()

    def _take_back(self) -> None:
        while self._returned:
            place = self._returned.popleft()
            block = place.block
            block.free.append(place.index)
            if len(block.free) == block.places:
                spare, self._spare = self._spare, block
                if spare is not None and spare is not block:
                    self._blocks[spare.slot_bytes].remove(spare)


class PictureMemory:
    """Hands out memory for pictures that follow one another, such as a window's frames.

    Pictures of a few megabytes come from fresh memory every time, which the system clears first:
    that took longer than all that is painted into them. A picture's memory is used again once
    nobody refers to it any more. May be called from several threads.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._out: dict[int, tuple[weakref.ref[Uint8Image], Uint8Image]] = {}
        self._returned: deque[Uint8Image] = deque(maxlen=SPARE_PICTURES)  # the oldest goes

    def empty(self, height: int, width: int) -> Uint8Image:
        """Return memory for a picture: uint8 [height, width, 3], contiguous, of any content."""
        size = height * width * 3
        if size <= TILE_BYTES[1]:
            return np.empty((height, width, 3), np.uint8)
        with self._lock:
            memory = self._spare(size)
            picture = np.frombuffer(memory.data[:size], np.uint8)
            # All views of the picture refer to this array, as those of tiles do.
            self._out[id(picture)] = (
                weakref.ref(picture, partial(self._give_back, id(picture))),
                memory,
            )
        return picture.reshape(height, width, 3)

    def _spare(self, size: int) -> Uint8Image:
        for _ in range(len(self._returned)):
            memory = self._returned.popleft()
            if size <= memory.nbytes <= 2 * size:
                return memory
            self._returned.append(memory)
        return np.empty(-(-size // LARGE_PAGE_BYTES) * LARGE_PAGE_BYTES, np.uint8)

    def _give_back(self, number: int, _: object) -> None:
        # Called anywhere, also while we hold the lock: no step here needs it.
        self._returned.append(self._out.pop(number)[1])


@cache
def tile_memory() -> TileMemory:
    """Return the process's one store of memory for tiles."""
    return TileMemory()


@cache
def picture_memory() -> PictureMemory:
    """Return the process's one store of memory for what is painted."""
    return PictureMemory()
