"""Collections: what is shared, packed, printed and refused; slices by group; bootstrap."""

from __future__ import annotations

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdl import metrics
from jaxdl.metrics import sums, sync

_draw = np.random.default_rng(3)
SCORES = _draw.normal(size=(40, 3)).astype(np.float32)
IDS = _draw.integers(0, 3, 40).astype(np.int32)


def _classes() -> metrics.Collection:
    return metrics.Collection(
        {
            "counts": metrics.ConfusionMatrix(3),
            "recall": metrics.ConfusionMatrix(3, normalize="true"),
            "precision": metrics.ConfusionMatrix(3, normalize="predicted"),
            "accuracy": metrics.Accuracy(),
        }
    )


def test_metrics_of_one_statistic_keep_one_state_and_give_what_they_give_alone() -> None:
    collection = _classes()
    state = collection.update(collection.init(), preds=SCORES, target=IDS)
    assert len(state) == 2
    values = collection.compute(state)
    assert list(values) == ["counts", "recall", "precision", "accuracy"]
    for name, metric in collection.metrics:
        alone = metric.compute(metric.update(metric.init(), preds=SCORES, target=IDS))
        np.testing.assert_array_equal(values[name], alone)
    assert collection.reduce == "sum" and hash(collection) == hash(_classes()) and collection == _classes()
    assert metrics.Collection([metrics.Accuracy(), metrics.ROCAUC(capacity=9)]).reduce == "gather"


def test_the_update_of_a_shared_statistic_is_compiled_once() -> None:
    def scatters(metric: Any) -> int:
        text = str(jax.make_jaxpr(lambda p, t: metric.update(metric.init(), preds=p, target=t))(SCORES, IDS))
        return len(re.findall(r"scatter-add\[", text))

    one = scatters(metrics.ConfusionMatrix(3))
    assert one >= 1
    assert scatters(_classes()) == one


def test_a_table_names_every_number_and_what_was_left_out() -> None:
    collection = _classes()
    state = collection.update(collection.init(), preds=SCORES, target=np.where(IDS == 2, 7, IDS).astype(np.int32))
    text = collection.table(state)
    assert "accuracy" in text and "counts[0][0]" in text
    left = int((IDS == 2).sum())
    assert f"counts, recall, precision: weight {left} was left out" in text
    small = metrics.Collection([metrics.ROCAUC(capacity=3)])
    full = small.update(small.init(), preds=SCORES[:, 0], target=(IDS > 0).astype(np.int32))
    assert small.problems(full) and "more examples came than the capacity holds" in small.table(full)
    assert not small.problems(small.init())


def test_what_a_collection_refuses() -> None:
    with pytest.raises(ValueError, match="two metrics are called 'accuracy'"):
        metrics.Collection([metrics.Accuracy(), metrics.Accuracy()])
    with pytest.raises(ValueError, match="no metrics in it"):
        metrics.Collection([])
    for wrong in ([metrics.Accuracy], ["accuracy"], {"accuracy": metrics.Accuracy}, 3):
        with pytest.raises(TypeError, match="is no metric; give records"):
            metrics.Collection(wrong)  # type: ignore[arg-type]
    collection = metrics.Collection([metrics.by(metrics.Accuracy(), 2)])
    with pytest.raises(TypeError, match="the metric 'accuracy_by_group' needs group="):
        collection.update(collection.init(), preds=IDS, target=IDS)
    with pytest.raises(TypeError, match="no metric reads 'groups'; they read preds, target, group,"):
        collection.update(collection.init(), preds=IDS, target=IDS, group=IDS, groups=IDS)
    with pytest.raises(KeyError, match="has no metric 'auc'; it has accuracy_by_group"):
        collection.state_of(collection.init(), "auc")


def test_packed_states_come_back_bit_for_bit() -> None:
    tree = {
        "float": jnp.asarray([0.1, -0.0, np.nan, np.inf, 1e-42], jnp.float32),
        "int": jnp.asarray([[-1, 2**31 - 1]], jnp.int32),
        "unsigned": jnp.asarray(2**32 - 1, jnp.uint32),
        "bool": jnp.asarray([True, False]),
        "byte": jnp.asarray([-128, 127], jnp.int8),
    }
    back = sync.unpack(sync.pack(tree), tree)
    for name, leaf in tree.items():
        assert back[name].dtype == leaf.dtype and back[name].shape == leaf.shape
        assert np.asarray(back[name]).tobytes() == np.asarray(leaf).tobytes(), name
    with pytest.raises(TypeError, match="a leaf is float16"):
        sync.pack(jnp.zeros(2, jnp.float16))


@pytest.mark.parametrize("devices", [1, 2, 3, 7, 256])
def test_sums_as_a_vector_add_exactly(devices: int) -> None:
    draw = np.random.default_rng(devices)
    counts = draw.integers(-(2**37), 2**37, (devices, 5)).astype(np.float64)
    halves = counts + draw.integers(0, 2**8, counts.shape) / 2**8
    parts = [sums.Sums(*(jnp.asarray(x) for x in _two(row))) for row in halves]
    vector = np.zeros(5 * sync.PIECES, np.float32)
    for part in parts:  # as an all-reduce adds: in float32, in any order
        vector = vector + np.asarray(sync.as_vector((part,)))
    (total,) = sync.from_vector(jnp.asarray(vector), (parts[0],))
    np.testing.assert_array_equal(sums.exact(total), halves.sum(0))


def _two(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    high = values.astype(np.float32)
    return high, (values - high.astype(np.float64)).astype(np.float32)


def test_sums_as_a_vector_keep_small_numbers_infinities_and_refuse_buffers() -> None:
    small = sums.Sums(jnp.asarray([1e-7, np.inf, -3.25, np.nan], jnp.float32), jnp.zeros(4, jnp.float32))
    (back,) = sync.from_vector(sync.as_vector((small,)) * jnp.float32(1), (small,))
    np.testing.assert_allclose(sums.exact(back)[[0, 2]], [np.float32(1e-7), -3.25], rtol=1e-6)
    assert np.isinf(sums.exact(back)[1]) and np.isnan(sums.exact(back)[3])
    with pytest.raises(TypeError, match="only states that are sums"):
        sync.as_vector((metrics.ROCAUC(capacity=2).init(),))


@pytest.mark.parametrize("parts", [1, 5, *(pytest.param(parts, marks=pytest.mark.slow) for parts in (2, 8))])
def test_states_merge_in_a_tree_of_any_width(parts: int) -> None:
    collection = metrics.Collection([metrics.ROCAUC(capacity=40), metrics.Accuracy(), metrics.Mean()])
    labels = (IDS > 0).astype(np.int32)
    update = jax.jit(collection.update)
    states = [update(collection.init(), preds=SCORES[i::parts, :2], target=labels[i::parts]) for i in range(parts)]
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *states)
    merged = sync.merge_all(collection.statistics, stacked)
    compute = jax.jit(collection.compute)
    whole = compute(update(collection.init(), preds=SCORES[:, :2], target=labels))
    for name, value in compute(merged).items():
        np.testing.assert_allclose(value, whole[name], rtol=1e-6, err_msg=name)


def test_groups_equal_the_metric_of_each_group_alone() -> None:
    group = _draw.integers(-1, 3, 40).astype(np.int32)
    weight = _draw.random(40).astype(np.float32)
    metric = metrics.by(metrics.ConfusionMatrix(3, normalize="true"), 3)
    state = jax.jit(metric.update)(metric.init(), preds=SCORES, target=IDS, group=group, weight=weight)
    found = metric.compute(state)
    for g in range(3):
        alone = metrics.confusion_matrix(
            SCORES[group == g], IDS[group == g], weight=weight[group == g], normalize="true", num_classes=3
        )
        np.testing.assert_allclose(found[g], alone, rtol=1e-6)
    np.testing.assert_allclose(metric.invalid(state), weight[group == -1].sum(), rtol=1e-6)
    assert metrics.group_ids([["b", "a"], ["x", "b"]], ["a", "b"]).tolist() == [[1, 0], [-1, 1]]
    tokens = metrics.by(metrics.Mean(), 2)  # a group an example, a weight a token
    masked = tokens.update(
        tokens.init(), preds=jnp.asarray([[1.0, 2.0], [3.0, 9.0]]), group=jnp.asarray([0, 1]),
        mask=jnp.asarray([[True, True], [True, False]]),
    )  # fmt: skip
    assert tokens.compute(masked).tolist() == [1.5, 3.0]


def test_what_groups_refuse() -> None:
    with pytest.raises(ValueError, match="groups must be a positive number"):
        metrics.by(metrics.Accuracy(), 0)
    with pytest.raises(ValueError, match="groups need different names"):
        metrics.by(metrics.Accuracy(), ["a", "a"])
    metric = metrics.by(metrics.Accuracy(), 2)
    with pytest.raises(TypeError, match="group must be integer class ids"):
        metric.update(metric.init(), preds=IDS, target=IDS, group=np.zeros(40, np.float32))
    for options, words in (
        ({"group": IDS[:5]}, r"group has shape \(5,\) and preds \(40,\)"),
        ({"group": IDS, "weight": np.ones(7)}, r"accuracy_by_group: weight has shape \(7,\)"),
        ({"group": IDS, "mask": [True] * 7}, r"accuracy_by_group: mask has shape \(7,\)"),
    ):
        with pytest.raises(ValueError, match=words):
            metric.update(metric.init(), preds=IDS, target=IDS, **options)
    with pytest.raises(ValueError, match="sliced by group already"):
        metrics.by(metric, 2)
    with pytest.raises(ValueError, match="it is the string 'day'"):
        metrics.by(metrics.Accuracy(), "day")
    group = np.array([-1, -1, 0], np.int32)
    absent = {"mask": [False, True, True], "weight": [np.nan, 2.0, 1.0]}
    assert metric.invalid(metric.update(metric.init(), preds=IDS[:3], target=IDS[:3], group=group, **absent)) == 2


def _loop(values: np.ndarray, resamples: int) -> np.ndarray:
    draw = np.random.default_rng(0)
    return np.array([values[draw.integers(0, len(values), len(values))].mean() for _ in range(resamples)])


def test_bootstrap_spreads_as_a_loop_does() -> None:
    values = np.random.default_rng(1).normal(2, 3, 200).astype(np.float32)
    found = np.asarray(metrics.bootstrap(metrics.Mean(), jax.random.key(0), 2000, preds=values))
    want = _loop(values, 2000)
    assert found.shape == (2000,) and len(np.unique(found)) > 1900
    # two independent sets of 2000: the standard deviation is known to 2 %, the mean to sd / 45
    assert abs(found.std() / want.std() - 1) < 0.12
    assert abs(found.mean() - values.mean()) < 5 * want.std() / np.sqrt(2000)
    again = metrics.bootstrap(metrics.Mean(), jax.random.key(0), 2000, preds=values)
    np.testing.assert_array_equal(found, again)


def test_bootstrap_takes_lists_and_scalar_weights_and_names_what_it_cannot_use() -> None:
    key, values = jax.random.key(0), [1.0, 2.0, 6.0]
    found = metrics.bootstrap(metrics.Mean(), key, 4, preds=np.array(values))
    np.testing.assert_array_equal(metrics.bootstrap(metrics.Mean(), key, 4, preds=values), found)
    np.testing.assert_allclose(metrics.bootstrap(metrics.Mean(), key, 4, preds=values, weight=2.0), found, rtol=1e-6)
    with pytest.raises(TypeError, match="mean does not read 'resample'; it reads preds, weight and mask"):
        metrics.confidence_interval(metrics.Mean(), key, preds=values, resample=20)
    with pytest.raises(TypeError, match="mean needs preds="):
        metrics.bootstrap(metrics.Mean(), key, target=values)
    with pytest.raises(ValueError, match="no examples to draw from"):
        metrics.bootstrap(metrics.Mean(), key, preds=3.0)


def test_bootstrap_draws_only_what_is_present_and_as_often() -> None:
    values = np.arange(10, dtype=np.float32)
    mask = values >= 5
    total = metrics.bootstrap(_Count(), jax.random.key(1), 50, preds=values, mask=mask)
    np.testing.assert_array_equal(np.asarray(total)[:, :5], 0)
    np.testing.assert_array_equal(np.asarray(total).sum(1), 5)
    # examples with a weight of 2 come in with 2, whole
    doubled = metrics.bootstrap(_Count(), jax.random.key(1), 50, preds=values, weight=np.where(mask, 2.0, 0.0))
    np.testing.assert_array_equal(np.asarray(doubled), 2 * np.asarray(total))


class _Count:
    """The weight of each of ten examples."""

    name, inputs, reduce = "count", ("preds",), "sum"

    def init(self, batch_shape: tuple[int, ...] = ()) -> sums.Sums:
        return sums.zeros((*batch_shape, 10))

    def update(self, state: Any, *, preds: Any, target: Any = None, weight: Any = None, mask: Any = None) -> Any:
        return sums.add(state, sums.Sums(weight, jnp.zeros(10, jnp.float32)))

    def compute(self, state: Any) -> Any:
        return sums.value(state)


def test_bootstrap_of_a_curve_sorts_once_and_agrees_with_the_weighted_metric() -> None:
    metric = metrics.ROCAUC(capacity=300)
    draw = np.random.default_rng(2)
    labels = draw.integers(0, 2, 300)
    scores = (labels + draw.normal(0, 1.5, 300)).round(1).astype(np.float32)
    run = lambda key: metrics.bootstrap(metric, key, 1000, preds=scores, target=labels)  # noqa: E731
    text = jax.jit(run).lower(jax.random.key(0)).as_text()
    assert text.count("stablehlo.sort") <= 1
    found = np.asarray(run(jax.random.key(0)))
    indices = draw.integers(0, 300, (1000, 300))
    wins = np.sign(scores[:, None] - scores) / 2 + 0.5
    want = np.array([wins[np.ix_(i[labels[i] == 1], i[labels[i] == 0])].mean() for i in indices])
    assert abs(found.mean() - float(metrics.roc_auc(scores, labels))) < 0.01
    # each deviation is known to 2.2 %; with the labels of one class not resampled it would be 0.7 of it
    assert abs(found.std() / want.std() - 1) < 0.12


def test_intervals_of_a_collection_and_their_methods() -> None:
    values = np.random.default_rng(1).normal(2, 3, 500).astype(np.float32)
    key = jax.random.key(0)
    normal = 1.96 * values.std(ddof=1) / np.sqrt(500)
    for method in ("percentile", "basic", "normal"):
        found = metrics.confidence_interval(metrics.Mean(), key, preds=values, method=method)  # type: ignore[arg-type]
        assert abs((found.high - found.low) / 2 / normal - 1) < 0.12, method
        assert found.low < found.value < found.high and found.undefined == 0
    narrow = metrics.confidence_interval(metrics.Mean(), key, preds=values, level=0.5)
    assert (narrow.high - narrow.low) < 0.5 * 2 * normal
    both = metrics.confidence_interval(_classes(), key, preds=SCORES, target=IDS, resamples=50)
    assert list(both) == ["counts", "recall", "precision", "accuracy"] and both["recall"].low.shape == (3, 3)
    labels = np.array([1] + [0] * 9)  # e^-1 of the resamples hold no positive
    rare = metrics.confidence_interval(
        metrics.ROCAUC(capacity=10), key, preds=np.arange(10, dtype=np.float32), target=labels, resamples=1000
    )
    assert abs(rare.undefined - 0.9**10) < 0.06 and np.isfinite(rare.low)
    for call, message in (
        (lambda: metrics.confidence_interval(metrics.Mean(), key, preds=values, level=95), "between 0 and 1"),
        (lambda: metrics.confidence_interval(metrics.Mean(), key, preds=values, method="bca"), "must be one of"),
        (lambda: metrics.bootstrap(metrics.Mean(), key, 0, preds=values), "resamples must be a positive integer"),
        (lambda: metrics.bootstrap(metrics.Mean(), key, preds=values[:0]), "no examples to draw from"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
