"""The command line that experiments with a short and a full run share; each script says what its own words mean."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any


def parsed(
    arguments: Sequence[str] | None, text: str | None, data: str, *, output: str, part: str
) -> argparse.Namespace:
    """The options --data, --output, --full, --minutes, --epochs, --width, one for a part of the data, and --seed.

    Args:
        arguments: of the command; None: those that the script was called with.
        text: the script's docstring, which --help prints.
        data: what the folder holds.
        output: the run's folder where the command names none.
        part: the name of the option that limits the data, which is what it counts ("sentences").
    """
    parser = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help=f"the folder that holds {data}")
    parser.add_argument("--output", default=output, help="the run's folder; a run in it is resumed")
    parser.add_argument("--full", action="store_true", help="the large network, for an accelerator")
    parser.add_argument("--minutes", type=float, help="stop after so long; the same command goes on")
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--width", type=int)
    parser.add_argument(f"--{part}", type=int, help="use only so many of each file, for a quick look")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args(arguments)


def unfinished(run: Any, epochs: int) -> bool:
    """Whether --minutes ended a run before its last epoch; says so."""
    missing = len(run.history) < epochs
    if missing:
        print(f"stopped after {len(run.history)} of {epochs} epochs: the same command goes on from here")
    return missing
