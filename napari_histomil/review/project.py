"""A review project: which slides, what is known of them, which answers are judged, what is asked.

It is a file ``<name>.review.json``, written whole; what readers judged lies beside it, in the
folder ``<name>.verdicts`` (`verdicts.py`). A project is begun from a folder of slides, or from a
table (CSV).
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from napari_histomil.errors import HistomilError, ReviewError, RunError, brief, listed
from napari_histomil.files import read_rows, remote_url, whole_file
from napari_histomil.review.form import DEFAULT, Form, form_as_json, form_from_json
from napari_histomil.review.slide_answers import read_rule
from napari_histomil.slides.readers import SLIDE_SUFFIXES

SCHEMA_VERSION = 1
SUFFIX = ".review.json"
COLUMNS = ("slide", "case", "patient", "label")
"""Of a table: the first must be there; all others of it are kept as facts of the case."""


@dataclass(frozen=True, slots=True)
class Case:
    """One slide under review."""

    name: str
    """Unique in the project: verdicts are kept under it."""
    slide: Path
    patient: str
    label: str = ""
    """The answer that is known to be right; empty where nobody says it."""
    facts: Mapping[str, str] = field(default_factory=dict)
    """What else a table says: site, scanner, stain, ..."""


@dataclass(frozen=True, slots=True)
class Project:
    """Cases, and how they are reviewed.

    Raises
    ------
    ReviewError
        If there is no case, two have one name, or the threshold is no probability.
    """

    path: Path
    """Of its file."""
    cases: tuple[Case, ...]
    models: tuple[str, ...] = ()
    """Names of the models whose answers are judged, the main one first; all where none is named:
    then the first by name is the main one."""
    target: str = ""
    """The class asked about; that which each model calls positive where it is empty."""
    positive: str = ""
    """Label of the cases that have that class; the class's own name where it is empty."""
    answers: tuple[str, ...] = ()
    """What a reader may answer for a case; the labels where it is empty."""
    rule: str = "top10%"
    """How the tiles of a patch classifier become one answer (`slide_answers`)."""
    threshold: float = 0.5
    """Probability from which a tile and a case count as positive."""
    blind: bool = False
    """Whether a reader answers before the model's answer is shown."""
    seed: int = 0
    """Of the order in which cases are read blindly."""
    results: Path | None = None
    """Folder of results (``-o``); None for beside each slide."""
    form: Form = DEFAULT

    def __post_init__(self) -> None:
        if not self.cases:
            raise ReviewError("A review needs at least one slide.")
        twice = [n for n, c in Counter(case.name for case in self.cases).items() if c > 1]
        if twice:
            raise ReviewError(f"Two cases are called {twice[0]!r}: give one another name.")
        if not 0 <= self.threshold <= 1:
            raise ReviewError(f"The threshold must be between 0 and 1, not {self.threshold}.")
        try:
            read_rule(self.rule)
        except RunError as error:
            raise ReviewError(str(error)) from error

    def __getitem__(self, name: str) -> Case:
        for case in self.cases:
            if case.name == name:
                return case
        raise ReviewError(f"{self.path.name} has no case called {name!r}.")

    @property
    def verdicts(self) -> Path:
        """Folder of what readers judged."""
        return self.path.with_name(self.path.name.removesuffix(SUFFIX) + ".verdicts")

    @property
    def possible_answers(self) -> tuple[str, ...]:
        """What a reader may answer for a case, in order: the number keys give them."""
        labels = sorted({case.label for case in self.cases if case.label})
        if self.answers:
            return self.answers
        if len(labels) > 1:
            positive = self.positive or self.target
            return tuple(sorted(labels, key=lambda label: (label == positive, label)))
        return ("negative", "positive")

    @property
    def facts(self) -> tuple[str, ...]:
        """Names of what else is known of cases, in the order in which they come up."""
        return tuple(dict.fromkeys(name for case in self.cases for name in case.facts))


# --- beginning ---------------------------------------------------------------------------------


def open_project(source: Path, *, path: Path | None = None) -> Project:
    """Return the saved project of a file, or begin one from a folder or a table.

    Parameters
    ----------
    source
        A ``.review.json``; or a folder of slides, or a table: where a project was begun from it
        before, that is opened.
    path
        Where the file of a new project shall be; in the folder, or beside the table, by default.

    Raises
    ------
    ReviewError
        If it is none, or names no slide.
    OutputError
        If the file of a new project cannot be written.
    """
    if source.name.endswith(SUFFIX):
        return read_project(source)
    if not source.exists():
        raise ReviewError(
            f"{source} does not exist: give a folder of slides, a table (CSV), or a project "
            f"({SUFFIX})."
        )
    if path is None:
        inside = source / source.resolve().name if source.is_dir() else source.with_suffix("")
        path = inside.with_name(inside.name + SUFFIX)
    if path.is_file():
        return read_project(path)
    cases = cases_of_folder(source) if source.is_dir() else cases_of_table(source)
    project = Project(path.absolute(), cases)
    write_project(project)
    return project


def cases_of_folder(folder: Path) -> tuple[Case, ...]:
    """Return the slides of a folder, and of the folders in it, which are those of a patient each.

    Raises
    ------
    ReviewError
        If it cannot be looked at, or holds no slide.
    """
    try:
        inside = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
        below = {p: sorted(p.iterdir()) for p in inside if p.is_dir() and not _is_ours(p)}
    except OSError as error:
        raise ReviewError(f"{folder} cannot be looked at: {error.strerror or error}.") from error
    cases = [Case(p.name, p.absolute(), p.name) for p in inside if _is_slide(p)]
    cases += [
        Case(f"{patient.name}/{p.name}", p.absolute(), patient.name)
        for patient, paths in below.items()
        for p in paths
        if _is_slide(p)
    ]
    if not cases:
        raise ReviewError(f"There is no slide in {folder}, nor in the folders in it.")
    return tuple(cases)


def _is_ours(folder: Path) -> bool:
    return folder.name.endswith((".histomil", ".verdicts", ".zarr"))


def _is_slide(path: Path) -> bool:
    return path.name.lower().endswith(SLIDE_SUFFIXES) and not path.name.startswith(".")


def cases_of_table(table: Path) -> tuple[Case, ...]:
    """Return the cases of a table (CSV) with a column ``slide`` and, if known, others.

    ``patient`` says which slides belong together, ``label`` the right answer, ``case`` another
    name than the slide's; all other columns are facts. Paths are relative to the table.

    Raises
    ------
    ReviewError
        If it cannot be read, or lacks the column, or a line names no slide.
    """
    rows = read_rows(table, ReviewError)
    if not rows:
        raise ReviewError(f"{table} names no slide: give each a line below the header.")
    if "slide" not in rows[0]:
        raise ReviewError(f"{table} has no column slide; it has {listed(list(rows[0]))}.")
    short = Counter(Path(row["slide"]).name for row in rows)
    cases = []
    for line, row in enumerate(rows, 2):
        if not row["slide"]:
            raise ReviewError(f"{table}, line {line} names no slide.")
        slide = Path(row["slide"])
        name = row.get("case") or (slide.name if short[slide.name] == 1 else row["slide"])
        facts = {key: value for key, value in row.items() if key not in COLUMNS and value}
        where = slide if remote_url(slide) else table.parent.absolute() / slide
        cases.append(Case(name, where, row.get("patient") or name, row.get("label", ""), facts))
    return tuple(cases)


# --- the file ----------------------------------------------------------------------------------

_PLAIN = ("target", "positive", "rule", "threshold", "blind", "seed")


def write_project(project: Project) -> None:
    """Write a project's file, whole.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    folder = project.path.parent
    document = {
        "schema_version": SCHEMA_VERSION,
        "kind": "review",
        **{name: getattr(project, name) for name in _PLAIN},
        "models": project.models,
        "answers": project.answers,
        "results": None if project.results is None else _relative(project.results, folder),
        "form": form_as_json(project.form),
        "cases": [
            {
                "name": case.name,
                "slide": _relative(case.slide, folder),
                "patient": case.patient,
                **({"label": case.label} if case.label else {}),
                **({"facts": dict(case.facts)} if case.facts else {}),
            }
            for case in project.cases
        ],
    }
    with whole_file(project.path) as part:
        text = json.dumps(document, indent=1, ensure_ascii=False)
        part.write_text(text + "\n", encoding="utf-8")


def _relative(path: Path, folder: Path) -> str:
    """Return a path as it is found again when the folder is moved with it."""
    address = remote_url(path)
    if address is not None:
        return address
    try:
        return Path(os.path.relpath(path, folder)).as_posix()
    except ValueError:  # another drive
        return str(path)


def read_project(path: Path) -> Project:
    """Read a project's file.

    Raises
    ------
    ReviewError
        If it cannot be read, is none, or of a newer version.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ReviewError(f"{path} cannot be read as a review project: {brief(error)}.") from error
    if not isinstance(document, dict) or document.get("kind") != "review":
        raise ReviewError(f"{path} is no review project of this program.")
    version = document.get("schema_version")
    if not isinstance(version, int) or version > SCHEMA_VERSION:
        raise ReviewError(
            f"{path} was written by a newer version of this program: update napari-histomil."
        )
    path = path.absolute()
    try:
        results = document["results"]
        return Project(
            path=path,
            cases=tuple(_case(each, path.parent) for each in document["cases"]),
            models=_words(document["models"]),
            answers=_words(document["answers"]),
            results=None if results is None else _found(results, path.parent),
            form=form_from_json(document["form"], f"The form of {path.name}"),
            target=str(document["target"]),
            positive=str(document["positive"]),
            rule=str(document["rule"]),
            threshold=float(document["threshold"]),
            blind=bool(document["blind"]),
            seed=int(document["seed"]),
        )
    except (HistomilError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise ReviewError(f"{path} is a damaged review project: {brief(error)}.") from error


def _case(member: Mapping[str, Any], folder: Path) -> Case:
    return Case(
        name=str(member["name"]),
        slide=_found(member["slide"], folder),
        patient=str(member["patient"]),
        label=str(member.get("label", "")),
        facts={str(k): str(v) for k, v in member.get("facts", {}).items()},
    )


def _found(text: str, folder: Path) -> Path:
    return Path(text) if remote_url(text) else Path(os.path.normpath(folder / text))


def _words(values: Iterable[Any]) -> tuple[str, ...]:
    return tuple(str(value) for value in values)
