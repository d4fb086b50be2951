"""Hostile annotation files, made by damaging sound ones.

    python -m tests.annotations.fuzzing --seconds 600

damages files of every format until the time is up and prints those that are answered badly.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from shapely.geometry import LineString, MultiPoint, MultiPolygon, Point, Polygon, box

from napari_histomil.annotations.formats import read_annotations, write_annotations
from napari_histomil.annotations.model import Region, SlideFrame, class_named
from napari_histomil.errors import AnnotationError

SECONDS = 5.0
"""No small file may take the processor longer; some machines are slow."""

WORDS = (b"NaN", b"Infinity", b"-1e308", b"1e999", b"1e400", b"", b"-1", b"0", b"null", b"true",
         b"[]", b"{}", b'""', b"12,5", b"1,234.5", b"0x10", b"99999999999999999999999", b"\\ud800",
         b"\xff", b"\0", b"]]>", b"<!--", b"&lol;", b"1e9", b"2147483648")  # fmt: skip
TOKEN = re.compile(rb'"[^"]*"|-?[0-9][0-9.eE+,-]*|[A-Za-z]+|[<>\[\]{},:/=]')


def sources(folder: Path) -> dict[str, bytes]:
    """Return small sound files of every format that hold everything the format can say."""
    hole = [(3, 3), (6, 3), (6, 6), (3, 6)]
    whole = Polygon([(0, 0), (9, 0), (9, 9), (0, 9)], [hole])
    tile = Region(box(0, 0, 8, 8), locked=True, object_type="tile", measurements={"prob_a": 0.5})
    regions = [
        Region(whole, class_named("Tumor"), name="A", metadata={"note": "n"}, locked=True),
        Region(MultiPolygon([box(20, 0, 29, 9), whole]), class_named("Stroma"), color=(1, 2, 3)),
        Region(Point(1, 2)),
        Region(MultiPoint([(1, 2), (3, 4)]), class_named("Tumor: Positive")),
        Region(LineString([(0, 0), (5, 5), (9, 0)]), name="line"),
        Region(box(0, 0, 5, 5), nucleus=box(1, 1, 2, 2), object_type="cell",
               measurements={"Area": 2.5}, children=(Region(box(1, 1, 3, 3)),)),
    ]  # fmt: skip
    frame = SlideFrame((10.0, 20.0), "slide.svs", "ab" * 32)
    result = {}
    for name in ("geojson", "asap", "imagescope", "halo", "dsa"):
        write_annotations(folder / "a", regions, to=name, frame=frame)
        result[name] = (folder / "a").read_bytes()
    write_annotations(folder / "a", [tile] * 3, to="wsinfer")
    result["wsinfer"] = (folder / "a").read_bytes()
    result["dsa-others"] = json.dumps(
        [{"_id": 1, "annotation": {"name": "n", "elements": [
            {"type": "rectangle", "center": [5, 5, 0], "width": 4, "height": 2, "rotation": 0.5},
            {"type": "circle", "center": [5, 5, 0], "radius": 2},
            {"type": "heatmap", "points": [[1, 2, 0, 3]]},
        ]}}]
    ).encode()  # fmt: skip
    return result


def real_sources(data_dir: Path) -> dict[str, bytes]:
    """Return real files, the middle of the long ones left out."""
    result = {}
    for path in sorted(data_dir.glob("annot-*/*")):
        data = path.read_bytes()
        if len(data) > 20_000 and path.suffix == ".xml":
            text = data.decode()
            data = re.sub(
                r"((?:\s*<(?:Coordinate|Vertex) [^>]*>){6})(?:\s*<(?:Coordinate|Vertex) [^>]*>)+",
                r"\1",
                text,
            ).encode()
        result[path.name] = data
    return result


# --- damage -----------------------------------------------------------------------------------


def _flip(data: bytearray, chance: random.Random) -> bytes:
    for _ in range(chance.randint(1, 4)):
        data[chance.randrange(len(data))] = chance.randrange(256)
    return bytes(data)


def _cut(data: bytearray, chance: random.Random) -> bytes:
    return bytes(data[: chance.randrange(len(data))])


def _drop(data: bytearray, chance: random.Random) -> bytes:
    start = chance.randrange(len(data))
    del data[start : start + chance.randint(1, 60)]
    return bytes(data)


def _repeat(data: bytearray, chance: random.Random) -> bytes:
    start = chance.randrange(len(data))
    part = data[start : start + chance.randint(1, 200)]
    return bytes(data[:start] + part * chance.randint(2, 4) + data[start:])


def _replace(data: bytearray, chance: random.Random) -> bytes:
    tokens = list(TOKEN.finditer(data))
    for token in chance.sample(tokens, min(len(tokens), chance.randint(1, 3)))[::-1]:
        word = chance.choice(WORDS)
        if chance.random() < 0.3:
            word = chance.choice(tokens)[0]
        quoted = token[0][:1] == b'"' and chance.random() < 0.8
        data[token.start() : token.end()] = b'"' + word + b'"' if quoted else word
        break
    return bytes(data)


def _deep(data: bytearray, chance: random.Random) -> bytes:
    at = chance.randrange(len(data))
    depth = chance.choice((10, 100, 2000, 100_000))
    opening, closing = chance.choice(((b"[", b"]"), (b'{"a":', b"}"), (b"<a>", b"</a>")))
    return bytes(data[:at] + opening * depth + closing * chance.choice((0, depth)) + data[at:])


def _entities(data: bytearray, chance: random.Random) -> bytes:
    bomb = b'<!DOCTYPE a [<!ENTITY a "lol">' + b"".join(
        b'<!ENTITY b%d "%s">' % (n, b"&b%d;" % (n - 1) * 10 if n else b"&a;" * 10)
        for n in range(9)
    ) + b"]>"  # fmt: skip
    return bytes(bomb + data.replace(b'="', b'="&b8;', 1))


def _values(data: bytearray, chance: random.Random) -> bytes:
    """Put a value of another type somewhere into a JSON tree."""
    try:
        tree = json.loads(data)
    except (ValueError, RecursionError):
        return _replace(data, chance)
    places: list[tuple[dict | list, str | int]] = []
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        keys = node if isinstance(node, dict) else range(len(node))
        for key in keys:
            places.append((node, key))
            if isinstance(node[key], dict | list):
                waiting.append(node[key])
    if not places:
        return bytes(data)
    for _ in range(chance.randint(1, 3)):
        node, key = chance.choice(places)
        other = chance.choice(places)
        node[key] = chance.choice(
            (None, True, -1, 1e300, 10**30, "", "text", [], {}, [[]], [1, 2], float("nan"),
             {"type": "Polygon"}, other[0].get(other[1]) if isinstance(other[0], dict) else 3)
        )  # fmt: skip
    try:
        return json.dumps(tree).encode()
    except (ValueError, RecursionError):  # it holds itself
        return bytes(data)


DAMAGE: tuple[Callable[[bytearray, random.Random], bytes], ...] = (
    _flip, _cut, _drop, _repeat, _replace, _replace, _replace, _values, _values, _values, _deep,
    _entities,
)  # fmt: skip


def damaged(data: bytes, chance: random.Random) -> bytes:
    """Return a damaged copy."""
    for _ in range(chance.choice((1, 1, 2))):
        data = chance.choice(DAMAGE)(bytearray(data or b" "), chance)
    return data


def look(path: Path, content: bytes) -> str:
    """Read a file and write what it holds; return what came of it.

    Raises
    ------
    AssertionError
        If it is refused in other words than one sentence, or takes too long.
    """
    path.write_bytes(content)
    start = time.process_time()
    try:
        file = read_annotations(path)
    except AnnotationError as error:
        text = str(error)
        assert text.endswith("."), text
        assert not text.endswith(".."), text
        assert "\n" not in text, text
        assert len(text) < 500, text
        assert path.name in text, text
        return "refused"
    finally:
        assert time.process_time() - start < SECONDS, "it took too long"
    for to in ("geojson", file.format):
        try:
            write_annotations(
                path.with_suffix(".out"), file.regions, to=to, frame=file.frame, extra=file.extra
            )
        except AnnotationError:
            assert to == "wsinfer"
            continue
        again = read_annotations(path.with_suffix(".out"))
        assert len(again.regions) <= len(file.regions)
    return "read"


def main() -> None:
    """Damage files until the time is up."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--data", type=Path)
    args = parser.parse_args()
    counts: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        sound = sources(Path(folder)) | (real_sources(args.data) if args.data else {})
        names = sorted(sound)
        end, seed = time.monotonic() + args.seconds, args.seed
        while time.monotonic() < end:
            name = names[seed % len(names)]
            content = damaged(sound[name], random.Random(seed))
            try:
                counts[look(Path(folder) / "fuzz.bin", content)] += 1
            except Exception as error:  # noqa: BLE001 - whatever it is, it is what is looked for
                counts["bad"] += 1
                print(f"{name} seed {seed}: {type(error).__name__}: {str(error)[:300]}")
            seed += 1
    print(dict(counts))


if __name__ == "__main__":
    main()
