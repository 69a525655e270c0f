"""A confusion matrix for people: one printable table and one plot."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

# Of more classes the numbers, and then every name, can no longer be read.
_WRITTEN, _NAMED = 25, 40
_WHOLE = {"true": "the true class", "predicted": "the predicted class", "all": "all"}


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
    lines = aligned(rows)
    rule = "-" * max(map(len, lines))
    lines = [lines[0], rule, *lines[1:-2], rule, *lines[-2:]]
    f1_present = f1[(true + predicted) > 0]
    macro = f1_present.mean() if f1_present.size else float("nan")
    lines.append(f"accuracy {accuracy:.4f}, macro F1 {macro:.4f} over {f1_present.size} classes present")
    if invalid:
        lines.append(f"left out: {number(invalid)} with a class id out of range or a NaN score")
    return "\n".join(lines)


def confusion_plot(
    counts: np.ndarray, *, classes: Sequence[str] | None = None, normalize: str | None = None, title: str = ""
) -> Any:
    """The matrix as a matplotlib Figure: colour by row share (or as `normalize` says), numbers where they can be read.

    Blue is right (the diagonal), orange wrong. Up to 25 classes every number is written, up to 40 every name; of more
    the names are thinned.
    """
    counts = square(counts)
    names = class_names(classes, len(counts))
    count = len(names)
    shares = shares_of(counts, normalize or "true")
    longest = max(map(len, names))
    side = min(max(2.6, 0.52 * count + 0.4), 11.0) if count <= _WRITTEN else 8.0
    figure = blank_figure(
        (side + 1.7 + 0.05 * min(longest, 24), side + 0.9 + 0.05 * min(longest, 24)), "a confusion matrix"
    )
    # the layout for axes of fixed aspect: the other one puts the label of the rows outside a small figure
    figure.set_layout_engine("compressed")
    from matplotlib.colors import PowerNorm
    from matplotlib.ticker import PercentFormatter

    axes = figure.add_subplot()
    top = np.nanmax(shares, initial=0.0) if normalize == "all" else 1.0
    scale = PowerNorm(1.0 if count <= _WRITTEN else 0.5, vmin=0.0, vmax=top or 1.0)
    right = np.eye(count, dtype=bool)
    bars = []
    for cells, colours in ((right, "Blues"), (~right, "Oranges")):
        drawn = np.ma.masked_where(~cells | ~(counts > 0), shares)
        bars.append(axes.imshow(drawn, cmap=colours, norm=scale))
    for image, word in zip(bars, ("right", "wrong"), strict=True):
        bar = figure.colorbar(image, ax=axes, fraction=0.04, pad=0.025, aspect=24, format=PercentFormatter(1.0))
        bar.ax.set_xlabel(word, fontsize=8, rotation=90)
        bar.outline.set_visible(False)  # type: ignore[operator]
        if word == "right":
            bar.ax.tick_params(labelsize=8)
            bar.set_label(f"share of {_WHOLE[normalize or 'true']}", fontsize=9)
        else:
            bar.set_ticks([])
    step = 1 if count <= _NAMED else int(np.ceil(count / 25))
    places = np.arange(0, count, step)
    shown = [_short(names[i]) for i in places]
    turned = max(map(len, shown)) > 4 and count > 2
    size = 10 if count <= 12 else 8 if count <= _WRITTEN else 7
    axes.set_xticks(places, shown, rotation=45 if turned else 0, ha="right" if turned else "center", fontsize=size)
    axes.tick_params(length=0 if step == 1 else 2)
    axes.set_yticks(places, shown, fontsize=size)
    axes.set(xlabel="predicted class", ylabel="true class", title=title)
    if count <= _WRITTEN:
        axes.set_xticks(np.arange(count + 1) - 0.5, minor=True)
        axes.set_yticks(np.arange(count + 1) - 0.5, minor=True)
        axes.grid(which="minor", color="0.88", linewidth=0.6)
        axes.tick_params(which="minor", length=0)
        texts = {(i, j): _cell(counts[i, j], shares[i, j], normalize) for i, j in np.argwhere(counts > 0)}
        widest = max(map(len, texts.values()), default=1)
        small = min(10.0 if count <= 12 else 8.0, 28.0 / (0.62 * max(widest, 2)) + 1.0)
        for (i, j), text in texts.items():
            light = "white" if shares[i, j] > 0.6 * (top or 1.0) else "black"
            axes.text(j, i, text, ha="center", va="center", fontsize=small, color=light)
    return figure


def blank_figure(size: tuple[float, float], what: str) -> Any:
    """An empty matplotlib Figure of `size` inches, which belongs to no window; ImportError without matplotlib."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(f"plotting {what} needs matplotlib: pip install 'jaxdl[plot]'") from error
    return Figure(figsize=size, layout="constrained")


def _cell(count: float, share: float, normalize: str | None) -> str:
    """What is written into a cell: the count, in thousands where it is long, or the share."""
    if normalize is not None:
        return "<0.1%" if share < 5e-4 else f"{100 * share:.1f}%" if share < 0.0995 else f"{100 * share:.0f}%"
    for unit, letter in ((1e9, "G"), (1e6, "M"), (1e5, "k")):
        if count >= unit:
            scale = 1e3 if letter == "k" else unit
            return f"{count / scale:.3g}{letter}"
    return number(count) if count == int(count) else f"{count:.3g}"


def _short(name: str) -> str:
    return name if len(name) <= 24 else name[:23] + "…"


def shares_of(counts: np.ndarray, normalize: str) -> np.ndarray:
    """Counts over their row ("true"), column ("predicted") or total ("all"); NaN where that is empty."""
    if normalize not in _WHOLE:
        raise ValueError(f"normalize must be None, 'true', 'predicted' or 'all'; it is {normalize!r}")
    axis = {"true": 1, "predicted": 0, "all": None}[normalize]
    whole = np.broadcast_to(counts.sum(axis=axis, keepdims=True), counts.shape)
    return np.divide(counts, whole, out=np.full(counts.shape, np.nan), where=whole != 0)


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """One line for each row: the first column to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for first, *others in rows:
        cells = [cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True)]
        lines.append("  ".join([first.ljust(widths[0]), *cells]).rstrip())
    return lines


def square(counts: np.ndarray) -> np.ndarray:
    """`counts` as float64 [classes, classes], or a sentence."""
    counts = np.asarray(counts, np.float64)
    if counts.ndim != 2 or counts.shape[0] != counts.shape[1]:
        raise ValueError(f"a confusion matrix is [classes, classes]; this one has shape {counts.shape}")
    return counts


def number(value: float) -> str:
    """Whole numbers without a point, others with up to six digits."""
    return str(int(value)) if np.isfinite(value) and value == int(value) else f"{value:.6g}"
