"""A segmentation with known objects, taken through every step and into every file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr
from shapely.geometry import Polygon, box

from napari_histomil.annotations.masks import LabelImage, LabelTable
from napari_histomil.errors import RunError
from napari_histomil.exchange import labels
from napari_histomil.exchange.labels import (
    Steps,
    after_steps,
    class_areas_mm2,
    label_bands,
    label_facts,
    outline_bands,
    regions_of,
)
from napari_histomil.exchange.probabilities import write_probabilities
from napari_histomil.manifest import ClassSpec
from napari_histomil.results import SegmentationStore, bands, segmentation
from napari_histomil.tiling import GridSpec, TileGrid

ROWS, COLUMNS, MPP = 150, 200, 2.0


@pytest.fixture(autouse=True)
def _small_bands(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (bands, segmentation, labels):
        monkeypatch.setattr(module, "BAND_PX", 32)
    monkeypatch.setattr(bands, "LANE_PX", 64)


def objects() -> np.ndarray:
    """Probabilities of background, tumour and stroma, [3, 150, 200].

    Tumour: rows 20-80, columns 30-130, with a hole of 4 x 5 px; a spot of 3 x 3 px apart from
    it. Stroma: rows 100-140, columns 10-190. Columns from 192 on were not looked at.
    """
    whole = np.zeros((3, ROWS, COLUMNS), np.float32)
    whole[1, 20:80, 30:130] = 0.8
    whole[1, 40:44, 60:65] = 0.1
    whole[1, 10:13, 150:153] = 0.9
    whole[2, 100:140, 10:190] = 0.55
    whole[0] = 1 - whole[1:].sum(axis=0)
    whole[:, :, 192:] = np.nan
    return whole


def make(path: Path, whole: np.ndarray, activation: str = "softmax") -> SegmentationStore:
    spec = GridSpec(MPP, 16, 8)
    grid = TileGrid(spec, (0.5, 0.5), (COLUMNS * 4, ROWS * 4), np.empty((0, 2), np.int32))
    cells = np.indices(grid.shape, np.int32).reshape(2, -1).T
    grid = TileGrid(spec, (0.5, 0.5), grid.slide_size_px0, cells[cells[:, 1] < 24])
    names = ["background", "Tumor", "Stroma"][: len(whole)]
    softmax = activation == "softmax"
    with SegmentationStore.create(
        path,
        run_id=path.stem,
        job={"task": "segment"},
        slide={"name": "s.svs", "fingerprint": "f" * 64, "path": "", "bounds_px0": None},
        model={
            "name": "net",
            "sha256": "0" * 64,
            "activation": activation,
            "background_class": "background" if softmax else None,
        },
        classes=[ClassSpec(name, (i, i, i)) for i, name in enumerate(names)],
        grid=grid,
    ) as store:
        for band in store.picture.bands:
            store.write_band(band, lambda part, rows=band.rows: whole[:, rows, part])
    return SegmentationStore.open(path)


@pytest.fixture
def store(tmp_path: Path) -> SegmentationStore:
    return make(tmp_path / "a.zarr", objects())


def mask(store: SegmentationStore, steps: Steps, *names: str) -> LabelImage:
    return np.concatenate(list(label_bands(store, steps, names)))


def test_labels_are_the_most_likely_class(store: SegmentationStore) -> None:
    wanted = objects()[:, :, :192].argmax(axis=0)
    found = mask(store, Steps())
    np.testing.assert_array_equal(found[:, :192], wanted)
    assert (found[:, 192:] == 255).all(), "not looked at: nothing is known"
    table = label_facts(store).table
    assert [c.name for c in table.classes] == ["Tumor", "Stroma"]
    assert table.classes[0].color == (1, 1, 1)


def test_a_threshold_leaves_out_what_is_less_likely(store: SegmentationStore) -> None:
    found = mask(store, Steps(threshold=0.6))
    assert set(np.unique(found)) == {0, 1, 255}
    assert (mask(store, Steps(threshold=0.5))[100:140, 10:190] == 2).all()
    assert set(np.unique(mask(store, Steps(), "Stroma"))) == {0, 1, 255}, "a class is 1 alone"


def test_areas_are_those_of_pixels(store: SegmentationStore) -> None:
    areas, looked_at = class_areas_mm2(store, Steps())
    assert areas["Tumor"] == pytest.approx((60 * 100 - 20 + 9) * 4e-6)
    assert areas["Stroma"] == pytest.approx(40 * 180 * 4e-6)
    assert looked_at == pytest.approx(192 * 150 * 4e-6)


def test_regions_follow_the_pixels_over_bands_and_lanes(store: SegmentationStore) -> None:
    stroma, tumour, spot = regions_of(store, Steps())
    assert (tumour.class_name, stroma.class_name) == ("Tumor", "Stroma")
    hole = box(60, 40, 65, 44)
    wanted = box(30, 20, 130, 80).difference(hole)
    assert tumour.geometry.equals(Polygon([(x * 4, y * 4) for x, y in wanted.exterior.coords],
        [[(x * 4, y * 4) for x, y in hole.exterior.coords]]))  # fmt: skip
    assert stroma.geometry.equals(box(40, 400, 760, 560))
    assert spot.geometry.equals(box(600, 40, 612, 52))
    assert {r.author for r in (stroma, tumour, spot)} == {"net"}
    assert tumour.metadata["created"].endswith("Z")


@pytest.mark.parametrize(
    ("steps", "areas_px"),
    [
        (Steps(), [7200, 5980, 9]),
        (Steps(fill_holes_um2=80), [7200, 5980, 9]),  # 20 px of 4 µm²: not under 80
        (Steps(fill_holes_um2=80.1), [7200, 6000, 9]),
        (Steps(remove_objects_um2=36), [7200, 5980, 9]),
        (Steps(remove_objects_um2=36.1), [7200, 5980]),
        (Steps(threshold=0.85), [9]),
    ],
    ids=str,
)
def test_steps_have_their_units(
    store: SegmentationStore, steps: Steps, areas_px: list[int]
) -> None:
    assert [r.geometry.area / 16 for r in regions_of(store, steps)] == areas_px
    found = mask(store, steps)
    assert (found == 1).sum() == sum(a for a in areas_px if a < 7000)


def test_smoothing_closes_notches_and_cuts_spikes() -> None:
    body = box(0, 0, 100, 100)
    spike, notch = box(40, 100, 43, 130), box(60, 80, 63, 100)
    shape = body.union(spike).difference(notch)
    (smooth,) = after_steps(shape, Steps(smooth_um=4), 2.0)  # 2 px: narrower than 4 px goes
    assert smooth.intersection(spike).area < 6
    assert notch.difference(smooth).area < 12
    assert smooth.symmetric_difference(body).area < 40
    (kept,) = after_steps(shape, Steps(smooth_um=2), 2.0)
    assert kept.intersection(spike).area > 80
    assert after_steps(box(0, 0, 3, 3), Steps(smooth_um=4), 2.0) == []


def test_labels_after_steps_know_what_was_not_looked_at(store: SegmentationStore) -> None:
    found = mask(store, Steps(fill_holes_um2=100, remove_objects_um2=40))
    assert (found[20:80, 30:130] == 1).all()
    assert (found[10:13, 150:153] == 0).all()
    assert (found[:, 192:] == 255).all()
    assert (found[100:140, 10:190] == 2).all()


def test_outlines_do_not_depend_on_bands(store: SegmentationStore) -> None:
    table = label_facts(store).table
    whole = mask(store, Steps())
    in_one = np.concatenate(list(outline_bands(iter([whole]), table)))
    in_bands = np.concatenate(list(outline_bands(label_bands(store, Steps()), table)))
    np.testing.assert_array_equal(in_bands, in_one)
    assert (in_one == 2).sum() == 2 * 40 + 2 * 180 - 4
    assert (in_one[20, 30:130] == 1).all()
    assert (in_one[22:78, 32:58] == 0).all()
    edge = np.ones((4, 4), np.uint8)
    (alone,) = outline_bands(iter([edge]), LabelTable.of([]))
    assert (alone == 0).all(), "the mask's own edge is none"


def test_several_labels_may_share_a_place(tmp_path: Path) -> None:
    whole = objects()
    whole[2, 50:140] = 0.6
    store = make(tmp_path / "b.zarr", whole[1:], "sigmoid")
    first, second, *_ = regions_of(store, Steps())
    assert first.geometry.intersection(second.geometry).area > 0
    found = mask(store, Steps())
    assert (found[60:80, 40:120] == 1).all(), "the more likely one"
    assert (found[85:140, 40:120] == 2).all()
    assert (mask(store, Steps(threshold=0.7))[85:140, :192] == 0).all()


@pytest.mark.parametrize("name", ["p.ome.tif", "p.zarr"])
def test_probabilities_are_read_by_others(
    store: SegmentationStore, tmp_path: Path, name: str
) -> None:
    path = tmp_path / name
    write_probabilities(store, path, ["Tumor", "Stroma"])
    if name == "p.zarr":
        group = zarr.open_group(path, mode="r")
        pixels, small = np.asarray(group["0"]), np.asarray(group["1"])
        labels_of = [c["label"] for c in group.attrs["ome"]["omero"]["channels"]]
        assert labels_of == ["Tumor", "Stroma"]
    else:
        with tifffile.TiffFile(path) as tiff:
            pixels, small = (level.asarray() for level in tiff.series[0].levels[:2])
            assert 'PhysicalSizeX="2.0"' in tiff.ome_metadata
            assert "net" in tiff.ome_metadata
    np.testing.assert_allclose(pixels, objects()[1:], rtol=0, atol=0.5 / 254 + 1e-6)
    assert small.shape == (2, 75, 100)
    assert small[0, 20, 32] == pytest.approx(0.4, abs=0.41)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"threshold": 1.5}, "probability of 0 to 1"),
        ({"smooth_um": -1}, "smooth_um must be 0 or more"),
        ({"remove_objects_um2": float("nan")}, "remove_objects_um2"),
    ],
)
def test_steps_that_cannot_be_are_told(change: dict[str, float], words: str) -> None:
    with pytest.raises(RunError, match=words):
        Steps(**change)


def test_unknown_classes_and_names_are_told(store: SegmentationStore, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no class 'tumour': choose one of background, Tumor"):
        regions_of(store, Steps(), ["tumour"])
    with pytest.raises(RunError, match="ends otherwise"):
        write_probabilities(store, tmp_path / "p.png")
