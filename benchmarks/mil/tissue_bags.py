"""Semi-synthetic bags of lymph nodes: patches of pictures, embedded, put together to bags.

    python benchmarks/mil/tissue_bags.py --data DATA -o tissue

writes ``patches.npz``, what ``tissue.py`` measures with, and the bags that the models
``metastasis-mil-small`` (``bags.csv``) and ``metastasis-zoommil-small`` (``nested.csv``) are
trained on by ``histomil train``.

The 20 pictures that ``models/metastasis-patch-small/train.toml`` names are cut into patches of
64 px at 1 µm/px that are all normal or all tumour, and embedded by an encoder that has not seen
them (``tissue-encoder-small``). No picture is free of tumour, so bags are put together: a negative
one of normal patches, a positive one the same plus a share of tumour patches, all of one group of
abutting pictures; a group is a patient. This is to test the method, not the clinic.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import torch
from numpy.typing import NDArray

from napari_histomil.manifest import ModelManifest, load_manifest
from napari_histomil.nets.load import load_module
from napari_histomil.slides.resample import mean_of_blocks
from napari_histomil.stain import optical_density
from napari_histomil.training.config import read_config
from napari_histomil.training.data import read_tiles

MODELS = Path(__file__).parents[2] / "models"
PATCH_PX, STEP_PX = 64, 32
BAG_PATCHES = 100
SHARES = (0.01, 0.05, 0.20)
NESTED_BLOCKS = 25
NESTED_TUMOR = (1, 3, 5)
"""Tumour blocks among these."""
BAGS_EACH = 6
"""Positive bags of a group for each share, and as many negative ones in all."""
HAEMATOXYLIN = (0.65, 0.70, 0.29)
"""Optical density of haematoxylin (Ruifrok & Johnston 2001): what a stain alone tells."""


@dataclass(frozen=True, slots=True, eq=False)
class Patches:
    """Pure patches; or pure blocks of four patches, seen at half the magnification."""

    features: NDArray[np.float32]
    """[N, D]."""
    tumor: NDArray[np.bool_]
    group: NDArray[np.str_]
    stain: NDArray[np.float64]
    """Mean haematoxylin."""
    children: NDArray[np.float32] | None = None
    """[N, 4, D] of a block."""

    def pool(self, group: str, *, tumor: bool) -> NDArray[np.int64]:
        """Return the rows of a group's patches that are tumour, or are not."""
        return np.flatnonzero((self.group == group) & (self.tumor == tumor))


def main() -> None:
    """Write all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="holds seg-camelyon-tumor")
    parser.add_argument("--encoder", type=Path, default=MODELS / "tissue-encoder-small")
    parser.add_argument("-o", "--output", type=Path, required=True)
    args = parser.parse_args()
    encoder = load_manifest(args.encoder)
    patches = read_patches(args.data, encoder)
    blocks = read_patches(args.data, encoder, nested=True)
    args.output.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(
        args.output / "patches.npz",
        features=patches.features,
        tumor=patches.tumor,
        group=patches.group,
        stain=patches.stain,
    )
    write_bags(args.output, patches)
    write_bags(args.output, blocks, nested=True)
    for name, found in (("patches", patches), ("blocks", blocks)):
        print(f"{found.tumor.sum()} {name} of tumour, {(~found.tumor).sum()} without")


def load_patches(folder: Path) -> Patches:
    """Read ``patches.npz``."""
    with np.load(folder / "patches.npz") as stored:
        return Patches(*(stored[n] for n in ("features", "tumor", "group", "stain")))


def read_patches(data: Path, encoder: ModelManifest, *, nested: bool = False) -> Patches:
    """Cut and embed the pure patches of all pictures, or pure blocks of four patches."""
    config = read_config(MODELS / "metastasis-patch-small" / "train.toml")
    side = 2 * PATCH_PX if nested else PATCH_PX
    cuts, tumor, group = [], [], []
    for field in read_tiles(config.sources[0], data, 1.0):
        for y in range(0, field.image.shape[0] - side + 1, STEP_PX):
            for x in range(0, field.image.shape[1] - side + 1, STEP_PX):
                labels = field.labels[y : y + side, x : x + side]
                if labels.min() == labels.max() <= 1:
                    cuts.append(field.image[y : y + side, x : x + side])
                    tumor.append(bool(labels[0, 0]))
                    group.append(field.group)
    lowest = [mean_of_blocks(cut, 2) for cut in cuts] if nested else cuts
    children = None
    if nested:
        quarters = [
            cut[y : y + PATCH_PX, x : x + PATCH_PX]
            for cut in cuts
            for y in (0, PATCH_PX)
            for x in (0, PATCH_PX)
        ]
        children = embed(encoder, quarters).reshape(len(cuts), 4, -1)
    direction = np.array(HAEMATOXYLIN) / np.linalg.norm(HAEMATOXYLIN)
    stain = np.array([float((optical_density(cut) @ direction).mean()) for cut in cuts])
    return Patches(embed(encoder, lowest), np.array(tumor), np.array(group), stain, children)


@torch.inference_mode()
def embed(encoder: ModelManifest, images: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
    """Return the features [N, D] of RGB tiles."""
    net, scaling = load_module(encoder), encoder.normalisation
    assert scaling is not None
    found = []
    for start in range(0, len(images), 64):
        batch = torch.from_numpy(np.stack(images[start : start + 64])).float() / 255
        batch = (batch - torch.tensor(scaling.mean)) / torch.tensor(scaling.std)
        found.append(net(batch.permute(0, 3, 1, 2)).numpy())
    return np.concatenate(found)


def draw_bag(
    patches: Patches, group: str, tumor: int, total: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Return the rows of a bag, in random order.

    None is drawn twice, unless the group has too few for it.
    """
    parts = []
    for count, kind in ((total - tumor, False), (tumor, True)):
        pool = patches.pool(group, tumor=kind)
        parts.append(rng.choice(pool, count, replace=len(pool) < count))
    return rng.permutation(np.concatenate(parts))


def usable(patches: Patches) -> list[str]:
    """Return the groups that have both kinds of patches."""
    return [
        str(g)
        for g in np.unique(patches.group)
        if all(len(patches.pool(g, tumor=kind)) for kind in (False, True))
    ]


def write_bags(folder: Path, patches: Patches, *, nested: bool = False) -> None:
    """Write a table and its bags, an HDF5 file a magnification."""
    table_name, kind = ("nested.csv", "nested") if nested else ("bags.csv", "bags")
    total = NESTED_BLOCKS if nested else BAG_PATCHES
    counts = NESTED_TUMOR if nested else tuple(round(s * total) for s in SHARES)
    (folder / kind).mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    with (folder / table_name).open("w", encoding="utf-8", newline="") as stream:
        table = csv.writer(stream, lineterminator="\n")
        table.writerow(["bag", "label", "patient", "tumor_share"])
        for group in usable(patches):
            for number in range(2 * BAGS_EACH * len(counts)):
                tumor = counts[number // 2 % len(counts)] if number % 2 else 0
                rows = draw_bag(patches, group, tumor, total, rng)
                name = f"{kind}/{group.replace('/', '-').replace(' ', '-')}-{number}"
                levels = [patches.features[rows]]
                if patches.children is not None:
                    levels.append(patches.children[rows].reshape(-1, levels[0].shape[1]))
                files = [f"{name}{f'-{n}' if nested else ''}.h5" for n in range(len(levels))]
                for file_name, features in zip(files, levels, strict=True):
                    with h5py.File(folder / file_name, "w") as file:
                        file["features"] = features.astype(np.float16)
                label = "tumor" if tumor else "normal"
                table.writerow([";".join(files), label, group, f"{tumor / total:g}"])


if __name__ == "__main__":
    main()
