"""Models by name."""

from __future__ import annotations

import dataclasses
import difflib
import importlib
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

REQUIRED = "required"

_MODELS: Mapping[str, tuple[str, str, str]] = MappingProxyType(
    {
        # name: (module, class, input)
        "convnet": ("jaxdl.models.convnet", "ConvNet", "[batch, height, width, channels]"),
        "linear": ("jaxdl.models.mlp", "Linear", "[batch, ...], flattened"),
        "mlp": ("jaxdl.models.mlp", "MLP", "[batch, ...], flattened"),
    }
)


@dataclasses.dataclass(frozen=True)
class ModelInfo:
    """What a model of the registry is and what it takes.

    Attributes:
        name: its name in `create_model`.
        summary: what it is, in one sentence.
        inputs: the shape of x.
        options: name -> default, in the order of the class; "required" where there is none.
        uses_mask: True when it has batch norm that wants to know the padding rows.
    """

    name: str
    summary: str
    inputs: str
    options: Mapping[str, Any]
    uses_mask: bool


def create_model(name: str, **options: Any) -> Any:
    """Build the model called `name`: `create_model("convnet", num_classes=10, width=16)`.

    Returns:
        An unbound flax.linen module, called `module(x, *, train)`; it holds no parameters.

    Raises:
        ValueError: no model has that name; the nearest is suggested.
        TypeError: the model has no such option (the nearest is suggested), or a required one is missing.
    """
    kind = _load(name)
    known = _options(kind)
    for option in options:
        if option not in known:
            takes = ", ".join(known)
            raise TypeError(f"model {name!r} has no option {option!r}{_nearest(option, known)} (it takes {takes})")
    missing = [option for option, default in known.items() if default is REQUIRED and option not in options]
    if missing:
        raise TypeError(f"model {name!r} needs {', '.join(missing)}: create_model({name!r}, {missing[0]}=...)")
    return kind(**options)


def list_models() -> tuple[str, ...]:
    """The names that `create_model` knows, sorted."""
    return tuple(sorted(_MODELS))


def model_info(name: str) -> ModelInfo:
    """What the model called `name` is, what goes in, and its options with their defaults.

    Raises:
        ValueError: no model has that name; the nearest is suggested.
    """
    kind = _load(name)
    return ModelInfo(
        name=name,
        summary=(kind.__doc__ or "").strip().split("\n")[0],
        inputs=_MODELS[name][2],
        options=MappingProxyType(_options(kind)),
        uses_mask="mask" in kind.__call__.__annotations__,
    )


def _load(name: str) -> type:
    if name not in _MODELS:
        raise ValueError(
            f"no model is called {name!r}{_nearest(str(name), _MODELS)} (known: {', '.join(list_models())})"
        )
    module, kind, _ = _MODELS[name]
    return getattr(importlib.import_module(module), kind)


def _options(kind: type) -> dict[str, Any]:
    """The dataclass fields of a linen module without linen's own."""
    fields = [field for field in dataclasses.fields(kind) if field.init and field.name not in ("parent", "name")]
    return {field.name: REQUIRED if field.default is dataclasses.MISSING else field.default for field in fields}


def _nearest(word: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {near[0]!r}?" if near else ""
