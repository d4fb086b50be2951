"""Write a synthetic slide, with its truth beside it (``python -m ...`` OUT.tiff)."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from napari_histomil.errors import HistomilError
from napari_histomil.slides.synthetic.geojson import write_truth
from napari_histomil.slides.synthetic.render import INKS
from napari_histomil.slides.synthetic.write import QUALITY, write_synthetic


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the slide that the arguments ask for; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m napari_histomil.slides.synthetic",
        description="Write a procedural H&E slide of a lymph node with metastases as a pyramidal "
        "TIFF, and its tumour and tissue outlines as GeoJSON beside it.",
    )
    parser.add_argument("slide", type=Path, help="the .tiff file to write")
    parser.add_argument("--width", type=int, default=6000, help="px (default 6000)")
    parser.add_argument("--height", type=int, default=4500, help="px (default 4500)")
    parser.add_argument("--mpp", type=float, default=0.5, help="µm/px (default 0.5)")
    parser.add_argument("--seed", type=int, default=0, help="chooses the slide (default 0)")
    parser.add_argument("--pen", choices=[*INKS, "none"], default="green", help="ink on the glass")
    parser.add_argument("--quality", type=int, default=QUALITY, help="of the JPEG tiles")
    given = parser.parse_args(arguments)
    try:
        truth = write_synthetic(
            given.slide,
            width=given.width,
            height=given.height,
            mpp=given.mpp,
            seed=given.seed,
            pen="" if given.pen == "none" else given.pen,
            quality=given.quality,
        )
        write_truth(given.slide.with_suffix(".geojson"), truth, given.slide)
    except HistomilError as error:
        print(error, file=sys.stderr)
        return 2
    print(given.slide)
    return 0


if __name__ == "__main__":
    sys.exit(main())
