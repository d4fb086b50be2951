"""What `histomil bench slides` measured, as text, JSON and a dated section of results."""

from __future__ import annotations

import os
import platform
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from napari_histomil.bench.figures import Figure, append_section, table, verdict
from napari_histomil.bench.slides import ReadingFigures
from napari_histomil.bench.views import SCRIPTS, MemoryFigures, PaintFigures, ViewerFigures

READING, VIEWER, MEMORY = "reading", "viewer", "memory"
PARTS = (READING, VIEWER, MEMORY)


@dataclass(slots=True)
class SlidesBenchmark:
    """All parts that were measured; None for those that were not."""

    slide: str
    size_px0: tuple[int, int]
    texture: str
    """What the made slide's tissue was taken from; empty for a slide that was given."""
    rounds: int
    machine: str
    reading: ReadingFigures | None = None
    viewer: ViewerFigures | None = None
    painting: PaintFigures | None = None
    memory: MemoryFigures | None = None
    left_out: str = ""
    """Why the window was not measured, in a sentence."""

    def figures(self) -> list[Figure]:
        """Return all ratios with their targets."""
        parts = (self.reading, self.painting, self.memory, self.viewer)
        return [figure for part in parts if part is not None for figure in part.figures()]


def describe_machine() -> str:
    """Return processor, cores and system in a few words."""
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
        names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
        name = names[0] if names else name
    return (
        f"{name}, {os.cpu_count()} cores, {platform.system()}, Python {platform.python_version()}"
    )


def report(result: SlidesBenchmark) -> str:
    """Return the figures as lines of text, Markdown too."""
    r = result
    made = f", made here of {r.texture}" if r.texture else ""
    lines = [
        f"- {r.slide}: {r.size_px0[0]:,} x {r.size_px0[1]:,} px{made}",
        f"- machine: {r.machine}; best of {r.rounds} rounds, sides in turns",
    ]
    if r.reading is not None and r.reading.decoder:
        lines.append(f"- raw decoding: pread and {r.reading.decoder}, the same bytes")
    if r.viewer is not None:
        v = r.viewer
        lines.append(
            f"- viewer: canvas of {v.canvas[0]} x {v.canvas[1]} px"
            + (f"; of the slide {v.region}" if v.region else "")
            + (f"; the job did {v.job_tiles:,.0f} tiles/s meanwhile" if v.job_tiles else "")
        )
        lines += [f"- {note}" for note in v.notes]
    if r.left_out:
        lines.append(f"- {r.left_out}")
    lines += [f"- **{verdict(r.figures())}**", "", table(r.figures())]
    if r.viewer is not None:
        lines += ["", *_viewer_table(r.viewer)]
    return "\n".join(lines)


def _viewer_table(viewer: ViewerFigures) -> list[str]:
    """Return all times of the viewer, those without a target too."""
    lines = [
        (
            "Milliseconds, p50 / p95 / max: stall is the longest time in which the window did not "
            "react, complete the time until the picture was."
        ),
        "",
        "| when | script | side | stall | complete |",
        "|---|---|---|---|---|",
    ]
    for when, by_script in viewer.times.items():
        for script, sides in by_script.items():
            for side, times in sides.items():
                words = f"{script}: {SCRIPTS[script]}"
                lines.append(f"| {when} | {words} | {side} | {times.stall} | {times.complete} |")
    return lines


def as_json(result: SlidesBenchmark) -> dict[str, Any]:
    """Return everything that was measured, and the figures with their verdicts."""
    return asdict(result) | {"figures": [figure.as_dict() for figure in result.figures()]}


def append_results(file: Path, result: SlidesBenchmark, command: str) -> None:
    """Add a dated section to a Markdown file of results, which is made where it is missing."""
    append_section(file, "slides", command, report(result))
