"""Stain normalisation: known stains are found, and slides come to look alike."""

from __future__ import annotations

import json
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from napari_histomil.errors import RunError
from napari_histomil.slides.readers import open_slide
from napari_histomil.slides.synthetic import Stains, SyntheticSlide
from napari_histomil.stain import (
    CONDITIONS,
    HUES,
    INTENSITIES,
    LIGHT,
    REFERENCE,
    Condition,
    Method,
    StainFit,
    fit_stain,
    normalise_stain,
    optical_density,
    with_condition,
)

METHODS: tuple[Method, ...] = get_args(Method)
HEMATOXYLIN, EOSIN = (0.65, 0.70, 0.29), (0.07, 0.99, 0.11)  # Ruifrok and Johnston (2001)
VARIANT = Stains(
    hematoxylin=(0.52, 0.80, 0.38), eosin=(0.10, 0.85, 0.55), strength=0.7, glass=(240, 236, 238)
)


def mixed(
    count: int = 20_000, *, hematoxylin: float = 1.0, eosin: float = 1.0, seed: int = 0
) -> NDArray[np.uint8]:
    """Pixels of known stains: nuclei, which hold little eosin, and the rest, without nuclei."""
    rng = np.random.default_rng(seed)
    nucleus = rng.random(count) < 0.4
    h = np.where(nucleus, rng.uniform(0.6, 1.4, count), rng.uniform(0, 0.03, count))
    e = np.where(nucleus, rng.uniform(0, 0.06, count), rng.uniform(0.3, 0.9, count))
    stains = np.array([HEMATOXYLIN, EOSIN])
    stains = stains / np.linalg.norm(stains, axis=1, keepdims=True)
    density = np.stack([h * hematoxylin, e * eosin], axis=1) @ stains
    return np.clip(np.round(LIGHT * np.exp(-density)), 0, 255).astype(np.uint8)


def angle_deg(a: NDArray[np.float64], b: tuple[float, ...]) -> float:
    cosine = np.dot(a, b) / (np.linalg.norm(a) * np.linalg.norm(b))
    return float(np.rad2deg(np.arccos(min(cosine, 1.0))))


@pytest.fixture(scope="module")
def variants() -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """The same tissue in two laboratories: uint8 [h, w, 3] each."""
    pixels = [
        SyntheticSlide(1400, 1100, mpp=1.0, seed=2, stains=stains).read((500, 300), (400, 500))
        for stains in (Stains(), VARIANT)
    ]
    return pixels[0], pixels[1]


def test_optical_density_is_beers_law() -> None:
    grey = np.array([[[245, 90, 1], [0, 255, 122]]], np.uint8)
    expected = np.log(245 / np.array([[[245, 90, 1], [1, 245, 122]]]))
    np.testing.assert_allclose(optical_density(grey), expected, atol=1e-6)


def test_macenko_finds_known_stains() -> None:
    fit = fit_stain(mixed(), "macenko")
    assert angle_deg(fit.matrix[0], HEMATOXYLIN) < 3
    assert angle_deg(fit.matrix[1], EOSIN) < 3
    np.testing.assert_allclose(np.linalg.norm(fit.matrix, axis=1), 1, atol=1e-6)
    assert fit.strengths[0] == pytest.approx(1.39, rel=0.05)
    assert fit.strengths[1] == pytest.approx(0.89, rel=0.05)


def test_macenko_follows_the_strength_of_each_stain() -> None:
    plain, strong = fit_stain(mixed(), "macenko"), fit_stain(mixed(eosin=1.5), "macenko")
    np.testing.assert_allclose(strong.strengths / plain.strengths, [1, 1.5], rtol=0.06)


def test_macenko_finds_the_stains_of_a_synthetic_slide(
    variants: tuple[NDArray[np.uint8], NDArray[np.uint8]],
) -> None:
    for pixels, stains in zip(variants, (Stains(), VARIANT), strict=True):
        fit = fit_stain(pixels.reshape(-1, 3), "macenko")
        assert angle_deg(fit.matrix[0], stains.hematoxylin) < 8  # no pixel is hematoxylin alone
        assert angle_deg(fit.matrix[1], stains.eosin) < 8


@pytest.mark.parametrize("method", METHODS)
def test_normalising_to_itself_changes_nothing(
    method: Method, variants: tuple[NDArray[np.uint8], NDArray[np.uint8]]
) -> None:
    image = variants[0]
    fit = fit_stain(image.reshape(-1, 3), method)
    same = normalise_stain(image, fit, fit)
    assert same.shape == image.shape
    assert same.dtype == np.uint8
    assert np.abs(same.astype(int) - image).max() <= 1


@pytest.mark.parametrize("method", METHODS)
def test_two_laboratories_come_to_look_alike(
    method: Method, variants: tuple[NDArray[np.uint8], NDArray[np.uint8]]
) -> None:
    ours, theirs = variants
    fits = [fit_stain(pixels.reshape(-1, 3), method) for pixels in variants]
    moved = normalise_stain(theirs, fits[1], fits[0])
    before = np.abs(theirs.astype(int) - ours).mean()
    after = np.abs(moved.astype(int) - ours).mean()
    assert before > 15
    assert after < 0.4 * before


@pytest.mark.parametrize("method", METHODS)
def test_glass_stays_glass(method: Method) -> None:
    source = fit_stain(mixed(), method)
    glass = np.array([[[246, 244, 247], [252, 252, 252], [240, 240, 240]]], np.uint8)
    moved = normalise_stain(glass, source, REFERENCE[method])
    assert np.abs(moved.astype(int) - glass).max() <= 6


@pytest.mark.parametrize("method", METHODS)
def test_tiles_of_a_slide_keep_their_order(method: Method) -> None:
    """A fit belongs to the slide: a darker tile stays darker."""
    source = fit_stain(mixed(), method)
    pale = normalise_stain(mixed(hematoxylin=0.5, eosin=0.5), source, REFERENCE[method])
    dark = normalise_stain(mixed(), source, REFERENCE[method])
    assert pale.mean() > dark.mean() + 20


@pytest.mark.parametrize("method", METHODS)
def test_any_shape_and_no_pixels(method: Method) -> None:
    source = fit_stain(mixed(), method)
    pixels = mixed(600)
    flat = normalise_stain(pixels, source, REFERENCE[method])
    for shape in ((20, 30, 3), (2, 10, 30, 3)):
        shaped = normalise_stain(pixels.reshape(shape), source, REFERENCE[method])
        np.testing.assert_array_equal(shaped.reshape(-1, 3), flat)
    assert normalise_stain(pixels[:0], source, REFERENCE[method]).shape == (0, 3)


@pytest.mark.parametrize("method", METHODS)
def test_reference_is_the_sample_slide(method: Method, repository: Path) -> None:
    _, tissue = SyntheticSlide(6000, 4500).truth.masks(1.0)
    with open_slide(repository / "sample_data" / "synthetic-lymph-node.tiff") as slide:
        pixels = slide.read_region((0, 0), 1, (3000, 2250))[tissue]
    fit = fit_stain(pixels[::13], method)
    np.testing.assert_allclose(fit.values, REFERENCE[method].values, atol=0.02)


@pytest.mark.parametrize("method", METHODS)
def test_real_tiles_move_to_the_reference(method: Method, data_dir: Path) -> None:
    """What is fitted after normalising is what was asked for, or near it."""
    path = sorted((data_dir / "seg-camelyon-tumor" / "images").glob("*.jpg"))[3]
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("RGB"))[..., ::-1]  # these files are stored BGR
    source = fit_stain(pixels.reshape(-1, 3), method)
    moved = fit_stain(normalise_stain(pixels, source, REFERENCE[method]).reshape(-1, 3), method)
    target = np.array(REFERENCE[method].values)
    before = np.linalg.norm(np.array(source.values) - target)
    after = np.linalg.norm(np.array(moved.values) - target)
    assert before > 0.08
    assert after < 0.45 * before


@pytest.mark.parametrize("method", METHODS)
def test_fit_survives_json(method: Method) -> None:
    fit = fit_stain(mixed(), method)
    assert StainFit.from_json(json.loads(json.dumps(fit.to_json()))) == fit


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"method": "macenko"},
        {"method": "macenko", "values": [1, 2]},
        {"method": "vahadane", "values": [0.0] * 8},
        {"method": "reinhard", "values": [0, 0, 0, 1, 1, "nan"]},
        {"method": "reinhard", "values": None},
    ],
)
def test_what_is_no_fit_is_refused(document: dict[str, object]) -> None:
    with pytest.raises(RunError):
        StainFit.from_json(document)


@pytest.mark.parametrize("method", METHODS)
def test_too_little_tissue_is_said(method: Method) -> None:
    glass = np.full((5000, 3), 244, np.uint8)
    with pytest.raises(RunError, match="Too little stained tissue"):
        fit_stain(np.concatenate([glass, mixed(100)]), method)
    with pytest.raises(RunError, match="Too little stained tissue"):
        fit_stain(np.empty((0, 3), np.uint8), method)


def test_one_stain_alone_is_said() -> None:
    density = np.linspace(0.3, 1.2, 4000)[:, None] * np.array([HEMATOXYLIN])
    only = (LIGHT * np.exp(-density)).astype(np.uint8)
    with pytest.raises(RunError, match="only one stain"):
        fit_stain(only, "macenko")
    with pytest.raises(RunError, match="only one stain"):
        fit_stain(np.full((4000, 3), (120, 60, 140), np.uint8), "macenko")


def test_methods_do_not_mix() -> None:
    image = mixed(600)
    with pytest.raises(RunError, match="do not go together"):
        normalise_stain(image, REFERENCE["macenko"], REFERENCE["reinhard"])
    with pytest.raises(RunError, match="vahadane"):
        fit_stain(image, "vahadane")  # type: ignore[arg-type]
    with pytest.raises(RunError, match="no stain vectors"):
        _ = REFERENCE["reinhard"].matrix


# --- conditions -------------------------------------------------------------------------------


@pytest.mark.parametrize("condition", CONDITIONS)
def test_a_condition_changes_what_it_says_and_nothing_else(condition: Condition) -> None:
    fit = fit_stain(mixed(), "macenko")
    changed = with_condition(fit, condition)
    angle = angle_deg(fit.matrix[0], tuple(fit.matrix[1]))
    turned = angle_deg(changed.matrix[0], tuple(changed.matrix[1]))
    if condition in INTENSITIES:
        np.testing.assert_allclose(changed.strengths, fit.strengths * INTENSITIES[condition])
        np.testing.assert_array_equal(changed.matrix, fit.matrix)
    elif condition == "hue near":
        assert turned == pytest.approx(angle * HUES[condition], rel=1e-6)
        np.testing.assert_array_equal(changed.strengths, fit.strengths)
    else:  # no colour absorbs less than nothing: eosin reaches the edge
        assert angle < turned <= angle * HUES[condition] * (1 + 1e-6)
        assert changed.matrix.min() >= 0
    # pixels of the slide then have that fit
    pixels = normalise_stain(mixed(), fit, changed)
    again = fit_stain(pixels, "macenko")
    np.testing.assert_allclose(again.matrix, changed.matrix, atol=0.03)
    np.testing.assert_allclose(again.strengths, changed.strengths, rtol=0.06)


def test_conditions_are_told_apart_from_nonsense() -> None:
    fit = fit_stain(mixed(), "macenko")
    with pytest.raises(RunError, match="no stain condition 'purple'"):
        with_condition(fit, "purple")  # type: ignore[arg-type]
    with pytest.raises(RunError, match="no stain vectors"):
        with_condition(fit_stain(mixed(), "reinhard"), "hue far")
