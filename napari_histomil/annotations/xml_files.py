"""XML of other programs: parsed without entities, its numbers and colours, texts to write.

Shared by ASAP's and ImageScope's files. Messages name the place and not the file.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any
from xml.etree.ElementTree import Element, ParseError
from xml.parsers.expat import errors as expat_errors

import numpy as np
from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring
from numpy.typing import NDArray

from napari_histomil.annotations.model import RGB
from napari_histomil.annotations.shapes import check_near
from napari_histomil.errors import AnnotationError, brief, listed

DECIMALS = 6
"""Decimals of a pixel that are written: ImageScope writes as many."""

_JUNK = expat_errors.codes[expat_errors.XML_ERROR_JUNK_AFTER_DOC_ELEMENT]
_DECLARATION = re.compile(rb"\s*(?:\xef\xbb\xbf)?\s*<\?xml[^>]*\?>")
_ILLEGAL = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_ESCAPES = {"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;",
            "\t": "&#9;", "\n": "&#10;", "\r": "&#13;"}  # fmt: skip
_ESCAPED = re.compile('[&<>"\t\n\r]')


def parse_xml(data: bytes, root: str | None = None) -> Element:
    """Return the root element.

    Parameters
    ----------
    data
        The text, in any encoding that it declares and expat knows.
    root
        Name of an element to wrap the text in where it has several roots; None refuses it.

    Raises
    ------
    AnnotationError
        If it is no XML, not whole, or has a document type or entities, with which a small file
        fills any memory.
    """
    try:
        return fromstring(data, forbid_dtd=True)
    except DefusedXmlException:
        raise AnnotationError(
            "it has a document type or entities of its own, which annotations never need and "
            "which can fill the memory: it is not read"
        ) from None
    except ParseError as error:
        if error.code == _JUNK and root is not None:
            declaration = _DECLARATION.match(data)
            body = data[declaration.end() :] if declaration else data
            name = root.encode()
            return parse_xml(b"<" + name + b">" + body + b"</" + name + b">")
        line, column = error.position
        raise AnnotationError(
            f"it is not whole or not XML: {brief(error).split(':')[0]} in line {line}, "
            f"column {column + 1}"
        ) from None
    except (LookupError, ValueError) as error:  # an encoding that nobody knows
        raise AnnotationError(f"it is not XML that can be read: {brief(error)}") from None


def unknown_notes(
    root: Element, known: Mapping[str, Collection[str] | None], program: str
) -> list[str]:
    """Return a sentence that names what a file holds and nobody reads; none if there is nothing.

    Parameters
    ----------
    root
        Of the file.
    known
        Attributes that are read, by the name of the element that has them; None for all.
    program
        Whose format it is.
    """
    found: dict[str, None] = {}
    for element in root.iter():
        allowed = known.get(element.tag, ())
        if element.tag not in known:
            found[f"<{brief(element.tag)}>"] = None
        elif allowed is not None and not element.attrib.keys() <= set(allowed):
            for name in element.attrib.keys() - set(allowed):
                found[f"{brief(name)} of <{element.tag}>"] = None
        if element.text and not element.text.isspace():
            found[f"the text in <{brief(element.tag)}>"] = None
    if not found:
        return []
    what = listed(sorted(found))
    return [f"The file holds what {program}'s files do not, and it was left out: {what}."]


def positions(elements: Sequence[Element], where: str) -> NDArray[np.float64]:
    """Return float64 [N, 2] of elements with attributes X and Y; decimal commas are read too.

    Raises
    ------
    AnnotationError
        If one is missing or not a finite number.
    """
    texts: list[str | None] = []
    for element in elements:
        texts += element.get("X"), element.get("Y")
    xy = np.array([_number(text) for text in texts], np.float64).reshape(-1, 2)
    wrong = np.flatnonzero(~np.isfinite(xy).all(axis=1))
    if wrong.size:
        index = int(wrong[0])
        x, y = texts[2 * index : 2 * index + 2]
        raise AnnotationError(
            f"vertex {index + 1} of {where} is not two finite numbers "
            f"(X = {brief(repr(x))}, Y = {brief(repr(y))})"
        )
    check_near(xy, where)
    return xy


def _number(text: str | None) -> float:
    """Read a number; NaN for what is none."""
    try:
        return float(text) if text is not None and "_" not in text else np.nan
    except ValueError:
        if text is not None and text.count(",") == 1 and "." not in text:
            return _number(text.replace(",", "."))
        return np.nan


def hex_color(text: str | None) -> RGB | None:
    """Read ``#rrggbb``; None for anything else."""
    if text is None or not re.fullmatch("#[0-9a-fA-F]{6}", text):
        return None
    return int(text[1:3], 16), int(text[3:5], 16), int(text[5:7], 16)


def color_hex(color: RGB) -> str:
    """Write ``#rrggbb``."""
    return "#{:02x}{:02x}{:02x}".format(*color)


def xml_text(text: str) -> str:
    """Return a text with what XML cannot hold at all replaced."""
    return _ILLEGAL.sub("\ufffd", text)


def attributes(pairs: Iterable[tuple[str, Any]]) -> str:
    """Return `` name="value"`` of each pair, to stand in a tag."""
    return "".join(f' {name}="{_escaped(str(value))}"' for name, value in pairs)


def _escaped(text: str) -> str:
    return _ESCAPED.sub(lambda found: _ESCAPES[found[0]], xml_text(text))


def number_texts(xy: NDArray[np.float64]) -> list[list[str]]:
    """Return the numbers of [N, 2] as texts, as short as they are exact to `DECIMALS`."""
    rounded = np.round(xy, DECIMALS) + 0.0  # no minus zero
    return [[_text(x), _text(y)] for x, y in rounded.tolist()]


def _text(value: float) -> str:
    text = repr(value)
    if text.endswith(".0"):
        return text[:-2]
    return format(value, f".{DECIMALS}f").rstrip("0") if "e" in text else text
