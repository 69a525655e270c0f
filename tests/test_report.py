"""The report is one self-contained, well-formed page that shows what the run's files say."""

from __future__ import annotations

import math
import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from jaxdl.report import charts_of, write_report
from jaxdl.tracking import RunFolder
from jaxdl.tracking.svg import Line, confusion_chart, line_chart

BEST = {"metric": "validation:accuracy", "value": 0.93, "epoch": 3, "step": 30}


def _run(path: Path, *, epochs: int = 4, classes: tuple[str, ...] = ("cat", "<b>dog</b>")) -> RunFolder:
    folder = RunFolder.create(path)
    folder.write_json("config.json", {"batch_size": 32, "hyper": {"learning_rate": 0.1}, "limit": math.inf})
    folder.write_json("program.json", {"mode": "scan", "jax": "0.10.2", "device": "cpu"})
    folder.set_status("finished", epochs=epochs, step=10 * epochs, seconds=3.0, best=BEST)
    for step in range(1, 10 * epochs + 1):
        folder.append({"kind": "train", "step": step, "epoch": step / 10, "train:loss": 1 / step, "learning_rate": 0.1})
        if step % 10 == 0:
            values = {"train:loss": 1 / step, "validation:loss": 2 / step, "validation:accuracy": 1 - 1 / step}
            if step == 20:
                values["validation:loss"] = math.nan
            folder.append({"kind": "epoch", "epoch": step // 10, "step": step, **values, "examples_per_second": 999.0})
    folder.append({"kind": "note", "step": 5, "text": "a <note>"})
    counts = np.diag([30, 20, 10][: len(classes)]) + 1
    folder.write_json("results.json", {"confusion_matrix": counts, "classes": classes, "best": BEST, "metrics": {}})
    folder.close()
    return folder


class Page(HTMLParser):
    """Tags, attributes and text of a page; fails on tags that are not closed."""

    _void = ("meta", "br")

    def __init__(self, text: str):
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.links: list[str] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open, f"not closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in self._void:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes another tag"

    def handle_data(self, data: str) -> None:
        self.words.append(data.strip())


@pytest.mark.smoke
def test_the_page_stands_alone_and_says_everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jaxdl.report.find_spec", lambda name: None)  # as where matplotlib is not installed
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    folder = _run(tmp_path / "digits")
    path = write_report(folder.path)
    assert path == folder.path / "report.html" and not folder.plots.exists()
    text = path.read_text(encoding="utf-8")
    page = Page(text)
    assert "script" not in page.tags and page.links == [] and "http" not in text.replace("http-equiv", "")
    said = ["digits", "finished", "0.9300", "best: epoch 3, step 30", "Confusion matrix", "hyper.learning_rate", "inf"]
    said += ["a <note>", "<b>dog</b>", "learning rate", "examples per second", "accuracy", "0.10.2"]
    for words in said:
        assert any(words in found for found in page.words), words
    assert "Accuracy 0.9630 over 54 examples" in text
    assert page.tags.count("svg") == 5, "loss, accuracy, learning rate, throughput, confusion matrix"
    for svg in re.findall(r"<svg.*?</svg>", text, re.DOTALL):
        ElementTree.fromstring(svg)
    assert not list(folder.path.glob(".*"))


def test_plots_are_written_where_matplotlib_is(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    folder = _run(tmp_path / "run")
    write_report(folder.path)
    names = sorted(path.name for path in folder.plots.iterdir())
    assert names == ["accuracy.png", "confusion_matrix.png", "examples_per_second.png", "learning_rate.png", "loss.png"]
    assert all(path.read_bytes()[:4] == b"\x89PNG" for path in folder.plots.iterdir())


def test_a_run_that_has_hardly_begun(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "run")
    folder.set_status("running", step=0)
    text = write_report(folder.path).read_text(encoding="utf-8")
    Page(text)
    assert "running" in text and "No epoch was finished" in text and "Confusion" not in text


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        write_report(tmp_path / "none")
    folder = _run(tmp_path / "run")
    folder.write_json("results.json", {"confusion_matrix": [[1, 2]], "classes": ["a"]})
    with pytest.raises(ValueError, match=r"\[classes, classes\]; this one has shape \(1, 2\)"):
        write_report(folder.path)
    folder.write_json("results.json", {"confusion_matrix": [[1, 2], [3, 4]], "classes": ["a"]})
    with pytest.raises(ValueError, match="2 classes but 1 names"):
        write_report(folder.path)
    (folder.path / "program.json").write_text("{")
    with pytest.raises(ValueError, match=r"program\.json, line 1"):
        write_report(folder.path)


def test_charts_follow_the_records() -> None:
    records: list[dict[str, Any]] = [
        {"kind": "train", "step": 1, "train:loss": 3.0, "gradient_norm": 1.0},
        {"kind": "epoch", "step": 2, "train:loss": 2.0, "validation:loss": 2.5, "validation:auc": 0.7, "test:auc": 0.6},
        {"kind": "note", "step": 2, "text": "x"},
    ]
    charts = {title: (lines, x, mark) for title, lines, x, mark in charts_of(records, BEST)}
    assert list(charts) == ["loss", "auc", "gradient norm"]
    assert [line.label for line in charts["loss"][0]] == ["train, each record", "train", "validation"]
    assert [line.label for line in charts["auc"][0]] == ["validation", "test"]
    assert charts["loss"][1] == "step" and charts["loss"][2].x == 30.0, "by step where epochs are not recorded"
    assert charts_of([]) == []


@pytest.mark.parametrize(
    "values",
    [
        [1.0],
        [2.0, 2.0],
        [0.0, 0.0],
        [1e-9, 1e9],
        [1e300, 1e-299],
        [-5.0, 5.0],
        [math.nan, 1.0],
        [1, 1.0000001],
        [1e-320, 1],
    ],
)
def test_line_charts_of_odd_numbers(values: list[float]) -> None:
    root = ElementTree.fromstring(line_chart("x < y", [Line("a", range(len(values)), values, marks=True)]))
    box = [float(number) for number in root.attrib["viewBox"].split()]
    circles = root.findall(".//circle")
    assert len(circles) == sum(map(math.isfinite, values))
    for circle in circles:
        assert 0 <= float(circle.attrib["cx"]) <= box[2] and 0 <= float(circle.attrib["cy"]) <= box[3]
    ticks = [element.text for element in root.findall("text") if element.attrib["text-anchor"] == "end"]
    assert 2 <= len(set(ticks)) == len(ticks) <= 12
    assert ("(log scale)" in "".join(root.itertext())) == (values in ([1e-9, 1e9], [1e300, 1e-299]))


def test_a_chart_of_nothing_is_empty() -> None:
    assert line_chart("x", [Line("a", [1.0, 2.0], [math.nan, math.inf])]) == ""


@pytest.mark.parametrize("size", [2, 10, 30, 61])
def test_confusion_charts(size: int) -> None:
    counts = np.diag(np.arange(1, size + 1)) * 1000
    root = ElementTree.fromstring(confusion_chart(counts.tolist(), [f"class {i}" for i in range(size)]))
    rects = root.findall("rect")
    assert len(rects) == size * size
    assert rects[0].attrib["fill"] == "#1d4eb4" and rects[1].attrib["fill"] == "#ffffff"
    wrong = ElementTree.fromstring(confusion_chart([[0, 5], [0, 5]], ["a", "b"])).findall("rect")
    assert wrong[1].attrib["fill"] == "#c2540a" and wrong[3].attrib["fill"] == "#1d4eb4", "orange is wrong, blue right"
    words = [element.text for element in root.iter("text")]
    assert ("1000" in words) == (size <= 30) and ("class 0" in words) == (size <= 60)
    assert float(root.attrib["width"]) < 1100
