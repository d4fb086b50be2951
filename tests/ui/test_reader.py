"""What napari is told of a path: slides are ours, other pictures are not, nothing is raised."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import tifffile
from napari.components import ViewerModel
from PIL import Image

from napari_histomil.errors import SlideError
from napari_histomil.ui.layers import slide_of
from napari_histomil.ui.reader import get_reader, read_slide


@pytest.fixture
def tiled(write_slide):
    return write_slide(np.full((600, 700, 3), 90, np.uint8), "süß [1] & co.tiff")


def test_a_slide_becomes_a_layer_of_napari(tiled):
    read = get_reader(str(tiled))
    assert read is not None
    viewer = ViewerModel()
    (layer,) = [viewer.add_image(data, **meta) for data, meta, kind in read(str(tiled))]
    slide = slide_of(layer)
    assert slide.info.path == tiled
    assert layer.multiscale
    assert layer.rgb
    slide.close()


def test_a_list_of_one_is_a_slide_and_of_two_a_stack(tiled):
    assert get_reader([str(tiled)]) is read_slide
    assert get_reader([str(tiled), str(tiled)]) is None


def test_what_is_no_slide_is_left_to_others(tmp_path):
    picture = tmp_path / "photo.png"
    Image.new("RGB", (8, 8)).save(picture)
    text = tmp_path / "notes.tif"
    text.write_text("no picture at all")
    folder = tmp_path / "array.zarr"
    folder.mkdir()
    for path in (picture, text, folder, tmp_path / "missing.svs", tmp_path / "missing.tif"):
        assert get_reader(str(path)) is None, path.name


def test_stacks_and_photographs_are_left_to_others(tmp_path):
    volume, photo = tmp_path / "volume.tif", tmp_path / "photo.tif"
    tifffile.imwrite(volume, np.zeros((12, 40, 50), np.float32), resolution=(2e4, 2e4, 3))
    tifffile.imwrite(photo, np.zeros((400, 500, 3), np.uint8), photometric="rgb")
    assert get_reader(str(volume)) is None
    assert get_reader(str(photo)) is None


def test_a_photograph_that_knows_its_scale_is_a_slide(write_slide):
    assert get_reader(str(write_slide(np.zeros((99, 99, 3), np.uint8), mpp=0.5))) is read_slide


def test_a_broken_slide_is_ours_and_says_what_is_wrong(data_dir):
    path = data_dir / "wsi-broken" / "broken.svs"
    read = get_reader(str(path))
    assert read is not None
    with pytest.raises(SlideError, match=r"broken\.svs"):
        read(str(path))


def test_real_slides_are_ours(data_dir):
    for path in (
        "wsi-aperio-svs/CMU-1-Small-Region.svs",
        "wsi-hamamatsu-ndpi/test3-DAPI-2-387.ndpi",
        "wsi-ome-tiff/OS-1-detail.ome.tif",
    ):
        assert get_reader(str(data_dir / path)) is not None, path


def test_the_reader_needs_neither_torch_nor_qt():
    code = (
        "import sys, napari_histomil.ui.reader; "
        "print(sorted({'torch', 'timm', 'qtpy', 'napari.viewer'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
