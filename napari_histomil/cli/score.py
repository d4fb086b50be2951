"""The verb ``score``: how right stored runs are, by annotations, masks, labels or another run."""

from __future__ import annotations

import argparse
import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from napari_histomil.cli.shared import add_verb, new_file, positive, say
from napari_histomil.errors import RunError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from napari_histomil.cli.shared import Subparsers
    from napari_histomil.review.class_scores import ClassScores
    from napari_histomil.review.judging import Judgement, Question
    from napari_histomil.review.truth_files import Case

EXAMPLES = """\
  histomil score RUN.zarr --annotations slide.geojson
  histomil score RUN.zarr --annotations slide.xml --fully-annotated --positive Tumor
  histomil score RUN.zarr --mask mask.tif --mask-class 255=Tumor --froc
  histomil score RUN.zarr --drawn           by what was drawn in this program
  histomil score RUN.zarr --truth-run OTHER.zarr
  histomil score cohort.csv --json scores.json --csv slides.csv
                                            many slides: run, annotations (or mask,
                                            truth_run), label, patient, other

Tiles, pixels and lesions count only inside Region* and without Ignore*; a
slide without Region* is refused unless you declare it fully annotated.
Intervals are 95 %, by a bootstrap over patients."""


def add_parser(subparsers: Subparsers) -> None:
    """Add the verb of this file."""
    parser = add_verb(
        subparsers,
        "score",
        score,
        "score stored runs against what is true",
        "Print how right stored runs are: of tiles with and without mixed ones, of pixels, of "
        "lesions and of slides, with 95 % intervals over patients, areas that count each µm² "
        "once, operating points, and the FROC curve as CAMELYON16 has it.",
        EXAMPLES,
    )
    add_question(parser)
    parser.add_argument(
        "--froc", action="store_true", help="print the FROC curve's sensitivities, too"
    )
    parser.add_argument("--json", metavar="OUT.json", type=Path, help="write all figures there")
    parser.add_argument("--csv", metavar="OUT.csv", type=Path, help="write a line a slide there")
    parser.add_argument("--force", action="store_true", help="write over files that exist")


def add_question(parser: argparse.ArgumentParser) -> None:
    """Add what says which runs are judged, by what, and how."""
    parser.add_argument(
        "runs",
        metavar="RUN",
        type=Path,
        nargs="+",
        help="stored run, a folder <id>.zarr, or a table of them (CSV)",
    )
    truth = parser.add_mutually_exclusive_group()
    truth.add_argument("--annotations", metavar="FILE", help="regions of the run's slide")
    truth.add_argument(
        "--drawn", action="store_true", help="by what was drawn in this program on each slide"
    )
    truth.add_argument("--mask", metavar="FILE", help="a label mask of the run's slide")
    truth.add_argument("--truth-run", metavar="RUN", help="another run of the slide")
    parser.add_argument(
        "--other", metavar="RUN", type=Path, help="a second model's run of the slide, compared"
    )
    parser.add_argument(
        "--fully-annotated",
        action="store_true",
        help="declare that the slides were annotated as a whole: what is not drawn is negative",
    )
    parser.add_argument(
        "--mask-class",
        metavar="VALUE=NAME",
        type=_value_of,
        action="append",
        default=[],
        help="what a value of a mask means, where the mask does not say it",
    )
    parser.add_argument(
        "--positive",
        metavar="CLASS",
        default="",
        help="class of the truth; the model's by default",
    )
    parser.add_argument(
        "--class",
        dest="answer",
        metavar="CLASS",
        default="",
        help="class of the model; its positive class by default",
    )
    parser.add_argument(
        "--threshold", metavar="P", type=_share, default=0.5, help="positive from; 0.5 by default"
    )
    parser.add_argument(
        "--tile-share",
        metavar="P",
        type=_share,
        default=0.5,
        help="share of a tile from which it is positive in truth; 0.5 by default",
    )
    parser.add_argument(
        "--rule",
        default="top10%",
        help="how tiles become a slide's answer: mean, max, majority, top5, top10%% (default)",
    )
    parser.add_argument(
        "--ordered",
        action="store_true",
        help="declare the model's classes ordered, as grades are: kappa is weighted, too",
    )
    parser.add_argument(
        "--radius",
        metavar="UM",
        type=positive(float),
        default=75.0,
        help="FROC counts maxima that lie so far apart, 75 µm by default",
    )
    parser.add_argument(
        "--bootstraps", metavar="N", type=positive(int), default=2000, help="2000 by default"
    )


def score(args: argparse.Namespace) -> int:
    """Score stored runs."""
    from napari_histomil.files import whole_file
    from napari_histomil.review.judging import judge_runs

    for target in (args.json, args.csv):
        if target is not None:
            new_file(target, force=args.force)
    cases = cases_of(args)
    found = judge_runs(cases, question_of(args), watch=watched)
    for note in found.notes:
        say(note)
    print("\n".join(lines_of(found, froc=args.froc)))
    if args.json is not None:
        with whole_file(args.json) as part:
            text = json.dumps(found.document(patients=True), indent=2, ensure_ascii=False)
            part.write_text(text + "\n", encoding="utf-8")
    if args.csv is not None:
        write_rows(args.csv, found.rows(patients=True))
    return 0


def question_of(args: argparse.Namespace) -> Question:
    """Return what is asked."""
    from napari_histomil.review.judging import Question
    from napari_histomil.review.slide_answers import read_rule

    return Question(
        positive=args.positive,
        answer=args.answer,
        threshold=args.threshold,
        from_share=args.tile_share,
        rule=read_rule(args.rule),
        ordered=args.ordered,
        fully_annotated=args.fully_annotated,
        values=dict(args.mask_class) or None,
        radius_um=args.radius,
        rounds=int(args.bootstraps),
    )


def cases_of(args: argparse.Namespace) -> list[Case]:
    """Return the runs with their truths: of a table, or as the options say."""
    from napari_histomil.review.truth_files import DRAWN_HERE, Case, read_cases

    table = [path for path in args.runs if path.suffix.lower() == ".csv"]
    named = any((args.annotations, args.mask, args.truth_run, args.other))
    if table and (len(args.runs) > 1 or named):
        raise RunError(
            f"{table[0]} is a table, which names runs and their truths itself: give it alone."
        )
    cases = read_cases(table[0]) if table else [Case(path) for path in args.runs]
    if len(args.runs) > 1 and named:
        raise RunError("One file cannot be the truth of several runs: name them in a table (CSV).")
    if args.drawn:
        return [replace(case, annotations=DRAWN_HERE) for case in cases]
    if table:
        return cases
    return [
        replace(
            case,
            annotations=args.annotations or "",
            mask=args.mask or "",
            truth_run=args.truth_run or "",
            other=args.other,
        )
        for case in cases
    ]


def lines_of(found: Judgement, *, froc: bool = False) -> Iterator[str]:
    """Yield the report as text."""
    from napari_histomil.review import object_scores
    from napari_histomil.review.scoring import TITLES

    levels = found.levels
    yield (
        f"{found.model['name']}: {found.positive} from {found.question.threshold:g} on, "
        f"{_many(len(found.slides), 'slide')} of "
        f"{_many(len({r.patient for r in found.slides}), 'patient')}"
    )
    yield ""
    rows = [["", *levels]]
    rows.append(["cases", *(f"{s.cases:,}" for s in levels.values())])
    rows.append(["positive", *(f"{s.positive:,}" for s in levels.values())])
    for name in ("tp", "fp", "fn", "tn"):
        counts = (s.document()["confusion"][name] for s in levels.values())
        rows.append([name.upper(), *(f"{count:,}" for count in counts)])
    for name in next(iter(levels.values())).figures:
        rows.append([TITLES[name], *(str(s.figures[name]) for s in levels.values())])
    for name in ("brier", "ece_width", "ece_mass"):
        rows.append([TITLES[name], *(_number(s.calibration.get(name)) for s in levels.values())])
    yield from _aligned(rows)
    reasons = {
        f"{TITLES[name]} of {level} is undefined: {figure.reason}."
        for level, s in levels.items()
        for name, figure in s.figures.items()
        if figure.value is None
    }
    yield from sorted(reasons)
    for level, s in levels.items():
        if s.case_um2:
            areas = s.areas_mm2
            yield (
                f"{level}: {areas['judged']:.3f} mm² judged, {areas['positive']:.3f} positive, "
                f"{areas['called']:.3f} called so, {areas['both']:.3f} both"
            )
            if s.unseen:
                yield f"{s.unseen * s.case_um2 / 1e6:.3f} mm² of it was not looked at by the run"
    yield ""
    for level, s in levels.items():
        for point in s.points:
            yield (
                f"{level}, {point.name}: from {point.threshold:.4g}, sensitivity "
                f"{point.sensitivity:.3f}, specificity {point.specificity:.3f}"
            )
    if found.classes is not None:
        yield ""
        yield from _class_lines(found.classes)
    if found.pieces is not None:
        p = found.pieces
        yield ""
        yield (
            f"lesions: {p.true} in the truth, {p.touched} touched, {p.called} pieces called, "
            f"{p.apart} of these apart from any"
        )
        for name, title in object_scores.TITLES.items():
            yield f"  {title} {p.figures[name]}"
    if found.froc is not None and froc:
        yield ""
        f = found.froc
        spread = "" if f.low is None else f" ({f.low:.3f}-{f.high:.3f})"
        yield (
            f"FROC score {f.score:.3f}{spread}: {_many(f.lesions, 'lesion')} and {f.isolated} "
            f"isolated cells on {_many(f.slides, 'slide')}"
        )
        from napari_histomil.review.froc import FALSE_POSITIVES

        for rate, value in zip(FALSE_POSITIVES, f.at, strict=True):
            yield f"  {rate:g} false positives a slide: {value:.3f}"
    for level, compared in found.paired.items():
        assert found.other is not None, "two models were compared"
        yield ""
        yield f"{level}: {found.model['name']} less {found.other['name']}"
        for name, each in compared.figures.items():
            if each.value is not None and each.low is not None and each.p is not None:
                yield (
                    f"  {TITLES[name]} {each.value:+.3f} ({each.low:+.3f} to {each.high:+.3f}), "
                    f"p {each.p:.3g}"
                )
            elif each.value is not None:
                yield f"  {TITLES[name]} {each.value:+.3f}"
    for name, chance in found.tests.items():
        yield f"{name} over slides: p {chance:.3g}"
    for name, why in found.reasons.items():
        if name != "froc" or froc:
            yield f"No {name}: {why.rstrip('.')}."


def _class_lines(found: ClassScores) -> Iterator[str]:
    """Yield the matrix of several classes and what it comes to."""
    names = found.confusion.classes
    yield "tiles of several classes: truth down, answer across"
    counts = found.confusion.counts.tolist()
    rows = [["", *names, "F1", "AUROC"]]
    for name, row, f1, area in zip(names, counts, found.f1, found.auroc, strict=True):
        rows.append([name, *(f"{n:,}" for n in row), str(f1), f"{area:.3f}"])
    yield from _aligned(rows)
    weighted = found.weighted_kappa
    yield (
        f"accuracy {found.accuracy}, balanced accuracy {found.balanced_accuracy}, kappa "
        f"{found.kappa}" + ("" if weighted is None else f", quadratic weights {weighted}")
    )
    yield (
        f"of the likeliest class ECE {found.ece_width:.3f} (equal mass {found.ece_mass:.3f}); "
        f"Brier score over all classes {found.brier:.3f}"
    )


def write_rows(path: Path, rows: Sequence[dict[str, object]]) -> None:
    """Write a line a slide."""
    from napari_histomil.files import whole_file

    names = list(dict.fromkeys(name for row in rows for name in row))
    with whole_file(path) as part, part.open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, names)
        table.writeheader()
        table.writerows(rows)


def watched(cases: Iterable[Case]) -> Iterator[Case]:
    """Show a bar while there are several cases and somebody is looking."""
    from rich.console import Console
    from rich.progress import track

    known = list(cases)
    console = Console(stderr=True)
    hidden = len(known) < 2 or not console.is_terminal
    yield from track(known, "scoring", console=console, disable=hidden)


def _aligned(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        cells = [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        yield "  ".join([row[0].ljust(widths[0]), *cells]).rstrip()


def _many(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"'{text}' is no number above 0 and up to 1")
    return value


def _value_of(text: str) -> tuple[int, str]:
    value, sign, name = text.partition("=")
    if not (sign and value.strip().isdecimal() and name.strip()):
        raise argparse.ArgumentTypeError(f"'{text}' is not like 255=Tumor")
    return int(value), name.strip()
