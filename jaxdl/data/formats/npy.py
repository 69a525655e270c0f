"""NumPy's own files: .npy (memory-mapped on request) and .npz."""

from __future__ import annotations

import os
import zipfile

import numpy as np

from jaxdl.data.formats.source import existing
from jaxdl.data.table import Table, column_from


def read_npy(path: str | os.PathLike[str], *, mapped: bool = False, name: str = "x") -> Table:
    """A table with one column, `name`. mapped=True leaves the content on disk and reads what is touched."""
    found = existing(path)
    if found.stat().st_size == 0:
        raise ValueError(f"{found} is empty: 0 bytes")
    try:
        array = np.load(found, mmap_mode="r" if mapped else None, allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise ValueError(f"{found} is no .npy file of numbers, or a cut-off one: {error}") from error
    if isinstance(array, np.lib.npyio.NpzFile):
        array.close()
        raise ValueError(f"{found} is a .npz archive under another name; read it with format='npz'")
    return Table({name: column_from(array, name, found.name)}, found.name)


def read_npz(path: str | os.PathLike[str]) -> Table:
    """A table with one column for each array of the archive; all must have the same first dimension."""
    found = existing(path)
    if found.stat().st_size == 0:
        raise ValueError(f"{found} is empty: 0 bytes")
    try:
        with np.load(found, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (ValueError, EOFError, OSError, zipfile.BadZipFile, AttributeError, TypeError) as error:
        raise ValueError(f"{found} is no .npz archive of arrays of numbers, or a damaged one: {error}") from error
    return Table.from_columns(arrays, source=found.name)
