"""Going on with a run: its newest good checkpoint, if it is this very run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from jaxdl.checkpoint import CorruptCheckpoint, Restored, Store
from jaxdl.configuration import differences, environment
from jaxdl.core.plan import RunPlan
from jaxdl.core.program import Program
from jaxdl.saving import restore_state
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
    saved = _configuration(store, folder, store.steps()[-1])
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
    restored = restore_state(store, program)
    notes = list(restored.notes)
    now = environment(program.layout)
    changed = [
        f"{name} {record[name]} -> {now[name]}"
        for name in ("jax", "device", "cpus", "mesh", "processes")
        if record.get(name, now[name]) != now[name]
    ]
    if changed:
        notes.append(f"{', '.join(changed)}: the run goes on, but no longer bit for bit as it would have")
    restored = restored._replace(notes=tuple(notes))
    if steps_an_epoch(restored.manifest["configuration"]["config"]) != program.feed.steps_per_epoch:
        return _renumbered(program, store, folder, config, restored)
    folder.rewind(restored.step)
    return restored


def steps_an_epoch(config: dict[str, Any]) -> int:
    """Batches an epoch of a saved configuration."""
    return int(config.get("steps_per_epoch") or -(-int(config["examples"]) // int(config["batch_size"])))


def _configuration(store: Store, folder: RunFolder, step: int) -> dict[str, Any]:
    """What the checkpoint of a step was saved with; the folder's own file where that manifest is damaged. (The file is
    written when a run begins, so it may already be of a run that was killed before its first save.)"""
    try:
        return store.manifest(step)["configuration"]["config"]
    except (CorruptCheckpoint, FileNotFoundError, KeyError):
        return folder.read_json("config.json")


def _renumbered(
    program: Program, store: Store, folder: RunFolder, config: dict[str, Any], restored: Restored
) -> Restored:
    """The same state at the same place of its epoch, counted in steps of another length.

    It is saved at once under its new number, and the checkpoints of larger numbers go: the newest must be the largest.
    """
    manifest = restored.manifest["configuration"]
    old, new = steps_an_epoch(manifest["config"]), program.feed.steps_per_epoch

    def number(step: int) -> int:
        return round(step / old * new)

    step = number(restored.step)
    tree = restored.tree.replace(step=program.layout.put(np.int32(step)))
    history = [record | {"step": number(record["step"])} for record in manifest["progress"]["history"]]
    how = program.plan.as_dict() | environment(program.layout)
    manifest = {"config": config, "program": how, "progress": manifest["progress"] | {"history": history}}
    store.save(step, tree, manifest=manifest, metric=restored.manifest["metric"], wait=True)
    for other in store.steps():
        if other > step:
            store.delete(other)
    folder.rewind(-1)  # what was recorded is counted in the old steps; the history is in the checkpoint
    for record in history:
        folder.append({"kind": "epoch"} | record)
    note = f"step {restored.step} of {old} an epoch is step {step} of {new} an epoch"
    return restored._replace(
        step=step, tree=tree, manifest=restored.manifest | {"configuration": manifest}, notes=(*restored.notes, note)
    )


def saved_configuration(saving: Checkpoint | None) -> dict[str, Any] | None:
    """What the run in this folder was configured as; None where there is nothing to resume."""
    if saving is None or not any((Path(saving.folder) / "checkpoints").glob("[0-9]*")):
        return None
    return RunFolder.open(saving.folder).read_json("config.json")
