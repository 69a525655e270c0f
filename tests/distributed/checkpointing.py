"""What the processes of test_processes_checkpoint.py do; each function runs in all of them."""

from __future__ import annotations

import importlib
import json
import os
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from jaxdl.checkpoint import CorruptCheckpoint, Store, commit, fingerprint, peers, together
from jaxdl.checkpoint.fingerprint import device_sums
from jaxdl.checkpoint.peers import Peers
from jaxdl.parallel import processes

AXES = ("data", "tensor")
SPECS = {
    "kernel": PartitionSpec("data", "tensor"),
    "wide": PartitionSpec(None, AXES),
    "half": PartitionSpec("tensor"),
    "tall": PartitionSpec(AXES),
    "whole": PartitionSpec(),
    "step": PartitionSpec(),
    "empty": PartitionSpec(),
}


def values(step: int = 0) -> dict[str, np.ndarray]:
    """A tree on the host: several widths, ranks, an empty leaf, a scalar."""
    random = np.random.default_rng(step)
    return {
        "kernel": random.standard_normal((16, 24)).astype(np.float32),
        "wide": random.integers(-100, 100, (3, 48)).astype(np.int8),
        "half": random.standard_normal(16).astype(jnp.bfloat16),
        "tall": random.integers(-8, 8, (16, 2, 3)).astype(jnp.int4),
        "whole": random.standard_normal((5, 7)).astype(np.float32),
        "step": np.asarray(step, np.int32),
        "empty": np.zeros((0, 4), np.float32),
    }


def mesh_of(data: int) -> jax.sharding.Mesh:
    """All devices, in so many rows."""
    shape = (data, jax.device_count() // data)
    return jax.make_mesh(shape, AXES, axis_types=(jax.sharding.AxisType.Auto,) * 2)


def sharding_of(name: str, data: int) -> NamedSharding:
    """Where a leaf lies; whole where its dimensions do not divide."""
    mesh = mesh_of(data)
    sharding = NamedSharding(mesh, SPECS[name])
    try:
        sharding.shard_shape(values()[name].shape)
    except ValueError:
        return NamedSharding(mesh, PartitionSpec())
    return sharding


def put(tree: dict[str, np.ndarray], data: int) -> dict[str, jax.Array]:
    """A tree on the devices of all processes."""
    return {
        name: jax.make_array_from_callback(x.shape, sharding_of(name, data), lambda index, x=x: x[index])
        for name, x in tree.items()
    }


def abstract(data: int) -> dict[str, jax.ShapeDtypeStruct]:
    """What to restore into."""
    return {
        name: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding_of(name, data)) for name, x in values().items()
    }


def same(tree: dict[str, Any], expected: dict[str, np.ndarray]) -> bool:
    """Whether every shard that this process holds has the right bits."""
    return all(
        np.asarray(shard.data).tobytes() == np.ascontiguousarray(x[shard.index]).tobytes()
        for name, x in expected.items()
        for shard in tree[name].addressable_shards
    )


def heard(error: type[Exception], work: Callable[[], object]) -> str:
    """The sentence of an error, which is the same on every process."""
    with pytest.raises(error) as caught:
        work()
    said = processes.gather_texts(str(caught.value))
    assert len(set(said)) == 1, said
    return said[0]


def left_overs(folder: Path) -> list[str]:
    """What is in the folder beside checkpoints and the notices of a store that is open."""
    known = (".jaxdl-lock", ".jaxdl-process-")
    processes.wait_for_all()
    names = [path.name for path in folder.iterdir()]
    processes.wait_for_all()  # nobody goes on to the next save before all have looked
    return [name for name in names if not name.isdecimal() and not name.startswith(known)]


def on_first(work: Callable[[], object]) -> None:
    """Do a thing in process 0, while the others wait."""
    if processes.first():
        work()
    processes.wait_for_all()


def flip(path: Path) -> None:
    """One bit in the middle of a file."""
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 4
    path.write_bytes(raw)


def failing(number: int, work: Callable[..., Any], error: OSError) -> Callable[..., Any]:
    """The function, but in one process it fails."""

    def fail(*arguments: Any, **options: Any) -> Any:
        if jax.process_index() == number:
            raise error
        return work(*arguments, **options)

    return fail


def numbers_are_those_of_one_process() -> None:
    """The fingerprint on all devices, by NumPy and by the program for accelerators, is that of the plain arrays."""
    tree, plain = values(3), fingerprint(values(3))
    for data in {1, 2, jax.device_count()}:
        placed = put(tree, data)
        assert fingerprint(placed) == plain, data
        sums = jax.device_get(device_sums(list(placed.values()))).tolist()
        assert dict(zip(placed, sums, strict=True)) == plain.leaves, data
    own = {"own": np.arange(5), "mine": jnp.arange(3.0)}
    assert fingerprint({**put(tree, 2), **own}) == fingerprint({**tree, **own})


def saves_and_restores(folder: Path, steps: tuple[int, ...], data: int, onto: tuple[int, ...]) -> None:
    """Steps that are saved on one mesh come back on others, bit for bit."""
    with Store(folder, keep=None) as store:
        for step in steps:
            tree = put(values(step), data)
            store.save(step, tree, manifest={"step": step}, metric=1 / (1 + step))
            jax.jit(lambda tree: jax.tree.map(lambda x: x + x, tree), donate_argnums=0)(tree)
        store.wait()
        assert set(steps) <= set(store.steps()) and store.best_step() == max(store.steps())
        for step in store.steps():
            for rows in onto:
                restored = store.restore(abstract(rows), step=step)
                assert restored.step == step and same(restored.tree, values(step)), (step, rows)
                assert restored.manifest["fingerprint"] == fingerprint(values(step)).whole
                for name, leaf in restored.tree.items():
                    assert leaf.sharding == sharding_of(name, rows)
        assert store.verify() == []
    print("saved", steps, "read", onto)


def as_on_accelerators(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same where nothing lies in host memory: the devices sum, and shards are downloaded."""

    def on_host(leaf: Any) -> bool:
        return not isinstance(leaf, jax.Array)

    for name in ("fingerprint", "shards"):
        monkeypatch.setattr(importlib.import_module(f"jaxdl.checkpoint.{name}"), "on_host", on_host)
    before = device_sums._cache_size()
    saves_and_restores(folder, (1, 2), data=2, onto=(1, 2))
    assert device_sums._cache_size() > before
    a_part_of_a_tree(folder / "part")
    monkeypatch.undo()


def a_part_of_a_tree(folder: Path) -> None:
    """Leaves of this process alone, others kept, one read twice; and what comes back may be donated."""
    own = {"numbers": np.arange(7), "own": jnp.arange(4.0)}
    with Store(folder) as store:
        store.save(1, {**put(values(1), 2), **own}, manifest={}, wait=True)
        kept = put({"whole": values(5)["whole"]}, 2)["whole"]
        like = {"kernel": abstract(2)["kernel"], "twice": put(values(0), 2)["kernel"], "new": kept, **own}
        restored = store.restore(like, strict=False, path_map={"twice": "kernel", "new": None})
        assert same({"new": restored.tree["new"]}, {"new": values(5)["whole"]})
        assert np.array_equal(restored.tree["numbers"], np.arange(7))
        assert np.array_equal(restored.tree["own"], np.arange(4.0)) and restored.tree["own"].is_fully_addressable
        for name in ("kernel", "twice"):
            twice = jax.jit(lambda x: x + x, donate_argnums=0)(restored.tree[name])
            assert same({name: twice}, {name: 2 * values(1)["kernel"]})
        alone = store.restore({name: np.zeros(x.shape, x.dtype) for name, x in values().items()}, strict=False)
        assert all(np.asarray(alone.tree[name]).tobytes() == x.tobytes() for name, x in values(1).items())
        other = {**abstract(2), "kernel": jax.ShapeDtypeStruct((2,), np.float32)}
        assert "kernel: shape [16, 24] in the checkpoint, [2] wanted" in heard(ValueError, lambda: store.restore(other))
        assert "holds no checkpoint of step 9" in heard(FileNotFoundError, lambda: store.restore(other, step=9))
        if processes.first():  # nobody else is needed to look
            with Store(folder, read_only=True) as reader:
                assert reader.verify() == [] and reader.steps() == (1,)
                assert reader.restore({"own": own["own"]}, strict=False).step == 1
        processes.wait_for_all()
        with Store(folder, read_only=True) as reader:
            assert same(reader.restore(abstract(1), strict=False).tree, values(1))
        whole = put({"whole": values(2)["whole"]}, 2)["whole"]
        store.save(2, dict.fromkeys("abcd", whole), manifest={}, wait=True)
        sizes = {of["size"] for of in store.manifest(2)["files"].values()}
        assert sizes == {4 * whole.nbytes // jax.process_count()}  # what lies whole on all is written by each in part


def keeping(folder: Path) -> None:
    """The newest and the best stay; all processes say the same of what is there."""
    with Store(folder, keep=2) as store:
        for step, metric in ((1, 0.9), (2, 0.1), (3, 0.5), (4, float("nan")), (5, 0.3)):
            store.save(step, put(values(step), 2), manifest={}, metric=metric)
        while not (folder / "00000005").exists():
            time.sleep(0.01)
        assert store.steps() == (2, 3, 4)  # 5 was not waited for, and may not be there yet elsewhere
        store.wait()
        assert store.steps() == (2, 4, 5) and store.best_step() == 2
        store.delete(4)
        assert store.steps() == (2, 5)
        assert "no checkpoint of step 4: it holds 2, 5" in heard(FileNotFoundError, lambda: store.delete(4))


def damage(folder: Path) -> None:
    """What is wrong with one process's file is named on all, and all go back to the step before."""
    with Store(folder, keep=None) as store:
        for step in (10, 20):
            store.save(step, put(values(step), 2), manifest={}, metric=-step, wait=True)
        files = sorted((folder / "00000020").iterdir())
        assert len(files) == 1 + jax.process_count()
        for path in files:
            sound = path.read_bytes()
            for change in (flip, Path.unlink):
                on_first(lambda path=path, change=change: change(path))
                assert str(path) in heard(CorruptCheckpoint, lambda: store.restore(abstract(2), step=20))
                restored = store.restore(abstract(2))
                assert restored.step == 10 and same(restored.tree, values(10)) and store.best_step() == 10
                assert str(path) in restored.notes[0] and "fell back to step 10" in restored.notes[0]
                found = store.verify()
                assert found and all("step 20" in each and str(path) in each for each in found), found
                on_first(lambda path=path, sound=sound: path.write_bytes(sound))
        assert store.verify() == [] and store.restore(abstract(2)).step == 20
        on_first(lambda: flip(folder / "00000020" / "pieces-00001"))
        assert store.restore(abstract(2)).step == 10
        store.save(20, put(values(21), 2), manifest={}, metric=-20.0, wait=True)
        assert same(store.restore(abstract(2)).tree, values(21)) and store.best_step() == 20 and store.verify() == []


def trouble(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error on one process is the same error on all; nothing older is lost, and the next save works."""
    with Store(folder) as store:
        store.save(1, put(values(1), 2), manifest={}, wait=True)
        for number in range(jax.process_count()):
            full = failing(number, together.write_pieces, OSError(28, "No space left on device"))
            monkeypatch.setattr(together, "write_pieces", full)
            store.save(2, put(values(2), 2), manifest={})
            said = heard(OSError, lambda: store.save(3, put(values(3), 2), manifest={}))
            assert "step 2 was not saved" in said and "the disk is full" in said and "step 1" in said, said
            assert number == 0 or f"process {number} of {jax.process_count()} on host {socket.gethostname()}" in said
            monkeypatch.undo()
            assert left_overs(folder) == []
            store.save(3, put(values(3), 2), manifest={}, wait=True)
            assert store.steps() == (1, 3) and same(store.restore(abstract(2)).tree, values(3))
            store.delete(3)
        monkeypatch.setattr(commit, "publish", failing(0, commit.publish, OSError(5, "Input/output error")))
        said = heard(OSError, lambda: store.save(2, put(values(2), 2), manifest={}, wait=True))
        assert "input/output error" in said and left_overs(folder) == []
        monkeypatch.undo()


def missing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that hands in no part is named, after a time, and its part is not taken for one of a later save."""
    with Store(folder, patience=2) as store:
        store.save(1, put(values(1), 2), manifest={}, wait=True)
        post = Peers.post

        def silent(self: Peers, record: Any) -> None:
            if self.number != 1:
                post(self, record)

        monkeypatch.setattr(Peers, "post", silent)
        said = heard(OSError, lambda: store.save(2, put(values(2), 2), manifest={}, wait=True))
        assert "process 1 of" in said and "has not written its part of step 2 in time (patience=2 seconds)" in said
        assert "step 1" in said
        monkeypatch.undo()

        def survivor() -> None:
            """What a process of a killed job may still write: it has outlived its process 0, which swept nothing."""
            saving = commit.saving_of(folder, 2)
            saving.mkdir()
            for name in ("pieces-00001", "part-00001"):
                (saving / name).write_bytes(b"old")

        on_first(survivor)
        store.save(2, put(values(3), 2), manifest={}, wait=True)
        assert same(store.restore(abstract(2)).tree, values(3)) and store.steps() == (1, 2)
    with Store(folder):
        assert left_overs(folder) == []


def refused(folder: Path, held: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that not all see, one that another run holds, one that is a file: the same sentence on all."""
    number, count = jax.process_index(), jax.process_count()
    monkeypatch.setattr(peers, "SEEN_LATE", 0.5)
    (folder / "elsewhere").mkdir(parents=True, exist_ok=True)
    said = heard(OSError, lambda: Store(folder / ("elsewhere" if number == 1 else "here")))
    assert f"process 1 of {count} on host {socket.gethostname()} does not see in {folder / 'elsewhere'} what" in said
    assert str(folder / "here") in said
    monkeypatch.undo()
    assert "another run writes checkpoints into" in heard(OSError, lambda: Store(held))
    on_first(lambda: (folder / "file").write_text("a file"))
    assert "cannot be written into" in heard(OSError, lambda: Store(folder / "file"))
    Store(folder / "here").close()  # what was refused has let it go
    assert left_overs(folder / "here") == []
    on_first(lambda: None)


def killed(folder: Path, moment: str) -> None:
    """Save steps 1 and 2, then die in the middle of step 3."""
    number = jax.process_index()
    store = Store(folder)
    for step in (1, 2):
        store.save(step, put(values(step), 2), manifest={}, wait=True)

    def die(*_: Any) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    post = Peers.post

    def post_and_die(self: Peers, record: Any) -> None:
        post(self, record)
        die()

    if moment == "before the part" and number == 1:
        together.write_pieces = die
    elif moment == "after the part" and number == 1:
        Peers.post = post_and_die
    elif moment == "before the rename" and number == 0:
        commit.os.rename = die
    processes.wait_for_all()
    store.save(3, put(values(3), 2), manifest={})
    try:
        store.wait()
        print("done", flush=True)
    except OSError as error:
        print(json.dumps(str(error)), flush=True)
    os._exit(0)  # the other is gone: the job's own end would wait for it
