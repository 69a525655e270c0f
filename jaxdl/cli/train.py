"""`jaxdl train` and `jaxdl resume`."""

from __future__ import annotations

import ast
import difflib
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import jaxdl
from jaxdl.cli.recipe import Recipe, left_out, open_run, read_table
from jaxdl.cli.scoring import as_lines, build_task, measure
from jaxdl.data import available
from jaxdl.data.dataset import Dataset
from jaxdl.data.labels import encode_labels
from jaxdl.data.splits import train_validation_test_split
from jaxdl.data.table import Table
from jaxdl.data.transforms import tabular_features
from jaxdl.tracking import RunFolder

if TYPE_CHECKING:
    from jaxdl.cli.commands import Columns, Resume, Train

_USUAL_LABELS = ("y", "label")
_HELD_OUT = "0.2"
_GOOD_ENDS = ("finished", "early stopping", "max_seconds")


def train(options: Train) -> int:
    """Read, split, prepare, fit and measure; 0 when training came to its end, 1 when it was interrupted."""
    columns = options.columns
    table = read_table(options.data, "train", columns.image_size, None, columns.skip_bad_rows)
    label = _label(columns.label, table)
    goal = {"classes": "class"}.get(columns.goal, columns.goal)
    _, classes = encode_labels(table.column(label), label, table.source, goal)  # type: ignore[arg-type]
    if classes is not None and len(classes) < 2:
        raise ValueError(
            f"{table.source}: the label {label!r} is {classes[0]!r} in every row: there is nothing to learn"
        )
    inputs = _inputs(table, label, columns)
    image = table.column(inputs[0]).values if _is_images(table, inputs) else None
    recipe = Recipe(
        label=label,
        weight=columns.weight,
        inputs=inputs,
        features=None,
        image_size=columns.image_size if image is None else (int(image.shape[1]), int(image.shape[2])),
        image_mode=None if image is None else "L" if image.shape[3] == 1 else "RGB",
        classes=classes,
        center=0.0,
        scale=1.0,
        model=("mlp" if image is None else "convnet") if options.network.model == "auto" else options.network.model,
        model_options=_model_options(options.network.model_options),
        data=_place(options.data),
        validation=_validation(options.validation, options.data),
        skip_bad_rows=columns.skip_bad_rows,
        training=asdict(options.training),
    )
    training, validation = _parts(recipe, table)
    recipe = _fitted(recipe, training)
    examples = recipe.dataset(training)
    held_out = None if validation is None else recipe.dataset(validation)
    build_task(recipe)  # a wrong model option is told before there is a folder
    folder = _new_folder(options.output, options.data, recipe.model)
    recipe.save(folder)
    if not options.quiet:
        _introduce(recipe, table, examples, held_out)
    try:
        return _fit(recipe, folder, examples, held_out, options.quiet)
    except BaseException:
        if not folder.has("config.json"):  # nothing was begun: leave no empty run behind
            shutil.rmtree(folder.path)
        raise


def resume(options: Resume) -> int:
    """Read the same data again and go on; 0 when training came to its end, 1 when it was interrupted again."""
    folder = open_run(options.run)
    recipe = Recipe.load(folder)
    recipe = replace(
        recipe,
        data=recipe.data if options.data is None else _place(options.data),
        validation=recipe.validation if options.validation is None else _validation(options.validation, recipe.data),
        training={**recipe.training, **({} if options.epochs is None else {"epochs": options.epochs})},
    )
    training, validation = _parts(recipe, recipe.read(recipe.data, "train"))
    held_out = None if validation is None else recipe.dataset(validation)
    return _fit(recipe, folder, recipe.dataset(training), held_out, options.quiet)


def _fit(recipe: Recipe, folder: RunFolder, training: Dataset, validation: Dataset | None, quiet: bool) -> int:
    settings = recipe.training
    run = jaxdl.fit(
        build_task(recipe),
        training,
        validation=validation,
        optimizer=_optimizer(settings),
        epochs=settings["epochs"],
        max_seconds=settings["max_seconds"],
        batch_size=settings["batch_size"] or _batch_size(len(training)),
        seed=settings["seed"],
        precision=settings["precision"],
        class_weight="balanced" if settings["balance"] and recipe.classes is not None else None,
        early_stopping=(
            jaxdl.EarlyStopping("validation:loss", patience=settings["patience"])
            if settings["patience"] and validation is not None
            else None
        ),
        checkpoint=jaxdl.Checkpoint(str(folder.path), best=None if validation is None else "validation:loss"),
        verbose=0 if quiet else 1,
    )
    interrupted = run.stopped == "interrupted"
    if not quiet:
        if validation is not None:
            print(as_lines(measure(run, validation, recipe), recipe, "validation"))
        print(f"report: {folder.report}")
        following = "resume" if interrupted else "predict"
        data = "" if interrupted else " DATA"
        print(f"{'go on with' if interrupted else 'next'}: jaxdl {following} {folder.path}{data}")
    return 0 if run.stopped in _GOOD_ENDS else 1


def _batch_size(examples: int) -> int:
    """The largest power of two from 16 to 128 that still gives 32 updates an epoch, where there is one."""
    return next((size for size in (128, 64, 32) if examples >= 32 * size), 16)


def _optimizer(settings: Mapping[str, Any]) -> Any:
    rate, decay = settings["learning_rate"], settings["weight_decay"]
    if settings["optimizer"] == "adamw":
        return jaxdl.optim.adamw(rate, weight_decay=1e-4 if decay is None else decay)
    if settings["optimizer"] == "sgd":
        return jaxdl.optim.sgd(rate, momentum=0.9, weight_decay=decay)
    return getattr(jaxdl.optim, settings["optimizer"])(rate, weight_decay=decay)


def _label(asked: str | None, table: Table) -> str:
    if asked is not None:
        if asked in table:
            return asked
        near = difflib.get_close_matches(asked, table.names, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"{table.source} has no column {asked!r}{hint} (its columns: {', '.join(table.names)})")
    for name in _USUAL_LABELS:
        if name in table:
            return name
    raise ValueError(
        f"say which column of {table.source} is to be predicted: --label NAME, one of {', '.join(table.names)}"
    )


def _inputs(table: Table, label: str, columns: Columns) -> tuple[str, ...]:
    """The columns to learn from: a lone array of images, or every column that is not spoken for."""
    for name in (*columns.ignore, *([] if columns.weight is None else [columns.weight])):
        table.column(name)  # raises, with the nearest name, for one that is not there
    spoken_for = {label, columns.weight, *columns.ignore}
    free = tuple(name for name in table.names if name not in spoken_for)
    images = tuple(name for name in free if table.column(name).values.ndim > 2)
    if len(images) > 1:
        raise ValueError(
            f"{table.source} has {len(images)} columns of arrays ({', '.join(images)}), and a model takes one: leave "
            f"the others out with --ignore {' '.join(images[1:])}"
        )
    if not (images or free):
        raise ValueError(f"{table.source} has no column left to learn from beside {label!r}")
    return images or free


def _is_images(table: Table, inputs: Sequence[str]) -> bool:
    values = table.column(inputs[0]).values
    return values.ndim == 4 and values.shape[3] in (1, 3, 4)


def _fitted(recipe: Recipe, training: Table) -> Recipe:
    """The recipe with what only the training rows may teach: the transforms, and the unit of a number to predict."""
    if training.column(recipe.inputs[0]).values.ndim < 3:
        features = tabular_features(training.select(recipe.inputs), unseen="ignore")
        recipe = replace(recipe, features=features.to_dict(), inputs=tuple(features.inputs))
    if recipe.classes is None:
        y, _ = encode_labels(training.column(recipe.label), recipe.label, training.source, "number")
        spread = float(np.std(y, dtype=np.float64))
        recipe = replace(recipe, center=float(np.mean(y, dtype=np.float64)), scale=spread if spread > 0 else 1.0)
    return recipe


def _parts(recipe: Recipe, table: Table) -> tuple[Table, Table | None]:
    """Rows to train on and to validate on: another file, the other part of a shipped set, or a fraction held out."""
    fraction = _fraction(recipe.validation)
    if fraction is None:
        return table, recipe.read(recipe.validation)
    if fraction == 0:
        return table, None
    labels = (
        None
        if recipe.classes is None
        else encode_labels(table.column(recipe.label), recipe.label, table.source, "class")[0]
    )
    split = train_validation_test_split(
        len(table), validation=fraction, test=0.0, stratify=labels, seed=recipe.training["seed"]
    )
    return table.rows(split.train), table.rows(split.validation)


def _validation(asked: str | None, data: str) -> str:
    """What is written into the recipe: a fraction as it is, a path as an absolute one."""
    if asked is None:
        return data if _is_shipped(data) else _HELD_OUT
    return asked if _fraction(asked) is not None else _place(asked)


def _fraction(text: str) -> float | None:
    """The fraction that `text` spells; None for a path. A number outside [0, 1) that is no file raises."""
    try:
        number = float(text)
    except ValueError:
        return None
    if Path(text).exists():
        return None
    if not 0 <= number < 1:
        raise ValueError(f"--validation {text} is neither a file nor a fraction: at least 0 and less than 1")
    return number


def _is_shipped(place: str) -> bool:
    return not Path(place).exists() and place in available()


def _place(path: str) -> str:
    return path if _is_shipped(path) else str(Path(path).resolve())


def _model_options(words: Sequence[str]) -> dict[str, Any]:
    """{"widths": (256, 64)} from "widths=256,64": numbers, True, False and lists of them; anything else is text."""
    options: dict[str, Any] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or not name.isidentifier():
            raise ValueError(f"--model-options {word!r}: write NAME=VALUE, such as width=64")
        try:
            options[name] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            options[name] = value
    return options


def _new_folder(asked: str | None, data: str, model: str) -> RunFolder:
    if asked is not None:
        path = Path(asked)
        if (path / "config.json").exists() or (path / "recipe.json").exists():
            raise ValueError(
                f"{path} holds a run already: go on with it (jaxdl resume {path}), or choose another --output"
            )
        return RunFolder.create(path)
    stem = re.sub(r"[^\w.+-]+", "-", Path(data).resolve().name.split(".")[0]) or "data"
    path, number = Path("runs") / f"{stem}-{model}", 1
    while path.exists():
        number += 1
        path = Path("runs") / f"{stem}-{model}-{number}"
    return RunFolder.create(path)


def _introduce(recipe: Recipe, table: Table, training: Dataset, validation: Dataset | None) -> None:
    shape = training["x"].shape[1:]
    inputs = f"{len(recipe.inputs)} columns" if len(shape) == 1 else f"images {' x '.join(map(str, shape))}"
    numbers = f" as {shape[0]:,} numbers" if len(shape) == 1 else ""
    print(f"data: {table.source}, {len(table):,} examples, {inputs}{numbers}{left_out(table)}")
    for note in (recipe.features or {}).get("notes", ()):
        print(f"  {note}")
    if recipe.classes is None:
        print(
            f"predicting: {recipe.label}, a number, mean {recipe.center:.4g}, deviation {recipe.scale:.4g}; losses are "
            "squared errors in deviations, so guessing the mean gives 1"
        )
    else:
        counts = np.bincount(training["y"], minlength=len(recipe.classes))
        named = [f"{name} ({count:,})" for name, count in zip(recipe.classes, counts, strict=True)]
        more = [f"and {len(named) - 10} more"] if len(named) > 10 else []
        print(f"predicting: {recipe.label}, {len(named)} classes: {', '.join(named[:10] + more)}")
    held = "no validation" if validation is None else f"validating on {len(validation):,}"
    print(f"training on {len(training):,} examples, {held}")
