"""What each kind of question can ask about a passage, best first."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain
from typing import Literal

from embed_assets.questions.extractive.passages import Passage
from embed_assets.questions.extractive.salience import (
    STOP_WORDS,
    Salience,
    fold,
    may_be_term,
    salient_terms,
)
from embed_assets.words import WRITTEN_WORD, count_words, split_terms, word_set

TERMS_PER_QUERY = 4
LONGEST_TERM = 5  # words that a defined term may have

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


def keyword_questions(passage: Passage, salience: Salience) -> list[str]:
    """The most salient terms, a few per query, in the order in which the text has them."""
    terms = salient_terms(passage, salience)[: 3 * TERMS_PER_QUERY]
    starts = range(0, len(terms), TERMS_PER_QUERY)
    queries = (terms[start : start + TERMS_PER_QUERY] for start in starts)
    return [" ".join(sorted(query, key=passage.terms.index)) for query in queries]


_IS_A = re.compile(
    r"^(?P<term>(?:(?:an?|the)\s)?[^,;:()]+?)\s(?:\([^()]{1,40}\)\s)?(?P<verb>is|are)\s"
    r"(?:an?|the|any|one of|defined as|called|known as)\s",
    re.I,
)
_MEANS = re.compile(r"^(?P<term>[^,;:()]+?)\s(?:means|refers to|stands for|denotes)\s", re.I)
_ARTICLE = re.compile(r"(?:an?|the)\s", re.I)
_SENTENCE_END = re.compile(r"[.!?]\s")
_ACRONYM = re.compile(r"\((?P<short>[A-Z][A-Z0-9]{1,5})s?\)")


def definition_questions(passage: Passage, salience: Salience) -> list[str]:
    """`What is X?` where the chunk says what X is; in other languages X and its heading.

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
        has_article = _ARTICLE.match(self.term)
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
        and not _SENTENCE_END.search(term)
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


def question_key(question: str) -> str:
    """What makes two questions equal: their words, without case, signs and English articles."""
    words = (word.casefold() for word in WRITTEN_WORD.findall(question))
    return " ".join(word for word in words if word not in ("a", "an", "the"))
