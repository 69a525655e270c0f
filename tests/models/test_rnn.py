"""Recurrent models: kept carries under fit, truncation, document ends, padding, decoding, torch, translation."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdl
from jaxdl import nn, tasks
from jaxdl.data import TokenStreams, token_windows
from jaxdl.models import create_model, decoding, export_weights, import_weights
from tests.models.drawn import drawn_state
from tests.steps import same_bits

VOCABULARY = 9
TEXT = np.random.default_rng(0).integers(0, VOCABULARY, 200).astype(np.uint8)
SMALL = {"num_classes": VOCABULARY, "width": 8}


def started(model, x, seed=0):
    return jax.jit(functools.partial(model.init, train=False))({"params": nn.light_key(jax.random.key(seed))}, x)


def told(model, variables, x, **rest):
    """Compiled whole: op by op a loop over time costs several times as much."""
    return jax.jit(functools.partial(model.apply, train=False))(variables, x, **rest)


def close(a, b, tolerance=1e-5):
    np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * max(1e-3, float(np.max(np.abs(b)))))


# ---- a carry that stays between batches ------------------------------------------------------------------------------


def by_hand(model, params, feed, epochs):
    """Mean losses by epoch and the last carry, window after window, from zeros at the beginning of each epoch."""

    @jax.jit
    def window(carry, batch):
        losses = []
        for t in range(feed.length):
            logits, carry = model.apply({"params": params}, carry, batch["x"][:, t], method="step")
            losses.append(nn.softmax_cross_entropy(logits, batch["y"][:, t]))
        return carry, jnp.stack(losses).mean()

    take = jax.jit(feed.take)
    found = []
    for epoch in range(epochs):
        carry, losses = model.start(feed.streams), []
        for step in range(feed.steps_per_epoch):
            block = feed.block(3, epoch * feed.steps_per_epoch + step, 1)
            batch = take(feed.data, jax.tree.map(lambda leaf: leaf[0], block))
            carry, loss = window(carry, batch)
            losses.append(float(loss))
        found.append(np.mean(losses))
    return found, carry


def test_a_carry_stays_with_its_stream_and_begins_anew_with_each_epoch(tmp_path):
    model = create_model("lstm_language_model", **SMALL, stateful=True)
    feed = TokenStreams(TEXT, 4, 5)
    fit = functools.partial(
        jaxdl.fit, tasks.language_model(model), feed, optimizer=jaxdl.optim.sgd(0.0), seed=3, verbose=0
    )
    run = fit(epochs=2)
    losses, carry = by_hand(model, run.state.params, feed, 2)
    assert [record["train:loss"] for record in run.history] == pytest.approx(losses, rel=1e-5)
    for ours, wanted in zip(jax.tree.leaves(run.state.model_state["carry"]), jax.tree.leaves(carry), strict=True):
        close(ours, wanted)
    # and after a resume in the middle of an epoch, and in parts
    for steps in (3, feed.steps_per_epoch + 2, 2 * feed.steps_per_epoch):
        resumed = fit(steps=steps, checkpoint=str(tmp_path / "run"))
    assert same_bits(resumed.state, run.state)
    halves = fit(epochs=2, accumulate=2)
    assert [record["train:loss"] for record in halves.history] == pytest.approx(losses, rel=1e-5)


def test_gradients_end_at_the_window():
    model = create_model("lstm_language_model", **SMALL, stateful=True)
    x, y = (jnp.asarray(TEXT[:80].reshape(4, 20)[:, at : at + 10], jnp.int32) for at in (0, 10))
    variables = started(model, x)

    def loss(params, before):
        _, kept = model.apply({"params": before, "carry": variables["carry"]}, x, train=True, mutable=["carry"])
        logits, _ = model.apply({"params": params, **kept}, y, train=True, mutable=["carry"])
        return jnp.sum(logits**2)

    params = variables["params"]
    whole, earlier = jax.jit(jax.grad(loss, (0, 1)))(params, params)
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(earlier))
    carry = jax.jit(functools.partial(model.apply, train=True, mutable=["carry"]))(variables, x)[1]["carry"]["streams"]
    stateless = create_model("lstm_language_model", **SMALL)
    wanted = jax.jit(jax.grad(lambda p: jnp.sum(stateless.apply({"params": p}, y, train=False, carry=carry) ** 2)))(
        params
    )
    jax.tree.map(close, whole, wanted)
    assert any(np.any(leaf) for leaf in jax.tree.leaves(carry))


def test_evaluation_neither_reads_nor_moves_the_carry():
    model = create_model("gru_language_model", **SMALL, stateful=True)
    run = jaxdl.fit(
        tasks.language_model(model), TokenStreams(TEXT, 4, 5), validation=token_windows(TEXT, 5, context=2), steps=3,
        eval_batch_size=7, verbose=0,
    )  # fmt: skip
    before = jax.tree.map(np.array, run.state.model_state)
    data = token_windows(TEXT, 5, context=2)
    probabilities = run.predict(data, batch_size=3)
    assert jax.tree.all(jax.tree.map(np.array_equal, before, run.state.model_state))
    stateless = create_model("gru_language_model", **SMALL)
    logits = told(stateless, {"params": run.state.params}, jnp.asarray(data["x"]))
    close(probabilities, jax.nn.softmax(logits))
    picked = np.take_along_axis(np.log(probabilities), data["y"][..., None], -1)[..., 0]
    assert run.evaluate(data)["loss"] == pytest.approx(-picked[data["mask"]].mean(), rel=1e-4)


def test_a_document_end_clears_the_carry():
    model = create_model("lstm_language_model", **SMALL, depth=2, document_end=0)
    x = jnp.array([[3, 4, 0, 5, 6, 7], [0, 2, 2, 0, 0, 1]])
    variables = started(model, x)
    y = told(model, variables, x)
    for row, begin, end in ((0, 2, 6), (1, 3, 4), (1, 4, 6)):
        close(y[row, begin:end], told(model, variables, x[row : row + 1, begin:end])[0])
    without = told(create_model("lstm_language_model", **SMALL, depth=2), variables, x)
    assert np.max(np.abs(without - y)) > 1e-4
    carry = model.start(2)
    step = jax.jit(functools.partial(model.apply, method="step"))
    for t in range(6):
        logits, carry = step(variables, carry, x[:, t])
        close(logits, y[:, t])


# ---- reading and telling ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "pool", ["last", *(pytest.param(pool, marks=pytest.mark.slow) for pool in ("mean", "max", "each"))]
)
def test_padding_of_tokens_and_of_floats_changes_nothing(pool):
    tokens = jnp.array([[4, 3, 5, 1], [2, 6, 7, 8]])
    options = {"num_classes": 3, "width": 6, "bidirectional": True, "pool": pool}
    padded = [jnp.pad(tokens, ((0, 0), (0, 3))), jnp.pad(tokens, ((0, 0), (0, 1)))]
    model = create_model("lstm_classifier", **options, vocabulary=VOCABULARY, pad=0)
    variables = started(model, tokens)
    run = functools.partial(told, model, variables)
    for x in padded:
        close(run(x)[:, :4] if pool == "each" else run(x), run(tokens))
    floats = jnp.asarray(np.random.default_rng(0).normal(size=(2, 4, 5)), jnp.float32)
    model = create_model("lstm_classifier", **options, pad=-1.0)
    variables = started(model, floats)
    longer = jnp.pad(floats, ((0, 0), (0, 2), (0, 0)), constant_values=-1.0)
    y = told(model, variables, longer)
    close(y[:, :4] if pool == "each" else y, told(model, variables, floats))
    given = told(model.clone(pad=None), variables, longer, lengths=jnp.array([4, 4]))
    close(given, y)


def test_pools_are_what_they_are_called():
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 4, 5)), jnp.float32)
    model = create_model("gru_classifier", num_classes=0, width=6, features=("hidden",))
    variables = started(model, x)
    hidden = told(model, variables, x)["hidden"]
    for pool, wanted in {"last": hidden[:, -1], "mean": hidden.mean(1), "max": hidden.max(1), "each": hidden}.items():
        close(told(create_model("gru_classifier", num_classes=0, width=6, pool=pool), variables, x), wanted)


def test_one_token_at_a_time_tells_what_the_whole_text_tells():
    for options in ({"depth": 2, "residual": True}, {"tied": True, "cell": "gru"}):
        model = create_model("lstm_language_model", **SMALL, **options)
        x = jnp.asarray(TEXT[:12].reshape(2, 6), jnp.int32)
        variables = started(model, x)
        wanted = told(model, variables, x)
        step, carry = model.decoder(variables, 2)
        step = jax.jit(step)
        for t in range(6):
            logits, carry = step(carry, x[:, t])
            close(logits, wanted[:, t])
    step, carry = model.decoder(variables, 2)
    found = jax.jit(lambda carry: decoding.greedy(step, carry, x, steps=3).tokens)(carry)
    # greedy: each token is the likeliest after all before it, of which the whole text is read at once
    text = jnp.concatenate([x, found], 1)
    np.testing.assert_array_equal(found, jnp.argmax(told(model, variables, text)[:, 5:-1], -1))


def test_weights_of_torchs_word_language_model_come_in_and_go_out():
    model = create_model("lstm_language_model", **SMALL, depth=2)
    shapes = {"encoder.weight": (VOCABULARY, 8), "decoder.weight": (VOCABULARY, 8), "decoder.bias": (VOCABULARY,)}
    for layer in range(2):
        shapes |= {f"rnn.{name}_l{layer}": (32, 8) for name in ("weight_ih", "weight_hh")}
        shapes |= {f"rnn.{name}_l{layer}": (32,) for name in ("bias_ih", "bias_hh")}
    state = drawn_state(shapes)
    imported = import_weights(model, state, jnp.zeros((1, 2), jnp.int32), peer="torch")
    params = imported.variables["params"]
    close(params["rnn"]["layer1"]["bias"], state["rnn.bias_ih_l1"] + state["rnn.bias_hh_l1"])
    np.testing.assert_array_equal(params["rnn"]["layer0"]["kernel"], state["rnn.weight_ih_l0"].T)
    back = export_weights(model, imported.variables, jnp.zeros((1, 2), jnp.int32), peer="torch")
    assert back.keys() == state.keys()
    np.testing.assert_array_equal(back["rnn.weight_hh_l1"], state["rnn.weight_hh_l1"])


def test_torchs_gru_keeps_its_two_biases_of_the_third_gate_apart():
    """Two layers both ways: logits by torch's own formula, and the whole way back."""
    torch = pytest.importorskip("torch")
    model = create_model("gru_classifier", num_classes=3, width=4, depth=2, bidirectional=True, pool="each")
    peer = torch.nn.Module()
    peer.rnn = torch.nn.GRU(5, 4, 2, batch_first=True, bidirectional=True)
    peer.logits = torch.nn.Linear(8, 3)
    state = drawn_state({name: tuple(value.shape) for name, value in peer.state_dict().items()})
    peer.load_state_dict({name: torch.tensor(value) for name, value in state.items()})
    x = np.random.default_rng(0).normal(size=(2, 6, 5)).astype(np.float32)
    imported = import_weights(model, state, x, peer="torch")
    wanted = peer.logits(peer.rnn(torch.tensor(x))[0]).detach().numpy()
    close(told(model, imported.variables, jnp.asarray(x)), wanted)
    back = export_weights(model, imported.variables, x)
    assert {name: value.shape for name, value in back.items()} == {name: value.shape for name, value in state.items()}
    peer.load_state_dict({name: torch.tensor(value) for name, value in back.items()})
    close(peer.logits(peer.rnn(torch.tensor(x))[0]).detach().numpy(), wanted)
    again = import_weights(model, back, x)
    assert same_bits(again.variables, imported.variables)


def test_a_gru_that_resets_before_takes_no_weights_of_torch():
    model = create_model("gru_language_model", **SMALL, cell="gru_reset_before")
    with pytest.raises(ValueError, match="cell='gru'"):
        import_weights(model, {"encoder.weight": np.zeros((VOCABULARY, 8))}, jnp.zeros((1, 2), jnp.int32))


# ---- translation -----------------------------------------------------------------------------------------------------

BEGIN, END = 1, 2
SOURCE = jnp.array([[3, 4, 5, 6], [7, 8, 0, 0], [5, 0, 0, 0]])
TARGET = jnp.array([[BEGIN, 6, 5, 4, 3], [BEGIN, 8, 7, END, 0], [BEGIN, 5, END, 0, 0]])


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("lstm_seq2seq", {}),
        ("gru_seq2seq", {"attention": "additive", "input_feeding": True, "depth": 2}),
        pytest.param("lstm_seq2seq", {"attention": "dot", "bidirectional": False}, marks=pytest.mark.slow),
        pytest.param("lstm_seq2seq", {"attention": "dot", "input_feeding": True}, marks=pytest.mark.slow),
        pytest.param("rnn_seq2seq", {"attention": "none"}, marks=pytest.mark.slow),
    ],
)
def test_teacher_forcing_and_decoding_agree(name, options):
    model = create_model(name, **SMALL, **options)
    x = {"source": SOURCE, "target": TARGET}
    variables = started(model, x)
    apply = jax.jit(functools.partial(model.apply, train=False))
    wanted = apply(variables, x)

    @jax.jit
    def stepped(variables):
        step, carry = model.decoder(variables, SOURCE)
        return jax.lax.scan(lambda carry, tokens: step(carry, tokens)[::-1], carry, TARGET.T)[1].swapaxes(0, 1)

    close(stepped(variables), wanted)
    longer = {"source": jnp.pad(SOURCE, ((0, 0), (0, 2))), "target": jnp.pad(TARGET, ((0, 0), (0, 1)))}
    close(apply(variables, longer)[:, :-1], wanted)
    gradient = jax.jit(jax.grad(lambda v: jnp.sum(model.apply(v, x, train=False) ** 2)))(variables)
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradient):
        assert np.isfinite(leaf).all() and np.any(leaf), jax.tree_util.keystr(path)


def test_a_translation_is_learnt_and_told():
    """Turn the source around: without attention on the source it cannot be told apart."""
    rng = np.random.default_rng(0)
    words = rng.integers(3, VOCABULARY, (32, 4)).astype(np.int32)
    begin, end = (np.full((32, 1), token, np.int32) for token in (BEGIN, END))
    data = {"x": words, "y": np.concatenate([begin, words[:, ::-1], end], 1)}
    model = create_model("lstm_seq2seq", num_classes=VOCABULARY, width=32)
    run = jaxdl.fit(
        tasks.translation(model, steps=6), data, optimizer=jaxdl.optim.adam(1e-2), steps=150, batch_size=32, verbose=0
    )
    assert run.evaluate(data)["loss"] < 0.1
    told = run.predict({"x": words})
    assert told.shape == (32, 6) and (told[:, 5] == 0).all()
    assert (told[:, :5] == data["y"][:, 1:]).mean() > 0.98
    best = jax.jit(
        lambda params: model.decode({"params": params}, jnp.asarray(words), begin=BEGIN, end=END, steps=6, beams=3)
    )(run.state.params)
    greedily = jax.jit(
        lambda params: model.decode({"params": params}, jnp.asarray(words), begin=BEGIN, end=END, steps=6)
    )(run.state.params)
    assert (best.scores >= greedily.scores - 1e-4).all()
    assert (best.tokens == told).mean() > 0.98


# ---- sentences -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "options", "x", "sentence"),
    [
        ("lstm_classifier", {"num_classes": 2, "pool": "first"}, jnp.zeros((2, 3, 4)), "pool='first': choose one of"),
        ("lstm_classifier", {"num_classes": 2}, jnp.zeros((2, 3), jnp.int32), "say how many tokens there are"),
        ("lstm_classifier", {"num_classes": 2, "vocabulary": 5}, jnp.zeros((2, 3, 4)), "reads token numbers"),
        ("lstm_language_model", SMALL, jnp.zeros((2, 3)), "a language model reads token numbers"),
        ("lstm_language_model", {**SMALL, "tied": True, "embed": 4}, SOURCE, "an embedding as wide as the network, 8"),
        ("vector_to_sequence", {"num_classes": 2}, jnp.zeros((2, 3, 4)), r"vectors \[batch, features\]"),
        ("lstm_seq2seq", SMALL, SOURCE, "an encoder and decoder read"),
        ("lstm_seq2seq", SMALL, {"source": SOURCE, "target": SOURCE[0]}, "the target is token numbers"),
        ("lstm_seq2seq", {**SMALL, "attention": "adition"}, {"source": SOURCE, "target": TARGET}, "'additive'"),
        ("lstm_classifier", {"num_classes": 2, "features": ("hiden",)}, jnp.zeros((2, 3, 4)), "'hidden'"),
    ],
)
def test_what_cannot_be_is_refused(name, options, x, sentence):
    with pytest.raises(ValueError, match=sentence):
        create_model(name, **options).init(jax.random.key(0), x, train=False)


def test_a_translation_task_names_what_is_wrong():
    task = tasks.translation(create_model("lstm_seq2seq", **SMALL))
    with pytest.raises(TypeError, match="y holds token numbers, not float32"):
        task.init(jax.random.key(0), {"x": SOURCE, "y": jnp.zeros((3, 4))})
    with pytest.raises(ValueError, match="two tokens or more"):
        task.init(jax.random.key(0), {"x": SOURCE, "y": TARGET[:, :1]})
    with pytest.raises(ValueError, match="label_smoothing"):
        tasks.translation(create_model("lstm_seq2seq", **SMALL), label_smoothing=1.0)


def test_a_kept_carry_over_rows_that_do_not_go_on_is_warned_of() -> None:
    model = create_model("lstm_language_model", **SMALL, stateful=True)
    rows = np.zeros((8, 5), np.int32)
    with pytest.warns(UserWarning, match="which rows go on"):
        jaxdl.fit(jaxdl.tasks.language_model(model), {"x": rows}, steps=1, batch_size=4, verbose=0)
