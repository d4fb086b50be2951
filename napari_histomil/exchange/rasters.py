"""Heatmaps as pictures: a pyramidal OME-TIFF of the values, a PNG over the slide for people."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from napari_histomil.errors import RunError
from napari_histomil.exchange.facts import class_column, default_class, ome_metadata, provenance
from napari_histomil.files import whole_file
from napari_histomil.heatmaps import score_image
from napari_histomil.results import RunStore
from napari_histomil.results.segmentation import sum_of_four
from napari_histomil.slides.slide import Slide, read_rect

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TIFF_TILE_PX = 256

PNG_LONG_SIDE_PX = 1600
"""Longer side of the slide in the picture."""

OPACITY = 0.5


def write_tiff(run: RunStore, path: Path, class_name: str | None = None) -> tuple[int, int]:
    """Write a heatmap as a tiled, pyramidal float32 OME-TIFF.

    A pixel is a cell of the grid: pixel (r, c) covers ``r .. r + 1`` times the pixel size in µm
    from the slide's corner, and NaN means that there is no score. Coarser levels are the mean of
    what is known. Where there are coarser levels, NaN is added on the right and at the bottom
    until every level is exactly half the one before, so that no reader shifts it.

    Parameters
    ----------
    run
        The run.
    path
        Where; ``.ome.tif`` by custom.
    class_name
        One class; None for all, one page (channel) a class.

    Returns
    -------
    (rows, columns)
        Size of the full level.

    Raises
    ------
    RunError
        If the run has no class of that name.
    OutputError
        If the file cannot be written there.
    """
    names = run.class_names if class_name is None else (class_name,)
    scores = run.scores
    columns = [class_column(run, name) for name in names]
    full = np.stack([score_image(run.grid, scores[:, column]) for column in columns])
    levels = _pyramid(full)
    cell_um = run.grid.spec.cell_um
    metadata = ome_metadata(run, names, cell_um)
    with whole_file(path) as part, tifffile.TiffWriter(part, ome=True) as tiff:
        for index, level in enumerate(levels):
            per_cm = 1e4 / (cell_um * 2**index)
            tiff.write(
                level,
                photometric="minisblack",
                tile=(TIFF_TILE_PX, TIFF_TILE_PX),
                compression="zlib",
                resolution=(per_cm, per_cm),
                resolutionunit="CENTIMETER",
                subifds=None if index else len(levels) - 1,
                subfiletype=1 if index else 0,
                metadata=None if index else metadata,
            )
    return int(levels[0].shape[1]), int(levels[0].shape[2])


def write_png(run: RunStore, path: Path, slide: Slide, class_name: str | None = None) -> None:
    """Write a picture: the slide, the heatmap over it, colour bar and scale bar.

    Parameters
    ----------
    run
        The run.
    path
        Where.
    slide
        The slide that the run looked at.
    class_name
        The class shown; None for the model's positive class, else its last.

    Raises
    ------
    RunError
        If the run has no class of that name, or `slide` is another slide.
    OutputError
        If the file cannot be written there.
    """
    # The object-oriented interface: pyplot would look for a display and keep every figure.
    from matplotlib.figure import Figure

    if slide.info.fingerprint != run.slide["fingerprint"]:
        raise RunError(
            f"{slide.info.path.name} is not the slide of this run ({run.slide['name']}): its "
            f"content is different."
        )
    name = class_name or default_class(run)
    image = score_image(run.grid, run.scores[:, class_column(run, name)])
    mpp_x, mpp_y = run.grid.slide_mpp
    width_um, height_um = slide.info.width_px0 * mpp_x, slide.info.height_px0 * mpp_y
    longest_um = max(width_um, height_um)
    size = (
        max(round(PNG_LONG_SIDE_PX * width_um / longest_um), 1),
        max(round(PNG_LONG_SIDE_PX * height_um / longest_um), 1),
    )
    figure = Figure(
        figsize=(max(size[0] / 200, 3) + 1.2, max(size[1] / 200, 2) + 1.2),
        dpi=200,
        layout="constrained",
    )
    axes = figure.add_subplot()
    whole_px0 = (slide.info.width_px0, slide.info.height_px0)
    axes.imshow(read_rect(slide, (0, 0), whole_px0, size), extent=(0, width_um, height_um, 0))
    cell_um = run.grid.spec.cell_um
    shown = axes.imshow(
        np.ma.masked_invalid(image),
        extent=(0, image.shape[1] * cell_um, image.shape[0] * cell_um, 0),
        vmin=0,
        vmax=1,
        cmap="viridis",
        alpha=OPACITY,
        interpolation="nearest",
    )
    axes.set(xlim=(0, width_um), ylim=(height_um, 0), xticks=[], yticks=[])
    bar = figure.colorbar(shown, cax=axes.inset_axes((1.02, 0, 0.04, 1)))
    assert bar.solids is not None
    bar.solids.set(alpha=1)  # the colours of the map itself, not mixed with white
    title = f"{run.slide['name']}\n{run.model['name']}, {name}{_share_done(run)}"
    axes.set_title(title, fontsize=9, parse_math=False)
    bar.set_label(f"score of {name}", parse_math=False)
    draw_scale_bar(axes, width_um, height_um)
    save_png(figure, path, title, provenance(run))


def save_png(figure: Figure, path: Path, title: str, about: Mapping[str, Any]) -> None:
    """Write a figure as PNG that says in its metadata what it is.

    Parameters
    ----------
    figure, path
        What is written where, whole or not at all.
    title
        Kept as the title.
    about
        Kept as the description, as JSON.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    with whole_file(path) as part, warnings.catch_warnings():
        # A name in a script that the font lacks shows as boxes; the picture is right all the same.
        warnings.filterwarnings("ignore", message="Glyph", category=UserWarning)
        FigureCanvasAgg(figure)
        figure.savefig(
            part,
            format="png",
            bbox_inches="tight",
            pad_inches=0.15,
            metadata={"Title": title, "Description": json.dumps(about)},
        )


def _share_done(run: RunStore) -> str:
    done = int(run.done_tiles.sum())
    return "" if run.complete else f"\nunfinished: {done} of {len(run.grid)} tiles"


def _pyramid(full: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    """Return [C, rows, columns] and its halves, quarters, ... down to one TIFF tile."""
    halvings = max(math.ceil(math.log2(max(full.shape[1:]) / TIFF_TILE_PX)), 0)
    step = 2**halvings
    pad = [(0, 0), *((0, -side % step) for side in full.shape[1:])]
    levels = [np.pad(full, pad, constant_values=np.nan)]
    known = np.isfinite(levels[0])
    sums, counts = np.where(known, levels[0], 0).astype(np.float64), known.astype(np.float64)
    for _ in range(halvings):
        sums, counts = sum_of_four(sums), sum_of_four(counts)
        mean = np.full(sums.shape, np.nan)
        np.divide(sums, counts, out=mean, where=counts > 0)
        levels.append(mean.astype(np.float32))
    return levels


def scale_bar_um(width_um: float) -> float:
    """Return a round length of 1, 2 or 5 times a power of ten, about a fifth of the width."""
    power = 10.0 ** math.floor(math.log10(width_um / 5))
    return max(step * power for step in (1, 2, 5) if step * power <= width_um / 5)


def draw_scale_bar(axes: Axes, width_um: float, height_um: float) -> None:
    """Draw a bar with its length above it, white on black's shadow, in the lower left corner."""
    length_um = scale_bar_um(width_um)
    label = f"{length_um / 1000:g} mm" if length_um >= 1000 else f"{length_um:g} µm"
    x, y = 0.03 * width_um, height_um - 0.03 * width_um
    backed = {"facecolor": "white", "alpha": 0.8, "linewidth": 0, "pad": 2}
    axes.plot([x, x + length_um], [y, y], color="black", linewidth=3, solid_capstyle="butt")
    axes.text(
        x + length_um / 2,
        y - 0.012 * width_um,
        label,
        ha="center",
        va="bottom",
        fontsize=8,
        bbox=backed,
    )
