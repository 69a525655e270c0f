"""report.html: what a run did, on one page that needs nothing else; and the same plots as PNG where matplotlib is."""

from __future__ import annotations

import math
import os
import re
import time
from collections.abc import Mapping, Sequence
from html import escape
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from jaxdl.metrics.show import class_names, square
from jaxdl.tracking.folder import RunFolder
from jaxdl.tracking.progress import clock, rate, shown
from jaxdl.tracking.svg import BLUE, GREY, ORANGE, Line, Mark, confusion_chart, line_chart

_EPOCH_ROWS = 200
_COLORS = {"train": BLUE, "validation": ORANGE}
_ENVIRONMENT = ("jax", "jaxlib", "flax", "optax", "numpy", "python", "backend", "device", "devices", "mesh",
                "processes", "cpus", "platform")  # fmt: skip
_NAMES = {
    "learning_rate": "learning rate",
    "gradient_norm": "gradient norm",
    "examples_per_second": "examples per second",
}


def write_report(path: str | os.PathLike[str]) -> Path:
    """Writes report.html into a run's folder, and PNG plots into plots/ where matplotlib is installed.

    It reads config.json, program.json, run.json, metrics.jsonl and results.json; what is missing is left out. The page
    holds its charts as inline SVG, loads nothing, runs no script, and prints.

    Returns:
        The path of report.html.

    Raises:
        FileNotFoundError: no run at `path`.
        ValueError: a file of the run that cannot be read, with its place.
    """
    folder = RunFolder.open(path)
    run, results, config, program = (
        folder.read_json(name) if folder.has(name) else {}
        for name in ("run.json", "results.json", "config.json", "program.json")
    )
    records = folder.records()
    charts = charts_of(records, results.get("best") or run.get("best"))
    body = [_head(folder, run, results, records)]
    drawn = [
        line_chart(title, lines, x_label=x, mark=mark, from_zero=_from_zero(title, lines))
        for title, lines, x, mark in charts
    ]
    body.append("<section class='charts'>" + "".join(f"<figure>{svg}</figure>" for svg in drawn if svg) + "</section>")
    if "confusion_matrix" in results:
        body.append(_confusion(results))
    body += [_epochs(records), _notes(records)]
    machine = {key: program[key] for key in _ENVIRONMENT if program.get(key)}
    if "mesh" in machine:
        machine["mesh"] = " x ".join(f"{axis}={size}" for axis, size in machine["mesh"].items())
    tables = {
        "Configuration": config,
        "Program": {key: value for key, value in program.items() if key not in machine},
        "Environment": machine,
    }
    body.append(
        "<section class='tables'>" + "".join(_table(*item) for item in tables.items() if item[1]) + "</section>"
    )
    page = _PAGE.format(
        title=escape(folder.path.resolve().name), style=_STYLE, body="\n".join(part for part in body if part)
    )
    temporary = folder.report.with_name(".report.html.tmp")
    temporary.write_text(page, encoding="utf-8")
    os.replace(temporary, folder.report)
    if find_spec("matplotlib") is not None:
        _plots(folder, charts, results)
    return folder.report


Chart = tuple[str, list[Line], str, Mark | None]


def _from_zero(title: str, lines: Sequence[Line]) -> bool:
    """Throughput does, and a learning rate that ends near 0, as a cosine's: on a log scale its end hides the rest."""
    rates = [abs(y) for line in lines for y in line.y]
    fades = title == _NAMES["learning_rate"] and bool(rates) and min(rates) < 1e-4 * max(rates)
    return fades or title == _NAMES["examples_per_second"]


def charts_of(records: Sequence[Mapping[str, Any]], best: Mapping[str, Any] | None = None) -> list[Chart]:
    """(title, lines, x label, mark) for the loss, each metric, learning rate, gradient norm and throughput."""
    train = [record for record in records if record.get("kind") == "train"]
    epochs = [record for record in records if record.get("kind") == "epoch"]
    x = "epoch" if all("epoch" in record for record in [*train, *epochs]) else "step"
    keys = dict.fromkeys(key for record in epochs for key, value in record.items() if ":" in key and _is_number(value))
    names = dict.fromkeys(["loss", *(key.split(":", 1)[1] for key in keys)])
    mark = None
    if best and x in best:
        mark = Mark(float(best[x]), f"best: {x} {best[x]}")
    charts: list[Chart] = []
    for name in names:
        lines = []
        if name == "loss":
            lines.append(_series(train, x, "train:loss", "train, each record", BLUE, faint=True))
        for split in dict.fromkeys(["train", "validation", *(key.split(":", 1)[0] for key in keys)]):
            if f"{split}:{name}" in keys:
                lines.append(_series(epochs, x, f"{split}:{name}", split, _COLORS.get(split, GREY), marks=True))
        charts.append((name, lines, x, mark))
    for key in ("learning_rate", "gradient_norm", "examples_per_second"):
        source = train if any(key in record for record in train) else epochs
        if any(key in record for record in source):
            charts.append((_NAMES[key], [_series(source, x, key, "", BLUE, marks=source is epochs)], x, None))
    return [chart for chart in charts if any(line.y for line in chart[1])]


def _series(
    records: Sequence[Mapping[str, Any]],
    x: str,
    key: str,
    label: str,
    color: str,
    *,
    faint: bool = False,
    marks: bool = False,
) -> Line:
    chosen = [record for record in records if _is_number(record.get(key)) and x in record]
    values = [float(record[key]) for record in chosen]
    return Line(label, [float(record[x]) for record in chosen], values, color, faint, marks)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _head(
    folder: RunFolder, run: Mapping[str, Any], results: Mapping[str, Any], records: Sequence[Mapping[str, Any]]
) -> str:
    epochs = [record for record in records if record.get("kind") == "epoch"]
    last = epochs[-1] if epochs else {}
    status = str(run.get("status", "unknown"))
    facts = []
    if "started" in run:
        facts.append("started " + time.strftime("%Y-%m-%d %H:%M:%S %Z", time.localtime(run["started"])))
    if run.get("stopped") not in (None, "", status):
        facts.append(f"stopped: {run['stopped']}")
    cards: list[tuple[str, str, str]] = []
    best = results.get("best") or run.get("best")
    if best:
        where = ", ".join(f"{key} {best[key]}" for key in ("epoch", "step") if key in best)
        value = shown(best["value"]) if _is_number(best.get("value")) else "?"
        cards.append((str(best.get("metric", "")), value, f"best: {where}"))
    final = results.get("metrics") or {key: value for key, value in last.items() if ":" in key}
    ordered = sorted(final, key=lambda key: (key.startswith("train:"), key.endswith(":loss")))
    cards += [(key, shown(final[key]), "at the end") for key in ordered if _is_number(final[key])][:6]
    if last:
        cards.append(
            ("epochs", str(last.get("epoch", len(epochs))), f"{last['step']:,} steps" if "step" in last else "")
        )
    seconds = run.get("seconds", last.get("seconds"))
    rates = [record["examples_per_second"] for record in epochs if _is_number(record.get("examples_per_second"))]
    if seconds is not None:
        speed = f"{rate(float(np.median(rates)))} examples/s" if rates else ""
        cards.append(("time", f"{seconds:.1f} s" if seconds < 100 else clock(seconds), speed))
    boxes = "".join(
        f"<div class='card'><span>{escape(a)}</span><b>{escape(b)}</b><small>{escape(c)}</small></div>"
        for a, b, c in cards
    )
    details = " \N{MIDDLE DOT} ".join(facts)
    return (
        f"<header><h1>{escape(folder.path.resolve().name)}</h1>"
        f"<span class='badge {escape(status)}'>{escape(status)}</span>"
        f"<p>{escape(details)}</p></header><section class='cards'>{boxes}</section>"
    )


def _confusion(results: Mapping[str, Any]) -> str:
    counts = square(np.asarray(results["confusion_matrix"], np.float64))
    names = class_names(results.get("classes"), len(counts))
    true, predicted, right = counts.sum(1), counts.sum(0), np.diag(counts)
    with np.errstate(invalid="ignore", divide="ignore"):
        columns = {"precision": right / predicted, "recall": right / true, "F1": 2 * right / (true + predicted)}
    rows = []
    for i, name in enumerate(names[:100]):
        scores = "".join(f"<td>{shown(float(column[i]))}</td>" for column in columns.values())
        rows.append(f"<tr><th>{escape(name)}</th>{scores}<td>{true[i]:,.6g}</td></tr>")
    more = f"<p class='muted'>The first 100 of {len(names)} classes.</p>" if len(names) > 100 else ""
    wrong = counts - np.diag(right)
    order = [(i, j) for i, j in zip(*np.unravel_index(np.argsort(-wrong, axis=None)[:8], wrong.shape), strict=True)]
    pairs = "".join(
        f"<tr><th>{escape(names[i])}</th><th>{escape(names[j])}</th><td>{wrong[i, j]:,.6g}</td>"
        f"<td>{100 * wrong[i, j] / true[i]:.1f} %</td></tr>"
        for i, j in order
        if wrong[i, j] > 0
    )
    mistakes = (
        "<h3>Most frequent mistakes</h3><table class='numbers'><thead><tr><th>true</th><th>predicted</th><th>count</th>"
        f"<th>of true</th></tr></thead><tbody>{pairs}</tbody></table>"
    )
    chart = confusion_chart(counts.tolist(), names)
    total = counts.sum()
    overall = f" Accuracy {shown(float(right.sum() / total))} over {total:,.6g} examples." if total > 0 else ""
    return (
        "<section class='confusion'><h2>Confusion matrix</h2><p class='muted'>Rows are true classes, columns predicted "
        "ones; colour is the share of the row: blue is right, orange wrong."
        f"{overall}</p>"
        f"<div class='pair'><figure>{chart}</figure><div><h3>Each class</h3>"
        "<table class='numbers'><thead><tr><th>class</th><th>precision</th><th>recall</th><th>F1</th><th>examples</th>"
        f"</tr></thead><tbody>{''.join(rows)}</tbody></table>{more}{mistakes if pairs else ''}</div></div></section>"
    )


def _epochs(records: Sequence[Mapping[str, Any]]) -> str:
    epochs = [record for record in records if record.get("kind") == "epoch"]
    if not epochs:
        return "<section><h2>Epochs</h2><p class='muted'>No epoch was finished.</p></section>"
    keys = list(dict.fromkeys(key for record in epochs for key in record if key != "kind"))
    every = math.ceil(len(epochs) / _EPOCH_ROWS)
    kept = [record for i, record in enumerate(epochs) if i % every == 0 or i == len(epochs) - 1]
    thinned = f" (every {every}th of {len(epochs)})" if every > 1 else ""
    head = "".join(f"<th>{escape(_NAMES.get(key, key))}</th>" for key in keys)
    rows = "".join("<tr>" + "".join(f"<td>{_cell(record.get(key))}</td>" for key in keys) + "</tr>" for record in kept)
    return (
        f"<section><h2>Epochs{thinned}</h2><div class='wide'><table class='numbers'><thead><tr>{head}</tr></thead>"
        f"<tbody>{rows}</tbody></table></div></section>"
    )


def _notes(records: Sequence[Mapping[str, Any]]) -> str:
    notes = [record for record in records if record.get("kind") == "note"]
    items = "".join(
        f"<li><b>step {escape(str(note.get('step', '?')))}</b> {escape(str(note.get('text', '')))}</li>"
        for note in notes
    )
    return f"<section><h2>Notes</h2><ul>{items}</ul></section>" if notes else ""


def _table(title: str, content: Mapping[str, Any]) -> str:
    rows = "".join(f"<tr><th>{escape(key)}</th><td>{_cell(value)}</td></tr>" for key, value in _flat(content).items())
    return f"<div><h2>{escape(title)}</h2><table>{rows}</table></div>"


def _flat(content: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as dotted names."""
    out: dict[str, Any] = {}
    for key, value in content.items():
        if isinstance(value, Mapping) and value:
            out |= _flat(value, f"{prefix}{key}.")
        else:
            out[f"{prefix}{key}"] = value
    return out


def _cell(value: Any) -> str:
    if value is None:
        return "<span class='muted'>\N{EN DASH}</span>"
    if isinstance(value, bool) or not isinstance(value, int | float):
        text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
        return escape(text if len(text) <= 400 else text[:400] + " \N{HORIZONTAL ELLIPSIS}")
    if isinstance(value, int):
        return f"{value:,}" if abs(value) >= 10000 else str(value)
    if not math.isfinite(value):
        return f"<span class='bad'>{value}</span>"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.5g}"


def _plots(folder: RunFolder, charts: Sequence[Chart], results: Mapping[str, Any]) -> None:
    """The charts as PNG, named after what they show."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    from jaxdl.metrics.show import confusion_plot

    folder.plots.mkdir(exist_ok=True)
    for title, lines, x_label, mark in charts:
        figure = Figure(figsize=(7, 4.2), layout="constrained")
        axes = figure.add_subplot()
        for line in lines:
            style = (
                {"alpha": 0.35, "linewidth": 1} if line.faint else {"linewidth": 2, "marker": "o" if line.marks else ""}
            )
            axes.plot(line.x, line.y, color=line.color, label=line.label or None, markersize=4, **style)
        finite = [y for line in lines for y in line.y if math.isfinite(y)]
        if finite and min(finite) > 0 and max(finite) / min(finite) > 50:
            axes.set_yscale("log")
        if mark is not None:
            axes.axvline(mark.x, color="#15803d", linestyle="--", linewidth=1, label=mark.label)
        axes.set(title=title, xlabel=x_label)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        if any(line.label for line in lines):
            axes.legend(frameon=False)
        figure.savefig(folder.plots / f"{re.sub(r'[^A-Za-z0-9]+', '_', title).strip('_') or 'plot'}.png", dpi=140)
    if "confusion_matrix" in results:
        counts = square(np.asarray(results["confusion_matrix"], np.float64))
        confusion_plot(counts, classes=results.get("classes")).savefig(folder.plots / "confusion_matrix.png", dpi=140)


_STYLE = """
:root{color-scheme:light}
*{box-sizing:border-box}
body{margin:0 auto;max-width:1220px;padding:28px 24px 60px;background:#fff;color:#0f172a;
font:14px/1.5 system-ui,-apple-system,"Segoe UI",Helvetica,Arial,sans-serif}
header{display:flex;align-items:center;gap:12px;flex-wrap:wrap;border-bottom:1px solid #e2e8f0;padding-bottom:14px}
h1{font-size:24px;margin:0;overflow-wrap:anywhere}h2{font-size:17px;margin:30px 0 10px}
h3{font-size:14px;margin:18px 0 6px}
header p{margin:0;color:#64748b;flex-basis:100%}
.badge{padding:2px 10px;border-radius:999px;font-size:12px;font-weight:600;background:#e2e8f0;color:#334155}
.badge.finished{background:#dcfce7;color:#166534}.badge.failed{background:#fee2e2;color:#991b1b}
.badge.stopped,.badge.interrupted{background:#fef3c7;color:#92400e}.badge.running{background:#dbeafe;color:#1e40af}
.cards{display:grid;grid-template-columns:repeat(auto-fill,minmax(148px,1fr));gap:12px;margin:18px 0 6px}
.card{border:1px solid #e2e8f0;border-radius:8px;padding:10px 14px;display:flex;flex-direction:column}
.card span{color:#64748b;font-size:12px;overflow-wrap:anywhere}
.card b{font-size:22px;font-variant-numeric:tabular-nums}.card small{color:#94a3b8;min-height:1.5em}
.charts{display:grid;grid-template-columns:repeat(auto-fill,minmax(430px,1fr));gap:16px;margin-top:18px}
figure{margin:0}.charts figure{border:1px solid #e2e8f0;border-radius:8px;padding:10px}
svg{width:100%;height:auto;display:block}
.pair{display:flex;gap:36px;flex-wrap:wrap;align-items:flex-start}
.pair figure{min-width:0;max-width:100%}.pair svg{width:auto;max-width:100%}
.tables{display:grid;grid-template-columns:repeat(auto-fit,minmax(330px,1fr));gap:0 36px;align-items:start}
table{border-collapse:collapse;font-size:13px;font-variant-numeric:tabular-nums}
.tables table{width:100%}
th,td{padding:4px 10px;text-align:left;border-bottom:1px solid #eef2f7;vertical-align:top;font-weight:400}
.tables th{color:#64748b;white-space:nowrap;width:1%}.tables td{overflow-wrap:anywhere}
.numbers thead th{font-weight:600;border-bottom:1px solid #94a3b8;white-space:nowrap}
.numbers td{text-align:right;white-space:nowrap}.numbers thead th{text-align:right}
.numbers th:first-child{text-align:left}.numbers tbody th{text-align:left}
.wide{overflow-x:auto}.muted{color:#94a3b8}.bad{color:#b91c1c;font-weight:600}
ul{padding-left:20px;margin:6px 0}
@media print{body{padding:0;max-width:none;font-size:11px}figure,.card,tr{break-inside:avoid}
.charts{grid-template-columns:1fr 1fr}.wide{overflow:visible}
*{print-color-adjust:exact;-webkit-print-color-adjust:exact}}
"""

_PAGE = """<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1"><title>{title}</title>
<style>{style}</style></head>
<body>
{body}
</body>
</html>
"""
