"""The table of all models: under which name which class, with which options, for which input.

One line per name; a family is one call of `_family`. Options of a row are defaults that go with the name: the caller of
`create_model` may still set them, so that "resnet50" of `width=8` exists for tests.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

IMAGES = "[batch, height, width, channels]"
FLAT = "[batch, ...], flattened"
TOKENS = "[batch, length] integers"


class Entry(NamedTuple):
    """One name of the registry.

    Attributes:
        module: the file in jaxdl.models, without its ending.
        kind: the class in it.
        inputs: the shape of x in words.
        example: the shape of one example without the batch, for which parameters are counted; a mapping of such shapes
            where x is one.
        reference: who published it, and the implementation whose numbers it follows.
        options: the options that go with the name.
        dtype: of x in the example.
    """

    module: str
    kind: str
    inputs: str
    example: Any
    reference: str
    options: Mapping[str, Any] = MappingProxyType({})
    dtype: str = "float32"


def _family(
    module: str,
    kind: str,
    inputs: str,
    example: Any,
    reference: str,
    names: Mapping[str, Mapping[str, Any]],
    *,
    dtype: str = "float32",
) -> dict[str, Entry]:
    """Rows of one class: name -> options."""
    return {
        name: Entry(module, kind, inputs, example, reference, MappingProxyType(dict(options)), dtype)
        for name, options in names.items()
    }


MODELS: Mapping[str, Entry] = MappingProxyType(
    {
        # Small networks.
        **_family("mlp", "Linear", FLAT, (784,), "", {"linear": {}}),
        **_family("mlp", "MLP", FLAT, (784,), "", {"mlp": {}}),
        **_family("convnet", "ConvNet", IMAGES, (32, 32, 3), "", {"convnet": {}}),
        # Classics: LeNet, AlexNet, VGG, GoogLeNet, Inception.
        # Residual networks.
        # Dense, small and mobile networks.
        # Recurrent networks.
        # Transformers.
        # Segmentation.
        # Detection.
        # Variational autoencoders, two towers.
    }
)
