"""The verbs ``gallery`` and ``drift``: tables, a sheet of pictures, sentences."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
import tifffile
from PIL import Image
from shapely import box

from napari_histomil.annotations.geojson import write_geojson
from napari_histomil.annotations.model import REGION, Region, SlideFrame, class_named
from napari_histomil.annotations.recovery import FILE_NAME
from napari_histomil.cli import main
from napari_histomil.resources import sidecar
from napari_histomil.slides.readers import open_slide
from tests.review.review_cases import write_run, write_slide

SCORES = np.linspace(0, 0.99, 12)


@pytest.fixture
def runs(tmp_path):
    """Two slides of 4 x 3 tiles; the left half of each is tumour."""
    found = []
    for n in range(2):
        slide = write_slide(tmp_path / f"{n}.tiff", 200 - n)
        found.append(write_run(slide, np.roll(SCORES, 3 * n)))
        with open_slide(slide) as opened:
            info = opened.info
        folder = sidecar(slide, info.fingerprint)
        regions = [
            Region(box(0, 0, 512, 384), class_named(REGION)),
            Region(box(0, 0, 256, 384), class_named("Tumor")),
        ]
        write_geojson(folder / FILE_NAME, regions, frame=SlideFrame.of(info))
    return [str(each) for each in found]


def test_what_was_missed_is_a_table_and_a_sheet(runs, tmp_path, capsys):
    table, sheet = tmp_path / "missed.csv", tmp_path / "missed.png"
    options = ["--list", "false negatives", "--annotated", "--each-tile"]
    assert main(["gallery", *runs, *options, "-o", str(table), "--sheet", str(sheet)]) == 0
    assert "false negatives of 24 tiles of 2 slides" in capsys.readouterr().out
    with table.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    scores = [float(row["score"]) for row in rows]
    assert scores == sorted(scores)
    assert all(float(row["x_px0"]) < 256 and row["truth"] == "1" for row in rows)
    assert all(score < 0.5 for score in scores)
    with Image.open(sheet) as picture:
        assert picture.width > 1280
    assert main(["gallery", *runs, "-o", str(table)]) == 2  # it is there already
    assert "--force" in capsys.readouterr().err


def test_a_gallery_as_json_and_what_cannot_be_listed(runs, capsys):
    assert main(["gallery", *runs, "--count", "3", "--each-tile", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert [each["score"] for each in listed] == pytest.approx([0.99, 0.99, 0.9])
    assert listed[0]["truth"] is None
    assert main(["gallery", runs[0], "--list", "false positives"]) == 2
    assert "choose a ground truth first" in capsys.readouterr().err
    assert main(["gallery", runs[0], "--list", "nonsense"]) == 2
    assert "There is no selection 'nonsense'" in capsys.readouterr().err


def stained(path, seed, darker=0.0):
    """A slide with a square of two stains on glass."""
    rng = np.random.default_rng(seed)
    amount = np.kron(rng.random((2, 96, 96)), np.ones((8, 8)))
    density = amount[0, ..., None] * [1.0, 1.3, 0.6] + amount[1, ..., None] * [0.2, 0.9, 0.2]
    pixels = np.full((1024, 1024, 3), 244, np.uint8)
    pixels[128:896, 128:896] = 245 * np.exp(-(density + 0.1) * (1 + darker))
    tifffile.imwrite(
        path, pixels, photometric="rgb", tile=(256, 256), resolution=(1e4, 1e4), resolutionunit=3
    )
    return str(path)


def test_a_dark_slide_is_told_from_the_reference(tmp_path, capsys):
    usual = [stained(tmp_path / f"{n}.tiff", n) for n in range(3)]
    reference = str(tmp_path / "reference.json")
    assert main(["drift", *usual, "--make", reference]) == 0
    other = stained(tmp_path / "dark.tiff", 9, darker=1.5)
    capsys.readouterr()
    assert main(["drift", other, usual[0], "--reference", reference]) == 0
    dark, same = capsys.readouterr().out.splitlines()
    assert "brightness far outside" in dark
    assert same.startswith("0.tiff looks as usual")
    assert main(["drift", other, "--reference", reference, "--json"]) == 0
    (answer,) = json.loads(capsys.readouterr().out)
    assert {each["name"] for each in answer["numbers"]} >= {"brightness", "focus", "eosin"}
    assert main(["drift", *usual[:2], "--make", str(tmp_path / "r.json")]) == 2
    assert "do not say what is usual" in capsys.readouterr().err
