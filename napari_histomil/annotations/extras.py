"""What files say as a whole, beside their regions, kept with the set of a slide.

A slide's set keeps what the first file says; of what a later one says about the same thing, a
sentence tells that it was left out. Which region belongs to which layer or document stands in the
regions; names are what joins them, so nothing is renumbered.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from napari_histomil.annotations import asap, dsa, imagescope
from napari_histomil.annotations.qupath_lines import dumped
from napari_histomil.errors import brief, listed

_WORDS = {
    imagescope.OWN: "its layers",
    dsa.OWN: "its documents",
}
"""How messages call what the formats hold of their own."""


def joined(
    ours: Mapping[str, Any], theirs: Mapping[str, Any], source: str
) -> tuple[Mapping[str, Any], list[str]]:
    """Return what a set says as a whole once a file has come in, and sentences on what is lost.

    Parameters
    ----------
    ours
        `AnnotationSet.extra`.
    theirs
        `AnnotationFile.extra`.
    source
        What sentences call the file.
    """
    result = dict(ours)
    lost: list[str] = []
    unwritable: list[str] = []
    for name, value in theirs.items():
        try:
            dumped(value)
        except (TypeError, ValueError, RecursionError):  # nested too deeply for a file
            unwritable.append(f"'{brief(name)}'")
            continue
        if name not in ours:
            result[name] = value
        elif name == asap.OWN:
            result[name], other = _with_groups(ours[name], value)
            lost += other
        elif ours[name] != value:
            lost.append(_WORDS.get(name, f"'{brief(name)}'"))
    notes = []
    if lost:
        notes.append(
            f"{source} says something else about {listed(lost)} than what is kept here of an "
            f"earlier file: that of {source} was left out."
        )
    if unwritable:
        notes.append(f"{listed(unwritable)} of {source} cannot be kept: it is nested too deeply.")
    return (result if result != dict(ours) else ours), notes


def _with_groups(ours: Any, theirs: Any) -> tuple[Any, list[str]]:
    """Return ASAP's groups of both, each name once, and the names that mean two things."""
    if not (isinstance(ours, Mapping) and isinstance(theirs, Mapping)):
        return ours, [] if ours == theirs else ["its groups"]
    groups = list(_groups(ours))
    known = {group.get("name"): group for group in groups}
    lost = []
    for group in _groups(theirs):
        name = group.get("name")
        if name not in known:
            known[name] = group
            groups.append(group)
        elif known[name] != group:
            lost.append(f"its group {brief(str(name))}")
    return {**ours, "groups": groups}, lost


def _groups(held: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    groups = held.get("groups")
    if not isinstance(groups, list):
        return []
    return [each for each in groups if isinstance(each, Mapping)]
