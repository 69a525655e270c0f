"""What makes a run this run and no other, and the difference between two of them."""

from __future__ import annotations

import os
import re
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from jaxdl.core.program import Program
from jaxdl.data import Dataset, as_dataset
from jaxdl.parallel import Layout

#: Settings that do not change what has been learnt so far, and so may differ when a run goes on.
_FREE = {"epochs", "steps", "metrics", "optimizer", "parameters"}

#: Settings that may be allowed to differ and leave the update's jaxpr as it is: with them, it is still compared.
_OUTSIDE_UPDATE = {"seed", "shuffle", "start", "validation"}

#: What each name of a configuration means to a person.
_MEANING = {
    "data": "the training data",
    "validation": "the validation data",
    "program": "what task and optimizer compute",
    "state": "the model's parameters or the optimizer's state",
    "start": "the values that training starts from (start=)",
}


def configuration(
    program: Program, *, data: Any, validation: Any, optimizer: Any, start: Any, fingerprints: bool, **settings: Any
) -> dict[str, Any]:
    """What makes a run this run and no other: plain values, for config.json, the manifest and the comparison.

    Data are named by their fingerprint, the computation by the crc32 of the update's jaxpr and its constants, the state
    by the crc32 of its paths, shapes and dtypes.
    """
    leaves = jax.tree_util.tree_leaves_with_path(program.abstract_state)
    shapes = "\n".join(f"{jax.tree_util.keystr(path)} {leaf.shape} {leaf.dtype}" for path, leaf in leaves)
    config = dict(settings)
    config["batch_size"] = program.feed.batch_size
    config["examples"] = program.feed.examples
    config["hyper"] = dict(program.hyper)
    config["optimizer"] = getattr(optimizer, "name", None) or ("adam" if optimizer is None else "optax transformation")
    config["parameters"] = sum(
        int(np.prod(x.shape, dtype=np.int64)) for x in jax.tree.leaves(program.abstract_state.params)
    )
    config["state"] = f"{zlib.crc32(shapes.encode()):08x}"
    if fingerprints:
        config["data"] = _fingerprint(data)
        config["validation"] = None if validation is None else _fingerprint(as_dataset(validation))
        text = re.sub(r"0x[0-9a-f]+", "", program.jaxpr_text)
        config["program"] = f"{jax.__version__}:{_crc(program.constants, zlib.crc32(text.encode())):08x}"
        config["start"] = None if start is None else f"{_crc(start):08x}"
    return config


def environment(layout: Layout) -> dict[str, Any]:
    """What equal bits need: jax version, device kind, processor count. Beside it, the versions of what computes."""
    import flax
    import optax

    return {
        "jax": jax.__version__, "flax": flax.__version__, "optax": optax.__version__, "numpy": np.__version__,
        "backend": jax.default_backend(), "device": layout.device.device_kind, "devices": layout.mesh.size,
        "cpus": os.cpu_count(),
    }  # fmt: skip


def differences(saved: Mapping[str, Any], config: Mapping[str, Any], allow: Sequence[str] = ()) -> list[str]:
    """What is different between two configurations, as sentences; what `allow` names may be.

    Raises:
        ValueError: `allow` has a name that no configuration has.
    """
    unknown = sorted(set(allow) - set(config))
    if unknown:
        raise ValueError(f"Checkpoint(allow={tuple(allow)}): no setting is called {unknown[0]!r}; they are "
                         f"{', '.join(sorted(set(config) - _FREE))}")  # fmt: skip
    found = []
    for name in sorted((set(saved) | set(config)) - _FREE - set(allow) - {"program"}):
        old, new = saved.get(name), config.get(name)
        if old == new or (name == "examples" and {"data", "batch_size"} & set(allow)):
            continue
        if name == "hyper":
            names = sorted(set(old or {}) | set(new or {}))
            found += [f"hyper {n!r} was {(old or {}).get(n)}, is {(new or {}).get(n)}" for n in names
                      if (old or {}).get(n) != (new or {}).get(n)]  # fmt: skip
        elif name in _MEANING:
            found.append(f"{_MEANING[name]} differ")
        else:
            found.append(f"{name} was {old!r}, is {new!r}")
    # Another jax prints another jaxpr for the same computation, and so do other shapes: then it proves nothing.
    old, new = str(saved.get("program")), str(config.get("program"))
    other_update = {name for name in allow if saved.get(name) != config.get(name)} - _OUTSIDE_UPDATE
    if not found and not other_update and old != new and old.split(":")[0] == new.split(":")[0]:
        found.append(f"{_MEANING['program']} differs (another model option, loss, optimizer or schedule)")
    return found


def _crc(tree: Any, crc: int = 0) -> int:
    """crc32 of the bytes of all leaves."""
    for leaf in jax.tree.leaves(tree):
        crc = zlib.crc32(np.ascontiguousarray(leaf).tobytes(), crc)
    return crc


def _fingerprint(data: Any) -> str:
    dataset = getattr(data, "dataset", data)
    kind = "" if isinstance(data, Dataset) else f"{type(data).__name__}:"
    if isinstance(dataset, Dataset):
        return kind + dataset.fingerprint()
    return f"{kind}{len(dataset)} records"
