"""napari-histomil: whole-slide histopathology in napari, from slide to heatmap.

The public names are loaded when first used, so that importing the package costs nothing:
neither torch nor napari nor Qt comes with it.
"""

from importlib import import_module
from typing import Any

_PUBLIC = {
    "HistomilError": "napari_histomil.errors",
    "Job": "napari_histomil.inference.job",
    "Progress": "napari_histomil.inference.job",
    "RunStore": "napari_histomil.results",
    "find_tissue": "napari_histomil.tissue",
    "open_slide": "napari_histomil.slides.readers",
    "plan_job": "napari_histomil.inference.job",
    "read_tile": "napari_histomil.slides.slide",
    "run": "napari_histomil.inference.engine",
}

__all__ = list(_PUBLIC)


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("napari-histomil")
    if name in _PUBLIC:
        return getattr(import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'napari_histomil' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_PUBLIC])
