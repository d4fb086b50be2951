"""RGB from what a file stores: other depths, one channel or many. The rule is always stated.

Brightfield RGB of 8 bits is taken as it is. Everything else gets a fixed rule when the slide is
opened (never one that depends on what is in view), and a sentence that says what it is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_histomil.slides.slide import Uint8Image

Rgb = tuple[int, int, int]
Raw = NDArray[np.generic]

QUANTILES = (0.001, 0.999)
"""Darkest and brightest shown of channels without a stated range: single hot pixels go white."""

CHANNEL_COLORS: tuple[Rgb, ...] = (
    (255, 0, 0),
    (0, 255, 0),
    (0, 0, 255),
    (0, 255, 255),
    (255, 0, 255),
    (255, 255, 0),
    (255, 255, 255),
)
"""Given in turn to channels for which the file names no colour."""

GREY: Rgb = (255, 255, 255)

MAX_SAMPLE_PX = 1 << 20
"""Of larger blocks not all pixels are looked at to find the range of values."""


@dataclass(frozen=True, slots=True)
class Channel:
    """One channel as the file describes it."""

    name: str
    color: Rgb | None = None
    window: tuple[float, float] | None = None
    """Values shown as black and as full colour, where the file says so."""


@dataclass(frozen=True, slots=True)
class Composite:
    """How stored values become RGB.

    Attributes
    ----------
    statement
        The rule in words; ``""`` where 8-bit RGB is taken as it is.
    channels
        Names of the stored channels.
    convert
        Raw [h, w, C] -> uint8 [h, w, 3].
    """

    statement: str
    channels: tuple[str, ...]
    convert: Callable[[Raw], Uint8Image]


def rgb_composite(
    dtype: np.dtype[np.generic], samples: int, alpha: bool, peak: float
) -> Composite:
    """Return the rule for files that store red, green and blue.

    Parameters
    ----------
    dtype
        Type of the stored values.
    samples
        Values a pixel; the first three are the colours.
    alpha
        Whether the fourth is opacity; it is laid on white.
    peak
        Largest value seen in a sample of the slide: with more than 8 bits it decides how many
        are used. All three colours get the same scale, so hues stay.
    """
    names = ("red", "green", "blue", "alpha")[: 4 if alpha else 3]
    if dtype == np.uint8:
        if alpha:
            return Composite("RGB laid on white by its opacity", names, _over_white)
        statement = "" if samples == 3 else f"the first 3 of {samples} samples as RGB"
        return Composite(statement, names, _first_three)
    top = _full_scale(dtype, peak)
    factor = np.float32(255 / top)

    def convert(raw: Raw) -> Uint8Image:
        rgb = np.nan_to_num(raw[..., :3].astype(np.float32)) * factor
        return np.asarray(np.clip(rgb, 0, 255) + 0.5, np.uint8)

    return Composite(f"{dtype} RGB, 0 to {top:g} shown as 0 to 255", names[:3], convert)


def channel_composite(
    dtype: np.dtype[np.generic], channels: Sequence[Channel], sample: Raw, inverted: bool = False
) -> Composite:
    """Return the rule for one grey channel, or for several that are added in colours.

    Parameters
    ----------
    channels
        One for each of the C stored values of a pixel.
    sample
        [n, C] values from all over the slide: they set the range of channels that state none
        and are not 8-bit.
    inverted
        Whether 0 means white (one channel only).
    """
    single = len(channels) == 1
    lows, highs, colors, words = [], [], [], []
    for index, channel in enumerate(channels):
        low, high = channel.window or _window(dtype, sample[:, index])
        color = channel.color or (GREY if single else CHANNEL_COLORS[index % 7])
        lows.append(low)
        highs.append(high)
        colors.append(color)
        words.append(f"{channel.name} {low:g} to {high:g} in {_hex(color)}")
    low_values = np.array(lows, np.float32)
    scale = np.array([1 / (high - low) for low, high in zip(lows, highs, strict=True)], np.float32)
    weights = np.array(colors, np.float32)

    def convert(raw: Raw) -> Uint8Image:
        values = np.nan_to_num(raw.astype(np.float32), posinf=3e38, neginf=-3e38)
        share = np.clip((values - low_values) * scale, 0, 1)
        if inverted:
            share = 1 - share
        return np.asarray(np.clip(share @ weights, 0, 255) + 0.5, np.uint8)

    names = tuple(channel.name for channel in channels)
    if single and tuple(colors[0]) == GREY:
        black, white = (highs[0], lows[0]) if inverted else (lows[0], highs[0])
        return Composite(f"grey: {black:g} shown as black, {white:g} as white", names, convert)
    return Composite("added in colours: " + "; ".join(words), names, convert)


def palette_composite(table: NDArray[np.uint16]) -> Composite:
    """Return the rule for indexed colours; `table` is uint16 [3, n] as in a TIFF."""
    colors = np.ascontiguousarray((table >> 8).astype(np.uint8).T)

    def convert(raw: Raw) -> Uint8Image:
        index = np.minimum(raw[..., 0].astype(np.int64), len(colors) - 1)
        return np.asarray(colors[index])

    return Composite(f"colours of a table of {len(colors)} entries", ("index",), convert)


def ycbcr_to_rgb(raw: Raw) -> Uint8Image:
    """Convert uint8 YCbCr [h, w, 3] of the full range to RGB (ITU-T T.871, JFIF)."""
    values = raw[..., :3].astype(np.float32)
    luma, blue, red = values[..., 0], values[..., 1] - 128, values[..., 2] - 128
    rgb = np.stack(
        [luma + 1.402 * red, luma - 0.344136 * blue - 0.714136 * red, luma + 1.772 * blue], -1
    )
    return np.asarray(np.clip(np.rint(rgb), 0, 255), np.uint8)


def thinned(raw: Raw) -> Raw:
    """Return the values [n, C] of a block [h, w, C], of a large one only every n-th."""
    step = max(math.isqrt(raw.shape[0] * raw.shape[1] // MAX_SAMPLE_PX), 1)
    return raw[::step, ::step].reshape(-1, raw.shape[2])


def _first_three(raw: Raw) -> Uint8Image:
    rgb = raw if raw.shape[-1] == 3 else raw[..., :3]
    return np.ascontiguousarray(rgb, np.uint8)


def _over_white(raw: Raw) -> Uint8Image:
    alpha = raw[..., 3:4].astype(np.uint16)
    rgb = raw[..., :3].astype(np.uint16)
    return np.asarray((rgb * alpha + 255 * (255 - alpha) + 127) // 255, np.uint8)


def _full_scale(dtype: np.dtype[np.generic], peak: float) -> float:
    """Return what is shown as 255: files keep 10, 12 or 14 bits in 16, and floats up to 1."""
    if dtype.kind == "f":
        return 1.0 if peak <= 1 else float(peak)
    bits = next((bits for bits in (8, 10, 12, 14, 16, 32) if peak < 2**bits), 64)
    return float(2**bits - 1)


def _window(dtype: np.dtype[np.generic], values: Raw) -> tuple[float, float]:
    if dtype == np.uint8:
        return 0.0, 255.0
    if dtype == np.bool_:
        return 0.0, 1.0
    finite = values[np.isfinite(values)].astype(np.float64)
    low, high = np.quantile(finite, QUANTILES) if finite.size else (0.0, 1.0)
    return float(low), float(high) if high > low else float(low) + 1.0


def _hex(color: Rgb) -> str:
    return "#" + "".join(f"{part:02x}" for part in color)
