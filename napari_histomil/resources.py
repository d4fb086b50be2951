"""Where things live on this machine: packaged models and samples, the person's data, sidecars.

Only paths are made here; nothing is created, read or downloaded.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Literal

import platformdirs

from napari_histomil.errors import HistomilError

PROGRAM = "napari-histomil"


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
        folder is not writable, ``slides/<fingerprint>.histomil`` in the user's data folder.
    """
    name = f"{slide_path.name}.histomil"
    if out is not None:
        return out / name
    beside = slide_path.absolute().parent / name
    if _writable(beside if beside.is_dir() else beside.parent):
        return beside
    return user_data_dir() / "slides" / f"{fingerprint[:32]}.histomil"


def sidecars(slide_path: Path, fingerprint: str, *, out: Path | None = None) -> list[Path]:
    """Return every existing folder that may hold work on a slide, the preferred one first.

    A slide may have moved between writable and read-only places: both are looked at. It may have
    been renamed: then its folder is one whose slide is gone, and what lies in such a folder may
    as well be about another slide, which its fingerprint tells.
    """
    folder = slide_path.absolute().parent
    places = [
        sidecar(slide_path, fingerprint, out=out),
        folder / f"{slide_path.name}.histomil",
        user_data_dir() / "slides" / f"{fingerprint[:32]}.histomil",
    ]
    if folder.is_dir():
        there = sorted(folder.glob("*.histomil"))
        places += [place for place in there if not place.with_suffix("").exists()]
    return [place for place in dict.fromkeys(places) if place.is_dir()]


def _writable(folder: Path) -> bool:
    """Try it: permission bits say nothing on Windows and too much on network drives."""
    try:
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False
