"""Brightness, gamma and colour profile: what is seen changes, and nothing else."""

from __future__ import annotations

import io

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms
from qtpy.QtWidgets import QApplication

from napari_histomil.slides.readers import open_slide
from napari_histomil.slides.slide import read_rect
from napari_histomil.ui.brightness import AS_STORED, Tone, tones
from napari_histomil.ui.camera import go_to_px0, set_native
from napari_histomil.ui.dialogs import ErrorDialog
from napari_histomil.ui.painting import painting
from napari_histomil.ui.session import session
from napari_histomil.ui.widgets.slide import SlideWidget


@pytest.fixture
def path(write_slide):
    pixels = np.full((1037, 1500, 3), (180, 90, 120), np.uint8)
    return write_slide(pixels)


@pytest.fixture
def viewer(make_napari_viewer, qtbot, path):
    viewer = make_napari_viewer(show=True)
    slide = session(viewer).open_slide(path)
    set_native(viewer, slide.info)
    go_to_px0(viewer, slide.info, (700, 500))
    return viewer


def middle(viewer):
    """The colour in the middle of the canvas."""
    painting(session(viewer).active.layer).wait(10)
    shown = viewer.screenshot(canvas_only=True, flash=False)
    return shown[shown.shape[0] // 2, shown.shape[1] // 2, :3].astype(int)


def test_the_table_of_a_tone():
    assert (Tone().table() == np.arange(256)).all()
    twice = Tone(brightness=200).table()
    assert (twice[:128] == 2 * np.arange(128)).all()
    assert (twice[128:] == 255).all()
    assert Tone(gamma=0.5).table()[64] == round(255 * (64 / 255) ** 0.5)
    for tone in (Tone(25, 3), Tone(300, 0.2), Tone(60, 1.7)):
        table = tone.table()
        assert table.dtype == np.uint8
        assert table[0] == 0
        assert (np.diff(table.astype(int)) >= 0).all()
    assert Tone.within_range(1e9, -3) == Tone(300, 0.2)


def test_only_what_is_seen_changes(viewer):
    slide = session(viewer).active
    before = read_rect(slide.slide, (600, 400), (8, 8), (8, 8))
    assert middle(viewer) == pytest.approx((180, 90, 120), abs=1)
    tone = Tone(120, 0.7)
    tones(viewer).set(slide, tone)
    assert middle(viewer) == pytest.approx(tone.table()[[180, 90, 120]], abs=1)
    np.testing.assert_array_equal(read_rect(slide.slide, (600, 400), (8, 8), (8, 8)), before)
    tones(viewer).set(slide, AS_STORED)
    assert middle(viewer) == pytest.approx((180, 90, 120), abs=1)


def test_sliders_steer_the_slide_that_is_active_and_keep_each_ones_own(
    viewer, write_slide, checkered
):
    dock = SlideWidget(viewer)
    first = session(viewer).active
    dock.display.brightness.spin.setValue(150)
    dock.display.gamma.spin.setValue(0.8)
    assert tones(viewer).of(first) == Tone(150, 0.8)
    assert dock.display.reset_button.isEnabled()
    second = session(viewer).open_slide(write_slide(checkered, "second.tiff"))
    assert dock.display.brightness.value == 100
    assert not dock.display.reset_button.isEnabled()
    tones(viewer).set(second, Tone(80, 1))
    assert dock.display.brightness.value == 80, "the dock follows"
    session(viewer).show_only(first)
    assert (dock.display.brightness.value, dock.display.gamma.value) == (150, 0.8)
    dock.display.reset_button.click()
    assert tones(viewer).of(first) == AS_STORED
    dock.deleteLater()


def test_a_tone_outlives_the_setting_of_the_resolution(viewer):
    slide = session(viewer).active
    tones(viewer).set(slide, Tone(50))
    session(viewer).set_mpp(slide, 0.25)
    set_native(viewer, slide.info)
    go_to_px0(viewer, slide.info, (700, 500))
    assert middle(viewer) == pytest.approx((90, 45, 60), abs=1)


# --- colour profiles ----------------------------------------------------------------------------


def lab_like_profile() -> bytes:
    """A profile of RGB colours whose red and blue are exchanged, so that it can be seen."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    table = {}
    for k in range(int.from_bytes(profile[128:132], "big")):
        at = 132 + 12 * k
        table[bytes(profile[at : at + 4])] = at + 4
    red, blue = table[b"rXYZ"], table[b"bXYZ"]
    profile[red : red + 8], profile[blue : blue + 8] = (
        profile[blue : blue + 8],
        profile[red : red + 8],
    )
    return bytes(profile)


@pytest.fixture
def profiled(tmp_path):
    """A slide of one colour with a profile."""
    path = tmp_path / "profiled.tiff"
    pixels = np.full((1037, 1500, 3), (180, 90, 120), np.uint8)
    tifffile.imwrite(
        path,
        pixels,
        photometric="rgb",
        tile=(256, 256),
        resolution=(2e4, 2e4),
        resolutionunit=3,
        iccprofile=lab_like_profile(),
    )
    return path


def test_a_slide_is_shown_by_its_profile_and_as_it_is_stored(make_napari_viewer, qtbot, profiled):
    viewer = make_napari_viewer(show=True)
    dock = SlideWidget(viewer)
    slide = session(viewer).open_slide(profiled)
    set_native(viewer, slide.info)
    go_to_px0(viewer, slide.info, (700, 500))
    center, zoom = viewer.scene.camera.center, viewer.scene.camera.zoom
    box = dock.display.profile_box
    assert box.isVisibleTo(dock)
    assert not box.isChecked()
    assert middle(viewer) == pytest.approx((180, 90, 120), abs=1)
    box.click()
    assert slide.info.icc_applied
    assert box.isChecked()
    assert middle(viewer) == pytest.approx((120, 90, 180), abs=3)
    assert (viewer.scene.camera.center, viewer.scene.camera.zoom) == (center, zoom)
    with open_slide(profiled) as again:
        stored = read_rect(again, (0, 0), (8, 8), (8, 8))
    assert (stored == (180, 90, 120)).all(), "who opens it without asking has it as it is stored"
    tones(viewer).set(slide, Tone(50))
    assert middle(viewer) == pytest.approx((60, 45, 90), abs=3)
    box.click()
    assert not slide.info.icc_applied
    assert middle(viewer) == pytest.approx((90, 45, 60), abs=1)
    dock.deleteLater()


def test_without_a_profile_there_is_no_box(viewer):
    dock = SlideWidget(viewer)
    assert not dock.display.profile_box.isVisibleTo(dock)
    dock.deleteLater()


def test_a_slide_that_is_gone_is_one_sentence(make_napari_viewer, qtbot, profiled):
    viewer = make_napari_viewer(show=True)
    dock, _ = viewer.window.add_plugin_dock_widget("napari-histomil", "Slide")[1], None
    slide = session(viewer).open_slide(profiled)
    profiled.rename(profiled.with_name("elsewhere.tiff"))
    dock.display.profile_box.click()
    (error,) = [each for each in QApplication.allWidgets() if isinstance(each, ErrorDialog)]
    assert "profiled.tiff" in error.sentence
    assert not dock.display.profile_box.isChecked()
    assert not slide.info.icc_applied
    error.close()


def test_profile_used_in_these_tests_is_one():
    profile = ImageCms.ImageCmsProfile(io.BytesIO(lab_like_profile()))
    image = Image.new("RGB", (1, 1), (255, 0, 0))
    shown = ImageCms.profileToProfile(image, profile, ImageCms.createProfile("sRGB"))
    assert shown.getpixel((0, 0))[2] > 200
