"""How far a metric may be off: bootstrap resamples of any metric, all in one program."""

from __future__ import annotations

from functools import partial
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxdl.metrics.call import evaluate
from jaxdl.metrics.collection import Collection
from jaxdl.metrics.inputs import as_array, as_float, as_mask
from jaxdl.metrics.metric import inputs_of, statistic_of

Method = Literal["percentile", "basic", "normal"]

# Resamples that are computed at once: as many as keep this number of weights in memory.
_WEIGHTS = 1 << 22
# On a CPU as many as the cache holds: 256 resamples of 10,000 examples one by one cost a third of all at once.
_WEIGHTS_CPU = 1 << 14


class Interval(NamedTuple):
    """A confidence interval.

    Attributes:
        value: the metric on the data itself.
        low, high: the ends, float32 of the value's shape.
        undefined: the share of resamples whose value is undefined (such as an AUC without a positive), which are left
            out of the ends.
    """

    value: Any
    low: Any
    high: Any
    undefined: Any


def bootstrap(
    metric: Any,
    key: jax.Array,
    resamples: int = 1000,
    *,
    preds: Any = None,
    target: Any = None,
    weight: Any = None,
    mask: Any = None,
    **inputs: Any,
) -> Any:
    """The values of a metric on resamples of the examples: what `compute` gives, with a leading axis [resamples].

    Each resample draws as many examples as are present (weight above 0, not masked) with replacement, as weights: an
    example drawn k times has k times its weight. An example is one entry of the first axis. Everything is one compiled
    program. A curve's scores are sorted once for all resamples, since counts may as well be drawn in sorted order; so
    in a `Collection` the curves and the other metrics see different resamples of the same data.

    Args:
        metric: any metric, or a `Collection`.
        key: a jax.random key; the same key gives the same resamples.
        resamples: how many.
        preds, target, weight, mask, inputs: as in `update`.

    Source: Efron, "Bootstrap Methods: Another Look at the Jackknife", 1979.

    Raises:
        ValueError: resamples below 1, or no examples.
        TypeError: an input that the metric does not read, or one that it needs and that is not given.
    """
    if isinstance(resamples, bool) or not isinstance(resamples, int | np.integer) or resamples < 1:
        raise ValueError(f"bootstrap: resamples must be a positive integer; it is {resamples!r}")
    given = {"preds": preds, "target": target, **inputs}
    _check_inputs(metric, given)
    arrays = {
        name: jax.tree.map(
            lambda x, name=name: as_array(x, f"{metric.name}: {name}"), value, is_leaf=lambda x: isinstance(x, list)
        )
        for name, value in given.items()
        if value is not None
    }
    shape = jnp.shape(jax.tree.leaves(arrays)[0])
    if not shape or not shape[0]:
        raise ValueError(f"bootstrap: there are no examples to draw from in {next(iter(arrays))} of shape {shape}")
    weights = jnp.ones((), jnp.float32) if weight is None else as_float(weight, f"{metric.name}: weight")
    weights = jnp.broadcast_to(weights, shape[:1]) if weights.ndim == 0 else weights
    if mask is not None:
        shape = weights.shape if weights.ndim >= np.ndim(mask) else np.shape(mask)
        wide = jnp.broadcast_to(weights.reshape(weights.shape + (1,) * (len(shape) - weights.ndim)), shape)
        weights = jnp.where(as_mask(shape, mask, metric.name), wide, jnp.zeros_like(wide))
    return _resampled(metric, int(resamples), key, weights, arrays)


def confidence_interval(
    metric: Any,
    key: jax.Array,
    *,
    level: float = 0.95,
    resamples: int = 1000,
    method: Method = "percentile",
    preds: Any = None,
    target: Any = None,
    weight: Any = None,
    mask: Any = None,
    **inputs: Any,
) -> Any:
    """The metric on the data and the ends of its bootstrap confidence interval.

    Args:
        metric: any metric; of a `Collection`, or one whose value is a mapping, each entry gets its interval.
        key, resamples, preds, target, weight, mask, inputs: as in `bootstrap`.
        level: the share of resamples between the ends, between 0 and 1.
        method: "percentile": quantiles of the resampled values; "basic": those reflected at the value; "normal": the
            value plus and minus z standard deviations.

    Returns:
        An `Interval`, or {name: Interval}.

    Raises:
        ValueError: a level outside (0, 1), an unknown method, and what `bootstrap` raises.

    >>> import jax
    >>> import jax.numpy as jnp
    >>> from jaxdl.metrics import Accuracy, confidence_interval
    >>> right = jnp.arange(100) < 80
    >>> found = confidence_interval(Accuracy(), jax.random.key(0), preds=right, target=jnp.ones(100, bool))
    >>> bool(0.70 < found.low < found.value < found.high < 0.90)
    True
    """
    if not 0 < level < 1:
        raise ValueError(f"confidence_interval: level must lie between 0 and 1, such as 0.95; it is {level!r}")
    if method not in get_args(Method):
        raise ValueError(f"confidence_interval: method must be one of {', '.join(get_args(Method))}; it is {method!r}")
    _check_inputs(metric, {"preds": preds, "target": target, **inputs})
    given = {"preds": preds, "target": target, "weight": weight, "mask": mask, **inputs}
    found = _of(evaluate(metric, **given), bootstrap(metric, key, resamples, **given), level, method)
    # compiled programs return mappings in the order of the alphabet
    return {name: found[name] for name, _ in metric.metrics} if isinstance(metric, Collection) else found


def _check_inputs(metric: Any, given: dict[str, Any]) -> None:
    reads = inputs_of(metric)
    for key, value in given.items():
        if value is not None and key not in ("preds", "target", *reads):
            raise TypeError(f"{metric.name} does not read {key!r}; it reads {', '.join(reads)}, weight and mask")
    for key in reads:
        if given.get(key) is None and key != "target":
            raise TypeError(f"{metric.name} needs {key}=, which is not given")


def _of(value: Any, values: Any, level: float, method: Method) -> Any:
    if isinstance(value, dict):
        return {name: _of(value[name], values[name], level, method) for name in value}
    if hasattr(value, "_fields"):
        return jax.tree.map(lambda one, many: _interval(one, many, level, method), value, values)
    return _interval(value, values, level, method)


def _interval(value: jax.Array, values: jax.Array, level: float, method: Method) -> Interval:
    tail = (1 - level) / 2
    values = values.astype(jnp.float32)
    undefined = jnp.mean(jnp.isnan(values).astype(jnp.float32), axis=0)
    if method == "normal":
        spread = jax.scipy.special.ndtri(jnp.float32(1 - tail)) * jnp.nanstd(values, axis=0, ddof=1)
        return Interval(value, value - spread, value + spread, undefined)
    low, high = (jnp.nanquantile(values, jnp.float32(q), axis=0) for q in (tail, 1 - tail))
    if method == "basic":
        low, high = value + value - high, value + value - low
    return Interval(value, low, high, undefined)


@partial(jax.jit, static_argnums=(0, 1))
def _resampled(metric: Any, resamples: int, key: jax.Array, weights: jax.Array, inputs: dict[str, Any]) -> Any:
    if not isinstance(metric, Collection):
        return _values({"": metric}, resamples, key, weights, inputs)[""]
    return _values(dict(metric.metrics), resamples, key, weights, inputs)


def _values(metrics: dict[str, Any], resamples: int, key: jax.Array, weights: jax.Array, inputs: Any) -> Any:
    """The resampled values of metrics by name; those that share a statistic share its states."""
    statistics = tuple(dict.fromkeys(statistic_of(metric) for metric in metrics.values()))
    found: dict[str, Any] = {}
    for statistic in statistics:
        users = {name: metric for name, metric in metrics.items() if statistic_of(metric) == statistic}
        read = {"target": None} | {name: inputs[name] for name in inputs_of(statistic) if name in inputs}
        if hasattr(statistic, "sort"):
            state = statistic.update(statistic.init(), **read, weight=weights)
            ordered = statistic.sort(state)
            present = (ordered.positive + ordered.negative) > 0

            def of_counts(counts: jax.Array, users: Any = users, ordered: Any = ordered) -> Any:
                times = counts.astype(ordered.positive.dtype)
                new = ordered._replace(positive=ordered.positive * times, negative=ordered.negative * times)
                return {name: metric.of_sorted(new) for name, metric in users.items()}

            found |= _each(of_counts, resamples, key, present)
        else:

            def of_weights(counts: jax.Array, users: Any = users, statistic: Any = statistic, read: Any = read) -> Any:
                times = counts.astype(jnp.float32).reshape(counts.shape + (1,) * (weights.ndim - 1))
                state = statistic.update(
                    statistic.init(), **read, weight=weights * jnp.broadcast_to(times, weights.shape)
                )
                return {name: metric.compute(state) for name, metric in users.items()}

            present = jnp.any(weights.reshape(weights.shape[0], -1) != 0, axis=1)
            found |= _each(of_weights, resamples, key, present)
    return {name: found[name] for name in metrics}


def _each(value_of: Any, resamples: int, key: jax.Array, present: jax.Array) -> Any:
    """`value_of(counts)` of every resample; counts is int32 [examples], how often each was drawn."""
    examples = present.shape[0]
    total = jnp.sum(present, dtype=jnp.int32)
    places = jnp.nonzero(present, size=examples, fill_value=0)[0].astype(jnp.int32)
    live = (jnp.arange(examples, dtype=jnp.int32) < total).astype(jnp.int32)

    def one(key: jax.Array) -> Any:
        drawn = jax.random.randint(key, (examples,), 0, jnp.maximum(total, 1), jnp.int32)
        empty = jnp.zeros((examples,), jnp.int32)
        return value_of(empty.at[places[drawn]].add(live, mode="promise_in_bounds"))

    held = _WEIGHTS_CPU if jax.default_backend() == "cpu" else _WEIGHTS
    at_once = max(1, min(resamples, held // examples))
    return lax.map(one, jax.random.split(key, resamples), batch_size=at_once)
