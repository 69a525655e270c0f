"""What the reports of an epoch add up to."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from jaxdl.core.step import Report


class Sums:
    """What the reports of an epoch add up to, in float64; saved with a checkpoint in the middle of an epoch."""

    def __init__(self, saved: dict[str, Any] | None = None):
        saved = saved or {}
        self.loss = float(saved.get("loss", 0.0))
        self.weight = float(saved.get("weight", 0.0))
        self.skipped = int(saved.get("skipped", 0))
        self.seconds = float(saved.get("seconds", 0.0))
        self.metrics = {name: np.asarray(value) for name, value in saved.get("metrics", {}).items()}
        self.shown: dict[str, float] = dict(saved.get("shown", {}))

    def add(self, report: Report) -> None:
        """One dispatch more."""
        weight = report.scalars["weight"].astype(np.float64)
        loss = report.scalars["loss"].astype(np.float64)
        total = float(np.dot(loss, weight))
        if not math.isfinite(total):  # perhaps only where the weight is 0
            total = float(np.dot(loss[weight > 0], weight[weight > 0]))
        self.loss += total
        self.weight += float(weight.sum())
        self.skipped += int(report.scalars["skipped"].sum()) if "skipped" in report.scalars else 0
        for name, numbers in report.scalars.items():
            if name.startswith("shown/"):
                mean = np.dot(numbers[weight > 0].astype(np.float64), weight[weight > 0])
                self.shown[name] = self.shown.get(name, 0.0) + float(mean)
        for name, value in report.sums.items():
            self.metrics[name] = self.metrics[name] + value if name in self.metrics else value

    def as_dict(self) -> dict[str, Any]:
        """For a checkpoint's manifest."""
        metrics = {name: value.tolist() for name, value in self.metrics.items()}
        return {"loss": self.loss, "weight": self.weight, "skipped": self.skipped, "seconds": self.seconds,
                "metrics": metrics, "shown": self.shown}  # fmt: skip
