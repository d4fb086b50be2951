"""A model as another model folder: its net as a graph, and how far that one's answers are.

The graph keeps the model's facts: classes, grid, normalisation, temperature, scores. What changed
is measured on tiles and stands in the new `model.json` under ``export``.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image

from napari_histomil.errors import ModelError, brief
from napari_histomil.files import make_folder, whole_folder
from napari_histomil.inference.backends import Net, bare_net
from napari_histomil.inference.job import plan_job
from napari_histomil.inference.plan import select_tiles, spread_tiles
from napari_histomil.inference.tasks import TASKS
from napari_histomil.inference.tiles import TileReader
from napari_histomil.manifest import ModelManifest
from napari_histomil.manifest.model import MODEL_FILE
from napari_histomil.manifest.schema import MODEL_NAME
from napari_histomil.nets.export import in_int8, load_traced, to_onnx, to_torchscript
from napari_histomil.nets.load import load_module
from napari_histomil.nets.onnx_graph import OnnxGraph, runtime_version
from napari_histomil.resources import packaged
from napari_histomil.slides.readers import open_slide
from napari_histomil.slides.slide import Uint8Image

ExportFormat = Literal["onnx", "torchscript"]

FILES: dict[ExportFormat, str] = {"onnx": "model.onnx", "torchscript": "model.pt"}
CARD_FILE = "README.md"

TOLERANCE = 1e-3
"""Largest difference of a probability that a graph in float32 may have."""

SAMPLE_SLIDE = "synthetic-lymph-node.tiff"
SAMPLE_TILES = 16
INT8_TILES = 128
"""Tiles for int8 at most: half of them decide on ranges, on the others it is compared."""

LEAST_INT8_TILES = 8
BATCH = 4
PICTURES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")


@dataclass(frozen=True, slots=True)
class Difference:
    """How far answers are from those of the model that was exported."""

    tiles: int
    mean: float
    """Of the absolute difference of a probability."""
    largest: float
    argmax_changed: float
    """Share of tiles (of pixels, where a model segments) whose first class is another."""


def export_model(
    model: ModelManifest,
    kind: ExportFormat,
    folder: Path,
    *,
    tiles: Uint8Image,
    tiles_from: str,
    int8: bool = False,
) -> Difference:
    """Write a model as a folder with a graph instead of tensors.

    Parameters
    ----------
    model
        One of safetensors.
    kind
        ``onnx`` or ``torchscript``.
    folder
        Written whole or not at all; an earlier model there is replaced. Its name is the new
        model's.
    tiles
        uint8 [n, H, W, 3] on which answers are compared; for int8 every second one decides on
        the ranges of its numbers and the others are compared.
    tiles_from
        What they are, for the record.
    int8
        Whether ONNX computes in int8.

    Returns
    -------
    Difference
        As it stands in the new `model.json`.

    Raises
    ------
    ModelError
        If the model is a graph already, cannot be expressed, or the graph's answers are not the
        model's.
    OutputError
        If the folder cannot be written.
    """
    if model.weights_format != "safetensors":
        raise ModelError(
            f"{model.name} has no tensors of its own ({model.weights_format}): only models of "
            f"safetensors are exported."
        )
    if model.inputs:
        raise ModelError(
            f"{model.name} is a step of a chain that looks at a heatmap, not at tiles: such "
            f"models are not exported."
        )
    if not re.fullmatch(MODEL_NAME, folder.name):
        raise ModelError(
            f"{folder.name!r} cannot be a model's name: name the folder with letters, digits, "
            f"'.', '_' and '-'."
        )
    if int8 and len(tiles) < LEAST_INT8_TILES:
        raise ModelError(
            f"{len(tiles)} tiles from {tiles_from} are too few to decide on the ranges of int8: "
            f"give at least {LEAST_INT8_TILES}."
        )
    net = bare_net(load_module(model), model)
    example = net.scaled(torch.from_numpy(tiles[[0, -1]])).contiguous()
    compared = tiles
    if kind == "torchscript":
        data = to_torchscript(net.module, example)
    else:
        data = to_onnx(net.module, example)
        if int8:
            data = in_int8(data, [net.scaled(part).numpy() for part in _batches(tiles[::2])])
            compared = tiles[1::2]
    difference = compare(net, _with_graph(net, data, kind), model, compared)
    allowed = 1.0 if int8 else TOLERANCE  # int8 does change them: how much is stated
    if not difference.largest <= allowed:
        raise ModelError(
            f"{model.name} as {kind} gives other probabilities, by up to "
            f"{difference.largest:.2g}, where {allowed:g} is allowed: it is not written."
        )
    _write(model, kind, folder, data, difference, tiles_from, int8=int8)
    return difference


def compare(net: Net, other: Net, model: ModelManifest, tiles: Uint8Image) -> Difference:
    """Compare the probabilities of two nets on uint8 tiles [n, H, W, 3]."""
    total, count, changed, answers, largest = 0.0, 0, 0, 0, 0.0
    for part in _batches(tiles):
        first, second = (TASKS[model.task](each.logits(part), model) for each in (net, other))
        difference = (first - second).abs()
        total, count = total + float(difference.sum()), count + difference.numel()
        largest = float(np.maximum(largest, float(difference.max())))
        if len(model.classes) == 1:  # one class is there or not
            moved = (first > 0.5) != (second > 0.5)
        else:
            moved = first.argmax(1) != second.argmax(1)
        changed, answers = changed + int(moved.sum()), answers + moved.numel()
    return Difference(len(tiles), total / count, largest, changed / answers)


def sample_tiles(model: ModelManifest, count: int = SAMPLE_TILES) -> Uint8Image:
    """Return tissue of the packaged slide as the model's tiles, uint8 [n, H, W, 3]."""
    return slide_tiles(model, packaged("sample_data") / SAMPLE_SLIDE, count)


def slide_tiles(model: ModelManifest, slide_path: Path, count: int = INT8_TILES) -> Uint8Image:
    """Return tiles spread over a slide's tissue, uint8 [n, H, W, 3].

    Raises
    ------
    SlideError, RunError
        If the slide cannot be read or shows no tissue.
    """
    with open_slide(slide_path) as slide:
        grid = select_tiles(slide, plan_job(slide.info, model, stain="none"))
        reader = TileReader(slide, grid, model)
        indices = spread_tiles(grid, count)
        tiles = np.empty((len(indices), *reader.shape, 3), np.uint8)
        failed = reader.read(indices, tiles)
    if failed:
        raise next(iter(failed.values()))
    return tiles


def folder_tiles(model: ModelManifest, folder: Path, count: int = INT8_TILES) -> Uint8Image:
    """Return tiles cut out of a folder's pictures, side by side, uint8 [n, H, W, 3].

    The pictures are taken to have the model's µm/px. Those that lie in the folder itself are
    used; where there is none, those in its folders. Of many tiles some are taken, spread evenly.

    Raises
    ------
    ModelError
        If there is no picture, or one cannot be read or is smaller than a tile.
    """
    side = model.grid.tile_px
    files = [file for file in sorted(folder.glob("*")) if file.suffix.lower() in PICTURES]
    files = files or [f for f in sorted(folder.rglob("*")) if f.suffix.lower() in PICTURES]
    corners: list[tuple[Path, int, int]] = []
    for file in files:
        with _picture(file) as picture:
            width, height = picture.size
        if min(height, width) < side:
            raise ModelError(
                f"{file} is {width} x {height} px, smaller than the model's tiles of {side} px."
            )
        across, down = range(0, width - side + 1, side), range(0, height - side + 1, side)
        corners += [(file, x, y) for y in down for x in across]
    if not corners:
        raise ModelError(f"{folder} holds no pictures ({', '.join(PICTURES)}): give tiles.")
    chosen = np.linspace(0, len(corners) - 1, min(count, len(corners))).round().astype(int)
    tiles = np.empty((len(chosen), side, side, 3), np.uint8)
    for place, (file, x, y) in enumerate(corners[i] for i in chosen):
        with _picture(file) as picture:
            tiles[place] = np.asarray(picture.convert("RGB").crop((x, y, x + side, y + side)))
    return tiles


@contextmanager
def _picture(file: Path) -> Iterator[Image.Image]:
    try:
        with Image.open(file) as picture:
            yield picture
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise ModelError(f"{file} cannot be read as a picture: {brief(error)}.") from error


def _batches(tiles: Uint8Image) -> Sequence[torch.Tensor]:
    starts = range(0, len(tiles), BATCH)
    return [torch.from_numpy(np.ascontiguousarray(tiles[i : i + BATCH])) for i in starts]


def _with_graph(net: Net, data: bytes, kind: ExportFormat) -> Net:
    """Return the net with the graph that was just made, as whoever loads it will have it."""
    return replace(net, module=OnnxGraph(data) if kind == "onnx" else load_traced(data))


def _write(
    model: ModelManifest,
    kind: ExportFormat,
    folder: Path,
    data: bytes,
    difference: Difference,
    tiles_from: str,
    *,
    int8: bool,
) -> None:
    record: dict[str, Any] = {
        "model": model.name,
        "sha256": model.sha256,
        "computes_in": "int8" if int8 else "fp32",
        "tiles": difference.tiles,
        "tiles_from": tiles_from,
        "largest_difference": _digits(difference.largest),
        "mean_difference": _digits(difference.mean),
        "argmax_changed": _digits(difference.argmax_changed),
        "scores_are_of": model.name,
        "versions": {"torch": version("torch"), "onnxruntime": runtime_version()},
    }
    document = json.loads((model.path / MODEL_FILE).read_text(encoding="utf-8"))
    document |= {
        "name": folder.name,
        "weights": {
            "file": FILES[kind],
            "format": kind,
            "sha256": hashlib.sha256(data).hexdigest(),
        },
        "export": record,
    }
    del document["architecture"]
    make_folder(folder.parent)
    with whole_folder(folder, MODEL_FILE) as part:
        part.mkdir()
        (part / FILES[kind]).write_bytes(data)
        (part / MODEL_FILE).write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
        if (model.path / CARD_FILE).is_file():
            card = (model.path / CARD_FILE).read_text(encoding="utf-8")
            (part / CARD_FILE).write_text(f"{_note(record, kind)}\n\n{card}", encoding="utf-8")
        else:
            (part / CARD_FILE).write_text(_note(record, kind) + "\n", encoding="utf-8")
        for licence in model.path.glob("LICENSE*"):
            shutil.copy2(licence, part)


def _note(record: dict[str, Any], kind: ExportFormat) -> str:
    """Return what stands above the model's own card."""
    return (
        f"> This is {record['model']} as {kind}, computing in {record['computes_in']}. On "
        f"{record['tiles']} tiles ({record['tiles_from']}) a probability differs by "
        f"{record['mean_difference']:.2g} on average and {record['largest_difference']:.2g} at "
        f"most, and {record['argmax_changed']:.2%} of the answers have another first class. The "
        f"scores below were measured with {record['model']} itself."
    )


def _digits(value: float) -> float:
    return float(f"{value:.3g}")
