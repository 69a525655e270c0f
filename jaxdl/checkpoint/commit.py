"""How a checkpoint comes to be, and goes: whole or not at all, whatever is killed when.

A checkpoint is written into `.jaxdl-saving-STEP`, its files are flushed to the disk, its manifest comes last, and one
rename makes it `STEP`. A checkpoint is deleted the other way round: renamed to `.jaxdl-deleting-STEP` first.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from jaxdl.checkpoint.arrays import write_arrays
from jaxdl.checkpoint.manifest import NAME, crc32_of_file
from jaxdl.checkpoint.peers import NOTICE

ARRAYS = "arrays"
_SAVING, _DELETING, _REPLACED = ".jaxdl-saving-", ".jaxdl-deleting-", ".jaxdl-replaced-"


def steps_in(folder: Path) -> list[int]:
    """The steps that have a checkpoint, ascending; also one that has lost its manifest, which no kill can do."""
    if not folder.is_dir():
        return []
    return sorted(int(path.name) for path in folder.iterdir() if path.name.isdecimal() and path.is_dir())


def checkpoint_of(folder: Path, step: int) -> Path:
    """The folder of a step; its number is written with at least eight digits so that listings sort."""
    return folder / f"{step:08d}"


def commit(
    folder: Path,
    step: int,
    arrays: Mapping[str, np.ndarray],
    describe: Callable[[Mapping[str, tuple[int, int]]], bytes],
) -> None:
    """Write a checkpoint; it appears complete or not at all.

    Args:
        describe: the manifest's text from file name -> (size, crc32).

    Raises:
        OSError: the disk is full, the folder is gone or not writable. What was there before is still there.
    """
    saving = saving_of(folder, step)
    if saving.exists():
        shutil.rmtree(saving)
    try:
        require_room(folder, sum(array.nbytes for array in arrays.values()))
        saving.mkdir()
        write_arrays(saving / ARRAYS, arrays)
        files = {}
        for path in sorted(saving.rglob("*")):
            if path.is_file():
                _flush(path)
                files[path.relative_to(saving).as_posix()] = (path.stat().st_size, crc32_of_file(path))
        publish(folder, step, saving, describe(files))
    except BaseException:
        abandon(folder, saving)
        raise
    tidy(folder)


def saving_of(folder: Path, step: int, attempt: str = "") -> Path:
    """Where a checkpoint of this step is written; several processes give each attempt a name of its own."""
    return folder / f"{_SAVING}{checkpoint_of(folder, step).name}{attempt}"


def publish(folder: Path, step: int, saving: Path, manifest: bytes) -> None:
    """Give what was written and flushed its manifest and its name; a checkpoint of the same step is put aside."""
    final = checkpoint_of(folder, step)
    _write_flushed(saving / NAME, manifest)
    for path in [*saving.rglob("*"), saving]:
        if path.is_dir():
            _flush(path)
    if final.exists():
        _put_aside(folder, final)
    os.rename(saving, final)
    _flush(folder)


def abandon(folder: Path, saving: Path) -> None:
    """Clean up after a save that failed; the first error is the one to report, so this one raises none."""
    with contextlib.suppress(OSError):  # `sweep` cleans at the next opening
        if saving.exists():
            shutil.rmtree(saving)
        _bring_back(folder)


def tidy(folder: Path) -> None:
    """Remove what a checkpoint of the same step has replaced."""
    for replaced in folder.glob(f"{_REPLACED}*"):
        shutil.rmtree(replaced)


def delete(folder: Path, step: int) -> None:
    """Remove a checkpoint; killed halfway, it is gone or a left-over that `sweep` removes, never half a checkpoint."""
    path = checkpoint_of(folder, step)
    doomed = folder / f"{_DELETING}{path.name}"
    os.rename(path, doomed)
    shutil.rmtree(doomed)


def sweep(folder: Path) -> None:
    """Remove what a killed run left half done; only for the holder of the folder's lock."""
    _bring_back(folder)
    for prefix in (_SAVING, _DELETING, _REPLACED):
        for path in folder.glob(f"{prefix}*"):
            shutil.rmtree(path)
    for path in folder.glob(f"{NOTICE}*"):
        path.unlink()


def _put_aside(folder: Path, final: Path) -> None:
    replaced = folder / f"{_REPLACED}{final.name}"
    if replaced.exists():
        shutil.rmtree(replaced)
    os.rename(final, replaced)


def _bring_back(folder: Path) -> None:
    """Undo a replacement that did not come to its end: between the two renames the step exists only aside."""
    for replaced in folder.glob(f"{_REPLACED}*"):
        final = folder / replaced.name.removeprefix(_REPLACED)
        if not final.exists():
            os.rename(replaced, final)


def require_room(folder: Path, size: int) -> None:
    """Refuse at once what cannot fit.

    Raises:
        OSError: ENOSPC, with both sizes.
    """
    free = shutil.disk_usage(folder).free
    if free < size:
        raise OSError(
            errno.ENOSPC, f"the disk is full: the arrays need {size / 1e6:.1f} MB, {free / 1e6:.1f} MB are free"
        )


def _write_flushed(path: Path, text: bytes) -> None:
    part = path.with_name(path.name + ".part")
    with open(part, "wb") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(part, path)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
