"""Screens with more than one physical pixel in a logical one: size, magnification, level."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from napari.components import ViewerModel
from napari.layers import Image

from napari_histomil.ui import camera, dense_screens
from napari_histomil.ui.dense_screens import use_physical_pixels
from napari_histomil.ui.layers import slide_layer


@pytest.mark.parametrize("ratio", ["1", "2"])
def test_magnification_pixels_and_levels_of_a_screen(write_slide, ratio):
    """In a process of its own: Qt takes the ratio once, when it starts."""
    noise = np.random.default_rng(0).integers(0, 256, (260, 260, 3), np.uint8)
    pixels = np.kron(noise, np.ones((8, 8, 1), np.uint8))
    pixels[::2] //= 2  # every row and every column differs from the next
    pixels[:, ::2] //= 2
    path = write_slide(pixels, mpp=0.5)
    environment = os.environ | {
        "QT_SCALE_FACTOR": ratio,
        "QT_SCALE_FACTOR_ROUNDING_POLICY": "PassThrough",
        "HISTOMIL_REOPEN_VIEWS": "0",
    }
    script = Path(__file__).with_name("show_at_ratio.py")
    screen = ["xvfb-run", "-a", "-s", "-screen 0 2560x1600x24"]  # 1280 x 800 at twice the ratio
    command = [*(screen if shutil.which(screen[0]) else ()), sys.executable, script, path]
    result = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout.splitlines()[-1])
    assert found["ratio"] == float(ratio)
    assert found["exact"] == found["exact_turned"] == 0
    assert found["exact_level"] == found["exact_turned_level"] == 0
    assert found["native"] == found["readout"] == "20x, 0.50 µm/px"
    assert found["um_per_physical"] == pytest.approx(0.5)
    # A data pixel or more for every physical pixel, and not more than there is need of.
    assert found["levels"] == {"0.5": 0, "1.0": 0, "1.9": 0, "2.1": 1, "3.9": 1}
    (_, longer), sharp = found["map"]
    assert sharp == pytest.approx(float(ratio), rel=0.02)
    assert 110 <= longer <= 0.3 * min(found["canvas"]) + 110


def shown(array_slide, checkered, ratio, monkeypatch) -> tuple[ViewerModel, Image]:
    viewer = ViewerModel()
    data, attributes, _ = slide_layer(array_slide(checkered))
    layer = viewer.add_image(data, **attributes)
    monkeypatch.setattr(camera, "pixel_ratio_of", lambda _: ratio)
    return viewer, layer


def draw(layer: Image) -> int:
    """Draw as napari does: the whole of 1500 x 1037 px on a canvas of 500 x 400."""
    layer._update_draw(
        scale_factor=1.5,
        corner_pixels_displayed=np.array([(0.0, 0.0), (518.5, 750.0)]),
        shape_threshold=np.array((400, 500)),
    )
    return layer.data_level


def test_the_level_follows_the_ratio_and_only_once(array_slide, checkered, monkeypatch):
    viewer, layer = shown(array_slide, checkered, 1.0, monkeypatch)
    assert draw(layer) == 1
    use_physical_pixels(viewer, layer)
    assert draw(layer) == 1
    monkeypatch.setattr(camera, "pixel_ratio_of", lambda _: 2.0)
    use_physical_pixels(viewer, layer)
    assert draw(layer) == 0


def test_a_napari_that_draws_otherwise_is_left_alone(array_slide, checkered, monkeypatch):
    viewer, layer = shown(array_slide, checkered, 2.0, monkeypatch)
    monkeypatch.setattr(dense_screens, "_PARAMETERS", ("something", "else"))
    use_physical_pixels(viewer, layer)
    assert "_update_draw" not in vars(layer)
    assert draw(layer) == 1
    monkeypatch.setattr(dense_screens, "_METHOD", "_no_such_method")
    use_physical_pixels(viewer, layer)
    assert draw(layer) == 1
