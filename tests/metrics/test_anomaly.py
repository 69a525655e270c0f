"""Anomalies in series: values against plain restatements of the papers, real series, policies, refusals."""

from __future__ import annotations

import csv
import gzip
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given

from jaxdl import metrics
from jaxdl.metrics import nab_windows
from jaxdl.metrics.metric import statistic_of
from jaxdl.metrics.nab import PROFILES
from jaxdl.metrics.ranking_order import ordered

_update = jax.jit(lambda statistic, inputs: statistic.update(statistic.init(), **inputs), static_argnums=0)


def value(metric: Any, **inputs: Any) -> float:
    """One metric's value; the update is compiled once for each statistic and shape."""
    return float(metric.compute(_update(statistic_of(metric), inputs)))


def runs(flags: np.ndarray) -> list[range]:
    """The unbroken runs of true flags, in plain Python."""
    found, start = [], None
    for t, flag in enumerate([*flags.tolist(), False]):
        if flag and start is None:
            start = t
        elif not flag and start is not None:
            found.append(range(start, t))
            start = None
    return found


def rewards(ranges: list[range], others: list[range], alpha: float, bias: str, cardinality: str) -> list[float]:
    """Tatbul et al. (2018), section 4, word for word."""

    def importance(i: int, length: int) -> float:
        if bias == "flat":
            return 1
        if bias == "front":
            return length - i + 1
        if bias == "back":
            return i
        return i if i <= length / 2 else length - i + 1

    found = []
    for one in ranges:
        length, overlap, pieces = len(one), 0.0, 0
        for other in others:
            shared = set(one) & set(other)
            pieces += bool(shared)
            weights = [importance(i, length) for i in range(1, length + 1)]
            overlap += sum(w for w, t in zip(weights, one, strict=True) if t in shared) / sum(weights)
        factor = 1 if cardinality == "one" or pieces <= 1 else 1 / pieces
        found.append(alpha * (pieces > 0) + (1 - alpha) * factor * overlap)
    return found


def ranges_by_hand(preds: np.ndarray, target: np.ndarray, options: dict[str, Any], beta: float) -> list[float]:
    pairs = [(runs(t == 1), runs(p == 1)) for p, t in zip(preds, target, strict=True)]
    way = options["cardinality"]
    recall = np.mean([r for true, found in pairs for r in rewards(true, found, options["alpha"], options["bias"], way)])
    precision = np.mean([r for true, found in pairs for r in rewards(found, true, 0.0, options["precision_bias"], way)])
    below = beta**2 * precision + recall
    return [recall, precision, (1 + beta**2) * precision * recall / below if below else 0.0]


OPTIONS = [
    {"alpha": 0.0, "bias": "flat", "precision_bias": "flat", "cardinality": "reciprocal"},
    {"alpha": 0.5, "bias": "front", "precision_bias": "middle", "cardinality": "one"},
    {"alpha": 0.2, "bias": "middle", "precision_bias": "back", "cardinality": "reciprocal"},
    {"alpha": 1.0, "bias": "back", "precision_bias": "front", "cardinality": "reciprocal"},
]


def flags(shape: tuple[int, int], share: float, seed: int) -> np.ndarray:
    draw = np.random.default_rng(seed)
    return (np.repeat(draw.random((shape[0], -(-shape[1] // 3))), 3, axis=1)[:, : shape[1]] < share).astype(np.int32)


@pytest.mark.parametrize("options", OPTIONS, ids=lambda o: f"{o['bias']}-{o['cardinality']}")
def test_ranges_are_the_papers(options: dict[str, Any]) -> None:
    target = flags((6, 40), 0.3, 0)
    chance = np.random.default_rng(4).random((6, 40))
    for preds in (
        flags((6, 40), 0.3, 1),
        np.where(chance < 0.2, 1 - target, target),
        (chance < 0.5).astype(np.int32),
        np.ones((6, 40), np.int32),
        target,
    ):
        want = ranges_by_hand(preds, target, options, 2.0)
        got = [
            value(metric, preds=preds, target=target)
            for metric in (
                metrics.RangeRecall(**options),
                metrics.RangePrecision(**options),
                metrics.RangeF(**options, beta=2.0),
            )
        ]
        np.testing.assert_allclose(got, want, rtol=1e-6)


@given(preds=hnp.arrays(np.int32, (2, 12), elements=st.integers(0, 1)))
def test_ranges_of_any_flags(preds: np.ndarray) -> None:
    target = np.array([[0, 1, 1, 1, 0, 0, 1, 0, 1, 1, 1, 1], [1, 1, 0, 0, 0, 1, 1, 1, 1, 1, 0, 0]], np.int32)
    got = value(metrics.RangeRecall(**OPTIONS[2]), preds=preds, target=target)
    assert 0 <= got <= 1 + 1e-6
    if preds.any():
        np.testing.assert_allclose(got, ranges_by_hand(preds, target, OPTIONS[2], 1.0)[0], rtol=1e-6, atol=1e-7)
    assert value(metrics.RangeRecall(**OPTIONS[2]), preds=np.ones_like(preds), target=target) == pytest.approx(1.0)


@pytest.mark.parametrize("share", [0.0, 0.4, 1.0])
def test_points_after_adjustment(share: float) -> None:
    preds, target = (np.random.default_rng(5).random((6, 40)) < 0.3).astype(np.int32), flags((6, 40), 0.3, 0)
    adjusted = preds.copy()
    for row in range(6):
        for run in runs(target[row] == 1):
            if preds[row, list(run)].sum() > share * len(run):
                adjusted[row, list(run)] = 1
    right, false = (adjusted & target).sum(), (adjusted & (1 - target)).sum()
    missed = ((1 - adjusted) & target).sum()
    got = value(metrics.PointAdjustedF(share=share), preds=preds, target=target)
    np.testing.assert_allclose(got, 2 * right / (2 * right + false + missed), rtol=1e-6)


def nab_by_hand(
    scores: list[np.ndarray], windows: list[np.ndarray], profile: str, threshold: float, probation: float = 0.15
) -> float:
    """Lavin and Ahmad (2015), point by point at one threshold."""
    found, false, missed = PROFILES[profile]

    def sigmoid(place: float) -> float:
        return -1.0 if place > 3 else 2 / (1 + math.exp(5 * place)) - 1

    raw, count = 0.0, 0
    for score, window in zip(scores, windows, strict=True):
        waiting = min(math.floor(probation * len(score)), probation * 5000)
        spans = {k: np.flatnonzero(window == k) for k in sorted(set(window.tolist()) - {0})}
        worth = {k: -missed for k, span in spans.items() if span[-1] >= waiting}
        for t in range(len(score)):
            if t < waiting or score[t] < threshold:
                continue
            if window[t]:
                span = spans[window[t]]
                place = -(span[-1] - t + 1) / len(span)
                worth[window[t]] = max(worth[window[t]], found * sigmoid(place) / sigmoid(-1.0))
            else:
                past = [span for span in spans.values() if span[-1] < t]
                last = max(past, key=lambda span: span[-1], default=None)
                far = -1.0 if last is None or len(last) == 1 else sigmoid((t - last[-1]) / (len(last) - 1))
                raw += false * far
        raw += sum(worth.values())
        count += len(worth)
    return 100 * (raw + missed * count) / ((found + missed) * count)


def nab_series() -> tuple[list[np.ndarray], list[np.ndarray]]:
    draw = np.random.default_rng(2)
    scores, windows = [], []
    for length in (60, 47, 20):
        window = np.zeros(length, np.int32)
        window[12:20], window[20:25], window[length - 1 :] = 1, 2, 3  # one after another, and one of a single point
        if length == 60:
            window[1:5], window[30:31] = 5, 6  # under probation; a single point with others behind it
        scores.append((draw.random(length) ** 2 + 0.2 * (window > 0)).round(2).astype(np.float32))
        windows.append(window)
    windows[2][:] = 0
    scores[0][19] = 1.5  # the highest of a window is its last
    return scores, windows


def padded(rows: list[np.ndarray], width: int = 60, fill: float = 9.0) -> np.ndarray:
    return np.stack([np.pad(row, (0, width - len(row)), constant_values=fill) for row in rows])


def as_arrays(scores: list[np.ndarray], windows: list[np.ndarray]) -> dict[str, np.ndarray]:
    mask = padded([np.ones(len(s), np.int32) for s in scores], fill=0) == 1
    return {"preds": padded(scores), "target": padded(windows, fill=1), "mask": mask}


@pytest.mark.parametrize("profile", PROFILES)
def test_the_nab_score_is_the_papers(profile: Any) -> None:
    scores, windows = nab_series()
    inputs = as_arrays(scores, windows)
    thresholds = [*np.unique(np.concatenate(scores)), np.inf]
    by_hand = [nab_by_hand(scores, windows, profile, t) for t in thresholds]
    metric = metrics.NABScore(capacity=200, profile=profile)
    state = _update(metric, inputs)
    # the sum of gains at or above each threshold is the score there
    codes, gains = np.asarray(ordered(jnp.asarray(thresholds, jnp.float32))), np.asarray(state.gain, np.float64)
    swept = [100 * gains[np.asarray(state.key) >= code].sum() for code in codes]
    found, _, missed = PROFILES[profile]
    np.testing.assert_allclose(np.array(swept) / (float(state.windows.hi[0]) * (found + missed)), by_hand, atol=2e-5)
    best = metric.best(state)
    np.testing.assert_allclose(best["score"], max(by_hand), rtol=1e-6)
    np.testing.assert_allclose(
        best["threshold"], max(t for t, s in zip(thresholds, by_hand, strict=True) if s == max(by_hand))
    )
    got = value(metrics.NABScoreAt(threshold=0.3, profile=profile), **inputs)
    np.testing.assert_allclose(got, nab_by_hand(scores, windows, profile, float(np.float32(0.3))), rtol=2e-6)


@pytest.mark.smoke
def test_perfect_and_null_detectors() -> None:
    _, windows = nab_series()
    windows = [np.where(w == 5, 0, w) for w in windows]
    first = [np.array([w[t] > 0 and (t == 0 or w[t] != w[t - 1]) for t in range(len(w))], np.float32) for w in windows]
    metric = metrics.NABScore(capacity=200)
    assert value(metric, **as_arrays(first, windows)) == pytest.approx(100.0)
    never = as_arrays([np.zeros_like(f) for f in first], windows)
    assert value(metrics.NABScoreAt(threshold=0.5), **never) == 0.0
    # a constant score flags all or nothing, and the better of the two is never below 0
    assert value(metric, **never) >= 0.0


def test_what_is_undefined() -> None:
    scores, windows = nab_series()
    inputs = as_arrays(scores, windows)
    metric, at = metrics.NABScore(capacity=200), metrics.NABScoreAt(threshold=0.3)
    bad = inputs["preds"].copy()
    bad[0, 0] = np.nan  # under probation
    assert not np.isnan(value(metric, **{**inputs, "preds": bad}))
    bad[0, 40] = np.nan
    for one in (metric, at):
        assert np.isnan(value(one, **{**inputs, "preds": bad}))
        assert not np.isnan(value(one, **{**inputs, "preds": bad}, weight=np.array([0.0, 1, 1])))
        assert np.isnan(value(one, **{**inputs, "target": np.zeros((3, 60), np.int32)})), "no windows"
    negative = inputs["target"].copy()
    negative[1, 3] = -1
    for one in (metric, at):
        state = _update(one, {**inputs, "target": negative})
        assert float(one.invalid(state)) == 1.0 and not np.isnan(one.compute(state))
    small = metrics.NABScore(capacity=50)
    state = _update(small, inputs)
    assert bool(small.overflowed(state)) and np.isnan(small.compute(state))
    assert bool(small.overflowed(small.merge(state, state)))

    none, one_flag = np.zeros((2, 12), np.int32), np.eye(2, 12, dtype=np.int32)
    assert np.isnan(value(metrics.RangeRecall(), preds=one_flag, target=none))
    assert np.isnan(value(metrics.RangePrecision(), preds=none, target=one_flag))
    assert value(metrics.RangeF(), preds=one_flag, target=1 - one_flag) == 0.0
    assert np.isnan(value(metrics.PointAdjustedF(), preds=none, target=none))
    strange = one_flag.copy()
    strange[0, 5] = 2
    metric = metrics.RangeRecall()
    state = _update(metric.statistic, {"preds": strange, "target": one_flag})
    assert float(metric.invalid(state)) == 1.0 and float(metric.compute(state)) == 1.0


def test_masked_points_end_ranges() -> None:
    target = np.array([[0, 1, 1, 1, 1, 0], [1, 1, 1, 1, 1, 1]], np.int32)
    preds = np.array([[0, 1, 0, 1, 1, 1], [1, 1, 1, 1, 1, 1]], np.int32)
    mask = np.array([[True] * 5 + [False], [False] * 6])
    inputs = {"preds": preds, "target": target, "mask": mask}
    assert value(metrics.RangeRecall(), **inputs) == pytest.approx(0.75 / 2)
    assert value(metrics.RangePrecision(), **inputs) == 1.0


def test_windows_of_time_stamps() -> None:
    times = [f"2014-07-01 00:{m:02}:00" for m in range(0, 50, 5)]
    marked = nab_windows(times, [("2014-07-01 00:05:00", "2014-07-01 00:15:00"), (times[8], times[8])])
    assert marked.tolist() == [0, 1, 1, 1, 0, 0, 0, 0, 2, 0]
    assert nab_windows(np.arange(5), [(1, 2), (3, 4)]).tolist() == [0, 1, 1, 2, 2]


@pytest.mark.data
def test_a_real_series(data_folder: Path) -> None:
    folder = data_folder / "nab"
    labels = json.loads((folder / "labels_windows.json").read_text())
    name = "realKnownCause/nyc_taxi.csv"
    with gzip.open(folder / f"{name}.gz", "rt") as file:
        rows = list(csv.DictReader(file))
    windows = nab_windows([row["timestamp"] for row in rows], labels[name])
    assert len(rows) == 10320 and windows.max() == 5
    values = np.array([float(row["value"]) for row in rows])
    # how unlike the same hour of the week before
    unlike = np.abs(values - np.roll(values, 336)) / values.std()
    unlike[:336] = 0
    metric = metrics.NABScore(capacity=10320)
    best = metric.best(_update(metric, {"preds": unlike[None], "target": windows[None]}))
    threshold = float(best["threshold"])
    want = nab_by_hand([unlike.astype(np.float32)], [windows], "standard", threshold)
    np.testing.assert_allclose(best["score"], want, rtol=1e-5)
    assert 0 < want < 100


_ONES = np.ones((2, 3), np.int32)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: metrics.RangeRecall(alpha=1.5), "range_recall: alpha, the reward for existence, must be from 0 to 1"),
        (lambda: metrics.RangeRecall(bias="start"), "bias must be one of flat, front, middle, back"),  # type: ignore[arg-type]
        (lambda: metrics.RangeF(cardinality="two"), "cardinality must be 'reciprocal' or 'one'"),  # type: ignore[arg-type]
        (lambda: metrics.RangeF(beta=-1.0), "range_f: beta must be at least 0"),
        (lambda: metrics.PointAdjustedF(share=2.0), "share must be from 0 to 1"),
        (lambda: metrics.range_f(_ONES[0], _ONES[0]), r"preds have shape \(3,\); they must be \[series, time\]"),
        (lambda: metrics.range_f(_ONES, _ONES[:, :2]), "they must be the same"),
        (lambda: metrics.range_f(_ONES, _ONES, weight=_ONES), "a weight belongs to a series"),
        (lambda: metrics.NABScore(capacity=0), "nab_score: capacity must be an integer from 1"),
        (lambda: metrics.NABScore(capacity=9, profile="strict"), "profile must be one of standard, reward_low_FP_rate"),  # type: ignore[arg-type]
        (lambda: metrics.NABScoreAt(threshold=1.0, probation=1.0), "probation must be a share from 0 to below 1"),
        (lambda: nab_windows([1, 2, 3], [(5, 6)]), "window 1, from 5 to 6, holds no point of the series"),
        (lambda: nab_windows([1, 2, 3], [(1, 2), (2, 3)]), "window 2, from 2 to 3, overlaps an earlier one"),
    ],
)
def test_refusals(call: Callable[[], Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        call()
