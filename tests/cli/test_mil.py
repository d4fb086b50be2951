from __future__ import annotations

import csv
from pathlib import Path

import h5py
import numpy as np
import pytest
from model_folders import make_encoder_folder, make_mil_folder

from napari_histomil.results import open_mil_run

TINY = {"channels": [8, 16, 16, 16], "stem_width": 8}
SMALL = {"hidden": [8], "attention": 4}


@pytest.fixture(scope="module")
def mil_models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("моделі mil")
    encoder = make_encoder_folder(folder / "enc", "resnet10t", TINY)
    make_mil_folder(folder / "toy", "gated-attention", encoder, arguments=SMALL)
    make_mil_folder(folder / "toy2", "gated-attention", encoder, arguments=SMALL, seed=1)
    return folder


def rows(said):
    return list(csv.DictReader(said.out.splitlines(), delimiter="\t"))


def test_slides_are_answered_and_exported(tmp_path, histomil, mil_models, write_slide):
    slide, blank = write_slide(tmp_path / "ü 1.tif"), write_slide(tmp_path / "b.tif", blank=True)
    where = ("--models", mil_models, "-o", tmp_path / "out", "--device", "cpu")
    said = histomil("mil", "toy", slide, blank, "--member", mil_models / "toy2", *where,
                    "--csv", tmp_path / "answers.csv")  # fmt: skip
    assert said.code == 1
    assert "No tissue was found on b.tif" in said.err
    (row,) = rows(said)
    with (tmp_path / "answers.csv").open(encoding="utf-8", newline="") as file:
        assert list(csv.DictReader(file)) == [row]
    run = open_mil_run(Path(row["run"]))
    assert float(row["prob_tumor"]) == pytest.approx(run.answer.probabilities[1], rel=1e-5)
    assert float(row["sd_tumor"]) == pytest.approx(run.answer.spread[1], rel=1e-4)
    assert (row["slide"], row["answer"]) == ("ü 1.tif", run.class_names[run.answer.predicted])
    assert int(row["patches"]) == len(run.levels[0]) > 10
    for name in ("a.h5", "a.geojson", "ü 1_likelihood_map.tif", "a.png"):
        assert histomil("export", run.path, "-o", tmp_path / name).code == 0
        assert (tmp_path / name).stat().st_size > 500
    assert histomil("export", run.path, "-o", tmp_path / "c.png", "--values", "contribution",
                    "--class", "normal").code == 0  # fmt: skip
    assert "written as h5" in histomil("export", run.path, "-o", tmp_path / "a.csv").complaint
    again = histomil("mil", "toy", slide, "--member", mil_models / "toy2", *where)
    assert rows(again) == [row]


def test_a_checkpoint_on_features_that_are_there(tmp_path, histomil, data_dir, write_slide):
    wanted = np.load(data_dir / "mil-parity" / "clam_sb_gated.npz")
    (tmp_path / "f").mkdir()
    for name in ("s1", "s2"):
        with h5py.File(tmp_path / "f" / f"{name}.h5", "w") as file:
            file["features"] = wanted["features"]
            file["coords"] = np.column_stack([np.arange(37) * 10, np.zeros(37)]).astype(int)
    checkpoint = data_dir / "mil-parity" / "clam_sb_gated.pt"
    common = ("--tile-px0", 10, "-o", tmp_path / "out", "--device", "cpu", "--classes", "no,yes")
    said = histomil("mil", checkpoint, "--features", tmp_path / "f", *common)
    assert said.code == 0, said.err
    assert [row["slide"] for row in rows(said)] == ["s1", "s2"]
    for row in rows(said):
        assert float(row["prob_yes"]) == pytest.approx(wanted["probabilities"][0, 1], abs=1e-5)
    slide = write_slide(tmp_path / "s1.tif")
    said = histomil("mil", checkpoint, slide, "--features", tmp_path / "f" / "s1.h5", *common)
    (row,) = rows(said)
    run = open_mil_run(Path(row["run"]))
    assert (run.slide["width_px0"], run.source.file) == (640, "s1.h5")
    map_file = tmp_path / "s1_likelihood_map.tif"
    assert histomil("export", run.path, "-o", map_file).code == 0


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["toy"], "There is no slide to answer for"),
        (["toy", "missing.tif"], "missing.tif"),
        (["nothing", "slide.tif"], "There is no model named 'nothing'"),
        (["enc", "slide.tif"], "answers for tiles (task 'embed')"),
        (["toy", "slide.tif", "--dropout", "1"], "have no spread"),
        (["toy", "slide.tif", "--finer", "5"], "cannot be divided by 5"),
        (["toy", "slide.tif", "--k", "5"], "--k is for checkpoints"),
        (["toy", "--features", "missing.h5"], "There is no file or folder missing.h5"),
        (["toy", "nompp.tif"], "µm"),
        (["CHECKPOINT", "slide.tif"], "is a checkpoint, which does not say which encoder"),
        (["toy", "slide.tif", "--csv", "no/where.csv"], "does not exist"),
    ],
)
def test_bad_input_is_one_sentence_and_2(
    tmp_path, histomil, mil_models, data_dir, write_slide, monkeypatch, words, complaint
):
    monkeypatch.chdir(tmp_path)
    write_slide(tmp_path / "slide.tif")
    write_slide(tmp_path / "nompp.tif", mpp=None)
    checkpoint = data_dir / "mil-parity" / "clam_sb_gated.pt"
    said = histomil("mil", *[checkpoint if w == "CHECKPOINT" else w for w in words],
                    "--models", mil_models, "-o", "out")  # fmt: skip
    assert said.code == 2
    assert complaint in said.complaint
    assert not (tmp_path / "out").exists()


def test_the_help_has_examples(histomil):
    said = histomil("mil", "--help")
    assert said.code == 0
    assert "histomil mil s_0_checkpoint.pt slide.svs --features" in said.out
