"""The rows of the list of regions: many of them, and only the changed ones anew."""

from __future__ import annotations

import pytest
from qtpy.QtCore import Qt
from shapely.geometry import box

from napari_histomil.annotations import commands
from napari_histomil.annotations.collection import AnnotationSet
from napari_histomil.annotations.listing import COLUMNS, Filter
from napari_histomil.annotations.model import Region, class_named
from napari_histomil.annotations.stamps import Stamp
from napari_histomil.ui.region_model import RegionModel

STAMP = Stamp("Ada", "2026-01-02T03:04:05Z")
MANY = 20_000


@pytest.fixture
def many(qapp):
    side = [1 + n % 97 for n in range(MANY)]
    kinds = (class_named("Tumor"), class_named("Stroma"))
    regions = AnnotationSet(
        Region(box(n, 0, n + side[n], side[n]), kinds[n % 2]) for n in range(MANY)
    )
    model = RegionModel()
    model.show_set(regions, (0.5, 0.5))
    return regions, model


def test_many_rows_are_sorted_and_filtered(many):
    _, model = many
    model.sort(COLUMNS.index("Size"))
    areas = [region.geometry.area for region in model.regions]
    assert areas == sorted(areas)
    model.sort(COLUMNS.index("Diameter"), Qt.SortOrder.DescendingOrder)
    assert model.regions[0].geometry.area == 97**2
    model.show_filtered(Filter("Stroma"))
    assert model.rowCount() == MANY // 2


def test_a_changed_region_is_painted_anew_and_nothing_else(many):
    regions, model = many
    told = []
    model.dataChanged.connect(lambda first, last: told.append((first.row(), last.column())))
    model.modelReset.connect(lambda: told.append("all"))
    region_id = model.ids()[7]
    regions.do(commands.set_note(regions, [region_id], "here", STAMP))
    model.update_changed([region_id])
    assert told == [(7, len(COLUMNS) - 1)]
    assert model.data(model.index(7, COLUMNS.index("Note"))) == "here"


def test_rows_and_ids_belong_together_after_sorting(many):
    _, model = many
    model.sort(COLUMNS.index("Size"))
    ids = model.ids()
    assert [model.regions[row].id for row in model.rows_of(ids[10:20])] == ids[10:20]
    assert model.rows_of(["nobody"]) == []


def test_without_um_per_pixel_no_size_is_claimed(qapp):
    model = RegionModel()
    model.show_set(AnnotationSet([Region(box(0, 0, 9, 9))]), None)
    assert model.data(model.index(0, COLUMNS.index("Size"))) == ""
    model.sort(COLUMNS.index("Size"))
    assert "81 square pixels" in model.data(model.index(0, 2), Qt.ItemDataRole.ToolTipRole)
