"""A segmentation over its slide: to the pixel, its picture, areas, the dock's part, its errors."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import pytest
from napari.components import ViewerModel

from napari_histomil.manifest import ClassSpec
from napari_histomil.results import SegmentationStore, run_path
from napari_histomil.slides.slide import SlideInfo
from napari_histomil.tiling import GridSpec, TileGrid
from napari_histomil.ui.layers import to_world_um
from napari_histomil.ui.orientation import Orientation, set_orientation
from napari_histomil.ui.overlays import overlays
from napari_histomil.ui.segmentation_picture import Frame, frame_for, paint, rough_facts
from napari_histomil.ui.session import session

CLASSES = (
    ClassSpec("background", (200, 200, 200)),
    ClassSpec("Tumor", (200, 0, 0)),
    ClassSpec("Stroma", (0, 160, 60)),
)
MPP, SLIDE_MPP = 1.0, 0.5


@pytest.fixture
def make_segmentation() -> Callable[..., SegmentationStore]:
    """Store probabilities [3, rows, columns] at 1 µm/px over a slide of 0.5 µm/px."""

    def make(
        info: SlideInfo,
        whole: np.ndarray,
        *,
        bands: int | None = None,
        activation: str = "softmax",
        region: str = "tissue",
    ) -> SegmentationStore:
        grid = TileGrid.cover(info, GridSpec(MPP, 64, 32))
        path = run_path(info.path, "5" * 16, fingerprint=info.fingerprint)
        with SegmentationStore.create(
            path,
            run_id=path.stem,
            job={"task": "segment", "region": {"kind": region}, "stain": {"method": "none"}},
            slide={
                "name": info.path.name,
                "path": str(info.path),
                "fingerprint": info.fingerprint,
                "width_px0": info.width_px0,
                "height_px0": info.height_px0,
                "mpp_xy": list(info.mpp_xy),
                "bounds_px0": None,
            },
            model={
                "name": "unet",
                "sha256": "0" * 64,
                "activation": activation,
                "background_class": "background",
                "positive_class": "Tumor",
            },
            classes=CLASSES,
            grid=grid,
        ) as store:
            for band in store.picture.bands[:bands]:
                store.write_band(band, whole[:, band.rows, band.columns])
        return SegmentationStore.open(path)

    return make


def probabilities() -> np.ndarray:
    """[3, 519, 750] for the slide `checkered`: tumour is its red square, and stroma below it.

    The square is x 192 to 320, y 128 to 256 at 1 µm/px; a hole of 4 x 5 px is in it, a spot of
    3 x 3 px beside it.
    """
    whole = np.zeros((3, 519, 750), np.float32)
    whole[1, 128:256, 192:320] = 0.8
    whole[1, 150:154, 200:205] = 0
    whole[1, 100:103, 100:103] = 0.9
    whole[2, 300:400, 50:700] = 0.6
    whole[0] = 1 - whole[1:].sum(axis=0)
    return whole


@pytest.fixture
def shown(write_slide, checkered, make_segmentation, qtbot) -> SimpleNamespace:
    """Layers and camera without a window."""
    viewer = ViewerModel()
    viewer.canvas.size = (600, 800)
    slide = session(viewer).open_slide(write_slide(checkered))
    run = overlays(viewer).add(make_segmentation(slide.info, probabilities()))
    found = SimpleNamespace(viewer=viewer, slide=slide, run=run, view=run.segmentation)
    qtbot.waitUntil(lambda: run.painter.complete and found.view.facts is not None)
    yield found
    session(viewer).close_slide(slide)


def colour_at(shown: SimpleNamespace, xy_px0: tuple[float, float]) -> tuple[int, ...]:
    """Return the colour of the layer's pixel at a place of the slide."""
    layer = shown.run.layer
    row, column = np.rint(layer.world_to_data(to_world_um(xy_px0, shown.slide.info))).astype(int)
    assert 0 <= row < layer.data.shape[0]
    assert 0 <= column < layer.data.shape[1]
    return tuple(layer.data[row, column].tolist())


TUMOR, STROMA, NOTHING = (200, 0, 0, 255), (0, 160, 60, 255), (0, 0, 0, 0)


@pytest.mark.parametrize("zoom", [8.0, 2.0, 1.0, 0.6])
@pytest.mark.parametrize("turn", [Orientation(0), Orientation(1, mirrored=True)])
def test_it_lies_on_the_slide_to_the_pixel(shown, qtbot, zoom, turn):
    """At level 0 of the picture, at places around the corners of the square."""
    viewer, info = shown.viewer, shown.slide.info
    set_orientation(viewer, turn)
    viewer.scene.camera.zoom = zoom  # screen pixels a µm
    viewer.scene.camera.center = tuple(to_world_um((384, 256), info))[
        :: -1 if turn.transposed else 1
    ]
    qtbot.waitUntil(lambda: shown.run.painter.complete)
    for x, y in ((385, 257), (386, 300), (450, 257)):  # within a picture's pixel of the edge
        assert colour_at(shown, (x, y)) == TUMOR
    for x, y in ((383, 257), (385, 255), (383, 255), (402, 302)):
        assert colour_at(shown, (x, y)) == NOTHING
