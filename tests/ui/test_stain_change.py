"""The shown run's model asked again under stain conditions, in a window without a canvas."""

from __future__ import annotations

import numpy as np
import pytest
from napari.components import ViewerModel

from napari_histomil.geometry import Rect
from napari_histomil.inference.engine import run
from napari_histomil.inference.job import RegionSpec, plan_job
from napari_histomil.manifest import find_model
from napari_histomil.resources import packaged
from napari_histomil.results import RunStore
from napari_histomil.slides.readers import open_slide
from napari_histomil.stain import CONDITIONS
from napari_histomil.ui.overlays import overlays
from napari_histomil.ui.session import session
from napari_histomil.ui.widgets.stain_change import AS_IT_IS, RANGE, TOP, StainChangePart


@pytest.fixture
def laid(tmp_path):
    """A few tiles of the sample slide, answered by the small model that came with the program."""
    slide_path = tmp_path / "s.tiff"
    slide_path.write_bytes((packaged("sample_data") / "synthetic-lymph-node.tiff").read_bytes())
    with open_slide(slide_path) as slide:
        info = slide.info
    region = RegionSpec("rect", Rect(2000, 1500, 768, 512))
    job = plan_job(info, find_model("metastasis-patch-small"), region=region)
    *_, last = run(job, device="cpu")
    viewer = ViewerModel()
    session(viewer).open_slide(slide_path)
    overlays(viewer).add(RunStore.open(last.store))
    return viewer


def test_the_hottest_tiles_are_asked_again_under_each_condition(laid, qtbot):
    part = StainChangePart(laid)
    qtbot.addWidget(part)
    part.where_box.setCurrentText(TOP)
    part.button.click()
    qtbot.waitUntil(lambda: part.found is not None and part._job is None, timeout=60_000)
    names = [part.tree.topLevelItem(n).text(0) for n in range(part.tree.topLevelItemCount())]
    assert names == [AS_IT_IS, *CONDITIONS, RANGE]
    first = overlays(laid).current
    shown = part.map.layer.data
    known = np.isfinite(shown)
    grid = first.store.grid
    assert known.sum() == min(50, len(grid))
    tiles = known[tuple(grid.cells.T)]
    # as it is: what the shown run says
    np.testing.assert_allclose(
        shown[tuple(grid.cells[tiles].T)], first.store.scores[tiles, 1], atol=2e-3
    )
    assert part.found.range[np.isfinite(part.found.range)].max() > 0
    part.tree.setCurrentItem(part.tree.topLevelItem(5))
    np.testing.assert_allclose(np.nanmax(part.map.layer.data), np.nanmax(part.found.range))
    assert "lies between" in part.words.text()


def test_without_a_run_it_says_what_to_do(qtbot):
    part = StainChangePart(ViewerModel())
    qtbot.addWidget(part)
    assert not part.button.isEnabled()
    assert part.words.text() == "Show the run of a patch classifier first."
