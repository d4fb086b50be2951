"""How far two readers agree, as a table; what has no value says so, and why."""

from __future__ import annotations

from qtpy.QtWidgets import QTreeWidget, QTreeWidgetItem, QVBoxLayout, QWidget

from napari_histomil.annotations import listing
from napari_histomil.annotations.classes import ClassSet
from napari_histomil.review.agreement import Agreement
from napari_histomil.review.metrics import Score
from napari_histomil.ui.tool_icons import class_icon
from napari_histomil.ui.widgets.panel import plain_label
from napari_histomil.ui.widgets.rows import NUMBER, explain_columns, give_room

_COLUMNS = ("Class", "Dice", "IoU", "κ", "Mine", "Theirs")
_TOOLTIPS = (
    "Each class against all others",
    "Dice: twice what both cover, of what each covers; the positive agreement",
    "IoU: what both cover, of what either covers",
    "Cohen's kappa: agreement beyond chance; it depends on the area compared",
    "What I cover, inside the area compared",
    "What the other reader covers, inside the area compared",
)
_ROWS = 5


class AgreementTable(QWidget):
    """Figures of two annotations."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.words = plain_label()
        self.tree = QTreeWidget()
        self.tree.setRootIsDecorated(False)
        self.tree.setHeaderLabels(_COLUMNS)
        give_room(self.tree)
        explain_columns(self.tree, _TOOLTIPS)
        self.tree.setFixedHeight((_ROWS + 1) * (self.fontMetrics().lineSpacing() + 8))
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(4)
        column.addWidget(self.words)
        column.addWidget(self.tree)

    def show_agreement(self, agreement: Agreement, classes: ClassSet) -> None:
        """Show the figures."""
        mpp = agreement.mpp[0]
        self.words.setText(
            f"Compared over <b>{listing.area_text(agreement.area_mm2)}</b> at {mpp:.3g} µm/px: "
            f"{_percent(agreement.observed)} agree, κ {_figure(agreement.kappa)}. Areas in mm²."
        )
        self.words.setToolTip("\n".join(filter(None, [agreement.kappa.reason, *agreement.notes])))
        self.tree.clear()
        for each in agreement.classes:
            scores = (each.dice, each.iou, each.kappa)
            areas = (each.first_mm2, each.second_mm2)
            item = QTreeWidgetItem(
                [each.name, *map(_figure, scores), *(f"{area:.3f}" for area in areas)]
            )
            if each.boundary is not None or each.name in {c.name for c in classes.classes}:
                item.setIcon(0, class_icon(classes.named(each.name).color))
            item.setToolTip(0, f"{each.name}; areas in mm²")
            for column, score in enumerate(scores, 1):
                item.setToolTip(
                    column, f"undefined: {score.reason}" if score.value is None else str(score)
                )
            for column in range(1, len(_COLUMNS)):
                item.setTextAlignment(column, NUMBER)
            self.tree.addTopLevelItem(item)


def _figure(score: Score) -> str:
    return "undef." if score.value is None else f"{score.value:.2f}"


def _percent(score: Score) -> str:
    return "undefined" if score.value is None else f"{100 * score.value:.1f} %"
