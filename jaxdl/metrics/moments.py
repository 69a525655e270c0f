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
from jaxdl.metrics.metric import Reduce

# Examples that are added side by side, and how many of them one float32 sum takes before it goes into a two-float sum:
# R2 of 1e6 examples was fastest with 1000 to 2000 lanes, and 32 additions keep the rounding below 1e-6.
_LANES = 2048
_ADDITIONS = 32
# Rows whose terms one fused loop adds in registers; the sums are read and written once for them: half the time of one
# row after the other, and 16 are slow again.
_TOGETHER = 8
_ROW = 500
# Fewer examples than this are all looked at for a rough mean, of others a sample: a gather of 2000 numbers, where a
# quarter of all in rows took a fifth of the time of R2.
_FEW, _SAMPLE = 8000, 1024

Of = Literal["values", "errors", "pairs"]
#: kind -> (variables, pairs of them whose centred products are kept)
_KINDS: dict[str, tuple[tuple[str, ...], tuple[tuple[int, int], ...]]] = {
    "values": (("preds",), ((0, 0),)),
    "errors": (("target", "error"), ((0, 0), (1, 1))),
    "pairs": (("preds", "target"), ((0, 0), (1, 1), (0, 1))),
}


class MomentState(NamedTuple):
    """Centred moments of several variables.

    Attributes:
        weight: Sums [..., outputs], the total weight.
        mean: Sums [..., variables, outputs].
        product: Sums [..., products, outputs], sum of weight * (x - mean x) * (y - mean y).
    """

    weight: sums.Sums
    mean: sums.Sums
    product: sums.Sums


@dataclass(frozen=True)
class Moments:
    """Weight, means and centred products: the statistic of R2, variances and correlations.

    of: "values" (of preds: mean, variance), "errors" (of target, and of preds - target: R2, explained variance) or
    "pairs" (of preds and target, with their covariance: correlations). outputs: None, and every number of [...] is an
    example of one and the same variable; or k, and the last axis of [..., k] holds k variables, each with its own
    moments. Squares must fit in float32: deviations from 1e-18 to 1e18, and
    weights above 1e-30. A NaN or an infinity makes its output NaN.
    """

    of: Of = "errors"
    outputs: int | None = None
    name: str = field(default="moments", compare=False)
    reduce: ClassVar[Reduce] = "moments"

    def __post_init__(self) -> None:
        if self.of not in _KINDS:
            raise ValueError(f"{self.name}: of must be 'values', 'errors' or 'pairs'; it is {self.of!r}")
        check_outputs(self.outputs, self.name)

    @property
    def inputs(self) -> tuple[str, ...]:
        """What `update` reads."""
        return ("preds",) if self.of == "values" else ("preds", "target")

    def init(self, batch_shape: tuple[int, ...] = ()) -> MomentState:
        """The empty state."""
        variables, pairs = _KINDS[self.of]
        outputs = self.outputs or 1
        return MomentState(
            weight=sums.zeros((*batch_shape, outputs)),
            mean=sums.zeros((*batch_shape, len(variables), outputs)),
            product=sums.zeros((*batch_shape, len(pairs), outputs)),
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
        new = _moments(_VARIABLES[self.of], flat, None if weights is None else weights.reshape(-1), outputs, self.of)
        return self.merge(state, new)

    def merge(self, a: MomentState, b: MomentState) -> MomentState:
        """Both in one, by the formula of Chan, Golub and LeVeque."""
        left, right = sums.value(a.weight), sums.value(b.weight)
        both = left + right
        share = jnp.where(both == 0, jnp.zeros_like(both), right / jnp.where(both == 0, jnp.ones_like(both), both))
        delta = sums.value(sums.add(b.mean, _negative(a.mean)))
        share = share[..., None, :]
        mean = sums.add(a.mean, _plain(delta * share))
        first, second = (jnp.asarray(index) for index in zip(*_KINDS[self.of][1], strict=True))
        cross = jnp.take(delta, first, axis=-2) * jnp.take(delta, second, axis=-2) * (left[..., None, :] * share)
        product = sums.add(sums.add(a.product, b.product), _plain(cross))

        def chosen(joined: jax.Array, x: jax.Array, y: jax.Array) -> jax.Array:
            # an empty side leaves the other as it is, with all its digits
            return jnp.where(right[..., None, :] == 0, x, jnp.where(left[..., None, :] == 0, y, joined))

        return MomentState(
            weight=sums.add(a.weight, b.weight),
            mean=jax.tree.map(chosen, mean, a.mean, b.mean),
            product=jax.tree.map(chosen, product, a.product, b.product),
        )


def _target_and_error(preds: jax.Array, target: jax.Array) -> tuple[jax.Array, ...]:
    return target, preds - target


def _as_given(*values: jax.Array) -> tuple[jax.Array, ...]:
    return values


_VARIABLES: dict[str, Callable[..., tuple[jax.Array, ...]]] = {
    "values": _as_given,
    "errors": _target_and_error,
    "pairs": _as_given,
}


def _moments(
    variables: Callable[..., tuple[jax.Array, ...]],
    arrays: Sequence[jax.Array],
    weight: jax.Array | None,
    outputs: int,
    of: str,
) -> MomentState:
    """The moments of one batch of flat arrays [examples * outputs]: rough means, then what is centred on them."""
    pairs = _KINDS[of][1]
    unit: Any = np.float32(1)
    if weight is not None:
        weight, unit = _near_one(weight)
    given = list(arrays) if weight is None else [*arrays, weight]

    def split(chunk: Sequence[jax.Array]) -> tuple[tuple[jax.Array, ...], jax.Array | None]:
        return variables(*chunk[: len(arrays)]), None if weight is None else chunk[-1]

    values, weights = split(given)
    mean, scale = _rough_means(arrays, weights, outputs, of)
    # Any number near the mean will do; where the first example is one, it is taken: the deviations of a constant are 0
    start = jnp.stack([_first(value, weights, outputs) for value in values])
    pivot = jnp.where(jnp.abs(start - mean) <= np.float32(1e-6) * scale, start, mean)

    def terms(*chunk: jax.Array) -> list[jax.Array]:
        values, weights = split(chunk)
        repeats = chunk[0].shape[0] // outputs
        centred = [value - jnp.tile(pivot[i], repeats) for i, value in enumerate(values)]
        if weights is None:
            return [*centred, *(centred[i] * centred[j] for i, j in pairs)]
        centred = [jnp.where(weights == 0, jnp.zeros_like(value), value) for value in centred]
        heavy = [weights * value for value in centred]
        return [*heavy, *(heavy[i] * centred[j] for i, j in pairs), weights]

    found = add_up(terms, given, outputs)
    count, last = len(values), len(values) + len(pairs)
    if weights is None:
        count_of = np.float64(arrays[0].shape[0] // outputs)
        high = np.float32(count_of)
        total = sums.Sums(jnp.full((outputs,), high), jnp.full((outputs,), np.float32(count_of - np.float64(high))))
    else:
        total = sums.Sums(found.hi[last], found.lo[last])
    rest = sums.value(sums.Sums(found.hi[:count], found.lo[:count]))
    inverse = _inverse(sums.value(total))[None]
    means = rest * inverse
    small = jnp.stack([-rest[i] * rest[j] for i, j in pairs]) * inverse
    products = sums.add(sums.Sums(found.hi[count:last], found.lo[count:last]), _plain(small))
    total, products = (sums.Sums(x.hi * unit, x.lo * unit) for x in (total, products))
    return MomentState(total, sums.add(_plain(pivot), _plain(means)), products)


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


def add_up(terms: Callable[..., list[jax.Array]], arrays: Sequence[jax.Array], outputs: int = 1) -> sums.Sums:
    """Sums of what `terms` makes of flat arrays [examples * outputs], over the examples: Sums [terms, outputs].

    `terms` is applied to equal pieces of all arrays, a multiple of `outputs` long. Pieces are added side by side, which
    XLA vectorises, in float32 for a few additions and then in two floats.
    """
    size = arrays[0].shape[0]
    lanes = outputs * max(1, _LANES // outputs)
    if size <= lanes:
        return _over_lanes(_plain(jnp.stack(terms(*arrays))), outputs)
    rows = size // lanes

    def row(i: Any) -> list[jax.Array]:
        return terms(*(lax.dynamic_slice_in_dim(array, i * lanes, lanes) for array in arrays))

    def group(i: Any, together: int) -> list[jax.Array]:
        found = row(i)
        for k in range(1, together):
            found = [a + b for a, b in zip(found, row(i + k), strict=True)]
        return found

    def run(start: Any, count: int, together: int = 1) -> sums.Sums:
        def more(i: Any, found: list[jax.Array]) -> list[jax.Array]:
            return [a + b for a, b in zip(found, group(start + i * together, together), strict=True)]

        return _plain(jnp.stack(lax.fori_loop(1, count // together, more, group(start, together))))

    blocks, left = divmod(rows, _ADDITIONS)
    if blocks:
        found = lax.fori_loop(
            1,
            blocks,
            lambda i, found: sums.add(found, run(i * _ADDITIONS, _ADDITIONS, _TOGETHER)),
            run(0, _ADDITIONS, _TOGETHER),
        )
        if left:
            found = sums.add(found, run(blocks * _ADDITIONS, left))
    else:
        found = run(0, rows)
    result = _over_lanes(found, outputs)
    if size > rows * lanes:
        # cut off before it is fused with what reads the whole, which takes 0.5 ns an example where a million come
        tail = jnp.stack(terms(*lax.optimization_barrier([array[rows * lanes :] for array in arrays])))
        tail = jnp.pad(tail, ((0, 0), (0, lanes - tail.shape[1])))
        while tail.shape[1] >= 64 * outputs and tail.shape[1] % (2 * outputs) == 0:
            half = tail.shape[1] // 2
            tail = tail[:, :half] + tail[:, half:]
        result = sums.add(result, _over_lanes(_plain(tail), outputs))
    return result


def weighted_sums(
    terms: Callable[..., list[jax.Array]], arrays: tuple[jax.Array, ...], weight: jax.Array | None, outputs: int = 1
) -> sums.Sums:
    """Sums [terms + 1, outputs] of weight * terms(arrays), and of the weights; weight 0 hides even NaN."""
    flat = [array.reshape(-1) for array in arrays]
    if weight is None:
        return add_up(lambda *chunk: [*terms(*chunk), jnp.ones_like(chunk[0])], flat, outputs)

    def heavy(*chunk: jax.Array) -> list[jax.Array]:
        found, weights = terms(*chunk[:-1]), chunk[-1]
        absent = weights == 0
        return [*(jnp.where(absent, jnp.zeros_like(value), weights * value) for value in found), weights]

    return add_up(heavy, [*flat, weight.reshape(-1)], outputs)


def _over_lanes(found: sums.Sums, outputs: int) -> sums.Sums:
    """Sums [terms, lanes] -> [terms, outputs]."""
    terms, lanes = found.hi.shape
    high, low = (jnp.moveaxis(x.reshape(terms, lanes // outputs, outputs), 1, 2) for x in found)
    while high.shape[-1] >= 16 and high.shape[-1] % 2 == 0:  # halves, vectorised, before one after the other
        half = high.shape[-1] // 2
        high, low = sums.add(sums.Sums(high[..., :half], low[..., :half]), sums.Sums(high[..., half:], low[..., half:]))
    return sums.add(sums.total(high), sums.total(low))


def _times(weight: jax.Array, value: jax.Array) -> jax.Array:
    return jnp.where(weight == 0, jnp.zeros_like(value), weight * value)


def _plain(values: jax.Array) -> sums.Sums:
    return sums.Sums(values, jnp.zeros_like(values))


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
