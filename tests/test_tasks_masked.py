"""Losses over tokens and pixels: padding and ignored pixels do not count; any split of a batch sums to the whole."""

from __future__ import annotations

import functools

import flax.linen as linen
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxdl
from jaxdl import tasks
from jaxdl.core.keys import step_key
from jaxdl.core.task import Context, Hyper

_KEY = jax.random.key(0)
_VOCABULARY = 5


class Bigram(linen.Module):
    """Logits from the present token alone: [batch, T] -> [batch, T, vocabulary]."""

    @linen.compact
    def __call__(self, x, *, train):
        return linen.Dense(_VOCABULARY)(linen.Embed(_VOCABULARY, 8)(x))


class Pixels(linen.Module):
    """Logits from each pixel alone."""

    @linen.compact
    def __call__(self, x, *, train):
        return linen.Dense(3)(jnp.tanh(linen.Dense(8)(x)))


def _context(weight, train=True):
    step = jnp.int32(0)
    return Context(train, lambda name: step_key(jnp.uint32(0), name, step), step, Hyper({}), weight)


@functools.partial(jax.jit, static_argnums=0)
def _sums(task, variables, batch, weight):
    """(sum of gradients, sum of weighted losses, sum of weights), as the step adds them up over parts of a batch."""

    def total(params):
        loss = task.loss({"params": params}, batch, _context(weight))
        weights = jnp.broadcast_to(weight.reshape(-1, *(1,) * (loss.value.ndim - 1)), loss.value.shape)
        weights = weights if loss.weight is None else weights * loss.weight
        return jnp.sum(loss.value * weights), jnp.sum(weights)

    (value, weights), gradient = jax.value_and_grad(total, has_aux=True)(variables["params"])
    return gradient, value, weights


def _tokens():
    """Rows of 9, 2, 5, 1, 7 and 4 real tokens; 0 is padding."""
    lengths = np.array([9, 2, 5, 1, 7, 4])
    x = np.array(jax.random.randint(_KEY, (6, 9), 1, _VOCABULARY))
    x[np.arange(9)[None] >= lengths[:, None]] = 0
    return {"x": jnp.asarray(x)}, int((lengths - 1).sum())


def _images():
    y = np.array(jax.random.randint(_KEY, (6, 4, 4), 0, 3)).astype(np.uint8)
    y[0], y[1, :3], y[4, 0, 0] = 255, 255, 255
    return {"x": jax.random.normal(_KEY, (6, 4, 4, 2)), "y": jnp.asarray(y)}, int((y != 255).sum())


_CASES = {
    "tokens": (tasks.language_model(Bigram(), pad=0), _tokens),
    "pixels": (tasks.segmentation(Pixels()), _images),
}


@pytest.mark.parametrize("name", sorted(_CASES))
def test_any_split_of_a_batch_sums_to_the_true_weighted_mean(name):
    task, make = _CASES[name]
    batch, counted = make()
    variables = task.init(_KEY, batch)
    rng = np.random.default_rng(0)
    np.testing.assert_equal(float(_sums(task, variables, batch, jnp.ones(6))[2]), counted)
    for cuts in ([1], [3], [2, 4], [1, 2, 4], [1, 2, 3, 4, 5]) * 2:
        weight = jnp.asarray(rng.choice([0.0, 0.5, 1.0, 3.0], 6), jnp.float32)
        whole = _sums(task, variables, batch, weight)
        rows = np.split(rng.permutation(6), cuts)
        split = [_sums(task, variables, {k: v[r] for k, v in batch.items()}, weight[r]) for r in rows]
        added = jax.tree.map(lambda *leaves: sum(leaves), *split)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), added, whole)


def test_language_model_loss_is_the_mean_over_real_next_tokens():
    task, make = _CASES["tokens"]
    batch, counted = make()
    variables = task.init(_KEY, batch)
    _, total, weights = _sums(task, variables, batch, jnp.ones(6))
    assert weights == counted
    x = np.asarray(batch["x"])
    log_p = np.log(np.asarray(task.predict(variables, batch), np.float64))
    values = [-log_p[b, t, x[b, t + 1]] for b in range(6) for t in range(8) if x[b, t + 1] != 0]
    np.testing.assert_allclose(total / weights, np.mean(values), rtol=1e-5)
    assert not np.isclose(np.mean(values), np.mean([-log_p[b, t, x[b, t + 1]] for b in range(6) for t in range(8)]))


def test_segmentation_loss_is_the_mean_over_labelled_pixels():
    task, make = _CASES["pixels"]
    batch, counted = make()
    variables = task.init(_KEY, batch)
    _, total, weights = _sums(task, variables, batch, jnp.ones(6))
    assert weights == counted
    y = np.asarray(batch["y"])
    log_p = np.asarray(jax.nn.log_softmax(Pixels().apply(variables, batch["x"], train=False)), np.float64)
    values = [-log_p[(*i, y[i])] for i in np.ndindex(y.shape) if y[i] != 255]
    np.testing.assert_allclose(total / weights, np.mean(values), rtol=1e-5)


@pytest.mark.parametrize("name", sorted(_CASES))
def test_what_does_not_count_has_no_gradient(name):
    task, make = _CASES[name]
    batch, _ = make()
    variables = task.init(_KEY, batch)
    ignored = {"tokens": {"x": jnp.zeros_like(batch["x"])}, "pixels": {"y": jnp.full((6, 4, 4), 255, jnp.uint8)}}[name]
    gradient, total, weights = _sums(task, variables, {**batch, **ignored}, jnp.ones(6))
    assert total == weights == 0
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(gradient))


def test_a_mask_and_given_targets_say_what_counts():
    batch, _ = _tokens()
    x = batch["x"]
    variables = tasks.language_model(Bigram()).init(_KEY, batch)
    shifted = _sums(tasks.language_model(Bigram(), pad=0), variables, batch, jnp.ones(6))
    real = x != 0
    by_mask = _sums(tasks.language_model(Bigram()), variables, {"x": x, "mask": real}, jnp.ones(6))
    given = {"x": x[:, :-1], "y": x[:, 1:], "mask": real[:, 1:].astype(jnp.int32)}
    by_target = _sums(tasks.language_model(Bigram()), variables, given, jnp.ones(6))
    by_pad = _sums(tasks.language_model(Bigram(), pad=0), variables, {"x": x[:, :-1], "y": x[:, 1:]}, jnp.ones(6))
    for other in (by_mask, by_target, by_pad):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), other, shifted)
    everything = _sums(tasks.language_model(Bigram()), variables, {"x": x}, jnp.ones(6))
    assert everything[2] == 6 * 8 and everything[1] != shifted[1]


def test_padding_outside_the_vocabulary_is_harmless():
    batch, _ = _tokens()
    variables = tasks.language_model(Bigram()).init(_KEY, batch)
    expected = _sums(tasks.language_model(Bigram(), pad=0), variables, batch, jnp.ones(6))
    moved = {"x": jnp.where(batch["x"] == 0, -100, batch["x"])}
    found = _sums(tasks.language_model(Bigram(), pad=-100), variables, moved, jnp.ones(6))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), found, expected)


def test_metrics_get_targets_and_weights_that_leave_out_what_is_ignored():
    for task, make in _CASES.values():
        batch, counted = make()
        variables = task.init(_KEY, batch)
        loss = jax.jit(lambda v, b, task=task: task.loss(v, b, _context(jnp.ones(6), train=False)))(variables, batch)
        metric = task.metrics[0]
        state = metric.update(metric.init(), **loss.outputs, weight=loss.weight)
        hits = (np.argmax(loss.outputs["preds"], -1) == np.asarray(loss.outputs["target"])) & (
            np.asarray(loss.weight) > 0
        )
        assert float(metric.compute(state)) == pytest.approx(hits.sum() / counted)


def _trained(task, batch, steps):
    examples = jnp.ones(batch["x"].shape[0])
    tx = optax.sgd(0.5, momentum=0.9)

    @jax.jit
    def update(params, opt_state):
        gradient, value, weights = _sums(task, {"params": params}, batch, examples)
        change, opt_state = tx.update(jax.tree.map(lambda g: g / weights, gradient), opt_state, params)
        return optax.apply_updates(params, change), opt_state, value / weights

    params = task.init(_KEY, batch)["params"]
    opt_state, losses = tx.init(params), []
    for _ in range(steps):
        params, opt_state, loss = update(params, opt_state)
        losses.append(float(loss))
    return {"params": params}, losses


def test_language_model_learns_to_count():
    x = (jnp.arange(9)[None] + jnp.arange(6)[:, None]) % (_VOCABULARY - 1) + 1  # 1 2 3 4 1 2 ...; 0 is padding
    x = jnp.where(jnp.arange(9)[None] < jnp.array([9, 3, 5, 2, 9, 4])[:, None], x, 0)
    task = tasks.language_model(Bigram(), pad=0)
    variables, losses = _trained(task, {"x": x}, 60)
    assert losses[-1] < 0.05 < losses[0]
    following = np.argmax(task.predict(variables, {"x": jnp.array([[1, 2, 3, 4]])}), -1)
    np.testing.assert_array_equal(following, [[2, 3, 4, 1]])


def test_segmentation_learns_the_sign_of_a_channel():
    batch, _ = _images()
    y = jnp.where(batch["y"] == 255, batch["y"], (batch["x"][..., 0] > 0).astype(jnp.uint8))
    task = tasks.segmentation(Pixels())
    variables, losses = _trained(task, {**batch, "y": y}, 60)
    classes = task.predict(variables, batch)
    assert losses[-1] < 0.2 < losses[0]
    assert classes.dtype == jnp.int32 and classes.shape == (6, 4, 4)
    assert np.mean((np.asarray(classes) == np.asarray(y))[np.asarray(y) != 255]) > 0.95


def test_mistakes_get_a_sentence():
    task = tasks.language_model(Bigram())
    variables = task.init(_KEY, {"x": jnp.zeros((2, 3), jnp.int32)})
    with pytest.raises(ValueError, match="no next token"):
        task.loss(variables, {"x": jnp.zeros((2, 1), jnp.int32)}, _context(jnp.ones(2)))
    with pytest.raises(TypeError, match="language_model: x must hold integers"):
        task.loss(variables, {"x": jnp.zeros((2, 3))}, _context(jnp.ones(2)))
    pixels = tasks.segmentation(Pixels())
    batch = {"x": jnp.zeros((2, 4, 4, 2)), "y": jnp.zeros((2, 4, 5), jnp.int32)}
    with pytest.raises(ValueError, match=r"logits are \(2, 4, 4, 3\), but labels \(2, 4, 5\)"):
        pixels.loss(pixels.init(_KEY, batch), batch, _context(jnp.ones(2)))


class TwoHeads(linen.Module):
    """Logits and, in training, those of an auxiliary head."""

    num_classes: int = 3
    name_of_aux: str = "aux1"

    @linen.compact
    def __call__(self, x, *, train):
        logits, aux = linen.Dense(3, name="logits")(x), linen.Dense(3, name="aux")(x)
        return {"logits": logits, self.name_of_aux: aux} if train else logits


def test_auxiliary_heads_count_with_their_weight_and_in_training_only():
    batch, counted = _images()
    variables = tasks.segmentation(TwoHeads()).init(_KEY, {"x": batch["x"]})
    variables["params"]["aux"] = {"kernel": jnp.ones((2, 3)), "bias": jnp.array([0.0, 1.0, 2.0])}
    mean = {}
    for aux_weight in (0.0, 0.4, 1.0):
        task = tasks.segmentation(TwoHeads(), aux_weight=aux_weight)
        gradient, total, weights = _sums(task, variables, batch, jnp.ones(6))
        assert weights == counted
        assert bool(jnp.any(gradient["aux"]["kernel"] != 0)) == (aux_weight > 0)
        mean[aux_weight] = float(total / weights)
    assert mean[0.4] - mean[0.0] == pytest.approx(0.4 * (mean[1.0] - mean[0.0]), rel=1e-4)
    evaluated = task.loss(variables, batch, _context(jnp.ones(6), train=False))
    np.testing.assert_allclose(jnp.sum(evaluated.value * evaluated.weight) / counted, mean[0.0], rtol=1e-5)
    with pytest.raises(ValueError, match=r"returns 'logits', 'aux1', ..., not logits, side"):
        _sums(tasks.segmentation(TwoHeads(name_of_aux="side")), variables, batch, jnp.ones(6))
    with pytest.raises(ValueError, match="aux_weight is a finite number from 0 on, not -1"):
        tasks.segmentation(TwoHeads(), aux_weight=-1)


def test_classes_of_pixels_weigh_in_the_loss_and_not_in_the_metrics():
    batch, _ = _images()
    task = tasks.segmentation(TwoHeads(), class_weight={1: 3.0, 2: 0.0})
    variables = task.init(_KEY, batch)
    _, total, weights = _sums(task, variables, batch, jnp.ones(6))
    y = np.asarray(batch["y"])
    each = np.array([1.0, 3.0, 0.0])[np.where(y == 255, 0, y)] * (y != 255)
    logits = TwoHeads().apply(variables, batch["x"], train=True)
    log_p = np.asarray([jax.nn.log_softmax(logits[name]) for name in ("logits", "aux1")], np.float64)
    value = -np.take_along_axis(log_p, np.where(y == 255, 0, y)[None, ..., None], -1)[..., 0]
    np.testing.assert_allclose(weights, each.sum(), rtol=1e-6)
    np.testing.assert_allclose(total / weights, np.average(value[0] + 0.4 * value[1], weights=each), rtol=1e-5)
    found = task.loss(variables, batch, _context(jnp.ones(6), train=False))
    np.testing.assert_array_equal(found.outputs["weight"], y != 255)


def test_segmentation_measures_the_mean_iou_where_the_model_says_its_classes():
    assert [metric.name for metric in tasks.segmentation(Pixels()).metrics] == ["accuracy"]
    task = tasks.segmentation(TwoHeads(), class_weight=[1.0, 2.0, 3.0])
    batch, _ = _images()
    data = {name: np.asarray(value) for name, value in batch.items()}
    run = jaxdl.fit(task, data, validation=data, steps=2, batch_size=3, verbose=0)
    y, found = data["y"], run.predict(data)
    counts = y != 255
    overlaps = [np.sum((y == c) & (found == c) & counts) / np.sum(((y == c) | (found == c)) & counts) for c in range(3)]
    assert run.metrics["validation:mean_iou"] == pytest.approx(np.mean(overlaps), rel=1e-5)
    assert run.metrics["validation:accuracy"] == pytest.approx(np.mean((y == found)[counts]), rel=1e-5)
