"""Splits: disjoint, complete, seeded; class shares within one, groups whole, time in order; sentences otherwise."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxdl.data import (
    Dataset,
    GroupKFold,
    KFold,
    LeaveOneOut,
    StratifiedKFold,
    load,
    train_validation_test_split,
)

seeds = st.integers(0, 2**40)
KEPT = [0, 3, 6]


def check_folds(folds: list[tuple[np.ndarray, np.ndarray]], rows: int) -> None:
    for train, test in folds:
        assert train.dtype == test.dtype == np.int64 and len(train) and len(test)
        assert np.array_equal(np.sort(np.concatenate([train, test])), np.arange(rows))
        assert (np.diff(train) > 0).all() and (np.diff(test) > 0).all()
    assert np.array_equal(np.sort(np.concatenate([test for _, test in folds])), np.arange(rows))


@pytest.mark.smoke
@given(rows=st.integers(2, 200), folds=st.integers(2, 12), seed=seeds, shuffle=st.booleans())
def test_k_fold_tests_each_row_once(rows: int, folds: int, seed: int, shuffle: bool) -> None:
    folds = min(folds, rows)
    made = list(KFold(folds, shuffle=shuffle, seed=seed).split(rows))
    check_folds(made, rows)
    sizes = [len(test) for _, test in made]
    assert len(made) == folds and max(sizes) - min(sizes) <= 1
    if not shuffle:
        assert np.array_equal(np.concatenate([test for _, test in made]), np.arange(rows))


@given(counts=st.lists(st.integers(4, 40), min_size=1, max_size=6), folds=st.integers(2, 4), seed=seeds)
def test_stratified_folds_share_every_class_to_within_one(counts: list[int], folds: int, seed: int) -> None:
    y = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(counts)) * 7, counts))
    made = list(StratifiedKFold(folds, seed=seed).split(len(y), y))
    check_folds(made, len(y))
    for label, count in zip(np.arange(len(counts)) * 7, counts, strict=True):
        assert all(abs((y[test] == label).sum() - count / folds) < 1 for _, test in made)
    sizes = [len(test) for _, test in made]
    assert max(sizes) - min(sizes) <= 1


@given(sizes=st.lists(st.integers(1, 15), min_size=4, max_size=30), folds=st.integers(2, 4), seed=seeds)
def test_group_folds_never_split_a_group(sizes: list[int], folds: int, seed: int) -> None:
    groups = np.random.default_rng(seed).permutation(np.repeat([f"g{i}" for i in range(len(sizes))], sizes))
    made = list(GroupKFold(folds, seed=seed).split(len(groups), groups))
    check_folds(made, len(groups))
    assert all(not set(groups[train]) & set(groups[test]) for train, test in made)
    # Longest-first placement: no two folds differ by more than the largest group.
    tested = [len(test) for _, test in made]
    assert max(tested) - min(tested) <= max(sizes)


def test_leave_one_out() -> None:
    made = list(LeaveOneOut().split(np.zeros((5, 2))))
    check_folds(made, 5)
    assert [test.tolist() for _, test in made] == [[0], [1], [2], [3], [4]]


@pytest.mark.smoke
@given(rows=st.integers(20, 400), validation=st.floats(0, 0.4), test=st.floats(0.1, 0.4), seed=seeds)
def test_three_parts_cover_the_rows_in_the_shares_asked_for(
    rows: int, validation: float, test: float, seed: int
) -> None:
    validation = 0.0 if validation * rows < 1 else validation
    parts = train_validation_test_split(rows, validation=validation, test=test, seed=seed)
    assert np.array_equal(np.sort(np.concatenate(parts)), np.arange(rows))
    for part, share in zip(parts, (1 - validation - test, validation, test), strict=True):
        assert part.dtype == np.int64 and abs(len(part) - share * rows) < 1 + 1e-6


@given(counts=st.lists(st.integers(1, 30), min_size=1, max_size=25), seed=seeds)
def test_stratified_parts_share_every_class_to_within_one(counts: list[int], seed: int) -> None:
    y = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(counts)), counts))
    y = np.concatenate([y, np.zeros(30, y.dtype)])  # enough that no part is empty
    shares = (0.7, 0.1, 0.2)
    parts = train_validation_test_split(len(y), validation=0.1, test=0.2, stratify=y, seed=seed)
    assert np.array_equal(np.sort(np.concatenate(parts)), np.arange(len(y)))
    for part, share in zip(parts, shares, strict=True):
        ideal = np.bincount(y) * share
        assert (np.abs(np.bincount(y[part], minlength=len(ideal)) - ideal) < 1 + 1e-6).all()
        # What rounding leaves is carried from class to class, so that the parts are right as a whole too.
        assert abs(len(part) - share * len(y)) < 2


@given(sizes=st.lists(st.integers(1, 20), min_size=3, max_size=40), seed=seeds)
def test_grouped_parts_never_split_a_group(sizes: list[int], seed: int) -> None:
    groups = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(sizes)) + 100, sizes))
    parts = train_validation_test_split(len(groups), validation=0.2, test=0.2, groups=groups, seed=seed)
    assert np.array_equal(np.sort(np.concatenate(parts)), np.arange(len(groups)))
    together = [set(groups[part]) for part in parts]
    assert sum(map(len, together)) == len(set(groups)) and all(together)


@given(times=st.lists(st.integers(0, 30), min_size=30, max_size=200), seed=seeds)
def test_parts_by_time_are_in_order(times: list[int], seed: int) -> None:
    when = np.asarray([*times, *range(100, 160)])
    for moments in (when, when.astype("datetime64[h]"), when.astype(np.float64)):
        train, validation, test = train_validation_test_split(len(when), validation=0.1, test=0.1, time=moments)
        assert len(train) + len(validation) + len(test) == len(when)
        assert moments[train].max() < moments[validation].min() and moments[validation].max() < moments[test].min()


def test_rows_of_one_moment_stay_together() -> None:
    days = np.repeat(np.arange(4), 25)
    train, validation, test = train_validation_test_split(100, validation=0.3, test=0.1, time=days)
    assert (len(train), len(validation), len(test)) == (50, 25, 25)


def test_the_seed_decides() -> None:
    y = np.tile(np.arange(3), 20)
    for make in (
        lambda seed: train_validation_test_split(60, seed=seed),
        lambda seed: train_validation_test_split(60, seed=seed, stratify=y),
        lambda seed: next(KFold(3, seed=seed).split(60)),
        lambda seed: next(StratifiedKFold(3, seed=seed).split(60, y)),
        lambda seed: next(GroupKFold(3, seed=seed).split(60, np.arange(60) // 2)),
    ):
        assert all(np.array_equal(a, b) for a, b in zip(make(4), make(4), strict=True))
        assert any(not np.array_equal(a, b) for a, b in zip(make(4), make(5), strict=True))


def test_a_kept_split() -> None:
    # A split of today is the split of tomorrow, on any machine and numpy.
    assert train_validation_test_split(12, validation=0.25, test=0.25, seed=1)[1].tolist() == KEPT


def test_datasets_bring_their_own_labels() -> None:
    digits = load("digits")[1]
    train, test = next(StratifiedKFold(5).split(digits))
    assert len(digits.select(train)) == 288 and np.bincount(digits.select(test)["y"]).min() >= 6
    grouped = Dataset({"x": np.zeros(6), "group": np.array([0, 0, 1, 1, 2, 2])})
    check_folds(list(GroupKFold(3).split(grouped)), 6)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: KFold(5).split(3), "5 folds need at least 5 rows, there are 3"),
        (lambda: KFold(1).split(3), "folds must be at least 2"),
        (lambda: KFold(2).split(0), "nothing to split"),
        (lambda: StratifiedKFold(3).split(5, [4, 4, 9, 4, 9]), "class 9 has 2 members, fewer than the 3 folds"),
        (lambda: StratifiedKFold(2).split(4, [0.5, 1.5, 0.5, 1.5]), "no classes: use KFold"),
        (lambda: StratifiedKFold(2).split(4), "Dataset with a column 'y'"),
        (lambda: StratifiedKFold(2).split(4, [0, 1]), r"shape \[4\], not \[2\]"),
        (lambda: GroupKFold(3).split(4, [0, 0, 1, 1]), "3 folds need at least 3 groups, there are 2"),
        (lambda: GroupKFold(2).split(2, [0.0, np.nan]), "row 1 is missing"),
        (lambda: LeaveOneOut().split(1), "at least 2 rows"),
        (lambda: train_validation_test_split(10, validation=0.6, test=0.4), "their sum is 1 and must be below 1"),
        (lambda: train_validation_test_split(10, validation=-0.1), "0 or more"),
        (lambda: train_validation_test_split(3, validation=0.1), "leave validation .* without an example"),
        (lambda: train_validation_test_split(9, groups=[1] * 9), "1 groups, too few to give each of 3 parts"),
        (lambda: train_validation_test_split(9, time=[1] * 9), "9 rows split by time leave train"),
        (lambda: train_validation_test_split(2, time=[1.0, np.nan]), "time is missing in row 1"),
        (lambda: train_validation_test_split(2, groups=[1, 2], time=[1, 2]), "choose one of groups and time"),
    ],
)
def test_impossible_requests_get_a_sentence(make, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        make()
