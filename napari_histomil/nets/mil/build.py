"""MIL models by name, and from a model folder."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from napari_histomil.errors import ModelError
from napari_histomil.manifest import ModelManifest, verify_model
from napari_histomil.nets.load import fill_module
from napari_histomil.nets.mil.abmil import AttentionMIL
from napari_histomil.nets.mil.clam import CLAM
from napari_histomil.nets.mil.dsmil import DSMIL
from napari_histomil.nets.mil.magnification_transformer import MagnificationTransformer
from napari_histomil.nets.mil.model import MILModel
from napari_histomil.nets.mil.pooling import MaxPooling, MeanPooling
from napari_histomil.nets.mil.torchmil_models import PREFIX, TorchmilModel
from napari_histomil.nets.mil.transmil import TransMIL
from napari_histomil.nets.mil.zoommil import ZoomMIL

MODELS: dict[str, Callable[..., MILModel]] = {
    "mean": MeanPooling,
    "max": MaxPooling,
    "attention": AttentionMIL,
    "gated-attention": partial(AttentionMIL, gated=True),
    "clam-sb": partial(CLAM, branches="sb"),
    "clam-mb": partial(CLAM, branches="mb"),
    "dsmil": DSMIL,
    "transmil": TransMIL,
    "zoommil": ZoomMIL,
    "magnification-transformer": MagnificationTransformer,
}
"""Name -> (dim, classes, **arguments) -> model."""


def build_mil(name: str, dim: int, classes: int, **arguments: Any) -> MILModel:
    """Build a MIL model with random weights.

    Parameters
    ----------
    name
        A key of `MODELS`; or ``torchmil/<class>``, see `torchmil_models.py`.
    dim
        Values of an instance's features.
    classes
        Number of classes.
    **arguments
        Of the model; all take `clinical`, the number of clinical variables.

    Raises
    ------
    ModelError
        If there is no such model, it does not take these arguments, or its package is missing.
    """
    if name.startswith(PREFIX):
        builder: Callable[..., MILModel] = partial(TorchmilModel, name.removeprefix(PREFIX))
    elif name in MODELS:
        builder = MODELS[name]
    else:
        raise ModelError(
            f"There is no MIL model {name!r}; there are {', '.join(MODELS)}, and {PREFIX}<class>."
        )
    try:
        return builder(dim, classes, **arguments)
    except (AssertionError, RuntimeError, TypeError, ValueError) as error:
        raise ModelError(
            f"The MIL model {name} cannot be built with {arguments}: {error}."
        ) from error


def load_mil(manifest: ModelManifest) -> MILModel:
    """Load a MIL model: float32, on the CPU, in evaluation mode, calibrated as the folder says.

    Raises
    ------
    ModelError
        If it is of another task, its weights are not those of the manifest or do not fit, or it
        takes another number of magnifications than the manifest has grids.
    """
    if manifest.mil is None:
        raise ModelError(
            f"{manifest.name} is no MIL model (its task is {manifest.task!r}): name one of the "
            f"task 'mil'."
        )
    verify_model(manifest)
    facts = manifest.mil
    arguments = dict(manifest.arguments)
    if facts.clinical:
        arguments["clinical"] = len(facts.clinical)
    name = manifest.architecture.partition("/")[2]
    model = build_mil(name, facts.encoder.dim, len(manifest.classes), **arguments)
    if model.magnifications != len(facts.grids):
        raise ModelError(
            f"{manifest.name}: {manifest.architecture} takes {model.magnifications} "
            f"magnifications, and mil.grids names {len(facts.grids)}: correct model.json."
        )
    fill_module(model, manifest)
    if manifest.activation != "none":
        model.activation = manifest.activation
    model.temperature = manifest.temperature
    return model
