"""Random changes of images: right for one image and drawn from the rng alone."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

from jaxdl.data import GrainFeed, ImageFiles, color_jitter, random_crop, random_flip

IMAGE = np.arange(5 * 4 * 3, dtype=np.uint8).reshape(5, 4, 3)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_crops_are_windows_and_reach_every_place() -> None:
    windows = {IMAGE[i : i + 3, j : j + 2].tobytes() for i in range(3) for j in range(3)}
    seen = {random_crop(IMAGE, rng(seed), size=(3, 2)).tobytes() for seed in range(200)}
    assert seen == windows
    padded = {random_crop(IMAGE, rng(seed), size=(5, 4), padding=1)[0, 0, 1] for seed in range(200)}
    assert padded == {0, 1, 4, 13, 16}  # outside, or one of the four upper left pixels
    with pytest.raises(ValueError, match="5x4 with padding 0 is smaller than the crop 6x2"):
        random_crop(IMAGE, rng(), size=(6, 2))
    with pytest.raises(ValueError, match="an image is"):
        random_crop(IMAGE[0], rng(), size=(1, 1))


def test_flips_mirror_as_often_as_asked() -> None:
    flipped = [np.array_equal(random_flip(IMAGE, rng(seed)), IMAGE[:, ::-1]) for seed in range(400)]
    assert 150 < sum(flipped) < 250
    assert np.array_equal(random_flip(IMAGE, rng(), probability=1, vertical=True), IMAGE[::-1])
    assert all(random_flip(IMAGE, rng(seed), probability=0) is IMAGE for seed in range(20))


def test_color_jitter_changes_what_it_says() -> None:
    image = rng(1).integers(60, 200, (8, 8, 3), dtype=np.uint8)
    assert np.array_equal(color_jitter(image, rng()), image)
    factor = 1 + 0.2 * rng(3).uniform(-1, 1, 3)[0]
    bright = color_jitter(image, rng(3), brightness=0.2)
    assert bright.dtype == np.uint8 and np.array_equal(bright, np.rint(np.minimum(image * factor, 255)))
    luma = np.array([0.299, 0.587, 0.114])
    contrasted = color_jitter(image / np.float32(255), rng(3), contrast=0.3) * 255
    assert np.isclose((contrasted @ luma).mean(), (image @ luma).mean(), rtol=1e-3)
    assert not np.isclose(contrasted.std(), image.std(), rtol=1e-3)
    saturated = color_jitter(image / np.float32(255), rng(3), saturation=0.3) * 255
    assert np.allclose(saturated @ luma, image @ luma, atol=0.1) and not np.allclose(saturated, image, atol=2)
    grey = image[..., :1]
    assert np.array_equal(color_jitter(grey, rng(3), saturation=1.0), grey)
    with pytest.raises(ValueError, match="contrast is the width of a factor"):
        color_jitter(image, rng(), contrast=3)


def test_image_files_are_decoded_when_asked_for(tmp_path) -> None:
    pillow = pytest.importorskip("PIL.Image")
    for i in range(4):
        pillow.fromarray(IMAGE + np.uint8(i)).save(tmp_path / f"{i}.png")
    files = ImageFiles([tmp_path / f"{i}.png" for i in range(4)], [3, 2, 1, 0])
    assert np.array_equal(files[2]["x"], IMAGE + 2) and files[2]["y"] == 1
    assert ImageFiles(files.paths, channels=1)[0]["x"].shape == (5, 4, 1)
    feed = GrainFeed(files, 3, transform=partial(crop, size=(3, 3)))
    block = feed.block(0, 0, 2)
    assert block["x"].shape == (2, 3, 3, 3, 3) and block["x"].dtype == np.uint8
    assert sorted(block["y"][block["weight"] > 0].tolist()) == [0, 1, 2, 3]
    assert feed.batch["x"].shape == (3, 3, 3, 3) and feed.batch["y"].dtype == np.int32
    (tmp_path / "1.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"image 1, .*1\.png, does not decode"):
        files[1]
    pillow.fromarray(rng().integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(tmp_path / "1.png")
    (tmp_path / "1.png").write_bytes((tmp_path / "1.png").read_bytes()[:2000])
    with pytest.raises(ValueError, match=r"image 1, .*1\.png, does not decode"):
        files[1]
    (tmp_path / "1.png").unlink()
    with pytest.raises(FileNotFoundError, match="image 1: there is no file"):
        files[1]
    with pytest.raises(ValueError, match="4 paths but 1 labels"):
        ImageFiles(files.paths, [1])
    with pytest.raises(ValueError, match="channels must be 1"):
        ImageFiles(files.paths, channels=4)


def crop(record, rng, *, size):
    return {**record, "x": random_crop(record["x"], rng, size=size)}
