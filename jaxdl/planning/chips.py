"""Chips and their links, as their makers' pages have them: the assumptions of an estimate, not measurements."""

from __future__ import annotations

import difflib
from typing import NamedTuple


class Chip(NamedTuple):
    """One device and what connects it.

    Attributes:
        name: for people.
        flops: of dense products a second, bfloat16.
        flops32: the same for float32 arrays at jax's default precision (TF32 on GPUs, one pass of bfloat16 on TPUs).
        memory: bytes.
        bandwidth: bytes a second of that memory.
        inside: bytes a second that a device sends to others of its node (or pod), in one direction.
        node: devices of a node (or pod).
        outside: bytes a second and device between nodes.
        source: where the figures are from.
    """

    name: str
    flops: float
    flops32: float
    memory: float
    bandwidth: float
    inside: float
    node: int
    outside: float
    source: str

    def link(self, span: int) -> float:
        """Bytes a second of a ring over devices that lie within `span` consecutive ones."""
        return self.inside if span <= self.node else self.outside


_NVIDIA = "NVIDIA's data sheet (SXM, without sparsity); NVLink in one direction; outside: one network card a GPU of "
_GOOGLE = "Google Cloud's TPU pages and 'How to Scale Your Model' (2025): one axis of the torus, both ways round"

CHIPS = {
    "h100": Chip("NVIDIA H100", 989e12, 495e12, 80e9, 3.35e12, 450e9, 8, 50e9, _NVIDIA + "400 Gbit/s"),
    "h200": Chip("NVIDIA H200", 989e12, 495e12, 141e9, 4.8e12, 450e9, 8, 50e9, _NVIDIA + "400 Gbit/s"),
    "a100": Chip("NVIDIA A100 80 GB", 312e12, 156e12, 80e9, 2.04e12, 300e9, 8, 25e9, _NVIDIA + "200 Gbit/s"),
    "v5e": Chip("TPU v5e", 197e12, 197e12, 16e9, 8.1e11, 90e9, 256, 3.1e9, _GOOGLE),
    "v5p": Chip("TPU v5p", 459e12, 459e12, 95e9, 2.8e12, 180e9, 8960, 6.2e9, _GOOGLE),
    "v6e": Chip("TPU v6e", 918e12, 918e12, 32e9, 1.6e12, 180e9, 256, 12.5e9, _GOOGLE),
}


def chip_named(name: str) -> Chip:
    """The chip of that name.

    Raises:
        ValueError: there is none; the nearest is named.
    """
    if name.lower() not in CHIPS:
        near = difflib.get_close_matches(name.lower(), CHIPS, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"device={name!r} is not known{hint} (they are {', '.join(CHIPS)})")
    return CHIPS[name.lower()]
