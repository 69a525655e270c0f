"""Parquet, through pyarrow."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from jaxdl.data.formats.arrow import columns_from_arrow
from jaxdl.data.formats.source import existing, missing_extra
from jaxdl.data.schema import nearest
from jaxdl.data.table import Table


def read_parquet(path: str | os.PathLike[str], *, columns: Sequence[str] | None = None) -> Table:
    """A table of a Parquet file; `columns` reads only these.

    Raises ValueError when the file is damaged or no Parquet.
    """
    found = existing(path)
    if found.stat().st_size == 0:
        raise ValueError(f"{found} is empty: 0 bytes")
    try:
        import pyarrow as pa
        import pyarrow.parquet
    except ImportError as error:
        raise missing_extra("reading Parquet", "pyarrow") from error
    try:
        schema = pa.parquet.read_schema(found)
        for name in columns or ():
            if name not in schema.names:
                raise ValueError(f"{found.name} has no column {name!r}{nearest(name, schema.names)}")
        # Text is stored as a dictionary mostly: taking it as it is saves spelling it out and counting words again.
        words = [field.name for field in schema if pa.types.is_string(field.type)]
        with pa.parquet.ParquetFile(found, read_dictionary=words) as file:
            read = file.read(columns=None if columns is None else list(columns), use_threads=pa.cpu_count() > 1)
    except (pa.ArrowInvalid, OSError) as error:
        raise ValueError(f"{found} is no Parquet file, or a damaged one: {error}") from error
    if len(read) == 0:
        raise ValueError(f"{Path(found).name} has columns ({', '.join(read.column_names[:6])}) but no rows")
    return Table(columns_from_arrow(read, found.name), found.name)
