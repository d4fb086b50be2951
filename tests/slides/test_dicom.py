"""DICOM: which files are one slide, and what wsidicom reads where OpenSlide does not."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.encaps import generate_frames
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEGLSLossless

from napari_histomil.errors import SlideError
from napari_histomil.resources import sidecar
from napari_histomil.slides import readers
from napari_histomil.slides.dicom import HEAD_BYTES, read_instance, series_in, series_of
from napari_histomil.slides.readers import open_slide
from tests.slides.conftest import halves, picture
from tests.slides.contract import SlideContract
from tests.slides.dicom_files import write_dicom_slide

LEVELS = halves(picture(301, 207), 2)
GREY = [level[..., 0].astype(np.uint16) * 16 for level in LEVELS]


def sentence(path: Path, **options: str) -> str:
    with pytest.raises(SlideError) as caught:
        open_slide(path, **options)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    return str(caught.value)


class TestWsidicom(SlideContract):
    reader = "wsidicom"
    truth = LEVELS

    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        return write_dicom_slide(tmp_path / "slide", LEVELS, syntax=JPEGLSLossless)[0]

    def test_it_is_chosen_where_openslide_refuses(self, path: Path):
        with open_slide(path) as slide:
            assert slide.info.reader == "wsidicom"
            assert slide.info.mpp_xy == pytest.approx((0.5, 0.5))
            assert slide.info.objective_power == 20
            assert slide.info.properties["dicom.TransferSyntaxUID"] == JPEGLSLossless
        assert "Unsupported transfer syntax" in sentence(path, reader="openslide")


def test_threads_do_not_get_each_others_tiles(tmp_path: Path):
    level = picture(401, 307)
    wrong: list[tuple[int, int]] = []
    with open_slide(write_dicom_slide(tmp_path / "slide", [level])[0], reader="wsidicom") as slide:
        columns, rows = -(-401 // 64), -(-307 // 64)

        def read(seed: int) -> None:
            random = np.random.default_rng(seed)
            for _ in range(60):
                column, row = int(random.integers(columns)), int(random.integers(rows))
                wanted = level[row * 64 : row * 64 + 64, column * 64 : column * 64 + 64]
                if not np.array_equal(slide._read_tile(0, row, column), wanted):
                    wrong.append((row, column))

        threads = [threading.Thread(target=read, args=(seed,)) for seed in range(6)]
        interval = sys.getswitchinterval()
        sys.setswitchinterval(1e-6)  # threads change in the middle of everything
        try:
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        finally:
            sys.setswitchinterval(interval)
    assert wrong == []


@pytest.mark.parametrize("which", range(3))
def test_any_file_opens_the_slide_and_work_lies_in_one_place(tmp_path: Path, which: int):
    files = write_dicom_slide(tmp_path / "slide", LEVELS)
    with open_slide(files[which]) as slide, open_slide(files[0].parent) as other:
        assert len(slide.info.levels) == 3
        assert slide.info.path == other.info.path == files[0]
        assert slide.info.fingerprint == other.info.fingerprint
        np.testing.assert_array_equal(slide.read_region((0, 0), 0, (301, 207)), LEVELS[0])
        folder = sidecar(slide.info.path, slide.info.fingerprint)
    folder.mkdir()  # lies among the files, and disturbs nobody
    with open_slide(files[0].parent) as again:
        assert again.info.path == files[0]


def test_names_without_suffix_and_among_others(tmp_path: Path):
    files = write_dicom_slide(tmp_path / "slide", LEVELS)
    for number, file in enumerate(files):
        file.rename(file.with_name(f"IM{number + 9}"))  # 9, 10, 11
    (tmp_path / "slide" / "notes.txt").write_text("no slide")
    (tmp_path / "slide" / "empty.dcm").write_bytes(b"")
    with open_slide(tmp_path / "slide") as slide:
        assert slide.info.path.name == "IM9"
        assert len(slide.info.levels) == 3


def test_a_folder_of_several_slides_says_which(tmp_path: Path):
    for name in ("one", "two"):
        write_dicom_slide(tmp_path / "both", LEVELS[:1], description=name)
    text = sentence(tmp_path / "both")
    assert "both holds 2 slides in DICOM" in text
    assert "one-0.dcm (one), two-0.dcm (two)" in text
    with open_slide(tmp_path / "both" / "two-0.dcm") as slide:
        assert slide.info.path.name == "two-0.dcm"


def test_a_folder_of_no_slide(tmp_path: Path, data_dir: Path):
    shutil.copy(data_dir / "wsi-dicom-highdicom" / "seg_image_sm_control.dcm", tmp_path)
    assert "holds DICOM files, but no slide" in sentence(tmp_path)
    assert "segmentation" in sentence(tmp_path / "seg_image_sm_control.dcm")
    (tmp_path / "nothing").mkdir()
    assert "neither an OME-Zarr" in sentence(tmp_path / "nothing")


def test_grey_of_16_bits(tmp_path: Path):
    files = write_dicom_slide(tmp_path / "slide", GREY)
    with open_slide(files[0]) as slide:
        assert slide.info.reader == "wsidicom"
        assert slide.info.dtype == "uint16"
        assert slide.info.channels == ("brightfield",)
        words = slide.info.composite.removeprefix("grey: ").split()
        low, high = float(words[0]), float(words[4])
        assert (GREY[0].min(), GREY[0].max()) == pytest.approx((low, high), rel=0.2, abs=400)
        found = slide.read_region((0, 0), 0, (301, 207))
    share = np.clip((GREY[0] - low) / (high - low), 0, 1) * 255
    assert np.abs(found[..., 1] - share).max() <= 0.6
    assert (found[..., 0] == found[..., 2]).all()


def test_a_damaged_tile_says_where(tmp_path: Path):
    files = write_dicom_slide(tmp_path / "slide", LEVELS[:1], syntax=JPEGLSLossless)
    content = files[0].read_bytes()
    frames = list(generate_frames(dcmread(files[0]).PixelData, number_of_frames=20))
    second = content.index(frames[1])
    files[0].write_bytes(content[: second + 2] + bytes(64) + content[second + 66 :])
    with open_slide(files[0]) as slide:
        np.testing.assert_array_equal(slide.read_region((0, 0), 0, (64, 64)), LEVELS[0][:64, :64])
        with pytest.raises(SlideError, match=r"made-0\.dcm cannot be decoded at \(64, 0\)"):
            slide.read_region((70, 5), 0, (9, 9))


def test_without_wsidicom_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    files = write_dicom_slide(tmp_path / "slide", LEVELS[:1], syntax=JPEGLSLossless)
    monkeypatch.setattr(readers, "find_spec", lambda name: None)
    assert 'pip install "napari-histomil[dicom]"' in sentence(files[0])


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
def test_headers(tmp_path: Path, syntax: str):
    """Also with values before the series that are sequences, with and without their length."""
    file = write_dicom_slide(tmp_path / "slide", LEVELS[:1])[0]
    dataset = dcmread(file)
    inner = dataset.OpticalPathSequence
    dataset.ReferencedStudySequence = inner
    dataset["ReferencedStudySequence"].is_undefined_length = True
    dataset.ReferencedStudySequence[0].is_undefined_length_sequence_item = True
    dataset.ReferencedPatientSequence = inner
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.save_as(file, implicit_vr=syntax == ImplicitVRLittleEndian, little_endian=True)
    found = read_instance(file)
    assert found is not None
    assert found.series == dataset.SeriesInstanceUID
    assert found.sop_class == dataset.SOPClassUID
    assert found.description == "made"
    assert found.transfer_syntax == syntax


def test_damaged_headers_are_no_dicom_and_never_hang(tmp_path: Path):
    """Every cut and many changes: an answer or none, but no error."""
    file = write_dicom_slide(tmp_path / "slide", LEVELS[2:])[0]
    content = file.read_bytes()[: HEAD_BYTES // 64]
    rng = np.random.default_rng(0)
    other = tmp_path / "damaged.dcm"
    for length in range(0, 900, 7):
        other.write_bytes(content[:length])
        read_instance(other)
    for _ in range(200):
        changed = bytearray(content)
        for at in rng.integers(132, 900, 3):
            changed[at] = rng.integers(256)
        other.write_bytes(changed)
        read_instance(other)
    nested = (
        content[:132]
        + b"\x08\0\x10\x11SQ\0\0\xff\xff\xff\xff"
        + (b"\xfe\xff\0\xe0\xff\xff\xff\xff\x08\0\x10\x11SQ\0\0\xff\xff\xff\xff" * 5000)
    )
    other.write_bytes(nested)
    assert read_instance(other) is None
    assert series_of(other) == [other]
    assert series_in(other.parent) is None or other not in (series_in(other.parent) or [])


def test_libraries_do_not_talk_to_the_person(data_dir: Path):
    """wsidicom warns of every level whose tiles have another size."""
    code = "import sys; from napari_histomil.slides.readers import open_slide as o; "
    code += "o(sys.argv[1], reader='wsidicom').close()"
    said = subprocess.run(
        [sys.executable, "-c", code, data_dir / "wsi-dicom-cmu1-small"],
        capture_output=True, check=True,
    )  # fmt: skip
    assert said.stderr == b""


def test_every_reader_gives_a_slide_one_name(data_dir: Path):
    # wsidicom leaves out nine of the twelve levels of this one.
    folder = data_dir / "wsi-dicom-cmu1-small"
    with (
        open_slide(folder, reader="openslide") as one,
        open_slide(folder, reader="wsidicom") as other,
    ):
        assert len(other.info.levels) < len(one.info.levels)
        assert one.info.fingerprint == other.info.fingerprint
