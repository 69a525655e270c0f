"""Every Python example in README.md, docs/ and the public docstrings runs, in the order of its page.

A block that cannot run here (it needs a file of the reader's) stands below a line `<!-- not run: why -->`.
"""

from __future__ import annotations

import doctest
import importlib
import pkgutil
import re
from pathlib import Path

import jax
import pytest

import jaxdl

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"(?P<skip><!-- not run: [^>]+ -->\n)?```python\n(?P<code>.*?)```", re.DOTALL)


def blocks(page: Path) -> list[tuple[int, str]]:
    """(line, code) of each block that is run."""
    text = page.read_text()
    return [
        (text.count("\n", 0, match.start("code")), match["code"])
        for match in BLOCK.finditer(text)
        if match["skip"] is None
    ]


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page)], ids=lambda page: page.name)
def test_the_examples_of_a_page_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {"__name__": "example"}
    # As a reader runs them: under jax's own defaults.
    for line, code in blocks(page):
        with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
            exec(compile("\n" * line + code, str(page), "exec", dont_inherit=True), namespace)


def test_there_is_something_to_run() -> None:
    assert len(PAGES) > 8
    assert sum(len(blocks(page)) for page in PAGES) > 10


def modules() -> list[str]:
    """Every module of jaxdl whose source has a doctest."""
    found = [info.name for info in pkgutil.walk_packages(jaxdl.__path__, "jaxdl.")]
    names = [name for name in found if not name.endswith("__main__")]
    return [name for name in names if ">>> " in Path(importlib.util.find_spec(name).origin).read_text()]


@pytest.mark.parametrize("name", modules())
def test_the_examples_of_docstrings_run(name: str) -> None:
    result = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    assert result.attempted > 0
    assert result.failed == 0
