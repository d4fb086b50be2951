"""The view as a figure: the canvas as it is seen, with scale bar, magnification and legends.

1. What napari draws over the canvas (scale bar, text) is put away: the figure has its own, sharp
   at any size and in ink on white.
2. The picture is waited for, so that no coarse patch gets into a figure. At twice the screen's
   resolution the canvas is seen in four quarters, each at twice the zoom.
3. Picture and legend are painted, onto pixels for PNG and TIFF, onto a page for PDF.

The slide's name is not in it unless it is asked for: file names often hold a patient's.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from qtpy.QtWidgets import QApplication

from napari_histomil.errors import HistomilError, OutputError
from napari_histomil.files import whole_file
from napari_histomil.slides.slide import Uint8Image
from napari_histomil.ui import camera
from napari_histomil.ui.figure_paint import Figure, FigureOptions, Legend, paint, write_pdf
from napari_histomil.ui.legend import entries_in_view, entries_of_run
from napari_histomil.ui.orientation import center_of_world, look_at_world, world_step
from napari_histomil.ui.overlays import overlays
from napari_histomil.ui.painting import painting
from napari_histomil.ui.session import SlideSession

FORMATS = {".png": "PNG", ".tif": "TIFF", ".tiff": "TIFF", ".pdf": "PDF"}

WAIT_SECONDS = 60.0
"""So long the picture is waited for; a slide on a slow network drive takes its time."""


def save_figure(
    viewer: Any, slide: SlideSession, path: Path, options: FigureOptions | None = None
) -> None:
    """Write the view as PNG, TIFF or PDF, by the suffix of `path`.

    Parameters
    ----------
    viewer
        The napari viewer.
    slide
        The slide that is looked at.
    path
        File to write; it appears whole or not at all.
    options
        What is in it.

    Raises
    ------
    OutputError
        If the suffix is none of `FORMATS`, or the file cannot be written.
    HistomilError
        If the picture does not become complete in time.
    """
    kind = FORMATS.get(path.suffix.lower())
    if kind is None:
        raise OutputError(
            f"{path.name} cannot be written: end its name in .png, .tif or .pdf, so that it is "
            f"known how."
        )
    figure = take_figure(viewer, slide, options or FigureOptions())
    with whole_file(path) as part:
        if kind == "PDF":
            write_pdf(figure, part)
            return
        image = Image.fromarray(paint(figure))
        if kind == "PNG":
            image.save(part, format="PNG")
            return
        # Readers of microscope pictures take the scale from here.
        per_cm = 1e4 / figure.um_per_pixel if figure.um_per_pixel else None
        image.save(
            part,
            format="TIFF",
            compression="tiff_adobe_deflate",
            **({"resolution": per_cm, "resolution_unit": 3} if per_cm else {}),
        )


def take_figure(viewer: Any, slide: SlideSession, options: FigureOptions) -> Figure:
    """Wait until the picture is complete and return it with all that explains it."""
    picture = grab(viewer, slide, options.scale)
    current = overlays(viewer).current
    shows = (
        current is not None
        and options.colour_bar
        and current.slide is slide
        and current.layer.visible
    )
    um_per_pixel = power = None
    if slide.has_mpp:
        width_um = viewer.canvas.size[1] / viewer.scene.camera.zoom
        um_per_pixel = width_um / picture.shape[1]
        power = camera.magnification(
            viewer, pixel_ratio=picture.shape[1] / options.scale / viewer.canvas.size[1]
        )
    legend = Legend.of(current) if shows and current is not None else None
    classes = tuple(entries_in_view(viewer, slide)) if options.classes else ()
    if shows and current is not None:
        known = {entry.name for entry in classes}
        found = entries_of_run(current)
        classes = (*(entry for entry in found if entry.name not in known), *classes)
    return Figure(picture, um_per_pixel, power, legend, options, classes)


# --- the picture --------------------------------------------------------------------------------


def grab(viewer: Any, slide: SlideSession, scale: int) -> Uint8Image:
    """Return the canvas as it is seen, [h, w, 3], complete, without what napari draws over it.

    Parameters
    ----------
    scale
        1, or 2 for twice the resolution.

    Raises
    ------
    HistomilError
        If the picture does not become complete in `WAIT_SECONDS`.
    """
    with _bare(viewer):
        if scale == 1:
            return _shot(viewer, slide)
        view = viewer.scene.camera
        center, zoom, middle = view.center, view.zoom, center_of_world(viewer)
        height, width = viewer.canvas.size
        try:
            rows = []
            for y in (-0.5, 0.5):
                row = []
                for x in (-0.5, 0.5):
                    view.zoom = 2 * zoom
                    look_at_world(viewer, middle + world_step(viewer, (x * width, y * height)))
                    row.append(_shot(viewer, slide))
                rows.append(np.concatenate(row, axis=1))
            return np.concatenate(rows, axis=0)
        finally:
            view.zoom = zoom
            view.center = center


def _shot(viewer: Any, slide: SlideSession) -> Uint8Image:
    QApplication.processEvents()
    painted, current = painting(slide.layer), overlays(viewer).current
    result = None if current is None else current.painter
    complete = painted is None or painted.wait(WAIT_SECONDS)
    if not complete or not (result is None or result.wait(WAIT_SECONDS)):
        raise HistomilError(
            f"The picture of {slide.name} was not complete after {WAIT_SECONDS:.0f} seconds: wait "
            f"until the slide is loaded, and save the figure again."
        )
    shot: NDArray[np.uint8] = viewer.screenshot(canvas_only=True, flash=False)
    return np.ascontiguousarray(shot[..., :3])


@contextmanager
def _bare(viewer: Any) -> Iterator[None]:
    """Put away what napari draws over the canvas, for a moment."""
    hidden = [overlay for overlay in viewer.canvas.overlays.values() if overlay.visible]
    background = viewer.canvas.background_color_override
    for overlay in hidden:
        overlay.visible = False
    viewer.canvas.background_color_override = "white"  # around the slide, as on paper
    try:
        yield
    finally:
        viewer.canvas.background_color_override = background
        for overlay in hidden:
            overlay.visible = True
