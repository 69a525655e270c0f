"""Whether each device works: memory keeps what is written, matrices multiply exactly, all hear each other.

A device that computes wrong numbers trains a wrong model and raises nothing. These checks take seconds, and name it.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

#: The part of a device's free memory that is written and read; on a CPU, whose memory is nobody's own, a fixed size.
SHARE = 0.25
_CPU_BYTES = 8 * 2**20

_CHUNK = 2**28  # uint32 numbers of one array: 1 GiB
_SIZE, _CPU_SIZE = 2048, 256  # rows of the square matrices
_SENT = 1024  # numbers that each device sends


def fill_memory(device: jax.Device, start: int, count: int) -> jax.Array:
    """[count] uint32 on the device: start, start + 1, ..."""
    with jax.default_device(device):
        return jax.block_until_ready(jnp.arange(count, dtype=jnp.uint32) + jnp.uint32(start))


def multiply(left: jax.Array, right: jax.Array) -> jax.Array:
    """The matrix product in float32."""
    return jnp.matmul(left, right, preferred_element_type=jnp.float32)


def exchange_rows(rows: jax.Array, mesh: Mesh) -> tuple[jax.Array, jax.Array]:
    """Of [devices, n] rows, one on each device: their sum [devices, n] and all of them [devices, devices, n], as each
    device has received them."""

    def received(row: jax.Array) -> tuple[jax.Array, jax.Array]:
        return jax.lax.psum(row, "device"), jax.lax.all_gather(row[0], "device")[None]

    spec = PartitionSpec("device")
    shared: Any = jax.shard_map(received, mesh=mesh, in_specs=spec, out_specs=(spec, spec), check_vma=False)
    return jax.jit(shared)(rows)


def check(
    *,
    share: float = SHARE,
    say: Callable[[str], None] | None = None,
    fill: Callable[[jax.Device, int, int], jax.Array] | None = None,
    product: Callable[[jax.Array, jax.Array], jax.Array] | None = None,
    exchange: Callable[[jax.Array, Mesh], tuple[jax.Array, jax.Array]] | None = None,
) -> list[str]:
    """Check this process's devices, and the exchange between those of all processes; what is wrong, one sentence each.

    Where there are several processes all of them call it. After a device of a process has failed on its own, that
    process does not take part in the exchange, and the others would wait for it: end the job.

    Args:
        share: of each device's free memory, how much is written and read.
        say: called with what is done next, such as "matmul on cuda:1 (NVIDIA H100)".
        fill: how numbers come into memory; a test's place for a fault, like the next two.
        product: how matrices are multiplied.
        exchange: how devices hear of each other.

    Returns:
        Sentences that name process, host, device and what was expected and got; [] when all is well.
    """
    say = say or (lambda what: None)
    problems = []
    for device in jax.local_devices():
        say(f"memory of {_shown(device)}")
        problems += _guarded(device, "memory", partial(_memory, device, share, fill or fill_memory))
        say(f"matmul on {_shown(device)}")
        problems += _guarded(device, "matmul", partial(_matmul, device, product or multiply))
    if not problems and jax.device_count() > 1:
        say(f"collective over {jax.device_count()} devices, here {', '.join(map(_shown, jax.local_devices()))}")
        first = jax.local_devices()[0]
        problems += _guarded(first, "collective", partial(_collective, exchange or exchange_rows))
    return problems


def _guarded(device: jax.Device, what: str, run: Callable[[], list[str]]) -> list[str]:
    """What a check found, or what the device raised meanwhile."""
    try:
        with jax.transfer_guard("allow"):
            return run()
    except jax.errors.JaxRuntimeError as error:
        return [f"{_place(device)}: the {what} check raised {str(error).splitlines()[0]}"]


def _memory(device: jax.Device, share: float, fill: Callable[[jax.Device, int, int], jax.Array]) -> list[str]:
    """Fill a part of the memory with numbers of which each byte differs between places, and add them up again."""
    stats = device.memory_stats() or {}
    if device.platform == "cpu" or "bytes_limit" not in stats:
        size = _CPU_BYTES
    else:
        size = int(share * (stats["bytes_limit"] - stats.get("bytes_in_use", 0)))
    numbers = max(1024, size // 4)
    chunks = [(start, min(_CHUNK, numbers - start)) for start in range(0, numbers, _CHUNK)]
    held = []
    try:
        held = [fill(device, start, count) for start, count in chunks]
        for (start, count), array in zip(chunks, held, strict=True):
            got = int(jnp.sum(array, dtype=jnp.uint32))
            expected = (count * start + count * (count - 1) // 2) % 2**32
            if got != expected:
                return [
                    f"{_place(device)}: memory does not keep what is written: the sum of {count} numbers from "
                    f"{start} on is {got}, expected {expected}"
                ]
    finally:
        for array in held:
            array.delete()
    return []


def _matmul(device: jax.Device, product: Callable[[jax.Array, jax.Array], jax.Array]) -> list[str]:
    """Multiply matrices of small integers, which is exact in float32 and in the formats that devices replace it by."""
    size = _CPU_SIZE if device.platform == "cpu" else _SIZE
    random = np.random.default_rng(0)
    left, right = (random.integers(-8, 9, (size, size)).astype(np.float32) for _ in range(2))
    expected = left @ right
    got = np.asarray(jax.jit(product)(jax.device_put(left, device), jax.device_put(right, device)))
    wrong = np.argwhere(got != expected)
    if not len(wrong):
        return []
    row, column = wrong[0]
    return [
        f"{_place(device)}: a product of {size} x {size} matrices is wrong in {len(wrong)} of {size * size} elements: "
        f"element [{row}, {column}] is {got[row, column]:g}, expected {expected[row, column]:g}"
    ]


def _collective(exchange: Callable[[jax.Array, Mesh], tuple[jax.Array, jax.Array]]) -> list[str]:
    """Each device sends a row of its own; each must hold their sum, and every row as it was sent."""
    devices = jax.devices()
    mesh = Mesh(np.array(devices), ("device",))
    sent = np.arange(len(devices), dtype=np.float32)[:, None] * 7 + np.arange(_SENT, dtype=np.float32) % 97
    sharding = NamedSharding(mesh, PartitionSpec("device"))
    rows = jax.make_array_from_callback(sent.shape, sharding, lambda index: sent[index])
    total, gathered = exchange(rows, mesh)
    problems = []
    for shard in gathered.addressable_shards:
        received = np.asarray(shard.data)[0]
        for number in np.flatnonzero((received != sent).any(1)):
            at = int(np.flatnonzero(received[number] != sent[number])[0])
            problems.append(
                f"{_place(shard.device)}: what {_shown(devices[number])} of process {devices[number].process_index} "
                f"sent arrived wrong: element {at} is {received[number, at]:g}, expected {sent[number, at]:g}"
            )
    for shard in total.addressable_shards:
        received = np.asarray(shard.data)[0]
        if (received != sent.sum(0)).any() and not problems:
            at = int(np.flatnonzero(received != sent.sum(0))[0])
            problems.append(
                f"{_place(shard.device)}: the sum over {len(devices)} devices is wrong: element {at} is "
                f"{received[at]:g}, expected {sent.sum(0)[at]:g}"
            )
    return problems


def _shown(device: jax.Device) -> str:
    return f"{device.platform}:{device.id} ({device.device_kind})"


def _place(device: jax.Device) -> str:
    return f"process {device.process_index} on {socket.gethostname()}, device {_shown(device)}"
