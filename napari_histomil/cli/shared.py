"""What several verbs share: how a verb is declared, options of slides and models, complaints."""

from __future__ import annotations

import argparse
import difflib
import os
import re
import sys
import textwrap
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from napari_histomil.errors import ModelError, OutputError
from napari_histomil.slides import READER_NAMES

if TYPE_CHECKING:
    from napari_histomil.manifest import ModelManifest
    from napari_histomil.slides.slide import Slide

    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]

Verb = Callable[[argparse.Namespace], int]
Mpp = tuple[float, float]


def add_verb(
    subparsers: Subparsers, name: str, verb: Verb, summary: str, description: str, examples: str
) -> argparse.ArgumentParser:
    """Declare a verb and return its parser.

    Parameters
    ----------
    subparsers
        What ``add_parser`` of a family was given.
    name
        How the person calls it.
    verb
        What does it: takes the arguments, returns the exit code.
    summary
        One line for the list of verbs.
    description
        What it does and what comes out.
    examples
        Commands with what they are for, shown at the end of ``--help``.
    """
    parser = subparsers.add_parser(
        name,
        help=summary,
        description=textwrap.fill(description, 78),
        epilog=f"examples:\n{examples}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(verb=verb)
    return parser


def add_slide_mpp(parser: argparse.ArgumentParser) -> None:
    """Add ``--slide-mpp``."""
    parser.add_argument(
        "--slide-mpp",
        metavar="MPP",
        type=slide_mpp,
        help="µm that one pixel of the slide spans (or X,Y), where the file does not say it or "
        "says it wrong; remembered for the slide. 0.25 is common for 40x, 0.5 for 20x",
    )


def add_reader(parser: argparse.ArgumentParser) -> None:
    """Add ``--reader``."""
    parser.add_argument(
        "--reader",
        choices=READER_NAMES,
        help="read the slide this way, other than the one chosen for its format (see "
        "'histomil info')",
    )


def add_icc(parser: argparse.ArgumentParser, use: str) -> None:
    """Add ``--icc``; `use` says what is done with the converted colours."""
    parser.add_argument(
        "--icc", action="store_true", help=f"convert colours to sRGB by the file's profile: {use}"
    )


def add_models(parser: argparse.ArgumentParser) -> None:
    """Add ``--models``."""
    parser.add_argument(
        "--models",
        metavar="FOLDER",
        type=Path,
        action="append",
        default=[],
        help="folder in which models are looked for first; may be given several times. Then come "
        "those in HISTOMIL_MODELS, your own, and those that came with the program",
    )


def add_output(parser: argparse.ArgumentParser) -> None:
    """Add ``-o FILE`` and ``--force``."""
    parser.add_argument(
        "-o", "--output", metavar="FILE", type=Path, required=True, help="file to write"
    )
    parser.add_argument("--force", action="store_true", help="write over a file that exists")


def slide_mpp(text: str) -> Mpp:
    """Read ``0.5`` or ``0.25,0.26``."""
    parts = text.split(",")
    try:
        values = [float(part) for part in parts]
    except ValueError:
        values = []
    if len(values) not in (1, 2) or not all(0 < value < float("inf") for value in values):
        raise argparse.ArgumentTypeError(
            f"'{text}' is not a number of µm above 0, like 0.25 (or two, for x and y: 0.25,0.26)"
        )
    return values[0], values[-1]


def positive(kind: type[int] | type[float]) -> Callable[[str], float]:
    """Return a reader of numbers above 0."""

    def read(text: str) -> float:
        try:
            value = kind(text)
        except ValueError:
            value = kind(0)
        if not 0 < value < float("inf"):
            whole = "whole " if kind is int else ""
            raise argparse.ArgumentTypeError(f"'{text}' is not a {whole}number above 0")
        return value

    return read


def say(text: str) -> None:
    """Tell the person something on stderr."""
    print(text, file=sys.stderr, flush=True)


def open_slide_with(
    path: Path, mpp: Mpp | None, *, reader: str | None = None, icc: bool = False
) -> Slide:
    """Open a slide; µm/px that the person gave are used and remembered for it."""
    from napari_histomil.slides.readers import open_slide
    from napari_histomil.slides.remembered import remember_mpp

    slide = open_slide(path, mpp=mpp, reader=reader, icc=icc)
    if mpp is not None:
        try:
            remember_mpp(slide.info, mpp)
        except OutputError as error:
            say(f"{error} They hold for this time only.")
        else:
            say(f"{_mpp_text(mpp)} µm/px is remembered for {path.name}.")
    return slide


def window_problem() -> str | None:
    """Return why no window can be opened here, in one sentence; None if nothing is known."""
    for package in ("napari", "qtpy"):
        if find_spec(package) is None:
            return (
                f"The window needs napari and a Qt, and {package} is missing: "
                f'pip install "napari-histomil[all]".'
            )
    screens = ("DISPLAY", "WAYLAND_DISPLAY", "QT_QPA_PLATFORM")
    if sys.platform == "linux" and not any(os.environ.get(name) for name in screens):
        return "There is no screen for a window here (DISPLAY is not set)."
    return None


def find_model_near(name: str, models: Sequence[Path], *, zoo: bool = False) -> ModelManifest:
    """Return a model by name or folder; of an unknown name, say which one may be meant.

    With `zoo` the WSInfer zoo is asked for a name that is unknown here, and its model downloaded.

    Raises
    ------
    ModelError
        If there is no such model or it is broken.
    """
    from napari_histomil.manifest import find_model, list_models
    from napari_histomil.manifest.schema import MODEL_NAME

    try:
        return find_model(name, models)
    except ModelError as error:
        found = _from_zoo(name) if zoo and re.fullmatch(MODEL_NAME, name) else None
        if found is not None:
            return found
        known = [] if Path(name).exists() else [model.name for model in list_models(models)[0]]
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
        if not near:
            raise
        raise ModelError(f"{error} Did you mean {near[0]}?") from error


def _from_zoo(name: str) -> ModelManifest | None:
    """Return a model of the zoo, downloaded; None if it has none, or cannot be asked."""
    from napari_histomil.manifest import load_manifest
    from napari_histomil.manifest.zoo import fetch, registry

    try:
        known = registry()
    except ModelError as error:
        say(f"The WSInfer zoo could not be asked: {error}")
        return None
    if name not in known:
        return None
    say(f"{name} is a model of the WSInfer zoo: downloading it ...")
    return load_manifest(fetch(name))


def new_file(path: Path, *, force: bool) -> Path:
    """Return `path` if it may be written.

    Raises
    ------
    OutputError
        If there is such a file and the person did not say ``--force``.
    """
    if path.exists() and not force:
        raise OutputError(f"{path} exists already: choose another name, or add --force.")
    return path


def refuse_old_model(folder: Path, *, force: bool) -> None:
    """Refuse to write over a model, unless the person has said so."""
    from napari_histomil.manifest.model import MODEL_FILE

    if (folder / MODEL_FILE).exists() and not force:
        raise OutputError(f"{folder} holds a model: choose another folder, or add --force.")


def keep_recipe(recipe: Path, folder: Path, name: str) -> None:
    """Copy a configuration beside the card of the model it made, which says that it lies there."""
    from napari_histomil.files import whole_file

    copy = folder / name
    if not (copy.exists() and copy.samefile(recipe)):
        with whole_file(copy) as part:
            part.write_bytes(recipe.read_bytes())


def _mpp_text(mpp: Mpp) -> str:
    return f"{mpp[0]:g}" if mpp[0] == mpp[1] else f"{mpp[0]:g} x {mpp[1]:g}"
