"""Plans: formulas against compiled steps, what the command prints, and sentences where sizes do not divide."""

from __future__ import annotations

import dataclasses
import functools
import math
from pathlib import Path

import jax
import pytest

import jaxdl
from jaxdl.cli import main
from jaxdl.parallel import AXES, Parallel
from jaxdl.parallel.bytes import (
    held,
    layout_of,
    sent_for_context,
    sent_for_parameters,
    sent_for_pipeline,
    sent_for_tensor,
)
from jaxdl.parallel.pipeline import Schedule
from jaxdl.planning import (
    CHIPS,
    Parts,
    chip_named,
    compile_here,
    parallel_from,
    parts_of,
    plan,
    rank,
    resolved,
    shapes_of,
)
from jaxdl.planning.compiled import Compiled, batch_bytes
from jaxdl.planning.estimate import estimate, layers_of
from jaxdl.planning.parts import shrunk

WIDTH, BATCH, LAYERS = 128, 32, 4

SCRIPT = """
import jaxdl
from jaxdl.planning import Parts


def program_parts():
    task = jaxdl.tasks.classification(jaxdl.create_model("mlp", num_classes=10, widths=(512, 512)))
    return Parts(task=task, optimizer=jaxdl.optim.adam(), example={"x": ((64,), "float32"), "y": ((), "int32")},
                 batch_size=64)
"""


@functools.cache
def parts() -> Parts:
    """A GPT of four layers in a loop, over 64 tokens, its vectors tied."""
    options = {"num_classes": 256, "width": WIDTH, "depth": LAYERS, "heads": 4, "length": 72, "unroll": False}
    task = jaxdl.tasks.language_model(jaxdl.create_model("gpt", **options))
    optimizer = jaxdl.optim.adamw(1e-3)
    return Parts(task=task, optimizer=optimizer, example={"x": ((65,), "int32")}, batch_size=BATCH)


@functools.cache
def shapes():
    return shapes_of(parts())


def on_paper() -> Parallel:
    return resolved(parallel_from("fsdp"), 8, 8)


@functools.cache
def on_eight(text: str) -> tuple[Parallel, Compiled]:
    parallel = dataclasses.replace(resolved(parallel_from(text), 8, 8), shard_above=1024)
    return parallel, compile_here(parts(), parallel)


def layout(parallel: Parallel):
    devices = math.prod(getattr(parallel, axis) for axis in AXES)
    return layout_of(parallel, devices, parts().task.logical_axes)


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "train.py"
    path.write_text(SCRIPT)
    return path


# ---- formulas against compiled programs ----------------------------------------------------------------------------

PRESETS = (
    "fsdp",
    "mics",
    *(pytest.param(text, marks=pytest.mark.slow) for text in ("ddp", "zero1", "mics+zero1", "fsdp=4,tensor=2")),
)
MIXES = [pytest.param(text, marks=pytest.mark.slow) for text in ("stage=4,data=2", "context=4,data=2")]


@pytest.mark.devices8
@pytest.mark.parametrize("text", [*PRESETS, *MIXES])
def test_what_is_held_is_exact(text: str) -> None:
    parallel, compiled = on_eight(text)
    mesh = layout(parallel)
    assert held(mesh, shapes()[0]).state + batch_bytes(parts(), mesh.batch_shards) == compiled.arguments


@pytest.mark.devices8
@pytest.mark.parametrize("text", PRESETS)
def test_what_is_sent_is_within_a_tenth(text: str) -> None:
    parallel, compiled = on_eight(text)
    mesh = layout(parallel)
    state, _, uses = shapes()
    found = sum(sent_for_parameters(mesh, state.params, uses=uses, scatter=False).values())
    layers = layers_of(parts(), state.params)
    assert layers == (LAYERS, WIDTH, 4)
    if mesh.sizes["tensor"] > 1:
        activation = BATCH // mesh.batch_shards * 64 * WIDTH * 4
        found += sum(sent_for_tensor(LAYERS, activation, 2).values())
    assert found == pytest.approx(sum(compiled.sent.values()), rel=0.1)


@pytest.mark.slow
@pytest.mark.devices8
def test_a_pipeline_hands_on_what_the_formula_says() -> None:
    _, compiled = on_eight("stage=4,data=2")
    microbatch = BATCH // 2 // 4 * 64 * WIDTH * 4
    assert compiled.sent["collective-permute", ("stage",)] == sum(
        sent_for_pipeline(Schedule(4, 1, 4), microbatch).values()
    )


@pytest.mark.slow
@pytest.mark.devices8
def test_a_ring_passes_on_what_the_formula_says() -> None:
    _, compiled = on_eight("context=4,data=2")
    keys = 2 * (BATCH // 2) * (64 // 4) * WIDTH * 4
    expected = sum(sent_for_context(LAYERS, keys, 4).values())
    assert compiled.sent["collective-permute", ("context",)] == pytest.approx(expected, rel=0.01)


@pytest.mark.devices8
def test_nothing_is_allocated(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a plan put something on a device")

    monkeypatch.setattr(jax, "device_put", refuse)
    task = jaxdl.tasks.classification(jaxdl.create_model("mlp", num_classes=10, widths=(512, 512)))
    example = {"x": ((64,), "float32"), "y": ((), "int32")}
    huge = Parts(task=task, optimizer=jaxdl.optim.adam(), example=example, batch_size=2**28)  # 68 GB of rows
    assert compile_here(huge, Parallel("fsdp")).arguments > 2**28 // 8 * 64 * 4


# ---- without devices -----------------------------------------------------------------------------------------------


def test_vectors_that_are_tied_are_used_twice() -> None:
    assert shapes()[2] == {"input/tokens/embedding": 2}


def test_formulas_are_the_textbooks() -> None:
    state = shapes()[0]
    total = sum(leaf.size for leaf in jax.tree.leaves(state.params)) * 4
    n = 8

    def sent(text: str, **options: bool) -> dict[tuple[str, tuple[str, ...]], float]:
        parallel = dataclasses.replace(resolved(parallel_from(text), n, 8), shard_above=1)
        return sent_for_parameters(layout(parallel), state.params, **options)

    assert sum(sent("ddp").values()) == pytest.approx(2 * total * 7 / 8)
    assert sum(sent("zero1").values()) == pytest.approx(2 * total * 7 / 8)
    assert sum(sent("fsdp").values()) == pytest.approx(3 * total * 7 / 8)
    mics = sent("mics")  # two groups of four
    assert mics["all-reduce", ("replica",)] == pytest.approx(2 * total / 4 / 2)
    assert mics["all-gather", ("fsdp",)] == pytest.approx(2 * total * 3 / 4)


def test_bytes_held_beyond_any_machine() -> None:
    state = shapes()[0]
    parallel = dataclasses.replace(resolved(parallel_from("mics,group=4"), 65_536, 8), shard_above=1)
    whole = held(layout(resolved(parallel_from("data=1"), 1, 8)), state)
    part = held(layout(parallel), state)
    assert part.parameters * 4 == whole.parameters == whole.gradients
    assert part.optimizer == pytest.approx(whole.optimizer / 4, abs=64)


def test_data_axes_shrink_until_they_can_be_compiled() -> None:
    parallel, cut = shrunk(resolved(parallel_from("fsdp=512,tensor=8"), 4096, 8))
    assert (parallel.fsdp, parallel.tensor, cut) == (256, 8, 2)
    with pytest.raises(ValueError, match=r"tensor = 4096 is more than the 2048 devices"):
        shrunk(resolved(parallel_from("tensor"), 4096, 8))


def test_a_roofline_by_hand() -> None:
    parallel = resolved(parallel_from("fsdp=2,tensor=8"), 16, 8)
    chip = CHIPS["h100"]
    memory = held(layout(parallel), shapes()[0])
    sent = {("all-gather", ("fsdp",)): 50e9, ("all-reduce", ("tensor",)): 450e9}
    found = estimate(parts(), parallel, chip, 16 * 495e12, memory, 0.0, sent)
    assert found.compute == pytest.approx(1.0)
    assert found.links == {("fsdp",): pytest.approx(1.0), ("tensor",): pytest.approx(1.0)}  # across nodes, and within
    assert (found.least, found.most) == (pytest.approx(2.0), pytest.approx(3.0))


@pytest.mark.parametrize(
    ("say", "sentence"),
    [
        (lambda: parallel_from("fsdp=two"), r"fsdp is a whole number, not 'two'"),
        (lambda: parallel_from("tenser=8"), r"no option is called 'tenser'; did you mean 'tensor'\?"),
        (lambda: parallel_from("ddp,fsdp"), r"'ddp' and 'fsdp' are two presets"),
        (lambda: parallel_from("fdsp"), r"did you mean 'fsdp'\?"),
        (lambda: resolved(parallel_from("pmap"), 8, 8), r'plan "ddp"'),
        (
            lambda: held(
                layout(dataclasses.replace(on_paper(), rules=(("blocks/atention/.*", (None,)),))), shapes()[0]
            ),
            r"'blocks/atention/.*' matches no parameter as a whole; the nearest is 'blocks/attention/",
        ),
        (lambda: resolved(parallel_from("fsdp=64,tensor=8"), 500, 8), r"multiply to 512, but there are 500 devices"),
        (lambda: chip_named("h10"), r"'h10' is not known; did you mean 'h100'\?"),
        (lambda: parts_of("nowhere.py"), r"no script 'nowhere.py'"),
    ],
)
def test_mistakes_get_sentences(say, sentence: str) -> None:
    with pytest.raises((ValueError, FileNotFoundError), match=sentence):
        say()


def test_every_option_can_be_said() -> None:
    said = parallel_from("context=2,fsdp=4,context_strategy=all_gather,remat=full,offload=optimizer,zero1=true")
    assert said == Parallel(
        context=2, fsdp=4, context_strategy="all_gather", remat="full", offload="optimizer", zero1=True
    )


def test_one_device_is_planned_as_asked(script: Path) -> None:
    with pytest.raises(ValueError, match=r"remat=...\) did nothing"):  # which an mlp does not know
        plan(script, "data=1,remat=full", 1)


def test_a_group_of_mics_is_a_node() -> None:
    parallel = resolved(parallel_from("mics"), 64, 8)
    assert (parallel.replica, parallel.fsdp, parallel.preset) == (8, 8, None)


# ---- the command ---------------------------------------------------------------------------------------------------


def test_the_command_plans_a_mesh(script: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", str(script), "--parallel", "fsdp=8", "--devices", "8", "--device", "a100"]) == 0
    text = capsys.readouterr().out
    for words in ("8 devices: fsdp=8; batch 64", "optimizer state", "an estimate", "reduce-scatter", "fsdp",
                  "roofline of a step", "assumed, not measured: NVIDIA A100", "fits"):  # fmt: skip
        assert words in text


def test_the_command_ranks_presets(script: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", str(script), "--devices", "48"]) == 0
    text = capsys.readouterr().out
    assert "ddp" in text
    assert "does not go: batch_size=64 does not divide over data=48: choose 48 or 96" in text


def test_the_command_says_what_does_not_divide(script: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", str(script), "--parallel", "fsdp=3", "--devices", "8"]) == 1
    assert "fsdp=8 would do" in capsys.readouterr().err
    assert main(["plan", str(script), "--parallel", "stage=2,data=4", "--devices", "8"]) == 1
    assert "stage=...) did nothing" in capsys.readouterr().err


def test_a_script_without_parts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "empty.py"
    path.write_text("x = 1\n")
    assert main(["plan", str(path), "--devices", "8"]) == 1
    assert "defines no program_parts()" in capsys.readouterr().err


@pytest.mark.slow
def test_beyond_what_can_be_compiled(script: Path) -> None:
    """4,096 devices: the compiled step has half of them, and the same bytes as 2,048 but for what the formula adds."""
    big = plan(script, "ddp", 4096, batch_size=4096)
    assert (big.cut, big.compiled.devices) == (2, 2048)
    sent = big.sent["all-reduce", ("data",)]
    assert sent == pytest.approx(2 * big.memory.parameters * 4095 / 4096, rel=0.01)


@pytest.mark.slow
def test_presets_that_fit_come_first(script: Path) -> None:
    found = rank(script, 64, batch_size=64)
    assert [one.fits for one in found] == sorted((one.fits for one in found), reverse=True)
    assert {"ddp", "zero1", "fsdp", "mics"} <= {one.text for one in found}
