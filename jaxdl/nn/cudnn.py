"""NVIDIA's LSTM (cuDNN, through jax.experimental.rnn) from the parameters of `RNN`: float32, GPU only.

It differs from the scan by rounding: its products may use TF32 where jax's default matmul precision allows it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp

Array = jax.Array


def pack_weights(directions: Sequence[Mapping[str, Array]]) -> Array:
    """One layer's parameters as cuDNN has them: [count] float32.

    First the matrices of each direction, input then recurrent, [4 H, in] and [4 H, H]; then the biases of each
    direction, of which cuDNN has two that add up: ours, and zeros. Gates stand in the order i, f, g, o in both.

    Args:
        directions: forward, and backward where there is one: "kernel" [in, 4 H], "recurrent_kernel" [H, 4 H], "bias".
    """
    matrices = [each[name].T.reshape(-1) for each in directions for name in ("kernel", "recurrent_kernel")]
    biases = [part for each in directions for part in (each["bias"], jnp.zeros_like(each["bias"]))]
    return jnp.concatenate([*matrices, *biases])


def unpack_weights(packed: Array, inputs: int, hidden: int, directions: int = 1) -> list[dict[str, Array]]:
    """The parameters of each direction from cuDNN's; its two biases are added.

    Raises:
        ValueError: there are more or fewer numbers than such a layer has.
    """
    shapes = [(4 * hidden, inputs), (4 * hidden, hidden)] * directions + [(4 * hidden,)] * 2 * directions
    sizes = [shape[0] * (shape[1] if len(shape) > 1 else 1) for shape in shapes]
    if packed.shape != (sum(sizes),):
        raise ValueError(
            f"an LSTM layer of {inputs} -> {hidden} in {directions} direction(s) has {sum(sizes)} numbers, "
            f"not {list(packed.shape)}"
        )
    parts, start = [], 0
    for shape, size in zip(shapes, sizes, strict=True):
        parts.append(packed[start : start + size].reshape(shape))
        start += size
    biases = parts[2 * directions :]
    return [
        {
            "kernel": parts[2 * index].T,
            "recurrent_kernel": parts[2 * index + 1].T,
            "bias": biases[2 * index] + biases[2 * index + 1],
        }
        for index in range(directions)
    ]


def cudnn_lstm(
    directions: Sequence[Mapping[str, Array]],
    carries: Sequence[Mapping[str, Array]],
    x: Array,
    lengths: Array | None,
) -> tuple[Array, list[dict[str, Array]]]:
    """One layer, in one direction or both, on the GPU.

    Args:
        directions: the parameters of each direction.
        carries: "h" and "c" [batch, H] of each direction.
        x: [batch, time, in] float32.
        lengths: [batch], or None where all sequences are whole.

    Returns:
        y [batch, time, H * directions], and the last carry of each direction.
    """
    from jax.experimental import rnn

    batch, time, inputs = x.shape
    lengths = jnp.full((batch,), time, jnp.int32) if lengths is None else lengths.astype(jnp.int32)
    y, h, c = rnn.lstm(
        x,
        jnp.stack([carry["h"] for carry in carries]),
        jnp.stack([carry["c"] for carry in carries]),
        pack_weights(directions),
        lengths,
        inputs,
        carries[0]["h"].shape[-1],
        1,
        0.0,
        len(directions) == 2,
    )
    return y, [{"h": h[index], "c": c[index]} for index in range(len(directions))]
