"""Tables: columns, schema, rows, and the dataset that comes out."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxdl.data.table import Table

pytestmark = pytest.mark.smoke


def people(**extra) -> Table:
    columns = {
        "age": [31, 45, 27],
        "pay": [1.5, None, 3.0],
        "job": ["cook", None, "smith"],
        "old": [False, True, False],
    }
    return Table.from_columns({**columns, **extra}, source="people")


def test_schema_counts_what_is_missing():
    kinds = {f.name: (f.kind, f.missing, f.categories) for f in people().schema}
    assert kinds["age"] == ("number", 0, None) and kinds["pay"] == ("number", 1, None) and kinds["old"][0] == "boolean"
    assert kinds["job"] == ("text", 1, ("cook", "smith"))


def test_columns_are_selected_renamed_and_named_when_unknown():
    table = people()
    assert table.select(["job", "age"]).names == ("job", "age") and table.drop("job").names == ("age", "pay", "old")
    assert table.rename({"age": "years"}).names == ("years", "pay", "job", "old")
    assert table.with_columns({"age": [1, 2, 3]})["age"].tolist() == [1, 2, 3]
    with pytest.raises(KeyError, match="people has no column 'agee'; did you mean 'age'"):
        table.drop(["agee"])
    with pytest.raises(ValueError, match="more than one column the name 'pay'"):
        table.rename({"age": "pay"})
    with pytest.raises(ValueError, match="column 'b' has 1 rows, but 'age' has 3"):
        people(b=[1])
    with pytest.raises(TypeError, match="holds values of int, str together"):
        people(b=[1, "a", None])
    with pytest.raises(TypeError, match="dtype complex"):
        people(b=np.zeros(3, complex))


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 2), max_size=6))
def test_rows_are_those_asked_for(indices):
    table = people()
    rows = table.rows(indices)
    assert rows["age"].tolist() == [table["age"][i] for i in indices]
    assert rows["job"].tolist() == [table["job"][i] for i in indices]
    assert rows.column("job").categories == ("cook", "smith")


def test_rows_by_mask_and_head():
    assert people().rows([True, False, True])["age"].tolist() == [31, 27] and len(people().head(2)) == 2
    with pytest.raises(ValueError, match="a mask of 2 rows for a table of 3"):
        people().rows([True, False])


def test_equality_sees_every_difference():
    assert people().equals(people())
    for other in (
        people(age=[31, 45, 28]),
        people(age=[31.0, 45.0, 27.0]),
        people(job=["cook", None, "x"]),
        people(b=[1, 2, 3]),
    ):
        assert not people().equals(other)


def test_tables_are_concatenated_with_the_union_of_their_categories():
    joined = Table.concat([people(), people(job=["baker", "cook", None])])
    assert joined["job"].tolist() == ["cook", None, "smith", "baker", "cook", None]
    assert joined.column("job").categories == ("baker", "cook", "smith")


def test_what_a_reader_sees():
    shown = repr(people(**{f"c{i}": [1, 2, 3] for i in range(9)}))
    assert "people: 3 rows, 13 columns" in shown and "cook" in shown and "and 5 more columns" in shown
    assert "2 categories: cook, smith" in people().summary() and "27 to 45, mean 34.3333" in people().summary()


def test_dataset_of_numbers_labels_and_weights():
    table = people(y=["b", "a", "b"], w=[1, 0, 2.5])
    data = table.to_dataset("y", weight="w", features=["age", "old"])
    assert data["x"].tolist() == [[31, 0], [45, 1], [27, 0]] and data["x"].dtype == np.float32
    assert data["y"].tolist() == [1, 0, 1] and data["y"].dtype == np.int32 and data.classes == ("a", "b")
    assert data["weight"].tolist() == [1, 0, 2.5] and data.name == "people"
    assert table.to_dataset("y", features=["age"], classes=["b", "a"])["y"].tolist() == [0, 1, 0]
    assert np.isnan(table.to_dataset(features=["pay"], missing="keep")["x"][1, 0])


@pytest.mark.parametrize(
    ("labels", "target", "classes", "y"),
    [
        ([3, 7, 3, 7], "auto", ("3", "7"), [0, 1, 0, 1]),
        ([10, 9, 10, 9], "auto", ("9", "10"), [1, 0, 1, 0]),
        ([1, 2, 3, 4], "auto", None, [1, 2, 3, 4]),
        ([1, 2, 3, 4], "class", ("1", "2", "3", "4"), [0, 1, 2, 3]),
        ([1.0, 2.0, 1.0, 2.0], "auto", None, [1, 2, 1, 2]),
        ([1.0, 2.0, 1.0, 2.0], "class", ("1", "2"), [0, 1, 0, 1]),
        ([3, 7, 3, 7], "number", None, [3, 7, 3, 7]),
        ([True, False, True, True], "auto", ("false", "true"), [1, 0, 1, 1]),
    ],
)
def test_the_rule_of_targets(labels, target, classes, y):
    data = Table.from_columns({"x": [1.0, 2, 3, 4], "y": labels}).to_dataset("y", target=target)
    assert data.classes == classes and data["y"].tolist() == y
    assert data["y"].dtype == (np.float32 if classes is None else np.int32)


@pytest.mark.parametrize(
    ("columns", "options", "said"),
    [
        ({"y": ["a", None, "b"]}, {}, "label in column 'y' is missing in row 1"),
        ({"y": [0.0, 1.0, np.inf]}, {}, "label in column 'y' is inf in row 2"),
        ({"y": [0.5, 1.0, 2.0]}, {"target": "class"}, "has 0.5 in row 0"),
        ({"y": ["a", "b", "c"]}, {"target": "number"}, "which is no number to predict"),
        ({"y": ["a", "b", "cat"]}, {"classes": ["a", "b", "cats"]}, "row 2 .* the label 'cat' .* did you mean 'cats'"),
        ({"y": ["a", "b", "a"]}, {"target": "clas"}, "did you mean 'class'"),
        ({"y": ["a", "b", "a"]}, {"features": ["job"]}, "feature column 'job' holds text"),
        ({"y": ["a", "b", "a"]}, {"features": ["pay"]}, "'pay' has 1 missing values, the first in row 1"),
        ({"y": ["a", "b", "a"]}, {"features": []}, "no feature columns are left"),
        ({"y": ["a", "b", "a"], "w": [1, -1, 0]}, {"weight": "w", "features": ["age"]}, "row 1 .* has the weight -1"),
    ],
)
def test_what_cannot_be_learned_from_gets_a_sentence(columns, options, said):
    options = {"features": ["age"], **options}
    with pytest.raises(ValueError, match=said):
        people(**columns).to_dataset("y", **options)
