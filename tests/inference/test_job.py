from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from napari_histomil.errors import RunError
from napari_histomil.geometry import Rect
from napari_histomil.inference.job import (
    Job,
    ModelRef,
    Progress,
    RegionSpec,
    SlideRef,
    StainSpec,
)
from napari_histomil.tiling import GridSpec

JOB = Job(
    slide=SlideRef(Path("a/slide.svs"), "f" * 64, (0.25, 0.25)),
    model=ModelRef("tiny", Path("models/tiny"), "e" * 64),
    task="classify",
    grids=(GridSpec(1.0, 128, 64),),
)


def test_the_run_id_never_changes() -> None:
    """If this fails, runs on people's disks are not found any more: raise the schema version."""
    assert JOB.run_id == "7c72a17a271661ab"


def test_paths_and_names_are_not_part_of_the_id() -> None:
    moved = replace(
        JOB,
        slide=replace(JOB.slide, path=Path("/elsewhere/renamed.svs")),
        model=replace(JOB.model, path=Path("/elsewhere"), name="other name"),
    )
    assert moved.run_id == JOB.run_id


def test_whole_numbers_are_numbers() -> None:
    assert replace(JOB, grids=(GridSpec(1, 128, 64),)).run_id == JOB.run_id


def test_the_order_of_polygons_does_not_matter() -> None:
    a, b = "POLYGON ((0 0, 1 0, 1 1, 0 0))", "POLYGON ((5 5, 6 5, 6 6, 5 5))"
    one, other = (
        replace(JOB, region=RegionSpec("polygons", polygons_wkt=order))
        for order in ((a, b), (b, a))
    )
    assert one.run_id == other.run_id


@pytest.mark.parametrize(
    "other",
    [
        replace(JOB, slide=replace(JOB.slide, fingerprint="0" * 64)),
        replace(JOB, slide=replace(JOB.slide, mpp_xy=(0.25, 0.26))),
        replace(JOB, slide=replace(JOB.slide, icc=True)),
        replace(JOB, slide=replace(JOB.slide, reader="openslide")),
        replace(JOB, model=replace(JOB.model, sha256="0" * 64)),
        replace(JOB, grids=(GridSpec(1.0, 128, 32),)),
        replace(JOB, region=RegionSpec("all")),
        replace(JOB, region=RegionSpec("rect", rect_px0=Rect(0, 0, 5, 5))),
        replace(JOB, region=RegionSpec(min_fraction=0.5)),
        replace(JOB, stain=StainSpec("macenko")),
        replace(JOB, stain=StainSpec(condition="hue far")),
    ],
)
def test_what_decides_the_result_is_part_of_the_id(other: Job) -> None:
    assert other.run_id != JOB.run_id


def test_a_region_without_its_geometry_is_refused() -> None:
    with pytest.raises(RunError, match="rectangle"):
        RegionSpec("rect")
    with pytest.raises(RunError, match="no polygon"):
        RegionSpec("polygons")
    with pytest.raises(RunError, match="min_fraction"):
        RegionSpec(min_fraction=1.5)


def test_speed_counts_this_session_only() -> None:
    progress = Progress(100, 400, 40, 3.0, Rect(0, 0, 1, 1), Path("run.zarr"))
    assert progress.tiles_per_second == 20
    assert progress.seconds_left == 15
    assert replace(progress, done=40).seconds_left is None
