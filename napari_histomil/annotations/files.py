"""What a file of annotations holds, and how its bytes come in: unpacked, bounded, as a text.

Which format they are in is told in `formats.py`; the formats have a file each.
"""

from __future__ import annotations

import gc
import gzip
import io
import json
import uuid
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from napari_histomil.annotations.model import Region, SlideFrame
from napari_histomil.errors import AnnotationError, brief

MAX_BYTES = 2**31
"""Longest text that is read: beyond it the parsed objects would not fit into memory."""

MAX_REASON = 300
"""Characters of a reason that are shown."""

_fast: Any = import_module("orjson") if find_spec("orjson") else None
"""Parses twice as fast as Python's own; everything is read without it too. Of a whole number of
more than 64 bits it keeps the first 16 digits, as QuPath does."""

fast_json: Callable[[bytes], Any] = json.loads if _fast is None else _fast.loads
"""Parses JSON in UTF-8; a `ValueError` for anything else, whose words are for nobody."""

_AGAIN = "again"
"""From an id that is taken and this word a new one is made, the same at every reading."""


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
    """What belongs to the file as a whole and this program does not use, as JSON: other members
    of a FeatureCollection; under ``asap``, ``imagescope``, ``dsa`` what those formats hold."""
    format: str = "geojson"
    """Name of the format, one of `formats.FORMATS`."""


def read_bytes(path: Path) -> bytes:
    """Return a file's content; what is gzipped or zipped is unpacked, told by its first bytes.

    Raises
    ------
    AnnotationError
        If there is no such file, it is empty, damaged, or longer than `MAX_BYTES`.
    """
    try:
        data = _unpacked(path)
    except FileNotFoundError:
        raise AnnotationError(f"{path} does not exist.") from None
    except (OSError, EOFError, zlib.error, zipfile.BadZipFile, NotImplementedError) as error:
        raise AnnotationError(f"{path.name} cannot be read: {brief(error)}.") from error
    if len(data) > MAX_BYTES:
        raise AnnotationError(
            f"{path.name} holds more than {MAX_BYTES / 2**30:.0f} GiB of text, too much to read "
            f"at once: export fewer objects."
        )
    if not data.strip():
        raise AnnotationError(f"{path.name} is empty.")
    return data


def _unpacked(path: Path) -> bytes:
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


def parsed_json(data: bytes, name: str) -> Any:
    """Return the value of a JSON text; of a member that is written twice the last counts.

    Parameters
    ----------
    data
        The text, in UTF-8.
    name
        What messages call the file.

    Raises
    ------
    AnnotationError
        If it is no JSON; the sentence says where.
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise AnnotationError(
            f"{name} is not a text in UTF-8 (byte {error.start}), so it is no GeoJSON."
        ) from None
    if _fast is not None:
        try:
            return _fast.loads(text)
        except ValueError:
            pass  # what it refuses is read, or refused in our words, below
    try:
        # NaN and Infinity are not JSON, but some programs write them: QuPath's texts for them.
        return json.loads(text, parse_constant=str)
    except json.JSONDecodeError as error:
        raise AnnotationError(
            f"{name} is not whole or not JSON: {error.msg} in line {error.lineno}, "
            f"column {error.colno}."
        ) from None
    except RecursionError:
        raise AnnotationError(f"{name} cannot be read: it is nested too deeply.") from None
    except ValueError as error:  # a number with thousands of digits
        raise AnnotationError(f"{name} cannot be read: {brief(error)}.") from None


def refusal(name: str, error: AnnotationError | RecursionError) -> AnnotationError:
    """Return the sentence that a file cannot be read, with a reason of any length.

    Reasons repeat what a file holds, and a hostile file holds megabytes.
    """
    reason = str(error) if isinstance(error, AnnotationError) else "it is nested too deeply"
    reason = " ".join("".join(c if c.isprintable() else " " for c in reason[:4000]).split())
    if len(reason) > MAX_REASON:
        reason = f"{reason[: MAX_REASON // 2].rstrip()} … {reason[-MAX_REASON // 2 :].lstrip()}"
    if reason.startswith(name):
        return AnnotationError(reason)
    return AnnotationError(f"{name} cannot be read: {reason.rstrip('.')}.")


@contextmanager
def without_collection() -> Iterator[None]:
    """Let Python look for no cycles meanwhile.

    Parsing makes millions of lists that all stay; looking through them again and again takes
    three times as long as parsing itself. What was made counts as old afterwards: else the next
    look for cycles goes through all of it at once, and holds every thread up.
    """
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            if not gc.get_freeze_count():  # somebody else's frozen objects stay frozen
                gc.freeze()
                gc.unfreeze()
            gc.enable()


def plain_frame(
    given: SlideFrame | None, name: str = "", fingerprint: str = ""
) -> tuple[SlideFrame, list[str]]:
    """Return the frame of a file that counts from the corner of the whole slide, and notes.

    Parameters
    ----------
    given
        Frame of the slide that the person says the file belongs to.
    name, fingerprint
        What the file itself says of its slide.
    """
    given = given or SlideFrame()
    if not (name or fingerprint):
        return SlideFrame((0.0, 0.0), given.slide, given.fingerprint), []
    found = SlideFrame((0.0, 0.0), name, fingerprint)
    return found, other_slide_notes(found, given)


def other_slide_notes(found: SlideFrame, given: SlideFrame) -> list[str]:
    """Return a sentence if a file says that it belongs to another slide than the given one."""
    if found.fingerprint and given.fingerprint and found.fingerprint != given.fingerprint:
        return [f"The file was drawn on another slide ({found.slide}), not on {given.slide}."]
    return []


def with_own_ids(regions: tuple[Region, ...]) -> tuple[tuple[Region, ...], list[str]]:
    """Give a new id to every region whose id another has, in the order of the file; and a note."""
    renamed: list[str] = []
    regions = _own_ids(regions, set(), renamed)
    if not renamed:
        return regions, []
    return regions, [f"{len(renamed)} objects had the id of another object and got new ids."]


def _own_ids(
    regions: tuple[Region, ...], seen: set[str], renamed: list[str]
) -> tuple[Region, ...]:
    result = []
    for region in regions:
        own = region.id
        while own in seen:
            own = str(uuid.uuid5(uuid.UUID(own), _AGAIN))
        seen.add(own)
        children = _own_ids(region.children, seen, renamed) if region.children else ()
        if own != region.id:
            renamed.append(own)
        if own != region.id or children != region.children:
            region = replace(region, id=own, children=children)
        result.append(region)
    return tuple(result)
