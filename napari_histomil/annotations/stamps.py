"""Who did something to a region, when, and how it was judged: in its metadata, which QuPath shows.

The keys are ``author``, ``created``, ``edited``, ``note``, ``state`` and ``reviewer``; `Region`
has a property for each.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from getpass import getuser
from typing import Self

from napari_histomil.annotations.model import Region, State


@dataclass(frozen=True, slots=True)
class Stamp:
    """A person and a time."""

    author: str
    time: str
    """UTC in ISO 8601, to the second: ``2026-11-29T08:00:00Z``."""

    @classmethod
    def now(cls, author: str | None = None) -> Self:
        """Return the present time; the author is the user of the system where none is given."""
        time = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        return cls(system_user() if author is None else author, time)


def system_user() -> str:
    """Return the name by which the system knows the person; empty if it knows none."""
    try:
        return getuser()
    except (OSError, KeyError, ImportError):  # a container without an entry for the user
        return ""


def as_drawn(region: Region, stamp: Stamp) -> Region:
    """Return a region with author and time of creation, where it has none yet."""
    told = {"author": stamp.author, "created": stamp.time}
    new = {key: value for key, value in told.items() if value and key not in region.metadata}
    return region.but(metadata={**region.metadata, **new}) if new else region


def as_edited(metadata: Iterable[Mapping[str, str]], stamp: Stamp) -> Iterator[Mapping[str, str]]:
    """Yield the metadata of regions with the time of the edit; equal ones are one object."""
    bare: Mapping[str, str] = {"edited": stamp.time}
    known: dict[tuple[tuple[str, str], ...], Mapping[str, str]] = {}
    for each in metadata:
        if not each:
            yield bare
            continue
        key = tuple(each.items())
        if key not in known:
            known[key] = {**each, "edited": stamp.time}
        yield known[key]


def with_entry(metadata: Mapping[str, str], key: str, value: str) -> Mapping[str, str]:
    """Return metadata with another value of an entry; an empty one takes the entry away."""
    rest = {name: text for name, text in metadata.items() if name != key}
    return {**metadata, key: value} if value else rest


def judged(region: Region, state: State, stamp: Stamp) -> Region:
    """Return a region with its state, and who set it: back to a draft nobody did."""
    metadata = with_entry(region.metadata, "state", "" if state == "draft" else state)
    reviewer = "" if state == "draft" else stamp.author
    return region.but(metadata=with_entry(metadata, "reviewer", reviewer))
