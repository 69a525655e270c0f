"""How well does a character LSTM learn Shakespeare by truncated backpropagation through time?

Command
    python experiments/shakespeare_lstm.py --data DATA

Cost
    130 CPU-seconds for 3 epochs (jax 0.10.2; 7 minutes 50 of wall time on two cores of an AMD EPYC that many shared).

Result
    1.683 nats a character on the validation text, 0.499 of its characters the likeliest one, seed 0 (1.866 and 1.711
    after the first two epochs; training loss 1.532). One run; width, learning rate and windows were not searched.

Full run (an accelerator)
    python experiments/shakespeare_lstm.py --data DATA --full --minutes 8
    again and again, until it says that it is finished: each call goes on where the last one stopped. Target: a
    validation loss of 1.5 nats or less. full: not run.

Data: Karpathy, char-rnn, 2015: 1.1 million characters of Shakespeare's plays. DATA/tinyshakespeare holds input.txt or
input.txt.gz, which anyone fetches from the folder data/tinyshakespeare of github.com/karpathy/char-rnn. The last tenth
is the validation text.

The training text is read as so many streams side by side, in windows; the state of the network goes on from window to
window and only its gradient ends there. Validation windows repeat the end of the window before them, which does not
count, so that the network is in the text when counting begins: each character of the validation text counts once.
"""

from __future__ import annotations

import gzip
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np

import jaxdl
from jaxdl import optim
from jaxdl.data import TokenStreams, token_windows
from jaxdl.models import decoding
from jaxdl.models.rnn import RNNLanguageModel

sys.path.insert(0, str(Path(__file__).resolve().parent))
from _command import parsed, unfinished

#: What --full changes; the goal is the validation loss in nats a character.
SHORT = {"width": 256, "depth": 1, "dropout": 0.0, "streams": 32, "window": 100, "epochs": 3, "goal": 1.8}
FULL = {"width": 1024, "depth": 2, "dropout": 0.5, "streams": 64, "window": 128, "epochs": 60, "goal": 1.5}


def main(arguments: Sequence[str] | None = None) -> int:
    """Trains, writes a few lines in Shakespeare's manner, and ends with 0 when the goal is reached."""
    options = parsed(arguments, __doc__, "tinyshakespeare/input.txt", output="runs/shakespeare_lstm", part="characters")
    size = FULL if options.full else SHORT
    train_text, validation_text, alphabet = read(Path(options.data) / "tinyshakespeare", options.characters)
    window = int(size["window"])
    train = TokenStreams(train_text, int(size["streams"]), window)
    validation = token_windows(validation_text, window, context=window // 4)

    model = jaxdl.create_model(
        "lstm_language_model",
        num_classes=len(alphabet),
        width=options.width or int(size["width"]),
        depth=int(size["depth"]),
        embed=128,
        dropout=size["dropout"],
        stateful=True,
    )
    epochs = options.epochs or int(size["epochs"])
    schedule = optim.warmup_cosine(train.steps_per_epoch // 10, epochs * train.steps_per_epoch)
    run = jaxdl.fit(
        jaxdl.tasks.language_model(model),
        train,
        validation=validation,
        epochs=epochs,
        max_seconds=None if options.minutes is None else 60 * options.minutes,
        optimizer=optim.adam(4e-3 if not options.full else 2e-3, schedule=schedule),
        hyper={"clip_norm": 1.0},
        eval_batch_size=64,
        checkpoint=options.output,
        seed=options.seed,
    )
    if unfinished(run, epochs):
        return 0
    loss = run.metrics["validation:loss"]
    print(f"validation loss {loss:.4f} nats a character; {time.process_time():.0f} CPU-seconds in all\n")
    print(written(model, run.state.params, alphabet, "ROMEO:\n", 300))
    if options.characters is None and loss > size["goal"]:
        print(f"the validation loss {loss:.4f} is above {size['goal']}", file=sys.stderr)
        return 1
    return 0


def written(model: RNNLanguageModel, params: object, alphabet: list[str], begin: str, count: int) -> str:
    """What the network goes on with, drawn at temperature 0.8."""
    prompt = np.asarray([[alphabet.index(character) for character in begin if character in alphabet]], np.int32)

    step, carry = model.decoder({"params": params}, 1)
    drawn = decoding.sample(step, carry, prompt, key=jax.random.key(0), steps=count, temperature=0.8)
    return begin + "".join(alphabet[token] for token in np.asarray(drawn.tokens[0]))


def read(folder: Path, characters: int | None = None) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """(train, validation, alphabet) of input.txt, compressed or not, as numbers; the last tenth validates."""
    plain, packed = folder / "input.txt", folder / "input.txt.gz"
    if not plain.exists() and not packed.exists():
        raise FileNotFoundError(f"there is neither {packed} nor {plain}; --help says where anyone gets it")
    text = (gzip.decompress(packed.read_bytes()) if packed.exists() else plain.read_bytes()).decode()[:characters]
    alphabet = sorted(set(text))
    tokens = np.asarray([alphabet.index(character) for character in text], np.uint8)
    train, validation = np.split(tokens, [len(tokens) * 9 // 10])
    print(f"{len(train):,} characters to train on, {len(validation):,} to validate, {len(alphabet)} different ones")
    return train, validation, alphabet


if __name__ == "__main__":
    sys.exit(main())
