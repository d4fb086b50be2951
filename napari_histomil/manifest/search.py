"""Where models are found: given folders, HISTOMIL_MODELS, the user's data folder, the package."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from napari_histomil.errors import HistomilError, ModelError
from napari_histomil.manifest.model import ModelManifest, is_model, load_manifest
from napari_histomil.resources import packaged, user_data_dir


def search_path(models: Sequence[Path] = ()) -> list[Path]:
    """Return the folders in which models are looked for, first to last.

    `models` (``--models``), the folders in ``HISTOMIL_MODELS``, the user's data folder, the
    package. An entry may hold model folders, or be one. Folders that do not exist are left out.
    """
    named = [Path(p).expanduser() for p in models]
    variable = os.environ.get("HISTOMIL_MODELS", "")
    named += [Path(p).expanduser() for p in variable.split(os.pathsep) if p]
    folders = [*named, user_data_dir() / "models"]
    try:
        folders.append(packaged("models"))
    except HistomilError:
        if not any(folder.is_dir() for folder in folders):
            raise
    return [folder for folder in dict.fromkeys(folders) if folder.is_dir()]


def list_models(models: Sequence[Path] = ()) -> tuple[list[ModelManifest], list[ModelError]]:
    """Return every model on the search path, and why others cannot be used.

    Where two models have one name, the first on the search path counts.
    """
    found: dict[str, ModelManifest] = {}
    broken: list[ModelError] = []
    for folder in _model_folders(models):
        try:
            manifest = load_manifest(folder)
        except ModelError as error:
            broken.append(error)
        else:
            found.setdefault(manifest.name, manifest)
    return list(found.values()), broken


def find_model(name_or_path: str | Path, models: Sequence[Path] = ()) -> ModelManifest:
    """Return a model by its folder or by its name on the search path.

    Raises
    ------
    ModelError
        If there is none of that name (the message lists those there are), or it is broken.
    """
    path = Path(name_or_path).expanduser()
    if is_model(path) or path.is_dir() or len(path.parts) > 1:
        return load_manifest(path)
    name = str(name_or_path)
    for folder in _model_folders(models):
        if folder.name == name:
            return load_manifest(folder)  # a broken folder of that name is told, not passed over
    found, _ = list_models(models)
    for manifest in found:
        if manifest.name == name:
            return manifest
    known = ", ".join(manifest.name for manifest in found) or "none"
    raise ModelError(
        f"There is no model named {name!r} (known: {known}): give one of these, or a model's "
        f"folder."
    )


def _model_folders(models: Sequence[Path]) -> list[Path]:
    folders: list[Path] = []
    for root in search_path(models):
        if is_model(root):
            folders.append(root)
        else:
            folders += sorted(child for child in root.iterdir() if is_model(child))
    return list(dict.fromkeys(folders))
