"""Opening a slide beside the window's own work."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator
from pathlib import Path

from napari_histomil.slides.readers import open_slide
from napari_histomil.ui.layers import LayerData, slide_layer

Opening = Callable[[threading.Event], Generator[None, None, LayerData]]


def opening(path: Path, *, reader: str | None = None, icc: bool = False) -> Opening:
    """Return the work of opening a slide, for `jobs.start`; its result is for `add_slide`.

    Parameters
    ----------
    path, reader, icc
        As in `readers.open_slide`.
    """

    def work(_cancel: threading.Event) -> Generator[None, None, LayerData]:
        yield from ()
        layer_data = slide_layer(open_slide(path, reader=reader, icc=icc))
        layer_data[0][0].pyramid.coarse(1)  # begins to be fetched until it is shown
        return layer_data

    return work
