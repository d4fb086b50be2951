"""What WSInfer and QuPath would read: columns, members, positions, exact numbers."""

from __future__ import annotations

import csv
import json
import uuid
from dataclasses import replace

import numpy as np
import pytest

from napari_histomil.annotations.geojson import read_geojson
from napari_histomil.errors import OutputError
from napari_histomil.exchange.wsinfer import write_csv, write_geojson
from napari_histomil.tiling import GridSpec


def rows_of(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def test_the_table_has_wsinfers_columns(make_run, data_dir, tmp_path):
    run = make_run(classes=("Other", "Tumor"))
    write_csv(run, tmp_path / "a.csv")
    theirs = (data_dir / "wsinfer-format/breast-tumor-resnet34.tcga-brca.csv").read_text()
    assert (tmp_path / "a.csv").read_text().splitlines()[0] == theirs.splitlines()[0]


def test_the_table_holds_footprints_and_exact_scores(make_run, tmp_path):
    run = make_run()
    count = write_csv(run, tmp_path / "a.csv")
    head, *rows = rows_of(tmp_path / "a.csv")
    assert head == ["minx", "miny", "width", "height", "prob_normal", "prob_tumor"]
    assert count == len(rows) == len(run.grid)
    boxes = np.array([[int(v) for v in row[:4]] for row in rows])
    # tiles of 48 µm every 32 µm are 96 px0 every 64 px0, begun 16 px0 before the slide
    assert boxes.min(axis=0).tolist() == [-16, -16, 96, 96]
    np.testing.assert_array_equal(boxes[:, :2], run.grid.cells[:, ::-1] * 64 - 16)
    scores = np.array([[float(v) for v in row[4:]] for row in rows]).astype(np.float32)
    np.testing.assert_array_equal(scores, run.scores)


def test_tiny_and_round_scores_come_back_exactly(make_run, tmp_path):
    plain = make_run(name="plain.zarr")
    scores = np.resize(np.float32([3.4273725e-12, 1.0, 0.1, 1e-38, 0.3333333, 0.0]), (88, 2))
    run = make_run(scores=scores[: len(plain.grid)])
    write_csv(run, tmp_path / "a.csv")
    write_geojson(run, tmp_path / "a.geojson")
    table = np.array([[float(v) for v in row[4:]] for row in rows_of(tmp_path / "a.csv")[1:]])
    np.testing.assert_array_equal(table.astype(np.float32), run.scores)
    regions = read_geojson(tmp_path / "a.geojson").regions
    measured = np.array([list(region.measurements.values()) for region in regions])
    np.testing.assert_array_equal(measured.astype(np.float32), run.scores)


def test_corners_are_rounded_each_on_its_own(make_run, tmp_path):
    run = make_run(spec=GridSpec(mpp=1.001, tile_px=32, stride_px=32))  # 64.064 px0
    write_csv(run, tmp_path / "a.csv")
    boxes = np.array([[int(v) for v in row[:4]] for row in rows_of(tmp_path / "a.csv")[1:]])
    exact = run.grid.tile_rects_px0
    assert np.abs(boxes[:, :2] - exact[:, :2]).max() <= 0.5
    assert (boxes[:, 2:] == 64).all()
    assert (boxes[:, :2] % 64 != 0).any()  # steps of 64 would have drifted away


def test_only_tiles_with_scores_are_written(make_run, tmp_path):
    run = make_run(blocks=1)
    assert not run.complete
    assert write_csv(run, tmp_path / "a.csv") == 64
    assert write_geojson(run, tmp_path / "a.geojson") == 64
    assert len(rows_of(tmp_path / "a.csv")) == 65
    empty = make_run(blocks=0, name="empty.zarr")
    assert write_csv(empty, tmp_path / "b.csv") == 0
    assert write_geojson(empty, tmp_path / "b.geojson") == 0
    assert read_geojson(tmp_path / "b.geojson").regions == ()


def test_class_names_with_commas_and_other_scripts(make_run, tmp_path):
    run = make_run(classes=("a, b", "Пухлина"))
    write_csv(run, tmp_path / "a.csv")
    assert rows_of(tmp_path / "a.csv")[0][4:] == ["prob_a, b", "prob_Пухлина"]


def test_tiles_are_wsinfers_member_for_member(make_run, tmp_path):
    run = make_run()
    write_geojson(run, tmp_path / "a.geojson")
    document = json.loads((tmp_path / "a.geojson").read_text(encoding="utf-8"))
    assert set(document) == {"type", "features", "histomil"}
    tile = int(np.flatnonzero((run.grid.cells == (2, 3)).all(axis=1))[0])
    feature = document["features"][tile]
    assert uuid.UUID(feature.pop("id")).version == 4
    x0, y0 = 3 * 64 - 16, 2 * 64 - 16
    assert feature == {
        "type": "Feature",
        "geometry": {
            "type": "Polygon",
            "coordinates": [
                [[x0 + 96, y0], [x0 + 96, y0 + 96], [x0, y0 + 96], [x0, y0], [x0 + 96, y0]]
            ],
        },
        "properties": {
            "isLocked": True,
            "measurements": {
                "prob_normal": pytest.approx(float(run.scores[tile, 0]), rel=1e-7),
                "prob_tumor": pytest.approx(float(run.scores[tile, 1]), rel=1e-7),
            },
            "objectType": "tile",
        },
    }


def test_geojson_is_cropped_to_the_bounds_and_the_table_is_not(make_run, tmp_path):
    run = make_run(bounds_px0=[100.0, 40.0, 500.0, 400.0])
    write_geojson(run, tmp_path / "a.geojson")
    write_csv(run, tmp_path / "a.csv")
    document = json.loads((tmp_path / "a.geojson").read_text(encoding="utf-8"))
    assert document["histomil"]["origin_px0"] == [100, 40]
    assert document["histomil"]["slide"]["name"] == run.slide["name"]
    first = rows_of(tmp_path / "a.csv")[1]
    corner = document["features"][0]["geometry"]["coordinates"][0][3]
    assert corner == [int(first[0]) - 100, int(first[1]) - 40]
    # read again, they are where they were on the whole slide
    regions = read_geojson(tmp_path / "a.geojson").regions
    boxes = np.array([[int(v) for v in row[:4]] for row in rows_of(tmp_path / "a.csv")[1:]])
    bounds = np.array([region.geometry.bounds for region in regions])
    np.testing.assert_array_equal(bounds[:, :2], boxes[:, :2])
    np.testing.assert_array_equal(bounds[:, 2:] - bounds[:, :2], boxes[:, 2:])
    assert len({region.id for region in regions}) == len(regions)
    assert all(region.object_type == "tile" and region.locked for region in regions)


def test_writing_again_gives_the_same_file(make_run, tmp_path):
    run = make_run()
    for name in ("a", "b"):
        write_geojson(run, tmp_path / f"{name}.geojson")
    assert (tmp_path / "a.geojson").read_bytes() == (tmp_path / "b.geojson").read_bytes()


@pytest.mark.parametrize("write", [write_csv, write_geojson])
def test_a_folder_that_does_not_exist(make_run, tmp_path, write):
    with pytest.raises(OutputError, match=r"folder .* does not exist"):
        write(make_run(), tmp_path / "none" / "a")


def test_what_fails_half_way_leaves_nothing(make_run, tmp_path, monkeypatch):
    run = make_run()
    broken = np.full(len(run.grid), object())
    monkeypatch.setattr(
        type(run), "scores", property(lambda self: np.column_stack([broken, broken]))
    )
    before = sorted(tmp_path.iterdir())
    with pytest.raises(TypeError):
        write_csv(run, tmp_path / "a.csv")
    assert sorted(tmp_path.iterdir()) == before


def test_a_slide_with_two_resolutions(make_run, tmp_path):
    run = make_run()
    run.grid = replace(run.grid, slide_mpp=(0.5, 0.25))
    write_csv(run, tmp_path / "a.csv")
    boxes = np.array([[int(v) for v in row[:4]] for row in rows_of(tmp_path / "a.csv")[1:]])
    assert np.unique(boxes[:, 2:], axis=0).tolist() == [[96, 192]]
