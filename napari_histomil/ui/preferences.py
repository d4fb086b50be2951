"""What a person has set under napari's Preferences > Plugins, declared in ``napari.yaml``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from napari_histomil.slides.cache import shared_cache
from napari_histomil.slides.memory import automatic_budget_bytes

PLUGIN = "napari-histomil"

VIEWS_VARIABLE = "HISTOMIL_REOPEN_VIEWS"
"""``0`` in this variable of the environment keeps no views, whatever the preferences say."""

_followed: list[Any] = []  # what hears of the memory preference already


def preferred_device() -> str:
    """Return where models run by preference: ``auto``, ``cpu``, ``cuda`` or ``mps``."""
    return str(_preference("inference", "device", "auto"))


def reopens_views() -> bool:
    """Return whether a slide comes back as it was left."""
    if os.environ.get(VIEWS_VARIABLE, "") == "0":
        return False
    return bool(_preference("viewing", "reopen_views", True))


def shows_minimap() -> bool:
    """Return whether there is a minimap on the canvas."""
    return bool(_preference("viewing", "minimap", True))


def keep_minimap_shown(shown: bool) -> None:
    """Remember whether there is to be a minimap, for the next window too."""
    viewing = getattr(_settings(), "viewing", None)
    if viewing is not None:
        viewing.minimap = shown


def preferred_author() -> str:
    """Return the name that is written to regions; empty for that of the system's user."""
    return str(_preference("annotating", "author", "")).strip()


def keep_author(name: str) -> None:
    """Remember who draws, for the next window too."""
    annotating = getattr(_settings(), "annotating", None)
    if annotating is not None:
        annotating.author = name.strip()


def shows_legend() -> bool:
    """Return whether there is a legend of the regions on the canvas."""
    return bool(_preference("annotating", "legend", True))


def keep_legend_shown(shown: bool) -> None:
    """Remember whether there is to be a legend, for the next window too."""
    annotating = getattr(_settings(), "annotating", None)
    if annotating is not None:
        annotating.legend = shown


def classes_file() -> Path | None:
    """Return the file of the project's classes; None where there is none."""
    path = str(_preference("annotating", "classes_file", "")).strip()
    return Path(path).expanduser() if path else None


def keep_classes_file(path: Path | None) -> None:
    """Remember where the project's classes are, for the next window too."""
    annotating = getattr(_settings(), "annotating", None)
    if annotating is not None:
        annotating.classes_file = str(path or "")


def memory_budget_bytes() -> int:
    """Return the bytes that decoded pixels may take."""
    return int(_preference("viewing", "memory_mb", 0)) << 20 or automatic_budget_bytes()


def apply_memory_budget() -> None:
    """Give the cache of decoded pixels its budget, now and whenever the preference changes."""
    shared_cache().set_budget(memory_budget_bytes())
    viewing = getattr(_settings(), "viewing", None)
    if viewing is not None and not any(each is viewing for each in _followed):
        _followed.append(viewing)
        viewing.events.memory_mb.connect(_on_memory)


def _on_memory(_event: Any) -> None:
    shared_cache().set_budget(memory_budget_bytes())


def _preference(category: str, name: str, default: Any) -> Any:
    """Return one preference, or the default where napari keeps none for plugins."""
    return getattr(getattr(_settings(), category, None), name, default)


def _settings() -> Any:
    """Return the plugin's settings; None where napari keeps none."""
    try:
        from napari.settings import get_plugin_settings
    except ImportError:  # napari before 0.9
        return None
    try:
        return get_plugin_settings(PLUGIN)
    except KeyError:  # the plugin is not installed, or disabled
        return None
