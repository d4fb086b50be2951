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


ReadHalvedRow = Callable[[int, int, range, int], Uint8Image | None]
"""(level, row, columns, halvings) -> uint8 [n, h, w, 3] of whole tiles side by side, decoded
smaller all at once; None: they have to be decoded one by one."""


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
    read_halved_row
        As `read_halved` for tiles side by side, for less than one by one; None if nothing does.
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
        read_halved_row: ReadHalvedRow | None = None,
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
        self._read_halved_row = read_halved_row
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
        read_row = self._read_halved_row

        def converted_row(
            level: int, row: int, columns: range, halvings: int
        ) -> Uint8Image | None:
            tiles = None if read_row is None else read_row(level, row, columns, halvings)
            if tiles is None:
                return None
            return convert(tiles.reshape(-1, *tiles.shape[2:])).reshape(tiles.shape)

        def converted_halved(
            level: int, row: int, column: int, halvings: int
        ) -> Uint8Image | None:
            small = None if read_halved is None else read_halved(level, row, column, halvings)
            return None if small is None else convert(small)

        self._read_tile = lambda level, row, column: convert(read_tile(level, row, column))
        self._read_halved = converted_halved
        self._read_halved_row = converted_row
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
        rows = _spans(y0, y1, stored.tile_height, top)
        columns = _spans(x0, x1, stored.tile_width, left)
        walks = self._walks
        follows = walks or self._order.follows(level, (left, top), (width, height))
        keep = follows or len(rows) * len(columns) > MANY_TILES
        same, owner = self._same_tiles(level), self._owner
        keys: list[Key]
        if same is None:
            keys = [(owner, level, row[0], column[0], 0) for row in rows for column in columns]
        else:
            keys = [
                (owner, level, *same[row[0], column[0]].tolist(), 0)
                for row in rows
                for column in columns
            ]
        found = iter(zip(keys, self._cache.find(keys), strict=True))
        missing: list[_Piece] = []
        for row, tile_y, out_y in rows:
            for column, tile_x, out_x in columns:
                key, tile = next(found)
                part = out[out_y, out_x]
                if tile is not None:
                    part[:] = tile[tile_y, tile_x]
                    continue
                box = tile_y.start, tile_y.stop, tile_x.start, tile_x.stop
                # A tile of which a random read wants a piece, or any read all of it, is decoded
                # without being kept, the first time; but not on a walk with overlaps.
                once = not walks and (
                    not keep or box == (0, stored.tile_height, 0, stored.tile_width)
                )
                missing.append(((level, row, column), key, box, part, once))
        if missing:
            self._fill_all(missing)
        return out

    def expect_walk(self) -> None:
        """Expect reads that overlap all over the slide: keep every tile they touch for a while.

        Without it, whether a tile is wanted again is guessed from the order of the reads.
        """
        self._walks = True

    def _fill_all(self, pieces: list[_Piece]) -> None:
        later: list[_Piece]
        if len(pieces) >= SHARED_PIECES and not self._walks:
            later = []

            def fill(piece: _Piece) -> None:
                if not self._fill(*piece):
                    later.append(piece)

            shared_helpers().share(fill, pieces)
        else:
            later = [piece for piece in pieces if not self._fill(*piece)]
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

    def halved_row(self, level: int, row: int, columns: range, halvings: int) -> Uint8Image | None:
        """Return tiles side by side at 1 / 2**halvings (1 to 3), decoded in one go; keeps nothing.

        Returns
        -------
        uint8 array [n, ceil(h / 2**halvings), ceil(w / 2**halvings), 3]
            What `tile` gives for each. None where that cannot be done: one is cut at the level's
            edge or damaged, or they are stored in some other way than the quick ones.

        Raises
        ------
        SlideError
            If there are no such tiles.
        """
        self._check_tile(level, row, columns[0], halvings)
        self._check_tile(level, row, columns[-1], halvings)
        if self._read_halved_row is None:
            return None
        tiles = self._read_halved_row(level, row, columns, halvings)
        if tiles is not None:
            self._cache.count_miss(len(columns))
        return tiles

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


def _spans(start: int, stop: int, tile_px: int, origin: int) -> list[tuple[int, slice, slice]]:
    """Return which tiles lie under [start, stop) of an axis, and which parts of them.

    Parameters
    ----------
    origin
        Where the region begins that is put together.

    Returns
    -------
    list of (int, slice, slice)
        Number of the tile, the part of it, and where that lies in the region.
    """
    spans = []
    for number in range(start // tile_px, -(-stop // tile_px)):
        at = number * tile_px
        first, last = max(start, at), min(stop, at + tile_px)
        spans.append((number, slice(first - at, last - at), slice(first - origin, last - origin)))
    return spans


def _walk_bytes(info: SlideInfo) -> int:
    level = info.levels[0]
    columns = -(-level.width // level.tile_width)
    return WALK_ROWS * columns * level.tile_width * level.tile_height * 3
