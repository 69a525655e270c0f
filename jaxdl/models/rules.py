"""Rules between our parameter paths and the names of a peer's weights, and the layouts of their arrays.

How a family says what its weights are called elsewhere (jaxdl.models.convert reads it):

1. Write a function from the model to a `Peer`: the rules, which of the peer's names are the head, and which of its
   names have no counterpart here.

        def _torchvision(model: VGG) -> Peer:
            return Peer(
                (*conv(r"conv(\\d)", r"features.\\1"), *norm("norm", "bn"), *linear("logits", "classifier.6")),
                head=r"classifier\\.6\\..*",
            )

2. Give the class `peers: ClassVar[Peers] = {"torchvision": _torchvision}` (keys: "torchvision", "timm", "keras",
   "torch"). Nothing is registered anywhere else.

A rule goes from our path to the peer's name, so that one set of rules serves import and export, and every leaf of ours
is found by exactly one of them: the first whose regular expression matches the whole path ("block0/conv/kernel"; batch
statistics have paths beside the parameters, "block0/norm/mean"). The peer's name may use the groups of that match
(backslash and number, as in re.sub). A function from the match to the name does what a template cannot.

- `conv`, `conv_transpose`, `linear`, `norm`, `embed`, `keras_layer`, `keras_norm` are the rules of one layer each, by
  the paths of the module here and there: conv("stem", "features.0") joins stem/kernel to features.0.weight and
  stem/bias to features.0.bias. A rule for a leaf that is not there (a layer without bias) does no harm.
- `linear(..., flatten=(channels, height, width))`: the first dense layer after a flatten, whose inputs a peer with
  channels first has in another order.
- `linear(..., heads=True)`: a kernel [embed, heads, size], which the peer has as [heads * size, embed];
  `linear(..., inputs=2)`: a kernel [heads, size, embed], which the peer has as [embed, heads * size].
- `part=(1, 3)`: our leaf is the second third of the peer's, along its first axis (q, k, v in one `in_proj_weight`).
- "*" in the peer's name: our leaf is stacked, and its first axis counts what stands for the star (scanned blocks).
- `plus="lstm.bias_hh"`: our leaf is the sum of two of the peer's (export writes zeros to the second). With
  `plus_part=(2, 3)` only the first two of the second array's three parts are added; the rest is another leaf's.
- Another layout is `Layout(to_peer, to_ours)`, two functions that undo each other exactly.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

Array = Any  # numpy's or jax's: layouts use their methods only


class Layout(NamedTuple):
    """How one array is laid out here and there; each function undoes the other, and neither computes.

    Attributes:
        to_peer: our array -> the peer's.
        to_ours: (the peer's array, the shape of ours) -> ours.
    """

    to_peer: Callable[[Array], Array]
    to_ours: Callable[[Array, tuple[int, ...]], Array]


#: The same numbers in the same order; shapes may differ ([heads, size] here, [heads * size] there is `FLAT`).
AS_IS = Layout(lambda x: x, lambda x, shape: x)

#: Ours of any shape, the peer's flat.
FLAT = Layout(lambda x: x.reshape(-1), lambda x, shape: x.reshape(shape))

#: [*window, in, out] here, [out, in, *window] there, in one, two and three dimensions.
CONV = Layout(
    lambda x: x.transpose(x.ndim - 1, x.ndim - 2, *range(x.ndim - 2)),
    lambda x, shape: x.transpose(*range(2, x.ndim), 1, 0),
)


def dense(inputs: int = 1) -> Layout:
    """[*in, *out] here, of which the first `inputs` axes go in; [out, in] there."""

    def to_peer(x: Array) -> Array:
        return x.reshape(math.prod(x.shape[:inputs]), -1).transpose(1, 0)

    return Layout(to_peer, lambda x, shape: x.transpose(1, 0).reshape(shape))


def flattened(channels: int, height: int | None = None, width: int | None = None) -> Layout:
    """[height * width * channels, out] here, [out, channels * height * width] there.

    A plain transpose would have the right shape and the wrong numbers. Without height and width the map is square.
    """

    def space(inputs: int) -> tuple[int, int]:
        side = math.isqrt(inputs // channels)
        high, wide = (side if height is None else height), (side if width is None else width)
        if high * wide * channels != inputs:
            raise ValueError(f"{inputs} inputs are no map of {high}x{wide} with {channels} channels: name its size")
        return high, wide

    def to_peer(x: Array) -> Array:
        high, wide = space(x.shape[0])
        return x.reshape(high, wide, channels, -1).transpose(3, 2, 0, 1).reshape(x.shape[1], x.shape[0])

    def to_ours(x: Array, shape: tuple[int, ...]) -> Array:
        high, wide = space(shape[0])
        return x.reshape(-1, channels, high, wide).transpose(2, 3, 1, 0).reshape(shape)

    return Layout(to_peer, to_ours)


#: Ours [*window, in, out] of a transposed convolution, torch's [in, out, *window], mirrored in space.
CONV_TRANSPOSE = Layout(
    lambda x: x[(slice(None, None, -1),) * (x.ndim - 2)].transpose(x.ndim - 2, x.ndim - 1, *range(x.ndim - 2)),
    lambda x, shape: x.transpose(*range(2, x.ndim), 0, 1)[(slice(None, None, -1),) * (x.ndim - 2)],
)


def first_parts(value: Array, added: int, count: int) -> Array:
    """The first `added` of `count` parts along the first axis, and zeros for the others (`Rule.plus_part`)."""
    return value if added == count else value * (np.arange(len(value)) < len(value) * added // count)


class Rule(NamedTuple):
    """Where one leaf of ours, or one leaf of each of many layers, stands in a peer's weights.

    Attributes:
        ours: regular expression for the whole path of our leaf.
        peer: the peer's name, with the groups of the match; or match -> name. "*": see the head of this file.
        layout: see `Layout`.
        part: (which, of how many) along the first axis of the peer's array.
        plus: the name of a second array that is added, with the groups of the match.
        plus_part: (how many, of how many) parts along the first axis of that second array are added.
    """

    ours: str
    peer: str | Callable[[re.Match[str]], str]
    layout: Layout = AS_IS
    part: tuple[int, int] = (0, 1)
    plus: str | None = None
    plus_part: tuple[int, int] = (1, 1)


class Peer(NamedTuple):
    """What the weights of a model are called elsewhere.

    Attributes:
        rules: first match wins.
        head: regular expression for the peer's names of the last layer, whose shape goes with the number of classes.
        ignored: regular expression for names of the peer that have no counterpart here (an auxiliary head that our
            model was built without). torch's counters `num_batches_tracked` are always left out.
    """

    rules: tuple[Rule, ...]
    head: str = "(?!)"
    ignored: str = "(?!)"


#: name of the peer -> function from the model to its rules: the attribute `peers` of a model's class.
Peers = Mapping[str, Callable[[Any], Peer]]


def conv(ours: str, peer: str) -> tuple[Rule, ...]:
    """A convolution, also a grouped or depthwise one, in any number of dimensions."""
    return (Rule(f"{ours}/kernel", f"{peer}.weight", CONV), Rule(f"{ours}/bias", f"{peer}.bias"))


def conv_transpose(ours: str, peer: str) -> tuple[Rule, ...]:
    """A transposed convolution of `nn.ConvTranspose`."""
    return (Rule(f"{ours}/kernel", f"{peer}.weight", CONV_TRANSPOSE), Rule(f"{ours}/bias", f"{peer}.bias"))


def linear(
    ours: str,
    peer: str,
    *,
    flatten: tuple[int, ...] | None = None,
    heads: bool = False,
    inputs: int = 1,
    part: tuple[int, int] = (0, 1),
    separator: str = ".",
) -> tuple[Rule, ...]:
    """A dense layer; see the head of this file for its options.

    Args:
        separator: between the layer's name and `weight` there ("_" in torch's `in_proj_weight`).
    """
    layout = flattened(*flatten) if flatten is not None else dense(inputs)
    bias = FLAT if heads else AS_IS
    return (
        Rule(f"{ours}/kernel", f"{peer}{separator}weight", layout, part),
        Rule(f"{ours}/bias", f"{peer}{separator}bias", bias, part),
    )


def norm(ours: str, peer: str) -> tuple[Rule, ...]:
    """A batch, layer or group norm."""
    names = {"scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}
    return tuple(Rule(f"{ours}/{name}", f"{peer}.{theirs}") for name, theirs in names.items())


def embed(ours: str, peer: str) -> tuple[Rule, ...]:
    """An embedding, [vocabulary, features] on both sides."""
    return (Rule(f"{ours}/embedding", f"{peer}.weight"),)


def keras_layer(ours: str, peer: str) -> tuple[Rule, ...]:
    """A convolution or a dense layer of keras, whose layout is ours."""
    return (Rule(f"{ours}/kernel", f"{peer}/kernel"), Rule(f"{ours}/bias", f"{peer}/bias"))


def keras_norm(ours: str, peer: str) -> tuple[Rule, ...]:
    """A batch or layer norm of keras."""
    names = {"scale": "gamma", "bias": "beta", "mean": "moving_mean", "var": "moving_variance"}
    return tuple(Rule(f"{ours}/{name}", f"{peer}/{theirs}") for name, theirs in names.items())
