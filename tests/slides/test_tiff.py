"""The TIFF reader, held against what was written, against OpenSlide and against tifffile."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import openslide
import pytest
import tifffile

from napari_histomil.errors import MissingMppError, SlideError
from napari_histomil.slides.cache import TileCache, shared_cache
from napari_histomil.slides.readers import open_slide
from napari_histomil.slides.tiff_codecs import UnsupportedTiffError
from napari_histomil.slides.tiff_layout import FileReader
from napari_histomil.slides.tiles import TiledSlide
from tests.slides.conftest import halves, picture, write_pyramid
from tests.slides.contract import SlideContract

ODD = halves(picture(611, 437), 2)
EVEN = halves(picture(256, 192), 1)


class TestPages(SlideContract):
    reader = "tiff"
    truth = ODD

    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        return write_pyramid(tmp_path / "pages.tif", ODD, compression="deflate", predictor=2)


class TestSubIfds(SlideContract):
    reader = "tiff"
    truth = ODD

    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        return write_pyramid(
            tmp_path / "subifds.tif", ODD, subifds=True, compression="lzw", bigtiff=True
        )


class TestOneLevelInStrips(SlideContract):
    reader = "tiff"
    truth = ODD[:1]

    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        return write_pyramid(
            tmp_path / "strips.tif", ODD[:1], tile=None, rowsperstrip=50, compression="zlib"
        )


class TestUncompressedInOneStrip(SlideContract):
    reader = "tiff"
    truth = ODD[:1]

    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        return write_pyramid(tmp_path / "plain [1] (µ ü).tif", ODD[:1], tile=None)


class TestSeparatePlanes(SlideContract):
    reader = "tiff"
    truth = ODD[:1]

    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        target = tmp_path / "planar.tif"
        tifffile.imwrite(
            target, ODD[0].transpose(2, 0, 1), photometric="rgb", planarconfig="separate",
            tile=(64, 64), compression="zlib", metadata=None,
        )  # fmt: skip
        return target


class TestOmeChannels(SlideContract):
    """Red, green and blue as three 8-bit channels without colours."""

    reader = "tiff"
    truth = ODD

    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        target = tmp_path / "channels.ome.tif"
        options = {"tile": (64, 64), "photometric": "minisblack", "compression": "zlib"}
        with tifffile.TiffWriter(target, ome=True) as file:
            metadata = {"axes": "CYX", "PhysicalSizeX": 500, "PhysicalSizeXUnit": "nm",
                        "PhysicalSizeY": 0.5}  # fmt: skip
            file.write(ODD[0].transpose(2, 0, 1), subifds=2, metadata=metadata, **options)
            for level in ODD[1:]:
                file.write(level.transpose(2, 0, 1), subfiletype=1, **options)
        return target

    def test_what_the_xml_says(self, path: Path):
        with open_slide(path) as slide:
            assert slide.info.mpp_xy == (0.5, 0.5)
            assert slide.info.mpp_source == "file"
            assert len(slide.info.channels) == 3
            assert "#ff0000" in slide.info.composite


class TestAperio(SlideContract):
    """The real slide; the truth is what OpenSlide reads."""

    reader = "tiff"

    @pytest.fixture
    def path(self, data_dir: Path) -> Path:
        path = data_dir / "wsi-aperio-svs" / "CMU-1-Small-Region.svs"
        if not hasattr(type(self), "truth"):
            with openslide.OpenSlide(path) as other:
                image = other.read_region((0, 0), 0, other.dimensions)
                type(self).truth = [np.array(image.convert("RGB"))]
        return path

    def test_facts_and_side_pictures_are_openslides(self, path: Path):
        with open_slide(path) as slide, openslide.OpenSlide(path) as other:
            info = slide.info
            assert info.reader == "tiff"
            assert info.vendor == "aperio"
            assert info.mpp_xy == (0.499, 0.499)
            assert info.objective_power == 20
            assert info.composite == ""
            assert info.channels == ("red", "green", "blue")
            assert set(info.associated_images) == set(other.associated_images)
            for name, image in other.associated_images.items():
                wanted = np.array(image.convert("RGB"))
                np.testing.assert_array_equal(slide.read_associated(name), wanted)
            for key, value in other.properties.items():
                if key.startswith("aperio.") and key.lower() != "aperio.originalwidth":
                    assert info.properties[key] == value


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"compression": "lzw", "predictor": 2},
        {"compression": "deflate"},
        {"compression": "packbits"},
        {"compression": "zstd"},
        {"compression": "webp", "compressionargs": {"lossless": True}},
        {"compression": "jpeg2000", "compressionargs": {"reversible": True, "level": 0}},
        {"compression": "png"},
        {"compression": "lzma"},
        {"bigtiff": True, "byteorder": ">"},
    ],
    ids=str,
)
@pytest.mark.parametrize("subifds", [False, True])
def test_lossless_compressions(tmp_path: Path, options: dict, subifds: bool):
    options = dict(options)
    order = options.pop("byteorder", "<")
    path = tmp_path / "slide.tif"
    with tifffile.TiffWriter(path, bigtiff=options.pop("bigtiff", False), byteorder=order) as file:
        common = {"photometric": "rgb", "tile": (64, 64), "metadata": None} | options
        file.write(EVEN[0], subifds=1 if subifds else None, **common)
        file.write(EVEN[1], subfiletype=1, **common)
    with open_slide(path) as slide:
        assert [(level.width, level.height) for level in slide.info.levels] == [
            (256, 192),
            (128, 96),
        ]
        for index, level in enumerate(EVEN):
            found = slide.read_region((0, 0), index, (level.shape[1], level.shape[0]))
            np.testing.assert_array_equal(found, level)


@pytest.mark.parametrize("photometric", ["rgb", "ycbcr"])
@pytest.mark.parametrize("subsampling", [(1, 1), (2, 2)])
def test_jpeg_is_as_openslide_decodes_it(
    tmp_path: Path, photometric: str, subsampling: tuple[int, int]
):
    options = {} if photometric == "rgb" else {"subsampling": subsampling}
    path = write_pyramid(
        tmp_path / "jpeg.tif", EVEN, compression="jpeg", photometric=photometric, **options
    )
    with open_slide(path) as slide, openslide.OpenSlide(path) as other:
        assert slide.info.reader == "tiff"
        for index, size in enumerate(other.level_dimensions):
            wanted = np.array(other.read_region((0, 0), index, size).convert("RGB"))
            np.testing.assert_array_equal(slide.read_region((0, 0), index, size), wanted)
            assert np.ptp(wanted) > 200


def test_aperio_jpeg2000_with_ycbcr(tmp_path: Path):
    """Compression 33003 holds YCbCr without saying so in the code stream."""
    import imagecodecs

    rgb = EVEN[0][:64, :64].astype(float)
    luma = rgb @ [0.299, 0.587, 0.114]
    blue = 128 + (rgb[..., 2] - luma) / 1.772
    red = 128 + (rgb[..., 0] - luma) / 1.402
    ycbcr = np.clip(np.rint(np.stack([luma, blue, red], -1)), 0, 255).astype(np.uint8)
    tile = imagecodecs.jpeg2k_encode(ycbcr, level=0, reversible=True, mct=False, codecformat="j2k")
    path = tmp_path / "aperio.svs"
    with tifffile.TiffWriter(path) as file:
        file.write(
            iter([tile]), shape=(64, 64, 3), dtype=np.uint8, tile=(64, 64), photometric="rgb",
            compression=33003, metadata=None, description="Aperio Image Library v1|MPP = 0.25",
        )  # fmt: skip
    with open_slide(path) as slide, openslide.OpenSlide(path) as other:
        assert slide.info.mpp_xy == (0.25, 0.25)
        found = slide.read_region((0, 0), 0, (64, 64)).astype(int)
        assert np.abs(found - rgb).max() <= 3
        theirs = np.array(other.read_region((0, 0), 0, (64, 64)).convert("RGB"))
        assert np.abs(found - theirs).max() <= 2


def test_sixteen_bits_keep_their_hues(tmp_path: Path):
    deep = EVEN[0].astype(np.uint16) * 16  # 12 bits in 16
    path = write_pyramid(tmp_path / "deep.tif", [deep], compression="deflate")
    with open_slide(path) as slide:
        assert slide.info.dtype == "uint16"
        assert slide.info.composite == "uint16 RGB, 0 to 4095 shown as 0 to 255"
        found = slide.read_region((0, 0), 0, (256, 192)).astype(int)
        assert np.abs(found - EVEN[0]).max() <= 1


def test_opacity_is_laid_on_white(tmp_path: Path):
    alpha = np.zeros((192, 256, 1), np.uint8)
    alpha[:, :100] = 255
    rgba = np.concatenate([EVEN[0], alpha], 2)
    path = write_pyramid(tmp_path / "alpha.tif", [rgba], extrasamples=["unassalpha"])
    with open_slide(path) as slide:
        assert "white" in slide.info.composite
        found = slide.read_region((0, 0), 0, (256, 192))
        np.testing.assert_array_equal(found[:, :100], EVEN[0][:, :100])
        assert (found[:, 100:] == 255).all()


def test_grey_and_inverted_grey(tmp_path: Path):
    grey = EVEN[0][..., 0]
    for photometric, wanted in (("minisblack", grey), ("miniswhite", 255 - grey)):
        path = write_pyramid(tmp_path / f"{photometric}.tif", [grey], photometric=photometric)
        with open_slide(path) as slide:
            found = slide.read_region((0, 0), 0, (256, 192))
            assert slide.info.composite.startswith("grey: ")
        for channel in range(3):
            np.testing.assert_array_equal(found[..., channel], wanted)


@pytest.mark.parametrize("dtype", ["uint16", "int16", "float32"])
def test_grey_of_other_depths_is_scaled_as_stated(tmp_path: Path, dtype: str):
    rng = np.random.default_rng(0)
    values = rng.integers(1000, 3000, (192, 256)).astype(dtype)
    values[0, 0] = 30000  # one hot pixel must not make the rest dark
    path = write_pyramid(
        tmp_path / "grey.tif", [values], photometric="minisblack", compression="zlib"
    )
    with open_slide(path) as slide:
        words = slide.info.composite.split()
        low, high = float(words[1]), float(words[5])
        assert 995 <= low <= 1010
        assert 2990 <= high <= 3005
        found = slide.read_region((0, 0), 0, (256, 192))[..., 0].astype(float)
    wanted = np.clip((values.astype(float) - low) / (high - low), 0, 1) * 255
    assert np.abs(found - wanted).max() <= 0.51


def test_palette(tmp_path: Path):
    table = np.zeros((3, 256), np.uint16)
    table[0, 1], table[1, 2], table[2, 3] = 0xFFFF, 0x8000, 0x4000
    index = np.random.default_rng(0).integers(0, 4, (64, 64), dtype=np.uint8)
    path = tmp_path / "palette.tif"
    tifffile.imwrite(path, index, photometric="palette", colormap=table, metadata=None)
    with open_slide(path) as slide:
        found = slide.read_region((0, 0), 0, (64, 64))
        assert "table" in slide.info.composite
    np.testing.assert_array_equal(found, (table >> 8).T.astype(np.uint8)[index])


def test_fluorescence_channels_are_added_in_their_colours(tmp_path: Path):
    stack = np.zeros((2, 64, 64), np.uint16)
    stack[0, :, :32], stack[1, 32:] = 4000, 900
    path = tmp_path / "fluorescence.ome.tif"
    channels = {"Name": ["DAPI", "FITC"], "Color": [0x0000FFFF, 0x00FF00FF]}
    tifffile.imwrite(
        path, stack, photometric="minisblack", metadata={"axes": "CYX", "Channel": channels}
    )
    with open_slide(path, mpp=0.5) as slide:
        assert slide.info.channels == ("DAPI", "FITC")
        assert slide.info.composite == (
            "added in colours: DAPI 0 to 4000 in #0000ff; FITC 0 to 900 in #00ff00"
        )
        found = slide.read_region((0, 0), 0, (64, 64))
    assert found[0, 0].tolist() == [0, 0, 255]
    assert found[63, 63].tolist() == [0, 255, 0]
    assert found[63, 0].tolist() == [0, 255, 255]
    assert found[0, 63].tolist() == [0, 0, 0]


def test_of_a_stack_the_middle_layer_is_shown_and_said(tmp_path: Path):
    stack = np.stack([np.full((64, 64), value, np.uint8) for value in (10, 20, 30)])
    path = tmp_path / "stack.ome.tif"
    tifffile.imwrite(path, stack, photometric="minisblack", metadata={"axes": "ZYX"})
    with open_slide(path) as slide:
        assert "position 2 of 3 along Z" in slide.info.composite
        assert (slide.read_region((0, 0), 0, (64, 64)) == 20).all()


def test_the_real_ome_tiff_is_as_tifffile_reads_it(data_dir: Path):
    path = data_dir / "wsi-ome-tiff" / "OS-1-detail.ome.tif"
    with open_slide(path) as slide:
        assert slide.info.vendor == "ome"
        assert slide.info.mpp == pytest.approx(0.2271, abs=1e-4)
        found = slide.read_region((0, 0), 0, (1101, 1101))
    np.testing.assert_array_equal(found, tifffile.imread(path))


@pytest.mark.parametrize(
    ("resolution", "unit", "mpp"),
    [
        ((20000, 20000), "CENTIMETER", 0.5),
        ((50800, 25400), "INCH", (0.5, 1.0)),
        ((72, 72), "INCH", None),
        ((28.346456, 28.346456), "CENTIMETER", None),  # 72 dpi again
        ((300, 300), "INCH", None),
        ((20000, 20000), "NONE", None),
        ((0, 0), "CENTIMETER", None),
        ((1, 1), "CENTIMETER", None),
    ],
)
def test_resolution_tags(tmp_path: Path, resolution: tuple, unit: str, mpp: object):
    path = tmp_path / "slide.tif"
    tifffile.imwrite(
        path, EVEN[0], photometric="rgb", metadata=None, resolution=resolution, resolutionunit=unit
    )
    with open_slide(path) as slide:
        if mpp is None:
            assert slide.info.mpp_source is None
            with pytest.raises(MissingMppError, match=r"slide\.tif.*--slide-mpp"):
                slide.info.mpp_xy  # noqa: B018
        else:
            wanted = mpp if isinstance(mpp, tuple) else (mpp, mpp)
            assert slide.info.mpp_xy == pytest.approx(wanted)


@pytest.mark.parametrize("text", ["0", "-0.5", "1e9", "nan", "inf", "nonsense", ""])
def test_an_absurd_aperio_mpp_is_unknown(tmp_path: Path, text: str):
    path = write_pyramid(
        tmp_path / "absurd.svs", EVEN, mpp=None,
        description=f"Aperio Image Library v1|AppMag = {text}|MPP = {text}",
    )  # fmt: skip
    with open_slide(path) as slide:
        assert slide.info.vendor == "aperio"
        assert slide.info.mpp_x is None
        assert slide.info.objective_power is None


def test_missing_tiles_are_white(tmp_path: Path):
    path = write_pyramid(tmp_path / "sparse.tif", EVEN[:1], compression="zlib")
    with tifffile.TiffFile(path, mode="r+b") as file:
        counts = file.pages[0].tags["TileByteCounts"]
        counts.overwrite([0, *counts.value[1:]])
    with open_slide(path) as slide:
        found = slide.read_region((0, 0), 0, (256, 192))
    assert (found[:64, :64] == 255).all()
    np.testing.assert_array_equal(found[64:], EVEN[0][64:])


def test_a_damaged_tile_says_where_and_the_rest_is_read(tmp_path: Path):
    path = write_pyramid(tmp_path / "damaged.tif", EVEN, compression="jpeg")
    with tifffile.TiffFile(path) as file:
        offset, count = (values[5] for values in (file.pages[0].dataoffsets,
                                                  file.pages[0].databytecounts))  # fmt: skip
    content = bytearray(path.read_bytes())
    content[offset : offset + count] = bytes(count)
    path.write_bytes(content)
    with open_slide(path) as slide:
        with pytest.raises(SlideError, match=r"damaged\.tif .* \(64, 64\) of level 0"):
            slide.read_region((60, 60), 0, (20, 20))
        slide.read_region((128, 0), 0, (64, 64))
        slide.read_region((0, 0), 1, (64, 64))


def test_a_picture_larger_than_its_tile_is_not_decoded(tmp_path: Path):
    """A few bytes can claim 65500 x 65500 px: no memory is spent on the claim."""
    path = write_pyramid(tmp_path / "bomb.tif", EVEN, compression="jpeg")
    content = bytearray(path.read_bytes())
    with tifffile.TiffFile(path) as file:
        offset = file.pages[0].dataoffsets[0]
    start = content.index(b"\xff\xc0", offset)
    content[start + 5 : start + 9] = b"\xff\xdc\xff\xdc"
    path.write_bytes(content)
    with open_slide(path) as slide, pytest.raises(SlideError, match="65500"):
        slide.read_region((0, 0), 0, (10, 10))


def test_labels_beside_are_no_levels(tmp_path: Path):
    path = tmp_path / "beside.tif"
    label = picture(100, 80)
    with tifffile.TiffWriter(path) as file:
        for index, level in enumerate(EVEN):
            file.write(
                level, tile=(64, 64), photometric="rgb", metadata=None, subfiletype=min(index, 1)
            )
        file.write(label, photometric="rgb", metadata=None, description="label 100x80")
    with open_slide(path) as slide:
        assert len(slide.info.levels) == 2
        assert slide.info.associated_images == ("label",)
        np.testing.assert_array_equal(slide.read_associated("label"), label)


def test_a_volume_is_refused(tmp_path: Path):
    path = tmp_path / "volume.tif"
    volume = np.zeros((16, 64, 64), np.uint8)
    tifffile.imwrite(
        path, volume, tile=(16, 16, 16), volumetric=True, photometric="minisblack", metadata=None
    )
    with pytest.raises(SlideError, match=r"volume\.tif stores a volume"):
        open_slide(path)


def test_complex_values_are_refused(tmp_path: Path):
    path = tmp_path / "complex.tif"
    tifffile.imwrite(path, np.zeros((32, 32), np.complex64), metadata=None)
    with pytest.raises(SlideError, match=r"complex\.tif stores values of 64 bits"):
        open_slide(path)


def test_a_forced_tiff_reader_leaves_ndpi_to_openslide(data_dir: Path):
    path = data_dir / "wsi-hamamatsu-ndpi" / "test3-DAPI-2-387.ndpi"
    with pytest.raises(UnsupportedTiffError, match="NDPI"):
        open_slide(path, reader="tiff")


def read_everything(path: Path) -> None:
    with open_slide(path) as slide:
        for index, level in enumerate(slide.info.levels):
            slide.read_region((0, 0), index, (level.width, level.height))


@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.98])
@pytest.mark.parametrize("subifds", [False, True])
def test_truncated_anywhere_is_one_sentence(tmp_path: Path, share: float, subifds: bool):
    whole = write_pyramid(tmp_path / "whole.tif", ODD, compression="jpeg", subifds=subifds)
    content = whole.read_bytes()
    path = tmp_path / "cut.tif"
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(SlideError, match=r"cut\.tif .*(truncated|damaged|not a slide)") as caught:
        read_everything(path)
    assert "\n" not in str(caught.value)


def test_flipped_bytes_never_escape_as_other_errors(tmp_path: Path):
    """Whatever is wrong with the header: a picture, or one of our sentences."""
    whole = write_pyramid(tmp_path / "whole.tif", EVEN, compression="deflate", bigtiff=True)
    content = whole.read_bytes()
    with tifffile.TiffFile(whole) as file:
        starts = [page.offset for page in file.pages]
    rng = np.random.default_rng(3)
    refused = 0
    path = tmp_path / "flipped.tif"
    for _ in range(150):
        damaged = bytearray(content)
        for _ in range(3):
            start = starts[rng.integers(len(starts))] if rng.random() < 0.9 else 0
            damaged[min(start + int(rng.integers(0, 260)), len(damaged) - 1)] = rng.integers(256)
        path.write_bytes(damaged)
        try:
            with open_slide(path) as slide:
                slide.read_region((0, 0), 0, (300, 200))
        except SlideError:
            refused += 1
    assert refused > 20


def test_two_slides_of_one_file_share_their_tiles(tmp_path: Path):
    path = write_pyramid(tmp_path / "shared.tif", EVEN, compression="deflate")
    cache: TileCache = shared_cache()
    with open_slide(path) as first, open_slide(path) as second:
        first.read_region((0, 0), 0, (256, 192))
        misses = cache.misses
        second.read_region((0, 0), 0, (256, 192))
        assert cache.misses == misses
        first.close()
        second.read_region((0, 0), 0, (256, 192))
        assert cache.misses == misses
    assert cache.used_bytes == 0


def test_positions_are_read_without_pread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "bytes"
    path.write_bytes(bytes(range(256)))
    monkeypatch.delattr("os.pread", raising=False)
    reader = FileReader(path)
    assert reader.read(10, 4) == bytes([10, 11, 12, 13])
    assert reader.read(250, 100) == bytes(range(250, 256))


@pytest.mark.parametrize("halvings", [1, 2, 3])
def test_tiles_side_by_side_are_as_one_by_one(data_dir: Path, halvings: int):
    with open_slide(data_dir / "wsi-aperio-svs" / "CMU-1-Small-Region.svs") as slide:
        assert isinstance(slide, TiledSlide)
        together = slide.halved_row(0, 3, range(1, 8), halvings)
        assert together is not None
        for column, pixels in zip(range(1, 8), together, strict=True):
            alone = slide.tile(0, 3, column, halvings=halvings)
            np.testing.assert_array_equal(pixels, alone)
        last = -(-slide.info.width_px0 // slide.info.levels[0].tile_width) - 1
        assert slide.halved_row(0, 3, range(1, last + 1), halvings) is None, "the last one is cut"
        with pytest.raises(SlideError, match="no tile"):
            slide.halved_row(0, 3, range(1, last + 2), halvings)


def test_reading_on_gives_the_bytes_of_the_file(tmp_path: Path):
    """Also across what is read ahead at once, backwards, and beyond the end."""
    path = tmp_path / "bytes"
    data = np.random.default_rng(0).bytes(400_000)
    path.write_bytes(data)
    reader = FileReader(path)
    places = [(n, 7_001) for n in range(0, 399_000, 7_001)]
    places += [(390_000, 20_000), (5, 10), (15, 0), (15, 200_000), (200_015, 9), (400_000, 5)]
    for offset, count in places:
        assert reader.read(offset, count) == data[offset : offset + count], (offset, count)
