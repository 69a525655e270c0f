"""Which examples make up batch t: a function of (seed, step), so that a resume needs no iterator."""

from __future__ import annotations

import threading
import zlib
from dataclasses import dataclass, field

import numpy as np

_MASK = 2**64 - 1
_CACHED_ENTRIES = 2**22  # indices kept in all (16 MB); the current and the next epoch are kept in any case


@dataclass(frozen=True)
class Order:
    """The indices of every batch.

    Args:
        examples: how many there are.
        batch_size: indices a batch. The last batch of an epoch is filled up with -1.
        shuffle: each epoch is another permutation; False keeps the order of the data.
        drop_last: leave the last partial batch out (its examples change from epoch to epoch).

    Raises:
        ValueError: no examples, a batch size below 1, or nothing left after drop_last.
    """

    examples: int
    batch_size: int
    shuffle: bool = True
    drop_last: bool = False
    _tables: dict[tuple[int, int], np.ndarray] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not 1 <= self.examples < 2**31:
            raise ValueError(f"an order needs 1 to 2^31 - 1 examples, not {self.examples}")
        if self.batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, not {self.batch_size}")
        if self.steps_per_epoch == 0:
            raise ValueError(
                f"{self.examples} examples give no whole batch of {self.batch_size}: drop_last leaves none"
            )

    def __reduce__(self) -> tuple[type[Order], tuple[int, int, bool, bool]]:
        """Without the tables: a worker process makes its own."""
        return Order, (self.examples, self.batch_size, self.shuffle, self.drop_last)

    @property
    def steps_per_epoch(self) -> int:
        """Batches an epoch: ceil(examples / batch_size), or its floor with drop_last."""
        return self.examples // self.batch_size if self.drop_last else -(-self.examples // self.batch_size)

    @property
    def full(self) -> bool:
        """Whether no batch is padded."""
        return self.drop_last or self.examples % self.batch_size == 0

    def __call__(self, seed: int, step: int, count: int = 1) -> np.ndarray:
        """The indices of `count` batches from `step` on: int32 [count, batch_size], -1 where a row is padding.

        A pure function of (seed, step): the same in every process and on every platform. The result may be read-only.
        """
        step, count = int(step), int(count)
        if step < 0 or count < 1:
            raise ValueError(f"an order starts at step 0 and gives at least one batch, not step {step}, count {count}")
        epoch, position = divmod(step, self.steps_per_epoch)
        if position + count <= self.steps_per_epoch:
            return self._table(seed, epoch)[position : position + count]
        parts = []
        while count > 0:
            parts.append(self._table(seed, epoch)[position : position + count])
            count -= len(parts[-1])
            epoch, position = epoch + 1, 0
        return np.concatenate(parts)

    def _table(self, seed: int, epoch: int) -> np.ndarray:
        """[steps_per_epoch, batch_size] int32, read-only: batches are handed out as views of it."""
        key = (int(seed) & _MASK, epoch) if self.shuffle else (0, 0)
        table = self._tables.get(key)
        if table is None:
            rows = permutation(self.examples, *key) if self.shuffle else np.arange(self.examples, dtype=np.int32)
            size = self.steps_per_epoch * self.batch_size
            spare = np.full(max(size - self.examples, 0), -1, np.int32)
            table = np.concatenate([rows[:size], spare]) if spare.size else rows[:size]
            table = table.reshape(self.steps_per_epoch, self.batch_size)
            table.flags.writeable = False
            while len(self._tables) >= max(2, _CACHED_ENTRIES // self.examples):
                self._tables.pop(next(iter(self._tables)), None)
            self._tables[key] = table
        return table


def permutation(examples: int, seed: int, epoch: int) -> np.ndarray:
    """A permutation of range(examples) drawn from (seed, epoch): int32 [examples].

    numpy freezes two things for ever (its NEP 19): the output of its bit generators, and what `RandomState` makes of
    it. So a Fisher-Yates shuffle by `RandomState` over Philox (Salmon et al., "Parallel random numbers: as easy as 1,
    2, 3", 2011) gives the same order on every platform and numpy version; `Generator.permutation` promises less.
    """
    rows = np.arange(examples)  # words of the machine's size are swapped quickest
    draws = getattr(_kept, "draws", None)
    if draws is None:
        draws = _kept.draws = Draws("order")
    draws.frozen_at(seed, epoch).shuffle(rows)
    return rows.astype(np.int32)


def stream(seed: int, number: int, name: str) -> np.random.Philox:
    """The bit generator of (seed, number), apart from the one of any other name."""
    key = np.array([int(seed) & _MASK, int(number) & _MASK], np.uint64)
    return np.random.Philox(key=key, counter=np.array([0, 0, 0, zlib.crc32(name.encode())], np.uint64))


class Draws:
    """One generator that is set to (seed, number) again and again: making a Philox costs four to ten times as much."""

    def __init__(self, name: str):
        self._bits = stream(0, 0, name)
        self._start = self._bits.state
        self._generator = np.random.Generator(self._bits)
        self._frozen = np.random.RandomState(self._bits)

    def at(self, seed: int, number: int) -> np.random.Generator:
        """The generator at the start of the stream of (seed, number): the caller's until the next call."""
        self._rewind(seed, number)
        return self._generator

    def frozen_at(self, seed: int, number: int) -> np.random.RandomState:
        """The same stream through the generator whose every output numpy keeps as it is."""
        self._rewind(seed, number)
        return self._frozen

    def _rewind(self, seed: int, number: int) -> None:
        self._start["state"]["key"][:] = int(seed) & _MASK, int(number) & _MASK
        self._bits.state = self._start


_kept = threading.local()  # the Draws of `permutation`, one a thread
