"""What is open in one viewer: its slides with their layers, and the runs laid over them.

A `Session` belongs to a viewer and dies with it; the docks of one viewer share it. It follows the
viewer's layer list, so a slide that came in through napari's own File menu is adopted, and a slide
whose last layer is removed is closed. It asks no questions and shows no dialogs: docks do that.
"""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from psygnal import Signal

from napari_histomil.slides.readers import open_slide
from napari_histomil.slides.remembered import remember_mpp
from napari_histomil.slides.slide import Slide, SlideInfo
from napari_histomil.ui.camera import fit_slide, go_to_px0
from napari_histomil.ui.layers import (
    LayerData,
    center_of_view_px0,
    pyramid_of,
    slide_layer,
    slide_of,
    world_scale,
)
from napari_histomil.ui.painting import follow
from napari_histomil.ui.per_viewer import PerViewer

if TYPE_CHECKING:
    from napari.layers import Image

    from napari_histomil.results import MilRun, RunStore, SegmentationStore
    from napari_histomil.ui.attention_view import AttentionView
    from napari_histomil.ui.heatmap_view import HeatmapView
    from napari_histomil.ui.segmentation_painter import SegmentationPainter
    from napari_histomil.ui.segmentation_view import SegmentationView


@dataclass(eq=False)
class SlideSession:
    """One open slide and the layer that shows it."""

    slide: Slide
    layer: Image

    @property
    def info(self) -> SlideInfo:
        """The slide's facts."""
        return self.slide.info

    @property
    def name(self) -> str:
        """File name of the slide."""
        return self.info.path.name

    @property
    def has_mpp(self) -> bool:
        """Whether it is known how large a pixel is."""
        return self.info.mpp_x is not None


@dataclass(eq=False)
class RunView:
    """One stored run shown in a viewer: its layer over its slide.

    It is a heatmap, attention or a segmentation, whichever its result is.
    """

    store: RunStore | SegmentationStore | MilRun
    slide: SlideSession
    layer: Image
    heatmap: HeatmapView | AttentionView | None = None
    """What is shown of it: class, threshold, normalisation; `overlays.py` keeps the layer so.
    Of a MIL run it is also its `attention`."""
    attention: AttentionView | None = None
    """Of a MIL run: map, magnification, head, patches to look at."""
    segmentation: SegmentationView | None = None
    """What is shown of it: classes, steps, areas; `painter` keeps the layer so."""
    painter: SegmentationPainter | None = None

    @property
    def shown(self) -> HeatmapView | AttentionView | SegmentationView:
        """What is shown of it; all kinds say `changed` and `filled`."""
        found = self.heatmap if self.heatmap is not None else self.segmentation
        assert found is not None, "a run is shown as something"
        return found

    @property
    def title(self) -> str:
        """What is shown of it, and by which model, in words."""
        what = self.segmentation.title if self.heatmap is None else self.heatmap.class_name
        if self.attention is not None:
            what = self.attention.title
        return f"{what} ({self.store.model['name']})"


class Session:
    """Open slides and shown runs of one viewer; get it with `session`.

    Attributes
    ----------
    slides
        Open slides, oldest first.
    runs
        Shown runs, oldest first.
    """

    slide_opened = Signal(object)
    """A `SlideSession` was opened or adopted."""
    slide_closed = Signal(object)
    """A `SlideSession` is gone; its slide is closed."""
    slide_changed = Signal(object)
    """The facts of a `SlideSession` changed: its µm/px were set, or its colours."""
    active_changed = Signal(object)
    """The `SlideSession` that the docks speak of, or None."""
    runs_changed = Signal()
    """A run was added to the viewer or removed."""
    models_changed = Signal()
    """A model was written where models are looked for."""
    model_wanted = Signal(str)
    """The model of that name is to be chosen for the next run."""

    def __init__(self, viewer: Any) -> None:
        # Only weakly: the session is the value of a dictionary whose key is the viewer.
        self._viewer = weakref.ref(viewer)
        self.slides: list[SlideSession] = []
        self.runs: list[RunView] = []
        self._active: SlideSession | None = None
        self._fitted: tuple[SlideInfo, tuple[float, ...]] | None = None
        for layer in viewer.layers:
            self._adopt(layer)
            if slide_of(layer) is not None:
                follow(viewer, layer)
        self._follow(viewer.layers.selection.active)
        viewer.layers.events.inserted.connect(self._on_inserted)
        viewer.layers.events.removed.connect(self._on_removed)
        viewer.layers.selection.events.active.connect(self._on_selected)
        viewer.canvas.events.size.connect(self._on_canvas_size)

    @property
    def viewer(self) -> Any:
        """The viewer itself, not a plugin's proxy of it; None once it is gone."""
        return self._viewer()

    @property
    def active(self) -> SlideSession | None:
        """The slide that was selected or opened last, by itself or through its heatmap."""
        return self._active

    def open_slide(
        self, path: Path, *, reader: str | None = None, icc: bool = False
    ) -> SlideSession:
        """Open a slide, add its layer and look at it; the other slides are hidden.

        Parameters
        ----------
        path
            File or folder of the slide.
        reader, icc
            As in `readers.open_slide`.

        Raises
        ------
        SlideError
            If it cannot be opened, in one sentence.
        """
        return self.add_slide(slide_layer(open_slide(path, reader=reader, icc=icc)))

    def add_slide(self, layer_data: LayerData) -> SlideSession:
        """Add the layer of an open slide (`slide_layer`) and look at it.

        The slide is closed with its layer.
        """
        data, attributes, _ = layer_data
        shown = data[0].pyramid
        shown.overview.start(shown.loader)  # it fills while napari makes the layer
        self.viewer.add_image(data, **attributes)  # comes back through `_on_inserted`
        return self.slides[-1]

    def show_only(self, shown: SlideSession) -> None:
        """Hide the layers of all other slides and their runs: all slides start at one corner."""
        for each in self.slides:
            each.layer.visible = each is shown
        for run in self.runs:
            if run.slide is not shown:  # which of its own is shown, `overlays.py` decides
                run.layer.visible = False
        self.activate(shown)

    def fit(self, info: SlideInfo) -> None:
        """Show a whole slide; it stays whole when the window changes, until one moves."""
        fit_slide(self.viewer, info)
        self._fitted = info, self._looks_at()

    def activate(self, slide: SlideSession | None) -> None:
        """Make the docks speak of this slide."""
        if slide is not self._active:
            self._active = slide
            self.active_changed.emit(slide)

    def close_slide(self, slide: SlideSession) -> None:
        """Remove a slide's layer and those of its runs; the file is closed."""
        for run in self.runs_of(slide):
            self.remove_run(run)
        if slide.layer in self.viewer.layers:
            self.viewer.layers.remove(slide.layer)

    def set_mpp(self, slide: SlideSession, mpp: float) -> None:
        """Set how many µm a level-0 pixel spans, and remember it for this slide.

        The slide's layer is scaled in place, and the same part of it stays in view. Runs shown
        over the slide are removed from the viewer (not from disk): they were computed for other
        µm/px.

        Raises
        ------
        SlideError
            If `mpp` is out of reason, or the slide cannot be opened again.
        OutputError
            If the answer cannot be kept; the window uses it all the same.
        """
        for run in self.runs_of(slide):
            self.remove_run(run)
        info = slide.info
        opened = open_slide(info.path, mpp=mpp, reader=info.reader, icc=info.icc_applied)
        self._replace(slide, opened)
        remember_mpp(opened.info, mpp)

    def set_icc(self, slide: SlideSession, on: bool) -> None:
        """Show a slide in sRGB by its colour profile, or as it is stored; the view stays.

        Only this window's picture changes: a run reads the slide by itself.

        Raises
        ------
        SlideError
            If the profile cannot be used, or the slide cannot be opened again.
        """
        info = slide.info
        if on != info.icc_applied:
            mpp = info.mpp_xy if info.mpp_source == "given" else None  # else it is found again
            self._replace(slide, open_slide(info.path, mpp=mpp, reader=info.reader, icc=on))

    def _replace(self, slide: SlideSession, opened: Slide) -> None:
        """Show another opening of a slide in its layer; the same part of it stays in view."""
        layer, before = slide.layer, slide.slide
        levels_before = pyramid_of(layer)
        data, attributes, _ = slide_layer(opened, name=layer.name)
        center_px0 = center_of_view_px0(self.viewer, before.info)
        larger = world_scale(opened.info)[1] / world_scale(before.info)[1]
        slide.slide = opened
        layer.metadata = attributes["metadata"]
        layer.data = data
        follow(self.viewer, layer)
        layer.units = attributes["units"]
        layer.scale, layer.translate = attributes["scale"], attributes["translate"]
        levels_before.close()
        before.close()
        self.viewer.scene.camera.zoom /= larger
        go_to_px0(self.viewer, opened.info, center_px0)
        self.slide_changed.emit(slide)

    def add_run(self, run: RunView) -> None:
        """Take note of a run whose heatmap layer is in the viewer."""
        self.runs.append(run)
        self.runs_changed.emit()

    def remove_run(self, run: RunView) -> None:
        """Remove a run's layer from the viewer; the run stays on disk."""
        if run.layer in self.viewer.layers:
            self.viewer.layers.remove(run.layer)  # comes back through `_on_removed`

    def runs_of(self, slide: SlideSession) -> list[RunView]:
        """Return the runs shown over a slide, oldest first."""
        return [run for run in self.runs if run.slide is slide]

    # --- following the layer list ---

    def _looks_at(self) -> tuple[float, ...]:
        camera = self.viewer.scene.camera
        return camera.zoom, *camera.center

    def _on_canvas_size(self) -> None:
        if self._fitted is not None and self._fitted[1] == self._looks_at():
            self.fit(self._fitted[0])

    def _adopt(self, layer: Any) -> SlideSession | None:
        slide = slide_of(layer)
        if slide is None or any(each.slide is slide for each in self.slides):
            return None  # not ours, or napari's duplicate of a layer we know
        adopted = SlideSession(slide, layer)
        self.slides.append(adopted)
        self.slide_opened.emit(adopted)
        self.activate(adopted)
        return adopted

    def _on_inserted(self, event: Any) -> None:
        if slide_of(event.value) is not None:
            follow(self.viewer, event.value)
        adopted = self._adopt(event.value)
        if adopted is not None:
            self.show_only(adopted)
            self.fit(adopted.info)

    def _on_removed(self, event: Any) -> None:
        gone = event.value
        kept = [run for run in self.runs if run.layer is not gone]
        if len(kept) != len(self.runs):
            self.runs = kept
            self.runs_changed.emit()
        for each in [each for each in self.slides if each.layer is gone]:
            self._on_slide_removed(each)

    def _on_slide_removed(self, slide: SlideSession) -> None:
        for layer in self.viewer.layers:  # a duplicate that still shows the slide
            if slide_of(layer) is slide.slide:
                slide.layer = layer
                return
        self.slides.remove(slide)
        for run in self.runs_of(slide):
            # napari removes selected layers one by one, and stumbles over one that is gone.
            if run.layer not in self.viewer.layers.selection:
                self.remove_run(run)
        pyramid_of(slide.layer).close()
        slide.slide.close()
        if self._active is slide:
            if self.slides:
                self.show_only(self.slides[-1])
            else:
                self.activate(None)
        self.slide_closed.emit(slide)

    def _on_selected(self, event: Any) -> None:
        self._follow(event.value)

    def _follow(self, layer: Any) -> None:
        """Speak of the slide that a layer shows or lies over; of none other if it is not ours.

        Nor of a hidden one while another is seen: napari selects the next layer by itself when
        one is removed.
        """
        slides = [each for each in self.slides if each.layer is layer]
        slides += [run.slide for run in self.runs if run.layer is layer]
        for slide in slides:
            seen = self._active is not None and self._active.layer.visible
            if slide in self.slides and (slide.layer.visible or not seen):
                self.activate(slide)


_SESSIONS = PerViewer(Session)


def session(viewer: Any) -> Session:
    """Return the session of a viewer, begun at the first call.

    Parameters
    ----------
    viewer
        A napari viewer, a ``ViewerModel``, or the proxy of one that napari gives to plugins.
    """
    return _SESSIONS.of(viewer)
