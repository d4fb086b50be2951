"""Does a self-supervised start help? Paired over folds and seeds, on real tissue.

    python benchmarks/pretraining.py --data DATA --method simclr -o pretraining.json

The 20 pictures of lymph nodes that ``models/metastasis-patch-small/train.toml`` names are cut into
patches of 64 px that are all tumour or all normal. In each of 5 folds over groups of abutting
pictures and for each of 5 seeds, a small ResNet is pretrained on the training folds' pictures
without their labels, and two classifiers are trained with the same patches in the same order: one
from that start, one from random weights. A linear probe on both starts comes with it. Every net
answers only for pictures that it has never seen, neither labels nor pixels.

What is done is written after every fold and seed, and the same command goes on where it stopped.
``--table pretraining.json`` prints the table of ``docs/pretraining.md``.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from numpy.typing import NDArray
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn
from torch.nn import functional

from napari_histomil.files import whole_file
from napari_histomil.tiling import GridSpec
from napari_histomil.training.config import Scaling, Source, read_config
from napari_histomil.training.data import split_groups
from napari_histomil.training.selfsupervised.config import (
    Backbone,
    PretrainConfig,
    PretrainSchedule,
    TileSource,
    Views,
)
from napari_histomil.training.selfsupervised.loop import pretrain
from napari_histomil.training.selfsupervised.tiles import ArrayPiece, Pool
from napari_histomil.training.selfsupervised.views import vary

TRAINING = Path(__file__).parents[1] / "models" / "metastasis-patch-small" / "train.toml"
PATCH_PX = 64
MPP = 1.0
BACKBONE = Backbone("resnet10t", {"channels": [16, 32, 64, 128], "stem_width": 16})
SCALING = Scaling((0.70, 0.54, 0.70), (0.20, 0.22, 0.15))
MILD = Views(
    field=1.0, zoom=(1.0, 1.0), color_probability=0.5, stain=0.1, stain_shift=0.02,
    grey_probability=0.0, blur_probability=0.0,
)  # fmt: skip
"""What the classifier's patches are varied by: turned, mirrored, stained a little otherwise."""
FOLDS = 5
FEW = 0.05
"""Part of the training patches that keep their labels where labels are few."""


@dataclass(frozen=True, slots=True)
class Setting:
    """How much is computed."""

    method: str
    pretrain_steps: int
    pretrain_batch: int
    train_steps: int
    train_batch: int


@dataclass(frozen=True, slots=True, eq=False)
class Patches:
    """Patches of some pictures."""

    pixels: Tensor
    """uint8 [N, 3, P, P]"""
    tumor: NDArray[np.bool_]
    group: NDArray[np.str_]


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """A picture with its mask."""

    group: str
    image: NDArray[np.uint8]
    tumor: NDArray[np.bool_]


def read_pictures(data: Path) -> list[Picture]:
    """Read what the shipped model's training names."""
    source: Source = read_config(TRAINING).sources[0]
    group_of = {name: "+".join(group) for group in source.groups for name in group}
    pictures = []
    for path in sorted((data / source.path / "images").iterdir()):
        image = np.asarray(Image.open(path).convert("RGB"))
        mask = np.asarray(Image.open(path.parents[1] / "masks" / path.name).convert("L"))
        image = image[..., ::-1] if source.channel_order == "bgr" else image
        group = group_of.get(path.stem, path.stem)
        pictures.append(Picture(group, np.ascontiguousarray(image), mask > source.threshold))
    return pictures


def cut_patches(pictures: list[Picture], stride_px: int) -> Patches:
    """Cut all patches that are wholly tumour or wholly not."""
    pixels, tumor, group = [], [], []
    for picture in pictures:
        height, width = picture.tumor.shape
        for y in range(0, height - PATCH_PX + 1, stride_px):
            for x in range(0, width - PATCH_PX + 1, stride_px):
                inside = picture.tumor[y : y + PATCH_PX, x : x + PATCH_PX]
                if inside.all() or not inside.any():
                    pixels.append(picture.image[y : y + PATCH_PX, x : x + PATCH_PX])
                    tumor.append(bool(inside[0, 0]))
                    group.append(picture.group)
    stacked = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2)
    return Patches(stacked, np.array(tumor), np.array(group))


def start_weights(setting: Setting, pictures: list[Picture], seed: int) -> nn.Module:
    """Pretrain on pictures without their labels."""
    config = PretrainConfig(
        name="comparison",
        description="For a comparison.",
        licence="none",
        method=setting.method,  # type: ignore[arg-type]
        grid=GridSpec(MPP, PATCH_PX, PATCH_PX),
        normalisation=SCALING,
        backbone=BACKBONE,
        schedule=PretrainSchedule(
            setting.pretrain_steps, batch=setting.pretrain_batch, warm_up=20, bf16=False
        ),
        sources=(TileSource("pictures", "pictures", "CC0-1.0", "", mpp=MPP),),
        views=Views(local_views=2),
    )
    pool = Pool((tuple(ArrayPiece(p.image) for p in pictures),), (1.0,))
    steps = pretrain(config, pool, seed=seed)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            backbone: nn.Module = end.value.backbone
            return backbone


def random_weights(seed: int) -> nn.Module:
    """Return the same backbone as it begins."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net: nn.Module = timm.create_model(BACKBONE.name, num_classes=0, **BACKBONE.arguments)
    return net


def scaled(pixels: Tensor) -> Tensor:
    """Scale 0 to 1 as the net wants it."""
    mean, std = torch.tensor(SCALING.mean)[:, None, None], torch.tensor(SCALING.std)[:, None, None]
    return ((pixels - mean) / std).contiguous(memory_format=torch.channels_last)


def classify(
    setting: Setting, backbone: nn.Module, patches: Patches, asked: Tensor, seed: int
) -> NDArray[np.float64]:
    """Train backbone and a linear layer on patches; return log odds of tumour of those asked."""
    random = torch.Generator().manual_seed(seed)
    rng = np.random.default_rng(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        head = nn.Linear(backbone.num_features, 1)  # type: ignore[arg-type]
    net = nn.Sequential(copy.deepcopy(backbone), head).to(memory_format=torch.channels_last)
    optimiser = torch.optim.AdamW(net.parameters(), lr=1e-3, weight_decay=0.05)
    sides = np.flatnonzero(patches.tumor), np.flatnonzero(~patches.tumor)
    half = setting.train_batch // 2
    wanted = torch.cat([torch.ones(half), torch.zeros(half)])
    for step in range(setting.train_steps):
        warm = min(1.0, (step + 1) / 10)
        rate = 1e-3 * warm * 0.5 * (1 + math.cos(math.pi * step / setting.train_steps))
        for group in optimiser.param_groups:
            group["lr"] = rate
        rows = np.concatenate([rng.choice(side, half) for side in sides])
        views = vary(patches.pixels[rows].float() / 255, PATCH_PX, MILD, random)
        logits = net.train()(scaled(views))[:, 0]
        loss = functional.binary_cross_entropy_with_logits(logits, wanted)
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimiser.step()
    with torch.inference_mode():
        answers = [net.eval()(scaled(part.float() / 255))[:, 0] for part in asked.split(128)]
    return torch.cat(answers).double().numpy()


def probe(backbone: nn.Module, patches: Patches, asked: Tensor) -> NDArray[np.float64]:
    """Fit a logistic regression on the backbone's embeddings, which stay as they are."""

    def embed(pixels: Tensor) -> NDArray[np.float64]:
        with torch.inference_mode():
            parts = [backbone.eval()(scaled(p.float() / 255)) for p in pixels.split(128)]
        return torch.cat(parts).double().numpy()

    known = embed(patches.pixels)
    mean, std = known.mean(axis=0), known.std(axis=0) + 1e-8
    fitted = LogisticRegression(C=0.1, max_iter=2000).fit((known - mean) / std, patches.tumor)
    odds: NDArray[np.float64] = fitted.decision_function((embed(asked) - mean) / std)
    return odds


def fewer(patches: Patches, seed: int) -> Patches:
    """Keep `FEW` of the patches, of both classes alike."""
    rng = np.random.default_rng(seed)
    rows = np.concatenate(
        [
            rng.choice(side, max(round(FEW * len(side)), 2), replace=False)
            for side in (np.flatnonzero(patches.tumor), np.flatnonzero(~patches.tumor))
        ]
    )
    return Patches(patches.pixels[rows], patches.tumor[rows], patches.group[rows])


def compare(
    setting: Setting, pictures: list[Picture], held_out: frozenset[str], seed: int
) -> dict[str, list[float]]:
    """Return the answers of all arms for the held-out patches of one fold."""
    learnt = [p for p in pictures if p.group not in held_out]
    known = cut_patches(learnt, PATCH_PX // 2)
    asked = cut_patches([p for p in pictures if p.group in held_out], PATCH_PX).pixels
    few = fewer(known, seed)
    starts = {"random": random_weights(seed), "pretrained": start_weights(setting, learnt, seed)}
    answers = {}
    for name, backbone in starts.items():
        answers[f"{name}, all labels"] = classify(setting, backbone, known, asked, seed)
        answers[f"{name}, few labels"] = classify(setting, backbone, few, asked, seed)
        answers[f"{name}, linear probe"] = probe(backbone, known, asked)
    return {name: np.round(values, 5).tolist() for name, values in answers.items()}


def run(setting: Setting, data: Path, seeds: int, out: Path) -> None:
    """Do all folds and seeds that are not done."""
    pictures = read_pictures(data)
    parts = split_groups((p.group for p in pictures), FOLDS)
    results: dict[str, Any] = {"setting": {k: getattr(setting, k) for k in setting.__slots__}}
    if out.exists():
        results = json.loads(out.read_text(encoding="utf-8"))
    patches = [cut_patches([p for p in pictures if p.group in part], PATCH_PX) for part in parts]
    results["truth"] = [[bool(t) for t in part.tumor] for part in patches]
    results["groups"] = [part.group.tolist() for part in patches]
    runs = results.setdefault("runs", {})
    for seed in range(seeds):
        for number, part in enumerate(parts):
            key = f"{seed}/{number}"
            if key in runs:
                continue
            began = time.process_time()
            runs[key] = compare(setting, pictures, part, seed * 100 + number)
            with whole_file(out) as file:
                file.write_text(json.dumps(results), encoding="utf-8")
            print(f"seed {seed}, fold {number}: {time.process_time() - began:.0f} s", flush=True)


def table(results: dict[str, Any], rounds: int = 2000) -> str:
    """Return AUROC of all arms and paired differences, with bootstrap intervals over groups."""
    truth = np.concatenate([np.array(t) for t in results["truth"]])
    groups = np.concatenate([np.array(g) for g in results["groups"]])
    folds = len(results["truth"])
    seeds = sorted({int(key.split("/")[0]) for key in results["runs"]})
    seeds = [s for s in seeds if all(f"{s}/{f}" in results["runs"] for f in range(folds))]
    names = list(next(iter(results["runs"].values())))
    scores = {
        name: [
            np.concatenate([results["runs"][f"{s}/{f}"][name] for f in range(folds)])
            for s in seeds
        ]
        for name in names
    }
    rows = [np.flatnonzero(groups == name) for name in np.unique(groups)]
    rng = np.random.default_rng(0)
    drawn = [
        np.concatenate([rows[i] for i in rng.integers(len(rows), size=len(rows))])
        for _ in range(rounds)
    ]
    whole = np.arange(len(truth))

    def auroc(name: str, keep: NDArray[np.int64]) -> float:
        return float(np.mean([roc_auc_score(truth[keep], s[keep]) for s in scores[name]]))

    about = f"{len(truth)} patches ({int(truth.sum())} tumour), {len(rows)} groups, {folds} folds"
    lines = [
        f"{about}, {len(seeds)} seeds.",
        "",
        "| | random weights | pretrained | difference (95 %) | seeds in which it helps |",
        "| --- | --- | --- | --- | --- |",
    ]
    for kind in ("all labels", "few labels", "linear probe"):
        first, second = f"random, {kind}", f"pretrained, {kind}"
        differences = [auroc(second, keep) - auroc(first, keep) for keep in drawn]
        low, high = np.percentile(differences, [2.5, 97.5])
        mean = auroc(second, whole) - auroc(first, whole)
        better = sum(
            roc_auc_score(truth, b) > roc_auc_score(truth, a)
            for a, b in zip(scores[first], scores[second], strict=True)
        )
        lines.append(
            f"| {kind} | {auroc(first, whole):.3f} | {auroc(second, whole):.3f} | "
            f"{mean:+.3f} ({low:+.3f} to {high:+.3f}) | {better} of {len(seeds)} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Run the comparison, or print its table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder that holds seg-camelyon-tumor")
    parser.add_argument("--method", default="simclr")
    parser.add_argument("--pretrain-steps", type=int, default=150)
    parser.add_argument("--pretrain-batch", type=int, default=32)
    parser.add_argument("--train-steps", type=int, default=60)
    parser.add_argument("--train-batch", type=int, default=32)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("-o", "--output", type=Path, default=Path("pretraining.json"))
    parser.add_argument("--table", type=Path, help="print the table of a finished comparison")
    args = parser.parse_args()
    if args.table is None:
        torch.set_num_threads(1)
        setting = Setting(
            args.method,
            args.pretrain_steps,
            args.pretrain_batch,
            args.train_steps,
            args.train_batch,
        )
        run(setting, args.data, args.seeds, args.output)
    print(table(json.loads((args.table or args.output).read_text(encoding="utf-8"))))


if __name__ == "__main__":
    main()
