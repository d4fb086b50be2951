"""How good answers are, for both tasks: of groups left out, of data that is new to a model.

Everything here is a dictionary as `model.json` holds it and the card shows it. One block of
scores says what it is of (``what``), then ``unmixed`` and ``all`` of a classifier's cells or
``pixels`` of a segmentation, ``fields`` one by one, and ``calibration``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from torch import nn

from napari_histomil.errors import TrainingError
from napari_histomil.review import calibration
from napari_histomil.training.answers import AnyAnswers, ask, join
from napari_histomil.training.cells import Answers, Floats
from napari_histomil.training.config import TrainingConfig, Validation
from napari_histomil.training.data import make_synthetic
from napari_histomil.training.fields import Field
from napari_histomil.training.figures import (
    area,
    dice_each,
    rounded,
    rounded_all,
    summarise,
    summarise_pixels,
)
from napari_histomil.training.pixels import PixelAnswers
from napari_histomil.training.worst import Sheet, worst_sheet

FIT_ROWS = 2**18
"""At most so many answers decide a temperature, evenly taken from all."""


@dataclass(frozen=True, slots=True)
class Validated:
    """What the cross-validation gave."""

    scores: dict[str, Any]
    temperature: float
    errors: Sheet | None = None
    """The worst answers, where sources may be shown."""


def judge(
    config: TrainingConfig,
    runs: Sequence[AnyAnswers],
    parts: Sequence[frozenset[str]],
    fields: Sequence[Field] = (),
) -> Validated:
    """Score the answers for groups left out.

    The temperature is fitted on all of them; calibration is shown with temperatures that were
    fitted without the fold that is looked at.

    Parameters
    ----------
    config
        The training.
    runs
        Answers to all cells (or fields), one for each seed, in the same order.
    parts
        Groups of each fold.
    fields
        Those that were asked about; of sources that may be shown (`Source.examples`) the worst
        errors are drawn.
    """
    validation = config.validation
    together = cells_of(join(runs))
    warm = fit_temperature(together)
    each = np.full(len(together), warm)
    for part in parts:
        mine = np.isin(together.group, sorted(part))
        if mine.any() and not mine.all():
            each[mine] = fit_temperature(together.where(~mine))
    scores: dict[str, Any] = {
        "what": validation.what,
        "method": (
            f"{len(parts)}-fold cross-validation over groups, seeds {list(validation.seeds)}; one "
            f"net answers, nothing is averaged; answers of all folds are scored together; 95 % "
            f"intervals by bootstrap over groups ({validation.bootstraps} rounds)"
        ),
        **score(runs, rounds=validation.bootstraps, unmixed=validation.unmixed, temperature=each),
        "folds": [sorted(part) for part in parts],
    }
    sources = [source.name for source in config.sources if source.evaluate]
    if len(sources) > 1:
        scores["sources"] = {
            name: _of_source(runs, [f for f in fields if f.source == name], validation)
            for name in sources
        }
    scores["calibration"]["temperature"] = round(warm, 4)
    scores["calibration"]["fitted_on"] = "the other folds"
    if len(runs) > 1 and isinstance(runs[0], Answers):
        mean = np.mean([cells_of(run).logits for run in runs], axis=0)
        ensemble = replace(runs[0], logits=mean).unmixed(validation.unmixed)
        scores["unmixed_ensemble"] = summarise([ensemble], rounds=validation.bootstraps)
    shown = {source.name for source in config.sources if source.examples}
    errors = worst_sheet(config, runs[0], [f for f in fields if f.source in shown])
    return Validated(scores, warm, errors)


def _of_source(
    runs: Sequence[AnyAnswers], fields: Sequence[Field], validation: Validation
) -> dict[str, Any]:
    """Return the figures of the fields of one source."""
    keys = {(f.name, f.group) for f in fields}
    pairs = zip(runs[0].field.tolist(), runs[0].group.tolist(), strict=True)
    own = np.array([pair in keys for pair in pairs], bool)
    some = [run.where(own) for run in runs]
    pixels = [run for run in some if isinstance(run, PixelAnswers)]
    cells = [run for run in some if isinstance(run, Answers)]
    if pixels:
        return {"pixels": summarise_pixels(pixels, rounds=validation.bootstraps)}
    clear = [run.unmixed(validation.unmixed) for run in cells]
    return {
        "unmixed": summarise(clear, rounds=validation.bootstraps),
        "all": summarise(cells, rounds=validation.bootstraps),
    }


def score(
    runs: Sequence[AnyAnswers],
    *,
    rounds: int,
    unmixed: float = 0.05,
    temperature: float | Floats = 1.0,
) -> dict[str, Any]:
    """Return all that is said of answers to labelled fields.

    Parameters
    ----------
    runs
        Answers of one or more trainings to the same fields, in the same order.
    rounds
        Of the bootstrap over groups.
    unmixed
        A cell with at most this share of the positive class, or of the others, is unmixed.
    temperature
        Of the model; or one for each row of all runs joined. Figures of order and overlap do not
        depend on it, the calibration does.
    """
    first = runs[0]
    if isinstance(first, PixelAnswers):
        pixels = [run for run in runs if isinstance(run, PixelAnswers)]
        scores = {"pixels": summarise_pixels(pixels, rounds=rounds), "fields": dice_each(pixels)}
    else:
        cells = [run for run in runs if isinstance(run, Answers)]
        clear = [run.unmixed(unmixed) for run in cells]
        scores = {
            "unmixed": summarise(clear, rounds=rounds),
            "all": summarise(cells, rounds=rounds),
            "fields": {
                name: rounded(np.mean([area(run.where(run.field == name)) for run in clear]))
                for name in np.unique(first.field).tolist()
            },
        }
    together = cells_of(join(runs))
    scores["calibration"] = calibrate(together, temperature, rounds=min(rounds, 1000))
    return scores


def cells_of(answers: AnyAnswers) -> Answers:
    """Return the rows that have probabilities: all cells, or the sampled pixels."""
    return answers.sample if isinstance(answers, PixelAnswers) else answers


def calibrate(answers: Answers, temperature: float | Floats, *, rounds: int) -> dict[str, Any]:
    """Return what is said of the probabilities of a model after its temperature.

    With two classes (or one) it is the positive class's probability against its true share, with
    more that of the likeliest class; the Brier score of more than two classes sums over them.
    """
    if not len(answers):
        return {"cases": 0, "answers": 0, "reason": "nothing was labelled"}
    cold, warm = answers.probabilities(), answers.probabilities(temperature)
    outcome = answers.shares
    if answers.shares.shape[1] <= 2 or answers.activation == "sigmoid":
        own = answers.positive
        cold, warm, outcome = cold[:, own], warm[:, own], outcome[:, own]
    found: dict[str, Any] = {
        "temperature": rounded(np.mean(temperature)),
        "brier_before": calibration.brier(cold, outcome),
        **calibration.report(warm, outcome, answers.group, rounds=rounds),
    }
    plain: dict[str, Any] = rounded_all(found)
    return plain


def fit_temperature(answers: Answers) -> float:
    """Return the temperature that makes the probabilities fit the true shares best.

    Fitted on answers for groups that were left out; see `review.calibration.fit_temperature`.
    """
    some = slice(None, None, -(-len(answers) // FIT_ROWS) or 1)
    return calibration.fit_temperature(
        answers.logits[some], answers.shares[some], answers.activation
    )


def score_synthetic(config: TrainingConfig, net: nn.Module) -> dict[str, Any]:
    """Score a finished net on synthetic slides that it was not trained on; tissue only.

    Raises
    ------
    TrainingError
        If the training has no synthetic source to take the size from.
    """
    sources = [s for s in config.sources if s.kind == "synthetic"]
    if not sources:
        raise TrainingError(
            "validation.synthetic_seeds needs a source of kind 'synthetic' in the training."
        )
    validation = config.validation
    slides = [
        make_synthetic(
            seed,
            sources[0].name,
            config.grid.mpp,
            sources[0].size_px,
            only_tissue=True,
            labels=config.labels,
        )
        for seed in validation.synthetic_seeds
    ]
    answers = join([ask(config, net, slide) for slide in slides])
    scores = score([answers], rounds=validation.bootstraps, unmixed=validation.unmixed)
    del scores["calibration"], scores["fields"]  # of drawings
    return {
        "what": (
            "the finished net on procedural slides of seeds "
            f"{list(validation.synthetic_seeds)}, tissue only: drawings, not patients"
        ),
        **scores,
    }
