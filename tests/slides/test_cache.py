"""The tile cache: its budget, one maker a tile, owners."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from napari_histomil.slides.cache import TileCache, shared_cache


def tile(value: int, size: int = 10) -> np.ndarray:
    return np.full((size, size, 3), value, np.uint8)


def never() -> np.ndarray:
    raise AssertionError("this tile was kept")


def test_a_kept_tile_is_not_made_again():
    cache = TileCache()
    first = cache.get(("a", 1), lambda: tile(1))
    assert cache.get(("a", 1), never) is first
    assert (cache.hits, cache.misses) == (1, 1)
    with pytest.raises(ValueError, match="read-only"):
        first[0] = 5


def test_the_longest_unused_tile_goes_first():
    cache = TileCache(budget_bytes=900)
    for value in (1, 2, 3):
        cache.get(("a", value), lambda value=value: tile(value))
    cache.get(("a", 1), never)
    cache.get(("a", 4), lambda: tile(4))
    assert cache.used_bytes == 900
    for value in (1, 3, 4):
        cache.get(("a", value), never)
    assert cache.get(("a", 2), lambda: tile(20))[0, 0, 0] == 20


def test_a_tile_larger_than_the_budget_stays_until_the_next():
    cache = TileCache(budget_bytes=900)
    cache.get(("a", 0), lambda: tile(0))
    cache.get(("a", 1), lambda: tile(1, size=100))
    cache.get(("a", 1), never)
    assert cache.used_bytes == 30_000
    cache.get(("a", 2), lambda: tile(2))
    assert cache.used_bytes == 300


def test_threads_that_want_the_same_tile_wait_for_one_maker():
    cache = TileCache()
    made = []
    start = threading.Barrier(8)

    def make() -> np.ndarray:
        made.append(threading.get_ident())
        time.sleep(0.05)
        return tile(7)

    def ask(_: int) -> np.ndarray:
        start.wait()
        return cache.get(("a", 0), make)

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(ask, range(8)))
    assert len(made) == 1
    assert all(one is found[0] for one in found)
    assert (cache.hits, cache.misses) == (7, 1)


def test_different_tiles_are_made_at_the_same_time():
    cache = TileCache()
    both = threading.Barrier(2, timeout=10)

    def make() -> np.ndarray:
        both.wait()  # passes only if the other is being made too
        return tile(1)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda key: cache.get(("a", key), make), range(2)))
    assert cache.misses == 2


def test_an_error_reaches_all_who_wait_and_is_not_kept():
    cache = TileCache()
    start = threading.Barrier(4)

    def fail() -> np.ndarray:
        time.sleep(0.05)
        raise ValueError("torn")

    def ask(_: int) -> str:
        start.wait()
        try:
            cache.get(("a", 0), fail)
        except ValueError as error:
            return str(error)
        return "no error"

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(ask, range(4))) == ["torn"] * 4
    assert cache.get(("a", 0), lambda: tile(3))[0, 0, 0] == 3


def test_tiles_go_with_the_last_of_their_owners():
    cache = TileCache()
    cache.acquire("a")
    cache.acquire("a")
    cache.acquire("b")
    cache.get(("a", 0), lambda: tile(1))
    cache.get(("b", 0), lambda: tile(2))
    cache.release("a")
    cache.get(("a", 0), never)
    cache.release("a")
    assert cache.used_bytes == 300
    cache.get(("b", 0), never)


def test_the_budget_holds_under_many_threads():
    cache = TileCache(budget_bytes=30 * 300)
    rng = np.random.default_rng(0)
    wanted = rng.integers(0, 60, 4000).tolist()

    def ask(value: int) -> bool:
        return bool((cache.get(("a", value), lambda: tile(value)) == value).all())

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(ask, wanted))
    assert cache.used_bytes <= 30 * 300
    assert cache.hits + cache.misses == 4000


def test_the_process_has_one():
    assert shared_cache() is shared_cache()


def test_peek_neither_makes_nor_waits():
    cache = TileCache()
    making, go_on = threading.Event(), threading.Event()

    def slow() -> np.ndarray:
        making.set()
        assert go_on.wait(10)
        return tile(1)

    with ThreadPoolExecutor(1) as pool:
        made = pool.submit(cache.get, ("a", 1), slow)
        assert making.wait(10)
        assert cache.peek(("a", 1)) is None
        go_on.set()
        made.result(10)
    assert cache.peek(("a", 1)) is made.result()
    assert cache.peek(("a", 2)) is None
    assert (cache.hits, cache.misses) == (0, 1)


def test_what_was_peeked_at_stays_longer():
    cache = TileCache(budget_bytes=2 * tile(0).nbytes)
    for number in (1, 2):
        cache.get(("a", number), lambda: tile(0))
    cache.peek(("a", 1))
    cache.get(("a", 3), lambda: tile(0))
    assert cache.peek(("a", 2)) is None
    assert cache.peek(("a", 1)) is not None


def test_a_smaller_budget_holds_at_once():
    cache = TileCache()
    for number in range(4):
        cache.get(("a", number), lambda: tile(0))
    cache.set_budget(2 * tile(0).nbytes)
    assert cache.budget_bytes == cache.used_bytes == 2 * tile(0).nbytes
    assert [cache.peek(("a", number)) is None for number in range(4)] == [True, True, False, False]


@pytest.mark.parametrize(
    "use", [lambda c: c.get(("b", 0), lambda: tile(2)), lambda c: c.acquire("c")]
)
def test_what_a_finalizer_lets_go_of_goes_with_the_next_use(use: Callable[[TileCache], object]):
    cache = TileCache()
    cache.acquire("a")
    cache.get(("a", 0), lambda: tile(1))
    cache.release_soon("a")
    assert cache.peek(("a", 0)) is not None
    use(cache)
    assert cache.peek(("a", 0)) is None
