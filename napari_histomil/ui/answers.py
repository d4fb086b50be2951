"""What a MIL model answered, in words; pure text, no widgets."""

from __future__ import annotations

import html

from napari_histomil.results.mil import MilRun

_MOST_CLASSES = 8
"""Classes that are listed, the likeliest first."""

HOW = {"ensemble": "models", "dropout": "passes with dropout"}
"""What the members of an answer are."""


def probability(run: MilRun, index: int) -> str:
    """Return the probability of a class, with its spread where there is one."""
    text = f"{run.answer.probabilities[index]:.3f}"
    spread = run.answer.spread
    return text if spread is None else f"{text} ± {spread[index]:.3f}"


def headline(run: MilRun) -> str:
    """Return the likeliest class and its probability, in a few words."""
    index = run.answer.predicted
    return f"{run.class_names[index]} {probability(run, index)}"


def others(run: MilRun) -> str:
    """Return the probabilities of the other classes, the likeliest first."""
    order = [n for n in (-run.answer.probabilities).argsort() if n != run.answer.predicted]
    named = [f"{run.class_names[n]} {probability(run, n)}" for n in order[: _MOST_CLASSES - 1]]
    left = len(order) - len(named)
    return ", ".join([*named, *([f"{left} more"] if left else [])])


def how_sure(run: MilRun) -> str:
    """Return what the probabilities are: calibrated or not, and what the spread is of."""
    temperature = run.model.get("temperature")
    if temperature is None or temperature == 1:
        sentence = "Probabilities as the net gives them: not calibrated."
    else:
        sentence = f"Calibrated probabilities (temperature {temperature:.3g})."
    if run.answer.spread is not None:
        members = len(run.answer.members)
        sentence += (
            f" ± is the standard deviation of {members} {HOW.get(run.answer.how, 'answers')}."
        )
    if run.model.get("activation") == "sigmoid":
        sentence += " Each class is a question of its own."
    return sentence


def answer_html(run: MilRun) -> str:
    """Return the answer as rich text, the likeliest class large."""
    rest = others(run)
    return (
        f"<span style='font-size:large'><b>{html.escape(headline(run))}</b></span>"
        + (f"<br>{html.escape(rest)}" if rest else "")
        + f"<br>By {html.escape(str(run.model['name']))}. {html.escape(how_sure(run))}"
    )
