"""Tasks: what to learn, from a network and a loss. Each builder returns a `Task` for `jaxdl.fit`.

Every task is a weighted sum over its elements (examples, tokens, pixels), so the mean loss is the true one whatever the
split of a batch. What all of them share:

- A batch has "x" and "y" (language models may do with "x"). uint8 inputs become float32 / 255; float inputs and
  parameters may be bfloat16: losses are computed in float32.
- `hyper` numbers "dropout" (when the module has an attribute of that name) and "label_smoothing" override the static
  ones.
- A module with a `mask` argument gets `context.weight > 0`, so that padding rows stay out of batch statistics.
- Collections other than "params" change in training only.
"""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxdl import nn
from jaxdl.core.task import Array, Batch, Context, Key, Loss, PyTree, Task, Variables
from jaxdl.nn.networks import Network, function_network, linen_network, nnx_network
from jaxdl.nn.precision import widened
from jaxdl.tasks_detection import detection as detection
from jaxdl.tasks_labels import (
    check_factor,
    check_fraction,
    class_numbers,
    class_weights_of,
    cross_entropy,
    masked_loss,
    smoothing_of,
)
from jaxdl.tasks_network import init_of, run_network
from jaxdl.tasks_translation import translation as translation
from jaxdl.tasks_two_tower import two_tower as two_tower
from jaxdl.tasks_vae import vae as vae

LossFunction = Callable[[Array, Array], Array]


def classification(
    model: Any,
    *,
    label_smoothing: float = 0.0,
    class_weight: Sequence[float] | Mapping[int, float] | None = None,
    aux_weight: float = 0.3,
) -> Task:
    """Which of several classes: softmax cross-entropy.

    Args:
        model: a linen module; [batch, ...] -> logits [batch, classes], or, in training, {"logits", "aux1", ...}.
        label_smoothing: share of the target that is spread over all classes, in training only; the evaluated loss
            is the plain one, so that trials with different smoothing compare. `hyper` "label_smoothing" overrides it.
        class_weight: what each class counts, by class number; a mapping leaves the others at 1. It multiplies the
            weights, so the loss is sum(w * value) / sum(w), in training and evaluation.
        aux_weight: what the loss of each auxiliary head counts, in training.

    Batch:
        x: what the model takes. y: [batch] integers in [0, classes).

    Returns:
        A Task; outputs are logits [batch, classes], predictions probabilities float32 [batch, classes].
    """
    from jaxdl.metrics import Accuracy

    check_fraction("label_smoothing", label_smoothing)
    check_factor("aux_weight", aux_weight)
    network = linen_network(model)

    def loss(variables: Variables, batch: Batch, context: Context) -> Loss:
        outputs, state = run_network(network, variables, batch["x"], context)
        labels = class_numbers(batch["y"], "classification")
        logits, value = cross_entropy(outputs, labels, smoothing_of(context, label_smoothing), aux_weight)
        weight = None if class_weight is None else class_weights_of(class_weight, logits.shape[-1])[labels]
        return Loss(value, weight, widened(logits), state)

    def predict(variables: Variables, batch: Batch) -> Array:
        logits, _ = run_network(network, variables, batch["x"], None)
        return jax.nn.softmax(widened(logits), axis=-1)

    return Task(init_of(network), loss, predict, metrics=(Accuracy(),), logical_axes=network.logical_axes)


def regression(model: Any, *, loss: str | LossFunction = "squared") -> Task:
    """One or several numbers per example.

    Args:
        model: a linen module; [batch, ...] -> [batch, targets] or [batch].
        loss: "squared", "absolute", "huber" (delta 1), or a function (predictions, targets) -> per-number values.

    Batch:
        x: what the model takes. y: [batch] or [batch, targets], floats or integers. A last axis of length 1 is dropped
        from predictions and targets, so [batch, 1] and [batch] go together; several targets count one each.

    Returns:
        A Task; predictions are float32 [batch] or [batch, targets].
    """
    kind = _chosen_loss(loss, ("squared", "absolute", "huber"))
    network = linen_network(model)
    return _supervised(network, kind)


def language_model(
    model: Any,
    *,
    pad: int | None = None,
    label_smoothing: float = 0.0,
    balance: float = 0.01,
    router_z: float = 0.001,
) -> Task:
    """The next token, or a token per position: softmax cross-entropy, averaged over the tokens that are no padding.

    Args:
        model: a linen module; integer tokens [batch, T] -> logits [batch, T, vocabulary], or, in training, a mapping
            {"logits", "balance", "router_z", "dropped"}, as `gpt` with `experts` gives.
        pad: the token number of padding: it is never a target. None: nothing is padding.
        label_smoothing: as in `classification`.
        balance, router_z: factors of a mixture's load-balance loss and router z-loss, which training adds to the loss;
            `hyper` "balance" and "router_z" override them. The history has both without their factors, and the share
            of choices that found no place, as "train:balance", "train:router_z" and "train:dropped".

    Batch:
        x: [batch, T] integers. Without "y" the targets are x moved by one: the model reads x[:, :-1]. With "y"
        [batch, T] they are y, and the model reads all of x. "mask" [batch, T] (bool or 0/1), where given, says which
        positions of y (without y: of x) count as targets. "start" [batch] bool, where given (`TokenStreams`): rows that
        begin a text; where the model keeps a carry from batch to batch, these rows start from zeros.

    Returns:
        A Task; outputs are {"preds": logits, "target": tokens}, predictions probabilities float32
        [batch, T, vocabulary] for all of x, the last of which is the token after the end.
    """
    from jaxdl.metrics import Accuracy

    check_fraction("label_smoothing", label_smoothing)
    check_factor("balance", balance)
    check_factor("router_z", router_z)
    network = linen_network(model)

    def readable(tokens: Array) -> Array:
        tokens = class_numbers(tokens, "language_model", "x")
        return tokens if pad is None or pad >= 0 else jnp.where(tokens == pad, jnp.zeros_like(tokens), tokens)

    def loss(variables: Variables, batch: Batch, context: Context) -> Loss:
        shifted = "y" not in batch
        if shifted and batch["x"].ndim == 2 and batch["x"].shape[1] < 2:
            raise ValueError(f"language_model: x {batch['x'].shape} has no next token; give at least two per row, or y")
        inputs, targets = (batch["x"][:, :-1], batch["x"][:, 1:]) if shifted else (batch["x"], batch["y"])
        if context.train and "carry" in variables:
            if "start" not in batch:
                warnings.warn(
                    "the model keeps a carry from batch to batch, and the data do not say which rows go on where the "
                    "batch before ended: rows of a shuffled dataset do not. Feed jaxdl.data.TokenStreams, add a column "
                    '"start" (True where a row begins a text), or build the model with stateful=False',
                    UserWarning,
                    stacklevel=2,
                )
            else:
                variables = {**variables, "carry": nn.clear_carry(variables["carry"], batch["start"])}
        outputs, state = run_network(network, variables, readable(inputs), context)
        logits, extra, shown = _with_experts(outputs, context, {"balance": balance, "router_z": router_z})
        targets = class_numbers(targets, "language_model")
        counted = None if pad is None else targets != pad
        if "mask" in batch:
            mask = batch["mask"][:, 1:] if shifted else batch["mask"]
            counted = mask.astype(jnp.bool_) if counted is None else counted & mask.astype(jnp.bool_)
        found = masked_loss(logits, targets, counted, smoothing_of(context, label_smoothing), state)
        return found._replace(extra=extra, shown=shown)

    def predict(variables: Variables, batch: Batch) -> Array:
        logits, _ = run_network(network, variables, readable(batch["x"]), None)
        return jax.nn.softmax(widened(logits), axis=-1)

    def init(key: Key, batch: Batch) -> Variables:
        # as the loss reads it: a model of so many positions trains on rows that are one token longer
        shifted = "y" not in batch and batch["x"].ndim == 2 and batch["x"].shape[1] > 1
        return network.init(key, readable(batch["x"][:, :-1] if shifted else batch["x"]))

    return Task(init, loss, predict, metrics=(Accuracy(),), logical_axes=network.logical_axes)


def segmentation(
    model: Any,
    *,
    ignore_index: int | None = 255,
    label_smoothing: float = 0.0,
    class_weight: Sequence[float] | Mapping[int, float] | None = None,
    aux_weight: float = 0.4,
) -> Task:
    """The class of every pixel: softmax cross-entropy, averaged over the pixels that are labelled.

    Args:
        model: a linen module; images [batch, height, width, channels] -> logits [batch, height, width, classes], or,
            in training, {"logits", "aux1", ...}, all of that shape.
        ignore_index: the label of pixels that do not count (in loss and metrics); None: all count.
        label_smoothing: as in `classification`.
        class_weight: as in `classification`, for pixels. Metrics count pixels all alike: a mean IoU of weighted pixels
            would be none.
        aux_weight: what the loss of each auxiliary head counts, in training.

    Batch:
        x: images. y: [batch, height, width] integers (uint8 masks are fine).

    Returns:
        A Task; outputs are {"preds": logits, "target": y}, predictions class numbers int32 [batch, height, width].
        Its metrics are the accuracy of pixels and, where the model has an attribute num_classes, their mean IoU.
    """
    from jaxdl.metrics import Accuracy, MeanIoU

    check_fraction("label_smoothing", label_smoothing)
    check_factor("aux_weight", aux_weight)
    network = linen_network(model)

    def loss(variables: Variables, batch: Batch, context: Context) -> Loss:
        outputs, state = run_network(network, variables, batch["x"], context)
        labels = class_numbers(batch["y"], "segmentation")
        counted = None if ignore_index is None else labels != ignore_index
        found = masked_loss(outputs, labels, counted, smoothing_of(context, label_smoothing), state, aux_weight)
        if class_weight is None:
            return found
        table = class_weights_of(class_weight, found.outputs["preds"].shape[-1])
        plain = jnp.ones(labels.shape, jnp.float32) if found.weight is None else found.weight
        seen = {**found.outputs, "weight": plain}
        return found._replace(weight=plain * table[found.outputs["target"]], outputs=seen)

    def predict(variables: Variables, batch: Batch) -> Array:
        logits, _ = run_network(network, variables, batch["x"], None)
        return jnp.argmax(logits, axis=-1).astype(jnp.int32)

    classes: Any = getattr(model, "num_classes", None)
    known = isinstance(classes, int) and classes >= 2
    usual = (Accuracy(), *([MeanIoU(classes, ignore_index=ignore_index)] if known else []))
    return Task(init_of(network), loss, predict, metrics=usual, logical_axes=network.logical_axes)


def from_functions(
    *,
    init: Callable[..., PyTree],
    apply: Callable[..., PyTree],
    loss: str | LossFunction,
    predict: Callable[[PyTree], PyTree] | None = None,
    metrics: tuple[Any, ...] | None = None,
) -> Task:
    """A task from bare JAX functions, without any module system.

    Args:
        init: (key, x) -> params, a pytree of float32 arrays.
        apply: (params, x) -> outputs; when it has arguments called `train`, `key` or `mask`, they are passed by name:
            `train` a Python bool, `key` a key and `mask` [batch] bool in training, both None otherwise.
        loss: "softmax_cross_entropy", "sigmoid_cross_entropy", "squared", "absolute", "huber", or a function
            (outputs, y) -> [batch, ...], one number per example, which are averaged with the examples' weights.
        predict: outputs -> what `run.predict` returns; by default what suits the named loss (probabilities for the
            cross-entropies), and the outputs themselves for a function.
        metrics: the metrics of every evaluation; by default what suits the named loss.
    """
    return _supervised(function_network(init, apply), _chosen_loss(loss), predict, metrics)


def from_nnx(
    module: Any,
    *,
    loss: str | LossFunction,
    predict: Callable[[PyTree], PyTree] | None = None,
    metrics: tuple[Any, ...] | None = None,
) -> Task:
    """A task from a flax.nnx module.

    Parameters (`nnx.Param`) are trained; batch statistics and every other variable follow as untrained state; the state
    of random streams is not kept: each step seeds them from the step's key "dropout". The module is switched by
    `module.train()` and `module.eval()`, and called as module(x), with `train=` and `mask=` when it takes them.
    A dropout rate in `hyper` does not reach it.

    Args:
        module: an nnx module, whose present values are where training starts whatever the seed; or a function
            (rngs: nnx.Rngs) -> module, which starts anew from the seed. The module itself is never changed.
        loss: see `from_functions`.
        predict: see `from_functions`.
        metrics: see `from_functions`.
    """
    return _supervised(nnx_network(module), _chosen_loss(loss), predict, metrics)


class _NamedLoss(NamedTuple):
    value: LossFunction
    predict: Callable[[PyTree], PyTree]
    metrics: tuple[str, ...] = ()  # names in jaxdl.metrics
    squeeze: bool = False


def _identity(outputs: PyTree) -> PyTree:
    return outputs


_REGRESSION_METRICS = ("RootMeanSquaredError", "MeanAbsoluteError")

_LOSSES = {
    "softmax_cross_entropy": _NamedLoss(
        nn.softmax_cross_entropy, lambda logits: jax.nn.softmax(widened(logits), axis=-1), ("Accuracy",)
    ),
    "sigmoid_cross_entropy": _NamedLoss(
        nn.sigmoid_cross_entropy, lambda logits: jax.nn.sigmoid(widened(logits)), squeeze=True
    ),
    "squared": _NamedLoss(nn.squared_error, _identity, _REGRESSION_METRICS, squeeze=True),
    "absolute": _NamedLoss(nn.absolute_error, _identity, _REGRESSION_METRICS, squeeze=True),
    "huber": _NamedLoss(nn.huber, _identity, _REGRESSION_METRICS, squeeze=True),
}


def _chosen_loss(loss: str | LossFunction, names: Sequence[str] = tuple(_LOSSES)) -> _NamedLoss:
    if callable(loss):
        return _NamedLoss(loss, _identity)
    if loss not in names:
        near = difflib.get_close_matches(str(loss), names, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"no loss is called {loss!r}{hint} (choose one of {', '.join(names)}, or give a function)")
    return _LOSSES[loss]


def _supervised(
    network: Network,
    kind: _NamedLoss,
    predict: Callable[[PyTree], PyTree] | None = None,
    metrics: tuple[Any, ...] | None = None,
) -> Task:
    """Outputs against y, one value per example or per number."""
    import jaxdl.metrics

    usual = tuple(getattr(jaxdl.metrics, name)() for name in kind.metrics)
    prediction = kind.predict if predict is None else predict

    def loss(variables: Variables, batch: Batch, context: Context) -> Loss:
        outputs, state = run_network(network, variables, batch["x"], context)
        target = batch["y"]
        if kind.squeeze:
            outputs, target = _squeeze(outputs), _squeeze(target)
        value = kind.value(outputs, target)
        if value.shape[:1] != batch["y"].shape[:1]:
            raise ValueError(f"the loss gives one number per example, [{batch['y'].shape[0]}, ...], not {value.shape}")
        seen = {"preds": jax.tree.map(widened, outputs), "target": target}
        return Loss(widened(value), None, seen, state)

    def predicted(variables: Variables, batch: Batch) -> PyTree:
        outputs, _ = run_network(network, variables, batch["x"], None)
        return jax.tree.map(widened, prediction(_squeeze(outputs) if kind.squeeze else outputs))

    usual = usual if metrics is None else metrics
    return Task(init_of(network), loss, predicted, metrics=usual, logical_axes=network.logical_axes)


def _with_experts(
    outputs: PyTree, context: Context, factors: Mapping[str, float]
) -> tuple[PyTree, dict[str, Array], dict[str, Array]]:
    """Logits, the terms of the loss that a mixture of experts adds, and what to show of it."""
    if not (isinstance(outputs, Mapping) and "balance" in outputs):
        return outputs, {}, {}
    extra = {
        name: outputs[name] * jnp.asarray(context.hyper.get(name, factor), jnp.float32)
        for name, factor in factors.items()
    }
    shown = {name: outputs[name] for name in (*factors, "dropped")}
    return outputs["logits"], extra, shown


def _squeeze(x: Array) -> Array:
    return x[..., 0] if x.ndim > 1 and x.shape[-1] == 1 else x
