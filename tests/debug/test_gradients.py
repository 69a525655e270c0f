"""Gradient checking passes right gradients of every kind of program and names the path of a wrong one."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdl import tasks
from jaxdl.debug import check_gradients
from jaxdl.models import create_model

_KEY = jax.random.key(0)
_X = jax.random.normal(_KEY, (6, 5))
_Y = jnp.arange(6) % 3


def _weights(**shapes):
    keys = jax.random.split(_KEY, len(shapes))
    return {name: jax.random.normal(key, shape) for key, (name, shape) in zip(keys, shapes.items(), strict=True)}


def _check(apply, params, y=_Y, x=_X, loss="softmax_cross_entropy", **options):
    task = tasks.from_functions(init=lambda key, x: params, apply=apply, loss=loss)
    return check_gradients(task, {"params": params}, {"x": x, "y": y}, **options)


@jax.custom_vjp
def _wrong(x):
    """x, but its gradient loses 1 %."""
    return x * 1.0


_wrong.defvjp(lambda x: (_wrong(x), None), lambda _, g: (g * 0.99,))


def _two_layers(params, x):
    return jnp.tanh(x @ params["inner"]) @ params["outer"]


@pytest.mark.smoke
def test_a_right_gradient_passes_and_a_wrong_one_is_named():
    params = _weights(inner=(5, 4), outer=(4, 3))
    right = _check(_two_layers, params)
    assert right.passed and right.worst.error < 1e-7, str(right)
    assert [block.path for block in right.blocks] == ["inner", "outer"]

    wrong = _check(lambda p, x: _two_layers({**p, "inner": _wrong(p["inner"])}, x), params)
    assert not wrong.passed and wrong.worst.path == "inner"
    assert wrong.worst.error == pytest.approx(0.01, rel=1e-3)
    outer = wrong.blocks[1]
    assert outer.path == "outer" and outer.error < 1e-7
    assert "FAILED: inner" in str(wrong) and str(wrong).count("WRONG") == 1


def test_a_wrong_gradient_of_one_element_is_seen_without_sampling_it():
    @jax.custom_vjp
    def spoilt(w):
        return w * 1.0

    # Element (37, 2) has a small gradient, so it is not the steepest, and only one in 600 is sampled.
    spoilt.defvjp(lambda w: (spoilt(w), None), lambda _, g: (g.at[37, 2].set(0.0),))
    x = jax.random.normal(_KEY, (6, 200)).at[:, 37].multiply(0.5)
    params = _weights(w=(200, 3))
    report = _check(lambda p, x: x @ spoilt(p["w"]), params, x=x, samples_per_block=1)
    assert report.worst.where == "a direction through all" and not report.passed
    assert _check(lambda p, x: x @ p["w"], params, x=x, samples_per_block=1).passed


def test_float32_and_bfloat16_casts_constants_and_carries_do_not_matter():
    offset = np.linspace(-1, 1, 4, dtype=np.float32)

    def apply(params, x):
        hidden = (x @ params["inner"]).astype(jnp.bfloat16).astype(jnp.float32) + jnp.asarray(offset)[None]

        def step(carry, row):
            carry = jnp.tanh(carry * jnp.float32(0.5) + row)
            return carry, carry.astype(jnp.float32)

        last, rows = jax.lax.scan(step, jnp.zeros((6, 4), jnp.float32), jnp.stack([hidden, hidden * 2]))
        return jax.lax.reduce_precision(last + rows.sum(0), 8, 12).astype(jnp.float32) @ params["outer"]

    report = _check(apply, _weights(inner=(5, 4), outer=(4, 3)))
    assert report.passed and report.worst.error < 1e-7, str(report)


def test_loops_branches_checkpoints_gathers_and_custom_rules():
    tokens = jnp.array([[0, 2, 1], [2, 2, 0], [1, 1, 1], [0, 0, 2], [1, 2, 0], [2, 0, 1]])

    def apply(params, x):
        rows = params["table"][x].mean(1)
        rows = jax.lax.fori_loop(0, 3, lambda i, r: jnp.sin(r) * 1.1, rows)
        rows = jax.lax.cond(rows[0, 0] > 0, lambda r: r * 2, lambda r: r * r, rows)
        rows = jax.checkpoint(lambda r, w: jax.nn.silu(jax.nn.gelu(r) @ w))(rows, params["w"])
        return rows + jnp.zeros((6, 3)).at[jnp.array([1, 1, 4])].add(jnp.sin(params["bias"]))

    report = _check(apply, _weights(table=(3, 4), w=(4, 3), bias=(3, 3)), x=tokens)
    assert report.passed and report.worst.error < 1e-6, str(report)


def test_kinks_are_counted_and_not_reported():
    x = _X.at[:, 0].set(0.0)  # row 0 of the kernel never matters
    params = {"w": _weights(w=(5, 3))["w"], "bias": jnp.zeros(3), "gate": jnp.zeros(3)}

    def apply(p, x):
        # relu(gate) sits exactly on its kink: the slope is 0 on one side and not on the other
        return jnp.abs(x @ p["w"] + p["bias"][None]) + jax.nn.relu(p["gate"])[None] * jnp.array([[1.0, 2.0, 3.0]])

    report = _check(apply, params, x=x)
    by_path = {block.path: block for block in report.blocks}
    assert report.passed, str(report)
    assert by_path["gate"].kinks == by_path["gate"].probes == 3
    assert by_path["w"].kinks == by_path["bias"].kinks == 0


def test_a_derivative_beyond_both_sides_of_a_kink_is_wrong():
    params = {"gate": jnp.zeros(3)}

    def apply(p, x):
        # the slope is 1 at 0, but autodiff adds relu's 0 to relu's 0
        return (jax.nn.relu(p["gate"]) - jax.nn.relu(-p["gate"]))[None] + x[:, :3]

    assert not _check(apply, params).passed

    @jax.custom_vjp
    def steep(x):
        return jax.nn.relu(x)

    # the slope is 0 on one side and 1 on the other: 2 is no subgradient
    steep.defvjp(lambda x: (steep(x), None), lambda _, g: (g * 2,))
    assert not _check(lambda p, x: steep(p["gate"])[None] + x[:, :3], params).passed


def test_a_convnet_with_batch_norm_and_dropout_passes():
    model = create_model("convnet", num_classes=3, width=2, depth=1, hidden=4, batch_norm=True, dropout=0.3)
    task = tasks.classification(model, label_smoothing=0.1)
    batch = {
        "x": jax.random.normal(_KEY, (6, 4, 4, 1)),
        "y": _Y,
        "weight": jnp.array([1.0, 2.0, 0.5, 1.0, 0.0, 0.0]),
    }
    variables = jax.jit(task.init)(_KEY, batch)
    # Away from the initial zeros, where whole channels of relu and pooling sit on their kinks.
    params = jax.tree.map(lambda leaf: leaf + 0.1 * jax.random.normal(_KEY, leaf.shape), variables["params"])
    report = check_gradients(task, {**variables, "params": params}, batch, samples_per_block=3)
    assert report.passed, str(report)
    assert {"conv0/kernel", "norm0/scale", "logits/bias"} <= {block.path for block in report.blocks}

    def spoilt(variables, batch, context):
        params = variables["params"]
        norm = {**params["norm0"], "scale": _wrong(params["norm0"]["scale"])}
        return task.loss({**variables, "params": {**params, "norm0": norm}}, batch, context)

    report = check_gradients(task._replace(loss=spoilt), {**variables, "params": params}, batch, samples_per_block=1)
    assert not report.passed and report.worst.path == "norm0/scale"


def test_the_rest_of_the_process_stays_in_float32_and_inputs_stay_as_they_were():
    params = _weights(inner=(5, 4), outer=(4, 3))
    before = jax.tree.map(np.array, params)
    _check(_two_layers, params)
    assert jnp.ones(1).dtype == jnp.float32
    jax.tree.map(np.testing.assert_array_equal, params, before)


def test_the_report_is_frozen_and_a_loss_that_is_nan_is_refused():
    report = _check(_two_layers, _weights(inner=(5, 4), outer=(4, 3)))
    with pytest.raises(dataclasses.FrozenInstanceError):
        report.tolerance = 1.0
    with pytest.raises(ValueError, match="the loss of this batch is nan"):
        _check(_two_layers, _weights(inner=(5, 4), outer=(4, 3)), y=_Y.at[0].set(7))
    with pytest.raises(ValueError, match="floating-point parameters"):
        _check(lambda p, x: x[:, :3], {"w": jnp.arange(3)})
