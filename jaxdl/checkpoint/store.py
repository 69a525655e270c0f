"""The store: a folder of checkpoints behind three verbs, save, restore and verify."""

from __future__ import annotations

import atexit
import json
import math
import os
import sys
import threading
import time
import weakref
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxdl.checkpoint import commit
from jaxdl.checkpoint.fingerprint import start_fingerprint
from jaxdl.checkpoint.kept import Kept, best_of
from jaxdl.checkpoint.leaves import PathMap, named_leaves
from jaxdl.checkpoint.lock import FolderLock
from jaxdl.checkpoint.manifest import CorruptCheckpoint, describe, read_manifest
from jaxdl.checkpoint.peers import SEEN_LATE, Peers
from jaxdl.checkpoint.reading import Restored, problems_of, read_checkpoint
from jaxdl.checkpoint.sentences import error_of, explained, reason
from jaxdl.checkpoint.shards import Block, copied, spread
from jaxdl.checkpoint.together import agreed, write_together
from jaxdl.parallel import processes

PyTree = Any


class Store:
    """Checkpoints of one run in one folder.

    A save copies the tree into host memory and returns; a thread writes it. Each checkpoint is a folder named by its
    step, which appears complete with its manifest, or not at all, whatever is killed when.

    Of several processes all open the folder, which they must share, and all call `save`, `wait`, `restore`, `verify`,
    `delete` and `close` alike. Each copies and writes a part of the tree; process 0 holds the lock, makes the parts one
    checkpoint and deletes old ones. What goes wrong on one is raised on all, with the same sentence. `steps` and
    `best_step` say the same on all: what there was after the last save that was waited for.

    Args:
        folder: made if missing.
        keep: how many of the newest checkpoints stay; None keeps all.
        keep_best: the checkpoint of the smallest metric stays too, however old.
        read_only: takes no lock, makes and removes nothing; for reading beside a run that writes. Every process reads
            for itself, but for a `restore` onto devices of several, which all of them must call.
        patience: seconds that a process which has written its part waits for the others.

    Raises:
        OSError: another run writes into the folder (it is named), the folder cannot be written, or a process does not
            see it.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        keep: int | None = 3,
        keep_best: bool = True,
        read_only: bool = False,
        patience: float = 600.0,
    ) -> None:
        if keep is not None and (isinstance(keep, bool) or not isinstance(keep, int) or keep < 1):
            raise ValueError(
                f"keep is {keep!r}; it says how many of the newest checkpoints stay: 1 or more, or None for all"
            )
        self.folder = Path(folder).absolute()
        self.read_only = read_only
        self._lock: FolderLock | None = None
        self._peers: Peers | None = None
        self._writer: threading.Thread | None = None
        self._outcome: tuple[dict[str, Any], BaseException | None] = ({}, None)  # of the thread
        self._failure: OSError | None = None
        self._kept = Kept(self.folder, keep, keep_best=keep_best)
        self._known: dict[int, float | None] = {}  # with several processes: step -> metric, the same on all
        self._attempt = 0
        self._copies: dict[str, list[Block]] = {}  # of the last save; the next one overwrites them
        self._closed = False
        _OPEN.add(self)
        if read_only:
            return
        if not processes.several():
            self._take()
            return
        self._peers = Peers(self.folder, self._take, self._let_go, patience=patience)
        self._known = self._agree_on_steps()

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
            tree: arrays, jax or NumPy; they may be donated as soon as this returns. With several processes what lies on
                one of them alone is expected to be the same on all, and process 0's is saved.
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
        self._attempt += 1
        peers, attempt = self._peers, self._attempt
        text = partial(
            describe,
            step=int(step),
            metric=None if metric is None or not math.isfinite(metric) else float(metric),
            configuration=configuration,
            arrays={path: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for path, leaf in named.items()},
        )
        blocks = self._copies = copied(named, self._copies)
        if peers is None:
            arrays = {path: block.data for path, (block,) in blocks.items()}
            marks = start_fingerprint(named, blocks)

            def work() -> None:
                commit.commit(self.folder, int(step), arrays, lambda files: text(marks=marks.collect(), files=files))

        else:
            marks = start_fingerprint(
                {path: leaf for path, leaf in named.items() if peers.number == 0 or spread(leaf)}, blocks
            )

            def work() -> None:
                write_together(peers, int(step), attempt, blocks, marks, text)

        self._writer = threading.Thread(target=self._write, args=(int(step), work), name=f"checkpoint-{step}")
        self._writer.start()
        if wait:
            self.wait()

    def wait(self) -> None:
        """Wait until the last save is on the disk.

        Raises:
            OSError: it failed; the sentence says why and which checkpoint stands. Raised once.
        """
        self._join()
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    def close(self) -> None:
        """Wait for the last save, then let go of the folder. A second call does nothing.

        Raises:
            OSError: the last save failed. The folder is let go all the same.
        """
        if self._closed:
            return
        self._closed = True
        if self._peers is not None and sys.exc_info()[1] is not None:
            self._peers.hurry()
        try:
            self.wait()
        finally:
            self._copies = {}
            if self._peers is not None:
                self._peers.leave()
            self._let_go()

    def steps(self) -> tuple[int, ...]:
        """The steps that have a checkpoint, damaged ones too, ascending; not one that is still being written."""
        return tuple(commit.steps_in(self.folder) if self._peers is None else self._known)

    def best_step(self) -> int | None:
        """The step of the smallest metric, the earliest of equals; None where no checkpoint has one."""
        return best_of(self._kept.metrics() if self._peers is None else self._known)

    def delete(self, step: int) -> None:
        """Remove the checkpoint of a step; whole or not at all, whatever is killed when.

        Raises:
            FileNotFoundError: there is no such step. ValueError: the store is open for reading only.
        """
        if self.read_only or self._closed:
            raise ValueError(f"the store in {self.folder} is not open for writing")
        self._join()

        def work() -> None:
            if processes.first():
                self._checkpoint(step)
                commit.delete(self.folder, step)

        if self._peers is None:
            work()
        else:
            agreed(work)
        self._kept.forget(step)
        if self._peers is not None:
            self._known = self._agree_on_steps()

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

        Several processes read it together, each what its devices need; where one finds damage, all of them go back to
        the step before.

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
        shared = self._peers is not None or (processes.several() and any(spread(leaf) for leaf in wanted.values()))

        def read(step: int, notes: tuple[str, ...]) -> Restored:
            checkpoint = agreed(lambda: self._checkpoint(step)) if shared else self._checkpoint(step)
            return read_checkpoint(
                checkpoint, step, like, wanted, strict=strict, path_map=path_map, notes=notes, shared=shared
            )

        if step is not None:
            return read(step, ())
        steps = commit.steps_in(self.folder)
        if shared:
            steps = json.loads(processes.from_first(json.dumps(steps)))
        if not steps:
            raise FileNotFoundError(f"{self.folder} holds no checkpoint")
        problems: list[str] = []
        for candidate in reversed(steps):
            try:
                return read(candidate, (f"{'; '.join(problems)}: fell back to step {candidate}",) if problems else ())
            except (CorruptCheckpoint, FileNotFoundError) as error:
                self._kept.distrust(candidate)
                if candidate in self._known:
                    self._known[candidate] = None  # its metric is not to be trusted
                problems.append(str(error))
        raise CorruptCheckpoint(f"no checkpoint in {self.folder} is sound: {'; '.join(problems)}")

    def verify(self, step: int | None = None) -> list[str]:
        """Read a checkpoint again, or all of them, and list what is wrong, each with its file or path.

        Sizes and crc32 of the files, files that the manifest does not know, then shapes, dtypes and fingerprints.
        """
        self._join()
        shared = self._peers is not None
        problems = []
        for each in self.steps() if step is None else (step,):
            problems += problems_of(self._checkpoint(each), each, shared=shared)
        return problems

    def _take(self) -> None:
        """Make the folder, lock it, and clean up what a killed run left."""
        with explained(f"checkpoints cannot be written into {self.folder}"):
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock = FolderLock(self.folder)
            commit.sweep(self.folder)

    def _let_go(self) -> None:
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def _write(self, step: int, work: Callable[[], None]) -> None:
        """What the thread does: the work, then deleting what is one too many; how it ended is for the next `_join`.

        Of several processes the first does this, and the others hear of it.
        """
        peers, cause = self._peers, None
        first = peers is None or peers.number == 0
        doing = f"step {step} was not saved to {self.folder}"
        outcome: dict[str, Any] = {"attempt": self._attempt, "failure": None, "steps": []}
        try:
            work()
            if first:
                self._kept.forget(step)
                doing = f"step {step} was saved to {self.folder}, but an older checkpoint could not be deleted"
                for old in self._kept.surplus(step):
                    commit.delete(self.folder, old)
        except BaseException as error:  # the next save, wait or close raises it
            cause = error
        try:
            if peers is not None and not first:
                # Also where this one's part failed: process 0 has the sentence for all.
                until = time.monotonic() + 2 * peers.patience
                saying = f"said whether step {step} was saved"
                outcome = peers.wait_for(0, "outcome", self._attempt, saying, until=until)
            else:
                outcome["failure"] = None if cause is None else self._sentence(doing, cause)
            if peers is not None and first:
                outcome["steps"] = list(self._kept.metrics().items())
                peers.post({"outcome": outcome})
        except BaseException as error:
            cause = cause or error
            outcome["failure"] = self._sentence(doing, cause)
        self._outcome = (outcome, cause)

    def _sentence(self, doing: str, error: BaseException) -> list[Any]:
        """Number and text of what the caller is to hear."""
        steps = commit.steps_in(self.folder)
        stands = f"the newest good one is step {steps[-1]}" if steps else "there is none yet"
        untouched = f"Checkpoints already there are untouched ({stands}); the next save tries again"
        return [getattr(error, "errno", None), f"{doing}: {reason(error)}. {untouched}"]

    def _join(self) -> None:
        """Let the thread end, and take over what it found; on the main thread, so that all processes do it alike."""
        if self._writer is None:
            return
        self._writer.join()
        self._writer = None
        outcome, cause = self._outcome
        if outcome["failure"] is not None:
            self._failure = error_of(*outcome["failure"])
            self._failure.__cause__ = cause
        if outcome["steps"]:
            self._known = {step: metric for step, metric in outcome["steps"]}

    def _agree_on_steps(self) -> dict[int, float | None]:
        """What process 0 finds in the folder, on all of them."""
        found = list(self._kept.metrics().items()) if processes.first() else []
        return {step: metric for step, metric in json.loads(processes.from_first(json.dumps(found)))}

    def _checkpoint(self, step: int) -> Path:
        path = commit.checkpoint_of(self.folder, step)
        end = time.monotonic() + (SEEN_LATE if step in self._known else 0)
        while not path.is_dir() and time.monotonic() < end:
            time.sleep(0.05)  # process 0 has it, a network file system does not show it here yet
        if not path.is_dir():
            steps = self.steps()
            there = f"it holds {', '.join(map(str, steps))}" if steps else "it holds none"
            raise FileNotFoundError(f"{self.folder} holds no checkpoint of step {step}: {there}")
        return path


_OPEN: weakref.WeakSet[Store] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    """Say what a program loses that ends without `close`: Python starts no threads any more, and Orbax needs them."""
    for store in list(_OPEN):
        try:
            store.close()
        except OSError as error:
            print(f"{error}. End with store.close() or use `with Store(...)`: the program ended first", file=sys.stderr)
