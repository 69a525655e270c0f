"""From strings to padded arrays of token ids, on the host: the tokenisers of BLEU and ROUGE, characters, padding.

A batch of texts becomes int32 ids [batch, length], filled up with -1; references [batch, references, length], where a
reference that an example does not have is filled with -2. Ids only say which tokens are equal, and only within one
call: the metrics read nothing else of them.
"""

from __future__ import annotations

import difflib
import re
import string
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

PAD = -1
ABSENT = -2

Tokenizer = Callable[[str], Sequence[str]]
Ids = Sequence[int] | np.ndarray

# 13a sets these apart everywhere; apostrophe and dash stay, period and comma depend on digits beside them.
_SYMBOLS = re.compile("([" + re.escape("".join(c for c in string.punctuation if c not in "',-.")) + "])")
_AFTER_NO_DIGIT = re.compile(r"([^0-9])([.,])")
_BEFORE_NO_DIGIT = re.compile(r"([.,])([^0-9])")
_DASH_AFTER_DIGIT = re.compile(r"([0-9])-")
_ENTITIES = (("&quot;", '"'), ("&amp;", "&"), ("&lt;", "<"), ("&gt;", ">"))

# Scripts whose signs are words of their own for "zh". sacreBLEU writes two ranges beyond 16 bits with four hex digits
# and so means U+2001 to U+2A6D; only the same ranges give the same numbers.
_SIGNS = re.compile(
    "([\u2001-\u2a6d\u2e80-\u2eff\u2f00-\u2fdf\u2ff0-\u303f\u3100-\u312f\u31a0-\u31bf\u31c0-\u31ef\u3200-\u33ff"
    "\u3400-\u4db5\u4e00-\u9fbb\uf900-\ufa2d\ufa30-\ufa6a\ufa70-\ufad9\ufe10-\ufe1f\ufe30-\ufe4f\uff00-\uffef])"
)
_WORD = re.compile(r"[a-z0-9]+")


def words(text: str) -> list[str]:
    """The text cut at white space; the tokeniser "none"."""
    return text.split()


def characters(text: str) -> list[str]:
    """Every Unicode character but white space; the tokeniser "char"."""
    return list("".join(text.split()))


def _western(text: str) -> list[str]:
    text = _SYMBOLS.sub(r" \1 ", text)
    text = _AFTER_NO_DIGIT.sub(r"\1 \2 ", text)
    text = _BEFORE_NO_DIGIT.sub(r" \1 \2", text)
    return _DASH_AFTER_DIGIT.sub(r"\1 - ", text).split()


def mteval_13a(text: str) -> list[str]:
    """The words of WMT's mteval-v13a: punctuation apart, but not inside numbers; the tokeniser "13a".

    >>> mteval_13a('He paid 1,000.50 (in cash), "today".')
    ['He', 'paid', '1,000.50', '(', 'in', 'cash', ')', ',', '"', 'today', '"', '.']
    """
    text = text.rstrip().replace("<skipped>", "").replace("-\n", "").replace("\n", " ")
    for entity, character in _ENTITIES:
        text = text.replace(entity, character)
    return _western(f" {text} ")


def mteval_14_international(text: str) -> list[str]:
    """As mteval-v14 with --international-tokenization: Unicode punctuation and symbols apart; the tokeniser "intl"."""
    text = _apart(text.rstrip(), "[^N]P", "{} {} ")
    text = _apart(text, "P[^N]", " {} {}")
    return _apart(text, "S", " {} ").split()


def _apart(text: str, pattern: str, spaced: str) -> str:
    """Sets spaces where `pattern` is found in the text's Unicode classes (N number, P punctuation, S symbol)."""
    classes = "".join(unicodedata.category(character)[0] for character in text)
    result, end = [], 0
    for match in re.finditer(pattern, classes):
        result += [text[end : match.start()], spaced.format(*text[match.start() : match.end()])]
        end = match.end()
    return "".join([*result, text[end:]])


def chinese(text: str) -> list[str]:
    """Every Chinese sign a word, the rest as in 13a; the tokeniser "zh"."""
    return _western(_SIGNS.sub(r" \1 ", text.strip()))


def rouge_words(text: str) -> list[str]:
    """The words of ROUGE: runs of a-z and 0-9 of the lower-cased text; nothing else counts, accents included."""
    return _WORD.findall(text.lower())


TOKENIZERS: dict[str, Tokenizer] = {
    "none": words,
    "13a": mteval_13a,
    "intl": mteval_14_international,
    "char": characters,
    "zh": chinese,
}


def tokenizer_of(tokenize: str | Tokenizer, name: str) -> Tokenizer:
    """The tokeniser of a name, or the function that was given.

    Raises:
        ValueError: for a name that is none; it says the nearest.
    """
    if callable(tokenize):
        return tokenize
    if tokenize in TOKENIZERS:
        return TOKENIZERS[tokenize]
    near = difflib.get_close_matches(str(tokenize), TOKENIZERS, 1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise ValueError(
        f"{name}: tokenize must be one of {', '.join(map(repr, TOKENIZERS))}, or a function from a string to a list of "
        f"strings; it is {tokenize!r}{hint}"
    )


def pairs_of(preds: Any, references: Any, name: str) -> tuple[list[str], list[list[str]]]:
    """Texts and, for each, its references; one string alone is one text, and one string for an example one reference.

    Raises:
        TypeError: for what is no string.
        ValueError: where the numbers of texts and of references differ, or a text has no reference.
    """
    texts = [preds] if isinstance(preds, str) else list(preds)
    if isinstance(preds, str):
        references = [references] if isinstance(references, str) else [list(references)]
    if references is None or isinstance(references, str):
        raise TypeError(f"{name}: references must be a list with one string, or one list of strings, for each text")
    grouped = [[one] if isinstance(one, str) else list(one) for one in references]
    for what, found in (("texts", texts), ("references", [text for group in grouped for text in group])):
        for text in found:
            if not isinstance(text, str):
                raise TypeError(f"{name}: {what} must be strings; one is of type {type(text).__name__}: {text!r}")
    if len(texts) != len(grouped):
        swapped = bool(grouped) and all(len(group) == len(texts) for group in grouped)
        raise ValueError(
            f"{name}: {len(texts)} texts, but references for {len(grouped)}; there must be one string, or one list of "
            "strings, for each text"
            + ("; these look like sacreBLEU's streams of references: give list(zip(*streams))" if swapped else "")
        )
    without = next((index for index, group in enumerate(grouped) if not group), None)
    if without is not None:
        raise ValueError(f"{name}: text {without} has no reference; an empty text is the reference ''")
    return texts, grouped


def padded_length(longest: int) -> int:
    """The length that rows are filled up to: a multiple of a power of two, at most a quarter above `longest`.

    8, 10, 12, 14, 16, 20, 24, 28, 32, 40 ...: four lengths an octave, so that few shapes are compiled.
    """
    if longest <= 8:
        return 8
    step = 1 << max((longest - 1).bit_length() - 3, 0)
    return -(-longest // step) * step


def pad(rows: Sequence[Ids], length: int | None = None) -> np.ndarray:
    """Rows of ids as int32 [rows, length], filled up with -1; by default to `padded_length` of the longest.

    Raises:
        ValueError: when a row is longer than `length`; nothing is cut off.
    """
    longest = max(map(len, rows), default=0)
    length = padded_length(longest) if length is None else length
    if longest > length:
        raise ValueError(f"a text has {longest} tokens, more than length={length}; give a larger one")
    result = np.full((len(rows), length), PAD, np.int32)
    for row, ids in zip(result, rows, strict=True):
        row[: len(ids)] = ids
    return result


def pad_references(groups: Sequence[Sequence[Ids]], length: int | None = None) -> np.ndarray:
    """References as int32 [batch, references, length]; those that an example has not are filled with -2."""
    flat = pad([row for group in groups for row in group], length)
    most = max(map(len, groups), default=1)
    result = np.full((len(groups), most, flat.shape[1]), ABSENT, np.int32)
    place = 0
    for rows, group in zip(result, groups, strict=True):
        rows[: len(group)] = flat[place : place + len(group)]
        place += len(group)
    return result


class Vocabulary:
    """Numbers tokens in the order in which they are first seen."""

    def __init__(self) -> None:
        self.ids: dict[str, int] = {}

    def __call__(self, tokens: Iterable[str]) -> list[int]:
        """The ids of tokens."""
        ids = self.ids
        return [ids.setdefault(token, len(ids)) for token in tokens]


def encode(
    texts: Sequence[str], references: Sequence[Sequence[str]], tokenize: Tokenizer, length: int | None = None
) -> dict[str, np.ndarray]:
    """{"preds": int32 [batch, length], "target": int32 [batch, references, length]} with one shared vocabulary."""
    number = Vocabulary()
    preds = [number(tokenize(text)) for text in texts]
    target = [[number(tokenize(text)) for text in group] for group in references]
    return {"preds": pad(preds, length), "target": pad_references(target, length)}


def code_points(text: str) -> np.ndarray:
    """The Unicode code points of a text, int32: ids of characters that are the same in every call."""
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<i4").astype(np.int32)
