"""Several processes, one program: what they tell each other between compiled steps.

Everything here is collective where there are several processes: all of them call it, on their main thread, in the same
order. With one process each function answers at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

_TEXT_UNIT = 256  # texts are sent in multiples of this many bytes, so that few lengths are compiled


def first() -> bool:
    """Whether this is process 0, which prints, writes the run's folder and commits checkpoints."""
    return jax.process_index() == 0


def several() -> bool:
    """Whether there are other processes."""
    return jax.process_count() > 1


def gather(array: np.ndarray) -> np.ndarray:
    """[processes, ...]: the array of each process, on every process; all of one shape, of a 32-bit dtype or less."""
    if not several():
        return np.asarray(array)[None]
    from jax.experimental import multihost_utils

    with jax.transfer_guard("allow"):
        gathered = multihost_utils.process_allgather(np.asarray(array))
    return np.asarray(gathered).reshape(jax.process_count(), *np.shape(array))


def gather_texts(text: str) -> list[str]:
    """The text of each process, on every process."""
    if not several():
        return [text]
    own = text.encode()
    lengths = gather(np.array(len(own), np.int32))
    room = -(-max(int(lengths.max()), 1) // _TEXT_UNIT) * _TEXT_UNIT
    padded = np.zeros(room, np.uint8)
    padded[: len(own)] = np.frombuffer(own, np.uint8)
    return [row[:length].tobytes().decode() for row, length in zip(gather(padded), lengths, strict=True)]


def from_first(text: str) -> str:
    """The text of process 0, on every process."""
    return gather_texts(text if first() else "")[0]


def sums(values: np.ndarray) -> np.ndarray:
    """uint32 sums over processes that wrap around, as checksums want them."""
    return gather(np.asarray(values, np.uint32)).sum(0, dtype=np.uint32)


def any_of(*flags: bool) -> tuple[bool, ...]:
    """Each flag, true on every process where it is true on one."""
    return tuple(bool(flag) for flag in gather(np.array(flags, np.int32)).max(0))


def wait_for_all() -> None:
    """Returns when every process has come here."""
    any_of(False)


def raise_together(problem: str) -> None:
    """A sentence on every process where one has a problem: else the others would wait for it in the next step.

    Args:
        problem: what is wrong here; "" where nothing is.

    Raises:
        ValueError: a process has a problem; it is named by its number where there are several.
    """
    if not several():
        if problem:
            raise ValueError(problem)
        return
    problems = {number: text for number, text in enumerate(gather_texts(problem)) if text}
    if problems:
        number, text = next(iter(problems.items()))
        others = f" (and {len(problems) - 1} processes more)" if len(problems) > 1 else ""
        raise ValueError(f"process {number} of {jax.process_count()}{others}: {text}")


class Votes:
    """Flags that are exchanged behind the running step and read when it is over: nobody waits for them.

    `cast` dispatches the exchange, `read` gives what all processes had cast the time before: with one process, what it
    cast itself at once.
    """

    def __init__(self, names: Sequence[str]):
        self._names = tuple(names)
        self._under_way: Any = None
        self._exchange: Any = None

    def cast(self, **flags: bool) -> dict[str, bool]:
        """Cast this process's flags, and return those of the time before, true where any process cast True."""
        row = np.array([flags[name] for name in self._names], np.int32)
        if not several():
            return {name: bool(flag) for name, flag in zip(self._names, row, strict=True)}
        before = self.read()
        with jax.transfer_guard("allow"):
            self._under_way = self._program()(self._global(row))
        return before

    def read(self) -> dict[str, bool]:
        """The result of the last `cast`, once; all False where there was none."""
        if self._under_way is None:
            return dict.fromkeys(self._names, False)
        with jax.transfer_guard("allow"):
            agreed = np.asarray(self._under_way)
        self._under_way = None
        return {name: bool(flag) for name, flag in zip(self._names, agreed, strict=True)}

    def _global(self, row: np.ndarray) -> jax.Array:
        mesh = Mesh(np.array(jax.devices()), ("device",))
        sharding = NamedSharding(mesh, PartitionSpec("device"))
        return jax.make_array_from_callback((mesh.size, len(row)), sharding, lambda _: row[None])

    def _program(self) -> Any:
        if self._exchange is None:
            mesh = Mesh(np.array(jax.devices()), ("device",))
            whole = NamedSharding(mesh, PartitionSpec())
            self._exchange = jax.jit(lambda x: jnp.max(x, axis=0), out_shardings=whole)
        return self._exchange
