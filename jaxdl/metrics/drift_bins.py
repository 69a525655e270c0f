"""From columns to what drift is counted in, on the host: bin edges of numbers, ids of categories."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from jaxdl.metrics.inputs import as_texts

Kind = Literal["quantile", "uniform"]


class Categories(NamedTuple):
    """Category ids and what they mean.

    Attributes:
        ids: int32 [n]; len(names) where the value is not among the names, or missing.
        names: the categories in the order of their ids.
    """

    ids: np.ndarray
    names: tuple[str, ...]


def as_edges(edges: Any, name: str) -> tuple[float, ...]:
    """Bin edges as a tuple of rising finite float32 numbers."""
    given = np.asarray(edges, np.float64)
    rounded = given.astype(np.float32)
    if given.ndim != 1 or len(given) < 2 or not np.isfinite(rounded).all() or (np.diff(rounded) <= 0).any():
        raise ValueError(
            f"{name}: edges must be at least two finite numbers that rise, in float32, too; they are {edges!r}"
        )
    return tuple(float(edge) for edge in rounded)


def next_above(edges: np.ndarray) -> np.ndarray:
    """The next larger float32 that compiled programs tell from each edge: they take what is below 2^-126 for 0."""
    tiny = np.finfo(np.float32).tiny
    with np.errstate(over="ignore"):
        above = np.nextafter(edges, np.float32(np.inf))
    return np.where((above > 0) & (above < tiny), tiny, above)


def fit_edges(values: Any, bins: int = 10, kind: Kind = "quantile", *, weight: Any = None) -> tuple[float, ...]:
    """Bin edges for `DriftCounts` from a reference sample, values float [n]; NaN and infinities are left out.

    kind: "quantile" puts the same share of the reference into each bin; a value so frequent that several quantiles are
    equal to it (the zeros of a sparse column, a flag) gets a bin of its own. "uniform" cuts the range evenly. A
    constant column gives three bins: below it, itself, and above. `weight` [n] weighs the quantiles.

    Raises:
        ValueError: no finite value, or fewer than one bin.

    >>> from jaxdl.metrics import fit_edges
    >>> fit_edges([0, 1, 2, 3, 4], bins=2)
    (0.0, 2.0, 4.0)
    """
    if isinstance(bins, bool) or not isinstance(bins, int | np.integer) or bins < 1:
        raise ValueError(f"fit_edges: bins must be a number of at least 1; it is {bins!r}")
    if kind not in ("quantile", "uniform"):
        raise ValueError(f"fit_edges: kind must be 'quantile' or 'uniform'; it is {kind!r}")
    column = np.asarray(values, np.float64).reshape(-1)
    finite = np.isfinite(column.astype(np.float32))
    mass = np.ones(len(column)) if weight is None else np.asarray(weight, np.float64).reshape(-1)
    if mass.shape != column.shape:
        raise ValueError(f"fit_edges: weight has {len(mass)} numbers and values {len(column)}")
    finite &= mass > 0
    column, mass = column[finite], mass[finite]
    if not len(column):
        raise ValueError("fit_edges: there is no finite value to fit edges to")
    if kind == "uniform":
        edges = np.linspace(column.min(), column.max(), bins + 1)
    elif weight is None:
        edges = np.quantile(column, np.linspace(0, 1, bins + 1))
    else:
        order = np.argsort(column, kind="stable")
        reached = np.cumsum(mass[order])
        places = np.searchsorted(reached, np.linspace(0, 1, bins + 1) * reached[-1], side="left")
        edges = column[order][np.minimum(places, len(column) - 1)]
    distinct, times = np.unique(edges.astype(np.float32), return_counts=True)
    if len(distinct) == 1:
        (only,) = distinct.astype(np.float64)
        step, largest = max(abs(only), 1.0), float(np.finfo(np.float32).max)
        around = np.clip([only - step, only + step], -largest, largest).astype(np.float32)
        distinct = np.unique(np.concatenate([around, distinct, next_above(distinct)]))
    elif kind == "quantile":
        distinct = np.unique(np.concatenate([distinct, next_above(distinct[times > 1])]))
        distinct = distinct[np.isfinite(distinct)]
    return tuple(float(edge) for edge in distinct)


def category_ids(values: Any, names: Sequence[Any] | None = None) -> Categories:
    """Category ids of a column of strings (or any labels), for `DriftCounts(categories=len(names))`.

    `names` are the categories of the reference; without them they are taken from the values. A value that is not among
    them, or is None or NaN, becomes len(names), which is counted apart.

    >>> from jaxdl.metrics import category_ids
    >>> reference = category_ids(["red", "blue", "red"])
    >>> category_ids(["red", "green"], reference.names)
    Categories(ids=array([1, 2], dtype=int32), names=('blue', 'red'))
    """
    column = np.asarray(values, dtype=object).reshape(-1)
    missing = np.array([value is None or value != value for value in column], bool)
    texts = as_texts(column)
    known = sorted(set(texts[~missing])) if names is None else as_texts(np.array(list(names), object)).tolist()
    if len(set(known)) < len(known):
        raise ValueError(f"category_ids: two categories have one name: {known}")
    places = {name: i for i, name in enumerate(known)}
    ids = [len(known) if gone else places.get(text, len(known)) for text, gone in zip(texts, missing, strict=True)]
    return Categories(np.array(ids, np.int32), tuple(known))
