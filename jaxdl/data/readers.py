"""`read`: any data file or folder to a Table, the format told by its name."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from jaxdl.data.formats.csv import read_csv
from jaxdl.data.formats.idx import read_idx
from jaxdl.data.formats.images import IMAGE_SUFFIXES, read_images, read_lst, read_masks
from jaxdl.data.formats.jsonl import read_jsonl
from jaxdl.data.formats.libsvm import read_libsvm
from jaxdl.data.formats.npy import read_npy, read_npz
from jaxdl.data.formats.parquet import read_parquet
from jaxdl.data.formats.source import existing
from jaxdl.data.schema import check_choice, nearest
from jaxdl.data.table import Table

READERS: dict[str, Callable[..., Table]] = {
    "csv": read_csv,
    "parquet": read_parquet,
    "jsonl": read_jsonl,
    "libsvm": read_libsvm,
    "npy": read_npy,
    "npz": read_npz,
    "idx": read_idx,
    "images": read_images,
    "masks": read_masks,
    "lst": read_lst,
}

_SUFFIXES = {
    ".csv": "csv",
    ".tsv": "csv",
    ".tab": "csv",
    ".txt": "csv",
    ".data": "csv",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".libsvm": "libsvm",
    ".svm": "libsvm",
    ".svmlight": "libsvm",
    ".npy": "npy",
    ".npz": "npz",
    ".idx": "idx",
    ".zip": "images",
    ".lst": "lst",
}


def format_of(path: str | os.PathLike[str]) -> str:
    """The name in READERS of this file's format, told by its suffix (before .gz); a folder's, by what lies in it."""
    found = existing(path)
    if found.is_dir():
        inside = sorted(item for item in found.iterdir() if not item.name.startswith((".", "_")))
        if any(item.is_dir() or item.suffix.lower() in IMAGE_SUFFIXES for item in inside):
            return "images"
        formats = {format_of(item) for item in inside}
        if len(formats) != 1:
            raise ValueError(
                f"the folder {found} holds {f'files of several formats: {sorted(formats)}' if formats else 'nothing'}; "
                "all its files must be of one"
            )
        return formats.pop()
    name = found.name.lower().removesuffix(".gz")
    if name.endswith(("-ubyte", "-idx1-int", "-idx3-int")) or "-idx" in name:
        return "idx"
    suffix = Path(name).suffix
    if suffix not in _SUFFIXES:
        raise ValueError(
            f"the format of {found} cannot be told from its name (suffix {suffix!r}); say format= one of "
            f"{', '.join(READERS)}"
        )
    return _SUFFIXES[suffix]


def read(
    path: str | os.PathLike[str] | Sequence[str | os.PathLike[str]], *, format: str | None = None, **options: Any
) -> Table:
    """A table of a file, of a folder of class folders of images, or of several files of one kind (list or folder).

    format: a name in READERS where the file's name does not tell. options: those of the format's reader (`read_csv`,
    `read_images` ...); an unknown one raises TypeError with the nearest. Several files must have the same columns;
    their rows follow each other.
    """
    if not isinstance(path, (str, os.PathLike)):
        if not path:
            raise ValueError("there is nothing to read: the list of paths is empty")
        return Table.concat([read(part, format=format, **options) for part in path])
    if format is not None:
        check_choice("format", format, tuple(READERS))
    chosen = format or format_of(path)
    reader = READERS[chosen]
    known = [name for name in inspect.signature(reader).parameters if name != "path"]
    for name in options:
        if name not in known:
            raise TypeError(f"the reader of {chosen} files has no option {name!r}{nearest(name, known)}")
    found = existing(path)
    if found.is_dir() and chosen not in ("images", "masks"):
        parts = sorted(item for item in found.iterdir() if item.is_file() and not item.name.startswith((".", "_")))
        if not parts:
            raise ValueError(f"the folder {found} holds no files to read")
        return Table.concat([reader(part, **options) for part in parts], source=found.name)
    return reader(found, **options)
