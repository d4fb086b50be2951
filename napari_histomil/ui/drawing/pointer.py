"""Where a hand points on the slide, and what it holds down meanwhile."""

from __future__ import annotations

from dataclasses import dataclass

from napari_histomil.ui.annotator import Mode

XY = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Pointer:
    """One moment of a mouse or a pen."""

    xy_px0: XY
    """(x, y) in level-0 pixels."""
    px0_per_pixel: float = 1.0
    """Level-0 pixels that a logical pixel of the screen spans."""
    add: bool = False
    """Shift is held."""
    subtract: bool = False
    """Alt is held, or a pen's eraser is down."""

    def mode(self, otherwise: Mode) -> Mode:
        """Return what becomes of a shape that is begun now; modifier keys overrule."""
        return "subtract" if self.subtract else "add" if self.add else otherwise

    def near(self, xy_px0: XY, pixels: float) -> bool:
        """Whether a place is no farther than so many pixels of the screen."""
        dx, dy = self.xy_px0[0] - xy_px0[0], self.xy_px0[1] - xy_px0[1]
        return dx * dx + dy * dy <= (pixels * self.px0_per_pixel) ** 2
