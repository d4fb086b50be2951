"""What a person sees of one segmentation: classes, outline or fill, probability, steps; and areas.

The model behind the segmentation's part of the Overlay dock. It knows neither napari nor Qt, and
reads nothing: what is in view is painted by `segmentation_picture.py`, beside the window.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from psygnal import Signal

from napari_histomil.exchange.labels import Steps
from napari_histomil.geometry import Rect
from napari_histomil.results import SegmentationStore
from napari_histomil.ui.colours import DEFAULT

CHOSEN_KINDS = ("rect", "polygons")
"""Regions of a job that a person chose: shares of tissue would say little there."""


@dataclass(frozen=True, slots=True)
class Style:
    """All that decides how a segmentation is shown, but the place and the opacity."""

    on: tuple[bool, ...]
    """For each class whether it is shown; the model's background is not at first."""
    class_index: int
    """The class whose probability is shown."""
    probability: bool = False
    """Whether the probability of one class is shown, else where each class is."""
    outline: bool = False
    """Whether classes are outlines, else filled."""
    colours: str = DEFAULT
    """A key of `colours.COLOUR_MAPS`, for the probability."""
    steps: Steps = field(default_factory=Steps)


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of a whole segmentation, as it is shown."""

    areas_mm2: dict[str, float]
    """Of each class, also those that are not shown."""
    looked_at_mm2: float
    exact: bool
    """Counted on the finest level after all steps; else on a coarse one after the threshold."""
    done_tiles: int


@dataclass(frozen=True, slots=True)
class Small:
    """The whole segmentation as a small picture."""

    pixels: NDArray[np.uint8]
    """[rows, columns, 4]."""
    pixel_um: float


class SegmentationView:
    """One segmentation as it is shown.

    Attributes
    ----------
    store
        The run; reading it is safe from any thread.
    class_names
        Names of the classes, in the order of the picture's channels.
    facts
        Areas and what is done; None before they are counted.
    small
        The whole as a small picture; None before it is painted.
    tissue_mm2
        Area of the slide's tissue; None where nobody has looked yet.
    """

    changed = Signal()
    """The style changed."""
    filled = Signal(object)
    """More was computed: in this rectangle (level-0 pixels), or anywhere (None)."""
    measured = Signal()
    """`facts`, `small` or `tissue_mm2` are new."""

    def __init__(self, store: SegmentationStore) -> None:
        self.store = store
        self.class_names = store.class_names
        background = store.model.get("background_class")
        first = store.model.get("positive_class")
        names = self.class_names
        self._style = Style(
            on=tuple(name != background or len(names) == 1 for name in names),
            class_index=names.index(first) if first in names else len(names) - 1,
        )
        self.facts: Facts | None = None
        self.small: Small | None = None
        self.tissue_mm2: float | None = None

    @property
    def style(self) -> Style:
        """How it is shown."""
        return self._style

    @style.setter
    def style(self, style: Style) -> None:
        if style != self._style:
            self._style = style
            self.changed.emit()

    def change(self, **changes: Any) -> None:
        """Change members of the style.

        Raises
        ------
        RunError
            If steps are given that cannot be.
        """
        self.style = replace(self._style, **changes)

    def change_steps(self, **changes: Any) -> None:
        """Change members of the steps; raises `RunError` as `Steps`."""
        self.change(steps=replace(self._style.steps, **changes))

    def show_class(self, index: int, *, on: bool) -> None:
        """Show a class, or hide it."""
        self.change(on=tuple(on if n == index else was for n, was in enumerate(self._style.on)))

    @property
    def exclusive(self) -> bool:
        """Whether the classes exclude each other: the most likely counts."""
        return bool(self.store.model.get("activation") == "softmax")

    @property
    def threshold(self) -> float:
        """Least probability of a class, as it counts: 0 where the most likely class counts."""
        given = self._style.steps.threshold
        return (0.0 if self.exclusive else 0.5) if given is None else given

    @property
    def names_on(self) -> tuple[str, ...]:
        """Names of the classes that are shown."""
        return tuple(n for n, on in zip(self.class_names, self._style.on, strict=True) if on)

    @property
    def class_name(self) -> str:
        """The class whose probability is shown."""
        return self.class_names[self._style.class_index]

    @property
    def title(self) -> str:
        """What is shown, in words."""
        if self._style.probability:
            return f"probability of {self.class_name}"
        return ", ".join(self.names_on) or "no class"

    @property
    def of_chosen_region(self) -> bool:
        """Whether a person chose where the model looked: a rectangle, or drawn shapes."""
        return self.store.job.get("region", {}).get("kind") in CHOSEN_KINDS

    @property
    def share_of_mm2(self) -> float | None:
        """The area that shares are of: what was looked at, or the slide's tissue if known."""
        if self.of_chosen_region:
            return self.facts.looked_at_mm2 if self.facts is not None else None
        return self.tissue_mm2

    def fill(self, rects_px0: Sequence[Rect] = ()) -> None:
        """Say that more was computed, in these rectangles or anywhere."""
        for rect in rects_px0 or (None,):
            self.filled.emit(rect)

    def take(self, facts: Facts, small: Small | None = None) -> None:
        """Keep what was counted, and what was painted with it."""
        self.facts = facts
        if small is not None:
            self.small = small
        self.measured.emit()

    def take_tissue(self, mm2: float) -> None:
        """Keep how much tissue the slide has."""
        self.tissue_mm2 = mm2
        self.measured.emit()
