"""A mixture of experts: feed-forward layers of which each token visits a few, chosen by a router."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as linen
import jax
import jax.numpy as jnp

from jaxdl.nn.activations import activation
from jaxdl.parallel import constrain, reduce_axes
from jaxdl.parallel.experts import dispatch

Array = jax.Array
PyTree = Any


class Routing(NamedTuple):
    """What a router has done with a batch; all [] float32, over the tokens that are no padding.

    Attributes:
        balance: the load-balance loss, experts * sum over experts of (share of the choices) * (mean probability):
            1 when all are chosen alike, `experts` when one is chosen always.
        router_z: the mean of logsumexp(logits) ** 2, which keeps the router's logits small.
        dropped: how many choices found no place.
        choices: how many there were, k for each token.
    """

    balance: Array
    router_z: Array
    dropped: Array
    choices: Array


class MixtureOfExperts(linen.Module):
    """y = sum over the k experts of highest probability of gate * expert(x); each expert is a `FeedForward` of its own.

    Probabilities are the softmax of x @ router, in float32 whatever the dtype of x. The gate of k=1 is the probability
    itself (else the router would learn nothing), of more the probabilities of the chosen, divided by their sum.

    Shapes are static: in training an expert has capacity_factor * k * tokens / experts places, and choices that find
    none are dropped: the token then has what its other experts give, or zeros, and the residual path beside. Which, and
    what a place is on a mesh: `jaxdl.parallel.experts.dispatch`. Out of training nobody is dropped unless
    `eval_capacity_factor` says so, so that no row's result depends on the others: that computes `experts / k` times
    what even routing needs.

    Parameters: router/kernel [features, experts]; up, down (and gate) with kernel [experts, in, out] and bias
    [experts, out].

    Attributes:
        width: features that come out.
        hidden: features between, of each expert.
        experts: how many.
        k: how many a token visits.
        capacity_factor: places in training, as a multiple of what even routing needs; None: nobody is dropped.
        eval_capacity_factor: the same out of training.
        activation, use_bias, kernel_init, out_init: see `FeedForward`.
        router_init: initialiser of the router.

    Source: Shazeer et al., "Outrageously Large Neural Networks", 2017; Lepikhin et al., "GShard", 2020 (k=2, capacity);
    Fedus et al., "Switch Transformers", 2021 (k=1, balance); Zoph et al., "ST-MoE", 2022 (router_z).
    """

    width: int
    hidden: int
    experts: int
    k: int = 2
    capacity_factor: float | None = 1.25
    eval_capacity_factor: float | None = None
    activation: str | Callable[[Array], Array] = "gelu"
    use_bias: bool = True
    kernel_init: Any = linen.initializers.xavier_uniform()
    out_init: Any = linen.initializers.xavier_uniform()
    router_init: Any = linen.initializers.lecun_normal()

    logical_axes = (
        ("router/kernel", ("embed", None)),
        ("(up|gate)/kernel", ("expert", "embed", "mlp")),
        ("(up|gate)/bias", ("expert", "mlp")),
        ("down/kernel", ("expert", "mlp", "embed")),
        ("down/bias", ("expert", "embed")),
    )

    @linen.compact
    def __call__(self, x: Array, *, train: bool, routed: Array | None = None) -> tuple[Array, Routing]:
        """x: [batch, length, features].

        Args:
            routed: [batch, length] bool, False for padding, which takes no place, counts nowhere and gets zeros.

        Returns:
            [batch, length, width] in the dtype of x, and the `Routing`.

        Raises:
            ValueError: x is not [batch, length, features]; k is not between 1 and `experts`; a factor is not above 0.
        """
        self._check(x, routed)
        inside = [("up", x.shape[-1], self.hidden, self.kernel_init)]
        if self.activation == "swiglu":
            inside.append(("gate", x.shape[-1], self.hidden, self.kernel_init))
        params = {
            name: _Expert(self.experts, size, features, self.use_bias, init, name=name)()
            for name, size, features, init in (*inside, ("down", self.hidden, self.width, self.out_init))
        }
        logits = _Router(self.experts, self.router_init, name="router")(x)
        probabilities = jax.nn.softmax(logits, axis=-1)
        choice, gates = _highest(probabilities, self.k)
        if routed is not None:
            choice = jnp.where(routed[..., None], choice, self.experts)
        cast = jax.tree.map(lambda leaf: leaf.astype(x.dtype), params)
        factor = self.capacity_factor if train else self.eval_capacity_factor
        y, served = dispatch(self._run, cast, x, choice, gates, count=self.experts, factor=factor)
        real = jnp.ones(x.shape[:2], jnp.bool_) if routed is None else routed
        return constrain(y, "batch", "length", "embed"), _routing(logits, probabilities, choice, served, real)

    @linen.nowrap
    def _run(self, params: PyTree, x: Array) -> Array:
        """Each expert by itself: [experts, places, features] -> [experts, places, width]."""
        hidden = _dense(params["up"], x)
        if self.activation == "swiglu":
            hidden = jax.nn.silu(_dense(params["gate"], x)) * hidden
        else:
            hidden = activation(self.activation)(hidden)
        return _dense(params["down"], hidden)

    @linen.nowrap
    def _check(self, x: Array, routed: Array | None) -> None:
        if x.ndim != 3:
            raise ValueError(f"MixtureOfExperts takes [batch, length, features], not {list(x.shape)}")
        if routed is not None and routed.shape != x.shape[:2]:
            raise ValueError(
                f"routed says of each token whether it counts, {list(x.shape[:2])}, not {list(routed.shape)}"
            )
        if not 1 <= self.k <= self.experts:
            raise ValueError(f"a token visits k={self.k} of experts={self.experts}: choose k from 1 to {self.experts}")
        for name in ("capacity_factor", "eval_capacity_factor"):
            factor = getattr(self, name)
            if factor is not None and not (math.isfinite(factor) and factor > 0):
                raise ValueError(f"{name}={factor}: give a number above 0, or None, with which nobody is dropped")


class _Router(linen.Module):
    """x @ kernel in float32."""

    experts: int
    kernel_init: Any

    @linen.compact
    def __call__(self, x: Array) -> Array:
        kernel = self.param("kernel", self.kernel_init, (x.shape[-1], self.experts), jnp.float32)
        return x.astype(jnp.float32) @ kernel.astype(jnp.float32)


class _Expert(linen.Module):
    """One dense layer of every expert: its parameters, each expert's drawn from a key of its own."""

    experts: int
    size: int
    features: int
    use_bias: bool
    kernel_init: Any

    @linen.compact
    def __call__(self) -> dict[str, Array]:
        def each(key: Array) -> Array:
            keys = jax.random.split(key, self.experts)
            return jax.vmap(lambda one: self.kernel_init(one, (self.size, self.features), jnp.float32))(keys)

        found = {"kernel": self.param("kernel", each)}
        if self.use_bias:
            found["bias"] = self.param("bias", linen.initializers.zeros, (self.experts, self.features), jnp.float32)
        return found


def _dense(params: PyTree, x: Array) -> Array:
    y = jnp.einsum("epi,eio->epo", x, params["kernel"])
    return y + params["bias"][:, None] if "bias" in params else y


def _highest(probabilities: Array, k: int) -> tuple[Array, Array]:
    """The k experts of highest probability, of equal ones the first, and their gates: both [..., k].

    By k maxima: XLA does not split a top-k over devices.
    """
    left, chosen, gates = probabilities, [], []
    numbers = jnp.arange(probabilities.shape[-1], dtype=jnp.int32)
    for _ in range(k):
        best = jnp.argmax(left, axis=-1).astype(jnp.int32)
        here = numbers.reshape((1,) * best.ndim + (-1,)) == best[..., None]
        chosen.append(best)
        gates.append(jnp.sum(jnp.where(here, probabilities, jnp.float32(0)), axis=-1))
        left = jnp.where(here, jnp.float32(-1), left)
    gate = jnp.stack(gates, axis=-1)
    return jnp.stack(chosen, axis=-1), gate / jnp.sum(gate, axis=-1, keepdims=True) if k > 1 else gate


def _routing(logits: Array, probabilities: Array, choice: Array, served: Array, real: Array) -> Routing:
    """Over the whole batch, all devices' parts of it together."""
    experts = logits.shape[-1]
    counts = real.astype(jnp.float32)
    numbers = jnp.arange(experts, dtype=jnp.int32).reshape(1, 1, 1, experts)
    sums = {
        "tokens": jnp.sum(counts),
        "chosen": jnp.sum((choice[..., None] == numbers).astype(jnp.float32), axis=(0, 1, 2)),
        "probability": jnp.sum(probabilities * counts[..., None], axis=(0, 1)),
        "z": jnp.sum(jnp.square(jax.nn.logsumexp(logits, axis=-1)) * counts),
        "served": jnp.sum(served.astype(jnp.float32)),
    }
    if axes := reduce_axes():
        sums = jax.lax.psum(sums, axes)
    tokens = jnp.maximum(sums["tokens"], 1.0)
    choices = sums["tokens"] * choice.shape[-1]
    shares = sums["chosen"] / (tokens * choice.shape[-1])
    balance = experts * jnp.sum(shares * sums["probability"] / tokens)
    return Routing(balance, sums["z"] / tokens, choices - sums["served"], choices)
