"""How good answers for bags are: figures with intervals over patients, and the temperature.

AUROC of several classes is the mean over the classes, each against the rest (Hand & Till 2001 name
the alternatives); of two classes it is the usual one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from napari_histomil.nets.mil import MILModel
from napari_histomil.review.calibration import cross_entropies, report, tempered
from napari_histomil.review.calibration import fit_temperature as fit_logits
from napari_histomil.review.intervals import draws, interval
from napari_histomil.review.metrics import Confusion, accuracy, balanced_accuracy, count, kappa
from napari_histomil.review.ranking import MAX_VALUES, auroc, auroc_of
from napari_histomil.training.figures import rounded, rounded_all
from napari_histomil.training.mil.bags import BagData
from napari_histomil.training.mil.config import MilConfig
from napari_histomil.training.mil.table import Case

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class BagAnswers:
    """What nets say of bags that they have not learnt from."""

    cases: tuple[Case, ...]
    logits: Floats
    """[n, C]"""
    temperature: Floats
    """[n], that of the net that was asked."""
    activation: str

    @property
    def truth(self) -> NDArray[np.int64]:
        """Number of the class of each bag [n]."""
        return np.array([c.label for c in self.cases], np.int64)

    @property
    def patients(self) -> NDArray[np.str_]:
        """Who each bag is of [n]."""
        return np.array([c.patient for c in self.cases])

    @property
    def probabilities(self) -> Floats:
        """[n, C], after temperature and activation."""
        return tempered(self.logits, self.temperature, self.activation)


@torch.inference_mode()
def ask(
    data: BagData,
    net: MILModel,
    cases: Sequence[Case],
    *,
    temperature: float = 1.0,
    device: str = "cpu",
) -> BagAnswers:
    """Return a net's answers for the bags of some cases; it is on the device from then on."""
    net.to(device).eval()
    logits = [
        net(
            data.read(case, device),
            torch.tensor(case.clinical, device=device) if case.clinical else None,
        ).logits.cpu()
        for case in cases
    ]
    return BagAnswers(
        tuple(cases),
        torch.stack(logits).double().numpy(),
        np.full(len(logits), temperature),
        net.activation,
    )


def join(parts: Sequence[BagAnswers]) -> BagAnswers:
    """Return the answers of several nets, each for its own bags, as one."""
    return BagAnswers(
        tuple(c for p in parts for c in p.cases),
        np.concatenate([p.logits for p in parts]),
        np.concatenate([p.temperature for p in parts]),
        parts[0].activation,
    )


def look(
    config: MilConfig, data: BagData, net: MILModel, cases: Sequence[Case], device: str
) -> dict[str, float]:
    """Return loss, AUROC and kappa of a net on the validation; NaN for what it does not allow."""
    answers = ask(data, net, cases, device=device)
    agreed = kappa(_confusion(config, answers), _weights(config)).value
    return {
        "loss": float(np.mean(_entropies(answers, 1.0))),
        "auroc": area(answers.truth, answers.probabilities),
        "kappa": float("nan") if agreed is None else agreed,
    }


def area(truth: NDArray[np.int64], scores: Floats) -> float:
    """Return the AUROC, mean over the classes that are there and are not all; NaN without any."""
    areas = [auroc(truth == c, scores[:, c]) for c in range(scores.shape[1])]
    known = [a for a in areas if not np.isnan(a)]
    return float(np.mean(known)) if known else float("nan")


def temperature_of(answers: BagAnswers) -> float:
    """Return the temperature that makes the probabilities fit best (Guo 2017)."""
    shares = np.eye(answers.logits.shape[1])[answers.truth]
    return fit_logits(answers.logits, shares, answers.activation)


def score(config: MilConfig, runs: Sequence[BagAnswers], *, rounds: int) -> dict[str, Any]:
    """Return figures of answers, as JSON takes them.

    Parameters
    ----------
    config
        The training.
    runs
        The same bags, answered by the nets of one cross-validation or more. A figure's value is
        the mean over them.
    rounds
        Of the bootstrap over patients.

    Returns
    -------
    dict
        ``bags``, ``patients``; of ``auroc``, ``accuracy``, ``balanced_accuracy``, ``kappa`` each
        ``value``, ``interval`` (95 %, over patients) and, of several runs, ``spread`` (standard
        deviation over them); ``calibration``, the report of the first run.
    """
    each = [_figures(config, answers) for answers in runs]
    drawn = [_drawn(config, answers, rounds) for answers in runs]
    first = runs[0]
    found: dict[str, Any] = {
        "bags": len(first.cases),
        "patients": len(set(first.patients)),
        "classes": {
            name: int((first.truth == n).sum()) for n, name in enumerate(config.class_names)
        },
    }
    for name in each[0]:
        values = np.array([figures[name] for figures in each], float)
        low, high = interval(np.mean([d[name] for d in drawn], axis=0))
        found[name] = {
            "value": rounded(values.mean()),
            "interval": [rounded(low), rounded(high)],
        }
        if len(runs) > 1:
            found[name]["spread"] = rounded(values.std(ddof=1))
    shares = np.eye(len(config.classes))[first.truth]
    positive = config.positive
    binary = len(config.classes) == 2
    found["calibration"] = rounded_all(
        report(
            first.probabilities[:, positive] if binary else first.probabilities,
            shares[:, positive] if binary else shares,
            first.patients,
            rounds=rounds,
        )
    )
    return found


def _figures(config: MilConfig, answers: BagAnswers) -> dict[str, float]:
    confusion = _confusion(config, answers)
    values = {
        "auroc": area(answers.truth, answers.probabilities),
        "accuracy": accuracy(confusion).value,
        "balanced_accuracy": balanced_accuracy(confusion).value,
        "kappa": kappa(confusion, _weights(config)).value,
    }
    return {name: float("nan") if v is None else v for name, v in values.items()}


def _drawn(config: MilConfig, answers: BagAnswers, rounds: int) -> dict[str, Floats]:
    """Return the figures [rounds] of patients drawn with replacement."""
    names, index = np.unique(answers.patients, return_inverse=True)
    times = draws(len(names), rounds)[:, index]  # [rounds, n]
    truth, said = answers.truth, answers.probabilities.argmax(1)
    classes = len(config.classes)
    pairs = np.zeros((len(truth), classes * classes))
    pairs[np.arange(len(truth)), truth * classes + said] = 1
    tables = (times @ pairs).reshape(rounds, classes, classes)
    confusions = [Confusion(t.astype(np.int64), tuple(config.class_names)) for t in tables]

    def of(figure: Any) -> Floats:
        values = [figure(confusion).value for confusion in confusions]
        return np.array([np.nan if v is None else v for v in values], float)

    areas = []
    for c in range(classes):
        _, place = np.unique(answers.probabilities[:, c], return_inverse=True)
        columns = np.eye(place.max(initial=0) + 1)[place]  # equal scores share a column
        yes, no = columns * (truth == c)[:, None], columns * (truth != c)[:, None]
        some = np.array_split(times, math.ceil(rounds * columns.shape[1] / MAX_VALUES) or 1)
        areas.append(np.concatenate([auroc_of(part @ yes, part @ no) for part in some]))
    return {
        "auroc": np.mean(areas, axis=0),
        "accuracy": of(accuracy),
        "balanced_accuracy": of(balanced_accuracy),
        "kappa": of(lambda c: kappa(c, _weights(config))),
    }


def _confusion(config: MilConfig, answers: BagAnswers) -> Confusion:
    said = answers.logits.argmax(1)
    counts = count(answers.truth, said, range(len(config.classes)))
    return Confusion(counts, tuple(config.class_names), ("the table", "the model"))


def _weights(config: MilConfig) -> Any:
    return "quadratic" if config.validation.ordered else "none"


def _entropies(answers: BagAnswers, temperature: float) -> Floats:
    shares = np.eye(answers.logits.shape[1])[answers.truth]
    return cross_entropies(answers.logits / temperature, shares, answers.activation)
