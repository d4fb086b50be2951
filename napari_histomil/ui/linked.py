"""A second view beside the first: the same place, with a heatmap, or in another slide.

One `Linked` belongs to a viewer. Its second view is a viewer model of its own, whose world is that
of the slide in the first view: whatever another slide needs to lie on it (an alignment, another
scale) is in its layers' affine, and no coordinate of that slide changes. So both cameras hold the
same numbers. No window is made here: `widgets/linked.py` does that.
"""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from typing import Any

import numpy as np
from napari.components import ViewerModel
from napari.layers import Image
from numpy.typing import NDArray
from psygnal import Signal

from napari_histomil.slides.alignment import Alignment
from napari_histomil.slides.slide import SlideInfo
from napari_histomil.ui.brightness import tones
from napari_histomil.ui.joined import JoinedViews, Side
from napari_histomil.ui.layers import to_px0, to_world_um
from napari_histomil.ui.overlays import Overlays, overlays
from napari_histomil.ui.per_viewer import PerViewer
from napari_histomil.ui.run_facts import title
from napari_histomil.ui.second_layers import SecondLayers
from napari_histomil.ui.session import RunView, Session, SlideSession


@dataclass(frozen=True)
class Shown:
    """What the second view shows."""

    slide: SlideSession | None = None
    """Another open slide, or None for the one in the first view, whichever that is."""
    run: RunView | None = None
    """A run laid over the slide."""
    current: bool = False
    """Whether the run is the one that the Overlay dock speaks of, whichever that is."""


class Linked:
    """The second view of one viewer; get it with `linked`.

    Attributes
    ----------
    view
        The second view, or None while there is none.
    shown
        What it shows.
    """

    opened = Signal()
    """There is a second view now, and nobody has made a canvas for it yet."""
    closed = Signal()
    """The second view is gone, with its layers; its canvas is to go as well."""
    changed = Signal()
    """Other slides or runs are shown or can be chosen, or the views were joined or parted."""
    pointed = Signal(str, object)
    """The pointer is in a view: its `Side`, and the (row, col) in the world."""
    clicked = Signal(str, object)
    """A click while `picking`: the `Side`, and level-0 pixels (x, y) of the slide there."""

    def __init__(self, viewer: Any) -> None:
        self._overlays: weakref.ref[Overlays] = weakref.ref(overlays(viewer))
        self.view: ViewerModel | None = None
        self.shown = Shown()
        self.picking = False
        self._alignment: Alignment | None = None
        self._left: SlideSession | None = None
        self._right: SlideSession | None = None
        self._hidden: RunView | None = None
        self._views: JoinedViews | None = None
        self._layers: SecondLayers | None = None
        session = self.session
        session.active_changed.connect(self._on_active)
        session.slide_closed.connect(self._on_slide_closed)
        session.slide_changed.connect(self._on_slide_changed)
        session.slide_opened.connect(self._on_choices)
        session.runs_changed.connect(self._on_runs)
        self._of_viewer().current_changed.connect(self._on_choices)
        self._of_viewer().shown_changed.connect(self.changed.emit)
        self._tones = tones(viewer)
        self._tones.changed.connect(self._on_tone)

    # ------------------------------------------------------------------------ what is shown

    def _of_viewer(self) -> Overlays:
        held = self._overlays()
        assert held is not None, "a viewer's second view outlives its overlays"
        return held

    @property
    def session(self) -> Session:
        """Open slides and shown runs."""
        return self._of_viewer().session

    @property
    def viewer(self) -> Any:
        """The first view."""
        return self.session.viewer

    @property
    def left(self) -> SlideSession | None:
        """The slide in the first view while there is a second one."""
        return self._left

    @property
    def right(self) -> SlideSession | None:
        """The slide in the second view."""
        return self._right

    @property
    def run(self) -> RunView | None:
        """The run that lies over the slide in the second view."""
        return self._layers.run if self._layers is not None else None

    @property
    def layer(self) -> Image | None:
        """The slide's layer in the second view."""
        return self._layers.slide_layer if self._layers is not None else None

    @property
    def hidden(self) -> RunView | None:
        """The run that the first view leaves out while the second view shows it."""
        return self._hidden

    def choices(self) -> list[tuple[str, Shown]]:
        """Return what the second view can show now, each with its title."""
        session, current = self.session, self._of_viewer().current
        active = session.active
        if active is None:
            return []
        choices = []
        if current is not None:
            what = "heatmap" if current.heatmap is not None else "segmentation"
            choices.append((f"This slide with the {what}", Shown(current=True)))
        choices.append(("This slide without heatmap", Shown()))
        runs = session.runs_of(active)
        if len(runs) > 1:
            choices += [(f"This slide with {title(run.store)}", Shown(run=run)) for run in runs]
        for slide in session.slides:
            if slide is active:
                continue
            choices.append((slide.name, Shown(slide)))
            choices += [
                (f"{slide.name} with {title(run.store)}", Shown(slide, run))
                for run in session.runs_of(slide)
            ]
        return choices

    def best_choice(self) -> Shown | None:
        """Return the heatmap where there is one, else another slide, else what there is."""
        choices = [each for _, each in self.choices()]
        return min(choices, key=lambda each: (not each.current, each.slide is None), default=None)

    def label(self, side: Side) -> list[str]:
        """Return what a view shows, in short lines: its slide, its heatmap, how it lies."""
        slide = self._slide(side)
        current = self._of_viewer().current
        run = self.run
        if side == "left":
            run = current if current is not None and current.layer.visible else None
        lines = [slide.name]
        if run is not None:
            lines.append(f"with {run.title}")
        elif self._left is self._right:
            lines.append("without heatmap")
        if side == "right" and self._left is not self._right:
            lines.append(self._how_it_lies())
        return lines

    def _how_it_lies(self) -> str:
        if self._alignment is not None:
            flipped = ", flipped" if self._alignment.mirrored else ""
            scale = ", size estimated" if self._alignment.scale_estimated else ""
            return f"aligned by {len(self._alignment.pairs)} pairs{flipped}{scale}"
        if self._slide("left").has_mpp and self._slide("right").has_mpp:
            return "not aligned"
        return "not aligned, pixel for pixel: µm/px unknown"

    def open(self, shown: Shown | None = None) -> None:
        """Open the second view, or show something else in it.

        Parameters
        ----------
        shown
            None for the `best_choice`.
        """
        if shown is None:
            shown = self.best_choice()
        if shown is None:
            return
        self.shown = shown
        if self.view is None:
            self._begin()
            self._show()
            self.opened.emit()
        else:
            self._show()
        self.changed.emit()

    def close(self) -> None:
        """Close the second view; its layers and their memory go."""
        if self.view is None:
            return
        assert self._views is not None
        assert self._layers is not None
        self._watch(None)
        self._views.let_go()
        self._layers.let_go()
        if self.viewer is not None:
            self.viewer.events.theme.disconnect(self._on_theme)
        self.view = self._views = self._layers = self._right = self._alignment = None
        self.picking = False
        self._restore_left()
        self.closed.emit()
        self.changed.emit()

    def toggle(self) -> None:
        """Open the second view, or close it."""
        if self.view is None:
            self.open()
        else:
            self.close()

    def _show(self) -> None:
        """Put what is to be shown into the second view, and nothing else."""
        left = self.session.active
        if self.view is None or left is None:
            return
        right = self.shown.slide or left
        run = self._of_viewer().current if self.shown.current else self.shown.run
        if (left, right) != (self._left, self._right):
            self._alignment = None
        self._watch(left)
        self._right = right
        assert self._views is not None
        assert self._layers is not None
        with self._views.still():  # napari fits the first layer into the view
            self._layers.show_slide(right)
            self._on_tone(right)
            self._layers.show_run(run)
            self._place()
        self._views.follow()
        if run is not None and right is left:
            self._hide_left()
        else:
            self._restore_left()

    def _on_tone(self, slide: SlideSession) -> None:
        """Show the slide as bright as it is in the first view."""
        if slide is self._right and self._layers is not None:
            self._layers.set_tone(self._tones.of(slide))

    def _watch(self, left: SlideSession | None) -> None:
        """Follow the first view's slide where a person transforms its layer."""
        if left is self._left:
            return
        if self._left is not None:
            self._left.layer.events.affine.disconnect(self._on_affine)
        if left is not None:
            left.layer.events.affine.connect(self._on_affine)
        self._left = left

    def _hide_left(self) -> None:
        """Leave the first view plain: the heatmap is beside it now."""
        self._restore_left()
        current = self._of_viewer().current
        if current is not None and current.layer.visible:
            current.layer.visible = False
            self._hidden = current

    def _restore_left(self) -> None:
        hidden, self._hidden = self._hidden, None
        if hidden in self.session.runs and hidden is self._of_viewer().current:
            hidden.layer.visible = True

    # -------------------------------------------------------------------- where it is shown

    @property
    def alignment(self) -> Alignment | None:
        """How the slide of the second view lies on that of the first; None without pairs."""
        return self._alignment

    @alignment.setter
    def alignment(self, alignment: Alignment | None) -> None:
        self._alignment = alignment
        self._place()
        self.changed.emit()

    @property
    def joined(self) -> bool:
        """Whether the two views move together."""
        return self._views is None or self._views.joined

    @joined.setter
    def joined(self, joined: bool) -> None:
        if self._views is not None:
            self._views.joined = joined
        self.changed.emit()

    def to_world(self, side: Side, xy_px0: Any) -> NDArray[np.float64]:
        """Return where a place of a view's slide lies in the world that both views share.

        Parameters
        ----------
        side
            The view.
        xy_px0
            float [2], level-0 pixels (x, y) of the slide in that view.

        Returns
        -------
        float64 [2]
            (row, col).
        """
        matrix = self._matrix(side)
        slide = self._slide(side)
        return matrix[:2, :2] @ to_world_um(xy_px0, slide.info) + matrix[:2, 2]

    def to_px0(self, side: Side, world: Any) -> NDArray[np.float64]:
        """Return the place of a view's slide at a position of the world: undoes `to_world`."""
        matrix = self._matrix(side)
        own = np.linalg.solve(matrix[:2, :2], np.asarray(world, float)[-2:] - matrix[:2, 2])
        return to_px0(own, self._slide(side).info)

    def _slide(self, side: Side) -> SlideSession:
        slide = self._left if side == "left" else self._right
        if slide is None:
            raise ValueError("there is no second view")
        return slide

    def _matrix(self, side: Side) -> NDArray[np.float64]:
        """Return the affine [3, 3], in (row, col), from a slide's own world to the shared one."""
        left, right = self._slide("left"), self._slide("right")
        shared = np.asarray(left.layer.affine.affine_matrix)[-3:, -3:]  # a person's own
        if side == "left" or right is left:
            return shared
        return shared @ _between(right.info, left.info, self._alignment)

    def _place(self) -> None:
        """Lay the second view's layers where they belong in the world of the first view."""
        if self._layers is not None and self._right is not None:
            self._layers.place(self._matrix("right"))

    def _on_affine(self, _event: Any) -> None:
        self._place()

    def _begin(self) -> None:
        """Make the second view and join it to the first."""
        viewer = self.viewer
        self.view = ViewerModel(title="Second view")
        self.view.theme = viewer.theme
        viewer.events.theme.connect(self._on_theme)
        # Its keys are those of the window: whoever presses one need not know where the focus is.
        self.view.keymap.update(viewer.keymap)
        self._layers = SecondLayers(self.view)
        self._layers.repainted.connect(self.changed.emit)
        self._views = JoinedViews(viewer, self.view)
        self._views.pointed.connect(self.pointed.emit)
        self._views.clicked.connect(self._on_clicked)

    def _on_theme(self, _event: Any) -> None:
        if self.view is not None:
            self.view.theme = self.viewer.theme

    def _on_clicked(self, side: Side, world: NDArray[np.float64]) -> None:
        if self.picking:
            x, y = self.to_px0(side, world)
            self.clicked.emit(side, (float(x), float(y)))

    # -------------------------------------------------------------- following the first viewer

    def _on_active(self, active: SlideSession | None) -> None:
        if self.view is None:
            self.changed.emit()
            return
        slides = self.session.slides
        if active is None or self._left not in slides or self._right not in slides:
            self.close()
            return
        if active is self._right and active is not self._left and self._left is not None:
            # The second view's slide came to the left: the views change places.
            self.shown = Shown(self._left)
        elif self.shown.slide is None and self.shown.run is not None:
            self.shown = Shown(current=True)
        if active is not self._left:
            self._show()
        self.changed.emit()

    def _on_slide_closed(self, slide: SlideSession) -> None:
        if self.view is not None and slide in (self._right, self.shown.slide):
            self.close()
        else:
            self.changed.emit()

    def _on_slide_changed(self, slide: SlideSession) -> None:
        """Show a slide whose µm/px were set anew; pairs then mean another transform."""
        if self.view is not None and slide in (self._left, self._right):
            self._alignment = None
            self._show()
        self.changed.emit()

    def _on_runs(self) -> None:
        if self.view is not None and self.shown.run not in (None, *self.session.runs):
            self.shown = Shown(self.shown.slide, current=self.shown.slide is None)
            self._show()
        self._on_choices()

    def _on_choices(self, _changed: Any = None) -> None:
        if self.view is not None and self.shown.current:
            current = self._of_viewer().current
            if current is not self.run and self.session.active is self._left:
                self._show()
        self.changed.emit()


_LINKED = PerViewer(Linked)


def linked(viewer: Any) -> Linked:
    """Return the second view of a viewer, begun at the first call and closed until opened.

    Parameters
    ----------
    viewer
        A napari viewer, a ``ViewerModel``, or the proxy of one that napari gives to plugins.
    """
    return _LINKED.of(viewer)


def hides(viewer: Any, run: RunView) -> bool:
    """Return whether the first view leaves a heatmap out only because the second view has it."""
    found = _LINKED.found(viewer)
    return found is not None and found.hidden is run


def _between(
    source: SlideInfo, target: SlideInfo, alignment: Alignment | None
) -> NDArray[np.float64]:
    """Return the affine [3, 3], in (row, col), from one slide's world to another's.

    Without an alignment both slides have one corner, and one size in µm; pixels of theirs are the
    same where either does not know its µm/px.
    """
    corners_px0 = np.array([(0.0, 0.0), (0.0, 1.0), (1.0, 0.0)])
    own = to_world_um(corners_px0, source)
    if alignment is not None:
        there = to_world_um(alignment.to_first(corners_px0), target)
    elif source.mpp_x is None or target.mpp_x is None:
        there = to_world_um(corners_px0, target)
    else:
        there = own
    steps = np.linalg.solve((own[1:] - own[0]), (there[1:] - there[0])).T
    matrix = np.eye(3)
    matrix[:2, :2] = steps
    matrix[:2, 2] = there[0] - steps @ own[0]
    return matrix
