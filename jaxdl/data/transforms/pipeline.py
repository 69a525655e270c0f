"""Several transforms as one, saved as JSON beside the model."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from jaxdl.data.formats.source import existing
from jaxdl.data.table import Table
from jaxdl.data.transforms.records import Fitted, Transform, fitted_from_dict

Built = TypeVar("Built")

_FORMAT = "jaxdl transforms"
_VERSION = 1


@dataclass(frozen=True)
class Pipeline:
    """Transforms in order; each is fitted to what the ones before it made of the table.

    >>> from jaxdl.data.transforms import Impute, Standardise
    >>> table = Table.from_columns({"age": [20, None, 40]})
    >>> Pipeline([Impute(strategy="mean"), Standardise()]).fit(table).apply(table)["age"].round(2).tolist()
    [-1.2200000286102295, 0.0, 1.2200000286102295]
    """

    steps: Sequence[Transform]

    def fit(self, table: Table) -> FittedPipeline:
        """Fits all steps."""
        fitted: list[Fitted] = []
        for step in self.steps:
            fitted.append(step.fit(table))
            table = fitted[-1].apply(table)
        return FittedPipeline(tuple(fitted))


@dataclass(frozen=True)
class FittedPipeline:
    """Fitted transforms in order."""

    steps: tuple[Fitted, ...]

    def apply(self, table: Table, *, keep_rows: bool = False) -> Table:
        """The transformed table.

        Keep_rows=True leaves out what would drop rows; an inner Join then acts as a left one.
        """
        for step in self.steps:
            table = step.apply(table, keep_rows=keep_rows)
        return table

    def to_dict(self) -> dict[str, Any]:
        """The pipeline as JSON takes it."""
        return {"format": _FORMAT, "version": _VERSION, "steps": [step.to_dict() for step in self.steps]}

    @classmethod
    def from_dict(cls, saved: Mapping[str, Any]) -> FittedPipeline:
        """The pipeline that `to_dict` wrote."""
        if saved.get("format") != _FORMAT or saved.get("version") != _VERSION:
            raise ValueError(
                f"this is no {_FORMAT} of version {_VERSION}: it says {saved.get('format')!r}, {saved.get('version')!r}"
            )
        return cls(tuple(fitted_from_dict(step) for step in saved["steps"]))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the pipeline as JSON, all or nothing."""
        write_json(path, self.to_dict())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> FittedPipeline:
        """Reads what `save` wrote; every number comes back exactly."""
        return load_json(path, cls.from_dict)


def write_json(path: str | os.PathLike[str], content: Mapping[str, Any]) -> None:
    """Writes JSON through a temporary file beside it, so that no reader ever sees a part."""
    target = Path(path)
    text = json.dumps(content, ensure_ascii=False, allow_nan=False, indent=1)
    partial = target.with_name(f"{target.name}.{os.getpid()}.part")
    partial.write_text(text, "utf-8")
    partial.replace(target)


def load_json(path: str | os.PathLike[str], build: Callable[[Mapping[str, Any]], Built]) -> Built:
    """Reads JSON and builds the record from it; what is wrong with either gets the file's name."""
    found = existing(path)
    try:
        saved = json.loads(found.read_text("utf-8"))
        if not isinstance(saved, dict):
            raise ValueError("it holds no JSON object")
        return build(saved)
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{found} cannot be loaded: {error}") from error
