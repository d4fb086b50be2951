"""Masks on disk: what is written is read again, by us and by those it is written for."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import openslide
import pytest
import tifffile
import zarr
from PIL import Image

from napari_histomil.annotations import mask_files
from napari_histomil.annotations.mask_facts import MaskFacts, facts_text
from napari_histomil.annotations.mask_files import write_mask
from napari_histomil.annotations.mask_pyramid import halved, in_strips, level_shapes, pyramid
from napari_histomil.annotations.mask_reading import open_mask
from napari_histomil.annotations.masks import LabelTable, MaskGrid
from napari_histomil.annotations.model import AnnotationClass, class_named
from napari_histomil.errors import AnnotationError, OutputError, SlideError
from tests.annotations.mask_material import blobs, slide_info

INFO = slide_info(2805, 1604, (0.499, 0.5))
TABLE = LabelTable.of([class_named("Tumor"), AnnotationClass("Стрóма", (1, 2, 3))])
VALUES = (0, 1, 2, 255)
NAMES = ["mask.ome.tif", "маска [1].tif", "mask.zarr", "mask.png"]


def facts_for(name, table=TABLE):
    own = name.endswith(".tif") and not name.endswith(".ome.tif")
    return MaskFacts.of(MaskGrid.cover(INFO, None if own else 2.1), table, INFO)


def cut(mask, rows):
    return (mask[top : top + rows] for top in range(0, len(mask), rows))


def read(path, info=INFO):
    with open_mask(path, info) as mask:
        return np.concatenate(list(mask.bands())), mask.facts, mask.notes


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("rows", [17, 1000, 5000])
def test_what_is_written_is_read(tmp_path, name, rows):
    facts = facts_for(name)
    pixels = blobs(*facts.grid.shape, VALUES)
    write_mask(tmp_path / name, cut(pixels, rows), facts)
    again, found, notes = read(tmp_path / name)
    np.testing.assert_array_equal(again, pixels)
    assert again.dtype == np.uint8
    assert (found, notes) == (facts, ())
    left = {path.name for path in tmp_path.iterdir()}
    assert left == ({name, "mask.png.json"} if name.endswith(".png") else {name})


@pytest.mark.parametrize("name", NAMES)
def test_two_bytes_a_pixel(tmp_path, name):
    table = LabelTable.of([class_named("Tumor")], [300])
    facts = facts_for(name, table)
    pixels = blobs(*facts.grid.shape, (0, 300, 65535), np.uint16)
    write_mask(tmp_path / name, cut(pixels, 512), facts)
    again, found, _ = read(tmp_path / name)
    np.testing.assert_array_equal(again, pixels)
    assert again.dtype == np.uint16
    assert found == facts


def test_a_mask_is_replaced(tmp_path):
    for name in ("mask.ome.tif", "mask.zarr", "mask.png"):
        facts = facts_for(name)
        for value in (1, 2):
            pixels = np.full(facts.grid.shape, value, np.uint8)
            write_mask(tmp_path / name, [pixels], facts)
        assert (read(tmp_path / name)[0] == 2).all()


@pytest.mark.parametrize("name", NAMES)
def test_what_fails_on_the_way_leaves_nothing_or_the_old_mask(tmp_path, name):
    facts = facts_for(name)
    pixels = np.ones(facts.grid.shape, np.uint8)

    def half():
        yield pixels[:600]
        raise AnnotationError("A band cannot be made.")

    with pytest.raises(AnnotationError, match="A band cannot be made"):
        write_mask(tmp_path / name, half(), facts)
    assert list(tmp_path.iterdir()) == []
    write_mask(tmp_path / name, [pixels], facts)
    with pytest.raises(AnnotationError, match="A band cannot be made"):
        write_mask(tmp_path / name, half(), facts)
    np.testing.assert_array_equal(read(tmp_path / name)[0], pixels)
    with pytest.raises(OutputError, match="does not exist"):
        write_mask(tmp_path / "no folder" / name, [pixels], facts)


def test_a_folder_that_is_no_zarr_is_not_replaced(tmp_path):
    folder = tmp_path / "mask.zarr"
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")
    facts = facts_for("mask.zarr")
    with pytest.raises(OutputError, match="is something else"):
        write_mask(folder, [np.ones(facts.grid.shape, np.uint8)], facts)
    assert (folder / "notes.txt").read_text() == "mine"


# --- for others -------------------------------------------------------------------------------


def test_ome_tiff_has_tiles_levels_and_micrometres(tmp_path):
    path = tmp_path / "mask.ome.tif"
    facts = facts_for(path.name)
    pixels = blobs(*facts.grid.shape, VALUES)
    write_mask(path, [pixels], facts)
    with tifffile.TiffFile(path) as tiff:
        levels = tiff.series[0].levels
        assert [level.shape for level in levels] == level_shapes(facts.grid.shape, 512)
        assert tiff.pages.first.tile == (512, 512)
        xml = tiff.ome_metadata
        assert 'PhysicalSizeX="2.1"' in xml
        assert 'PhysicalSizeXUnit="µm"' in xml
        np.testing.assert_array_equal(levels[1].asarray(), halved(pixels))


def test_asaps_mask_has_the_slides_size_and_levels_that_openslide_sees(tmp_path):
    path = tmp_path / "mask.tif"
    facts = facts_for(path.name)
    pixels = blobs(*facts.grid.shape, VALUES)
    write_mask(path, [pixels], facts)
    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages.first
        assert page.shape == (INFO.height_px0, INFO.width_px0)
        assert (page.compression.name, page.tile, page.dtype) == ("LZW", (512, 512), np.uint8)
        assert page.resolution == pytest.approx((1e4 / 0.499, 1e4 / 0.5))
    with openslide.OpenSlide(path) as seen:
        assert seen.level_dimensions == ((2805, 1604), (1403, 802), (702, 401), (351, 201))
        patch = np.asarray(seen.read_region((1000, 700), 0, (300, 200)))[..., 0]
        np.testing.assert_array_equal(patch, pixels[700:900, 1000:1300])


def test_asaps_mask_is_refused_at_another_size(tmp_path):
    facts = MaskFacts.of(MaskGrid.cover(INFO, 2), TABLE, INFO)
    with pytest.raises(AnnotationError, match=r"slide's own size: leave --mpp out"):
        write_mask(tmp_path / "mask.tif", iter(()), facts)


def test_ome_zarr_says_what_image_viewers_ask(tmp_path):
    path = tmp_path / "mask.zarr"
    facts = facts_for(path.name)
    write_mask(path, [blobs(*facts.grid.shape, VALUES)], facts)
    group = zarr.open_group(path, mode="r")
    ome = group.attrs["ome"]
    (image,) = ome["multiscales"]
    assert [axis["unit"] for axis in image["axes"]] == ["micrometer"] * 2
    first = image["datasets"][0]["coordinateTransformations"]
    assert first[0] == {"type": "scale", "scale": [2.1, 2.1]}
    assert first[1]["translation"] == pytest.approx([(2.1 - 0.5) / 2, (2.1 - 0.499) / 2])
    assert {"label-value": 2, "rgba": [1, 2, 3, 255]} in ome["image-label"]["colors"]
    assert {"label-value": 2, "class": "Стрóма"} in ome["image-label"]["properties"]
    assert group["0"].dtype == np.uint8


def test_png_has_the_values_and_its_facts_beside_it(tmp_path, monkeypatch):
    path = tmp_path / "mask.png"
    facts = facts_for(path.name)
    pixels = blobs(*facts.grid.shape, VALUES)
    write_mask(path, [pixels], facts)
    np.testing.assert_array_equal(np.asarray(Image.open(path)), pixels)
    facts_json = json.loads((tmp_path / "mask.png.json").read_text())["histomil"]
    assert facts_json["mpp"] == [2.1, 2.1]
    assert facts_json["classes"][1] == {"value": 2, "name": "Стрóма", "color": [1, 2, 3]}
    monkeypatch.setattr(mask_files, "MAX_PNG_PX", 1000)
    with pytest.raises(AnnotationError, match="too large for a PNG"):
        write_mask(path, [pixels], facts)


REPLACED = """
import os, sys
import numpy as np
from pathlib import Path
from napari_histomil.annotations.mask_files import write_mask
from napari_histomil.annotations.masks import LabelTable
from napari_histomil.annotations.model import AnnotationClass
from tests.annotations.test_mask_files import facts_for
calls, replace = [], os.replace
def killed(source, target):
    calls.append(target)
    if len(calls) > int(sys.argv[2]):
        os._exit(9)
    replace(source, target)
os.replace = killed
facts = facts_for("mask.png", LabelTable.of([AnnotationClass("New", (7, 8, 9))]))
write_mask(Path(sys.argv[1]), [np.full(facts.grid.shape, 2, np.uint8)], facts)
"""
"""Writes another mask with another table over one, and is killed after so many moves."""


@pytest.mark.parametrize("old", [True, False])
@pytest.mark.parametrize("moves", [0, 1, 2])
def test_a_killed_writer_leaves_no_png_with_a_table_of_another(tmp_path, old, moves):
    path = tmp_path / "mask.png"
    facts = facts_for(path.name)
    if old:
        write_mask(path, [np.ones(facts.grid.shape, np.uint8)], facts)
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", REPLACED, str(path), str(moves)], cwd=root, check=False
    )
    assert done.returncode == (0 if moves == 2 else 9)
    assert path.is_file() is (old or moves == 2)
    if path.is_file():
        pixels, found, _ = read(path)
        names = [each.name for each in found.table.classes]
        assert (pixels[0, 0], names) in [(1, ["Tumor", "Стрóма"]), (2, ["New"])]
        assert pixels[0, 0] == (2 if moves == 2 else 1)
        assert (tmp_path / "mask.png.json").is_file()


def test_a_png_that_cannot_be_placed_keeps_the_old_one_and_its_table(tmp_path, monkeypatch):
    path = tmp_path / "mask.png"
    facts = facts_for(path.name)
    write_mask(path, [np.ones(facts.grid.shape, np.uint8)], facts)
    before = (tmp_path / "mask.png.json").read_text()
    replace = os.replace

    def refused(source, target):
        if str(target).endswith(".png"):
            raise PermissionError(13, "Permission denied")
        replace(source, target)

    monkeypatch.setattr(os, "replace", refused)
    other = facts_for(path.name, LabelTable.of([class_named("Other")]))
    with pytest.raises(OutputError, match="Permission denied"):
        write_mask(path, [np.full(facts.grid.shape, 2, np.uint8)], other)
    assert (tmp_path / "mask.png.json").read_text() == before
    assert sorted(each.name for each in tmp_path.iterdir()) == ["mask.png", "mask.png.json"]
    assert read(path)[1].table == TABLE


def test_a_png_alone_and_one_of_an_older_version_are_read(tmp_path):
    path = tmp_path / "mask.png"
    facts = facts_for(path.name)
    pixels = blobs(*facts.grid.shape, VALUES)
    write_mask(path, [pixels], facts)
    beside = tmp_path / "mask.png.json"
    text = beside.read_text()
    beside.unlink()
    assert read(path)[1:] == (facts, ())
    Image.fromarray(pixels).save(path)  # nothing inside
    beside.write_text(text)
    assert read(path)[1:] == (facts, ())


# --- levels -----------------------------------------------------------------------------------


def test_a_smaller_level_has_the_most_common_value():
    four = [[1, 1, 2, 3], [1, 2, 3, 3], [4, 5, 1, 2], [6, 7, 2, 1], [8, 9, 0, 0]]
    assert halved(np.array(four, np.uint8)).tolist() == [[1, 3], [4, 1], [8, 0]]
    for values in np.indices((4, 4, 4, 4)).reshape(4, -1).T:
        counts = np.bincount(values, minlength=4)
        best = int(halved(values.reshape(2, 2).astype(np.uint8))[0, 0])
        assert counts[best] == counts.max()


def test_strips_do_not_depend_on_the_bands():
    rows = np.arange(23, dtype=np.uint8)[:, None] * np.ones((1, 3), np.uint8)
    for step in (1, 5, 8, 30):
        strips = list(in_strips(cut(rows, step), 8))
        assert [len(strip) for strip in strips] == [8, 8, 7]
        np.testing.assert_array_equal(np.concatenate(strips), rows)


def test_a_pyramid_in_strips_is_that_of_the_whole(tmp_path):
    whole = np.random.default_rng(0).integers(0, 4, (101, 67), np.uint8)
    levels = [np.concatenate(list(level)) for level in pyramid(cut(whole, 9), 4, 16, tmp_path)]
    for level in levels:
        np.testing.assert_array_equal(level, whole)
        whole = halved(whole)
    assert list(tmp_path.iterdir()) == []


# --- what others wrote, and what is damaged ---------------------------------------------------


def test_a_mask_of_another_program_covers_the_slide(tmp_path):
    pixels = blobs(401, 701, (0, 3))
    Image.fromarray(pixels).save(tmp_path / "m.png")
    again, facts, notes = read(tmp_path / "m.png", slide_info(2807, 1604, (0.5, 0.5)))
    np.testing.assert_array_equal(again, pixels)
    assert facts.grid == MaskGrid(701, 401, (4.0, 4.0), (2.0, 2.0))
    assert facts.table.unlabelled == 0
    assert "0 is taken for unlabelled" in notes[0]
    with pytest.raises(AnnotationError, match="say which slide"):
        open_mask(tmp_path / "m.png")
    with pytest.raises(AnnotationError, match="not of the shape"):
        open_mask(tmp_path / "m.png", slide_info(2807, 3000, None))


def test_strips_of_a_tiff_and_single_bits_are_read(tmp_path):
    pixels = blobs(300, 200, (0, 1)).astype(bool)
    tifffile.imwrite(tmp_path / "m.tif", pixels, photometric="minisblack")
    again, _, _ = read(tmp_path / "m.tif", slide_info(200, 300, None))
    np.testing.assert_array_equal(again, pixels.astype(np.uint8))
    assert again.dtype == np.uint8


def test_a_mask_of_another_slide_is_refused(tmp_path):
    facts = facts_for("mask.png")
    write_mask(tmp_path / "mask.png", [np.zeros(facts.grid.shape, np.uint8)], facts)
    with pytest.raises(AnnotationError, match="of another slide"):
        open_mask(tmp_path / "mask.png", slide_info(2805, 1604, (0.5, 0.5), "cd" * 32))


def test_no_mask_is_one_sentence(tmp_path):
    Image.new("RGB", (9, 9)).save(tmp_path / "colour.png")
    (tmp_path / "text.png").write_text("no picture")
    (tmp_path / "text.tif").write_text("no picture")
    (tmp_path / "empty.zarr").mkdir()
    tifffile.imwrite(tmp_path / "float.tif", np.zeros((9, 9), np.float32))
    for name in ("colour.png", "text.png", "text.tif", "empty.zarr", "float.tif", "missing.tif"):
        with pytest.raises((AnnotationError, SlideError)) as caught:
            open_mask(tmp_path / name, slide_info(9, 9, None))
        assert name in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["mask.ome.tif", "mask.png"])
def test_a_cut_off_file_is_one_sentence(tmp_path, name):
    path = tmp_path / name
    facts = facts_for(name)
    pixels = np.random.default_rng(0).choice(np.array(VALUES, np.uint8), facts.grid.shape)
    write_mask(path, [pixels], facts)
    whole = path.read_bytes()
    for share in (0.001, 0.1, 0.3, 0.6):
        path.write_bytes(whole[: int(len(whole) * share)])
        with pytest.raises((AnnotationError, SlideError), match=r"mask\.") as caught:
            read(path)
        assert "\n" not in str(caught.value)
    path.write_bytes(whole[:-1])  # of a smaller level, or the mark of the end
    np.testing.assert_array_equal(read(path)[0], pixels)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"schema_version": 2}, "newer"),
        ({"pixel_px0": [0, 1]}, "above 0"),
        ({"pixel_px0": [float("nan"), 1]}, "damaged"),
        ({"classes": [{"value": 0, "name": "A", "color": [0, 0, 0]}]}, "both have the value 0"),
        ({"classes": [{"value": 1, "name": "A", "color": [0, 0, 999]}]}, "damaged"),
        ({"classes": None}, "damaged"),
        ({"slide": []}, "damaged"),
        ({"unlabelled": "x"}, "damaged"),
    ],
)
def test_damaged_facts_are_one_sentence(tmp_path, change, words):
    document = json.loads(facts_text(facts_for("mask.png")))
    document["histomil"] |= change
    Image.new("L", (9, 9)).save(tmp_path / "mask.png")
    (tmp_path / "mask.png.json").write_text(json.dumps(document))
    with pytest.raises(AnnotationError, match=words):
        open_mask(tmp_path / "mask.png", slide_info(9, 9, None))
