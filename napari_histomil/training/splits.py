"""Who is on which side: groups that stay whole, folds, groups held out, leakage refused."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass, replace

import numpy as np

from napari_histomil.errors import TrainingError, listed
from napari_histomil.training.config import Split
from napari_histomil.training.fields import ArrayField, Field, SlideField


@dataclass(frozen=True, slots=True)
class Sides:
    """Fields by what they are for."""

    train: tuple[Field, ...]
    validation: tuple[Field, ...] = ()
    """The best weights and the temperature are chosen on them."""
    test: tuple[Field, ...] = ()
    """The finished net is asked about them, once."""


def connect(keys: Sequence[Sequence[str]]) -> list[str]:
    """Return the group of each item: items that share a key, also by way of others, share one.

    A group is called by the first key of its first item.
    """
    parent: dict[str, str] = {}

    def root(key: str) -> str:
        parent.setdefault(key, key)
        while parent[key] != key:
            parent[key] = parent[parent[key]]
            key = parent[key]
        return key

    for own in keys:
        for key in own[1:]:
            first, other = root(own[0]), root(key)
            if first != other:
                parent[other] = first
    return [root(own[0]) for own in keys]


def connect_sources(fields: Sequence[Field]) -> list[Field]:
    """Return fields, those that share a patient or a slide across sources in one group.

    It is called by its first field's. Groups that nothing is shared with keep their names.

    Patients are the same if their names are, slides if their content is; of tiles that were cut
    out of slides, names tell. What is called alike by chance stays on one side, which does no
    harm.
    """
    named = {f.tags.get("slide") for f in fields if not isinstance(f, SlideField)}
    roots = connect([[f.group, *_identities(f, named)] for f in fields])
    called: dict[str, str] = {}
    for one, root in zip(fields, roots, strict=True):
        called.setdefault(root, one.group)
    there: dict[tuple[str, str], str] = {}
    found: list[Field] = []
    for one, root in zip(fields, roots, strict=True):
        name, group = one.name, called[root]
        if there.setdefault((name, group), one.source) != one.source:
            name = f"{name} ({one.source})"  # so that answers about both are told apart
        if (name, group) != (one.name, one.group):
            assert isinstance(one, (ArrayField, SlideField))
            one = replace(one, name=name, group=group)
        found.append(one)
    return found


def _identities(field: Field, named: Set[str | None]) -> list[str]:
    """Return keys that fields of one patient or slide share, whatever their sources.

    Of a slide the name of its file counts only where something else, cut out of it, has no more
    than that: in a folder for each patient all may be called alike.
    """
    tags = {tag: field.tags.get(tag, "") for tag in ("patient", "slide")}
    if isinstance(field, SlideField):
        info = field.slide.info
        tags["content"] = info.fingerprint
        if tags["slide"] == info.path.name and info.path.name not in named:
            del tags["slide"]
    return [f"{tag} {value}" for tag, value in tags.items() if value]


def split_groups(groups: Iterable[str], folds: int) -> list[frozenset[str]]:
    """Share groups out among folds of nearly equal size.

    The largest group goes first, each into the fold that holds least; so it depends on the
    groups alone, not on chance.

    Parameters
    ----------
    groups
        Group of each field; one that occurs n times counts n.
    folds
        How many.

    Raises
    ------
    TrainingError
        If there are fewer groups than folds.
    """
    sizes: dict[str, int] = {}
    for group in groups:
        sizes[group] = sizes.get(group, 0) + 1
    if folds < 2 or len(sizes) < folds:
        raise TrainingError(
            f"{len(sizes)} groups cannot be split into {folds} folds: two or more folds, and a "
            f"group or more for each."
        )
    parts: list[list[str]] = [[] for _ in range(folds)]
    for group in sorted(sizes, key=lambda name: (-sizes[name], name)):
        min(parts, key=lambda part: sum(sizes[g] for g in part)).append(group)
    return [frozenset(part) for part in parts]


def refuse_leakage(train: Iterable[Field], held_out: Iterable[Field]) -> None:
    """Make sure that no group is on both sides.

    Raises
    ------
    TrainingError
        If one is.
    """
    both = sorted({f.group for f in train} & {f.group for f in held_out})
    if both:
        raise TrainingError(
            f"{both[0]} is both in the training and in the test: scores would be of no value."
        )


def hold_out(
    fields: Sequence[Field], split: Split, *, test: bool = True, seed: int | None = None
) -> Sides:
    """Take the validation and the test out of the fields, by whole groups.

    Groups are put where they bring the classes nearest to their wanted shares (iterative
    stratification, Sechidis et al. 2011, "On the stratification of multi-label data"): the groups
    of the rarest class first, in random order, each to the side that lacks most of that class.

    Parameters
    ----------
    fields
        All of them.
    split
        What is wanted.
    test
        Whether a test is taken too; a fold of a cross-validation needs only the validation.
    seed
        Instead of that of the split.

    Raises
    ------
    TrainingError
        If a group that is named is not there, one would be on both sides, or too few are left.
    """
    named = {
        "validation": _named(fields, split.validation_groups, "validation_groups", miss=test),
        "test": _named(fields, split.test_groups, "test_groups", miss=test) if test else set(),
    }
    both = sorted(named["validation"] & named["test"])
    if both:
        raise TrainingError(f"{both[0]} is both in the validation and in the test of the split.")
    shares = {
        "validation": 0.0 if split.validation_groups else split.validation,
        "test": 0.0 if split.test_groups or not test else split.test,
    }
    rest = [f for f in fields if f.group not in named["validation"] | named["test"]]
    drawn = _stratified(rest, shares, split.seed if seed is None else seed)
    side = {name: named[name] | drawn[name] for name in named}
    sides = Sides(
        tuple(f for f in fields if f.group not in side["validation"] | side["test"]),
        tuple(f for f in fields if f.group in side["validation"]),
        tuple(f for f in fields if f.group in side["test"]),
    )
    if not sides.train:
        raise TrainingError("The split leaves no group for the training: keep fewer from it.")
    refuse_leakage(sides.train, [*sides.validation, *sides.test])
    return sides


def _stratified(
    fields: Sequence[Field], shares: dict[str, float], seed: int
) -> dict[str, set[str]]:
    """Draw groups for each side that has a share; see `hold_out`."""
    drawn: dict[str, set[str]] = {name: set() for name in shares}
    wanted = {name: share for name, share in shares.items() if share > 0}
    if not wanted:
        return drawn
    groups = sorted({f.group for f in fields})
    if len(groups) <= len(wanted):
        raise TrainingError(
            f"{len(groups)} groups (patients, slides or pictures that belong together) cannot be "
            f"split into training and {' and '.join(wanted)}: add more, or leave the split out."
        )
    holds = {g: {label for f in fields if f.group == g for label in f.present} for g in groups}
    count = Counter(label for labels in holds.values() for label in labels)
    sides = {**wanted, "train": 1 - sum(wanted.values())}
    lacks = {
        side: {label: share * count[label] for label in count} for side, share in sides.items()
    }
    room = {side: share * len(groups) for side, share in sides.items()}
    rng = np.random.default_rng(seed)
    order = [groups[i] for i in rng.permutation(len(groups))]
    order.sort(key=lambda g: min((count[label] for label in holds[g]), default=0))
    taken: dict[str, set[str]] = {side: set() for side in sides}
    for left, group in zip(range(len(order), 0, -1), order, strict=True):
        empty = [side for side in sides if not taken[side]]
        choice = empty if len(empty) >= left else list(sides)
        rare = min(holds[group], key=lambda label: (count[label], label), default=None)
        best = max(
            choice,
            key=lambda side: (0.0 if rare is None else lacks[side][rare], room[side], side),
        )
        taken[best].add(group)
        room[best] -= 1
        for label in holds[group]:
            lacks[best][label] -= 1
    return {name: taken.get(name, set()) for name in shares}


def _named(fields: Sequence[Field], names: Sequence[str], member: str, *, miss: bool) -> set[str]:
    """Return the groups that names stand for.

    They are of a group, patient, slide, picture, source, or of a side of a split made before.
    """
    found: set[str] = set()
    for name in names:
        own = {
            f.group
            for f in fields
            if name
            in (
                f.group,
                f.group.removeprefix(f"{f.source}/"),
                f.name,
                f.source,
                f.tags.get("patient"),
                f.tags.get("slide"),
                f.tags.get("split"),
            )
        }
        if not own and miss:
            known = sorted({f.group for f in fields})
            raise TrainingError(
                f"split.{member}: there is no group, patient, slide or picture {name!r}; groups "
                f"are {listed(known)}."
            )
        found |= own
    return found
