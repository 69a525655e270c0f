"""Segmentation models against PyTorch's numbers under drawn weights, and what an image's size does to them."""

from __future__ import annotations

import functools
import re
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdl import nn
from jaxdl.models import create_model
from jaxdl.models.convert import export_weights, import_weights
from jaxdl.models.fcn import FCN, FCNResNet, bilinear_kernel
from jaxdl.models.pspnet import PSPNet
from jaxdl.models.rules import Peer, conv
from jaxdl.models.segmentation import conv_norm
from tests.models.drawn import drawn_input, drawn_state

FIXTURE = Path(__file__).resolve().parent.parent / "fixtures" / "models_segmentation.npz"
SHAPE = (2, 49, 67, 3)
TINY = {"depths": (1, 1, 1, 1), "num_classes": 4}
slow = pytest.mark.slow


@functools.cache
def kept() -> dict[str, np.ndarray]:
    with np.load(FIXTURE) as file:
        return dict(file)


@functools.cache
def weights(case: str) -> dict[str, np.ndarray]:
    """The peer's weights, drawn again."""
    lines = (line.split(" ") for line in kept()[f"{case}/shapes"].tobytes().decode().split("\n"))
    return drawn_state({name: tuple(map(int, sizes.split(","))) if sizes else () for name, sizes in lines})


def imported(case: str, model: Any) -> Any:
    return import_weights(model, weights(case), SHAPE).variables


def logits(model: Any, variables: Any, **options: Any) -> Any:
    def run(variables: Any, x: Any) -> Any:
        return model.apply(variables, x, **{"train": False, **options})

    return jax.jit(run)(variables, drawn_input(SHAPE))


def distance(found: Any, wanted: np.ndarray) -> float:
    """The largest difference, relative to the largest logit."""
    assert found.shape[:3] == SHAPE[:3]
    return float(np.max(np.abs(np.asarray(found)[:, ::4, ::4] - wanted)) / np.max(np.abs(wanted)))


def _pyramid(model: PSPNet) -> Peer:
    """The names in the script that makes the fixture."""
    whole = FCNResNet(num_classes=4, depths=model.depths)
    backbone = [rule for rule in FCNResNet.peers["torchvision"](whole).rules if rule.ours.startswith("backbone/")]
    bins = [rule for n in range(4) for rule in conv_norm(f"bin{n + 1}", f"bins.{n}.1", f"bins.{n}.2")]
    head = (*conv_norm("head", "classifier.0", "classifier.1"), *conv("logits", "classifier.3"))
    return Peer((*backbone, *bins, *head))


CASES = {
    "tiny_unet": ("unet", {"num_classes": 4, "width": 4, "depth": 3}),
    "tiny_deeplab": ("deeplabv3_resnet50", {**TINY, "output_stride": 16, "rates": (1, 2, 3)}),
    "tiny_deeplab_8": ("deeplabv3_resnet50", TINY),
    "tiny_pspnet": ("pspnet_resnet50", TINY),
    "tiny_fcn8s": ("fcn8s_vgg16", {"num_classes": 4, "width": 4, "hidden": 16, "depths": (1, 1, 1, 1, 1)}),
    "unet": ("unet", {"num_classes": 4}),
    "fcn_resnet50": ("fcn_resnet50", {"num_classes": 4, "aux": True}),
    "deeplabv3_resnet50": ("deeplabv3_resnet50", {"num_classes": 4, "aux": True}),
}
FAST = ("tiny_unet", "tiny_fcn8s", "tiny_deeplab")


@pytest.mark.parametrize("case", [pytest.param(case, marks=() if case in FAST else slow) for case in CASES])
def test_logits_are_those_of_the_peer(case, monkeypatch):
    name, options = CASES[case]
    if case == "tiny_pspnet":
        monkeypatch.setattr(PSPNet, "peers", {"torch": _pyramid}, raising=False)
    model = create_model(name, **options)
    variables = imported(case, model)
    assert distance(logits(model, variables), kept()[f"{case}/out"]) < 1e-4
    exported = export_weights(model, variables)
    for key, value in exported.items():
        np.testing.assert_array_equal(value, weights(case)[key])
    assert len(exported) == sum("num_batches_tracked" not in key for key in weights(case))


@pytest.mark.parametrize(
    ("case", "changed"),
    [
        ("tiny_unet", {"epsilon": 1e-3}),
        pytest.param("tiny_deeplab", {"rates": (1, 1, 3)}, marks=slow),
        pytest.param("tiny_deeplab", {"output_stride": 8}, marks=slow),
        pytest.param("tiny_deeplab", {"align": True}, marks=slow),
        pytest.param("tiny_pspnet", {"align": True}, marks=slow),
        pytest.param("tiny_pspnet", {"bins": (1, 2, 3, 5)}, marks=slow),
    ],
)
def test_planted_errors_are_seen(case, changed, monkeypatch):
    """Each is a plausible reading of the architecture whose weights have the same shapes."""
    name, options = CASES[case]
    monkeypatch.setattr(PSPNet, "peers", {"torch": _pyramid}, raising=False)
    changed, resize = dict(changed), nn.resize
    if "epsilon" in changed:
        monkeypatch.setattr(nn, "BatchNorm", functools.partial(nn.BatchNorm, epsilon=changed.pop("epsilon")))
    if changed.pop("align", False):
        monkeypatch.setattr(nn, "resize", functools.partial(resize, align_corners=True))
    model = create_model(name, **{**options, **changed})
    assert distance(logits(model, imported(case, model)), kept()[f"{case}/out"]) > 1e-3


@slow
def test_auxiliary_logits_are_those_of_the_peer_in_training():
    model = create_model("fcn_resnet50", **TINY, aux=True, dropout=0.0, aux_dropout=0.0)
    outputs, _ = logits(model, imported("tiny_fcn", model), train=True, mutable=["batch_stats"])
    assert distance(outputs["logits"], kept()["tiny_fcn/out"]) < 1e-4
    assert distance(outputs["aux1"], kept()["tiny_fcn/aux"]) < 1e-4
    # A classifier with an auxiliary head is imported without it, too.
    plain = create_model("fcn_resnet50", **TINY)
    assert {name.split(".")[0] for name in import_weights(plain, weights("tiny_fcn"), SHAPE).left} == {"aux_classifier"}


# ---- what follows from the size of an image ---------------------------------------------------------------

_SMALL = {"num_classes": 3, "width": 4, "depths": (1, 1, 1, 1), "bottleneck": False}
SMALL = {
    "unet": {"num_classes": 3, "width": 2, "depth": 3},
    "unet-resize": {"num_classes": 3, "width": 2, "depth": 3, "up": "resize"},
    "fcn8s_vgg16": {"num_classes": 3, "width": 2, "depths": (1, 1, 1, 1, 1), "hidden": 4},
    "fcn_resnet50": _SMALL,
    "pspnet_resnet50": _SMALL,
    "deeplabv3_resnet50": _SMALL,
}


def outlined(name: str, shape: tuple[int, ...], **options: Any) -> Any:
    """Shapes of the outputs and of the variables, without running anything."""
    model = create_model(name.split("-")[0], **{**SMALL[name], **options})
    variables = jax.eval_shape(
        lambda x: model.init(jax.random.key(0), x, train=False), jax.ShapeDtypeStruct(shape, jnp.float32)
    )
    outputs = jax.eval_shape(
        lambda v, x: model.apply(v, x, train=False), variables, jax.ShapeDtypeStruct(shape, jnp.float32)
    )
    return jax.tree.map(lambda leaf: leaf.shape, outputs), variables


@pytest.mark.parametrize("name", sorted(SMALL))
def test_images_of_any_size_come_out_as_large_as_they_went_in(name):
    for height, width in ((8, 9), (33, 31), (64, 32)):
        assert outlined(name, (1, height, width, 3))[0] == (1, height, width, 3)


@pytest.mark.parametrize("name", sorted(SMALL))
def test_features_go_by_name_and_no_classes_means_the_map_below_the_logits(name):
    known = ("down0", "bottom", "up0") if name.startswith("unet") else ("c2", "c5", "head")
    found, _ = outlined(name, (2, 40, 48, 3), features=known)
    assert set(found) == set(known) and all(shape[0] == 2 and len(shape) == 4 for shape in found.values())
    maps, variables = outlined(name, (2, 40, 48, 3), num_classes=0)
    assert maps == found[known[-1]]
    assert not {path for path in variables["params"] if re.match("logits|score|aux", path)}
    with pytest.raises(ValueError, match="has no stage 'c9'"):
        outlined(name, (2, 40, 48, 3), features=("c9",))


def test_output_stride_sets_size_and_rates():
    def stages(stride: int) -> list[int]:
        found, _ = outlined("deeplabv3_resnet50", (1, 64, 64, 3), output_stride=stride, features=("c3", "c4", "c5"))
        return [shape[1] for shape in found.values()]

    assert (stages(8), stages(16), stages(32)) == ([8, 8, 8], [8, 4, 4], [8, 4, 2])
    shapes = [jax.tree.map(lambda x: x.shape, outlined("pspnet_resnet50", (1, 64, 64, 3), output_stride=s)[1])
              for s in (8, 16, 32)]  # fmt: skip
    assert shapes[0] == shapes[1] == shapes[2]
    model = create_model("deeplabv3_resnet50", **{**_SMALL, "output_stride": 16})
    text = str(jax.make_jaxpr(lambda x: model.init(jax.random.key(0), x, train=False))(jnp.zeros((1, 64, 64, 3))))
    assert {f"rhs_dilation=({rate}, {rate})" in text for rate in (2, 6, 12, 18)} == {True}
    assert "rhs_dilation=(24, 24)" not in text and "rhs_dilation=(4, 4)" not in text


def test_transposed_convolutions_start_as_bilinear_interpolation():
    x = jnp.asarray(drawn_input((1, 9, 7, 3)))
    for factor in (2, 8):
        layer = nn.ConvTranspose(3, 2 * factor, strides=factor, padding=factor // 2, use_bias=False,
                                 kernel_init=bilinear_kernel)  # fmt: skip
        y = layer.apply(layer.init(jax.random.key(0), x), x)
        inside = slice(factor, -factor)
        wanted = nn.resize(x, (9 * factor, 7 * factor))
        np.testing.assert_allclose(y[:, inside, inside], wanted[:, inside, inside], rtol=0, atol=1e-5)
    odd = np.asarray(bilinear_kernel(jax.random.key(0), (3, 3, 1, 1)))[..., 0, 0]
    np.testing.assert_allclose(odd, np.outer([0.5, 1, 0.5], [0.5, 1, 0.5]))
    with pytest.raises(ValueError, match="cannot lead from 2 to 3"):
        bilinear_kernel(jax.random.key(0), (4, 4, 2, 3))


def test_strides_of_fcn_choose_its_scores():
    for stride, names in (
        (32, {"up1"}),
        (16, {"score16", "up16", "up1"}),
        (8, {"score16", "score8", "up16", "up8", "up1"}),
    ):
        _, variables = outlined("fcn8s_vgg16", (1, 40, 40, 3), stride=stride)
        assert {path for path in variables["params"] if re.match("up|score", path)} == names | {"score32"}
        assert variables["params"]["up1"]["kernel"].shape == (2 * stride, 2 * stride, 3, 3)


@slow
def test_fcn_starts_from_a_classifier_whose_dense_layers_it_reads_as_convolutions():
    options = {"width": 4, "depths": (1, 1, 1, 1, 1), "hidden": 16}
    classifier = create_model("vgg16", num_classes=5, pool=7, **options)
    x = drawn_input((1, 224, 224, 3))
    variables = jax.jit(functools.partial(classifier.init, train=False))(jax.random.key(0), x)
    variables = jax.tree.map(lambda leaf: leaf + 0.1 * drawn_input(leaf.shape), variables)
    model = FCN(num_classes=3, **options)
    started = import_weights(model, export_weights(classifier, variables, peer="torchvision"), x, new_head=True)
    assert {path.split("/")[0] for path in started.fresh} == {"score32", "score16", "score8", "up16", "up8", "up1"}
    assert sorted(started.left) == ["classifier.6.bias", "classifier.6.weight"]
    head = model.clone(features=("head",)).apply(started.variables, x, train=False)["head"]
    wanted = classifier.clone(num_classes=0).apply(variables, x, train=False)
    assert head.shape == (1, 7, 7, 16)
    np.testing.assert_allclose(head[:, 3, 3], wanted, rtol=0, atol=1e-5 * float(jnp.max(jnp.abs(wanted))))


def test_bad_input_gets_a_sentence():
    x = jnp.zeros((1, 12, 12, 3))

    def fails(name: str, x: Any = x, **options: Any) -> str:
        with pytest.raises(ValueError) as caught:
            model = create_model(name, **{**SMALL[name], **options})
            jax.eval_shape(lambda x: model.init(jax.random.key(0), x, train=False), x)
        return str(caught.value)

    assert "choose depth=3 or less" in fails("unet", depth=4)
    assert 'up=\'x\': choose "transposed" or "resize"' in fails("unet", up="x")
    for name in ("unet", "fcn8s_vgg16", "pspnet_resnet50"):
        assert "takes images [batch, height, width, channels], not (12, 12, 3)" in fails(name, x[0])
    assert "would learn 4,096,000,000 numbers" in fails("fcn8s_vgg16", stride=32, num_classes=1000)
    assert "stride is 8, 16 or 32, not 4" in fails("fcn8s_vgg16", stride=4)
    assert "output_stride is 8, 16 or 32, not 4" in fails("deeplabv3_resnet50", output_stride=4)
    assert "bins are numbers of cells of at least 1" in fails("pspnet_resnet50", bins=(0, 2))
    assert "rates are dilations of at least 1" in fails("deeplabv3_resnet50", rates=())
