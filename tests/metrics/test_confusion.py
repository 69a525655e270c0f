"""The confusion matrix and accuracy: scikit-learn's numbers, exact counts, the table and the plot, every sentence."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn import metrics as peer

from jaxdl import metrics
from jaxdl.metrics import sums


def _data(seed: int, classes: int, n: int = 500) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    draw = np.random.default_rng(seed)
    target = draw.integers(0, classes, n)
    scores = draw.normal(size=(n, classes)) + 1.5 * np.eye(classes)[target]
    return scores.astype(np.float32), target, draw.random(n).astype(np.float32)


@pytest.mark.parametrize("weighted", [False, True])
def test_accuracy_and_confusion_match_scikit_learn(weighted: bool) -> None:
    scores, target, weight = _data(0, 7)
    ids = scores.argmax(1)
    given_weight = weight if weighted else None
    for k in (1, 3):
        got = metrics.accuracy(scores, target, top_k=k, weight=given_weight)
        want = peer.top_k_accuracy_score(target, scores, k=k, sample_weight=given_weight)
        np.testing.assert_allclose(got, want, rtol=1e-6)
    assert float(metrics.accuracy(ids, target)) == pytest.approx(peer.accuracy_score(target, ids))
    kinds = ((None, None), ("true", "true"), ("predicted", "pred"), ("all", "all"))
    for normalize, theirs in kinds if weighted else kinds[:1]:
        want = peer.confusion_matrix(target, ids, sample_weight=given_weight, normalize=theirs)
        got = metrics.confusion_matrix(ids, target, normalize=normalize, weight=given_weight)  # type: ignore[arg-type]
        np.testing.assert_allclose(got, want, rtol=1e-6)
    metric = metrics.ConfusionMatrix(7)
    found = metric.per_class(metric.update(metric.init(), preds=scores, target=target, weight=given_weight))
    precision, recall, f1, _ = peer.precision_recall_fscore_support(target, ids, sample_weight=given_weight)
    for name, want in (("precision", precision), ("recall", recall), ("f1", f1)):
        np.testing.assert_allclose(found[name], want, rtol=1e-6)


@pytest.mark.smoke
def test_counts_are_exact_past_2_to_the_32() -> None:
    metric = metrics.ConfusionMatrix(2)
    update = jax.jit(lambda state: metric.update(state, preds=jnp.array([0, 0, 1]), target=jnp.array([0, 0, 1])))
    start = 2**33 + 1
    high = np.float32(start)
    state = sums.Sums(jnp.full(6, high), jnp.full(6, np.float32(start - int(high))))
    for _ in range(3):
        state = update(state)
    assert metric.counts(state).tolist() == [[start + 6, start], [start, start + 3]]
    assert metric.counts(metric.merge(state, state)).tolist() == [
        [2 * start + 12, 2 * start],
        [2 * start, 2 * start + 6],
    ]


def test_weighted_counts_stay_exact_in_one_large_batch() -> None:
    """A million weights of 0.3 in one cell: a float32 scatter is off by a percent."""
    n = 1_000_000
    metric = metrics.ConfusionMatrix(2)
    zeros, weight = np.zeros(n, np.int32), np.full(n, 0.3, np.float32)
    weight[-1] = 1e-3
    update = jax.jit(lambda w: metric.update(metric.init(), preds=zeros, target=zeros, weight=w))
    np.testing.assert_allclose(metric.counts(update(weight))[0, 0], weight.astype(float).sum(), rtol=1e-12)
    outliers = weight.copy()
    outliers[::30_000] = 1024.0  # at least one a block: then most of each weight is in the second piece
    np.testing.assert_allclose(metric.counts(update(outliers))[0, 0], outliers.astype(float).sum(), rtol=1e-8)
    naive = jnp.zeros(1, jnp.float32).at[zeros].add(weight)[0]
    assert abs(float(naive) / weight.astype(float).sum() - 1) > 1e-3, "float32 alone would do: this test proves nothing"


@pytest.mark.smoke
def test_undefined_is_nan_and_out_of_range_is_counted() -> None:
    assert np.isnan(metrics.accuracy([[np.nan, 1.0]], [1]))
    assert float(metrics.accuracy([[np.nan, 1.0], [0.0, 1.0]], [1, 1], weight=[0.0, 2.0])) == 1.0
    accuracy = metrics.Accuracy()
    state = accuracy.update(accuracy.init(), preds=[[1.0, 2.0]] * 4, target=[1, -1, 2, 0])
    assert float(accuracy.invalid(state)) == 2 and float(accuracy.compute(state)) == 0.5
    matrix = metrics.ConfusionMatrix(2)
    state = matrix.update(matrix.init(), preds=[0, 5, 1, 1], target=[0, 0, -3, 1], weight=[1.0, 2.0, 4.0, 8.0])
    assert float(matrix.invalid(state)) == 6 and matrix.counts(state).tolist() == [[1, 0], [0, 8]]
    state = matrix.update(matrix.init(), preds=[[np.nan, 1.0]], target=[0])
    assert float(matrix.invalid(state)) == 1
    assert np.isnan(np.asarray(metrics.confusion_matrix([0], [0], num_classes=2, normalize="true"))[1]).all()
    assert int(metrics.confusion_matrix(np.uint32([2**32 - 1, 1]), np.uint32([1, 1]), num_classes=2).sum()) == 1


def test_ties_go_to_the_lowest_class_in_top_k_as_in_argmax() -> None:
    scores = np.zeros((3, 3), np.float32)
    target = np.arange(3)
    assert [float(metrics.accuracy(scores, target, top_k=k)) for k in (1, 2, 3)] == pytest.approx([1 / 3, 2 / 3, 1])
    assert metrics.Accuracy(top_k=5).name == "top_5_accuracy" and metrics.Accuracy(name="hits").name == "hits"


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: metrics.accuracy(np.zeros((4, 3)), np.zeros(4)), "target must be integer class ids"),
        (lambda: metrics.accuracy(np.zeros((4, 1)), np.zeros(4, int)), "one logit per example"),
        (lambda: metrics.accuracy(np.zeros((5, 3)), np.zeros(4, int)), "(4, 'classes')"),
        (lambda: metrics.accuracy(np.zeros(4), np.zeros(4, int)), "threshold scores"),
        (lambda: metrics.accuracy(np.zeros((4, 3)), np.zeros(4, int), top_k=4), "at least 4"),
        (lambda: metrics.accuracy(np.zeros(4, int), np.zeros(4, int), top_k=2), "needs scores"),
        (lambda: metrics.accuracy("abc", [1]), "array of numbers"),
        (lambda: metrics.Accuracy(top_k=0), "positive integer"),
        (lambda: metrics.ConfusionMatrix(1), "from 2 to 32768"),
        (lambda: metrics.ConfusionMatrix(2, normalize="pred"), "'predicted' or 'all'; it is 'pred'"),  # type: ignore[arg-type]
        (lambda: metrics.confusion_matrix(np.zeros((4, 3)), np.zeros(4, int), num_classes=5), "(4, 5)"),
        (lambda: jax.jit(metrics.confusion_matrix)(np.zeros(4, int), np.zeros(4, int)), "num_classes="),
        (lambda: metrics.confusion_table(np.zeros((2, 3))), "[classes, classes]"),
        (lambda: metrics.confusion_plot(np.eye(2), normalize="pred"), "'predicted' or 'all'; it is 'pred'"),
        (lambda: metrics.confusion_table(np.zeros((2, 2)), classes=["a"]), "2 classes but 1 names"),
    ],
)
def test_sentences_before_tracing(call: Callable[[], Any], sentence: str) -> None:
    with pytest.raises((ValueError, TypeError), match=re.escape(sentence)):
        call()


def test_table_and_plot() -> None:
    metric = metrics.ConfusionMatrix(3)
    state = metric.update(metric.init(), preds=[0, 0, 1, 9], target=[0, 1, 1, 1])
    lines = metric.table(state, classes=["cat", "dog", "owl"]).splitlines()
    assert lines[0].split()[-5:] == ["total", "share", "precision", "recall", "f1"]
    assert lines[2].split() == ["cat", "1", "0", "0", "1", "33.3", "%", "0.5000", "1.0000", "0.6667"]
    assert lines[4].split() == ["owl", "0", "0", "0", "0", "0.0", "%", "nan", "nan", "nan"]
    assert lines[-2] == "accuracy 0.6667, macro F1 0.6667 over 2 classes present"
    assert lines[-1] == "left out: 1 with a class id out of range or a NaN score"
    pytest.importorskip("matplotlib")
    figure = metric.plot(state, classes=["cat", "dog", "owl"])
    assert [text.get_text() for text in figure.axes[0].get_xticklabels()] == ["cat", "dog", "owl"]
    assert sorted(text.get_text() for text in figure.axes[0].texts) == ["1", "1", "1"]


def test_plots_of_few_and_of_many_classes() -> None:
    pytest.importorskip("matplotlib")
    two = metrics.confusion_plot(
        np.array([[150_000, 1022], [0, 9]]), classes=["healthy", "a name of more than 24 letters"]
    )
    assert sorted(text.get_text() for text in two.axes[0].texts) == ["1022", "150k", "9"]
    assert max(len(text.get_text()) for text in two.axes[0].get_yticklabels()) == 24
    shares = metrics.confusion_plot(np.array([[9990, 10], [0, 0]]), normalize="true")
    assert sorted(text.get_text() for text in shares.axes[0].texts) == ["0.1%", "100%"]
    many = metrics.confusion_plot(np.eye(100))
    assert not many.axes[0].texts and 15 < len(many.axes[0].get_xticks()) <= 25
    many.savefig(io.BytesIO(), dpi=20)
    metrics.confusion_plot(np.zeros((2, 2)), normalize="all").savefig(io.BytesIO(), dpi=20)


@pytest.mark.parametrize("count", [2, 3, 12])
def test_nothing_of_a_plot_lies_outside(count: int) -> None:
    agg = pytest.importorskip("matplotlib.backends.backend_agg")
    figure = metrics.confusion_plot(np.eye(count) + 1, classes=[f"class {i}" for i in range(count)], title="held out")
    agg.FigureCanvasAgg(figure).draw()
    axes = figure.axes[0]
    for text in (axes.xaxis.label, axes.yaxis.label, axes.title, *axes.get_xticklabels(), *axes.get_yticklabels()):
        box = text.get_window_extent()
        assert min(box.x0, box.y0) >= 0, text.get_text()
        assert box.x1 <= figure.bbox.width and box.y1 <= figure.bbox.height, text.get_text()


@pytest.mark.parametrize("count", [5, 8192, 8197])
def test_counting_in_copies_of_few_cells(count: int) -> None:
    draw = np.random.default_rng(4)
    preds, target, keep = draw.integers(0, 3, count), draw.integers(0, 3, count), draw.random(count) < 0.7
    metric = metrics.ConfusionMatrix(3)
    state = metric.update(metric.init(), preds=preds, target=target, mask=keep)
    np.testing.assert_array_equal(
        metric.counts(state), peer.confusion_matrix(target[keep], preds[keep], labels=range(3))
    )
    assert float(metric.invalid(state)) == 0


@pytest.mark.parametrize("count", [2 * 20_480, 2 * 20_480 + 17])
def test_counting_block_by_block(count: int) -> None:
    draw = np.random.default_rng(6)
    preds, target = draw.integers(-1, 9, (2, count)), draw.integers(0, 10, (2, count))
    metric = metrics.ConfusionMatrix(9, ignore_index=0)
    update = jax.jit(lambda p, t: metric.update(metric.init(), preds=p, target=t))
    mapped = jax.jit(jax.vmap(lambda p, t: metric.update(metric.init(), preds=p, target=t)))(preds, target)
    for i in range(2):
        state = update(preds[i], target[i])
        keep = (preds[i] >= 0) & (target[i] < 9) & (target[i] != 0)
        want = peer.confusion_matrix(target[i][keep], preds[i][keep], labels=range(9))
        np.testing.assert_array_equal(metric.counts(state), want)
        assert float(metric.invalid(state)) == ((target[i] != 0) & ~keep).sum()
        np.testing.assert_array_equal(metric.counts(mapped)[i], want)
