"""A configuration is read whole, or refused in one sentence that names file and member."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from napari_histomil.errors import TrainingError
from napari_histomil.manifest import ClassSpec
from napari_histomil.tiling import GridSpec
from napari_histomil.training.config import (
    Loss,
    Network,
    Scaling,
    Schedule,
    Source,
    Tracking,
    TrainingConfig,
    config_to_toml,
    read_config,
)
from napari_histomil.training.labels import NONE


def test_members_and_defaults(toy: Path) -> None:
    config = read_config(toy / "train.toml")
    assert config.grid.tile_px == 64
    assert config.classes[1].color == (200, 0, 0)
    assert config.network.arguments["backbone_arguments"] == {"channels": [8, 8, 16, 16]}
    assert config.sources[0].groups == (("a", "b"),)
    assert config.sources[0].channel_order == "rgb"
    assert config.schedule.learning_rate == 0.01


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('licence = "BSD-3-Clause"', "", "licence is missing"),
        ("steps = 12", "steps = 12\nepochs = 3", "schedule.epochs is unknown"),
        ("steps = 12", "steps = 1.5", "schedule.steps must be a whole number"),
        ("steps = 12", "steps = true", "schedule.steps must be a whole number"),
        ("bf16 = false", 'bf16 = "no"', "schedule.bf16 must be one of auto, true, false"),
        ("bf16 = false", "bf16 = 1", "schedule.bf16 must be one of auto, true, false"),
        ("mean = [0.7, 0.5, 0.7]", "mean = [0.7]", "normalisation needs three numbers"),
        ('kind = "tiles"', 'kind = "pictures"', "sources[0].kind must be one of tiles"),
        ('positive_class = "tumor"', 'positive_class = "tumour"', "'tumour' is none of"),
        ("stride_px = 32", "stride_px = 33", "cannot be centred"),
        ("stride_px = 32", "stride_px = 65", "leaves gaps"),
        ("share = 1.0", "share = 0", "must be 0 or more, and one above 0"),
        ("[grid]", "[grid", "cannot be read as TOML"),
    ],
)
def test_refused(toy: Path, old: str, new: str, words: str) -> None:
    file = toy / "train.toml"
    file.write_text(file.read_text(encoding="utf-8").replace(old, new, 1), encoding="utf-8")
    with pytest.raises(TrainingError) as caught:
        read_config(file)
    message = str(caught.value)
    assert words in message
    assert message.startswith(str(file))
    assert "\n" not in message.removesuffix("\n").split("cannot be read as TOML")[0]


def test_synthetic_seeds_on_both_sides_are_refused(toy: Path) -> None:
    file = toy / "train.toml"
    text = file.read_text(encoding="utf-8").replace(
        "bootstraps = 50", "bootstraps = 50\nsynthetic_seeds = [4, 5]"
    )
    text += (
        '\n[[sources]]\nkind = "synthetic"\nname = "s"\nlicence = "x"\nshare = 1\nseeds = [5, 6]\n'
    )
    file.write_text(text, encoding="utf-8")
    with pytest.raises(TrainingError, match=r"\[5\] are in the training and in the validation"):
        read_config(file)


def test_the_shipped_configuration_is_valid(repository: Path) -> None:
    config = read_config(repository / "models" / "metastasis-patch-small" / "train.toml")
    assert config.name == "metastasis-patch-small"
    tiles = config.sources[0]
    assert tiles.channel_order == "bgr"
    assert ("10670", "10682") in tiles.groups


def test_written_as_toml_it_is_read_back_to_the_same(toy: Path, repository: Path) -> None:
    shipped = repository / "models" / "metastasis-patch-small" / "train.toml"
    for file in (toy / "train.toml", shipped):
        config = read_config(file)
        again = file.parent / "again.toml" if file.is_relative_to(toy) else toy / "shipped.toml"
        again.write_text(config_to_toml(config), encoding="utf-8")
        assert read_config(again) == config
    assert "label_smoothing" not in config_to_toml(config)  # as by default


def test_a_training_can_be_built_from_python_values(tmp_path: Path) -> None:
    config = TrainingConfig(
        name="glands",
        description='With "quotes", \\ and\nlines.',
        licence="CC0-1.0",
        task="segment",
        positive_class="gland: odd",
        activation="sigmoid",
        grid=GridSpec(0.5, 256, 128, 32),
        network=Network("smp/unet", {"encoder_name": "resnet18"}),
        normalisation=Scaling((0.7, 0.5, 0.7), (0.2, 0.2, 0.2)),
        classes=(ClassSpec("gland: odd", (1, 2, 3)),),
        sources=(Source("slide", "slides", "CC0-1.0", class_names={"Gland: odd": "gland: odd"}),),
        schedule=Schedule(10),
        loss=Loss({"gland: odd": 2.0}),
    )
    (tmp_path / "train.toml").write_text(config_to_toml(config), encoding="utf-8")
    assert read_config(tmp_path / "train.toml") == config
    assert config.channels == 2
    assert config.labels.background == NONE
    renamed = replace(config, name="other", notes=("a",), tracking=Tracking(True))
    assert renamed.hash() == config.hash() != replace(config, schedule=Schedule(11)).hash()


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('task = "segment"', "", "smp/unet does not classify"),
        ('"smp/unet"', '"timm/resnet18"', "timm/resnet18 does not segment"),
        ('background_class = "normal"', 'background_class = "glass"', "'glass' is none of"),
        ('background_class = "normal"', 'background_class = "tumor"', "'tumor' is the background"),
        (
            'task = "segment"',
            'task = "segment"\nactivation = "sigmoid"',
            "background_class is for",
        ),
        ('kind = "tiles"', 'kind = "folders"', "pictures in folders have no outlines"),
        ("share = 1.0", "share = 1.0\nresize_px = 64", "must be the same"),
        ("[schedule]", "[loss]\nclass_weights = { lung = 2 }\n[schedule]", "'lung' is none of"),
        (
            "[schedule]",
            "[split]\nvalidation = 0.6\ntest = 0.5\n[schedule]",
            "together less than 1",
        ),
        ("steps = 12", "steps = 0", "must be 1 or more"),
    ],
)
def test_a_segmentation_refused(toy_unet: Path, old: str, new: str, words: str) -> None:
    file = toy_unet / "train.toml"
    text = file.read_text(encoding="utf-8")
    assert old in text
    file.write_text(text.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(TrainingError, match=words):
        read_config(file)
