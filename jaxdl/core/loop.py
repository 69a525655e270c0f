"""The training loop. Its order is the contract: evaluate, save, next block, step. It fits on one screen."""

from __future__ import annotations

from collections.abc import Callable

from jaxdl.core.packing import Packed, read
from jaxdl.core.program import Program
from jaxdl.core.state import State
from jaxdl.core.step import Report


def train(
    program: Program,
    state: State,
    *,
    stop: int,
    on_reports: Callable[[int, Report], None],
    wants_boundary: Callable[[int], bool],
    at_boundary: Callable[[int, State], tuple[State, bool]],
) -> State:
    """Train from `state.step` until batch number `stop`, or until `at_boundary` says so.

    Between boundaries the device is never waited for, but for the reports of the dispatch before the one that runs.

    Args:
        program: the compiled step.
        state: consumed.
        stop: batches drawn at the end.
        on_reports: (steps done, their reports), once per dispatch, at most one dispatch late.
        wants_boundary: (steps done) -> whether to pause here, although no epoch ends (a save, Ctrl-C, a time limit).
        at_boundary: (steps done, state) -> (state, halt?) at the end of every epoch, at `stop`, and where asked for;
            all reports are in by then.

    Returns:
        The state after the last step.
    """
    step = int(state.step)
    per_epoch = program.feed.steps_per_epoch
    waiting: tuple[int, Packed] | None = None

    def flush() -> None:
        nonlocal waiting
        if waiting is not None:
            on_reports(waiting[0], program.reports(read(waiting[1])))
        waiting = None

    def draw() -> tuple[int, object]:
        count = min(program.steps_in_block(step), stop - step)
        return count, program.block(step, count)

    if step >= stop:
        return state
    count, block = draw()
    while True:
        state, packed = program.run(state, block, count, step)
        step += count
        if step % per_epoch == 0 or step == stop or wants_boundary(step):
            flush()
            waiting = (step, packed)
            flush()
            state, halt = at_boundary(step, state)
            if halt or step == stop:
                return state
            count, block = draw()
        else:
            count, block = draw()  # the host gathers while the device works
            flush()
            waiting = (step, packed)
