r"""What a word is: for extracting, filtering and matching questions, and for search by words.

A word is a run of letters and figures with their marks. (Python's `\w` leaves marks out, and so
breaks the words of Hindi, Thai and others at each vowel sign.) Chinese, Japanese, Thai, Lao,
Burmese and Khmer put no spaces between words: there each character, with its marks, is a word.

What stands around this one definition:

- `normalised_words` compares texts: without case, in compatible letters.
- `search_words` indexes texts: in lower case, of two letters or more, with pairs of characters.
- `WRITTEN_WORD` shows words as they are written, signs within included: `don't`, `kg/m`, `node.js`.
- `count_words` and `split_terms` guess at the words of scripts without spaces.
"""

import re
import unicodedata
from itertools import chain, groupby, pairwise

JOINERS = "\u200c\u200d"
"""Invisible, within words of Persian and of Indian scripts."""


def _marks() -> str:
    """Ranges of the characters that belong to the letter before them, for a class of a pattern."""
    characters = map(chr, range(0x300, 0x12000))
    marks = [c for c in characters if unicodedata.category(c)[0] == "M" or c in JOINERS]
    # Neighbours differ from their place in the list by the same number.
    runs = groupby(enumerate(marks), key=lambda pair: ord(pair[1]) - pair[0])
    ends = ([character for _, character in run] for _, run in runs)
    return "".join(f"{run[0]}-{run[-1]}" for run in ends)


_MARKS = _marks()


def _run_of_letters(*apart: str) -> str:
    """Pattern of a word. apart: what Python takes for a letter and this pattern doesn't."""
    letter = rf"[^\W{''.join(apart)}]"
    return f"{letter}++(?:[{_MARKS}]++{letter}*+)*+"


_HAN, _KATAKANA = r"\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff", r"\u30a0-\u30ff"
_HIRAGANA, _THAI_TO_KHMER = r"\u3040-\u309f", r"\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"
_HAN_AND_KANA = _HAN + _KATAKANA + _HIRAGANA
_UNSPACED = _HAN_AND_KANA + _THAI_TO_KHMER
UNSPACED = re.compile(f"[{_UNSPACED}]")
"""A character of a script that puts no spaces between words."""

_CHARACTER = re.compile(f"[{_UNSPACED}][{_MARKS}]*")
ANY_CHARACTER = re.compile(f"(?s:.)[{_MARKS}]{{0,8}}")
"""A character of any kind with its marks; of more marks than a script has, eight at a time."""
CLAUSE_END = re.compile("(?<=[。！？；：，、।॥؟۔။។])")
"""Where a sentence or clause ends without a space that says so."""

HAS_WORD = re.compile(rf"\w{{2,}}|[{_UNSPACED}]|[^\W\d_](?:\s[^\W\d_]){{2}}")
"""What has none is no text to search for: a page's number, a rule of dots. Letters that are spaced
apart are a word.
"""

_WORD = re.compile(f"{_CHARACTER.pattern}|{_run_of_letters('_', _UNSPACED)}")


def split_words(text: str) -> list[str]:
    """The words of a text, in their order."""
    return _WORD.findall(text)


_INVISIBLE = re.compile(
    "[\u00ad\u034f\u200b-\u200f\u202a-\u202e\u2060-\u2064\u2066-\u206f\ufe00-\ufe0f\ufeff"
    "\u0640\u064b-\u065f\u0670\u06d6-\u06ed\ufe70-\ufe7f"
    "\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7]+"
)
"""What may stand in a word or not: soft hyphens, joiners, marks of direction, the vowel points of
Arabic and Hebrew, and the stroke that stretches Arabic words."""
_DOT = "\u0307"
"""What `İ` leaves of its dot in lower case."""
_ONE_LETTER = str.maketrans("ıىیک", "iييك")
"""Letters of Turkish, Arabic and Persian that are written for one another."""


def _compatible(text: str) -> str:
    """A text without what may stand in a word or not, and one form of each letter (NFKC)."""
    if text.isascii():
        return text
    return _INVISIBLE.sub("", unicodedata.normalize("NFKC", _INVISIBLE.sub("", text)))


def normalised_words(text: str) -> list[str]:
    """Words in order without case, each letter in one form: `ﬁ` is fi, `ß` is ss, `İ` and `ı` i.

    Vowel points of Arabic and Hebrew and invisible characters don't count.
    """
    folded = _compatible(text).casefold()
    if not folded.isascii():
        folded = folded.replace(_DOT, "").translate(_ONE_LETTER)
    return split_words(folded)


_OVER_A_LINE_END = f"(?<=[{_HAN_AND_KANA}])[ \\n](?=[{_HAN_AND_KANA}])"
_UNSPACED_RUN = f"{_CHARACTER.pattern}(?:{_CHARACTER.pattern}|{_OVER_A_LINE_END})*"
_SEARCHED = re.compile(f"{_UNSPACED_RUN}|{_run_of_letters(_UNSPACED)}")
_HANGUL = re.compile("[\uac00-\ud7a3]{3,}")


def search_words(text: str) -> list[str]:
    """Words by which a text is found, in lower case, of two letters or more.

    Where a script has no spaces: its characters, and each two that stand side by side, which find
    about as much as a dictionary's words (Nie, Gao, Zhang & Zhou 2000); a line may end between
    them. Words of Korean carry their particles: each two of their syllables are words too (Lee &
    Ahn 1996). An underscore counts as a letter here, as in the pattern by which BM25's published
    figures were made.
    """
    found: list[str] = []
    for run in _SEARCHED.findall(_compatible(text).lower().replace(_DOT, "")):
        if UNSPACED.match(run):
            characters = _CHARACTER.findall(run)
            found += characters
            found += map("".join, pairwise(characters))
        elif len(run) > 1:
            found.append(run)
            if _HANGUL.fullmatch(run):
                found += map("".join, pairwise(run))
    return found


_RAISED = "ª²³¹º¼½¾"  # more often the mark of a footnote than part of a word
_WRITTEN = _run_of_letters("_", _RAISED)
WRITTEN_WORD = re.compile(rf"{_WRITTEN}(?:[-'’./]{_WRITTEN})*")
"""A word as it is written, with the signs within; a whole clause where a script has no spaces."""

# There a run of one script, in Chinese without the most common characters, is likely a word or two.
_RUN_OF_ONE_SCRIPT = re.compile(
    f"[{_KATAKANA}]+|(?:(?![的了是在和与及或等之为以而并有不这那个们也都就被把对向会它])[{_HAN}])+"
    rf"|[{_THAI_TO_KHMER}]+|[^\W{_UNSPACED}]+"
)
_LONGEST_RUN = 12  # characters: beyond, it is a clause
CHARACTERS_PER_UNSPACED_WORD = 2


def word_set(text: str) -> frozenset[str]:
    """The words of a text, each once."""
    return frozenset(split_words(text))


def count_words(text: str) -> int:
    """Words of a text as written; where a script has no spaces, two characters count as one."""
    return sum(
        max(1, len(word) // CHARACTERS_PER_UNSPACED_WORD) if UNSPACED.search(word) else 1
        for word in WRITTEN_WORD.findall(text)
    )


def split_terms(text: str) -> list[str]:
    """Words that may be terms; of a script without spaces, runs that are likely words."""
    return list(chain.from_iterable(map(_terms_of_word, WRITTEN_WORD.findall(text))))


def _terms_of_word(word: str) -> list[str]:
    if not UNSPACED.search(word):
        return [word]
    runs: list[str] = _RUN_OF_ONE_SCRIPT.findall(word)
    return [run for run in runs if 2 <= len(run) <= _LONGEST_RUN]
