"""Unlabelled tiles come from where they may come from, at the grid's scale."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from napari_histomil.errors import MissingMppError, TrainingError
from napari_histomil.tissue import find_tissue
from napari_histomil.training.selfsupervised.config import PretrainConfig, TileSource
from napari_histomil.training.selfsupervised.tiles import ArrayPiece, TissuePiece, open_pool

PICTURES = TileSource("pictures", "p", "x", "tiles", mpp=1.0)


def draws(config: PretrainConfig, data: Path, count: int = 30) -> np.ndarray:
    with open_pool(config, data) as pool:
        return np.stack([pool.draw(np.random.default_rng(n), 16) for n in range(count)])


def write(path: Path, color: tuple[int, int, int], side: int = 40) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (side, side), color).save(path)


def test_pictures_at_any_depth_but_those_left_out(config: PretrainConfig, tmp_path: Path) -> None:
    write(tmp_path / "tiles/a.png", (200, 0, 0))
    write(tmp_path / "tiles/deep/er/b.PNG", (0, 200, 0))
    write(tmp_path / "tiles/held-out.png", (0, 0, 200))
    (tmp_path / "tiles/notes.txt").write_text("no picture")
    source = replace(PICTURES, leave_out=("held-out",))
    seen = draws(replace(config, sources=(source,)), tmp_path)
    assert {tuple(t[0, 0]) for t in seen} == {(200, 0, 0), (0, 200, 0)}
    bgr = draws(replace(config, sources=(replace(source, channel_order="bgr"),)), tmp_path)
    assert {tuple(t[0, 0]) for t in bgr} == {(0, 0, 200), (0, 200, 0)}


def test_pictures_are_brought_to_the_grid(config: PretrainConfig, tmp_path: Path) -> None:
    """Stripes of 4 px at 0.5 µm/px are 2 px wide at 1 µm/px."""
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, np.arange(64) // 4 % 2 == 1] = 240
    (tmp_path / "tiles").mkdir()
    Image.fromarray(stripes).save(tmp_path / "tiles/s.png")
    seen = draws(replace(config, sources=(replace(PICTURES, mpp=0.5),)), tmp_path, 5)
    runs = np.diff(np.flatnonzero(np.diff(seen[0, 0, :, 0].astype(int))))
    assert (runs == 2).all()


def test_shares_of_sources(config: PretrainConfig, tmp_path: Path) -> None:
    write(tmp_path / "tiles/a.png", (200, 0, 0))
    for n in range(9):
        write(tmp_path / f"other/{n}.png", (0, 200, 0))
    other = replace(PICTURES, path="other", share=0.25)
    seen = draws(replace(config, sources=(PICTURES, other)), tmp_path, 200)
    assert float((seen[:, 0, 0, 1] == 200).mean()) == pytest.approx(0.2, abs=0.07)


def test_small_pictures_are_mirrored() -> None:
    image = np.arange(5 * 5 * 3, dtype=np.uint8).reshape(5, 5, 3)
    square = ArrayPiece(image).draw(np.random.default_rng(0), 12)
    assert np.array_equal(square[:5, :5], image)
    assert np.array_equal(square[5, :5], image[3])


def test_slides_give_tissue_only(config: PretrainConfig, data_dir: Path) -> None:
    source = TileSource("slides", "s", "x", "wsi-aperio-svs", min_tissue=0.9)
    wanted = replace(config, sources=(source,))
    with open_pool(wanted, data_dir) as pool:
        piece = pool.pieces[0][0]
        assert isinstance(piece, TissuePiece)
        found = find_tissue(piece.slide)
        centres = np.stack(np.divmod(piece.centres, piece.width), axis=1)[:, ::-1]
        side = np.array([config.grid.tile_px * config.views.field / piece.slide.info.mpp] * 2)
        middle = (centres + 0.5) * np.array(piece.scale_px0)
        rects = np.concatenate([middle - side / 2, np.broadcast_to(side, middle.shape)], axis=1)
        assert found.fraction(rects).min() > 0.8  # windows are whole pixels of the mask
        seen = np.stack([pool.draw(np.random.default_rng(n), 32) for n in range(20)])
    assert seen.shape == (20, 32, 32, 3)
    glass = (seen.min(axis=3) > 225).mean(axis=(1, 2))
    assert float(glass.mean()) < 0.25


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (PICTURES, "tiles holds no pictures to learn from"),
        (TileSource("slides", "s", "x", "nowhere"), "nowhere holds no slides to learn from"),
    ],
)
def test_nothing_to_learn_from(
    config: PretrainConfig, tmp_path: Path, source: TileSource, words: str
) -> None:
    with pytest.raises(TrainingError, match=words):
        open_pool(replace(config, sources=(source,)), tmp_path)


def test_a_slide_without_resolution_is_named(config: PretrainConfig, tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    Image.new("RGB", (300, 300), (200, 100, 180)).save(tmp_path / "s/plain.tif")
    source = TileSource("slides", "mine", "x", "s")
    with pytest.raises(MissingMppError, match=r"plain\.tif .* add mpp to the source 'mine'"):
        open_pool(replace(config, sources=(source,)), tmp_path)


def test_a_broken_picture_is_named(config: PretrainConfig, tmp_path: Path) -> None:
    (tmp_path / "tiles").mkdir()
    (tmp_path / "tiles/bad.png").write_bytes(b"no png")
    with pytest.raises(TrainingError, match=r"bad\.png cannot be read as a picture"):
        draws(replace(config, sources=(PICTURES,)), tmp_path, 1)
