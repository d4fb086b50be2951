"""The classes that a project annotates with: order, keys, which may not overlap, which wins.

A set of classes is a small file that is shared with the project, so that everybody has the same
names and colours::

    {"schema_version": 1,
     "classes": [{"name": "Tumor", "color": [200, 0, 0], "key": 1}, ...],
     "exclusive": [["Tumor", "Stroma"]],
     "priority": ["Tumor", "Stroma", ...],
     "locked": false}

QuPath's own file, ``classes.json`` of a project, is read too. Where such files lie is the
caller's business.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

from napari_histomil.annotations.model import (
    RGB,
    STANDARD_CLASSES,
    AnnotationClass,
    Region,
    class_named,
    walk,
)
from napari_histomil.errors import AnnotationError
from napari_histomil.files import whole_file

SCHEMA_VERSION = 1

MOST_CLASSES = 1000
"""A file with more classes is no list of classes."""

MAX_BYTES = 2**20

KEYS = range(1, 10)
"""Number keys that choose a class."""


@dataclass(frozen=True, slots=True)
class ClassSet:
    """Classes in the order in which they are listed.

    Raises
    ------
    AnnotationError
        If a name is empty or stands twice, or a key, a group or the priority names a class that
        is not there.
    """

    classes: tuple[AnnotationClass, ...] = STANDARD_CLASSES
    keys: Mapping[int, str] = field(default_factory=dict)
    """Class of each number key, 1 to 9; where none is given, the first nine in order."""
    exclusive: tuple[frozenset[str], ...] = ()
    """Groups of classes of which no two may overlap; regions of one class may."""
    priority: tuple[str, ...] = ()
    """Which class wins where regions overlap, the strongest first; those left out follow in the
    order of the list."""
    locked: bool = False
    """Set by the lead of a project: no class is added, renamed, recoloured or taken away."""

    def __post_init__(self) -> None:
        names = [each.name for each in self.classes]
        if not all(name.strip() for name in names):
            raise AnnotationError("A class needs a name.")
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise AnnotationError(f"The class {twice} stands twice in the list of classes.")
        if not self.keys:
            object.__setattr__(self, "keys", dict(zip(KEYS, names, strict=False)))
        if not set(self.keys) <= set(KEYS):
            raise AnnotationError("Number keys of classes are 1 to 9.")
        used = [
            *self.keys.values(),
            *self.priority,
            *(n for group in self.exclusive for n in group),
        ]
        lost = next((name for name in used if name not in names), None)
        if lost is not None:
            raise AnnotationError(f"There is no class {lost} in the list of classes.")

    def named(self, name: str) -> AnnotationClass:
        """Return the class of that name; one that is not listed gets a colour made of its name."""
        return next((each for each in self.classes if each.name == name), class_named(name))

    def by_key(self, key: int) -> AnnotationClass | None:
        """Return the class that a number key chooses."""
        name = self.keys.get(key)
        return None if name is None else self.named(name)

    def key_of(self, name: str) -> int | None:
        """Return the number key of a class, None if it has none."""
        return next((key for key, each in self.keys.items() if each == name), None)

    def rivals(self, name: str | None) -> frozenset[str]:
        """Return the classes that a class may not overlap."""
        groups = (group for group in self.exclusive if name in group)
        return frozenset[str]().union(*groups) - {name}

    def by_priority(self) -> tuple[AnnotationClass, ...]:
        """Return the classes, the strongest first."""
        rank = {name: n for n, name in enumerate(self.priority)}
        return tuple(sorted(self.classes, key=lambda each: rank.get(each.name, len(rank))))

    # --- changes ------------------------------------------------------------------------------

    def with_class(self, new: AnnotationClass) -> Self:
        """Return the set with one more class, on the first key that is free.

        Raises
        ------
        AnnotationError
            If the list is locked, or there is a class of that name.
        """
        self._refuse_locked(f"{new.name} cannot be added")
        keys = dict(self.keys)
        free = next((key for key in KEYS if key not in keys), None)
        if free is not None:
            keys[free] = new.name
        return replace(self, classes=(*self.classes, new), keys=keys)

    def without(self, name: str) -> Self:
        """Return the set without a class; regions that have it keep it.

        Raises
        ------
        AnnotationError
            If the list is locked, or there is no class of that name.
        """
        self._refuse_locked(f"{name} cannot be taken away")
        self._must_have(name)
        return replace(
            self,
            classes=tuple(each for each in self.classes if each.name != name),
            keys={key: each for key, each in self.keys.items() if each != name},
            exclusive=_groups(group - {name} for group in self.exclusive),
            priority=tuple(each for each in self.priority if each != name),
        )

    def changed(self, name: str, new: AnnotationClass) -> Self:
        """Return the set with another name or colour of a class, in the same place.

        Raises
        ------
        AnnotationError
            If the list is locked, or there is no class of that name, or one of the new name.
        """
        self._refuse_locked(f"{name} cannot be changed")
        self._must_have(name)
        names = {name: new.name}
        return replace(
            self,
            classes=tuple(new if each.name == name else each for each in self.classes),
            keys={key: names.get(each, each) for key, each in self.keys.items()},
            exclusive=_groups(
                frozenset(names.get(each, each) for each in group) for group in self.exclusive
            ),
            priority=tuple(names.get(each, each) for each in self.priority),
        )

    def moved(self, name: str, place: int) -> Self:
        """Return the set with a class in another place of the list; keys stay with the classes."""
        self._must_have(name)
        rest = [each for each in self.classes if each.name != name]
        rest.insert(place, self.named(name))
        return replace(self, classes=tuple(rest))

    def with_key(self, name: str, key: int) -> Self:
        """Return the set with another number key for a class; who had it has none.

        Raises
        ------
        AnnotationError
            If the list is locked, there is no class of that name, or no such key.
        """
        self._refuse_locked("Number keys cannot be changed")
        self._must_have(name)
        keys = {k: each for k, each in self.keys.items() if each != name and k != key}
        return replace(self, keys={**keys, key: name})

    def adopting(self, regions: Iterable[Region]) -> Self:
        """Return the set with the classes of regions that it lacks; see `with_all`."""
        return self if self.locked else self.with_all(classes_of(regions))

    def with_all(self, classes: Iterable[AnnotationClass]) -> Self:
        """Return the set with those of some classes that it lacks, in their colours.

        A locked set stays as it is: what is foreign to it is for the lead to decide.
        """
        if self.locked:
            return self
        known = {each.name for each in self.classes}
        new = [each for each in classes if each.name not in known]
        return replace(self, classes=(*self.classes, *new)) if new else self

    def foreign(self, regions: Iterable[Region]) -> list[str]:
        """Return the names of classes that regions have and the set has not."""
        known = {each.name for each in self.classes}
        names = (region.class_name for region in walk(regions))
        return list(dict.fromkeys(name for name in names if name and name not in known))

    def _refuse_locked(self, what: str) -> None:
        if self.locked:
            raise AnnotationError(
                f"{what}: the classes of this project are locked by its lead. Ask for it there."
            )

    def _must_have(self, name: str) -> None:
        if all(each.name != name for each in self.classes):
            raise AnnotationError(f"There is no class {name} in the list of classes.")


def classes_of(regions: Iterable[Region]) -> tuple[AnnotationClass, ...]:
    """Return the classes that regions have, each name once, as the last of them has it."""
    found = {
        region.classification.name: region.classification
        for region in walk(regions)
        if region.classification
    }
    return tuple(found.values())


# --- files ------------------------------------------------------------------------------------


def read_classes(path: Path) -> ClassSet:
    """Read a set of classes, or QuPath's ``classes.json``.

    Raises
    ------
    AnnotationError
        If the file cannot be read, is something else, or of a newer version.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise AnnotationError(f"{path} cannot be read: {error.strerror or error}.") from error
    try:
        document = json.loads(data.decode("utf-8-sig")) if len(data) <= MAX_BYTES else None
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise AnnotationError(f"{path.name} is no list of classes: it is not JSON of that kind.")
    try:
        return _from_qupath(document) if "pathClasses" in document else _from_ours(document)
    except AnnotationError as error:
        raise AnnotationError(f"{path.name} cannot be used: {str(error).rstrip('.')}.") from None


def write_classes(path: Path, classes: ClassSet) -> None:
    """Write a set of classes, all or nothing.

    Raises
    ------
    OutputError
        If the file cannot be written there.
    """
    members = []
    for each in classes.classes:
        member: dict[str, Any] = {"name": each.name, "color": list(each.color)}
        if each.alpha != 255:
            member["alpha"] = each.alpha
        key = classes.key_of(each.name)
        if key is not None:
            member["key"] = key
        members.append(member)
    document = {
        "schema_version": SCHEMA_VERSION,
        "classes": members,
        "exclusive": [sorted(group) for group in classes.exclusive],
        "priority": list(classes.priority),
        "locked": classes.locked,
    }
    with whole_file(path) as part:
        part.write_text(
            json.dumps(document, indent=1, ensure_ascii=False) + "\n",
            encoding="utf-8",
            errors="backslashreplace",
        )


def _from_ours(document: Mapping[str, Any]) -> ClassSet:
    version = document.get("schema_version")
    if not isinstance(version, int) or isinstance(version, bool):
        raise AnnotationError("it is no list of classes, its schema_version is missing")
    if version > SCHEMA_VERSION:
        raise AnnotationError(
            f"it was written by a newer version of this program (schema {version}, this one "
            f"knows {SCHEMA_VERSION}): update napari-histomil"
        )
    classes, keys = [], {}
    for n, member in enumerate(_members(document.get("classes"), "its classes"), 1):
        alpha, key = member.get("alpha", 255), member.get("key")
        if not _byte(alpha):
            raise AnnotationError(f"the alpha of class {n} is not a whole number of 0 to 255")
        classes.append(AnnotationClass(_name(member, n), _rgb(member.get("color"), n), alpha))
        if key is not None:
            if not isinstance(key, int) or key not in KEYS or key in keys:
                raise AnnotationError(f"the key of class {n} is not one of 1 to 9 of its own")
            keys[key] = classes[-1].name
    groups = document.get("exclusive", [])
    if not isinstance(groups, list):
        raise AnnotationError("its 'exclusive' is no list of groups of classes")
    locked = document.get("locked", False)
    if not isinstance(locked, bool):
        raise AnnotationError("its 'locked' is neither true nor false")
    return ClassSet(
        tuple(classes),
        keys,
        _groups(frozenset(_names(group, "a group of 'exclusive'")) for group in groups),
        tuple(_names(document.get("priority", []), "its 'priority'")),
        locked,
    )


def _from_qupath(document: Mapping[str, Any]) -> ClassSet:
    classes = []
    for n, member in enumerate(_members(document["pathClasses"], "its pathClasses"), 1):
        name = member.get("name")
        if name is None:  # QuPath lists "no class" too
            continue
        color = member.get("color", member.get("colorRGB"))
        given = class_named(_name(member, n)).color if color is None else _rgb(color, n)
        classes.append(AnnotationClass(name, given))
    return ClassSet(tuple(classes))


def _members(value: Any, what: str) -> list[Mapping[str, Any]]:
    if not isinstance(value, list) or not all(isinstance(each, dict) for each in value):
        raise AnnotationError(f"{what} are no list of classes")
    if len(value) > MOST_CLASSES:
        raise AnnotationError(f"{what} are {len(value):,}, more than {MOST_CLASSES:,}")
    return value


def _name(member: Mapping[str, Any], n: int) -> str:
    name = member.get("name")
    if not isinstance(name, str) or not name.strip():
        raise AnnotationError(f"class {n} has no name")
    return name


def _names(value: Any, what: str) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise AnnotationError(f"{what} is no list of names")
    return list(value)


def _rgb(value: Any, n: int) -> RGB:
    """Read ``[r, g, b]``, or QuPath's packed integer 0xAARRGGBB, which Java signs."""
    if isinstance(value, int) and not isinstance(value, bool):
        return (value >> 16) & 255, (value >> 8) & 255, value & 255
    if not isinstance(value, list) or len(value) != 3 or not all(map(_byte, value)):
        raise AnnotationError(f"the colour of class {n} is not three whole numbers of 0 to 255")
    return value[0], value[1], value[2]


def _byte(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 255


def _groups(groups: Iterable[frozenset[str]]) -> tuple[frozenset[str], ...]:
    return tuple(group for group in groups if len(group) > 1)
