"""Sound slides of every kind, small, and damaged copies of them; see `fuzzing.py`."""

from __future__ import annotations

import contextlib
import json
import random
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import zarr

from tests.slides import vendor_files as vendors
from tests.slides.conftest import halves, picture, write_pyramid
from tests.slides.fuzzing import Structure, damage, structure

REAL = {
    "svs": "wsi-aperio-svs/CMU-1-Small-Region.svs",
    "ndpi": "wsi-hamamatsu-ndpi/test3-DAPI-2-387.ndpi",
    "ome-real": "wsi-ome-tiff/OS-1-detail.ome.tif",
    "dicom-thumb": "wsi-dicom-camelyon-thumb/multi_frame_jpeg_camelyon_challenge_image.dcm",
    "dicom-tiny": "wsi-dicom-highdicom/sm_image.dcm",
    "dicom-annotations": "wsi-dicom-highdicom/sm_annotations.dcm",
}

DICOM_LEVELS = (2, 3, 4, 5)
"""Of the real series: enough to be one, and quick to copy."""

TIFFS: dict[str, dict[str, Any]] = {
    "jpeg": {"compression": "jpeg", "photometric": "ycbcr", "subsampling": (2, 2)},
    "jp2": {"compression": "jpeg2000"},
    "aperio-jp2": {"compression": "aperio_jp2000_rgb"},
    "big": {"compression": "deflate", "bigtiff": True, "subifds": True},
    "lzw": {"compression": "lzw", "predictor": True},
    "webp": {"compression": "webp"},
    "zstd": {"compression": "zstd"},
    "png": {"compression": "png"},
    "jxl": {"compression": "jpegxl"},
    "plain": {},
    "strips": {"tile": None, "rowsperstrip": 16, "compression": "packbits"},
    "plain-strips": {"tile": None},
    "one-strip-jpeg": {"tile": None, "compression": "jpeg", "rowsperstrip": 304},
    "planes": {"planarconfig": "separate"},
}
"""Options of `write_pyramid` for 400 x 300 px."""

NONSENSE: tuple[Any, ...] = (
    -1, 0, 1, 2**31, 2**63, 2**64, -(2**63), 1e308, 0.5, True, None, "", "nan", "x" * 100_000,
    "..", "../..", "/", "/etc", "../../../../../etc", "0/../..", ".", "c/0", "\0", "a\nb", [], {},
    [[]], [0, 0, 0], [1] * 3000, [-1, -1, -1], [2**31] * 3, [2**62] * 3, {"a": {"b": [1]}},
    "uint8", "<V99", "|O", "float16", "complex64", "bytes", "gzip", "sharding_indexed", "blosc",
)  # fmt: skip

RAW_JSON = (
    b"", b"{", b"null", b"[]", b"0", b"NaN", b'{"a": NaN}', b"[" * 100_000, b'{"a":' * 50_000,
    b"\xff\xfe{}", b'{"zarr_format": 3, "node_type": "group"}', b'{"zarr_format": 2}', b"\0" * 100,
)  # fmt: skip


def make_sources(folder: Path, data_dir: Path | None) -> dict[str, Path]:
    """Write the made slides into `folder`; returns these and the real ones by name."""
    folder.mkdir(parents=True)
    levels = halves(picture(400, 300), 2)
    made = {}
    for name, options in TIFFS.items():
        made[f"tiff-{name}"] = write_pyramid(folder / f"{name}.tif", levels, **options)
    made |= _other_tiffs(folder, levels) | _vendors(folder)
    for name, version in (("zarr2", 2), ("zarr3", 3)):
        made[name] = _write_zarr(folder / f"{name}.zarr", levels, version)
    made["zarr-shards"] = _write_zarr(folder / "shards.zarr", levels, 3, shards=(3, 128, 128))
    made["zarr-collection"] = folder / "collection.zarr"
    shutil.copytree(made["zarr2"], folder / "collection.zarr" / "0")
    (folder / "collection.zarr" / ".zgroup").write_text('{"zarr_format": 2}')
    (folder / "collection.zarr" / ".zattrs").write_text('{"bioformats2raw.layout": 3}')
    if data_dir is not None:
        made |= {name: data_dir / file for name, file in REAL.items()}
        made["dicom-series"] = folder / "dicom-series"
        made["dicom-series"].mkdir()
        for level in DICOM_LEVELS:
            (file,) = (data_dir / "wsi-dicom-cmu1-small").glob(f"level-{level}-*.dcm")
            shutil.copyfile(file, made["dicom-series"] / file.name)
    return made


def _other_tiffs(folder: Path, levels: list[np.ndarray]) -> dict[str, Path]:
    rng = np.random.default_rng(1)
    grey = levels[0][..., 0]
    made = {
        name: folder / f"{name}.tif"
        for name in ("motorola", "palette", "float", "bilevel", "imagej", "twelve-bits")
    }
    tifffile.imwrite(made["motorola"], levels[0], byteorder=">", tile=(64, 64), compression="zlib")
    colors = rng.integers(0, 2**16, (3, 256), dtype=np.uint16)
    tifffile.imwrite(made["palette"], grey, colormap=colors, photometric="palette", tile=(64, 64))
    tifffile.imwrite(made["float"], grey.astype(np.float32) / 255, tile=(64, 64), predictor=True,
                     compression="zlib")  # fmt: skip
    tifffile.imwrite(made["bilevel"], grey > 128, tile=(64, 64), compression="packbits")
    tifffile.imwrite(made["imagej"], np.stack([grey] * 2).astype(np.uint16), imagej=True,
                     metadata={"axes": "CYX"})  # fmt: skip
    tifffile.imwrite(made["twelve-bits"], grey.astype(np.uint16) * 16, tile=(64, 64),
                     compression="jpeg2000")  # fmt: skip
    made["ome"] = folder / "made.ome.tif"
    channels = rng.integers(0, 4000, (3, 300, 400)).astype(np.uint16)
    with tifffile.TiffWriter(made["ome"], ome=True) as file:
        metadata = {"axes": "CYX", "PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5,
                    "Channel": {"Name": ["a", "b", "c"]}}  # fmt: skip
        file.write(channels, subifds=1, metadata=metadata, tile=(64, 64), compression="zlib")
        file.write(channels[:, ::2, ::2], subfiletype=1, tile=(64, 64), compression="zlib")
    return {f"tiff-{name}": path for name, path in made.items()}


def _vendors(folder: Path) -> dict[str, Path]:
    levels = halves(picture(512, 384), 2)
    made = {
        "leica": vendors.write_leica_scn(folder / "made.scn", levels, (100, 60)),
        "philips": vendors.write_philips(folder / "philips.tiff", levels),
        "trestle": vendors.write_trestle(folder / "trestle.tif", levels),
        "ventana": vendors.write_ventana(folder / "ventana.bif", levels),
        "ndpi-colours": vendors.write_ndpi(folder / "made.ndpi", levels[:2], sampling="4:4:4"),
        "mirax": folder / "mirax",
    }
    made["mirax"].mkdir()
    vendors.write_mirax(made["mirax"] / "made.mrxs", levels[:2], {(1, 2)})
    return made


def _write_zarr(path: Path, levels: list[np.ndarray], version: int, **options: Any) -> Path:
    group = zarr.open_group(path, mode="w", zarr_format=version)
    datasets = []
    for number, level in enumerate(levels):
        data = np.ascontiguousarray(level.transpose(2, 0, 1))
        array = group.create_array(
            str(number), shape=data.shape, dtype=data.dtype, chunks=(3, 64, 64), **options
        )
        array[:] = data
        scale = [1.0, 0.5 * 2**number, 0.5 * 2**number]
        transform = [{"type": "scale", "scale": scale}]
        datasets.append({"path": str(number), "coordinateTransformations": transform})
    axes: list[dict[str, str]] = [{"name": "c", "type": "channel"}]
    axes += [{"name": name, "type": "space", "unit": "micrometer"} for name in "yx"]
    channels = [{"label": name, "color": "FF0000", "window": {"start": 0, "end": 255}}
                for name in "rgb"]  # fmt: skip
    attributes: dict[str, Any] = {
        "multiscales": [{"version": "0.4", "name": "made", "axes": axes, "datasets": datasets}],
        "omero": {"channels": channels},
    }
    group.attrs.update(attributes if version == 2 else {"ome": attributes | {"version": "0.5"}})
    return path


@cache
def _sound(path: Path) -> tuple[bytes, Structure | None]:
    data = path.read_bytes()
    return data, structure(data)


def damaged_copy(source: Path, folder: Path, chance: random.Random) -> Path:
    """Write a damaged copy of a slide into `folder`, which is emptied first; returns its path."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    target = folder / source.name
    if source.is_file():
        target.write_bytes(damage(*_sound(source), chance))
        return target
    shutil.copytree(source, target)
    if source.suffix == ".zarr":
        for _ in range(chance.choice((1, 1, 2, 3))):
            _damage_zarr(target, chance)
        return target
    files = sorted(path for path in target.rglob("*") if path.is_file())
    hurt = chance.choice(files)
    hurt.write_bytes(damage(hurt.read_bytes(), None, chance))
    return next(target.glob("*.mrxs"), chance.choice(files))


def _damage_zarr(folder: Path, chance: random.Random) -> None:
    """Damage one of the descriptions, seldom a chunk."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    told = [path for path in files if path.suffix == ".json" or path.name.startswith(".z")]
    chunks = [path for path in files if path not in told]
    way = chance.randrange(12)
    if way == 0 and chunks:
        chunk = chance.choice(chunks)
        chunk.write_bytes(damage(chunk.read_bytes(), None, chance))
    elif way == 1:
        chance.choice(files).unlink()
    elif way == 2 and told:
        chance.choice(told).write_bytes(chance.choice(RAW_JSON))
    elif way == 3:
        path = chance.choice(files)
        path.unlink()
        path.mkdir()
    elif told:
        path = chance.choice(told)
        with contextlib.suppress(ValueError, RecursionError):
            tree = json.loads(path.read_text())
            _change(tree, chance)
            path.write_text(json.dumps(tree))


def _change(tree: Any, chance: random.Random) -> None:
    """Replace, double or drop one value somewhere in a JSON tree."""
    places: list[tuple[Any, Any]] = []
    waiting = [tree] if isinstance(tree, dict | list) else []
    while waiting:
        node = waiting.pop()
        keys = list(node) if isinstance(node, dict) else range(len(node))
        for key in keys:
            places.append((node, key))
            if isinstance(node[key], dict | list):
                waiting.append(node[key])
    if not places:
        return
    node, key = chance.choice(places)
    way = chance.randrange(6)
    if way == 0:
        del node[key]
    elif way == 1:
        other, place = chance.choice(places)
        node[key] = json.loads(json.dumps(other[place]))
    elif way == 2 and isinstance(node, list):
        node.append(chance.choice(NONSENSE))
    else:
        node[key] = chance.choice(NONSENSE)
