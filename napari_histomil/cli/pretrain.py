"""The verb ``pretrain``."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

from napari_histomil.cli.shared import add_verb, keep_recipe, refuse_old_model, say
from napari_histomil.cli.train import DATA_VARIABLE, is_told, watch

if TYPE_CHECKING:
    from napari_histomil.cli.shared import Subparsers
    from napari_histomil.training.selfsupervised.loop import PretrainProgress


def add_parser(subparsers: Subparsers) -> None:
    """Add the verb of this file."""
    parser = add_verb(
        subparsers,
        "pretrain",
        pretrain,
        "learn an encoder from tissue without labels",
        "Let a net learn from unlabelled tiles or slides by SimCLR, BYOL, MoCo v3 or DINO, as a "
        "TOML file describes it, and write its backbone as a model folder that trainings can "
        "begin with. Stopped (Ctrl-C) or killed, the same command goes on where it was. Prints "
        "the folder.",
        "  histomil pretrain pretrain.toml --data DATA -o my-encoder\n"
        "  histomil models show ./my-encoder            what it is\n"
        '  and in the TOML of a training:  [network] encoder = "my-encoder"',
    )
    parser.add_argument("config", metavar="CONFIG.toml", type=Path, help="what to learn, and how")
    parser.add_argument(
        "-o", "--output", metavar="FOLDER", type=Path, required=True, help="model folder to write"
    )
    parser.add_argument(
        "--force", action="store_true", help="write over a model or a checkpoint that is there"
    )
    parser.add_argument(
        "--data",
        metavar="FOLDER",
        type=Path,
        help=f"folder that the paths in CONFIG.toml are relative to; by default {DATA_VARIABLE}, "
        "or else the folder of CONFIG.toml",
    )
    parser.add_argument("--device", default="cpu", help="auto, cpu, cuda or mps; cpu by default")
    parser.add_argument("--seed", type=int, default=0, help="random seed, 0 by default")


def pretrain(args: argparse.Namespace) -> int:
    """Pretrain and write a model folder."""
    from napari_histomil.cli import FAILED
    from napari_histomil.inference.devices import resolve_device
    from napari_histomil.training.loop import TrainingCancelled
    from napari_histomil.training.selfsupervised.checkpoint import CHECKPOINT_FILE
    from napari_histomil.training.selfsupervised.config import read_pretrain_config
    from napari_histomil.training.selfsupervised.pretrain import pretrain_encoder

    config = read_pretrain_config(args.config)
    refuse_old_model(args.output, force=args.force)
    if args.force:
        (args.output / CHECKPOINT_FILE).unlink(missing_ok=True)
    data = args.data or Path(os.environ.get(DATA_VARIABLE) or args.config.parent)
    device = str(resolve_device(args.device))
    going_on = (args.output / CHECKPOINT_FILE).exists()

    def tell(now: PretrainProgress) -> None:
        nonlocal going_on
        if going_on:
            say(f"Going on after step {now.step - 1}.")
            going_on = False
        if now.note:
            say(now.note)
        if is_told(now):
            say(
                f"{now.stage}: step {now.step} of {now.steps}, loss {now.loss:.3f}, spread "
                f"{now.spread:.2f}, {now.seconds_left:.0f} s left"
            )

    try:
        folder = watch(
            lambda cancel: pretrain_encoder(
                config, data, args.output, seed=args.seed, device=device, cancel=cancel
            ),
            tell,
        )
    except TrainingCancelled as error:
        say(f"{error} Run the same command again to go on, or with --force to begin anew.")
        return FAILED
    keep_recipe(args.config, folder, "pretrain.toml")
    print(folder)
    return 0
