"""strict=False and path maps: what fits is loaded, and everything else is listed with its reason."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdl.checkpoint import Store
from jaxdl.checkpoint import reading as store_module
from jaxdl.checkpoint.leaves import place


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("pretrained")
    tree = {
        "params": {
            "encoder": {"a": jnp.arange(6.0).reshape(2, 3), "b": jnp.ones(3)},
            "head": {"kernel": jnp.full((3, 10), 2.0)},
        },
        "momentum": jnp.zeros(4),
    }
    with Store(path) as store:
        store.save(9, tree, manifest={}, wait=True)
    return path


def fresh(encoder: str = "encoder") -> dict:
    return {
        "params": {
            encoder: {"a": jnp.full((2, 3), -1.0), "b": jnp.full(3, -1.0)},
            "head": {"kernel": jnp.full((3, 5), -1.0), "bias": jnp.full(5, -1.0)},
        }
    }


@pytest.mark.smoke
def test_what_fits_is_loaded_and_the_rest_is_listed(folder):
    like = fresh()
    with Store(folder, read_only=True) as store:
        restored = store.restore(like, strict=False)
    assert restored.loaded == {"params/encoder/a": "params/encoder/a", "params/encoder/b": "params/encoder/b"}
    assert restored.new == {
        "params/head/kernel": "shape [3, 10] in the checkpoint, [3, 5] wanted",
        "params/head/bias": "not in the checkpoint",
    }
    assert restored.left == {
        "params/head/kernel": "shape [3, 10] in the checkpoint, [3, 5] wanted",
        "momentum": "not in the tree",
    }
    params = restored.tree["params"]
    assert np.array_equal(params["encoder"]["a"], np.arange(6.0).reshape(2, 3)) and np.all(params["encoder"]["b"] == 1)
    assert np.all(params["head"]["kernel"] == -1) and np.all(params["head"]["bias"] == -1)
    jax.jit(lambda tree: jax.tree.map(lambda x: x + 1, tree), donate_argnums=0)(restored.tree)
    assert np.all(np.asarray(like["params"]["head"]["kernel"]) == -1)  # kept leaves are copies: the caller's survive


@pytest.mark.parametrize(
    "path_map",
    [
        {"params/backbone": "params/encoder"},
        {"params/backbone/a": "params/encoder/a", "params/backbone/b": "params/encoder/b"},
        [("backbone", "encoder")],
        [(r"^params/backbone/(\w)$", r"params/encoder/\1"), ("backbone", "nowhere")],
    ],
)
def test_renamed_parts_are_found(folder, path_map):
    with Store(folder, read_only=True) as store:
        restored = store.restore(fresh("backbone"), strict=False, path_map=path_map)
    assert restored.loaded == {f"params/backbone/{n}": f"params/encoder/{n}" for n in "ab"}
    assert np.array_equal(restored.tree["params"]["backbone"]["a"], np.arange(6.0).reshape(2, 3))


def test_the_longest_entry_wins_and_none_keeps(folder):
    path_map = {"params/backbone": "params/encoder", "params/backbone/b": None}
    with Store(folder, read_only=True) as store:
        restored = store.restore(fresh("backbone"), strict=False, path_map=path_map)
    assert restored.loaded == {"params/backbone/a": "params/encoder/a"}
    assert restored.new["params/backbone/b"] == "kept, as path_map says"
    assert np.all(restored.tree["params"]["backbone"]["b"] == -1)


def test_one_stored_leaf_may_serve_twice(folder, monkeypatch):
    """Each in memory of its own: jax may share it with NumPy, where it is aligned, and donation writes into it."""
    placed = []
    monkeypatch.setattr(store_module, "place", lambda array, like: placed.append(array) or place(array, like))
    like = {"one": jnp.zeros(3), "two": jnp.zeros(3)}
    with Store(folder, read_only=True) as store:
        tree = store.restore(like, strict=False, path_map={"one": "params/encoder/b", "two": "params/encoder/b"}).tree
    assert len(placed) == 2 and not np.shares_memory(*placed)
    after = jax.jit(lambda tree: {"one": tree["one"] + 1, "two": tree["two"] * 5}, donate_argnums=0)(tree)
    assert np.all(after["one"] == 2) and np.all(after["two"] == 5)


def test_a_map_may_be_strict(folder):
    like = {"p": {"encoder": {"a": jnp.zeros((2, 3)), "b": jnp.zeros(3)}, "head": {"kernel": jnp.zeros((3, 10))}}}
    with Store(folder, read_only=True) as store:
        with pytest.raises(ValueError, match="surplus in it: momentum"):
            store.restore(like, path_map={"p": "params"})
        restored = store.restore(like | {"m": jnp.zeros(4)}, path_map={"p": "params", "m": "momentum"})
    assert not restored.left and not restored.new and len(restored.loaded) == 4


def test_shapes_without_values_cannot_be_kept(folder):
    like = jax.eval_shape(fresh)
    with (
        Store(folder, read_only=True) as store,
        pytest.raises(ValueError, match=r"'params/head/(kernel|bias)'.*real arrays"),
    ):
        store.restore(like, strict=False)


@pytest.mark.parametrize(
    ("path_map", "says"),
    [
        (
            {"params/backbon": "params/encoder"},
            "the tree has no path 'params/backbon'; the nearest is 'params/backbone",
        ),
        (
            {"params/backbone": "params/encodr"},
            "the checkpoint has no path 'params/encodr'; the nearest is 'params/encoder",
        ),
        ([("decoder", "encoder")], "'decoder' matches no path of the tree"),
    ],
)
def test_a_typo_in_the_map_is_refused(folder, path_map, says):
    with Store(folder, read_only=True) as store, pytest.raises(ValueError, match=says):
        store.restore(fresh("backbone"), strict=False, path_map=path_map)
