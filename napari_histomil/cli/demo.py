"""The verb ``demo``: the whole journey on the sample slide, typed as a person would type it."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from napari_histomil.cli.shared import add_verb, say, window_problem

if TYPE_CHECKING:
    from napari_histomil.cli.shared import Subparsers

MODEL = "metastasis-patch-small"
SAMPLE = "synthetic-lymph-node.tiff"

EXAMPLES = """\
  histomil demo                       into demo-output/, then a window
  histomil demo -o DIR --no-window    files and a picture of the window only"""


def add_parser(subparsers: Subparsers) -> None:
    """Add the verb of this file."""
    parser = add_verb(
        subparsers,
        "demo",
        demo,
        "the sample slide, the shipped model, its heatmap",
        "Run the shipped model over the shipped sample slide, export the heatmap, and open both "
        "in the window. Every command is shown as it would be typed.",
        EXAMPLES,
    )
    parser.add_argument(
        "-o",
        "--out",
        metavar="DIR",
        type=Path,
        default=Path("demo-output"),
        help="folder for the run, the exports and the picture of the window (demo-output)",
    )
    parser.add_argument(
        "--no-window",
        action="store_true",
        help="close the window once its picture is taken",
    )


def demo(args: argparse.Namespace) -> int:
    """Go from the sample slide to its heatmap."""
    from napari_histomil.inference.job import plan_job
    from napari_histomil.manifest import find_model
    from napari_histomil.resources import packaged
    from napari_histomil.results import run_path
    from napari_histomil.slides.readers import open_slide

    out: Path = args.out
    slide = packaged("sample_data") / SAMPLE
    code = _type("info", slide) or _type("run", MODEL, slide, "-o", out)
    if code:
        return code
    with open_slide(slide) as sample:
        job = plan_job(sample.info, find_model(MODEL))
    run = run_path(slide, job.run_id, fingerprint=job.slide.fingerprint, out=out)
    for name in ("heatmap.png", "heatmap.ome.tif", "tiles.geojson", "tiles.csv"):
        code = _type("export", run, "-o", out / name, "--force")
        if code:
            return code
    return _show(slide, run, out / "window.png", stay=not args.no_window)


def _type(*words: str | Path) -> int:
    """Show a command and run it."""
    from napari_histomil.cli import main

    arguments = [str(word) for word in words]
    say(f"$ histomil {shlex.join(arguments)}")
    return main(arguments)


def _show(slide: Path, run: Path, picture: Path, *, stay: bool) -> int:
    """Open slide and run in the window, take its picture, and leave it to the person."""
    problem = window_problem()
    if problem:
        say(f"{problem} The files are complete.")
        return 0
    from napari_histomil.ui.window import open_window, screenshot_window, stay_open

    say(f"$ histomil view {shlex.join([str(slide), str(run)])}")
    viewer = open_window([slide], runs=[run], front="Overlay")
    screenshot_window(viewer, picture)
    print(picture)
    if stay:
        stay_open()
    else:
        viewer.close()
    return 0
