"""How well does a small Transformer translate captions from English to German?

Command
    python experiments/multi30k_transformer.py --data DATA

Cost
    283 CPU-seconds (jax 0.10.2, two cores of an AMD EPYC that eight other programs shared, hence 31 minutes of wall
    time; on idle cores it takes a few minutes).

Result
    BLEU 28.85 on test 2016 after 3 epochs, by 4 beams (2,203,904 parameters; 1.710 nats a validation word), seed 0.
    One seed, run once; nothing was searched.

Full run (an accelerator)
    python experiments/multi30k_transformer.py --data DATA --full --minutes 8
    again and again, until it says that it is finished: each call goes on where the last one stopped. Target: BLEU 36.
    full: not run.

Data, words and BLEU are those of multi30k_rnn.py, whose functions read them: Elliott et al., Multi30K, 2016, task 1,
from github.com/multi30k/dataset, folder data/task1/raw. Words seen less than three times in training are unknown.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jaxdl
from jaxdl import optim
from jaxdl.metrics import bleu

sys.path.insert(0, str(Path(__file__).resolve().parent))
from _command import parsed, unfinished
from multi30k_rnn import BEGIN, END, PAD, STEPS, Vocabulary, pairs, read, translations

SEEN = 3  # words seen less often in training are one unknown word
#: What --full changes; `longest` is the number of tokens of the longest sentence that is trained on.
SHORT: dict[str, Any] = {"width": 128, "depth": 2, "heads": 4, "dropout": 0.1, "attention_dropout": 0.0}
FULL: dict[str, Any] = {"width": 256, "depth": 4, "heads": 8, "dropout": 0.3, "attention_dropout": 0.1}
SHORT_TRAINING: dict[str, Any] = {"longest": 16, "batch": 32, "rate": 2e-3, "epochs": 3, "beams": 4, "goal": 26.0}
FULL_TRAINING: dict[str, Any] = {"longest": 40, "batch": 128, "rate": 1e-3, "epochs": 50, "beams": 5, "goal": 36.0}


def main(arguments: Sequence[str] | None = None) -> int:
    """Trains, translates the test sentences, and ends with 0 when the goal is reached."""
    options = parsed(
        arguments, __doc__, "multi30k/train.en.gz and the others", output="runs/multi30k_transformer", part="sentences"
    )
    size, training = (FULL, FULL_TRAINING) if options.full else (SHORT, SHORT_TRAINING)
    folder = Path(options.data) / "multi30k"
    texts = {
        name: (read(folder, name, "en"), read(folder, name, "de")) for name in ("train", "val", "test_2016_flickr")
    }
    if options.sentences:
        texts = {name: (a[: options.sentences], b[: options.sentences]) for name, (a, b) in texts.items()}
    english, german = (Vocabulary(side, SEEN) for side in texts["train"])
    train, validation = (pairs(*texts[name], english, german, training["longest"]) for name in ("train", "val"))
    print(f"{len(train):,} pairs to train on, {len(english):,} English and {len(german):,} German words")

    shape = {**size, "width": options.width or size["width"]}
    model = jaxdl.create_model(
        "transformer", num_classes=len(german), source_vocabulary=len(english), pad=PAD, length=64, **shape
    )
    epochs, batch = options.epochs or training["epochs"], training["batch"]
    steps = epochs * -(-len(train) // batch)
    run = jaxdl.fit(
        jaxdl.tasks.translation(model, begin=BEGIN, end=END, pad=PAD, label_smoothing=0.1, steps=STEPS),
        train,
        validation=validation,
        epochs=epochs,
        max_seconds=None if options.minutes is None else 60 * options.minutes,
        batch_size=batch,
        eval_batch_size=128,
        optimizer=optim.adamw(training["rate"], weight_decay=0.01, schedule=optim.warmup_cosine(steps // 10, steps)),
        hyper={"clip_norm": 1.0},
        checkpoint=options.output,
        seed=options.seed,
    )
    if unfinished(run, epochs):
        return 0
    sources, references = texts["test_2016_flickr"]
    translated = translations(model, run.state.params, sources, english, german, training["beams"])
    score = float(bleu(translated, [" ".join(words) for words in references], tokenize="none"))
    for number in range(min(3, len(sources))):
        print(f"\n{' '.join(sources[number])}\n  -> {translated[number]}\n   ; {' '.join(references[number])}")
    print(f"\nBLEU {score:.2f} on {len(sources):,} sentences; {time.process_time():.0f} CPU-seconds in all")
    if options.sentences is None and score < training["goal"]:
        print(f"BLEU {score:.2f} is below {training['goal']}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
