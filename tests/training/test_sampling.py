"""What is drawn, counted."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from napari_histomil.errors import TrainingError
from napari_histomil.training.fields import ArrayField, array_field
from napari_histomil.training.sampling import sampler


def test_sources_are_drawn_by_their_share() -> None:
    labels = np.zeros((4, 4), np.uint8)
    fields = [
        array_field(str(i), str(i), source, np.full((4, 4, 3), i, np.uint8), labels, mirrored=True)
        for i, source in enumerate(["many", "many", "few", "none"])
    ]
    rng = np.random.default_rng(0)
    shares = {"many": 0.75, "few": 0.25, "none": 0.0}
    source = sampler(fields, shares)
    drawn = [int(source.cut(2, rng)[0][0, 0, 0]) for _ in range(400)]
    assert set(drawn) == {0, 1, 2}
    assert 0.15 < drawn.count(2) / 400 < 0.35


def tile(name: str, source: str, labels: list[int], **tags: str) -> ArrayField:
    """A field of a pixel row; its picture holds its number."""
    index = np.array([labels], np.uint8)
    image = np.full((1, len(labels), 3), int(name), np.uint8)
    return array_field(name, f"g{name}", source, image, index, mirrored=True, tags=tags)


def test_classes_slides_and_centers_come_equally_often_all_at_once() -> None:
    fields = [
        tile("0", "a", [0] * 97 + [1] * 3, slide="s1", center="A"),
        tile("1", "a", [0] * 50 + [1] * 50, slide="s1", center="A"),
        tile("2", "a", [0] * 99 + [1], slide="s2", center="A"),
        tile("3", "a", [0] * 10 + [1] * 90, slide="s3", center="B"),
        tile("4", "a", [0] * 90 + [1] * 10, slide="s4", center="B"),
        tile("5", "a", [255] * 100, slide="s4", center="B"),
    ]
    source = sampler(fields, {"a": 1.0}, ["class", "slide", "center"])
    rng, counts = np.random.default_rng(0), Counter[str]()
    draws = 4000
    for _ in range(draws):
        field, (x, y) = source.draw(rng)
        label = int(field.cut((x, y), 1)[1][0, 0])
        counts.update([f"class {label}", field.tags["slide"], field.tags["center"]])
        assert field.name != "5"  # nothing of it is labelled
    for values in (("class 0", "class 1"), ("s1", "s2", "s3", "s4"), ("A", "B")):
        for value in values:
            wanted = draws / len(values)
            assert abs(counts[value] - wanted) < 4 * np.sqrt(wanted), (value, counts)


def test_a_class_that_one_slide_has_still_comes_as_often() -> None:
    fields = [tile("0", "a", [0, 0, 0, 1], slide="s1")]
    fields += [tile(str(i), "a", [0] * 4, slide=f"s{i}") for i in range(1, 4)]
    chances: Counter[str] = Counter()
    source = sampler(fields, {"a": 1.0}, ["slide", "class"])
    for (number, label), weight in zip(source.strata, source.weights.tolist(), strict=True):
        chances[f"class {label}"] += weight
        chances[fields[number].tags["slide"]] += weight
    assert chances["class 1"] == pytest.approx(0.5)
    assert chances["s2"] == pytest.approx(chances["s3"])


def test_sources_keep_their_shares_while_classes_are_balanced() -> None:
    fields = [tile("0", "a", [0] * 9 + [1]), tile("1", "b", [0] * 5 + [1] * 5)]
    source = sampler(fields, {"a": 0.8, "b": 0.2}, ["class"])
    assert source.weights.tolist() == pytest.approx([0.4, 0.4, 0.1, 0.1])


def test_a_tag_that_nothing_has_is_refused() -> None:
    with pytest.raises(TrainingError, match="'centre', and no source has such a tag"):
        sampler([tile("0", "a", [0, 1])], {"a": 1.0}, ["class", "centre"])
    with pytest.raises(TrainingError, match="nothing that is labelled"):
        sampler([tile("0", "a", [255])], {"a": 1.0})
