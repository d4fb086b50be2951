"""The family ``annotations``: files of drawn regions, converted, described and checked.

Other files of this folder add verbs to it by an ``add_verbs(subparsers)``, see `MORE`.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from contextlib import ExitStack
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_histomil.cli.shared import (
    add_slide_mpp,
    add_verb,
    new_file,
    open_slide_with,
    say,
)

if TYPE_CHECKING:
    from napari_histomil.annotations.files import AnnotationFile
    from napari_histomil.annotations.model import Region
    from napari_histomil.cli.shared import Subparsers
    from napari_histomil.slides.slide import SlideInfo

NAMES = ("geojson", "asap", "imagescope", "halo", "dsa", "wsinfer")
"""Formats that are written, `annotations.formats.FORMATS` (which would load shapely)."""

MORE = ("masks", "training_tiles", "agreement")
"""Modules of this folder that add verbs to the family."""

CONVERT = """\
  histomil annotations convert tumor_076.xml tumor.geojson --map camelyon
                                         CAMELYON for QuPath, cut-outs cut
  histomil annotations convert a.geojson a.xml --to imagescope
  histomil annotations convert a.geojson.gz b.xml --to asap --slide a.mrxs
  histomil annotations convert tiles.csv tiles.geojson --top-class
                                         WSInfer's tiles, coloured by class

Formats: geojson (QuPath), asap, imagescope, halo, dsa, wsinfer. What is read
is told by its content; what is written by --to, else by the suffix.
MAP is a JSON file like {"metastases": "Tumor", "_2": "subtract",
"normal": "ignore"}, or a table with the columns group,class[,color]."""

INFO = """\
  histomil annotations info a.xml        format, regions of each class
  histomil annotations info a.geojson --slide slide.svs
                                         their areas in mm² too
  histomil annotations info a.xml --json | jq .classes"""

VALIDATE = """\
  histomil annotations validate a.geojson --slide slide.svs
  histomil annotations validate *.xml || echo "look at them"

One line for each thing that is wrong: broken outlines, regions outside the
slide, ids given twice, regions without a class, overlaps of classes that are
said to exclude each other. Exit code 1 if there is one, 2 if the file cannot
be read."""


def add_parser(subparsers: Subparsers) -> None:
    """Add the verbs of this family."""
    family = subparsers.add_parser(
        "annotations",
        help="drawn regions: convert between programs, describe, check",
        description="Read and write the annotations of QuPath, ASAP, ImageScope, HALO, "
        "HistomicsUI and WSInfer.",
    )
    verbs = family.add_subparsers(metavar="VERB", required=True)
    _add_convert(verbs)
    _add_info(verbs)
    _add_validate(verbs)
    for name in MORE:
        import_module(f"napari_histomil.cli.{name}").add_verbs(verbs)


def _add_convert(verbs: Subparsers) -> None:
    parser = add_verb(
        verbs,
        "convert",
        convert,
        "from any format into another",
        "Write annotations in the format of another program. What that has no word for is kept "
        "in the file where it leaves room, and named.",
        CONVERT,
    )
    parser.add_argument("source", metavar="IN", type=Path, help="file to read, of any format")
    parser.add_argument("target", metavar="OUT", type=Path, help="file to write")
    parser.add_argument("--to", choices=NAMES, metavar="FORMAT", help=f"one of {', '.join(NAMES)}")
    _add_slide(parser, "slide they were drawn on: its bounds settle where QuPath's origin is")
    _add_map(parser)
    parser.add_argument(
        "--top-class",
        action="store_true",
        help="give tiles with scores the class of their highest",
    )
    parser.add_argument("--force", action="store_true", help="write over a file that exists")


def _add_info(verbs: Subparsers) -> None:
    parser = add_verb(
        verbs,
        "info",
        info,
        "format, classes, counts and areas",
        "Say what a file of annotations holds.",
        INFO,
    )
    parser.add_argument("file", metavar="FILE", type=Path, help="annotations of any format")
    _add_slide(parser, "slide they were drawn on: areas in mm², and whether it is the right one")
    _add_map(parser)
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")


def _add_validate(verbs: Subparsers) -> None:
    parser = add_verb(
        verbs,
        "validate",
        validate,
        "what is wrong with the regions",
        "Check the regions of files, and print one line for each that is wrong.",
        VALIDATE,
    )
    parser.add_argument(
        "files", metavar="FILE", type=Path, nargs="+", help="annotations of any format"
    )
    _add_slide(parser, "slide they were drawn on: regions outside it are told")
    _add_map(parser)
    parser.add_argument(
        "--exclusive",
        metavar="CLASS,CLASS,...",
        type=lambda text: tuple(name.strip() for name in text.split(",") if name.strip()),
        default=(),
        help="classes that must not overlap one another",
    )


def _add_slide(parser: argparse.ArgumentParser, use: str) -> None:
    parser.add_argument("--slide", metavar="SLIDE", type=Path, help=use)
    add_slide_mpp(parser)


def _add_map(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--map",
        metavar="MAP",
        type=Path,
        help="file that says what groups and layers become, or 'camelyon'",
    )


# --- verbs ------------------------------------------------------------------------------------


def convert(args: argparse.Namespace) -> int:
    """Write annotations in another format."""
    from napari_histomil.annotations.formats import check_slide, format_for, write_annotations
    from napari_histomil.annotations.model import SlideFrame
    from napari_histomil.annotations.tiles_as_regions import with_top_class

    file, slide = _read(args, args.source)
    to = format_for(args.target, args.to, source=file.format)
    target = new_file(args.target, force=args.force)
    frame, mpp = file.frame, None
    if slide is not None:
        check_slide(file, slide)
        frame = SlideFrame.of(slide)
        mpp = slide.mpp if slide.mpp_x is not None else None
    regions = with_top_class(file.regions) if args.top_class else file.regions
    notes = write_annotations(target, regions, to=to, frame=frame, extra=file.extra, mpp=mpp)
    for note in (*file.notes, *notes):
        say(note)
    print(target)
    return 0


def info(args: argparse.Namespace) -> int:
    """Say what a file holds."""
    from napari_histomil.annotations.formats import FORMATS

    file, slide = _read(args, args.file)
    mpp_xy = _mpp(args, slide)
    rows = _classes(file.regions, mpp_xy)
    if args.json:
        print(json.dumps(_info_json(file, rows), indent=1))
        return 0
    print(f"file      {args.file}")
    print(f"format    {FORMATS[file.format].title}")
    if file.frame.slide:
        print(f"slide     {file.frame.slide}")
    print(f"regions   {sum(row['regions'] for row in rows)}")
    width = max([5, *(len(row["class"] or "-") for row in rows)])
    if rows:
        unit = "mm²" if mpp_xy else "px²"
        print(f"\n{'class':<{width}}  {'regions':>8}  {unit:>14}")
    for row in rows:
        area = row["area_mm2"] if mpp_xy else row["area_px2"]
        text = f"{area:14.4f}" if mpp_xy else f"{area:14.0f}"
        print(f"{row['class'] or '-':<{width}}  {row['regions']:>8}  {text}")
    broken = sum(row["broken"] for row in rows)
    if broken:
        say(f"{broken} regions are broken and not in the areas: see 'annotations validate'.")
    for note in file.notes:
        say(note)
    return 0


def validate(args: argparse.Namespace) -> int:
    """Print one line for each thing that is wrong."""
    from napari_histomil.annotations.validation import findings

    wrong = 0
    for path in args.files:
        file, slide = _read(args, path)
        for finding in findings(file, slide, exclusive=args.exclusive):
            print(f"{path.name}: {finding}" if len(args.files) > 1 else finding)
            wrong += 1
        for note in file.notes:
            say(note)
    return 1 if wrong else 0


# --- what they share --------------------------------------------------------------------------


def _read(args: argparse.Namespace, path: Path) -> tuple[AnnotationFile, SlideInfo | None]:
    """Return a file's regions, and the facts of the slide if one was given."""
    from napari_histomil.annotations.formats import read_annotations
    from napari_histomil.annotations.mapping import read_mapping
    from napari_histomil.annotations.model import SlideFrame

    mapping = None if args.map is None else read_mapping(args.map)
    with ExitStack() as stack:
        slide = None
        if args.slide is not None:
            slide = stack.enter_context(open_slide_with(args.slide, args.slide_mpp)).info
        frame = None if slide is None else SlideFrame.of(slide)
        return read_annotations(path, frame=frame, mapping=mapping), slide


def _mpp(args: argparse.Namespace, slide: SlideInfo | None) -> tuple[float, float] | None:
    if slide is not None and slide.mpp_x is not None:
        return slide.mpp_xy
    given: tuple[float, float] | None = args.slide_mpp
    return given


def _classes(
    regions: Iterable[Region], mpp_xy: tuple[float, float] | None
) -> list[dict[str, Any]]:
    """Return what there is of each class, in the file's order; areas without broken shapes."""
    from napari_histomil.annotations.model import walk

    rows: dict[str | None, dict[str, Any]] = {}
    for region in walk(regions):
        row = rows.setdefault(
            region.class_name,
            {"class": region.class_name, "regions": 0, "area_px2": 0.0, "broken": 0},
        )
        row["regions"] += 1
        if region.is_areal:
            broken = region.problem() is not None
            row["broken"] += broken
            row["area_px2"] += 0.0 if broken else float(region.geometry.area)
    for row in rows.values():
        if mpp_xy is not None:
            row["area_mm2"] = row["area_px2"] * mpp_xy[0] * mpp_xy[1] / 1e6
    return list(rows.values())


def _info_json(file: AnnotationFile, rows: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "format": file.format,
        "slide": {"name": file.frame.slide, "fingerprint": file.frame.fingerprint},
        "origin_px0": list(file.frame.origin_px0),
        "classes": rows,
        "notes": list(file.notes),
    }
