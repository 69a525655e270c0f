"""Groups of parameters with learning rates of their own, by regular expressions on their paths; 0 freezes."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import math
import re
from collections.abc import Mapping
from typing import Any

import flax.linen
import jax
import jax.numpy as jnp
import optax

from jaxdl import nn
from jaxdl.optim.optimizers import Optimizer
from jaxdl.optim.schedules import is_number

Array = jax.Array
PyTree = Any
Factor = float | tuple[str, float]


@dataclasses.dataclass(frozen=True)
class Groups:
    """An optimizer whose rate is multiplied by a factor for each group of parameters; made by `groups`.

    Attributes:
        optimizer: the one that all groups share.
        factors: (regular expression on the whole path, factor); first match wins.
        others: the factor of parameters that no expression matches.
    """

    optimizer: Optimizer
    factors: tuple[tuple[str, Factor], ...]
    others: Factor = 1.0

    @property
    def name(self) -> str:
        """For logs."""
        return f"{self.optimizer.name} in groups"

    @property
    def hyper(self) -> dict[str, float]:
        """The optimizer's numbers, and the factors that have names."""
        named = dict(factor for _, factor in self._every() if isinstance(factor, tuple))
        return {**self.optimizer.hyper, **named}

    @property
    def reads(self) -> frozenset[str]:
        """Every name that is read from hyper."""
        return self.optimizer.reads | frozenset(self.hyper)

    def rate(self, hyper: Mapping[str, Any], step: Array) -> Array:
        """The learning rate of a group with factor 1: [] float32."""
        return self.optimizer.rate(hyper, step)

    def build(self, hyper: Mapping[str, Any], step: Array) -> optax.GradientTransformation:
        """The optimizer's transformation on all that is not frozen, its updates times the factor of their group.

        `init` raises a ValueError where an expression matches no parameter, or none that an earlier one leaves to it.
        """
        inner = optax.with_extra_args_support(self.optimizer.build(hyper, step))

        def trained(tree: PyTree) -> PyTree:
            return jax.tree.map(lambda x, held: optax.MaskedNode() if held else x, tree, self.frozen(tree))

        def init(params: PyTree) -> PyTree:
            self._check([path for path, _ in _paths(params)])
            return inner.init(trained(params))

        def update(gradient: PyTree, state: PyTree, params: PyTree = None, **more: Any) -> tuple[PyTree, PyTree]:
            moved, state = inner.update(trained(gradient), state, trained(params), **more)
            moves = iter(jax.tree.leaves(moved))
            updates = []
            for path, leaf in _paths(gradient):
                factor = self._factor(path)
                if _is_zero(factor):
                    # Adding -0.0 leaves every float as it is, bit for bit; adding 0.0 would turn -0.0 into 0.0.
                    updates.append(jnp.full_like(leaf, -0.0))
                    continue
                move = next(moves)
                value = hyper[factor[0]] if isinstance(factor, tuple) else factor
                updates.append(move if value is factor and factor == 1 else move * jnp.asarray(value, move.dtype))
            return jax.tree.unflatten(jax.tree.structure(gradient), updates), state

        return optax.GradientTransformationExtraArgs(init, update)

    def frozen(self, tree: PyTree) -> PyTree:
        """True for each leaf that stays as it is; of parameters, or of statistics that stand at the same paths."""
        held = [_is_zero(self._factor(path)) for path, _ in _paths(tree)]
        return jax.tree.unflatten(jax.tree.structure(tree), held)

    def training(self) -> contextlib.AbstractContextManager[Any]:
        """Around the network in training: frozen batch norms of linen normalise by their running statistics."""

        def intercept(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
            module = context.module
            if context.method_name == "__call__" and isinstance(module, (nn.BatchNorm, flax.linen.BatchNorm)):
                path = "/".join((*module.path, "mean"))
                if _is_zero(self._factor(path)):
                    own = isinstance(module, nn.BatchNorm)
                    kwargs = {**kwargs, **({"train": False} if own else {"use_running_average": True})}
            return call(*args, **kwargs)

        return flax.linen.intercept_methods(intercept)

    def _every(self) -> tuple[tuple[str, Factor], ...]:
        return (*self.factors, (".*", self.others))

    def _factor(self, path: str) -> Factor:
        return next(factor for pattern, factor in self._every() if re.fullmatch(pattern, path))

    def _check(self, paths: list[str]) -> None:
        free = list(paths)
        for pattern, _ in self.factors:
            if not any(re.fullmatch(pattern, path) for path in paths):
                raise ValueError(f"groups: {pattern!r} matches no parameter; {_nearest(pattern, paths)}")
            taken = [path for path in free if re.fullmatch(pattern, path)]
            if not taken:
                raise ValueError(
                    f"groups: all that {pattern!r} matches is matched by expressions before it, and the first counts: "
                    "put it before them"
                )
            free = [path for path in free if path not in taken]


def groups(factors: Mapping[str, Factor], optimizer: Optimizer, *, others: Factor = 1.0) -> Groups:
    """An optimizer with a factor of the learning rate for each group of parameters.

        groups({"stem/.*": 0, "block[01]/.*": 0.1}, adamw(1e-3))         # frozen, slow, the others at the full rate
        groups({"block3/.*": 1, "logits/.*": 1}, adamw(1e-3), others=0)  # these only: greedy, layer by layer
        groups({"stem/.*": ("stem_factor", 0.1)}, adamw(1e-3))           # fit(..., hyper={"stem_factor": 0.01})

    A factor of 0 freezes: such parameters keep their bits, have no optimizer state and no gradient (their part of the
    backward pass is not computed, and clipping does not count them); batch statistics at matching paths stay as they
    are, and batch norms of flax.linen there normalise by them in training too, as in evaluation.

    Args:
        factors: regular expression that matches the whole path of a parameter ("block0/conv/kernel") -> factor of the
            learning rate, at least 0, or (name, default) for a factor that is a traced number of `hyper` under that
            name. The first match counts.
        optimizer: of `jaxdl.optim`.
        others: the factor of all parameters that no expression matches.

    Raises:
        TypeError: the optimizer is none of `jaxdl.optim`.
        ValueError: no factors, a negative one, a name that the optimizer has already. When the parameters are known:
            an expression that matches nothing, with the nearest paths.
    """
    if not isinstance(optimizer, Optimizer):
        raise TypeError(
            f"groups takes an optimizer of jaxdl.optim, such as adamw(1e-3), whose rate it multiplies, not a "
            f"{type(optimizer).__name__}; a finished optax transformation is partitioned by optax.transforms.partition"
        )
    if not isinstance(factors, Mapping) or not factors:
        raise ValueError('groups takes {expression: factor}, such as {"stem/.*": 0.1}')
    for pattern, factor in (*factors.items(), ("others", others)):
        if isinstance(factor, tuple):
            fits = len(factor) == 2 and isinstance(factor[0], str) and is_number(factor[1])
            if fits and factor[0] in optimizer.reads:
                raise ValueError(
                    f"groups: the factor of {pattern!r} is called {factor[0]!r} as a number of the optimizer"
                )
            value = factor[1] if fits else -1
        else:
            fits, value = is_number(factor), factor
        if not fits or not 0 <= value < math.inf:
            raise ValueError(
                f"groups: the factor of {pattern!r} is {factor!r}: a number of at least 0, or (name, number)"
            )
        try:
            re.compile(pattern)
        except re.error as error:
            raise ValueError(f"groups: {pattern!r} is no regular expression: {error}") from error
    return Groups(optimizer, tuple(factors.items()), others)


def _paths(tree: PyTree) -> list[tuple[str, Any]]:
    found = jax.tree_util.tree_flatten_with_path(tree)[0]
    return [(jax.tree_util.keystr(path, simple=True, separator="/"), leaf) for path, leaf in found]


def _is_zero(factor: Factor) -> bool:
    return not isinstance(factor, tuple) and factor == 0


def _nearest(pattern: str, paths: list[str]) -> str:
    """Parts of the tree whose names are like the words of an expression; without such, the parts at its top."""
    parts = {"/".join(path.split("/")[:depth]): None for path in paths for depth in range(1, path.count("/") + 1)}
    words = re.sub(r"[^\w/]", "", pattern).strip("/")
    near = difflib.get_close_matches(words, parts, n=3, cutoff=0.5)
    if near:
        return "the nearest are " + ", ".join(f"{part}/.*" for part in near)
    top = list(dict.fromkeys(path.split("/")[0] for path in paths))
    return f"parameters are under {', '.join(top[:12])}{' ...' if len(top) > 12 else ''}"
