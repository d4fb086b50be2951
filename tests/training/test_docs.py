"""What docs/training.md tells a person to write is a training, and runs (at toy size)."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from shapely.geometry import box

from napari_histomil.annotations.geojson import write_geojson
from napari_histomil.annotations.model import AnnotationClass, Region, SlideFrame
from napari_histomil.cli import main
from napari_histomil.manifest import load_manifest
from napari_histomil.slides.readers import open_slide
from napari_histomil.slides.synthetic import write_synthetic
from napari_histomil.training.config import read_config

TOY = {
    'slides = ["*.svs"]': 'slides = ["*.tiff"]',
    "tile_px = 256": "tile_px = 64",
    "stride_px = 128": "stride_px = 32",
    "margin_px = 32": "margin_px = 8",
    'encoder_name = "resnet18"': 'encoder_name = "tu-resnet10t", encoder_depth = 3, '
    "decoder_channels = [8, 8, 8]",
    "steps = 1500": "steps = 4",
    "batch = 12": "batch = 2",
    "patience = 5": "patience = 5\ntiles = 4",
}


@pytest.fixture
def blocks(repository: Path) -> list[str]:
    """The TOML of the page, block by block."""
    text = (repository / "docs" / "training.md").read_text(encoding="utf-8")
    found = re.findall(r"^( *)```toml\n(.*?)^ *```", text, re.DOTALL | re.MULTILINE)
    return [re.sub(rf"^{indent}", "", block, flags=re.MULTILINE) for indent, block in found]


def test_a_unet_from_annotated_slides(
    blocks: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = blocks[0]
    for old, new in TOY.items():
        assert old in text
        text = text.replace(old, new)
    (tmp_path / "train.toml").write_text(text, encoding="utf-8")
    for seed in range(4):
        slide = tmp_path / f"s{seed}.tiff"
        write_synthetic(slide, width=256, height=256, mpp=1.0, seed=seed)
        with open_slide(slide) as opened:
            frame = SlideFrame.of(opened.info)
        drawn = [("Region*", box(0, 0, 256, 200)), ("Tumor", box(40, 40, 120, 120))]
        regions = [Region(shape, AnnotationClass(name, (1, 2, 3))) for name, shape in drawn]
        write_geojson(slide.with_suffix(".geojson"), regions, frame=frame)
    model = tmp_path / "my-tumour-unet"
    assert main(["train", str(tmp_path / "train.toml"), "-o", str(model)]) == 0
    manifest = load_manifest(model)
    assert manifest.class_names == ("Other", "Tumor")
    assert manifest.background_class == "Other"
    split = json.loads((model / "split.json").read_text(encoding="utf-8"))
    assert [len(split[side]) for side in ("train", "validation", "test")] == [2, 1, 1]
    assert manifest.scores["test"]["test_groups"] == split["test"]
    capsys.readouterr()
    command = ["run", str(model), str(tmp_path / "s0.tiff"), "-o", str(tmp_path / "out")]
    assert main([*command, "--region", "0,0,128,128"]) == 0
    assert Path(capsys.readouterr().out.strip()).is_dir()


def test_the_other_sources_are_understood(blocks: list[str], tmp_path: Path) -> None:
    whole, tiles, values, folders, refiner = blocks
    start, end = whole.index("[[sources]]"), whole.index("[schedule]")
    file = tmp_path / "train.toml"
    file.write_text(whole[:start] + tiles + "\n" + whole[end:], encoding="utf-8")
    assert read_config(file).sources[0].groups == (("10677", "10683"),)
    three = whole.replace("[grid]", '[[classes]]\nname = "Stroma"\ncolor = [1, 2, 3]\n\n[grid]')
    start, end = three.index("[[sources]]"), three.index("[schedule]")
    file.write_text(three[:start] + tiles + values + "\n" + three[end:], encoding="utf-8")
    labels = [
        read_config(file).labels.of(word) for word in read_config(file).sources[0].values.values()
    ]
    assert labels == [0, 1, 2, 255]
    patch = whole[: whole.index("[[sources]]")].replace('task = "segment"', "")
    patch = re.sub(r"background_class.*|margin_px.*", "", patch)
    patch = re.sub(r"_px = \d+", "_px = 224", patch).replace("smp/unet", "timm/resnet18")
    file.write_text(patch + folders + "\n" + whole[whole.index("[schedule]") :], encoding="utf-8")
    assert read_config(file).sources[0].resize_px == 224
    top, rest = refiner.split("[detector]")
    start, end = whole.index("[grid]"), whole.index("[network]")
    changed = "[detector]" + rest + "\n"
    file.write_text(top + whole[:start] + changed + whole[end:], encoding="utf-8")
    assert read_config(file).image_channels == 4
