"""The verb ``sidecars``: what is stored about slides, by size, and cleaned."""

from __future__ import annotations

import argparse
import json
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_histomil.cli.shared import add_verb, say
from napari_histomil.errors import RunError
from napari_histomil.files import remote_url

if TYPE_CHECKING:
    from napari_histomil.cli.shared import Subparsers
    from napari_histomil.results.stored import Cleaned, Part, Sidecar

CLEAN = "clean"

EXAMPLES = """\
  histomil sidecars                       all that are known on this computer
  histomil sidecars /data/slides          those in a folder and in its folders
  histomil sidecars --json | jq '.[].bytes'
  histomil sidecars clean /data/slides --overviews
                                          what would be deleted
  histomil sidecars clean /data/slides --overviews --runs --yes
  histomil sidecars clean slide.svs --all --yes
                                          everything, annotations too

Cleaning shows what it would delete; only with --yes it does. A run that is
being written is kept, and so are annotations, their journals and reviews
unless you say --all. A folder named "clean" is written ./clean."""


def add_parser(subparsers: Subparsers) -> None:
    """Add the verb of this file."""
    parser = add_verb(
        subparsers,
        "sidecars",
        sidecars,
        "what is stored about slides, by size; clean it",
        "List the folders in which work on slides is kept (SLIDE.histomil beside the slide, or "
        "in your data folder), largest first; or delete chosen parts of them.",
        EXAMPLES,
    )
    parser.add_argument(
        "words",
        metavar="[clean] FOLDER",
        nargs="*",
        help="folders to look into, slides, or sidecars; without any, all that are known",
    )
    parser.add_argument("--overviews", action="store_true", help="clean: pictures made of slides")
    parser.add_argument("--runs", action="store_true", help="clean: scores of models")
    parser.add_argument(
        "--all",
        action="store_true",
        help="clean: everything, also µm/px, views, annotations, journals and reviews",
    )
    parser.add_argument("--gone", action="store_true", help="only those whose slide is gone")
    parser.add_argument("--yes", action="store_true", help="clean: really delete")
    parser.add_argument("--json", action="store_true", help="one JSON list instead of a table")


def sidecars(args: argparse.Namespace) -> int:
    """List sidecars, or clean them."""
    from napari_histomil.results.stored import known_sidecars, sidecars_under

    cleaning = args.words[:1] == [CLEAN]
    paths = [Path(word).expanduser() for word in args.words[1 if cleaning else 0 :]]
    parts = _parts(args)
    if cleaning and not paths:
        raise RunError("Say whose work is to be cleaned: a slide, a sidecar or a folder of them.")
    if cleaning and not parts:
        raise RunError("Say what is to be cleaned: --overviews, --runs or --all.")
    if not cleaning and (parts or args.yes):
        raise RunError("Only 'histomil sidecars clean' deletes: say it, or leave those options.")
    for path in paths:
        if url := remote_url(path):
            raise RunError(f"{url} is an address: its work lies in one of 'histomil sidecars'.")
        beside = path.absolute().with_name(f"{path.absolute().name}.histomil")
        if not path.exists() and not beside.is_dir():
            raise RunError(f"There is no folder {path}.")
    found = sidecars_under(*paths) if paths else known_sidecars()
    if cleaning:  # what looks like one and is none is refused by name, not passed over
        _refuse_others(paths, found)
    if args.gone:
        found = [each for each in found if not each.slide_there]
    return _clean(found, parts, args) if cleaning else _list(found, as_json=args.json)


def _parts(args: argparse.Namespace) -> list[Part]:
    if args.all:
        return ["overviews", "runs", "answers", "drawn"]
    parts: list[Part] = []
    if args.overviews:
        parts.append("overviews")
    if args.runs:
        parts.append("runs")
    return parts


def _refuse_others(paths: list[Path], found: list[Sidecar]) -> None:
    ours = {each.path for each in found}
    for path in paths:
        if path.suffix == ".histomil" and path.absolute() not in ours:
            raise RunError(
                f"{path} is not cleaned: it is no folder of this program's work on a slide."
            )


def _list(found: list[Sidecar], *, as_json: bool) -> int:
    from napari_histomil.results.stored import size_text

    if as_json:
        print(json.dumps([_json(each) for each in found], indent=1))
        return 0
    if not found:
        say("No sidecars there.")
        return 0
    print(f"{'size':>9}  {'runs':>4}  {'last used':<10}  {'slide':<5}  path")
    for each in found:
        there = "there" if each.slide_there else "gone"
        print(
            f"{size_text(each.size):>9}  {each.runs:>4}  {_day(each.last_used):<10}  {there:<5}  "
            f"{each.path}"
        )
    total = sum(each.size for each in found)
    print(f"{size_text(total):>9}  in {len(found)} sidecar{'s' if len(found) > 1 else ''}")
    return 0


def _clean(found: list[Sidecar], parts: list[Part], args: argparse.Namespace) -> int:
    from napari_histomil.results.stored import clean, size_text

    answers: list[Cleaned] = [clean(each.path, parts, really=args.yes) for each in found]
    if args.json:
        print(json.dumps([_cleaned_json(each) for each in answers], indent=1))
    else:
        word = "deleted" if args.yes else "would delete"
        for answer in answers:
            for path in answer.deleted:
                print(f"{word}  {path}")
    for answer in answers:
        for why in answer.kept:
            say(why)
    total = sum(answer.size for answer in answers)
    if args.yes:
        say(f"{size_text(total)} freed.")
    elif total or any(answer.deleted for answer in answers):
        say(f"{size_text(total)} would be freed: nothing is deleted yet, add --yes.")
    else:
        say("There is nothing to delete.")
    return 1 if args.yes and any(answer.kept for answer in answers) else 0


def _json(each: Sidecar) -> dict[str, Any]:
    return {
        "path": str(each.path),
        "slide": str(each.slide),
        "slide_there": each.slide_there,
        "bytes": each.size,
        "bytes_of": dict(each.sizes),
        "runs": each.runs,
        "last_used": datetime.fromtimestamp(each.last_used).astimezone().isoformat("T", "seconds"),
    }


def _cleaned_json(each: Cleaned) -> dict[str, Any]:
    return {
        "path": str(each.path),
        "deleted": [str(path) for path in each.deleted],
        "bytes": each.size,
        "kept": list(each.kept),
    }


def _day(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).astimezone().strftime("%Y-%m-%d") if seconds else "-"
