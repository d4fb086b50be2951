"""Whether regions are read in sequence, so that what they share is worth keeping."""

from __future__ import annotations

import threading
from collections import OrderedDict

MAX_EXPECTED = 4096
"""Corners remembered: two for each read, so a row of reads over the widest slides."""

Corner = tuple[int, int, int]
"""(level, x, y) in the level's own pixels."""


class ReadingOrder:
    """Notices walks: a read that begins where an earlier one ended, beside it or below it.

    A tile at the edge of such a read is wanted again by its neighbour. A read anywhere else is
    probably a random one, whose tiles nobody asks for again.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._expected: OrderedDict[Corner, None] = OrderedDict()

    def follows(self, level: int, xy: tuple[int, int], size: tuple[int, int]) -> bool:
        """Note a read; say whether it goes on from an earlier one of any thread."""
        x, y = xy
        with self._lock:
            known = (level, x, y) in self._expected
            for corner in ((level, x + size[0], y), (level, x, y + size[1])):
                self._expected[corner] = None
            while len(self._expected) > MAX_EXPECTED:
                self._expected.popitem(last=False)
        return known
