"""Is tumour found from the labels of bags alone? On the semi-synthetic bags of `tissue_bags.py`.

    python benchmarks/mil/tissue_bags.py --data DATA -o tissue
    python benchmarks/mil/tissue.py tissue             # goes on where it was; prints the tables

Groups of abutting pictures never share a side: the folds are of groups, so are the two groups
that are kept in each to choose epoch and threshold, and intervals are by bootstrap over groups.
Bags are ranked within their group; instances in positive bags only, per bag, averaged per group,
then over groups: co-location of attention with lesions, not the model's reason. Beside it: mean
haematoxylin, a classifier of single patches that knows their labels, chance, and the same model
trained on permuted labels of bags.

Faithfulness needs no labels: patches are removed in steps of 10 %, the most relevant first, and
the least relevant first; the area between the two curves of the logit (tumour less normal) is 0
for a random order.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from tissue_bags import BAG_PATCHES, SHARES, Patches, draw_bag, load_patches, usable

from napari_histomil.files import whole_file
from napari_histomil.manifest import ClassSpec
from napari_histomil.nets.mil import MILModel
from napari_histomil.review.intervals import draws, interval
from napari_histomil.review.ranking import auroc, average_precision
from napari_histomil.training.mil.bags import BagData
from napari_histomil.training.mil.config import (
    Aggregator,
    Bags,
    MilConfig,
    MilSchedule,
    MilValidation,
)
from napari_histomil.training.mil.fit import fit
from napari_histomil.training.mil.table import Case
from napari_histomil.training.splits import split_groups

FOLDS, VALIDATION_GROUPS, BAGS_EACH = 5, 2, 8
SMALL: Mapping[str, Any] = {"hidden": [64], "dropout": 0.25}
AGGREGATORS: Mapping[str, Mapping[str, Any]] = {
    "mean": SMALL,
    "max": SMALL,
    "gated-attention": {**SMALL, "attention": 32},
    "clam-sb": {**SMALL, "attention": 32},
    "dsmil": {},
}
PERMUTED = "gated-attention, permuted labels"
CONTROLS = ("mean haematoxylin", "tile classifier (knows patches' labels)", "random")
REMOVED = np.linspace(0, 0.9, 10)
BAG_FIGURES = ("bag AUROC",)
INSTANCE_FIGURES = ("AUROC", "AP", "Dice", "oracle Dice")

Floats = NDArray[np.float64]


def main() -> None:
    """Measure what is missing, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    folder: Path = parser.parse_args().folder
    path = folder / "results.json"
    done = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    patches = load_patches(folder)
    parts = split_groups(usable(patches), FOLDS)
    for share in SHARES:
        data, truth = make_bags(patches, share)
        for number, test in enumerate(parts):
            for name in (*AGGREGATORS, PERMUTED, *CONTROLS):
                key = f"{name}/{share}/{number}"
                if key not in done:
                    done[key] = of_fold(patches, data, truth, name, sorted(test), number)
                    with whole_file(path) as part:
                        part.write_text(json.dumps(done) + "\n", encoding="utf-8")
    print(tables(done))


def make_bags(patches: Patches, share: float) -> tuple[BagData, dict[str, NDArray[np.int64]]]:
    """Return bags of every group, and the patches that each consists of."""
    rng = np.random.default_rng(round(1000 * share))
    arrays, rows, cases = {}, {}, []
    for group in usable(patches):
        for number in range(2 * BAGS_EACH):
            positive = number % 2
            tumor = round(share * BAG_PATCHES) if positive else 0
            name = f"{group}-{number}"
            rows[name] = draw_bag(patches, group, tumor, BAG_PATCHES, rng)
            arrays[name] = (torch.from_numpy(patches.features[rows[name]]),)
            cases.append(Case(name, positive, group))
    return BagData(tuple(cases), patches.features.shape[1], 1, arrays), rows


def of_fold(
    patches: Patches,
    data: BagData,
    rows: Mapping[str, NDArray[np.int64]],
    name: str,
    test: Sequence[str],
    number: int,
) -> dict[str, dict[str, float]]:
    """Return the figures of every test group by a model that has not seen the fold's groups."""
    rng = np.random.default_rng(number)
    rest = sorted({c.patient for c in data.cases} - set(test))
    held = set(rng.choice(rest, VALIDATION_GROUPS, replace=False).tolist())
    side = {
        "train": [c for c in data.cases if c.patient in rest and c.patient not in held],
        "validation": [c for c in data.cases if c.patient in held],
        "test": [c for c in data.cases if c.patient in test],
    }
    net = None
    if name in CONTROLS:
        seen = np.isin(patches.group, [c.patient for c in side["train"]])
        scores = control(patches, name, seen, rng)
        looked = {c.name: scores[rows[c.name]] for c in data.cases}
    else:
        train = side["train"]
        if name == PERMUTED:
            labels = rng.permutation([c.label for c in train])
            train = [replace(c, label=int(x)) for c, x in zip(train, labels, strict=True)]
        data = data.scaled(train)
        chosen = [] if name == PERMUTED else side["validation"]
        net = finished(fit(configured(name), data, train, chosen, seed=number))
        looked = {c.name: shown(net, data, c) for c in (*side["validation"], *side["test"])}
    threshold = best_threshold([(looked[c.name], patches.tumor[rows[c.name]])
                                for c in side["validation"] if c.label])  # fmt: skip
    return {
        group: figures(
            net,
            data,
            [c for c in side["test"] if c.patient == group],
            looked,
            {n: patches.tumor[r] for n, r in rows.items()},
            threshold,
        )
        for group in test
    }


def figures(
    net: MILModel | None,
    data: BagData,
    cases: Sequence[Case],
    looked: Mapping[str, Floats],
    tumor: Mapping[str, NDArray[np.bool_]],
    threshold: float,
) -> dict[str, float]:
    """Return the figures of a group."""
    positive = [c for c in cases if c.label]
    pairs = [(looked[c.name], tumor[c.name]) for c in positive]
    found = {
        "AUROC": np.mean([auroc(t, s) for s, t in pairs]),
        "AP": np.mean([average_precision(t, s) for s, t in pairs]),
        "Dice": np.mean([dice(t, s >= threshold) for s, t in pairs]),
        "oracle Dice": np.mean([best_dice(t, s) for s, t in pairs]),
    }
    if net is not None:
        truth = np.array([c.label == 1 for c in cases])
        found["bag AUROC"] = auroc(truth, np.array([odds(net, data.read(c)) for c in cases]))
        found["faithfulness"] = np.mean([faithfulness(net, data, c, looked[c.name])
                                         for c in positive])  # fmt: skip
    return {name: float(value) for name, value in found.items()}


def configured(name: str) -> MilConfig:
    """Return how an aggregator is trained."""
    own = "gated-attention" if name == PERMUTED else name
    return MilConfig(
        task="mil", name="tissue", description="", licence="",
        classes=(ClassSpec("normal", (0, 0, 0)), ClassSpec("tumor", (200, 0, 0))),
        positive_class="tumor", bags=Bags(""), aggregator=Aggregator(own, dict(AGGREGATORS[own])),
        schedule=MilSchedule(
            epochs=8, learning_rate=5e-4, weight_decay=1e-2, instance_dropout=0.2
        ),
        validation=MilValidation(metric="auroc"),
    )  # fmt: skip


def control(
    patches: Patches, name: str, seen: NDArray[np.bool_], rng: np.random.Generator
) -> Floats:
    """Return the scores of all patches by what is no MIL model."""
    if name == CONTROLS[0]:
        more = (
            patches.stain[seen & patches.tumor].mean()
            > patches.stain[seen & ~patches.tumor].mean()
        )
        return patches.stain if more else -patches.stain
    if name == CONTROLS[1]:
        classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000, C=0.1))
        classifier.fit(patches.features[seen], patches.tumor[seen])
        return np.asarray(classifier.decision_function(patches.features), float)
    return rng.random(len(patches.tumor))


@torch.inference_mode()
def shown(net: MILModel, data: BagData, case: Case) -> Floats:
    """Return what is shown of a bag's patches: attention x N; of mean and max their scores."""
    output = net(data.read(case))
    last = output.maps[-1]
    if last.kind in ("uniform", "argmax"):
        return (output.instance_scores[:, 1] - output.instance_scores[:, 0]).double().numpy()
    return (last.value[-1] * last.value.shape[1]).double().numpy()


@torch.inference_mode()
def odds(net: MILModel, bag: torch.Tensor) -> float:
    """Return the logit of tumour less that of normal."""
    logits = net(bag).logits
    return float(logits[1] - logits[0])


def faithfulness(net: MILModel, data: BagData, case: Case, relevance: Floats) -> float:
    """Return the mean distance of the curves: least relevant first less most relevant first."""
    bag = data.read(case)
    order = np.argsort(-relevance, kind="stable")
    gaps = []
    for removed in REMOVED:
        count = round(removed * len(order))
        most, least = order[count:], order[: len(order) - count]
        gaps.append(odds(net, bag[np.sort(least)]) - odds(net, bag[np.sort(most)]))
    return float(np.mean(gaps))


def dice(truth: NDArray[np.bool_], called: NDArray[np.bool_]) -> float:
    """Return 2 |A and B| / (|A| + |B|)."""
    return float(2 * (truth & called).sum() / max(truth.sum() + called.sum(), 1))


def best_dice(truth: NDArray[np.bool_], score: Floats) -> float:
    """Return the Dice at the threshold that nobody knows."""
    return max(dice(truth, score >= t) for t in np.unique(score))


def best_threshold(pairs: Sequence[tuple[Floats, NDArray[np.bool_]]]) -> float:
    """Return the threshold of the best mean Dice over bags."""
    tried = np.quantile(np.concatenate([s for s, _ in pairs]), np.linspace(0.3, 0.999, 60))
    means = [np.mean([dice(t, s >= cut) for s, t in pairs]) for cut in tried]
    return float(tried[int(np.argmax(means))])


def finished(steps: Iterator[object]) -> MILModel:
    """Return what a fit ends in."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


# --- tables -------------------------------------------------------------------------------------


def tables(done: Mapping[str, Mapping[str, Mapping[str, float]]]) -> str:
    """Return the tables in Markdown: mean over groups and 95 % interval."""
    lines: list[str] = []
    for figure in (*BAG_FIGURES, *INSTANCE_FIGURES, "faithfulness"):
        head = " | ".join(f"{100 * s:g} % tumour" for s in SHARES)
        lines += [f"| {figure} | {head} |", "|---|" + "---|" * len(SHARES)]
        for name in (*AGGREGATORS, PERMUTED, *CONTROLS):
            cells = [cell(done, name, share, figure) for share in SHARES]
            if any(cells):
                lines.append(f"| {name} | " + " | ".join(cells) + " |")
        lines.append("")
    return "\n".join(lines)


def cell(
    done: Mapping[str, Mapping[str, Mapping[str, float]]], name: str, share: float, figure: str
) -> str:
    """Return mean and interval over groups."""
    values = np.array(
        [
            group[figure]
            for number in range(FOLDS)
            for group in done.get(f"{name}/{share}/{number}", {}).values()
            if figure in group
        ]
    )
    if not len(values):
        return ""
    times = draws(len(values), 2000)
    low, high = interval(times @ values / len(values))
    return f"{values.mean():.2f} ({low:.2f} to {high:.2f})"


if __name__ == "__main__":
    main()
