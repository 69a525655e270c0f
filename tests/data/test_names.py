"""The names of jaxdl.data: each is there, in any order of asking, and costs no import before it is used."""

from __future__ import annotations

import subprocess
import sys

import pytest

import jaxdl.data


@pytest.mark.smoke
@pytest.mark.parametrize("name", jaxdl.data.__all__)
def test_every_name_is_there(name: str) -> None:
    value = getattr(jaxdl.data, name)
    assert callable(value) and value.__name__ == name and value.__doc__


def test_an_unknown_name_is_no_name() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Tabel'"):
        _ = jaxdl.data.Tabel


def test_nothing_heavy_comes_in_before_it_is_used() -> None:
    code = (
        "import sys; from jaxdl.data import available, load, make_feed, GrainFeed, find_leaks, KFold, Table, read; "
        "train, test = load('digits'); make_feed(train, 32).block(0, 0, 4); GrainFeed(train, 32).block(0, 0, 1); "
        "print(sorted({'jax', 'grain', 'pyarrow', 'PIL', 'scipy', 'pandas'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.strip() == "[]", done.stdout + done.stderr
