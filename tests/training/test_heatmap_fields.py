"""Fields for refiners: what a net learns from is what it gets in a run."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from model_folders import TINY_UNET, make_model_folder, make_segmenter_folder, script_model
from torch.nn import functional

from napari_histomil.errors import TrainingError
from napari_histomil.inference import predictor
from napari_histomil.inference.engine import run
from napari_histomil.inference.job import RegionSpec, plan_job
from napari_histomil.inference.predictor import Predictor
from napari_histomil.manifest import StepModels, load_manifest, write_chain
from napari_histomil.nets.load import build_module
from napari_histomil.results import SegmentationStore
from napari_histomil.slides.readers import open_slide
from napari_histomil.slides.slide import SlideInfo, read_rect
from napari_histomil.slides.synthetic import write_synthetic
from napari_histomil.training.fields import UNLABELLED, ArrayField, array_field
from napari_histomil.training.heatmap_fields import heatmap_field

MPP, TILE, MARGIN = 8.0, 32, 4


class Blue(torch.nn.Module):
    """A poor detector: the bluer a tile, the likelier is tumour."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        blue = (x[:, 2] - x[:, 1]).mean((1, 2))[:, None] * 12 - 2
        return torch.cat([-blue, blue], 1)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    script_model(make_model_folder(folder / "blue"), Blue())
    make_segmenter_folder(folder / "unet", background_class="normal")
    make_segmenter_folder(
        folder / "refiner",
        arguments={**TINY_UNET, "in_channels": 4},
        inputs=["overview", "heatmap"],
        grid={"mpp": MPP, "tile_px": TILE, "stride_px": 16, "margin_px": MARGIN},
        normalisation={"mean": [0.7, 0.5, 0.7, 0.0], "std": [0.2, 0.2, 0.2, 1.0]},
    )
    return folder


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[SlideInfo, ArrayField]]:
    """A synthetic slide, and the whole of it at 8 µm/px with its tumour."""
    path = tmp_path_factory.mktemp("slides") / "synthetic.tif"
    truth = write_synthetic(path, width=1536, height=1280, mpp=0.5, seed=3, pen="")
    labels = truth.masks(MPP)[0].astype(np.uint8)
    with open_slide(path) as opened:
        image = read_rect(opened, (0, 0), (1536, 1280), (96, 80))
        yield opened.info, array_field("s", "g", "s", image, labels, mirrored=False)


def test_a_field_holds_overview_heatmap_and_labels(
    tmp_path: Path, models: Path, slide: tuple[SlideInfo, ArrayField],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """And its squares are the very pixels that the refiner gets in a run."""
    info, plain = slide
    detector = load_manifest(models / "blue")
    everywhere = RegionSpec("all")
    made = heatmap_field(
        plain, info, detector, class_name="tumor", mpp=MPP, border_px=TILE, region=everywhere,
        out=tmp_path, device="cpu",
    )  # fmt: skip
    assert made.image.shape == (80 + 2 * TILE, 96 + 2 * TILE, 4)
    inner = np.s_[TILE:-TILE, TILE:-TILE]
    np.testing.assert_array_equal(made.image[inner][..., :3], plain.image)
    np.testing.assert_array_equal(made.labels[inner], plain.labels)
    assert (made.labels == UNLABELLED).sum() == made.labels.size - plain.labels.size
    assert (made.image[0, 0] == (255, 255, 255, 0)).all()
    assert np.ptp(made.image[inner][..., 3]) > 50, "else nothing was tested"

    given: list[np.ndarray] = []
    real = Predictor.scores
    monkeypatch.setattr(predictor, "has_fast_bf16", lambda device: False)
    monkeypatch.setattr(
        Predictor, "scores", lambda s, tiles: (given.append(np.asarray(tiles)), real(s, tiles))[1]
    )
    steps = StepModels(detector, load_manifest(models / "refiner"), load_manifest(models / "unet"))
    write_chain(tmp_path / "chain", "chain", steps, threshold=0.5, margin_um=0)
    job = plan_job(info, load_manifest(tmp_path / "chain"), region=everywhere)
    *_, last = run(job, out=tmp_path, device="cpu", models=[models])
    chain = SegmentationStore.open(last.store).chain
    assert chain is not None
    seen = np.concatenate([tiles for tiles in given if tiles.shape[-1] == 4])
    assert len(seen) == 6 * 5
    for number, tile in enumerate(seen):
        y, x = (16 * place - 8 for place in divmod(number, 6))
        pixels, _ = made.cut((x + TILE, y + TILE), TILE)
        np.testing.assert_array_equal(tile, pixels)


def test_a_refiner_learns_from_fields_and_then_refines(
    tmp_path: Path, models: Path, slide: tuple[SlideInfo, ArrayField]
) -> None:
    """Steps of the plainest kind: what it takes is four channels and nothing else."""
    info, plain = slide
    field = heatmap_field(
        plain, info, load_manifest(models / "blue"), class_name="tumor", mpp=MPP, border_px=TILE,
        out=tmp_path, device="cpu",
    )  # fmt: skip
    model = load_manifest(models / "refiner")
    assert model.normalisation is not None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = build_module(model.architecture, 2, model.arguments)
    mean, std = (
        torch.tensor(v)[:, None, None] for v in (model.normalisation.mean, model.normalisation.std)
    )
    places, losses = np.random.default_rng(0), []
    optimiser = torch.optim.Adam(net.parameters(), lr=3e-3)
    for _ in range(40):
        corners = places.integers(TILE // 2, [96 + TILE // 2, 80 + TILE // 2], (8, 2))
        cuts = [field.cut((int(x), int(y)), TILE) for x, y in corners]
        x = torch.from_numpy(np.stack([c[0] for c in cuts])).permute(0, 3, 1, 2) / 255
        y = torch.from_numpy(np.stack([c[1] for c in cuts])).long()
        loss = functional.cross_entropy(net((x - mean) / std), y, ignore_index=UNLABELLED)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert np.mean(losses[-5:]) < 0.6 * np.mean(losses[:5])


def test_a_detector_without_the_class_or_cancelled_is_told(
    tmp_path: Path, models: Path, slide: tuple[SlideInfo, ArrayField]
) -> None:
    info, plain = slide
    detector, cancel = load_manifest(models / "blue"), threading.Event()
    with pytest.raises(TrainingError, match="'stroma' is none of the classes of blue"):
        heatmap_field(plain, info, detector, class_name="stroma", mpp=MPP, border_px=0)
    cancel.set()
    with pytest.raises(TrainingError, match=r"The heatmap of synthetic\.tif was cancelled"):
        heatmap_field(
            plain, info, detector, class_name="tumor", mpp=MPP, border_px=0, out=tmp_path,
            device="cpu", cancel=cancel,
        )  # fmt: skip
