"""Going on with a run: its newest good checkpoint, if it is this very run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from jaxdl.checkpoint import Restored, Store
from jaxdl.configuration import differences, environment
from jaxdl.core.plan import RunPlan
from jaxdl.core.program import Program
from jaxdl.settings import Checkpoint, ProgramOptions
from jaxdl.tracking import RunFolder


def resume(
    program: Program,
    store: Store,
    folder: RunFolder,
    config: dict[str, Any],
    saving: Checkpoint,
    options: ProgramOptions,
) -> Restored | None:
    """The newest good checkpoint of this very run, or None for a fresh folder."""
    if not store.steps():
        if folder.has("metrics.jsonl"):
            folder.rewind(-1)  # a run that was killed before its first save starts anew
        return None
    saved = folder.read_json("config.json")
    differs = differences(saved, config, saving.allow)
    if differs:
        raise ValueError(
            f"{saving.folder} holds another run: {'; '.join(differs)}. Give another folder, the old settings, or "
            "Checkpoint(folder, allow=(...)) with the names that may differ"
        )
    record = folder.read_json("program.json")
    plan = RunPlan(record["mode"], record["steps_per_dispatch"], "as the run began")
    if options == ProgramOptions() or options.tune:
        if saved["batch_size"] == config["batch_size"] and saved["examples"] == config["examples"]:
            program.plan = plan
    elif (plan.mode, plan.steps_per_dispatch) != (program.plan.mode, program.plan.steps_per_dispatch):
        raise ValueError(
            f"{saving.folder} was run as {plan}, and is now asked to run as {program.plan}: a resume keeps to how the "
            "run began, since another way of running may round differently"
        )
    restored = store.restore(program.abstract_state)
    notes = list(restored.notes)
    now = environment(program.layout)
    changed = [
        f"{name} {record[name]} -> {now[name]}" for name in ("jax", "device", "cpus") if record[name] != now[name]
    ]
    if changed:
        notes.append(f"{', '.join(changed)}: the run goes on, but no longer bit for bit as it would have")
    tree = restored.tree
    if saved["batch_size"] != config["batch_size"] or saved["examples"] != config["examples"]:
        old = -(-int(saved["examples"]) // int(saved["batch_size"]))
        step = round(int(tree.step) / old * program.feed.steps_per_epoch)
        tree = tree.replace(step=program.layout.put(np.int32(step)))
        notes.append(
            f"step {restored.step} of {old} an epoch is step {step} of {program.feed.steps_per_epoch} an epoch"
        )
    folder.rewind(restored.step)
    return restored._replace(tree=tree, notes=tuple(notes))


def saved_configuration(saving: Checkpoint | None) -> dict[str, Any] | None:
    """What the run in this folder was configured as; None where there is nothing to resume."""
    if saving is None or not any((Path(saving.folder) / "checkpoints").glob("[0-9]*")):
        return None
    return RunFolder.open(saving.folder).read_json("config.json")
