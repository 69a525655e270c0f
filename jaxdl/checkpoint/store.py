"""The store: a folder of checkpoints behind three verbs, save, restore and verify."""

from __future__ import annotations

import atexit
import json
import math
import os
import sys
import threading
import weakref
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxdl.checkpoint import commit
from jaxdl.checkpoint.arrays import read_arrays
from jaxdl.checkpoint.fingerprint import Fingerprint, start_fingerprint
from jaxdl.checkpoint.leaves import (
    PathMap,
    assign,
    host_copies,
    host_copy,
    named_leaves,
    on_host,
    place,
    require_complete,
)
from jaxdl.checkpoint.lock import FolderLock
from jaxdl.checkpoint.manifest import (
    CorruptCheckpoint,
    StoredLeaf,
    describe,
    file_problems,
    read_manifest,
    stored_leaves,
)
from jaxdl.checkpoint.sentences import explained, reason

PyTree = Any


class Restored(NamedTuple):
    """What `Store.restore` gives back.

    Attributes:
        step: the step of the checkpoint that was read.
        tree: `like` with its leaves replaced.
        manifest: the whole manifest; what `save` was handed is under "configuration".
        notes: sentences on what was not as expected, such as a corrupt checkpoint that was passed over.
        loaded: path in the tree -> path in the checkpoint.
        left: path in the checkpoint that went nowhere -> the reason.
        new: path in the tree that kept the value in `like` -> the reason.
    """

    step: int
    tree: PyTree
    manifest: dict[str, Any]
    notes: tuple[str, ...]
    loaded: dict[str, str]
    left: dict[str, str]
    new: dict[str, str]


class Store:
    """Checkpoints of one run in one folder.

    A save copies the tree into host memory and returns; a thread writes it. Each checkpoint is a folder named by its
    step, which appears complete with its manifest, or not at all, whatever is killed when.

    Args:
        folder: made if missing.
        keep: how many of the newest checkpoints stay; None keeps all.
        keep_best: the checkpoint of the smallest metric stays too, however old.
        read_only: takes no lock, makes and removes nothing; for reading beside a run that writes.

    Raises:
        OSError: another run writes into the folder (it is named), or the folder cannot be written.
    """

    def __init__(
        self, folder: str | os.PathLike[str], *, keep: int | None = 3, keep_best: bool = True, read_only: bool = False
    ) -> None:
        if keep is not None and (isinstance(keep, bool) or not isinstance(keep, int) or keep < 1):
            raise ValueError(
                f"keep is {keep!r}; it says how many of the newest checkpoints stay: 1 or more, or None for all"
            )
        self.folder = Path(folder).absolute()
        self.keep = keep
        self.keep_best = keep_best
        self.read_only = read_only
        self._lock: FolderLock | None = None
        self._writer: threading.Thread | None = None
        self._failure: tuple[str, BaseException] | None = None
        self._metrics: dict[int, float | None] = {}
        self._corrupt: set[int] = set()
        self._closed = False
        _OPEN.add(self)
        if not read_only:
            with explained(f"checkpoints cannot be written into {self.folder}"):
                self.folder.mkdir(parents=True, exist_ok=True)
                self._lock = FolderLock(self.folder)
                commit.sweep(self.folder)

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def save(
        self, step: int, tree: PyTree, *, manifest: Mapping[str, Any], metric: float | None = None, wait: bool = False
    ) -> None:
        """Save a tree under a step; returns once it is copied, the writing goes on in a thread.

        A save that is still being written is waited for first. A checkpoint of the same step is replaced.

        Args:
            step: 0 or more.
            tree: arrays, jax or NumPy; they may be donated as soon as this returns.
            manifest: the whole configuration, of what JSON can hold; `Restored.manifest["configuration"]` has it.
            metric: smaller is better; NaN and infinities never are the best.
            wait: return when the checkpoint is on the disk.

        Raises:
            OSError: the save before this one failed (disk full, folder gone ...). This step was then not saved; nothing
                older is lost, and the next call saves again.
            TypeError, ValueError: a leaf is no array, or the manifest no JSON; the path is named.
        """
        if self.read_only or self._closed:
            state = "closed" if self._closed else "open for reading only"
            raise ValueError(f"the store in {self.folder} is {state}: open Store({str(self.folder)!r}) to save")
        if isinstance(step, bool) or not isinstance(step, int | np.integer) or step < 0:
            raise ValueError(f"step is {step!r}; a checkpoint's step is a whole number, 0 or more")
        try:
            configuration = json.dumps(dict(manifest))
        except (TypeError, ValueError) as error:
            raise TypeError(f"the manifest of step {step} is not what JSON can hold: {error}") from error
        named = named_leaves(tree)
        self.wait()
        arrays = host_copies(named)
        marks = start_fingerprint({path: arrays[path] if on_host(leaf) else leaf for path, leaf in named.items()})

        def text(files: Mapping[str, tuple[int, int]]) -> bytes:
            return describe(
                step=int(step),
                metric=None if metric is None or not math.isfinite(metric) else float(metric),
                configuration=configuration,
                arrays=arrays,
                marks=marks.collect(),
                files=files,
            )

        def write() -> None:
            doing = f"step {step} was not saved to {self.folder}"
            try:
                commit.commit(self.folder, int(step), arrays, text)
                self._metrics.pop(int(step), None)
                self._corrupt.discard(int(step))
                doing = f"step {step} was saved to {self.folder}, but an older checkpoint could not be deleted"
                for old in self._surplus(int(step)):
                    commit.delete(self.folder, old)
            except BaseException as error:  # the next save, wait or close raises it
                self._failure = (doing, error)

        self._writer = threading.Thread(target=write, name=f"checkpoint-{step}")
        self._writer.start()
        if wait:
            self.wait()

    def wait(self) -> None:
        """Wait until the last save is on the disk.

        Raises:
            OSError: it failed; the sentence says why and which checkpoint stands. Raised once.
        """
        self._join()
        if self._failure is None:
            return
        doing, error = self._failure
        self._failure = None
        steps = self.steps()
        stands = f"the newest good one is step {steps[-1]}" if steps else "there is none yet"
        number = getattr(error, "errno", None)
        sentence = (
            f"{doing}: {reason(error)}. Checkpoints already there are untouched ({stands}); the next save tries again"
        )
        raise (OSError(number, sentence) if number is not None else OSError(sentence)) from error

    def close(self) -> None:
        """Wait for the last save, then let go of the folder. A second call does nothing.

        Raises:
            OSError: the last save failed. The folder is let go all the same.
        """
        if self._closed:
            return
        self._closed = True
        try:
            self.wait()
        finally:
            if self._lock is not None:
                self._lock.release()

    def steps(self) -> tuple[int, ...]:
        """The steps that have a checkpoint, damaged ones too, ascending; not one that is still being written."""
        return tuple(commit.steps_in(self.folder))

    def best_step(self) -> int | None:
        """The step of the smallest metric, the earliest of equals; None where no checkpoint has one."""
        for step in self.steps():
            if step not in self._metrics:
                try:
                    self._metrics[step] = self.manifest(step)["metric"]
                except (CorruptCheckpoint, FileNotFoundError):
                    self._corrupt.add(step)  # its metric is not to be trusted; restore and verify say why
        metrics = {step: self._metrics.get(step) for step in self.steps() if step not in self._corrupt}
        known = [(metric, step) for step, metric in metrics.items() if metric is not None]
        return min(known)[1] if known else None

    def delete(self, step: int) -> None:
        """Remove the checkpoint of a step; whole or not at all, whatever is killed when.

        Raises:
            FileNotFoundError: there is no such step. ValueError: the store is open for reading only.
        """
        if self.read_only or self._closed:
            raise ValueError(f"the store in {self.folder} is not open for writing")
        self._join()
        self._checkpoint(step)
        commit.delete(self.folder, step)
        self._metrics.pop(step, None)
        self._corrupt.discard(step)

    def manifest(self, step: int) -> dict[str, Any]:
        """The manifest of a step: configuration, environment, leaves, files, metric, time.

        Raises:
            FileNotFoundError: there is no such step. CorruptCheckpoint: the manifest was edited or damaged.
        """
        return read_manifest(self._checkpoint(step), step=step)

    def restore(
        self, like: PyTree, *, step: int | None = None, strict: bool = True, path_map: PathMap | None = None
    ) -> Restored:
        """Read a checkpoint into the form of `like`, every bit checked.

        Args:
            like: arrays or `jax.ShapeDtypeStruct`. Leaves come back on the sharding of theirs, on any mesh; without one
                committed to the default device. 64-bit leaves stay NumPy arrays where x64 is off.
            step: this one and no other; None takes the newest good one and says in `notes` which were passed over.
            strict: every leaf has its counterpart. False takes what fits; the rest of `like` must hold arrays, is
                copied, and is listed in `new`, as what was not used is in `left`.
            path_map: path in `like` -> path in the checkpoint, where both may be folders (`params/encoder`) and None
                keeps what `like` holds; or pairs (regular expression, replacement): the first that is found in a path
                of `like` turns it into the path in the checkpoint.

        Raises:
            FileNotFoundError: no checkpoint, or not this step.
            CorruptCheckpoint: this step, or every one, is damaged; the files or paths are named.
            ValueError: the checkpoint is sound but of another tree; the paths are named.
        """
        self._join()
        wanted = named_leaves(like, abstract=True)
        if step is not None:
            return self._read(step, like, wanted, strict, path_map, ())
        steps = self.steps()
        if not steps:
            raise FileNotFoundError(f"{self.folder} holds no checkpoint")
        problems: list[str] = []
        for candidate in reversed(steps):
            try:
                notes = (f"{'; '.join(problems)}: fell back to step {candidate}",) if problems else ()
                return self._read(candidate, like, wanted, strict, path_map, notes)
            except (CorruptCheckpoint, FileNotFoundError) as error:
                self._corrupt.add(candidate)
                problems.append(str(error))
        raise CorruptCheckpoint(f"no checkpoint in {self.folder} is sound: {'; '.join(problems)}")

    def verify(self, step: int | None = None) -> list[str]:
        """Read a checkpoint again, or all of them, and list what is wrong, each with its file or path.

        Sizes and crc32 of the files, files that the manifest does not know, then shapes, dtypes and fingerprints.
        """
        self._join()
        problems = []
        for each in self.steps() if step is None else (step,):
            checkpoint = self._checkpoint(each)
            try:
                record = read_manifest(checkpoint, step=each)
                found = file_problems(checkpoint, record, strangers=True)
                stored = stored_leaves(record)
                if not found:
                    found = _mark_problems(each, start_fingerprint(self._arrays(each, stored)).collect(), stored)
            except CorruptCheckpoint as error:
                found = [str(error)]
            problems += [
                problem if problem.startswith(f"step {each} ") else f"step {each}: {problem}" for problem in found
            ]
        return problems

    def _read(
        self,
        step: int,
        like: PyTree,
        wanted: dict[str, Any],
        strict: bool,
        path_map: PathMap | None,
        notes: tuple[str, ...],
    ) -> Restored:
        checkpoint = self._checkpoint(step)
        record = read_manifest(checkpoint, step=step)
        stored = stored_leaves(record)
        matched = assign(wanted, stored, path_map=path_map)
        if strict:
            require_complete(matched, where=f"the checkpoint of step {step} in {self.folder}")
        for path, why in matched.new.items():
            if isinstance(wanted[path], jax.ShapeDtypeStruct):
                raise ValueError(
                    f"the leaf {path!r} does not come from the checkpoint of step {step} ({why}), and `like` holds "
                    "only its shape: hand a tree of real arrays to strict=False"
                )
        damaged = file_problems(checkpoint, record, strangers=False)
        if damaged:
            raise CorruptCheckpoint(f"step {step} is corrupt ({'; '.join(damaged[:4])})")
        arrays = self._arrays(step, {source: stored[source] for source in matched.loaded.values()})
        uses = Counter(matched.loaded.values())
        leaves: dict[str, Any] = {}
        for path, leaf in wanted.items():
            source = matched.loaded.get(path)
            if source is None:
                leaves[path] = place(host_copy(leaf), leaf)
                continue
            # A jax array may share its NumPy array's memory and be donated: each gets memory that nobody else holds.
            uses[source] -= 1
            leaves[path] = place(arrays[source].copy() if uses[source] else arrays.pop(source), leaf)
        marks = start_fingerprint({path: leaves[path] for path in matched.loaded}).collect()
        wrong = _mark_problems(step, marks, {path: stored[source] for path, source in matched.loaded.items()})
        if wrong:
            raise CorruptCheckpoint("; ".join(wrong[:4]))
        tree = jax.tree.unflatten(jax.tree.structure(like), list(leaves.values()))
        return Restored(step, tree, record, notes, matched.loaded, matched.left, matched.new)

    def _arrays(self, step: int, stored: Mapping[str, StoredLeaf]) -> dict[str, np.ndarray]:
        """Read the arrays of a step and hold them against the manifest's shapes and dtypes."""
        arrays = {path: np.zeros(leaf.shape, leaf.dtype) for path, leaf in stored.items() if 0 in leaf.shape}
        folder = self._checkpoint(step) / commit.ARRAYS
        try:
            arrays.update(
                read_arrays(folder, {path: leaf.dtype for path, leaf in stored.items() if path not in arrays})
            )
        except Exception as error:  # Orbax raises what it likes; all of it means that the bytes do not decode
            raise CorruptCheckpoint(f"step {step} is corrupt ({folder} does not decode: {reason(error)})") from error
        for path, leaf in stored.items():
            if (arrays[path].shape, arrays[path].dtype) != (leaf.shape, leaf.dtype):
                raise CorruptCheckpoint(
                    f"step {step} is corrupt ({path} is stored as {arrays[path].dtype} {list(arrays[path].shape)}, "
                    f"the manifest says {leaf.dtype} {list(leaf.shape)})"
                )
        return arrays

    def _surplus(self, saved: int) -> list[int]:
        """The steps to delete after a save: neither among the newest `keep`, nor the best, nor corrupt ones.

        Corrupt ones neither count nor go: they may be readable elsewhere, and they must not push out a sound one.
        """
        if self.keep is None:
            return []
        best = self.best_step() if self.keep_best else None
        sound = [step for step in self.steps() if step not in self._corrupt]
        newest = [step for step in sound if step != saved][::-1][: self.keep - 1]
        return [step for step in sound if step not in {saved, best, *newest}]

    def _checkpoint(self, step: int) -> Path:
        path = commit.checkpoint_of(self.folder, step)
        if not path.is_dir():
            steps = self.steps()
            there = f"it holds {', '.join(map(str, steps))}" if steps else "it holds none"
            raise FileNotFoundError(f"{self.folder} holds no checkpoint of step {step}: {there}")
        return path

    def _join(self) -> None:
        if self._writer is not None:
            self._writer.join()
            self._writer = None


_OPEN: weakref.WeakSet[Store] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    """Say what a program loses that ends without `close`: Python starts no threads any more, and Orbax needs them."""
    for store in list(_OPEN):
        try:
            store.close()
        except OSError as error:
            print(f"{error}. End with store.close() or use `with Store(...)`: the program ended first", file=sys.stderr)


def _mark_problems(step: int, marks: Fingerprint, stored: Mapping[str, StoredLeaf]) -> list[str]:
    return [
        f"step {step} is corrupt ({path} has fingerprint {marks.leaves[path]:08x}, "
        f"the manifest says {leaf.fingerprint:08x})"
        for path, leaf in stored.items()
        if marks.leaves[path] != leaf.fingerprint
    ]
