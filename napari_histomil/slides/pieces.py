"""The pieces in which a level is fetched: what one of them covers, and how it is made.

A level that the file stores in tiles is fetched tile by tile. One that is half, a quarter or an
eighth of such a level is fetched as groups of its tiles, each decoded at that size. All others
are fetched as squares of `CHUNK_PX` through `Slide.read_region`.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from napari_histomil.slides.cache import TileCache
from napari_histomil.slides.resample import mean_of_blocks
from napari_histomil.slides.slide import Level, Uint8Image
from napari_histomil.slides.tiles import MAX_HALVINGS, TiledSlide

CHUNK_PX = 512

TILE_SIDES_PX = (64, 1024)
"""Tiles with sides in this range are pieces; strips and huge tiles are cut out of."""

Find = Callable[[int, int], Uint8Image | None]
Make = Callable[[int, int], Uint8Image]


@dataclass(frozen=True)
class Pieces:
    """How a level falls into pieces; the last of a row or column may be smaller."""

    width: int
    height: int
    columns: int
    rows: int
    find: Find
    """(row, column) -> the piece if it is in memory; never waits."""
    make: Make
    """(row, column) -> the piece; reads and decodes it unless it is in memory."""

    def span(self, x: int, y: int, width: int, height: int) -> tuple[range, range]:
        """Return the rows and the columns of the pieces that a rectangle touches."""
        return (
            range(max(y // self.height, 0), min(-(-(y + height) // self.height), self.rows)),
            range(max(x // self.width, 0), min(-(-(x + width) // self.width), self.columns)),
        )


def are_pieces(level: Level) -> bool:
    """Say whether a level's stored tiles are neither strips nor huge."""
    least, most = TILE_SIDES_PX
    return least <= min(level.tile_width, level.tile_height) and (
        max(level.tile_width, level.tile_height) <= most
    )


def stored_pieces(slide: TiledSlide, number: int) -> Pieces:
    """Return a stored level's tiles."""
    level = slide.info.levels[number]
    return Pieces(
        level.tile_width,
        level.tile_height,
        -(-level.width // level.tile_width),
        -(-level.height // level.tile_height),
        lambda row, column: slide.cached_tile(number, row, column),
        lambda row, column: slide.tile(number, row, column),
    )


def halves_exactly(level: Level, halvings: int) -> bool:
    """Say whether a level's tiles can be decoded smaller and still lie on whole pixels."""
    factor = 1 << min(halvings, MAX_HALVINGS)
    return are_pieces(level) and level.tile_width % factor == level.tile_height % factor == 0


def halved_pieces(
    slide: TiledSlide,
    number: int,
    halvings: int,
    chunks: TileCache,
    owner: Hashable,
    failed: Callable[[int, int, Exception], None],
) -> Pieces:
    """Return the pieces of a level that is 2**halvings coarser than a stored one.

    Each is the stored tiles that lie under it, decoded smaller. A JPEG decoder's smaller
    picture is close to the mean, not equal to it.
    """
    level = slide.info.levels[number]
    factor = 1 << halvings
    width, height = -(-level.width // factor), -(-level.height // factor)

    def key(row: int, column: int) -> tuple[Hashable, ...]:
        return (owner, "halved", number, halvings, row, column)

    def make(row: int, column: int) -> Uint8Image:
        x, y = column * level.tile_width, row * level.tile_height
        size = min(level.tile_width, width - x), min(level.tile_height, height - y)
        return chunks.get(
            key(row, column),
            lambda: halved_tiles(
                slide,
                number,
                halvings,
                (row * factor, column * factor),
                (factor, factor),
                size,
                failed,
            ),
        )

    return Pieces(
        level.tile_width,
        level.tile_height,
        -(-width // level.tile_width),
        -(-height // level.tile_height),
        lambda row, column: chunks.peek(key(row, column)),
        make,
    )


def halved_tiles(
    slide: TiledSlide,
    number: int,
    halvings: int,
    first: tuple[int, int],
    count: tuple[int, int],
    size: tuple[int, int],
    failed: Callable[[int, int, Exception], None] | None = None,
) -> Uint8Image:
    """Put together stored tiles, each decoded at 1 / 2**halvings.

    Parameters
    ----------
    first, count
        (row, column) of the first tile, and how many rows and columns of tiles.
    size
        (width, height) of the result.
    failed
        Called with (row, column, error) for a tile that cannot be decoded, whose place then
        stays grey; without it the error is raised.

    Returns
    -------
    uint8 array [height, width, 3]
    """
    level = slide.info.levels[number]
    decoded = min(halvings, MAX_HALVINGS)
    rest = halvings - decoded
    out = np.full((size[1] << rest, size[0] << rest, 3), 255, np.uint8)
    tile_width, tile_height = level.tile_width >> decoded, level.tile_height >> decoded
    inside = range(first[1], min(first[1] + count[1], -(-level.width // level.tile_width)))
    for row in range(first[0], min(first[0] + count[0], -(-level.height // level.tile_height))):
        band = out[(row - first[0]) * tile_height :][:tile_height]
        for tiles, columns in _decoded_row(slide, number, row, inside, decoded, failed):
            x = (columns[0] - first[1]) * tile_width
            for tile in tiles:
                part = band[: tile.shape[0], x : x + tile.shape[1]]
                part[:] = tile[: part.shape[0], : part.shape[1]]
                x += tile_width
    _whiten_edges(out, level, decoded, first)
    return mean_of_blocks(out, 1 << rest) if rest else out


def _decoded_row(
    slide: TiledSlide,
    number: int,
    row: int,
    columns: range,
    halvings: int,
    failed: Callable[[int, int, Exception], None] | None,
) -> Iterator[tuple[Sequence[Uint8Image], range]]:
    """Yield tiles of a row, decoded smaller, many at once where that can be done."""
    level = slide.info.levels[number]
    whole = range(columns.start, min(columns.stop, level.width // level.tile_width))
    if len(whole) > 1 and halvings:
        tiles = slide.halved_row(number, row, whole, halvings)
        if tiles is not None:
            yield list(tiles), whole
            columns = range(whole.stop, columns.stop)
    for column in columns:
        try:
            tile = slide.tile(number, row, column, halvings=halvings, keep=False)
        except Exception as error:
            if failed is None:
                raise
            failed(row, column, error)
            tile = damaged(level.tile_width >> halvings, level.tile_height >> halvings)
        yield [tile], range(column, column + 1)


def _whiten_edges(out: Uint8Image, level: Level, halvings: int, first: tuple[int, int]) -> None:
    """Mix white into pixels that lie over the level's last columns and rows only in part."""
    factor = 1 << halvings
    for axis, size, tile in (
        (0, level.height, level.tile_height),
        (1, level.width, level.tile_width),
    ):
        rest = size % factor
        at = size // factor - first[axis] * (tile // factor)
        if rest and 0 <= at < out.shape[axis]:
            edge = out[at] if axis == 0 else out[:, at]
            mixed = edge.astype(np.int64) * rest + 255 * (factor - rest) + factor // 2
            edge[:] = mixed // factor


def damaged(width: int, height: int) -> Uint8Image:
    """Return what stands for pixels that cannot be decoded: a grey checker."""
    y, x = np.ogrid[:height, :width]
    squares = ((y // 16 + x // 16) % 2).astype(np.uint8) * 40 + 130
    return np.repeat(squares[..., None], 3, axis=2)
