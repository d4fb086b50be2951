"""Decisions that change no region: kept, found again, opened again; files are never trusted."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from shapely.geometry import Polygon, box

from napari_histomil.annotations.formats import read_annotations, write_annotations
from napari_histomil.annotations.model import Region, class_named
from napari_histomil.resources import fallback_sidecar, sidecar
from napari_histomil.results.stored import is_sidecar, part_of
from napari_histomil.review import decisions
from napari_histomil.review.decisions import (
    FILE_NAME,
    Decided,
    keep_decision,
    pair_key,
    recall_decisions,
)
from napari_histomil.review.settling import Disagreement
from tests.annotations.mask_material import slide_info

TUMOR, STROMA = class_named("Tumor"), class_named("Stroma")
MINE = Region(box(10.25, 10, 60, 60), TUMOR)
THEIRS = Region(box(10, 10, 60, 61.5), STROMA)
PAIR = Disagreement("other class", MINE, THEIRS, 0.97)
KEY = pair_key(PAIR)


@pytest.fixture
def info(tmp_path):
    path = tmp_path / "slides" / "slide.tiff"
    path.parent.mkdir()
    path.write_bytes(b"pixels")
    return replace(slide_info(2000, 1600, (0.5, 0.5)), path=path, fingerprint="ab" * 32)


def decide(info, word="mine", key=KEY, reader="Bo"):
    keep_decision(info, Decided.now(reader, key, word, "Ada"))


def words(info, reader="Bo"):
    return {key: each.decision for key, each in recall_decisions(info, reader).items()}


# --- what a difference is known by --------------------------------------------------------------


def test_the_key_is_what_both_say_and_nothing_else(tmp_path):
    note = MINE.but(metadata={"note": "sure", "edited": "2026-11-29T08:00:00Z"}, name="A")
    turned = note.but(geometry=Polygon(np.roll(MINE.geometry.exterior.coords[:-1], 2, axis=0)))
    assert pair_key(replace(PAIR, mine=turned, iou=0.1)) == KEY
    path = tmp_path / "a.geojson"
    write_annotations(path, [MINE, THEIRS])
    mine, theirs = read_annotations(path).regions
    assert pair_key(replace(PAIR, mine=mine, theirs=theirs)) == KEY, "as it comes from the disk"
    moved = MINE.but(geometry=box(10.27, 10, 60, 60))
    others = [
        replace(PAIR, mine=moved),
        replace(PAIR, mine=MINE.but(classification=STROMA)),
        replace(PAIR, mine=MINE.but(classification=None)),
        replace(PAIR, theirs=THEIRS.but(geometry=box(10, 10, 60, 62))),
        replace(PAIR, mine=None),
        replace(PAIR, theirs=None),
        replace(PAIR, mine=THEIRS, theirs=MINE),
    ]
    assert len({KEY, *map(pair_key, others)}) == 1 + len(others)


# --- keeping ------------------------------------------------------------------------------------


def test_a_decision_is_found_again_by_reader_and_the_last_one_counts(info):
    assert words(info) == {}
    decide(info)
    decide(info, "both", "c" * 64)
    assert words(info) == {KEY: "mine", "c" * 64: "both"}
    assert words(info, "Cy") == {}
    assert recall_decisions(info, "Bo")[KEY].author == "Ada"
    decide(info, "open")
    assert words(info) == {"c" * 64: "both"}
    decide(info)
    assert words(info)[KEY] == "mine"
    file = sidecar(info.path, info.fingerprint) / FILE_NAME
    assert len(json.loads(file.read_text())["decisions"]) == 2, "one entry a question"
    assert part_of(FILE_NAME) == "drawn"
    assert is_sidecar(file.parent)


def test_where_nothing_can_be_written_it_lies_in_the_persons_own(info):
    in_the_way = info.path.with_name("slide.tiff.histomil")
    in_the_way.write_text("no folder")
    decide(info)
    assert words(info) == {KEY: "mine"}
    assert (fallback_sidecar(info.fingerprint) / FILE_NAME).is_file()
    in_the_way.unlink()
    decide(info, "open")  # beside the slide now: the later one counts, wherever it lies
    assert words(info) == {}


def test_a_picture_in_memory_leaves_nothing(info):
    decide(replace(info, path=info.path.with_name("none.tiff")))
    assert words(info) == {}
    assert not list(info.path.parent.glob("*.histomil"))


# --- files --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"schema_version": "1"}', "[" * 100_000, '{"schema_version": 1}']
)
def test_a_damaged_file_is_passed_over_and_put_aside(info, text):
    file = sidecar(info.path, info.fingerprint) / FILE_NAME
    file.parent.mkdir()
    file.write_text(text)
    assert words(info) == {}
    decide(info)
    assert words(info) == {KEY: "mine"}
    assert file.with_name(f"{FILE_NAME}.damaged").read_text() == text


def test_a_newer_file_is_left_alone(info):
    file = sidecar(info.path, info.fingerprint) / FILE_NAME
    decide(info)
    assert words(info)
    answer = json.loads(file.read_text()) | {"schema_version": 2}
    file.write_text(json.dumps(answer))
    assert words(info) == {}
    decide(info, key="d" * 64)
    assert words(info) == {"d" * 64: "mine"}, "in the person's own folder"
    assert json.loads(file.read_text()) == answer


def test_nonsense_among_entries_is_left_out(info):
    file = sidecar(info.path, info.fingerprint) / FILE_NAME
    decide(info)
    assert words(info)
    answer = json.loads(file.read_text())
    (good,) = answer["decisions"]
    bad = [
        None, 7, {}, good | {"pair": "../../etc"}, good | {"decision": "theirs"},
        good | {"time": "soon"}, good | {"time": "9999"}, good | {"reader": ["Bo"]},
        good | {"author": "x" * 10_000},
    ]  # fmt: skip
    answer["decisions"] = [*bad, good]
    file.write_text(json.dumps(answer))
    assert words(info) == {KEY: "mine"}
    file.write_text(json.dumps(answer | {"fingerprint": "cd" * 32}))
    assert words(info) == {}, "it is about another slide"


def test_it_stays_small(info, monkeypatch):
    monkeypatch.setattr(decisions, "MOST_KEPT", 3)
    for digit in "12345":
        decide(info, key=digit * 64)
    assert sorted(key[0] for key in words(info)) == ["3", "4", "5"]
    file = sidecar(info.path, info.fingerprint) / FILE_NAME
    monkeypatch.setattr(decisions, "LARGEST_FILE_BYTES", file.stat().st_size - 1)
    assert words(info) == {}
