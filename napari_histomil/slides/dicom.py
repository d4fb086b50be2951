"""DICOM slides as files: what one is part of, and which files of a folder are one slide.

A slide in DICOM is a series: one file or more for each level, label and overview. Only headers
are read here, the few elements that name the series; pixels are for `openslide.py` and
`wsidicom.py`.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from pathlib import Path

from napari_histomil.errors import SlideError

MARK, MARK_AT = b"DICM", 128
HEAD_BYTES = 1 << 18
"""Read of each file; the elements looked for lie in the first kilobytes."""

MAX_FILES = 1 << 14
"""Files of a folder that are looked at; a slide has some dozens."""

SLIDE_CLASS = "1.2.840.10008.5.1.4.1.1.77.1.6"
OTHER_CLASSES = {
    "1.2.840.10008.5.1.4.1.1.66.4": "a segmentation",
    "1.2.840.10008.5.1.4.1.1.91.1": "a set of annotations",
}
"""DICOM objects that go with slides and are none."""

IMPLICIT_LITTLE = "1.2.840.10008.1.2"
UNREADABLE_SYNTAXES = ("1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99")
"""Big endian and deflated: retired, and never used for slides."""

TRANSFER_SYNTAX, SOP_CLASS = (0x0002, 0x0010), (0x0008, 0x0016)
DESCRIPTION, SERIES = (0x0008, 0x103E), (0x0020, 0x000E)
WANTED = frozenset({TRANSFER_SYNTAX, SOP_CLASS, DESCRIPTION, SERIES})

LONG_LENGTHS = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())
"""Value representations whose length takes four bytes."""

UNDEFINED = 0xFFFFFFFF
ITEM, ITEM_END, SEQUENCE_END = (0xFFFE, 0xE000), (0xFFFE, 0xE00D), (0xFFFE, 0xE0DD)
MAX_DEPTH = 16


@dataclass(frozen=True, slots=True)
class Instance:
    """One DICOM file, by the names in its header; ``""`` where it does not say."""

    path: Path
    sop_class: str
    series: str
    description: str
    transfer_syntax: str


def is_dicom(head: bytes) -> bool:
    """Say whether a file that begins with these bytes is DICOM."""
    return head[MARK_AT : MARK_AT + len(MARK)] == MARK


def read_instance(path: Path) -> Instance | None:
    """Read the names in a file's header; None if it is no DICOM file, or a damaged one.

    Raises
    ------
    OSError
        If the file cannot be read.
    """
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
    if not is_dicom(head):
        return None
    try:
        found = _Header(head).names()
    except (struct.error, ValueError):  # it ends too early, or what it says cannot be
        return None
    names = {
        tag: value.decode("utf-8", "replace").strip("\0 ").replace("\n", " ")
        for tag, value in found.items()
    }
    return Instance(
        path,
        names.get(SOP_CLASS, ""),
        names.get(SERIES, ""),
        names.get(DESCRIPTION, ""),
        names.get(TRANSFER_SYNTAX, ""),
    )


def series_of(path: Path) -> list[Path]:
    """Return the files of a slide, in the order of their names, given one of them.

    Parameters
    ----------
    path
        A DICOM file.

    Returns
    -------
    list of Path
        `path` alone if it does not name its series or is no slide.
    """
    own = read_instance(path)
    if own is None or not own.series or own.sop_class != SLIDE_CLASS:
        return [path]
    return [found.path for found in _slides(path.parent).get(own.series, [])] or [path]


def series_in(folder: Path) -> list[Path] | None:
    """Return the files of the one slide in a folder; None if no file in it is DICOM.

    Raises
    ------
    SlideError
        If the folder holds several slides, or DICOM files but no slide.
    """
    slides = _slides(folder)
    if len(slides) == 1:
        return [instance.path for instance in next(iter(slides.values()))]
    if slides:
        firsts = [files[0] for files in slides.values()]
        named = [
            first.path.name + (f" ({first.description})" if first.description else "")
            for first in firsts[:8]
        ]
        more = f" and {len(firsts) - 8} more" if len(firsts) > 8 else ""
        raise SlideError(
            f"{folder.name} holds {len(slides)} slides in DICOM: open one file of the one that "
            f"you mean, {', '.join(named)}{more}."
        )
    if any(_heads(folder)):
        raise SlideError(f"{folder.name} holds DICOM files, but no slide: open a slide's file.")
    return None


def other_kind(path: Path) -> str | None:
    """Return what a DICOM file is that goes with slides and is none; None of all others."""
    found = read_instance(path)
    return OTHER_CLASSES.get(found.sop_class) if found is not None else None


def _slides(folder: Path) -> dict[str, list[Instance]]:
    """Return the slides of a folder by series, each one's files in the order of their names."""
    slides: dict[str, list[Instance]] = {}
    for found in _heads(folder):
        if found.sop_class == SLIDE_CLASS and found.series:
            slides.setdefault(found.series, []).append(found)
    return slides


def _heads(folder: Path) -> list[Instance]:
    files = sorted((path for path in folder.iterdir() if path.is_file()), key=_natural)
    found = []
    for path in files[:MAX_FILES]:
        try:
            instance = read_instance(path)
        except OSError:  # a file that we may not read takes nothing away from the others
            continue
        if instance is not None:
            found.append(instance)
    return found


def _natural(path: Path) -> list[tuple[bool, int, str]]:
    """Sort level-2 before level-10."""
    parts = re.split(r"(\d+)", path.name)
    return [(not part.isdecimal(), int(part) if part.isdecimal() else 0, part) for part in parts]


class _Header:
    """Walks over the elements at the beginning of a DICOM file (PS3.5, chapter 7)."""

    def __init__(self, head: bytes) -> None:
        self._head = head
        self._position = MARK_AT + len(MARK)
        self._explicit = True  # what comes first always is; the rest is as the file says

    def names(self) -> dict[tuple[int, int], bytes]:
        """Return the values of `WANTED` elements up to the series.

        Raises
        ------
        ValueError, struct.error
            If the bytes are no sequence of elements.
        """
        found: dict[tuple[int, int], bytes] = {}
        in_meta = True
        while True:
            if in_meta and self._peek()[0] != 0x0002:
                in_meta = False
                syntax = found.get(TRANSFER_SYNTAX, b"").decode("latin-1").strip("\0 ")
                if syntax in UNREADABLE_SYNTAXES:
                    return found
                self._explicit = syntax != IMPLICIT_LITTLE
            if self._peek() > SERIES:
                return found
            tag, length = self._element()
            if length == UNDEFINED:
                self._skip_sequence(0)
                continue
            if tag in WANTED:
                found[tag] = self._take(length)
            else:
                self._take(length)

    def _peek(self) -> tuple[int, int]:
        group, element = struct.unpack_from("<HH", self._head, self._position)
        return group, element

    def _element(self) -> tuple[tuple[int, int], int]:
        """Step over tag, kind and length; return tag and length."""
        tag = self._peek()
        self._position += 4
        if tag in (ITEM, ITEM_END, SEQUENCE_END) or not self._explicit:
            return tag, self._number("<I")
        kind = self._head[self._position : self._position + 2]
        if not (kind.isalpha() and kind.isupper()):
            raise ValueError("no kind of value")
        self._position += 2
        if kind in LONG_LENGTHS:
            self._position += 2
            return tag, self._number("<I")
        return tag, self._number("<H")

    def _number(self, format_: str) -> int:
        (value,) = struct.unpack_from(format_, self._head, self._position)
        self._position += struct.calcsize(format_)
        return int(value)

    def _take(self, length: int) -> bytes:
        start = self._position
        if length > len(self._head) - start:
            raise ValueError("a value goes on beyond what was read")
        self._position += length
        return self._head[start : self._position]

    def _skip_sequence(self, depth: int) -> None:
        """Step over the items of a sequence that ends with a mark."""
        if depth > MAX_DEPTH:
            raise ValueError("sequences in sequences without end")
        while True:
            tag, length = self._element()
            if tag == SEQUENCE_END:
                return
            if tag != ITEM:
                raise ValueError("no item in a sequence")
            if length != UNDEFINED:
                self._take(length)
                continue
            while True:
                tag, length = self._element()
                if tag == ITEM_END:
                    break
                if length == UNDEFINED:
                    self._skip_sequence(depth + 1)
                else:
                    self._take(length)
