"""LeNet, AlexNet, VGG, GoogLeNet, Inception-v3 against torchvision and keras; the convnet in 1, 2 and 3 dimensions."""

from __future__ import annotations

import contextlib
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdl import nn, optim
from jaxdl.models import create_model, import_weights
from tests.models.drawn import drawn_input, drawn_state
from tests.models.parity import read_cases, relative_difference

VGG = {"depths": (1, 1, 2), "width": 8, "hidden": 24, "pool": (2, 3)}
ALEXNET = {"widths": (8, 24, 48, 32, 32), "hidden": 24, "pool": (2, 3)}

# case of the fixture -> name and options of the model.
SMALL = {
    "vgg": ("vgg11", VGG),
    "vgg_bn": ("vgg11_bn", VGG),
    "alexnet": ("alexnet", ALEXNET),
    "alexnet_paper": ("alexnet_paper", ALEXNET),
    "googlenet": ("googlenet", {"width": 8, "depths": (1, 1, 1)}),
}
WHOLE = {
    "inception_v3": ("inception_v3", {"width": 4, "aux": True, "dropout": 0.0}),
    "whole_alexnet": ("alexnet", {}),
    "whole_vgg11_bn": ("vgg11_bn", {}),
    "whole_googlenet": ("googlenet", {"aux": True, "dropout": 0.0, "aux_dropout": 0.0}),
    "whole_googlenet_transformed": ("googlenet", {"aux": True, "transform_input": True}),
    "whole_inception_v3": ("inception_v3", {"aux": True}),
}
#: A wrong option of each kind that the parameters' shapes do not show.
WRONG = {
    "epsilon": ("vgg_bn", {"epsilon": 1e-3}),
    "epsilon of GoogLeNet": ("googlenet", {"epsilon": 1e-5}),
    "no normalisation": ("alexnet_paper", {"response_norm": False}),
    "padding": ("alexnet", {"first_padding": 3}),
    "height for width": ("vgg", {"pool": (3, 2)}),
    "input statistics": ("googlenet", {"transform_input": True}),
}


@functools.cache
def _case(name):
    return read_cases("models_classics.npz")[name]


def _outputs(name, **changes):
    """What the model gives under the weights of a case, by name."""
    case = _case(name)
    kind, options = {**SMALL, **WHOLE}[name]
    classes = 1000 if name.startswith("whole") else 5
    model = create_model(kind, num_classes=classes, **{**options, **changes})
    variables = import_weights(model, drawn_state(case.shapes), (1, *case.images[1:])).variables
    x = jnp.asarray(drawn_input(case.images))
    if "aux1" not in case.outputs:
        return {"logits": jax.jit(lambda v: model.apply(v, x, train=False))(variables)}
    # The fixture of Inception's heads has batch norms that normalise by their running statistics, as frozen ones do.
    frozen = optim.groups({".*": 0}, optim.sgd(0.1)).training() if name == "inception_v3" else contextlib.nullcontext()
    with frozen:
        return jax.jit(lambda v: model.apply(v, x, train=True, mutable=["batch_stats"])[0])(variables)


def _differences(name, **changes):
    case, found = _case(name), _outputs(name, **changes)
    assert set(found) == set(case.outputs)
    return {key: relative_difference(found[key][:, :10], value) for key, value in case.outputs.items()}


@pytest.mark.parametrize("name", SMALL)
def test_outputs_equal_torchvision(name):
    assert max(_differences(name).values()) < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("name", WHOLE)
def test_outputs_of_whole_models_equal_torchvision(name):
    assert max(_differences(name).values()) < 1e-4


@pytest.mark.parametrize("error", WRONG)
def test_a_wrong_option_is_seen(error):
    name, change = WRONG[error]
    assert max(_differences(name, **change).values()) > 1e-3


def test_a_wrong_stride_is_seen(monkeypatch):
    conv = nn.Conv
    monkeypatch.setattr(nn, "Conv", lambda *a, strides=1, **o: conv(*a, strides=3 if strides == 4 else strides, **o))
    assert max(_differences("alexnet").values()) > 1e-3


def test_a_plain_transpose_of_the_flattened_map_is_seen():
    """The usual error: the shape is right, the order is channels first."""
    case, model = _case("vgg"), create_model("vgg11", num_classes=5, **VGG)
    weights = drawn_state(case.shapes)
    variables = import_weights(model, weights, (1, *case.images[1:])).variables
    variables["params"]["fc6"]["kernel"] = jnp.asarray(weights["classifier.0.weight"].T)
    found = model.apply(variables, jnp.asarray(drawn_input(case.images)), train=False)
    assert relative_difference(found, case.outputs["logits"]) > 1e-2


@pytest.mark.slow
@pytest.mark.parametrize("name", ["VGG16", "VGG19"])
def test_vgg_equals_keras(name, monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    keras = pytest.importorskip("keras")
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        peer = getattr(keras.applications, name)(weights=None, input_shape=(224, 224, 3), classes=7)
        weights = drawn_state({weight.path: weight.shape for weight in peer.weights})
        peer.set_weights([weights[weight.path] for weight in peer.weights])
        x = drawn_input((1, 224, 224, 3))
        expected = np.log(np.asarray(peer.predict(x, verbose=0), np.float64))
    model = create_model(name.lower(), num_classes=7)
    found = import_weights(model, weights)
    assert found.peer == "keras"
    logits = np.asarray(jax.jit(lambda v: model.apply(v, x, train=False))(found.variables), np.float64)
    expected += np.log(np.exp(logits).sum(-1, keepdims=True))
    assert relative_difference(logits, expected) < 1e-4


def test_lenet_equals_torchs_tutorial():
    torch = pytest.importorskip("torch")

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.conv1, self.conv2 = torch.nn.Conv2d(1, 6, 5), torch.nn.Conv2d(6, 16, 5)
            self.fc1, self.fc2, self.fc3 = (torch.nn.Linear(*n) for n in ((16 * 25, 120), (120, 84), (84, 10)))

        def forward(self, x):
            x = torch.nn.functional.max_pool2d(torch.relu(self.conv1(x)), 2)
            x = torch.nn.functional.max_pool2d(torch.relu(self.conv2(x)), 2).flatten(1)
            return self.fc3(torch.relu(self.fc2(torch.relu(self.fc1(x)))))

    net = Net()
    weights = drawn_state({name: tuple(value.shape) for name, value in net.state_dict().items()})
    net.load_state_dict({name: torch.from_numpy(value) for name, value in weights.items()})
    x = drawn_input((3, 32, 32, 1))
    expected = net(torch.from_numpy(x).permute(0, 3, 1, 2)).detach().numpy()
    for pool, equal in (("max", True), ("avg", False)):
        model = create_model("lenet5", num_classes=10, activation="relu", pool=pool)
        found = model.apply(import_weights(model, weights).variables, x, train=False)
        assert (relative_difference(found, expected) < 1e-5) == equal


# ---- features, heads, refusals ----------------------------------------------------------------------------


def _shapes(name, x, *, train=False, **options):
    """Shapes of the outputs, and of the parameters by module, without computing anything."""
    model = create_model(name, num_classes=options.pop("num_classes", 5), **options)
    keys = {"params": jax.random.key(0), "dropout": jax.random.key(1)}
    variables = jax.eval_shape(lambda: model.init(keys, jnp.zeros(x), train=False))
    mutable = ["batch_stats"]
    out = jax.eval_shape(lambda v: model.apply(v, jnp.zeros(x), train=train, rngs=keys, mutable=mutable)[0], variables)
    return jax.tree.map(lambda leaf: leaf.shape, out), set(variables["params"])


def test_vgg_has_the_features_that_ssd_reads():
    features = ("conv4_3", "c5")
    found, modules = _shapes("vgg16", (2, 300, 300, 3), ceil=True, features=features)
    assert found == {"conv4_3": (2, 38, 38, 512), "c5": (2, 10, 10, 512)}
    assert len(modules) == 13 and "fc6" not in modules
    found, modules = _shapes("vgg16", (2, 224, 224, 3), features=("c3", "c4"))
    assert found == {"c3": (2, 28, 28, 256), "c4": (2, 14, 14, 512)} and "conv5_1" not in modules


@pytest.mark.parametrize(
    ("name", "size", "strides"),
    [
        ("alexnet", 224, (8, 17, 17, 17, 37)),
        ("googlenet", 224, (2, 4, 8, 16, 32)),
        ("inception_v3", 299, (2, 4, 8, 16, 32)),
    ],
)
def test_features_have_their_strides(name, size, strides):
    found, modules = _shapes(name, (1, size, size, 3), features=("c1", "c2", "c3", "c4", "c5"))
    for stage, stride in zip(("c1", "c2", "c3", "c4", "c5"), strides, strict=True):
        assert found[stage][1] == pytest.approx(size / stride, rel=0.2)
    assert "logits" not in modules


def test_without_classes_the_features_before_the_head_come_out():
    for name, size, channels in (
        ("vgg11", 32, 4096),
        ("alexnet", 63, 4096),
        ("googlenet", 32, 1024),
        ("lenet5", 32, 84),
    ):
        found, modules = _shapes(name, (2, size, size, 1), num_classes=0)
        assert found == (2, channels) and "logits" not in modules
    assert _shapes("inception_v3", (2, 75, 75, 3), num_classes=0)[0] == (2, 2048)


def test_auxiliary_heads_answer_in_training_only():
    for name, size, heads in (("googlenet", 64, {"aux1", "aux2"}), ("inception_v3", 139, {"aux1"})):
        out, modules = _shapes(name, (2, size, size, 3), aux=True, train=True, width=8)
        assert set(out) == {"logits", *heads} and set(out.values()) == {(2, 5)}
        assert _shapes(name, (2, size, size, 3), aux=True, width=8)[0] == (2, 5)
        bare, without = _shapes(name, (2, size, size, 3), train=True, width=8)
        assert bare == (2, 5) and {module.split("_")[0] for module in modules - without} == heads


@pytest.mark.parametrize(
    ("name", "shape", "options", "problem"),
    [
        ("vgg16", (1, 16, 64, 3), {}, "a VGG of 5 stages takes images .* of 32x32 or more, not"),
        ("vgg16", (1, 32, 32, 3), {"features": ("conv4_4",)}, "has no stage 'conv4_4'; did you mean"),
        ("alexnet", (1, 62, 64, 3), {}, "63x63 or more"),
        ("alexnet", (1, 64, 64, 3), {"widths": (1, 2)}, "has five convolutions"),
        ("lenet5", (1, 32, 32), {}, "LeNet takes images"),
        ("lenet5", (1, 32, 32, 1), {"pool": "mean"}, "choose 'max' or 'avg'"),
        ("googlenet", (1, 14, 64, 3), {}, "15x15 or more"),
        ("googlenet", (1, 64, 64, 3), {"depths": (2, 3, 1), "aux": True}, "ends before them"),
        ("googlenet", (1, 64, 64, 3), {"depths": (3, 3, 1)}, "depths are 1 to 2"),
        ("googlenet", (1, 64, 64, 1), {"transform_input": True}, "three channels"),
        ("inception_v3", (1, 74, 80, 3), {}, "75x75 or more"),
        ("convnet", (1, 8, 8), {}, "choose dims=1 or reshape"),
        ("convnet", (1, 8, 8, 1), {"dims": 1}, "convnet takes signals"),
        ("convnet", (1, 3, 8, 1), {"filters": (4, 4)}, "use 1 filters or fewer"),
        ("convnet", (1, 8, 8, 1), {"pool": "mean"}, "choose 'max' or 'avg'"),
        ("convnet", (1, 8, 8, 1), {"dims": 4}, "dims=1, 2 or 3"),
    ],
)
def test_what_cannot_be_is_refused(name, shape, options, problem):
    with pytest.raises(ValueError, match=problem):
        _shapes(name, shape, **options)


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_the_convnet_takes_signals_images_and_volumes(dims):
    model = create_model("convnet", num_classes=3, dims=dims, filters=(4, 6), kernel=3, hidden=(10, 7))
    x = jnp.zeros((2, *(8,) * dims, 2))
    variables = jax.eval_shape(lambda: model.init(jax.random.key(0), x, train=False))
    count = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(variables["params"]))
    taps = 3**dims
    dense = (6 * 2**dims * 10 + 10) + (10 * 7 + 7) + (7 * 3 + 3)
    assert count == (taps * 2 * 4 + 4) + (taps * 4 * 6 + 6) + dense
    assert set(variables["params"]) == {"conv0", "conv1", "dense", "dense1", "logits"}
    out, _ = _shapes("convnet", (2, *(8,) * dims, 2), dims=dims, features=("block0",), width=4)
    assert out == {"block0": (2, *(4,) * dims, 4)}


def test_spatial_dropout_of_the_convnet_zeroes_whole_channels():
    model = create_model(
        "convnet", num_classes=3, dims=1, filters=(32,), spatial_dropout=True, dropout=0.9, features=("block0",)
    )
    x = jnp.asarray(np.abs(drawn_input((2, 8, 1)))) + 1
    variables = {"params": {"conv0": {"kernel": jnp.ones((3, 1, 32)), "bias": jnp.zeros(32)}}}
    kept = model.apply(variables, x, train=True, rngs={"dropout": jax.random.key(0)})["block0"] > 0
    np.testing.assert_array_equal(kept.all(1), kept.any(1))
    assert kept.any() and not kept.all()
