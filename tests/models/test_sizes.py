"""Width and depth of every family, so that each can be built tiny; features of the dense ones."""

from __future__ import annotations

import math
from typing import Any

import jax
import pytest

from jaxdl.models import create_model, list_models, model_info
from jaxdl.models.catalog import MODELS
from jaxdl.models.registry import REQUIRED, example_input
from jaxdl.nn import light_key

#: One name of each class.
FAMILIES = tuple({MODELS[name][:2]: name for name in reversed(list_models())}.values())
#: What else a tiny one needs: its width divides by it.
_HEADS = {"heads": 2}
_WITH = {"vit_b_16": _HEADS, "gpt": _HEADS, "transformer": _HEADS, "transformer_encoder": _HEADS}
#: Whose shapes alone take a second or more.
_SLOW = {"deeplab", "densenet", "efficientnet", "googlenet", "inception", "mobilenet", "pspnet", "ssd"}


def _count(name: str, **sizes: float) -> int:
    options = {option: 3 for option, default in model_info(name).options.items() if default is REQUIRED}
    model = create_model(name, **options, **sizes, **_WITH.get(name, {}))
    keys = {"params": light_key(jax.random.key(0))}
    variables = jax.eval_shape(lambda x: model.init(keys, x, train=False), example_input(name))
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(variables["params"]))


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] if MODELS[name].module in _SLOW else [])
        for name in FAMILIES
        if name != "linear"
    ],
)
def test_width_and_depth_change_every_family(name):
    # Numbers, or factors where the published networks are grown by factors.
    width, depth = (0.5, 0.5) if isinstance(model_info(name).options["width"], float) else (16, 1)
    tiny, wide = _count(name, width=width, depth=depth), _count(name, width=2 * width, depth=depth)
    deep = _count(name, width=width, depth=2 * depth)
    assert tiny < wide and deep != tiny


def test_one_depth_is_that_of_every_stage():
    assert create_model("resnet50", num_classes=3, depth=2).depths == (2, 2, 2, 2)
    assert create_model("vgg16", num_classes=3, depth=None).depths == (2, 2, 3, 3, 3)
    assert model_info("resnet50").options["depth"] is None
    ssd = create_model("ssd300_resnet50", num_classes=3, depth=1)
    assert ssd._stage_depths() == (1, 1, 1, 1)
    assert create_model("ssd300_vgg16", num_classes=3)._stage_depths() == (2, 2, 3, 3, 3)


@pytest.mark.parametrize(
    ("name", "options", "error", "sentence"),
    [
        ("resnet50", {"depth": 2, "depths": (1, 1)}, TypeError, "depth=2 and depths=.*: give one of them"),
        ("mlp", {"width": 2, "widths": (1, 1)}, TypeError, "width=2 and widths=.*: give one of them"),
        ("convnet", {"depth": 2, "filters": (1, 1)}, TypeError, "depth=2 and filters=.*: give one of them"),
        ("resnet50", {"depth": 0}, ValueError, "depth=0: how many blocks each stage of 'resnet50' has, 1 or more"),
        ("densenet121", {"depth": 1.5}, ValueError, "depth=1.5: how many blocks"),
        ("linear", {"width": 2}, TypeError, "no option 'width'"),
    ],
)
def test_sizes_that_cannot_be_are_refused(name, options, error, sentence):
    with pytest.raises(error, match=sentence):
        create_model(name, num_classes=3, **options)


@pytest.mark.parametrize(("name", "depth"), [("lenet5", 3), ("alexnet", 6), ("alexnet", 0)])
def test_there_are_no_more_convolutions_than_the_classics_have(name, depth):
    model = create_model(name, num_classes=3, depth=depth)
    with pytest.raises(ValueError, match=r"two convolutions|five convolutions"):
        jax.eval_shape(lambda x: model.init(jax.random.key(0), x, train=False), example_input(name))


def test_the_sizes_of_layers_follow_width_and_depth():
    def outputs(name: str, **options: Any) -> list[int]:
        model = create_model(name, **options)
        variables = jax.eval_shape(lambda x: model.init(jax.random.key(0), x, train=False), example_input(name))
        shapes = {path: leaf.shape for path, leaf in jax.tree_util.tree_leaves_with_path(variables["params"])}
        return [shape[-1] for path, shape in shapes.items() if path[-1].key == "kernel"]

    assert outputs("mlp", num_classes=3, width=8, depth=3) == [8, 8, 8, 3]
    assert outputs("mlp", num_classes=3, depth=0) == [3]
    # in the order of the names: conv1 to conv5, fc6, fc7, logits
    assert outputs("alexnet", num_classes=3, width=8) == [8, 24, 48, 32, 32, 512, 512, 3]
    assert outputs("alexnet_paper", num_classes=3, width=12) == [12, 32, 48, 48, 32, 512, 512, 3]
    assert sorted(outputs("vae", width=32, depth=3)) == sorted([32, 16, 8, 8, 16, 32, 784, 16, 16])
    assert sorted(outputs("conv_vae", width=4)) == sorted([4, 8, 7 * 7 * 8, 4, 4, 1, 16, 16])
    assert sorted(outputs("two_tower", width=6, depth=2)) == sorted([6, 6, 32] * 2)


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_squeezenet_has_whole_fire_modules_of_each_stage(version):
    def fires(depth: float) -> list[str]:
        return [
            stage for stage, _, _ in create_model("squeezenet1_0", num_classes=3, version=version, depth=depth).fires()
        ]

    assert len(fires(1.0)) == 8 and fires(0.1) == ["c2", "c3", "c4"]
    assert len(fires(2.0)) == 16 and sorted(fires(1.5)) == fires(1.5)


@pytest.mark.parametrize(("name", "features"), [("linear", ("inputs",)), ("mlp", ("hidden0",)), ("mlp", ("hidden1",))])
def test_dense_networks_give_features_by_name_too(name, features):
    model = create_model(name, num_classes=3, features=features)
    x = jax.random.normal(jax.random.key(0), (2, 5))
    found, variables = model.init_with_output(jax.random.key(1), x, train=False)
    assert set(found) == set(features)
    assert (
        set(variables.get("params", {})) == {f"hidden{index}" for index in range(int(features[0][-1]) + 1)}
        if (name == "mlp")
        else not variables
    )
    whole = create_model(name, num_classes=3)
    _, variables = whole.init_with_output(jax.random.key(1), x, train=False)
    _, seen = whole.apply(variables, x, train=False, mutable=["intermediates"])
    part = {"params": {name: leaf for name, leaf in variables["params"].items() if name != "logits"}}
    found = model.apply(part, x, train=False)
    assert (found[features[0]] == seen["intermediates"][features[0]][0]).all()
    with pytest.raises(ValueError, match="has no stage 'c1'"):
        create_model(name, num_classes=3, features=("c1",)).apply(variables, x, train=False)
