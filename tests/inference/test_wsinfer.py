"""WSInfer folders against a plain rewriting of what WSInfer does: PIL, torchvision, graph."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torchvision.transforms import Compose, Normalize, Resize, ToTensor

from napari_histomil.inference.engine import run
from napari_histomil.inference.job import Job
from napari_histomil.manifest import load_manifest
from napari_histomil.nets.load import load_module
from napari_histomil.results import RunStore
from napari_histomil.slides.readers import open_slide

MEAN, STD = [0.7238, 0.5716, 0.6779], [0.112, 0.1459, 0.1089]


def write_folder(folder: Path, classes: list[str], resize: int | None, patch: int) -> Path:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(32, len(classes)),
    )
    nn.init.normal_(net[5].weight, 0, 1)
    net[1].running_mean.normal_(0, 0.1)
    folder.mkdir()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # as the models of the zoo were made
        torch.jit.script(net.eval()).save(folder / "torchscript_model.pt")
    transform = [{"name": "Resize", "arguments": {"size": resize}}] if resize else []
    config = {
        "spec_version": "1.0",
        "architecture": "small",
        "num_classes": len(classes),
        "patch_size_pixels": patch,
        "spacing_um_px": 0.88,
        "class_names": classes,
        "transform": [
            *transform,
            {"name": "ToTensor"},
            {"name": "Normalize", "arguments": {"mean": MEAN, "std": STD}},
        ],
    }
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


@pytest.mark.parametrize(
    ("classes", "resize", "patch"),
    [(["Other", "Tumor"], 48, 50), (["Tumor"], 64, 37), (["a", "b", "c"], None, 41)],
)
def test_a_folder_gives_wsinfers_own_numbers(
    tmp_path: Path,
    make_job: Callable[..., Job],
    slide_path: Path,
    classes: list[str],
    resize: int | None,
    patch: int,
) -> None:
    folder = write_folder(tmp_path / "model", classes, resize, patch)
    *_, last = run(make_job(folder), out=tmp_path / "out", device="cpu")
    store = RunStore.open(last.store)
    module = load_module(load_manifest(folder))
    side = round(patch * 0.88 / 0.5)  # level-0 px
    steps = [Resize(resize)] if resize else []
    transform = Compose([*steps, ToTensor(), Normalize(MEAN, STD)])
    wanted = []
    with open_slide(slide_path) as slide, torch.inference_mode():
        for x, y in store.grid.xy_px0[::7]:
            pixels = slide.read_region((int(x), int(y)), 0, (side, side))
            logits = module(transform(Image.fromarray(pixels))[None])
            wanted.append(
                torch.sigmoid(logits)[0] if len(classes) == 1 else torch.softmax(logits, 1)[0]
            )
    np.testing.assert_allclose(store.scores[::7], torch.stack(wanted), atol=1e-5)
    assert np.ptp(store.scores, axis=0).max() > 0.01, "else nothing was tested"
    assert store.sessions[0]["precision"] == "fp32"
    assert store.sessions[0]["backend"] == "torchscript"
    assert store.class_names == tuple(classes)
