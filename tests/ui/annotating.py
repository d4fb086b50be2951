"""What the tests of the Annotate dock have in common: a window, a slide, regions, waiting."""

from __future__ import annotations

import numpy as np
from qtpy.QtWidgets import QApplication
from shapely.geometry import box

from napari_histomil.annotations import commands
from napari_histomil.annotations.model import Region
from napari_histomil.ui.annotator import annotator
from napari_histomil.ui.dialogs import ErrorDialog

WHITE = np.full((800, 1000, 3), 255, np.uint8)
MPP = 0.5


def settle(qtbot, times: int = 4) -> None:
    for _ in range(times):
        qtbot.wait(20)


def dialog_of(kind):
    """Return the one open dialog of a kind."""
    found = [w for w in QApplication.topLevelWidgets() if isinstance(w, kind) and w.isVisible()]
    assert len(found) == 1, f"{len(found)} dialogs of {kind.__name__} are open"
    return found[0]


def close_error(qtbot) -> str:
    """Close the one error dialog that is open, and return its sentence."""
    dialog = dialog_of(ErrorDialog)
    sentence = dialog.sentence
    dialog.reject()
    settle(qtbot, 2)
    return sentence


class Desk:
    """A window with the dock, driven by a test."""

    def __init__(self, viewer, dock, qtbot) -> None:
        self.viewer, self.dock, self.qtbot = viewer, dock, qtbot
        self.state = annotator(viewer)

    def settle(self, times: int = 4) -> None:
        settle(self.qtbot, times)

    def until(self, what) -> None:
        self.qtbot.waitUntil(what, timeout=10_000)
        self.settle(2)

    def draw(self, shape, class_name=None, **fields) -> str:
        """Draw one region as the tools do; returns its id."""
        shape = box(*shape) if isinstance(shape, tuple) else shape
        kind = None if class_name is None else self.state.classes.named(class_name)
        region = Region(shape, kind, **fields)
        assert self.state.do(commands.add([region], self.state.stamp()))
        self.settle(2)
        return region.id

    def errors(self) -> list[str]:
        """What dialogs of errors say that are open."""
        shown = [w for w in QApplication.topLevelWidgets() if isinstance(w, ErrorDialog)]
        return [dialog.sentence for dialog in shown if dialog.isVisible()]

    def get(self, region_id) -> Region:
        return self.state.regions.get(region_id)

    def classes(self) -> dict[str, list[str]]:
        """What the list of classes says, by name."""
        tree = self.dock.classes.tree
        items = [tree.topLevelItem(n) for n in range(tree.topLevelItemCount())]
        return {item.text(0): [item.text(n) for n in range(1, 4)] for item in items}

    def choose_class(self, name: str) -> None:
        tree = self.dock.classes.tree
        items = [tree.topLevelItem(n) for n in range(tree.topLevelItemCount())]
        tree.setCurrentItem(next(item for item in items if item.text(0) == name))
        self.settle(2)

    def rows(self, column: str) -> list[str]:
        """What a column of the list of regions says."""
        model = self.dock.regions.model
        return [model.text(region, column) for region in model.regions]
