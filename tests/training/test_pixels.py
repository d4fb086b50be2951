"""What segments is asked as a run asks it, and its answers are counted right."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import shapely
import tifffile
import torch
from model_folders import make_segmenter_folder
from scipy import ndimage
from torch import nn

from napari_histomil.annotations.geojson import write_geojson
from napari_histomil.annotations.model import AnnotationClass, Region, SlideFrame
from napari_histomil.inference.engine import run
from napari_histomil.inference.job import RegionSpec, plan_job
from napari_histomil.manifest import ModelManifest, load_manifest
from napari_histomil.nets.load import load_module
from napari_histomil.results import SegmentationStore, bands
from napari_histomil.results.segmentation import from_stored
from napari_histomil.review.objects import count_objects, matched
from napari_histomil.slides.readers import open_slide
from napari_histomil.training.answers import ask, join
from napari_histomil.training.card_scores import block_lines
from napari_histomil.training.cells import Answers
from napari_histomil.training.config import Source, read_config
from napari_histomil.training.fields import UNLABELLED, ArrayField, array_field
from napari_histomil.training.figures import summarise_pixels
from napari_histomil.training.labels import Labels
from napari_histomil.training.pixels import PixelAnswers, ask_pixels
from napari_histomil.training.scores import judge, score
from napari_histomil.training.slide_data import read_slides


class Bright(nn.Module):
    """Says class 1 as surely as a pixel is brighter than the middle."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        odds = 20 * (x.mean(dim=1) - 0.5)
        return torch.stack([torch.zeros_like(odds), odds], dim=1)


@pytest.fixture
def model(tmp_path: Path) -> ModelManifest:
    return replace(load_manifest(make_segmenter_folder(tmp_path / "net")), normalisation=None)


def field_of(image: np.ndarray, labels: np.ndarray, name: str = "a") -> ArrayField:
    rgb = np.repeat(image[..., None], 3, axis=2).astype(np.uint8)
    return array_field(name, name, "s", rgb, labels.astype(np.uint8), mirrored=True)


def noise(shape: tuple[int, int], seed: int = 0) -> np.ndarray:
    rough = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), 4)
    return 128 + 90 * rough / np.abs(rough).max()


@pytest.mark.parametrize("size", [(150, 203), (40, 700), (96, 96)])
def test_counts_are_those_of_the_whole_picture(
    model: ModelManifest, size: tuple[int, int]
) -> None:
    image = noise(size)
    truth = (noise(size, 1) > 128).astype(np.uint8)
    truth[5:20, 7:30] = UNLABELLED
    found = ask_pixels(model, Bright(), field_of(image, truth), objects=True)
    said = image.astype(np.uint8) / 255 > 0.5
    known = truth != UNLABELLED
    for k, mine in enumerate((~said, said)):
        own = (truth == k) & known
        wanted = [(own & mine).sum(), (~own & mine & known).sum(), (own & ~mine).sum()]
        assert found.counts[0, k].tolist() == wanted
    assert found.labelled.tolist() == [known.sum()]
    rows, columns = found.sample.xy_px[:, ::-1].T
    np.testing.assert_array_equal(found.sample.share, truth[rows, columns])
    odds = 20 * (image.astype(np.uint8) / 255 - 0.5)
    np.testing.assert_allclose(found.sample.logit, odds[rows, columns], atol=1e-3)
    assert found.objects is not None
    assert (
        found.objects.counts[0, 1, [0, 2]].sum() == ndimage.label((truth == 1), np.ones((3, 3)))[1]
    )


def test_tiles_are_stitched_as_a_run_stitches_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A slide, a net that sees beyond what it answers for, several lanes and bands."""
    monkeypatch.setattr(bands, "BAND_PX", 64)
    monkeypatch.setattr(bands, "LANE_PX", 128)
    model = load_manifest(make_segmenter_folder(tmp_path / "net", seed=3))
    image = np.random.default_rng(0).uniform(60, 255, (20, 24, 3))
    image = np.kron(image, np.ones((18, 18, 1))).astype(np.uint8)  # 360 x 432 px at 0.5 µm/px
    file = tmp_path / "slide.tif"
    tifffile.imwrite(
        file,
        image,
        tile=(128, 128),
        photometric="rgb",
        resolution=(20_000, 20_000),
        resolutionunit="CENTIMETER",
    )
    with open_slide(file) as slide:
        job = plan_job(slide.info, model, region=RegionSpec("all"))
        *_, last = run(job, out=tmp_path, device="cpu")
        stored = SegmentationStore.open(last.store)
        size = slide.info.width_px0, slide.info.height_px0
        regions = [
            Region(shapely.box(20, 30, 420, 170), AnnotationClass("Tumor", (200, 0, 0))),
            Region(shapely.box(300, 200, 330, 320), AnnotationClass("normal", (90, 90, 180))),
        ]
        write_geojson(tmp_path / "drawn.geojson", regions, frame=SlideFrame.of(slide.info))
        source = Source("slide", "s", "CC0-1.0", path="slide.tif", annotations="drawn.geojson")
        (field,) = read_slides(source, tmp_path, 1.0, Labels(model.class_names, 1, 0))
        found = ask_pixels(model, load_module(model), field).sample
        assert (field.size_px, size) == ((216, 180), (432, 360))
    columns, rows = found.xy_px.T
    wanted = from_stored(stored.strip(slice(0, 180)))[:, rows, columns].T
    assert len(found) == 100 * 35 + 7 * 30  # every other pixel of both regions, each way
    assert wanted.std() > 0.1
    np.testing.assert_allclose(found.probabilities(), wanted, atol=0.5 / 254 + 2e-3, rtol=0)


def test_unlabelled_pixels_are_not_asked(model: ModelManifest) -> None:
    asked: list[int] = []

    class Counted(Bright):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            asked.append(len(x))
            return super().forward(x)

    truth = np.full((480, 480), UNLABELLED)
    truth[:30, :30] = 1
    found = ask_pixels(model, Counted(), field_of(noise((480, 480)), truth))
    assert sum(asked) <= 4  # tiles of 64 px every 48 px
    assert found.labelled.tolist() == [900]
    nothing = ask_pixels(model, Counted(), field_of(noise((96, 96)), np.full((96, 96), 255)))
    assert nothing.labelled.tolist() == [0]
    assert len(nothing.sample) == 0


def test_classes_that_do_not_exclude_one_another(model: ModelManifest) -> None:
    many = replace(model, activation="sigmoid")
    image, truth = np.full((96, 96), 200.0), np.full((96, 96), 254)  # none of the classes
    truth[:, :48] = 1
    found = ask_pixels(many, Bright(), field_of(image, truth))
    assert found.counts[0].tolist() == [[0, 96 * 96, 0], [96 * 48, 96 * 48, 0]]
    assert found.sample.shares.sum(axis=1).tolist() == found.sample.shares[:, 1].tolist()


def test_the_worst_square_is_where_it_is_wrong(model: ModelManifest) -> None:
    image = np.full((512, 768), 30.0)
    image[:, 512:] = 220
    truth = np.zeros((512, 768))
    (spot,) = ask_pixels(model, Bright(), field_of(image, truth)).worst
    assert spot.xy_px[0] == 512
    assert (spot.answer == 1).all()
    assert spot.loss == pytest.approx(20 * (220 / 255 - 0.5), rel=0.01)


def test_figures_by_hand() -> None:
    # two fields of two groups: in the first half of the class is found, in the second all of it
    first = PixelAnswers(
        ("rest", "nucleus"),
        "rest",
        np.array(["a", "b"]),
        np.array(["a", "b"]),
        np.array([[[0, 0, 0], [10, 0, 10]], [[0, 0, 0], [20, 20, 0]]]),
        np.array([100, 100]),
        ask_sample(),
    )
    found = summarise_pixels([first], rounds=200)
    one = found["classes"]["nucleus"]
    assert one["dice"] == pytest.approx(60 / 90, abs=1e-4)
    assert one["iou"] == 0.5
    assert one["precision"] == 0.6
    assert one["recall"] == 0.75
    assert one["dice_fields"] == pytest.approx((20 / 30 + 40 / 60) / 2, abs=1e-4)
    assert one["recall_95"] == [0.5, 1.0]
    assert found["classes"]["rest"]["dice"] is None  # nothing of it anywhere
    assert found["mean_dice"] == one["dice"]
    assert (found["fields"], found["groups"], found["pixels"]) == (2, 2, 200)


def test_sources_are_scored_apart(repository: Path) -> None:
    config = read_config(repository / "models/nuclei-unet-small/train.toml")
    config = replace(config, validation=replace(config.validation, bootstraps=20))
    groups = np.array(["TNBC/a", "TNBC/b", "BreCaHAD/a"])
    hot = np.eye(2)
    sample = Answers(groups, groups, np.zeros((3, 2), np.int32), hot[[0, 1, 1]], hot[[0, 1, 0]])
    nothing = [0, 0, 0]
    counts = np.array([[nothing, [9, 1, 1]], [nothing, [9, 1, 1]], [nothing, [1, 9, 9]]])
    run = PixelAnswers(
        ("background", "nucleus"), "background", groups, groups, counts, np.full(3, 40), sample
    )
    image, labels = np.zeros((1, 1, 3), np.uint8), np.zeros((1, 1), np.uint8)
    sources = [s.name for s in config.sources]
    fields = [
        array_field(g, g, source, image, labels, mirrored=True)
        for g, source in zip(groups.tolist(), sources[:1] + sources[:1] + sources[1:], strict=True)
    ]
    parts = [frozenset(groups[:1]), frozenset(groups[1:])]
    found = judge(config, [run], parts, fields).scores
    dice = {
        name: block["pixels"]["classes"]["nucleus"]["dice"]
        for name, block in found["sources"].items()
    }
    assert dice == {"TNBC": 0.9, "BreCaHAD": 0.1}
    assert found["sources"]["BreCaHAD"]["pixels"]["sampled"] == 1
    lines = block_lines(found["sources"]["TNBC"], unmixed=0.05)
    assert any("| nucleus | 20 | 0.900 (0.900 to 0.900) |" in line for line in lines)


def ask_sample() -> Answers:
    """Return a few sampled pixels."""
    names, hot = np.array(["a", "b", "b"]), np.eye(2)
    return Answers(names, names, np.zeros((3, 2), np.int32), hot[[0, 1, 1]], hot[[0, 1, 0]])


def test_objects_match_above_half_of_their_union() -> None:
    true, found = np.zeros((10, 30), np.uint8), np.zeros((10, 30), np.uint8)
    true[2:6, 2:6] = true[2:6, 10:14] = true[2:6, 20:24] = 1
    found[2:6, 3:7] = 1  # 12 of 20 px
    found[2:6, 12:16] = 1  # 8 of 24 px: not the same
    counts = count_objects(true, found, 2)
    assert counts.counts[0, 1].tolist() == [1, 1, 2]
    assert counts.overlap[0, 1] == pytest.approx(12 / 20)
    labelled = ndimage.label(true)[0], ndimage.label(found)[0]
    assert matched(*labelled).tolist() == [12 / 20]
    true[0:8, 8:18] = UNLABELLED  # nobody has judged there: neither counts
    assert count_objects(true, found, 2).counts[0, 1].tolist() == [1, 0, 1]


def test_objects_of_fields_are_scored_together(model: ModelManifest) -> None:
    truth = np.zeros((128, 128))
    image = np.full((128, 128), 20.0)
    truth[20:40, 20:40] = truth[70:90, 70:90] = 1
    image[20:40, 20:40] = 240
    fields = [field_of(image, truth, name) for name in "ab"]
    asked = join([ask(model, Bright(), f, objects=True) for f in fields])
    found = score([asked], rounds=20)["pixels"]["objects"]["Tumor"]
    assert (found["true"], found["found"], found["matched"]) == (4, 2, 2)
    assert found["f1"] == pytest.approx(2 / 3, abs=1e-4)
    assert found["panoptic_quality"] == pytest.approx(2 / 3, abs=1e-4)
    assert score([asked], rounds=20)["fields"]["a"]["Tumor"] == pytest.approx(2 / 3, abs=1e-4)


def test_the_margin_is_context_only(model: ModelManifest) -> None:
    """A net that answers nonsense in its margin is not heard there."""

    class Edgy(Bright):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            answer = super().forward(x)
            answer[..., :16] = answer[..., -16:] = float("nan")
            return answer

    image = noise((150, 203))
    truth = (image > 128).astype(np.uint8)
    wanted = ask_pixels(model, Bright(), field_of(image, truth)).counts
    np.testing.assert_array_equal(ask_pixels(model, Edgy(), field_of(image, truth)).counts, wanted)
