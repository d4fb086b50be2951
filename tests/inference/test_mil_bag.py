"""Bags of other programs, asked of models of other programs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from napari_histomil.errors import ModelError, RunError
from napari_histomil.exchange.bags import read_bag
from napari_histomil.inference.mil_bag import run_on_bag
from napari_histomil.inference.mil_models import asked_checkpoints
from napari_histomil.nets.mil import build_mil
from napari_histomil.results import MilRun
from napari_histomil.results.bag import Bag, BagLevel, SlideFacts

NAMES = {"clam_sb_gated": ("features",), "clam_mb_gated": ("features",), "dsmil": ("features",),
         "transmil": ("features",), "zoommil": ("features_low", "features_mid", "features_high"),
}  # fmt: skip


def bag_of(*levels: NDArray[Any], name: str = "ü.svs") -> Bag:
    sides = [256.0 / 2**i for i in range(len(levels))]
    return Bag(
        tuple(
            BagLevel(np.column_stack([np.arange(len(x)) * side, np.zeros(len(x))]), (side, side),
                     None, x)
            for x, side in zip(levels, sides, strict=True)
        ),
        SlideFacts(name),
    )  # fmt: skip


def ask(data_dir: Path, name: str, out: Path, **options: Any) -> tuple[MilRun, Any]:
    folder = data_dir / "mil-parity"
    wanted = np.load(folder / f"{name}.npz")
    bag = bag_of(*(wanted[part] for part in NAMES[name]))
    k = 6 if name == "zoommil" else None
    asked = asked_checkpoints([folder / f"{name}.pt"], k=k)
    run = run_on_bag(bag, asked, origin=[folder / f"{name}.npz"], out=out, device="cpu", **options)
    return run, wanted


@pytest.mark.parametrize("name", list(NAMES))
def test_checkpoints_of_others_answer_as_their_own_code(
    tmp_path: Path, data_dir: Path, name: str
) -> None:
    run, wanted = ask(data_dir, name, tmp_path)
    logits = wanted["bag_scores" if name == "dsmil" else "logits"]
    np.testing.assert_allclose(run.answer.logits, logits[0], atol=1e-5)
    if "probabilities" in wanted:
        np.testing.assert_allclose(run.answer.probabilities, wanted["probabilities"][0], atol=1e-5)
    if "attention_raw" in wanted:
        np.testing.assert_allclose(run.maps[0].raw, wanted["attention_raw"], atol=1e-5)
    if name == "dsmil":
        np.testing.assert_allclose(run.maps[0].value, wanted["attention"].T, atol=1e-5)
        np.testing.assert_allclose(run.instance_scores, wanted["instance_scores"], atol=1e-5)
    if run.contributions:
        total = sum(part.values.sum(1) for part in run.contributions) + run.bias
        np.testing.assert_allclose(total, run.answer.logits, atol=1e-5)
    assert run.source.file == f"{name}.npz"
    assert len(run.source.sha256) == 64
    assert run.class_names == tuple(f"class {c}" for c in range(len(run.classes)))
    assert run.path.parent == tmp_path / "ü.svs.histomil" / "runs"
    again, _ = ask(data_dir, name, tmp_path)
    assert again.created == run.created, "the same question is not answered twice"
    (run.path / "zarr.json").write_text("{}")
    mended, _ = ask(data_dir, name, tmp_path)
    np.testing.assert_array_equal(mended.answer.logits, run.answer.logits)


def test_a_real_bag_and_what_is_told_of_it(tmp_path: Path, data_dir: Path) -> None:
    import torch

    file = data_dir / "mil-features-tcga-crc" / "TCGA-AD-6964-01Z-00-DX1" / "features.h5"
    bag = read_bag(file, side_px0=512, mpp=0.5)
    torch.manual_seed(0)
    net = build_mil("clam-sb", 512, 2, hidden=[512]).eval()
    names = {"embed.0.": "attention_net.0.", "attention.v.": "attention_net.3.attention_a.0.",
             "attention.u.": "attention_net.3.attention_b.0.",
             "attention.w.": "attention_net.3.attention_c.", "classifier.": "classifiers.",
             "instance_classifiers.": "instance_classifiers."}  # fmt: skip
    state = {
        next(new + key.removeprefix(old) for old, new in names.items() if key.startswith(old)): t
        for key, t in net.state_dict().items()
    }
    checkpoint = tmp_path / "s_0_checkpoint.pt"
    torch.save(state, checkpoint)
    asked = asked_checkpoints([checkpoint], class_names=["MSS", "MSI"])
    run = run_on_bag(bag, asked, origin=[file], out=tmp_path, device="cpu", passes=4)
    with torch.inference_mode():
        wanted = net(torch.from_numpy(np.asarray(bag.levels[0].features)))
    np.testing.assert_allclose(run.answer.logits, wanted.logits, atol=1e-5)
    assert (len(run.levels[0]), run.class_names) == (777, ("MSS", "MSI"))
    assert run.answer.spread is not None
    assert run.levels[0].grid is None
    assert 1 < run.maps[0].effective_number[0] <= 777
    with pytest.raises(ModelError, match="answers for 2 classes, and 3 names"):
        asked_checkpoints([checkpoint], class_names=["a", "b", "c"])
    other = data_dir / "mil-parity" / "clam_sb_gated.pt"
    with pytest.raises(ModelError, match="are no ensemble"):
        asked_checkpoints([checkpoint, other])
    with pytest.raises(RunError, match="have 512 values a tile, and the model takes 64"):
        run_on_bag(bag, asked_checkpoints([other]), origin=[file], out=tmp_path)
    with pytest.raises(RunError, match="Nothing says where"):
        run_on_bag(bag, asked, origin=[file])
    with pytest.raises(RunError, match="3 magnification"):
        run_on_bag(replace(bag, levels=bag.levels * 3), asked, origin=[file], out=tmp_path)


def test_a_bag_of_one_patch_and_one_with_nan_say_so(tmp_path: Path, data_dir: Path) -> None:
    folder = data_dir / "mil-parity"
    features = np.load(folder / "clam_sb_gated.npz")["features"]
    asked = asked_checkpoints([folder / "clam_sb_gated.pt"])
    origin = [folder / "clam_sb_gated.npz"]
    one = run_on_bag(bag_of(features[:1]), asked, origin=origin, out=tmp_path / "a", device="cpu")
    assert any("only 1 patch:" in w for w in one.warnings)
    features[3] = np.nan
    bad = run_on_bag(bag_of(features), asked, origin=origin, out=tmp_path / "b", device="cpu")
    assert any("is not a number" in w for w in bad.warnings)
    same = np.repeat(features[:1], 20, axis=0)
    flat = run_on_bag(bag_of(same), asked, origin=origin, out=tmp_path / "c", device="cpu")
    assert any("Attention is the same for all 20 patches" in w for w in flat.warnings)
