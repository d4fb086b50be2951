"""Which backend was the fastest for a model on this machine: files in the person's data folder.

One file a measurement, found by what it was measured for: model, machine, versions. The exported
graph lies beside it where it won. No torch here: lists of models tell from it.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from napari_histomil.errors import OutputError
from napari_histomil.files import whole_file
from napari_histomil.resources import user_data_dir

VERSION = 1
"""Of the files that this program writes and reads; others are passed over."""

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Measured:
    """What was found for one model on one machine."""

    facts: Mapping[str, str]
    """What it was measured for: all of it must be the same to hold again."""
    tiles_per_second: Mapping[str, float]
    """Backend and precision -> tiles a second of one worker."""
    chosen: str
    """The one that is used, a key of `tiles_per_second`."""
    day: str
    reason: str = ""
    """Why others were not measured, where that is so."""
    graph_sha256: str = ""
    """Of the exported graph, where it is kept."""

    def sentence(self) -> str:
        """Say it in one line."""
        speeds = sorted(self.tiles_per_second.items(), key=lambda pair: -pair[1])
        told = ", ".join(f"{name} {speed:,.3g}" for name, speed in speeds)
        line = f"{self.chosen} on {self.facts['device']} (tiles/s of one worker: {told})"
        return f"{line}; {self.reason}" if self.reason else line


def folder() -> Path:
    """Return where the files lie; it need not exist."""
    return user_data_dir() / "backends"


def recall(facts: Mapping[str, str]) -> Measured | None:
    """Return what was found for exactly this, or None."""
    found = _read(_file(facts))
    return found if found is not None and found.facts == facts else None


def recall_graph(measured: Measured) -> bytes | None:
    """Return the graph that was kept, or None where it is gone or changed."""
    with suppress(OSError):
        data = _file(measured.facts).with_suffix(".onnx").read_bytes()
        if hashlib.sha256(data).hexdigest() == measured.graph_sha256:
            return data
    return None


def recall_model(model_sha256: str) -> list[Measured]:
    """Return all that was found for a model, on whatever devices and versions."""
    found = [_read(file) for file in sorted(folder().glob("*.json"))]
    return [each for each in found if each is not None and each.facts["model"] == model_sha256]


def remember(measured: Measured, graph: bytes | None = None) -> None:
    """Keep what was found; a folder that cannot be written costs the memory and nothing else."""
    file = _file(measured.facts)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        if graph is not None:
            with whole_file(file.with_suffix(".onnx")) as part:
                part.write_bytes(graph)
        with whole_file(file) as part:
            document = {"schema_version": VERSION, **asdict(measured)}
            part.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    except (OSError, OutputError) as error:
        _logger.info("The fastest backend cannot be remembered: %s", error)


def _file(facts: Mapping[str, str]) -> Path:
    text = json.dumps(dict(facts), sort_keys=True, separators=(",", ":"))
    return folder() / f"{hashlib.sha256(text.encode()).hexdigest()[:24]}.json"


def _read(file: Path) -> Measured | None:
    """Return what a file says; None where it is missing, damaged, or of another version."""
    try:
        raw = json.loads(file.read_text(encoding="utf-8"))
        if raw.pop("schema_version") != VERSION:
            return None
        found = Measured(**raw)
        speeds = {str(name): float(speed) for name, speed in found.tiles_per_second.items()}
        if found.chosen not in speeds or not {"model", "device"} <= found.facts.keys():
            return None
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None
    return found
