from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from napari_histomil.errors import OutputError, RunError
from napari_histomil.manifest import ClassSpec
from napari_histomil.results import (
    MilRun,
    RunStore,
    find_runs,
    mil_layout,
    open_mil_run,
    write_mil_run,
)
from napari_histomil.results.bag import EncoderFacts
from napari_histomil.results.mil import (
    MilAnswer,
    MilContributions,
    MilLevel,
    MilMap,
    MilSource,
    effective_number,
)
from napari_histomil.slides.readers import open_slide
from napari_histomil.tiling import GridSpec, TileGrid

SIZE = (4000, 3000)


def make_run(count: int = 7, **changes: Any) -> MilRun:
    rng = np.random.default_rng(0)
    cells = np.argwhere(np.ones((60, count // 60 + 1))).astype(np.int32)[:count]
    grid = TileGrid(GridSpec(2.0, 32, 32), (0.5, 0.5), SIZE, cells)
    zoomed = rng.integers(0, 9000, (4, 2)).astype(float) + 0.25
    share = rng.dirichlet(np.ones(count), 2).astype(np.float32)
    run = MilRun(
        run_id="0123456789abcdef",
        job={"task": "mil", "grids": []},
        slide={"name": "slide ü.svs", "path": "/none/slide ü.svs", "fingerprint": "f"},
        model={"name": "tiny", "sha256": "m", "reference": {"nuclear_um": 7.5}},
        classes=(ClassSpec("normal", (90, 90, 180)), ClassSpec("tumor", (200, 0, 0))),
        source=MilSource(8, EncoderFacts("enc", "e"), runs=("a", "b")),
        answer=MilAnswer(
            np.array([0.5, np.nan], np.float32),
            np.array([0.25, 0.75], np.float32),
            np.array([[0.2, 0.8], [0.3, 0.7]], np.float32),
            "ensemble",
        ),
        levels=(
            MilLevel(grid.tile_rects_px0[:, :2], grid.tile_size_px0, 2.0, grid, count),
            MilLevel(zoomed, (32.0, 32.5), None, None, 64),
        ),
        maps=(
            MilMap(0, "selection", np.log(share), share, np.arange(count)),
            MilMap(1, "critical", None, None, np.array([3, 1])),
        ),
        contributions=(MilContributions(1, np.array([2, 0]), np.array([[1, 2], [3, 4.0]])),),
        bias=np.array([0.5, -0.5], np.float32),
        warnings=("Few patches.",),
        numbers={"skipped_tiles": 60, "seconds": {"bag": 0.1}},
        sessions=({"device": "none"},),
    )
    return replace(run, **changes)


def test_a_run_comes_back_as_it_was(tmp_path: Path) -> None:
    run = write_mil_run(make_run(), tmp_path / "deep ü" / "0123456789abcdef.zarr")
    back = open_mil_run(run.path)
    for name in ("run_id", "job", "slide", "model", "classes", "source", "warnings", "numbers",
                 "sessions", "created", "path"):  # fmt: skip
        assert getattr(back, name) == getattr(run, name), name
    for one, other in zip(
        [back.answer.logits, back.answer.members, back.bias, back.levels[0].xy_px0,
         back.levels[1].xy_px0, back.maps[0].raw, back.maps[0].value, back.maps[1].index,
         back.contributions[0].values, back.contributions[0].index],
        [run.answer.logits, run.answer.members, run.bias, run.levels[0].xy_px0,
         run.levels[1].xy_px0, run.maps[0].raw, run.maps[0].value, run.maps[1].index,
         run.contributions[0].values, run.contributions[0].index],
        strict=True,
    ):  # fmt: skip
        np.testing.assert_array_equal(one, other)
    assert back.maps[1].raw is None
    assert back.maps[1].value is None
    assert back.instance_scores is None
    assert back.levels[0].grid is not None
    assert (back.levels[0].grid.spec, back.levels[1].grid) == (GridSpec(2.0, 32, 32), None)
    assert (back.levels[1].tiles, len(back.levels[1]), back.levels[1].side_px0) == (
        64,
        4,
        (32, 32.5),
    )
    np.testing.assert_allclose(back.answer.spread, [0.1 / 2**0.5] * 2, rtol=1e-5)
    assert back.maps_of(1) == (back.maps[1],)
    assert back.default_map is back.maps[1]
    assert "similarity" in back.maps[1].meaning


def test_a_run_of_100_000_tiles_is_small_and_needs_no_torch(tmp_path: Path) -> None:
    run = write_mil_run(make_run(100_000), tmp_path / "0123456789abcdef.zarr")
    size = sum(file.stat().st_size for file in run.path.rglob("*") if file.is_file())
    assert size < 4e6, "8 bytes a value of a map, and its place"
    code = (
        "import sys; from napari_histomil.results import open_mil_run\n"
        "run = open_mil_run(sys.argv[1]); assert len(run.levels[0]) == 100_000\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, str(run.path)], check=True)


def test_the_effective_number_of_patches() -> None:
    shares = np.zeros((3, 8))
    shares[0, 3] = 1
    shares[1] = 1 / 8
    shares[2, :2] = 0.5
    np.testing.assert_allclose(effective_number(shares), [1, 8, 2])
    assert np.isnan(effective_number(np.full((1, 3), np.nan))).all()
    uniform = MilMap(0, "attention", None, shares[1:2].astype(np.float32), np.arange(8))
    np.testing.assert_allclose(uniform.effective_number, [8])
    assert MilMap(0, "class token", None, uniform.value, uniform.index).effective_number is None


def test_a_writer_that_dies_leaves_nothing_and_the_next_one_cleans_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "0123456789abcdef.zarr"
    with monkeypatch.context() as patch:
        patch.setattr(mil_layout, "_attributes", lambda run: 1 / 0)
        patch.setattr(mil_layout.shutil, "rmtree", lambda *_, **__: None)  # killed: no clean-up
        with pytest.raises(ZeroDivisionError):
            write_mil_run(make_run(), path)
    assert not path.exists()
    assert list(tmp_path.glob("*.partial")), "else nothing was tested"
    first = write_mil_run(make_run(), path)
    again = write_mil_run(make_run(warnings=("Other.",)), path)
    assert open_mil_run(path).warnings == ("Other.",)
    assert first.path == again.path
    assert {p.name for p in tmp_path.iterdir()} == {path.name}


def test_what_is_no_such_run_is_told_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="is no run"):
        open_mil_run(tmp_path)
    run = write_mil_run(make_run(), tmp_path / "a.zarr")
    with pytest.raises(RunError, match="MIL model's answer for the whole slide"):
        RunStore.open(run.path)
    chunk = next(
        p for p in (run.path / "map0" / "raw").rglob("*") if p.is_file() and p.name == "0"
    )
    chunk.write_bytes(chunk.read_bytes()[:-1] + b"x")
    with pytest.raises(RunError, match="damaged"):
        open_mil_run(run.path)
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        write_mil_run(make_run(), tmp_path / "file" / "a.zarr")


def test_it_is_found_among_the_runs_of_its_slide(tmp_path: Path, data_dir: Path) -> None:
    with open_slide(data_dir / "wsi-aperio-svs" / "CMU-1-Small-Region.svs") as slide:
        info = slide.info
    runs = tmp_path / f"{info.path.name}.histomil" / "runs"
    facts = {"name": info.path.name, "path": str(info.path), "fingerprint": info.fingerprint}
    run = write_mil_run(make_run(slide=facts), runs / "a.zarr")
    assert find_runs(info, tmp_path, task="mil") == [run.path]
    assert find_runs(info, tmp_path) == []
    assert find_runs(info, tmp_path, task=None) == [], "no window opens it by open_run"
