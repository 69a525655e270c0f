"""Which checkpoints of a folder stay: the newest, and the best."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from jaxdl.checkpoint.commit import checkpoint_of, steps_in
from jaxdl.checkpoint.manifest import CorruptCheckpoint, read_manifest


class Kept:
    """What is known of the checkpoints in a folder: their metrics, and which are corrupt.

    Args:
        keep: how many of the newest stay; None keeps all.
        keep_best: the one of the smallest metric stays too.
    """

    def __init__(self, folder: Path, keep: int | None, *, keep_best: bool) -> None:
        self._folder, self._keep, self._keep_best = folder, keep, keep_best
        self._metrics: dict[int, float | None] = {}
        self._corrupt: set[int] = set()

    def forget(self, step: int) -> None:
        """The checkpoint of a step is another one now, or gone."""
        self._metrics.pop(step, None)
        self._corrupt.discard(step)

    def distrust(self, step: int) -> None:
        """The checkpoint of a step is corrupt."""
        self._corrupt.add(step)

    def metrics(self) -> dict[int, float | None]:
        """The metric of each step in the folder, ascending; None of a corrupt one, which is not to be trusted."""
        steps = steps_in(self._folder)
        for step in steps:
            if step not in self._metrics:
                try:
                    self._metrics[step] = read_manifest(checkpoint_of(self._folder, step), step=step)["metric"]
                except CorruptCheckpoint:
                    self._corrupt.add(step)  # restore and verify say why
        return {step: None if step in self._corrupt else self._metrics.get(step) for step in steps}

    def surplus(self, saved: int) -> list[int]:
        """The steps to delete after a save: neither among the newest `keep`, nor the best, nor corrupt ones.

        Corrupt ones neither count nor go: they may be readable elsewhere, and they must not push out a sound one.
        """
        if self._keep is None:
            return []
        metrics = self.metrics() if self._keep_best else {}
        sound = [step for step in steps_in(self._folder) if step not in self._corrupt]
        newest = [step for step in sound if step != saved][::-1][: self._keep - 1]
        return [step for step in sound if step not in {saved, best_of(metrics), *newest}]


def best_of(metrics: Mapping[int, float | None]) -> int | None:
    """The step of the smallest metric, the earliest of equals; None where no step has one."""
    known = [(metric, step) for step, metric in metrics.items() if metric is not None]
    return min(known)[1] if known else None
