"""`jaxdl evaluate` and `jaxdl predict`: a run's model on further data."""

from __future__ import annotations

import csv
import json
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

import jaxdl
from jaxdl import metrics
from jaxdl.cli.recipe import Recipe, left_out, open_run
from jaxdl.data.dataset import Dataset
from jaxdl.data.table import Table

if TYPE_CHECKING:
    from jaxdl.cli.commands import Evaluate, Predict

_SHOWN_ROWS = 10
_MOST_SHOWN_CLASSES = 40
_LOG_WIDTH = 120


def evaluate(options: Evaluate) -> int:
    """Print the measures of the run's model on labelled data."""
    folder = open_run(options.run)
    recipe = Recipe.load(folder)
    table = recipe.read(options.data)
    dataset = recipe.dataset(table)
    found = measure(jaxdl.load_run(folder.path, build_task(recipe), dataset), dataset, recipe)
    if options.json:
        print(json.dumps({name: _plain(value) for name, value in found.items()}))
    else:
        print(as_lines(found, recipe, dataset.name + left_out(table)))
    return 0


def predict(options: Predict) -> int:
    """Write one CSV row an example; in a terminal only the first, unless --output says where."""
    folder = open_run(options.run)
    recipe = Recipe.load(folder)
    table = recipe.read(options.data, every_row=True)
    dataset = Dataset({"x": recipe.x(table)}, name=table.source)
    outputs = jaxdl.load_run(folder.path, build_task(recipe), dataset).predict(dataset)
    rows = _rows(recipe, table, np.asarray(outputs))
    if options.output is not None:
        with Path(options.output).open("w", newline="", encoding="utf-8") as file:
            count = _write(file, rows)
        print(f"{count - 1:,} predictions in {options.output}")
    elif sys.stdout.isatty():
        _show(recipe, rows, len(table))
    else:
        _write(sys.stdout, rows)
    return 0


def build_task(recipe: Recipe) -> Any:
    """The task that the recipe describes."""
    outputs = 1 if recipe.classes is None else len(recipe.classes)
    model = jaxdl.create_model(recipe.model, num_classes=outputs, **recipe.model_options)
    return jaxdl.tasks.regression(model) if recipe.classes is None else jaxdl.tasks.classification(model)


def measure(run: Any, dataset: Dataset, recipe: Recipe) -> dict[str, Any]:
    """examples, loss and, for classes, accuracy, confusion_matrix [true, predicted] and for two of them auc (of the
    second); for a number rmse and mae in its own unit and r2."""
    outputs, y = np.asarray(run.predict(dataset)), dataset["y"]
    weight = dataset["weight"] if "weight" in dataset else np.ones(len(dataset), np.float32)
    found: dict[str, Any] = {"examples": len(dataset), "loss": run.evaluate(dataset)["loss"]}
    if recipe.classes is None:
        error = (outputs.reshape(y.shape).astype(np.float64) - y) * recipe.scale
        spread = (y.astype(np.float64) - np.average(y, weights=weight)) * recipe.scale
        squared = float(np.average(error**2, weights=weight))
        variance = float(np.average(spread**2, weights=weight))
        found["rmse"] = float(np.sqrt(squared))
        found["mae"] = float(np.average(np.abs(error), weights=weight))
        found["r2"] = 1 - squared / variance if variance else float("nan")
        return found
    found["accuracy"] = metrics.accuracy(outputs, y, weight=weight)
    if len(recipe.classes) == 2:
        found["auc"] = metrics.roc_auc(outputs[:, 1], y, weight=weight)
    found["confusion_matrix"] = metrics.confusion_matrix(outputs, y, num_classes=len(recipe.classes), weight=weight)
    return {name: np.asarray(value).tolist() for name, value in found.items()}


def as_lines(found: Mapping[str, Any], recipe: Recipe, name: str) -> str:
    """The measures for people: one line and, for a number of classes that fits a screen, how each fared."""
    numbers = [f"{key} {value:.4g}" for key, value in found.items() if key not in ("examples", "confusion_matrix")]
    lines = [f"{name}: {found['examples']:,} examples, {', '.join(numbers)}"]
    if recipe.classes is not None and len(recipe.classes) <= _MOST_SHOWN_CLASSES:
        counts = np.asarray(found["confusion_matrix"])
        table = metrics.confusion_table(counts, classes=recipe.classes)
        width = shutil.get_terminal_size().columns if sys.stdout.isatty() else _LOG_WIDTH
        if max(map(len, table.splitlines())) > width:
            table = _by_class(counts, recipe.classes)
        lines += ["", table, ""]
    return "\n".join(lines)


def _by_class(counts: np.ndarray, classes: Sequence[str]) -> str:
    """A narrow stand-in for a confusion matrix: recall and precision of each class, and what it is mostly taken for."""
    lines = [("class", "examples", "recall", "precision", "mostly taken for")]
    right = np.diag(counts)
    with np.errstate(invalid="ignore", divide="ignore"):
        recall, precision = right / counts.sum(1), right / counts.sum(0)
    for row, name in enumerate(classes):
        wrong = np.where(np.arange(len(classes)) == row, 0, counts[row])
        most = int(wrong.argmax())
        taken = f"{classes[most]} ({wrong[most]:,.0f})" if wrong[most] else "-"
        lines.append((name, f"{counts[row].sum():,.0f}", f"{recall[row]:.3f}", f"{precision[row]:.3f}", taken))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    texts = []
    for name, *numbers, taken in lines:
        padded = [number.rjust(width) for number, width in zip(numbers, widths[1:-1], strict=True)]
        texts.append("  ".join([name.ljust(widths[0]), *padded, taken]))
    return "\n".join(texts)


def _rows(recipe: Recipe, table: Table, outputs: np.ndarray) -> Iterator[list[Any]]:
    """The header, then one row an example."""
    paths = table["path"] if recipe.image_mode is not None and "path" in table else None
    first = [] if paths is None else ["path"]
    if recipe.classes is None:
        yield [*first, "prediction"]
        values = outputs.reshape(len(table)).astype(np.float64) * recipe.scale + recipe.center
        for row, value in enumerate(values):
            yield [*([] if paths is None else [paths[row]]), f"{value:.9g}"]
        return
    yield [*first, "prediction", *(f"probability:{name}" for name in recipe.classes)]
    for row, (best, shares) in enumerate(zip(outputs.argmax(axis=1), outputs, strict=True)):
        begin = [] if paths is None else [paths[row]]
        yield [*begin, recipe.classes[best], *(f"{share:.6g}" for share in shares)]


def _write(file: IO[str], rows: Iterator[list[Any]]) -> int:
    writer = csv.writer(file, lineterminator="\n")
    count = 0
    for row in rows:
        writer.writerow(row)
        count += 1
    return count


def _show(recipe: Recipe, rows: Iterator[list[Any]], total: int) -> None:
    """The first rows for people: of many classes only the likeliest two."""
    from rich.console import Console
    from rich.table import Table as Grid

    header = next(rows)
    before = header.index("prediction")
    likeliest = [] if recipe.classes is None else ["probability", "else", "probability"]
    grid = Grid(*header[:before], "prediction", *likeliest, box=None, padding=(0, 2, 0, 0))
    for _, row in zip(range(_SHOWN_ROWS), rows, strict=False):
        cells = row[: before + 1]
        if recipe.classes is not None:
            shares = np.array(row[before + 1 :], np.float64)
            first, second = np.argsort(-shares, kind="stable")[:2]
            cells += [f"{shares[first]:.4f}", recipe.classes[second], f"{shares[second]:.4f}"]
        grid.add_row(*cells)
    Console().print(grid)
    if total > _SHOWN_ROWS:
        print(f"... and {total - _SHOWN_ROWS:,} more: --output FILE writes them all")


def _plain(value: Any) -> Any:
    """JSON has no NaN: null stands for a measure that is undefined on these data."""
    return None if isinstance(value, float) and not np.isfinite(value) else value
