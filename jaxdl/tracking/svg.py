"""Charts as SVG text, without a plotting library: lines over steps or epochs, and a confusion matrix."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import NamedTuple

BLUE, ORANGE, GREY, RED, GREEN = "#2563eb", "#d9660a", "#64748b", "#c0262d", "#15803d"
_WIDTH, _HEIGHT = 560, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 18, 40, 40
_FONT = "font-family='system-ui,-apple-system,Segoe UI,Helvetica,Arial,sans-serif'"


class Line(NamedTuple):
    """One series of a chart: x and y of the same length; numbers that are not finite leave a gap.

    `marks` draws a dot on each point, `faint` is for the noisy series behind the others.
    """

    label: str
    x: Sequence[float]
    y: Sequence[float]
    color: str = BLUE
    faint: bool = False
    marks: bool = False


class Mark(NamedTuple):
    """A vertical line at `x` with a label, such as the best epoch."""

    x: float
    label: str


def line_chart(
    title: str, lines: Sequence[Line], *, x_label: str = "epoch", mark: Mark | None = None, from_zero: bool = False
) -> str:
    """A chart as an <svg> element, empty without a finite number; y is logarithmic where positive values span more than
    a factor of 50, unless it should start `from_zero`."""
    lines = [line for line in lines if any(math.isfinite(y) for y in line.y)]
    points = [(x, y) for line in lines for x, y in zip(line.x, line.y, strict=True) if math.isfinite(y)]
    if not points:
        return ""
    xs, ys = [x for x, _ in points], [y for _, y in points]
    if from_zero:
        ys.append(0.0)
    log = min(ys) > 1e-300 and max(ys) / min(ys) > 50
    x_low, x_high = min(xs), max(xs)
    if x_low == x_high:
        x_low, x_high = x_low - 0.5, x_high + 0.5
    y_ticks = _log_ticks(min(ys), max(ys)) if log else _ticks(min(ys), max(ys))
    y_low, y_high = min(y_ticks[0], min(ys)), max(y_ticks[-1], max(ys))

    def across(x: float) -> float:
        return _LEFT + (x - x_low) / (x_high - x_low) * (_WIDTH - _LEFT - _RIGHT)

    def up(y: float) -> float:
        scale = math.log if log else float
        part = (scale(y) - scale(y_low)) / (scale(y_high) - scale(y_low))
        return _HEIGHT - _BOTTOM - part * (_HEIGHT - _TOP - _BOTTOM)

    out = [
        f"<svg viewBox='0 0 {_WIDTH} {_HEIGHT}' role='img' aria-label='{escape(title, quote=True)}' {_FONT}>",
        _text(_LEFT - 44, 18, title + (" (log scale)" if log else ""), size=14, weight=600, color="#0f172a"),
    ]
    for tick in y_ticks:
        y = up(tick)
        out.append(f"<line x1='{_LEFT}' x2='{_WIDTH - _RIGHT}' y1='{y:.1f}' y2='{y:.1f}' stroke='#e2e8f0'/>")
        out.append(_text(_LEFT - 7, y + 3.5, tick_text(tick, y_ticks, log), anchor="end"))
    x_ticks = [tick for tick in _ticks(x_low, x_high, whole=True) if x_low <= tick <= x_high]
    floor = _HEIGHT - _BOTTOM
    out.append(f"<line x1='{_LEFT}' x2='{_WIDTH - _RIGHT}' y1='{floor}' y2='{floor}' stroke='#94a3b8'/>")
    for tick in x_ticks:
        out.append(
            f"<line x1='{across(tick):.1f}' x2='{across(tick):.1f}' y1='{floor}' y2='{floor + 4}' stroke='#94a3b8'/>"
        )
        out.append(_text(across(tick), floor + 16, tick_text(tick, x_ticks), anchor="middle"))
    out.append(_text((_LEFT + _WIDTH - _RIGHT) / 2, _HEIGHT - 6, x_label, anchor="middle"))
    if mark is not None and x_low <= mark.x <= x_high:
        at = across(mark.x)
        side = "end" if at > _WIDTH * 0.7 else "start"
        out.append(
            f"<line x1='{at:.1f}' x2='{at:.1f}' y1='{_TOP}' y2='{floor}' stroke='{GREEN}' stroke-dasharray='4 3'/>"
        )
        out.append(_text(at + (4 if side == "end" else -4), _TOP - 5, mark.label, anchor=side, color=GREEN))
    for line in sorted(lines, key=lambda line: not line.faint):
        out += _series(line, across, up, floor)
    out += _legend(lines)
    return "".join(out) + "</svg>"


def _series(line: Line, across: object, up: object, floor: float) -> list[str]:
    assert callable(across) and callable(up)
    out: list[str] = []
    width = 1 if line.faint else 1.2 if len(line.x) > 300 and not line.marks else 2
    style = f"stroke='{line.color}' stroke-width='{width}' stroke-opacity='{0.3 if line.faint else 1}'"
    run: list[str] = []
    for x, y in [*zip(line.x, line.y, strict=True), (0.0, math.nan)]:
        if math.isfinite(y):
            run.append(f"{across(x):.1f},{up(y):.1f}")
            continue
        if len(run) > 1:
            out.append(f"<polyline points='{' '.join(run)}' fill='none' stroke-linejoin='round' {style}/>")
        elif run and not line.marks:
            cx, cy = run[0].split(",")
            out.append(f"<circle cx='{cx}' cy='{cy}' r='2.5' fill='{line.color}'/>")
        run = []
    for x, y in zip(line.x, line.y, strict=True):
        if not math.isfinite(y):
            out.append(_text(across(x), floor - 4, "\N{MULTIPLICATION SIGN}", anchor="middle", color=RED, size=13))
        elif line.marks:
            hint = f"<title>{escape(line.label)} {y:.6g} at {x:g}</title>"
            radius = 2.6 if len(line.x) <= 60 else 1.4
            out.append(
                f"<circle cx='{across(x):.1f}' cy='{up(y):.1f}' r='{radius}' fill='{line.color}'>{hint}</circle>"
            )
    return out


def _legend(lines: Sequence[Line]) -> list[str]:
    shown = [line for line in lines if line.label]
    if len(shown) < 2:
        return []
    out, right = [], float(_WIDTH - _RIGHT)
    for line in reversed(shown):
        right -= 6.2 * len(line.label) + 30
        opacity = 0.4 if line.faint else 1
        out.append(
            f"<line x1='{right:.0f}' x2='{right + 16:.0f}' y1='14' y2='14' stroke='{line.color}' "
            f"stroke-width='3' stroke-opacity='{opacity}'/>"
        )
        out.append(_text(right + 21, 18, line.label))
    return out


def confusion_chart(counts: Sequence[Sequence[float]], names: Sequence[str]) -> str:
    """A confusion matrix as an <svg> element: row = true class; colour is the share of the row, blue where right and
    orange where wrong; the numbers are counts up to 30 classes."""
    size = len(names)
    cell = 72 if size <= 4 else 46 if size <= 10 else 30 if size <= 20 else 25 if size <= 30 else max(4, 720 // size)
    font = 12 if size <= 10 else 9.5 if size <= 20 else 8
    cut = [name if len(name) <= 18 else name[:17] + "\N{HORIZONTAL ELLIPSIS}" for name in names]
    label = max(10, cell * 0.42) if size > 30 else 11.5 if size <= 20 else 10
    longest = max(len(name) for name in cut)
    named = size <= 60
    turned = longest * label * 0.6 > cell - 4
    left = 34 + (longest * label * 0.58 if named else 0)
    top = 34 + ((longest * label * 0.44 + 8 if turned else label + 4) if named else 0)
    width = left + size * cell + (longest * label * 0.42 if turned and named else 8)
    height = top + size * cell + 8
    # a width of its own: stretched over a page it would be all tiles
    out = [f"<svg viewBox='0 0 {width:.0f} {height:.0f}' width='{width:.0f}' role='img' {_FONT}>"]
    out.append(_text(left + size * cell / 2, 14, "predicted class", anchor="middle", size=12, weight=600))
    middle = top + size * cell / 2
    true_class = _text(13, middle, "true class", anchor="middle", size=12, weight=600)
    out.append(f"<g transform='rotate(-90 13 {middle:.0f})'>{true_class}</g>")
    for i, row in enumerate(counts):
        total = sum(row)
        y = top + i * cell
        for j, count in enumerate(row):
            share = count / total if total > 0 else 0.0
            color, dark = _tint(share, right=i == j)
            x = left + j * cell
            pair = f"true {escape(names[i])}, predicted {escape(names[j])}"
            hint = f"<title>{pair}: {count:g} ({100 * share:.1f} % of the row)</title>"
            out.append(
                f"<rect x='{x:.1f}' y='{y:.1f}' width='{cell}' height='{cell}' fill='{color}' stroke='#e2e8f0' "
                f"stroke-width='{1 if size <= 30 else 0}'>{hint}</rect>"
            )
            if size <= 30 and count:
                text = compact(count)
                small = min(font, (cell - 3) / (0.6 * len(text)))
                ink = "#ffffff" if dark else "#0f172a"
                out.append(
                    _text(x + cell / 2, y + cell / 2 + small * 0.35, text, anchor="middle", size=small, color=ink)
                )
        if named:
            out.append(_text(left - 6, y + cell / 2 + label * 0.35, cut[i], anchor="end", size=label, color="#0f172a"))
    if named:
        for j, name in enumerate(cut):
            x, y = left + (j + 0.5) * cell, top - 7
            if turned:
                turn = f"<g transform='rotate(-45 {x:.1f} {y:.1f})'>"
                out.append(turn + _text(x, y, name, size=label, color="#0f172a") + "</g>")
            else:
                out.append(_text(x, y, name, anchor="middle", size=label, color="#0f172a"))
    return "".join(out) + "</svg>"


def _tint(share: float, *, right: bool) -> tuple[str, bool]:
    """White to blue (right) or to orange (wrong), and whether the ink on it should be white."""
    full = (29, 78, 180) if right else (194, 84, 10)
    part = min(1.0, share) ** (0.8 if right else 0.55)  # rare mistakes should still be seen
    red, green, blue = (round(255 + (c - 255) * part) for c in full)
    return f"#{red:02x}{green:02x}{blue:02x}", part > 0.5


def compact(value: float) -> str:
    """A count in few characters: 812, 12.3k, 4.5M, 0.75."""
    if value != int(value):
        return f"{value:.3g}"
    for unit, factor in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= 10 * factor or (value >= factor and unit != "k"):
            return f"{value / factor:.3g}{unit}"
    return str(int(value))


def tick_text(value: float, ticks: Sequence[float], log: bool = False) -> str:
    """The tick's number with just the digits that tell it from its neighbours."""
    if value == 0:
        return "0"
    if log or abs(value) < 1e-4 or abs(value) >= 1e6:
        text = f"{value:.3g}" if 1e-4 <= abs(value) < 1e4 else f"{value:.0e}"
        return text.replace("e-0", "e-").replace("e+0", "e")
    step = ticks[1] - ticks[0] if len(ticks) > 1 else abs(value)
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    return f"{value:,.{digits}f}"


def _ticks(low: float, high: float, *, whole: bool = False) -> list[float]:
    """Three to seven round numbers that enclose low and high."""
    if low == high:
        pad = abs(low) * 0.5 or 1.0
        low, high = low - pad, high + pad
    raw = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= raw * 0.999)
    if whole:
        step = max(1.0, math.ceil(step) if step < 5 else step)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [i * step for i in range(first, last + 1)]


def _log_ticks(low: float, high: float) -> list[float]:
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high) - 1e-9)
    every = max(1, math.ceil((last - first) / 7))
    ticks = [10.0**i for i in range(first, last + 1, every)]
    if len(ticks) <= 3:
        ticks = [factor * 10.0**i for i in range(first, last + 1) for factor in (1, 2, 5)]
        below = [tick for tick in ticks if tick <= low]
        above = [tick for tick in ticks if tick >= high]
        ticks = [tick for tick in ticks if below[-1] <= tick <= above[0]]
    return ticks


def _text(
    x: float, y: float, text: str, *, anchor: str = "start", size: float = 11, weight: int = 400, color: str = "#475569"
) -> str:
    bold = f" font-weight='{weight}'" if weight != 400 else ""
    return (
        f"<text x='{x:.1f}' y='{y:.1f}' text-anchor='{anchor}' font-size='{size:.3g}'{bold} fill='{color}'>"
        f"{escape(text)}</text>"
    )
