"""Where arrays live: a mesh of devices and the layout of a training on it."""

from jaxdl.parallel.active import constrain
from jaxdl.parallel.layout import Layout

__all__ = ["Layout", "constrain"]
