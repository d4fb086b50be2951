"""Three slides of real lymph-node tissue, annotated, with the shipped models' answers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tifffile
from PIL import Image
from shapely import box

from napari_histomil.annotations.geojson import write_geojson
from napari_histomil.annotations.masks import LabelTable, MaskGrid
from napari_histomil.annotations.model import REGION, Region, SlideFrame, class_named
from napari_histomil.annotations.recovery import FILE_NAME
from napari_histomil.annotations.tracing import regions_from_mask
from napari_histomil.inference.engine import run
from napari_histomil.inference.job import plan_job
from napari_histomil.manifest import find_model
from napari_histomil.resources import sidecar
from napari_histomil.slides.readers import open_slide

MPP = 0.97
GLASS_PX = 128

SLIDES = {
    "case 1": (("10672", "10674"), ("10678", "10680")),
    "case 2": (("10679", "10673"), ("10686", "10072")),
    "case 3": (("10683", "10671"), ("10073", "10685")),
}
"""Names of tiles of 512 px, as they are laid side by side."""

MODEL, ENCODER = "metastasis-patch-small", "tissue-encoder-small"


def write_failure_slides(folder: Path, data_dir: Path) -> list[Path]:
    """Write the slides with their annotations."""
    return [_write(folder, name, rows, data_dir) for name, rows in SLIDES.items()]


def _write(folder: Path, name: str, rows, data_dir: Path) -> Path:
    source = data_dir / "seg-camelyon-tumor"

    def tile(kind: str, stem: str, mode: str) -> np.ndarray:
        (file,) = (source / kind).glob(f"{stem}*")
        with Image.open(file) as picture:
            return np.asarray(picture.convert(mode))

    def laid(kind: str, mode: str) -> np.ndarray:
        return np.vstack([np.hstack([tile(kind, stem, mode) for stem in row]) for row in rows])

    edge = (GLASS_PX, GLASS_PX)
    tissue = laid("images", "RGB")[..., ::-1]  # the channels are stored as BGR
    pixels = np.pad(tissue, (edge, edge, (0, 0)), constant_values=243)
    tumor = np.pad(laid("masks", "L") > 127, (edge, edge))
    path = folder / f"{name}.tiff"
    tifffile.imwrite(
        path, pixels, photometric="rgb", tile=(256, 256), compression="deflate",
        resolution=(1e4 / MPP, 1e4 / MPP), resolutionunit="CENTIMETER", metadata=None,
    )  # fmt: skip
    with open_slide(path) as slide:
        info = slide.info
    height, width = tumor.shape
    grid = MaskGrid(width, height, (1.0, 1.0), (MPP, MPP))
    table = LabelTable.of((class_named("Tumor"),), (1,), background=0)
    drawn = list(regions_from_mask([tumor.astype(np.uint8)], grid, table))
    tumors = [r for r in drawn if r.class_name == "Tumor" and r.geometry.area > 400]
    whole = Region(box(*(GLASS_PX,) * 2, width - GLASS_PX, height - GLASS_PX), class_named(REGION))
    work = sidecar(path, info.fingerprint)
    work.mkdir(parents=True, exist_ok=True)
    write_geojson(work / FILE_NAME, [whole, *tumors], frame=SlideFrame.of(info))
    return path


def run_shipped(paths: list[Path]) -> None:
    """Run the shipped classifier and encoder over the slides."""
    for path in paths:
        with open_slide(path) as slide:
            info = slide.info
        for name in (MODEL, ENCODER):
            list(run(plan_job(info, find_model(name)), device="cpu"))
