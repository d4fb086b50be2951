from __future__ import annotations

import torch

from napari_histomil.nets.mil import build_mil


def test_children_are_a_set_and_speak_only_through_their_parent() -> None:
    torch.manual_seed(0)
    model = build_mil("magnification-transformer", 6, 2, width=16, heads=2).eval()
    low, high = torch.randn(3, 6), torch.randn(12, 6)
    output = model([low, high])
    assert output.attention.shape == (1, 3)
    mixed = high.clone()
    mixed[4:8] = high[4:8].flip(0)
    assert torch.allclose(model([low, mixed]).logits, output.logits, atol=1e-6)
    changed = high.clone()
    changed[5] += 3
    moved = model([low, changed])
    rows = (moved.attention_raw - output.attention_raw)[0].abs() > 1e-6
    assert rows.tolist() == [False, True, False]
