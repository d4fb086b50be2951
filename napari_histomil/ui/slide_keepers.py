"""The annotations of the slides that are open in one viewer: opened when first asked for, kept.

A keeper is opened once for a slide and closed with it; where much was drawn, a thread reads it.
What cannot be written when its slide is closed is not let go of: it is tried again every few
seconds, and when the program ends.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Generator

from psygnal import Signal
from qtpy.QtCore import QObject, Qt, QTimer
from qtpy.QtCore import Signal as QtSignal
from qtpy.QtWidgets import QApplication

from napari_histomil.annotations.keeping import AnnotationKeeper, open_annotations
from napari_histomil.annotations.recovery import FILE_NAME, JOURNAL_NAME
from napari_histomil.annotations.saving import Saving
from napari_histomil.errors import AnnotationError, OutputError
from napari_histomil.resources import sidecars
from napari_histomil.ui import jobs
from napari_histomil.ui.session import SlideSession

RETRY_MS = 5000
"""Between two tries to write what could not be written."""


LARGE_BYTES = 2 << 20
"""Reading more than this takes longer than a few frames: a thread does it."""


class _Bell(QObject):
    """Carries word from any thread to the GUI thread."""

    rung = QtSignal(object)


class SlideKeepers:
    """Keepers by slide.

    Attributes
    ----------
    author
        Who draws, for keepers that are opened from now on; None for the user of the system.
    """

    saving_changed = Signal()
    """How far something is on the disk; emitted on the GUI thread."""
    told = Signal(str)
    """A sentence for the person: what was met on opening, or could not be written."""
    failed = Signal(Exception)
    """Annotations could not be opened or closed."""
    opened = Signal(object)
    """The annotations of a `SlideSession` that a thread has read are there, or have failed."""

    def __init__(self) -> None:
        self.author: str | None = None
        self._keepers: dict[SlideSession, AnnotationKeeper] = {}
        self._broken: weakref.WeakSet[SlideSession] = weakref.WeakSet()
        self._opening: set[SlideSession] = set()
        self._stored: weakref.WeakKeyDictionary[SlideSession, int] = weakref.WeakKeyDictionary()
        self._behind: list[AnnotationKeeper] = []
        self._said = ""
        self._bell = _Bell()
        self._bell.rung.connect(self._on_saving, Qt.ConnectionType.QueuedConnection)
        self._timer = QTimer(self._bell)
        self._timer.setInterval(RETRY_MS)
        self._timer.timeout.connect(self._retry)
        application = QApplication.instance()
        if application is not None:
            application.aboutToQuit.connect(self.close_all)

    def of(self, slide: SlideSession) -> AnnotationKeeper | None:
        """Return the keeper of a slide, opened now if need be.

        None if it cannot be opened, or if a thread is reading it (`is_opening`).
        """
        if slide in self._keepers:
            return self._keepers[slide]
        if slide in self._broken or slide in self._opening:
            return None
        if self._stored_bytes(slide) > LARGE_BYTES:
            self._open_beside(slide)
            return None
        try:
            keeper = open_annotations(slide.info, author=self.author)
        except (AnnotationError, OutputError) as error:
            self._broken.add(slide)  # said once, not with every look
            self.failed.emit(error)
            return None
        self._take(slide, keeper)
        return keeper

    def _open_beside(self, slide: SlideSession) -> None:
        """Open the keeper of a slide in a thread."""
        info, author = slide.info, self.author

        def work(_cancel: threading.Event) -> Generator[None, None, AnnotationKeeper]:
            yield from ()
            return open_annotations(info, author=author)

        def done(keeper: AnnotationKeeper | None) -> None:
            if keeper is None:
                return
            if slide not in self._opening:  # it was closed meanwhile
                self._let_go(keeper)
                return
            self._opening.discard(slide)
            self._take(slide, keeper)
            self.opened.emit(slide)

        def failed(error: Exception) -> None:
            if slide in self._opening:
                self._opening.discard(slide)
                self._broken.add(slide)
                self.failed.emit(error)
                self.opened.emit(slide)

        self._opening.add(slide)
        title = f"reading the annotations of {slide.name}"
        jobs.start(work, on_progress=lambda _: None, on_done=done, on_error=failed, title=title)

    def _take(self, slide: SlideSession, keeper: AnnotationKeeper) -> None:
        self._keepers[slide] = keeper
        if keeper.saver is not None:
            keeper.saver.changed.connect(self._ring)
        for sentence in (*keeper.notes, keeper.why_read_only):
            if sentence:
                self.told.emit(sentence)

    def is_opening(self, slide: SlideSession | None) -> bool:
        """Whether a thread is reading what was drawn on a slide."""
        return slide in self._opening

    def drawn_on(self, slide: SlideSession) -> bool:
        """Whether something of an earlier day lies beside it; looked up once."""
        return self._stored_bytes(slide) >= 0

    def _stored_bytes(self, slide: SlideSession) -> int:
        """Return how much lies beside a slide, -1 for nothing; looked up once."""
        if slide not in self._stored:
            info = slide.info
            sizes = [
                (folder / name).stat().st_size
                for folder in sidecars(info.path, info.fingerprint)
                for name in (FILE_NAME, JOURNAL_NAME)
                if (folder / name).is_file()
            ]
            self._stored[slide] = sum(sizes) if sizes else -1
        return self._stored[slide]

    def found(self, slide: SlideSession | None) -> AnnotationKeeper | None:
        """Return the keeper of a slide if it has been opened."""
        return None if slide is None else self._keepers.get(slide)

    def close(self, slide: SlideSession) -> None:
        """Write what is behind and let go; what cannot be written is tried again later."""
        self._broken.discard(slide)
        self._opening.discard(slide)
        self._stored.pop(slide, None)
        keeper = self._keepers.pop(slide, None)
        if keeper is not None:
            self._let_go(keeper)

    def close_all(self) -> None:
        """Close every keeper: the program ends."""
        for slide in [*self._keepers, *self._opening]:
            self.close(slide)
        self._retry()

    def _let_go(self, keeper: AnnotationKeeper) -> None:
        if keeper.saver is not None:
            keeper.saver.changed.disconnect(self._ring)
        try:
            keeper.close()
        except OutputError as error:
            if keeper.saver is not None:  # steps of it are nowhere but here
                self._behind.append(keeper)
                self._timer.start()
            self.failed.emit(error)

    def _retry(self) -> None:
        """Write what could not be written, of open slides and of closed ones."""
        for keeper in list(self._behind):
            try:
                keeper.close()
            except OutputError:
                if keeper.saver is not None:
                    continue  # said when it failed first; the next try comes
            self._behind.remove(keeper)
        for keeper in self._keepers.values():
            if keeper.saver is not None and keeper.saver.waiting:
                keeper.saver.retry()
        if not self._behind and not self._waiting():
            self._timer.stop()

    def _waiting(self) -> bool:
        return any(
            keeper.saving is not None and keeper.saving.kind == "failed"
            for keeper in self._keepers.values()
        )

    def _ring(self, state: Saving) -> None:
        self._bell.rung.emit(state)

    def _on_saving(self, state: Saving) -> None:
        if state.kind == "failed":
            self._timer.start()
            if state.sentence != self._said:
                self.told.emit(state.sentence)
        if state.kind != "saving":
            self._said = state.sentence
        self.saving_changed.emit()
