"""The five networks of the overhead benchmark in plain JAX, their data, and the rows of the table.

The MLP, the linear model and the convnet are what `jaxdl.create_model` builds; the LSTM and the GPT live only here, and
jaxdl trains them through `tasks.from_functions`. Every peer builds the same architecture (peers/).
Weights are [in, out], images [batch, height, width, channels], tokens and labels int32, everything else float32.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Array = jax.Array
Params = Any

LEARNING_RATE = 1e-3
PIXELS, WIDTHS, CLASSES = 64, (128, 128), 10
FEATURES = 50
STEPS, INPUTS, HIDDEN = 64, 64, 128
LAYERS, WIDTH, HEADS, CONTEXT, VOCABULARY = 4, 128, 4, 128, 256


@dataclass(frozen=True)
class Row:
    """One line of the table: a network, a batch size and how many examples make an epoch.

    Attributes:
        quick: whether `--quick` runs it.
        parts: microbatches that jaxdl (`fit(accumulate=)`) and a variant of each peer measure a batch in: on a CPU the
            convnet at batch 1024 costs half as much in parts that fit the cache.
        targets: peer -> the least ratio to reach (the peer's cost over jaxdl's).
    """

    model: str
    batch_size: int
    examples: int
    targets: dict[str, float]
    quick: bool = False
    parts: int = 1

    @property
    def name(self) -> str:
        return f"{self.model}-{self.batch_size}"

    @property
    def steps(self) -> int:
        """Steps an epoch; the examples divide evenly, so that peers which drop or pad a partial batch do the same."""
        return self.examples // self.batch_size


def _targets(torch: float | None = None, **others: float) -> dict[str, float]:
    return {"hand-written": 0.95, **({} if torch is None else {"torch": torch}), "keras": 1.2, **others}


ROWS = {
    row.name: row
    for row in (
        Row("mlp", 32, 7168, _targets(5.0, lightning=8.0), quick=True),
        Row("mlp", 128, 7168, _targets()),
        Row("mlp", 1024, 7168, _targets(1.3)),
        Row("logreg", 32, 20480, _targets(10.0), quick=True),
        Row("logreg", 128, 20480, _targets()),
        Row("logreg", 1024, 20480, _targets()),
        Row("convnet", 32, 256, _targets(1.0), quick=True),
        Row("convnet", 128, 512, _targets(1.0)),
        Row("convnet", 1024, 1024, _targets(1.0), parts=8),
        Row("lstm", 32, 128, _targets(0.9), quick=True),
        Row("lstm", 128, 256, _targets(0.9)),
        Row("lstm", 1024, 1024, _targets(0.9), parts=8),
        Row("gpt", 8, 64, _targets(0.75), quick=True),
        Row("gpt", 32, 128, _targets(0.75)),
    )
}


# ---- data ------------------------------------------------------------------------------------------------------------


def columns(row: Row) -> tuple[np.ndarray, np.ndarray]:
    """x and y of a row's epoch. Digits are the real ones, tiled; the rest is drawn from a fixed seed."""
    rng = np.random.default_rng(0)
    n = row.examples
    if row.model in ("mlp", "convnet"):
        images, labels = digits()
        take = np.arange(n) % len(images)
        x, y = images[take], labels[take]
        if row.model == "mlp":
            return np.ascontiguousarray(x.reshape(n, PIXELS)), y
        large = np.kron(x, np.ones((1, 3, 3), np.float32))  # 8x8 -> 24x24, then a border: 28x28
        return np.pad(large, ((0, 0), (2, 2), (2, 2)))[..., None], y
    if row.model == "logreg":
        x = rng.normal(size=(n, FEATURES)).astype(np.float32)
        return x, (x @ rng.normal(size=FEATURES) > 0).astype(np.int32)
    if row.model == "lstm":
        return rng.normal(size=(n, STEPS, INPUTS)).astype(np.float32), rng.integers(0, CLASSES, n).astype(np.int32)
    tokens = rng.integers(0, VOCABULARY, (n, CONTEXT + 1)).astype(np.int32)
    return np.ascontiguousarray(tokens[:, :-1]), np.ascontiguousarray(tokens[:, 1:])


def digits() -> tuple[np.ndarray, np.ndarray]:
    """The 1,797 digits: [n, 8, 8] float32 in [0, 1], labels int32."""
    import jaxdl.data

    parts = jaxdl.data.load("digits")
    x = np.concatenate([np.asarray(part["x"]) for part in parts]).reshape(-1, 8, 8).astype(np.float32)
    return x / x.max(), np.concatenate([np.asarray(part["y"]) for part in parts]).astype(np.int32)


# ---- parts -----------------------------------------------------------------------------------------------------------


@jax.custom_vjp
def matmul(x: Array, w: Array) -> Array:
    """x [..., in] @ w [in, out], whose weight gradient is one dot over all rows.

    XLA on CPU turns the gradient that JAX derives, transpose(dot(g, x)), into a transposing copy of g with everything
    that makes g computed again inside it; in the GPT this costs a third of the step (README.md, "What limits").
    """
    return x @ w


def _matmul_backward(kept: tuple[Array, Array], g: Array) -> tuple[Array, Array]:
    x, w = kept
    rows, cotangents = x.reshape(-1, x.shape[-1]), g.reshape(-1, g.shape[-1])
    dw = jax.lax.dot_general(rows, cotangents, (((0,), (0,)), ((), ())))
    return (cotangents @ w.T).reshape(x.shape), dw


matmul.defvjp(lambda x, w: (x @ w, (x, w)), _matmul_backward)


def dense(p: Params, x: Array) -> Array:
    return jnp.add(matmul(x, p["w"]), p["b"].reshape((1,) * (x.ndim - 1) + (-1,)))


def layer_norm(p: Params, x: Array) -> Array:
    row = (1,) * (x.ndim - 1) + (-1,)
    mean = x.mean(-1, keepdims=True)
    centred = x - mean
    scale = jax.lax.rsqrt((centred * centred).mean(-1, keepdims=True) + np.float32(1e-5))
    return centred * scale * p["scale"].reshape(row) + p["bias"].reshape(row)


def cross_entropy(logits: Array, y: Array) -> Array:
    """[..., classes] and labels [...] -> [...]."""
    picked = jnp.take_along_axis(logits, y[..., None], axis=-1)[..., 0]
    return jax.nn.logsumexp(logits, axis=-1) - picked


def conv3x3(p: Params, x: Array) -> Array:
    out = jax.lax.conv_general_dilated(x, p["w"], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    return out + p["b"].reshape(1, 1, 1, -1)


def conv3x3_im2col(p: Params, x: Array) -> Array:
    """The same convolution as one matmul: in a compiled loop on CPU, lax.conv falls off its fast path (jax#12868)."""
    height, width = x.shape[1:3]
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    patches = [padded[:, i : i + height, j : j + width] for i in range(3) for j in range(3)]
    w = p["w"].reshape(-1, p["w"].shape[-1])
    return matmul(jnp.concatenate(patches, -1), w) + p["b"].reshape(1, 1, 1, -1)


def max_pool(x: Array) -> Array:
    b, h, w, c = x.shape
    return x.reshape(b, h // 2, 2, w // 2, 2, c).max((2, 4))


# ---- networks: (params, x) -> logits ---------------------------------------------------------------------------------


def mlp(p: Params, x: Array) -> Array:
    for name in ("hidden0", "hidden1"):
        x = jax.nn.relu(x @ p[name]["w"] + p[name]["b"].reshape(1, -1))
    return x @ p["logits"]["w"] + p["logits"]["b"].reshape(1, -1)


def logreg(p: Params, x: Array) -> Array:
    return x @ p["logits"]["w"] + p["logits"]["b"].reshape(1, -1)


def convnet(p: Params, x: Array, conv: Callable[[Params, Array], Array] = conv3x3) -> Array:
    for name in ("conv0", "conv1"):
        x = max_pool(jax.nn.relu(conv(p[name], x)))
    x = jax.nn.relu(dense(p["dense"], x.reshape(x.shape[0], -1)))
    return dense(p["logits"], x)


def gpt(p: Params, x: Array) -> Array:
    b, t = x.shape
    h = p["tokens"][x] + p["positions"][None, :t]
    mask = np.tril(np.ones((t, t), bool))[None, None]
    for block in p["blocks"]:
        qkv = dense(block["qkv"], layer_norm(block["norm1"], h)).reshape(b, t, 3, HEADS, WIDTH // HEADS)
        q, k, v = qkv[:, :, 0], qkv[:, :, 1], qkv[:, :, 2]
        scores = jnp.einsum("bthd,bshd->bhts", q * np.float32((WIDTH // HEADS) ** -0.5), k)
        weights = jax.nn.softmax(jnp.where(mask, scores, np.float32(-1e30)), axis=-1)
        h = h + dense(block["out"], jnp.einsum("bhts,bshd->bthd", weights, v).reshape(b, t, WIDTH))
        h = h + dense(block["down"], jax.nn.gelu(dense(block["up"], layer_norm(block["norm2"], h)), approximate=True))
    return dense(p["logits"], layer_norm(p["norm"], h))


def lstm(p: Params, x: Array) -> Array:
    return dense(p["logits"], recurrent(p["wx"], p["wh"], p["b"], x.transpose(1, 0, 2)))


@jax.custom_vjp
def recurrent(wx: Array, wh: Array, b: Array, xs: Array) -> Array:
    """Last hidden state [batch, H] of an LSTM over xs [T, batch, in]; gates in the order i, f, g, o.

    The backward scan gives the gates' gradients, and each weight gradient is then one matmul over all steps, instead of
    a sum that is read and written at every step.
    """
    return _recurrent_forward(wx, wh, b, xs)[0]


def _recurrent_forward(wx: Array, wh: Array, b: Array, xs: Array) -> tuple[Array, Any]:
    size = wh.shape[0]

    def step(carry: tuple[Array, Array], x: Array) -> tuple[tuple[Array, Array], Any]:
        h, c = carry
        z = x @ wx + b.reshape(1, -1) + h @ wh
        both = jax.nn.sigmoid(z[:, : 2 * size])
        i, f = both[:, :size], both[:, size:]
        g, o = jnp.tanh(z[:, 2 * size : 3 * size]), jax.nn.sigmoid(z[:, 3 * size :])
        new = f * c + i * g
        squashed = jnp.tanh(new)
        return (o * squashed, new), (jnp.concatenate([i, f, g, o], -1), c, squashed, h)

    zero = jnp.zeros((xs.shape[1], size), xs.dtype)
    (h, _), kept = jax.lax.scan(step, (zero, zero), xs)
    return h, (wx, wh, xs, *kept)


def _recurrent_backward(kept: Any, dh: Array) -> tuple[Array, Array, Array, Array]:
    wx, wh, xs, gates, cells, squashed, hidden = kept
    size = wh.shape[0]

    def step(carry: tuple[Array, Array], saved: Any) -> tuple[tuple[Array, Array], Array]:
        dh, dc = carry
        gate, c, t = saved
        i, f, g, o = jnp.split(gate, 4, axis=-1)
        dc = dc + dh * o * (1 - t * t)
        dz = jnp.concatenate(
            [dc * g * i * (1 - i), dc * c * f * (1 - f), dc * i * (1 - g * g), dh * t * o * (1 - o)], -1
        )
        return (dz @ wh.T, dc * f), dz

    _, dz = jax.lax.scan(step, (dh, jnp.zeros_like(dh)), (gates, cells, squashed), reverse=True)
    rows = dz.reshape(-1, 4 * size)
    over = (((0,), (0,)), ((), ()))
    dwx = jax.lax.dot_general(xs.reshape(-1, xs.shape[-1]), rows, over)
    dwh = jax.lax.dot_general(hidden.reshape(-1, size), rows, over)
    return dwx, dwh, rows.sum(0), (rows @ wx.T).reshape(xs.shape)


recurrent.defvjp(_recurrent_forward, _recurrent_backward)

APPLY: dict[str, Callable[[Params, Array], Array]] = {
    "mlp": mlp,
    "logreg": logreg,
    "convnet": convnet,
    "lstm": lstm,
    "gpt": gpt,
}

convnet_im2col = partial(convnet, conv=conv3x3_im2col)


def init(model: str, seed: int = 0) -> Params:
    """Initial parameters as NumPy arrays (drawn on the host: compiling an initialiser costs more than training)."""
    rng = np.random.default_rng(seed)

    def layer(*shape: int, scale: float | None = None) -> dict[str, np.ndarray]:
        deviation = float(np.prod(shape[:-1])) ** -0.5 if scale is None else scale
        return {"w": normal(*shape, scale=deviation), "b": np.zeros(shape[-1], np.float32)}

    def normal(*shape: int, scale: float) -> np.ndarray:
        return (rng.normal(size=shape) * scale).astype(np.float32)

    def norm() -> dict[str, np.ndarray]:
        return {"scale": np.ones(WIDTH, np.float32), "bias": np.zeros(WIDTH, np.float32)}

    if model == "mlp":
        sizes = (PIXELS, *WIDTHS, CLASSES)
        names = ("hidden0", "hidden1", "logits")
        return {name: layer(a, b) for name, a, b in zip(names, sizes, sizes[1:], strict=False)}
    if model == "logreg":
        return {"logits": layer(FEATURES, 2)}
    if model == "convnet":
        return {
            "conv0": layer(3, 3, 1, 32),
            "conv1": layer(3, 3, 32, 64),
            "dense": layer(7 * 7 * 64, 128),
            "logits": layer(128, CLASSES),
        }
    if model == "lstm":
        wx, wh = normal(INPUTS, 4 * HIDDEN, scale=HIDDEN**-0.5), normal(HIDDEN, 4 * HIDDEN, scale=HIDDEN**-0.5)
        return {"wx": wx, "wh": wh, "b": np.zeros(4 * HIDDEN, np.float32), "logits": layer(HIDDEN, CLASSES)}
    if model == "gpt":
        small = partial(layer, scale=0.02)
        blocks = [
            {
                "norm1": norm(),
                "qkv": small(WIDTH, 3 * WIDTH),
                "out": small(WIDTH, WIDTH),
                "norm2": norm(),
                "up": small(WIDTH, 4 * WIDTH),
                "down": small(4 * WIDTH, WIDTH),
            }
            for _ in range(LAYERS)
        ]
        return {
            "tokens": normal(VOCABULARY, WIDTH, scale=0.02),
            "positions": normal(CONTEXT, WIDTH, scale=0.02),
            "blocks": blocks,
            "norm": norm(),
            "logits": small(WIDTH, VOCABULARY),
        }
    raise ValueError(f"no network is called {model!r}; there are {', '.join(APPLY)}")
