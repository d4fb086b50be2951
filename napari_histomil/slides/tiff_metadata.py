"""What a TIFF says of itself beside its pixels: µm/px, objective, channels, in three dialects.

Aperio writes ``key = value`` pairs into the description, OME an XML document; everything else
has at most the resolution tags of TIFF itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree.ElementTree import Element, ParseError

import tifffile
from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring

from napari_histomil.errors import SlideError, brief
from napari_histomil.slides.composite import Channel, Rgb
from napari_histomil.slides.resolution import (
    Mpp,
    mpp_from_dots,
    plausible_magnification,
    plausible_mpp,
)

UM_PER_RESOLUTION_UNIT = {2: 25_400.0, 3: 10_000.0, 4: 1_000.0, 5: 1.0}
"""Inch, centimetre; millimetre and micrometre are written by some programs beyond the standard."""

ICC_TAG = 34675

UM_PER_OME_UNIT = {
    "µm": 1.0,  # with the micro sign U+00B5, as OME writes it
    "μm": 1.0,  # with the Greek letter U+03BC
    "um": 1.0,
    "nm": 1e-3,
    "Å": 1e-4,
    "pm": 1e-6,
    "mm": 1e3,
    "cm": 1e4,
    "dm": 1e5,
    "m": 1e6,
    "in": 25_400.0,
}


@dataclass(frozen=True, slots=True)
class Metadata:
    """What was found; everything may be missing."""

    vendor: str
    mpp: Mpp | None = None
    objective_power: float | None = None
    channels: tuple[Channel, ...] = ()
    significant_bits: int | None = None
    properties: Mapping[str, str] = field(default_factory=dict)
    icc: bytes = b""
    """Colour profile of the pixels."""


def aperio_metadata(page: tifffile.TiffPage) -> Metadata:
    """Read an Aperio description: free lines, then ``|key = value`` pairs."""
    pairs = {}
    for part in page.description.split("|")[1:]:
        key, equals, value = part.partition("=")
        if equals:
            pairs[key.strip()] = value.strip()
    return Metadata(
        vendor="aperio",
        mpp=plausible_mpp(pairs.get("MPP"), pairs.get("MPP")),
        objective_power=plausible_magnification(pairs.get("AppMag")),
        properties={f"aperio.{key}": value for key, value in pairs.items()} | _tags(page),
        icc=_profile(page),
    )


def plain_metadata(page: tifffile.TiffPage) -> Metadata:
    """Read the resolution tags of TIFF, with their unit."""
    return Metadata(
        vendor="tiff", mpp=_mpp_from_tags(page), properties=_tags(page), icc=_profile(page)
    )


def ome_metadata(page: tifffile.TiffPage, document: Element, image_index: int) -> Metadata:
    """Read the OME-XML of one image of the file.

    Parameters
    ----------
    document
        Root of the XML, from `parse_ome`.
    image_index
        Which ``Image`` of the document.
    """
    images = _children(document, "Image")
    image = images[image_index] if image_index < len(images) else None
    pixels = next(iter(_children(image, "Pixels")), None) if image is not None else None
    if image is None or pixels is None:
        return Metadata(vendor="ome", properties=_tags(page), icc=_profile(page))
    bits = pixels.get("SignificantBits", "")
    return Metadata(
        vendor="ome",
        mpp=plausible_mpp(_length_um(pixels, "X"), _length_um(pixels, "Y")),
        objective_power=_objective(document, image),
        channels=tuple(
            Channel(element.get("Name") or f"channel {index + 1}", _ome_color(element))
            for index, element in enumerate(_children(pixels, "Channel"))
        ),
        significant_bits=int(bits) if bits.isdecimal() else None,
        properties={f"ome.{key}": value for key, value in pixels.attrib.items()}
        | {"ome.Name": image.get("Name", "")}
        | _tags(page, description=False),
        icc=_profile(page),
    )


def parse_ome(text: str, path: Path) -> Element:
    """Parse the OME-XML of a file.

    Raises
    ------
    SlideError
        If it is not well-formed, or has entities (which a file from outside must not).
    """
    try:
        root: Element = fromstring(text)
    except (ParseError, DefusedXmlException, ValueError) as error:
        raise SlideError(
            f"{path.name} has a damaged description (OME-XML): {brief(error)}."
        ) from error
    return root


def _mpp_from_tags(page: tifffile.TiffPage) -> Mpp | None:
    unit = UM_PER_RESOLUTION_UNIT.get(_integer(page.tags.valueof(296, 2)))
    dots = [_ratio(page.tags.valueof(code, None)) for code in (282, 283)]
    if unit is None or dots[0] is None or dots[1] is None:
        return None
    return mpp_from_dots((dots[0], dots[1]), unit)


def _profile(page: tifffile.TiffPage) -> bytes:
    value = page.tags.valueof(ICC_TAG, b"")
    return value if isinstance(value, bytes) else b""


def _integer(value: object) -> int:
    return int(value) if isinstance(value, int) else 0


def _ratio(value: object) -> float | None:
    if not (isinstance(value, tuple) and len(value) == 2):
        return None
    return value[0] / value[1] if value[1] else None


def _tags(page: tifffile.TiffPage, description: bool = True) -> dict[str, str]:
    """Return the tags that a person may want to read."""
    names = ["Make", "Model", "Software", "DateTime"]
    names += ["XResolution", "YResolution", "ResolutionUnit"]
    if description:
        names.insert(0, "ImageDescription")
    found = {}
    for name in names:
        tag = page.tags.get(name)
        if tag is None:
            continue
        value = tag.value
        ratio = _ratio(value)
        shown = f"{ratio:g}" if ratio is not None else str(getattr(value, "name", value))
        found[f"tiff.{name}"] = shown
    return found


def _children(element: Element, name: str) -> list[Element]:
    """Return the children of that name in any namespace: every OME version has its own."""
    return [child for child in element if child.tag.rpartition("}")[2] == name]


def _length_um(pixels: Element, axis: str) -> float | None:
    factor = UM_PER_OME_UNIT.get(pixels.get(f"PhysicalSize{axis}Unit", "µm"))
    try:
        value = float(pixels.get(f"PhysicalSize{axis}", ""))
    except ValueError:
        return None
    return value * factor if factor is not None else None


def _objective(document: Element, image: Element) -> float | None:
    settings = next(iter(_children(image, "ObjectiveSettings")), None)
    for instrument in _children(document, "Instrument"):
        for objective in _children(instrument, "Objective"):
            if settings is None or objective.get("ID") == settings.get("ID"):
                return plausible_magnification(objective.get("NominalMagnification"))
    return None


def _ome_color(channel: Element) -> Rgb | None:
    """Return the colour, stored as a signed 32-bit integer of red, green, blue, opacity."""
    try:
        packed = int(channel.get("Color", "")) & 0xFFFFFFFF
    except ValueError:
        return None
    color = packed >> 24, packed >> 16 & 255, packed >> 8 & 255
    return color if any(color) else None
