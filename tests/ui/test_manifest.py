"""``napari.yaml`` is valid, and everything that it names is there."""

from __future__ import annotations

from fnmatch import fnmatch

import pytest
from npe2 import PluginManifest
from npe2.cli import validate

from napari_histomil.ui.preferences import preferred_device
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
    (reader,) = manifest.contributions.readers
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


def test_preferences_have_defaults_without_naparis(monkeypatch):
    import napari.settings

    monkeypatch.delattr(napari.settings, "get_plugin_settings")
    assert preferred_device() == "auto"
