"""A checkpoint knows no mesh: saved on one device, restored on eight, and back, with the same bits and fingerprint."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import jax.numpy as jnp
import numpy as np

from jaxdl.checkpoint import Store, fingerprint

ON_EIGHT = """
import json, sys
import jax, numpy as np
from jax.sharding import NamedSharding, PartitionSpec as P
from jaxdl.checkpoint import Store, fingerprint
from jaxdl.checkpoint.fingerprint import device_sums
from jaxdl.checkpoint.leaves import named_leaves

folder = sys.argv[1]
assert jax.device_count() == 8
mesh = jax.make_mesh((4, 2), ("data", "tensor"), axis_types=(jax.sharding.AxisType.Auto,) * 2)
specs = {"kernel": P("data", "tensor"), "wide": P(None, ("data", "tensor")), "half": P("tensor"), "step": P()}
shapes = {"kernel": ((16, 6), "float32"), "wide": ((3, 24), "int8"), "half": ((10,), "bfloat16"), "step": ((), "int32")}
shapes["free"] = ((5,), "float32")
like = {
    name: jax.ShapeDtypeStruct(shape, dtype, sharding=NamedSharding(mesh, specs[name]) if name in specs else None)
    for name, (shape, dtype) in shapes.items()
}
with Store(folder) as store:
    restored = store.restore(like)
    tree = restored.tree
    for name, x in tree.items():
        if name in specs:
            assert x.sharding == like[name].sharding, name
    assert tree["kernel"].addressable_shards[0].data.shape == (4, 3)
    assert len(tree["free"].devices()) == 1
    marks = fingerprint(tree)
    sharded = {name: x for name, x in tree.items() if name in specs}
    on_device = dict(zip(sharded, jax.device_get(device_sums(list(named_leaves(sharded).values()))).tolist()))
    assert on_device == {name: marks.leaves[name] for name in sharded}, (on_device, marks)
    text = device_sums.lower(list(sharded.values())).compile().as_text()
    assert "all-gather" not in text  # summed where it lies
    store.save(2, tree, manifest={}, wait=True)
record = store.manifest(2)
print(json.dumps([restored.step, marks.whole, record["fingerprint"], record["environment"]["device_count"]]))
"""


def test_restore_on_eight_devices_and_back(tmp_path):
    random = np.random.default_rng(0)
    tree = {
        "kernel": jnp.asarray(random.standard_normal((16, 6)), jnp.float32),
        "wide": jnp.asarray(random.integers(-100, 100, (3, 24)), jnp.int8),
        "half": jnp.asarray(random.standard_normal(10), jnp.bfloat16),
        "step": jnp.int32(1),
        "free": jnp.arange(5.0),
    }
    with Store(tmp_path) as store:
        store.save(1, tree, manifest={}, wait=True)
    environment = dict(os.environ, XLA_FLAGS="--xla_force_host_platform_device_count=8", JAX_PLATFORMS="cpu")
    ended = subprocess.run(
        [sys.executable, "-c", ON_EIGHT, str(tmp_path)], capture_output=True, text=True, env=environment, timeout=120
    )
    assert ended.returncode == 0, ended.stderr[-2000:]
    whole = fingerprint(tree).whole
    assert json.loads(ended.stdout) == [1, whole, whole, 8]
    with Store(tmp_path) as store:
        back = store.restore(tree)
        assert store.verify() == []
    assert back.step == 2
    for name, x in tree.items():
        assert np.asarray(back.tree[name]).tobytes() == np.asarray(x).tobytes(), name
