"""Features as lines of text: many regions at once.

Nearly all of a large file are coordinates of polygons, so their text is made of whole arrays:
QuPath keeps hundredths of a pixel, so a number is a whole part and one of a hundred endings.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from operator import add
from typing import Any

import numpy as np
import shapely
from shapely.geometry.base import BaseGeometry

from napari_histomil.annotations.model import Region
from napari_histomil.annotations.qupath import feature_from_region, own_properties
from napari_histomil.annotations.shapes import DECIMALS, Shift

BATCH = 4096
"""Regions whose text is made at once: some MB."""

_ENDINGS = ["", *(f"{n / 100:.2f}"[1:].rstrip("0") for n in range(1, 100))]
_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False)
_ESCAPING = json.JSONEncoder(separators=(",", ":"), allow_nan=False)


def feature_lines(regions: Iterable[Region], shift: Shift) -> Iterator[bytes]:
    """Yield the Feature of each region as a line without its end.

    Parameters
    ----------
    regions
        In level-0 pixels of the whole slide.
    shift
        (x, y) to take from every coordinate.
    """
    waiting = iter(regions)
    while batch := list(islice(waiting, BATCH)):
        usual = [region for region in batch if _usual(region)]
        texts = _polygon_texts(
            [
                shape
                for region in usual
                for shape in (region.geometry, region.nucleus)
                if shape is not None
            ],
            shift,
        )
        ready = {id(region) for region in usual} if texts is not None else set()
        made = iter(texts or ())
        for region in batch:
            if id(region) in ready:
                shapes = next(made), None if region.nucleus is None else next(made)
                yield _line(region, *shapes) or dumped(feature_from_region(region, shift))
            else:
                yield dumped(feature_from_region(region, shift))


def _usual(region: Region) -> bool:
    """Return whether a region is a polygon without objects inside, as cells are."""
    nucleus = region.nucleus
    return (
        region.geometry.geom_type == "Polygon"
        and not region.children
        and (nucleus is None or nucleus.geom_type == "Polygon")
        and not region.geometry.is_empty
        and not (nucleus is not None and nucleus.is_empty)
    )


def _line(region: Region, shape: str, nucleus: str | None) -> bytes | None:
    """Return the line of a region whose shapes' texts are made; None if it needs more care."""
    extra = region.extra
    try:
        inside = [f'"geometry":{_member(shape, extra.geometry)}']
        if nucleus is not None:
            inside.append(f'"nucleusGeometry":{_member(nucleus, extra.nucleus)}')
        properties = own_properties(region)
        if extra.properties:
            properties |= extra.properties
        inside.append(f'"properties":{_ENCODER.encode(properties)}')
        if extra.feature:
            if not extra.feature.keys().isdisjoint(_OWN):
                return None
            inside.append(_ENCODER.encode(dict(extra.feature))[1:-1])
        return f'{{"type":"Feature","id":"{region.id}",{",".join(inside)}}}'.encode()
    except ValueError:  # a number that JSON does not have, or half of a surrogate pair
        return None


_OWN = {"type", "id", "geometry", "nucleusGeometry", "properties"}


def _member(coordinates: str, extra: Mapping[str, Any]) -> str:
    more = f",{_ENCODER.encode(dict(extra))[1:-1]}" if extra else ""
    return f'{{"type":"Polygon","coordinates":[{coordinates}]{more}}}'


def _polygon_texts(shapes: Sequence[BaseGeometry], shift: Shift) -> list[str] | None:
    """Return the text of the rings of each polygon; None where a coordinate is negative."""
    if not shapes:
        return []
    array = np.array(shapes, dtype=object)
    rings, polygon = shapely.get_rings(array, return_index=True)
    xy = np.round((shapely.get_coordinates(rings) - shift) * 10**DECIMALS).astype(np.int64)
    if xy.min() < 0:
        return None
    whole, rest = np.divmod(xy.ravel(), 10**DECIMALS)
    endings = map(_ENDINGS.__getitem__, rest.tolist())
    numbers = list(map(add, map(str, whole.tolist()), endings))
    pairs = list(map("[%s,%s]".__mod__, zip(numbers[::2], numbers[1::2], strict=True)))
    ends = np.cumsum(shapely.get_num_coordinates(rings)).tolist()
    texts: list[list[str]] = [[] for _ in shapes]
    start = 0
    for end, index in zip(ends, polygon.tolist(), strict=True):
        texts[index].append(f"[{','.join(pairs[start:end])}]")
        start = end
    return [",".join(each) for each in texts]


def dumped(value: Any) -> bytes:
    """Return JSON in one line, whatever texts and numbers it holds."""
    try:
        return _ENCODER.encode(value).encode()
    except UnicodeEncodeError:  # half of a surrogate pair: legal in JSON only as an escape
        return _ESCAPING.encode(value).encode()
    except ValueError:  # an infinite number in a member that we only hand on
        return dumped(_without_infinity(value))


def _without_infinity(value: Any) -> Any:
    """Write numbers that JSON does not have as texts, as QuPath does."""
    if isinstance(value, Mapping):
        return {key: _without_infinity(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_infinity(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value
