"""What a word is."""

import re
import unicodedata
from itertools import chain

# Words are runs of anything but space, punctuation and symbols. (Python's \w breaks the words of
# Hindi, Thai and others at each vowel sign.)
_SPACES_AND_SIGNS = (
    r"\s\x00-\x1f!-/:-@\[-`{-~\u00a1-\u00b4\u00b6-\u00bf\u00d7\u00f7\u0964\u0965\u060c\u061b\u061f"
    r"\u2010-\u206f\u2190-\u22ff\u2500-\u27bf\u3000-\u303f\uff01-\uff0f\uff1a-\uff20\uff3b-\uff65"
)
WORD = re.compile(rf"[^{_SPACES_AND_SIGNS}]+(?:[-'’./][^{_SPACES_AND_SIGNS}]+)*")
# Chinese, Japanese, Thai, Lao, Burmese and Khmer put no spaces between words. There a run of one
# script, in Chinese without the most common characters, is likely a word or two.
_HAN, _KATAKANA = r"\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff", r"\u30a0-\u30ff"
_HIRAGANA, _THAI_TO_KHMER = r"\u3040-\u309f", r"\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"
UNSPACED = re.compile(f"[{_HAN}{_KATAKANA}{_HIRAGANA}{_THAI_TO_KHMER}]")
_RUN_OF_ONE_SCRIPT = re.compile(
    f"[{_KATAKANA}]+|(?:(?![的了是在和与及或等之为以而并有不这那个们也都就被把对向会它])[{_HAN}])+"
    rf"|[{_THAI_TO_KHMER}]+|[^\W{_HAN}{_KATAKANA}{_HIRAGANA}{_THAI_TO_KHMER}]+"
)
_LONGEST_RUN = 12  # characters: beyond, it is a clause
CHARACTERS_PER_UNSPACED_WORD = 2


def word_set(text: str) -> frozenset[str]:
    """The words of a text, each once."""
    return frozenset(WORD.findall(text))


def count_words(text: str) -> int:
    """Words of a text; where a script has no spaces, two characters count as one."""
    return sum(
        max(1, len(word) // CHARACTERS_PER_UNSPACED_WORD) if UNSPACED.search(word) else 1
        for word in WORD.findall(text)
    )


def split_terms(text: str) -> list[str]:
    """Words that may be terms; of a script without spaces, runs that are likely words."""
    return list(chain.from_iterable(map(_terms_of_word, WORD.findall(text))))


def _terms_of_word(word: str) -> list[str]:
    if not UNSPACED.search(word):
        return [word]
    runs: list[str] = _RUN_OF_ONE_SCRIPT.findall(word)
    return [run for run in runs if 2 <= len(run) <= _LONGEST_RUN]


# Chinese, Japanese, Thai, Lao, Burmese and Khmer put no spaces between words: there a character
# counts as one.
_ALONE = r"\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"
_COMPARED = re.compile(rf"[{_ALONE}]|[^\W_{_ALONE}]+")


def normalised_words(text: str) -> list[str]:
    """Words in order without case and signs, letters in their compatible form (NFKC): `ﬁ` is fi."""
    return _COMPARED.findall(unicodedata.normalize("NFKC", text).casefold())
