"""Bags of other programs, read: CLAM's, TRIDENT's, and files of features with coordinates.

==========================  =====================================================================
CLAM                        ``h5_files/<slide>.h5``: ``features``, ``coords``, no attributes; the
                            side of a tile stands in ``patches/<slide>.h5``, which is looked for
                            beside it. ``pt_files/<slide>.pt``: the features alone
TRIDENT                     ``features_<encoder>/<slide>.h5``: ``features``, ``coords`` with
                            attributes
others                      ``feats`` or ``features``, ``coords`` (HDF5, or a table of tensors),
                            whose missing facts the person gives
ours                        a run of features, ``<id>.zarr``
==========================  =====================================================================

The order is that of the file: it is part of a bag. Features are read as they are asked for.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from napari_histomil.errors import RunError, brief
from napari_histomil.exchange.pt_files import read_tensors
from napari_histomil.results import FeatureStore
from napari_histomil.results.bag import (
    SIZE_TOLERANCE,
    Bag,
    BagLevel,
    EncoderFacts,
    Features,
    Rows,
    SlideFacts,
    bag_of_runs,
)
from napari_histomil.slides.slide import SlideInfo

HDF5 = (".h5", ".hdf5")
FEATURES = ("features", "feats")
COORDS = ("coords", "coordinates")
PROVENANCE = "bag"
"""Attribute of files that this program writes: what others' have no place for, as JSON."""


@dataclass(frozen=True, slots=True)
class _Facts:
    """What a file says of its tiles; None where it does not."""

    side_px0: tuple[float, float] | None = None
    px: float | None = None
    """Side in pixels as the encoder was given the tile, before it resized it."""
    mpp: float | None = None
    slide_size_px0: tuple[int, int] | None = None
    slack_px0: float = 0.0
    """How exact that size is."""


def read_bag(
    path: Path,
    *,
    slide: SlideInfo | None = None,
    side_px0: float | None = None,
    mpp: float | None = None,
    encoder: str | None = None,
) -> Bag:
    """Return a bag of a file, with what it says checked against the slide.

    Parameters
    ----------
    path
        A file of features, or a run of them.
    slide
        Whose features they shall be.
    side_px0
        Side of a tile in level-0 px, where the file does not say it.
    mpp
        Resolution of the tiles, where neither file nor slide say it.
    encoder
        Name of the encoder, where the file does not say it.

    Raises
    ------
    RunError
        If the file cannot be read, lacks a fact (the sentence says which), contradicts what is
        given, or is of another slide.
    """
    path = Path(path)
    if path.is_dir():
        bag = bag_of_runs([FeatureStore.open(path)])
        if slide is not None and bag.slide.fingerprint != slide.fingerprint:
            raise RunError(f"{path} holds features of {bag.slide.name}, not of {slide.path.name}.")
        return bag
    if not path.is_file():
        raise RunError(f"There is no file {path}: give one of features, or a run of them.")
    if path.suffix.lower() in HDF5:
        features, xy, facts, own = _read_hdf5(path)
    elif path.suffix.lower() == ".pt":
        features, xy, facts, own = _read_pt(path)
    else:
        raise RunError(f"{path} is no file of features: those are .h5, .pt, or a run (.zarr).")
    side = _settled_side(path, facts, side_px0, xy)
    found_mpp = facts.mpp or own.get("mpp")
    if found_mpp is None and slide is not None and facts.px and slide.mpp_x is not None:
        found_mpp = side[0] * slide.mpp_xy[0] / facts.px
    _check_mpp(path, found_mpp, mpp)
    name = path.stem.removesuffix("_patches")
    size = facts.slide_size_px0
    if slide is not None:
        _check_slide(path, slide, facts, xy, own.get("slide_fingerprint"))
        size = (slide.width_px0, slide.height_px0)
        name = slide.path.name
    known = slide if slide is not None and slide.mpp_x is not None else None
    return Bag(
        (BagLevel(xy.astype(np.float64), side, found_mpp or mpp, features),),
        SlideFacts(
            name,
            size,
            slide.fingerprint if slide is not None else own.get("slide_fingerprint"),
            known.mpp_xy if known is not None else None,
        ),
        _encoder(path, own, encoder),
    )


# --- files ------------------------------------------------------------------------------------

_Read = tuple[Features, NDArray[Any], _Facts, dict[str, Any]]


def _read_hdf5(path: Path) -> _Read:
    try:
        with h5py.File(path) as file:
            stored, coords = _dataset(path, file, FEATURES), _dataset(path, file, COORDS, lax=True)
            shape, dtype, name = stored.shape, stored.dtype, stored.name
            own = _own(file.attrs)
            if "encoder" not in own and "encoder" in stored.attrs:
                own["encoder"] = str(stored.attrs["encoder"])
            xy = None if coords is None else np.asarray(coords[:])
            facts = _Facts() if coords is None else _facts(coords.attrs)
    except (OSError, KeyError, ValueError, TypeError) as error:
        raise RunError(f"{path} cannot be read as HDF5: {brief(error)}.") from error
    _check_features(path, shape)

    def read(rows: Rows) -> NDArray[Any]:
        with h5py.File(path) as file:
            if isinstance(rows, slice):
                return np.asarray(file[name][rows])
            order = np.argsort(rows, kind="stable")  # HDF5 takes growing indices only, once each
            unique, places = np.unique(rows[order], return_inverse=True)
            values = np.asarray(file[name][unique])[places]
            result = np.empty_like(values)
            result[order] = values
            return result

    features = Features(read, (int(shape[0]), int(shape[1])), dtype)
    return _with_places(path, features, xy, facts, own)


def _read_pt(path: Path) -> _Read:
    tensors = read_tensors(path)
    values = next((tensors[n] for n in FEATURES if n in tensors), None)
    if values is None:
        raise RunError(f"{path} holds no tensor named {' or '.join(FEATURES)}.")
    _check_features(path, values.shape)
    shape = (int(values.shape[0]), int(values.shape[1]))
    features = Features(lambda rows: values[rows], shape, values.dtype)
    xy = next((tensors[n] for n in COORDS if n in tensors), None)
    return _with_places(path, features, xy, _Facts(), {})


def _with_places(
    path: Path, features: Features, xy: NDArray[Any] | None, facts: _Facts, own: dict[str, Any]
) -> _Read:
    """Add what stands in the file of patches beside a file of features, as CLAM writes it."""
    beside = _patches_of(path) if xy is None or facts.side_px0 is None else None
    if beside is not None:
        with h5py.File(beside) as file:
            coords = _dataset(beside, file, COORDS)
            places, facts, own = (
                np.asarray(coords[:]),
                _facts(coords.attrs),
                _own(file.attrs) | own,
            )
        if xy is not None and not np.array_equal(places, xy):
            raise RunError(
                f"{path} and {beside} do not hold the same tiles: they are of different goes at "
                f"the slide."
            )
        xy = places
    if xy is None:
        raise RunError(
            f"{path} does not say where its tiles lie, and there is no patches/{path.stem}.h5 "
            f"beside its folder: put CLAM's file of coordinates there."
        )
    if xy.ndim != 2 or xy.shape[1] != 2 or len(xy) != len(features):
        raise RunError(
            f"{path} has {len(features)} rows of features and coordinates of the shape "
            f"{xy.shape}: it is damaged, or of another kind."
        )
    if not len(xy):
        raise RunError(f"{path} holds no tile: no tissue was found on that slide.")
    return features, xy, facts, own


def _patches_of(path: Path) -> Path | None:
    """Return CLAM's or TRIDENT's file of patches of a file of features, if it is there."""
    for root in list(path.absolute().parents)[1:3]:
        for name in (f"{path.stem}.h5", f"{path.stem}_patches.h5"):
            candidate = root / "patches" / name
            if candidate.is_file() and candidate != path.absolute():
                return candidate
    return None


def _dataset(path: Path, file: Any, names: tuple[str, ...], *, lax: bool = False) -> Any:
    for name in names:
        if isinstance(file.get(name), h5py.Dataset):
            return file[name]
    if lax:
        return None
    raise RunError(
        f"{path} has no dataset {' or '.join(names)} (it has {', '.join(map(str, file)) or 'none'}"
        f"): it is no file of features."
    )


def _own(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Return what this program wrote into the file besides."""
    try:
        own = json.loads(attributes.get(PROVENANCE, "{}"))
    except ValueError:
        return {}
    return own if isinstance(own, dict) else {}


def _facts(attributes: Mapping[str, Any]) -> _Facts:
    """Return what attributes of coordinates say: TRIDENT's, CLAM's, WSInfer's, or none."""
    patch = attributes.get("patch_size")
    exact = attributes.get("patch_size_exact_px0")
    if "patch_size_level0" in attributes:
        side = float(attributes["patch_size_level0"])
        size = None
        if "level0_width" in attributes and "level0_height" in attributes:
            size = (int(attributes["level0_width"]), int(attributes["level0_height"]))
        px = float(patch) if patch is not None else None
        return _Facts(_exact(exact, side), px, slide_size_px0=size)
    if patch is not None and "patch_spacing_um_px" in attributes:
        mpp = float(attributes["patch_spacing_um_px"])
        return _Facts((float(patch), float(patch)), mpp=mpp)
    if patch is not None and "downsample" in attributes:
        downsample = float(np.ravel(attributes["downsample"])[0])
        side = float(patch) * downsample * float(attributes.get("custom_downsample", 1))
        size = None
        if "level_dim" in attributes:
            width, height = (float(v) * downsample for v in np.ravel(attributes["level_dim"])[:2])
            size = (round(width), round(height))
        own = None if exact is not None else float(patch)  # ours are read at no stored level
        slack = downsample if downsample > 1 else 0.0
        return _Facts(_exact(exact, side), own, slide_size_px0=size, slack_px0=slack)
    return _Facts()


def _exact(exact: Any, side: float) -> tuple[float, float]:
    if exact is None:
        return side, side
    width, height = np.ravel(exact)[:2]
    return float(width), float(height)


# --- checks -----------------------------------------------------------------------------------


def _check_features(path: Path, shape: tuple[int, ...]) -> None:
    if len(shape) == 1:
        raise RunError(
            f"{path} holds one vector of {shape[0]} values, of the slide as a whole: a bag has "
            f"one for each tile."
        )
    if len(shape) != 2 or not shape[1]:
        raise RunError(f"{path} has features of the shape {tuple(shape)}, and a bag has [N, D].")


def _settled_side(
    path: Path, facts: _Facts, given: float | None, xy: NDArray[Any]
) -> tuple[float, float]:
    side = facts.side_px0
    if side is None and given is None:
        spacing = _spacing(xy)
        hint = f"; they lie {spacing:g} px apart" if spacing else ""
        raise RunError(
            f"{path} does not say how large its tiles are: give the side of one in pixels of the "
            f"slide's full resolution (--tile-px0){hint}."
        )
    if side is not None and given is not None and abs(given / side[0] - 1) > SIZE_TOLERANCE:
        raise RunError(
            f"The tiles of {path} have a side of {side[0]:g} px of the full resolution, and "
            f"{given:g} was given: leave it out, the file knows."
        )
    return side if side is not None else (float(given or 0), float(given or 0))


def _spacing(xy: NDArray[Any]) -> float | None:
    """Return the smallest distance of two columns or rows of tiles, or None."""
    steps = [np.diff(np.unique(xy[:, axis])) for axis in (0, 1)]
    found = np.concatenate(steps)
    return float(found.min()) if len(found) else None


def _check_mpp(path: Path, found: float | None, given: float | None) -> None:
    if found and given and abs(given / found - 1) > SIZE_TOLERANCE:
        raise RunError(
            f"The tiles of {path} have {found:.3g} µm/px, and {given:g} was given: leave it out, "
            f"file and slide know."
        )


def _check_slide(
    path: Path, slide: SlideInfo, facts: _Facts, xy: NDArray[Any], fingerprint: str | None
) -> None:
    """Refuse a bag of another slide."""
    size = (slide.width_px0, slide.height_px0)
    if fingerprint is not None and fingerprint != slide.fingerprint:
        raise RunError(
            f"{path} holds features of another slide than {slide.path.name}: its content differs."
        )
    stated = facts.slide_size_px0
    if stated is not None and any(
        abs(a - b) > facts.slack_px0 for a, b in zip(stated, size, strict=True)
    ):
        raise RunError(
            f"{path} is of a slide of {stated[0]} x {stated[1]} px, and {slide.path.name} has "
            f"{size[0]} x {size[1]}: it is another slide."
        )
    beyond = int((xy >= np.array(size)).any(axis=1).sum())
    if beyond:
        raise RunError(
            f"{beyond} of {len(xy)} tiles of {path} lie beyond {slide.path.name} ({size[0]} x "
            f"{size[1]} px): they are of another slide, or not counted in pixels of the full "
            f"resolution."
        )


def _encoder(path: Path, own: Mapping[str, Any], given: str | None) -> EncoderFacts | None:
    """Return whose features they are: as the file says, the person, or TRIDENT's folder."""
    folder = path.absolute().parent.name
    name = own.get("encoder") or given
    if not name and folder.startswith("features_"):
        name = folder.removeprefix("features_")
    if not name:
        return None
    return EncoderFacts(str(name), str(own.get("encoder_sha256", "")), bool(own.get("tta", False)))
