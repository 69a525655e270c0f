"""Recurrent cells and the loop over time: vanilla, LSTM, and GRU with the reset before or after the matrix product.

A cell's weights are "kernel" [in, gates * H] (what reads the input), "recurrent_kernel" [H, gates * H] (what reads the
hidden state) and "bias" [gates * H]; the reset-after GRU has "recurrent_bias" [H] too. A carry is a mapping: "h"
[batch, H], and "c" [batch, H] for the LSTM; carries are at least float32 whatever the dtype of the input.

The loop is a plain scan: projecting all inputs ahead of it and unrolling it are both slower on CPU (by 1.3 and 1.9 for
an LSTM of 128 over 64 steps).
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxdl.nn.precision import widened

Array = jax.Array
Weights = Mapping[str, Array]
Carry = dict[str, Array]


class Holds(NamedTuple):
    """What happens to a carry between steps; None where nothing does.

    Attributes:
        keep: [time, batch, 1], 1, or 0 where the carry is cleared before the step (a document begins).
        shares: name of the carry -> [time, batch or 1, H or 1], the part of the new value that is taken; the rest stays
            as it was. 0 in padding; 0 or 1 by element under zoneout.
    """

    keep: Array | None = None
    shares: Mapping[str, Array] | None = None


class Cell(NamedTuple):
    """A recurrent cell.

    Attributes:
        gates: how many blocks of H the kernels are wide.
        carries: names of what it hands on.
        step: (weights, carry, x [batch, in]) -> the new carry.
        recurrent_bias: whether it has that parameter.
    """

    gates: int
    carries: tuple[str, ...]
    step: Callable[[Weights, Carry, Array], Carry]
    recurrent_bias: bool = False


def lstm_step(weights: Weights, carry: Carry, x: Array) -> Carry:
    """One step of an LSTM; the gates stand in the order i, f, g, o, as in torch, keras and cuDNN.

        i, f, o = sigmoid(x W + h U + b),  g = tanh(x W + h U + b)
        c' = f c + i g,  h' = o tanh(c')

    Source: Hochreiter and Schmidhuber, "Long Short-Term Memory", 1997; the forget gate is Gers et al., 2000.
    """
    i, f, g, o = _gates(_sum(weights, carry["h"], x))
    c = f * carry["c"] + i * g
    return {"h": o * jnp.tanh(c), "c": c}


def gru_step(weights: Weights, carry: Carry, x: Array) -> Carry:
    """One step of a GRU that resets after the product, as torch, cuDNN and keras (`reset_after`); gates r, z, n.

    r, z = sigmoid(x W + h U + b),  n = tanh(x W + b + r (h U + b_recurrent))
    h' = (1 - z) n + z h
    """
    h = carry["h"]
    size = h.shape[-1]
    inputs = widened(x @ weights["kernel"]) + _row(weights["bias"])
    hidden = widened(h.astype(x.dtype) @ weights["recurrent_kernel"])
    both = jax.nn.sigmoid(inputs[:, : 2 * size] + hidden[:, : 2 * size])
    r, z = both[:, :size], both[:, size:]
    n = jnp.tanh(inputs[:, 2 * size :] + r * (hidden[:, 2 * size :] + _row(weights["recurrent_bias"])))
    return {"h": (1 - z) * n + z * h}


def gru_reset_before_step(weights: Weights, carry: Carry, x: Array) -> Carry:
    """One step of the GRU of its paper, which resets before the product: n = tanh(x W + (r h) U + b).

    Source: Cho et al., "Learning Phrase Representations using RNN Encoder-Decoder", 2014. Its weights are of no use in
    the other form, nor the other's here.
    """
    h = carry["h"]
    size = h.shape[-1]
    recurrent = weights["recurrent_kernel"]
    inputs = widened(x @ weights["kernel"]) + _row(weights["bias"])
    both = jax.nn.sigmoid(inputs[:, : 2 * size] + widened(h.astype(x.dtype) @ recurrent[:, : 2 * size]))
    r, z = both[:, :size], both[:, size:]
    n = jnp.tanh(inputs[:, 2 * size :] + widened((r * h).astype(x.dtype) @ recurrent[:, 2 * size :]))
    return {"h": (1 - z) * n + z * h}


def vanilla_step(weights: Weights, carry: Carry, x: Array) -> Carry:
    """One step of Elman's network: h' = tanh(x W + h U + b)."""
    return {"h": jnp.tanh(_sum(weights, carry["h"], x))}


def vanilla_relu_step(weights: Weights, carry: Carry, x: Array) -> Carry:
    """One step with h' = relu(x W + h U + b).

    Source: Le et al., "A Simple Way to Initialize Recurrent Networks of Rectified Linear Units", 2015.
    """
    return {"h": jax.nn.relu(_sum(weights, carry["h"], x))}


CELLS: Mapping[str, Cell] = MappingProxyType(
    {
        "vanilla": Cell(1, ("h",), vanilla_step),
        "vanilla_relu": Cell(1, ("h",), vanilla_relu_step),
        "lstm": Cell(4, ("h", "c"), lstm_step),
        "gru": Cell(3, ("h",), gru_step, recurrent_bias=True),
        "gru_reset_before": Cell(3, ("h",), gru_reset_before_step),
    }
)


def cell_named(name: str) -> Cell:
    """The cell called `name`.

    Raises:
        ValueError: there is none; the nearest is suggested.
    """
    if name not in CELLS:
        near = difflib.get_close_matches(str(name), CELLS, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"no recurrent cell is called {name!r}{hint} (known: {', '.join(CELLS)})")
    return CELLS[name]


def over_time(
    name: str, weights: Weights, carry: Carry, xs: Array, holds: Holds, *, reverse: bool = False
) -> tuple[Array, Carry]:
    """Run a cell over a sequence.

    Args:
        name: of the cell.
        weights: its parameters, in the dtype of xs.
        carry: what it starts from.
        xs: [time, batch, in].
        holds: what happens to the carry between steps.
        reverse: from the last step to the first. With shares of 0 in the padding the carry waits there unchanged, so
            each sequence is read backwards within its own length.

    Returns:
        ([time, batch, H] in the dtype of xs, the last carry).
    """
    if name == "lstm":
        hs, h, c = _lstm(weights, carry["h"], carry["c"], xs, holds, reverse)
        return hs, {"h": h, "c": c}
    cell = cell_named(name)

    def body(old: Carry, inputs: tuple[Array, Holds]) -> tuple[Carry, Array]:
        x, hold = inputs
        if hold.keep is not None:
            old = {key: _cleared(hold.keep, value) for key, value in old.items()}
        new = cell.step(weights, old, x)
        if hold.shares is not None:
            new = {key: _mixed(hold.shares[key], new[key], old[key]) for key in new}
        return new, new["h"].astype(x.dtype)

    last, hs = jax.lax.scan(body, carry, (xs, holds), reverse=reverse)
    return hs, last


# ---- the LSTM's own gradient -----------------------------------------------------------------------------------------


def _lstm_forward(
    weights: Weights, h: Array, c: Array, xs: Array, holds: Holds, reverse: bool
) -> tuple[tuple[Array, Array, Array], Any]:
    def body(carry: tuple[Array, Array], inputs: tuple[Array, Holds]) -> tuple[tuple[Array, Array], Any]:
        (h, c), (x, hold) = carry, inputs
        if hold.keep is not None:
            h, c = _cleared(hold.keep, h), _cleared(hold.keep, c)
        i, f, g, o = _gates(_sum(weights, h, x))
        new_c = f * c + i * g
        squashed = jnp.tanh(new_c)
        new_h = o * squashed
        kept = (jnp.concatenate([i, f, g, o], -1), c, squashed, h.astype(x.dtype))
        if hold.shares is not None:
            new_h, new_c = _mixed(hold.shares["h"], new_h, h), _mixed(hold.shares["c"], new_c, c)
        return (new_h, new_c), (new_h.astype(x.dtype), kept)

    (last_h, last_c), (hs, kept) = jax.lax.scan(body, (h, c), (xs, holds), reverse=reverse)
    return (hs, last_h, last_c), (weights, xs, holds, kept)


def _lstm_backward(reverse: bool, saved: Any, cotangents: tuple[Array, Array, Array]) -> tuple[Any, ...]:
    """The backward scan gives the gates' gradients; each weight's gradient is then one product over all steps.

    Derived by JAX, the weights' gradients are sums that are read and written at every step.
    """
    weights, xs, holds, kept = saved
    dhs, dh, dc = cotangents
    recurrent = weights["recurrent_kernel"]

    def body(carry: tuple[Array, Array], inputs: Any) -> tuple[tuple[Array, Array], Array]:
        (dh, dc), (dy, hold, (gates, c, squashed, _)) = carry, inputs
        dh = dh + widened(dy)
        i, f, g, o = jnp.split(gates, 4, axis=-1)
        passed_h, passed_c = jnp.zeros((), dh.dtype), jnp.zeros((), dc.dtype)
        if hold.shares is not None:
            share_h, share_c = hold.shares["h"], hold.shares["c"]
            passed_h, passed_c = (1 - share_h) * dh, (1 - share_c) * dc
            dh, dc = share_h * dh, share_c * dc
        dc = dc + dh * o * (1 - squashed * squashed)
        dz = jnp.concatenate(
            [dc * g * i * (1 - i), dc * c * f * (1 - f), dc * i * (1 - g * g), dh * squashed * o * (1 - o)], -1
        ).astype(xs.dtype)
        dh, dc = widened(dz @ recurrent.T) + passed_h, dc * f + passed_c
        if hold.keep is not None:
            dh, dc = hold.keep * dh, hold.keep * dc
        return (dh, dc), dz

    (dh, dc), dz = jax.lax.scan(body, (dh, dc), (dhs, holds, kept), reverse=not reverse)
    rows = dz.reshape(-1, dz.shape[-1])
    over = (((0,), (0,)), ((), ()))
    hidden = kept[3]
    dweights = {
        "kernel": jax.lax.dot_general(xs.reshape(-1, xs.shape[-1]), rows, over),
        "recurrent_kernel": jax.lax.dot_general(hidden.reshape(-1, hidden.shape[-1]), rows, over),
        "bias": rows.sum(0),
    }
    dxs = (rows @ weights["kernel"].T).reshape(xs.shape)
    return dweights, dh, dc, dxs, jax.tree.map(jnp.zeros_like, holds)


@partial(jax.custom_vjp, nondiff_argnums=(5,))
def _lstm(weights: Weights, h: Array, c: Array, xs: Array, holds: Holds, reverse: bool) -> tuple[Array, Array, Array]:
    return _lstm_forward(weights, h, c, xs, holds, reverse)[0]


_lstm.defvjp(_lstm_forward, _lstm_backward)


# ---- parts -----------------------------------------------------------------------------------------------------------


def _sum(weights: Weights, h: Array, x: Array) -> Array:
    """x W + h U + b, at least float32; the products are in the dtype of x."""
    return widened(x @ weights["kernel"] + h.astype(x.dtype) @ weights["recurrent_kernel"]) + _row(weights["bias"])


def _gates(z: Array) -> tuple[Array, Array, Array, Array]:
    """[batch, 4 H] -> i, f, g, o; i and f in one call."""
    size = z.shape[-1] // 4
    both = jax.nn.sigmoid(z[:, : 2 * size])
    return both[:, :size], both[:, size:], jnp.tanh(z[:, 2 * size : 3 * size]), jax.nn.sigmoid(z[:, 3 * size :])


def _cleared(keep: Array, value: Array) -> Array:
    """The value, or 0 where keep is 0, whatever stood there."""
    return jnp.where(keep > 0, value, jnp.zeros((), value.dtype))


def _mixed(share: Array, new: Array, old: Array) -> Array:
    return share * new + (1 - share) * old


def _row(bias: Array) -> Array:
    return widened(bias).reshape(1, -1)
