"""How a slide is looked at, in plain values: taken from a viewer and brought back to it.

It is in level-0 pixels and plain words, so that it holds on another screen too. What is read may
be damaged or of another program: whatever does not make sense is left out. When this happens is
the matter of `view_keeper.py`.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from napari_histomil.errors import RunError
from napari_histomil.exchange.labels import Steps
from napari_histomil.heatmaps import NORMALISATIONS
from napari_histomil.results import find_results, open_result
from napari_histomil.slides.remembered import recall_view
from napari_histomil.slides.slide import SlideInfo
from napari_histomil.ui import camera
from napari_histomil.ui.brightness import Tone
from napari_histomil.ui.colours import COLOUR_MAPS
from napari_histomil.ui.layers import center_of_view_px0, world_scale
from napari_histomil.ui.linked import hides
from napari_histomil.ui.orientation import Orientation, orientation_of, set_orientation
from napari_histomil.ui.overlays import overlays
from napari_histomil.ui.run_facts import AnyStore
from napari_histomil.ui.segmentation_view import SegmentationView
from napari_histomil.ui.session import RunView, SlideSession, session

_STEPS = ("threshold", "fill_holes_um2", "smooth_um", "remove_objects_um2")


@dataclass(frozen=True, slots=True)
class Place:
    """Where to look: the middle of the view, and how closely."""

    xy_px0: tuple[float, float]
    power: float
    """Magnification on the screen, such as 20."""


@dataclass(frozen=True, slots=True)
class Kept:
    """What was kept of a slide, with its runs opened."""

    view: dict[str, Any]
    runs: list[tuple[AnyStore, dict[str, Any]]]

    @classmethod
    def read(cls, info: SlideInfo, cancel: threading.Event) -> Kept | None:
        """Read it; in a thread. Runs that are gone or damaged are left out."""
        view = recall_view(info.path, info.fingerprint)
        if view is None:
            return None
        states = view.get("runs")
        wanted = {
            state["id"]: state
            for state in (states if isinstance(states, list) else [])
            if isinstance(state, dict) and isinstance(state.get("id"), str)
        }
        stores: dict[str, AnyStore] = {}
        for path in find_results(info) if wanted else []:
            if path.stem not in wanted or path.stem in stores or cancel.is_set():
                continue
            try:
                stores[path.stem] = open_result(path)
            except RunError:
                continue  # the Overlay dock lists it, with the reason
        return cls(view, [(stores[id_], wanted[id_]) for id_ in wanted if id_ in stores])


def view_of(viewer: Any, slide: SlideSession, tone: Tone) -> dict[str, Any]:
    """Return how a slide that is active is looked at."""
    x, y = center_of_view_px0(viewer, slide.info)
    orientation = orientation_of(viewer)
    current = overlays(viewer).current
    return {
        "center_px0": [round(x, 2), round(y, 2)],
        "px0_per_screen_pixel": px0_per_screen_pixel(viewer, slide.info),
        "quarter_turns": orientation.quarter_turns,
        "mirrored": orientation.mirrored,
        "scale_bar": bool(viewer.canvas.overlays.scale_bar.visible),
        "brightness_percent": tone.brightness,
        "gamma": tone.gamma,
        "runs": [_run_state(viewer, run) for run in session(viewer).runs_of(slide)],
        "current_run": current.store.run_id if current is not None else None,
    }


def tone_of(view: Mapping[str, Any]) -> Tone:
    """Return the brightness and gamma of a view."""
    return Tone.within_range(
        _number(view, "brightness_percent", 100.0), _number(view, "gamma", 1.0)
    )


def px0_per_screen_pixel(viewer: Any, info: SlideInfo) -> float:
    """Return the level-0 pixels, along x, that a physical pixel of the screen shows."""
    return float(camera.um_per_pixel(viewer) / world_scale(info)[1])


def go_to_place(viewer: Any, info: SlideInfo, place: Place) -> None:
    """Look at a place; the slide's µm/px must be known."""
    camera.set_magnification(viewer, place.power)
    camera.go_to_px0(viewer, info, place.xy_px0)


def bring_back_camera(viewer: Any, info: SlideInfo, view: Mapping[str, Any]) -> None:
    """Look where a view was; what is damaged in it, or lies off the slide, is left out."""
    turns, mirrored = view.get("quarter_turns"), view.get("mirrored")
    if turns in (0, 1, 2, 3) and isinstance(mirrored, bool):
        set_orientation(viewer, Orientation(int(turns), mirrored))
    center = view.get("center_px0")
    per_pixel = _number(view, "px0_per_screen_pixel", 0.0)
    if not (isinstance(center, list) and len(center) == 2 and all(map(_is_number, center))):
        return
    x, y = center
    if not (0 <= x <= info.width_px0 and 0 <= y <= info.height_px0):
        return
    if 1e-4 < per_pixel < 1e6:
        ratio = camera.pixel_ratio_of(viewer)
        viewer.scene.camera.zoom = 1 / (per_pixel * world_scale(info)[1] * ratio)
    camera.go_to_px0(viewer, info, (x, y))


def _run_state(viewer: Any, run: RunView) -> dict[str, Any]:
    common = {
        "id": run.store.run_id,
        "opacity": round(float(run.layer.opacity), 3),
        "visible": bool(run.layer.visible) or hides(viewer, run),
    }
    heatmap = run.heatmap
    if heatmap is None:
        return common | _style_state(run.segmentation)
    if run.attention is not None:
        return common | run.attention.state()
    return common | {
        "class": heatmap.class_name,
        "colours": heatmap.colours,
        "normalisation": heatmap.normalisation,
        "threshold": heatmap.threshold,
    }


def _style_state(view: SegmentationView) -> dict[str, Any]:
    style = view.style
    return {
        "class": view.class_name,
        "classes_on": list(view.names_on),
        "probability": style.probability,
        "outline": style.outline,
        "colours": style.colours,
        **{name: getattr(style.steps, name) for name in _STEPS},
    }


def bring_back_run(run: RunView, state: Mapping[str, Any]) -> None:
    """Show a result as it was shown."""
    run.layer.opacity = min(max(_number(state, "opacity", run.layer.opacity), 0.0), 1.0)
    if run.segmentation is not None:
        _bring_back_style(run.segmentation, state)
        return
    if run.attention is not None:
        run.attention.bring_back(state)
        return
    heatmap = run.heatmap
    if state.get("class") in heatmap.class_names:
        heatmap.class_index = heatmap.class_names.index(state["class"])
    if state.get("colours") in COLOUR_MAPS:
        heatmap.colours = state["colours"]
    if state.get("normalisation") in NORMALISATIONS:
        heatmap.normalisation = state["normalisation"]
    heatmap.threshold = min(max(_number(state, "threshold", heatmap.threshold), 0.0), 1.0)


def _bring_back_style(view: SegmentationView, state: Mapping[str, Any]) -> None:
    ways = ("probability", "outline")
    changes: dict[str, Any] = {key: state[key] for key in ways if isinstance(state.get(key), bool)}
    on, names = state.get("classes_on"), view.class_names
    if isinstance(on, list):
        changes["on"] = tuple(name in on for name in names)
    if state.get("class") in names:
        changes["class_index"] = names.index(state["class"])
    if state.get("colours") in COLOUR_MAPS:
        changes["colours"] = state["colours"]
    sizes = {name: max(_number(state, name, 0.0), 0.0) for name in _STEPS[1:]}
    threshold = state.get("threshold")
    given = min(max(float(threshold), 0.0), 1.0) if _is_number(threshold) else None
    view.change(**changes, steps=Steps(given, **sizes))


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _number(values: Mapping[str, Any], key: str, default: float) -> float:
    value = values.get(key)
    return float(value) if _is_number(value) else default
