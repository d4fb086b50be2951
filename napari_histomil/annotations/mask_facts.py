"""What a mask's file says besides its pixels, as JSON: the same in every format.

::

    {"histomil": {"schema_version": 1,
                  "slide": {"name": "slide.svs", "fingerprint": "..."},
                  "pixel_px0": [8.016, 8.016], "mpp": [4.0, 4.0],
                  "background": 0, "unlabelled": 255,
                  "classes": [{"value": 1, "name": "Tumor", "color": [200, 0, 0]}]}}

``pixel_px0`` is (width, height) of a mask pixel in level-0 pixels of the slide, ``mpp`` in µm
(null where unknown); the first pixel's corner is the slide's corner.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any

from napari_histomil.annotations.masks import LabelTable, MaskGrid
from napari_histomil.annotations.model import AnnotationClass
from napari_histomil.errors import AnnotationError
from napari_histomil.slides.slide import SlideInfo

SCHEMA_VERSION = 1
MEMBER = "histomil"


@dataclass(frozen=True, slots=True)
class MaskFacts:
    """What is known of a mask."""

    grid: MaskGrid
    table: LabelTable
    slide: str = ""
    """File name of the slide; empty if unknown."""
    fingerprint: str = ""
    """`SlideInfo.fingerprint`; empty if unknown."""

    @classmethod
    def of(cls, grid: MaskGrid, table: LabelTable, info: SlideInfo) -> MaskFacts:
        """Return the facts of a mask of a slide."""
        return cls(grid, table, info.path.name, info.fingerprint)


def facts_text(facts: MaskFacts) -> str:
    """Return the facts as JSON in ASCII, which every format can hold."""
    table, mpp = facts.table, facts.grid.mpp_xy
    classes = [
        {"value": value, "name": kind.name, "color": list(kind.color)}
        for value, kind in zip(table.values, table.classes, strict=True)
    ]
    member = {
        "schema_version": SCHEMA_VERSION,
        "slide": {"name": facts.slide, "fingerprint": facts.fingerprint},
        "pixel_px0": list(facts.grid.pixel_px0),
        "mpp": None if mpp is None else list(mpp),
        "background": table.background,
        "unlabelled": table.unlabelled,
        "classes": classes,
    }
    return json.dumps({MEMBER: member})


def read_facts(text: str, shape: tuple[int, int], where: str) -> MaskFacts | None:
    """Return what a text says of a mask; None if it is none of ours.

    Parameters
    ----------
    text
        What a file holds as its description.
    shape
        (rows, columns) of the mask's pixels.
    where
        What messages call the file.

    Raises
    ------
    AnnotationError
        If it is ours and damaged, or of a newer program.
    """
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(document, dict) or not isinstance(document.get(MEMBER), dict):
        return None
    member = document[MEMBER]
    version = member.get("schema_version")
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise AnnotationError(
            f"{where} was written by a newer napari-histomil (schema version {version}): "
            f"update the program to read it."
        )
    try:
        return _facts(member, shape)
    except (AnnotationError, KeyError, TypeError, ValueError, AttributeError) as error:
        reason = str(error).rstrip(".") if isinstance(error, AnnotationError) else "it is damaged"
        raise AnnotationError(
            f"What {where} says of its own pixels and classes cannot be used: {reason}."
        ) from None


def _facts(member: dict[str, Any], shape: tuple[int, int]) -> MaskFacts:
    rows, columns = shape
    mpp = member["mpp"]
    grid = MaskGrid(columns, rows, _pair(member["pixel_px0"]), None if mpp is None else _pair(mpp))
    kinds = [
        AnnotationClass(str(item["name"]), _color(item["color"])) for item in member["classes"]
    ]
    table = LabelTable.of(
        kinds,
        [_whole(item["value"]) for item in member["classes"]],
        background=_whole(member["background"]),
        unlabelled=_whole(member["unlabelled"]),
    )
    slide = member["slide"]
    return MaskFacts(grid, table, str(slide["name"]), str(slide["fingerprint"]))


def _pair(value: Any) -> tuple[float, float]:
    first, second = (float(v) for v in value)
    if not (math.isfinite(first) and math.isfinite(second)):
        raise ValueError
    return first, second


def _whole(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError
    return value


def _color(value: Any) -> tuple[int, int, int]:
    red, green, blue = (_whole(v) for v in value)
    if not all(0 <= v <= 255 for v in (red, green, blue)):
        raise ValueError
    return red, green, blue
