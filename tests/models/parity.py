"""Fixtures of peers: names and shapes of weights that `drawn_state` draws, and the outputs that the peer gave."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

FIXTURES = pathlib.Path(__file__).resolve().parents[1] / "fixtures"


class Case(NamedTuple):
    """One peer.

    Attributes:
        shapes: name of each weight -> its shape, in the peer's order.
        images: shape of the input, [batch, height, width, channels], drawn by `drawn_input`.
        outputs: name -> the peer's output, float32.
    """

    shapes: Mapping[str, tuple[int, ...]]
    images: tuple[int, ...]
    outputs: Mapping[str, np.ndarray]


def write_cases(path: pathlib.Path, cases: Mapping[str, Case]) -> None:
    """Keep cases in one `.npz`."""
    arrays: dict[str, np.ndarray] = {}
    for name, case in cases.items():
        arrays[f"{name}/peer"] = np.asarray(json.dumps({"shapes": dict(case.shapes), "images": case.images}))
        arrays |= {f"{name}/outputs/{key}": value.astype(np.float32) for key, value in case.outputs.items()}
    np.savez_compressed(path, **arrays)


def read_cases(file: str) -> dict[str, Case]:
    """The cases of `tests/fixtures/<file>` by name."""
    with np.load(FIXTURES / file) as arrays:
        found = {key.split("/")[0]: json.loads(str(arrays[key])) for key in arrays.files if key.endswith("/peer")}
        return {
            name: Case(
                {key: tuple(shape) for key, shape in peer["shapes"].items()},
                tuple(peer["images"]),
                {key.split("/")[2]: arrays[key] for key in arrays.files if key.startswith(f"{name}/outputs/")},
            )
            for name, peer in found.items()
        }


def relative_difference(ours: np.ndarray, theirs: np.ndarray) -> float:
    """max |ours - theirs| / max |theirs|; correct conversions are below 1e-5, the tests allow 1e-4."""
    return float(np.abs(np.asarray(ours, np.float64) - theirs).max() / np.abs(theirs).max())
