"""Files made to hurt: every one is read or refused with one sentence, in bounded time and memory.

They are read in a process apart, where a fault in a C library would be seen (`fuzzing.py`).
"""

from __future__ import annotations

import io
import json
import os
import re
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from tests.slides import vendor_files as vendors
from tests.slides.conftest import halves, picture, write_pyramid
from tests.slides.fuzz_sources import RAW_JSON, _write_zarr
from tests.slides.fuzzing import Reader, structure

WIDTH, LENGTH, BITS, COMPRESSION, PHOTOMETRIC, OFFSETS = 256, 257, 258, 259, 262, 273
SAMPLES, ROWS, STRIP_COUNTS, PLANAR, FORMAT = 277, 278, 279, 284, 339
TILE_WIDTH, TILE_LENGTH, TILE_OFFSETS, TILE_COUNTS, SUB_IFDS, DESCRIPTION = (
    322,
    323,
    324,
    325,
    330,
    270,
)


@pytest.fixture(scope="module")
def reader() -> Iterator[Reader]:
    """A process that reads, shared by the tests of this file."""
    reader = Reader()
    yield reader
    reader.close()


@pytest.fixture
def refused(reader: Reader) -> Callable[[Path], str]:
    """Return the sentence with which a file is refused."""

    def look(path: Path) -> str:
        answer = reader.look(path)
        assert answer.outcome == "refused", answer
        assert path.name in answer.said or path.stem in answer.said
        return answer.said

    return look


class Tiff:
    """A TIFF whose tags can be changed to what no writer would write."""

    def __init__(self, path: Path, **options: Any) -> None:
        self.path = write_pyramid(path, halves(picture(300, 200), 1), **options)
        self.data = bytearray(self.path.read_bytes())
        found = structure(bytes(self.data))
        assert found is not None
        self.parts = found

    def change(
        self,
        tag: int,
        value: int,
        *,
        directory: int = 0,
        place: int = 0,
        kind: int | None = None,
        count: int | None = None,
    ) -> Tiff:
        """Put one value into a tag; with `kind` and `count`, the entry itself is made anew."""
        entry = [entry for entry in self.parts.entries if entry.tag == tag][directory]
        order, big = self.parts.order, self.parts.big
        if kind is not None:
            number = 1 if count is None else count
            head = struct.pack(order + "HH", tag, kind) + self.parts.pack(number)
            self._put(entry.position, head + value.to_bytes(8 if big else 4, "little"))
        else:
            size = {1: 1, 3: 2, 4: 4, 13: 4, 16: 8, 18: 8}[entry.type]
            self._put(entry.value_at + size * place, value.to_bytes(size, "little"))
        return self

    def link(self, number: int, offset: int) -> Tiff:
        """Let the link of that number, the header's first, lead to `offset`."""
        self._put(self.parts.links[number], self.parts.pack(offset))
        return self

    @property
    def first(self) -> int:
        """Where the first directory lies."""
        return int(struct.unpack_from(self.parts.word, self.data, self.parts.links[0])[0])

    def written(self) -> Path:
        """Write what was changed; returns the file."""
        self.path.write_bytes(self.data)
        return self.path

    def _put(self, at: int, what: bytes) -> None:
        assert 0 <= at <= len(self.data) - len(what)
        self.data[at : at + len(what)] = what


@pytest.fixture
def tiff(tmp_path: Path) -> Callable[..., Tiff]:
    def make(**options: Any) -> Tiff:
        return Tiff(tmp_path / "hostile.tif", **({"compression": "deflate"} | options))

    return make


def test_the_sound_file_is_read(reader: Reader, tiff: Callable[..., Tiff]) -> None:
    """Else the tests below would test nothing."""
    for options in ({}, {"bigtiff": True, "subifds": True}, {"compression": "jpeg"}):
        assert reader.look(tiff(**options).written()).outcome == "read"


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("offset", [10**6, 2**31, 2**32 - 1, 2**63 - 1, 2**64 - 1])
def test_tiles_beyond_the_end(
    refused: Callable[[Path], str], tiff: Callable[..., Tiff], big: bool, offset: int
) -> None:
    file = tiff(bigtiff=big)
    (width,) = {entry.type for entry in file.parts.entries if entry.tag == TILE_OFFSETS}
    file.change(TILE_OFFSETS, offset % (1 << (64 if width == 16 else 32)), place=3)
    assert "truncated" in refused(file.written())


@pytest.mark.parametrize("count", [10**6, 2**31, 2**32 - 1])
def test_tiles_longer_than_the_file(
    refused: Callable[[Path], str], tiff: Callable[..., Tiff], count: int
) -> None:
    file = tiff()
    entry = next(entry for entry in file.parts.entries if entry.tag == TILE_COUNTS)
    file.change(TILE_COUNTS, count % (1 << 16 if entry.type == 3 else 1 << 32), place=0)
    refused(file.written())


@pytest.mark.parametrize("big", [False, True])
def test_directories_in_a_circle(reader: Reader, tiff: Callable[..., Tiff], big: bool) -> None:
    file = tiff(bigtiff=big)
    last = len(file.parts.links) - 1
    assert reader.look(file.link(last, file.first).written()).good
    assert reader.look(file.link(1, file.first).written()).good


@pytest.mark.parametrize("count", [1, 2, 1000, 2**31 - 1])
def test_levels_in_a_circle(reader: Reader, tiff: Callable[..., Tiff], count: int) -> None:
    """A directory that says to be its own smaller level."""
    file = tiff(subifds=True)
    file.change(SUB_IFDS, file.first, kind=13, count=count)
    assert reader.look(file.written()).good


@pytest.mark.parametrize("offset", [10**6, 2**31, 2**32 - 1])
def test_directories_beyond_the_end(
    refused: Callable[[Path], str], tiff: Callable[..., Tiff], offset: int
) -> None:
    assert "list of pictures" in refused(tiff().link(1, offset).written())


@pytest.mark.parametrize("size", [2**31 - 1, 2**31, 2**32 - 1])
@pytest.mark.parametrize("tag", [WIDTH, LENGTH, TILE_WIDTH, TILE_LENGTH, ROWS])
def test_absurd_sizes(
    refused: Callable[[Path], str], tiff: Callable[..., Tiff], tag: int, size: int
) -> None:
    if tag == ROWS:
        file = tiff(tile=None, rowsperstrip=16).change(ROWS, size, kind=4)
        file.change(LENGTH, size, kind=4)
    else:
        file = tiff().change(tag, size, kind=4)
    refused(file.written())


def test_sizes_of_64_bits(refused: Callable[[Path], str], tiff: Callable[..., Tiff]) -> None:
    for size in (2**32, 2**62, 2**63, 2**64 - 1):
        file = tiff(bigtiff=True).change(WIDTH, size, kind=16).change(LENGTH, size, kind=16)
        refused(file.written())


def test_more_pixels_than_any_slide_has(refused: Callable[[Path], str], tmp_path: Path) -> None:
    """All in order but for the size: a megabyte that says to be 35 million megapixels."""
    side, tile = 2**31, 2**14
    path = tmp_path / "sparse.tif"
    columns = side // tile
    zeros = np.zeros(columns, np.uint32).tobytes()
    tags = [(WIDTH, 4, 1, side), (LENGTH, 4, 1, tile), (BITS, 3, 1, 8), (COMPRESSION, 3, 1, 8),
            (PHOTOMETRIC, 3, 1, 1), (SAMPLES, 3, 1, 1), (TILE_WIDTH, 4, 1, tile),
            (TILE_LENGTH, 4, 1, tile), (TILE_OFFSETS, 4, columns, 256),
            (TILE_COUNTS, 4, columns, 256)]  # fmt: skip
    head = struct.pack("<4sIH", b"II*\0", 8, len(tags))
    head += b"".join(struct.pack("<HHII", *tag) for tag in tags) + bytes(4)
    path.write_bytes(head.ljust(256, b"\0") + zeros)
    assert "more than any slide" in refused(path)


@pytest.mark.parametrize("size", [2**15, 2**31 - 1, 2**32 - 1])
def test_tiles_that_openslide_would_end_the_process_for(
    refused: Callable[[Path], str], tmp_path: Path, size: int
) -> None:
    """Its memory is taken by GLib, which aborts where there is none."""
    path = vendors.write_trestle(tmp_path / "hostile.tif", halves(picture(512, 384), 2))
    data = bytearray(path.read_bytes())
    parts = structure(bytes(data))
    assert parts is not None
    for tag in (TILE_WIDTH, TILE_LENGTH):
        entry = next(entry for entry in parts.entries if entry.tag == tag)
        data[entry.position : entry.position + 12] = struct.pack("<HHII", tag, 4, 1, size)
    path.write_bytes(data)
    assert "smaller tiles" in refused(path)


@pytest.mark.parametrize("tag", [WIDTH, LENGTH, TILE_WIDTH, TILE_LENGTH, SAMPLES, BITS])
def test_nothing_is_as_large_as_zero(
    refused: Callable[[Path], str], tiff: Callable[..., Tiff], tag: int
) -> None:
    refused(tiff().change(tag, 0, kind=4).written())


@pytest.mark.parametrize("kind", [0, 2, 5, 7, 11, 12, 14, 99, 65535])
@pytest.mark.parametrize("tag", [WIDTH, BITS, TILE_WIDTH, TILE_OFFSETS, TILE_COUNTS, SUB_IFDS])
def test_values_of_a_wrong_type(
    reader: Reader, tiff: Callable[..., Tiff], tag: int, kind: int
) -> None:
    file = tiff(subifds=True).change(tag, 7, kind=kind)
    answer = reader.look(file.written())
    assert answer.good, answer


@pytest.mark.parametrize("count", [0, 2**16, 2**31, 2**32 - 1])
@pytest.mark.parametrize("tag", [WIDTH, BITS, TILE_OFFSETS, TILE_COUNTS, SUB_IFDS, PHOTOMETRIC])
def test_absurd_numbers_of_values(
    reader: Reader, tiff: Callable[..., Tiff], tag: int, count: int
) -> None:
    file = tiff(subifds=True).change(tag, 8, kind=4, count=count)
    answer = reader.look(file.written())
    assert answer.good, answer


@pytest.mark.parametrize("claimed", [(65535, 65535), (0, 0), (1, 1), (64, 65535), (16384, 16384)])
def test_jpeg_tiles_that_claim_another_size(
    refused: Callable[[Path], str], tiff: Callable[..., Tiff], claimed: tuple[int, int]
) -> None:
    file = tiff(compression="jpeg")
    at = file.data.index(b"\xff\xc0")
    while at >= 0:  # in every tile
        file.data[at + 5 : at + 9] = struct.pack(">HH", *claimed)
        at = file.data.find(b"\xff\xc0", at + 2)
    assert "cannot be decoded" in refused(file.written())


def test_a_jpeg_of_thousands_of_scans(
    refused: Callable[[Path], str], tiff: Callable[..., Tiff]
) -> None:
    """Each of them without any data, but the decoder goes over the picture for it."""
    image = Image.fromarray(picture(512, 512))
    stored = io.BytesIO()
    image.save(stored, "jpeg", progressive=True)
    data = stored.getvalue()
    at = data.index(b"\xff\xda", data.index(b"\xff\xda") + 2)
    scan = data[at : data.index(b"\xff", at + 20)][:11]
    bomb = data[:-2] + scan * 20_000 + b"\xff\xd9"
    file = tiff(compression="jpeg", tile=(512, 512))
    entry = next(entry for entry in file.parts.entries if entry.tag == TILE_OFFSETS)
    file.change(TILE_OFFSETS, len(file.data), kind=4)
    file.change(TILE_COUNTS, len(bomb), kind=4)
    file.data += bomb
    assert entry.count == 1
    assert "scans" in refused(file.written())


def test_a_few_bytes_that_unfold_to_a_gigabyte(
    refused: Callable[[Path], str], tmp_path: Path
) -> None:
    path = tmp_path / "bomb.tif"
    side = 9_600
    tifffile.imwrite(path, shape=(side, side, 3), dtype=np.uint8, photometric="rgb",
                     data=iter([np.zeros((side, side, 3), np.uint8)]), compression="deflate",
                     tile=(side // 16 * 16 + 16,) * 2)  # fmt: skip
    assert path.stat().st_size < 2**20
    assert "too large" in refused(path)


OME = '<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06">'

PIXELS = (
    '<Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYCZT" Type="uint8" SizeX="300" '
    'SizeY="200" SizeC="3" SizeZ="1" SizeT="1"><Channel ID="C:0" SamplesPerPixel="3"/>'
    '<TiffData IFD="0">{}</TiffData></Pixels></Image></OME>'
)

TEXTS = {
    "entities": '<?xml version="1.0"?><!DOCTYPE OME [<!ENTITY a "aaaaaaaaaa">'
    + "".join(f'<!ENTITY {chr(98 + i)} "{f"&{chr(97 + i)};" * 10}">' for i in range(9))
    + "]><OME>&j;</OME>",
    "a file": '<?xml version="1.0"?><!DOCTYPE OME [<!ENTITY a SYSTEM "file:///etc/passwd">]>'
    "<OME>&a;</OME>",
    "deep": OME + "<a>" * 200_000,
    "deep and closed": OME + "<a>" * 100_000 + "</a>" * 100_000 + "</OME>",
    "wide": OME + "<Image/>" * 300_000 + "</OME>",
    "attributes": OME + "<Image " + " ".join(f'a{i}="1"' for i in range(100_000)) + "/></OME>",
    "sizes": OME + re.sub(r'(Size[XYCZT])="\d+"', r'\1="2147483647"', PIXELS.format("")),
    "no sizes": OME + re.sub(r'(Size[XYCZT])="\d+"', r'\1="-1"', PIXELS.format("")),
    "another file": OME + PIXELS.format('<UUID FileName="../../../etc/passwd">urn:uuid:1</UUID>'),
    "a device": OME + PIXELS.format('<UUID FileName="/dev/stdin">urn:uuid:1</UUID>'),
    "leica": '<?xml version="1.0"?><scn xmlns="http://www.leica-microsystems.com/scn/2010/10/01">'
    + "<collection>" * 50_000,
    "imagej": "ImageJ=1.53\nimages=2147483647\nslices=2147483647\nhyperstack=true\n",
    "shaped": '{"shape": [2147483647, 2147483647, 2147483647], "axes": "QYX"}',
    "aperio": "Aperio Image Library\n300x200 |" + "MPP = 1e999|AppMag = nan|" * 50_000,
    "binary": "Aperio \x01\x02\x7f |MPP = 0.5\x00|",
}


@pytest.mark.parametrize("name", TEXTS)
def test_descriptions(reader: Reader, tiff: Callable[..., Tiff], name: str) -> None:
    file = tiff(description="a")
    text = TEXTS[name].encode() + b"\0"
    entry = next(entry for entry in file.parts.entries if entry.tag == DESCRIPTION)
    head = struct.pack("<HHII", DESCRIPTION, 2, len(text), len(file.data))
    file._put(entry.position, head)
    file.data += text
    answer = reader.look(file.written())
    assert answer.good, answer
    assert "root:" not in answer.said
    assert answer.growth_kb < 256 << 10


ZARR: dict[str, tuple[str, Any]] = {
    "negative": ("shape", [3, -200, -300]),
    "nothing": ("shape", [3, 0, 0]),
    "absurd": ("shape", [3, 2**31, 2**31]),
    "beyond 64 bits": ("shape", [3, 2**63, 2**63]),
    "no numbers": ("shape", ["a", None, {}]),
    "nested": ("shape", [[[3]], [200], 300]),
    "many dimensions": ("shape", [1] * 3000),
    "huge chunks": ("chunks", [3, 2**31, 2**31]),
    "chunks of nothing": ("chunks", [0, 0, 0]),
    "negative chunks": ("chunks", [3, -64, -64]),
    "objects": ("dtype", "|O"),
    "wide values": ("dtype", "<V1000000000"),
    "strings": ("dtype", "<U1000000"),
    "no codec": ("compressor", {"id": "none-such"}),
    "odd codec": ("compressor", {"id": "blosc", "cname": 3, "clevel": 99, "shuffle": "x"}),
    "odd filter": ("filters", [{"id": "pickle"}]),
    "odd separator": ("dimension_separator", "../"),
    "odd order": ("order", {}),
    "odd format": ("zarr_format", 2**70),
}


@pytest.mark.parametrize("name", ZARR)
def test_zarr_arrays(reader: Reader, tmp_path: Path, name: str) -> None:
    path = _write_zarr(tmp_path / "hostile.zarr", halves(picture(300, 200), 1), 2)
    key, value = ZARR[name]
    told = json.loads((path / "0" / ".zarray").read_text())
    (path / "0" / ".zarray").write_text(json.dumps(told | {key: value}))
    answer = reader.look(path)
    assert answer.good, answer


PATHS = ("../secret", "../../..", "/etc", "0/../../secret", "..", "", ".", "0/0", "\0", "a" * 5000,
         {"a": 1}, None, 7, ["0"])  # fmt: skip


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("place", PATHS, ids=lambda place: repr(place)[:20])
def test_zarr_levels_lie_inside_the_folder(
    refused: Callable[[Path], str], tmp_path: Path, place: object, version: int
) -> None:
    """A sound array beside the slide is not read through a path that leads out of it."""
    levels = halves(picture(300, 200), 1)
    path = _write_zarr(tmp_path / "hostile.zarr", levels, version)
    _write_zarr(tmp_path / "other.zarr", levels, version)
    (tmp_path / "other.zarr" / "0").rename(tmp_path / "secret")
    file = path / (".zattrs" if version == 2 else "zarr.json")
    told = json.loads(file.read_text())
    ome = told if version == 2 else told["attributes"]["ome"]
    ome["multiscales"][0]["datasets"][0]["path"] = place
    file.write_text(json.dumps(told))
    refused(path)


@pytest.mark.parametrize("text", RAW_JSON, ids=lambda text: repr(text[:9]))
@pytest.mark.parametrize("name", [".zattrs", ".zgroup", "0/.zarray"])
def test_zarr_descriptions_that_are_none(
    reader: Reader, tmp_path: Path, name: str, text: bytes
) -> None:
    path = _write_zarr(tmp_path / "hostile.zarr", halves(picture(300, 200), 1), 2)
    (path / name).write_bytes(text)
    answer = reader.look(path)
    assert answer.good, answer


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes on this system")
@pytest.mark.parametrize("name", [".zattrs", "0/.zarray", "0/0.0.0"])
def test_zarr_with_a_pipe_in_place_of_a_file(reader: Reader, tmp_path: Path, name: str) -> None:
    """Opening a pipe waits until somebody writes into it: for ever."""
    path = _write_zarr(tmp_path / "hostile.zarr", halves(picture(300, 200), 1), 2)
    (path / name).unlink()
    os.mkfifo(path / name)
    answer = reader.look(path)
    assert answer.good, answer
