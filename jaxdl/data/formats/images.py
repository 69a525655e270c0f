"""Images: a folder or zip with one folder a class, or of images and masks, and `.lst` lists, decoded with pillow.

Images come as uint8 `[n, h, w, c]`, masks as uint8 `[n, h, w]`.
"""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Literal

import numpy as np

from jaxdl.data.formats.source import decode, existing, missing_extra, read_utf8
from jaxdl.data.schema import SKIPPED_EXAMPLES, Column, Skipped, check_choice, number_of, text_column
from jaxdl.data.table import Table

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm")
_GREY = ("1", "L", "LA", "I", "F", "I;16")

Mode = Literal["auto", "RGB", "L"]
Read = Callable[[], bytes]


def read_images(
    path: str | os.PathLike[str],
    *,
    size: int | tuple[int, int] | None = None,
    mode: Mode = "auto",
    workers: int | None = None,
    on_error: Literal["raise", "skip"] = "raise",
) -> Table:
    """A table of a folder or zip `class/name.jpg`: `image` uint8 `[n, h, w, c]`, `label`, `path`, sorted by path.

    size: resize to (height, width), or to a square; None needs all images of one size. mode: "RGB" or "L" (grey);
    "auto" is grey when the first image is. workers: threads that decode (None: one a core; 0: none). Images that do not
    decode raise ValueError, or are skipped and counted.
    """
    found = existing(path)
    if found.is_dir():
        files = {file.relative_to(found).as_posix(): file.read_bytes for file in _image_files(found)}
        return _labelled(files, found, size, mode, workers, on_error)
    if not zipfile.is_zipfile(found):
        raise ValueError(f"{found} is neither a folder nor a zip file of images, or the zip is damaged")
    with zipfile.ZipFile(found) as archive:
        inside = [name for name in archive.namelist() if _is_image(name) and not name.startswith("__MACOSX/")]
        return _labelled({name: _member(archive, name) for name in inside}, found, size, mode, workers, on_error)


def read_masks(
    path: str | os.PathLike[str],
    *,
    images: str = "images",
    masks: str = "annotations",
    size: int | tuple[int, int] | None = None,
    workers: int | None = None,
) -> Table:
    """A table of a folder or zip `images/name.jpg`, `annotations/name.png`: `image`, `mask`, `path`, sorted by path.

    image: uint8 `[n, h, w, 3]`. mask: uint8 `[n, h, w]`, the class number of each pixel as the file stores it: its grey
    level, or its number in a palette. An image and its mask share their name without suffix and their size; each needs
    the other. `Dataset({"x": table["image"], "y": table["mask"]})` is what `tasks.segmentation` learns from.

    images, masks: the two folders, at the top of the folder or zip. size: resize to (height, width), or to a square,
    images bilinearly, masks to the nearest pixel; None needs all of one size. workers: as in `read_images`.
    """
    found = existing(path)
    if found.is_dir():
        read = {file.relative_to(found).as_posix(): file.read_bytes for file in _image_files(found)}
        return _masked(read, found, images, masks, size, workers)
    if not zipfile.is_zipfile(found):
        raise ValueError(f"{found} is neither a folder nor a zip file of images, or the zip is damaged")
    with zipfile.ZipFile(found) as archive:
        files = {name: _member(archive, name) for name in archive.namelist() if _is_image(name)}
        return _masked(files, found, images, masks, size, workers)


def read_lst(
    path: str | os.PathLike[str],
    *,
    root: str | os.PathLike[str] | None = None,
    size: int | tuple[int, int] | None = None,
    mode: Mode = "auto",
    workers: int | None = None,
    on_error: Literal["raise", "skip"] = "raise",
) -> Table:
    """A table of a list `index <tab> label... <tab> path`: `image`, `label`, `index`, `path`.

    label: [n], or [n, k] with k labels a line.
    root: the folder that the paths start from; None is the folder of the list. The other options are those of
    `read_images`.
    """
    check_choice("on_error", on_error, ("raise", "skip"))
    found = existing(path)
    folder = existing(root) if root is not None else found.parent
    listed: dict[str, tuple[int, list[float], Path]] = {}
    problems: list[str] = []
    for number, line in enumerate(decode(read_utf8(found)[:], found, "utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        try:
            index, labels, name = _listed(line)
            file = folder / name
            if not file.is_file():
                raise ValueError(f"there is no image {file}")
            known = next(iter(listed.values()), None)
            if known is not None and len(known[1]) != len(labels):
                raise ValueError(f"{len(labels)} labels where the first line has {len(known[1])}")
        except ValueError as error:
            problems.append(f"{found.name}, line {number}: {error}")
            if on_error == "raise":
                raise ValueError(problems[0]) from error
            continue
        listed[f"{found.name}, line {number} ({name})"] = (index, labels, file)
    if not listed:
        raise ValueError(problems[0] if problems else f"{found.name} lists no images: all its lines are blank")
    images, kept, undecoded = _decoded(
        {place: entry[2].read_bytes for place, entry in listed.items()}, found.name, size, mode, workers, on_error
    )
    entries = [listed[place] for place in kept]
    labels_of = np.array([entry[1] for entry in entries])
    if (labels_of == np.round(labels_of)).all():
        labels_of = labels_of.astype(np.int64)
    columns = {
        "image": Column(images),
        "label": Column(labels_of[:, 0] if labels_of.shape[1] == 1 else labels_of),
        "index": Column(np.array([entry[0] for entry in entries], np.int64)),
        "path": text_column([str(entry[2]) for entry in entries]),
    }
    problems += undecoded
    return Table(columns, found.name, Skipped(len(problems), tuple(problems[:SKIPPED_EXAMPLES])))


def _listed(line: str) -> tuple[int, list[float], str]:
    cells = line.split("\t")
    if len(cells) < 3:
        raise ValueError(f"index, label and path, separated by tabs, were expected, not {line[:60]!r}")
    numbers = [number_of(cell) for cell in cells[:-1]]
    for cell, number in zip(cells, numbers, strict=False):
        if number is None or not np.isfinite(number):
            raise ValueError(f"the {'label' if cell is not cells[0] else 'index'} {cell!r} is no finite number")
    index, *labels = (float(number) for number in numbers if number is not None)
    return int(index), labels, cells[-1].strip()


def _labelled(
    files: dict[str, Read],
    path: Path,
    size: int | tuple[int, int] | None,
    mode: str,
    workers: int | None,
    on_error: str,
) -> Table:
    check_choice("on_error", on_error, ("raise", "skip"))
    if not files:
        raise ValueError(
            f"{path} holds no images; `class/name.jpg` was expected, with one of {', '.join(IMAGE_SUFFIXES)}"
        )
    names = sorted(files)
    for name in names:
        if len(PurePosixPath(name).parts) < 2:
            raise ValueError(f"{path}: the image {name} lies in no class folder; `class/{name}` was expected")
    images, kept, problems = _decoded({name: files[name] for name in names}, path.name, size, mode, workers, on_error)
    columns = {
        "image": Column(images),
        "label": text_column([PurePosixPath(name).parent.name for name in kept]),
        "path": text_column(kept),
    }
    return Table(columns, path.name, Skipped(len(problems), tuple(problems[:SKIPPED_EXAMPLES])))


def _masked(
    files: dict[str, Read],
    path: Path,
    images: str,
    masks: str,
    size: int | tuple[int, int] | None,
    workers: int | None,
) -> Table:
    pairs: dict[str, dict[str, str]] = {images: {}, masks: {}}
    for name in sorted(files):
        place = PurePosixPath(name)
        folder = place.parent.as_posix()
        if folder in pairs and pairs[folder].setdefault(place.stem, name) != name:
            raise ValueError(f"{path}: {pairs[folder][place.stem]} and {name} share their name without suffix")
    for folder, other in ((images, masks), (masks, images)):
        alone = [name for stem, name in pairs[folder].items() if stem not in pairs[other]]
        if alone or not pairs[folder]:
            lacks = f"{alone[0]} has no partner in {other}/" if alone else f"there are no images in {folder}/"
            raise ValueError(f"{path}: {lacks}; `{images}/name.jpg` and `{masks}/name.png` were expected")
    stems = list(pairs[images])
    x, kept, _ = _decoded(
        {pairs[images][stem]: files[pairs[images][stem]] for stem in stems}, path.name, size, "RGB", workers, "raise"
    )
    y, _, _ = _decoded(
        {pairs[masks][stem]: files[pairs[masks][stem]] for stem in stems}, path.name, size, "mask", workers, "raise"
    )
    for stem in stems if size is not None else ():
        have = [_size_of(files[pairs[folder][stem]]) for folder in (images, masks)]
        if have[0] != have[1]:
            raise ValueError(
                f"{path}: {pairs[images][stem]} has {have[0][0]} x {have[0][1]} pixels (height x width), its mask "
                f"{pairs[masks][stem]} {have[1][0]} x {have[1][1]}"
            )
    if x.shape[:3] != y.shape[:3]:
        raise ValueError(
            f"{path}: the images have {x.shape[1]} x {x.shape[2]} pixels, the masks {y.shape[1]} x {y.shape[2]}"
        )
    return Table({"image": Column(x), "mask": Column(y[..., 0]), "path": text_column(kept)}, path.name)


def _size_of(read: Read) -> tuple[int, int]:
    """(height, width), from the head of a file that decodes."""
    import PIL.Image

    with PIL.Image.open(io.BytesIO(read())) as image:
        return image.height, image.width


def _decoded(
    files: dict[str, Read],
    source: str,
    size: int | tuple[int, int] | None,
    mode: str,
    workers: int | None,
    on_error: str,
) -> tuple[np.ndarray, list[str], list[str]]:
    """Images `[n, h, w, c]`, the places that they came from, and a sentence for each that was skipped."""
    check_choice("mode", mode, ("auto", "RGB", "L", "mask"))
    try:
        import PIL.Image
    except ImportError as error:
        raise missing_extra("reading images", "pillow") from error
    wanted = (size, size) if isinstance(size, int) else size
    if wanted is not None and (len(wanted) != 2 or min(wanted) < 1):
        raise ValueError(f"size is {size!r}; it must be the height and width in pixels, such as (224, 224)")

    def load(place: str) -> PIL.Image.Image | str:
        """The image as it is stored, or why it is none."""
        try:
            image = PIL.Image.open(io.BytesIO(files[place]()))
            image.load()
        except (OSError, SyntaxError, ValueError, zipfile.BadZipFile, PIL.Image.DecompressionBombError) as error:
            return str(error) or type(error).__name__
        return image

    places = list(files)
    first = next((image for image in map(load, places) if not isinstance(image, str)), None)
    if first is None:
        raise ValueError(
            f"{source}: none of its {len(places)} images decodes; the first, {places[0]}: {load(places[0])}"
        )
    mask = mode == "mask"  # numbers of classes, which are neither converted nor blended
    grey = mask or mode == "L" or (mode == "auto" and first.mode in _GREY)
    height, width = wanted or (first.height, first.width)
    images = np.empty((len(places), height, width, 1 if grey else 3), np.uint8)

    def place_one(row: int) -> str | None:
        image = load(places[row])
        if isinstance(image, str):
            return f"{source}: the image {places[row]} does not decode: {image}"
        if wanted is None and (image.height, image.width) != (height, width):
            return (
                f"{source}: the image {places[row]} has {image.height} x {image.width} pixels (height x width), but "
                "the first has "
                f"{height} x {width}; give size=({height}, {width}) to resize them all"
            )
        if mask and image.mode not in ("L", "P"):
            return (
                f"{source}: the mask {places[row]} is of mode {image.mode}; grey (L) or with a palette (P) was expected"
            )
        image = image if mask else image.convert("L" if grey else "RGB")
        if wanted is not None and (image.height, image.width) != (height, width):
            method = PIL.Image.Resampling.NEAREST if mask else PIL.Image.Resampling.BILINEAR
            image = image.resize((width, height), method)
        images[row] = np.asarray(image).reshape(height, width, -1)
        return None

    threads = (os.cpu_count() or 1) if workers is None else workers
    if threads > 1:
        with ThreadPoolExecutor(threads) as pool:
            failures: Sequence[str | None] = list(pool.map(place_one, range(len(places))))
    else:
        failures = [place_one(row) for row in range(len(places))]
    problems = [sentence for sentence in failures if sentence is not None]
    if problems and on_error == "raise":
        raise ValueError(problems[0])
    kept = [row for row, sentence in enumerate(failures) if sentence is None]
    return images if not problems else images[kept], [places[row] for row in kept], problems


def _image_files(folder: Path) -> list[Path]:
    return [file for file in folder.rglob("*") if _is_image(file.name) and file.is_file()]


def _is_image(name: str) -> bool:
    return name.lower().endswith(IMAGE_SUFFIXES) and not PurePosixPath(name).name.startswith(".")


def _member(archive: zipfile.ZipFile, name: str) -> Read:
    return lambda: archive.read(name)
