"""The compile cache: a program compiled once starts at once the next time. That is jaxdl's warm pool."""

from __future__ import annotations

import contextlib
import os
import pathlib
import platform
import shutil
import zlib
from collections.abc import Iterator
from typing import NamedTuple

import jax


class CacheInfo(NamedTuple):
    """Where compiled programs are kept, how many, and how large."""

    folder: str
    programs: int
    bytes: int


def default_folder() -> pathlib.Path:
    """`$JAXDL_CACHE` or the user's cache folder; one folder a processor kind, since programs hold its instructions."""
    root = os.environ.get("JAXDL_CACHE") or os.path.join(
        os.environ.get("XDG_CACHE_HOME") or os.path.join(pathlib.Path.home(), ".cache"), "jaxdl"
    )
    return pathlib.Path(root) / "programs" / f"{platform.machine()}-{_processor():08x}"


def _processor() -> int:
    try:
        text = pathlib.Path("/proc/cpuinfo").read_text()
    except OSError:
        text = platform.processor()
    lines = {line for line in text.splitlines() if line.startswith(("flags", "Features", "model name"))}
    return zlib.crc32("\n".join(sorted(lines)).encode() or text.encode())


def _folder_in_use() -> str | None:
    """jax's own setting, which a user may have made."""
    return jax.config.values["jax_compilation_cache_dir"]


def enable() -> None:
    """Turn the cache on, unless the user has set one, or has turned it off with `JAXDL_CACHE=off`.

    Called when a Program is built; importing jaxdl configures nothing.
    """
    if _folder_in_use() is not None or os.environ.get("JAXDL_CACHE") == "off":
        return
    folder = default_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return  # a read-only home costs the cache, not the training
    jax.config.update("jax_compilation_cache_dir", str(folder))
    # The defaults skip programs as small as most of ours.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


@contextlib.contextmanager
def keeping(keep: bool) -> Iterator[None]:
    """Within it, programs are compiled and not kept, unless `keep`: one that was never kept is never read back."""
    if keep:
        yield
        return
    name = "jax_persistent_cache_min_compile_time_secs"
    before = jax.config.values[name]
    jax.config.update(name, float("inf"))
    try:
        yield
    finally:
        jax.config.update(name, before)


def info() -> CacheInfo:
    """The cache in use, or the one that would be."""
    folder = pathlib.Path(_folder_in_use() or default_folder())
    files = [path for path in folder.glob("*-cache") if path.is_file()] if folder.is_dir() else []
    return CacheInfo(str(folder), len(files), sum(path.stat().st_size for path in files))


def clear() -> CacheInfo:
    """Delete the cached programs of jaxdl's own folder; returns what was deleted. A folder that the user set is theirs.

    Raises:
        ValueError: the cache in use is not jaxdl's own.
    """
    before = info()
    own = default_folder()
    if pathlib.Path(before.folder) != own:
        raise ValueError(f"{before.folder} was set by the user (jax_compilation_cache_dir): clear it there")
    shutil.rmtree(own, ignore_errors=True)
    if _folder_in_use() is not None:
        own.mkdir(parents=True, exist_ok=True)
    return before
