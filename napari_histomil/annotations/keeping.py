"""The annotations of a slide, kept on disk while they are changed.

`AnnotationKeeper` has an `AnnotationSet` and does every step twice: in memory, and in the journal
beside ``annotations.geojson``. How steps come onto the disk is in `saving.py`, how the set is
found again after a crash in `recovery.py`, what another program's file means in `foreign.py`.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Self

from napari_histomil.annotations.collection import AnnotationSet, Command
from napari_histomil.annotations.foreign import Choice, Settlement, keep_beside, settlement
from napari_histomil.annotations.history import Version, history_of
from napari_histomil.annotations.model import Region, SlideFrame
from napari_histomil.annotations.recovery import (
    FILE_NAME,
    JOURNAL_NAME,
    OF,
    SCHEMA_VERSION,
    Found,
    look,
    take_up,
)
from napari_histomil.annotations.saving import (
    REGIONS_PER_STEP,
    STEPS_BETWEEN_FILES,
    Saver,
    Saving,
    Snapshot,
    is_bulk,
)
from napari_histomil.annotations.stamps import Stamp, as_edited, system_user
from napari_histomil.annotations.steps import settled
from napari_histomil.errors import AnnotationError, BusyError, JournalError, OutputError
from napari_histomil.journal import Entry, Journal, read_log
from napari_histomil.resources import (
    SIDECAR_SUFFIX,
    fallback_sidecar,
    note_sidecar,
    sidecar,
    sidecars,
)
from napari_histomil.slides.slide import SlideInfo

FINGERPRINT = re.compile(rb'"fingerprint"\s*:\s*"([^"]+)"')
"""In the first line of a file of ours."""


def open_annotations(
    info: SlideInfo, *, out: Path | None = None, author: str | None = None
) -> AnnotationKeeper:
    """Open what was drawn on a slide, where the work on it lies.

    A slide that was moved or renamed finds its annotations; where they lie in a place that cannot
    be written, they are taken over into the person's data folder. A folder whose annotations
    belong to other content under the same name is passed over, and a note says so.

    Parameters
    ----------
    info
        Of the slide.
    out
        Folder that the person chose for results; None for beside the slide.
    author
        Name of the person; None for the user of the system.

    Raises
    ------
    AnnotationError
        If they cannot be used: damaged, or of a newer version of this program.
    """
    frame = SlideFrame.of(info)
    preferred, folders, notes = _folders(info, out)
    first = next(iter(folders), preferred)
    keeper = _opened(preferred if preferred in folders else first, preferred, frame, author)
    keeper.notes = (*notes, *keeper.notes)
    if keeper.why_read_only is None:
        note_sidecar(info.fingerprint, keeper.folder, info.path)
    return keeper


def kept_regions(info: SlideInfo) -> tuple[Region, ...]:
    """Return what was drawn on a slide and lies where its work lies, as it is at this moment.

    Nothing is locked or written, and the slide may be open elsewhere.

    Raises
    ------
    AnnotationError
        If it cannot be used: damaged, or of a newer version of this program.
    """
    frame = SlideFrame.of(info)
    _, folders, _ = _folders(info, None)
    return tuple(look(folders[0], frame).annotations) if folders else ()


def _folders(info: SlideInfo, out: Path | None) -> tuple[Path, list[Path], list[str]]:
    """Return where annotations are to lie, where some of this slide lie, and notes."""
    preferred = sidecar(info.path, info.fingerprint, out=out)
    folders: list[Path] = []
    notes: list[str] = []
    for folder in sidecars(info.path, info.fingerprint, out=out):
        if not any((folder / name).is_file() for name in (FILE_NAME, JOURNAL_NAME)):
            continue
        fingerprint = _fingerprint_in(folder)
        named_so = folder.name == f"{info.path.name}{SIDECAR_SUFFIX}" or folder == preferred
        if fingerprint == info.fingerprint or (fingerprint is None and named_so):
            folders.append(folder)
        elif folder == preferred:
            notes.append(
                f"The annotations in {folder} were drawn on another slide of that name and are "
                f"not shown."
            )
    if notes:
        preferred = fallback_sidecar(info.fingerprint)
    return preferred, folders, notes


def _opened(
    folder: Path, preferred: Path, frame: SlideFrame, author: str | None
) -> AnnotationKeeper:
    """Open the annotations of a folder, there or taken over from there."""
    keeper = AnnotationKeeper.open(folder, frame, author=author)
    if keeper.why_read_only is None or keeper.is_open_elsewhere or folder == preferred:
        return keeper
    taken = AnnotationKeeper.open(preferred, frame, author=author)
    if taken.why_read_only is not None:
        return keeper
    regions = {region.id: region for region in keeper.annotations}
    extra = taken.annotations.extra, keeper.annotations.extra
    taken.do(
        Command(f"take over {len(regions):,} regions from {folder}", added=regions, extra=extra)
    )
    told = f"The annotations in {folder} cannot be changed there: they now lie in {preferred}."
    taken.notes = (told, *keeper.notes, *taken.notes)
    return taken


def _fingerprint_in(folder: Path) -> str | None:
    """Return the fingerprint of the slide that a folder's annotations are of; None if untold."""
    try:
        head = read_log(folder / JOURNAL_NAME, OF, SCHEMA_VERSION).head
        if head.get("fingerprint"):
            return str(head["fingerprint"])
    except JournalError:
        pass  # there is none, or opening it will tell
    try:
        with (folder / FILE_NAME).open("rb") as stream:
            match = FINGERPRINT.search(stream.readline(4096))
    except OSError:
        return None
    return match[1].decode(errors="replace") if match else None


class AnnotationKeeper:
    """An `AnnotationSet` with its place on disk; made by `open`, or by `open_annotations`.

    All methods are called from one thread, that of the window.
    """

    def __init__(
        self,
        folder: Path,
        frame: SlideFrame,
        found: Found,
        saver: Saver | None,
        author: str,
        why_read_only: str | None = None,
    ) -> None:
        self.folder = folder
        self.frame = frame
        self.author = author
        self.annotations: AnnotationSet = found.annotations
        self.notes = found.notes
        """Sentences for the person about what was met on opening, or in another's file."""
        self.why_read_only = why_read_only
        """A sentence if nothing can be changed here; None if it can."""
        self.is_open_elsewhere = False
        """Whether that is because another window has them open."""
        self.saver = saver
        """Tells how far things are on the disk (`Saver.changed`); None if nothing is written."""

    @classmethod
    def open(cls, folder: Path, frame: SlideFrame, *, author: str | None = None) -> Self:
        """Open the annotations in a folder, which is made where it is missing.

        Where the folder cannot be written, or another window has them open, they can be looked at
        and nothing else: `why_read_only` says why.

        Raises
        ------
        AnnotationError
            If they cannot be used: damaged, or of a newer version of this program.
        """
        name = system_user() if author is None else author
        head = {"slide": frame.slide, "fingerprint": frame.fingerprint}
        try:
            try:
                journal = Journal(folder / JOURNAL_NAME, OF, SCHEMA_VERSION, head=head)
            except (BusyError, OutputError) as error:
                why = f"The annotations can be looked at, not changed: {error}"
                if isinstance(error, BusyError):
                    why += " Then open the slide again."
                keeper = cls(folder, frame, look(folder, frame), None, name, why)
                keeper.is_open_elsewhere = isinstance(error, BusyError)
                return keeper
        except JournalError as error:
            raise AnnotationError(str(error)) from error
        try:
            found = take_up(journal, frame)
        except BaseException:
            journal.close()
            raise
        return cls(folder, frame, found, Saver(journal, frame, found), name)

    # --- steps --------------------------------------------------------------------------------

    def do(self, command: Command, *, ready: bool = False) -> Command:
        """Do a step and have it on the disk; see `AnnotationSet.do`.

        Parameters
        ----------
        command
            The step.
        ready
            Its shapes are settled already, see `steps.settled`.

        Returns
        -------
        Command
            The step as it was done: shapes are in hundredths of a pixel.

        Raises
        ------
        AnnotationError
            If it does not fit what is there, or nothing can be changed here.
        """
        saver = self._writable()
        command = command if ready else settled(command, self.frame.origin_px0)
        done = self.annotations.do(command)
        self._put(saver, "do", done.text, done)
        return done

    def undo(self) -> Command | None:
        """Take the last step back, on the disk too; see `AnnotationSet.undo`."""
        saver = self._writable()
        command = self.annotations.undo()
        if command is not None:
            self._put(saver, "undo", command.text)
        return command

    def redo(self) -> Command | None:
        """Do the step undone last again, on the disk too; see `AnnotationSet.redo`."""
        saver = self._writable()
        command = self.annotations.redo()
        if command is not None:
            self._put(saver, "redo", command.text)
        return command

    def _put(self, saver: Saver, kind: str, text: str, command: Command | None = None) -> None:
        stamp = Stamp.now(self.author)
        due = is_bulk(command) or saver.steps_since_file > max(
            STEPS_BETWEEN_FILES, len(self.annotations) / REGIONS_PER_STEP
        )
        about = {"text": text, "by": stamp.author, "at": stamp.time}
        saver.put(kind, about, command, self.annotations if due else None)

    def _writable(self) -> Saver:
        if self.why_read_only is not None:
            raise AnnotationError(self.why_read_only)
        if self.saver is None:
            raise AnnotationError("The annotations are closed.")
        return self.saver

    # --- on the disk --------------------------------------------------------------------------

    @property
    def saving(self) -> Saving | None:
        """How far what was done is on the disk; None if nothing is written."""
        return self.saver.state if self.saver is not None else None

    @property
    def conflict(self) -> str | None:
        """A sentence if another program changed the file, until `resolve` settles it."""
        return self.saver.conflict if self.saver is not None else None

    def file_soon(self) -> None:
        """Have ``annotations.geojson`` written as things are now, by a thread."""
        saver = self._writable()
        saver.file_soon(Snapshot.of(self.annotations, saver.steps))

    def resolve(self, choice: Choice, prepared: Settlement | None = None) -> Command | None:
        """Settle what happens to a file that another program changed.

        Parameters
        ----------
        choice
            ``theirs``: the regions of the file replace those here, a step that can be undone.
            ``ours``: what is here is written to the file; what was in it is kept beside.
            ``both``: regions that are only in the file come in, and those that differ as copies.
        prepared
            What it does, if a thread has found that out; `notes` are those of it then.

        Returns
        -------
        Command or None
            The step that was done; None if there was nothing to do.

        Raises
        ------
        AnnotationError
            If there is no conflict, or the file cannot be read; nothing is changed then.
        OutputError
            If the file cannot be kept beside.
        """
        saver = self._writable()
        if saver.conflict is None:
            raise AnnotationError("No other program has changed the annotations.")
        path = self.folder / FILE_NAME
        found = prepared or settlement(choice, self.annotations, path, self.frame)
        if choice == "ours" and found.sha256 is not None:
            keep_beside(path)
        done = None if found.command is None else self.do(found.command, ready=True)
        saver.settle(found.sha256)
        self.notes = found.notes
        self.file_soon()
        return done

    def close(self, *, force: bool = False) -> None:
        """Write ``annotations.geojson`` if it is behind, and let go; does nothing the second time.

        Parameters
        ----------
        force
            Let go even if steps could not be written: they are lost.

        Raises
        ------
        OutputError
            If steps could not be written: the keeper stays open. Or if only the file could not:
            then all is in the journal, and the keeper is closed.
        """
        saver = self.saver
        if saver is None:
            return
        saver.wait()
        saver.retry()
        if saver.waiting and not force:
            raise OutputError(
                f"{saver.waiting:,} steps are not on the disk yet: {saver.state.sentence} Make "
                f"room, or save the regions elsewhere."
            )
        try:
            saver.file_now(Snapshot.of(self.annotations, saver.steps))
        finally:
            saver.journal.close()
            self.saver = None

    # --- history ------------------------------------------------------------------------------

    def history(self, region_id: str) -> list[Version]:
        """Return what became of a region, the oldest version first.

        Raises
        ------
        AnnotationError
            If the journal cannot be read.
        """
        now = self.annotations.get(region_id) if region_id in self.annotations else None
        return history_of(self._entries(), region_id, now)

    def revert(self, region_id: str, version: Version) -> Command:
        """Bring a version of a region back; a step like others.

        Raises
        ------
        AnnotationError
            If the region is fixed, or is as it was already.
        """
        now = self.annotations.get(region_id) if region_id in self.annotations else None
        then = version.region
        if now == then:
            raise AnnotationError("The region is as it was then.")
        if now is not None and now.is_fixed:
            raise AnnotationError(f"{now.label} is locked: unlock it first.")
        if then is not None:
            (metadata,) = as_edited([then.metadata], Stamp.now(self.author))
            then = then.but(metadata=metadata)
        return self.do(
            Command(
                f"back to {version.time or 'the first version'}",
                {} if now is None else {region_id: now},
                {} if then is None else {region_id: then},
            )
        )

    def _entries(self) -> list[Entry]:
        if self.saver is not None:
            self.saver.wait()
            return self.saver.journal.entries
        path = self.folder / JOURNAL_NAME
        try:
            return [*read_log(path, OF, SCHEMA_VERSION).entries] if path.is_file() else []
        except JournalError as error:
            raise AnnotationError(str(error)) from error
