"""A bag is asked of MIL models, and the answer becomes a run: no slide's pixels are read.

The bag may be of our own runs of features or of another program's file. What is odd about it and
about the answer becomes warnings of the run.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from napari_histomil.errors import RunError
from napari_histomil.inference.devices import resolve_device
from napari_histomil.inference.job import id_of
from napari_histomil.inference.mil_answer import Answered, ask_models, bag_tensors
from napari_histomil.inference.mil_models import Asked, file_sha256
from napari_histomil.inference.opening import slide_facts
from napari_histomil.inference.provenance import begin, now
from napari_histomil.nets.mil.zoommil import ZoomMIL
from napari_histomil.results import FeatureStore, MilRun, open_mil_run, run_path, write_mil_run
from napari_histomil.results.bag import Bag, mismatches
from napari_histomil.results.mil import MilLevel, MilMap, MilSource
from napari_histomil.review.attention_checks import answer_warnings
from napari_histomil.slides.slide import SlideInfo


@dataclass(frozen=True, slots=True)
class BagOrigin:
    """Where a bag comes from."""

    files: tuple[Path, ...]
    """The runs of features that it was made of, or one file of another program."""

    def source(self, bag: Bag) -> MilSource:
        """Return what a run keeps of it."""
        if all(path.is_dir() for path in self.files):
            runs = tuple(FeatureStore.open(path).run_id for path in self.files)
            return MilSource(bag.dim, bag.encoder, runs)
        (file,) = self.files
        return MilSource(bag.dim, bag.encoder, file=file.name, sha256=file_sha256(file))


def run_on_bag(
    bag: Bag,
    asked: Asked,
    *,
    origin: Sequence[Path],
    slide: SlideInfo | None = None,
    out: Path | None = None,
    device: str = "auto",
    passes: int = 0,
) -> MilRun:
    """Ask models about a bag that is there, and keep the answer as a run; no pixels are read.

    Parameters
    ----------
    bag
        The bag: of runs of features (`bag_of_runs`), or of a file (`exchange.bags.read_bag`).
    asked
        See `mil_models.asked_models` and `asked_checkpoints`.
    origin
        The runs, or the file, that the bag comes from: the run names them.
    slide
        The slide it is of; the run lies with its others then.
    out
        Folder for the result; None for beside the slide.
    device
        ``auto``, ``cuda``, ``mps`` or ``cpu``.
    passes
        See `MilSpec`.

    Returns
    -------
    MilRun
        The one that is there, if the same was asked before.

    Raises
    ------
    RunError
        If the model cannot take the bag, or neither `slide` nor `out` say where the run shall be.
    ModelError
        If a file cannot be read.
    OutputError
        If the run cannot be written.
    """
    if slide is None and out is None:
        raise RunError(
            f"Nothing says where the answer for {bag.slide.name} shall be: give its slide, or a "
            f"folder for results."
        )
    warnings = bag_warnings(asked, bag)
    source = BagOrigin(tuple(Path(p) for p in origin)).source(bag)
    fingerprint = slide.fingerprint if slide is not None else bag.slide.fingerprint or ""
    job: dict[str, Any] = {
        "schema_version": 1,
        "task": "mil",
        "slide": fingerprint or bag.slide.name,
        "bag": {"runs": list(source.runs), "sha256": source.sha256,
                "sides_px0": [[float(v) for v in level.side_px0] for level in bag.levels]},
        "model": {"sha256": list(asked.sha256)},
        "k": [list(net.k) for net in asked.nets if isinstance(net, ZoomMIL)],
        "passes": passes,
    }  # fmt: skip
    run_id = id_of(job)
    where = slide.path if slide is not None else Path(bag.slide.name)
    path = run_path(where, run_id, fingerprint=fingerprint, out=out)
    if path.exists():
        try:
            return open_mil_run(path)
        except RunError:
            pass  # damaged: it is written anew
    resolved = resolve_device(device)
    session, start = begin(resolved), time.perf_counter()
    tensors = bag_tensors(bag, resolved)
    asked.to(resolved)
    answered = ask_models(asked, lambda net: net(tensors), passes=passes)
    run = assemble(
        asked, answered, tuple(MilLevel.of(level) for level in bag.levels), source,
        run_id=run_id, job=job,
        slide=slide_facts(slide) if slide is not None else _bag_slide(bag),
        warnings=warnings, numbers={}, seconds={"answer": round(time.perf_counter() - start, 3)},
        session={**session, "finished": now()}, passes=passes,
    )  # fmt: skip
    return write_mil_run(run, path)


def _bag_slide(bag: Bag) -> dict[str, Any]:
    width, height = bag.slide.size_px0 or (None, None)
    return {
        "name": bag.slide.name,
        "path": None,
        "fingerprint": bag.slide.fingerprint or "",
        "width_px0": width,
        "height_px0": height,
        "mpp_xy": bag.slide.mpp_xy and list(bag.slide.mpp_xy),
        "bounds_px0": None,
    }


def bag_warnings(asked: Asked, bag: Bag) -> list[str]:
    """Return in what a bag is not what the models were trained on; raises where it cannot be."""
    grids = asked.facts.grids if asked.facts is not None else ()
    wanted = asked.nets[0].magnifications
    if len(bag.levels) != wanted:
        raise RunError(
            f"The bag of {bag.slide.name} has {len(bag.levels)} magnification(s), and the model "
            f"takes {wanted}."
        )
    return mismatches(bag, dim=asked.nets[0].dim, encoder=asked.encoder, grids=grids)


def assemble(
    asked: Asked,
    answered: Answered,
    levels: tuple[MilLevel, ...],
    source: MilSource,
    *,
    run_id: str,
    job: dict[str, Any],
    slide: dict[str, Any],
    warnings: Sequence[str],
    numbers: dict[str, Any],
    seconds: dict[str, float],
    session: dict[str, Any],
    passes: int,
) -> MilRun:
    """Return a run of its parts, with its numbers, and what is odd about the answer."""
    skipped = [max(level.tiles - len(level), 0) for level in levels]
    run = MilRun(
        run_id=run_id,
        job=job,
        slide=slide,
        model=asked.model,
        classes=asked.classes,
        source=source,
        answer=answered.answer,
        levels=levels,
        maps=answered.maps,
        contributions=answered.contributions,
        bias=answered.bias,
        instance_scores=answered.instance_scores,
        numbers={
            **numbers,
            "seconds": dict(seconds),
            "dropout_passes": passes,
            "skipped_tiles": skipped,
            "effective_patches": [_rounded(each) for each in answered.maps],
        },
        sessions=(session,),
    )
    skipping = [
        f"{count:,} of {level.tiles:,} tiles of {_scale(level)} were not examined: the model did "
        f"not zoom into them."
        for level, count in zip(levels, skipped, strict=True)
        if count
    ]
    return replace(run, warnings=run.with_warnings([*warnings, *answer_warnings(run), *skipping]))


def _scale(level: MilLevel) -> str:
    return f"{level.mpp:g} µm/px" if level.mpp is not None else "one magnification"


def _rounded(each: MilMap) -> list[float | None] | None:
    numbers = each.effective_number
    if numbers is None:
        return None
    return [round(float(n), 2) if np.isfinite(n) else None for n in numbers]
