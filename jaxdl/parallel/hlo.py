"""What a compiled program sends between devices, read from its text: kind, bytes, mesh axes, and how often."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np

KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")

_BITS = {"pred": 8, "s4": 4, "u4": 4, "bf16": 16, "f16": 16, "f8e4m3fn": 8, "f8e5m2": 8}


class Collective(NamedTuple):
    """One instruction that sends.

    Attributes:
        kind: one of `KINDS`.
        bytes: of its results on one device: what it delivers.
        group: how many devices take part together.
        axes: the mesh axes along which they lie; () where they are no product of axes.
        times: how often it runs in one call of the program (trip counts of the loops around it, multiplied); loops of
            unknown length count once.
        depth: how many loops are around it.
    """

    kind: str
    bytes: int
    group: int
    axes: tuple[str, ...]
    times: int
    depth: int

    @property
    def sent(self) -> float:
        """Bytes that one device sends in all its runs, by the ring algorithms: 2 b (n - 1) / n for an all-reduce,
        b (n - 1) / n for a gather or an all-to-all of result b, b (n - 1) for a reduce-scatter, b for a permute."""
        n = self.group
        share = {
            "all-reduce": 2 * (n - 1) / n,
            "all-gather": (n - 1) / n,
            "all-to-all": (n - 1) / n,
            "reduce-scatter": n - 1,
            "collective-permute": 1,
        }[self.kind]
        return self.bytes * share * self.times


def collectives(text: str, sizes: Mapping[str, int]) -> list[Collective]:
    """The collectives of a compiled program, `compiled.as_text()`, over a mesh whose axes have these sizes.

    Raises:
        ValueError: the text has no entry computation: it is no compiled HLO.
    """
    bodies, entry = _computations(text)
    if entry is None:
        raise ValueError("no ENTRY computation found: give the text of a compiled program, compiled.as_text()")
    ids = np.arange(math.prod(sizes.values())).reshape(tuple(sizes.values()))
    found: list[Collective] = []

    def walk(name: str, times: int, depth: int) -> None:
        for line in bodies.get(name, ()):
            kind = _INSTRUCTION.search(line)
            if kind is not None and not kind.group(3).endswith("-done"):
                groups = _groups(line, kind.group(3))
                start = kind.group(3).endswith("-start")
                size = _bytes(kind.group(2), last_only=start)
                group = len(groups[0]) if groups else ids.size
                axes = _axes_of(groups[0] if groups else list(range(ids.size)), ids, sizes)
                found.append(Collective(kind.group(3).removesuffix("-start"), size, group, axes, times, depth))
            for called, looped in _calls(line):
                trips = _trips(line) if looped else 1
                walk(called, times * trips, depth + looped)

    walk(entry, 1, 0)
    return [one for one in found if one.group > 1]


_INSTRUCTION = re.compile(r"^\s*(?:ROOT )?%?([\w.\-]+) = (.+?) ((?:" + "|".join(KINDS) + r")(?:-start|-done)?)\(")


def _computations(text: str) -> tuple[dict[str, list[str]], str | None]:
    bodies: dict[str, list[str]] = {}
    entry = name = None
    for line in text.splitlines():
        head = re.match(r"^(ENTRY )?%?([\w.\-]+) \(.*\{\s*$", line)
        if head is not None:
            name = head.group(2)
            bodies[name] = []
            entry = name if head.group(1) else entry
        elif line.startswith("}"):
            name = None
        elif name is not None:
            bodies[name].append(line)
    return bodies, entry


def _calls(line: str) -> Iterator[tuple[str, bool]]:
    """Computations that a line runs, and whether in a loop. Reducers are no part of what is sent."""
    body = re.search(r" while\(.*body=%?([\w.\-]+)", line)
    if body is not None:
        yield body.group(1), True
        return
    if " call(" in line or " async-start(" in line:
        for called in re.findall(r"(?:to_apply|calls)=%?([\w.\-]+)", line):
            yield called, False
    elif " conditional(" in line:
        branches = re.search(r"branch_computations=\{([^}]*)\}", line)
        names = re.findall(r"(?:true|false)_computation=%?([\w.\-]+)", line)
        for called in [part.strip().lstrip("%") for part in branches.group(1).split(",")] if branches else names:
            yield called, False


def _trips(line: str) -> int:
    count = re.search(r'"known_trip_count":\{"n":"(\d+)"', line)
    return int(count.group(1)) if count else 1


def _bytes(shapes: str, *, last_only: bool) -> int:
    """Bytes of "f32[8,10]{1,0}" or of a tuple of such; an asynchronous start has its operands before its results."""
    sizes = []
    for dtype, dims in re.findall(r"(\w+)\[([\d,]*)\]", shapes):
        bits = _BITS.get(dtype) or int(re.sub(r"\D", "", dtype) or 0)
        sizes.append(math.prod(int(d) for d in dims.split(",") if d) * bits // 8)
    if last_only and len(sizes) > 1:
        sizes = sizes[len(sizes) // 2 :]
    return sum(sizes)


def _groups(line: str, kind: str) -> list[list[int]]:
    """The groups of devices that an instruction names; [] for "all together"."""
    if kind.startswith("collective-permute"):
        pairs = re.search(r"source_target_pairs=\{(.*?)\}\}", line)
        if pairs is None:
            return []
        edges = {int(a): int(b) for a, b in re.findall(r"(\d+),(\d+)", pairs.group(1))}
        cycles = []
        for first in sorted(edges):
            chain, at = [first], edges[first]
            while at in edges and at not in chain:
                chain.append(at)
                at = edges[at]
            cycles.append(sorted({*chain, at}))
        return [max(cycles, key=len)] if cycles else []
    explicit = re.search(r"replica_groups=\{(\{.*?\})\}", line)
    if explicit is not None:
        return [[int(n) for n in group.split(",")] for group in re.findall(r"\{([\d,]+)\}", explicit.group(1))]
    tiled = re.search(r"replica_groups=\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?", line)
    if tiled is not None:
        shape, dims = ([int(n) for n in tiled.group(i).split(",")] for i in (1, 2))
        ids = np.arange(math.prod(dims)).reshape(dims)
        if tiled.group(3):
            ids = ids.transpose([int(n) for n in tiled.group(3).split(",")])
        return ids.reshape(shape).tolist()
    named = re.search(r"replica_groups=mesh\[(.*?)\]\s*\{(.*?)\}", line)
    if named is not None:
        sizes = {name: int(size) for name, size in re.findall(r"'(\w+)'=(\d+)", named.group(1))}
        axes = re.findall(r"'(\w+)'", named.group(2))
        order = [name for name in sizes if name not in axes] + axes
        ids = np.arange(math.prod(sizes.values())).reshape(tuple(sizes.values()))
        ids = ids.transpose([list(sizes).index(name) for name in order])
        return ids.reshape(-1, math.prod(sizes[name] for name in axes)).tolist()
    return []


def _axes_of(group: list[int], ids: np.ndarray, sizes: Mapping[str, int]) -> tuple[str, ...]:
    """The axes whose product these devices are, or () where they are none."""
    places = np.array([np.unravel_index(number, ids.shape) for number in group])
    varying = [number for number in range(places.shape[1]) if len(set(places[:, number])) > 1]
    names = list(sizes)
    whole = math.prod(sizes[names[number]] for number in varying) == len(group)
    return tuple(names[number] for number in varying) if whole else ()
