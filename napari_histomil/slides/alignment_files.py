"""Alignments on disk: ``alignment.json`` in the folder of the work on each of the two slides.

One file holds the alignments of its slide with any number of others. Both slides are named by
their fingerprints, so that a moved or renamed slide is found again. What counts is the pairs: the
transform is made from them anew, with the µm/px of today, and written for other programs.
"""

from __future__ import annotations

import datetime
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from napari_histomil.errors import AlignmentError, OutputError
from napari_histomil.files import whole_file
from napari_histomil.resources import note_sidecar, sidecar, sidecars
from napari_histomil.slides.alignment import Alignment, PointPair, align
from napari_histomil.slides.slide import SlideInfo

FILE_NAME = "alignment.json"
SCHEMA_VERSION = 1

LARGEST_FILE_BYTES = 4 << 20
"""A hundred alignments of a hundred pairs are far smaller."""

MOST_PAIRS = 1000

FARTHEST_PX0 = 1e9
"""No slide is that large: a number beyond it is not a place."""


def save_alignment(alignment: Alignment, first: SlideInfo, second: SlideInfo) -> list[Path]:
    """Keep the alignment of two slides with both of them; an earlier one of the two is replaced.

    Returns
    -------
    list of Path
        The two files, or one where both slides share a folder of work.

    Raises
    ------
    AlignmentError
        If a file that is there is damaged or of a newer version.
    OutputError
        If a file cannot be written.
    """
    entry = {
        "saved": datetime.datetime.now(datetime.UTC).isoformat(timespec="microseconds"),
        "first": _slide(first),
        "second": _slide(second),
        "pairs_px0": [[list(pair.first_px0), list(pair.second_px0)] for pair in alignment.pairs],
        "mirrored": alignment.mirrored if alignment.flip == "given" else None,
        "first_to_second_px0": [list(row) for row in alignment.matrix],
        "residuals": list(alignment.residuals),
        "residual_unit": alignment.residual_unit,
    }
    return _write(first, second, entry)


def forget_alignment(first: SlideInfo, second: SlideInfo) -> None:
    """Delete what is kept about the alignment of two slides, in every place that is looked at.

    Raises
    ------
    AlignmentError
        If a file that is there is damaged or of a newer version.
    OutputError
        If a file cannot be written.
    """
    for file in _files(first, second):
        entries = _load(file)
        kept = [entry for entry in entries if not _is_about(entry, first, second)]
        if len(kept) != len(entries):
            _store(file, kept)


def recall_alignment(first: SlideInfo, second: SlideInfo) -> Alignment | None:
    """Return the alignment of two slides that was saved last, or None.

    It does not matter which of them was the first one then.

    Raises
    ------
    AlignmentError
        If a stored one is damaged, of a newer version, or impossible.
    """
    found = [
        (entry, file)
        for file in _files(first, second)
        for entry in _load(file)
        if _is_about(entry, first, second)
    ]
    if not found:
        return None
    entry, file = max(found, key=lambda each: str(each[0].get("saved", "")))
    try:
        if len(entry["pairs_px0"]) > MOST_PAIRS:
            raise ValueError("too many pairs")
        pairs = [_pair(each) for each in entry["pairs_px0"]]
        mirrored = entry["mirrored"]
        if mirrored not in (None, True, False):
            raise ValueError(mirrored)
    except (KeyError, TypeError, ValueError) as error:
        raise _damaged(file) from error
    if entry["first"]["fingerprint"] != first.fingerprint:
        pairs = [pair.turned() for pair in pairs]
    return align(pairs, first, second, mirrored=mirrored)


def _slide(info: SlideInfo) -> dict[str, Any]:
    mpp_xy = None if info.mpp_x is None or info.mpp_y is None else [info.mpp_x, info.mpp_y]
    return {"name": info.path.name, "fingerprint": info.fingerprint, "mpp_xy": mpp_xy}


def _is_about(entry: Mapping[str, Any], first: SlideInfo, second: SlideInfo) -> bool:
    about = [entry["first"]["fingerprint"], entry["second"]["fingerprint"]]
    wanted = [first.fingerprint, second.fingerprint]
    return about in (wanted, wanted[::-1])


def _files(first: SlideInfo, second: SlideInfo) -> list[Path]:
    folders = [
        *sidecars(first.path, first.fingerprint),
        *sidecars(second.path, second.fingerprint),
    ]
    files = [folder / FILE_NAME for folder in dict.fromkeys(folders)]
    return [file for file in files if file.is_file()]


def _write(first: SlideInfo, second: SlideInfo, entry: dict[str, Any]) -> list[Path]:
    homes = {sidecar(info.path, info.fingerprint) / FILE_NAME: info for info in (first, second)}
    # Both are read before one is written: a damaged one leaves no half-kept answer.
    before = {file: _load(file) if file.is_file() else [] for file in homes}
    for file, entries in before.items():
        kept = [each for each in entries if not _is_about(each, first, second)]
        _store(file, [*kept, entry])
    for file, info in homes.items():
        note_sidecar(info.fingerprint, file.parent, info.path)
    return list(homes)


def _store(file: Path, entries: list[dict[str, Any]]) -> None:
    content = {"schema_version": SCHEMA_VERSION, "alignments": entries}
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(file) as part:
            part.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    except (OSError, OutputError) as error:
        cause = error.__cause__ or error  # the disk's own word, where whole_file met it
        raise OutputError(
            f"The alignment cannot be kept in {file}: {getattr(cause, 'strerror', None) or cause}."
        ) from cause


def _load(file: Path) -> list[dict[str, Any]]:
    """Return the entries of a file; each names two slides, the rest of it is not yet checked."""
    try:
        if file.stat().st_size > LARGEST_FILE_BYTES:
            raise _damaged(file)
        content = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # neither JSON nor UTF-8, or nested for ever
        raise _damaged(file) from error
    except OSError as error:
        raise AlignmentError(
            f"{file}, the alignments of a slide, cannot be read: {error.strerror}."
        ) from error
    version = content.get("schema_version") if isinstance(content, dict) else None
    if not isinstance(version, int):
        raise _damaged(file)
    if version > SCHEMA_VERSION:
        raise AlignmentError(
            f"{file}, the alignments of a slide, was written by a newer version of this program: "
            f"update it, or delete the file."
        )
    entries = content.get("alignments")
    if not isinstance(entries, list) or not all(map(_names_two_slides, entries)):
        raise _damaged(file)
    return entries


def _names_two_slides(entry: object) -> bool:
    if not isinstance(entry, dict):
        return False
    sides = (entry.get("first"), entry.get("second"))
    return all(
        isinstance(side, dict) and isinstance(side.get("fingerprint"), str) for side in sides
    )


def _pair(given: Any) -> PointPair:
    """Return a pair of the file; raises TypeError or ValueError where it is none."""
    (first_x, first_y), (second_x, second_y) = given
    places = [float(each) for each in (first_x, first_y, second_x, second_y)]
    if not all(math.isfinite(each) and abs(each) <= FARTHEST_PX0 for each in places):
        raise ValueError(given)
    return PointPair((places[0], places[1]), (places[2], places[3]))


def _damaged(file: Path) -> AlignmentError:
    return AlignmentError(
        f"{file}, the alignments of a slide, is damaged: delete it and align the slides again."
    )
