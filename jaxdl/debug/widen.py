"""Run a program that was traced in float32 in float64, whatever casts and constants it contains.

Tracing a model under x64 is no good: its own float32 casts, constants and carries stay float32 or clash with the
others. Here the program is traced as it trains, and each operation is then carried out with every float as a float64.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Literal

Array = jax.Array

_CALLS = ("jit", "pjit", "closed_call", "core_call", "remat2", "checkpoint", "custom_jvp_call", "custom_vjp_call")
_DTYPES = ("new_dtype", "dtype", "preferred_element_type")


def run_widened(program: Any, arguments: Sequence[Any]) -> list[Array]:
    """The outputs of a traced program, computed in float64. To be called under `jax.enable_x64(True)`.

    Operations that hold a program of a kind not known here (kernels, custom linear solves) run at their own precision.

    Args:
        program: what `jax.make_jaxpr(f)(...)` returned.
        arguments: its flat arguments, in any float dtype.
    """
    return _evaluate(program, [_widen(argument) for argument in arguments])


def _evaluate(program: Any, arguments: Sequence[Any]) -> list[Any]:
    jaxpr, constants = getattr(program, "jaxpr", program), getattr(program, "consts", ())
    values: dict[Any, Any] = dict(zip(jaxpr.constvars, map(_widen, constants), strict=True))
    values |= dict(zip(jaxpr.invars, arguments, strict=True))

    def read(variable: Any) -> Any:
        if isinstance(variable, Literal):
            return _widen(np.asarray(variable.val, getattr(variable.aval, "dtype", None)))
        return values[variable]

    for equation in jaxpr.eqns:
        results = _apply(equation, [read(variable) for variable in equation.invars])
        values |= dict(zip(equation.outvars, map(_widen, results), strict=True))
    return [read(variable) for variable in jaxpr.outvars]


def _apply(equation: Any, inputs: list[Any]) -> Sequence[Any]:
    """The results of one equation on widened inputs."""
    name, params = equation.primitive.name, equation.params
    if name in _CALLS:
        return _evaluate(params["jaxpr"] if "jaxpr" in params else params["call_jaxpr"], inputs)
    if name == "scan":
        return _scan(equation, inputs)
    if name == "while":
        return _while(params, inputs)
    if name == "cond":
        branches = [_closure(branch) for branch in params["branches"]]
        return jax.lax.switch(inputs[0], branches, *inputs[1:])
    if name == "reduce_precision":
        return inputs
    if name.startswith("scatter") and params.get("update_jaxpr") is not None:
        update = jax.make_jaxpr(_closure(params["update_jaxpr"]))(*[jax.ShapeDtypeStruct((), inputs[0].dtype)] * 2)
        return _bind(equation, inputs, {**params, "update_jaxpr": update.jaxpr})
    if name == "bitcast_convert_type" or any("jaxpr" in type(value).__name__.lower() for value in params.values()):
        own = [
            value.astype(variable.aval.dtype) if _is_float(value) else value
            for value, variable in zip(inputs, equation.invars, strict=True)
        ]
        return _bind(equation, own, params)
    wide = {
        key: np.dtype(np.float64) for key in _DTYPES if params.get(key) is not None and _is_float_dtype(params[key])
    }
    return _bind(equation, inputs, {**params, **wide})


def _bind(equation: Any, inputs: list[Any], params: dict[str, Any]) -> Sequence[Any]:
    results = equation.primitive.bind(*inputs, **params)
    return results if equation.primitive.multiple_results else [results]


def _scan(equation: Any, inputs: list[Any]) -> Sequence[Any]:
    """Constants, carries and rows are told apart by rank: a row has one axis less inside the body."""
    body, params = equation.params["jaxpr"], equation.params
    inner = getattr(body, "jaxpr", body)
    pairs = zip(equation.invars, inner.invars, strict=True)
    rows = sum(len(outer.aval.shape) != len(own.aval.shape) for outer, own in pairs)
    pairs = zip(equation.outvars, inner.outvars, strict=True)
    carries = sum(len(outer.aval.shape) == len(own.aval.shape) for outer, own in pairs)
    constants = len(inputs) - rows - carries

    def step(carry: list[Any], row: list[Any]) -> tuple[list[Any], list[Any]]:
        results = _evaluate(body, [*inputs[:constants], *carry, *row])
        return results[:carries], results[carries:]

    start, rest = inputs[constants : constants + carries], inputs[constants + carries :]
    carry, stacked = jax.lax.scan(
        step, list(map(jnp.asarray, start)), rest, length=params["length"], reverse=params["reverse"]
    )
    return [*carry, *stacked]


def _while(params: dict[str, Any], inputs: list[Any]) -> Sequence[Any]:
    first, second = params["cond_nconsts"], params["cond_nconsts"] + params["body_nconsts"]
    return jax.lax.while_loop(
        lambda carry: _evaluate(params["cond_jaxpr"], [*inputs[:first], *carry])[0],
        lambda carry: _evaluate(params["body_jaxpr"], [*inputs[first:second], *carry]),
        list(map(jnp.asarray, inputs[second:])),
    )


def _closure(program: Any) -> Callable[..., list[Any]]:
    return lambda *arguments: _evaluate(program, arguments)


def _is_float_dtype(dtype: Any) -> bool:
    return jnp.issubdtype(dtype, jnp.floating)


def _is_float(value: Any) -> bool:
    return _is_float_dtype(value.dtype)


def _widen(value: Any) -> Any:
    if not hasattr(value, "dtype"):
        value = np.asarray(value)
    return value.astype(np.float64) if _is_float(value) else value
