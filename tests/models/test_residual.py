"""Residual, dense and mobile networks: the peers' logits under the peers' weights, features, options."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdl import nn
from jaxdl.models import create_model
from jaxdl.models.convert import import_weights
from tests.models.drawn import drawn_input, drawn_state

FIXTURE = Path(__file__).resolve().parent.parent / "fixtures" / "models_residual.npz"

# case -> our model; the peers are those of tests/fixtures/make_models_residual.py.
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "tiny_resnet": ("resnet50", {"depths": (1, 2)}),
    "tiny_densenet": ("densenet121", {"growth": 4, "depths": (2, 3), "width": 8}),
    "squeezenet1_1": ("squeezenet1_1", {}),
    "tiny_mobilenet": ("mobilenet_v2", {"width": 0.25}),
    "resnet18": ("resnet18", {}),
    "resnet50": ("resnet50", {}),
    "resnet50_dilated": ("resnet50", {"replace_stride_with_dilation": (False, True, True)}),
    "resnext50_32x4d": ("resnext50_32x4d", {}),
    "wide_resnet50_2": ("wide_resnet50_2", {}),
    "resnetv2_18": ("resnetv2_18", {}),
    "resnetv2_50": ("resnetv2_50", {}),
    "resnet18d": ("resnet18d", {}),
    "resnet50d": ("resnet50d", {}),
    "densenet121": ("densenet121", {}),
    "squeezenet1_0": ("squeezenet1_0", {}),
    "mobilenet_v2": ("mobilenet_v2", {}),
    "efficientnet_lite0": ("efficientnet_lite0", {}),
    "efficientnet_lite2": ("efficientnet_lite2", {}),
    "resnet50_v1": ("resnet50_v1", {"conv_bias": True, "epsilon": 1.001e-5}),
}
_FAST = ("tiny_resnet", "tiny_densenet", "squeezenet1_1")


@functools.cache
def _peer(case: str) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """(the weights, drawn again from their names and shapes; the peer's logits)."""
    with np.load(FIXTURE) as kept:
        lines = kept[f"{case}/shapes"].tobytes().decode().split("\n")
        logits = kept[f"{case}/logits"]
    shapes = {}
    for line in lines:
        name, _, sizes = line.partition(" ")
        shapes[name] = tuple(int(size) for size in sizes.split(",") if size)
    return drawn_state(shapes), logits


def _difference(case: str, **options: Any) -> float:
    """The largest difference between our logits and the peer's, in units of the largest logit."""
    weights, logits = _peer(case)
    name, fixed = CASES[case]
    model = create_model(name, num_classes=10, **{**fixed, **options})
    images = jnp.asarray(drawn_input((2, 66, 66, 3)))
    variables = import_weights(model, weights, images).variables
    ours = jax.jit(functools.partial(model.apply, train=False))(variables, images)
    assert ours.shape == logits.shape
    return float(np.abs(np.asarray(ours) - logits).max() / np.abs(logits).max())


@pytest.mark.parametrize(
    "case", [pytest.param(case, marks=[] if case in _FAST else [pytest.mark.slow]) for case in CASES]
)
def test_logits_are_the_peers(case):
    assert _difference(case) < 1e-4


def test_the_stride_of_v1_in_place_of_v15_shows():
    assert _difference("tiny_resnet", variant="v1") > 1e-2


@pytest.mark.parametrize("case", ["tiny_resnet", pytest.param("tiny_densenet", marks=pytest.mark.slow)])
def test_another_epsilon_shows(case):
    assert _difference(case, epsilon=1e-3) > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize(
    "case", ["tiny_resnet", "tiny_densenet", "squeezenet1_1", "mobilenet_v2", "efficientnet_lite0", "resnet50_v1"]
)
def test_padding_at_the_end_only_shows(case, monkeypatch):
    original = nn.convolve
    monkeypatch.setattr("jaxdl.nn.conv.convolve", lambda x, kernel, **rest: original(x, kernel, **_padded(rest)))
    assert _difference(case) > 1e-3


def _padded(options: dict[str, Any]) -> dict[str, Any]:
    return {**options, "padding": "SAME"}


@pytest.mark.slow
def test_same_padding_of_efficientnet_is_an_option_that_shows():
    assert _difference("efficientnet_lite0", padding="same") > 1e-3


def _features(name: str, size: int, **options: Any) -> dict[str, tuple[int, ...]]:
    model = create_model(name, num_classes=10, **options)
    image = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
    key = {"params": nn.light_key(jax.random.key(0))}
    outputs, _ = jax.eval_shape(lambda x: model.init_with_output(key, x, train=False), image)
    return {key: value.shape[1:] for key, value in outputs.items()}


FIVE = ("c1", "c2", "c3", "c4", "c5")
STAGES: dict[str, tuple[dict[str, Any], tuple[int, ...], tuple[int, ...]]] = {
    # name: options, sizes of the features of a 64x64 image, their channels
    "resnet18": ({}, (32, 16, 8, 4, 2), (64, 64, 128, 256, 512)),
    "resnet50": (
        {"depths": (1, 1, 1, 1), "replace_stride_with_dilation": (False, True, True)},
        (32, 16, 8, 8, 8),
        (64, 256, 512, 1024, 2048),
    ),
    "resnetv2_18": ({"stem": "cifar"}, (64, 64, 32, 16, 8), (64, 64, 128, 256, 512)),
    "densenet121": ({"depths": (1, 1, 1, 1)}, (32, 16, 8, 4, 2), (64, 96, 80, 72, 68)),
    "mobilenet_v2": ({"depth": 0.1}, (32, 16, 8, 4, 2), (16, 24, 32, 96, 320)),
    "efficientnet_lite0": ({"depth": 0.1}, (32, 16, 8, 4, 2), (16, 24, 40, 112, 320)),
}


@pytest.mark.parametrize("name", STAGES)
def test_features_have_the_sizes_of_their_stages(name):
    options, sizes, channels = STAGES[name]
    found = _features(name, 64, features=FIVE, **options)
    assert tuple(found) == FIVE
    assert tuple(found.values()) == tuple((s, s, c) for s, c in zip(sizes, channels, strict=True))
    assert _features(name, 64, features=("c2", "c1"), **options) == {key: found[key] for key in ("c1", "c2")}


def test_nothing_is_made_beyond_the_last_feature_and_pooled_features_have_no_head():
    image = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)

    def params(**options: Any) -> set[str]:
        model = create_model("resnet18", **options)
        key = {"params": nn.light_key(jax.random.key(0))}
        return set(jax.eval_shape(lambda x: model.init(key, x, train=False), image)["params"])

    assert {path[:2] for path in params(num_classes=10, features=("c3", "c1"))} == {"c1", "c2", "c3"}
    assert params(num_classes=10) - params(num_classes=0) == {"logits"}
    assert _pooled("resnet18", depth=1) == (1, 512) and _pooled("mobilenet_v2", depth=0.1) == (1, 1280)
    assert _pooled("squeezenet1_1") == (1, 512) and _pooled("densenet121", depths=(1, 1)) == (1, 80)


def _pooled(name: str, **options: Any) -> tuple[int, ...]:
    model = create_model(name, num_classes=0, **options)
    image = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
    key = {"params": nn.light_key(jax.random.key(0))}
    outputs, _ = jax.eval_shape(lambda x: model.init_with_output(key, x, train=False), image)
    return outputs.shape


def test_remat_of_densenet_changes_no_number():
    x = jnp.asarray(drawn_input((2, 16, 16, 3)))
    options = {"num_classes": 3, "depths": (2,), "growth": 4, "width": 8}
    plain, again = (create_model("densenet121", remat=remat, **options) for remat in (False, True))
    variables, same = (
        jax.jit(functools.partial(model.init, train=False))(jax.random.key(0), x) for model in (plain, again)
    )
    jax.tree.map(np.testing.assert_array_equal, variables, same)

    def gradient(model: Any) -> Any:
        def loss(params: Any) -> jax.Array:
            outputs, _ = model.apply({**variables, "params": params}, x, train=True, mutable=["batch_stats"])
            return jnp.sum(outputs**2)

        return jax.grad(loss)

    assert "remat" in str(jax.make_jaxpr(gradient(again))(variables["params"]))
    assert "remat" not in str(jax.make_jaxpr(gradient(plain))(variables["params"]))
    a, b = (jax.jit(gradient(model))(variables["params"]) for model in (plain, again))
    jax.tree.map(lambda p, q: np.testing.assert_allclose(p, q, rtol=1e-4, atol=1e-5), a, b)


def test_a_block_that_starts_at_zero_is_the_identity():
    x = jnp.abs(jnp.asarray(drawn_input((2, 16, 16, 8))))
    model = create_model(
        "resnet18", num_classes=3, width=8, depths=(1,), stem="cifar", zero_init=True, features=("c2",)
    )
    plain = create_model("resnet18", num_classes=3, width=8, depths=(1,), stem="cifar", features=("c1",))
    variables = jax.jit(functools.partial(model.init, train=False))(jax.random.key(0), x)
    stem = {"params": variables["params"], "batch_stats": variables["batch_stats"]}
    kept, first = (
        jax.jit(functools.partial(module.apply, train=False))(own, x)
        for module, own in ((model, variables), (plain, stem))
    )
    np.testing.assert_allclose(kept["c2"], first["c1"], atol=1e-6)


def test_options_that_cannot_be_are_refused():
    x = jnp.zeros((1, 32, 32, 3))

    def start(name: str, x: jax.Array = x, **options: Any) -> None:
        jax.eval_shape(lambda: create_model(name, num_classes=3, **options).init(jax.random.key(0), x, train=False))

    with pytest.raises(ValueError, match=r"images \[batch, height, width, channels\], not \(1, 9\)"):
        start("resnet18", jnp.zeros((1, 9)))
    with pytest.raises(ValueError, match=r"variant is one of v1, v1.5, v2, d, not 'v3'"):
        start("resnet18", variant="v3")
    with pytest.raises(ValueError, match="stem is 'imagenet' or 'cifar'"):
        start("resnet18", stem="imagnet")
    with pytest.raises(ValueError, match=r"one value for each of c3, c4, c5, not \(True,\)"):
        start("resnet50", replace_stride_with_dilation=(True,))
    with pytest.raises(ValueError, match="groups and group_width are those of bottlenecks"):
        start("resnet18", groups=2)
    with pytest.raises(ValueError, match="must be a multiple of 64"):
        start("resnext50_32x4d", width=8)
    with pytest.raises(ValueError, match=r"ResNet has no stage 'c6' \(it has c1, c2, c3, c4, c5\)"):
        start("resnet18", features=("c6",))
    with pytest.raises(ValueError, match="asked for twice"):
        start("resnet18", features=("c3", "c3"))
    with pytest.raises(ValueError, match="a tuple of names, not a name"):
        start("resnet18", features="c3")
    with pytest.raises(ValueError, match=r"SqueezeNet 1.0 takes images .* at least 21x21"):
        start("squeezenet1_0", jnp.zeros((1, 20, 32, 3)))
    with pytest.raises(ValueError, match=r"versions 1.0, 1.1, not '2'"):
        start("squeezenet1_0", version="2")
    with pytest.raises(ValueError, match=r"compression is a share in \(0, 1\]"):
        start("densenet121", compression=0.0)
    with pytest.raises(ValueError, match="padding is 'same' or 'symmetric'"):
        start("efficientnet_lite0", padding="SAME")
