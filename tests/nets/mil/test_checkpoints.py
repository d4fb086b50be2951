"""State dicts in the names of other programs, and what those programs compute from them."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor

from napari_histomil.errors import ModelError
from napari_histomil.nets.mil import load_checkpoint

State = dict[str, Tensor]
DIM, HIDDEN, WIDTH, CLASSES = 10, 8, 5, 3


def linear(name: str, rows: int, columns: int, *, bias: bool = True) -> State:
    state = {f"{name}.weight": torch.randn(rows, columns)}
    return state | ({f"{name}.bias": torch.randn(rows)} if bias else {})


def apply(state: State, name: str, x: Tensor) -> Tensor:
    return x @ state[f"{name}.weight"].T + state.get(f"{name}.bias", torch.zeros(()))


def pooled(raw: Tensor, h: Tensor) -> Tensor:
    """Attention pooling of [N, L] under raw attention [N, K]."""
    return raw.softmax(0).T @ h


def saved(path: Path, content: Any) -> Path:
    torch.save(content, path / "checkpoint.pt")
    return path / "checkpoint.pt"


def clam(block: str = "3", gated: bool = True, rows: int = 1, last: int = 3) -> State:
    inner = f"attention_net.{block}"
    state = linear("attention_net.0", HIDDEN, DIM)
    if gated:
        state |= linear(f"{inner}.attention_a.0", WIDTH, HIDDEN)
        state |= linear(f"{inner}.attention_b.0", WIDTH, HIDDEN)
        state |= linear(f"{inner}.attention_c", rows, WIDTH)
    else:
        state |= linear(f"{inner}.module.0", WIDTH, HIDDEN)
        state |= linear(f"{inner}.module.{last}", rows, WIDTH)
    if rows == 1:
        state |= linear("classifiers", CLASSES, HIDDEN)
    else:
        for c in range(rows):
            state |= linear(f"classifiers.{c}", 1, HIDDEN)
    for c in range(CLASSES):
        state |= linear(f"instance_classifiers.{c}", 2, HIDDEN)
    return state


def ask_clam(state: State, x: Tensor) -> tuple[Tensor, Tensor]:
    block = "3" if any(name.startswith("attention_net.3.") for name in state) else "2"
    inner = f"attention_net.{block}"
    h = apply(state, "attention_net.0", x).relu()
    if f"{inner}.attention_c.weight" in state:
        a = apply(state, f"{inner}.attention_a.0", h).tanh()
        b = apply(state, f"{inner}.attention_b.0", h).sigmoid()
        raw = apply(state, f"{inner}.attention_c", a * b)
    else:
        last = next(n for n in (2, 3) if f"{inner}.module.{n}.weight" in state)
        a = apply(state, f"{inner}.module.0", h).tanh()
        raw = apply(state, f"{inner}.module.{last}", a)
    z = pooled(raw, h)
    if "classifiers.weight" in state:
        return apply(state, "classifiers", z)[0], raw.T
    return torch.cat([apply(state, f"classifiers.{c}", z[c]) for c in range(len(z))]), raw.T


@pytest.mark.parametrize("rows", [1, CLASSES])
@pytest.mark.parametrize(
    ("block", "gated", "last"), [("3", True, 3), ("2", True, 3), ("3", False, 3), ("2", False, 2)]
)
def test_clam_of_any_age(tmp_path: Path, rows: int, block: str, gated: bool, last: int) -> None:
    state = clam(block, gated, rows, last)
    model = load_checkpoint(saved(tmp_path, state | {"instance_loss_fn.labels": torch.zeros(2)}))
    x = torch.randn(7, DIM)
    logits, raw = ask_clam(state, x)
    output = model(x)
    assert torch.allclose(output.logits, logits, atol=1e-5)
    assert torch.allclose(output.attention_raw, raw, atol=1e-5)
    assert not model.training


def test_clam_that_was_trained_on_several_gpus(tmp_path: Path) -> None:
    state = clam(gated=False)
    parallel = {
        n.replace("attention_net.", "attention_net.module.", 1): t for n, t in state.items()
    }
    x = torch.randn(7, DIM)
    output = load_checkpoint(saved(tmp_path, parallel))(x)
    assert torch.allclose(output.logits, ask_clam(state, x)[0], atol=1e-5)


@pytest.mark.parametrize("wrapper", ["model", "state_dict", "model_state_dict"])
@pytest.mark.parametrize("prefix", ["", "model.", "module.", "model.module."])
def test_wrapped_state_dicts(tmp_path: Path, wrapper: str, prefix: str) -> None:
    state = clam()
    wrapped = {wrapper: {prefix + n: t for n, t in state.items()}, "epoch": 3, "lr": [1e-4]}
    x = torch.randn(7, DIM)
    output = load_checkpoint(saved(tmp_path, wrapped))(x)
    assert torch.allclose(output.logits, ask_clam(state, x)[0], atol=1e-5)


def test_files_of_old_versions_and_of_safetensors(tmp_path: Path) -> None:
    state = clam()
    x = torch.randn(7, DIM)
    torch.save(state, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    safetensors.torch.save_file(state, tmp_path / "new.safetensors")
    for name in ("old.pt", "new.safetensors"):
        output = load_checkpoint(tmp_path / name)(x)
        assert torch.allclose(output.logits, ask_clam(state, x)[0], atol=1e-5)


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("gated", [True, False])
@pytest.mark.parametrize("instances", [True, False])
def test_mil_lab(tmp_path: Path, layers: int, gated: bool, instances: bool) -> None:
    state = linear("patch_embed.0", HIDDEN, DIM)
    if layers == 2:
        state |= linear("patch_embed.3", HIDDEN, HIDDEN)
    if gated:
        state |= linear("global_attn.attention_a.0", WIDTH, HIDDEN)
        state |= linear("global_attn.attention_b.0", WIDTH, HIDDEN)
        state |= linear("global_attn.attention_c", 1, WIDTH)
    else:
        state |= linear("global_attn.module.0", WIDTH, HIDDEN)
        state |= linear("global_attn.module.3", 1, WIDTH)
    state |= linear("classifier", CLASSES, HIDDEN)
    if instances:
        for c in range(CLASSES):
            state |= linear(f"instance_classifiers.{c}", 2, HIDDEN)
    x = torch.randn(7, DIM)
    h = x
    for i in range(layers):
        h = apply(state, f"patch_embed.{3 * i}", h).relu()
    if gated:
        a = apply(state, "global_attn.attention_a.0", h).tanh()
        raw = apply(
            state,
            "global_attn.attention_c",
            a * apply(state, "global_attn.attention_b.0", h).sigmoid(),
        )
    else:
        raw = apply(state, "global_attn.module.3", apply(state, "global_attn.module.0", h).tanh())
    wanted = apply(state, "classifier", pooled(raw, h))[0]
    model = load_checkpoint(saved(tmp_path, {f"model.{n}": t for n, t in state.items()}))
    assert torch.allclose(model(x).logits, wanted, atol=1e-5)
    assert hasattr(model, "instance_classifiers") == instances


def test_transmil_in_the_names_of_mil_lab(tmp_path: Path, data_dir: Path) -> None:
    path = data_dir / "mil-parity" / "transmil.pt"
    state = torch.load(path, weights_only=True)
    names = {
        "_fc1.0": "patch_embed.0", "_fc2": "classifier", "layer1.norm": "blocks.0.norm",
        "layer2.norm": "blocks.1.norm", "layer1.attn": "blocks.0.attention",
        "layer2.attn": "blocks.1.attention",
    }  # fmt: skip
    other = {}
    for name, tensor in state.items():
        old = next((o for o in names if name.startswith(o)), None)
        other[name if old is None else names[old] + name[len(old) :]] = tensor
    x = torch.randn(20, 1024)
    with torch.no_grad():
        wanted = load_checkpoint(path)(x).logits
        assert torch.equal(load_checkpoint(saved(tmp_path, other))(x).logits, wanted)


@pytest.mark.parametrize("nonlinear", [True, False])
@pytest.mark.parametrize("values", [True, False])
@pytest.mark.parametrize("first", ["i_classifier.fc.0", "i_classifier.fc", "i_classifier.0"])
def test_dsmil(tmp_path: Path, nonlinear: bool, values: bool, first: str) -> None:
    state = linear(first, CLASSES, DIM)
    if nonlinear:
        state |= linear("b_classifier.q.0", WIDTH, DIM) | linear("b_classifier.q.2", WIDTH, WIDTH)
    else:
        state |= linear("b_classifier.q", WIDTH, DIM)
    if values:
        state |= linear("b_classifier.v.1", DIM, DIM)
    state["b_classifier.fcc.weight"] = torch.randn(CLASSES, CLASSES, DIM)
    state["b_classifier.fcc.bias"] = torch.randn(CLASSES)

    def q(h: Tensor) -> Tensor:
        if not nonlinear:
            return apply(state, "b_classifier.q", h)
        return apply(state, "b_classifier.q.2", apply(state, "b_classifier.q.0", h).relu()).tanh()

    x = torch.randn(7, DIM)
    scores = apply(state, first, x)
    v = apply(state, "b_classifier.v.1", x) if values else x
    v = v.relu() if values and nonlinear else v
    raw = q(x) @ q(x[scores.argmax(0)]).T / WIDTH**0.5  # [N, C]
    bags = raw.softmax(0).T @ v
    wanted = torch.einsum("cdl,dl->c", state["b_classifier.fcc.weight"], bags)
    output = load_checkpoint(saved(tmp_path, state))(x)
    assert torch.allclose(output.logits, wanted + state["b_classifier.fcc.bias"], atol=1e-4)
    assert torch.allclose(output.instance_scores, scores, atol=1e-5)
    assert torch.allclose(output.attention_raw, raw.T, atol=1e-5)
    assert torch.allclose(output.probabilities, output.logits.sigmoid())


def test_k_of_zoommil_comes_from_the_caller_or_a_file_beside(
    tmp_path: Path, data_dir: Path
) -> None:
    state = torch.load(data_dir / "mil-parity" / "zoommil.pt", weights_only=True)
    path = saved(tmp_path, state)
    with pytest.raises(ModelError, match=r"give k, or write .* checkpoint\.json beside it"):
        load_checkpoint(path)
    assert load_checkpoint(path, k=5).k == (5, 5)
    path.with_suffix(".json").write_text(json.dumps({"k": 6}))
    assert load_checkpoint(path).k == (6, 6)
    assert load_checkpoint(path, k=5).k == (5, 5)
    path.with_suffix(".json").write_text(json.dumps({"k": "many"}))
    with pytest.raises(ModelError, match="k must be a whole number"):
        load_checkpoint(path)
    path.with_suffix(".json").write_text("{")
    with pytest.raises(ModelError, match=r"checkpoint\.json cannot be read as JSON"):
        load_checkpoint(path)


@pytest.mark.parametrize("convolutions", [True, False])
def test_amlab(tmp_path: Path, convolutions: bool) -> None:
    state = linear("feature_extractor_part2.0", HIDDEN, DIM)
    if convolutions:
        state["feature_extractor_part1.0.weight"] = torch.randn(2, 1, 5, 5)
    state |= linear("attention.0", WIDTH, HIDDEN) | linear("attention.2", 1, WIDTH)
    state |= linear("classifier.0", 1, HIDDEN)
    x = torch.randn(7, DIM)
    h = apply(state, "feature_extractor_part2.0", x).relu()
    raw = apply(state, "attention.2", apply(state, "attention.0", h).tanh())
    wanted = apply(state, "classifier.0", pooled(raw, h))[0]
    output = load_checkpoint(saved(tmp_path, state))(x)
    assert torch.allclose(output.logits, wanted, atol=1e-5)
    assert torch.allclose(output.probabilities, wanted.sigmoid(), atol=1e-5)


@pytest.mark.parametrize("last", ["attention_weights", "attention_w"])
@pytest.mark.parametrize("swapped", [False, True])
def test_gated_descendants_of_amlab(tmp_path: Path, last: str, swapped: bool) -> None:
    state = linear("MLP.0", HIDDEN, DIM) | linear("attention_V.0", WIDTH, HIDDEN)
    state |= linear("attention_U.0", WIDTH, HIDDEN) | linear(last, 1, WIDTH)
    state |= linear("classifier.1", CLASSES, HIDDEN)
    path = saved(tmp_path, state)
    if swapped:
        path.with_suffix(".json").write_text('{"swapped": true}')
    tanh, gate = ("attention_U.0", "attention_V.0")[:: 1 if swapped else -1]
    x = torch.randn(7, DIM)
    h = apply(state, "MLP.0", x).relu()
    raw = apply(state, last, apply(state, tanh, h).tanh() * apply(state, gate, h).sigmoid())
    wanted = apply(state, "classifier.1", pooled(raw, h))[0]
    assert torch.allclose(load_checkpoint(path)(x).logits, wanted, atol=1e-5)


@pytest.mark.parametrize("lazy", ["", ".module"])
@pytest.mark.parametrize("gated", [True, False])
def test_torchmil(tmp_path: Path, lazy: str, gated: bool) -> None:
    state = linear(f"pool.fc1{lazy}", WIDTH, DIM) | linear("pool.fc2", 1, WIDTH, bias=False)
    state |= linear(f"classifier{lazy}", 1, DIM)
    if gated:
        state |= linear(f"pool.fc_gated{lazy}", WIDTH, DIM)
    x = torch.randn(7, DIM)
    a = apply(state, f"pool.fc1{lazy}", x).tanh()
    if gated:
        a = a * apply(state, f"pool.fc_gated{lazy}", x).sigmoid()
    wanted = apply(state, f"classifier{lazy}", pooled(apply(state, "pool.fc2", a), x))[0]
    output = load_checkpoint(saved(tmp_path, state))(x)
    assert torch.allclose(output.logits, wanted, atol=1e-5)


@pytest.mark.parametrize("gated", [True, False])
def test_mhim_and_its_baselines(tmp_path: Path, gated: bool) -> None:
    """Attention without biases has ReLU in the gated baseline; MHIM's is told beside it."""
    parts = linear("a", WIDTH, HIDDEN, bias=not gated) | linear("c", 1, WIDTH, bias=not gated)
    parts |= linear("f", HIDDEN, DIM) | linear("y", CLASSES, HIDDEN)
    names = {"f": "feature.0", "y": "classifier.0", "a": "attention.0", "c": "attention.2"}
    inside = {"f": "patch_to_emb.0", "y": "predictor"}
    inside |= {"a": "online_encoder.attention.attention.0"}
    inside |= {"c": "online_encoder.attention.attention.3"}
    if gated:
        parts |= linear("b", WIDTH, HIDDEN, bias=False)
        names |= {"a": "attention_a.0", "b": "attention_b.0", "c": "attention_c"}
        inside |= {n: f"online_encoder.attention.{names[n]}" for n in "abc"}

    def named(table: dict[str, str]) -> State:
        return {table[n[0]] + n[1:]: t for n, t in parts.items()}

    x = torch.randn(7, DIM)
    h = apply(parts, "f", x).relu()

    def wanted(act: Any) -> Tensor:
        a = act(apply(parts, "a", h))
        a = a * apply(parts, "b", h).sigmoid() if gated else a
        return apply(parts, "y", pooled(apply(parts, "c", a), h))[0]

    path = saved(tmp_path, named(names))
    act = torch.relu if gated else torch.tanh
    assert torch.allclose(load_checkpoint(path)(x).logits, wanted(act), atol=1e-5)
    path = saved(tmp_path, {"model": named(inside), "teacher": named(inside)})
    with pytest.raises(ModelError, match="does not say the activation of its attention"):
        load_checkpoint(path)
    path.with_suffix(".json").write_text('{"activation": "gelu"}')
    gelu = torch.nn.functional.gelu
    assert torch.allclose(load_checkpoint(path)(x).logits, wanted(gelu), atol=1e-5)


def test_what_cannot_be_read_is_told_in_a_sentence(tmp_path: Path) -> None:
    evidence = tmp_path / "it-ran"

    class Evil:
        def __reduce__(self) -> tuple[object, tuple[Path]]:
            return (Path.touch, (evidence,))

    part = {n: t for n, t in clam().items() if not n.startswith("classifiers")}
    odd = clam() | {"attention_net.0.bias": torch.zeros(HIDDEN + 1)}
    heads = linear("global_attn.module.0", WIDTH, DIM) | linear("global_attn.module.3", 2, WIDTH)
    heads |= linear("classifier", CLASSES, 2 * DIM)
    for content, words in [
        ({"weights": Evil()}, "holds more than tensors"),
        ([1, 2], "holds a list and no state dict"),
        ({"epoch": 3}, "holds no tensors with names"),
        ({"x.weight": torch.zeros(2, 2)}, "of no MIL model that this program knows"),
        (part, "lacks a layer of it"),
        (clam() | {"extra.weight": torch.zeros(2)}, r"extra\.weight is unknown"),
        (odd, r"embed\.0\.bias is \[9\] instead of \[8\]"),
        (clam() | {"attention_net.0.weight": torch.zeros(())}, "lacks a layer of it"),
        (heads, "has 2 rows of attention whose sums are joined"),
    ]:
        with pytest.raises(ModelError, match=words) as caught:
            load_checkpoint(saved(tmp_path, content))
        assert "\n" not in str(caught.value)
    assert not evidence.exists()
    for data in (b"", b"not a checkpoint", pickle.dumps([1]), b"PK\x03\x04rest"):
        (tmp_path / "broken.pt").write_bytes(data)
        (tmp_path / "broken.safetensors").write_bytes(data)
        for name in ("broken.pt", "broken.safetensors"):
            with pytest.raises(ModelError) as caught:
                load_checkpoint(tmp_path / name)
            assert "\n" not in str(caught.value)
    with pytest.raises(ModelError, match="cannot be read"):
        load_checkpoint(tmp_path / "gone.pt")
