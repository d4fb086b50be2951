"""The features of a gallery's tiles in one viewer: read once, for the embedding and neighbours."""

from __future__ import annotations

import math
import threading
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from psygnal import Signal
from qtpy.QtWidgets import QWidget

from napari_histomil.review.embedding import Pca, pca, umap
from napari_histomil.review.gallery import Patch
from napari_histomil.review.neighbours import nearest
from napari_histomil.review.points import Points, points_of, unit_rows
from napari_histomil.review.verdicts import Place
from napari_histomil.ui import jobs
from napari_histomil.ui.gallery import Gallery, gallery
from napari_histomil.ui.per_viewer import PerViewer


@dataclass(frozen=True, slots=True, eq=False)
class Laid:
    """Points, as rows of length 1, and laid out along the first two components."""

    points: Points
    units: NDArray[np.float32]
    pca: Pca


class Cloud:
    """Features of the gallery's tiles; get it with `cloud`.

    Attributes
    ----------
    laid
        What was read; None before `prepare`, and after the gallery took other tiles.
    layout
        float32 [N, 2]: where the points lie, by PCA or UMAP.
    """

    changed = Signal()
    """There are other points, or they are laid out otherwise."""

    def __init__(self, viewer: Any) -> None:
        self._gallery: weakref.ref[Gallery] = weakref.ref(gallery(viewer))
        self.laid: Laid | None = None
        self.layout: NDArray[np.float32] | None = None
        self.layout_name = ""
        self._job: jobs.JobHandle | None = None
        self.gallery.tiles_changed.connect(self._forget)

    @property
    def gallery(self) -> Gallery:
        """The gallery of the viewer."""
        held = self._gallery()
        assert held is not None, "a viewer's cloud does not outlive its gallery"
        return held

    @property
    def busy(self) -> bool:
        """Whether something is being read or laid out."""
        return self._job is not None

    def _forget(self) -> None:
        if self._job is not None:
            self._job.cancel()
            self._job = None
        self.laid, self.layout, self.layout_name = None, None, ""
        self.changed.emit()

    def prepare(
        self,
        owner: QWidget,
        *,
        on_done: Callable[[], None],
        on_error: Callable[[Exception], None],
        by_umap: bool = False,
    ) -> None:
        """Read the features in a thread if they are not there, and lay them out.

        Parameters
        ----------
        owner
            The widget that hears of it.
        on_done
            Called when they are there.
        on_error
            Called instead with what went wrong.
        by_umap
            Whether they are laid out by UMAP, which takes long.
        """
        wanted = "UMAP" if by_umap else "PCA"
        if self.laid is not None and self.layout_name == wanted:
            on_done()
            return
        tiles, laid = self.gallery.tiles, self.laid

        def work(cancel: threading.Event) -> Iterator[tuple[Laid, NDArray[np.float32]]]:
            found = laid
            if found is None:
                points = points_of(tiles)
                found = Laid(points, unit_rows(points.features), pca(points.features))
            if cancel.is_set():
                return
            layout = umap(found.points.features) if by_umap else found.pca.points
            yield found, np.asarray(layout, np.float32)

        def arrived(results: list[tuple[Laid, NDArray[np.float32]]]) -> None:
            if self._job is job:
                self.laid, self.layout = results[-1]
                self.layout_name = wanted

        def done(_: Any) -> None:
            if self._job is job:
                self._job = None
                self.changed.emit()
                on_done()

        def failed(error: Exception) -> None:
            if self._job is job:
                self._job = None
                self.changed.emit()
                on_error(error)

        if self._job is not None:
            self._job.cancel()
        job = jobs.start(
            work,
            on_progress=arrived,
            on_done=done,
            on_error=failed,
            title="laying features out",
            owner=owner,
        )
        self._job = job
        self.changed.emit()

    # --- points and patches -------------------------------------------------------------------

    def place(self, n: int) -> Place:
        """Return the place of a point."""
        patch = self.patch(n, "")
        return Place(patch.fingerprint, patch.xy_px0, patch.size_px0)

    def patch(self, n: int, why: str) -> Patch:
        """Return a point as a patch of a gallery."""
        assert self.laid is not None, "there are points"
        points = self.laid.points
        tiles = points.tiles[points.slide[n]]
        tile = int(points.tile[n])
        x, y, width, height = tiles.rects_px0[tile].tolist()
        truth = math.nan if tiles.truth is None else float(tiles.truth[tile])
        return Patch(
            tiles.slide,
            tiles.fingerprint,
            (x, y),
            (width, height),
            float(tiles.scores[tile]),
            math.nan if math.isnan(truth) else truth,
            why or f"{tiles.what} {tiles.scores[tile]:.3g}",
        )

    def find(self, places: frozenset[Place]) -> NDArray[np.int64]:
        """Return which points are at some places."""
        if self.laid is None or not places:
            return np.empty(0, np.int64)
        points = self.laid.points
        wanted = {(place.slide, place.xy_px0) for place in places}
        rects = points.rects_px0[:, :2]
        slides = [each.fingerprint for each in points.tiles]
        own = {place.slide for place in places}
        near = np.flatnonzero([slides[n] in own for n in range(len(slides))])
        rows = np.flatnonzero(np.isin(points.slide, near))
        found = [
            row
            for row in rows.tolist()
            if (slides[points.slide[row]], tuple(rects[row])) in wanted
        ]
        return np.array(found, np.int64)

    def like(self, patch: Patch, count: int) -> list[Patch]:
        """Return the patches that look most like one, over all slides, itself first."""
        assert self.laid is not None, "there are points"
        rows = self.find(frozenset({Place(patch.fingerprint, patch.xy_px0, patch.size_px0)}))
        if not len(rows):
            return []
        order, likeness = nearest(self.laid.units, self.laid.units[rows[0]], count)
        return [
            self.patch(int(n), f"likeness {alike:.2f}")
            for n, alike in zip(order, likeness, strict=True)
        ]


_CLOUDS = PerViewer(Cloud)


def cloud(viewer: Any) -> Cloud:
    """Return the features of the gallery of a viewer, begun at the first call."""
    return _CLOUDS.of(viewer)
