"""The panel of the embedding: tiles by their features, a lasso, labels for all in it."""

from __future__ import annotations

from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QLineEdit, QPushButton, QVBoxLayout, QWidget

from napari_histomil.errors import HistomilError
from napari_histomil.review.embedding import has_umap
from napari_histomil.review.neighbours import purity
from napari_histomil.ui.annotator import annotator
from napari_histomil.ui.cloud import cloud
from napari_histomil.ui.cloud_colours import COLOURINGS, Said
from napari_histomil.ui.dialogs import show_error
from napari_histomil.ui.gallery import gallery
from napari_histomil.ui.widgets.forms import choice_box
from napari_histomil.ui.widgets.icon_button import row
from napari_histomil.ui.widgets.panel import follow, plain_label
from napari_histomil.ui.widgets.scatter import Scatter
from napari_histomil.ui.words import count

LAYOUTS = {
    "PCA": "the two directions in which features differ most; at once",
    "UMAP": "who is near whom; neither distances nor sizes of groups mean anything; minutes",
}

MOST_LISTED = 2000
"""Patches of a lasso that are listed; all of them are marked, and labelled."""


class EmbeddingPanel(QWidget):
    """The gallery's tiles as points.

    Parameters
    ----------
    viewer
        Whose gallery it is about.

    Attributes
    ----------
    threshold
        A score at or above it is a positive call, in the colours of errors.
    """

    def __init__(self, viewer: Any, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._gallery, self._cloud = gallery(viewer), cloud(viewer)
        self._annotator = annotator(viewer)
        self._lassoed: NDArray[np.int64] = np.empty(0, np.int64)
        self._groups: dict[str, str] = {}
        self.threshold = 0.5
        self.scatter = Scatter()
        self.layout_box = choice_box("How the features are laid out")
        for name, words in LAYOUTS.items():
            self.layout_box.addItem(name)
            last = self.layout_box.count() - 1
            self.layout_box.setItemData(last, words, Qt.ItemDataRole.ToolTipRole)
        if not has_umap():
            item = self.layout_box.model().item(1)
            item.setEnabled(False)
            item.setToolTip('UMAP is not installed: pip install "napari-histomil[umap]"')
        self.layout_box.setMinimumContentsLength(6)
        self.colour_box = choice_box("What the points are coloured by")
        self.colour_box.addItems(list(COLOURINGS))
        self.lay_button = QPushButton("Lay out")
        self.lay_button.setToolTip("Read the features of the gallery's tiles, and lay them out")
        self.purity_button = QPushButton("Purity")
        self.purity_button.setToolTip(
            "Whether tiles that look alike are those of one slide rather than of one tissue; or "
            "of one centre, while points are coloured by it"
        )
        self.tag_box = QLineEdit()
        self.tag_box.setPlaceholderText("tag for all in the lasso, then Enter")
        self.legend, self.words = plain_label(), plain_label()
        self.layout_box.activated.connect(lambda _: self.lay_out())
        self.colour_box.activated.connect(lambda _: self._colour())
        self.lay_button.clicked.connect(lambda: self.lay_out())
        self.purity_button.clicked.connect(lambda: self.say_purity())
        self.tag_box.returnPressed.connect(self._tag)
        self.scatter.lassoed.connect(self.take_lasso)
        self.scatter.clicked.connect(self._go)
        self.scatter.hovered.connect(self._hover)
        column = QVBoxLayout(self)
        column.setContentsMargins(8, 6, 8, 6)
        column.setSpacing(4)
        column.addWidget(
            row(self.layout_box, self.colour_box, self.lay_button, stretch=1, spacing=6)
        )
        column.addWidget(row(self.tag_box, self.purity_button, stretch=0, spacing=6))
        column.addWidget(self.scatter, 1)
        column.addWidget(self.legend)
        column.addWidget(self.words)
        follow(self, self._cloud.changed, self._show)
        follow(self, self._gallery.tiles_changed, self._show)
        follow(self, self._gallery.marked_changed, self._on_marked)
        follow(self, self._gallery.judged, self._on_judged)
        follow(self, self._annotator.selection_changed, self._on_region)
        self._show()

    # --- laying out ---------------------------------------------------------------------------

    def set_groups(self, groups: dict[str, str]) -> None:
        """Say which centre, scanner or site each slide is of, by its file name."""
        self._groups = dict(groups)
        self._colour()

    def lay_out(self) -> None:
        """Read features where they are not read yet, and lay them out as chosen."""
        self._cloud.prepare(
            self,
            on_done=self._show,
            on_error=self._failed,
            by_umap=self.layout_box.currentText() == "UMAP",
        )

    def _failed(self, error: Exception) -> None:
        self._show()
        show_error(error, self)

    def _show(self) -> None:
        laid, layout = self._cloud.laid, self._cloud.layout
        self.lay_button.setEnabled(bool(self._gallery.tiles) and not self._cloud.busy)
        self.purity_button.setEnabled(laid is not None and len(laid.points.tiles) > 1)
        self.tag_box.setEnabled(self._gallery.log is not None and len(self._lassoed) > 0)
        if laid is None or layout is None:
            self.scatter.show_points(np.empty((0, 2)), np.empty((0, 3), np.float32))
            self._lassoed = np.empty(0, np.int64)
            self.legend.setText("")
            self.words.setText(
                "Reading features…"
                if self._cloud.busy
                else "Lay the tiles of the gallery out by their features."
            )
            return
        if self.scatter.layout_xy is not layout:
            colours = np.zeros((len(layout), 3), np.float32)
            self.scatter.show_points(layout, colours)
            self._colour()
            self._on_marked()
        self._say()

    def _say(self) -> None:
        laid = self._cloud.laid
        if laid is None:
            return
        words = f"{count(len(laid.points))} tiles of {count(len(laid.points.tiles))} slides"
        if laid.points.left_out:
            words += f" ({count(laid.points.left_out)} more are left out)"
        if self._cloud.layout_name == "PCA":
            words += f"; the axes hold {laid.pca.shares.sum():.0%} of what differs"
        if len(self._lassoed):
            words += f"; {count(len(self._lassoed))} in the lasso"
        self.words.setText(f"{words}.")

    def _colour(self) -> None:
        laid = self._cloud.laid
        if laid is None:
            return
        said = Said(
            threshold=self.threshold,
            groups=self._groups,
            log=self._gallery.log,
            form=self._gallery.form,
        )
        found = COLOURINGS[self.colour_box.currentText()](laid.points, said)
        self.scatter.colour(found.colours)
        self.legend.setText(
            " &nbsp; ".join(
                f"<span style='color: rgb({r * 255:.0f}, {g * 255:.0f}, {b * 255:.0f})'>●</span> "
                f"{name}"
                for name, (r, g, b) in found.legend[:12]
            )
        )

    def say_purity(self) -> None:
        """Say whether features cluster by slide, or by centre while they are coloured so."""
        laid = self._cloud.laid
        if laid is None:
            return
        by, group = "slide", laid.points.slide
        if self.colour_box.currentText() == "centre" and self._groups:
            names = [self._groups.get(each.slide.name, "") for each in laid.points.tiles]
            by, group = "centre", np.unique(names, return_inverse=True)[1][group]
        try:
            found = purity(laid.units, group)
        except HistomilError as error:
            self.words.setText(str(error))
            return
        self.words.setText(f"Purity by {by} {found.number:.2f}: {found.words}")

    # --- the lasso, and what is marked elsewhere ----------------------------------------------

    def take_lasso(self, points: NDArray[np.int64]) -> None:
        """List and mark the tiles of a lasso."""
        self._lassoed = points
        patches = [self._cloud.patch(int(n), "") for n in points[:MOST_LISTED]]
        self._gallery.show(patches, "patches of a lasso")
        self._gallery.mark([self._cloud.place(int(n)) for n in points])
        self._show()

    def _tag(self) -> None:
        word = self.tag_box.text().strip()
        tags = [q for q in self._gallery.form.about("place") if q.kind == "tags"]
        if not word or not tags or not len(self._lassoed):
            return
        patches = [self._cloud.patch(int(n), "") for n in self._lassoed]
        try:
            self._gallery.answer(patches, tags[0], word)
        except HistomilError as error:
            show_error(error, self)
            return
        self.tag_box.clear()
        self.words.setText(f"{count(len(patches))} tiles are tagged {word}.")

    def _go(self, n: int) -> None:
        self._gallery.show([self._cloud.patch(n, "")], "patch of the embedding")
        try:
            self._gallery.go(0)
        except HistomilError as error:
            show_error(error, self)

    def _hover(self, n: int) -> None:
        if n < 0:
            self._say()
            return
        patch = self._cloud.patch(n, "")
        self.words.setText(f"{patch.slide.name}: {patch.why}")

    def _on_marked(self) -> None:
        self.scatter.mark(self._cloud.find(self._gallery.marked))

    def _on_judged(self) -> None:
        self.tag_box.setEnabled(self._gallery.log is not None and len(self._lassoed) > 0)
        if self.colour_box.currentText() == "verdict":
            self._colour()

    def _on_region(self) -> None:
        """Light up the tiles in the regions that are selected on the slide."""
        laid, slide = self._cloud.laid, self._annotator.slide
        regions = [region for region in self._annotator.pick() if region.is_areal]
        if laid is None or slide is None or not regions:
            return
        points = laid.points
        prints = np.array([each.fingerprint == slide.info.fingerprint for each in points.tiles])
        own = np.flatnonzero(prints[points.slide])
        rects = points.rects_px0[own]
        middle = rects[:, :2] + rects[:, 2:] / 2
        inside = np.zeros(len(own), bool)
        for region in regions:
            shapely.prepare(region.geometry)
            inside |= shapely.contains_xy(region.geometry, middle[:, 0], middle[:, 1])
        self.scatter.mark(own[inside])
        self.words.setText(f"{count(int(inside.sum()))} tiles lie in what is selected.")
