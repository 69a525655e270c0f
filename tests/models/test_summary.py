"""The table of a network: every parameter and every FLOP in one row, shapes as they come out."""

from __future__ import annotations

import flax.linen as linen
import jax
import jax.numpy as jnp
import pytest

import jaxdl
from jaxdl.core.cost import cost_of, flops_by_scope
from jaxdl.models import create_model

TINY = {"num_classes": 10, "width": 16, "depths": (1, 1)}


def test_a_resnet_row_by_row():
    summary = jaxdl.summarize(create_model("resnet18", **TINY), (2, 32, 32, 3))
    rows = {part.path: part for part in summary.parts}
    assert list(rows) == ["c1_conv", "c1_norm", "c2_block0", "c3_block0", "logits", ""]
    assert rows["c1_conv"].outputs == ((2, 16, 16, 16),) and rows["c3_block0"].outputs == ((2, 4, 4, 32),)
    assert rows["c1_conv"].flops == 2 * (2 * 16 * 16 * 16) * (7 * 7 * 3)
    assert rows["c1_conv"].parameters == 7 * 7 * 3 * 16 and rows["logits"].parameters == 330
    assert rows["c2_block0"].kind == "ResidualBlock" and rows["c2_block0"].parameters == 2 * 9 * 256 + 4 * 16
    assert summary.statistics == 2 * (16 + 2 * 16 + 3 * 32)
    text = str(summary)
    assert "x 2x32x32x3" in text and "c3_block0" in text and "2x4x4x32" in text
    assert f"{summary.parameters:,}" in text.splitlines()[-1]


@pytest.mark.parametrize("depth", [1, 2])
def test_rows_add_up_to_the_whole(depth):
    model = create_model("densenet121", num_classes=10, depths=(2, 1), growth=4, width=8, remat=True)
    summary = jaxdl.summarize(model, jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.bfloat16), depth=depth)
    x = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.bfloat16)
    variables = jax.eval_shape(lambda x: model.init(jax.random.key(0), x, train=False), x)
    whole = cost_of(jax.make_jaxpr(lambda v, x: model.apply(v, x, train=False))(variables, x)).flops
    assert sum(part.flops for part in summary.parts) == summary.flops == whole
    count = sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
    assert sum(part.parameters for part in summary.parts) == summary.parameters == count
    assert ("c2_layer1/conv1" in {part.path for part in summary.parts}) == (depth == 2)


def test_loops_and_branches_count_as_in_the_whole():
    class Turn(linen.Module):
        @linen.compact
        def __call__(self, carry: jax.Array, _: None) -> tuple[jax.Array, None]:
            return linen.Dense(carry.shape[-1], name="dense")(carry), None

    class Looped(linen.Module):
        @linen.compact
        def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
            loop = linen.scan(Turn, variable_broadcast="params", split_rngs={"params": False}, length=5)
            x, _ = loop(name="loop")(x, None)
            return jax.lax.cond(x[0, 0] > 0, lambda y: y @ y.T, lambda y: y @ y.T + 1.0, x)

    model, x = Looped(), jnp.ones((3, 3))
    jaxpr = jax.make_jaxpr(lambda x: model.init_with_output(jax.random.key(0), x, train=False)[0])(x)
    assert sum(flops_by_scope(jaxpr).values()) == cost_of(jaxpr).flops
    rows = {part.path: part for part in jaxdl.summarize(model, (3, 3)).parts}
    assert 5 * (2 * 27 + 9) <= rows["loop"].flops < 6 * (2 * 27 + 9) and rows[""].flops > 2 * 27


def test_a_mapping_of_inputs_and_a_depth_that_cannot_be():
    class Pair(linen.Module):
        @linen.compact
        def __call__(self, x: dict[str, jax.Array], *, train: bool) -> dict[str, jax.Array]:
            left = linen.Dense(2, name="left")(x["a"])
            return {"sum": left + x["b"], "left": left}

    summary = jaxdl.summarize(Pair(), {"a": (4, 3), "b": jnp.ones((4, 2))})
    assert summary.inputs == ((4, 3), (4, 2)) and summary.parts[0].outputs == ((4, 2),)
    with pytest.raises(ValueError, match="depth=0"):
        jaxdl.summarize(Pair(), (1, 2), depth=0)
