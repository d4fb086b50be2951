"""The keys of drawing: on our layer those that people know from QuPath, some everywhere.

The table is in `ui/keys.py`. Keys of our Shapes layer beat all others while it is active, which it
is with every tool in the hand. Of those that work everywhere, Ctrl-Z is left to a Labels layer
that is active: it has its own undo, and two must not fire.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from qtpy.compat import isalive

from napari_histomil.ui.keys import KEYS, LAYER_KEYS

if TYPE_CHECKING:
    from napari_histomil.ui.drawing.canvas import DrawingCanvas

EVERYWHERE = ("annotate.undo", "annotate.redo")
"""Keys of the layer that the viewer has too."""

PAN = "annotate.pan"


def bind_keys(viewer: Any, canvas: DrawingCanvas, layer: Any = None) -> None:
    """Bind the keys of the window, or those of our layer.

    Parameters
    ----------
    viewer
        The viewer; a plugin's proxy of it does as well.
    canvas
        What the keys act on; held weakly.
    layer
        Our Shapes layer; None for the window's keys.
    """
    held = weakref.ref(canvas)
    acts = _acts()
    if layer is None:
        for name in (*(name for name in KEYS if name in acts), *EVERYWHERE):
            key = KEYS[name] if name in KEYS else LAYER_KEYS[name]
            viewer.bind_key(key.key, _press(held, acts[name]), overwrite=True)
        return
    for name, key in LAYER_KEYS.items():
        act = _hold(held) if name == PAN else _press(held, acts[name])
        layer.bind_key(key.key, act, overwrite=True)


def _acts() -> dict[str, Callable[[DrawingCanvas], None]]:
    """Return what each key of drawing does."""
    acts: dict[str, Callable[[DrawingCanvas], None]] = {
        "annotate.toggle": lambda canvas: canvas.toggle(),
        "annotate.undo": lambda canvas: canvas.undo(),
        "annotate.redo": lambda canvas: canvas.redo(),
        "annotate.enter": lambda canvas: canvas.enter(),
        "annotate.escape": lambda canvas: canvas.escape(),
        "annotate.back": lambda canvas: canvas.backspace(),
        "annotate.delete": lambda canvas: canvas.delete(),
        "annotate.smaller": lambda canvas: canvas.larger(-1),
        "annotate.larger": lambda canvas: canvas.larger(1),
        "region.next": lambda canvas: canvas.state.step(1),
        "region.previous": lambda canvas: canvas.state.step(-1),
    }
    for name in (*KEYS, *LAYER_KEYS):
        family, _, which = name.partition(".")
        if family == "tool":
            acts[name] = lambda canvas, which=which: canvas.take(which)
        elif family in ("class", "anyclass"):
            acts[name] = lambda canvas, which=which: canvas.choose(int(which))
    return acts


def _press(
    held: weakref.ref[DrawingCanvas], act: Callable[[DrawingCanvas], None]
) -> Callable[[Any], None]:
    def press(_: Any) -> None:
        canvas = held()
        if canvas is not None and isalive(canvas):
            act(canvas)

    return press


def _hold(held: weakref.ref[DrawingCanvas]) -> Callable[[Any], Iterator[None]]:
    def hold(_: Any) -> Iterator[None]:
        canvas = held()
        if canvas is not None and isalive(canvas):
            canvas.panning = True
        yield
        canvas = held()
        if canvas is not None and isalive(canvas):
            canvas.panning = False

    return hold
