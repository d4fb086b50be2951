"""What points of an embedding are coloured by."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from napari_histomil.review.form import DEFAULT
from napari_histomil.review.points import points_of
from napari_histomil.review.tile_scores import TileScores
from napari_histomil.review.verdicts import Place, Verdict, VerdictLog
from napari_histomil.ui.cloud_colours import (
    COLOURINGS,
    ERRORS,
    HIGH,
    LOW,
    MIDDLE,
    NAMED,
    UNKNOWN,
    Said,
)


def tiles(name, scores, truth):
    count = len(scores)
    rects = np.tile([0.0, 0.0, 10.0, 10.0], (count, 1))
    rects[:, 0] = 10 * np.arange(count)
    return TileScores(
        Path(f"{name}.svs"), name, rects, np.array(scores), "P", "m",
        truth=np.array(truth), features=np.ones((count, 2), np.float32),
    )  # fmt: skip


@pytest.fixture
def points():
    one = tiles("a", [0.0, 0.5, 1.0, 0.9], [0.0, 1.0, 1.0, 0.0])
    return points_of([one, tiles("b", [0.2, np.nan], [1.0, np.nan])])


def colours(points, name, **said):
    found = COLOURINGS[name](points, Said(**said))
    rounded = [tuple(round(float(value), 3) for value in each) for each in found.colours]
    return rounded, dict(found.legend)


def test_scores_go_from_low_to_high(points):
    found, legend = colours(points, "score or attention")
    assert found[:3] == [LOW, MIDDLE, HIGH]
    assert found[5] == UNKNOWN
    assert list(legend) == ["0", "0.5", "1", "not known"]


def test_errors_depend_on_the_threshold(points):
    found, legend = colours(points, "error")
    names = ["true negative", *["true positive"] * 2, "false positive", "false negative"]
    assert found == [*(ERRORS[name] for name in names), UNKNOWN]
    assert legend["false negative"] == ERRORS["false negative"]
    assert colours(points, "error", threshold=0.6)[0][1] == ERRORS["false negative"]
    assert colours(points, "class (truth)")[0][:3] == [NAMED[0], NAMED[1], NAMED[1]]


def test_slides_and_centres_have_a_colour_each(points):
    found, legend = colours(points, "slide")
    assert found == [NAMED[0]] * 4 + [NAMED[1]] * 2
    assert list(legend) == ["a.svs", "b.svs"]
    found, legend = colours(points, "centre", groups={"b.svs": "Utrecht"})
    assert found == [UNKNOWN] * 4 + [NAMED[0]] * 2
    assert list(legend) == ["Utrecht", "not known"]


def test_verdicts_have_the_colour_of_the_answer(points, tmp_path):
    with VerdictLog.open(tmp_path, reader="me") as log:
        log.append(Verdict("a.svs", Place("a", (20.0, 0.0), (10.0, 10.0)), "right", "wrong"))
        found, legend = colours(points, "verdict", log=log, form=DEFAULT)
    assert found[2] == NAMED[2]
    assert set(found[:2] + found[3:]) == {UNKNOWN}
    assert list(legend) == ["wrong", "not known"]
