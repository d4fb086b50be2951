"""What a person has set under napari's Preferences > Plugins, declared in ``napari.yaml``."""

from __future__ import annotations

from typing import Any

PLUGIN = "napari-histomil"


def preferred_device() -> str:
    """Return where models run by preference: ``auto``, ``cpu``, ``cuda`` or ``mps``."""
    return str(_preference("inference", "device", "auto"))


def _preference(category: str, name: str, default: Any) -> Any:
    """Return one preference, or the default where napari keeps none for plugins."""
    try:
        from napari.settings import get_plugin_settings
    except ImportError:  # napari before 0.9
        return default
    try:
        settings = get_plugin_settings(PLUGIN)
    except KeyError:  # the plugin is not installed, or disabled
        return default
    return getattr(getattr(settings, category, None), name, default)
