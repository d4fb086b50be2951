"""What is stored about slides: sidecars listed by size, and cleaned of chosen parts.

A sidecar holds parts that can be made again (overviews, runs), answers of a person (µm/px, the
view), and what a person drew or judged. Only what this program knows by name is ever deleted, only
of folders that are sidecars of ours, and what a person drew only where that is asked for.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Literal

from napari_histomil.errors import RunError
from napari_histomil.files import is_there
from napari_histomil.lock import WriterLock
from napari_histomil.resources import SIDECAR_SUFFIX, all_seen_sidecars, user_data_dir
from napari_histomil.results.layout import ATTRIBUTE

Part = Literal["overviews", "runs", "answers", "drawn", "other"]

PARTS: dict[Part, tuple[str, ...]] = {
    "overviews": ("overview*",),
    "runs": ("runs",),
    "answers": ("slide.json", "view.json", "alignment*.json"),
    "drawn": ("annotations*.geojson*", "*journal*", "review*"),
}
"""Which names in a sidecar are which part; a name that fits none is `other` and is kept."""

MOST_FOLDERS = 100_000
"""So many folders are gone through at most: somebody may have said ``/``."""


@dataclass(frozen=True, slots=True)
class Sidecar:
    """One sidecar as it lies on the disk."""

    path: Path
    slide: Path
    """Where its slide is, or was when the sidecar was written."""
    slide_there: bool
    sizes: dict[Part, int] = field(default_factory=dict)
    """Bytes of each part that is there."""
    runs: int = 0
    last_used: float = 0.0
    """When something in it was written last, in seconds since 1970."""

    @property
    def size(self) -> int:
        """Bytes of everything in it."""
        return sum(self.sizes.values())


@dataclass(frozen=True, slots=True)
class Cleaned:
    """What was (or, on a dry run, would be) deleted of one sidecar."""

    path: Path
    deleted: tuple[Path, ...]
    size: int
    kept: tuple[str, ...]
    """Why something that was asked for stays, a sentence each."""


# --- finding ------------------------------------------------------------------------------------


def known_sidecars() -> list[Sidecar]:
    """Return the sidecars that the index or the person's data folder knows, largest first."""
    seen: dict[Path, Path | None] = {each.folder: each.slide for each in all_seen_sidecars()}
    for folder in (user_data_dir() / "slides").glob(f"*{SIDECAR_SUFFIX}"):
        seen.setdefault(folder, None)
    return _described(seen)


def sidecars_under(*folders: Path) -> list[Sidecar]:
    """Return the sidecars in folders and in the folders in them, largest first.

    A path may be a sidecar itself, or a slide, which stands for the sidecar beside it. Links are
    not followed.
    """
    slides = {each.folder: each.slide for each in all_seen_sidecars()}
    found: dict[Path, Path | None] = {}
    for folder in folders:
        start = folder.absolute()
        beside = start.with_name(f"{start.name}{SIDECAR_SUFFIX}")
        for path in (beside, *_walk(start)) if beside.is_dir() else _walk(start):
            found[path] = slides.get(path)
    return _described(found)


def _walk(start: Path) -> Iterator[Path]:
    if start.suffix == SIDECAR_SUFFIX:
        yield start
        return
    for count, (at, names, _) in enumerate(os.walk(start)):
        if count == MOST_FOLDERS:
            return
        here = Path(at)
        yield from (here / name for name in names if name.endswith(SIDECAR_SUFFIX))
        # Pictures and runs are folders of thousands of chunks, and hold no sidecars.
        names[:] = [
            name
            for name in names
            if not name.endswith((SIDECAR_SUFFIX, ".zarr")) and not name.startswith(".")
        ]


def _described(folders: dict[Path, Path | None]) -> list[Sidecar]:
    found = [
        describe(path, _slide_of(path, seen)) for path, seen in folders.items() if is_sidecar(path)
    ]
    return sorted(found, key=lambda each: (-each.size, each.path))


def _slide_of(path: Path, seen: Path | None) -> Path:
    """Return where the slide of a sidecar is: beside it, where it was seen, or where runs say."""
    beside = path.with_suffix("")
    if beside.exists():
        return beside
    if seen is not None and is_there(seen):
        return seen
    for run in (path / "runs").glob("*.zarr"):
        where = _value(run / "zarr.json", "attributes", ATTRIBUTE, "slide", "path")
        if isinstance(where, str) and is_there(Path(where)):
            return Path(where)
    return seen or beside


def is_sidecar(path: Path) -> bool:
    """Return whether a folder is a sidecar of ours, to judge by its name and what it holds.

    A folder of that name without anything of ours in it is somebody else's.
    """
    if path.suffix != SIDECAR_SUFFIX or path.is_symlink() or not path.is_dir():
        return False
    marks = [path / "slide.json", path / "view.json"]
    if any(_says(mark, "fingerprint") for mark in marks):
        return True
    runs = [*(path / "runs").glob("*.zarr"), *(path / "runs").glob(".*.deleted")]
    if any(_says(run / "zarr.json", "attributes", ATTRIBUTE) for run in runs):
        return True
    return any(part_of(each.name) in ("overviews", "drawn") for each in _children(path))


def describe(path: Path, slide: Path) -> Sidecar:
    """Return what a sidecar holds."""
    sizes: dict[Part, int] = {}
    last_used = 0.0
    for child in _children(path):
        size, when = _size(child)
        part = part_of(child.name)
        sizes[part] = sizes.get(part, 0) + size
        last_used = max(last_used, when)
    runs = sum(1 for _ in (path / "runs").glob("*.zarr"))
    return Sidecar(path, slide, is_there(slide), sizes, runs, last_used)


def part_of(name: str) -> Part:
    """Return which part of a sidecar a file or folder directly in it is."""
    for part, patterns in PARTS.items():
        if any(fnmatch(name, pattern) for pattern in patterns):
            return part
    return "other"


def _children(path: Path) -> list[Path]:
    try:
        return sorted(path.iterdir())
    except OSError:  # gone meanwhile, or not ours to look into
        return []


def _says(file: Path, *keys: str) -> bool:
    """Return whether a JSON file has a value under the keys."""
    return _value(file, *keys) is not None


def _value(file: Path, *keys: str) -> object:
    """Return what a JSON file has under the keys; None where it has nothing."""
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
        for key in keys:
            value = value[key]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    result: object = value
    return result


def _size(path: Path) -> tuple[int, float]:
    """Return the bytes below a path and when the newest was written; links are not followed."""
    size, newest, todo = 0, 0.0, [path]
    while todo:
        each = todo.pop()
        with suppress(OSError):  # gone meanwhile
            facts = each.lstat()
            newest = max(newest, facts.st_mtime)
            if each.is_dir() and not each.is_symlink():
                todo += each.iterdir()
            else:
                size += facts.st_size
    return size, newest


def size_text(size: int) -> str:
    """Return a number of bytes as people read it: 1.5 MB."""
    value = float(size)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000 or unit == "GB":
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    raise AssertionError  # the loop returns at GB


# --- cleaning -----------------------------------------------------------------------------------


def clean(path: Path, parts: Iterable[Part], *, really: bool) -> Cleaned:
    """Delete parts of a sidecar.

    Parameters
    ----------
    path
        The sidecar.
    parts
        Which parts; with ``answers`` and ``drawn`` too, the empty folder goes as well. Names that
        are not ours are kept in any case.
    really
        False for a dry run, which deletes nothing.

    Returns
    -------
    Cleaned

    Raises
    ------
    RunError
        If the folder is no sidecar of ours.
    """
    if not is_sidecar(path):
        raise RunError(
            f"{path} is not cleaned: it is no folder of this program's work on a slide."
        )
    wanted = set(parts)
    deleted: list[Path] = []
    kept: list[str] = []
    total = 0
    for child in _children(path):
        if part_of(child.name) not in wanted or part_of(child.name) == "other":
            continue
        targets = _children(child) if child.name == "runs" and child.is_dir() else [child]
        for target in targets:
            if target.suffix == ".lock":
                continue  # its run's matter
            size, _ = _size(target)
            try:
                _delete(target, really=really)
            except (RunError, OSError) as error:
                kept.append(
                    str(error)
                    if isinstance(error, RunError)
                    else f"{target} cannot be deleted: {error.strerror or error}."
                )
                continue
            deleted.append(target)
            total += size
    if really:
        for folder in (path / "runs", path):
            with suppress(OSError):  # not empty, or not there
                folder.rmdir()
    return Cleaned(path, tuple(deleted), total, tuple(kept))


def _delete(target: Path, *, really: bool) -> None:
    """Delete a file or folder; a run only if nobody is writing it."""
    if target.is_symlink() or not target.is_dir():
        if really:
            target.unlink(missing_ok=True)
        return
    run = _run_of(target)
    lock = WriterLock(run) if run is not None else None
    try:
        if really:
            # Renamed first: whoever looks for runs sees a whole one or none.
            going = target.with_name(f".{target.stem[:40]}.{secrets.token_hex(4)}.deleted")
            target.rename(going)
            shutil.rmtree(going)
    finally:
        if lock is not None:
            lock.release()


def _run_of(path: Path) -> Path | None:
    """Return the run that a folder is, or is the beginning of (``.<id>.zarr.<hex>.partial``)."""
    if path.suffix == ".zarr":
        return path
    name, mark, _ = path.name.removeprefix(".").partition(".zarr.")
    return path.with_name(f"{name}.zarr") if mark else None
