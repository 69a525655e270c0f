"""The recipe of a run: how a file became arrays, kept beside the checkpoints, so that further data are read alike."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from jaxdl.data import available, describe, load
from jaxdl.data.dataset import Dataset
from jaxdl.data.labels import encode_labels, encode_weights
from jaxdl.data.readers import READERS, format_of, read
from jaxdl.data.table import Table
from jaxdl.data.transforms import FittedFeatures
from jaxdl.tracking import RunFolder

FILE = "recipe.json"
Part = Literal["train", "test"]


@dataclass(frozen=True)
class Recipe:
    """Everything but the arrays that a run of the command line was made from.

    Attributes:
        label: the column that is predicted.
        weight: the column of the examples' weights, or None.
        inputs: the columns that become x, in order.
        features: `FittedFeatures` of these columns as a mapping; None where x is one array column, such as images.
        image_size: height and width that images are resized to; image_mode "RGB" or "L".
        classes: the names of the classes, or None where a number is predicted.
        center, scale: a number is learned as (y - center) / scale.
        model, model_options: what `create_model` is given.
        data, validation: where the data were: absolute paths or the name of a shipped set; or, to hold out, a fraction.
        skip_bad_rows: whether rows that cannot be read are left out.
        training: the numbers of the training, as typed.
    """

    label: str
    weight: str | None
    inputs: tuple[str, ...]
    features: Mapping[str, Any] | None
    image_size: tuple[int, int] | None
    image_mode: Literal["RGB", "L"] | None
    classes: tuple[str, ...] | None
    center: float
    scale: float
    model: str
    model_options: Mapping[str, Any]
    data: str
    validation: str
    skip_bad_rows: bool
    training: Mapping[str, Any]

    def save(self, folder: RunFolder) -> None:
        """Write recipe.json."""
        folder.write_json(FILE, asdict(self))

    @classmethod
    def load(cls, folder: RunFolder) -> Recipe:
        """Read recipe.json.

        Raises:
            FileNotFoundError: the run was not made by `jaxdl train`.
        """
        if not folder.has(FILE):
            raise FileNotFoundError(
                f"the run {folder.path} has no {FILE}: it was not made by jaxdl train, so how its data became arrays "
                "is not known; use jaxdl.load_run in Python"
            )
        content = folder.read_json(FILE)
        for name in ("inputs", "image_size", "classes"):
            content[name] = None if content[name] is None else tuple(content[name])
        content["model_options"] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in content["model_options"].items()
        }
        return cls(**content)

    def read(self, place: str, part: Part = "test", *, every_row: bool = False) -> Table:
        """The table at `place`, read as the training data were: a column keeps its kind where a guess would differ.

        every_row: a row that cannot be read raises, whatever was asked for in training: predictions stand beside rows.
        """
        if not every_row:
            return self._read(place, part, self.skip_bad_rows)
        try:
            return self._read(place, part, False)
        except ValueError as problem:
            raise ValueError(re.sub(r",? or leave such rows out\b.*?--skip-bad-rows\)?", "", str(problem))) from problem

    def _read(self, place: str, part: Part, skip: bool) -> Table:
        table = read_table(place, part, self.image_size, self.image_mode, skip)
        kinds = dict(self.features["inputs"]) if self.features else {}
        if self.label in table and self.classes is not None and not _are_digits(self.classes):
            kinds[self.label] = "text"
        guessed = {name: table.column(name).kind for name in kinds if name in table}
        wrong = {name: kinds[name] for name, kind in guessed.items() if kind != kinds[name] and kinds[name] != "array"}
        if not wrong:
            return table
        return read_table(place, part, self.image_size, self.image_mode, skip, wrong)

    def x(self, table: Table) -> np.ndarray:
        """The inputs of the model: float32 [n, d], or the array column as it is.

        Raises:
            ValueError: a column is missing or of another kind.
        """
        if self.features is not None:
            try:
                return FittedFeatures.from_dict(self.features).apply(table)
            except ValueError as problem:
                raise ValueError(_as_typed(str(problem))) from problem
        name = self.inputs[0]
        if name not in table:
            raise ValueError(
                f"{table.source} has no column {name!r}, from which the model learned; it has {', '.join(table.names)}"
            )
        return table.column(name).values

    def dataset(self, table: Table) -> Dataset:
        """x, y and weight of labelled data."""
        if self.label not in table:
            raise ValueError(
                f"{table.source} has no column {self.label!r}, the label of this run; it has {', '.join(table.names)}"
            )
        goal: Literal["number", "class"] = "number" if self.classes is None else "class"
        y, _ = encode_labels(table.column(self.label), self.label, table.source, goal, self.classes)
        if self.classes is None:
            y = ((y - self.center) / self.scale).astype(np.float32)
        columns = {"x": self.x(table), "y": y}
        if self.weight is not None:
            if self.weight not in table:
                raise ValueError(f"{table.source} has no column {self.weight!r}, the weight of this run")
            columns["weight"] = encode_weights(table.column(self.weight), self.weight, table.source)
        return Dataset(columns, self.classes, table.source)


def open_run(path: str) -> RunFolder:
    """The run at `path`, also one that was killed before it had written more than its recipe.

    Raises:
        FileNotFoundError: there is none; runs nearby are named.
    """
    return RunFolder(path) if (Path(path) / FILE).is_file() else RunFolder.open(path)


def read_table(
    place: str,
    part: Part = "train",
    image_size: tuple[int, int] | None = None,
    image_mode: str | None = None,
    skip_bad_rows: bool = False,
    types: Mapping[str, str] | None = None,
) -> Table:
    """The table at a path, or that part of a shipped set. `types` says what columns hold: {"zip": "text"}.

    Raises:
        FileNotFoundError: there is neither a file nor a set of that name.
    """
    if not Path(place).exists() and place in available():
        return _shipped(place, part)
    if not Path(place).exists() and "/" not in place and "." not in place:
        raise FileNotFoundError(
            f"there is no file or folder {place!r}, and no set of that name ships with jaxdl ({', '.join(available())})"
        )
    wanted: dict[str, Any] = {
        "size": image_size,
        "mode": image_mode,
        "on_error": "skip" if skip_bad_rows else None,
        "types": types,
    }
    known = inspect.signature(READERS[format_of(place)]).parameters
    options = {name: value for name, value in wanted.items() if value is not None and name in known}
    try:
        return read(place, **options)
    except ValueError as problem:
        raise ValueError(_as_typed(str(problem))) from problem


# Advice for Python that has no option on the command line, and what is left of it there.
_PYTHON_ONLY = (
    (
        r", which types=\{.*?\} asks for\. Correct it, add it to missing=, or",
        ", which it was in training. Correct it, or",
    ),
    (r", say that it means no value \(missing=.*?\), keep the column as text \(types=\{.*?\}\), or", ", or"),
    (r"; declare it when reading: types=\{.*?\}", ""),
    (r"declare it in both, as in types=\{.*?\}", "make it the same in both"),
    (r"size=\((\d+), (\d+)\)", r"--image-size \1 \2"),
)


def _as_typed(sentence: str) -> str:
    """A reader's advice with the options of the command line in the place of Python's."""
    sentence = sentence.replace("on_error='skip'", "--skip-bad-rows")
    for pattern, words in _PYTHON_ONLY:
        sentence = re.sub(pattern, words, sentence)
    return sentence


def left_out(table: Table) -> str:
    """Such as ", 2 bad rows left out"; empty when none was."""
    count = table.skipped.count
    return f", {count:,} bad row{'' if count == 1 else 's'} left out" if count else ""


def _are_digits(classes: tuple[str, ...]) -> bool:
    """Whether the labels may have been whole numbers, whose classes are called by their digits."""
    return all(name.lstrip("-").isdigit() for name in classes) or set(classes) <= {"false", "true"}


def _shipped(name: str, part: Part) -> Table:
    dataset = load(name)[0 if part == "train" else 1]
    y = dataset["y"] if dataset.classes is None else np.array(dataset.classes, object)[dataset["y"]]
    features = describe(name).features
    x = dataset["x"]
    columns: dict[str, Any] = dict(zip(features, x.T, strict=True)) if x.ndim == 2 else {"x": x}
    return Table.from_columns({**columns, "y": y}, source=dataset.name)
