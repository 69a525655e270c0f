"""Porter's stemmer: words of one stem become equal, so that "running" in a summary meets "runs" in its reference.

The algorithm is that of "An algorithm for suffix stripping" (Porter, 1980), with the departures that the stemmer of
nltk makes by default and rouge-score therefore too: a few irregular words, "dies" and "died" to "die", the last y of
"enjoy" kept, "-fulli" and "-logi" as suffixes.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable

# A rule: the suffix, what takes its place, and what the stem before it must be like (None: anything).
Rule = tuple[str, str, Callable[[str], bool] | None]

# rouge-score leaves shorter words as they are
_SHORTEST = 4

_AS_THEY_ARE = ("sky", "news", "inning", "outing", "canning", "howe", "proceed", "exceed", "succeed")
_IRREGULAR = dict(zip(_AS_THEY_ARE, _AS_THEY_ARE, strict=True)) | {
    "skies": "sky", "dying": "die", "lying": "lie", "tying": "tie", "innings": "inning", "outings": "outing",
    "cannings": "canning",
}  # fmt: skip


def stem(word: str) -> str:
    """The stem of one lower-case English word.

    >>> [stem(word) for word in ("running", "relational", "hopping", "enjoy", "skies")]
    ['run', 'relat', 'hop', 'enjoy', 'sky']
    """
    if word in _IRREGULAR:
        return _IRREGULAR[word]
    if len(word) <= 2:
        return word
    word = _participle(_plural(word))
    if word.endswith("y") and len(word) > 2 and _consonants(word[:-1])[-1]:
        word = word[:-1] + "i"
    if word.endswith("alli") and _any(word[:-4]):
        word = word[:-2]
    for rules in (_DOUBLE, _SINGLE, _LAST):
        word = _applied(rules, word)
    return _without_e(word)


@functools.lru_cache(maxsize=1 << 16)
def stem_long(word: str) -> str:
    """As rouge-score: the stem of a word of at least four letters; a shorter one as it is."""
    return stem(word) if len(word) >= _SHORTEST else word


def _consonants(word: str) -> list[bool]:
    """Which letters are consonants: all but a, e, i, o, u, and y after a consonant."""
    found: list[bool] = []
    for letter in word:
        found.append(letter not in "aeiou" and not (letter == "y" and bool(found) and found[-1]))
    return found


def _measure(part: str) -> int:
    """How often vowels are followed by consonants: Porter's m."""
    kinds = _consonants(part)
    return sum(after and not before for before, after in itertools.pairwise(kinds))


def _any(part: str) -> bool:
    return _measure(part) > 0


def _several(part: str) -> bool:
    return _measure(part) > 1


def _short_syllable(part: str) -> bool:
    """Ends as "hop" does: consonant, vowel, consonant other than w, x, y; or is two letters such as "us"."""
    kinds = _consonants(part)
    if len(kinds) == 2:
        return kinds == [False, True]
    return kinds[-3:] == [True, False, True] and part[-1] not in "wxy"


def _plural(word: str) -> str:
    if word.endswith("ies"):
        return word[:-1] if len(word) == 4 else word[:-2]
    if word.endswith("sses"):
        return word[:-2]
    return word[:-1] if word.endswith("s") and not word.endswith("ss") else word


def _participle(word: str) -> str:
    """Without -ed or -ing, and with the letter back that it had cost, or without the one that it had doubled."""
    if word.endswith("ied"):
        return word[:-1] if len(word) == 4 else word[:-2]
    if word.endswith("eed"):
        return word[:-1] if _any(word[:-3]) else word
    part = next((word[: -len(end)] for end in ("ed", "ing") if word.endswith(end)), "")
    if all(_consonants(part)):
        return word
    if part.endswith(("at", "bl", "iz")):
        return part + "e"
    if len(part) > 1 and part[-1] == part[-2] and _consonants(part)[-1]:
        return part if part[-1] in "lsz" else part[:-1]
    return part + "e" if _measure(part) == 1 and _short_syllable(part) else part


def _applied(rules: tuple[Rule, ...], word: str) -> str:
    """The word after the first rule whose suffix it has; as it is where the stem does not allow that rule."""
    for suffix, other, allowed in rules:
        if word.endswith(suffix):
            part = word[: len(word) - len(suffix)]
            return part + other if allowed is None or allowed(part) else word
    return word


def _without_e(word: str) -> str:
    if word.endswith("e"):
        part = word[:-1]
        if _several(part) or (_any(part) and not _short_syllable(part)):
            word = part
    return word[:-1] if word.endswith("ll") and _several(word[:-1]) else word


def _rules(text: str, allowed: Callable[[str], bool]) -> tuple[Rule, ...]:
    """Rules written as "ational>ate izer>ize ful>"."""
    return tuple((*pair.split(">"), allowed) for pair in text.split())  # type: ignore[misc]


_DOUBLE = (
    *_rules("ational>ate tional>tion enci>ence anci>ance izer>ize bli>ble alli>al entli>ent eli>e ousli>ous", _any),
    *_rules("ization>ize ation>ate ator>ate alism>al iveness>ive fulness>ful ousness>ous aliti>al iviti>ive", _any),
    *_rules("biliti>ble fulli>ful", _any),
    ("logi", "log", lambda part: _any(part + "l")),
)
_SINGLE = _rules("icate>ic ative> alize>al iciti>ic ical>ic ful> ness>", _any)
_LAST = (
    *_rules("al> ance> ence> er> ic> able> ible> ant> ement> ment> ent>", _several),
    ("ion", "", lambda part: _several(part) and part[-1] in "st"),
    *_rules("ou> ism> ate> iti> ous> ive> ize>", _several),
)
