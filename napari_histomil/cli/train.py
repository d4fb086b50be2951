"""The verb ``train``."""

from __future__ import annotations

import argparse
import math
import os
import signal
import threading
from collections.abc import Callable, Generator
from functools import partial
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, TypeVar

from napari_histomil.cli.shared import add_verb, keep_recipe, refuse_old_model, say

if TYPE_CHECKING:
    from napari_histomil.cli.shared import Subparsers
    from napari_histomil.training.loop import TrainingProgress

Progress = TypeVar("Progress", bound="TrainingProgress")
Result = TypeVar("Result")

DATA_VARIABLE = "HISTOMIL_DATA"


def add_parser(subparsers: Subparsers) -> None:
    """Add the verb of this file."""
    parser = add_verb(
        subparsers,
        "train",
        train,
        "train a patch classifier, a U-Net or a MIL model",
        "Train what a TOML file describes: a patch classifier, a segmentation, or (task = mil) a "
        "model of whole slides on the features of their tiles. Score it on groups of tissue or "
        "patients left out, and write a model folder with weights, model.json, card and "
        "curves. Minutes to hours on a CPU, depending on the steps. Stopped (Ctrl-C) or killed, "
        "the same command goes on where it was: what is not finished lies in FOLDER.training. "
        "Prints the folder. docs/training.md and docs/mil.md explain the file.",
        "  histomil train my-model/train.toml --data DATA -o my-model\n"
        "  histomil run my-model slide.svs -o out       use it at once",
    )
    parser.add_argument("config", metavar="CONFIG.toml", type=Path, help="what to train, and how")
    parser.add_argument(
        "-o", "--output", metavar="FOLDER", type=Path, required=True, help="model folder to write"
    )
    parser.add_argument("--force", action="store_true", help="write over a model that is there")
    parser.add_argument(
        "--fresh",
        action="store_true",
        help="begin anew, whatever lies unfinished in FOLDER.training",
    )
    parser.add_argument(
        "--data",
        metavar="FOLDER",
        type=Path,
        help=f"folder that the paths in CONFIG.toml are relative to; by default {DATA_VARIABLE}, "
        "or else the folder of CONFIG.toml",
    )
    parser.add_argument("--device", default="cpu", help="cpu, cuda or mps; cpu by default")
    parser.add_argument(
        "--seed", type=int, default=0, help="random seed of the finished net, 0 by default"
    )


def train(args: argparse.Namespace) -> int:
    """Train and write a model folder."""
    from napari_histomil.cli import FAILED
    from napari_histomil.training.loop import TrainingCancelled

    trainer = _trainer(args.config)
    refuse_old_model(args.output, force=args.force)
    data = args.data or Path(os.environ.get(DATA_VARIABLE) or args.config.parent)
    try:
        folder = watch(
            lambda cancel: trainer(
                data,
                args.output,
                seed=args.seed,
                device=args.device,
                cancel=cancel,
                resume=not args.fresh,
            ),
            tell,
        )
    except TrainingCancelled as error:
        say(f"{error} Run the same command again to go on, or with --fresh to begin anew.")
        return FAILED
    keep_recipe(args.config, folder, "train.toml")
    print(folder)
    return 0


def _trainer(path: Path) -> Callable[..., Generator[TrainingProgress, None, Path]]:
    """Return what trains what a file describes."""
    from napari_histomil.training.mil.config import is_mil

    if is_mil(path):
        from napari_histomil.training.mil.config import read_mil_config
        from napari_histomil.training.mil.recipe import train_mil

        return partial(train_mil, read_mil_config(path))
    from napari_histomil.training.config import read_config
    from napari_histomil.training.recipe import train_model

    return partial(train_model, read_config(path))


def watch(
    begin: Callable[[threading.Event], Generator[Progress, None, Result]],
    tell: Callable[[Progress], None],
) -> Result:
    """Go through all steps, tell each, and return what the last one gives.

    The first Ctrl-C while steps are made stops after the next one, with a checkpoint; before the
    first step, and a second time, it interrupts at once.
    """
    cancel = threading.Event()
    steps = begin(cancel)
    now: Progress | None = None

    def stop(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, before)
        if now is None:
            raise KeyboardInterrupt
        cancel.set()

    main = threading.current_thread() is threading.main_thread()  # others cannot handle signals
    before = signal.signal(signal.SIGINT, stop) if main else None
    try:
        while True:
            try:
                now = next(steps)
            except StopIteration as end:
                result: Result = end.value
                return result
            tell(now)
    finally:
        if main:
            signal.signal(signal.SIGINT, before)


def is_told(now: TrainingProgress) -> bool:
    """Whether a step has a line: every tenth of a stage has."""
    return now.step % max(now.steps // 10, 1) == 0 or now.step == now.steps


def tell(now: TrainingProgress) -> None:
    """Say how far a training is, in a line on stderr, if the step has one."""
    if not is_told(now):
        return
    scores = "".join(
        f", validation {name} {value:.3f}"
        for name, value in now.scores.items()
        if math.isfinite(value)
    )
    what = f"step {now.step} of {now.steps}, loss {now.loss:.3f}{scores}"
    if math.isnan(now.loss):  # a detector looks before a refiner learns
        what = f"tile {now.step} of {now.steps}"
    say(f"{now.stage}: {what}, {now.seconds_left:.0f} s left")
