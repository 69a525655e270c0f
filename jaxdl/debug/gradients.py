"""Gradient checking: does the gradient that trains equal the slope of the loss?"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdl.core.keys import step_key
from jaxdl.core.task import Batch, Context, Hyper, PyTree, Task, Variables
from jaxdl.debug.widen import run_widened

DIRECTION = "a direction through all"


@dataclasses.dataclass(frozen=True)
class BlockCheck:
    """How one parameter block fared.

    Attributes:
        path: where it stands under "params": "conv0/kernel".
        error: the largest relative error of its probes.
        where: the index of that probe, or "a direction through all" elements of the block.
        autodiff: the derivative there that autodiff gives.
        numeric: the slope there.
        probes: slopes compared.
        kinks: of these, how many lay on a kink, where the slope has no single value.
        size: elements in the block.
    """

    path: str
    error: float
    where: tuple[int, ...] | str
    autodiff: float
    numeric: float
    probes: int
    kinks: int
    size: int


@dataclasses.dataclass(frozen=True)
class GradientReport:
    """What `check_gradients` found; `print(report)` shows a table, the worst block first.

    Attributes:
        blocks: one record per parameter block, in the order of the tree.
        tolerance: the largest relative error that passes.
        loss: the loss that was differentiated.
    """

    blocks: tuple[BlockCheck, ...]
    tolerance: float
    loss: float

    @property
    def worst(self) -> BlockCheck:
        """The block with the largest error; nan is the largest of all."""
        return max(self.blocks, key=lambda block: math.inf if math.isnan(block.error) else block.error)

    @property
    def passed(self) -> bool:
        """True when every block's error is at most the tolerance."""
        return all(block.error <= self.tolerance for block in self.blocks)

    def __str__(self) -> str:
        width = max(len("block"), *(len(block.path) for block in self.blocks))
        header = f"{'block':<{width}}  {'error':>9}  {'autodiff':>12}  {'slope':>12}  probes  kinks  where"
        ranked = sorted(self.blocks, key=lambda block: -math.inf if math.isnan(block.error) else -block.error)
        rows = [
            f"{block.path:<{width}}  {block.error:>9.1e}  {block.autodiff:>12.5g}  {block.numeric:>12.5g}  "
            f"{block.probes:>6}  {block.kinks:>5}  {block.where}{'' if block.error <= self.tolerance else '  WRONG'}"
            for block in ranked
        ]
        verdict = "passed" if self.passed else f"FAILED: {self.worst.path} is off by {self.worst.error:.1e}"
        return "\n".join([header, *rows, f"{verdict} (tolerance {self.tolerance:g})"])


def check_gradients(
    task: Task,
    variables: Variables,
    batch: Batch,
    *,
    eps: float = 1e-5,
    samples_per_block: int = 8,
    seed: int = 0,
    tolerance: float = 1e-4,
    train: bool = True,
    hyper: Mapping[str, float] | None = None,
) -> GradientReport:
    """Compare autodiff with central differences of the loss, per parameter block.

    The program is traced as it trains, then both the gradient and the loss are evaluated in float64, so casts to
    float32 or bfloat16 inside the model do not drown the differences. In each block it probes the element with the
    largest gradient, `samples_per_block` random ones, and one random direction through all elements, which sees an
    error wherever it is. For a probe with derivative a and slope n = (f(w + eps) - f(w - eps)) / (2 eps),

        error = |a - n| / max(|a|, |n|, floor)
        floor = max(1e-3 * the block's largest |a|, 1e-6 * the largest |a| of all, 1e-6 * |loss|)

    Kinks (relu, max, abs): a probe that disagrees is tried again at eps/10 and eps/100, which steps over kinks nearby;
    if the two one-sided slopes still differ and the derivative lies between them, as a subgradient does, the probe
    counts as a kink and not as an error. Functions that mean to differ from their slope (stop_gradient,
    straight-through estimators) are reported as errors: their derivative is not that of the loss.

    Args:
        task: any Task.
        variables: {"params": ..., untrained collections}; every collection but "params" stays as it is.
        batch: columns by name; "weight" [batch], where given, weighs the examples.
        eps: the step, for parameters of size 1.
        samples_per_block: random elements probed in each block.
        seed: of the probes, and of the keys that the task draws (the dropout mask is the same in every evaluation).
        tolerance: the largest relative error that passes.
        train: check the training loss (batch statistics, dropout) or the evaluated one.
        hyper: numbers that the task may read.

    Returns:
        A GradientReport; `report.passed`, `report.worst.path`, `print(report)`.

    Raises:
        ValueError: there are no floating-point parameters, or the loss is not finite.
    """
    params = {path: np.asarray(leaf) for path, leaf in _flat(variables["params"])}
    if not params or not all(jnp.issubdtype(leaf.dtype, jnp.floating) for leaf in params.values()):
        raise ValueError("check_gradients differentiates floating-point parameters, and variables['params'] has others")
    objective = _objective(task, variables, batch, seed=seed, train=train, hyper=hyper or {})
    leaves, structure = jax.tree.flatten(variables["params"])
    with jax.enable_x64(False):
        program = jax.make_jaxpr(jax.value_and_grad(lambda leaves: objective(jax.tree.unflatten(structure, leaves))))(
            leaves
        )
        forward = jax.make_jaxpr(lambda leaves: objective(jax.tree.unflatten(structure, leaves)))(leaves)
    with jax.enable_x64(True):
        run = jax.jit(lambda leaves: run_widened(forward, leaves)[0])
        wide = [leaf.astype(np.float64) for leaf in params.values()]
        loss, *gradients = map(np.asarray, jax.jit(lambda leaves: run_widened(program, leaves))(wide))
        if not np.isfinite(loss):
            raise ValueError(f"the loss of this batch is {float(loss)}: there is no gradient to check")
        largest = max(float(np.max(np.abs(gradient), initial=0.0)) for gradient in gradients)
        blocks = []
        for number, (path, gradient) in enumerate(zip(params, gradients, strict=True)):
            probes = _probes(gradient, samples_per_block, np.random.default_rng([seed, number]))

            def slope_of(direction: np.ndarray, number: int = number) -> Callable[[float], float]:
                def value(step: float) -> float:
                    return float(run([*wide[:number], wide[number] + step * direction, *wide[number + 1 :]]))

                return value

            floor = max(1e-3 * float(np.max(np.abs(gradient), initial=0.0)), 1e-6 * largest, 1e-6 * abs(float(loss)))
            results = [
                (where, *_compare(slope_of(direction), float(loss), derivative, eps, floor, tolerance))
                for where, direction, derivative in probes
            ]
            worst = max(results, key=lambda result: math.inf if math.isnan(result[1]) else result[1])
            kinks = sum(result[4] for result in results)
            blocks.append(BlockCheck(path, worst[1], worst[0], worst[2], worst[3], len(results), kinks, gradient.size))
    return GradientReport(tuple(blocks), tolerance, float(loss))


def _objective(
    task: Task, variables: Variables, batch: Batch, *, seed: int, train: bool, hyper: Mapping[str, float]
) -> Callable[[PyTree], jax.Array]:
    """params -> the weighted mean loss and its extra terms, as the training step computes them."""
    columns = {name: jnp.asarray(column) for name, column in batch.items() if name not in ("weight", "part")}
    examples = next(iter(columns.values())).shape[0]
    weight = jnp.asarray(batch["weight"], jnp.float32) if "weight" in batch else jnp.ones(examples, jnp.float32)
    numbers = {name: jnp.float32(value) for name, value in hyper.items()}
    step = jnp.int32(0)
    context = Context(train, lambda name: step_key(jnp.uint32(seed), name, step), step, Hyper(numbers), weight)
    untrained = {name: tree for name, tree in variables.items() if name != "params"}

    def objective(params: PyTree) -> jax.Array:
        loss = task.loss({"params": params, **untrained}, columns, context)
        weights = jnp.broadcast_to(weight.reshape(-1, *(1,) * (loss.value.ndim - 1)), loss.value.shape)
        if loss.weight is not None:
            weights = weights * loss.weight
        total = jnp.sum(jnp.where(weights > 0, loss.value * weights, jnp.zeros_like(weights)))
        mean = total / jnp.sum(weights)
        return sum((term.astype(mean.dtype) for term in loss.extra.values()), mean)

    return objective


def _probes(
    gradient: np.ndarray, samples: int, rng: np.random.Generator
) -> list[tuple[tuple[int, ...] | str, np.ndarray, float]]:
    """(where, direction, derivative along it): the steepest element, random ones, one direction through all."""
    if gradient.size == 0:
        raise ValueError("a parameter block has no elements: there is nothing to check")
    chosen = {int(np.argmax(np.abs(gradient)))}
    chosen |= set(rng.choice(gradient.size, min(samples, gradient.size), replace=False).tolist())
    probes: list[tuple[tuple[int, ...] | str, np.ndarray, float]] = []
    for flat in sorted(chosen):
        index = tuple(map(int, np.unravel_index(flat, gradient.shape)))
        direction = np.zeros_like(gradient)
        direction[index] = 1.0
        probes.append((index, direction, float(gradient[index])))
    if gradient.size > len(probes):
        direction = rng.normal(size=gradient.shape)
        direction /= np.linalg.norm(direction)
        probes.append((DIRECTION, direction, float(np.sum(direction * gradient))))
    return probes


def _compare(
    value: Callable[[float], float], centre: float, derivative: float, eps: float, floor: float, tolerance: float
) -> tuple[float, float, float, bool]:
    """(relative error, derivative, slope, lies on a kink) of one probe."""
    tries = []
    for step in (eps, eps / 10, eps / 100):
        above, below = value(step), value(-step)
        slope = (above - below) / (2 * step)
        error = abs(derivative - slope) / max(abs(derivative), abs(slope), floor)
        if error <= tolerance:
            return error, derivative, slope, False
        tries.append((error, slope, (above - centre) / step, (centre - below) / step))
    error, slope, right, left = tries[1]
    scale = max(abs(right), abs(left), floor)
    between = min(left, right) - tolerance * scale <= derivative <= max(left, right) + tolerance * scale
    if abs(right - left) > 100 * tolerance * scale and between:
        return 0.0, derivative, slope, True
    return error, derivative, slope, False


def _flat(tree: PyTree) -> list[tuple[str, Any]]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return [(jax.tree_util.keystr(path, simple=True, separator="/"), leaf) for path, leaf in leaves]
