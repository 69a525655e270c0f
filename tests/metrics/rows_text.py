"""Rows of the table of metrics: texts."""

from __future__ import annotations

import numpy as np

from jaxdl import metrics
from tests.metrics.rows import Row, draw

_draw = draw()
_N = 12


def _ids(*shape: int) -> np.ndarray:
    """Rows of a few different tokens, of all lengths but 0, filled up with -1."""
    length = _draw.integers(2, shape[-1] + 1, shape[:-1])
    found = _draw.integers(0, 3, shape).astype(np.int32)
    return np.where(np.arange(shape[-1]) < length[..., None], found, -1).astype(np.int32)


def _references(*shape: int) -> np.ndarray:
    """The same, in which some examples lack their last reference."""
    found = _ids(*shape)
    found[::3, -1] = -2
    return found


_text, _target = _ids(_N, 7), _references(_N, 2, 6)
WORDS = {"preds": _text, "target": _target}
BOTH = {
    "preds": {"characters": _text, "words": _ids(_N, 4)},
    "target": {"characters": _target, "words": _references(_N, 2, 4)},
}
PAIRS = {"preds": _text, "target": _ids(_N, 6)}
LINES = {"preds": _ids(_N, 2, 4), "target": _references(_N, 2, 2, 3)}

ROWS = [
    Row("bleu", metrics.BLEU(max_order=3), WORDS, smoke=True),
    Row("bleu, added counts", metrics.BLEU(max_order=3, smoothing="add-k", effective_order=True), WORDS),
    Row("bleu, floor", metrics.BLEU(max_order=3, smoothing="floor", smoothing_value=0.5), WORDS),
    Row("sentence bleu", metrics.SentenceBLEU(max_order=2), WORDS),
    Row("chrf++", metrics.CHRF(char_order=2, word_order=1), BOTH),
    Row("sentence chrf++", metrics.SentenceCHRF(char_order=2, word_order=1), BOTH),
    Row("rouge-2", metrics.ROUGE("2"), WORDS),
    Row("rouge-l, mean", metrics.ROUGE("L", references="mean"), WORDS),
    Row("rouge-lsum", metrics.ROUGE("Lsum"), LINES),
    Row("wer", metrics.WordErrorRate(), PAIRS, smoke=True),
    Row("cer", metrics.CharErrorRate(), PAIRS),
    Row("mer", metrics.MatchErrorRate(), PAIRS),
    Row("wil", metrics.WordInformationLost(), PAIRS),
    Row("wip", metrics.WordInformationPreserved(), PAIRS),
    Row("edit distance", metrics.EditDistance(insertion=0.5, deletion=2.0, normalize=True), PAIRS),
]
