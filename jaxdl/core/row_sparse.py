"""row_sparse_step: gradient descent in which a table of vectors is read and written only where a batch looks it up."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxdl.core.gradient import TracedOptimizer, gradient_step
from jaxdl.core.state import State
from jaxdl.core.step import Measure, Report, Step
from jaxdl.core.task import Array, Batch, Context, Loss, PyTree, Task, Variables

TABLE = "embedding"  # the parameter beside which a module notes its lookups
Path = tuple[str, ...]


def row_sparse_step(
    task: Task,
    optimizer: optax.GradientTransformation | TracedOptimizer,
    *,
    precision: str = "float32",
    metrics: tuple[Any, ...] = (),
    report_norm: bool = False,
) -> Step:
    """`gradient_step` for models with large `nn.Embed` tables: no gradient and no update of rows that nobody looked up.

    The gradient of a table is kept as pairs (ids, rows), summed over equal ids; the rows of table and optimizer state
    are gathered, updated by the optimizer as a small table, and scattered back. The state is that of `gradient_step`,
    so the two may take turns on one run.

    The result is the dense one where the optimizer leaves a row without gradient as it is: SGD without momentum,
    Adagrad, and everything as long as each table row is looked up in each batch. Others are "lazy": with Adam or
    momentum a row that is not looked up keeps its weights and averages, instead of coasting on them; weight decay, `l1`
    and `l2` act on the rows of the batch only. Clipping by norm sees the same gradient as the dense step.

    A table that is also used whole (`Embed.attend`, "tied" weights) has a gradient in every row: it is trained densely.
    A batch with padding rows (weight 0) makes the program choose between old and new state, which reads whole tables:
    let the batch size divide the examples.

    Args:
        task: of a linen model with `nn.Embed` in it. Lookups inside a scanned stack are trained densely.
        optimizer, precision, metrics, report_norm: as in `gradient_step`.

    Raises:
        TypeError: an optimizer that adds gradients up by itself (optax.MultiSteps).
        ValueError: when the step is traced, the model has no `nn.Embed` that could be trained by rows, or the optimizer
            keeps a state of another shape than the table's for it.
    """
    if isinstance(optimizer, optax.MultiSteps):
        raise TypeError("row_sparse_step: optax.MultiSteps adds up gradients of whole tables; use accumulate= instead")
    options: dict[str, Any] = {"precision": precision, "metrics": metrics, "report_norm": report_norm}
    dense = gradient_step(task, optimizer, **options)
    split = gradient_step(task._replace(loss=_by_rows(task)), optimizer, **options)

    def measure(state: State, batch: Batch) -> Measure:
        shapes = _lookups(split, state, batch)
        tables = {path: _at(state.params, (*path, TABLE)) for path in shapes}
        rows = {
            path: tuple(jnp.zeros((*ids.shape, tables[path].shape[-1]), jnp.float32) for ids in found)
            for path, found in shapes.items()
        }
        params = {"params": _without(state.params, tables), "rows": _nested(rows, "rows")}
        model_state = {**state.model_state, "tables": _nested(tables, TABLE)}
        measured = split.measure(state.replace(params=params, model_state=model_state), batch)
        means = dict(measured.means)
        ids = {path: _at(means["lookups"], (*path, "ids")) for path in tables}
        found = {
            "/".join(path): (ids[path], _at(measured.total["gradient"]["rows"], (*path, "rows"))) for path in tables
        }
        means = {name: value for name, value in means.items() if name not in ("lookups", "tables")}
        total = {**measured.total, "gradient": measured.total["gradient"]["params"]}
        return measured._replace(total=total, means=means, rows={**measured.rows, "lookups": found})

    def apply(state: State, measured: Measure) -> tuple[State, Report]:
        rows = dict(measured.rows)
        places: dict[Path, Array] = {}
        small, gradient = state.params, measured.total["gradient"]
        for name, (ids, vectors) in rows.pop("lookups").items():
            path = tuple(name.split("/")) if name else ()
            table = _at(state.params, (*path, TABLE))
            places[path], summed = _summed(ids, vectors, table)
            small = _with(small, (*path, TABLE), _rows_of(table, places[path]))
            gradient = _with(gradient, (*path, TABLE), summed)
        tx = optimizer.build(state.hyper, state.step) if isinstance(optimizer, TracedOptimizer) else optimizer
        where = state.params
        for path in places:
            where = _with(where, (*path, TABLE), _Place(places[path], _at(state.params, (*path, TABLE)).shape))
        small_opt = _map_optimizer(tx, _gather, state.opt_state, where)
        measured = measured._replace(total={**measured.total, "gradient": gradient}, rows=rows)
        new, report = dense.apply(state.replace(params=small, opt_state=small_opt), measured)
        params = new.params
        for path, at in places.items():
            table = _at(state.params, (*path, TABLE))
            params = _with(params, (*path, TABLE), _put(table, at, _at(new.params, (*path, TABLE))))
        opt_state = _map_optimizer(tx, _scatter, state.opt_state, where, new.opt_state)
        return new.replace(params=params, opt_state=opt_state), report

    return dense._replace(measure=measure, apply=apply)


def _by_rows(task: Task) -> Any:
    """The task's loss as a function of params without tables and of what is added to each lookup."""

    def loss(variables: Variables, batch: Batch, context: Context) -> Loss:
        others = dict(variables)
        given, tables = others.pop("params"), others.pop("tables")
        params = given["params"]
        for path, table in _leaves(tables):
            params = _with(params, path, table)
        return task.loss({"params": params, **others, "lookups": given["rows"]}, batch, context)

    return loss


def _lookups(split: Step, state: State, batch: Batch) -> dict[Path, tuple[Any, ...]]:
    """Module path -> shapes of the ids of each of its lookups, for the tables that are only looked up."""
    params = {"params": state.params, "rows": {}}
    probe = state.replace(params=params, model_state={**state.model_state, "tables": {}})
    seen = jax.eval_shape(split.measure, probe, batch).means.get("lookups", {})
    found: dict[Path, Any] = {}
    tied = set()
    for path, value in _leaves(seen):
        if path[-1] == "tied":
            tied.add(path[:-1])
        elif path[-1] == "ids":
            found[path[:-1]] = value
    found = {path: value for path, value in found.items() if path not in tied}
    if not found:
        raise ValueError(
            "row_sparse_step trains tables by the rows that a batch looks up, and this model has none: use nn.Embed "
            "outside of scanned stacks and without attend(), or jaxdl.gradient_step"
        )
    return found


def _summed(ids: tuple[Array, ...], vectors: tuple[Array, ...], table: Array) -> tuple[Array, Array]:
    """Sorted different ids [n], filled up with ids beyond the table, and the sum of the vectors of each [n, features].

    n is the number of lookups, or of rows in the table where that is smaller.
    """
    length, features = table.shape
    flat = jnp.concatenate([each.reshape(-1).astype(jnp.int32) for each in ids])
    flat = jnp.where(flat < 0, flat + length, flat)  # as jnp.take reads them
    gradients = jnp.concatenate([each.reshape(-1, features) for each in vectors])
    # Ids beyond the table were looked up as NaN; they share one place, which is dropped at the end.
    flat = jnp.where((flat < 0) | (flat >= length), length, flat)
    count = min(flat.shape[0], length + 1)
    places, inverse = jnp.unique(flat, size=count, fill_value=length, return_inverse=True)
    return places, jnp.zeros((count, features), gradients.dtype).at[inverse.reshape(-1)].add(gradients)


def _rows_of(table: Array, places: Array) -> Array:
    return table.at[places].get(mode="fill", fill_value=0)


def _put(table: Array, places: Array, rows: Array) -> Array:
    return table.at[places].set(rows.astype(table.dtype), mode="drop")


class _Place:
    """Which rows of a table are meant; no pytree, so that it is one leaf."""

    def __init__(self, places: Array, shape: tuple[int, ...]):
        self.places, self.shape = places, shape


def _map_optimizer(tx: Any, function: Any, opt_state: PyTree, where: PyTree, *more: PyTree) -> PyTree:
    """`function(leaf, place, *leaves of more)` at each leaf of the optimizer's state that belongs to a table."""
    flat = [jax.tree.leaves(tree) for tree in more]
    owners = optax.tree_utils.tree_map_params(
        tx, lambda leaf, place: place, opt_state, where, transform_non_params=lambda leaf: False
    )
    leaves, structure = jax.tree.flatten(opt_state)
    places = jax.tree.leaves(owners)
    out = []
    for number, (leaf, place) in enumerate(zip(leaves, places, strict=True)):
        rest = [each[number] for each in flat]
        if isinstance(place, _Place):
            out.append(function(leaf, place, *rest))
        else:
            out.append(rest[0] if rest else leaf)
    return jax.tree.unflatten(structure, out)


def _gather(leaf: Array, place: _Place) -> Array:
    if leaf.shape != place.shape:
        raise ValueError(
            f"row_sparse_step: the optimizer keeps an array {leaf.shape} for a table {place.shape}, which has no rows "
            "to gather: use one whose state has the shape of the parameters, such as sgd, adagrad or adam"
        )
    return _rows_of(leaf, place.places)


def _scatter(leaf: Array, place: _Place, rows: Array) -> Array:
    return _put(leaf, place.places, rows)


def _at(tree: Any, path: Path) -> Any:
    for name in path:
        tree = tree[name]
    return tree


def _with(tree: Any, path: Path, value: Any) -> Any:
    """A copy of nested dicts with one entry set."""
    if not path:
        return value
    inner = tree.get(path[0], {}) if isinstance(tree, Mapping) else {}
    return {**tree, path[0]: _with(inner, path[1:], value)}


def _without(tree: Any, paths: Mapping[Path, Any]) -> Any:
    """Nested dicts without the tables of these modules."""

    def strip(tree: Any, path: Path) -> Any:
        if not isinstance(tree, Mapping):
            return tree
        return {k: strip(v, (*path, k)) for k, v in tree.items() if not (k == TABLE and path in paths)}

    return strip(tree, ())


def _nested(values: Mapping[Path, Any], name: str) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for path, value in values.items():
        tree = _with(tree, (*path, name), value)
    return tree


def _leaves(tree: Any, path: Path = ()) -> list[tuple[Path, Any]]:
    """Entries of nested dicts with their paths; a tuple is one entry."""
    if not isinstance(tree, Mapping):
        return [(path, tree)]
    return [leaf for name, value in tree.items() for leaf in _leaves(value, (*path, name))]
