"""What the regions of each class add up to, and their share of the slide and of its tissue."""

from __future__ import annotations

import threading
from collections.abc import Generator

from qtpy.QtWidgets import QHeaderView, QTreeWidget, QTreeWidgetItem, QWidget

from napari_histomil.annotations import listing
from napari_histomil.annotations.model import UNCLASSIFIED_COLOR
from napari_histomil.tissue import find_tissue
from napari_histomil.ui import jobs
from napari_histomil.ui.annotator import Annotator
from napari_histomil.ui.dialogs import show_error
from napari_histomil.ui.session import SlideSession
from napari_histomil.ui.tool_icons import class_icon
from napari_histomil.ui.widgets.annotate_part import Part
from napari_histomil.ui.widgets.panel import plain_label
from napari_histomil.ui.widgets.rows import NUMBER, give_room
from napari_histomil.ui.words import count

_COLUMNS = ("Class", "Regions", "mm²", "Slide", "Tissue")
_ROWS = 5


class Totals(Part):
    """A row for each class that has regions; tissue is looked for when this is first seen."""

    def __init__(self, annotator: Annotator, parent: QWidget | None = None) -> None:
        super().__init__(annotator, parent)
        self._slide: SlideSession | None = None
        self._tissue_mm2: float | None = None
        self.tree = QTreeWidget()
        self.tree.setRootIsDecorated(False)
        self.tree.setHeaderLabels(_COLUMNS)
        give_room(self.tree)
        header = self.tree.header()
        header.setStretchLastSection(False)
        header.setMinimumSectionSize(36)
        header.setSectionResizeMode(0, QHeaderView.ResizeMode.Stretch)
        for column in range(1, len(_COLUMNS)):
            header.setSectionResizeMode(column, QHeaderView.ResizeMode.ResizeToContents)
        self.tree.headerItem().setToolTip(3, "Share of the whole slide's area")
        self.tree.headerItem().setToolTip(4, "Share of the area of the tissue that is found")
        self.tree.setFixedHeight((_ROWS + 1) * (self.fontMetrics().lineSpacing() + 8))
        self.words = plain_label("Overlaps count twice.")
        self.column.addWidget(self.tree)
        self.column.addWidget(self.words)
        self.follow(annotator.changed, annotator.slide_changed)

    def refresh(self) -> None:
        """Show the totals as they are now."""
        slide, regions = self.annotator.slide, self.annotator.regions
        if slide is not self._slide:
            self._slide, self._tissue_mm2 = slide, None
            if slide is not None and slide.has_mpp:
                self._look_for_tissue(slide)
        self.tree.clear()
        if slide is None or regions is None or not slide.has_mpp:
            self.words.setText("The slide's µm/px are not known." if slide else "")
            return
        info = slide.info
        whole = info.width_px0 * info.height_px0 * info.mpp_xy[0] * info.mpp_xy[1] * 1e-6
        counts = {name: (each.count, each.area_px0) for name, each in regions.totals().items()}
        for total in listing.totals(counts, info.mpp_xy, whole):
            tissue = ""
            if self._tissue_mm2:
                tissue = f"{100 * total.area_mm2 / self._tissue_mm2:.1f} %"
            item = QTreeWidgetItem(
                [
                    total.name or "unclassified",
                    count(total.count),
                    f"{total.area_mm2:.3f}",
                    f"{100 * (total.share or 0):.1f} %",
                    tissue,
                ]
            )
            color = UNCLASSIFIED_COLOR
            if total.name is not None:
                color = self.annotator.classes.named(total.name).color
            item.setIcon(0, class_icon(color))
            for column in range(1, len(_COLUMNS)):
                item.setTextAlignment(column, NUMBER)
            self.tree.addTopLevelItem(item)
        found = f", tissue {listing.area_text(self._tissue_mm2)}" if self._tissue_mm2 else ""
        self.words.setText(f"Slide {listing.area_text(whole)}{found}. Overlaps count twice.")

    def _look_for_tissue(self, slide: SlideSession) -> None:
        opened, info = slide.slide, slide.info

        def work(_cancel: threading.Event) -> Generator[None, None, float]:
            yield from ()
            return find_tissue(opened).area_um2(info.mpp_xy) * 1e-6

        def failed(error: Exception) -> None:
            if self._slide is slide and slide in self.annotator.session.slides:
                show_error(error, self)

        def done(area_mm2: float | None) -> None:
            if self._slide is slide and area_mm2 is not None:
                self._tissue_mm2 = area_mm2
                self.later()

        jobs.start(
            work,
            on_progress=lambda _: None,
            on_done=done,
            on_error=failed,
            title=f"the search for tissue in {slide.name}",
            owner=self,
        )
