"""How the view is turned and mirrored: a change of the picture, never of a coordinate.

napari can show either axis of the plane across the canvas (``dims.order``) and let each run either
way (``camera.orientation2d``). Together these are all eight ways to lay a sheet on a table: turned
by quarters, and turned over. Both belong to the viewer, so layers, annotations, heatmaps and
whatever is read out or exported stay where they are, and the finest pixels stay pixels of the
screen. Free angles are not to be had this way: napari's flat camera has none, and a rotation in
the layers' transforms would move their coordinates in the world.

The viewer is the only place where the state is kept, so napari's own "transpose" is understood
too. This module knows neither Qt nor slides.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

_QUARTER = np.array([[0, -1], [1, 0]])
"""(x, y) -> (x, y), y downwards, turned clockwise by 90 degrees."""

_MIRROR = np.array([[-1, 0], [0, 1]])
"""Left and right exchanged."""

_TURNED = ("", "turned 90° right", "turned 180°", "turned 90° left")


@dataclass(frozen=True, slots=True)
class Orientation:
    """One of the eight ways to lay the slide under the view: turned, then mirrored."""

    quarter_turns: int = 0
    """Clockwise, 0 to 3."""
    mirrored: bool = False
    """Left and right exchanged on the screen, after turning."""

    @classmethod
    def from_matrix(cls, matrix: NDArray[np.int64]) -> Orientation:
        """Return the orientation of a `matrix`."""
        for mirrored in (False, True):
            for turns in range(4):
                if np.array_equal(cls(turns, mirrored).matrix, matrix):
                    return cls(turns, mirrored)
        raise ValueError(f"{matrix.tolist()} is no quarter turn")

    @property
    def matrix(self) -> NDArray[np.int64]:
        """[2, 2]: steps (x, y) on the slide to steps (x, y) on the screen, y downwards.

        Its transpose leads back.
        """
        turned = np.linalg.matrix_power(_QUARTER, self.quarter_turns % 4)
        return _MIRROR @ turned if self.mirrored else turned

    @property
    def transposed(self) -> bool:
        """Whether the slide's x runs up or down on the screen."""
        return self.quarter_turns % 2 == 1

    @property
    def text(self) -> str:
        """In words, such as ``turned 90° right, mirrored``; empty where nothing is changed."""
        if not self.mirrored:
            return _TURNED[self.quarter_turns]
        if self.transposed:
            return f"{_TURNED[self.quarter_turns]}, mirrored"
        return "mirrored up-down" if self.quarter_turns == 2 else "mirrored left-right"

    def turned(self, quarters: int) -> Orientation:
        """Return this one with the screen's picture turned on, clockwise."""
        return self.from_matrix(np.linalg.matrix_power(_QUARTER, quarters % 4) @ self.matrix)

    def mirrored_left_right(self) -> Orientation:
        """Return this one with left and right of the screen exchanged."""
        return self.from_matrix(_MIRROR @ self.matrix)

    def mirrored_up_down(self) -> Orientation:
        """Return this one with top and bottom of the screen exchanged."""
        return self.from_matrix(-_MIRROR @ self.matrix)


STRAIGHT = Orientation()
"""The slide as it is stored."""


def orientation_of(viewer: Any) -> Orientation:
    """Return how a viewer shows the plane, whoever turned it."""
    vertical, horizontal = (str(each.value) for each in viewer.scene.camera.orientation2d)
    across = 1 if horizontal == "right" else -1
    down = 1 if vertical == "down" else -1
    matrix = np.array(
        [[0, across], [down, 0]] if _transposed(viewer) else [[across, 0], [0, down]]
    )
    return Orientation.from_matrix(matrix)


def set_orientation(viewer: Any, wanted: Orientation) -> None:
    """Turn and mirror the view about the middle of the canvas; the zoom stays.

    Parameters
    ----------
    viewer
        A napari viewer or ``ViewerModel``.
    wanted
        How the plane is shown from now on.
    """
    if orientation_of(viewer) == wanted:
        return
    view = viewer.scene.camera
    middle, zoom = center_of_world(viewer), view.zoom
    if _transposed(viewer) != wanted.transposed:
        viewer.dims.transpose()  # which lets napari fit all layers into the view
    across, down = wanted.matrix.sum(axis=1)  # one number of each row is not 0
    view.orientation2d = ("down" if down > 0 else "up", "right" if across > 0 else "left")
    view.zoom = zoom
    look_at_world(viewer, middle)


def center_of_world(viewer: Any) -> NDArray[np.float64]:
    """Return the world position (row, col) in the middle of the canvas."""
    center = np.array(viewer.scene.camera.center[-2:], float)  # as (down, across) on the screen
    return center[::-1] if _transposed(viewer) else center


def look_at_world(viewer: Any, position: ArrayLike) -> None:
    """Move a world position (row, col) into the middle of the canvas; the zoom stays."""
    row, col = np.asarray(position, float)
    down, across = (col, row) if _transposed(viewer) else (row, col)
    view = viewer.scene.camera
    view.center = (view.center[0], float(down), float(across))


def world_step(viewer: Any, step_px: ArrayLike) -> NDArray[np.float64]:
    """Return the step in the world (row, col) that a step on the canvas makes.

    Parameters
    ----------
    viewer
        A napari viewer or ``ViewerModel``.
    step_px
        float [..., 2], (x, y) in logical pixels of the canvas, y downwards.

    Returns
    -------
    float64 [..., 2]
    """
    xy = np.asarray(step_px, float) @ orientation_of(viewer).matrix  # rows times M are M^T rows
    return xy[..., ::-1] / viewer.scene.camera.zoom


def canvas_step(viewer: Any, step_world: ArrayLike) -> NDArray[np.float64]:
    """Return the step (x, y) on the canvas of a step (row, col) in the world: see `world_step`."""
    xy = np.asarray(step_world, float)[..., ::-1] @ orientation_of(viewer).matrix.T
    return xy * viewer.scene.camera.zoom


def view_signals(viewer: Any) -> tuple[Any, ...]:
    """Return the signals after which a viewer may look at something else, or otherwise."""
    camera = viewer.scene.camera.events
    return camera.center, camera.zoom, camera.orientation, viewer.dims.events.order


def _transposed(viewer: Any) -> bool:
    down, across = viewer.dims.displayed[-2:]
    return bool(down > across)
