"""Annotation files of every format, by one entrance: told by content when read.

Each format has a file of its own beside this one, which knows what its words mean; this one opens
and writes files, and says whose fault it was.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element

from napari_histomil.annotations import asap, dsa, geojson, imagescope, tiles_as_regions
from napari_histomil.annotations.asap_write import asap_lines
from napari_histomil.annotations.files import (
    AnnotationFile,
    parsed_json,
    read_bytes,
    refusal,
    without_collection,
)
from napari_histomil.annotations.imagescope_write import imagescope_lines
from napari_histomil.annotations.mapping import ClassMapping, mapped
from napari_histomil.annotations.model import Region, SlideFrame
from napari_histomil.annotations.qupath_lines import dumped
from napari_histomil.annotations.xml_files import parse_xml
from napari_histomil.errors import AnnotationError, brief, listed
from napari_histomil.files import whole_file
from napari_histomil.slides.slide import SlideInfo


@dataclass(frozen=True, slots=True)
class Format:
    """A format that annotations are read from and written in."""

    name: str
    title: str
    suffixes: tuple[str, ...]
    """By which it is known where nobody names it."""


FORMATS: Mapping[str, Format] = {
    each.name: each
    for each in (
        Format("geojson", "QuPath GeoJSON", (".geojson", ".json", ".gz", ".zip")),
        Format("asap", "ASAP XML", ()),
        Format("imagescope", "Aperio ImageScope XML", ()),
        Format("halo", "HALO annotations", (".annotations",)),
        Format("dsa", "DSA / HistomicsUI JSON", ()),
        Format("wsinfer", "WSInfer table of tiles", (".csv",)),
    )
}
"""By name, in the order in which they are listed."""

SHARED = {".xml": ("asap", "imagescope"), ".json": ("geojson", "dsa")}
"""Suffixes that several formats have."""


# --- reading ----------------------------------------------------------------------------------


def read_annotations(
    path: Path, *, frame: SlideFrame | None = None, mapping: ClassMapping | None = None
) -> AnnotationFile:
    """Read a file of any format, told by its content and never by its name.

    Parameters
    ----------
    path
        A file, also gzipped or zipped.
    frame
        QuPath's frame of the slide that the regions belong to, `SlideFrame.of`; only QuPath's
        files count from its origin.
    mapping
        What groups and layers become, see `mapping`.

    Raises
    ------
    AnnotationError
        If the file cannot be read, is of no known format or is damaged; one sentence says where.
    """
    data = read_bytes(path)
    with without_collection():
        try:
            return mapped(_read(data, path.name, frame), mapping)
        except (AnnotationError, RecursionError) as error:
            raise refusal(path.name, error) from None


def _read(data: bytes, name: str, frame: SlideFrame | None) -> AnnotationFile:
    start = data[:64].removeprefix(b"\xef\xbb\xbf").lstrip()
    if start[:1] == b"<" or start[:4] in (b"\xff\xfe<\x00", b"\xfe\xff\x00<"):
        return _read_xml(parse_xml(data, asap.ROOT), frame)
    if tiles_as_regions.is_table(data):
        return tiles_as_regions.read_table(data, frame=frame)
    document = parsed_json(data, name)
    if dsa.is_dsa(document):
        return dsa.read_dsa(document, frame=frame)
    return geojson.read_document(document, frame=frame)


def _read_xml(root: Element, frame: SlideFrame | None) -> AnnotationFile:
    if root.tag == asap.ROOT:
        return asap.read_asap(root, frame=frame)
    if root.tag != imagescope.ROOT:
        raise AnnotationError(
            f"it is XML of another kind ({root.tag[:40]}), neither ASAP's nor ImageScope's"
        )
    ours = root.find("Annotation/Regions") is not None or root.find("Annotation") is None
    if ours or root.get(imagescope.MICRONS) is not None:
        return imagescope.read_imagescope(root, frame=frame)
    if root.find("Annotation/Coordinates") is not None:
        return asap.read_asap(root, frame=frame)
    return imagescope.read_imagescope(root, frame=frame)


def check_slide(file: AnnotationFile, info: SlideInfo) -> None:
    """Refuse annotations that were drawn on another slide.

    Raises
    ------
    AnnotationError
        If the file names another slide's fingerprint, or all that it holds lies outside.
    """
    found = file.frame
    if found.fingerprint and info.fingerprint and found.fingerprint != info.fingerprint:
        raise AnnotationError(
            f"The annotations were drawn on another slide ({found.slide}), not on "
            f"{info.path.name}: nothing was changed."
        )
    bounds = [each.geometry.bounds for each in file.regions if not each.geometry.is_empty]
    if bounds and all(
        x1 < 0 or y1 < 0 or x0 > info.width_px0 or y0 > info.height_px0
        for x0, y0, x1, y1 in bounds
    ):
        raise AnnotationError(
            f"All annotations lie outside {info.path.name} ({info.width_px0} x "
            f"{info.height_px0} px): they belong to another slide or another magnification."
        )


# --- writing ----------------------------------------------------------------------------------


def format_for(path: Path, to: str | None = None, *, source: str | None = None) -> str:
    """Return the name of the format that a file is written in.

    Parameters
    ----------
    path
        Whose suffix decides where nobody names a format.
    to
        Name of a format, one of `FORMATS`.
    source
        Format of the file that the regions come from: it settles suffixes that several share.

    Raises
    ------
    AnnotationError
        If there is no such format, or the suffix does not settle it.
    """
    if to is not None:
        if to not in FORMATS:
            raise AnnotationError(f"There is no format {to}: choose one of {', '.join(FORMATS)}.")
        return to
    suffix = path.suffix.lower()
    if source in SHARED.get(suffix, ()):
        return str(source)
    for name, each in FORMATS.items():
        if suffix in each.suffixes:
            return name
    shared = SHARED.get(suffix)
    words = " or ".join(shared) if shared else ", ".join(FORMATS)
    raise AnnotationError(f"The name {path.name} does not tell the format: say which ({words}).")


def write_annotations(
    path: Path,
    regions: Iterable[Region],
    *,
    to: str | None = None,
    frame: SlideFrame | None = None,
    extra: Mapping[str, Any] | None = None,
    mpp: float | None = None,
) -> tuple[str, ...]:
    """Write regions to a file, all or nothing.

    Parameters
    ----------
    path
        Where to; gzipped or zipped by its suffix where it is GeoJSON.
    regions
        In level-0 pixels of the whole slide.
    to
        Name of the format; by the suffix of `path` where it is not given.
    frame
        QuPath's frame of the slide, `SlideFrame.of`; other formats count from its corner and
        only name the slide.
    extra
        `AnnotationFile.extra` of the file that the regions come from.
    mpp
        Micrometres that a level-0 pixel spans, for formats that state lengths and areas.

    Returns
    -------
    tuple of str
        What the format cannot show, a sentence each: kept in the file for this program where
        that is possible, else left out.

    Raises
    ------
    AnnotationError
        If the format is unknown, or cannot hold these regions at all.
    OutputError
        If the file cannot be written there.
    """
    name = format_for(path, to)
    frame, extra = frame or SlideFrame(), extra or {}
    if name == "geojson":
        geojson.write_geojson(path, regions, frame=frame, extra=extra)
        return ()
    make: Mapping[str, Callable[[], tuple[Iterator[str], list[str]]]] = {
        "asap": lambda: asap_lines(regions, frame, extra),
        "imagescope": lambda: imagescope_lines(regions, frame, extra, mpp=mpp),
        "halo": lambda: imagescope_lines(regions, frame, extra, mpp=mpp, halo=True),
        "dsa": lambda: _dsa_lines(regions, frame, extra),
        "wsinfer": lambda: tiles_as_regions.table_lines(regions),
    }
    lines, notes = make[name]()
    if name == "wsinfer" and extra:
        names = [f"'{brief(each)}'" for each in extra]
        notes.append(
            f"WSInfer's table has no room for what belongs to the file as a whole: "
            f"{listed(names)} is not in it."
        )
    with whole_file(path) as part, part.open("w", encoding="utf-8", newline="") as file:
        file.writelines(lines)
    return tuple(notes)


def _dsa_lines(
    regions: Iterable[Region], frame: SlideFrame, extra: Mapping[str, Any]
) -> tuple[Iterator[str], list[str]]:
    document, notes = dsa.dsa_document(regions, frame, extra)
    return iter((dumped(document).decode(), "\n")), notes
