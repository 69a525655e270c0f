"""gradient_step: the usual Step, a task's gradient and an optimizer's update."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import optax

from jaxdl.core.keys import step_key
from jaxdl.core.state import State
from jaxdl.core.step import Alike, Evaluation, Measure, Report, Step, columns_of
from jaxdl.core.task import Array, Batch, Context, Hyper, Loss, PyTree, Task
from jaxdl.parallel import constrain_gradient, reduce_axes

PRECISIONS = ("float32", "bf16")

#: Numbers that the step itself reads, whatever task and optimizer; none is in force unless set.
STEP_HYPER = ("clip_norm", "clip_value", "l1", "l2")


@runtime_checkable
class TracedOptimizer(Protocol):
    """An optimizer whose numbers are traced: `jaxdl.optim.adamw(...)` and its like."""

    @property
    def hyper(self) -> Mapping[str, float]: ...

    @property
    def reads(self) -> frozenset[str]: ...

    def build(self, hyper: Mapping[str, Array], step: Array) -> optax.GradientTransformation: ...

    def rate(self, hyper: Mapping[str, Array], step: Array) -> Array: ...


@runtime_checkable
class FreezingOptimizer(Protocol):
    """An optimizer that leaves some parameters as they are: `jaxdl.optim.groups(...)`."""

    def frozen(self, tree: PyTree) -> PyTree: ...

    def training(self) -> contextlib.AbstractContextManager[Any]: ...


def gradient_step(
    task: Task,
    optimizer: optax.GradientTransformation | optax.MultiSteps | TracedOptimizer,
    *,
    precision: str = "float32",
    metrics: tuple[Any, ...] = (),
    report_norm: bool = False,
) -> Step:
    """The Step of gradient descent: measure is the gradient's sum over examples, apply the optimizer's update.

    Inside apply: divide by the weight, penalties, clip by value, clip by global norm, optimizer. These traced numbers
    take part when `hyper` has them: `l1` (adds l1 * sign(w)), `l2` (adds l2 * w, the gradient of l2/2 * w**2), both on
    leaves of two or more dimensions (kernels and embeddings, not biases and scales); `clip_value` (each element into
    [-v, v]); `clip_norm` (the whole gradient scaled so that its 2-norm is at most the number). The reported loss is the
    data's mean plus the task's `extra` terms, without penalties.

    Args:
        task: what to learn.
        optimizer: `jaxdl.optim.NAME(...)`, whose numbers are traced leaves of `state.hyper`, or a finished optax
            transformation, which trains as it is. It is given the gradient, the parameters and `value=` the loss.
        precision: "float32", or "bf16": parameters and floating inputs are cast to bfloat16 for the model, while master
            weights, loss, weights, metrics and the optimizer stay float32.
        metrics: metrics of the training batches themselves, summed over an epoch ("train:accuracy"); their states must
            merge by sums (`reduce == "sum"`).
        report_norm: adds "gradient_norm", the 2-norm before clipping, to the report.

    Raises:
        ValueError: an unknown precision; a training metric that does not merge by sums.
        TypeError: an optimizer that evaluates the loss again (line searches, SAM with `opaque_mode`): named.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"precision={precision!r}: choose one of {', '.join(map(repr, PRECISIONS))}")
    if not isinstance(task, Task):
        raise TypeError(f"task is a {type(task).__name__}: for a model, jaxdl.tasks.classification(model)")
    names = [metric.name for metric in metrics]
    if len(set(names)) < len(names):
        raise ValueError(f"training metrics need different names; these are {names}")
    for metric in metrics:
        if metric.reduce != "sum":
            raise ValueError(
                f"metric {metric.name!r} cannot be summed over training batches (it merges by {metric.reduce!r}): "
                "name it in metrics=, which are computed on the validation data"
            )
    if isinstance(optimizer, optax.MultiSteps):
        optimizer = optimizer.gradient_transformation()
    if not isinstance(optimizer, TracedOptimizer) and not isinstance(optimizer, optax.GradientTransformation):
        raise TypeError(
            f"optimizer is a {type(optimizer).__name__}: pass jaxdl.optim.adamw(...) or a finished optax "
            "transformation such as optax.adamw(1e-3)"
        )
    traced: TracedOptimizer | None = optimizer if isinstance(optimizer, TracedOptimizer) else None
    freezing = optimizer if isinstance(optimizer, FreezingOptimizer) else None
    reads: set[str] = set(traced.reads if traced else ()) | set(STEP_HYPER)

    def transformation(hyper: Mapping[str, Array], step: Array) -> optax.GradientTransformationExtraArgs:
        tx = traced.build(hyper, step) if traced else optimizer
        return optax.with_extra_args_support(tx)

    def context(state: State, batch: Batch, train: bool) -> Context:
        def key(name: str) -> jax.Array:
            return step_key(state.seed, name, state.step, batch.get("part"))

        # A part of padding alone counts as whole: masked statistics of no rows would be 0 / 0, and 0 * nan is nan.
        counts = (batch["weight"] > 0).any()
        if axes := reduce_axes():  # the batch is that of all devices
            counts = jax.lax.pmax(counts.astype(jnp.int32), axes) > 0
        weight = jnp.where(counts, batch["weight"], jnp.ones_like(batch["weight"]))
        return Context(train, key, state.step, Hyper(state.hyper, reads), weight)

    def objective(params: PyTree, state: State, batch: Batch, train: bool) -> tuple[Array, tuple[Array, Array, Loss]]:
        inputs = {name: value for name, value in batch.items() if name not in ("weight", "part")}
        if precision == "bf16":
            params, inputs = _cast(params), _halved(inputs)
        with _columns(inputs), freezing.training() if freezing and train else contextlib.nullcontext():
            if freezing and train:
                held = freezing.frozen(params)
                params = jax.tree.map(lambda w, fixed: jax.lax.stop_gradient(w) if fixed else w, params, held)
            loss = task.loss({"params": params, **state.model_state}, inputs, context(state, batch, train))
        check_loss(loss, batch)
        rows = batch["weight"].reshape(batch["weight"].shape + (1,) * (loss.value.ndim - 1))
        weights = jnp.broadcast_to(rows, loss.value.shape)
        if loss.weight is not None:
            weights = weights * loss.weight.astype(jnp.float32)
        value = jnp.where(weights > 0, loss.value.astype(jnp.float32) * weights, 0.0)
        weight = weights.sum()
        total = value.sum()
        for term in loss.extra.values():
            total = total + term.astype(jnp.float32) * weight
        return total, (weight, weights, loss)

    def init(seed: Array, batch: Batch, hyper: Mapping[str, Array]) -> State:
        inputs = {name: value for name, value in batch.items() if name not in ("weight", "part")}
        with _columns(inputs):
            variables = dict(task.init(step_key(seed, "init", jnp.int32(0)), inputs))
        params = variables.pop("params")
        return State(
            step=jnp.int32(0),
            params=params,
            model_state=variables,
            opt_state=transformation(hyper, jnp.int32(0)).init(params),
            hyper=dict(hyper),
            seed=jnp.uint32(seed),
            feed=(),
            extra={},
        )

    def renew(state: State) -> State:
        return state.replace(opt_state=transformation(state.hyper, jnp.int32(0)).init(state.params))

    def measure(state: State, batch: Batch) -> Measure:
        (total, (weight, weights, loss)), gradient = jax.value_and_grad(objective, has_aux=True)(
            state.params, state, batch, True
        )
        gradient = constrain_gradient(gradient)
        new_state = {name: state.model_state[name] for name in state.model_state}
        for name, value in loss.model_state.items():
            old = state.model_state.get(name)
            new_state[name] = value if old is None else jax.tree.map(lambda n, o: n.astype(o.dtype), value, old)
            if freezing and old is not None and name != "carry":
                new_state[name] = jax.tree.map(
                    lambda n, o, fixed: o if fixed else n, new_state[name], old, freezing.frozen(old)
                )
        rows = {"carry": new_state.pop("carry")} if "carry" in new_state else {}
        preds, target = preds_and_target(loss.outputs, batch)
        given = {"preds": _float32(preds), "target": target, "weight": metric_weights(loss.outputs, batch, weights)}
        states = {m.name: m.update(m.init(), **given, **columns_of(m, batch)) for m in metrics}
        shown = {name: value.astype(jnp.float32) * weight for name, value in loss.shown.items()}
        sums = {"gradient": gradient, "loss": total, "metrics": states, "shown": shown}
        return Measure(sums, weight, new_state, rows, Alike(loss.weight is None))

    def apply(state: State, measured: Measure) -> tuple[State, Report]:
        # The product with an inverse: a division of every element of the gradient is dearer.
        scale = 1.0 / jnp.where(measured.weight > 0, measured.weight, 1.0)
        gradient = jax.tree.map(lambda g: g * scale.astype(g.dtype), measured.total["gradient"])
        loss = measured.total["loss"] * scale
        scalars = {"loss": loss, "weight": measured.weight}
        scalars |= {f"shown/{name}": value * scale for name, value in measured.total["shown"].items()}
        held = freezing.frozen(state.params) if freezing else None
        gradient, norm = regularise(gradient, state.params, state.hyper, report_norm, held)
        if report_norm:
            scalars["gradient_norm"] = norm
        tx = transformation(state.hyper, state.step)
        try:
            updates, opt_state = optimizer_update(tx, gradient, state, loss)
        except (TypeError, ValueError) as error:
            if "value_fn" in str(error) or "grad_fn" in str(error):
                name = str(error).split(".")[0] if "<locals>" in str(error) else type(state.opt_state).__name__
                raise TypeError(
                    f"{name} evaluates the loss again inside its update, which a step measured in "
                    "parts and on many devices cannot: use jaxdl.lbfgs_step(task) for L-BFGS, or an optimizer that "
                    "needs the gradient only"
                ) from error
            raise
        params = optax.apply_updates(state.params, updates)
        model_state = dict(measured.means) | dict(measured.rows)
        state = state.replace(params=params, model_state=model_state, opt_state=opt_state)
        return state, Report(scalars, dict(measured.total["metrics"]))

    def evaluate(state: State, batch: Batch) -> Evaluation:
        total, (weight, weights, loss) = objective(state.params, state, batch, False)
        preds, target = preds_and_target(loss.outputs, batch)
        return Evaluation(total, weight, _float32(preds), target, metric_weights(loss.outputs, batch, weights))

    def predict(state: State, batch: Batch) -> PyTree:
        inputs = {name: value for name, value in batch.items() if name not in ("weight", "part")}
        params = state.params
        if precision == "bf16":
            params, inputs = _cast(params), _halved(inputs)
        with _columns(inputs):
            return _float32(task.predict({"params": params, **state.model_state}, inputs))

    return Step(
        init=init,
        measure=measure,
        apply=apply,
        evaluate=evaluate,
        predict=predict,
        metrics=tuple(task.metrics),
        hyper=dict(traced.hyper) if traced else {},
        reads=reads,
        whole_batch=task.whole_batch,
        renew=renew,
        logical_axes=task.logical_axes,
        rate=traced.rate if traced else None,
    )


def optimizer_update(tx: Any, gradient: PyTree, state: State, loss: Array) -> tuple[PyTree, PyTree]:
    """The optimizer's update, with `value=` the loss where it takes one."""
    # optax mixes dtypes (0.9 ** count); a user's strict promotion is not meant for it.
    with jax.numpy_dtype_promotion("standard"):
        try:
            return tx.update(gradient, state.opt_state, state.params, value=loss)
        except TypeError as error:
            if "unexpected keyword argument 'value'" not in str(error):
                raise
            return tx.update(gradient, state.opt_state, state.params)


def regularise(
    gradient: PyTree, params: PyTree, hyper: Mapping[str, Array], want_norm: bool, frozen: PyTree = None
) -> tuple[PyTree, Array]:
    """Penalties, then clipping, for the numbers that `hyper` has; and the norm before clipping (0 when unused).

    Leaves that are `frozen` take part in neither: their gradient is 0.
    """
    for name, slope in (("l1", jnp.sign), ("l2", lambda w: w)):
        if name in hyper:
            factor = hyper[name]
            gradient = jax.tree.map(
                lambda g, w: g + (factor * slope(w)).astype(g.dtype) if w.ndim > 1 else g,  # noqa: B023
                gradient,
                params,
            )
    if frozen is not None:
        gradient = jax.tree.map(lambda g, fixed: jnp.zeros_like(g) if fixed else g, gradient, frozen)
    norm = global_norm(gradient) if want_norm or "clip_norm" in hyper else jnp.float32(0)
    if "clip_value" in hyper:
        limit = hyper["clip_value"]
        gradient = jax.tree.map(lambda g: jnp.clip(g, -limit, limit), gradient)
    if "clip_norm" in hyper:
        length = global_norm(gradient) if "clip_value" in hyper else norm
        factor = jnp.minimum(1.0, hyper["clip_norm"] / jnp.maximum(length, 1e-30))
        gradient = jax.tree.map(lambda g: g * factor.astype(g.dtype), gradient)
    return gradient, norm


def global_norm(tree: PyTree) -> Array:
    """The 2-norm of all leaves together: [] float32."""
    return jnp.sqrt(sum((jnp.square(x.astype(jnp.float32)).sum() for x in jax.tree.leaves(tree)), jnp.float32(0)))


def metric_weights(outputs: PyTree, batch: Batch, weights: Array) -> Array:
    """What metrics weigh by: the loss's weights, or the examples' own times the "weight" of such a mapping."""
    if not (isinstance(outputs, Mapping) and {"preds", "target", "weight"} <= set(outputs)):
        return weights
    own = outputs["weight"].astype(jnp.float32)
    return own * batch["weight"].reshape(batch["weight"].shape + (1,) * (own.ndim - 1))


def preds_and_target(outputs: PyTree, batch: Batch) -> tuple[PyTree, PyTree]:
    """What metrics compare: a mapping with "preds" and "target" says so itself, else the target is `batch["y"]`."""
    if isinstance(outputs, Mapping) and {"preds", "target"} <= set(outputs):
        return outputs["preds"], outputs["target"]
    return outputs, batch.get("y")


def check_loss(loss: Loss, batch: Batch) -> None:
    """Refuse, at trace time, a loss that is no weighted sum over the batch's examples."""
    rows = batch["weight"].shape[0]
    if loss.value.ndim == 0 or loss.value.shape[0] != rows:
        raise ValueError(
            f"the task's loss has value of shape {list(loss.value.shape)} for a batch of {rows} examples: "
            "return one number per example, [batch, ...], not their mean"
        )
    if loss.weight is not None and loss.weight.shape != loss.value.shape:
        raise ValueError(
            f"the task's loss has weight of shape {list(loss.weight.shape)} beside value of shape "
            f"{list(loss.value.shape)}: both must have the same shape (or None when all count alike)"
        )


@contextlib.contextmanager
def _columns(inputs: Batch) -> Iterator[None]:
    """A sentence where a task reads a column that the data lack."""
    try:
        yield
    except KeyError as error:
        if error.args[:1] in (("x",), ("y",)) and error.args[0] not in inputs:
            raise ValueError(
                f"the task reads the column {error.args[0]!r}; the data have {', '.join(sorted(inputs)) or 'none'}"
            ) from error
        raise


def _halved(inputs: Batch) -> dict[str, Any]:
    """Floating columns as bfloat16, but for the targets, which losses compare with in float32."""
    return {name: value if name in ("y", "boxes") else _cast(value) for name, value in inputs.items()}


def _cast(tree: PyTree) -> PyTree:
    return jax.tree.map(lambda x: x.astype(jnp.bfloat16) if jnp.issubdtype(x.dtype, jnp.floating) else x, tree)


def _float32(tree: PyTree) -> PyTree:
    return jax.tree.map(lambda x: x.astype(jnp.float32) if jnp.issubdtype(x.dtype, jnp.floating) else x, tree)
