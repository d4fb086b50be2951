"""napari's own Save and Open of annotations; no window."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from napari.layers import Shapes
from npe2 import PluginManifest
from shapely.geometry import Polygon

from napari_histomil.annotations.formats import read_annotations, write_annotations
from napari_histomil.annotations.model import Region, class_named
from napari_histomil.errors import AnnotationError
from napari_histomil.geometry import Rect
from napari_histomil.ui import writer
from napari_histomil.ui.layers import METADATA_KEY, polygons_layer

PACKAGE = Path(writer.__file__).parents[1]


def save(layer: Shapes, path: Path, to: str) -> Path:
    data, meta, _ = layer.as_layer_data_tuple()
    assert getattr(writer, f"write_{to}")(str(path), data, meta) == [str(path)]
    return path


@pytest.fixture
def manifest():
    return PluginManifest.from_file(PACKAGE / "napari.yaml")


def test_every_writer_that_the_manifest_names_is_there(manifest):
    writers = manifest.contributions.writers
    names = {command.id: command.python_name for command in manifest.contributions.commands}
    for each in writers:
        module, name = names[each.command].split(":")
        assert callable(getattr(import_module(module), name))
    assert [each.display_name for each in writers] == [
        "QuPath GeoJSON", "ASAP XML", "ImageScope XML", "HALO annotations", "HistomicsUI JSON",
    ]  # fmt: skip
    assert all([str(kind) for kind in each.layer_types] == ["shapes"] for each in writers)


@pytest.mark.parametrize("to", ["geojson", "asap", "imagescope", "halo", "dsa"])
def test_a_layer_of_a_slide_is_saved_in_its_frame(array_slide, checkered, tmp_path, to):
    info = array_slide(checkered, bounds=Rect(100, 50, 800, 700)).info
    hole = [(300, 300), (320, 300), (320, 320), (300, 320)]
    shape = Polygon([(200, 200), (400, 200), (400, 400), (200, 400)], [hole])
    data, meta, _ = polygons_layer(
        [shape], info, name="a", metadata={"info": info},
        features={"class": ["Tumor"], "name": ["A"]},
    )  # fmt: skip
    path = save(Shapes(data, **meta), tmp_path / "a", to)
    (region,) = read_annotations(path).regions
    assert region.geometry.equals(shape)
    assert (region.classification, region.name) == (class_named("Tumor"), "A")
    assert read_annotations(path).frame.fingerprint == info.fingerprint
    if to == "geojson":
        assert read_annotations(path).frame.origin_px0 == (100, 50)


def test_a_plain_layer_lies_where_its_transform_puts_it(tmp_path):
    layer = Shapes(
        [np.array([[0, 0], [0, 10], [5, 10], [5, 0]]), np.array([[0, 0], [3, 4]])],
        shape_type=["rectangle", "line"], scale=(2, 2), translate=(100, 200),
        edge_color=[(1, 0, 0, 1), (0, 1, 0, 1)],
    )  # fmt: skip
    box, line = read_annotations(save(layer, tmp_path / "a.geojson", "geojson")).regions
    assert box.geometry.bounds == (200, 100, 220, 110)
    assert list(line.geometry.coords) == [(200, 100), (208, 106)]
    assert (box.classification, box.color, line.color) == (None, (255, 0, 0), (0, 255, 0))


def test_an_ellipse_is_its_outline(tmp_path):
    layer = Shapes([np.array([[0, 0], [0, 20], [10, 20], [10, 0]])], shape_type="ellipse")
    (region,) = read_annotations(save(layer, tmp_path / "a", "asap")).regions
    assert region.geometry.area == pytest.approx(np.pi * 10 * 5, rel=1e-3)


def test_µm_without_a_slide_are_refused(tmp_path):
    layer = Shapes([np.eye(3)[:, :2]], shape_type="polygon", units=("um", "um"))
    with pytest.raises(AnnotationError, match="open the slide first"):
        save(layer, tmp_path / "a", "geojson")
    assert list(tmp_path.iterdir()) == []


def test_files_open_as_shapes(tmp_path):
    hole = [(3, 3), (6, 3), (6, 6), (3, 6)]
    shape = Polygon([(0, 0), (9, 0), (9, 9), (0, 9)], [hole])
    path = tmp_path / "a.geojson"
    write_annotations(path, [Region(shape, class_named("Tumor"), name="A")])
    read = writer.get_reader(str(path))
    ((data, meta, kind),) = read(str(path))
    layer = Shapes(data, **meta)
    assert (kind, layer.nshapes, list(layer.features["class"])) == ("shapes", 1, ["Tumor"])
    assert layer.metadata[METADATA_KEY]["annotations"] == str(path)
    (region,) = read_annotations(save(layer, tmp_path / "b", "geojson")).regions
    assert region.geometry.equals(shape)
    write_annotations(path, [])
    ((data, meta, _),) = read(str(path))
    assert Shapes(data, **meta).nshapes == 0


@pytest.mark.parametrize("name", ["a.json", "a.xml", "a.svs", "a.tiff"])
def test_what_others_have_too_is_left_to_them(name):
    assert writer.get_reader(name) is None
    assert writer.get_reader([name]) is None
