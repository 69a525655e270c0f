"""How well does a recurrent encoder and decoder with attention translate captions from English to German?

Command
    python experiments/multi30k_rnn.py --data DATA

Cost
    203 CPU-seconds for 4 epochs and the 1,000 translations (jax 0.10.2; 33 minutes of wall time on two cores of an AMD
    EPYC that ten other runs shared).

Result
    BLEU 27.97 on test 2016, greedy, seed 0; validation loss 1.743 nats a word, 0.672 of the words the likeliest one.
    One run; nothing was searched. (fit warns that one English caption stands in both training and validation.)

Full run (an accelerator)
    python experiments/multi30k_rnn.py --data DATA --full --minutes 8
    again and again, until it says that it is finished: each call goes on where the last one stopped. Target: BLEU 33.
    full: not run.

Data: Elliott et al., Multi30K: Multilingual English-German Image Descriptions, 2016, task 1. DATA/multi30k holds
train, val and test_2016_flickr, each as .en and .de, one sentence a line, compressed with gzip (.gz) or not; anyone
fetches them from github.com/multi30k/dataset, folder data/task1/raw.

Words are lower-cased and split from punctuation; those seen less than five times in training (full: twice) are one
unknown word. BLEU is that of these tokens, with the references' own rare words in them, on the 1,000 sentences of test
2016.
"""

from __future__ import annotations

import gzip
import re
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import jaxdl
from jaxdl import optim
from jaxdl.data import Dataset
from jaxdl.metrics import bleu

sys.path.insert(0, str(Path(__file__).resolve().parent))
from _command import parsed, unfinished

PAD, BEGIN, END, UNKNOWN = range(4)
STEPS = 40  # tokens of a translation at most

#: What --full changes. Words seen less often than `seen` times are unknown; `longest` is the number of tokens of the
#: longest sentence to train on.
SHORT = {
    "width": 128,
    "feeding": False,
    "dropout": 0.1,
    "seen": 5,
    "longest": 16,
    "epochs": 4,
    "beams": 1,
    "goal": 10.0,
}
FULL = {"width": 512, "feeding": True, "dropout": 0.4, "seen": 2, "longest": 40, "epochs": 30, "beams": 5, "goal": 33.0}


def main(arguments: Sequence[str] | None = None) -> int:
    """Trains, translates the test sentences, and ends with 0 when the goal is reached."""
    options = parsed(
        arguments, __doc__, "multi30k/train.en.gz and the others", output="runs/multi30k_rnn", part="sentences"
    )
    size = FULL if options.full else SHORT
    folder = Path(options.data) / "multi30k"
    texts = {
        name: (read(folder, name, "en"), read(folder, name, "de")) for name in ("train", "val", "test_2016_flickr")
    }
    if options.sentences:
        texts = {name: tuple(side[: options.sentences] for side in pair) for name, pair in texts.items()}
    english, german = (Vocabulary(side, int(size["seen"])) for side in texts["train"])
    longest = int(size["longest"])
    train, validation = (pairs(*texts[name], english, german, longest) for name in ("train", "val"))
    print(f"{len(train):,} pairs to train on, {len(english):,} English and {len(german):,} German words")

    model = jaxdl.create_model(
        "lstm_seq2seq",
        num_classes=len(german),
        source_vocabulary=len(english),
        width=options.width or size["width"],
        input_feeding=size["feeding"],
        dropout=size["dropout"],
        pad=PAD,
    )
    epochs = options.epochs or int(size["epochs"])
    steps = epochs * -(-len(train) // 64)
    run = jaxdl.fit(
        jaxdl.tasks.translation(model, begin=BEGIN, end=END, pad=PAD, label_smoothing=0.1, steps=STEPS),
        train,
        validation=validation,
        epochs=epochs,
        max_seconds=None if options.minutes is None else 60 * options.minutes,
        batch_size=64,
        optimizer=optim.adam(3e-3 if not options.full else 1e-3, schedule=optim.warmup_cosine(steps // 10, steps)),
        hyper={"clip_norm": 1.0},
        checkpoint=options.output,
        seed=options.seed,
    )
    if unfinished(run, epochs):
        return 0
    sources, references = texts["test_2016_flickr"]
    translated = translations(model, run.state.params, sources, english, german, int(size["beams"]))
    score = float(bleu(translated, [" ".join(words) for words in references], tokenize="none"))
    for number in range(min(3, len(sources))):
        print(f"\n{' '.join(sources[number])}\n  -> {translated[number]}\n   ; {' '.join(references[number])}")
    print(f"\nBLEU {score:.2f} on {len(sources):,} sentences; {time.process_time():.0f} CPU-seconds in all")
    if options.sentences is None and score < size["goal"]:
        print(f"BLEU {score:.2f} is below {size['goal']}", file=sys.stderr)
        return 1
    return 0


class Vocabulary:
    """The words that are seen often enough, numbered by how often; 0 to 3 are padding, begin, end and unknown."""

    def __init__(self, sentences: Sequence[Sequence[str]], seen: int):
        counts = Counter(word for sentence in sentences for word in sentence)
        known = [word for word, count in counts.most_common() if count >= seen]
        self.words = ["<pad>", "<begin>", "<end>", "<unknown>", *known]
        self.numbers = {word: number for number, word in enumerate(self.words)}

    def __len__(self) -> int:
        return len(self.words)

    def encode(self, sentence: Sequence[str]) -> list[int]:
        """Words -> numbers."""
        return [self.numbers.get(word, UNKNOWN) for word in sentence]

    def decode(self, numbers: np.ndarray) -> str:
        """Numbers up to the end -> text."""
        ends = np.flatnonzero(numbers == END)
        return " ".join(self.words[number] for number in numbers[: ends[0] if len(ends) else None] if number != PAD)


def pairs(
    sources: Sequence[list[str]], targets: Sequence[list[str]], english: Vocabulary, german: Vocabulary, longest: int
) -> Dataset:
    """x: [n, longest] source tokens; y: [n, longest + 2], from BEGIN to END; pairs with a longer side are left out."""
    chosen = [(a, b) for a, b in zip(sources, targets, strict=True) if max(len(a), len(b)) <= longest]
    x = filled([english.encode(source) for source, _ in chosen], longest)
    y = filled([[BEGIN, *german.encode(target), END] for _, target in chosen], longest + 2)
    return Dataset({"x": x, "y": y}, name="Multi30K")


def filled(rows: Sequence[Sequence[int]], length: int) -> np.ndarray:
    """[n, length] int32, padded or cut."""
    table = np.full((len(rows), length), PAD, np.int32)
    for row, numbers in zip(table, rows, strict=True):
        row[: len(numbers)] = numbers[:length]
    return table


def translations(
    model: object, params: object, sources: Sequence[list[str]], english: Vocabulary, german: Vocabulary, beams: int
) -> list[str]:
    """Sentences of the other language, 100 at a time: one compiled program."""
    x = filled([english.encode(source) for source in sources], STEPS)
    decode = jax.jit(
        lambda params, x: (
            model.decode(  # type: ignore[attr-defined]
                {"params": params}, x, begin=BEGIN, end=END, steps=STEPS, beams=beams, length_penalty=0.6
            ).tokens
        )
    )
    size = min(100, len(x))
    rows = np.concatenate([x, x[: -len(x) % size]])
    found = [np.asarray(decode(params, jnp.asarray(rows[at : at + size]))) for at in range(0, len(rows), size)]
    return [german.decode(numbers) for numbers in np.concatenate(found)[: len(x)]]


def read(folder: Path, name: str, language: str) -> list[list[str]]:
    """Sentences as lower-case words and punctuation."""
    plain, packed = folder / f"{name}.{language}", folder / f"{name}.{language}.gz"
    if not plain.exists() and not packed.exists():
        raise FileNotFoundError(f"there is neither {packed} nor {plain}; --help says where anyone gets them")
    text = gzip.decompress(packed.read_bytes()) if packed.exists() else plain.read_bytes()
    return [re.findall(r"\w+|[^\w\s]", line.lower()) for line in text.decode().splitlines()]


if __name__ == "__main__":
    sys.exit(main())
