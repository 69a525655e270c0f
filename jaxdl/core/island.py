"""Measuring by hand: each device measures its part of a batch, and one reduce adds the parts up.

XLA by itself would reduce inside the loop over microbatches, and knows no compression. So where a batch is accumulated
or passes a pipeline, where groups of devices hold copies of the parameters (MiCS, data beside fsdp), and where
gradients are compressed, `measure` runs in a shard_map that is manual over the axes with whole parameters ("replica",
"data") and automatic over all others.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from jaxdl.core.state import State
from jaxdl.core.step import Array, Measure, Report, Step
from jaxdl.core.task import Batch, PyTree
from jaxdl.core.trials import trials
from jaxdl.parallel import Layout, constrain_gradient, tracing
from jaxdl.parallel.compress import LEAST, sum_bf16, sum_int8


def on_mesh(step: Step, layout: Layout) -> Step:
    """The step as it runs on this mesh: measured by hand where that is needed, its gradient where its optimizer lives.

    Raises:
        ValueError: a batch that must stay whole would be split by hand; compression of what is no gradient, or of what
            is split already.
    """
    asked = layout.parallel
    if asked is None or layout.mesh.size == 1:
        return step
    if step.single is not None:  # vmap outside: the sums of all trials still are one reduce
        return trials(on_mesh(step.single, layout), step.trials)
    if asked.compress is not None:
        _require_sums(asked.compress, layout)
    if asked.by_pmap:
        _require_parts(step, 'parallel="pmap"')
        return with_residual(step, layout)
    if layout.sizes["stage"] > 1:
        _require_parts(step, "a pipeline")
    grouped = layout.sizes["replica"] > 1 or layout.sizes["stage"] > 1  # XLA would reduce in each turn of a pipeline
    # Beside fsdp, XLA would lay its gathers and reduces over "data", too, and send a sixth more.
    grouped |= layout.sizes["fsdp"] > 1 and not step.whole_batch
    if layout.hand_axes and (step.parts > 1 or asked.compress is not None or grouped):
        _require_parts(step, "compress=" if asked.compress else 'a replica axis ("mics")')
        step = _by_hand(step, layout)
    return step


def _by_hand(step: Step, layout: Layout) -> Step:
    axes, rows = layout.hand_axes, PartitionSpec(layout.hand_axes)
    compress = layout.parallel.compress if layout.parallel else None

    def measure(state: State, batch: Batch) -> Measure:
        alike: list[Any] = []

        def part(state: State, batch: Batch) -> tuple[PyTree, ...]:
            # Between microbatches nothing is exchanged; a whole batch has its statistics over all devices.
            with tracing(layout.tracing(manual=axes, reduce=() if step.parts > 1 else axes)):
                measured = step.measure(state, numbered(batch, axes, layout))
            measured = reduced(measured, state, axes, _count(layout), compress, layout)
            alike.append(measured.alike)
            return tuple(measured)[:4]

        whole = PartitionSpec()
        in_specs = (
            map_rows(lambda _: rows, jax.tree.map(lambda _: whole, state)),
            {name: whole if name == "part" else rows for name in batch},
        )
        parts = jax.shard_map(
            part, mesh=layout.mesh, in_specs=in_specs, out_specs=(whole, whole, whole, rows), axis_names=set(axes),
            check_vma=False,
        )(state, dict(batch))  # fmt: skip
        total, weight, means, rows_of_all = parts
        if isinstance(total, Mapping) and "gradient" in total:
            total = {**total, "gradient": constrain_gradient(total["gradient"])}
        return Measure(total, weight, means, rows_of_all, alike[-1])

    return with_residual(step._replace(measure=measure), layout)


def numbered(batch: Batch, axes: tuple[str, ...], layout: Layout) -> dict[str, Any]:
    """The batch with its part number, so that dropout draws anew on each device."""
    before = jnp.int32(batch.get("part", 0)) * jnp.int32(_count(layout))
    return dict(batch) | {"part": before + jax.lax.axis_index(axes).astype(jnp.int32)}


def reduced(
    measured: Measure, state: State, axes: tuple[str, ...], count: int, compress: str | None, layout: Layout
) -> Measure:
    """The measure of all devices from that of each: one reduce; inside shard_map or pmap."""
    total, residual = measured.total, {}
    if compress is not None:
        if not (isinstance(total, Mapping) and "gradient" in total):
            raise ValueError(f"compress={compress!r} is for gradients, and this step measures something else")
        flat, structure = jax.tree_util.tree_flatten_with_path(total["gradient"])
        summed = []
        for path, leaf in flat:
            name = jax.tree_util.keystr(path)
            if leaf.size < LEAST:
                summed.append(jax.lax.psum(leaf, axes))
            elif compress == "bf16":
                summed.append(_sum_parts(leaf, layout.gradient_spec(path, leaf.shape, axes), axes, count))
            else:
                leaf, residual[name] = sum_int8(leaf, state.extra["residual"][name][0], axes, count)
                summed.append(leaf)
        rest = {name: value for name, value in total.items() if name != "gradient"}
        total = jax.lax.psum(rest, axes) | {"gradient": jax.tree.unflatten(structure, summed)}
        weight = jax.lax.psum(measured.weight, axes)
    else:
        total, weight = jax.lax.psum((total, measured.weight), axes)
    share = measured.weight / jnp.where(weight > 0, weight, 1.0)

    def mean(x: Array) -> Array:
        if not jnp.issubdtype(x.dtype, jnp.floating):
            return jax.lax.pmax(x, axes)
        return jax.lax.psum(x * share.astype(x.dtype), axes)

    rows = measured.rows
    if residual:
        rows = dict(rows or {}) | {"residual": {name: value[None] for name, value in residual.items()}}
    return Measure(total, weight, jax.tree.map(mean, measured.means), rows, measured.alike)


def _sum_parts(x: Array, spec: PartitionSpec, axes: tuple[str, ...], count: int) -> Array:
    """`sum_bf16`, each device for its part of an array that is split over other axes as `spec` says."""
    own = {axis for part in spec if part is not None for axis in ((part,) if isinstance(part, str) else part)}
    if not own:
        return sum_bf16(x, axes, count)
    return jax.shard_map(
        lambda part: sum_bf16(part, axes, count), mesh=jax.sharding.get_abstract_mesh(), in_specs=spec, out_specs=spec,
        axis_names=own, check_vma=False,
    )(x)  # fmt: skip


def with_residual(step: Step, layout: Layout) -> Step:
    """Keeps what int8 sums owe in `state.extra["residual"]`: [devices, ...] for each large gradient."""
    if layout.parallel is None or layout.parallel.compress != "int8":
        return step

    def init(seed: Array, batch: Batch, hyper: Mapping[str, Array]) -> State:
        state = step.init(seed, batch, hyper)
        owed = {
            jax.tree_util.keystr(path): jnp.zeros((_count(layout), *leaf.shape), leaf.dtype)
            for path, leaf in jax.tree_util.tree_leaves_with_path(state.params)
            if leaf.size >= LEAST
        }
        return state.replace(extra=state.extra | {"residual": owed})

    def apply(state: State, measured: Measure) -> tuple[State, Report]:
        rows = dict(measured.rows)
        owed = rows.pop("residual", state.extra["residual"])
        new, report = step.apply(state, measured._replace(rows=rows))
        return new.replace(extra=new.extra | {"residual": owed}), report

    return step._replace(init=init, apply=apply)


def map_rows(function: Any, state: State) -> State:
    """`function` applied to what is split with the examples of a batch, or kept by each device."""
    extra, collections = dict(state.extra), state.model_state
    if "residual" in extra:
        extra["residual"] = jax.tree.map(function, extra["residual"])
    if isinstance(collections, Mapping) and "carry" in collections:
        collections = {**collections, "carry": jax.tree.map(function, collections["carry"])}
    return state.replace(extra=extra, model_state=collections)


def _count(layout: Layout) -> int:
    return math.prod(layout.sizes[axis] for axis in layout.hand_axes)


def _require_sums(compress: str, layout: Layout) -> None:
    others = [axis for axis, size in layout.sizes.items() if size > 1 and axis not in layout.hand_axes]
    good = ("fsdp", "tensor") if compress == "bf16" else ()
    if not layout.hand_axes or any(axis not in good for axis in others):
        beside = ", beside fsdp and tensor if need be" if good else ""
        raise ValueError(
            f"compress={compress!r} sums gradients over data and replica axes{beside}, and this mesh splits them over "
            f'{", ".join(others)}, too: use "ddp", "zero1" or "pmap" with it'
        )


def _require_parts(step: Step, asked: str) -> None:
    if step.whole_batch:
        raise ValueError(
            f"{asked} measures a batch in parts, and this task's examples depend on each other (whole_batch=True): use "
            '"ddp", "zero1" or "fsdp" without compress='
        )
