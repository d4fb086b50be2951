"""A model is scored on other data by the code that made its card."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import tifffile
from PIL import Image
from shapely import box

from napari_histomil.annotations.geojson import write_geojson
from napari_histomil.annotations.model import AnnotationClass, Region, SlideFrame
from napari_histomil.cli import main
from napari_histomil.errors import TrainingError
from napari_histomil.manifest import load_manifest
from napari_histomil.slides.readers import open_slide
from napari_histomil.training.card import card
from napari_histomil.training.config import read_config
from napari_histomil.training.evaluate import Reading, read_data
from napari_histomil.training.fields import UNLABELLED

SPLIT = '\n[split]\ntest_groups = ["c", "d"]\n'


def trained(folder: Path) -> Path:
    """Train the toy of a folder with two pictures kept for a test, and copy these."""
    file = folder / "train.toml"
    text = file.read_text(encoding="utf-8").replace("folds = 2", "objects = true\nfolds = 2")
    text = text.replace("evaluate = true", "examples = true")
    file.write_text(text + SPLIT, encoding="utf-8")
    assert main(["train", str(file), "--data", str(folder), "-o", str(folder / "model")]) == 0
    held = folder / "held"
    for kind in ("images", "masks"):
        (held / kind).mkdir(parents=True)
        for name in "cd":
            shutil.copy(folder / "tiles" / kind / f"{name}.png", held / kind)
    return folder / "model"


@pytest.fixture(scope="module")
def done(toy_once: Path) -> Path:
    """Folder with a trained toy classifier, its tiles, and those it has not seen."""
    trained(toy_once)
    return toy_once


def check(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Evaluate on the pictures of the test: every figure is that of the card."""
    model = folder / "model"
    raw = json.loads((model / "model.json").read_text(encoding="utf-8"))
    out = tmp_path / "scores.json"
    capsys.readouterr()
    command = ["evaluate", str(model), str(folder / "held"), "--json", str(out)]
    options = ["--bootstraps", "50", "--objects", "--errors", str(tmp_path / "errors.jpg")]
    assert main([*command, *options]) == 0
    said = capsys.readouterr()
    assert "2 pictures or slides in 2 groups" in said.err
    assert "say what they have with --mpp" in said.err
    again = json.loads(out.read_text(encoding="utf-8"))
    test = raw["scores"]["test"]
    for part in set(test) - {"what", "test_groups"}:
        assert again[part] == test[part], part
    assert set(test) > {"fields", "calibration"}
    text = (model / "README.md").read_text(encoding="utf-8")
    assert text == card(read_config(model / "train.toml"), raw)
    table = [line for line in said.out.splitlines() if line.startswith("|")]
    assert table
    assert all(line in text for line in table)
    with Image.open(tmp_path / "errors.jpg") as picture:
        assert picture.width > 500
    assert main([*command, *options]) == 2  # nothing is written over by chance
    assert "add --force" in capsys.readouterr().err


def test_cells_have_the_scores_of_the_card(
    done: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    check(done, tmp_path, capsys)


def test_pixels_have_the_scores_of_the_card(
    toy_unet: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trained(toy_unet)
    check(toy_unet, tmp_path, capsys)


def test_scores_on_other_data_go_into_the_card_by_a_command(
    done: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tmp_path / "model"
    shutil.copytree(done / "model", model)
    before = json.loads((model / "model.json").read_text(encoding="utf-8"))
    command = ["evaluate", str(model), str(done / "held"), "--data", str(done), "--mpp", "1"]
    command += ["--bootstraps", "50"]
    assert main([*command, "--card", "two pictures of elsewhere"]) == 0
    raw = json.loads((model / "model.json").read_text(encoding="utf-8"))
    (block,) = raw["scores"]["apart"]
    words = f"toy {Path('DATA', 'held')} --data DATA --mpp 1.0 --bootstraps 50"
    assert block["command"] == f"histomil evaluate {words} --card"
    assert block["data"]["held"]["fields"] == 2
    assert block["all"] == before["scores"]["test"]["all"]
    text = (model / "README.md").read_text(encoding="utf-8")
    assert f"Two pictures of elsewhere (`{block['command']}`):" in text
    assert text == card(read_config(model / "train.toml"), raw)
    assert load_manifest(model).sha256 == load_manifest(done / "model").sha256
    assert main([*command, "--card"]) == 0  # what the card names gives the same once more
    assert json.loads((model / "model.json").read_text(encoding="utf-8")) == raw
    assert main([*command, "--objects", "--card"]) == 0
    apart = json.loads((model / "model.json").read_text(encoding="utf-8"))["scores"]["apart"]
    assert [each["what"] for each in apart] == ["two pictures of elsewhere", "on held"]
    (model / "train.toml").unlink()
    capsys.readouterr()
    assert main([*command, "--card"]) == 2
    assert "has no train.toml" in capsys.readouterr().err


def test_a_training_is_data_too_and_what_was_learnt_is_told(
    done: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = done / "model"
    capsys.readouterr()
    command = ["evaluate", str(model), str(model / "train.toml"), "--data", str(done)]
    assert main(command) == 0
    said = capsys.readouterr()
    assert "has learnt from this very data" in said.err
    assert "| 3 |" in said.out  # groups: a and b belong together


def folders(root: Path, names: dict[str, int]) -> Path:
    """Make a folder of two pictures for each class, of this grey."""
    for name, grey in names.items():
        (root / name).mkdir(parents=True)
        for number in range(2):
            picture = Image.new("RGB", (64, 64), (grey, grey, grey))
            picture.save(root / name / f"{name}{number}.png")
    return root


def test_folders_by_class_answer_for_slides(toy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = trained(toy)
    data = folders(toy / "byclass", {"benign": 190, "malignant": 110, "other": 30})
    rows = [f"{c}/{c}{n}.png,p{c}{n},s{c}{n}" for c in ("benign", "malignant") for n in (0, 1)]
    rows += [f"other/other{n}.png,po,so" for n in (0, 1)]
    (data / "labels.csv").write_text("\n".join(["file,patient,slide", *rows]), "utf-8")
    capsys.readouterr()
    command = ["evaluate", str(model), str(data), "--mpp", "1", "--bootstraps", "20"]
    assert main(command) == 2
    said = capsys.readouterr().err
    assert "benign, malignant and other of the data are no class of toy" in said
    assert "--class benign=CLASS" in said
    names = ["--class", "benign=normal", "--class", "malignant=tumor", "--class", "other="]
    assert main([*command, *names]) == 0
    out = capsys.readouterr().out
    assert "4 slides (2 positive) of 4 patients" in out
    assert "| top10% | 1.000 (1.000 to 1.000) |" in out


def test_classes_that_do_not_fit_are_refused(done: Path, tmp_path: Path) -> None:
    model = load_manifest(done / "model")
    data = folders(tmp_path / "byclass", {"normal": 190, "Tumor": 110})
    fields = read_data(model, data, Reading())
    assert [int(f.cut((0, 0), 1)[1][0, 0]) for f in fields] == [1, 1, 0, 0]  # any case will do
    with pytest.raises(TrainingError, match="Tumor of the data is no class of toy"):
        read_data(model, data, Reading(classes={"Tumor": "stroma"}))
    with pytest.raises(TrainingError, match="has no class 'necrosis': it has"):
        read_data(model, data, Reading(classes={"necrosis": "tumor"}))
    with pytest.raises(TrainingError, match="There is no"):
        read_data(model, tmp_path / "nothing", Reading())


def test_an_annotated_slide_is_data(
    done: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = load_manifest(done / "model")
    pixels = read_data(model, done / "held", Reading())[0].cut((0, 0), 128)[0]
    file = tmp_path / "slide.tif"
    tifffile.imwrite(
        file,
        pixels,
        photometric="rgb",
        tile=(64, 64),
        resolution=(10_000, 10_000),
        resolutionunit="CENTIMETER",
    )
    drawn = [
        Region(box(0, 0, 64, 128), AnnotationClass("Healthy", (1, 2, 3))),
        Region(box(64, 0, 128, 128), AnnotationClass("tumor", (4, 5, 6))),
    ]
    with open_slide(file) as slide:
        write_geojson(tmp_path / "a.geojson", drawn, frame=SlideFrame.of(slide.info))
    reading = Reading(annotations=str(tmp_path / "a.geojson"), classes={"Healthy": "normal"})
    (field,) = read_data(model, file, reading)
    labels = field.cut((0, 0), 128)[1]
    assert (labels[:, :64] == 0).all()
    assert (labels[:, 64:] == 1).all()
    (field,) = read_data(model, file, Reading(annotations=str(tmp_path / "a.geojson")))
    assert (field.cut((0, 0), 64)[1] == UNLABELLED).all()
    capsys.readouterr()
    command = [
        "evaluate",
        str(done / "model"),
        str(file),
        "--annotations",
        str(tmp_path / "a.geojson"),
    ]
    assert main([*command, "--class", "Healthy=normal", "--bootstraps", "20"]) == 0
    assert "| 16 (8) |" in capsys.readouterr().out
