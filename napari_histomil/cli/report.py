"""The verb ``report``: the scores of runs as one HTML file, with JSON and CSV beside it."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from napari_histomil.cli.score import add_question, cases_of, question_of, watched
from napari_histomil.cli.shared import add_output, add_verb, new_file, say
from napari_histomil.errors import OutputError

if TYPE_CHECKING:
    from napari_histomil.cli.shared import Subparsers

EXAMPLES = """\
  histomil report RUN.zarr --annotations slide.geojson -o report.html
  histomil report cohort.csv -o report.html --title "Validation, site B"
  histomil report cohort.csv -o report.html --names   slides and patients by name

  histomil report site-b.review.json -o report.html   a review project

Of a project the main model's runs are scored, by labels and by what is drawn on
the slides; what readers answered is in it, too.
Everything is in the one file, which loads nothing from anywhere; report.json
and report.csv lie beside it. The table is that of 'histomil score'."""


def add_parser(subparsers: Subparsers) -> None:
    """Add the verb of this file."""
    parser = add_verb(
        subparsers,
        "report",
        report,
        "write the scores of runs as a report to read and print",
        "Score stored runs as 'histomil score' does and write a self-contained HTML: scores with "
        "intervals, ROC, precision and recall, calibration, FROC and confusion, each slide with "
        "its map of errors and a scale bar, the worst errors, and where it all comes from. "
        "Slides and patients are numbered unless names are asked for.",
        EXAMPLES,
    )
    add_question(parser)
    add_output(parser)
    parser.add_argument("--title", default="Model review", help="of the report")
    parser.add_argument(
        "--names", action="store_true", help="call slides and patients by their names"
    )
    parser.add_argument(
        "--no-pictures", action="store_true", help="leave the slides' pictures out"
    )


def report(args: argparse.Namespace) -> int:
    """Write a report."""
    from napari_histomil.review.judging import judge_runs
    from napari_histomil.review.project import SUFFIX, open_project
    from napari_histomil.review.project_report import cases_of_project, reader_tables
    from napari_histomil.review.report import ReportOptions, Table, write_report

    if args.output.suffix.lower() not in (".html", ".htm"):
        raise OutputError(f"{args.output} is no name of a report: it ends in .html.")
    for path in (args.output, args.output.with_suffix(".json"), args.output.with_suffix(".csv")):
        new_file(Path(path), force=args.force)
    tables: list[Table] = []
    if len(args.runs) == 1 and args.runs[0].name.endswith(SUFFIX):
        project = open_project(args.runs[0])
        cases, question, notes = cases_of_project(project, fully_annotated=args.fully_annotated)
        question = replace(question, rounds=int(args.bootstraps))
        tables = reader_tables(project, names=args.names)
        for note in notes:
            say(note)
    else:
        cases, question = cases_of(args), question_of(args)
    found = judge_runs(cases, question, watch=watched)
    for note in found.notes:
        say(note)
    options = ReportOptions(args.title, args.names, not args.no_pictures, tables=tables)
    for path in write_report(args.output, found, cases, options, watch=watched):
        print(path)
    return 0
