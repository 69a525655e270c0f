"""Dataset: what it takes, what it refuses and with which words; fingerprints."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from jaxdl.data import Dataset, as_dataset
from jaxdl.data import dataset as module


def small(**columns) -> Dataset:
    return Dataset({"x": np.arange(12.0).reshape(6, 2), "y": np.array([0, 1, 2, 0, 1, 2]), **columns})


@pytest.mark.smoke
def test_what_is_a_dataset() -> None:
    x, y, weight = np.zeros((4, 2)), np.arange(4), np.ones(4)
    data = Dataset({"x": x}, name="mine")
    assert as_dataset(data) is data
    assert list(as_dataset((x,)).columns) == ["x"]
    assert list(as_dataset([x, y]).columns) == ["x", "y"]
    assert list(as_dataset((x, y, weight)).columns) == ["x", "y", "weight"]
    assert as_dataset({"a": x, "b": [1, 2, 3, 4]})["b"].tolist() == [1, 2, 3, 4]
    assert len(as_dataset((x, y))) == 4 and "y" in as_dataset((x, y)) and "z" not in as_dataset((x, y))


class Frame:
    def __arrow_c_stream__(self, requested_schema=None): ...


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (Frame(), r"is a table .*jaxdl\.data\.Table"),
        (np.zeros((3, 2)), r"one array: write \(data,\)"),
        ((np.zeros(3),) * 4, "give a jaxdl.data.Dataset"),
        ((), "give a jaxdl.data.Dataset"),
        ("train.csv", "data is str"),
        ({"x": np.array(["a", "b"])}, r"holds text \(dtype <U1\).*np.unique"),
        ({"x": np.array([[1], [1, 2]], dtype=object)}, r"dtype object \(it holds list\).*np.stack"),
        ({"x": np.array(["2020-01-01"], "datetime64[D]")}, r"holds dates \(datetime64\[D\]\)"),
        ({"x": np.zeros(2, [("a", "f4")])}, r"has fields \('a',\)"),
        ({3: np.zeros(2)}, "column called 3"),
    ],
)
def test_other_kinds_are_refused(data, sentence: str) -> None:
    with pytest.raises(TypeError, match=sentence):
        as_dataset(data)


@pytest.mark.parametrize(
    ("columns", "classes", "sentence"),
    [
        ({}, None, "has no columns"),
        ({"x": np.zeros((0, 3))}, None, r"holds no examples: x \[0, 3\]"),
        ({"x": np.zeros(3), "y": np.zeros(2)}, None, "differ in their number of examples: x has 3, y has 2"),
        ({"x": 3.0}, None, "single value 3.0"),
        ({"x": [[1], [1, 2]]}, None, "column 'x' of data does not make an array"),
        ({"x": np.zeros(2), "part": np.zeros(2)}, None, "'part': that name is kept for the number of a microbatch"),
        ({"y": np.array([0.0, 1.0, np.nan, np.inf])}, None, "column 'y' of data is nan in row 2"),
        ({"y": np.array([[0.0, 1.0], [2.0, -np.inf]])}, None, r"is -inf in row 1, position \(1,\)"),
        ({"weight": np.array([1.0, -0.5])}, None, "'weight' of data is -0.5 in row 1"),
        ({"weight": np.array([1.0, np.nan])}, None, "column 'weight' of data is nan in row 1"),
        ({"weight": np.ones((2, 2))}, None, r"shape \[2, 2\]: one number an example"),
        ({"y": np.array([0, 1, 3])}, ("a", "b", "c"), "'y' of data is 3 in row 2, but there are 3 classes"),
        ({"y": np.array([0, -1])}, ("a", "b"), "'y' of data is -1 in row 1"),
        ({"y": np.array([0, 1])}, ("a", "a"), "name 'a' twice"),
    ],
)
def test_bad_values_are_refused_with_their_place(columns, classes, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        Dataset(columns, classes)


def test_float_labels_of_classes_are_refused() -> None:
    with pytest.raises(TypeError, match=r"'y' of data is float64 but classes are given.*y.astype\('int32'\) is right"):
        Dataset({"y": np.array([0.0, 1.0])}, ("a", "b"))
    with pytest.raises(TypeError, match="they are not whole numbers"):
        Dataset({"y": np.array([0.5, 1.0])}, ("a", "b"))
    assert Dataset({"y": np.array([0.0, 1.0])})["y"].dtype == np.float64  # a regression target


def test_a_bad_row_far_into_a_large_column_has_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BLOCK_BYTES", 64)
    y = np.zeros(1000)
    y[777] = np.nan
    with pytest.raises(ValueError, match="nan in row 777"):
        Dataset({"y": y})
    with pytest.raises(ValueError, match="'y' of data is 5 in row 901"):
        Dataset({"y": np.where(np.arange(1000) == 901, 5, 0)}, ("a",))


def test_ignored_pixels_pass() -> None:
    masks = np.array([[[0, 255], [1, 1]]])
    assert Dataset({"x": np.zeros((1, 2, 2, 3)), "y": masks}, ("sky", "road"))["y"].max() == 255


def test_select_and_replace() -> None:
    data = small().replace(classes=("a", "b", "c"), name="six")
    assert data.select([5, 0, 0])["x"].tolist() == [[10, 11], [0, 1], [0, 1]]
    assert data.select(np.arange(6) > 3)["y"].tolist() == [1, 2]
    assert data.select(slice(1, None, 2))["y"].tolist() == [1, 0, 2]
    assert (data.select([1]).classes, data.select([1]).name) == (("a", "b", "c"), "six")
    assert data.replace(columns={"x": np.zeros(3)}).classes == ("a", "b", "c")
    with pytest.raises(IndexError, match="index 6 is outside six, which has examples 0 to 5"):
        data.select([0, 6])
    with pytest.raises(IndexError, match="index -1"):
        data.select([-1])
    with pytest.raises(ValueError, match=r"a mask over six needs shape \[6\]"):
        data.select(np.ones(5, bool))
    with pytest.raises(TypeError, match="vector of integers"):
        data.select([0.5])
    with pytest.raises(KeyError, match="six has no column 'z'; it has x, y"):
        data["z"]


def test_it_does_not_change() -> None:
    data = small()
    with pytest.raises(TypeError):
        data.columns["z"] = np.zeros(6)
    again = pickle.loads(pickle.dumps(data))
    assert again.fingerprint() == data.fingerprint() and again.name == data.name
    assert repr(data) == "Dataset('data', 6 examples: x float64[6, 2], y int64[6])"


@pytest.mark.smoke
def test_fingerprints_tell_data_apart() -> None:
    x, y = np.arange(12.0).reshape(6, 2), np.array([0, 1, 2, 0, 1, 2])
    base = Dataset({"x": x, "y": y})
    changed = x.copy()
    changed[5, 1] = np.nextafter(changed[5, 1], 99)
    others = [
        Dataset({"x": changed, "y": y}),
        Dataset({"x": x.astype(np.float32), "y": y}),
        Dataset({"x": x.reshape(6, 1, 2), "y": y}),
        Dataset({"x": x[::-1].copy(), "y": y}),
        Dataset({"z": x, "y": y}),
        Dataset({"x": x, "y": y}, ("a", "b", "c")),
        Dataset({"x": x}),
    ]
    assert len({each.fingerprint() for each in [base, *others]}) == 1 + len(others)
    same = [
        Dataset({"y": y, "x": x}, name="other"),
        Dataset({"x": np.asfortranarray(x), "y": y}),
        Dataset({"x": x.astype(">f8"), "y": y}),
        Dataset({"x": np.repeat(x, 2, axis=0)[::2], "y": y}),
    ]
    assert {each.fingerprint() for each in same} == {base.fingerprint()}
    assert base.fingerprint() == KEPT


KEPT = "7f60fbb680e8862a5a064edcc68f3dcc"


def test_large_data_are_sampled_and_the_fingerprint_says_so(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WHOLE_BYTES", 1000)
    monkeypatch.setattr(module, "SAMPLED_ROWS", 16)
    x = np.arange(1600, dtype=np.float32).reshape(800, 2)
    whole = Dataset({"x": x}).fingerprint()
    np.save(tmp_path / "x.npy", x)
    assert whole.startswith("sampled-")
    assert Dataset({"x": np.load(tmp_path / "x.npy", mmap_mode="r")}).fingerprint() == whole
    for row in (0, 50, 799):  # evenly spaced rows and the last one
        other = x.copy()
        other[row, 1] += 1
        assert Dataset({"x": other}).fingerprint() != whole
