"""Where arrays live: a mesh of devices and the layout of a training on it."""

from jaxdl.parallel.active import (
    constrain,
    constrain_gradient,
    constrain_rows,
    current,
    gathered,
    on_a_mesh,
    reduce_axes,
    reducing_over,
    tracing,
)
from jaxdl.parallel.layout import Layout
from jaxdl.parallel.mesh import AXES, BATCH_AXES, PRESETS, Parallel, as_parallel

__all__ = [
    "AXES",
    "BATCH_AXES",
    "PRESETS",
    "Layout",
    "Parallel",
    "as_parallel",
    "constrain",
    "constrain_gradient",
    "constrain_rows",
    "current",
    "gathered",
    "on_a_mesh",
    "reduce_axes",
    "reducing_over",
    "tracing",
]
