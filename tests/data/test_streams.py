"""Token streams: rows go on, every token is learnt once, epochs and resumes are the same; windows count each once."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdl.data import TokenStreams, token_windows

KEPT = [24, 25, 37, 28]
TEXT = np.random.default_rng(0).integers(0, 200, 1000).astype(np.uint8)


def batches(feed, seed, step, count):
    taken = jax.vmap(lambda item: feed.take(jax.tree.map(jnp.asarray, feed.data), item))(feed.block(seed, step, count))
    return [jax.tree.map(lambda leaf: np.asarray(leaf[row]), taken) for row in range(count)]  # noqa: B023


@pytest.mark.parametrize("shuffle", [False, True])
def test_rows_go_on_and_begin_where_the_epoch_does(shuffle):
    feed = TokenStreams(TEXT, 4, 10, shuffle)
    steps = feed.steps_per_epoch
    assert steps == (len(TEXT) - 11) // 40 and feed.examples == 4 * steps and feed.batch_size == 4
    for epoch in range(3):
        found = batches(feed, 5, epoch * steps, steps)
        assert [bool(batch["start"].all()) for batch in found] == [True] + [False] * (steps - 1)
        assert not any(batch["start"].any() for batch in found[1:])
        rows = np.concatenate([batch["x"] for batch in found], 1)
        offset = feed._offset(5, epoch)
        text = TEXT[offset : offset + feed.examples * 10 + 1].astype(np.int32)
        np.testing.assert_array_equal(rows.reshape(-1), text[:-1])
        np.testing.assert_array_equal(np.concatenate([batch["y"] for batch in found], 1).reshape(-1), text[1:])
        assert all((batch["weight"] == 1).all() for batch in found)
        for name, column in found[0].items():
            assert column.dtype == {"x": np.int32, "y": np.int32, "start": np.bool_, "weight": np.float32}[name]


def test_a_batch_is_a_function_of_seed_and_step():
    feed, again = TokenStreams(TEXT, 4, 10), TokenStreams(TEXT, 4, 10)
    steps = feed.steps_per_epoch
    whole = batches(feed, 1, 0, 3 * steps)
    for step in (0, 1, steps - 1, steps, 2 * steps + 3):
        jax.tree.map(np.testing.assert_array_equal, batches(again, 1, step, 1)[0], whole[step])
    across = batches(again, 1, steps - 2, 5)  # a block may cross the end of an epoch
    for one, other in zip(across, whole[steps - 2 : steps + 3], strict=True):
        jax.tree.map(np.testing.assert_array_equal, one, other)
    offsets = {feed._offset(seed, epoch) for seed in range(5) for epoch in range(8)}
    spare = len(TEXT) - 1 - feed.examples * 10
    assert len(offsets) > 10 and max(offsets) <= spare and spare >= 10
    assert [TokenStreams(TEXT, 4, 10, shuffle=False)._offset(1, epoch) for epoch in range(3)] == [0, 0, 0]


def test_the_offsets_stay_the_same_for_ever():
    assert [TokenStreams(TEXT, 4, 10)._offset(0, epoch) for epoch in range(4)] == KEPT


@pytest.mark.parametrize(("count", "length", "context"), [(1000, 10, 0), (1000, 10, 4), (995, 16, 15), (11, 10, 3)])
def test_windows_count_each_token_once(count, length, context):
    text = np.arange(count)
    data = token_windows(text, length, context=context)
    assert data["x"].shape == data["y"].shape == data["mask"].shape == (len(data), length)
    np.testing.assert_array_equal(data["y"], data["x"] + 1)
    np.testing.assert_array_equal(np.sort(data["y"][data["mask"]]), text[1:])
    assert data["start"].all()
    # in each window but the first, what counts comes after `context` tokens or more
    first = np.argmax(data["mask"], 1)
    assert (first[1:] >= context).all() and first[0] == 0


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match="51 for one batch"):
        TokenStreams(TEXT[:50], 4, 10)
    assert TokenStreams(TEXT[:51], 4, 10).steps_per_epoch == 1
    with pytest.raises(ValueError, match="at least 1"):
        TokenStreams(TEXT, 0, 10)
    for text in (TEXT.reshape(10, -1), TEXT / 2):
        with pytest.raises(ValueError, match="one row of token numbers"):
            TokenStreams(text, 4, 10)
    with pytest.raises(ValueError, match="from -1 to"):
        TokenStreams(TEXT.astype(np.int64) - 1 - TEXT.min(), 4, 10)
    with pytest.raises(ValueError, match="leave room for 0 to 9"):
        token_windows(TEXT, 10, context=10)
    with pytest.raises(ValueError, match="too few"):
        token_windows(TEXT[:10], 10)
