"""The verbs ``annotations mask`` and ``annotations regions``: regions <-> label masks."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from napari_histomil.cli.shared import (
    add_output,
    add_slide_mpp,
    add_verb,
    new_file,
    open_slide_with,
    positive,
    say,
)
from napari_histomil.slides import READER_NAMES

if TYPE_CHECKING:
    from napari_histomil.annotations.masks import LabelImage, LabelTable, MaskGrid
    from napari_histomil.annotations.model import Region
    from napari_histomil.cli.shared import Subparsers
    from napari_histomil.slides.slide import SlideInfo

MASK_EXAMPLES = """\
  histomil annotations mask A.geojson --slide S.svs --mpp 2 -o mask.ome.tif
  histomil annotations mask A.geojson --slide S.svs --mpp 2 -o mask.zarr
  histomil annotations mask A.geojson --slide S.svs -o mask.tif
                                        ASAP's: of the slide's own size
  histomil annotations mask A.geojson --slide S.svs --mpp 8 -o mask.png \\
      --classes Stroma,Tumor --priority classes
                                        1 is Stroma, 2 Tumor, which covers it
  histomil annotations mask A.geojson --slide S.svs --mpp 2 -o mask.png \\
      --classes Tumor=4,Stroma=2 --unlabelled 99 --fully-annotated

Inside Region* no annotation is background (0); outside it, and in Ignore*,
nothing is known (255). What is drawn counts wherever it is."""

REGIONS_EXAMPLES = """\
  histomil annotations regions mask.ome.tif --slide S.svs -o traced.geojson
  histomil annotations regions other.png --slide S.svs -o traced.geojson \\
      --classes Tumor=1,Stroma=2
                                        a mask of another program

Outlines follow the edges of pixels, so that the mask made of them again is
the same mask."""


def add_verbs(subparsers: Subparsers) -> None:
    """Add the verbs of this file to the family ``annotations``."""
    parser = add_verb(
        subparsers,
        "mask",
        mask,
        "regions as a label mask: OME-TIFF, ASAP's TIFF, OME-Zarr, PNG",
        "Fill the regions of a file into a mask of class numbers, of a whole slide of any size. "
        "A pixel belongs to a region if its centre does. Prints what the numbers mean.",
        MASK_EXAMPLES,
    )
    parser.add_argument("annotations", metavar="FILE", type=Path, help="regions of the slide")
    add_slide(parser)
    parser.add_argument(
        "--mpp",
        type=positive(float),
        help="µm that a pixel of the mask spans; the slide's own pixels by default",
    )
    add_output(parser)
    add_classes(parser)
    parser.add_argument(
        "--background", type=_value, default=0, metavar="V", help="value of it, 0 by default"
    )
    parser.add_argument(
        "--unlabelled",
        type=_value,
        metavar="V",
        help="value of what nothing is known of: 255 by default (65535 beyond 254 classes)",
    )
    add_painting(parser)
    parser = add_verb(
        subparsers,
        "regions",
        regions,
        "a label mask as regions",
        "Trace the classes of a mask, with their holes, as regions for QuPath. What is "
        "background becomes part of a Region*.",
        REGIONS_EXAMPLES,
    )
    parser.add_argument(
        "mask", metavar="MASK", type=Path, help="OME-TIFF, TIFF, PNG or OME-Zarr, 8 or 16 bits"
    )
    add_slide(parser)
    add_output(parser)
    parser.add_argument(
        "--classes", metavar="NAME=V,...", help="what the values of the mask mean, if it is silent"
    )
    parser.add_argument(
        "--background",
        type=_value,
        metavar="V",
        help="value of what was looked at and is none of the classes; by default what the mask "
        "says, or none",
    )
    parser.add_argument(
        "--unlabelled",
        type=_value,
        metavar="V",
        help="value of what nothing is known of; by default what the mask says, or 0",
    )


def add_slide(parser: argparse.ArgumentParser) -> None:
    """Add ``--slide``, ``--slide-mpp`` and ``--reader``."""
    parser.add_argument("--slide", metavar="SLIDE", type=Path, required=True, help="the slide")
    add_slide_mpp(parser)
    parser.add_argument(
        "--reader",
        metavar="READER",
        choices=READER_NAMES,
        help=f"read the slide this way: {', '.join(READER_NAMES)}",
    )


def add_classes(parser: argparse.ArgumentParser) -> None:
    """Add ``--classes``."""
    parser.add_argument(
        "--classes",
        metavar="A,B,...",
        help="classes in the order of their values 1, 2, 3, ..., or A=5,B=3; those not named are "
        "as if not drawn. All that are drawn by default, QuPath's first, then by name",
    )


def add_painting(parser: argparse.ArgumentParser) -> None:
    """Add ``--priority``, ``--fully-annotated`` and ``--mend``."""
    parser.add_argument(
        "--priority",
        choices=("drawn", "classes"),
        default="drawn",
        help="where regions overlap: the one drawn later counts (the default), or the one whose "
        "class is named later in --classes",
    )
    parser.add_argument(
        "--fully-annotated",
        action="store_true",
        help="the whole slide was annotated: all that is not drawn is background",
    )
    parser.add_argument(
        "--mend", action="store_true", help="mend broken shapes on the way instead of stopping"
    )


def mask(args: argparse.Namespace) -> int:
    """Write the mask of an annotation file."""
    from napari_histomil.annotations import raster
    from napari_histomil.annotations.mask_facts import MaskFacts
    from napari_histomil.annotations.mask_files import (
        check_mask_format,
        mask_format,
        png_sidecar,
        write_mask,
    )
    from napari_histomil.annotations.masks import MaskGrid

    target = new_file(args.output, force=args.force)
    if mask_format(target) == "png":
        new_file(png_sidecar(target), force=args.force)
    with open_slide_with(args.slide, args.slide_mpp, reader=args.reader) as slide:
        info = slide.info
    drawn = read_regions(args.annotations, info)
    table = table_of(args.classes, drawn, background=args.background, unlabelled=args.unlabelled)
    facts = MaskFacts.of(MaskGrid.cover(info, args.mpp), table, info)
    check_mask_format(target, facts)
    painting = raster.prepare(
        drawn,
        facts.grid,
        table,
        priority=args.priority,
        fully_annotated=args.fully_annotated,
        mend=args.mend,
    )
    for note in painting.notes:
        say(note)
    write_mask(target, tracked(raster.bands(painting), facts.grid, target.name), facts)
    grid = facts.grid
    say(f"{grid.columns} x {grid.rows} pixels of {_size_text(grid)}:")
    for value, name in sorted(table.names.items()):
        say(f"  {value:5}  {name}")
    print(target)
    return 0


def regions(args: argparse.Namespace) -> int:
    """Write the regions of a mask."""
    from napari_histomil.annotations.geojson import write_geojson
    from napari_histomil.annotations.mask_reading import open_mask
    from napari_histomil.annotations.model import SlideFrame
    from napari_histomil.annotations.tracing import regions_from_mask

    target = new_file(args.output, force=args.force)
    with open_slide_with(args.slide, args.slide_mpp, reader=args.reader) as slide:
        info = slide.info
    with open_mask(args.mask, info) as opened:
        table = _table_of_mask(args, opened.facts.table)
        for note in opened.notes:
            say(note)
        grid = opened.facts.grid
        bands = tracked(opened.bands(), grid, args.mask.name)
        found = regions_from_mask(bands, grid, table)
    write_geojson(target, found, frame=SlideFrame.of(info))
    names = [region.class_name or "" for region in found]
    for name in dict.fromkeys(names):
        say(f"  {names.count(name):7}  {name}")
    print(target)
    return 0


# --- what the verbs of masks share ------------------------------------------------------------


def read_regions(path: Path, info: SlideInfo) -> tuple[Region, ...]:
    """Read the regions of a file of a slide; what was assumed is said on stderr."""
    from napari_histomil.annotations.formats import check_slide, read_annotations
    from napari_histomil.annotations.model import SlideFrame

    file = read_annotations(path, frame=SlideFrame.of(info))
    check_slide(file, info)
    for note in file.notes:
        say(f"{path.name}: {note}")
    return file.regions


def table_of(
    classes: str | None,
    drawn: Iterable[Region],
    *,
    background: int = 0,
    unlabelled: int | None = None,
) -> LabelTable:
    """Return the table that ``--classes`` asks for, by default that of what is drawn."""
    from napari_histomil.annotations.masks import LabelTable, parse_classes

    drawn = tuple(drawn)
    if classes is None:
        return LabelTable.of_regions(drawn, background=background, unlabelled=unlabelled)
    kinds, values = parse_classes(classes, drawn)
    return LabelTable.of(kinds, values, background=background, unlabelled=unlabelled)


def tracked(bands: Iterable[LabelImage], grid: MaskGrid, name: str) -> Iterator[LabelImage]:
    """Yield the bands, with a bar on stderr if that is a terminal."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeRemainingColumn,
    )

    console = Console(stderr=True)
    with Progress(
        TextColumn("{task.description}", markup=False),  # names may hold [brackets]
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    ) as bar:
        task = bar.add_task(name, total=grid.rows)
        for band in bands:
            yield band
            bar.advance(task, len(band))


def _table_of_mask(args: argparse.Namespace, known: LabelTable) -> LabelTable:
    """Return the table of a mask's file, with what the person says instead."""
    from napari_histomil.annotations.masks import LabelTable, parse_classes

    kinds, values = list(known.classes), list(known.values)
    if args.classes is not None:
        kinds, values = parse_classes(args.classes)
    background = known.background if args.background is None else args.background
    unlabelled = known.unlabelled if args.unlabelled is None else args.unlabelled
    if background == unlabelled and args.unlabelled is None:
        unlabelled = 65535  # a mask of another program in which 0 is background
    return LabelTable(tuple(kinds), tuple(values), background, unlabelled)


def _size_text(grid: MaskGrid) -> str:
    if grid.mpp_xy is None:
        return f"{grid.pixel_px0[0]:g} x {grid.pixel_px0[1]:g} level-0 pixels"
    x, y = grid.mpp_xy
    return f"{x:g} µm" if x == y else f"{x:g} x {y:g} µm"


def _value(text: str) -> int:
    """Read a value of a mask."""
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number of 0 to 65535")
    return int(text)
