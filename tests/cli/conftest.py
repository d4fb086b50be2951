"""The command line, called in this process; slides and a model to call it on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import tifffile
from model_folders import make_model_folder

from napari_histomil.cli import main


class Said(NamedTuple):
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def complaint(self) -> str:
        """The one line that says what is wrong."""
        (line,) = [line for line in self.err.splitlines() if line.startswith("histomil: ")]
        return line


@pytest.fixture
def histomil(capsys: pytest.CaptureFixture[str]) -> Callable[..., Said]:
    """Call ``histomil`` with the given words."""

    def call(*words: object) -> Said:
        capsys.readouterr()
        code = main([str(word) for word in words])
        return Said(code, *capsys.readouterr())

    return call


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the model ``tiny-tumor``: tiles of 32 px, stride 16, 1 µm/px."""
    folder = tmp_path_factory.mktemp("моделі 1")
    make_model_folder(folder / "tiny-tumor")
    return folder


def write_slide(path: Path, *, mpp: float | None = 0.5, blank: bool = False) -> Path:
    """Write a one-level TIFF of 640 x 512 px with a square of tissue, px 128 to 384 both ways."""
    pixels = np.full((512, 640, 3), 243, np.uint8)
    if not blank:
        noise = np.random.default_rng(1).integers(-30, 30, (256, 256, 3))
        pixels[128:384, 128:384] = np.array([190, 90, 160]) + noise
    resolution = {} if mpp is None else {"resolution": (1e4 / mpp, 1e4 / mpp)}
    tifffile.imwrite(
        path,
        pixels,
        tile=(128, 128),
        photometric="rgb",
        resolutionunit="CENTIMETER" if mpp else None,
        **resolution,
    )
    return path


@pytest.fixture(scope="session", name="write_slide")
def _write_slide() -> Callable[..., Path]:
    """The function above."""
    return write_slide


@pytest.fixture
def slide(tmp_path: Path) -> Path:
    """A slide with a name that is hard on programs, in a folder like that."""
    folder = tmp_path / "зрізи {2}"
    folder.mkdir()
    return write_slide(folder / "слайд [1] 50%.tif")


@pytest.fixture
def run_path(histomil: Callable[..., Said], models: Path, slide: Path, tmp_path: Path) -> Path:
    """A finished run over the whole slide."""
    said = histomil(
        "run", "tiny-tumor", slide, "-o", tmp_path / "out", "--models", models, "--region", "all"
    )
    assert said.code == 0, said.err
    return Path(said.out.strip())
