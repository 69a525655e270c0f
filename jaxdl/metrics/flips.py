"""The flip test: would similar people of the advantaged group have been predicted otherwise?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxdl.metrics.call import one_call
from jaxdl.metrics.fairness import as_positive, ids_from_left, infer_facets
from jaxdl.metrics.inputs import as_array, as_float, as_ids, as_weight
from jaxdl.metrics.metric import Reduce

_ROWS = 64  # examples whose distances to all others are in memory at once
Part = Literal["difference", "to_negative", "to_positive"]


class PeopleBuffer(NamedTuple):
    """What the flip test remembers.

    Attributes:
        features: float32 [..., capacity, num_features].
        facet: int32 [..., capacity].
        positive: bool [..., capacity], whether the prediction is positive.
        weight: float32 [..., capacity], 0 where nothing is stored.
        length: int32 [...], how many examples were seen; capacity + 1 means that they did not fit.
        undefined: bool [...], whether a feature was NaN or a weight negative or not finite.
        invalid: int32 [...], how many facet or class ids were out of range (left out).
    """

    features: jax.Array
    facet: jax.Array
    positive: jax.Array
    weight: jax.Array
    length: jax.Array
    undefined: jax.Array
    invalid: jax.Array


@dataclass(frozen=True)
class FlipTest:
    """FT: (F+ - F-) / n_d, the examples of facet d that their nearest neighbours in facet a contradict; in [-1, 1].

    F+ counts the examples of d that are predicted positive while most of their k nearest neighbours in a are predicted
    negative; F- those that are predicted negative while the neighbours are positive. Below 0 members of d are rejected
    where similar members of a are accepted (Black, Yeom and Fredrikson, 2020; SageMaker Clarify 0.5, FT). Euclidean
    distances of the features as they are given (scale them first), k = 5, or 1 when facet a holds at most 9 examples.

    preds: class ids int [n]; facet: ids int [n] or bool; features: float [n, num_features]; target is not read. With
    more than two facets each value is d against the rest, float32 [num_facets]. `part` chooses the "difference", or one
    side of it: "to_negative" is F+ / n_d (flips that the neighbours would turn negative), "to_positive" F- / n_d.

    Neighbours at equal distance beyond the k-th share the places that are left, whatever their order, where a k-d tree
    takes whichever it meets first; a drawn vote is negative. Weights count as repetitions. Exact by brute force:
    n_d * n_a distances in float64, blockwise, in `compute`. More examples than `capacity` give NaN (`overflowed`
    tells); NaN too where facet a or d is empty (Clarify raises an error) and where a feature is NaN.

    >>> import jax.numpy as jnp
    >>> from jaxdl.metrics import flip_test
    >>> features = jnp.array([[0.0], [1.0], [0.1], [0.9]])
    >>> float(flip_test(jnp.array([1, 0, 0, 0]), facet=jnp.array([0, 0, 1, 1]), features=features))
    -0.5
    """

    capacity: int
    num_features: int
    num_facets: int = 2
    num_classes: int = 2
    positive: int | tuple[int, ...] = 1
    neighbors: int = 5
    part: Part = "difference"
    name: str = "FT"
    reduce: ClassVar[Reduce] = "gather"
    inputs: ClassVar[tuple[str, ...]] = ("preds", "facet", "features")

    def __post_init__(self) -> None:
        for what, least in (
            ("capacity", 1), ("num_features", 1), ("num_facets", 2), ("num_classes", 2), ("neighbors", 1)
        ):  # fmt: skip
            count = getattr(self, what)
            if isinstance(count, bool) or not isinstance(count, int | np.integer) or not least <= count < 2**30:
                raise ValueError(f"{self.name}: {what} must be an integer of at least {least}; it is {count!r}")
        positive = as_positive(self.positive, self.num_classes, self.name)
        object.__setattr__(self, "positive", positive if len(positive) > 1 else positive[0])
        if self.part not in ("difference", "to_negative", "to_positive"):
            raise ValueError(
                f"{self.name}: part must be 'difference', 'to_negative' or 'to_positive'; it is {self.part!r}"
            )

    def init(self, batch_shape: tuple[int, ...] = ()) -> PeopleBuffer:
        """The empty buffer."""
        places = (*batch_shape, self.capacity)
        return PeopleBuffer(
            features=jnp.zeros((*places, self.num_features), jnp.float32),
            facet=jnp.zeros(places, jnp.int32),
            positive=jnp.zeros(places, jnp.bool_),
            weight=jnp.zeros(places, jnp.float32),
            length=jnp.zeros(batch_shape, jnp.int32),
            undefined=jnp.zeros(batch_shape, jnp.bool_),
            invalid=jnp.zeros(batch_shape, jnp.int32),
        )

    def update(
        self, state: PeopleBuffer, *, preds: Any, facet: Any, features: Any, target: Any = None, weight: Any = None,
        mask: Any = None,
    ) -> PeopleBuffer:  # fmt: skip
        """Adds examples: preds int [n], facet int [n], features float [n, num_features]."""
        ids = as_ids(preds, f"{self.name}: preds")
        rows = as_float(features, f"{self.name}: features")
        if ids.ndim != 1 or rows.shape != (*ids.shape, self.num_features):
            raise ValueError(
                f"{self.name}: preds have shape {ids.shape} and features {rows.shape}; they must be [n] and "
                f"[n, {self.num_features}]"
            )
        group = ids_from_left(facet, ids.shape, f"{self.name}: facet")
        given = as_weight(ids.shape, weight, mask, self.name)
        weights = jnp.ones(ids.shape, jnp.float32) if given is None else given
        present = weights != 0
        counted = present & (ids >= 0) & (ids < self.num_classes) & (group >= 0) & (group < self.num_facets)
        broken = jnp.any(jnp.isnan(rows), axis=-1) | ~(jnp.isfinite(weights) & (weights > 0))
        chosen = jnp.isin(ids, jnp.asarray(np.atleast_1d(self.positive), jnp.int32))
        stored = self._append(
            state, jnp.where(counted[:, None], rows, jnp.zeros_like(rows)), group, chosen, weights, counted
        )
        wrong = jnp.sum(present & ~counted, dtype=jnp.int32)
        return stored._replace(
            undefined=state.undefined | jnp.any(counted & broken), invalid=_saturating(state.invalid, wrong)
        )

    def _append(
        self, state: PeopleBuffer, features: jax.Array, facet: jax.Array, positive: jax.Array, weight: jax.Array,
        keep: jax.Array,
    ) -> PeopleBuffer:  # fmt: skip
        count = jnp.cumsum(keep, dtype=jnp.int32)
        place = jnp.where(keep, state.length + count - 1, jnp.full_like(count, self.capacity))
        new = count[-1] if count.shape[0] else jnp.zeros((), jnp.int32)
        return state._replace(
            features=state.features.at[place].set(features, mode="drop"),
            facet=state.facet.at[place].set(facet, mode="drop"),
            positive=state.positive.at[place].set(positive, mode="drop"),
            weight=state.weight.at[place].set(weight, mode="drop"),
            length=jnp.minimum(state.length + new, jnp.int32(self.capacity + 1)),
        )

    def merge(self, a: PeopleBuffer, b: PeopleBuffer) -> PeopleBuffer:
        """Both in one; b's examples stand behind a's, which no result shows."""

        def one(a: PeopleBuffer, b: PeopleBuffer) -> PeopleBuffer:
            keep = lax.iota(jnp.int32, self.capacity) < b.length
            stored = self._append(a, b.features, b.facet, b.positive, b.weight, keep)
            # b may have overflowed itself: its length then says so, though its buffer holds only `capacity`
            return stored._replace(
                length=jnp.minimum(a.length + b.length, jnp.int32(self.capacity + 1)),
                undefined=a.undefined | b.undefined,
                invalid=_saturating(a.invalid, b.invalid),
            )

        merged = one
        for _ in range(a.length.ndim):
            merged = jax.vmap(merged)
        return merged(a, b)

    def compute(self, state: PeopleBuffer) -> jax.Array:
        """The test, float32 [] (two facets) or [num_facets]."""
        with jax.enable_x64(True):
            wide = state.features.astype(jnp.float64), state.weight.astype(jnp.float64)
            groups = (1,) if self.num_facets == 2 else tuple(range(self.num_facets))
            values = [self._against(*wide, state.facet == jnp.int32(d), state.positive) for d in groups]
            value = (values[0] if self.num_facets == 2 else jnp.stack(values)).astype(jnp.float32)
            lost = self.overflowed(state) | state.undefined
            return jnp.where(lost, jnp.full_like(value, jnp.nan), value)

    def _against(self, features: jax.Array, weight: jax.Array, is_d: jax.Array, positive: jax.Array) -> jax.Array:
        """The test of the examples of d against those that are not; float64."""
        none = jnp.zeros_like(weight)
        of_a, of_d = jnp.where(is_d, none, weight), jnp.where(is_d, weight, none)
        n_a, n_d = jnp.sum(of_a), jnp.sum(of_d)
        k = jnp.where(n_a > 9, jnp.full_like(n_a, self.neighbors), jnp.ones_like(n_a))

        def block(rows: jax.Array) -> jax.Array:
            """How much of k votes positive for each row, [rows, features] -> [rows]."""
            square = jnp.sum((rows[:, None] - features[None]) ** 2, axis=-1)
            bits = lax.bitcast_convert_type(square, jnp.uint64)  # ordered as the distances, which are not negative
            reach = _reach(bits, of_a, k)
            inside, edge = bits < reach[:, None], bits == reach[:, None]
            votes = (of_a * positive.astype(of_a.dtype))[None]

            def add(which: jax.Array, what: jax.Array) -> jax.Array:
                return jnp.sum(jnp.where(which, what, jnp.zeros_like(square)), axis=-1)

            at_edge = add(edge, of_a[None])
            left = (k - add(inside, of_a[None])) / jnp.where(at_edge > 0, at_edge, jnp.ones_like(at_edge))
            return add(inside, votes) + left * add(edge, votes)

        count = features.shape[0]
        blocks = -(-count // _ROWS)
        padded = jnp.pad(features, ((0, blocks * _ROWS - count), (0, 0))).reshape(blocks, _ROWS, -1)
        votes = lax.map(block, padded).reshape(-1)[:count]
        # the votes of equal distances are shares of k: what is a draw but for rounding is a draw
        neighbours = votes > k * np.float64(0.5 + 1e-12)
        lost = jnp.sum(jnp.where(positive & ~neighbours, of_d, none))
        gained = jnp.sum(jnp.where(~positive & neighbours, of_d, none))
        flips = {"difference": lost - gained, "to_negative": lost, "to_positive": gained}[self.part]
        both = (n_a > 0) & (n_d > 0)
        return jnp.where(both, flips / jnp.where(both, n_d, jnp.ones_like(n_d)), jnp.full_like(n_d, jnp.nan))

    def overflowed(self, state: PeopleBuffer) -> jax.Array:
        """Whether more examples came than `capacity`, bool []: `compute` is then NaN."""
        return state.length > self.capacity

    def invalid(self, state: PeopleBuffer) -> jax.Array:
        """How many examples were left out because an id was out of range, int32 []."""
        return state.invalid


def _reach(bits: jax.Array, weight: jax.Array, k: jax.Array) -> jax.Array:
    """The smallest distance, as bits, within which weight k lies: uint64 [rows, n] -> [rows]. By bisection, no sort."""

    def halve(_: Any, bounds: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        low, high = bounds
        middle = low + (high - low) // np.uint64(2)
        held = jnp.sum(jnp.where(bits <= middle[:, None], weight[None], jnp.zeros_like(weight)[None]), axis=-1)
        enough = held >= k
        return jnp.where(enough, low, middle + np.uint64(1)), jnp.where(enough, middle, high)

    low = jnp.zeros(bits.shape[0], jnp.uint64)
    return lax.fori_loop(0, 64, halve, (low, jnp.full_like(low, np.uint64(0x7FF0000000000000))))[1]


def _saturating(a: jax.Array, b: jax.Array) -> jax.Array:
    top = jnp.int32(2**31 - 1)
    return jnp.where(a > top - b, top, a + b)


def _infer(inputs: Mapping[str, Any]) -> dict[str, int]:
    features = as_array(inputs["features"], "features")
    found = infer_facets({key: inputs.get(key) for key in ("preds", "facet")} | {"target": inputs["preds"]})
    shape = features.shape
    size = {"capacity": max(1, shape[0] if shape else 1), "num_features": max(1, shape[1] if len(shape) > 1 else 1)}
    return {**size, **{key: found[key] for key in ("num_facets", "num_classes")}}


flip_test = one_call(FlipTest, "flip_test", infer=_infer)
