"""Photographs with boxes: Pascal VOC's annotations and images as columns of one length."""

from __future__ import annotations

import io
import os
import xml.etree.ElementTree as ElementTree
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from jaxdl.data.dataset import Dataset
from jaxdl.data.formats.images import IMAGE_SUFFIXES
from jaxdl.data.formats.source import existing, missing_extra
from jaxdl.data.schema import nearest

_SIDES = ("xmin", "ymin", "xmax", "ymax")


def read_voc(
    path: str | os.PathLike[str],
    *,
    size: int | tuple[int, int],
    classes: Sequence[str] | None = None,
    boxes: int | None = None,
    first_pixel: int = 1,
) -> Dataset:
    """A Dataset of a folder or zip with annotations (*.xml) and the images that they name, in the order of the names.

    Args:
        path: holds one xml file for each image, anywhere within (Annotations/, annotations/); the image has the same
            name but for its ending, anywhere within (JPEGImages/, images/).
        size: (height, width), or the side of a square, to which all images are resized, whatever their shape.
        classes: the names of the labels 0, 1 ...; None: all that occur, sorted.
        boxes: places for boxes of each image; None: as many as the fullest image has. Give it where several data sets
            must go into one program.
        first_pixel: the number of the first column and row: 1 in VOC's files, whose last column belongs to the box; 0
            for tools that count from 0 (there xmax is where the box ends).

    Returns:
        x: uint8 [n, height, width, 3]. boxes: float32 [n, boxes, 4], corners in pixels of x. labels: int32 [n, boxes],
        -1 is padding. difficult: bool [n, boxes]. size: int32 [n, 2], height and width that the image had.

    Raises:
        ValueError: naming the file: no annotation, no such image or two of its name, an image that does not decode, a
            box that is none or lies outside its image (one that sticks out is cut), a class that is not listed.
        ImportError: pillow is missing.
    """
    try:
        import PIL.Image
    except ImportError as error:
        raise missing_extra("reading images", "pillow") from error
    files = _files(existing(path))
    height, width = (size, size) if isinstance(size, int) else size
    notes = sorted(name for name in files if name.lower().endswith(".xml"))
    photographs = [name for name in files if name.lower().endswith(IMAGE_SUFFIXES) and "Segmentation" not in name]
    images: dict[str, str] = {}
    wanted = {PurePosixPath(name).stem for name in notes}
    for name in photographs:
        other = images.setdefault(PurePosixPath(name).stem, name)
        if other != name and PurePosixPath(name).stem in wanted:
            raise ValueError(f"{path} holds two images of one name, {other} and {name}: give the folder of one set")
    if not notes:
        raise ValueError(f"{path} holds no annotations (*.xml)")
    parsed = [_annotation(files[name](), name) for name in notes]
    found = sorted({label for objects in parsed for label, _, _ in objects})
    names = tuple(found if classes is None else classes)
    number = {label: place for place, label in enumerate(names)}
    for name, objects in zip(notes, parsed, strict=True):
        for label, _, _ in objects:
            if label not in number:
                raise ValueError(f"{name} has an object of class {label!r}{nearest(label, names)}; classes are {names}")
    fullest = max([1, *map(len, parsed)])
    places = fullest if boxes is None else boxes
    if places < fullest:
        full = notes[[len(objects) for objects in parsed].index(fullest)]
        raise ValueError(f"{full} has {fullest} boxes, which do not fit into boxes={places}")
    count = len(notes)
    columns: dict[str, np.ndarray] = {
        "x": np.empty((count, height, width, 3), np.uint8),
        "boxes": np.zeros((count, places, 4), np.float32),
        "labels": np.full((count, places), -1, np.int32),
        "difficult": np.zeros((count, places), np.bool_),
        "size": np.zeros((count, 2), np.int32),
    }
    for row, (name, objects) in enumerate(zip(notes, parsed, strict=True)):
        stem = PurePosixPath(name).stem
        if stem not in images:
            raise ValueError(f"{name} has no image: {stem} with one of {', '.join(IMAGE_SUFFIXES)}")
        try:
            with PIL.Image.open(io.BytesIO(files[images[stem]]())) as file:
                image = file.convert("RGB")
        except (OSError, SyntaxError, ValueError) as error:
            raise ValueError(f"the image {images[stem]} does not decode: {error}") from error
        columns["size"][row] = image.height, image.width
        scale = np.array([width / image.width, height / image.height] * 2)
        columns["x"][row] = np.asarray(image.resize((width, height), PIL.Image.Resampling.BILINEAR))
        for place, (label, box, difficult) in enumerate(objects):
            corners = np.array(box, np.float64) - [first_pixel, first_pixel, 0, 0]
            limit = np.array([image.width, image.height] * 2)
            corners = np.clip(corners, 0, limit)
            if corners[2] <= corners[0] or corners[3] <= corners[1]:
                raise ValueError(
                    f"{name}: object {place}, {label!r}, has the box {list(box)}, which lies outside its image "
                    f"({image.height} x {image.width} pixels, height x width) or has no area"
                )
            columns["boxes"][row, place] = corners * scale
            columns["labels"][row, place], columns["difficult"][row, place] = number[label], difficult
    return Dataset(columns, names, Path(path).name)


def _files(path: Path) -> Mapping[str, Callable[[], bytes]]:
    """Name -> what reads it, of a folder or a zip file."""
    if path.is_dir():
        return {file.relative_to(path).as_posix(): file.read_bytes for file in path.rglob("*") if file.is_file()}
    if not zipfile.is_zipfile(path):
        raise ValueError(f"{path} is neither a folder nor a zip file")
    with zipfile.ZipFile(path) as archive:
        names = [name for name in archive.namelist() if not name.startswith("__MACOSX/") and not name.endswith("/")]

    def reader(name: str) -> Callable[[], bytes]:
        def read() -> bytes:
            with zipfile.ZipFile(path) as archive:
                return archive.read(name)

        return read

    return {name: reader(name) for name in names}


def _annotation(content: bytes, name: str) -> list[tuple[str, tuple[float, ...], bool]]:
    """(class, corners as they are written, difficult) of each object."""
    try:
        root = ElementTree.fromstring(content)
    except ElementTree.ParseError as error:
        raise ValueError(f"{name} is not XML: {error}") from error
    if root.tag != "annotation":
        raise ValueError(f"{name} is no VOC annotation: its outermost element is <{root.tag}>, not <annotation>")
    objects = []
    for place, element in enumerate(root.iter("object")):
        label, written = element.findtext("name"), [element.findtext(f"bndbox/{side}") for side in _SIDES]
        if not label or not label.strip():
            raise ValueError(f"{name}: object {place} has no <name>")
        try:
            box = tuple(float(side or "") for side in written)
            if not np.isfinite(box).all():
                raise ValueError
        except ValueError:
            raise ValueError(
                f"{name}: object {place}, {label!r}, needs a <bndbox> of the numbers {', '.join(_SIDES)}, not {written}"
            ) from None
        objects.append((label.strip(), box, (element.findtext("difficult") or "0").strip() == "1"))
    return objects
