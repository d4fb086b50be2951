"""The verbs ``features`` (an encoder over slides) and ``bag`` (what a file of features holds)."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
from napari_histomil.errors import ModelError, OutputError

if TYPE_CHECKING:
    from napari_histomil.cli.shared import Subparsers
    from napari_histomil.inference.job import Job, Progress
    from napari_histomil.manifest import ModelManifest
    from napari_histomil.results import FeatureStore
    from napari_histomil.results.bag import Bag
    from napari_histomil.slides.slide import SlideInfo

FORMATS = ("clam", "trident")

EXAMPLES = """\
  histomil features uni2-h *.svs -o features
  histomil features phikon slide.svs --mpp 4 --mpp 2 --mpp 0.5 -o features
                                three magnifications, nested: of each tile of
                                the lowest all children, also on glass
  histomil features timm/resnet50.a1_in1k slide.svs --mpp 1 -o features
  histomil features uni slide.svs --weights pytorch_model.bin -o features
  histomil features ./my-encoder *.svs -o out --format clam --format trident
                                their trees too, for their tools

ENCODER is a published encoder (see 'histomil models encoders'), timm/<net>, a
model that embeds, or a patch classifier, which then embeds by all but its last
layer. Cancelled (Ctrl-C) or killed, the same command goes on where it stopped.
The path of each run is printed on stdout, the lowest magnification first."""

BAG_EXAMPLES = """\
  histomil bag features/h5_files/slide.h5 --slide slide.svs
  histomil bag features.h5 --tile-px0 512 --mpp 1.14
  histomil bag 20x_256px_0px_overlap/features_uni_v1/slide.h5 --json
  histomil bag a.zarr b.zarr -o out --format trident"""


def add_parser(subparsers: Subparsers) -> None:
    """Add the verbs of this file."""
    parser = add_verb(
        subparsers,
        "features",
        features,
        "features of the tiles of slides, for models of whole slides",
        "Run an encoder over the tissue of slides and keep an embedding of each tile (float16) as "
        "a run: one folder <id>.zarr a slide and magnification.",
        EXAMPLES,
    )
    parser.add_argument("encoder", metavar="ENCODER", help="name, timm/<net>, or a model's folder")
    parser.add_argument("slides", metavar="SLIDE", type=Path, nargs="+", help="slides to look at")
    parser.add_argument(
        "-o",
        "--out",
        metavar="OUT",
        type=Path,
        help="folder for the results; beside each slide by default",
    )
    parser.add_argument(
        "--mpp",
        metavar="MPP",
        type=positive(float),
        action="append",
        default=[],
        help="µm/px to work at, other than the encoder's; given several times, as many "
        "magnifications, whole multiples of each other",
    )
    parser.add_argument(
        "--stride",
        metavar="PX",
        type=positive(int),
        help="distance between tiles in their own pixels; the encoder's own by default, which is "
        "the side of a tile",
    )
    parser.add_argument(
        "--weights",
        metavar="FILE",
        type=Path,
        help="weights of a published encoder or of timm/<net> that you have: safetensors, or a "
        "checkpoint of torch that holds tensors only",
    )
    parser.add_argument(
        "--tta",
        action="store_true",
        help="test-time augmentation: the mean over the eight turns and flips of a tile, eight "
        "times the work; kept as another run",
    )
    parser.add_argument(
        "--format",
        choices=FORMATS,
        action="append",
        default=[],
        help="write the features as CLAM's or TRIDENT's tree too, into OUT/clam and OUT/trident",
    )
    add_slide_mpp(parser)
    add_reader(parser)
    add_icc(parser, "only for encoders that were trained on such; it is another run")
    add_run_options(parser)
    add_models(parser)
    parser.add_argument(
        "--json",
        action="store_true",
        help="one JSON line a run on stdout instead of its path: run, encoder, mpp, tiles, dim, "
        "seconds, device",
    )

    parser = add_verb(
        subparsers,
        "bag",
        bag_verb,
        "what a file of features holds, checked against its slide",
        "Read features of CLAM, TRIDENT or others, or runs of 'histomil features' (several "
        "magnifications of one slide), say what they are, check them against the slide, and write "
        "them in another program's layout if asked.",
        BAG_EXAMPLES,
    )
    parser.add_argument("files", metavar="BAG", type=Path, nargs="+", help="file, or runs")
    parser.add_argument("--slide", metavar="SLIDE", type=Path, help="whose features they shall be")
    parser.add_argument(
        "--tile-px0",
        metavar="PX",
        type=positive(float),
        help="side of a tile in pixels of the slide's full resolution, if the file does not say",
    )
    parser.add_argument(
        "--mpp", metavar="MPP", type=positive(float), help="µm/px of the tiles, likewise"
    )
    parser.add_argument("--encoder", metavar="NAME", help="whose features they are, likewise")
    parser.add_argument(
        "--format",
        choices=FORMATS,
        action="append",
        default=[],
        help="write them as CLAM's or TRIDENT's tree, into OUT/clam and OUT/trident",
    )
    parser.add_argument("-o", "--out", metavar="OUT", type=Path, help="folder for these")
    add_slide_mpp(parser)
    add_reader(parser)
    parser.add_argument("--json", action="store_true", help="one JSON object")


# --- features ---------------------------------------------------------------------------------


def features(args: argparse.Namespace) -> int:
    """Run an encoder over slides, one after the other; a failing one does not stop the rest."""
    _check_out(args)
    encoder = find_encoder(args.encoder, args.models, args.weights)
    return over_slides(args.slides, lambda path, stop: _embed_slide(args, encoder, path, stop))


def find_encoder(name: str, models: list[Path], weights: Path | None = None) -> ModelManifest:
    """Return what embeds tiles: a model, or a published encoder, which is got if need be.

    Raises
    ------
    ModelError
        If there is none of that name, it cannot be had, or it cannot embed.
    """
    from napari_histomil.manifest import find_model
    from napari_histomil.nets.encoders import as_encoder
    from napari_histomil.nets.fetching import fetch_encoder, is_encoder_name

    published = is_encoder_name(name) and not Path(name).is_dir()
    if weights is not None and not published:
        raise ModelError(
            f"--weights is for published encoders and timm/<net>: {name} is neither, see "
            f"'histomil models encoders'."
        )
    if not published:
        return as_encoder(find_model_near(name, models))
    if weights is None and "/" not in name:
        try:
            return as_encoder(find_model(name, models))
        except ModelError:
            pass  # not got yet: the hub is asked
    return fetch_encoder(name, weights=weights, say=say)


def _check_out(args: argparse.Namespace) -> None:
    if args.format and args.out is None:
        raise OutputError(f"--format {args.format[0]} writes a tree of files: say where with -o.")


def _embed_slide(args: argparse.Namespace, encoder: ModelManifest, path: Path, stop: Stop) -> None:
    """Run the encoder over one slide at all magnifications, and print where the runs are."""
    with open_slide_with(path, args.slide_mpp, reader=args.reader, icc=args.icc) as slide:
        info = slide.info
    jobs = _plan(args, encoder, info)
    from napari_histomil.results import FeatureStore

    stores = []
    for job in jobs:
        last = run_job(args, job, path.name, stop)
        if last is None:
            return
        store = FeatureStore.open(last.store)
        stores.append(store)
        for line in _summary(store, last):
            say(f"{path.name}: {line}")
        print(json.dumps(_run_json(store, last)) if args.json else last.store, flush=True)
    if args.format:
        from napari_histomil.results.bag import bag_of_runs

        _write(bag_of_runs(stores), args.format, args.out)


def _plan(args: argparse.Namespace, encoder: ModelManifest, info: SlideInfo) -> list[Job]:
    """Return a job a magnification, the lowest first; the others lie within its tiles."""
    from napari_histomil.inference.job import plan_job

    jobs: list[Job] = []
    for mpp in sorted(set(args.mpp), reverse=True) or [None]:
        job = plan_job(
            info,
            encoder,
            region=region_spec(args.region, info),
            stain=args.stain,
            condition=args.stain_condition,
            mpp=mpp,
            stride_px=args.stride,
            reader=args.reader,
            icc=args.icc,
            tta=args.tta,
            within=jobs[0].grids[0] if jobs else None,
        )
        jobs.append(job)
    return jobs


def _summary(store: FeatureStore, last: Progress) -> Iterator[str]:
    spec = store.grid.spec
    what = f"{last.total} tiles of {spec.tile_px} px at {spec.mpp:g} µm/px"
    new = last.total - last.resumed
    if new:
        resumed = f", {last.resumed} were done before" if last.resumed else ""
        device = store.sessions[-1]["device"]
        yield (
            f"{what}, {store.dim} values each, in {last.seconds:.1f} s, "
            f"{last.tiles_per_second:.0f} tiles/s on {device}{resumed}"
        )
    else:
        yield f"{what}: all were done before"
    if store.skipped:
        yield f"{len(store.skipped)} tiles were skipped because they could not be read"
    yield from (f"note: {text}" for text in store.warnings)


def _run_json(store: FeatureStore, last: Progress) -> dict[str, Any]:
    return {
        "run": str(last.store),
        "encoder": store.model["name"],
        "mpp": store.grid.spec.mpp,
        "tiles": last.total,
        "dim": store.dim,
        "seconds": round(last.seconds, 3),
        "device": str(store.sessions[-1]["device"]) if store.sessions else None,
    }


def _write(bag: Bag, formats: list[str], out: Path) -> None:
    """Write a bag as trees of other programs, and say where."""
    from napari_histomil.exchange.bag_files import WRITERS

    for name in dict.fromkeys(formats):
        for path in WRITERS[name](bag, out / name):
            say(f"{bag.slide.name}: {path}")


# --- bag --------------------------------------------------------------------------------------


def bag_verb(args: argparse.Namespace) -> int:
    """Say what a bag is; write it in other layouts if asked."""
    from napari_histomil.exchange.bags import read_bag
    from napari_histomil.results import FeatureStore
    from napari_histomil.results.bag import bag_of_runs

    _check_out(args)
    info = None
    if args.slide is not None:
        with open_slide_with(args.slide, args.slide_mpp, reader=args.reader) as slide:
            info = slide.info
    if len(args.files) > 1:
        bag = bag_of_runs([FeatureStore.open(path) for path in args.files])
    else:
        bag = read_bag(
            args.files[0],
            slide=info,
            side_px0=args.tile_px0,
            mpp=args.mpp,
            encoder=args.encoder,
        )
    facts = _bag_json(bag)
    if args.json:
        print(json.dumps(facts, indent=1))
    else:
        encoder = facts["encoder"] or "an encoder that nobody names"
        print(f"{facts['slide']}: features of {encoder}, {facts['dim']} values a tile")
        for level in facts["levels"]:
            mpp = "µm/px not known" if level["mpp"] is None else f"{level['mpp']:.4g} µm/px"
            width, height = level["side_px0"]
            print(f"{level['tiles']} tiles of {width:g} x {height:g} px of the slide, {mpp}")
    if args.format:
        _write(bag, args.format, args.out)
    return 0


def _bag_json(bag: Bag) -> dict[str, Any]:
    return {
        "slide": bag.slide.name,
        "slide_size_px0": bag.slide.size_px0,
        "encoder": bag.encoder and bag.encoder.name,
        "dim": bag.dim,
        "levels": [
            {"tiles": len(level), "side_px0": list(level.side_px0), "mpp": level.mpp}
            for level in bag.levels
        ],
    }
