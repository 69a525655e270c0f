"""The command line: what it trains on, what it prints, what it says when something is wrong, and its exit codes."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from jaxdl.cli import main
from jaxdl.tracking import RunFolder

ROWS = 240


def write_table(path: Path, seed: int = 0, rows: int = ROWS, label: bool = True) -> Path:
    """A CSV whose label follows from a number, a text column and chance, with gaps and an identifier."""
    rng = np.random.default_rng(seed)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "age", "job", "size", *(["bought"] if label else [])])
        for row in range(rows):
            age, job = rng.normal(40, 10), rng.choice(["cook", "smith", "baker"])
            bought = "yes" if (age - 40) / 10 + (job == "smith") + rng.normal(0, 0.3) > 0.4 else "no"
            shown = "" if row % 17 == 3 else f"{age:.1f}"
            writer.writerow([f"c{row}", shown, job, rng.choice(["S", "10", "12"]), *([bought] if label else [])])
    return path


def write_images(folder: Path, each: int = 24) -> Path:
    """Class folders of 8x8 grey pictures: dark and light."""
    image = pytest.importorskip("PIL.Image", reason="pillow is in the [data] extra")
    rng = np.random.default_rng(0)
    for name, level in (("dark", 40), ("light", 200)):
        (folder / name).mkdir(parents=True)
        for number in range(each):
            pixels = np.clip(rng.normal(level, 20, (8, 8)), 0, 255).astype(np.uint8)
            image.fromarray(pixels).save(folder / name / f"{number:02}.png")
    return folder


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a table and the run of an mlp trained on it."""
    folder = tmp_path_factory.mktemp("shop")
    table = write_table(folder / "shop.csv")
    arguments = ["--label", "bought", "--ignore", "id", "--epochs", "6", "--learning-rate", "0.01"]
    assert main(["train", str(table), *arguments, "--output", str(folder / "run"), "--quiet"]) == 0
    return folder


def predictions(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


@pytest.mark.smoke
def test_train_keeps_recipe_classes_and_report(shop, capsys):
    run = RunFolder.open(shop / "run")
    recipe = run.read_json("recipe.json")
    assert recipe["classes"] == ["no", "yes"]
    assert recipe["inputs"] == ["age", "job", "size"]
    assert "job=smith" in recipe["features"]["names"]
    assert run.report.is_file()
    assert len(run.records("epoch")) == 6


@pytest.mark.smoke
def test_evaluate_prints_measures_and_json(shop, capsys):
    assert main(["evaluate", str(shop / "run"), str(shop / "shop.csv")]) == 0
    text = capsys.readouterr().out
    assert "accuracy" in text and "auc" in text and "true \\ predicted" in text
    assert main(["evaluate", str(shop / "run"), str(shop / "shop.csv"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["examples"] == ROWS
    assert found["accuracy"] > 0.8 and found["auc"] > 0.9
    assert np.sum(found["confusion_matrix"]) == ROWS
    assert np.trace(found["confusion_matrix"]) == pytest.approx(found["accuracy"] * ROWS)


def test_predict_writes_one_row_an_example_in_order(shop, capsys, tmp_path):
    new = write_table(tmp_path / "new.csv", seed=5, rows=50, label=False)
    assert main(["predict", str(shop / "run"), str(new)]) == 0
    rows = predictions(capsys.readouterr().out)
    assert len(rows) == 50
    assert list(rows[0]) == ["prediction", "probability:no", "probability:yes"]
    for row in rows:
        no, yes = float(row["probability:no"]), float(row["probability:yes"])
        assert no + yes == pytest.approx(1, abs=1e-5)
        assert row["prediction"] == ("yes" if yes > no else "no")
    # A row's prediction depends on that row alone: the file upside down gives the predictions upside down.
    header, *lines = new.read_text().splitlines()
    (tmp_path / "down.csv").write_text("\n".join([header, *reversed(lines)]) + "\n")
    output = tmp_path / "down-predictions.csv"
    assert main(["predict", str(shop / "run"), str(tmp_path / "down.csv"), "--output", str(output)]) == 0
    assert "50 predictions" in capsys.readouterr().out
    assert [row["prediction"] for row in predictions(output.read_text())] == [row["prediction"] for row in rows][::-1]


def test_columns_keep_their_kind_in_further_data(shop, capsys, tmp_path):
    """Sizes S, 10 and 12 are text, also where only 10 and 12 occur; ages are numbers, also where all are missing."""
    (tmp_path / "two.csv").write_text("id,age,job,size\nx,,cook,10\ny,,smith,12\n")
    assert main(["predict", str(shop / "run"), str(tmp_path / "two.csv")]) == 0
    assert len(predictions(capsys.readouterr().out)) == 2


def test_bad_rows_stop_or_are_left_out_but_never_in_predictions(capsys, tmp_path):
    table = tmp_path / "bad.csv"
    table.write_text("a,b,y\n" + "1,2,u\n3,4,v\n" * 20 + "7,8\n")
    arguments = ["train", str(table), "--epochs", "1", "--model", "linear", "--output", str(tmp_path / "run")]
    assert main(arguments) == 1
    assert "line 42" in (err := capsys.readouterr().err) and "--skip-bad-rows" in err
    assert main([*arguments, "--skip-bad-rows"]) == 0
    assert "40 examples, 2 columns as 2 numbers, 1 bad row left out" in capsys.readouterr().out
    assert main(["evaluate", str(tmp_path / "run"), str(table)]) == 0
    assert "bad.csv, 1 bad row left out: 40 examples" in capsys.readouterr().out
    assert main(["predict", str(tmp_path / "run"), str(table)]) == 1
    assert "line 42" in capsys.readouterr().err


def test_resume_goes_on_to_more_epochs_exactly(shop, capsys, tmp_path):
    """6 epochs and then 9 are the 9 of one run, to the last bit."""
    arguments = [
        "train",
        str(shop / "shop.csv"),
        "--label",
        "bought",
        "--ignore",
        "id",
        "--learning-rate",
        "0.01",
        "--quiet",
    ]
    assert main([*arguments, "--epochs", "9", "--patience", "0", "--output", str(tmp_path / "whole")]) == 0
    assert main([*arguments, "--epochs", "6", "--patience", "0", "--output", str(tmp_path / "part")]) == 0
    assert main(["resume", str(tmp_path / "part"), "--epochs", "9", "--quiet"]) == 0
    whole, part = (RunFolder.open(tmp_path / name).records("epoch") for name in ("whole", "part"))
    assert [record["validation:loss"] for record in part] == [record["validation:loss"] for record in whole]
    assert len(part) == 9
    assert capsys.readouterr().out == ""


def test_resume_refuses_changed_data(shop, capsys, tmp_path):
    table = write_table(tmp_path / "shop.csv")
    output = str(tmp_path / "run")
    assert main(["train", str(table), "--label", "bought", "--ignore", "id", "--epochs", "1", "--output", output]) == 0
    write_table(table, seed=1)
    capsys.readouterr()
    assert main(["resume", output]) == 1
    assert "training data" in capsys.readouterr().err


def test_a_number_is_predicted_in_its_own_unit(capsys, tmp_path):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 2))
    y = 5000 + 1000 * x[:, 0] - 500 * x[:, 1] + rng.normal(0, 20, 300)
    lines = ["a,b,price", *(f"{a:.4f},{b:.4f},{p:.2f}" for (a, b), p in zip(x, y, strict=True))]
    (tmp_path / "prices.csv").write_text("\n".join(lines) + "\n")
    arguments = [
        "--label",
        "price",
        "--model",
        "linear",
        "--learning-rate",
        "0.03",
        "--epochs",
        "25",
        "--patience",
        "0",
    ]
    assert main(["train", str(tmp_path / "prices.csv"), *arguments, "--output", str(tmp_path / "run")]) == 0
    assert "a number, mean" in capsys.readouterr().out
    assert main(["evaluate", str(tmp_path / "run"), str(tmp_path / "prices.csv"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["rmse"] < 100 and found["mae"] < found["rmse"] and found["r2"] > 0.99
    assert main(["predict", str(tmp_path / "run"), str(tmp_path / "prices.csv")]) == 0
    given = np.array([float(row["prediction"]) for row in predictions(capsys.readouterr().out)])
    assert np.sqrt(np.mean((given - y) ** 2)) == pytest.approx(found["rmse"], rel=1e-3)


def test_image_folders_train_evaluate_and_predict(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_images(tmp_path / "pictures")
    options = ["--model-options", "width=4", "depth=1", "hidden=8"]
    assert main(["train", "pictures", *options, "--epochs", "12", "--learning-rate", "0.02"]) == 0
    printed = capsys.readouterr().out
    assert "images 8 x 8 x 1" in printed and "dark (19)" in printed and "jaxdl predict runs/pictures-convnet" in printed
    assert main(["evaluate", "runs/pictures-convnet", "pictures", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["accuracy"] > 0.9
    assert main(["predict", "runs/pictures-convnet", "pictures"]) == 0
    rows = predictions(capsys.readouterr().out)
    assert rows[0]["path"] == "dark/00.png" and rows[-1]["path"] == "light/23.png"
    assert np.mean([row["path"].startswith(row["prediction"]) for row in rows]) > 0.9


def test_arrays_and_shipped_sets(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 5)).astype(np.float32)
    np.savez(tmp_path / "arrays.npz", x=x, y=(x[:, 0] > 0).astype(np.int32))
    assert main(["train", "arrays.npz", "--model", "linear", "--epochs", "2"]) == 0
    assert "2 classes: 0 (" in capsys.readouterr().out
    # A second run of the same name is numbered; a shipped set is validated on its own test part.
    assert main(["train", "arrays.npz", "--model", "linear", "--epochs", "1", "--quiet"]) == 0
    assert (tmp_path / "runs" / "arrays-linear-2" / "recipe.json").is_file()
    assert main(["train", "iris", "--model", "linear", "--epochs", "1"]) == 0
    assert "training on 120 examples, validating on 30" in capsys.readouterr().out
    assert main(["runs"]) == 0
    listed = capsys.readouterr().out
    assert "arrays-linear-2" in listed and "iris-linear" in listed and "finished" in listed


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["train", "no.csv"], "no.csv"),
        (["train", "irris"], "ships with jaxdl"),
        (["train", "TABLE"], "--label NAME"),
        (["train", "TABLE", "--label", "bougth"], "did you mean 'bought'"),
        (["train", "TABLE", "--label", "bought", "--ignore", "idd"], "did you mean 'id'"),
        (["train", "TABLE", "--label", "bought", "--goal", "number"], "no number to predict"),
        (["train", "TABLE", "--label", "bought", "--model-options", "widht=3"], "widht"),
        (["train", "TABLE", "--label", "bought", "--model-options", "widths"], "NAME=VALUE"),
        (["train", "TABLE", "--label", "bought", "--validation", "1.5"], "less than 1"),
        (["train", "TABLE", "--label", "bought", "--epochs", "0"], "epochs=0"),
        (["train", "TABLE", "--label", "bought", "--model", "convnet"], "convnet takes images"),
        (["train", "TABLE", "--label", "bought", "--output", "RUN"], "holds a run already"),
        (["evaluate", "RUN", "OTHER"], "bought"),
        (["predict", "RUN", "OTHER"], "'age'"),
        (["predict", "RUN", "OTHER"], "the features learned from a column 'age'"),
        (["predict", "RUN", "ODD"], "is not a number, which it was in training. Correct it\n"),
        (
            ["train", "LONG", "--label", "size"],
            "'old' is not a number, as the other 200 cells of this column are. Correct it, or leave",
        ),
        (["predict", "nowhere", "TABLE"], "nowhere"),
        (["resume", "nowhere"], "nowhere"),
        (["runs", "nowhere"], "nowhere"),
    ],
)
def test_mistakes_are_one_sentence_and_code_1(shop, capsys, tmp_path, monkeypatch, arguments, sentence):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "other.csv").write_text("a,b\n1,2\n3,4\n")
    for name, count in (("odd.csv", 11), ("long.csv", 200)):
        rows = [f"{age},cook,S\n" for age in (*range(count), "old")]
        (tmp_path / name).write_text("age,job,size\n" + "".join(rows))
    places = {"TABLE": str(shop / "shop.csv"), "RUN": str(shop / "run")}
    places |= {"OTHER": "other.csv", "ODD": "odd.csv", "LONG": "long.csv"}
    assert main([places.get(word, word) for word in arguments]) == 1
    printed = capsys.readouterr()
    assert sentence in printed.err and printed.err.startswith("jaxdl: ")
    assert not re.search(r"missing=|types=|on_error=| was fitted", printed.err), "the words are Python's"
    assert "Traceback" not in printed.err and len(printed.err.strip().splitlines()) == 1
    assert not (tmp_path / "runs").exists() or not list((tmp_path / "runs").iterdir()), "an empty run was left behind"


@pytest.mark.parametrize(
    "arguments", [["trian"], ["train"], ["train", "x.csv", "--epocs", "3"], ["train", "x", "--epochs", "y"]]
)
def test_what_is_not_understood_is_code_2(capsys, arguments):
    assert main(arguments) == 2
    assert capsys.readouterr().err


def test_help_and_version(capsys):
    assert main(["--help"]) == 0
    top = capsys.readouterr().out
    for command in ("train", "resume", "evaluate", "predict", "runs", "cache"):
        assert command in top
        assert main([command, "--help"]) == 0
        assert len(capsys.readouterr().out) > 300
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("jaxdl 0.")


def test_cache_shows_and_clears(capsys, tmp_path, monkeypatch):
    import jax

    from jaxdl.core import compile_cache

    monkeypatch.setenv("JAXDL_CACHE", str(tmp_path))
    before = jax.config.jax_compilation_cache_dir
    jax.config.update("jax_compilation_cache_dir", None)
    try:
        folder = compile_cache.default_folder()
        folder.mkdir(parents=True)
        (folder / "program-cache").write_bytes(b"x" * 2000)
        assert main(["cache"]) == 0
        assert "1 compiled program, 2 kB, in" in capsys.readouterr().out
        assert main(["cache", "--clear"]) == 0
        assert "deleted from" in capsys.readouterr().out
        assert not (folder / "program-cache").exists()
    finally:
        jax.config.update("jax_compilation_cache_dir", before)


def test_ctrl_c_saves_and_leaves_code_1(shop, tmp_path):
    """In a process of its own, as a terminal would: the run is kept, and the way on is said."""
    command = [sys.executable, "-m", "jaxdl", "train", str(shop / "shop.csv"), "--label", "bought", "--ignore", "id"]
    command += ["--epochs", "1000000", "--patience", "0", "--output", str(tmp_path / "run")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    lines = tmp_path / "run" / "metrics.jsonl"
    for _ in range(600):
        if lines.exists() and lines.stat().st_size:
            break
        time.sleep(0.1)
    os.kill(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 1, err
    assert f"go on with: jaxdl resume {tmp_path / 'run'}" in out
    assert RunFolder.open(tmp_path / "run").read_json("run.json")["status"] == "interrupted"


def test_a_reader_that_leaves_early_is_no_error(shop):
    command = f"{sys.executable} -m jaxdl predict {shop / 'run'} {shop / 'shop.csv'} | head -n 1"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=120)
    assert done.stdout == "prediction,probability:no,probability:yes\n"
    assert done.stderr == ""


@pytest.mark.data
@pytest.mark.slow
def test_bank_marketing(data_folder, capsys, tmp_path):
    """AUC about 0.93 to 0.95 with all columns (others' figures, on the larger set)."""
    table = str(data_folder / "bank_marketing" / "bank-additional.csv.gz")
    assert main(["train", table, "--label", "y", "--output", str(tmp_path / "run"), "--quiet"]) == 0
    assert main(["evaluate", str(tmp_path / "run"), table, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["auc"] > 0.93
