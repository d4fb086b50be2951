"""Every format against someone else's pixels, at every level, corners and edges included.

Someone else is OpenSlide, tifffile, pydicom or zarr: whoever has not the same code below as the
reader that is tried.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import imagecodecs
import numpy as np
import openslide
import pydicom
import pytest
import tifffile
from pydicom.uid import JPEG2000Lossless, JPEGBaseline8Bit, JPEGLSLossless, RLELossless
from shapely.geometry import box

from napari_histomil.annotations.model import SlideFrame
from napari_histomil.geometry import Rect
from napari_histomil.slides import READER_NAMES
from napari_histomil.slides.openslide import on_white
from napari_histomil.slides.readers import READERS, open_slide
from napari_histomil.slides.slide import SlideInfo
from napari_histomil.tissue import find_tissue
from tests.slides import vendor_files as vendors
from tests.slides.conftest import halves, picture, write_pyramid
from tests.slides.contract import window
from tests.slides.dicom_files import write_dicom_slide
from tests.slides.test_zarr import channels_first, write_zarr

ODD = halves(picture(401, 307), 2)
TILED = halves(picture(512, 256), 2)
ROWS_OF_8 = halves(picture(768, 800), 2)

Truth = Callable[[Path], Sequence[np.ndarray]]


def of_openslide(path: Path) -> list[np.ndarray]:
    """Return each level as OpenSlide reads it whole."""
    with openslide.OpenSlide(path) as slide:
        return [
            on_white(slide.read_region((0, 0), index, size))
            for index, size in enumerate(slide.level_dimensions)
        ]


def of_tifffile(path: Path) -> list[np.ndarray]:
    """Return the levels of a TIFF's first series."""
    with tifffile.TiffFile(path) as file:
        return [level.asarray() for level in file.series[0].levels]


def of_pydicom(path: Path) -> list[np.ndarray]:
    """Put the frames of a TILED_FULL instance together, decoded by imagecodecs or stored raw."""
    dataset = pydicom.dcmread(path)
    rows, columns = dataset.Rows, dataset.Columns
    height, width = dataset.TotalPixelMatrixRows, dataset.TotalPixelMatrixColumns
    if dataset.file_meta.TransferSyntaxUID.is_encapsulated:
        count = int(dataset.NumberOfFrames)
        parts = pydicom.encaps.generate_frames(dataset.PixelData, number_of_frames=count)
        frames = [imagecodecs.jpegls_decode(part) for part in parts]
    else:
        frames = list(np.frombuffer(dataset.PixelData, np.uint8).reshape(-1, rows, columns, 3))
    across = -(-width // columns)
    whole = np.zeros((-(-height // rows) * rows, across * columns, 3), np.uint8)
    for index, frame in enumerate(frames):
        y, x = index // across * rows, index % across * columns
        whole[y : y + rows, x : x + columns] = frame
    return [whole[:height, :width]]


@dataclass(frozen=True)
class Case:
    """One file, who reads it, whose pixels count, and how many levels are read if not all."""

    name: str
    reader: str
    truth: Truth
    force: bool = False
    levels: int | None = None


def made(levels: Sequence[np.ndarray]) -> Truth:
    """Return a truth that needs no reading: what was written."""
    return lambda path: levels


CMU = "wsi-dicom-cmu1-small/level-4-frames-0-1.dcm"
NDPI = "wsi-hamamatsu-ndpi/test3-DAPI-2-387.ndpi"
SVS = "wsi-aperio-svs/CMU-1-Small-Region.svs"
THUMB = "wsi-dicom-camelyon-thumb/multi_frame_jpeg_camelyon_challenge_image.dcm"
TINY = "wsi-dicom-highdicom/sm_image.dcm"

REAL = [
    Case(SVS, "tiff", of_openslide),
    Case(SVS, "tiff", of_tifffile),
    Case(SVS, "openslide", of_tifffile, force=True),
    Case(NDPI, "openslide", of_openslide, force=True),
    Case(NDPI, "ndpi", of_openslide, levels=4),  # OpenSlide makes three smaller ones itself
    Case("wsi-ome-tiff/OS-1-detail.ome.tif", "tiff", of_tifffile),
    Case(CMU, "openslide", of_openslide),
    Case("wsi-dicom-cmu1-small", "openslide", lambda path: of_openslide(path / Path(CMU).name)),
    Case(CMU, "wsidicom", of_openslide, force=True, levels=3),  # it wants tiles of one size
    Case(THUMB, "openslide", of_openslide),
    Case(THUMB, "wsidicom", of_openslide, force=True),
    Case(TINY, "openslide", of_pydicom),
    Case(TINY, "wsidicom", of_openslide, force=True),
    Case("wsi-dicom-highdicom/sm_image_jpegls.dcm", "wsidicom", of_pydicom),
]


def check(path: Path, case: Case) -> None:
    """Compare whole levels, then windows over corners, edges and places between tiles."""
    truth = case.truth(path)
    with open_slide(path, reader=case.reader if case.force else None) as slide:
        assert slide.info.reader == case.reader
        levels = slide.info.levels
        assert len(levels) == (case.levels or len(truth))
        for index, stored in enumerate(levels):
            wanted = truth[index]
            height, width = wanted.shape[:2]
            assert (stored.width, stored.height) == (width, height)
            same(slide.read_region((0, 0), index, (width, height)), wanted)
            if not on_pixels(stored.downsample):
                continue  # OpenSlide interpolates there, and has other pixels by right
            rng = np.random.default_rng(index)
            corners = [(x, y) for x in (-7, 0, width - 9) for y in (-7, 0, height - 9)]
            corners += rng.integers(-20, [width, height], (12, 2)).tolist()
            for left, top in corners:
                corner = round(left * stored.downsample), round(top * stored.downsample)
                found = slide.read_region(corner, index, (33, 21))
                same(found, window(wanted, left, top, 33, 21))


def on_pixels(downsample: float) -> bool:
    """Say whether every pixel of a level begins on one of level 0."""
    return math.isclose(downsample, round(downsample), rel_tol=1e-9)


def same(found: np.ndarray, wanted: np.ndarray) -> None:
    assert found.shape == wanted.shape
    assert found.dtype == np.uint8
    differing = int((found != wanted).sum())
    assert differing == 0


@pytest.mark.parametrize(
    "case", REAL, ids=lambda case: f"{case.name}-{case.reader}-{case.truth.__name__}"
)
def test_real_slides(data_dir: Path, case: Case):
    check(data_dir / case.name, case)


def test_every_real_slide_is_tried(data_dir: Path):
    files = {path.relative_to(data_dir).as_posix() for path in data_dir.glob("wsi-*/*.*")}
    tried = {case.name for case in REAL}
    other = {"seg_image_sm_control.dcm", "sm_annotations.dcm", "broken.svs"}
    rest = {name for name in files - tried if Path(name).name not in other}
    assert all(name.startswith("wsi-dicom-cmu1-small/") for name in rest)


# --- made -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Made:
    """A file that is written first: `write` takes a path without suffix and returns the slide."""

    name: str
    write: Callable[[Path], Path]
    reader: str
    truth: Truth
    vendor: str | None = None


def dicom(**options: object) -> Callable[[Path], Path]:
    return lambda path: write_dicom_slide(path, ODD, **options)[0].parent  # type: ignore[arg-type]


def dicom_sparse(path: Path) -> Path:
    return write_dicom_slide(path, ODD, left_out=[(0, 1), (2, 2)])[0]


def with_white(level: np.ndarray, tiles: Sequence[tuple[int, int]], size: int) -> np.ndarray:
    out = level.copy()
    for row, column in tiles:
        out[row * size : (row + 1) * size, column * size : (column + 1) * size] = 255
    return out


def ndpi(sampling: str, units: int | None = None) -> Callable[[Path], Path]:
    return lambda path: vendors.write_ndpi(
        path.with_suffix(".ndpi"), ROWS_OF_8, sampling=sampling, units=units
    )


def first_of_openslide(path: Path) -> list[np.ndarray]:
    """Return the levels that are stored; of NDPI OpenSlide makes smaller ones."""
    return of_openslide(path)[: len(ROWS_OF_8)]


LOSSLESS: dict[str, dict[str, object]] = {
    "uncompressed": {},
    "in strips": {"tile": None, "rowsperstrip": 32, "compression": "deflate"},
    "lzw": {"compression": "lzw"},
    "lzw with differences": {"compression": "lzw", "predictor": True},
    "deflate": {"compression": "deflate"},
    "packbits": {"compression": "packbits"},
    "zstd": {"compression": "zstd"},
    "lerc": {"compression": "lerc"},
    "png": {"compression": "png"},
    "jpeg 2000, lossless": {"compression": "jpeg2000"},
    "tiles larger than the slide": {"compression": "lzw", "tile": (512, 512)},
    "oblong tiles": {"compression": "deflate", "tile": (32, 112)},
    "levels in subifds": {"compression": "deflate", "subifds": True},
    "bigtiff": {"bigtiff": True, "compression": "deflate"},
}
LOSSY: dict[str, dict[str, object]] = {
    "jpeg": {"compression": "jpeg", "photometric": "ycbcr"},
    "jpeg, colours whole": {
        "compression": "jpeg", "photometric": "ycbcr", "subsampling": (1, 1),
    },
    "jpeg of rgb": {"compression": "jpeg"},
    "jpeg with odd tiles": {"compression": "jpeg", "photometric": "ycbcr", "tile": (48, 80)},
    "webp": {"compression": "webp", "compressionargs": {"level": 80, "lossless": False}},
    "jpeg 2000": {"compression": "jpeg2000", "compressionargs": {"level": 30}},
}  # fmt: skip


def tiff(**options: object) -> Callable[[Path], Path]:
    return lambda path: write_pyramid(path.with_suffix(".tif"), ODD, **options)  # type: ignore[arg-type]


def pages_of_tifffile(path: Path) -> list[np.ndarray]:
    with tifffile.TiffFile(path) as file:
        return [page.asarray() for page in file.pages]


SCN_CORNER = 320, 160


def scn_truth(path: Path) -> list[np.ndarray]:
    """Return the scan where it lies on a slide that is white around it."""
    with openslide.OpenSlide(path) as slide:
        sizes = slide.level_dimensions
    out = []
    for index, (level, (width, height)) in enumerate(zip(TILED, sizes, strict=True)):
        whole = np.full((height, width, 3), 255, np.uint8)
        left, top = (value >> index for value in SCN_CORNER)
        whole[top : top + level.shape[0], left : left + level.shape[1]] = level
        out.append(whole)
    return out


MADE = [
    Made("leica", lambda p: vendors.write_leica_scn(p.with_suffix(".scn"), TILED, SCN_CORNER),
         "openslide", scn_truth, "leica"),
    Made("philips", lambda p: vendors.write_philips(p.with_suffix(".tiff"), TILED),
         "openslide", made(TILED), "philips"),
    Made("trestle", lambda p: vendors.write_trestle(p.with_suffix(".tif"), TILED),
         "openslide", made(TILED), "trestle"),
    Made("ventana", lambda p: vendors.write_ventana(p.with_suffix(".bif"), TILED),
         "openslide", made(TILED), "ventana"),
    Made("mirax", lambda p: vendors.write_mirax(p.with_suffix(".mrxs"), TILED, {(1, 2)}),
         "openslide", lambda p: vendors.mirax_pixels(TILED, {(1, 2)}), "mirax"),
    Made("dicom raw", dicom(), "openslide", made(ODD), "dicom"),
    Made("dicom jpeg 2000", dicom(syntax=JPEG2000Lossless), "openslide", made(ODD), "dicom"),
    Made("dicom jpeg", dicom(syntax=JPEGBaseline8Bit), "openslide",
         lambda p: of_openslide(p / "made-0.dcm"), "dicom"),
    Made("dicom jpeg-ls", dicom(syntax=JPEGLSLossless), "wsidicom", made(ODD), "dicom"),
    Made("dicom rle", dicom(syntax=RLELossless), "wsidicom", made(ODD), "dicom"),
    Made("dicom sparse", dicom_sparse, "openslide",
         made([with_white(ODD[0], [(0, 1), (2, 2)], 64), *ODD[1:]]), "dicom"),
    Made("ndpi in rows", ndpi("4:4:4"), "ndpi", first_of_openslide, "hamamatsu"),
    Made("ndpi in pieces", ndpi("4:4:4", 4), "ndpi", first_of_openslide, "hamamatsu"),
    Made("ndpi in rows, 4:2:2", ndpi("4:2:2"), "ndpi", first_of_openslide, "hamamatsu"),
    Made("ndpi in pieces, 4:2:2", ndpi("4:2:2", 4), "ndpi", first_of_openslide, "hamamatsu"),
    Made("zarr 0.4", lambda p: write_zarr(p.with_suffix(".zarr"), channels_first(ODD), "cyx",
         version="0.4"), "zarr", made(ODD)),
    Made("zarr 0.5", lambda p: write_zarr(p.with_suffix(".zarr"), channels_first(ODD), "cyx"),
         "zarr", made(ODD)),
    Made("zarr in shards", lambda p: write_zarr(p.with_suffix(".zarr"), ODD, "yxc", shards=True),
         "zarr", made(ODD)),
    *(
        Made(f"tiff, {name}", tiff(**options), "tiff", made(ODD))
        for name, options in LOSSLESS.items()
    ),
    *(
        Made(f"tiff, {name}", tiff(**options), "tiff", pages_of_tifffile)
        for name, options in LOSSY.items()
    ),
]  # fmt: skip


@pytest.mark.parametrize("case", MADE, ids=lambda case: case.name)
def test_made_slides(tmp_path: Path, case: Made):
    path = case.write(tmp_path / "slide")
    check(path, Case(case.name, case.reader, case.truth))
    if case.vendor is not None:
        with open_slide(path) as slide:
            assert slide.info.vendor == case.vendor
            assert slide.info.mpp == pytest.approx(0.5)


@pytest.mark.parametrize("reader", ["openslide", "wsidicom"])
@pytest.mark.parametrize("syntax", [None, JPEG2000Lossless, JPEGBaseline8Bit], ids=str)
def test_both_readers_of_dicom_agree(tmp_path: Path, reader: str, syntax: object):
    options = {} if syntax is None else {"syntax": syntax}
    files = write_dicom_slide(tmp_path / "slide", ODD, left_out=[(1, 1)], **options)  # type: ignore[arg-type]
    truth = of_openslide(files[0])
    check(files[1], Case("", reader, lambda path: truth, force=True))
    prints = set()
    for name in ("openslide", "wsidicom"):
        with open_slide(files[0], reader=name) as slide:
            prints.add(slide.info.fingerprint)
    assert len(prints) == 1


def test_the_names_of_readers():
    assert tuple(READERS) == READER_NAMES


def test_what_the_scanner_filled_is_the_frame(tmp_path: Path):
    """Bounds are level-0 pixels; GeoJSON for QuPath begins at them, and glass beyond is white."""
    path = vendors.write_leica_scn(tmp_path / "a.scn", TILED, SCN_CORNER)
    with open_slide(path) as slide:
        info = slide.info
        assert info.bounds_px0 == Rect(*SCN_CORNER, 512, 256)
        assert info.associated_images == ("macro",)
        assert SlideFrame.of(info).origin_px0 == SCN_CORNER
        mask = find_tissue(slide)
    outlines = mask.polygons()
    assert outlines
    scanned = box(320, 160, 832, 416).buffer(mask_margin(info))
    assert all(scanned.contains(outline) for outline in outlines)


def mask_margin(info: SlideInfo) -> float:
    """Return how far an outline may be drawn beyond its tissue: some pixels of the overview."""
    return max(info.width_px0, info.height_px0) / 20
