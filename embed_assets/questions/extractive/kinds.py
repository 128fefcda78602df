"""What each kind of question can ask about a passage, best first."""

import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Literal

from embed_assets.questions.extractive.passages import Passage, Table
from embed_assets.questions.extractive.salience import (
    STOP_WORDS,
    Salience,
    fold,
    may_be_term,
    salient_terms,
)
from embed_assets.words import (
    CHARACTERS_PER_UNSPACED_WORD,
    WRITTEN_WORD,
    count_words,
    split_terms,
    word_set,
)

Kind = Literal["heading", "keywords", "definition", "sentence"]

SHORTEST_SENTENCE, LONGEST_SENTENCE = 5, 30  # words
TERMS_PER_QUERY = 4
LONGEST_TERM = 5  # words that a defined term may have

_POINTS_ELSEWHERE = word_set(
    """
    it this that these those they he she we there here such both its their his her however
    therefore thus hence then also but and or so
    """
)

_WITHIN_TERMS = word_set("a an at by for from in of on over the to under up with without")
_LABELS = word_set(
    """
    note notes warning caution danger important tip tips example examples figure fig table step
    source sources see references answer question solution remedy contents abstract keywords
    appendix section chapter page date caption author authors email tel phone fax http https
    """
)
_SAYS_NOTHING = word_set(
    """
    aim answer aspect case difference effect fact feature features finding findings following goal
    idea issue main number objective observation point principal problem property purpose question
    reason result results rest tool way
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
    alone = [_ask_about_heading(heading, passage.is_english)] if says_enough else []
    narrowed = f"{heading if says_enough else above}: {' '.join(_as_written(terms, passage))}"
    return [*alone, above, narrowed] if terms else [*alone, above]


def _ask_about_heading(heading: str, is_english: bool) -> str:
    """`How do you go about opening the housing?`; other headings stay as they are."""
    if not is_english or heading.isupper():
        return heading
    if re.match(r"(?:how|what|why|when|where|who|which|can|do|does|is|are) ", heading, re.I):
        return heading if heading.endswith("?") else f"{heading}?"
    if re.match(r"\w{2,}ing (?:the|an?|your|its|this|these) ", heading, re.I):
        return f"How do you go about {heading[0].lower()}{heading[1:]}?"
    return heading


def keyword_questions(passage: Passage, salience: Salience) -> list[str]:
    """The most salient terms, a few per query, in the order in which the text has them."""
    terms = salient_terms(passage, salience)[: 3 * TERMS_PER_QUERY]
    starts = range(0, len(terms), TERMS_PER_QUERY)
    return [" ".join(_as_written(terms[i : i + TERMS_PER_QUERY], passage)) for i in starts]


def _as_written(terms: Sequence[str], passage: Passage) -> list[str]:
    return sorted(terms, key=passage.terms.index)


_IS_A = re.compile(
    r"^(?P<term>(?:(?:an?|the)\s)?[^,;:()]+?)\s(?:\([^()]{1,40}\)\s)?(?P<verb>is|are)\s"
    r"(?:an?|the|any|one of|defined as|called|known as)\s",
    re.I,
)
_MEANS = re.compile(r"^(?P<term>[^,;:()]+?)\s(?:means|refers to|stands for|denotes)\s", re.I)
_ACRONYM = re.compile(r"\((?P<short>[A-Z][A-Z0-9]{1,5})s?\)")


def definition_questions(passage: Passage, salience: Salience) -> list[str]:
    """What the chunk says what it is: `What is X?`; in other languages X and its heading.

    After those, the rows of tables that are no glossaries, as `row, column` queries.
    """
    labels = (label for label in passage.labels if count_words(label) <= 3)
    in_glossaries = (row[0] for table in passage.tables if table.is_glossary for row in table.rows)
    defined = [
        *filter(None, map(_defined_by, passage.sentences)),
        *(Defined(term, "is") for term in chain(labels, in_glossaries)),
    ]
    heading = passage.headings[-1] if passage.headings else ""
    asked = [
        what.as_question() if passage.is_english else what.under(heading)
        for what in defined
        if _is_definable(what.term, passage)
    ]
    acronyms = _acronyms(passage) if passage.is_english else []
    return [*asked, *acronyms, *_row_queries(passage)]


@dataclass(frozen=True)
class Defined:
    """What a chunk defines, and whether it speaks of one or of several."""

    term: str
    verb: Literal["is", "are"]

    def as_question(self) -> str:
        """`What is the marrow buoy?`."""
        has_article = re.match(r"(?:an?|the)\s", self.term, re.I)
        term = self.term[0].lower() + self.term[1:] if has_article else self.term
        return f"What {self.verb} {term}?"

    def under(self, heading: str) -> str:
        """The bare term, with the heading, for languages other than English."""
        return (
            f"{self.term}, {heading}"
            if question_key(heading) not in ("", question_key(self.term))
            else self.term
        )


def _defined_by(sentence: str) -> Defined | None:
    if is_a := _IS_A.match(sentence):
        return Defined(is_a["term"], "are" if is_a["verb"].lower() == "are" else "is")
    means = _MEANS.match(sentence)
    return Defined(means["term"], "is") if means else None


def _is_definable(term: str, passage: Passage) -> bool:
    """Whether a text may be the name of something; `the result` only where it is the heading's."""
    words = [word.casefold() for word in WRITTEN_WORD.findall(term)]
    article = words[0] if words[:1] in (["a"], ["an"], ["the"]) else ""
    core = words[1:] if article else words
    if not core or len(core) > LONGEST_TERM or core[0] in STOP_WORDS or core[0][0].isdigit():
        return False
    if article == "the" and len(core) == 1:
        return fold(core[0]) in map(fold, split_terms(" ".join(passage.headings)))
    return (
        not (_LABELS | _SAYS_NOTHING).intersection(core)
        and not (STOP_WORDS - _WITHIN_TERMS).intersection(core)
        and not re.search(r"[.!?]\s", term)
        and any(map(may_be_term, map(fold, split_terms(term))))
    )


def _acronyms(passage: Passage) -> Iterable[str]:
    """`What does ICT stand for?` where the words before `(ICT)` begin with its letters."""
    for block in passage.blocks:
        for match in _ACRONYM.finditer(block):
            words = WRITTEN_WORD.findall(block[: match.start()].replace("-", " "))
            initials = "".join(word[0] for word in words[-len(match["short"]) :])
            if initials.casefold() == match["short"].casefold():
                yield f"What does {match['short']} stand for?"


def _row_queries(passage: Passage) -> Iterable[str]:
    """`Greatest depth, H5`: a row's label and one column, another column in each row."""
    for table in passage.tables:
        if table.is_glossary or len(table.header) < 2:
            continue
        for number, row in enumerate(table.rows):
            column = 1 + number % (len(table.header) - 1)
            filled = column < len(row) and row[column] and table.header[column]
            if filled and any(map(may_be_term, map(fold, split_terms(row[0])))):
                yield f"{row[0]}, {table.header[column]}"


def sentence_questions(passage: Passage, salience: Salience) -> list[str]:
    """Sentences that stand on their own, the most telling first; else the rows of the tables."""
    sentences = [_crop(s) for s in passage.sentences if _is_prose(s)]
    telling = sorted(sentences, key=lambda s: _says_little(s, salience))
    return telling or [row for table in passage.tables for row in _rows_as_text(table)]


def _is_prose(sentence: str) -> bool:
    """Long enough, and mostly letters: no entry of a table of contents, no formula."""
    letters = sum(unicodedata.category(c)[0] in "LM" for c in sentence)  # M: vowel signs
    signs = sum(not c.isspace() for c in sentence)
    return count_words(sentence) >= SHORTEST_SENTENCE and 10 * letters >= 7 * signs


def _says_little(sentence: str, salience: Salience) -> tuple[bool, float]:
    """A sort key: first what needs no sentence before it, then by mean salience of its words."""
    words = split_terms(sentence)
    points_elsewhere = bool(words) and words[0].casefold() in _POINTS_ELSEWHERE
    weights = salience.weigh(words)
    return points_elsewhere, -sum(weights.values()) / max(1, len(words))


def _crop(sentence: str) -> str:
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


def _rows_as_text(table: Table) -> Iterable[str]:
    """`Mode: Auto, When it heats: Under 12 °C` for each row."""
    for row in table.rows:
        if table.header:
            pairs = zip(table.header, row, strict=False)
            text = ", ".join(f"{name}: {cell}" if name else cell for name, cell in pairs if cell)
        else:
            text = ", ".join(filter(None, row))
        if count_words(text) >= SHORTEST_SENTENCE:
            yield _crop(text)


CANDIDATES: Mapping[Kind, Callable[[Passage, Salience], list[str]]] = {
    "heading": heading_questions,
    "keywords": keyword_questions,
    "definition": definition_questions,
    "sentence": sentence_questions,
}
"""For each kind, all it can ask about a passage, best first."""


def question_key(question: str) -> str:
    """What makes two questions equal: their words, without case, signs and English articles."""
    words = (word.casefold() for word in WRITTEN_WORD.findall(question))
    return " ".join(word for word in words if word not in ("a", "an", "the"))
