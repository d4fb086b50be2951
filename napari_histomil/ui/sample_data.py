"""npe2 sample data: the project's own slide, a small public picture, a slide to download."""

from __future__ import annotations

from pathlib import Path

import pooch
import shapely
import skimage.data

from napari_histomil.annotations.geojson import read_geojson
from napari_histomil.errors import HistomilError
from napari_histomil.resources import packaged, user_data_dir
from napari_histomil.slides.readers import open_slide
from napari_histomil.ui.layers import METADATA_KEY, LayerData, polygons_layer, slide_layer

SAMPLE_SLIDE = "synthetic-lymph-node.tiff"
SAMPLE_ANNOTATIONS = "synthetic-lymph-node.geojson"
OUTLINE_PX0 = 12
"""Width of an outline in level-0 pixels: still seen where the whole sample is."""

CMU_NAME = "CMU-1-Small-Region.svs"
CMU_URL = f"https://openslide.cs.cmu.edu/download/openslide-testdata/Aperio/{CMU_NAME}"
CMU_SHA256 = "ed92d5a9f2e86df67640d6f92ce3e231419ce127131697fbbce42ad5e002c8a7"


def sample_slide() -> list[LayerData]:
    """Return the slide that travels with the program, and the true outlines of its tumour."""
    folder = packaged("sample_data")
    slide = open_slide(folder / SAMPLE_SLIDE)
    regions = [
        (part, region.classification)
        for region in read_geojson(folder / SAMPLE_ANNOTATIONS).regions
        if region.classification is not None and region.classification.name == "Tumor"
        for part in shapely.get_parts(region.geometry)
    ]
    outlines = polygons_layer(
        [part for part, _ in regions],
        slide.info,
        name="true outlines of tumour",
        edge_color=[[channel / 255 for channel in kind.color] for _, kind in regions],
        face_color="transparent",
        edge_width=OUTLINE_PX0,
        features={"class": [kind.name for _, kind in regions]},
    )
    return [slide_layer(slide), outlines]


def immunohistochemistry() -> list[LayerData]:
    """Return scikit-image's picture of colonic glands, brown where FHL2 is.

    It is a picture, not a slide: nobody states how many µm its pixels span, so it has no scale.
    """
    attributes = {
        "name": "immunohistochemistry",
        "rgb": True,
        "metadata": {
            METADATA_KEY: {
                "kind": "picture",
                "source": "skimage.data.immunohistochemistry: colonic glands, FHL2 (DAB) with "
                "haematoxylin, Center for Microscopy And Molecular Imaging (CMMI)",
                "mpp": None,
            }
        },
    }
    return [(skimage.data.immunohistochemistry(), attributes, "image")]


def cmu_1_small_region() -> list[LayerData]:
    """Return OpenSlide's small Aperio slide, downloaded at the first call (1.9 MB).

    Raises
    ------
    HistomilError
        If it is not on this computer and cannot be downloaded.
    """
    return [slide_layer(open_slide(fetch_cmu_1_small_region()))]


def fetch_cmu_1_small_region(url: str = CMU_URL) -> Path:
    """Return the file of OpenSlide's small Aperio slide, downloaded where it is missing.

    Raises
    ------
    HistomilError
        If it cannot be downloaded, or is not the file it should be.
    """
    folder = user_data_dir() / "downloads"
    try:
        file = pooch.retrieve(
            url,
            known_hash=f"sha256:{CMU_SHA256}",
            fname=CMU_NAME,
            path=folder,
            downloader=pooch.HTTPDownloader(timeout=20),
        )
    except (OSError, ValueError) as error:  # no network; not the file that was asked for
        raise HistomilError(
            f"{CMU_NAME} could not be downloaded from {url} ({type(error).__name__}): check the "
            f"network, or put the file into {folder} yourself."
        ) from error
    return Path(file)
