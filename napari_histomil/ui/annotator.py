"""Annotating in one viewer: the slide's regions, what is chosen of them, the tool in the hand.

The docks, the keys, the tools on the canvas and the picture of the regions all speak through the
`Annotator` of their viewer, and none of them to another. It draws nothing and hears no mouse:
what is drawn is in `region_layers.py`, what a hand does is in `drawing/`.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Collection, Sequence
from typing import Any, Literal

from napari.utils.notifications import show_info
from psygnal import Signal
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QWidget

from napari_histomil.annotations import commands
from napari_histomil.annotations.classes import ClassSet
from napari_histomil.annotations.collection import AnnotationSet, Change, Command
from napari_histomil.annotations.keeping import AnnotationKeeper
from napari_histomil.annotations.model import AnnotationClass, Region
from napari_histomil.annotations.spatial import rect_of
from napari_histomil.annotations.stamps import Stamp
from napari_histomil.errors import AnnotationError, OutputError
from napari_histomil.geometry import Rect
from napari_histomil.ui import camera
from napari_histomil.ui.dialogs import show_error
from napari_histomil.ui.draw_order import widget_of
from napari_histomil.ui.layers import world_scale
from napari_histomil.ui.per_viewer import PerViewer
from napari_histomil.ui.session import Session, SlideSession, session
from napari_histomil.ui.slide_keepers import SlideKeepers

Mode = Literal["new", "add", "subtract"]
"""What becomes of a shape that is drawn: a region of its own, or a change of the selected one."""

MODES: tuple[Mode, ...] = ("new", "add", "subtract")

TOOLS = (
    "move", "select", "vertices", "transform", "polygon", "freehand", "rectangle", "ellipse",
    "line", "points", "brush", "eraser", "wand", "split", "ruler",
)  # fmt: skip
"""Names of the tools. ``move`` is none: the mouse moves the view."""

CHOOSING_TOOLS = ("move", "select", "vertices", "transform")
"""Tools that draw nothing new: with them in the hand a class is for what is selected."""

BRUSH_UM = 100.0
SMALLEST_BRUSH_UM, LARGEST_BRUSH_UM = 0.5, 20_000.0
BRUSH_STEP = 1.25

WAND_TOLERANCE = 8.0
"""Distance of colours in CIE Lab; 2 is just seen."""

FLY_MARGIN = 0.5
"""Share of a region's size that is shown around it when one flies there."""

FLY_LEAST_PX0 = 200.0
"""A region is not looked at more closely than as if it were so large."""


class Annotator:
    """What annotating in a viewer has in common; get it with `annotator`.

    Attributes
    ----------
    order
        Set by the list of regions: returns ids in the order in which `step` goes. None for
        the drawing order.
    overlaps
        Whether a shape that would overlap a region of an exclusive class is refused or clipped.
    """

    changed = Signal()
    """The regions of the active slide changed, or are those of another slide; at most once in a
    turn of the event loop."""
    stepped = Signal(Change)
    """What a step did, at once."""
    selection_changed = Signal()
    tool_changed = Signal()
    class_changed = Signal()
    """The active class, the list of classes, or which of them are hidden."""
    saving_changed = Signal()
    slide_changed = Signal()
    """Another slide is active, or none, or its µm/px were set."""
    settings_changed = Signal()
    """Mode, size of the brush, tolerance of the wand, what happens to overlaps."""

    def __init__(self, viewer: Any) -> None:
        self._session: weakref.ref[Session] = weakref.ref(session(viewer))
        self._keepers = SlideKeepers()
        self._regions: AnnotationSet | None = None
        self._blank: weakref.WeakKeyDictionary[SlideSession, AnnotationSet] = (
            weakref.WeakKeyDictionary()
        )
        self._classes = ClassSet()
        self._active_class: AnnotationClass | None = None
        self._hidden: frozenset[str | None] = frozenset()
        self._tool = "move"
        self._selected: frozenset[str] = frozenset()
        self._mode: Mode = "new"
        self._brush_um, self._wand_tolerance = BRUSH_UM, WAND_TOLERANCE
        self.overlaps: Literal["refuse", "clip"] = "clip"
        self.order: Callable[[], Sequence[str]] | None = None
        self._pending = False
        self._keepers.saving_changed.connect(self.saving_changed.emit)
        self._keepers.told.connect(self.tell)
        self._keepers.failed.connect(self._show)
        self._keepers.opened.connect(self._on_opened)
        self.session.active_changed.connect(self._on_active)
        self.session.slide_changed.connect(self._on_active)
        self.session.slide_closed.connect(self._keepers.close)

    # --- the slide and its regions ------------------------------------------------------------

    @property
    def session(self) -> Session:
        """Open slides."""
        held = self._session()
        assert held is not None, "a viewer's annotator outlives its session"
        return held

    @property
    def viewer(self) -> Any:
        """The viewer itself; None once it is gone."""
        return self.session.viewer

    @property
    def slide(self) -> SlideSession | None:
        """The slide that is annotated."""
        return self.session.active

    @property
    def keeper(self) -> AnnotationKeeper | None:
        """What keeps the regions of the slide.

        None without a slide, until something is drawn on it (looking at a slide leaves nothing
        beside it), while a thread reads many regions (`is_reading`), or if its annotations cannot
        be opened: that has been said then.
        """
        slide = self.slide
        if slide is None:
            return None
        keeper = self._keepers.found(slide)
        if keeper is None and self._keepers.drawn_on(slide):
            keeper = self._keepers.of(slide)
        self._follow(self._set_of(slide, keeper))
        return keeper

    @property
    def is_reading(self) -> bool:
        """Whether the slide's regions are still being read; `slide_changed` tells of the end."""
        return self._keepers.is_opening(self.slide)

    @property
    def regions(self) -> AnnotationSet | None:
        """The regions of the slide; None without one."""
        if self.slide is None:
            return None
        return self._set_of(self.slide, self.keeper)

    def _set_of(self, slide: SlideSession, keeper: AnnotationKeeper | None) -> AnnotationSet:
        """Return the set that is kept, or an empty one as long as nothing is."""
        if keeper is not None:
            return keeper.annotations
        return self._blank.setdefault(slide, AnnotationSet())

    @property
    def author(self) -> str | None:
        """Who draws; None for the user of the system."""
        return self._keepers.author

    @author.setter
    def author(self, name: str | None) -> None:
        self._keepers.author = name
        keeper = self._keepers.found(self.slide)
        if keeper is not None:
            keeper.author = Stamp.now(name).author

    def stamp(self) -> Stamp:
        """Return who draws, and the time."""
        keeper = self._keepers.found(self.slide)
        return Stamp.now(self.author if keeper is None else keeper.author)

    def pick(self, ids: Collection[str] | None = None) -> list[Region]:
        """Return regions in drawing order: those selected, or those of the ids given."""
        wanted = self._selected if ids is None else set(ids)
        if self._regions is None or not wanted:
            return []
        if len(wanted) < 100:
            return self._regions.in_order(wanted)
        return [region for region in self._regions if region.id in wanted]

    # --- steps --------------------------------------------------------------------------------

    def do(self, command: Command, *, ready: bool = False) -> bool:
        """Do a step and have it on the disk; False if it is refused, which is shown then.

        Parameters
        ----------
        command
            The step.
        ready
            Its shapes are settled already, see `steps.settled`.
        """
        return self._try(lambda keeper: keeper.do(command, ready=ready)) is not None

    def attempt(self, make: Callable[[AnnotationSet], Command]) -> bool:
        """Make a command and do it; False if either is refused, which is shown then."""
        return self._try(lambda keeper: keeper.do(make(keeper.annotations))) is not None

    def undo(self) -> Command | None:
        """Take the last step back."""
        return self._try(AnnotationKeeper.undo) if self.keeper else None

    def redo(self) -> Command | None:
        """Do the step undone last again."""
        return self._try(AnnotationKeeper.redo) if self.keeper else None

    def delete_selected(self) -> bool:
        """Delete what is selected."""
        chosen = self._selected
        return bool(chosen) and self.attempt(lambda regions: commands.delete(regions, chosen))

    def tell(self, sentence: str) -> None:
        """Show a sentence for a while, without stopping anything."""
        if sentence:
            show_info(sentence)

    def _try(self, step: Callable[[AnnotationKeeper], Command | None]) -> Command | None:
        slide = self.slide
        keeper = None if slide is None else self._keepers.of(slide)
        if keeper is None:
            if self.is_reading:
                self.tell("The annotations are still being read: wait a moment.")
            return None
        self._follow(keeper.annotations)
        try:
            return step(keeper)
        except (AnnotationError, OutputError) as error:
            self._show(error)
            return None

    def _show(self, error: Exception) -> None:
        slide = self.slide
        parent: QWidget | None = widget_of(self.viewer)
        show_error(error, parent, info=None if slide is None else slide.info)

    # --- classes ------------------------------------------------------------------------------

    @property
    def classes(self) -> ClassSet:
        """The classes one annotates with."""
        return self._classes

    def set_classes(self, classes: ClassSet) -> None:
        """Annotate with other classes; the active one stays if it is among them."""
        self._classes = classes
        active = self._active_class
        if active is not None:
            names = {each.name for each in classes.classes}
            self._active_class = classes.named(active.name) if active.name in names else None
        self.class_changed.emit()

    @property
    def active_class(self) -> AnnotationClass | None:
        """The class that new regions get."""
        return self._active_class

    def set_class(self, name: str | None, *, apply: bool = False) -> None:
        """Draw in a class from now on, None for unclassified.

        Parameters
        ----------
        apply
            Give it to the selected regions too. A region that was just drawn keeps the class it
            got: with a drawing tool in the hand, only what is unclassified is given one.
        """
        self._active_class = None if name is None else self._classes.named(name)
        self.class_changed.emit()
        chosen = self.pick() if apply else []
        if self._tool not in CHOOSING_TOOLS:
            chosen = [region for region in chosen if region.class_name is None]
        ids = [region.id for region in chosen if region.class_name != name]
        if ids:
            given, stamp = self._active_class, self.stamp()
            self.attempt(lambda regions: commands.set_class(regions, ids, given, stamp))

    @property
    def hidden(self) -> frozenset[str | None]:
        """Names of the classes that are not shown; None is "unclassified"."""
        return self._hidden

    def set_hidden(self, names: Collection[str | None]) -> None:
        """Hide regions of these classes, and show those of all others."""
        if frozenset(names) != self._hidden:
            self._hidden = frozenset(names)
            self.class_changed.emit()

    # --- tools --------------------------------------------------------------------------------

    @property
    def tool(self) -> str:
        """The tool in the hand, one of `TOOLS`."""
        return self._tool

    def set_tool(self, name: str) -> None:
        """Take another tool."""
        if name not in TOOLS:
            raise ValueError(f"There is no tool {name}.")
        if name != self._tool:
            self._tool = name
            self.tool_changed.emit()

    @property
    def mode(self) -> Mode:
        """What becomes of the next shape; modifier keys overrule it while they are held."""
        return self._mode

    @mode.setter
    def mode(self, mode: Mode) -> None:
        if mode not in MODES:
            raise ValueError(f"There is no mode {mode}.")
        if mode != self._mode:
            self._mode = mode
            self.settings_changed.emit()

    @property
    def brush_um(self) -> float:
        """Width of brush and eraser in µm; in level-0 pixels where µm/px are unknown."""
        return self._brush_um

    @brush_um.setter
    def brush_um(self, width: float) -> None:
        self._brush_um = min(max(width, SMALLEST_BRUSH_UM), LARGEST_BRUSH_UM)
        self.settings_changed.emit()

    @property
    def wand_tolerance(self) -> float:
        """How far a colour may be from the one pointed at, in CIE Lab."""
        return self._wand_tolerance

    @wand_tolerance.setter
    def wand_tolerance(self, tolerance: float) -> None:
        self._wand_tolerance = min(max(tolerance, 0.5), 100.0)
        self.settings_changed.emit()

    # --- selection ----------------------------------------------------------------------------

    @property
    def selected(self) -> frozenset[str]:
        """Ids of the selected regions."""
        return self._selected

    def select(self, ids: Collection[str], *, add: bool = False, fly: bool = False) -> None:
        """Select regions; what is not there is passed over.

        Parameters
        ----------
        add
            Keep what is selected too.
        fly
            Look at them.
        """
        there = self._regions
        wanted = frozenset(each for each in ids if there is not None and each in there)
        chosen = self._selected | wanted if add else wanted
        if chosen != self._selected:
            self._selected = chosen
            self.selection_changed.emit()
        if fly and wanted:
            self.fly_to(wanted)

    def fly_to(self, ids: Collection[str]) -> None:
        """Look at regions, with some of what is around them."""
        rect = rect_of(self.pick(ids))
        if rect is None or self.slide is None:
            return
        info = self.slide.info
        least = FLY_LEAST_PX0 / (world_scale(info)[1] if info.mpp_x else 1.0)
        wide = max(rect.width_px0 * (1 + FLY_MARGIN), least)
        high = max(rect.height_px0 * (1 + FLY_MARGIN), least)
        x, y = rect.center_px0
        camera.fit_rect(self.viewer, info, Rect(x - wide / 2, y - high / 2, wide, high))

    def step(self, by: int) -> None:
        """Select the next region (+1), or the one before (-1), and fly there."""
        if self.regions is None:
            return
        ids = list(self.order()) if self.order else [region.id for region in self.regions]
        if not ids:
            return
        at = [n for n, each in enumerate(ids) if each in self._selected]
        place = (at[-1 if by > 0 else 0] + by) if at else (0 if by > 0 else -1)
        self.select([ids[place % len(ids)]], fly=True)

    # --- what happens elsewhere ---------------------------------------------------------------

    def close(self) -> None:
        """Write everything and let go of all slides' annotations: the window goes."""
        self._keepers.close_all()

    def _on_opened(self, slide: SlideSession) -> None:
        if slide is self.slide:
            self._on_active()
            self.saving_changed.emit()

    def _on_active(self, _: Any = None) -> None:
        keeper = self._keepers.found(self.slide)
        self._follow(None if keeper is None else keeper.annotations)
        self.slide_changed.emit()

    def _follow(self, regions: AnnotationSet | None) -> None:
        """Speak of other regions than before."""
        if regions is self._regions:
            return
        if self._regions is not None:
            self._regions.changed.disconnect(self._on_change)
        self._regions = regions
        self.select(())
        if regions is not None:
            regions.changed.connect(self._on_change)
            self.set_classes(self._classes.adopting(regions))
        self._later()

    def _on_change(self, change: Change) -> None:
        self.stepped.emit(change)
        if change.removed and not self._selected.isdisjoint(change.removed):
            self.select(self._selected.difference(change.removed))
        self._later()

    def _later(self) -> None:
        if not self._pending:
            self._pending = True
            QTimer.singleShot(0, self._tell_changed)

    def _tell_changed(self) -> None:
        self._pending = False
        if self._session() is not None:
            self.changed.emit()


_ANNOTATORS = PerViewer(Annotator)


def annotator(viewer: Any) -> Annotator:
    """Return what annotates in a viewer, begun at the first call.

    Parameters
    ----------
    viewer
        A napari viewer, a ``ViewerModel``, or the proxy of one that napari gives to plugins.
    """
    return _ANNOTATORS.of(viewer)
