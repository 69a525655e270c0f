"""Optimizers whose numbers are traced, schedules as factors of the learning rate, and groups of parameters.

`adamw(learning_rate=1e-3, schedule=warmup_cosine(100, 5000))` is a function from the numbers in `state.hyper` to an
optax transformation, built inside the compiled update. So every trial of a search may have numbers of its own in one
program, and the schedule reads `state.step`, the one count of batches: rate = learning_rate * schedule(step).
`groups({"stem/.*": 0, "logits/.*": 1.0}, adamw(1e-3), others=0.1)` gives parameters rates of their own, 0 freezes them.
Any finished optax transformation may be given to `fit` instead; its numbers are then fixed inside it.
"""

from __future__ import annotations

from jaxdl.optim.groups import Groups, groups
from jaxdl.optim.optimizers import (
    Optimizer,
    adagrad,
    adam,
    adamw,
    create_optimizer,
    lamb,
    lion,
    list_optimizers,
    rmsprop,
    sgd,
)
from jaxdl.optim.schedules import Schedule, cosine, exponential, linear, piecewise, warmup_cosine

__all__ = [
    "Groups",
    "Optimizer",
    "Schedule",
    "adagrad",
    "adam",
    "adamw",
    "cosine",
    "create_optimizer",
    "exponential",
    "groups",
    "lamb",
    "linear",
    "lion",
    "list_optimizers",
    "piecewise",
    "rmsprop",
    "sgd",
    "warmup_cosine",
]
