"""Greedy, sampled and beam decoding against plain Python over every sequence of a tiny vocabulary."""

from __future__ import annotations

import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdl.models import decoding

VOCABULARY, EOS, PAD, STEPS = 4, 3, 9, 3
_TABLE = np.random.default_rng(0).normal(size=(2, VOCABULARY, VOCABULARY)).astype(np.float32) * 2
_FIRST = jnp.array([0, 2])


def _step(carry, tokens):
    """Logits that depend on the example, the last token and (by the carry) on the sum of all tokens read."""
    table, total = carry["table"], carry["total"] + tokens
    logits = jnp.take_along_axis(table, tokens[:, None, None], axis=1)[:, 0]
    shift = jnp.sin(total.astype(jnp.float32)[:, None] * jnp.arange(1, VOCABULARY + 1, dtype=jnp.float32)[None])
    return logits + shift, {"table": table, "total": total, "count": carry["count"] + 1}


def _carry(rows=2):
    return {"table": jnp.asarray(_TABLE)[:rows], "total": jnp.zeros(rows, jnp.int32), "count": jnp.int32(0)}


_AXES = {"table": 0, "total": 0, "count": None}


def _logs(row, read):
    logits = _TABLE[row, read[-1]] + np.sin(sum(read) * np.arange(1, VOCABULARY + 1, dtype=np.float32))
    return logits - np.log(np.exp(logits).sum())


def _every(row, first, steps, eos, alpha):
    """All sequences with their scores, best first."""
    found = []
    for length in range(1, steps + 1):
        for tokens in itertools.product(range(VOCABULARY), repeat=length):
            if eos in tokens[:-1] or (length < steps and tokens[-1] != eos):
                continue
            read, score = [first], 0.0
            for token in tokens:
                score += _logs(row, read)[token]
                read.append(token)
            found.append((score / ((5 + length) / 6) ** alpha, tokens))
    return sorted(found, reverse=True)


def _narrow(row, first, steps, eos, alpha, beams):
    """Beam search in plain Python: ended sequences take no beam, and nothing stops early."""
    alive, ended = [(0.0, ())], []
    for length in range(1, steps + 1):
        grown = sorted(
            ((score + _logs(row, [first, *tokens])[t], (*tokens, t)) for score, tokens in alive for t in range(4)),
            reverse=True,
        )
        ended += [(s / ((5 + length) / 6) ** alpha, t) for s, t in grown[: 2 * beams] if t[-1] == eos]
        alive = [pair for pair in grown if pair[1][-1] != eos][:beams]
    ended += [(s / ((5 + steps) / 6) ** alpha, t) for s, t in alive]
    return sorted(ended, reverse=True)


def _rows(decoded, row, count):
    return [tuple(np.asarray(decoded.tokens[row, i, : decoded.lengths[row, i]])) for i in range(count)]


@pytest.mark.smoke
@pytest.mark.parametrize(("eos", "alpha"), [(EOS, 0.0), (EOS, 1.0), (None, 0.0)])
def test_wide_beams_find_the_best_of_all_sequences(eos, alpha):
    beams = 27 if eos is not None else 16
    search = functools.partial(
        decoding.beam_search, _step, steps=STEPS, eos=eos, pad=PAD, length_penalty=alpha, batch_axes=_AXES
    )
    decoded = jax.jit(functools.partial(search, beams=beams))(_carry(), _FIRST)
    for row in range(2):
        best = _every(row, int(_FIRST[row]), STEPS, eos, alpha)[:beams]
        assert _rows(decoded, row, beams) == [tokens for _, tokens in best]
        np.testing.assert_allclose(decoded.scores[row], [score for score, _ in best], rtol=1e-5)
        after = np.arange(STEPS)[None] >= np.asarray(decoded.lengths)[row][:, None]
        assert (np.asarray(decoded.tokens)[row][after] == PAD).all()


@pytest.mark.parametrize(("beams", "alpha"), [(1, 0.0), (2, 0.0), (2, 0.8)])
def test_narrow_beams_equal_plain_python_also_where_the_search_stops_early(beams, alpha):
    steps = 6
    decoded = decoding.beam_search(
        _step, _carry(), _FIRST, steps=steps, beams=beams, eos=EOS, pad=PAD, length_penalty=alpha, batch_axes=_AXES
    )
    for row in range(2):
        best = _narrow(row, int(_FIRST[row]), steps, EOS, alpha, beams)[:beams]
        assert _rows(decoded, row, beams) == [tokens for _, tokens in best]
        np.testing.assert_allclose(decoded.scores[row], [score for score, _ in best], rtol=1e-5)


def test_greedy_follows_the_likeliest_and_stops_at_the_end():
    decoded = decoding.greedy(_step, _carry(), _FIRST, steps=6, eos=EOS, pad=PAD)
    for row in range(2):
        read, score = [int(_FIRST[row])], 0.0
        while len(read) < 7 and (len(read) == 1 or read[-1] != EOS):
            logs = _logs(row, read)
            read.append(int(logs.argmax()))
            score += logs.max()
        length = int(decoded.lengths[row])
        assert list(np.asarray(decoded.tokens[row, :length])) == read[1:]
        assert (np.asarray(decoded.tokens[row, length:]) == PAD).all()
        np.testing.assert_allclose(decoded.scores[row], score, rtol=1e-5)


def test_prompts_of_several_lengths_decode_as_each_alone():
    prompts, lengths = jnp.array([[0, 1, 2], [2, 7, 7]]), jnp.array([3, 1])
    together = decoding.greedy(_step, _carry(), prompts, steps=4, eos=EOS, pad=PAD, lengths=lengths)
    first = decoding.greedy(_step, _carry(1), prompts[:1], steps=4, eos=EOS, pad=PAD)
    np.testing.assert_array_equal(together.tokens[0], first.tokens[0])
    alone = decoding.greedy(_step, _carry(), jnp.array([0, 2]), steps=4, eos=EOS, pad=PAD)
    np.testing.assert_array_equal(together.tokens[1], alone.tokens[1])
    np.testing.assert_allclose(together.scores[1], alone.scores[1], rtol=1e-6)


def test_samples_have_the_distribution_of_the_model():
    rows = 20_000
    logits = jnp.array([[1.0, 0.0, -1.0, 2.0]])

    def step(carry, tokens):
        return jnp.broadcast_to(logits, (tokens.shape[0], 4)), carry

    tokens = jnp.zeros(rows, jnp.int32)
    shares = {}
    options = {"plain": {}, "cold": {"temperature": jnp.float32(0.5)}, "two": {"top_k": 2}, "mass": {"top_p": 0.7}}
    for name, option in options.items():
        drawn = decoding.sample(step, (), tokens, key=jax.random.key(1), steps=2, **option).tokens
        shares[name] = np.bincount(np.asarray(drawn).ravel(), minlength=4) / drawn.size
        assert not np.array_equal(drawn[:, 0], drawn[:, 1])
    expected = {
        "plain": jax.nn.softmax(logits[0]),
        "cold": jax.nn.softmax(logits[0] * 2),
        "two": jax.nn.softmax(jnp.array([1.0, -jnp.inf, -jnp.inf, 2.0])),
        "mass": jax.nn.softmax(jnp.array([1.0, -jnp.inf, -jnp.inf, 2.0])),  # 0.64 alone is below 0.7, with 0.24 above
    }
    for name, share in shares.items():
        np.testing.assert_allclose(share, expected[name], atol=4 * math.sqrt(0.25 / (2 * rows)), err_msg=name)


def test_sampling_at_no_temperature_is_greedy_and_keys_matter():
    cold = decoding.sample(_step, _carry(), _FIRST, key=jax.random.key(0), steps=4, temperature=0.0, pad=PAD)
    best = decoding.greedy(_step, _carry(), _FIRST, steps=4, pad=PAD)
    np.testing.assert_array_equal(cold.tokens, best.tokens)
    traced = functools.partial(decoding.sample, _step, _carry(), _FIRST, key=jax.random.key(0), steps=4, pad=PAD)
    np.testing.assert_array_equal(jax.jit(lambda t: traced(temperature=t).tokens)(jnp.float32(0)), best.tokens)
    one = decoding.sample(_step, _carry(), _FIRST, key=jax.random.key(0), steps=4, top_k=1)
    np.testing.assert_array_equal(one.tokens, best.tokens)
    np.testing.assert_allclose(one.scores, best.scores, rtol=1e-6)
    drawn = [decoding.sample(_step, _carry(), _FIRST, key=jax.random.key(k), steps=8).tokens for k in range(3)]
    assert len({array.tobytes() for array in map(np.asarray, drawn)}) > 1


def test_one_program_per_shape():
    traced = []

    @jax.jit
    def decode(carry, first):
        traced.append(first.shape)
        return decoding.greedy(_step, carry, first, steps=3, eos=EOS)

    for first in (_FIRST, _FIRST * 0, _FIRST[:1], _FIRST):
        decode(_carry(first.shape[0]), first)
    assert traced == [(2,), (1,)]


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: decoding.greedy(_step, _carry(), _FIRST, steps=0), "at least one step, not 0"),
        (
            lambda: decoding.greedy(_step, _carry(), _FIRST.astype(jnp.float32), steps=1),
            "integers .batch. or .batch, prompt.",
        ),
        (lambda: decoding.greedy(_step, _carry(), _FIRST, steps=1, lengths=jnp.ones(3)), r"\[2\], not \(3,\)"),
        (lambda: decoding.beam_search(_step, _carry(), _FIRST[:, None], steps=1), "one token a row"),
        (lambda: decoding.beam_search(_step, _carry(), _FIRST, steps=1, beams=0), "beams is at least 1"),
        (
            lambda: decoding.beam_search(_step, _carry(), _FIRST, steps=1, eos=4, batch_axes=_AXES),
            "eos is token 4, but the model's tokens are 0 to 3",
        ),
        (lambda: decoding.cut(jnp.ones(3), top_k=0), "top_k keeps at least 1"),
        (lambda: decoding.cut(jnp.ones(3), top_p=1.5), "a share in"),
        (lambda: decoding.sample(_step, _carry(), _FIRST, key=jax.random.key(0), steps=1, temperature=-1.0), "above 0"),
    ],
)
def test_bad_input_gets_a_sentence(call, sentence):
    with pytest.raises(ValueError, match=sentence):
        call()
