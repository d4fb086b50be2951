"""``histomil score``: what it prints and writes, and a sentence for whatever cannot be scored."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from shapely.geometry import box
from truth_runs import drawn, grid_over, picture_run, tile_run

from napari_histomil.annotations.geojson import write_geojson
from napari_histomil.annotations.model import SlideFrame
from napari_histomil.cli import main

GRID = grid_over(960, 640)  # 30 x 20 cells of 32 µm
LESION = drawn(box(128, 128, 448, 448), "Tumor")
WHERE = drawn(box(0, 0, 960, 640), "Region*")


def scores(noise=0.0, *, lesion=True, seed=0):
    image = np.full(GRID.shape, 0.1)
    if lesion:
        image[4:14, 4:12] = 0.9
    image += np.random.default_rng(seed).uniform(-noise, noise, image.shape)
    return np.clip(image, 0, 1).ravel()


def cohort(folder: Path) -> Path:
    """Four patients, two with a lesion; a second model that is worse."""
    lines = ["run,other,annotations,label,patient"]
    for n in range(4):
        name, ill = f"s{n}", n % 2 == 0
        first = tile_run(folder, GRID, scores(0.05, lesion=ill, seed=n), slide=name)
        second = tile_run(
            folder, GRID, scores(0.6, lesion=ill, seed=n + 9), slide=name, model="rival"
        )
        write_geojson(folder / f"{name}.geojson", [WHERE, LESION] if ill else [WHERE])
        label = "tumor" if ill else "normal"
        lines.append(f"{first.path.name},{second.path.name},{name}.geojson,{label},p{n}")
    table = folder / "cohort.csv"
    table.write_text("\n".join(lines), encoding="utf-8")
    return table


def test_one_run_by_annotations(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tile_run(tmp_path, GRID, scores())
    write_geojson(tmp_path / "a.geojson", [WHERE, LESION])
    out = tmp_path / "s.json"
    words = ["score", str(run.path), "--annotations", str(tmp_path / "a.geojson"),
             "--bootstraps", "20", "--froc", "--json", str(out)]  # fmt: skip
    assert main(words) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "Recall (sensitivity) 0.800" in said
    assert "pixels: 0.614 mm² judged, 0.102 positive, 0.082 called so, 0.082 both" in said
    assert "FROC score 1.000: 1 lesion and 0 isolated cells on 1 slide" in said
    assert "No slides: 1 slides have both an answer and a label" in said
    document = json.loads(out.read_text(encoding="utf-8"))
    assert document["levels"]["tiles"]["confusion"] == {"tp": 80, "fp": 0, "fn": 20, "tn": 500}
    assert document["levels"]["pixels"]["figures"]["iou"]["value"] == pytest.approx(0.8)
    assert document["froc"]["score"] == 1
    assert main(words) == 2
    assert "exists already" in capsys.readouterr().err


def test_a_cohort_of_two_models(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = cohort(tmp_path)
    slides, out = tmp_path / "slides.csv", tmp_path / "all.json"
    code = main(["score", str(table), "--bootstraps", "100", "--csv", str(slides),
                 "--json", str(out)])  # fmt: skip
    captured = capsys.readouterr()
    assert code == 0
    assert "4 slides of 4 patients" in captured.out
    assert "2 of 4 truths have no tumor" in captured.err
    assert "tiles: maker less rival" in captured.out
    assert "McNemar over slides: p" in captured.out
    with slides.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["positive"] for row in rows] == ["True", "False", "True", "False"]
    assert [row["lesions_found"] for row in rows] == ["1", "0", "1", "0"]
    document = json.loads(out.read_text(encoding="utf-8"))
    better = document["paired"]["tiles"]["figures"]["auroc"]
    assert 0 < better["low"] < better["value"]
    assert document["levels"]["slides"]["confusion"] == {"tp": 2, "fp": 0, "fn": 0, "tn": 2}
    assert document["levels"]["tiles"]["patients"] == 4


def test_by_another_run_and_of_a_segmentation(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tile_run(tmp_path, GRID, scores())
    assert main(["score", str(run.path), "--truth-run", str(run.path), "--bootstraps", "5"]) == 0
    assert "F1 (Dice) 1.000" in " ".join(capsys.readouterr().out.split())
    p = np.zeros((640, 960))
    p[128:448, 128:448] = 1
    picture = picture_run(tmp_path, GRID, p)
    write_geojson(tmp_path / "a.geojson", [LESION])
    words = ["score", str(picture.path), "--annotations", str(tmp_path / "a.geojson"),
             "--bootstraps", "5"]  # fmt: skip
    assert main([*words, "--fully-annotated"]) == 0
    assert "F1 (Dice) 1.000" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda f: write_geojson(f / "a.geojson", [LESION]), "declare the slide fully annotated"),
        (
            lambda f: write_geojson(
                f / "a.geojson", [WHERE], frame=SlideFrame(slide="b", fingerprint="0" * 64)
            ),
            "drawn on another slide",
        ),
        (
            lambda f: write_geojson(f / "a.geojson", [drawn(box(0, 0, 1, 0.1), "Region*")]),
            "No pixel of the slide was judged",
        ),
        (lambda f: (f / "a.geojson").unlink(missing_ok=True), "a.geojson"),
    ],
)
def test_what_cannot_be_scored_is_one_sentence(change, says, tmp_path: Path, capsys) -> None:
    run = tile_run(tmp_path, GRID, scores())
    change(tmp_path)
    words = ["score", str(run.path), "--annotations", str(tmp_path / "a.geojson")]
    assert main(words) == 2
    error = capsys.readouterr().err
    assert says in error
    assert error.count("\n") == 1


def test_runs_that_do_not_belong_together(tmp_path: Path, capsys) -> None:
    one = tile_run(tmp_path, GRID, scores())
    two = tile_run(tmp_path, GRID, scores(), model="rival")
    elsewhere = tile_run(tmp_path, GRID, scores(), slide="b")
    write_geojson(tmp_path / "a.geojson", [WHERE, LESION])
    named = ["--annotations", str(tmp_path / "a.geojson")]
    for words, says in (
        ([str(one.path), str(two.path)], "score one model at a time"),
        ([str(one.path), str(two.path), *named], "name them in a table"),
        ([str(one.path), *named, "--other", str(elsewhere.path)], "compare runs of one slide"),
        ([str(one.path)], "nothing to score by"),
        ([str(one.path), *named, "--class", "x"], "has no class x: it has normal, tumor"),
        ([str(one.path), "--drawn"], "Nothing is drawn on slide.tif"),
        ([str(one.path), "--mask", str(tmp_path / "no.tif")], "There is no file"),
    ):
        assert main(["score", *words, "--bootstraps", "5"]) == 2
        assert says in capsys.readouterr().err


def test_a_table_says_what_is_wrong_with_it(tmp_path: Path, capsys) -> None:
    table = tmp_path / "t.csv"
    for text, says in (
        ("slide\na", "names no run"),
        ("run,colour\na,b", "has the column colour"),
        ("run,label\na", "not as many fields"),
        ("run\na\na", "twice"),
        ("run,label\n,b", "line 2, names no run"),
    ):
        table.write_text(text, encoding="utf-8")
        assert main(["score", str(table)]) == 2
        assert says in capsys.readouterr().err


def test_three_classes_as_grades(tmp_path: Path, capsys) -> None:
    tumor = scores()
    values = np.column_stack([0.6 - 0.6 * tumor, 0.4 - 0.4 * tumor, tumor]).astype(np.float32)
    run = tile_run(tmp_path, GRID, values, classes=("normal", "low", "tumor"))
    write_geojson(tmp_path / "a.geojson", [WHERE, LESION])
    words = ["score", str(run.path), "--annotations", str(tmp_path / "a.geojson"), "--ordered",
             "--bootstraps", "5"]  # fmt: skip
    assert main(words) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "normal 500 0 0 0.980 0.900 low 0 0 0 undefined nan tumor 20 0 80 0.889" in said
    assert "quadratic weights 0.870" in said


def test_a_truth_of_one_class_only(tmp_path: Path, capsys) -> None:
    run = tile_run(tmp_path, GRID, scores(lesion=False))
    write_geojson(tmp_path / "a.geojson", [WHERE])
    words = ["score", str(run.path), "--annotations", str(tmp_path / "a.geojson"), "--froc",
             "--bootstraps", "5"]  # fmt: skip
    assert main(words) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "AUROC of tiles is undefined: the truth has cases of one side only." in said
    assert "No froc: The truth has no lesion larger than isolated tumour cells" in said
