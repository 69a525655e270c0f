"""The weighted mean of anything: losses, log likelihoods, anything that one number an example describes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from jaxdl.metrics import sums
from jaxdl.metrics.call import one_call
from jaxdl.metrics.inputs import as_float, as_weight, weighted
from jaxdl.metrics.metric import Reduce


@dataclass(frozen=True)
class Mean:
    """The weighted mean of `preds`: sum(weight * preds) / sum(weight), exact over any number of batches.

    preds is [...] of any real dtype; `target` is not read and may be left out. 5e7 additions of 0.3 still give 0.3.
    NaN when nothing was counted, or when a counted value is NaN.

    >>> import jax.numpy as jnp
    >>> from jaxdl.metrics import Mean
    >>> loss = Mean(name="loss")
    >>> state = loss.update(loss.init(), preds=jnp.array([1.0, 2.0, 6.0]), weight=jnp.array([1.0, 1.0, 0.0]))
    >>> float(loss.compute(state))
    1.5
    """

    name: str = "mean"
    reduce: ClassVar[Reduce] = "sum"
    inputs: ClassVar[tuple[str, ...]] = ("preds",)

    def init(self, batch_shape: tuple[int, ...] = ()) -> sums.Sums:
        """The empty state: two sums, of weighted values and of weights."""
        return sums.zeros((*batch_shape, 2))

    def update(
        self, state: sums.Sums, *, preds: Any, target: Any = None, weight: Any = None, mask: Any = None
    ) -> sums.Sums:
        """Adds values [...]; `weight` and `mask` broadcast from the left over their shape."""
        values = as_float(preds, f"{self.name}: preds")
        return add_mean(state, values, as_weight(values.shape, weight, mask, self.name))

    def merge(self, a: sums.Sums, b: sums.Sums) -> sums.Sums:
        """Both in one."""
        return sums.add(a, b)

    def compute(self, state: sums.Sums) -> jax.Array:
        """The mean, float32 []."""
        return compute_mean(state)


class MeanOf:
    """A metric that is the weighted mean of one number per example, token or pixel.

    A subclass (a frozen dataclass with a `name`) gives `_values`: the numbers, float32 [...], and where they are valid,
    bool [...] or None; what is not valid (a class id out of range) is left out and counted in `invalid`. It may change
    the mean at the end by its own `compute`. `weight` and `mask` broadcast from the left over the numbers' shape.
    """

    reduce: ClassVar[Reduce] = "sum"
    inputs: ClassVar[tuple[str, ...]] = ("preds", "target")
    name: str

    def _values(self, preds: Any, target: Any) -> tuple[jax.Array, jax.Array | None]:
        raise NotImplementedError

    def init(self, batch_shape: tuple[int, ...] = ()) -> sums.Sums:
        """The empty state: three sums, of weighted values, of weights, and of the weight that was not valid."""
        return sums.zeros((*batch_shape, 3))

    def update(self, state: sums.Sums, *, preds: Any, target: Any, weight: Any = None, mask: Any = None) -> sums.Sums:
        """Adds a batch; shapes as the class says."""
        values, valid = self._values(preds, target)
        weights = as_weight(values.shape, weight, mask, self.name)
        lost = jnp.zeros((), jnp.float32)
        if valid is not None:
            given = jnp.ones(values.shape, jnp.float32) if weights is None else weights
            weights = jnp.where(valid, given, jnp.zeros_like(given))
            lost = given - weights
        parts = jnp.stack([*weighted(values, weights), jnp.broadcast_to(lost, values.shape).reshape(-1)])
        return sums.add(state, sums.total(parts))

    def merge(self, a: sums.Sums, b: sums.Sums) -> sums.Sums:
        """Both in one."""
        return sums.add(a, b)

    def compute(self, state: sums.Sums) -> jax.Array:
        """The mean, float32 []; NaN when nothing was counted."""
        return compute_mean(state)

    def invalid(self, state: sums.Sums) -> jax.Array:
        """The weight of what was left out because its target was no class, float32 []."""
        return sums.value(sums.pick(state, 2))


mean = one_call(Mean, "mean")


def add_mean(state: sums.Sums, values: jax.Array, weight: jax.Array | None) -> sums.Sums:
    """Adds float32 values and their weights to a state of two sums (weighted values, weights)."""
    return sums.add(state, sums.total(jnp.stack(weighted(values, weight))))


def compute_mean(state: sums.Sums) -> jax.Array:
    """The mean of a state made by `add_mean`."""
    return sums.ratio(sums.pick(state, 0), sums.pick(state, 1))
