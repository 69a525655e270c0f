"""The street scenes: the parts of experiments/camvid.py, and all of it in a tiny form on made-up scenes."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest

from jaxdl.data import Dataset
from tests.test_experiments import experiment

PIL = pytest.importorskip("PIL.Image", reason="the data extra is not installed")


def made_up_scenes(folder: Path, count: int) -> None:
    """train.zip, val.zip and test.zip: sky over road, a row without a class between them."""
    rng = np.random.default_rng(0)
    (folder / "camvid").mkdir()
    for part in ("train", "val", "test"):
        with zipfile.ZipFile(folder / "camvid" / f"{part}.zip", "w") as archive:
            for number in range(count):
                horizon = int(rng.integers(60, 120))
                mask = np.where(np.arange(180)[:, None] < horizon, np.uint8(0), np.uint8(3)) * np.ones(
                    (1, 240), np.uint8
                )
                mask[horizon] = 11
                image = rng.integers(0, 90, (180, 240, 3)) + np.where(mask == 0, 150, 0)[..., None]
                for name, pixels in (("images", image.astype(np.uint8)), ("annotations", mask)):
                    file = io.BytesIO()
                    PIL.fromarray(pixels).save(file, "PNG")
                    archive.writestr(f"{name}/{number}.png", file.getvalue())


def test_rare_classes_weigh_more_and_all_pixels_one_on_average() -> None:
    labels = np.repeat(np.arange(12), [400, 100, 25, 1, 1, 1, 1, 1, 1, 1, 1, 900]).astype(np.uint8)
    weights = np.array(experiment("camvid").class_weights(labels))
    assert (
        len(weights) == 11
        and weights[1] / weights[0] == pytest.approx(2)
        and weights[2] / weights[0] == pytest.approx(4)
    )
    assert np.mean(weights[labels[labels != 11]]) == pytest.approx(1)


def test_another_camera_sees_the_same_classes() -> None:
    camvid = experiment("camvid")
    mask = np.zeros((90, 120), np.uint8)
    mask[:45] = 5
    record = {"x": np.repeat(mask[..., None] * 50, 3, axis=-1), "y": mask}
    for seed in range(20):
        seen = camvid.changed(dict(record), np.random.default_rng(seed), size=(90, 120))
        assert seen["x"].shape == (90, 120, 3) and seen["y"].shape == (90, 120)
        assert set(np.unique(seen["y"])) <= {0, 5, camvid.VOID}
        assert np.mean(seen["x"][seen["y"] == 5] == 250) > 0.9 and not seen["x"][seen["y"] == camvid.VOID].any()


def test_scenes_are_drawn_in_the_colours_of_their_classes(tmp_path: Path) -> None:
    camvid = experiment("camvid")
    y = np.full((2, 90, 120), 3, np.uint8)
    y[:, :20] = camvid.VOID
    scenes = Dataset({"x": np.full((2, 90, 120, 3), 200, np.uint8), "y": y})
    camvid.draw(scenes, np.full((2, 90, 120), 0), tmp_path / "scenes.png")
    page = PIL.open(tmp_path / "scenes.png")
    centres = [page.getpixel((6 + column * 326 + 160, 26 + 150)) for column in range(3)]
    assert centres == [(200, 200, 200), camvid.CLASSES["road"], camvid.CLASSES["sky"]]
    assert page.getpixel((6 + 2 * 326 + 160, 26 + 10)) == (0, 0, 0), "what has no class is no mistake"


@pytest.mark.slow
@pytest.mark.parametrize("model", ["unet", "deeplabv3"])
def test_camvid_in_short_form(model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made_up_scenes(tmp_path, 8)
    output = tmp_path / "run"
    arguments = ["--data", str(tmp_path), "--model", model, "--epochs", "2", "--output", str(output)]
    assert experiment("camvid").main([*arguments, "--seconds", "0.001"]) == 0
    assert "time is up" in capsys.readouterr().out and not (output / "scenes.png").exists()
    assert experiment("camvid").main(arguments) == 0
    assert "test mIoU 0." in capsys.readouterr().out and (output / "scenes.png").exists()
