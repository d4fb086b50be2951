"""A pretraining's configuration is read whole, or refused in one sentence."""

from __future__ import annotations

from pathlib import Path

import pytest

from napari_histomil.errors import TrainingError
from napari_histomil.training.selfsupervised.config import PretrainConfig, read_pretrain_config


def test_members_and_defaults(config: PretrainConfig) -> None:
    assert config.method == "simclr"
    assert config.backbone.arguments == {"channels": [8, 16, 32, 64], "stem_width": 8}
    assert config.views.solarise_probability == 0
    assert config.local_views == 0  # they are DINO's
    assert config.local_px == 16
    assert config.dino.student_temperature == 0.1


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (
            'method = "simclr"',
            'method = "mae"',
            "method must be one of simclr, byol, mocov3, dino",
        ),
        ("steps = 6", "steps = 6\nlars = true", "schedule.lars is unknown here"),
        ("batch = 4", "batch = 1", "schedule.batch 2 or more"),
        ("zoom = [1.0, 1.0]", "zoom = [1.5, 1.0]", "the smaller one first"),
        ("field = 2.5", "field = 0.9", "make views.field at least 1"),
        ("mpp = 1.0\n", "", "grid.mpp is missing"),
        ('path = "pictures"\nmpp = 1.0', 'path = "pictures"', "do not say their µm/px: add mpp"),
        ("local_px = 16", "local_px = 33", "views.local_px must be 0 to grid.tile_px"),
        ("stride_px = 32", "stride_px = 40", "leaves gaps"),
    ],
)
def test_refused(toy: Path, old: str, new: str, words: str) -> None:
    file = toy / "pretrain.toml"
    text = file.read_text(encoding="utf-8")
    assert old in text
    file.write_text(text.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(TrainingError) as caught:
        read_pretrain_config(file)
    assert words in str(caught.value)
    assert str(caught.value).startswith(str(file))
