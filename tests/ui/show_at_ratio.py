"""Shows a slide in a window and prints, as JSON, what is seen; run with QT_SCALE_FACTOR set."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

from napari_histomil.slides.readers import open_slide
from napari_histomil.ui import camera
from napari_histomil.ui.layers import center_of_view_px0
from napari_histomil.ui.minimap import readout
from napari_histomil.ui.orientation import Orientation, set_orientation
from napari_histomil.ui.painting import painting
from napari_histomil.ui.session import session
from napari_histomil.ui.widgets.minimap import Minimap, canvas_of
from napari_histomil.ui.window import open_window


def main(path: Path) -> None:
    viewer = open_window([path])
    slide = session(viewer).active
    info, layer = slide.info, slide.layer
    dock = viewer.window.dock_widgets["Slide (napari-histomil)"]
    found: dict[str, object] = {}

    def picture() -> np.ndarray:
        assert painting(layer).wait(20)
        return viewer.screenshot(canvas_only=True, flash=False)[..., :3].astype(int)

    picture()
    canvas = canvas_of(dock)
    ratio = found["ratio"] = canvas.devicePixelRatioF()
    height, width = viewer.canvas.size
    found["canvas"] = [height, width]
    small = canvas.findChild(Minimap)
    found["map"] = [small.frame.size, small.grab().toImage().width() / small.width()]

    viewer.canvas.overlays.scale_bar.visible = False
    camera.go_to_px0(viewer, info, (1000.3, 900.7))
    with open_slide(path) as again:
        for name, orientation in (("exact", Orientation()), ("exact_turned", Orientation(1))):
            set_orientation(viewer, orientation)
            camera.set_native(viewer, info)
            seen = picture()
            rows, columns = seen.shape[:2]
            if orientation.transposed:
                rows, columns = columns, rows
            x, y = center_of_view_px0(viewer, info)
            corner = round(x - columns / 2), round(y - rows / 2)
            stored = again.read_region(corner, 0, (columns, rows)).astype(int)
            turned = np.rot90(stored, -orientation.quarter_turns)
            found[name] = int(np.abs(turned - seen).max())
            found[f"{name}_level"] = layer.data_level
            set_orientation(viewer, Orientation())
    found["native"] = readout(viewer, info)

    # Level-0 pixels on a physical screen pixel, and the level that napari draws.
    found["levels"] = levels = {}
    for px0_per_screen in (0.5, 1.0, 1.9, 2.1, 3.9):
        viewer.scene.camera.zoom = 1 / (px0_per_screen * info.mpp * ratio)
        camera.go_to_px0(viewer, info, (1000, 1000))
        picture()
        levels[px0_per_screen] = layer.data_level
    camera.set_magnification(viewer, 20)
    found["um_per_physical"] = 1 / (viewer.scene.camera.zoom * ratio)
    found["readout"] = readout(viewer, info)
    viewer.close()
    print(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
