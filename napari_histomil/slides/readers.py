"""Open a slide: which reader takes a file, and one good sentence where none can.

The TIFF path takes the TIFFs whose layout it knows (Aperio, OME, plain pyramids), a path of its
own takes Hamamatsu's NDPI; OpenSlide takes what it recognises otherwise, DICOM too; what it
refuses of that goes to wsidicom; OME-Zarr, in folders and at addresses, has its own reader.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

from napari_histomil.errors import SlideError
from napari_histomil.files import remote_url
from napari_histomil.slides.claims import TIFF_BEGINNINGS, check_size, check_tiff_claims
from napari_histomil.slides.dicom import is_dicom, other_kind, series_in, series_of
from napari_histomil.slides.icc import Convert, to_srgb
from napari_histomil.slides.ndpi import open_ndpi
from napari_histomil.slides.openslide import OpenSlideReader, detect_format
from napari_histomil.slides.remembered import recall_mpp
from napari_histomil.slides.resolution import given_mpp
from napari_histomil.slides.slide import Slide, SlideInfo
from napari_histomil.slides.tiff import open_tiff
from napari_histomil.slides.tiff_codecs import UnsupportedTiffError
from napari_histomil.slides.wsidicom import INSTALL, open_wsidicom
from napari_histomil.slides.zarr import open_zarr
from napari_histomil.slides.zarr_store import is_zarr


class _Opened(Slide, Protocol):
    """A slide whose facts are still being settled."""

    info: SlideInfo
    icc: bytes

    def convert_colors(self, convert: Convert) -> None:
        """Give pixels through `convert` from now on."""


READERS: dict[str, Callable[[Path], _Opened]] = {
    "tiff": open_tiff,
    "ndpi": open_ndpi,
    "openslide": OpenSlideReader,
    "zarr": open_zarr,
    "wsidicom": open_wsidicom,
}

SLIDE_SUFFIXES = (
    ".svs", ".tif", ".tiff", ".ndpi", ".mrxs", ".scn", ".bif", ".dcm", ".vms", ".vmu", ".svslide",
    ".czi", ".qptiff", ".zarr",
)  # fmt: skip
"""File names that usually are slides: for lists and file dialogs; the content decides."""

LFS_BEGINNING = b"version https://git-lfs.github.com/spec/"

TIFF_VENDORS = (None, "aperio", "generic-tiff")
"""What OpenSlide calls TIFFs that our own path reads."""

TIFF_READERS, DICOM_READERS = ("tiff", "ndpi"), ("openslide", "wsidicom")
"""Which readers may be forced for a file that begins like this."""

HEAD_BYTES = 4096


def open_slide(
    path: str | Path,
    *,
    mpp: float | Sequence[float] | None = None,
    reader: str | None = None,
    icc: bool = False,
) -> Slide:
    """Open a slide for reading; use it as a context manager.

    Parameters
    ----------
    path
        A slide's file; a folder for OME-Zarr and DICOM; for OME-Zarr also an address such as
        ``https://example.org/a.zarr`` or ``s3://bucket/a.zarr`` (see `zarr_store`). Of a DICOM
        slide any file will do: ``info.path`` is its first one.
    mpp
        µm that one level-0 pixel spans, one number or (x, y): wins over what was remembered for
        the slide, and that over what the file says.
    reader
        One of `napari_histomil.slides.READER_NAMES` to force it; None for the one that fits.
    icc
        Whether to convert colours to sRGB by the file's colour profile. Models want them as they
        are stored, because nearly all are trained on such: a run on converted colours is another
        run.

    Returns
    -------
    Slide

    Raises
    ------
    SlideError
        If the file is missing, no slide, damaged or lacks parts; the sentence says which.
    """
    path = _as_path(path)
    if not path.name:  # "." and the like: sentences need a name
        path = path.absolute()
    if reader is not None and reader not in READERS:
        raise SlideError(
            f"There is no reader {reader!r} for {path.name}: choose one of {', '.join(READERS)}."
        )
    try:
        slide = _open(path, reader)
    except OSError as error:
        raise SlideError(f"{path} cannot be read: {error.strerror or error}.") from error
    try:
        check_size(slide.info)
        slide.info = _settle_mpp(slide.info, mpp)
        if icc:
            _to_srgb(slide)
    except SlideError:
        slide.close()
        raise
    return slide


def _as_path(path: str | Path) -> Path:
    """Return a path of this machine, or one that stands for an address."""
    text = path.as_posix() if isinstance(path, Path) else path
    if text.startswith("file:/"):
        return Path("/" + text.removeprefix("file:").lstrip("/"))
    return Path(path) if remote_url(path) else Path(path).expanduser()


def _settle_mpp(info: SlideInfo, mpp: float | Sequence[float] | None) -> SlideInfo:
    """Decide whose µm/px count: those given now, then those remembered, then the file's."""
    if mpp is not None:
        given = given_mpp(mpp, info.path)
        return replace(info, mpp_x=given[0], mpp_y=given[1], mpp_source="given")
    remembered = recall_mpp(info.path, info.fingerprint)
    if remembered is not None:
        return replace(info, mpp_x=remembered[0], mpp_y=remembered[1], mpp_source="remembered")
    return info


def _to_srgb(slide: _Opened) -> None:
    """Let a slide give its pixels in sRGB."""
    name = slide.info.path.name
    if not slide.icc:
        raise SlideError(f"{name} has no colour profile to convert by: open it without ICC.")
    if slide.info.channels[:3] != ("red", "green", "blue"):
        raise SlideError(f"{name} holds no RGB that could be converted: open it without ICC.")
    try:
        convert = to_srgb(slide.icc)
    except SlideError as error:
        raise SlideError(f"{name} cannot be converted to sRGB: {error}") from error
    if convert is not None:
        slide.convert_colors(convert)
    slide.info = replace(slide.info, icc_applied=True)


def _open(path: Path, reader: str | None) -> _Opened:
    url = remote_url(path)
    if url is not None:
        if reader not in (None, "zarr"):
            raise SlideError(f"{url} is an address: only OME-Zarr can be read from there.")
        return open_zarr(path)
    if not path.exists():
        raise SlideError(f"There is no file {path}.")
    if path.is_dir():
        return _open_folder(path, reader)
    if not path.is_file():  # a pipe would be waited for without end
        raise SlideError(f"{path.name} is neither a file nor a folder: open the slide's file.")
    head = _head(path)
    check_tiff_claims(path)
    if reader == "zarr":
        raise SlideError(f"{path.name} is a file, but an OME-Zarr is a folder.")
    if is_dicom(head):
        return _open_dicom(path, series_of(path), reader)
    if reader is not None:
        if reader in TIFF_READERS and not head.startswith(TIFF_BEGINNINGS):
            raise SlideError(f"{path.name} is no TIFF, so the reader {reader!r} cannot read it.")
        return READERS[reader](path)
    vendor = detect_format(path)
    if head.startswith(TIFF_BEGINNINGS) and vendor in TIFF_VENDORS:
        try:
            return open_tiff(path)
        except UnsupportedTiffError:
            if vendor is None:
                raise
    if head.startswith(TIFF_BEGINNINGS) and vendor == "hamamatsu":
        with suppress(UnsupportedTiffError):
            return open_ndpi(path)
    if vendor is None:
        raise SlideError(_why_no_slide(path))
    return OpenSlideReader(path)


def _open_folder(path: Path, reader: str | None) -> _Opened:
    if is_zarr(path) and reader in (None, "zarr"):
        return open_zarr(path)
    if (path / "Slidedat.ini").is_file():
        raise SlideError(
            f"{path.name} holds the pixels of a MIRAX slide: "
            f"open the file {path.name}.mrxs beside it."
        )
    files = series_in(path)
    if files is not None:
        return _open_dicom(path, files, reader)
    raise SlideError(
        f"{path.name} is a folder, but neither an OME-Zarr image (it has no zarr.json or .zattrs "
        f"that describes one) nor one of DICOM files: open the slide's file in it."
    )


def _open_dicom(asked: Path, files: Sequence[Path], reader: str | None) -> _Opened:
    """Open the DICOM slide of these files; `asked` is what the person named."""
    # The same file whichever was named: so the work on the slide lies in one place.
    first = files[0]
    if reader not in (None, *DICOM_READERS):
        raise SlideError(f"{asked.name} is DICOM, which the reader {reader!r} cannot read.")
    if reader is not None:
        return READERS[reader](first)
    kind = other_kind(first)
    if kind is not None:
        raise SlideError(f"{asked.name} is {kind} in DICOM, not the picture of a slide.")
    try:
        return OpenSlideReader(first)
    except SlideError as error:
        if find_spec("wsidicom") is None:
            raise SlideError(
                f"{asked.name} is a DICOM file, but not a slide that OpenSlide can read: it may "
                f"be another kind of image or damaged, or need wsidicom ({INSTALL})."
            ) from error
        return open_wsidicom(first)


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


def _why_no_slide(path: Path) -> str:
    """Return the sentence for a file that no reader knows."""
    suffix = path.suffix.lower()
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
