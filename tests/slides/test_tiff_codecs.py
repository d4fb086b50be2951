"""Codecs and layouts of TIFF: each level as tifffile reads it whole, corners and edges included.

tifffile has its own way to put a picture together; only what it leaves as stored (opacity, other
depths) is brought to RGB here by the stated rule.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import openslide
import pytest
import tifffile

from napari_histomil.errors import SlideError
from napari_histomil.slides.readers import open_slide
from napari_histomil.slides.resample import mean_of_blocks
from tests.slides.conftest import halves, picture, write_pyramid
from tests.slides.contract import window

ODD = halves(picture(301, 235), 2)
GREY = [level[..., 0].copy() for level in ODD]


def same_everywhere(path: Path, truth: Sequence[np.ndarray]) -> None:
    """Hold whole levels, tiles, and windows over corners and edges against `truth`."""
    with open_slide(path) as slide:
        assert slide.info.reader == "tiff"
        assert len(slide.info.levels) == len(truth)
        for index, wanted in enumerate(truth):
            stored = slide.info.levels[index]
            height, width = wanted.shape[:2]
            rng = np.random.default_rng(index)
            corners = [(x, y) for x in (-7, 0, width - 9) for y in (-7, 0, height - 9)]
            corners += rng.integers(-20, [width, height], (8, 2)).tolist()
            for left, top in corners:
                corner = round(left * stored.downsample), round(top * stored.downsample)
                found = slide.read_region(corner, index, (33, 21))
                np.testing.assert_array_equal(found, window(wanted, left, top, 33, 21))
            for row in range(-(-height // stored.tile_height)):
                for column in range(-(-width // stored.tile_width)):
                    y, x = row * stored.tile_height, column * stored.tile_width
                    tile = wanted[y : y + stored.tile_height, x : x + stored.tile_width]
                    np.testing.assert_array_equal(slide.tile(index, row, column), tile)
            whole = slide.read_region((0, 0), index, (width, height))
            np.testing.assert_array_equal(whole, wanted)


def of_tifffile(path: Path) -> list[np.ndarray]:
    with tifffile.TiffFile(path) as file:
        return [page.asarray() for page in file.pages]


JPEG = [
    {"photometric": "rgb"},
    *({"photometric": "ycbcr", "subsampling": sub} for sub in ((1, 1), (2, 1), (2, 2), (4, 1))),
]
LAYOUTS: list[dict[str, Any]] = [
    {},
    {"byteorder": ">", "bigtiff": True},
    {"tile": (512, 512)},
    {"tile": (96, 128)},
    {"tile": None, "rowsperstrip": 40},
    {"tile": None},
]


@pytest.mark.parametrize("jpeg", JPEG, ids=str)
@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_jpeg(tmp_path: Path, jpeg: dict[str, Any], layout: dict[str, Any]):
    path = write_pyramid(tmp_path / "slide.tif", ODD, compression="jpeg", **(layout | jpeg))
    same_everywhere(path, of_tifffile(path))


LOSSLESS = [
    {"compression": "lzw"},
    {"compression": "lzw", "predictor": 2},
    {"compression": "deflate", "predictor": 2},
    {"compression": "zstd", "predictor": 2},
    {"compression": "webp", "compressionargs": {"lossless": True}},
    {"compression": "jpeg2000", "compressionargs": {"reversible": True, "level": 0}},
    {"compression": "jpegxl", "compressionargs": {"lossless": True}},
    {},
]


@pytest.mark.parametrize("codec", LOSSLESS, ids=str)
@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_lossless(tmp_path: Path, codec: dict[str, Any], layout: dict[str, Any]):
    path = write_pyramid(tmp_path / "slide.tif", ODD, **(layout | codec))
    same_everywhere(path, ODD)


@pytest.mark.parametrize("codec", [{"compression": "jpeg"}, {"compression": "lzw"}, {}], ids=str)
@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_one_channel(tmp_path: Path, codec: dict[str, Any], layout: dict[str, Any]):
    options = {"photometric": "minisblack"} | layout | codec
    path = write_pyramid(tmp_path / "slide.tif", GREY, **options)
    same_everywhere(path, [np.repeat(level[..., None], 3, 2) for level in of_tifffile(path)])


@pytest.mark.parametrize("codec", [{"compression": "deflate", "predictor": 2}, {}], ids=str)
@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_sixteen_bits(tmp_path: Path, codec: dict[str, Any], layout: dict[str, Any]):
    deep = [level.astype(np.uint16) * 257 for level in ODD]
    path = write_pyramid(tmp_path / "slide.tif", deep, **(layout | codec))
    same_everywhere(path, ODD)


@pytest.mark.parametrize("kind", ["unassalpha", "unspecified"])
@pytest.mark.parametrize("codec", [{"compression": "lzw", "predictor": 2}, {}], ids=str)
def test_four_samples(tmp_path: Path, codec: dict[str, Any], kind: str):
    four = [np.concatenate([level, 255 - level[..., :1] // 2], 2) for level in ODD]
    path = write_pyramid(tmp_path / "slide.tif", four, extrasamples=[kind], **codec)
    if kind == "unspecified":
        wanted = ODD
    else:
        alpha = [level[..., 3:].astype(int) for level in four]
        wanted = [
            ((level.astype(int) * a + 255 * (255 - a) + 127) // 255).astype(np.uint8)
            for level, a in zip(ODD, alpha, strict=True)
        ]
    same_everywhere(path, wanted)


@pytest.mark.parametrize("codec", [{"compression": "zlib"}, {"compression": "jpeg"}, {}], ids=str)
@pytest.mark.parametrize("layout", LAYOUTS[:2] + LAYOUTS[4:], ids=str)
def test_separate_planes(tmp_path: Path, codec: dict[str, Any], layout: dict[str, Any]):
    options = {"tile": (64, 64), "photometric": "rgb", "metadata": None} | layout | codec
    path = tmp_path / "slide.tif"
    writer = {key: options.pop(key) for key in ("byteorder", "bigtiff") if key in options}
    with tifffile.TiffWriter(path, **writer) as file:
        file.write(ODD[0].transpose(2, 0, 1), planarconfig="separate", **options)
    same_everywhere(path, [tifffile.imread(path).transpose(1, 2, 0)])


@pytest.mark.parametrize("compression", [33003, 33005, 34712])
@pytest.mark.parametrize("size", [(301, 235), (256, 128)], ids=str)
def test_aperios_jpeg_2000(tmp_path: Path, compression: int, size: tuple[int, int]):
    rgb = picture(*size)
    path = write_jpeg2000(tmp_path / "slide.svs", rgb, compression)
    if compression != 33003:
        same_everywhere(path, [rgb])
    if compression != 34712:  # which OpenSlide does not read
        with openslide.OpenSlide(path) as other, open_slide(path) as slide:
            theirs = np.asarray(other.read_region((0, 0), 0, size).convert("RGB")).astype(int)
            found = slide.read_region((0, 0), 0, size)
        # OpenSlide turns YCbCr into RGB with whole numbers, which is less exact.
        assert np.abs(found - theirs).max() <= (2 if compression == 33003 else 0)


@pytest.mark.parametrize("compression", [33003, 33005, 34712])
def test_an_eighth_of_jpeg_2000_is_close_to_the_mean(tmp_path: Path, compression: int):
    """Stated: 4 grey levels on average, 24 at most."""
    small = picture(88, 64, seed=3)
    soft = np.repeat(np.repeat(small, 3, 0), 3, 1)[:192, :256] // 3 + 90
    path = write_jpeg2000(tmp_path / "slide.svs", soft.astype(np.uint8), compression)
    with open_slide(path) as slide:
        for row, column in np.ndindex(3, 4):
            tile = slide.tile(0, row, column, halvings=3)
            difference = np.abs(mean_of_blocks(slide.tile(0, row, column), 8).astype(int) - tile)
            assert tile.shape == (8, 8, 3)
            assert difference.mean() <= 4
            assert difference.max() <= 24
            half = slide.tile(0, row, column, halvings=1)
            np.testing.assert_array_equal(half, mean_of_blocks(slide.tile(0, row, column), 2))


def write_jpeg2000(path: Path, rgb: np.ndarray, compression: int) -> Path:
    """Write tiles of 64 px as Aperio's scanners do: 33003 is YCbCr without a word of it."""
    pixels = rgb.astype(float)
    if compression == 33003:
        luma = pixels @ [0.299, 0.587, 0.114]
        blue, red = (pixels[..., 2] - luma) / 1.772, (pixels[..., 0] - luma) / 1.402
        pixels = np.clip(np.rint(np.stack([luma, 128 + blue, 128 + red], -1)), 0, 255)
    height, width = rgb.shape[:2]
    padded = np.pad(
        pixels.astype(np.uint8), ((0, -height % 64), (0, -width % 64), (0, 0)), mode="edge"
    )
    tiles = [
        imagecodecs.jpeg2k_encode(
            padded[y : y + 64, x : x + 64], level=0, reversible=True, mct=False, codecformat="j2k"
        )
        for y in range(0, height, 64)
        for x in range(0, width, 64)
    ]
    with tifffile.TiffWriter(path) as file:
        file.write(
            iter(tiles), shape=rgb.shape, dtype=np.uint8, tile=(64, 64), photometric="rgb",
            compression=compression, metadata=None,
            description="Aperio Image Library v1|MPP = 0.25",
        )  # fmt: skip
    return path


def test_fluorescence_in_separate_pages(tmp_path: Path):
    """Each channel alone in its colour: nothing is mixed up, at any level."""
    path = tmp_path / "slide.ome.tif"
    colors = [0x0000FFFF, 0x00FF00FF]
    names = {"Name": ["DAPI", "FITC"], "Color": colors}
    options = {"tile": (64, 64), "photometric": "minisblack", "compression": "zlib"}
    with tifffile.TiffWriter(path, ome=True) as file:
        stack = np.stack([GREY[0], 255 - GREY[0]])
        file.write(stack, subifds=1, metadata={"axes": "CYX", "Channel": names}, **options)
        file.write(np.stack([GREY[1], 255 - GREY[1]]), subfiletype=1, **options)
    wanted = [
        np.stack([np.zeros_like(level), 255 - level, level], -1) for level in (GREY[0], GREY[1])
    ]
    same_everywhere(path, wanted)


def test_a_level_of_sparse_tiles_is_one_tile(tmp_path: Path):
    path = write_pyramid(tmp_path / "sparse.tif", [ODD[0]], compression="jpeg", mpp=None)
    with tifffile.TiffFile(path, mode="r+b") as file:
        page = file.pages[0]
        counts = list(page.databytecounts)
        for index in range(1, 12):
            counts[index] = 0
        page.tags["TileByteCounts"].overwrite(counts)
        wanted = page.asarray().copy()
    with open_slide(path) as slide:
        stored = slide.tile_bytes(0)
        assert stored is not None
        assert stored.shape == (4, 5)
        np.testing.assert_array_equal(stored.ravel(), counts)
        assert slide.tile(0, 0, 1) is slide.tile(0, 1, 2)
        assert (slide.tile(0, 0, 4) == 255).all()
        found = slide.read_region((0, 0), 0, (301, 235))
    for index in range(1, 12):
        y, x = index // 5 * 64, index % 5 * 64
        wanted[y : y + 64, x : x + 64] = 255
    np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("compression", ["jpeg", "deflate"])
def test_tiles_in_the_same_bytes_are_decoded_once(tmp_path: Path, compression: str):
    path = write_pyramid(tmp_path / "twice.tif", [ODD[0]], compression=compression)
    with tifffile.TiffFile(path, mode="r+b") as file:
        page = file.pages[0]
        for tag, values in (
            ("TileOffsets", page.dataoffsets),
            ("TileByteCounts", page.databytecounts),
        ):
            page.tags[tag].overwrite([values[6] if i % 5 < 4 and i < 15 else v
                                      for i, v in enumerate(values)])  # fmt: skip
    with tifffile.TiffFile(path) as file:
        wanted = file.pages[0].asarray()
    with open_slide(path) as slide:
        tiles = {id(slide.tile(0, row, column)) for row, column in np.ndindex(3, 4)}
        assert len(tiles) == 1
        found = slide.read_region((0, 0), 0, (301, 235))
    np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("how", ["head", "middle", "zeros"])
def test_a_damaged_jpeg_tile(tmp_path: Path, how: str):
    """Without a head there is no picture; within, the decoder goes on: the rest stays right."""
    path = write_pyramid(tmp_path / "damaged.tif", [ODD[0]], compression="jpeg")
    with tifffile.TiffFile(path) as file:
        page = file.pages[0]
        offset, count = page.dataoffsets[6], page.databytecounts[6]
        wanted = page.asarray()
    content = bytearray(path.read_bytes())
    if how == "head":
        content[offset : offset + 4] = bytes(4)
    elif how == "zeros":
        content[offset : offset + count] = bytes(count)
    else:
        content[offset + count // 2 : offset + count] = bytes(count - count // 2)
    path.write_bytes(content)
    with open_slide(path) as slide:
        if how == "middle":
            tile = slide.tile(0, 1, 1)
            assert tile.shape == (64, 64, 3)
        else:
            for read in (
                lambda: slide.tile(0, 1, 1),
                lambda: slide.tile(0, 1, 1, halvings=2),
                lambda: slide.read_region((70, 70), 0, (20, 5)),
                lambda: slide.read_region((0, 0), 0, (301, 235)),
                lambda: slide.read_region((64, 64), 0, (64, 64)),
            ):
                with pytest.raises(SlideError, match=r"damaged\.tif .* \(64, 64\) of level 0"):
                    read()
        np.testing.assert_array_equal(slide.tile(0, 0, 0), wanted[:64, :64])
