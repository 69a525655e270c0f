"""`jaxdl runs` and `jaxdl cache`: what there is."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jaxdl.cli.commands import Cache, Runs

_STATUS_STYLE = {"finished": "green", "running": "cyan", "failed": "red", "interrupted": "yellow", "stopped": "yellow"}


def runs(options: Runs) -> int:
    """Print a table of the runs below `options.root`; 1 when one of them cannot be read."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from jaxdl.tracking import list_runs

    found = list_runs(options.root)
    if not found:
        print(f"no runs below {options.root}: jaxdl train makes one")
        return 0
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("run", overflow="fold", min_width=12)
    for name in ("status", "epochs", "best", "in epoch", "took", "age"):
        table.add_column(name, justify="left" if name in ("status", "best") else "right", no_wrap=True)
    for run in found:
        status, best = str(run["status"]), run["best"] or {}
        table.add_row(
            Text(str(run["name"])),
            Text(status, style=_STATUS_STYLE.get(status, "")),
            "-" if run["epochs"] is None else f"{run['epochs']:,}",
            Text(f"{best['metric']} {best['value']:.4g}" if best.get("value") is not None else "-"),
            str(best.get("epoch", "-")),
            "-" if run["seconds"] is None else _duration(run["seconds"]),
            "-" if run["started"] is None else _age(time.time() - run["started"]),
        )
    console = Console()
    if not console.is_terminal:
        console.width = 1000  # a pipe has no width: nothing is cut short there
    console.print(table)
    problems = [run for run in found if run["problem"]]
    for run in problems:
        print(f"{run['name']}: {run['problem']}")
    return 1 if problems else 0


def cache(options: Cache) -> int:
    """Print the folder, number and size of the compiled programs; with `clear`, delete them first."""
    from jaxdl.core import compile_cache

    found = compile_cache.clear() if options.clear else compile_cache.info()
    verb = "deleted from" if options.clear else "in"
    programs = f"{found.programs:,} compiled program{'' if found.programs == 1 else 's'}"
    print(f"{programs}, {_size(found.bytes)}, {verb} {found.folder}")
    return 0


def _age(seconds: float) -> str:
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return "now"


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.1f} s"
    minutes, whole = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{whole:02}"


def _size(count: float) -> str:
    for unit in ("bytes", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"
