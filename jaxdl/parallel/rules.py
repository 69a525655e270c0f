"""From a parameter's path to its sharding: the user's rules, the model's table, and a choice for the rest."""

from __future__ import annotations

import dataclasses
import difflib
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from jax.sharding import PartitionSpec

from jaxdl.parallel.mesh import BATCH_AXES

Part = str | tuple[str, ...] | None
Table = Sequence[tuple[str, tuple[str | None, ...]]]

#: Logical axis -> mesh axes. What is not here ("embed", "classes", "channels_in") is left to the automatic choice.
MESH_AXES: Mapping[str, tuple[str, ...]] = {
    "batch": BATCH_AXES,
    "length": ("context",),
    "keys": (),
    "vocab": ("tensor",),
    "mlp": ("tensor",),
    "heads": ("tensor",),
    "kv": ("tensor",),
    "hidden": ("tensor",),
    "channels_out": ("tensor",),
    "layers": ("stage",),
    "expert": ("expert",),
}


@dataclasses.dataclass(frozen=True)
class Rules:
    """Two tables in one: where each parameter lives, and where its gradient and optimizer state do.

    Attributes:
        sizes: mesh axis -> its size.
        own: ((pattern, mesh axes), ...): the user's, which go first.
        table: ((pattern, logical axes), ...): the model's.
        shard_above: elements from which a parameter that no rule names is split over "fsdp".
        zero1: gradients and optimizer state are split over "data" and "replica", too.
    """

    sizes: Mapping[str, int]
    own: Sequence[tuple[str, tuple[Part, ...]]] = ()
    table: Table = ()
    shard_above: int = 2**16
    zero1: bool = False

    def parameter(self, path: str, shape: tuple[int, ...]) -> tuple[PartitionSpec, tuple[str, ...]]:
        """The sharding of the parameter at `path` ("dense/kernel"), and what had to be left out, as sentences.

        Raises:
            ValueError: a rule that matches names another number of dimensions than the parameter has.
        """
        parts: list[Part] = [None] * len(shape)
        notes: list[str] = []
        scanned = final = False
        named = self._named(path, shape)
        if named is not None:
            wanted, logical = named
            final = not logical  # the user's own word
            scanned = bool(logical) and logical[0] == "layers"
            for number, part in enumerate(wanted):
                axes = tuple(axis for axis in _axes(part) if self.sizes[axis] > 1)
                absent = [axis for axis in _axes(part) if final and axis not in axes]
                if absent:
                    notes.append(
                        f"{path} {list(shape)}: its rule splits dimension {number} over {' x '.join(absent)}, which "
                        "this mesh has not"
                    )
                size = math.prod(self.sizes[axis] for axis in axes)
                if axes and shape[number] % size:
                    notes.append(
                        f"{path} {list(shape)}: dimension {number} ({shape[number]}) does not divide by "
                        f"{' x '.join(axes)} ({size}): it stays whole"
                    )
                    axes = ()
                parts[number] = _part(axes)
        if not final:
            notes += self._spread(path, shape, parts, "fsdp", skip_first=scanned, least=self.shard_above)
        return PartitionSpec(*parts), tuple(notes)

    def optimizer(self, path: str, shape: tuple[int, ...]) -> tuple[PartitionSpec, tuple[str, ...]]:
        """The sharding of the gradient and the optimizer's state of the parameter at `path`."""
        spec, notes = self.parameter(path, shape)
        if not self.zero1:
            return spec, notes
        parts: list[Part] = [*spec, *[None] * (len(shape) - len(spec))]
        more: tuple[str, ...] = ()
        for axis in ("data", "replica"):
            more += self._spread(path, shape, parts, axis, skip_first=False, least=self.shard_above)
        return PartitionSpec(*parts), (*notes, *(note for note in more if note not in notes))

    def activation(self, shape: tuple[int, ...], names: Sequence[str | None], manual: Sequence[str] = ()) -> Any:
        """The PartitionSpec of an activation whose dimensions have these logical names, or None where nothing is split.

        Axes in `manual` are split by hand already. A dimension that does not divide stays open, as XLA likes. "keys"
        are positions of a sequence that every query meets: whole on each device, even where nothing else is split.

        Raises:
            ValueError: a name that is no logical axis.
        """
        parts: list[Part] = []
        for size, name in zip(shape, names, strict=True):
            if name is not None and name not in MESH_AXES and name not in ("embed", "classes", "channels_in"):
                raise ValueError(f"no logical axis is called {name!r}; they are {', '.join((*MESH_AXES, 'embed'))}")
            axes = tuple(a for a in MESH_AXES.get(name or "", ()) if self.sizes[a] > 1 and a not in manual)
            fits = size % math.prod(self.sizes[axis] for axis in axes) == 0
            parts.append(_part(axes) if fits else None)
        return PartitionSpec(*parts) if "keys" in names or any(part is not None for part in parts) else None

    def require_matches(self, paths: Sequence[str]) -> None:
        """A sentence where a rule of the user's is for none of these parameters.

        Raises:
            ValueError: no path matches its pattern; the nearest path is named.
        """
        for pattern, _ in self.own:
            if not any(re.fullmatch(pattern, path) for path in paths):
                near = difflib.get_close_matches(pattern, paths, n=1, cutoff=0.0)
                hint = f"; the nearest is {near[0]!r}" if near else ""
                raise ValueError(f"rule {pattern!r} matches no parameter as a whole{hint} ({len(paths)} parameters)")

    def _named(self, path: str, shape: tuple[int, ...]) -> tuple[tuple[Part, ...], tuple[str | None, ...]] | None:
        for pattern, parts in self.own:
            if re.fullmatch(pattern, path):
                _check(pattern, path, shape, len(parts))
                return parts, ()
        for pattern, names in self.table:
            if re.fullmatch(pattern, path):
                _check(pattern, path, shape, len(names))
                return tuple(_part(MESH_AXES.get(name or "", ())) for name in names), names
        return None

    def _spread(
        self, path: str, shape: tuple[int, ...], parts: list[Part], axis: str, *, skip_first: bool, least: int
    ) -> tuple[str, ...]:
        """Split the largest dimension that divides over `axis`, in place; says where it could not."""
        size = self.sizes[axis]
        if size == 1 or any(axis in _axes(part) for part in parts):
            return ()
        if math.prod(shape) < least:
            return (f"{path} {list(shape)} has fewer than {least} elements: whole on each device of {axis}",)

        def left(number: int) -> int:
            return shape[number] // math.prod(self.sizes[a] for a in _axes(parts[number]))

        free = [n for n in range(len(shape)) if not (skip_first and n == 0) and left(n) % size == 0]
        # a dimension that is whole is better than one that is split already, for it moves nothing
        free.sort(key=lambda n: (parts[n] is not None, -left(n), n))
        if not free:
            return (f"{path} {list(shape)}: no dimension divides by {axis}={size}, so it is whole on each device",)
        parts[free[0]] = _part((*_axes(parts[free[0]]), axis))
        return ()


def _check(pattern: str, path: str, shape: tuple[int, ...], count: int) -> None:
    if count != len(shape):
        raise ValueError(f"rule {pattern!r} names {count} dimensions, but {path} has shape {list(shape)}")


def _axes(part: Part) -> tuple[str, ...]:
    return () if part is None else (part,) if isinstance(part, str) else tuple(part)


def _part(axes: Sequence[str]) -> Part:
    return None if not axes else axes[0] if len(axes) == 1 else tuple(axes)
