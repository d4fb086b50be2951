"""What CLAM would read of our patch files."""

from __future__ import annotations

import errno
import json
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from napari_histomil.errors import OutputError
from napari_histomil.exchange.clam import write_h5
from napari_histomil.tiling import GridSpec


def test_clam_finds_the_side_and_corners_of_the_patches(make_run, tmp_path):
    run = make_run()
    assert write_h5(run, tmp_path / "a.h5") == len(run.grid)
    with h5py.File(tmp_path / "a.h5") as file:
        coords = file["coords"]
        side = round(int(coords.attrs["patch_size"]) * float(coords.attrs["downsample"][0]))
        assert side == 96
        assert coords.dtype == np.int64
        assert coords.chunks == (32, 2)
        assert coords.maxshape == (None, 2)
        np.testing.assert_array_equal(coords[:], run.grid.cells[:, ::-1] * 64 - 16)
        assert coords.attrs["patch_level"] == 0
        assert coords.attrs["level_dim"].tolist() == [700, 500]
        assert coords.attrs["downsampled_level_dim"].tolist() == [700, 500]
        assert coords.attrs["name"] == "слайд [1] 50%"
        assert isinstance(coords.attrs["save_path"], str)


def test_scores_lie_beside_the_coordinates(make_run, tmp_path):
    run = make_run(classes=("a", "пухлина"))
    write_h5(run, tmp_path / "a.h5")
    with h5py.File(tmp_path / "a.h5") as file:
        np.testing.assert_array_equal(file["scores"][:], run.scores)
        assert file["scores"].dtype == np.float32
        assert file["scores"].attrs["class_names"].tolist() == ["a", "пухлина"]
        made = json.loads(file.attrs["run"])
    assert made["run"] == run.run_id
    assert (made["mpp"], made["tile_px"], made["stride_px"]) == (1.0, 48, 32)
    assert made["model_sha256"] == "cd" * 32


def test_a_side_that_is_no_whole_number_says_what_was_rounded(make_run, tmp_path):
    run = make_run(spec=GridSpec(mpp=1.003, tile_px=48, stride_px=48))
    run.grid = replace(run.grid, slide_mpp=(0.5, 0.4))
    write_h5(run, tmp_path / "a.h5")
    with h5py.File(tmp_path / "a.h5") as file:
        attributes = file["coords"].attrs
        np.testing.assert_allclose(
            attributes["patch_size_exact_px0"], [48 * 1.003 / 0.5, 48 * 1.003 / 0.4]
        )
        assert attributes["patch_size"] == 108  # the mean of 96.29 and 120.36


def test_a_run_without_scores(make_run, tmp_path):
    assert write_h5(make_run(blocks=0), tmp_path / "a.h5") == 0
    with h5py.File(tmp_path / "a.h5") as file:
        assert file["coords"].shape == (0, 2)
        assert file["scores"].shape == (0, 2)


def test_a_full_disk_is_never_left_to_hdf5(make_run, tmp_path, monkeypatch):
    """HDF5 would crash the whole process when it cannot flush."""

    def full(self, data):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OutputError, match=r"^a\.h5 cannot be written in .*: No space left"):
        write_h5(make_run(), tmp_path / "a.h5")
    assert list(tmp_path.glob("*a.*")) == []
