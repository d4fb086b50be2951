"""Models of the WSInfer zoo by name: looked up, downloaded once, checked, kept.

The zoo is a registry (one JSON file) of repositories on the Hugging Face hub, each of which holds
``config.json`` and ``torchscript_model.pt`` (Kaczmarzyk et al. 2024, Open and reusable deep
learning for pathology with WSInfer and QuPath). The hub states the sha256 of large files; what was
downloaded is recorded in ``zoo.json`` beside it, and another file under the same name is refused.
``HF_ENDPOINT`` names another hub, as it does for Hugging Face's own tools.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from napari_histomil.errors import ModelError, brief
from napari_histomil.files import make_folder, whole_file, whole_folder
from napari_histomil.manifest.model import WSINFER_FILE, ZOO_FILE, load_manifest
from napari_histomil.manifest.schema import ZOO_REGISTRY_SCHEMA, validate
from napari_histomil.resources import user_data_dir

HUB = "https://huggingface.co"
REGISTRY = "datasets/kaczmarj/wsinfer-model-zoo-json/raw/main/wsinfer-zoo-registry.json"
REGISTRY_FILE = "wsinfer-zoo-registry.json"
WEIGHTS_FILE = "torchscript_model.pt"

TIMEOUT_SECONDS = 20
CHUNK_BYTES = 1 << 20

_POINTER_SHA256 = re.compile(r"^oid sha256:([0-9a-f]{64})$", re.MULTILINE)
_PART = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True, slots=True)
class ZooModel:
    """An entry of the registry."""

    name: str
    description: str
    repository: str
    """Owner and name on the hub."""
    revision: str

    def url(self, how: str, file: str) -> str:
        """Return a file's address; `how` is ``resolve`` for it, ``raw`` for what git holds."""
        return f"{_hub()}/{self.repository}/{how}/{self.revision}/{file}"


def registry(*, ask: bool = True) -> dict[str, ZooModel]:
    """Return the zoo's models by name.

    Parameters
    ----------
    ask
        Whether the hub is asked; else, and where there is no network, what it said last counts.

    Raises
    ------
    ModelError
        If it cannot be had and was never seen, or is not what it should be.
    """
    kept = user_data_dir() / "zoo" / REGISTRY_FILE
    if ask:
        address = f"{_hub()}/{REGISTRY}"
        try:
            data = _small(address)
        except ModelError:
            if not kept.is_file():
                raise
        else:
            models = _entries(data, address)
            kept.parent.mkdir(parents=True, exist_ok=True)
            with whole_file(kept) as part:
                part.write_bytes(data)
            return models
    return _entries(kept.read_bytes(), str(kept)) if kept.is_file() else {}


def fetch(name: str, *, source: Path | None = None) -> Path:
    """Return the folder of a model of the zoo, downloaded where it is not kept yet.

    Parameters
    ----------
    name
        As the registry calls it.
    source
        Folder to take it from, without a network: the model's own, one that holds it, or the one
        in which QuPath keeps its models.

    Raises
    ------
    ModelError
        If there is no such model, no network, the download breaks off, or the file is not the one
        that the hub states or that was recorded.
    OutputError
        If it cannot be kept.
    """
    target = user_data_dir() / "models" / name
    if source is not None:
        return _copied(name, source, target)
    models = registry()
    if name not in models:
        raise ModelError(
            f"The WSInfer zoo has no model {name!r}: see 'histomil models fetch' for those it has."
        )
    model = models[name]
    stated = _stated_sha256(model)
    if (target / ZOO_FILE).is_file():
        recorded = str(_record(target).get("sha256"))
        if stated not in (None, recorded):
            raise ModelError(
                f"The WSInfer zoo now has another file for {name} ({model.revision}) than the one "
                f"that was downloaded: delete {target} to take it."
            )
        return target
    make_folder(target.parent)
    with whole_folder(target, WSINFER_FILE) as part:
        part.mkdir()
        _download(model.url("resolve", WSINFER_FILE), part / WSINFER_FILE)
        _download(model.url("resolve", WEIGHTS_FILE), part / WEIGHTS_FILE, stated)
        _finish(part, name, model.repository, model.revision)
    return target


def _finish(folder: Path, name: str, repository: str, revision: str) -> None:
    """Record what a folder holds, after a look at whether it is a model at all."""
    digest = _sha256(folder / WEIGHTS_FILE)
    record = {
        "schema_version": 1,
        "name": name,
        "repository": repository,
        "revision": revision,
        "sha256": digest,
    }
    (folder / ZOO_FILE).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    load_manifest(folder)


def _copied(name: str, source: Path, target: Path) -> Path:
    """Take a model from a folder: the model's, one above it, or QuPath's."""
    places = [source, source / name, *sorted(source.glob(f"*/{name}/*"))]
    for place in places:
        if (place / WSINFER_FILE).is_file() and (place / WEIGHTS_FILE).is_file():
            break
    else:
        raise ModelError(
            f"{source} holds no {name} with {WSINFER_FILE} and {WEIGHTS_FILE}: copy its folder "
            f"from a computer that has it."
        )
    digest = _sha256(place / WEIGHTS_FILE)
    if (target / ZOO_FILE).is_file():
        if _record(target).get("sha256") != digest:
            raise ModelError(
                f"{place} holds another {name} than the one that is kept: delete {target} to "
                f"take it."
            )
        return target
    make_folder(target.parent)
    with whole_folder(target, WSINFER_FILE) as part:
        part.mkdir()
        for file in (WSINFER_FILE, WEIGHTS_FILE):
            shutil.copyfile(place / file, part / file)
        _finish(part, name, "", "")
    return target


def _stated_sha256(model: ZooModel) -> str | None:
    """Ask git's own copy, which is a pointer for a large file; None where it is none."""
    text = _small(model.url("raw", WEIGHTS_FILE))[:1000].decode("utf-8", "replace")
    match = _POINTER_SHA256.search(text)
    return match[1] if match is not None else None


def _entries(data: bytes, where: str) -> dict[str, ZooModel]:
    try:
        raw: Any = json.loads(data)
    except ValueError as error:
        raise ModelError(f"{where} is no registry of models: {brief(error)}.") from error
    validate(raw, ZOO_REGISTRY_SCHEMA, Path(where))
    return {
        name: ZooModel(name, entry["description"], entry["hf_repo_id"], entry["hf_revision"])
        for name, entry in raw["models"].items()
        if _PART.fullmatch(name)  # it becomes a folder's name
    }


def _record(folder: Path) -> dict[str, Any]:
    try:
        raw = json.loads((folder / ZOO_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(
            f"{folder / ZOO_FILE} cannot be read: {brief(error)}; delete {folder} to download "
            f"the model again."
        ) from error
    return raw if isinstance(raw, dict) else {}


def _hub() -> str:
    return os.environ.get("HF_ENDPOINT", "").rstrip("/") or HUB


def _download(url: str, file: Path, sha256: str | None = None) -> None:
    """Download to a file and compare its hash."""
    digest = hashlib.sha256()
    try:
        with _answer(url) as answer, file.open("wb") as stream:
            left = answer.length  # None where it is not stated
            while chunk := answer.read(CHUNK_BYTES):
                digest.update(chunk)
                stream.write(chunk)
            if left is not None and left != stream.tell():
                raise ConnectionError(f"{stream.tell():,} of {left:,} bytes came")
    except (OSError, HTTPException) as error:
        raise ModelError(
            f"{url} could not be downloaded ({brief(error)}): check the network, or take the "
            f"model from a folder (histomil models fetch NAME --from FOLDER)."
        ) from error
    if sha256 is not None and digest.hexdigest() != sha256:
        raise ModelError(
            f"{url} is not the file that the hub states (sha256 {digest.hexdigest()[:12]}... "
            f"instead of {sha256[:12]}...): try again, and if it stays so, do not use the model."
        )


@contextmanager
def _answer(url: str) -> Iterator[HTTPResponse]:
    if not url.startswith(("https:", "http:")):
        raise ConnectionError("the address is none of the web")
    try:
        with urlopen(Request(url), timeout=TIMEOUT_SECONDS) as answer:
            yield answer
    except HTTPError as error:
        with error:  # which is an answer too, and would stay open
            raise ConnectionError(f"{error.code} {error.reason}") from error


def _small(url: str) -> bytes:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        file = Path(folder, "file")
        _download(url, file)
        return file.read_bytes()


def _sha256(file: Path) -> str:
    try:
        with file.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise ModelError(f"{file} cannot be read: {error.strerror or error}.") from error
