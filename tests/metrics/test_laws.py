"""Every metric through every law, many in one program, and planted errors that the laws must find."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdl import metrics
from jaxdl.metrics import sums
from jaxdl.metrics.metric import Derived, statistic_of
from tests.metrics.rows import Row, families, rows

PARTS = 3
_QUICK = {"xla_backend_optimization_level": "0"}
Inputs = Mapping[str, Any]


def count(inputs: Inputs) -> int:
    """How many examples the inputs hold."""
    return len(jax.tree.leaves(inputs)[0])


def cut(inputs: Inputs, index: Any) -> Inputs:
    return jax.tree.map(lambda x: x[index], inputs)


def weights(n: int) -> np.ndarray:
    """0 to 3, as many examples in all as there are: repeating by them needs no program for another size."""
    return np.random.default_rng(8).permutation(np.resize(np.array([0, 1, 1, 0, 3, 1], np.int32), n))


def spoil(inputs: Inputs, keep: np.ndarray) -> Inputs:
    """What is absent must not matter, whatever stands there: NaN in all floats of the examples that are left out."""
    out = ~keep

    def one(x: Any) -> Any:
        if not np.issubdtype(x.dtype, np.floating):
            return x
        x = np.array(x)
        x[out] = np.nan
        return x

    return {**inputs, "preds": jax.tree.map(one, inputs["preds"])}


def states(m: Any, inputs: Inputs) -> dict[str, tuple[Any, Any]]:
    """Law -> (the state that a statistic reaches, the one that it must equal in every value).

    A few small programs, each used for many laws, compile in a third of the time of one that holds them all.
    """
    n = count(inputs)
    keep, odd, times = np.arange(n) % PARTS == 1, np.arange(n) % 2 == 1, weights(n)
    weight, everyone = times.astype(np.float32), np.ones(n, np.bool_)
    compiled = partial(jax.jit, compiler_options=_QUICK)
    update = compiled(lambda state, given, options: m.update(state, **given, **options))
    merge = compiled(m.merge)
    empty = m.init()

    def of(given: Inputs, state: Any = None, **options: Any) -> Any:
        return update(empty if state is None else state, given, options)

    def weighted(by: np.ndarray, given: Inputs = inputs, state: Any = None, mask: np.ndarray = everyone) -> Any:
        return of(given, state, weight=by.astype(np.float32), mask=mask)

    def among(start: int, end: int, state: Any = None) -> Any:
        return weighted((np.arange(n) >= start) & (np.arange(n) < end), state=state)

    # Batches of unequal sizes, since a mean of means would pass with equal ones; cut by weights, which compiles one
    # size instead of three. That a weight of 0 is a cut is a law of its own.
    i, j = n // 6, n // 2
    a, b, c = among(0, i), among(i, j), among(j, n)
    whole = of(inputs)
    stacked = jax.tree.map(lambda *x: np.stack(x), a, b, c)
    twice = merge(stacked, stacked)
    split = jax.tree.map(lambda x: x.reshape(PARTS, n // PARTS, *x.shape[1:]), inputs)
    equal = [of(cut(split, p)) for p in range(PARTS)]
    over = compiled(lambda state, given: jax.lax.scan(lambda s, x: (m.update(s, **x), None), state, given)[0])
    mapped = compiled(jax.vmap(lambda s, x: m.update(s, **x)))(m.init((PARTS,)), split)
    spoiled, sliced, others = spoil(inputs, keep), of(cut(inputs, keep)), spoil(inputs, odd)
    found = {
        "merge commutes": (merge(a, b), merge(b, a)),
        "merge associates": (merge(merge(a, b), c), merge(a, merge(b, c))),
        "init is the left identity": (merge(empty, a), a),
        "init is the right identity": (merge(a, empty), a),
        "update twice is merge": (among(i, j, a), merge(a, b)),
        "merge is one shot": (merge(merge(a, b), c), whole),
        "scan is one shot": (over(empty, split), whole),
        "mask is slicing": (of(spoiled, mask=keep), sliced),
        "weight 0 is slicing": (weighted(keep, spoiled), sliced),
        "mask times weight": (weighted(weight, others, mask=odd), weighted(np.where(odd, weight, 0), others)),
        "weight k is k times": (weighted(weight), of(cut(inputs, np.repeat(np.arange(n), times)))),
        "weight 1 is no weight": (weighted(np.ones(n)), whole),
        "order does not matter": (of(cut(inputs, slice(None, None, -1))), whole),
    }
    for p, (state, one) in enumerate(zip((a, b, c), equal, strict=True)):
        found[f"vmap is a loop: {p}"] = (jax.tree.map(lambda x, p=p: x[p], mapped), one)
        found[f"merge of stacked states is a loop: {p}"] = (
            jax.tree.map(lambda x, p=p: x[p], twice),
            merge(state, state),
        )
    for law, sides in found.items():
        for side in sides:
            types = [(x.dtype, x.shape) for x in jax.tree.leaves(side)]
            assert types == [(x.dtype, x.shape) for x in jax.tree.leaves(m.init())], f"{law}: state dtypes change"
    return found


def check(table: tuple[Row, ...]) -> None:
    """Raises AssertionError naming the law that a row breaks, or what is not NaN in an empty state."""
    statistic = statistic_of(table[0].metric)
    found = states(statistic, table[0].inputs)
    laws = list(found)
    found["empty"] = (statistic.init(), statistic.init())
    sides = [jax.tree.map(lambda *x: np.stack(x), *side) for side in zip(*found.values(), strict=True)]
    read = {row.label: row.metric.compute for row in table}
    told = {what: getattr(statistic, what) for what in ("invalid", "overflowed") if hasattr(statistic, what)}
    # one computation for all laws, which compiles one sort instead of forty
    compute = jax.jit(
        lambda held: {key: jax.vmap(f)(held) for key, f in {**read, **told}.items()}, compiler_options=_QUICK
    )
    lefts, rights = (jax.device_get(compute(side)) for side in sides)
    for row in table:
        assert set(row.skip) <= set(laws), f"{row.label}: skips unknown laws"
        for what in (row.label, *told):
            for place, law in enumerate(laws):
                if law in row.skip:
                    continue
                got, want = (jax.tree.map(lambda x, place=place: x[place], side[what]) for side in (lefts, rights))
                defined = any(np.isfinite(x).any() for x in jax.tree.leaves(want))
                assert defined, f"{row.label}, {law}: the example is undefined, which proves nothing"
                close = partial(np.testing.assert_allclose, rtol=row.tolerance, atol=1e-7)
                jax.tree.map(partial(close, err_msg=f"{row.label}: {law}, {what}"), got, want)
        assert all(not lefts[what][-1].any() for what in told), f"{row.label}: an empty state left something out"
        empty = [leaf[-1] for leaf in jax.tree.leaves(lefts[row.label])]
        if np.isnan(row.empty):
            assert any(np.isnan(leaf).any() for leaf in empty if leaf.dtype == np.float32), f"{row.label}: no NaN"
        else:
            assert all((leaf == row.empty).all() for leaf in empty), f"{row.label}: an empty state is {empty}"


ROWS = rows()
SMALL = {
    next(row.label for row in family if row.smoke) for family in families().values() if any(r.smoke for r in family)
}


def tables() -> list[tuple[Row, ...]]:
    """Rows of one statistic and one data set together."""
    found: dict[Any, list[Row]] = {}
    for row in ROWS:
        found.setdefault((id(row.inputs), statistic_of(row.metric)), []).append(row)
    return [tuple(table) for table in found.values()]


def _param(table: tuple[Row, ...]) -> Any:
    marks = pytest.mark.smoke if any(row.smoke for row in table) else ()
    more = f" and {len(table) - 1} more" if len(table) > 1 else ""
    return pytest.param(table, id=table[0].label + more, marks=marks)


@pytest.mark.parametrize("table", [_param(table) for table in tables()])
def test_laws(table: tuple[Row, ...]) -> None:
    check(table)


def _one_of_a_family(table: tuple[Row, ...]) -> Any:
    marks = () if any(row.label in SMALL for row in table) else pytest.mark.slow
    return pytest.param(table, id=_param(table).id, marks=marks)


@pytest.mark.parametrize("table", [_one_of_a_family(table) for table in tables()])
def test_eager_equals_jit(table: tuple[Row, ...]) -> None:
    first = table[0]
    statistic = statistic_of(first.metric)
    arguments = {**first.inputs, "weight": weights(count(first.inputs))}
    state = statistic.update(statistic.init(), **arguments)

    def compiled(given: Inputs) -> Any:
        inside = statistic.update(statistic.init(), **given)
        return inside, {row.label: row.metric.compute(inside) for row in table}

    inside, values = jax.jit(compiled, compiler_options=_QUICK)(arguments)
    assert (
        jax.tree.map(jnp.shape, state) == jax.tree.map(jnp.shape, statistic.init()) == jax.tree.map(jnp.shape, inside)
    )
    for row in table:
        value = row.metric.compute(state)
        assert all(leaf.dtype in (jnp.float32, jnp.int32, jnp.bool_) for leaf in jax.tree.leaves(value)), row.label
        jax.tree.map(
            partial(np.testing.assert_allclose, rtol=max(row.tolerance, 2e-6), atol=1e-6, err_msg=row.label),
            value,
            values[row.label],
        )


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.label)
def test_configuration_is_static(row: Row) -> None:
    metric = row.metric
    assert hash(metric) == hash(replace(metric)) and metric == replace(metric)
    assert hash(statistic_of(metric)) == hash(statistic_of(replace(metric)))
    assert metric.reduce in ("sum", "gather", "moments") and metric.name
    if metric.reduce == "sum":
        assert all(isinstance(x, sums.Sums) for x in jax.tree.leaves(metric.init(), is_leaf=_is_sums)), "no Sums"
    if isinstance(metric, Derived):
        told = metric.invalid(metric.init()), metric.overflowed(metric.init())
        assert told == (0, False) and [x.shape for x in told] == [(), ()]


def _is_sums(x: Any) -> bool:
    return isinstance(x, sums.Sums)


class Plain(metrics.Mean):
    """Counts the batches' means, not the examples."""

    def update(self, state: Any, *, preds: Any, target: Any = None, weight: Any = None, mask: Any = None) -> Any:
        one = metrics.Mean.update(self, self.init(), preds=preds, weight=weight, mask=mask)
        return sums.add(state, sums.Sums(jnp.stack([self.compute(one), jnp.float32(1)]), jnp.zeros(2, jnp.float32)))


class Maskless(metrics.Mean):
    """Forgets the mask."""

    def update(self, state: Any, *, preds: Any, target: Any = None, weight: Any = None, mask: Any = None) -> Any:
        return metrics.Mean.update(self, state, preds=preds, target=target, weight=weight)


class Multiplied(metrics.Mean):
    """Multiplies by the weight where it should choose: NaN times 0 stays NaN."""

    def update(self, state: Any, *, preds: Any, target: Any = None, weight: Any = None, mask: Any = None) -> Any:
        factor = jnp.ones(len(preds), jnp.float32) if weight is None else jnp.asarray(weight, jnp.float32)
        factor = factor if mask is None else factor * mask.astype(jnp.float32)
        values = jnp.mean(jnp.abs(preds), axis=1) * factor
        return sums.add(state, sums.total(jnp.stack([values, factor])))


class Lopsided(metrics.Mean):
    """Merges by keeping the first state twice."""

    def merge(self, a: Any, b: Any) -> Any:
        return sums.add(a, a)


class Widening(metrics.Accuracy):
    """Takes the state's dtype from the input."""

    def update(self, state: Any, *, preds: Any, target: Any, weight: Any = None, mask: Any = None) -> Any:
        new = metrics.Accuracy.update(self, state, preds=preds, target=target, weight=weight, mask=mask)
        return jax.tree.map(lambda x: x.astype(jnp.float16), new) if weight is None and mask is not None else new


def _like(label: str, metric: Any) -> Row:
    return replace(next(row for row in ROWS if row.label == label), metric=metric)


@pytest.mark.parametrize(
    ("planted", "law"),
    [
        (_like("mean", Plain()), "update twice is merge|merge is one shot"),
        (_like("mean", Maskless()), "mask is slicing"),
        (_like("mean", Multiplied()), "is slicing"),
        (_like("mean", Lopsided()), "merge commutes"),
        (_like("accuracy", Widening()), "dtypes change"),
    ],
    ids=lambda value: type(value.metric).__name__ if isinstance(value, Row) else "",
)
def test_the_laws_find_planted_errors(planted: Row, law: str) -> None:
    with pytest.raises(AssertionError, match=law):
        check((planted,))
