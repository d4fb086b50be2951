"""The verb ``segmentation``: what a model that segments found, in files of other programs."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from napari_histomil.cli.masks import tracked
from napari_histomil.cli.shared import add_output, add_verb, new_file, positive, say
from napari_histomil.errors import RunError

if TYPE_CHECKING:
    from napari_histomil.cli.shared import Subparsers
    from napari_histomil.exchange.labels import Steps
    from napari_histomil.results import SegmentationStore

KINDS = ("probability", "labels", "outlines", "regions")

REGION_SUFFIXES = (".geojson", ".json")

EXAMPLES = """\
  histomil segmentation RUN.zarr -o tumour.geojson --class Tumor \\
      --threshold 0.6 --fill-holes 5000 --smooth 8 --remove-objects 2000
                                        regions for QuPath and the Annotate dock
  histomil segmentation RUN.zarr -o labels.ome.tif
  histomil segmentation RUN.zarr -o labels.zarr --remove-objects 500
  histomil segmentation RUN.zarr -o outlines.ome.tif --as outlines
  histomil segmentation RUN.zarr -o probability.ome.tif --as probability

RUN.zarr is the path that 'histomil run' printed for a model that segments.
Steps are done in the order: threshold, fill holes, smooth, remove objects."""


def add_parser(subparsers: Subparsers) -> None:
    """Add the verb of this file."""
    parser = add_verb(
        subparsers,
        "segmentation",
        segmentation,
        "write a segmentation as probabilities, labels, outlines or regions",
        "Write what a model that segments found: regions with the model as author (geojson), a "
        "label mask or its outlines (OME-TIFF, OME-Zarr, PNG), or the probabilities themselves "
        "(OME-TIFF, OME-Zarr).",
        EXAMPLES,
    )
    parser.add_argument("run", metavar="RUN", type=Path, help="stored run, a folder <id>.zarr")
    add_output(parser)
    parser.add_argument(
        "--as",
        dest="kind",
        choices=KINDS,
        help="by default regions for .geojson and labels for all others",
    )
    parser.add_argument(
        "--class",
        metavar="NAME",
        dest="names",
        action="append",
        default=[],
        help="only this class; may be given several times. All but the model's background by "
        "default",
    )
    parser.add_argument(
        "--threshold",
        metavar="P",
        type=float,
        help="least probability of a class; by default the most likely class counts (softmax), "
        "or every class of 0.5 or more (sigmoid)",
    )
    area = positive(float)
    parser.add_argument(
        "--fill-holes", metavar="UM2", type=area, default=0.0, help="fill holes under so many µm²"
    )
    parser.add_argument(
        "--smooth",
        metavar="UM",
        type=area,
        default=0.0,
        help="close notches and cut off spikes narrower than twice so many µm",
    )
    parser.add_argument(
        "--remove-objects",
        metavar="UM2",
        type=area,
        default=0.0,
        help="leave out objects under so many µm²",
    )


def segmentation(args: argparse.Namespace) -> int:
    """Write a segmentation in the format of another program."""
    from napari_histomil.annotations.mask_files import mask_format, png_sidecar
    from napari_histomil.exchange.labels import Steps
    from napari_histomil.results import SegmentationStore

    target = new_file(args.output, force=args.force)
    is_regions = target.suffix.lower() in REGION_SUFFIXES
    kind = args.kind or ("regions" if is_regions else "labels")
    if (kind == "regions") != is_regions:
        raise RunError(
            f"{target.name} cannot hold {kind}: regions are written as .geojson, all else as "
            f"pictures."
        )
    steps = Steps(args.threshold, args.fill_holes, args.smooth, args.remove_objects)
    if kind == "probability" and (steps.threshold is not None or steps.on_outlines):
        raise RunError("Probabilities are written as they are: leave the steps out.")
    store = SegmentationStore.open(args.run)
    if not store.complete:
        done = int(store.done_tiles.sum())
        say(f"The run is not finished: {done} of {len(store.grid)} tiles are written.")
    if kind == "probability":
        from napari_histomil.exchange.probabilities import write_probabilities

        write_probabilities(store, target, args.names)
    elif kind == "regions":
        _write_regions(store, target, steps, args.names)
    else:
        if mask_format(target) == "png":
            new_file(png_sidecar(target), force=args.force)
        _write_mask(store, target, steps, args.names, outlines=kind == "outlines")
    print(target)
    return 0


def _write_regions(store: SegmentationStore, target: Path, steps: Steps, names: list[str]) -> None:
    from napari_histomil.annotations.geojson import write_geojson
    from napari_histomil.exchange.facts import frame_of
    from napari_histomil.exchange.labels import regions_of

    found = regions_of(store, steps, names)
    write_geojson(target, found, frame=frame_of(store))
    count = [region.class_name or "" for region in found]
    for name in dict.fromkeys(count):
        say(f"  {count.count(name):7}  {name}")


def _write_mask(
    store: SegmentationStore,
    target: Path,
    steps: Steps,
    names: list[str],
    *,
    outlines: bool,
) -> None:
    from napari_histomil.annotations.mask_files import check_mask_format, write_mask
    from napari_histomil.exchange.labels import label_bands, label_facts, outline_bands

    facts = label_facts(store, names)
    check_mask_format(target, facts)
    bands = label_bands(store, steps, names)
    if outlines:
        bands = outline_bands(bands, facts.table)
    write_mask(target, tracked(bands, facts.grid, target.name), facts)
    for value, name in sorted(facts.table.names.items()):
        say(f"  {value:5}  {name}")
