"""An import that is made ready in a thread is the step that it would be without."""

from __future__ import annotations

import pytest
from shapely.geometry import Point, box

from napari_histomil.annotations import commands
from napari_histomil.annotations.arriving import arrival
from napari_histomil.annotations.files import AnnotationFile
from napari_histomil.annotations.keeping import AnnotationKeeper
from napari_histomil.annotations.mapping import ClassMapping, Ignored, Mapped, Subtracted
from napari_histomil.annotations.model import Region, SlideFrame, class_named
from napari_histomil.errors import AnnotationError

FRAME = SlideFrame((1000.125, 250.5), "slide.mrxs", "ab" * 32)
A, B, C = class_named("A"), class_named("B"), class_named("C")


def came(keeper: AnnotationKeeper, file: AnnotationFile, mapping=None, known="copy"):
    return arrival(keeper.annotations, file, mapping, "f.xml", known=known, shift=FRAME.origin_px0)


def test_it_is_settled_and_the_same_on_another_day(tmp_path):
    keeper = AnnotationKeeper.open(tmp_path, FRAME)
    file = AnnotationFile(
        (
            Region(Point(2000.12345, 900.98765).buffer(7.7), A),
            Region(box(1500, 700, 1600, 800), B),
        ),
        FRAME,
        notes=("read so",),
    )
    ready = came(keeper, file)
    assert (ready.notes, ready.classes) == (("read so",), (A, B))
    keeper.do(ready.command, ready=True)
    there = list(keeper.annotations)
    keeper.undo()
    keeper.do(commands.bring_in(keeper.annotations, file.regions, "f.xml"))
    assert list(keeper.annotations) == there
    keeper.close()
    again = AnnotationKeeper.open(tmp_path, FRAME)
    assert list(again.annotations) == there
    again.close()


@pytest.mark.parametrize(("known", "count"), [("copy", 3), ("skip", 2), ("replace", 2)])
def test_regions_that_are_here_already(tmp_path, known, count):
    keeper = AnnotationKeeper.open(tmp_path, FRAME)
    old, new = Region(box(0, 0, 9, 9), A), Region(box(20, 0, 29, 9), A)
    keeper.do(commands.bring_in(keeper.annotations, [old], "first"))
    theirs = old.but(classification=B)
    keeper.do(came(keeper, AnnotationFile((theirs, new), FRAME), known=known).command, ready=True)
    assert len(keeper.annotations) == count
    assert keeper.annotations.get(old.id).classification == (B if known == "replace" else A)
    keeper.close()


def test_a_mapping_is_applied_and_what_it_left_out_is_said(tmp_path):
    keeper = AnnotationKeeper.open(tmp_path, FRAME)
    regions = (
        Region(box(0, 0, 90, 90), A), Region(box(10, 10, 20, 20), B), Region(box(0, 0, 5, 5), C),
    )  # fmt: skip
    mapping = ClassMapping({"A": Mapped(C), "B": Subtracted(("C",)), "C": Ignored()})
    ready = came(keeper, AnnotationFile(regions, FRAME), mapping)
    (region,) = ready.command.added.values()
    assert (region.classification, region.geometry.area) == (C, 90**2 - 10**2)
    assert "regions of C were left out" in ready.notes[0]
    keeper.close()


def test_what_changed_meanwhile_is_refused_and_nothing_is_done(tmp_path):
    keeper = AnnotationKeeper.open(tmp_path, FRAME)
    region = Region(box(0, 0, 9, 9), A)
    ready = came(keeper, AnnotationFile((region,), FRAME, extra={"crs": 1}))
    keeper.do(commands.bring_in(keeper.annotations, [region], "elsewhere"))
    with pytest.raises(AnnotationError, match="There is a region"):
        keeper.do(ready.command, ready=True)
    assert keeper.annotations.extra == {}
    assert len(keeper.annotations) == 1
    keeper.close()
