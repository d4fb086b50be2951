"""npe2 reader: what napari opens as a slide.

napari calls `get_reader` for every file that fits a pattern of the manifest, so it is quick and
never raises. Extensions that only slides have are ours; a plain ``.tif`` is ours only if it
opens as a slide, because napari and others read it too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from napari_histomil.errors import SlideError
from napari_histomil.slides.readers import open_slide
from napari_histomil.ui.layers import LayerData, slide_layer

OWN_SUFFIXES = (
    ".svs", ".svslide", ".ndpi", ".mrxs", ".scn", ".bif", ".vms", ".vmu",
)  # fmt: skip
"""Extensions that only slides have."""

SHARED_SUFFIXES = (".tif", ".tiff", ".dcm")
"""Extensions that slides share with other pictures."""

FOLDER_SUFFIX = ".zarr"

SLIDE_SUFFIXES = (*OWN_SUFFIXES, *SHARED_SUFFIXES)

Reader = Callable[[str | Sequence[str]], list[LayerData]]


def get_reader(path: str | Sequence[str]) -> Reader | None:
    """Return what reads a path, or None where it is not a slide; never raises.

    Parameters
    ----------
    path
        File or folder; a list of several is a stack to napari and never a slide.
    """
    if not isinstance(path, str):
        if len(path) != 1:
            return None
        path = path[0]
    file = Path(path)
    suffix = file.suffix.lower()
    ours = (
        (suffix in OWN_SUFFIXES and file.is_file())
        or (suffix in SHARED_SUFFIXES and file.is_file() and _opens(file))
        or (suffix == FOLDER_SUFFIX and file.is_dir() and _opens(file))
    )
    return read_slide if ours else None


def read_slide(path: str | Sequence[str]) -> list[LayerData]:
    """Open a slide for napari.

    Raises
    ------
    SlideError
        If it cannot be opened; napari shows the sentence.
    """
    return [slide_layer(open_slide(Path(path if isinstance(path, str) else path[0])))]


def _opens(file: Path) -> bool:
    try:
        open_slide(file).close()
    except SlideError:
        return False
    return True
