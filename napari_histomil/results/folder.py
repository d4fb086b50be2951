"""What every run on disk has: one Zarr v3 group, its attributes, its one writer.

What a run holds besides is its task's matter: scores of tiles (`store.py`), their features
(`features.py`), or a picture of probabilities (`segmentation.py`). Files are written whole or not
at all (Zarr, from 3.1.3 on, writes to a temporary sibling and renames). There is one writer at a
time (`lock.py`), and any number of readers.
"""

from __future__ import annotations

import shutil
import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar, Self

import zarr

from napari_histomil.errors import OutputError, RunError
from napari_histomil.lock import WriterLock
from napari_histomil.manifest import ClassSpec
from napari_histomil.resources import SIDECAR_SUFFIX, note_sidecar
from napari_histomil.results.layout import (
    ATTRIBUTE,
    SCHEMA_VERSION,
    check_task,
    check_version,
    grid_attributes,
    read_grid,
)
from napari_histomil.tiling import TileGrid


class RunFolder(ABC):
    """One run: what was asked, what made it, and (in the classes below) what came out.

    Made by `create` or `open`; `close` gives the right to write back.
    """

    TASK: ClassVar[str]

    def __init__(self, path: Path, group: zarr.Group, lock: WriterLock | None) -> None:
        self.path = path
        self._group = group
        self._lock = lock
        attributes: Any = group.attrs[ATTRIBUTE]
        self._attributes: dict[str, Any] = dict(attributes)
        self.grid = read_grid(group, self._attributes["grid"])
        self.classes = tuple(
            ClassSpec(c["name"], tuple(c["color"])) for c in self._attributes["classes"]
        )

    @abstractmethod
    def _load(self) -> None:
        """Take in what is on disk; raises `RunError` if it is damaged."""

    @abstractmethod
    def _mend(self) -> None:
        """Take the flag from what does not survive a check, so that it is computed again."""

    @classmethod
    @abstractmethod
    def _fill(
        cls,
        group: zarr.Group,
        grid: TileGrid,
        classes: Sequence[ClassSpec],
        slide: Mapping[str, Any],
        model: Mapping[str, Any],
    ) -> None:
        """Make the arrays of the task in the new group; arguments as of `create`."""

    @classmethod
    def _in_order(cls, grid: TileGrid) -> TileGrid:
        """Return the grid with its tiles in the order in which this task counts them."""
        return grid

    @classmethod
    def create(
        cls,
        path: Path,
        *,
        run_id: str,
        job: Mapping[str, Any],
        slide: Mapping[str, Any],
        model: Mapping[str, Any],
        classes: Sequence[ClassSpec],
        grid: TileGrid,
    ) -> Self:
        """Make an empty run and open it for writing; its folder appears whole or not at all.

        Parameters
        ----------
        path
            Where the run shall be, ``.../<run_id>.zarr``.
        run_id, job
            The job's id and canonical form.
        slide
            ``name, path, fingerprint, width_px0, height_px0, mpp_xy, bounds_px0``.
        model
            ``name, path, sha256, positive_class`` and what else is worth keeping.
        classes
            One for each column of the scores, or channel of the picture; none of features.
        grid
            The tiles; scores have their order.

        Raises
        ------
        RunError
            If there is a run already, or somebody is making one there.
        OutputError
            If the folder cannot be written.
        """
        grid = cls._in_order(grid)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            lock = WriterLock(path)
        except OSError as error:
            raise OutputError(
                f"The run {path} cannot be written: {error.strerror or error}."
            ) from error
        partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}.partial")
        try:
            if path.exists():
                raise RunError(f"{path} exists already: open it to go on with it.")
            for remains in path.parent.glob(f".{path.name}.*.partial"):  # of a killed process
                shutil.rmtree(remains, ignore_errors=True)
            attributes: dict[str, Any] = {
                "schema_version": SCHEMA_VERSION,
                "run_id": run_id,
                "created": datetime.now(UTC).isoformat(timespec="seconds"),
                "job": dict(job),
                "slide": dict(slide),
                "model": dict(model),
                "classes": [{"name": c.name, "color": list(c.color)} for c in classes],
                "grid": grid_attributes(grid),
                "stain": None,
                "sessions": [],
                "warnings": [],
                "skipped": {},
            }
            group = zarr.create_group(partial, zarr_format=3)
            group.create_array("cells", data=grid.cells)
            cls._fill(group, grid, classes, slide, model)
            group.attrs[ATTRIBUTE] = attributes
            partial.rename(path)
            note_run(path, slide)
            return cls(path, zarr.open_group(path, mode="r+"), lock)
        except OSError as error:
            lock.release()
            raise OutputError(
                f"The run {path} cannot be written: {error.strerror or error}."
            ) from error
        except BaseException:
            lock.release()
            raise
        finally:
            shutil.rmtree(partial, ignore_errors=True)

    @classmethod
    def open(cls, path: Path, *, writable: bool = False) -> Self:
        """Open a run.

        With `writable`, what does not survive a check (a disk that lost power) loses its flag, so
        that it is computed again.

        Raises
        ------
        RunError
            If there is no run, it is one of another task, a newer program wrote it, it is
            damaged, or (writable) another process is writing it.
        """
        path = Path(path)
        if not (path / "zarr.json").is_file():
            raise RunError(f"{path} is no run: a run is a folder <id>.zarr with zarr.json in it.")
        lock = WriterLock(path) if writable else None
        try:
            try:
                group = zarr.open_group(path, mode="r+" if writable else "r")
                attributes: Any = group.attrs.get(ATTRIBUTE)
                check_version(path, attributes)
                check_task(path, attributes, cls.TASK)
                store = cls(path, group, lock)
            except (KeyError, TypeError, ValueError, OSError) as error:
                raise RunError(
                    f"The run {path} is damaged: {said(error)}; delete it, and run its job again."
                ) from error
            if writable:
                for remains in path.rglob("*.partial"):  # what a killed writer was writing
                    remains.unlink(missing_ok=True)
                store._mend()
                note_run(path, store.slide)
            store._load()
            return store
        except BaseException:
            if lock is not None:
                lock.release()
            raise

    def close(self) -> None:
        """Give the right to write back; reading goes on working."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ------------------------------------------------------------------------- reading

    @property
    def run_id(self) -> str:
        """The job's id."""
        return str(self._attributes["run_id"])

    @property
    def created(self) -> datetime:
        """When the run was begun, UTC."""
        return datetime.fromisoformat(self._attributes["created"])

    @property
    def job(self) -> Mapping[str, Any]:
        """The job's canonical form."""
        return dict(self._attributes["job"])

    @property
    def slide(self) -> Mapping[str, Any]:
        """The slide: name, path, fingerprint, width_px0, height_px0, mpp_xy, bounds_px0."""
        return dict(self._attributes["slide"])

    @property
    def model(self) -> Mapping[str, Any]:
        """The model: name, path, sha256, positive_class, ..."""
        return dict(self._attributes["model"])

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes, in the order of the scores' columns."""
        return tuple(c.name for c in self.classes)

    @property
    def stain(self) -> Mapping[str, Any] | None:
        """The stain fit of the slide that every session uses, or None."""
        stain = self._attributes["stain"]
        return None if stain is None else dict(stain)

    @property
    def sessions(self) -> list[dict[str, Any]]:
        """Provenance: versions, device, settings, times of every session that worked on it."""
        return [dict(session) for session in self._attributes["sessions"]]

    @property
    def warnings(self) -> list[str]:
        """What a person who looks at the result should know, a sentence each."""
        return list(self._attributes["warnings"])

    @property
    def skipped(self) -> dict[int, str]:
        """Index of every tile that could not be read or predicted -> why."""
        return {int(tile): text for tile, text in self._attributes["skipped"].items()}

    def refresh(self) -> None:
        """Take in what has been written since; the writer itself has nothing to take in.

        Raises
        ------
        RunError
            If what is on disk does not pass its check.
        """
        if self._lock is not None:
            return
        try:
            attributes: Any = zarr.open_group(self.path, mode="r").attrs[ATTRIBUTE]
        except (KeyError, TypeError, ValueError, OSError) as error:
            raise RunError(f"The run {self.path} cannot be read any more: {error}.") from error
        self._attributes = dict(attributes)
        self._load()

    # ------------------------------------------------------------------------- writing

    def add_session(self, session: Mapping[str, Any]) -> None:
        """Begin the record of a session: plain JSON values, nothing that names the machine."""
        self._update(sessions=[*self._attributes["sessions"], dict(session)])

    def update_session(self, **changes: Any) -> None:
        """Complete the record of the newest session."""
        sessions = self.sessions
        sessions[-1].update(changes)
        self._update(sessions=sessions)

    def set_stain(self, fit: Mapping[str, Any]) -> None:
        """Keep the slide's stain fit, so that a resumed run uses the same."""
        self._update(stain=dict(fit))

    def add_warning(self, text: str) -> None:
        """Keep a sentence for whoever looks at the result; the same one is kept once."""
        if text not in self._attributes["warnings"]:
            self._update(warnings=[*self._attributes["warnings"], text])

    def _add_skipped(self, skipped: Mapping[int, str] | None) -> None:
        """Keep why tiles, by their index, have no answer."""
        if skipped:
            added = {str(tile): text for tile, text in skipped.items()}
            self._update(skipped={**self._attributes["skipped"], **added})

    def _update(self, **changes: Any) -> None:
        attributes = {**self._attributes, **changes}
        with self._writing():
            self._group.attrs[ATTRIBUTE] = attributes
        self._attributes = attributes

    @contextmanager
    def _writing(self) -> Iterator[None]:
        gone = f"The run {self.path} was deleted while it was being written: run its job again."
        # Writing would make a part of it anew, which nobody could open.
        if not (self.path / "zarr.json").is_file():
            raise RunError(gone)
        try:
            yield
        except (KeyError, OSError) as error:
            if isinstance(error, KeyError) or not (self.path / "zarr.json").is_file():
                raise RunError(gone) from error
            raise OutputError(
                f"The run {self.path} cannot be written: {error.strerror or error}; make room and "
                f"run it again, it goes on where it stands."
            ) from error

    def _damaged(self, error: Exception) -> RunError:
        """Return the error that says that what is on disk does not pass its check."""
        return RunError(
            f"The run {self.path} is damaged: {said(error)}; run its job again to mend it."
        )

    def _array(self, name: str) -> Any:
        # Any: zarr's own type of an item (group or array) fits neither use
        return self._group[name]


def said(error: Exception) -> str:
    """Return what is wrong with a run's files, as a part of a sentence."""
    return f"it lacks {error}" if isinstance(error, KeyError) else str(error).rstrip(".")


def note_run(path: Path, slide: Mapping[str, Any]) -> None:
    """Let the slide find the run at `path` again when it is moved."""
    folder = path.absolute().parent.parent
    where = slide.get("path")
    if folder.suffix != SIDECAR_SUFFIX or not where:
        return  # a person has put the run elsewhere
    if Path(str(where)).exists():  # else whoever knows where the slide is now has noted it
        note_sidecar(str(slide["fingerprint"]), folder, Path(str(where)))
