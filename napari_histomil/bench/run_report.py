"""All that `bench run` measured, as text, JSON and a section of a file of results."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from napari_histomil.bench.chains import ChainFigures, OneWay
from napari_histomil.bench.figures import (
    AT_LEAST,
    AT_MOST,
    Figure,
    append_section,
    table,
    verdict,
)
from napari_histomil.bench.run import NetworkFigures
from napari_histomil.bench.run_memory import MemoryFigures

BOUND_TARGET = 0.95
GROWTH_TARGET = 1.25
"""Memory over all of the tissue against a ninth of it: a run keeps some rows of the slide's tiles,
and so as much more as the slide is wider, but no more."""


@dataclass(slots=True)
class RunBenchmark:
    """What was measured."""

    slide: str
    size_px0: tuple[int, int]
    networks: list[NetworkFigures] = field(default_factory=list)
    memory: list[MemoryFigures] = field(default_factory=list)
    chains: list[ChainFigures] = field(default_factory=list)


def figures(result: RunBenchmark) -> list[Figure]:
    """Return everything that has a target, or stands beside one."""
    found = []
    for n in result.networks:
        speeds = ", ".join(f"{name} {speed:,.3g}" for name, speed in n.forward.items())
        found += [
            Figure(
                f"{n.model}: end to end against {_rule(n)}",
                n.efficiency,
                AT_LEAST,
                BOUND_TARGET,
                note=f"{n.end_to_end:,.3g} and {n.bound:,.3g} tiles/s; {n.cpu_efficiency:.2f} in "
                f"CPU time; F {speeds}; R {n.reading:,.4g}",
            )
        ]
    for m in result.memory:
        found += [
            Figure(
                f"{m.model}: peak memory, the network on {m.tiles[0]:,} tiles",
                m.sample / 2**30,
                unit="GiB",
                note=f"{m.start / 2**30:.2f} of it before a slide is opened",
            ),
            Figure(
                f"{m.model}: memory of a run, {m.tiles[2]:,} tiles against {m.tiles[1]:,}",
                m.growth,
                AT_MOST,
                GROWTH_TARGET,
                note=f"a constant in its place, at full resolution; peaks "
                f"{m.whole / 2**30:.2f} and {m.part / 2**30:.2f} GiB",
            ),
        ]
    for c in result.chains:
        found.append(
            Figure(
                f"{c.model} on {c.slide}: time against {c.dense_model} everywhere",
                c.time_ratio,
                note=f"{_way(c.chain)}; {_way(c.dense)}",
            )
        )
    return found


def report(result: RunBenchmark) -> str:
    """Return the figures as lines of text, Markdown too."""
    width, height = result.size_px0
    lines = [f"- {result.slide}: {width:,} x {height:,} px"]
    for n in result.networks:
        sample = "all of them" if n.tiles == n.tiles_of_job else f"measured on {n.tiles:,}"
        lines.append(
            f"- {n.model} ({n.task}; {n.backend}, batch {n.batch}): {n.tiles_of_job:,} tiles of "
            f"{n.tile_px} px, stride {n.stride_px} px, at {n.mpp:g} µm/px, {sample}"
        )
    if result.networks:
        n = result.networks[0]
        lines.append(f"- device: {n.device}; {n.workers} workers; medians of {n.rounds} rounds")
    found = figures(result)
    return "\n".join([*lines, f"- **{verdict(found)}**", "", table(found)])


def as_json(result: RunBenchmark) -> dict[str, Any]:
    """Return everything as plain values."""
    return {**asdict(result), "figures": [figure.as_dict() for figure in figures(result)]}


def append_results(file: Path, result: RunBenchmark, command: str) -> None:
    """Add a dated section to a Markdown file of results, which is made where it is missing."""
    append_section(file, "engine", command, report(result))


def _rule(n: NetworkFigures) -> str:
    return "1 / (1/F + 1/R)" if n.device.endswith("(cpu)") else "min(F, R)"


def _way(way: OneWay) -> str:
    dice = "" if way.dice is None else f", Dice {way.dice:.3f}"
    return f"{way.seconds:,.1f} s, {way.forwards:,} forwards ({way.fine_forwards:,} fine){dice}"
