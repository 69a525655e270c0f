"""Import and export of weights: nothing missing, nothing left over, equal bits on the way back."""

from __future__ import annotations

import json
import pickle
import warnings

import flax.linen
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdl.models import (
    create_model,
    export_weights,
    import_weights,
    list_models,
    read_weights,
    transfer,
    write_weights,
)
from jaxdl.models.rules import CONV, CONV_TRANSPOSE, dense, flattened
from jaxdl.nn import light_key
from tests.models.drawn import drawn_input, drawn_state
from tests.models.parity import read_cases
from tests.models.rows import CLASSES, ROWS

X = (1, 24, 40, 3)
VGG = {"depths": (1, 1, 2), "width": 8, "hidden": 24, "pool": (2, 3)}


def _weights(case="vgg_bn"):
    return drawn_state(read_cases("models_classics.npz")[case].shapes)


def _vgg(classes=5, **options):
    return create_model("vgg11_bn", num_classes=classes, **{**VGG, **options})


@pytest.mark.parametrize(
    ("layout", "ours", "theirs"),
    [
        (CONV, (3, 2), None),
        (CONV, (5, 4, 6), (6, 4, 5)),
        (CONV, (3, 5, 4, 6), (6, 4, 3, 5)),
        (CONV, (2, 3, 5, 4, 6), (6, 4, 2, 3, 5)),
        (CONV_TRANSPOSE, (3, 5, 4, 6), (4, 6, 3, 5)),
        (dense(), (4, 6), (6, 4)),
        (dense(), (4, 2, 3), (6, 4)),
        (dense(2), (2, 3, 4), (4, 6)),
        (flattened(2, 3, 5), (30, 4), (4, 30)),
        (flattened(2), (18, 4), (4, 18)),
    ],
)
def test_layouts_undo_themselves(layout, ours, theirs):
    x = np.arange(np.prod(ours), dtype=np.float32).reshape(ours)
    there = layout.to_peer(x)
    assert theirs is None or there.shape == theirs
    np.testing.assert_array_equal(layout.to_ours(there, ours), x)


def test_a_flattened_map_is_read_by_channel_first():
    x = np.zeros((2 * 3 * 4, 1), np.float32)
    x[(1 * 3 + 2) * 4 + 3] = 1  # row 1, column 2, channel 3
    assert np.flatnonzero(flattened(4, 2, 3).to_peer(x)) == [(3 * 2 + 1) * 3 + 2]
    with pytest.raises(ValueError, match="are no map of 4x4 with 2 channels"):
        flattened(2).to_peer(np.zeros((33, 1)))


@pytest.mark.parametrize("peer", ["torchvision", "timm", "keras"])
def test_export_and_import_again_give_equal_bits(peer):
    model = create_model("vgg11", num_classes=5, **VGG)
    first = import_weights(model, _weights("vgg"), X).variables
    there = export_weights(model, first, peer=peer)
    again = import_weights(model, there, X)
    assert again.peer == peer and again.left == again.fresh == ()
    jax.tree.map(np.testing.assert_array_equal, first, again.variables)


def test_export_gives_the_peer_back_its_own_numbers():
    weights = _weights()
    model = _vgg()
    there = export_weights(model, import_weights(model, weights, X).variables, peer="torchvision")
    assert set(there) == {name for name in weights if not name.endswith("num_batches_tracked")}
    for name, value in there.items():
        np.testing.assert_array_equal(value, weights[name])


def test_the_export_is_as_strict_as_the_import():
    model = _vgg()
    variables = import_weights(model, _weights(), X).variables
    params = variables["params"]
    for changed, sentence in (
        ({name: leaf for name, leaf in params.items() if name != "fc6"}, r"2 missing \(fc6/bias, fc6/kernel\)"),
        ({**params, "fc8": params["fc6"]}, r"2 unexpected \(fc8/bias, fc8/kernel\)"),
        ({**params, "logits": {**params["logits"], "bias": jnp.zeros(3)}}, r"1 of another shape \(logits/bias: \(3,\)"),
    ):
        with pytest.raises(ValueError, match=f"the variables are not those of VGG: {sentence}"):
            export_weights(model, {**variables, "params": changed}, X, peer="torchvision")
    lenet = create_model("lenet5", num_classes=10, padding=2)
    drawn = jax.tree.map(
        lambda leaf: np.zeros(leaf.shape, np.float32),
        jax.eval_shape(lambda: lenet.init(jax.random.key(0), jnp.zeros((1, 28, 28, 1)), train=False)),
    )
    with pytest.raises(ValueError, match=r"fc1/kernel: \(400, 120\), wanted \(576, 120\).*say x=, as in training"):
        export_weights(lenet, drawn)
    assert export_weights(lenet, drawn, (1, 28, 28, 1))["fc1.weight"].shape == (120, 400)


def test_missing_unexpected_and_misshaped_names_are_listed_in_one_sentence():
    weights = _weights()
    del weights["features.0.bias"]
    weights["features.99.weight"] = np.zeros(3, np.float32)
    weights["features.4.weight"] = weights["features.4.weight"][:, :, :2]
    with pytest.raises(ValueError) as caught:
        import_weights(_vgg(), weights, X)
    assert str(caught.value) == (
        "the weights do not fit VGG by torchvision's names: 1 missing (features.0.bias); "
        "1 unexpected (features.99.weight); "
        "1 of another shape (features.4.weight: (16, 8, 2, 3), wanted (16, 8, 3, 3))"
    )
    del weights["features.4.weight"]
    with pytest.raises(ValueError, match=r"2 missing \(features.0.bias, features.4.weight\); 1 unexpected"):
        import_weights(_vgg(), weights, X, ignore="features")  # matches no whole name


def test_names_may_be_ignored_on_purpose_and_parallel_wrappers_are_seen_through():
    weights = _weights() | {"extra.weight": np.zeros(2, np.float32)}
    found = import_weights(_vgg(), weights, X, ignore=r"extra\..*")
    assert found.left == ("extra.weight",)
    wrapped = {f"module.{name}": value for name, value in _weights().items()}
    again = import_weights(_vgg(), wrapped, X)
    jax.tree.map(np.testing.assert_array_equal, found.variables, again.variables)


def test_another_number_of_classes_renews_the_head_only_and_says_so():
    whole = import_weights(_vgg(), _weights(), X).variables
    with pytest.warns(
        UserWarning, match=r"the head is new: classifier.6.weight is \(5, 24\) .* and \(7, 24\)"
    ) as caught:
        found = import_weights(_vgg(7), _weights(), X)
    assert len(caught) == 1
    assert found.fresh == ("logits/bias", "logits/kernel")
    assert set(found.left) == {"classifier.6.weight", "classifier.6.bias"}
    assert found.variables["params"]["logits"]["kernel"].shape == (24, 7)
    assert np.ptp(found.variables["params"]["logits"]["kernel"]) > 0
    for collection in ("params", "batch_stats"):
        for name, layer in whole[collection].items():
            if name != "logits":
                jax.tree.map(np.testing.assert_array_equal, layer, found.variables[collection][name])


def test_a_head_of_another_shape_hides_no_other_fault():
    weights = _weights()
    weights["features.0.weight"] = weights["features.0.weight"][:4]
    with pytest.raises(ValueError, match=r"3 of another shape"):
        import_weights(_vgg(7), weights, X)
    weights = _weights()
    weights["classifier.6.weight"] = weights["classifier.6.weight"][:, :20]  # other inputs, not other classes
    with pytest.raises(ValueError, match=r"another shape"):
        import_weights(_vgg(7), weights, X)


def test_a_new_head_can_be_asked_for_and_a_model_may_have_none(recwarn):
    found = import_weights(_vgg(), _weights(), X, new_head=True, seed=3)
    assert found.fresh == ("logits/bias", "logits/kernel")
    headless = {name: value for name, value in _weights().items() if not name.startswith("classifier.6")}
    again = import_weights(_vgg(), headless, X, new_head=True, seed=3)
    jax.tree.map(np.testing.assert_array_equal, found.variables, again.variables)
    with pytest.raises(ValueError, match=r"2 missing \(classifier.6.bias, classifier.6.weight\)"):
        import_weights(_vgg(), headless, X)
    bare = import_weights(_vgg(0), _weights(), X)
    assert "logits" not in bare.variables["params"] and set(bare.left) == {"classifier.6.weight", "classifier.6.bias"}
    assert not recwarn.list


@pytest.mark.parametrize("ending", ["safetensors", "npz"])
def test_files_are_read_as_they_were_written(tmp_path, ending):
    path = tmp_path / f"vgg.{ending}"
    weights = _weights()
    write_weights(path, weights)
    back = read_weights(path)
    assert set(back) == set(weights)
    for name, value in weights.items():
        assert back[name].dtype == value.dtype
        np.testing.assert_array_equal(back[name], value)
    from_file, from_arrays = import_weights(_vgg(), path, X), import_weights(_vgg(), weights, X)
    jax.tree.map(np.testing.assert_array_equal, from_file.variables, from_arrays.variables)
    with pytest.raises(ValueError, match=rf"vgg.{ending} do not fit"):
        import_weights(_vgg(width=16), path, X)


def test_safetensors_are_those_of_its_own_package(tmp_path):
    library = pytest.importorskip("safetensors.numpy")
    arrays = {"a": np.arange(6, dtype=np.float16).reshape(2, 3), "b": np.array(True), "c": np.zeros((0, 2), np.int64)}
    write_weights(tmp_path / "ours.safetensors", arrays)
    library.save_file(arrays, tmp_path / "theirs.safetensors", metadata={"format": "pt"})
    theirs, ours = library.load_file(tmp_path / "ours.safetensors"), read_weights(tmp_path / "theirs.safetensors")
    for name, value in arrays.items():
        for found in (theirs[name], ours[name]):
            assert found.dtype == value.dtype and found.shape == value.shape
            np.testing.assert_array_equal(found, value)


def test_bfloat16_becomes_the_float32_of_the_same_value(tmp_path):
    weights = {
        name: jnp.asarray(value, jnp.bfloat16) for name, value in _weights().items() if value.dtype == np.float32
    }
    write_weights(tmp_path / "half.safetensors", weights)
    found = import_weights(_vgg(), tmp_path / "half.safetensors", X)
    kernel = found.variables["params"]["fc7"]["kernel"]
    assert kernel.dtype == jnp.float32
    np.testing.assert_array_equal(kernel, np.asarray(weights["classifier.3.weight"], np.float32).T)


def test_broken_and_unknown_files_get_a_sentence(tmp_path):
    path = tmp_path / "w.safetensors"
    write_weights(path, {"a": np.ones(4, np.float32)})
    whole = path.read_bytes()
    for text, problem in (
        (whole[:-2], "needs 16 bytes"),
        (whole[:20], "would end at byte"),
        (b"\0" * 40, "header has"),
    ):
        path.write_bytes(text)
        with pytest.raises(ValueError, match=problem):
            read_weights(path)
    for entry in (
        {"shape": [-2, -2], "data_offsets": [0, 16]},
        {"shape": [4.0], "data_offsets": [0, 16]},
        {"shape": [True, 4], "data_offsets": [0, 16]},
        {"shape": [4], "data_offsets": ["0", "16"]},
        {"shape": [4], "data_offsets": [0.0, 16.0]},
        {"shape": [4], "data_offsets": [0, 16, 3]},
    ):
        header = json.dumps({"a": {"dtype": "F32", **entry}}).encode()
        path.write_bytes(len(header).to_bytes(8, "little") + header + b"\0" * 16)
        with pytest.raises(ValueError, match=r"no \.safetensors file that can be read: its header has"):
            read_weights(path)
    path.write_bytes((10**5).to_bytes(8, "little") + b"[" * 10**5)
    with pytest.raises(ValueError, match="its header has RecursionError"):
        read_weights(path)
    np.savez(tmp_path / "w.npz", a=np.ones(4))
    archive = bytearray((tmp_path / "w.npz").read_bytes())
    archive[archive.rindex(b"PK\1\2") + 10] = 99  # a compression that nobody knows
    (tmp_path / "w.npz").write_bytes(archive)
    with pytest.raises(ValueError, match=r"no \.npz file of plain arrays"):
        read_weights(tmp_path / "w.npz")
    (tmp_path / "w.npz").write_bytes(b"no zip")
    with pytest.raises(ValueError, match=r"no \.npz file of plain arrays"):
        read_weights(tmp_path / "w.npz")
    np.savez(tmp_path / "objects.npz", a=np.array([{}], dtype=object))
    with pytest.raises(ValueError, match=r"no \.npz file of plain arrays"):
        read_weights(tmp_path / "objects.npz")
    (tmp_path / "w.h5").write_bytes(b"")
    with pytest.raises(ValueError, match=r"\.safetensors, \.npz, \.pth"):
        read_weights(tmp_path / "w.h5")
    with pytest.raises(FileNotFoundError, match="no file of weights"):
        read_weights(tmp_path / "none.npz")


def test_a_pth_file_is_loaded_as_tensors_only(tmp_path):
    torch = pytest.importorskip("torch")
    weights = {name: torch.from_numpy(value) for name, value in _weights().items()}
    torch.save({"state_dict": weights, "epoch": 3}, tmp_path / "w.pth")
    found = import_weights(_vgg(), tmp_path / "w.pth", X)
    expected = import_weights(_vgg(), weights, X)
    jax.tree.map(np.testing.assert_array_equal, found.variables, expected.variables)
    torch.save(torch.nn.Linear(2, 2), tmp_path / "module.pth")
    with pytest.raises(ValueError, match="holds other things than tensors"):
        read_weights(tmp_path / "module.pth")
    torch.save({"a": torch.ones(2), "b": torch.ones(2).to_sparse()}, tmp_path / "sparse.pth")
    with pytest.raises(ValueError, match="b must be dense first"):
        read_weights(tmp_path / "sparse.pth")
    torch.save({1: torch.ones(2)}, tmp_path / "numbers.pth")
    with pytest.raises(ValueError, match="should hold tensors by name"):
        read_weights(tmp_path / "numbers.pth")


class _Bomb:
    """Unpickled without care it would create a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.mark.parametrize("ending", ["pth", "pt", "bin", "npz"])
def test_a_file_that_would_run_code_does_not(tmp_path, ending):
    torch = pytest.importorskip("torch")
    path, trace = tmp_path / f"w.{ending}", tmp_path / "trace"
    weights = {"a": np.ones(2, np.float32), "b": _Bomb(trace)}
    if ending == "npz":
        np.savez(path, **{name: np.array(value) for name, value in weights.items()}, allow_pickle=True)
    else:
        torch.save({"a": torch.ones(2), "b": _Bomb(trace)}, path)
    with pytest.raises(ValueError) as caught:
        read_weights(path)
    assert not trace.exists() and "weights_only=False" not in str(caught.value)
    if ending == "npz":
        return
    assert "it asks for" in str(caught.value)
    with path.open("wb") as file:  # without torch's archive around it
        pickle.dump({"b": _Bomb(trace)}, file)
    with pytest.raises(ValueError, match="is not loaded"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch asks whether an old torch has written it
        read_weights(path)
    assert not trace.exists()


@pytest.mark.parametrize("kind", [np.int8, np.bool_, np.complex64, object])
def test_arrays_that_are_no_floats_are_refused(kind):
    weights = _weights()
    weights["features.0.weight"] = weights["features.0.weight"].astype(kind)
    with pytest.raises(ValueError, match=r"1 of another kind than floating point \(features.0.weight: "):
        import_weights(_vgg(), weights, X)


def test_an_expression_that_is_none_gets_a_sentence():
    with pytest.raises(ValueError, match=r"ignore='\(' is no regular expression: "):
        import_weights(_vgg(), _weights(), X, ignore="(")
    with pytest.raises(ValueError, match=r"new='\[' is no regular expression: "):
        transfer(_vgg(), {}, X, new="[")


def test_a_peer_that_is_not_known_is_refused():
    with pytest.raises(ValueError, match="VGG knows the names of torchvision, timm, keras, not of 'paddle'"):
        import_weights(_vgg(), _weights(), X, peer="paddle")
    with pytest.raises(ValueError, match="VGG has no rule for its leaf norm1_1/mean"):
        import_weights(_vgg(), _weights(), X, peer="keras")
    with pytest.raises(ValueError, match="Linear has no peer"):
        import_weights(create_model("linear", num_classes=2), {}, (1, 4))
    with pytest.raises(ValueError, match="several peers: choose peer= 'torchvision' or 'timm' or 'keras'"):
        export_weights(_vgg(), {})


#: Their family has peers, which have nothing of the kind.
WITHOUT_PEER = ("gru_language_model", "rnn_language_model", "ssd300_resnet50", "ssd300_vgg16")
WITH_PEERS = [row for row in ROWS if getattr(type(create_model(row.name, **row.options)), "peers", {})]


@pytest.mark.parametrize(
    "row", [pytest.param(row, id=row.id, marks=[] if row in CLASSES else [pytest.mark.slow]) for row in WITH_PEERS]
)
def test_every_leaf_of_every_family_has_a_place_of_its_own(row):
    """Each leaf is filled with a number of its own: what comes back from each peer's names is where it was."""
    model = create_model(row.name, **row.options)
    x = row.inputs(row.data(np.random.default_rng(0), 2))
    keys = {"params": light_key(jax.random.key(0))}
    template = flax.linen.meta.unbox(jax.eval_shape(lambda: model.init(keys, x, train=False)))
    numbers = iter(range(10_000))
    drawn = jax.tree.map(lambda leaf: np.full(leaf.shape, next(numbers), np.float32), template)
    covered = 0
    for peer in type(model).peers:
        try:
            there = export_weights(model, drawn, x, peer=peer)
        except ValueError:  # this peer lacks an option of the row
            continue
        covered += 1
        again = import_weights(model, there, x, peer=peer)
        jax.tree.map(np.testing.assert_array_equal, drawn, again.variables)
        assert again.left == again.fresh == ()
    assert covered or row.id in WITHOUT_PEER


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_auxiliary_heads_have_their_places_and_may_be_left_out(name):
    model = create_model(name, num_classes=3, width=8, aux=True)
    x = jnp.zeros((1, 75, 75, 3))
    template = jax.eval_shape(lambda: model.init(jax.random.key(0), x, train=False))
    drawn = jax.tree.map(lambda leaf: np.ones(leaf.shape, np.float32), template)
    there = export_weights(model, drawn, peer="torchvision")
    assert sum(value.size for value in there.values()) == sum(leaf.size for leaf in jax.tree.leaves(template))
    bare = import_weights(create_model(name, num_classes=3, width=8), there, x)
    assert {name.split(".")[0] for name in bare.left} <= {"aux1", "aux2", "AuxLogits"} and bare.left


def test_the_example_input_of_the_registry_is_used_when_none_is_given():
    assert "vgg16" in list_models("vgg*")
    model = create_model("lenet5", num_classes=10)
    weights = drawn_state({"conv1.weight": (6, 1, 5, 5), "conv1.bias": (6,)})
    weights |= drawn_state({"conv2.weight": (16, 6, 5, 5), "conv2.bias": (16,), "fc1.weight": (120, 400)})
    weights |= drawn_state({"fc1.bias": (120,), "fc2.weight": (84, 120), "fc2.bias": (84,)})
    weights |= drawn_state({"fc3.weight": (10, 84), "fc3.bias": (10,)})
    found = import_weights(model, weights)
    assert model.apply(found.variables, drawn_input((2, 32, 32, 1)), train=False).shape == (2, 10)
