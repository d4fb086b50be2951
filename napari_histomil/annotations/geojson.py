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
import io
import json
import math
import uuid
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from napari_histomil.annotations.model import Region, SlideFrame
from napari_histomil.annotations.qupath import feature_from_region, region_from_feature
from napari_histomil.errors import AnnotationError
from napari_histomil.files import whole_file

SCHEMA_VERSION = 1
"""Version of the member ``histomil`` that is written, and the newest that is read."""

MAX_BYTES = 2**31
"""Longest text that is read: beyond it the parsed objects would not fit into memory."""

MEMBER = "histomil"


@dataclass(frozen=True, slots=True)
class AnnotationFile:
    """What a file holds."""

    regions: tuple[Region, ...]
    """In level-0 pixels of the whole slide."""
    frame: SlideFrame
    """The frame that the file's own positions were in."""
    notes: tuple[str, ...] = ()
    """Sentences for the person about what was assumed or changed on reading."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Top-level members that this program does not use."""


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
    document = _parse(path)
    try:
        features, extra = _features(document)
        found, notes = _frame(extra.pop(MEMBER, None), frame or SlideFrame())
        read = tuple(
            region_from_feature(feature, f"feature {n}", found.origin_px0)
            for n, feature in enumerate(features, 1)
        )
    except (AnnotationError, RecursionError) as error:
        reason = error if isinstance(error, AnnotationError) else "it is nested too deeply"
        raise AnnotationError(f"{path.name} cannot be read: {reason}.") from None
    renamed: list[str] = []
    regions = _own_ids(read, set(), renamed)
    if renamed:
        notes.append(f"{len(renamed)} objects had the id of another object and got new ids.")
    return AnnotationFile(regions, found, tuple(notes), extra)


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
    with whole_file(path) as part, part.open("wb") as raw:
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
    x, y = frame.origin_px0
    member = {
        "schema_version": SCHEMA_VERSION,
        "origin_px0": [x, y],
        "slide": {"name": frame.slide, "fingerprint": frame.fingerprint},
    }
    head = {"type": "FeatureCollection", MEMBER: member} | dict(extra or {})
    yield _dump(head)[:-1] + b',"features":['
    separator = b"\n"
    for feature in features:
        yield separator + _dump(feature)
        separator = b",\n"
    yield b"\n]}\n"


def _lines(
    regions: Iterable[Region], frame: SlideFrame, extra: Mapping[str, Any]
) -> Iterator[bytes]:
    features = (feature_from_region(region, frame.origin_px0) for region in regions)
    return collection_lines(features, frame, extra)


def _dump(value: Mapping[str, Any]) -> bytes:
    options: dict[str, Any] = {"separators": (",", ":"), "allow_nan": False}
    try:
        return json.dumps(value, ensure_ascii=False, **options).encode()
    except UnicodeEncodeError:  # half of a surrogate pair: legal in JSON only as an escape
        return json.dumps(value, **options).encode()
    except ValueError:  # an infinite number in a member that we only hand on
        return _dump(_without_infinity(value))


def _without_infinity(value: Any) -> Any:
    """Write numbers that JSON does not have as texts, as QuPath does."""
    if isinstance(value, Mapping):
        return {key: _without_infinity(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_infinity(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value


def _parse(path: Path) -> Any:
    try:
        data = _bytes(path)
    except FileNotFoundError:
        raise AnnotationError(f"{path} does not exist.") from None
    except (OSError, EOFError, zlib.error, zipfile.BadZipFile, NotImplementedError) as error:
        raise AnnotationError(f"{path.name} cannot be read: {error}.") from error
    if len(data) > MAX_BYTES:
        raise AnnotationError(
            f"{path.name} holds more than {MAX_BYTES / 2**30:.0f} GiB of text, too much to read "
            f"at once: export fewer objects."
        )
    if not data.strip():
        raise AnnotationError(f"{path.name} is empty.")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise AnnotationError(
            f"{path.name} is not a text in UTF-8 (byte {error.start}), so it is no GeoJSON."
        ) from None
    try:
        # NaN and Infinity are not JSON, but some programs write them: QuPath's texts for them.
        return json.loads(text, parse_constant=str)
    except json.JSONDecodeError as error:
        raise AnnotationError(
            f"{path.name} is not whole or not JSON: {error.msg} in line {error.lineno}, "
            f"column {error.colno}."
        ) from None
    except RecursionError:
        raise AnnotationError(f"{path.name} cannot be read: it is nested too deeply.") from None
    except ValueError as error:  # a number with thousands of digits
        raise AnnotationError(f"{path.name} cannot be read: {error}.") from None


def _bytes(path: Path) -> bytes:
    """Return the text, unpacked, at most one byte more than `MAX_BYTES`."""
    with path.open("rb") as file:
        data = file.read(MAX_BYTES + 1)
    if data[:2] == b"\x1f\x8b":
        with gzip.open(io.BytesIO(data)) as unpacked:
            return unpacked.read(MAX_BYTES + 1)
    if data[:4] == b"PK\x03\x04":
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = [entry for entry in archive.infolist() if not entry.is_dir()]
            if len(entries) != 1 or entries[0].flag_bits & 1:
                raise AnnotationError(
                    f"{path.name} should hold one file without a password, "
                    f"it holds {len(entries)}."
                )
            with archive.open(entries[0]) as inner:
                return inner.read(MAX_BYTES + 1)
    return data


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
    other = found.fingerprint and given.fingerprint and found.fingerprint != given.fingerprint
    return found, (
        [f"The file was drawn on another slide ({found.slide}), not on {given.slide}."]
        if other
        else []
    )


def _own_ids(
    regions: tuple[Region, ...], seen: set[str], renamed: list[str]
) -> tuple[Region, ...]:
    """Give a new id to every region whose id another has, in the order of the file."""
    result = []
    for region in regions:
        own = region.id
        while own in seen:
            own = str(uuid.uuid5(uuid.UUID(own), "again"))
        seen.add(own)
        children = _own_ids(region.children, seen, renamed)
        if own != region.id:
            renamed.append(own)
        if own != region.id or children != region.children:
            region = replace(region, id=own, children=children)
        result.append(region)
    return tuple(result)
