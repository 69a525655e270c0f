"""What a plan needs of a training: its task, its optimizer and the shape of one example. No weights, no data."""

from __future__ import annotations

import dataclasses
import difflib
import math
import runpy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxdl.core.gradient import gradient_step
from jaxdl.core.step import Step
from jaxdl.core.transform import accumulate
from jaxdl.parallel import AXES, Parallel
from jaxdl.parallel.bytes import one_process

#: Virtual devices that one process of XLA:CPU can have.
MOST_DEVICES = 2048


@dataclasses.dataclass(frozen=True, kw_only=True)
class Parts:
    """What `program_parts()` of a script returns.

    Attributes:
        task: as fit takes it.
        optimizer: as fit takes it.
        example: column -> (shape of one example, dtype): {"x": ((28, 28, 1), "uint8"), "y": ((), "int32")}.
        batch_size: of the whole step, over all devices.
        accumulate: microbatches of a step.
        precision: "float32" or "bf16".
    """

    task: Any
    optimizer: Any
    example: Mapping[str, tuple[tuple[int, ...], str]]
    batch_size: int
    accumulate: int = 1
    precision: str = "float32"

    @property
    def step(self) -> Step:
        """The step that fit would compile."""
        return accumulate(gradient_step(self.task, self.optimizer, precision=self.precision), self.accumulate)


class ShapesOnly:
    """A feed of one batch that is not there: views of a single zero, which a planned Layout turns into shapes."""

    data: Mapping[str, Any] = {}
    steps_per_epoch = 1

    def __init__(self, example: Mapping[str, tuple[tuple[int, ...], str]], batch_size: int):
        self.examples = self.batch_size = batch_size
        self._columns = dict(example) | {"weight": ((), "float32")}

    def block(self, seed: int, step: int, count: int) -> dict[str, np.ndarray]:
        """[count, batch, ...] of each column."""
        return {
            name: np.broadcast_to(np.zeros((), dtype), (count, self.batch_size, *shape))
            for name, (shape, dtype) in self._columns.items()
        }

    def take(self, data: Any, item: dict[str, jax.Array]) -> dict[str, jax.Array]:
        """A row of a block is a batch."""
        return item


def parts_of(script: str | Path) -> Parts:
    """What `program_parts()` of the script returns. The script runs, but not as "__main__".

    Raises:
        FileNotFoundError: no such file.
        ValueError: it does not define the function.
        TypeError: the function returns something else.
    """
    path = Path(script)
    if not path.is_file():
        raise FileNotFoundError(f"no script {str(script)!r}: name a Python file that defines program_parts()")
    names = runpy.run_path(str(path), run_name="jaxdl_plan")
    if not callable(names.get("program_parts")):
        raise ValueError(
            f"{script} defines no program_parts(): let it return jaxdl.planning.Parts(task=..., optimizer=..., "
            'example={"x": ((64,), "float32"), ...}, batch_size=...)'
        )
    found = names["program_parts"]()
    if not isinstance(found, Parts):
        raise TypeError(f"program_parts() of {script} returns a {type(found).__name__}, not a jaxdl.planning.Parts")
    return found


def parallel_from(text: str) -> Parallel:
    """What `--parallel` says: "fsdp", "fsdp=64,tensor=8", "mics,group=8", "fsdp,remat=full".

    Raises:
        ValueError: an unknown word, or a value of another kind.
    """
    known = {field.name: field for field in dataclasses.fields(Parallel) if field.name not in ("preset", "rules")}
    options: dict[str, Any] = {}
    preset = None
    for word in filter(None, (part.strip() for part in text.split(","))):
        name, equals, value = word.partition("=")
        if not equals:
            if preset is not None:
                raise ValueError(f"--parallel {text}: {preset!r} and {word!r} are two presets: name one")
            preset = word
        elif name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"--parallel {text}: no option is called {name!r}{hint} ({', '.join(known)})")
        elif name in ("remat", "compress", "offload", "context_strategy"):
            options[name] = value
        elif name == "zero1":
            if value.lower() not in ("true", "false"):
                raise ValueError(f"--parallel {text}: zero1 is true or false, not {value!r}")
            options[name] = value.lower() == "true"
        else:
            try:
                options[name] = int(value)
            except ValueError:
                raise ValueError(f"--parallel {text}: {name} is a whole number, not {value!r}") from None
    return Parallel(preset, **options)


def resolved(parallel: Parallel, devices: int, node: int) -> Parallel:
    """The same with a size for each axis, and no preset: a group of mics is a node.

    Raises:
        ValueError: the sizes do not multiply to the number of devices; pmap, which has the bytes of ddp.
    """
    if parallel.by_pmap:
        raise ValueError('a plan compiles for devices that are not there, which pmap cannot: plan "ddp", same bytes')
    if (parallel.preset or "").startswith("mics") and parallel.group is None and devices % node == 0 and devices > node:
        others = math.prod(getattr(parallel, axis) or 1 for axis in ("stage", "data", "expert", "context", "tensor"))
        parallel = dataclasses.replace(parallel, group=max(1, node // abs(others)))
    sizes: dict[str, Any] = parallel.sizes(one_process(devices))
    return dataclasses.replace(parallel, preset=None, group=None, zero1=parallel.splits_optimizer, **sizes)


def shrunk(parallel: Parallel) -> tuple[Parallel, int]:
    """The same with its data axes cut until it can be compiled, and by how much: a device's part of the batch stays.

    Args:
        parallel: of `resolved`.

    Raises:
        ValueError: the other axes alone need more devices than can be had.
    """
    sizes: dict[str, Any] = {axis: getattr(parallel, axis) for axis in AXES}
    cut = 1
    while math.prod(sizes.values()) > MOST_DEVICES:
        axis = max(("replica", "data", "fsdp"), key=lambda name: sizes[name])
        if sizes[axis] == 1:
            raise ValueError(
                f"stage x expert x context x tensor = {math.prod(sizes.values())} is more than the {MOST_DEVICES} "
                "devices that a plan can compile for"
            )
        factor = next(n for n in range(2, sizes[axis] + 1) if sizes[axis] % n == 0)
        sizes[axis] //= factor
        cut *= factor
    return dataclasses.replace(parallel, **sizes), cut
