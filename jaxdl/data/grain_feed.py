"""Work for each record (decode, crop, flip, jitter), in worker processes, under the same order as the other feeds."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import warnings
import weakref
from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from jaxdl.data.dataset import Dataset, as_dataset
from jaxdl.data.feeds import batch_spec, device_dtype, fresh, gather, narrow, on_disk
from jaxdl.data.order import Draws, Order

if TYPE_CHECKING:
    import jax

Record = dict[str, np.ndarray]
Transform = Callable[[Record, np.random.Generator], Mapping[str, Any]]
_DIED = "terminated unexpectedly"  # how grain says that a worker process is gone
_FOREVER = 2**40  # batches; a source needs a length


class Records(Protocol):
    """Records by number: what decodes a file when it is asked for, such as `ImageFiles`."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> Mapping[str, Any]: ...


@dataclass(frozen=True, eq=False)
class GrainFeed:
    """Batches made record by record on the host, ahead of time in worker processes (grain's MapDataset).

    Batch t and every number drawn for it are functions of (seed, t): they depend neither on `workers` nor on where a
    run resumed. Without a transform the batches are those of `Resident` and `Streamed`, which are many times faster.

    Calls of `block` in sequence are answered by the workers, which run ahead; a call out of sequence is right too, and
    is computed by the caller, as is all that is left when a worker was killed (a warning says so). Workers ignore
    Ctrl-C: the caller ends them. They are spawned: a script needs `if __name__ == "__main__":`, and `transform` must
    pickle (functions, functools.partial and lambdas do). Memory maps are opened again by each worker; other columns
    are copied to each.

    Args:
        dataset: a Dataset, what `as_dataset` takes, or records by number: anything with `len(records)` and
            `records[i] -> {"x": array, ...}`.
        batch_size: examples a batch.
        shuffle: another permutation each epoch.
        transform: (record, rng) -> record. The record is a dict of one example's arrays, which it may write into;
            "weight" is not in it. `rng` is a function of (seed, the example's position in the whole training order);
            it is the transform's until it returns.
        workers: processes; 0 computes each block when it is asked for.
        drop_last: leave the last partial batch of an epoch out.

    Raises:
        ImportError: workers are asked for and grain is not installed.
        ValueError: two records differ in their columns, shapes or dtypes after the transform (both are named).
    """

    dataset: Any
    batch_size: int
    _: KW_ONLY
    shuffle: bool = True
    transform: Transform | None = None
    workers: int = 0
    drop_last: bool = False
    _ahead: _Ahead = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if self.workers < 0:
            raise ValueError(f"workers must be 0 or more, not {self.workers}")
        if not _is_records(self.dataset):
            object.__setattr__(self, "dataset", as_dataset(self.dataset))
        order = Order(len(self.dataset), self.batch_size, self.shuffle, self.drop_last)
        object.__setattr__(self, "_ahead", _Ahead(_Batches(self.dataset, order, self.transform), self.workers))
        if self.workers:
            _grain()

    @property
    def order(self) -> Order:
        """The indices of every batch."""
        return self._ahead.batches.order

    @property
    def examples(self) -> int:
        """Examples an epoch."""
        return self.order.examples

    @property
    def steps_per_epoch(self) -> int:
        """Batches an epoch."""
        return self.order.steps_per_epoch

    @cached_property
    def batch(self) -> dict[str, jax.ShapeDtypeStruct]:
        """One batch, with "weight": [batch_size] float32; shapes and dtypes are those of record 0, transformed."""
        import jax

        if isinstance(self.dataset, Dataset) and self.transform is None:
            return batch_spec(self.dataset, self.batch_size)
        spec = {
            name: jax.ShapeDtypeStruct((self.batch_size, *value.shape), device_dtype(value.dtype))
            for name, value in self._ahead.batches.first.items()
        }
        spec["weight"] = jax.ShapeDtypeStruct((self.batch_size,), np.float32)
        return spec

    @property
    def data(self) -> dict[str, np.ndarray]:
        """Nothing lives on the device."""
        return {}

    def block(self, seed: int, step: int, count: int, rows: np.ndarray | None = None) -> dict[str, np.ndarray]:
        """Whole batches: every column [count, batch_size, ...] and "weight" float32 [count, batch_size].

        With `rows`, only these rows of each batch are read and transformed: [count, len(rows), ...].
        """
        batches = self._ahead(int(seed), int(step), int(count), None if rows is None else tuple(rows.tolist()))
        return {
            name: np.stack([each[name] for each in batches], out=fresh((len(batches), *like.shape), like.dtype))
            for name, like in batches[0].items()
        }

    def take(self, data: Any, item: Any) -> dict[str, jax.Array]:
        """The batch is the item itself."""
        return dict(item)

    def close(self) -> None:
        """End the worker processes; the next block starts new ones when it needs them."""
        self._ahead.close()


@dataclass(frozen=True, eq=False)
class _Batches:
    """Batch `first_step + i` by number: grain's random-access source, and all that a worker process is sent."""

    dataset: Dataset | Records
    order: Order
    transform: Transform | None = None
    seed: int = 0
    first_step: int = 0
    rows: tuple[int, ...] | None = None  # of each batch; None: all

    def __len__(self) -> int:
        return _FOREVER

    def __getitem__(self, index: int) -> Record:
        step = self.first_step + int(index)
        indices = self.order(self.seed, step)[0]
        rows = range(len(indices)) if self.rows is None else self.rows
        indices = indices if self.rows is None else indices[list(rows)]
        if isinstance(self.dataset, Dataset) and self.transform is None:
            return gather(self.dataset, indices)
        epoch, batch = divmod(step, self.order.steps_per_epoch)
        start = epoch * self.order.examples + batch * self.order.batch_size
        columns = {name: np.empty((len(indices), *like.shape), like.dtype) for name, like in self.first.items()}
        weight = np.zeros(len(indices), np.float32)
        for slot, (place, index_or_padding) in enumerate(zip(rows, indices.tolist(), strict=True)):
            row = max(index_or_padding, 0)
            for name, value in self.record(row, self.seed, start + place).items():
                columns[name][slot] = value
            if index_or_padding >= 0:
                weight[slot] = self.weight(row)
        name = getattr(self.dataset, "name", "records")
        batch_columns = {column: narrow(array, column, name) for column, array in columns.items()}
        return {**batch_columns, "weight": weight}

    def with_start(self, seed: int, first_step: int, rows: tuple[int, ...] | None) -> _Batches:
        """The same batches of another seed, counted from another step, and of each these rows."""
        return _Batches(self.dataset, self.order, self.transform, seed, first_step, rows)

    @cached_property
    def _draws(self) -> Draws:
        return Draws("record")

    @cached_property
    def first(self) -> Record:
        """Record 0 as every other one has to look: its columns, shapes and dtypes."""
        return self._transformed(0, 0, 0)

    def record(self, row: int, seed: int, position: int) -> Record:
        """Record `row`, transformed with the numbers of its position in the training order."""
        record, first = self._transformed(row, seed, position), self.first
        if record.keys() != first.keys():
            raise ValueError(f"record {row} has the columns {sorted(record)}, but record 0 has {sorted(first)}")
        for name, value in record.items():
            if (value.shape, value.dtype) != (first[name].shape, first[name].dtype):
                raise ValueError(
                    f"column {name!r} of record {row} is {value.dtype}{list(value.shape)}, but of record 0 it is "
                    f"{first[name].dtype}{list(first[name].shape)}: all records must agree after the transform"
                )
        return record

    def weight(self, row: int) -> np.float32:
        """The example's own weight."""
        if isinstance(self.dataset, Dataset) and "weight" in self.dataset:
            return np.float32(self.dataset["weight"][row])
        return np.float32(1)

    def _transformed(self, row: int, seed: int, position: int) -> Record:
        if isinstance(self.dataset, Dataset):
            # A copy, so that a transform that writes does not write into the data.
            columns = self.dataset.columns.items()
            record = {name: np.array(array[row]) for name, array in columns if name != "weight"}
        else:
            record = {name: np.asarray(value) for name, value in self.dataset[row].items()}
        if self.transform is not None:
            made = self.transform(record, self._draws.at(seed, position))
            if not isinstance(made, Mapping):
                raise TypeError(f"transform must return a record (a dict of arrays), not {type(made).__name__}")
            record = {name: np.asarray(value) for name, value in made.items()}
        if "weight" in record:
            raise ValueError(f"record {row} holds 'weight' after the transform: weights are a column of the Dataset")
        return record

    def __reduce__(self) -> tuple[Any, ...]:
        data: Any = self.dataset
        if isinstance(data, Dataset):
            data = _Sent({name: _sent(array) for name, array in data.columns.items()}, data.classes, data.name)
        return _received, (data, self.order, self.transform, self.seed, self.first_step, self.rows, os.getpid())


class _Ahead:
    """Batches in sequence from workers that run ahead, any others computed here.

    Workers start with the second call in a row, so that one look at a batch costs no processes; a look elsewhere does
    not disturb them.
    """

    def __init__(self, batches: _Batches, workers: int):
        self.batches = batches
        self.workers = workers
        self._expected: tuple[Any, ...] | None = None  # (seed, step, rows) that would continue the previous call
        self._at: tuple[Any, ...] | None = None  # (seed, step, rows) that the workers give next
        self._iterators: list[Any] = []  # the present one, where workers run
        # Not __del__: at the interpreter's end that comes when the modules that grain needs are gone already.
        weakref.finalize(self, _end, self._iterators)

    def __call__(self, seed: int, step: int, count: int, rows: tuple[int, ...] | None) -> list[Record]:
        if step < 0 or count < 1:
            raise ValueError(f"a feed starts at step 0 and gives at least one batch, not step {step}, count {count}")
        here_now, then = (seed, step, rows), (seed, step + count, rows)
        in_sequence, self._expected = self._expected == here_now, then
        if self.workers and in_sequence and self._at != here_now:
            self.close()
            self._iterators.append(self._start(seed, step, count, rows))
            self._at = here_now
        if self._iterators and self._at == here_now:
            try:
                made = [next(self._iterators[0]) for _ in range(count)]
            except BaseException as problem:
                self.close()  # after an error in a worker the iterator gives nothing more
                if not (isinstance(problem, RuntimeError) and _DIED in str(problem)):
                    raise
                # Blocks are functions of (seed, step), so what a killed worker owed can be made here. No new workers:
                # what killed this one, such as a lack of memory, would kill them too.
                self.workers = 0
                warnings.warn(
                    f"a worker process died ({problem}); batches are made in the main process from here on",
                    stacklevel=3,
                )
            else:
                self._at = then
                return made
        here = self.batches.with_start(seed, step, rows)
        return [here[i] for i in range(count)]

    def _start(self, seed: int, step: int, count: int, rows: tuple[int, ...] | None) -> Any:
        grain = _grain()
        buffer = -(-count // self.workers) + 1  # a whole block ahead, and one more in the making
        source = grain.MapDataset.source(self.batches.with_start(seed, step, rows))
        records = source.to_iter_dataset(grain.ReadOptions(num_threads=0, prefetch_buffer_size=0))
        options = grain.MultiprocessingOptions(num_workers=self.workers, per_worker_buffer_size=buffer)
        return iter(records.mp_prefetch(options))

    def close(self) -> None:
        """End the workers."""
        self._at = None
        _end(self._iterators)


def _end(iterators: list[Any]) -> None:
    while iterators:
        iterators.pop().close()


@dataclass(frozen=True)
class _File:
    """Where a memory map lies, so that a worker maps it too instead of being sent its content."""

    path: str
    dtype: np.dtype
    offset: int
    shape: tuple[int, ...]
    order: str


@dataclass(frozen=True)
class _Sent:
    columns: dict[str, np.ndarray | _File]
    classes: tuple[str, ...] | None
    name: str


def _sent(array: np.ndarray) -> np.ndarray | _File:
    if isinstance(array, np.memmap) and array.filename is not None and not isinstance(array.base, np.memmap):
        order = "C" if array.flags.c_contiguous else "F"
        return _File(str(array.filename), array.dtype, array.offset, array.shape, order)
    return np.asarray(array) if on_disk(array) else array


def _received(
    data: Any,
    order: Order,
    transform: Transform | None,
    seed: int,
    first_step: int,
    rows: tuple[int, ...] | None,
    sender: int,
) -> _Batches:
    _leave_interrupts_to(sender)
    if isinstance(data, _Sent):
        columns = {
            name: np.memmap(each.path, each.dtype, "r", each.offset, each.shape, each.order)  # type: ignore[call-overload]
            if isinstance(each, _File)
            else each
            for name, each in data.columns.items()
        }
        data = Dataset(columns, data.classes, data.name)
    return _Batches(data, order, transform, seed, first_step, rows)


def _leave_interrupts_to(sender: int) -> None:
    """In a worker: a Ctrl-C reaches every process of the terminal, and it is the caller that ends the run in order."""
    here = threading.current_thread() is threading.main_thread()
    if here and os.getpid() != sender and multiprocessing.parent_process() is not None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def _is_records(data: Any) -> bool:
    if isinstance(data, Dataset | Mapping | tuple | list) or hasattr(data, "shape"):
        return False
    return hasattr(data, "__len__") and hasattr(data, "__getitem__") and not hasattr(data, "__arrow_c_stream__")


def _grain() -> Any:
    try:
        import grain
        from absl import flags
    except ImportError as problem:
        raise ImportError("worker processes need grain: pip install 'jaxdl[data]'") from problem
    if not flags.FLAGS.is_parsed():
        # Grain reads its absl flags when it starts workers, and only programs under absl's app.run have parsed any.
        flags.FLAGS.mark_as_parsed()
    return grain
