from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from napari_histomil.errors import TrainingError
from napari_histomil.training.mil.config import MilConfig, read_mil_config
from napari_histomil.training.mil.recipe import sides_of
from napari_histomil.training.mil.table import Case, folds_of, hold_out, read_table


@pytest.fixture
def config(toy: Path) -> MilConfig:
    return read_mil_config(toy / "train.toml")


def write(toy: Path, *lines: str) -> None:
    (toy / "bags.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")


def test_lines_of_several_magnifications_and_a_patient_each(toy: Path, config: MilConfig) -> None:
    write(toy, "bag,label", "a.h5;b.h5,tumor", " c.h5 ,normal")
    first, second = read_table(config, toy)
    assert first.bags == (toy / "a.h5", toy / "b.h5")
    assert (first.label, second.label) == (1, 0)
    assert second.patient == "c.h5"


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (["bag,label", "a.h5,benign"], "line 2: the label 'benign' is none"),
        (["bag,grade", "a.h5,tumor"], "no column label"),
        (["label", "tumor"], "no column slide"),
        (["bag,label"], "names no slide"),
        (["bag,label", "a.h5,tumor", "a.h5,tumor"], "names a.h5 twice"),
        (["bag,label", "a.h5"], "line 2 has not as many fields"),
        (["bag,label,split", "a.h5,tumor,holdout"], "line 2: split must be one of"),
        (["bag,label", ",tumor"], "names neither a slide nor a bag"),
    ],
)
def test_what_is_wrong_with_a_table_is_said(
    toy: Path, config: MilConfig, lines: list[str], said: str
) -> None:
    write(toy, *lines)
    with pytest.raises(TrainingError, match=said):
        read_table(config, toy)


@pytest.mark.parametrize(("column", "sides"), [("split", "train,test"), ("fold", "1,2")])
def test_a_patient_on_two_sides_is_refused(
    toy: Path, config: MilConfig, column: str, sides: str
) -> None:
    one, other = sides.split(",")
    write(
        toy,
        f"bag,label,patient,{column}",
        f"a.h5,tumor,smith,{one}",
        f"b.h5,normal,jones,{one}",
        f"c.h5,tumor,smith,{other}",
    )
    with pytest.raises(TrainingError, match="smith is in two"):
        read_table(config, toy)


def test_the_tables_split_goes_before_shares(toy: Path, config: MilConfig) -> None:
    write(toy, "bag,label,split", "a,tumor,", "b,normal,test", "c,normal,validation")
    sides = sides_of(config, read_table(config, toy))
    assert {side: [c.name for c in own] for side, own in sides.items()} == {
        "train": ["a"],
        "validation": ["c"],
        "test": ["b"],
    }


def cases_of(patients: int, each: int) -> list[Case]:
    return [
        Case(f"{p}-{n}", int(p % 4 == 0), str(p)) for p in range(patients) for n in range(each)
    ]


def test_folds_keep_patients_whole_and_share_classes_out() -> None:
    cases = cases_of(20, 3)
    folds = folds_of(cases, 5, 0, stratified=True)
    assert Counter(p for fold in folds for p in fold) == Counter(str(p) for p in range(20))
    positives = [sum(int(p) % 4 == 0 for p in fold) for fold in folds]
    assert positives == [1, 1, 1, 1, 1]
    assert folds_of(cases, 5, 0, stratified=True) == folds
    assert folds_of(cases, 5, 1, stratified=True) != folds
    plain = folds_of(cases, 5, 0, stratified=False)
    assert [len(fold) for fold in plain] == [4, 4, 4, 4, 4]


def test_sides_are_drawn_by_patients_and_classes() -> None:
    cases = cases_of(20, 2)
    sides = hold_out(cases, {"validation": 0.2, "test": 0.2}, 3)
    held = {side: {c.patient for c in own} for side, own in sides.items()}
    assert {side: len(own) for side, own in held.items()} == {
        "train": 12,
        "validation": 4,
        "test": 4,
    }
    assert not held["train"] & held["validation"] | held["train"] & held["test"]
    assert sum(c.label for c in sides["validation"]) == 2  # one of five positive patients
    with pytest.raises(TrainingError, match="too few to split"):
        hold_out(cases_of(2, 1), {"validation": 0.2}, 0)


def test_too_few_patients_for_the_folds() -> None:
    with pytest.raises(TrainingError, match="3 patients cannot be split into 5"):
        folds_of(cases_of(3, 4), 5, 0, stratified=True)
