"""Arrow arrays as columns: what Parquet, fast CSV and every DataFrame with `__arrow_c_stream__` come through."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from jaxdl.data.formats.source import missing_extra
from jaxdl.data.schema import Column, sorted_categories

if TYPE_CHECKING:
    import pyarrow as pa


def columns_from_arrow(frame: Any, source: str) -> dict[str, Column]:
    """The columns of a pyarrow table or of anything that exports `__arrow_c_stream__`."""
    if not hasattr(frame, "__arrow_c_stream__"):
        raise TypeError(
            f"{type(frame).__name__} has no __arrow_c_stream__; pass a pandas (2.2 or newer), polars or pyarrow table, "
            "or use "
            "Table.from_columns({name: values})"
        )
    try:
        import pyarrow as pa
    except ImportError as error:
        raise missing_extra("reading a DataFrame", "pyarrow") from error

    table = frame if isinstance(frame, pa.Table) else pa.table(frame)
    doubled = [name for i, name in enumerate(table.column_names) if name in table.column_names[:i]]
    if doubled:
        raise ValueError(f"{source}: more than one column is called {doubled[0]!r}; rename one")
    return {
        name: column_from_arrow(values, name, source)
        for name, values in zip(table.column_names, table.columns, strict=True)
    }


def codes_and_words(values: pa.ChunkedArray) -> tuple[np.ndarray, list[str]]:
    """int32 codes (-1 where null) into words, in Arrow's order, of a string or dictionary array."""
    import pyarrow as pa

    if not pa.types.is_dictionary(values.type):
        values = values.dictionary_encode()
    values = values.unify_dictionaries()
    if values.num_chunks == 0:
        return np.zeros(0, np.int32), []
    codes = [chunk.indices.cast(pa.int64()).fill_null(-1).to_numpy(zero_copy_only=False) for chunk in values.chunks]
    words = values.chunk(0).dictionary.to_pylist()
    joined = np.concatenate(codes).astype(np.int32)
    if None in words:
        gone = words.index(None)
        joined[joined == gone] = -1
        words[gone] = ""
    return joined, words


def column_from_arrow(values: pa.ChunkedArray, name: str, source: str) -> Column:
    """One column: nulls become NaN, NaT or code -1; decimals float64; lists of equal length an array `[n, k]`."""
    import pyarrow as pa

    kind = values.type
    if pa.types.is_dictionary(kind) and not _is_text(kind.value_type):
        values = values.cast(kind.value_type)
        kind = values.type
    if isinstance(kind, pa.BaseExtensionType):
        values = pa.chunked_array([chunk.storage for chunk in values.chunks], kind.storage_type)
        kind = values.type
    if _is_text(kind) or pa.types.is_dictionary(kind):
        return sorted_categories(*codes_and_words(values))
    if pa.types.is_null(kind):
        return Column(np.full(len(values), np.nan))
    if pa.types.is_boolean(kind):
        if values.null_count == 0:
            return Column(values.to_numpy())
        codes = values.cast(pa.int8()).fill_null(-1).to_numpy().astype(np.int32)
        return sorted_categories(codes, ("false", "true"))
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        return Column(values.to_numpy())
    if pa.types.is_decimal(kind):
        return Column(values.cast(pa.float64()).to_numpy())
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        return Column(values.to_numpy().astype("datetime64[us]"))
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return Column(_matrix(values, name, source))
    raise ValueError(
        f"{source}: column {name!r} has the Arrow type {kind}, which is neither number, bool, text, time nor a list of "
        "numbers; "
        "convert it or leave it out"
    )


def _is_text(kind: pa.DataType) -> bool:
    import pyarrow as pa

    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)


def _matrix(values: pa.ChunkedArray, name: str, source: str) -> np.ndarray:
    import pyarrow as pa
    import pyarrow.compute

    item = values.type.value_type
    if not (pa.types.is_integer(item) or pa.types.is_floating(item)):
        raise ValueError(f"{source}: column {name!r} holds lists of {item}; only lists of numbers can be read")
    lengths = pa.compute.list_value_length(values)
    if lengths.null_count:
        row = pa.compute.index(pa.compute.is_null(lengths), True).as_py()
        raise ValueError(f"{source}: column {name!r} has no list in row {row} (counted from 0)")
    sizes = lengths.to_numpy()
    if len(sizes) and (sizes != sizes[0]).any():
        row = int(np.argmax(sizes != sizes[0]))
        raise ValueError(
            f"{source}: column {name!r} has a list of {sizes[row]} values in row {row} (counted from 0), and of "
            f"{sizes[0]} in row 0; all "
            "must be equally long"
        )
    flat = pa.compute.list_flatten(values)
    return flat.to_numpy().reshape(len(values), -1 if len(sizes) else 0)
