"""Photographs with boxes: VOC's files to columns, and changes of an image that its boxes follow."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jaxdl.data import photometric_distortion, random_box_crop, random_expand, random_flip_boxes, read_voc

OBJECT = (
    "<object><name>{}</name><difficult>{}</difficult><bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax>"
    "<ymax>{}</ymax></bndbox></object>"
)


def write(folder: Path, name: str, shape: tuple[int, int], objects: list[tuple]) -> None:
    """One photograph of this height and width, blue inside its boxes, and its annotation."""
    (folder / "JPEGImages").mkdir(parents=True, exist_ok=True)
    (folder / "Annotations").mkdir(exist_ok=True)
    pixels = np.zeros((*shape, 3), np.uint8)
    for _, _, left, top, right, bottom in objects:
        pixels[int(top) - 1 : int(bottom), int(left) - 1 : int(right), 2] = 255
    Image.fromarray(pixels).save(folder / "JPEGImages" / f"{name}.png")
    text = "".join(OBJECT.format(*one) for one in objects)
    (folder / "Annotations" / f"{name}.xml").write_text(f"<annotation>{text}</annotation>")


@pytest.fixture
def folder(tmp_path):
    write(tmp_path, "b", (20, 40), [("dog", 0, 11, 6, 30, 15), ("cat", 1, 1, 1, 40, 20)])
    write(tmp_path, "a", (20, 20), [("cat", 0, 1, 11, 10, 20)])
    write(tmp_path, "c", (10, 10), [])
    return tmp_path


def test_boxes_are_corners_in_pixels_of_the_resized_image(folder):
    data = read_voc(folder, size=(40, 80))
    assert data.classes == ("cat", "dog") and data["x"].shape == (3, 40, 80, 3) and data["x"].dtype == np.uint8
    assert data["labels"].tolist() == [[0, -1], [1, 0], [-1, -1]]
    np.testing.assert_array_equal(data["boxes"][1], [[20, 10, 60, 30], [0, 0, 80, 40]])
    np.testing.assert_array_equal(data["boxes"][0], [[0, 20, 40, 40], [0, 0, 0, 0]])
    assert data["difficult"].tolist() == [[False, False], [False, True], [False, False]]
    assert data["size"].tolist() == [[20, 20], [20, 40], [10, 10]]
    assert data["x"][0, 30, 20, 2] > 250 and data["x"][0, 10, 20, 2] < 5, "the pixels of the box are where it says"


def test_a_zip_gives_the_same_and_classes_and_places_can_be_fixed(folder, tmp_path):
    path = tmp_path / "voc.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*.*")):
            if file != path:
                archive.write(file, file.relative_to(folder))
    whole = read_voc(path, size=16, classes=("dog", "cat"), boxes=4)
    assert whole["labels"][1].tolist() == [0, 1, -1, -1] and whole["boxes"].shape == (3, 4, 4)
    path.unlink()
    np.testing.assert_array_equal(whole["x"], read_voc(folder, size=16)["x"])
    assert read_voc(folder, size=20, first_pixel=0)["boxes"][0, 0].tolist() == [1, 11, 10, 20]


def test_what_is_wrong_is_named(folder):
    for options, sentence in (
        ({"classes": ("cat",)}, "class 'dog'"),
        ({"boxes": 1}, "b.xml has 2 boxes, which do not fit into boxes=1"),
    ):
        with pytest.raises(ValueError, match=sentence):
            read_voc(folder, size=16, **options)
    write(folder, "d", (10, 10), [("cat", 0, 5, 5, 4, 9)])
    with pytest.raises(ValueError, match=r"d.xml: object 0, 'cat', has the box .* has no area"):
        read_voc(folder, size=16)
    (folder / "Annotations" / "d.xml").write_text(f"<annotation>{OBJECT.format('cat', 0, 'nan', 1, 9, 9)}</annotation>")
    with pytest.raises(ValueError, match=r"d.xml: object 0, 'cat', needs a <bndbox> of the numbers .*'nan'"):
        read_voc(folder, size=16)
    (folder / "Annotations" / "d.xml").write_text("<annotation><object><name>cat</name></object></annotation>")
    with pytest.raises(ValueError, match="needs a <bndbox> of the numbers xmin, ymin, xmax, ymax"):
        read_voc(folder, size=16)
    (folder / "Annotations" / "d.xml").write_text("<annotation>")
    with pytest.raises(ValueError, match=r"d\.xml is not XML"):
        read_voc(folder, size=16)
    (folder / "Annotations" / "d.xml").write_text("<project><object/></project>")
    with pytest.raises(ValueError, match=r"d\.xml is no VOC annotation: its outermost element is <project>"):
        read_voc(folder, size=16)
    (folder / "Annotations" / "d.xml").unlink()
    Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(folder / "a.jpg")
    with pytest.raises(ValueError, match=r"two images of one name, .*a\.\w+ and .*a\.\w+"):
        read_voc(folder, size=16)
    (folder / "a.jpg").unlink()
    (folder / "JPEGImages" / "a.png").unlink()
    with pytest.raises(ValueError, match=r"a\.xml has no image"):
        read_voc(folder, size=16)


def scene(seed: int, dtype: type = np.uint8) -> dict[str, np.ndarray]:
    """A dark image with one bright box for each label, whose green says which."""
    rng = np.random.default_rng(seed)
    image = np.zeros((48, 64, 3), np.uint8)
    boxes = np.zeros((4, 4), np.float32)
    labels = np.array([0, 1, -1, -1], np.int32)
    for number, left in enumerate((2, 36)):
        top, side = int(rng.integers(2, 20)), int(rng.integers(14, 24))
        boxes[number] = left, top, left + side, top + side
        image[top : top + side, left : left + side] = (255, 120 * number, 0)
    x = image if dtype is np.uint8 else (image / 255).astype(dtype)
    return {"x": x, "boxes": boxes, "labels": labels, "difficult": np.array([True, False, False, False])}


@pytest.mark.parametrize("change", [random_flip_boxes, random_expand, random_box_crop])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_boxes_follow_their_objects(change, dtype):
    changed = 0
    for seed in range(60):
        before = scene(seed, dtype)
        after = change(before, np.random.default_rng(seed))
        again = change(before, np.random.default_rng(seed))
        assert all(np.array_equal(after[name], again[name]) for name in after)
        assert {name: (v.shape, v.dtype) for name, v in after.items()} == {
            name: (v.shape, v.dtype) for name, v in before.items()
        }
        changed += not np.array_equal(before["boxes"], after["boxes"])
        bright = after["x"][..., 0].astype(np.float32) / (255 if dtype is np.uint8 else 1) > 0.6
        for box, label, difficult in zip(after["boxes"], after["labels"], after["difficult"], strict=True):
            if label < 0:
                assert not difficult
                continue
            assert difficult == (label == 0)
            left, top, right, bottom = np.rint(box).astype(int)
            assert 0 <= left < right <= 64 and 0 <= top < bottom <= 48
            assert bright[top + 1 : bottom - 1, left + 1 : right - 1].all(), "the object is where its box says"
            across = slice(max(0, left - 3), left), slice(top + 2, bottom - 2)
            if left >= 4 and bottom - top > 5:
                assert not bright[across[1], across[0]][:, :1].all(), "and not beside it"
    assert changed > 15


def test_crops_overlap_as_asked_and_boxes_that_go_become_padding():
    gone = 0
    for seed in range(40):
        before = scene(seed)
        after = random_box_crop(before, np.random.default_rng(seed), overlaps=(0.5,))
        count = int((after["labels"] >= 0).sum())
        assert count >= 1 and (after["labels"][:count] >= 0).all()
        gone += count == 1
    assert gone > 5
    empty = scene(0) | {"labels": np.full(4, -1, np.int32)}
    assert random_box_crop(empty, np.random.default_rng(1), overlaps=(None,))["x"].shape == (48, 64, 3)
    whole = random_box_crop(scene(0), np.random.default_rng(0), overlaps=(1.0,))
    np.testing.assert_array_equal(whole["x"], scene(0)["x"])


@pytest.mark.parametrize("change", [random_flip_boxes, random_expand, random_box_crop])
def test_areas_stay_those_of_their_boxes(change):
    changed = 0
    for seed in range(40):
        before = scene(seed)
        before["area"] = (before["boxes"][:, 2:] - before["boxes"][:, :2]).prod(1)
        after = change(before, np.random.default_rng(seed))
        area = (after["boxes"][:, 2:] - after["boxes"][:, :2]).prod(1)
        np.testing.assert_allclose(after["area"], np.where(after["labels"] >= 0, area, 0), rtol=1e-4)
        changed += not np.allclose(after["area"], before["area"])
    assert changed == 0 if change is random_flip_boxes else changed > 10


def test_photometric_distortion_keeps_dtype_and_range_and_grey_stays_grey():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
    results = [photometric_distortion(image, np.random.default_rng(seed)) for seed in range(20)]
    assert all(r.dtype == np.uint8 and r.shape == image.shape for r in results)
    assert len({r.tobytes() for r in results}) > 12
    floats = photometric_distortion((image / 255).astype(np.float32), np.random.default_rng(3))
    assert floats.dtype == np.float32 and floats.min() >= 0 and floats.max() <= 1
    assert np.abs(floats * 255 - results[3]).max() <= 1
    grey = np.full((4, 4, 3), 100, np.uint8)
    for seed in range(20):
        spread = np.ptp(photometric_distortion(grey, np.random.default_rng(seed)).astype(int), axis=-1)
        assert spread.max() <= 1, "saturation and hue do not touch grey"
    with pytest.raises(ValueError, match="takes a colour image"):
        photometric_distortion(grey[..., :1], rng)
    with pytest.raises(ValueError, match="a record with boxes has x, boxes and labels"):
        random_flip_boxes({"x": grey}, rng)
