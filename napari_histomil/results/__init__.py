"""Runs on disk: `RunStore` (`store.py`), and the lock that keeps it to one writer (`lock.py`)."""

from napari_histomil.results.store import RunStore, find_runs, run_path

__all__ = ["RunStore", "find_runs", "run_path"]
