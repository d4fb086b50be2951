"""Cells: small pictures of nuclei and cell bodies, and where on the slide each is stamped."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from napari_histomil.slides.synthetic.noise import Floats, hash01

TURNS = 16
"""Directions that a picture is made for, over half a turn."""
FINE_UM = 0.22
"""Pictures are drawn at about this resolution and averaged."""


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of cell; lengths in µm, amounts as stain concentration."""

    name: str
    key: int
    """Chooses the lattice its cells stand on."""
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
    oriented: bool = False
    """Whether the nucleus lies along something."""


LYMPHOCYTE = Kind(
    "lymphocyte",
    0,
    spacing_um=6.5,
    jitter=0.75,
    length_um=5.9,
    width_um=5.3,
    spread=0.11,
    irregular=0.06,
    stain=1.35,
    rim=0.15,
    chromatin=0.24,
    nucleoli=0,
    body_um=3.8,
    body=0.4,
    tint=0.3,
)
CENTROCYTE = Kind(
    "centrocyte",
    1,
    spacing_um=8.4,
    jitter=0.6,
    length_um=7.4,
    width_um=6.2,
    spread=0.16,
    irregular=0.09,
    stain=0.75,
    rim=0.25,
    chromatin=0.25,
    nucleoli=1,
    body_um=5.2,
    body=0.42,
    tint=0.35,
)
HISTIOCYTE = Kind(
    "histiocyte",
    2,
    spacing_um=27.0,
    jitter=0.9,
    length_um=9.0,
    width_um=6.0,
    spread=0.2,
    irregular=0.1,
    stain=0.5,
    rim=0.3,
    chromatin=0.25,
    nucleoli=1,
    body_um=7.5,
    body=0.5,
    tint=0.2,
)
TUMOUR = Kind(
    "tumour",
    3,
    spacing_um=13.0,
    jitter=0.42,
    length_um=10.6,
    width_um=8.2,
    spread=0.18,
    irregular=0.1,
    stain=0.54,
    rim=0.6,
    chromatin=0.25,
    nucleoli=1,
    body_um=9.2,
    body=0.55,
    tint=0.48,
    oriented=True,
)
SPINDLE = Kind(
    "spindle",
    4,
    spacing_um=14.5,
    jitter=0.9,
    length_um=12.5,
    width_um=2.6,
    spread=0.25,
    irregular=0.14,
    stain=1.1,
    rim=0.05,
    chromatin=0.2,
    nucleoli=0,
    body_um=0.0,
    body=0.0,
    tint=0.0,
    oriented=True,
)
ERYTHROCYTE = Kind(
    "erythrocyte",
    5,
    spacing_um=5.6,
    jitter=0.7,
    length_um=6.0,
    width_um=6.0,
    spread=0.08,
    irregular=0.05,
    stain=0.0,
    rim=0.0,
    chromatin=0.0,
    nucleoli=0,
    body_um=3.1,
    body=0.8,
    tint=0.0,
)
KINDS = (LYMPHOCYTE, CENTROCYTE, HISTIOCYTE, TUMOUR, SPINDLE, ERYTHROCYTE)
REACH_UM = 20.0
"""No stamp reaches farther from its cell's centre."""


@dataclass(frozen=True, slots=True, eq=False)
class Stamps:
    """Pictures of one kind at one resolution."""

    kind: Kind
    nuclei: tuple[tuple[Floats, ...], ...]
    """[turn][variant] hematoxylin pictures; one turn where direction is left to chance."""
    bodies: tuple[Floats, ...]
    """Eosin pictures of the cell body."""


def make_stamps(kind: Kind, mpp: float, rng: np.random.Generator) -> Stamps:
    """Draw the pictures of a kind at `mpp`."""
    if kind.oriented:
        directions, variants = np.arange(TURNS)[:, None] * (np.pi / TURNS), 5
        turns = np.repeat(directions, variants, axis=1)
    else:
        turns = rng.uniform(0, np.pi, (1, 24))
    nuclei = tuple(tuple(_nucleus(kind, turn, mpp, rng) for turn in row) for row in turns)
    bodies = tuple(_body(kind, mpp, rng) for _ in range(12)) if kind.body_um else ()
    return Stamps(kind, nuclei, bodies)


def _axes(radius_um: float, mpp: float) -> tuple[Floats, Floats, int]:
    """Return x [1, n], y [n, 1] in µm around the middle of a picture, and its oversampling."""
    finer = max(round(mpp / FINE_UM), 1)
    count = (2 * int(np.ceil(radius_um / mpp)) + 1) * finer
    axis = ((np.arange(count) + 0.5 - count / 2) * (mpp / finer)).astype(np.float32)
    return axis[None, :], axis[:, None], finer


def _reduce(image: Floats, finer: int) -> Floats:
    h, w = image.shape
    small = image.reshape(h // finer, finer, w // finer, finer)
    reduced: Floats = small.mean(axis=(1, 3), dtype=np.float32)
    return reduced


def _grain(shape: tuple[int, int], sigma_px: float, rng: np.random.Generator) -> Floats:
    noise = rng.standard_normal(shape, dtype=np.float32)
    grain = ndimage.gaussian_filter(noise, sigma_px, truncate=2.5)
    normalised: Floats = grain / (grain.std() + np.float32(1e-6))
    return normalised


def _wobble(angle: Floats, amount: float, rng: np.random.Generator) -> Floats:
    wave = np.zeros_like(angle)
    for n in range(2, 7):
        wave += amount * rng.normal() / (n - 1) * np.cos(n * angle + rng.uniform(0, 2 * np.pi))
    return np.exp(wave).astype(np.float32)


def _nucleus(kind: Kind, turn: float, mpp: float, rng: np.random.Generator) -> Floats:
    scale = float(np.clip(np.exp(rng.normal() * kind.spread), 0.6, 1.7))
    a, b = kind.length_um / 2 * scale, kind.width_um / 2 * scale * rng.uniform(0.9, 1.1)
    x, y, finer = _axes(max(a, b) * 1.35, mpp)
    u = x * np.cos(turn) + y * np.sin(turn)
    v = y * np.cos(turn) - x * np.sin(turn)
    angle = np.arctan2(v / b, u / a).astype(np.float32)
    radius = np.hypot(u / a, v / b) / _wobble(angle, kind.irregular, rng)
    depth = ((1 - radius) * min(a, b)).astype(np.float32)  # µm below the membrane
    inside = np.clip(depth / 0.45 + 0.5, 0, 1)
    grain = _grain(radius.shape, 0.55 * finer / mpp, rng)
    level = kind.stain * rng.uniform(0.82, 1.18) * (1 + kind.chromatin * grain)
    level = level + kind.rim * np.exp(-(((depth - 0.5) / 0.45) ** 2))
    for _ in range(rng.integers(0, kind.nucleoli + 2) if kind.nucleoli else 0):
        cu, cv = rng.uniform(-0.45, 0.45, 2) * (a, b)
        spot = np.hypot(u - cu, v - cv) / rng.uniform(0.7, 1.2)
        level = level + 0.6 * np.clip(1.3 - spot, 0, 1)
    return _reduce((np.clip(level, 0.1, None) * inside).astype(np.float32), finer)


def _body(kind: Kind, mpp: float, rng: np.random.Generator) -> Floats:
    radius_um = kind.body_um * float(np.clip(np.exp(rng.normal() * kind.spread), 0.75, 1.35))
    x, y, finer = _axes(radius_um * 1.3, mpp)
    angle = np.arctan2(y, x).astype(np.float32)
    depth = radius_um * _wobble(angle, 0.06, rng) - np.hypot(x, y)
    grain = _grain(depth.shape, 0.9 * finer / mpp, rng)
    level = kind.body * rng.uniform(0.8, 1.2) * (1 + 0.12 * grain)
    return _reduce((level * np.clip(depth / 1.6, 0, 1) ** 0.7).astype(np.float32), finer)


def lattice(
    spacing_um: float, jitter: float, corner_um: tuple[float, float], side_um: float, key: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
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
