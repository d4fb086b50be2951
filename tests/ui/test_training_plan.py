"""What the Train dock's choices come to: sides, groups, configurations; without a window."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from napari_histomil.errors import TrainingError
from napari_histomil.manifest import ClassSpec
from napari_histomil.training.config import Network, TrainingConfig, config_to_toml, read_config
from napari_histomil.ui.training_choices import PRESETS, Choices
from napari_histomil.ui.training_data import AnnotatedSlide, TileFolder, slide_text
from napari_histomil.ui.training_plan import config_of
from napari_histomil.ui.training_sides import sides_of, split_text

TUMOR, STROMA = ClassSpec("Tumor", (200, 0, 0)), ClassSpec("Stroma", (150, 200, 150))
BACKGROUND = ClassSpec("background", (120, 160, 220))


def slide(name: str, *, bounded: bool = True, annotations: str = "", **counts: int):
    colors = {"Tumor": TUMOR.color, "Stroma": STROMA.color}
    return AnnotatedSlide(
        Path("/data") / name,
        name * 3,
        0.5,
        annotations,
        counts,
        {each: colors[each] for each in counts},
        bounded,
    )


def choices(*slides: AnnotatedSlide, **changes) -> Choices:
    made = Choices(
        "my-unet",
        slides=slides,
        classes=(TUMOR, BACKGROUND),
        positive="Tumor",
        background="background",
    )
    return replace(made, **changes)


FOUR = tuple(slide(f"{n}.svs", Tumor=n + 1) for n in range(4))


def test_what_is_shown_is_what_is_written():
    chosen = choices(*FOUR, kept="test")
    sides = sides_of(chosen)
    assert sorted(sides.values()) == ["test", "training", "training", "validation"]
    assert split_text(chosen) == "Slides: 2 for training, 1 for validation, 1 for test."
    config = config_of(chosen)
    named = {path.name: side for path, side in sides.items()}
    assert [named[name] for name in config.split.validation_groups] == ["validation"]
    assert [named[name] for name in config.split.test_groups] == ["test"]
    assert config.split.validation == config.split.test == 0


def test_slides_of_a_patient_of_a_name_and_copies_stay_together():
    twin = replace(FOUR[1], path=Path("/elsewhere/x.svs"))  # the same pixels
    namesake = replace(slide("n.svs", Tumor=1), path=Path("/elsewhere/2.svs"))
    chosen = choices(
        *FOUR, twin, namesake, groups={FOUR[0].path: "p", FOUR[3].path: " p"}, kept="test"
    )
    sides = sides_of(chosen)
    assert sides[FOUR[0].path] == sides[FOUR[3].path]
    assert sides[FOUR[1].path] == sides[twin.path]
    assert sides[FOUR[2].path] == sides[namesake.path]
    (source,) = config_of(chosen).sources
    assert source.groups == (("0", "3"), ("1", "x"))
    assert source.share == 6


def test_the_configuration_survives_its_file(tmp_path):
    odd = slide("odd [1].svs", Tumor=2, annotations="/data/{stem}.geojson")
    config = config_of(choices(*FOUR, odd))
    path = tmp_path / "train.toml"
    path.write_text(config_to_toml(config), encoding="utf-8")
    assert read_config(path) == config
    own, beside = config.sources
    assert (own.annotations, beside.annotations) == ("", "/data/{stem}.geojson")
    assert beside.slides == ("/data/odd [[]1].svs",), "no pattern"
    assert config.background_class == "background"
    assert config.class_names == ["background", "Tumor"]
    assert config.validation.metric == "dice"
    assert (config.grid.tile_px, config.grid.stride_px, config.grid.margin_px) == (256, 128, 32)


def test_a_classifier_has_its_background_first():
    small = PRESETS["classify"][0]
    config = config_of(choices(*FOUR, task="classify", tile_px=192))
    assert config.class_names == ["background", "Tumor"]
    assert config.background_class == ""
    assert config.network == Network(small.architecture, {**small.arguments, "cell_px": 64})
    assert (config.grid.stride_px, config.validation.metric) == (64, "auroc")
    bare = tuple(slide(f"{n}.svs", bounded=False, Tumor=1, Stroma=n) for n in range(2, 5))
    drawn = choices(*bare, task="classify", classes=(TUMOR, STROMA), background="Stroma")
    assert config_of(drawn).class_names == ["Stroma", "Tumor"]


def test_weights_are_chosen_by_what_the_validation_allows():
    """Where it holds one class only, AUROC and Dice cannot be worked out."""
    only = [slide(f"{n}.svs", bounded=False, Tumor=1) for n in range(2)]
    both = slide("both.svs", bounded=False, Tumor=1, Stroma=1)
    for task, metric in (("classify", "loss"), ("segment", "dice")):
        chosen = choices(
            *only, both, task=task, tile_px=96, classes=(STROMA, TUMOR), background="Stroma"
        )
        held = [path for path, side in sides_of(chosen).items() if side == "validation"]
        assert held != [both.path]
        assert config_of(chosen).validation.metric == metric
    assert config_of(choices(*FOUR, kept="none")).validation.metric == "loss"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"slides": ()}, "nothing to learn from"),
        ({"slides": FOUR[:1]}, "1 patient or slide is too few for a training and a validation"),
        ({"slides": FOUR[:2], "kept": "test"}, "2 patients or slides are too few"),
        ({"groups": {each.path: "p" for each in FOUR}}, "1 patient or slide is too few"),
        ({"slides": (*FOUR, slide("s.svs", bounded=False, Stroma=1))}, "s.svs holds no region"),
        ({"classes": (TUMOR,), "background": ""}, "two classes"),
        ({"positive": "background"}, "cannot be the background"),
        ({"tile_px": 100}, "no multiple of 32"),
        ({"name": "a/b"}, "needs a name"),
        ({"name": ""}, "needs a name"),
        ({"network": Network("timm/resnet18")}, "does not segment"),
    ],
)
def test_refused(change, words):
    with pytest.raises(TrainingError, match=words):
        config_of(choices(*FOUR, **change) if "slides" not in change else choices(**change))


def test_a_class_must_be_left_for_the_training():
    rare, common = slide("b.svs", Tumor=1, Stroma=1), slide("a.svs", Tumor=1)
    chosen = choices(rare, common, classes=(TUMOR, STROMA, BACKGROUND))
    assert sides_of(chosen) == {rare.path: "training", common.path: "validation"}
    lonely = replace(common, counts={"Tumor": 1}), slide("c.svs", Stroma=1)
    with pytest.raises(TrainingError, match="is on no slide that is left for the training"):
        sides_of(replace(chosen, slides=lonely))


def test_tiles(tmp_path):
    folder = TileFolder(tmp_path, 40, (BACKGROUND, TUMOR), {"0": "background", "1": "Tumor"}, 0.5)
    chosen = choices(tiles=folder, kept="test")
    config = config_of(chosen)
    (source,) = config.sources
    assert (source.kind, source.path, source.mpp) == ("tiles", str(tmp_path), 0.5)
    assert source.values == {"0": "background", "1": "Tumor"}
    assert (config.split.validation, config.split.test) == (0.2, 0.2)
    assert split_text(chosen).startswith("40 groups of pictures: 60 % for training")
    with pytest.raises(TrainingError, match="too few"):
        split_text(replace(chosen, tiles=replace(folder, pictures=2)))


def test_a_file_keeps_what_the_dock_does_not_show():
    base: TrainingConfig = replace(
        config_of(choices(*FOUR)), licence="CC0-1.0", notes=("For a test.",)
    )
    chosen = Choices("other", base=base, network=base.network, tile_px=256, steps=7, batch=3)
    config = config_of(chosen)
    assert config == replace(base, name="other", schedule=replace(base.schedule, steps=7, batch=3))
    assert config_of(replace(chosen, tile_px=128)).grid.stride_px == 64


def test_what_region_and_ignore_mean_is_said():
    drawn = slide("a.svs", Tumor=2, Stroma=1)
    assert slide_text(drawn) == "Tumor 2, Stroma 1. Region*: all else inside it is background."
    text = slide_text(replace(drawn, bounded=False, ignored=True))
    assert text.endswith("No Region*: only what is drawn is learnt from. Ignore*: left out.")
