"""Decoded tiles kept in memory: one store with a byte budget, shared by viewer and engine.

A tile that several threads ask for at once is made once; the others wait for it. Nothing here
knows where tiles come from.
"""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Hashable
from functools import cache

from napari_histomil.slides.memory import automatic_budget_bytes
from napari_histomil.slides.slide import Uint8Image

DEFAULT_BUDGET_BYTES = 512 << 20

Key = tuple[Hashable, ...]
"""Owner first (see `TileCache.acquire`), then whatever tells the owner's tiles apart."""


class _Pending:
    """A tile being made: the lock is held until it is there or has failed."""

    __slots__ = ("error", "lock", "tile")

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.lock.acquire()
        self.tile: Uint8Image | None = None
        self.error: BaseException | None = None


class TileCache:
    """The most recently used tiles, up to a number of bytes.

    The newest tile always stays, however large: a picture stored in one piece must not be
    decoded again for every read of it.

    Attributes
    ----------
    hits, misses
        How many tiles were found, and how many were made.
    """

    def __init__(self, budget_bytes: int = DEFAULT_BUDGET_BYTES) -> None:
        self._budget_bytes = budget_bytes
        self._used_bytes = 0
        self._tiles: OrderedDict[Key, Uint8Image] = OrderedDict()
        self._pending: dict[Key, _Pending] = {}
        self._owners: Counter[Hashable] = Counter()
        self._lock = threading.Lock()
        self.hits = 0
        self.misses = 0

    @property
    def used_bytes(self) -> int:
        """Bytes of all tiles kept now."""
        return self._used_bytes

    @property
    def budget_bytes(self) -> int:
        """Bytes that tiles may take."""
        return self._budget_bytes

    def set_budget(self, budget_bytes: int) -> None:
        """Allow tiles so many bytes; the oldest beyond it go at once."""
        with self._lock:
            self._budget_bytes = budget_bytes
            self._shrink()

    def peek(self, key: Key) -> Uint8Image | None:
        """Return the tile of `key` if it is kept; never makes one and never waits for one."""
        with self._lock:
            tile = self._tiles.get(key)
            if tile is not None:
                self._tiles.move_to_end(key)
            return tile

    def get(self, key: Key, make: Callable[[], Uint8Image]) -> Uint8Image:
        """Return the tile of `key`, made by `make` unless it is kept.

        Parameters
        ----------
        make
            Called without any lock held, in this thread, by one thread at a time for one key.
            If it raises, every waiting thread gets the error and nothing is kept.

        Returns
        -------
        uint8 array
            Read-only, shared with others: copy it before changing it.
        """
        with self._lock:
            tile = self._tiles.get(key)
            if tile is not None:
                self._tiles.move_to_end(key)
                self.hits += 1
                return tile
            pending = self._pending.get(key)
            mine = pending is None
            if pending is None:
                pending = self._pending[key] = _Pending()
                self.misses += 1
            else:
                self.hits += 1
        if mine:
            return self._make(key, pending, make)
        with pending.lock:  # released when the maker is done
            if pending.tile is None:
                raise pending.error if pending.error is not None else RuntimeError(str(key))
            return pending.tile

    def _make(self, key: Key, pending: _Pending, make: Callable[[], Uint8Image]) -> Uint8Image:
        try:
            tile = make()
            tile.flags.writeable = False
            pending.tile = tile
        except BaseException as error:
            pending.error = error
            raise
        finally:
            with self._lock:
                del self._pending[key]
                if pending.tile is not None:
                    self._keep(key, pending.tile)
            pending.lock.release()
        return tile

    def _keep(self, key: Key, tile: Uint8Image) -> None:
        self._tiles[key] = tile
        self._used_bytes += tile.nbytes
        self._shrink()

    def _shrink(self) -> None:
        while self._used_bytes > self._budget_bytes and len(self._tiles) > 1:
            _, oldest = self._tiles.popitem(last=False)
            self._used_bytes -= oldest.nbytes

    def acquire(self, owner: Hashable) -> None:
        """Note that one more open slide uses tiles whose key begins with `owner`."""
        with self._lock:
            self._owners[owner] += 1

    def release(self, owner: Hashable) -> None:
        """Note that one of them is closed; with the last one the owner's tiles go."""
        with self._lock:
            self._owners[owner] -= 1
            if self._owners[owner] > 0:
                return
            del self._owners[owner]
            for key in [key for key in self._tiles if key[0] == owner]:
                self._used_bytes -= self._tiles.pop(key).nbytes

    def clear(self) -> None:
        """Forget all tiles."""
        with self._lock:
            self._tiles.clear()
            self._used_bytes = 0


@cache
def shared_cache() -> TileCache:
    """Return the process's one cache; by default it takes a share of the machine's memory."""
    return TileCache(automatic_budget_bytes())
