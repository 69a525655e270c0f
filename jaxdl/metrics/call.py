"""Every metric as one call, for data that is already at hand: `roc_auc = one_call(ROCAUC, "roc_auc")`."""

from __future__ import annotations

import difflib
import inspect
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import numpy as np

from jaxdl.metrics.inputs import as_array
from jaxdl.metrics.metric import inputs_of, statistic_of

_OFTEN = ("preds", "target", "weight", "mask")


@partial(jax.jit, static_argnums=0)
def _compiled(metric: Any, inputs: dict[str, Any]) -> Any:
    state = metric.update(metric.init(), **inputs)
    teller = statistic_of(metric)
    return metric.compute(state), {
        what: getattr(teller, what)(state) for what in ("invalid", "overflowed") if hasattr(teller, what)
    }


def evaluate(metric: Any, /, **inputs: Any) -> Any:
    """The value of a metric on arrays at hand: `compute(update(init(), ...))`, compiled once for each shape.

    Warns where something was left out (an id out of range) or did not fit; not inside jit, where nothing is known yet.
    """
    name = metric.name
    arrays = {
        key: jax.tree.map(lambda leaf, key=key: as_array(leaf, f"{name}: {key}"), value, is_leaf=_is_sequence)
        for key, value in inputs.items()
        if value is not None
    }
    value, troubles = _compiled(metric, arrays)
    if not any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(troubles)):
        left = float(np.sum(np.asarray(troubles.get("invalid", 0), np.float64)))
        if left:
            warnings.warn(
                f"{name}: weight {left:g} was left out, since a class, label or group there is out of range; "
                "mask= leaves out examples without a warning",
                stacklevel=3,
            )
        if np.any(np.asarray(troubles.get("overflowed", False))):
            warnings.warn(f"{name}: more examples came than the capacity holds, so the value is NaN", stacklevel=3)
    return value


def _is_sequence(value: Any) -> bool:
    """Lists of numbers are one array each, not a tree of scalars."""
    return isinstance(value, list)


def _present(inputs: dict[str, Any]) -> dict[str, Any]:
    """The inputs with id 0 where weight or mask says that an example is absent: whatever stands there is no class."""
    parts = [part for part in (inputs["weight"], inputs["mask"]) if part is not None]
    if not parts or any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(inputs)):
        return inputs

    def one(value: Any) -> Any:
        array = np.asarray(value)
        if array.dtype.kind not in "iu":
            return value
        here = np.ones(array.shape, bool)
        for part in map(np.asarray, parts):
            if part.shape != array.shape[: part.ndim]:
                return value  # `update` says what is wrong
            here &= part.reshape(part.shape + (1,) * (array.ndim - part.ndim)) != 0
        return np.where(here, array, np.zeros_like(array))

    return {key: value if value is None or key in ("weight", "mask") else one(value) for key, value in inputs.items()}


def one_call(
    metric: Callable[..., Any],
    name: str,
    *,
    infer: Callable[[Mapping[str, Any]], Mapping[str, Any]] | None = None,
    either: tuple[str, ...] = (),
) -> Callable[..., Any]:
    """The function `name(preds, target, *, weight=None, mask=None, ...)` that gives a metric's value in one call.

    Its other keywords are the metric's fields. `infer` reads the inputs and the fields that were given, and returns
    those fields that follow from the data (the capacity, the number of classes) when the caller leaves them out.
    `either` names fields of which one is needed (classes or labels): `infer` is asked when none is given.

    Raises:
        TypeError: for a keyword that is neither an input nor a field (it names the nearest), and for one that lacks.
    """
    fields = {p.name: p for p in inspect.signature(metric).parameters.values() if p.name != "name"}
    declared = getattr(metric, "inputs", ("preds", "target"))
    extra = tuple(key for key in (declared if isinstance(declared, tuple) else ()) if key not in _OFTEN)

    def call(preds: Any, target: Any = None, *, weight: Any = None, mask: Any = None, **options: Any) -> Any:
        inputs = {"preds": preds, "target": target, "weight": weight, "mask": mask}
        config = {}
        for key, value in options.items():
            if key in fields:
                config[key] = value
            elif key in extra:
                inputs[key] = value
            else:
                near = difflib.get_close_matches(key, [*fields, *extra, "weight", "mask"], 1)
                hint = f"; did you mean {near[0]}?" if near else f"; it takes {', '.join([*extra, *fields])}"
                raise TypeError(f"{name}() has no argument {key!r}{hint}")
        lacks = any(p.default is p.empty and key not in config for key, p in fields.items())
        if infer is not None and (lacks or (either and not any(config.get(key) is not None for key in either))):
            config = {**infer({**config, **_present(inputs)}), **config}
        lacking = [key for key, p in fields.items() if p.default is p.empty and key not in config]
        if lacking:
            raise TypeError(f"{name}() needs {lacking[0]}=")
        made = metric(**config)
        missing = [key for key in inputs_of(made) if key != "target" and inputs.get(key) is None]
        if missing:
            raise TypeError(f"{name}() needs {missing[0]}=")
        return evaluate(made, **inputs)

    empty, keyword = inspect.Parameter.empty, inspect.Parameter.KEYWORD_ONLY
    parameters = [
        inspect.Parameter("preds", inspect.Parameter.POSITIONAL_OR_KEYWORD),
        inspect.Parameter("target", inspect.Parameter.POSITIONAL_OR_KEYWORD, default=None),
        *(inspect.Parameter(key, keyword) for key in extra),
        *(
            p.replace(kind=keyword, default=None if infer is not None and p.default is empty else p.default)
            for p in fields.values()
        ),
        *(inspect.Parameter(key, keyword, default=None) for key in ("weight", "mask")),
    ]
    call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    call.__name__ = call.__qualname__ = name
    first = (inspect.getdoc(metric) or "").split("\n\n")[0]
    call.__doc__ = f"{first}\n\nOne call of `{getattr(metric, '__name__', name)}`, which says what the arguments mean."
    call.__module__ = getattr(metric, "__module__", __name__)
    return call
