"""What a person sees of one run: class, normalisation, threshold; image, numbers, hottest tiles.

The model behind the Overlay dock. It knows neither napari nor Qt: it turns the scores of a run
into the image of a heatmap layer, and answers what lies where. Raw scores are never changed; the
threshold always speaks of raw scores, however they are coloured.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from psygnal import Signal

from napari_histomil.heatmaps import (
    NORMALISATIONS,
    ThresholdStats,
    hottest,
    normalise,
    score_image,
    threshold_stats,
)
from napari_histomil.tiling import TileGrid
from napari_histomil.ui.colours import DEFAULT

HOTTEST_COUNT = 500
"""Stops of the tour from the hottest tile downwards; nobody looks at more."""

HOTTEST_APART_UM = 200.0
"""Stops of the tour lie at least this far apart: about half of what a screen shows at 20x, so
that the next stop is another place and not the neighbouring tile."""


class HeatmapView:
    """One run as it is shown.

    Attributes
    ----------
    grid
        The tiles of the run.
    class_names
        Names of the classes, in the order of the scores' columns.
    scores
        float32 [N, C], raw; NaN where not done yet, and in skipped tiles.
    image
        float32 [rows, cols], what the layer shows: normalised values 0 to 1, NaN where there is
        no score or one below the threshold. Always the same array, changed in place.
    """

    changed = Signal()
    """Class, normalisation, colour map or threshold: what is shown changed."""
    filled = Signal()
    """Scores were added."""

    def __init__(
        self,
        grid: TileGrid,
        class_names: Sequence[str],
        scores: NDArray[np.float32],
        *,
        first_class: str | None = None,
    ) -> None:
        self.grid = grid
        self.class_names = tuple(class_names)
        self.scores = scores
        names = self.class_names
        self._class_index = names.index(first_class) if first_class in names else len(names) - 1
        self._normalisation = next(iter(NORMALISATIONS))
        self._colours = DEFAULT
        self._threshold = 0.0
        self._tour: NDArray[np.intp] | None = None
        self._at: int | None = None  # index into the tour
        self._normalised: NDArray[np.float64] | None = None
        self._tile_of_cell = np.full(grid.shape, -1, np.int64)
        self._tile_of_cell[grid.cells[:, 0], grid.cells[:, 1]] = np.arange(len(grid))
        self.image = np.full(grid.shape, np.nan, np.float32)
        self._paint()

    # ------------------------------------------------------------------ what is chosen

    @property
    def class_index(self) -> int:
        """Column of the scores that is shown."""
        return self._class_index

    @class_index.setter
    def class_index(self, index: int) -> None:
        if index != self._class_index:
            self._class_index = index
            self._tour = self._at = self._normalised = None
            self._paint()
            self.changed.emit()

    @property
    def class_name(self) -> str:
        """Name of the class that is shown."""
        return self.class_names[self._class_index]

    @property
    def normalisation(self) -> str:
        """A key of `heatmaps.NORMALISATIONS`."""
        return self._normalisation

    @normalisation.setter
    def normalisation(self, name: str) -> None:
        if name != self._normalisation:
            self._normalisation = name
            self._normalised = None
            self._paint()
            self.changed.emit()

    @property
    def colours(self) -> str:
        """A key of `colours.COLOUR_MAPS`."""
        return self._colours

    @colours.setter
    def colours(self, name: str) -> None:
        if name != self._colours:
            self._colours = name
            self.changed.emit()

    @property
    def threshold(self) -> float:
        """Tiles whose raw score is lower are transparent."""
        return self._threshold

    @threshold.setter
    def threshold(self, value: float) -> None:
        if value != self._threshold:
            self._threshold = value
            self._paint()
            self.changed.emit()

    # -------------------------------------------------------------------- what is there

    @property
    def values(self) -> NDArray[np.float32]:
        """float32 [N], raw scores of the class that is shown."""
        values: NDArray[np.float32] = self.scores[:, self._class_index]
        return values

    @property
    def value_range(self) -> tuple[float, float]:
        """Lowest and highest raw score; (nan, nan) before the first."""
        known = self.values[np.isfinite(self.values)]
        return (float(known.min()), float(known.max())) if known.size else (np.nan, np.nan)

    @property
    def done_tiles(self) -> int:
        """Number of tiles that have a score."""
        return int(np.isfinite(self.values).sum())

    def fill(self, scores: NDArray[np.float32]) -> None:
        """Show newer scores, float32 [N, C], of the same run."""
        self.scores = scores
        self._tour = self._normalised = None
        self._paint()
        self.filled.emit()

    def stats(self) -> ThresholdStats:
        """Return number, area and share of tiles at or above the threshold."""
        return threshold_stats(self.grid, self.values, self._threshold)

    def tile_at(self, xy_px0: Sequence[float]) -> int | None:
        """Return the tile whose cell holds a level-0 position (x, y); None where no tile is."""
        width, height = self.grid.cell_size_px0
        row, column = int(np.floor(xy_px0[1] / height)), int(np.floor(xy_px0[0] / width))
        rows, columns = self.grid.shape
        if not (0 <= row < rows and 0 <= column < columns):
            return None
        tile = int(self._tile_of_cell[row, column])
        return tile if tile >= 0 else None

    @property
    def scale_ends(self) -> tuple[str, str]:
        """What the two ends of the colour scale stand for."""
        if self._normalisation == "raw":
            return "0", "1"
        if self._normalisation == "rank":
            return "lowest", "highest"
        low, high = self.value_range
        return ("", "") if np.isnan(low) else (f"{low:.3f}", f"{high:.3f}")

    @property
    def scale_title(self) -> str:
        """What the colour scale measures, in words."""
        how = {"raw": "", "min-max": ", stretched", "rank": ", by rank"}[self._normalisation]
        return f"score of {self.class_name}{how}"

    def shown_share(self, raw: float) -> float:
        """Return where a raw score lies on the colour scale, 0 to 1."""
        if self._normalisation == "raw":
            return float(np.clip(raw, 0, 1))
        low, high = self.value_range
        if not np.isfinite(low):
            return 0.0
        if self._normalisation == "min-max":
            return float(np.clip((raw - low) / (high - low), 0, 1)) if high > low else 0.5
        known = self.values[np.isfinite(self.values)]
        return float((known < raw).mean())

    # ---------------------------------------------------------------- the hottest tiles

    @property
    def tour(self) -> NDArray[np.intp]:
        """Tiles [M] from the hottest downwards, each in another place."""
        if self._tour is None:
            self._tour = hottest(
                self.grid, self.values, count=HOTTEST_COUNT, min_distance_um=HOTTEST_APART_UM
            )
        return self._tour

    @property
    def stop(self) -> int | None:
        """Which stop of the tour is looked at, 0 for the hottest; None before the first."""
        return self._at

    def step(self, by: int) -> int | None:
        """Go on in the tour and return the tile; it ends at both ends. None if it is empty.

        While a run fills in, stop 3 is the third hottest of what is known by now.
        """
        if not self.tour.size:
            return None
        wanted = 0 if self._at is None else self._at + by
        self._at = min(max(wanted, 0), self.tour.size - 1)
        return int(self.tour[self._at])

    def _paint(self) -> None:
        raw = self.values
        if self._normalised is None:
            self._normalised = normalise(raw, self._normalisation)
        shown = np.where(raw >= self._threshold, self._normalised, np.nan)
        self.image[:] = score_image(self.grid, shown)
