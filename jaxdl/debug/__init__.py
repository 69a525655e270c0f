"""Find what is wrong with a training: gradient checking."""

from __future__ import annotations

from jaxdl.debug.gradients import BlockCheck, GradientReport, check_gradients

__all__ = ["BlockCheck", "GradientReport", "check_gradients"]
