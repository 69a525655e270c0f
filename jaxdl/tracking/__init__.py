"""A run is a folder; the index of runs; live progress."""

from __future__ import annotations

from jaxdl.tracking.folder import RunFolder
from jaxdl.tracking.index import list_runs
from jaxdl.tracking.progress import Progress, make_progress

__all__ = ["Progress", "RunFolder", "list_runs", "make_progress"]
