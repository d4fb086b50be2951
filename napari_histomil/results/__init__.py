"""Runs on disk: what each kind holds, its one writer, and where runs are."""

from napari_histomil.results.features import FeatureStore
from napari_histomil.results.find import find_runs, find_slide, is_run, open_run, run_path
from napari_histomil.results.segmentation import SegmentationStore
from napari_histomil.results.store import RunStore

__all__ = [
    "FeatureStore",
    "RunStore",
    "SegmentationStore",
    "find_runs",
    "find_slide",
    "is_run",
    "open_run",
    "run_path",
]
