"""``napari.yaml`` is valid, and everything that it names is there."""

from __future__ import annotations

from fnmatch import fnmatch

import pytest
from npe2 import PluginManifest
from npe2.cli import validate

from napari_histomil.slides.cache import shared_cache
from napari_histomil.slides.memory import automatic_budget_bytes
from napari_histomil.ui.preferences import (
    VIEWS_VARIABLE,
    apply_memory_budget,
    memory_budget_bytes,
    preferred_device,
    reopens_views,
)
from napari_histomil.ui.reader import FOLDER_SUFFIX, SLIDE_SUFFIXES
from napari_histomil.ui.window import DOCKS


@pytest.fixture(scope="module")
def manifest():
    return PluginManifest.from_distribution("napari-histomil")


def test_npe2_finds_it_valid_and_imports_all_it_names(capsys):
    validate("napari-histomil", imports=True, debug=False)
    assert "valid" in capsys.readouterr().out


def test_its_name_is_that_of_the_distribution(manifest):
    assert manifest.name == "napari-histomil"
    assert all(
        command.id.startswith("napari-histomil.") for command in manifest.contributions.commands
    )


def test_the_docks_of_the_window_are_contributed(manifest):
    names = [widget.display_name for widget in manifest.contributions.widgets]
    assert names == list(DOCKS)


def test_every_extension_of_the_reader_reaches_it(manifest):
    reader = manifest.contributions.readers[0]
    for suffix in (*SLIDE_SUFFIXES, FOLDER_SUFFIX):
        assert any(fnmatch(f"slide{suffix}", each) for each in reader.filename_patterns), suffix
    assert reader.accepts_directories


def test_preferences_are_read_where_napari_keeps_them(manifest, plugin_settings, npe2pm):
    from napari.settings import get_plugin_settings

    assert preferred_device() == "auto", "the default where the plugin is disabled"
    npe2pm.register(manifest)
    assert preferred_device() == "auto", "the default that the manifest declares"
    get_plugin_settings("napari-histomil").inference.device = "cpu"
    assert preferred_device() == "cpu"


def test_the_memory_budget_is_a_preference(manifest, plugin_settings, npe2pm):
    from napari.settings import get_plugin_settings

    assert memory_budget_bytes() == automatic_budget_bytes(), "where the plugin is disabled"
    npe2pm.register(manifest)
    assert memory_budget_bytes() == automatic_budget_bytes()
    apply_memory_budget()
    assert shared_cache().budget_bytes == automatic_budget_bytes()
    get_plugin_settings("napari-histomil").viewing.memory_mb = 300
    assert shared_cache().budget_bytes == 300 << 20, "at once"
    get_plugin_settings("napari-histomil").viewing.memory_mb = 0
    assert shared_cache().budget_bytes == automatic_budget_bytes()


def test_views_come_back_unless_switched_off(manifest, plugin_settings, npe2pm, monkeypatch):
    from napari.settings import get_plugin_settings

    monkeypatch.delenv(VIEWS_VARIABLE, raising=False)
    npe2pm.register(manifest)
    assert reopens_views()
    monkeypatch.setenv(VIEWS_VARIABLE, "0")
    assert not reopens_views()
    monkeypatch.delenv(VIEWS_VARIABLE)
    get_plugin_settings("napari-histomil").viewing.reopen_views = False
    assert not reopens_views()


def test_preferences_have_defaults_without_naparis(monkeypatch):
    import napari.settings

    monkeypatch.delattr(napari.settings, "get_plugin_settings")
    assert preferred_device() == "auto"
    assert memory_budget_bytes() == automatic_budget_bytes()
