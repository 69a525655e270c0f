"""Attention for recurrent decoders against its formulas in NumPy, and its mask."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdl import nn

RNG = np.random.default_rng(0)
QUERIES, MEMORY = (RNG.normal(size=shape).astype(np.float32) for shape in ((2, 3, 4), (2, 5, 6)))
MASK = np.array([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0]], bool)


def plain(score, params, queries, memory, mask):
    if score == "additive":
        hidden = np.tanh(
            (queries @ params["query"]["kernel"])[:, :, None]
            + (memory @ params["key"]["kernel"] + params["key"]["bias"])[:, None]
        )
        scores = hidden @ params["vector"]
    elif score == "bilinear":
        scores = np.einsum("btq,mq,bsm->bts", queries, params["key"]["kernel"], memory)
    else:
        scores = np.einsum("btm,bsm->bts", queries, memory) / np.sqrt(memory.shape[-1])
    scores = np.where(mask[:, None], scores, -np.inf)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    return weights @ memory, weights


@pytest.mark.parametrize("score", ["additive", "dot", "bilinear"])
def test_contexts_and_weights_follow_the_formula(score):
    module = nn.RNNAttention(score, features=4 if score == "bilinear" else 7)
    queries = np.concatenate([QUERIES, QUERIES[..., :2]], -1) if score == "dot" else QUERIES
    variables = module.init(jax.random.key(0), queries, MEMORY)
    params = jax.tree.map(lambda leaf: np.asarray(leaf) + np.float32(0.1), variables.get("params", {}))
    context, weights = module.apply({"params": params}, queries, MEMORY, mask=MASK)
    for ours, wanted in zip((context, weights), plain(score, params, queries, MEMORY, MASK), strict=True):
        np.testing.assert_allclose(ours, wanted, rtol=1e-5, atol=1e-6)
    keys = module.apply({"params": params}, MEMORY, method="keys")
    again, _ = module.apply({"params": params}, queries, MEMORY, mask=MASK, keys=keys)
    np.testing.assert_array_equal(again, context)
    garbage = np.where(MASK[..., None], MEMORY, np.float32(7e3))
    np.testing.assert_array_equal(module.apply({"params": params}, queries, garbage, mask=MASK)[0], context)
    nothing, none = module.apply({"params": params}, queries, MEMORY, mask=np.zeros_like(MASK))
    assert not np.any(nothing) and not np.any(none)


def test_what_cannot_be_is_refused():
    def run(score, **options):
        nn.RNNAttention(score, features=3).init(jax.random.key(0), jnp.asarray(QUERIES), jnp.asarray(MEMORY), **options)

    with pytest.raises(ValueError, match="did you mean 'additive'"):
        run("aditive")
    with pytest.raises(ValueError, match="queries of width 4 with keys of width 6"):
        run("dot")
    with pytest.raises(ValueError, match=r"bilinear: features=4"):
        run("bilinear")
    with pytest.raises(ValueError, match=r"\[2, 5\] here, not \[2, 3\]"):
        run("additive", mask=MASK[:, :3])
