"""Runs on disk: what one holds (`store.py`, `layout.py`), its one writer, and where runs are."""

from napari_histomil.results.find import find_runs, find_slide, is_run, run_path
from napari_histomil.results.store import RunStore

__all__ = ["RunStore", "find_runs", "find_slide", "is_run", "run_path"]
