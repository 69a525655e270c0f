"""Many metrics as one: their shared statistics are updated once, printed as a table, synchronised at once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import numpy as np

from jaxdl.metrics import sync
from jaxdl.metrics.metric import Reduce, inputs_of, statistic_of


@dataclass(frozen=True, init=False)
class Collection:
    """Metrics of the same predictions, which keep one state for each distinct statistic.

    Which metrics share is decided when the collection is made, from their configurations: precision, recall, F1 and
    accuracy of ten classes all read one confusion matrix of ten classes, which is updated once.

    Args:
        metrics: metrics, each under its own `name`, or a mapping from names to metrics, or pairs of both.

    A collection is itself a metric (init, update, merge, compute), so it may be the carry of `lax.scan`, run under vmap
    and be evaluated by `jaxdl.fit`. `compute` gives {name: value}.

    Raises:
        ValueError: two metrics of one name, or none at all.
        TypeError: for what is no metric.

    >>> import jax.numpy as jnp
    >>> from jaxdl.metrics import Collection, MeanAbsoluteError, MeanSquaredError
    >>> errors = Collection([MeanAbsoluteError(), MeanSquaredError()])
    >>> state = errors.update(errors.init(), preds=jnp.array([1.0, 2.0]), target=jnp.array([1.0, 5.0]))
    >>> print(errors.table(state))
    metric  value
    mae     1.500000
    mse     4.500000
    """

    metrics: tuple[tuple[str, Any], ...]
    name: str

    def __init__(self, metrics: Mapping[str, Any] | Iterable[Any], *, name: str = "metrics"):
        pairs: Iterable[Any] = metrics.items() if isinstance(metrics, Mapping) else metrics
        named = tuple(_named(pair) for pair in pairs) if isinstance(pairs, Iterable) else (_named(pairs),)
        names = [key for key, _ in named]
        twice = sorted({key for key in names if names.count(key) > 1})
        if not named:
            raise ValueError("Collection: there are no metrics in it; give at least one")
        if twice:
            raise ValueError(
                f"Collection: two metrics are called {', '.join(map(repr, twice))}; "
                "give them other names: a mapping {name: metric}, or their name="
            )
        object.__setattr__(self, "metrics", named)
        object.__setattr__(self, "name", name)

    #: States of sums and of buffers may stand beside each other; each has its own rule.
    reduces: ClassVar[tuple[Reduce, ...]] = ("sum", "moments", "gather")

    @property
    def reduce(self) -> Reduce:
        """The most demanding of its statistics: "sum" only when all are sums."""
        return max((s.reduce for s in self.statistics), key=self.reduces.index)

    @property
    def statistics(self) -> tuple[Any, ...]:
        """The distinct statistics, in the order in which metrics first need them."""
        return tuple(dict.fromkeys(statistic_of(metric) for _, metric in self.metrics))

    @property
    def inputs(self) -> tuple[str, ...]:
        """The names of the arrays that `update` reads, beside weight and mask."""
        return tuple(dict.fromkeys(key for statistic in self.statistics for key in inputs_of(statistic)))

    def init(self, batch_shape: tuple[int, ...] = ()) -> tuple[Any, ...]:
        """An empty state of each statistic."""
        return tuple(statistic.init(batch_shape) for statistic in self.statistics)

    def update(
        self,
        state: tuple[Any, ...],
        *,
        preds: Any = None,
        target: Any = None,
        weight: Any = None,
        mask: Any = None,
        **inputs: Any,
    ) -> tuple[Any, ...]:
        """Adds a batch to every statistic; `inputs` are those that some of them read beside preds and target.

        Raises:
            TypeError: an input that none of the metrics reads, or one that a metric needs and that is not given.
        """
        given = {"preds": preds, "target": target, **inputs}
        surplus = [key for key in inputs if key not in self.inputs]
        if surplus:
            raise TypeError(
                f"{self.name}: no metric reads {surplus[0]!r}; they read {', '.join(self.inputs)}, weight and mask"
            )
        new = []
        for statistic, one in zip(self.statistics, state, strict=True):
            read = {key: given.get(key) for key in inputs_of(statistic)}
            missing = [key for key, value in read.items() if value is None and key != "target"]
            if missing:
                user = next(key for key, metric in self.metrics if statistic_of(metric) == statistic)
                raise TypeError(f"{self.name}: the metric {user!r} needs {missing[0]}=, which is not given")
            new.append(statistic.update(one, **{"target": target, **read}, weight=weight, mask=mask))
        return tuple(new)

    def merge(self, a: tuple[Any, ...], b: tuple[Any, ...]) -> tuple[Any, ...]:
        """Both in one."""
        return tuple(s.merge(x, y) for s, x, y in zip(self.statistics, a, b, strict=True))

    def compute(self, state: tuple[Any, ...]) -> dict[str, Any]:
        """{name: value}, in the order of the metrics."""
        held = dict(zip(self.statistics, state, strict=True))
        return {key: metric.compute(held[statistic_of(metric)]) for key, metric in self.metrics}

    def state_of(self, state: tuple[Any, ...], name: str) -> Any:
        """The state of one metric by name, for what it offers beside its value (`per_class`, `invalid`, `plot`).

        Raises:
            KeyError: no metric has that name.
        """
        metrics = dict(self.metrics)
        if name not in metrics:
            raise KeyError(f"{self.name} has no metric {name!r}; it has {', '.join(metrics)}")
        return state[self.statistics.index(statistic_of(metrics[name]))]

    def sync(self, state: tuple[Any, ...], axis_name: sync.AxisName) -> tuple[Any, ...]:
        """The states of all devices of a mesh axis in one, with one all-gather; exact.

        To be called inside `jax.shard_map` or `jax.pmap`, where the axis has its name. For states that are all sums,
        `as_vector` and `from_vector` do it with an all-reduce of your own.
        """
        return sync.gather(self.statistics, state, axis_name)

    def as_vector(self, state: tuple[Any, ...]) -> jax.Array:
        """The states, all sums, as one float32 vector that `lax.psum` adds exactly; see `jaxdl.metrics.sync`."""
        return sync.as_vector(state)

    def from_vector(self, vector: jax.Array) -> tuple[Any, ...]:
        """The states back from a vector of `as_vector`, after the psum."""
        return sync.from_vector(vector, jax.eval_shape(self.init))

    def problems(self, state: tuple[Any, ...]) -> tuple[str, ...]:
        """What the statistics left out or could not hold, a sentence each; empty when all is well. On the host."""
        found: list[str] = []
        for statistic, one in zip(self.statistics, state, strict=True):
            users = ", ".join(key for key, metric in self.metrics if statistic_of(metric) == statistic)
            if hasattr(statistic, "invalid"):
                lost = float(np.sum(np.asarray(statistic.invalid(one))))
                if lost:
                    found.append(f"{users}: weight {lost:g} was left out, whose class or group is out of range")
            if hasattr(statistic, "overflowed") and bool(np.any(np.asarray(statistic.overflowed(one)))):
                found.append(f"{users}: more examples came than the capacity holds; the value is undefined")
        return tuple(found)

    def table(self, state: tuple[Any, ...]) -> str:
        """Names and values as plain text, one line a number (vectors by index), and below what `problems` says."""
        lines = [("metric", "value")]
        for key, value in self.compute(state).items():
            lines += _lines(key, value)
        width = max(len(key) for key, _ in lines)
        text = [f"{key:<{width}}  {value}" for key, value in lines]
        return "\n".join([*text, *self.problems(state)])


def _named(pair: Any) -> tuple[str, Any]:
    metric = pair[1] if isinstance(pair, tuple) and len(pair) == 2 else pair
    if isinstance(metric, type) or not hasattr(metric, "update"):
        raise TypeError(f"Collection: {metric!r} is no metric; give records, such as Accuracy(), or a mapping to them")
    return pair if isinstance(pair, tuple) else (pair.name, pair)


def _lines(key: str, value: Any) -> list[tuple[str, str]]:
    if hasattr(value, "_asdict"):
        value = value._asdict()
    if isinstance(value, Mapping):
        return [line for name, part in value.items() for line in _lines(f"{key}/{name}", part)]
    array = np.asarray(value)
    if array.ndim == 0:
        return [(key, f"{array:.6f}" if array.dtype.kind == "f" else f"{array}")]
    if array.size > 64:
        return [(key, f"{array.dtype} {list(array.shape)}")]
    return [line for index, part in enumerate(array) for line in _lines(f"{key}[{index}]", part)]
