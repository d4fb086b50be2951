"""OME-Zarr slides (versions 0.4 and 0.5), in a folder or at an address.

The multiscales metadata say which arrays are the levels, what their axes are and how many µm a
pixel spans; zarr reads the chunks, from where `zarr_store.py` says. Chunks are the tiles of
`tiles.TiledSlide`; those that are not stored have the array's fill value.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from napari_histomil.errors import SlideError, brief
from napari_histomil.files import remote_url
from napari_histomil.slides.composite import (
    Channel,
    Composite,
    Raw,
    Rgb,
    channel_composite,
    rgb_composite,
    thinned,
)
from napari_histomil.slides.resolution import Mpp, plausible_mpp
from napari_histomil.slides.slide import Level, SlideInfo, Uint8Image
from napari_histomil.slides.tiles import TiledSlide
from napari_histomil.slides.zarr_store import READ_ERRORS, fingerprint_zarr, open_root

UM_PER_UNIT = {
    "micrometer": 1.0, "micron": 1.0, "um": 1.0, "µm": 1.0, "nanometer": 1e-3, "nm": 1e-3,
    "angstrom": 1e-4, "millimeter": 1e3, "mm": 1e3, "centimeter": 1e4, "meter": 1e6,
}  # fmt: skip
"""Length units of the specification (UDUNITS-2 names), and what programs write instead."""

MAX_TILE_BYTES = 1 << 28
MAX_SAMPLE_TILES = 16


@dataclass(frozen=True, slots=True)
class _Axes:
    """Which axis of the arrays is what, and which position is shown of the others."""

    names: tuple[str, ...]

    def index(self, name: str) -> int:
        return self.names.index(name)

    def selection(
        self, shape: Sequence[int], rows: slice, columns: slice
    ) -> tuple[slice | int, ...]:
        """Return the index of a rectangle of all channels: middle layer, first time."""
        chosen: dict[str, slice | int] = {"y": rows, "x": columns, "c": slice(None)}
        if "z" in self.names:
            chosen["z"] = shape[self.index("z")] // 2
        return tuple(chosen.get(name, 0) for name in self.names)

    def to_channels_last(self, block: Raw) -> Raw:
        """Bring [.., y, .., x] with or without c into [y, x, c]."""
        kept = [name for name in self.names if name in "cyx"]
        if "c" not in kept:
            kept.append("c")
            block = block[..., None]
        return np.ascontiguousarray(block.transpose([kept.index(name) for name in "yxc"]))

    def note(self, shape: Sequence[int]) -> str:
        """Say what is not shown."""
        parts = []
        for name, size in zip(self.names, shape, strict=True):
            if name not in "cyx" and size > 1:
                shown = size // 2 if name == "z" else 0
                parts.append(f"position {shown + 1} of {size} along {name.upper()}")
        return ", ".join(parts)


def open_zarr(path: Path) -> TiledSlide:
    """Open an OME-Zarr image as a slide; of a collection (bioformats2raw) the first image.

    Parameters
    ----------
    path
        A folder, or a path made from an address (see `files.remote_url`).

    Raises
    ------
    SlideError
        If it is no OME-Zarr image, lacks arrays, cannot be reached, or holds what cannot be
        shown.
    """
    root = open_root(path)
    try:
        group = root
        metadata = _metadata(group)
        if not metadata.get("multiscales") and isinstance(found := group.get("0"), zarr.Group):
            group = found
            metadata = _metadata(group)
        if not metadata.get("multiscales"):
            raise SlideError(_no_image(path, root))
        multiscales = metadata["multiscales"][0]
        arrays: list[Any] = [group[dataset["path"]] for dataset in multiscales["datasets"]]
        axes = _axes(multiscales, arrays[0].ndim)
        mpp = _mpp(multiscales, axes)
        _check(arrays, axes, path)
        composite = _composite(metadata.get("omero"), arrays, axes)
        levels = _levels(arrays, axes)
        fingerprint = fingerprint_zarr(path, group, arrays)
    except SlideError:
        raise
    except READ_ERRORS as error:
        raise SlideError(
            f"{path.name} is no OME-Zarr image, or parts of it are missing or damaged: "
            f"{brief(error)}."
        ) from error

    def read_tile(level: int, row: int, column: int) -> Uint8Image:
        stored = levels[level]
        y, x = row * stored.tile_height, column * stored.tile_width
        rows = slice(y, min(y + stored.tile_height, stored.height))
        columns = slice(x, min(x + stored.tile_width, stored.width))
        try:
            return composite.convert(_read(arrays[level], axes, rows, columns))
        except Exception as error:  # READ_ERRORS, and those of whatever package reaches a server
            corner = round(x * stored.downsample), round(y * stored.downsample)
            raise SlideError(
                f"{path.name} cannot be read at {corner} of level {level}: {brief(error)}."
            ) from error

    return TiledSlide(
        SlideInfo(
            path=path,
            reader="zarr",
            vendor="ome-zarr",
            width_px0=levels[0].width,
            height_px0=levels[0].height,
            mpp_x=mpp[0] if mpp else None,
            mpp_y=mpp[1] if mpp else None,
            mpp_source="file" if mpp else None,
            objective_power=None,
            levels=levels,
            channels=composite.channels,
            dtype=str(arrays[0].dtype),
            composite=composite.statement,
            bounds_px0=None,
            associated_images=(),
            properties={
                "zarr.format": str(arrays[0].metadata.zarr_format),
                "ome.version": str(metadata.get("version", multiscales.get("version", ""))),
                "ome.name": str(multiscales.get("name", "")),
                "ome.axes": "".join(axes.names),
            },
            fingerprint=fingerprint,
        ),
        read_tile,
        {},
        owner=("zarr", remote_url(path) or path.resolve(), fingerprint),
        release=lambda: None,  # zarr opens a file for each chunk and closes it again
    )


def _no_image(path: Path, root: zarr.Group) -> str:
    """Return the sentence for a Zarr group that holds no image: perhaps it is one of ours."""
    if "histomil" in root.attrs:
        return f"{path.name} is a stored run, not a slide: open its slide, and the run over it."
    return f"{path.name} is no OME-Zarr image: it does not say what its levels are."


def _metadata(group: zarr.Group) -> Mapping[str, Any]:
    """Return OME's attributes: under ``ome`` since version 0.5, at the top before."""
    attributes = dict(group.attrs)
    ome = attributes.get("ome", attributes)
    return ome if isinstance(ome, Mapping) else {}


def _axes(multiscales: Mapping[str, Any], ndim: int) -> _Axes:
    stated = multiscales.get("axes", [])
    names = [axis if isinstance(axis, str) else axis["name"] for axis in stated]
    if not names and ndim == 5:
        names = list("tczyx")  # before version 0.3 the order was fixed
    names = [name.lower() for name in names]
    if len(names) != ndim or not {"x", "y"} <= set(names) or len(set(names)) != ndim:
        raise ValueError(f"its axes {names} do not fit arrays of {ndim} dimensions")
    return _Axes(tuple(names))


def _check(arrays: Sequence[Any], axes: _Axes, path: Path) -> None:
    for array in arrays:
        if not isinstance(array, zarr.Array) or array.ndim != len(axes.names):
            raise ValueError("a level is no array of the stated axes")
        if array.dtype.kind not in "buif":
            raise SlideError(f"{path.name} stores {array.dtype} values, which cannot be shown.")
        if 0 in array.shape or 0 in array.chunks:
            raise ValueError("a level has no pixels")
        channels = array.shape[axes.index("c")] if "c" in axes.names else 1
        tile = array.chunks[axes.index("y")] * array.chunks[axes.index("x")]
        # What is decoded at once: a chunk may hold layers and channels that are not shown.
        values = max(tile * channels, prod(array.chunks))
        if values * array.dtype.itemsize > MAX_TILE_BYTES:
            raise SlideError(
                f"{path.name} has chunks of {array.chunks}, too large to be read one by one: "
                f"save it again with smaller chunks."
            )


def _levels(arrays: Sequence[Any], axes: _Axes) -> tuple[Level, ...]:
    y, x = axes.index("y"), axes.index("x")
    sized = [
        (array.shape[x], array.shape[y], array.chunks[x], array.chunks[y]) for array in arrays
    ]
    width, height = sized[0][:2]
    return tuple(
        Level(w, h, (width / w + height / h) / 2, min(chunk_w, w), min(chunk_h, h))
        for w, h, chunk_w, chunk_h in sized
    )


def _mpp(multiscales: Mapping[str, Any], axes: _Axes) -> Mpp | None:
    """Return µm/px of level 0: its scale times that of all levels, in the axes' units."""
    units = [axis.get("unit") if isinstance(axis, Mapping) else None
             for axis in multiscales.get("axes", [])]  # fmt: skip
    transforms = [
        *multiscales["datasets"][0].get("coordinateTransformations", []),
        *multiscales.get("coordinateTransformations", []),
    ]
    scales = [step["scale"] for step in transforms if step.get("type") == "scale"]
    if not scales or not units:
        return None
    sizes = []
    for name in "xy":
        index = axes.index(name)
        factor = UM_PER_UNIT.get(str(units[index]))
        if factor is None:
            return None
        sizes.append(factor * float(np.prod([float(scale[index]) for scale in scales])))
    return plausible_mpp(sizes[0], sizes[1])


def _read(array: Any, axes: _Axes, rows: slice, columns: slice) -> Raw:
    """Read raw [h, w, C]."""
    return axes.to_channels_last(np.asarray(array[axes.selection(array.shape, rows, columns)]))


def _composite(omero: Any, arrays: Sequence[Any], axes: _Axes) -> Composite:
    first = arrays[0]
    count = first.shape[axes.index("c")] if "c" in axes.names else 1
    channels = _channels(omero, count)
    colors = [channel.color for channel in channels]
    plain = [channel.window in (None, (0.0, 255.0)) for channel in channels]
    rgb: list[Rgb] = [(255, 0, 0), (0, 255, 0), (0, 0, 255)]
    if first.dtype == np.uint8 and count == 3 and all(plain) and colors in ([None] * 3, rgb):
        composite = rgb_composite(np.dtype(np.uint8), 3, False, 255)
    else:
        ranged = all(channel.window is not None for channel in channels)
        known = ranged or first.dtype in (np.uint8, np.bool_)
        sample = np.zeros((1, count)) if known else _sample(arrays[-1], axes)
        composite = channel_composite(first.dtype, channels, sample)
    note = axes.note(first.shape)
    return replace(
        composite,
        statement="; ".join(part for part in (composite.statement, note) if part),
    )


def _channels(omero: Any, count: int) -> list[Channel]:
    """Read names, colours and ranges that a viewer is asked to use."""
    stated = omero.get("channels", []) if isinstance(omero, Mapping) else []
    entries = stated if len(stated) == count else [{}] * count
    shown = [entry.get("active") is not False for entry in entries]
    channels = []
    for entry, index in zip(entries, range(count), strict=True):
        window = entry.get("window") or {}
        low, high = window.get("start"), window.get("end")
        limits = None
        if isinstance(low, int | float) and isinstance(high, int | float) and low < high:
            limits = float(low), float(high)
        color = str(entry.get("color", ""))
        if any(shown) and not shown[index]:
            color = "000000"  # adds nothing to the picture, and is named among the channels
        channels.append(
            Channel(
                str(entry.get("label") or f"channel {index + 1}"),
                tuple(bytes.fromhex(color)) if len(color) == 6 else None,  # type: ignore[arg-type]
                limits,
            )
        )
    return channels


def _sample(array: Any, axes: _Axes) -> Raw:
    """Return [n, C] values of chunks spread evenly over a level."""
    height, width = array.shape[axes.index("y")], array.shape[axes.index("x")]
    tile_h, tile_w = array.chunks[axes.index("y")], array.chunks[axes.index("x")]
    columns = -(-width // tile_w)
    count = columns * -(-height // tile_h)
    parts = []
    for index in sorted({count * step // MAX_SAMPLE_TILES for step in range(MAX_SAMPLE_TILES)}):
        y, x = (index // columns) * tile_h, (index % columns) * tile_w
        raw = _read(array, axes, slice(y, y + tile_h), slice(x, x + tile_w))
        parts.append(thinned(raw))
    return np.concatenate(parts)
