"""kill -9 at any moment: what was returned is there, and nothing half."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from napari_histomil.annotations.geojson import read_geojson
from napari_histomil.annotations.keeping import AnnotationKeeper
from napari_histomil.annotations.model import SlideFrame

WORKER = """
import random, sys, uuid
from pathlib import Path
from shapely.geometry import Point, box
from napari_histomil.annotations import commands, keeping
from napari_histomil.annotations.keeping import AnnotationKeeper
from napari_histomil.annotations.model import Region, SlideFrame, class_named
from napari_histomil.annotations.stamps import Stamp

keeping.STEPS_BETWEEN_FILES = 7
rng = random.Random(int(sys.argv[2]))
keeper = AnnotationKeeper.open(Path(sys.argv[1]), SlideFrame((1000.0, 250.0)), author="Ada")
assert keeper.notes == (), keeper.notes
annotations, stamp = keeper.annotations, Stamp.now("Ada")

def tell():
    ids = sorted(f"{r.id[:8]} {r.class_name} {r.geometry.area:.2f}" for r in annotations)
    print(keeper.saver.waiting, "|".join(ids), flush=True)

tell()
while True:
    ids = [region.id for region in annotations]
    kind = rng.choice("aaaaccmduurib")
    if kind == "a" or not ids:
        x = rng.uniform(0, 1000)
        keeper.do(commands.add([Region(box(x, 0, x + rng.uniform(1, 99), 9))], stamp))
    elif kind == "c":
        keeper.do(commands.set_class(annotations, ids, class_named(rng.choice("ABC")), stamp))
    elif kind == "m":
        keeper.do(commands.reshape(annotations, {rng.choice(ids): box(0, 0, 5, rng.random())},
                                   "brush", stamp))
    elif kind == "d":
        keeper.do(commands.delete(annotations, rng.sample(ids, min(len(ids), 9))))
    elif kind == "u":
        keeper.undo()
    elif kind == "r":
        keeper.redo()
    elif kind == "i" and len(ids) < 500:
        new = [Region(Point(n, n)) for n in range(250)]
        keeper.do(commands.bring_in(annotations, new, "cells.geojson"))
    elif kind == "b":
        keeper.file_soon()
    tell()
    if keeper.saver.waiting and rng.random() < 0.5:
        keeper.saver.wait()
        tell()
"""


def said(line: bytes) -> tuple[int, list[str]]:
    waiting, _, state = line.decode().rstrip("\n").partition(" ")
    return int(waiting), [each for each in state.split("|") if each]


def state_of(keeper: AnnotationKeeper) -> list[str]:
    return sorted(
        f"{region.id[:8]} {region.class_name} {region.geometry.area:.2f}"
        for region in keeper.annotations
    )


def neighbours(keeper: AnnotationKeeper) -> list[list[str]]:
    """Return the states one step back and one step on."""
    found = []
    for there, back in ((keeper.undo, keeper.redo), (keeper.redo, keeper.undo)):
        if there() is not None:
            found.append(state_of(keeper))
            back()
    return found


@pytest.mark.parametrize("seed", range(3))
def test_what_was_returned_is_there_after_a_kill(tmp_path, seed):
    rng = random.Random(seed)
    folder = tmp_path / "s.histomil"
    for life in range(3):
        with subprocess.Popen(
            [sys.executable, "-c", WORKER, str(folder), str(100 * seed + life)],
            stdout=subprocess.PIPE,
        ) as process:
            first = process.stdout.readline()
            time.sleep(rng.uniform(0, 0.5))
            process.send_signal(signal.SIGKILL)
            lines = [first, *process.stdout.read().splitlines(keepends=True)]
        told = [said(line) for line in lines if line.endswith(b"\n")]
        keeper = AnnotationKeeper.open(folder, SlideFrame((1000.0, 250.0)))
        state = state_of(keeper)
        assert (keeper.notes, keeper.conflict) == ((), None)
        # The last state that was on the disk, or one after it that was still being written.
        promised = max(n for n, (waiting, _) in enumerate(told) if not waiting)
        later = [state for _, state in told[promised:]]
        if state not in later:  # the step in flight: one step away from what was told
            assert any(neighbour in later for neighbour in neighbours(keeper)), (state, later)
        assert state_of(keeper) == state
        while keeper.undo() is not None:
            pass
        assert state_of(keeper) == []
        while keeper.redo() is not None:
            pass
        keeper.close()
        assert len(read_geojson(folder / "annotations.geojson").regions) == len(keeper.annotations)
        json.loads((folder / "annotations.geojson").read_bytes())


def test_the_worker_itself_runs(tmp_path: Path):
    """A worker that fails at once would make the test above pass."""
    command = [sys.executable, "-c", WORKER, str(tmp_path / "s.histomil"), "1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        lines = [process.stdout.readline() for _ in range(60)]
        process.kill()
        errors = process.stderr.read()
    assert len({line for line in lines if line.strip()}) > 30, errors
