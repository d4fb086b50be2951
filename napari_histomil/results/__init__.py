"""Runs on disk: what each kind holds, its one writer, and where runs are."""

from napari_histomil.results.features import FeatureStore
from napari_histomil.results.find import (
    find_results,
    find_runs,
    find_slide,
    is_run,
    open_result,
    open_run,
    run_path,
    run_task,
)
from napari_histomil.results.mil import MilRun
from napari_histomil.results.mil_layout import open_mil_run, write_mil_run
from napari_histomil.results.segmentation import SegmentationStore
from napari_histomil.results.store import RunStore

__all__ = [
    "FeatureStore",
    "MilRun",
    "RunStore",
    "SegmentationStore",
    "find_results",
    "find_runs",
    "find_slide",
    "is_run",
    "open_mil_run",
    "open_result",
    "open_run",
    "run_path",
    "run_task",
    "write_mil_run",
]
