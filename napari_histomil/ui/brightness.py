"""Brightness and gamma of the slides in a viewer: how they are displayed, never what is read.

The values pass through a table of 256 entries on their way to the screen. Models, exports and
fingerprints see the slide's own pixels.
"""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from psygnal import Signal

from napari_histomil.ui.painting import painting
from napari_histomil.ui.per_viewer import PerViewer
from napari_histomil.ui.session import SlideSession, session

BRIGHTNESS_RANGE = (25.0, 300.0)
"""Percent of the slide's own values."""

GAMMA_RANGE = (0.2, 3.0)


@dataclass(frozen=True, slots=True)
class Tone:
    """How a slide is displayed."""

    brightness: float = 100.0
    """Percent: 200 doubles every value; what goes beyond white is white."""
    gamma: float = 1.0
    """Exponent of the values 0 to 1: below 1 dark tissue gets lighter, above 1 darker."""

    def table(self) -> NDArray[np.uint8]:
        """Return what each of the 256 values is displayed as, uint8 [256]."""
        values = np.linspace(0, 1, 256) * self.brightness / 100
        return np.rint(255 * np.clip(values, 0, 1) ** self.gamma).astype(np.uint8)

    def paint(self, layer: Any) -> None:
        """Show a slide's layer so, wherever it is painted; any other layer stays as it is."""
        shown = painting(layer)
        if shown is not None:
            shown.set_lut(None if self == AS_STORED else self.table())

    @staticmethod
    def within_range(brightness: float, gamma: float) -> Tone:
        """Return a tone whose numbers are brought into their ranges."""
        return Tone(
            float(np.clip(brightness, *BRIGHTNESS_RANGE)), float(np.clip(gamma, *GAMMA_RANGE))
        )


AS_STORED = Tone()
"""The slide's own values."""


class Tones:
    """How the slides of one viewer are displayed; get it with `tones`."""

    changed = Signal(object)
    """The tone of a `SlideSession` changed."""

    def __init__(self, viewer: Any) -> None:
        self._of: weakref.WeakKeyDictionary[SlideSession, Tone] = weakref.WeakKeyDictionary()
        session(viewer).slide_changed.connect(self._on_changed)

    def of(self, slide: SlideSession) -> Tone:
        """Return how a slide is displayed."""
        return self._of.get(slide, AS_STORED)

    def set(self, slide: SlideSession, tone: Tone) -> None:
        """Display a slide in another way, at once."""
        if tone == self.of(slide):
            return
        self._of[slide] = tone
        self._again(slide)
        self.changed.emit(slide)

    def _on_changed(self, slide: SlideSession) -> None:
        if slide in self._of:  # opened anew: its picture is another
            self._again(slide)

    def _again(self, slide: SlideSession) -> None:
        self.of(slide).paint(slide.layer)


_TONES = PerViewer(Tones)


def tones(viewer: Any) -> Tones:
    """Return the looks of a viewer's slides, begun at the first call.

    Parameters
    ----------
    viewer
        A napari viewer, a ``ViewerModel``, or the proxy of one that napari gives to plugins.
    """
    return _TONES.of(viewer)
