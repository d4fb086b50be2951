"""The manifest of one model folder, and how it is read."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from napari_histomil.errors import HistomilError, ModelError
from napari_histomil.manifest.schema import (
    MODEL_SCHEMA,
    SCHEMA_VERSION,
    WSINFER_SCHEMA,
    validate,
)
from napari_histomil.tiling import GridSpec

MODEL_FILE = "model.json"
WSINFER_FILE = "config.json"

_OF_CLASSES = ("classes", "activation", "temperature", "positive_class")

_LFS_BEGINNING = b"version https://git-lfs.github.com/spec/"

# QuPath's colours where a class has a name that QuPath knows, else colours that colour-blind
# readers can tell apart (Okabe and Ito, 2008).
_KNOWN_COLORS = {
    "tumor": (200, 0, 0),
    "stroma": (150, 200, 150),
    "immune cells": (160, 90, 160),
    "lymphocytes": (160, 90, 160),
    "necrosis": (50, 50, 50),
    "other": (255, 200, 0),
    "positive": (200, 50, 50),
    "negative": (90, 90, 180),
    "normal": (90, 90, 180),
}
_PALETTE = (
    (230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178), (213, 94, 0),
    (204, 121, 167),
)  # fmt: skip
_NEGATIVE_NAMES = {
    "other", "normal", "negative", "background", "benign", "none", "no tumor", "notumor",
    "non-tumor", "nontumor",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class ClassSpec:
    """One output of a model: its name and the colour it is drawn in (0 to 255)."""

    name: str
    color: tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Normalisation:
    """``(pixel / 255 - mean) / std`` for each of red, green and blue."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class ModelManifest:
    """All that is known of a model without loading its weights."""

    name: str
    path: Path
    """The model's folder."""
    kind: Literal["histomil", "wsinfer"]
    description: str
    task: str
    architecture: str
    """``timm/<name>``, ``smp/<name>`` or ``histomil/<name>``; ``""`` where the weights are a whole
    graph."""
    arguments: Mapping[str, Any]
    weights: Path
    weights_format: Literal["safetensors", "torchscript"]
    weights_sha256: str
    """As `model.json` states it (checked by `verify_model`); computed for WSInfer folders."""
    classes: tuple[ClassSpec, ...]
    """In the order of the outputs; none where `task` is ``embed``."""
    activation: Literal["softmax", "sigmoid", "none"]
    grid: GridSpec
    read: Literal["area", "level0"]
    """``area``: tiles area-averaged to ``grid.mpp``; ``level0``: WSInfer's way, see above."""
    normalisation: Normalisation | None
    transforms: tuple[Mapping[str, Any], ...]
    """WSInfer's list of transforms; empty for our own models."""
    stain: Literal["none", "macenko", "reinhard"]
    temperature: float
    positive_class: str | None
    """The class that is shown first."""
    background_class: str | None
    """Of a segmentation: the class that means none of the others."""
    licence: str
    training: Mapping[str, Any]
    scores: Mapping[str, Any]
    sha256: str
    """Hash of all that decides an answer: weights, architecture, classes, scaling, activation."""
    embedding_dim: int | None = None
    """Values of an embedding, where `task` is ``embed``."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes in the order of the outputs."""
        return tuple(c.name for c in self.classes)


def is_model(folder: Path) -> bool:
    """Whether a folder says that it is a model; nothing in it is checked."""
    return (folder / MODEL_FILE).is_file() or (folder / WSINFER_FILE).is_file()


def load_manifest(folder: Path) -> ModelManifest:
    """Read a model folder's description; the weights are neither read nor checked.

    (For a WSInfer folder, which states no hash, the weights are read once to hash them.)

    Raises
    ------
    ModelError
        If the folder holds no model, or its description is broken, of a newer schema, or names
        weights that are missing or outside the folder.
    """
    folder = Path(folder)
    if (folder / MODEL_FILE).is_file():
        return _load_own(folder)
    if (folder / WSINFER_FILE).is_file():
        return _load_wsinfer(folder)
    if not folder.is_dir():
        raise ModelError(f"{folder} is no model: a model is a folder, and this is none.")
    raise ModelError(
        f"{folder} is no model: it holds neither {MODEL_FILE} nor WSInfer's {WSINFER_FILE}."
    )


def verify_model(manifest: ModelManifest) -> None:
    """Check that the weights are those that the manifest states.

    Raises
    ------
    ModelError
        If their sha256 differs, or git-lfs has not fetched them.
    """
    actual = _file_sha256(manifest.weights)
    with manifest.weights.open("rb") as stream:
        if stream.read(len(_LFS_BEGINNING)) == _LFS_BEGINNING:
            raise ModelError(
                f"{manifest.weights} is only a pointer of git-lfs, not the weights: fetch the "
                f"file itself with `git lfs pull`."
            )
    if actual != manifest.weights_sha256:
        raise ModelError(
            f"{manifest.weights} is not the file that the model {manifest.name!r} was published "
            f"with (sha256 {actual[:12]}... instead of {manifest.weights_sha256[:12]}...): "
            f"get the model again."
        )


def _load_own(folder: Path) -> ModelManifest:
    file = folder / MODEL_FILE
    raw = _read_json(file)
    version = raw.get("schema_version") if isinstance(raw, dict) else None
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise ModelError(
            f"{file} was written for a newer version of this program (schema {version}, this "
            f"program knows {SCHEMA_VERSION}): update napari-histomil."
        )
    validate(raw, MODEL_SCHEMA, file)
    classes = tuple(ClassSpec(c["name"], tuple(c["color"])) for c in raw.get("classes", []))
    names = [c.name for c in classes]
    if len(set(names)) < len(names):
        raise ModelError(f"{file}: two classes have the same name: give each its own.")
    for member in ("positive_class", "background_class"):
        if raw.get(member) is not None and raw[member] not in names:
            raise ModelError(f"{file}: {member} {raw[member]!r} is none of the classes {names}.")
    weights = _weights_inside(folder, raw["weights"]["file"], file)
    architecture = raw.get("architecture", {})
    weights_format = raw["weights"]["format"]
    if (weights_format == "safetensors") != bool(architecture):
        raise ModelError(
            f"{file}: safetensors need 'architecture', a TorchScript graph must not have it."
        )
    try:
        grid = GridSpec(**raw["grid"])
    except HistomilError as error:
        raise ModelError(f"{file}: grid: {error}") from error
    _check_task(raw, grid, file)
    normalisation = raw.get("normalisation")
    return _with_hash(
        name=raw["name"],
        path=folder,
        kind="histomil",
        description=raw["description"],
        task=raw["task"],
        architecture=architecture.get("name", ""),
        arguments=architecture.get("arguments", {}),
        weights=weights,
        weights_format=weights_format,
        weights_sha256=raw["weights"]["sha256"],
        classes=classes,
        activation=raw.get("activation", "none"),
        embedding_dim=raw.get("embedding_dim"),
        grid=grid,
        read="area",
        normalisation=normalisation
        and Normalisation(tuple(normalisation["mean"]), tuple(normalisation["std"])),
        transforms=(),
        stain=raw.get("stain", "none"),
        temperature=float(raw.get("temperature", 1.0)),
        positive_class=raw.get("positive_class"),
        background_class=raw.get("background_class"),
        licence=raw["licence"],
        training=raw.get("training", {}),
        scores=raw.get("scores", {}),
    )


def _check_task(raw: Mapping[str, Any], grid: GridSpec, file: Path) -> None:
    """Refuse what only another task has."""
    if raw["task"] == "embed":
        odd = [name for name in _OF_CLASSES if raw.get(name) is not None]
        if odd:
            raise ModelError(f"{file}: {odd[0]} is for models with classes, and embed has none.")
    elif raw.get("embedding_dim") is not None:
        raise ModelError(f"{file}: embedding_dim is for models that embed.")
    segments = raw["task"] == "segment"
    family = raw.get("architecture", {}).get("name", "").partition("/")[0]
    if family and (family == "smp") != segments:
        raise ModelError(
            f"{file}: {raw['architecture']['name']} cannot {raw['task']}: nets of the family smp "
            f"segment, all others classify or embed."
        )
    if not segments and (grid.margin_px or raw.get("background_class")):
        raise ModelError(f"{file}: margin_px and background_class are for models that segment.")
    if segments and (grid.tile_px - grid.stride_px) % 2:
        raise ModelError(
            f"{file}: grid: tile_px - stride_px must be even, so that the pixels of tiles lie on "
            f"those of the result, and {grid.tile_px} - {grid.stride_px} is not."
        )
    if raw.get("background_class") is not None and raw["activation"] == "sigmoid":
        raise ModelError(
            f"{file}: background_class is for softmax: with sigmoid, background is where no class "
            f"is likely."
        )


def _load_wsinfer(folder: Path) -> ModelManifest:
    file = folder / WSINFER_FILE
    raw = _read_json(file)
    validate(raw, WSINFER_SCHEMA, file)
    names = raw["class_names"]
    if len(names) != raw["num_classes"]:
        raise ModelError(
            f"{file}: num_classes is {raw['num_classes']} but class_names holds {len(names)}."
        )
    graphs = sorted(folder.glob("*.pt"))
    if len(graphs) != 1:
        raise ModelError(
            f"{folder} must hold one TorchScript file (*.pt) beside {WSINFER_FILE}, "
            f"and it holds {len(graphs)}."
        )
    architecture = raw.get("architecture", "")
    size = raw["patch_size_pixels"]
    return _with_hash(
        name=folder.name,
        path=folder,
        kind="wsinfer",
        description=f"WSInfer model{architecture and ' ' + architecture}: {', '.join(names)}",
        task="classify",
        architecture="",
        arguments={},
        weights=graphs[0],
        weights_format="torchscript",
        weights_sha256=_file_sha256(graphs[0]),
        classes=tuple(ClassSpec(name, _color(name, i)) for i, name in enumerate(names)),
        activation="softmax" if len(names) > 1 else "sigmoid",
        grid=GridSpec(float(raw["spacing_um_px"]), size, size),
        read="level0",
        normalisation=None,
        transforms=tuple(raw["transform"]),
        stain="none",
        temperature=1.0,
        positive_class=next(
            (name for name in names if name.lower() not in _NEGATIVE_NAMES), names[-1]
        ),
        background_class=None,
        licence="",
        training={},
        scores={},
    )


def _with_hash(**members: Any) -> ModelManifest:
    """Build the manifest with the hash of what decides an answer.

    The grid and the stain are left out: the job states those it uses, which may be others.
    """
    normalisation = members["normalisation"]
    decisive = {
        "schema_version": 1,
        "weights": members["weights_sha256"],
        "weights_format": members["weights_format"],
        "architecture": members["architecture"],
        "arguments": members["arguments"],
        "classes": [c.name for c in members["classes"]],
        "activation": members["activation"],
        "temperature": members["temperature"],
        "read": members["read"],
        "normalisation": normalisation and [list(normalisation.mean), list(normalisation.std)],
        "transforms": members["transforms"],
    }
    text = json.dumps(decisive, sort_keys=True, separators=(",", ":"))
    return ModelManifest(**members, sha256=hashlib.sha256(text.encode()).hexdigest())


def _read_json(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:  # ValueError: not JSON, or not UTF-8
        raise ModelError(f"{file} cannot be read as JSON: {error}") from error


def _weights_inside(folder: Path, name: str, file: Path) -> Path:
    """Return the weights' path; refuse one that leaves the folder, also by a link."""
    weights = folder / name
    if not weights.resolve().is_relative_to(folder.resolve()) or "\\" in name:
        raise ModelError(f"{file}: the weights {name!r} must lie inside the model's folder.")
    if not weights.is_file():
        raise ModelError(
            f"{file}: the weights {name!r} are missing: the model was copied incompletely."
        )
    return weights


def _color(name: str, index: int) -> tuple[int, int, int]:
    return _KNOWN_COLORS.get(name.lower(), _PALETTE[index % len(_PALETTE)])


def _file_sha256(file: Path) -> str:
    try:
        facts = file.stat()
        return _hash_file(file, facts.st_size, facts.st_mtime_ns)
    except OSError as error:
        raise ModelError(f"{file} cannot be read: {error}.") from error


@lru_cache(maxsize=64)
def _hash_file(file: Path, size: int, mtime_ns: int) -> str:
    """Hash once for as long as size and time of change stay the same."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
