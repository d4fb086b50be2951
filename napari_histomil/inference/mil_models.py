"""MIL models ready to be asked: of folders or checkpoints, alone or as members of an ensemble."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from napari_histomil.errors import ModelError
from napari_histomil.inference.job import Job
from napari_histomil.inference.opening import find_model_of
from napari_histomil.manifest import ClassSpec, ModelManifest, find_model, list_models
from napari_histomil.manifest.mil import MilFacts
from napari_histomil.manifest.model import class_specs
from napari_histomil.nets.encoders import as_encoder
from napari_histomil.nets.mil import MILModel, load_checkpoint, load_mil
from napari_histomil.results.bag import EncoderFacts


@dataclass(frozen=True, slots=True, eq=False)
class Asked:
    """Models that are asked about one bag."""

    nets: tuple[MILModel, ...] = field(repr=False)
    """In evaluation mode, on one device; the first is the model itself."""
    classes: tuple[ClassSpec, ...]
    facts: MilFacts | None
    """None of a checkpoint, which says nothing of encoder and grids."""
    model: Mapping[str, Any]
    """What a run keeps of them, as plain values."""
    sha256: tuple[str, ...]

    @property
    def encoder(self) -> EncoderFacts | None:
        """Whose features they were trained on."""
        if self.facts is None:
            return None
        return EncoderFacts(self.facts.encoder.name, self.facts.encoder.sha256 or "")

    @property
    def nuclear_um(self) -> float | None:
        """How large nuclei are on the slides that the model was trained on, if it says so."""
        value = self.facts.reference.get("nuclear_um") if self.facts is not None else None
        return float(value) if isinstance(value, (int, float)) and value > 0 else None

    def to(self, device: torch.device) -> Asked:
        """Move the nets to a device."""
        for net in self.nets:
            net.to(device)
        return self


def asked_models(models: Sequence[ModelManifest]) -> Asked:
    """Load a model, or the members of an ensemble.

    Raises
    ------
    ModelError
        If one cannot be loaded, or they do not answer the same question.
    """
    first = models[0]
    for model in models[1:]:
        same = (
            ("classes", model.class_names == first.class_names),
            ("encoder", model.mil is not None and first.mil is not None
             and model.mil.encoder == first.mil.encoder),
            ("grids", model.mil is not None and first.mil is not None
             and model.mil.grids == first.mil.grids),
        )  # fmt: skip
        for what, is_same in same:
            if not is_same:
                raise ModelError(
                    f"{first.name} and {model.name} are no ensemble: their {what} differ."
                )
    nets = tuple(load_mil(model) for model in models)
    words: dict[str, Any] = {
        "name": first.name,
        "path": str(first.path.absolute()),
        "sha256": first.sha256,
        "weights_sha256": first.weights_sha256,
        "kind": first.kind,
        "description": first.description,
        "architecture": first.architecture,
        "activation": first.activation,
        "temperature": first.temperature,
        "positive_class": first.positive_class,
        "background_class": None,
        "licence": first.licence,
        "reference": dict(first.mil.reference) if first.mil is not None else {},
        "members": [{"name": m.name, "sha256": m.sha256} for m in models[1:]],
    }
    return Asked(nets, first.classes, first.mil, words, tuple(m.sha256 for m in models))


def asked_checkpoints(
    paths: Sequence[Path], *, k: int | None = None, class_names: Sequence[str] = ()
) -> Asked:
    """Load checkpoints of other programs, see `nets.mil.load_checkpoint`.

    Parameters
    ----------
    paths
        One, or those of an ensemble.
    k
        Of ZoomMIL.
    class_names
        In the order of the outputs, which no checkpoint names; numbers by default.

    Raises
    ------
    ModelError
        If one cannot be read, they do not go together, or the names are not as many as classes.
    """
    nets = tuple(load_checkpoint(path, k=k) for path in paths)
    first, path = nets[0], Path(paths[0])
    for net, other in zip(nets, paths, strict=True):
        shapes = (net.dim, net.classes, net.magnifications)
        if shapes != (first.dim, first.classes, first.magnifications):
            raise ModelError(
                f"{path.name} and {Path(other).name} are no ensemble: they take other features or "
                f"answer for other classes."
            )
    names = list(class_names) or [f"class {c}" for c in range(first.classes)]
    if len(names) != first.classes:
        raise ModelError(
            f"{path.name} answers for {first.classes} classes, and {len(names)} names were given."
        )
    hashes = tuple(file_sha256(Path(p)) for p in paths)
    words: dict[str, Any] = {
        "name": path.stem,
        "path": str(path.absolute()),
        "sha256": hashes[0],
        "weights_sha256": hashes[0],
        "kind": "checkpoint",
        "description": "A checkpoint of another program.",
        "architecture": f"mil/{type(first).__name__}",
        "activation": first.activation,
        "temperature": first.temperature,
        "positive_class": None,
        "background_class": None,
        "licence": "not stated",
        "reference": {},
        "members": [
            {"name": Path(p).stem, "sha256": h} for p, h in zip(paths[1:], hashes[1:], strict=True)
        ],
    }
    return Asked(nets, class_specs(names), None, words, hashes)


def file_sha256(path: Path) -> str:
    """Return the hash of a file's content."""
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror or error}.") from error


def find_encoder(model: ModelManifest, models: Sequence[Path] = ()) -> ModelManifest:
    """Return the encoder whose features a MIL model takes.

    It is looked for by name as any model, and beside the model's folder; then by content.

    Raises
    ------
    ModelError
        If it is not there, or is another of that name.
    """
    assert model.mil is not None
    wanted = model.mil.encoder
    places = [*models, model.path.absolute().parent]
    try:
        encoder = find_model(wanted.name, places)
    except ModelError:
        same = [m for m in list_models(places)[0] if wanted.sha256 and m.sha256 == wanted.sha256]
        if not same:
            raise ModelError(
                f"{model.name} takes features of the encoder {wanted.name}, which is not here: "
                f"get it with 'histomil features {wanted.name} ...', or give features that you "
                f"have (--features)."
            ) from None
        encoder = same[0]
    if wanted.sha256 and encoder.sha256 != wanted.sha256:
        raise ModelError(
            f"The encoder {encoder.name} in {encoder.path} is not the one that {model.name} was "
            f"trained on (its content differs): get that one, or give features of it (--features)."
        )
    encoder = as_encoder(encoder)
    if encoder.embedding_dim != wanted.dim:
        raise ModelError(
            f"The encoder {encoder.name} gives {encoder.embedding_dim} values a tile, and "
            f"{model.name} takes {wanted.dim}: it is another encoder."
        )
    return encoder


def find_members(job: Job, models: Sequence[Path]) -> list[ModelManifest]:
    """Return the further models of a job's ensemble, by content."""
    return [find_model_of(ref, models) for ref in job.mil.members]
