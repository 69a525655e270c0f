"""What a program costs, read from its jaxpr: the same number in every run, before anything is compiled."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax


class Cost(NamedTuple):
    """A count over one jaxpr, loops included.

    Attributes:
        flops: floating-point operations; 2 for a multiply and add in products and convolutions, 1 an element elsewhere.
        convolutions: how many convolution operations are written in it.
        equations: how many primitive operations are executed, loops counted as often as they run.
    """

    flops: float
    convolutions: int
    equations: float

    def __add__(self, other: Cost) -> Cost:  # type: ignore[override]
        flops, convolutions, equations = other
        return Cost(self.flops + flops, self.convolutions + convolutions, self.equations + equations)

    def times(self, count: float) -> Cost:
        """The cost of running it `count` times."""
        return Cost(self.flops * count, self.convolutions, self.equations * count)


def cost_of(jaxpr: Any) -> Cost:
    """Count a (closed) jaxpr. The body of a while loop, whose trip count is unknown, counts once; of a cond's branches
    the dearest counts."""
    total = Cost(0.0, 0, 0.0)
    for equation in getattr(jaxpr, "jaxpr", jaxpr).eqns:
        inner = _inner(equation)
        name = equation.primitive.name
        if name == "scan":
            total += cost_of(equation.params["jaxpr"]).times(equation.params["length"])
        elif name == "cond":
            total += max(map(cost_of, inner), key=lambda cost: cost.flops)
        elif inner:
            for value in inner:
                total += cost_of(value)
        else:
            total += Cost(_flops(name, equation), int(name == "conv_general_dilated"), 1.0)
    return total


def flops_by_scope(jaxpr: Any, scope: tuple[str, ...] = ()) -> dict[tuple[str, ...], float]:
    """The FLOPs of `cost_of` by the named scope that they stand in: ("ResNet", "c2_block0", "conv1") -> FLOPs.

    Linen modules open a scope of their name for each call, the outermost one of their class's name.
    """
    found: dict[tuple[str, ...], float] = {}
    for equation in getattr(jaxpr, "jaxpr", jaxpr).eqns:
        stack = getattr(equation.source_info.name_stack, "stack", ())
        here = scope + tuple(part.name for part in stack if type(part).__name__ == "Scope")
        inner, name = _inner(equation), equation.primitive.name
        if name == "cond":
            inner = [max(inner, key=lambda branch: cost_of(branch).flops)]
        elif name == "scan":
            inner = [equation.params["jaxpr"]]
        if not inner:
            found[here] = found.get(here, 0.0) + _flops(name, equation)
        for value in inner:
            times = equation.params["length"] if name == "scan" else 1
            for deeper, flops in flops_by_scope(value, here).items():
                found[deeper] = found.get(deeper, 0.0) + flops * times
    return found


def constants_of(jaxpr: Any) -> list[Any]:
    """The arrays inside a (closed) jaxpr and the jaxprs within it (jit, scan, cond), in the order of the text.

    A function that is jitted inside keeps its constants in a closed jaxpr of its own.
    """
    found = list(getattr(jaxpr, "consts", ()))
    for equation in getattr(jaxpr, "jaxpr", jaxpr).eqns:
        for value in _inner(equation):
            found += constants_of(value)
    return found


def _inner(equation: Any) -> list[Any]:
    """The (closed) jaxprs that an equation holds."""
    return [
        value
        for parameter in equation.params.values()
        for value in (parameter if isinstance(parameter, (tuple, list)) else (parameter,))
        if hasattr(value, "eqns") or hasattr(value, "jaxpr")
    ]


def _flops(name: str, equation: Any) -> float:
    out = equation.outvars[0].aval
    size = float(math.prod(getattr(out, "shape", ())))
    if name == "dot_general":
        (contract, _), _ = equation.params["dimension_numbers"]
        return 2 * size * math.prod(equation.invars[0].aval.shape[d] for d in contract)
    if name == "conv_general_dilated":
        kernel = equation.invars[1].aval.shape
        out_features = equation.params["dimension_numbers"].rhs_spec[0]
        return 2 * size * math.prod(kernel) / kernel[out_features]
    return size


def slow_in_loops(cost: Cost) -> bool:
    """Whether XLA's CPU backend would run this far slower inside a compiled loop than outside: it has convolutions,
    which leave their fast path there (jax issue 12868; about 20 times on small images)."""
    return cost.convolutions > 0 and jax.default_backend() == "cpu"
