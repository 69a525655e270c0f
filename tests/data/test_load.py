"""The sets that ship: their content and split never move."""

from __future__ import annotations

import numpy as np
import pytest

from jaxdl.data import available, describe, load
from jaxdl.data.shipped import _FOLDER

# (train fingerprint, test fingerprint), examples, shape, classes
KEPT = {
    "digits": (("fd5568633b16fba8a1e15c9d4f70d3d7", "3897c5ea44c7590d7f0c6d05c9afd01e"), (1437, 360), (8, 8, 1), 10),
    "iris": (("838a6d9882a86cf532a5ba5544e939e3", "4f4541a32107956d7d84db50abd42769"), (120, 30), (4,), 3),
    "wine": (("e26f67ee3535e4dd1958c4553603bbf3", "ba88823c75e7de3ab14bc58cef091e31"), (142, 36), (13,), 3),
    "breast_cancer": (("fef317ce069ac32f0a9981c49dc4a9a0", "e784be2f373feb94a4375adbbaea9c92"), (455, 114), (30,), 2),
}


@pytest.mark.smoke
@pytest.mark.parametrize("name", KEPT)
def test_content_and_split_are_fixed(name: str) -> None:
    fingerprints, counts, shape, classes = KEPT[name]
    train, test = load(name)
    assert (train.fingerprint(), test.fingerprint()) == fingerprints
    assert (len(train), len(test)) == counts and train["x"].shape[1:] == test["x"].shape[1:] == shape
    assert train["x"].dtype == np.float32
    assert len(train.classes) == classes and train["y"].dtype == np.int32
    share = np.bincount(np.concatenate([train["y"], test["y"]])) * len(test) / (len(train) + len(test))
    assert (np.abs(np.bincount(test["y"]) - share) <= 1).all()


def test_digits_are_images_in_zero_to_one() -> None:
    train, test = load("digits")
    assert train.classes == tuple("0123456789")
    assert train["x"].min() == 0 and train["x"].max() == 1
    # A "1" is a stroke in the middle: its mean image is bright there and dark at the sides.
    one = test["x"][test["y"] == 1].mean(axis=0)[..., 0]
    assert one[:, 3:5].mean() > 0.6 and one[:, [0, 7]].mean() < 0.05


@pytest.mark.parametrize("name", available())
def test_each_set_names_its_source_and_licence(name: str) -> None:
    told = describe(name)
    train, test = load(name)
    assert (told.train_examples, told.test_examples) == (len(train), len(test))
    assert told.source and told.licence and f"licence   {told.licence}" in str(told)
    assert len(told.features) in (0, train["x"].shape[-1]) and told.classes == train.classes
    assert (_FOLDER / f"{name}.npz").stat().st_size < 100_000


@pytest.mark.parametrize(("name", "hint"), [("digit", "did you mean 'digits'"), ("mnist", "There are digits, iris")])
def test_unknown_names_get_the_nearest(name: str, hint: str) -> None:
    for ask in (load, describe):
        with pytest.raises(ValueError, match=hint):
            ask(name)


def test_sets_equal_their_source() -> None:
    datasets = pytest.importorskip("sklearn.datasets")
    train, test = load("digits")
    source = datasets.load_digits()
    both = np.concatenate([train["x"], test["x"]]).reshape(-1, 64) * 16
    assert np.array_equal(both[np.lexsort(both.T)], source.data[np.lexsort(source.data.T)])
    labels = {row.tobytes(): label for row, label in zip(source.data.astype(np.float32), source.target, strict=True)}
    assert all(labels[row.tobytes()] == y for row, y in zip(test["x"].reshape(-1, 64) * 16, test["y"], strict=True))
