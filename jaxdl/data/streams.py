"""Token streams in windows whose rows go on from batch to batch: the data of truncated backpropagation through time."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxdl.data.dataset import Dataset
from jaxdl.data.order import stream

if TYPE_CHECKING:
    import jax


@dataclass(frozen=True, eq=False)
class TokenStreams:
    """A feed that reads one long text as several streams side by side, window after window.

    The text is cut into `streams` equal parts. Row s of batch t holds window t of part s, so a recurrent network whose
    carry stays with its row reads each part from its beginning to its end: in every epoch, and after a resume too,
    since batch t is a function of (seed, t). The columns are

    - x: [streams, length] int32;
    - y: [streams, length] int32, the token after each of x, the first of the next window included;
    - start: [streams] bool, True in the first batch of an epoch, where a kept carry belongs to another text;
    - weight: [streams], ones.

    What fills no window in all streams (less than streams * length + length tokens) is left out.

    Args:
        tokens: [n] integers, zero or more.
        streams: parts that are read at once: the batch size.
        length: tokens a window: how far gradients reach back.
        shuffle: each epoch cuts the text at another offset, so that windows do not always end at the same tokens.

    Raises:
        ValueError: tokens are no [n] integers, or too few for one window each.
    """

    tokens: np.ndarray
    streams: int
    length: int
    shuffle: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "tokens", _checked(self.tokens))
        if self.streams < 1 or self.length < 1:
            raise ValueError(f"streams and length are at least 1, not {self.streams} and {self.length}")
        if self.steps_per_epoch < 1:
            raise ValueError(
                f"{len(self.tokens):,} tokens are too few: {self.streams} streams in windows of {self.length} need "
                f"{(self.streams + 1) * self.length + 1:,} for one batch"
            )

    @property
    def steps_per_epoch(self) -> int:
        """Windows that each stream has."""
        # One window's worth of tokens is kept free, so that every offset of an epoch leaves room for the same number.
        return (len(self.tokens) - 1 - self.length) // (self.streams * self.length)

    @property
    def examples(self) -> int:
        """Windows an epoch."""
        return self.steps_per_epoch * self.streams

    @property
    def batch_size(self) -> int:
        """The streams."""
        return self.streams

    @cached_property
    def data(self) -> dict[str, np.ndarray]:
        """The text, which lives on the device as it is given (8 bits a character stay 8 bits)."""
        return {"tokens": self.tokens}

    def block(self, seed: int, step: int, count: int) -> dict[str, np.ndarray]:
        """Where the windows of `count` batches begin: "position" int32 and "start" bool, [count, streams]."""
        steps = step + np.arange(count)
        epochs, within = np.divmod(steps, self.steps_per_epoch)
        offsets = {int(epoch): self._offset(seed, int(epoch)) for epoch in np.unique(epochs)}
        begins = np.asarray([offsets[int(epoch)] for epoch in epochs]) + within * self.length
        rows = np.arange(self.streams) * (self.steps_per_epoch * self.length)
        start = np.broadcast_to((within == 0)[:, None], (count, self.streams))
        return {"position": (begins[:, None] + rows[None]).astype(np.int32), "start": np.array(start)}

    def take(self, data: Any, item: Any) -> dict[str, jax.Array]:
        """Positions [streams] -> the batch, gathered in the graph."""
        import jax.numpy as jnp

        places = item["position"][:, None] + jnp.arange(self.length + 1, dtype=jnp.int32)[None]
        tokens = data["tokens"].at[places].get(mode="promise_in_bounds").astype(jnp.int32)
        weight = jnp.ones(item["position"].shape, jnp.float32)
        return {"x": tokens[:, :-1], "y": tokens[:, 1:], "start": item["start"], "weight": weight}

    def _offset(self, seed: int, epoch: int) -> int:
        if not self.shuffle:
            return 0
        spare = len(self.tokens) - 1 - self.examples * self.length
        return int(stream(seed, epoch, "token streams").random_raw()) % (spare + 1)


def token_windows(tokens: np.ndarray, length: int, *, context: int = 0) -> Dataset:
    """A text in windows that count each token once, for evaluation: a Dataset with the columns of `TokenStreams`.

    Args:
        tokens: [n] integers, zero or more.
        length: tokens a window; the same as in training.
        context: tokens of the window before that each window repeats at its beginning: the network reads them to get
            into the text, and they do not count. It makes the score that of a network which never stops reading, as
            training has it, and costs length / (length - context) of the time.

    Returns:
        x, y [windows, length] int32, start [windows] bool (all True), mask [windows, length] bool: which y count. The
        last window ends with the text, so it may repeat more than `context`.

    Raises:
        ValueError: a context that leaves nothing to count, or too few tokens for a window.
    """
    tokens = _checked(tokens)
    if not 0 <= context < length:
        raise ValueError(f"context={context}: windows of {length} tokens leave room for 0 to {length - 1}")
    targets = len(tokens) - 1
    if targets < length:
        raise ValueError(f"{len(tokens):,} tokens are too few for a window of {length} and the token after it")
    stride = length - context
    begins = np.minimum(np.arange(1 + -(-(targets - length) // stride)) * stride, targets - length)
    places = begins[:, None] + np.arange(length + 1)[None]
    windows = tokens[places].astype(np.int32)
    counted_before = np.concatenate([[0], begins[:-1] + length])  # the first target that no window before counted
    mask = places[:, :-1] >= counted_before[:, None]
    start = np.ones(len(begins), np.bool_)
    return Dataset({"x": windows[:, :-1], "y": windows[:, 1:], "start": start, "mask": mask}, name="token windows")


def _checked(tokens: np.ndarray) -> np.ndarray:
    tokens = np.asarray(tokens)
    if tokens.ndim != 1 or tokens.dtype.kind not in "iu":
        raise ValueError(f"a text is one row of token numbers, [n] integers, not {tokens.dtype} {list(tokens.shape)}")
    if len(tokens) >= 2**31:
        raise ValueError(f"a text of {len(tokens):,} tokens is too long for 32-bit positions: cut it")
    if tokens.size and (int(tokens.min()) < 0 or int(tokens.max()) >= 2**31):
        raise ValueError(f"tokens are numbers from 0 to 2^31 - 1, and these go from {tokens.min()} to {tokens.max()}")
    return tokens.astype(np.int32) if tokens.dtype.itemsize > 4 else tokens
