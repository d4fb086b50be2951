"""Runs under stain conditions side by side."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from truth_runs import grid_over, tile_run

from napari_histomil.cli import main
from napari_histomil.errors import RunError
from napari_histomil.results import RunStore
from napari_histomil.review.slide_answers import Rule
from napari_histomil.review.stain_change import AS_IT_IS, compare_stains, condition_of, runs_like

GRID = grid_over(160, 96)


def under(folder: Path, name: str, scores, condition: str | None = None, **job) -> RunStore:
    run = tile_run(folder, GRID, scores, model=name)
    file = run.path / "zarr.json"
    document = json.loads(file.read_text(encoding="utf-8"))
    stain = {"method": "none"} | ({"condition": condition} if condition else {})
    document["attributes"]["histomil"]["job"] |= {"stain": stain, **job}
    file.write_text(json.dumps(document), encoding="utf-8")
    return RunStore.open(run.path)


def test_answers_tiles_and_their_range(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plain, far, weak = np.full((3, 15), 0.2)
    plain[:3] = 0.9
    far[:2], far[7] = 0.8, 0.6
    weak[:] = 0.1
    weak[0] = np.nan
    runs = [under(tmp_path, "a", plain), under(tmp_path, "b", far, "hue far"),
            under(tmp_path, "c", weak, "intensity low")]  # fmt: skip
    found = compare_stains({condition_of(r): r for r in runs[::-1]}, "tumor", rule=Rule("max"))
    assert [each.condition for each in found.conditions] == [AS_IT_IS, "intensity low", "hue far"]
    low = found.conditions[1]
    assert (low.to_positive, low.to_negative, low.called) == (0, 2, 0)
    hue = found.conditions[2]
    assert (hue.to_positive, hue.to_negative) == (1, 1)
    assert hue.difference == pytest.approx((0.1 + 0.7 + 0.4) / 14)
    assert found.answers == pytest.approx((0.1, 0.9))
    assert found.unstable == 3  # tiles 1, 2 and 7: tile 0 is not known everywhere
    assert found.range[7] == pytest.approx(0.5)
    assert np.isnan(found.range[0])
    out = tmp_path / "s.json"
    assert main(["stain-change", *(str(r.path) for r in runs), "--rule", "max",
                 "--json", str(out)]) == 0  # fmt: skip
    assert "between 0.100 and 0.900; 3 tiles" in capsys.readouterr().out
    assert json.loads(out.read_text())["unstable_tiles"] == 3


def test_only_runs_that_differ_in_the_stains_are_found(tmp_path: Path) -> None:
    scores = np.full(15, 0.5)
    run = under(tmp_path, "a", scores)
    near = under(tmp_path, "b", scores, "hue near")
    other = under(tmp_path, "c", scores, "hue far", region={"kind": "all"})
    half = under(tmp_path, "d", scores, "intensity low")
    found = runs_like(run, [near.path, other.path, half.path, tmp_path / "none.zarr"])
    assert list(found) == [AS_IT_IS, "hue near", "intensity low"]
    with pytest.raises(RunError, match=r"differs from .* in more than the stains"):
        compare_stains({AS_IT_IS: run, "hue far": other}, "tumor", rule=Rule("max"))
    with pytest.raises(RunError, match=r"run the model on the slide as it is and under"):
        compare_stains({AS_IT_IS: run}, "tumor", rule=Rule("max"))
