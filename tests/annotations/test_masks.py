"""Where a mask's pixels lie, and what its values mean."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from shapely.geometry import Point, box

from napari_histomil.annotations.masks import LabelTable, MaskGrid, parse_classes
from napari_histomil.annotations.model import AnnotationClass, Region, class_named
from napari_histomil.errors import AnnotationError, MissingMppError
from tests.annotations.mask_material import slide_info


def test_a_grid_covers_the_slide_at_factors_that_are_not_whole():
    grid = MaskGrid.cover(slide_info(2220, 2967, (0.499, 0.25)), 2)
    assert grid.pixel_px0 == (2 / 0.499, 8.0)
    assert (grid.columns, grid.rows) == (554, 371)  # 553.89 and 370.875, rounded up
    assert grid.mpp_xy == (2, 2)
    assert grid.pixel_mm2 == pytest.approx(4e-6)


def test_a_size_that_divides_gets_no_further_column():
    # 0.3 / 0.1 is 2.9999999999999996 or 3.0000000000000004, as the case may be
    grid = MaskGrid.cover(slide_info(3000, 6000, (0.1, 0.1)), 0.3)
    assert (grid.columns, grid.rows) == (1000, 2000)


def test_the_slides_own_pixels_need_no_resolution():
    info = slide_info(100, 50, None)
    grid = MaskGrid.cover(info)
    assert (grid.columns, grid.rows, grid.pixel_px0, grid.mpp_xy) == (100, 50, (1, 1), None)
    assert MaskGrid.cover(replace(info, mpp_x=0.5, mpp_y=0.4)).mpp_xy == (0.5, 0.4)
    with pytest.raises(MissingMppError, match=r"зріз 1.svs does not say"):
        MaskGrid.cover(info, 2)


def test_the_slides_own_resolution_gives_the_slides_own_pixels():
    info = slide_info(101, 51, (0.1 + 0.2, 0.3))  # 0.30000000000000004
    assert MaskGrid.cover(info, 0.3) == MaskGrid(101, 51, (1.0, 1.0), info.mpp_xy)


@pytest.mark.parametrize("mpp", [0, -1, float("nan"), float("inf")])
def test_a_resolution_that_is_none_is_refused(mpp):
    with pytest.raises(AnnotationError, match="above 0 µm/px"):
        MaskGrid.cover(slide_info(100, 50, (0.5, 0.5)), mpp)


def test_a_mask_that_no_disk_holds_is_refused():
    with pytest.raises(AnnotationError, match="more than can be of use"):
        MaskGrid.cover(slide_info(100_000, 80_000, (0.25, 0.25)), 0.05)


def test_values_count_up_and_leave_room_for_what_is_unlabelled():
    classes = [class_named(f"c{i}") for i in range(255)]
    assert LabelTable.of(classes[:254]).unlabelled == 255
    assert LabelTable.of(classes[:254]).dtype == np.uint8
    many = LabelTable.of(classes)
    assert (many.values[-1], many.unlabelled, many.dtype) == (255, 65535, np.uint16)


def test_two_meanings_of_one_value_are_refused():
    two = [class_named("Tumor"), class_named("Stroma")]
    with pytest.raises(AnnotationError, match="unlabelled and background both have the value 0"):
        LabelTable.of(two, unlabelled=0)
    with pytest.raises(AnnotationError, match="both have the value 2"):
        LabelTable.of(two, [2, 2])
    with pytest.raises(AnnotationError, match="Tumor is named twice"):
        LabelTable.of([two[0], two[0]])
    with pytest.raises(AnnotationError, match="65536 of Tumor"):
        LabelTable.of(two[:1], [65536])


def test_a_derived_class_is_found_by_its_nearest_name():
    table = LabelTable.of([class_named("Tumor"), class_named("Tumor: Positive")])
    assert table.value_of("Tumor: Positive: Strong") == 2
    assert table.value_of("Tumor: Negative") == 1
    assert table.value_of("Stroma") is None
    assert table.value_of("Positive") is None


def test_the_classes_of_regions_come_in_a_fixed_order():
    own = AnnotationClass("DCIS", (1, 2, 3))
    kinds = [own, *(class_named(n) for n in ("Necrosis", "Region*", "Tumor", "Artefact*"))]
    regions = [Region(box(0, 0, 1, 1), kind) for kind in kinds]
    regions += [Region(Point(0, 0), class_named("Stroma")), Region(box(0, 0, 1, 1))]
    table = LabelTable.of_regions(regions)
    assert [c.name for c in table.classes] == ["Tumor", "Necrosis", "DCIS"]
    assert table.classes[2] == own
    assert LabelTable.of_regions(reversed(regions)) == table


def test_classes_are_read_with_and_without_values():
    own = Region(box(0, 0, 1, 1), AnnotationClass("DCIS", (1, 2, 3)))
    classes, values = parse_classes("Tumor, DCIS", [own])
    assert ([c.name for c in classes], values) == (["Tumor", "DCIS"], [1, 2])
    assert classes[1].color == (1, 2, 3)
    classes, values = parse_classes("Tumor=4, Immune cells = 2")
    assert ([c.name for c in classes], values) == (["Tumor", "Immune cells"], [4, 2])


@pytest.mark.parametrize("text", ["", "A,", "Region*", "A=1,B", "A=x", "A=-1"])
def test_classes_that_make_no_sense_are_refused(text):
    with pytest.raises(AnnotationError, match="classes"):
        parse_classes(text)
