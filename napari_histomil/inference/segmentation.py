"""Models that segment: tiles are predicted ahead, stitched in order, and written in bands."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from functools import partial
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from napari_histomil.inference.job import Progress
from napari_histomil.inference.lanes import Answer, worker_count
from napari_histomil.inference.plan import Near, Piece, pieces
from napari_histomil.inference.prefetch import Crew
from napari_histomil.inference.session import Session
from napari_histomil.inference.stitch import Stitcher, window
from napari_histomil.results import SegmentationStore
from napari_histomil.results.bands import BAND_PX, Band, Picture, Stretch
from napari_histomil.results.segmentation import UNKNOWN
from napari_histomil.tiling import BLOCK_TILES

DEVICE_PIECE_TILES = 16
"""Tiles that one thread reads at a time for a device."""

PIECE_VALUES = 2**22
"""Probabilities of a piece, 16 MB: many classes of large tiles wait in smaller pieces. So many
wait at most, beyond those that workers hold, while a band is written on a CPU."""

WAIT_SECONDS = 0.1
"""So often a run looks whether it was cancelled."""


class BandPlan:
    """Hands out the tiles of what is left to do, in the order in which they are stitched.

    No more than `ahead` pieces are on their way: who stitches says `stitched`. A piece always
    holds the same tiles, wherever a run was interrupted: so batches, and with them the last bit
    of every probability, stay the same. Safe to use from several threads.

    Parameters
    ----------
    picture, done
        The picture, and bool [B] which of its bands are done.
    piece_tiles
        Tiles of a piece at most.
    ahead
        Pieces.
    near
        The lane where a person looks when the run begins comes first.
    needed
        bool [N], the tiles that are computed; all by default.
    """

    def __init__(
        self,
        picture: Picture,
        done: NDArray[np.bool_],
        *,
        piece_tiles: int,
        ahead: int,
        near: Near | None,
        needed: NDArray[np.bool_] | None = None,
    ) -> None:
        self.stretches: list[Stretch] = picture.stretches(done)
        point = near() if near is not None else None
        if point is not None:
            x = point[0] / picture.pixel_px0[0]
            self.stretches.sort(key=lambda s: _distance(x, s.columns))
        self.order: list[tuple[int, Piece]] = []
        """(stretch, piece) for every piece; ``piece.block`` is its place here."""
        for number, stretch in enumerate(self.stretches):
            for row in picture.rows_of_tiles(stretch):
                for tiles in [row] if needed is None else _where(needed, row):
                    for piece in pieces(0, tiles, piece_tiles):
                        self.order.append((number, Piece(len(self.order), piece.tiles)))
        counts = Counter(number for number, _ in self.order)
        self.pieces_of = [counts[number] for number in range(len(self.stretches))]
        """Number of pieces of each stretch; of a chain, many have none."""
        self._ahead = ahead
        self._given = self._stitched = 0
        self._over = False
        self._changed = threading.Condition()

    def take(self) -> Piece | None:
        """Return the next piece; waits while enough are on their way. None when all is given."""
        with self._changed:
            self._changed.wait_for(
                lambda: (
                    self._over
                    or self._given == len(self.order)
                    or self._given - self._stitched < self._ahead
                )
            )
            if self._over or self._given == len(self.order):
                return None
            self._given += 1
            return self.order[self._given - 1][1]

    def stitched(self) -> None:
        """Say that the next piece in order needs no more room."""
        with self._changed:
            self._stitched += 1
            self._changed.notify_all()

    def end(self) -> None:
        """Let nobody wait any longer: nothing more is given."""
        with self._changed:
            self._over = True
            self._changed.notify_all()


def _where(needed: NDArray[np.bool_], row: slice) -> list[slice]:
    """Return the runs of tiles of a row that are needed."""
    edges = np.flatnonzero(np.diff(needed[row].astype(np.int8), prepend=0, append=0)) + row.start
    return [slice(int(a), int(b)) for a, b in zip(edges[::2], edges[1::2], strict=True)]


def _distance(x: float, columns: slice) -> float:
    return float(max(columns.start - x, x - columns.stop, 0))


class SegmentSession(Session[SegmentationStore]):
    """One go at a segmentation."""

    _plan: BandPlan

    def _pieces(self, batch: int, *, on_cpu: bool, near: Near | None) -> BandPlan:
        values = len(self.store.classes) * self.store.grid.spec.inner_px**2  # of a tile
        most = BLOCK_TILES if on_cpu else DEVICE_PIECE_TILES
        piece_tiles = min(batch, most, max(PIECE_VALUES // values, 1))
        # A device holds two batches, fills a third, and one waits here until its turn.
        in_wait = PIECE_VALUES // values if on_cpu else 4 * batch  # tiles
        ahead = 2 * worker_count(self.device) + max(-(-in_wait // piece_tiles), 1)
        left_out, picture = self.store.left_out, self.store.picture
        self._plan = BandPlan(
            picture,
            self.store.done_bands,
            piece_tiles=piece_tiles,
            ahead=ahead,
            near=near,
            needed=None if left_out is None else picture.tiles_touching(~left_out),
        )
        return self._plan

    def _collect(self, crew: Crew[Answer], cancel: threading.Event) -> Iterator[Progress]:
        plan = self._plan
        answers = self._in_order(crew, cancel)
        try:
            for number, stretch in enumerate(plan.stretches):
                strip = _Strip(self.store, stretch)
                for answer in islice(answers, plan.pieces_of[number]):
                    yield from self._written(strip.add(answer), cancel)
                    plan.stitched()
                if cancel.is_set():
                    return
                yield from self._written(strip.end(), cancel)
        finally:
            plan.end()  # else the crew could not be closed

    def _in_order(self, crew: Crew[Answer], cancel: threading.Event) -> Iterator[Answer]:
        """Yield the answers in the order of the plan; ends when the run is cancelled."""
        waiting: dict[int, Answer] = {}
        for place in range(len(self._plan.order)):
            while place not in waiting and not cancel.is_set():
                try:
                    answer = crew.take(timeout=WAIT_SECONDS)
                except TimeoutError:
                    continue
                assert answer is not None, "the crew ended before its last piece"
                if answer.failed and self.on_error == "raise":
                    raise answer.failed[min(answer.failed)]
                waiting[answer.piece.block] = answer
            if cancel.is_set():
                return
            yield waiting.pop(place)

    def _written(self, bands: Iterator[Band], cancel: threading.Event) -> Iterator[Progress]:
        for band in bands:
            self.done = int(self.store.done_tiles.sum())
            yield self._progress(self.store.picture.rect_px0([band]))
            if cancel.is_set():
                return

    def _warning(self) -> str | None:
        if self.store.left_out is not None and self.store.left_out.any():
            return None  # what was not looked at does say the same
        coarse = np.asarray(self.store.levels[-1][:])
        values = [level[level != UNKNOWN] for level in coarse]
        if len(self.store.grid) > 1 and all(len(v) > 1 and np.ptp(v) == 0 for v in values):
            return (
                f"{self.model.name} gives the same answer everywhere: it does not work on this "
                f"slide, or its weights are broken."
            )
        return None


class _Strip:
    """A stretch that is stitched: bands are written as soon as they are finished."""

    def __init__(self, store: SegmentationStore, stretch: Stretch) -> None:
        spec = store.grid.spec
        self._store = store
        self._bands = list(stretch.bands)
        self._skipped: dict[int, str] = {}
        self._background = np.array(
            [[[name == store.model.get("background_class")]] for name in store.class_names],
            np.float32,
        )  # (C, 1, 1)
        left_out, picture = store.left_out, store.picture
        self._wanted = None if left_out is None else picture.cells_image(~left_out)
        weights = window(spec.inner_px, spec.stride_px)
        classes = len(store.classes)
        self._stitcher = Stitcher(stretch.rows, stretch.columns, classes, weights, BAND_PX)

    def add(self, answer: Answer) -> Iterator[Band]:
        """Add the tiles of a piece; yield the bands that it shows to be finished."""
        first = answer.piece.tiles.start
        yield from self._write(self._store.picture.corner(first)[0])
        for place, probabilities in enumerate(answer.scores):
            error = answer.failed.get(first + place)
            if error is not None:
                self._skipped[first + place] = str(error)
            else:
                self._stitcher.add(self._store.picture.corner(first + place), probabilities)

    def end(self) -> Iterator[Band]:
        """Yield the bands that are left: no further tile comes."""
        yield from self._write(self._bands[-1].rows.stop if self._bands else 0)

    def _write(self, stop: int) -> Iterator[Band]:
        while self._bands and self._bands[0].rows.stop <= stop:
            band = self._bands.pop(0)
            picture = self._store.picture
            if self._wanted is None or picture.reaches(self._wanted, band.rows, band.columns):
                self._store.write_band(band, partial(self._part, band.rows), self._skipped)
                self._skipped = {}
            else:
                self._store.write_background(band)
            self._stitcher.drop(band.rows.stop)
            yield band

    def _part(self, rows: slice, columns: slice) -> NDArray[np.float32]:
        """Return the probabilities of some columns of the rows that are finished."""
        picture = self._store.picture
        probabilities = self._stitcher.mean(rows.stop, columns)
        known = picture.known(rows, columns)
        if self._wanted is not None:
            wanted = picture.pixels(self._wanted, rows, columns)
            np.copyto(probabilities, self._background, where=~wanted)
        np.copyto(probabilities, np.nan, where=~known)
        return probabilities
