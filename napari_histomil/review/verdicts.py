"""Everything that readers judged: one record an answer, on the disk before the next key.

Each reader of a project has a journal (`journal.py`) in one folder, so that several may judge at
the same time and none can overwrite another. Records are only ever added: of the answers of one
reader to one question about one place, the last one counts, and all are kept. Records that belong
together, such as an answer with its confidence, are one line: they are there together or not.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from napari_histomil.annotations.stamps import Stamp
from napari_histomil.errors import JournalError, ReviewError
from napari_histomil.journal import GAP, Entry, Journal, read_log

SCHEMA_VERSION = 1
OF = "verdicts"
SUFFIX = ".journal"
BACK = "back"
"""Kind of an entry that undoes the step before."""
LOCK = "lock"
"""Kind of an entry that cannot be undone, nor any before it."""

Answer = str | int | bool | tuple[str, ...] | None
"""What was answered; None takes an answer back."""


@dataclass(frozen=True, slots=True)
class Place:
    """What is judged: a rectangle of a slide."""

    slide: str
    """Fingerprint of the slide."""
    xy_px0: tuple[float, float]
    """(x, y) of its corner, level-0 px."""
    size_px0: tuple[float, float]
    """(width, height), level-0 px."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """One answer to one question, about a place or, where that is None, the case."""

    case: str
    """Name of the case, as in the project."""
    place: Place | None
    question: str
    answer: Answer
    reader: str = ""
    """Who; filled in by the log."""
    at: str = ""
    """When, UTC in ISO 8601; filled in by the log."""
    model: str | None = None
    """Whose answer was judged: the id of a run, or of a model; None where there is none."""

    @property
    def key(self) -> tuple[str, Place | None, str, str, str | None]:
        """What the last of several verdicts stands for: all but the answer and the time."""
        return self.case, self.place, self.question, self.reader, self.model


class VerdictLog:
    """What is judged in a project: all readers' answers are read, one reader's are written.

    Answers of other readers are those that were there when the log was opened; `reload` looks
    again.
    """

    def __init__(self, folder: Path, reader: str, journal: Journal | None, notes: list[str]):
        self.folder = folder
        self.reader = reader
        self.notes = notes
        """What a person should know of it: lines that were damaged, sentence by sentence."""
        self._journal = journal
        self._others: list[Verdict] = []
        self._own: list[Verdict] = []
        self._steps: list[tuple[Verdict, ...]] = []
        """Those of this reader that can be taken back."""
        self._first: dict[Any, Verdict] = {}
        self._latest: dict[Any, Verdict] = {}

    @classmethod
    def open(cls, folder: Path, *, reader: str, read_only: bool = False) -> Self:
        """Open what was judged in a folder; the folder is made where it is missing.

        Parameters
        ----------
        folder
            Of the journals of all readers.
        reader
            Who judges from now on.
        read_only
            Nobody judges: nothing is made, locked or changed.

        Raises
        ------
        BusyError
            If the same reader judges in another window or process.
        JournalError
            If a journal is of something else, or of a newer version.
        OutputError
            If it cannot be written.
        """
        reader = reader.strip()
        if not reader and not read_only:
            raise ReviewError("Say who reads: a verdict without a name is of no use.")
        if read_only:
            log = cls(folder, reader, None, [])
            log.reload()
            return log
        journal = Journal(folder / file_name(reader), OF, SCHEMA_VERSION, head={"reader": reader})
        try:
            log = cls(folder, reader, journal, _mended(journal))
            log.reload()
        except BaseException:
            journal.close()
            raise
        return log

    def reload(self) -> None:
        """Read all readers' journals again.

        Raises
        ------
        JournalError
            If one cannot be read.
        """
        own = None if self._journal is None else self._journal.path
        self._others = [
            verdict
            for path in sorted(self.folder.glob(f"*{SUFFIX}"))
            if path != own
            for verdict in read_verdicts(path)
        ]
        if self._journal is not None:
            self._own, self._steps, self._first = [], [], {}
            for kind, step in _steps(self._journal.entries, self.reader):
                self._note(kind, step)
        self._latest = {v.key: v for v in self.all()}

    def append(self, *verdicts: Verdict, for_good: bool = False) -> tuple[Verdict, ...]:
        """Keep verdicts as one step; they are on the disk when this returns.

        Reader and time are filled in.

        Parameters
        ----------
        verdicts
            What was judged.
        for_good
            Neither this step nor any before it can be taken back.

        Returns
        -------
        tuple of Verdict
            As they are kept.

        Raises
        ------
        OutputError
            If they cannot be written: none of them is kept.
        ReviewError
            If the log was opened for reading only, or is closed.
        """
        return self._put(LOCK if for_good else "verdicts", verdicts)

    def _put(self, kind: str, verdicts: tuple[Verdict, ...]) -> tuple[Verdict, ...]:
        if self._journal is None:
            raise ReviewError("The verdicts are open for reading only.")
        if not verdicts:
            return ()
        at = Stamp.now(self.reader).time
        kept = tuple(replace(v, reader=self.reader, at=at) for v in verdicts)
        self._journal.append(kind, {"at": at, "verdicts": [_as_json(v) for v in kept]})
        self._note(kind, kept)
        self._latest.update((v.key, v) for v in kept)
        return kept

    def _note(self, kind: str, step: tuple[Verdict, ...]) -> None:
        self._own += step
        for verdict in step:
            self._first.setdefault(verdict.key, verdict)
        if kind == LOCK:
            self._steps.clear()
        elif kind == BACK and self._steps:  # the step may be among damaged lines
            self._steps.pop()
        else:
            self._steps.append(step)

    def all(self) -> list[Verdict]:
        """Return every verdict of every reader, the oldest first; of one time by reader."""
        return sorted([*self._others, *self._own], key=lambda v: (v.at, v.reader))

    def latest(self, *, reader: str | None = None) -> list[Verdict]:
        """Return the verdicts that count: the last of each key, without those taken back.

        Parameters
        ----------
        reader
            Only this reader's.
        """
        return [
            v for v in self._latest.values() if v.answer is not None and reader in (None, v.reader)
        ]

    def first(self, reader: str) -> list[Verdict]:
        """Return a reader's first answer of each key, whatever came after it."""
        if self._journal is not None and reader == self.reader:
            return list(self._first.values())
        first: dict[Any, Verdict] = {}
        for verdict in self._others:
            if verdict.reader == reader:
                first.setdefault(verdict.key, verdict)
        return list(first.values())

    def answer(
        self,
        case: str,
        question: str,
        place: Place | None = None,
        *,
        model: str | None = None,
        reader: str | None = None,
    ) -> Answer:
        """Return what a reader (this one by default) answered last; None for nothing."""
        who = self.reader if reader is None else reader
        found = self._latest.get((case, place, question, who, model))
        return None if found is None else found.answer

    def take_back(self) -> tuple[Verdict, ...]:
        """Undo this reader's last step: each answer becomes what it was before.

        What is undone stays in the journal. Returns what counts now; empty if there is nothing
        to undo. Called again, it undoes the step before.
        """
        if not self._steps:
            return ()
        last = self._steps[-1]
        before: dict[Any, Answer] = {v.key: None for v in last}
        for step in self._steps[:-1]:
            before.update((v.key, v.answer) for v in step if v.key in before)
        return self._put(BACK, tuple(replace(v, answer=before[v.key]) for v in last))

    def close(self) -> None:
        """Give the journal back; does nothing the second time."""
        if self._journal is not None:
            self._journal.close()
            self._journal = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def file_name(reader: str) -> str:
    """Return the name of a reader's journal: readable, and another for every other reader."""
    plain = re.sub(r"[^A-Za-z0-9]+", "-", reader).strip("-")[:40].lower() or "reader"
    return f"{plain}-{zlib.crc32(reader.encode()):08x}{SUFFIX}"


def read_verdicts(path: Path) -> list[Verdict]:
    """Read one journal without locking it; damaged lines are left out.

    Raises
    ------
    JournalError
        If it cannot be read, is of something else, or of a newer version.
    """
    log = read_log(path, OF, SCHEMA_VERSION)
    reader = str(log.head.get("reader", path.stem))
    return [verdict for _, step in _steps(log.entries, reader) for verdict in step]


def _mended(journal: Journal) -> list[str]:
    """Put a journal with damaged lines right; return what a person should know."""
    if journal.is_whole:
        return []
    kept = journal.rewrite([(e.kind, e.text()) for e in journal.entries if e.kind != GAP])
    name = "it" if kept is None else kept.name
    sentence = (
        f"Some lines of {journal.path.name} were damaged and could not be read: the damaged file "
        f"is kept as {name} beside it, all other verdicts are here."
    )
    return [sentence]


def _steps(entries: Iterable[Entry], reader: str) -> Iterator[tuple[str, tuple[Verdict, ...]]]:
    """Yield kind and verdicts of each entry that is whole."""
    for entry in entries:
        if entry.kind == GAP:
            continue
        try:
            data = entry.data()
            at = str(data["at"])
            step = tuple(_from_json(each, reader, at) for each in data["verdicts"])
        except (KeyError, TypeError, ValueError) as error:
            raise JournalError(
                f"{entry.path} holds a line that is no verdict: move the file away."
            ) from error
        yield entry.kind, step


def _as_json(verdict: Verdict) -> dict[str, Any]:
    place = verdict.place
    return {
        "case": verdict.case,
        **(
            {}
            if place is None
            else {"slide": place.slide, "xy_px0": place.xy_px0, "size_px0": place.size_px0}
        ),
        "question": verdict.question,
        "answer": verdict.answer,
        **({} if verdict.model is None else {"model": verdict.model}),
    }


def _from_json(member: Mapping[str, Any], reader: str, at: str) -> Verdict:
    place = None
    if "slide" in member:
        (x, y), (width, height) = member["xy_px0"], member["size_px0"]
        place = Place(str(member["slide"]), (float(x), float(y)), (float(width), float(height)))
    answer = member["answer"]
    return Verdict(
        case=str(member["case"]),
        place=place,
        question=str(member["question"]),
        answer=tuple(map(str, answer)) if isinstance(answer, list) else answer,
        reader=reader,
        at=at,
        model=member.get("model"),
    )
