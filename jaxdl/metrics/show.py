"""A confusion matrix for people: one printable table and one plot."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np


def class_names(classes: Sequence[str] | None, count: int) -> list[str]:
    """The names of `count` classes: those given, or their ids."""
    if classes is None:
        return [str(i) for i in range(count)]
    names = [str(name) for name in classes]
    if len(names) != count:
        raise ValueError(f"there are {count} classes but {len(names)} names: {', '.join(names[:10])}")
    return names


def confusion_table(counts: np.ndarray, *, classes: Sequence[str] | None = None, invalid: float = 0.0) -> str:
    """Rows are true classes, columns predicted ones; then total, share of all, precision, recall and F1 of each row's
    class; the last rows give the totals and shares of the columns. Undefined is "nan"."""
    counts = square(counts)
    names = class_names(classes, len(counts))
    true, predicted, right, everything = counts.sum(1), counts.sum(0), np.diag(counts), counts.sum()
    with np.errstate(invalid="ignore", divide="ignore"):
        precision, recall, f1 = right / predicted, right / true, 2 * right / (true + predicted)
        accuracy = right.sum() / everything
        shares = [true / everything, predicted / everything]
    rows = [["true \\ predicted", *names, "total", "share", "precision", "recall", "f1"]]
    for i, name in enumerate(names):
        numbers = [number(value) for value in counts[i]]
        scores = [f"{value:.4f}" for value in (precision[i], recall[i], f1[i])]
        rows.append([name, *numbers, number(true[i]), f"{100 * shares[0][i]:.1f} %", *scores])
    rows.append(["total", *(number(value) for value in predicted), number(everything), "", "", "", ""])
    rows.append(["share", *(f"{100 * value:.1f} %" for value in shares[1]), "", "", "", "", ""])
    widths = [max(len(row[j]) for row in rows) for j in range(len(rows[0]))]
    lines = [
        "  ".join(
            cell.ljust(width) if j == 0 else cell.rjust(width)
            for j, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
    rule = "-" * len(lines[0])
    lines = [lines[0], rule, *lines[1:-2], rule, *lines[-2:]]
    f1_present = f1[(true + predicted) > 0]
    macro = f1_present.mean() if f1_present.size else float("nan")
    lines.append(f"accuracy {accuracy:.4f}, macro F1 {macro:.4f} over {f1_present.size} classes present")
    if invalid:
        lines.append(f"left out: {number(invalid)} with a class id out of range or a NaN score")
    return "\n".join(line.rstrip() for line in lines)


def confusion_plot(
    counts: np.ndarray, *, classes: Sequence[str] | None = None, normalize: str | None = None, title: str = ""
) -> Any:
    """The matrix as a matplotlib Figure: colour by row share (or as `normalize` says), text by value."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("plotting a confusion matrix needs matplotlib: pip install 'jaxdl[plot]'") from error
    counts = square(counts)
    names = class_names(classes, len(counts))
    shares = shares_of(counts, normalize or "true")
    size = max(4.0, 1.6 + 0.46 * len(names))
    figure = Figure(figsize=(size + 0.8, size), layout="constrained")
    axes = figure.add_subplot()
    image = axes.imshow(shares, cmap="Blues", vmin=0.0, vmax=1.0 if normalize != "all" else None)
    figure.colorbar(image, ax=axes, fraction=0.046, label=f"share of {normalize or 'true'}")
    places = np.arange(len(names))
    axes.set_xticks(
        places,
        names,
        rotation=45 if max(map(len, names)) > 3 else 0,
        ha="right" if max(map(len, names)) > 3 else "center",
    )
    axes.set_yticks(places, names)
    axes.set(xlabel="predicted class", ylabel="true class", title=title)
    if len(names) <= 30:
        dark = 0.6 * np.nanmax(shares) if np.isfinite(shares).any() else 1.0
        for i, j in np.argwhere(counts > 0):
            text = number(counts[i, j]) if normalize is None else f"{shares[i, j]:.2f}"
            axes.text(
                j,
                i,
                text,
                ha="center",
                va="center",
                fontsize=9 if len(names) <= 12 else 7,
                color="white" if shares[i, j] > dark else "black",
            )
    return figure


def shares_of(counts: np.ndarray, normalize: str) -> np.ndarray:
    """Counts over their row ("true"), column ("predicted") or total ("all"); NaN where that is empty."""
    axis = {"true": 1, "predicted": 0, "all": None}[normalize]
    whole = np.broadcast_to(counts.sum(axis=axis, keepdims=True), counts.shape)
    return np.divide(counts, whole, out=np.full(counts.shape, np.nan), where=whole != 0)


def square(counts: np.ndarray) -> np.ndarray:
    """`counts` as float64 [classes, classes], or a sentence."""
    counts = np.asarray(counts, np.float64)
    if counts.ndim != 2 or counts.shape[0] != counts.shape[1]:
        raise ValueError(f"a confusion matrix is [classes, classes]; this one has shape {counts.shape}")
    return counts


def number(value: float) -> str:
    """Whole numbers without a point, others with up to six digits."""
    return str(int(value)) if np.isfinite(value) and value == int(value) else f"{value:.6g}"
