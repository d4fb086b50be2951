"""Stains: optical density, and making the colours of one slide like those of another.

Two methods, both fitted once a slide and then applied to every tile, so that tiles of one slide
keep their differences:

``macenko``
    M. Macenko et al., "A method for normalizing histology slides for quantitative analysis",
    ISBI 2009: two stain vectors in optical density, and how strong each stain is.
``reinhard``
    E. Reinhard et al., "Color transfer between images", IEEE Computer Graphics and Applications
    21(5), 2001: mean and spread of each channel of the decorrelated space l-alpha-beta of
    Ruderman et al. (1998), as that paper uses it. Only tissue is fitted, and glass is left as it
    is, which the paper does not know.

No slide is read here: pixels in, pixels out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from napari_histomil.errors import RunError

Method = Literal["macenko", "reinhard"]
Condition = Literal["intensity low", "intensity high", "hue near", "hue far"]
Floats = NDArray[np.float64]

LIGHT = 245.0
"""Grey level taken for light that nothing has absorbed."""
LEAST_DENSITY = 0.15
"""Macenko's threshold (natural log, mean of the channels): fainter pixels say nothing about the
stains."""
LEAST_PIXELS = 500
"""Fewer tissue pixels than this do not make a fit."""
ANGLE_PERCENTILE = 1.0
"""Macenko's robust extremes: the share of pixels cut off at either end of the fan of colours."""
STRENGTH_PERCENTILE = 99.0
LEAST_ANGLE_DEG = 4.0
"""Stain vectors closer than this cannot be told apart."""
INTENSITIES: Mapping[str, float] = {"intensity low": 0.7, "intensity high": 1.4}
"""Factor of both stains' strength: a section stained more briefly, or for longer."""
HUES: Mapping[str, float] = {"hue near": 0.7, "hue far": 1.3}
"""Factor of the angle between the colours of hematoxylin and eosin in optical density: nuclei and
cytoplasm look more alike, or less."""
CONDITIONS: tuple[Condition, ...] = get_args(Condition)

_LMS = np.array([[0.3811, 0.5783, 0.0402], [0.1967, 0.7244, 0.0782], [0.0241, 0.1288, 0.8444]])
_LAB = np.diag([3**-0.5, 6**-0.5, 2**-0.5]) @ np.array([[1, 1, 1], [1, 1, -2], [1, -1, 0]])
"""RGB to cone response, and its logarithm to l-alpha-beta: the matrices of the 2001 paper."""


@dataclass(frozen=True, slots=True)
class StainFit:
    """The colours of one slide.

    For ``macenko``, `values` are the unit optical density vectors of hematoxylin and of eosin
    (red, green, blue each), then the strength of either stain: 8 numbers. For ``reinhard``, they
    are the means of l, alpha and beta, then their standard deviations: 6 numbers.
    """

    method: Method
    values: tuple[float, ...]

    def __post_init__(self) -> None:
        count = {"macenko": 8, "reinhard": 6}.get(self.method)
        if count is None:
            raise RunError(
                f"There is no stain normalisation {self.method!r}: choose macenko or reinhard."
            )
        if len(self.values) != count or not np.isfinite(self.values).all():
            raise RunError(
                f"A {self.method} stain fit needs {count} finite numbers, not {self.values}."
            )

    @property
    def matrix(self) -> Floats:
        """Stain vectors of a ``macenko`` fit as rows, [2, 3]: hematoxylin, eosin."""
        self._must_be("macenko")
        return np.array(self.values[:6]).reshape(2, 3)

    @property
    def strengths(self) -> Floats:
        """How strong hematoxylin and eosin are, [2], of a ``macenko`` fit."""
        self._must_be("macenko")
        return np.array(self.values[6:])

    def _must_be(self, method: Method) -> None:
        if self.method != method:
            raise RunError(f"A {self.method} stain fit holds no stain vectors.")

    def to_json(self) -> dict[str, Any]:
        """Return the fit as plain JSON values."""
        return {"method": self.method, "values": list(self.values)}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> StainFit:
        """Return the fit that `to_json` wrote.

        Raises
        ------
        RunError
            If it is no stain fit.
        """
        try:
            values = tuple(float(value) for value in document["values"])
            method = document["method"]
        except (KeyError, TypeError, ValueError) as error:
            raise RunError(f"This is no stain fit: {document!r}.") from error
        return cls(method, values)


def optical_density(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the optical density (natural log) of uint8 pixels, same shape, never negative."""
    return _density_table()[image]


@lru_cache(maxsize=1)
def _density_table() -> NDArray[np.float32]:
    light = np.maximum(np.arange(256), 1.0)
    return np.maximum(np.log(LIGHT / light), 0).astype(np.float32)


def fit_stain(pixels: NDArray[np.uint8], method: Method) -> StainFit:
    """Fit the colours of a slide on some of its tissue pixels.

    Parameters
    ----------
    pixels
        uint8 [M, 3], RGB, from tissue; 100 000 are plenty.
    method
        ``macenko`` or ``reinhard``.

    Raises
    ------
    RunError
        If there are too few stained pixels, or they show only one stain.
    """
    if method not in ("macenko", "reinhard"):
        raise RunError(f"There is no stain normalisation {method!r}: choose macenko or reinhard.")
    pixels = np.asarray(pixels).reshape(-1, 3)
    density = optical_density(pixels).astype(np.float64)
    # Glass among the tissue would pull Reinhard's mean towards white by as much as there is of it.
    stained = density.mean(axis=1) > LEAST_DENSITY
    count = int(np.count_nonzero(stained))
    if count < LEAST_PIXELS:
        raise RunError(
            f"Too little stained tissue for stain normalisation: {count} pixels, and it needs "
            f"{LEAST_PIXELS}; choose another region, or run without."
        )
    if method == "macenko":
        return _fit_macenko(density[stained])
    lab = _to_lab(pixels[stained].astype(np.float64))
    spread = np.maximum(lab.std(axis=0), 1e-6)
    return StainFit("reinhard", tuple(np.concatenate([lab.mean(axis=0), spread]).tolist()))


def _fit_macenko(density: Floats) -> StainFit:
    _, vectors = np.linalg.eigh(np.cov(density.T))
    plane = vectors[:, [2, 1]]  # the plane in which two stains mix
    plane = plane * np.where(plane.sum(axis=0) < 0, -1, 1)
    along = density @ plane
    angle = np.arctan2(along[:, 1], along[:, 0])
    extremes = np.percentile(angle, [ANGLE_PERCENTILE, 100 - ANGLE_PERCENTILE])
    if np.rad2deg(extremes[1] - extremes[0]) < LEAST_ANGLE_DEG:
        raise RunError(
            "The tissue shows only one stain, so Macenko's method cannot tell hematoxylin from "
            "eosin: choose Reinhard's, or run without stain normalisation."
        )
    stains = np.stack([plane @ [np.cos(a), np.sin(a)] for a in extremes])
    stains = np.maximum(stains, 0)
    stains /= np.linalg.norm(stains, axis=1, keepdims=True)
    # Hematoxylin absorbs red light, eosin hardly any.
    stains = stains[np.argsort(-stains[:, 0])]
    amounts = density @ np.linalg.pinv(stains)
    strengths = np.percentile(amounts, STRENGTH_PERCENTILE, axis=0)
    if strengths.min() <= 0.01:
        raise RunError(
            "One of the two stains is missing from the tissue, so Macenko's method has nothing to "
            "match: choose Reinhard's, or run without stain normalisation."
        )
    return StainFit("macenko", (*stains.ravel().tolist(), *strengths.tolist()))


def _to_lab(rgb: Floats) -> Floats:
    lms = np.maximum(rgb / 255, 1 / 255) @ _LMS.T
    lab: Floats = np.log10(lms) @ _LAB.T
    return lab


REFERENCE: Mapping[Method, StainFit] = {
    "macenko": StainFit(
        "macenko", (0.5664, 0.7515, 0.3385, 0.2055, 0.9498, 0.2358, 2.3120, 0.8640)
    ),
    "reinhard": StainFit("reinhard", (-0.4875, -0.1062, 0.0157, 0.2645, 0.0627, 0.0072)),
}
"""Colours to normalise to: those of the sample slide ``synthetic-lymph-node`` (CC0 1.0), fitted on
its tissue at 1 µm/px. A fit is repeated and compared in the tests."""


def with_condition(fit: StainFit, condition: Condition) -> StainFit:
    """Return the colours that a slide would have if it had been stained otherwise.

    Strength changes by the factors of `INTENSITIES`; for `HUES` the two stain vectors turn in
    their own plane, each by half of the change, towards each other or apart. No colour absorbs
    less than nothing, so what would is cut off.

    Parameters
    ----------
    fit
        A ``macenko`` fit of the slide.
    condition
        One of `CONDITIONS`.

    Raises
    ------
    RunError
        If there is no such condition, or the fit holds no stain vectors.
    """
    if condition not in CONDITIONS:
        raise RunError(
            f"There is no stain condition {condition!r}: choose {', '.join(CONDITIONS)}."
        )
    stains, strengths = fit.matrix, fit.strengths
    if condition in INTENSITIES:
        strengths = strengths * INTENSITIES[condition]
    else:
        middle = stains.sum(axis=0) / np.linalg.norm(stains.sum(axis=0))
        aside = stains[0] - (stains[0] @ middle) * middle
        aside /= np.linalg.norm(aside)
        half = np.arccos(np.clip(stains[0] @ middle, -1, 1)) * HUES[condition]
        turned = np.stack([np.cos(half) * middle + sign * np.sin(half) * aside
                           for sign in (1, -1)])  # fmt: skip
        stains = np.maximum(turned, 0)
        stains /= np.linalg.norm(stains, axis=1, keepdims=True)
    return StainFit("macenko", (*stains.ravel().tolist(), *strengths.tolist()))


def normalise_stain(
    image: NDArray[np.uint8], source: StainFit, target: StainFit
) -> NDArray[np.uint8]:
    """Give an image the colours of another slide.

    Parameters
    ----------
    image
        uint8 [..., 3], RGB, from the slide that `source` was fitted on.
    source, target
        Fits of the same method.

    Returns
    -------
    uint8 array of the same shape

    Raises
    ------
    RunError
        If the methods differ.
    """
    if source.method != target.method:
        raise RunError(
            f"Stain fits of two methods do not go together: {source.method} and {target.method}."
        )
    if source.method == "macenko":
        return _apply_macenko(image, _macenko_matrix(source, target))
    return _apply_reinhard(image, *_reinhard_matrix(source, target))


@lru_cache(maxsize=8)
def _macenko_matrix(source: StainFit, target: StainFit) -> NDArray[np.float32]:
    """Return the matrix [3, 3] that maps optical density to that of the other slide.

    What the two stains do not explain (pigment, blood, noise) is kept as it is.
    """
    unmix = np.linalg.pinv(source.matrix)  # [3, 2]
    scale = np.diag(target.strengths / source.strengths)
    mix = unmix @ scale @ target.matrix
    residual = np.eye(3) - unmix @ source.matrix
    return (mix + residual).astype(np.float32)


def _apply_macenko(image: NDArray[np.uint8], matrix: NDArray[np.float32]) -> NDArray[np.uint8]:
    density = _signed_density_table()[image.reshape(-1, 3)] @ matrix
    light = np.exp(np.negative(density, out=density), out=density)
    light *= np.float32(LIGHT)
    light += np.float32(0.5)
    normalised: NDArray[np.uint8] = np.clip(light, 0, 255, out=light).astype(np.uint8)
    return normalised.reshape(image.shape)


@lru_cache(maxsize=1)
def _signed_density_table() -> NDArray[np.float32]:
    """Glass brighter than `LIGHT` has a density below 0 and comes back as bright as it was."""
    return np.log(LIGHT / np.maximum(np.arange(256), 1.0)).astype(np.float32)


@lru_cache(maxsize=8)
def _reinhard_matrix(
    source: StainFit, target: StainFit
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return matrix [3, 3] and shift [3] that map the logarithm of the cone response."""
    mean_s, spread_s = np.array(source.values).reshape(2, 3)
    mean_t, spread_t = np.array(target.values).reshape(2, 3)
    scale = spread_t / spread_s
    back = np.linalg.inv(_LAB)
    matrix = back @ np.diag(scale) @ _LAB
    shift = back @ (mean_t - scale * mean_s) * np.log(10)
    return matrix.T.astype(np.float32), shift.astype(np.float32)


_TO_LMS = (_LMS.T / 255).astype(np.float32)
_FROM_LMS = (np.linalg.inv(_LMS).T * 255).astype(np.float32)


def _apply_reinhard(
    image: NDArray[np.uint8], matrix: NDArray[np.float32], shift: NDArray[np.float32]
) -> NDArray[np.uint8]:
    pixels = image.reshape(-1, 3)
    cones = np.maximum(pixels, 1).astype(np.float32) @ _TO_LMS
    response = np.log(cones, out=cones) @ matrix
    response += shift
    light = np.exp(response, out=response) @ _FROM_LMS
    darkest = np.minimum(np.minimum(pixels[:, 0], pixels[:, 1]), pixels[:, 2])
    stained = _stained_table()[darkest][:, None]
    light -= pixels
    light *= stained
    light += pixels
    light += np.float32(0.5)
    normalised: NDArray[np.uint8] = np.clip(light, 0, 255, out=light).astype(np.uint8)
    return normalised.reshape(image.shape)


@lru_cache(maxsize=1)
def _stained_table() -> NDArray[np.float32]:
    """Return how much a pixel counts as stained by its darkest channel: 0 for glass, 1 for tissue.

    It rises between a third of `LEAST_DENSITY` and the whole, so that no edge shows.
    """
    share = (_density_table() - LEAST_DENSITY / 3) / (LEAST_DENSITY * 2 / 3)
    clipped: NDArray[np.float32] = np.clip(share, 0, 1).astype(np.float32)
    return clipped
