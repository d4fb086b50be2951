"""From a configuration to an encoder's model folder; what was begun there goes on."""

from __future__ import annotations

import threading
from collections.abc import Generator
from pathlib import Path

from napari_histomil.files import make_folder
from napari_histomil.training.selfsupervised.checkpoint import CHECKPOINT_FILE
from napari_histomil.training.selfsupervised.config import PretrainConfig
from napari_histomil.training.selfsupervised.folder import write_encoder
from napari_histomil.training.selfsupervised.loop import PretrainProgress, pretrain
from napari_histomil.training.selfsupervised.tiles import open_pool


def pretrain_encoder(
    config: PretrainConfig,
    data: Path,
    out: Path,
    *,
    seed: int = 0,
    device: str = "cpu",
    cancel: threading.Event | None = None,
) -> Generator[PretrainProgress, None, Path]:
    """Pretrain an encoder and write its model folder.

    A pretraining that was stopped or killed goes on from the checkpoint in `out`, and ends as if
    nothing had happened; the checkpoint goes when the model is there.

    Parameters
    ----------
    config
        The pretraining.
    data
        Folder that the sources' paths are relative to.
    out
        The model folder; it is made if it is missing, its model files are replaced.
    seed
        Decides the first weights, the places and their views.
    device
        ``cpu``, ``cuda`` or ``mps``.
    cancel
        Set it to stop before the next step; a checkpoint is written then.

    Yields
    ------
    PretrainProgress

    Returns
    -------
    Path
        The model folder (the generator's value).

    Raises
    ------
    TrainingError
        If the data cannot be used or the pretraining was cancelled.
    OutputError
        If the folder cannot be made or written.
    """
    with open_pool(config, data) as pool:
        make_folder(out)
        checkpoint = out / CHECKPOINT_FILE
        pretrained = yield from pretrain(
            config, pool, seed=seed, device=device, checkpoint=checkpoint, cancel=cancel
        )
        write_encoder(out, config, pretrained, pool, seed=seed)
        checkpoint.unlink(missing_ok=True)
    return out
