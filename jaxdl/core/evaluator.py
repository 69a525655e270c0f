"""Evaluation and prediction: the same step without the update, compiled; every example counts exactly once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdl.core import compile_cache
from jaxdl.core.blocks import block_here, put_block
from jaxdl.core.cost import cost_of, slow_in_loops
from jaxdl.core.plan import choose_plan
from jaxdl.core.program import Feed
from jaxdl.core.state import State
from jaxdl.core.step import Array, Step, columns_of
from jaxdl.core.task import PyTree
from jaxdl.core.trials import TRIAL_AXES
from jaxdl.parallel import Layout, tracing

#: Outputs of a block of predictions wait on the device; more than this is not kept at once.
OUTPUT_BYTES = 64 * 2**20


class _Blocks:
    """A feed in order, in blocks of `length` steps; the last one is filled up with steps that do not count."""

    def __init__(self, feed: Feed, item: PyTree, layout: Layout, length: int):
        self.feed, self.item, self.layout, self.length = feed, item, layout, length

    def __iter__(self) -> Iterator[tuple[PyTree, Array]]:
        for start in range(0, self.feed.steps_per_epoch, self.length):
            count = min(self.length, self.feed.steps_per_epoch - start)
            block = block_here(self.feed, self.layout, 0, start, count)
            if count < self.length:
                spare = self.length - count
                block = jax.tree.map(lambda x: np.concatenate([x, np.repeat(x[-1:], spare, 0)]), block)  # noqa: B023
            live = (np.arange(self.length) < count).astype(np.float32)
            yield put_block(block, self.item, self.feed.batch_size, self.layout), self.layout.put(live)

    def __len__(self) -> int:
        return -(-self.feed.steps_per_epoch // self.length)


def _item(feed: Feed, layout: Layout) -> tuple[PyTree, int]:
    """The type of one row of a block, and its bytes."""
    first = jax.tree.map(lambda x: x[0], feed.block(0, 0, 1))
    layout.require_batch(feed.batch_size)
    item = layout.abstract(first, layout.item(first, feed.batch_size))
    return item, sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(item))


class Evaluator:
    """A step's loss and metrics over a whole feed, as many blocks as it takes and one download.

    Args:
        step: what is evaluated.
        feed: the data, unshuffled; padding rows have weight 0.
        metrics: records with `name`, `init`, `update` and `compute`. Those whose `statistic` is equal share one state.
            A statistic whose `inputs` name more than preds and target reads those columns of the batch.
        layout: where arrays live.
        state: a State or its shapes; evaluation is compiled for it.

    Raises:
        ValueError: a step without `evaluate`; two metrics of one name.
    """

    def __init__(self, step: Step, feed: Feed, metrics: tuple[Any, ...], layout: Layout, state: PyTree):
        if step.evaluate is None:
            raise ValueError("this step has no evaluate function: it can be trained, but not validated")
        names = [metric.name for metric in metrics]
        if len(set(names)) < len(names) or "loss" in names:
            raise ValueError(f"metrics need different names, none of them 'loss'; these are {names}")
        compile_cache.enable()
        self.step, self.metrics, self._feed, self._layout = step, metrics, feed, layout
        self._statistics = tuple(dict.fromkeys(_statistic(metric) for metric in metrics))
        self._data = layout.put(feed.data)
        self._one = jax.jit(_for_each_trial(self._evaluate_one, step, (0, TRIAL_AXES, None, None, None)))
        item, item_bytes = _item(feed, layout)
        live = jax.ShapeDtypeStruct((), np.float32, sharding=layout.replicated)
        start = jax.eval_shape(self._start)
        self._start_shardings = layout.whole(start)
        start = layout.abstract(start, self._start_shardings)
        self._tracing = partial(tracing, layout.tracing())
        with self._tracing():
            cost = cost_of(self._one.trace(start, state, self._data, item, live).jaxpr)
        self._loop = slow_in_loops(cost)
        plan = choose_plan(cost, feed.steps_per_epoch, item_bytes)
        self._blocks = _Blocks(feed, item, layout, 1 if self._loop else plan.steps_per_dispatch)
        self._programs: dict[Any, Any] = {}

    def _start(self) -> tuple[PyTree, ...]:
        sums = tuple(statistic.init() for statistic in self._statistics)
        count = self.step.trials
        return jax.tree.map(lambda x: jnp.broadcast_to(x, (count, *jnp.shape(x))), sums) if count else sums

    def _evaluate_one(
        self, sums: tuple[PyTree, ...], state: State, data: PyTree, item: PyTree, live: Array
    ) -> tuple[tuple[PyTree, ...], Array]:
        batch = dict(self._feed.take(data, item))
        batch["weight"] = batch["weight"] * live
        evaluate = (self.step.single or self.step).evaluate
        assert evaluate is not None
        seen = evaluate(state, batch)
        given = {"preds": seen.preds, "target": seen.target, "weight": seen.weights}
        columns = {_statistic(metric): columns_of(metric, batch) for metric in self.metrics}
        new = tuple(
            statistic.update(one, **given, **columns[statistic])
            for statistic, one in zip(self._statistics, sums, strict=True)
        )
        return new, jnp.stack([seen.loss, seen.weight])

    def _block(
        self, sums: Any, state: State, data: PyTree, block: PyTree, live: Array, last: bool
    ) -> tuple[Any, Array]:
        if self._loop:
            item = jax.tree.map(lambda x: x[0], block)
            sums, row = self._one(sums, state, data, item, live[0])
            rows = row[None]
        else:
            sums, rows = jax.lax.scan(lambda s, x: self._one(s, state, data, *x), sums, (block, live))
        if not last:
            return sums, rows
        held = dict(zip(self._statistics, sums, strict=True))
        return {
            metric.name: _for_each_trial(metric.compute, self.step, (0,))(held[_statistic(metric)])
            for metric in self.metrics
        }, rows

    def __call__(self, state: State) -> dict[str, Any]:
        """{"loss": mean, "accuracy": ...}: floats, and NumPy arrays for metrics that are no single number.

        A metric whose `compute` returns a mapping or a named tuple gives one entry a key, "name/key". With trials all
        are arrays, one number (or array) a trial.
        """
        sums: Any = ()
        losses = []
        if self.metrics:
            if "start" not in self._programs:
                self._programs["start"] = jax.jit(self._start, out_shardings=self._start_shardings).lower().compile()
            sums = self._programs["start"]()
        for number, (block, live) in enumerate(self._blocks):
            last = number == len(self._blocks) - 1
            if last not in self._programs:
                # the host reads the results, so each device gets all of them, however the parameters are split
                program = jax.jit(partial(self._block, last=last), out_shardings=self._layout.replicated)
                with self._tracing(), compile_cache.keeping(self._layout.keeps_programs):
                    self._programs[last] = program.lower(sums, state, self._data, block, live).compile()
            sums, rows = self._programs[last](sums, state, self._data, block, live)
            if self._layout.in_step:
                jax.block_until_ready(rows)
            losses.append(rows)
        values, losses = jax.device_get((sums, losses))
        loss, weight = np.moveaxis(np.concatenate(losses).astype(np.float64).sum(0), -1, 0)
        mean = np.divide(loss, weight, out=np.full_like(loss, np.nan), where=weight > 0)
        result: dict[str, Any] = _numbers("loss", mean)
        # in the order of the metrics, not of the alphabet, which jax gives to dictionaries
        for metric in self.metrics:
            result |= _numbers(metric.name, values[metric.name])
        return result


def _for_each_trial(function: Callable[..., Any], step: Step, axes: tuple[Any, ...]) -> Callable[..., Any]:
    """The function of one training, over the trials of a step that has some."""
    return jax.vmap(function, in_axes=axes) if step.trials else function


def _statistic(metric: Any) -> Any:
    return getattr(metric, "statistic", metric)


def _numbers(name: str, value: Any) -> dict[str, Any]:
    """{name: float or array}, or one entry a key for mappings and named tuples."""
    parts = value._asdict() if hasattr(value, "_asdict") else value
    if isinstance(parts, dict):
        return {key: one for part in parts for key, one in _numbers(f"{name}/{part}", parts[part]).items()}
    return {name: float(value) if np.ndim(value) == 0 else np.asarray(value)}


class Predictor:
    """A step's outputs for every example of a feed, in its order.

    Args:
        step, feed, layout, state: as in `Evaluator`.

    Raises:
        ValueError: a step without `predict`.
    """

    def __init__(self, step: Step, feed: Feed, layout: Layout, state: PyTree):
        if step.predict is None:
            raise ValueError("this step has no predict function")
        compile_cache.enable()
        self.step, self._feed, self._layout = step, feed, layout
        self._data = layout.put(feed.data)
        self._one = jax.jit(self._predict_one)
        item, item_bytes = _item(feed, layout)
        with tracing(layout.tracing()):
            traced = self._one.trace(state, self._data, item)
        cost = cost_of(traced.jaxpr)
        self._loop = slow_in_loops(cost)
        out_bytes = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(traced.out_info))
        plan = choose_plan(cost, feed.steps_per_epoch, item_bytes)
        length = min(plan.steps_per_dispatch, max(1, OUTPUT_BYTES // max(out_bytes, 1)))
        self._blocks = _Blocks(feed, item, layout, 1 if self._loop else length)
        self._program: Any = None

    def _predict_one(self, state: State, data: PyTree, item: PyTree) -> PyTree:
        assert self.step.predict is not None
        return self.step.predict(state, dict(self._feed.take(data, item)))

    def _block(self, state: State, data: PyTree, block: PyTree) -> PyTree:
        if self._loop:
            out = self._one(state, data, jax.tree.map(lambda x: x[0], block))
            return jax.tree.map(lambda x: x[None], out)
        return jax.lax.map(lambda item: self._one(state, data, item), block)

    def __call__(self, state: State) -> PyTree:
        """NumPy arrays [examples, ...], with trials [trials, examples, ...], in the structure that predict returns."""
        parts: list[PyTree] = []
        waiting: PyTree = None
        for block, _ in self._blocks:
            if self._program is None:
                program = jax.jit(self._block, out_shardings=self._layout.replicated)
                with tracing(self._layout.tracing()), compile_cache.keeping(self._layout.keeps_programs):
                    self._program = program.lower(state, self._data, block).compile()
            outputs = self._program(state, self._data, block)
            if self._layout.in_step:
                jax.block_until_ready(outputs)
            if waiting is not None:
                parts.append(jax.device_get(waiting))
            waiting = outputs
        parts.append(jax.device_get(waiting))

        def join(*xs: np.ndarray) -> np.ndarray:
            whole = np.concatenate(xs)
            if count := self.step.trials:  # [steps, trials, batch, ...]
                whole = whole.swapaxes(0, 1)
                return whole.reshape(count, -1, *whole.shape[3:])[:, : self._feed.examples]
            return whole.reshape(-1, *whole.shape[2:])[: self._feed.examples]

        return jax.tree.map(join, *parts)
