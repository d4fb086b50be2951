"""The regions of one slide as they change: commands done, undone and done again; found by place.

A command holds what was there before and what is there after it, by id, so that replaying it
either way is exact and costs no memory but the pairs themselves. How commands are made from a
person's intentions is in `commands.py`, how they come to lie on disk in `keeping.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from operator import is_
from typing import Any, ClassVar

import numpy as np
import shapely
from psygnal import Signal

from napari_histomil.annotations.model import Region
from napari_histomil.annotations.spatial import SpatialIndex, moved_of, rect_of, shapes_of
from napari_histomil.errors import AnnotationError
from napari_histomil.geometry import Rect

BULK = 1000
"""A command of more regions has the totals counted again rather than kept up one by one."""


@dataclass(frozen=True, slots=True)
class Command:
    """What one step changes. An id in both mappings is a region that is replaced.

    Parameters
    ----------
    text
        What the step does, in words that follow "Undo": ``delete 3 regions``.
    removed
        Regions before the step, by id.
    added
        Regions after it, by id.
    removed_at
        Positions in the drawing order before the step, of those that leave their place.
    added_at
        Positions in the drawing order after it, of those that take a new place; new regions
        without one come to lie on top. An id in both mappings that is named here moves.
    extra
        What the set says as a whole before the step and after it, see `AnnotationSet.extra`; None
        where that stays.
    """

    text: str
    removed: Mapping[str, Region] = field(default_factory=dict)
    added: Mapping[str, Region] = field(default_factory=dict)
    removed_at: Mapping[str, int] = field(default_factory=dict)
    added_at: Mapping[str, int] = field(default_factory=dict)
    extra: tuple[Mapping[str, Any], Mapping[str, Any]] | None = None

    def inverse(self) -> Command:
        """Return the command that takes this one back."""
        extra = None if self.extra is None else (self.extra[1], self.extra[0])
        return Command(self.text, self.added, self.removed, self.added_at, self.removed_at, extra)


Recalled = Callable[["AnnotationSet"], Command]
"""Fetches a command of an earlier day, when the set is as it was just after it (or before it, if
it was undone)."""


@dataclass(frozen=True, slots=True)
class Change:
    """What a step did to a set."""

    added: tuple[str, ...]
    changed: tuple[str, ...]
    removed: tuple[str, ...]
    bounds_px0: Rect | None
    """Covers all regions touched, as they were and as they are; None if none has a place."""


@dataclass(frozen=True, slots=True)
class ClassTotal:
    """How many regions a class has and what they cover, overlaps counted twice."""

    count: int
    area_px0: float


class AnnotationSet:
    """Regions of one slide in drawing order, with undo and redo of everything.

    Parameters
    ----------
    regions
        What is there at first; the last is on top.
    extra
        What the file that they come from says as a whole, `AnnotationFile.extra`.
    past, future
        Steps of an earlier day, oldest first, that can be undone and redone: `Recalled` when
        they are reached.

    Raises
    ------
    AnnotationError
        If two regions have one id.
    """

    changed: ClassVar[Signal] = Signal(Change)
    """Emitted after every step, undone and redone ones too."""

    def __init__(
        self,
        regions: Iterable[Region] = (),
        *,
        extra: Mapping[str, Any] | None = None,
        past: Iterable[Recalled] = (),
        future: Iterable[Recalled] = (),
    ) -> None:
        given = list(regions)
        self._regions = {region.id: region for region in given}
        if len(self._regions) != len(given):
            raise AnnotationError("Two regions of a set have the same id.")
        self.extra: Mapping[str, Any] = extra or {}
        """What belongs to the set as a whole and this program only keeps, as JSON."""
        self._past: list[Command | Recalled] = [*past]
        self._future: list[Command | Recalled] = [*future]
        self._future.reverse()
        self._index = SpatialIndex(self._regions)
        self._totals: dict[str | None, ClassTotal] | None = None
        # Ascending in drawing order, with gaps where regions went; None where to count again.
        self._ranks: dict[str, int] | None = None
        self._next_rank = 0

    # --- what is there ------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self._regions)

    def __iter__(self) -> Iterator[Region]:
        """Yield the regions in drawing order; the set may change meanwhile."""
        return iter(list(self._regions.values()))

    def __contains__(self, region_id: object) -> bool:
        return region_id in self._regions

    def get(self, region_id: str) -> Region:
        """Return the region of that id.

        Raises
        ------
        AnnotationError
            If there is none.
        """
        try:
            return self._regions[region_id]
        except KeyError:
            raise AnnotationError(f"There is no region {region_id[:8]} (any more).") from None

    def pick(self, ids: Iterable[str]) -> list[Region]:
        """Return the regions of these ids, in their order.

        Raises
        ------
        AnnotationError
            If one of them is not there.
        """
        wanted = list(ids)
        found = list(map(self._regions.get, wanted))
        return [
            self.get(each) if region is None else region
            for each, region in zip(wanted, found, strict=True)
        ]

    def in_order(self, ids: Iterable[str]) -> list[Region]:
        """Return the regions of these ids, in drawing order; what is not there is left out."""
        there = [each for each in ids if each in self._regions]
        return [self._regions[each] for each in self._sorted(there)]

    def within(self, rect: Rect) -> list[Region]:
        """Return the regions whose bounds touch a rectangle, in drawing order."""
        return [self._regions[each] for each in self._sorted(self._index.touching(rect))]

    def at(self, xy_px0: tuple[float, float], tolerance_px0: float = 0.0) -> list[Region]:
        """Return the regions at a place, the topmost first.

        Parameters
        ----------
        xy_px0
            Where.
        tolerance_px0
            How far the place may be from them: lines and points are hard to hit.
        """
        x, y = xy_px0
        near = Rect(x - tolerance_px0, y - tolerance_px0, 2 * tolerance_px0, 2 * tolerance_px0)
        found = self.within(near)
        shapes = shapes_of(found)
        hit = shapely.dwithin(shapes, shapely.Point(x, y), tolerance_px0)
        return [region for region, is_hit in zip(found, hit, strict=True) if is_hit][::-1]

    def totals(self) -> dict[str | None, ClassTotal]:
        """Return count and area of every class that has regions; None is "unclassified"."""
        if self._totals is None:
            self._totals = {}
            self._count(self._regions.values(), +1)
        return dict(self._totals)

    # --- steps --------------------------------------------------------------------------------

    def do(self, command: Command) -> Command:
        """Do a step; what was undone before is forgotten.

        Returns
        -------
        Command
            The step with the places that it took.

        Raises
        ------
        AnnotationError
            If it was made for regions that are not there (any more); nothing is changed then.
        """
        done, moved = self._apply(command)
        self._past.append(done)
        self._future.clear()
        self._tell(done, moved)
        return done

    def undo(self) -> Command | None:
        """Take the last step back and return it; None if there is none."""
        return self._step(self._past, self._future, Command.inverse)

    def redo(self) -> Command | None:
        """Do the step undone last again and return it; None if there is none."""
        return self._step(self._future, self._past, lambda command: command)

    @property
    def can_undo(self) -> str | None:
        """What `undo` would take back, in words; None if nothing."""
        return self._last(self._past)

    @property
    def can_redo(self) -> str | None:
        """What `redo` would do again, in words; None if nothing."""
        return self._last(self._future)

    def _step(
        self,
        source: list[Command | Recalled],
        target: list[Command | Recalled],
        turned: Callable[[Command], Command],
    ) -> Command | None:
        if not source:
            return None
        command = self._fetched(source)
        applied, moved = self._apply(turned(command))
        source.pop()
        target.append(command)
        self._tell(applied, moved)
        return command

    def _last(self, stack: list[Command | Recalled]) -> str | None:
        return self._fetched(stack).text if stack else None

    def _fetched(self, stack: list[Command | Recalled]) -> Command:
        """Return the last of a stack, and keep it there as a command."""
        last = stack[-1]
        if not isinstance(last, Command):
            last = stack[-1] = last(self)
        return last

    def _apply(self, command: Command) -> tuple[Command, list[str]]:
        """Check and apply a step; return it with all places, and what is new or elsewhere."""
        self._check(command)
        removed, added = command.removed, command.added
        moving = command.added_at.keys()
        leaving: list[str] = []
        coming: list[str] = []
        if moving or removed.keys() != added.keys():  # else all change in place
            leaving = [each for each in removed if each not in added or each in moving]
            coming = [each for each in added if each not in removed or each in moving]
        removed_at = self._places(leaving)
        if self._totals is not None:
            if len(removed) + len(added) > BULK:
                self._totals = None
            else:
                self._count(removed.values(), -1)
                self._count(added.values(), +1)
        moved = moved_of(removed, added)
        self._index.replace(removed, added, moved)
        for each in leaving:
            del self._regions[each]
            if self._ranks is not None:
                del self._ranks[each]
        self._regions.update(
            {each: added[each] for each in added if each in self._regions} if coming else added
        )
        added_at = self._insert(coming, command)
        if command.extra is not None:
            self.extra = command.extra[1]
        return replace(command, removed_at=removed_at, added_at=added_at), moved

    def _check(self, command: Command) -> None:
        there = map(self._regions.get, command.removed)
        same = all(map(is_, there, command.removed.values()))
        if same and command.added.keys() <= command.removed.keys():
            return
        for each, region in command.removed.items():
            now = self._regions.get(each)
            if now is not region and now != region:
                raise AnnotationError(
                    f"{region.label} has changed or is gone: '{command.text}' cannot be done "
                    f"with it."
                )
        for each in command.added:
            if each in self._regions and each not in command.removed:
                raise AnnotationError(f"There is a region {each[:8]} already.")

    def _places(self, ids: list[str]) -> dict[str, int]:
        if not ids:
            return {}
        wanted = set(ids)
        return {each: n for n, each in enumerate(self._regions) if each in wanted}

    def _insert(self, ids: list[str], command: Command) -> dict[str, int]:
        """Put new regions where the command says, else on top; return the places."""
        if not ids:
            return {}
        placed = sorted(
            (command.added_at[each], n, each)
            for n, each in enumerate(ids)
            if each in command.added_at
        )
        on_top = [each for each in ids if each not in command.added_at]
        if not placed or placed[0][0] >= len(self._regions):  # all at the end: nothing moves
            places = {}
            for each in [*(each for _, _, each in placed), *on_top]:
                places[each] = len(self._regions)
                self._regions[each] = command.added[each]
                if self._ranks is not None:
                    self._ranks[each] = self._next_rank
                    self._next_rank += 1
            return places
        rest = iter(self._regions)
        merged: list[str] = []
        for place, _, each in placed:
            while len(merged) < place and (following := next(rest, None)) is not None:
                merged.append(following)
            merged.append(each)
        merged += [*rest, *on_top]
        old = self._regions
        self._regions = {
            each: old[each] if each in old else command.added[each] for each in merged
        }
        self._ranks = None
        return self._places(ids)

    def _sorted(self, ids: list[str]) -> list[str]:
        if self._ranks is None:
            self._ranks = {each: n for n, each in enumerate(self._regions)}
            self._next_rank = len(self._ranks)
        return sorted(ids, key=self._ranks.__getitem__)

    def _count(self, regions: Collection[Region], sign: int) -> None:
        """Add regions to the totals, or take them away."""
        if self._totals is None or not regions:
            return
        numbers: dict[str | None, int] = {}
        names = [each.class_name for each in regions]
        rows = [numbers.setdefault(name, len(numbers)) for name in names]
        counts = np.bincount(rows).tolist()
        sums = np.bincount(rows, shapely.area(shapes_of(regions))).tolist()
        for name, row in numbers.items():
            before = self._totals.pop(name, ClassTotal(0, 0.0))
            left = before.count + sign * counts[row]
            if left:  # a class that is gone takes the rounding of its sum with it
                self._totals[name] = ClassTotal(left, before.area_px0 + sign * sums[row])

    def _tell(self, applied: Command, moved: list[str]) -> None:
        removed, added = applied.removed, applied.added
        new = tuple(each for each in added if each not in removed)
        changed = tuple(added) if not new else tuple(each for each in added if each in removed)
        left = () if len(changed) == len(removed) else removed.keys() - added.keys()
        bounds = rect_of([*removed.values(), *(added[each] for each in moved)])
        self.changed.emit(Change(new, changed, tuple(left), bounds))
