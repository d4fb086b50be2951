"""Which cells live where, and stamping them on a block."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
from numpy.typing import NDArray

from napari_histomil.slides.synthetic.cells import (
    CENTROCYTE,
    ERYTHROCYTE,
    HISTIOCYTE,
    LYMPHOCYTE,
    SPINDLE,
    TUMOUR,
    TURNS,
    Kind,
    Stamps,
    lattice,
    stamp,
)
from napari_histomil.slides.synthetic.fields import Canvas, Fields
from napari_histomil.slides.synthetic.noise import Floats, hash01
from napari_histomil.slides.synthetic.scene import Scene, Zones


def populate(
    canvas: Canvas,
    kind: Kind,
    stamps: Stamps,
    scene: Scene,
    fields_: Fields,
    corner_um: tuple[float, float],
    mpp: float,
) -> None:
    """Stamp all cells of a kind that lie in a block or reach into it.

    Parameters
    ----------
    canvas
        The block.
    kind, stamps
        The kind and its pictures.
    scene, fields_
        The plan, and its zones around the block.
    corner_um
        Top-left corner (x, y) of the block.
    mpp
        Resolution in µm/px.
    """
    key = scene.seed * 31 + 101 + 10 * kind.key
    side_um = len(canvas.nuclei) * mpp
    gx, gy, x, y = lattice(kind.spacing_um, kind.jitter, corner_um, side_um, key)
    zones = fields_.points(x, y)
    keep = _lives_here(kind, zones, hash01(gx, gy, key + 2), scene)
    if not keep.any():
        return
    gx, gy, x, y = gx[keep], gy[keep], x[keep], y[keep]
    zones = Zones(*(getattr(zones, f.name)[keep] for f in fields(Zones)))
    chance = hash01(gx, gy, key + 3)
    turn = chance * TURNS
    gain = 0.8 + 0.4 * hash01(gx, gy, key + 5)
    if kind is TUMOUR:
        # Cells beside a lumen stand around it in one row, their long axis towards it.
        norm = np.hypot(zones.lumen_dx, zones.lumen_dy) + 1e-3
        shift = np.where(_beside_lumen(zones), zones.lumen + 8.5, 0)
        x, y = x + shift * zones.lumen_dx / norm, y + shift * zones.lumen_dy / norm
        radial = np.arctan2(zones.lumen_dy, zones.lumen_dx) / np.pi * TURNS
        turn = np.where(_beside_lumen(zones), radial + chance, turn)
    elif kind is SPINDLE:
        here = _across(zones, zones, scene)
        ahead = _across(fields_.points(x + 1, y), zones, scene) - here
        beside = _across(fields_.points(x, y + 1), zones, scene) - here
        turn = (np.arctan2(beside, ahead) / np.pi + 0.5) * TURNS + 2 * chance
    elif kind is LYMPHOCYTE:
        mantle = np.clip(1 - np.abs(zones.follicle + 22) / 30, 0, 1)
        gain = gain * (zones.crowding + 0.18 * mantle)
    x_px = np.floor((x - corner_um[0]) / mpp).astype(np.int64)
    y_px = np.floor((y - corner_um[1]) / mpp).astype(np.int64)
    gain, choice = gain.astype(np.float32), hash01(gx, gy, key + 4)
    if stamps.bodies:
        bodies = [stamps.bodies[i] for i in _pick(choice, len(stamps.bodies))]
        stamp(canvas.blood if kind is ERYTHROCYTE else canvas.eosin, bodies, x_px, y_px, gain)
        if kind.tint:
            stamp(canvas.tint, bodies, x_px, y_px, gain * np.float32(kind.tint))
    if kind.stain:
        rows = (np.floor(turn).astype(np.int64) % len(stamps.nuclei)).tolist()
        columns = _pick(choice, len(stamps.nuclei[0]))
        nuclei = [stamps.nuclei[row][i] for row, i in zip(rows, columns, strict=True)]
        stamp(canvas.nuclei, nuclei, x_px, y_px, gain)


def _pick(choice: Floats, count: int) -> list[int]:
    picked: list[int] = np.floor(choice * count).astype(np.int64).tolist()
    return picked


def _beside_lumen(zones: Zones) -> NDArray[np.bool_]:
    beside: NDArray[np.bool_] = (zones.lumen > -15) & (zones.lumen < -1)
    return beside


def _across(zones: Zones, at: Zones, scene: Scene) -> Floats:
    """Return the zone that runs across the fibres there, chosen by what lies `at`."""
    capsule = (at.node < scene.capsule_um) & (at.node > -3)
    inner = np.where(at.tumour > -3, zones.nest, zones.strand)
    across: Floats = np.where(capsule, zones.node, inner)
    return across


def _lives_here(kind: Kind, zones: Zones, chance: Floats, scene: Scene) -> NDArray[np.bool_]:
    inner = zones.node - scene.capsule_um
    tumour = zones.tumour > 0
    nest = (zones.tumour > 9) & (zones.septum < 0)
    strand = (zones.trabecula > -1) & ~tumour
    lymphoid = (inner > 1) & ~tumour & ~strand & (zones.vessel < -3)
    stroma = (inner > 1) & (tumour & ~nest | strand)
    if kind is TUMOUR:
        found = (inner > 3) & nest & (zones.septum < -3) & (zones.lumen < -3) & (chance < 0.95)
    elif kind is LYMPHOCYTE:
        share = np.where(zones.sinus > 0, 0.30, 0.98 * np.minimum(zones.crowding, 1))
        beside = (zones.tumour > -20) & (zones.tumour < 12)
        found = lymphoid & (zones.follicle < 0) & (chance < share)
        found |= stroma & (chance < np.where(beside, 0.4, 0.1)) | nest & (chance < 0.015)
    elif kind is CENTROCYTE:
        found = lymphoid & (zones.follicle > 0) & (chance < 0.95)
    elif kind is HISTIOCYTE:
        share = np.where(zones.follicle > 0, 0.8, np.where(zones.sinus > 0, 0.9, 0.45))
        found = lymphoid & (chance < share)
    elif kind is ERYTHROCYTE:
        found = (zones.vessel > 2) & (inner > 5) & (chance < 0.8)
    else:
        capsule = (zones.node > 3) & (inner < 0)
        wall = (zones.vessel > -4) & (zones.vessel < 0) & (inner > 0)
        bundle = (zones.node < 0) & (zones.tissue > 4) & (zones.trabecula > 4)
        found = (capsule | stroma | wall | bundle) & (chance < 0.7)
    return np.asarray(found, dtype=np.bool_)
