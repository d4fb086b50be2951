"""The measurement of annotating, on a small slide: it measures what it says."""

from __future__ import annotations

from napari_histomil.ui.bench_annotations import POWERS, measure_annotations


def test_all_figures_are_there_and_each_is_held_against_its_target(qapp):
    said = []
    figures = measure_annotations(cells=500, rounds=1, size=(2400, 1600), say=said.append)
    assert [figure.name for figure in figures] == [
        "opening a slide with 500 regions",
        "until they are seen",
        "longest stall of the window meanwhile",
        *(f"pan at {power:g}x, stall p95" for power in POWERS),
        "class of all",
        "undo of class of all",
    ]
    assert all(figure.value is not None and figure.value > 0 for figure in figures)
    assert all(
        figure.met is (figure.value <= figure.target) for figure in figures if figure.target
    )
    assert said[0] == "a slide with 500 cells ..."
