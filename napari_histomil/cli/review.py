"""The family ``review``: cases with what models answered and readers judged, and their agreement.

What a reader does is done in the window; here a review is set up, listed and evaluated.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_histomil.cli.shared import add_verb, new_file, say

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_histomil.cli.shared import Subparsers
    from napari_histomil.review.cases import Row
    from napari_histomil.review.project import Project
    from napari_histomil.review.readers import ReaderAgreement

SET_UP = """\
  histomil review setup slides/ --blind --answers normal,tumor
  histomil review setup cohort.csv --model my-model --rule top10%
  histomil review setup cohort.review.json --threshold 0.7
  histomil review setup cohort.csv --form form.json

A table has the column slide and, if known, patient, label and case; all other
columns are facts that cases are filtered by. The project is written beside it,
as NAME.review.json; what is set up again keeps what was judged."""

LIST = """\
  histomil review list cohort.csv --sort error --descending
                                         the failures, the worst first
  histomil review list cohort.review.json \\
      --where 'error > 0.5 and label == "tumor"'
  histomil review list cohort.review.json --where 'p["my-model"] < p' \\
      --csv cases.csv

Columns: case patient label status predicted p error uncertainty spread
area_mm2 right annotations own confidence final judged missed tags reader
note, and fact["..."] of the table's own. With --reader a blind review
shows what that reader may see."""

VERDICTS = """\
  histomil review verdicts cohort.review.json --csv verdicts.csv
  histomil review verdicts cohort.review.json --all
                                         also what was changed or taken back"""

AGREEMENT = """\
  histomil review agreement cohort.review.json --question "own answer"
  histomil review agreement cohort.review.json --question region \\
      --disputed list.csv
  histomil review agreement cohort.review.json --question "map quality" \\
      --ordered --json kappa.json

Cohen's kappa of each pair; of more readers Fleiss' kappa if all answered
everything, else Krippendorff's alpha. Intervals are over patients."""

CHANGES = """\
  histomil review changes cohort.review.json
                             own answers against final ones, by reader"""

VIEWING = """\
  histomil review viewing cohort.review.json -o steps.json
  histomil review viewing cohort.review.json --case a.svs --at-least 10
                                         share of the tissue seen at 10x
  histomil review viewing cohort.review.json --case a.svs --reader Ada \\
      -o a.geojson"""

FORM = """\
  histomil review form -o form.json      to be edited, then: setup ... --form"""


def add_parser(subparsers: Subparsers) -> None:
    """Add the verbs of this family."""
    family = subparsers.add_parser(
        "review",
        help="cases: what models answered, what readers judged, how far they agree",
        description="Set up a review of slides, list its cases, evaluate what readers judged. "
        "Reading itself is done in the window, in the dock Review.",
    )
    verbs = family.add_subparsers(metavar="VERB", required=True)
    _add_setup(verbs)
    _add_list(verbs)
    _add_verdicts(verbs)
    _add_agreement(verbs)
    _add_changes(verbs)
    _add_viewing(verbs)
    form = add_verb(
        verbs, "form", form_verb, "the questions of a new review, as JSON",
        "Print the form of a new review, or write it to a file.", FORM,
    )  # fmt: skip
    form.add_argument("-o", "--output", metavar="FILE", type=Path, help="write it there")
    form.add_argument("--force", action="store_true", help="write over a file that exists")


def _add_source(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "source",
        metavar="REVIEW",
        type=Path,
        help="a .review.json, a table, or a folder of slides",
    )


def _add_csv(parser: argparse.ArgumentParser, what: str) -> None:
    parser.add_argument("--csv", metavar="FILE", type=Path, help=f"write {what} there, too")
    parser.add_argument("--force", action="store_true", help="write over a file that exists")


# --- setup -------------------------------------------------------------------------------------


def _add_setup(verbs: Subparsers) -> None:
    parser = add_verb(
        verbs, "setup", setup, "begin a review, or change its settings",
        "Begin a review of the slides of a folder or a table, or change how one is done; prints "
        "the path of its file.", SET_UP,
    )  # fmt: skip
    _add_source(parser)
    parser.add_argument("-o", "--output", metavar="FILE.review.json", type=Path, help="its file")
    parser.add_argument(
        "--model",
        metavar="NAME",
        dest="models",
        action="append",
        help="models whose answers are judged, the main one first; all by default",
    )
    parser.add_argument("--target", metavar="CLASS", help="class asked about")
    parser.add_argument("--positive", metavar="LABEL", help="label of cases that have the class")
    parser.add_argument("--answers", metavar="A,B,...", help="what readers may answer")
    parser.add_argument(
        "--rule", help="how tiles become one answer: mean, max, majority, top5, top10%%, ..."
    )
    parser.add_argument("--threshold", metavar="P", type=float, help="from which p is positive")
    parser.add_argument(
        "--blind",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="readers lock an own answer before the model's is shown",
    )
    parser.add_argument("--seed", metavar="N", type=int, help="of the order of blind reading")
    parser.add_argument("--results", metavar="OUT", type=Path, help="where runs lie (-o of 'run')")
    parser.add_argument("--form", metavar="FILE", type=Path, help="questions, see 'review form'")


def setup(args: argparse.Namespace) -> int:
    """Begin or change a review."""
    from napari_histomil.review.form import read_form
    from napari_histomil.review.project import open_project, write_project

    changes: dict[str, Any] = {
        name: value
        for name in ("target", "positive", "rule", "threshold", "blind", "seed")
        if (value := getattr(args, name)) is not None
    }
    if args.models is not None:
        changes["models"] = tuple(args.models)
    if args.answers is not None:
        changes["answers"] = tuple(
            part.strip() for part in args.answers.split(",") if part.strip()
        )
    if args.results is not None:
        changes["results"] = args.results.absolute()
    if args.form is not None:
        changes["form"] = read_form(args.form)
    project = open_project(args.source, path=args.output)
    if changes:
        project = replace(project, **changes)
        write_project(project)
    patients = len({case.patient for case in project.cases})
    say(f"{len(project.cases)} cases of {patients} patients")
    print(project.path)
    return 0


# --- list --------------------------------------------------------------------------------------


def _add_list(verbs: Subparsers) -> None:
    parser = add_verb(
        verbs, "list", list_cases, "the cases, sorted and filtered",
        "Print a table of the cases: what stored runs answered, what readers judged.", LIST,
    )  # fmt: skip
    _add_source(parser)
    parser.add_argument("--where", metavar="EXPRESSION", default="", help="only such cases")
    parser.add_argument("--sort", metavar="COLUMN", default="case", help="by this column")
    parser.add_argument("--descending", action="store_true", help="the highest first")
    parser.add_argument("--by-patient", action="store_true", help="keep patients together")
    parser.add_argument("--reader", metavar="NAME", default="", help="as this reader sees them")
    _add_csv(parser, "all columns")


def list_cases(args: argparse.Namespace) -> int:
    """List the cases of a review."""
    from napari_histomil.errors import HistomilError
    from napari_histomil.files import write_rows
    from napari_histomil.review.cases import filtered, ordered, rows_of
    from napari_histomil.review.predictions import facts_of
    from napari_histomil.review.project import open_project
    from napari_histomil.review.verdicts import VerdictLog

    if args.csv is not None:
        new_file(args.csv, force=args.force)
    project = open_project(args.source)
    if not args.reader:  # whoever evaluates a blind review sees all of it
        project = replace(project, blind=False)
    filtered([], args.where)
    ordered([], args.sort)
    facts, problems = {}, {}
    for case in project.cases:
        try:
            facts[case.name] = facts_of(case.slide, project)
        except HistomilError as error:
            problems[case.name] = str(error)
            say(f"{case.name}: {error}")
        else:
            for note in facts[case.name].notes:
                say(f"{case.name}: {note}")
    with VerdictLog.open(project.verdicts, reader=args.reader, read_only=True) as log:
        rows = filtered(rows_of(project, log, facts, problems), args.where)
    rows = ordered(rows, args.sort, descending=args.descending, patients=args.by_patient)
    shown = ("case", "patient", "label", "predicted", "p", "error", "uncertainty", "area_mm2")
    _print_table(shown, [[_text(row.values[name]) for name in shown] for row in rows])
    if args.csv is not None:
        write_rows(args.csv, *_columns(project, rows))
    return 0


def _columns(project: Project, rows: Sequence[Row]) -> tuple[list[str], list[list[Any]]]:
    from napari_histomil.review.cases import COLUMNS

    plain = [name for name in COLUMNS if name != "fact"]
    models = sorted({name for row in rows for name in row.values.get("p[]") or {}})
    header = [*plain, *(f"p[{name}]" for name in models), *project.facts]
    lines = [
        [
            *(_text(row.values[name], digits=6) for name in plain),
            *(_text((row.values.get("p[]") or {}).get(name), digits=6) for name in models),
            *(row.case.facts.get(name, "") for name in project.facts),
        ]
        for row in rows
    ]
    return header, lines


# --- verdicts ----------------------------------------------------------------------------------


def _add_verdicts(verbs: Subparsers) -> None:
    parser = add_verb(
        verbs, "verdicts", verdicts, "everything that readers judged",
        "Print what readers judged as a table: one line an answer, the last one of each.",
        VERDICTS,
    )  # fmt: skip
    _add_source(parser)
    parser.add_argument("--all", action="store_true", help="also what a later answer replaced")
    _add_csv(parser, "the table")


def verdicts(args: argparse.Namespace) -> int:
    """Print what was judged."""
    from napari_histomil.files import write_rows
    from napari_histomil.review.project import open_project
    from napari_histomil.review.verdicts import VerdictLog

    if args.csv is not None:
        new_file(args.csv, force=args.force)
    project = open_project(args.source)
    with VerdictLog.open(project.verdicts, reader="", read_only=True) as log:
        found = log.all() if args.all else log.latest()
    header = ["case", "question", "answer", "reader", "at", "model",
              "slide", "x_px0", "y_px0", "width_px0", "height_px0"]  # fmt: skip
    lines = [
        [
            each.case, each.question, _text(each.answer), each.reader, each.at, each.model or "",
            *(
                ["", "", "", "", ""] if each.place is None
                else [each.place.slide, *each.place.xy_px0, *each.place.size_px0]
            ),
        ]
        for each in found
    ]  # fmt: skip
    table = csv.writer(sys.stdout, lineterminator="\n")
    table.writerow(header)
    table.writerows(lines)
    if args.csv is not None:
        write_rows(args.csv, header, lines)
    return 0


# --- agreement and changes ---------------------------------------------------------------------


def _add_agreement(verbs: Subparsers) -> None:
    parser = add_verb(
        verbs, "agreement", agreement, "how far readers agree on a question",
        "Print kappa and alpha of readers over cases or places, with 95 % intervals over "
        "patients, and on how many they differ.", AGREEMENT,
    )  # fmt: skip
    _add_source(parser)
    parser.add_argument("--question", metavar="NAME", default="own answer", help="of the form")
    parser.add_argument("--ordered", action="store_true", help="the answers are in order")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write the figures there, too")
    parser.add_argument(
        "--disputed", metavar="FILE.csv", type=Path, help="write where readers differ there"
    )
    parser.add_argument("--force", action="store_true", help="write over files that exist")


def agreement(args: argparse.Namespace) -> int:
    """Print how far readers agree."""
    from napari_histomil.files import whole_file, write_rows
    from napari_histomil.review.project import open_project
    from napari_histomil.review.readers import UNRESOLVED, agreement_of, ratings_of
    from napari_histomil.review.verdicts import VerdictLog

    for target in (args.json, args.disputed):
        if target is not None:
            new_file(target, force=args.force)
    project = open_project(args.source)
    with VerdictLog.open(project.verdicts, reader="", read_only=True) as log:
        ratings = ratings_of(log, project, args.question)
    found = agreement_of(ratings, ordered=args.ordered)
    print(
        f"{args.question}: {len(ratings.units)} judged by {', '.join(ratings.readers)}, from "
        f"{found.patients} patients"
    )
    for figure in found.figures:
        why = f" ({figure.score.reason})" if figure.score.value is None else ""
        spread = "" if why else f"  95 % {figure.low:.3f} to {figure.high:.3f}"
        print(f"{figure.name}: {figure.score}{why}{spread}  over {figure.units}")
    unresolved = sum(answer == UNRESOLVED for answer in found.consensus.values())
    print(f"readers differ on {len(found.disputed)}; {unresolved} have no majority")
    if args.json is not None:
        with whole_file(args.json) as part:
            part.write_text(json.dumps(_as_json(found), indent=1) + "\n", encoding="utf-8")
    if args.disputed is not None:
        write_rows(args.disputed, *_disputed(found))
    return 0


def _as_json(found: ReaderAgreement) -> dict[str, Any]:
    return {
        "question": found.ratings.question,
        "readers": found.ratings.readers,
        "patients": found.patients,
        "figures": [
            {
                "name": figure.name,
                "value": figure.score.value,
                "why": figure.score.reason,
                "interval_95": None if figure.score.value is None else [figure.low, figure.high],
                "units": figure.units,
            }
            for figure in found.figures
        ],
    }


def _disputed(found: ReaderAgreement) -> tuple[list[str], list[list[Any]]]:
    """Return where readers differ, as a table that is a worklist: place, answers, majority."""
    ratings = found.ratings
    rows = dict(zip(ratings.units, ratings.codes, strict=True))
    lines = [
        [
            unit[0],
            *(("", "") if unit[1] is None else unit[1].xy_px0),
            *("" if code < 0 else ratings.answers[code] for code in rows[unit]),
            found.consensus[unit],
        ]
        for unit in found.disputed
    ]
    return ["case", "x_px0", "y_px0", *ratings.readers, "consensus"], lines


def _add_changes(verbs: Subparsers) -> None:
    parser = add_verb(
        verbs, "changes", changes_verb, "what the model changed in readers' answers",
        "Print how often a reader's own answer became another once the model's was shown.",
        CHANGES,
    )  # fmt: skip
    _add_source(parser)


def changes_verb(args: argparse.Namespace) -> int:
    """Print the matrix of changed answers of each reader."""
    from napari_histomil.review.blind import OWN, changes
    from napari_histomil.review.project import open_project
    from napari_histomil.review.verdicts import VerdictLog

    project = open_project(args.source)
    with VerdictLog.open(project.verdicts, reader="", read_only=True) as log:
        readers = sorted({v.reader for v in log.all() if v.question == OWN})
        if not readers:
            say("Nobody has locked an own answer yet.")
        for reader in readers:
            found = changes(log, project, reader)
            print(
                f"{reader}: {found.changed} of {found.total} changed, {found.to_model} to the "
                f"model's answer, {found.from_model} away from it"
            )
            lines = zip(found.answers, found.counts, strict=True)
            _print_table(
                ("own / final", *found.answers),
                [[answer, *map(str, counts)] for answer, counts in lines],
            )
    return 0


# --- viewing -----------------------------------------------------------------------------------


def _add_viewing(verbs: Subparsers) -> None:
    parser = add_verb(
        verbs, "viewing", viewing, "how readers went over slides, where they agreed to a record",
        "Export recorded steps (viewing time, not gaze) as JSON, those over one slide as GeoJSON; "
        "print what was seen of a slide's tissue.", VIEWING,
    )  # fmt: skip
    _add_source(parser)
    parser.add_argument("--case", metavar="NAME", help="only this case")
    parser.add_argument("--reader", metavar="NAME", help="only this reader")
    parser.add_argument(
        "--at-least", metavar="POWER", type=float, help="print what of its tissue was seen at that"
    )
    parser.add_argument("-o", "--output", metavar="FILE", type=Path, help=".json, or .geojson")
    parser.add_argument("--force", action="store_true", help="write over a file that exists")


def viewing(args: argparse.Namespace) -> int:
    """Export viewing time."""
    from napari_histomil.errors import ReviewError
    from napari_histomil.review import viewing as records
    from napari_histomil.review.project import open_project
    from napari_histomil.slides.readers import open_slide
    from napari_histomil.tissue import find_tissue

    if args.output is not None:
        new_file(args.output, force=args.force)
    project = open_project(args.source)
    views = {
        reader: [view for view in own if args.case in (None, view.case)]
        for reader, own in records.read_views(project, args.reader).items()
    }
    if not any(views.values()):
        raise ReviewError(f"Nothing of {args.case or project.path.name} was recorded.")
    for reader, own in views.items():
        steps = records.steps_of(own)
        inspected = sum(step.kind == "inspect" for step in steps)
        seconds = sum(view.seconds for view in own)
        peeked = len(steps) - inspected
        print(f"{reader}: {seconds:.0f} s, {inspected} inspect and {peeked} peek steps")
    on_slide = args.at_least is not None or str(args.output).endswith(".geojson")
    if on_slide and args.case is None:
        raise ReviewError("Name the case (--case): this is about one slide.")
    if args.at_least is not None:
        with open_slide(project[args.case].slide) as slide:
            tissue, mpp = find_tissue(slide), slide.info.mpp_xy
        for reader, own in views.items():
            found = records.coverage_of(own, tissue, mpp, args.at_least)
            print(f"{reader}: {found.sentence}")
    if args.output is not None and on_slide and args.output.suffix == ".geojson":
        with open_slide(project[args.case].slide) as slide:
            info = slide.info
        if len(views) > 1:
            raise ReviewError("Name the reader (--reader): a file holds the steps of one.")
        ((reader, own),) = views.items()
        records.write_steps_geojson(args.output, own, info, reader)
    elif args.output is not None:
        records.write_steps_json(args.output, views)
    return 0


def form_verb(args: argparse.Namespace) -> int:
    """Print the form of a new review."""
    from napari_histomil.review.form import DEFAULT, form_as_json, write_form

    if args.output is not None:
        write_form(DEFAULT, new_file(args.output, force=args.force))
    else:
        print(json.dumps(form_as_json(DEFAULT), indent=1, ensure_ascii=False))
    return 0


# --- tables ------------------------------------------------------------------------------------


def _text(value: Any, digits: int = 3) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.{digits}f}"
    return "; ".join(value) if isinstance(value, tuple) else str(value)


def _print_table(header: Sequence[str], lines: Sequence[Sequence[str]]) -> None:
    rows = [tuple(header), *(tuple(line) for line in lines)]
    widths = [max(len(row[n]) for row in rows) for n in range(len(header))]
    for row in rows:
        cells = [row[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        print("  ".join(cells).rstrip())
