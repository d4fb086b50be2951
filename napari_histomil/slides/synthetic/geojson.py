"""The truth of a synthetic slide as an annotation file that this program and QuPath read."""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import Any

from shapely.geometry import Polygon
from shapely.geometry.polygon import orient

from napari_histomil.files import whole_file
from napari_histomil.slides.identity import fingerprint_file
from napari_histomil.slides.synthetic.render import SyntheticTruth

CLASSES = {"Tumor": (200, 0, 0), "Region*": (0, 0, 180)}
"""Names and colours as QuPath has them; ``Region*`` is its class for an area of interest."""
SIMPLIFY_PX0 = 0.5
"""Outlines are thinned by no more than this."""
_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "napari-histomil/synthetic")


def write_truth(path: Path, truth: SyntheticTruth, slide: Path) -> None:
    """Write tumour and tissue outlines as a GeoJSON FeatureCollection, level-0 px.

    Parameters
    ----------
    path
        The file to write.
    truth
        What is known of the slide.
    slide
        The slide's file: its name and fingerprint are written, and decide the objects' ids.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    fingerprint = fingerprint_file(slide)
    features = [
        _feature(polygon, name, f"{fingerprint}/{name}/{number}")
        for name, polygons in (("Region*", truth.tissue), ("Tumor", truth.tumour))
        for number, polygon in enumerate(polygons)
    ]
    document = {
        "type": "FeatureCollection",
        "histomil": {
            "schema_version": 1,
            "origin_px0": [0, 0],
            "slide": {"name": slide.name, "fingerprint": fingerprint},
        },
        "features": features,
    }
    with whole_file(path) as part:
        part.write_text(json.dumps(document, separators=(",", ":")) + "\n", encoding="utf-8")


def _feature(polygon: Polygon, name: str, key: str) -> dict[str, Any]:
    outline = orient(polygon.simplify(SIMPLIFY_PX0))
    rings = [
        [[round(x, 2), round(y, 2)] for x, y in ring.coords]
        for ring in (outline.exterior, *outline.interiors)
    ]
    return {
        "type": "Feature",
        "id": str(uuid.uuid5(_NAMESPACE, key)),
        "geometry": {"type": "Polygon", "coordinates": rings},
        "properties": {
            "objectType": "annotation",
            "classification": {"name": name, "color": list(CLASSES[name])},
            "isLocked": name == "Region*",
        },
    }
