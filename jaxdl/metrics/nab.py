"""The score of the Numenta Anomaly Benchmark: anomaly scores in series, rewarded for early detection in windows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxdl.metrics import sums
from jaxdl.metrics.anomaly import points_of_series
from jaxdl.metrics.call import one_call
from jaxdl.metrics.inputs import as_float, as_ids, same_shape
from jaxdl.metrics.metric import Reduce
from jaxdl.metrics.ranking_order import ordered

Profile = Literal["standard", "reward_low_FP_rate", "reward_low_FN_rate"]
#: (weight of a window found, of a false positive, of a window missed)
PROFILES = {
    "standard": (1.0, 0.11, 1.0),
    "reward_low_FP_rate": (1.0, 0.22, 1.0),
    "reward_low_FN_rate": (1.0, 0.11, 2.0),
}
# Longer series are on probation no longer than one of this many points.
_LONGEST = 5000


class ThresholdGains(NamedTuple):
    """What the sweep remembers: by how much the raw score changes once the threshold falls to a point's score.

    Attributes:
        key: uint32 [..., capacity], the scores in an order-preserving code.
        gain: float32 [..., capacity], 0 where nothing is stored.
        length: int32 [...], how many gains were seen; capacity + 1 means that they did not fit.
        undefined: bool [...], whether a score was NaN.
        windows: the weight of windows, and of series left out, [..., 2].
    """

    key: jax.Array
    gain: jax.Array
    length: jax.Array
    undefined: jax.Array
    windows: sums.Sums


@dataclass(frozen=True)
class NABScore:
    """The NAB score at the best threshold: 100 finds every window at its first point, 0 flags nothing.

    A point is flagged when its score is at least the threshold, one for all series. A window is worth what its earliest
    flagged point is, s(y) = 2 / (1 + exp(5 y)) - 1 at y from -1 (first point) to just below 0 (last), over s(-1); a
    missed one costs; a flag outside costs s(distance behind the last window / (its width - 1)), and all of it beyond 3
    widths and before the first window (Lavin and Ahmad, 2015). The raw score is scaled so that the detector that never
    flags has 0 and the perfect one 100; it may be negative at a given threshold, not at the best.

    profile: "standard", "reward_low_FP_rate" (false positives cost double) or "reward_low_FN_rate" (missed windows cost
    double). The first `probation` of each series, 15 % but at most of 5,000 points, does not count.

    preds: anomaly scores float [series, time]; target: int of the same shape, 0 outside of windows and the same
    positive number all along a window (`nab_windows` makes them); a series with a negative number is left out and
    counted in `invalid`. `mask` [series] or [series, time] pads series at their ends; `weight` is one for each series.

    The maximum over thresholds needs one sort: each point carries by how much the raw score changes when it joins.
    `capacity` is how many such changes fit, at most one for each point behind probation; more give NaN, and
    `overflowed` tells. NaN without windows or with a NaN score.

    >>> import jax.numpy as jnp
    >>> from jaxdl.metrics import nab_score
    >>> windows = jnp.array([[0, 0, 0, 0, 1, 1, 1, 1, 0, 0]])
    >>> scores = jnp.array([[0.1, 0.0, 0.2, 0.1, 0.9, 0.3, 0.1, 0.1, 0.0, 0.1]])
    >>> float(nab_score(scores, windows))
    100.0
    """

    capacity: int
    profile: Profile = "standard"
    probation: float = 0.15
    name: str = "nab_score"
    reduce: ClassVar[Reduce] = "gather"
    inputs: ClassVar[tuple[str, ...]] = ("preds", "target")

    def __post_init__(self) -> None:
        _check(self.name, self.profile, self.probation)
        capacity = self.capacity
        if isinstance(capacity, bool) or not isinstance(capacity, int | np.integer) or not 1 <= capacity < 2**30:
            raise ValueError(f"{self.name}: capacity must be an integer from 1 to 2^30 - 1; it is {capacity!r}")

    def init(self, batch_shape: tuple[int, ...] = ()) -> ThresholdGains:
        """The empty buffer."""
        return ThresholdGains(
            key=jnp.zeros((*batch_shape, self.capacity), jnp.uint32),
            gain=jnp.zeros((*batch_shape, self.capacity), jnp.float32),
            length=jnp.zeros(batch_shape, jnp.int32),
            undefined=jnp.zeros(batch_shape, jnp.bool_),
            windows=sums.zeros((*batch_shape, 2)),
        )

    def update(
        self, state: ThresholdGains, *, preds: Any, target: Any, weight: Any = None, mask: Any = None
    ) -> ThresholdGains:
        """Adds series: scores and windows [series, time]."""
        points = _points(self.name, preds, target, weight, mask, PROFILES[self.profile], self.probation)
        stored = self._append(state, ordered(points.scores).reshape(-1), points.gain.reshape(-1))
        broken = jnp.any(jnp.isnan(points.scores) & (points.gain != 0))
        return stored._replace(
            undefined=state.undefined | broken, windows=sums.add(state.windows, sums.total(points.windows))
        )

    def _append(self, state: ThresholdGains, key: jax.Array, gain: jax.Array) -> ThresholdGains:
        """Puts the gains [n] that are not 0 behind those stored; what does not fit shows in the length."""
        keep = gain != 0
        count = jnp.cumsum(keep, dtype=jnp.int32)
        place = jnp.where(keep, state.length + count - 1, jnp.full_like(count, self.capacity))
        new = count[-1] if count.shape[0] else jnp.zeros((), jnp.int32)
        return state._replace(
            key=state.key.at[place].set(key, mode="drop"),
            gain=state.gain.at[place].set(gain, mode="drop"),
            length=jnp.minimum(state.length + new, jnp.int32(self.capacity + 1)),
        )

    def merge(self, a: ThresholdGains, b: ThresholdGains) -> ThresholdGains:
        """Both in one."""
        append = self._append
        for _ in range(a.length.ndim):
            append = jax.vmap(append)
        stored = append(a, b.key, b.gain)
        # b may have overflowed itself: its length then says so, though its buffer holds only `capacity`
        return stored._replace(
            length=jnp.minimum(a.length + b.length, jnp.int32(self.capacity + 1)),
            undefined=a.undefined | b.undefined,
            windows=sums.add(a.windows, b.windows),
        )

    def compute(self, state: ThresholdGains) -> jax.Array:
        """The score, at most 100, float32 []."""
        return self.best(state)["score"]

    def best(self, state: ThresholdGains) -> dict[str, jax.Array]:
        """The best "score" and the "threshold" that reaches it (infinite: flag nothing), float32 [] each."""
        with jax.enable_x64(True):
            shift = np.uint64(32)
            bits = lax.bitcast_convert_type(state.gain, jnp.uint32)
            packed = ((~state.key).astype(jnp.uint64) << shift) | bits.astype(jnp.uint64)
            packed = lax.sort(packed, is_stable=False)
            key = ~(packed >> shift).astype(jnp.uint32)
            gain = lax.bitcast_convert_type(packed.astype(jnp.uint32), jnp.float32).astype(jnp.float64)
            raised = lax.cumsum(gain)
            last = jnp.concatenate([key[1:] != key[:-1], jnp.ones_like(key[:1], jnp.bool_)])
            raised = jnp.where(last, raised, jnp.full_like(raised, -jnp.inf))
            most = jnp.max(raised)
            # the highest threshold that reaches it, found through the codes: they rise as the scores do
            code = jnp.max(jnp.where(raised == most, key, jnp.zeros_like(key)))
            sign = np.uint32(0x80000000)
            threshold = lax.bitcast_convert_type(jnp.where(code >= sign, code ^ sign, ~code), jnp.float32)
            threshold = jnp.where(most > 0, threshold, jnp.full_like(threshold, jnp.inf))
            gained = jnp.maximum(most, jnp.zeros_like(most)).astype(jnp.float32)
        broken = self.overflowed(state) | state.undefined
        score = _scaled(gained, sums.value(sums.pick(state.windows, 0)), PROFILES[self.profile])
        return {
            "score": jnp.where(broken, jnp.full_like(score, jnp.nan), score),
            "threshold": jnp.where(broken | jnp.isnan(score), jnp.full_like(score, jnp.nan), threshold),
        }

    def overflowed(self, state: ThresholdGains) -> jax.Array:
        """Whether more changes came than `capacity`, bool []."""
        return state.length > self.capacity

    def invalid(self, state: ThresholdGains) -> jax.Array:
        """The weight of series left out because a window's number was negative, float32 []."""
        return sums.value(sums.pick(state.windows, 1))


@dataclass(frozen=True)
class NABScoreAt:
    """The NAB score at a given threshold: streams in four numbers, without a buffer.

    A point is flagged when its score is at least `threshold`. All else as in `NABScore`, whose `best` finds a
    threshold; choosing it on the data that is reported flatters the detector, as NAB itself does.

    >>> import jax.numpy as jnp
    >>> from jaxdl.metrics import nab_score_at
    >>> windows = jnp.array([[0, 0, 0, 0, 1, 1, 1, 1, 0, 0]])
    >>> scores = jnp.array([[0.1, 0.0, 0.2, 0.1, 0.9, 0.3, 0.1, 0.1, 0.0, 0.1]])
    >>> float(nab_score_at(scores, windows, threshold=0.5)), float(nab_score_at(scores, windows, threshold=1.5))
    (100.0, 0.0)
    """

    threshold: float
    profile: Profile = "standard"
    probation: float = 0.15
    name: str = "nab_score_at"
    reduce: ClassVar[Reduce] = "sum"
    inputs: ClassVar[tuple[str, ...]] = ("preds", "target")

    def __post_init__(self) -> None:
        _check(self.name, self.profile, self.probation)

    def init(self, batch_shape: tuple[int, ...] = ()) -> sums.Sums:
        """The empty state: sums of gains above the lowest score, of windows, and of series left out."""
        return sums.zeros((*batch_shape, 3))

    def update(self, state: sums.Sums, *, preds: Any, target: Any, weight: Any = None, mask: Any = None) -> sums.Sums:
        """Adds series: scores and windows [series, time]."""
        points = _points(self.name, preds, target, weight, mask, PROFILES[self.profile], self.probation)
        # of a window's records the gains down to the first flag add up to that flag's own worth
        flagged = jnp.where(points.scores >= jnp.float32(self.threshold), points.gain, jnp.zeros_like(points.gain))
        flagged = jnp.where(jnp.isnan(points.scores) & (points.gain != 0), jnp.full_like(flagged, jnp.nan), flagged)
        gained = sums.total(flagged.reshape(1, -1))
        return sums.add(state, jax.tree.map(lambda *x: jnp.concatenate(x), gained, sums.total(points.windows)))

    def merge(self, a: sums.Sums, b: sums.Sums) -> sums.Sums:
        """Both in one."""
        return sums.add(a, b)

    def compute(self, state: sums.Sums) -> jax.Array:
        """The score, at most 100, float32 []."""
        gained, windows = (sums.value(sums.pick(state, k)) for k in range(2))
        return _scaled(gained, windows, PROFILES[self.profile])

    def invalid(self, state: sums.Sums) -> jax.Array:
        """The weight of series left out because a window's number was negative, float32 []."""
        return sums.value(sums.pick(state, 2))


class _Points(NamedTuple):
    """Scores and what the raw score gains by each flag, [series, time]; windows and lost weight, [2, series]."""

    scores: jax.Array
    gain: jax.Array
    windows: jax.Array


def _points(
    name: str, preds: Any, target: Any, weight: Any, mask: Any, profile: tuple[float, float, float], probation: float
) -> _Points:
    scores, window = as_float(preds, f"{name}: preds"), as_ids(target, f"{name}: target")
    same_shape(scores, window, name)
    present, weights = points_of_series(name, scores.shape, weight, mask)
    valid = jnp.all((window >= 0) | ~present, axis=-1)
    lost = jnp.where(valid, jnp.zeros_like(weights), weights)
    weights = weights - lost
    window = jnp.where(present, window, jnp.zeros_like(window))
    with jax.enable_x64(True):
        gain, count = _gains(ordered(scores), window, present, profile, probation)
        gain, count = gain.astype(jnp.float32), count.astype(jnp.float32)
    none = (weights == 0)[:, None]
    return _Points(
        scores,
        jnp.where(none, jnp.zeros_like(gain), gain * weights[:, None]),
        jnp.stack([jnp.where(none[:, 0], jnp.zeros_like(count), count * weights), lost]),
    )


def _gains(
    key: jax.Array, window: jax.Array, present: jax.Array, profile: tuple[float, float, float], probation: float
) -> tuple[jax.Array, jax.Array]:
    """(by how much the raw score changes when the threshold falls to a point's score; windows), float64, under x64.

    In a window only the earliest flagged point counts, and earlier ones are worth more. So a point matters only if its
    score is above all before it in the window (a record): when the threshold falls to it, the window's worth changes
    from that of the next record (or of a missed window) to its own. The sum of gains at or above a threshold is then
    the raw score less that of flagging nothing.
    """
    found, false, missed = profile
    time = key.shape[-1]
    at = jnp.broadcast_to(jnp.arange(time, dtype=jnp.int32), key.shape)
    inside = window > 0
    edge, changes = jnp.ones_like(inside[..., :1]), window[..., 1:] != window[..., :-1]
    first, last = (jnp.concatenate(parts, axis=-1) for parts in ([edge, changes], [changes, edge]))
    start = lax.cummax(jnp.where(first, at, jnp.zeros_like(at)), axis=1)
    end = lax.cummin(jnp.where(last, at, jnp.full_like(at, time)), axis=1, reverse=True)

    length = jnp.sum(present, axis=-1, keepdims=True, dtype=jnp.int32).astype(jnp.float64)
    waiting = jnp.minimum(jnp.floor(length * probation), jnp.float64(probation * _LONGEST))
    scored = present & (jnp.cumsum(present, axis=-1, dtype=jnp.int32).astype(jnp.float64) - 1.0 >= waiting)

    width = (end - start + jnp.int32(1)).astype(jnp.float64)
    worth = found * _sigmoid((at - end - jnp.int32(1)).astype(jnp.float64) / width) / _sigmoid(jnp.float64(-1))
    before = lax.cummax(jnp.where(inside & last, at, jnp.full_like(at, -1)), axis=1)
    behind = jnp.take_along_axis(width, jnp.maximum(before, jnp.int32(0)), axis=-1) - 1.0
    known = (before >= 0) & (behind > 0)
    distance = (at - before).astype(jnp.float64) / jnp.where(known, behind, jnp.ones_like(behind))
    cost = false * jnp.where(known, _sigmoid(distance), jnp.full_like(distance, -1))

    candidate = inside & scored
    # the window's start above the score: the running maximum begins anew in each window
    packed = ((start + jnp.int32(1)).astype(jnp.uint64) << np.uint64(32)) | key.astype(jnp.uint64)
    packed = jnp.where(candidate, packed, jnp.zeros_like(packed))
    highest = lax.cummax(packed, axis=1)
    earlier = jnp.concatenate([jnp.zeros_like(highest[..., :1]), highest[..., :-1]], axis=-1)
    record = candidate & (packed > earlier)
    coming = lax.cummin(jnp.where(record, at, jnp.full_like(at, time)), axis=1, reverse=True)
    coming = jnp.concatenate([coming[..., 1:], jnp.full_like(coming[..., :1], time)], axis=-1)
    next_worth = jnp.take_along_axis(worth, jnp.minimum(coming, jnp.int32(time - 1)), axis=-1)
    next_worth = jnp.where(coming <= end, next_worth, jnp.full_like(next_worth, -missed))
    outside = jnp.where(scored & ~inside, cost, jnp.zeros_like(cost))
    windows = jnp.sum(inside & last & scored, axis=-1, dtype=jnp.int32).astype(jnp.float64)
    return jnp.where(record, worth - next_worth, outside), windows


def _sigmoid(place: jax.Array) -> jax.Array:
    """NAB's scaled sigmoid: 0.987 at -1, 0 at 0, -0.987 at 1, and -1 beyond 3."""
    value = 2.0 / (1.0 + jnp.exp(5.0 * place)) - 1.0
    return jnp.where(place > 3, jnp.full_like(value, -1), value)


def _scaled(gained: jax.Array, windows: jax.Array, profile: tuple[float, float, float]) -> jax.Array:
    """100 * (raw - raw of flagging nothing) / (perfect - raw of flagging nothing)."""
    most = windows * jnp.float32(profile[0] + profile[2])
    empty = most == 0
    value = jnp.float32(100) * gained / jnp.where(empty, jnp.ones_like(most), most)
    return jnp.where(empty, jnp.full_like(value, jnp.nan), value)


def _check(name: str, profile: str, probation: float) -> None:
    if profile not in PROFILES:
        raise ValueError(f"{name}: profile must be one of {', '.join(PROFILES)}; it is {profile!r}")
    if not 0 <= probation < 1:
        raise ValueError(f"{name}: probation must be a share from 0 to below 1; it is {probation!r}")


def nab_windows(timestamps: Any, windows: Sequence[tuple[Any, Any]]) -> np.ndarray:
    """Marks labelled windows on a series: int32 [time], 0 outside and k in the k-th window, ends included.

    timestamps: [time], rising; strings such as "2014-07-01 00:30:00", datetimes or numbers. windows: (first, last)
    pairs of the same kind, as in NAB's combined_windows.json. NumPy, on the host.

    Raises:
        ValueError: when a window holds no point of the series, or touches another.

    >>> from jaxdl.metrics import nab_windows
    >>> times = ["2014-07-01 00:00", "2014-07-01 00:05", "2014-07-01 00:10"]
    >>> nab_windows(times, [("2014-07-01 00:05", "2014-07-01 00:10")]).tolist()
    [0, 1, 1]
    """
    times = _comparable(timestamps)
    marked = np.zeros(times.shape, np.int32)
    for number, (first, last) in enumerate(windows, 1):
        bounds = _comparable([first, last])
        inside = (times >= bounds[0]) & (times <= bounds[1])
        if not inside.any():
            raise ValueError(f"nab_windows: window {number}, from {first} to {last}, holds no point of the series")
        if marked[inside].any():
            raise ValueError(f"nab_windows: window {number}, from {first} to {last}, overlaps an earlier one")
        marked[inside] = number
    return marked


def _comparable(values: Any) -> np.ndarray:
    array = np.asarray(values)
    return array.astype("datetime64[us]") if array.dtype.kind in "USOM" else array


def _infer(inputs: Mapping[str, Any]) -> dict[str, int]:
    return {"capacity": max(1, int(np.size(inputs["target"])))}


nab_score = one_call(NABScore, "nab_score", infer=_infer)
nab_score_at = one_call(NABScoreAt, "nab_score_at")
