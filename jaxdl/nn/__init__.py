"""The parts that models are built from: layers, activations, losses, keys for initial weights."""

from __future__ import annotations

from jaxdl.nn.activations import Activation, PReLU, Swish, activation, describe, list_activations, maxout
from jaxdl.nn.layers import BatchNorm, Dropout, max_pool
from jaxdl.nn.light_keys import light_key
from jaxdl.nn.losses import (
    absolute_error,
    contrastive,
    ctc,
    epsilon_insensitive,
    focal_cross_entropy,
    hinge,
    huber,
    kl_divergence,
    poisson,
    quantile_loss,
    sigmoid_cross_entropy,
    softmax_cross_entropy,
    squared_error,
    triplet,
)

__all__ = [
    "Activation",
    "BatchNorm",
    "Dropout",
    "PReLU",
    "Swish",
    "absolute_error",
    "activation",
    "contrastive",
    "ctc",
    "describe",
    "epsilon_insensitive",
    "focal_cross_entropy",
    "hinge",
    "huber",
    "kl_divergence",
    "light_key",
    "list_activations",
    "max_pool",
    "maxout",
    "poisson",
    "quantile_loss",
    "sigmoid_cross_entropy",
    "softmax_cross_entropy",
    "squared_error",
    "triplet",
]
