"""Layout: the one place where shardings enter a program."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxdl.parallel.active import Names, Tracing
from jaxdl.parallel.mesh import BATCH_AXES, Parallel
from jaxdl.parallel.pipeline import Schedule
from jaxdl.parallel.rules import Rules, Table

PyTree = Any

#: What jax calls the host's memory that devices read and write by themselves.
HOST_MEMORY = "pinned_host"


@dataclasses.dataclass(frozen=True, eq=False)
class Layout:
    """A mesh, and what lies where on it. `Layout.single()` is one device with everything on it.

    Attributes:
        mesh: all of `AXES`.
        parallel: what was asked for; None on one device.
        table: ((pattern, logical axes), ...), the model's own, for its parameters.
        planned: nothing is uploaded: `put` gives shapes with their shardings, so that a Program is traced and compiled
            for devices whose memory it would not fit, or that are not at hand. Such a program cannot be run.
    """

    mesh: Mesh
    parallel: Parallel | None = None
    table: Table = ()
    planned: bool = False

    @classmethod
    def single(cls, device: jax.Device | None = None) -> Layout:
        """One device: the given one, or jax's default."""
        device = jax.local_devices()[0] if device is None else device
        return cls(Parallel(data=1).mesh([device]))

    @classmethod
    def of(cls, parallel: Parallel | None, devices: Sequence[jax.Device] | None = None, table: Table = ()) -> Layout:
        """The layout that the user asked for, over these devices (all of them when None)."""
        return cls.single() if parallel is None else cls(parallel.mesh(devices), parallel, tuple(table))

    # ---- what is known of the mesh --------------------------------------------------------------------------------

    @functools.cached_property
    def sizes(self) -> dict[str, int]:
        """Mesh axis -> its size."""
        return dict(self.mesh.shape)

    @property
    def batch_shards(self) -> int:
        """Into how many parts a batch is split."""
        return math.prod(self.sizes[axis] for axis in BATCH_AXES)

    @functools.cached_property
    def hand_axes(self) -> tuple[str, ...]:
        """The axes with whole parameters on each device of them: where sums can be reduced by hand, once an update."""
        return tuple(axis for axis in ("replica", "data") if self.sizes[axis] > 1)

    @property
    def offloads_optimizer(self) -> bool:
        """Whether the optimizer's state lives in the host's memory."""
        return self.parallel is not None and self.parallel.offloads_optimizer

    @functools.cached_property
    def rules(self) -> Rules:
        """Path -> sharding."""
        if self.parallel is None:
            return Rules(self.sizes)
        return Rules(
            self.sizes, self.parallel.rules, self.table, self.parallel.shard_above, self.parallel.splits_optimizer
        )

    @functools.cached_property
    def replicated(self) -> NamedSharding:
        """The sharding of what every device holds whole."""
        return NamedSharding(self.mesh, PartitionSpec())

    @property
    def device(self) -> jax.Device:
        """The first device of the mesh in this process: its kind stands for all."""
        every = self.mesh.devices.flat
        return next((one for one in every if one.process_index == jax.process_index()), every[0])

    @property
    def batch_unit(self) -> int:
        """What a batch must be a multiple of: its parts on devices, times the microbatches of a pipeline."""
        asked, stages = self.parallel, self.sizes["stage"]
        parts = 1 if asked is None or stages == 1 else asked.microbatches or stages
        return self.batch_shards * parts

    def rounded(self, batch_size: int) -> int:
        """The smallest batch of at least this size that divides over the devices."""
        return -(-batch_size // self.batch_unit) * self.batch_unit

    def require_batch(self, batch_size: int) -> None:
        """A sentence where a batch does not divide over the devices.

        Raises:
            ValueError: it does not; the nearest sizes that do are named.
        """
        unit = self.batch_unit
        if batch_size % unit:
            below = batch_size // unit * unit
            near = f"{below} or {below + unit}" if below else str(unit)
            parts = [f"{axis}={self.sizes[axis]}" for axis in BATCH_AXES if self.sizes[axis] > 1]
            if unit > self.batch_shards:
                parts.append(f"microbatches={unit // self.batch_shards}")
            axes = " x ".join(parts)
            raise ValueError(f"batch_size={batch_size} does not divide over {axes}: choose {near}")

    # ---- shardings ------------------------------------------------------------------------------------------------

    def state(self, tree: PyTree) -> PyTree:
        """Shardings of a State, leaf by leaf: the same tree structure, NamedSharding at each leaf.

        Parameters, and their averages, go by the parameters' rules; whatever else ends in the path of a parameter and
        has its shape (moments, sums of gradients) by the optimizer's. Rows that follow their examples, and what each
        device keeps for itself, are split as the batch is. All else is whole everywhere. Where a State holds many
        trials, each leaf has their axis before its own, and that stays whole.

        Raises:
            ValueError: parameters are to be split by a table that the model lacks, or a rule does not fit one, or none
                at all.
        """
        if self.mesh.size == 1 or (self.parallel is not None and self.parallel.by_pmap):
            return self._offloaded(self.whole(tree), tree)
        self._require_table()
        before = (None,) * tree.seed.ndim  # the trial axis
        params = {path: tuple(leaf.shape[len(before) :]) for path, leaf in _paths(tree.params)}
        self.rules.require_matches(tuple(params))
        in_order = sorted(params, key=len, reverse=True)

        def sharding(path: tuple[str, ...], leaf: Any) -> NamedSharding:
            shape = tuple(leaf.shape[len(before) :])
            if path[:2] == ("model_state", "carry"):
                return NamedSharding(self.mesh, PartitionSpec(*before, self._batch_part(shape[0])))
            if path[:2] == ("extra", "residual"):
                return NamedSharding(self.mesh, PartitionSpec(*before, self.hand_axes))
            name = "/".join(path)
            for own in in_order:
                if name.endswith("/" + own) and params[own] == shape:
                    whole = path[0] == "params" or path[:2] == ("extra", "average")
                    spec, _ = self.rules.parameter(own, shape) if whole else self.rules.optimizer(own, shape)
                    return NamedSharding(self.mesh, PartitionSpec(*before, *spec))
            return self.replicated

        flat, structure = jax.tree_util.tree_flatten_with_path(tree)
        shardings = jax.tree.unflatten(structure, [sharding(_names(path), leaf) for path, leaf in flat])
        return self._offloaded(shardings, tree)

    def _offloaded(self, shardings: PyTree, tree: PyTree) -> PyTree:
        """The optimizer's arrays in the host's memory, if asked; to move a scalar would cost more than it frees."""
        if not self.offloads_optimizer:
            return shardings

        def move(sharding: NamedSharding, leaf: Any) -> NamedSharding:
            return sharding.with_memory_kind(HOST_MEMORY) if leaf.ndim else sharding

        return shardings.replace(opt_state=jax.tree.map(move, shardings.opt_state, tree.opt_state))

    def notes(self, params: PyTree) -> tuple[str, ...]:
        """What could not be split as asked, or stays whole, by the path of the parameter."""
        if self.mesh.size == 1:
            return ()
        found: list[str] = []
        for path, leaf in _paths(params):
            _, of_parameter = self.rules.parameter(path, tuple(leaf.shape))
            _, of_optimizer = self.rules.optimizer(path, tuple(leaf.shape))
            found += dict.fromkeys((*of_parameter, *of_optimizer))
        return tuple(found)

    def whole(self, tree: PyTree) -> PyTree:
        """Shardings of what each device has a copy of: resident columns, sums of metrics."""
        return jax.tree.map(lambda _: self.replicated, tree)

    def item(self, tree: PyTree, batch_size: int) -> PyTree:
        """Shardings of one row of a block: leaves [batch, ...] are split, all others whole."""
        return jax.tree.map(lambda x: self._rows(tuple(x.shape), batch_size, 0), tree)

    def block(self, tree: PyTree, batch_size: int) -> PyTree:
        """Shardings of a block: leaves [steps, batch, ...] are split along the batch, all others whole."""
        return jax.tree.map(lambda x: self._rows(tuple(x.shape), batch_size, 1), tree)

    def _rows(self, shape: tuple[int, ...], batch_size: int, axis: int) -> NamedSharding:
        if self.mesh.size == 1 or len(shape) <= axis or shape[axis] != batch_size:
            return self.replicated
        return NamedSharding(self.mesh, PartitionSpec(*[None] * axis, self._batch_part(batch_size)))

    def _batch_part(self, rows: int) -> tuple[str, ...] | None:
        axes = tuple(axis for axis in BATCH_AXES if self.sizes[axis] > 1)
        return axes if axes and rows % self.batch_shards == 0 else None

    @functools.cached_property
    def several(self) -> bool:
        """Whether some of the devices are other processes'."""
        return len({device.process_index for device in self.mesh.devices.flat}) > 1

    def rows_here(self, batch_size: int) -> np.ndarray | None:
        """Which rows of a batch the devices of this process hold, ascending; None where nobody else has devices."""
        if not self.several:
            return None
        held = np.zeros(batch_size, bool)
        parts = self._rows((batch_size,), batch_size, 0).addressable_devices_indices_map((batch_size,))
        for index in parts.values():
            held[index] = True
        return np.flatnonzero(held)

    def tracing(self, manual: Sequence[str] = (), reduce: Sequence[str] = ()) -> Tracing | None:
        """What models see while a program for this mesh is traced; None on one device where nothing is asked of them.

        Args:
            manual: axes that are split by hand there (inside shard_map).
            reduce: those of them over which a batch's statistics are averaged.
        """
        asked = self.parallel
        offload = asked is not None and asked.offloads_activations
        if self.mesh.size == 1 and not offload and (asked is None or asked.remat is None):
            return None

        def constrain(x: jax.Array, names: Names) -> jax.Array:
            spec = self.rules.activation(x.shape, names, manual)
            if spec is None or set(manual) >= {axis for axis, size in self.sizes.items() if size > 1}:
                return x
            return jax.lax.with_sharding_constraint(x, self._here(spec))

        def gradient(tree: PyTree) -> PyTree:
            def place(path: tuple[Any, ...], leaf: jax.Array) -> jax.Array:
                spec = self.gradient_spec(path, tuple(leaf.shape), manual)
                if not any(spec):
                    return leaf
                return jax.lax.with_sharding_constraint(leaf, self._here(spec))

            return jax.tree_util.tree_map_with_path(place, tree)

        def gathered(x: jax.Array) -> jax.Array:
            if set(manual) >= {axis for axis, size in self.sizes.items() if size > 1}:
                return x
            return jax.lax.with_sharding_constraint(x, self._here(PartitionSpec()))

        stages = self.sizes["stage"]
        schedule = None
        if asked is not None and stages > 1:
            schedule = Schedule(stages, asked.repeats, asked.microbatches or stages)
        return Tracing(
            constrain, gathered, gradient, self.mesh, schedule, self.sizes["context"], asked.remat if asked else None,
            self._used, tuple(reduce), offload, asked is None or asked.context_strategy == "ring",
        )  # fmt: skip

    def _here(self, spec: PartitionSpec) -> PartitionSpec | NamedSharding:
        """A sharding where this is traced: inside a shard_map (a pipeline, the island) it is of the mesh there."""
        return NamedSharding(self.mesh, spec) if jax.sharding.get_abstract_mesh().empty else spec

    def gradient_spec(self, path: Sequence[Any], shape: tuple[int, ...], manual: Sequence[str] = ()) -> PartitionSpec:
        """Over which axes, beside those split by hand, the gradient of the parameter at this key path is split."""
        spec, _ = self.rules.optimizer("/".join(_names(tuple(path))), shape)
        return PartitionSpec(*(_without(part, manual) for part in spec))

    @functools.cached_property
    def _used(self) -> set[str]:
        return set()

    def require_used(self) -> None:
        """A sentence where something was asked for that no model has acted on; after tracing.

        Raises:
            ValueError: `stage`, `context`, `expert`, `remat` or `offload` of activations did nothing; `zero1=True` has
                no copies of the parameters to split the optimizer's state over.
        """
        if self.parallel is not None and self.parallel.zero1 and self.mesh.size > 1 and not self.hand_axes:
            raise ValueError(
                "zero1=True splits the optimizer's state over data and replica, and this mesh has neither: leave it "
                "out, or say how many copies there are, Parallel(replica=2, fsdp=-1, zero1=True)"
            )
        asked = {name for name in ("stage", "context", "expert") if self.sizes[name] > 1}
        if self.parallel is not None and self.parallel.remat not in (None, "none"):
            asked.add("remat")
        if self.parallel is not None and self.parallel.offloads_activations:
            asked.add("offload")
        for name in sorted(asked - self._used):
            means = {
                "stage": "runs its layers as a pipeline",
                "context": "splits its sequence, of a length that divides",
                "expert": "has a mixture of experts",
                "remat": "can compute its layers again",
                "offload": "can move its activations to the host",
            }[name]
            if name == "expert":
                raise ValueError(
                    f"Parallel({name}=...) did nothing: this model does not say that it {means}; "
                    'jaxdl.create_model("gpt", experts=8) has one, and so has a model with nn.MixtureOfExperts'
                )
            raise ValueError(
                f"Parallel({name}=...) did nothing: this model does not say that it {means}; models whose layers are "
                "an nn.Stack do (the Transformers of jaxdl.create_model)"
            )

    def abstract(self, tree: PyTree, shardings: PyTree) -> PyTree:
        """Shapes and dtypes with their shardings: what a compiled program expects and a checkpoint restores."""
        return jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), tree, shardings)

    # ---- transfers ------------------------------------------------------------------------------------------------

    def put(self, tree: PyTree, shardings: PyTree = None) -> PyTree:
        """Host arrays -> committed device arrays. The host buffers must not be written again: memory may be shared.

        Args:
            tree: the same on every process.
            shardings: of each leaf; whole on each device when None.
        """
        shardings = self.whole(tree) if shardings is None else shardings
        if self.planned:
            return self.abstract(tree, shardings)
        if self.several:
            return jax.tree.map(_place, tree, shardings)
        return jax.device_put(tree, shardings)

    @functools.cached_property
    def uploads_by_call(self) -> bool:
        """Whether blocks stay on the host for the compiled call to take over, at a sixth of what `put` costs on one CPU
        device (0.05 against 0.3 ms a dispatch). Elsewhere they are put, and travel during the call before."""
        return self.mesh.size == 1 and self.device.platform == "cpu" and not self.planned

    @property
    def in_step(self) -> bool:
        """Whether each call has to end before the next begins.

        Virtual CPU devices share a few threads: with many steps in flight a collective may wait for a device that never
        gets one, and XLA then aborts the process.
        """
        return self.mesh.size > 1 and self.device.platform == "cpu"

    @functools.cached_property
    def keeps_programs(self) -> bool:
        """Whether compiled programs may be kept in the compile cache.

        XLA:CPU orders the collectives of a program that it compiles, and loses that order in one that it reads back:
        a pipeline's or a ring's sends and the gathers beside them may then start in another order on each device, wait
        for each other, and end the process after 40 seconds.
        """
        ring = self.parallel is not None and self.parallel.context_strategy == "ring" and self.sizes["context"] > 1
        return not (self.in_step and (ring or self.sizes["stage"] > 1))

    def _require_table(self) -> None:
        if self.sizes["tensor"] > 1 and not self.table and not (self.parallel and self.parallel.rules):
            raise ValueError(
                f"tensor={self.sizes['tensor']} splits matrices as a model's table says, and this one has none: take a "
                "model of jaxdl.create_model, give it an attribute logical_axes, or say Parallel(rules=...)"
            )


def _without(part: Any, axes: Sequence[str]) -> Any:
    left = tuple(axis for axis in ((part,) if isinstance(part, str) else part or ()) if axis not in axes)
    return left[0] if len(left) == 1 else left or None


def _place(array: Any, sharding: NamedSharding) -> jax.Array:
    """An array that every process has, as one global array: each process uploads what its devices hold."""
    host = np.asarray(array)
    return jax.make_array_from_callback(host.shape, sharding, lambda index: host[index])


def _names(path: tuple[Any, ...]) -> tuple[str, ...]:
    return tuple(str(getattr(key, "name", getattr(key, "key", getattr(key, "idx", key)))) for key in path)


def _paths(tree: PyTree) -> list[tuple[str, Any]]:
    return [("/".join(_names(path)), leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)]
