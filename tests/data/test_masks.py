"""Images with masks: read from folders and zips, and changed alike."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest

from jaxdl.data import crop_with_mask, flip_with_mask, read, scale_with_mask

PIL = pytest.importorskip("PIL.Image", reason="the data extra is not installed")

IMAGE = np.arange(6 * 5 * 3, dtype=np.uint8).reshape(6, 5, 3)
MASK = np.arange(6 * 5, dtype=np.uint8).reshape(6, 5)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def alike(image: np.ndarray, mask: np.ndarray) -> bool:
    """Whether each pixel kept its class: IMAGE's first channel is three times MASK."""
    return np.array_equal(image[..., 0], 3 * mask)


def encoded(image: PIL.Image, kind: str = "PNG") -> bytes:
    out = io.BytesIO()
    image.save(out, kind)
    return out.getvalue()


def files(palette: bool = False) -> dict[str, bytes]:
    """Two scenes of 6 x 8 pixels; the mask of scene i holds i and 7."""
    found = {}
    for i in range(2):
        mask = PIL.fromarray(np.where(np.arange(8) < 3, np.uint8(i), np.uint8(7)) * np.ones((6, 1), np.uint8))
        if palette:
            mask = mask.convert("P")
            mask.putpalette([255 - n // 3 for n in range(768)])
        found[f"images/scene{i}.png"] = encoded(PIL.fromarray(np.full((6, 8, 3), 50 * i + 9, np.uint8)))
        found[f"annotations/scene{i}.png"] = encoded(mask)
    return found


def archived(path: Path, entries: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return path


@pytest.mark.parametrize("palette", [False, True])
def test_masks_are_class_numbers_from_a_folder_as_from_a_zip(tmp_path, palette):
    zipped = read(archived(tmp_path / "scenes.zip", files(palette)), format="masks")
    for name, content in files(palette).items():
        (tmp_path / "scenes" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "scenes" / name).write_bytes(content)
    for table in (zipped, read(tmp_path / "scenes", format="masks", workers=0)):
        assert table["image"].shape == (2, 6, 8, 3) and table["image"].dtype == np.uint8
        assert table["image"][:, 2, 2, 1].tolist() == [9, 59]
        assert table["mask"].shape == (2, 6, 8) and table["mask"].dtype == np.uint8
        assert table["mask"][:, 5].tolist() == [[0] * 3 + [7] * 5, [1] * 3 + [7] * 5]
        assert table["path"].tolist() == ["images/scene0.png", "images/scene1.png"]


def test_resized_masks_hold_no_class_that_was_not_there(tmp_path):
    table = read(archived(tmp_path / "scenes.zip", files()), format="masks", size=(12, 5))
    assert table["image"].shape == (2, 12, 5, 3) and table["mask"].shape == (2, 12, 5)
    assert set(table["mask"][1].ravel().tolist()) == {1, 7}


def test_faults_of_scenes_get_a_sentence(tmp_path):
    path = tmp_path / "scenes.zip"

    def fails(**changed: bytes | None) -> str:
        entries = files() | {name.replace("__", "/") + ".png": value for name, value in changed.items()}
        archived(path, {name: content for name, content in entries.items() if content is not None})
        with pytest.raises(ValueError) as caught:
            read(path, format="masks")
        return str(caught.value)

    assert "images/scene1.png has no partner in annotations/" in fails(annotations__scene1=None)
    assert "annotations/more.png has no partner in images/" in fails(annotations__more=files()["images/scene0.png"])
    coloured = fails(annotations__scene1=files()["images/scene0.png"])
    assert "the mask annotations/scene1.png is of mode RGB; grey (L) or with a palette (P)" in coloured
    wide = encoded(PIL.fromarray(np.zeros((6, 9), np.uint8)))
    assert "annotations/scene1.png has 6 x 9 pixels" in fails(annotations__scene1=wide)
    both = fails(annotations__scene1=wide, annotations__scene0=wide)
    assert "the images have 6 x 8 pixels, the masks 6 x 9" in both
    turned = files() | {"annotations/scene1.png": encoded(PIL.fromarray(np.zeros((8, 6), np.uint8)))}
    with pytest.raises(ValueError, match=r"images/scene1.png has 6 x 8 .* annotations/scene1.png 8 x 6"):
        read(archived(path, turned), format="masks", size=(12, 16))
    twice = files() | {"images/scene1.jpg": encoded(PIL.fromarray(np.zeros((6, 8, 3), np.uint8)), "JPEG")}
    with pytest.raises(ValueError, match=r"images/scene1.jpg and images/scene1.png share their name"):
        read(archived(path, twice), format="masks")
    with pytest.raises(ValueError, match="there are no images in photos/"):
        read(archived(path, files()), format="masks", images="photos")


def test_crops_are_alike_and_reach_every_place():
    seen = set()
    for seed in range(200):
        image, mask = crop_with_mask(IMAGE, MASK, rng(seed), size=(4, 2))
        assert image.shape == (4, 2, 3) and mask.shape == (4, 2) and alike(image, mask)
        seen.add(int(mask[0, 0]))
    assert seen == {5 * row + column for row in range(3) for column in range(4)}


def test_what_lies_beside_a_small_image_is_of_no_class():
    places = set()
    for seed in range(100):
        image, mask = crop_with_mask(IMAGE, MASK, rng(seed), size=(8, 4), ignore=99)
        assert image.shape == (8, 4, 3) and np.sum(mask == 99) == 2 * 4
        assert alike(image[mask != 99], mask[mask != 99]) and not image[mask == 99].any()
        places.add((int(np.argmax(mask[:, 0] != 99)), int(mask[mask != 99][0])))
    assert places == {(row, column) for row in range(3) for column in range(2)}


def test_flips_are_alike_and_as_often_as_asked():
    flipped = 0
    for seed in range(200):
        image, mask = flip_with_mask(IMAGE, MASK, rng(seed))
        assert alike(image, mask)
        flipped += not np.array_equal(mask, MASK)
    assert 70 < flipped < 130
    assert np.array_equal(flip_with_mask(IMAGE, MASK, rng(), probability=1)[1], MASK[:, ::-1])


@pytest.mark.parametrize("kind", ["colour", "grey", "float"])
def test_scales_keep_image_and_mask_in_place(kind):
    """Four flat quarters: wherever a pixel lands, its colour and its class still belong together."""
    mask = np.kron(np.array([[1, 2], [3, 4]], np.uint8), np.ones((20, 30), np.uint8))
    image = np.repeat(mask[..., None] * 50, 1 if kind == "grey" else 3, axis=-1)
    image = image / np.float32(250) if kind == "float" else image.astype(np.uint8)
    sizes = set()
    for seed in range(40):
        scaled, labels = scale_with_mask(image, mask, rng(seed), smallest=0.5, largest=2.0)
        assert scaled.dtype == image.dtype and scaled.shape == (*labels.shape, image.shape[-1])
        assert 20 <= labels.shape[0] <= 80 and abs(labels.shape[0] / 40 - labels.shape[1] / 60) < 0.05
        found = scaled[..., 0] * (250 if kind == "float" else 1) / 50
        assert np.mean(np.abs(found - labels) < 0.05) > 0.75  # all but those between two quarters
        assert set(np.unique(labels)) == {1, 2, 3, 4}
        sizes.add(labels.shape[0])
    assert min(sizes) < 25 and max(sizes) > 65
    same, labels = scale_with_mask(image, mask, rng(), smallest=1.0, largest=1.0)
    assert np.array_equal(same, image) and np.array_equal(labels, mask)


def test_wrong_shapes_and_limits_get_a_sentence():
    with pytest.raises(ValueError, match=r"\[6, 5, 3\] and \[5, 6\]"):
        flip_with_mask(IMAGE, MASK.T, rng())
    with pytest.raises(ValueError, match="0 < smallest <= largest"):
        scale_with_mask(IMAGE, MASK, rng(), smallest=2, largest=1)
