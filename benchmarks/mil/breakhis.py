"""BreaKHis as a table of bags, one a patient: what ``histomil compare`` takes.

    python benchmarks/mil/breakhis.py DATA/tiles-breakhis-100x -o breakhis
    histomil compare benchmarks/mil/breakhis.toml --data breakhis -o breakhis/results

The fields of a patient (100x, about 0.49 µm/px) are halved, cut into patches of 64 px and embedded
by ``tissue-encoder-small``. 15 patients, 4 of them benign: an exercise in keeping them apart, and
nothing beyond it.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import h5py
import numpy as np
from PIL import Image
from tissue_bags import MODELS, PATCH_PX, embed

from napari_histomil.manifest import load_manifest
from napari_histomil.slides.resample import mean_of_blocks


def main() -> None:
    """Write ``bags.csv`` and an HDF5 file for each patient."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="holds labels.csv, benign/ and malignant/")
    parser.add_argument("--encoder", type=Path, default=MODELS / "tissue-encoder-small")
    parser.add_argument("-o", "--output", type=Path, required=True)
    args = parser.parse_args()
    encoder = load_manifest(args.encoder)
    with (args.folder / "labels.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    (args.output / "bags").mkdir(parents=True, exist_ok=True)
    with (args.output / "bags.csv").open("w", encoding="utf-8", newline="") as stream:
        table = csv.writer(stream, lineterminator="\n")
        table.writerow(["bag", "label", "patient"])
        for patient in sorted({row["patient"] for row in rows}):
            own = [row for row in rows if row["patient"] == patient]
            patches = []
            for row in own:
                with Image.open(args.folder / row["file"]) as picture:
                    pixels = mean_of_blocks(np.asarray(picture.convert("RGB")), 2)
                for y in range(0, pixels.shape[0] - PATCH_PX + 1, PATCH_PX):
                    for x in range(0, pixels.shape[1] - PATCH_PX + 1, PATCH_PX):
                        patches.append(pixels[y : y + PATCH_PX, x : x + PATCH_PX])
            with h5py.File(args.output / "bags" / f"{patient}.h5", "w") as file:
                file["features"] = embed(encoder, patches)
            table.writerow([f"bags/{patient}.h5", own[0]["label"], patient])
    print(args.output / "bags.csv")


if __name__ == "__main__":
    main()
