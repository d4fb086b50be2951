"""A process that opens and reads what may be hostile, and says how it went; see `fuzzing.py`.

It reads one path a line from stdin and answers with one line of JSON: ``outcome`` is ``read``,
``refused`` or ``bad``, ``said`` the sentence or what went wrong.
"""

from __future__ import annotations

import contextlib
import faulthandler
import json
import os
import re
import sys
import time
import traceback
import warnings
from pathlib import Path

from napari_histomil.cli.slides import _info_lines, info_json
from napari_histomil.errors import SlideError
from napari_histomil.slides.cache import shared_cache
from napari_histomil.slides.readers import open_slide
from napari_histomil.slides.slide import Slide

SIDE_PX = 300
"""Of the regions that are read."""

MAX_GROWTH_KB = 512 << 10
MAX_SPACE_KB = 6 << 20
"""Of addresses, above those at the start: a decoder may reserve what it never uses."""


def main() -> None:
    """Answer until stdin ends."""
    faulthandler.enable()
    with contextlib.suppress(ImportError, ValueError):
        import resource

        limit = (_status("VmSize") + MAX_SPACE_KB) * 1024
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    shared_cache()._budget_bytes = 64 << 20
    for line in sys.stdin:
        path, *others = line.rstrip("\n").split("\t")
        _pretend(path)
        start = time.perf_counter()
        outcome, said, growth = _judge(Path(path), others)
        seconds = round(time.perf_counter() - start, 3)
        answer = {"outcome": outcome, "said": said, "seconds": seconds, "growth_kb": growth}
        print("\n" + json.dumps(answer), flush=True)


def _judge(path: Path, readers: list[str]) -> tuple[str, str, int]:
    """Open and read a slide as a person would."""
    before = _forget_peak()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            look(path, readers[0] if readers else None)
        outcome, said = "read", ""
    except SlideError as error:
        said = str(error)
        outcome = "refused" if _is_sentence(said) else "bad"
    except BaseException:  # noqa: BLE001  this is what is looked for
        outcome, said = "bad", traceback.format_exc(limit=-6)
    shared_cache().clear()
    growth = max(_status("VmHWM") - before, 0) if before else 0
    if outcome != "bad" and growth > MAX_GROWTH_KB:
        outcome, said = "bad", f"{growth >> 10} MB of memory; {said}"
    return outcome, said, growth


def look(path: Path, reader: str | None = None) -> None:
    """Open a slide, tell its facts, and read a corner, the middle and the coarsest level."""
    if path.name == "<memory>":
        assert bytearray(MAX_GROWTH_KB * 1024 + (64 << 20)).count(1) == 0
    with open_slide(path, reader=reader) as slide:
        info = slide.info
        json.dumps(info_json(info))
        "\n".join(_info_lines(info)).encode()
        sizes = [(level.width, level.height) for level in info.levels]
        assert min(min(size) for size in sizes) > 0, f"a level without pixels: {sizes}"
        assert len(info.fingerprint) == 64
        last = len(info.levels) - 1
        middle = info.width_px0 // 2 - SIDE_PX // 2, info.height_px0 // 2 - SIDE_PX // 2
        refused = []
        for corner, level, size in (
            ((0, 0), 0, (SIDE_PX, SIDE_PX)),
            (middle, 0, (SIDE_PX, SIDE_PX)),
            ((0, 0), last, (min(sizes[last][0], 2048), min(sizes[last][1], 2048))),
        ):
            _read(slide, corner, level, size, refused)
        for name in info.associated_images:
            try:
                assert slide.read_associated(name).ndim == 3
            except SlideError as error:
                refused.append(error)
        if refused:
            raise next((error for error in refused if not _is_sentence(str(error))), refused[0])


def _pretend(name: str) -> None:
    """Do what a hostile file might, when asked by name: whoever watches must notice."""
    if name == "<crash>":
        os.abort()
    if name == "<hang>":
        time.sleep(3600)


def _read(
    slide: Slide,
    corner: tuple[int, int],
    level: int,
    size: tuple[int, int],
    refused: list[SlideError],
) -> None:
    try:
        pixels = slide.read_region(corner, level, size)
    except SlideError as error:
        refused.append(error)
        return
    assert pixels.shape == (size[1], size[0], 3)
    assert str(pixels.dtype) == "uint8"


def _is_sentence(said: str) -> bool:
    return "\n" not in said and 20 < len(said) < 500 and said.rstrip('"').endswith(".")


def _forget_peak() -> int:
    """Begin to measure the peak of memory anew; returns what is used now, kB, 0 if unknown."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return 0
    return _status("VmRSS")


def _status(name: str) -> int:
    """Return a number of kB from what Linux says of this process, 0 elsewhere."""
    try:
        text = Path("/proc/self/status").read_text()
    except OSError:
        return 0
    found = re.search(rf"{name}:\s+(\d+) kB", text)
    return int(found[1]) if found else 0


if __name__ == "__main__":
    main()
