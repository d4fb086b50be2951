"""Unlabelled tiles: squares cut at random out of pictures and out of the tissue of slides."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from scipy import ndimage

from napari_histomil.errors import MissingMppError, TrainingError
from napari_histomil.slides.readers import SLIDE_SUFFIXES, open_slide
from napari_histomil.slides.slide import Slide, read_tile
from napari_histomil.tissue import find_tissue
from napari_histomil.training.selfsupervised.config import PretrainConfig, TileSource
from napari_histomil.training.selfsupervised.views import square_px

PICTURES = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp")

KEPT_BYTES = 512 * 2**20
"""Decoded pictures are kept up to this; what does not fit is read whenever it is drawn."""

NEAR = 0.05
"""Pictures whose µm/px differ by less than this part are taken as they are."""

Uint8 = NDArray[np.uint8]


class Piece(Protocol):
    """A picture or a slide."""

    def draw(self, rng: np.random.Generator, size_px: int) -> Uint8:
        """Return a random square [size, size, 3] at the grid's µm/px; several threads may."""


@dataclass(frozen=True, slots=True, eq=False)
class ArrayPiece:
    """A picture in memory, at the grid's µm/px; mirrored where it is smaller than a square."""

    image: Uint8
    """[h, w, 3]"""

    def draw(self, rng: np.random.Generator, size_px: int) -> Uint8:
        """Cut a random square."""
        height, width = self.image.shape[:2]
        y = int(rng.integers(max(height - size_px, 0) + 1))
        x = int(rng.integers(max(width - size_px, 0) + 1))
        square = self.image[y : y + size_px, x : x + size_px]
        missing = size_px - square.shape[0], size_px - square.shape[1]
        return np.pad(square, ((0, missing[0]), (0, missing[1]), (0, 0)), mode="reflect")


@dataclass(slots=True, eq=False)
class Memory:
    """Decoded pictures, as many as fit.

    Threads that read the same one at once count it twice, and a few pictures less are kept.
    """

    left_bytes: int = KEPT_BYTES
    kept: dict[Path, ArrayPiece] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class PicturePiece:
    """A picture on disk."""

    path: Path
    factor: float
    """Its µm/px over the grid's."""
    bgr: bool
    memory: Memory

    def draw(self, rng: np.random.Generator, size_px: int) -> Uint8:
        """Cut a random square.

        Raises
        ------
        TrainingError
            If the picture cannot be read.
        """
        piece = self.memory.kept.get(self.path)
        if piece is None:
            piece = ArrayPiece(self._read())
            if piece.image.nbytes <= self.memory.left_bytes:
                self.memory.left_bytes -= piece.image.nbytes
                self.memory.kept[self.path] = piece
        return piece.draw(rng, size_px)

    def _read(self) -> Uint8:
        try:
            with Image.open(self.path) as opened:
                image = opened.convert("RGB")
        except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
            raise TrainingError(
                f"{self.path} cannot be read as a picture: take it out of the folder ({error})."
            ) from error
        if abs(self.factor - 1) > NEAR:
            size = [max(round(side * self.factor), 1) for side in image.size]
            smaller = self.factor < 1
            how = Image.Resampling.BOX if smaller else Image.Resampling.BICUBIC
            image = image.resize((size[0], size[1]), how)
        pixels = np.asarray(image)
        return np.ascontiguousarray(pixels[..., ::-1]) if self.bgr else pixels


@dataclass(frozen=True, slots=True, eq=False)
class TissuePiece:
    """The tissue of a slide; pixels are read when they are asked for."""

    slide: Slide
    mpp: float
    centres: NDArray[np.int64]
    """Flat indices of the mask's pixels around which a square holds enough tissue."""
    width: int
    """Of the mask."""
    scale_px0: tuple[float, float]
    """Level-0 px that a mask pixel spans along (x, y)."""

    def draw(self, rng: np.random.Generator, size_px: int) -> Uint8:
        """Read a square around a random place of the tissue."""
        row, column = divmod(int(self.centres[rng.integers(len(self.centres))]), self.width)
        dx, dy = rng.random(2)
        mpp_x, mpp_y = self.slide.info.mpp_xy
        half_px0 = size_px * self.mpp / mpp_x / 2, size_px * self.mpp / mpp_y / 2
        corner = (
            (column + dx) * self.scale_px0[0] - half_px0[0],
            (row + dy) * self.scale_px0[1] - half_px0[1],
        )
        return read_tile(self.slide, corner, size_px, self.mpp)


@dataclass(frozen=True, slots=True, eq=False)
class Pool:
    """All that tiles are drawn from; a context manager, which closes its slides."""

    pieces: tuple[tuple[Piece, ...], ...]
    """Of each source."""
    shares: tuple[float, ...]
    fingerprint: str = ""
    """Of the files' names and sizes."""
    slides: ExitStack = field(default_factory=ExitStack)

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *error: object) -> None:
        self.slides.close()

    def draw(self, rng: np.random.Generator, size_px: int) -> Uint8:
        """Draw a square [size, size, 3]: the source by its share, any of its pieces, any place."""
        shares = np.array(self.shares, float)
        own = self.pieces[rng.choice(len(shares), p=shares / shares.sum())]
        return own[rng.integers(len(own))].draw(rng, size_px)


def open_pool(config: PretrainConfig, data: Path) -> Pool:
    """Open all that a pretraining names; pixels are read later.

    Parameters
    ----------
    config
        The pretraining.
    data
        Folder that the sources' paths are relative to.

    Raises
    ------
    TrainingError
        If a source holds nothing to look at; the sentence says which.
    SlideError
        If a slide cannot be opened; `MissingMppError` if it does not say its µm/px.
    """
    size, memory = square_px(config), Memory()
    pieces: list[tuple[Piece, ...]] = []
    digest = hashlib.sha256()
    with ExitStack() as stack:
        for source in config.sources:
            root = data / source.path
            paths = [p for p in _paths(source, root) if p.stem not in source.leave_out]
            if not paths:
                raise TrainingError(
                    f"{root} holds no {source.kind} to learn from: correct the path of the source "
                    f"{source.name!r}, or name the data's folder with --data."
                )
            if source.kind == "pictures":
                factor = (source.mpp or config.grid.mpp) / config.grid.mpp
                bgr = source.channel_order == "bgr"
                pieces.append(tuple(PicturePiece(path, factor, bgr, memory) for path in paths))
            else:
                slides = _open_all(paths, source, stack)
                pieces.append(tuple(_tissue(slide, source, config, size) for slide in slides))
            for path in paths:
                digest.update(f"{path.relative_to(root)} {path.stat().st_size}\n".encode())
        shares = tuple(source.share for source in config.sources)
        return Pool(tuple(pieces), shares, digest.hexdigest(), stack.pop_all())


def _open_all(paths: Sequence[Path], source: TileSource, stack: ExitStack) -> list[Slide]:
    """Open slides; the files of one DICOM slide are one."""
    slides: dict[str, Slide] = {}
    for path in paths:
        slide = stack.enter_context(open_slide(path, mpp=source.mpp))
        if slide.info.mpp_x is None or slide.info.mpp_y is None:
            raise MissingMppError(
                f"{path.name} does not say how many µm one pixel spans: add mpp to the source "
                f"{source.name!r} (0.25 is common for 40x, 0.5 for 20x)."
            )
        slides.setdefault(slide.info.fingerprint, slide)
    return list(slides.values())


def _tissue(slide: Slide, source: TileSource, config: PretrainConfig, size_px: int) -> TissuePiece:
    """Find where squares with enough tissue have their middle."""
    found = find_tissue(slide)
    mpp_x, mpp_y = slide.info.mpp_xy
    window = [
        max(round(size_px * config.grid.mpp / mpp / scale), 1)
        for mpp, scale in ((mpp_y, found.scale_px0[1]), (mpp_x, found.scale_px0[0]))
    ]
    share = ndimage.uniform_filter(found.mask.astype(np.float32), window, mode="constant")
    centres = np.flatnonzero(found.mask & (share >= min(source.min_tissue, 0.999)))
    if not len(centres):
        raise TrainingError(
            f"{slide.info.path.name} holds no place with {100 * source.min_tissue:g} % of tissue "
            f"in {size_px * config.grid.mpp:g} µm: lower min_tissue of {source.name!r}, or put "
            f"the slide under leave_out."
        )
    return TissuePiece(slide, config.grid.mpp, centres, found.mask.shape[1], found.scale_px0)


def _paths(source: TileSource, root: Path) -> list[Path]:
    if source.kind == "slides" and (root.is_file() or root.suffix == ".zarr"):
        return [root]
    return sorted(_walk(root, PICTURES if source.kind == "pictures" else SLIDE_SUFFIXES))


def _walk(folder: Path, suffixes: Sequence[str]) -> Iterator[Path]:
    """Yield files of these suffixes at any depth; a Zarr folder is one, and not gone into."""
    for root, folders, files in os.walk(folder):
        whole = [name for name in folders if name.endswith(".zarr")]
        folders[:] = sorted(set(folders) - set(whole))
        names = [*whole, *files] if ".zarr" in suffixes else files
        yield from (Path(root, n) for n in names if Path(n).suffix.lower() in suffixes)
