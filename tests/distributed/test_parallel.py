"""What a user asks for: presets, sizes, and a sentence where they do not fit. No devices are needed."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

import jaxdl
from jaxdl.parallel import AXES, Parallel, as_parallel
from jaxdl.parallel.bytes import layout_of
from jaxdl.parallel.hlo import collectives
from jaxdl.parallel.rules import Rules


def devices(count: int, processes: int = 1) -> Any:
    return [SimpleNamespace(process_index=number * processes // count) for number in range(count)]


def sizes(parallel: Parallel, count: int = 8, processes: int = 1) -> dict[str, int]:
    return {name: size for name, size in parallel.sizes(devices(count, processes)).items() if size > 1}


@pytest.mark.parametrize(
    ("parallel", "expected"),
    [
        (Parallel("ddp"), {"data": 8}),
        (Parallel("zero1"), {"data": 8}),
        (Parallel("fsdp"), {"fsdp": 8}),
        (Parallel("tensor"), {"tensor": 8}),
        (Parallel("mics"), {"replica": 2, "fsdp": 4}),
        (Parallel("mics", group=2), {"replica": 4, "fsdp": 2}),
        (Parallel("fsdp", tensor=2), {"fsdp": 4, "tensor": 2}),
        (Parallel(data=2, fsdp=-1), {"data": 2, "fsdp": 4}),
        (Parallel("ddp", fsdp=-1), {"fsdp": 8}),
        (Parallel(stage=2, data=2, tensor=2), {"stage": 2, "data": 2, "tensor": 2}),
    ],
)
def test_sizes(parallel: Parallel, expected: dict[str, int]) -> None:
    assert sizes(parallel) == expected


def test_a_group_of_mics_is_the_devices_of_a_process() -> None:
    assert sizes(Parallel("mics"), 16, processes=4) == {"replica": 4, "fsdp": 4}
    assert sizes(Parallel("mics"), 6) == {"replica": 2, "fsdp": 3}


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: Parallel("fdsp"), r"'fdsp' is no preset; did you mean 'fsdp'\?"),
        (lambda: as_parallel(8), r"give a preset \(ddp, pmap"),
        (lambda: Parallel(data=0), r"data=0\): give a number of devices"),
        (lambda: Parallel(data=-1, fsdp=-1), r"only one axis can be the rest"),
        (lambda: Parallel("fsdp", group=4), r"group= is the size of a group of mics"),
        (lambda: Parallel("ddp", compress="fp8"), r"compress='fp8': choose None, 'bf16' or 'int8'"),
        (
            lambda: Parallel(context=2, context_strategy="ulysses"),
            r"context_strategy='ulysses': choose 'ring' or 'all_g",
        ),
        (
            lambda: Parallel("fsdp", context_strategy="all_gather"),
            r"is for sequences that are split: Parallel\(context",
        ),
        (lambda: Parallel("ddp", microbatches=4), r"microbatches= is for a pipeline"),
        (lambda: Parallel(rules=((".*", ("tensr",)),)), r"no axis is called 'tensr'; did you mean 'tensor'\?"),
        (lambda: Parallel(rules=(("head/(kernel", (None,)),)), r"'head/\(kernel' is no regular expression: missing \)"),
        (lambda: Parallel(rules=((".*", ("fsdp", "fsdp")),)), r"rule '\.\*' names fsdp twice"),
        (lambda: Parallel("pmap", tensor=2), r'"pmap", tensor=...\): pmap splits the batch and nothing else; take'),
        (lambda: Parallel("pmap", zero1=True), r"zero1=...\): pmap splits the batch and nothing else"),
        (lambda: Parallel("pmap", rules=((".*", (None,)),)), r"rules=...\): pmap splits the batch and nothing else"),
        (lambda: sizes(Parallel(data=3)), r"multiply to 3, but there are 8 devices; data=8 would do"),
        (lambda: sizes(Parallel(fsdp=3, tensor=-1)), r"fsdp=3.*does not divide the 8 devices; fsdp=(2|4) would do"),
        (lambda: sizes(Parallel(fsdp=3, tensor=2)), r"but there are 8 devices; fsdp=4 would do"),
        (lambda: sizes(Parallel()), r"names no axis"),
    ],
)
def test_what_cannot_be_is_a_sentence(make: Any, sentence: str) -> None:
    with pytest.raises((ValueError, TypeError), match=sentence):
        make()


def test_rules_go_before_the_models_table_and_that_before_the_choice() -> None:
    mesh = dict.fromkeys(AXES, 1) | {"fsdp": 4, "tensor": 2}
    rules = Rules(
        mesh, own=(("head/kernel", ("tensor", None)),), table=((".*/kernel", ("embed", "mlp")),), shard_above=64
    )
    assert tuple(rules.parameter("head/kernel", (64, 32))[0]) == ("tensor", None)
    assert tuple(rules.parameter("up/kernel", (64, 32))[0]) == ("fsdp", "tensor")
    assert tuple(rules.parameter("other", (7, 96))[0]) == (None, "fsdp")
    spec, notes = rules.parameter("odd/kernel", (64, 33))
    assert tuple(spec) == ("fsdp", None)
    assert notes == ("odd/kernel [64, 33]: dimension 1 (33) does not divide by tensor (2): it stays whole",)
    spec, notes = rules.parameter("prime", (7, 13))
    assert tuple(spec) == (None, None) and "no dimension divides by fsdp=4" in notes[0]
    spec, notes = rules.parameter("small", (8,))
    assert tuple(spec) == (None,) and "fewer than 64 elements" in notes[0]
    with pytest.raises(ValueError, match=r"names 2 dimensions, but head/kernel has shape \[3, 4, 5\]"):
        rules.parameter("head/kernel", (3, 4, 5))


def test_a_rule_that_does_nothing_is_not_silent() -> None:
    mesh = dict.fromkeys(AXES, 1) | {"fsdp": 4}
    rules = Rules(mesh, own=((r"hiden0/kernel", (None, "fsdp")),))
    with pytest.raises(ValueError, match=r"'hiden0/kernel' matches no parameter as a whole; the nearest is 'hidden0/k"):
        rules.require_matches(("hidden0/bias", "hidden0/kernel", "logits/kernel"))
    rules = Rules(mesh, own=((r"hidden0/kernel", ("fsdp", "tensor")),), table=((".*", (None, "mlp")),))
    spec, notes = rules.parameter("hidden0/kernel", (64, 32))
    assert tuple(spec) == ("fsdp", None)
    assert notes == ("hidden0/kernel [64, 32]: its rule splits dimension 1 over tensor, which this mesh has not",)
    rules.require_matches(("hidden0/kernel",))
    assert rules.parameter("logits/kernel", (512, 512))[1] == ()  # the model's table is for every mesh


def test_layers_are_never_split_over_fsdp_along_their_stack() -> None:
    mesh = dict.fromkeys(AXES, 1) | {"fsdp": 8}
    rules = Rules(mesh, table=(("blocks/.*", ("layers", "embed", "mlp")),), shard_above=64)
    assert tuple(rules.parameter("blocks/up", (64, 16, 32))[0]) == (None, None, "fsdp")


def test_a_batch_that_does_not_divide_names_the_nearest_that_do() -> None:
    layout = jaxdl.Layout.single()
    layout.require_batch(7)  # one device takes any
    object.__setattr__(layout, "sizes", dict.fromkeys(AXES, 1) | {"data": 4, "fsdp": 2})
    with pytest.raises(ValueError, match=r"batch_size=30 does not divide over data=4 x fsdp=2: choose 24 or 32"):
        layout.require_batch(30)
    with pytest.raises(ValueError, match=r"choose 8"):
        layout.require_batch(3)


HLO = """\
HloModule jit_f

%add (a: f32[], b: f32[]) -> f32[] {
  ROOT %sum = f32[] add(%a, %b)
}

%body (p: (f32[8])) -> (f32[8]) {
  %r = (f32[8]{0}, f32[4,2]{1,0}) all-reduce(%x, %y), channel_id=1, replica_groups=[2,4]<=[8], to_apply=%add
  %g = bf16[16]{0} all-gather(%z), replica_groups=[4,2]<=[2,4]T(1,0), dimensions={0}
}

ENTRY %main (p: f32[8]) -> f32[8] {
  %w = (f32[8]) while(%t), condition=%c, body=%body, backend_config={"known_trip_count":{"n":"5"}}
  %p = f32[2]{0} collective-permute(%q), source_target_pairs={{0,1},{1,2},{2,3},{3,0},{4,5},{5,6},{6,7},{7,4}}
  %m = f32[3]{0} all-reduce(%q), replica_groups=mesh['replica'=2,'fsdp'=4] {'replica'}, to_apply=%add
  %n = f32[3]{0} all-reduce(%q), replica_groups={{0,1,2,3,4,5,6,7}}, to_apply=%add
}
"""


def test_collectives_are_read_with_their_loops_and_axes() -> None:
    mesh = {"replica": 2, "fsdp": 4}
    found = collectives(HLO, mesh)
    assert [(one.kind, one.bytes, one.group, one.axes, one.times, one.depth) for one in found] == [
        ("all-reduce", 64, 4, ("fsdp",), 5, 1),
        ("all-gather", 32, 2, ("replica",), 5, 1),
        ("collective-permute", 8, 4, ("fsdp",), 1, 0),
        ("all-reduce", 12, 2, ("replica",), 1, 0),
        ("all-reduce", 12, 8, ("replica", "fsdp"), 1, 0),
    ]
    assert found[0].sent == 64 * 2 * 3 / 4 * 5
    with pytest.raises(ValueError, match="no ENTRY"):
        collectives("nothing", mesh)


def test_zero1_without_copies_is_refused() -> None:
    with pytest.raises(ValueError, match=r"zero1=True splits the optimizer's state over data and replica"):
        layout_of(Parallel("fsdp", zero1=True), 8).require_used()
    layout_of(Parallel(replica=2, fsdp=-1, zero1=True), 8).require_used()
    layout_of(Parallel("zero1"), 8).require_used()
