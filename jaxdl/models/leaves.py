"""Variables as leaves by collection and path, and what one tree of them lacks against another."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

Array = jax.Array
Variables = dict[str, Any]
Key = tuple[str, str]  # (collection, path)


def flat(variables: Mapping[str, Any]) -> dict[Key, Any]:
    """{"params": {"conv": {"kernel": ...}}} -> {("params", "conv/kernel"): ...}."""
    leaves: dict[Key, Any] = {}
    for collection, tree in variables.items():
        for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
            leaves[collection, "/".join(str(getattr(key, "key", key)) for key in path)] = leaf
    return leaves


def differences(
    template: Mapping[Key, Any], given: Mapping[Key, Any], free: re.Pattern[str] = re.compile("(?!)")
) -> str:
    """What leaves lack, have too much or have in another shape than a template, but for those whose path is `free`."""
    bound = {key: leaf for key, leaf in template.items() if not free.fullmatch(key[1])}
    shapes = [
        f"{key[1]}: {np.shape(given[key])}, wanted {leaf.shape}"
        for key, leaf in bound.items()
        if key in given and np.shape(given[key]) != leaf.shape
    ]
    parts = (
        listed("missing", [path for key, path in bound if (key, path) not in given]),
        listed("unexpected", [path for key, path in given if (key, path) not in template and not free.fullmatch(path)]),
        listed("of another shape", shapes),
    )
    return "; ".join(filter(None, parts))


def nested(leaves: Mapping[Key, Array]) -> Variables:
    """The way back of `flat`."""
    variables: Variables = {}
    for (collection, path), value in leaves.items():
        *above, last = path.split("/")
        functools.reduce(lambda tree, name: tree.setdefault(name, {}), above, variables.setdefault(collection, {}))[
            last
        ] = value
    return variables


def listed(what: str, names: list[str]) -> str:
    """Such as "2 missing (a, b)", with the first 20 of them; nothing where there are none."""
    if not names:
        return ""
    more = f" and {len(names) - 20} more" if len(names) > 20 else ""
    return f"{len(names)} {what} ({', '.join(names[:20])}{more})"
