"""JPEG tiles: the same pixels as other decoders, stopped early, smaller, and refused."""

from __future__ import annotations

import io

import imagecodecs
import numpy as np
import pytest
from PIL import Image

from napari_histomil.slides.jpeg import JpegDecoder, UnusualJpegError
from napari_histomil.slides.resample import mean_of_blocks
from tests.slides.conftest import picture

SAMPLINGS = ["444", "422", "420", "440", "411"]


def stream(sampling: str = "420", height: int = 250, width: int = 237, **options) -> bytes:
    return imagecodecs.jpeg8_encode(soft(height, width), level=80, subsampling=sampling, **options)


def soft(height: int, width: int) -> np.ndarray:
    """Return a picture with detail of a few pixels, as tissue has."""
    small = picture(width // 3 + 2, height // 3 + 2, seed=3)
    large = np.repeat(np.repeat(small, 3, 0), 3, 1)[:height, :width].astype(int)
    grey = large.mean(axis=2, keepdims=True)
    return (90 + 0.3 * grey + 0.1 * large).astype(np.uint8)


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_every_row_is_as_in_the_whole(sampling: str):
    data = stream(sampling)
    decoder = JpegDecoder(None, 3, None)
    whole = decoder.decode(data)
    np.testing.assert_array_equal(whole, imagecodecs.jpeg8_decode(data))
    memory = np.empty(whole.shape, np.uint8)
    for rows in [*range(1, 40), 100, 111, 112, 113, 235, 240, 249, 250]:
        top = decoder.decode_top(data, rows, memory)
        assert rows <= len(top) <= len(whole)
        np.testing.assert_array_equal(top[:rows], whole[:rows])


def stack(sampling: str, count: int = 9, height: int = 240, width: int = 200) -> list[bytes]:
    """Return different tiles with the same head."""
    whole = soft(height * count, width)
    return [
        imagecodecs.jpeg8_encode(
            np.ascontiguousarray(whole[n * height : (n + 1) * height]),
            level=80,
            subsampling=sampling,
            optimize=False,
        )
        for n in range(count)
    ]


def with_restarts() -> bytes:
    file = io.BytesIO()
    Image.fromarray(soft(240, 200)).save(file, "JPEG", restart_marker_blocks=4)
    return file.getvalue()


@pytest.mark.parametrize("halvings", [1, 2, 3])
@pytest.mark.parametrize("sampling", ["444", "422", "420"])
def test_tiles_decoded_in_one_go_have_the_very_pixels_of_each(sampling: str, halvings: int):
    tiles, decoder = stack(sampling), JpegDecoder(None, 3, None)
    together = decoder.decode_stack(tiles, halvings, 1 << 20)
    assert together is not None
    for tile, pixels in zip(tiles, together, strict=True):
        np.testing.assert_array_equal(pixels, decoder.decode_halved(tile, halvings, 1 << 20))


@pytest.mark.parametrize("sampling", ["440", "411"])
def test_colours_that_are_smoothed_across_tiles_are_decoded_alone(sampling: str):
    assert JpegDecoder(None, 3, None).decode_stack(stack(sampling), 3, 1 << 20) is None


@pytest.mark.parametrize(
    "spoil",
    [
        lambda tiles: [*tiles[:4], tiles[4][:-2]],  # no end
        lambda tiles: [*tiles[:4], tiles[4][: len(tiles[4]) // 2] + b"\xff\xd9"],  # half of it
        lambda tiles: [*tiles[:4], b"\x00" * 500],
        lambda tiles: [b"", *tiles],
        lambda tiles: [*tiles, stream()],  # of another size
        lambda tiles: [stream(), stream()],  # ends amid a unit of coding
        lambda tiles: tiles * 40,  # higher than a picture may be
        lambda tiles: [with_restarts()] * 3,
    ],
)
def test_tiles_that_cannot_be_decoded_in_one_go(spoil):
    tiles = spoil(stack("420"))
    assert JpegDecoder(None, 3, None).decode_stack(tiles, 3, 1 << 20) is None


def test_a_stack_claims_no_more_than_its_tiles_may():
    assert JpegDecoder(None, 3, None).decode_stack(stack("420"), 3, 1000) is None


def test_rows_that_are_not_wanted_are_not_decoded():
    decoder = JpegDecoder(None, 3, None)
    assert len(decoder.decode_top(stream(), 20, np.empty(250 * 237 * 3, np.uint8))) == 32


def test_progressive_streams_are_decoded_whole():
    file = io.BytesIO()
    Image.fromarray(soft(100, 90)).save(file, "JPEG", progressive=True)
    data = file.getvalue()
    decoder = JpegDecoder(None, 3, None)
    top = decoder.decode_top(data, 8, np.empty(100 * 90 * 3, np.uint8))
    np.testing.assert_array_equal(top, imagecodecs.jpeg8_decode(data))


def test_tables_and_colours_of_the_directory():
    """Tiles of scanners: tables elsewhere, red, green and blue without a word of it."""
    rgb = soft(64, 64)
    whole = imagecodecs.jpeg8_encode(rgb, level=95, colorspace="rgb", outcolorspace="rgb")
    tables, tile = [b"\xff\xd8"], [b"\xff\xd8"]
    position = 2
    while whole[position + 1] != 0xDA:
        end = position + 2 + int.from_bytes(whole[position + 2 : position + 4])
        marker = whole[position + 1]
        if marker not in range(0xE0, 0xF0):
            (tables if marker in (0xDB, 0xC4) else tile).append(whole[position:end])
        position = end
    # Component numbers 1, 2, 3: a decoder that is not told takes them for YCbCr.
    frame = next(index for index, part in enumerate(tile) if part[1:2] == b"\xc0")
    body = bytearray(b"".join((tile[0], *tile[1:frame], tile[frame], *tile[frame + 1 :])))
    scan = bytearray(whole[position:])
    start = body.index(b"\xff\xc0")
    for index in range(3):
        body[start + 10 + 3 * index] = index + 1
        scan[5 + 2 * index] = index + 1
    data = bytes(body + scan)
    joined = b"".join(tables) + b"\xff\xd9"
    wanted = imagecodecs.jpeg8_decode(data, tables=joined, colorspace="rgb", outcolorspace="rgb")
    found = JpegDecoder(joined, 3, rgb=True).decode(data)
    np.testing.assert_array_equal(found, wanted)
    assert np.abs(found.astype(int) - rgb).mean() < 4
    as_ycbcr = JpegDecoder(joined, 3, rgb=False).decode(data)
    assert np.abs(as_ycbcr.astype(int) - rgb).mean() > 8


@pytest.mark.parametrize("sampling", SAMPLINGS)
@pytest.mark.parametrize(("halvings", "mean", "most"), [(1, 1.5, 20), (2, 1.5, 12), (3, 1, 6)])
def test_smaller_is_close_to_the_mean(sampling: str, halvings: int, mean: float, most: int):
    data = stream(sampling)
    decoder = JpegDecoder(None, 3, None)
    small = decoder.decode_halved(data, halvings, 250 * 237)
    wanted = mean_of_blocks(decoder.decode(data), 2**halvings)
    assert small.shape == wanted.shape
    # The last row and column also hold what the encoder put beyond the edge.
    difference = np.abs(small.astype(int) - wanted)[:-1, :-1]
    assert difference.mean() < mean
    assert difference.max() < most


def test_a_claim_is_checked_before_memory_is_taken():
    data = bytearray(stream())
    start = data.index(b"\xff\xc0")
    data[start + 5 : start + 9] = b"\xff\xdc\xff\xdc"
    decoder = JpegDecoder(None, 3, None)
    memory = np.empty(250 * 237 * 3, np.uint8)
    for decode in (
        lambda: decoder.decode(bytes(data), memory),
        lambda: decoder.decode_top(bytes(data), 20, memory),
        lambda: decoder.decode_halved(bytes(data), 3, 4 * 250 * 237),
    ):
        with pytest.raises(ValueError, match="65500"):
            decode()


@pytest.mark.parametrize(
    "data",
    [b"", b"\xff\xd8", b"no picture at all", b"\xff\xd8\xff\xdb\x00\x01" + bytes(20),
     b"\xff\xd8\xff\xda\x00\x08" + bytes(20), stream()[:200]],
    ids=["empty", "start", "text", "length", "no size", "cut"],
)  # fmt: skip
def test_bytes_that_are_no_picture(data: bytes):
    decoder = JpegDecoder(None, 3, None)
    with pytest.raises(ValueError, match=r"."):
        decoder.decode(data)
    with pytest.raises(ValueError, match=r"."):
        decoder.decode_halved(data, 1, 1 << 20)


def test_other_colours_are_left_to_others():
    grey = imagecodecs.jpeg8_encode(np.ascontiguousarray(soft(32, 32)[..., 0]))
    with pytest.raises(UnusualJpegError, match="1 colours in place of 3"):
        JpegDecoder(None, 3, None).decode(grey)
    np.testing.assert_array_equal(
        JpegDecoder(None, 1, None).decode(grey)[..., 0], imagecodecs.jpeg8_decode(grey)
    )
