"""The whole journey with the shipped model on real tissue, by the commands a person types."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image

from napari_histomil.cli import main
from napari_histomil.results import RunStore
from napari_histomil.tissue import TissueMask

MODEL = "metastasis-patch-small"
PICTURES = (("10672", "10677"), ("10685", "10072"))
"""Rows of lymph-node pictures that are put together to a slide."""

MPP = 0.97


@pytest.fixture(scope="module")
def lymph_node(
    data_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, NDArray[np.bool_]]:
    """A slide put together from real pictures, and where its tumour is."""
    folder = data_dir / "seg-camelyon-tumor"

    def put_together(kind: str) -> NDArray[np.uint8]:
        return np.vstack(
            [
                np.hstack([np.asarray(Image.open(folder / kind / f"{n}.jpg")) for n in row])
                for row in PICTURES
            ]
        )

    pixels = put_together("images")[..., ::-1]  # the channels are stored as BGR
    truth = put_together("masks")
    path = tmp_path_factory.mktemp("real tissue") / "lymph node é.tiff"
    tifffile.imwrite(
        path,
        pixels,
        photometric="rgb",
        tile=(256, 256),
        compression="deflate",
        resolution=(1e4 / MPP, 1e4 / MPP),
        resolutionunit="CENTIMETER",
    )
    return path, (truth if truth.ndim == 2 else truth[..., 0]) > 127


def auroc(scores: NDArray[np.floating], positive: NDArray[np.bool_]) -> float:
    """Share of (positive, negative) pairs in the right order."""
    difference = scores[positive][:, None] - scores[~positive]
    return float(((difference > 0) + 0.5 * (difference == 0)).mean())


def test_the_heatmap_lies_on_the_tumour(
    lymph_node: tuple[Path, NDArray[np.bool_]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The model knows these pictures: this tests the way from file to heatmap, not the model.

    Channel order, scale and position must all be right: moved by two cells, the same scores
    fit the truth clearly worse.
    """
    slide, truth = lymph_node
    assert main(["run", MODEL, str(slide), "-o", str(tmp_path), "--json"]) == 0
    answer = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert set(answer) == {"run", "model", "tiles", "seconds", "tiles_per_second", "device"}

    store = RunStore.open(Path(answer["run"]))
    assert store.complete
    assert len(store.grid) == answer["tiles"]
    tumour = store.scores[:, store.class_names.index("tumor")]
    share = TissueMask(truth, (1.0, 1.0), "brightfield").fraction
    rects = store.grid.cell_rects_px0
    unmixed = (share(rects) <= 0.05) | (share(rects) >= 0.95)
    score = auroc(tumour[unmixed], share(rects)[unmixed] > 0.5)
    assert score > 0.95

    moved = rects + np.array([2 * rects[0, 2], 2 * rects[0, 3], 0, 0])
    inside = (moved[:, 0] + moved[:, 2] <= truth.shape[1]) & (
        moved[:, 1] + moved[:, 3] <= truth.shape[0]
    )
    wrong = auroc(tumour[inside & unmixed], share(moved)[inside & unmixed] > 0.5)
    assert wrong < score - 0.1


def test_the_shipped_model_runs_on_a_scanner_file(
    data_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    slide = data_dir / "wsi-aperio-svs" / "CMU-1-Small-Region.svs"
    assert main(["run", MODEL, str(slide), "-o", str(tmp_path), "--stride", "128"]) == 0
    run = capsys.readouterr().out.strip()
    store = RunStore.open(Path(run))
    assert store.complete
    assert np.allclose(store.scores.sum(axis=1), 1, atol=1e-6)
    assert main(["export", run, "-o", str(tmp_path / "heatmap.png")]) == 0
    with Image.open(tmp_path / "heatmap.png") as picture:
        assert min(picture.size) > 400


def test_the_demo_leaves_all_its_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a screen here; the window of the demo is opened by `make demo` and by tests/ui."""
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.setattr("sys.platform", "linux")
    assert main(["demo", "-o", str(tmp_path), "--no-window"]) == 0
    names = {path.name for path in tmp_path.iterdir()}
    assert {"heatmap.png", "heatmap.ome.tif", "tiles.geojson", "tiles.csv"} <= names
    assert "There is no screen" in capsys.readouterr().err
