"""The verb ``annotations compare``: how far two annotations of a slide agree."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from napari_histomil.cli.masks import (
    add_classes,
    add_painting,
    add_slide,
    read_regions,
    table_of,
    tracked,
)
from napari_histomil.cli.shared import add_verb, new_file, open_slide_with, positive, say

if TYPE_CHECKING:
    from collections.abc import Iterator

    from napari_histomil.cli.shared import Subparsers
    from napari_histomil.review.agreement import Agreement, ClassAgreement
    from napari_histomil.review.metrics import Score

EXAMPLES = """\
  histomil annotations compare A.geojson B.geojson --slide S.svs
  histomil annotations compare A.geojson B.geojson --slide S.svs --mpp 2 \\
      -o differences.geojson --map differences.ome.tif --csv agreement.csv
  histomil annotations compare A.geojson B.geojson --slide S.svs \\
      --area 20000,15000,4096,4096

Compared is what both have marked as Region*, without what either ignores.
Kappa is undefined, not 0 or 1, where a reader has one class throughout."""

COLUMNS = (
    "class", "first_mm2", "second_mm2", "dice", "iou", "kappa", "negative_agreement",
    "boundary_mean_um", "boundary_median_um", "boundary_hausdorff95_um", "area_mm2", "mpp",
)  # fmt: skip
"""Of the table; Dice is the positive agreement."""


def add_verbs(subparsers: Subparsers) -> None:
    """Add the verb of this file to the family ``annotations``."""
    parser = add_verb(
        subparsers,
        "compare",
        compare,
        "how far two annotations of a slide agree, and where they differ",
        "Print Dice, IoU, kappa, agreement and the distance of outlines for each class of two "
        "annotations; write where they differ as regions, from large to small.",
        EXAMPLES,
    )
    parser.add_argument("first", metavar="A", type=Path, help="regions of one reader")
    parser.add_argument("second", metavar="B", type=Path, help="regions of the other")
    add_slide(parser)
    parser.add_argument(
        "--mpp", type=positive(float), default=1.0, help="µm/px to compare at, 1 by default"
    )
    parser.add_argument(
        "--area",
        metavar="X,Y,W,H",
        type=_rectangle,
        help="compare this rectangle, in pixels of the full resolution, in which both are "
        "complete, instead of what both have marked as Region*",
    )
    add_classes(parser)
    add_painting(parser)
    parser.add_argument(
        "--min-um2",
        metavar="N",
        type=positive(float),
        default=100.0,
        help="list no differences smaller than this; 100 µm² by default",
    )
    parser.add_argument(
        "-o", "--output", metavar="FILE.geojson", type=Path, help="write the differences there"
    )
    parser.add_argument(
        "--map", metavar="FILE", type=Path, help="write the differences as a mask there, too"
    )
    parser.add_argument(
        "--csv", metavar="FILE.csv", type=Path, help="write the figures there, a line a class"
    )
    parser.add_argument("--force", action="store_true", help="write over files that exist")


def compare(args: argparse.Namespace) -> int:
    """Compare two annotation files."""
    from napari_histomil.annotations.geojson import write_geojson
    from napari_histomil.annotations.mask_facts import MaskFacts
    from napari_histomil.annotations.mask_files import check_mask_format, write_mask
    from napari_histomil.annotations.model import SlideFrame
    from napari_histomil.geometry import Rect
    from napari_histomil.review.agreement import (
        difference_map,
        judge,
        pair_bands,
        prepare_comparison,
    )

    for target in (args.output, args.map, args.csv):
        if target is not None:
            new_file(target, force=args.force)
    with open_slide_with(args.slide, args.slide_mpp, reader=args.reader) as slide:
        info = slide.info
    first, second = (read_regions(path, info) for path in (args.first, args.second))
    comparison = prepare_comparison(
        first,
        second,
        info,
        args.mpp,
        rect=None if args.area is None else Rect(*args.area),
        fully_annotated=args.fully_annotated,
        classes=None if args.classes is None else table_of(args.classes, [*first, *second]),
        priority=args.priority,
        mend=args.mend,
        raters=_names(args.first, args.second),
    )
    grid = comparison.grid
    if args.map is not None:
        bands, table = difference_map(comparison)
        facts = MaskFacts.of(grid, table, info)
        check_mask_format(args.map, facts)
    found = judge(
        comparison,
        tracked(pair_bands(comparison), grid, "comparing"),
        min_um2=args.min_um2,
    )
    for note in found.notes:
        say(note)
    print("\n".join(_lines(found, args.min_um2)))
    if args.output is not None:
        regions = [difference.region for difference in found.differences]
        write_geojson(args.output, regions, frame=SlideFrame.of(info))
    if args.map is not None:
        write_mask(args.map, tracked(bands, grid, args.map.name), facts)
    if args.csv is not None:
        _write_csv(args.csv, found)
    return 0


def _lines(found: Agreement, min_um2: float) -> Iterator[str]:
    """Yield the report."""
    one, two = found.raters
    yield f"{one} (A) and {two} (B), in {_mm2(found.area_mm2)} at {_resolution(found)} µm/px"
    yield (
        f"observed agreement {found.observed}, Cohen's kappa {found.kappa}{_why(found.kappa)} "
        f"over that area"
    )
    yield ""
    titles = (
        "class", "A mm²", "B mm²", "Dice", "IoU", "kappa", "neg. agr.",
        "mean µm", "median", "95 % Hd.",
    )  # fmt: skip
    rows: list[tuple[str, ...]] = [titles, *(_row(kind) for kind in found.classes)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(titles))]
    for row in rows:
        cells = [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        yield "  ".join([row[0].ljust(widths[0]), *cells]).rstrip()
    yield "Dice is the positive agreement; distances are those of the outlines as drawn."
    yield ""
    reasons = {
        f"{name} of {kind.name} is undefined: {score.reason}."
        for kind in found.classes
        for name, score in (("kappa", kind.kappa), ("Dice", kind.dice))
        if score.value is None
    }
    yield from sorted(reasons)
    total = sum(difference.area_mm2 for difference in found.differences)
    yield (
        f"{len(found.differences)} differences of {min_um2:g} µm² or more, {_mm2(total)}; "
        f"{found.slivers} smaller ones, {_mm2(found.slivers_mm2)}, are not listed"
    )
    for difference in found.differences[:10]:
        x, y = difference.region.geometry.representative_point().coords[0]
        yield (
            f"  {_mm2(difference.area_mm2)}  A {difference.first}, B {difference.second}, at "
            f"x = {x:.0f}, y = {y:.0f}"
        )
    if len(found.differences) > 10:
        yield f"  and {len(found.differences) - 10} more"


def _row(kind: ClassAgreement) -> tuple[str, ...]:
    scores = (kind.dice, kind.iou, kind.kappa, kind.negative_agreement)
    areas = (f"{kind.first_mm2:.3f}", f"{kind.second_mm2:.3f}")
    distances = ("" if um is None else f"{um:.1f}" for um in _distances(kind))
    return (kind.name, *areas, *(str(score) for score in scores), *distances)


def _distances(kind: ClassAgreement) -> tuple[float | None, float | None, float | None]:
    line = kind.boundary
    if line is None:
        return None, None, None
    return line.mean_um, line.median_um, line.hausdorff95_um


def _write_csv(path: Path, found: Agreement) -> None:
    from napari_histomil.files import write_rows

    rows = []
    for kind in found.classes:
        scores = (kind.dice, kind.iou, kind.kappa, kind.negative_agreement)
        rows.append(
            [kind.name, kind.first_mm2, kind.second_mm2]
            + [score.value for score in scores]
            + [*_distances(kind), found.area_mm2, _resolution(found)]
        )
    write_rows(path, COLUMNS, rows)


def _names(first: Path, second: Path) -> tuple[str, str]:
    """Return what the two are called: their files' names, if these differ."""
    if first.name != second.name:
        return first.name, second.name
    return str(first), str(second)


def _why(score: Score) -> str:
    return f" ({score.reason})" if score.value is None else ""


def _mm2(value: float) -> str:
    return f"{value:.3g} mm²"


def _resolution(found: Agreement) -> str:
    x, y = found.mpp
    return f"{x:g}" if x == y else f"{x:g} x {y:g}"


def _rectangle(text: str) -> tuple[float, float, float, float]:
    """Read ``x,y,width,height``."""
    try:
        x, y, width, height = (float(part) for part in text.split(","))
    except ValueError:
        x = y = width = height = 0.0
    if not (0 < width < float("inf") and 0 < height < float("inf")) or not abs(x + y) < 1e12:
        raise argparse.ArgumentTypeError(
            f"'{text}' is no rectangle: it needs x,y,width,height, the last two above 0"
        )
    return x, y, width, height
