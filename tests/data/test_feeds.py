"""Feeds: the same batches whatever the feed, the block, the worker count or the place where a run resumed."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from jaxdl.data import Dataset, GrainFeed, Resident, Streamed, color_jitter, make_feed, random_crop, random_flip
from jaxdl.data.feeds import narrow

ROWS, BATCH = 23, 5


def columns(weight: bool = True) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    made = {
        "x": rng.normal(size=(ROWS, 3, 2)),  # float64: to become float32
        "image": rng.integers(0, 256, (ROWS, 6, 6, 3), dtype=np.uint8),
        "y": np.arange(ROWS, dtype=np.int64),
        "mask": rng.random((ROWS, 4)) < 0.5,
    }
    return {**made, "weight": rng.random(ROWS)} if weight else made


def batches(feed, seed: int, step: int, count: int) -> list[dict[str, np.ndarray]]:
    """What the program sees: `take` of each row of a block."""
    block = feed.block(seed, step, count)
    take = jax.jit(feed.take)
    return [jax.device_get(take(feed.data, jax.tree.map(lambda rows, i=i: rows[i], block))) for i in range(count)]


def assert_same(left: list[dict], right: list[dict]) -> None:
    assert len(left) == len(right)
    for a, b in zip(left, right, strict=True):
        assert a.keys() == b.keys()
        for name in a:
            assert a[name].dtype == b[name].dtype and np.array_equal(a[name], b[name]), name


@pytest.mark.smoke
@pytest.mark.parametrize("weight", [True, False])
def test_the_three_feeds_give_the_same_batches(weight: bool) -> None:
    data = columns(weight)
    first = batches(Resident(data, BATCH), 3, 2, 6)  # across an epoch's end, padding included
    assert_same(first, batches(Streamed(data, BATCH), 3, 2, 6))
    assert_same(first, batches(GrainFeed(data, BATCH), 3, 2, 6))
    # The slow path of one record at a time is the same too.
    assert_same(first, batches(GrainFeed(data, BATCH, transform=lambda record, rng: record), 3, 2, 6))


@pytest.mark.parametrize("weight", [True, False])
def test_feeds_without_padding_give_the_same_batches(weight: bool) -> None:
    """Then the weights of a resident batch are constants, or the column's own."""
    data = columns(weight)
    for drop_last, size in ((False, ROWS), (True, BATCH)):
        first = batches(Resident(data, size, drop_last=drop_last), 3, 0, 2)
        assert_same(first, batches(Streamed(data, size, drop_last=drop_last), 3, 0, 2))


def test_batches_hold_the_rows_of_the_order_and_padding_weighs_nothing() -> None:
    data = columns()
    feed = Resident(data, BATCH)
    for step, batch in enumerate(batches(feed, 1, 0, feed.steps_per_epoch)):
        rows = feed.order(1, step)[0]
        real = rows >= 0
        assert np.array_equal(batch["y"][real], rows[real])
        assert np.array_equal(batch["x"][real], data["x"][rows[real]].astype(np.float32))
        assert np.array_equal(batch["weight"], np.where(real, data["weight"][rows], 0).astype(np.float32))
        assert (batch["y"][~real] == 0).all() and np.array_equal(batch["image"][~real], data["image"][[0] * sum(~real)])
    assert (~real).sum() == 2


@pytest.mark.parametrize("kind", [Resident, Streamed, GrainFeed])
def test_batch_tells_the_shapes_and_dtypes(kind) -> None:
    feed = kind(columns(), BATCH)
    batch = batches(feed, 0, 0, 1)[0]
    assert {name: (spec.shape, spec.dtype) for name, spec in feed.batch.items()} == {
        name: (array.shape, array.dtype) for name, array in batch.items()
    }
    assert feed.batch["x"].dtype == np.float32 and feed.batch["y"].dtype == np.int32
    assert feed.batch["image"].dtype == np.uint8 and feed.batch["weight"].shape == (BATCH,)
    assert (feed.examples, feed.batch_size, feed.steps_per_epoch) == (ROWS, BATCH, 5)


def test_a_block_is_new_memory() -> None:
    # device_put may share a host buffer: a block that is handed out is never written again.
    feed = Streamed(columns(), BATCH, shuffle=False)
    first = feed.block(0, 0, 1)
    kept = {name: array.copy() for name, array in first.items()}
    again = feed.block(0, 1, 1)
    assert all(not np.shares_memory(first[name], again[name]) for name in first)
    assert all(np.array_equal(first[name], kept[name]) for name in first)
    assert not np.shares_memory(first["image"], feed.dataset["image"])
    # Aligned, so that a CPU device takes it over instead of copying it.
    assert first["image"].ctypes.data % 64 == 0


def test_values_that_no_device_holds_are_refused_with_their_row() -> None:
    wide = {"x": np.zeros((9, 2)), "id": np.arange(9) + 2**31 - 3}
    with pytest.raises(ValueError, match=r"column 'id' of data is 2147483648 in row 3, which does not fit int32"):
        _ = Resident(wide, 3).data
    with pytest.raises(ValueError, match=r"column 'id' of data is 21474836\d\d, which does not fit int32"):
        Streamed(wide, 9).block(0, 0, 1)
    with pytest.raises(ValueError, match=r"column 'x' of data is 1e\+300 in row 1, beyond float32"):
        narrow(np.array([1.0, 1e300, np.inf]), "x", "data", 0)
    assert np.isinf(narrow(np.array([np.inf]), "x")[0])


def test_big_endian_columns_come_in_native_order() -> None:
    data = {"x": np.arange(4, dtype=">f4"), "y": np.arange(4, dtype=">i8")}
    assert_same(batches(Resident(data, 2), 0, 0, 2), batches(Streamed(data, 2), 0, 0, 2))
    assert Resident(data, 2).data["y"].tolist() == [0, 1, 2, 3]


def test_auto_streams_maps_and_large_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.save(tmp_path / "x.npy", np.arange(12.0).reshape(6, 2))
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    assert isinstance(make_feed((mapped,), 2), Streamed)
    assert isinstance(make_feed((np.asarray(mapped)[1:],), 2), Streamed)
    assert isinstance(make_feed((np.array(mapped),), 2), Resident)
    assert isinstance(make_feed((mapped,), 2, kind="resident"), Resident)
    assert_same(batches(make_feed((mapped,), 2), 0, 0, 3), batches(make_feed((mapped,), 2, kind="resident"), 0, 0, 3))
    monkeypatch.setattr("jaxdl.data.feeds.RESIDENT_BYTES", 90)
    assert isinstance(make_feed((np.array(mapped),), 2), Streamed)
    with pytest.raises(ValueError, match="no feed called 'fast'"):
        make_feed((mapped,), 2, kind="fast")


def augmented(record, rng):
    image = random_flip(random_crop(record["image"], rng, size=(4, 4), padding=1), rng)
    return {"x": color_jitter(image, rng, brightness=0.4, contrast=0.4, saturation=0.4), "y": record["y"]}


def test_augmented_batches_are_a_function_of_seed_and_step() -> None:
    whole = GrainFeed(columns(), BATCH, transform=augmented).block(7, 0, 12)
    assert whole["x"].shape == (12, BATCH, 4, 4, 3) and whole["x"].dtype == np.uint8
    for step, count in ((4, 3), (4, 3), (9, 1), (0, 2)):
        part = GrainFeed(columns(), BATCH, transform=augmented).block(7, step, count)
        assert all(np.array_equal(part[name], whole[name][step : step + count]) for name in part)
    # An example is changed in another way in each epoch, and under another seed.
    by_row = [whole["x"][start : start + 5].reshape(-1, 4, 4, 3) for start in (0, 5)]
    rows = [whole["y"][start : start + 5].reshape(-1)[:ROWS] for start in (0, 5)]
    first, second = (images[np.argsort(numbers)] for images, numbers in zip(by_row, rows, strict=True))
    assert (first != second).any(axis=(1, 2, 3)).all()
    assert (GrainFeed(columns(), BATCH, transform=augmented).block(8, 0, 12)["x"] != whole["x"]).any()


def test_a_transform_may_write_into_its_record_and_not_into_the_data() -> None:
    data = columns()
    kept = {name: array.copy() for name, array in data.items()}

    def wipe(record, rng):
        for array in record.values():
            array[...] = 0
        return record

    assert not GrainFeed(data, BATCH, transform=wipe).block(0, 0, 5)["x"].any()
    assert all(np.array_equal(data[name], kept[name]) for name in data)


@pytest.mark.parametrize(
    ("transform", "error", "sentence"),
    [
        (
            lambda record, rng: {"x": record["x"][: 1 + int(record["y"]) % 2]},
            ValueError,
            r"of record \d+ is float64\[2, 2\]",
        ),
        (lambda record, rng: {f"x{int(record['y']) % 2}": record["x"]}, ValueError, r"has the columns \['x1'\]"),
        (lambda record, rng: record["x"], TypeError, "must return a record"),
        (lambda record, rng: {**record, "weight": 1.0}, ValueError, "weights are a column of the Dataset"),
    ],
)
def test_transforms_that_do_not_keep_to_one_shape_are_refused(transform, error, sentence: str) -> None:
    with pytest.raises(error, match=sentence):
        GrainFeed(columns(), BATCH, transform=transform).block(0, 0, 2)


WORKERS = """
import numpy as np, sys
from jaxdl.data import GrainFeed, Streamed, random_flip, random_crop

def augmented(record, rng):
    return {**record, "x": random_flip(random_crop(record["x"], rng, size=(4, 4), padding=1), rng)}

def broken(record, rng):
    raise ValueError(f"record {int(record['y'])} is broken")

def same(left, right):
    return all(np.array_equal(left[name], right[name]) for name in right)

if __name__ == "__main__":
    images = np.load(sys.argv[1], mmap_mode="r")
    data = {"x": images, "y": np.arange(len(images))}
    here, ahead = (GrainFeed(data, 4, transform=augmented, workers=workers) for workers in (0, 2))
    for step, count in ((0, 3), (3, 3), (6, 3), (20, 1), (9, 3), (4, 2), (6, 2), (8, 5), (0, 1)):
        assert same(ahead.block(5, step, count), here.block(5, step, count)), (step, count)
    ahead.close()
    for made in (GrainFeed(data, 4, transform=broken, workers=2),):
        made._ahead._expected = (0, 0)  # as if the block before had been asked for
        try:
            made.block(0, 0, 1)
        except ValueError as problem:
            assert "is broken" in str(problem), problem
        else:
            raise AssertionError("no error")
    print("same")
"""


@pytest.mark.slow
def test_workers_change_nothing(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.random.default_rng(0).integers(0, 256, (30, 5, 5, 3), dtype=np.uint8))
    (tmp_path / "script.py").write_text(WORKERS)
    command = [sys.executable, str(tmp_path / "script.py"), str(tmp_path / "x.npy")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and done.stdout.strip() == "same", done.stderr


MEMORY = """
import sys
import tracemalloc
import numpy as np
from jaxdl.data import make_feed

x = np.load(sys.argv[1], mmap_mode="r")
feed = make_feed({"x": x, "y": np.arange(len(x), dtype=np.int32)}, 256, kind=sys.argv[2])
tracemalloc.start()  # numpy tells it of every array; pages of a map are the system's to drop and do not count
total = 0
if sys.argv[2] == "resident":
    total = int(feed.data["x"].sum(dtype=np.int64))
else:
    for step in range(0, feed.steps_per_epoch, 4):
        block = feed.block(0, step, min(4, feed.steps_per_epoch - step))
        total += int((block["x"].sum(axis=2, dtype=np.int64) * (block["weight"] > 0)).sum())
print(tracemalloc.get_traced_memory()[1], total)
"""


def test_a_memory_map_larger_than_what_may_be_held_is_streamed(tmp_path: Path) -> None:
    # 205 MB of uint8 on disk, blocks of 2 MB: at no moment more than 30 MB of arrays.
    width, rows = 2000, 102_400
    x = np.lib.format.open_memmap(tmp_path / "x.npy", "w+", np.uint8, (rows, width))
    x[:] = np.arange(rows, dtype=np.uint8)[:, None]
    total = int(x[:, 0].sum(dtype=np.int64)) * width
    x.flush()
    # The resident feed copies nothing that has the right dtype: a map stays a map until it is put on a device.
    for kind in ("streamed", "resident"):
        command = [sys.executable, "-c", MEMORY, str(tmp_path / "x.npy"), kind]
        most, summed = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
        assert int(summed) == total and int(most) < 30e6, (kind, most)


def test_dataset_objects_pass_through() -> None:
    data = Dataset(columns(), name="mine")
    assert (
        Resident(data, 2).dataset is data and Streamed(data, 2).dataset is data and GrainFeed(data, 2).dataset is data
    )
    with pytest.raises(ValueError, match="batch_size must be at least 1"):
        Streamed(data, 0)
    with pytest.raises(ValueError, match="workers must be 0 or more"):
        GrainFeed(data, 2, workers=-1)


INTERRUPTED = """
import sys, time
import jaxdl

def slow(record, rng):
    time.sleep(0.002)
    return record

if __name__ == "__main__":
    train, _ = jaxdl.data.load("digits")
    task = jaxdl.tasks.classification(jaxdl.create_model("linear", num_classes=10))
    feed = jaxdl.data.GrainFeed(train.select(range(64)), 16, transform=slow, workers=1)

    def tell(record, run):
        if record["epoch"] == 5:
            print("training", flush=True)

    options = jaxdl.ProgramOptions(steps_per_dispatch=2)
    run = jaxdl.fit(task, feed, epochs=10_000, checkpoint=sys.argv[1], verbose=0, program=options, callbacks=[tell])
    print("returned", run.stopped, int(run.state.step))
"""


@pytest.mark.slow
def test_an_interrupt_of_the_whole_group_saves_though_it_reaches_the_workers(tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text(INTERRUPTED)
    process = subprocess.Popen(
        [sys.executable, str(script), str(tmp_path / "run")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "training\n", process.stderr.read()  # type: ignore[union-attr]
        os.killpg(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=120)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 0, err
    assert "worker process died" not in err and "Exception ignored" not in err, err
    _, stopped, step = out.split()
    assert stopped == "interrupted"
    assert f"{int(step)}" in " ".join(path.name for path in (tmp_path / "run" / "checkpoints").iterdir())


def dies_in_a_worker(record: dict[str, np.ndarray], rng: np.random.Generator) -> dict[str, np.ndarray]:
    if record["y"] == 20 and multiprocessing.parent_process() is not None:
        time.sleep(0.5)  # what was made before is on its way
        os._exit(3)
    return {**record, "x": record["x"] + rng.random()}


@pytest.mark.slow
def test_the_blocks_of_a_dead_worker_are_made_here() -> None:
    expected = GrainFeed(columns(), 4, shuffle=False, transform=dies_in_a_worker).block(1, 0, 12)
    feed = GrainFeed(columns(), 4, shuffle=False, transform=dies_in_a_worker, workers=1)
    try:
        feed.block(1, 0, 1)
        parts = [feed.block(1, 1, 2)]
        assert multiprocessing.active_children()
        with pytest.warns(UserWarning, match="a worker process died .*batches are made in the main process"):
            parts += [feed.block(1, 3, 4)]
        parts += [feed.block(1, 7, 5)]
        assert not multiprocessing.active_children()
    finally:
        feed.close()
    for name, values in expected.items():
        np.testing.assert_array_equal(np.concatenate([part[name] for part in parts]), values[1:])
