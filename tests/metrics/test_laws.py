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
from jaxdl.metrics.metric import statistic_of
from tests.metrics.rows import Row, rows

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


def kept(n: int) -> np.ndarray:
    return np.arange(n) % 2 == 1


def spoil(inputs: Inputs) -> Inputs:
    """What is absent must not matter, whatever stands there: NaN in all floats of the examples that are left out."""
    out = ~kept(count(inputs))

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
    keep, times = kept(n), weights(n)
    weight = times.astype(np.float32)
    compiled = partial(jax.jit, compiler_options=_QUICK)
    update = compiled(lambda state, given, options: m.update(state, **given, **options))
    merge = compiled(m.merge)
    empty = m.init()

    def of(given: Inputs, state: Any = None, **options: Any) -> Any:
        return update(empty if state is None else state, given, options)

    def split(given: Inputs) -> Any:
        return jax.tree.map(lambda x: x.reshape(PARTS, n // PARTS, *x.shape[1:]), given)

    # of unequal sizes: a mean of means would pass with equal ones
    i, j = n // 6, n // 2
    a, b, c = of(cut(inputs, slice(0, i))), of(cut(inputs, slice(i, j))), of(cut(inputs, slice(j, n)))
    whole = of(inputs)
    stacked = jax.tree.map(lambda *x: np.stack(x), a, b, c)
    twice = merge(stacked, stacked)
    equal = [of(cut(split(inputs), p)) for p in range(PARTS)]
    over = compiled(lambda state, given: jax.lax.scan(lambda s, x: (m.update(s, **x), None), state, given)[0])
    scanned = over(empty, split(inputs))
    mapped = compiled(jax.vmap(lambda s, x: m.update(s, **x)))(m.init((PARTS,)), split(inputs))
    half = np.where(keep, weight, 0).astype(np.float32)
    spoiled = spoil(inputs)
    found = {
        "merge commutes": (merge(a, b), merge(b, a)),
        "merge associates": (merge(merge(a, b), c), merge(a, merge(b, c))),
        "init is the left identity": (merge(empty, a), a),
        "init is the right identity": (merge(a, empty), a),
        "update twice is merge": (of(cut(inputs, slice(i, j)), a), merge(a, b)),
        "merge is one shot": (merge(merge(a, b), c), whole),
        "scan is one shot": (scanned, whole),
        "mask is slicing": (of(spoiled, mask=keep), of(cut(inputs, keep))),
        "weight 0 is slicing": (of(spoiled, weight=keep.astype(np.float32)), of(cut(inputs, keep))),
        "mask times weight": (of(spoiled, weight=weight, mask=keep), of(spoiled, weight=half)),
        "weight k is k times": (of(inputs, weight=weight), of(cut(inputs, np.repeat(np.arange(n), times)))),
        "weight 1 is no weight": (of(inputs, weight=np.ones(n, np.float32)), whole),
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


def measures(m: Any) -> dict[str, Any]:
    """What is read off a metric's state: its value, and what it says was left out."""
    return {"": m.compute} | ({" (invalid)": m.invalid} if hasattr(m, "invalid") else {})


def check(table: tuple[Row, ...]) -> None:
    """Raises AssertionError naming the law that a row breaks."""
    found = states(statistic_of(table[0].metric), table[0].inputs)
    laws = list(found)
    sides = [jax.tree.map(lambda *x: np.stack(x), *side) for side in zip(*found.values(), strict=True)]
    read = {row.label + what: measure for row in table for what, measure in measures(row.metric).items()}
    # one computation for all laws, which compiles one sort instead of forty
    compute = jax.jit(lambda held: {key: jax.vmap(f)(held) for key, f in read.items()}, compiler_options=_QUICK)
    lefts, rights = (jax.device_get(compute(side)) for side in sides)
    for row in table:
        assert set(row.skip) <= set(laws), f"{row.label}: skips unknown laws"
        for what in measures(row.metric):
            for place, law in enumerate(laws):
                if law in row.skip:
                    continue
                got, want = (
                    jax.tree.map(lambda x, place=place: x[place], side[row.label + what]) for side in (lefts, rights)
                )
                defined = any(np.isfinite(x).any() for x in jax.tree.leaves(want))
                assert defined, f"{row.label}, {law}: the example is undefined, which proves nothing"
                jax.tree.map(
                    partial(np.testing.assert_allclose, rtol=row.tolerance, atol=1e-7, err_msg=f"{row.label}: {law}"),
                    got,
                    want,
                )


ROWS = rows()


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


@pytest.mark.parametrize("table", [_param(table) for table in tables()])
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
def test_configuration_is_static_and_nothing_is_undefined(row: Row) -> None:
    metric = row.metric
    assert hash(metric) == hash(replace(metric)) and metric == replace(metric)
    assert hash(statistic_of(metric)) == hash(statistic_of(replace(metric)))
    assert metric.reduce in ("sum", "gather", "moments") and metric.name
    if metric.reduce == "sum":
        assert all(isinstance(x, sums.Sums) for x in jax.tree.leaves(metric.init(), is_leaf=_is_sums)), "no Sums"
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(metric.compute(metric.init()))]
    if np.isnan(row.empty):
        assert any(np.isnan(leaf).any() for leaf in leaves if leaf.dtype == np.float32)
    else:
        assert all((leaf == row.empty).all() for leaf in leaves)


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
        return jax.tree.map(lambda x: x.astype(jnp.float16), new) if weight is not None else new


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
