"""One row per model that obeys the laws of test_laws.py: tiny options, data that it can learn by heart, its task."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from jaxdl import tasks
from jaxdl.models.catalog import MODELS

Data = Callable[[np.random.Generator, int], dict[str, np.ndarray]]


def images(size: int = 16, channels: int = 3, classes: int = 3) -> Data:
    """x: [n, size, size, channels] noise; y: [n] class numbers."""

    def make(rng: np.random.Generator, count: int) -> dict[str, np.ndarray]:
        x = rng.normal(size=(count, size, size, channels)).astype(np.float32)
        return {"x": x, "y": rng.integers(0, classes, count).astype(np.int32)}

    return make


def vectors(features: int = 12, classes: int = 3) -> Data:
    """x: [n, features] noise; y: [n] class numbers."""

    def make(rng: np.random.Generator, count: int) -> dict[str, np.ndarray]:
        x = rng.normal(size=(count, features)).astype(np.float32)
        return {"x": x, "y": rng.integers(0, classes, count).astype(np.int32)}

    return make


def scenes(height: int = 33, width: int = 35, classes: int = 3, border: int = 8) -> Data:
    """x: [n, height, width, 3] noise on four tinted quarters; y: [n, height, width] their classes, 255 between them."""

    def make(rng: np.random.Generator, count: int) -> dict[str, np.ndarray]:
        quarters = rng.integers(0, classes, (count, 2, 2))
        rows, columns = (np.arange(size) * 2 // size for size in (height, width))
        y = quarters[:, rows][:, :, columns].astype(np.uint8)
        x = rng.normal(size=(*y.shape, 3)) + 2 * np.eye(3)[y % 3]
        y[:, height // 2 - border // 2 :][:, :border] = 255
        y[:, :, width // 2 - border // 2 :][:, :, :border] = 255
        return {"x": x.astype(np.float32), "y": y}

    return make


def squares(size: int = 32) -> Data:
    """x: dark images with a bright square each; boxes: [n, 2, 4] corners; labels: [n, 2], -1 is padding."""

    def make(rng: np.random.Generator, count: int) -> dict[str, np.ndarray]:
        x = rng.normal(0, 0.1, size=(count, size, size, 3)).astype(np.float32)
        boxes, labels = np.zeros((count, 2, 4), np.float32), np.full((count, 2), -1, np.int32)
        for image in range(count):
            side, label = int(rng.integers(size // 4, size // 2)), int(rng.integers(0, 2))
            left, top = (int(v) for v in rng.integers(0, size - side, 2))
            x[image, top : top + side, left : left + side, label] += 1
            boxes[image, 0], labels[image, 0] = (left, top, left + side, top + side), label
        return {"x": x, "boxes": boxes, "labels": labels}

    return make


def pictures(size: int = 8) -> Data:
    """x: [n, size, size, 1] zeros and ones."""
    return lambda rng, count: {"x": (rng.uniform(size=(count, size, size, 1)) < 0.5).astype(np.float32)}


def pairs(count: int = 40) -> Data:
    """x: [n, 2] a query and an item of its own each."""

    def make(rng: np.random.Generator, number: int) -> dict[str, np.ndarray]:
        return {"x": np.stack([rng.permutation(count)[:number] for _ in range(2)], 1).astype(np.int32)}

    return make


def series(steps: int = 5, features: int = 4, classes: int = 3) -> Data:
    """x: [n, steps, features] noise; y: [n] class numbers."""

    def make(rng: np.random.Generator, count: int) -> dict[str, np.ndarray]:
        x = rng.normal(size=(count, steps, features)).astype(np.float32)
        return {"x": x, "y": rng.integers(0, classes, count).astype(np.int32)}

    return make


def steps_of(features: int = 8, steps: int = 3) -> Data:
    """x: [n, features] noise; y: [n, steps] numbers."""

    def make(rng: np.random.Generator, count: int) -> dict[str, np.ndarray]:
        x = rng.normal(size=(count, features)).astype(np.float32)
        return {"x": x, "y": rng.normal(size=(count, steps)).astype(np.float32)}

    return make


def stories(length: int = 6, vocabulary: int = 7) -> Data:
    """x: [n, length] tokens; y: the next ones. Each text is told by its first token alone, so it can be learnt."""

    def make(rng: np.random.Generator, count: int) -> dict[str, np.ndarray]:
        told = np.random.default_rng(0).integers(0, vocabulary, (vocabulary, length)).astype(np.int32)
        first = rng.integers(0, vocabulary, count)
        text = np.concatenate([first[:, None].astype(np.int32), told[first]], 1)
        return {"x": text[:, :-1], "y": text[:, 1:]}

    return make


def sentences(length: int = 6, vocabulary: int = 20, classes: int = 3) -> Data:
    """x: [n, length] tokens, of which up to half are padding (0) at the end; y: [n] class numbers."""

    def make(rng: np.random.Generator, count: int) -> dict[str, np.ndarray]:
        x = rng.integers(1, vocabulary, (count, length)).astype(np.int32)
        x[np.arange(length)[None] >= rng.integers(length // 2, length + 1, (count, 1))] = 0
        return {"x": x, "y": rng.integers(0, classes, count).astype(np.int32)}

    return make


def told(length: int = 4, vocabulary: int = 9) -> Data:
    """x: [n, length] tokens from 3 on; y: [n, length + 2], 1, the same tokens backwards, 2."""

    def make(rng: np.random.Generator, count: int) -> dict[str, np.ndarray]:
        x = rng.integers(3, vocabulary, (count, length)).astype(np.int32)
        ends = [np.full((count, 1), token, np.int32) for token in (1, 2)]
        return {"x": x, "y": np.concatenate([ends[0], x[:, ::-1], ends[1]], 1)}

    return make


def _x(batch: Mapping[str, Any]) -> Any:
    return batch["x"]


def _both(batch: Mapping[str, Any]) -> Any:
    """What encoders and decoders read of a batch of `tasks.translation`."""
    return {"source": batch["x"], "target": batch["y"][:, :-1]}


class Row(NamedTuple):
    """One model under the laws.

    Attributes:
        name: in `create_model`.
        options: that make it tiny: it should compile in a second or two.
        data: (generator, n) -> a batch of n examples with "x" and what the task needs.
        task: module -> jaxdl Task, by which it learns 32 examples by heart.
        label: what sets the row apart from others of the same name.
        rate: Adam's learning rate for that; steps: on all 32 examples at once.
        loss: what the evaluated loss must fall below.
        no_gradient: regular expressions of parameters ("block0/norm2/scale") whose gradient is 0 by design.
        couples: the evaluated outputs of an example depend on the others of its batch by design.
        inputs: batch -> what the model is called with.
        slow: tested by `make test-slow` only. Each kind of network keeps rows that are not; what shapes alone can tell
            is always tested, for one row of every class.
    """

    name: str
    options: Mapping[str, Any]
    data: Data
    task: Callable[[Any], Any] = tasks.classification
    label: str = ""
    rate: float = 1e-2
    steps: int = 40
    loss: float = 0.1
    no_gradient: tuple[str, ...] = ()
    couples: bool = False
    inputs: Callable[[Mapping[str, Any]], Any] = _x
    slow: bool = False

    @property
    def id(self) -> str:
        """As pytest shows it."""
        return f"{self.name}-{self.label}" if self.label else self.name


ROWS: tuple[Row, ...] = (
    # Small networks.
    Row("linear", {"num_classes": 3}, vectors(40), rate=5e-2),
    Row("mlp", {"num_classes": 3, "widths": (16, 16)}, vectors()),
    Row("convnet", {"num_classes": 3, "width": 4, "hidden": 16, "dropout": 0.0}, images(8)),
    # Classics: LeNet, AlexNet, VGG, GoogLeNet, Inception.
    Row("lenet5", {"num_classes": 3, "width": 3}, images(16, 1)),
    Row(
        "alexnet",
        {"num_classes": 3, "widths": (4, 6, 8, 8, 6), "hidden": 16, "pool": 2, "dropout": 0.0},
        images(67),
        rate=5e-3,
        steps=60,
        slow=True,
    ),
    Row(
        "alexnet_paper",
        {"num_classes": 3, "widths": (4, 6, 8, 8, 6), "hidden": 16, "pool": 2, "dropout": 0.0},
        images(67),
        rate=5e-3,
        steps=60,
        slow=True,
    ),
    Row(
        "vgg11_bn",
        {"num_classes": 3, "depths": (1, 1, 2), "width": 8, "hidden": 64, "pool": (1, 2), "dropout": 0.0},
        images(8),
        rate=5e-3,
        steps=110,
    ),
    Row("googlenet", {"num_classes": 3, "width": 4, "depths": (1, 1, 1), "dropout": 0.0}, images(16), slow=True),
    Row(
        "googlenet_paper",
        {"num_classes": 3, "width": 8, "depths": (1, 1, 1), "dropout": 0.0},
        images(16),
        slow=True,
    ),
    Row(
        "inception_v3",
        {"num_classes": 3, "width": 2, "depths": (1, 1, 1), "dropout": 0.0},
        images(75),
        slow=True,
    ),
    # Residual networks.
    Row("resnet18", {"num_classes": 3, "width": 8, "depths": (1, 1)}, images(32)),
    Row("resnet50", {"num_classes": 3, "width": 4, "depths": (1, 1), "stem": "cifar"}, images(8), slow=True),
    Row("resnet50_v1", {"num_classes": 3, "width": 4, "depths": (1, 1)}, images(32), slow=True),
    Row("resnetv2_50", {"num_classes": 3, "width": 4, "depths": (1, 1)}, images(32), slow=True),
    Row("resnet50d", {"num_classes": 3, "width": 4, "depths": (1, 1)}, images(32), slow=True),
    Row(
        "resnet50",
        {"num_classes": 3, "width": 4, "depths": (1, 1, 1), "replace_stride_with_dilation": (False, True)},
        images(32),
        label="dilated",
        slow=True,
    ),
    Row(
        "resnet18",
        {"num_classes": 3, "width": 8, "depths": (1, 1), "zero_init": True},
        images(32),
        label="zero_init",
        # The last scale is 0, so what comes before it moves from the second step on.
        no_gradient=(r"c\d_block\d/(conv1/kernel|conv2/kernel|norm1/(scale|bias))",),
        slow=True,
    ),
    Row(
        "resnext50_32x4d",
        {"num_classes": 3, "width": 16, "depths": (1, 1), "groups": 4, "group_width": 8},
        images(32),
        slow=True,
    ),
    Row("wide_resnet50_2", {"num_classes": 3, "width": 4, "depths": (1, 1)}, images(32), slow=True),
    # Dense, small and mobile networks.
    Row("densenet121", {"num_classes": 3, "depths": (2, 2), "growth": 4, "width": 8}, images(32)),
    Row(
        "densenet121",
        {"num_classes": 3, "depths": (2, 2), "growth": 4, "width": 8, "remat": True},
        images(32),
        label="remat",
        steps=80,
        slow=True,
    ),
    Row(
        "squeezenet1_0",
        {"num_classes": 3, "width": 0.5, "dropout": 0.0, "relu_logits": False},
        images(32),
        rate=1e-3,
        steps=60,
        slow=True,
    ),
    Row(
        "squeezenet1_1",
        {"num_classes": 3, "width": 0.5, "dropout": 0.0, "relu_logits": False},
        images(32),
        rate=1e-3,
        steps=60,
        slow=True,
    ),
    Row(
        "mobilenet_v2",
        {"num_classes": 3, "width": 0.1, "depth": 0.1, "dropout": 0.0},
        images(32),
        steps=80,
        slow=True,
    ),
    Row(
        "efficientnet_lite0",
        {"num_classes": 3, "width": 0.1, "depth": 0.1, "dropout": 0.0},
        images(32),
        steps=80,
        slow=True,
    ),
    # Recurrent networks.
    Row("rnn_classifier", {"num_classes": 3, "width": 16}, series(), slow=True),
    Row("lstm_classifier", {"num_classes": 3, "width": 16}, series(), rate=3e-2),
    Row("gru_classifier", {"num_classes": 3, "width": 16, "depth": 2, "pool": "mean"}, series(), slow=True, rate=3e-2),
    Row(
        "lstm_classifier",
        {"num_classes": 3, "width": 8, "bidirectional": True, "pool": "max", "zoneout": 0.05},
        series(),
        label="bidirectional",
        rate=3e-2,
        steps=80,
        slow=True,
    ),
    Row(
        "vector_to_sequence",
        {"num_classes": 1, "length": 3, "width": 16},
        steps_of(),
        tasks.regression,
        rate=3e-2,
        steps=80,
        slow=True,
    ),
    Row(
        "rnn_language_model",
        {"num_classes": 7, "width": 16},
        stories(),
        tasks.language_model,
        rate=3e-2,
        steps=80,
        slow=True,
    ),
    Row(
        "lstm_language_model",
        {"num_classes": 7, "width": 16, "depth": 2, "tied": True, "residual": True},
        stories(),
        tasks.language_model,
        rate=3e-2,
        slow=True,
    ),
    Row("gru_language_model", {"num_classes": 7, "width": 16}, stories(), tasks.language_model, rate=3e-2),
    Row(
        "gru_seq2seq",
        {"num_classes": 9, "source_vocabulary": 9, "width": 16, "attention": "additive"},
        told(),
        tasks.translation,
        rate=2e-2,
        steps=120,
        inputs=_both,
    ),
    Row(
        "lstm_seq2seq",
        {"num_classes": 9, "source_vocabulary": 9, "width": 16, "depth": 2},
        told(),
        tasks.translation,
        rate=2e-2,
        steps=150,
        inputs=_both,
        slow=True,
    ),
    # Transformers.
    Row(
        "transformer",
        {"num_classes": 9, "width": 16, "depth": 1, "heads": 2, "dropout": 0.0},
        told(),
        tasks.translation,
        steps=150,
        inputs=_both,
        no_gradient=(".*/key/bias",),  # softmax does not see what is added to all scores
    ),
    Row(
        "gpt",
        {"num_classes": 7, "width": 16, "depth": 2, "heads": 2, "length": 6},
        stories(),
        tasks.language_model,
        rate=3e-2,
        steps=120,
        no_gradient=(".*/key/bias",),
    ),
    Row(
        "gpt",
        {
            **{"num_classes": 7, "width": 16, "depth": 2, "heads": 4, "kv_heads": 2, "tied": False, "use_bias": False},
            **{"positions": "rotary", "norm": "rms", "activation": "swiglu", "remat": "dots"},
        },
        stories(),
        tasks.language_model,
        label="later",
        rate=3e-2,
        steps=120,
        slow=True,
    ),
    Row(
        "transformer_encoder",
        {"num_classes": 3, "vocabulary": 20, "width": 16, "depth": 2, "heads": 2},
        sentences(),
        no_gradient=(".*/key/bias",),
    ),
    Row(
        "vit_b_16",
        {"num_classes": 3, "patch": 4, "width": 16, "depth": 2, "heads": 2},
        images(8),
        no_gradient=(".*/key/bias",),
    ),
    # Segmentation.
    Row("unet", {"num_classes": 3, "width": 4, "depth": 2}, scenes(13, 11, border=0), tasks.segmentation, steps=60),
    Row(
        "unet",
        {"num_classes": 3, "width": 4, "depth": 2, "up": "resize", "batch_norm": False},
        scenes(13, 11, border=0),
        tasks.segmentation,
        label="resize",
        slow=True,
    ),
    Row(
        "fcn8s_vgg16",
        {"num_classes": 3, "width": 4, "depths": (1, 1, 1, 1, 1), "hidden": 16, "dropout": 0.0},
        scenes(border=12),
        tasks.segmentation,
        slow=True,
    ),
    Row(
        "fcn_resnet50",
        {"num_classes": 3, "width": 8, "depths": (1, 1, 1, 1), "bottleneck": False, "dropout": 0.0},
        scenes(),
        tasks.segmentation,
        slow=True,
    ),
    Row(
        "pspnet_resnet50",
        {"num_classes": 3, "width": 8, "depths": (1, 1, 1, 1), "bottleneck": False, "dropout": 0.0, "aux": True},
        scenes(),
        tasks.segmentation,
        slow=True,
    ),
    Row(
        "deeplabv3_resnet50",
        {"num_classes": 3, "width": 8, "depths": (1, 1, 1, 1), "bottleneck": False, "dropout": 0.0, "aux": True},
        scenes(),
        tasks.segmentation,
    ),
    # Detection.
    Row(
        "ssd300_vgg16",
        {"num_classes": 3, "size": 32, "width": 4, "depths": (1, 1, 1, 1, 1), "batch_norm": True},
        squares(),
        functools.partial(tasks.detection, candidates=20, detections=10, capacity=1000),
        rate=2e-2,
        loss=0.5,
        steps=60,
    ),
    Row(
        "ssd300_resnet50",
        {"num_classes": 3, "size": 32, "width": 2, "depths": (1, 1, 1, 1)},
        squares(),
        functools.partial(tasks.detection, candidates=20, detections=10, capacity=1000),
        rate=2e-2,
        loss=0.5,
        steps=60,
        slow=True,
    ),
    # Variational autoencoders, two towers.
    Row(
        "vae",
        {"shape": (8, 8, 1), "latents": 16, "widths": (32,)},
        pictures(),
        functools.partial(tasks.vae, beta=0.01),
        rate=2e-2,
        loss=5.0,
        steps=150,
    ),
    Row(
        "conv_vae",
        {"shape": (8, 8, 1), "latents": 16, "widths": (8, 8)},
        pictures(),
        functools.partial(tasks.vae, beta=0.01),
        rate=2e-2,
        loss=5.0,
        steps=150,
        slow=True,
    ),
    Row(
        "two_tower", {"queries": 40, "items": 40, "features": 16, "widths": (16,)}, pairs(), tasks.two_tower, rate=5e-2
    ),
)

#: Of each class of the registry one row, the quickest.
CLASSES: tuple[Row, ...] = tuple(
    {MODELS[row.name][:2]: row for row in sorted(ROWS, key=lambda row: not row.slow)}.values()
)
