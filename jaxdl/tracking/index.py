"""Which runs there are: one line for each folder below a root."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

from jaxdl.tracking.folder import RunFolder, is_run


def list_runs(root: str | os.PathLike[str] = "runs", *, depth: int = 3) -> list[dict[str, Any]]:
    """The runs below `root`, oldest first.

    Each is {"name", "path", "status", "epochs", "step", "best", "started", "seconds", "problem"}: `name` is the path
    below the root, `status` is running, finished, stopped, interrupted, failed or unknown (a run that says it is
    running while its process is gone is interrupted), `best` is {"metric", "value", ...} or None, `started` seconds
    since 1970, `seconds` how long it trained. What a run does not know is None; `problem` is why it could not be read,
    or None: one damaged run does not hide the others.

    Raises:
        FileNotFoundError: there is no folder `root`.
    """
    place = Path(root)
    if not place.is_dir():
        raise FileNotFoundError(f"there is no folder {place}; runs are folders that fit(checkpoint=...) writes")
    runs = [_entry(path, place) for path in _find(place, depth)]
    return sorted(runs, key=lambda run: (run["started"] or 0.0, run["name"]))


def _find(place: Path, depth: int) -> list[Path]:
    if is_run(place):
        return [place]
    if depth == 0:
        return []
    return [run for path in sorted(place.iterdir()) if path.is_dir() for run in _find(path, depth - 1)]


def _entry(path: Path, root: Path) -> dict[str, Any]:
    name = path.name if path == root else str(path.relative_to(root))
    entry: dict[str, Any] = {"name": name, "path": str(path), "status": "unknown"}
    entry |= dict.fromkeys(("epochs", "step", "best", "started", "seconds", "problem"))
    folder = RunFolder(path)
    if not folder.has("run.json"):
        return entry
    try:
        known = folder.read_json("run.json")
    except (OSError, ValueError) as error:
        return entry | {"problem": str(error)}
    entry |= {key: known[key] for key in ("status", "epochs", "step", "best", "started", "seconds") if key in known}
    if entry["status"] == "running" and not _alive(known):
        entry["status"] = "interrupted"
    return entry


def _alive(known: dict[str, Any]) -> bool:
    """Whether the process that wrote run.json still runs; on another host nobody can tell, so it is believed."""
    if os.name != "posix" or known.get("host") != socket.gethostname() or "pid" not in known:
        return True
    try:
        os.kill(known["pid"], 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
