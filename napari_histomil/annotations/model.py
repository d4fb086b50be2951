"""What a person (or a program) drew on a slide: regions with a class, in level-0 pixels.

A region is a value: it is never changed, only replaced. Files are read and written in
`geojson.py`; nothing here knows of a format.
"""

from __future__ import annotations

import colorsys
import hashlib
import re
import uuid
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from itertools import repeat
from operator import attrgetter
from types import MappingProxyType
from typing import Any, Literal, Self

import numpy as np
import shapely
from shapely.geometry import (
    LineString,
    MultiLineString,
    MultiPoint,
    MultiPolygon,
    Point,
    Polygon,
)
from shapely.geometry.base import BaseGeometry

from napari_histomil.errors import AnnotationError
from napari_histomil.slides.slide import SlideInfo

RGB = tuple[int, int, int]

SHAPES = (Point, MultiPoint, LineString, MultiLineString, Polygon, MultiPolygon)
"""Kinds of geometry that a region may have: those that QuPath can write and read."""

MAX_COORDINATE_PX0 = 1e9
"""No slide is larger; coordinates beyond this are damage, and lose their decimals as floats."""

UNCLASSIFIED_COLOR: RGB = (255, 0, 0)
"""What a region without class and colour is drawn in, as in QuPath."""

_UUID = re.compile("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")

_REASONS = MappingProxyType(
    {
        "Self-intersection": "its outline crosses itself",
        "Ring Self-intersection": "its outline touches itself",
        "Hole lies outside shell": "a hole lies outside its outline",
        "Holes are nested": "a hole lies inside another hole",
        "Nested shells": "one of its parts lies inside another",
        "Duplicate Rings": "it holds the same outline twice",
        "Interior is disconnected": "its holes cut it into pieces",
        "Too few points in geometry component": "an outline has fewer than three different points",
    }
)
"""GEOS's reasons for an invalid shape, in plain words."""


@dataclass(frozen=True, slots=True)
class AnnotationClass:
    """A class with its colour.

    By QuPath's conventions a name with ``": "`` is derived (``Tumor: Positive``), and a name
    that ends in ``*`` is no class of tissue: ``Region*`` says where to look, ``Ignore*`` where
    not to look.
    """

    name: str
    color: RGB
    alpha: int = 255


STANDARD_CLASSES: tuple[AnnotationClass, ...] = (
    AnnotationClass("Tumor", (200, 0, 0)),
    AnnotationClass("Stroma", (150, 200, 150)),
    AnnotationClass("Immune cells", (160, 90, 160)),
    AnnotationClass("Necrosis", (50, 50, 50)),
    AnnotationClass("Other", (255, 200, 0)),
    AnnotationClass("Region*", (0, 0, 180)),
    AnnotationClass("Ignore*", (180, 180, 180)),
    AnnotationClass("Positive", (200, 50, 50)),
    AnnotationClass("Negative", (90, 90, 180)),
)
"""QuPath's classes with QuPath's colours."""

REGION = "Region*"
"""Name of the class of what is annotated exhaustively: inside, no annotation means background."""

IGNORE = "Ignore*"
"""Name of the class of what is not to be looked at."""

State = Literal["draft", "reviewed", "locked"]
"""How far the judgement of a region has come. ``locked`` is a reviewer's last word on it."""

STATES: tuple[State, ...] = ("draft", "reviewed", "locked")


def is_starred(name: str | None) -> bool:
    """Say whether a class is none of tissue but says something about a place: ``Region*``."""
    return name is not None and name.endswith("*")


def class_named(name: str) -> AnnotationClass:
    """Return the class of that name: a standard one, or one with a colour made of the name.

    The same name gets the same colour in every session and on every machine.
    """
    for standard in STANDARD_CLASSES:
        if standard.name == name:
            return standard
    hue = hashlib.sha256(name.encode("utf-8", "surrogatepass")).digest()[0] / 256
    red, green, blue = (round(255 * value) for value in colorsys.hsv_to_rgb(hue, 0.65, 0.8))
    return AnnotationClass(name, (red, green, blue))


@dataclass(frozen=True, slots=True)
class Extra:
    """Members of a file's object that this program does not use, kept to be written back."""

    feature: Mapping[str, Any] = field(default_factory=dict)
    properties: Mapping[str, Any] = field(default_factory=dict)
    geometry: Mapping[str, Any] = field(default_factory=dict)
    """QuPath's ``plane`` and ``isEllipse`` are here."""
    nucleus: Mapping[str, Any] = field(default_factory=dict)
    classification: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Region:
    """A shape on a slide with its class.

    Raises
    ------
    AnnotationError
        If the geometry is of another kind than `SHAPES`, has a coordinate that is not a number
        or lies farther out than `MAX_COORDINATE_PX0`, or the id is no UUID. A shape that is
        merely broken (its outline crosses itself) is allowed, because files hold such shapes:
        see `problem`.
    """

    geometry: BaseGeometry
    """In level-0 pixels (x, y). Empty for an object without a place of its own."""
    classification: AnnotationClass | None = None
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    """UUID as `uuid` writes it; stays the same when the region is replaced by an edited one."""
    name: str | None = None
    color: RGB | None = None
    """The region's own colour, where it shall not have that of its class."""
    locked: bool = False
    object_type: str = "annotation"
    """``annotation``, ``detection``, ``tile``, ``cell``, ``tmaCore`` or ``root``."""
    measurements: Mapping[str, float] = field(default_factory=dict)
    metadata: Mapping[str, str] = field(default_factory=dict)
    nucleus: BaseGeometry | None = None
    """Of a cell, in level-0 pixels."""
    children: tuple[Region, ...] = ()
    extra: Extra = field(default_factory=Extra)

    def __post_init__(self) -> None:
        self._check(self.geometry)
        if self.nucleus is not None:
            self._check(self.nucleus)
        self._check_id()

    def but(self, **changes: Any) -> Self:
        """Return the region with other values of some fields; only what is new is checked.

        `dataclasses.replace` gives the same, but looks at every coordinate again: a second for
        the classes of 100,000 regions.

        Raises
        ------
        AnnotationError
            As on creation.
        TypeError
            If there is no such field.
        """
        copy = object.__new__(type(self))
        for name in _FIELDS:
            value = changes.pop(name) if name in changes else getattr(self, name)
            object.__setattr__(copy, name, value)
        if changes:
            raise TypeError(f"A region has no field {', '.join(changes)}.")
        copy._check_new(self)
        return copy

    def _check_new(self, old: Region) -> None:
        """Check what differs from a region that was checked."""
        if self.geometry is not old.geometry:
            self._check(self.geometry)
        if self.nucleus is not old.nucleus and self.nucleus is not None:
            self._check(self.nucleus)
        if self.id is not old.id:
            self._check_id()

    def _check_id(self) -> None:
        if _UUID.fullmatch(self.id) is None:  # in one spelling: two would be two regions
            raise AnnotationError(f"The id of a region must be a UUID, not {self.id!r}.")

    def _check(self, shape: BaseGeometry) -> None:
        if not isinstance(shape, SHAPES):
            kind = getattr(shape, "geom_type", type(shape).__name__)
            raise AnnotationError(
                f"{self.label} is a {kind}: a region is a point, a line or a polygon, "
                f"or several of one kind."
            )
        xy = shapely.get_coordinates(shape)
        if xy.size and not np.abs(xy).max() <= MAX_COORDINATE_PX0:  # NaN compares as false
            if not np.isfinite(xy).all():
                raise AnnotationError(f"{self.label} has a coordinate that is not a number.")
            farthest = max(xy.min(), xy.max(), key=abs)
            raise AnnotationError(
                f"{self.label} has a coordinate of {farthest:g} px, farther out than any slide."
            )

    @property
    def class_name(self) -> str | None:
        """Name of the class; None for an unclassified region."""
        return self.classification.name if self.classification else None

    @property
    def shown_color(self) -> RGB:
        """The region's own colour, else that of its class, else QuPath's red."""
        if self.color is not None:
            return self.color
        return self.classification.color if self.classification else UNCLASSIFIED_COLOR

    @property
    def is_areal(self) -> bool:
        """Whether the region has an area: a polygon or several."""
        return isinstance(self.geometry, Polygon | MultiPolygon) and not self.geometry.is_empty

    @property
    def author(self) -> str:
        """Who drew the region; empty if unknown."""
        return self.metadata.get("author", "")

    @property
    def created(self) -> str:
        """When it was drawn: UTC in ISO 8601, to the second; empty if unknown."""
        return self.metadata.get("created", "")

    @property
    def edited(self) -> str:
        """When anything of it was changed last, as `created`; empty if never."""
        return self.metadata.get("edited", "")

    @property
    def note(self) -> str:
        """What a person wrote about it."""
        return self.metadata.get("note", "")

    @property
    def state(self) -> State:
        """How far its judgement has come; what other programs wrote there is a draft."""
        found = self.metadata.get("state", "draft")
        return next((state for state in STATES if state == found), "draft")

    @property
    def reviewer(self) -> str:
        """Who set its state; empty if nobody did."""
        return self.metadata.get("reviewer", "")

    @property
    def is_fixed(self) -> bool:
        """Whether shape, class and name shall stay: QuPath's lock, or a reviewer's last word."""
        return self.locked or self.state == "locked"

    @property
    def label(self) -> str:
        """How messages call the region: by its name, else its class, with the start of its id."""
        words = [f"'{self.name}'"] if self.name else []
        if self.classification:
            words.append(self.classification.name)
        return " ".join(["Region", *words, f"({self.id[:8]})"])

    def problem(self) -> str | None:
        """Return a sentence if the shape is broken, saying which and where; None if it is not.

        Broken are shapes with no well-defined inside: an outline that crosses itself, a hole
        outside, ... Programs disagree about the area and the mask of such shapes.
        """
        if shapely.is_valid(self.geometry):
            return None
        reason = shapely.is_valid_reason(self.geometry)
        found = re.fullmatch(r"(?P<what>[^\[]+?)\s*\[(?P<x>\S+) (?P<y>\S+)\]", reason)
        if found is None:
            return f"{self.label} is broken: {reason}."
        what = _REASONS.get(found["what"], found["what"])
        x, y = float(found["x"]), float(found["y"])
        return f"{self.label} is broken: {what} near x = {x:.0f}, y = {y:.0f} (level-0 pixels)."

    def area_um2(self, mpp_xy: tuple[float, float]) -> float:
        """Return the area in µm², holes left out; 0 for points and lines.

        Parameters
        ----------
        mpp_xy
            Micrometres that a level-0 pixel spans along (x, y).

        Raises
        ------
        AnnotationError
            If the shape is broken: it then has no well-defined area.
        """
        if not self.is_areal:
            return 0.0
        problem = self.problem()
        if problem:
            raise AnnotationError(problem)
        return float(self.geometry.area) * mpp_xy[0] * mpp_xy[1]


_KINDS = (-1, *(shapely.get_type_id(kind()) for kind in SHAPES))
"""What GEOS calls the kinds of `SHAPES`; -1 is None."""

_FIELDS = tuple(each.name for each in fields(Region))

_SETTERS = {name: vars(Region)[name].__set__ for name in _FIELDS}
"""Each puts a value into a field of a region that is being made; for `each_but` only."""


def each_but(regions: Collection[Region], **columns: Iterable[Any]) -> list[Region]:
    """Return `Region.but` of many regions, twice as quickly.

    Parameters
    ----------
    regions
        Any number.
    columns
        For every field that changes, one value a region, in their order.

    Raises
    ------
    AnnotationError
        As on creation.
    """
    given = {name: list(values) for name, values in columns.items()}
    for name, values in given.items():
        if name not in _FIELDS:
            raise TypeError(f"A region has no field {name}.")
        if len(values) != len(regions):
            raise ValueError(f"{len(values)} values of {name} for {len(regions)} regions")
    copies: list[Region] = list(map(object.__new__, repeat(Region, len(regions))))
    for name in _FIELDS:  # column by column: the loops then run in C
        column = given[name] if name in given else map(attrgetter(name), regions)
        deque(map(_SETTERS[name], copies, column), maxlen=0)
    if not _sound(given.get("geometry", ()), given.get("nucleus", ())):
        for old, new in zip(regions, copies, strict=True):
            new._check_new(old)
    if "id" in given:
        for new in copies:
            new._check_id()
    return copies


def _sound(geometries: Sequence[BaseGeometry], nuclei: Sequence[BaseGeometry | None]) -> bool:
    """Whether `Region._check` would find nothing, looked at all at once."""
    shapes = np.empty(len(geometries) + len(nuclei), dtype=object)
    shapes[:] = [*geometries, *nuclei]
    kinds = shapely.get_type_id(shapes)
    if not np.isin(kinds, _KINDS).all() or shapely.is_missing(shapes[: len(geometries)]).any():
        return False
    xy = shapely.get_coordinates(shapes)
    return not xy.size or bool(np.abs(xy).max() <= MAX_COORDINATE_PX0)


@dataclass(frozen=True, slots=True)
class SlideFrame:
    """The slide that a file's positions refer to, and where the file's origin lies on it.

    QuPath shows slides cropped to their bounds and counts from there; this program counts from
    the corner of the whole slide, as OpenSlide does.
    """

    origin_px0: tuple[float, float] = (0.0, 0.0)
    """(x, y) of the file's origin in level-0 pixels."""
    slide: str = ""
    """File name of the slide; empty if unknown."""
    fingerprint: str = ""
    """Content of the slide, `SlideInfo.fingerprint`; empty if unknown."""

    @classmethod
    def of(cls, info: SlideInfo) -> SlideFrame:
        """Return QuPath's frame of a slide: cropped to its bounds where it has them."""
        bounds = info.bounds_px0
        origin = (bounds.x_px0, bounds.y_px0) if bounds else (0.0, 0.0)
        return cls(origin, info.path.name, info.fingerprint)


def walk(regions: Iterable[Region]) -> Iterator[Region]:
    """Yield every region and, after it, its children, their children and so on."""
    for region in regions:
        yield region
        yield from walk(region.children)


def areal_polygons(regions: Iterable[Region]) -> list[Polygon]:
    """Return where the regions tell to look: their polygons, without what is ``Ignore*``.

    Parameters
    ----------
    regions
        Of any kind; points and lines have no area and are passed over.

    Returns
    -------
    list of Polygon
        In level-0 pixels. As drawn where no region is of class ``Ignore*``; else the united
        area with those regions cut out.

    Raises
    ------
    AnnotationError
        If a region with an area is broken.
    """
    wanted: list[BaseGeometry] = []
    ignored: list[BaseGeometry] = []
    for region in walk(regions):
        if not region.is_areal:
            continue
        problem = region.problem()
        if problem:
            raise AnnotationError(f"{problem} Mend the shape first.")
        (ignored if region.class_name == IGNORE else wanted).append(region.geometry)
    if ignored:
        rest = shapely.difference(shapely.union_all(wanted), shapely.union_all(ignored))
        wanted = [rest]
    parts = [part for shape in wanted for part in shapely.get_parts(shape)]
    return [part for part in parts if isinstance(part, Polygon) and part.area > 0]
