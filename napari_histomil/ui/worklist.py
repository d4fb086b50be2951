"""The slides that are annotated one after the other: those of a folder, or those that are open."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from qtpy.QtWidgets import QWidget

from napari_histomil.errors import SlideError
from napari_histomil.ui import jobs
from napari_histomil.ui.layers import LayerData
from napari_histomil.ui.opening import opening
from napari_histomil.ui.reader import SLIDE_SUFFIXES
from napari_histomil.ui.session import Session, SlideSession


def slides_in(folder: Path) -> tuple[Path, ...]:
    """Return the slides of a folder, by name.

    Raises
    ------
    SlideError
        If it cannot be looked at, or holds none.
    """
    try:
        found = sorted(
            path
            for path in folder.iterdir()
            if path.name.lower().endswith(SLIDE_SUFFIXES) and not path.name.startswith(".")
        )
    except OSError as error:
        raise SlideError(f"{folder} cannot be looked at: {error.strerror or error}.") from error
    if not found:
        raise SlideError(f"There is no slide in {folder}.")
    return tuple(found)


@dataclass(frozen=True, slots=True)
class Place:
    """Where one is in the list."""

    number: int
    """From 1; 0 if the shown slide is not in the list."""
    total: int
    following: Path | None
    """The slide that comes next; None after the last one."""


class Worklist:
    """Shows the next slide of a list; a slide that it opened is closed with the next one.

    Attributes
    ----------
    paths
        The list; empty for the slides that are open.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self.paths: tuple[Path, ...] = ()
        self._opened: SlideSession | None = None
        self._busy = False

    @property
    def busy(self) -> bool:
        """Whether a slide is being opened."""
        return self._busy

    def place(self) -> Place:
        """Return where one is."""
        paths = self._list()
        active = self._session.active
        number = 0
        if active is not None:
            here = active.info.path.resolve()
            number = next((n for n, path in enumerate(paths, 1) if path.resolve() == here), 0)
        following = paths[number] if number < len(paths) else None
        return Place(number, len(paths), following)

    def _list(self) -> Sequence[Path]:
        return self.paths or [slide.info.path for slide in self._session.slides]

    def advance(
        self, owner: QWidget, then: Callable[[], None], failed: Callable[[Exception], None]
    ) -> None:
        """Show the next slide; one that is not open yet is opened beside the window.

        Parameters
        ----------
        owner
            The widget that asks.
        then
            Called when the slide is shown.
        failed
            Called with what went wrong instead.
        """
        path = self.place().following
        if path is None or self._busy:
            return
        for slide in self._session.slides:
            if slide.info.path.resolve() == path.resolve():
                self._session.show_only(slide)
                then()
                return

        def done(layer_data: LayerData | None) -> None:
            self._busy = False
            if layer_data is None:
                return
            before = self._opened
            self._opened = self._session.add_slide(layer_data)
            if before is not None and before in self._session.slides:
                self._session.close_slide(before)
            then()

        def broken(error: Exception) -> None:
            self._busy = False
            failed(error)

        self._busy = True
        jobs.start(
            opening(path),
            on_progress=lambda _: None,
            on_done=done,
            on_error=broken,
            title=f"opening {path.name}",
            owner=owner,
        )
