"""The report: all in one file, no names unless asked, what is in it is what was scored."""

from __future__ import annotations

import base64
import csv
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image
from shapely.geometry import box
from truth_runs import CLASSES, SPEC

from napari_histomil.annotations.geojson import write_geojson
from napari_histomil.annotations.model import Region, SlideFrame, class_named
from napari_histomil.cli import main
from napari_histomil.results import RunStore, run_path
from napari_histomil.review.report_pictures import draw_scale_bar, round_length
from napari_histomil.slides.readers import open_slide
from napari_histomil.tiling import TileGrid


@pytest.fixture
def cohort(tmp_path: Path) -> Path:
    """Two patients with a slide each, a lesion in the first; the model sees half of it."""
    lines = ["run,annotations,label,patient"]
    for n in range(2):
        path = tmp_path / f"Doe {n}.tif"
        pixels = np.full((800, 1200, 3), (230, 200, 220 + n), np.uint8)
        tifffile.imwrite(path, pixels, tile=(256, 256), photometric="rgb",
                         resolution=(20000, 20000), resolutionunit=3)  # fmt: skip
        with open_slide(path) as slide:
            info = slide.info
        grid = TileGrid.cover(info, SPEC)
        score = np.full(len(grid), 0.1, np.float32)
        if not n:
            score[(grid.cells[:, 1] < 4) & (grid.cells[:, 0] < 8)] = 0.9
        run = run_path(path, "ab" * 8, fingerprint=info.fingerprint)
        facts = {"name": path.name, "path": str(path), "fingerprint": info.fingerprint,
                 "width_px0": 1200, "height_px0": 800, "mpp_xy": [0.5, 0.5],
                 "bounds_px0": None}  # fmt: skip
        with RunStore.create(
            run, run_id="ab" * 8, job={}, slide=facts, classes=CLASSES, grid=grid,
            model={"name": "maker <b>", "sha256": "cd" * 32, "positive_class": "tumor"},
        ) as store:  # fmt: skip
            for index, tiles in enumerate(grid.blocks()):
                store.write_block(index, np.column_stack([1 - score[tiles], score[tiles]]))
        regions = [Region(box(0, 0, 1200, 800), class_named("Region*"))]
        if not n:
            regions.append(Region(box(0, 0, 512, 512), class_named("Tumor")))
        write_geojson(tmp_path / f"{n}.geojson", regions, frame=SlideFrame.of(info))
        label = "normal" if n else "tumor"
        lines.append(f"{run.relative_to(tmp_path)},{n}.geojson,{label},Jane Doe {n}")
    table = tmp_path / "cohort.csv"
    table.write_text("\n".join(lines), encoding="utf-8")
    return table


def without_pictures(text: str) -> str:
    """The page without its data, in which any three letters may come up."""
    return re.sub(r"data:image/[^\"]*", "", text)


class Page(HTMLParser):
    """Tags are closed in order; pictures and tables are gathered."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.pictures: list[bytes] = []
        self.links: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        said = dict(attrs)
        if tag == "img":
            head, _, data = (said["src"] or "").partition(",")
            assert head.startswith("data:image/")
            self.pictures.append(base64.b64decode(data))
        if tag not in ("img", "meta"):
            self.open.append(tag)
        self.links += [v or "" for k, v in attrs if k in ("href", "src")]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_a_report_holds_all_and_names_nobody(
    cohort: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "report.html"
    assert main(["report", str(cohort), "-o", str(out), "--bootstraps", "20"]) == 0
    assert capsys.readouterr().out.split() == [str(out.with_suffix(s))
                                               for s in (".html", ".json", ".csv")]  # fmt: skip
    text = out.read_text(encoding="utf-8")
    page = Page(text)
    for file in (out, out.with_suffix(".json"), out.with_suffix(".csv")):
        assert "Doe" not in without_pictures(file.read_text(encoding="utf-8")), file.name
    assert all(link.startswith("data:") for link in page.links)
    assert "http" not in without_pictures(text)
    assert "maker &lt;b&gt;" in text
    assert "2 slides of <b>2 patients" in text
    sizes = [Image.open(io.BytesIO(data)).size for data in page.pictures]
    assert sizes.count((1000, 667)) == 2
    assert sizes.count((224, 224)) >= 1  # worst errors
    assert len([s for s in sizes if s not in ((1000, 667), (224, 224))]) == 8  # plots
    document = json.loads(out.with_suffix(".json").read_text(encoding="utf-8"))
    recall = document["levels"]["tiles"]["figures"]["recall"]["value"]
    assert recall == 0.5
    assert "<td>Recall (sensitivity)</td><td>0.500" in text
    with out.with_suffix(".csv").open(encoding="utf-8") as file:
        assert [row["patient"] for row in csv.DictReader(file)] == ["P1", "P2"]


def test_names_where_they_are_asked_for_and_no_pictures(cohort: Path, tmp_path: Path) -> None:
    out = tmp_path / "report.html"
    words = ["report", str(cohort), "-o", str(out), "--bootstraps", "5", "--no-pictures"]
    assert main([*words, "--names", "--title", "A & B"]) == 0
    text = out.read_text(encoding="utf-8")
    assert "Jane Doe 0" in text
    assert "<h1>A &amp; B</h1>" in text
    assert len(Page(text).pictures) == 8
    assert main(words) == 2  # it is there


def test_a_slide_that_is_gone_is_said(cohort: Path, tmp_path: Path) -> None:
    (tmp_path / "Doe 0.tif").unlink()
    out = tmp_path / "report.html"
    assert main(["report", str(cohort), "-o", str(out), "--bootstraps", "5"]) == 0
    text = out.read_text(encoding="utf-8")
    assert "The slide of case 1 was not found" in text
    assert "Doe" not in without_pictures(text)


def test_another_name_than_html_is_refused(cohort: Path, tmp_path: Path, capsys) -> None:
    assert main(["report", str(cohort), "-o", str(tmp_path / "r.pdf")]) == 2
    assert "ends in .html" in capsys.readouterr().err


def test_scale_bars() -> None:
    assert [round_length(v) for v in (99, 100, 199, 600, 0.3)] == [50, 100, 100, 500, 0.2]
    picture = Image.new("RGB", (400, 200), (200, 150, 200))
    um = draw_scale_bar(picture, 2.0)
    assert um == 200
    black = (np.asarray(picture) == 0).all(axis=2)
    rows = black.sum(axis=1)
    assert rows.max() == um / 2.0 + 1  # both ends are drawn
