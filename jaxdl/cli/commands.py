"""What can be typed: each command is a frozen dataclass of its options, whose docstrings are its --help."""

from __future__ import annotations

import dataclasses
import inspect
import shutil
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import tyro
from tyro.conf import Positional, arg, subcommand

_Data = Annotated[
    Positional[str],
    arg(metavar="DATA", help="a file, a folder, or the name of a set that ships with jaxdl, such as digits"),
]
_Run = Annotated[Positional[str], arg(metavar="RUN", help="the folder of a run")]


@dataclass(frozen=True)
class Columns:
    """What to learn from what."""

    label: Annotated[
        str | None, arg(metavar="COLUMN", help_behavior_hint="(default: y or label, where there is one)")
    ] = None
    """The column to predict. For folders and zips of images it is the name of the class folder, and needs no saying."""
    goal: Literal["auto", "classes", "number"] = "auto"
    """Predict one of several classes, or a number. auto: classes when the label is text, yes/no, or a few integers."""
    weight: Annotated[str | None, arg(metavar="COLUMN", help_behavior_hint="(default: all count 1)")] = None
    """A column that says how much each example counts."""
    ignore: Annotated[tuple[str, ...], arg(metavar="COLUMN ...", help_behavior_hint="(default: none)")] = ()
    """Columns to leave out: identifiers, or what is not yet known when the prediction is needed."""
    image_size: Annotated[
        tuple[int, int] | None, arg(metavar="HEIGHT WIDTH", help_behavior_hint="(default: as they are)")
    ] = None
    """Resize images to this size; needed when they differ."""
    skip_bad_rows: bool = False
    """Leave out rows and images that cannot be read, and say how many, instead of stopping at the first. Never for
    predict, whose rows stand beside those of DATA."""


@dataclass(frozen=True)
class Network:
    """What learns."""

    model: Literal["auto", "mlp", "convnet", "linear"] = "auto"
    """auto: convnet for images, mlp for all else."""
    model_options: Annotated[
        tuple[str, ...], arg(metavar="NAME=VALUE ...", help_behavior_hint="(default: the model's)")
    ] = ()
    """Such as widths=256,64 dropout=0.2 for mlp, or width=64 depth=3 batch_norm=True for convnet."""


@dataclass(frozen=True)
class Training:
    """How it learns."""

    epochs: int = 20
    """Passes over the training data, at most."""
    batch_size: Annotated[
        int | None, arg(metavar="INT", help_behavior_hint="(default: 128, and down to 16 for small data)")
    ] = None
    """Examples per update."""
    optimizer: Literal["adamw", "adam", "sgd", "rmsprop"] = "adamw"
    """How gradients become updates; sgd has momentum 0.9."""
    learning_rate: float = 1e-3
    """How far an update goes."""
    weight_decay: Annotated[
        float | None, arg(metavar="FLOAT", help_behavior_hint="(default: 1e-4 for adamw, else 0)")
    ] = None
    """How much each update shrinks the weights."""
    balance: bool = False
    """Let every class count the same in the loss, however rare it is."""
    patience: int = 5
    """Stop after so many epochs without a better validation loss, and keep the best weights; 0 trains all epochs."""
    max_seconds: Annotated[float | None, arg(metavar="SECONDS", help_behavior_hint="(default: no limit)")] = None
    """Stop in good order after this much training."""
    precision: Literal["float32", "bf16"] = "float32"
    """bf16 computes in half the bits where the hardware has them (not on CPUs)."""
    seed: int = 0
    """The same seed gives the same run."""


@dataclass(frozen=True)
class Train:
    """Train a model on a table (CSV, TSV, Parquet, JSON Lines, libsvm; .gz where usual), on a folder or zip of class
    folders of images, or on arrays (.npz with x and y).

    Numbers are standardised, text columns one-hot encoded, missing values filled; what was learned about the columns
    is saved with the run, so that evaluate and predict read further data the same way. The run's folder holds
    checkpoints, metrics and report.html, and a run that was stopped or killed goes on with: jaxdl resume RUN

    Examples:

      jaxdl train digits
      jaxdl train bank.csv.gz --label y --ignore duration
      jaxdl train photos.zip --validation photos-test.zip --epochs 30 --output runs/photos
    """

    data: _Data
    validation: Annotated[
        str | None,
        arg(metavar="PATH|FRACTION", help_behavior_hint="(default: 0.2, or the test part of a set that ships)"),
    ] = None
    """Data to validate on: a file or folder like DATA, or the fraction of DATA to hold out (0: none)."""
    output: Annotated[str | None, arg(metavar="FOLDER", help_behavior_hint="(default: runs/DATA-MODEL, numbered)")] = (
        None
    )
    """The run's folder."""
    quiet: bool = False
    """Print nothing but what went wrong."""
    columns: Columns = field(default_factory=Columns)
    network: Network = field(default_factory=Network)
    training: Training = field(default_factory=Training)

    def __call__(self) -> int:
        from jaxdl.cli.train import train

        return train(self)


@dataclass(frozen=True)
class Resume:
    """Go on with a run that was stopped or killed: from its last good checkpoint, with its settings, as if nothing
    had been.

    The data are read from where they were; if they have changed, that is said and nothing is trained.

    Examples:

      jaxdl resume runs/bank-mlp
      jaxdl resume runs/bank-mlp --epochs 40
    """

    run: _Run
    data: Annotated[str | None, arg(metavar="DATA", help_behavior_hint="(default: where they were)")] = None
    """Where the same training data lie now."""
    validation: Annotated[str | None, arg(metavar="PATH", help_behavior_hint="(default: where they were)")] = None
    """Where the same validation data lie now."""
    epochs: Annotated[int | None, arg(metavar="INT", help_behavior_hint="(default: as many as were asked for)")] = None
    """Train until so many epochs are done in all, more than were asked for at first."""
    quiet: bool = False
    """Print nothing but what went wrong."""

    def __call__(self) -> int:
        from jaxdl.cli.train import resume

        return resume(self)


@dataclass(frozen=True)
class Evaluate:
    """Measure a run's best model on labelled data: loss and accuracy, the area under the ROC curve for two classes,
    the confusion matrix; or the errors in the label's own unit.

    Examples:

      jaxdl evaluate runs/bank-mlp test.csv
      jaxdl evaluate runs/bank-mlp test.csv --json | jq .accuracy
    """

    run: _Run
    data: _Data
    json: bool = False
    """Print one JSON object instead of a table."""

    def __call__(self) -> int:
        from jaxdl.cli.scoring import evaluate

        return evaluate(self)


@dataclass(frozen=True)
class Predict:
    """Predict with a run's best model: one CSV row an example, in the order of DATA.

    For classes the columns are prediction and one probability:CLASS each, for a number it is prediction; images begin
    with their path. A label column in DATA is not needed and not read. In a terminal the first rows are shown; piped
    or with --output, all.

    Examples:

      jaxdl predict runs/bank-mlp new.csv --output predictions.csv
      jaxdl predict runs/bank-mlp new.csv | cut -d, -f1 | sort | uniq -c
    """

    run: _Run
    data: _Data
    output: Annotated[str | None, arg(metavar="FILE", help_behavior_hint="(default: the standard output)")] = None
    """The CSV file to write."""

    def __call__(self) -> int:
        from jaxdl.cli.scoring import predict

        return predict(self)


@dataclass(frozen=True)
class Plan:
    """Say what a training would need on devices that are not at hand: bytes on each, what each sends in a step, and an
    estimate of its seconds. The real step is compiled for virtual devices, without weights or data.

    SCRIPT defines program_parts(), which returns jaxdl.planning.Parts: the task, the optimizer, the shape of one
    example and the batch size. Without --parallel, the presets are ranked by formula.

    Examples:

      jaxdl plan train.py --devices 64
      jaxdl plan train.py --parallel fsdp=64,tensor=8 --devices 512 --device h100
      jaxdl plan train.py --parallel mics,group=8 --devices 256 --device v5e
    """

    script: Annotated[Positional[str], arg(metavar="SCRIPT", help="a Python file that defines program_parts()")]
    devices: int
    """How many devices."""
    parallel: Annotated[
        str | None, arg(metavar="PRESET|AXIS=SIZE,...", help_behavior_hint="(default: rank the presets)")
    ] = None
    """How to spread it: a preset, and axes with their sizes, such as fsdp=64,tensor=8 or stage=4,data=-1."""
    device: str = "h100"
    """Whose figures to assume: h100, h200, a100, v5e, v5p or v6e."""
    batch_size: Annotated[int | None, arg(metavar="INT", help_behavior_hint="(default: the script's)")] = None
    """Examples per update, over all devices."""

    def __call__(self) -> int:
        from jaxdl.cli.plan import plan

        return plan(self)


@dataclass(frozen=True)
class Launch:
    """Run a script in several processes of this host, one share of its devices each, and start them again from the
    newest checkpoint when one dies, hangs or is preempted. What follows SCRIPT is the script's own.

    In a job of Slurm, Open MPI or Kubernetes leave out -n: each of its processes joins the others, checks its devices
    and runs the script. docs/launch.md has the exit codes, and examples for clusters.

    Use: jaxdl launch [OPTIONS] SCRIPT|-m MODULE [ARGUMENT ...]

    Examples:

      jaxdl launch -n 4 train.py --epochs 20
      jaxdl launch -n 2 --devices-per-process 4 -m project.train     (on a CPU)
      srun jaxdl launch train.py
    """

    processes: Annotated[int | None, arg(aliases=["-n"], metavar="INT", help_behavior_hint="(default: 1)")] = None
    """How many processes; the GPUs are shared out evenly."""
    devices_per_process: Annotated[
        int | None, arg(metavar="INT", help_behavior_hint="(default: as XLA_FLAGS says, else 1)")
    ] = None
    """Virtual devices of each process, on a CPU."""
    restarts: int = 3
    """Restarts without a further step between them."""
    hang_seconds: float = 600.0
    """So long without a sign of progress, or ten times the longest wait so far, is a hang; 0: never."""
    startup_seconds: float = 1800.0
    """The same before the first step, and when training has finished; 0: never."""
    health_seconds: float = 120.0
    """The same during the check of the devices; 0: never."""
    no_health: bool = False
    """Do not check the devices before the start."""
    grace: float = 30.0
    """Seconds that processes have to save and end when the job is asked to stop."""
    logs: Annotated[str | None, arg(metavar="FOLDER", help_behavior_hint="(default: none)")] = None
    """Keep the whole output of each process in files there."""
    show: Literal["all", "first", "none"] = "all"
    """Whose output to show. The last lines of a process that fails are shown in any case."""
    quiet: bool = False
    """Say nothing of starts and restarts, but why it ended if it ended badly."""
    command: Annotated[tyro.conf.Suppress[tuple[str, ...]], arg(name="command")] = ()

    def __call__(self) -> int:
        from jaxdl.cli.launch import launch

        return launch(self)


@dataclass(frozen=True)
class Runs:
    """List the runs below a folder: status, epochs, the best of the metric that was watched, when and how long.

    Example: jaxdl runs
    """

    root: Annotated[Positional[str], arg(metavar="ROOT", help="where to look")] = "runs"

    def __call__(self) -> int:
        from jaxdl.cli.listing import runs

        return runs(self)


@dataclass(frozen=True)
class Cache:
    """Show where compiled programs are kept, so that the second run of a program starts at once; or clear them.

    The folder is that of JAX_COMPILATION_CACHE_DIR, or lies below JAXDL_CACHE or the user's cache folder;
    JAXDL_CACHE=off keeps none.
    """

    clear: bool = False
    """Delete them."""

    def __call__(self) -> int:
        from jaxdl.cli.listing import cache

        return cache(self)


Command = (
    Annotated[Train, subcommand("train", description="Train a model on a table, on images or on arrays.")]
    | Annotated[Resume, subcommand("resume", description="Go on with a run that was stopped or killed.")]
    | Annotated[Evaluate, subcommand("evaluate", description="Measure a run's best model on labelled data.")]
    | Annotated[Predict, subcommand("predict", description="Predict with a run's best model, as CSV.")]
    | Annotated[Plan, subcommand("plan", description="What a training needs on devices that are not at hand.")]
    | Annotated[Launch, subcommand("launch", description="Run a script in several processes, watched and restarted.")]
    | Annotated[Runs, subcommand("runs", description="List the runs below a folder.")]
    | Annotated[Cache, subcommand("cache", description="Show or clear the compiled programs.")]
)
_COMMANDS = {
    "train": Train, "resume": Resume, "evaluate": Evaluate, "predict": Predict, "plan": Plan,
    "launch": Launch, "runs": Runs, "cache": Cache,
}  # fmt: skip
_CONFIG = (tyro.conf.FlagCreatePairsOff, tyro.conf.OmitArgPrefixes)
_ABOUT = "Train, measure and use models from a shell. Each command has a --help of its own: jaxdl train --help"


def parse(words: Sequence[str]) -> Callable[[], int]:
    """The command that `words` spell, ready to be called.

    Raises:
        SystemExit: after the help or the version (code 0), or after saying what was not understood (code 2).
    """
    if list(words) == ["--version"]:
        import jaxdl

        print(f"jaxdl {jaxdl.__version__}")
        raise SystemExit(0)
    if words and words[0] in _COMMANDS:  # alone, a command shows its whole docstring
        command = _COMMANDS[words[0]]
        about = _wrapped(inspect.getdoc(command) or "")
        own, rest = list(words[1:]), tuple[str, ...]()
        if command is Launch:
            from jaxdl.cli.launch import split

            own, rest = split(own, Launch)
        read: Any = tyro.cli(command, args=own, prog=f"jaxdl {words[0]}", description=about, config=_CONFIG)
        return dataclasses.replace(read, command=rest) if rest else read
    chosen: Any = Command  # a union, which mypy does not take for a type here
    return tyro.cli(chosen, args=words or ["--help"], prog="jaxdl", description=_ABOUT, config=_CONFIG)


def _wrapped(text: str) -> str:
    """Paragraphs within the terminal's width and examples as they are, all indented: a line that begins with a space,
    tyro leaves as it is; others it joins, for the terminal to break in the middle of words."""
    width = min(shutil.get_terminal_size().columns, 100)
    parts = []
    for paragraph in text.split("\n\n"):
        if paragraph.startswith(" "):
            parts.append(textwrap.indent(paragraph, " "))
        else:
            parts.append(textwrap.fill(" ".join(paragraph.split()), width, initial_indent=" ", subsequent_indent=" "))
    return "\n\n".join(parts)
