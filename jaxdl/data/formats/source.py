"""Opening a data file: missing, empty, compressed and wrongly encoded files each get their sentence."""

from __future__ import annotations

import codecs
import difflib
import gzip
import mmap
import os
import zlib
from pathlib import Path

BytesLike = bytes | mmap.mmap

_SIGNATURES = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


def existing(path: str | os.PathLike[str]) -> Path:
    """The path, or FileNotFoundError naming the nearest file in the nearest folder that exists."""
    found = Path(path).expanduser()
    if found.exists():
        return found
    folder = found.parent
    if not folder.is_dir():
        while not folder.exists() and folder != folder.parent:
            folder = folder.parent
        raise FileNotFoundError(f"there is no file {found}: of its folders only {folder.resolve()} exists")
    there = sorted(item.name for item in folder.iterdir())
    close = difflib.get_close_matches(found.name, there, n=1, cutoff=0.5)
    hint = (
        f"did you mean {folder / close[0]}?"
        if close
        else f"the folder {folder.resolve()} holds {there[:8] or 'nothing'}"
    )
    raise FileNotFoundError(f"there is no file {found}; {hint}")


def read_bytes(path: str | os.PathLike[str]) -> BytesLike:
    """The content of a file: unpacked when it is gzip (told by its first bytes), else mapped into memory."""
    found = existing(path)
    if found.is_dir():
        raise IsADirectoryError(f"{found} is a folder; a file was expected here")
    with found.open("rb") as stream:
        if os.fstat(stream.fileno()).st_size == 0:
            raise ValueError(f"{found} is empty: 0 bytes")
        if stream.read(2) != b"\x1f\x8b":
            return mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
        stream.seek(0)
        try:
            content = gzip.decompress(stream.read())
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise ValueError(f"{found} is a damaged or cut-off gzip file: {error}") from error
    if not content:
        raise ValueError(f"{found} is empty: it unpacks to 0 bytes")
    return content


def decode(content: bytes, path: Path, encoding: str) -> str:
    """The text of these bytes; what does not decode raises ValueError with line and byte."""
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise ValueError(
            f"{path.name}, line {line}: byte 0x{content[error.start]:02x} is no {encoding}; say which encoding the "
            "file has, "
            "as in encoding='latin-1'"
        ) from error
    except LookupError as error:
        raise ValueError(
            f"encoding {encoding!r} is unknown to Python; usual ones are utf-8, latin-1, cp1252"
        ) from error


def read_utf8(path: str | os.PathLike[str], encoding: str = "utf-8") -> BytesLike:
    """The content of a text file as UTF-8 without byte-order mark, whatever encoding it had.

    UTF-16 is told by its mark.
    """
    content = read_bytes(path)
    for signature, marked in _SIGNATURES.items():
        if content[: len(signature)] == signature:
            if marked == "utf-8-sig":
                return content[len(signature) :]
            encoding = marked
            break
    if codecs_name(encoding) == "utf-8":
        return content
    return decode(content[:], Path(path), encoding).encode()


def codecs_name(encoding: str) -> str:
    """The canonical name of an encoding, or the given one where Python knows none."""
    try:
        return codecs.lookup(encoding).name
    except LookupError:
        return encoding


def missing_extra(what: str, package: str) -> ImportError:
    """The sentence for a package of the data extra that is not installed."""
    return ImportError(f"{what} needs {package}: pip install 'jaxdl[data]'")
