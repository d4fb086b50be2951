"""A MIL model asked about features in a file, in the thread of a job; no pixels are read."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path

from napari_histomil.manifest import ModelManifest
from napari_histomil.results.mil import MilRun
from napari_histomil.slides.slide import SlideInfo
from napari_histomil.ui.torch_shield import shield_torch


@dataclass(frozen=True, slots=True)
class FromFile:
    """What is asked: a file of features, and a model or a checkpoint."""

    features: Path
    model: ModelManifest | None = None
    checkpoint: Path | None = None
    """Of another program; instead of a model."""
    class_names: tuple[str, ...] = ()
    """Of a checkpoint, which names none."""
    k: int | None = None
    """Patches that a checkpoint of ZoomMIL zooms into, which it does not say."""
    side_px0: float | None = None
    """Side of a tile in level-0 px, where the file does not say it."""
    mpp: float | None = None
    """Resolution of the tiles, where the file does not say it."""
    passes: int = 0


def warm_up(cancel: threading.Event) -> Iterator[None]:
    """Import what is needed while the person still chooses files: torch takes seconds."""
    shield_torch()
    import napari_histomil.exchange.bags
    import napari_histomil.inference.mil_bag  # noqa: F401

    yield


def answer_from_file(
    asked: FromFile, info: SlideInfo, device: str, cancel: threading.Event
) -> Generator[str, None, MilRun | None]:
    """Yield what is going on, in words; return the answer, or None if it was cancelled.

    Raises
    ------
    HistomilError
        If a file cannot be read, or model and features do not go together.
    """
    yield f"Reading features of {asked.features.name}…"
    from napari_histomil.exchange.bags import read_bag

    bag = read_bag(asked.features, slide=info, side_px0=asked.side_px0, mpp=asked.mpp)
    if cancel.is_set():
        return None
    yield f"Loading the model for {len(bag.levels[-1])} patches…"
    shield_torch()  # torch is imported here, in the thread
    from napari_histomil.inference.mil_bag import run_on_bag
    from napari_histomil.inference.mil_models import asked_checkpoints, asked_models

    if asked.model is not None:
        nets = asked_models([asked.model])
    else:
        assert asked.checkpoint is not None, "a model or a checkpoint is asked"
        nets = asked_checkpoints([asked.checkpoint], k=asked.k, class_names=asked.class_names)
    if cancel.is_set():
        return None
    yield "Asking the model…"
    return run_on_bag(
        bag, nets, origin=[asked.features], slide=info, device=device, passes=asked.passes
    )
