"""The map of a MIL run in a file for other programs: in which format, which values, where to."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QComboBox, QDialog, QDialogButtonBox, QFileDialog, QVBoxLayout, QWidget

from napari_histomil.exchange.attention import VALUES, shown_map
from napari_histomil.exchange.attention_files import PICTURES, write_attention
from napari_histomil.exchange.attention_pictures import ASAP_SUFFIX
from napari_histomil.ui import attention_maps as maps
from napari_histomil.ui import jobs
from napari_histomil.ui.dialogs import show_error
from napari_histomil.ui.session import RunView
from napari_histomil.ui.widgets.forms import form
from napari_histomil.ui.widgets.panel import plain_label
from napari_histomil.ui.widgets.rows import without_icons

FORMATS = {
    "png": ("Picture (PNG)", ".png", "Over the slide, with scale bar and colours; for people."),
    "tiff": (
        "Values (pyramidal TIFF)",
        ASAP_SUFFIX,
        "A pixel a tile. Beside the slide, under this name, ASAP shows it by itself.",
    ),
    "geojson": ("Tiles (GeoJSON)", ".geojson", "Tiles with all their values, for QuPath."),
    "h5": ("CLAM's heatmap (HDF5)", ".h5", "Attention scores and coordinates of the tiles."),
}
"""Kind -> its title, how a file's name ends, and what it is in words."""

CHOICES = {
    "rank": "Rank within the slide",
    "softmax": "Share of the attention (softmax)",
    "raw": "Before the softmax (raw)",
    "contribution": "Contribution to the logit",
}
"""Names of `exchange.attention.VALUES` for people."""


class AttentionFileDialog(QDialog):
    """Asks for what shall be written of the map that is shown, and writes it beside the window."""

    said = Signal(str)
    """A sentence about what was written."""

    def __init__(self, run: RunView, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        self.setWindowTitle("Export map")
        self._run, view = run, run.attention
        assert view is not None, "only a MIL run has such maps"
        self._view = view
        self.format_box, self.values_box = QComboBox(), QComboBox()
        for kind, (title, _, _) in FORMATS.items():
            self.format_box.addItem(title, kind)
        for name, title in CHOICES.items():
            self.values_box.addItem(title, name)
            last = self.values_box.count() - 1
            self.values_box.setItemData(last, VALUES[name], Qt.ItemDataRole.ToolTipRole)
        shown = "contribution" if view.what == maps.CONTRIBUTION else view.normalisation
        self.values_box.setCurrentIndex(max(self.values_box.findData(shown), 0))
        self.format_box.currentIndexChanged.connect(self._take_format)
        self.words = plain_label()
        self.words.setMinimumWidth(340)
        self.words.setMinimumHeight(3 * self.fontMetrics().lineSpacing())
        buttons = QDialogButtonBox()
        self.export_button = buttons.addButton("Export…", QDialogButtonBox.ButtonRole.AcceptRole)
        buttons.addButton(QDialogButtonBox.StandardButton.Cancel)
        without_icons(buttons)
        buttons.accepted.connect(self._ask_file)
        buttons.rejected.connect(self.reject)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(16, 16, 16, 12)
        layout.setSpacing(10)
        layout.addLayout(form(("Format", self.format_box), ("Values", self.values_box)))
        layout.addWidget(self.words)
        layout.addWidget(buttons)
        self._take_format()

    @property
    def level(self) -> int | None:
        """The magnification whose map is written: the one shown, of all added the last."""
        return None if self._view.level == maps.MERGED else self._view.level

    @property
    def _class(self) -> str | None:
        """The class whose map is written; None where one row stands for all."""
        return self._view.class_name if len(self._view.heads) > 1 else None

    def _take_format(self) -> None:
        kind = self.format_box.currentData()
        self.values_box.setEnabled(kind in PICTURES)
        run, level = self._view.run, self.level
        where = maps.level_name(run, run.maps[-1].level if level is None else level)
        whose = f", class {self._class}" if kind in PICTURES and self._class is not None else ""
        self.words.setText(f"{FORMATS[kind][2]} Map: {where}{whose}.")

    def _ask_file(self) -> None:
        name = f"{self._run.slide.info.path.stem}{FORMATS[self.format_box.currentData()][1]}"
        dialog = QFileDialog(self, "Export map", name)
        dialog.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        dialog.setAcceptMode(QFileDialog.AcceptMode.AcceptSave)
        dialog.fileSelected.connect(lambda file: self.write(Path(file)))
        dialog.open()

    def write(self, path: Path) -> None:
        """Write the file beside the window; the dialog closes when it is there."""
        kind, values = self.format_box.currentData(), self.values_box.currentData()
        suffix = "." + FORMATS[kind][1].rsplit(".", 1)[1]
        if path.suffix.lower() != suffix:
            path = path.with_name(path.name + suffix)
        run, level, slide = self._view.run, self.level, self._run.slide
        class_name = self._class

        def work(cancel: threading.Event) -> Iterator[None]:
            shown = shown_map(run, level=level, class_name=class_name)
            write_attention(shown, path, kind, values, slide.slide)
            yield

        def done(_: None) -> None:
            self.said.emit(f"The map is in {path.name}.")
            self.accept()

        def failed(error: Exception) -> None:
            self.export_button.setEnabled(True)
            show_error(error, self, info=slide.info)

        self.export_button.setEnabled(False)
        jobs.start(
            work,
            on_progress=lambda _: None,
            on_done=done,
            on_error=failed,
            title=f"writing {path.name}",
            owner=self.parentWidget(),
        )
