"""What can be learnt from, as it lies on the disk."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image
from shapely.geometry import Point, box

from napari_histomil.annotations.collection import Command
from napari_histomil.annotations.geojson import write_geojson
from napari_histomil.annotations.keeping import open_annotations
from napari_histomil.annotations.model import Region, SlideFrame, class_named
from napari_histomil.cli import main
from napari_histomil.errors import TrainingError
from napari_histomil.slides.readers import open_slide
from napari_histomil.training.config import read_config
from napari_histomil.training.data import read_sources
from napari_histomil.ui.training_choices import Choices
from napari_histomil.ui.training_data import look_at_slide, look_at_tiles, renamed
from napari_histomil.ui.training_job import Plan, toml_of
from napari_histomil.ui.training_plan import config_of

PIXELS = np.full((256, 256, 3), 200, np.uint8)

DRAWN = [
    Region(box(0, 0, 200, 200), class_named("Region*")),
    Region(box(10, 10, 60, 60), class_named("Tumor")),
    Region(box(80, 80, 120, 120), class_named("Tumor")),
    Region(box(130, 130, 150, 150), class_named("Stroma")),
    Region(box(160, 160, 170, 170), class_named("Ignore*")),
    Region(box(180, 180, 190, 190)),
    Region(Point(5, 5), class_named("Tumor")),
]


def test_a_file_beside_the_slide_is_found(write_slide):
    path = write_slide(PIXELS, "a [1].tiff")
    with open_slide(path) as slide:
        frame = SlideFrame.of(slide.info)
    assert "Nothing with a class is drawn on a [1].tiff" in look_at_slide(path).problem
    write_geojson(path.with_name("a [1].geojson"), DRAWN, frame=frame)
    found = look_at_slide(path)
    assert found.usable
    assert found.counts == {"Stroma": 1, "Tumor": 2}
    assert found.colors["Tumor"] == (200, 0, 0)
    assert (found.bounded, found.ignored, found.mpp) == (True, True, 0.5)
    assert found.annotations == str(path.parent / "{stem}.geojson")
    # what was drawn in this program counts before it
    with open_slide(path) as slide:
        keeper = open_annotations(slide.info)
    keeper.do(Command("draw", added={DRAWN[1].id: DRAWN[1]}))
    keeper.close()
    found = look_at_slide(path)
    assert (found.counts, found.annotations, found.bounded) == ({"Tumor": 1}, "", False)


def test_what_cannot_be_used_says_why(write_slide, tmp_path):
    assert "µm" in look_at_slide(write_slide(PIXELS, "bare.tiff", None)).problem
    missing = look_at_slide(tmp_path / "missing.svs")
    assert not missing.usable
    assert "missing.svs" in missing.problem


def write_tiles(folder, masks, end="png"):
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    for number, mask in enumerate(masks):
        Image.fromarray(PIXELS[: len(mask), : len(mask)]).save(folder / f"images/{number}.png")
        Image.fromarray(mask).save(folder / f"masks/{number}.{end}")
    return folder


def test_masks_of_dark_and_bright_and_of_numbers(tmp_path):
    mask = np.zeros((64, 64), np.uint8)
    mask[:, 32:] = 255
    found = look_at_tiles(write_tiles(tmp_path / "two", [mask, mask]))
    assert ([c.name for c in found.classes], found.values) == (["background", "Tumor"], {})
    found = look_at_tiles(write_tiles(tmp_path / "jpeg", [mask] * 3, "jpg"))
    assert (found.pictures, found.values) == (3, {})
    number = np.zeros((64, 64), np.uint8)
    number[:20], number[40:] = 1, 2
    found = look_at_tiles(write_tiles(tmp_path / "numbers", [number, number]))
    assert found.values == {"0": "background", "1": "class 1", "2": "class 2"}
    named = renamed(found, "class 2", "Gland")
    assert named.values["2"] == named.classes[2].name == "Gland"
    config = config_of(
        Choices("m", tiles=named, classes=named.classes, positive="Gland", background="background")
    )
    fields = read_sources(config, tmp_path)
    assert [field.present for field in fields] == [(0, 1, 2)] * 2


@pytest.mark.parametrize(
    ("values", "words"), [(40, "40 different values"), (1, "1 different values")]
)
def test_masks_that_tell_nothing_apart(tmp_path, values, words):
    mask = np.arange(64 * 64, dtype=np.uint32).reshape(64, 64) % values
    folder = write_tiles(tmp_path / "t", [mask.astype(np.uint8)])
    with pytest.raises(TrainingError, match=words):
        look_at_tiles(folder)
    with pytest.raises(TrainingError, match="no folder of tiles"):
        look_at_tiles(tmp_path)


def test_tiles_of_this_program_say_all_of_themselves(write_slide, tmp_path):
    """What ``histomil annotations tiles`` writes is split by patient here too."""
    lines = ["slide,annotations,patient"]
    for number, patient in enumerate("ppq"):
        path = write_slide(PIXELS - np.uint8(number), f"s{number}.tiff")
        with open_slide(path) as slide:
            frame = SlideFrame.of(slide.info)
        write_geojson(path.with_suffix(".geojson"), DRAWN, frame=frame)
        lines.append(f"s{number}.tiff,s{number}.geojson,{patient}")
    (tmp_path / "slides.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    out = tmp_path / "tiles"
    command = ["annotations", "tiles", str(tmp_path / "slides.csv"), "-o", str(out)]
    assert main([*command, "--mpp", "1", "--tile", "32"]) == 0
    found = look_at_tiles(out)
    facts = json.loads((out / "classes.json").read_text(encoding="utf-8"))
    names = [each["name"] for each in facts["classes"]]
    assert [each.name for each in found.classes] == ["background", *names]
    assert found.mpp == 1.0
    assert found.group_count == 2
    assert "unlabelled" in found.values.values()
    plan = Plan(
        config_of(
            Choices(
                "tiles",
                tiles=found,
                classes=found.classes,
                positive="Tumor",
                background="background",
            )
        ),
        seed=3,
    )
    file = tmp_path / "train.toml"
    file.write_text(toml_of(plan), encoding="utf-8")
    assert file.read_text(encoding="utf-8").startswith(
        "# histomil train train.toml -o FOLDER --seed 3\n"
    )
    assert read_config(file) == plan.config
    assert len({field.group for field in read_sources(plan.config, tmp_path)}) == 2
