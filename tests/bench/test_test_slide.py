from __future__ import annotations

from pathlib import Path

import numpy as np
import openslide
import pytest
import skimage.data
import tifffile

from napari_histomil.bench import test_slide as maker
from napari_histomil.errors import OutputError
from napari_histomil.slides.readers import open_slide

SIZE = 2400, 1920


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("made") / "small.svs"
    maker.write_slide(path, skimage.data.immunohistochemistry(), SIZE)
    return path


def test_it_is_a_slide_as_scanners_write_them(made: Path) -> None:
    """OpenSlide takes it for Aperio's, tifffile too, and both see all levels."""
    with openslide.OpenSlide(made) as slide:
        assert slide.properties["openslide.vendor"] == "aperio"
        assert slide.level_dimensions == (SIZE, (600, 480), (150, 120))
        assert float(slide.properties["openslide.mpp-x"]) == maker.MPP
    with tifffile.TiffFile(made) as tiff:
        assert len(tiff.series[0].levels) == 3
        page = tiff.pages.first
        assert page.tile == (240, 240)
        assert page.jpegtables is not None
        first = tiff.filehandle.read_array(np.uint8, page.databytecounts[0], page.dataoffsets[0])
        assert b"\xff\xdb" not in first.tobytes(), "the tables are in the directory only"


def test_our_reader_gives_openslides_pixels(made: Path) -> None:
    with open_slide(made) as ours, openslide.OpenSlide(made) as other:
        assert ours.info.reader == "tiff"
        for level, (width, height) in enumerate(other.level_dimensions):
            theirs = np.asarray(other.read_region((0, 0), level, (width, height)))[..., :3]
            np.testing.assert_array_equal(ours.read_region((0, 0), level, (width, height)), theirs)


def test_coarser_levels_show_the_same(made: Path) -> None:
    with open_slide(made) as slide:
        fine = slide.read_region((0, 0), 0, SIZE).reshape(480, 4, 600, 4, 3).mean((1, 3))
        coarse = slide.read_region((0, 0), 1, (600, 480))
    assert np.abs(fine - coarse).mean() < 4  # JPEG lies between


def test_two_fifths_are_tissue_and_no_two_tiles_are_alike(made: Path) -> None:
    outline = maker.tissue_outline(SIZE)
    assert outline.mean() == pytest.approx(maker.TISSUE_SHARE, abs=0.01)
    with tifffile.TiffFile(made) as tiff:
        page = tiff.pages.first
        tiles = [
            tiff.filehandle.read_array(np.uint8, count, offset).tobytes()
            for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True)
        ]
    assert len(tiles) == 10 * 8
    assert len(set(tiles)) == len(tiles)
    cells = outline.reshape(8, 15, 10, 15)
    tissue = [len(tiles[i]) for i in np.flatnonzero(cells.all((1, 3)))]
    glass = [len(tiles[i]) for i in np.flatnonzero(~cells.any((1, 3)))]
    assert len(tissue) >= 10
    assert np.mean(tissue) > 5 * np.mean(glass)


def test_the_same_seed_gives_the_same_file(made: Path, tmp_path: Path) -> None:
    again = tmp_path / "again.svs"
    maker.write_slide(again, skimage.data.immunohistochemistry(), SIZE)
    assert again.read_bytes() == made.read_bytes()


def test_one_level_holds_the_same_tiles(made: Path, tmp_path: Path) -> None:
    flat = tmp_path / "flat.tif"
    maker.write_one_level(flat, made)
    with open_slide(made) as slide, open_slide(flat) as one:
        assert len(one.info.levels) == 1
        np.testing.assert_array_equal(
            one.read_region((900, 700), 0, (500, 400)),
            slide.read_region((900, 700), 0, (500, 400)),
        )


def test_the_slides_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HISTOMIL_TEST_DATA", raising=False)
    folder = tmp_path / "bench"
    calls: list[Path] = []

    def write(path: Path, *_: object) -> None:
        calls.append(path)
        path.write_bytes(b"made")

    monkeypatch.setattr(maker, "write_slide", write)
    monkeypatch.setattr(maker, "write_one_level", write)
    slides = maker.made_slides(folder)
    assert slides.slide.is_file()
    assert slides.one_level.is_file()
    assert "immunohistochemistry" in slides.texture
    assert maker.made_slides(folder) == slides
    assert len(calls) == 2, "the second call makes nothing"


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(OutputError, match="need 300 MB there"):
        maker.made_slides(tmp_path / "file" / "bench")


def test_texture_comes_from_a_given_slide(made: Path) -> None:
    assert maker.tissue_source(made) == "small.svs"
    assert maker.tissue_texture(made).shape == (1920, 2400, 3)
