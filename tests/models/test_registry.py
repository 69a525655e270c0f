"""Models by name: what is listed can be built, what is mistyped is corrected."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest

from jaxdl.models import create_model, list_models, model_info
from jaxdl.models.registry import REQUIRED


def test_every_listed_model_can_be_built_and_says_what_it_is():
    assert {"mlp", "convnet", "linear"} <= set(list_models())
    for name in list_models():
        info = model_info(name)
        needed = {option: 3 for option, default in info.options.items() if default is REQUIRED}
        model = create_model(name, **needed)
        for option, default in info.options.items():
            assert getattr(model, option, None) == needed.get(option, default)  # `depth` may be in `depths`
        assert info.name == name and info.summary.endswith(".") and "[batch" in info.inputs


def test_only_the_model_with_batch_norm_uses_a_mask():
    assert model_info("convnet").uses_mask and not model_info("mlp").uses_mask


def test_an_unknown_name_suggests_the_nearest():
    with pytest.raises(ValueError, match=r"no model is called 'convent'; did you mean 'convnet'\?"):
        create_model("convent", num_classes=10)
    with pytest.raises(ValueError, match=r"no model is called 'zzz' \(jaxdl.list_models\(\) names all \d+\)"):
        model_info("zzz")


def test_info_of_a_name_that_sets_options():
    info = model_info("resnet50")
    assert info.fixed == {"depths": (3, 4, 6, 3), "bottleneck": True} and info.options["depths"] == (3, 4, 6, 3)
    assert info.example == (224, 224, 3) and "He et al." in info.reference and info.parameters == 25_557_032
    assert "resnet18" in info.variants and "resnext50_32x4d" in info.variants and "vgg16" not in info.variants
    assert create_model("resnet50", num_classes=10).depths == (3, 4, 6, 3)
    assert create_model("resnet50", num_classes=10, depths=(1, 1)).depths == (1, 1)


def test_names_are_listed_by_pattern():
    assert list_models("*net") == tuple(name for name in list_models() if name.endswith("net"))
    assert list_models("nothing*") == ()


def test_an_unknown_option_suggests_the_nearest():
    with pytest.raises(TypeError, match=r"no option 'droput'; did you mean 'dropout'\?"):
        create_model("mlp", num_classes=10, droput=0.1)
    with pytest.raises(TypeError, match="no option 'parent'"):
        create_model("mlp", num_classes=10, parent=None)


def test_a_missing_option_is_named():
    with pytest.raises(TypeError, match=r"needs num_classes: create_model\('mlp', num_classes=...\)"):
        create_model("mlp")


@pytest.mark.parametrize("classes", [-1, 2.5, "ten", None, True])
def test_a_number_of_classes_that_is_none_is_refused(classes):
    with pytest.raises(ValueError, match=rf"num_classes={classes!r}: a whole number, 0 for the features"):
        create_model("mlp", num_classes=classes)


@pytest.mark.parametrize(
    ("name", "options", "shape", "features"),
    [
        ("linear", {}, (2, 5), 5),
        ("mlp", {"widths": (4, 3)}, (2, 5), 3),
        ("convnet", {"width": 4, "hidden": 6}, (2, 8, 8, 1), 6),
        ("googlenet", {"width": 8, "aux": True}, (2, 32, 32, 3), 128),
        ("inception_v3", {"width": 4, "aux": True}, (2, 75, 75, 3), 256),
    ],
)
@pytest.mark.parametrize("train", [False, True])
def test_no_classes_give_the_features_before_the_logits(name, options, shape, features, train):
    model = create_model(name, num_classes=0, **options)
    keys = {"params": jax.random.key(0), "dropout": jax.random.key(1)}
    outputs, variables = jax.eval_shape(lambda: model.init_with_output(keys, jnp.zeros(shape), train=train))
    assert outputs.shape == (2, features)
    assert not any("logits" in name for name in variables.get("params", {}))
