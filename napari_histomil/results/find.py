"""Where the runs of a slide are."""

from __future__ import annotations

import json
from pathlib import Path

from napari_histomil.resources import sidecar, sidecars
from napari_histomil.slides.slide import SlideInfo


def run_path(slide_path: Path, run_id: str, *, fingerprint: str, out: Path | None = None) -> Path:
    """Return where a run of a slide is or shall be: ``<sidecar>/runs/<run_id>.zarr``.

    A run that exists in a place where the slide's work was kept before is taken there.
    """
    name = f"{run_id}.zarr"
    for folder in sidecars(slide_path, fingerprint, out=out) if out is None else []:
        if (folder / "runs" / name).is_dir():
            return folder / "runs" / name
    return sidecar(slide_path, fingerprint, out=out) / "runs" / name


def find_runs(info: SlideInfo, out: Path | None = None) -> list[Path]:
    """Return the runs of a slide, the one worked on last first."""
    runs = {
        run
        for folder in sidecars(info.path, info.fingerprint, out=out)
        for run in (folder / "runs").glob("*.zarr")
        if (run / "zarr.json").is_file() and _slide_of(run) in (info.fingerprint, None)
    }
    return sorted(runs, key=lambda run: (run / "zarr.json").stat().st_mtime_ns, reverse=True)


def _slide_of(run: Path) -> str | None:
    """Return the fingerprint of a run's slide; None if the run is damaged, as opening it tells."""
    try:
        attributes = json.loads((run / "zarr.json").read_text(encoding="utf-8"))["attributes"]
        return str(attributes["histomil"]["slide"]["fingerprint"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
