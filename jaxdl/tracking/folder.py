"""A run is a folder: configuration, metrics line by line, checkpoints, report and plots, all readable without jaxdl.

config.json     what was asked for            metrics.jsonl   one record a line
program.json    how it was run                results.json    what the report shows of the end
run.json        status, times, best           checkpoints/  plots/  report.html
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import os
import socket
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

STATUSES: tuple[str, ...] = ("running", "finished", "stopped", "interrupted", "failed")
METRICS = "metrics.jsonl"
_KNOWN = ("run.json", "config.json", METRICS)
_TEXT_KEYS = ("kind", "text")  # in these a string "nan" stays a string
_NUMBERS = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}


class RunFolder:
    """The folder of one run, for writing while it trains and for reading ever after.

    Make one with `RunFolder.create(path)` or `RunFolder.open(path)`. Records are appended to metrics.jsonl and flushed
    line by line; a line that a killed process left half written is ignored when reading and removed before writing.

    Attributes:
        path: the folder.
    """

    def __init__(self, path: str | os.PathLike[str]):
        self.path = Path(path)
        self._lines: IO[str] | None = None

    @classmethod
    def create(cls, path: str | os.PathLike[str]) -> RunFolder:
        """The folder at `path` (`~` is the home folder), made with its parents when missing; an existing run in it is
        left as it is.

        Raises:
            FileExistsError: `path` is a file.
            PermissionError: the folder may not be made or written.
        """
        folder = Path(path).expanduser()
        if folder.exists() and not folder.is_dir():
            raise FileExistsError(f"{folder} is a file; a run needs a folder: give another path")
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except NotADirectoryError as error:
            raise FileExistsError(f"a parent of {folder} is a file; a run needs a folder: give another path") from error
        except PermissionError as error:
            raise PermissionError(
                f"the run's folder {folder} may not be made: {error.strerror}; give another"
            ) from error
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(f"the run's folder {folder} may not be written; give another")
        return cls(folder)

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> RunFolder:
        """The run that is already at `path`.

        Raises:
            FileNotFoundError: there is no folder, or no run in it (it then names the runs below or beside it).
        """
        folder = Path(path).expanduser()
        if folder.is_dir() and any((folder / name).exists() for name in _KNOWN):
            return cls(folder)
        place = folder if folder.is_dir() else folder.parent
        near = sorted(p.name for p in place.iterdir() if is_run(p)) if place.is_dir() else []
        found = f"; runs in {place}: {', '.join(near[:8])}" if near else ""
        if folder.is_dir():
            raise FileNotFoundError(f"{folder} holds no run (none of {', '.join(_KNOWN)}){found}")
        raise FileNotFoundError(f"there is no folder {folder}{found}")

    @staticmethod
    def watch(path: str | os.PathLike[str]) -> RunFolder:
        """The folder of a run that another process writes: it is read here, and what is to be written is left to it."""
        return _Watched(Path(path).expanduser())

    @property
    def checkpoints(self) -> Path:
        """Where the checkpoints are."""
        return self.path / "checkpoints"

    @property
    def plots(self) -> Path:
        """Where the PNG plots are."""
        return self.path / "plots"

    @property
    def report(self) -> Path:
        """The report.html."""
        return self.path / "report.html"

    def write_json(self, name: str, content: Mapping[str, Any]) -> Path:
        """Writes `content` as the file `name`, whole or not at all (temporary file, then rename).

        Numpy and jax arrays become lists, paths strings, dataclasses mappings, and a number that JSON lacks
        {"$float": "nan"}, which `read_json` turns back.

        Raises:
            TypeError: a value that JSON cannot hold, with its place.
        """
        text = json.dumps(_plain(content, name, document=True), indent=2, ensure_ascii=False, allow_nan=False)
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        _replace(path, text + "\n")
        return path

    def read_json(self, name: str) -> dict[str, Any]:
        """The content of the file `name`.

        Raises:
            FileNotFoundError: no such file in this run.
            ValueError: the file is no JSON, with line and column.
        """
        path = self.path / name
        try:
            text = path.read_text(encoding="utf-8")
        except FileNotFoundError as error:
            raise FileNotFoundError(f"the run {self.path} has no {name}") from error
        try:
            return json.loads(text, object_hook=_restore)
        except json.JSONDecodeError as error:
            raise ValueError(f"{path}, line {error.lineno}, column {error.colno}: not JSON ({error.msg})") from error

    def has(self, name: str) -> bool:
        """Whether the file `name` exists."""
        return (self.path / name).is_file()

    def append(self, record: Mapping[str, Any]) -> None:
        """Adds one record as a line of metrics.jsonl and flushes it. NaN and infinities are written as strings."""
        text = json.dumps(_plain(record, METRICS, document=False), ensure_ascii=False, allow_nan=False)
        if self._lines is None:
            self._lines = self._open_lines()
        self._lines.write(text + "\n")
        self._lines.flush()

    def records(self, kind: str | None = None) -> list[dict[str, Any]]:
        """The records, in order: all, or those of one kind ("train", "epoch", "note").

        Raises:
            ValueError: a line that is no record, with its number (a half-written last line is ignored).
        """
        return [record for record in self._read() if kind is None or record.get("kind") == kind]

    def rewind(self, step: int) -> int:
        """Drops the records after `step` (their "step" is larger), as a resume does; returns how many."""
        self.close()
        records = list(self._read())
        kept = [record for record in records if record.get("step", 0) <= step]
        path = self.path / METRICS
        if path.exists():
            lines = [json.dumps(_plain(record, METRICS, document=False), ensure_ascii=False) for record in kept]
            _replace(path, "".join(line + "\n" for line in lines))
        return len(records) - len(kept)

    def set_status(self, status: str, **fields: Any) -> None:
        """Writes run.json: the status, when it started and this process; `fields` such as epochs, step, seconds, best
        ({"metric", "value", "epoch", "step"}) are added to those written before."""
        if status not in STATUSES:
            raise ValueError(f"the status of a run is one of {', '.join(STATUSES)}; not {status!r}")
        content = self.read_json("run.json") if self.has("run.json") else {"started": time.time()}
        content |= {"status": status, "updated": time.time(), "pid": os.getpid(), "host": socket.gethostname()}
        self.write_json("run.json", content | fields)

    def close(self) -> None:
        """Closes metrics.jsonl; a later `append` opens it again."""
        if self._lines is not None:
            self._lines.close()
            self._lines = None

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _open_lines(self) -> IO[str]:
        path = self.path / METRICS
        if path.exists():
            with path.open("rb+") as file:
                content = file.read()
                file.truncate(content.rfind(b"\n") + 1)
        return path.open("a", encoding="utf-8")

    def _read(self) -> Iterator[dict[str, Any]]:
        path = self.path / METRICS
        if not path.exists():
            return
        for number, line in enumerate(path.read_bytes().split(b"\n")[:-1], start=1):
            try:
                record = json.loads(line)
            except ValueError as error:
                raise ValueError(f"{path}, line {number}: not a JSON record ({error})") from error
            if not isinstance(record, dict):
                raise ValueError(f"{path}, line {number}: a record is an object, this is a {type(record).__name__}")
            yield {
                k: v if k in _TEXT_KEYS else _NUMBERS.get(v, v) if isinstance(v, str) else v for k, v in record.items()
            }


class _Watched(RunFolder):
    """The folder of a run for all processes of a training but the one that writes it."""

    def write_json(self, name: str, content: Mapping[str, Any]) -> Path:
        """Left to the process that writes."""
        return self.path / name

    def append(self, record: Mapping[str, Any]) -> None:
        """Left to the process that writes."""

    def rewind(self, step: int) -> int:
        """Left to the process that writes."""
        return 0

    def set_status(self, status: str, **fields: Any) -> None:
        """Left to the process that writes."""


def is_run(path: Path) -> bool:
    """Whether a folder holds a run."""
    return path.is_dir() and any((path / name).is_file() for name in _KNOWN)


def _replace(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()
        raise


def _plain(value: Any, place: str, *, document: bool) -> Any:
    """`value` as what JSON holds; `place` says where, for the sentence."""
    if value is None or isinstance(value, str | bool):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        if math.isfinite(value):
            return float(value)
        text = "nan" if math.isnan(value) else "inf" if value > 0 else "-inf"
        return {"$float": text} if document else text
    if isinstance(value, Mapping):
        return {str(k): _plain(v, f"{place}[{k!r}]", document=document) for k, v in value.items()}
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if hasattr(value, "tolist"):  # numpy and jax arrays and scalars
        return _plain(value.tolist(), place, document=document)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        return _plain(fields, place, document=document)
    if isinstance(value, list | tuple | set | frozenset):
        items = sorted(value, key=repr) if isinstance(value, set | frozenset) else value
        return [_plain(item, f"{place}[{i}]", document=document) for i, item in enumerate(items)]
    raise TypeError(
        f"{place}: a {type(value).__name__} cannot be written as JSON; give numbers, strings, lists or mappings"
    )


def _restore(content: dict[str, Any]) -> Any:
    return _NUMBERS[content["$float"]] if content.keys() == {"$float"} and content["$float"] in _NUMBERS else content
