"""What a MIL model looked at, in the file of another program: which format is written by what."""

from __future__ import annotations

from pathlib import Path

from napari_histomil.exchange.attention import Shown, write_geojson, write_h5
from napari_histomil.exchange.attention_pictures import write_png, write_tiff
from napari_histomil.slides.slide import Slide

PICTURES = ("png", "tiff")
"""Formats that hold one of `attention.VALUES`; the others hold all that there is."""


def write_attention(
    shown: Shown, path: Path, kind: str, values: str = "rank", slide: Slide | None = None
) -> None:
    """Write a map.

    Parameters
    ----------
    shown
        The map.
    path
        A new file.
    kind
        ``h5`` as CLAM's heatmaps, ``geojson`` of tiles for QuPath, ``tiff`` that ASAP lays over
        the slide, ``png`` with bars for people.
    values
        A key of `attention.VALUES`, for `PICTURES`.
    slide
        What a ``png`` lies over; without it, over white.

    Raises
    ------
    RunError
        If the model has none of these values.
    OutputError
        If the file cannot be written.
    """
    if kind == "h5":
        write_h5(shown, path)
    elif kind == "geojson":
        write_geojson(shown, path)
    elif kind == "tiff":
        write_tiff(shown, path, values)
    else:
        write_png(shown, path, slide, values)
