"""What a person has said about a slide once: the µm/px that its file does not know.

It is kept in ``slide.json`` in the folder of the work on the slide (see `resources.sidecar`).
"""

from __future__ import annotations

import json
from pathlib import Path

from napari_histomil.errors import OutputError, SlideError
from napari_histomil.files import whole_file
from napari_histomil.resources import sidecar, sidecars
from napari_histomil.slides.resolution import Mpp, given_mpp, plausible_mpp
from napari_histomil.slides.slide import SlideInfo

FILE_NAME = "slide.json"
SCHEMA_VERSION = 1


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


def _load(file: Path, path: Path) -> dict[str, object]:
    try:
        answer = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # neither JSON nor UTF-8, or nested for ever
        raise _damaged(file, path) from error
    except OSError as error:
        raise SlideError(
            f"{file}, the µm/px remembered for {path.name}, cannot be read: {error.strerror}."
        ) from error
    if not isinstance(answer, dict):
        raise _damaged(file, path)
    version = answer.get("schema_version")
    if not isinstance(version, int):
        raise _damaged(file, path)
    if version > SCHEMA_VERSION:
        raise SlideError(
            f"{file}, the µm/px remembered for {path.name}, was written by a newer version of "
            f"this program: update it, or delete the file."
        )
    return answer


def _damaged(file: Path, path: Path) -> SlideError:
    return SlideError(
        f"{file}, the µm/px remembered for {path.name}, is damaged: delete it and say them again."
    )
