"""The health check: each device that fails is named, with what was expected and got."""

from __future__ import annotations

import socket

import jax
import jax.numpy as jnp
import pytest

from jaxdl.parallel import health


def last_device(array):
    return array.device == jax.local_devices()[-1]


def test_devices_that_work_pass_and_say_what_they_do():
    said = []
    assert health.check(say=said.append) == []
    count = jax.device_count()
    assert said[:2] == [f"memory of cpu:0 ({jax.devices()[0].device_kind})", "matmul on cpu:0 (cpu)"]
    assert len(said) == 2 * count + (count > 1)


def test_memory_that_forgets():
    """One number of the last device's comes back with one bit more."""

    def fill(device, start, count):
        array = health.fill_memory(device, start, count)
        return array.at[5].add(jnp.uint32(64)) if last_device(array) else array

    (sentence,) = health.check(fill=fill)
    number = jax.device_count() - 1
    expected = 2**21 * (2**21 - 1) // 2 % 2**32
    assert sentence == (
        f"process 0 on {socket.gethostname()}, device cpu:{number} (cpu): memory does not keep what is written: the "
        f"sum of 2097152 numbers from 0 on is {expected + 64}, expected {expected}"
    )


def test_a_wrong_product():
    def product(left, right):
        return health.multiply(left, right).at[3, 1].add(1.0)

    first, *rest = health.check(product=product)
    assert "device cpu:0 (cpu): a product of 256 x 256 matrices is wrong in 1 of 65536 elements" in first
    assert "element [3, 1] is " in first and ", expected " in first
    assert len(rest) == jax.device_count() - 1


def test_a_device_that_raises():
    def product(left, right):
        raise jax.errors.JaxRuntimeError("INTERNAL: the device has fallen off the bus\nand more")

    sentences = health.check(product=product)
    assert len(sentences) == jax.device_count()
    assert sentences[0].endswith(
        "device cpu:0 (cpu): the matmul check raised INTERNAL: the device has fallen off the bus"
    )


@pytest.mark.devices8
def test_a_device_that_hears_wrong_and_one_that_adds_wrong():
    def hears_wrong(rows, mesh):
        total, gathered = health.exchange_rows(rows, mesh)
        return total, gathered.at[6, 2, 10].add(0.5)

    (sentence,) = health.check(exchange=hears_wrong)
    assert (
        "device cpu:6 (cpu): what cpu:2 (cpu) of process 0 sent arrived wrong: element 10 is 24.5, expected 24"
        in sentence
    )

    def adds_wrong(rows, mesh):
        total, gathered = health.exchange_rows(rows, mesh)
        return total.at[7, 1].add(-2.0), gathered

    (sentence,) = health.check(exchange=adds_wrong)
    assert "device cpu:7 (cpu): the sum over 8 devices is wrong: element 1 is 202, expected 204" in sentence
    said = []
    assert health.check(say=said.append) == []
    assert said[-1].startswith("collective over 8 devices, here cpu:0 (cpu), cpu:1 (cpu)")
