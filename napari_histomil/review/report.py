"""A report of a judgement: one HTML file with everything in it, JSON and CSV beside.

It loads nothing from anywhere and prints well. Slides and patients are numbers in it unless names
are asked for. What is in it is worked out in `judging.py`; here it is only written down.
"""

from __future__ import annotations

import base64
import csv
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

from napari_histomil.errors import SlideError
from napari_histomil.files import whole_file
from napari_histomil.results import MilRun, find_slide, open_result
from napari_histomil.review import object_scores, report_plots
from napari_histomil.review.judging import WHAT, Judgement
from napari_histomil.review.outcome_map import slide_outcome
from napari_histomil.review.report_pictures import (
    COLOURS,
    OUTCOME_NAMES,
    SlidePictures,
    slide_pictures,
)
from napari_histomil.review.scoring import TITLES, Figure
from napari_histomil.review.truth_files import Case, open_truth
from napari_histomil.slides.readers import open_slide

STYLE = """
body { font: 14px/1.45 system-ui, sans-serif; color: #1a1a1a; max-width: 1000px; margin: 2em auto;
  padding: 0 1em; }
h1 { font-size: 1.7em; margin-bottom: 0.1em; } h2 { font-size: 1.25em; margin-top: 1.8em;
  border-bottom: 1px solid #ccc; } h3 { font-size: 1.05em; margin-bottom: 0.3em; }
table { border-collapse: collapse; margin: 0.6em 0; font-variant-numeric: tabular-nums; }
th, td { padding: 0.2em 0.8em 0.2em 0; text-align: right; vertical-align: top; }
th:first-child, td:first-child { text-align: left; } thead th { border-bottom: 1px solid #888; }
tbody tr:nth-child(even) { background: #f6f6f6; }
figure { display: inline-block; margin: 0.4em 0.8em 0.4em 0; vertical-align: top; }
figure img { max-width: 100%; display: block; } figcaption { font-size: 0.85em; color: #444; }
.plots img { width: 310px; } .patches figure { width: 150px; }
table.words td, table.words th { text-align: left; } .wide { overflow-x: auto; }
.note { color: #555; font-size: 0.92em; } .chip { display: inline-block; width: 0.8em;
  height: 0.8em; margin: 0 0.3em 0 0.8em; }
@media print { body { max-width: none; margin: 0; font-size: 10.5pt; } h2 { break-after: avoid; }
  figure, tr, .slide { break-inside: avoid; } .plots img { width: 5.6cm; } .wide table {
  font-size: 7.5pt; } .patches figure { width: 3cm; } @page { margin: 1.6cm; } }
"""


SLIDE_COLUMNS = (
    "slide", "patient", "positive", "answer", "tiles", "tile_auroc", "judged_mm2",
    "positive_mm2", "called_mm2", "dice", "lesions", "lesions_found", "isolated",
    "false_positives",
)  # fmt: skip
"""Of the table of slides on the page; the CSV has more."""


@dataclass(frozen=True, slots=True)
class Table:
    """A table that another part of a review adds: of readers, tags, viewing."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""


@dataclass(frozen=True, slots=True)
class ReportOptions:
    """What a report holds."""

    title: str = "Model review"
    names: bool = False
    """Whether slides and patients are called by their names."""
    pictures: bool = True
    most_patches: int = 4
    """Of each kind of error and slide."""
    most_slides: int = 40
    """Slides with pictures, at most."""
    tables: Sequence[Table] = field(default_factory=tuple)


def write_report(
    path: Path,
    found: Judgement,
    cases: Sequence[Case],
    options: ReportOptions | None = None,
    *,
    watch: Callable[[Sequence[Case]], Iterator[Case]] = iter,
) -> tuple[Path, Path, Path]:
    """Write a report and, beside it, all figures as JSON and a line a slide as CSV.

    Parameters
    ----------
    path
        ``.html``.
    found
        From `judge_runs` of these cases.
    cases
        In the same order: their slides are read for the pictures.
    options
        What it holds.
    watch
        Wraps the cases in a progress bar.

    Returns
    -------
    HTML, JSON and CSV

    Raises
    ------
    OutputError
        If it cannot be written there.
    """
    asked = options or ReportOptions()
    pictures: list[SlidePictures | str] = []
    if asked.pictures:
        shown = cases[: asked.most_slides]
        pictures = [
            _pictures(case, found, asked.most_patches, number)
            for number, case in enumerate(watch(shown), 1)
        ]
    page = "\n".join(_page(found, asked, pictures))
    data, table = path.with_suffix(".json"), path.with_suffix(".csv")
    with ExitStack() as files:  # all three or none
        parts = [files.enter_context(whole_file(each)) for each in (path, data, table)]
        parts[0].write_text(page, encoding="utf-8")
        document = found.document(patients=asked.names)
        parts[1].write_text(json.dumps(document, indent=2, ensure_ascii=False), encoding="utf-8")
        rows = found.rows(patients=asked.names)
        with parts[2].open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(dict.fromkeys(k for row in rows for k in row)))
            writer.writeheader()
            writer.writerows(rows)
    return path, data, table


def _pictures(case: Case, found: Judgement, most: int, number: int) -> SlidePictures | str:
    """Return a slide's pictures, or why there are none."""
    run = open_result(case.run)
    if isinstance(run, MilRun):
        return "A MIL model answers for the slide as a whole: there is no map of its tiles."
    where = find_slide(case.run, Path(str(run.slide.get("path", ""))), run.slide["fingerprint"])
    if where is None:
        return f"The slide of case {number} was not found: there are no pictures of it."
    asked = found.question
    values = None if asked.values is None else dict(asked.values)
    try:
        with (
            open_truth(
                case,
                run,
                positive=found.positive,
                fully_annotated=asked.fully_annotated,
                values=values,
            ) as truth,
            open_slide(where, mpp=tuple(run.slide["mpp_xy"])) as slide,
        ):
            if truth is None:
                return "Only the slide's label is known."
            answer = asked.answer or str(run.model.get("positive_class") or run.class_names[-1])
            outcome = slide_outcome(
                run, truth, found.positive, answer=answer, from_share=asked.from_share
            )
            return slide_pictures(slide, outcome, asked.threshold, most=most)
    except SlideError:  # whose sentence would tell the slide's name
        return f"The slide of case {number} cannot be read: there are no pictures of it."


# --- the page ---------------------------------------------------------------------------------


def _page(
    found: Judgement, asked: ReportOptions, pictures: Sequence[SlidePictures | str]
) -> Iterator[str]:
    yield '<!doctype html><html lang="en"><head><meta charset="utf-8">'
    yield f"<title>{escape(asked.title)}</title><style>{STYLE}</style></head><body>"
    yield f"<h1>{escape(asked.title)}</h1>"
    yield from _summary(found)
    yield from _scores(found)
    yield from _plots(found)
    yield from _classes(found)
    yield from _lesions(found)
    yield from _paired(found)
    for table in asked.tables:
        yield f"<h2>{escape(table.title)}</h2>"
        yield _table(table.header, table.rows, words=True)
        yield _note(table.note)
    yield from _slides(found, asked, pictures)
    yield from _provenance(found)
    yield "</body></html>"


def _summary(found: Judgement) -> Iterator[str]:
    q = found.question
    patients = len({row.patient for row in found.slides})
    other = f" and {found.other['name']}" if found.other else ""
    yield _note(f"Made {found.made} by napari-histomil. For research, not for diagnosis.")
    slides, people = _many(len(found.slides), "slide"), _many(patients, "patient")
    yield (
        f"<p><b>{escape(str(found.model['name']))}</b>{escape(other)} on {slides} of "
        f"<b>{people}</b>. Positive is <b>{escape(found.positive)}</b>, from a probability of "
        f"{q.threshold:g} on; a tile is so in truth from {q.from_share:.0%} of its judged area "
        f"on. Slides are answered by the rule {escape(str(q.rule))}.</p>"
    )
    judged = (
        "All slides were declared fully annotated; what is ignored does not count."
        if q.fully_annotated
        else "Tiles, pixels and lesions count only where all was annotated (Region*), without "
        "what is ignored (Ignore*)."
    )
    yield f"<p>{judged}</p>"
    for note in found.notes:
        yield _note(note)


def _scores(found: Judgement) -> Iterator[str]:
    levels = found.levels
    yield "<h2>Scores</h2>"
    rows = [["cases", *(f"{s.cases:,}" for s in levels.values())]]
    rows.append(["positive", *(f"{s.positive:,}" for s in levels.values())])
    rows.append(["patients", *(str(s.patients) for s in levels.values())])
    for name in next(iter(levels.values())).figures:
        rows.append([TITLES[name], *(_figure(s.figures[name]) for s in levels.values())])
    for name in ("brier", "ece_width", "ece_mass"):
        rows.append([TITLES[name], *(_number(s.calibration.get(name)) for s in levels.values())])
    yield _table(["", *levels], rows)
    yield _note("; ".join(f"{name}: {WHAT[name]}" for name in levels) + ".")
    redrawn = ", ".join(f"{s.redrawn} ({name})" for name, s in levels.items() if s.redrawn)
    yield _note(
        f"In brackets 95 % intervals: {found.question.rounds:,} resamples of whole patients, "
        f"those with and without a positive case apart"
        + (f"; drawn again as one side had no case: {redrawn}." if redrawn else ".")
        + " Of one patient there is no interval."
    )
    reasons = {
        f"{TITLES[n]} of {level} is undefined: {f.reason}."
        for level, s in levels.items()
        for n, f in s.figures.items()
        if f.value is None
    }
    reasons |= {f"No {n}: {why.rstrip('.')}." for n, why in found.reasons.items()}
    for reason in sorted(reasons):
        yield _note(reason)
    notes = {str(s.calibration["note"]) for s in levels.values() if "note" in s.calibration}
    for note in sorted(notes):
        yield _note(f"Calibration: {note}.")
    yield from _areas(found)
    rows = [
        [level, point.name, f"{point.threshold:.4g}", f"{point.sensitivity:.3f}",
         f"{point.specificity:.3f}", point.how]
        for level, s in levels.items()
        for point in s.points
    ]  # fmt: skip
    if rows:
        yield "<h3>Operating points</h3>"
        header = ["", "", "threshold", "sensitivity", "specificity", "chosen by"]
        yield _table(header, rows, words=True)
        yield _note("Chosen on the cases that they are shown with, they flatter.")


def _areas(found: Judgement) -> Iterator[str]:
    for s in found.levels.values():
        if s.case_um2:
            areas = s.areas_mm2
            unseen = s.unseen * s.case_um2 / 1e6
            missed = (
                f" {unseen:.3f} mm² of it the model has not looked at: they count as called "
                f"negative."
            )
            yield (
                f"<p>{areas['judged']:.3f} mm² were judged, {areas['positive']:.3f} mm² are "
                f"positive, {areas['called']:.3f} mm² were called so, {areas['both']:.3f} mm² are "
                f"both; each µm² counts once.{missed if s.unseen else ''}</p>"
            )


def _plots(found: Judgement) -> Iterator[str]:
    levels = found.levels
    yield '<h2>Plots</h2><div class="plots">'
    yield _image(report_plots.roc_plot(levels), "ROC; a ring where the threshold lies")
    yield _image(report_plots.precision_recall_plot(levels), "Precision and recall")
    yield _image(report_plots.calibration_plot(levels), "Calibration, 15 equal bins")
    if found.froc is not None:
        yield _image(report_plots.froc_plot(found.froc), "FROC, as in CAMELYON16")
    for name, scores in levels.items():
        yield _image(report_plots.confusion_plot(scores), f"Confusion, {name}")
    yield "</div>"
    for name, scores in levels.items():
        bins = [b for b in scores.calibration.get("curve", ()) if b["count"]]
        counts = ", ".join(f"{b['low']:.2f}–{b['high']:.2f}: {b['count']:,}" for b in bins)
        yield _note(f"Cases in the bins of the calibration, {name}: {counts}.")


def _classes(found: Judgement) -> Iterator[str]:
    if found.classes is None:
        return
    c = found.classes
    names = c.confusion.classes
    yield "<h2>Classes</h2>"
    counts = c.confusion.counts.tolist()
    rows = [
        [name, *(f"{n:,}" for n in row), str(f1), f"{area:.3f}"]
        for name, row, f1, area in zip(names, counts, c.f1, c.auroc, strict=True)
    ]
    yield _table(["truth down, answer across", *names, "F1", "AUROC"], rows)
    weighted = c.weighted_kappa
    yield (
        f"<p>Accuracy {c.accuracy}, balanced accuracy {c.balanced_accuracy}, kappa {c.kappa}"
        + ("" if weighted is None else f", with quadratic weights {weighted}")
        + f"; of the likeliest class ECE {c.ece_width:.3f} (equal mass {c.ece_mass:.3f}); Brier "
        f"score over all classes {c.brier:.3f}.</p>"
    )


def _lesions(found: Judgement) -> Iterator[str]:
    if found.pieces is not None:
        p = found.pieces
        yield "<h2>Lesions</h2>"
        low, high = p.touched_95
        share = f" (Wilson's interval {low:.3f}–{high:.3f})" if p.true else ""
        yield (
            f"<p>The truth has {p.true} pieces, of which the model touches {p.touched}{share}; it "
            f"calls {p.called} pieces, {p.apart} of them apart from any.</p>"
        )
        rows = [[t, _figure(p.figures[n])] for n, t in object_scores.TITLES.items()]
        yield _table(["", "pieces"], rows)
    if found.froc is not None:
        f = found.froc
        document = f.document()
        spread = "" if f.low is None else f" ({f.low:.3f}–{f.high:.3f})"
        yield (
            f"<p>FROC score <b>{f.score:.3f}</b>{spread}, over {_many(f.lesions, 'lesion')} on "
            f"{_many(f.slides, 'slide')}; {f.isolated} groups of isolated tumour cells count "
            f"neither way.</p>"
        )
        rates = [f"{rate:g}" for rate in document["false_positives_a_slide"]]
        yield _table(["false positives a slide", *rates], [["sensitivity", *map(_number, f.at)]])
        yield _note(
            f"Lesions as in CAMELYON16: dilated by 37.5 µm, holes filled; {document['note']}."
        )


def _paired(found: Judgement) -> Iterator[str]:
    if not found.paired or found.other is None:
        return
    yield f"<h2>{escape(str(found.model['name']))} less {escape(str(found.other['name']))}</h2>"
    for level, compared in found.paired.items():
        rows = []
        for name, d in compared.figures.items():
            if d.value is None:
                continue
            spread = "" if d.low is None else f"{d.low:+.3f} to {d.high:+.3f}"
            p = "" if d.p is None else f"{d.p:.3g}"
            rows.append([TITLES[name], str(d.first), str(d.second), f"{d.value:+.3f}", spread, p])
        yield f"<h3>{escape(level.capitalize())}</h3>"
        yield _table(["", "first", "second", "difference", "95 % interval", "p"], rows)
    yield _note("By a paired bootstrap: the same patients are drawn for both models.")
    for name, value in found.tests.items():
        yield f"<p>{escape(name)} over slides: p = {value:.3g}</p>"


def _slides(
    found: Judgement, asked: ReportOptions, pictures: Sequence[SlidePictures | str]
) -> Iterator[str]:
    yield "<h2>Slides</h2>"
    rows = found.rows(patients=asked.names)
    names = [n for n in dict.fromkeys(k for row in rows for k in row) if n not in ("run", "truth")]
    yield '<div class="wide">'
    yield _table(
        [n.replace("_", " ") for n in names], [[_cell(r.get(n)) for n in names] for r in rows]
    )
    yield "</div>"
    if not pictures:
        return
    chips = "".join(
        f'<span class="chip" style="background: rgb({r}, {g}, {b})"></span>{name}'
        for name, (r, g, b, _) in zip(OUTCOME_NAMES, COLOURS[1:].tolist(), strict=False)
    )
    yield f'<p class="note">On the slides:{chips}</p>'
    for row, shown in zip(rows, pictures, strict=False):
        yield f'<div class="slide"><h3>{escape(str(row["slide"]))}</h3>'
        yield _note(str(row["truth"]))
        if isinstance(shown, str):
            yield _note(shown)
        else:
            yield _image(shown.overview, "", kind="jpeg")
            yield '<div class="patches">'
            for patch in shown.patches:
                x, y = patch.xy_px0
                words = f"{patch.kind}, {patch.score:.3f}, at x = {x:.0f}, y = {y:.0f}"
                yield _image(patch.jpeg, words, kind="jpeg")
            yield "</div>"
        yield "</div>"
    if len(rows) > len(pictures):
        yield _note(f"Pictures of the first {len(pictures)} slides.")


def _provenance(found: Judgement) -> Iterator[str]:
    yield "<h2>Provenance</h2>"
    rows: list[list[str]] = [["model", str(found.model["name"])]]
    rows.append(["sha256 of the model", str(found.model.get("sha256"))])
    if found.other is not None:
        rows += [["second model", str(found.other["name"])],
                 ["sha256 of it", str(found.other.get("sha256"))]]  # fmt: skip
    rows += [[name, version] for name, version in found.versions.items()]
    question: Mapping[str, Any] = found.document()["question"]
    rows += [[name.replace("_", " "), str(value)] for name, value in question.items()]
    rows.append(["made", found.made])
    yield _table(["", ""], rows, words=True)
    runs = "".join(f"<li>{escape(row.run)}</li>" for row in found.slides)
    yield f"<details><summary>Runs</summary><ul>{runs}</ul></details>"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]], *, words: bool = False) -> str:
    head = "".join(f"<th>{escape(str(cell))}</th>" for cell in header)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(str(cell))}</td>" for cell in row) + "</tr>" for row in rows
    )
    kind = ' class="words"' if words else ""
    return f"<table{kind}><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _image(data: bytes, caption: str, *, kind: str = "png") -> str:
    text = base64.b64encode(data).decode("ascii")
    words = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    alt = escape(caption or "the slide with its outcomes")
    return f'<figure><img alt="{alt}" src="data:image/{kind};base64,{text}">{words}</figure>'


def _many(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _note(text: str) -> str:
    return f'<p class="note">{escape(text)}</p>' if text else ""


def _figure(figure: Figure) -> str:
    return str(figure).replace("-", "–") if figure.value is not None else "undefined"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.3f}" if isinstance(value, float) else str(value)
