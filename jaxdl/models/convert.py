"""Weights of other libraries in our models, and ours in theirs: every leaf accounted for, in both directions.

A family says in its own file what its weights are called elsewhere: the attribute `peers` of its class, a table of
functions from the model to its rules. jaxdl/models/rules.py explains at its head how to write them; nothing has to be
registered here.
"""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import flax.linen
import jax
import jax.numpy as jnp
import numpy as np

from jaxdl.models.catalog import MODELS
from jaxdl.models.leaves import Key, Variables, differences, flat, listed, nested
from jaxdl.models.registry import example_input
from jaxdl.models.rules import Peer, Peers, Rule, first_parts
from jaxdl.models.weight_files import read_weights
from jaxdl.nn import light_key

Array = jax.Array


class Imported(NamedTuple):
    """Variables of a model that came from elsewhere.

    Attributes:
        variables: {"params": ..., "batch_stats": ... where there are any}, whole: for `model.apply` and `fit(start=)`.
        peer: whose names the weights had.
        fresh: our paths that were drawn anew (the head, when the number of classes differs).
        left: the names given that were not used: another head, and what the family or the caller said to ignore.
    """

    variables: Variables
    peer: str
    fresh: tuple[str, ...]
    left: tuple[str, ...]


def import_weights(
    model: Any,
    weights: Mapping[str, Any] | str | os.PathLike[str],
    x: Any = None,
    *,
    peer: str | None = None,
    new_head: bool = False,
    ignore: str = "(?!)",
    seed: int = 0,
) -> Imported:
    """Put weights of torchvision, timm, keras ... into a model's tree.

    Each leaf of the model takes exactly one array (or its share of one), and each array has a place, or the call is
    refused. Where the only arrays of another shape are the head's, because the model has another number of classes,
    the head is drawn anew and a warning says so.

    Args:
        model: of `create_model`.
        weights: name -> array (a torch `state_dict()` as it is), or the path of a file that `read_weights` reads.
        x: one batch as the model takes it, or its shape; the registry's example input when None.
        peer: whose names; when None, those that fit best.
        new_head: draw the head anew whatever its shape, also where the weights have none.
        ignore: regular expression for names that are left out on purpose.
        seed: of a new head.

    Raises:
        ValueError: a name is missing, unexpected, of another shape or no array of floating point (a quantized kernel
            would be cast without its scale); one sentence lists them all. The model has no such peer; `ignore` is no
            regular expression.
    """
    where = "the weights"
    if isinstance(weights, (str, os.PathLike)):
        where, weights = os.fspath(weights), read_weights(weights)
    given = _named(weights)
    x = _example(model, x)
    template = flat(_abstract(model, x))
    chosen, described, places = _peer(model, template, given, peer)
    wanted = {name: shape for place in places for name, shape in place.wanted.items()}

    head = re.compile(described.head)
    left_out, ignored = re.compile(described.ignored), _expression("ignore", ignore)
    left = [name for name in given if name not in wanted and (left_out.fullmatch(name) or ignored.fullmatch(name))]
    if not any(head.fullmatch(name) for name in wanted):  # num_classes=0: the model ends before its head
        left += [name for name in given if name not in left and head.fullmatch(name)]
    unexpected = [name for name in given if name not in wanted and name not in left]
    shapes = {name: tuple(given[name].shape) for name in wanted if name in given}
    odd = [name for name, shape in shapes.items() if shape != wanted[name]]
    missing = [name for name in wanted if name not in given]
    renewed = new_head
    if (
        odd
        and not missing
        and not unexpected
        and all(head.fullmatch(n) and _one_axis(shapes[n], wanted[n]) for n in odd)
    ):
        renewed = True
    if renewed:
        left += [name for name in shapes if head.fullmatch(name)]
        missing, odd_elsewhere = (
            [n for n in missing if not head.fullmatch(n)],
            [n for n in odd if not head.fullmatch(n)],
        )
    else:
        odd_elsewhere = odd
    no_floats = [f"{n}: {given[n].dtype}" for n in shapes if not jnp.issubdtype(given[n].dtype, jnp.floating)]
    problems = [
        listed("missing", missing),
        listed("unexpected", unexpected),
        listed("of another kind than floating point", no_floats),
        listed("of another shape", [f"{n}: {shapes[n]}, wanted {wanted[n]}" for n in odd_elsewhere]),
    ]
    if any(problems):
        raise ValueError(f"{where} do not fit {_kind(model)} by {chosen}'s names: {'; '.join(filter(None, problems))}")

    fresh = [place.key for place in places if renewed and any(head.fullmatch(name) for name in place.wanted)]
    if odd and renewed and not new_head:
        example = max(odd, key=lambda name: len(wanted[name]))  # the kernel says more than the bias
        warnings.warn(
            f"the head is new: {example} is {shapes[example]} in {where} and {wanted[example]} in the model, so "
            f"{', '.join(path for _, path in fresh)} were drawn anew; all else was imported",
            stacklevel=2,
        )
    drawn = _drawn(model, x, seed, fresh)
    leaves = {
        place.key: drawn[place.key] if place.key in drawn else jnp.asarray(place.take(given), template[place.key].dtype)
        for place in places
    }
    paths = tuple(path for _, path in fresh)
    return Imported(nested({key: leaves[key] for key in template}), chosen, paths, tuple(left))


def export_weights(
    model: Any, variables: Mapping[str, Any], x: Any = None, *, peer: str | None = None
) -> dict[str, np.ndarray]:
    """A model's variables under a peer's names and in its layouts; importing them again gives equal bits.

    As in the import each leaf of the model must be there, in its shape, and no other.

    torch's counters `num_batches_tracked` are not among them: `load_state_dict` supplies them.

    Args:
        variables: {"params": ..., "batch_stats": ...}, as `Imported.variables` or a trained run has them.
        x: one batch as the model takes it, or its shape; the registry's example input when None. Where leaves depend on
            the size of the input (LeNet, ViT, recurrent layers) it must be that of the training.
        peer: whose names; may be None where the model has one peer only.

    Raises:
        ValueError: the model has no such peer; a leaf is missing, unexpected, or of another shape than the model's.
    """
    peers = _peers(model)
    if peer is None and len(peers) > 1:
        raise ValueError(f"{_kind(model)} has several peers: choose peer= {' or '.join(map(repr, peers))}")
    leaves, template = flat(variables), flat(_abstract(model, _example(model, x)))
    problems = differences(template, leaves)
    if problems:
        hint = "; for inputs of another size than the registry's example say x=, as in training" if x is None else ""
        raise ValueError(f"the variables are not those of {_kind(model)}: {problems}{hint}")
    chosen = next(iter(peers)) if peer is None else peer
    places = _places(model, chosen, leaves)
    shares: dict[str, dict[int, np.ndarray]] = {}
    counts: dict[str, int] = {}
    for place in places:
        value = np.asarray(leaves[place.key])
        for number, name in enumerate(place.names):
            own = value[number] if place.stacked else value
            shares.setdefault(name, {})[place.rule.part[0]] = place.rule.layout.to_peer(own)
            counts[name] = place.rule.part[1]
        for number, name in enumerate(place.added):
            zeros = np.zeros_like(shares[place.names[number]][place.rule.part[0]])
            added, count = place.rule.plus_part
            shares.setdefault(name, {}).update(enumerate(np.split(zeros, count)[:added]))
            counts[name] = count
    lacking = [name for name, parts in shares.items() if len(parts) != counts[name]]
    if lacking:
        raise ValueError(f"{_kind(model)} has only a part of {chosen}'s {', '.join(lacking)}, which cannot be exported")
    return {
        name: np.ascontiguousarray(parts[0] if len(parts) == 1 else np.concatenate([parts[n] for n in sorted(parts)]))
        for name, parts in shares.items()
    }


def transfer(
    model: Any, variables: Mapping[str, Any], x: Any = None, *, new: str = r"logits/.*", seed: int = 0
) -> Imported:
    """Variables of a model from those of a similar one of ours: another head, another block on top.

    Leaves whose path matches `new` are drawn anew; all others are copied, and each must be there.

    Args:
        model: the model that shall be trained.
        variables: {"params": ..., "batch_stats": ...} of the other one.
        x: one batch as the model takes it, or its shape; the registry's example input when None.
        new: regular expression for paths that may differ between the two, and are not copied.
        seed: of what is drawn anew.

    Raises:
        ValueError: a path is in one of them only, or of another shape, and `new` does not allow it; `new` is no regular
            expression.
    """
    x = _example(model, x)
    template, given = flat(_abstract(model, x)), flat(variables)
    renewed = _expression("new", new)
    fresh = [key for key in template if renewed.fullmatch(key[1])]
    problems = differences(template, given, renewed)
    if problems:
        raise ValueError(f"the variables do not fit {_kind(model)} outside {new!r}: {problems}")
    drawn = _drawn(model, x, seed, fresh)
    leaves = {
        key: drawn[key] if key in drawn else jnp.asarray(given[key], leaf.dtype) for key, leaf in template.items()
    }
    left = tuple(path for key, path in given if (key, path) not in template or (key, path) in drawn)
    return Imported(nested(leaves), "jaxdl", tuple(path for _, path in fresh), left)


# ---- where each leaf stands in the peer's weights ---------------------------------------------------------


class _Place(NamedTuple):
    key: Key
    rule: Rule
    names: tuple[str, ...]  # one, or one for each layer of a stacked leaf
    added: tuple[str, ...]  # the names of `plus`, as many, or none
    stacked: bool
    shape: tuple[int, ...]  # ours, of one layer
    wanted: dict[str, tuple[int, ...]]  # the peer's name -> its shape

    def take(self, given: Mapping[str, np.ndarray]) -> np.ndarray:
        layers = []
        for number, name in enumerate(self.names):
            value = given[name]
            if self.added:
                value = value + first_parts(given[self.added[number]], *self.rule.plus_part)
            which, count = self.rule.part
            layers.append(self.rule.layout.to_ours(np.split(value, count)[which], self.shape))
        return np.stack(layers) if self.stacked else layers[0]


def _places(model: Any, peer: str, leaves: Mapping[Key, Any]) -> list[_Place]:
    described = _described(model, peer)
    places = []
    for key, leaf in leaves.items():
        found = ((rule, re.fullmatch(rule.ours, key[1])) for rule in described.rules)
        rule, match = next(((rule, match) for rule, match in found if match), (None, None))
        if rule is None or match is None:
            raise ValueError(f"{_kind(model)} has no rule for its leaf {key[1]} among those for {peer}'s names")
        name = rule.peer(match) if callable(rule.peer) else match.expand(rule.peer)
        added = "" if rule.plus is None else match.expand(rule.plus)
        stacked = "*" in name
        shape = tuple(leaf.shape)[1:] if stacked else tuple(leaf.shape)
        layers = range(leaf.shape[0]) if stacked else range(1)
        names = tuple(name.replace("*", str(layer)) for layer in layers)
        plus = tuple(added.replace("*", str(layer)) for layer in layers) if added else ()
        theirs = jax.eval_shape(rule.layout.to_peer, jax.ShapeDtypeStruct(shape, leaf.dtype)).shape
        whole = (theirs[0] * rule.part[1], *theirs[1:]) if theirs else theirs
        places.append(_Place(key, rule, names, plus, stacked, shape, dict.fromkeys((*names, *plus), whole)))
    return places


def _peer(
    model: Any, template: Mapping[Key, Any], given: Mapping[str, Any], peer: str | None
) -> tuple[str, Peer, list[_Place]]:
    """The peer asked for, or the one that knows most of the names."""
    places: dict[str, list[_Place]] = {}
    for name in [peer] if peer is not None else _peers(model):
        try:
            places[name] = _places(model, name, template)
        except ValueError as error:  # a peer may lack some of the options: keras has no VGG with batch norm
            refusal = error
    if not places:
        raise refusal
    known = {name: sum(n in given for place in found for n in place.names) for name, found in places.items()}
    best = max(places, key=lambda name: known[name])
    return best, _described(model, best), places[best]


def _peers(model: Any) -> Peers:
    peers: Peers = getattr(type(model), "peers", {})
    if not peers:
        raise ValueError(f"{_kind(model)} has no peer whose weights could be imported or exported")
    return peers


def _described(model: Any, peer: str) -> Peer:
    peers = _peers(model)
    if peer not in peers:
        raise ValueError(f"{_kind(model)} knows the names of {', '.join(peers)}, not of {peer!r}")
    return peers[peer](model)


def _named(weights: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """name -> numpy array, without torch's counters and without the prefix of its parallel wrappers."""
    names = [name for name in weights if not name.endswith("num_batches_tracked")]
    prefix = "module." if names and all(name.startswith("module.") for name in names) else ""
    return {name.removeprefix(prefix): _numpy(weights[name]) for name in names}


def _numpy(value: Any) -> np.ndarray:
    if hasattr(value, "detach"):  # a tensor of torch, perhaps with a gradient, perhaps bfloat16, which numpy lacks
        value = value.detach().cpu()
        value = value.float() if str(value.dtype) == "torch.bfloat16" else value
    return np.asarray(value)


# ---- trees ------------------------------------------------------------------------------------------------


def _example(model: Any, x: Any) -> Any:
    """The batch that the model is started with, as shapes."""
    if x is None:
        place = (type(model).__module__.rpartition(".")[2], _kind(model))
        name = next((name for name, entry in MODELS.items() if (entry.module, entry.kind) == place), None)
        if name is None:
            raise ValueError(f"{_kind(model)} is not in the registry: say what it takes, such as x=(1, 224, 224, 3)")
        return example_input(name)
    if isinstance(x, tuple) and all(isinstance(size, int) for size in x):
        return jax.ShapeDtypeStruct(x, jnp.float32)
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(np.shape(leaf), jnp.asarray(leaf).dtype), x)


def _init(model: Any, x: Any) -> Callable[[Array], Variables]:
    def init(key: Array) -> Variables:
        blank = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), x)
        return dict(flax.linen.meta.unbox(model.init({"params": light_key(key)}, blank, train=False)))

    return init


def _abstract(model: Any, x: Any) -> Variables:
    return jax.eval_shape(_init(model, x), jax.random.key(0))


def _drawn(model: Any, x: Any, seed: int, keys: Iterable[Key]) -> dict[Key, Array]:
    """The leaves of some paths as the model itself draws them; nothing else is computed."""
    chosen = list(keys)
    if not chosen:
        return {}
    values = jax.jit(lambda key: [flat(_init(model, x)(key))[each] for each in chosen])(jax.random.key(seed))
    return dict(zip(chosen, values, strict=True))


def _one_axis(a: tuple[int, ...], b: tuple[int, ...]) -> bool:
    """Whether two shapes differ in the length of one axis only, as heads of different numbers of classes do."""
    return len(a) == len(b) and sum(m != n for m, n in zip(a, b, strict=True)) == 1


def _expression(option: str, pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except re.error as error:
        raise ValueError(f"{option}={pattern!r} is no regular expression: {error}") from error


def _kind(model: Any) -> str:
    return type(model).__name__
