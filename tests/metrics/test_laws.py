"""Every metric through every law, compiled together, and planted errors that the laws must find."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdl import metrics
from jaxdl.metrics import sums

N, PARTS = 60, 3
_QUICK = {"xla_backend_optimization_level": "0"}


@dataclass(frozen=True)
class Case:
    """A metric and the data that it is tried on: preds and target of N examples."""

    label: str
    metric: Any
    preds: np.ndarray
    target: np.ndarray


def cases() -> list[Case]:
    draw = np.random.default_rng(7)
    ids = draw.integers(0, 4, N).astype(np.int32)
    scores = draw.normal(size=(N, 4)).round(1).astype(np.float32)  # rounded: with ties
    binary = draw.integers(0, 2, N).astype(np.int32)
    numbers = draw.normal(size=(N, 2)).astype(np.float32)
    noisy = (numbers + draw.normal(size=(N, 2))).astype(np.float32)
    return [
        Case("accuracy", metrics.Accuracy(), scores, ids),
        Case("accuracy of ids", metrics.Accuracy(), np.roll(ids, 7), np.where(ids == 3, -1, ids).astype(np.int32)),
        Case("top-2 accuracy", metrics.Accuracy(top_k=2), scores, ids),
        Case("confusion of scores", metrics.ConfusionMatrix(4), scores, ids),
        Case("confusion of ids", metrics.ConfusionMatrix(3), np.roll(ids, 5), ids),
        Case("confusion by true", metrics.ConfusionMatrix(4, normalize="true"), scores, ids),
        Case("confusion by predicted", metrics.ConfusionMatrix(4, normalize="predicted"), scores, ids),
        Case("confusion by all", metrics.ConfusionMatrix(4, normalize="all"), scores, ids),
        Case("mean", metrics.Mean(), noisy, noisy),
        Case("mse", metrics.MeanSquaredError(), noisy, numbers),
        Case("rmse", metrics.RootMeanSquaredError(), noisy, numbers),
        Case("mae", metrics.MeanAbsoluteError(), noisy, numbers),
        Case("auc", metrics.ROCAUC(capacity=4 * N), scores[:, 0], binary),
        Case("auc of two logits", metrics.ROCAUC(capacity=4 * N), scores[:, :2], binary),
    ]


def weights() -> np.ndarray:
    return np.random.default_rng(8).integers(0, 4, N).astype(np.int32)


def evaluate(m: Any, preds: jax.Array, target: jax.Array) -> dict[str, tuple[Any, Any]]:
    """Law -> (what the metric gives, what it must equal); traceable, with N examples."""
    times = weights()
    kept = np.arange(N) % 3 != 1
    # what is absent must not matter, whatever stands there
    spoiled = preds
    if jnp.issubdtype(preds.dtype, jnp.floating):
        bad = jnp.asarray(~kept).reshape((N,) + (1,) * (preds.ndim - 1))
        spoiled = jnp.where(jnp.broadcast_to(bad, preds.shape), jnp.full_like(preds, jnp.nan), preds)
    weight = jnp.asarray(times, jnp.float32)

    def of(p: Any, t: Any, state: Any = None, **options: Any) -> Any:
        return m.update(m.init() if state is None else state, preds=p, target=t, **options)

    def split(x: Any) -> Any:
        return x.reshape(PARTS, N // PARTS, *x.shape[1:])

    # of unequal sizes: a mean of means would pass with equal ones
    a, b, c = (of(preds[i:j], target[i:j]) for i, j in ((0, 10), (10, 30), (30, N)))
    whole = of(preds, target)
    chained = of(preds[10:30], target[10:30], state=a)
    equal = [of(p, t) for p, t in zip(split(preds), split(target), strict=True)]
    scanned, _ = jax.lax.scan(lambda s, x: (of(*x, state=s), None), m.init(), (split(preds), split(target)))
    mapped = jax.vmap(lambda s, p, t: of(p, t, state=s))(m.init((PARTS,)), split(preds), split(target))
    stacked = jax.tree.map(lambda *x: jnp.stack(x), a, b, c)
    twice = m.merge(stacked, stacked)
    repeated = np.repeat(np.arange(N), times)
    half = jnp.where(jnp.asarray(kept), weight, jnp.zeros_like(weight))
    states = {
        "merge commutes": (m.merge(a, b), m.merge(b, a)),
        "merge associates": (m.merge(m.merge(a, b), c), m.merge(a, m.merge(b, c))),
        "init is the left identity": (m.merge(m.init(), a), a),
        "init is the right identity": (m.merge(a, m.init()), a),
        "update twice is merge": (chained, m.merge(a, b)),
        "merge is one shot": (m.merge(m.merge(a, b), c), whole),
        "scan is one shot": (scanned, whole),
        "mask is slicing": (of(spoiled, target, mask=jnp.asarray(kept)), of(preds[kept], target[kept])),
        "weight 0 is slicing": (
            of(spoiled, target, weight=jnp.asarray(kept, jnp.float32)),
            of(preds[kept], target[kept]),
        ),
        "mask times weight": (
            of(spoiled, target, weight=weight, mask=jnp.asarray(kept)),
            of(spoiled, target, weight=half),
        ),
        "weight k is k times": (of(preds, target, weight=weight), of(preds[repeated], target[repeated])),
        "weight 1 is no weight": (of(preds, target, weight=jnp.ones(N, jnp.float32)), whole),
        "order does not matter": (of(preds[::-1], target[::-1]), whole),
    }
    for i, (state, one) in enumerate(zip((a, b, c), equal, strict=True)):
        states[f"vmap is a loop: {i}"] = (jax.tree.map(lambda x, i=i: x[i], mapped), one)
        states[f"merge of stacked states is a loop: {i}"] = (
            jax.tree.map(lambda x, i=i: x[i], twice),
            m.merge(state, state),
        )
    for law, (left, right) in states.items():
        for side in (left, right):
            types = [(x.dtype, x.shape) for x in jax.tree.leaves(side)]
            assert types == [(x.dtype, x.shape) for x in jax.tree.leaves(m.init())], f"{law}: state dtypes change"
    # one computation for all of them, which compiles one sort instead of forty
    lefts, rights = (jax.tree.map(lambda *x: jnp.stack(x), *side) for side in zip(*states.values(), strict=True))
    measures = {"": m.compute} | ({" (invalid)": m.invalid} if hasattr(m, "invalid") else {})
    pairs = {}
    for name, measure in measures.items():
        got, want = jax.vmap(measure)(lefts), measure(rights)
        pairs |= {law + name: (got[i], want[i]) for i, law in enumerate(states)}
    return pairs


def check(case: Case) -> None:
    """Raises AssertionError naming the law that `case` breaks."""
    # as arguments: XLA would spend its time folding constants
    pairs = jax.jit(partial(evaluate, case.metric), compiler_options=_QUICK)(case.preds, case.target)
    for law, (got, want) in pairs.items():
        assert np.isfinite(np.asarray(want)).any(), f"{law}: the example is undefined, which proves nothing"
        np.testing.assert_allclose(got, want, rtol=2e-6, atol=1e-7, err_msg=f"{case.label}: {law}")


CASES = cases()


# these differ from another case in one line, which test_values compares
_SLOW = ("confusion by predicted", "confusion by all", "auc of two logits")
_EAGER = ("accuracy", "top-2 accuracy", "confusion of ids", "confusion by true", "mean", "rmse", "mae", "auc")
_SMOKE = ("accuracy", "confusion of ids", "mean", "auc")


def _marks(label: str) -> Any:
    return pytest.mark.smoke if label in _SMOKE else pytest.mark.slow if label in _SLOW else ()


_MARKED = [pytest.param(c, id=c.label, marks=_marks(c.label)) for c in CASES]


@pytest.mark.parametrize("case", _MARKED)
def test_laws(case: Case) -> None:
    check(case)


@pytest.mark.parametrize("case", [c for c in CASES if c.label in _EAGER], ids=lambda case: case.label)
def test_eager_equals_jit_and_scan_carries(case: Case) -> None:
    metric, arguments = case.metric, {"preds": case.preds, "target": case.target, "weight": weights()}
    state = metric.update(metric.init(), **arguments)
    compiled = jax.jit(lambda given: metric.update(metric.init(), **given))(arguments)
    assert jax.tree.map(jnp.shape, state) == jax.tree.map(jnp.shape, metric.init())
    for eager, jitted in zip(jax.tree.leaves(state), jax.tree.leaves(compiled), strict=True):
        np.testing.assert_allclose(eager, jitted, rtol=2e-6, atol=1e-6)
    np.testing.assert_allclose(metric.compute(state), jax.jit(metric.compute)(state), rtol=2e-6)
    assert metric.compute(state).dtype == jnp.float32


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.label)
def test_configuration_is_static_and_nothing_is_nan(case: Case) -> None:
    assert hash(case.metric) == hash(replace(case.metric)) and case.metric == replace(case.metric)
    assert case.metric.reduce in ("sum", "gather", "moments") and case.metric.name
    assert np.isnan(np.asarray(case.metric.compute(case.metric.init()))).any() or case.label.startswith("confusion of")


class Plain(metrics.Mean):
    """Counts the batches' means, not the examples."""

    def update(self, state: Any, *, preds: Any, target: Any = None, weight: Any = None, mask: Any = None) -> Any:
        one = metrics.Mean.update(self, self.init(), preds=preds, weight=weight, mask=mask)
        return sums.add(state, sums.Sums(jnp.stack([self.compute(one), jnp.float32(1)]), jnp.zeros(2, jnp.float32)))


class Maskless(metrics.MeanSquaredError):
    """Forgets the mask."""

    def update(self, state: Any, *, preds: Any, target: Any, weight: Any = None, mask: Any = None) -> Any:
        return metrics.MeanSquaredError.update(self, state, preds=preds, target=target, weight=weight)


class Multiplied(metrics.MeanAbsoluteError):
    """Multiplies by the weight where it should choose: NaN times 0 stays NaN."""

    def update(self, state: Any, *, preds: Any, target: Any, weight: Any = None, mask: Any = None) -> Any:
        factor = jnp.ones(len(preds), jnp.float32) if weight is None else jnp.asarray(weight, jnp.float32)
        factor = factor if mask is None else factor * mask.astype(jnp.float32)
        values = jnp.mean(jnp.abs(preds - target), axis=1) * factor
        return sums.add(state, sums.total(jnp.stack([values, factor])))


class Lopsided(metrics.MeanSquaredError):
    """Merges by keeping the first state twice."""

    def merge(self, a: Any, b: Any) -> Any:
        return sums.add(a, a)


class Widening(metrics.Accuracy):
    """Takes the state's dtype from the input."""

    def update(self, state: Any, *, preds: Any, target: Any, weight: Any = None, mask: Any = None) -> Any:
        new = metrics.Accuracy.update(self, state, preds=preds, target=target, weight=weight, mask=mask)
        return jax.tree.map(lambda x: x.astype(jnp.float16), new) if weight is not None else new


_NUMBERS = CASES[9]


@pytest.mark.parametrize(
    ("planted", "law"),
    [
        (replace(_NUMBERS, metric=Plain()), "update twice is merge|merge is one shot"),
        (replace(_NUMBERS, metric=Maskless()), "mask is slicing"),
        (replace(_NUMBERS, metric=Multiplied()), "mask is slicing"),
        (replace(_NUMBERS, metric=Lopsided()), "identity"),
        (replace(CASES[0], metric=Widening()), "dtypes change"),
    ],
    ids=lambda value: type(value.metric).__name__ if isinstance(value, Case) else "",
)
def test_the_laws_find_planted_errors(planted: Case, law: str) -> None:
    with pytest.raises(AssertionError, match=law):
        check(planted)
