"""GeoJSON files as QuPath reads and writes them <-> regions.

A file is a FeatureCollection, a list of Features, one Feature or a bare geometry; plain, gzipped
or zipped. What we write is a FeatureCollection in QuPath's frame (cropped to the slide's bounds
where it has them), with a top-level member ``histomil`` that says so::

    {"type": "FeatureCollection",
     "histomil": {"schema_version": 1, "origin_px0": [x, y],
                  "slide": {"name": "slide.svs", "fingerprint": "..."}},
     "features": [...]}

Members that this program does not know are kept and written back.
"""

from __future__ import annotations

import gzip
import math
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from napari_histomil.annotations.files import (
    AnnotationFile,
    fast_json,
    other_slide_notes,
    parsed_json,
    read_bytes,
    refusal,
    with_own_ids,
    without_collection,
)
from napari_histomil.annotations.model import Region, SlideFrame
from napari_histomil.annotations.qupath import read_features
from napari_histomil.annotations.qupath_lines import dumped, feature_lines
from napari_histomil.errors import AnnotationError
from napari_histomil.files import whole_file

SCHEMA_VERSION = 1
"""Version of the member ``histomil`` that is written, and the newest that is read."""

MEMBER = "histomil"

PIECE_BYTES = 1 << 20
"""Of a file of our own, so much is parsed at a time."""

MAX_HEAD_BYTES = 1 << 20
"""Within so much its features begin."""

_OPENING, _CLOSING = b',"features":[\n', b"\n]}\n"


def read_geojson(path: Path, *, frame: SlideFrame | None = None) -> AnnotationFile:
    """Read regions from a file.

    Parameters
    ----------
    path
        ``.geojson`` or ``.json``, also gzipped or zipped; told by content, not by name.
    frame
        QuPath's frame of the slide that the regions belong to. A file that does not name its
        own origin is taken to be in this frame, and a note says so.

    Raises
    ------
    AnnotationError
        If the file cannot be read or is not what QuPath writes; one sentence says where.
    """
    data = read_bytes(path)
    with without_collection():
        try:
            found = _read_own(data, frame)
            return found or read_document(parsed_json(data, path.name), frame=frame)
        except (AnnotationError, RecursionError) as error:
            raise refusal(path.name, error) from None


def read_document(document: Any, *, frame: SlideFrame | None = None) -> AnnotationFile:
    """Return what a parsed GeoJSON document holds; see `read_geojson`.

    Raises
    ------
    AnnotationError
        If it is not what QuPath writes; the words name the place and not the file.
    """
    features, extra = _features(document)
    return _read([features], extra, frame)


def _read_own(data: bytes, frame: SlideFrame | None) -> AnnotationFile | None:
    """Return what a file holds that `_collection` wrote; None for any other.

    It is read some lines at a time. In one go, parsing would hold Python's lock, and the window
    would stand still as long as that takes.
    """
    begin = data.find(_OPENING, 0, MAX_HEAD_BYTES) + len(_OPENING)
    if begin < len(_OPENING) or not data.endswith(_CLOSING):
        return None
    try:
        features, extra = _features(fast_json(data[:begin] + b"]}"))
        return None if features else _read(_pieces(data, begin), extra, frame)
    except ValueError:  # what is the matter is said where the whole is read
        return None


def _pieces(data: bytes, begin: int) -> Iterator[list[Any]]:
    """Yield the Features of whole lines; a line's end is never inside of one."""
    end = len(data) - len(_CLOSING)
    while begin < end:
        stop = data.find(b",\n", min(begin + PIECE_BYTES, end), end)
        stop = end if stop < 0 else stop
        yield fast_json(b"[" + data[begin:stop] + b"]")
        begin = stop + 2


def _read(
    pieces: Iterable[Sequence[Any]], extra: dict[str, Any], frame: SlideFrame | None
) -> AnnotationFile:
    found, notes = _frame(extra.pop(MEMBER, None), frame or SlideFrame())
    regions, flat = read_features(pieces, found.origin_px0)
    regions, again = with_own_ids(regions)
    return AnnotationFile(regions, found, (*notes, *flat, *again), extra)


def write_geojson(
    path: Path,
    regions: Iterable[Region],
    *,
    frame: SlideFrame | None = None,
    extra: Mapping[str, Any] | None = None,
) -> None:
    """Write regions to a file that QuPath opens, all or nothing.

    Parameters
    ----------
    path
        Gzipped if its name ends in ``.gz``, zipped if in ``.zip``.
    regions
        In level-0 pixels of the whole slide. Coordinates are rounded to hundredths.
    frame
        Frame that positions are written in, `SlideFrame.of` the slide.
    extra
        Further top-level members, from `AnnotationFile.extra`.

    Raises
    ------
    OutputError
        If the file cannot be written there.
    """
    frame = frame or SlideFrame()
    with without_collection(), whole_file(path) as part, part.open("wb") as raw:
        if path.suffix.lower() == ".gz":
            # No time and no name inside: equal regions give equal files.
            with gzip.GzipFile("", "wb", fileobj=raw, mtime=0) as packed:
                packed.writelines(_lines(regions, frame, extra or {}))
        elif path.suffix.lower() == ".zip":
            entry = zipfile.ZipInfo(path.stem)
            entry.compress_type = zipfile.ZIP_DEFLATED
            with zipfile.ZipFile(raw, "w") as archive, archive.open(entry, "w") as inner:
                inner.writelines(_lines(regions, frame, extra or {}))
        else:
            raw.writelines(_lines(regions, frame, extra or {}))


def collection_lines(
    features: Iterable[Mapping[str, Any]],
    frame: SlideFrame,
    extra: Mapping[str, Any] | None = None,
) -> Iterator[bytes]:
    """Yield the lines of a FeatureCollection in `frame`, one Feature a line.

    Parameters
    ----------
    features
        With coordinates that are in `frame` already.
    frame
        Written as the member ``histomil``.
    extra
        Further top-level members.
    """
    return _collection(map(dumped, features), frame, extra or {})


def _collection(
    lines: Iterable[bytes], frame: SlideFrame, extra: Mapping[str, Any]
) -> Iterator[bytes]:
    x, y = frame.origin_px0
    member = {
        "schema_version": SCHEMA_VERSION,
        "origin_px0": [x, y],
        "slide": {"name": frame.slide, "fingerprint": frame.fingerprint},
    }
    ours = {"type": "FeatureCollection", MEMBER: member}
    head = ours | {k: v for k, v in extra.items() if k not in (*ours, "features")}
    yield dumped(head)[:-1] + _OPENING
    separator = b""
    for line in lines:
        yield separator + line
        separator = b",\n"
    yield _CLOSING


def _lines(
    regions: Iterable[Region], frame: SlideFrame, extra: Mapping[str, Any]
) -> Iterator[bytes]:
    return _collection(feature_lines(regions, frame.origin_px0), frame, extra)


def _features(document: Any) -> tuple[list[Any], dict[str, Any]]:
    """Return the Features of any form of file, and the other members of a collection."""
    if isinstance(document, list):
        return document, {}
    if not isinstance(document, dict):
        raise AnnotationError("it holds no object and no list, so it is no GeoJSON")
    if document.get("type") == "FeatureCollection":
        features = document.get("features")
        if not isinstance(features, list):
            raise AnnotationError("it is a FeatureCollection without a list of features")
        rest = {k: v for k, v in document.items() if k not in ("type", "features")}
        return features, rest
    if "darwin" in str(document.get("schema_ref", "")):
        raise AnnotationError(
            "it is Darwin (V7) JSON, not GeoJSON: export the annotations as GeoJSON"
        )
    if "type" not in document:
        raise AnnotationError("it is JSON of another kind, not GeoJSON (it has no 'type')")
    return [document], {}


def _frame(member: Any, given: SlideFrame) -> tuple[SlideFrame, list[str]]:
    if member is None:
        x, y = given.origin_px0
        if not (x or y):
            return given, []
        note = (
            f"The file does not say where its origin is: positions are taken to count from the "
            f"corner of the scanned area, x = {x:g}, y = {y:g}, as QuPath counts them."
        )
        return given, [note]
    if not isinstance(member, dict) or not isinstance(member.get("slide", {}), dict):
        raise AnnotationError(f"its member '{MEMBER}' is not what this program writes")
    version = member.get("schema_version", SCHEMA_VERSION)
    if not isinstance(version, int) or version > SCHEMA_VERSION:
        raise AnnotationError(
            f"it was written by a newer version of this program (schema {version}, this one "
            f"knows {SCHEMA_VERSION}): update napari-histomil"
        )
    origin = member.get("origin_px0")
    if (
        not isinstance(origin, list)
        or len(origin) != 2
        or not all(isinstance(v, int | float) and math.isfinite(v) for v in origin)
    ):
        raise AnnotationError(f"the 'origin_px0' of its member '{MEMBER}' is not two numbers")
    slide = member.get("slide", {})
    found = SlideFrame(
        (float(origin[0]), float(origin[1])),
        str(slide.get("name", "")),
        str(slide.get("fingerprint", "")),
    )
    return found, other_slide_notes(found, given)
