"""The measurement of a click, on few patches: it measures what it says."""

from __future__ import annotations

from napari_histomil.ui.bench_mil import measure_click


def test_the_map_is_on_the_screen_when_the_clock_stops(qapp):
    said = []
    figure = measure_click(instances=200, say=said.append)
    assert figure.name.endswith("to the map on the screen: 200 x 1024")
    assert figure.value > 0
    assert figure.met is (figure.value <= 3.0)
    assert "stall" in figure.note
    assert len(said) == 1
