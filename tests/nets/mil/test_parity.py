"""Checkpoints of the authors' own code give the numbers that their code gave."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from napari_histomil.nets.mil import MILOutput, load_checkpoint

CLOSE = {"atol": 1e-5, "rtol": 1e-5}


def ask(folder: Path, name: str) -> tuple[MILOutput, dict[str, torch.Tensor]]:
    with np.load(folder / f"{name}.npz") as arrays:
        expected = {key: torch.from_numpy(arrays[key]) for key in arrays}
    features = [expected[key] for key in expected if key.startswith("features")]
    model = load_checkpoint(folder / f"{name}.pt")
    with torch.no_grad():
        return model(features[0] if len(features) == 1 else features), expected


@pytest.mark.parametrize("name", ["clam_sb_gated", "clam_mb_gated", "transmil", "zoommil"])
def test_logits_and_probabilities(data_dir: Path, name: str) -> None:
    output, expected = ask(data_dir / "mil-parity", name)
    assert torch.allclose(output.logits, expected["logits"][0], **CLOSE)
    assert torch.allclose(output.probabilities, expected["probabilities"][0], **CLOSE)
    if "attention_raw" in expected:
        assert torch.allclose(output.attention_raw, expected["attention_raw"], **CLOSE)
    if output.contributions is not None:
        total = output.bias + output.contributions.sum(1)
        assert torch.allclose(total, expected["logits"][0], **CLOSE)


def test_dsmil(data_dir: Path) -> None:
    output, expected = ask(data_dir / "mil-parity", "dsmil")
    assert torch.allclose(output.logits, expected["bag_scores"][0], **CLOSE)
    assert torch.allclose(output.instance_scores, expected["instance_scores"], **CLOSE)
    assert torch.allclose(output.attention, expected["attention"].T, **CLOSE)
    assert torch.allclose(output.bias + output.contributions.sum(1), output.logits, **CLOSE)
