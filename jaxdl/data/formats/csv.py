"""CSV and TSV: a fast reader (pyarrow) and an exact one (Python alone) that give the same table."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from jaxdl.data.formats.csv_exact import read_exact
from jaxdl.data.formats.sniff import SAMPLE_BYTES, Dialect, other_delimiter, sniff
from jaxdl.data.formats.source import BytesLike, missing_extra, read_utf8
from jaxdl.data.schema import MISSING, Column, check_choice, check_types, interpret, nearest, sorted_categories
from jaxdl.data.table import Table

_BLOCK = 1 << 20  # bytes that fit the cache

Reader = Literal["auto", "pyarrow", "python"]


def read_csv(
    path: str | os.PathLike[str],
    *,
    delimiter: str | None = None,
    quote: str | None = None,
    decimal: str | None = None,
    header: bool | None = None,
    names: Sequence[str] | None = None,
    columns: Sequence[str] | None = None,
    types: Mapping[str, str] | None = None,
    missing: Sequence[str] = MISSING,
    encoding: str = "utf-8",
    on_error: Literal["raise", "skip"] = "raise",
    reader: Reader = "auto",
) -> Table:
    """A table of a delimited text file, gzip or not. What is None is found from the first lines.

    header: whether the first row holds the names; without one they are column_0, column_1 ... or `names`. columns: read
    only these. types: what a column holds, {"zip": "text", "day": "time"} (number, boolean, text, time), where the rule
    of `schema.interpret` guesses wrong. missing: cells that mean "no value". on_error="skip" leaves out bad rows and
    counts them in `table.skipped`; "raise" names the first in a ValueError with line, column, value and what was
    expected. reader: "pyarrow" is fast, "python" needs nothing installed; "auto" takes pyarrow where it is installed
    and re-reads with the other when something is wrong, to name the place.
    """
    check_choice("on_error", on_error, ("raise", "skip"))
    check_choice("reader", reader, ("auto", "pyarrow", "python"))
    for option, sign in (("delimiter", delimiter), ("quote", quote), ("decimal", decimal)):
        if sign is not None and len(sign) != 1:
            raise ValueError(f"{option} is {sign!r}; it must be one character")
    found = Path(path)
    content = read_utf8(found, encoding)
    likely = "\t" if ".tsv" in found.name.lower() or ".tab" in found.name.lower() else None
    sample = content[:SAMPLE_BYTES]
    try:
        dialect = sniff(
            sample,
            len(sample) == len(content),
            delimiter=delimiter,
            quote=quote,
            decimal=decimal,
            header=header,
            names=names,
            missing=missing,
            likely=likely,
        )
    except ValueError as error:
        raise ValueError(f"{found.name}: {error}") from error
    _check_names(dialect, found, sample, delimiter)
    check_types(types, dialect.names, found.name)
    for name in columns or ():
        if name not in dialect.names:
            raise ValueError(f"{found.name} has no column {name!r}{nearest(name, dialect.names)}")
    if reader != "python" and importlib.util.find_spec("pyarrow") is None:
        if reader == "pyarrow":
            raise missing_extra("reading CSV with reader='pyarrow'", "pyarrow")
        reader = "python"
    if reader != "python":
        read = _read_arrow(content, dialect, columns, types or {}, missing)
        if read is not None:
            return Table(read, found.name)
    table = read_exact(content, found, dialect, columns, types or {}, missing, on_error)
    return table


def _check_names(dialect: Dialect, path: Path, sample: bytes, given: str | None) -> None:
    names = dialect.names
    doubled = [name for i, name in enumerate(names) if name in names[:i]]
    if doubled:
        places = [str(i + 1) for i, name in enumerate(names) if name == doubled[0]]
        raise ValueError(
            f"{path.name}, line 1: the column name {doubled[0]!r} stands at positions {' and '.join(places)}; give "
            "each column a name "
            "of its own with names=[...] (and header=True, to pass over this line)"
        )
    if given is not None and len(names) == 1:
        other = other_delimiter(sample.decode("utf-8", "replace"), dialect.quote, given)
        if other:
            raise ValueError(
                f"{path.name}: delimiter={given!r} gives one column, but {other[0]!r} gives {other[1]}; use "
                f"delimiter={other[0]!r} or "
                "leave it out"
            )


def _read_arrow(
    content: BytesLike,
    dialect: Dialect,
    columns: Sequence[str] | None,
    types: Mapping[str, str],
    missing: Sequence[str],
) -> dict[str, Column] | None:
    """The columns as pyarrow reads them, or None when the exact reader has to look: something is wrong, or could be."""
    import pyarrow as pa
    import pyarrow.csv

    from jaxdl.data.formats.arrow import codes_and_words

    if not (dialect.quote + dialect.delimiter + dialect.decimal).isascii():
        return None
    quoted = content.find(dialect.quote.encode(), dialect.header_bytes) >= 0
    if quoted and _odd(content, ord(dialect.quote), dialect.header_bytes):
        # pyarrow takes a quote that is never closed for one that is closed at the end of the file.
        return None
    as_text = {name for i, name in enumerate(dialect.names) if i in dialect.text_columns}
    as_text |= {name for name, kind in types.items() if kind != "number"}
    for _ in range(2):
        try:
            read = pyarrow.csv.read_csv(
                pa.BufferReader(pa.py_buffer(memoryview(content)[dialect.header_bytes :])),
                read_options=pyarrow.csv.ReadOptions(
                    column_names=list(dialect.names),
                    use_threads=pa.cpu_count() > 1,  # on one core the threads cost a fifth (benchmarks/reading.py)
                ),
                parse_options=pyarrow.csv.ParseOptions(
                    delimiter=dialect.delimiter, quote_char=dialect.quote, newlines_in_values=quoted
                ),
                convert_options=pyarrow.csv.ConvertOptions(
                    column_types=dict.fromkeys(as_text, pa.string()),
                    null_values=list(missing),
                    strings_can_be_null=True,
                    true_values=["true", "True", "TRUE"],
                    false_values=["false", "False", "FALSE"],
                    decimal_point=dialect.decimal,
                    include_columns=list(columns or ()),
                ),
            )
        except (pa.ArrowInvalid, pa.ArrowKeyError):
            # Ragged rows, cells that do not decode, an empty file: the exact reader finds the place and the sentence.
            return None
        temporal = {field.name for field in read.schema if pa.types.is_temporal(field.type)}
        if not temporal:
            break
        as_text |= temporal
    result: dict[str, Column] = {}
    for name in read.schema.names:
        values, wanted = read.column(name), types.get(name)
        if pa.types.is_string(values.type):
            codes, words = codes_and_words(values)
            column, bad = interpret(sorted_categories(codes, words), wanted, dialect.decimal)
            if (bad is not None and bad.any()) or (wanted == "boolean" and column.kind != "boolean"):
                return None
        elif pa.types.is_boolean(values.type):
            if wanted == "number":
                return None
            column = _booleans(values)
        elif pa.types.is_null(values.type):
            column = Column(np.full(len(values), np.nan))
        else:
            column = Column(values.to_numpy())
        result[name] = column
    return result


def _booleans(values: object) -> Column:
    """True and false; with a missing cell among them they are text, as in `schema.interpret`."""
    import pyarrow as pa

    assert isinstance(values, pa.ChunkedArray)
    if values.null_count == 0:
        return Column(values.to_numpy())
    codes, words = values.cast(pa.int8()).fill_null(-1).to_numpy(), ("false", "true")
    return sorted_categories(codes.astype(np.int32), words)


def _odd(content: BytesLike, sign: int, start: int) -> bool:
    """Whether a byte occurs an odd number of times from `start` on."""
    read = np.frombuffer(content, np.uint8)
    return sum(int(np.count_nonzero(read[at : at + _BLOCK] == sign)) for at in range(start, len(read), _BLOCK)) % 2 == 1
