"""Cells: small pictures of nuclei and cell bodies, and where on the slide each is stamped."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from napari_histomil.slides.synthetic.noise import Floats, hash01

TURNS = 16
"""Directions that a picture is made for, over half a turn."""
OVERSAMPLE = 4


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of cell; lengths in µm, amounts as stain concentration."""

    name: str
    spacing_um: float
    """Distance between the lattice's nodes, one cell at each."""
    jitter: float
    length_um: float
    width_um: float
    """Axes of the nucleus."""
    spread: float
    """Share by which sizes vary."""
    irregular: float
    stain: float
    """Hematoxylin in the middle of the nucleus."""
    rim: float
    """Additional hematoxylin in the nuclear membrane."""
    chromatin: float
    nucleoli: int
    body_um: float
    """Radius of the cell body; 0 for none."""
    body: float
    """Eosin in the cell body."""
    tint: float
    """Hematoxylin in the cell body, as a share of its eosin."""


LYMPHOCYTE = Kind(
    "lymphocyte", 6.5, 0.75, 5.9, 5.3, 0.11, 0.06, 1.15, 0.15, 0.24, 0, 3.7, 0.30, 0.25
)
CENTROCYTE = Kind(
    "centrocyte", 8.4, 0.6, 7.4, 6.2, 0.16, 0.09, 0.62, 0.22, 0.25, 1, 5.2, 0.30, 0.3
)
HISTIOCYTE = Kind("histiocyte", 27.0, 0.9, 9.0, 6.0, 0.2, 0.1, 0.45, 0.30, 0.25, 1, 7.5, 0.38, 0.2)
TUMOUR = Kind("tumour", 13.2, 0.42, 11.2, 8.6, 0.18, 0.10, 0.50, 0.50, 0.25, 1, 9.2, 0.44, 0.42)
SPINDLE = Kind("spindle", 14.5, 0.9, 12.5, 2.6, 0.25, 0.14, 0.95, 0.05, 0.2, 0, 0.0, 0.0, 0.0)
ERYTHROCYTE = Kind("erythrocyte", 5.6, 0.7, 6.0, 6.0, 0.08, 0.05, 0.0, 0.0, 0.0, 0, 3.1, 0.8, 0.0)
KINDS = (LYMPHOCYTE, CENTROCYTE, HISTIOCYTE, TUMOUR, SPINDLE, ERYTHROCYTE)
REACH_UM = 16.0
"""No stamp reaches farther from its cell's centre."""


@dataclass(frozen=True, slots=True, eq=False)
class Stamps:
    """Pictures of one kind at one resolution."""

    kind: Kind
    nuclei: tuple[tuple[Floats, ...], ...]
    """[turn][variant] hematoxylin pictures."""
    bodies: tuple[Floats, ...]
    """Eosin pictures of the cell body."""


def make_stamps(kind: Kind, mpp: float, rng: np.random.Generator, variants: int = 10) -> Stamps:
    """Draw the pictures of a kind at `mpp`."""
    nuclei = tuple(
        tuple(_nucleus(kind, turn * np.pi / TURNS, mpp, rng) for _ in range(variants))
        for turn in range(TURNS)
    )
    bodies = tuple(_body(kind, mpp, rng) for _ in range(variants * 2)) if kind.body_um else ()
    return Stamps(kind, nuclei, bodies)


def _polar(radius_um: float, mpp: float) -> tuple[Floats, Floats, float]:
    step = mpp / OVERSAMPLE
    half = (int(np.ceil(radius_um / mpp)) * 2 + 1) * OVERSAMPLE / 2
    axis = ((np.arange(int(half * 2)) + 0.5 - half) * step).astype(np.float32)
    return axis[None, :], axis[:, None], step


def _reduce(image: Floats) -> Floats:
    h, w = image.shape
    small = image.reshape(h // OVERSAMPLE, OVERSAMPLE, w // OVERSAMPLE, OVERSAMPLE)
    reduced: Floats = small.mean(axis=(1, 3)).astype(np.float32)
    return reduced


def _wobble(angle: Floats, amount: float, rng: np.random.Generator) -> Floats:
    wave = np.zeros_like(angle)
    for n in range(2, 7):
        wave += amount * rng.normal() / (n - 1) * np.cos(n * angle + rng.uniform(0, 2 * np.pi))
    return np.exp(wave).astype(np.float32)


def _nucleus(kind: Kind, turn: float, mpp: float, rng: np.random.Generator) -> Floats:
    scale = float(np.clip(np.exp(rng.normal() * kind.spread), 0.6, 1.7))
    a, b = kind.length_um / 2 * scale, kind.width_um / 2 * scale * rng.uniform(0.9, 1.1)
    x, y, step = _polar(max(a, b) * 1.35, mpp)
    u = x * np.cos(turn) + y * np.sin(turn)
    v = y * np.cos(turn) - x * np.sin(turn)
    angle = np.arctan2(v / b, u / a).astype(np.float32)
    radius = np.hypot(u / a, v / b) / _wobble(angle, kind.irregular, rng)
    depth = ((1 - radius) * min(a, b)).astype(np.float32)  # µm below the membrane
    inside = np.clip(depth / 0.45 + 0.5, 0, 1)
    grain = ndimage.gaussian_filter(rng.standard_normal(radius.shape), 0.55 / step)
    grain = grain / (grain.std() + 1e-6)
    level = kind.stain * rng.uniform(0.82, 1.18) * (1 + kind.chromatin * grain)
    level = level + kind.rim * np.exp(-(((depth - 0.5) / 0.45) ** 2))
    for _ in range(rng.integers(0, kind.nucleoli + 2) if kind.nucleoli else 0):
        cu, cv = rng.uniform(-0.45, 0.45, 2) * (a, b)
        spot = np.hypot(u - cu, v - cv) / rng.uniform(0.7, 1.2)
        level = level + 0.6 * np.clip(1.3 - spot, 0, 1)
    return _reduce((np.clip(level, 0.1, None) * inside).astype(np.float32))


def _body(kind: Kind, mpp: float, rng: np.random.Generator) -> Floats:
    radius_um = kind.body_um * float(np.clip(np.exp(rng.normal() * kind.spread), 0.75, 1.35))
    x, y, step = _polar(radius_um * 1.3, mpp)
    angle = np.arctan2(y, x).astype(np.float32)
    depth = radius_um * _wobble(angle, 0.06, rng) - np.hypot(x, y)
    grain = ndimage.gaussian_filter(rng.standard_normal(depth.shape), 0.9 / step)
    grain = grain / (grain.std() + 1e-6)
    level = kind.body * rng.uniform(0.8, 1.2) * (1 + 0.12 * grain)
    return _reduce((level * np.clip(depth / 1.6, 0, 1) ** 0.7).astype(np.float32))


def lattice(
    spacing_um: float, jitter: float, corner_um: tuple[float, float], side_um: float, key: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], Floats, Floats]:
    """Return node indices and jittered positions (µm) of a lattice over a square and its margin.

    Parameters
    ----------
    spacing_um
        Distance between nodes; every second row is shifted by half of it.
    jitter
        Share of the spacing that a position may move.
    corner_um, side_um
        The square; cells that can reach into it are included.
    key
        Chooses the lattice.
    """
    row = spacing_um * 0.866
    (x0, x1), (y0, y1) = ((c - REACH_UM, c + side_um + REACH_UM) for c in corner_um)
    ix = np.arange(int(x0 // spacing_um) - 1, int(x1 // spacing_um) + 2)
    iy = np.arange(int(y0 // row), int(y1 // row) + 2)
    gx, gy = (grid.ravel() for grid in np.meshgrid(ix, iy))
    x = (gx + 0.5 * (gy % 2) + jitter * (hash01(gx, gy, key) - 0.5)) * spacing_um
    y = (gy + jitter * (hash01(gx, gy, key + 1) - 0.5)) * row
    reaches = (x > x0) & (x < x1) & (y > y0) & (y < y1)
    return gx[reaches], gy[reaches], x[reaches], y[reaches]


def stamp(
    canvas: Floats,
    pictures: list[Floats],
    x_px: NDArray[np.int64],
    y_px: NDArray[np.int64],
    gain: Floats,
) -> None:
    """Lay pictures on the canvas, each centred on its pixel; the darker wins where they overlap.

    The maximum does not depend on the order, so neighbouring blocks agree.
    """
    height, width = canvas.shape
    for picture, cx, cy, g in zip(
        pictures, x_px.tolist(), y_px.tolist(), gain.tolist(), strict=True
    ):
        h, w = picture.shape
        x0, y0 = cx - w // 2, cy - h // 2
        if x0 < 0 or y0 < 0 or x0 + w > width or y0 + h > height:
            left, top = max(-x0, 0), max(-y0, 0)
            picture = picture[top : height - y0, left : width - x0]
            x0, y0 = x0 + left, y0 + top
            h, w = picture.shape
            if not (h > 0 and w > 0) or x0 >= width or y0 >= height:
                continue
        part = canvas[y0 : y0 + h, x0 : x0 + w]
        np.maximum(part, picture * np.float32(g), out=part)
