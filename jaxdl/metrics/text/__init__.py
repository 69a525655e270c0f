"""Metrics of texts: strings become arrays of token ids on the host, everything after runs in the graph."""

from __future__ import annotations

from jaxdl.metrics.text.bleu import BLEU, SentenceBLEU, bleu, sentence_bleu
from jaxdl.metrics.text.chrf import CHRF, SentenceCHRF, chrf, sentence_chrf
from jaxdl.metrics.text.error_rates import (
    CharErrorRate,
    EditDistance,
    MatchErrorRate,
    WordErrorRate,
    WordInformationLost,
    WordInformationPreserved,
    char_error_rate,
    edit_distance,
    match_error_rate,
    word_error_rate,
    word_information_lost,
    word_information_preserved,
)
from jaxdl.metrics.text.ngrams import cut_at
from jaxdl.metrics.text.rouge import ROUGE, rouge

__all__ = [
    "BLEU", "CHRF", "ROUGE", "CharErrorRate", "EditDistance", "MatchErrorRate", "SentenceBLEU", "SentenceCHRF",
    "WordErrorRate", "WordInformationLost", "WordInformationPreserved", "bleu", "char_error_rate", "chrf", "cut_at",
    "edit_distance", "match_error_rate", "rouge", "sentence_bleu", "sentence_chrf", "word_error_rate",
    "word_information_lost", "word_information_preserved",
]  # fmt: skip
