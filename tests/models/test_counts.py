"""Parameter counts: those of the peers, from shapes alone."""

from __future__ import annotations

import math
from typing import Any

import jax
import pytest

from jaxdl.models import create_model, model_info
from jaxdl.models.registry import example_input

# (name, options, parameters); the input is the example of the catalog.
COUNTS: tuple[tuple[str, dict[str, Any], int], ...] = (
    # Small networks.
    ("linear", {"num_classes": 10}, 784 * 10 + 10),
    # Classics: LeNet, AlexNet, VGG, GoogLeNet, Inception.
    # Residual networks.
    # Dense, small and mobile networks.
    # Recurrent networks.
    # Transformers.
    # Segmentation.
    # Detection.
    # Variational autoencoders, two towers.
)


@pytest.mark.parametrize(("name", "options", "parameters"), COUNTS, ids=[f"{row[0]}-{row[2]}" for row in COUNTS])
def test_counts_are_those_of_the_peers(name, options, parameters):
    model = create_model(name, **options)
    variables = jax.eval_shape(lambda x: model.init(jax.random.key(0), x, train=False), example_input(name))
    leaves = jax.tree.leaves(variables["params"])
    assert sum(math.prod(leaf.shape) for leaf in leaves) == parameters
    assert {str(leaf.dtype) for leaf in leaves} == {"float32"}


def test_the_registry_counts_alike():
    assert model_info("linear").parameters == 784 * 1000 + 1000
