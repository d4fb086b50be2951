"""Random numbers that depend only on a place and a key: the ground that makes any region alone.

Nothing is drawn from a stream, so a block of a slide can be made without its neighbours and still
fit them.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

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


def periodic_texture(
    size: int, sigma_px: float | tuple[float, float], rng: np.random.Generator
) -> Floats:
    """Return blurred white noise [size, size] that repeats without seam; mean 0, spread 1."""
    from scipy import ndimage

    texture = ndimage.gaussian_filter(
        rng.standard_normal((size, size)).astype(np.float32), sigma_px, mode="wrap"
    )
    texture -= texture.mean()
    normalised: Floats = texture / texture.std()
    return normalised
