"""How examples reach the compiled program: resident on the device, or streamed from the host block by block.

A feed has two halves. `block` runs on the host and gives what the next `count` steps need; `take` runs inside the
program and makes one batch of one row of a block. Both feeds give the same batches for the same seed.
What a feed must have is told by `jaxdl.Feed`, the protocol that the program asks for.
"""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxdl.data.dataset import Dataset, as_dataset, blocks
from jaxdl.data.order import Order

if TYPE_CHECKING:
    import jax

# Above this size data are streamed: a resident copy costs that much memory, on CPU beside the host's own.
RESIDENT_BYTES = 2**30

_NARROW = {
    np.dtype(np.float64): np.dtype(np.float32),
    np.dtype(np.int64): np.dtype(np.int32),
    np.dtype(np.uint64): np.dtype(np.uint32),
    np.dtype(np.complex128): np.dtype(np.complex64),
}


@dataclass(frozen=True, eq=False)
class _Columns:
    """What feeds over a Dataset share: the order of its examples and the shape of a batch."""

    dataset: Dataset
    batch_size: int
    _: KW_ONLY
    shuffle: bool = True
    drop_last: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "dataset", as_dataset(self.dataset))
        _ = self.order  # so that a bad batch size is refused here

    @cached_property
    def order(self) -> Order:
        """The indices of every batch."""
        return Order(len(self.dataset), self.batch_size, self.shuffle, self.drop_last)

    @property
    def examples(self) -> int:
        """Examples an epoch."""
        return len(self.dataset)

    @property
    def steps_per_epoch(self) -> int:
        """Batches an epoch."""
        return self.order.steps_per_epoch

    @cached_property
    def batch(self) -> dict[str, jax.ShapeDtypeStruct]:
        """One batch, with "weight": [batch_size] float32."""
        return batch_spec(self.dataset, self.batch_size)


@dataclass(frozen=True, eq=False)
class Resident(_Columns):
    """The whole data live on the device and are gathered inside the program: the fast feed.

    Args:
        dataset: a Dataset, or what `as_dataset` takes. Memory maps are read into memory.
        batch_size: examples a batch.
        shuffle: another permutation each epoch.
        drop_last: leave the last partial batch of an epoch out.
    """

    @cached_property
    def data(self) -> dict[str, np.ndarray]:
        """The columns in the dtypes of the device; those that have them already are not copied."""
        return {
            name: np.asarray(narrow(array, name, self.dataset.name, 0, weight=name == "weight"))
            for name, array in self.dataset.columns.items()
        }

    def block(self, seed: int, step: int, count: int, rows: np.ndarray | None = None) -> np.ndarray:
        """Indices, int32 [count, batch_size]; -1 is padding. With `rows`, those of these rows of each batch."""
        indices = self.order(seed, step, count)
        return indices if rows is None else indices[:, rows]

    def take(self, data: Any, item: Any) -> dict[str, jax.Array]:
        """Indices [batch_size] -> the batch, gathered in the graph."""
        import jax.numpy as jnp

        if self.order.full:  # weights that are constants cost nothing: 4 % of a step of logistic regression at batch 32
            batch = {name: array.at[item].get(mode="promise_in_bounds") for name, array in data.items()}
            return {"weight": jnp.ones(item.shape, jnp.float32)} | batch
        rows = jnp.maximum(item, jnp.int32(0))
        # The indices come from Order, so they are in bounds: no clamping, no fill.
        batch = {name: array.at[rows].get(mode="promise_in_bounds") for name, array in data.items()}
        counts = (item >= jnp.int32(0)).astype(jnp.float32)
        batch["weight"] = counts * batch["weight"] if "weight" in batch else counts
        return batch


@dataclass(frozen=True, eq=False)
class Streamed(_Columns):
    """The host gathers whole batches and the loop sends them one block ahead: for data larger than the device.

    Memory maps are read row by row, so data may be larger than the host's memory too.

    Args:
        dataset: a Dataset, or what `as_dataset` takes.
        batch_size: examples a batch.
        shuffle: another permutation each epoch.
        drop_last: leave the last partial batch of an epoch out.
    """

    @property
    def data(self) -> dict[str, np.ndarray]:
        """Nothing lives on the device."""
        return {}

    def block(self, seed: int, step: int, count: int, rows: np.ndarray | None = None) -> dict[str, np.ndarray]:
        """Whole batches: every column [count, batch_size, ...] and "weight" float32 [count, batch_size].

        With `rows`, only these rows of each batch are read: [count, len(rows), ...].
        """
        indices = self.order(seed, step, count)
        return gather(self.dataset, indices if rows is None else indices[:, rows])

    def take(self, data: Any, item: Any) -> dict[str, jax.Array]:
        """The batch is the item itself."""
        return dict(item)


def make_feed(
    dataset: Any, batch_size: int, *, shuffle: bool = True, kind: str = "auto", drop_last: bool = False
) -> Resident | Streamed:
    """The feed for these data: "resident", "streamed", or "auto".

    "auto" streams memory maps and data above 1 GiB and keeps everything else resident.
    """
    data = as_dataset(dataset)
    if kind not in ("auto", "resident", "streamed"):
        raise ValueError(f"there is no feed called {kind!r}: choose 'auto', 'resident' or 'streamed'")
    if kind == "auto":
        mapped = any(on_disk(array) for array in data.columns.values())
        large = sum(array.nbytes for array in data.columns.values()) > RESIDENT_BYTES
        kind = "streamed" if mapped or large else "resident"
    feed = Resident if kind == "resident" else Streamed
    return feed(data, batch_size, shuffle=shuffle, drop_last=drop_last)


def gather(data: Dataset, indices: np.ndarray) -> dict[str, np.ndarray]:
    """The examples at `indices` ([...] int32, -1 is padding): every column [..., *example], and "weight" [...].

    The arrays are new at each call: what was handed to a device may share its memory and is never written again.
    """
    rows = np.maximum(indices, 0)
    batch = {}
    for name, array in data.columns.items():
        picked = _rows(array, rows.reshape(-1)).reshape(*indices.shape, *array.shape[1:])
        batch[name] = narrow(picked, name, data.name, None, weight=name == "weight")
    counts = (indices >= 0).astype(np.float32)
    batch["weight"] = batch["weight"] * counts if "weight" in batch else counts
    return batch


def batch_spec(data: Dataset, batch_size: int) -> dict[str, jax.ShapeDtypeStruct]:
    """Shapes and dtypes of one batch on the device, "weight" included."""
    import jax

    spec = {
        name: jax.ShapeDtypeStruct((batch_size, *array.shape[1:]), device_dtype(array.dtype))
        for name, array in data.columns.items()
    }
    spec["weight"] = jax.ShapeDtypeStruct((batch_size,), np.float32)
    return spec


def device_dtype(dtype: np.dtype) -> np.dtype:
    """The dtype a column has on the device: 64-bit kinds become their 32-bit ones, others stay."""
    native = dtype.newbyteorder("=")
    return _NARROW.get(native, native)


def narrow(
    array: np.ndarray, name: str, data: str = "data", first_row: int | None = None, *, weight: bool = False
) -> np.ndarray:
    """A column in the dtype it has on the device: float64 -> float32, int64 -> int32, uint64 -> uint32.

    Raises:
        ValueError: a value does not fit, named with its row (row numbers need `first_row`, the number of the first).
    """
    wanted = np.dtype(np.float32) if weight else device_dtype(array.dtype)
    if array.dtype == wanted:
        return array
    if array.dtype.kind in "iu" and wanted.kind in "iu":
        limits = np.iinfo(wanted.name)
        for start, rows in blocks(array):
            if rows.size and (rows.min() < limits.min or rows.max() > limits.max):
                where = np.argwhere((rows < limits.min) | (rows > limits.max))[0]
                place = "" if first_row is None else f" in row {first_row + start + int(where[0])}"
                raise ValueError(
                    f"column {name!r} of {data} is {rows[tuple(where)]}{place}, which does not fit {wanted.name} "
                    "(devices hold 32-bit integers): use smaller numbers, or float32 where rounding is right"
                )
    with np.errstate(over="ignore"):
        small = array.astype(wanted)
    if array.dtype.kind == "f" and array.dtype.itemsize > wanted.itemsize:
        lost = np.isinf(small) & np.isfinite(array)
        if lost.any():
            where = np.argwhere(lost)[0]
            place = "" if first_row is None else f" in row {first_row + int(where[0])}"
            raise ValueError(
                f"column {name!r} of {data} is {array[tuple(where)]}{place}, beyond float32 (3.4e38): scale the column"
            )
    return small


def fresh(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """New memory at a multiple of 64 bytes, which a CPU device takes over without a copy."""
    size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    memory = np.empty(size + 64, np.uint8)
    start = -memory.ctypes.data % 64
    return memory[start : start + size].view(dtype).reshape(shape)


def _rows(array: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Rows of a column, into fresh memory. np.take is the fastest gather that numpy has."""
    if on_disk(array):
        # In the order of the file, so that each page is read once; then back into the order asked for.
        unique, rows = np.unique(rows, return_inverse=True)
        array = np.asarray(array[unique])
    # mode="clip" because "raise" gathers into a buffer of its own first; the rows come from Order, in bounds.
    return np.take(array, rows, axis=0, out=fresh((len(rows), *array.shape[1:]), array.dtype), mode="clip")


def on_disk(array: Any) -> bool:
    """Whether an array is a memory map, or a view of one."""
    while array is not None:
        if isinstance(array, np.memmap):
            return True
        array = getattr(array, "base", None)
    return False
