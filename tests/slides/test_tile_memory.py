"""Memory for tiles: each its own, used again, given back."""

from __future__ import annotations

import gc
import random
import threading

import numpy as np

from napari_histomil.slides.tile_memory import (
    BLOCK_BYTES,
    SPARE_PICTURES,
    PictureMemory,
    TileMemory,
    empty_pixels,
)

SIDE = 240
A_BLOCK = BLOCK_BYTES // (240 * 240 * 3)


def test_tiles_do_not_overlap():
    memory = TileMemory()
    tiles = [memory.empty(SIDE, SIDE) for _ in range(A_BLOCK + 5)]
    for number, tile in enumerate(tiles):
        tile[:] = number % 251
    assert all((tile == number % 251).all() for number, tile in enumerate(tiles))
    assert all(tile.flags.c_contiguous and tile.shape == (SIDE, SIDE, 3) for tile in tiles)
    assert memory.held_bytes == 2 * BLOCK_BYTES


def test_pixels_begin_where_decoders_do_not_go_around_the_caches():
    memory = TileMemory()
    places = [memory.empty(SIDE, SIDE) for _ in range(3)]
    places += [memory.empty(8, 8), memory.empty(2000, 2000), empty_pixels(SIDE, 7)]
    assert [pixels.ctypes.data % 16 for pixels in places] == 6 * [8]
    assert all(pixels.flags.c_contiguous for pixels in places)


def test_a_place_is_used_again_when_the_last_view_has_gone():
    memory = TileMemory()
    for _ in range(3 * A_BLOCK):
        memory.empty(SIDE, SIDE)[:] = 1
    assert memory.held_bytes == BLOCK_BYTES
    view = memory.empty(SIDE, SIDE)[5:9, 3:7]
    view[:] = 7
    for _ in range(2 * A_BLOCK):
        memory.empty(SIDE, SIDE)[:] = 1
    assert (view == 7).all()


def test_blocks_go_back_but_for_one():
    memory = TileMemory()
    tiles = [memory.empty(SIDE, SIDE) for _ in range(4 * A_BLOCK)]
    others = [memory.empty(100, 100) for _ in range(3)]
    assert memory.held_bytes >= 5 * BLOCK_BYTES
    del tiles
    del others
    gc.collect()
    assert memory.held_bytes == BLOCK_BYTES


def test_very_small_and_very_large_tiles_have_their_own_memory():
    memory = TileMemory()
    for side in (8, 2000):
        assert memory.empty(side, side).shape == (side, side, 3)
    assert memory.held_bytes == 0


def test_many_threads():
    memory = TileMemory()
    wrong: list[int] = []

    def work(seed: int) -> None:
        rng = random.Random(seed)
        held: list[tuple[np.ndarray, int]] = []
        for number in range(400):
            tile = memory.empty(rng.choice((80, 100)), 100)
            value = (seed * 31 + number) % 251
            tile[:] = value
            held.append((tile, value))
            if len(held) > 20:
                old, wanted = held.pop(rng.randrange(len(held)))
                if not (old == wanted).all():
                    wrong.append(number)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert memory.held_bytes <= 2 * BLOCK_BYTES


def test_the_memory_of_a_picture_is_used_again_when_its_last_view_has_gone():
    memory = PictureMemory()
    first = memory.empty(800, 1200)
    place, view = first.ctypes.data, first[10:20, 5:]
    del first
    second = memory.empty(800, 1200)
    assert second.ctypes.data != place  # a view of it is still there
    view[:] = 7
    second[:] = 3
    assert (view == 7).all()
    del view
    assert memory.empty(700, 1200).ctypes.data == place
    assert memory.empty(900, 1300).shape == (900, 1300, 3)


def test_few_pictures_memory_is_kept_and_small_ones_are_ordinary():
    memory = PictureMemory()
    pictures = [memory.empty(800, 1200) for _ in range(SPARE_PICTURES + 3)]
    places = {picture.ctypes.data for picture in pictures}
    assert len(places) == len(pictures)
    pictures.clear()
    assert len(memory._returned) == SPARE_PICTURES
    assert not memory._out
    assert memory.empty(10, 10).flags.owndata
