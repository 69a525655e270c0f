"""Attention against a plain loop, its masks, and which implementation is chosen where."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdl import nn

_RNG = np.random.default_rng(0)
_Q = _RNG.normal(size=(2, 5, 4, 8)).astype(np.float32)
_K, _V = (_RNG.normal(size=(2, 7, 2, 8)).astype(np.float32) for _ in range(2))
_PADDING = np.arange(7)[None] < np.array([[7], [4]])


def _plain(seen):
    """For each query the keys that seen(batch, query, key) lets through, in float64."""
    out = np.zeros(_Q.shape)
    for b, t, h in np.ndindex(_Q.shape[:3]):
        keys = [s for s in range(7) if seen(b, t, s)]
        scores = np.array([_Q[b, t, h].astype(np.float64) @ _K[b, s, h // 2] for s in keys]) / 8**0.5
        weights = np.exp(scores - scores.max())
        out[b, t, h] = sum(w * _V[b, s, h // 2] for w, s in zip(weights / weights.sum(), keys, strict=True))
    return out


@pytest.mark.smoke
@pytest.mark.parametrize(
    ("options", "seen"),
    [
        ({}, lambda b, t, s: True),
        ({"causal": True}, lambda b, t, s: s <= t),
        ({"causal": True, "offset": 2}, lambda b, t, s: s <= t + 2),
        ({"causal": True, "offset": jnp.int32(2), "window": 3}, lambda b, t, s: t + 2 - 3 < s <= t + 2),
        ({"window": 2}, lambda b, t, s: abs(t - s) < 2),
        ({"padding": jnp.asarray(_PADDING)}, lambda b, t, s: _PADDING[b, s]),
        (
            {"padding": jnp.asarray(_PADDING), "mask": jnp.asarray(np.eye(5, 7, dtype=bool) == 0)[None, None]},
            lambda b, t, s: _PADDING[b, s] and t != s,
        ),
    ],
)
def test_attention_equals_a_loop_over_queries_with_shared_heads(options, seen):
    found = nn.dot_product_attention(jnp.asarray(_Q), jnp.asarray(_K), jnp.asarray(_V), **options)
    np.testing.assert_allclose(found, _plain(seen), rtol=1e-5, atol=1e-6)


def test_a_query_that_may_see_nothing_is_finite():
    nothing = jnp.zeros((2, 7), jnp.bool_)

    def total(q):
        return nn.dot_product_attention(q, jnp.asarray(_K), jnp.asarray(_V), padding=nothing).sum()

    value, gradient = jax.value_and_grad(total)(jnp.asarray(_Q))
    assert np.isfinite(value) and np.isfinite(gradient).all()


def test_dropout_zeroes_weights_and_keeps_their_mean():
    ones = jnp.ones((1, 1, 1, 4)), jnp.ones((1, 4000, 1, 4)), jnp.ones((1, 4000, 1, 4))
    found = nn.dot_product_attention(*ones, dropout=jnp.float32(0.25), dropout_key=jax.random.key(0))
    assert 0.0 < abs(float(found[0, 0, 0, 0]) - 1.0) < 0.05


def test_low_precision_goes_through_a_float32_softmax():
    low = [jnp.asarray(x, jnp.bfloat16) for x in (_Q, _K, _V)]
    found = nn.dot_product_attention(*low, causal=True)
    assert found.dtype == jnp.bfloat16
    np.testing.assert_allclose(found.astype(jnp.float32), _plain(lambda b, t, s: s <= t), atol=0.04)
    text = str(jax.make_jaxpr(lambda q, k, v: nn.dot_product_attention(q, k, v))(*low))
    assert "f32[2,4,5,7] = exp" in text


@pytest.fixture
def on_a_gpu(monkeypatch):
    """jax believes that there is a GPU with cuDNN, which lowering needs and running would."""
    fused = pytest.importorskip("jax._src.cudnn.fused_attention_stablehlo")
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(fused, "check_cudnn_version", lambda: 91_000)
    monkeypatch.setattr(fused, "check_compute_capability", lambda capability: True)


def _lowered(dtype, size=64, **options):
    q = jax.ShapeDtypeStruct((2, 128, 4, size), dtype)
    k = jax.ShapeDtypeStruct((2, 128, 2, size), dtype)

    def loss(q, k, v):
        return nn.dot_product_attention(q, k, v, **options).astype(jnp.float32).sum()

    gradient = jax.jit(jax.grad(loss, argnums=(0, 1, 2)))
    return gradient.trace(q, k, k).lower(lowering_platforms=("cuda",)).as_text()


@pytest.mark.parametrize("options", [{}, {"causal": True}, {"causal": True, "window": 16}])
def test_cudnn_is_chosen_for_half_precision_on_a_gpu(on_a_gpu, options):
    text = _lowered(jnp.bfloat16, **options)
    assert "__cudnn$fmhaSoftmax" in text and "__cudnn$fmhaSoftmaxBackward" in text
    assert "__cudnn" not in _lowered(jnp.float32, **options)
    assert "__cudnn" not in _lowered(jnp.bfloat16, size=12, **options)
    assert "__cudnn" not in _lowered(jnp.bfloat16, implementation="xla", **options)


def test_cudnn_takes_padding_and_leaves_offsets_to_xla(on_a_gpu):
    assert "__cudnn$fmha" in _lowered(jnp.float16, padding=jnp.ones((2, 128), jnp.bool_))
    assert "__cudnn" not in _lowered(jnp.bfloat16, causal=True, offset=jnp.int32(3))
    assert "__cudnn" not in _lowered(jnp.bfloat16, window=4)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"implementation": "cudnn"}, "bfloat16 or float16 only, not in float32"),
        ({"implementation": "flash"}, "not by 'flash'"),
        ({"window": 0}, "1 or more, not 0"),
        ({"padding": jnp.ones((2, 5), jnp.bool_)}, r"\(2, 7\), not \(2, 5\)"),
        ({"key": jnp.ones((2, 7, 3, 8)), "value": jnp.ones((2, 7, 3, 8))}, "4 heads are no multiple of 3"),
        ({"query": jnp.ones((2, 5, 8))}, r"\[batch, t, heads, size\]"),
    ],
)
def test_bad_input_gets_a_sentence(change, sentence):
    whole = {"query": jnp.asarray(_Q), "key": jnp.asarray(_K), "value": jnp.asarray(_V), **change}
    with pytest.raises(ValueError, match=sentence):
        nn.dot_product_attention(whole.pop("query"), whole.pop("key"), whole.pop("value"), **whole)


def test_attention_of_a_memory_equals_that_of_its_keys_and_values():
    module = nn.Attention(width=8, heads=4, kv_heads=2, rotary_base=100.0)
    x, memory = jnp.asarray(_RNG.normal(size=(2, 3, 8)), jnp.float32), jnp.asarray(_V.reshape(2, 7, 16), jnp.float32)
    variables = module.init(jax.random.key(0), x, memory, train=False)
    assert variables["params"]["key"]["kernel"].shape == (16, 4)
    whole = module.apply(variables, x, memory, train=False, padding=jnp.asarray(_PADDING))
    pair = module.apply(variables, memory, method="keys_values")
    np.testing.assert_array_equal(module.apply(variables, x, pair, train=False, padding=jnp.asarray(_PADDING)), whole)
