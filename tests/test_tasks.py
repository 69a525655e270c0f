"""Tasks train with a hand-written loop, and keep what they promise about dtypes, rates, weights and state."""

from __future__ import annotations

import flax.linen as linen
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxdl
from jaxdl import tasks
from jaxdl.core.keys import step_key
from jaxdl.core.task import Context, Hyper, Loss, Task
from jaxdl.models import create_model

_KEY = jax.random.key(0)


def context(train=True, step=0, weight=None, examples=32, **hyper):
    step = jnp.asarray(step, jnp.int32)
    weight = jnp.ones(examples, jnp.float32) if weight is None else weight
    numbers = Hyper({name: jnp.asarray(value, jnp.float32) for name, value in hyper.items()})
    return Context(train, lambda name: step_key(jnp.uint32(0), name, step), step, numbers, weight)


def measured(task: Task, variables, batch, train=True, step=0, weight=None, **hyper) -> Loss:
    """The task's loss in one compiled program."""
    weight = jnp.ones(batch["x"].shape[0]) if weight is None else weight

    @jax.jit
    def loss(variables, batch, step, weight, hyper):
        return task.loss(variables, batch, context(train, step, weight, **hyper))

    return loss(variables, batch, step, weight, hyper)


def start(task: Task, batch):
    """The variables that training starts from."""
    return jax.jit(task.init)(_KEY, batch)


def train(task: Task, batch, steps=60, rate=0.1, **hyper):
    """Ten lines of training: (variables, first loss, last loss), the losses measured outside training."""
    examples = batch["x"].shape[0]
    tx = optax.sgd(rate, momentum=0.9)  # optax.adam itself breaks the strict dtype rules of these tests

    def mean(params, state, context):
        loss = task.loss({"params": params, **state}, batch, context)
        weight = jnp.ones(loss.value.shape) if loss.weight is None else loss.weight
        return jnp.sum(loss.value * weight) / jnp.sum(weight), loss

    @jax.jit
    def update(params, state, opt_state, step):
        (_, loss), gradient = jax.value_and_grad(mean, has_aux=True)(
            params, state, context(step=step, examples=examples, **hyper)
        )
        change, opt_state = tx.update(gradient, opt_state, params)
        return optax.apply_updates(params, change), loss.model_state, opt_state

    measure = jax.jit(lambda params, state: mean(params, state, context(False, examples=examples, **hyper))[0])
    variables = start(task, batch)
    params, state = variables["params"], {name: tree for name, tree in variables.items() if name != "params"}
    opt_state, first = tx.init(params), measure(params, state)
    for step in range(steps):
        params, state, opt_state = update(params, state, opt_state, step)
    return {"params": params, **state}, float(first), float(measure(params, state))


def _blobs():
    y = jnp.arange(32) % 3
    return {"x": jax.random.normal(_KEY, (32, 4)) * 0.3 + jax.nn.one_hot(y, 4), "y": y}


def _accuracy(probabilities, y):
    return float(np.mean(np.argmax(probabilities, -1) == y))


@pytest.mark.smoke
def test_classification_trains_and_predicts_probabilities():
    batch = _blobs()
    task = tasks.classification(create_model("mlp", num_classes=3, widths=(16,)))
    variables, first, last = train(task, batch)
    probabilities = task.predict(variables, {"x": batch["x"]})
    assert last < 0.2 * first and _accuracy(probabilities, batch["y"]) > 0.9
    np.testing.assert_allclose(probabilities.sum(-1), 1.0, rtol=1e-5)
    assert [metric.name for metric in task.metrics] == ["accuracy"]


@pytest.mark.parametrize("loss", ["squared", "absolute", "huber"])
@pytest.mark.parametrize("column", [False, True])
def test_regression_trains_on_rows_and_on_columns(loss, column):
    x = jax.random.normal(_KEY, (32, 4))
    y = 2.0 * x[:, 0] - x[:, 2] + 0.5
    task = tasks.regression(create_model("linear", num_classes=1), loss=loss)
    variables, first, last = train(task, {"x": x, "y": y[:, None] if column else y}, rate=0.05, steps=120)
    assert last < 0.05 * first and [metric.name for metric in task.metrics] == ["rmse", "mae"]
    predictions = task.predict(variables, {"x": x})
    assert predictions.shape == (32,) and np.abs(predictions - y).mean() < 0.2


def test_regression_of_several_numbers_counts_each_once():
    x = jax.random.normal(_KEY, (8, 4))
    batch = {"x": x, "y": jnp.arange(16).reshape(8, 2)}
    task = tasks.regression(create_model("linear", num_classes=2))
    variables = start(task, batch)
    loss = measured(task, variables, batch)
    expected = (np.asarray(jax.jit(task.predict)(variables, batch)) - np.asarray(batch["y"])) ** 2
    np.testing.assert_allclose(loss.value, expected, rtol=1e-5)
    assert loss.weight is None  # every number counts like its example
    np.testing.assert_array_equal(loss.outputs["target"], batch["y"])


def test_classification_loss_is_the_cross_entropy_and_weights_are_left_to_the_step():
    batch = _blobs()
    task = tasks.classification(create_model("linear", num_classes=3))
    variables = start(task, batch)
    weight = jnp.arange(32, dtype=jnp.float32)
    loss = measured(task, variables, batch, weight=weight)
    probabilities = np.asarray(jax.jit(task.predict)(variables, batch), np.float64)
    expected = -np.log(probabilities[np.arange(32), batch["y"]])
    np.testing.assert_allclose(loss.value, expected, rtol=1e-4, atol=1e-6)
    assert loss.weight is None
    np.testing.assert_allclose(jax.nn.softmax(loss.outputs), probabilities, rtol=1e-5)
    assert loss.model_state == {} and loss.extra == {}


def test_class_weights_multiply_the_weights():
    batch = _blobs()
    model = create_model("linear", num_classes=3)
    variables = start(tasks.classification(model), batch)
    for class_weight in ((1.0, 5.0, 0.0), {1: 5.0, 2: 0.0}):
        loss = measured(tasks.classification(model, class_weight=class_weight), variables, batch)
        np.testing.assert_array_equal(loss.weight, np.array([1.0, 5.0, 0.0])[np.asarray(batch["y"])])


@pytest.mark.parametrize(
    ("class_weight", "sentence"),
    [((1.0, 2.0), "2 numbers for the 3 classes"), ({3: 1.0}, "names class 3"), ((1.0, -1.0, 1.0), "class 1 is -1.0")],
)
def test_class_weights_that_do_not_fit_are_refused(class_weight, sentence):
    batch = _blobs()
    task = tasks.classification(create_model("linear", num_classes=3), class_weight=class_weight)
    with pytest.raises(ValueError, match=sentence):
        jax.eval_shape(lambda: task.loss(task.init(_KEY, batch), batch, context()))


def test_label_smoothing_static_and_traced_agree_and_spare_the_evaluated_loss():
    batch = _blobs()
    model = create_model("linear", num_classes=3)
    plain, smooth = tasks.classification(model), tasks.classification(model, label_smoothing=0.2)
    variables = start(plain, batch)
    expected = measured(smooth, variables, batch).value
    asked = context(label_smoothing=0.2)
    jax.eval_shape(lambda: plain.loss(variables, batch, asked))
    np.testing.assert_allclose(measured(plain, variables, batch, label_smoothing=0.2).value, expected, rtol=1e-6)
    assert "label_smoothing" in asked.hyper.asked
    assert not np.allclose(measured(plain, variables, batch).value, expected)
    without = measured(plain, variables, batch, False).value
    np.testing.assert_array_equal(measured(smooth, variables, batch, False).value, without)


def test_a_dropout_rate_in_hyper_reaches_the_module():
    batch = _blobs()
    task = tasks.classification(create_model("mlp", num_classes=3, widths=(64,)))
    static = tasks.classification(create_model("mlp", num_classes=3, widths=(64,), dropout=0.5))
    variables = start(task, batch)

    @jax.jit
    def value(rate, step):
        return task.loss(variables, batch, context(step=step, dropout=rate)).value

    np.testing.assert_allclose(value(0.5, 0), measured(static, variables, batch).value, rtol=1e-5)
    assert not np.allclose(value(0.5, 0), value(0.5, 1))  # each step draws its own mask
    np.testing.assert_allclose(value(0.0, 0), measured(task, variables, batch).value, rtol=1e-5)
    evaluated = measured(static, variables, batch, False, dropout=0.9).value
    np.testing.assert_array_equal(evaluated, measured(task, variables, batch, False).value)


def test_a_module_without_a_rate_does_not_ask_for_one():
    batch, asked = _blobs(), context(dropout=0.5)
    task = tasks.classification(create_model("linear", num_classes=3))
    jax.eval_shape(lambda: task.loss(task.init(_KEY, batch), batch, asked))
    assert "dropout" not in asked.hyper.asked


def test_uint8_images_are_scaled_to_one_also_in_bfloat16():
    images = jax.random.randint(_KEY, (32, 4, 4, 1), 0, 256).astype(jnp.uint8)
    batch = {"x": images, "y": jnp.arange(32) % 3}
    floats = {**batch, "x": images.astype(jnp.float32) / 255.0}
    task = tasks.classification(create_model("linear", num_classes=3))
    variables = start(task, batch)
    expected = measured(task, variables, floats)
    np.testing.assert_array_equal(measured(task, variables, batch).value, expected.value)

    half = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), variables)
    loss = measured(task, half, batch)
    assert loss.value.dtype == loss.outputs.dtype == jnp.float32
    np.testing.assert_allclose(loss.value, expected.value, atol=0.05)
    assert jax.eval_shape(task.predict, half, batch).dtype == jnp.float32


def test_batch_statistics_move_in_training_only_and_not_by_padding_rows():
    model = create_model("convnet", num_classes=3, width=2, depth=1, hidden=4, batch_norm=True, dropout=0.0)
    task = tasks.classification(model)
    batch = {"x": jax.random.normal(_KEY, (6, 4, 4, 1)), "y": jnp.arange(6) % 3}
    variables = start(task, batch)
    padded = {"x": jnp.concatenate([batch["x"], 9.0 * jnp.ones((2, 4, 4, 1))]), "y": jnp.arange(8) % 3}
    whole = measured(task, variables, batch)
    part = measured(task, variables, padded, weight=jnp.array([1.0, 2.0, 1.0, 1.0, 1.0, 1.0, 0.0, 0.0]))
    np.testing.assert_allclose(part.value[:6], whole.value, rtol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), part.model_state, whole.model_state)
    changed = jax.tree.map(
        lambda a, b: bool(np.any(a != b)), whole.model_state["batch_stats"], variables["batch_stats"]
    )
    assert all(jax.tree.leaves(changed))
    assert jax.tree.structure(whole.model_state) == jax.tree.structure({"batch_stats": variables["batch_stats"]})
    assert measured(task, variables, batch, False).model_state == {}


def test_from_functions_trains_and_passes_train_and_key():
    seen = set()

    def init(key, x):
        return {"w": 0.1 * jax.random.normal(key, (x.shape[1], 3)), "b": jnp.zeros(3)}

    def apply(params, x, *, train, key):
        seen.add((train, key is None))
        kept = jax.random.bernoulli(key, 0.9, x.shape) if train else jnp.ones(x.shape, jnp.bool_)
        return jnp.where(kept, x, 0.0) @ params["w"] + params["b"][None]

    batch = _blobs()
    task = tasks.from_functions(init=init, apply=apply, loss="softmax_cross_entropy")
    variables, first, last = train(task, batch)
    assert last < 0.4 * first and _accuracy(task.predict(variables, batch), batch["y"]) > 0.9
    assert seen == {(True, False), (False, True)}
    assert [metric.name for metric in task.metrics] == ["accuracy"]


def test_from_functions_with_a_loss_of_its_own():
    def quantile(outputs, y):
        error = y - outputs[:, 0]
        return jnp.maximum(0.9 * error, -0.1 * error)

    x = jnp.ones((32, 1))
    y = jnp.arange(32, dtype=jnp.float32) / 32
    task = tasks.from_functions(
        init=lambda key, x: {"w": jnp.zeros((1, 1))}, apply=lambda p, x: x @ p["w"], loss=quantile, predict=jnp.ravel
    )
    variables, _, _ = train(task, {"x": x, "y": y}, steps=150)
    assert abs(task.predict(variables, {"x": x})[0] - 0.9) < 0.05


def test_binary_labels_by_sigmoid_cross_entropy():
    x = jax.random.normal(_KEY, (32, 4))
    y = (x[:, 1] > 0).astype(jnp.int32)
    task = tasks.from_functions(
        init=lambda key, x: jnp.zeros((4, 1)), apply=lambda w, x: x @ w, loss="sigmoid_cross_entropy"
    )
    variables, first, last = train(task, {"x": x, "y": y}, steps=100)
    probabilities = task.predict(variables, {"x": x})
    assert (
        last < 0.5 * first
        and probabilities.shape == (32,)
        and np.mean((np.asarray(probabilities) > 0.5) == np.asarray(y)) > 0.9
    )


def test_a_loss_of_one_number_is_refused():
    task = tasks.from_functions(
        init=lambda key, x: jnp.zeros((4, 1)), apply=lambda w, x: x @ w, loss=lambda outputs, y: jnp.mean(outputs)
    )
    with pytest.raises(ValueError, match=r"one number per example, \[32, ...\], not \(\)"):
        task.loss({"params": jnp.zeros((4, 1))}, _blobs(), context())


def _nnx_net():
    from flax import nnx

    class Net(nnx.Module):
        def __init__(self, *, rngs):
            self.layers = nnx.List([nnx.Linear(4, 16, rngs=rngs), nnx.Linear(16, 3, rngs=rngs)])
            self.norm = nnx.BatchNorm(16, rngs=rngs)
            self.dropout = nnx.Dropout(0.2, rngs=rngs)

        def __call__(self, x):
            return self.layers[1](self.dropout(jax.nn.relu(self.norm(self.layers[0](x)))))

    return nnx, Net


def test_from_nnx_trains_a_module_with_batch_norm_and_dropout():
    _, net = _nnx_net()
    batch = _blobs()
    task = tasks.from_nnx(net, loss="softmax_cross_entropy")
    variables, first, last = train(task, batch)
    assert last < 0.4 * first and _accuracy(task.predict(variables, batch), batch["y"]) > 0.9
    assert set(variables) == {"params", "batch_stats"}
    assert set(variables["params"]["layers"]) == {"0", "1"}
    assert np.any(variables["batch_stats"]["norm"]["mean"] != 0)

    values = [measured(task, variables, batch, step=step).value for step in (0, 0, 1)]
    np.testing.assert_array_equal(values[0], values[1])
    assert not np.allclose(values[0], values[2])  # the dropout mask follows the step's key
    assert measured(task, variables, batch, False).model_state == {}


def test_from_nnx_starts_from_the_values_of_a_given_module_and_leaves_it():
    nnx, net = _nnx_net()
    module = net(rngs=nnx.Rngs(3))
    task = tasks.from_nnx(module, loss="softmax_cross_entropy")
    batch = _blobs()
    module.eval()
    np.testing.assert_allclose(
        jax.jit(task.predict)(start(task, batch), batch), jax.nn.softmax(module(batch["x"])), rtol=1e-5
    )
    before = np.array(module.layers[0].kernel[...])
    train(task, batch, steps=2)
    np.testing.assert_array_equal(module.layers[0].kernel[...], before)


def test_a_linen_module_without_train_is_taken():
    batch = _blobs()
    _, first, last = train(tasks.classification(linen.Dense(3)), batch)
    assert last < 0.5 * first


def test_mistakes_get_a_sentence():
    model = create_model("linear", num_classes=3)
    with pytest.raises(TypeError, match=r"tasks\.from_nnx for nnx modules"):
        tasks.classification(lambda x: x)
    with pytest.raises(TypeError, match="argument called rngs"):
        tasks.from_nnx(lambda key: None, loss="squared")
    with pytest.raises(ValueError, match="did you mean 'squared'"):
        tasks.regression(model, loss="square")
    with pytest.raises(ValueError, match="did you mean 'softmax_cross_entropy'"):
        tasks.from_functions(init=lambda k, x: x, apply=lambda p, x: x, loss="softmax_crossentropy")
    with pytest.raises(ValueError, match=r"label_smoothing lies in \[0, 1\)"):
        tasks.classification(model, label_smoothing=1.0)
    batch = {**_blobs(), "y": jnp.zeros(32)}
    with pytest.raises(TypeError, match="classification: y must hold integers"):
        measured(tasks.classification(model), start(tasks.classification(model), batch), batch)
    single = tasks.classification(create_model("linear", num_classes=1))
    with pytest.raises(ValueError, match="two or more classes"):
        measured(single, start(single, _blobs()), _blobs())


def test_a_language_model_of_so_many_positions_trains_on_rows_of_one_token_more() -> None:
    model = jaxdl.create_model("gpt", num_classes=7, width=8, depth=1, heads=2, length=8)
    rows = np.random.default_rng(0).integers(0, 7, (8, 9)).astype(np.int32)
    run = jaxdl.fit(jaxdl.tasks.language_model(model), {"x": rows}, steps=1, batch_size=8, verbose=0)
    assert np.isfinite(run.metrics["train:loss"])
    with pytest.raises(ValueError, match=r"9 tokens are more than the 8 positions"):
        run.predict(rows)  # which tells the token after the last one, too
