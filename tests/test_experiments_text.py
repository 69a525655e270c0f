"""The experiments on text: each main() in a tiny form on made-up text, and a folder that holds none."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

import jaxdl
from tests.test_experiments import experiment

_ENGLISH = ["a", "man", "with", "one", "dog", "sits", "here"]
_GERMAN = ["ein", "mann", "mit", "einem", "hund", "sitzt", "hier"]


def made_up_captions(folder: Path) -> None:
    """24 pairs to train on, 4 of each other file; the German words are the English ones, one by one."""
    rng = np.random.default_rng(0)
    (folder / "multi30k").mkdir()
    for name, count in (("train", 24), ("val", 4), ("test_2016_flickr", 4)):
        rows = [rng.permutation(7)[: rng.integers(3, 8)] for _ in range(count)]
        for language, words in (("en", _ENGLISH), ("de", _GERMAN)):
            text = "".join(" ".join(words[word] for word in row) + " .\n" for row in rows)
            (folder / "multi30k" / f"{name}.{language}.gz").write_bytes(gzip.compress(text.encode()))


@pytest.mark.parametrize("name", ["multi30k_rnn", "multi30k_transformer", "shakespeare_gpt", "shakespeare_lstm"])
def test_a_folder_without_the_files_gets_a_sentence(name: str, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"neither .*\.gz nor .*; --help says where anyone gets"):
        experiment(name).main(["--data", str(tmp_path), "--output", str(tmp_path / "run")])


@pytest.mark.parametrize("name", ["multi30k_rnn", "multi30k_transformer"])
def test_captions_are_numbered_up_to_training(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the short form does before it compiles anything."""

    def fit(task: jaxdl.Task, train: jaxdl.data.Dataset, **options: object) -> None:
        assert train["x"].shape == (24, 16) and train["y"].shape == (24, 18)
        assert train["y"].max() < 12 and options["checkpoint"] == "run"
        raise KeyboardInterrupt

    made_up_captions(tmp_path)
    monkeypatch.setattr(jaxdl, "fit", fit)
    with pytest.raises(KeyboardInterrupt):
        experiment(name).main(["--data", str(tmp_path), "--output", "run"])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["multi30k_rnn", "multi30k_transformer"])
def test_captions_in_short_form(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made_up_captions(tmp_path)
    arguments = ["--data", str(tmp_path), "--output", str(tmp_path / "run")]
    assert experiment(name).main([*arguments, "--epochs", "1", "--width", "8", "--sentences", "24"]) == 0
    out = capsys.readouterr().out
    assert "24 pairs to train on, 12 English and 12 German words" in out and "BLEU" in out


@pytest.mark.slow
@pytest.mark.parametrize("name", ["shakespeare_gpt", "shakespeare_lstm"])
def test_plays_in_short_form(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "tinyshakespeare").mkdir()
    text = "ROMEO:\nHark, who goes there, and why so late?\n" * 250
    (tmp_path / "tinyshakespeare" / "input.txt").write_text(text)
    arguments = ["--data", str(tmp_path), "--output", str(tmp_path / "run")]
    assert experiment(name).main([*arguments, "--epochs", "1", "--width", "16", "--characters", "9000"]) == 0
    out = capsys.readouterr().out
    assert "8,100 characters to train on, 900 to validate" in out and "nats a character" in out
