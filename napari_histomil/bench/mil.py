"""What MIL costs: attention against its matrix products, TransMIL's memory, zooming against all.

Nets have random weights: what they cost does not depend on what they have learnt. Of ZoomMIL it
depends on how many tiles it zooms into, which is stated.
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import safetensors.torch
import torch
from torch.utils.flop_counter import FlopCounterMode

from napari_histomil.bench.figures import AT_MOST, Figure
from napari_histomil.bench.peak import peak_bytes
from napari_histomil.exchange.bags import read_bag
from napari_histomil.heatmaps import picture_of_cells
from napari_histomil.inference.backends import prepare_net
from napari_histomil.inference.devices import resolve_device
from napari_histomil.inference.engine import run
from napari_histomil.inference.job import plan_job
from napari_histomil.inference.mil_bag import run_on_bag
from napari_histomil.inference.mil_models import asked_checkpoints
from napari_histomil.inference.predictor import Predictor, cpu_batch
from napari_histomil.manifest import ModelManifest, load_manifest
from napari_histomil.manifest.model import MODEL_FILE
from napari_histomil.nets.encoders import as_encoder
from napari_histomil.nets.mil import build_mil
from napari_histomil.nets.mil.abmil import AttentionMIL
from napari_histomil.results import FeatureStore, open_mil_run
from napari_histomil.slides.readers import open_slide

INSTANCES, DIM = 100_000, 512
ATTENTION = 256
"""Width of the attention's layers, that of CLAM's small net."""

CLAM_INSTANCES, CLAM_DIM = 50_000, 1024

ZOOM_MPP = (8.0, 4.0, 1.0)
"""1.25x, 2.5x and 10x, as in the paper."""
ZOOM_TILE_PX = 192
ZOOM_K = 12


@dataclass(frozen=True, slots=True)
class AttentionFigures:
    """Gated attention on one bag, seconds."""

    attention: float
    products: float
    """The two matrix products that it consists of."""
    encoding: float
    """What the encoder takes for as many tiles."""


@dataclass(frozen=True, slots=True)
class ZoomFigures:
    """ZoomMIL against gated attention at the highest magnification, features included."""

    seconds: tuple[float, float]
    tiles: tuple[int, int]
    flops: tuple[float, float]


def measure_attention(encoder: ModelManifest, *, rounds: int, device: str) -> AttentionFigures:
    """Ask gated attention about a large bag, in turns with its two matrix products."""
    target = resolve_device(device)
    net = AttentionMIL(DIM, 2, gated=True, hidden=(), attention=ATTENTION).eval().to(target)
    bag = torch.randn(INSTANCES, DIM, generator=torch.Generator().manual_seed(0)).to(target)
    u = net.attention.u
    assert u is not None  # it is gated

    def products() -> torch.Tensor:
        # read, or a device would still be at it
        return (bag @ net.attention.v.weight.T)[0, 0] + (bag @ u.weight.T)[0, 0]

    sides: tuple[Callable[[], float], ...] = (
        lambda: float(net(bag).logits[0]),
        lambda: float(products()),
    )
    times: list[list[float]] = [[], []]
    with torch.inference_mode():
        for each in range(rounds + 1):
            for side, kept in zip(sides, times, strict=True):
                start = time.perf_counter()
                side()
                if each:  # the first warms up
                    kept.append(time.perf_counter() - start)
    attention, alone = (statistics.median(kept) for kept in times)
    return AttentionFigures(attention, alone, INSTANCES * _encoding_seconds(encoder, target))


def _encoding_seconds(encoder: ModelManifest, device: torch.device) -> float:
    """Return what the encoder takes for one tile, with all threads of the machine."""
    side = encoder.grid.tile_px
    net = prepare_net(encoder, (side, side), device)
    batch = cpu_batch(net)
    tiles = np.random.default_rng(0).integers(0, 256, (batch, side, side, 3)).astype(np.uint8)
    predictor = Predictor(net, encoder, batch)
    predictor.scores(tiles)
    start, count = time.perf_counter(), 0
    while time.perf_counter() - start < 2:
        predictor.scores(tiles)
        count += batch
    return (time.perf_counter() - start) / count


def transmil_peak(instances: int = INSTANCES, dim: int = DIM) -> tuple[int, int, float]:
    """Ask TransMIL about a large bag; return the process's peak before and after, and seconds."""
    net = build_mil("transmil", dim, 2).eval()
    bag = torch.randn(instances, dim, generator=torch.Generator().manual_seed(0))
    before, start = peak_bytes(), time.perf_counter()
    with torch.inference_mode():
        output = net(bag)
    assert len(output.maps[-1].index) == instances  # with its map
    return before, peak_bytes(), time.perf_counter() - start


def write_clam_files(
    folder: Path, *, side_px0: int = 256, instances: int = CLAM_INSTANCES
) -> tuple[Path, Path]:
    """Write features of tiles in a square, and a checkpoint that takes them, as CLAM does.

    Returns
    -------
    tuple of Path
        Features, checkpoint.
    """
    random = np.random.default_rng(0)
    columns = math.isqrt(instances - 1) + 1
    places = np.arange(instances)
    coords = np.stack([places % columns, places // columns], 1) * side_px0
    features = folder / "slide.h5"
    with h5py.File(features, "w") as file:
        file["coords"] = coords.astype(np.int64)
        file["features"] = random.standard_normal((instances, CLAM_DIM), np.float32)
    shapes = {
        "attention_net.0": (512, CLAM_DIM),
        "attention_net.3.attention_a.0": (256, 512),
        "attention_net.3.attention_b.0": (256, 512),
        "attention_net.3.attention_c": (1, 256),
        "classifiers": (2, 512),
        "instance_classifiers.0": (2, 512),
        "instance_classifiers.1": (2, 512),
    }
    state = {}
    for name, shape in shapes.items():
        state[f"{name}.weight"] = torch.randn(shape) * shape[1] ** -0.5
        state[f"{name}.bias"] = torch.zeros(shape[0])
    checkpoint = folder / "s_0_checkpoint.pt"
    torch.save(state, checkpoint)
    return features, checkpoint


def clam_seconds(folder: Path, device: str) -> float:
    """Return the seconds from CLAM's files, features and checkpoint, to an image of attention.

    Parameters
    ----------
    folder
        Empty; the files are made in it before the clock starts.
    device
        As for `run`.
    """
    side = 256
    features, checkpoint = write_clam_files(folder, side_px0=side)
    start = time.perf_counter()
    bag = read_bag(features, side_px0=side)
    asked = asked_checkpoints([checkpoint])
    answer = run_on_bag(bag, asked, origin=[features], out=folder / "out", device=device)
    shown = answer.maps[-1]
    assert shown.value is not None  # CLAM has attention
    level = answer.levels[-1]
    width, height = (level.xy_px0.max(0) + side).tolist()
    size = (round(width), round(height))
    picture_of_cells(level.xy_px0, level.side_px0, size).image(shown.value[0])
    return time.perf_counter() - start


def measure_zoom(
    encoder: ModelManifest, slide_path: Path, *, device: str, models: Sequence[Path]
) -> ZoomFigures:
    """Run both over the tissue of a slide, from its pixels to the answer."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        zoom = _model_folder(
            Path(name, "zoom"), encoder, "zoommil", ZOOM_MPP, k=ZOOM_K, magnifications=3
        )
        plain = _model_folder(Path(name, "plain"), encoder, "gated-attention", ZOOM_MPP[-1:])
        found = [
            _end_to_end(model, slide_path, Path(name, f"out-{model.name}"), device, models)
            for model in (zoom, plain)
        ]
    side = ZOOM_TILE_PX
    of_tile = prepare_net(encoder, (side, side), torch.device("cpu")).flops
    (seconds, tiles, asked), (all_seconds, all_tiles, all_asked) = found
    return ZoomFigures(
        (seconds, all_seconds),
        (tiles, all_tiles),
        (tiles * of_tile + asked, all_tiles * of_tile + all_asked),
    )


def _end_to_end(
    model: ModelManifest, slide_path: Path, out: Path, device: str, models: Sequence[Path]
) -> tuple[float, int, float]:
    """Return the seconds of a job, the tiles that were encoded, and the FLOPs of the MIL net."""
    with open_slide(slide_path) as slide:
        job = plan_job(slide.info, model)
    start = time.perf_counter()
    *_, last = run(job, out=out, device=device, models=models)
    seconds = time.perf_counter() - start
    runs = open_mil_run(last.store).source.runs
    shutil.rmtree(last.store)
    with FlopCounterMode(display=False) as counter:  # the features are there: the net is asked
        *_, last = run(job, out=out, device=device, models=models)
    stores = [FeatureStore.open(last.store.parent / f"{run_id}.zarr") for run_id in runs]
    return seconds, sum(len(store.grid) for store in stores), float(counter.get_total_flops())


def _model_folder(
    folder: Path, encoder: ModelManifest, name: str, mpps: Sequence[float], **arguments: Any
) -> ModelManifest:
    """Write a MIL model with random weights that takes the encoder's features."""
    dim = encoder.embedding_dim
    assert dim is not None  # encoders say it
    torch.manual_seed(0)
    net = build_mil(name, dim, 2, **arguments)
    data = safetensors.torch.save(net.state_dict())
    folder.mkdir()
    (folder / "weights.safetensors").write_bytes(data)
    grids = [{"mpp": m, "tile_px": ZOOM_TILE_PX, "stride_px": ZOOM_TILE_PX} for m in mpps]
    document = {
        "schema_version": 1,
        "name": folder.name,
        "description": "Random weights, to measure what a MIL model costs.",
        "task": "mil",
        "architecture": {"name": f"mil/{name}", "arguments": arguments},
        "weights": {
            "file": "weights.safetensors",
            "format": "safetensors",
            "sha256": hashlib.sha256(data).hexdigest(),
        },
        "classes": [
            {"name": "negative", "color": [90, 90, 180]},
            {"name": "positive", "color": [200, 50, 50]},
        ],
        "activation": "softmax",
        "positive_class": "positive",
        "grid": grids[-1],
        "mil": {
            "encoder": {"name": encoder.name, "sha256": encoder.sha256, "dim": dim},
            "grids": grids,
        },
        "licence": "BSD-3-Clause",
    }
    (folder / MODEL_FILE).write_text(json.dumps(document), encoding="utf-8")
    return load_manifest(folder)


def measure_mil(
    encoder: ModelManifest,
    slide_path: Path,
    *,
    device: str,
    models: Sequence[Path],
    rounds: int,
    say: Callable[[str], None],
    in_own_process: Callable[..., Any],
) -> list[Figure]:
    """Measure everything, and return it as figures.

    Parameters
    ----------
    encoder
        An encoder, or a patch classifier whose features are taken.
    slide_path
        The slide over which whole jobs are run.
    device, models
        As of `run`.
    rounds
        How often short things are measured.
    say
        Told what comes next.
    in_own_process
        Calls a function with arguments in a fresh Python and returns what it gives.
    """
    encoder = as_encoder(encoder)
    say("gated attention on 100,000 patches, in turns with its matrix products ...")
    a = measure_attention(encoder, rounds=rounds, device=device)
    say("TransMIL on 100,000 patches, in a process of its own ...")
    before, peak, seconds = in_own_process(transmil_peak)
    say("CLAM's features and checkpoint, 50,000 patches ...")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        click = clam_seconds(Path(name), device)
    say("ZoomMIL and gated attention over the slide, from pixels to the answer ...")
    z = measure_zoom(encoder, slide_path, device=device, models=models)
    levels = ", ".join(f"{mpp:g}" for mpp in ZOOM_MPP)
    return [
        Figure(
            f"gated attention on {INSTANCES:,} x {DIM} against its two matrix products",
            a.attention / a.products, AT_MOST, 1.2,
            note=f"{a.attention:.2f} and {a.products:.2f} s; width {ATTENTION}",
        ),
        Figure(
            f"the same against encoding as many tiles with {encoder.name}",
            100 * a.attention / a.encoding, AT_MOST, 1.0, "%",
            note=f"{a.encoding:.0f} s, scaled up from 2 s",
        ),
        Figure(
            f"TransMIL with its map on {INSTANCES:,} x {DIM}: peak of the process",
            peak / 2**30, AT_MOST, 4.0, "GiB",
            note=f"{before / 2**30:.2f} of it the program and the bag; {seconds:.1f} s",
        ),
        Figure(
            f"from CLAM's features and checkpoint to the heatmap, {CLAM_INSTANCES:,} x {CLAM_DIM}",
            click, AT_MOST, 3.0, "s",
        ),
        Figure(
            f"gated attention at {ZOOM_MPP[-1]:g} µm/px against ZoomMIL at {levels} µm/px, "
            f"k = {ZOOM_K}: time (the paper: 12.7)",
            z.seconds[1] / z.seconds[0],
            note=f"{z.seconds[1]:.1f} and {z.seconds[0]:.1f} s; {z.tiles[1]:,} and "
            f"{z.tiles[0]:,} tiles encoded",
        ),
        Figure(
            "the same: floating-point operations (the paper's efficient form: 40)",
            z.flops[1] / z.flops[0],
            note=f"{z.flops[1] / 1e12:.2f} and {z.flops[0] / 1e12:.2f} TFLOP",
        ),
    ]  # fmt: skip
