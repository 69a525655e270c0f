"""The parts that models are built from: layers, activations, losses, keys for initial weights."""

from __future__ import annotations

from jaxdl.nn.activations import Activation, PReLU, Swish, activation, describe, list_activations, maxout
from jaxdl.nn.attention import Attention, dot_product_attention
from jaxdl.nn.block import FeedForward, TransformerBlock
from jaxdl.nn.conv import Conv, ConvTranspose, DepthwiseConv, conv_implementation, convolve
from jaxdl.nn.dense import Dense
from jaxdl.nn.dropout import Dropout, SpatialDropout, StochasticDepth
from jaxdl.nn.embed import Embed, LearnedPositions, rotary, sinusoidal_positions
from jaxdl.nn.excite import SqueezeExcite
from jaxdl.nn.experts import MixtureOfExperts, Routing
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
from jaxdl.nn.norm import (
    BatchNorm,
    GroupNorm,
    L2Norm,
    LayerNorm,
    LocalResponseNorm,
    RMSNorm,
)
from jaxdl.nn.pool import (
    adaptive_avg_pool,
    adaptive_max_pool,
    avg_pool,
    global_avg_pool,
    global_max_pool,
    max_pool,
    resize,
)
from jaxdl.nn.recurrent import RNN, clear_carry, last_hidden, stop_carry
from jaxdl.nn.rnn_attention import RNNAttention
from jaxdl.nn.stack import Stack, remat_policy, run_layers
from jaxdl.nn.tap import tap

__all__ = [
    "RNN",
    "Activation",
    "Attention",
    "BatchNorm",
    "Conv",
    "ConvTranspose",
    "Dense",
    "DepthwiseConv",
    "Dropout",
    "Embed",
    "FeedForward",
    "GroupNorm",
    "L2Norm",
    "LayerNorm",
    "LearnedPositions",
    "LocalResponseNorm",
    "MixtureOfExperts",
    "PReLU",
    "RMSNorm",
    "RNNAttention",
    "Routing",
    "SpatialDropout",
    "SqueezeExcite",
    "Stack",
    "StochasticDepth",
    "Swish",
    "TransformerBlock",
    "absolute_error",
    "activation",
    "adaptive_avg_pool",
    "adaptive_max_pool",
    "avg_pool",
    "clear_carry",
    "contrastive",
    "conv_implementation",
    "convolve",
    "ctc",
    "describe",
    "dot_product_attention",
    "epsilon_insensitive",
    "focal_cross_entropy",
    "global_avg_pool",
    "global_max_pool",
    "hinge",
    "huber",
    "kl_divergence",
    "last_hidden",
    "light_key",
    "list_activations",
    "max_pool",
    "maxout",
    "poisson",
    "quantile_loss",
    "remat_policy",
    "resize",
    "rotary",
    "run_layers",
    "sigmoid_cross_entropy",
    "sinusoidal_positions",
    "softmax_cross_entropy",
    "squared_error",
    "stop_carry",
    "tap",
    "triplet",
]
