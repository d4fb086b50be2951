"""What is shown of a MIL run: which maps, scales, threshold, patches; no screen needed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from napari_histomil.heatmaps import rank_percentile
from napari_histomil.results.mil import MilLevel, MilMap
from napari_histomil.ui import attention_maps as maps
from napari_histomil.ui.attention_view import HOT, AttentionView, spread_text
from napari_histomil.ui.colours import DIVERGING, colour_steps
from tests.ui.mil_runs import level_of, make_mil_run, make_zoom_run


@pytest.fixture
def info(array_slide):
    return array_slide(np.full((512, 640, 3), 200, np.uint8), (0.5, 0.5)).info


def view_of(run, info) -> AttentionView:
    return AttentionView(run, (info.width_px0, info.height_px0), info.mpp_xy)


@pytest.fixture
def view(info) -> AttentionView:
    return view_of(make_mil_run(info), info)


def test_contributions_of_the_predicted_class_come_first(view):
    run = view.run
    assert view.whats == (maps.CONTRIBUTION, maps.ATTENTION)
    assert (view.what, view.class_index) == (maps.CONTRIBUTION, run.answer.predicted)
    assert view.colours == DIVERGING
    assert view.scales == ("as it is",)
    logit = run.bias[view.class_index] + np.nansum(view.values)
    assert logit == pytest.approx(run.answer.logits[view.class_index], rel=1e-5)
    limit = view.span.high
    assert view.span.low == -limit
    assert view.shown_share(0.0) == 0.5, "0 is the middle of the colours"
    steps = colour_steps(DIVERGING).astype(int)
    assert (np.abs(steps[127] - steps[128]) <= 1).all()
    assert steps[127].min() > 240, "which is white"


def test_what_was_not_examined_is_transparent_and_not_0(view):
    missing = view.shown.picture.tile_at((300.0, 40.0))
    tile = next(n for n in range(len(view.values)) if np.isnan(view.values[n]))
    where = view.shown.picture.tiles == tile
    assert np.isnan(view.image[where]).all()
    assert np.isnan(view.image).sum() == 1
    assert view.examined == len(view.values) - 1
    assert tile not in view.picked
    assert missing is not None


def test_scales_are_switched_live_and_keep_the_patches_above_the_threshold(view):
    view.what = maps.ATTENTION
    assert view.scales == ("raw", "softmax", "x uniform", "min-max", "rank", "reference")
    assert view.normalisation == "x uniform"
    view.normalisation = "rank"
    np.testing.assert_allclose(view.scaled, rank_percentile(view.values))
    view.cut = 0.8
    assert view.threshold == pytest.approx(80)
    above = np.isfinite(view.image)
    expected = view.shown.picture.image(view.scaled) >= 80
    np.testing.assert_array_equal(above, expected)
    for name in view.scales:
        view.normalisation = name
        np.testing.assert_array_equal(np.isfinite(view.image), above, err_msg=name)
        assert view.stats().tiles == above.sum()


def test_the_legend_warns_while_every_slide_has_a_hottest_patch(view):
    view.what = maps.ATTENTION
    warned = {}
    for name in view.scales:
        view.normalisation = name
        warned[name] = view.warns_of_hot
        assert (HOT in view.legend_title) == view.warns_of_hot
    assert [name for name, on in warned.items() if on] == ["min-max", "rank"]


def test_the_effective_number_of_patches_is_said_of_shares_only(view, info):
    assert view.effective_number is None
    view.what = maps.ATTENTION
    share = view.run.maps[0].value[0].astype(float)
    expected = np.exp(-(share * np.log(share)).sum())
    assert view.effective_number == pytest.approx(expected, rel=1e-4)
    assert spread_text(view) == f"effective patches: {expected:.1f} of {view.examined}"
    token = replace(view.run.maps[0], kind="class token", raw=None)
    other = view_of(make_mil_run(info, maps=(token,), contributions=()), info)
    assert other.effective_number is None
    assert other.scales == ("raw", "min-max", "rank")


def test_areas_and_overlap_with_annotations(view):
    view.what = maps.ATTENTION
    view.normalisation = "rank"
    view.cut = 0.5
    shown = np.isfinite(view.scaled) & (view.scaled >= 50)
    view.inside = {"Tumor": np.arange(len(view.values)) < 5}
    stats = view.stats()
    cell_mm2 = 0.064**2
    assert stats.tiles == shown.sum()
    assert stats.area_mm2 == pytest.approx(shown.sum() * cell_mm2)
    assert stats.looked_at_mm2 == pytest.approx(view.examined * cell_mm2)
    assert stats.percent == pytest.approx(100 * shown.sum() / view.examined)
    ((name, of_shown, of_class),) = stats.overlaps
    both = (shown & view.inside["Tumor"]).sum()
    assert name == "Tumor"
    assert of_shown == pytest.approx(100 * both / shown.sum())
    assert of_class == pytest.approx(100 * both / 4), "one of the five was not examined"


def test_patches_of_both_ends_and_of_the_middle(view):
    order = [n for n in np.argsort(-view.values) if np.isfinite(view.values[n])]
    assert view.picked.tolist() == order[:10]
    view.pick("bottom", 4)
    assert view.picked.tolist() == order[::-1][:4]
    view.pick("middle", 3)
    first = (len(order) - 3) // 2
    assert view.picked.tolist() == order[first : first + 3]
    assert view.step(1) == order[first]
    assert view.step(1) == order[first + 1]
    assert view.step(5) == order[first + 2], "it ends at the end"
    assert view.step(-9) == order[first]
    view.pick("top", 10_000)
    assert len(view.picked) == view.examined
    assert view.stop is None


def test_readings_name_each_scale(view):
    assert view.readings(0)[0][1].endswith(" logit units")
    view.what = maps.ATTENTION
    readings = dict(view.readings(0))
    share = view.run.maps[0].value[0, 0]
    assert list(readings) == list(view.scales)
    assert readings["x uniform"] == f"{share * view.examined:.3g}x"
    assert readings["rank"].endswith("\u00a0%")


def test_a_zooming_model_has_a_map_a_magnification_and_one_of_all(info):
    view = view_of(make_zoom_run(info), info)
    run = view.run
    assert view.whats == (maps.CONTRIBUTION, maps.ATTENTION, maps.SELECTION)
    assert view.levels == (0, 1, maps.MERGED)
    assert view.level == maps.MERGED
    total = sum(part.values[view.class_index].sum() for part in run.contributions)
    assert np.nansum(view.values) == pytest.approx(total, rel=1e-5)
    view.what = maps.ATTENTION
    assert view.levels == (0, 1), "attention of magnifications is never added"
    assert view.level == 1
    assert view.image.shape == run.levels[1].grid.shape
    assert np.isfinite(view.image).sum() == 8
    view.level = 0
    assert view.image.shape == run.levels[0].grid.shape
    view.what = maps.SELECTION
    assert (view.levels, view.level) == ((0,), 0)
    assert maps.level_name(run, 0) == "5x (2 µm/px)"
    assert maps.level_name(run, maps.MERGED) == "all, added"


def test_a_row_a_class_begins_with_the_predicted_one(info):
    run = make_mil_run(info)
    one = run.maps[0]
    rng = np.random.default_rng(3)
    raw = rng.normal(size=(2, len(one.index))).astype(np.float32)
    many = MilMap(0, "class attention", raw, raw, one.index)
    view = view_of(replace(run, maps=(many,), contributions=()), info)
    assert view.heads == ("normal", "tumor")
    assert view.class_index == run.answer.predicted
    np.testing.assert_array_equal(view.values[one.index], raw[view.class_index])
    view.class_index = 1 - view.class_index
    np.testing.assert_array_equal(view.values[one.index], raw[view.class_index])


def test_pooling_without_attention_shows_scores_of_patches_first(info):
    run = make_mil_run(info, contributions=())
    level = run.levels[0]
    scores = np.random.default_rng(0).normal(size=(len(level), 2)).astype(np.float32)
    uniform = MilMap(
        0, "uniform", None, np.full((1, len(level)), 1 / len(level)), np.arange(len(level))
    )
    view = view_of(replace(run, instance_scores=scores, maps=(uniform,)), info)
    assert view.whats == (maps.SCORE, maps.ATTENTION)
    np.testing.assert_array_equal(view.values, scores[:, view.class_index])
    view.what = maps.ATTENTION
    assert view.effective_number == pytest.approx(len(level))
    np.testing.assert_allclose(view.scaled, 1, rtol=1e-6)


def test_a_finer_map_is_ranked_against_the_models_own_pass(info):
    run = make_mil_run(info, contributions=())
    fine = level_of(info, 1.0, finer_than=0)
    raw = np.random.default_rng(5).normal(size=(1, len(fine))).astype(np.float32)
    refined = MilMap(1, "attention", raw, np.exp(raw) / 20, np.arange(len(fine)))
    view = view_of(replace(run, levels=(run.levels[0], fine), maps=(*run.maps, refined)), info)
    assert view.level == 1
    assert maps.level_name(run, 0) == "10x (1 µm/px)"
    assert maps.level_name(view.run, 1) == "10x (1 µm/px), finer steps"
    view.normalisation = "rank"
    np.testing.assert_allclose(view.scaled, rank_percentile(raw[0], run.maps[0].raw[0]))
    view.normalisation = "x uniform"
    np.testing.assert_allclose(
        view.scaled, np.exp(raw[0]) / 20 * len(run.maps[0].index), rtol=1e-6
    )


def test_tiles_of_others_lie_where_their_files_say(info):
    run = make_mil_run(info, contributions=())
    xy = np.array([(11.0, 3.0), (75.0, 3.0), (20.0, 203.0)])
    level = MilLevel(xy, (64.0, 64.0), None, None, 3)
    one = MilMap(0, "attention", np.zeros((1, 3)), np.full((1, 3), 1 / 3), np.arange(3))
    view = view_of(replace(run, levels=(level,), maps=(one,)), info)
    for number, (x, y) in enumerate(xy):
        assert view.tile_at((x + 32, y + 32)) == number
    assert view.tile_at((300.0, 300.0)) is None
    assert view.frames_px0(2) == [(20.0, 203.0, 64.0, 64.0)]
    assert maps.level_name(view.run, 0) == "level 1"


def test_smoothing_is_off_changes_the_picture_only_and_invents_nothing(view):
    before, known, stats = view.image.copy(), np.isfinite(view.image), view.stats()
    assert not view.smooth
    view.smooth = True
    np.testing.assert_array_equal(np.isfinite(view.image), known)
    assert not np.allclose(view.image[known], before[known])
    assert view.stats() == stats
    view.smooth = False
    np.testing.assert_array_equal(view.image, before)


def test_it_comes_back_as_it_was(view, info):
    view.what, view.normalisation, view.cut, view.colours = maps.ATTENTION, "rank", 0.3, "magma"
    again = view_of(view.run, info)
    again.bring_back(view.state())
    assert again.state() == view.state()
    np.testing.assert_array_equal(again.image, view.image)
    before = again.state()
    again.bring_back({"what": "?", "level": 7, "class": 3, "cut": "x", "normalisation": None})
    assert again.state() == before
