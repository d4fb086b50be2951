"""Opening: every real file opens or is refused with one good sentence; names and answers."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from napari_histomil.errors import SlideError
from napari_histomil.slides.readers import open_slide
from napari_histomil.slides.remembered import remember_mpp
from tests.slides.conftest import halves, picture, write_pyramid

OPENED = {
    "wsi-aperio-svs/CMU-1-Small-Region.svs": ("tiff", 2220, 2967, 0.499),
    "wsi-hamamatsu-ndpi/test3-DAPI-2-387.ndpi": ("ndpi", 3968, 4864, 0.2281751),
    "wsi-dicom-camelyon-thumb/multi_frame_jpeg_camelyon_challenge_image.dcm": (
        "openslide", 1152, 700, 28.9685,
    ),
    "wsi-dicom-highdicom/sm_image.dcm": ("openslide", 50, 50, 0.499),
    "wsi-dicom-highdicom/sm_image_jpegls.dcm": ("wsidicom", 50, 50, 0.499),
    "wsi-ome-tiff/OS-1-detail.ome.tif": ("tiff", 1101, 1101, 0.2271),
}  # fmt: skip

REFUSED = {
    "wsi-broken/broken.svs": "not a slide",
    "wsi-dicom-highdicom/seg_image_sm_control.dcm": "segmentation",
    "wsi-dicom-highdicom/sm_annotations.dcm": "annotations",
}


@pytest.fixture
def small(tmp_path: Path) -> Path:
    levels = halves(picture(300, 200), 1)
    return write_pyramid(tmp_path / "small.tif", levels, compression="deflate")


def sentence(path: Path, **options: object) -> str:
    """Return the one sentence with which a file is refused."""
    with pytest.raises(SlideError) as caught:
        open_slide(path, **options)
    text = str(caught.value)
    assert "\n" not in text
    assert path.name in text
    assert text.endswith(".")
    assert 30 < len(text) < 300
    return text


@pytest.mark.parametrize("name", OPENED)
def test_real_files_open(data_dir: Path, name: str):
    reader, width, height, mpp = OPENED[name]
    with open_slide(data_dir / name) as slide:
        info = slide.info
        assert (info.reader, info.width_px0, info.height_px0) == (reader, width, height)
        assert info.mpp == pytest.approx(mpp, abs=1e-4)
        assert info.mpp_source == "file"
        for index, level in enumerate(info.levels):
            middle = info.width_px0 // 2, info.height_px0 // 2
            region = slide.read_region(middle, index, (20, 20))
            assert region.shape == (20, 20, 3)
            if level.width > 100:
                assert np.ptp(slide.read_region((0, 0), index, (level.width, level.height))) > 50


@pytest.mark.parametrize("name", REFUSED)
def test_real_files_that_are_no_slides(data_dir: Path, name: str):
    assert REFUSED[name] in sentence(data_dir / name)


def test_every_real_file_is_accounted_for(data_dir: Path):
    files = {path.relative_to(data_dir).as_posix() for path in data_dir.glob("wsi-*/*")}
    dicom = {name for name in files if name.startswith("wsi-dicom-cmu1-small/")}
    assert len(dicom) == 12
    assert files - dicom == set(OPENED) | set(REFUSED)


def test_a_missing_file(tmp_path: Path):
    assert "There is no file" in sentence(tmp_path / "missing.svs")


def test_an_empty_file(tmp_path: Path):
    (tmp_path / "empty.svs").touch()
    assert "0 bytes" in sentence(tmp_path / "empty.svs")


def test_a_git_lfs_pointer(tmp_path: Path):
    path = tmp_path / "pointer.svs"
    path.write_text(
        "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935\nsize 12345\n"
    )
    assert "git lfs pull" in sentence(path)


def test_a_folder_that_is_no_slide(tmp_path: Path):
    folder = tmp_path / "folder.svs"
    folder.mkdir()
    assert "is a folder" in sentence(folder)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes on this system")
def test_a_pipe_is_not_waited_for(tmp_path: Path):
    pipe = tmp_path / "pipe.svs"
    os.mkfifo(pipe)
    assert "neither a file nor a folder" in sentence(pipe)


def test_the_folder_of_a_mirax_slide(tmp_path: Path):
    folder = tmp_path / "case 7"
    folder.mkdir()
    (folder / "Slidedat.ini").write_text("[GENERAL]")
    assert "open the file case 7.mrxs" in sentence(folder)


def test_a_mirax_file_without_its_folder(tmp_path: Path):
    path = tmp_path / "lonely.mrxs"
    path.write_bytes(b"\xff\xd8\xff\xe0" + bytes(100))
    assert "Slidedat.ini" in sentence(path)


def test_a_text_file(tmp_path: Path):
    path = tmp_path / "notes.txt"
    path.write_text("tissue looks fine")
    assert "not a slide" in sentence(path)


def test_a_truncated_aperio_file(tmp_path: Path, data_dir: Path):
    content = (data_dir / "wsi-aperio-svs" / "CMU-1-Small-Region.svs").read_bytes()
    path = tmp_path / "cut.svs"
    for share in (0.01, 0.3, 0.9, 0.999):
        path.write_bytes(content[: int(share * len(content))])
        assert "truncated" in sentence(path)


def test_a_truncated_ndpi_file(tmp_path: Path, data_dir: Path):
    content = (data_dir / "wsi-hamamatsu-ndpi" / "test3-DAPI-2-387.ndpi").read_bytes()
    path = tmp_path / "cut.ndpi"
    path.write_bytes(content[: len(content) // 2])
    sentence(path)


def test_the_folder_in_which_one_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    for path in (Path(), Path("")):
        assert sentence(path).startswith(f"{tmp_path.name} is a folder, but neither")


def test_an_unknown_reader(small: Path):
    text = sentence(small, reader="bioformats")
    assert "choose one of tiff, ndpi, openslide, zarr, wsidicom" in text


def test_a_forced_reader_that_cannot(small: Path, data_dir: Path):
    assert "folder" in sentence(small, reader="zarr")
    dicom = data_dir / "wsi-dicom-cmu1-small"
    for reader in ("tiff", "ndpi", "zarr"):
        assert f"is DICOM, which the reader '{reader}' cannot read" in sentence(
            dicom, reader=reader
        )
    broken = data_dir / "wsi-broken" / "broken.svs"
    assert "is no TIFF, so the reader 'ndpi'" in sentence(broken, reader="ndpi")
    sentence(data_dir / "wsi-ome-tiff" / "OS-1-detail.ome.tif", reader="openslide")


@pytest.mark.parametrize("mpp", [0, -1, float("nan"), 1e9, (0.5,), (0.5, 0.5, 0.5), (0.5, 0), "x"])
def test_a_given_mpp_that_cannot_be(small: Path, mpp: object):
    assert "cannot be the µm/px" in sentence(small, mpp=mpp)


@pytest.mark.parametrize(
    "name", ["with space.svs", "Probe Nº 7 [2] (größer) 标本.svs", "no extension", "a.b.c.svs"]
)
def test_any_name(tmp_path: Path, data_dir: Path, name: str):
    for source in ("wsi-aperio-svs/CMU-1-Small-Region.svs", "wsi-dicom-highdicom/sm_image.dcm"):
        folder = tmp_path / f"Ordner [µ] ({len(source)})"
        folder.mkdir()
        path = folder / name
        shutil.copy(data_dir / source, path)
        with open_slide(str(path)) as slide, open_slide(data_dir / source) as other:
            assert slide.info.path == path
            assert slide.info.fingerprint == other.info.fingerprint
            region = slide.read_region((10, 10), 0, (30, 30))
            np.testing.assert_array_equal(region, other.read_region((10, 10), 0, (30, 30)))


def test_who_says_the_mpp(small: Path):
    with open_slide(small) as slide:
        assert (slide.info.mpp, slide.info.mpp_source) == (pytest.approx(0.5), "file")
        remember_mpp(slide.info, 0.4)
    with open_slide(small) as slide:
        assert (slide.info.mpp, slide.info.mpp_source) == (0.4, "remembered")
    with open_slide(small, mpp=0.3) as slide:
        assert (slide.info.mpp, slide.info.mpp_source) == (0.3, "given")
