"""Stages of a network by name: handed to the debugger as they are reached, and to those who ask for features."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any

import flax.linen as linen
import jax

from jaxdl import nn
from jaxdl.parallel import constrain

Array = jax.Array


class Stages:
    """The stages of one call of a network, for its `__call__`.

        stages = Stages(self, self.features, known=("c1", "c2", "c3", "c4", "c5"))
        x = stages.reached("c1", stem(x))          # tapped, and kept when asked for
        for name, blocks in ...:
            if stages.complete:                    # all features are there: the rest would have no use
                break
            x = stages.reached(name, blocks(x))
        if stages.complete:
            return stages.kept
        return head(x)

    Or, where the whole network shall be computed whatever is asked for: `return stages.result(head(x))`.

    Attributes:
        kept: name -> output of the stages that were asked for and reached, in the order in which they were reached.

    Raises:
        ValueError: a feature that is not known, or one that is asked for twice; the known ones are listed.
    """

    def __init__(self, module: linen.Module, features: Sequence[str], known: Sequence[str]) -> None:
        if isinstance(features, str):
            raise ValueError(f"features is a tuple of names, not a name: features=({features!r},)")
        for number, name in enumerate(features):
            if name not in known:
                near = difflib.get_close_matches(str(name), known, n=1)
                hint = f"; did you mean {near[0]!r}?" if near else ""
                kind = type(module).__name__
                raise ValueError(f"{kind} has no stage {name!r}{hint} (it has {', '.join(known)})")
            if name in features[:number]:
                raise ValueError(f"the feature {name!r} is asked for twice: {tuple(features)}")
        self._module, self._asked, self._known = module, tuple(features), tuple(known)
        self.kept: dict[str, Array] = {}

    def reached(self, name: str, x: Array) -> Array:
        """x, tapped under the stage's name (see `jaxdl.nn.tap`) and kept when the name is among the features.

        On a mesh its first dimension is the batch; XLA decides about the others.
        """
        if name not in self._known:
            raise KeyError(f"{type(self._module).__name__} reached {name!r}, which it does not list as a stage")
        x = nn.tap(self._module, name, constrain(x, "batch", *(None,) * (x.ndim - 1)))
        if name in self._asked:
            self.kept[name] = x
        return x

    @property
    def complete(self) -> bool:
        """Whether features were asked for and all of them have been reached."""
        return bool(self._asked) and len(self.kept) == len(self._asked)

    def result(self, outputs: Any) -> Any:
        """What the network returns: its outputs, or name -> feature when features were asked for."""
        return self.kept if self._asked else outputs
