"""What is remembered of a slide: the µm/px that a person said, and how it was looked at last.

Both lie in the folder of the work on the slide (see `resources.sidecar`): ``slide.json`` holds an
answer that counts, so a damaged one is an error; ``view.json`` holds a convenience, so a damaged
one is passed over.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from napari_histomil.errors import OutputError, SlideError
from napari_histomil.files import whole_file
from napari_histomil.resources import fallback_sidecar, note_sidecar, sidecar, sidecars
from napari_histomil.slides.resolution import Mpp, given_mpp, plausible_mpp
from napari_histomil.slides.slide import SlideInfo

FILE_NAME = "slide.json"
SCHEMA_VERSION = 1

VIEW_NAME = "view.json"
VIEW_VERSION = 1

_log = logging.getLogger(__name__)


def remember_mpp(info: SlideInfo, mpp: float | tuple[float, float]) -> Path:
    """Store the µm/px of a slide, so that `open_slide` finds them next time.

    Parameters
    ----------
    mpp
        µm that one level-0 pixel spans, one number or (x, y).

    Returns
    -------
    Path
        The file that now holds the answer.

    Raises
    ------
    SlideError
        If the numbers cannot be a resolution.
    OutputError
        If the file cannot be written.
    """
    answer = {
        "schema_version": SCHEMA_VERSION,
        "fingerprint": info.fingerprint,
        "mpp_xy": list(given_mpp(mpp, info.path)),
    }
    target = sidecar(info.path, info.fingerprint) / FILE_NAME
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(target) as part:
            part.write_text(json.dumps(answer, indent=1) + "\n", encoding="utf-8")
    except (OSError, OutputError) as error:
        cause = error.__cause__ or error  # the disk's own word, where whole_file met it
        raise OutputError(
            f"The µm/px of {info.path.name} cannot be kept in {target}: "
            f"{getattr(cause, 'strerror', None) or cause}."
        ) from cause
    note_sidecar(info.fingerprint, target.parent, info.path)
    return target


def recall_mpp(path: Path, fingerprint: str) -> Mpp | None:
    """Return the (x, y) µm/px that a person gave for this content, or None.

    An answer for other content under the same name is not used.

    Raises
    ------
    SlideError
        If the stored answer is damaged or of a newer version of this program.
    """
    for folder in sidecars(path, fingerprint):
        file = folder / FILE_NAME
        if not file.is_file():
            continue
        answer = _load(file, path)
        if answer.get("fingerprint") != fingerprint:
            continue
        values = answer.get("mpp_xy")
        mpp = plausible_mpp(*values) if isinstance(values, list) and len(values) == 2 else None
        if mpp is None:
            raise _damaged(file, path)
        return mpp
    return None


def remember_view(info: SlideInfo, view: Mapping[str, Any]) -> Path | None:
    """Store how a slide is looked at; the file is written whole.

    Where beside the slide nothing can be written (any more), it lies in the person's data folder.

    Parameters
    ----------
    view
        Plain JSON values.

    Returns
    -------
    Path or None
        The file; None where it can be kept nowhere, which is logged.
    """
    answer = {"schema_version": VIEW_VERSION, "fingerprint": info.fingerprint, "view": dict(view)}
    text = json.dumps(answer, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    why: Exception | None = None
    places = (sidecar(info.path, info.fingerprint), fallback_sidecar(info.fingerprint))
    for folder in dict.fromkeys(places):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with whole_file(folder / VIEW_NAME) as part:
                part.write_text(text, encoding="utf-8", errors="backslashreplace")
        except (OSError, OutputError) as error:
            why = error
            continue
        note_sidecar(info.fingerprint, folder, info.path)
        return folder / VIEW_NAME
    _log.warning("The view of %s cannot be kept: %s", info.path.name, why)
    return None


def recall_view(path: Path, fingerprint: str) -> dict[str, Any] | None:
    """Return how this content was looked at last, wherever that was written; None if unknown.

    A file that is damaged or of a newer version is passed over, and logged in one sentence.
    """
    newest: tuple[float, dict[str, Any]] | None = None
    for folder in sidecars(path, fingerprint):
        file = folder / VIEW_NAME
        if not file.is_file():
            continue
        try:
            when = file.stat().st_mtime
            answer = _load(file, path, "view", VIEW_VERSION)
        except (OSError, SlideError) as error:
            _log.warning("%s", error)
            continue
        if answer.get("fingerprint") != fingerprint:
            continue
        view = answer.get("view")
        if not isinstance(view, dict):
            _log.warning("%s", _damaged(file, path, "view"))
        elif newest is None or when > newest[0]:
            newest = when, view
    return None if newest is None else newest[1]


def _load(
    file: Path, path: Path, what: str = "µm/px", known: int = SCHEMA_VERSION
) -> dict[str, object]:
    try:
        answer = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # neither JSON nor UTF-8, or nested for ever
        raise _damaged(file, path, what) from error
    except OSError as error:
        raise SlideError(
            f"{file}, the {what} remembered for {path.name}, cannot be read: {error.strerror}."
        ) from error
    if not isinstance(answer, dict):
        raise _damaged(file, path, what)
    version = answer.get("schema_version")
    if not isinstance(version, int):
        raise _damaged(file, path, what)
    if version > known:
        raise SlideError(
            f"{file}, the {what} remembered for {path.name}, was written by a newer version of "
            f"this program: update it, or delete the file."
        )
    return answer


def _damaged(file: Path, path: Path, what: str = "µm/px") -> SlideError:
    advice = "it is passed over" if what == "view" else "delete it and say them again"
    return SlideError(f"{file}, the {what} remembered for {path.name}, is damaged: {advice}.")
