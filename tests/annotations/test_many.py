"""Many regions and many vertices: the quick way gives what the careful way gives."""

from __future__ import annotations

import json
import uuid
from dataclasses import fields

import numpy as np
import pytest
from shapely.geometry import Polygon

from napari_histomil.annotations import files, qupath_lines
from napari_histomil.annotations.formats import read_annotations, write_annotations
from napari_histomil.annotations.model import Region, SlideFrame, class_named
from napari_histomil.annotations.qupath import (
    feature_from_region,
    region_from_feature,
    regions_from_features,
)
from napari_histomil.errors import AnnotationError


def cell(n: int) -> dict:
    angle = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    ring = np.round(np.column_stack([np.cos(angle), np.sin(angle)]) * 20 + 100 * n + 50, 2)
    closed = [*ring.tolist(), ring[0].tolist()]
    return {
        "type": "Feature",
        "id": str(uuid.UUID(int=n + 2**100)),
        "geometry": {"type": "Polygon", "coordinates": [closed if n % 3 else closed[:-1]]},
        "nucleusGeometry": {"type": "Polygon", "coordinates": [closed], "plane": {"z": n % 2}},
        "properties": {
            "objectType": "cell",
            "classification": {"name": f"c{n % 3}", "color": [n % 3, 2, 3]},
            "measurements": {"a": n + 0.5, "b": 1},
        },
    }


@pytest.mark.parametrize("shift", [(0.0, 0.0), (1000.5, 250.25)])
def test_many_features_are_what_each_is_alone(shift):
    features = [cell(n) for n in range(200)]
    for n in range(0, 200, 2):
        del features[n]["nucleusGeometry"]["plane"]
        features[n]["properties"]["measurements"] = {"a": 0.25}
    features[7]["properties"]["childObjects"] = [cell(1000)]
    features[8]["geometry"] = {"type": "Point", "coordinates": [1, 2]}
    alone = tuple(
        region_from_feature(each, f"feature {n}", shift) for n, each in enumerate(features, 1)
    )
    together = regions_from_features(features, shift)
    assert together == alone
    assert {id(region.classification) for region in together[:3]} <= {
        id(region.classification) for region in together[3:]
    }
    for region in together:
        assert {each.name: getattr(region, each.name) for each in fields(region)}


@pytest.mark.parametrize(
    ("ring", "words"),
    [
        ([[0, 0], [1, 1], [0, 0]], "feature 150 has 2 points"),
        ([[0, 0], [1, 1], [2, None]], "coordinates of feature 150 are not lists"),
        ([[0, 0], [1, 1], [2, 3, 4, 5]], "coordinates of feature 150 are not lists"),
        ([[0, 0], [1, 1], ["1", "2"]], "coordinates of feature 150 are not lists"),
        ([[0, 0], [1, 1], "12"], "coordinates of feature 150 are not lists"),
        ([[0, 0], [1, 1], [1e300, 2]], "feature 150.*farther out"),
    ],
)
def test_one_bad_among_many_is_found(ring, words):
    features = [cell(n) for n in range(200)]
    features[149]["geometry"]["coordinates"] = [ring]
    with pytest.raises(AnnotationError, match=words):
        regions_from_features(features, (0.0, 0.0))


def test_lines_are_what_each_is_alone():
    regions = [*regions_from_features([cell(n) for n in range(50)], (0.0, 0.0))]
    holed = Polygon([(0, 0), (9.05, 0), (9.5, 9), (0, 9)], [[(3, 3), (6, 3), (6, 6.01)]])
    regions += [Region(holed, class_named("Tumor: Positive"), name="\ud800", locked=True)]
    regions += [Region(holed, measurements={"a": float("inf")}, metadata={"n": "ö"})]
    for shift in ((0.0, 0.0), (10.5, 3.25)):
        lines = list(qupath_lines.feature_lines(regions, shift))
        assert [json.loads(line) for line in lines] == [
            json.loads(qupath_lines.dumped(feature_from_region(region, shift)))
            for region in regions
        ]


def test_with_and_without_orjson(tmp_path, monkeypatch):
    write_annotations(
        tmp_path / "a.geojson",
        regions_from_features([cell(n) for n in range(20)], (0.0, 0.0)),
        frame=SlideFrame(),
    )
    expected = read_annotations(tmp_path / "a.geojson")
    monkeypatch.setattr(files, "_fast", None)
    assert read_annotations(tmp_path / "a.geojson") == expected


@pytest.mark.parametrize("to", ["geojson", "asap", "imagescope", "halo", "dsa"])
def test_a_region_of_very_many_vertices(tmp_path, to):
    angle = np.linspace(0, 2 * np.pi, 200_000, endpoint=False)
    radius = 20_000 + 100 * np.sin(500 * angle)
    xy = np.column_stack([np.cos(angle), np.sin(angle)]) * radius[:, None] + 30_000
    region = Region(Polygon(np.round(xy, 2)), class_named("Tumor"))
    write_annotations(tmp_path / "a", [region], to=to)
    (again,) = read_annotations(tmp_path / "a").regions
    assert again.geometry == region.geometry
