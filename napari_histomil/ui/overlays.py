"""Results in a viewer: which run lies over the slide, toggle it, walk its hottest tiles.

One `Overlays` belongs to a viewer; the Run dock fills it, the Overlay dock steers it, the keys act
on it whichever docks are open. Only one result lies over a slide at a time: the current one. Its
layer is made, and kept as chosen, by `run_layers.py`.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any

from psygnal import Signal

from napari_histomil.errors import RunError
from napari_histomil.geometry import Rect
from napari_histomil.results import MilRun
from napari_histomil.ui import keys
from napari_histomil.ui.camera import fit_rect, go_to_px0, set_magnification
from napari_histomil.ui.frames import Frames, selection_kept
from napari_histomil.ui.per_viewer import PerViewer
from napari_histomil.ui.run_facts import AnyStore
from napari_histomil.ui.run_layers import laid_over
from napari_histomil.ui.session import RunView, Session, SlideSession, session

OPACITY_STEP = 0.1
LOOK_CLOSELY = 20.0
"""Magnification at which a hottest tile is looked at."""

FRAME_NAME = "hottest tile"


class Overlays:
    """The results shown in one viewer; get it with `overlays`."""

    current_changed = Signal(object)
    """The `RunView` that the docks and keys speak of, or None."""
    shown_changed = Signal()
    """The current layer was shown, hidden or made fainter, here or in napari's layer list."""
    stepped = Signal()
    """Another stop of the tour is looked at."""

    def __init__(self, viewer: Any) -> None:
        self._session: weakref.ref[Session] = weakref.ref(session(viewer))
        self._chosen: weakref.WeakKeyDictionary[SlideSession, RunView] = (
            weakref.WeakKeyDictionary()
        )
        self._current: RunView | None = None
        self._frame = Frames(self.session.viewer, FRAME_NAME)
        self.session.active_changed.connect(self._follow_slide)
        self.session.runs_changed.connect(self._update_current)
        self._update_current()
        for name, function in (
            ("overlay.toggle", self.toggle),
            ("overlay.fainter", self.fainter),
            ("overlay.stronger", self.stronger),
            ("hottest.next", self.next_hottest),
            ("hottest.previous", self.previous_hottest),
            ("patch.previous", self.previous_hottest),
        ):
            keys.bind(viewer, name, function)

    @property
    def session(self) -> Session:
        """Open slides and shown runs."""
        held = self._session()
        assert held is not None, "a viewer's overlays outlive its session"
        return held

    @property
    def current(self) -> RunView | None:
        """The run over the active slide that was added or chosen last."""
        return self._current

    # ------------------------------------------------------------------- runs and layers

    def add(self, store: AnyStore) -> RunView:
        """Lay a run over its slide, which must be open, and make it the current one.

        Parameters
        ----------
        store
            The run. Scores are read once, later ones come by `HeatmapView.fill`; a segmentation
            is read beside the window, anew after `SegmentationView.fill`.

        Returns
        -------
        RunView
            The one that is there already where the run is shown.

        Raises
        ------
        RunError
            If its slide is not open, or it was computed for other µm/px.
        """
        slide = self._slide_of(store)
        for run in self.session.runs_of(slide):
            if run.store.run_id == store.run_id:
                if isinstance(store, MilRun):
                    if store.created != run.store.created:  # answered anew
                        self.session.remove_run(run)
                        break
                elif run.segmentation is not None:
                    run.segmentation.fill()
                else:
                    run.heatmap.fill(store.scores)
                self.choose(run)
                return run
        run = laid_over(self.session.viewer, store, slide)
        if run.attention is not None:
            run.attention.replaced.connect(self._frame.clear)
        run.layer.events.visible.connect(lambda _: self.shown_changed.emit())
        run.layer.events.opacity.connect(lambda _: self.shown_changed.emit())
        layers = self.session.viewer.layers
        with selection_kept(layers):
            layers.insert(layers.index(slide.layer) + 1, run.layer)
        self._chosen[slide] = run
        self.session.add_run(run)
        self.choose(run)
        return run

    def _slide_of(self, store: AnyStore) -> SlideSession:
        made_of = store.slide
        for slide in self.session.slides:
            if made_of["fingerprint"] is None:  # of features whose file names no slide
                if slide.info.path.stem != made_of["name"]:
                    continue
            elif slide.info.fingerprint != made_of["fingerprint"]:
                continue
            given = made_of["mpp_xy"] or slide.info.mpp_xy
            if not slide.has_mpp or tuple(slide.info.mpp_xy) != tuple(given):
                raise RunError(
                    f"The run {store.path.name} took {slide.name} to have "
                    f"{given[0]:.4g} µm/px, and it is open with other µm/px: set them "
                    f"in the Slide dock."
                )
            return slide
        raise RunError(
            f"The run {store.path.name} belongs to the slide {made_of['name']}, which is not "
            f"open: open it first."
        )

    def choose(self, run: RunView) -> None:
        """Make a run the current one of its slide: it is shown, the slide's others are hidden.

        Over another slide it would tell lies: it appears when its own slide does.
        """
        self._chosen[run.slide] = run
        for other in self.session.runs_of(run.slide):
            other.layer.visible = other is run and run.slide is self.session.active
        self._update_current()

    def _follow_slide(self) -> None:
        self._update_current()
        if self._current is not None:
            self._current.layer.visible = True  # hidden while another slide was shown

    def _update_current(self) -> None:
        slide = self.session.active
        shown = self.session.runs_of(slide) if slide is not None else []
        run = self._chosen.get(slide) if slide is not None else None
        if run not in shown:
            run = shown[-1] if shown else None
        if run is self._current:
            return
        self._current = run
        self._frame.clear()
        self.current_changed.emit(run)

    # ----------------------------------------------------------------------------- keys

    def toggle(self) -> None:
        """Show the current result, or hide it."""
        if self._current is not None:
            self._current.layer.visible = not self._current.layer.visible

    def fainter(self) -> None:
        """Lower the opacity of the current result by a step."""
        self._change_opacity(-OPACITY_STEP)

    def stronger(self) -> None:
        """Raise the opacity of the current result by a step."""
        self._change_opacity(OPACITY_STEP)

    def next_hottest(self) -> None:
        """Go to the next hottest tile at 20x and frame it."""
        self._step(1)

    def previous_hottest(self) -> None:
        """Go back to the previous hottest tile."""
        self._step(-1)

    def _change_opacity(self, by: float) -> None:
        if self._current is not None:
            layer = self._current.layer
            layer.opacity = min(max(round(layer.opacity + by, 2), 0.0), 1.0)

    def _step(self, by: int) -> None:
        run = self._current
        tile = run.heatmap.step(by) if run is not None and run.heatmap is not None else None
        if run is not None and tile is not None:
            self._fly(run, tile)

    def go_to_picked(self, stop: int) -> None:
        """Go to one of the patches that are listed of a MIL run, and frame it."""
        run = self._current
        tile = run.attention.go(stop) if run is not None and run.attention is not None else None
        if run is not None and tile is not None:
            self._fly(run, tile)

    def _fly(self, run: RunView, tile: int) -> None:
        viewer, info = self.session.viewer, run.slide.info
        if run.attention is not None:
            self._frame.show(info, run.attention.frames_px0(tile))
            x, y, width, height = run.attention.frames_px0(tile)[0]
            around = Rect(x - width, y - height, 3 * width, 3 * height)
            fit_rect(viewer, info, around)
            self.stepped.emit()
            return
        grid = run.heatmap.grid
        self.look_closely(run, [grid.cell_rects_px0[tile], grid.tile_rects_px0[tile]])
        self.stepped.emit()

    def look_closely(self, run: RunView, rects_px0: Sequence[Sequence[float]]) -> None:
        """Go to a place at 20x and frame it.

        Parameters
        ----------
        run
            Whose place it is.
        rects_px0
            x, y, width, height: the place, and what else is framed.
        """
        viewer, info = self.session.viewer, run.slide.info
        x, y, width, height = rects_px0[0]
        set_magnification(viewer, LOOK_CLOSELY)
        go_to_px0(viewer, info, (float(x + width / 2), float(y + height / 2)))
        self._frame.show(info, rects_px0)


_OVERLAYS = PerViewer(Overlays)


def overlays(viewer: Any) -> Overlays:
    """Return the results shown in a viewer, begun at the first call.

    Parameters
    ----------
    viewer
        A napari viewer, a ``ViewerModel``, or the proxy of one that napari gives to plugins.
    """
    return _OVERLAYS.of(viewer)
