"""The leaves of a pytree by name: paths, host copies, and which leaf of a checkpoint belongs to which of a tree."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

PyTree = Any
PathMap = Mapping[str, str | None] | Sequence[tuple[str, str]]


class Assignment(NamedTuple):
    """Which stored leaf goes where. The values of `left` and `new` say why."""

    loaded: dict[str, str]  # path in the tree -> path in the checkpoint
    left: dict[str, str]  # path in the checkpoint -> reason
    new: dict[str, str]  # path in the tree -> reason


def named_leaves(tree: PyTree, *, abstract: bool = False) -> dict[str, Any]:
    """The leaves of a tree by path, as in `params/Dense_0/kernel`, in the order of `jax.tree.leaves`.

    Args:
        tree: leaves are jax or NumPy arrays; with `abstract=True` also `jax.ShapeDtypeStruct`.

    Raises:
        TypeError: a leaf is no array (a Python number, a string, a typed key); its path is named.
        ValueError: two leaves have one path, or an array was donated and is gone.
    """
    named: dict[str, Any] = {}
    for keys, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        path = jax.tree_util.keystr(keys, simple=True, separator="/") or "."
        if path in named:
            raise ValueError(f"two leaves of the tree have the path {path!r}: a key holds a '/'; rename it")
        if not isinstance(leaf, jax.Array | np.ndarray | np.generic) and not (
            abstract and isinstance(leaf, jax.ShapeDtypeStruct)
        ):
            raise TypeError(
                f"the leaf {path!r} is a {type(leaf).__name__} ({leaf!r:.60}): a checkpoint holds arrays; "
                "wrap a number as jnp.asarray(number, dtype)"
            )
        if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.extended) or leaf.dtype.kind in "OSUMm":
            raise TypeError(
                f"the leaf {path!r} has dtype {leaf.dtype}, which has no plain bits to store; "
                "a typed key is stored as jax.random.key_data(key)"
            )
        if isinstance(leaf, jax.Array) and leaf.is_deleted():
            raise ValueError(
                f"the leaf {path!r} was donated and its memory is gone: save before the next step, not after"
            )
        named[path] = leaf
    return named


def on_host(leaf: Any) -> bool:
    """Whether a leaf lies in host memory: a NumPy array, or a jax array on CPU devices or offloaded from others."""
    if not isinstance(leaf, jax.Array) or leaf.sharding.memory_kind in ("pinned_host", "unpinned_host"):
        return True
    return all(device.platform == "cpu" for device in leaf.devices())


def host_copy(leaf: Any, room: np.ndarray | None = None) -> np.ndarray:
    """A copy in memory of its own: a live view (`jax.device_get`, `np.asarray`) silently disables donation.

    The download is meant, so a caller's guard against hidden ones does not apply.

    Args:
        room: memory for it, which is used if shape and dtype are right: what it needs is there already.
    """
    with jax.transfer_guard_device_to_host("allow"):
        if room is None or (room.shape, room.dtype) != (leaf.shape, leaf.dtype):
            return np.array(leaf, copy=True)
        np.copyto(room, np.asarray(leaf))
        return room


def assign(like: Mapping[str, Any], stored: Mapping[str, Any], *, path_map: PathMap | None = None) -> Assignment:
    """Match the leaves of `like` with those of a checkpoint, by path, shape and dtype.

    Args:
        like: path -> anything with shape and dtype, what is wanted.
        stored: path -> anything with shape and dtype, what the checkpoint holds.
        path_map: wanted path -> stored path, where a key or value may also be a whole folder (`params/encoder`) and
            the value None keeps what `like` holds; or pairs (regular expression, replacement), tried in order on the
            wanted path.
    """
    sources = _sources(like, stored, path_map)
    loaded: dict[str, str] = {}
    new: dict[str, str] = {}
    for path, source in sources.items():
        if source is None:
            new[path] = "kept, as path_map says"
        elif source not in stored:
            new[path] = "not in the checkpoint" + ("" if source == path else f" (looked for {source!r})")
        else:
            difference = _difference(like[path], stored[source])
            if difference:
                new[path] = difference
            else:
                loaded[path] = source
    used = set(loaded.values())
    refused = {source: new[path] for path, source in sources.items() if source in stored and path in new}
    left = {path: refused.get(path, "not in the tree") for path in stored if path not in used}
    return Assignment(loaded, left, new)


def require_complete(assignment: Assignment, *, where: str) -> None:
    """Refuse an assignment that is not one to one, with up to eight paths named.

    Raises:
        ValueError: a leaf is missing, surplus, or has another shape or dtype.
    """
    differing = [
        f"{path}: {why}" for path, why in assignment.new.items() if not why.startswith("not in the checkpoint")
    ]
    missing = [path for path, why in assignment.new.items() if why.startswith("not in the checkpoint")]
    surplus = [path for path, why in assignment.left.items() if why == "not in the tree"]
    parts = []
    for title, paths in (
        ("other shape or dtype", differing),
        ("missing in the checkpoint", missing),
        ("surplus in it", surplus),
    ):
        if paths:
            more = f" and {len(paths) - 8} more" if len(paths) > 8 else ""
            parts.append(f"{title}: {', '.join(paths[:8])}{more}")
    if missing and surplus:
        nearest = difflib.get_close_matches(missing[0], surplus, 1, 0.5)
        if nearest:
            parts.append(
                f"is {nearest[0]!r} the old name of {missing[0]!r}? path_map={{{missing[0]!r}: {nearest[0]!r}}}"
            )
    if parts:
        raise ValueError(
            f"{where} does not fit the tree that is to be restored: {'; '.join(parts)}. "
            "strict=False takes what fits and lists the rest"
        )


def place(array: np.ndarray, like: Any) -> Any:
    """Put a host array where `like` lies: on its sharding, or committed to the default device.

    A 64-bit array with x64 off stays a NumPy array: jax would narrow it.
    """
    if jax.dtypes.canonicalize_dtype(array.dtype) != array.dtype:
        return array
    sharding = getattr(like, "sharding", None)
    if sharding is None:
        device = jax.config.jax_default_device  # type: ignore[attr-defined]
        sharding = device if isinstance(device, jax.Device) else jax.local_devices(backend=device)[0]
    return jax.device_put(array, sharding)


def nearest(name: str, known: Iterable[str]) -> str:
    """`; the nearest is 'x'`, or nothing."""
    close = difflib.get_close_matches(name, list(known), 1, 0.4)
    return f"; the nearest is {close[0]!r}" if close else ""


def _difference(wanted: Any, stored: Any) -> str:
    if tuple(wanted.shape) != tuple(stored.shape):
        return f"shape {list(stored.shape)} in the checkpoint, {list(wanted.shape)} wanted"
    if np.dtype(wanted.dtype) != np.dtype(stored.dtype):
        return f"dtype {np.dtype(stored.dtype).name} in the checkpoint, {np.dtype(wanted.dtype).name} wanted"
    return ""


def _sources(like: Mapping[str, Any], stored: Mapping[str, Any], path_map: PathMap | None) -> dict[str, str | None]:
    """Wanted path -> the stored path to look for; None where the map keeps what `like` holds."""
    if path_map is None:
        return {path: path for path in like}
    if not isinstance(path_map, Mapping):
        rules = [(re.compile(pattern), replacement) for pattern, replacement in path_map]
        unused = [pattern.pattern for pattern, _ in rules if not any(pattern.search(path) for path in like)]
        if unused:
            raise ValueError(
                f"path_map: {unused[0]!r} matches no path of the tree, such as {next(iter(like), '(none)')!r}"
            )
        sources: dict[str, str | None] = {}
        for path in like:
            rule = next(((pattern, to) for pattern, to in rules if pattern.search(path)), None)
            sources[path] = rule[0].sub(rule[1], path, count=1) if rule else path
        return sources
    for key, value in path_map.items():
        if not any(_below(path, key) for path in like):
            raise ValueError(f"path_map: the tree has no path {key!r}{nearest(key, like)}")
        if value is not None and not any(_below(path, value) for path in stored):
            raise ValueError(f"path_map: the checkpoint has no path {value!r}{nearest(value, stored)}")
    sources = {}
    for path in like:
        longest = max((key for key in path_map if _below(path, key)), key=len, default=None)
        if longest is None:
            sources[path] = path
        else:
            value = path_map[longest]
            sources[path] = None if value is None else value + path[len(longest) :]
    return sources


def _below(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder + "/")
