"""Where a place of one slide lies in another: two slides aligned by pairs of points.

Serial sections of one block are turned, shifted and sometimes flipped against each other, and
scanned at resolutions of their own. A person marks the same two or three places in both; the
rotation and shift (and flip) with the least squared distances follow from them. Sizes are not
guessed where both slides' µm/px are known: a section is as large as its neighbour.

What is kept on disk is in `alignment_files.py`. Nothing here changes a coordinate of either slide.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from napari_histomil.errors import AlignmentError
from napari_histomil.slides.slide import SlideInfo

LEAST_APART_PX0 = 16.0
"""The two points of a slide that lie farthest apart must be at least so far from each other: a
click is right to a few pixels, and nearer points say nothing about the rotation."""

FLAT = 0.02
"""Points whose spread across their line is less than this share of their spread along it are as
good as on the line, and cannot tell a flip."""

SIZES_AGREE = 0.1
"""Distances in two neighbouring sections may differ by so much before it is worth a word."""

_NO_SCALE = 1e-6

Flip = Literal["points", "given", "assumed"]
"""Who says whether a slide is flipped: the pairs, the person, or nobody (then it is not)."""


@dataclass(frozen=True, slots=True)
class PointPair:
    """One place in both slides, in level-0 pixels (x, y) of each."""

    first_px0: tuple[float, float]
    second_px0: tuple[float, float]

    def turned(self) -> PointPair:
        """Return the pair as the second slide sees it."""
        return PointPair(self.second_px0, self.first_px0)


@dataclass(frozen=True, slots=True)
class Alignment:
    """A similarity between two slides, and how well the pairs agree with it.

    Attributes
    ----------
    pairs
        The places it was made from.
    matrix
        ((a, b, c), (d, e, f)): level-0 pixel (x, y) of the first slide lies at
        (a x + b y + c, d x + e y + f) of the second.
    mirrored
        Whether one slide is flipped against the other.
    flip
        Who says so.
    angle_deg
        Rotation from the first slide to the second on the screen, clockwise, -180 to 180; of a
        mirrored one, the rotation after left and right have been exchanged.
    scale
        Size of the second slide against the first: in µm where both µm/px are known, and then
        1; else the second's pixels (or µm) on the first's.
    scale_estimated
        Whether `scale` comes from the pairs, because a µm/px is not known.
    apparent_scale
        What the pairs alone say about the scale; far from `scale`, a pair or a µm/px is wrong.
    residuals
        One number for each pair: how far its two points lie apart after the alignment.
    residual_unit
        "µm", or "px" of the first slide where no µm/px is known.
    """

    pairs: tuple[PointPair, ...]
    matrix: tuple[tuple[float, float, float], tuple[float, float, float]]
    mirrored: bool
    flip: Flip
    angle_deg: float
    scale: float
    scale_estimated: bool
    apparent_scale: float
    residuals: tuple[float, ...]
    residual_unit: str

    @property
    def sizes_disagree(self) -> bool:
        """Whether the pairs contradict the known µm/px."""
        return abs(math.log(self.apparent_scale / self.scale)) > math.log1p(SIZES_AGREE)

    def to_second(self, xy_px0: ArrayLike) -> NDArray[np.float64]:
        """Return where places of the first slide lie in the second.

        Parameters
        ----------
        xy_px0
            float [..., 2], level-0 pixels (x, y) of the first slide.

        Returns
        -------
        float64 [..., 2]
            Level-0 pixels (x, y) of the second slide.
        """
        matrix = np.array(self.matrix)
        there: NDArray[np.float64] = np.asarray(xy_px0, np.float64) @ matrix[:, :2].T
        there += matrix[:, 2]
        return there

    def to_first(self, xy_px0: ArrayLike) -> NDArray[np.float64]:
        """Return where places of the second slide lie in the first: the inverse of `to_second`.

        Parameters
        ----------
        xy_px0
            float [..., 2], level-0 pixels (x, y) of the second slide.

        Returns
        -------
        float64 [..., 2]
            Level-0 pixels (x, y) of the first slide.
        """
        matrix = np.array(self.matrix)
        there: NDArray[np.float64] = np.asarray(xy_px0, np.float64) - matrix[:, 2]
        return there @ np.linalg.inv(matrix[:, :2]).T


def align(
    pairs: Sequence[PointPair],
    first: SlideInfo,
    second: SlideInfo,
    *,
    mirrored: bool | None = None,
) -> Alignment:
    """Return the rotation, shift and flip under which the pairs lie closest together.

    The least squares are those of S. Umeyama, "Least-squares estimation of transformation
    parameters between two point patterns", IEEE Transactions on Pattern Analysis and Machine
    Intelligence 13 (4), 1991, with the determinant of the rotation chosen rather than forced.

    Parameters
    ----------
    pairs
        Two or more; three or more that lie on no line also tell a flip.
    first, second
        The facts of the slides. Where both µm/px are known the scale is theirs, else it is
        estimated from the pairs.
    mirrored
        Whether one is flipped; None lets the pairs decide. Two pairs, or pairs on one line, fit
        a flipped slide as well as one that is not: without an answer it is taken as not flipped,
        and `Alignment.flip` says "assumed".

    Raises
    ------
    AlignmentError
        If there are fewer than two pairs, a number is not finite, or the points of a slide lie
        so close together that they say nothing.
    """
    a_px0 = np.array([pair.first_px0 for pair in pairs], np.float64).reshape(-1, 2)
    b_px0 = np.array([pair.second_px0 for pair in pairs], np.float64).reshape(-1, 2)
    _check(a_px0, first)
    _check(b_px0, second)
    unit_a, unit_b = _unit(first), _unit(second)
    a, b = a_px0 * unit_a, b_px0 * unit_b
    known = first.mpp_x is not None and second.mpp_x is not None
    flip: Flip = "given" if mirrored is not None else "points"
    if mirrored is None and (_on_a_line(a) or _on_a_line(b)):
        flip, mirrored = "assumed", False
    tried = (False, True) if mirrored is None else (mirrored,)
    fits = [_Fit.of(a, b, mirrored=each, scale=1.0 if known else None) for each in tried]
    best = min(fits, key=lambda fit: fit.squares)
    if best.scale <= _NO_SCALE:
        raise AlignmentError(
            f"The pairs cannot be true of {first.path.name} and {second.path.name} if one is "
            f"{'flipped' if mirrored else 'not flipped'}: choose the other, or place them again."
        )
    linear = best.linear * unit_a / unit_b[:, None]  # µm to µm becomes pixels to pixels
    shift = best.shift / unit_b
    residuals, residual_unit = _residuals(best, a, b, first, second)
    return Alignment(
        pairs=tuple(pairs),
        matrix=(
            (float(linear[0, 0]), float(linear[0, 1]), float(shift[0])),
            (float(linear[1, 0]), float(linear[1, 1]), float(shift[1])),
        ),
        mirrored=best.mirrored,
        flip=flip,
        angle_deg=best.angle_deg,
        scale=best.scale,
        scale_estimated=not known,
        apparent_scale=best.apparent_scale,
        residuals=tuple(float(each) for each in residuals),
        residual_unit=residual_unit,
    )


@dataclass(frozen=True, slots=True)
class _Fit:
    """b = linear @ a + shift, by least squares."""

    linear: NDArray[np.float64]
    shift: NDArray[np.float64]
    mirrored: bool
    scale: float
    apparent_scale: float
    squares: float

    @property
    def angle_deg(self) -> float:
        # y grows downwards, so a positive angle of the formula is clockwise on the screen.
        rotation = self.linear @ np.diag([-1.0, 1.0]) if self.mirrored else self.linear
        return math.degrees(math.atan2(rotation[1, 0], rotation[0, 0]))

    @classmethod
    def of(
        cls,
        a: NDArray[np.float64],
        b: NDArray[np.float64],
        *,
        mirrored: bool,
        scale: float | None,
    ) -> _Fit:
        middle_a, middle_b = a.mean(axis=0), b.mean(axis=0)
        spread_a, spread_b = a - middle_a, b - middle_b
        u, singular, vt = np.linalg.svd(spread_b.T @ spread_a)
        wanted = -1.0 if mirrored else 1.0
        signs = np.array([1.0, wanted * np.sign(np.linalg.det(u) * np.linalg.det(vt))])
        rotation = (u * signs) @ vt
        apparent = float(singular @ signs / (spread_a**2).sum())
        # Pairs that speak altogether against a flip may have no scale under it.
        apparent = max(apparent, _NO_SCALE)
        used = apparent if scale is None else scale
        linear = used * rotation
        shift = middle_b - linear @ middle_a
        squares = float(((a @ linear.T + shift - b) ** 2).sum())
        return cls(linear, shift, mirrored, used, apparent, squares)


def _unit(info: SlideInfo) -> NDArray[np.float64]:
    """Return µm per level-0 pixel (x, y); 1 where it is not known."""
    if info.mpp_x is None or info.mpp_y is None:
        return np.ones(2)
    return np.array([info.mpp_x, info.mpp_y])


def _check(points_px0: NDArray[np.float64], info: SlideInfo) -> None:
    if len(points_px0) < 2:
        raise AlignmentError(
            f"Two slides are aligned by two or more pairs of points, and there "
            f"{'is one' if len(points_px0) else 'is none'}: place another pair."
        )
    if not np.isfinite(points_px0).all():
        raise AlignmentError(f"A point in {info.path.name} has no place: place the pair again.")
    apart = np.linalg.norm(points_px0[:, None] - points_px0[None], axis=-1).max()
    if apart < LEAST_APART_PX0:
        raise AlignmentError(
            f"The points in {info.path.name} lie at one place (at most {apart:.0f} px apart), "
            f"which says nothing about the rotation: place pairs far from each other."
        )


def _on_a_line(points: NDArray[np.float64]) -> bool:
    spreads = np.linalg.svd(points - points.mean(axis=0), compute_uv=False)
    return len(points) < 3 or bool(spreads[1] < FLAT * spreads[0])


def _residuals(
    fit: _Fit,
    a: NDArray[np.float64],
    b: NDArray[np.float64],
    first: SlideInfo,
    second: SlideInfo,
) -> tuple[NDArray[np.float64], str]:
    """Return the distances [n] in µm of a slide that knows its own, else in the first's px."""
    in_second = np.linalg.norm(a @ fit.linear.T + fit.shift - b, axis=1)
    if second.mpp_x is not None:
        return in_second, "µm"
    return in_second / fit.scale, "µm" if first.mpp_x is not None else "px"
