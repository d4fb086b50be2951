"""The MIL models that come with the program are what their cards say."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from napari_histomil.manifest import load_manifest, verify_model
from napari_histomil.nets.load import load_module
from napari_histomil.nets.mil import load_mil
from napari_histomil.slides.resample import mean_of_blocks
from napari_histomil.training.config import read_config
from napari_histomil.training.data import read_tiles
from napari_histomil.training.mil.card import card
from napari_histomil.training.mil.config import read_mil_config

NAMES = ("metastasis-mil-small", "metastasis-zoommil-small")


@pytest.mark.parametrize("name", NAMES)
def test_what_the_folder_says_of_itself_is_so(repository: Path, name: str) -> None:
    folder = repository / "models" / name
    manifest, config = load_manifest(folder), read_mil_config(folder / "train.toml")
    verify_model(manifest)
    assert sum(f.stat().st_size for f in folder.rglob("*")) <= 15e6
    assert manifest.mil is not None
    assert manifest.mil.grids == config.grids
    encoder = load_manifest(repository / "models" / manifest.mil.encoder.name)
    assert manifest.mil.encoder.sha256 == encoder.sha256
    assert (encoder.grid.tile_px, encoder.embedding_dim) == (
        manifest.grid.tile_px,
        manifest.mil.encoder.dim,
    )
    model = json.loads((folder / "model.json").read_text(encoding="utf-8"))
    assert (folder / "README.md").read_text(encoding="utf-8") == card(config, model)
    assert len(manifest.mil.members) == config.validation.folds
    for member in manifest.mil.members:
        own = load_manifest(folder / member.folder)
        assert own.sha256 == member.sha256
        load_mil(own)


@pytest.mark.parametrize("name", NAMES)
def test_tumour_raises_the_answer(repository: Path, data_dir: Path, name: str) -> None:
    manifest = load_manifest(repository / "models" / name)
    assert manifest.mil is not None
    encoder = load_manifest(repository / "models" / manifest.mil.encoder.name)
    source = read_config(repository / "models" / "metastasis-patch-small" / "train.toml")
    picture = next(f for f in read_tiles(source.sources[0], data_dir, 1.0) if f.name == "10687")
    nested = len(manifest.mil.grids) == 2
    side = 128 if nested else 64
    cuts: dict[int, list[np.ndarray]] = {0: [], 1: []}
    for y in range(0, picture.image.shape[0] - side + 1, 48):
        for x in range(0, picture.image.shape[1] - side + 1, 48):
            labels = picture.labels[y : y + side, x : x + side]
            if labels.min() == labels.max() <= 1:
                cuts[int(labels[0, 0])].append(picture.image[y : y + side, x : x + side])
    count = min(len(cuts[0]), 12)
    assert count >= 5
    assert len(cuts[1]) >= 5
    bags = {"without": cuts[0][:count], "with": [*cuts[0][: count - 3], *cuts[1][-3:]]}

    net, norm = load_module(encoder), encoder.normalisation
    assert norm is not None

    def embed(tiles: list[np.ndarray]) -> torch.Tensor:
        batch = torch.from_numpy(np.stack(tiles)).float() / 255
        scaled = (batch - torch.tensor(norm.mean)) / torch.tensor(norm.std)
        features: torch.Tensor = net(scaled.permute(0, 3, 1, 2))
        return features

    mil, odds = load_mil(manifest), {}
    with torch.inference_mode():
        for kind, tiles in bags.items():
            if nested:
                quarters = [t[y : y + 64, x : x + 64] for t in tiles for y in (0, 64)
                            for x in (0, 64)]  # fmt: skip
                bag = [embed([mean_of_blocks(t, 2) for t in tiles]), embed(quarters)]
                logits = mil(bag).logits
            else:
                logits = mil(embed(tiles)).logits
            odds[kind] = float(logits[1] - logits[0])
    assert odds["with"] > odds["without"] + 0.5
