"""The package itself: what an import brings in and touches, what it runs without, and that its pages agree."""

from __future__ import annotations

import re
import subprocess
import sys
import textwrap
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

LAZY = (
    "orbax",
    "grain",
    "flax.nnx",
    "pyarrow",
    "PIL",
    "matplotlib",
    "tyro",
    "scipy",
    "sklearn",
    "pandas",
    "tensorstore",
)
# Everything that is no base requirement but likely to lie about on a developer's machine.
NOT_BASE = ("pyarrow", "PIL", "grain", "matplotlib", "tyro", "scipy", "sklearn", "pandas", "torch", "keras")


def python(code: str, *, folder: Path | None = None) -> str:
    """What `code` prints in a fresh process; the test fails with its error output when it fails."""
    command = [sys.executable, "-c", textwrap.dedent(code)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.smoke
def test_import_leaves_the_heavy_packages_alone():
    """Compared with `import jax`, which on some versions brings in packages of its own."""
    loaded = python(
        f"""
        import sys, jax
        before = set(sys.modules)
        import jaxdl
        print([name for name in {LAZY!r} if name in sys.modules and name not in before])
        """
    )
    assert loaded.strip() == "[]"


def test_import_configures_nothing():
    printed = python(
        """
        import logging, os, jax
        def settings():
            logs = list(logging.getLogger().handlers)
            return {**jax.config.values, "environment": dict(os.environ), "logs": logs}
        before = settings()
        import jaxdl
        after = settings()
        print({name: (before.get(name), after[name]) for name in after if after[name] != before.get(name)})
        """
    )
    assert printed.strip() == "{}"


def test_every_public_name_resolves():
    import jaxdl

    assert jaxdl.__all__
    assert set(jaxdl.__all__) <= set(dir(jaxdl))
    for name in jaxdl.__all__:
        assert getattr(jaxdl, name) is not None, name
    with pytest.raises(AttributeError, match="no_such_name"):
        jaxdl.no_such_name  # noqa: B018


def test_the_version_is_the_same_everywhere():
    import jaxdl

    newest = re.search(r"^## (\d+\.\d+\.\d+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert newest is not None
    assert jaxdl.__version__ == PROJECT["version"] == newest.group(1)


@pytest.mark.smoke
def test_the_engine_runs_on_the_base_packages_alone(tmp_path):
    """A path finder that does not see other packages stands in for an environment without them; CI makes a real one."""
    printed = python(
        f"""
        import sys
        from importlib.machinery import PathFinder

        class Blind:
            find_spec = staticmethod(
                lambda name, path=None, target=None: (
                    None if name.partition(".")[0] in {NOT_BASE!r} else PathFinder.find_spec(name, path, target)
                )
            )

        sys.meta_path[sys.meta_path.index(PathFinder)] = Blind
        for name in {NOT_BASE!r}:
            try:
                __import__(name)
            except ModuleNotFoundError:
                continue
            raise SystemExit(f"{{name}} can be imported: the test sees too much")
        import jaxdl, numpy as np, optax

        train, test = jaxdl.data.load("digits")
        task = jaxdl.tasks.classification(jaxdl.create_model("linear", num_classes=10))
        run = jaxdl.fit(task, train, validation=test, optimizer=optax.adam(0.01), epochs=3, checkpoint="run", verbose=0)
        again = jaxdl.load_run("run", task, test)
        assert np.array_equal(again.predict(test), run.predict(test))
        print(len(run.history), run.metrics["validation:accuracy"] > 0.5)
        """,
        folder=tmp_path,
    )
    assert printed.split() == ["3", "True"]
    assert (tmp_path / "run" / "report.html").is_file()


def test_sentences_about_extras_name_extras_that_exist():
    extras = set(PROJECT["optional-dependencies"])
    named = {
        (str(path.relative_to(ROOT)), extra)
        for path in (ROOT / "jaxdl").rglob("*.py")
        for group in re.findall(r"jaxdl\[([\w,]+)\]", path.read_text())
        for extra in group.split(",")
    }
    assert named, "no sentence names an extra: the pattern is wrong"
    assert {(path, extra) for path, extra in named if extra not in extras} == set()


@pytest.mark.parametrize("version", ["3.11", "3.12"])
def test_constraints_lie_within_the_ranges(version):
    pinned = dict(
        line.split("==")
        for line in (ROOT / "constraints" / f"py{version}.txt").read_text().splitlines()
        if "==" in line
    )
    pinned = {name.lower().replace("_", "-"): number for name, number in pinned.items()}
    wanted = [Requirement(text) for text in PROJECT["dependencies"]]
    for extra, texts in PROJECT["optional-dependencies"].items():
        if extra != "dist":  # the driver of one database server: installed where that server is
            wanted += [Requirement(text) for text in texts]
    for requirement in wanted:
        name = requirement.name.lower()
        if name == "jaxdl" or (requirement.marker and not requirement.marker.evaluate({"sys_platform": "linux"})):
            continue
        assert name in pinned, f"{name} is not in constraints/py{version}.txt: make constraints"
        assert requirement.specifier.contains(pinned[name]), f"{requirement} does not admit {pinned[name]}"
