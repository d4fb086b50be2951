"""What a person sees of one MIL run: map, class, scale, threshold; image, numbers, patches.

The model behind the Overlay dock's part about MIL. It knows neither napari nor Qt; what can be
shown of a run is in `attention_maps.py`, scales are in `heatmaps/`. To whatever only draws a
picture with colours it looks like a `HeatmapView`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from psygnal import Signal
from scipy import ndimage

from napari_histomil.heatmaps import OF_THIS_SLIDE, Span, rescale, scales_of, signed_limit, span_of
from napari_histomil.results.mil import MilRun
from napari_histomil.ui import attention_maps as maps
from napari_histomil.ui.colours import COLOUR_MAPS, DEFAULT, DIVERGING
from napari_histomil.ui.words import count

PLAIN = "as it is"
"""The only scale of what is signed."""

FIRST_SCALES = ("x uniform", "raw")
"""The scale that is shown first, the best first: one that means the same on every slide."""

HOT = "hot = highest in this slide; says nothing about presence"
"""What is said while a scale makes every slide's highest value look alike."""

PICKS: Mapping[str, str] = {
    "top": "the patches with the highest values",
    "bottom": "the patches with the lowest values",
    "middle": "the patches in the middle of the order",
}
"""Which patches are listed, with what they are in words."""

PICKED = 10
"""Patches that are listed at first."""


@dataclass(frozen=True, slots=True)
class Stats:
    """How much lies at or above the threshold."""

    tiles: int
    area_mm2: float
    percent: float
    """Of the area examined."""
    looked_at_tiles: int
    looked_at_mm2: float
    overlaps: tuple[tuple[str, float, float], ...]
    """For each class of annotations: its name, the share of the shown area that lies in it, and
    the share of what was examined of it that is shown; percent."""


class AttentionView:
    """One MIL run as it is shown.

    Attributes
    ----------
    run
        The run.
    image
        float32 [rows, cols], what the layer shows: places on the colour scale, 0 to 1; NaN where
        nothing was examined, or below the threshold. Another array after `replaced`.
    inside
        For each class of annotations bool [N]: whether the middle of each patch lies in it; filled
        by whoever knows the annotations, and emptied when other patches are shown.
    """

    changed = Signal()
    """Anything about how it is shown changed."""
    filled = Signal()
    """Never sent: a MIL run is whole. It is here for what also shows heatmaps that fill in."""
    replaced = Signal()
    """Other patches are shown: `image`, `picture` and `inside` are new. `changed` follows."""

    def __init__(
        self, run: MilRun, slide_size_px0: tuple[int, int], mpp_xy: tuple[float, float]
    ) -> None:
        self.run = run
        self._size, self._mpp_xy = slide_size_px0, mpp_xy
        self.whats = maps.whats(run)
        self._what = self.whats[0]
        self._colours = DEFAULT
        self._cut = 0.0
        self._smooth = False
        self._wanted_scale = FIRST_SCALES[0]
        self._picks, self._picked = "top", PICKED
        self._begin(level=None, head=None)

    # ------------------------------------------------------------------ what is chosen

    @property
    def what(self) -> str:
        """A key of `attention_maps.WHAT`."""
        return self._what

    @what.setter
    def what(self, what: str) -> None:
        if what != self._what:
            head = self.heads[self._head]
            self._what = what
            self._cut = 0.0
            self._begin(level=self._level, head=head)

    @property
    def levels(self) -> tuple[int, ...]:
        """Magnifications that can be chosen, see `attention_maps.levels`."""
        return maps.levels(self.run, self._what)

    @property
    def level(self) -> int:
        """The magnification that is shown."""
        return self._level

    @level.setter
    def level(self, level: int) -> None:
        if level != self._level:
            self._cut = 0.0
            self._begin(level=level, head=self.heads[self._head])

    @property
    def heads(self) -> tuple[str, ...]:
        """Classes that can be chosen, or one head for all."""
        return maps.heads(self.run, self._what, self._level)

    @property
    def class_index(self) -> int:
        """Which of the heads is shown."""
        return self._head

    @class_index.setter
    def class_index(self, index: int) -> None:
        if index != self._head:
            self._cut = 0.0
            self._begin(level=self._level, head=self.heads[index])

    @property
    def class_name(self) -> str:
        """Name of the head that is shown."""
        return self.heads[self._head]

    @property
    def scales(self) -> tuple[str, ...]:
        """Scales that can be chosen."""
        return (PLAIN,) if self._shown.row is None else scales_of(self._shown.row)

    @property
    def normalisation(self) -> str:
        """The scale that is shown: a key of `heatmaps.SCALES`, or `PLAIN`."""
        return self._scale

    @normalisation.setter
    def normalisation(self, name: str) -> None:
        if name != self._scale and name in self.scales:
            visible = self._visible if self._cut > 0 else None
            self._wanted_scale = self._scale = name
            self._colour()
            if visible is not None and visible.any():
                # All scales have one order: the same patches stay above the threshold.
                self._cut = float(self._shares[visible].min())
            self._paint()
            self.changed.emit()

    @property
    def colours(self) -> str:
        """A key of `colours.COLOUR_MAPS`; what is signed diverges around 0."""
        return DIVERGING if self.signed else self._colours

    @colours.setter
    def colours(self, name: str) -> None:
        if name != self._colours:
            self._colours = name
            self.changed.emit()

    @property
    def signed(self) -> bool:
        """Whether the values speak for and against."""
        return self._what in maps.SIGNED

    @property
    def cut(self) -> float:
        """Place on the colour scale, 0 to 1, below which nothing is shown; 0 shows all."""
        return self._cut

    @cut.setter
    def cut(self, cut: float) -> None:
        if cut != self._cut:
            self._cut = cut
            self._paint()
            self.changed.emit()

    @property
    def threshold(self) -> float:
        """The cut on the scale that is shown; 0 where all is shown."""
        return self.span.value(self._cut) if self._cut > 0 else 0.0

    @property
    def smooth(self) -> bool:
        """Whether the picture is blurred by a patch; numbers, patches and threshold never are."""
        return self._smooth

    @smooth.setter
    def smooth(self, smooth: bool) -> None:
        if smooth != self._smooth:
            self._smooth = smooth
            self._paint()
            self.changed.emit()

    # -------------------------------------------------------------------- what is there

    @property
    def shown(self) -> maps.Shown:
        """Values and places of what is shown."""
        return self._shown

    @property
    def values(self) -> NDArray[np.float64]:
        """float64 [N], raw; NaN where a patch was not examined."""
        return self._shown.values

    @property
    def scaled(self) -> NDArray[np.float64]:
        """float64 [N], on the scale that is shown."""
        return self._scaled

    @property
    def examined(self) -> int:
        """Number of patches with a value."""
        return int(np.isfinite(self.values).sum())

    @property
    def effective_number(self) -> float | None:
        """Exp of the entropy of what is shown: the patches that the attention is spread over."""
        return maps.effective_number(self.run, self._what, self._level, self._head)

    @property
    def meaning(self) -> str:
        """What the numbers are, in a sentence or two."""
        return maps.meaning(self.run, self._what, self._level)

    @property
    def warns_of_hot(self) -> bool:
        """Whether the scale makes every slide's highest value look alike."""
        return self._scale in OF_THIS_SLIDE

    @property
    def scale_title(self) -> str:
        """What the colour scale measures, in words."""
        if self.signed:
            return "logit units"
        return self._scale + (" (log)" if self.span.logarithmic else "")

    @property
    def title(self) -> str:
        """What is shown, in words."""
        link = "to" if self._what == maps.CONTRIBUTION else "of"
        return f"{self._what} {link} {self.class_name}"

    @property
    def legend_title(self) -> str:
        """What the colours mean, in one line: for figures, which leave the window."""
        title = f"{self.title}, {self.scale_title}"
        return f"{title}: {HOT}" if self.warns_of_hot else title

    @property
    def scale_ends(self) -> tuple[str, str]:
        """What the two ends of the colour scale stand for."""
        low, high = self.span.low, self.span.high
        if self._scale == "rank":
            return "lowest", "highest"
        if self._scale == "reference":
            return "0 %", "100 %"
        if self.span.logarithmic:
            return f"≤ {low:g}x", f"≥ {high:g}x"
        known = self._scaled[np.isfinite(self._scaled)]
        beyond = known.size and (known.min() < low or known.max() > high)
        return (f"≤ {number(low)}", f"≥ {number(high)}") if beyond else (number(low), number(high))

    def shown_share(self, value: float) -> float:
        """Return where a value of the shown scale lies on the colours, 0 to 1."""
        return float(self.span.share(value))

    def tile_at(self, xy_px0: tuple[float, float]) -> int | None:
        """Return the patch that is drawn at a level-0 position; None where none is."""
        return self._shown.picture.tile_at(xy_px0)

    def readings(self, tile: int) -> list[tuple[str, str]]:
        """Return the value of a patch on every scale: name and number, the shown one too."""
        row = self._shown.row
        if row is None:
            return [(self.title, f"{self.values[tile]:+.4g} logit units")]
        named = [(name, self._on_scale(name)[tile]) for name in self.scales]
        return [(name, with_unit(name, float(value))) for name, value in named]

    def stats(self) -> Stats:
        """Return number, area and overlap of the patches at or above the threshold."""
        known, above = np.isfinite(self.values), self._visible
        pixel_mm2 = self._mpp_xy[0] * self._mpp_xy[1] * 1e-6
        areas = self._shown.picture.areas_px0 * pixel_mm2
        looked_at, area = float(areas[known].sum()), float(areas[above].sum())
        overlaps = []
        for name, inside in self.inside.items():
            both = float(areas[above & inside].sum())
            overlaps.append(
                (name, _percent(both, area), _percent(both, float(areas[known & inside].sum())))
            )
        return Stats(
            int(above.sum()), area, _percent(area, looked_at), int(known.sum()), looked_at,
            tuple(overlaps),
        )  # fmt: skip

    # ------------------------------------------------------------------ patches to look at

    @property
    def picks(self) -> str:
        """Which patches are listed: a key of `PICKS`."""
        return self._picks

    def pick(self, which: str, most: int) -> None:
        """List other patches, `most` of them where there are so many."""
        if (which, most) != (self._picks, self._picked):
            self._picks, self._picked = which, most
            self._stop = None
            self.changed.emit()

    @property
    def picked(self) -> NDArray[np.intp]:
        """Patches [M] that are listed, the most extreme first; those in the middle by order."""
        values = self.values
        order = np.argsort(-values, kind="stable")
        order = order[np.isfinite(values[order])]
        most = min(self._picked, order.size)
        if self._picks == "top":
            return order[:most]
        if self._picks == "bottom":
            return order[::-1][:most]
        first = (order.size - most) // 2
        return order[first : first + most]

    @property
    def most(self) -> int:
        """How many patches are asked for."""
        return self._picked

    @property
    def stop(self) -> int | None:
        """Which of the listed patches is looked at; None before the first."""
        return self._stop

    def go(self, stop: int) -> int | None:
        """Look at a listed patch and return it; None if none is listed."""
        picked = self.picked
        if not picked.size:
            return None
        self._stop = min(max(stop, 0), picked.size - 1)
        return int(picked[self._stop])

    def step(self, by: int) -> int | None:
        """Go on among the listed patches and return the patch; it ends at both ends."""
        return self.go(0 if self._stop is None else self._stop + by)

    def frames_px0(self, tile: int) -> list[tuple[float, float, float, float]]:
        """Return the rectangles (x, y, width, height) that frame a patch: what the model saw."""
        x, y = self._shown.xy_px0[tile]
        return [(float(x), float(y), *self._shown.side_px0)]

    # --------------------------------------------------------------------------- state

    def state(self) -> dict[str, Any]:
        """Return how it is shown, as plain values."""
        return {
            "what": self._what,
            "level": self._level,
            "class": self.class_name,
            "colours": self._colours,
            "normalisation": self._scale,
            "cut": self._cut,
            "smooth": self._smooth,
        }

    def bring_back(self, state: Mapping[str, Any]) -> None:
        """Show it as it was; what does not fit this run is left out."""
        if state.get("what") in self.whats:
            self.what = state["what"]
        if state.get("level") in self.levels:
            self.level = state["level"]
        if state.get("class") in self.heads:
            self.class_index = self.heads.index(state["class"])
        if state.get("normalisation") in self.scales:
            self.normalisation = state["normalisation"]
        if state.get("colours") in COLOUR_MAPS:
            self.colours = state["colours"]
        cut = state.get("cut")
        if isinstance(cut, (int, float)) and 0 <= cut <= 1:
            self.cut = float(cut)
        self.smooth = state.get("smooth") is True

    # -------------------------------------------------------------------------- within

    def _begin(self, level: int | None, head: str | None) -> None:
        """Show another map, of this magnification and head where it has them."""
        levels = maps.levels(self.run, self._what)
        self._level = level if level in levels else levels[-1]
        heads = self.heads
        self._head = heads.index(head) if head in heads else maps.first_head(self.run, heads)
        self._shown = maps.shown(self.run, self._what, self._level, self._head, self._size)
        self._cache: dict[str, NDArray[np.float64]] = {}
        self._stop: int | None = None
        self.inside: dict[str, NDArray[np.bool_]] = {}
        wanted = (self._wanted_scale, *FIRST_SCALES)
        self._scale = next((name for name in wanted if name in self.scales), self.scales[0])
        self._colour()
        self.image = np.full(self._shown.picture.tiles.shape, np.nan, np.float32)
        self._paint()
        self.replaced.emit()
        self.changed.emit()

    def _on_scale(self, name: str) -> NDArray[np.float64]:
        if name not in self._cache:
            row = self._shown.row
            self._cache[name] = self.values if row is None else rescale(row, name)
        return self._cache[name]

    def _colour(self) -> None:
        self._scaled = self._on_scale(self._scale)
        if self.signed:
            limit = signed_limit(self._scaled)
            self.span = Span(-limit, limit)
        else:
            self.span = span_of(self._scale, self._scaled)
        self._shares = self.span.share(self._scaled)

    @property
    def _visible(self) -> NDArray[np.bool_]:
        return np.isfinite(self.values) & (self._shares >= self._cut)

    def _paint(self) -> None:
        shown = np.where(self._visible, self._shares, np.nan)
        image = self._shown.picture.image(shown)
        if self._smooth:
            across = self._shown.side_px0[0] / self._shown.picture.pixel_px0[0]
            image = _blurred(image, across)
        self.image[:] = image


def number(value: float) -> str:
    """Return a number with three digits that count; a minus is as wide as a plus."""
    return f"{value:.3g}".replace("-", "\u2212")


def with_unit(scale: str, value: float) -> str:
    """Return a value with what its scale counts in."""
    if not np.isfinite(value):
        return "unknown"
    if scale in ("rank", "reference"):
        return f"{value:.1f}\u00a0%"  # stays in one line
    return f"{number(value)}x" if scale == "x uniform" else number(value)


def spread_text(view: AttentionView) -> str:
    """Return over how many patches the attention is spread, or nothing."""
    effective = view.effective_number
    if effective is None:
        return ""
    shown = f"{effective:.1f}" if effective < 100 else count(round(effective))
    return f"effective patches: {shown} of {count(view.examined)}"


def _blurred(image: NDArray[np.float32], sigma_px: float) -> NDArray[np.float32]:
    """Blur what is known; what is not known stays so, and pulls nothing down."""
    known = np.isfinite(image)
    total = ndimage.gaussian_filter(np.where(known, image, 0), sigma_px)
    weight = ndimage.gaussian_filter(known.astype(np.float32), sigma_px)
    return np.where(known, total / np.maximum(weight, 1e-6), np.nan).astype(np.float32)


def _percent(part: float, whole: float) -> float:
    return 100 * part / whole if whole > 0 else 0.0
