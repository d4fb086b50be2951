"""The verbs of masks, tiles and agreement, as a person calls them."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
from PIL import Image
from shapely.geometry import Polygon, box

from napari_histomil.annotations.geojson import read_geojson, write_geojson
from napari_histomil.annotations.mask_reading import open_mask
from napari_histomil.annotations.model import Region, SlideFrame, class_named
from napari_histomil.slides.readers import open_slide

TUMOR, STROMA, WHERE = (class_named(name) for name in ("Tumor", "Stroma", "Region*"))


@pytest.fixture
def draw(slide, tmp_path):
    """Write regions of the slide (640 x 512 px at 0.5 µm/px) to a file."""

    def write(name, *regions):
        with open_slide(slide) as opened:
            write_geojson(tmp_path / name, regions, frame=SlideFrame.of(opened.info))
        return tmp_path / name

    return write


@pytest.fixture
def drawn(draw):
    return draw(
        "А [1].geojson",
        Region(box(0, 0, 400, 400), WHERE),
        Region(box(100, 100, 300, 300), TUMOR),
        Region(box(200, 200, 500, 300), STROMA),
    )


def pixels(path, slide):
    with open_slide(slide) as opened, open_mask(path, opened.info) as mask:
        return np.concatenate(list(mask.bands()))


@pytest.mark.parametrize("name", ["m.ome.tif", "m.zarr", "m.png"])
def test_a_mask_and_its_regions_and_their_mask(histomil, drawn, slide, tmp_path, name):
    out = tmp_path / name
    said = histomil("annotations", "mask", drawn, "--slide", slide, "--mpp", 2, "-o", out)
    assert said.code == 0, said.err
    assert said.out == f"{out}\n"
    assert "160 x 128 pixels of 2 µm" in said.err
    assert "1  Tumor" in said.err
    mask = pixels(out, slide)
    expected = np.full((128, 160), 255)
    expected[:100, :100] = 0
    expected[25:75, 25:75] = 1
    expected[50:75, 50:125] = 2
    np.testing.assert_array_equal(mask, expected)
    traced = tmp_path / "traced.geojson"
    said = histomil("annotations", "regions", out, "--slide", slide, "-o", traced)
    assert said.code == 0, said.err
    assert [r.class_name for r in read_geojson(traced).regions] == ["Region*", "Tumor", "Stroma"]
    again = tmp_path / "again.ome.tif"
    said = histomil("annotations", "mask", traced, "--slide", slide, "--mpp", 2, "-o", again)
    assert said.code == 0, said.err
    np.testing.assert_array_equal(pixels(again, slide), mask)


def test_classes_values_and_priority(histomil, drawn, slide, tmp_path):
    out = tmp_path / "m.png"
    words = ["annotations", "mask", drawn, "--slide", slide, "--mpp", 2, "-o", out]
    more = ["--classes", "Stroma=7,Tumor=9", "--priority", "classes", "--unlabelled", 50]
    assert histomil(*words, *more, "--background", 3).code == 0
    mask = pixels(out, slide)
    assert (mask[60, 60], mask[60, 110], mask[0, 0], mask[127, 159]) == (9, 7, 3, 50)
    refused = histomil(*words)
    assert refused.code == 2
    assert "exists already" in refused.complaint
    assert histomil(*words, "--force", "--fully-annotated", "--classes", "Tumor").code == 0
    assert set(np.unique(pixels(out, slide))) == {0, 1}


def test_the_slides_own_size_for_asap(histomil, drawn, slide, tmp_path):
    out = tmp_path / "m.tif"
    words = ["annotations", "mask", drawn, "--slide", slide, "-o", out]
    assert histomil(*words).code == 0
    assert pixels(out, slide).shape == (512, 640)
    refused = histomil(*words, "--mpp", 2, "--force")
    assert refused.code == 2
    assert "slide's own size" in refused.complaint


def test_broken_shapes_stop_it_unless_they_are_to_be_mended(histomil, draw, slide, tmp_path):
    bow_tie = draw("b.geojson", Region(Polygon([(0, 0), (90, 90), (90, 0), (0, 90)]), TUMOR))
    words = ["annotations", "mask", bow_tie, "--slide", slide, "-o", tmp_path / "m.png"]
    refused = histomil(*words)
    assert refused.code == 2
    assert "crosses itself" in refused.complaint
    assert not (tmp_path / "m.png").exists()
    mended = histomil(*words, "--mend")
    assert mended.code == 0
    assert "mended" in mended.err


def test_annotations_of_another_slide_are_refused(histomil, drawn, write_slide, tmp_path, slide):
    other = write_slide(tmp_path / "other.tif", blank=True)
    for verb, more in (("mask", ()), ("compare", (drawn,))):
        words = ["annotations", verb, drawn, *more, "--slide", other]
        words += ["-o", tmp_path / "m.png"] if verb == "mask" else []
        said = histomil(*words)
        assert said.code == 2
        assert "another slide" in said.complaint


def test_a_mask_of_another_program_with_names(histomil, slide, tmp_path):
    mask = np.zeros((128, 160), np.uint8)
    mask[10:50, 20:60] = 5
    Image.fromarray(mask).save(tmp_path / "other.png")
    out = tmp_path / "o.geojson"
    words = ["annotations", "regions", tmp_path / "other.png", "--slide", slide, "-o", out]
    said = histomil(*words, "--classes", "Tumor=5")
    assert said.code == 0, said.err
    assert "0 is taken for unlabelled" in said.err
    (region,) = read_geojson(out).regions
    assert (region.class_name, region.geometry.bounds) == ("Tumor", (80, 40, 240, 200))
    assert histomil(*words, "--background", 0, "--force").code == 0
    assert [r.class_name for r in read_geojson(out).regions] == ["Region*", "Value 5"]


def test_two_readers_are_compared(histomil, drawn, draw, slide, tmp_path):
    other = draw(
        "b.geojson",
        Region(box(0, 0, 400, 400), WHERE),
        Region(box(100, 100, 300, 300), TUMOR),
    )
    out, table, picture = (tmp_path / n for n in ("d.geojson", "d.csv", "d.ome.tif"))
    words = ["annotations", "compare", drawn, other, "--slide", slide, "--mpp", 2]
    said = histomil(*words, "-o", out, "--csv", table, "--map", picture)
    assert said.code == 0, said.err
    assert "in 0.04 mm² at 2 µm/px" in said.out
    assert "kappa of Stroma is undefined: b.geojson has no Stroma throughout." in said.out
    assert "2 differences of 100 µm² or more, 0.005 mm²" in said.out
    with table.open(encoding="utf-8", newline="") as file:
        lines = {line["class"]: line for line in csv.DictReader(file)}
    assert float(lines["Tumor"]["dice"]) == pytest.approx(2 * 1875 / (1875 + 2500))
    assert lines["Stroma"]["kappa"] == ""
    found = read_geojson(out).regions
    assert {r.geometry.bounds for r in found} == {(200, 200, 300, 300), (300, 200, 400, 300)}
    assert (pixels(picture, slide) == 255).sum() == 128 * 160 - 100 * 100
    alone = histomil("annotations", "compare", drawn, other, "--slide", slide, "--area", "0,0,9")
    assert alone.code == 2
    assert "no rectangle" in alone.err
    part = histomil(*words, "--area", "100,100,100,100")
    assert "kappa undefined" in part.out
    assert "Tumor throughout" in part.out


def test_tiles_of_two_patients(histomil, draw, drawn, write_slide, slide, tmp_path):
    second = write_slide(tmp_path / "second.tif")
    file = tmp_path / "slides.csv"
    with open_slide(second) as opened:
        region = Region(box(0, 0, 640, 512), WHERE)
        write_geojson(tmp_path / "s.geojson", [region], frame=SlideFrame.of(opened.info))
    lines = ["slide,annotations,patient", f"{slide},{drawn},p1", "second.tif,s.geojson,p2"]
    file.write_text("\n".join(lines), encoding="utf-8")
    out = tmp_path / "tiles"
    words = ["annotations", "tiles", file, "--mpp", 1, "--tile", 64, "-o", out]
    said = histomil(*words, "--split", "train=1,val=1")
    assert said.code == 0, said.err
    with (out / "manifest.csv").open(encoding="utf-8", newline="") as table:
        sides = {(line["patient"], line["split"]) for line in csv.DictReader(table)}
    assert len(sides) == 2
    assert {split for _, split in sides} == {"train", "val"}
    assert json.loads((out / "classes.json").read_text())["mpp"] == 1
    assert histomil(*words, "--split", "train=1,val=1").code == 2
    for text, words_said in (
        ("slide\nx.svs", "annotations is missing"),
        ("slide,annotations", "a line for each slide"),
        ("slide,annotations\nx.svs,", "lacks a slide"),
        ("slide,annotations,patient\nx,y,", "names no patient"),
        ("slide,annotations\nx,y", "cannot be put into 2"),
    ):
        file.write_text(text, encoding="utf-8")
        refused = histomil(*words, "--force")
        assert refused.code == 2
        assert words_said in refused.complaint


@pytest.mark.parametrize("verb", ["mask", "regions", "compare", "tiles"])
def test_help_fits_a_terminal_of_80_columns(histomil, verb, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    said = histomil("annotations", verb, "--help")
    assert [line for line in said.out.splitlines() if len(line) > 80] == []
