"""How long a person waits for a heatmap where CLAM's features and checkpoint are there."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

from napari_histomil.bench.figures import AT_MOST, Figure
from napari_histomil.bench.mil import CLAM_DIM, CLAM_INSTANCES, write_clam_files
from napari_histomil.bench.test_slide import tissue_texture, write_slide
from napari_histomil.errors import RunError
from napari_histomil.ui.bench_canvas import bench_window
from napari_histomil.ui.mil_job import FromFile
from napari_histomil.ui.overlays import overlays
from napari_histomil.ui.session import session
from napari_histomil.ui.widgets.run import RunWidget

SIDE_PX0 = 48

LIMIT_S = 3.0


def measure_click(
    *, instances: int = CLAM_INSTANCES, say: Callable[[str], None] = lambda _: None
) -> Figure:
    """Measure the time from the last click of the Run dock's dialog to the map on the screen.

    Parameters
    ----------
    instances
        Patches that have features.
    say
        Told what goes on.

    Returns
    -------
    Figure
        The time; its note has the longest silence of the window in it.

    Raises
    ------
    RunError
        If the map does not come.
    """
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        folder = Path(name)
        side = (instances**0.5 + 1) * SIDE_PX0
        say("a slide, CLAM's features and checkpoint for it, and the window ...")
        write_slide(folder / "slide.svs", tissue_texture(), (round(side), round(side)))
        features, checkpoint = write_clam_files(folder, side_px0=SIDE_PX0, instances=instances)
        with bench_window() as window:
            state = overlays(window.viewer)
            dock = RunWidget(window.viewer)
            window.viewer.window.add_dock_widget(dock, name="Run", area="right")
            session(window.viewer).open_slide(folder / "slide.svs")
            window.rest(2)
            if state.current is not None:
                raise RunError("A map of before is shown: set HISTOMIL_REOPEN_VIEWS=0.")
            asked = FromFile(features, checkpoint=checkpoint, side_px0=SIDE_PX0)
            before: list[int] = []  # frames, when the map came
            window.viewer.layers.events.inserted.connect(lambda: before.append(window.frames))
            took = window.time(
                lambda: dock.from_file.start(asked),
                lambda: bool(before) and window.frames > before[0],
            )
            session(window.viewer).close_slide(session(window.viewer).active)
    return Figure(
        f"CLAM's files in the window, from the click to the map on the screen: {instances:,} x "
        f"{CLAM_DIM}",
        took.complete, AT_MOST, LIMIT_S, "s",
        note=f"longest stall meanwhile {took.stall:.2f} s",
    )  # fmt: skip
