"""How near reading comes to what the decoder can do, and to other readers: `bench slides`, part 1.

Every way of reading goes over the same pixels: raw decoding (`pread` and the fastest decoder that
gives the same bytes, nothing kept, nothing put together), this program's public path with its
cache as in real use, openslide-python, tiffslide. They take turns within one round, so that other
work on the machine falls on all alike; the best of the rounds counts for each.
"""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import openslide
import simplejpeg
import tifffile
from numpy.typing import NDArray

from napari_histomil.bench.figures import AT_LEAST, Figure, ratio
from napari_histomil.errors import RunError
from napari_histomil.slides.cache import shared_cache
from napari_histomil.slides.readers import open_slide
from napari_histomil.slides.slide import Slide, Uint8Image
from napari_histomil.slides.tile_memory import empty_pixels
from napari_histomil.slides.tiles import TiledSlide
from napari_histomil.tissue import find_tissue

ROUNDS = 3
READ_PX = 256
READS = 1000
TURN_READS = 50
BAND_ROWS = 1
"""Rows of the grid that a thread takes at once: neighbours read what they share one after the
other. With several, a row of tiles between two bands is decoded twice by whoever keeps little."""
OPENSLIDE_EVERY = 4
"""OpenSlide sweeps every fourth band only, and so do we beside it: it takes long enough."""
CHECKED_TILES = 24

Decode = Callable[[bytes], Uint8Image]


@dataclass(frozen=True, slots=True)
class Sweep:
    """Pixels gone through, and the time it took."""

    pixels: int
    seconds: float
    cpu_seconds: float

    @property
    def mega_px_per_second(self) -> float:
        """Megapixels a second."""
        return self.pixels / self.seconds / 1e6


@dataclass(slots=True)
class Rates:
    """Best rates of one way of reading, by what was read."""

    best: dict[str, float] = field(default_factory=dict)
    best_cpu: dict[str, float] = field(default_factory=dict)

    def add(self, name: str, amount: float, seconds: float, cpu_seconds: float) -> None:
        """Note a round; the best one stays."""
        self.best[name] = max(self.best.get(name, 0.0), amount / seconds)
        self.best_cpu[name] = max(self.best_cpu.get(name, 0.0), amount / max(cpu_seconds, 1e-9))

    def __getitem__(self, name: str) -> float | None:
        return self.best.get(name)


@dataclass(frozen=True, slots=True)
class ReadingFigures:
    """What was measured of reading one slide; rates are the best of the rounds.

    Attributes
    ----------
    raw, ours
        Megapixels a second of sweeps: ``native 1``, ``native 2`` (threads), ``off-grid 1``, ...
    reads
        Random reads a second by reader. One thread reads; ours has idle cores help it, so CPU time
        says more about the work done (`reads_cpu`: reads in a second of it).
    part
        Megapixels a second of a sweep of a part of the slide by reader.
    decoder
        What raw decoding was done with; empty where there is nothing to compare with.
    """

    slide: str
    width_px0: int
    height_px0: int
    rounds: int
    decoder: str
    raw: dict[str, float]
    ours: dict[str, float]
    raw_cpu: dict[str, float]
    ours_cpu: dict[str, float]
    reads: dict[str, float]
    reads_cpu: dict[str, float]
    part: dict[str, float]
    missing: dict[str, str]
    """Why a reader was not measured, by its name."""

    def figures(self) -> list[Figure]:
        """Return the ratios with their targets."""
        none = "" if self.decoder else "the tiles of this slide are no JPEG that can be compared"
        made = [
            Figure(
                f"sweep of native tiles against raw decoding, {count}",
                ratio(self.ours.get(f"native {n}"), self.raw.get(f"native {n}")),
                AT_LEAST,
                0.90,
                note=none or self._rates("native", n),
            )
            for n, count in ((1, "1 thread"), (2, "2 threads"))
        ]
        made += [
            Figure(
                f"{READ_PX} px off-grid sweep against raw decoding, {count}",
                ratio(self.ours.get(f"off-grid {n}"), self.raw.get(f"native {n}")),
                AT_LEAST,
                0.80,
                note=none or self._rates("off-grid", n),
            )
            for n, count in ((1, "1 thread"), (2, "2 threads"))
        ]
        made.append(
            Figure(
                "native tiles against decoding into memory like ours, 1 thread",
                ratio(self.ours.get("native 1"), self.raw.get("tuned 1")),
                note=none or "a stricter bound: see `empty_pixels`",
            )
        )
        made.append(
            Figure(
                "sweep of native tiles that are all kept in the cache, 1 thread",
                ratio(self.ours.get("kept 1"), self.raw.get("native 1")),
                note=none,
            )
        )
        made.append(
            Figure(
                "two threads against one, native tiles",
                ratio(self.ours.get("native 2"), self.ours.get("native 1")),
                AT_LEAST,
                1.85,
                note=self._raw_scaling(),
            )
        )
        made += [
            Figure(
                f"random {READ_PX} px tissue reads against {name}",
                ratio(self.reads["ours"], self.reads.get(name)),
                AT_LEAST,
                2.5,
                note=self.missing.get(name)
                or f"{self.reads['ours']:,.0f} and {self.reads[name]:,.0f} a second; "
                f"{self.reads_cpu['ours'] / self.reads_cpu[name]:.2f} in CPU time",
            )
            for name in ("openslide-python", "tiffslide")
        ]
        name = "openslide-python"
        made.append(
            Figure(
                f"sweep of native tiles against {name}, 1 thread",
                ratio(self.part.get("ours"), self.part.get(name)),
                AT_LEAST,
                6.0,
                note=self.missing.get(name)
                or f"{self.part['ours']:,.0f} and {self.part[name]:,.0f} Mpx/s",
            )
        )
        return made

    def _rates(self, what: str, threads: int) -> str:
        ours, raw = self.ours[f"{what} {threads}"], self.raw[f"native {threads}"]
        cpu = self.ours_cpu[f"{what} {threads}"] / self.raw_cpu[f"native {threads}"]
        return f"{ours:,.0f} and {raw:,.0f} Mpx/s; {cpu:.2f} in CPU time"

    def _raw_scaling(self) -> str:
        value = ratio(self.raw.get("native 2"), self.raw.get("native 1"))
        return "" if value is None else f"raw decoding itself: {value:.2f}"


def measure_reading(
    path: Path,
    *,
    rounds: int = ROUNDS,
    reads: int = READS,
    say: Callable[[str], None] = lambda text: None,
) -> ReadingFigures:
    """Measure sweeps and random reads of one slide.

    Parameters
    ----------
    path
        A slide; raw decoding needs JPEG tiles in a TIFF.
    rounds
        How often everything is measured.
    reads
        Random reads in a round.
    say
        Told what is going on.

    Raises
    ------
    RunError
        If the slide has less tissue than a read.
    """
    with open_slide(path) as slide:
        info = slide.info
        corners = tissue_corners(slide, reads)
        raw_file = RawTiles.of(path, slide) if isinstance(slide, TiledSlide) else None
    missing: dict[str, str] = {}
    others = _other_readers(path, missing)
    raw, ours = Rates(), Rates()
    random, part = Rates(), Rates()
    with ExitStack() as stack:
        if raw_file is not None:
            stack.enter_context(raw_file)
        for number in range(rounds):
            say(f"reading, round {number + 1} of {rounds} ...")
            for threads in (1, 2):
                if raw_file is not None:
                    _note(raw, f"native {threads}", raw_file.sweep(threads))
                _note(ours, f"native {threads}", sweep_native(path, threads))
                _note(ours, f"off-grid {threads}", sweep_off_grid(path, threads))
            if raw_file is not None and raw_file.tunable:
                _note(raw, "tuned 1", raw_file.sweep(1, tuned=True))
            _note(ours, "kept 1", sweep_native(path, 1, kept=True))
            _random(random, {"ours": lambda: open_slide(path)} | others, corners)
            _note(part, "ours", sweep_native(path, 1, every=OPENSLIDE_EVERY))
            if "openslide-python" in others:
                _note(part, "openslide-python", _sweep_openslide(path))
    return ReadingFigures(
        slide=path.name,
        width_px0=info.width_px0,
        height_px0=info.height_px0,
        rounds=rounds,
        decoder=raw_file.decoder if raw_file is not None else "",
        raw=raw.best,
        ours=ours.best,
        raw_cpu=raw.best_cpu,
        ours_cpu=ours.best_cpu,
        reads=random.best,
        reads_cpu=random.best_cpu,
        part=part.best,
        missing=missing,
    )


def _note(rates: Rates, name: str, sweep: Sweep) -> None:
    rates.add(name, sweep.pixels / 1e6, sweep.seconds, sweep.cpu_seconds)


def tissue_corners(slide: Slide, count: int, seed: int = 0) -> NDArray[np.int64]:
    """Return corners (x, y) of random reads that hold tissue for the most part, int [count, 2].

    Raises
    ------
    RunError
        If there are too few.
    """
    info = slide.info
    rng = np.random.default_rng(seed)
    room = max(info.width_px0 - READ_PX, 1), max(info.height_px0 - READ_PX, 1)
    corners = rng.integers(0, room, (20 * count, 2))
    rects = np.hstack([corners, np.full_like(corners, READ_PX)]).astype(float)
    inside = corners[find_tissue(slide).fraction(rects) > 0.5]
    if not len(inside):
        raise RunError(
            f"{info.path.name} shows too little tissue to read {READ_PX} px of it: take another."
        )
    return np.resize(inside, (count, 2))


# --- ways of reading ----------------------------------------------------------------------------


class RawTiles:
    """Tiles of a TIFF's finest level decoded with nothing around; see `of`."""

    def __init__(
        self,
        path: Path,
        places: Sequence[tuple[int, int]],
        columns: int,
        tile_pixels: int,
        decoder: tuple[str, Decode],
        tables: bytes | None,
    ) -> None:
        self.decoder, self._decode = decoder
        self._places = places
        self._columns = columns
        self._tile_pixels = tile_pixels
        self._tables = tables
        self._file = path.open("rb")
        self.tunable = False

    @classmethod
    def of(cls, path: Path, slide: TiledSlide) -> RawTiles | None:
        """Return the raw tiles of a slide; None where no decoder gives the program's pixels."""
        level = slide.info.levels[0]
        try:
            with tifffile.TiffFile(path) as tiff:
                page = tiff.pages.first
                tables, photometric = page.jpegtables, int(page.photometric)
                places = list(zip(page.dataoffsets, page.databytecounts, strict=True))
                fits = page.is_tiled and page.compression == 7
        except tifffile.TiffFileError:
            return None
        columns, rows = -(-level.width // level.tile_width), -(-level.height // level.tile_height)
        if not fits or len(places) != columns * rows or not all(size for _, size in places):
            return None
        chosen = np.linspace(0, len(places) - 1, CHECKED_TILES).astype(int).tolist()
        with path.open("rb") as file:
            streams = [_read_at(file.fileno(), *places[i]) for i in chosen]
        truth = [slide.tile(0, *divmod(i, columns), keep=False) for i in chosen]
        right = {
            name: decode
            for name, decode in _decoders(tables, photometric).items()
            if all(_same(decode(s), t) for s, t in zip(streams, truth, strict=True))
        }
        if not right:
            return None
        seconds = dict.fromkeys(right, math.inf)
        for _ in range(5):  # in turns, as everything here
            for name, decode in right.items():
                start = time.thread_time()
                for stream in streams:
                    decode(stream)
                seconds[name] = min(seconds[name], time.thread_time() - start)
        best = min(seconds, key=seconds.__getitem__)
        size = level.tile_width * level.tile_height
        found = cls(path, places, columns, size, (best, right[best]), tables)
        found.tunable = "simplejpeg" in right
        return found

    def sweep(self, threads: int, *, scaled: bool = False, tuned: bool = False) -> Sweep:
        """Decode every tile once; by simplejpeg at 1/8 (scaled) or into memory like ours (tuned).

        The latter only where simplejpeg gives the right pixels (`tunable`).
        """
        fd, columns = self._file.fileno(), self._columns
        decode = self._decode_eighth if scaled else self._decode_tuned if tuned else self._decode

        def work(rows: range) -> int:
            places = self._places[rows.start * columns : rows.stop * columns]
            for offset, size in places:
                decode(_read_at(fd, offset, size))
            return len(places) * self._tile_pixels

        return _in_bands(work, len(self._places) // columns, threads)

    def _decode_eighth(self, stream: bytes) -> Uint8Image:
        whole = _spliced(self._tables, stream)
        small: Uint8Image = simplejpeg.decode_jpeg(whole, "RGB", min_height=1, min_width=1)
        return small

    def _decode_tuned(self, stream: bytes) -> Uint8Image:
        memory = empty_pixels(1, self._tile_pixels)
        whole = _spliced(self._tables, stream)
        pixels: Uint8Image = simplejpeg.decode_jpeg(whole, "RGB", buffer=memory)
        return pixels

    def __enter__(self) -> RawTiles:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


def _read_at(fd: int, offset: int, size: int) -> bytes:
    if hasattr(os, "pread"):
        return os.pread(fd, size, offset)
    with _SEEKING:  # Windows has no pread
        os.lseek(fd, offset, os.SEEK_SET)
        return os.read(fd, size)


_SEEKING = threading.Lock()


def _decoders(tables: bytes | None, photometric: int) -> dict[str, Decode]:
    """Return what may decode the tiles, by name; which of them gives the right bytes is tried."""
    stored = "RGB" if photometric == 2 else "YCBCR"

    def with_simplejpeg(stream: bytes) -> Uint8Image:
        pixels: Uint8Image = simplejpeg.decode_jpeg(_spliced(tables, stream), "RGB")
        return pixels

    def with_imagecodecs(stream: bytes) -> Uint8Image:
        return imagecodecs.jpeg8_decode(
            stream, tables=tables, colorspace=stored, outcolorspace="RGB"
        )

    # A stream of RGB says so by Adobe's segment or not at all: simplejpeg may then be wrong.
    return {"simplejpeg": with_simplejpeg, "imagecodecs": with_imagecodecs}


def _spliced(tables: bytes | None, stream: bytes) -> bytes:
    """Put the directory's tables into a tile's stream."""
    return stream[:2] + (tables or b"")[2:-2] + stream[2:]


def _same(decoded: Uint8Image, tile: Uint8Image) -> bool:
    """Compare with a tile that is cut at the level's edges."""
    part = decoded[: tile.shape[0], : tile.shape[1]]
    return part.shape == tile.shape and bool((part == tile).all())


def sweep_native(path: Path, threads: int, *, every: int = 1, kept: bool = False) -> Sweep:
    """Read every tile of level 0 once through the program's own path, its cache empty.

    Parameters
    ----------
    path
        The slide.
    threads
        How many threads share the work.
    every
        Only every so many-th band of rows.
    kept
        By `TiledSlide.tile`, as the viewer reads: each tile stays in the cache. Else by
        `read_region`, as runs read.
    """
    with _fresh(path) as slide:
        level = slide.info.levels[0]
        columns, rows = -(-level.width // level.tile_width), -(-level.height // level.tile_height)
        width, height = level.tile_width, level.tile_height
        tiled = slide if kept and isinstance(slide, TiledSlide) else None

        def work(band: range) -> int:
            for row in band:
                for column in range(columns):
                    if tiled is not None:
                        tiled.tile(0, row, column)
                    else:
                        slide.read_region((column * width, row * height), 0, (width, height))
            return len(band) * columns * width * height

        return _in_bands(work, rows, threads, every=every)


def sweep_off_grid(path: Path, threads: int) -> Sweep:
    """Read all of level 0 in squares of `READ_PX` that follow no grid of the file's."""
    with _fresh(path) as slide:
        info = slide.info
        columns, rows = -(-info.width_px0 // READ_PX), -(-info.height_px0 // READ_PX)

        def work(band: range) -> int:
            for row in band:
                for column in range(columns):
                    slide.read_region((column * READ_PX, row * READ_PX), 0, (READ_PX, READ_PX))
            # what lies beyond the slide is white without any work
            height = min(band.stop * READ_PX, info.height_px0) - band.start * READ_PX
            return height * info.width_px0

        return _in_bands(work, rows, threads)


def _sweep_openslide(path: Path) -> Sweep:
    """Read what `sweep_native` reads of every fourth band, as people do it with OpenSlide."""
    with open_slide(path) as ours:
        level = ours.info.levels[0]
    width, height = level.tile_width, level.tile_height
    columns, rows = -(-level.width // width), -(-level.height // height)
    with openslide.OpenSlide(path) as slide:

        def work(band: range) -> int:
            for row in band:
                for column in range(columns):
                    corner = column * width, row * height
                    np.asarray(slide.read_region(corner, 0, (width, height)))
            return len(band) * columns * width * height

        return _in_bands(work, rows, 1, every=OPENSLIDE_EVERY)


@contextmanager
def _fresh(path: Path) -> Iterator[Slide]:
    """Open a slide of which nothing is kept."""
    shared_cache().clear()
    with open_slide(path) as slide:
        yield slide


def _in_bands(work: Callable[[range], int], rows: int, threads: int, *, every: int = 1) -> Sweep:
    """Let threads take bands of rows until all are done; the first error is raised."""
    starts = range(0, rows, BAND_ROWS)[::every]
    bands = iter([range(start, min(start + BAND_ROWS, rows)) for start in starts])
    lock = threading.Lock()
    pixels: list[int] = []
    errors: list[Exception] = []

    def run() -> None:
        try:
            while not errors:
                with lock:
                    band = next(bands, None)
                if band is None:
                    return
                pixels.append(work(band))
        except Exception as error:  # noqa: BLE001  # raised again by the caller's thread
            errors.append(error)

    workers = [threading.Thread(target=run) for _ in range(threads - 1)]
    cpu, start = time.process_time(), time.perf_counter()
    for worker in workers:
        worker.start()
    run()
    for worker in workers:
        worker.join()
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu
    if errors:
        raise errors[0]
    return Sweep(sum(pixels), seconds, cpu_seconds)


def _other_readers(path: Path, missing: dict[str, str]) -> dict[str, Callable[[], Any]]:
    """Return how other libraries open the slide; in `missing` why one does not."""
    readers: dict[str, Callable[[], Any]] = {}
    if openslide.OpenSlide.detect_format(path) is None:
        missing["openslide-python"] = "it does not open this slide"
    else:
        readers["openslide-python"] = lambda: openslide.OpenSlide(path)
    if find_spec("tiffslide") is None:
        missing["tiffslide"] = "it is not installed: pip install tiffslide"
    else:
        tiffslide = import_module("tiffslide")
        try:
            tiffslide.TiffSlide(path).close()
        except Exception as error:  # noqa: BLE001  # another's library: whatever it raises
            missing["tiffslide"] = f"it does not open this slide: {type(error).__name__}"
        else:
            readers["tiffslide"] = lambda: tiffslide.TiffSlide(path)
    return readers


def _random(
    rates: Rates, readers: dict[str, Callable[[], Any]], corners: NDArray[np.int64]
) -> None:
    """Read squares at random from slides that are opened anew; each read ends as an array.

    Readers take turns after a few reads, so that other work on the machine falls on all alike.
    """
    shared_cache().clear()
    seconds, cpu_seconds = dict.fromkeys(readers, 0.0), dict.fromkeys(readers, 0.0)
    with ExitStack() as stack:
        slides = {name: stack.enter_context(open_it()) for name, open_it in readers.items()}
        for piece in np.array_split(corners, -(-len(corners) // TURN_READS)):
            for name, slide in slides.items():
                kept = {"as_array": True} if name == "tiffslide" else {}
                cpu, start = time.process_time(), time.perf_counter()
                for x, y in piece.tolist():
                    np.asarray(slide.read_region((x, y), 0, (READ_PX, READ_PX), **kept))
                seconds[name] += time.perf_counter() - start
                cpu_seconds[name] += time.process_time() - cpu
    for name in readers:
        rates.add(name, len(corners), seconds[name], cpu_seconds[name])
