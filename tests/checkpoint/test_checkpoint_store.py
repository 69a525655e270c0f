"""Save and restore: the same bits come back, the newest and the best stay, and training may go on meanwhile."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdl.checkpoint import Store, commit, crc32_of_file, fingerprint


class Moments(NamedTuple):
    mean: jax.Array
    count: jax.Array


def make_tree(seed: int = 0) -> dict:
    """A tree of every width, container and odd shape."""
    random = np.random.default_rng(seed)
    return {
        "params": {"dense": {"kernel": jnp.asarray(random.standard_normal((6, 4)), jnp.float32), "bias": jnp.zeros(4)}},
        "optimizer": (Moments(jnp.asarray(random.standard_normal(3), jnp.bfloat16), jnp.int32(7)), ()),
        "odd": [jnp.asarray([True, False]), jnp.zeros((0, 3)), np.int64(-(2**40)), jnp.ones(3, jnp.complex64), None],
        "small": [jnp.arange(-3, 3).astype(dtype) for dtype in (jnp.int4, jnp.int8, jnp.float8_e4m3fn, jnp.float16)],
        "tiny": jnp.arange(3).astype(jnp.uint2),
    }


def same(a, b) -> bool:
    """Equal structure, shapes, dtypes and bits."""
    if jax.tree.structure(a) != jax.tree.structure(b):
        return False
    pairs = [(np.asarray(x), np.asarray(y)) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)]
    return all(x.dtype == y.dtype and x.shape == y.shape and x.tobytes() == y.tobytes() for x, y in pairs)


@pytest.mark.smoke
def test_what_is_saved_comes_back(tmp_path):
    tree = make_tree()
    with Store(tmp_path / "deep" / "run") as store:
        store.save(40, tree, manifest={"lr": 1e-3, "layers": [4, 2]}, metric=0.25, wait=True)
        assert store.steps() == (40,) and store.best_step() == 40
        restored = store.restore(make_tree(seed=1))
        assert store.verify() == []
    assert same(restored.tree, tree)
    assert (restored.step, restored.notes, restored.left, restored.new) == (40, (), {}, {})
    assert restored.loaded["params/dense/kernel"] == "params/dense/kernel"
    assert all(isinstance(x, jax.Array) and x.committed for x in jax.tree.leaves(restored.tree["params"]))
    record = restored.manifest
    assert record["configuration"] == {"lr": 1e-3, "layers": [4, 2]}
    assert record["leaves"]["optimizer/0/mean"] | {"fingerprint": 0} == {
        "shape": [3],
        "dtype": "bfloat16",
        "bytes": 6,
        "fingerprint": 0,
    }
    assert record["fingerprint"] == fingerprint(tree).whole == fingerprint(restored.tree).whole
    assert {"jax", "numpy", "orbax-checkpoint", "python"} <= record["environment"]["versions"].keys()
    assert record["environment"]["process_count"] == 1 and record["environment"]["cpu_count"] >= 1
    for name, of in record["files"].items():
        path = tmp_path / "deep" / "run" / "00000040" / name
        assert (path.stat().st_size, crc32_of_file(path)) == (of["size"], of["crc32"])


def test_shapes_alone_are_enough_to_restore(tmp_path):
    tree = {"w": jnp.arange(6.0).reshape(2, 3)}
    with Store(tmp_path) as store:
        store.save(0, tree, manifest={}, wait=True)
        assert same(store.restore({"w": jax.ShapeDtypeStruct((2, 3), jnp.float32)}).tree, tree)


def test_a_tree_of_no_elements(tmp_path):
    tree = {"none": jnp.zeros((0,)), "empty": {}}
    with Store(tmp_path) as store:
        store.save(0, tree, manifest={}, wait=True)
        assert same(store.restore(tree).tree, tree) and store.verify() == []


def test_the_newest_and_the_best_stay(tmp_path):
    metrics = {1: 0.9, 2: 0.1, 3: 0.5, 4: float("nan"), 5: None, 6: 0.1, 7: 0.3}
    with Store(tmp_path, keep=2) as store:
        for step, metric in metrics.items():
            store.save(step, {"x": jnp.float32(step)}, manifest={}, metric=metric)
        store.wait()
        assert store.steps() == (2, 6, 7) and store.best_step() == 2  # of equals the earliest
        store.save(8, {"x": jnp.float32(8)}, manifest={}, metric=-float("inf"), wait=True)
        assert store.steps() == (2, 7, 8) and store.best_step() == 2
        assert store.manifest(8)["metric"] is None


def test_without_best_only_the_newest_stay(tmp_path):
    with Store(tmp_path, keep=1, keep_best=False) as store:
        for step in (1, 2):
            store.save(step, {"x": jnp.float32(step)}, manifest={}, metric=float(step), wait=True)
        assert store.steps() == (2,)


def test_keep_none_keeps_all(tmp_path):
    with Store(tmp_path, keep=None) as store:
        for step in range(5):
            store.save(step, {"x": jnp.float32(step)}, manifest={})
        store.wait()
        assert store.steps() == (0, 1, 2, 3, 4)


def test_a_step_saved_again_is_replaced(tmp_path):
    with Store(tmp_path) as store:
        for value, metric in ((1.0, 0.5), (2.0, 0.9)):
            store.save(3, {"x": jnp.float32(value)}, manifest={"value": value}, metric=metric, wait=True)
            assert store.manifest(store.best_step())["metric"] == metric
        restored = store.restore({"x": jnp.float32(0)})
        assert float(restored.tree["x"]) == 2.0 and restored.manifest["configuration"] == {"value": 2.0}
    assert [path.name for path in tmp_path.iterdir()] == ["00000003"]


def test_an_older_step_saved_last_stays(tmp_path):
    """After an explicit return to step 10, what is saved there must not be pruned as older than 40 and 50."""
    with Store(tmp_path, keep=1) as store:
        store.save(50, {"x": jnp.float32(50)}, manifest={}, wait=True)
        store.save(20, {"x": jnp.float32(20)}, manifest={}, wait=True)
        assert 20 in store.steps()


def test_the_tree_may_be_changed_and_donated_at_once(tmp_path, monkeypatch):
    """The writer gets copies, and no view is left behind that would keep donation from happening in place."""
    advance = jax.jit(lambda tree: jax.tree.map(lambda x: x + 1, tree), donate_argnums=0)
    state = advance({"a": jnp.zeros(4096), "b": jnp.zeros((64, 64))})
    own = np.zeros(5, np.float32)
    with Store(tmp_path) as store:
        place = {name: x.unsafe_buffer_pointer() for name, x in state.items()}
        store.save(1, {"jax": state, "numpy": own}, manifest={})
        own[:] = 9
        state = advance(state)
        assert {name: x.unsafe_buffer_pointer() for name, x in state.items()} == place
        like = {"jax": state, "numpy": own}
        restored = store.restore(like)
        assert all(np.all(np.asarray(x) == 1) for x in jax.tree.leaves(restored.tree["jax"]))
        assert np.all(np.asarray(restored.tree["numpy"]) == 0)
        # what comes back may be donated too, again and again, and stays right
        given = restored.tree["jax"]
        after = advance(advance(given))
        assert all(x.is_deleted() for x in given.values())
        assert all(np.all(np.asarray(x) == 3) for x in after.values())
        assert np.all(np.asarray(store.restore(like).tree["jax"]["a"]) == 1)


def test_a_save_returns_before_it_is_written(tmp_path, monkeypatch):
    import threading

    gate = threading.Event()
    write = commit.write_arrays
    monkeypatch.setattr(commit, "write_arrays", lambda *args: (gate.wait(20), write(*args)))
    with Store(tmp_path) as store:
        store.save(1, {"x": jnp.ones(3)}, manifest={})
        assert store.steps() == ()
        gate.set()
        store.wait()
        assert store.steps() == (1,)


def test_reading_beside_a_writer(tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no checkpoint"):
        Store(tmp_path / "nothing", read_only=True).restore({"x": jnp.ones(3)})
    assert not (tmp_path / "nothing").exists()
    with Store(tmp_path) as writer:
        writer.save(1, {"x": jnp.ones(3)}, manifest={}, wait=True)
        with Store(tmp_path, read_only=True) as reader:
            assert reader.restore({"x": jnp.zeros(3)}).step == 1
            with pytest.raises(ValueError, match="open for reading only"):
                reader.save(2, {"x": jnp.ones(3)}, manifest={})
    with pytest.raises(ValueError, match="closed"):
        writer.save(2, {"x": jnp.ones(3)}, manifest={})
    writer.close()


@pytest.mark.parametrize(
    ("changed", "error", "says"),
    [
        ({"step": -1}, ValueError, "0 or more"),
        ({"step": True}, ValueError, "0 or more"),
        ({"step": 1.0}, ValueError, "0 or more"),
        ({"manifest": {"f": object()}}, TypeError, "JSON"),
        ({"tree": {"rate": 0.1}}, TypeError, "'rate'"),
    ],
)
def test_bad_saves_are_refused_at_once(tmp_path, changed, error, says):
    arguments = {"step": 1, "tree": {"x": jnp.ones(2)}, "manifest": {}} | changed
    with Store(tmp_path) as store:
        with pytest.raises(error, match=says):
            store.save(arguments["step"], arguments["tree"], manifest=arguments["manifest"])
        assert store.steps() == ()


def test_a_donated_tree_is_refused_by_path(tmp_path):
    tree = {"w": jnp.ones(8)}
    jax.jit(lambda t: {"w": t["w"] + 1}, donate_argnums=0)(tree)
    with Store(tmp_path) as store, pytest.raises(ValueError, match=r"'w' was donated"):
        store.save(1, tree, manifest={})


@pytest.mark.parametrize("keep", [0, -1, 1.5, True])
def test_a_senseless_keep_is_refused(tmp_path, keep):
    with pytest.raises(ValueError, match="keep is"):
        Store(tmp_path, keep=keep)


def test_importing_and_opening_does_not_import_orbax(tmp_path):
    code = f"import sys, jaxdl.checkpoint as c; c.Store({str(tmp_path)!r}).close()"
    code += "; print([name for name in sys.modules if 'orbax' in name])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_a_program_that_ends_without_close_hears_of_it(tmp_path):
    """The save either stands whole or a sentence says that it does not; never neither."""
    code = (
        "import jax.numpy as jnp, jaxdl.checkpoint as c\n"
        f"s = c.Store({str(tmp_path)!r}); s.save(1, {{'x': jnp.ones(1000)}}, manifest={{}})"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=dict(os.environ))
    with Store(tmp_path) as store:
        if not store.steps():
            assert "step 1 was not saved" in ended.stderr and "store.close()" in ended.stderr
        assert store.verify() == []
