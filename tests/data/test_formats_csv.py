"""CSV: two readers under one rule, what is sniffed, and the sentence of every bad row."""

from __future__ import annotations

import csv
import gzip
import io
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxdl.data.formats.csv import read_csv
from jaxdl.data.schema import MISSING
from jaxdl.data.table import Table

pytestmark = pytest.mark.smoke


def written(folder: Path, text: str | bytes, name: str = "t.csv") -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def both(path: Path, **options) -> Table:
    """What the two readers agree on."""
    fast, exact = read_csv(path, reader="pyarrow", **options), read_csv(path, reader="python", **options)
    assert fast.equals(exact), f"{fast.schema}\n{exact.schema}\n{fast}\n{exact}"
    assert fast.skipped == exact.skipped
    return fast


def sentence(path: Path, **options) -> str:
    """The error that both readers give, word for word."""
    said = []
    for reader in ("pyarrow", "python"):
        with pytest.raises(ValueError) as caught:
            read_csv(path, reader=reader, **options)
        said.append(str(caught.value))
    assert said[0] == said[1]
    return said[0]


def test_kinds_of_columns_follow_the_written_rule(tmp_path):
    table = both(
        written(
            tmp_path,
            "whole,float,gap,text,truth,half,none,hex,plus,big\n"
            "1,1.5,3,a,true,true,,0x1F,+1,99999999999999999999\n"
            "-2,.5,,b,False,NA,,0x02,2,1\n"
            " 3 ,inf,5,NA,TRUE,FALSE,,7,3,2\n",
        )
    )
    assert table["whole"].tolist() == [1, -2, 3] and table["whole"].dtype == np.int64
    assert table["float"].tolist() == [1.5, 0.5, math.inf]
    assert table["gap"].dtype == np.float64 and table.column("gap").missing == 1
    assert table["text"].tolist() == ["a", "b", None]
    assert table["truth"].tolist() == [True, False, True] and table["truth"].dtype == bool
    assert table["half"].tolist() == ["true", None, "false"]
    assert table.column("none").missing == 3 and table["none"].dtype == np.float64
    assert table["hex"].tolist() == [31, 2, 7]
    assert table["plus"].dtype == np.float64
    assert table["big"].tolist() == [1e20, 1.0, 2.0]


cells = st.one_of(
    st.sampled_from(
        [
            "",
            "NA",
            "nan",
            "-nan",
            "inf",
            "1",
            "-0",
            "007",
            "+5",
            " 4 ",
            "1e400",
            "0x1f",
            "0xg",
            "1_0",
            "true",
            "FALSE",
            "2016-07-01",
        ]
    ),
    st.sampled_from(
        [
            "2016-07-01 00:00:00",
            "12:30:00",
            "1,5",
            "a b",
            "'",
            "1.",
            ".5",
            "5e",
            "NAN",
            "None",
            "٣",
            "\xa05",
            "yes",
            '"',
            "x\ny",
        ]
    ),
    st.integers(-(2**70), 2**70).map(str),
    st.floats(width=64).map(repr),
    st.text(st.characters(codec="utf-8", exclude_characters="\x00", exclude_categories=("Cs",)), max_size=6),
)


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_fast_and_exact_reader_give_the_same_table(data, tmp_path_factory):
    width = data.draw(st.integers(1, 4))
    kind = [data.draw(st.sampled_from(["numbers", "mixed"])) for _ in range(width)]
    number = st.one_of(st.integers(-99, 2**65).map(str), st.floats(width=32).map(repr), st.sampled_from(["", "NA"]))
    rows = data.draw(st.lists(st.tuples(*(number if k == "numbers" else cells for k in kind)), min_size=1, max_size=12))
    out = io.StringIO(newline="")
    csv.writer(out, lineterminator=data.draw(st.sampled_from(["\n", "\r\n"]))).writerows(rows)
    path = written(tmp_path_factory.mktemp("csv"), out.getvalue())
    options = {"delimiter": ",", "quote": '"', "header": False, "decimal": "."}
    try:
        exact = read_csv(path, reader="python", **options)
    except ValueError as error:
        assert sentence(path, **options) == str(error)
        return
    assert read_csv(path, reader="pyarrow", **options).equals(exact), (rows, exact.schema)


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.tuples(*[st.text(st.characters(codec="utf-8", exclude_categories=("Cs",)))] * 2), min_size=1, max_size=8
    ),
    st.sampled_from([",", ";", "\t", "|"]),
    st.sampled_from(['"', "'"]),
)
def test_quoted_text_comes_back_as_it_was(tmp_path_factory, rows, delimiter, quote):
    rows = [("first", "second"), *((f"k{a}", f"k{b}") for a, b in rows)]
    out = io.StringIO(newline="")
    csv.writer(out, delimiter=delimiter, quotechar=quote, quoting=csv.QUOTE_ALL).writerows(rows)
    path = written(tmp_path_factory.mktemp("csv"), out.getvalue())
    table = both(path, delimiter=delimiter, quote=quote, header=True)
    assert list(zip(table["first"], table["second"], strict=True)) == rows[1:]


@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(allow_nan=False), min_size=1, max_size=20))
def test_floats_come_back_bit_for_bit(tmp_path_factory, values):
    path = written(tmp_path_factory.mktemp("csv"), "v\n" + "".join(f"{value!r}\n" for value in values))
    assert np.array_equal(
        both(path, header=True)["v"].astype(np.float64).view(np.int64), np.array(values).view(np.int64)
    )


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("quote", ['"', "'"])
def test_delimiter_and_quote_are_sniffed(tmp_path, delimiter, quote):
    rows = [("name", "note"), *((f"n{i}", f"one{delimiter} two, {i}") for i in range(4))]
    text = "\n".join(delimiter.join(f"{quote}{cell}{quote}" for cell in row) for row in rows)
    table = both(written(tmp_path, text))
    assert table.names == ("name", "note") and table["note"][3] == f"one{delimiter} two, 3"


def test_decimal_comma_of_a_european_file_is_sniffed(tmp_path):
    table = both(written(tmp_path, "a;b;c\n1,5;2;x\n-0,25;3;y\n"))
    assert table["a"].tolist() == [1.5, -0.25] and table["b"].tolist() == [2, 3]
    assert both(written(tmp_path, "a;b\n1.5;1\n2;2,5\n"))["b"].tolist() == ["1", "2,5"]


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("age,job\n31,cook\n", ("age", "job")),
        ("31,cook\n45,smith\n", ("column_0", "column_1")),
        (",age\n0,31\n", ("column_0", "age")),
        ("name,job\nann,cook\nbob,smith\n", ("name", "job")),
        ("ann,cook\nbob,smith\nann,smith\n", ("column_0", "column_1")),
        ("\ufeffage,job\n31,cook\n", ("age", "job")),
        ("\n\nage,job\n31,cook\n", ("age", "job")),
        ("1\n2\n", ("column_0",)),
    ],
)
def test_header_is_detected(tmp_path, text, names):
    assert both(written(tmp_path, text)).names == names


def test_header_and_names_can_be_given(tmp_path):
    path = written(tmp_path, "ann,cook\nbob,smith\n")
    assert both(path, header=False, names=["who", "job"])["who"].tolist() == ["ann", "bob"]
    assert both(path, header=True).names == ("ann", "cook")
    assert both(path, header=True, names=["who", "job"])["who"].tolist() == ["bob"]
    assert both(path, header=False, names=["who", "job"], columns=["job"]).names == ("job",)


def test_gzip_and_other_encodings(tmp_path):
    text = "naïve,n\ncafé,1\n"
    assert both(written(tmp_path, gzip.compress(text.encode()), "t.csv.gz"))["naïve"].tolist() == ["café"]
    assert both(written(tmp_path, text.encode("latin-1")), encoding="latin-1")["naïve"].tolist() == ["café"]
    assert both(written(tmp_path, text.encode("utf-16")))["naïve"].tolist() == ["café"]
    assert "line 2: byte 0xe9 is no utf-8" in sentence(written(tmp_path, b"a,n\ncaf\xe9,1\n"))


def test_types_are_obeyed(tmp_path):
    path = written(tmp_path, "zip,day,ok,n\n007,2024-05-31,yes,1\n010,2024-06-01T12:00:00Z,0,\n")
    table = both(path, types={"zip": "text", "day": "time", "ok": "boolean", "n": "number"})
    assert table["zip"].tolist() == ["007", "010"] and table["ok"].tolist() == [True, False]
    assert table["day"].tolist()[1].isoformat() == "2024-06-01T12:00:00"
    assert "column 'day': '2024-05-31' is not a number" in sentence(path, types={"day": "number"})
    assert "line 2, column 'zip': '007' is not true or false" in sentence(path, types={"zip": "boolean"})
    assert "line 3, column 'n': a missing cell is not true or false" in sentence(path, types={"n": "boolean"})
    with pytest.raises(ValueError, match="did you mean 'zip'"):
        read_csv(path, types={"zipp": "text"})
    with pytest.raises(ValueError, match="did you mean 'number'"):
        read_csv(path, types={"zip": "numbr"})


def test_dates_stay_text_even_where_the_first_rows_have_none(tmp_path):
    path = written(tmp_path, "d,n\n" + ",1\n" * 300 + "2024-05-31,1\n")
    assert both(path)["d"][-1] == "2024-05-31"


def test_one_bad_cell_among_numbers_is_named_with_its_line(tmp_path):
    path = written(tmp_path, "age,note\n" + "".join(f'{i},"two\nlines"\n' for i in range(40)) + "4o,x\n" + "41,x\n")
    said = sentence(path)
    assert "t.csv, line 82, column 'age': '4o' is not a number, as the other 41 cells" in said
    table = both(path, on_error="skip")
    assert len(table) == 41 and table["age"].dtype == np.int64 and table.skipped.count == 1
    assert "line 82" in table.skipped.examples[0]
    assert both(path, types={"age": "text"})["age"][40] == "4o"
    assert both(path, missing=(*MISSING, "4o")).column("age").missing == 1


def test_a_column_with_many_words_is_text(tmp_path):
    assert both(written(tmp_path, "v,w\n1,1\n2,1\nx,1\n"))["v"].tolist() == ["1", "2", "x"]


def test_ragged_rows(tmp_path):
    path = written(tmp_path, "a,b,c\n1,2,3\n4,5\n6,7,8,9\n10,11,12\n")
    said = sentence(path, delimiter=",")
    assert (
        "t.csv, line 3: 2 cells where 3 were expected (a, b, c); the line reads '4,5'" in said
        and "on_error='skip'" in said
    )
    table = both(path, delimiter=",", on_error="skip")
    assert (
        table["a"].tolist() == [1, 10] and table.skipped.count == 2 and "line 4: 4 cells" in table.skipped.examples[1]
    )
    assert "1 bad rows" not in repr(table) and "2 bad rows left out" in repr(table)
    assert "none of its 2 rows can be read" in sentence(
        written(tmp_path, "a,b\n1\n2\n"), delimiter=",", header=True, on_error="skip"
    )


def test_other_faults_of_a_file_get_a_sentence(tmp_path):
    assert "more than once" not in sentence(written(tmp_path, "a,b,a\n1,2,3\n"))
    assert "the column name 'a' stands at positions 1 and 3" in sentence(written(tmp_path, "a,b,a\n1,2,3\n"))
    assert "delimiter=',' gives one column, but ';' gives 2" in sentence(written(tmp_path, "a;b\n1;2\n"), delimiter=",")
    assert "is empty: 0 bytes" in sentence(written(tmp_path, ""))
    assert "all its lines are blank" in sentence(written(tmp_path, "\n\n"))
    assert "has a header (a, b) but no rows" in sentence(written(tmp_path, "a,b\n"))
    assert 'line 3: a " opens a quoted cell that is never closed' in sentence(
        written(tmp_path, 'a,b\n1,2\n3,"x\n4,5\n')
    )
    assert "damaged or cut-off gzip" in sentence(written(tmp_path, gzip.compress(b"a,b\n1,2\n")[:-9], "t.csv.gz"))
    assert "must be one character" in sentence(written(tmp_path, "a,b\n1,2\n"), delimiter="::")
    assert "has no column 'aa'; did you mean 'a'" in sentence(written(tmp_path, "a,b\n1,2\n"), columns=["aa"])
    with pytest.raises(FileNotFoundError, match=r"did you mean .*t\.csv"):
        read_csv(tmp_path / "tt.csv")
    with pytest.raises(FileNotFoundError, match="of its folders only"):
        read_csv(tmp_path / "no" / "where" / "t.csv")


def test_without_pyarrow_the_same_table_comes_out(tmp_path, monkeypatch):
    import importlib.util

    path = written(tmp_path, "a,b\n1,x\n2,y\n")
    whole = read_csv(path)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert read_csv(path).equals(whole)
    with pytest.raises(ImportError, match=r"needs pyarrow: pip install 'jaxdl\[data\]'"):
        read_csv(path, reader="pyarrow")


def test_the_fast_path_is_really_taken_and_not_for_what_it_would_accept_wrongly(tmp_path, monkeypatch):
    def refused(*_args):
        raise AssertionError("the exact reader was asked")

    plain = written(tmp_path, 'a,b,c,d\n1,x,,true\n2.5,"y, z",,NA\n', "plain.csv")
    open_quote = written(tmp_path, 'a,b\n1,x\n2,"y\n', "open.csv")
    monkeypatch.setattr("jaxdl.data.formats.csv.read_exact", refused)
    assert read_csv(plain)["b"].tolist() == ["x", "y, z"]
    with pytest.raises(AssertionError, match="exact reader"):
        read_csv(open_quote)


def test_newlines_in_cells_and_blank_lines_survive_the_blocks_that_pyarrow_reads(tmp_path, monkeypatch):
    rows = [(i, f"line {i}\n{'x' * (i % 50)}\nend") for i in range(30_000)]
    path = written(tmp_path, "n,t\n" + "\n".join(f'{n},"{t}"\n' for n, t in rows))
    monkeypatch.setattr("jaxdl.data.formats.csv.read_exact", None)
    table = read_csv(path)
    assert path.stat().st_size > 1 << 20
    assert table["n"].tolist() == [n for n, _ in rows] and table["t"].tolist() == [t for _, t in rows]
