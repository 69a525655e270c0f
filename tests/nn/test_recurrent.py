"""Recurrent layers: torch's and keras's numbers, padding and lengths, chunks, resets, truncation, zoneout, cuDNN."""

from __future__ import annotations

import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdl import nn
from jaxdl.nn import cudnn, recurrent_cells
from jaxdl.nn.recurrent import RNN
from jaxdl.nn.recurrent_cells import CELLS
from tests.models.drawn import drawn_input, drawn_state

PEER = np.load(Path(__file__).parents[1] / "fixtures" / "models_recurrent.npz")
BATCH, TIME, INPUTS, HIDDEN = 3, 6, 5, 4
LENGTHS = jnp.array([6, 4, 1])
X = jnp.asarray(drawn_input((BATCH, TIME, INPUTS)))


def torch_parameters(cell: str) -> dict[str, dict[str, np.ndarray]]:
    """Two layers in both directions, with the weights of the fixture."""
    gates = CELLS[cell].gates
    parameters = {}
    for layer in range(2):
        for ours, theirs in (("", ""), ("_backward", "_reverse")):
            ending, inputs = f"_l{layer}{theirs}", 2 * HIDDEN if layer else INPUTS
            rows = gates * HIDDEN
            state = drawn_state(
                {
                    f"weight_ih{ending}": (rows, inputs),
                    f"weight_hh{ending}": (rows, HIDDEN),
                    f"bias_ih{ending}": (rows,),
                    f"bias_hh{ending}": (rows,),
                }
            )
            inner, recurrent = state[f"bias_ih{ending}"], state[f"bias_hh{ending}"].copy()
            leaf = {"kernel": state[f"weight_ih{ending}"].T, "recurrent_kernel": state[f"weight_hh{ending}"].T}
            if cell == "gru":
                leaf["recurrent_bias"] = recurrent[2 * HIDDEN :].copy()
                recurrent[2 * HIDDEN :] = 0
            parameters[f"layer{layer}{ours}"] = leaf | {"bias": inner + recurrent}
    return parameters


def close(a, b, tolerance=1e-5):
    np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * max(1e-3, float(np.max(np.abs(b)))))


@functools.cache
def drawn(module, inputs, seed):
    x = jax.ShapeDtypeStruct((BATCH, TIME, inputs), jnp.float32)
    init = functools.partial(module.init, train=False)
    shapes = jax.eval_shape(init, jax.random.key(0), x)
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: (0.4 * rng.normal(size=leaf.shape)).astype(np.float32), shapes)


def start(module, x=X, seed=0):
    """Weights under which no error hides: biases are not zero."""
    return jax.tree.map(jnp.asarray, drawn(module, x.shape[-1], seed))


@functools.cache
def compiled(module):
    return jax.jit(functools.partial(module.apply, train=False))


def apply(module, variables, x, **options):
    """One compiled call, outside training."""
    return compiled(module)(variables, x, **options)


@pytest.mark.parametrize("cell", ["lstm", "gru", "vanilla"])
def test_numbers_are_torchs(cell):
    module, parameters = RNN(HIDDEN, cell, layers=2, bidirectional=True), torch_parameters(cell)
    assert jax.tree.map(np.shape, start(module)["params"]) == jax.tree.map(np.shape, parameters)
    run = jax.jit(lambda p: module.apply({"params": p}, X, train=False, lengths=LENGTHS))
    y, carry = run(parameters)
    close(y, PEER[f"{cell}/y"])
    for name in CELLS[cell].carries:
        last = [carry[f"layer{layer}{end}"][name] for layer in range(2) for end in ("", "_backward")]
        close(jnp.stack(last), PEER[f"{cell}/{name}"])
    close(nn.last_hidden(carry), np.concatenate(list(PEER[f"{cell}/h"][-2:]), -1))
    # what implementations get wrong must be seen
    wrong = [run({**parameters, "layer0": {**parameters["layer0"], "bias": 0 * parameters["layer0"]["bias"]}})[0]]
    wrong.append(run({**parameters, "layer1": parameters["layer1_backward"]})[0])
    wrong.append(jax.jit(lambda p: module.apply({"params": p}, X, train=False))(parameters)[0])
    for y in wrong:
        assert np.max(np.abs(y - PEER[f"{cell}/y"])) > 1e-3


def test_the_gru_that_resets_before_the_product_is_kerass():
    shapes = {"kernel": (INPUTS, 3 * HIDDEN), "recurrent_kernel": (HIDDEN, 3 * HIDDEN), "bias": (3 * HIDDEN,)}
    keras = drawn_state(shapes)
    order = np.r_[HIDDEN : 2 * HIDDEN, :HIDDEN, 2 * HIDDEN : 3 * HIDDEN]  # keras has z before r
    parameters = {"layer0": {name: value[..., order] for name, value in keras.items()}}
    y, _ = apply(RNN(HIDDEN, "gru_reset_before"), {"params": parameters}, X)
    close(y, PEER["gru_reset_before/y"])
    unordered, _ = apply(RNN(HIDDEN, "gru_reset_before"), {"params": {"layer0": keras}}, X)
    assert np.max(np.abs(unordered - PEER["gru_reset_before/y"])) > 1e-3


def plain_loop(name, weights, carry, xs, holds, *, reverse=False):
    """The same loop without a gradient of its own, step by step in Python."""
    cell, outputs = CELLS[name], {}
    for t in reversed(range(xs.shape[0])) if reverse else range(xs.shape[0]):
        old = carry if holds.keep is None else {key: holds.keep[t] * value for key, value in carry.items()}
        new = cell.step(weights, old, xs[t])
        if holds.shares is not None:
            new = {key: holds.shares[key][t] * new[key] + (1 - holds.shares[key][t]) * old[key] for key in new}
        carry, outputs[t] = new, new["h"].astype(xs.dtype)
    return jnp.stack([outputs[t] for t in range(xs.shape[0])]), carry


@pytest.mark.parametrize("options", [{}, {"lengths": LENGTHS, "resets": X[:, :, 0] > 0.5}], ids=["plain", "held"])
def test_the_gradient_of_the_lstm_is_that_of_its_steps(options, monkeypatch):
    module = RNN(HIDDEN, layers=2, bidirectional=True, residual=True)
    variables = start(module)
    carry = jax.tree.map(lambda leaf: leaf + 0.3, module.start(BATCH))

    def loss(variables, x, carry):
        y, last = module.apply(variables, x, train=False, carry=carry, **options)
        return jnp.sum(y**2) + sum(jnp.sum(jnp.sin(leaf)) for leaf in jax.tree.leaves(last))

    ours = jax.jit(jax.grad(loss, (0, 1, 2)))(variables, X, carry)
    monkeypatch.setattr("jaxdl.nn.recurrent.over_time", plain_loop)
    theirs = jax.jit(jax.grad(lambda *a: loss(*a), (0, 1, 2)))(variables, X, carry)
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        assert np.any(b != 0)
        close(a, b)


def test_the_gradient_of_the_lstm_in_bfloat16_is_near_that_in_float32():
    module = RNN(HIDDEN)
    params = start(module)["params"]

    def gradient(dtype):
        low = jax.tree.map(lambda leaf: leaf.astype(dtype), params)
        found = jax.grad(lambda p: jnp.sum(apply(module, {"params": p}, X.astype(dtype))[0].astype(jnp.float32) ** 2))(
            low
        )
        assert {leaf.dtype for leaf in jax.tree.leaves(found)} == {jnp.dtype(dtype)}
        return found

    for a, b in zip(*map(jax.tree.leaves, (gradient(jnp.bfloat16), gradient(jnp.float32))), strict=True):
        close(a.astype(jnp.float32), b, 0.05)


SOME = [pytest.param(cell, marks=() if cell in ("lstm", "gru") else pytest.mark.slow) for cell in CELLS]


@pytest.mark.parametrize("cell", SOME)
def test_padding_changes_nothing_and_says_nothing(cell):
    module = RNN(HIDDEN, cell, layers=2, bidirectional=True)
    variables = start(module)
    run = jax.jit(lambda x: module.apply(variables, x, train=False, lengths=LENGTHS))
    y, carry = run(X)
    garbage = jnp.where(jnp.arange(TIME)[None, :, None] < LENGTHS[:, None, None], X, jnp.nan)
    for a, b in zip(jax.tree.leaves(run(garbage)), jax.tree.leaves((y, carry)), strict=True):
        np.testing.assert_array_equal(a, b)
    for row, length in enumerate(LENGTHS.tolist()):
        assert not np.any(y[row, length:])
        alone, last = apply(module, variables, X[row : row + 1, :length])
        close(y[row, :length], alone[0])
        for a, b in zip(jax.tree.leaves(carry), jax.tree.leaves(last), strict=True):
            close(a[row], b[0])


def test_the_backward_layer_reads_within_the_length():
    module = RNN(HIDDEN, bidirectional=True)
    params = start(module)["params"]
    y, carry = apply(module, {"params": params}, X, lengths=LENGTHS)
    ahead = {"params": {"layer0": params["layer0_backward"]}}
    for row, length in enumerate(LENGTHS.tolist()):
        flipped, last = apply(RNN(HIDDEN), ahead, X[row : row + 1, :length][:, ::-1])
        close(y[row, :length, HIDDEN:], flipped[0, ::-1])
        close(carry["layer0_backward"]["h"][row], last["layer0"]["h"][0])


@pytest.mark.parametrize("cell", SOME)
def test_chunks_that_hand_on_the_carry_are_the_whole(cell):
    module = RNN(HIDDEN, cell, layers=2, residual=True)
    variables = start(module)
    whole, last = apply(module, variables, X)
    carry, parts = module.start(BATCH), []
    for begin, end in ((0, 2), (2, 4), (4, TIME)):
        part, carry = apply(module, variables, X[:, begin:end], carry=carry)
        parts.append(part)
    close(jnp.concatenate(parts, 1), whole)
    for a, b in zip(jax.tree.leaves(carry), jax.tree.leaves(last), strict=True):
        close(a, b)


@pytest.mark.parametrize("bidirectional", [False, True])
def test_a_reset_separates_documents(bidirectional):
    module = RNN(HIDDEN, layers=2, bidirectional=bidirectional)
    variables = start(module)
    resets = jnp.zeros((BATCH, TIME), jnp.bool_).at[:, 2].set(True)
    y, _ = apply(module, variables, X, resets=resets)
    first, second = (apply(module, variables, part)[0] for part in (X[:, :2], X[:, 2:]))
    close(y, jnp.concatenate([first, second], 1))
    gradient = jax.jit(jax.grad(lambda x: jnp.sum(apply(module, variables, x, resets=resets)[0][:, 3])))(X)
    assert not np.any(gradient[:, :2]) and np.any(gradient[:, 2:])


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_a_reset_clears_whatever_stood_there(cell):
    module, resets = RNN(HIDDEN, cell), jnp.zeros((BATCH, TIME), jnp.bool_).at[:, 0].set(True)
    variables = drawn(module, INPUTS, 0)
    spoilt = jax.tree.map(lambda leaf: leaf * jnp.nan, module.start(BATCH))

    def total(x, carry):
        return jnp.sum(module.apply(variables, x, train=False, carry=carry, resets=resets)[0] ** 2)

    grad = jax.jit(jax.value_and_grad(total))
    for ours, wanted in zip(grad(X, spoilt), grad(X, module.start(BATCH)), strict=True):
        np.testing.assert_array_equal(ours, wanted)


def test_truncated_gradients_are_those_of_the_last_chunk_with_a_constant_carry():
    module = RNN(HIDDEN, layers=2)
    variables = start(module)

    def truncated(variables, stop):
        _, carry = apply(module, variables, X[:, :3])
        carry = nn.stop_carry(carry) if stop else carry
        return jnp.sum(apply(module, variables, X[:, 3:], carry=carry)[0] ** 2)

    _, constant = apply(module, variables, X[:, :3])
    wanted = jax.jit(jax.grad(lambda v: jnp.sum(apply(module, v, X[:, 3:], carry=constant)[0] ** 2)))(variables)
    found, whole = (jax.jit(jax.grad(functools.partial(truncated, stop=stop)))(variables) for stop in (True, False))
    for a, b, full in zip(*map(jax.tree.leaves, (found, wanted, whole)), strict=True):
        close(a, b)
        assert np.max(np.abs(full - b)) > 1e-4


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_zoneout_keeps_numbers_in_training_and_their_mean_outside(cell):
    module = RNN(HIDDEN, cell, zoneout=0.4)
    variables = start(module, X[:, :1])
    carry = jax.tree.map(lambda leaf: leaf + 0.5, module.start(BATCH))
    fresh = apply(RNN(HIDDEN, cell), variables, X[:, :1], carry=carry)[1]["layer0"]
    _, moved = apply(module, variables, X[:, :1], carry=carry)
    keys = jax.random.split(jax.random.key(0), 200)
    run = jax.vmap(lambda key: module.apply(variables, X[:, :1], train=True, carry=carry, rngs={"dropout": key})[1])
    zoned = jax.jit(run)(keys)["layer0"]
    for name, new in fresh.items():
        close(moved["layer0"][name], 0.6 * new + 0.4 * 0.5)
        kept = np.isclose(zoned[name], 0.5, atol=1e-6)
        np.testing.assert_allclose(zoned[name][~kept], np.broadcast_to(new, zoned[name].shape)[~kept], atol=1e-6)
        assert 0.35 < kept.mean() < 0.45
    text = str(jax.make_jaxpr(lambda: RNN(HIDDEN, cell).apply(variables, X, train=True))())
    assert "random" not in text and "threefry" not in text


def test_residual_layers_add_their_input():
    plain, residual = RNN(HIDDEN, layers=2), RNN(HIDDEN, layers=2, residual=True)
    params = start(plain)["params"]
    first, _ = apply(RNN(HIDDEN), {"params": {"layer0": params["layer0"]}}, X)
    second, _ = apply(plain, {"params": params}, X)
    close(apply(residual, {"params": params}, X)[0], first + second)


def test_dropout_stands_between_layers_only():
    one, two = RNN(HIDDEN, dropout=0.5), RNN(HIDDEN, layers=2, dropout=0.5)
    for module, differs in ((one, False), (two, True)):
        variables = start(module)
        first, second = (
            module.apply(variables, X, train=True, rngs={"dropout": jax.random.key(seed)})[0] for seed in (0, 1)
        )
        assert bool(np.any(first != second)) == differs


def test_a_forget_gate_starts_open():
    params = RNN(HIDDEN).init(jax.random.key(0), X, train=False)["params"]["layer0"]
    assert params["bias"].tolist() == [0.0] * HIDDEN + [1.0] * HIDDEN + [0.0] * 2 * HIDDEN
    recurrent = np.asarray(params["recurrent_kernel"])
    close(recurrent @ recurrent.T, np.eye(HIDDEN), 1e-5)


def test_trials_run_side_by_side():
    module = RNN(HIDDEN)
    params = [start(module, seed=seed)["params"] for seed in (0, 1)]
    gradient = jax.grad(lambda p: jnp.sum(apply(module, {"params": p}, X)[0] ** 2))
    both = jax.vmap(gradient)(jax.tree.map(lambda *leaves: jnp.stack(leaves), *params))
    for number, each in enumerate(params):
        for a, b in zip(jax.tree.leaves(both), jax.tree.leaves(gradient(each)), strict=True):
            close(a[number], b)


# ---- cuDNN -----------------------------------------------------------------------------------------------------------


def lstm_by_jaxs_reference(x, h, c, weights, lengths, inputs, hidden, layers, dropout, both):
    """jax's own reading of cuDNN's weights, on any backend."""
    from jax.experimental import rnn

    parts = rnn.unpack_lstm_weights(weights, inputs, hidden, layers, both)
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        return rnn.lstm_ref(x, h, c, *parts, lengths, inputs, hidden, layers, dropout, both)


@pytest.mark.parametrize("bidirectional", [False, True])
def test_cudnn_reads_the_same_parameters(bidirectional, monkeypatch):
    scan = RNN(HIDDEN, layers=2, bidirectional=bidirectional, residual=True)
    variables = start(scan)
    carry = jax.tree.map(lambda leaf: leaf + 0.2, scan.start(BATCH))
    wanted = apply(scan, variables, X, lengths=LENGTHS, carry=carry)
    monkeypatch.setattr("jax.experimental.rnn.lstm", lstm_by_jaxs_reference)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    found = jax.jit(functools.partial(scan.clone(backend="cudnn").apply, train=False))(
        variables, X, lengths=LENGTHS, carry=carry
    )
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        close(a, b)


@pytest.mark.parametrize("both", [False, True])
def test_cudnns_weights_come_back(both):
    layers = [start(RNN(HIDDEN), seed=seed)["params"]["layer0"] for seed in range(1 + both)]
    packed = cudnn.pack_weights(layers)
    for ours, back in zip(layers, cudnn.unpack_weights(packed, INPUTS, HIDDEN, 1 + both), strict=True):
        jax.tree.map(np.testing.assert_array_equal, dict(ours), back)
    with pytest.raises(ValueError, match="numbers, not"):
        cudnn.unpack_weights(packed[1:], INPUTS, HIDDEN, 1 + both)


@pytest.mark.skipif(jax.default_backend() != "gpu", reason="cuDNN needs an NVIDIA GPU")
@pytest.mark.parametrize("bidirectional", [False, True])
def test_cudnn_gives_the_scans_numbers_and_gradients(bidirectional):
    scan = RNN(HIDDEN, layers=2, bidirectional=bidirectional)
    variables = start(scan)

    def loss(variables, backend):
        y, last = scan.clone(backend=backend).apply(variables, X, train=False, lengths=LENGTHS)
        return jnp.sum(y**2) + sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(last))

    with jax.default_matmul_precision("highest"):
        ours, theirs = (jax.grad(loss)(variables, backend) for backend in ("scan", "cudnn"))
    for a, b in zip(jax.tree.leaves(theirs), jax.tree.leaves(ours), strict=True):
        close(a, b, 1e-4)


# ---- sentences -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "given", "sentence"),
    [
        ({"cell": "lstn"}, {}, "did you mean 'lstm'"),
        ({"backend": "gpu"}, {}, "choose one of 'scan', 'cudnn'"),
        ({"backend": "cudnn"}, {}, 'jax runs on cpu; backend="scan" gives the same numbers'),
        ({"backend": "cudnn", "cell": "gru"}, {}, "it has no 'gru' here"),
        ({"layers": 0}, {}, "at least one"),
        ({"zoneout": 1.0}, {}, r"lies in \[0, 1\), not 1.0"),
        ({}, {"lengths": LENGTHS[:2]}, r"lengths has shape \[2\]"),
        ({}, {"resets": X[:, :2, 0] > 0}, r"resets has shape \[3, 2\]"),
        ({}, {"carry": {"layer0": {"h": jnp.zeros((BATCH, HIDDEN))}}}, "the carry's shapes are"),
    ],
)
@pytest.mark.skipif(jax.default_backend() == "gpu", reason="the sentences of a CPU")
def test_what_cannot_be_is_refused(options, given, sentence):
    module = RNN(HIDDEN, **options)
    with pytest.raises(ValueError, match=sentence):
        module.init(jax.random.key(0), X, train=False, **given)


def test_tokens_are_to_be_embedded():
    with pytest.raises(ValueError, match="embed tokens"):
        RNN(HIDDEN).init(jax.random.key(0), jnp.zeros((2, 3), jnp.int32), train=False)


def test_every_cell_has_a_step_of_its_own():
    assert len({cell.step for cell in CELLS.values()}) == len(CELLS)
    assert recurrent_cells.cell_named("gru").recurrent_bias
