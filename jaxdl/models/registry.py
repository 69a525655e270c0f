"""Models by name."""

from __future__ import annotations

import dataclasses
import difflib
import fnmatch
import functools
import importlib
import math
import numbers
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp

from jaxdl.models.catalog import MODELS
from jaxdl.nn.light_keys import light_key

REQUIRED = "required"

#: What says one by one -> what says it for all: a caller gives one of the two. In AlexNet `widths` are the proportions.
_INSTEAD = {"depths": ("depth",), "widths": ("width", "depth"), "filters": ("width", "depth")}


@dataclasses.dataclass(frozen=True)
class ModelInfo:
    """What a model of the registry is and what it takes.

    Attributes:
        name: its name in `create_model`.
        summary: what it is, in one sentence.
        inputs: the shape of x in words.
        example: the shape of one example without the batch; a mapping of shapes where x is one.
        options: name -> default under this name, in the order of the class; "required" where there is none. Where
            `depths` has a number for each stage there is `depth` too, one number for all stages, None by default.
        fixed: those options that the name sets: what makes "resnet50" of a residual network.
        variants: the other names of the same class.
        reference: who published it, and the implementation whose numbers it follows; "" where nobody did.
        uses_mask: True when it has batch norm that wants to know the padding rows.
    """

    name: str
    summary: str
    inputs: str
    example: Any
    options: Mapping[str, Any]
    fixed: Mapping[str, Any]
    variants: tuple[str, ...]
    reference: str
    uses_mask: bool

    @property
    def parameters(self) -> int:
        """How many numbers are trained, with the options of the name, the input of `example` and 1000 classes (21 for
        segmentation and detection: those of the data sets they are compared on); from shapes only."""
        return _count(self.name)


def create_model(name: str, **options: Any) -> Any:
    """Build the model called `name`: `create_model("resnet50", num_classes=10, width=16, depth=1)`.

    All but "linear" have a width and a depth, so that each can be built tiny; docs/models.md says what they are.

    Returns:
        An unbound flax.linen module, called `module(x, *, train)`; it holds no parameters.

    Raises:
        ValueError: no model has that name (the nearest is suggested), or num_classes is no whole number.
        TypeError: the model has no such option (the nearest is suggested), a required one is missing, or two say the
            same.
    """
    kind, known = _load(name), _defaults(name)
    for option in options:
        if option not in known:
            takes = ", ".join(known)
            raise TypeError(f"model {name!r} has no option {option!r}{_nearest(option, known)} (it takes {takes})")
    missing = [option for option, default in known.items() if default is REQUIRED and option not in options]
    if missing:
        raise TypeError(f"model {name!r} needs {', '.join(missing)}: create_model({name!r}, {missing[0]}=...)")
    classes = options.get("num_classes", 0)
    if isinstance(classes, bool) or not isinstance(classes, numbers.Integral) or classes < 0:
        raise ValueError(f"num_classes={classes!r}: a whole number, 0 for the features before the logits")
    given = {option for option, value in options.items() if value is not None}
    for each, ones in _INSTEAD.items() if MODELS[name].module != "alexnet" else ():
        for one in given.intersection(ones) if each in given else ():
            raise TypeError(f"model {name!r}: {one}={options[one]!r} and {each}={options[each]!r}: give one of them")
    chosen = {**MODELS[name].options, **options}
    if known.get("depths") is not None:  # stages, of which the class takes one number each
        depth = chosen.pop("depth", None)
        if depth is not None:
            if isinstance(depth, bool) or not isinstance(depth, numbers.Integral) or depth < 1:
                raise ValueError(f"depth={depth!r}: how many blocks each stage of {name!r} has, 1 or more")
            chosen["depths"] = (int(depth),) * len(known["depths"])
    return kind(**chosen)


def list_models(pattern: str = "*") -> tuple[str, ...]:
    """The names that `create_model` knows, sorted; only those like the pattern: `list_models("resnet*")`."""
    return tuple(sorted(fnmatch.filter(MODELS, pattern)))


def model_info(name: str) -> ModelInfo:
    """What the model called `name` is, what goes in, its options with their defaults, its size and its relatives.

    Raises:
        ValueError: no model has that name; the nearest is suggested.
    """
    kind, entry = _load(name), MODELS[name]
    relatives = (other for other, row in MODELS.items() if row[:2] == entry[:2] and other != name)
    return ModelInfo(
        name=name,
        summary=(kind.__doc__ or "").strip().split("\n")[0],
        inputs=entry.inputs,
        example=entry.example,
        options=MappingProxyType(_defaults(name)),
        fixed=entry.options,
        variants=tuple(sorted(relatives)),
        reference=entry.reference,
        uses_mask="mask" in kind.__call__.__annotations__,
    )


def example_input(name: str, batch: int = 1) -> Any:
    """The shapes and dtypes of a batch for the model called `name`, as `jax.eval_shape` takes them."""
    entry = MODELS[name]
    shapes = entry.example
    dtype = jnp.dtype(entry.dtype)
    if isinstance(shapes, Mapping):
        return {key: jax.ShapeDtypeStruct((batch, *shape), dtype) for key, shape in shapes.items()}
    return jax.ShapeDtypeStruct((batch, *shapes), dtype)


@functools.cache
def _count(name: str) -> int:
    needed = {option: MODELS[name].classes for option, default in _defaults(name).items() if default is REQUIRED}
    model = create_model(name, **needed)
    keys = {"params": light_key(jax.random.key(0))}
    variables = jax.eval_shape(lambda x: model.init(keys, x, train=False), example_input(name))
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(variables["params"]))


def _load(name: str) -> type:
    if name not in MODELS:
        near = _nearest(str(name), MODELS)
        raise ValueError(f"no model is called {name!r}{near} (jaxdl.list_models() names all {len(MODELS)})")
    entry = MODELS[name]
    return getattr(importlib.import_module(f"jaxdl.models.{entry.module}"), entry.kind)


def _defaults(name: str) -> dict[str, Any]:
    """The dataclass fields of a linen module without linen's own, with the defaults that go with the name."""
    fixed = MODELS[name].options
    fields = [field for field in dataclasses.fields(_load(name)) if field.init and field.name not in ("parent", "name")]
    found: dict[str, Any] = {}
    for field in fields:
        default = REQUIRED if field.default is dataclasses.MISSING else field.default
        if field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
        found[field.name] = fixed.get(field.name, default)
        if field.name == "depths":
            found.setdefault("depth", None)
    return found


def _nearest(word: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {near[0]!r}?" if near else ""
