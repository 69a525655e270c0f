"""How good predicted probabilities are: cross-entropy, log loss, perplexity, Brier score.

The shapes say what is predicted. preds of target's shape are probabilities of label 1 (binary, or each label of many);
preds with one axis more are distributions over classes, target ids. With `from_logits=True` preds are logits, which the
sigmoid or the softmax turns into probabilities; nothing is ever guessed from their values.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from jaxdl.metrics import sums
from jaxdl.metrics.call import one_call
from jaxdl.metrics.inputs import as_float, as_ids, as_mask, as_weight, weighted
from jaxdl.metrics.metric import Derived, Reduce


def distribution(preds: jax.Array, target: jax.Array, name: str) -> int | None:
    """How many classes preds [..., classes] hold, or None where they are one number for each target."""
    if preds.shape == target.shape:
        return None
    if preds.ndim == target.ndim + 1 and preds.shape[:-1] == target.shape and preds.shape[-1] > 1:
        return int(preds.shape[-1])
    raise ValueError(
        f"{name}: preds have shape {preds.shape} and target {target.shape}; give a distribution over the classes "
        f"{(*target.shape, 'classes')}, or the probability of label 1 {target.shape}"
    )


def probable(preds: jax.Array) -> jax.Array:
    """Probabilities as they are; NaN for what is none, such as a logit that was given without from_logits."""
    # sums of float32 numbers may exceed 1 by a few units of the last place
    inside = (preds >= 0) & (preds <= jnp.float32(1 + 2**-18))
    return jnp.where(inside, jnp.minimum(preds, jnp.float32(1)), jnp.full_like(preds, jnp.nan))


def log_likelihood(preds: jax.Array, target: jax.Array, name: str, *, from_logits: bool) -> tuple[jax.Array, jax.Array]:
    """(log p of every outcome [..., outcomes], target ids); two outcomes where preds have target's shape."""
    if distribution(preds, target, name) is None:
        if from_logits:
            return jnp.stack([jax.nn.log_sigmoid(-preds), jax.nn.log_sigmoid(preds)], axis=-1), target
        chance = probable(preds)
        return jnp.stack([jnp.log1p(-chance), jnp.log(chance)], axis=-1), target
    return (jax.nn.log_softmax(preds, axis=-1) if from_logits else jnp.log(probable(preds))), target


def counting(
    target: jax.Array, valid: jax.Array, weight: Any, mask: Any, ignore_index: int | None, name: str
) -> tuple[jax.Array, jax.Array]:
    """(the weight of each example that counts, the weight of each that is left out as invalid), of target's shape."""
    keep = None if mask is None else as_mask(target.shape, mask, name)
    if ignore_index is not None:
        seen = target != ignore_index
        keep = seen if keep is None else keep & seen
    given = as_weight(target.shape, weight, keep, name)
    given = jnp.ones(target.shape, jnp.float32) if given is None else given
    counted = jnp.where(valid, given, jnp.zeros_like(given))
    return counted, given - counted


@dataclass(frozen=True)
class LogLikelihoods:
    """The sum of -log p(target): the statistic of cross-entropy, log loss and perplexity.

    preds: float [..., classes] with target ids [...], or float [...] (of label 1) with target 0 or 1 [...]. A target
    out of range is left out and counted in `invalid`; one equal to `ignore_index` is left out. `floor`: smaller
    probabilities count as it. `smoothing` e mixes the target with the uniform distribution: (1 - e) [k = target] + e/K.
    """

    from_logits: bool = False
    ignore_index: int | None = None
    floor: float = 0.0
    smoothing: float = 0.0
    name: str = field(default="log_likelihoods", compare=False)
    reduce: ClassVar[Reduce] = "sum"
    inputs: ClassVar[tuple[str, ...]] = ("preds", "target")

    def __post_init__(self) -> None:
        for what, value in (("floor", self.floor), ("label_smoothing", self.smoothing)):
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1:
                raise ValueError(f"{self.name}: {what} must be a number from 0 to below 1; it is {value!r}")

    def init(self, batch_shape: tuple[int, ...] = ()) -> sums.Sums:
        """The empty state: three sums, of weighted losses, of weights, and of the weight that was not valid."""
        return sums.zeros((*batch_shape, 3))

    def update(self, state: sums.Sums, *, preds: Any, target: Any, weight: Any = None, mask: Any = None) -> sums.Sums:
        """Adds a batch; shapes as the class says."""
        preds, target = as_float(preds, f"{self.name}: preds"), as_ids(target, f"{self.name}: target")
        logs, target = log_likelihood(preds, target, self.name, from_logits=self.from_logits)
        valid = (target >= 0) & (target < logs.shape[-1])
        safe = jnp.where(valid, target, jnp.zeros_like(target))[..., None]
        floor = math.log(self.floor) if self.floor else -math.inf
        chosen = jnp.maximum(jnp.take_along_axis(logs, safe, axis=-1)[..., 0], jnp.float32(floor))
        loss = -chosen
        if self.smoothing:
            share = jnp.float32(self.smoothing)
            loss = (jnp.float32(1) - share) * loss - share * jnp.mean(jnp.maximum(logs, jnp.float32(floor)), axis=-1)
        # one bad number spoils the distribution, even where the target's own probability is sound
        loss = jnp.where(jnp.any(jnp.isnan(logs), axis=-1), jnp.full_like(loss, jnp.nan), loss)
        counted, lost = counting(target, valid, weight, mask, self.ignore_index, self.name)
        return sums.add(state, sums.total(jnp.stack([*weighted(loss, counted), lost.reshape(-1)])))

    def merge(self, a: sums.Sums, b: sums.Sums) -> sums.Sums:
        """Both in one."""
        return sums.add(a, b)

    def mean(self, state: sums.Sums) -> jax.Array:
        """The mean loss in nats, float32 []; NaN when nothing was counted."""
        return sums.ratio(sums.pick(state, 0), sums.pick(state, 1))

    def invalid(self, state: sums.Sums) -> jax.Array:
        """The weight of examples left out because their target was no class, float32 []."""
        return sums.value(sums.pick(state, 2))


@dataclass(frozen=True)
class CrossEntropy(Derived):
    """The mean of -log p(target), in nats: sum(weight * -log p) / sum(weight); infinite where p is 0.

    preds: distributions [..., classes] with target ids [...], or the probability of label 1 [...] with target 0 or 1
    [...] (binary, or many labels). `from_logits=True`: preds are logits. Without it a number outside [0, 1] makes the
    result NaN. Rows are taken as they are, not divided by their sum. A target equal to `ignore_index` is left out; any
    other that is no class too, counted in `invalid`. label_smoothing e: the target is (1 - e) [k = target] + e / K.

    >>> import jax.numpy as jnp
    >>> from jaxdl.metrics import cross_entropy
    >>> round(float(cross_entropy(jnp.array([[0.0, 0.0], [0.0, 0.0]]), jnp.array([0, 1]), from_logits=True)), 4)
    0.6931
    """

    from_logits: bool = False
    ignore_index: int | None = None
    label_smoothing: float = 0.0
    name: str = "cross_entropy"

    def __post_init__(self) -> None:
        _ = self.statistic  # checks the configuration

    @property
    def statistic(self) -> LogLikelihoods:
        """The sum of the losses."""
        return LogLikelihoods(self.from_logits, self.ignore_index, smoothing=self.label_smoothing, name=self.name)

    def compute(self, state: sums.Sums) -> jax.Array:
        """The mean loss in nats, float32 []."""
        return self.statistic.mean(state)


@dataclass(frozen=True)
class Perplexity(Derived):
    """exp of the cross-entropy: among how many equally likely classes (tokens) the model seems to choose.

    preds, target, `from_logits` and `ignore_index` (padding): see `CrossEntropy`, with which it shares its state.

    >>> import jax.numpy as jnp
    >>> from jaxdl.metrics import perplexity
    >>> round(float(perplexity(jnp.zeros((1, 3, 8)), jnp.array([[3, 5, -1]]), from_logits=True, ignore_index=-1)), 3)
    8.0
    """

    from_logits: bool = False
    ignore_index: int | None = None
    name: str = "perplexity"

    @property
    def statistic(self) -> LogLikelihoods:
        """The sum of the losses."""
        return LogLikelihoods(self.from_logits, self.ignore_index, name=self.name)

    def compute(self, state: sums.Sums) -> jax.Array:
        """The perplexity, float32 [], from 1."""
        with jax.enable_x64(True):  # exp makes a relative error of what was an absolute one
            total = sums.wide(state)
            none = total[1] == 0
            mean = jnp.where(none, jnp.full_like(total[0], jnp.nan), total[0] / jnp.where(none, 1.0, total[1]))
            return jnp.exp(mean).astype(jnp.float32)


@dataclass(frozen=True)
class LogLoss(Derived):
    """The cross-entropy with probabilities kept above `floor`, so that one sure mistake does not make it infinite.

    sum(weight * -log max(p, floor)) / sum(weight). The floor is the one that scikit-learn takes for float32
    probabilities, 2^-23 (it takes 2^-52 for float64); with floor=0 it is `CrossEntropy`. preds, target and
    `from_logits`: see there.

    >>> import jax.numpy as jnp
    >>> from jaxdl.metrics import log_loss
    >>> round(float(log_loss(jnp.array([0.9, 0.2, 0.0]), jnp.array([1, 0, 1]))), 4)
    5.4236
    """

    from_logits: bool = False
    ignore_index: int | None = None
    floor: float = 2.0**-23
    name: str = "log_loss"

    def __post_init__(self) -> None:
        _ = self.statistic  # checks the configuration

    @property
    def statistic(self) -> LogLikelihoods:
        """The sum of the losses."""
        return LogLikelihoods(self.from_logits, self.ignore_index, floor=self.floor, name=self.name)

    def compute(self, state: sums.Sums) -> jax.Array:
        """The mean loss in nats, float32 []."""
        return self.statistic.mean(state)


@dataclass(frozen=True)
class BrierScore:
    """The mean squared error of probabilities (Brier, 1950): 0 is perfect.

    preds [...] of label 1, target 0 or 1 [...]: sum(weight * (p - y)^2) / sum(weight), from 0 to 1. preds
    [..., classes], target ids [...]: sum(weight * sum_k (p_k - [k = target])^2) / sum(weight), Brier's own, from 0 to 2
    (`halved` halves it, so that two classes give what one probability gives). `from_logits=True`: preds are logits.
    Without it a number outside [0, 1] makes the result NaN. A target that is no class is left out and counted in
    `invalid`, one equal to `ignore_index` only left out. NaN when nothing was counted.

    >>> import jax.numpy as jnp
    >>> from jaxdl.metrics import brier_score
    >>> round(float(brier_score(jnp.array([0.1, 0.9, 0.8, 0.3]), jnp.array([0, 1, 1, 0]))), 4)
    0.0375
    """

    from_logits: bool = False
    halved: bool = False
    ignore_index: int | None = None
    name: str = "brier_score"
    reduce: ClassVar[Reduce] = "sum"
    inputs: ClassVar[tuple[str, ...]] = ("preds", "target")

    def init(self, batch_shape: tuple[int, ...] = ()) -> sums.Sums:
        """The empty state: three sums, of weighted squares, of weights, and of the weight that was not valid."""
        return sums.zeros((*batch_shape, 3))

    def update(self, state: sums.Sums, *, preds: Any, target: Any, weight: Any = None, mask: Any = None) -> sums.Sums:
        """Adds a batch; shapes as the class says."""
        preds, target = as_float(preds, f"{self.name}: preds"), as_ids(target, f"{self.name}: target")
        classes = distribution(preds, target, self.name)
        if classes is None:
            chance = jax.nn.sigmoid(preds) if self.from_logits else probable(preds)
            squares = jnp.square(chance - target.astype(jnp.float32))
        else:
            chance = jax.nn.softmax(preds, axis=-1) if self.from_logits else probable(preds)
            truth = jax.nn.one_hot(target, classes, dtype=jnp.float32)
            squares = jnp.sum(jnp.square(chance - truth), axis=-1) * jnp.float32(0.5 if self.halved else 1)
        valid = (target >= 0) & (target < (classes or 2))
        counted, lost = counting(target, valid, weight, mask, self.ignore_index, self.name)
        return sums.add(state, sums.total(jnp.stack([*weighted(squares, counted), lost.reshape(-1)])))

    def merge(self, a: sums.Sums, b: sums.Sums) -> sums.Sums:
        """Both in one."""
        return sums.add(a, b)

    def compute(self, state: sums.Sums) -> jax.Array:
        """The score, float32 []."""
        return sums.ratio(sums.pick(state, 0), sums.pick(state, 1))

    def invalid(self, state: sums.Sums) -> jax.Array:
        """The weight of examples left out because their target was no class, float32 []."""
        return sums.value(sums.pick(state, 2))


cross_entropy = one_call(CrossEntropy, "cross_entropy")
perplexity = one_call(Perplexity, "perplexity")
log_loss = one_call(LogLoss, "log_loss")
brier_score = one_call(BrierScore, "brier_score")
