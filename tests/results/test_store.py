from __future__ import annotations

import errno
import json
import random
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from numpy.typing import NDArray

from napari_histomil.errors import OutputError, RunError
from napari_histomil.lock import WriterLock
from napari_histomil.manifest import ClassSpec
from napari_histomil.results import RunStore, find_runs, run_path
from napari_histomil.slides.slide import Level, SlideInfo
from napari_histomil.tiling import GridSpec, TileGrid

CLASSES = (ClassSpec("normal", (0, 0, 255)), ClassSpec("tumor", (255, 0, 0)))
GRID = TileGrid(
    GridSpec(1.0, 64, 64),
    (0.5, 0.25),
    (3000, 2000),
    np.indices((10, 20), dtype=np.int32).reshape(2, -1).T,  # 200 tiles: 3 blocks and 8 tiles
)


def make(path: Path, **slide: str) -> RunStore:
    return RunStore.create(
        path,
        run_id="abc",
        job={"task": "classify"},
        slide={"name": "slide.svs", "bounds_px0": None, **slide},
        model={"name": "tiny"},
        classes=CLASSES,
        grid=GRID,
    )


def block_scores(index: int) -> NDArray[np.float32]:
    """The scores that block `index` must have."""
    count = 64 if index < 3 else 8
    return np.random.default_rng(index).random((count, 2), np.float32)


def test_a_run_is_read_as_it_was_written(tmp_path: Path) -> None:
    with make(tmp_path / "runs" / "abc.zarr") as store:
        store.write_block(3, block_scores(3))
        store.write_blocks({1: block_scores(1)}, skipped={70: "cannot be read"})
        store.set_stain({"method": "macenko"})
        store.add_session({"device": "cpu"})
        store.update_session(finished="now")
        store.add_warning("Careful.")
        store.add_warning("Careful.")
        in_memory = store.scores
    read = RunStore.open(store.path)
    np.testing.assert_array_equal(read.scores, in_memory)
    np.testing.assert_array_equal(read.scores[64:128], block_scores(1))
    np.testing.assert_array_equal(read.scores[192:], block_scores(3))
    assert np.isnan(read.scores[:64]).all()
    assert read.done_blocks.tolist() == [False, True, False, True]
    assert np.flatnonzero(read.done_tiles).tolist() == [*range(64, 128), *range(192, 200)]
    assert not read.complete
    assert read.skipped == {70: "cannot be read"}
    assert (read.stain, read.warnings) == ({"method": "macenko"}, ["Careful."])
    assert read.sessions == [{"device": "cpu", "finished": "now"}]
    assert (read.run_id, read.classes, read.class_names) == ("abc", CLASSES, ("normal", "tumor"))
    assert read.grid.spec == GRID.spec
    assert (read.grid.slide_mpp, read.grid.slide_size_px0) == ((0.5, 0.25), (3000, 2000))
    np.testing.assert_array_equal(read.grid.cells, GRID.cells)
    assert [p.name for p in (tmp_path / "runs").iterdir()] == ["abc.zarr"], "no lock is left"


def test_it_is_zarr_3_that_others_read(tmp_path: Path) -> None:
    make(tmp_path / "abc.zarr").close()
    metadata = json.loads((tmp_path / "abc.zarr" / "zarr.json").read_text())
    assert (metadata["zarr_format"], metadata["node_type"]) == (3, "group")
    assert metadata["attributes"]["histomil"]["schema_version"] == 1
    scores: Any = zarr.open_group(tmp_path / "abc.zarr", mode="r")["scores"]
    assert scores.chunks == (64, 2), "a block is a chunk"


def test_a_reader_sees_what_is_written_meanwhile(tmp_path: Path) -> None:
    with make(tmp_path / "abc.zarr") as store:
        reader = RunStore.open(store.path)
        for index in (2, 0, 3, 1):
            store.write_block(index, block_scores(index))
            tiles = slice(index * 64, index * 64 + 64)
            np.testing.assert_array_equal(reader.scores[tiles], block_scores(index))
        assert reader.complete
        store.add_warning("Late.")
        reader.refresh()
        assert reader.warnings == ["Late."]


def test_there_is_one_writer(tmp_path: Path) -> None:
    path = tmp_path / "abc.zarr"
    with make(path):
        with pytest.raises(RunError, match=r"being written by another process \(process \d+ on"):
            RunStore.open(path, writable=True)
        with pytest.raises(RunError, match="being written"):
            make(path)
        RunStore.open(path)  # reading is always possible
    with RunStore.open(path, writable=True) as store:
        assert store.run_id == "abc"
    with pytest.raises(RunError, match="exists already"):
        make(path)
    RunStore.open(path, writable=True).close()


def test_a_dead_writer_holds_nothing(tmp_path: Path) -> None:
    path = tmp_path / "abc.zarr"
    make(path).close()
    program = (
        "import sys, time; from pathlib import Path; from napari_histomil.results import RunStore;"
        "store = RunStore.open(Path(sys.argv[1]), writable=True); print('open', flush=True);"
        "time.sleep(60)"
    )
    child = subprocess.Popen([sys.executable, "-c", program, str(path)], stdout=subprocess.PIPE)
    with child:
        assert child.stdout is not None
        assert child.stdout.readline().strip() == b"open"
        with pytest.raises(RunError, match=f"process {child.pid}"):
            RunStore.open(path, writable=True)
        child.kill()
    assert path.with_name("abc.zarr.lock").exists(), "it had no time to tidy up"
    RunStore.open(path, writable=True).close()
    assert not path.with_name("abc.zarr.lock").exists()


WRITER = """
import sys
from pathlib import Path
from tests_results_store import block_scores, make
from napari_histomil.results import RunStore
path = Path(sys.argv[1])
store = RunStore.open(path, writable=True) if path.exists() else make(path)
while True:
    for index in range(4):
        store.write_block(index, block_scores(index))
        store.add_session({"index": index})
        print(index, flush=True)
"""


def test_a_killed_writer_leaves_a_sound_run(tmp_path: Path) -> None:
    """Whatever instant it dies at: what is flagged is right, and the run opens."""
    (tmp_path / "tests_results_store.py").write_text(Path(__file__).read_text("utf-8"), "utf-8")
    path, rng = tmp_path / "abc.zarr", random.Random(0)
    for _ in range(4):
        child = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, cwd=tmp_path
        )
        with child:
            assert child.stdout is not None
            assert child.stdout.readline(), "it has begun to write"
            time.sleep(rng.random() * 0.05)
            child.kill()
        with RunStore.open(path, writable=True) as store:
            scores = store.scores
            assert store.done_blocks.any()
            for index in np.flatnonzero(store.done_blocks):
                tiles = slice(index * 64, index * 64 + 64)
                np.testing.assert_array_equal(scores[tiles], block_scores(int(index)))
            assert list(tmp_path.rglob("*.partial")) == [], "what it was writing is tidied up"


@pytest.mark.parametrize("keep_bytes", [0, 100, 515])
def test_a_torn_block_is_done_again(tmp_path: Path, keep_bytes: int) -> None:
    """A disk that lost power may hold the flag and not the scores."""
    with make(tmp_path / "abc.zarr") as store:
        for index in range(4):
            store.write_block(index, block_scores(index))
    chunk = store.path / "scores" / "c" / "1" / "0"
    chunk.write_bytes(chunk.read_bytes()[:keep_bytes])
    with pytest.raises(RunError, match=r"damaged: .* run its job again"):
        RunStore.open(store.path)
    with RunStore.open(store.path, writable=True) as mended:
        assert mended.done_blocks.tolist() == [True, False, True, True]
    assert np.isnan(RunStore.open(store.path).scores[64:128]).all()


def test_a_full_disk_is_told_and_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with make(tmp_path / "abc.zarr") as store:
        store.write_block(0, block_scores(0))

        def fail(*_: object) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(Path, "replace", fail)
        with pytest.raises(OutputError, match="No space left on device; make room"):
            store.write_block(1, block_scores(1))
        with pytest.raises(OutputError, match="make room"):
            store.add_warning("Careful.")
        monkeypatch.undo()
        assert store.done_blocks.tolist() == [True, False, False, False]
        assert store.warnings == []
    np.testing.assert_array_equal(RunStore.open(store.path).scores[:64], block_scores(0))


def test_a_flipped_bit_is_noticed(tmp_path: Path) -> None:
    with make(tmp_path / "abc.zarr") as store:
        store.write_block(0, block_scores(0))
    chunk = store.path / "scores" / "c" / "0" / "0"
    data = bytearray(chunk.read_bytes())
    data[17] ^= 1
    chunk.write_bytes(data)
    with RunStore.open(store.path, writable=True) as mended:
        assert not mended.done_blocks.any()


def test_a_block_that_vanished_is_done_again(tmp_path: Path) -> None:
    with make(tmp_path / "abc.zarr") as store:
        store.write_block(0, block_scores(0))
        failed = block_scores(1)
        failed[6] = np.nan
        store.write_blocks({1: failed}, skipped={70: "broken"})
    (store.path / "scores" / "c" / "0" / "0").unlink()
    with RunStore.open(store.path, writable=True) as mended:
        # a tile that was skipped has a reason to be NaN, the vanished block has none
        assert mended.done_blocks.tolist() == [False, True, False, False]


def test_what_killed_processes_leave_is_tidied_up(tmp_path: Path) -> None:
    path = tmp_path / "abc.zarr"
    (tmp_path / ".abc.zarr.0123.partial" / "scores").mkdir(parents=True)
    make(path).close()
    (path / "scores" / "c").mkdir()
    (path / "scores" / "c" / "0.0123.partial").write_bytes(b"half")
    RunStore.open(path, writable=True).close()
    assert list(tmp_path.rglob("*.partial")) == []


def test_what_is_no_run_is_told(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="is no run"):
        RunStore.open(tmp_path)
    zarr.create_group(tmp_path / "other.zarr")
    with pytest.raises(RunError, match="another program"):
        RunStore.open(tmp_path / "other.zarr")
    path = tmp_path / "abc.zarr"
    make(path).close()
    (path / "scores" / "zarr.json").unlink()
    with pytest.raises(RunError, match="damaged"):
        RunStore.open(path)
    (path / "zarr.json").write_text("{")
    with pytest.raises(RunError, match="damaged"):
        RunStore.open(path)


def test_a_newer_run_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "abc.zarr"
    make(path).close()
    file = path / "zarr.json"
    file.write_text(file.read_text().replace('"schema_version": 1', '"schema_version": 2'))
    with pytest.raises(RunError, match=r"newer version .*: update"):
        RunStore.open(path)


def make_info(path: Path) -> SlideInfo:
    return SlideInfo(
        path=path,
        reader="tiff",
        vendor="",
        width_px0=1,
        height_px0=1,
        mpp_x=1,
        mpp_y=1,
        mpp_source="file",
        objective_power=None,
        levels=(Level(1, 1, 1.0, 1, 1),),
        channels=(),
        dtype="uint8",
        composite="",
        bounds_px0=None,
        associated_images=(),
        properties={},
        fingerprint="ab" * 32,
    )


def test_runs_of_a_slide_are_found_newest_first(tmp_path: Path, own_user_data: Path) -> None:
    info = make_info(tmp_path / "slide.svs")
    path = {
        name: run_path(info.path, name, fingerprint=info.fingerprint, out=out)
        for name, out in (("a", None), ("b", None), ("c", tmp_path / "out"))
    }
    assert path["a"] == tmp_path / "slide.svs.histomil" / "runs" / "a.zarr"
    assert find_runs(info) == []
    for name in "abc":
        make(path[name]).close()
        time.sleep(0.01)
    with RunStore.open(path["a"], writable=True) as store:
        store.add_session({})
    assert find_runs(info) == [path["a"], path["b"]]
    assert find_runs(info, out=tmp_path / "out") == [path["a"], path["c"], path["b"]]
    # the slide is now on a medium that cannot be written, its older run is in the user's data
    kept = own_user_data / "slides" / f"{info.fingerprint[:32]}.histomil" / "runs" / "d.zarr"
    make(kept).close()
    moved = replace(info, path=tmp_path / "elsewhere" / "slide.svs")
    assert run_path(moved.path, "d", fingerprint=info.fingerprint) == kept
    assert find_runs(moved) == [kept]


def test_a_renamed_slide_keeps_its_runs(tmp_path: Path) -> None:
    slide = tmp_path / "old.v1.svs"
    slide.write_bytes(b"")
    info = make_info(slide)
    path = run_path(slide, "a", fingerprint=info.fingerprint)
    make(path, fingerprint=info.fingerprint).close()
    info = replace(info, path=slide.rename(tmp_path / "new.svs"))
    assert find_runs(info) == [path]
    assert run_path(info.path, "a", fingerprint=info.fingerprint) == path
    assert find_runs(replace(info, fingerprint="cd" * 32)) == [], "another slide's"
    slide.write_bytes(b"")  # another slide of the old name: the runs are not its
    assert find_runs(info) == [path]
    assert find_runs(replace(info, path=slide, fingerprint="cd" * 32)) == []


@pytest.mark.parametrize("how_far", ["the whole run", "its scores"])
def test_a_run_that_somebody_deletes_is_not_written_anew(tmp_path: Path, how_far: str) -> None:
    with make(tmp_path / "abc.zarr") as store:
        store.write_block(0, block_scores(0))
        store.add_session({"device": "cpu"})
        shutil.rmtree(store.path if how_far == "the whole run" else store.path / "scores")
        with pytest.raises(RunError, match="was deleted while it was being written: run its job"):
            store.write_block(1, block_scores(1))
        if how_far == "the whole run":
            with pytest.raises(RunError, match="was deleted"):
                store.update_session(state="failed")
            assert not store.path.exists()


def test_a_run_of_which_parts_are_gone_says_what_to_do(tmp_path: Path) -> None:
    make(tmp_path / "abc.zarr").close()
    shutil.rmtree(tmp_path / "abc.zarr" / "cells")
    with pytest.raises(RunError, match="it lacks 'cells'; delete it, and run its job again"):
        RunStore.open(tmp_path / "abc.zarr", writable=True)


def test_a_full_disk_keeps_no_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as disk:
        disk.setattr("os.write", full)
        lock = WriterLock(tmp_path / "abc.zarr")
        with pytest.raises(RunError, match="another process: wait"):
            WriterLock(tmp_path / "abc.zarr")
    lock.release()
    assert list(tmp_path.iterdir()) == []
