"""npe2 reader: what napari opens as a slide.

napari calls `get_reader` for every file that fits a pattern of the manifest, so it is quick and
never raises. Extensions that only slides have are ours; a ``.tif`` is ours only if it looks like
a slide from within, because napari and others read it too.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from napari_histomil.errors import SlideError
from napari_histomil.files import remote_url
from napari_histomil.slides.readers import open_slide
from napari_histomil.slides.slide import SlideInfo
from napari_histomil.ui.layers import LayerData, slide_layer

OWN_SUFFIXES = (
    ".svs", ".svslide", ".ndpi", ".mrxs", ".scn", ".bif", ".vms", ".vmu",
)  # fmt: skip
"""Extensions that only slides have."""

TIFF_SUFFIXES = (".tif", ".tiff")
"""Extensions that slides share with all other pictures."""

DICOM_SUFFIX = ".dcm"
FOLDER_SUFFIX = ".zarr"

SLIDE_SUFFIXES = (*OWN_SUFFIXES, *TIFF_SUFFIXES, DICOM_SUFFIX)

Reader = Callable[[str | Sequence[str]], list[LayerData]]


def get_reader(path: str | Sequence[str]) -> Reader | None:
    """Return what reads a path, or None where it is not a slide; never raises.

    Parameters
    ----------
    path
        File, folder or address; a list of several is a stack to napari and never a slide.
    """
    if not isinstance(path, str):
        if len(path) != 1:
            return None
        path = path[0]
    file = Path(path)
    suffix = file.suffix.lower()
    if suffix in OWN_SUFFIXES:
        ours = file.is_file()
    elif suffix in TIFF_SUFFIXES:
        ours = file.is_file() and _opens(file, _looks_like_slide)
    elif suffix == DICOM_SUFFIX:
        ours = file.is_file() and _opens(file)
    elif suffix == FOLDER_SUFFIX and remote_url(path) is not None:
        ours = True  # asking the server may take long, and reading says what is wrong
    else:
        ours = suffix == FOLDER_SUFFIX and file.is_dir() and _opens(file)
    return read_slide if ours else None


def read_slide(path: str | Sequence[str]) -> list[LayerData]:
    """Open a slide for napari; its pixels come later.

    Raises
    ------
    SlideError
        If it cannot be opened; napari shows the sentence.
    """
    opened = slide_layer(open_slide(Path(path if isinstance(path, str) else path[0])))
    _begin_session()
    return [opened]


def _begin_session() -> None:
    """Keep the slide painted, and let it come back as it was left, though no dock is open."""
    if "napari.viewer" not in sys.modules:
        return  # read by a script, without a window
    from napari import current_viewer

    from napari_histomil.ui.preferences import apply_memory_budget
    from napari_histomil.ui.view_keeper import view_keeper

    viewer = current_viewer()
    if viewer is not None:
        apply_memory_budget()
        view_keeper(viewer)  # which begins the session


def _opens(file: Path, accept: Callable[[SlideInfo], bool] = lambda _: True) -> bool:
    try:
        with open_slide(file) as slide:
            return accept(slide.info)
    except SlideError:
        return False


def _looks_like_slide(info: SlideInfo) -> bool:
    """Return whether a TIFF is a slide rather than a photograph or a stack.

    It has a pyramid, or it is an RGB picture that is tiled or knows its µm/px. The Slide dock
    opens the others too, where the person says so.
    """
    finest = info.levels[0]
    tiled = finest.tile_width < info.width_px0 and finest.tile_height < info.height_px0
    rgb = not info.composite
    return len(info.levels) > 1 or (rgb and (tiled or info.mpp_x is not None))
