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
from napari_histomil.slides.openslide import OpenSlideReader, detect_format
from napari_histomil.slides.remembered import recall_mpp
from napari_histomil.slides.resolution import given_mpp
from napari_histomil.slides.slide import Slide, SlideInfo
from napari_histomil.slides.tiff import open_tiff
from napari_histomil.slides.tiff_layout import UnsupportedTiffError
from napari_histomil.slides.zarr import is_zarr, open_zarr


class _Opened(Slide, Protocol):
    """A slide whose facts are still being settled."""

    info: SlideInfo


READERS: dict[str, Callable[[Path], _Opened]] = {
    "tiff": open_tiff,
    "openslide": OpenSlideReader,
    "zarr": open_zarr,
}

SLIDE_SUFFIXES = (
    ".svs", ".tif", ".tiff", ".ndpi", ".mrxs", ".scn", ".bif", ".dcm", ".vms", ".vmu", ".svslide",
    ".czi", ".qptiff", ".zarr",
)  # fmt: skip
"""File names that usually are slides: for lists and file dialogs; the content decides."""

TIFF_BEGINNINGS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
LFS_BEGINNING = b"version https://git-lfs.github.com/spec/"

TIFF_VENDORS = (None, "aperio", "generic-tiff")
"""What OpenSlide calls TIFFs that our own path reads."""

DICOM_MARK, DICOM_MARK_AT = b"DICM", 128
DICOM_CLASSES = {
    b"1.2.840.10008.5.1.4.1.1.66.4": "a segmentation",
    b"1.2.840.10008.5.1.4.1.1.91.1": "a set of annotations",
}
"""DICOM objects that go with slides and are none."""

HEAD_BYTES = 4096


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
        µm that one level-0 pixel spans, one number or (x, y): wins over what was remembered for
        the slide, and that over what the file says.
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
    path = Path(path).expanduser()
    if reader is not None and reader not in READERS:
        raise SlideError(
            f"There is no reader {reader!r} for {path.name}: choose one of {', '.join(READERS)}."
        )
    try:
        slide = _open(path, reader)
    except OSError as error:
        raise SlideError(f"{path} cannot be read: {error.strerror or error}.") from error
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


def _open(path: Path, reader: str | None) -> _Opened:
    if not path.exists():
        raise SlideError(f"There is no file {path}.")
    if path.is_dir():
        return _open_folder(path, reader)
    if not path.is_file():  # a pipe would be waited for without end
        raise SlideError(f"{path.name} is neither a file nor a folder: open the slide's file.")
    head = _head(path)
    if reader is not None:
        if reader == "zarr":
            raise SlideError(f"{path.name} is a file, but an OME-Zarr is a folder.")
        return READERS[reader](path)
    vendor = detect_format(path)
    if head.startswith(TIFF_BEGINNINGS) and vendor in TIFF_VENDORS:
        try:
            return open_tiff(path)
        except UnsupportedTiffError:
            if vendor is None:
                raise
    if vendor is None:
        raise SlideError(_why_no_slide(path, head))
    return OpenSlideReader(path)


def _open_folder(path: Path, reader: str | None) -> _Opened:
    if reader in (None, "zarr") and is_zarr(path):
        return open_zarr(path)
    if (path / "Slidedat.ini").is_file():
        raise SlideError(
            f"{path.name} holds the pixels of a MIRAX slide: "
            f"open the file {path.name}.mrxs beside it."
        )
    if any(path.glob("*.dcm")):
        raise SlideError(
            f"{path.name} is a folder of DICOM files: open any one file of the slide in it."
        )
    raise SlideError(
        f"{path.name} is a folder, but no OME-Zarr image (it has no zarr.json or .zattrs that "
        f"describes one): open the slide's file in it."
    )


def _head(path: Path) -> bytes:
    """Read the first bytes, and refuse what a look at them is enough for."""
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
    if not head:
        raise SlideError(f"{path.name} is empty (0 bytes): copy or download it again.")
    if head.startswith(LFS_BEGINNING):
        raise SlideError(
            f"{path.name} is only a pointer of git-lfs, not the slide: "
            f"fetch the file itself with `git lfs pull`."
        )
    return head


def _why_no_slide(path: Path, head: bytes) -> str:
    """Return the sentence for a file that no reader knows."""
    suffix = path.suffix.lower()
    if head[DICOM_MARK_AT:].startswith(DICOM_MARK):
        for code, what in DICOM_CLASSES.items():
            if code in head:
                return f"{path.name} is {what} in DICOM, not the picture of a slide."
        return (
            f"{path.name} is a DICOM file, but not a slide that OpenSlide can read: it may be "
            f"another kind of image, damaged, or lack the other files of its series."
        )
    if suffix == ".mrxs":
        return (
            f"{path.name} lacks its pixels: the folder {path.stem} with Slidedat.ini must lie "
            f"beside it."
        )
    if suffix in (".vms", ".vmu"):
        return f"{path.name} lacks the picture files that it names: they must lie beside it."
    if not suffix or suffix not in SLIDE_SUFFIXES:
        return f"{path.name} is not a slide: no reader knows this kind of file."
    return (
        f"{path.name} is not a slide, whatever its name says: it does not begin like one, so it "
        f"is damaged or another kind of file."
    )
