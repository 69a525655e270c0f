"""Groups of parameters: factors of the rate, frozen parts, transfer learning on digits, greedy training."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxdl
from jaxdl import optim
from jaxdl.core.step import update
from jaxdl.models import transfer
from tests.steps import digits

RATE = 0.1


def _mlp_step(optimizer, **options):
    model = jaxdl.create_model("mlp", num_classes=10, widths=(6, 5))
    return jaxdl.gradient_step(jaxdl.tasks.classification(model), optimizer, **options)


def _batch(count=16):
    train, _ = digits()
    return {"x": jnp.asarray(train["x"][:count]), "y": jnp.asarray(train["y"][:count]), "weight": jnp.ones(count)}


def _hyper(step, **changes):
    return {name: jnp.float32(value) for name, value in {**step.hyper, **changes}.items()}


def _moved(optimizer, **changes):
    """Parameters before and after one update, by path, the state, and the report."""
    step = _mlp_step(optimizer, report_norm=True)
    before = step.init(np.uint32(0), _batch(), _hyper(step, **changes))
    # A sign that only exact arithmetic keeps.
    before = before.replace(params=jax.tree.map(lambda w: jnp.where(w == 0, -0.0, w), before.params))
    after, report = jax.jit(lambda state: update(step, state, _batch()))(before)
    old, new = _by_path(before.params), _by_path(after.params)
    return {path: (old[path], new[path]) for path in old}, after, report


def _by_path(tree):
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): np.asarray(leaf) for path, leaf in leaves}


def _same_bits(a, b):
    return a.tobytes() == b.tobytes()


def test_each_group_moves_by_its_factor_and_frozen_parameters_keep_their_bits():
    plain, _, _ = _moved(optim.sgd(RATE))
    grouped, _, _ = _moved(optim.groups({"hidden0/.*": 0, ".*/bias": 0.5}, optim.sgd(RATE)))
    for path, (old, new) in grouped.items():
        step = plain[path][1] - plain[path][0]
        assert np.abs(step).max() > 0
        factor = 0 if path.startswith("hidden0/") else 0.5 if path.endswith("bias") else 1
        if factor == 0:
            assert _same_bits(old, new)
        np.testing.assert_allclose(new - old, factor * step, rtol=1e-3, atol=1e-7)
    assert any(np.signbit(old[old == 0]).any() for old, _ in grouped.values())


def test_frozen_parameters_have_no_optimizer_state_no_gradient_and_no_decay():
    _, state, report = _moved(optim.groups({"hidden0/.*": 0.0}, optim.adamw(RATE, weight_decay=0.1)), clip_norm=1e-3)
    shapes = [leaf.shape for leaf in jax.tree.leaves(state.opt_state)]
    assert (64, 6) not in shapes and shapes.count((6, 5)) == 2
    step = _mlp_step(optim.sgd(RATE))
    start = step.init(np.uint32(0), _batch(), _hyper(step))
    gradient = step.measure(start, _batch()).total["gradient"]
    trained = {name: tree for name, tree in gradient.items() if name != "hidden0"}
    np.testing.assert_allclose(report.scalars["gradient_norm"], optax.tree.norm(trained) / 16, rtol=1e-5)


def test_penalties_do_not_enter_the_norm_of_what_is_frozen():
    norms = [_moved(optim.groups({".*": 0}, optim.sgd(RATE)), l2=5.0)[2].scalars["gradient_norm"]]
    assert norms == [0.0]


def test_rates_and_named_factors_are_traced_numbers_also_under_vmap():
    optimizer = optim.groups({"hidden0/.*": ("first", 0.1), "hidden1/.*": 0}, optim.adam(RATE))
    step = _mlp_step(optimizer)
    assert step.hyper == {"learning_rate": RATE, "first": 0.1}

    def after(hyper):
        return update(step, step.init(np.uint32(0), _batch(), hyper), _batch())[0].params

    trials = {"learning_rate": jnp.array([0.1, 0.01]), "first": jnp.array([0.5, 0.0])}
    together = jax.jit(jax.vmap(after))(trials)
    for trial in range(2):
        alone = jax.jit(after)({name: values[trial] for name, values in trials.items()})
        for one, many in zip(jax.tree.leaves(alone), jax.tree.leaves(together), strict=True):
            np.testing.assert_allclose(one, many[trial], rtol=1e-5, atol=1e-6)
    start = step.init(np.uint32(0), _batch(), _hyper(step)).params
    np.testing.assert_array_equal(together["hidden0"]["kernel"][1], start["hidden0"]["kernel"])
    assert not np.array_equal(together["hidden0"]["kernel"][0], start["hidden0"]["kernel"])


def test_an_expression_that_matches_nothing_is_refused_with_the_nearest_paths():
    with pytest.raises(ValueError, match=r"'hiden0/\.\*' matches no parameter; the nearest are hidden0/\.\*"):
        _moved(optim.groups({"hiden0/.*": 0}, optim.sgd(RATE)))
    with pytest.raises(ValueError, match="parameters are under hidden0, hidden1, logits"):
        _moved(optim.groups({"encoder/.*": 0}, optim.sgd(RATE)))
    with pytest.raises(ValueError, match="put it before them"):
        _moved(optim.groups({".*": 0.1, "logits/.*": 1}, optim.sgd(RATE)))
    train, _ = digits()
    task = jaxdl.tasks.classification(jaxdl.create_model("linear", num_classes=10))
    with pytest.raises(ValueError, match=r"'head/\.\*' matches no parameter"):
        jaxdl.fit(task, train, optimizer=optim.groups({"head/.*": 0}, optim.sgd(RATE)), steps=1, verbose=0)


@pytest.mark.parametrize(
    ("factors", "problem"),
    [
        ({}, "takes {expression: factor}"),
        ({"a": -1}, "is -1: a number of at least 0"),
        ({"a": "slow"}, "is 'slow'"),
        ({"a": ("learning_rate", 0.1)}, "as a number of the optimizer"),
        ({"a(": 1}, "no regular expression"),
    ],
)
def test_groups_refuse_what_is_no_factor(factors, problem):
    with pytest.raises(ValueError, match=problem):
        optim.groups(factors, optim.sgd(RATE))


def test_groups_refuse_a_finished_transformation():
    with pytest.raises(TypeError, match=r"optax\.transforms\.partition"):
        optim.groups({".*": 0}, optax.sgd(0.1))


# ---- transfer learning on digits --------------------------------------------------------------------------


def _few(dataset, each):
    """The first `each` examples of every digit."""
    y = np.asarray(dataset["y"])
    return dataset.select(np.concatenate([np.flatnonzero(y == digit)[:each] for digit in range(10)]))


def _in_pairs(dataset):
    """Another question about the same pictures: 0 or 1, 2 or 3, 4 or 5, 6 or 7, 8 or 9?"""
    return {"x": dataset["x"], "y": np.asarray(dataset["y"]) // 2}


def _convnet(classes, **options):
    return jaxdl.create_model("convnet", num_classes=classes, width=8, hidden=32, dropout=0.0, **options)


def test_a_new_head_on_frozen_stages_learns_more_from_few_examples_than_a_new_network():
    train, test = jaxdl.data.load("digits")
    settings = {"batch_size": 32, "verbose": 0}
    task = jaxdl.tasks.classification(_convnet(10, batch_norm=True))
    pretrained = jaxdl.fit(task, train, optimizer=optim.adam(3e-3), epochs=8, **settings).variables

    model = _convnet(5, batch_norm=True)
    started = transfer(model, pretrained, (1, 8, 8, 1))
    assert started.fresh == ("logits/bias", "logits/kernel") and started.left == started.fresh
    few, rest = _in_pairs(_few(train, 2)), _in_pairs(test)
    task = jaxdl.tasks.classification(model)
    frozen = optim.groups({"(conv|norm)[01]/.*": 0, "dense/.*": 0.01}, optim.adam(1e-2))
    tuned = jaxdl.fit(task, few, optimizer=frozen, steps=60, start=started.variables, **settings)
    scratch = jaxdl.fit(task, few, optimizer=optim.adam(1e-2), steps=60, **settings)

    before, after = _by_path(started.variables), _by_path(tuned.variables)
    for path, value in after.items():
        held = "conv" in path or "norm" in path
        assert _same_bits(before[path], value) == held, path
    good, poor = tuned.evaluate(rest)["accuracy"], scratch.evaluate(rest)["accuracy"]
    assert good > poor + 0.05 and good > 0.7, (good, poor)


def test_greedy_training_adds_one_block_at_a_time():
    train, test = jaxdl.data.load("digits")
    settings = {"batch_size": 64, "verbose": 0, "epochs": 3}
    first = _convnet(10, depth=1)
    run = jaxdl.fit(jaxdl.tasks.classification(first), train, optimizer=optim.adam(3e-3), **settings)
    shallow = run.variables
    second = _convnet(10, depth=2)
    started = transfer(second, shallow, (1, 8, 8, 1), new=r"conv1/.*|dense/.*|logits/.*")
    only = optim.groups({"conv0/.*": 0}, optim.adam(3e-3))
    run = jaxdl.fit(jaxdl.tasks.classification(second), train, optimizer=only, start=started.variables, **settings)
    assert _same_bits(np.asarray(shallow["params"]["conv0"]["kernel"]), np.asarray(run.state.params["conv0"]["kernel"]))
    assert not _same_bits(
        np.asarray(started.variables["params"]["conv1"]["kernel"]), np.asarray(run.state.params["conv1"]["kernel"])
    )
    assert run.evaluate(test)["accuracy"] > 0.85


def test_what_is_frozen_keeps_its_bits_in_the_average_and_through_every_option():
    train, _ = digits()
    model = _convnet(10, batch_norm=True)
    task = jaxdl.tasks.classification(model)
    start = jaxdl.fit(task, train, steps=2, batch_size=64, verbose=0).variables
    start["params"]["norm0"]["bias"] = start["params"]["norm0"]["bias"].at[0].set(-0.0)
    run = jaxdl.fit(
        task, train, steps=2, batch_size=64, verbose=0, start=start, average=0.9, accumulate=2, guard=True,
        optimizer=optim.groups({"(conv|norm)0/.*": 0}, optim.adamw(1e-2, weight_decay=0.1)),
        hyper={"clip_norm": 0.5, "l2": 1e-3},
    )  # fmt: skip
    before, averaged = _by_path(start), _by_path(run.variables)
    last = _by_path({**run.variables, "params": run.state.params})
    for path, value in before.items():
        held = "conv0" in path or "norm0" in path
        assert _same_bits(value, last[path]) == _same_bits(value, averaged[path]) == held, path


def test_transfer_names_what_does_not_fit():
    shallow, deep = _convnet(10, depth=1), _convnet(10, depth=2)
    shapes = jax.eval_shape(lambda: shallow.init(jax.random.key(0), jnp.ones((1, 8, 8, 1)), train=False))
    variables = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    with pytest.raises(ValueError, match=r"2 missing \(conv1/bias, conv1/kernel\); 1 of another shape \(dense/kernel"):
        transfer(deep, variables, (1, 8, 8, 1))
    variables["params"]["extra"] = {"kernel": jnp.ones(3)}
    with pytest.raises(ValueError, match=r"1 unexpected \(extra/kernel\)"):
        transfer(shallow, variables, (1, 8, 8, 1))


def test_a_run_in_groups_is_saved_and_resumed_exactly(tmp_path):
    train, _ = digits()
    task = jaxdl.tasks.classification(jaxdl.create_model("mlp", num_classes=10, widths=(6,)))
    settings = {"optimizer": optim.groups({"hidden0/.*": 0}, optim.adam(1e-2)), "batch_size": 64, "verbose": 0}
    whole = jaxdl.fit(task, train, steps=6, **settings)
    jaxdl.fit(task, train, steps=3, checkpoint=str(tmp_path / "run"), **settings)
    resumed = jaxdl.fit(task, train, steps=6, checkpoint=str(tmp_path / "run"), **settings)
    for one, two in zip(_leaves(whole), _leaves(resumed), strict=True):
        assert _same_bits(one, two)


def _leaves(run):
    return [np.asarray(leaf) for leaf in jax.tree.leaves((run.state.params, run.state.opt_state))]
