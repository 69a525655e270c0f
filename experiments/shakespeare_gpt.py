"""How well does a small GPT learn Shakespeare, character by character?

Command
    python experiments/shakespeare_gpt.py --data DATA

Cost
    303 CPU-seconds (jax 0.10.2, two cores of an AMD EPYC that eight other programs shared, hence 26 minutes of wall
    time; on idle cores it takes a few minutes).

Result
    Validation loss 1.673 nats a character after 2 epochs (861,440 parameters, 1,960 steps of 8 times 128 characters),
    seed 0. One seed, run once; nothing was searched.

Full run (an accelerator)
    python experiments/shakespeare_gpt.py --data DATA --full --minutes 8
    again and again, until it says that it is finished: each call goes on where the last one stopped. Target: a
    validation loss of 1.5 nats or less. full: not run.

Data: Karpathy, char-rnn, 2015: 1.1 million characters of Shakespeare's plays. DATA/tinyshakespeare holds input.txt or
input.txt.gz, which anyone fetches from the folder data/tinyshakespeare of github.com/karpathy/char-rnn. The last tenth
is the validation text.

Rotary positions, RMS norms and SwiGLU, which learn from fewer characters than GPT-2's own recipe. Each epoch cuts the
training text into windows at another offset. Validation windows overlap by half, and the first half does not count, so
each character of the validation text counts once and is told from at least 64 before it (256 in the full run).
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

import jaxdl
from jaxdl import optim
from jaxdl.data import TokenStreams, token_windows
from jaxdl.models import decoding

sys.path.insert(0, str(Path(__file__).resolve().parent))
from _command import parsed, unfinished
from shakespeare_lstm import read

#: What --full changes; the goal is the validation loss in nats a character.
SHORT: dict[str, Any] = {"width": 128, "depth": 4, "heads": 4, "dropout": 0.0, "window": 128}
FULL: dict[str, Any] = {"width": 384, "depth": 6, "heads": 6, "dropout": 0.2, "window": 512}
SHORT_TRAINING: dict[str, Any] = {"batch": 8, "epochs": 2, "rate": 3e-3, "goal": 1.8, "precision": "float32"}
FULL_TRAINING: dict[str, Any] = {"batch": 32, "epochs": 80, "rate": 1e-3, "goal": 1.5, "precision": "bf16"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Trains, writes a few lines in Shakespeare's manner, and ends with 0 when the goal is reached."""
    options = parsed(arguments, __doc__, "tinyshakespeare/input.txt", output="runs/shakespeare_gpt", part="characters")
    size, training = (FULL, FULL_TRAINING) if options.full else (SHORT, SHORT_TRAINING)
    train_text, validation_text, alphabet = read(Path(options.data) / "tinyshakespeare", options.characters)
    window = size["window"]
    train = TokenStreams(train_text, training["batch"], window)
    validation = token_windows(validation_text, window, context=window // 2)

    width = options.width or size["width"]
    model = jaxdl.create_model(
        "gpt",
        num_classes=len(alphabet),
        width=width,
        depth=size["depth"],
        heads=size["heads"],
        mlp_width=3 * width,
        positions="rotary",
        norm="rms",
        activation="swiglu",
        use_bias=False,
        dropout=size["dropout"],
    )
    epochs = options.epochs or training["epochs"]
    steps = epochs * train.steps_per_epoch
    run = jaxdl.fit(
        jaxdl.tasks.language_model(model),
        train,
        validation=validation,
        epochs=epochs,
        max_seconds=None if options.minutes is None else 60 * options.minutes,
        optimizer=optim.adamw(training["rate"], weight_decay=0.1, schedule=optim.warmup_cosine(steps // 20, steps)),
        hyper={"clip_norm": 1.0},
        eval_batch_size=64,
        precision=training["precision"],
        checkpoint=options.output,
        seed=options.seed,
    )
    if unfinished(run, epochs):
        return 0
    loss = run.metrics["validation:loss"]
    print(f"validation loss {loss:.4f} nats a character; {time.process_time():.0f} CPU-seconds in all\n")
    print(written(model, {"params": run.state.params}, alphabet, "ROMEO:\n", 300))
    if options.characters is None and loss > training["goal"]:
        print(f"the validation loss {loss:.4f} is above {training['goal']}", file=sys.stderr)
        return 1
    return 0


def written(model: Any, variables: Any, alphabet: list[str], begin: str, count: int) -> str:
    """What the network goes on with, drawn at temperature 0.8."""
    prompt = np.asarray([[alphabet.index(character) for character in begin if character in alphabet]], np.int32)

    @partial(jax.jit, static_argnames="count")
    def drawn(variables: Any, prompt: jax.Array, count: int) -> jax.Array:
        step, cache = model.decoder(variables, batch=1, length=prompt.shape[1] + count)
        key = jax.random.key(0)
        return decoding.sample(step, cache, prompt, key=key, steps=count, temperature=0.8).tokens[0]

    return begin + "".join(alphabet[token] for token in np.asarray(drawn(variables, prompt, count)))


if __name__ == "__main__":
    sys.exit(main())
