"""Optimizers whose numbers are traced, and schedules as factors of the learning rate.

`adamw(learning_rate=1e-3, schedule=warmup_cosine(100, 5000))` is a function from the numbers in `state.hyper` to an
optax transformation, built inside the compiled update. So every trial of a search may have numbers of its own in one
program, and the schedule reads `state.step`, the one count of batches: rate = learning_rate * schedule(step).
Any finished optax transformation may be given to `fit` instead; its numbers are then fixed inside it.
"""

from __future__ import annotations

import dataclasses
import difflib
import inspect
import math
from collections.abc import Callable, Collection, Mapping
from typing import Any

import jax
import optax

from jaxdl.optim.schedules import Schedule, is_number

Array = jax.Array
Hyper = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Optimizer:
    """A function from traced numbers to an optax transformation.

    Attributes:
        name: for logs and error messages.
        hyper: name -> default of each number that a state holds.
        scale: hyper -> transformation of the gradient, before decay and learning rate.
        options: names that are read from hyper when they are there, and are static defaults otherwise.
        schedule: step [] int32 -> factor of the learning rate, or None for 1.
        final: hyper -> transformation after decay and before the learning rate (LAMB's trust ratio), or None.
    """

    name: str
    hyper: Mapping[str, float]
    scale: Callable[[Hyper], optax.GradientTransformation]
    options: tuple[str, ...] = ()
    schedule: Schedule | None = None
    final: Callable[[Hyper], optax.GradientTransformation] | None = None

    @property
    def reads(self) -> frozenset[str]:
        """Every name that this optimizer reads from hyper."""
        return frozenset(self.hyper) | frozenset(self.options) | {"weight_decay"}

    def rate(self, hyper: Hyper, step: Array) -> Array:
        """The learning rate at a step: [] float32."""
        rate = hyper["learning_rate"]
        return rate if self.schedule is None else rate * self.schedule(step)

    def build(self, hyper: Hyper, step: Array) -> optax.GradientTransformation:
        """The transformation of this step: scale, decoupled weight decay (Loshchilov and Hutter 2019), -rate."""
        parts = [self.scale(hyper)]
        if "weight_decay" in hyper:
            parts.append(optax.add_decayed_weights(hyper["weight_decay"]))
        if self.final is not None:
            parts.append(self.final(hyper))
        rate = self.rate(hyper, step)
        parts.append(optax.scale(-rate))
        return optax.chain(*parts)


def _numbers(learning_rate: float, weight_decay: float | None, **more: float | None) -> dict[str, float]:
    """The traced numbers, those that are not None."""
    if callable(learning_rate):
        raise TypeError(
            "learning_rate is a function: give the number that it starts from, and the factor as schedule=, such as "
            "adam(1e-3, schedule=jaxdl.optim.cosine(1000))"
        )
    given = {"learning_rate": learning_rate, **more, "weight_decay": weight_decay}
    numbers = {name: value for name, value in given.items() if value is not None}
    for name, value in numbers.items():
        if not is_number(value) or not 0 <= value < math.inf:
            raise ValueError(f"{name}={value!r}: must be a number of at least 0")
    return numbers


def _shares(**numbers: float) -> None:
    """Decay rates: averages that forget."""
    for name, value in numbers.items():
        if not is_number(value) or not 0 <= value < 1:
            raise ValueError(f"{name}={value!r}: must be in [0, 1)")


def sgd(
    learning_rate: float = 0.01,
    *,
    momentum: float | None = None,
    nesterov: bool = False,
    weight_decay: float | None = None,
    schedule: Schedule | None = None,
) -> Optimizer:
    """Stochastic gradient descent: v <- momentum * v + g, w <- w - rate * v (Sutskever et al. 2013 with nesterov).

    Without momentum there is no state. Traced: learning_rate, momentum, weight_decay.
    """
    traced = _numbers(learning_rate, weight_decay, momentum=momentum)
    if momentum is None:
        if nesterov:
            raise ValueError("sgd(nesterov=True) needs momentum=, for example 0.9")
        return Optimizer("sgd", traced, lambda h: optax.identity(), schedule=schedule)
    return Optimizer("sgd", traced, lambda h: optax.trace(decay=h["momentum"], nesterov=nesterov), schedule=schedule)


def adam(
    learning_rate: float = 1e-3,
    *,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    weight_decay: float | None = None,
    schedule: Schedule | None = None,
) -> Optimizer:
    """Adam (Kingma and Ba 2015); with weight_decay it is AdamW. b1, b2 and eps are static unless hyper names them:
    traced they round 1 - b2 in float32."""
    _shares(b1=b1, b2=b2)
    return Optimizer(
        "adam" if weight_decay is None else "adamw",
        _numbers(learning_rate, weight_decay),
        lambda h: optax.scale_by_adam(h.get("b1", b1), h.get("b2", b2), h.get("eps", eps)),
        ("b1", "b2", "eps"),
        schedule,
    )


def adamw(
    learning_rate: float = 1e-3,
    *,
    weight_decay: float = 1e-4,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    schedule: Schedule | None = None,
) -> Optimizer:
    """Adam with decoupled weight decay, w <- w - rate * (adam + weight_decay * w), on all parameters
    (Loshchilov and Hutter 2019)."""
    return adam(learning_rate, b1=b1, b2=b2, eps=eps, weight_decay=weight_decay, schedule=schedule)


def rmsprop(
    learning_rate: float = 1e-3,
    *,
    decay: float = 0.9,
    eps: float = 1e-8,
    momentum: float | None = None,
    weight_decay: float | None = None,
    schedule: Schedule | None = None,
) -> Optimizer:
    """RMSProp (Tieleman and Hinton 2012), with momentum on the scaled gradient when given."""
    traced = _numbers(learning_rate, weight_decay, momentum=momentum)
    _shares(decay=decay)

    def scale(h: Hyper) -> optax.GradientTransformation:
        rms = optax.scale_by_rms(decay=h.get("decay", decay), eps=eps)
        return rms if momentum is None else optax.chain(rms, optax.trace(decay=h["momentum"]))

    return Optimizer("rmsprop", traced, scale, ("decay",), schedule)


def adagrad(
    learning_rate: float = 0.01,
    *,
    initial_accumulator: float = 0.1,
    eps: float = 1e-7,
    weight_decay: float | None = None,
    schedule: Schedule | None = None,
) -> Optimizer:
    """AdaGrad (Duchi, Hazan and Singer 2011)."""
    return Optimizer(
        "adagrad",
        _numbers(learning_rate, weight_decay),
        lambda h: optax.scale_by_rss(initial_accumulator, eps),
        schedule=schedule,
    )


def lion(
    learning_rate: float = 1e-4,
    *,
    b1: float = 0.9,
    b2: float = 0.99,
    weight_decay: float | None = 1e-3,
    schedule: Schedule | None = None,
) -> Optimizer:
    """Lion: the sign of an interpolated momentum (Chen et al. 2023)."""
    _shares(b1=b1, b2=b2)
    return Optimizer(
        "lion",
        _numbers(learning_rate, weight_decay),
        lambda h: optax.scale_by_lion(h.get("b1", b1), h.get("b2", b2)),
        ("b1", "b2"),
        schedule,
    )


def lamb(
    learning_rate: float = 1e-3,
    *,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-6,
    weight_decay: float | None = 0.01,
    schedule: Schedule | None = None,
) -> Optimizer:
    """LAMB: Adam with a trust ratio per layer, for very large batches (You et al. 2020)."""
    _shares(b1=b1, b2=b2)
    return Optimizer(
        "lamb",
        _numbers(learning_rate, weight_decay),
        lambda h: optax.scale_by_adam(h.get("b1", b1), h.get("b2", b2), h.get("eps", eps)),
        ("b1", "b2", "eps"),
        schedule,
        lambda h: optax.scale_by_trust_ratio(),
    )


_OPTIMIZERS: dict[str, Callable[..., Optimizer]] = {
    "sgd": sgd, "adam": adam, "adamw": adamw, "rmsprop": rmsprop, "adagrad": adagrad, "lion": lion, "lamb": lamb,
}  # fmt: skip


def list_optimizers() -> tuple[str, ...]:
    """The names that `create_optimizer` takes."""
    return tuple(_OPTIMIZERS)


def create_optimizer(name: str, learning_rate: float, **options: Any) -> Optimizer:
    """An optimizer by name, for command lines and search spaces.

    Raises:
        ValueError: an unknown name, or an option that this optimizer lacks; the nearest known one is suggested.
    """
    _known("there is no optimizer", name, _OPTIMIZERS)
    takes = [each for each in inspect.signature(_OPTIMIZERS[name]).parameters if each != "learning_rate"]
    for option in options:
        _known(f"{name} has no option", option, takes)
    return _OPTIMIZERS[name](learning_rate, **options)


def _known(lacking: str, name: str, names: Collection[str]) -> None:
    if name not in names:
        near = difflib.get_close_matches(str(name), names, 1)
        hint = f": did you mean {near[0]!r}?" if near else f": choose one of {', '.join(names)}"
        raise ValueError(f"{lacking} {name!r}{hint}")
