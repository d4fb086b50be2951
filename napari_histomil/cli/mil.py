"""The verb ``mil``: models that answer for a whole slide, from features that are made or given."""

from __future__ import annotations

import argparse
import csv
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from napari_histomil.cli.running import (
    Stop,
    add_run_options,
    over_slides,
    region_spec,
    run_job,
)
from napari_histomil.cli.shared import (
    add_icc,
    add_models,
    add_reader,
    add_slide_mpp,
    add_verb,
    find_model_near,
    open_slide_with,
    positive,
    say,
)
from napari_histomil.errors import ModelError, OutputError, RunError

if TYPE_CHECKING:
    from napari_histomil.cli.shared import Subparsers
    from napari_histomil.inference.mil_models import Asked
    from napari_histomil.manifest import ModelManifest
    from napari_histomil.results import MilRun
    from napari_histomil.slides.slide import SlideInfo

CHECKPOINTS = (".pt", ".pth", ".ckpt", ".bin", ".safetensors")

EXAMPLES = """\
  histomil mil metastasis-mil-small *.svs -o out --csv answers.csv
  histomil mil ./my-mil slide.svs --member ./fold-1 --member ./fold-2 -o out
                         an ensemble: probability and its spread
  histomil mil ./my-mil slide.svs --dropout 20 --finer 2 -o out
  histomil mil s_0_checkpoint.pt slide.svs --features h5_files/slide.h5 -o out
                         CLAM's checkpoint on CLAM's features: seconds, no
                         pixel of the slide is read
  histomil mil s_0_checkpoint.pt --features features_uni_v1 -o out
                         all files of a folder, without their slides
  histomil export out/slide.svs.histomil/runs/<id>.zarr -o attention.h5
                         CLAM's heatmap; .geojson, _likelihood_map.tif, .png

Cancelled (Ctrl-C) or killed, the same command goes on where it stopped; a run
that is done costs nothing. Features are runs of their own beside it, as
'histomil features' makes them, and are used again by other models."""


def add_parser(subparsers: Subparsers) -> None:
    """Add the verb of this file."""
    parser = add_verb(
        subparsers,
        "mil",
        mil,
        "answer for whole slides, with attention",
        "Ask a model that answers for whole slides (multiple-instance learning): tissue, tiles "
        "and features are made, or given, and the answer is kept with its attention as a run. A "
        "table of the answers is printed, with the path of each run.",
        EXAMPLES,
    )
    parser.add_argument(
        "model",
        metavar="MODEL",
        help="name or folder of a model of the task mil, or a checkpoint of CLAM, MIL-Lab, "
        "TransMIL, DSMIL, ZoomMIL, ... (.pt, .safetensors), which needs --features",
    )
    parser.add_argument("slides", metavar="SLIDE", type=Path, nargs="*", help="slides to answer")
    parser.add_argument(
        "-o",
        "--out",
        metavar="OUT",
        type=Path,
        help="folder for the results; beside each slide by default",
    )
    parser.add_argument("--csv", metavar="FILE", type=Path, help="write the table to a file, too")
    parser.add_argument(
        "--features",
        metavar="PATH",
        type=Path,
        help="features that are there: a file of CLAM, TRIDENT or others, a run of features, or a "
        "folder of files named as the slides",
    )
    parser.add_argument(
        "--tile-px0",
        metavar="PX",
        type=positive(float),
        help="side of a tile in pixels of the slide's full resolution, if the file does not say",
    )
    parser.add_argument(
        "--feature-mpp",
        metavar="MPP",
        type=positive(float),
        help="µm/px of the tiles of the features, likewise",
    )
    parser.add_argument("--encoder", metavar="NAME", help="whose features they are, likewise")
    parser.add_argument(
        "--member",
        "--checkpoint",
        metavar="MODEL",
        dest="members",
        action="append",
        default=[],
        help="a further member of an ensemble, a model or a checkpoint as MODEL is; may be given "
        "several times",
    )
    parser.add_argument(
        "--k", metavar="K", type=positive(int), help="of a checkpoint of ZoomMIL, which lacks it"
    )
    parser.add_argument(
        "--classes",
        metavar="A,B,...",
        help="names of a checkpoint's classes, in the order of its outputs",
    )
    parser.add_argument(
        "--dropout",
        metavar="N",
        type=positive(int),
        default=0,
        help="say how sure the model is by N passes with dropout on",
    )
    parser.add_argument(
        "--finer",
        metavar="N",
        type=positive(int),
        default=1,
        help="make the map at a stride N times smaller, of models whose attention to a tile "
        "depends on that tile alone: N x N times the work. The answer stays",
    )
    add_slide_mpp(parser)
    add_reader(parser)
    add_icc(parser, "only for encoders that were trained on such; it is another run")
    add_run_options(parser)
    add_models(parser)


def mil(args: argparse.Namespace) -> int:
    """Ask a model about slides, one after the other; a failing one does not stop the rest."""
    bags = _bags(args)
    if args.csv is not None and not args.csv.parent.is_dir():
        raise OutputError(
            f"{args.csv} cannot be written: the folder {args.csv.parent} does not exist."
        )
    checkpoint = Path(args.model).suffix.lower() in CHECKPOINTS and Path(args.model).is_file()
    if checkpoint and args.features is None:
        raise RunError(
            f"{args.model} is a checkpoint, which does not say which encoder it takes features "
            f"of: give features that you have (--features)."
        )
    table = _Table(args.csv)
    if args.features is None:
        models = _mil_models(args)
        code = over_slides(
            args.slides, lambda path, stop: _run_slide(args, models, path, stop, table)
        )
    else:
        asked = _asked(args, checkpoint=checkpoint)

        def ask(path: Path, stop: Stop) -> None:
            table.add(_ask_bag(args, asked, path, bags[path]))

        code = over_slides(list(bags), ask)
    table.write()
    return code


def _bags(args: argparse.Namespace) -> dict[Path, Path]:
    """Return the file of features of each slide; of one without its slide, of the file itself."""
    if args.features is None:
        if not args.slides:
            raise RunError("There is no slide to answer for: name slides, or give --features.")
        return {}
    path: Path = args.features
    if not path.exists():
        raise RunError(f"There is no file or folder {path}: give one of features.")
    single = path.is_file() or path.suffix == ".zarr"
    if single and len(args.slides) > 1:
        raise RunError(
            f"{path} is of one slide, and {len(args.slides)} were named: give a folder."
        )
    if single:
        return {args.slides[0] if args.slides else path: path}
    files = {
        file.stem: file
        for end in (".pt", ".h5")  # of both the one with places counts
        for file in sorted(path.glob(f"*{end}"))
    }
    if not args.slides:
        if not files:
            raise RunError(f"The folder {path} holds no file of features (.h5, .pt).")
        return {file: file for file in files.values()}
    missing = [slide.name for slide in args.slides if slide.stem not in files]
    if missing:
        raise RunError(
            f"The folder {path} holds no features of {', '.join(missing[:3])}: files must be "
            f"named as the slides."
        )
    return {slide: files[slide.stem] for slide in args.slides}


def _asked(args: argparse.Namespace, *, checkpoint: bool) -> Asked:
    """Load the model and its members."""
    from napari_histomil.inference.mil_models import asked_checkpoints, asked_models

    if args.finer > 1:
        raise RunError("A finer map needs the slide's pixels: leave --features or --finer out.")
    if checkpoint:
        names = [name.strip() for name in args.classes.split(",")] if args.classes else []
        paths = [Path(args.model), *map(Path, args.members)]
        return asked_checkpoints(paths, k=args.k, class_names=names)
    return asked_models(_mil_models(args))


def _mil_models(args: argparse.Namespace) -> list[ModelManifest]:
    """Return the model and the further members, all of them folders."""
    for option, value in (("--k", args.k), ("--classes", args.classes)):
        if value is not None:
            raise RunError(f"{option} is for checkpoints: the model {args.model} says it itself.")
    models = [find_model_near(name, args.models) for name in (args.model, *args.members)]
    for model in models:
        if model.task != "mil":
            raise ModelError(
                f"{model.name} answers for tiles (task '{model.task}'), not for whole slides: see "
                f"'histomil run --help'."
            )
    return models


def _ask_bag(args: argparse.Namespace, asked: Asked, path: Path, features: Path) -> MilRun:
    """Ask about features that are there; `path` is the slide, or the features themselves."""
    from napari_histomil.exchange.bags import read_bag
    from napari_histomil.inference.mil_bag import run_on_bag

    info: SlideInfo | None = None
    if path != features:
        with open_slide_with(path, args.slide_mpp, reader=args.reader) as slide:
            info = slide.info
    bag = read_bag(
        features, slide=info, side_px0=args.tile_px0, mpp=args.feature_mpp, encoder=args.encoder
    )
    return run_on_bag(
        bag, asked, origin=[features], slide=info, out=args.out, device=args.device,
        passes=args.dropout,
    )  # fmt: skip


def _run_slide(
    args: argparse.Namespace,
    models: Sequence[ModelManifest],
    path: Path,
    stop: Stop,
    table: _Table,
) -> None:
    """Run the job of one slide, and add its answer to the table."""
    from napari_histomil.inference.job import MilSpec, ModelRef, plan_job

    model, *members = models
    with open_slide_with(path, args.slide_mpp, reader=args.reader, icc=args.icc) as slide:
        info = slide.info
    refs = tuple(ModelRef(m.name, m.path, m.sha256) for m in members)
    job = plan_job(
        info,
        model,
        region=region_spec(args.region, info),
        stain=args.stain,
        condition=args.stain_condition,
        reader=args.reader,
        icc=args.icc,
        mil=MilSpec(refs, args.dropout, args.finer),
    )
    last = run_job(args, job, path.name, stop)
    if last is not None:
        from napari_histomil.results import open_mil_run

        table.add(open_mil_run(last.store))


@dataclass(slots=True)
class _Table:
    """The answers so far: printed as they come, and written at the end."""

    file: Path | None
    rows: list[dict[str, str]] = field(default_factory=list)

    def add(self, run: MilRun) -> None:
        """Print an answer, with what is odd about it on stderr."""
        row = answer_row(run)
        if not self.rows:
            print("\t".join(row))
        self.rows.append(row)
        print("\t".join(row.values()), flush=True)
        for warning in run.warnings:
            say(f"{run.slide['name']}: note: {warning}")

    def write(self) -> None:
        """Write the table as CSV, if asked and there is any answer."""
        if self.file is None or not self.rows:
            return
        from napari_histomil.files import whole_file

        with (
            whole_file(self.file) as part,
            part.open("w", newline="", encoding="utf-8") as stream,
        ):
            writer = csv.DictWriter(stream, _columns(self.rows), lineterminator="\n")
            writer.writeheader()
            writer.writerows(self.rows)


def _columns(rows: Sequence[dict[str, str]]) -> list[str]:
    return list(dict.fromkeys(name for row in rows for name in row))


def answer_row(run: MilRun) -> dict[str, str]:
    """Return an answer as a row of the table: name of a column -> text."""
    answer = run.answer
    row = {"slide": str(run.slide["name"]), "answer": run.class_names[answer.predicted]}
    for name, value in zip(run.class_names, answer.probabilities, strict=True):
        row[f"prob_{name}"] = f"{value:.6g}"
    if answer.spread is not None:
        for name, value in zip(run.class_names, answer.spread, strict=True):
            row[f"sd_{name}"] = f"{value:.6g}"
    bag = [i for i, level in enumerate(run.levels) if level.finer_than is None]
    shown = [m for m in run.maps if m.level in bag and m.kind != "selection"]
    effective = shown[-1].effective_number if shown else None
    row["patches"] = str(sum(len(run.levels[i]) for i in bag))
    row["effective_patches"] = "" if effective is None else f"{effective.max():.1f}"
    row["warnings"] = str(len(run.warnings))
    row["run"] = str(run.path)
    return row
