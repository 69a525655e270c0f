"""SSD: torchvision's numbers, default boxes, and what the task of detection keeps."""

from __future__ import annotations

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdl
from jaxdl import metrics, tasks
from jaxdl.models import create_model
from jaxdl.models.boxes import multibox_loss
from jaxdl.models.convert import import_weights
from tests.models.drawn import drawn_input, drawn_state

KEPT = np.load(pathlib.Path(__file__).parents[1] / "fixtures" / "models_ssd.npz")
BOXES = [[[30.0, 40, 160, 200], [100, 100, 290, 280]], [[5, 5, 60, 45]], []]
LABELS = [[0, 1], [1], []]
TINY = {"num_classes": 3, "size": 64, "width": 4, "depths": (1, 1, 1, 1, 1), "batch_norm": True}


def imported():
    """(model, variables) with the drawn weights of the peer: a sixteenth of VGG-16's width."""
    model = create_model("ssd300_vgg16", num_classes=3, width=4)
    state = drawn_state(json.loads(str(KEPT["shapes"])))
    return model, import_weights(model, state, (1, 300, 300, 3)).variables


@pytest.fixture(scope="module")
def heads():
    """(model, outputs for the three images of the fixture)."""
    model, variables = imported()
    x = jnp.asarray(drawn_input((3, 3, 300, 300)).transpose(0, 2, 3, 1))
    return model, jax.jit(lambda v, x: model.apply(v, x, train=False))(variables, x)


def test_the_heads_give_the_numbers_of_torchvision(heads):
    for name in ("logits", "offsets"):
        given, expected = np.asarray(heads[1][name][0, ::23]), KEPT[name]
        assert np.abs(given - expected).max() <= 1e-4 * np.abs(expected).max(), name


@pytest.mark.slow
def test_the_whole_model_gives_the_numbers_of_torchvision():
    model = create_model("ssd300_vgg16", num_classes=21)
    state = drawn_state(json.loads(str(KEPT["whole_shapes"])))
    variables = import_weights(model, state, (1, 300, 300, 3)).variables
    x = jnp.asarray(drawn_input((3, 3, 300, 300))[:1].transpose(0, 2, 3, 1))
    outputs = jax.jit(lambda v, x: model.apply(v, x, train=False))(variables, x)
    for name in ("logits", "offsets"):
        given, expected = np.asarray(outputs[name][0, ::97]), KEPT[f"whole_{name}"]
        assert np.abs(given - expected).max() <= 1e-4 * np.abs(expected).max(), name


def test_the_default_boxes_are_those_of_torchvision(heads):
    boxes = heads[0].default_boxes()
    assert boxes.shape == (8732, 4)
    corners = np.concatenate([boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2], 1) * 300
    np.testing.assert_allclose(corners[::7], KEPT["default_boxes"], atol=1e-3)


def test_the_loss_is_that_of_torchvision(heads):
    target = metrics.detection_arrays([{"boxes": b, "labels": n} for b, n in zip(BOXES, LABELS, strict=True)])
    defaults = jnp.asarray(heads[0].default_boxes() * 300)
    parts = jax.jit(multibox_loss)(
        heads[1]["logits"], heads[1]["offsets"], defaults, jnp.asarray(target["boxes"]), jnp.asarray(target["labels"])
    )
    np.testing.assert_array_equal(parts.positives, KEPT["matched"])
    total = float(parts.positives.sum())
    np.testing.assert_allclose(parts.boxes.sum() / total, KEPT["loss_boxes"], rtol=1e-4)
    np.testing.assert_allclose(parts.classes.sum() / total, KEPT["loss_classes"], rtol=1e-4)


def test_what_is_planted_is_seen(heads):
    """The dilation of conv6, the pool that keeps the odd row and the learned length change the numbers."""
    model, variables = imported()
    x = jnp.asarray(drawn_input((3, 3, 300, 300))[:1].transpose(0, 2, 3, 1))
    variables["params"]["l2norm4_3"]["scale"] = variables["params"]["l2norm4_3"]["scale"] * 1.01
    variables["params"]["conv6"]["kernel"] = variables["params"]["conv6"]["kernel"].transpose(1, 0, 2, 3)
    outputs = jax.jit(lambda v, x: model.apply(v, x, train=False))(variables, x)
    places = 38 * 38 * 4
    for part in (slice(0, places), slice(places, None)):
        wrong, right = np.asarray(outputs["logits"][0, part]), np.asarray(heads[1]["logits"][0, part])
        assert np.abs(wrong - right).max() > 1e-3 * np.abs(right).max()


@pytest.mark.parametrize(
    ("name", "boxes", "sides"),
    [
        ("ssd300_vgg16", 8732, [38, 19, 10, 5, 3, 1]),
        ("ssd300_resnet50", 8732, [38, 19, 10, 5, 3, 1]),
        ("ssd512_vgg16", 24564, [64, 32, 16, 8, 4, 2, 1]),
        ("ssd512_resnet50", 24564, [64, 32, 16, 8, 4, 2, 1]),
    ],
)
def test_maps_and_default_boxes_go_together(name, boxes, sides):
    model = create_model(name, num_classes=4, width=2)
    size = model.size
    assert model.default_boxes().shape == (boxes, 4)
    asked = model.clone(features=tuple(f"map{number}" for number in range(1, len(sides) + 1)))
    x = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
    variables = jax.eval_shape(lambda x: model.init(jax.random.key(0), x, train=False), x)
    outputs = jax.eval_shape(lambda v, x: model.apply(v, x, train=False), variables, x)
    assert outputs["logits"].shape == (1, boxes, 4) and outputs["offsets"].shape == (1, boxes, 4)
    maps = jax.eval_shape(lambda v, x: asked.apply(v, x, train=False), variables, x)
    assert [maps[f"map{number}"].shape[1] for number in range(1, len(sides) + 1)] == sides


def test_what_does_not_fit_is_refused_in_a_sentence():
    x = jnp.zeros((1, 64, 96, 3))
    for options, given, sentence in (
        (TINY, x, r"ssd of size=64 takes images \[batch, 64, 64, channels\]"),
        (TINY | {"backbone": "vgg19"}, x, "no backbone 'vgg19'"),
        (TINY | {"num_classes": 1}, x, "2 or more, the background among them"),
        (TINY | {"extras": ("third",)}, x, "one of half, valid, last"),
        (TINY | {"extras": ("valid",) * 4}, x, "larger size or fewer extras"),
        (TINY | {"depths": (1, 1)}, x, "vgg16 has 5 stages"),
    ):
        with pytest.raises(ValueError, match=sentence):
            jax.eval_shape(
                lambda g, o=options: create_model("ssd300_vgg16", **o).init(jax.random.key(0), g, train=False), given
            )
    with pytest.raises(TypeError, match=r"detection takes a model with default_boxes\(\)"):
        tasks.detection(create_model("linear", num_classes=2))


def scenes(count: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Images of 64x64 with one or two bright squares: red ones are 0, green ones 1."""
    rng = np.random.default_rng(seed)
    x = rng.integers(0, 40, (count, 64, 64, 3), dtype=np.uint8)
    boxes, labels = np.zeros((count, 3, 4), np.float32), np.full((count, 3), -1, np.int32)
    for image in range(count):
        for number in range(int(rng.integers(1, 3))):
            side, label = int(rng.integers(14, 28)), int(rng.integers(0, 2))
            left, top = (int(v) for v in rng.integers(0, 64 - side, 2))
            x[image, top : top + side, left : left + side, label] = 230
            boxes[image, number] = left, top, left + side, top + side
            labels[image, number] = label
    return {"x": x, "boxes": boxes, "labels": labels}


def test_a_narrow_ssd_learns_to_find_squares_and_evaluations_count_every_image():
    data = scenes(32)
    data["labels"][5] = -1  # nothing to be found
    model = create_model("ssd300_vgg16", **TINY)
    run = jaxdl.fit(
        tasks.detection(model, capacity=10_000), data, steps=60, batch_size=16, seed=0,
        optimizer=jaxdl.optim.adam(5e-3), verbose=0,
    )  # fmt: skip
    found = run.predict(data)
    assert found["boxes"].shape == (32, 200, 4) and found["labels"].shape == (32, 200)
    metric = metrics.VocMAP(num_classes=2, capacity=10_000)
    target = {name: data[name] for name in ("boxes", "labels")}
    by_hand = float(metric.compute(metric.update(metric.init(), preds=found, target=target)))
    assert by_hand > 0.3
    np.testing.assert_allclose(run.evaluate(data)["voc_map"], by_hand, atol=1e-5)
    coco = metrics.CocoMAP(num_classes=2, capacity=10_000)
    assert run.evaluate(data, metrics=(coco,))["coco_map/ap_50"] > 0.3


def test_the_loss_of_a_batch_is_over_its_positives_however_it_is_split():
    data = {name: jnp.asarray(value) for name, value in scenes(4, seed=3).items()}
    data["labels"] = data["labels"].at[1].set(-1)
    task = tasks.detection(create_model("ssd300_vgg16", **TINY))
    variables = jax.jit(task.init)(jax.random.key(0), data)

    @jax.jit
    def parts(batch):
        context = jaxdl.Context(False, lambda name: jax.random.key(0), jnp.int32(0), {}, jnp.ones(len(batch["x"])))
        loss = task.loss(variables, batch, context)
        return loss.value, loss.weight, loss.outputs["weight"]

    value, weight, seen = parts(data)
    assert weight[1] == 0 and np.isfinite(value).all() and (np.asarray(seen) == 1).all()
    halves = [parts({k: leaf[jnp.array(rows)] for k, leaf in data.items()}) for rows in ((0, 1, 0, 1), (2, 3, 2, 3))]
    whole = float(jnp.sum(value * weight) / jnp.sum(weight))
    split = sum(float(jnp.sum(v * w)) for v, w, _ in halves) / sum(float(jnp.sum(w)) for _, w, _ in halves)
    np.testing.assert_allclose(whole, split, rtol=1e-5)
