"""What makes a run this run and no other, and the difference between two of them."""

from __future__ import annotations

import dataclasses
import os
import re
import sys
import types
import zlib
from collections.abc import Mapping, Sequence
from functools import partial
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

#: Settings that follow from others: where one of those may differ, so may they.
_FOLLOWS = {"examples": ("data", "batch_size"), "steps_per_epoch": ("data", "batch_size", "feed")}

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
    by the crc32 of its paths, shapes and dtypes; a feed by its class, how it draws and what it makes of a record.
    """
    leaves = jax.tree_util.tree_leaves_with_path(program.abstract_state)
    lines = [f"{jax.tree_util.keystr(path)} {leaf.shape} {leaf.dtype}" for path, leaf in leaves]
    # what devices owe each other (compress="int8") belongs to a mesh, and a run may go on on another
    shapes = "\n".join(line for line in lines if not line.startswith(".extra['residual']"))
    config = dict(settings)
    config["batch_size"] = program.feed.batch_size
    config["examples"] = program.feed.examples
    config["steps_per_epoch"] = program.feed.steps_per_epoch
    config["feed"] = _feed(data)
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
        "processes": jax.process_count(), "cpus": os.cpu_count(),
        "parallel": None if layout.parallel is None else layout.parallel.as_dict(),
        "mesh": {axis: size for axis, size in layout.sizes.items() if size > 1},
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
        if old == new or set(_FOLLOWS.get(name, ())) & set(allow):
            continue
        if name == "hyper":
            names = sorted(set(old or {}) | set(new or {}))
            found += [f"hyper {n!r} was {(old or {}).get(n)}, is {(new or {}).get(n)}" for n in names
                      if (old or {}).get(n) != (new or {}).get(n)]  # fmt: skip
        elif name == "feed":
            found += _feeds_differ(old or {}, new or {})
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
    """Of a Dataset or a feed over one, the Dataset's; of records their number; of another feed, its device's data."""
    dataset = getattr(data, "dataset", data)
    if isinstance(dataset, Dataset):
        return dataset.fingerprint()
    return f"{_crc(data.data):08x}" if dataset is data else f"{len(dataset)} records"


def _feed(data: Any) -> dict[str, Any]:
    """What tells one feed from another beside its data and its sizes; of a Dataset, that it is one."""
    described: dict[str, Any] = {"class": type(data).__name__}
    if isinstance(data, Dataset):
        return described
    described |= {name: bool(getattr(data, name)) for name in ("shuffle", "drop_last") if hasattr(data, name)}
    transform = getattr(data, "transform", None)
    if transform is not None:
        named = transform
        while isinstance(named, partial):
            named = named.func
        described["transform"] = _name(named if hasattr(named, "__qualname__") else type(named))
        # Another Python compiles the same function to other bytes: then they prove nothing, as with jax and jaxprs.
        crc = zlib.crc32(_text(transform).encode())
        described["transform code"] = f"{sys.version_info[0]}.{sys.version_info[1]}:{crc:08x}"
    return described


def _feeds_differ(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    code = "transform code"
    found = [f"the feed's {name} was {old.get(name)}, is {new.get(name)}"
             for name in sorted((set(old) | set(new)) - {code}) if old.get(name) != new.get(name)]  # fmt: skip
    before, now = str(old.get(code)), str(new.get(code))
    if not found and before != now and before.split(":")[0] == now.split(":")[0]:
        found.append("the feed's transform has other code or other arguments")
    return found


def _name(value: Any) -> str:
    """Module and name of a function or class; of a script, the name that an import of it would have."""
    module = getattr(value, "__module__", "")
    if module == "__main__":
        main = sys.modules["__main__"]
        spec, file = getattr(main, "__spec__", None), getattr(main, "__file__", None)
        module = (
            spec.name if spec is not None else module if file is None else os.path.splitext(os.path.basename(file))[0]
        )
    return f"{module}.{value.__qualname__}"


def _text(value: Any, above: tuple[int, ...] = ()) -> str:
    """What a transform computes as far as it can be seen, the same in every process: its code and the values that it
    holds (arguments of a partial, defaults, closures, attributes); of other functions that it calls, the names."""
    if id(value) in above:
        return "itself"
    inner = partial(_text, above=(*above, id(value)))
    if value is None or isinstance(value, bool | int | float | complex | str | bytes | slice | np.generic | np.dtype):
        return repr(value)
    if isinstance(value, tuple | list):
        return f"[{','.join(map(inner, value))}]"
    if isinstance(value, set | frozenset):
        return f"{{{','.join(sorted(map(inner, value)))}}}"
    if isinstance(value, Mapping):
        return f"{{{','.join(sorted(f'{inner(name)}:{inner(each)}' for name, each in value.items()))}}}"
    if isinstance(value, partial):
        return f"partial{inner((value.func, value.args, value.keywords))}"
    if isinstance(value, types.CodeType):
        return inner((value.co_code, value.co_names, value.co_consts))
    if isinstance(value, types.FunctionType):
        cells = [_text(cell.cell_contents, (*above, id(value))) for cell in value.__closure__ or ()]
        return _name(value) + inner((value.__code__, value.__defaults__, value.__kwdefaults__, cells))
    if isinstance(value, types.MethodType):
        return inner((value.__func__, value.__self__))
    if isinstance(value, types.ModuleType):
        return value.__name__
    if hasattr(value, "__wrapped__"):  # jit, lru_cache
        return inner(value.__wrapped__)
    if hasattr(value, "__qualname__"):
        return _name(value)
    if hasattr(value, "__array__"):
        array = np.asarray(value)
        return f"{array.dtype}{array.shape}{_crc(array):08x}"
    if dataclasses.is_dataclass(value):
        held = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    else:
        held = getattr(value, "__dict__", {})
    call = type(value).__call__ if callable(value) else None
    return _name(type(value)) + inner((call if isinstance(call, types.FunctionType) else None, held))
