"""Sample data: placed, honest about their scale, and clear when there is no network."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from napari.components import ViewerModel

from napari_histomil.errors import HistomilError
from napari_histomil.ui.layers import ours, shapes_to_px0, slide_of
from napari_histomil.ui.sample_data import (
    CMU_NAME,
    cmu_1_small_region,
    fetch_cmu_1_small_region,
    immunohistochemistry,
    sample_slide,
)


def test_the_sample_slide_comes_with_its_tumour():
    viewer = ViewerModel()
    (image, image_meta, _), (shapes, shapes_meta, _) = sample_slide()
    layer = viewer.add_image(image, **image_meta)
    outlines = viewer.add_shapes(shapes, **shapes_meta)
    with slide_of(layer) as slide:
        assert slide.info.mpp_xy == pytest.approx((0.5, 0.5))
        polygons = shapes_to_px0(outlines, slide.info)
        assert len(polygons) >= 3
        assert set(outlines.features["class"]) == {"Tumor"}
        # Tumour is violet, neither glass nor fat: its mean red lies well below the glass's.
        for polygon in polygons:
            x, y = (int(value) for value in polygon.representative_point().coords[0])
            inside = slide.read_region((x - 50, y - 50), 0, (100, 100))
            assert inside[..., 1].mean() < 190


def test_immunohistochemistry_claims_no_scale():
    ((data, meta, kind),) = immunohistochemistry()
    assert (data.shape, kind) == ((512, 512, 3), "image")
    layer = ViewerModel().add_image(data, **meta)
    assert [str(unit) for unit in layer.units] == ["pixel", "pixel"]
    assert ours(layer)["mpp"] is None
    assert "scikit-image" in ours(layer)["source"] or "skimage" in ours(layer)["source"]
    assert slide_of(layer) is None


def test_no_network_is_one_sentence(own_user_data):
    with pytest.raises(HistomilError, match="check the network") as caught:
        fetch_cmu_1_small_region("http://127.0.0.1:9/nothing.svs")
    assert CMU_NAME in str(caught.value)
    assert not list((own_user_data / "downloads").glob("*.svs"))


def test_a_downloaded_slide_is_not_downloaded_again(own_user_data, data_dir):
    downloads = own_user_data / "downloads"
    downloads.mkdir()
    shutil.copy(data_dir / "wsi-aperio-svs" / CMU_NAME, downloads)
    ((data, meta, _),) = cmu_1_small_region()
    layer = ViewerModel().add_image(data, **meta)
    with slide_of(layer) as slide:
        assert slide.info.path == downloads / CMU_NAME
        assert np.asarray(data[-1]).shape == data[-1].shape
