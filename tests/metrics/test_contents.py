"""The table of contents of jaxdl.metrics: every name is there, for Python and for type checkers, and hides nothing."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from jaxdl import metrics

FOLDER = Path(metrics.__file__).parent


@pytest.mark.smoke
def test_every_name_is_found_where_the_table_says() -> None:
    for name, module in metrics._HOME.items():
        value = getattr(metrics, name)
        assert value is not None
        assert getattr(value, "__module__", "").startswith("jaxdl.metrics") or not callable(value), (name, module)
    assert set(metrics.__all__) <= set(dir(metrics))


def test_type_checkers_read_the_same_names() -> None:
    stub = {
        (name.asname, node.module)
        for node in ast.parse((FOLDER / "__init__.pyi").read_text()).body
        if isinstance(node, ast.ImportFrom)
        for name in node.names
    }
    table = {(name, f"jaxdl.metrics.{module}") for name, module in metrics._HOME.items()}
    assert stub == table, f"the table and __init__.pyi differ in {sorted(stub ^ table)}"


def test_no_name_is_that_of_a_module() -> None:
    """Importing the module would put it where the function is looked for."""
    modules = {path.stem for path in FOLDER.glob("*.py")} | {path.name for path in FOLDER.iterdir() if path.is_dir()}
    assert not modules & set(metrics.__all__)


def test_one_metric_does_not_import_all() -> None:
    code = "import sys; from jaxdl.metrics import Accuracy; print(sum('jaxdl.metrics.' in m for m in sys.modules))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(found.stdout) < 15


def test_an_unknown_name_suggests_the_nearest() -> None:
    with pytest.raises(AttributeError, match=r"jaxdl\.metrics has no 'Acuracy'; did you mean 'Accuracy'"):
        _ = metrics.Acuracy
