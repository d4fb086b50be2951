"""A run that is killed, whatever it is doing, and run again ends with the same numbers."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from napari_histomil.inference.engine import run
from napari_histomil.inference.job import Job
from napari_histomil.results import RunStore, run_path

CHILD = """
import sys, time
from pathlib import Path
from napari_histomil.inference.engine import run
from napari_histomil.inference.job import RegionSpec, plan_job
from napari_histomil.manifest import load_manifest
from napari_histomil.slides.readers import open_slide

slide_path, model_path, out = map(Path, sys.argv[1:])
with open_slide(slide_path) as slide:
    job = plan_job(slide.info, load_manifest(model_path), region=RegionSpec("all"))

def look():
    time.sleep(0.05)  # asked once a block: the parent has time to kill this in between
    return 600.0, 450.0

for progress in run(job, out=out, device="cpu", near=look):
    print(progress.done, flush=True)
"""


def test_killed_and_resumed_equals_straight(
    tmp_path: Path,
    make_job: Callable[..., Job],
    slide_path: Path,
    model_folder: Path,
) -> None:
    job, rng = make_job(), random.Random(0)
    *_, last = run(job, out=tmp_path / "straight", device="cpu")
    straight = RunStore.open(last.store)
    arguments = [sys.executable, "-c", CHILD, str(slide_path), str(model_folder)]
    done = [0]
    for _ in range(2):
        child = subprocess.Popen([*arguments, str(tmp_path / "killed")], stdout=subprocess.PIPE)
        with child:
            assert child.stdout is not None
            assert int(child.stdout.readline()) >= done[-1], "nothing that was done is lost"
            child.stdout.readline()
            child.stdout.readline()
            time.sleep(rng.random() * 0.15)
            child.kill()  # SIGKILL, on Windows TerminateProcess
            child.communicate()
        killed = RunStore.open(
            run_path(
                slide_path, job.run_id, fingerprint=job.slide.fingerprint, out=tmp_path / "killed"
            )
        )
        done.append(int(killed.done_tiles.sum()))
        equal = killed.scores[killed.done_tiles] == straight.scores[killed.done_tiles]
        assert equal.all()
    assert done == sorted(set(done)), "every session got further"
    assert not killed.complete
    *_, last = run(job, out=tmp_path / "killed", device="cpu")
    resumed = RunStore.open(last.store)
    np.testing.assert_allclose(resumed.scores, straight.scores, rtol=0, atol=1e-6)
    assert resumed.complete
    assert [s["finished"] is None for s in resumed.sessions] == [True, True, False]
