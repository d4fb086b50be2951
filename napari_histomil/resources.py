"""Where things live on this machine: packaged models and samples, the person's data, sidecars.

A sidecar is the folder of the work on one slide. It lies beside the slide, so that both are moved
together; where only the slide was moved or renamed, a small index in the person's data folder
tells where its sidecars were seen (`note_sidecar`). Nothing else is created or read here.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import platformdirs

from napari_histomil.errors import HistomilError, OutputError
from napari_histomil.files import remote_url, whole_file

PROGRAM = "napari-histomil"

SIDECAR_SUFFIX = ".histomil"

INDEX_VERSION = 1
"""Version of the index's entries that this program writes and reads; others are passed over."""

FORGOTTEN_DAYS = 180
"""An entry of a folder that cannot be reached (a drive that is unplugged) is kept for so long."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SeenSidecar:
    """Where the work on a slide was seen, and where the slide was then."""

    folder: Path
    slide: Path


def user_data_dir() -> Path:
    """Return the folder for the person's own models, downloads and remembered answers.

    ``HISTOMIL_USER_DATA`` overrides the place that the operating system names. The folder need
    not exist yet.
    """
    override = os.environ.get("HISTOMIL_USER_DATA", "")
    if override:
        return Path(override).expanduser()
    return platformdirs.user_data_path(PROGRAM, appauthor=False)


def packaged(name: Literal["models", "sample_data"]) -> Path:
    """Return a folder that travels with the program.

    A wheel holds it inside the package; an editable installation has it at the root of the
    repository, beside the package.

    Raises
    ------
    HistomilError
        If neither is there: the installation is incomplete.
    """
    package = Path(__file__).resolve().parent
    for folder in (package / name, package.parent / name):
        if folder.is_dir():
            return folder
    raise HistomilError(
        f"The folder {name!r} is missing from this installation of {PROGRAM} ({package}): "
        f"install it again."
    )


def sidecar(slide_path: Path, fingerprint: str, *, out: Path | None = None) -> Path:
    """Return the folder of the work on a slide; it is not created.

    Parameters
    ----------
    slide_path
        The slide's file, or folder for OME-Zarr.
    fingerprint
        The slide's content fingerprint, ``SlideInfo.fingerprint``.
    out
        Folder that the person chose for results; None for beside the slide.

    Returns
    -------
    Path
        ``<out>/<slide file name>.histomil``, or the same beside the slide, or, where that
        folder is not writable or a part of this program, or the slide lies at an address,
        ``slides/<fingerprint>.histomil`` in the user's data folder.
    """
    name = f"{slide_path.name}{SIDECAR_SUFFIX}"
    if out is not None:
        return out / name
    if remote_url(slide_path) is not None:
        return fallback_sidecar(fingerprint)
    beside = slide_path.absolute().parent / name
    if _travels_with_program(beside):
        return fallback_sidecar(fingerprint)
    if _writable(beside if beside.is_dir() else beside.parent):
        return beside
    return fallback_sidecar(fingerprint)


def fallback_sidecar(fingerprint: str) -> Path:
    """Return the folder of the work on a slide beside which nothing can be written."""
    return user_data_dir() / "slides" / f"{fingerprint[:32]}{SIDECAR_SUFFIX}"


def sidecars(slide_path: Path, fingerprint: str, *, out: Path | None = None) -> list[Path]:
    """Return every existing folder that may hold work on a slide, the preferred one first.

    A slide may have moved between writable and read-only places: both are looked at. It may have
    been renamed: then its folder is one whose slide is gone, here or where the person chose to
    have results. It may have been moved: then the index knows. What lies in such a folder may as
    well be about another slide, which its fingerprint tells.
    """
    places = [sidecar(slide_path, fingerprint, out=out)]
    if out is not None:
        places += _without_slide(out)
    folder = slide_path.absolute().parent
    places += [
        folder / f"{slide_path.name}{SIDECAR_SUFFIX}",
        fallback_sidecar(fingerprint),
        *_without_slide(folder),
        *(seen.folder for seen in seen_sidecars(fingerprint)),
    ]
    return [place for place in dict.fromkeys(places) if place.is_dir()]


def _without_slide(folder: Path) -> list[Path]:
    """Return the sidecars of a folder in which no slide of their name lies."""
    if not folder.is_dir():
        return []
    there = sorted(folder.glob(f"*{SIDECAR_SUFFIX}"))
    return [place for place in there if not place.with_suffix("").exists()]


# --- the index ----------------------------------------------------------------------------------


def note_sidecar(fingerprint: str, folder: Path, slide: Path) -> None:
    """Remember that the work on a slide lies in `folder`, so that the slide can be moved.

    Each folder has a file of its own, written whole: processes do not stand in each other's way.
    A person's data folder that cannot be written costs the memory and nothing else.

    Parameters
    ----------
    fingerprint
        The slide's content fingerprint.
    folder
        The sidecar.
    slide
        Where the slide is now.
    """
    folder = folder.absolute()
    if remote_url(slide) is None:
        slide = slide.absolute()
    name = hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]
    entry = _index_of(fingerprint) / f"{name}.json"
    known = _read_entry(entry, fingerprint)
    if known == SeenSidecar(folder, slide):
        with suppress(OSError):
            os.utime(entry)  # seen today
        return
    text = json.dumps(
        {
            "schema_version": INDEX_VERSION,
            "fingerprint": fingerprint,
            "sidecar": str(folder),
            "slide": str(slide),
        }
    )
    try:
        entry.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(entry) as part:
            part.write_text(text + "\n", encoding="utf-8")
    except (OSError, UnicodeError, OutputError) as error:
        _log.info("Where the work on %s lies cannot be remembered: %s", slide.name, error)


def seen_sidecars(fingerprint: str) -> list[SeenSidecar]:
    """Return the existing folders in which work on this content was seen, the latest first.

    Entries of folders that are gone are dropped. Where not even their parent is there, a drive
    may be unplugged: they are kept for `FORGOTTEN_DAYS`.
    """
    found: list[tuple[float, SeenSidecar]] = []
    with suppress(OSError):  # no such folder: nothing was ever seen
        for entry in sorted(_index_of(fingerprint).glob("*.json")):
            seen = _read_entry(entry, fingerprint)
            if seen is None:
                continue
            when = entry.stat().st_mtime
            if seen.folder.is_dir():
                found.append((when, seen))
            elif seen.folder.parent.is_dir() or time.time() - when > FORGOTTEN_DAYS * 86400:
                entry.unlink(missing_ok=True)
    return [seen for _, seen in sorted(found, key=lambda pair: -pair[0])]


def all_seen_sidecars() -> list[SeenSidecar]:
    """Return every folder of the index that exists.

    A slide that was moved may have left one behind and begun another: both name it where it is.
    """
    fingerprints = {
        _fingerprint_of(entry) for entry in (user_data_dir() / "index").glob("*/*.json")
    }
    found: list[SeenSidecar] = []
    for fingerprint in sorted(filter(None, fingerprints)):
        seen = seen_sidecars(fingerprint)
        here = next((each.slide for each in seen if each.slide.exists()), None)
        found += [
            each if here is None or each.slide.exists() else SeenSidecar(each.folder, here)
            for each in seen
        ]
    return found


def _index_of(fingerprint: str) -> Path:
    return user_data_dir() / "index" / fingerprint[:32]


def _fingerprint_of(entry: Path) -> str:
    """Return the fingerprint that an entry speaks of; empty where it is damaged."""
    answer = _read_json(entry)
    return str(answer.get("fingerprint") or "")


def _read_entry(entry: Path, fingerprint: str) -> SeenSidecar | None:
    """Return what an entry says; None where it is missing, damaged, or of another version."""
    answer = _read_json(entry)
    folder, slide = answer.get("sidecar"), answer.get("slide")
    if answer.get("schema_version") != INDEX_VERSION or answer.get("fingerprint") != fingerprint:
        return None
    if not isinstance(folder, str) or not isinstance(slide, str):
        return None
    return SeenSidecar(Path(folder), Path(slide))


def _read_json(entry: Path) -> dict[str, object]:
    try:
        answer = json.loads(entry.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return answer if isinstance(answer, dict) else {}


def _travels_with_program(path: Path) -> bool:
    """Return whether a path lies among the packaged samples: nobody's work belongs there."""
    try:
        return path.resolve().is_relative_to(packaged("sample_data").resolve())
    except HistomilError:  # an installation without samples
        return False


def _writable(folder: Path) -> bool:
    """Try it: permission bits say nothing on Windows and too much on network drives."""
    try:
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False
