"""Bags of CLAM, TRIDENT and others: written as they write them, read as they lie."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from napari_histomil.errors import HistomilError, OutputError, RunError
from napari_histomil.exchange import bag_files
from napari_histomil.exchange.bag_files import write_clam, write_trident
from napari_histomil.exchange.bags import read_bag
from napari_histomil.results.bag import Bag, BagLevel, EncoderFacts, SlideFacts
from napari_histomil.slides.readers import open_slide
from napari_histomil.slides.slide import SlideInfo
from napari_histomil.tiling import GridSpec, TileGrid

COUNT, DIM = 37, 5


@pytest.fixture
def info(slide_path: Path) -> SlideInfo:
    """700 x 500 px at 0.5 µm/px."""
    with open_slide(slide_path) as slide:
        return slide.info


def features() -> NDArray[np.float16]:
    return np.random.default_rng(2).standard_normal((COUNT, DIM)).astype(np.float16)


@pytest.fixture
def bag(info: SlideInfo) -> Bag:
    """Tiles of 48 px every 32 px at 0.99 µm/px: 95.04 px of the slide."""
    grid = TileGrid.cover(info, GridSpec(0.99, 48, 32))
    grid = grid.select(np.arange(len(grid)) < COUNT)
    level = BagLevel(grid.tile_rects_px0[:, :2], grid.tile_size_px0, 0.99, features(), grid=grid)
    slide = SlideFacts(info.path.name, (700, 500), info.fingerprint, info.mpp_xy)
    return Bag((level,), slide, EncoderFacts("tiny", "ab" * 32))


def test_clam_finds_what_it_wrote_itself(bag: Bag, tmp_path: Path) -> None:
    (written,) = write_clam(bag, tmp_path / "c ü")
    name = "слайд [1] 50%"
    assert written == tmp_path / "c ü" / "h5_files" / f"{name}.h5"
    with h5py.File(written) as file:
        assert sorted(file) == ["coords", "features"]
        assert (file["features"].dtype, file["coords"].dtype) == (np.float32, np.int32)
        assert dict(file["features"].attrs) == dict(file["coords"].attrs) == {}
        np.testing.assert_array_equal(file["features"][:], features().astype(np.float32))
        corners = file["coords"][:]
    np.testing.assert_array_equal(corners, np.rint(bag.levels[0].xy_px0))
    tensor = torch.load(tmp_path / "c ü" / "pt_files" / f"{name}.pt", weights_only=True)
    assert tensor.dtype == torch.float32
    np.testing.assert_array_equal(tensor.numpy(), features().astype(np.float32))
    with h5py.File(tmp_path / "c ü" / "patches" / f"{name}.h5") as file:
        coords = file["coords"]
        assert (coords.dtype, coords.chunks, coords.maxshape) == (np.int64, (32, 2), (None, 2))
        assert round(int(coords.attrs["patch_size"]) * float(coords.attrs["downsample"][0])) == 95
        assert coords.attrs["level_dim"].tolist() == [700, 500]
        assert (coords.attrs["patch_level"], coords.attrs["name"]) == (0, name)


def test_trident_finds_what_it_wrote_itself(bag: Bag, tmp_path: Path) -> None:
    (written,) = write_trident(bag, tmp_path)
    root = tmp_path / "10x_48px_16px_overlap"
    assert written == root / "features_tiny" / "слайд [1] 50%.h5"
    with h5py.File(written) as file:
        assert (file["features"].dtype, file["coords"].dtype) == (np.float32, np.int64)
        assert file["features"].chunks == (1, DIM)
        assert file["features"].attrs["encoder"] == "tiny"
        attributes = dict(file["coords"].attrs)
    with h5py.File(root / "patches" / "слайд [1] 50%_patches.h5") as file:
        assert dict(file["coords"].attrs).keys() == attributes.keys()
    assert attributes["patch_size"] == 48
    assert attributes["patch_size_level0"] == 95
    assert attributes["overlap"] == 16
    assert attributes["target_magnification"] == 10
    assert attributes["level0_magnification"] == 20
    assert (attributes["level0_width"], attributes["level0_height"]) == (700, 500)


@pytest.mark.parametrize("write", [write_clam, write_trident])
def test_what_is_written_is_read_again(
    write: Callable[..., list[Path]], bag: Bag, info: SlideInfo, tmp_path: Path
) -> None:
    (written,) = write(bag, tmp_path)
    for path in (written, *tmp_path.rglob("*.pt")):
        again = read_bag(path, slide=info)
        (level,) = again.levels
        np.testing.assert_array_equal(np.asarray(level.features), features())
        np.testing.assert_array_equal(level.xy_px0, np.rint(bag.levels[0].xy_px0))
        np.testing.assert_allclose(level.side_px0, bag.levels[0].side_px0)
        assert level.mpp == 0.99
        assert again.encoder == bag.encoder
        assert again.slide == bag.slide
        np.testing.assert_array_equal(level.features[3:9], features()[3:9])
        np.testing.assert_array_equal(level.features[[30, 2, 2, 9]], features()[[30, 2, 2, 9]])


def test_each_magnification_has_its_folder(bag: Bag, tmp_path: Path) -> None:
    both = Bag((BagLevel(bag.levels[0].xy_px0, (400.0, 400.0), 4.0, features()), bag.levels[0]),
               bag.slide, bag.encoder)  # fmt: skip
    assert [path.parents[1].name for path in write_clam(both, tmp_path / "c")] == [
        "2.5x_50px_0px_overlap", "10x_48px_16px_overlap",
    ]  # fmt: skip
    assert len(write_trident(both, tmp_path / "t")) == 2


# --- files of others --------------------------------------------------------------------------


def hdf5(path: Path, *, attributes: dict[str, Any] | None = None, **datasets: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        for name, values in datasets.items():
            file[name] = values
        if attributes is not None:
            file["coords"].attrs.update(attributes)
    return path


def corners(count: int = COUNT, step: int = 64) -> NDArray[np.int64]:
    return np.array([(i % 10 * step, i // 10 * step) for i in range(count)])


def test_clam_at_a_lower_level_counts_its_downsample(info: SlideInfo, tmp_path: Path) -> None:
    attributes = {
        "patch_size": 16, "patch_level": 1, "downsample": np.array([4.0, 4.0]),
        "level_dim": np.array([175, 125]), "downsampled_level_dim": np.array([175, 125]),
        "name": "s", "save_path": "x",
    }  # fmt: skip
    hdf5(tmp_path / "patches" / "s.h5", coords=corners(), attributes=attributes)
    path = hdf5(
        tmp_path / "FEATURES" / "h5_files" / "s.h5",
        features=features().astype(np.float32),
        coords=corners().astype(np.int32),
    )
    (level,) = read_bag(path, slide=info).levels
    assert level.side_px0 == (64, 64)
    assert level.mpp == 2.0, "four times that of the slide"
    hdf5(tmp_path / "patches" / "s.h5", coords=corners()[::-1], attributes=attributes)
    with pytest.raises(RunError, match="do not hold the same tiles"):
        read_bag(path, slide=info)


def test_trident_without_our_members(info: SlideInfo, tmp_path: Path) -> None:
    attributes = {
        "patch_size": 32, "patch_size_level0": 64, "level0_magnification": 20,
        "target_magnification": 10, "overlap": 0, "name": "s", "savetodir": "/x",
        "level0_width": 700, "level0_height": 500,
    }  # fmt: skip
    path = hdf5(
        tmp_path / "features_uni_v1" / "s.h5",
        features=features().astype(np.float32), coords=corners(), attributes=attributes,
    )  # fmt: skip
    bag = read_bag(path, slide=info)
    assert bag.encoder == EncoderFacts("uni_v1")
    assert (bag.levels[0].side_px0, bag.levels[0].mpp) == ((64, 64), 1.0)
    alone = read_bag(path)
    assert (alone.slide.size_px0, alone.levels[0].mpp) == ((700, 500), None)
    hdf5(
        path, features=features(), coords=corners(),
        attributes={**attributes, "level0_width": 800},
    )  # fmt: skip
    with pytest.raises(RunError, match=r"of a slide of 800 x 500 px, and .* has 700 x 500"):
        read_bag(path, slide=info)


def test_features_of_tcga_without_a_tile_size(data_dir: Path) -> None:
    path = data_dir / "mil-features-tcga-crc" / "TCGA-AD-6964-01Z-00-DX1" / "features.h5"
    with pytest.raises(RunError, match=r"\(--tile-px0\); they lie 512 px apart"):
        read_bag(path)
    bag = read_bag(path, side_px0=512, mpp=0.5, encoder="mopadi")
    (level,) = bag.levels
    assert (len(level), level.dim, level.mpp) == (777, 512, 0.5)
    with h5py.File(path) as file:
        np.testing.assert_array_equal(level.features[700:], file["feats"][700:])
        np.testing.assert_array_equal(level.xy_px0, file["coords"][:])
    with open_slide(data_dir / "wsi-aperio-svs" / "CMU-1-Small-Region.svs") as slide:
        small = slide.info
    with pytest.raises(RunError, match=r"777 of 777 tiles .* lie beyond"):
        read_bag(path, slide=small, side_px0=512)


def test_tables_of_tensors_are_read_too(tmp_path: Path) -> None:
    table = {"feats": torch.tensor(features()).bfloat16(), "coords": torch.tensor(corners())}
    torch.save(table, tmp_path / "s.pt")
    (level,) = read_bag(tmp_path / "s.pt", side_px0=64).levels
    np.testing.assert_allclose(np.asarray(level.features), features(), rtol=1e-2)


class Trap:
    """What a pickle could do."""

    def __reduce__(self) -> tuple[object, ...]:
        return (exec, ("raise SystemExit('code of a pickle was run')",))


def _broken(name: str, folder: Path) -> Path:
    f, c = features(), corners()
    path = folder / f"{name}.h5"
    if name == "missing":
        return path
    if name == "picture":
        return Path(__file__)
    if name == "pickle":
        torch.save(Trap(), folder / "x.pt")
        return folder / "x.pt"
    if name == "tensor alone":
        torch.save(torch.tensor(f), folder / "x.pt")
        return folder / "x.pt"
    if name == "no hdf5":
        path.write_bytes(b"nothing")
        return path
    return hdf5(
        path,
        **{
            "scores": {"coords": c, "scores": f},
            "slide vector": {"coords": c, "features": f[0]},
            "three axes": {"coords": c, "features": f[None]},
            "fewer": {"coords": c[1:], "features": f},
            "no places": {"features": f},
            "empty": {"coords": c[:0], "features": f[:0]},
        }[name],
    )


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("missing", "There is no file"),
        ("picture", "is no file of features"),
        ("pickle", "more than tensors"),
        ("tensor alone", r"does not say where its tiles lie.*patches/x\.h5"),
        ("no hdf5", "cannot be read as HDF5"),
        ("scores", r"no dataset features or feats \(it has coords, scores\)"),
        ("slide vector", "one vector of 5 values, of the slide as a whole"),
        ("three axes", "features of the shape"),
        ("fewer", "37 rows of features and coordinates of the shape"),
        ("no places", "does not say where its tiles lie"),
        ("empty", "holds no tile"),
    ],
)
def test_what_is_no_bag_is_a_sentence(name: str, why: str, tmp_path: Path) -> None:
    with pytest.raises(RunError) as caught:
        read_bag(_broken(name, tmp_path), side_px0=64)
    assert re.search(why, str(caught.value))
    assert "\n" not in str(caught.value)


def test_contradictions_are_told(bag: Bag, info: SlideInfo, tmp_path: Path) -> None:
    (path,) = write_trident(bag, tmp_path)
    with pytest.raises(RunError, match=r"side of 95\.04 px .* and 128 was given"):
        read_bag(path, side_px0=128)
    with pytest.raises(RunError, match=r"have 0\.99 µm/px, and 0\.5 was given"):
        read_bag(path, mpp=0.5)
    with h5py.File(path, "r+") as file:
        own = {**json.loads(file.attrs["bag"]), "slide_fingerprint": "0" * 64}
        file.attrs["bag"] = json.dumps(own)
    with pytest.raises(RunError, match="of another slide"):
        read_bag(path, slide=info)


def test_a_full_disk_and_a_folder_that_cannot_be_made_are_told(
    bag: Bag, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(HistomilError, match="cannot be made"):
        write_clam(bag, tmp_path / "file")
    usage = bag_files.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(bag_files.shutil, "disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(OutputError, match="has room for 0 MB"):
        write_trident(bag, tmp_path / "t")
    assert not list((tmp_path / "t").rglob("*.h5")), "nothing half-written is left"
