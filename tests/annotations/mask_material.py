"""A slide's facts without a slide, and a mask with every kind of value, for tests of masks."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from napari_histomil.slides.slide import Level, SlideInfo


def slide_info(
    width: int, height: int, mpp: tuple[float, float] | None, fingerprint: str = "ab" * 32
) -> SlideInfo:
    return SlideInfo(
        path=Path("зріз 1.svs"),
        reader="tiff",
        vendor="test",
        width_px0=width,
        height_px0=height,
        mpp_x=mpp[0] if mpp else None,
        mpp_y=mpp[1] if mpp else None,
        mpp_source="file" if mpp else None,
        objective_power=None,
        levels=(Level(width, height, 1.0, 256, 256),),
        channels=("R", "G", "B"),
        dtype="uint8",
        composite="",
        bounds_px0=None,
        associated_images=(),
        properties={},
        fingerprint=fingerprint,
    )


def blobs(rows: int, columns: int, values: tuple[int, ...], dtype: type = np.uint8) -> np.ndarray:
    """Patches of 40 pixels, no two neighbours' sizes alike."""
    rng = np.random.default_rng(rows)
    coarse = rng.choice(np.array(values, dtype), (rows // 40 + 1, columns // 40 + 1))
    return np.kron(coarse, np.ones((40, 40), dtype))[:rows, :columns]
