"""Kinds of extractive questions that the package doesn't ask: headings and sentences.

benchmarks/extractive_mix.py measures them beside the package's kinds. Both are published ways of
making pairs of a query and a passage without labels:

- `heading`: the section's heading, the author's own label of the text.
- `sentence`: a sentence of the chunk without its markup. In the inverse cloze task (Lee, Chang &
  Toutanova, ACL 2019) the sentence stays in its passage in one case of ten. In independent cropping
  (Izacard et al., Contriever, TMLR 2022) both crops may share text, as here.
"""

import re
import unicodedata
from collections.abc import Iterable

from embed_assets.questions.extractive.passages import Passage, Table
from embed_assets.questions.extractive.salience import Salience, fold, may_be_term, salient_terms
from embed_assets.words import (
    CHARACTERS_PER_UNSPACED_WORD,
    WRITTEN_WORD,
    count_words,
    split_terms,
    word_set,
)

SHORTEST_SENTENCE, LONGEST_SENTENCE = 5, 30  # words
POINTS_ELSEWHERE = word_set(
    """
    it this that these those they he she we there here such both its their his her however
    therefore thus hence then also but and or so
    """
)


def heading_questions(passage: Passage, salience: Salience) -> list[str]:
    """The heading as a query; then with the one above it; then with the chunk's own terms.

    The later forms are for headings that say little (`Overview`) or stand over several chunks.
    """
    if not passage.headings:
        return []
    heading = passage.headings[-1]
    says_enough = sum(map(may_be_term, map(fold, split_terms(heading)))) > 1
    above = f"{passage.headings[-2]}: {heading}" if len(passage.headings) > 1 else heading
    known = set(map(fold, split_terms(above)))
    terms = [term for term in salient_terms(passage, salience) if fold(term) not in known][:2]
    alone = [ask_about_heading(heading, passage.is_english)] if says_enough else []
    own = " ".join(sorted(terms, key=passage.terms.index))
    narrowed = f"{heading if says_enough else above}: {own}"
    return [*alone, above, narrowed] if terms else [*alone, above]


def ask_about_heading(heading: str, is_english: bool) -> str:
    """`How do you go about opening the housing?`; other headings stay as they are."""
    if not is_english or heading.isupper():
        return heading
    if re.match(r"(?:how|what|why|when|where|who|which|can|do|does|is|are) ", heading, re.I):
        return heading if heading.endswith("?") else f"{heading}?"
    if re.match(r"\w{2,}ing (?:the|an?|your|its|this|these) ", heading, re.I):
        return f"How do you go about {heading[0].lower()}{heading[1:]}?"
    return heading


def sentence_questions(passage: Passage, salience: Salience) -> list[str]:
    """Sentences that stand on their own, the most telling first; else the rows of the tables."""
    sentences = [crop(s) for s in passage.sentences if is_prose(s)]
    telling = sorted(sentences, key=lambda s: says_little(s, salience))
    return telling or [row for table in passage.tables for row in rows_as_text(table)]


def is_prose(sentence: str) -> bool:
    """Long enough, and mostly letters: no entry of a table of contents, no formula."""
    letters = sum(unicodedata.category(c)[0] in "LM" for c in sentence)  # M: vowel signs
    signs = sum(not c.isspace() for c in sentence)
    return count_words(sentence) >= SHORTEST_SENTENCE and 10 * letters >= 7 * signs


def says_little(sentence: str, salience: Salience) -> tuple[bool, float]:
    """A sort key: first what needs no sentence before it, then by mean salience of its words."""
    words = split_terms(sentence)
    points_elsewhere = bool(words) and words[0].casefold() in POINTS_ELSEWHERE
    weights = salience.weigh(words)
    return points_elsewhere, -sum(weights.values()) / max(1, len(words))


def crop(sentence: str) -> str:
    """A sentence that is too long ends at its last comma that makes it short enough, or is cut."""
    if count_words(sentence) <= LONGEST_SENTENCE:
        return sentence
    ends = [match.start() for match in re.finditer(r"[,;:，；：、]\s*|\s[–—]\s", sentence)]
    fitting = [end for end in ends if count_words(sentence[:end]) <= LONGEST_SENTENCE]
    if fitting and count_words(sentence[: fitting[-1]]) >= LONGEST_SENTENCE // 2:
        return sentence[: fitting[-1]]
    words = [match.end() for match in WRITTEN_WORD.finditer(sentence)]
    if len(words) > LONGEST_SENTENCE:
        return sentence[: words[LONGEST_SENTENCE - 1]]
    return sentence[: LONGEST_SENTENCE * CHARACTERS_PER_UNSPACED_WORD]


def rows_as_text(table: Table) -> Iterable[str]:
    """`Mode: Auto, When it heats: Under 12 °C` for each row."""
    for row in table.rows:
        if table.header:
            pairs = zip(table.header, row, strict=False)
            text = ", ".join(f"{name}: {cell}" if name else cell for name, cell in pairs if cell)
        else:
            text = ", ".join(filter(None, row))
        if count_words(text) >= SHORTEST_SENTENCE:
            yield crop(text)
