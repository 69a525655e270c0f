"""Transformers: parity with torch and torchvision, what a token may see, the cache, translation."""

from __future__ import annotations

import functools
import json
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdl import nn
from jaxdl.models import create_model, decoding
from jaxdl.models.convert import export_weights, import_weights
from jaxdl.models.registry import example_input
from jaxdl.nn.attention import CACHE_AXES
from tests.models.drawn import drawn_input, drawn_state

_FIXTURE = json.loads((Path(__file__).parent.parent / "fixtures" / "models_transformer.json").read_text())
_SOURCE, _TARGET = (jnp.asarray(_FIXTURE["inputs"][name], jnp.int32) for name in ("source", "target"))
_SMALL = {"width": 16, "heads": 4, "mlp_width": 24}
_ENCODER = {"num_classes": 3, "vocabulary": 11, "depth": 3, **_SMALL}
_SEQ2SEQ = {"num_classes": 11, "depth": 3, "decoder_depth": 2, "dropout": 0.0, **_SMALL}


def _imported(model, row, x):
    """Variables with torch's drawn weights."""
    weights = drawn_state(_FIXTURE[row]["shapes"])
    found = import_weights(model, weights, x)
    exported = export_weights(model, found.variables, x, peer=found.peer)
    assert exported.keys() == weights.keys()
    for name, value in weights.items():
        np.testing.assert_array_equal(exported[name], value)
    return found.variables


def _differs(model, variables, row, x):
    """The largest difference from the peer's logits, as a share of the largest logit."""
    expected = np.asarray(_FIXTURE[row]["logits"])
    logits = jax.jit(functools.partial(model.apply, train=False))(variables, x)
    return np.abs(logits - expected).max() / np.abs(expected).max()


# ---- parity ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("row", "options", "wrong"),
    [
        ("encoder_pre_gelu", {"norm_first": True, "activation": "gelu"}, {"activation": "gelu_tanh"}),
        ("encoder_post_relu", {"norm_first": False, "activation": "relu"}, {"pad": None}),
    ],
)
def test_the_encoder_is_torchs(row, options, wrong):
    model = create_model("transformer_encoder", **_ENCODER, **options)
    variables = _imported(model, row, _SOURCE)
    assert _differs(model, variables, row, _SOURCE) < 1e-5
    assert _differs(model.clone(**wrong), variables, row, _SOURCE) > 1e-4


@pytest.mark.parametrize("first", [True, False])
def test_the_encoder_and_decoder_are_torchs(first):
    row = "seq2seq_pre" if first else "seq2seq_post"
    model = create_model("transformer", norm_first=first, **_SEQ2SEQ)
    x = {"source": _SOURCE, "target": _TARGET}
    variables = _imported(model, row, x)
    assert _differs(model, variables, row, x) < 1e-5
    assert _differs(model.clone(pad=10), variables, row, x) > 1e-3


def test_vit_is_torchvisions():
    model = create_model("vit_b_16", num_classes=5, patch=4, width=16, depth=2, heads=2, mlp_width=32)
    images = jnp.asarray(drawn_input((2, 16, 16, 3)))
    variables = _imported(model, "vit", images)
    assert _differs(model, variables, "vit", images) < 1e-5
    assert _differs(model.clone(norm_epsilon=1e-3), variables, "vit", images) > 1e-4
    assert _differs(model.clone(activation="gelu_tanh"), variables, "vit", images) > 1e-4
    assert _differs(model, variables, "vit", images.transpose(0, 2, 1, 3)) > 1e-2
    features = model.clone(features=("embedding", "pooled")).apply(variables, images, train=False)
    assert {name: leaf.shape for name, leaf in features.items()} == {"embedding": (2, 17, 16), "pooled": (2, 16)}
    with pytest.raises(ValueError, match="multiples of patch=4"):
        model.apply(variables, images[:, :15], train=False)
    with pytest.raises(ValueError, match="12 patches; vit was started with images of 16"):
        model.apply(variables, images[:, :12], train=False)


@pytest.mark.slow
def test_vit_b_16_is_torchvisions():
    model = create_model("vit_b_16", num_classes=1000)
    images = jnp.asarray(drawn_input((1, 224, 224, 3)))
    variables = import_weights(model, drawn_state(_FIXTURE["vit_b_16"]["shapes"]), images).variables
    assert _differs(model, variables, "vit_b_16", images) < 1e-4


# ---- what every parameter has ----------------------------------------------------------------------------------------


def _paths(tree):
    return {
        "/".join(key.key for key in path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree["params"])
    }


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("gpt2", {}),
        ("gpt", {"num_classes": 50, "positions": "rotary", "norm": "rms", "activation": "swiglu", "tied": False}),
        ("transformer_encoder", {"num_classes": 3, "positions": "learned"}),
        ("transformer", {"num_classes": 50, "source_vocabulary": 60, "tied": False, "positions": "learned"}),
        ("vit_b_16", {"num_classes": 10}),
    ],
)
def test_every_parameter_names_its_axes_as_megatron_does(name, options):
    model = create_model(name, depth=2, **{key: value for key, value in options.items() if key != "depth"})
    shapes = jax.eval_shape(lambda x: model.init(jax.random.key(0), x, train=False), example_input(name))
    found = {}
    for path, leaf in _paths(shapes).items():
        found[path] = next((axes for pattern, axes in model.logical_axes if re.fullmatch(pattern, path)), None)
        assert found[path] is not None, path
        assert len(found[path]) == leaf.ndim, path
    stack = "decoder" if name == "transformer" else "blocks"
    assert found[f"{stack}/attention/query/kernel"] == ("layers", "embed", "heads")
    assert found[f"{stack}/attention/out/kernel"] == ("layers", "heads", "embed")
    assert found[f"{stack}/mlp/up/kernel"] == ("layers", "embed", "mlp")
    assert found[f"{stack}/mlp/down/kernel"] == ("layers", "mlp", "embed")
    assert found[f"{stack}/mlp/down/bias"] == ("layers", "embed")


def test_the_gradient_reaches_every_parameter_of_encoder_and_decoder():
    model, variables, x = _translator(positions="learned", source_vocabulary=12, kv_heads=2, tied=False)

    def loss(variables):
        return nn.softmax_cross_entropy(model.apply(variables, x, train=True), x["target"]).mean()

    for path, leaf in _paths(jax.jit(jax.grad(loss))(variables)).items():
        assert np.isfinite(leaf).all(), path
        if not path.endswith("key/bias"):  # softmax does not see what is added to all scores
            assert np.any(leaf != 0), path


# ---- what a token may see --------------------------------------------------------------------------------------------

_RECIPES = {
    "gpt2": {},
    "later": {"positions": "rotary", "norm": "rms", "activation": "swiglu", "use_bias": False, "kv_heads": 2},
    "window": {"positions": "sinusoid", "window": 3, "kv_heads": 1, "tied": False},
}


@functools.cache
def _gpt(recipe, **options):
    model = create_model("gpt", num_classes=11, depth=2, length=12, **_SMALL, **_RECIPES[recipe], **options)
    tokens = jax.random.randint(jax.random.key(1), (2, 10), 0, 11)
    keys = {"params": nn.light_key(jax.random.key(0))}
    variables = jax.jit(functools.partial(model.init, train=False))(keys, tokens)
    # Larger weights, so that what a token sees shows in its logits.
    variables = jax.tree.map(lambda leaf: leaf * 8 if leaf.ndim > 2 else leaf, variables)
    return model, variables, tokens


def _apply(model, variables, tokens, **options):
    return jax.jit(functools.partial(model.apply, train=False))(variables, tokens, **options)


@pytest.mark.parametrize("recipe", list(_RECIPES))
def test_no_token_sees_a_later_one_or_one_beyond_the_window(recipe):
    model, variables, tokens = _gpt(recipe)
    before = np.asarray(_apply(model, variables, tokens))
    after = np.asarray(_apply(model, variables, tokens.at[:, 4].set((tokens[:, 4] + 1) % 11)))
    changed = np.abs(after - before).max((0, 2)) > 1e-5
    reach = 2 * (3 - 1) if recipe == "window" else 10  # two layers look back two tokens each
    assert changed.tolist() == [4 <= position <= 4 + reach for position in range(10)]


def test_padding_before_a_text_changes_nothing():
    model, variables, tokens = _gpt("later")
    padded = jnp.concatenate([jnp.full((2, 2), 7), tokens], axis=1)
    real = jnp.broadcast_to(jnp.arange(12) >= 2, (2, 12))
    whole = _apply(model, variables, tokens)
    np.testing.assert_allclose(_apply(model, variables, padded, padding=real)[:, 2:], whole, atol=2e-5)
    assert np.abs(_apply(model, variables, padded)[:, 2:] - whole).max() > 1e-2


@pytest.mark.parametrize("recipe", list(_RECIPES))
@pytest.mark.parametrize("prompt", [1, 4])
def test_decoding_with_the_cache_equals_the_whole_text(recipe, prompt):
    model, variables, tokens = _gpt(recipe)
    whole = _apply(model, variables, tokens)
    step, cache = model.decoder(variables, batch=2, length=10)
    logits, cache = _apply(model, variables, tokens[:, :prompt], cache=cache)
    step, found = jax.jit(step), [logits]
    for position in range(prompt, 10):
        logits, cache = step(cache, tokens[:, position])
        found.append(logits[:, None])
    np.testing.assert_allclose(jnp.concatenate(found, 1), whole, atol=2e-5 * float(jnp.abs(whole).max()))
    assert int(cache.filled) == 10


def test_greedy_decoding_with_the_cache_is_the_argmax_of_the_whole_text():
    model, variables, tokens = _gpt("later")
    step, cache = model.decoder(variables, batch=2, length=12)
    decoded = jax.jit(lambda cache: decoding.greedy(step, cache, tokens[:, :5], steps=6))(cache)
    text = jnp.concatenate([tokens[:, :5], decoded.tokens], axis=1)
    likeliest = jnp.argmax(_apply(model, variables, text), axis=-1)
    np.testing.assert_array_equal(likeliest[:, 4:10], decoded.tokens)


def test_a_text_beyond_its_cache_is_no_text():
    """Otherwise what does not fit would be written over what was read, and nobody would know."""
    model, variables, tokens = _gpt("later")
    step, cache = model.decoder(variables, batch=2, length=6)
    write = jax.jit(lambda steps: decoding.greedy(step, cache, tokens[:, :4], steps=steps), static_argnums=0)
    assert np.isfinite(write(3).scores).all()  # the last token is not read
    assert np.isnan(write(4).scores).all()
    with pytest.raises(ValueError, match="10 tokens do not fit into a cache of 6 positions"):
        model.apply(variables, tokens, train=False, cache=cache)
    with pytest.raises(ValueError, match="a text of 13 tokens is longer than the model's 12 positions"):
        _gpt("gpt2")[0].decoder(variables, batch=2, length=13)
    started = jax.eval_shape(functools.partial(model.init, train=False), jax.random.key(0), tokens[:, :2], cache=cache)
    assert jax.tree.map(jnp.shape, started) == jax.tree.map(jnp.shape, variables)


def test_features_remat_and_loops_give_the_same_numbers():
    model, variables, tokens = _gpt("gpt2")
    whole = _apply(model, variables, tokens)
    for options in ({"unroll": False}, {"unroll": True}, {"remat": "full"}):
        np.testing.assert_allclose(_apply(model.clone(**options), variables, tokens), whole, atol=1e-5)
    stages = _apply(model.clone(features=("hidden", "embedding")), variables, tokens)
    assert {name: leaf.shape for name, leaf in stages.items()} == {"embedding": (2, 10, 16), "hidden": (2, 10, 16)}


# ---- from one sequence to another ------------------------------------------------------------------------------------


@functools.cache
def _translator(**options):
    model = create_model("transformer", **{**_SEQ2SEQ, **options})
    x = {"source": _SOURCE, "target": _TARGET}
    keys = {"params": nn.light_key(jax.random.key(3))}
    return model, jax.jit(functools.partial(model.init, train=False))(keys, x), x


@pytest.mark.parametrize("options", [{}, {"positions": "rotary", "kv_heads": 2, "source_vocabulary": 12}])
def test_translation_token_by_token_equals_teacher_forcing(options):
    model, variables, x = _translator(**options)
    whole = _apply(model, variables, x)

    @jax.jit
    def told(variables):
        step, cache = model.decoder(variables, _SOURCE, steps=5)
        return jax.lax.scan(lambda cache, tokens: step(cache, tokens)[::-1], cache, _TARGET.T)[1]

    np.testing.assert_allclose(told(variables).swapaxes(0, 1), whole, atol=2e-5)


def test_padding_of_the_source_changes_nothing_and_the_source_matters():
    model, variables, x = _translator()
    whole = _apply(model, variables, x)
    longer = jnp.pad(_SOURCE, ((0, 0), (0, 3)))
    np.testing.assert_allclose(_apply(model, variables, {**x, "source": longer}), whole, atol=1e-5)
    other = _apply(model, variables, {**x, "source": _SOURCE.at[0, 0].set(8)})
    assert np.abs(other[0] - whole[0]).max() > 1e-3
    np.testing.assert_allclose(other[1], whole[1], atol=1e-6)


def test_beams_translate_each_source_as_alone():
    model, variables, _ = _translator()
    decode = jax.jit(functools.partial(model.decode, begin=1, end=2, steps=6, beams=3, length_penalty=0.6))
    both = decode(variables, _SOURCE)
    for row in range(2):
        alone = decode(variables, _SOURCE[row : row + 1])
        np.testing.assert_array_equal(alone.tokens[0], both.tokens[row])
        np.testing.assert_allclose(alone.scores[0], both.scores[row], rtol=1e-4)

    @jax.jit
    def search(variables):
        step, cache = model.decoder(variables, _SOURCE, steps=6, beams=3)
        return decoding.beam_search(
            step, cache, jnp.ones(2, jnp.int32), steps=6, beams=3, eos=2, length_penalty=0.6, batch_axes=CACHE_AXES
        )

    found = jax.tree.map(lambda leaf: leaf.reshape(6, -1), search(variables))
    np.testing.assert_array_equal(found.tokens[::3], both.tokens)
    # The score of each beam is that of its whole text; no token sees the padding after it.
    target = jnp.pad(found.tokens, ((0, 0), (1, 0)), constant_values=1)[:, :-1]
    logits = _apply(model, variables, {"source": jnp.repeat(_SOURCE, 3, axis=0), "target": target})
    logs = jnp.take_along_axis(jax.nn.log_softmax(logits), found.tokens[..., None], axis=-1)[..., 0]
    expected = jnp.where(jnp.arange(6)[None] < found.lengths, logs, 0.0).sum(1) / ((5 + found.lengths[:, 0]) / 6) ** 0.6
    np.testing.assert_allclose(found.scores[:, 0], expected, rtol=1e-4)


def test_bad_input_gets_a_sentence():
    model, variables, tokens = _gpt("gpt2")
    with pytest.raises(ValueError, match="13 tokens are more than the 12 positions"):
        model.apply(variables, jnp.zeros((1, 13), jnp.int32), train=False)
    with pytest.raises(ValueError, match=r"integers \[batch, length\], not float32"):
        model.apply(variables, jnp.zeros((1, 3)), train=False)
    with pytest.raises(ValueError, match="did you mean 'learned'"):
        model.clone(positions="learnt").init(jax.random.key(0), tokens, train=False)
    with pytest.raises(ValueError, match="norm of a Transformer is called 'lay'"):
        model.clone(norm="lay").init(jax.random.key(0), tokens, train=False)
    with pytest.raises(ValueError, match="3 heads do not share 16 features"):
        model.clone(heads=3).init(jax.random.key(0), tokens, train=False)
    with pytest.raises(ValueError, match="kv_heads=3 must divide heads=4"):
        model.clone(kv_heads=3).init(jax.random.key(0), tokens, train=False)
    with pytest.raises(ValueError, match=r'read \{"source": tokens'):
        create_model("transformer", num_classes=5).init(jax.random.key(0), tokens, train=False)
