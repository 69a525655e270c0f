"""Quantiles of a stream of numbers, in a state of fixed size, with a bound on their error that it returns."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxdl.metrics import sums
from jaxdl.metrics.call import one_call
from jaxdl.metrics.inputs import as_float, as_weight
from jaxdl.metrics.metric import Derived, Reduce
from jaxdl.metrics.scores import order_of, score_of

_FLOAT_MANTISSA = 23


class Bounds(NamedTuple):
    """Where the exact quantiles certainly lie, float32 of the shape of the quantiles."""

    lower: jax.Array
    upper: jax.Array


@dataclass(frozen=True)
class NumberCounts:
    """How many numbers begin with the same bits: sign, exponent and the first bits of the mantissa.

    A histogram over all of float32 whose bins are 2^-mantissa_bits wide, relative to their numbers (as in DDSketch,
    Masson, Rim and Lee, 2019, with the bins that the number format itself has). So bins need no choice of range, states
    add up, and nothing depends on the order. State: `Sums` of 2^(9 + mantissa_bits) bins and one for NaN; counts are
    exact to 2^46.
    """

    mantissa_bits: int = 7
    name: str = field(default="number_counts", compare=False)
    reduce: ClassVar[Reduce] = "sum"
    inputs: ClassVar[tuple[str, ...]] = ("preds",)

    def __post_init__(self) -> None:
        bits = self.mantissa_bits
        if isinstance(bits, bool) or not isinstance(bits, int) or not 0 <= bits <= 14:
            raise ValueError(f"{self.name}: mantissa_bits must be an integer from 0 to 14; it is {bits!r}")

    @property
    def bins(self) -> int:
        """How many bins there are, beside the one for NaN."""
        return 2 ** (9 + self.mantissa_bits)

    def init(self, batch_shape: tuple[int, ...] = ()) -> sums.Sums:
        """The empty state."""
        return sums.zeros((*batch_shape, self.bins + 1))

    def update(
        self, state: sums.Sums, *, preds: Any, target: Any = None, weight: Any = None, mask: Any = None
    ) -> sums.Sums:
        """Adds values [...]; `weight` and `mask` broadcast from the left over their shape."""
        values = as_float(preds, f"{self.name}: preds")
        weights = as_weight(values.shape, weight, mask, self.name)
        values = values.reshape(-1)
        cells = (order_of(values) >> self._shift).astype(jnp.int32)
        cells = jnp.where(jnp.isnan(values), jnp.full_like(cells, self.bins), cells)
        if weights is None:
            return sums.add(state, sums.count_by_cell(cells, None, self.bins + 1))
        return sums.add(state, sums.sum_by_cell(cells, weights.reshape(-1), self.bins + 1))

    def merge(self, a: sums.Sums, b: sums.Sums) -> sums.Sums:
        """Both in one."""
        return sums.add(a, b)

    @property
    def _shift(self) -> np.uint32:
        return np.uint32(_FLOAT_MANTISSA - self.mantissa_bits)

    def bounds(self, state: sums.Sums, q: tuple[float, ...]) -> Bounds:
        """The smallest and the largest number of the bin that holds each quantile, float32 [quantiles].

        The quantile q is the smallest number below or at which lies a share of at least q of the weight. NaN when
        nothing was counted, or when a counted number is NaN.
        """
        with jax.enable_x64(True):
            counts = state.hi.astype(jnp.float64) + state.lo.astype(jnp.float64)
            below = lax.cumsum(counts[:-1])
            # a share such as 0.1 of 30 is not 3 to the last bit
            wanted = below[-1] * np.asarray(q, np.float64) * np.float64(1 - 1e-12)
            short = (below[None] < wanted[:, None]) | (below[None] <= 0)
            last = jnp.max(jnp.where(counts[:-1] > 0, lax.iota(jnp.int32, self.bins), np.int32(0)))
            # the largest of all, though its weight may be less than a rounding of the sum
            cell = jnp.where(np.asarray(q) == 1, last, jnp.minimum(jnp.sum(short, axis=1, dtype=jnp.int32), last))
            undefined = ~(below[-1] > 0) | (counts[-1] != 0)
        first = cell.astype(jnp.uint32) << self._shift
        lower, upper = score_of(first), score_of(first + ((jnp.uint32(1) << self._shift) - jnp.uint32(1)))
        # beside the infinities, their bins hold only the codes of NaN
        lower, upper = (jnp.where(jnp.isnan(end), other, end) for end, other in ((lower, upper), (upper, lower)))
        missing = jnp.full_like(lower, jnp.nan)
        return Bounds(jnp.where(undefined, missing, lower), jnp.where(undefined, missing, upper))


@dataclass(frozen=True)
class Quantiles(Derived):
    """Quantiles of `preds` over any number of batches, to a relative error of 2^-(mantissa_bits + 1): 0.4 % for 7 bits.

    q: one share from 0 (smallest) to 1 (largest), or several. The quantile q is the smallest number below or at which
    lies a share of at least q of the weight (NumPy's method "inverted_cdf"; the lower median for q = 0.5). The value is
    the middle of the bin that holds it, and `bounds` gives the bin: the exact quantile lies in it, always.

    preds is [...] of any real dtype, read as float32; `target` is not read. The state holds 2^(9 + mantissa_bits)
    counts of 8 bytes: 512 KiB for 7 bits, 32 KiB for 3 bits (6 %), 32 MiB for 13 bits (0.006 %). It merges exactly, in
    any order. Quantiles below 1.2e-38 in size may come out as 0, though their bounds hold. NaN when nothing was counted
    or when a counted number is NaN.

    >>> import jax.numpy as jnp
    >>> from jaxdl.metrics import Quantiles
    >>> metric = Quantiles((0.5, 0.99))
    >>> state = metric.update(metric.init(), preds=jnp.arange(1.0, 1001.0))
    >>> metric.compute(state).tolist()
    [501.0, 990.0]
    >>> [end.tolist() for end in metric.bounds(state)]
    [[500.0, 988.0], [501.9999694824219, 991.9999389648438]]
    """

    q: float | tuple[float, ...] = 0.5
    mantissa_bits: int = 7
    name: str = "quantiles"

    def __post_init__(self) -> None:
        if np.ndim(self.q) == 0:
            object.__setattr__(self, "q", float(self.q))  # type: ignore[arg-type]
        elif not isinstance(self.q, float):
            object.__setattr__(self, "q", tuple(float(share) for share in self.q))
        if not self._shares or not all(0 <= share <= 1 for share in self._shares):
            raise ValueError(f"{self.name}: q must be shares from 0 to 1; it is {self.q!r}")
        _ = self.statistic  # checks mantissa_bits

    @property
    def _shares(self) -> tuple[float, ...]:
        return self.q if isinstance(self.q, tuple) else (float(self.q),)

    @property
    def statistic(self) -> NumberCounts:
        """The counts of numbers by their first bits, which any quantiles share."""
        return NumberCounts(self.mantissa_bits, name=self.name)

    def compute(self, state: sums.Sums) -> jax.Array:
        """float32 [] for one share, [shares] for several."""
        lower, upper = self.statistic.bounds(state, self._shares)
        half = jnp.float32(0.5)
        middle = jnp.where(lower == upper, lower, lower * half + upper * half)
        # the bin of 0 ends at 1e-38 times its width: 0 is the better word for it
        middle = jnp.where(lower == 0, jnp.zeros_like(middle), middle)
        return middle if isinstance(self.q, tuple) else middle[0]

    def bounds(self, state: sums.Sums) -> Bounds:
        """Between which two numbers each exact quantile lies, float32 of the value's shape."""
        found = self.statistic.bounds(state, self._shares)
        return found if isinstance(self.q, tuple) else Bounds(found.lower[0], found.upper[0])


quantiles = one_call(Quantiles, "quantiles")
