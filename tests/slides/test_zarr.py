"""The OME-Zarr reader, both versions of the specification."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from napari_histomil.errors import SlideError
from napari_histomil.slides.readers import open_slide
from tests.slides.conftest import halves, picture
from tests.slides.contract import SlideContract

ODD = halves(picture(301, 207), 2)


def write_zarr(
    path: Path,
    levels: list[np.ndarray],
    axes: str,
    *,
    version: str = "0.5",
    scale: float = 0.5,
    unit: str | None = "micrometer",
    omero: dict[str, Any] | None = None,
    shards: bool = False,
    extra: float = 1.0,
    compressors: Any = "auto",
    fill: int = 0,
) -> Path:
    """Write arrays of the given axes as an OME-Zarr image with chunks of 64 px."""
    format_ = 2 if version == "0.4" else 3
    group = zarr.create_group(path, zarr_format=format_)
    datasets = []
    for index, level in enumerate(levels):
        chunks = tuple(64 if axis in "yx" else 1 for axis in axes)
        array = group.create_array(
            str(index), shape=level.shape, dtype=level.dtype, chunks=chunks,
            shards=tuple(256 if axis in "yx" else 1 for axis in axes) if shards else None,
            compressors=compressors, fill_value=fill,
        )  # fmt: skip
        array[...] = level
        factors = [scale * 2**index if axis in "yx" else 1.0 for axis in axes]
        transform = {"type": "scale", "scale": factors}
        datasets.append({"path": str(index), "coordinateTransformations": [transform]})
    kinds = {"c": "channel", "t": "time"}
    described = [{"name": axis, "type": kinds.get(axis, "space")} for axis in axes]
    for axis in described:
        if axis["name"] in "xy" and unit is not None:
            axis["unit"] = unit
    multiscales = {"axes": described, "datasets": datasets, "name": "test"}
    if extra != 1:
        factors = [extra if axis in "yx" else 1.0 for axis in axes]
        multiscales["coordinateTransformations"] = [{"type": "scale", "scale": factors}]
    metadata: dict[str, Any] = {"multiscales": [multiscales]}
    if omero is not None:
        metadata["omero"] = omero
    if version == "0.4":
        multiscales["version"] = "0.4"
        group.attrs.update(metadata)
    else:
        group.attrs["ome"] = {"version": "0.5"} | metadata
    return path


def channels_first(levels: list[np.ndarray]) -> list[np.ndarray]:
    return [level.transpose(2, 0, 1) for level in levels]


class TestVersion5(SlideContract):
    reader = "zarr"
    truth = ODD

    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        return write_zarr(tmp_path / "new.zarr", channels_first(ODD), "cyx")

    def test_what_the_metadata_say(self, path: Path):
        with open_slide(path) as slide:
            assert slide.info.reader == "zarr"
            assert slide.info.mpp_xy == (0.5, 0.5)
            assert slide.info.composite == ""
            assert slide.info.channels == ("red", "green", "blue")


class TestVersion4WithTimeAndDepth(SlideContract):
    reader = "zarr"
    truth = ODD

    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        arrays = [level[None, :, None] for level in channels_first(ODD)]
        return write_zarr(tmp_path / "old folder [1].zarr", arrays, "tczyx", version="0.4")


class TestChannelsLastInShards(SlideContract):
    reader = "zarr"
    truth = ODD[:1]

    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        return write_zarr(tmp_path / "last.ome.zarr", ODD[:1], "yxc", shards=True)


@pytest.mark.parametrize(
    ("unit", "scale", "extra", "mpp"),
    [
        ("micrometer", 0.25, 1.0, 0.25),
        ("nanometer", 250.0, 1.0, 0.25),
        ("millimeter", 0.00025, 1.0, 0.25),
        ("micrometer", 0.25, 2.0, 0.5),
        (None, 0.25, 1.0, None),
        ("parsec", 0.25, 1.0, None),
        ("micrometer", 0.0, 1.0, None),
    ],
)
def test_mpp_in_any_unit(
    tmp_path: Path, unit: str | None, scale: float, extra: float, mpp: object
):
    path = write_zarr(
        tmp_path / "a.zarr", channels_first(ODD[:1]), "cyx", unit=unit, scale=scale, extra=extra
    )
    with open_slide(path) as slide:
        assert slide.info.mpp_x == (pytest.approx(mpp) if mpp else None)


def test_fluorescence_as_omero_describes_it(tmp_path: Path):
    stack = np.zeros((2, 64, 64), np.uint16)
    stack[0, :, :32], stack[1, 32:] = 500, 3000
    omero = {
        "channels": [
            {"label": "DAPI", "color": "0000FF", "window": {"start": 0, "end": 1000}},
            {"label": "CD3", "color": "FFFF00", "window": {"start": 1000, "end": 2000}},
        ]
    }
    path = write_zarr(tmp_path / "a.zarr", [stack], "cyx", omero=omero)
    with open_slide(path) as slide:
        assert slide.info.channels == ("DAPI", "CD3")
        assert slide.info.composite == (
            "added in colours: DAPI 0 to 1000 in #0000ff; CD3 1000 to 2000 in #ffff00"
        )
        found = slide.read_region((0, 0), 0, (64, 64))
    assert found[0, 0].tolist() == [0, 0, 128]
    assert found[63, 63].tolist() == [255, 255, 0]
    assert found[0, 63].tolist() == [0, 0, 0]


def test_grey_without_a_stated_range(tmp_path: Path):
    values = np.linspace(100, 900, 64 * 64).reshape(64, 64).astype(np.float32)
    path = write_zarr(tmp_path / "a.zarr", [values], "yx")
    with open_slide(path) as slide:
        assert slide.info.composite.startswith("grey: ")
        found = slide.read_region((0, 0), 0, (64, 64))
    assert found[0, 0].tolist() == [0, 0, 0]
    assert found[-1, -1].tolist() == [255, 255, 255]


def test_of_layers_the_middle_one_is_shown_and_said(tmp_path: Path):
    stack = np.stack([np.full((64, 64), value, np.uint8) for value in (10, 20, 30)])
    path = write_zarr(tmp_path / "a.zarr", [stack], "zyx")
    with open_slide(path) as slide:
        assert "position 2 of 3 along Z" in slide.info.composite
        assert (slide.read_region((0, 0), 0, (9, 9)) == 20).all()


def test_of_a_collection_the_first_image_is_opened(tmp_path: Path):
    root = tmp_path / "collection.zarr"
    zarr.create_group(root, zarr_format=3, attributes={"ome": {"bioformats2raw.layout": 3}})
    write_zarr(root / "0", channels_first(ODD), "cyx")
    with open_slide(root) as slide:
        assert (slide.info.width_px0, slide.info.height_px0) == (301, 207)
        np.testing.assert_array_equal(slide.read_region((0, 0), 0, (301, 207)), ODD[0])


def test_the_fingerprint_is_of_the_content(tmp_path: Path):
    prints = []
    for name, levels in (("a", ODD), ("b", ODD), ("c", halves(picture(301, 207, seed=5), 2))):
        path = write_zarr(tmp_path / f"{name}.zarr", channels_first(levels), "cyx")
        with open_slide(path) as slide:
            prints.append(slide.info.fingerprint)
    assert prints[0] == prints[1] != prints[2]


def test_a_missing_level_is_one_sentence(tmp_path: Path):
    path = write_zarr(tmp_path / "a.zarr", channels_first(ODD), "cyx")
    (path / "1" / "zarr.json").unlink()
    with pytest.raises(SlideError, match=r"a\.zarr is no OME-Zarr image, or parts"):
        open_slide(path)


@pytest.mark.parametrize(
    "change",
    [
        lambda ome: ome.pop("multiscales"),
        lambda ome: ome["multiscales"].clear(),
        lambda ome: ome["multiscales"][0].pop("datasets"),
        lambda ome: ome["multiscales"][0]["axes"].pop(),
        lambda ome: ome["multiscales"][0].update(axes=7),
        lambda ome: ome["multiscales"][0]["datasets"][0].update(path="../../elsewhere"),
        lambda ome: ome["multiscales"][0]["datasets"][0].update(coordinateTransformations=[3]),
    ],
)
def test_damaged_metadata_are_one_sentence(tmp_path: Path, change: Any):
    path = write_zarr(tmp_path / "a.zarr", channels_first(ODD[:1]), "cyx")
    document = json.loads((path / "zarr.json").read_text())
    document.pop("consolidated_metadata", None)
    change(document["attributes"]["ome"])
    (path / "zarr.json").write_text(json.dumps(document))
    with pytest.raises(SlideError, match=r"a\.zarr is no OME-Zarr image") as caught:
        open_slide(path)
    assert "\n" not in str(caught.value)


def test_no_json_is_one_sentence(tmp_path: Path):
    path = tmp_path / "a.zarr"
    path.mkdir()
    (path / "zarr.json").write_text("{")
    with pytest.raises(SlideError, match=r"a\.zarr is no OME-Zarr image"):
        open_slide(path)


def test_zarr_that_is_no_image_says_what_it_is(tmp_path: Path):
    zarr.open_group(tmp_path / "a.zarr", mode="w")
    with pytest.raises(SlideError, match=r"a\.zarr is no OME-Zarr image: it does not say"):
        open_slide(tmp_path / "a.zarr")
    zarr.open_group(tmp_path / "b.zarr", mode="w").attrs["histomil"] = {"run_id": "b"}
    with pytest.raises(SlideError, match=r"b\.zarr is a stored run, not a slide"):
        open_slide(tmp_path / "b.zarr")


def test_a_damaged_chunk_says_where(tmp_path: Path):
    path = write_zarr(tmp_path / "a.zarr", channels_first(ODD[:1]), "cyx")
    (path / "0" / "c" / "1" / "1" / "2").write_bytes(b"nonsense")
    with open_slide(path) as slide:
        with pytest.raises(SlideError, match=r"a\.zarr cannot be read at \(128, 64\) of level 0"):
            slide.read_region((130, 70), 0, (5, 5))
        np.testing.assert_array_equal(slide.read_region((0, 0), 0, (64, 64)), ODD[0][:64, :64])


@pytest.mark.parametrize("axes", ["tczyx", "czyx", "cyx", "yx"])
@pytest.mark.parametrize(
    "compressors",
    [None, zarr.codecs.ZstdCodec(), zarr.codecs.GzipCodec(), zarr.codecs.BloscCodec(cname="lz4")],
    ids=["raw", "zstd", "gzip", "blosc"],
)
def test_axes_and_compressors(tmp_path: Path, axes: str, compressors: Any):
    color = "c" in axes
    level = ODD[0].transpose(2, 0, 1) if color else ODD[0][..., 0]
    shape = tuple({"y": 207, "x": 301, "c": 3}.get(axis, 1) for axis in axes)
    path = write_zarr(tmp_path / "a.zarr", [level.reshape(shape)], axes, compressors=compressors)
    with open_slide(path) as slide:
        wanted = ODD[0] if color else np.repeat(ODD[0][..., :1], 3, axis=2)
        np.testing.assert_array_equal(slide.read_region((0, 0), 0, (301, 207)), wanted)


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize("fill", [0, 200])
def test_chunks_that_are_not_stored_have_the_fill_value(tmp_path: Path, version: str, fill: int):
    path = tmp_path / "a.zarr"
    write_zarr(path, channels_first(ODD[:1]), "cyx", version=version, fill=fill)
    for channel in range(3):
        key = f"0/{channel}.1.2" if version == "0.4" else f"0/c/{channel}/1/2"
        (path / key).unlink()
    wanted = ODD[0].copy()
    wanted[64:128, 128:192] = fill
    with open_slide(path) as slide:
        np.testing.assert_array_equal(slide.read_region((0, 0), 0, (301, 207)), wanted)


def test_channels_that_are_switched_off_add_nothing(tmp_path: Path):
    window = {"start": 0, "end": 255}
    omero = {
        "channels": [
            {"label": "DAPI", "color": "0000FF", "window": window, "active": True},
            {"label": "other", "color": "FF0000", "window": window, "active": False},
        ]
    }
    stack = np.full((2, 64, 64), 255, np.uint8)
    path = write_zarr(tmp_path / "a.zarr", [stack], "cyx", omero=omero)
    with open_slide(path) as slide:
        assert slide.info.channels == ("DAPI", "other")
        assert slide.read_region((0, 0), 0, (1, 1)).tolist() == [[[0, 0, 255]]]
