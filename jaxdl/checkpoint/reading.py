"""A checkpoint read: every bit of it checked, each process only what its devices need."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import jax
import numpy as np
from jax.sharding import SingleDeviceSharding

from jaxdl.checkpoint import commit
from jaxdl.checkpoint.arrays import read_arrays
from jaxdl.checkpoint.fingerprint import Fingerprint, host_sum, start_fingerprint
from jaxdl.checkpoint.leaves import PathMap, assign, host_copy, place, require_complete
from jaxdl.checkpoint.manifest import CorruptCheckpoint, StoredLeaf, file_problems, read_manifest, stored_leaves
from jaxdl.checkpoint.pieces import read_pieces
from jaxdl.checkpoint.sentences import reason
from jaxdl.checkpoint.shards import Region, region_of, spread, whole
from jaxdl.checkpoint.together import agreed
from jaxdl.parallel import processes

PyTree = Any
_Found = TypeVar("_Found")
_AT_ONCE = 1 << 29  # bytes of whole leaves that each of several processes holds while it takes what it needs of them


class Restored(NamedTuple):
    """What `Store.restore` gives back.

    Attributes:
        step: the step of the checkpoint that was read.
        tree: `like` with its leaves replaced.
        manifest: the whole manifest; what `save` was handed is under "configuration".
        notes: sentences on what was not as expected, such as a corrupt checkpoint that was passed over.
        loaded: path in the tree -> path in the checkpoint.
        left: path in the checkpoint that went nowhere -> the reason.
        new: path in the tree that kept the value in `like` -> the reason.
    """

    step: int
    tree: PyTree
    manifest: dict[str, Any]
    notes: tuple[str, ...]
    loaded: dict[str, str]
    left: dict[str, str]
    new: dict[str, str]


def read_checkpoint(
    checkpoint: Path,
    step: int,
    like: PyTree,
    wanted: dict[str, Any],
    *,
    strict: bool,
    path_map: PathMap | None,
    notes: tuple[str, ...],
    shared: bool,
) -> Restored:
    """One checkpoint in the form of `like`, whose leaves by path are `wanted`.

    Args:
        shared: all processes read it together: they deal out the files to check, and succeed or fail alike.

    Raises:
        CorruptCheckpoint: a file, a leaf or a fingerprint is not what was saved. ValueError: it is of another tree.
    """

    def together(work: Callable[[], _Found]) -> _Found:
        return agreed(work) if shared else work()

    def read() -> tuple[dict[str, Any], Any, dict[str, StoredLeaf], dict[str, Any]]:
        record = read_manifest(checkpoint, step=step)
        stored = stored_leaves(record)
        matched = assign(wanted, stored, path_map=path_map)
        if strict:
            require_complete(matched, where=f"the checkpoint of step {step} in {checkpoint.parent}")
        for path, why in matched.new.items():
            if isinstance(wanted[path], jax.ShapeDtypeStruct):
                raise ValueError(
                    f"the leaf {path!r} does not come from the checkpoint of step {step} ({why}), and `like` holds "
                    "only its shape: hand a tree of real arrays to strict=False"
                )
        damaged = file_problems(checkpoint, record, strangers=False, **_share(shared))
        if damaged:
            raise CorruptCheckpoint(f"step {step} is corrupt ({'; '.join(damaged[:4])})")
        return record, matched, stored, _leaves(checkpoint, step, stored, wanted, matched.loaded)

    record, matched, stored, leaves = together(read)
    marks = start_fingerprint({path: leaves[path] for path in matched.loaded}).collect()

    def check() -> None:
        wrong = mark_problems(step, marks, {path: stored[source] for path, source in matched.loaded.items()})
        if wrong:
            raise CorruptCheckpoint("; ".join(wrong[:4]))

    together(check)
    tree = jax.tree.unflatten(jax.tree.structure(like), [leaves[path] for path in wanted])
    return Restored(step, tree, record, notes, matched.loaded, matched.left, matched.new)


def problems_of(checkpoint: Path, step: int, *, shared: bool) -> list[str]:
    """What is wrong with a checkpoint: files that differ or do not belong, then shapes, dtypes and fingerprints.

    Args:
        shared: this process looks at its share only; what any of them finds is returned on all.
    """
    share = _share(shared)

    def everyones(problems: list[str]) -> list[str]:
        texts = processes.gather_texts("\n".join(problems)) if shared else ["\n".join(problems)]
        return list(dict.fromkeys(line for text in texts for line in text.splitlines()))

    def of_files() -> list[str]:
        return file_problems(checkpoint, read_manifest(checkpoint, step=step), strangers=share["reader"] == 0, **share)

    def of_leaves() -> list[str]:
        stored = stored_leaves(read_manifest(checkpoint, step=step))
        mine = dict(list(stored.items())[share["reader"] :: share["readers"]])
        regions = {path: [whole(leaf.shape)] for path, leaf in mine.items()}
        sums = {
            path: host_sum(arrays[whole(stored[path].shape)])
            for path, arrays in _regions(checkpoint, step, mine, regions)
        }
        return mark_problems(step, Fingerprint(0, sums), mine)

    found: list[str] = []
    for look in (of_files, of_leaves):
        if not found:
            try:
                found = look()
            except CorruptCheckpoint as error:
                found = [str(error)]
            found = everyones(found)
    return [problem if problem.startswith(f"step {step} ") else f"step {step}: {problem}" for problem in found]


def mark_problems(step: int, marks: Fingerprint, stored: Mapping[str, StoredLeaf]) -> list[str]:
    """Which leaves have another fingerprint than the manifest says."""
    return [
        f"step {step} is corrupt ({path} has fingerprint {marks.leaves[path]:08x}, "
        f"the manifest says {leaf.fingerprint:08x})"
        for path, leaf in stored.items()
        if marks.leaves[path] != leaf.fingerprint
    ]


def _share(shared: bool) -> dict[str, int]:
    return {"reader": jax.process_index(), "readers": jax.process_count()} if shared else {"reader": 0, "readers": 1}


def _leaves(
    checkpoint: Path, step: int, stored: Mapping[str, StoredLeaf], wanted: Mapping[str, Any], loaded: Mapping[str, str]
) -> dict[str, Any]:
    """The leaves by path in the tree: those that are loaded from the checkpoint, and copies of the others."""
    leaves = {path: _kept(leaf) for path, leaf in wanted.items() if path not in loaded}
    users: dict[str, list[str]] = {}
    regions: dict[str, dict[Region, None]] = {}
    for path, source in loaded.items():
        users.setdefault(source, []).append(path)
        regions.setdefault(source, {}).update(dict.fromkeys(_needed(wanted[path])))
    needed = {source: list(each) for source, each in regions.items()}
    for source, arrays in _regions(checkpoint, step, {source: stored[source] for source in users}, needed):
        # A jax array may share its NumPy array's memory and be donated: each gets memory that nobody else holds.
        taken: set[Region] = set()
        for path in users[source]:
            leaves[path] = _placed(arrays, wanted[path], taken)
    return leaves


def _needed(leaf: Any) -> list[Region]:
    """What this process must read for a leaf: the regions of its devices, or all where the leaf is its own."""
    shape = tuple(leaf.shape)
    if not _in_regions(leaf):
        return [whole(shape)]
    indices = leaf.sharding.addressable_devices_indices_map(shape).values()
    return list(dict.fromkeys(region_of(index, shape) for index in indices))


def _in_regions(leaf: Any) -> bool:
    return spread(leaf) and jax.dtypes.canonicalize_dtype(leaf.dtype) == leaf.dtype


def _placed(arrays: Mapping[Region, np.ndarray], like: Any, taken: set[Region]) -> Any:
    """The regions that were read as a leaf where `like` lies; `taken` are those whose memory belongs to a leaf."""

    def take(region: Region) -> np.ndarray:
        array = arrays[region].copy() if region in taken else arrays[region]
        taken.add(region)
        return array

    shape = tuple(like.shape)
    if not _in_regions(like):
        return place(take(whole(shape)), None if spread(like) else like)
    return _assembled(like, lambda device, index: take(region_of(index, shape)))


def _kept(leaf: Any) -> Any:
    """A copy of a leaf, where it lies."""
    if not spread(leaf):
        return place(host_copy(leaf), leaf)
    shards = {shard.device: shard.data for shard in leaf.addressable_shards}
    return _assembled(leaf, lambda device, _: host_copy(shards[device]))


def _assembled(like: Any, take: Callable[[jax.Device, tuple[slice, ...]], np.ndarray]) -> jax.Array:
    """A leaf of several processes from what this one's devices are to hold."""
    sharding, shape = like.sharding, tuple(like.shape)
    shards = [
        jax.device_put(take(device, index), SingleDeviceSharding(device, memory_kind=sharding.memory_kind))
        for device, index in sharding.addressable_devices_indices_map(shape).items()
    ]
    return jax.make_array_from_single_device_arrays(shape, sharding, shards, dtype=np.dtype(like.dtype))


def _regions(
    checkpoint: Path, step: int, stored: Mapping[str, StoredLeaf], wanted: Mapping[str, list[Region]]
) -> Iterator[tuple[str, dict[Region, np.ndarray]]]:
    """The wanted regions of stored leaves, leaf by leaf, each in memory that nobody else holds."""
    for path, leaf in stored.items():
        if leaf.pieces is not None or 0 in leaf.shape:
            try:
                found = read_pieces(checkpoint, {path: leaf}, {path: wanted[path]})
            except (CorruptCheckpoint, OSError) as error:
                why = str(error) if isinstance(error, CorruptCheckpoint) else reason(error)
                raise CorruptCheckpoint(f"step {step} is corrupt ({why})") from error
            yield path, found[path]
    orbax = {path: leaf for path, leaf in stored.items() if leaf.pieces is None and 0 not in leaf.shape}
    for batch in _batches(orbax):
        arrays = _arrays(checkpoint, step, batch)
        for path in batch:
            array = arrays.pop(path)
            yield path, {region: _part(array, region) for region in wanted[path]}


def _part(array: np.ndarray, region: Region) -> np.ndarray:
    if region == whole(array.shape):
        return array
    return array[tuple(slice(start, stop) for start, stop in region)].copy()


def _batches(stored: Mapping[str, StoredLeaf]) -> Iterator[dict[str, StoredLeaf]]:
    """All leaves at once, which is fastest; in several processes, which may not have room for all, few at a time."""
    batch: dict[str, StoredLeaf] = {}
    size = 0
    for path, leaf in stored.items():
        batch[path] = leaf
        size += int(np.prod(leaf.shape)) * leaf.dtype.itemsize
        if size > _AT_ONCE and processes.several():
            yield batch
            batch, size = {}, 0
    if batch:
        yield batch


def _arrays(checkpoint: Path, step: int, stored: Mapping[str, StoredLeaf]) -> dict[str, np.ndarray]:
    """Read whole arrays through Orbax and hold them against the manifest's shapes and dtypes."""
    folder = checkpoint / commit.ARRAYS
    try:
        arrays = read_arrays(folder, {path: leaf.dtype for path, leaf in stored.items()})
    except Exception as error:  # Orbax raises what it likes; all of it means that the bytes do not decode
        raise CorruptCheckpoint(f"step {step} is corrupt ({folder} does not decode: {reason(error)})") from error
    for path, leaf in stored.items():
        if (arrays[path].shape, arrays[path].dtype) != (leaf.shape, leaf.dtype):
            raise CorruptCheckpoint(
                f"step {step} is corrupt ({path} is stored as {arrays[path].dtype} {list(arrays[path].shape)}, "
                f"the manifest says {leaf.dtype} {list(leaf.shape)})"
            )
    return arrays
