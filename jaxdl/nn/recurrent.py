"""Recurrent layers: stacked, bidirectional, for padded sequences, for streams that go on from batch to batch."""

from __future__ import annotations

from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxdl.nn.dropout import Dropout
from jaxdl.nn.precision import widened
from jaxdl.nn.recurrent_cells import CELLS, Carry, Holds, cell_named, over_time

Array = jax.Array
Carries = dict[str, Carry]  # layer -> carry, as {"layer0": {"h": ..., "c": ...}, "layer0_backward": ...}

BACKENDS = ("scan", "cudnn")


class RNN(nn.Module):
    """One or several recurrent layers, in one direction or both.

    Attributes:
        hidden: numbers a step that each layer and direction hands on.
        cell: "lstm", "gru" (resets after the product, as torch and cuDNN), "gru_reset_before" (its paper), "vanilla"
            (tanh) or "vanilla_relu".
        layers: one upon the other.
        bidirectional: each layer also reads backwards, within each sequence's length; both outputs are concatenated.
        residual: each layer after the first adds its input to its output.
        dropout: rate between layers; a Python number or a traced scalar.
        zoneout: rate at which each number of the carry keeps its old value in a training step; outside training the
            carry moves by its mean. A Python 0 draws nothing.
        forget_bias: initial bias of the LSTM's forget gate, as keras has it (torch: 0).
        backend: "scan", or "cudnn": NVIDIA's LSTM for float32 on a GPU, from the same parameters.

    Parameters: "layer0/kernel" [in, gates * hidden], "layer0/recurrent_kernel" [hidden, gates * hidden],
    "layer0/bias" [gates * hidden] (torch has two, which add up), and for "gru" "layer0/recurrent_bias" [hidden];
    "layer0_backward/..." likewise. Kernels start as Glorot's uniform, recurrent kernels orthogonal.

    Sources: Krueger et al., "Zoneout", 2016; Wu et al., "Google's Neural Machine Translation System", 2016 (residual).
    """

    hidden: int
    cell: str = "lstm"
    layers: int = 1
    bidirectional: bool = False
    residual: bool = False
    dropout: float | Array = 0.0
    zoneout: float | Array = 0.0
    forget_bias: float = 1.0
    backend: str = "scan"

    logical_axes: ClassVar[tuple[tuple[str, tuple[str | None, ...]], ...]] = (
        (r"(.*/)?layer\d+(_backward)?/(kernel|recurrent_kernel)", (None, "hidden")),
        (r"(.*/)?layer\d+(_backward)?/(bias|recurrent_bias)", ("hidden",)),
    )

    @nn.compact
    def __call__(
        self,
        x: Array,
        *,
        train: bool,
        carry: Carries | None = None,
        lengths: Array | None = None,
        resets: Array | None = None,
    ) -> tuple[Array, Carries]:
        """Read sequences.

        Args:
            x: [batch, time, in] floats.
            train: draws dropout and zoneout from linen's stream "dropout".
            carry: what each layer starts from, as an earlier call returned it; None: zeros. A backward layer starts at
                the end of a sequence.
            lengths: [batch] integers: what lies beyond is padding. It changes nothing, whatever it holds, and its
                outputs are 0.
            resets: [batch, time] bool: the carry is cleared before these steps (a document begins there).

        Returns:
            y [batch, time, hidden], twice as wide when bidirectional, and the carry after each sequence's last step
            (of backward layers: after its first), float32.

        Raises:
            ValueError: an unknown cell or backend; x, carry, lengths or resets of another shape.
        """
        cell = cell_named(self.cell)
        self._check(x, carry, lengths, resets)
        if self.backend == "cudnn":
            self._check_cudnn(x, resets)
        batch, time = x.shape[:2]
        directions = (False, True) if self.bidirectional else (False,)
        valid = None
        if lengths is not None:
            valid = jnp.arange(time, dtype=jnp.int32).reshape(1, -1) < lengths.astype(jnp.int32).reshape(-1, 1)
            valid = valid[..., None]
            x = jnp.where(valid, x, jnp.zeros((), x.dtype))
        wide = widened(jnp.zeros((), x.dtype)).dtype
        zeros = {name: jnp.zeros((batch, self.hidden), wide) for name in cell.carries}
        last: Carries = {}
        for number in range(self.layers):
            if number:
                x = Dropout(self.dropout, name=f"dropout{number}")(x, train=train)
            outputs, names = [], [_layer(number, backward) for backward in directions]
            weights = [
                _Weights(self.hidden, self.cell, self.forget_bias, name=name)(x.shape[-1], x.dtype) for name in names
            ]
            starts = [
                zeros if carry is None else {key: carry[name][key].astype(wide) for key in zeros} for name in names
            ]
            if self.backend == "cudnn":
                from jaxdl.nn.cudnn import cudnn_lstm

                y, ends = cudnn_lstm(weights, starts, x, lengths)
                last |= dict(zip(names, ends, strict=True))
            else:
                xs = x.swapaxes(0, 1)
                for name, parameters, start, backward in zip(names, weights, starts, directions, strict=True):
                    holds = Holds(_keep(resets, backward, wide), self._shares(valid, xs, wide, train))
                    hs, last[name] = over_time(self.cell, parameters, start, xs, holds, reverse=backward)
                    outputs.append(hs)
                y = (outputs[0] if len(outputs) == 1 else jnp.concatenate(outputs, -1)).swapaxes(0, 1)
            if self.residual and number:
                y = x + y
            x = y if valid is None else jnp.where(valid, y, jnp.zeros((), y.dtype))
        return x, last

    @property
    def carries(self) -> tuple[str, ...]:
        """What each layer hands on: "h", and "c" for the LSTM."""
        return cell_named(self.cell).carries

    def start(self, batch: int, dtype: Any = jnp.float32) -> Carries:
        """The carry before the first step: zeros."""
        directions = (False, True) if self.bidirectional else (False,)
        names = [_layer(number, backward) for number in range(self.layers) for backward in directions]
        cell = cell_named(self.cell)
        return {name: {key: jnp.zeros((batch, self.hidden), dtype) for key in cell.carries} for name in names}

    def _shares(self, valid: Array | None, xs: Array, wide: Any, train: bool) -> dict[str, Array] | None:
        """What part of the new carry is taken at each step; None: all of it."""
        zoned = not isinstance(self.zoneout, (int, float)) or self.zoneout > 0
        if valid is None and not zoned:
            return None
        there = None if valid is None else valid.swapaxes(0, 1).astype(wide)
        if not zoned:
            assert there is not None
            return dict.fromkeys(CELLS[self.cell].carries, there)
        rate = jnp.clip(jnp.asarray(self.zoneout, dtype=wide), 0.0, 0.99)
        shares = {}
        for name in CELLS[self.cell].carries:
            if train:
                shape = (*xs.shape[:2], self.hidden)
                share = jax.random.bernoulli(self.make_rng("dropout"), 1 - rate, shape).astype(wide)
            else:
                share = jnp.broadcast_to(1 - rate, (xs.shape[0], 1, 1))
            shares[name] = share if there is None else share * there
        return shares

    def _check(self, x: Array, carry: Carries | None, lengths: Array | None, resets: Array | None) -> None:
        if x.ndim != 3 or not jnp.issubdtype(x.dtype, jnp.floating):
            raise ValueError(
                f"RNN reads floats [batch, time, features], not {x.dtype} {list(x.shape)}: embed tokens with nn.Embed, "
                "and give single numbers a last axis of 1"
            )
        if self.backend not in BACKENDS:
            raise ValueError(f"backend={self.backend!r}: choose one of {', '.join(map(repr, BACKENDS))}")
        if self.layers < 1:
            raise ValueError(f"layers={self.layers}: an RNN has at least one")
        if isinstance(self.zoneout, (int, float)) and not 0 <= self.zoneout < 1:
            raise ValueError(f"a zoneout rate lies in [0, 1), not {self.zoneout}")
        for name, given, wanted in (("lengths", lengths, x.shape[:1]), ("resets", resets, x.shape[:2])):
            if given is not None and given.shape != wanted:
                raise ValueError(
                    f"RNN: {name} has shape {list(given.shape)}, but x {list(x.shape)} needs {list(wanted)}"
                )
        if carry is not None:
            wanted_carry = jax.eval_shape(lambda: self.start(x.shape[0]))
            shapes = {key: value.shape for key, value in _flat(carry).items()}
            needed = {key: value.shape for key, value in _flat(wanted_carry).items()}
            if shapes != needed:
                raise ValueError(f"RNN: the carry's shapes are {shapes}, but {needed} are needed")

    def _check_cudnn(self, x: Array, resets: Array | None) -> None:
        reasons = {
            f"it has no {self.cell!r} here": self.cell != "lstm",
            f"it takes float32, not {x.dtype}": x.dtype != jnp.float32,
            "it knows no zoneout": not isinstance(self.zoneout, (int, float)) or self.zoneout > 0,
            "it clears no carry within a sequence": resets is not None,
            f"it runs on NVIDIA GPUs, and jax runs on {jax.default_backend()}": jax.default_backend() == "cpu",
        }
        for reason, applies in reasons.items():
            if applies:
                raise ValueError(f'backend="cudnn" cannot be used: {reason}; backend="scan" gives the same numbers')


class _Weights(nn.Module):
    """The parameters of one layer and direction, in the dtype of its input."""

    hidden: int
    cell: str
    forget_bias: float

    @nn.compact
    def __call__(self, inputs: int, dtype: Any) -> dict[str, Array]:
        cell = CELLS[self.cell]
        width = cell.gates * self.hidden
        weights = {
            "kernel": self.param("kernel", nn.initializers.glorot_uniform(), (inputs, width), jnp.float32),
            "recurrent_kernel": self.param(
                "recurrent_kernel", nn.initializers.orthogonal(), (self.hidden, width), jnp.float32
            ),
            "bias": self.param("bias", self._bias, (width,), jnp.float32),
        }
        if cell.recurrent_bias:
            weights["recurrent_bias"] = self.param("recurrent_bias", nn.initializers.zeros, (self.hidden,), jnp.float32)
        return {name: value.astype(dtype) for name, value in weights.items()}

    def _bias(self, key: Array, shape: tuple[int, ...], dtype: Any) -> Array:
        bias = jnp.zeros(shape, dtype)
        return bias.at[self.hidden : 2 * self.hidden].set(self.forget_bias) if self.cell == "lstm" else bias


def last_hidden(carry: Carries) -> Array:
    """The hidden state of the uppermost layer, both directions side by side: [batch, hidden or 2 * hidden], float32.

    It is the usual summary of a sequence (sequence to vector): of the backward direction, the state at the first step.
    """
    top = max(int(name.removeprefix("layer").removesuffix("_backward")) for name in carry)
    names = [name for name in (_layer(top, False), _layer(top, True)) if name in carry]
    return jnp.concatenate([carry[name]["h"] for name in names], -1)


def stop_carry(carry: Any) -> Any:
    """The same numbers as constants: truncated backpropagation through time ends here."""
    return jax.lax.stop_gradient(carry)


def clear_carry(carry: Any, rows: Array) -> Any:
    """The carry with zeros in the rows ([batch] bool) that begin a stream or a document."""

    def cleared(leaf: Array) -> Array:
        return jnp.where(rows.reshape(-1, *(1,) * (leaf.ndim - 1)), jnp.zeros((), leaf.dtype), leaf)

    return jax.tree.map(cleared, carry)


def _layer(number: int, backward: bool) -> str:
    return f"layer{number}_backward" if backward else f"layer{number}"


def _keep(resets: Array | None, backward: bool, dtype: Any) -> Array | None:
    """[time, batch, 1]: 0 before a step at which a document begins; read backwards, before the step that ends one."""
    if resets is None:
        return None
    if backward:
        resets = jnp.concatenate([resets[:, 1:], jnp.zeros_like(resets[:, :1])], 1)
    return (~resets.astype(jnp.bool_)).astype(dtype).swapaxes(0, 1)[..., None]


def _flat(carry: Any) -> dict[str, Any]:
    return {f"{layer}/{name}": value for layer, one in sorted(carry.items()) for name, value in sorted(one.items())}
