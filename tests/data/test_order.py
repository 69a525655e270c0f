"""Order: permutations by epoch, nothing lost or doubled, the same numbers for ever."""

from __future__ import annotations

import pickle
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxdl.data import Order
from jaxdl.data.order import Draws, permutation, stream

KEPT = [[1, 9, 0, 6], [2, 5, 7, 8], [4, 3, -1, -1]]
KEPT_LARGE = [[57000, 33464, 5702, 37864, 57237, 74845, 40581, 89835]]


@pytest.mark.smoke
@given(
    examples=st.integers(1, 300),
    batch_size=st.integers(1, 70),
    seed=st.integers(-(2**63), 2**64),
    epoch=st.integers(0, 10**6),
    shuffle=st.booleans(),
)
def test_an_epoch_holds_every_example_once(
    examples: int, batch_size: int, seed: int, epoch: int, shuffle: bool
) -> None:
    order = Order(examples, batch_size, shuffle)
    steps = order.steps_per_epoch
    block = order(seed, epoch * steps, steps)
    assert block.shape == (-(-examples // batch_size), batch_size) and block.dtype == np.int32
    flat = block.reshape(-1)
    # Padding stands at the very end of the epoch and nowhere else.
    assert (flat[examples:] == -1).all() and (flat[:examples] >= 0).all()
    assert np.array_equal(np.sort(flat[:examples]), np.arange(examples))


@given(
    examples=st.integers(1, 60),
    batch_size=st.integers(1, 20),
    start=st.integers(0, 40),
    counts=st.lists(st.integers(1, 9), min_size=1, max_size=5),
    drop_last=st.booleans(),
)
def test_any_cut_into_blocks_gives_the_same_batches(
    examples: int, batch_size: int, start: int, counts: list[int], drop_last: bool
) -> None:
    drop_last = drop_last and batch_size <= examples
    one_by_one = np.concatenate([Order(examples, batch_size, drop_last=drop_last)(7, start + i) for i in range(45)])
    order, step = Order(examples, batch_size, drop_last=drop_last), start
    for count in counts:
        assert np.array_equal(order(7, step, count), one_by_one[step - start : step - start + count])
        step += count


def test_epochs_and_seeds_differ() -> None:
    order = Order(500, 500)
    rows = np.concatenate([order(0, 0, 3), order(1, 0, 3)])
    assert len(np.unique(rows, axis=0)) == 6


def test_shuffling_is_uniform() -> None:
    # Where example 0 of 5 lands in 4,000 epochs: 800 each, standard deviation 25. Five of them are allowed.
    order = Order(5, 5)
    places = np.argmax(order(3, 0, 4000) == 0, axis=1)
    assert (np.abs(np.bincount(places, minlength=5) - 800) < 125).all()


def test_without_shuffling_the_order_of_the_data_is_kept() -> None:
    block = Order(5, 2, shuffle=False)(9, 1, 4)
    assert block.tolist() == [[2, 3], [4, -1], [0, 1], [2, 3]]


@pytest.mark.smoke
def test_the_numbers_are_the_same_for_ever() -> None:
    # Kept values: what a run of today resumes with on another machine, Python or numpy.
    assert Order(10, 4)(0, 0, 3).tolist() == KEPT
    assert Order(100_000, 8)(12345, 12_500 * 3).tolist() == KEPT_LARGE


def test_another_process_gives_the_same() -> None:
    code = "from jaxdl.data import Order; print(Order(1000, 10)(5, 250, 2).tolist())"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.strip() == str(Order(1000, 10)(5, 250, 2).tolist())


def test_drop_last_leaves_the_partial_batch_out() -> None:
    order = Order(10, 4, drop_last=True)
    block = order(0, 0, order.steps_per_epoch)
    assert block.shape == (2, 4) and (block >= 0).all() and len(np.unique(block)) == 8


def test_old_epochs_leave_the_cache_and_a_pickle_leaves_it_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jaxdl.data.order._CACHED_ENTRIES", 2000)
    order = Order(1000, 10)
    for epoch in range(4):
        order(0, epoch * order.steps_per_epoch)
    assert len(order._tables) == 2
    assert len(pickle.dumps(order)) < 300 and pickle.loads(pickle.dumps(order)) == order


def test_batches_cannot_be_written_into() -> None:
    order = Order(10, 5)
    with pytest.raises(ValueError, match="read-only"):
        order(0, 0)[0, 0] = 3


def test_draws_are_those_of_a_new_generator() -> None:
    draws = Draws("record")
    for seed, number in ((3, 9), (3, 10), (-1, 2**70), (3, 9)):
        again = draws.at(seed, number)
        once = np.random.Generator(stream(seed, number, "record"))
        # Odd counts of 32-bit numbers leave a half word over, which the next start must not see.
        assert np.array_equal(again.integers(9, size=3, dtype=np.int32), once.integers(9, size=3, dtype=np.int32))
        assert again.random() == once.random()


def test_a_permutation_is_that_of_a_new_generator() -> None:
    for examples, seed, epoch in ((10, 0, 0), (1001, 3, 7), (1000, -1, 2**33), (10, 0, 0)):
        rows = np.arange(examples)
        np.random.RandomState(stream(seed, epoch, "order")).shuffle(rows)
        assert permutation(examples, seed, epoch).tolist() == rows.tolist()


def test_whether_batches_are_padded() -> None:
    assert Order(12, 4).full and Order(10, 4, drop_last=True).full and not Order(10, 4).full


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((0, 4), "1 to 2\\^31 - 1 examples, not 0"),
        ((4, 0), "batch_size must be at least 1, not 0"),
        ((3, 4, True, True), "3 examples give no whole batch of 4"),
    ],
)
def test_impossible_orders_are_refused(arguments: tuple, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        Order(*arguments)


@pytest.mark.parametrize(("step", "count"), [(-1, 1), (0, 0)])
def test_impossible_steps_are_refused(step: int, count: int) -> None:
    with pytest.raises(ValueError, match="starts at step 0"):
        Order(4, 2)(0, step, count)
