"""When a run is saved, and what waits for its save."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxdl.checkpoint import CorruptCheckpoint, Restored, Store
from jaxdl.core.program import Program
from jaxdl.core.state import State
from jaxdl.parallel import processes
from jaxdl.settings import Checkpoint

#: Seconds of training between two saves by default.
SAVE_SECONDS = 10.0


def restore_state(store: Store, program: Program, *, step: int | None = None) -> Restored:
    """The state of a checkpoint (the newest good one when None), on the mesh of this program, whatever mesh saved it.

    What devices owe each other (`Parallel(compress="int8")`) belongs to the mesh that saved it; on another it begins at
    zero, and a note says so.

    Raises:
        ValueError: the checkpoint holds another state.
    """
    like = program.abstract_state
    try:
        return store.restore(like, step=step)
    except CorruptCheckpoint:
        raise
    except ValueError:
        bare = like.replace(extra={name: tree for name, tree in like.extra.items() if name != "residual"})
        restored = store.restore(bare, step=step, strict=False)
        if restored.new or any(not path.startswith("extra/residual") for path in restored.left):
            raise
    tree = restored.tree
    if "residual" in like.extra:
        owed = like.extra["residual"]
        zeros = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), owed)
        placed = program.layout.put(zeros, jax.tree.map(lambda x: x.sharding, owed))
        tree = tree.replace(extra={name: placed if name == "residual" else tree.extra[name] for name in like.extra})
    note = "saved on another mesh: what compressed gradients still owed is forgotten"
    return restored._replace(tree=tree, notes=(*restored.notes, note))


class Entry(NamedTuple):
    """What goes into one checkpoint.

    Attributes:
        step: batches drawn.
        state: all of the training's.
        manifest: beside it, in Python's and numpy's own types.
        metric: the value of the metric that is followed, smaller is better; None where there is none.
    """

    step: int
    state: State
    manifest: dict[str, Any]
    metric: float | None


class Saving:
    """The saves of one call of fit: `Checkpoint` says when.

    The best epoch that early stopping follows is one more reason to save, but no reason to save more often: until the
    next save is due its state waits in memory, and then goes to disk first. So whatever is resumed from, the best
    epoch before it is on disk too.
    """

    def __init__(self, store: Store | None, checkpoint: Checkpoint | None, first_step: int):
        self._store, self._checkpoint = store, checkpoint
        self._first_step = first_step
        self._step: int | None = first_step or None  # of the last save
        self._at = time.perf_counter()
        self._waiting: Entry | None = None
        self._sound = jax.jit(_sound)

    @property
    def on(self) -> bool:
        """Whether anything is saved at all."""
        return self._store is not None and self._checkpoint is not None

    def due_within(self, step: int) -> bool:
        """Whether a number of steps has passed, wherever in the epoch."""
        if self._store is None or self._checkpoint is None or not isinstance(self._checkpoint.every, int):
            return False
        since = self._step if self._step is not None else self._first_step
        return step - since >= self._checkpoint.every

    def due(self, step: int, *, last: bool, ends: bool, best: bool) -> bool:
        """Whether to save now.

        Args:
            step: batches drawn.
            last: nothing is trained after this.
            ends: an epoch ends here.
            best: it is the best one so far.
        """
        if self._store is None or self._checkpoint is None or step == self._step:
            return False
        if last or self.due_within(step) or (best and self._checkpoint.best is not None):
            return True
        every = self._checkpoint.every
        if not ends or every is not None:
            return ends and every == "epoch"
        early = self._step is None or time.perf_counter() - self._at >= SAVE_SECONDS
        return processes.any_of(early)[0]  # each process has its own clock

    def sound(self, state: State) -> bool:
        """Whether a state can be gone on from; one that cannot is never saved."""
        return bool(self._sound(state.params, state.model_state))

    def hold(self, entry: Entry) -> None:
        """Keep the best epoch so far until the next save; its state must be a copy, which training does not consume."""
        self._waiting = entry

    def save(self, entry: Entry, failed: Callable[[str], None], *, best: bool) -> None:
        """Begin to save: the best epoch that waits, unless this is a better one, and this one.

        `failed` hears of a save before that did not succeed.
        """
        assert self._store is not None
        waiting, self._waiting = self._waiting, None
        for each in (entry,) if best or waiting is None else (waiting, entry):
            manifest = _plain(each.manifest)
            try:
                self._store.save(each.step, each.state, manifest=manifest, metric=each.metric)
            except OSError as error:  # of the save before this one
                failed(str(error))
                self._store.save(each.step, each.state, manifest=manifest, metric=each.metric)
        self._step, self._at = entry.step, time.perf_counter()


def _sound(params: Any, model_state: Any) -> jax.Array:
    """Whether parameters and statistics are numbers: [] bool. Statistics may start at infinity, but never are nan."""
    checks = [
        test(leaf).all()
        for tree, test in ((params, jnp.isfinite), (model_state, lambda x: ~jnp.isnan(x)))
        for leaf in jax.tree.leaves(tree)
        if jnp.issubdtype(leaf.dtype, jnp.floating)
    ]
    return jnp.stack(checks).all() if checks else jnp.bool_(True)


def _plain(value: Any) -> Any:
    """Python numbers for JSON (NaN stays NaN: the store's reader takes it back)."""
    if isinstance(value, dict):
        return {name: _plain(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    return value.item() if isinstance(value, (np.generic, np.ndarray)) and np.ndim(value) == 0 else value
