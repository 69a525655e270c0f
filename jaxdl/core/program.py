"""Program: the only caller of jax.jit for training. One Step, one feed, one layout, compiled."""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import jax
import jax.extend
import jax.numpy as jnp
import numpy as np

from jaxdl.core import compile_cache
from jaxdl.core.allocator import keep_freed_memory
from jaxdl.core.blocks import block_here, put_block
from jaxdl.core.cost import Cost, constants_of, cost_of
from jaxdl.core.island import on_mesh
from jaxdl.core.offload import fetched, placed, require_host_memory
from jaxdl.core.packing import Packed, fields_of, pack
from jaxdl.core.plan import RunPlan, choose_plan
from jaxdl.core.pmapped import pmapped, put_split, within_pmap
from jaxdl.core.start import replace_start
from jaxdl.core.state import State
from jaxdl.core.step import Array, Report, Step, add, choose, require_step, update, zeros
from jaxdl.core.task import PyTree
from jaxdl.core.trials import starting_numbers, starting_seeds
from jaxdl.parallel import Layout, constrain_rows, tracing

if TYPE_CHECKING:
    from jaxdl.core.summary import ProgramReport


class Feed(Protocol):
    """Where batches come from: a function of (seed, step). `jaxdl.data` has the usual ones; fit takes any other, too.

    A block is what the host hands over for several steps: indices [steps, batch] of resident columns, or whole batches
    [steps, batch, ...]; `take` turns one row of it into a batch, in the graph. `dataset`, `shuffle`, `drop_last` and
    `transform` tell one feed from another where it has them; nothing else reads them.
    """

    @property
    def examples(self) -> int:
        """Examples an epoch."""

    @property
    def batch_size(self) -> int:
        """Examples a batch, padding included."""

    @property
    def steps_per_epoch(self) -> int:
        """Batches an epoch."""

    @property
    def data(self) -> PyTree:
        """The arrays that live on the device; {} for a streamed feed."""

    def block(self, seed: int, step: int, count: int) -> PyTree:
        """What steps [step, step + count) need: NumPy arrays with a leading axis of `count`; on the host.

        With a parameter `rows` (positions in the batch, ascending) each of several processes reads its own part only.
        """

    def take(self, data: PyTree, item: PyTree) -> Mapping[str, Array]:
        """One row of a block -> one batch, with "weight" float32 [batch_size], 0 for padding; in the graph."""


class Program:
    """update = apply . measure, compiled for K steps per dispatch.

    Nothing is traced twice: the update is traced once, whatever surrounds it (scan, unrolled steps, a tail block);
    evaluation and prediction once each. State is donated: the state handed to `run` is gone afterwards. Initialisation
    is compiled too, so no array of the caller's is ever aliased.

    Args:
        step: what is learnt and how.
        feed: where batches come from.
        layout: where arrays live; one device by default.
        hyper: numbers of the state that differ from the step's defaults; for `trials(step, count)` each is one number
            for all trials, or `count`.
        seed: of initialisation, data order and every key.
        seeds: of each trial's initialisation and keys, where they are not `seed`; the data order is common.
        apply: "batch", or "epoch": measures add up over an epoch and `apply` runs once at its end (k-means, exact
            full-batch L-BFGS, a covariance).
        plan: how to run; by default chosen by `choose_plan`, the same in every run.
        start: a pytree {"params": ..., other collections} that replaces the initial values (it is copied).
        all_count: that no batch of the feed consists of examples of weight 0 only; lets small steps run quicker.

    Attributes:
        once_an_epoch: whether `apply` runs once an epoch.
        plan: how the steps are run.
        fields: the leaves of a report, and where they stand in its packed row.
        cost: of one update.

    Raises:
        ValueError: a number in `hyper` that nothing reads: named, with the numbers that are read; one out of range.
        TypeError: a Task where a Step is wanted.
    """

    def __init__(
        self,
        step: Step,
        feed: Feed,
        *,
        layout: Layout | None = None,
        hyper: Mapping[str, Any] | None = None,
        seed: int = 0,
        seeds: Sequence[int] | None = None,
        apply: str = "batch",
        plan: RunPlan | None = None,
        start: Mapping[str, PyTree] | None = None,
        all_count: bool = False,
    ):
        require_step(step, "Program", trials=True)
        if apply not in ("batch", "epoch"):
            raise ValueError(f'apply={apply!r}: choose "batch" or "epoch"')
        compile_cache.enable()
        keep_freed_memory()  # before the first array, since jax's threads would get arenas of their own
        self.step, self.feed, self.seed = step, feed, seed
        self.layout = Layout.single() if layout is None else layout
        self.layout.require_batch(feed.batch_size)
        require_host_memory(self.layout)
        self._by_pmap = self.layout.parallel is not None and self.layout.parallel.by_pmap
        self._on_mesh = on_mesh(step, self.layout)
        self.compile_seconds = 0.0
        self.first_call_seconds = 0.0  # wall time of first calls, which trace and compile
        self.once_an_epoch = apply == "epoch"
        self._start = start
        self._all_count = all_count
        self._data = self.layout.put(feed.data)
        self._hyper = starting_numbers(step, hyper or {})
        own_seed = starting_seeds(step, seed, seeds)
        self._programs: dict[Any, Any] = {}

        first = jax.tree.map(lambda x: x[0], feed.block(seed, 0, 1))
        shardings = self.layout.whole(own_seed), self._item_shardings(first), self.layout.whole(self._hyper)
        self._first = self.layout.put((own_seed, first, self._hyper), shardings)
        # With its sharding, or the update would be traced again inside the block: the mesh is part of a traced type.
        item = self.layout.abstract(first, self._item_shardings(first))
        with tracing(self.layout.tracing()):
            self._init = jax.jit(self._initial).trace(self._first[0], self._data, *self._first[1:])
            shapes = self._init.out_info
            self.state_shardings = self.layout.state(shapes)
            self.abstract_state: State = self.layout.abstract(shapes, self.state_shardings)
            self._update = jax.jit(self._one_update)
            self._each = self._one_of_pmap if self._by_pmap else self._update
            traced = self._update.trace(self.abstract_state, self._data, item)
        self.layout.require_used()
        self.fields = fields_of(traced.out_info[1])
        self.cost: Cost = cost_of(traced.jaxpr)
        self._jaxpr = traced.jaxpr
        self._item = item
        self._refuse_unread(hyper or {})
        item_bytes = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(item))
        if plan is None:
            offloaded = self.layout.offloads_optimizer
            plan = choose_plan(self.cost, feed.steps_per_epoch, item_bytes, offloaded=offloaded)
        self.plan = plan

    # ---- what is traced -------------------------------------------------------------------------------------------

    def _initial(self, seed: Array, data: PyTree, item: PyTree, hyper: Mapping[str, Array]) -> State:
        batch = self.feed.take(data, item)
        state = self._on_mesh.init(seed, batch, hyper)
        if self._start is not None:
            state = replace_start(state, self._start)
            if self.step.renew is not None:
                state = self.step.renew(state)
        if self.once_an_epoch:
            shapes = jax.eval_shape(self._on_mesh.measure, state, batch)
            if jax.tree.leaves(shapes.rows):
                raise ValueError('apply="epoch" adds measures up over an epoch, which rows that follow their examples '
                                 '(a recurrent carry) cannot: use apply="batch"')  # fmt: skip
            state = state.replace(extra=state.extra | {"pending": zeros(shapes)})
        return state

    def _one_update(self, state: State, data: PyTree, item: PyTree) -> tuple[State, Report]:
        state = fetched(state, self.state_shardings)
        state, report = self._updated(self._on_mesh, state, constrain_rows(self.feed.take(data, item)))
        return placed(state, self.state_shardings), report

    def _one_of_pmap(self, state: State, data: PyTree, item: PyTree) -> tuple[State, Report]:
        return self._updated(within_pmap(self.step, self.layout), state, self.feed.take(data, item))

    def _updated(self, step: Step, state: State, batch: Mapping[str, Array]) -> tuple[State, Report]:
        if not self.once_an_epoch:
            return update(step, state, batch, sure=self._all_count)
        measured = step.measure(state, batch)
        pending = add(state.extra["pending"], measured)
        last = (state.step + 1) % self.feed.steps_per_epoch == 0
        decided, report = step.apply(state, pending)
        decided = choose(pending.weight > 0, decided, state)
        report = choose(last, report, jax.tree.map(jnp.zeros_like, report))
        pending = choose(last, jax.tree.map(jnp.zeros_like, pending), pending)
        new = choose(last, decided, state)
        return new.replace(step=state.step + 1, extra=new.extra | {"pending": pending}), report

    def _scan(self, state: State, data: PyTree, block: PyTree) -> tuple[State, Array]:
        def body(state: State, item: PyTree) -> tuple[State, Array]:
            state, report = self._each(state, data, item)
            return state, pack(report)

        return jax.lax.scan(body, state, self._arrived(block))

    def _unrolled(self, state: State, data: PyTree, block: PyTree) -> tuple[State, Array]:
        rows, block = [], self._arrived(block)
        for number in range(jax.tree.leaves(block)[0].shape[0]):
            state, report = self._each(state, data, jax.tree.map(lambda x: x[number], block))  # noqa: B023
            rows.append(pack(report))
        return state, jnp.stack(rows)

    def _arrived(self, block: PyTree) -> PyTree:
        """A block that came from the host, of the type that it has on the device."""
        if self._by_pmap:
            return block
        return jax.tree.map(jax.lax.with_sharding_constraint, block, self.layout.block(block, self.feed.batch_size))

    def _looped(self, state: State, rows: Array, data: PyTree, block: PyTree) -> tuple[State, Array]:
        # The position follows from the step, so that a step of the loop uploads nothing.
        number = (state.step % self.feed.steps_per_epoch) % self.plan.steps_per_dispatch
        item = jax.tree.map(lambda x: jax.lax.dynamic_index_in_dim(x, number, keepdims=False), block)
        state, report = self._each(state, data, item)
        return state, jax.lax.dynamic_update_index_in_dim(rows, pack(report), number, 0)

    # ---- what is compiled -----------------------------------------------------------------------------------------

    def _jitted(self, count: int) -> Any:
        """The program for a block of `count` steps, compiled at its first call."""
        key = (self.plan.mode, count)
        if key not in self._programs:
            function: Any = {"loop": self._looped, "scan": self._scan, "unrolled": self._unrolled}[self.plan.mode]
            donated = (0, 1) if self.plan.mode == "loop" else (0,)
            if self._by_pmap:
                self._programs[key] = pmapped(function, donated, self._item, self.feed.batch_size, self.layout)
            else:
                out = (self.state_shardings, self.layout.replicated)
                self._programs[key] = jax.jit(function, donate_argnums=donated, out_shardings=out)
        return self._programs[key]

    def _item_shardings(self, item: PyTree) -> PyTree:
        return self.layout.item(item, self.feed.batch_size)

    def compile(self) -> Any:
        """The program of a whole block, compiled ahead for its memory analysis; a run then finds it in the cache."""
        length = self.steps_in_block(0)
        block = self.block(0, length)
        begun = time.process_time()
        rows = (self._rows(),) if self.plan.mode == "loop" else ()
        count = self.plan.steps_per_dispatch if self.plan.mode == "loop" else length
        with tracing(self.layout.tracing()), compile_cache.keeping(self.layout.keeps_programs):
            compiled = self._jitted(count).lower(self.abstract_state, *rows, self._data, block).compile()
        self.compile_seconds = time.process_time() - begun
        return compiled

    def report(self) -> ProgramReport:
        """Parameters by module, FLOPs, bytes, device memory and compile time, before the first step; print it."""
        from jaxdl.core.summary import program_report

        return program_report(self)

    def _rows(self) -> Array:
        return self.layout.put(np.zeros((self.plan.steps_per_dispatch, self._words), np.uint32))

    @property
    def hyper(self) -> dict[str, Any]:
        """The traced numbers that a state begins with: floats, or lists of one a trial."""
        return {name: value.tolist() for name, value in self._hyper.items()}

    @property
    def jaxpr_text(self) -> str:
        """The update as text, as one device would run it: two programs that compute the same have the same."""
        return str(self._plain_jaxpr)

    @functools.cached_property
    def _plain_jaxpr(self) -> Any:
        if self.layout.mesh.size == 1 and not self.layout.offloads_optimizer:
            return self._jaxpr

        def plain(state: State, data: PyTree, item: PyTree) -> tuple[State, Report]:
            return self._updated(self.step, state, self.feed.take(data, item))

        own = self.abstract_state.replace(extra={n: x for n, x in self.abstract_state.extra.items() if n != "residual"})
        shapes = (own, self._data, self._item)
        one = Layout.single(self.layout.device)  # a type names its mesh, and so does what is traced of it
        return jax.jit(plain).trace(*one.abstract(shapes, one.whole(shapes))).jaxpr

    @property
    def constants(self) -> list[Any]:
        """Arrays inside the update, which its text names by shape only (a task's class weights)."""
        return constants_of(self._plain_jaxpr)

    @property
    def batch(self) -> Mapping[str, jax.ShapeDtypeStruct]:
        """Shapes and dtypes of one batch."""
        return jax.eval_shape(self.feed.take, self._data, self._first[1])

    @property
    def _words(self) -> int:
        return self.fields[-1].stop if self.fields else 0

    # ---- what the loop calls --------------------------------------------------------------------------------------

    def init(self) -> State:
        """The state before the first step, compiled with its shardings: parameters are born where they live."""
        # The traced program is compiled a second way, now that the shardings of its results are known.
        whole = jax.tree.leaves(self.state_shardings)
        arguments = jax.tree.leaves((self._first[0], self._data, *self._first[1:]))
        function = jax.extend.core.jaxpr_as_fun(self._init.jaxpr)
        leaves = jax.jit(function, out_shardings=whole)(*arguments)
        return jax.tree.unflatten(jax.tree.structure(self.state_shardings), leaves)

    def steps_in_block(self, step: int) -> int:
        """How many steps the block that starts at `step` has; blocks start at multiples of K within their epoch."""
        within = step % self.feed.steps_per_epoch
        per = self.plan.steps_per_dispatch
        return min(per - within % per, self.feed.steps_per_epoch - within)

    def block(self, step: int, count: int) -> PyTree:
        """The host's part of steps [step, step + count), for `run`."""
        block = block_here(self.feed, self.layout, self.seed, step, count)
        if self.plan.mode == "loop":
            offset = (step % self.feed.steps_per_epoch) % self.plan.steps_per_dispatch
            spare = self.plan.steps_per_dispatch - offset - count
            if offset or spare:  # the same shape for every block: one program, and the step finds its row
                block = jax.tree.map(lambda x: np.pad(x, [(offset, spare)] + [(0, 0)] * (x.ndim - 1)), block)
        if self._by_pmap:
            return put_split(block, self.feed.batch_size, self.layout)
        if self.layout.uploads_by_call and self.plan.mode != "loop":  # whose block is put once for all its steps
            return block
        return put_block(block, self._item, self.feed.batch_size, self.layout)

    def run(self, state: State, block: PyTree, count: int, step: int) -> tuple[State, Packed]:
        """Train `count` steps from `step` on. Consumes `state`. Returns at once, while the device works.

        Uploads are explicit: a transfer guard refuses any but a block that the call itself takes over.
        """
        looped = self.plan.mode == "loop"
        length = self.plan.steps_per_dispatch if looped else count
        known, begun = (self.plan.mode, length) in self._programs, time.perf_counter()
        program = self._jitted(length)
        free = self.layout.uploads_by_call and not looped
        with contextlib.nullcontext() if free else jax.transfer_guard_host_to_device("disallow"):
            if not looped:
                state, rows = self._call(program, state, self._data, block)
                if not known:
                    self.first_call_seconds += time.perf_counter() - begun
                return state, Packed(rows, count)
            offset = (step % self.feed.steps_per_epoch) % self.plan.steps_per_dispatch
            rows = self._rows()
            for _ in range(count):
                state, rows = self._call(program, state, rows, self._data, block)
                if not known:
                    self.first_call_seconds += time.perf_counter() - begun
                    known = True
            return state, Packed(rows, count, offset)

    def _call(self, program: Any, *arguments: Any) -> tuple[State, Array]:
        """One call; its first one traces, while models see the mesh. Virtual devices take one call at a time."""
        with tracing(self.layout.tracing()), compile_cache.keeping(self.layout.keeps_programs):
            state, rows = program(*arguments)
        return state, jax.block_until_ready(rows) if self.layout.in_step else rows

    def reports(self, words: np.ndarray) -> Report:
        """Packed rows, as `read` returns them -> Report: scalars [count] float32 (with trials [count, trials]), sums
        added up over the rows."""
        scalars: dict[str, Any] = {}
        sums: dict[str, Any] = {}
        for field in self.fields:
            values = words[:, field.start : field.stop].view(field.dtype)
            if field.path[0] == "scalars":
                scalars[field.path[1]] = values.reshape(-1, *field.shape)
            else:
                total = values.sum(0, dtype=np.float64 if values.dtype.kind == "f" else np.int64)
                sums["/".join(field.path[1:])] = total.reshape(field.shape)
        return Report(scalars, sums)

    def copy(self, state: State) -> State:
        """A second state in memory of its own, which survives when the first is donated."""
        if "copy" not in self._programs:
            self._programs["copy"] = jax.jit(
                lambda s: jax.tree.map(jnp.copy, fetched(s, self.state_shardings)), out_shardings=self.state_shardings
            )
        return self._programs["copy"](state)

    def _refuse_unread(self, hyper: Mapping[str, float]) -> None:
        unread = sorted(set(hyper) - set(self.step.reads))
        if unread:
            known = ", ".join(sorted(self.step.reads)) or "none"
            raise ValueError(
                f"hyper has {', '.join(map(repr, unread))}, which neither task nor optimizer reads (they read: "
                f"{known}). A finished optax transformation has its numbers inside: use jaxdl.optim to vary them"
            )
