"""Means, variances and covariances that merge: what R2, correlations and standard deviations are computed from.

A sum of squares minus the square of a sum loses all digits where the mean is large beside the deviation. Here every
batch is centred on its own mean before it is squared, and batches are joined by the formula of Chan, Golub and LeVeque
(1983); means and centred products are two-float sums, so 1e7 examples with mean 1e4 and deviation 1 agree with float64.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxdl.metrics import sums
from jaxdl.metrics.inputs import as_float, as_weight, same_shape
from jaxdl.metrics.lanes import add_up, plain
from jaxdl.metrics.metric import Reduce

_ROW = 500
# Fewer examples than this are all looked at for a rough mean, of others a sample: a gather of 2000 numbers, where a
# quarter of all in rows took a fifth of the time of R2.
_FEW, _SAMPLE = 8000, 1024

Of = Literal["values", "errors", "squared_errors", "pairs"]


class _Kind(NamedTuple):
    """What is kept of preds and target.

    Attributes:
        variables: the arrays -> the variables whose means are kept.
        pairs: pairs of them whose centred products are kept.
        squared: the arrays -> the variables whose squares are added as they are; these sums follow the products.
    """

    variables: Callable[..., tuple[jax.Array, ...]]
    pairs: tuple[tuple[int, int], ...]
    squared: Callable[..., tuple[jax.Array, ...]] = lambda *arrays: ()

    @property
    def counts(self) -> tuple[int, int]:
        """How many means there are, and how many sums of products and of squares."""
        means = 1 + max(max(pair) for pair in self.pairs)
        return means, len(self.pairs) + len(self.squared(0, 0))


_KINDS: dict[str, _Kind] = {
    "values": _Kind(lambda preds: (preds,), ((0, 0),)),
    "errors": _Kind(lambda preds, target: (target, preds - target), ((0, 0), (1, 1))),
    "squared_errors": _Kind(lambda preds, target: (target,), ((0, 0),), lambda preds, target: (preds - target,)),
    "pairs": _Kind(lambda preds, target: (preds, target), ((0, 0), (1, 1), (0, 1))),
}


class MomentState(NamedTuple):
    """Centred moments of several variables.

    Attributes:
        weight: Sums [..., outputs], the total weight.
        mean: Sums [..., variables, outputs].
        product: Sums [..., products, outputs], sum of weight * (x - mean x) * (y - mean y); with "squared_errors" then
            the sum of weight * error^2.
    """

    weight: sums.Sums
    mean: sums.Sums
    product: sums.Sums


@dataclass(frozen=True)
class Moments:
    """Weight, means and centred products: the statistic of R2, variances and correlations.

    of: "values" (of preds: mean, variance), "squared_errors" (of target, and the sum of (preds - target)^2: R2),
    "errors" (of target, and of preds - target: explained variance) or "pairs" (of preds and target, with their
    covariance: correlations). outputs: None, and every number of [...] is an example of one and the same variable; or
    k, and the last axis of [..., k] holds k variables, each with its own moments. Squares must fit in float32:
    deviations from 1e-18 to 1e18, and weights above 1e-30. A NaN or an infinity makes its output NaN.

    A squared error has nothing to cancel, so it needs neither a mean nor a centre: three sums in the place of four,
    and three quarters of the time.
    """

    of: Of = "errors"
    outputs: int | None = None
    name: str = field(default="moments", compare=False)
    reduce: ClassVar[Reduce] = "moments"

    def __post_init__(self) -> None:
        if self.of not in _KINDS:
            raise ValueError(f"{self.name}: of must be one of {', '.join(map(repr, _KINDS))}; it is {self.of!r}")
        check_outputs(self.outputs, self.name)

    @property
    def inputs(self) -> tuple[str, ...]:
        """What `update` reads."""
        return ("preds",) if self.of == "values" else ("preds", "target")

    def init(self, batch_shape: tuple[int, ...] = ()) -> MomentState:
        """The empty state."""
        means, products = _KINDS[self.of].counts
        outputs = self.outputs or 1
        return MomentState(
            weight=sums.zeros((*batch_shape, outputs)),
            mean=sums.zeros((*batch_shape, means, outputs)),
            product=sums.zeros((*batch_shape, products, outputs)),
        )

    def update(
        self, state: MomentState, *, preds: Any, target: Any = None, weight: Any = None, mask: Any = None
    ) -> MomentState:
        """Adds numbers [...], or [..., outputs]; `weight` and `mask` broadcast from the left over their shape."""
        values = as_float(preds, f"{self.name}: preds")
        given = [values]
        if self.of != "values":
            given.append(as_float(target, f"{self.name}: target"))
            same_shape(values, given[1], self.name)
        outputs = check_last_axis(values.shape, self.outputs, self.name)
        weights = as_weight(values.shape, weight, mask, self.name)
        flat = [array.reshape(-1) for array in given]
        new = _moments(self.of, flat, None if weights is None else weights.reshape(-1), outputs)
        return self.merge(state, new)

    def merge(self, a: MomentState, b: MomentState) -> MomentState:
        """Both in one, by the formula of Chan, Golub and LeVeque."""
        left, right = sums.value(a.weight), sums.value(b.weight)
        both = left + right
        share = jnp.where(both == 0, jnp.zeros_like(both), right / jnp.where(both == 0, jnp.ones_like(both), both))
        delta = sums.value(sums.add(b.mean, _negative(a.mean)))
        share = share[..., None, :]
        mean = sums.add(a.mean, plain(delta * share))
        pairs = _KINDS[self.of].pairs
        first, second = (jnp.asarray(index) for index in zip(*pairs, strict=True))
        cross = jnp.take(delta, first, axis=-2) * jnp.take(delta, second, axis=-2) * (left[..., None, :] * share)
        plainly = a.product.hi[..., len(pairs) :, :]  # squares that were not centred only add
        cross = jnp.concatenate([cross, jnp.zeros_like(plainly)], axis=-2)
        product = sums.add(sums.add(a.product, b.product), plain(cross))

        def chosen(joined: jax.Array, x: jax.Array, y: jax.Array) -> jax.Array:
            # an empty side leaves the other as it is, with all its digits
            return jnp.where(right[..., None, :] == 0, x, jnp.where(left[..., None, :] == 0, y, joined))

        return MomentState(
            weight=sums.add(a.weight, b.weight),
            mean=jax.tree.map(chosen, mean, a.mean, b.mean),
            product=jax.tree.map(chosen, product, a.product, b.product),
        )


def _moments(of: str, arrays: Sequence[jax.Array], weight: jax.Array | None, outputs: int) -> MomentState:
    """The moments of one batch of flat arrays [examples * outputs]: rough means, then what is centred on them."""
    kind = _KINDS[of]
    unit: Any = np.float32(1)
    if weight is not None:
        weight, unit = _near_one(weight)
    given = list(arrays) if weight is None else [*arrays, weight]
    used = len(arrays)
    values = kind.variables(*arrays)
    mean, scale = _rough_means(arrays, weight, outputs, of)
    # Any number near the mean will do; where the first example is one, it is taken: the deviations of a constant are 0
    start = jnp.stack([_first(value, weight, outputs) for value in values])
    pivot = jnp.where(jnp.abs(start - mean) <= np.float32(1e-6) * scale, start, mean)

    def terms(*chunk: jax.Array) -> list[jax.Array]:
        repeats = chunk[0].shape[0] // outputs
        centred = [value - jnp.tile(pivot[i], repeats) for i, value in enumerate(kind.variables(*chunk[:used]))]
        squared = list(kind.squared(*chunk[:used]))
        if weight is None:
            return [*centred, *(centred[i] * centred[j] for i, j in kind.pairs), *(x * x for x in squared)]
        weights = chunk[-1]
        centred, squared = (
            [jnp.where(weights == 0, jnp.zeros_like(value), value) for value in some] for some in (centred, squared)
        )
        heavy = [weights * value for value in centred]
        products = [heavy[i] * centred[j] for i, j in kind.pairs]
        return [*heavy, *products, *(weights * x * x for x in squared), weights]

    found = add_up(terms, given, outputs)
    means_of, products_of = kind.counts
    last = means_of + products_of
    if weight is None:
        count_of = np.float64(arrays[0].shape[0] // outputs)
        high = np.float32(count_of)
        total = sums.Sums(jnp.full((outputs,), high), jnp.full((outputs,), np.float32(count_of - np.float64(high))))
    else:
        total = sums.Sums(found.hi[last], found.lo[last])
    rest = sums.value(sums.Sums(found.hi[:means_of], found.lo[:means_of]))
    inverse = _inverse(sums.value(total))[None]
    means = rest * inverse
    small = [-rest[i] * rest[j] for i, j in kind.pairs]
    small += [jnp.zeros((outputs,), jnp.float32)] * (products_of - len(small))
    products = sums.add(sums.Sums(found.hi[means_of:last], found.lo[means_of:last]), plain(jnp.stack(small) * inverse))
    total, products = (sums.Sums(x.hi * unit, x.lo * unit) for x in (total, products))
    return MomentState(total, sums.add(plain(pivot), plain(means)), products)


def _near_one(weight: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Weights divided by a power of two near the largest, and that power: products of tiny ones would lose digits."""
    largest = jnp.max(jnp.where(jnp.isfinite(weight), jnp.abs(weight), jnp.zeros_like(weight)), initial=0.0)
    exponent = jnp.clip(jnp.frexp(largest)[1], -100, 100)
    return weight * jnp.ldexp(jnp.float32(1), -exponent), jnp.ldexp(jnp.float32(1), exponent)


def _inverse(size: jax.Array) -> jax.Array:
    """1 / size; 0 where nothing was counted."""
    empty = size == 0
    return jnp.where(empty, jnp.zeros_like(size), np.float32(1) / jnp.where(empty, jnp.ones_like(size), size))


def _first(values: jax.Array, weights: jax.Array | None, outputs: int) -> jax.Array:
    """The first example [outputs], of those with the largest weight; 0 where none has a weight.

    One that outweighs all others is the mean: deviations from it are exact, however small theirs are beside it.
    """
    rows = values.reshape(-1, outputs)
    if rows.shape[0] == 0:
        return jnp.zeros((outputs,), jnp.float32)
    if weights is None:
        return rows[0]
    places = lax.broadcasted_iota(jnp.int32, rows.shape, 0)
    heavy = weights.reshape(-1, outputs)
    present = (heavy != 0) & (heavy == jnp.broadcast_to(jnp.max(heavy, axis=0), heavy.shape))
    first = jnp.min(jnp.where(present, places, jnp.full_like(places, rows.shape[0])), axis=0)
    found = jnp.take_along_axis(rows, jnp.minimum(first, rows.shape[0] - 1)[None], axis=0)[0]
    return jnp.where(first < rows.shape[0], found, jnp.zeros_like(found))


def _rough_means(
    arrays: Sequence[jax.Array], weights: jax.Array | None, outputs: int, of: str
) -> tuple[jax.Array, jax.Array]:
    """Numbers near the variables' means, and the size of what they were computed from; float32 [variables, outputs].

    Without weights 1024 examples of a large batch are looked at, drawn at random once for each size. Whatever the
    numbers, their mean lies more than two deviations from that of the whole for one draw in 4096 at most (Chebyshev),
    and closer squares lose two bits at worst; no order of examples, sorted or periodic, makes them unlike the others.
    """
    if of == "squared_errors":
        arrays = arrays[1:]  # the mean of the target alone
    if weights is None:
        means = [_mean_of_rows(array, outputs) for array in arrays]
    else:
        inverse = _inverse(_rough_sum(weights, outputs))
        means = [_rough_sum(_times(weights, array), outputs) * inverse for array in arrays]
    sizes = [jnp.abs(mean) for mean in means]
    if of == "errors":  # the mean of the difference costs twice the means of both
        preds, target = means
        return jnp.stack([target, preds - target]), jnp.stack([sizes[1], sizes[0] + sizes[1]])
    return jnp.stack(means), jnp.stack(sizes)


def _mean_of_rows(values: jax.Array, outputs: int) -> jax.Array:
    examples = values.shape[0] // outputs
    rows = values.reshape(-1, outputs)
    if examples < _FEW:
        return jnp.sum(rows, axis=0) * np.float32(1 / max(1, examples))
    drawn = np.sort(np.random.default_rng(0).integers(0, examples, _SAMPLE, np.int32))
    return jnp.mean(rows.at[drawn].get(mode="promise_in_bounds"), axis=0)


def _rough_sum(values: jax.Array, outputs: int) -> jax.Array:
    """float32 sums [outputs] over the examples of [examples * outputs], in rows, so that none is long."""
    examples = values.shape[0] // outputs
    rows = examples // _ROW
    main = jnp.sum(values[: rows * _ROW * outputs].reshape(rows, _ROW, outputs), axis=1)
    return jnp.sum(main, axis=0) + jnp.sum(values[rows * _ROW * outputs :].reshape(-1, outputs), axis=0)


def _times(weight: jax.Array, value: jax.Array) -> jax.Array:
    return jnp.where(weight == 0, jnp.zeros_like(value), weight * value)


def _negative(values: sums.Sums) -> sums.Sums:
    return sums.Sums(-values.hi, -values.lo)


def check_outputs(outputs: int | None, name: str) -> None:
    """Refuses a number of outputs that is no positive integer."""
    if outputs is not None and (isinstance(outputs, bool) or not isinstance(outputs, int | np.integer) or outputs < 1):
        raise ValueError(f"{name}: outputs must be None or a positive integer; it is {outputs!r}")


def check_last_axis(shape: tuple[int, ...], outputs: int | None, name: str) -> int:
    """How many outputs there are; refuses a shape that does not end with that many."""
    if outputs is None:
        return 1
    if not shape or shape[-1] != outputs:
        raise ValueError(f"{name}: preds have shape {shape}; with outputs={outputs} they are (..., {outputs})")
    return int(outputs)
