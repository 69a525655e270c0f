"""jaxdl: a compiled training library for JAX. This file is its map; each name is imported when first used."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOME = {
    # what to learn
    "Task": "core.task",
    "Loss": "core.task",
    "Context": "core.task",
    "create_model": "models",
    "list_models": "models",
    "model_info": "models",
    "summarize": "models",
    # how to learn it
    "Step": "core.step",
    "Measure": "core.step",
    "Report": "core.step",
    "Evaluation": "core.step",
    "State": "core.state",
    "gradient_step": "core.gradient",
    "lbfgs_step": "core.lbfgs",
    "row_sparse_step": "core.row_sparse",
    "accumulate": "core.transform",
    "guard": "core.transform",
    "average": "core.transform",
    "trials": "core.trials",
    "step_key": "core.keys",
    # train, evaluate, predict, resume
    "fit": "fitting",
    "Run": "run",
    "load_run": "run",
    "Checkpoint": "settings",
    "EarlyStopping": "settings",
    "ReduceOnPlateau": "settings",
    "ProgramOptions": "settings",
    # how it runs
    "Feed": "core.program",
    "Program": "core.program",
    "RunPlan": "core.plan",
    "ProgramReport": "core.summary",
    "largest_batch_size": "core.summary",
    "Layout": "parallel",
    "Parallel": "parallel",
    "join": "parallel.join",
    # tools
    "check_gradients": "debug",
    "list_runs": "tracking",
    "write_report": "report",
    # rooms
    "checkpoint": None,
    "compile_cache": "core",
    "data": None,
    "debug": None,
    "metrics": None,
    "models": None,
    "nn": None,
    "optim": None,
    "parallel": None,
    "tasks": None,
    "tracking": None,
}
__all__ = sorted(_HOME)

if TYPE_CHECKING:
    from jaxdl import checkpoint as checkpoint
    from jaxdl import data as data
    from jaxdl import debug as debug
    from jaxdl import metrics as metrics
    from jaxdl import models as models
    from jaxdl import nn as nn
    from jaxdl import optim as optim
    from jaxdl import parallel as parallel
    from jaxdl import tasks as tasks
    from jaxdl import tracking as tracking
    from jaxdl.core import compile_cache as compile_cache
    from jaxdl.core.gradient import gradient_step as gradient_step
    from jaxdl.core.keys import step_key as step_key
    from jaxdl.core.lbfgs import lbfgs_step as lbfgs_step
    from jaxdl.core.plan import RunPlan as RunPlan
    from jaxdl.core.program import Feed as Feed
    from jaxdl.core.program import Program as Program
    from jaxdl.core.row_sparse import row_sparse_step as row_sparse_step
    from jaxdl.core.state import State as State
    from jaxdl.core.step import Evaluation as Evaluation
    from jaxdl.core.step import Measure as Measure
    from jaxdl.core.step import Report as Report
    from jaxdl.core.step import Step as Step
    from jaxdl.core.summary import ProgramReport as ProgramReport
    from jaxdl.core.summary import largest_batch_size as largest_batch_size
    from jaxdl.core.task import Context as Context
    from jaxdl.core.task import Loss as Loss
    from jaxdl.core.task import Task as Task
    from jaxdl.core.transform import accumulate as accumulate
    from jaxdl.core.transform import average as average
    from jaxdl.core.transform import guard as guard
    from jaxdl.core.trials import trials as trials
    from jaxdl.debug import check_gradients as check_gradients
    from jaxdl.fitting import fit as fit
    from jaxdl.models import create_model as create_model
    from jaxdl.models import list_models as list_models
    from jaxdl.models import model_info as model_info
    from jaxdl.models import summarize as summarize
    from jaxdl.parallel import Layout as Layout
    from jaxdl.parallel import Parallel as Parallel
    from jaxdl.parallel.join import join as join
    from jaxdl.report import write_report as write_report
    from jaxdl.run import Run as Run
    from jaxdl.run import load_run as load_run
    from jaxdl.settings import Checkpoint as Checkpoint
    from jaxdl.settings import EarlyStopping as EarlyStopping
    from jaxdl.settings import ProgramOptions as ProgramOptions
    from jaxdl.settings import ReduceOnPlateau as ReduceOnPlateau
    from jaxdl.tracking import list_runs as list_runs


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        import difflib

        near = difflib.get_close_matches(name, __all__, 1)
        hint = f": did you mean {near[0]!r}?" if near else ""
        raise AttributeError(f"module 'jaxdl' has no attribute {name!r}{hint}")
    home = _HOME[name]
    if home is None:
        return importlib.import_module(f"jaxdl.{name}")
    value = getattr(importlib.import_module(f"jaxdl.{home}"), name, None)
    if value is None:  # a module in a package
        value = importlib.import_module(f"jaxdl.{home}.{name}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
