"""A training that kills itself: `train_and_die.py FOLDER PHASE COUNT DELAY`, phases train, evaluate, save or none.

At event number COUNT of the phase (a dispatch read, an evaluation begun, a save begun) a timer is set, and after DELAY
seconds the process gets SIGKILL, whatever it is doing then.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from typing import Any

import jaxdl
from jaxdl.core import loop
from jaxdl.core.evaluator import Evaluator
from tests.steps import digits, mlp_task

EPOCHS = 30


def arm(count: int, delay: float) -> Any:
    """A function that is called at each event."""
    left = [count]

    def event() -> None:
        left[0] -= 1
        if left[0] == 0:
            if delay <= 0:
                os.kill(os.getpid(), signal.SIGKILL)
            threading.Timer(delay, os.kill, (os.getpid(), signal.SIGKILL)).start()

    return event


def before(owner: Any, name: str, event: Any) -> None:
    """Call `event` before each call of owner.name."""
    real = getattr(owner, name)

    def replaced(*args: Any, **kwargs: Any) -> Any:
        event()
        return real(*args, **kwargs)

    setattr(owner, name, replaced)


def train(folder: str | None) -> jaxdl.Run:
    """The run that every process of the test repeats: dropout, EMA and a schedule make every count matter."""
    data, held_out = digits()
    return jaxdl.fit(
        mlp_task(dropout=0.2),
        data,
        validation=held_out,
        optimizer=jaxdl.optim.adamw(3e-3, schedule=jaxdl.optim.cosine(7 * EPOCHS, warmup=9)),
        epochs=EPOCHS,
        batch_size=32,
        average=0.95,
        program=jaxdl.ProgramOptions(mode="scan", steps_per_dispatch=3),
        checkpoint=None if folder is None else jaxdl.Checkpoint(folder, every=4),
        verbose=0,
    )


if __name__ == "__main__":
    where, phase, number, seconds = sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4])
    trigger = arm(number, seconds)
    if phase == "train":
        before(loop, "read", trigger)
    elif phase == "evaluate":
        before(Evaluator, "__call__", trigger)
    elif phase == "save":
        before(jaxdl.checkpoint.Store, "save", trigger)
    train(where)
    print("finished")
