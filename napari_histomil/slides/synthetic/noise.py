"""Random numbers that depend only on a place and a key: the ground that makes any region alone.

Nothing is drawn from a stream, so a block of a slide can be made without its neighbours and still
fit them.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]


def hash01(ix: Ints, iy: Ints, key: int) -> Floats:
    """Return a number in [0, 1) for every pair of whole numbers, broadcast together.

    The finaliser of a 32-bit integer hash (three xor-shift-multiply rounds) is applied after each
    of the three numbers is mixed in.
    """
    h = np.atleast_1d(ix).astype(np.uint32) * np.uint32(0x9E3779B1)
    h = _mix(h ^ np.uint32((key * 0x85EBCA6B + 0x27D4EB2F) & 0xFFFFFFFF))
    h = _mix(h + np.atleast_1d(iy).astype(np.uint32) * np.uint32(0xC2B2AE35))
    return (h >> np.uint32(8)).astype(np.float32) * np.float32(2.0**-24)


def _mix(h: NDArray[np.uint32]) -> NDArray[np.uint32]:
    h = (h ^ (h >> np.uint32(16))) * np.uint32(0x7FEB352D)
    h = (h ^ (h >> np.uint32(15))) * np.uint32(0x846CA68B)
    mixed: NDArray[np.uint32] = h ^ (h >> np.uint32(16))
    return mixed


def value_noise(x: Floats, y: Floats, wavelength: float, key: int) -> Floats:
    """Return smooth noise in about [-1, 1]: random values on a lattice, blended between nodes.

    Parameters
    ----------
    x, y
        Positions, broadcast together, in the unit of `wavelength`.
    wavelength
        Distance between lattice nodes.
    key
        Chooses one of many independent noises.
    """
    u, v = np.asarray(x) / wavelength, np.asarray(y) / wavelength
    iu, iv = np.floor(u).astype(np.int64), np.floor(v).astype(np.int64)
    fu, fv = (u - iu).astype(np.float32), (v - iv).astype(np.float32)
    fu, fv = fu * fu * (3 - 2 * fu), fv * fv * (3 - 2 * fv)
    top = hash01(iu, iv, key) * (1 - fu) + hash01(iu + 1, iv, key) * fu
    low = hash01(iu, iv + 1, key) * (1 - fu) + hash01(iu + 1, iv + 1, key) * fu
    noise: Floats = (top * (1 - fv) + low * fv) * 2 - 1
    return noise


def octaves(x: Floats, y: Floats, wavelength: float, key: int, count: int = 3) -> Floats:
    """Return the sum of `count` noises, each half as long and half as strong as the last."""
    total = value_noise(x, y, wavelength, key)
    for i in range(1, count):
        total = total + value_noise(x, y, wavelength / 2**i, key + 7919 * i) * np.float32(0.5**i)
    scaled: Floats = total / np.float32(2 - 0.5 ** (count - 1))
    return scaled


def nearest_point(
    x: Floats, y: Floats, spacing: float, key: int
) -> tuple[Floats, Floats, Floats, Floats]:
    """Find the nearest point of a lattice whose points were moved at random.

    Returns
    -------
    tuple of float32 arrays
        Distance, offset (dx, dy) from the point, and the point's own random number in [0, 1).
    """
    gx, gy = np.floor(x / spacing).astype(np.int64), np.floor(y / spacing).astype(np.int64)
    shape = np.broadcast(gx, gy).shape
    best, best_dx, best_dy, chance = (np.full(shape, fill, np.float32) for fill in (1e9, 0, 0, 0))
    for i in (-1, 0, 1):
        for j in (-1, 0, 1):
            ix, iy = gx + i, gy + j
            dx = (x - (ix + 0.2 + 0.6 * hash01(ix, iy, key)) * spacing).astype(np.float32)
            dy = (y - (iy + 0.2 + 0.6 * hash01(ix, iy, key + 1)) * spacing).astype(np.float32)
            distance = np.hypot(dx, dy)
            nearer = distance < best
            best = np.where(nearer, distance, best)
            best_dx, best_dy = np.where(nearer, dx, best_dx), np.where(nearer, dy, best_dy)
            chance = np.where(nearer, hash01(ix, iy, key + 2), chance)
    return best, best_dx, best_dy, chance


def periodic_texture(
    size: int, sigma_px: float | tuple[float, float], rng: np.random.Generator
) -> Floats:
    """Return blurred white noise [size, size] that repeats without seam; mean 0, spread 1."""
    texture = ndimage.gaussian_filter(
        rng.standard_normal((size, size)).astype(np.float32), sigma_px, mode="wrap"
    )
    texture -= texture.mean()
    normalised: Floats = texture / texture.std()
    return normalised
