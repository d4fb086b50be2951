"""The slide that `histomil bench slides` measures on: a gigapixel of real texture, made here.

It is an Aperio-style SVS as scanners write it: tiles of 240 px in JPEG (quality 75, chroma halved
both ways, tables kept once for all), levels 1, 4 and 16. 40 % of it is tissue in a few pieces,
every tile of which is another crop of real tissue, turned or mirrored, so that no two are alike
and each costs what tissue costs; the rest is glass with the faint noise of a camera. The same
pixels once more as a plain TIFF of one level are what a slide without a pyramid is.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import imagecodecs
import numpy as np
import skimage.data
import tifffile
from numpy.typing import NDArray

from napari_histomil.errors import OutputError
from napari_histomil.files import whole_file
from napari_histomil.resources import user_data_dir
from napari_histomil.slides.readers import open_slide
from napari_histomil.slides.resample import Uint8Image, reduce_whole

WIDTH_PX, HEIGHT_PX = 36_000, 28_000
TILE_PX = 240
QUALITY = 75
LEVEL_STEP = 4
LEVELS = 3
MPP = 0.5
THUMBNAIL_PX = 1024
SEED = 20
TISSUE_SHARE = 0.4
PIECES = 5

SLIDE_NAME = "gigapixel.svs"
ONE_LEVEL_NAME = "gigapixel-one-level.tif"
DISK_MB = 300
"""What both take on disk, roughly."""

TEXTURE_NAME = "CMU-1-Small-Region.svs"
CELL_PX = 16
"""Side of the cells in which the outline of the tissue is drawn; it divides the tile."""
GLASS = (243, 241, 244)
GLASS_NOISE = 2.5
WHITE_MEAN = 225
"""A crop that is brighter than this on average shows more glass than tissue."""

# Segments that Aperio's files, like all TIFFs with JPEGTables, keep out of the tiles.
_TABLES = (0xDB, 0xC4)
_SCAN = 0xDA


@dataclass(frozen=True, slots=True)
class MadeSlides:
    """Where the test slides are."""

    slide: Path
    one_level: Path
    texture: str
    """What the tissue was taken from."""


def bench_folder() -> Path:
    """Return where the test slides are kept between two runs; it need not exist."""
    return user_data_dir() / "bench"


def made_slides(folder: Path, texture: Path | None = None) -> MadeSlides:
    """Return the test slides of a folder, made where they are missing.

    Parameters
    ----------
    folder
        Kept as it is but for the two files.
    texture
        A slide whose tissue is taken; see `tissue_texture`.

    Raises
    ------
    OutputError
        If the folder cannot be written, or lacks the room.
    """
    slides = MadeSlides(folder / SLIDE_NAME, folder / ONE_LEVEL_NAME, tissue_source(texture))
    if slides.slide.exists() and slides.one_level.exists():
        return slides
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with whole_file(slides.slide) as part:
            write_slide(part, tissue_texture(texture))
        with whole_file(slides.one_level) as part:
            write_one_level(part, slides.slide)
    except OSError as error:
        raise OutputError(
            f"The test slides cannot be written to {folder} ({error.strerror or error}): they "
            f"need {DISK_MB} MB there; name another folder with --folder."
        ) from error
    return slides


def _texture_file(given: Path | None) -> Path | None:
    if given is not None:
        return given
    real = os.environ.get("HISTOMIL_TEST_DATA", "")
    places = [user_data_dir() / "downloads" / TEXTURE_NAME]
    if real:
        places.insert(0, Path(real) / "wsi-aperio-svs" / TEXTURE_NAME)
    return next((place for place in places if place.is_file()), None)


def tissue_source(given: Path | None = None) -> str:
    """Return the name of what `tissue_texture` takes."""
    file = _texture_file(given)
    return "scikit-image's immunohistochemistry" if file is None else file.name


def tissue_texture(given: Path | None = None) -> Uint8Image:
    """Return a picture of real tissue, uint8 [h, w, 3].

    It is `given`'s first 3000 px at most, else OpenSlide's small Aperio slide where that is at
    hand (``HISTOMIL_TEST_DATA``, or downloaded as a sample), else scikit-image's picture of
    colonic glands.
    """
    file = _texture_file(given)
    if file is None:
        pixels: Uint8Image = skimage.data.immunohistochemistry()  # type: ignore[no-untyped-call]
        return pixels
    with open_slide(file) as slide:
        info = slide.info
        size = min(info.width_px0, 3000), min(info.height_px0, 3000)
        return slide.read_region((0, 0), 0, size)


def write_slide(
    path: Path,
    texture: Uint8Image,
    size: tuple[int, int] = (WIDTH_PX, HEIGHT_PX),
    seed: int = SEED,
) -> None:
    """Write the slide with its pyramid.

    Parameters
    ----------
    texture
        Real tissue, uint8 [h, w, 3], at least twice a tile wide and high.
    size
        (width, height) in pixels, multiples of 16 that leave each level a tile at least.
    seed
        The same one, of the same texture, gives the same file.
    """
    width, height = size
    maker = _Maker(texture, tissue_outline(size, seed), seed)
    coarse = np.empty((height // LEVEL_STEP, width // LEVEL_STEP, 3), np.uint8)
    with tifffile.TiffWriter(path) as writer, _pool() as pool:
        _write_level(writer, size, size, _rows(maker, size, coarse, pool))
        _write_thumbnail(writer, size, coarse)
        for _ in range(LEVELS - 1):
            small = coarse.shape[1], coarse.shape[0]
            _write_level(writer, size, small, _cut(coarse, pool))
            coarse = reduce_whole(_even(coarse), LEVEL_STEP)


def write_one_level(path: Path, slide: Path) -> None:
    """Write the finest level of a made slide as a plain tiled TIFF, its very bytes."""
    with tifffile.TiffFile(slide) as source:
        page = source.pages.first
        handle = source.filehandle

        def tiles() -> Iterator[bytes]:
            for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True):
                handle.seek(offset)
                yield handle.read(count)

        with tifffile.TiffWriter(path) as writer:
            size = page.imagewidth, page.imagelength
            _write_tiles(writer, size, tiles(), page.jpegtables, "")


def tissue_outline(size: tuple[int, int], seed: int = SEED) -> NDArray[np.bool_]:
    """Return where tissue is, bool [rows, columns] of cells of `CELL_PX`: `TISSUE_SHARE` of it.

    Pieces are sums of bumps whose outline waves; the height at which they are cut gives the
    share exactly.
    """
    rng = np.random.default_rng(seed)
    columns, rows = (-(-side // CELL_PX) for side in size)
    x = np.linspace(0, columns / rows, columns, dtype=np.float32)[None, :]
    y = np.linspace(0, 1, rows, dtype=np.float32)[:, None]
    relief = np.zeros((rows, columns), np.float32)
    for piece in range(PIECES):
        cx = (piece + 0.5) / PIECES * columns / rows
        cy = rng.uniform(0.3, 0.7)
        angle = np.arctan2(y - cy, x - cx)
        wave = sum(
            rng.uniform(0.02, 0.12) * np.sin(k * angle + rng.uniform(0, 2 * math.pi))
            for k in range(2, 9)
        )
        stretch = rng.uniform(0.6, 1.0)
        distance = np.hypot((x - cx), (y - cy) * stretch) / (1 + wave)
        relief = np.maximum(relief, 1 / (0.05 + distance))
    outline: NDArray[np.bool_] = relief >= np.quantile(relief, 1 - TISSUE_SHARE)
    return outline


class _Maker:
    """Pixels of any tile: the same however many threads ask, and in whatever order."""

    def __init__(self, texture: Uint8Image, outline: NDArray[np.bool_], seed: int) -> None:
        self._texture = texture
        self._outline = outline
        self._seed = seed
        noise = np.random.default_rng(seed).normal(0, GLASS_NOISE, (3 * TILE_PX, 3 * TILE_PX, 3))
        self._glass = np.clip(np.rint(noise + GLASS), 0, 255).astype(np.uint8)

    def tile(self, row: int, column: int) -> Uint8Image:
        """Return one tile of level 0, uint8 [240, 240, 3]."""
        rng = np.random.default_rng((self._seed, row, column))
        glass = _crop(self._glass, rng)
        cells = TILE_PX // CELL_PX
        top, left = row * cells, column * cells
        part = self._outline[top : top + cells, left : left + cells]
        if not part.any():
            return glass
        for _ in range(20):  # the texture shows some glass too
            tissue = _crop(self._texture, rng)
            if tissue[::8, ::8].mean() < WHITE_MEAN:
                break
        turned = np.rot90(tissue, int(rng.integers(4)))
        tissue = turned[:, ::-1] if rng.integers(2) else turned
        if part.all():
            return np.ascontiguousarray(tissue)
        inside = np.zeros((cells, cells), bool)
        inside[: part.shape[0], : part.shape[1]] = part
        mask = inside.repeat(CELL_PX, axis=0).repeat(CELL_PX, axis=1)
        return np.where(mask[..., None], tissue, glass)


def _crop(picture: Uint8Image, rng: np.random.Generator) -> Uint8Image:
    y, x = (int(rng.integers(side - TILE_PX + 1)) for side in picture.shape[:2])
    return picture[y : y + TILE_PX, x : x + TILE_PX]


def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max_workers=min(os.cpu_count() or 1, 8))


def _rows(
    maker: _Maker, size: tuple[int, int], coarse: Uint8Image, pool: ThreadPoolExecutor
) -> Iterator[bytes]:
    """Make the tiles of level 0, and the level 4 times coarser on the way."""
    small = TILE_PX // LEVEL_STEP

    def make(place: tuple[int, int]) -> bytes:
        row, column = place
        pixels = maker.tile(row, column)
        part = coarse[row * small : (row + 1) * small, column * small : (column + 1) * small]
        part[:] = reduce_whole(np.ascontiguousarray(pixels), LEVEL_STEP)[
            : part.shape[0], : part.shape[1]
        ]
        return encode(pixels)

    columns = -(-size[0] // TILE_PX)
    for row in range(-(-size[1] // TILE_PX)):
        yield from pool.map(make, [(row, column) for column in range(columns)])


def _cut(level: Uint8Image, pool: ThreadPoolExecutor) -> Iterator[bytes]:
    """Cut a level into encoded tiles; those at its edges repeat its last pixels."""
    height, width, _ = level.shape
    rows, columns = -(-height // TILE_PX), -(-width // TILE_PX)

    def make(place: tuple[int, int]) -> bytes:
        y, x = place[0] * TILE_PX, place[1] * TILE_PX
        part = level[y : y + TILE_PX, x : x + TILE_PX]
        missing = [(0, TILE_PX - side) for side in part.shape[:2]]
        return encode(np.pad(part, [*missing, (0, 0)], mode="edge"))

    yield from pool.map(make, [(row, column) for row in range(rows) for column in range(columns)])


def _even(level: Uint8Image) -> Uint8Image:
    """Repeat the last pixels so that `LEVEL_STEP` divides both sides."""
    missing = [(0, -side % LEVEL_STEP) for side in level.shape[:2]]
    return np.pad(level, [*missing, (0, 0)], mode="edge")


def encode(tile: Uint8Image) -> bytes:
    """Return a tile as JPEG without its tables, as a TIFF with JPEGTables holds it."""
    return _parts(_jpeg(tile))[1]


def _jpeg(tile: Uint8Image) -> bytes:
    stream = imagecodecs.jpeg8_encode(
        np.ascontiguousarray(tile),
        level=QUALITY,
        colorspace="RGB",
        outcolorspace="YCBCR",
        subsampling="420",
        optimize=False,  # the standard tables, the same for every tile
    )
    return bytes(stream)


def _parts(stream: bytes) -> tuple[bytes, bytes]:
    """Split a JPEG into its tables, as a stream of their own, and all else."""
    start_of_image = stream[:2]
    tables = rest = start_of_image
    at = 2
    while stream[at + 1] != _SCAN:
        size = 2 + int.from_bytes(stream[at + 2 : at + 4], "big")
        segment = stream[at : at + size]
        if stream[at + 1] in _TABLES:
            tables += segment
        else:
            rest += segment
        at += size
    return tables + b"\xff\xd9", rest + stream[at:]


def _write_level(
    writer: tifffile.TiffWriter,
    size: tuple[int, int],
    level: tuple[int, int],
    tiles: Iterator[bytes],
) -> None:
    smaller = "" if level == size else f" -> {level[0]}x{level[1]}"
    tables = _parts(_jpeg(np.zeros((TILE_PX, TILE_PX, 3), np.uint8)))[0]
    _write_tiles(writer, level, tiles, tables, _description(size, smaller))


def _write_thumbnail(
    writer: tifffile.TiffWriter, size: tuple[int, int], coarse: Uint8Image
) -> None:
    """Write the second directory of Aperio's files: readers take it for the thumbnail, unasked."""
    step = max(-(-max(coarse.shape) // THUMBNAIL_PX), 1)
    small = np.ascontiguousarray(coarse[::step, ::step])
    writer.write(
        small,
        photometric="rgb",
        rowsperstrip=16,
        compression="jpeg",
        description=_description(size, f" -> {small.shape[1]}x{small.shape[0]} -"),
        metadata=None,
        software=False,
    )


def _description(size: tuple[int, int], smaller: str) -> str:
    return (
        f"Aperio Image Library v11.2.1\r\n{size[0]}x{size[1]} [0,0 {size[0]}x{size[1]}] "
        f"({TILE_PX}x{TILE_PX}){smaller} JPEG/RGB Q={QUALITY}|AppMag = {10 / MPP:g}|MPP = {MPP}"
    )


def _write_tiles(
    writer: tifffile.TiffWriter,
    size: tuple[int, int],
    tiles: Iterator[bytes],
    tables: bytes,
    description: str,
) -> None:
    writer.write(
        tiles,
        shape=(size[1], size[0], 3),
        dtype=np.uint8,
        photometric="ycbcr",
        subsampling=(2, 2),
        tile=(TILE_PX, TILE_PX),
        compression="jpeg",
        jpegtables=tables,
        description=description or None,
        metadata=None,
        resolution=(1e4 / MPP, 1e4 / MPP),
        resolutionunit="CENTIMETER",
        software=False,
    )
