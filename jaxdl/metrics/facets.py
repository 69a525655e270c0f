"""Columns of people's attributes as facet ids, on the host: values, thresholds and intervals."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np


class Facets(NamedTuple):
    """Facet ids and what they mean.

    Attributes:
        ids: int32 [n]; -1 where the value is missing (None, NaN), which the measures leave out and count.
        names: the meaning of each id.
    """

    ids: np.ndarray
    names: tuple[str, ...]


def facet_ids(
    values: Any,
    *,
    disadvantaged: Any = None,
    above: float | None = None,
    edges: Sequence[float] | None = None,
) -> Facets:
    """The facet of each example from a column of strings, numbers or booleans, as Clarify forms facets.

    - `disadvantaged`: the value, or values, of facet d: id 1; every other value is facet a: id 0.
    - `above`: facet d is what is greater than this number (Clarify's rule for a continuous facet with a threshold).
    - `edges`: intervals (-inf, e0], (e0, e1], ..., (e_last, inf), an id each.
    - none of them: an id for each distinct value, in sorted order; each is then measured against the rest.

    Raises:
        ValueError: a disadvantaged value that does not occur, fewer than two distinct values, more than one rule, edges
            that do not rise, or a threshold on values that are not numbers.

    >>> from jaxdl.metrics import facet_ids
    >>> facet_ids(["f", "m", "f"], disadvantaged="f")
    Facets(ids=array([1, 0, 1], dtype=int32), names=('m', 'f'))
    >>> facet_ids([25, 40, 70], edges=[30, 60]).names
    ('(-inf, 30]', '(30, 60]', '(60, inf)')
    """
    if sum(rule is not None for rule in (disadvantaged, above, edges)) > 1:
        raise ValueError("facet_ids: give one of disadvantaged=, above= and edges=")
    column = np.asarray(values)
    if column.ndim != 1:
        raise ValueError(f"facet_ids: values must have one axis; their shape is {column.shape}")
    if above is not None or edges is not None:
        return _of_numbers(column, [above] if edges is None else list(edges), name_above=edges is None)
    missing = np.array([value is None or value != value for value in column.tolist()], bool)
    present = [str(value) if column.dtype == object else value for value in column[~missing].tolist()]
    distinct = sorted(set(present))
    if disadvantaged is None:
        if len(distinct) < 2:
            raise ValueError(f"facet_ids: a facet needs two values to compare; there is {distinct or 'none'}")
        order = {value: place for place, value in enumerate(distinct)}
        return Facets(_fill(missing, [order[value] for value in present]), tuple(map(str, distinct)))
    chosen = list(disadvantaged) if isinstance(disadvantaged, list | tuple | set | frozenset) else [disadvantaged]
    chosen = [str(value) for value in chosen] if column.dtype == object else chosen
    for value in chosen:
        if value not in distinct:
            near = difflib.get_close_matches(str(value), list(map(str, distinct)), 1)
            hint = f"; did you mean {near[0]!r}?" if near else f"; there are {', '.join(map(repr, distinct[:10]))}"
            raise ValueError(f"facet_ids: no example has the value {value!r}{hint}")
    name, others = ", ".join(map(str, chosen)), [value for value in distinct if value not in chosen]
    if not others:
        raise ValueError(
            f"facet_ids: every example has a disadvantaged value ({name}); there is nothing to compare with"
        )
    rest = str(others[0]) if len(others) == 1 else f"not {name}"
    return Facets(_fill(missing, [int(value in chosen) for value in present]), (rest, name))


def _of_numbers(column: np.ndarray, edges: list[Any], *, name_above: bool) -> Facets:
    try:
        numbers = column.astype(np.float64)
        rising = np.asarray(edges, np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"facet_ids: a threshold needs numbers; the values are {column.dtype}") from error
    if not rising.size or not np.isfinite(rising).all() or (np.diff(rising) <= 0).any():
        raise ValueError(f"facet_ids: edges must be finite and rise; they are {edges}")
    ids = np.searchsorted(rising, numbers, side="left").astype(np.int32)  # (e0, e1]: a value at an edge is below it
    ids[np.isnan(numbers)] = -1
    if name_above:
        return Facets(ids, (f"at most {rising[0]:g}", f"above {rising[0]:g}"))
    marks = [f"{edge:g}" for edge in rising]
    names = [
        f"(-inf, {marks[0]}]",
        *(f"({a}, {b}]" for a, b in pairwise(marks)),
        f"({marks[-1]}, inf)",
    ]
    return Facets(ids, tuple(names))


def _fill(missing: np.ndarray, ids: list[int]) -> np.ndarray:
    filled = np.full(len(missing), -1, np.int32)
    filled[~missing] = ids
    return filled
