"""Named places in a model where values and their gradients can be read."""

from __future__ import annotations

import flax.linen as linen
import jax

Array = jax.Array


def tap(module: linen.Module, name: str, x: Array) -> Array:
    """Name a stage of a model: `x = tap(self, "c3", x)`. It is `x`, and costs nothing unless somebody listens.

    - `module.apply(variables, x, train=False, mutable=["intermediates"])` also returns the stages' values, each a tuple
      with one entry per call.
    - A variable `perturbations/<name>` of x's shape, handed in with the others, is added to x; with zeros the values
      stay the same and its gradient is dL/dx.

    No variable is created at init. A stage may have the name of the module that computes it, which linen's own `sow`
    refuses.
    """
    scope = module.scope
    assert scope is not None, "a stage is reached within a call, where the module is bound"
    if scope.is_mutable_collection("intermediates"):
        scope.put_variable("intermediates", name, (*scope.get_variable("intermediates", name, ()), x))
    if module.has_variable("perturbations", name):
        x = x + module.get_variable("perturbations", name)
    return x
