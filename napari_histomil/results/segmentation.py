"""A segmentation on disk: a picture of probabilities with its pyramid, in one Zarr v3 group.

====================  ===================================================================
``0``, ``1``, ...     uint8 [C, rows, columns], each half the one before, chunks of 512 px:
                      254 times the probability, 255 where nothing is known (`to_stored`)
``done``              bool [B], one flag a band (`bands.py`)
``cells``             int32 [N, 2], (row, column) of each tile's cell, row by row
``left_out``          bool [N], of a chain: cells that its last model did not look at, because
                      the steps before found nothing there; the picture says background
attribute ``ome``     the levels as an image of OME-Zarr 0.5
attribute             as of every run (`folder.py`); of a chain also ``chain``: its steps, and
``histomil``          what they spared (`SegmentationStore.chain`)
====================  ===================================================================

A band is written in all levels, its flag after; each chunk with its CRC-32C. A process killed at
any byte loses the bands that had no flag yet and nothing else. Pixels of the coarser levels are
the mean of what is known of the pixels below them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import Crc32cCodec, ZstdCodec

from napari_histomil.lock import WriterLock
from napari_histomil.manifest import ClassSpec
from napari_histomil.results.bands import BAND_PX, Band, Picture
from napari_histomil.results.folder import RunFolder
from napari_histomil.results.layout import make_flags
from napari_histomil.tiling import TileGrid

Probabilities = NDArray[np.float32]
Stored = NDArray[np.uint8]
Float = TypeVar("Float", np.float32, np.float64)

CERTAIN = 254
"""How a probability of 1 is stored; 0.5 is stored exactly."""

UNKNOWN = 255
"""How it is stored that nothing is known."""


def to_stored(probabilities: Probabilities) -> Stored:
    """Return probabilities as they are stored, right to 0.002; NaN is what is not known."""
    values = probabilities * np.float32(CERTAIN)
    values += np.float32(0.5)
    np.copyto(values, UNKNOWN, where=np.isnan(values))
    stored: Stored = values.astype(np.uint8)
    return stored


def from_stored(stored: Stored) -> Probabilities:
    """Return what is stored as probabilities, float32, NaN where nothing is known."""
    values: Probabilities = np.where(stored == UNKNOWN, np.nan, stored / np.float32(CERTAIN))
    return values.astype(np.float32)


class SegmentationStore(RunFolder):
    """A run of a model that segments. Reading is safe from several threads."""

    TASK: ClassVar[str] = "segment"

    def __init__(self, path: Path, group: zarr.Group, lock: WriterLock | None) -> None:
        super().__init__(path, group, lock)
        self.picture = Picture(self.grid)
        self.grid = self.picture.grid  # row by row, as the picture's bands count tiles
        self._done = np.zeros(len(self.picture.bands), bool)
        self._left_out: NDArray[np.bool_] | None = None
        self.level_shapes = _level_shapes(self.picture.shape)
        """(rows, columns) of each level."""
        for index, shape in enumerate(self.level_shapes):
            _check(self._array(str(index)), str(index), (len(self.classes), *shape))
        _check(self._array("done"), "done", self._done.shape)

    @classmethod
    def _fill(
        cls,
        group: zarr.Group,
        grid: TileGrid,
        classes: Sequence[ClassSpec],
        slide: Mapping[str, Any],
        model: Mapping[str, Any],
    ) -> None:
        picture = Picture(grid)
        for index, shape in enumerate(_level_shapes(picture.shape)):
            group.create_array(
                str(index),
                shape=(len(classes), *shape),
                chunks=(1, BAND_PX, BAND_PX),
                dtype="uint8",
                fill_value=UNKNOWN,
                compressors=[ZstdCodec(level=3), Crc32cCodec()],
                dimension_names=("c", "y", "x"),
            )
        make_flags(group, len(picture.bands))
        group.attrs["ome"] = _ome(picture, classes, str(slide["name"]))

    @classmethod
    def _in_order(cls, grid: TileGrid) -> TileGrid:
        return Picture(grid).grid

    # ------------------------------------------------------------------------- reading

    @property
    def done_bands(self) -> NDArray[np.bool_]:
        """Bool [B], a copy."""
        self.refresh()
        return self._done.copy()

    @property
    def done_tiles(self) -> NDArray[np.bool_]:
        """Bool [N]: tiles whose cell lies, with its middle, in a band that is done."""
        return self.picture.tiles_done(self.done_bands)

    @property
    def chain(self) -> Mapping[str, Any] | None:
        """What the steps of a chain before the last one found; None before that, or elsewhere.

        ``steps``: what was done, in words; ``detector_run``: id of the run of the first model;
        ``detector_tiles``: how many it looked at; ``tiles``: those of the last model on all of
        the region; ``fine_tiles``: those it looks at; ``cells_left_out``; ``seconds``: what each
        step before the last took, over all its sessions.
        """
        chain = self._attributes.get("chain")
        return None if chain is None else dict(chain)

    @property
    def left_out(self) -> NDArray[np.bool_] | None:
        """Bool [N]: cells at which the last model of a chain does not look; None as `chain`."""
        return self._left_out

    @property
    def stage_seconds(self) -> dict[str, float]:
        """Seconds that each step took, over all sessions that came to their end."""
        last = sum(session.get("seconds", 0.0) for session in self.sessions)
        return {**(self.chain or {}).get("seconds", {}), "segment": last}

    @property
    def complete(self) -> bool:
        """Whether every band is done."""
        return bool(self.done_bands.all())

    @property
    def levels(self) -> tuple[Any, ...]:
        """The levels, arrays of Zarr, uint8 [C, rows, columns]; see `from_stored`."""
        return tuple(self._array(str(index)) for index in range(len(self.level_shapes)))

    @property
    def ome(self) -> dict[str, Any]:
        """OME-Zarr's members of the levels as one image."""
        return _ome(self.picture, self.classes, str(self.slide["name"]))

    def strip(self, rows: slice) -> Stored:
        """Return rows of the finest level as they are stored, uint8 [C, rows, columns].

        Raises
        ------
        RunError
            If they do not pass their check.
        """
        return self.read(0, rows, slice(None))

    def read(self, level: int, rows: slice, columns: slice) -> Stored:
        """Return a part of a level as it is stored, uint8 [C, rows, columns].

        Raises
        ------
        RunError
            If it does not pass its check.
        """
        try:
            return np.asarray(self._array(str(level))[:, rows, columns], np.uint8)
        except (KeyError, TypeError, ValueError, OSError, RuntimeError) as error:
            raise self._damaged(error) from error

    def _load(self) -> None:
        try:
            self._done = np.asarray(self._array("done")[:], bool)
            if self.chain is not None and self._left_out is None:
                self._left_out = np.asarray(self._array("left_out")[:], bool)
        except (KeyError, TypeError, ValueError, OSError) as error:
            raise self._damaged(error) from error

    # ------------------------------------------------------------------------- writing

    def write_band(
        self,
        band: Band,
        probabilities: Callable[[slice], Probabilities],
        skipped: Mapping[int, str] | None = None,
    ) -> None:
        """Store a finished band in all levels, and flag it done when all is on disk.

        Parameters
        ----------
        band
            One of ``picture.bands``.
        probabilities
            Gives those of some columns of the picture, float32 [C, rows, columns], NaN where
            nothing is known. It is asked for a chunk's at a time, from left to right, and not
            for what no cell reaches.
        skipped
            Index of a tile that failed so far -> why.

        Raises
        ------
        OutputError
            If the disk takes no more.
        RunError
            If somebody has deleted the run meanwhile.
        """
        self._write(band, self._stored(band, probabilities), skipped)

    def _stored(
        self, band: Band, probabilities: Callable[[slice], Probabilities]
    ) -> Iterator[Stored]:
        """Yield what is stored of a band in each level."""
        places = [_at_level(band, index) for index in range(len(self.level_shapes))]
        levels = [
            np.full((len(self.classes), r.stop - r.start, c.stop - c.start), UNKNOWN, np.uint8)
            for r, c in places
        ]
        for left in range(band.columns.start, band.columns.stop, BAND_PX):
            part = slice(left, min(left + BAND_PX, band.columns.stop))
            if not self.picture.is_known(band.rows, part):
                continue
            for index, values in enumerate(_halves(probabilities(part), len(levels))):
                first = (left >> index) - places[index][1].start
                levels[index][:, :, first : first + values.shape[2]] = to_stored(values)
        yield from levels

    def write_background(self, band: Band) -> None:
        """Store that a band is background where it is known; raises as `write_band`.

        That is what the last model of a chain does not look at, and it costs next to nothing.
        """
        background = self.model.get("background_class")
        values = [CERTAIN if name == background else 0 for name in self.class_names]
        stored = np.array(values, np.uint8)[:, None, None]
        known = self.picture.known(band.rows, band.columns)

        def levels() -> Iterator[Stored]:
            level = known
            for _ in self.level_shapes:
                yield np.where(level, stored, np.uint8(UNKNOWN))
                level = _any_of_four(level)

        self._write(band, levels(), None)

    def _write(
        self, band: Band, levels: Iterable[Stored], skipped: Mapping[int, str] | None
    ) -> None:
        with self._writing():
            for index, values in enumerate(levels):
                rows, columns = _at_level(band, index)
                self._array(str(index))[:, rows, columns] = values
            self._add_skipped(skipped)
            done = self._done.copy()
            done[band.index] = True
            self._array("done")[:] = done
        self._done = done

    def set_chain(self, facts: Mapping[str, Any], left_out: NDArray[np.bool_]) -> None:
        """Keep what the steps of a chain found, before its last one begins; see `chain`.

        Parameters
        ----------
        facts
            Plain JSON values.
        left_out
            bool [N]
        """
        with self._writing():
            self._group.create_array(
                "left_out", data=left_out, compressors=[ZstdCodec(), Crc32cCodec()], overwrite=True
            )
        self._left_out = left_out
        self._update(chain=dict(facts))  # last: it says that the array is there

    def _mend(self) -> None:
        """Take the flag from bands that cannot be read in a level, or lack what they must have.

        A chain whose `left_out` cannot be read finds it once more.
        """
        if self.chain is not None:
            try:
                self._array("left_out")[:]
            except (KeyError, ValueError, OSError, RuntimeError):
                self._update(chain=None)
        flags = self._array("done")
        done = np.asarray(flags[:], bool)
        unsound = [b for b in self.picture.bands if done[b.index] and not self._is_sound(b)]
        for band in unsound:
            done[band.index] = False
            self._drop_broken_chunks(band)
        if unsound:
            flags[:] = done

    def _is_sound(self, band: Band) -> bool:
        try:
            values = [level[:, *_at_level(band, k)] for k, level in enumerate(self.levels)]
        except (ValueError, OSError, RuntimeError):
            return False
        known = self.picture.known(band.rows, band.columns)
        there = [(np.asarray(level) != UNKNOWN).any(axis=(1, 2)).tolist() for level in values]
        missing = (values[0][:, known] == UNKNOWN).any() and not self.skipped
        return not missing and all(level == there[0] for level in there)

    def _drop_broken_chunks(self, band: Band) -> None:
        """Delete what cannot be read, as a chunk that is written in parts is read before."""
        for index, level in enumerate(self.levels):
            rows, columns = _at_level(band, index)
            for c, y, x in product(range(len(self.classes)), _chunks(rows), _chunks(columns)):
                at = slice(y * BAND_PX, (y + 1) * BAND_PX), slice(x * BAND_PX, (x + 1) * BAND_PX)
                try:
                    level[c, *at]
                except (ValueError, OSError, RuntimeError):
                    file = self.path / str(index) / "c" / str(c) / str(y) / str(x)
                    file.unlink(missing_ok=True)


def _chunks(pixels: slice) -> range:
    """Return the chunks, along one axis, of which pixels are part."""
    return range(pixels.start // BAND_PX, (pixels.stop - 1) // BAND_PX + 1)


def _level_shapes(shape: tuple[int, int]) -> list[tuple[int, int]]:
    """Return (rows, columns) of the levels: down to one chunk, or to one row of a band."""
    shapes = [shape]
    while max(shapes[-1]) > BAND_PX and 2 ** len(shapes) <= BAND_PX:
        rows, columns = shapes[-1]
        shapes.append((-(-rows // 2), -(-columns // 2)))
    return shapes


def _at_level(band: Band, level: int) -> tuple[slice, slice]:
    """Return the rows and columns of a band in a level."""
    rows, columns = (
        slice(part.start >> level, -(-part.stop // 2**level)) for part in (band.rows, band.columns)
    )
    return rows, columns


def _halves(probabilities: Probabilities, count: int) -> Iterator[Probabilities]:
    """Yield [C, rows, columns] and its halves, quarters, ...: means of what is known."""
    yield probabilities
    known = np.isfinite(probabilities)
    sums, counts = np.where(known, probabilities, 0), known.astype(np.float32)
    for _ in range(1, count):
        sums, counts = sum_of_four(sums), sum_of_four(counts)
        mean = np.full(sums.shape, np.nan, np.float32)
        yield np.divide(sums, counts, out=mean, where=counts > 0)


def sum_of_four(values: NDArray[Float]) -> NDArray[Float]:
    """Return the sums of each four pixels of [C, rows, columns]; beyond an odd edge is 0."""
    _, rows, columns = values.shape
    if rows % 2 or columns % 2:
        values = np.pad(values, ((0, 0), (0, rows % 2), (0, columns % 2)))
    pairs = values[:, ::2] + values[:, 1::2]  # ten times as quick as a sum over axes
    summed: NDArray[Float] = pairs[:, :, ::2] + pairs[:, :, 1::2]
    return summed


def _any_of_four(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    rows, columns = mask.shape
    even = np.pad(mask, ((0, rows % 2), (0, columns % 2)))
    four = even.reshape(-(-rows // 2), 2, -(-columns // 2), 2)
    found: NDArray[np.bool_] = np.asarray(four.any(axis=(1, 3)))
    return found


def _check(array: Any, name: str, shape: tuple[int, ...]) -> None:
    if tuple(array.shape) != shape:
        raise ValueError(f"{name} has the shape {tuple(array.shape)} instead of {shape}")


def _ome(picture: Picture, classes: Sequence[ClassSpec], slide: str) -> dict[str, Any]:
    """Return OME-Zarr's members of an image whose channels are the classes."""
    mpp = picture.grid.spec.mpp
    datasets = []
    for level in range(len(_level_shapes(picture.shape))):
        scale = mpp * 2**level
        # Positions are of centres, and 0 is the centre of the slide's first pixel.
        across, down = ((scale - own) / 2 for own in picture.grid.slide_mpp)
        moves = [
            {"type": "scale", "scale": [1.0, scale, scale]},
            {"type": "translation", "translation": [0.0, down, across]},
        ]
        datasets.append({"path": str(level), "coordinateTransformations": moves})
    channels = [
        {
            "label": kind.name,
            "color": "".join(f"{value:02X}" for value in kind.color),
            "window": {"min": 0, "max": UNKNOWN, "start": 0, "end": CERTAIN},
            "active": True,
        }
        for kind in classes
    ]
    space = [{"name": axis, "type": "space", "unit": "micrometer"} for axis in "yx"]
    return {
        "version": "0.5",
        "multiscales": [
            {
                "name": f"segmentation of {slide}",
                "axes": [{"name": "c", "type": "channel"}, *space],
                "datasets": datasets,
                "type": "mean",
            }
        ],
        "omero": {"channels": channels},
    }
