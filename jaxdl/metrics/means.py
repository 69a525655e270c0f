"""The weighted mean of anything: losses, log likelihoods, anything that one number an example describes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from jaxdl.metrics import sums
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


def add_mean(state: sums.Sums, values: jax.Array, weight: jax.Array | None) -> sums.Sums:
    """Adds float32 values and their weights to a state of two sums (weighted values, weights)."""
    return sums.add(state, sums.total(jnp.stack(weighted(values, weight))))


def compute_mean(state: sums.Sums) -> jax.Array:
    """The mean of a state made by `add_mean`."""
    return sums.ratio(sums.pick(state, 0), sums.pick(state, 1))
