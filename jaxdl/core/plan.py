"""How to run: a rule, the same in every run, from what a step costs and where it runs."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax

from jaxdl.core.cost import Cost, slow_in_loops

MODES = ("scan", "loop", "unrolled")

#: Seconds that one dispatch should take: long enough that what the host does for it (about 0.4 ms) is about 1 %,
#: short enough that progress, Ctrl-C and time limits react at once.
DISPATCH_SECONDS = 0.05

#: On a CPU a dispatch takes its temporaries anew, page fault by page fault; so even dear steps share one, up to this.
SHARED_SECONDS = 2.0

#: By backend: seconds that a step costs at least, and floating-point operations a second that a small step reaches.
#: Orders of magnitude are enough: they only choose K from powers of two.
SPEED = {"cpu": (2e-5, 4e10), "gpu": (2e-5, 5e12), "tpu": (1e-5, 2e13)}

#: A streamed block is held twice on the host and once on the device.
BLOCK_BYTES = 64 * 2**20


@dataclasses.dataclass(frozen=True)
class RunPlan:
    """How a Program runs its steps. It is written into the run's folder before step 0, and a resume obeys it.

    Attributes:
        mode: "scan" (one compiled loop of K steps), "loop" (a Python loop over one compiled step: convolutions on a
            CPU), or "unrolled" (K steps written out in one program; long to compile).
        steps_per_dispatch: K. The host reads reports, draws progress and looks for Ctrl-C once per dispatch.
        reason: why, for the log.
    """

    mode: str
    steps_per_dispatch: int
    reason: str = "as asked"

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise ValueError(f"mode={self.mode!r}: choose one of {', '.join(map(repr, MODES))}")
        if self.steps_per_dispatch < 1:
            raise ValueError(f"steps_per_dispatch={self.steps_per_dispatch}: must be at least 1")

    def __str__(self) -> str:
        return f"{self.mode}, {self.steps_per_dispatch} steps per dispatch ({self.reason})"

    def as_dict(self) -> dict[str, Any]:
        """For a run's folder."""
        return dataclasses.asdict(self)


def choose_plan(cost: Cost, steps_per_epoch: int, item_bytes: int, *, offloaded: bool = False) -> RunPlan:
    """The rule. K steps should take about `DISPATCH_SECONDS`; convolutions on a CPU loop, all else scans.

    Args:
        cost: of one update.
        steps_per_epoch: blocks never cross the end of an epoch.
        item_bytes: what the host hands over for one step.
        offloaded: parts of the state live in the host's memory, which no compiled loop has to carry then.
    """
    least, speed = SPEED.get(jax.default_backend(), SPEED["gpu"])
    seconds = least + cost.flops / speed
    limit = int(DISPATCH_SECONDS / seconds)
    if jax.default_backend() == "cpu":
        limit = max(limit, min(8, int(SHARED_SECONDS / seconds)))
    limit = max(1, min(limit, BLOCK_BYTES // max(item_bytes, 1), 2048))
    if slow_in_loops(cost):
        return RunPlan(
            "loop", even(steps_per_epoch, max(limit, 8)), "convolutions on a CPU are slow in a compiled loop"
        )
    if offloaded:
        return RunPlan("loop", even(steps_per_epoch, limit), "the optimizer's state passes from the host and back")
    return RunPlan("scan", even(steps_per_epoch, limit), f"{cost.flops:.2g} FLOPs a step")


def even(steps_per_epoch: int, limit: int) -> int:
    """K near `limit` that wastes no second compile where it can: the whole epoch when it is short, else a divisor of
    the epoch's steps within a factor of two, else blocks of nearly equal length with one shorter tail."""
    if steps_per_epoch <= 1.5 * limit:
        return steps_per_epoch
    for candidate in range(limit, limit // 2, -1):
        if steps_per_epoch % candidate == 0:
            return candidate
    blocks = -(-steps_per_epoch // limit)
    return -(-steps_per_epoch // blocks)
