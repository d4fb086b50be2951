"""Fields for refiners: what a net learns from is what it gets in a run."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from refiner_cohort import MPP, TILE, write_models, write_slides

from napari_histomil.errors import TrainingError
from napari_histomil.inference import predictor
from napari_histomil.inference.engine import run
from napari_histomil.inference.job import plan_job
from napari_histomil.inference.predictor import Predictor
from napari_histomil.manifest import StepModels, load_manifest, write_chain
from napari_histomil.results import SegmentationStore
from napari_histomil.training.config import Detector, Source
from napari_histomil.training.fields import Field, SlideField
from napari_histomil.training.heatmap_fields import (
    HeatmapField,
    find_detector,
    has_seen,
    heatmap_fields,
    learnt_slides,
    refuse_seen,
)
from napari_histomil.training.labels import Labels
from napari_histomil.training.loop import TrainingCancelled
from napari_histomil.training.slide_data import read_slides


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models, and one annotated slide."""
    folder = tmp_path_factory.mktemp("cohort")
    write_models(folder)
    write_slides(folder, "a")
    return folder


@pytest.fixture
def slide(folder: Path) -> Iterator[SlideField]:
    source = Source("slide", "slides", "CC0-1.0", path="a.tif", annotations="{stem}.geojson")
    source = replace(source, class_names={"Tumor": "tumor"})
    (field,) = read_slides(source, folder, MPP, Labels(("normal", "tumor"), 1, 0))
    yield field
    field.slide.close()


def given_heatmaps(slide: SlideField, folder: Path, out: Path, **how: object) -> list[Field]:
    model, name = find_detector(Detector("blue", "tumor"), folder)
    steps = heatmap_fields([slide], model, name, out=out, device="cpu", **how)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


def test_tiles_are_the_very_pixels_that_a_refiner_gets_in_a_run(
    tmp_path: Path, folder: Path, slide: SlideField, monkeypatch: pytest.MonkeyPatch
) -> None:
    (made,) = given_heatmaps(slide, folder, tmp_path / "heatmaps")
    assert isinstance(made, HeatmapField)
    image, labels = made.cut((-TILE, -TILE), 128)
    plain, expected = slide.cut((-TILE, -TILE), 128)
    np.testing.assert_array_equal(image[..., :3], plain)
    np.testing.assert_array_equal(labels, expected)
    assert (image[:TILE, :, 3] == 0).all()  # beyond the slide nobody looked
    assert np.ptp(image[..., 3]) > 50, "else nothing was tested"
    assert made.fingerprint.startswith(slide.fingerprint)
    assert made.fingerprint != replace(made, heat=made.heat * 0.5).fingerprint

    seen: list[np.ndarray] = []
    real = Predictor.scores
    monkeypatch.setattr(predictor, "has_fast_bf16", lambda device: False)
    monkeypatch.setattr(
        Predictor, "scores", lambda s, tiles: (seen.append(np.asarray(tiles)), real(s, tiles))[1]
    )
    models = (load_manifest(folder / name) for name in ("blue", "refiner", "unet"))
    write_chain(tmp_path / "chain", "chain", StepModels(*models), threshold=0.5, margin_um=0)
    job = plan_job(slide.slide.info, load_manifest(tmp_path / "chain"))
    *_, last = run(job, out=tmp_path, device="cpu", models=[folder])
    assert SegmentationStore.open(last.store).chain is not None
    given = np.concatenate([tiles for tiles in seen if tiles.shape[-1] == 4])
    corners = [(16 * column - 8, 16 * row - 8) for row in range(5) for column in range(6)]
    ours = {made.cut(corner, TILE)[0].tobytes() for corner in corners}
    assert len(given) > 10
    assert {tile.tobytes() for tile in given} <= ours


def test_stopped_it_goes_on_and_what_is_there_is_used(
    tmp_path: Path, folder: Path, slide: SlideField, monkeypatch: pytest.MonkeyPatch
) -> None:
    cancel = threading.Event()
    cancel.set()
    with pytest.raises(TrainingCancelled, match=r"stopped in the heatmap of a\.tif"):
        given_heatmaps(slide, folder, tmp_path, cancel=cancel)
    (first,) = given_heatmaps(slide, folder, tmp_path)
    monkeypatch.setattr(Predictor, "scores", None)  # nobody looks once more
    (again,) = given_heatmaps(slide, folder, tmp_path)
    assert again.fingerprint == first.fingerprint


def test_a_detector_that_cannot_be_one_is_refused(folder: Path) -> None:
    with pytest.raises(TrainingError, match="'stroma' is none of the classes of blue"):
        find_detector(Detector("blue", "stroma"), folder)
    with pytest.raises(TrainingError, match="unet makes no heatmaps"):
        find_detector(Detector(str(folder / "unet")), folder)
    assert find_detector(Detector("blue"), folder)[1] == "tumor"  # what the model shows first


@pytest.mark.parametrize(
    ("training", "answer"),
    [
        ({}, None),
        ({"data": [{"kind": "tiles"}]}, None),
        ({"data": [{"kind": "synthetic"}]}, False),
        ({"data": [{"kind": "slide"}]}, None),  # of before slides were kept
        ({"data": [{"kind": "slide"}], "slides": ["0123456789abcdef"]}, False),
        ({"data": [{"kind": "slide"}, {"kind": "tiles"}], "slides": ["0123456789abcdef"]}, None),
        ({"data": [{"kind": "tiles"}], "slides": "this one"}, True),
    ],
)
def test_what_a_detector_has_seen(
    folder: Path, slide: SlideField, training: dict[str, object], answer: bool | None
) -> None:
    if training.get("slides") == "this one":
        training = {**training, "slides": learnt_slides([slide])}
    model = replace(load_manifest(folder / "blue"), training=json.loads(json.dumps(training)))
    assert has_seen(model, slide) is answer
    if answer:
        with pytest.raises(TrainingError, match=r"blue has learnt from a\.tif"):
            refuse_seen(model, [slide])
    else:
        refuse_seen(model, [slide])
