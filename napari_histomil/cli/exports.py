"""The verb ``export``: a run's scores in the formats of other programs."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from napari_histomil.cli.shared import (
    add_output,
    add_reader,
    add_verb,
    new_file,
    open_slide_with,
    say,
)
from napari_histomil.errors import RunError, SlideError

if TYPE_CHECKING:
    from napari_histomil.cli.shared import Subparsers
    from napari_histomil.results import MilRun, RunStore

FORMATS = {
    "csv": (".csv",),
    "geojson": (".geojson", ".json"),
    "h5": (".h5", ".hdf5"),
    "tiff": (".tif", ".tiff"),
    "png": (".png",),
}
"""Formats of ``export``, with the suffixes by which they are known."""

VALUES = ("rank", "softmax", "raw", "contribution")
"""Of attention, see `exchange.attention.VALUES`."""

EXAMPLES = """\
  histomil export RUN.zarr -o heatmap.png      a picture, with scale bar
  histomil export RUN.zarr -o tiles.csv        WSInfer's table
  histomil export RUN.zarr -o tiles.geojson    tiles for QuPath
  histomil export RUN.zarr -o heatmap.ome.tif --class tumor
                                               the values, one pixel a cell
  histomil export RUN.zarr -o patches.h5       CLAM's patches, with scores
  histomil export MIL.zarr -o slide_likelihood_map.tif
                                               attention: beside slide.svs,
                                               ASAP shows it by itself

RUN.zarr is the path that 'histomil run' printed."""


def add_parser(subparsers: Subparsers) -> None:
    """Add the verb of this file."""
    parser = add_verb(
        subparsers,
        "export",
        export,
        "write a run's heatmap or table for other programs",
        "Write the scores of a run as a table (csv), as tiles for QuPath (geojson), as CLAM's "
        "patches (h5), as an image of the values (tiff) or as a picture over the slide (png).",
        EXAMPLES,
    )
    parser.add_argument("run", metavar="RUN", type=Path, help="stored run, a folder <id>.zarr")
    parser.add_argument(
        "--format", choices=list(FORMATS), help="by the suffix of FILE where it is not given"
    )
    add_output(parser)
    parser.add_argument(
        "--class",
        metavar="NAME",
        dest="class_name",
        help="class shown in tiff (all by default, a page each) and png (the model's positive "
        "class); tables hold all",
    )
    parser.add_argument(
        "--values",
        choices=VALUES,
        help="of a MIL run, in tiff and png: rank within the slide (the default), softmax, raw "
        "(before the softmax) or contribution to the class",
    )
    parser.add_argument(
        "--level",
        metavar="N",
        type=int,
        help="of a MIL run: 0 for the lowest magnification, and so on; the last by default",
    )
    parser.add_argument(
        "--slide",
        metavar="SLIDE",
        type=Path,
        help="for png: where the slide is now, if it has moved since the run",
    )
    add_reader(parser)


def export(args: argparse.Namespace) -> int:
    """Write a run in the format of another program."""
    from napari_histomil.results import RunStore, run_task

    target = new_file(args.output, force=args.force)
    kind = args.format or _format_of(target)
    if run_task(args.run) == "mil":
        return _export_attention(args, target, kind)
    if args.values is not None or args.level is not None:
        raise RunError("--values and --level are for runs of MIL models.")
    if args.class_name is not None and kind not in ("tiff", "png"):
        raise RunError(f"--class is for tiff and png: {kind} holds all classes.")
    store = RunStore.open(args.run)
    if not store.complete:
        done = int(store.done_tiles.sum())
        say(f"The run is not finished: {done} of {len(store.grid)} tiles are written.")
    if kind == "png":
        from napari_histomil.exchange.rasters import write_png

        with open_slide_with(_slide_of(store, args.slide), None, reader=args.reader) as slide:
            write_png(store, target, slide, args.class_name)
    elif kind == "tiff":
        from napari_histomil.exchange.rasters import write_tiff

        write_tiff(store, target, args.class_name)
    elif kind == "h5":
        from napari_histomil.exchange.clam import write_h5

        write_h5(store, target)
    else:
        from napari_histomil.exchange.wsinfer import write_csv, write_geojson

        (write_csv if kind == "csv" else write_geojson)(store, target)
    print(target)
    return 0


def _export_attention(args: argparse.Namespace, target: Path, kind: str) -> int:
    """Write what a MIL model looked at."""
    from napari_histomil.exchange.attention import shown_map
    from napari_histomil.exchange.attention_files import PICTURES, write_attention
    from napari_histomil.results import open_mil_run

    if kind == "csv":
        raise RunError("The attention of a MIL run is written as h5, geojson, tiff or png.")
    if args.values is not None and kind not in PICTURES:
        raise RunError(f"--values is for tiff and png: {kind} holds what there is.")
    run = open_mil_run(args.run)
    shown = shown_map(run, level=args.level, class_name=args.class_name)
    values = args.values or "rank"
    if kind != "png" or (args.slide is None and not run.slide.get("path")):
        write_attention(shown, target, kind, values)
    else:
        with open_slide_with(_slide_of(run, args.slide), None, reader=args.reader) as slide:
            write_attention(shown, target, kind, values, slide)
    print(target)
    return 0


def _format_of(path: Path) -> str:
    for name, suffixes in FORMATS.items():
        if path.suffix.lower() in suffixes:
            return name
    raise RunError(f"The name {path.name} does not tell the format: add --format, or a suffix.")


def _slide_of(store: RunStore | MilRun, given: Path | None) -> Path:
    if given is not None:
        return given
    from napari_histomil.results import find_slide

    path = Path(store.slide["path"])
    found = find_slide(store.path, path, store.slide["fingerprint"])
    if found is None:
        raise SlideError(
            f"The slide of the run is no longer at {path}: say where it is with --slide."
        )
    if found != path:
        say(f"The slide of the run is now {found}.")
    return found
