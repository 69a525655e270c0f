"""`jaxdl plan`: what a training would need on devices that are not at hand."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jaxdl.cli.commands import Plan


def plan(options: Plan) -> int:
    """Print the plan of one mesh, or the presets in their order."""
    from jaxdl import planning

    if options.devices < 1:
        raise ValueError(f"--devices {options.devices}: give a number of at least 1")
    if options.parallel is None:
        found = planning.rank(options.script, options.devices, chip=options.device, batch_size=options.batch_size)
        print(planning.ranking_text(found, options.devices, options.device))
    else:
        one = planning.plan(
            options.script, options.parallel, options.devices, chip=options.device, batch_size=options.batch_size
        )
        print(one)
    return 0
