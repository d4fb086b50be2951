"""How a MIL run lies in its Zarr group: written whole, read whole.

=============================  ==============================================================
``logits``, ``probabilities``  float32 [C]; ``members`` float32 [M, C]; ``bias`` where known
``level<i>/xy_px0``            float64 [N, 2], or ``cells`` int32 [N, 2] of one of our grids
``map<i>/raw``, ``value``      float32 [K, M], either may be missing; ``index`` int32 [M]
``contributions<i>/values``    float32 [C, M]; ``index`` int32 [M]
``instance_scores``            float32 [N, C], where the model has them
attribute ``histomil``         what all runs have (``job`` with the task ``mil``, ``slide``,
                               ``model``, ``classes``, ``warnings``, ``sessions``), and ``how``,
                               ``source``, ``levels``, ``maps``, ``contributions``, ``numbers``
=============================  ==============================================================

Each array is one chunk with its CRC-32C.
"""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Mapping
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.codecs import Crc32cCodec, ZstdCodec

from napari_histomil.errors import OutputError, RunError
from napari_histomil.lock import WriterLock
from napari_histomil.manifest import ClassSpec
from napari_histomil.results.bag import EncoderFacts
from napari_histomil.results.folder import note_run, said
from napari_histomil.results.layout import (
    ATTRIBUTE,
    SCHEMA_VERSION,
    check_task,
    check_version,
    grid_attributes,
    read_grid,
)
from napari_histomil.results.mil import (
    TASK,
    MilAnswer,
    MilContributions,
    MilLevel,
    MilMap,
    MilRun,
    MilSource,
)

# --- writing ----------------------------------------------------------------------------------


def write_mil_run(run: MilRun, path: Path) -> MilRun:
    """Write a run; its folder appears whole or not at all, one that is there is replaced.

    Parameters
    ----------
    run
        The run; `path` and `created` are set here.
    path
        Where, ``.../<run_id>.zarr``.

    Returns
    -------
    MilRun
        The same, with its path.

    Raises
    ------
    OutputError
        If the folder cannot be written.
    RunError
        If another process is writing it.
    """
    run = replace(run, path=path, created=datetime.now(UTC).replace(microsecond=0))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = WriterLock(path)
    except OSError as error:
        raise _unwritable(path, error) from error
    mark = uuid.uuid4().hex
    partial, old = (path.with_name(f".{path.name}.{mark}.{end}") for end in ("partial", "deleted"))
    try:
        for remains in path.parent.glob(f".{path.name}.*.partial"):  # of a killed process
            shutil.rmtree(remains, ignore_errors=True)
        group = zarr.create_group(partial, zarr_format=3)
        _fill(group, run)
        group.attrs[ATTRIBUTE] = _attributes(run)
        if path.exists():
            path.rename(old)
        partial.rename(path)
    except OSError as error:
        raise _unwritable(path, error) from error
    finally:
        for folder in (partial, old):
            shutil.rmtree(folder, ignore_errors=True)
        lock.release()
    note_run(path, run.slide)
    return run


def _unwritable(path: Path, error: OSError) -> OutputError:
    return OutputError(f"The run {path} cannot be written: {error.strerror or error}.")


def _fill(group: zarr.Group, run: MilRun) -> None:
    def keep(name: str, values: Any, dtype: str) -> None:
        if values is None:
            return
        values = np.asarray(values, dtype)
        group.create_array(
            name,
            data=values,
            chunks=tuple(max(side, 1) for side in values.shape),
            compressors=[ZstdCodec(level=1), Crc32cCodec()],
        )

    keep("logits", run.answer.logits, "float32")
    keep("probabilities", run.answer.probabilities, "float32")
    keep("members", run.answer.members, "float32")
    keep("bias", run.bias, "float32")
    keep("instance_scores", run.instance_scores, "float32")
    for i, level in enumerate(run.levels):
        if level.grid is None:
            keep(f"level{i}/xy_px0", level.xy_px0, "float64")
        else:
            keep(f"level{i}/cells", level.grid.cells, "int32")
    for i, each in enumerate(run.maps):
        keep(f"map{i}/raw", each.raw, "float32")
        keep(f"map{i}/value", each.value, "float32")
        keep(f"map{i}/index", each.index, "int32")
    for i, part in enumerate(run.contributions):
        keep(f"contributions{i}/values", part.values, "float32")
        keep(f"contributions{i}/index", part.index, "int32")


def _attributes(run: MilRun) -> dict[str, Any]:
    assert run.created is not None
    return {
        "schema_version": SCHEMA_VERSION,
        "run_id": run.run_id,
        "created": run.created.isoformat(timespec="seconds"),
        "job": {**run.job, "task": TASK},
        "slide": dict(run.slide),
        "model": dict(run.model),
        "classes": [{"name": c.name, "color": list(c.color)} for c in run.classes],
        "how": run.answer.how,
        "source": asdict(run.source),
        "levels": [
            {
                "side_px0": [float(v) for v in level.side_px0],
                "mpp": level.mpp,
                "tiles": int(level.tiles),
                "finer_than": level.finer_than,
                "grid": level.grid and grid_attributes(level.grid),
            }
            for level in run.levels
        ],
        "maps": [{"level": m.level, "kind": m.kind} for m in run.maps],
        "contributions": [{"level": part.level} for part in run.contributions],
        "numbers": dict(run.numbers),
        "warnings": list(run.warnings),
        "sessions": [dict(session) for session in run.sessions],
    }


# --- reading ----------------------------------------------------------------------------------


def open_mil_run(path: Path) -> MilRun:
    """Read a MIL run.

    Raises
    ------
    RunError
        If there is no run, it is one of another task, a newer program wrote it, or it is damaged.
    """
    path = Path(path)
    if not (path / "zarr.json").is_file():
        raise RunError(f"{path} is no run: a run is a folder <id>.zarr with zarr.json in it.")
    try:
        group = zarr.open_group(path, mode="r")
        attributes: Any = group.attrs.get(ATTRIBUTE)
        check_version(path, attributes)
        check_task(path, attributes, TASK)
        return _read(group, attributes, path)
    except (KeyError, TypeError, ValueError, OSError) as error:
        raise RunError(
            f"The run {path} is damaged: {said(error)}; delete it, and run its job again."
        ) from error


def _read(group: zarr.Group, stored: Mapping[str, Any], path: Path) -> MilRun:
    def get(name: str, dtype: Any, default: bool = False) -> Any:
        if default and name not in group:
            return None
        array: Any = group[name]
        return np.asarray(array[...], dtype)

    source = dict(stored["source"])
    encoder = source.pop("encoder")
    source["runs"] = tuple(source["runs"])
    return MilRun(
        run_id=str(stored["run_id"]),
        job=stored["job"],
        slide=stored["slide"],
        model=stored["model"],
        classes=tuple(ClassSpec(c["name"], tuple(c["color"])) for c in stored["classes"]),
        source=MilSource(encoder=encoder and EncoderFacts(**encoder), **source),
        answer=MilAnswer(
            get("logits", np.float32),
            get("probabilities", np.float32),
            get("members", np.float32),
            stored["how"],
        ),
        levels=tuple(
            _read_level(group, f"level{i}", facts) for i, facts in enumerate(stored["levels"])
        ),
        maps=tuple(
            MilMap(
                facts["level"],
                facts["kind"],
                get(f"map{i}/raw", np.float32, default=True),
                get(f"map{i}/value", np.float32, default=True),
                get(f"map{i}/index", np.int64),
            )
            for i, facts in enumerate(stored["maps"])
        ),
        contributions=tuple(
            MilContributions(
                facts["level"],
                get(f"contributions{i}/index", np.int64),
                get(f"contributions{i}/values", np.float32),
            )
            for i, facts in enumerate(stored["contributions"])
        ),
        bias=get("bias", np.float32, default=True),
        instance_scores=get("instance_scores", np.float32, default=True),
        warnings=tuple(stored["warnings"]),
        numbers=stored["numbers"],
        sessions=tuple(stored["sessions"]),
        created=datetime.fromisoformat(stored["created"]),
        path=path,
    )


def _read_level(group: zarr.Group, name: str, facts: Mapping[str, Any]) -> MilLevel:
    side = (float(facts["side_px0"][0]), float(facts["side_px0"][1]))
    if facts["grid"] is None:
        array: Any = group[f"{name}/xy_px0"]
        grid, xy = None, np.asarray(array[...], np.float64)
    else:
        level: Any = group[name]
        grid = read_grid(level, facts["grid"])
        xy = grid.tile_rects_px0[:, :2]
    return MilLevel(xy, side, facts["mpp"], grid, int(facts["tiles"]), facts["finer_than"])
