"""Small slides in the formats of vendors, written with tifffile from what OpenSlide looks for.

They stand in where no scanner's file is at hand: levels in tiles, the vendor's words in the tags,
and where the format has it a scanned part that does not fill the slide.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import imagecodecs
import numpy as np
import tifffile
from PIL import Image

TILE = (128, 128)

COMMON = {
    "tile": TILE,
    "photometric": "rgb",
    "compression": "deflate",
    "metadata": None,
    "resolution": (20_000, 20_000),
    "resolutionunit": "CENTIMETER",  # 0.5 µm/px
}


def write_leica_scn(path: Path, levels: Sequence[np.ndarray], corner: tuple[int, int]) -> Path:
    """Write a Leica SCN whose scan begins at `corner` px of a slide that is larger.

    The macro image covers all of the slide at 1/16, the scan only a part of it.
    """
    nm = 500  # per pixel
    height, width = levels[0].shape[:2]
    left, top = corner
    whole = (left + width + 160) // 16 * 16, (top + height + 240) // 16 * 16
    macro = np.full((whole[1] // 16, whole[0] // 16, 3), 200, np.uint8)
    dimensions = "".join(
        f'<dimension sizeX="{level.shape[1]}" sizeY="{level.shape[0]}" r="{index}" '
        f'ifd="{index + 1}"/>'
        for index, level in enumerate(levels)
    )
    settings = (
        "<creationDate>2020-01-01T00:00:00.00Z</creationDate>"
        '<device model="Leica SCN400;Leica SCN" version="1.4"/>'
        "<scanSettings><objectiveSettings><objective>20</objective></objectiveSettings>"
        "<illuminationSettings><numericalAperture>0.4</numericalAperture>"
        "<illuminationSource>brightfield</illuminationSource></illuminationSettings>"
        "</scanSettings>"
    )
    xml = (
        '<?xml version="1.0"?>'
        '<scn xmlns="http://www.leica-microsystems.com/scn/2010/10/01" uuid="urn:uuid:0">'
        f'<collection name="made" uuid="urn:uuid:1" sizeX="{whole[0] * nm}" '
        f'sizeY="{whole[1] * nm}" orientation="rotation180">'
        '<barcode></barcode><image name="macro" uuid="urn:uuid:2">'
        f'<pixels sizeX="{macro.shape[1]}" sizeY="{macro.shape[0]}">'
        f'<dimension sizeX="{macro.shape[1]}" sizeY="{macro.shape[0]}" r="0" ifd="0"/></pixels>'
        f'<view sizeX="{whole[0] * nm}" sizeY="{whole[1] * nm}" offsetX="0" offsetY="0" '
        f'spacingZ="0"/>{settings}</image>'
        '<image name="scan" uuid="urn:uuid:3">'
        f'<pixels sizeX="{width}" sizeY="{height}">{dimensions}</pixels>'
        f'<view sizeX="{width * nm}" sizeY="{height * nm}" offsetX="{left * nm}" '
        f'offsetY="{top * nm}" spacingZ="0"/>{settings}</image></collection></scn>'
    )
    with tifffile.TiffWriter(path, bigtiff=True) as file:
        for index, level in enumerate([macro, *levels]):
            file.write(
                level, **COMMON, description=xml if index == 0 else None,
                subfiletype=0 if index < 2 else 1,
            )  # fmt: skip
    return path


def write_philips(path: Path, levels: Sequence[np.ndarray], mpp: float = 0.5) -> Path:
    """Write a Philips TIFF: each level is padded to whole tiles, as the scanner does."""

    def attribute(name: str, kind: str, value: str) -> str:
        head = f'<Attribute Name="{name}" Group="0x0000" Element="0x0000" PMSVR="{kind}">'
        return f"{head}{value}</Attribute>"

    spacing = mpp / 1000
    representations = "".join(
        '<DataObject ObjectType="PixelDataRepresentation">'
        + attribute("DICOM_PIXEL_SPACING", "IDoubleArray",
                    f'"{spacing * 2**index:.9f}" "{spacing * 2**index:.9f}"')
        + attribute("PIIM_PIXEL_DATA_REPRESENTATION_NUMBER", "IUInt16", str(index))
        + "</DataObject>"
        for index in range(len(levels))
    )  # fmt: skip
    scanned = (
        '<DataObject ObjectType="DPScannedImage">'
        + attribute("PIM_DP_IMAGE_TYPE", "IString", "WSI")
        + attribute("DICOM_PIXEL_SPACING", "IDoubleArray", f'"{spacing}" "{spacing}"')
        + '<Attribute Name="PIIM_PIXEL_DATA_REPRESENTATION_SEQUENCE" Group="0x1001" '
        f'Element="0x8B01" PMSVR="IDataObjectArray"><Array>{representations}</Array></Attribute>'
        "</DataObject>"
    )
    xml = (
        '<?xml version="1.0" encoding="UTF-8" ?><DataObject ObjectType="DPUfsImport">'
        + attribute("DICOM_MANUFACTURER", "IString", "PHILIPS")
        + '<Attribute Name="PIM_DP_SCANNED_IMAGES" Group="0x301D" Element="0x1003" '
        f'PMSVR="IDataObjectArray"><Array>{scanned}</Array></Attribute></DataObject>'
    )
    with tifffile.TiffWriter(path, bigtiff=True) as file:
        for index, level in enumerate(levels):
            file.write(
                level, **COMMON, software="Philips DP v1.0",
                description=xml if index == 0 else None,
                subfiletype=1 if index else 0,
            )  # fmt: skip
    return path


def write_trestle(path: Path, levels: Sequence[np.ndarray]) -> Path:
    """Write a Trestle TIFF (MedScan) without overlaps."""
    overlaps = " ".join("0 0" for _ in levels)
    words = (
        "Objective Power=20;Black Balance=0 0 0;White Balance=255 255 255;JPEG Quality=70;"
        f"Background Color=E6E6E6;OverlapsXY={overlaps}"
    )
    with tifffile.TiffWriter(path) as file:
        for index, level in enumerate(levels):
            file.write(
                level, **COMMON | {"resolution": (0.5, 0.5)}, software="MedScan",
                description=words if index == 0 else None,
                subfiletype=1 if index else 0,
            )  # fmt: skip
    return path


def write_ventana(path: Path, levels: Sequence[np.ndarray]) -> Path:
    """Write a Ventana BIF of one area of whole tiles that do not overlap.

    The first level must be whole tiles in size, and all levels halves of each other.
    """
    height, width = levels[0].shape[:2]
    rows, columns = height // TILE[0], width // TILE[1]
    # Tiles are numbered from the lower left corner, in a snake: that is how the stage moves.
    number = {}
    for row in range(rows):
        for column in range(columns):
            number[row, column] = row * columns + (
                column if row % 2 == 0 else columns - 1 - column
            )
    joints = []
    for (row, column), first in number.items():
        for direction, other in (("RIGHT", (row, column + 1)), ("UP", (row + 1, column))):
            if other in number:
                joints.append(
                    f'<TileJointInfo FlagJoined="1" Confidence="99" Direction="{direction}" '
                    f'Tile1="{first + 1}" Tile2="{number[other] + 1}" OverlapX="0" OverlapY="0"/>'
                )
    iscan = '<iScan Magnification="20" ScanRes="0.5" UnitNumber="1" Z-layers="1"/>'
    xml = (
        '<?xml version="1.0"?><EncodeInfo Ver="2"><SlideInfo>'
        f"{iscan}</SlideInfo><SlideStitchInfo>"
        f'<ImageInfo AOIScanned="1" AOIIndex="0" NumRows="{rows}" NumCols="{columns}" '
        f'Width="{TILE[1]}" Height="{TILE[0]}" Pos-X="0" Pos-Y="0">{"".join(joints)}</ImageInfo>'
        '</SlideStitchInfo><AoiOrigin><AOI0 OriginX="0" OriginY="0"/></AoiOrigin></EncodeInfo>'
    )
    macro = np.full((256, 128, 3), 210, np.uint8)
    with tifffile.TiffWriter(path, bigtiff=True) as file:
        file.write(
            macro, **COMMON, description="Label Image",
            extratags=[(700, 1, None, f"<Metadata>{iscan}</Metadata>".encode(), True)],
        )  # fmt: skip
        for index, level in enumerate(levels):
            tags = [(700, 1, None, xml.encode(), True)] if index == 0 else []
            file.write(
                level, **COMMON, description=f"level={index} mag={20 / 2**index:g} quality=90",
                extratags=tags, subfiletype=0,
            )  # fmt: skip
    return path


def write_mirax(path: Path, levels: Sequence[np.ndarray], skipped: set[tuple[int, int]]) -> Path:
    """Write a MIRAX slide: ``path`` and the folder beside it with index and JPEG tiles.

    Parameters
    ----------
    levels
        All sizes whole tiles of 64 px, each level half the one before.
    skipped
        (row, column) of level-0 tiles that the scanner left out; so are those above them.

    Returns
    -------
    Path
        `path`.
    """
    size = 64
    folder = path.with_suffix("")
    folder.mkdir()
    rows, columns = (side // size for side in levels[0].shape[:2])
    data, records = bytearray(b"\0" * 64), []
    for index, level in enumerate(levels):
        step = 2**index
        entries = []
        for row in range(0, rows, step):
            for column in range(0, columns, step):
                below = {(row + y, column + x) for y in range(step) for x in range(step)}
                if below & skipped:
                    continue
                y, x = row // step * size, column // step * size
                stored = imagecodecs.jpeg8_encode(
                    np.ascontiguousarray(level[y : y + size, x : x + size]), level=90
                )
                entries.append((row * columns + column, len(data), len(stored), 0))
                data += stored
        records.append(entries)
    (folder / "Data0000.dat").write_bytes(data)

    slide_id = "0123456789ABCDEF0123456789ABCDEF"
    head = b"01.02" + slide_id.encode()
    table = len(head) + 8  # after the two roots
    pages_at = table + 4 * len(records)
    pointers, pages = b"", b""
    for entries in records:
        start = pages_at + len(pages)
        pointers += struct.pack("<i", start)
        pages += struct.pack("<ii", 0, start + 8)
        pages += struct.pack("<ii", len(entries), 0)
        pages += b"".join(struct.pack("<iiii", *entry) for entry in entries)
    roots = struct.pack("<ii", table, table)
    (folder / "Index.dat").write_bytes(head + roots + pointers + pages)

    lines = [
        "[GENERAL]", f"SLIDE_ID = {slide_id}", f"IMAGENUMBER_X = {columns}",
        f"IMAGENUMBER_Y = {rows}", "OBJECTIVE_MAGNIFICATION = 20",
        "CameraImageDivisionsPerSide = 1",
        "[HIERARCHICAL]", "HIER_COUNT = 1", "NONHIER_COUNT = 0", "INDEXFILE = Index.dat",
        "HIER_0_NAME = Slide zoom level", f"HIER_0_COUNT = {len(levels)}",
        *(f"HIER_0_VAL_{index}_SECTION = LEVEL_{index}" for index in range(len(levels))),
        "[DATAFILE]", "FILE_COUNT = 1", "FILE_0 = Data0000.dat",
    ]  # fmt: skip
    for index in range(len(levels)):
        lines += [
            f"[LEVEL_{index}]", "OVERLAP_X = 0", "OVERLAP_Y = 0",
            f"MICROMETER_PER_PIXEL_X = {0.5 * 2**index}",
            f"MICROMETER_PER_PIXEL_Y = {0.5 * 2**index}", "IMAGE_FORMAT = JPEG",
            "IMAGE_FILL_COLOR_BGR = 16777215", f"DIGITIZER_WIDTH = {size}",
            f"DIGITIZER_HEIGHT = {size}", f"IMAGE_CONCAT_FACTOR = {min(index, 1)}",
        ]  # fmt: skip
    (folder / "Slidedat.ini").write_text("\r\n".join(lines) + "\r\n")
    path.write_bytes(imagecodecs.jpeg8_encode(levels[-1]))  # a thumbnail: only its place counts
    return path


def mirax_pixels(
    levels: Sequence[np.ndarray], skipped: set[tuple[int, int]], size: int = 64
) -> list[np.ndarray]:
    """Return what `write_mirax` stores of each level: its JPEG tiles decoded, white between."""
    out = []
    for index, level in enumerate(levels):
        stored = np.full_like(level, 255)
        gone = {(row >> index, column >> index) for row, column in skipped}
        for row in range(level.shape[0] // size):
            for column in range(level.shape[1] // size):
                if (row, column) in gone:
                    continue
                part = np.s_[row * size : (row + 1) * size, column * size : (column + 1) * size]
                tile = imagecodecs.jpeg8_encode(np.ascontiguousarray(level[part]), level=90)
                stored[part] = imagecodecs.jpeg8_decode(tile)
        out.append(stored)
    return out


def write_ndpi(
    path: Path, levels: Sequence[np.ndarray], *, sampling: str, units: int | None = None
) -> Path:
    """Write a Hamamatsu NDPI: each level one JPEG, with a list of its restarts.

    Parameters
    ----------
    sampling
        Of the colours: 4:4:4, 4:2:2 or 4:2:0.
    units
        Units of coding (8 or 16 px wide) between restarts; None for a row of them.
    """
    unit_width = 8 if sampling == "4:4:4" else 16
    out = bytearray(b"II*\0" + bytes(8))
    link = 4  # where the place of the next directory stands, in eight bytes
    for index, level in enumerate(levels):
        height, width = level.shape[:2]
        every = {"restart_marker_rows": 1}
        if units is not None:
            every = {"restart_marker_blocks": min(units, width // unit_width)}
        stream = BytesIO()
        Image.fromarray(level).save(stream, "JPEG", quality=90, subsampling=sampling, **every)
        data = stream.getvalue()
        scan = data.index(b"\xff\xda")
        first = scan + 2 + int.from_bytes(data[scan + 2 : scan + 4])
        starts = [first] + [
            at + 2
            for at in range(first, len(data) - 1)
            if data[at] == 0xFF and 0xD0 <= data[at + 1] <= 0xD7
        ]
        data_at = len(out)
        out += data
        dots = struct.pack("<II", 20_000, 2**index)
        entries = [
            (256, 4, [width]), (257, 4, [height]), (258, 3, [8, 8, 8]), (259, 3, [7]),
            (262, 3, [6]), (271, 2, b"Hamamatsu\0"),
            (272, 2, b"C0000\0"), (273, 4, [data_at]), (277, 3, [3]),
            (278, 4, [height]), (279, 4, [len(data)]), (282, 5, dots), (283, 5, dots),
            (296, 3, [3]), (305, 2, b"NDP.scan\0"), (65420, 4, [1]),
            (65421, 11, struct.pack("<f", 20 / 2**index)),
            (65422, 9, [0]), (65423, 9, [0]), (65424, 9, [0]), (65426, 4, starts),
        ]  # fmt: skip
        packed = []
        for tag, kind, value in entries:
            size = {2: 1, 3: 2, 4: 4, 5: 8, 9: 4, 11: 4}[kind]
            raw = value if isinstance(value, bytes) else np.array(value, f"<i{size}").tobytes()
            place = raw.ljust(4, b"\0")
            if len(raw) > 4:
                place = struct.pack("<I", len(out))
                out += raw
            packed.append(struct.pack("<HHI", tag, kind, len(raw) // size) + place)
        out[link : link + 8] = struct.pack("<Q", len(out))
        out += struct.pack("<H", len(packed)) + b"".join(packed)
        link = len(out)
        out += bytes(8 + 4 * len(packed))  # next directory; upper halves of the values
    path.write_bytes(out)
    return path
