"""Are instances found? Bags of handwritten digits, "contains a 9", as Ilse's MNIST-bags.

    python benchmarks/mil/digits.py -o digits.json          # some minutes on a core
    python benchmarks/mil/digits.py --table digits.json     # the table of docs/mil.md

Digits are those of scikit-learn (8 x 8 px, as 64 values): 70 % for training bags, 30 % for test
bags, no digit on both sides. A bag has about 10 digits (normal, spread 2); half of the bags are
positive, which hold 1 to 3 nines, the others none. So the model is told which bags hold a nine,
and is asked which digits are nines: AUROC over the digits of each positive test bag, then
averaged; by its attention (of mean and max: by the instances' own scores), and by contributions
to the logit where these are exact. Mean over seeds, which draw digits, bags and first weights
anew, with their spread.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits

from napari_histomil.files import whole_file
from napari_histomil.manifest import ClassSpec
from napari_histomil.nets.mil import MILModel
from napari_histomil.review.ranking import auroc
from napari_histomil.training.mil.bags import BagData
from napari_histomil.training.mil.config import Aggregator, Bags, MilConfig, MilSchedule
from napari_histomil.training.mil.fit import fit
from napari_histomil.training.mil.table import Case

SIZES = (20, 50, 150)
SEEDS = (0, 1, 2)
TEST_BAGS = 200
STEPS = 1000
HIDDEN = {"hidden": [64], "dropout": 0.25}
AGGREGATORS = {
    "mean": HIDDEN,
    "max": HIDDEN,
    "attention": {**HIDDEN, "attention": 32},
    "gated-attention": {**HIDDEN, "attention": 32},
    "clam-sb": {**HIDDEN, "attention": 32, "instances": 2},
    "dsmil": {},
    "transmil": {"hidden": [64], "heads": 4},
}


def main() -> None:
    """Fit what is missing, or print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--output", type=Path, help="JSON of results; goes on with it")
    parser.add_argument("--table", type=Path, help="print the table of such a file")
    args = parser.parse_args()
    if args.table:
        print(table(json.loads(args.table.read_text(encoding="utf-8"))))
        return
    path: Path = args.output
    done = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    for seed in SEEDS:
        for size in SIZES:
            data, train, test, nines = make_bags(seed, size)
            for name in AGGREGATORS:
                key = f"{name}/{size}/{seed}"
                if key not in done:
                    done[key] = measure(data, train, test, nines, name, seed)
                    print(key, done[key], flush=True)
                    with whole_file(path) as part:
                        part.write_text(json.dumps(done, indent=1) + "\n", encoding="utf-8")
    print(table(done))


def make_bags(
    seed: int, size: int
) -> tuple[BagData, list[Case], list[Case], dict[str, np.ndarray]]:
    """Return bags, the cases of training and test, and which instances are nines."""
    digits = load_digits()
    rng = np.random.default_rng(seed)
    shuffled = rng.permutation(len(digits.target))
    cut = int(0.7 * len(shuffled))
    sides = {"train": shuffled[:cut], "test": shuffled[cut:]}
    arrays: dict[str, tuple[torch.Tensor]] = {}
    nines: dict[str, np.ndarray] = {}
    cases: dict[str, list[Case]] = {"train": [], "test": []}
    for side, count in (("train", size), ("test", TEST_BAGS)):
        own = sides[side]
        nine, other = own[digits.target[own] == 9], own[digits.target[own] != 9]
        for n in range(count):
            total = max(4, round(rng.normal(10, 2)))
            found = int(rng.integers(1, 4)) if n % 2 else 0
            rows = np.concatenate(
                [rng.choice(nine, found), rng.choice(other, total - found, replace=False)]
            )
            rows = rng.permutation(rows)
            name = f"{side}-{n}"
            arrays[name] = (torch.from_numpy(digits.data[rows] / 16).float(),)
            nines[name] = digits.target[rows] == 9
            cases[side].append(Case(name, n % 2, name))
    data = BagData((*cases["train"], *cases["test"]), 64, 1, arrays)
    return data, cases["train"], cases["test"], nines


def measure(
    data: BagData,
    train: list[Case],
    test: list[Case],
    nines: dict[str, np.ndarray],
    name: str,
    seed: int,
) -> dict[str, float | None]:
    """Return bag AUROC and instance AUROC of an aggregator that was fitted to some bags."""
    colors = (0, 0, 0)
    config = MilConfig(
        task="mil", name="digits", description="", licence="",
        classes=(ClassSpec("none", colors), ClassSpec("nine", colors)), positive_class="nine",
        bags=Bags(""), aggregator=Aggregator(name, AGGREGATORS[name]),
        schedule=MilSchedule(
            epochs=max(1, STEPS // len(train)), learning_rate=1e-3, weight_decay=1e-3
        ),
    )  # fmt: skip
    net = finished(fit(config, data, train, seed=seed))
    scores, found, exact = [], [], []
    with torch.inference_mode():
        for case in test:
            output = net(data.read(case))
            scores.append(float(output.logits[1] - output.logits[0]))
            if case.label:
                looked = instance_scores(net, output)
                found.append(auroc(nines[case.name], looked))
                if output.contributions is not None:
                    parts = (output.contributions[1] - output.contributions[0]).double().numpy()
                    exact.append(auroc(nines[case.name], parts))
    truth = np.array([c.label == 1 for c in test])
    return {
        "bag": auroc(truth, np.array(scores)),
        "instance": float(np.mean(found)),
        "contribution": float(np.mean(exact)) if exact else None,
    }


def instance_scores(net: MILModel, output: object) -> np.ndarray:
    """Return what is shown of the instances of the positive class [N]."""
    maps = output.maps  # type: ignore[attr-defined]
    if maps[-1].kind in ("uniform", "argmax"):
        scores = output.instance_scores  # type: ignore[attr-defined]
        return (scores[:, 1] - scores[:, 0]).double().numpy()
    return maps[-1].value[-1].double().numpy()


def finished(steps: Iterator[object]) -> MILModel:
    """Return what a fit ends in."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


def table(done: dict[str, dict[str, float | None]]) -> str:
    """Return the table in Markdown."""
    lines = [
        "| aggregator | " + " | ".join(f"{n} bags" for n in SIZES) + " |",
        "|---|" + "---|" * len(SIZES),
    ]
    words = {
        "bag": "bag AUROC",
        "instance": "instance AUROC by attention (mean, max: by scores)",
        "contribution": "instance AUROC by contributions",
    }
    for what, said in words.items():
        lines.append(f"| *{said}* |" + " |" * len(SIZES))
        for name in AGGREGATORS:
            cells = []
            for size in SIZES:
                own = [done[f"{name}/{size}/{s}"][what] for s in SEEDS]
                known = [v for v in own if v is not None]
                cells.append(
                    f"{np.mean(known):.3f} ± {np.std(known, ddof=1):.3f}" if known else "-"
                )
            lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
