"""``info``, ``tissue``, ``view``: what they say of good slides and of bad ones."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

from napari_histomil.annotations.geojson import read_geojson


@pytest.fixture
def no_mpp(tmp_path: Path, write_slide) -> Path:
    return write_slide(tmp_path / "no mpp.tif", mpp=None)


# --- info -------------------------------------------------------------------------------------


def test_info_of_a_real_slide(histomil, data_dir):
    path = data_dir / "wsi-aperio-svs/CMU-1-Small-Region.svs"
    said = histomil("info", path)
    assert (said.code, said.err) == (0, "")
    for line in (
        "slide       CMU-1-Small-Region.svs",
        "size        2220 x 2967 px, 1.11 x 1.48 mm",
        "µm/px       0.499 (from the file)",
        "objective   20x",
        "level 0     2220 x 2967 px, 1/1, tiles of 240 x 240",
    ):
        assert line in said.out.splitlines()
    facts = json.loads(histomil("info", path, "--json").out)
    assert (facts["width_px0"], facts["height_px0"]) == (2220, 2967)
    assert facts["mpp_x"] == pytest.approx(0.499)
    assert len(facts["levels"]) == 1
    assert set(facts["associated_images"]) == {"label", "macro", "thumbnail"}
    assert facts["properties"]["aperio.AppMag"] == "20"
    assert len(facts["fingerprint"]) == 64


def test_info_of_a_slide_without_resolution(histomil, no_mpp):
    assert "µm/px       unknown: give it with --slide-mpp" in histomil("info", no_mpp).out
    facts = json.loads(histomil("info", no_mpp, "--json").out)
    assert (facts["mpp_x"], facts["mpp_source"]) == (None, None)


def test_a_given_resolution_is_remembered_and_said_so(histomil, no_mpp):
    said = histomil("info", no_mpp, "--slide-mpp", "0.25")
    assert "µm/px       0.25 (given)" in said.out
    assert said.err == "0.25 µm/px is remembered for no mpp.tif.\n"
    said = histomil("info", no_mpp)
    assert "µm/px       0.25 (remembered)" in said.out
    assert said.err == ""
    said = histomil("info", no_mpp, "--slide-mpp", "0.25,0.5")
    assert "µm/px       0.25 x 0.5 (given)" in said.out
    assert said.err.startswith("0.25 x 0.5 µm/px is remembered")


@pytest.mark.parametrize("text", ["0", "-1", "nan", "inf", "x", "1,2,3", "0,5,"])
def test_resolutions_that_are_none(histomil, no_mpp, text):
    said = histomil("info", no_mpp, f"--slide-mpp={text}")
    assert said.code == 2
    assert f"'{text}' is not a number of µm above 0" in said.err


def test_an_answer_that_cannot_be_kept_is_used_all_the_same(histomil, no_mpp, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("napari_histomil.files.os.replace", full)
    said = histomil("info", no_mpp, "--slide-mpp", "0.25")
    assert said.code == 0
    assert "µm/px       0.25 (given)" in said.out
    assert "No space left on device" in said.err
    assert "for this time only" in said.err
    assert not list(no_mpp.parent.glob("*.histomil/.*"))  # nothing half-written


def test_files_that_are_no_slides(histomil, data_dir, tmp_path):
    pointer = tmp_path / "pointer.svs"
    pointer.write_text(
        f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 1938955\n",
        encoding="utf-8",
    )
    text = tmp_path / "notes.txt"
    text.write_text("not a slide")
    empty = tmp_path / "empty.svs"
    empty.touch()
    broken = data_dir / "wsi-broken/broken.svs"
    for path in (pointer, text, empty, broken, tmp_path / "missing.svs", tmp_path):
        for words in (("info", path), ("tissue", path, "-o", tmp_path / "t.geojson")):
            said = histomil(*words)
            assert said.code == 2
            assert said.out == ""
            assert path.name in said.complaint
            assert said.err.count("\n") == 1
    assert not (tmp_path / "t.geojson").exists()


def test_a_slide_behind_a_link_is_the_same_slide(histomil, slide, tmp_path):
    link, folder = tmp_path / "link.tif", tmp_path / "folder"
    try:
        link.symlink_to(slide)
        folder.symlink_to(slide.parent, target_is_directory=True)
    except OSError:
        pytest.skip("this system lets nobody make links")
    known = json.loads(histomil("info", slide, "--json").out)["fingerprint"]
    for path in (link, folder / slide.name):
        assert json.loads(histomil("info", path, "--json").out)["fingerprint"] == known


# --- tissue -----------------------------------------------------------------------------------


def test_tissue_becomes_regions_that_lie_on_it(histomil, slide, tmp_path):
    target = tmp_path / "tissue.geojson"
    said = histomil("tissue", slide, "-o", target)
    assert said.code == 0, said.err
    assert said.out.startswith(f"{target}: 1 piece of brightfield tissue, 0.01")
    file = read_geojson(target)
    (region,) = file.regions
    assert (region.class_name, region.name) == ("Region*", "Tissue")
    assert region.problem() is None
    # the square spans 128 to 384; the overview has pixels of 16
    assert region.geometry.bounds == pytest.approx((128, 128, 384, 384), abs=24)
    assert file.frame.slide == slide.name
    share = float(said.out.split()[-5])
    assert share == pytest.approx(100 * region.geometry.area / (640 * 512), abs=0.1)


def test_tissue_without_resolution(histomil, no_mpp, tmp_path):
    said = histomil("tissue", no_mpp, "-o", tmp_path / "a.geojson")
    assert said.code == 0
    assert "mm²" not in said.out
    assert " % of the slide" in said.out


def test_no_tissue_writes_nothing(histomil, tmp_path, write_slide):
    blank = write_slide(tmp_path / "blank.tif", blank=True)
    said = histomil("tissue", blank, "-o", tmp_path / "a.geojson")
    assert said.code == 2
    assert said.complaint.startswith("histomil: No tissue was found on blank.tif")
    assert not (tmp_path / "a.geojson").exists()


def test_a_file_that_exists_is_kept_unless_forced(histomil, slide, tmp_path):
    target = tmp_path / "mine.geojson"
    target.write_text("drawn for hours")
    said = histomil("tissue", slide, "-o", target)
    assert said.code == 2
    assert "exists already: choose another name, or add --force" in said.complaint
    assert target.read_text() == "drawn for hours"
    assert histomil("tissue", slide, "-o", target, "--force").code == 0
    assert read_geojson(target).regions


def test_a_folder_that_cannot_be_written(histomil, slide, tmp_path, monkeypatch):
    said = histomil("tissue", slide, "-o", tmp_path / "none" / "a.geojson")
    assert said.code == 2
    assert "does not exist" in said.complaint

    def refuse(*_args, **_options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("napari_histomil.files.os.replace", refuse)
    before = sorted(tmp_path.iterdir())
    said = histomil("tissue", slide, "-o", tmp_path / "a.geojson")
    assert said.code == 2
    assert said.complaint.endswith(f"cannot be written in {tmp_path}: Permission denied.")
    assert sorted(tmp_path.iterdir()) == before


# --- view -------------------------------------------------------------------------------------


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="others have a screen always")
def test_view_without_a_screen(histomil, slide, monkeypatch):
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "QT_QPA_PLATFORM"):
        monkeypatch.delenv(name, raising=False)
    said = histomil("view", slide)
    assert said.code == 2
    assert "There is no screen" in said.complaint


def test_view_opens_the_window_with_slide_and_runs_and_stays(histomil, slide, monkeypatch):
    opened = []
    window = ModuleType("napari_histomil.ui.window")
    window.stay_open = lambda: opened.append("stays")
    window.open_window = lambda slides, *, runs, at, **_options: opened.append((slides, runs, at))
    monkeypatch.setitem(sys.modules, "napari_histomil.ui.window", window)
    monkeypatch.setenv("DISPLAY", ":99")
    said = histomil("view", slide, "a.zarr", "b.zarr", "--slide-mpp", "0.25")
    assert said.code == 0, said.err
    assert opened == [([slide], [Path("a.zarr"), Path("b.zarr")], None), "stays"]


@pytest.fixture
def opened(monkeypatch):
    """What would have been opened."""
    asked = []
    window = ModuleType("napari_histomil.ui.window")
    window.stay_open = lambda: None
    window.open_window = lambda slides, *, runs, at, **_options: asked.append((slides, runs, at))
    monkeypatch.setitem(sys.modules, "napari_histomil.ui.window", window)
    monkeypatch.setenv("DISPLAY", ":99")
    return asked


def test_view_of_several_slides_and_runs(histomil, slide, no_mpp, opened):
    assert histomil("view", slide, "a.zarr", no_mpp, "b.zarr").code == 0
    assert opened == [([slide, no_mpp], [Path("a.zarr"), Path("b.zarr")], None)]
    said = histomil("view", slide, no_mpp, "--slide-mpp", "0.5")
    assert said.code == 2
    assert "--slide-mpp is for one slide" in said.complaint
    assert len(opened) == 1


def test_view_tells_runs_from_slides_that_are_zarr(histomil, slide, run_path, opened, data_dir):
    damaged = run_path.with_name("damaged.zarr")
    damaged.mkdir()
    picture = Path("picture.zarr")  # not there: open_window says so
    assert histomil("view", slide, run_path, damaged, picture).code == 0
    assert opened == [([slide], [run_path, damaged, picture], None)]


@pytest.mark.parametrize("text", ["320,256,20", "320.0,256,20x", " 320, 256, 2e1"])
def test_view_at_a_place(histomil, slide, opened, text):
    assert histomil("view", slide, "--at", text).code == 0
    assert opened == [([slide], [], (320, 256, 20))]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("320,256", "is no place"),
        ("a,b,c", "is no place"),
        ("1,2,nan", "is no place"),
        ("1,2,3,4", "is no place"),
        ("", "is no place"),
        ("1,2,0", "must be between"),
        ("1,2,-20", "must be between"),
        ("1,2,1e9", "must be between"),
        ("-1,2,20", "is not on"),
        ("1,513,20", "is not on"),
    ],
)
def test_view_at_no_place(histomil, slide, opened, text, why):
    said = histomil("view", slide, f"--at={text}")
    assert said.code == 2
    assert why in said.err
    assert opened == []


def test_view_at_a_place_needs_the_resolution(histomil, no_mpp, opened):
    said = histomil("view", no_mpp, "--at", "10,10,20")
    assert said.code == 2
    assert "give them with --slide-mpp" in said.complaint
    assert histomil("view", no_mpp, "--at", "10,10,20", "--slide-mpp", "0.25").code == 0
    assert opened == [([no_mpp], [], (10, 10, 20))]


def test_view_without_napari_says_how_to_get_it(histomil, slide, monkeypatch):
    monkeypatch.setitem(sys.modules, "napari", None)
    monkeypatch.delitem(sys.modules, "napari_histomil.ui.window", raising=False)
    monkeypatch.setenv("DISPLAY", ":99")
    said = histomil("view", slide)
    assert said.code == 2
    assert 'pip install "napari-histomil[all]"' in said.complaint


def test_view_of_a_bad_slide_opens_no_window(histomil, tmp_path, monkeypatch):
    window = ModuleType("napari_histomil.ui.window")
    window.stay_open = window.open_window = lambda *_args, **_options: pytest.fail("opened")
    monkeypatch.setitem(sys.modules, "napari_histomil.ui.window", window)
    monkeypatch.setenv("DISPLAY", ":99")
    assert histomil("view", tmp_path / "missing.svs").code == 2


def test_a_reader_can_be_forced(histomil, data_dir):
    path = data_dir / "wsi-aperio-svs/CMU-1-Small-Region.svs"
    assert "format      aperio (read by tiff)" in histomil("info", path).out
    said = histomil("info", path, "--reader", "openslide")
    assert "format      aperio (read by openslide)" in said.out
    said = histomil("info", path, "--reader", "ndpi")
    assert said.code != 0
    assert "CMU-1-Small-Region.svs" in said.complaint


def test_a_colour_profile_is_named(histomil, data_dir):
    path = data_dir / "wsi-dicom-highdicom/sm_image.dcm"
    assert "profile     sRGB IEC61966-2.1 (colours are as stored" in histomil("info", path).out
    facts = json.loads(histomil("info", path, "--json").out)
    assert (facts["icc_profile"], facts["icc_applied"]) == ("sRGB IEC61966-2.1", False)


def test_a_folder_of_dicom_files(histomil, data_dir):
    said = histomil("info", data_dir / "wsi-dicom-cmu1-small")
    assert "level 11    1 x 1 px, 1/2593.5, tiles of 1 x 1" in said.out
    assert "holds 2 slides" in histomil("info", data_dir / "wsi-dicom-highdicom").complaint
