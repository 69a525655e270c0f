"""Two towers: unit vectors, the softmax over the batch with its corrections, retrieval."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdl
from jaxdl import metrics, nn, tasks
from jaxdl.core.task import Context, Hyper
from jaxdl.models import create_model
from jaxdl.models.two_tower import retrieve

TINY = {"queries": 12, "items": 9, "features": 5, "widths": (32,)}
X = jnp.asarray([[0, 3], [1, 4], [2, 3], [5, 8], [7, 1]], jnp.int32)


def started(**options):
    model = create_model("two_tower", **TINY | options)
    return model, model.init(nn.light_key(jax.random.key(0)), X, train=False)


def value(task, variables, batch, weight=None, **hyper):
    numbers = Hyper({name: jnp.asarray(number, jnp.float32) for name, number in hyper.items()})
    weight = jnp.ones(5) if weight is None else jnp.asarray(weight)
    context = Context(False, lambda name: jax.random.key(0), jnp.int32(0), numbers, weight)
    return task.loss(variables, batch, context)


def by_hand(model, variables, temperature, log_q=None, weight=None):
    """The loss by loops."""
    outputs = model.apply(variables, X, train=False)
    query, item = np.asarray(outputs["query"], np.float64), np.asarray(outputs["item"], np.float64)
    ids, losses = np.asarray(X[:, 1]), []
    for i in range(5):
        scores = {}
        for j in range(5):
            if j != i and (ids[i] == ids[j] or (weight is not None and weight[j] == 0)):
                continue
            scores[j] = query[i] @ item[j] / temperature - (0 if log_q is None else log_q[ids[j]])
        losses.append(np.log(sum(np.exp(s) for s in scores.values())) - scores[i])
    return losses


def test_vectors_have_length_one_and_each_tower_stands_alone():
    model, variables = started()
    outputs = model.apply(variables, X, train=False)
    for vectors in outputs.values():
        assert vectors.shape == (5, 5)
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)
    alone = model.apply(variables, {"item": X[:, 1]}, train=False)
    assert set(alone) == {"item"}
    np.testing.assert_array_equal(alone["item"], outputs["item"])


def test_bags_are_means_and_numbers_go_through_layers():
    model, variables = started(widths=())
    table = variables["params"]["item"]["embed"]["embedding"]
    bag = jnp.asarray([[2, 5, -1], [1, -1, -1], [-1, -1, -1]], jnp.int32)
    vectors = np.asarray(model.apply(variables, {"item": bag}, train=False)["item"])
    mean = np.asarray(table[2] + table[5]) / 2
    np.testing.assert_allclose(vectors[0], mean / np.linalg.norm(mean), rtol=1e-5)
    np.testing.assert_allclose(vectors[1], table[1] / np.linalg.norm(table[1]), rtol=1e-5)
    assert np.isfinite(vectors).all()
    numbers = create_model("two_tower", queries=None, items=9, features=5)
    x = {"query": jnp.ones((5, 3)), "item": X[:, 1]}
    assert numbers.init_with_output(jax.random.key(0), x, train=False)[0]["query"].shape == (5, 5)


def test_the_loss_is_that_of_the_loops():
    model, variables = started()
    task = tasks.two_tower(model, temperature=0.2)
    assert task.whole_batch
    np.testing.assert_allclose(value(task, variables, {"x": X}).value, by_hand(model, variables, 0.2), rtol=1e-4)
    columns = {"query": X[:, 0], "item": X[:, 1]}
    np.testing.assert_allclose(value(task, variables, columns).value, by_hand(model, variables, 0.2), rtol=1e-4)
    hot = value(task, variables, {"x": X}, temperature=0.7).value
    np.testing.assert_allclose(hot, by_hand(model, variables, 0.7), rtol=1e-4)
    weight = [1.0, 1.0, 1.0, 0.0, 2.0]
    padded = value(task, variables, {"x": X}, weight).value
    np.testing.assert_allclose(padded, by_hand(model, variables, 0.2, weight=weight), rtol=1e-4)


def test_popular_items_are_corrected_for():
    model, variables = started()
    shares = np.array([0.0, 0.2, 0.0, 0.4, 0.1, 0.1, 0.0, 0.1, 0.1])
    expected = by_hand(model, variables, 0.2, log_q=np.log(np.where(shares > 0, shares, 1)))
    task = tasks.two_tower(model, temperature=0.2, item_probability=shares)
    np.testing.assert_allclose(value(task, variables, {"x": X}).value, expected, rtol=1e-4)
    column = {"x": X, "log_q": jnp.log(jnp.asarray(shares, jnp.float32))[X[:, 1]]}
    plain = tasks.two_tower(model, temperature=0.2)
    np.testing.assert_allclose(value(plain, variables, column).value, expected, rtol=1e-4)
    few = tasks.two_tower(model, item_probability=[0.5, 0.25, 0.25])
    with pytest.raises(ValueError, match="item_probability has 3 shares for 9 items"):
        value(few, variables, {"x": X})
    named = {"x": X, "item_id": jnp.asarray([0, 1, 2, 3, 0], jnp.int32)}
    assert np.isnan(value(few, variables, named).value).all(), "an item that the table does not know is no other one"
    with pytest.raises(ValueError, match="with a sum of 1"):
        tasks.two_tower(model, item_probability=[0.5, 0.9])


def test_it_learns_who_likes_what_and_recall_is_that_of_retrieval():
    rng = np.random.default_rng(0)
    query = rng.integers(0, 12, 400).astype(np.int32)
    item = (query * 5 % 9).astype(np.int32)
    model = create_model("two_tower", **TINY)
    shares = np.bincount(item, minlength=9) / len(item)
    run = jaxdl.fit(
        tasks.two_tower(model, item_probability=shares, k=1), {"query": query, "item": item}, steps=150,
        batch_size=16, optimizer=jaxdl.optim.adam(2e-2), verbose=0,
    )  # fmt: skip
    index = run.predict({"item": np.arange(9, dtype=np.int32)})["item"]
    asked = run.predict({"query": np.arange(12, dtype=np.int32)})["query"]
    found = retrieve(jnp.asarray(asked), jnp.asarray(index), 3)
    wanted = np.arange(12) * 5 % 9
    assert (np.asarray(found.items[:, 0]) == wanted).mean() > 0.9
    relevance = (np.arange(9) == wanted[:, None]).astype(np.float32)
    recall = float(metrics.recall_at_k(asked @ index.T, relevance, k=3))
    np.testing.assert_allclose(recall, (np.asarray(found.items) == wanted[:, None]).any(1).mean())
    assert run.evaluate({"query": query, "item": item}, batch_size=16)["recall_at_k"] > 0.9
    with pytest.raises(ValueError, match="between 1 and the 9 items"):
        retrieve(jnp.asarray(asked), jnp.asarray(index), 10)


def test_what_does_not_fit_is_refused_in_a_sentence():
    model, variables = started()
    for x, sentence in (
        (jnp.zeros((3, 2)), r"integers \[batch, 2\]"),
        ({"user": X[:, 0]}, "a mapping of query and item, not of user"),
        ({"query": jnp.zeros((3, 2))}, "takes integer ids"),
    ):
        with pytest.raises(ValueError, match=sentence):
            model.apply(variables, x, train=False)
    with pytest.raises(ValueError, match="temperature is above 0"):
        tasks.two_tower(model, temperature=0.0)
