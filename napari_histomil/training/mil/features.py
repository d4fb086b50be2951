"""Where the features of a table's slides are: in files of others, in runs, or made by the engine.

Of a slide ``a.svs`` the files ``a.h5``, ``h5_files/a.h5`` and ``pt_files/a.pt`` in the folder of
features are looked for, TRIDENT's and CLAM's; else the configured encoder, which is got if need
be, is run over the slide, at all magnifications (nested). Runs that are there are used as they
are, unfinished ones go on.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from napari_histomil.errors import HistomilError, TrainingError
from napari_histomil.inference.engine import run
from napari_histomil.inference.job import Job, Progress, plan_job
from napari_histomil.manifest import ModelManifest, find_model
from napari_histomil.nets.encoders import as_encoder
from napari_histomil.nets.fetching import fetch_encoder, is_encoder_name
from napari_histomil.slides.readers import open_slide
from napari_histomil.training.loop import TrainingCancelled, TrainingProgress
from napari_histomil.training.mil.config import MilConfig
from napari_histomil.training.mil.fit import Watched
from napari_histomil.training.mil.table import Case


def encoder_of(config: MilConfig, data: Path, models: Sequence[Path] = ()) -> ModelManifest | None:
    """Return the configured encoder if it is a model that is here; None if it is only a name."""
    name = config.bags.encoder
    if not name:
        return None
    folder = data / name
    try:
        return as_encoder(find_model(str(folder) if folder.is_dir() else name, models))
    except HistomilError:
        if folder.is_dir():
            raise
        return None  # a published one that was not got yet, or of features that others made


def with_features(
    config: MilConfig,
    cases: Sequence[Case],
    data: Path,
    *,
    watched: Watched,
    models: Sequence[Path] = (),
) -> Generator[TrainingProgress, None, list[Case]]:
    """Return cases that all have files of features, or runs; what is missing is made.

    Parameters
    ----------
    config
        The training.
    cases
        Of its table.
    data
        Folder that paths are relative to.
    watched
        Device and cancel.
    models
        Folders in which the encoder is looked for first.

    Yields
    ------
    TrainingProgress
        While the encoder runs, a slide a stage, a step a tile.

    Returns
    -------
    list of Case
        The generator's value.

    Raises
    ------
    TrainingError
        If a slide has no features and the encoder is not here, or makes other tiles.
    """
    folder = data / config.bags.features
    encoder = None
    found: list[Case] = []
    for case in cases:
        if case.bags:
            found.append(case)
            continue
        assert case.slide is not None
        foreign = _foreign(folder, case.slide)
        if foreign is not None:
            found.append(replace(case, bags=(foreign,)))
            continue
        encoder = encoder or encoder_of(config, data, models)
        if encoder is None and is_encoder_name(config.bags.encoder):
            encoder = fetch_encoder(config.bags.encoder)
        if encoder is None:
            raise TrainingError(
                f"There are no features of {case.slide.name} in {folder}, and no model "
                f"{config.bags.encoder or '(bags.encoder is empty)'} that could make them: name "
                f"an encoder that is here, see 'histomil models'."
            )
        runs = yield from _extracted(config, encoder, case.slide, folder, watched, models)
        found.append(replace(case, bags=tuple(runs)))
    return found


def _foreign(folder: Path, slide: Path) -> Path | None:
    stem = slide.stem
    places = (folder / f"{stem}.h5", folder / "h5_files" / f"{stem}.h5")
    return next((p for p in (*places, folder / "pt_files" / f"{stem}.pt") if p.is_file()), None)


def _extracted(
    config: MilConfig,
    encoder: ModelManifest,
    path: Path,
    folder: Path,
    watched: Watched,
    models: Sequence[Path],
) -> Generator[TrainingProgress, None, list[Path]]:
    runs = []
    for job in _jobs(config, encoder, path):
        last: Progress | None = None
        for last in run(
            job, out=folder, device=watched.device, cancel=watched.cancel, models=models
        ):
            yield TrainingProgress(
                f"features of {path.name}, {job.grids[0].mpp:g} µm/px",
                last.done,
                last.total,
                float("nan"),
                last.seconds,
            )
        if last is None or last.done < last.total:
            raise TrainingCancelled(f"The training was stopped at the features of {path.name}.")
        runs.append(last.store)
    return runs


def _jobs(config: MilConfig, encoder: ModelManifest, path: Path) -> Iterator[Job]:
    """Yield a job a magnification, the lowest first; the others lie within its tiles."""
    grids = config.grids or (encoder.grid,)
    for grid in grids:
        if grid.tile_px != encoder.grid.tile_px:
            raise TrainingError(
                f"{encoder.name} takes tiles of {encoder.grid.tile_px} px, and the grids have "
                f"{grid.tile_px}: set tile_px to that."
            )
    with open_slide(path) as slide:
        info = slide.info
    for number, grid in enumerate(grids):
        yield plan_job(
            info,
            encoder,
            mpp=grid.mpp,
            stride_px=grid.stride_px,
            within=grids[0] if number else None,
        )
