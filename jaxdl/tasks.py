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
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxdl import nn
from jaxdl.core.task import Array, Batch, Context, Key, Loss, PyTree, Task, Variables
from jaxdl.nn.networks import Network, function_network, linen_network, nnx_network
from jaxdl.nn.precision import widened

LossFunction = Callable[[Array, Array], Array]


def classification(
    model: Any, *, label_smoothing: float = 0.0, class_weight: Sequence[float] | Mapping[int, float] | None = None
) -> Task:
    """Which of several classes: softmax cross-entropy.

    Args:
        model: a linen module; [batch, ...] -> logits [batch, classes].
        label_smoothing: share of the target that is spread over all classes, in training only; the evaluated loss
            is the plain one, so that trials with different smoothing compare. `hyper` "label_smoothing" overrides it.
        class_weight: what each class counts, by class number; a mapping leaves the others at 1. It multiplies the
            weights, so the loss is sum(w * value) / sum(w), in training and evaluation.

    Batch:
        x: what the model takes. y: [batch] integers in [0, classes).

    Returns:
        A Task; outputs are logits [batch, classes], predictions probabilities float32 [batch, classes].
    """
    from jaxdl.metrics import Accuracy

    _check_fraction("label_smoothing", label_smoothing)
    network = linen_network(model)

    def loss(variables: Variables, batch: Batch, context: Context) -> Loss:
        logits, state = _run(network, variables, batch["x"], context)
        labels = _labels(batch["y"], "classification")
        _check_classes(logits, labels.shape)
        value = nn.softmax_cross_entropy(logits, labels, label_smoothing=_smoothing(context, label_smoothing))
        weight = None if class_weight is None else _class_weights(class_weight, logits.shape[-1])[labels]
        return Loss(value, weight, widened(logits), state)

    def predict(variables: Variables, batch: Batch) -> Array:
        logits, _ = _run(network, variables, batch["x"], None)
        return jax.nn.softmax(widened(logits), axis=-1)

    return Task(_init(network), loss, predict, metrics=(Accuracy(),))


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


def language_model(model: Any, *, pad: int | None = None, label_smoothing: float = 0.0) -> Task:
    """The next token, or a token per position: softmax cross-entropy, averaged over the tokens that are no padding.

    Args:
        model: a linen module; integer tokens [batch, T] -> logits [batch, T, vocabulary].
        pad: the token number of padding: it is never a target. None: nothing is padding.
        label_smoothing: as in `classification`.

    Batch:
        x: [batch, T] integers. Without "y" the targets are x moved by one: the model reads x[:, :-1]. With "y"
        [batch, T] they are y, and the model reads all of x. "mask" [batch, T] (bool or 0/1), where given, says which
        positions of y (without y: of x) count as targets.

    Returns:
        A Task; outputs are {"preds": logits, "target": tokens}, predictions probabilities float32
        [batch, T, vocabulary] for all of x, the last of which is the token after the end.
    """
    from jaxdl.metrics import Accuracy

    _check_fraction("label_smoothing", label_smoothing)
    network = linen_network(model)

    def readable(tokens: Array) -> Array:
        tokens = _labels(tokens, "language_model", "x")
        return tokens if pad is None or pad >= 0 else jnp.where(tokens == pad, jnp.zeros_like(tokens), tokens)

    def loss(variables: Variables, batch: Batch, context: Context) -> Loss:
        shifted = "y" not in batch
        if shifted and batch["x"].ndim == 2 and batch["x"].shape[1] < 2:
            raise ValueError(f"language_model: x {batch['x'].shape} has no next token; give at least two per row, or y")
        inputs, targets = (batch["x"][:, :-1], batch["x"][:, 1:]) if shifted else (batch["x"], batch["y"])
        logits, state = _run(network, variables, readable(inputs), context)
        targets = _labels(targets, "language_model")
        _check_classes(logits, targets.shape)
        counted = None if pad is None else targets != pad
        if "mask" in batch:
            mask = batch["mask"][:, 1:] if shifted else batch["mask"]
            counted = mask.astype(jnp.bool_) if counted is None else counted & mask.astype(jnp.bool_)
        return _masked_loss(logits, targets, counted, _smoothing(context, label_smoothing), state)

    def predict(variables: Variables, batch: Batch) -> Array:
        logits, _ = _run(network, variables, readable(batch["x"]), None)
        return jax.nn.softmax(widened(logits), axis=-1)

    return Task(_init(network, readable), loss, predict, metrics=(Accuracy(),))


def segmentation(model: Any, *, ignore_index: int | None = 255, label_smoothing: float = 0.0) -> Task:
    """The class of every pixel: softmax cross-entropy, averaged over the pixels that are labelled.

    Args:
        model: a linen module; images [batch, height, width, channels] -> logits [batch, height, width, classes].
        ignore_index: the label of pixels that do not count (in loss and metrics); None: all count.
        label_smoothing: as in `classification`.

    Batch:
        x: images. y: [batch, height, width] integers (uint8 masks are fine).

    Returns:
        A Task; outputs are {"preds": logits, "target": y}, predictions class numbers int32 [batch, height, width].
    """
    from jaxdl.metrics import Accuracy

    _check_fraction("label_smoothing", label_smoothing)
    network = linen_network(model)

    def loss(variables: Variables, batch: Batch, context: Context) -> Loss:
        logits, state = _run(network, variables, batch["x"], context)
        labels = _labels(batch["y"], "segmentation")
        _check_classes(logits, labels.shape)
        counted = None if ignore_index is None else labels != ignore_index
        return _masked_loss(logits, labels, counted, _smoothing(context, label_smoothing), state)

    def predict(variables: Variables, batch: Batch) -> Array:
        logits, _ = _run(network, variables, batch["x"], None)
        return jnp.argmax(logits, axis=-1).astype(jnp.int32)

    return Task(_init(network), loss, predict, metrics=(Accuracy(),))


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
        outputs, state = _run(network, variables, batch["x"], context)
        target = batch["y"]
        if kind.squeeze:
            outputs, target = _squeeze(outputs), _squeeze(target)
        value = kind.value(outputs, target)
        if value.shape[:1] != batch["y"].shape[:1]:
            raise ValueError(f"the loss gives one number per example, [{batch['y'].shape[0]}, ...], not {value.shape}")
        seen = {"preds": jax.tree.map(widened, outputs), "target": target}
        return Loss(widened(value), None, seen, state)

    def predicted(variables: Variables, batch: Batch) -> PyTree:
        outputs, _ = _run(network, variables, batch["x"], None)
        return jax.tree.map(widened, prediction(_squeeze(outputs) if kind.squeeze else outputs))

    return Task(_init(network), loss, predicted, metrics=usual if metrics is None else metrics)


def _init(network: Network, readable: Callable[[Array], Array] = _identity) -> Callable[[Key, Batch], Variables]:
    return lambda key, batch: network.init(key, _inputs(readable(batch["x"]), {}))


def _run(network: Network, variables: Variables, x: PyTree, context: Context | None) -> tuple[PyTree, PyTree]:
    """The network's outputs and new state; without a context it predicts."""
    x = _inputs(x, variables["params"])
    if context is None or not context.train:
        return network.run(variables, x, train=False, key=None, mask=None, dropout=None)
    dropout = None if network.dropout is None else context.hyper.get("dropout", network.dropout)
    key = context.keys("dropout")
    return network.run(variables, x, train=True, key=key, mask=context.weight > 0, dropout=dropout)


def _inputs(x: PyTree, params: PyTree) -> PyTree:
    """uint8 -> [0, 1] in the dtype of the parameters; everything else as it is."""
    floats = [leaf.dtype for leaf in jax.tree.leaves(params) if jnp.issubdtype(leaf.dtype, jnp.floating)]
    dtype = floats[0] if floats else jnp.float32

    def scaled(leaf: Array) -> Array:
        return (leaf.astype(jnp.float32) / 255.0).astype(dtype) if leaf.dtype == jnp.uint8 else leaf

    return jax.tree.map(scaled, x)


def _masked_loss(logits: Array, labels: Array, counted: Array | None, smoothing: float | Array, state: PyTree) -> Loss:
    """Cross-entropy where `counted` (None: everywhere), weight 0 and a harmless label elsewhere."""
    safe = labels if counted is None else jnp.where(counted, labels, jnp.zeros_like(labels))
    value = nn.softmax_cross_entropy(logits, safe, label_smoothing=smoothing)
    weight = None if counted is None else counted.astype(jnp.float32)
    return Loss(value, weight, {"preds": widened(logits), "target": safe}, state)


def _smoothing(context: Context, static: float) -> float | Array:
    return context.hyper.get("label_smoothing", static) if context.train else 0.0


def _labels(labels: Array, task: str, column: str = "y") -> Array:
    if not jnp.issubdtype(labels.dtype, jnp.integer):
        raise TypeError(f"{task}: {column} must hold integers (class or token numbers), not {labels.dtype}")
    return labels.astype(jnp.int32)


def _check_classes(logits: Array, shape: tuple[int, ...]) -> None:
    if logits.shape[:-1] != shape or logits.shape[-1] < 2:
        raise ValueError(
            f"the model's logits are {logits.shape}, but labels {shape} need {(*shape, 'classes')} with two or more "
            "classes: check num_classes and the model's output shape"
        )


def _check_fraction(name: str, value: float) -> None:
    if not 0.0 <= value < 1.0:
        raise ValueError(f"{name} lies in [0, 1), not {value}")


def _class_weights(weights: Sequence[float] | Mapping[int, float], classes: int) -> Array:
    """[classes] float32."""
    table = np.ones(classes, np.float32)
    pairs = list(weights.items() if isinstance(weights, Mapping) else enumerate(weights))
    if not isinstance(weights, Mapping) and len(pairs) != classes:
        raise ValueError(f"class_weight has {len(pairs)} numbers for the {classes} classes of the model")
    for label, weight in pairs:
        if not (isinstance(label, (int, np.integer)) and 0 <= label < classes):
            raise ValueError(f"class_weight names class {label!r}; the model's classes are 0 to {classes - 1}")
        if not (np.isfinite(weight) and weight >= 0):
            raise ValueError(f"class_weight of class {label} is {weight}; a weight is finite and not negative")
        table[label] = weight
    return jnp.asarray(table)


def _squeeze(x: Array) -> Array:
    return x[..., 0] if x.ndim > 1 and x.shape[-1] == 1 else x
