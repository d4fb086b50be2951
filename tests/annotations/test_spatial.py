"""Which places lie in regions of which class."""

from __future__ import annotations

import numpy as np
import shapely

from napari_histomil.annotations.model import AnnotationClass, Region
from napari_histomil.annotations.spatial import classes_at


def test_classes_at_places():
    tumor, stroma = AnnotationClass("Tumor", (200, 0, 0)), AnnotationClass("Stroma", (0, 200, 0))
    regions = [
        Region(shapely.box(0, 0, 10, 10), tumor),
        Region(shapely.box(20, 0, 30, 10), tumor),
        Region(shapely.box(5, 5, 25, 8), stroma),
        Region(shapely.box(0, 50, 1, 51)),
    ]
    found = classes_at(np.array([(2, 2), (7, 6), (22, 6), (15, 6), (40, 40)]), regions)
    assert {name: inside.tolist() for name, inside in found.items()} == {
        "Tumor": [True, True, True, False, False],
        "Stroma": [False, True, True, True, False],
        None: [False] * 5,
    }
    assert classes_at(np.zeros((3, 2)), []) == {}
