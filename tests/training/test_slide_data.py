"""Annotated slides: what regions mean, where tiles are cut, whose slides belong together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from shapely.geometry import Polygon, box

from napari_histomil.annotations.collection import Command
from napari_histomil.annotations.geojson import write_geojson
from napari_histomil.annotations.keeping import open_annotations
from napari_histomil.annotations.model import AnnotationClass, Region, SlideFrame
from napari_histomil.errors import TrainingError
from napari_histomil.slides.readers import open_slide
from napari_histomil.slides.synthetic import write_synthetic
from napari_histomil.training.config import Source, Split, read_config
from napari_histomil.training.data import read_sources
from napari_histomil.training.fields import UNLABELLED, SlideField
from napari_histomil.training.labels import NONE, Labels
from napari_histomil.training.slide_data import read_slides
from napari_histomil.training.splits import hold_out

TWO = Labels(("normal", "tumor"), 1, 0)

SOURCE = Source("slide", "slides", "CC0-1.0", slides=("*.tiff",), annotations="{stem}.geojson")


def region(shape: Polygon, name: str | None) -> Region:
    return Region(shape, None if name is None else AnnotationClass(name, (1, 2, 3)))


def draw(slide: Path, regions: Sequence[Region]) -> None:
    with open_slide(slide) as opened:
        frame = SlideFrame.of(opened.info)
    write_geojson(slide.with_suffix(".geojson"), regions, frame=frame)


@pytest.fixture
def slide(tmp_path: Path) -> Path:
    """A slide of 512 x 512 px at 0.5 µm/px."""
    write_synthetic(tmp_path / "s.tiff", width=512, height=512, mpp=0.5, seed=1)
    return tmp_path / "s.tiff"


@pytest.fixture
def read(slide: Path) -> Iterator[object]:
    """Reads the slides of a source at 1 µm/px, and closes them."""
    opened: list[SlideField] = []

    def fields(source: Source, labels: Labels = TWO, **options: object) -> list[SlideField]:
        opened.extend(read_slides(source, slide.parent, 1.0, labels, **options))
        return opened

    yield fields
    for field in opened:
        field.slide.close()


def test_without_region_only_what_is_drawn_is_known(slide: Path, read) -> None:
    ring = Polygon(box(100, 100, 300, 300).exterior, [box(150, 150, 200, 200).exterior])
    draw(slide, [region(ring, "Tumor"), region(box(0, 0, 50, 50), "Other")])
    field = read(SOURCE)[0]
    image, labels = field.cut((40, 40), 120)  # level-0 px 80 to 320, halved
    assert image.shape == (120, 120, 3)
    expected = np.full((120, 120), UNLABELLED, np.uint8)
    expected[10:110, 10:110] = 1
    expected[35:60, 35:60] = UNLABELLED
    np.testing.assert_array_equal(labels, expected)
    assert field.present == (1,)
    rng = np.random.default_rng(0)
    for _ in range(50):
        x, y = field.place(rng)
        assert field.cut((x, y), 1)[1][0, 0] == 1


def test_region_background_ignore_and_other_classes(slide: Path, read) -> None:
    draw(
        slide,
        [
            region(box(100, 100, 300, 300), "Region*"),
            region(box(120, 120, 200, 200), "Tumor: Positive"),
            region(box(220, 120, 260, 160), "Necrosis"),
            region(box(120, 220, 160, 260), "Ignore*"),
        ],
    )
    field = read(SOURCE)[0]
    labels = field.cut((0, 0), 256)[1]
    assert labels[100, 130] == 0  # inside Region*, nothing drawn
    assert labels[80, 80] == 1
    assert labels[70, 120] == UNLABELLED  # a class that is not learnt is no background
    assert labels[120, 70] == UNLABELLED
    assert labels[30, 30] == UNLABELLED
    rng = np.random.default_rng(0)
    for label in field.present:
        for _ in range(40):
            x, y = field.place(rng, label)
            assert labels[y, x] == label
    none = read(SOURCE, Labels(("tumor",), 0, NONE))[-1].cut((0, 0), 256)[1]
    assert (none[100, 130], none[80, 80]) == (NONE, 0)


def test_all_of_a_slide_was_looked_at(slide: Path, read) -> None:
    draw(slide, [region(box(100, 100, 300, 300), "Tumor")])
    field = read(replace(SOURCE, unannotated="normal"))[0]
    labels = field.cut((-10, -10), 300)[1]
    assert (labels == 1).sum() == 100 * 100
    assert (labels == 0).sum() == 256 * 256 - 100 * 100
    assert (labels[:10] == UNLABELLED).all()  # beyond the slide
    assert field.present == (0, 1)


def test_what_was_drawn_in_this_program_is_found(slide: Path, read) -> None:
    with open_slide(slide) as opened:
        keeper = open_annotations(opened.info)
    mine = region(box(10, 10, 200, 200), "Tumor")
    keeper.do(Command("draw", added={mine.id: mine}))
    open_elsewhere = read(replace(SOURCE, annotations=""))[0]  # while the window has it open
    keeper.close()
    assert open_elsewhere.present == (1,)
    assert open_elsewhere.cut((50, 50), 2)[1].tolist() == [[1, 1], [1, 1]]


def test_slides_of_a_patient_and_copies_belong_together(slide: Path, read) -> None:
    for name, seed in (("t", 2), ("u", 3)):
        write_synthetic(slide.with_name(f"{name}.tiff"), width=256, height=256, mpp=0.5, seed=seed)
    slide.with_name("v.tiff").write_bytes(slide.read_bytes())
    for name in "stuv":
        draw(slide.with_name(f"{name}.tiff"), [region(box(10, 10, 90, 90), "Tumor")])
    rows = {"t.tiff": {"patient": "p", "center": "A"}, "u": {"patient": "p", "center": "B"}}
    fields = read(SOURCE, rows=rows)
    groups = {f.name: f.group for f in fields}
    assert groups["t.tiff"] == groups["u.tiff"] == "slides/p"
    assert groups["s.tiff"] == groups["v.tiff"] != groups["t.tiff"]
    assert [f.tags.get("center") for f in fields] == [None, "A", "B", None]
    listed = read(replace(SOURCE, groups=(("s", "u"),)))[4:]
    groups = {f.name: f.group for f in listed}
    assert groups["s.tiff"] == groups["u.tiff"] == groups["v.tiff"] == "slides/s+u"
    assert groups["t.tiff"] != groups["s.tiff"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"class_names": {"Necrosis": "tumor"}}, "no region of Necrosis, nor Region"),
        ({"class_names": {"Tumor": "cancer"}}, "'cancer' is none of the classes"),
        ({"slides": ("*.svs",)}, "no slide is found"),
        ({"slides": ()}, "names no slide"),
        ({"groups": (("s", "x"),)}, "groups names a slide 'x' that is missing"),
    ],
)
def test_refused(slide: Path, read, change: dict[str, object], words: str) -> None:
    draw(slide, [region(box(100, 100, 300, 300), "Tumor")])
    with pytest.raises(TrainingError, match=words):
        read(replace(SOURCE, **change))


def test_many_shapes_are_looked_up_by_place(slide: Path, read) -> None:
    small = [
        region(box(x, y, x + 2, y + 2), "Tumor")
        for x in range(0, 512, 8)
        for y in range(0, 512, 8)
    ]
    draw(slide, small)
    field = read(SOURCE)[0]
    asked = field.painting.tree.query(box(100, 100, 120, 120))
    assert len(asked) == 9
    assert (field.cut((0, 0), 256)[1] == 1).sum() == 64 * 64


def test_a_slide_in_two_sources_is_on_one_side(slide: Path, toy: Path) -> None:
    draw(slide, [region(box(0, 0, 100, 100), "Tumor")])
    config = read_config(toy / "train.toml")
    first = replace(SOURCE, name="first", class_names={"Tumor": "tumor"})
    config = replace(config, sources=(first, replace(first, name="second")))
    fields = read_sources(config, slide.parent)
    assert [f.name for f in fields] == ["s.tiff", "s.tiff (second)"]
    assert fields[0].group == fields[1].group
    assert fields[1].cut((0, 0), 50)[1].min() == 1
    with pytest.raises(TrainingError, match="leaves no group for the training"):
        hold_out(fields, Split(test_groups=("s.tiff",)))
    other = slide.parent / "other" / "s.tiff"
    other.parent.mkdir()
    write_synthetic(other, width=512, height=512, mpp=0.5, seed=2)
    draw(other, [region(box(0, 0, 100, 100), "Tumor")])
    second = replace(first, slides=("other/s.tiff",), annotations="other/{stem}.geojson")
    config = replace(config, sources=(first, replace(second, name="second")))
    alike = read_sources(config, slide.parent)  # only their files are called alike
    assert len({f.group for f in alike}) == 2
    for field in (*fields, *alike):
        assert isinstance(field, SlideField)
        field.slide.close()
