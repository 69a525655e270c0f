"""Which examples train and which test: indices, the same for the same seed, with guarantees that hold or a sentence.

Every split yields int64 indices in rising order. Shuffling uses the frozen streams of `jaxdl.data.order`, so a split is
the same on every platform and numpy version.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any, NamedTuple

import numpy as np

from jaxdl.data.dataset import Dataset
from jaxdl.data.order import permutation

Fold = tuple[np.ndarray, np.ndarray]


class Split(NamedTuple):
    """Three disjoint sets of rows, each int64 in rising order; validation or test is empty when its fraction is 0."""

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray


def train_validation_test_split(
    data: Any,
    *,
    validation: float = 0.1,
    test: float = 0.1,
    seed: int = 0,
    stratify: Any = None,
    groups: Any = None,
    time: Any = None,
) -> Split:
    """Rows to train on, to choose by, and to report on.

    Args:
        data: a Dataset, an array, or the number of rows.
        validation: its share of the rows, 0 to 1; 0 leaves it out.
        test: the same; the rest trains.
        seed: of the shuffle.
        stratify: [n] labels: each set has the share of each class that its fraction says, to within one example.
        groups: [n] labels (patients, users): no group is in two sets. The sets' sizes come as near to the fractions as
            whole groups allow: the largest groups are placed first, each where the most is missing.
        time: [n] numbers or dates: validation is later than train, and test is later than validation. Rows of equal
            time stay in one set.

    At most one of stratify, groups and time.

    Raises:
        ValueError: fractions outside [0, 1), a part with a fraction above 0 that would be empty, too few groups, rows
            that differ in number, or more than one way asked for.
    """
    rows = _rows(data)
    fractions = (1 - validation - test, validation, test)
    if not (0 <= validation < 1 and 0 <= test < 1) or fractions[0] <= 0:
        raise ValueError(
            f"validation={validation} and test={test} must be 0 or more and leave something to train on: their sum is "
            f"{validation + test:g} and must be below 1"
        )
    ways = {"stratify": stratify, "groups": groups, "time": time}
    asked = [name for name, labels in ways.items() if labels is not None]
    if len(asked) > 1:
        raise ValueError(f"choose one of {' and '.join(asked)}: a split keeps one of these promises at a time")
    if time is not None:
        part = _by_time(_labels(time, rows, "time"), fractions)
    elif groups is not None:
        part = _by_group(_codes(_labels(groups, rows, "groups")), fractions, seed)
    elif stratify is not None:
        part = _by_class(_codes(_labels(stratify, rows, "stratify")), fractions, seed)
    else:
        part = _by_class(np.zeros(rows, np.int64), fractions, seed)
    split = Split(*(np.flatnonzero(part == each) for each in range(3)))
    for name, indices, fraction in zip(Split._fields, split, fractions, strict=True):
        if fraction > 0 and not len(indices):
            of = f" by {asked[0]}" if asked else ""
            raise ValueError(f"{rows} rows split{of} leave {name} (fraction {fraction:g}) without an example")
    return split


@dataclass(frozen=True)
class KFold:
    """n folds of near-equal size: each row is tested once.

    >>> import numpy as np
    >>> [(len(train), len(test)) for train, test in KFold(4, seed=1).split(np.arange(10))]
    [(7, 3), (8, 2), (7, 3), (8, 2)]
    """

    folds: int = 5
    _: KW_ONLY
    shuffle: bool = True
    seed: int = 0

    def split(self, data: Any) -> Iterator[Fold]:
        """(train, test) for each fold; `data` is a Dataset, an array, or the number of rows."""
        rows = _rows(data)
        _check_folds(self.folds, rows, "rows")
        order = _shuffled(rows, self.seed) if self.shuffle else np.arange(rows)
        part = np.empty(rows, np.int64)
        part[order] = np.arange(rows) * self.folds // rows
        return _folds(part, self.folds)


@dataclass(frozen=True)
class StratifiedKFold:
    """Folds in which each class has its share, to within one example, and which differ in size by at most one."""

    folds: int = 5
    _: KW_ONLY
    shuffle: bool = True
    seed: int = 0

    def split(self, data: Any, y: Any = None) -> Iterator[Fold]:
        """(train, test) for each fold; the classes are `y` or the Dataset's "y".

        Raises:
            ValueError: a class has fewer members than there are folds.
        """
        rows = _rows(data)
        _check_folds(self.folds, rows, "rows")
        labels = _labels(_column(data, y, "y"), rows, "y")
        if labels.dtype.kind == "f" and not (labels == np.floor(labels)).all():
            raise ValueError("y holds fractions, so it has no classes: use KFold, or bin y first")
        codes = _codes(labels)
        sizes = np.bincount(codes)
        if sizes.min() < self.folds:
            rare = labels[np.flatnonzero(codes == np.argmin(sizes))[0]]
            raise ValueError(
                f"class {rare} has {sizes.min()} members, fewer than the {self.folds} folds: use fewer folds, or drop "
                "the class"
            )
        order = _shuffled(rows, self.seed) if self.shuffle else np.arange(rows)
        # The rows class by class, dealt out like cards: each class and the whole are spread to within one.
        by_class = order[np.argsort(codes[order], kind="stable")]
        part = np.empty(rows, np.int64)
        part[by_class] = np.arange(rows) % self.folds
        return _folds(part, self.folds)


@dataclass(frozen=True)
class GroupKFold:
    """Folds that never split a group. Sizes are evened out: the largest groups first, each to the smallest fold."""

    folds: int = 5
    _: KW_ONLY
    seed: int = 0

    def split(self, data: Any, groups: Any = None) -> Iterator[Fold]:
        """(train, test) for each fold; the groups are `groups` or the Dataset's column "group".

        Raises:
            ValueError: there are fewer groups than folds.
        """
        rows = _rows(data)
        codes = _codes(_labels(_column(data, groups, "group"), rows, "groups"))
        _check_folds(self.folds, int(codes.max()) + 1, "groups")
        return _folds(_by_group(codes, (1 / self.folds,) * self.folds, self.seed), self.folds)


@dataclass(frozen=True)
class LeaveOneOut:
    """Each row is the test of one fold: n fits, for data of a few hundred rows at most."""

    def split(self, data: Any) -> Iterator[Fold]:
        """(all the others, the row) for each row."""
        rows = _rows(data)
        _check_folds(2, rows, "rows")
        return _folds(np.arange(rows), rows)


def _folds(part: np.ndarray, folds: int) -> Iterator[Fold]:
    for fold in range(folds):
        yield np.flatnonzero(part != fold), np.flatnonzero(part == fold)


def _by_class(codes: np.ndarray, fractions: Sequence[float], seed: int) -> np.ndarray:
    """The part of each row. Within a class, row i of n goes where the fractions, added up, put (i + 1/2) / n.

    Rounding each class alone would add up over many classes, so what is left over is carried from class to class: the
    parts' sizes are right as a whole, too.
    """
    order = _shuffled(len(codes), seed)
    by_class = order[np.argsort(codes[order], kind="stable")]
    part = np.empty(len(codes), np.int64)
    start, missing = 0, np.zeros(len(fractions))
    for size in np.bincount(codes):
        wanted = np.asarray(fractions) * size
        counts = np.floor(wanted + 1e-9).astype(np.int64)
        missing += wanted - counts
        # Each part may get one more of this class, if its fraction leaves it short of a whole one.
        short = np.where(wanted - counts > 1e-9, missing, -np.inf)
        for each in np.argsort(-short, kind="stable")[: size - counts.sum()]:
            counts[each] += 1
            missing[each] -= 1
        part[by_class[start : start + size]] = np.repeat(np.arange(len(fractions)), counts)
        start += size
    return part


def _by_group(codes: np.ndarray, fractions: Sequence[float], seed: int) -> np.ndarray:
    """The part of each row, whole groups at a time: largest first, each to the part that lacks the most rows."""
    sizes = np.bincount(codes)
    wanted = np.asarray(fractions) * len(codes)
    parts = [each for each, fraction in enumerate(fractions) if fraction > 0]
    if len(sizes) < len(parts):
        raise ValueError(f"there are {len(sizes)} groups, too few to give each of {len(parts)} parts one of its own")
    order = _shuffled(len(sizes), seed)
    order = order[np.argsort(-sizes[order], kind="stable")]
    missing, part_of = wanted.copy(), np.empty(len(sizes), np.int64)
    empty = set(parts)
    for place, group in enumerate(order):
        left = len(order) - place
        # The last groups go to the parts that have none, whatever their size.
        open_parts = sorted(empty) if left <= len(empty) else parts
        best = max(open_parts, key=lambda each: missing[each])
        part_of[group] = best
        missing[best] -= sizes[group]
        empty.discard(best)
    return part_of[codes]


def _by_time(times: np.ndarray, fractions: Sequence[float]) -> np.ndarray:
    """The part of each row: cut where the fractions fall, then moved back to where the time changes."""
    if times.dtype.kind not in "iufMm":
        raise TypeError(f"time must be numbers or dates, not {times.dtype}")
    missing = np.flatnonzero(np.isnat(times) if times.dtype.kind in "Mm" else np.isnan(times))
    if missing.size:
        raise ValueError(f"time is missing in row {missing[0]} ({len(missing)} in all): drop or fill such rows")
    order = np.argsort(times, kind="stable")
    ordered = times[order]
    cuts = np.rint(np.cumsum(fractions)[:-1] * len(times)).astype(np.int64)
    part = np.zeros(len(times), np.int64)
    for cut in cuts:
        first = np.searchsorted(ordered, ordered[cut], side="left") if cut < len(ordered) else len(ordered)
        part[order[first:]] += 1
    return part


def _shuffled(rows: int, seed: int) -> np.ndarray:
    return permutation(rows, seed, 0).astype(np.int64)


def _rows(data: Any) -> int:
    rows = int(data) if isinstance(data, int | np.integer) else len(data)
    if rows < 1:
        raise ValueError(f"there is nothing to split: {rows} rows")
    return rows


def _column(data: Any, given: Any, name: str) -> Any:
    if given is not None:
        return given
    if isinstance(data, Dataset) and name in data:
        return data[name]
    raise ValueError(f"give the labels to split by, or a Dataset with a column {name!r}")


def _labels(given: Any, rows: int, name: str) -> np.ndarray:
    labels = np.asarray(given)
    if labels.shape != (rows,):
        raise ValueError(f"{name} needs one label a row, shape [{rows}], not {list(labels.shape)}")
    return labels


def _codes(labels: np.ndarray) -> np.ndarray:
    if labels.dtype.kind == "f" and np.isnan(labels).any():
        raise ValueError(f"the label in row {int(np.argmax(np.isnan(labels)))} is missing (NaN)")
    return np.unique(labels, return_inverse=True)[1].reshape(-1)


def _check_folds(folds: int, available: int, what: str) -> None:
    if folds < 2:
        raise ValueError(f"folds must be at least 2, not {folds}")
    if folds > available:
        raise ValueError(f"{folds} folds need at least {folds} {what}, there are {available}")
