"""The names that other programs give to the tensors of their models, and ours for the same.

One reader a family of names; each says none where the names are not its own.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from napari_histomil.errors import ModelError

State = Mapping[str, Tensor]


@dataclass(frozen=True, slots=True)
class Hints:
    """What no tensor says, and somebody said beside the checkpoint."""

    k: int | None = None
    activation: str | None = None
    swapped: bool = False


@dataclass(frozen=True, slots=True)
class Found:
    """A checkpoint as a model of ours."""

    name: str
    dim: int
    classes: int
    arguments: Mapping[str, Any]
    state: State


Reader = Callable[[State, Hints, Path], Found | None]


def read_clam(state: State, hints: Hints, path: Path) -> Found | None:
    """CLAM's own: ``attention_net`` is embedding and attention, ``classifiers`` one or many."""
    # nn.DataParallel was put around a part; `attention_net.3.module` is a name of its own
    state = {re.sub(r"^attention_net\.module\.", "attention_net.", n): t for n, t in state.items()}
    if "attention_net.0.weight" not in state:
        return None
    block = next((b for b in ("3", "2") if any(_of(state, f"attention_net.{b}."))), None)
    if block is None:
        return None
    names = {"attention_net.0": "embed.0", "instance_classifiers": "instance_classifiers"}
    names |= _attention_names(state, f"attention_net.{block}")
    ours = _renamed(state, names)
    branches = "sb"
    if "classifiers.0.weight" in ours:
        branches = "mb"
        parts = sorted(_of(ours, "classifiers."), key=_numbers)
        for kind in ("weight", "bias"):
            rows = [ours.pop(n) for n in parts if n.endswith(kind)]
            ours[f"classifier.{kind}"] = torch.cat(rows)
    else:
        ours = _renamed(ours, {"classifiers": "classifier"})
    return _clam_or_attention(ours, path, branches)


def read_mil_lab(state: State, hints: Hints, path: Path) -> Found | None:
    """MIL-Lab's ABMIL and CLAM: ``patch_embed``, ``global_attn``, ``classifier``."""
    if not any(_of(state, "global_attn.")):
        return None
    names = _embedding_names(state, "patch_embed") | _attention_names(state, "global_attn")
    return _clam_or_attention(_renamed(state, names), path, "sb")


def read_transmil(state: State, hints: Hints, path: Path) -> Found | None:
    """TransMIL's authors', and MIL-Lab's with other names for the same."""
    if "cls_token" not in state or "pos_layer.proj1.weight" not in state:
        return None
    layers = (
        {"layer1": "first", "layer2": "second"}
        if "layer1.norm.weight" in state
        else {"blocks.0": "first", "blocks.1": "second"}
    )
    names = {
        f"{theirs}.{part}.{inner}": f"{ours}.attention.{new}"
        for theirs, ours in layers.items()
        for part in ("attn", "attention")
        for inner, new in {"to_qkv": "qkv", "to_out": "out", "res_conv": "local"}.items()
    }
    names |= {f"{theirs}.norm": f"{ours}.norm" for theirs, ours in layers.items()}
    names |= {f"pos_layer.{p}": f"position.convolutions.{i}" for i, p in enumerate(_PPEG)}
    names |= {"_fc1.0": "embed.0", "_fc2": "classifier"} | _embedding_names(state, "patch_embed")
    ours = _renamed(state, names)
    ours["token"] = ours.pop("cls_token").flatten(0, -2)
    local = ours.get("first.attention.local.weight")
    if local is None or local.ndim != 4:
        raise ModelError(f"{path} looks like a checkpoint of TransMIL and lacks its attention.")
    arguments = {"hidden": _hidden(ours, path), "heads": len(local)}
    return _found("transmil", ours, path, arguments)


_PPEG = ("proj", "proj1", "proj2")


def read_dsmil(state: State, hints: Hints, path: Path) -> Found | None:
    """DSMIL's ``MILNet(FCLayer, BClassifier)``, old and new."""
    if "b_classifier.fcc.weight" not in state:
        return None
    first = next(
        (n for n in ("i_classifier.fc.0", "i_classifier.fc") if f"{n}.weight" in state), ""
    )
    linear = "b_classifier.q.weight" in state
    values = "identity"
    if "b_classifier.v.1.weight" in state:  # the code that knew no nonlinear Q had no ReLU here
        values = "linear" if linear else "relu"
    names = {
        first or "i_classifier.0": "instance",
        "b_classifier.q": "query",
        "b_classifier.v.1": "value",
        "b_classifier.fcc": "fuse",
    }
    ours = _renamed(state, names)
    width = _matrix(ours, "query.weight" if linear else "query.0.weight", path)
    arguments = {"query": len(width), "nonlinear": not linear, "values": values}
    return _found("dsmil", ours, path, arguments, first="instance", last="instance")


def read_zoommil(state: State, hints: Hints, path: Path) -> Found | None:
    """ZoomMIL's authors': ``low``, ``mid`` and ``high`` magnification."""
    if "fc_low_mag.0.weight" not in state:
        return None
    levels = [name for name in ("low", "mid", "high") if f"fc_{name}_mag.0.weight" in state]
    if hints.k is None:
        raise ModelError(
            f"{path} is a checkpoint of ZoomMIL, which does not say into how many patches it "
            f'zooms: give k, or write {{"k": 12}} (or what it was trained with) into '
            f"{path.with_suffix('.json').name} beside it."
        )
    names = {"classify_head": "classifier"}
    for i, level in enumerate(levels):
        names[f"fc_{level}_mag"] = f"embed.{i}"
        for theirs, ours_ in (("ga", "attention"), ("aux_ga", "selection")):
            block = f"{theirs}_{level}_mag"
            names |= {
                name: f"{ours_}.{i}{new.removeprefix('attention')}"
                for name, new in _attention_names(state, block).items()
            }
    ours = _renamed(state, names)
    arguments = {
        "magnifications": len(levels),
        "k": hints.k,
        "hidden": len(_matrix(ours, "embed.0.0.weight", path)),
        "attention": len(_matrix(ours, "attention.0.v.weight", path)),
    }
    return _found("zoommil", ours, path, arguments, first="embed.0.0")


def read_torchmil(state: State, hints: Hints, path: Path) -> Found | None:
    """ABMIL of torchmil; its lazy layers put ``module`` into the names."""
    if not any(_of(state, "pool.fc1.")):
        return None
    state = {n.replace(".module.", "."): t for n, t in state.items()}
    names = {"pool.fc1": "attention.v", "pool.fc_gated": "attention.u", "pool.fc2": "attention.w"}
    return _attention(_renamed(state, names), path, hints)


def read_mhim(state: State, hints: Hints, path: Path) -> Found | None:
    """MHIM-MIL with attention: ``patch_to_emb``, ``online_encoder``, ``predictor``."""
    if not any(_of(state, "online_encoder.attention.")):
        return None
    if hints.activation is None:
        raise ModelError(
            f"{path} is a checkpoint of MHIM-MIL, which does not say the activation of its "
            f'attention: write {{"activation": "relu"}} (or "gelu", "tanh": the da_act it was '
            f"trained with) into {path.with_suffix('.json').name} beside it."
        )
    names = {"patch_to_emb.0": "embed.0", "predictor": "classifier"}
    names |= _attention_names(state, "online_encoder.attention")
    return _attention(_renamed(state, names), path, hints)


def read_attention(state: State, hints: Hints, path: Path) -> Found | None:
    """AMLab's attention model and its many descendants, MHIM-MIL's baselines among them.

    What comes before is one of a few names of fully connected layers, or nothing. Convolutions
    (AMLab's ``feature_extractor_part1``) are an encoder's matter: the model takes what they give.
    Attention without any bias is MHIM's, which has ReLU where others have tanh.
    """
    state = {n: t for n, t in state.items() if not n.startswith("feature_extractor_part1.")}
    v, u = ("attention_U", "attention_V") if hints.swapped else ("attention_V", "attention_U")
    if "attention_V.0.weight" in state:
        names = {f"{v}.0": "attention.v", f"{u}.0": "attention.u"}
        names |= {"attention_weights": "attention.w", "attention_w": "attention.w"}
    elif "attention_a.0.weight" in state:
        names = _gated_names("")
    elif "attention.0.weight" in state:
        names = {
            "attention.0": "attention.v",
            f"attention.{_last(state, 'attention')}": "attention.w",
        }
    else:
        return None
    for before in ("feature_extractor_part2", "feature", "MLP", "mlp", "fc", "embedding"):
        names |= _embedding_names(state, before)
    if f"classifier.{(last := _last(state, 'classifier'))}.weight" in state:
        names[f"classifier.{last}"] = "classifier"
    ours = _renamed(state, names)
    bare = "attention.u.weight" in ours and "attention.v.bias" not in ours
    return _attention(ours, path, hints, activation="relu" if bare else "tanh")


READERS: tuple[Reader, ...] = (
    read_clam,
    read_mil_lab,
    read_transmil,
    read_dsmil,
    read_zoommil,
    read_torchmil,
    read_mhim,
    read_attention,
)
"""In the order they are asked."""


def _clam_or_attention(ours: dict[str, Tensor], path: Path, branches: str) -> Found:
    """Return CLAM where instances are classified, else attention."""
    if any(_of(ours, "instance_classifiers.")) or branches == "mb":
        return _found(f"clam-{branches}", ours, path, _attention_sizes(ours, path))
    return _attention(ours, path, Hints())


def _attention(
    ours: dict[str, Tensor], path: Path, hints: Hints, activation: str = "tanh"
) -> Found:
    arguments = _attention_sizes(ours, path) | {
        "attention_activation": hints.activation or activation
    }
    return _found("attention", ours, path, arguments)


def _attention_sizes(ours: State, path: Path) -> dict[str, Any]:
    heads = len(_matrix(ours, "attention.w.weight", path))
    classes, width = _matrix(ours, "classifier.weight", path).shape
    inside = _matrix(ours, "attention.v.weight", path).shape[1]
    if width != inside or heads not in (1, classes):
        raise ModelError(
            f"{path} has {heads} rows of attention whose sums are joined before the classifier: "
            f"only one row, or CLAM's one a class, can be read."
        )
    return {
        "gated": "attention.u.weight" in ours,
        "hidden": _hidden(ours, path),
        "attention": len(_matrix(ours, "attention.v.weight", path)),
    }


def _found(
    name: str,
    ours: State,
    path: Path,
    arguments: Mapping[str, Any],
    *,
    first: str = "",
    last: str = "classifier",
) -> Found:
    """Return what was found; the first layer says the width of features, the last the classes."""
    first = first or ("embed.0" if "embed.0.weight" in ours else "attention.v")
    dim = _matrix(ours, f"{first}.weight", path).shape[1]
    classes = len(_matrix(ours, f"{last}.weight", path))
    return Found(name, dim, classes, arguments, ours)


def _hidden(ours: State, path: Path) -> list[int]:
    layers = sorted((n for n in _of(ours, "embed.") if n.endswith("weight")), key=_numbers)
    return [len(_matrix(ours, name, path)) for name in layers]


def _attention_names(state: State, block: str) -> dict[str, str]:
    """Return names of a block of attention, gated or not, with or without dropout in it."""
    gated = _gated_names(f"{block}.")
    if f"{block}.attention_a.0.weight" in state:
        return gated
    inner = next(
        (p for p in (f"{block}.module", f"{block}.attention", block) if f"{p}.0.weight" in state),
        block,
    )
    if f"{inner}.attention_a.0.weight" in state:
        return _gated_names(f"{inner}.")
    return {f"{inner}.0": "attention.v", f"{inner}.{_last(state, inner)}": "attention.w"}


def _gated_names(block: str) -> dict[str, str]:
    return {
        f"{block}attention_a.0": "attention.v",
        f"{block}attention_b.0": "attention.u",
        f"{block}attention_c": "attention.w",
    }


def _embedding_names(state: State, block: str) -> dict[str, str]:
    """Return names of fully connected layers, whatever lies between them."""
    layers = sorted((n for n in _of(state, f"{block}.") if n.endswith("weight")), key=_numbers)
    return {name.removesuffix(".weight"): f"embed.{3 * i}" for i, name in enumerate(layers)}


def _renamed(state: State, names: Mapping[str, str]) -> dict[str, Tensor]:
    """Give modules other names, the longest match first; the rest stays."""
    ordered = sorted(names, key=len, reverse=True)
    result = {}
    for name, tensor in state.items():
        old = next((o for o in ordered if name.startswith(f"{o}.")), None)
        result[name if old is None else names[old] + name[len(old) :]] = tensor
    return result


def _of(state: State, prefix: str) -> list[str]:
    return [name for name in state if name.startswith(prefix)]


def _last(state: State, block: str) -> int:
    """Return the number of the last layer of a sequence."""
    found = (re.match(rf"{re.escape(block)}\.(\d+)\.weight$", name) for name in state)
    return max((int(match[1]) for match in found if match), default=0)


def _numbers(name: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", name)]


def _matrix(state: State, name: str, path: Path) -> Tensor:
    """Return a matrix by its name of ours."""
    if name not in state or state[name].ndim != 2:
        raise ModelError(
            f"{path} looks like a checkpoint of a MIL model and lacks a layer of it ({name}, as "
            f"this program calls it): it is another model or a part of one."
        )
    return state[name]
