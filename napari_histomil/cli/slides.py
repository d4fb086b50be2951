"""Verbs about one slide: ``info``, ``tissue``, ``view``."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_histomil.cli.shared import (
    add_output,
    add_slide_mpp,
    add_verb,
    new_file,
    open_slide_with,
    say,
    window_problem,
)
from napari_histomil.errors import HistomilError, RunError

if TYPE_CHECKING:
    from napari_histomil.cli.shared import Subparsers
    from napari_histomil.slides.slide import SlideInfo


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
    parser.add_argument("slide", metavar="SLIDE", type=Path, help="file, or OME-Zarr folder")
    add_slide_mpp(parser)
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
    parser.add_argument("slide", metavar="SLIDE", type=Path, help="file, or OME-Zarr folder")
    add_output(parser)
    add_slide_mpp(parser)

    parser = add_verb(
        subparsers,
        "view",
        view,
        "open a slide, and results over it, in napari",
        "Open napari with a slide, the docks Slide, Run and Overlay in place, and stored runs "
        "laid over the slide.",
        "  histomil view slide.svs\n"
        "  histomil view slide.svs out/slide.svs.histomil/runs/0123456789abcdef.zarr",
    )
    parser.add_argument("slide", metavar="SLIDE", type=Path, help="file, or OME-Zarr folder")
    parser.add_argument(
        "runs", metavar="RUN", type=Path, nargs="*", help="stored run (.zarr) to lay over it"
    )
    add_slide_mpp(parser)


def info(args: argparse.Namespace) -> int:
    """Print what is known of a slide."""
    with open_slide_with(args.slide, args.slide_mpp) as slide:
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
        "path": str(facts.path),
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
    with open_slide_with(args.slide, args.slide_mpp) as slide:
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
    from napari_histomil.ui.window import open_window, stay_open

    open_slide_with(args.slide, args.slide_mpp).close()  # told here what the window would tell
    say("Opening the window ...")
    open_window([args.slide], runs=args.runs)
    stay_open()
    return 0
