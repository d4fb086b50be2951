"""Decoded tiles kept in memory: one store with a byte budget, shared by viewer and engine.

A tile that several threads ask for at once is made once; the others wait for it. Nothing here
knows where tiles come from.
"""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Hashable, Sequence
from functools import cache

from napari_histomil.slides.memory import automatic_budget_bytes
from napari_histomil.slides.slide import Uint8Image

DEFAULT_BUDGET_BYTES = 512 << 20

LEAST_PASSING_BYTES = 32 << 20
"""Share of tiles passed on a walk, where no open slide needs more."""

MAX_SEEN = 1 << 14
"""Keys remembered of tiles that were made and not kept."""

Key = tuple[Hashable, ...]
"""Owner first (see `TileCache.acquire`), then whatever tells the owner's tiles apart."""


class _Pending:
    """A tile being made: the lock is held until it is there or has failed."""

    __slots__ = ("error", "lock", "owned", "tile")

    def __init__(self, owned: bool) -> None:
        self.lock = threading.Lock()
        self.lock.acquire()
        self.owned = owned
        self.tile: Uint8Image | None = None
        self.error: BaseException | None = None


_DONE = _Pending(owned=False)
"""Stands where nothing is being made."""


class TileCache:
    """The most recently used tiles, up to a number of bytes.

    Tiles that somebody looks at are kept apart from those that only pass through on a walk over
    the whole slide: the latter take a small share of the budget, so that a run in the background
    does not wipe out what is on the screen (and its memory is used again while it is still hot).

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
        self._passing_bytes = 0
        self._tiles: OrderedDict[Key, Uint8Image] = OrderedDict()
        self._passing: OrderedDict[Key, Uint8Image] = OrderedDict()
        self._pending: dict[Key, _Pending] = {}
        self._seen: OrderedDict[Key, None] = OrderedDict()
        self._owners: Counter[Hashable] = Counter()
        self._walks: dict[Hashable, int] = {}
        self._walk_bytes = LEAST_PASSING_BYTES
        self._lock = threading.Lock()
        self._gone: deque[Hashable] = deque()
        self.hits = 0
        self.misses = 0

    @property
    def used_bytes(self) -> int:
        """Bytes of all tiles kept now."""
        self._sweep()
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
            return self._find(key)

    def find(self, keys: Sequence[Key]) -> list[Uint8Image | None]:
        """As `peek` for each of some keys, but tiles that are found count as hits."""
        looked_at, passing = self._tiles, self._passing
        tiles: list[Uint8Image | None] = []
        with self._lock:
            for key in keys:  # `_find`, without a call for each of the tiles of every read
                tile = looked_at.get(key)
                if tile is not None:
                    looked_at.move_to_end(key)
                else:
                    tile = passing.get(key)
                    if tile is None:
                        tiles.append(None)
                        continue
                    passing.move_to_end(key)
                tiles.append(tile)
                self.hits += 1
        return tiles

    def first_time(self, key: Key) -> bool:
        """Say whether a tile that is not kept may be made without being kept; count it then.

        That is so the first time. Whoever asks for it again should keep it.
        """
        with self._lock:
            if key in self._seen:
                return False
            self._seen[key] = None
            if len(self._seen) > MAX_SEEN:
                self._seen.popitem(last=False)
            self.misses += 1
            return True

    def count_miss(self, tiles: int = 1) -> None:
        """Count tiles that were made without being kept."""
        with self._lock:
            self.misses += tiles

    def get(
        self, key: Key, make: Callable[[], Uint8Image], *, passing: bool = False
    ) -> Uint8Image:
        """Return the tile of `key`, made by `make` unless it is kept.

        Parameters
        ----------
        make
            Called without any lock held, in this thread, by one thread at a time for one key.
            If it raises, every waiting thread gets the error and nothing is kept.
        passing
            Whether the tile is only passed on a walk; see the class.

        Returns
        -------
        uint8 array
            Read-only, shared with others: copy it before changing it.
        """
        tile, pending, mine = self._claim(key, passing, waiting=True)
        if tile is not None:
            return tile
        if mine:
            return self._make(key, pending, make, passing)
        with pending.lock:  # released when the maker is done
            if pending.tile is None:
                raise pending.error if pending.error is not None else RuntimeError(str(key))
            return pending.tile

    def get_or_none(
        self, key: Key, make: Callable[[], Uint8Image], *, passing: bool = False
    ) -> Uint8Image | None:
        """As `get`, but return None if another thread is making this tile just now."""
        tile, pending, mine = self._claim(key, passing, waiting=False)
        return self._make(key, pending, make, passing) if mine else tile

    def _claim(
        self, key: Key, passing: bool, waiting: bool
    ) -> tuple[Uint8Image | None, _Pending, bool]:
        """Return the tile, or who makes it and whether it is for this thread to do."""
        self._sweep()
        with self._lock:
            tile = self._find(key)
            if tile is not None:
                self.hits += 1
                if not passing and key in self._passing:
                    self._passing_bytes -= self._passing.pop(key).nbytes
                    self._tiles[key] = tile
                return tile, _DONE, False
            pending = self._pending.get(key)
            if pending is not None:
                self.hits += waiting
                return None, pending, False
            pending = self._pending[key] = _Pending(key[0] in self._owners)
            self.misses += 1
            return None, pending, True

    def _make(
        self, key: Key, pending: _Pending, make: Callable[[], Uint8Image], passing: bool
    ) -> Uint8Image:
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
                # The last slide that wanted it may be closed by now.
                if pending.tile is not None and (not pending.owned or key[0] in self._owners):
                    self._keep(key, pending.tile, passing)
            pending.lock.release()
        return tile

    def _find(self, key: Key) -> Uint8Image | None:
        tiles = self._tiles
        tile = tiles.get(key)
        if tile is None:
            tiles = self._passing
            tile = tiles.get(key)
        if tile is not None:
            tiles.move_to_end(key)
        return tile

    def _keep(self, key: Key, tile: Uint8Image, passing: bool) -> None:
        if passing:
            self._passing[key] = tile
            self._passing_bytes += tile.nbytes
        else:
            self._tiles[key] = tile
        self._used_bytes += tile.nbytes
        self._shrink(key)

    def _shrink(self, newest: Key | None = None) -> None:
        share = min(self._walk_bytes, self._budget_bytes // 2)
        while self._passing_bytes > share and len(self._passing) > 1:
            self._drop_oldest(self._passing)
        while self._used_bytes > self._budget_bytes and len(self._tiles) + len(self._passing) > 1:
            oldest = next(iter(self._tiles), None)
            self._drop_oldest(self._passing if oldest in (None, newest) else self._tiles)

    def _drop_oldest(self, tiles: OrderedDict[Key, Uint8Image]) -> None:
        _, oldest = tiles.popitem(last=False)
        self._used_bytes -= oldest.nbytes
        if tiles is self._passing:
            self._passing_bytes -= oldest.nbytes

    def acquire(self, owner: Hashable, walk_bytes: int = 0) -> None:
        """Note that one more open slide uses tiles whose key begins with `owner`.

        Parameters
        ----------
        walk_bytes
            What has to be kept on a walk over the slide, row by row, to make no tile twice.
        """
        self._sweep()
        with self._lock:
            self._owners[owner] += 1
            self._walks[owner] = walk_bytes
            self._walk_bytes = max(sum(self._walks.values()), LEAST_PASSING_BYTES)

    def release(self, owner: Hashable) -> None:
        """Note that one of them is closed; with the last one the owner's tiles go."""
        with self._lock:
            self._owners[owner] -= 1
            if self._owners[owner] > 0:
                return
            del self._owners[owner]
            self._walks.pop(owner, None)
            self._walk_bytes = max(sum(self._walks.values()), LEAST_PASSING_BYTES)
            for tiles in (self._tiles, self._passing):
                for key in [key for key in tiles if key[0] == owner]:
                    tiles.move_to_end(key, last=False)
                    self._drop_oldest(tiles)

    def release_soon(self, owner: Hashable) -> None:
        """Release when a tile is wanted next, a slide opened, or the bytes are asked for.

        For finalizers, which the garbage collector may run in a thread that is in the middle of
        something here.
        """
        self._gone.append(owner)

    def _sweep(self) -> None:
        while self._gone:
            try:
                owner = self._gone.popleft()
            except IndexError:  # another thread took the last one
                return
            self.release(owner)

    def clear(self) -> None:
        """Forget all tiles."""
        with self._lock:
            self._tiles.clear()
            self._passing.clear()
            self._seen.clear()
            self._used_bytes = self._passing_bytes = 0


@cache
def shared_cache() -> TileCache:
    """Return the process's one cache; by default it takes a share of the machine's memory."""
    return TileCache(automatic_budget_bytes())
