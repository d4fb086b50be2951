"""Patches of a MIL run as pictures: thumbnails, a contact sheet; done in the thread of a job."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from napari_histomil.exchange.contact_sheet import PATCH_PX, SheetPatch, write_contact_sheet
from napari_histomil.slides.slide import Slide, SlideInfo, Uint8Image, read_rect
from napari_histomil.ui.answers import headline
from napari_histomil.ui.attention_maps import level_name
from napari_histomil.ui.attention_view import PICKS, AttentionView

Frame = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class Picked:
    """One patch of a list."""

    tile: int
    value: str
    """On the scale that is shown."""
    frame_px0: Frame
    """x, y, width, height."""
    words: str
    """Rank, value on every scale, place; a line each."""


def picked(view: AttentionView, info: SlideInfo) -> list[Picked]:
    """Return the patches that are listed, with what is said of each."""
    mpp_x, mpp_y = info.mpp_xy
    found = []
    for n, tile in enumerate(view.picked.tolist(), 1):
        readings = view.readings(tile)
        frame = view.frames_px0(tile)[0]
        x, y = frame[:2]
        named = dict(readings)
        value = named.get(view.normalisation, readings[0][1]).removesuffix(" logit units")
        lines = [
            f"{n} of {view.picks}",
            *(f"{name}: {text}" for name, text in readings),
            f"x {x:.0f}, y {y:.0f} px of level 0",
            f"x {x * mpp_x:.0f}, y {y * mpp_y:.0f} µm",
        ]
        found.append(Picked(tile, value, frame, "\n".join(lines)))
    return found


def read_thumbnails(
    slide: Slide, frames_px0: Sequence[Frame], side_px: int, cancel: threading.Event
) -> Iterator[tuple[int, Uint8Image]]:
    """Yield the number and pixels [side_px, side_px, 3] of each patch, until cancelled."""
    for n, (x, y, width, height) in enumerate(frames_px0):
        if cancel.is_set():
            return
        yield n, read_rect(slide, (x, y), (width, height), (side_px, side_px))


def heading(view: AttentionView, info: SlideInfo) -> list[str]:
    """Return the lines above a contact sheet."""
    scale = "" if view.signed else f", {view.normalisation}"
    return [
        f"{info.path.name}: {headline(view.run)}",
        f"{view.run.model['name']}, {view.title}{scale}, {level_name(view.run, view.level)}",
        f"{PICKS[view.picks]}; x and y are the patch's upper left corner".capitalize(),
    ]


def write_sheet(
    path: Path,
    slide: Slide,
    patches: Sequence[Picked],
    above: Sequence[str],
    cancel: threading.Event,
) -> bool:
    """Write a contact sheet; returns False if it was cancelled before."""
    frames = [each.frame_px0 for each in patches]
    pixels = [image for _, image in read_thumbnails(slide, frames, PATCH_PX, cancel)]
    if cancel.is_set():
        return False
    mpp_x, mpp_y = slide.info.mpp_xy
    sheet = [
        SheetPatch(
            image,
            (
                f"{n}   {each.value}",
                f"x {each.frame_px0[0]:.0f}, y {each.frame_px0[1]:.0f} px",
                f"x {each.frame_px0[0] * mpp_x:.0f}, y {each.frame_px0[1] * mpp_y:.0f} µm",
            ),
        )
        for n, (each, image) in enumerate(zip(patches, pixels, strict=True), 1)
    ]
    write_contact_sheet(path, sheet, above)
    return True
