"""Places that a reader is led to: the hottest, apart from one another."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from napari_histomil.errors import RunError
from napari_histomil.geometry import Rect
from napari_histomil.results import RunStore, open_mil_run
from napari_histomil.results.mil import MilLevel, MilMap
from napari_histomil.review.places import looked_at, top_places
from tests.review.review_cases import write_mil, write_run, write_slide


@pytest.fixture
def slide(tmp_path):
    return write_slide(tmp_path / "a.tiff")


def test_the_hottest_tiles_come_first_and_do_not_touch(slide):
    store = RunStore.open(write_run(slide, np.linspace(0.1, 0.65, 12)))
    rects = store.grid.cell_rects_px0
    spots = top_places(store)
    assert spots[0].score == pytest.approx(0.65)
    assert (*spots[0].place.xy_px0, *spots[0].place.size_px0) == tuple(rects[-1])
    corners = np.array([spot.place.xy_px0 for spot in spots])
    apart = np.hypot(*(corners[:, None] - corners).transpose(2, 0, 1)) / 128
    assert apart[~np.eye(len(spots), dtype=bool)].min() >= 1.5
    assert [spot.score for spot in spots] == sorted((s.score for s in spots), reverse=True)
    assert len(top_places(store, count=2)) == 2
    assert top_places(store, "normal")[0].score == pytest.approx(0.9)
    with pytest.raises(RunError, match="knows no class 'nucleus'"):
        top_places(store, "nucleus")


def test_what_a_model_was_given_is_looked_at(slide):
    store = RunStore.open(write_run(slide, 0.5))
    assert looked_at(store) == Rect(0.0, 0.0, 512.0, 384.0)


def test_of_a_mil_model_attention_leads(slide):
    run = open_mil_run(write_mil(slide, [[0.3, 0.7]]))
    assert top_places(run) == []
    xy = np.array([(0, 0), (100, 0), (200, 0), (300, 0)], float)
    level = MilLevel(xy, (100.0, 100.0), 0.5, None, 4)
    shown = MilMap(
        0, "attention", None, np.array([[0.1, 0.5, 0.4]], np.float32), np.array([0, 2, 3])
    )
    spots = top_places(replace(run, levels=(level,), maps=(shown,)))
    assert [spot.place.xy_px0 for spot in spots] == [(200, 0), (0, 0)], "the third touches"
    assert spots[0].score == pytest.approx(0.5)
    assert looked_at(replace(run, levels=(level,))) == Rect(0.0, 0.0, 400.0, 100.0)
