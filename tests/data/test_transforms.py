"""Transforms: what each learns by its formula, exact saving, and features of a model from a table."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxdl.data.table import Table
from jaxdl.data.transforms import (
    Deduplicate,
    FittedFeatures,
    FittedPipeline,
    Impute,
    Join,
    MinMax,
    OneHot,
    Outliers,
    Pipeline,
    Standardise,
    fitted_from_dict,
    join,
    tabular_features,
)

pytestmark = pytest.mark.smoke


def table(**columns) -> Table:
    return Table.from_columns(columns, source="t")


@pytest.mark.parametrize(("strategy", "fill"), [("mean", 4.0), ("median", 2.5), ("mode", 1.0), ("constant", -9.0)])
def test_impute_fills_numbers(strategy, fill):
    gaps = table(v=[1.0, 1.0, 4.0, 10.0, None], w=[1, 2, 3, 4, 5])
    fitted = Impute(columns=["v"], strategy=strategy, value=-9 if strategy == "constant" else None, indicator=True).fit(
        gaps
    )
    filled = fitted.apply(gaps)
    assert filled["v"].tolist() == [1, 1, 4, 10, fill] and filled["v missing"].tolist() == [False] * 4 + [True]
    assert fitted.notes == (f"1 missing values of 'v' filled with the {strategy} {fill:.6g}",)
    assert fitted.apply(table(v=[np.nan]))["v"].tolist() == [fill]


def test_impute_fills_text_and_refuses_what_has_no_middle():
    words = table(v=["b", "a", None, "b", "a"], n=[1, 2, None, 4, 5])
    assert Impute(strategy="mode").fit(words).apply(words)["v"].tolist() == ["b", "a", "a", "b", "a"]
    assert Impute(strategy="constant", value="?").fit(words).apply(words)["v"].tolist()[2] == "?"
    with pytest.raises(ValueError, match="column 'v' of t holds text, but number is needed"):
        Impute(columns=["v"]).fit(words)
    with pytest.raises(ValueError, match="all values of column 'v' of t are missing"):
        Impute().fit(table(v=[None, np.nan]))
    with pytest.raises(ValueError, match="value belongs to strategy='constant'"):
        Impute(value=1.0).fit(words)
    with pytest.raises(TypeError, match=r"pass a list, \['v'\]"):
        Impute(columns="v").fit(words)


def test_outliers_are_clipped_or_dropped_by_their_formula():
    values = np.array([0.0, 1, 2, 3, 4, 5, 6, 7, 100])
    first, third = np.quantile(values, [0.25, 0.75])
    clipped = Outliers().fit(table(v=values)).apply(table(v=[-50.0, 3, 50, np.nan]))["v"]
    assert clipped[:3].tolist() == [first - 1.5 * (third - first), 3, third + 1.5 * (third - first)] and np.isnan(
        clipped[3]
    )
    dropped = Outliers(action="drop").fit(table(v=values))
    assert (
        dropped.apply(table(v=[-50.0, 3, 50, np.nan]))["v"][0] == 3 and len(dropped.apply(table(v=[np.nan, 99.0]))) == 1
    )
    assert len(dropped.apply(table(v=[99.0]), keep_rows=True)) == 1
    (low, high) = Outliers(method="zscore", threshold=2).fit(table(v=values)).bounds["v"]
    assert np.allclose([low, high], [values.mean() - 2 * values.std(), values.mean() + 2 * values.std()])
    assert Outliers(method="quantile", quantiles=(0, 0.5)).fit(table(v=values)).bounds["v"] == (0, 4)
    with pytest.raises(ValueError, match="threshold belongs to"):
        Outliers(method="quantile", threshold=1).fit(table(v=values))
    with pytest.raises(ValueError, match="infinite in row 1"):
        Outliers().fit(table(v=[1, np.inf]))


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.sampled_from([0.0, 1.0, np.nan]), st.sampled_from(["a", "b", None])), max_size=12))
def test_deduplicate_keeps_one_of_each(rows):
    rows = [(9.0, "z"), *rows]
    data = table(v=[v for v, _ in rows], t=[t for _, t in rows], i=np.arange(len(rows)), a=np.ones((len(rows), 2)))
    keys = [(repr(v), t) for v, t in rows]
    fitted = Deduplicate(columns=["v", "t", "a"]).fit(data)
    assert fitted.apply(data)["i"].tolist() == [i for i, key in enumerate(keys) if key not in keys[:i]]
    last = Deduplicate(columns=["v", "t", "a"], keep="last").fit(data).apply(data)["i"].tolist()
    assert last == [i for i, key in enumerate(keys) if key not in keys[i + 1 :]]
    assert len(fitted.apply(data, keep_rows=True)) == len(rows)


def test_one_hot_names_its_columns_and_knows_what_it_never_saw():
    seen = table(n=[1, 2, 3], job=["smith", "cook", None])
    fitted = OneHot().fit(seen)
    out = fitted.apply(seen)
    assert out.names == ("n", "job=cook", "job=smith", "job=(missing)")
    assert [out[name].tolist() for name in out.names[1:]] == [[0, 1, 0], [1, 0, 0], [0, 0, 1]]
    new = table(n=[1, 2], job=["cook", "cooks"])
    with pytest.raises(ValueError, match=r"row 1 .* column 'job' has the category 'cooks', .* did you mean 'cook'"):
        fitted.apply(new)
    ignoring = OneHot(unseen="ignore").fit(seen).apply(new)
    assert [ignoring[name].tolist() for name in out.names[1:]] == [[1, 0], [0, 0], [0, 0]]
    with pytest.raises(ValueError, match="has no value, and none was missing"):
        OneHot().fit(table(job=["a", "b"])).apply(table(job=["a", None]))
    with pytest.raises(ValueError, match="has 3 categories in 3 rows"):
        OneHot(max_categories=2).fit(table(job=["a", "b", "c"]))
    with pytest.raises(
        ValueError, match="OneHot learned from text in column 'job', but t has number there, such as '1'"
    ):
        fitted.apply(table(job=[1, 2]))
    with pytest.raises(ValueError, match="does not have; did you mean 'jobs'"):
        fitted.apply(table(jobs=["a"]))


def test_scales():
    data = table(v=[1.0, 2.0, 6.0, np.nan], flat=[0.1, 0.1, 0.1, 0.1])
    scaled = Standardise().fit(data).apply(data)
    spread = np.std([1.0, 2, 6])
    assert np.allclose(scaled["v"][:3], (np.array([1.0, 2, 6]) - 3) / spread) and np.isnan(scaled["v"][3])
    assert scaled["v"].dtype == np.float32 and np.abs(scaled["flat"]).max() < 1e-6
    assert np.allclose(MinMax().fit(data).apply(data)["v"][:3], [0, 0.2, 1])


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(["a", "b", "c", None]), st.integers(0, 2)), min_size=1, max_size=8),
    st.lists(st.tuples(st.sampled_from(["a", "b", "d", None]), st.integers(0, 2)), min_size=1, max_size=8),
    st.sampled_from(["left", "inner"]),
)
def test_join_equals_nested_loops(left, right, how):
    a = table(k=["z", *(k for k, _ in left)], n=[9, *(n for _, n in left)], i=np.arange(len(left) + 1))
    b = table(
        k=["y", *(k for k, _ in right)],
        n=[8, *(n for _, n in right)],
        v=np.arange(len(right) + 1),
        i=np.arange(len(right) + 1),
    )
    expected = []
    for i, key in enumerate([("z", 9), *left]):
        matches = [j for j, other in enumerate([("y", 8), *right]) if key == other and key[0] is not None]
        expected += [(i, j) for j in matches] or ([(i, None)] if how == "left" else [])
    out = join(a, b, on=["k", "n"], how=how, many=True)
    assert out.names == ("k", "n", "i", "v", "i_right")
    got = [(i, None if np.isnan(v) else int(v)) for i, v in zip(out["i"], out["v"], strict=True)]
    assert got == expected
    keys = [key for key in right if key[0] is not None]
    if len(set(keys)) < len(keys):
        with pytest.raises(ValueError, match="occurs more than once in t"):
            join(a, b, on=["k", "n"], how=how)


def test_join_fills_gaps_of_every_kind():
    right = table(
        k=[1],
        text=["x"],
        truth=[True],
        time=np.array(["2024-05-31"], "datetime64[us]"),
        whole=[5],
        image=np.zeros((1, 2, 2)),
    )
    out = join(table(k=[1, 2]), right.drop("image"), on="k")
    assert out["text"].tolist() == ["x", None] and out["truth"].tolist() == ["true", None]
    assert np.isnat(out["time"][1]) and np.isnan(out["whole"][1])
    assert join(table(k=[1, 2]), right, on="k", how="inner")["image"].shape == (1, 2, 2)
    with pytest.raises(ValueError, match="array column 'image' cannot be missing"):
        join(table(k=[1, 2]), right, on="k")
    with pytest.raises(ValueError, match="t has no column 'kk'; did you mean 'k'"):
        join(table(k=[1]), right, on="kk")
    with pytest.raises(ValueError, match="column 'k' holds text in t and number in t"):
        join(table(k=["1"]), right, on="k")


@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(-1e300, 1e300), min_size=3, max_size=9), st.text(min_size=1, max_size=5))
def test_a_saved_pipeline_is_the_same_pipeline(tmp_path_factory, values, word):
    n = len(values)
    data = table(v=[*values, np.nan], t=[word, None, *["b"] * (n - 1)], k=np.arange(n + 1) % 3)
    rates = table(
        k=[0, 1, 2],
        rate=[0.1, None, -2.5],
        area=["n", None, "s"],
        day=np.array(["2024-05-31", "NaT", "2024"], "M8[us]"),
    )
    steps = [
        Join(right=rates, on="k"),
        Deduplicate(),
        Outliers(columns=["k"]),
        Impute(columns=["v", "rate"]),
        OneHot(unseen="ignore"),
    ]
    fitted = Pipeline([*steps, MinMax(columns=["k"])]).fit(data)
    path = tmp_path_factory.mktemp("p") / "pipeline.json"
    fitted.save(path)
    again = FittedPipeline.load(path)
    assert again == fitted and again.apply(data).equals(fitted.apply(data))
    assert [fitted_from_dict(step.to_dict()) for step in fitted.steps] == list(fitted.steps)


def test_a_damaged_file_of_transforms_is_named(tmp_path):
    path = tmp_path / "p.json"
    for content, said in {
        "{": "cannot be loaded",
        "[]": "no JSON object",
        "{}": "this is no jaxdl transforms",
        '{"format": "jaxdl transforms", "version": 1, "steps": [{"transform": "impte"}]}': "did you mean 'impute'",
        '{"format": "jaxdl transforms", "version": 1, "steps": [{"transform": "scale"}]}': "'scales'. are needed",
    }.items():
        path.write_text(content)
        with pytest.raises(ValueError, match=f"p.json.*{said}"):
            FittedPipeline.load(path)


def test_tabular_features_follow_the_recipe(tmp_path):
    n = 8
    data = table(
        age=[20.0, 40, None, 30, 20, 40, 30, 30],
        job=["cook", "smith"] * 4,
        flag=[True, False] * 4,
        constant=[1] * n,
        empty=[None] * n,
        name=[f"n{i}" for i in range(n)],
        day=np.arange(n).astype("datetime64[D]"),
        v=np.arange(2 * n, dtype=np.float32).reshape(n, 2),
        w=np.arange(1, n + 1),
        y=["b", "a"] * 4,
    )
    fitted = tabular_features(data, label="y", weight="w", max_categories=4)
    assert fitted.names == ("age", "flag", "v[0]", "v[1]", "job=cook", "job=smith") and fitted.classes == ("a", "b")
    assert len(fitted.notes) == 5 and "1 missing values of 'age' filled with the median 30" in fitted.notes
    x = fitted.apply(data)
    filled = np.array([20.0, 40, 30, 30, 20, 40, 30, 30])
    assert x.dtype == np.float32 and x.shape == (n, 6)
    assert np.allclose(x[:, 0], (filled - filled.mean()) / filled.std()) and x[:2, 4:].tolist() == [[1, 0], [0, 1]]
    assert x[:, 1].tolist() == [1, 0] * 4 and x[1, 2:4].tolist() == [2, 3]
    dataset = fitted.dataset(data)
    assert dataset["y"].tolist() == [1, 0] * 4 and dataset["weight"].tolist() == list(range(1, n + 1))
    fitted.save(tmp_path / "features.json")
    again = FittedFeatures.load(tmp_path / "features.json")
    assert again == fitted and np.array_equal(again.apply(data), x)
    assert set(fitted.dataset(data.drop(["y", "w"])).columns) == {"x"}
    assert fitted.dataset(data.rows([1, 3]))["y"].tolist() == [0, 0]
    with pytest.raises(ValueError, match="a class that was not there when the classes were learned"):
        fitted.dataset(data.with_columns({"y": ["c"] * n}))
    with pytest.raises(ValueError, match="column 'job' has the category 'cooks'"):
        fitted.apply(data.with_columns({"job": ["cooks"] * n}))
    with pytest.raises(ValueError, match="column 'constant' has the same value everywhere, so it can be no feature"):
        tabular_features(data, label="y", features=["constant"])
    with pytest.raises(ValueError, match="'y' is the label"):
        tabular_features(data, label="y", features=["age", "y"])
    with pytest.raises(KeyError, match="did you mean 'age'"):
        tabular_features(data, label="agee")
    with pytest.raises(ValueError, match="label in column 'age' is missing in row 2"):
        tabular_features(data, label="age")
    assert tabular_features(data, label="w").classes is None


def test_a_missing_key_matches_nothing_not_even_a_missing_key():
    left, right = table(k=["a", None], n=[1, 1]), table(k=[None, "a"], n=[1, 1], v=[5, 6])
    assert join(left, right, on=["k", "n"], how="inner")["v"].tolist() == [6]
    assert np.isnan(join(left, right, on=["k", "n"])["v"][1])
