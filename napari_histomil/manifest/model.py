"""The manifest of one model folder, and how it is read."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from napari_histomil.errors import HistomilError, ModelError
from napari_histomil.manifest.chain import Chain, read_chain
from napari_histomil.manifest.mil import MilFacts, read_mil
from napari_histomil.manifest.schema import (
    MODEL_SCHEMA,
    SCHEMA_VERSION,
    WSINFER_SCHEMA,
    validate,
)
from napari_histomil.tiling import GridSpec

MODEL_FILE = "model.json"
WSINFER_FILE = "config.json"
ZOO_FILE = "zoo.json"
"""Beside a model that was downloaded: where from, and its hash."""

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
    """``(pixel / 255 - mean) / std`` for each of red, green and blue, and a heatmap after them."""

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
    """``timm/<name>``, ``smp/<name>``, ``mil/<name>`` or ``histomil/<name>``; ``""`` where the
    weights are a whole graph."""
    arguments: Mapping[str, Any]
    weights: Path
    """Of a chain, which has none of its own, `model.json`."""
    weights_format: Literal["safetensors", "torchscript", "onnx", "chain"]
    weights_sha256: str
    """As `model.json` states it (checked by `verify_model`). Of a WSInfer folder as it was when it
    was downloaded, or computed; computed of a chain's steps."""
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
    export: Mapping[str, Any] = field(default_factory=dict)
    """Of which model this is another form, and how far its answers are from that one's."""
    inputs: tuple[str, ...] = ()
    """What is stacked to the input of a refiner, ``("overview", "heatmap")``; else tiles are."""
    chain: Chain | None = None
    """The steps, if it is a chain: of the rest, what the result has."""
    embedding_dim: int | None = None
    """Values of an embedding, where `task` is ``embed``."""
    mil: MilFacts | None = None
    """Encoder and grids, where `task` is ``mil``."""

    @property
    def segments(self) -> bool:
        """Whether a run of it is a picture: each pixel has probabilities, not each tile."""
        return self.task in ("segment", "chain")

    @property
    def channels(self) -> int:
        """Number of channels that the net takes."""
        return 4 if self.inputs else 3

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
        return read_manifest(_read_json(folder / MODEL_FILE), folder / MODEL_FILE)
    if (folder / WSINFER_FILE).is_file():
        return _load_wsinfer(folder)
    if not folder.is_dir():
        raise ModelError(f"{folder} is no model: a model is a folder, and this is none.")
    raise ModelError(
        f"{folder} is no model: it holds neither {MODEL_FILE} nor WSInfer's {WSINFER_FILE}."
    )


def verify_model(manifest: ModelManifest) -> None:
    """Check that the weights are those that the manifest states; a chain has none of its own.

    Raises
    ------
    ModelError
        If their sha256 differs, or git-lfs has not fetched them.
    """
    if manifest.chain is not None:
        return
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


def read_manifest(raw: Any, file: Path) -> ModelManifest:
    """Return what a `model.json` holds as a manifest; raises `ModelError` as `load_manifest`.

    Parameters
    ----------
    raw
        The JSON values.
    file
        Where they stand, or will; weights lie beside it.
    """
    folder = file.parent
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
    try:
        grid = GridSpec(**raw["grid"])
    except HistomilError as error:
        raise ModelError(f"{file}: grid: {error}") from error
    _check_task(raw, grid, file)
    if raw["task"] == "chain":
        chain = read_chain(raw["steps"], file)
        weights, stated = file, {"format": "chain", "sha256": _json_sha256(chain.canonical())}
    else:
        chain, stated = None, raw["weights"]
        weights = _weights_inside(folder, stated["file"], file)
    architecture = raw.get("architecture", {})
    if (stated["format"] == "safetensors") != bool(architecture):
        raise ModelError(
            f"{file}: safetensors need 'architecture', a graph of TorchScript or ONNX must not "
            f"have it."
        )
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
        weights_format=stated["format"],
        weights_sha256=stated["sha256"],
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
        export=raw.get("export", {}),
        inputs=tuple(raw.get("inputs", ())),
        chain=chain,
        mil=read_mil(raw["mil"], grid, file) if raw["task"] == "mil" else None,
    )


def _check_task(raw: Mapping[str, Any], grid: GridSpec, file: Path) -> None:
    """Refuse what only another task has."""
    if raw["task"] == "embed":
        odd = [name for name in _OF_CLASSES if raw.get(name) is not None]
        if odd:
            raise ModelError(f"{file}: {odd[0]} is for models with classes, and embed has none.")
    elif raw.get("embedding_dim") is not None:
        raise ModelError(f"{file}: embedding_dim is for models that embed.")
    if (raw["task"] == "mil") != ("mil" in raw):
        raise ModelError(
            f"{file}: a model of the task 'mil', and no other, has the member mil: encoder, grids."
        )
    segments = raw["task"] in ("segment", "chain")
    if raw["task"] == "chain":
        odd = [m for m in ("weights", "architecture", "normalisation", "inputs") if raw.get(m)]
        wanted, words = "steps", "A chain has steps, and what its models are is their own matter"
    else:
        odd = ["steps"] if raw.get("steps") else []
        wanted, words = "weights", "A model that is no chain has weights, and no steps"
    if odd or wanted not in raw:
        problem = f"{odd[0]} cannot stand here" if odd else f"{wanted} are missing"
        raise ModelError(f"{file}: {problem}. {words}.")
    family = raw.get("architecture", {}).get("name", "").partition("/")[0]
    if family and ((family == "smp") != segments or (family == "mil") != (raw["task"] == "mil")):
        raise ModelError(
            f"{file}: {raw['architecture']['name']} cannot {raw['task']}: nets of the family smp "
            f"segment, those of the family mil aggregate (task 'mil'), all others classify or "
            f"embed."
        )
    if raw["task"] == "mil" and ("architecture" not in raw or raw.get("normalisation")):
        raise ModelError(
            f"{file}: a model of the task 'mil' needs architecture, and has no normalisation of "
            f"pixels: that is its encoder's."
        )
    if not segments and (grid.margin_px or raw.get("background_class")):
        raise ModelError(f"{file}: margin_px and background_class are for models that segment.")
    if segments and (grid.tile_px - grid.stride_px) % 2:
        raise ModelError(
            f"{file}: grid: tile_px - stride_px must be even, so that the pixels of tiles lie on "
            f"those of the result, and {grid.tile_px} - {grid.stride_px} is not."
        )
    _check_inputs(raw, file)
    if raw.get("background_class") is not None and raw["activation"] == "sigmoid":
        raise ModelError(
            f"{file}: background_class is for softmax: with sigmoid, background is where no class "
            f"is likely."
        )
    if raw["task"] == "chain" and (raw.get("background_class") is None) == (
        raw["activation"] == "softmax"
    ):
        raise ModelError(
            f"{file}: a chain with softmax needs background_class: it is what the result says "
            f"where the last step does not look."
        )


def _check_inputs(raw: Mapping[str, Any], file: Path) -> None:
    """Refuse a net that takes another number of channels than it is given."""
    channels = 4 if raw.get("inputs") else 3
    if raw.get("inputs") and raw["task"] != "segment":
        raise ModelError(f"{file}: inputs are for models that segment.")
    if raw.get("inputs") and raw.get("stain", "none") != "none":
        raise ModelError(f"{file}: a model with inputs cannot ask for stain normalisation.")
    taken = raw.get("architecture", {}).get("arguments", {}).get("in_channels", 3)
    scaling = raw.get("normalisation") or {}
    numbers = {len(scaling[member]) for member in ("mean", "std") if member in scaling}
    if ("architecture" in raw and taken != channels) or numbers - {channels}:
        raise ModelError(
            f"{file}: with inputs {json.dumps(['overview', 'heatmap'])} a net has in_channels 4 "
            f"and four numbers of mean and std, without them 3 and three."
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
        weights_sha256=_recorded_sha256(folder) or _file_sha256(graphs[0]),
        classes=class_specs(names),
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


def _recorded_sha256(folder: Path) -> str | None:
    """Return the hash that was recorded when the model was downloaded, if it was."""
    file = folder / ZOO_FILE
    if not file.is_file():
        return None
    raw = _read_json(file)
    digest = raw.get("sha256") if isinstance(raw, dict) else None
    if not isinstance(digest, str):
        raise ModelError(f"{file} lacks the sha256 of the weights: get the model again.")
    return digest


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
    if members.get("inputs"):  # what is not there has no name: so other models keep their hash
        decisive["inputs"] = list(members["inputs"])
    if members.get("mil") is not None:
        decisive["mil"] = members["mil"].decisive()
    if members.get("chain") is not None:
        decisive["background_class"] = members["background_class"]
    return ModelManifest(**members, sha256=_json_sha256(decisive))


def _json_sha256(values: Any) -> str:
    text = json.dumps(values, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


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


def class_specs(names: Sequence[str]) -> tuple[ClassSpec, ...]:
    """Return classes of these names, for models that state no colours."""
    return tuple(ClassSpec(name, _color(name, index)) for index, name in enumerate(names))


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
