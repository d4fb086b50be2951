"""Verbs about one slide: ``info``, ``tissue``, ``view``."""

from __future__ import annotations

import argparse
import json
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_histomil.cli.shared import (
    add_icc,
    add_output,
    add_reader,
    add_slide_mpp,
    add_verb,
    new_file,
    open_slide_with,
    say,
    window_problem,
)
from napari_histomil.errors import HistomilError, RunError
from napari_histomil.files import remote_url

MAGNIFICATION_RANGE = (0.01, 1000.0)
"""What ``view --at`` takes: from a slide as a dot to a pixel as a hand."""

if TYPE_CHECKING:
    from napari_histomil.cli.shared import Subparsers
    from napari_histomil.slides.slide import SlideInfo


SLIDE_HELP = "file, folder (OME-Zarr, DICOM) or address of an OME-Zarr"


def add_parser(subparsers: Subparsers) -> None:
    """Add the verbs of this file."""
    parser = add_verb(
        subparsers,
        "info",
        info,
        "what is known of a slide",
        "Show a slide's size, resolution, levels, channels and associated images, without "
        "reading its pixels.",
        "  histomil info slide.svs\n"
        "  histomil info slide.svs --json | jq .mpp_x\n"
        "  histomil info scan.tif --slide-mpp 0.5      say what the file does not know",
    )
    parser.add_argument("slide", metavar="SLIDE", type=Path, help=SLIDE_HELP)
    add_slide_mpp(parser)
    add_reader(parser)
    parser.add_argument("--json", action="store_true", help="one JSON object, all properties")

    parser = add_verb(
        subparsers,
        "tissue",
        tissue,
        "outline the tissue of a slide",
        "Find the tissue on an overview of the slide and write its outlines as QuPath GeoJSON, "
        "one object of class Region* a piece.",
        "  histomil tissue slide.svs -o tissue.geojson\n"
        "  histomil run MODEL slide.svs --region tissue.geojson -o out   after editing",
    )
    parser.add_argument("slide", metavar="SLIDE", type=Path, help=SLIDE_HELP)
    add_output(parser)
    add_slide_mpp(parser)
    add_reader(parser)

    parser = add_verb(
        subparsers,
        "view",
        view,
        "open slides, and results over them, in napari",
        "Open napari with slides, the docks Slide, Run, Overlay and Compare in place, and stored "
        "runs laid over the slides. A slide comes back as it was left: place, heatmaps, "
        "brightness.",
        "  histomil view slide.svs\n"
        "  histomil view slide.svs out/slide.svs.histomil/runs/0123456789abcdef.zarr\n"
        "  histomil view slide.svs --at 12000,8500,20   this pixel in the middle, at 20x\n"
        "  histomil view a.svs b.svs                    both; b is shown first",
    )
    parser.add_argument("slide", metavar="SLIDE", type=Path, help=SLIDE_HELP)
    parser.add_argument(
        "others",
        metavar="RUN",
        type=Path,
        nargs="*",
        help="stored run (.zarr) to lay over its slide, or another slide",
    )
    parser.add_argument(
        "--at",
        metavar="X,Y,MAG",
        type=_place,
        help="look here on the last slide: level-0 pixel x,y in the middle, at this magnification "
        "(20 is 0.5 µm a screen pixel)",
    )
    add_slide_mpp(parser)
    add_reader(parser)
    add_icc(parser, "for the eye; runs are given the colours as stored")


def _place(text: str) -> tuple[float, float, float]:
    """Read ``12000,8500,20`` or ``12000,8500,20x``."""
    parts = text.removesuffix("x").split(",")
    try:
        values = [float(part) for part in parts]
    except ValueError:
        values = []
    if len(values) != 3 or not all(isfinite(value) for value in values):
        raise argparse.ArgumentTypeError(
            f"'{text}' is no place: it needs x,y in pixels of the full resolution and a "
            f"magnification, like 12000,8500,20"
        )
    low, high = MAGNIFICATION_RANGE
    if not low <= values[2] <= high:
        raise argparse.ArgumentTypeError(
            f"'{text}' asks for a magnification of {values[2]:g}: it must be between {low:g} and "
            f"{high:g}"
        )
    return values[0], values[1], values[2]


def info(args: argparse.Namespace) -> int:
    """Print what is known of a slide."""
    with open_slide_with(args.slide, args.slide_mpp, reader=args.reader) as slide:
        facts = slide.info
    if args.json:
        print(json.dumps(info_json(facts), indent=1))
    else:
        print("\n".join(_info_lines(facts)))
    return 0


def info_json(facts: SlideInfo) -> dict[str, Any]:
    """Return a slide's facts as plain JSON values, named as in `SlideInfo`."""
    bounds = facts.bounds_px0
    return {
        "path": remote_url(facts.path) or str(facts.path),
        "reader": facts.reader,
        "vendor": facts.vendor,
        "width_px0": facts.width_px0,
        "height_px0": facts.height_px0,
        "mpp_x": facts.mpp_x,
        "mpp_y": facts.mpp_y,
        "mpp_source": facts.mpp_source,
        "objective_power": facts.objective_power,
        "levels": [
            {
                "width": level.width,
                "height": level.height,
                "downsample": level.downsample,
                "tile_width": level.tile_width,
                "tile_height": level.tile_height,
            }
            for level in facts.levels
        ],
        "channels": list(facts.channels),
        "dtype": facts.dtype,
        "composite": facts.composite,
        "bounds_px0": bounds and [bounds.x_px0, bounds.y_px0, bounds.width_px0, bounds.height_px0],
        "associated_images": list(facts.associated_images),
        "icc_profile": facts.icc_profile,
        "icc_applied": facts.icc_applied,
        "fingerprint": facts.fingerprint,
        "properties": dict(facts.properties),
    }


def _info_lines(facts: SlideInfo) -> list[str]:
    size = f"{facts.width_px0} x {facts.height_px0} px"
    if facts.mpp_x is None or facts.mpp_y is None:
        mpp = "unknown: give it with --slide-mpp"
    else:
        width_mm = facts.width_px0 * facts.mpp_x / 1000
        height_mm = facts.height_px0 * facts.mpp_y / 1000
        size += f", {width_mm:.3g} x {height_mm:.3g} mm"
        both = [f"{facts.mpp_x:.4g}", f"{facts.mpp_y:.4g}"]
        source = {"file": "from the file", "given": "given", "remembered": "remembered"}
        mpp = f"{' x '.join(dict.fromkeys(both))} ({source.get(facts.mpp_source or '', '')})"
    power = facts.objective_power
    rows = [
        ("slide", facts.path.name),
        ("format", f"{facts.vendor} (read by {facts.reader})"),
        ("size", size),
        ("µm/px", mpp),
        ("objective", "unknown" if power is None else f"{power:g}x"),
        ("channels", f"{', '.join(facts.channels)} ({facts.dtype})"),
    ]
    if facts.composite:
        rows.append(("shown as", facts.composite))
    if facts.icc_profile:
        rows.append(("profile", f"{facts.icc_profile} (colours are as stored; see 'view --icc')"))
    if facts.bounds_px0 is not None:
        box = facts.bounds_px0
        size = f"{box.width_px0:g} x {box.height_px0:g} px"
        rows.append(("scanned", f"{size} at ({box.x_px0:g}, {box.y_px0:g})"))
    for number, level in enumerate(facts.levels):
        size = f"{level.width} x {level.height} px, 1/{level.downsample:g}"
        tiles = f"tiles of {level.tile_width} x {level.tile_height}"
        rows.append((f"level {number}", f"{size}, {tiles}"))
    rows.append(("images", ", ".join(facts.associated_images) or "none"))
    rows.append(("fingerprint", facts.fingerprint))
    return [f"{name:<12}{value}" for name, value in rows]


def tissue(args: argparse.Namespace) -> int:
    """Write the outlines of the tissue."""
    from napari_histomil.annotations.geojson import write_geojson
    from napari_histomil.annotations.model import Region, SlideFrame, class_named
    from napari_histomil.tissue import find_tissue

    target = new_file(args.output, force=args.force)
    with open_slide_with(args.slide, args.slide_mpp, reader=args.reader) as slide:
        facts = slide.info
        mask = find_tissue(slide)
    polygons = mask.polygons()
    if not polygons:
        raise RunError(f"No tissue was found on {facts.path.name}: draw a region instead.")
    regions = [
        Region(polygon, classification=class_named("Region*"), name="Tissue")
        for polygon in polygons
    ]
    write_geojson(target, regions, frame=SlideFrame.of(facts))
    share = 100 * sum(polygon.area for polygon in polygons)
    share /= facts.width_px0 * facts.height_px0
    pieces = f"{len(regions)} piece{'s' if len(regions) > 1 else ''} of {mask.kind} tissue"
    area = ""
    if facts.mpp_x is not None and facts.mpp_y is not None:
        area = f"{mask.area_um2((facts.mpp_x, facts.mpp_y)) / 1e6:.3g} mm², "
    print(f"{target}: {pieces}, {area}{share:.1f} % of the slide")
    return 0


def view(args: argparse.Namespace) -> int:
    """Open the window and stay until it is closed."""
    problem = window_problem()
    if problem:
        raise HistomilError(f"{problem} Use 'histomil export' for pictures.")
    slides = [args.slide, *(path for path in args.others if not _may_be_run(path))]
    runs = [path for path in args.others if _may_be_run(path)]
    if args.slide_mpp is not None and len(slides) > 1:
        raise HistomilError(
            f"--slide-mpp is for one slide, and {len(slides)} are to be opened: say it with "
            f"'histomil info' for each."
        )
    for path in slides:  # told here what the window would tell
        with open_slide_with(path, args.slide_mpp, reader=args.reader, icc=args.icc) as slide:
            facts = slide.info
    if args.at is not None:
        _check_place(args.at, facts)
    from napari_histomil.ui.window import open_window, stay_open

    say("Opening the window ...")
    open_window(slides, runs=runs, at=args.at, reader=args.reader, icc=args.icc)
    stay_open()
    return 0


def _may_be_run(path: Path) -> bool:
    """Return whether a path means a run, though an OME-Zarr slide may be called the same."""
    from napari_histomil.results import is_run

    if path.suffix != ".zarr" or remote_url(path):
        return False
    return is_run(path) or path.absolute().parent.name == "runs" or not path.exists()


def _check_place(place: tuple[float, float, float], facts: SlideInfo) -> None:
    """Refuse a place that the slide has not."""
    if facts.mpp_x is None:
        raise HistomilError(
            f"{facts.path.name} does not say how many µm one pixel spans, so there is no "
            f"magnification to look at: give them with --slide-mpp."
        )
    x, y, _ = place
    if not (0 <= x <= facts.width_px0 and 0 <= y <= facts.height_px0):
        raise HistomilError(
            f"The place {x:g},{y:g} is not on {facts.path.name}, which has {facts.width_px0} x "
            f"{facts.height_px0} px."
        )
