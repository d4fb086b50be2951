"""Hostile slides, made by damaging sound ones, and a process apart that tries to read them.

A file is damaged at random, but with knowledge of TIFF: bytes, the numbers of tags, their types
and counts, the links from one directory to the next, positions of tiles, descriptions, headers of
JPEG streams. The process that reads lies apart, as a fault inside a C library would end it:

    python -m tests.slides.fuzzing --minutes 5 --only svs

damages files until the time is up and keeps every one that is answered badly.
"""

from __future__ import annotations

import contextlib
import json
import random
import selectors
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]

CASE_SECONDS = 20.0
"""After so long a file has hung its reader; machines with other work are slow."""

TYPE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8,
              13: 4, 16: 8, 17: 8, 18: 8}  # fmt: skip

TAGS = (254, 256, 257, 258, 259, 262, 266, 270, 273, 274, 277, 278, 279, 282, 283, 284, 296, 317,
        320, 322, 323, 324, 325, 330, 338, 339, 347, 530, 532, 32997, 34712, 65420, 65421, 65422,
        65424, 65426, 65432, 65439, 65441, 65442, 65449)  # fmt: skip

EXTREMES = (0, 1, 2, 3, 7, 15, 16, 255, 256, 2**15, 2**16 - 1, 2**24, 2**31 - 1, 2**31, 2**32 - 1,
            2**40, 2**62, 2**63 - 1, 2**63, 2**64 - 1)  # fmt: skip


@dataclass(frozen=True)
class Answer:
    """How the reader took a file."""

    outcome: str
    """``read``, ``refused``, ``bad``, ``crash`` or ``hang``."""
    said: str
    seconds: float
    growth_kb: int

    @property
    def good(self) -> bool:
        """Whether it was read, or refused with a sentence, in bounded time and memory."""
        return self.outcome in ("read", "refused")


class Reader:
    """A process that reads slides; a new one takes over where one has crashed or hung."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._said = b""

    def look(self, path: Path, reader: str = "") -> Answer:
        """Let the process open and read `path`, with the `reader` of that name if one is given."""
        process = self._process = self._process or self._start()
        assert process.stdin is not None
        start = time.perf_counter()
        line = f"{path}\t{reader}" if reader else str(path)
        process.stdin.write(line.encode() + b"\n")
        process.stdin.flush()
        answer = self._answer(process, start + CASE_SECONDS)
        if answer is not None:
            return answer
        seconds = time.perf_counter() - start
        crashed = process.poll() is not None
        self.close()
        code = process.returncode if crashed else 0
        return Answer("crash" if crashed else "hang", f"exit status {code}", seconds, 0)

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def _start(self) -> subprocess.Popen[bytes]:
        self._said = b""
        return subprocess.Popen(
            [sys.executable, "-m", "tests.slides.fuzz_worker"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            cwd=REPOSITORY,
        )  # fmt: skip

    def _answer(self, process: subprocess.Popen[bytes], latest: float) -> Answer | None:
        assert process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            while True:
                *lines, self._said = self._said.split(b"\n")
                for line in lines:  # a C library may print what it likes in between
                    if line.startswith(b'{"outcome"'):
                        return Answer(**json.loads(line))
                left = latest - time.perf_counter()
                if left <= 0 or not selector.select(left):
                    return None
                more = process.stdout.read1(1 << 16)  # type: ignore[attr-defined]
                if not more:
                    process.wait(5)
                    return None
                self._said += more


@dataclass(frozen=True)
class Entry:
    """One tag of one directory: where its parts lie in the file."""

    tag: int
    type: int
    count: int
    position: int
    """Of the tag's number; type, count and value follow."""
    value_at: int
    """Of the first value, in the entry or elsewhere."""


@dataclass(frozen=True)
class Structure:
    """Where the parts of a sound TIFF lie."""

    order: str
    big: bool
    entries: tuple[Entry, ...]
    links: tuple[int, ...]
    """Positions of the links to a directory: in the header and behind each directory."""

    @property
    def word(self) -> str:
        """Format of a position."""
        return self.order + ("Q" if self.big else "I")

    def pack(self, value: int) -> bytes:
        """Return a position, cut to its width."""
        return struct.pack(self.word, value % (1 << 8 * struct.calcsize(self.word)))


def structure(data: bytes) -> Structure | None:
    """Take a sound TIFF apart; None for another file."""
    if data[:4] not in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return None
    order = "<" if data.startswith(b"II") else ">"
    big = 43 in data[2:4]
    word, count_format, inline = ("Q", "Q", 8) if big else ("I", "H", 4)
    links = [8 if big else 4]
    seen: set[int] = set()
    entries: list[Entry] = []
    waiting = list(struct.unpack_from(order + word, data, links[0]))
    while waiting:
        offset = waiting.pop()
        if not 0 < offset < len(data) - 8 or offset in seen:
            continue
        seen.add(offset)
        (count,) = struct.unpack_from(order + count_format, data, offset)
        position = offset + struct.calcsize(order + count_format)
        for _ in range(count):
            tag, kind, number = struct.unpack_from(order + "HH" + word, data, position)
            value_at = position + 4 + inline
            if TYPE_BYTES.get(kind, 1) * number > inline:
                (value_at,) = struct.unpack_from(order + word, data, value_at)
            entries.append(Entry(tag, kind, number, position, value_at))
            if tag == 330:
                part = {4: "I", 13: "I"}.get(kind, "Q")
                waiting += struct.unpack_from(f"{order}{number}{part}", data, value_at)
            position += 4 + 2 * inline
        links.append(position)
        waiting += struct.unpack_from(order + word, data, position)
    return Structure(order, big, tuple(entries), tuple(links))


Damage = Callable[[bytearray, "Structure | None", random.Random], None]


def damage(data: bytes, tiff: Structure | None, chance: random.Random) -> bytes:
    """Return the file, damaged in one to three ways."""
    hurt = bytearray(data)
    kinds = DAMAGES if tiff is not None else PLAIN_DAMAGES
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        with contextlib.suppress(struct.error, ValueError, IndexError):  # cut too short for it
            chance.choice(kinds)(hurt, tiff, chance)
    return bytes(hurt)


def _flip_bytes(data: bytearray, tiff: Structure | None, chance: random.Random) -> None:
    places = [0, len(data)]
    if tiff is not None:
        places += [entry.position for entry in tiff.entries]
    for _ in range(chance.choice((1, 2, 8, 64))):
        near = chance.choice(places) + chance.randrange(-64, 2048)
        if 0 <= near < len(data):
            data[near] = chance.choice((0, 255, chance.randrange(256), data[near] ^ 1 << near % 8))


def _cut(data: bytearray, tiff: Structure | None, chance: random.Random) -> None:
    at = chance.choice(
        (chance.randrange(len(data) + 1), chance.randrange(min(len(data), 3000) + 1))
    )
    if tiff is not None and chance.random() < 0.5:
        at = chance.choice(tiff.entries).position + chance.randrange(20)
    del data[at:]


def _put(data: bytearray, at: int, what: bytes) -> None:
    if 0 <= at <= len(data) - len(what):
        data[at : at + len(what)] = what


def _extreme(data: bytearray, chance: random.Random) -> int:
    return chance.choice((*EXTREMES, len(data), len(data) - 1, len(data) + 1, -1))


def _value(data: bytearray, tiff: Structure | None, chance: random.Random) -> None:
    """Replace a number of a tag."""
    assert tiff is not None
    entry = chance.choice(tiff.entries)
    size = TYPE_BYTES.get(entry.type, 1)
    at = entry.value_at + size * chance.randrange(max(min(entry.count, 1 << 16), 1))
    value = _extreme(data, chance) % (1 << 8 * size)
    _put(data, at, value.to_bytes(size, "little" if tiff.order == "<" else "big"))


def _all_values(data: bytearray, tiff: Structure | None, chance: random.Random) -> None:
    """Replace all the numbers of a tag by one."""
    assert tiff is not None
    entry = chance.choice([entry for entry in tiff.entries if entry.type in (3, 4, 16)])
    size = TYPE_BYTES[entry.type]
    value = _extreme(data, chance) % (1 << 8 * size)
    one = value.to_bytes(size, "little" if tiff.order == "<" else "big")
    _put(data, entry.value_at, one * entry.count)


def _entry(data: bytearray, tiff: Structure | None, chance: random.Random) -> None:
    """Change what a tag is called, its type, count or where its values lie."""
    assert tiff is not None
    entry = chance.choice(tiff.entries)
    part = chance.randrange(4)
    if part == 0:
        _put(data, entry.position, struct.pack(tiff.order + "H", chance.choice(TAGS)))
    elif part == 1:
        kind = chance.choice((*range(20), 255, 65535))
        _put(data, entry.position + 2, struct.pack(tiff.order + "H", kind))
    else:
        width = struct.calcsize(tiff.word)
        at = entry.position + (4 if part == 2 else 4 + width)
        value = chance.choice((_extreme(data, chance), chance.choice(tiff.links), entry.position))
        _put(data, at, tiff.pack(value))


def _link(data: bytearray, tiff: Structure | None, chance: random.Random) -> None:
    """Lead from a directory to itself, to another, or nowhere."""
    assert tiff is not None
    (first,) = struct.unpack_from(tiff.word, data, tiff.links[0])
    target = chance.choice(
        (first, chance.choice(tiff.entries).position - 2, _extreme(data, chance))
    )
    _put(data, chance.choice(tiff.links), tiff.pack(target))


def _sub_directories(data: bytearray, tiff: Structure | None, chance: random.Random) -> None:
    """Make a tag into a link to smaller levels, which may be the directory itself."""
    assert tiff is not None
    entry = chance.choice(tiff.entries)
    (first,) = struct.unpack_from(tiff.word, data, tiff.links[0])
    count = chance.choice((1, 1, 2, 5, 2**16, 2**31))
    kind = chance.choice((4, 13, 16, 18))
    head = struct.pack(tiff.order + "HH", 330, kind) + tiff.pack(count)
    _put(data, entry.position, head + tiff.pack(first if count == 1 else entry.position))


def _description(data: bytearray, tiff: Structure | None, chance: random.Random) -> None:
    """Replace a description by another text, put at the end of the file."""
    assert tiff is not None
    found = [entry for entry in tiff.entries if entry.tag == 270]
    if not found:
        return
    entry = chance.choice(found)
    old = bytes(data[entry.value_at : entry.value_at + min(entry.count, 1 << 20)])
    text = chance.choice(TEXTS)(old, chance)
    count = struct.pack(tiff.order + "HH", 270, 2) + tiff.pack(len(text)) + tiff.pack(len(data))
    _put(data, entry.position, count)
    data += text


def _stream(data: bytearray, tiff: Structure | None, chance: random.Random) -> None:
    """Damage a tile: the size that its JPEG claims, its headers, or all of it."""
    assert tiff is not None
    tables = [entry for entry in tiff.entries if entry.tag in (324, 273) and entry.type in (4, 16)]
    if not tables:
        return
    entry = chance.choice(tables)
    part = "I" if entry.type == 4 else "Q"
    at = entry.value_at + struct.calcsize(part) * chance.randrange(entry.count)
    (start,) = struct.unpack_from(tiff.order + part, data, at)
    frame = max(
        data.find(b"\xff\xc0", start, start + 4096), data.find(b"\xff\x51", start, start + 99)
    )
    if frame > 0 and chance.random() < 0.6:
        at = frame + chance.randrange(2, 40)
        _put(data, at, chance.choice((b"\xff\xff", b"\0\0", b"\0\1", b"\x7f\xff", b"\0\0\0\0")))
        return
    for _ in range(chance.choice((1, 4, 40))):
        at = start + chance.randrange(chance.choice((16, 700)))
        _put(data, at, bytes([chance.randrange(256)]))


def _field(data: bytearray, tiff: Structure | None, chance: random.Random) -> None:
    """Write an extreme number anywhere near the start: lengths of DICOM's elements."""
    del tiff
    width = chance.choice((2, 4))
    at = chance.randrange(max(min(len(data), 4096), 1))
    _put(data, at, (_extreme(data, chance) % (1 << 8 * width)).to_bytes(width, "little"))


def _swap(data: bytearray, tiff: Structure | None, chance: random.Random) -> None:
    """Copy a piece of the file over another one."""
    del tiff
    size = chance.choice((2, 4, 8, 100))
    source, target = (chance.randrange(max(min(len(data), 1 << 14) - size, 1)) for _ in range(2))
    _put(data, target, bytes(data[source : source + size]))


Text = Callable[[bytes, random.Random], bytes]
TEXTS: tuple[Text, ...] = (
    lambda old, chance: b"",
    lambda old, chance: b"\0" * 9,
    lambda old, chance: b"<OME>" * 5000,
    lambda old, chance: b"<a>" * 100_000 + b"</a>" * 100_000,
    lambda old, chance: old[: len(old) // 2],
    lambda old, chance: old.replace(b"8", b"-8").replace(b"2", b"99999999999999999999"),
    lambda old, chance: old.replace(b'="', b'="nan'),
    lambda old, chance: old.replace(b"= ", b"= 1e999"),
    lambda old, chance: old + b"\xff\xfe\x00" + old,
    lambda old, chance: (
        b'<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b "cc"><!ENTITY d "&b;&b;">]><OME>&d;</OME>'
    ),
    lambda old, chance: b"<?xml version='1.0'?><OME " + b"a='b' " * 9 + b">" + b"<I/>" * 200_000,
    lambda old, chance: b"Aperio Image\n1x1 |" + b"MPP = 0.5|" * 9 + b"AppMag = " + b"9" * 5000,
    lambda old, chance: b"Aperio" + bytes(chance.randrange(1, 256) for _ in range(300)),
    lambda old, chance: b"ImageJ=1.53\nimages=2147483647\nslices=-3\nchannels=99999999\n",
    lambda old, chance: b'{"shape": [2147483647, 2147483647, -1]}',
    lambda old, chance: (
        b'<scn xmlns="http://www.leica-microsystems.com/scn/2010/10/01">' + b"<collection>" * 3000
    ),
    lambda old, chance: b"A" * 3_000_000,
    lambda old, chance: b"".join(
        bytes([chance.randrange(256)]) if chance.random() < 0.02 else bytes([byte]) for byte in old
    ),
)

PLAIN_DAMAGES: tuple[Damage, ...] = (_flip_bytes, _flip_bytes, _cut, _field, _field, _swap)
DAMAGES: tuple[Damage, ...] = (
    _flip_bytes, _cut, _value, _value, _value, _all_values, _all_values, _entry, _entry, _link,
    _sub_directories, _description, _stream, _stream, _swap,
)  # fmt: skip


def cases(
    sources: dict[str, Path], folder: Path, chance: random.Random
) -> Iterator[tuple[str, Path]]:
    """Yield (name of the source, damaged slide) without end; each takes the place of the last."""
    from tests.slides.fuzz_sources import damaged_copy

    while True:
        name = chance.choice(sorted(sources))
        yield name, damaged_copy(sources[name], folder, chance)


def main() -> None:
    """Damage and read until the time is up."""
    import argparse
    import shutil
    import tempfile
    from collections import Counter

    from tests.slides.fuzz_sources import make_sources

    parser = argparse.ArgumentParser(description="Read damaged slides until the time is up.")
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--only", default="", help="sources whose name holds this")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, default=Path("fuzz-found"))
    parser.add_argument("--data", type=Path, default=REPOSITORY.parent / "shared" / "data")
    args = parser.parse_args()
    chance = random.Random(args.seed)
    counts: Counter[str] = Counter()
    slowest, largest = 0.0, 0
    end = time.monotonic() + 60 * args.minutes
    with tempfile.TemporaryDirectory() as scratch:
        made = make_sources(Path(scratch) / "sound", args.data)
        sources = {name: path for name, path in made.items() if args.only in name}
        reader = Reader()
        for name, path in cases(sources, Path(scratch) / "hurt", chance):
            forced = "openslide" if chance.random() < 0.15 and path.is_file() else ""
            answer = reader.look(path, forced)
            counts[f"{name} {answer.outcome}"] += 1
            slowest, largest = max(slowest, answer.seconds), max(largest, answer.growth_kb)
            if not answer.good:
                number = sum(counts.values())
                args.keep.mkdir(parents=True, exist_ok=True)
                kept = args.keep / f"{args.seed}-{number}-{path.name}"
                (shutil.copytree if path.is_dir() else shutil.copyfile)(path, kept)
                print(f"{kept} {forced}: {answer.outcome}: {answer.said}", flush=True)
            if time.monotonic() > end:
                break
        reader.close()
    for name, number in sorted(counts.items()):
        print(f"{number:7d} {name}")
    print(f"{sum(counts.values())} files, slowest {slowest:.1f} s, most memory {largest >> 10} MB")


if __name__ == "__main__":
    main()
