"""The experiments run: each main() in a tiny form, and the parts that a tiny form cannot judge."""

from __future__ import annotations

import csv
import gzip
import importlib.util
import io
import re
import zipfile
from pathlib import Path
from types import ModuleType, SimpleNamespace

import jax
import numpy as np
import pytest

import jaxdl
from jaxdl.tracking import RunFolder

EXPERIMENTS = Path(__file__).resolve().parent.parent / "experiments"


def experiment(name: str) -> ModuleType:
    """The script as a module; it is no part of a package."""
    spec = importlib.util.spec_from_file_location(name, EXPERIMENTS / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", sorted(path.stem for path in EXPERIMENTS.glob("[!_]*.py")))
def test_docstring_states_command_cost_and_result(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = experiment(name).__doc__ or ""
    for heading in ("Command", "Cost", "Result"):
        found = re.search(rf"^{heading}\n    (\S.*)$", text, re.MULTILINE)
        assert found, f"{name}: the docstring has no paragraph {heading!r}"
        assert any(character.isdigit() for character in found[1]) or heading == "Command"
    assert f"experiments/{name}.py" in text
    assert f"{name}.py" in (EXPERIMENTS / "README.md").read_text()
    with pytest.raises(SystemExit) as ended:
        experiment(name).main(["--help"])
    assert ended.value.code == 0
    assert "--output" in capsys.readouterr().out


# ---- digits ----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_digits_in_short_form(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    digits = experiment("digits_convnet")
    output = tmp_path / "digits"
    assert digits.main(["--quick", "--output", str(output)]) == 0
    out, err = capfd.readouterr()
    assert not err
    killed = re.search(r"killed with SIGKILL at step (\d+) of (\d+)", out)
    assert killed and int(killed[2]) / 4 < int(killed[1]) < int(killed[2])
    resumed = re.search(r"resumed at step (\d+)", out)
    assert resumed and 0 < int(resumed[1]) <= int(killed[1])
    assert "equal bit for bit" in out and "It misreads" in out and "██" in out
    assert (output / "report.html").stat().st_size > 10_000
    assert RunFolder(output).read_json("run.json")["status"] == "finished"


def test_digits_finds_every_difference(tmp_path: Path) -> None:
    def run(name: str, *, last: float = 0.5, bias: float = 1.0, records: int = 3) -> SimpleNamespace:
        folder = RunFolder.create(tmp_path / name)
        for step in range(records):
            folder.append({"kind": "train", "step": step, "train:loss": last if step == 2 else 1.0})
        folder.append(
            {"kind": "epoch", "step": 3, "train:loss": 0.7, "validation:loss": 0.8, "validation:accuracy": 0.9}
        )
        state = SimpleNamespace(params={"logits": {"bias": np.float32([0, bias])}}, opt_state=(np.int32(3),))
        return SimpleNamespace(folder=folder, state=state)

    compare = experiment("digits_convnet").compare
    whole = run("whole")
    assert compare(whole, run("equal")) == []
    assert [text[:20] for text in compare(whole, run("loss", last=float(np.nextafter(0.5, 1))))] == [
        "train:loss at step 2"
    ]
    assert compare(whole, run("bias", bias=float(np.nextafter(np.float32(1), np.float32(2))))) == [
        "the array [0]['logits']['bias'] differs"
    ]
    assert compare(whole, run("fewer records", records=2)) == []
    no_epoch = run("no epoch")
    assert no_epoch.folder.rewind(2) == 1
    assert compare(whole, no_epoch) == ["the records of kind 'epoch' are of other steps: [3] and []"]


def test_digits_are_shifted_by_at_most_a_pixel() -> None:
    shifted = experiment("digits_convnet").shifted
    image = np.zeros((8, 8, 1), np.float32)
    image[4, 4] = 1
    rng = np.random.default_rng(0)
    places = {tuple(np.argwhere(shifted({"x": image, "y": 7}, rng)["x"])[0][:2].tolist()) for _ in range(200)}
    assert places == {(row, column) for row in (3, 4, 5) for column in (3, 4, 5)}


def test_digits_are_drawn() -> None:
    x = np.zeros((2, 8, 8, 1), np.float32)
    x[1, 2, 3] = 1
    lines = experiment("digits_convnet").drawn(jaxdl.data.Dataset({"x": x}), ["one", "two"]).split("\n")
    assert len(lines) == 9
    assert lines[2].index("█") == 3 + 20 + 2 * 3 and lines[2].count("█") == 2  # margin, first digit, three pixels
    assert "".join(lines[:2] + lines[3:8]).strip() == ""
    assert lines[8].split() == ["one", "two"] and lines[8].index("two") == 23


def test_digits_replace_only_their_own_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clear = experiment("digits_convnet").clear
    own, foreign = tmp_path / "own", tmp_path / "foreign"
    clear(own)
    (own / "metrics.jsonl").write_text("old")
    clear(own)
    assert "replaced" in capsys.readouterr().out
    assert [path.name for path in own.iterdir()] == [experiment("digits_convnet").MARK]
    foreign.mkdir()
    (foreign / "thesis.txt").write_text("years of work")
    with pytest.raises(SystemExit, match="did not make"):
        clear(foreign)
    assert (foreign / "thesis.txt").read_text() == "years of work"


# ---- bank marketing --------------------------------------------------------------------------------------------------


def test_bank_on_made_up_calls(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The answer follows from the length of the call alone, so without that column nothing can be learnt."""
    rng = np.random.default_rng(0)
    duration = rng.integers(0, 1000, 400)
    rows = zip(rng.integers(18, 80, 400), rng.choice(["cook", "smith"], 400), duration, strict=True)
    text = io.StringIO()
    writer = csv.writer(text, delimiter=";", quoting=csv.QUOTE_NONNUMERIC)
    writer.writerow(["age", "job", "duration", "y"])
    writer.writerows([int(age), str(job), int(seconds), "yes" if seconds > 800 else "no"] for age, job, seconds in rows)
    (tmp_path / "bank_marketing").mkdir()
    with gzip.open(tmp_path / "bank_marketing" / "bank-additional.csv.gz", "wt") as file:
        file.write(text.getvalue())

    output = tmp_path / "runs"
    arguments = ["--data", str(tmp_path), "--output", str(output), "--seeds", "1", "--epochs", "60"]
    assert experiment("bank_marketing_mlp").main(arguments) == 1
    out, err = capsys.readouterr()
    assert "with duration: 4 features of 3 columns; 240 + 80 + 80 rows" in out
    with_it, without_it = (float(value) for value in re.findall(r"mean test AUC ([\d.]+)", out))
    assert with_it > 0.8 and 0.2 < without_it < 0.7
    assert "failed: without duration: the mean test AUC" in err and "is below 0.75" in err
    saved = jaxdl.data.FittedFeatures.load(output / "with-duration" / "features.json")
    assert saved.names == ("age", "duration", "job=cook", "job=smith") and saved.classes == ("no", "yes")


@pytest.mark.data
def test_bank_on_the_real_calls(data_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--data", str(data_folder), "--output", str(tmp_path), "--seeds", "1"]
    assert experiment("bank_marketing_mlp").main(arguments) == 0, capsys.readouterr().err
    assert "with duration: 63 features of 20 columns" in capsys.readouterr().out


# ---- CIFAR-10 --------------------------------------------------------------------------------------------------------


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Zip files like CIFAR-10's: ten classes, each of one colour."""
    image = pytest.importorskip("PIL.Image", reason="images need pillow: pip install 'jaxdl[data]'")
    (tmp_path / "cifar10").mkdir()
    for name, count in (("train", 20), ("test", 5)):
        with zipfile.ZipFile(tmp_path / "cifar10" / f"{name}.zip", "w") as archive:
            for label in range(10):
                for number in range(count):
                    file = io.BytesIO()
                    pixels = np.full((32, 32, 3), 25 * label, np.uint8)
                    pixels[0, 0] = 0 if name == "train" else 255, number, 0
                    image.fromarray(pixels).save(file, "PNG")
                    archive.writestr(f"class{label}/{number:04}.png", file.getvalue())
    return tmp_path


def test_cifar_splits_and_mirrors(images: Path) -> None:
    cifar = experiment("cifar10_convnet")
    train, validation, test = cifar.read(images / "cifar10")
    for part, count in ((train, 18), (validation, 2), (test, 5)):
        assert part["x"].shape == (10 * count, 32, 32, 3) and part["x"].dtype == np.uint8
        assert np.bincount(part["y"]).tolist() == [count] * 10
        assert (part["x"][:, 5, 5, 0] == 25 * part["y"]).all()
    assert (test["x"][:, 0, 0, 0] == 255).all() and (validation["x"][:, 0, 0, 0] == 0).all()
    assert not jaxdl.data.find_leaks(train, validation)
    assert sorted(np.bincount(cifar.read(images / "cifar10", 50)[0]["y"])) == 5 * [4] + 5 * [5]

    rng = np.random.default_rng(0)
    record = {"x": test["x"][0], "y": test["y"][0]}
    corners = {int(cifar.mirrored(record, rng)["x"][0, 0, 0]) for _ in range(20)}
    assert corners == {0, 255}


@pytest.mark.slow
def test_cifar_in_short_form(images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Ten colours are learnt within a few steps; the goal is for the real images."""
    output = tmp_path / "run"
    arguments = ["--data", str(images), "--output", str(output), "--epochs", "4", "--batch-size", "20"]
    assert experiment("cifar10_convnet").main(arguments) in (0, 1)
    out = capsys.readouterr().out
    assert "180 images to train on, 20 to watch by, 50 to test on" in out
    history = RunFolder(output).records("epoch")
    assert len(history) == 4
    assert history[-1]["train:loss"] < 0.7 * history[0]["train:loss"]
    assert (output / "report.html").is_file()


def test_images_are_shifted_and_mirrored_inside_the_step() -> None:
    resnet = experiment("cifar10_resnet")
    image = np.zeros((8, 8, 1), np.uint8)
    image[3, 2] = 7
    moved = np.asarray(resnet.shifted_and_mirrored(jax.random.key(0), np.stack([image] * 500), most=2))
    assert moved.shape == (500, 8, 8, 1) and moved.dtype == np.uint8 and (moved.sum((1, 2, 3)) == 7).all()
    _, rows, columns, _ = np.nonzero(moved)
    places = {(int(row), int(column)) for row, column in zip(rows, columns, strict=True)}
    assert places == {(row, column) for row in range(1, 6) for column in (0, 1, 2, 3, 4, 7, 6, 5)}


# ---- raccoons, and digits in two numbers -----------------------------------------------------------------------------


def made_up_photographs(path: Path, count: int) -> None:
    """A zip of annotations and images: noise with one dark square each; the fourth shows what the fifth shows."""
    from PIL import Image

    path.parent.mkdir(parents=True)
    rng = np.random.default_rng(0)
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(count):
            if number != 4:
                pixels = rng.integers(120, 255, (60, 80, 3), dtype=np.uint8)
                left, top = 15 * (number % 5), 15 * (number // 5)
                pixels[top : top + 15, left : left + 15] = 0
            file = io.BytesIO()
            Image.fromarray(pixels).save(file, "PNG")
            archive.writestr(f"images/{number:02}.png", file.getvalue())
            corners = zip(("xmin", "ymin", "xmax", "ymax"), (left + 1, top + 1, left + 15, top + 15), strict=True)
            box = "".join(f"<{side}>{value}</{side}>" for side, value in corners)
            archive.writestr(
                f"annotations/{number:02}.xml",
                f"<annotation><object><name>raccoon</name><bndbox>{box}</bndbox></object></annotation>",
            )


def test_raccoons_held_out_are_not_trained_on(tmp_path: Path) -> None:
    path = tmp_path / "raccoon" / "raccoon.zip"
    made_up_photographs(path, 10)
    raccoon = experiment("raccoon_ssd")
    train, held_out = raccoon.read(path, 32)
    assert len(held_out) == 2 and len(train) == 7, "of eight, one shows what the first held out shows"
    assert not (train["x"][:, None] == held_out["x"][None]).all((2, 3, 4)).any()
    guess = raccoon.always_the_same(train, held_out)
    np.testing.assert_allclose(guess["boxes"][1, 0], train["boxes"][:, 0].mean(0), rtol=1e-5)
    found = {"boxes": guess["boxes"], "scores": guess["scores"]}
    assert raccoon.draw(held_out, found, tmp_path).stat().st_size > 1000


@pytest.mark.slow
def test_raccoons_in_short_form(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made_up_photographs(tmp_path / "raccoon" / "raccoon.zip", 20)
    output = tmp_path / "run"
    arguments = ["--data", str(tmp_path), "--epochs", "1", "--output", str(output)]
    assert experiment("raccoon_ssd").main(arguments) == 0
    assert "AP at IoU 0.5" in capsys.readouterr().out and (output / "boxes.png").exists()


def test_digits_of_two_numbers_in_short_form(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "run"
    assert experiment("digits_vae").main(["--epochs", "1", "--output", str(output)]) == 0
    assert "nats: reconstruction" in capsys.readouterr().out and (output / "digits.png").exists()
