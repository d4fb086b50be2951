"""Open a slide: which reader takes a file, and one good sentence where none can.

The TIFF path takes the TIFFs whose layout it knows (Aperio, OME, plain pyramids); OpenSlide takes
what it recognises otherwise; OME-Zarr folders have their own reader.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from napari_histomil.errors import SlideError
from napari_histomil.slides.openslide import OpenSlideReader
from napari_histomil.slides.remembered import recall_mpp
from napari_histomil.slides.resolution import given_mpp
from napari_histomil.slides.slide import Slide, SlideInfo


class _Opened(Slide, Protocol):
    """A slide whose facts are still being settled."""

    info: SlideInfo


READERS: dict[str, Callable[[Path], _Opened]] = {"openslide": OpenSlideReader}


def open_slide(
    path: str | Path,
    *,
    mpp: float | Sequence[float] | None = None,
    reader: str | None = None,
) -> Slide:
    """Open a slide for reading; use it as a context manager.

    Parameters
    ----------
    path
        A slide's file, or a folder for OME-Zarr.
    mpp
        µm that one level-0 pixel spans, one number or (x, y): wins over what the file says and
        over what was remembered for the slide.
    reader
        ``tiff``, ``openslide`` or ``zarr`` to force one; None for the one that fits.

    Returns
    -------
    Slide

    Raises
    ------
    SlideError
        If the file is missing, no slide, damaged or lacks parts; the sentence says which.
    """
    path = Path(path)
    if reader is not None and reader not in READERS:
        raise SlideError(
            f"There is no reader {reader!r} for {path.name}: choose one of {', '.join(READERS)}."
        )
    slide = READERS[reader or "openslide"](path)
    try:
        slide.info = _settle_mpp(slide.info, mpp)
    except SlideError:
        slide.close()
        raise
    return slide


def _settle_mpp(info: SlideInfo, mpp: float | Sequence[float] | None) -> SlideInfo:
    """Decide whose µm/px count: those given now, then those remembered, then the file's."""
    if mpp is not None:
        given = given_mpp(mpp, info.path)
        return replace(info, mpp_x=given[0], mpp_y=given[1], mpp_source="given")
    remembered = recall_mpp(info.path, info.fingerprint)
    if remembered is not None:
        return replace(info, mpp_x=remembered[0], mpp_y=remembered[1], mpp_source="remembered")
    return info
