"""What a person decided about differences and changed no region by: kept beside the slide.

``review_decisions.json`` in the folder of the work on the slide (`resources.sidecar`) names each
difference by a checksum of what the two readers drew, so a later change of either region opens the
question again. It is read and written by one thread, one after the other, and written whole. A
damaged file is passed over, which asks the questions again, and is put aside before a new one is
written.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np
import shapely

from napari_histomil.annotations.model import Region
from napari_histomil.errors import AnnotationError, OutputError
from napari_histomil.files import remote_url, whole_file
from napari_histomil.resources import fallback_sidecar, note_sidecar, sidecar, sidecars
from napari_histomil.review.settling import Disagreement
from napari_histomil.slides.slide import SlideInfo

FILE_NAME = "review_decisions.json"
SCHEMA_VERSION = 1

LARGEST_FILE_BYTES = 32 << 20
MOST_KEPT = 50_000
"""The oldest go first. A decision takes about 250 bytes."""

LONGEST_NAME = 500
"""Letters of a reader's or author's name in a file."""

Word = Literal["mine", "both", "open"]
"""``open`` takes an earlier decision back."""

_WORDS: tuple[Word, ...] = ("mine", "both", "open")
_KEY = re.compile("[0-9a-f]{64}")

_log = logging.getLogger(__name__)
_disk = ThreadPoolExecutor(1, "decisions")


@dataclass(frozen=True, slots=True)
class Decided:
    """One decision."""

    reader: str
    """The other one's name."""
    pair: str
    """`pair_key` of the difference."""
    decision: Word
    author: str
    """Who decided."""
    time: str
    """When: UTC in ISO 8601, to the microsecond; of two decisions the later one counts."""

    @classmethod
    def now(cls, reader: str, pair: str, decision: Word, author: str) -> Decided:
        """Return a decision of this moment."""
        time = datetime.now(UTC).isoformat(timespec="microseconds")
        return cls(reader[:LONGEST_NAME], pair, decision, author[:LONGEST_NAME], time)


def pair_key(each: Disagreement) -> str:
    """Return a checksum of what two readers say at one place: classes and outlines, nothing else.

    It does not depend on where an outline begins, nor on thousandths of a pixel, which come and
    go with files.
    """
    digest = hashlib.sha256()
    for region in (each.mine, each.theirs):
        content = _content(region)
        digest.update(len(content).to_bytes(8, "little"))
        digest.update(content)
    return digest.hexdigest()


def _content(region: Region | None) -> bytes:
    if region is None:
        return b""
    # 0.0 is added so that there is no -0.0, which has other bytes.
    shape = shapely.transform(region.geometry, lambda xy: np.round(xy, 3) + 0.0)
    wkb: bytes = shapely.to_wkb(shapely.normalize(shape), byte_order=1, output_dimension=2)
    return json.dumps(region.class_name).encode() + b"\n" + wkb


def recall_decisions(info: SlideInfo, reader: str) -> dict[str, Decided]:
    """Return what was decided about the differences from a reader, by `pair_key`.

    What is about to be written is waited for. Files that are damaged or of a newer version are
    passed over and logged; of one that holds some nonsense, the rest is taken.
    """
    return _disk.submit(_recall, info, reader[:LONGEST_NAME]).result()


def keep_decision(info: SlideInfo, decided: Decided) -> None:
    """Have a decision written by a thread.

    Where beside the slide nothing can be written, it lies in the person's data folder; where it
    can be kept nowhere, that is logged. A picture in memory cannot be opened again: nothing is
    written for it.
    """
    if remote_url(info.path) is not None or info.path.exists():
        _disk.submit(_keep, info, decided).add_done_callback(_log_failure)


def _recall(info: SlideInfo, reader: str) -> dict[str, Decided]:
    latest: dict[str, Decided] = {}
    for folder in sidecars(info.path, info.fingerprint):
        try:
            found = _load(folder / FILE_NAME, info)
        except AnnotationError as error:
            _log.warning("%s", error)
            continue
        for each in found:
            known = latest.get(each.pair)
            if each.reader == reader and (known is None or each.time >= known.time):
                latest[each.pair] = each
    return {key: each for key, each in latest.items() if each.decision != "open"}


def _keep(info: SlideInfo, decided: Decided) -> None:
    why: Exception | None = None
    places = (sidecar(info.path, info.fingerprint), fallback_sidecar(info.fingerprint))
    for folder in dict.fromkeys(places):
        try:
            _write(folder / FILE_NAME, info, decided)
        except (OSError, OutputError, AnnotationError) as error:
            why = error
            continue
        note_sidecar(info.fingerprint, folder, info.path)
        return
    _log.warning("A decision about %s cannot be kept: %s", info.path.name, why)


def _write(file: Path, info: SlideInfo, decided: Decided) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    try:
        known = _load(file, info)
    except _NewerError:
        raise  # not ours to write over
    except AnnotationError as error:
        _log.warning("%s", error)
        known = []
        with suppress(FileNotFoundError):
            os.replace(file, file.with_name(f"{file.name}.damaged"))
    same = (decided.reader, decided.pair)
    kept = [each for each in known if (each.reader, each.pair) != same]
    kept = sorted([*kept, decided], key=lambda each: each.time)[-MOST_KEPT:]
    answer = {
        "schema_version": SCHEMA_VERSION,
        "fingerprint": info.fingerprint,
        "decisions": [asdict(each) for each in kept],
    }
    with whole_file(file) as part:
        part.write_text(json.dumps(answer, indent=1) + "\n", encoding="utf-8")


class _NewerError(AnnotationError):
    """The file is of a newer version of this program."""


def _load(file: Path, info: SlideInfo) -> list[Decided]:
    """Return what a file holds; nothing where there is none.

    Raises
    ------
    AnnotationError
        If it is damaged, about another slide, or of a newer version.
    """
    try:
        if file.stat().st_size > LARGEST_FILE_BYTES:
            raise ValueError("too large")
        answer = json.loads(file.read_text(encoding="utf-8"))
        version, entries = answer["schema_version"], answer["decisions"]
        if not isinstance(version, int) or not isinstance(entries, list):
            raise TypeError(version)
        fingerprint = answer["fingerprint"]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise AnnotationError(
            f"{file}, what was decided about {info.path.name}, cannot be read ({error!r}): it is "
            f"passed over, and differences are asked about again."
        ) from error
    if version > SCHEMA_VERSION:
        raise _NewerError(
            f"{file}, what was decided about {info.path.name}, was written by a newer version of "
            f"this program: update it."
        )
    if fingerprint != info.fingerprint:
        raise AnnotationError(f"{file} is about another slide than {info.path}: passed over.")
    return list(_sound(entries))


def _sound(entries: list[Any]) -> Iterable[Decided]:
    for entry in entries:
        if not isinstance(entry, dict):
            continue
        values: dict[str, Any] = {each.name: entry.get(each.name) for each in fields(Decided)}
        texts = [text for text in values.values() if isinstance(text, str)]
        if len(texts) < len(values) or max(map(len, texts)) > LONGEST_NAME:
            continue
        decided = Decided(**values)
        if decided.decision in _WORDS and _KEY.fullmatch(decided.pair) and _is_time(decided.time):
            yield decided


def _is_time(text: str) -> bool:
    """Whether it is one of ours: of one length, so that the order of words is that of time."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return False
    return moment.isoformat(timespec="microseconds") == text and moment.tzinfo == UTC


def _log_failure(done: Future[None]) -> None:
    error = done.exception()
    if error is not None:
        _log.error("A decision cannot be kept", exc_info=error)
