"""What do two latent numbers know of handwritten digits? A small variational autoencoder.

Command
    python experiments/digits_vae.py

Cost
    10 CPU-seconds (jax 0.10.2, two cores of an AMD EPYC).

Result
    24.5 nats a digit held out (reconstruction 21.8, divergence 2.69), over 64 draws of the latents of each; 23.62 from
    their mean, which is no bound. 0.753 of the digits have the label of their nearest neighbour in the plane. One seed;
    network, learning rate and number of epochs were not searched.

The data ship with jaxdl: 1,797 digits of 8 x 8 pixels, 1,437 to train on and 360 held out. The bound is in nats, pixels
as probabilities of a Bernoulli; no label is seen in training. The accuracy is that of the nearest training digit in the
plane of the latents. digits.png in the run's folder shows what the decoder makes of a grid over that plane.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np

import jaxdl
from jaxdl import optim
from jaxdl.models.vae import generate, negative_bound

GOAL = 25.0  # nats
GRID = 12


def main(arguments: Sequence[str] | None = None) -> int:
    """Trains, tests and draws; 0 when the bound is below the goal (with `--epochs` changed, there is none)."""
    options = _options(arguments)
    train, held_out = jaxdl.data.load("digits")
    model = jaxdl.create_model("vae", shape=train["x"].shape[1:], latents=2, widths=(256, 128))
    epochs = options.epochs or 60
    steps = -(-len(train) // 64) * epochs
    run = jaxdl.fit(
        jaxdl.tasks.vae(model, warmup=steps // 10),
        train,
        validation=held_out,
        epochs=epochs,
        batch_size=64,
        optimizer=optim.adam(2e-3, schedule=optim.warmup_cosine(0, steps)),
        checkpoint=options.output,
        seed=options.seed,
    )
    tested = run.evaluate(held_out)
    variables = {"params": run.state.params}
    scaled = np.asarray(held_out["x"], np.float32)
    bound = float(negative_bound(model, variables, scaled, jax.random.key(options.seed), draws=64).mean())
    seen, asked = run.predict(train)["mean"], run.predict(held_out)["mean"]
    nearest = ((asked[:, None] - seen[None]) ** 2).sum(-1).argmin(1)
    accuracy = float((train["y"][nearest] == held_out["y"]).mean())
    print(f"bound {bound:.2f} nats: reconstruction {bound - tested['kl']:.2f}, divergence {tested['kl']:.2f}")
    print(f"from the mean of the latents, which is no bound: {tested['loss']:.2f} nats")
    print(f"the nearest digit of the latent plane has the same label for {accuracy:.3f} of the digits held out")
    print(f"{time.process_time():.0f} CPU-seconds in all")
    if run.folder is not None:
        print(f"the plane is drawn in {draw(model, variables, Path(run.folder.path))}")
    drawn = np.asarray(generate(model, variables, jax.random.key(options.seed), 16))
    if not (drawn.min() >= 0 and drawn.max() <= 1):
        print("draws are no probabilities", file=sys.stderr)
        return 1
    if options.epochs is None and bound > GOAL:
        print(f"the bound {bound:.2f} is above {GOAL}", file=sys.stderr)
        return 1
    return 0


def draw(model: object, variables: dict, folder: Path) -> Path:
    """What the decoder makes of a grid from -2 to 2 in both latents."""
    from PIL import Image

    side = np.linspace(-2, 2, GRID, dtype=np.float32)
    plane = np.stack(np.meshgrid(side, side), -1).reshape(-1, 2)
    pixels = np.asarray(jax.nn.sigmoid(model.apply(variables, plane, method="decode")))[..., 0]
    sheet = pixels.reshape(GRID, GRID, *pixels.shape[1:]).transpose(0, 2, 1, 3).reshape(GRID * pixels.shape[1], -1)
    path = folder / "digits.png"
    Image.fromarray((sheet * 255).astype(np.uint8)).resize((sheet.shape[1] * 6, sheet.shape[0] * 6), 0).save(path)
    return path


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", default="runs/digits_vae", help="the run's folder; a run in it is resumed")
    parser.add_argument("--epochs", type=int, help="train for so many epochs instead of 60; no goal")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
