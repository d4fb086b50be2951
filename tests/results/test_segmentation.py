from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import zarr

from napari_histomil.errors import OutputError, RunError
from napari_histomil.manifest import ClassSpec
from napari_histomil.results import RunStore, SegmentationStore, bands, segmentation
from napari_histomil.results.segmentation import from_stored, to_stored
from napari_histomil.tiling import GridSpec, TileGrid

CLASSES = (ClassSpec("normal", (90, 90, 180)), ClassSpec("tumor", (200, 0, 0)))


@pytest.fixture(autouse=True)
def _small_bands(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (bands, segmentation):
        monkeypatch.setattr(module, "BAND_PX", 32)
    monkeypatch.setattr(bands, "LANE_PX", 64)


def make(path: Path) -> SegmentationStore:
    """A picture of 101 x 83 px at 2 µm/px of a slide at 0.5, cells of 24 px, two left out."""
    grid = TileGrid(GridSpec(2.0, 40, 24, 4), (0.5, 0.5), (403, 330), np.empty((0, 2), np.int32))
    cells = np.indices(grid.shape, np.int32).reshape(2, -1).T[::-1]
    cells = cells[~((cells[:, 0] == 0) & (cells[:, 1] < 2))]
    return SegmentationStore.create(
        path,
        run_id=path.stem,
        job={"task": "segment"},
        slide={"name": "s.svs", "fingerprint": "f" * 64, "path": ""},
        model={"name": "m"},
        classes=CLASSES,
        grid=TileGrid(grid.spec, grid.slide_mpp, grid.slide_size_px0, cells),
    )


def fill(store: SegmentationStore, count: int | None = None) -> np.ndarray:
    """Write bands of a smooth picture; returns it, [C, rows, columns], NaN where not known."""
    rows, columns = store.picture.shape
    y, x = np.indices((rows, columns)) / 128
    whole = np.stack([y, x]).astype(np.float32)
    whole[:, ~store.picture.known(slice(0, rows), slice(0, columns))] = np.nan
    for band in store.picture.bands[:count]:
        store.write_band(band, lambda part, rows=band.rows: whole[:, rows, part])
    return whole


def test_a_picture_is_read_as_it_was_written(tmp_path: Path) -> None:
    with make(tmp_path / "a.zarr") as store:
        whole = fill(store)
    again = SegmentationStore.open(tmp_path / "a.zarr")
    assert again.picture.shape == (83, 101)
    assert again.complete
    assert again.done_tiles.all()
    assert again.class_names == ("normal", "tumor")
    assert again.grid.spec == GridSpec(2.0, 40, 24, 4)
    read = from_stored(again.strip(slice(0, 83)))
    np.testing.assert_array_equal(np.isnan(read), np.isnan(whole))
    np.testing.assert_allclose(read, whole, rtol=0, atol=0.5 / 254 + 1e-6)
    assert np.isnan(read[:, :24, :48]).all()


def test_a_half_a_certainty_and_nothing_are_stored_exactly() -> None:
    values = np.array([0, 0.5, 1, np.nan], np.float32)
    np.testing.assert_array_equal(from_stored(to_stored(values)), values)


def test_coarser_levels_are_means_of_what_is_known(tmp_path: Path) -> None:
    """Over the edges of lanes and bands too."""
    with make(tmp_path / "a.zarr") as store:
        whole = fill(store)
        assert store.level_shapes == [(83, 101), (42, 51), (21, 26)]
        for level in (1, 2):
            step = 2**level
            padded = np.pad(
                whole, ((0, 0), (0, -83 % step), (0, -101 % step)), constant_values=np.nan
            )
            _, rows, columns = padded.shape
            cut = padded.reshape(2, rows // step, step, columns // step, step)
            known = np.isfinite(cut).sum(axis=(2, 4))
            with np.errstate(invalid="ignore"):
                wanted = np.nansum(cut, axis=(2, 4)) / known
            read = from_stored(np.asarray(store.levels[level][:]))
            np.testing.assert_allclose(read, wanted, rtol=0, atol=0.5 / 254 + 1e-6)


def test_others_read_it_as_ome_zarr(tmp_path: Path) -> None:
    make(tmp_path / "a.zarr").close()
    group = zarr.open_group(tmp_path / "a.zarr", mode="r")
    (image,) = group.attrs["ome"]["multiscales"]
    assert [axis["name"] for axis in image["axes"]] == ["c", "y", "x"]
    assert [d["path"] for d in image["datasets"]] == ["0", "1", "2"]
    scale, shift = image["datasets"][1]["coordinateTransformations"]
    assert scale["scale"] == [1, 4, 4]
    assert shift["translation"] == [0, 1.75, 1.75], "first centre: 2 µm less half a slide pixel"
    channels = group.attrs["ome"]["omero"]["channels"]
    assert [c["color"] for c in channels] == ["5A5AB4", "C80000"]


def test_a_reader_sees_what_is_written_meanwhile(tmp_path: Path) -> None:
    with make(tmp_path / "a.zarr") as store:
        reader = SegmentationStore.open(tmp_path / "a.zarr")
        assert not reader.done_bands.any()
        fill(store, 2)
        assert reader.done_bands.tolist() == [True] * 2 + [False] * (len(reader.picture.bands) - 2)
        assert 0 < reader.done_tiles.sum() < len(reader.grid)
        with pytest.raises(RunError, match="another process"):
            SegmentationStore.open(tmp_path / "a.zarr", writable=True)


@pytest.mark.parametrize("level", ["0", "2"])
@pytest.mark.parametrize("how", ["torn", "flipped", "gone"])
def test_a_band_that_is_damaged_is_done_again(tmp_path: Path, level: str, how: str) -> None:
    with make(tmp_path / "a.zarr") as store:
        fill(store)
    chunk = tmp_path / "a.zarr" / level / "c" / "1" / "0" / "0"
    data = chunk.read_bytes()
    if how == "gone":
        chunk.unlink()
    else:
        middle = len(data) // 2
        flipped = data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]
        chunk.write_bytes(data[:middle] if how == "torn" else flipped)
    if level == "0" and how != "gone":
        with pytest.raises(RunError, match="run its job again"):
            SegmentationStore.open(tmp_path / "a.zarr").strip(slice(0, 83))
    with SegmentationStore.open(tmp_path / "a.zarr", writable=True) as store:
        assert not store.done_bands[0]
        assert level != "0" or store.done_bands[1:].all()
        whole = fill(store)
    read = SegmentationStore.open(tmp_path / "a.zarr")
    assert read.complete
    coarse = from_stored(np.asarray(read.levels[2][:]))
    assert np.isfinite(coarse[:, 8:]).all()
    np.testing.assert_array_equal(read.strip(slice(0, 83)), to_stored(whole))


def test_each_kind_of_run_refuses_the_other(tmp_path: Path) -> None:
    make(tmp_path / "a.zarr").close()
    with pytest.raises(RunError, match="is a segmentation"):
        RunStore.open(tmp_path / "a.zarr")
    grid = TileGrid(GridSpec(1.0, 8, 8), (1.0, 1.0), (8, 8), np.zeros((1, 2), np.int32))
    slide = {"name": "s", "fingerprint": "f", "path": ""}
    patches = RunStore.create(
        tmp_path / "b.zarr", run_id="b", job={"task": "classify"}, slide=slide, model={},
        classes=CLASSES, grid=grid,
    )  # fmt: skip
    patches.close()
    with pytest.raises(RunError, match="no segmentation"):
        SegmentationStore.open(tmp_path / "b.zarr")


def test_a_full_disk_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with make(tmp_path / "a.zarr") as store:

        def full(*_: object) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(segmentation, "to_stored", full)
        with pytest.raises(OutputError, match="No space left"):
            fill(store, 1)
        assert not store.done_bands.any()


def test_a_picture_of_another_size_is_damage(tmp_path: Path) -> None:
    make(tmp_path / "a.zarr").close()
    group = zarr.open_group(tmp_path / "a.zarr", mode="r+")
    del group["1"]
    with pytest.raises(RunError, match="is damaged: it lacks"):
        SegmentationStore.open(tmp_path / "a.zarr")


def test_tiles_that_touch_cells_are_those_that_overlap_them(tmp_path: Path) -> None:
    """Inner squares of 32 px reach 4 px beyond their cell of 24 px at each side."""
    with make(tmp_path / "a.zarr") as store:
        picture = store.picture
        chosen = (picture.grid.cells == (1, 2)).all(axis=1)
        y, x = 24, 48
        corners = np.array([picture.corner(tile) for tile in range(len(store.grid))])
        overlap = (corners < (y + 24, x + 24)) & (corners + 32 > (y, x))
        np.testing.assert_array_equal(picture.tiles_touching(chosen), overlap.all(axis=1))
        pixels = picture.pixels(picture.cells_image(chosen), slice(0, 83), slice(0, 101))
        assert pixels[y : y + 24, x : x + 24].all()
        assert pixels.sum() == 24 * 24


def test_background_is_written_as_a_picture_of_it_would_be(tmp_path: Path) -> None:
    stores = [make(tmp_path / f"{name}.zarr") for name in "ab"]
    for store in stores:
        store._attributes["model"]["background_class"] = "normal"
    left_out = np.ones(len(stores[0].grid), bool)
    for band in stores[0].picture.bands:
        known = stores[0].picture.known(band.rows, band.columns)
        one_or_none = np.where(known, np.array([1, 0], np.float32)[:, None, None], np.nan)
        left = band.columns.start
        stores[0].write_band(
            band,
            lambda part, all_of_it=one_or_none, left=left: all_of_it[
                :, :, part.start - left : part.stop - left
            ].astype(np.float32),
        )
        stores[1].write_background(band)
    stores[1].set_chain({"tiles": 3, "seconds": {"detect": 1.5}}, left_out)
    for a, b in zip(stores[0].levels, stores[1].levels, strict=True):
        np.testing.assert_array_equal(a[:], b[:])
    for store in stores:
        store.close()
    again = SegmentationStore.open(tmp_path / "b.zarr", writable=True)
    assert again.complete
    assert again.chain == {"tiles": 3, "seconds": {"detect": 1.5}}
    assert again.stage_seconds == {"detect": 1.5, "segment": 0}
    np.testing.assert_array_equal(again.left_out, left_out)
    assert SegmentationStore.open(tmp_path / "a.zarr").left_out is None
    again.close()
