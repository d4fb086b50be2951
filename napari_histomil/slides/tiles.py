"""Slides stored in tiles that we decode ourselves: regions put together from cached tiles.

`TiledSlide` is what the TIFF and the OME-Zarr reader share; where a tile's pixels come from is
the matter of the function each of them hands over.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Mapping
from typing import Self

import numpy as np
from numpy.typing import NDArray

from napari_histomil.errors import SlideError
from napari_histomil.slides.cache import Key, TileCache, shared_cache
from napari_histomil.slides.helpers import shared_helpers
from napari_histomil.slides.reading_order import ReadingOrder
from napari_histomil.slides.resample import mean_of_blocks
from napari_histomil.slides.slide import SlideInfo, Uint8Image, check_region
from napari_histomil.slides.tile_memory import empty_pixels

WHITE = 255

WALK_ROWS = 4
"""Rows of tiles kept on a walk: two that a read touches, for two threads apart."""

MANY_TILES = 9
"""A region of more tiles than this is no random glance: its neighbour will follow."""

SHARED_PIECES = 3
"""Helpers are asked only where so many tiles are missing: on a walk it is one or two a read, and
who walks with several threads has no idle cores."""

MAX_HALVINGS = 3
"""A tile is asked for at 1/8 at least: what decoders scale by themselves."""

ReadTile = Callable[[int, int, int], Uint8Image]
"""(level, row, column) -> uint8 [h, w, 3] of the tile; it may be cut at the level's edges."""

Place = tuple[int, int, int]
"""(level, row, column) of a tile."""

Box = tuple[int, int, int, int]
"""A part of a tile: rows from, to, columns from, to."""

_Piece = tuple[Place, Key, Box, Uint8Image, bool]
"""A tile that is not kept, its key, the part of it that is wanted, where to, whether just once."""

ReadPart = Callable[[int, int, int, Box, Uint8Image], bool]
"""(level, row, column, part, out) -> whether the part of a tile is in `out` now."""

SameTiles = Callable[[int], NDArray[np.int64] | None]
"""level -> int64 [rows, columns, 2]: (row, column) of the first tile with the same pixels as
this one; None if no two tiles are known to be the same."""

ReadHalved = Callable[[int, int, int, int], Uint8Image | None]
"""(level, row, column, halvings) -> the tile decoded smaller; None: it has to be averaged."""


class TiledSlide:
    """A slide whose levels are grids of tiles; see `slide.Slide` for the methods.

    Parameters
    ----------
    info
        The slide's facts; each level's tile size is that of its grid.
    read_tile
        Decodes one tile; may be called from several threads.
    associated
        Readers of the associated images by name.
    owner
        What tells this slide's content from every other's in the cache. Two slides opened from
        the same unchanged file share it, and so share their tiles.
    release
        Called once when the slide is closed.
    cache
        Where decoded tiles are kept; the process's shared one by default.
    read_halved
        Decodes one tile at 1/2, 1/4 or 1/8 for less than all of it; None if nothing does.
    tile_bytes
        See the method of this name.
    read_part
        Decodes no more of one tile than a part of it needs, and keeps nothing; None if every
        tile is decoded whole.
    same_tiles
        Finds tiles that are stored once for many places.
    icc
        The colour profile of the pixels; empty if there is none.

    Attributes
    ----------
    icc
        As above.
    """

    def __init__(
        self,
        info: SlideInfo,
        read_tile: ReadTile,
        associated: Mapping[str, Callable[[], Uint8Image]],
        owner: Hashable,
        release: Callable[[], None],
        cache: TileCache | None = None,
        *,
        read_halved: ReadHalved | None = None,
        tile_bytes: Callable[[int], NDArray[np.int64] | None] = lambda level: None,
        read_part: ReadPart | None = None,
        same_tiles: SameTiles = lambda level: None,
        icc: bytes = b"",
    ) -> None:
        self.info = info
        self.icc = icc
        self._read_tile = read_tile
        self._associated = associated
        self._owner = owner
        self._release = release
        self._read_halved = read_halved
        self._tile_bytes = tile_bytes
        self._read_part = read_part
        self._same_tiles = same_tiles
        self._order = ReadingOrder()
        self._walks = False
        self._cache = cache if cache is not None else shared_cache()
        self._closing = threading.Lock()
        self._closed = False
        self._cache.acquire(owner, _walk_bytes(info))

    def convert_colors(self, convert: Callable[[Uint8Image], Uint8Image]) -> None:
        """Give pixels through `convert` from now on; side pictures stay as they are.

        Only before anything is read. `convert` may be called from several threads.
        """
        read_tile, read_halved = self._read_tile, self._read_halved

        def converted_halved(
            level: int, row: int, column: int, halvings: int
        ) -> Uint8Image | None:
            small = None if read_halved is None else read_halved(level, row, column, halvings)
            return None if small is None else convert(small)

        self._read_tile = lambda level, row, column: convert(read_tile(level, row, column))
        self._read_halved = converted_halved
        self._read_part = None  # it would have to be converted for each read of it
        stored, self._owner = self._owner, ("converted", self._owner)
        self._cache.acquire(self._owner, _walk_bytes(self.info))
        self._cache.release(stored)

    def read_region(
        self, xy_px0: tuple[int, int], level: int, size: tuple[int, int]
    ) -> Uint8Image:
        """Read as `Slide.read_region` says; corners snap to the level's nearest pixel."""
        self._check_open()
        check_region(self.info, xy_px0, level, size)
        stored = self.info.levels[level]
        left = round(xy_px0[0] / stored.downsample)
        top = round(xy_px0[1] / stored.downsample)
        width, height = int(size[0]), int(size[1])
        x0, x1 = max(left, 0), min(left + width, stored.width)
        y0, y1 = max(top, 0), min(top + height, stored.height)
        out = empty_pixels(height, width)
        if x1 - x0 < width or y1 - y0 < height:
            out.fill(WHITE)
        if x1 <= x0 or y1 <= y0:
            return out
        tile_width, tile_height = stored.tile_width, stored.tile_height
        rows = range(y0 // tile_height, -(-y1 // tile_height))
        columns = range(x0 // tile_width, -(-x1 // tile_width))
        walks = self._walks
        follows = walks or self._order.follows(level, (left, top), (width, height))
        keep = follows or len(rows) * len(columns) > MANY_TILES
        same, owner = self._same_tiles(level), self._owner
        places = [(level, row, column) for row in rows for column in columns]
        keys: list[Key] = [
            (owner, *place, 0)
            if same is None
            else (owner, level, *same[place[1], place[2]].tolist(), 0)
            for place in places
        ]
        missing: list[_Piece] = []
        for place, key, tile in zip(places, keys, self._cache.find(keys), strict=True):
            y, x = place[1] * tile_height, place[2] * tile_width
            box = (
                y0 - y if y < y0 else 0,
                y1 - y if y1 < y + tile_height else tile_height,
                x0 - x if x < x0 else 0,
                x1 - x if x1 < x + tile_width else tile_width,
            )
            part = out[y + box[0] - top : y + box[1] - top, x + box[2] - left : x + box[3] - left]
            if tile is not None:
                part[:] = tile[box[0] : box[1], box[2] : box[3]]
                continue
            # A tile of which a random read wants a piece, or any read all of it, is decoded
            # without being kept, the first time; but not on a walk with overlaps.
            whole = box == (0, tile_height, 0, tile_width)
            missing.append((place, key, box, part, not walks and (whole or not keep)))
        if missing:
            self._fill_all(missing)
        return out

    def expect_walk(self) -> None:
        """Expect reads that overlap all over the slide: keep every tile they touch for a while.

        Without it, whether a tile is wanted again is guessed from the order of the reads.
        """
        self._walks = True

    def _fill_all(self, pieces: list[_Piece]) -> None:
        later: list[_Piece] = []

        def fill(piece: _Piece) -> None:
            if not self._fill(*piece):
                later.append(piece)

        if len(pieces) >= SHARED_PIECES and not self._walks:
            shared_helpers().share(fill, pieces)
        else:
            for piece in pieces:
                fill(piece)
        for place, _, box, part, _ in later:  # by now whoever makes them may be done
            tile = self._tile(*place, 0, passing=True)
            part[:] = tile[box[0] : box[1], box[2] : box[3]]

    def _fill(self, place: Place, key: Key, box: Box, part: Uint8Image, once: bool) -> bool:
        """Decode a tile for a part of it; False if another thread is making the tile.

        Parameters
        ----------
        once
            Whether the tile need not be kept, unless it was asked for lately.
        """
        read_part = self._read_part
        if (
            once
            and read_part is not None
            and key[1:4] == place
            and self._cache.first_time(key)
            and read_part(*place, box, part)
        ):
            return True
        tile = self._cache.get_or_none(key, lambda: self._make(*place, 0), passing=True)
        if tile is None:
            return False
        part[:] = tile[box[0] : box[1], box[2] : box[3]]
        return True

    def tile(
        self, level: int, row: int, column: int, *, halvings: int = 0, keep: bool = True
    ) -> Uint8Image:
        """Return one stored tile, decoded through the cache.

        Parameters
        ----------
        level, row, column
            Which tile of the grid of ``info.levels[level]``.
        halvings
            0 to 3: the tile at 1 / 2**halvings of its size, which costs less than all of it.
        keep
            False for somebody who keeps the pixels elsewhere: they are not put into the cache.

        Returns
        -------
        uint8 array [ceil(h / 2**halvings), ceil(w / 2**halvings), 3]
            Of a tile of w x h px, as it is cut at the level's edges. Read-only and shared.

        Raises
        ------
        SlideError
            If there is no such tile, or it cannot be decoded.
        """
        self._check_tile(level, row, column, halvings)
        if keep:
            return self._tile(level, row, column, halvings)
        (kept,) = self._cache.find([self._key(level, row, column, halvings)])
        if kept is None:
            kept = self._make(level, row, column, halvings)
            self._cache.count_miss()
        return kept

    def cached_tile(
        self, level: int, row: int, column: int, *, halvings: int = 0
    ) -> Uint8Image | None:
        """Return what `tile` would, if it is decoded already; never decodes and never waits."""
        return self._cache.peek(self._key(level, row, column, halvings))

    def tile_bytes(self, level: int) -> NDArray[np.int64] | None:
        """Return the stored bytes of each tile of a level, int64 [rows, columns].

        0 is a tile that is not stored; None where the file does not say.
        """
        self._check_open()
        return self._tile_bytes(level)

    def _key(self, level: int, row: int, column: int, halvings: int) -> Key:
        same = self._same_tiles(level)
        if same is not None:
            row, column = same[row, column].tolist()
        return (self._owner, level, row, column, halvings)

    def _tile(
        self, level: int, row: int, column: int, halvings: int, *, passing: bool = False
    ) -> Uint8Image:
        return self._cache.get(
            self._key(level, row, column, halvings),
            lambda: self._make(level, row, column, halvings),
            passing=passing,
        )

    def _make(self, level: int, row: int, column: int, halvings: int) -> Uint8Image:
        if not halvings:
            return self._read_tile(level, row, column)
        if self._read_halved is not None:
            small = self._read_halved(level, row, column, halvings)
            if small is not None:
                return small
        whole = self._cache.peek(self._key(level, row, column, 0))
        if whole is None:
            whole = self._read_tile(level, row, column)
        return mean_of_blocks(whole, 2**halvings)

    def read_associated(self, name: str) -> Uint8Image:
        """Read as `Slide.read_associated` says."""
        self._check_open()
        if name not in self._associated:
            raise SlideError(f"{self.info.path.name} has no associated image {name!r}.")
        return self._associated[name]()

    def close(self) -> None:
        """Release the file, and the cached tiles if no other slide shares them."""
        with self._closing:
            if self._closed:
                return
            self._closed = True
        self._cache.release(self._owner)
        self._release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _check_tile(self, level: int, row: int, column: int, halvings: int) -> None:
        self._check_open()
        levels = self.info.levels
        if 0 <= level < len(levels) and 0 <= halvings <= MAX_HALVINGS:
            stored = levels[level]
            if (
                0 <= row * stored.tile_height < stored.height
                and 0 <= column * stored.tile_width < stored.width
            ):
                return
        raise SlideError(
            f"{self.info.path.name} has no tile in row {row}, column {column} of level {level} "
            f"at {halvings} halvings."
        )

    def _check_open(self) -> None:
        if self._closed:
            raise SlideError(f"{self.info.path.name} is closed already.")


def _walk_bytes(info: SlideInfo) -> int:
    level = info.levels[0]
    columns = -(-level.width // level.tile_width)
    return WALK_ROWS * columns * level.tile_width * level.tile_height * 3
