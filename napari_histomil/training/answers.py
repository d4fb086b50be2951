"""Ask a net about a labelled field, whatever its task; put answers together.

What the answers are worth is worked out in `scores.py`.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from napari_histomil.errors import TrainingError
from napari_histomil.inference.backends import Net
from napari_histomil.training.asking import Described
from napari_histomil.training.cells import Answers, ask_cells, join_cells
from napari_histomil.training.fields import Field
from napari_histomil.training.pixels import PixelAnswers, ask_pixels, join_pixels

AnyAnswers = Answers | PixelAnswers


def ask(
    model: Described, net: nn.Module | Net, field: Field, *, objects: bool = False
) -> AnyAnswers:
    """Return a net's answers about a field: of its cells, or of its pixels if it segments.

    Parameters
    ----------
    model
        A training's configuration, or a finished model.
    net
        A module in evaluation mode, wherever it computes, or one made ready for a run.
    field
        What is asked about.
    objects
        Of a segmentation: whether connected pieces are matched too.
    """
    if model.task == "segment":
        return ask_pixels(model, net, field, objects=objects)
    return ask_cells(model, net, field)


def join(parts: Sequence[AnyAnswers]) -> AnyAnswers:
    """Put answers of one model (or of models alike) one after the other.

    Raises
    ------
    TrainingError
        If there are none.
    """
    pixels = [part for part in parts if isinstance(part, PixelAnswers)]
    if pixels:
        return join_pixels(pixels)
    if not parts:
        raise TrainingError("There are no answers to score.")
    return join_cells([part for part in parts if isinstance(part, Answers)])
