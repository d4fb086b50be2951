"""Regions of two readers side by side: which answer each other, how a difference is settled.

`agreement.py` counts pixels; here regions are paired, so that what is settled keeps the outline
that a person drew.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import shapely
from numpy.typing import NDArray

from napari_histomil.annotations import commands, edit
from napari_histomil.annotations.collection import AnnotationSet, Command
from napari_histomil.annotations.model import Region
from napari_histomil.annotations.spatial import shapes_of
from napari_histomil.annotations.stamps import Stamp
from napari_histomil.errors import AnnotationError

Kind = Literal["only mine", "only theirs", "other class", "other outline"]
Choice = Literal["mine", "theirs", "both"]

SAME_PLACE = 0.5
"""Two regions answer each other if they share this part of what they cover together, at least:
then each has one partner at most."""

SAME_OUTLINE = 0.95
"""Outlines that share so much are one person's hand, not two opinions."""


@dataclass(frozen=True, slots=True)
class Disagreement:
    """One region, or two that answer each other, about which two readers differ."""

    kind: Kind
    mine: Region | None
    theirs: Region | None
    iou: float
    """What the two share of what they cover together; 0 where there is only one."""

    @property
    def shown(self) -> Region:
        """The region to fly to."""
        region = self.mine or self.theirs
        assert region is not None, "one of the two is there"
        return region

    def sentence(self, reader: str) -> str:
        """Say what differs, where `reader` is what the other one is called."""
        mine = _class_of(self.mine)
        theirs = _class_of(self.theirs)
        if self.kind == "only mine":
            return f"{mine}: {reader} has nothing here"
        if self.kind == "only theirs":
            return f"{theirs}: only {reader} has it"
        if self.kind == "other class":
            return f"{mine} here, {theirs} for {reader}"
        return f"{mine}: outlines share {self.iou:.0%}"


def _class_of(region: Region | None) -> str:
    return (region.class_name or "unclassified") if region else ""


def disagreements(
    mine: Iterable[Region], theirs: Iterable[Region], *, tolerance_px0: float
) -> list[Disagreement]:
    """Return where two readers differ, from top to bottom of the slide.

    Parameters
    ----------
    mine, theirs
        Regions of one slide. Broken ones are compared by what they cover when mended.
    tolerance_px0
        Lines and points answer each other if no part lies farther from the other one.
    """
    sides = [list(mine), list(theirs)]
    shapes = [_sound(each) for each in sides]
    partners = _partners(shapes[0], shapes[1], tolerance_px0)
    found = []
    for a, (b, iou) in partners.items():
        one, two = sides[0][a], sides[1][b]
        if one.class_name != two.class_name:
            found.append(Disagreement("other class", one, two, iou))
        elif iou < SAME_OUTLINE:
            found.append(Disagreement("other outline", one, two, iou))
    answered = {b for b, _ in partners.values()}
    for n, region in enumerate(sides[0]):
        if n not in partners and not region.geometry.is_empty:
            found.append(Disagreement("only mine", region, None, 0.0))
    for n, region in enumerate(sides[1]):
        if n not in answered and not region.geometry.is_empty:
            found.append(Disagreement("only theirs", None, region, 0.0))
    return sorted(found, key=lambda each: each.shown.geometry.bounds[1::-1])


def _sound(regions: Sequence[Region]) -> NDArray[np.object_]:
    shapes = shapes_of(regions)
    broken = ~shapely.is_valid(shapes)
    shapes[broken] = shapely.make_valid(shapes[broken], method="structure", keep_collapsed=False)
    return shapes


def _partners(
    mine: NDArray[np.object_],
    theirs: NDArray[np.object_],
    tolerance_px0: float,
) -> dict[int, tuple[int, float]]:
    """Return the partner of each of mine that has one, with what the two share; the best first."""
    tree = shapely.STRtree(theirs)
    a, b = tree.query(mine, predicate="dwithin", distance=tolerance_px0)
    dimensions = shapely.get_dimensions(mine)[a], shapely.get_dimensions(theirs)[b]
    alike = dimensions[0] == dimensions[1]
    a, b, areal = a[alike], b[alike], dimensions[0][alike] == 2
    iou = np.zeros(len(a))
    both = shapely.area(shapely.intersection(mine[a[areal]], theirs[b[areal]]))
    either = shapely.area(mine[a[areal]]) + shapely.area(theirs[b[areal]]) - both
    iou[areal] = both / either
    near = shapely.hausdorff_distance(mine[a[~areal]], theirs[b[~areal]]) <= tolerance_px0
    iou[~areal] = near
    taken_a: dict[int, tuple[int, float]] = {}
    taken_b: set[int] = set()
    for n in np.argsort(-iou, kind="stable").tolist():
        one, two = int(a[n]), int(b[n])
        if iou[n] > SAME_PLACE and one not in taken_a and two not in taken_b:
            taken_a[one] = two, float(iou[n])
            taken_b.add(two)
    return taken_a


def settle(
    annotations: AnnotationSet, each: Disagreement, choice: Choice, reader: str, stamp: Stamp
) -> Command | None:
    """Return the command that settles a disagreement; None where nothing changes.

    Parameters
    ----------
    choice
        ``mine`` leaves all as it is. ``theirs`` deletes what only I have, brings in what only
        they have, takes their class and, where it differs, their outline. ``both`` keeps what
        either has: of two outlines it makes what any of them covers, of two classes two regions.
    reader
        What the other one is called.

    Raises
    ------
    AnnotationError
        If a region of mine is fixed, or has changed or gone since they were compared.
    """
    if choice == "mine":
        return None
    mine, theirs = each.mine, each.theirs
    if mine is not None and annotations.get(mine.id) != mine:
        raise AnnotationError(f"{mine.label} has changed since: compare again.")
    if theirs is None:
        assert mine is not None, "one of the two is there"
        return commands.delete(annotations, [mine.id]) if choice == "theirs" else None
    if mine is None or (each.kind == "other class" and choice == "both"):
        new = theirs.but(id=str(uuid.uuid4())) if theirs.id in annotations else theirs
        return commands.bring_in(annotations, [new], reader)
    if choice == "both":
        shape = edit.merge([edit.mended(mine.geometry), edit.mended(theirs.geometry)])
        return commands.reshape(annotations, {mine.id: shape}, f"join with {reader}", stamp)
    changes = {"classification": theirs.classification}
    if each.iou < SAME_OUTLINE:
        changes["geometry"] = theirs.geometry
    what = "class" if each.kind == "other class" else "outline"
    return commands.exchange(
        annotations, [mine.id], [mine.but(**changes)], f"take {what} from {reader}", stamp
    )
